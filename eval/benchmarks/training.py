"""How fast training is: `python -m solution.train` against a plain loop of DataLoader, Pillow and augmentation by image, by turns.

    python -m eval.bench training --data nyala --json training.json
    python -m eval.bench training --accuracy folds/0

An EfficientNet-Lite0 that begins with the weights of a package; head, schedule and augmentation are the published ones. Both sides are
commands that note the seconds of their epochs (the plain loop is eval.reference.training) and get the environment as it is. Their first
epoch, in which processes start and ours decodes what it keeps, is left out, and so is all that comes before. `ratio` is that of
images per second, `cpu_ratio` that of all processor seconds, starting included; `peak_mb` the largest process's. Expect 4 minutes.

With --accuracy both train once, on all of FOLD/train; solution.predict answers FOLD/test by the weights of either, and `accuracy` is
what eval.compare says of the two files: how much better ours is, with a 95 % interval over whales. Expect 12 minutes for a fold of
a thousand photographs.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple, Sequence

import numpy as np

from eval import compare
from eval.benchmarks import rounds, sample, speed
from eval.benchmarks.options import count
from eval.benchmarks.workers import command, last_line
from eval.benchmarks.zips import untrained_weights
from eval.files import InputError, read_table, write_json, write_table
from eval.labels import find_images, read_labels
from submission import confinement

OURS, REFERENCE = "solution.train", "eval.reference.training"
NAME, BATCH = "lite0", 32  # of the model
EPOCHS, LONGER = 2, 4  # the second with --accuracy
PARTS = "train/metadata.csv", "test/metadata.csv", "truth.csv"  # of a fold


class Run(NamedTuple):
    """What one training took: the seconds of an epoch, of all, the processor's, and the memory of the largest process."""

    epoch_seconds: float
    whole_seconds: float
    cpu_seconds: float
    peak_mb: float


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train a small model with python -m solution.train and with a plain loop, by turns."
    parser.epilog = "example: python -m eval.bench training --data runs/demo/data --json training.json"
    parser.add_argument("--data", type=Path, help="labelled photographs (default: the demo, drawn for it)")
    parser.add_argument("--photographs", type=count, default=256, metavar="N", help="of an epoch (default %(default)s)")
    parser.add_argument("--size", type=count, default=160, metavar="PIXELS", help="side of what the model sees (default %(default)s)")
    parser.add_argument("--epochs", type=count, metavar="N", help=f"2 or more (default {EPOCHS}, with --accuracy {LONGER})")
    parser.add_argument("--accuracy", type=Path, metavar="FOLD",
                        help="train on FOLD/train instead, once, and compare what is answered to FOLD/test")


def measured(args: argparse.Namespace) -> dict:
    epochs = args.epochs or (LONGER if args.accuracy else EPOCHS)
    if epochs < 2 or args.photographs < BATCH:
        raise InputError(f"--epochs {epochs}, --photographs {args.photographs}: give at least 2 epochs, as the first is left out, "
                         f"and a batch of {BATCH} photographs")
    absent = [name for name in PARTS if args.accuracy and not (args.accuracy / name).is_file()]
    if absent:
        raise InputError(f"{args.accuracy}/{absent[0]}: no such file; name a fold that python -m eval.folds cut, such as FOLDS/0")
    repeats = 1 if args.accuracy else args.repeats
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        data = args.accuracy / "train" if args.accuracy else labelled(args.data or demo(folder / "demo"), args.photographs, folder / "data")
        images = int(read_labels(data).known.sum()) // BATCH * BATCH  # of an epoch
        works = trainings(args.size, epochs, data, folder)
        spent = rounds.by_turns(works, repeats, took=lambda training: training())
        accuracy = {"accuracy": compared(works, args.accuracy, folder)} if args.accuracy else {}
    return {**told(spent, images), **accuracy, "data": str(args.accuracy or args.data or "demo"), "images": images, "batch": BATCH,
            "size_pixels": args.size, "epochs": epochs, "repeats": repeats}


def told(spent: dict[str, np.ndarray], images: int) -> dict:
    """The figures of both sides, from their runs (repeats, 4), `images` being those of an epoch."""
    ours, theirs = (Run(*spent[which].T.tolist()) for which in (OURS, REFERENCE))
    figures = {}
    for prefix, side in (("", ours), ("reference_", theirs)):
        middle = Run(*map(median, side))
        figures |= {f"{prefix}images_per_second": images / middle.epoch_seconds, f"{prefix}epoch_seconds": side.epoch_seconds,
                    f"{prefix}whole_command_seconds": middle.whole_seconds, f"{prefix}cpu_seconds": middle.cpu_seconds,
                    f"{prefix}peak_mb": max(side.peak_mb)}
    cpu = speed.spread(ours.cpu_seconds, theirs.cpu_seconds)
    return {**speed.spread(ours.epoch_seconds, theirs.epoch_seconds), "cpu_ratio": cpu["ratio"], **figures}


