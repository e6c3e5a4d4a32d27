"""What a benchmark asks: data directories of two numbers of photographs, the smaller one a part of the larger.

    write_sizes(data, (64, 256), folder)      # FOLDER/64 and FOLDER/256; returns the sizes there are

Reads DATA/metadata.csv and its photographs. Writes metadata.csv without what names a whale, copies of the photographs and, where
DATA has scenarios, one that asks every photograph against all of them. The same DATA and sizes give the same bytes.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from eval.files import InputError, read_table, write_table
from eval.folds import TEST_COLUMNS
from eval.labels import OUTSIDE, find_images, refuse


def write_sizes(data: Path, sizes: tuple[int, int], folder: Path) -> tuple[int, int]:
    """Writes FOLDER/<size>, a data directory, for both sizes; returns them, shrunk where DATA has fewer photographs."""
    table, files = photographs(data)
    sizes = shrunk(sizes, len(table))
    for size in sizes:
        write_data(table[:size], files[:size], folder / str(size), (data / "query_scenarios.csv").is_file())
    return sizes


def photographs(data: Path) -> tuple[pd.DataFrame, list[str]]:
    """The rows of DATA/metadata.csv and their files, shuffled the same way every time."""
    file = data / "metadata.csv"
    table = read_table(file, ["image_id", "path"])
    refuse(file, table.path, table.path.str.contains(OUTSIDE), "path must lie inside the data directory")
    refuse(file, table.image_id, table.image_id.duplicated(), "another row has this image_id too; keep one of them")
    files = find_images(data, table) or []
    if len(files) < 3:
        raise InputError(f"{data}: {len(files)} photographs are there; two numbers of them, neither 1, need three at least")
    order = np.random.default_rng([0]).permutation(len(table))
    return table.iloc[order], [files[row] for row in order]


def shrunk(sizes: tuple[int, int], there: int) -> tuple[int, int]:
    """Both sizes in the same proportion, no larger than what is there."""
    small, large = sizes
    if large <= there:
        return sizes
    small, large = max(2, small * there // large), there
    print(f"{there} photographs are there: measuring on {small} and {large}", file=sys.stderr)
    return small, large


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
