"""What a model is: backbone -> parts of pooling and neck -> embedding.

Where's Whale-do? has one part: some stages pooled, concatenated and batch-normalised. The humpbacks have four stripes of 512 numbers.

On disk a model is two files of one name: NAME.npz (its arrays, read without unpickling) and NAME.json (its spec).
Runs on timm 0.5.4 with torch 1.8 as well as on today's.
"""

from pathlib import Path
from typing import Dict, Optional, Sequence

import numpy as np
import timm
import torch
from torch import nn

from solution import recipe
from solution.files import InputError, arrays, write_arrays, write_json

# Names that timm gave these weights before 0.9; other architectures only lost the part behind the dot.
OLD_NAMES = {
    "tf_efficientnet_b2.ns_jft_in1k": "tf_efficientnet_b2_ns",
    "tf_efficientnet_b3.ns_jft_in1k": "tf_efficientnet_b3_ns",
    "tf_efficientnet_b4.ns_jft_in1k": "tf_efficientnet_b4_ns",
    "tf_efficientnet_b5.ns_jft_in1k": "tf_efficientnet_b5_ns",
    "tf_efficientnetv2_m.in21k_ft_in1k": "tf_efficientnetv2_m_in21ft1k",
}


LUMINANCE = 0.299, 0.587, 0.114  # of R, G and B; ITU-R BT.601


def backbone_name(backbone: str) -> str:
    """The backbone's name in the timm that is installed; InputError where it knows none such."""
    known = timm.list_models() + timm.list_models(pretrained=True)
    tagged = any("." in name for name in known)  # since 0.9, where a wrong tag would silently be another weight
    for name in (backbone, OLD_NAMES.get(backbone), None if tagged else backbone.split(".")[0]):
        if name in known:
            return name
    raise InputError(f"model.backbone: timm {timm.__version__} has no {backbone!r}{recipe.nearest(backbone, known)}")


class GeM(nn.Module):
    """Generalised mean pooling (mean(clamp(x, 1e-6)^p))^(1/p) over the places of a map, (n, c, h, w) -> (n, c), in float32.

    p = 1 is the mean, p -> infinity the maximum. Radenovic et al., Fine-tuning CNN image retrieval with no human annotation.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.float().clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


class Neck(nn.Sequential):
    """What is pooled (n, pooled) to one part of the embedding (n, width): batch normalisation alone, or with `part_width` numbers
    BN -> dropout -> linear -> CELU -> BN."""

    def __init__(self, pooled: int, model: recipe.Model) -> None:
        layers = [nn.BatchNorm1d(pooled)]
        if model.part_width is not None:
            layers += [nn.Dropout(model.dropout), nn.Linear(pooled, model.part_width), nn.CELU(), nn.BatchNorm1d(model.part_width)]
        super().__init__(*layers)
        self.width = model.part_width or pooled


class EmbeddingModel(nn.Module):
    """Images (n, 3, height, width), normalised, to embeddings (n, width) float32, their parts one after the other. Weights are
    random until loaded."""

    def __init__(self, model: recipe.Model) -> None:
        super().__init__()
        name = backbone_name(model.backbone)
        try:
            self.backbone = timm.create_model(name, features_only=True, out_indices=model.stages)
        except (AssertionError, RuntimeError, IndexError, TypeError) as error:
            raise InputError(f"model.backbone: {name} gives no feature maps for model.stages {list(model.stages)}: {error}") from None
        self.parts, self.stripes = model.parts, model.cut == "stripes"
        self.pooling = GeM(model.gem_p)
        self.necks = nn.ModuleList(Neck(sum(self.backbone.feature_info.channels()), model) for _ in range(model.parts))
        self.part_width = self.necks[0].width
        self.width = self.part_width * model.parts

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = zip(*(self.cut(maps) for maps in self.backbone(images)))  # of each part, the maps of all stages
        pooled = [torch.cat([self.pooling(maps) for maps in part], dim=1) for part in seen]
        return torch.cat([neck(part) for neck, part in zip(self.necks, pooled)], dim=1)

    def cut(self, maps: torch.Tensor) -> Sequence[torch.Tensor]:
        """What each part sees of maps (n, c, h, w): stripes of the width, the first ones wider where it does not divide, or everything."""
        if not self.stripes:
            return [maps] * self.parts
        if maps.shape[3] < self.parts:
            raise InputError(f"model.parts: {self.parts} stripes do not fit into a feature map {maps.shape[3]} wide; take larger images, fewer parts, or model.cut branches")
        return torch.tensor_split(maps, self.parts, dim=3)


def path_of(backbone: nn.Module, name: str) -> Optional[str]:
    """Where in a backbone the module lies that timm's feature_info calls `name`; None where there is none such."""
    modules = dict(backbone.named_modules())
    return next((path for path in (name, name.replace(".", "_")) if path in modules), None)  # the second as FeatureListNet has them


def normalised(images: torch.Tensor, model: recipe.Model) -> torch.Tensor:
    """Images (n, size, size, 3) uint8 to (n, 3, size, size) float32 with the model's mean and std, stored channels last."""
    mean, std, luminance = (torch.tensor(values, device=images.device) for values in (model.mean, model.std, LUMINANCE))
    pixels = (images.float() @ luminance)[..., None] if model.grey else images.float()
    return ((pixels - 255 * mean) / (255 * std)).permute(0, 3, 1, 2)


def save(model: EmbeddingModel, spec: recipe.Spec, weights: Path) -> Path:
    """Writes WEIGHTS/NAME.json, then WEIGHTS/NAME.npz: a model is there once its arrays are."""
    write_json(recipe.plain(spec), weights / f"{spec.name}.json")
    return write_arrays(weights / f"{spec.name}.npz", **{name: tensor.cpu().numpy() for name, tensor in model.state_dict().items()})


def load(spec: recipe.Spec, weights: Path) -> EmbeddingModel:
    """The model with its weights, strictly: every array by name and shape. In evaluation mode."""
    path = weights / f"{spec.name}.npz"
    values = arrays(path)
    if hasattr(torch.device, "__enter__"):  # PyTorch 2 lays a model out without memory, so that a spec cannot take more than its arrays have
        with torch.device("meta"):
            outline = EmbeddingModel(spec.model)
        check(outline.state_dict(), values, path)
    model = EmbeddingModel(spec.model)
    fill(model, values, path)
    return model.eval()


def fill(module: nn.Module, values: Dict[str, np.ndarray], path: Path) -> None:
    """Loads arrays into a module, strictly; half-precision arrays become the module's own type."""
    check(module.state_dict(), values, path)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in values.items()})


def check(wanted: Dict[str, torch.Tensor], values: Dict[str, np.ndarray], path: Path) -> None:
    """InputError where arrays are not the finite numbers, by name and shape, that a state dict holds."""
    for name in sorted(set(wanted) ^ set(values)):
        raise InputError(f"{path}: array {name} is {'missing' if name in wanted else 'not part of this model'}; was it trained with another spec?")
    for name, tensor in wanted.items():
        if values[name].dtype.kind not in "fiu":
            raise InputError(f"{path}: array {name} holds {values[name].dtype}, not numbers")
        if tuple(tensor.shape) != values[name].shape:
            raise InputError(f"{path}: array {name} has shape {values[name].shape}, this model needs {tuple(tensor.shape)}")
        if not torch.from_numpy(values[name]).to(tensor.dtype).isfinite().all():
            raise InputError(f"{path}: array {name} holds numbers that are not finite; train the model again")
