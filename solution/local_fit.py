"""What local evidence takes from training photographs: how the channels of a model's first feature map vary from place to place.

    python -m solution.local_fit --weights WEIGHTS --data TRAIN

Reads photographs of TRAIN, PHOTOGRAPHS of them at most, and the models of WEIGHTS whose recipe has predict.local_size; writes
WEIGHTS/local/MODEL.npz for each. solution.train does it for every model that it trains; the command serves weights whose
NAME.json was given a predict.local_size later. No label is used. Expect seconds a model.
"""

import argparse
from pathlib import Path

import numpy as np

from solution import recipe
from solution.files import InputError, alone, progress, run, write_arrays

PHOTOGRAPHS = 256  # some 100,000 cells, for the covariances of a hundred channels or some hundreds
BATCH = 16
LEAST = 1e-6  # of the largest variance: what is below it is noise


def write(model, spec: recipe.Spec, photographs, weights: Path) -> Path:
    """WEIGHTS/local/MODEL.npz of a trained models.EmbeddingModel, from some of the images.Photographs it was trained on. The model is left in
    evaluation mode."""
    from solution.images import Photographs
    from solution.local import view_of
    from torch import channels_last

    chosen = np.unique(np.linspace(0, len(photographs) - 1, min(PHOTOGRAPHS, len(photographs))).astype(int))
    some = Photographs([photographs.paths[number] for number in chosen], [view_of(spec)], [photographs.boxes[number] for number in chosen])
    whitening = whitened(cells_of(model.eval().to(memory_format=channels_last), spec, some))
    return write_arrays(weights / "local" / f"{spec.name}.npz", **whitening._asdict())


def cells_of(model, spec: recipe.Spec, photographs) -> np.ndarray:
    """The cells (n, c) of all photographs."""
    import torch

    from solution import models, places

    device, found = next(model.parameters()).device, []
    for start in progress(range(0, len(photographs), BATCH), f"{spec.name}: places"):
        squares = np.stack([photographs[number][0] for number in range(start, min(start + BATCH, len(photographs)))])
        with torch.no_grad():
            maps = model.backbone(models.normalised(torch.from_numpy(squares).to(device), spec.model))[0]
        found.append(places.inner(maps).flatten(0, 1).float().cpu().numpy())
    return np.concatenate(found)


def whitened(cells: np.ndarray):
    """The places.Whitening of cells (n, c): their principal components, the DIMENSIONS largest, each divided by its standard deviation."""
    from solution.places import DIMENSIONS, Whitening

    mean = cells.mean(axis=0, dtype=np.float64)
    variance, axes = np.linalg.eigh(np.cov((cells - mean).T.astype(np.float64), bias=True).reshape(len(mean), -1))
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
    args = parser.parse_args()
    specs = recipe.specs(args.weights)
    from solution import local  # and OpenCV

    eyes = local.looking(specs)
    if not eyes:
        raise InputError(f"{args.weights}: no model here has a predict.local_size; set it in its NAME.json, to 320 for instance")
    from solution import models
    from solution.sift import labelled, photographs_of

    table = labelled(args.data)
    for spec in eyes:
        with alone(args.weights / "local" / f"{spec.name}.npz"):
            print(write(models.load(spec, args.weights), spec, photographs_of(table, args.data, spec), args.weights))


if __name__ == "__main__":
    run(main)
