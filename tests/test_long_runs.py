"""A process that predicts thousands of times, or trains for many epochs, holds no more memory, files and threads than after its first ones."""

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import long_runs
import toy
import toy_names
import toy_training as toying
from eval import folds
from solution import predict
from solution.files import Failure
from test_embed import ensemble, tiny
from test_predict import competition, damaged

ROOT = Path(__file__).parents[1]
PREDICTIONS, EPOCHS, FEWER = 3000, 50, 40  # in the fast suite so many times fewer predictions
WARM = 0.4  # of a run, in which caches fill and the heap finds its size
PER_PREDICTION, PER_EPOCH = 20_000, 100_000  # bytes that the resident memory may grow by: measured are 400 and 4,700
PER_ONE_OF_FEW = 150_000  # where a single step of the heap shows; a leaked toy model is 1.4 million, of every third prediction


def flat(rows: np.ndarray, bytes_each: float) -> None:
    """Resident bytes, open files and threads (n, 3) after a warm-up: no more by the fitted slope, and by their medians at both ends."""
    rows = rows[int(WARM * len(rows)):]
    slope = np.polyfit(np.arange(len(rows)), rows[:, 0], 1)[0]
    first, last = (np.median(part, axis=0) for part in np.array_split(rows, 3)[::2])
    assert slope < bytes_each, f"{slope:.0f} bytes each"
    assert last[1] <= first[1] and rows[:, 1].max() <= first[1] + 4, "open files"
    assert last[2] <= first[2] + 1 and rows[:, 2].max() <= first[2] + 8, "threads"


def long_run(what: str, count: int, folder: Path) -> np.ndarray:
    environment = {**toying.CHILD, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run([sys.executable, ROOT / "tests" / "long_runs.py", what, str(count), folder], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def folder(tmp_path):
    """What the predictions read: rankings/ and names/ with weights, and broken/ weights."""
    ensemble(competition(tmp_path / "rankings") / "weights", tiny("m", 0, 32))
    toy_names.fold(tmp_path / "made", tiny("m", 0, 32)).rename(tmp_path / "names")
    shutil.copytree(tmp_path / "rankings" / "weights", tmp_path / "broken")
    damaged(tmp_path / "broken", "m")
    return tmp_path


def write_rows(count: int, folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps(long_runs.predictions(count, folder, slice(3))))


def test_hundreds_of_predictions_leave_nothing_behind(folder):
    """In a forked process, without the export for ONNX Runtime."""
    assert toying.in_forks(write_rows, (PREDICTIONS // FEWER, folder)) == [0]
    flat(np.array(json.loads((folder / "rows.json").read_text())), PER_ONE_OF_FEW)


@pytest.mark.slow
def test_thousands_of_predictions_leave_nothing_behind(folder):
    flat(long_run("predictions", PREDICTIONS, folder), PER_PREDICTION)


@pytest.mark.slow
def test_a_training_of_many_epochs_holds_what_it_held_after_the_first(tmp_path):
    """With a process that reads, and a ranking of the inner fold after each epoch."""
    outer = folds.make(toy.competition(tmp_path / "all", n_whales=10), tmp_path / "folds", "whale", n_folds=2) / "0"
    (outer / "train").rename(tmp_path / "data"), outer.rename(tmp_path / "inner")
    toying.write_recipe(tmp_path / "recipe.yaml", epochs=EPOCHS)
    flat(long_run("epochs", EPOCHS, tmp_path), PER_EPOCH)


@pytest.mark.parametrize("column, growth", [(0, 400_000), (1, 1), (2, 1)], ids=["memory", "files", "threads"])
def test_what_grows_is_not_flat(column, growth):
    rows = np.array([[900_000_000, 6, 2]] * 60)
    flat(rows, PER_PREDICTION)
    rows[:, column] += growth * np.arange(60)
    with pytest.raises(AssertionError):
        flat(rows, PER_PREDICTION)


def test_a_prediction_that_fails_takes_its_guard_with_it(folder):
    """Else the guard would end the process, whatever that does by then, when the time is up."""
    weights = folder / "broken"
    with pytest.raises(Failure, match="no model got in"):
        predict.main(["--data", str(folder / "rankings" / "test"), "--weights", str(weights), "--output", str(folder / "s.csv"), "--device", "cpu", "--engine", "torch", "--workers", "0", "--time-limit", "900"])
    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer) and not thread.finished.is_set()]
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
