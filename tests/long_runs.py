"""Many predictions, or many epochs, in one process, and what it holds after each.

    python tests/long_runs.py predictions COUNT FOLDER      # FOLDER: rankings/ and names/, folds with weights/
    python tests/long_runs.py epochs COUNT FOLDER           # FOLDER: recipe.yaml, data/, inner/

Writes JSON to stdout: [resident bytes, open files, threads] after each prediction or epoch. Predictions take turns in what they use:
names by a gallery; PyTorch without a cache, under a time limit; one that fails; ONNX Runtime with a cache.
"""

import contextlib
import io
import json
import os
import resource
import sys
from pathlib import Path

from solution import predict
from solution.files import Failure, run


def held() -> list:
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return [resident, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]


def turns(folder: Path) -> list:
    """The options of predictions that follow each other."""
    rankings, names = ([*("--data", folder / fold / "test", "--weights", folder / fold / "weights"), "--workers", 2, "--device", "cpu"] for fold in ("rankings", "names"))
    side = ["--timings", folder / "t.json", "--embeddings", folder / "e"]
    return [
        [*names, "--engine", "torch", "--probabilities", folder / "p.csv"],
        [*rankings, "--engine", "torch", "--no-cache", "--time-limit", 900, *side],
        [*rankings[:3], folder / "broken", *rankings[4:], "--engine", "torch", "--time-limit", 900],
        [*rankings, "--engine", "onnx"],
    ]


def predictions(count: int, folder: Path, kinds: slice = slice(None)) -> list:
    rows, several = [], turns(folder)[kinds]
    for number in range(count):
        words = [*map(str, several[number % len(several)]), "--output", str(folder / "s.csv")]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Failure):
            predict.main(words)
        rows.append(held())
    return rows


def epochs(count: int, folder: Path) -> list:
    from solution import fitting, train

    rows, say = [], fitting.Fitting.say
    fitting.Fitting.say = lambda self: (say(self), rows.append(held()))
    sys.argv = ["train", "--recipe", str(folder / "recipe.yaml"), "--data", str(folder / "data"), "--output", str(folder / "weights"),
                "--validate", str(folder / "inner"), "--device", "cpu", "--workers", "1"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        run(train.main)
    assert len(rows) == count
    return rows


if __name__ == "__main__":
    what, count, folder = sys.argv[1:]
    print(json.dumps({"predictions": predictions, "epochs": epochs}[what](int(count), Path(folder))))
