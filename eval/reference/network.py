"""What the published system does with one model: every photograph decoded and resized for it, eager NCHW, the mirror image after.

Reads photographs and WEIGHTS/MODEL.npz; returns embeddings. float32 on a CPU, half precision by autocast on CUDA.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.utils.data import DataLoader, Dataset

from eval.files import InputError

BATCH = 32  # images, as in solution.embed
EDGES = ["x0", "y0", "x1", "y1"]


class Photographs(Dataset):
    """Each photograph as a model sees it: (3, size, size) float32, normalised."""

    def __init__(self, table: pd.DataFrame, spec: dict) -> None:
        self.paths, self.size, self.spec = table.path.tolist(), spec["size"], spec
        self.boxes = table[EDGES].apply(pd.to_numeric).to_numpy(float) if set(EDGES) <= set(table) else np.full((len(table), 4), np.nan)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> np.ndarray:
        try:
            pixels = np.asarray(self.square(number))
        except Exception as error:  # each of Pillow's decoders has its own kinds for damaged bytes
            raise InputError(f"{self.paths[number]}: not a readable image: {error}") from None
        return normalised(pixels, self.spec)

    def square(self, number: int) -> Image.Image:
        """The photograph upright, cut to its box where it has one, squashed to the model's size."""
        with Image.open(self.paths[number]) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        if not np.isnan(self.boxes[number]).any():
            left, top, right, bottom = self.boxes[number].round().astype(int)
            image = image.crop((max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)))
        # Columns before rows, as Pillow's one call did when this was published; today's chooses by cost, and rounds otherwise.
        across = image.resize((self.size, image.height), Image.Resampling.BICUBIC)
        return across.resize((self.size, self.size), Image.Resampling.BICUBIC)


def normalised(pixels: np.ndarray, spec: dict) -> np.ndarray:
    """Images (..., size, size, 3) uint8 as the network takes them: (..., 3, size, size) float32."""
    return np.moveaxis((pixels.astype(np.float32) / 255 - np.float32(spec["mean"])) / np.float32(spec["std"]), -1, -3)


class Network(nn.Module):
    """Images (n, 3, size, size) -> embeddings (n, d): GeM of each of the backbone's maps, side by side, then batch normalisation.

    GeM: (mean(clamp(x, 1e-6)^p))^(1/p) over the places of a map.
    """

    def __init__(self, spec: dict) -> None:
        super().__init__()
        self.backbone = timm.create_model(spec["backbone"], features_only=True, out_indices=spec["stages"])
        self.p = spec["gem_p"]
        self.neck = nn.BatchNorm1d(sum(self.backbone.feature_info.channels()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = [maps.clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p) for maps in self.backbone(images)]
        return self.neck(torch.cat(pooled, dim=1))


def loaded(spec: dict, weights: Path) -> Network:
    """The network with the arrays of WEIGHTS/MODEL.npz, all of them and no others."""
    path = weights / f"{spec['name']}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name.replace("necks.0.0.", "neck."): torch.from_numpy(file[name]) for name in file.files}
        network = Network(spec)
        network.load_state_dict(arrays)
    except (zipfile.BadZipFile, EOFError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not the weights of {spec['backbone']}: {' '.join(str(error).split())[:200]}; train or pack it again") from None
    return network.eval()


@torch.no_grad()
def of_pixels(network: Network, spec: dict, pixels: np.ndarray) -> np.ndarray:
    """Embeddings (n, d) float32 of images (n, size, size, 3) uint8."""
    return torch.cat([network(images) for images in torch.from_numpy(normalised(pixels, spec)).contiguous().split(BATCH)]).numpy()


@torch.no_grad()
def embedded(spec: dict, weights: Path, table: pd.DataFrame, device: str, workers: int | None, clock) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, d) float32 of the photographs of `table` and of their mirror images. `clock`: see predict.Clock."""
    cuda = device != "cpu" and torch.cuda.is_available()
    place = torch.device("cuda" if cuda else "cpu")
    with clock("load"):
        network = loaded(spec, weights).to(place)
    processes = workers if workers is not None else min(os.cpu_count() or 1, 8) if cuda else 1
    batches, parts = iter(DataLoader(Photographs(table, spec), BATCH, num_workers=processes)), ([], [])
    for _ in range(0, len(table), BATCH):
        with clock("decode"):  # what is waited for
            images = following(batches)
        with clock("forward"), torch.autocast("cuda", torch.float16, enabled=cuda):
            images = images.to(place)
            for part, seen in zip(parts, [images] if spec["mirror"] == "off" else [images, images.flip(3)]):
                part.append(network(seen).float().cpu().numpy())
    return np.concatenate(parts[0]), np.concatenate(parts[1] or parts[0])


def following(batches) -> torch.Tensor:
    try:
        return next(batches)
    except InputError as error:  # of a process that decodes: it comes with that process's traceback before its words
        raise InputError(str(error).rsplit("InputError: ", 1)[-1].strip()) from None
