"""A photograph place by place: the cells of a model's first feature map as unit vectors, and how much those of two photographs have in common.

    eye = Eye(spec, weights, device)                        # of a model whose recipe has predict.local_size
    cells = eye.cells(pixels, mirrored)                     # (n, cells, DIMENSIONS)
    value = evidence(cells, queries, candidates)            # (q, k)

A cell sees a patch of the photograph. The layers that make the map, and a projection of its channels, have learned what tells animals apart (WEIGHTS/local/MODEL.npz,
by local_fit.py from training photographs): stripes count, grass and water, which look alike in every photograph, hardly do. Two photographs share as much as their
cells find cells of the other that are much alike and at about the same place. The idea is that of DELF (Noh et al., Large-scale image retrieval with attentive
deep local features, ICCV 2017) with that projection and a threshold in the place of its attention, and a bound on how far a place may have
moved in the place of RANSAC: animals bend.
"""

from dataclasses import replace
from pathlib import Path
from typing import Dict, NamedTuple

import numpy as np
import torch
from torch import nn

from solution import local, models, recipe
from solution.files import InputError, arrays, progress, write_arrays
from solution.torch_engine import TorchEngine

DIMENSIONS = 64  # of a cell, after whitening
ALIKE = 0.6  # cosine from which two cells speak for each other
REACH = 0.375  # of a side: how far apart they may lie
TOGETHER = 4  # candidates of a query compared at once: more than a processor's cache holds take twice as long
RIM = 10  # a map's outer cells, a tenth of its side, see the rim's padding, which is alike in all photographs; they are left out


class Sight(NamedTuple):
    """How a model sees places: channels of a cell (c,) -> (cell - mean) @ projection, of DIMENSIONS numbers or fewer; and, by their names in its
    backbone, the arrays of those layers that learned to see otherwise here than they do for the embedding."""

    mean: np.ndarray
    projection: np.ndarray
    layers: Dict[str, np.ndarray]


LAYERS = "backbone/"  # before their names in the file


def write_sight(sight: Sight, path: Path) -> Path:
    return write_arrays(path, mean=sight.mean, projection=sight.projection, **{LAYERS + name: array for name, array in sight.layers.items()})


def read_sight(path: Path, backbone: nn.Module) -> Sight:
    """InputError where it is none, or not of this backbone."""
    found = arrays(path, ("mean", "projection"))
    mean, projection = found.pop("mean"), found.pop("projection")
    channels = backbone.feature_info.channels()[0]
    if mean.shape != (channels,) or projection.ndim != 2 or len(projection) != channels or not (numbers(mean) and numbers(projection)):
        raise InputError(f"{path}: needs finite mean ({channels}) and projection ({channels}, {DIMENSIONS}); python -m solution.local_fit makes it anew")
    known = backbone.state_dict()
    for key, array in found.items():
        name = key[len(LAYERS) :] if key.startswith(LAYERS) else ""
        if name not in known or array.shape != tuple(known[name].shape) or not numbers(array):
            raise InputError(f"{path}: array {key} is none of this model's layers, in finite numbers; python -m solution.local_fit makes it anew")
    return Sight(mean.astype(np.float32), projection.astype(np.float32), {key[len(LAYERS) :]: array for key, array in found.items()})


def numbers(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.isfinite(array).all())


class Cells(nn.Module):
    """Images (n, 3, size, size), normalised, to the unit vectors of their cells (n, cells * dimensions), row by row."""

    def __init__(self, backbone: nn.Module, sight: Sight, size: int) -> None:
        """Puts the layers of `sight` into the backbone."""
        super().__init__()
        self.backbone = backbone
        self.backbone.load_state_dict({name: torch.from_numpy(array) for name, array in sight.layers.items()}, strict=False)
        self.register_buffer("mean", torch.from_numpy(sight.mean))
        self.register_buffer("projection", torch.from_numpy(sight.projection))
        with torch.no_grad():
            self.width = self.eval()(torch.zeros(1, 3, size, size)).shape[1]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        cells = inner(self.backbone(images)[0]) - self.mean
        return nn.functional.normalize(cells @ self.projection, dim=2).flatten(1)


def inner(maps: torch.Tensor) -> torch.Tensor:
    """The cells (n, cells, c) of maps (n, c, side, side) without their rim."""
    side = maps.shape[3]
    kept = slice(side // RIM, side - side // RIM)
    return maps[:, :, kept, kept].flatten(2).transpose(1, 2)


class Eye:
    """A model that looks at places, on a device."""

    def __init__(self, spec: recipe.Spec, weights: Path, device: str) -> None:
        backbone = models.load(spec, weights).backbone
        sight = read_sight(weights / "local" / f"{spec.name}.npz", backbone)
        own = replace(spec, predict=replace(spec.predict, test_size=spec.predict.local_size))
        self.spec, self.engine = spec, TorchEngine(own, Cells(backbone, sight, spec.predict.local_size).eval(), device)
        self.dimensions = sight.projection.shape[1]

    def cells(self, pixels, mirrored: np.ndarray) -> np.ndarray:
        """The cells (n, cells, dimensions) float16 of all photographs, of those `mirrored` (n,) of their mirror images."""
        found = np.empty((pixels.count, self.engine.width), np.float16)
        for rows, images in progress(pixels.batches(local.view_of(self.spec)), f"{self.spec.name}: places", pixels.steps(pixels.count)):
            for turned in (False, True):
                own = mirrored[rows] == turned
                if own.any():
                    found[rows[own]] = self.engine(np.ascontiguousarray(images[own]), turned)
        return found.reshape(pixels.count, -1, self.dimensions)


def evidence(cells: np.ndarray, queries: np.ndarray, candidates: np.ndarray, device: str = "cpu") -> np.ndarray:
    """How much each query has in common with each of its candidates (q, k); 0 where a candidate is -1.

    cells (n, cells, dimensions): unit vectors. queries (q,), candidates (q, k): their photographs. The value is the sum over the cells i
    of both photographs of max(0, max over near cells j of the other one of <i, j> - ALIKE), divided by the number of cells.
    """
    distant, result = beyond(cells.shape[1]).to(device), np.zeros(candidates.shape)
    for number, (query, row) in enumerate(progress(zip(queries, candidates), "local evidence", len(queries))):  # some large matrix products each
        there = np.flatnonzero(row >= 0)
        if not len(there):  # PyTorch 1.8 knows no largest of nothing
            continue
        own, others = (torch.from_numpy(cells[of]).to(device).float() for of in (query, row[there]))
        result[number, there] = shared(own, others, distant).cpu().numpy()
    return np.round(result, 6)  # so that copies of a photograph are equal


def shared(own: torch.Tensor, others: torch.Tensor, distant: torch.Tensor) -> torch.Tensor:
    """Of cells (cells, d) with those of k others (k, cells, d): (k,). distant (cells, cells): what is added where two cells are too far apart."""
    cells, values = len(own), []
    for some in others.split(TOGETHER):
        alike = (some.flatten(0, 1) @ own.T).view(-1, cells, cells).add_(distant)
        values.append(sum((best - ALIKE).clamp(min=0).sum(1) for best in (alike.amax(1), alike.amax(2))) / cells)
    return torch.cat(values)


def beyond(cells: int) -> torch.Tensor:
    """-2 where two cells of a square map are farther apart than REACH of its side, else 0: (cells, cells)."""
    side = int(round(cells**0.5))
    row, column = np.divmod(np.arange(cells), side)
    apart = np.hypot(row[:, None] - row, column[:, None] - column)
    return torch.from_numpy(np.where(apart > REACH * side, -2, 0).astype(np.float32))
