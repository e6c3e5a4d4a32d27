"""How people train such a model today, plainly: every epoch opens every photograph anew, eager NCHW, an allocator as it comes.

    python -m eval.reference.training --data FOLD/train --like WEIGHTS/lite0.json --output REFERENCE

Reads labelled photographs and the spec of a model that python -m solution.train wrote: backbone, size, batch, learning rates,
probabilities of augmentation, epochs. Writes REFERENCE/lite0.npz and lite0.json, which solution.predict and eval.reference read, and
lite0.log.csv with the seconds of each epoch; the last one ships (fitting.py). Expect the accuracy of solution.train in several times
its time: 1,213 photographs at 160 pixels take an EfficientNet-Lite0 a minute and a half an epoch on two cores. The same command
gives the same bytes on one thread; on several PyTorch, left as it comes, adds up in any order.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from eval.files import InputError, read_json, run, whole, write_json, write_table
from eval.labels import find_images, read_labels
from eval.reference.predict import count, read_spec

# What a spec has to say where it could ask for more than the published training of Where's Whale-do?
PLAIN = {
    "head": {"kind": "arcface", "total": False, "loss": "cross_entropy", "ring": 0, "centre": 0, "species": False},
    "augment": dict.fromkeys(("rotate", "zoom", "warp", "lighting", "contrast", "rgb", "cutout"), 0),
    "train": {"early_learning_rate": None, "frozen_epochs": 0, "schedule": "warmup", "beta2": 0.999, "clip": None, "sampling": "shuffle",
              "mirror_identities": False, "unknown": False, "mixup": 0},
}


def read_training(path: Path, epochs: int | None) -> dict:
    """The spec of a model by groups, with so many epochs where they are given; InputError for one that is rendered by nothing here."""
    read_spec(path)  # which checks the model itself
    told = read_json(path)
    try:
        wrong = [(group, key, value) for group, keys in PLAIN.items() for key, value in keys.items() if told[group][key] != value]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not the spec of a model: {error} is missing; name the .json that python -m solution.train wrote") from None
    for group, key, value in wrong:
        raise InputError(f"{path}: {group}.{key} is {told[group][key]!r}; the reference renders only trainings with {value!r} there")
    return {**told, "train": {**told["train"], "epochs": told["train"]["epochs"] if epochs is None else epochs}}


def labelled(data: Path, batch: int) -> pd.DataFrame:
    """The rows of the photographs of known whales: `path` leads to the file, `whale` is a number from 0."""
    labels = read_labels(data)
    files = find_images(data, labels.metadata)
    if files is None:
        raise InputError(f"{data}: there are no photographs in it, only tables; put images/ there")
    table = labels.metadata.assign(path=files)[labels.known]
    if len(table) < batch:
        raise InputError(f"{data}: {len(table)} labelled photographs are fewer than a batch of {batch}; bring more")
    return table.assign(whale=np.unique(table.whale_id, return_inverse=True)[1])


def save(arrays: dict[str, np.ndarray], told: dict, log: pd.DataFrame, weights: Path, name: str) -> None:
    write_table(log, weights / f"{name}.log.csv")
    write_json(told, weights / f"{name}.json")
    with whole(weights / f"{name}.npz") as beside, open(beside, "wb") as file:
        np.savez(file, **arrays)


def train(args: argparse.Namespace) -> None:
    told, name = read_training(args.like, args.epochs), args.like.stem
    if (args.output / f"{name}.npz").exists():
        raise InputError(f"{args.output}/{name}.npz: already there; choose another --output")
    table = labelled(args.data, told["train"]["batch_size"])
    from eval.reference import fitting

    arrays, log = fitting.trained(told, table, args.device, args.workers, args.seed)
    save(arrays, told, log, args.output, name)
    print(f"{args.output}/{name}.npz: {len(log)} epochs over {len(table)} photographs of {table.whale.nunique()} whales")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.reference.training", description="Train a model the way that most do, to measure against.",
        epilog="example: python -m eval.reference.training --data folds/0/train --like weights/lite0.json --output reference --epochs 4")
    parser.add_argument("--data", type=Path, required=True, help="data directory whose metadata.csv has whale_id")
    parser.add_argument("--like", type=Path, required=True, metavar="MODEL.json", help="the spec of a model that python -m solution.train wrote")
    parser.add_argument("--output", type=Path, required=True, help="directory for the weights")
    parser.add_argument("--epochs", type=count, metavar="N", help="(default: those of the spec)")
    parser.add_argument("--seed", type=count, default=0)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--workers", type=count, default=2, help="processes that read and augment (default 2)")
    train(parser.parse_args())


if __name__ == "__main__":
    run(main)
