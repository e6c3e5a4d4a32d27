"""What a label table is: a checked metadata.csv, each whale's photographs grouped into encounters.

Reads DATA/metadata.csv and where its images lie; writes nothing.

    labels = read_labels(data)          raises InputError naming the line
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd

from eval.files import InputError, read_table

ENCOUNTER_GAP = pd.Timedelta(hours=1)
LARGEST = 1e15  # number of a table: none that means anything is larger, and sums and charts of such ones are finite
OUTSIDE = r"^$|^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"


@dataclass(frozen=True)
class Labels:
    """A checked metadata.csv (text) of n rows and where it lies, and of each row the whale (-1: unknown), the encounter,
    what told the encounter, and the day (NaT: unknown)."""

    metadata: pd.DataFrame
    whale: np.ndarray
    encounter: np.ndarray
    encounter_source: np.ndarray
    day: pd.Series
    file: Path

    @property
    def known(self) -> np.ndarray:
        return self.whale >= 0


def read_labels(data: Path) -> Labels:
    """DATA/metadata.csv, checked; InputError names the line (row i is line i + 2) and what to do."""
    file = Path(data) / "metadata.csv"
    metadata = read_table(file, ["image_id", "path", "whale_id"])
    if metadata.empty:
        raise InputError(f"{file}: no rows; folds need labelled images")
    refuse(file, metadata["image_id"], metadata["image_id"] == "", "image_id is empty; give every image one")
    twice = metadata["image_id"].duplicated()
    if twice.any():
        first, second = np.flatnonzero(metadata["image_id"] == metadata["image_id"][twice.idxmax()])[:2]
        raise InputError(f"{file}: lines {first + 2} and {second + 2} have the same image_id "
                         f"{metadata['image_id'][first]!r}; keep one of them")
    refuse(file, metadata["path"], metadata["path"].str.contains(OUTSIDE), "path must lie inside the data directory")
    refuse(file, metadata["whale_id"], metadata["whale_id"] != metadata["whale_id"].str.strip(),
           "whale_id begins or ends with a space, which makes it another individual; remove it")
    if (metadata["whale_id"] == "").all():
        raise InputError(f"{file}: every whale_id is empty; folds need labelled images")
    whale = pd.factorize(metadata["whale_id"].where(metadata["whale_id"] != ""))[0]
    time, day = times(file, metadata, "timestamp"), times(file, metadata, "date")
    encounter, source = encounters(whale, time, column(metadata, "encounter_id"))
    return Labels(metadata, whale, encounter, source, day.fillna(time).dt.normalize(), file)


def column(table: pd.DataFrame, name: str) -> pd.Series:
    return table[name] if name in table else pd.Series("", index=table.index)


def times(file: Path, table: pd.DataFrame, name: str) -> pd.Series:
    """Column `name` of a table of text that was read from `file` as times, NaT where it is empty or there is none."""
    text = column(table, name)
    time = moments(text)
    refuse(file, text, time.isna() & (text != ""), f"{name} is not a time; write YYYY-MM-DD or YYYY-MM-DD HH:MM:SS")
    return time


def moments(text: pd.Series) -> pd.Series:
    """Times, of UTC where they have a zone; NaT for what is none in ISO 8601, such as `now` and `today`, which pandas takes from the clock."""
    return pd.to_datetime(text.where(text.str.match("[0-9]{4}"), ""), format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)


def numbers(table: pd.DataFrame, columns: Sequence[str], file: Path) -> pd.DataFrame:
    """The table of text with `columns` as numbers, NaN for an empty cell."""
    read = {name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in columns}
    for name, value in read.items():
        wrong = (table[name] != "") & ~(value.abs() <= LARGEST)
        if wrong.any():
            row = wrong.idxmax()
            raise InputError(f"{file}: line {row + 2}: {name} is {table[name][row]!r}, not a number; write the file again")
    return table.assign(**read)


def refuse(file: Path, value: pd.Series, bad: pd.Series, why: str) -> None:
    """InputError with the line and the value of the first row that is bad; row i is line i + 2."""
    if bad.any():
        raise InputError(f"{file}: line {bad.idxmax() + 2}: {value[bad.idxmax()]!r}: {why}")


def find_images(data: Path, metadata: pd.DataFrame) -> list[str] | None:
    """The real file of each row; None for a label table: neither images/ nor any folder that `path` names is there."""
    data, table = Path(data), Path(data) / "metadata.csv"
    if not any(os.path.exists(data / folder) for folder in {"images", *metadata["path"].str.split("/").str[0]}):
        return None
    root = os.path.realpath(data) + os.sep
    files = [os.path.realpath(data / path) for path in metadata["path"]]
    for line, (path, file) in enumerate(zip(metadata["path"], files), start=2):
        if not file.startswith(root):
            raise InputError(f"{table}: line {line}: {path!r} leads out of the data directory through a link; "
                             "put the file itself there")
        if not os.path.isfile(file):
            raise InputError(f"{table}: line {line}: {data / path} is missing; put it there or drop the row")
    return files


def leads_out(folder: Path, paths: pd.Series) -> np.ndarray:
    """Which of some paths relative to a folder (n,) lead out of it through a link."""
    root = os.path.join(os.path.realpath(folder), "")
    places = {place: os.path.join(os.path.realpath(os.path.join(root, place)), "") for place in {os.path.dirname(path) for path in paths}}
    files = (places[os.path.dirname(path)] + os.path.basename(path) for path in paths)
    return np.array([not (os.path.realpath(file) if os.path.islink(file) else file).startswith(root) for file in files], bool)


def encounters(whale: np.ndarray, time: pd.Series, encounter_id: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Per row its encounter as a number and what told it: `timestamp`, `encounter_id` or `image`.

    A whale's photographs belong together while each is less than an hour from the next, whatever the viewpoint. A row
    without a timestamp takes that of its encounter_id; failing that encounter_id itself counts, else it is alone.
    """
    named = encounter_id != ""
    time = time.where(time.notna() | ~named, time.groupby([whale, encounter_id]).transform("first"))
    rows = pd.DataFrame({"whale": whale, "time": time}).sort_values(["whale", "time"], kind="stable")
    starts = (rows["whale"] != rows["whale"].shift()) | ~(rows["time"].diff() < ENCOUNTER_GAP)
    told = [time.notna(), named]
    source = np.select(told, ["timestamp", "encounter_id"], "image")
    key = np.select(told, [starts.cumsum().sort_index(), pd.factorize(encounter_id)[0]], np.arange(len(whale)))
    keys = pd.DataFrame({"whale": whale, "source": source, "key": key})
    return keys.groupby(["whale", "source", "key"]).ngroup().to_numpy(), source
