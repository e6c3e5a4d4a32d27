"""What local evidence takes from training photographs: how a model's first feature map is to see, so that it tells one animal from another.

    python -m solution.local_fit --weights WEIGHTS --data TRAIN

Reads photographs of TRAIN, PHOTOGRAPHS of them at most, their whale_id and, where there is one, their viewpoint, and the models of WEIGHTS
whose recipe has predict.local_size; writes WEIGHTS/local/MODEL.npz for each. First the channels are whitened, by how they vary from place
to place; then local_contrast.py trains them, and the layers that make the map, so that two photographs of one animal from the same side have more in common than those
of two. solution.train does it for every model that it trains; the command serves weights whose NAME.json was given a
predict.local_size later. Expect some minutes a model on two cores.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Optional

import numpy as np
import pandas as pd

from solution import recipe
from solution.checkpoints import CHECKPOINT_SECONDS
from solution.device import chosen, decoders
from solution.files import InputError, alone, natural, run

State = Dict[str, np.ndarray]  # how far a local_contrast.Learning is

PHOTOGRAPHS = 2048  # at most
HELD_BYTES = 2 << 30  # of what the layers that learn are given of them
SPREAD = 100_000  # cells, for the covariances of a hundred channels or some hundreds
LEAST = 1e-6  # of the largest variance: what is below it is noise


def never() -> bool:
    """Nothing stops it."""
    return False


def place(weights: Path, spec: recipe.Spec) -> Path:
    return weights / "local" / f"{spec.name}.npz"


def fitted(model, spec: recipe.Spec, training, seed: int, stop: Callable[[], bool] = never, begun: Optional[State] = None, keep: Optional[Callable[[State], None]] = None):
    """The places.Sight of a trained models.EmbeddingModel, from some of the photographs of the batches.TrainingSet it was trained on; None where `stop()` said so before.

    `keep` is given how far it is, when it is stopped and every CHECKPOINT_SECONDS; with that as `begun` it goes on from there, to the same result.
    The model is left in evaluation mode.
    """
    import torch

    from solution import local
    from solution.images import Photographs
    from solution.local_contrast import Learning
    from solution.local_layers import Lower

    if (training.viewpoints == "").all():
        print(f"{spec.name}: metadata.csv has no viewpoint; local evidence takes all photographs for seen from one side", file=sys.stderr)
    lower = Lower(model, spec)
    photographs, groups = training.photographs, sides(training.labels, training.viewpoints)
    some = sample(groups, seed, most(lower))
    views = Photographs([photographs.paths[number] for number in some], [local.view_of(spec)], [photographs.boxes[number] for number in some])
    given = lower.of(views, local.mirrored(training.viewpoints[some]), stop)
    if given is None:
        return None
    cells = lower.cells(given)
    drawn = cells.flatten(0, 1)[torch.from_numpy(np.random.default_rng(seed).permutation(cells.shape[0] * cells.shape[1])[:SPREAD])]
    learning = Learning(lower.part, lower.prefix, whitened(drawn.numpy()), seed, lower.device)
    if begun:
        learning.resume(begun)
    due = time.monotonic() + CHECKPOINT_SECONDS
    while not learning.run(given, cells, groups[some], training.labels[some], lambda: stop() or time.monotonic() >= due):
        if keep:
            keep(learning.state())
        if stop():
            return None
        due = time.monotonic() + CHECKPOINT_SECONDS
    return learning.sight()


def most(lower) -> int:
    """Photographs that are learned from, by what the layers are given of one."""
    return min(PHOTOGRAPHS, HELD_BYTES // lower.bytes)


def trial(model, spec: recipe.Spec, training, count: int) -> float:
    """The seconds that `fitted` would take with `count` photographs, from those of `training` and a few steps on them."""
    import torch

    from solution import local
    from solution.images import Photographs
    from solution.local_contrast import ALONE, PAIRS, Learning
    from solution.local_layers import Lower

    lower, photographs, seconds = Lower(model, spec), training.photographs, []
    views = Photographs(photographs.paths, [local.view_of(spec)], photographs.boxes)
    started = time.perf_counter()
    given = lower.of(views, local.mirrored(training.viewpoints), never)
    cells = lower.cells(given)
    reading = (time.perf_counter() - started) / len(given)
    learning = Learning(lower.part, lower.prefix, whitened(cells.flatten(0, 1)[:SPREAD].numpy()), 0, lower.device)
    drawn = torch.arange(2 * PAIRS) % len(given)
    for learning.step in (0, 1, ALONE, ALONE + 1):  # of each kind one to warm up
        started = time.perf_counter()
        learning.learn((cells if learning.step < ALONE else given)[drawn].to(lower.device).float(), np.random.default_rng(0))
        seconds.append(time.perf_counter() - started)
    return reading * min(count, most(lower)) + seconds[1] * ALONE + seconds[3] * (learning.steps - ALONE)


def sides(labels: np.ndarray, viewpoints: np.ndarray) -> np.ndarray:
    """A number for each animal and viewpoint (n,); every photograph of an unknown animal (label -1) has its own."""
    view = np.unique(viewpoints, return_inverse=True)[1]
    known = np.where(labels < 0, -1 - np.arange(len(labels)), labels * (view.max() + 1) + view)
    return np.unique(known, return_inverse=True)[1]


def sample(groups: np.ndarray, seed: int, most: int) -> np.ndarray:
    """The numbers of all photographs (n,), or, where they are more than `most`, of so many: two of as many groups as there are, then two more,
    and those that are alone in their group last."""
    random = np.random.default_rng(seed)
    turn, single = random.permutation(groups.max() + 1)[groups], np.bincount(groups)[groups] == 1
    mixed = random.permutation(len(groups))
    within = pd.Series(groups[mixed]).groupby(groups[mixed]).cumcount().to_numpy()[np.argsort(mixed)]
    return np.sort(np.lexsort((turn, within // 2, single))[:most])


def whitened(cells: np.ndarray):
    """The places.Sight of cells (n, c) before anything is learned: their principal components, the DIMENSIONS largest, each divided by its standard deviation."""
    from solution.places import DIMENSIONS, Sight

    cells = cells.astype(np.float64)
    mean = cells.mean(axis=0)
    variance, axes = np.linalg.eigh(np.cov((cells - mean).T, bias=True).reshape(len(mean), -1))
    largest = np.argsort(-variance, kind="stable")[:DIMENSIONS]
    scale = 1 / np.sqrt(np.maximum(variance[largest], max(LEAST * variance.max(), 1e-30)))
    return Sight(mean.astype(np.float32), (axes[:, largest] * scale).astype(np.float32), {})


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit what local evidence needs to photographs, for weights that were trained without it.",
        epilog="example: python -m solution.local_fit --weights runs/demo/fold0/weights --data runs/demo/folds/0/train",
    )
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--data", type=Path, required=True, help="the photographs that it was trained on")
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    args = parser.parse_args()
    specs, device = recipe.specs(args.weights), chosen(args.device)
    from solution import local  # and OpenCV

    eyes = local.looking(specs)
    if not eyes:
        raise InputError(f"{args.weights}: no model here has a predict.local_size; set it in its NAME.json, to 320 for instance")
    from solution import models, places
    from solution.batches import Squares
    from solution.sift import labelled, left_out, photographs_of, training_set

    table = labelled(args.data)
    lost = left_out(table, args.data, photographs_of(table, args.data, eyes[0]), Squares(), decoders())
    table = table[~table.image_id.isin(lost)].reset_index(drop=True)
    for spec in eyes:
        with alone(place(args.weights, spec)):
            sight = fitted(models.load(spec, args.weights).to(device), spec, training_set(table, args.data, spec), args.seed)
            print(places.write_sight(sight, place(args.weights, spec)))


if __name__ == "__main__":
    run(main)
