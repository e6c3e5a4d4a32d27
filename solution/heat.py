"""Where two photographs are alike to an ensemble: heat on both of them, from the gradient of their similarity.

    cosine, heat = Heat(specs, weights, "cpu")(squares, pairs)        # (p,) and, by box margin, (p, 2, g, g)

A place is hot where an activation is strong that makes this pair more similar: LayerCAM (Jiang et al., LayerCAM: Exploring
hierarchical class activation maps for localization, IEEE TIP 2021), the sum over channels of activation x positive gradient, with
the pair's cosine in the place of a class score, so that other partners give other heat. The maps are those that the pooling
sees, of every stage, model and mirror image, and the gradient is taken from the cosine back to them and no further: of each stage
what it gives by itself. As generalised means are homogeneous, the heat of a map sums to pooled x gradient over the channels that
raise the cosine; no stage, model or mirror image counts more than by that.
"""

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch.nn import functional

from solution import models, recipe


class Look(NamedTuple):
    """What a model makes of images or their mirror images: embeddings (n, width) and the maps (n, c, h, w) they were pooled from."""

    embedding: torch.Tensor
    maps: List[torch.Tensor]


class Heat:
    """The models of an ensemble on one device, in float32: half precision would lose small gradients."""

    def __init__(self, specs: Sequence[recipe.Spec], weights: Path, device: str) -> None:
        self.specs, self.device = list(specs), torch.device(device)
        self.models = [models.load(spec, weights).requires_grad_(False).to(self.device, memory_format=torch.channels_last) for spec in specs]

    def __call__(self, squares: Sequence[torch.Tensor], pairs: np.ndarray) -> Tuple[np.ndarray, Dict[float, np.ndarray]]:
        """Each model's view of n images (n, size, size, 3) uint8 and pairs of their rows (p, 2) -> the cosines (p,) as rank.py has them
        and, for each box margin of the models, the heat (p, 2, g, g) on the crop of that margin, g the side of the finest map.

        Every image runs once through each backbone, however many pairs it is in.
        """
        sides = torch.from_numpy(np.ascontiguousarray(pairs.T).ravel()).to(self.device)  # all queries, then all matches
        looks = [self.looks(number, images.to(self.device), sides) for number, images in enumerate(squares)]
        joined = [(spec.predict, *(look.embedding for look in both)) for spec, both in zip(self.specs, looks)]
        cosine = similarity(combined(joined))
        maps = [each for both in looks for look in both for each in look.maps]
        slopes = iter(torch.autograd.grad(cosine.sum(), maps))
        side = max(max(each.shape[2:]) for each in maps)
        heat: Dict[float, torch.Tensor] = {}
        for spec, both in zip(self.specs, looks):
            for look, mirrored in zip(both, (False, True)):
                hot = sum(spread(layer_cam(each, next(slopes)), side) for each in look.maps)
                heat[spec.model.box_margin] = heat.get(spec.model.box_margin, 0) + (hot.flip(2) if mirrored else hot)
        return cosine.detach().cpu().numpy(), {margin: by_pair(hot) for margin, hot in heat.items()}

    def looks(self, number: int, images: torch.Tensor, rows: torch.Tensor) -> List[Look]:
        """What one model makes of images[rows] and, where its recipe uses them, of their mirror images."""
        spec, model = self.specs[number], self.models[number]
        pixels = models.normalised(images, spec.model)
        return [look(model, each, rows) for each in ([pixels] if spec.predict.mirror == "off" else [pixels, pixels.flip(3)])]


def look(model: models.EmbeddingModel, pixels: torch.Tensor, rows: torch.Tensor) -> Look:
    """The embeddings of pixels[rows], with a graph that begins at the maps which the backbone returns, whichever it is."""
    seen: List[torch.Tensor] = []

    def begin_here(module, given, maps):
        seen.extend(each.detach()[rows].requires_grad_() for each in maps)
        return seen

    with model.backbone.register_forward_hook(begin_here):
        return Look(model(pixels), seen)


def combined(joined: Sequence[Tuple]) -> torch.Tensor:
    """fusion.combined for tensors: one row of unit length an image, from each model's recipe.Predict, plain and mirror embeddings."""
    rows, most = [], max(predict.weight for predict, *_ in joined)
    for predict, plain, *mirrored in joined:
        row = with_mirror(predict.mirror, plain, mirrored[0] if mirrored else None)
        row = torch.where(torch.isfinite(row).all(dim=1, keepdim=True), row, torch.zeros_like(row))
        rows.append((functional.normalize(row) if predict.normalise else row) * (predict.weight / most) ** 0.5)
    return functional.normalize(torch.cat(rows, dim=1))


def with_mirror(mirror: str, plain: torch.Tensor, mirrored: Optional[torch.Tensor]) -> torch.Tensor:
    if mirrored is None:
        return plain
    return torch.cat([plain, mirrored], dim=1) if mirror == "concatenate" else (plain + mirrored) / 2


def similarity(rows: torch.Tensor) -> torch.Tensor:
    """The cosines (p,) of p queries and their p matches, unit rows (2 p, d)."""
    queries, matches = rows.chunk(2)
    return (queries * matches).sum(dim=1)


def layer_cam(maps: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Activations and gradients (n, c, h, w) -> heat (n, h, w), never negative; the pooling does not see activations below 0."""
    return torch.nan_to_num(maps.detach().clamp(min=0) * slopes.clamp(min=0), posinf=0.0).sum(dim=1)


def spread(heat: torch.Tensor, side: int) -> torch.Tensor:
    """Heat (n, h, w) on a finer grid (n, side, side), of the same sum."""
    finer = functional.interpolate(heat[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    return finer * (heat.shape[1] * heat.shape[2] / side**2)


def by_pair(heat: torch.Tensor) -> np.ndarray:
    return torch.stack(heat.chunk(2), dim=1).cpu().numpy()
