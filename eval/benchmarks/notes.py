"""What a run of a packed submission leaves besides its answer: seconds by phase, and words. A stranger's may hold anything.

    noted(folder / "submission" / "timings.json")      # {"decode": 1.5, ...}, None where nothing was noted
    engine_of(log), last_line(log)                     # what runs the models; the last words, for an error
"""

import math
from pathlib import Path

from eval.files import InputError, read_json

# What the packed predictor notes in submission/timings.json, and what it is called here.
PHASES = {"load_seconds": "loading", "decode_seconds": "decode", "forward_seconds": "forward",
          "rank_seconds": "ranking", "write_seconds": "writing"}


def last_line(log: Path) -> str:
    """The last words of a program, without what would move a terminal's cursor."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return printable(lines[-1])[:300] if lines else "it said nothing"


def printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


def engine_of(log: Path) -> str | None:
    """What the packed predictor says runs the models; None where main.py says no such thing."""
    with open(log, errors="replace") as lines:
        told = next((line.removeprefix("engine: ") for line in lines if line.startswith("engine: ")), None)
    return told and printable(told)[:100]


def noted(path: Path) -> dict[str, float] | None:
    """Seconds by phase as main.py noted them; None where it noted nothing or something else."""
    try:
        table = read_json(path) if path.is_file() else None
        seconds = {name: float(table[key]) for key, name in PHASES.items()}
    except (InputError, TypeError, KeyError, ValueError, OverflowError, RecursionError):  # a stranger's file may hold anything
        return None
    return seconds if all(0 <= value < math.inf for value in seconds.values()) else None
