"""Every place in a folder's files that holds what is no number, as text or in an array.

    numbers_said.wrong(run)         # ["fold0/score.json: NaN", ...]

Ids and file names of the toy data hold no such words.
"""

import json
import re
from pathlib import Path

import numpy as np

WORDS = re.compile(r"(?<![\w.])[-+]?(?:nan|inf|infinity)(?![\w.]*\w)", re.IGNORECASE)
UNSAID = re.compile(r"<script[^>]*>(?!\{).*?</script>|<style.*?</style>|data:image/[^\"']*", re.DOTALL)  # the page's own script and style, photographs


def wrong(folder: Path) -> list[str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [f"{path.relative_to(folder)}: {word}" for path in files for word in words(path)]


def words(path: Path) -> list[str]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return [name for name in arrays.files if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all()]
    if path.suffix == ".json":
        found: list[str] = []
        json.loads(path.read_text(), parse_constant=found.append)
        return found
    return WORDS.findall(UNSAID.sub("", path.read_text())) if path.suffix in (".csv", ".html", ".yaml", ".txt") else []
