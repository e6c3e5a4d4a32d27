"""Tables of three million rows: read, scored and cut into folds, with a bound on memory; seconds and megabytes are told.

    python -m pytest tests/fuzz/test_millions.py -m slow -s
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
ROWS = 3_000_000
ANSWERS = 20  # of a query
MEGABYTES = {"read": 3000, "read, quoted": 3000, "score": 6000, "folds": 6000}  # of memory at most
CHILD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
READ = "import sys; from solution.files import read_table; from eval.files import read_table as other; print(len(read_table(sys.argv[1])), len(other(sys.argv[1])))"


def measured(what: str, *words) -> str:
    """Runs a command; its output, with its seconds and its memory told and bounded."""
    start = time.monotonic()
    with subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, env=CHILD, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    megabytes = usage.ru_maxrss / 1024
    print(f"{what}: {ROWS:,} rows, {time.monotonic() - start:.0f} s, {megabytes:.0f} MB")
    assert process.returncode == 0 and megabytes < MEGABYTES[what], megabytes
    return said


@pytest.mark.slow
def test_millions_of_rows_are_read(tmp_path):
    rows = np.arange(ROWS)
    table = pd.DataFrame({"image_id": rows, "path": pd.Series(rows).map("images/{}.jpg".format), "whale_id": rows % 50_000})
    table.to_csv(tmp_path / "t.csv", index=False)
    assert measured("read", "-c", READ, tmp_path / "t.csv").split() == [str(ROWS)] * 2
    table.to_csv(tmp_path / "t.csv", index=False, quoting=1)
    assert measured("read, quoted", "-c", READ, tmp_path / "t.csv").split() == [str(ROWS)] * 2


@pytest.mark.slow
def test_millions_of_answers_are_scored(tmp_path):
    queries = np.repeat(np.arange(ROWS // ANSWERS), ANSWERS)
    place = np.tile(np.arange(ANSWERS), ROWS // ANSWERS)
    names = pd.Series(queries).map("scenario01-q{}".format)
    pd.DataFrame({"query_id": names, "database_image_id": pd.Series((queries + place) % 100_000).map("d{}".format), "score": 1 - place / 100}).to_csv(tmp_path / "s.csv", index=False)
    pd.DataFrame({"query_id": names[::ANSWERS].to_numpy(), "database_image_id": pd.Series(queries[::ANSWERS] % 100_000).map("d{}".format)}).to_csv(tmp_path / "truth.csv", index=False)
    said = measured("score", "-m", "eval.score", tmp_path / "s.csv", tmp_path / "truth.csv")
    assert f"all{'':<13}{ROWS // ANSWERS:>8}           1.0000" in said  # each query's first answer is its match


@pytest.mark.slow
def test_millions_of_photographs_are_cut_into_folds(tmp_path):
    rows = np.arange(ROWS)
    table = pd.DataFrame({"image_id": rows, "path": pd.Series(rows).map("images/{}.jpg".format), "whale_id": pd.Series(rows // 6).map("w{}".format), "encounter_id": rows // 2})
    table.to_csv(tmp_path / "metadata.csv", index=False)
    measured("folds", "-m", "eval.folds", tmp_path, "--output", tmp_path / "folds", "--protocol", "whale", "--n-folds", "2")
    assert sum(len(pd.read_csv(tmp_path / f"folds/{k}/labels.csv")) for k in (0, 1)) == ROWS
