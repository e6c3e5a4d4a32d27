"""What local evidence takes from training photographs: which channels of a model's first feature map tell one animal from another.

    python -m solution.local_fit --weights WEIGHTS --data TRAIN

Reads photographs of TRAIN, PHOTOGRAPHS of them at most, their whale_id and, where there is one, their viewpoint, and the models of WEIGHTS
whose recipe has predict.local_size; writes WEIGHTS/local/MODEL.npz for each. First the channels are whitened, by how they vary from place
to place; then local_contrast.py turns the whitening so that two photographs of one animal from the same side have more in common than
those of two. solution.train does it for every model that it trains; the command serves weights whose NAME.json was given a
predict.local_size later. Expect one to three minutes a model on two cores.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Optional

import numpy as np
import pandas as pd

from solution import recipe
from solution.device import decoders
from solution.files import InputError, alone, natural, progress, run, write_arrays

PHOTOGRAPHS = 2048  # whose cells are held at once: some hundred MB
SPREAD = 100_000  # cells, for the covariances of a hundred channels or some hundreds
BATCH = 16
LEAST = 1e-6  # of the largest variance: what is below it is noise


def never() -> bool:
    """Nothing stops it."""
    return False


def write(whitening, spec: recipe.Spec, weights: Path) -> Path:
    return write_arrays(weights / "local" / f"{spec.name}.npz", **whitening._asdict())


def fitted(model, spec: recipe.Spec, training, seed: int, stop: Callable[[], bool] = never):
    """The places.Whitening of a trained models.EmbeddingModel, from some of the photographs of the batches.TrainingSet it was trained on; None where
    `stop()` said so before. The model is left in evaluation mode."""
    from solution import local, local_contrast
    from solution.images import Photographs
    from torch import channels_last

    if (training.viewpoints == "").all():
        print(f"{spec.name}: metadata.csv has no viewpoint; local evidence takes all photographs for seen from one side", file=sys.stderr)
    photographs, groups = training.photographs, sides(training.labels, training.viewpoints)
    some = sample(groups, seed)
    views = Photographs([photographs.paths[number] for number in some], [local.view_of(spec)], [photographs.boxes[number] for number in some])
    cells = cells_of(model.eval().to(memory_format=channels_last), spec, views, local.mirrored(training.viewpoints[some]), stop)
    if cells is None:
        return None
    flat = cells.reshape(-1, cells.shape[2])
    whitening = whitened(flat[np.random.default_rng(seed).permutation(len(flat))[:SPREAD]])
    return local_contrast.told_apart(cells, groups[some], training.labels[some], whitening, seed, next(model.parameters()).device, stop)


def sides(labels: np.ndarray, viewpoints: np.ndarray) -> np.ndarray:
    """A number for each animal and viewpoint (n,); every photograph of an unknown animal (label -1) has its own."""
    view = np.unique(viewpoints, return_inverse=True)[1]
    known = np.where(labels < 0, -1 - np.arange(len(labels)), labels * (view.max() + 1) + view)
    return np.unique(known, return_inverse=True)[1]


def sample(groups: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of all photographs (n,), or, where they are more than PHOTOGRAPHS, of so many: two of as many groups as there are, then two more,
    and those that are alone in their group last."""
    random = np.random.default_rng(seed)
    turn, single = random.permutation(groups.max() + 1)[groups], np.bincount(groups)[groups] == 1
    mixed = random.permutation(len(groups))
    within = pd.Series(groups[mixed]).groupby(groups[mixed]).cumcount().to_numpy()[np.argsort(mixed)]
    return np.sort(np.lexsort((turn, within // 2, single))[:PHOTOGRAPHS])


def cells_of(model, spec: recipe.Spec, photographs, mirrored: np.ndarray, stop: Callable[[], bool]) -> Optional[np.ndarray]:
    """The cells (n, cells, c) float16 of all photographs, of those `mirrored` (n,) of their mirror images; None where it was stopped."""
    import torch

    from solution import models, places

    device, found = next(model.parameters()).device, []
    square = lambda number: photographs[number][0][:, :: -1 if mirrored[number] else 1]
    with ThreadPoolExecutor(decoders()) as threads:
        for start in progress(range(0, len(photographs), BATCH), f"{spec.name}: places"):
            if stop():
                return None
            squares = np.stack(list(threads.map(square, range(start, min(start + BATCH, len(photographs))))))
            with torch.no_grad():
                maps = model.backbone(models.normalised(torch.from_numpy(squares).to(device), spec.model))[0]
            found.append(places.inner(maps).half().cpu().numpy())
    return np.concatenate(found)


def whitened(cells: np.ndarray):
    """The places.Whitening of cells (n, c): their principal components, the DIMENSIONS largest, each divided by its standard deviation."""
    from solution.places import DIMENSIONS, Whitening

    cells = cells.astype(np.float64)
    mean = cells.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov((cells - mean).T, bias=True).reshape(len(mean), -1))
    largest = np.argsort(-variance, kind="stable")[:DIMENSIONS]
    scale = 1 / np.sqrt(np.maximum(variance[largest], max(LEAST * variance.max(), 1e-30)))
    return Whitening(mean.astype(np.float32), (axes[:, largest] * scale).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit what local evidence needs to photographs, for weights that were trained without it.",
        epilog="example: python -m solution.local_fit --weights runs/demo/fold0/weights --data runs/demo/folds/0/train",
    )
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--data", type=Path, required=True, help="the photographs that it was trained on")
    parser.add_argument("--seed", type=natural, default=0)
    args = parser.parse_args()
    specs = recipe.specs(args.weights)
    from solution import local  # and OpenCV

    eyes = local.looking(specs)
    if not eyes:
        raise InputError(f"{args.weights}: no model here has a predict.local_size; set it in its NAME.json, to 320 for instance")
    from solution import models
    from solution.batches import Squares
    from solution.sift import labelled, left_out, photographs_of, training_set

    table = labelled(args.data)
    lost = left_out(table, args.data, photographs_of(table, args.data, eyes[0]), Squares(), decoders())
    table = table[~table.image_id.isin(lost)].reset_index(drop=True)
    for spec in eyes:
        with alone(args.weights / "local" / f"{spec.name}.npz"):
            whitening = fitted(models.load(spec, args.weights), spec, training_set(table, args.data, spec), args.seed)
            print(write(whitening, spec, args.weights))


if __name__ == "__main__":
    run(main)
