"""Runs one step of a run and writes down its seconds and peak memory.

    python -m eval.step RUN/summary.csv "train fold 0" -- python -m solution.train ...

Adds the row step,seconds,peak_mb to RUN/summary.csv. What an earlier run of the step took is added to, also one that failed or
was stopped, so that a training in several parts shows all its seconds. peak_mb is the largest process. Exits as the step did.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from eval.files import alone, check_room, read_table, run, write_table
from eval.labels import numbers, refuse

COLUMNS = ["step", "seconds", "peak_mb"]


def measured(command: list[str]) -> tuple[int, float, float]:
    """Exit status, seconds, and the peak resident memory in MB of the command or its largest child."""
    start = time.monotonic()
    status = subprocess.run(command).returncode
    return status, time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def read(path: Path) -> pd.DataFrame:
    """The summary so far, as text; InputError where it is none."""
    table = read_table(path, COLUMNS) if path.is_file() else pd.DataFrame(columns=COLUMNS, dtype=str)
    number = numbers(table, COLUMNS[1:], path)[COLUMNS[1:]]
    refuse(path, table.step, ~(number >= 0).all(axis=1), "its seconds or peak_mb are no numbers from 0 on; mend or remove the line")
    return table[COLUMNS]


def noted(path: Path, step: str, seconds: float, peak_mb: float) -> pd.DataFrame:
    """The summary with the step's row, which adds to that of earlier runs of the step."""
    table = read(path)
    for row in table[table.step == step].itertuples():
        seconds, peak_mb = seconds + float(row.seconds), max(peak_mb, float(row.peak_mb))
    row = pd.DataFrame([[step, f"{seconds:.1f}", f"{peak_mb:.0f}"]], columns=COLUMNS)
    return pd.concat([table[table.step != step], row], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Run a command and note its seconds and peak memory.",
        epilog='example: python -m eval.step runs/demo/summary.csv folds -- python -m eval.folds DATA --output FOLDS --protocol whale')
    parser.add_argument("summary", type=Path, help="the summary.csv to add to")
    parser.add_argument("step", help="the step's name")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("no command after --")
    read(arguments.summary)  # one that cannot be added to is told before the work
    check_room(arguments.summary)
    print(f"\n== {arguments.step}", file=sys.stderr)
    status, seconds, peak_mb = measured(command)
    with alone(arguments.summary, wait=True):
        write_table(noted(arguments.summary, arguments.step, seconds, peak_mb), arguments.summary)
    sys.exit(status if status >= 0 else 1)


if __name__ == "__main__":
    run(main)
