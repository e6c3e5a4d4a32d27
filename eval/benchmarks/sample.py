"""What a benchmark asks: data directories of several numbers of photographs, the smaller ones parts of the largest.

    write_drawn(data, 256, 224, ".jpg")       # DATA with made-up photographs, where none are at hand
    write_sizes(data, (64, 256), folder)      # FOLDER/64 and FOLDER/256

Reads DATA/metadata.csv and its photographs. Writes metadata.csv without what names a whale, copies of the photographs and, where
DATA has scenarios, one that asks every photograph against all of them. Where fewer photographs are there than are asked for, they are
repeated. The same DATA and sizes give the same bytes.
"""

import shutil
import sys
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd

from eval.files import InputError, read_table, write_table
from eval.folds import TEST_COLUMNS
from eval.labels import OUTSIDE, find_images, refuse


def write_drawn(data: Path, count: int, size: int, suffix: str) -> Path:
    """A data directory of made-up square photographs, smooth colours with grain, different in each."""
    from PIL import Image

    random = np.random.default_rng([0])
    (data / "images").mkdir(parents=True)
    names = [f"image{number:05}" for number in range(count)]
    for name in names:
        colours = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        grain = random.normal(0, 12, (size, size, 3))
        Image.fromarray((colours + grain).clip(0, 255).astype(np.uint8)).save(data / "images" / f"{name}{suffix}")
    write_table(pd.DataFrame({"image_id": names, "path": [f"images/{name}{suffix}" for name in names]}), data / "metadata.csv")
    return data


def write_sizes(data: Path, sizes: Sequence[int], folder: Path, ranked: bool = False) -> None:
    """Writes FOLDER/<size>, a data directory, for each size. `ranked`: with a scenario though DATA has none."""
    table, files = repeated(*photographs(data), max(sizes))
    for size in sizes:
        write_data(table[:size], files[:size], folder / str(size), ranked or (data / "query_scenarios.csv").is_file())


def photographs(data: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of DATA/metadata.csv and their files, shuffled the same way every time."""
    file = data / "metadata.csv"
    table = read_table(file, ["image_id", "path"])
    refuse(file, table.path, table.path.str.contains(OUTSIDE), "path must lie inside the data directory")
    refuse(file, table.image_id, table.image_id.duplicated(), "another row has this image_id too; keep one of them")
    files = find_images(data, table) or []
    if len(files) < 3:
        raise InputError(f"{data}: {len(files)} photographs are there; a benchmark needs three at least")
    order = np.random.default_rng([0]).permutation(len(table))
    return table.iloc[order], [files[row] for row in order]


def repeated(table: pd.DataFrame, files: list[str], count: int) -> tuple[pd.DataFrame, list[str]]:
    """So many photographs: where fewer are there, all of them again and again, each time by ids of their own."""
    if count <= len(table):
        return table[:count], files[:count]
    print(f"{len(table)} photographs are there: they are repeated to make {count}", file=sys.stderr)
    time, row = np.divmod(np.arange(count), len(table))
    table = table.iloc[row]
    return table.assign(image_id=table.image_id + "." + time.astype(str)), [files[number] for number in row]


def write_data(table: pd.DataFrame, files: list[str], folder: Path, scenarios: bool) -> None:
    """A data directory of these photographs, without what names a whale, and the scenario that asks each against all."""
    (folder / "images").mkdir(parents=True)
    paths = [f"images/{number:05}{Path(file).suffix}" for number, file in enumerate(files)]
    for file, path in zip(files, paths):
        shutil.copyfile(file, folder / path)
    write_table(table.assign(path=paths)[[name for name in TEST_COLUMNS if name in table]], folder / "metadata.csv")
    if scenarios:
        queries, database = folder / "queries" / "scenario01.csv", folder / "databases" / "scenario01.csv"
        write_table(pd.DataFrame({"query_id": "scenario01-" + table.image_id, "query_image_id": table.image_id}), queries)
        write_table(pd.DataFrame({"database_image_id": table.image_id}), database)
        row = ("scenario01", str(queries.relative_to(folder)), str(database.relative_to(folder)))
        write_table(pd.DataFrame([row], columns=["scenario_id", "queries_path", "database_path"]), folder / "query_scenarios.csv")
