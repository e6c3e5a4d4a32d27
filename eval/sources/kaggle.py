"""Kaggle's two whale competitions, Humpback Whale Identification and Happywhale, brought into the one data layout.

Reads SOURCE as Kaggle hands it out: train.csv, sample_submission.csv, the two folders of photographs, and boxes
(`Image,x0,y0,x1,y1`, one file for both parts). Writes DATA, the labelled part, and DATA/test, a data directory of its own
without labels: metadata.csv and images/ each. The base name of `path` is the competition's `Image`.

    python -m eval.importers hwi SOURCE --output DATA

prints how many images, individuals, unknown whales and boxes there are. Tables without photographs become metadata.csv
alone. What is missing is counted and told: a photograph that a table names is left out, an image without a box counts whole.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.files import InputError, read_table, write_table
from eval.labels import refuse
from eval.sources.linking import NOT_TEXT, Source, counted, link_all, nameable, photographs


class Competition(NamedTuple):
    image: str  # column of the file name in both tables
    labels: dict[str, str]  # our column: the column of train.csv
    train: str  # folders
    test: str


COMPETITIONS = {
    "hwi": Competition("Image", {"whale_id": "Id"}, "train", "test"),
    "happywhale": Competition("image", {"whale_id": "individual_id", "species": "species"}, "train_images", "test_images"),
}
UNKNOWN = ["new_whale", "new_individual"]
SPECIES = {"globis": "short_finned_pilot_whale", "pilot_whale": "short_finned_pilot_whale",
           "kiler_whale": "killer_whale", "bottlenose_dolpin": "bottlenose_dolphin"}  # misspelt in train.csv
BOX = ["x0", "y0", "x1", "y1"]
NO_FILE_NAME = r"^\.?$|[/\\]|\.\."


def write_competition(data: Path, source: Path, competition: Competition, boxes: Path | None = None) -> None:
    """Fills the empty directory `data`; InputError names the line of a table that cannot be used."""
    train, test = labelled(source / "train.csv", competition), asked(source, competition)
    boxes = boxes or (source / "bounding_boxes.csv" if (source / "bounding_boxes.csv").is_file() else None)
    if boxes:
        train, test = join_boxes(read_boxes(boxes), train, test)
    train = write_part(data, train, source / competition.train)
    if len(test):
        test = write_part(data / "test", test, source / competition.test)
    print(summary(train, test))


def summary(train: pd.DataFrame, test: pd.DataFrame) -> str:
    whales = train["whale_id"][train["whale_id"] != ""]
    n_boxes = sum(int((part["x0"] != "").sum()) for part in (train, test) if "x0" in part)
    return (f"{len(train):,} images: {len(whales):,} of {whales.nunique():,} individuals, {len(train) - len(whales):,} "
            f"of unknown ones; {len(test):,} test images; {n_boxes:,} boxes")


def labelled(file: Path, competition: Competition) -> pd.DataFrame:
    """The rows of train.csv: image_id, path, whale_id ("" unknown) and, in Happywhale, species."""
    table = read_table(file, [competition.image, *competition.labels.values()])
    if table.empty:
        raise InputError(f"{file}: no rows; give the competition's own table")
    rows = image_rows(file, table[competition.image])
    for ours, theirs in competition.labels.items():
        rows[ours] = table[theirs]
    rows["whale_id"] = rows["whale_id"].mask(rows["whale_id"].isin(UNKNOWN), "")
    return rows.replace({"species": SPECIES}) if "species" in rows else rows


def asked(source: Path, competition: Competition) -> pd.DataFrame:
    """The rows of the test part: image_id and path, as sample_submission.csv or else the folder names them."""
    file, folder = source / "sample_submission.csv", source / competition.test
    if file.is_file():
        return image_rows(file, read_table(file, [competition.image])[competition.image])
    found = nameable(sorted(files_in(folder))) if folder.is_dir() else []
    found = [name for name in found if name.lower().endswith((".jpg", ".jpeg", ".png"))]
    return image_rows(folder, pd.Series(found, dtype=str))


def image_rows(file: Path, name: pd.Series) -> pd.DataFrame:
    """image_id, the name without its suffix, and path; names come from outside and must not lead anywhere."""
    unfit = name.str.contains(NO_FILE_NAME) | name.map(lambda cell: bool(NOT_TEXT.search(cell))).astype(bool)
    refuse(file, name, unfit, "not the name of a file; a name without folders is needed")
    image_id = name.str.replace(r"\.\w+$", "", regex=True)
    refuse(file, name, image_id == "", "no name before its suffix, so the image would have none; rename the file")
    refuse(file, name, image_id.duplicated(), "an earlier line names this image too; keep one of them")
    return pd.DataFrame({"image_id": image_id, "path": "images/" + name})


def file_names(rows: pd.DataFrame) -> pd.Series:
    return rows["path"].str.removeprefix("images/")


def read_boxes(file: Path) -> pd.DataFrame:
    """x0, y0, x1, y1 in pixels, as written, by image name."""
    table = read_table(file, BOX)
    key = next((name for name in ("Image", "image") if name in table), None)
    if key is None:
        raise InputError(f"{file}: column 'Image' is missing; boxes are found by the image's name")
    edges = table[BOX].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    upright = np.isfinite(edges).all(axis=1) & (edges[:, 0] < edges[:, 2]) & (edges[:, 1] < edges[:, 3])
    refuse(file, table[key], pd.Series(~upright), "its box is not four numbers, x0 < x1 and y0 < y1; mend or drop the line")
    refuse(file, table[key], table[key].duplicated(), "an earlier line gives this image a box too; keep one of them")
    return table.set_index(key)[BOX]


def join_boxes(boxes: pd.DataFrame, *parts: pd.DataFrame) -> list[pd.DataFrame]:
    """Each part with the boxes of its images, empty cells where there is none; one line tells what did not meet."""
    names = pd.Index(pd.concat([file_names(part) for part in parts]))
    without, nameless = names[~names.isin(boxes.index)], boxes.index[~boxes.index.isin(names)]
    if len(without) or len(nameless):
        print(f"note: {counted(without, 'images have no box and count whole')}; {counted(nameless, 'boxes name no image')}")
    return [part.assign(**boxes.reindex(file_names(part)).fillna("").set_index(part.index)) for part in parts]


def write_part(data: Path, rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """metadata.csv and images/ of the rows whose photograph is in `folder` and can be read, or of all where there is no such folder.

    Returns those rows.
    """
    data.mkdir(exist_ok=True)
    if folder.is_dir():
        files = photographs(Source(str(folder), "photograph {}", 1), file_names(rows), folder, folder.parent)
        rows = rows.loc[files.index]
        link_all({data / path: file for path, file in zip(rows["path"], files)}, f"{folder.name}: linking")
    else:
        print(f"note: no folder {folder}: a label table without photographs")
    write_table(rows, data / "metadata.csv")
    return rows


def files_in(folder: Path) -> set[str]:
    return {entry.name for entry in os.scandir(folder) if entry.is_file()}
