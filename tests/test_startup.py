"""Commands answer before anything large is imported; the benchmark of it knows every command."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.benchmarks import scoring, startup
from eval.files import read_table, write_json

ROOT = Path(__file__).parents[1]
LARGE = {"torch", "timm", "torchvision", "lightning_fabric", "albumentations", "onnxruntime", "sklearn", "scipy", "matplotlib"}
# A module run as `python -m` would, once for each line of words; prints the exit statuses and what was imported.
CODE = f"""
import contextlib, io, runpy, sys
module, *lines = sys.argv[1:]
statuses = []
for line in lines:
    sys.argv = [module, *line.split()]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            statuses.append(runpy.run_module(module, run_name="__main__") and 0)
        except SystemExit as ended:
            statuses.append(ended.code or 0)
print(statuses, sorted({LARGE} & set(sys.modules)))
"""


def ran(module: str, *lines: str, folder: Path) -> str:
    words = [sys.executable, "-W", "ignore", "-c", CODE, module, *lines]
    done = subprocess.run(words, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", startup.COMMANDS)
def test_help_and_bad_input_come_without_large_libraries_and_leave_nothing(module, tmp_path):
    assert ran(module, "--help", startup.COMMANDS[module], folder=tmp_path) == "[0, 2] []"
    assert list(tmp_path.iterdir()) == []


def test_a_score_comes_without_large_libraries(tmp_path):
    submission, truth = scoring.write_tables(tmp_path, 5)
    assert ran("eval.score", f"{submission} {truth}", folder=tmp_path) == "[0] []"


def test_the_benchmark_knows_every_command():
    """A command is a module with options that runs as one, or a package that does."""
    files = [path for room in ("solution", "eval", "submission") for path in (ROOT / room).rglob("*.py")]
    modules = [path for path in files if "argparse.ArgumentParser(" in path.read_text() and '__name__ == "__main__"' in path.read_text()]
    packages = [path.parent for path in files if path.name == "__main__.py"]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules + packages}
    assert set(startup.COMMANDS) == named - {"eval.reference.predict"}  # which is eval.reference


# What the benchmark tells

def test_a_start_is_a_process_without_the_seconds_it_notes_for_its_work(tmp_path):
    noted = {"forward_seconds": 1.5, "rank_seconds": 0.25, "write_seconds": 0.125, "decode_seconds": 100, "load_seconds": 100}
    write_json(noted, tmp_path / "timings.json")
    assert startup.start_of(lambda words: 5.0 * (words == ["predict"]), ["predict"], tmp_path / "timings.json") == 5 - 1.875


def test_ratios_are_those_of_the_slower_engine_by_round():
    spent = {name: np.array([0.5, 0.25, 0.75]) for module in startup.COMMANDS for name in (f"{module} --help", f"{module}, bad input")}
    spent["eval.folds, bad input"] = np.array([3, 2, 1])
    told = startup.told({**spent, "eval.score": np.array([0.5]), "bare": np.array([2, 4, 3]), "torch": np.array([4, 4, 4]), "auto": np.array([1, 1, 9])})
    assert told["ratio"] == 0.75 and told["times_bare_import"] == pytest.approx(4 / 3) and told["bare_import_seconds"] == 3
    assert told["prediction"]["auto"]["ratio_of_rounds"] == [2, 4, 3 / 9] and told["prediction"]["auto"]["start_seconds"] == 1
    assert told["slowest_command_seconds"] == 2 and told["commands"]["eval.folds"] == {"help_seconds": 0.5, "bad_input_seconds": 2}


def test_a_command_that_ends_otherwise_is_one_line(tmp_path):
    assert startup.seconds_of(tmp_path, ["-c", "import sys; sys.exit(2)"], status=2) > 0
    with pytest.raises(SystemExit) as stopped:
        startup.seconds_of(tmp_path, ["-c", "1 / 0"])
    assert stopped.value.code == "error: python -c 1 / 0: exited 1, not 0: ZeroDivisionError: division by zero"


@pytest.mark.slow
def test_the_prediction_that_is_timed_runs(tmp_path):
    assert startup.starts(tmp_path)["torch"]() > 0 and len(read_table(tmp_path / "submission.csv")) == 2
