"""Photographs of a run's training to look at again: those whose whale is most doubtful, beside others of it and of the whale that is nearer.

Reads RUN/fold*/doubts.csv (solution.doubts) and RUN/folds/*/train/. Writes nothing.

    read(run, [0, 1])       ->  Doubts(rows, counts), None where no fold has that file

A photograph that several folds train on stands there once, with the fold that doubts it most. Same files, same bytes.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.files import progress, read_table
from eval.labels import numbers
from eval.page import answers
from eval.page.pictures import thumbnail

SHOWN, BESIDE = 24, 3  # photographs in question, and those of either whale beside each
SIDE, ROOM = 200, 1_500_000  # pixels of the longer side; characters of data URIs
COLUMNS = ["doubt", "image_id", "whale_id", "angle", "other_whale_id", "other_angle"]


class Tile(NamedTuple):
    kind: str  # query: in question; named: of its whale; suggested: of the nearest other one
    image_id: str
    whale_id: str
    source: str | None  # "": unreadable; None: no room


class Row(NamedTuple):
    fold: int
    doubt: float
    angle: float
    other_angle: float
    tiles: list[Tile]  # the one in question first


class Doubts(NamedTuple):
    rows: list[Row]
    photographs: int  # judged, each once
    nearer: int  # of them nearer to another whale than to their own


def read(run: Path, folds: list[int]) -> Doubts | None:
    """InputError where a file cannot be read, or a path leads out of its folder."""
    folds = [fold for fold in folds if (run / f"fold{fold}" / "doubts.csv").is_file()]
    if not folds:
        return None
    tables = {fold: listed(run, fold) for fold in folds}
    together = pd.concat(tables.values(), ignore_index=True).sort_values(["doubt", "image_id", "fold"], ascending=[False, True, True])
    once = together.drop_duplicates("image_id")
    sources: dict[str, str] = {}
    rows = [row(each, tables[each.fold], sources) for each in progress(list(once[:SHOWN].itertuples()), "photographs to look at again")]
    return Doubts(rows, len(once), int((once.doubt > 0).sum()))


def listed(run: Path, fold: int) -> pd.DataFrame:
    """COLUMNS, fold, and of each photograph its file and box; a file of "" where the fold does not have it."""
    path = run / f"fold{fold}" / "doubts.csv"
    table = numbers(read_table(path, COLUMNS), ["doubt", "angle", "other_angle"], path)[COLUMNS].drop_duplicates("image_id")
    images = answers.photographs(run / "folds" / str(fold), "train").set_index("image_id")[["file", *answers.BOX]]
    return table.join(images, on="image_id").fillna({"file": ""}).assign(fold=fold)


def row(asked: tuple, table: pd.DataFrame, sources: dict[str, str]) -> Row:
    """One photograph, and the least doubtful ones of its whale and of the nearest other one."""
    surest = table[table.image_id != asked.image_id].sort_values(["doubt", "image_id"])
    beside = {kind: surest[surest.whale_id == whale][:BESIDE] for kind, whale in (("named", asked.whale_id), ("suggested", asked.other_whale_id))}
    tiles = [tile("query", asked, sources), *(tile(kind, each, sources) for kind, part in beside.items() for each in part.itertuples())]
    return Row(asked.fold, asked.doubt, asked.angle, asked.other_angle, tiles)


def tile(kind: str, image: tuple, sources: dict[str, str]) -> Tile:
    """`sources` has each file's picture once; it takes no more than ROOM."""
    if image.file not in sources and sum(map(len, sources.values())) < ROOM:
        box = np.array([getattr(image, edge) for edge in answers.BOX], float)
        sources[image.file] = thumbnail(Path(image.file), box, SIDE) if image.file else ""
    return Tile(kind, image.image_id, image.whale_id, sources.get(image.file))
