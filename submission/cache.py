"""What is made once on a machine and kept: $XDG_CACHE_HOME/whale-ranking, by default ~/.cache/whale-ranking."""

import os
import sys
from pathlib import Path
from typing import Callable

from eval.files import read_json, write_json
from eval.shortage import told


def place(name: str) -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "whale-ranking" / name


def cached(name: str, make: Callable[[], dict]) -> dict:
    """The JSON of that name in the cache; made, and said so when it was there already. What there is no room to keep is only told, and what
    another user put there is not used."""
    path = place(name)
    if path.is_file() and path.stat().st_uid == os.geteuid():
        print(f"{path}: measured before; remove it to measure again", file=sys.stderr)
        return read_json(path)
    made = make()
    try:
        write_json(made, path)
    except OSError as error:
        print(f"warning: {told(error)}; it is not kept for the next time", file=sys.stderr)
    return made