def show(result: dict) -> None:
    print("training at {size_pixels} px, epochs of {images} photographs: {images_per_second:.1f} images/s, the plain loop "
          "{reference_images_per_second:.1f}".format(**result))
    print("{ratio:.2f} times faster, {ratio_least:.2f} to {ratio_most:.2f} by round; {cpu_ratio:.2f} times fewer processor seconds, "
          "starting included".format(**result))
    print("the largest process takes {peak_mb:.0f} MB, the plain loop's {reference_peak_mb:.0f}".format(**result))
    if "accuracy" in result:
        print("a is the plain loop, b is python -m solution.train:")
        compare.show(result["accuracy"])


# What is trained

def recipe(size: int, epochs: int) -> dict:
    """As `plain` of solution/recipes has its first member, but for size and epochs."""
    model = {"backbone": "tf_efficientnet_lite0", "pretrained": "embedded", "mean": [0.5] * 3, "std": [0.5] * 3}
    train = {"size": size, "epochs": epochs, "batch_size": BATCH, "learning_rate": 5e-4, "head_learning_rate": 5e-3}
    return {"models": {NAME: {"model": model, "train": train}}}


def demo(data: Path) -> Path:
    from eval.sources.demo import write_demo

    return write_demo(data)


def labelled(source: Path, images: int, data: Path) -> Path:
    """DATA with so many photographs of known whales, drawn the same way every time; repeated where there are fewer."""
    labels = read_labels(source)
    files = find_images(source, labels.metadata)
    if files is None:
        raise InputError(f"{source}: there are no photographs in it, only tables; put images/ there")
    rows = np.random.default_rng([0]).permutation(np.flatnonzero(labels.known))
    table, files = sample.repeated(labels.metadata.iloc[rows], [files[row] for row in rows], images)
    sample.write_data(table, files, data, scenarios=False)
    written = read_table(data / "metadata.csv")
    write_table(written.assign(whale_id=table.whale_id.to_numpy()), data / "metadata.csv")
    return data


def trainings(size: int, epochs: int, data: Path, folder: Path) -> dict[str, "Training"]:
    """Both commands; the plain loop needs the spec of a model, as ours leaves it also where nothing is trained."""
    plain = untrained_weights(recipe(size, 0), folder) / f"{NAME}.json"
    ours = write_json(recipe(size, epochs), folder / "recipe.yaml")  # JSON is YAML
    words = {OURS: ["--recipe", ours], REFERENCE: ["--like", plain, "--epochs", epochs]}
    return {module: Training(module, [*more, "--data", data], folder) for module, more in words.items()}


class Training:
    """A command that trains; a call runs it anew and says what it took. `weights` are those of the last call."""

    def __init__(self, module: str, words: Sequence[object], folder: Path) -> None:
        self.module, self.words, self.folder, self.calls = module, words, folder, 0

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.module}.{self.calls}"

    def __call__(self) -> Run:
        self.calls += 1
        start, words = time.perf_counter(), [sys.executable, "-m", self.module, *map(str, self.words), "--output", str(self.weights)]
        with tempfile.TemporaryFile("w+") as said:
            process = subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            finally:
                confinement.end(process.pid)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                said.seek(0)
                killed = f"killed by {signal.Signals(-process.returncode).name}: " if process.returncode < 0 else ""
                why = f"python -m {self.module}: {killed}{last_line(said.read())}"
                raise InputError(why) if process.returncode == 2 else SystemExit(f"error: {why}")
        log = read_table(self.weights / f"{NAME}.log.csv", ["seconds"]).seconds.astype(float)
        return Run(median(log[1:]), time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compared(works: dict[str, Training], fold: Path, folder: Path) -> dict:
    """What eval.compare says of the answers by both weights; ours are b."""
    answers = {which: folder / f"{which}.csv" for which in works}
    for which, training in works.items():
        command("solution.predict", "--data", fold / "test", "--weights", training.weights, "--output", answers[which], "--no-cache")
    return compare.compare(compare.paired([(answers[REFERENCE], answers[OURS], fold / "truth.csv")], [None]))
