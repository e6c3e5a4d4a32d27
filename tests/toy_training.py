"""A toy training: a small recipe, the command in this process, in a forked one or in one of its own, and its results.

    import toy_training as toying
    code = toying.train(recipe, data, output, "--seed", 1)         # the exit status of python -m solution.train
"""

import io
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Mapping
from unittest import mock

import numpy as np
import pandas as pd
import torch
import yaml

from solution import batches, fitting, recipe
from solution import train as training
from solution.files import run

ROOT = Path(__file__).parents[1]
CHILD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TRAIN = {"size": 32, "epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "head_learning_rate": 1e-2}
# All that the humpbacks' training does and more: parts, a total classifier, ring and centre loss, two cycles, mixup, mirror images.
HUMPBACK = {
    "model": {"parts": 2, "cut": "branches", "part_width": 8},
    "head": {"kind": "linear", "total": True, "dropout": 0.5, "ring": 0.01, "centre": 0.003},
    "train": {"schedule": "one_cycle", "warmup": 0.3, "frozen_epochs": 1, "epochs": 2, "early_learning_rate": 1e-4, "beta2": 0.99,
              "clip": 0.1, "mixup": 0.4, "mirror_identities": True},
}


def write_recipe(path: Path, *names: str, backbone: str = "test_efficientnet", also: Mapping = {}, **train) -> Path:
    """A recipe of one tiny untrained model (or one a name); `train` are differences from TRAIN, `also` those of other tables."""
    model = {"backbone": backbone, "pretrained": "none"}
    shared = recipe.merged({"model": model, "train": {**TRAIN, **train}}, also)
    table = {"shared": shared, "models": {name: {} for name in names or ["tiny"]}}
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def arguments(recipe_file: Path, data: Path, output: Path, *more) -> list[str]:
    given = ["--recipe", recipe_file, "--data", data, "--output", output, "--device", "cpu"]
    return [str(word) for word in [*given, *([] if "--workers" in more else ["--workers", 0]), *more]]


def train(*words) -> "Finished":
    """Runs the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    threads, code = torch.get_num_threads(), 0
    torch.set_num_threads(1)
    with mock.patch.object(sys, "argv", ["train.py", *arguments(*words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            run(training.main)
        except SystemExit as stop:
            code = stop.code
            if isinstance(code, str):  # as the interpreter does
                print(code, file=err)
                code = 1
    torch.set_num_threads(threads)
    return Finished(code or 0, out.getvalue(), err.getvalue())


class Finished:
    """What a command left behind; `line` is its error, which must be one line."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def line(self) -> str:
        assert "Traceback" not in self.stderr, self.stderr
        errors = self.stderr[self.stderr.index("error: "):].strip().split("\n")
        assert len(errors) == 1, self.stderr
        return errors[0]


def in_forks(work, *several) -> list[int]:
    """The exit statuses of work(*words) in a forked process for each tuple `words`, all at once: -9 where one was killed."""
    torch.set_num_threads(1)
    processes = [multiprocessing.get_context("fork").Process(target=within, args=(120, work, *words)) for words in several]
    for process in processes:
        process.start()
    for process in processes:
        process.join()  # without a limit it waits for the process alone, not for the workers that outlive it for seconds
    return [process.exitcode for process in processes]


def within(seconds: int, work, *words) -> None:
    signal.alarm(seconds)
    work(*words)


def as_rank(rank: int, world: int, port: int, results: Path, work, *words) -> None:
    """What torchrun sets up around one of its processes; what work(*words) returns goes to results/RANK.json."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), GROUP_RANK="0", WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world),
                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="toy")
    value = work(*words)
    (results / f"{rank}.json").write_text(json.dumps(value))


def in_ranks(results: Path, work, *words, world: int = 2) -> list:
    """What work(*words) returns in each of `world` processes that torchrun could have started."""
    results.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    codes = in_forks(as_rank, *[(rank, world, port, results, work, *words) for rank in range(world)])
    assert codes == [0] * world
    return [json.loads((results / f"{rank}.json").read_text()) for rank in range(world)]


def command(*words, launcher=("-m", "solution.train"), **more) -> subprocess.Popen:
    """The command in a process of its own, on one thread."""
    words = [sys.executable, *launcher, *arguments(*words)]
    return subprocess.Popen(words, env=CHILD, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def result(output: Path, name: str = "tiny") -> dict:
    """The bytes of a model's files; of the log all but the column `seconds`, as text."""
    log = pd.read_csv(output / f"{name}.log.csv", dtype=str).drop(columns="seconds", errors="ignore")
    return {"npz": (output / f"{name}.npz").read_bytes(), "json": (output / f"{name}.json").read_bytes(),
            "log": log.to_csv(index=False), "recipe": (output / "recipe.yaml").read_bytes()}


def files(path: Path) -> dict:
    """Every file below `path` with its bytes and its time of change."""
    return {file.relative_to(path): (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(path.rglob("*")) if file.is_file()}


def spec(recipe_file: Path) -> recipe.Spec:
    return recipe.load(str(recipe_file)).models[0]


def training_set(data: Path, one: recipe.Spec) -> batches.TrainingSet:
    return training.training_set(training.labelled(data), data, one)


def fitted(recipe_file: Path, data: Path, checkpoint: Path, seed: int = 0, workers: int = 0) -> fitting.Fitting:
    """The training of a recipe's first model, ready for its first step."""
    one = spec(recipe_file)
    return fitting.Fitting(one, training_set(data, one), seed, "cpu", workers, checkpoint)


def never() -> bool:
    return False


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
