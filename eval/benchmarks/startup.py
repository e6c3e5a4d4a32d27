"""How soon commands answer: --help and bad input of each, a small score, and a prediction until its first photograph is looked at.

    python -m eval.bench startup --json startup.json

Bad input is a file that is not there. `bare` is a process that does nothing but import torch and timm. A prediction of two photographs
by one model is a whole process too; its start is all of that but the seconds it notes for the model's passes, ranking and writing. It
is run with each engine, the model exported before where that is needed, no embeddings kept. `times_bare_import` is its start / bare,
`ratio` that upside down, both of the slower engine. All by turns. Expect 3 minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Callable, Sequence

import numpy as np

from eval.benchmarks import rounds, sample, scoring, speed
from eval.benchmarks.workers import last_line
from eval.benchmarks.zips import ROOT, alone, untrained_weights
from eval.files import read_json

LIMIT = 1.0  # second: what --help, bad input and a score may take
QUERIES = 200  # of that score
SIZE = 224  # pixels
BARE = "import torch, timm"
ENGINES = "torch", "auto"
NOTED = "forward_seconds", "rank_seconds", "write_seconds"  # by solution.predict, of what comes after its start

# Every command, and words of which the first file it looks for is not there.
COMMANDS = {
    "solution.train": "--recipe demo --data nowhere --output out",
    "solution.predict": "--data nowhere --weights nowhere --output out.csv",
    "solution.identify": "nowhere.jpg --weights nowhere",
    "solution.embed": "--data nowhere --weights nowhere --output out",
    "solution.rank": "--embeddings nowhere --data nowhere --output out.csv",
    "solution.weigh": "--weights nowhere --embeddings nowhere --fold nowhere --output out",
    "solution.search": "ask --embeddings nowhere --index nowhere --output out.csv",
    "solution.quantize": "--data nowhere --weights nowhere",
    "solution.local_fit": "--weights nowhere --data nowhere",
    "solution.explain": "--data nowhere --weights nowhere --submission nowhere.csv --output out",
    "solution.doubts": "--data nowhere --weights nowhere --output out.csv",
    "solution.pseudo": "--data nowhere --asked nowhere --probabilities nowhere.csv --output out",
    "submission.pack": "--weights nowhere --output out.zip",
    "submission.rehearse": "nowhere.zip --data nowhere --output out",
    "eval.importers": "folders nowhere --output out",
    "eval.folds": "nowhere --output out",
    "eval.leakage": "nowhere",
    "eval.score": "nowhere.csv nowhere.csv",
    "eval.compare": "nowhere.csv nowhere.csv nowhere.csv",
    "eval.ensembles": "nowhere",
    "eval.leaderboard": "nowhere.csv --add nowhere.csv --fold nowhere --name theirs",
    "eval.summary": "nowhere",
    "eval.report": "nowhere --output out.html",
    "eval.ladder": "nowhere.yaml --recipe demo --folds nowhere --output out.csv",
    "eval.noise": "--fold nowhere --recipe demo",
    "eval.step": "nowhere.csv step",
    "eval.bench": "inference --submission nowhere.zip",
    "eval.reference": "--data nowhere --weights nowhere --output out.csv",
    "eval.reference.training": "--data nowhere --like nowhere.json --output out",
}


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Time the start of every command, and of a prediction against a bare import of what it stands on."
    parser.epilog = "example: python -m eval.bench startup --json startup.json"


def measured(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, spent = Path(place), {}
        for works in answers(folder), starts(folder):
            rounds.by_turns(works, 1, took=lambda work: work())  # to warm up, and to export
            spent |= rounds.by_turns(works, args.repeats, took=lambda work: work())
    return {**told(spent), "repeats": args.repeats}


def told(spent: dict[str, np.ndarray]) -> dict:
    """The medians: of each command, of the bare import, and of a prediction's start by each engine."""
    middle = {name: median(seconds.tolist()) for name, seconds in spent.items()}
    bare = spent["bare"].tolist()
    starts = {engine: {"start_seconds": middle[engine], **speed.spread(spent[engine].tolist(), bare)} for engine in ENGINES}
    for start in starts.values():
        start["times_bare_import"] = 1 / start["ratio"]
    slower = min(starts.values(), key=lambda start: start["ratio"])
    commands = {module: {"help_seconds": middle[f"{module} --help"], "bad_input_seconds": middle[f"{module}, bad input"]}
                for module in COMMANDS}
    return {"ratio": slower["ratio"], "times_bare_import": slower["times_bare_import"], "bare_import_seconds": middle["bare"],
            "prediction": starts, "score_seconds": middle["eval.score"],
            "slowest_command_seconds": max(max(command.values()) for command in commands.values()), "commands": commands}


def show(result: dict) -> None:
    print(f"{'seconds':28}{'--help':>8}{'bad input':>11}")
    for module, command in result["commands"].items():
        slow = f"   above {LIMIT:g} s" if max(command.values()) > LIMIT else ""
        print(f"{module:28}{command['help_seconds']:8.2f}{command['bad_input_seconds']:11.2f}{slow}")
    print(f"eval.score of {QUERIES} queries: {result['score_seconds']:.2f} s")
    print(f"python -c '{BARE}': {result['bare_import_seconds']:.2f} s")
    for engine, start in result["prediction"].items():
        print(f"solution.predict --engine {engine} starts within {start['start_seconds']:.2f} s, "
              f"{start['times_bare_import']:.2f} times that")


# What is timed

def seconds_of(folder: Path, words: Sequence[object], status: int = 0) -> float:
    """Of a Python process in an empty folder that is to exit so; what it keeps stays in `folder`."""
    (folder / "empty").mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, words)], cwd=folder / "empty", env=environment, capture_output=True, text=True)
    took = time.perf_counter() - start
    if done.returncode != status:
        sys.exit(f"error: python {' '.join(map(str, words))}: exited {done.returncode}, not {status}: {last_line(done.stderr)}")
    return took


def answers(folder: Path) -> dict[str, Callable[[], float]]:
    """What answers without a model."""
    run = partial(seconds_of, folder)
    works = {"eval.score": partial(run, ["-m", "eval.score", *scoring.write_tables(folder / "score", QUERIES)])}
    for module, words in COMMANDS.items():
        works[f"{module} --help"] = partial(run, ["-m", module, "--help"])
        works[f"{module}, bad input"] = partial(run, ["-m", module, *words.split()], status=2)
    return works


def starts(folder: Path) -> dict[str, Callable[[], float]]:
    """The bare import, and a prediction by each engine: two photographs, each asked for the other, by one untrained model."""
    run, timings = partial(seconds_of, folder), folder / "timings.json"
    sample.write_sizes(sample.write_drawn(folder / "drawn", 3, SIZE, ".jpg"), (2,), folder, ranked=True)
    weights = untrained_weights(alone("tf_efficientnet_lite0", SIZE), folder)
    words = ["-m", "solution.predict", "--data", folder / "2", "--weights", weights, "--output", folder / "submission.csv",
             "--timings", timings, "--no-cache"]
    predictions = {engine: partial(start_of, run, [*words, "--engine", engine], timings) for engine in ENGINES}
    return {"bare": partial(run, ["-c", BARE]), **predictions}


def start_of(run: Callable, words: Sequence[object], timings: Path) -> float:
    """Seconds of a prediction's process, but those that it notes for what comes after its start."""
    whole, noted = run(words), read_json(timings)
    return whole - sum(noted[key] for key in NOTED)
