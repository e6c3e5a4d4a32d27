"""What the importers share: rows from outside that are refused by name, photographs found, looked at and linked.

Reads the header of each photograph; makes hard links, copies where the file system has none.
"""

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple, Sequence

import pandas as pd

from eval.files import InputError, progress
from eval.reading import recognised, stream

NOT_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


class Source(NamedTuple):
    """Where a table came from and how its rows are called there, for a message that names one."""

    name: str
    row: str = "line {}"
    first: int = 2

    def refuse(self, value: pd.Series, bad: pd.Series, why: str) -> None:
        """InputError with the place and the value of the first row that is bad."""
        if bad.any():
            raise InputError(f"{self.name}: {self.row.format(bad.idxmax() + self.first)}: {value[bad.idxmax()]!r}: {why}")

    def refuse_control_characters(self, table: pd.DataFrame) -> None:
        for name in table:
            self.refuse(table[name], table[name].map(lambda cell: bool(NOT_TEXT.search(cell))),
                        f"{name} holds a control character; mend or drop the row")


def photographs(source: Source, path: pd.Series, folder: Path, root: Path | None = None) -> pd.Series:
    """The real file of each row whose photograph is in `folder` and can be read; what is not is counted. InputError where a link leads
    out of `root`, by default that folder."""
    files = path.map({name: real_file(folder, name) for name in progress(list(path.unique()), "looking for photographs")})
    inside = os.path.join(os.path.realpath(root or folder), "")
    leads_out = (files != "") & ~files.str.startswith(inside)
    source.refuse(path, leads_out, f"leads out of {root or folder} through a link; put the file itself there")
    if not (files != "").any():
        raise InputError(f"{folder}: none of the photographs that the table names is here, such as {path.iloc[0]}; "
                         "unpack them into this folder or choose another")
    headers = progress(list(files[files != ""].unique()), "reading headers")
    broken = files.isin({file for file in headers if not is_photograph(file)})
    for bad, what in ((files == "", f"photographs are not in {folder}"), (broken, "photographs cannot be read")):
        if bad.any():
            print(f"warning: {counted(list(path[bad]), f'{what} and are left out')}")
    return files[(files != "") & ~broken]


def real_file(folder: Path, path: str) -> str:
    """The file at `path`, links resolved, or "" where there is none.

    Tables from systems that know no difference say .jpg where the file says .JPG: the suffix may be in the other case.
    """
    stem, suffix = os.path.splitext(os.path.join(folder, path))
    spellings = (os.path.realpath(stem + spelling) for spelling in dict.fromkeys([suffix, suffix.lower(), suffix.upper()]))
    return next((file for file in spellings if os.path.isfile(file)), "")


def is_photograph(file: str) -> bool:
    """Whether the file may be read and is an image by its header, of no more pixels than the predictor reads."""
    try:
        with stream(file) as opened:
            return recognised(opened) is not None
    except Exception:  # each decoder has its own kinds for damaged bytes
        return False


def link_all(files: dict[Path, str], label: str) -> None:
    """Hard links, else copies: the file `files[target]` at each target, whose folders are made."""
    for folder in {target.parent for target in files}:
        folder.mkdir(parents=True, exist_ok=True)
    for target, file in progress(list(files.items()), label):
        try:
            os.link(file, target)
        except OSError:
            shutil.copyfile(file, target)


def counted(names: Sequence[str], what: str) -> str:
    """How many, and the first of them, which a terminal may not be able to print."""
    first = [name if name.isprintable() else ascii(name) for name in names[:1]]
    return f"{len(names):,} {what}" + "".join(f" (the first is {name})" for name in first)


def nameable(names: Sequence[str]) -> list[str]:
    """The names that a table can hold; of the others it is told how many there are."""
    others = [name for name in names if NOT_TEXT.search(name)]
    if others:
        print(f"warning: {counted(others, 'files are left out, whose names no table can hold; give them others')}")
    return [name for name in names if not NOT_TEXT.search(name)]
