"""Photographs as users have them: a table of `path, identity`, a set of wildlife-datasets, or a folder an individual.

Reads a CSV by the convention of the package wildlife-datasets (`path` and `identity`; optional columns as in
`eval.sources.sightings`), asks that package itself where it is installed, or walks folders named after individuals.

    python -m eval.importers wildlife nyala/metadata.csv --output data
    python -m eval.importers wildlife NyalaData --root downloads/nyala --output data
    python -m eval.importers folders photographs --output data

Expect a line a thing that was left out, and the counts.
"""

import difflib
import io
import os
from pathlib import Path

import pandas as pd

from eval.files import InputError, progress, read_table
from eval.reading import recognised, stream
from eval.sources.linking import Source, counted, nameable
from eval.sources.sightings import write_sightings

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


def write_paths(data: Path, file: Path, images: Path | None, identity: str | None, date_format: str | None) -> None:
    """From a CSV; its paths are relative to `images`, or else to the table's own folder."""
    if not file.is_file():
        raise InputError(f"{file}: no such table; of a set of the package wildlife-datasets give its folder with --root, "
                         "and folders named after individuals to `folders`")
    table, folder = read_table(file), images or file.parent
    table.columns = table.columns.str.strip()
    table = table.loc[:, ~table.columns.duplicated()]
    if "path" not in table:
        raise InputError(f"{file}: column 'path' is missing; the header is {','.join(table.columns)!r}")
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name that of the photographs with --images")
    write_sightings(data, with_identity(table, file, identity), Source(str(file)), folder, date_format)


def with_identity(table: pd.DataFrame, file: Path | str, identity: str | None) -> pd.DataFrame:
    """The table with `identity` as the column of that name, of the one asked for, or of a usual other name."""
    names = [identity] if identity else ["identity", "individual_id", "whale_id"]
    name = next((name for name in names if name in table), None)
    if name is None:
        raise InputError(f"{file}: column {names[0]!r} is missing; the header is {','.join(table.columns)!r}; "
                         "choose the individual's column with --identity")
    return table.assign(identity=table[name])


def write_package_set(data: Path, name: str, root: Path, identity: str | None, date_format: str | None) -> None:
    """From wildlife-datasets: its class `name` reads what it downloaded to `root`."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; download the set there first")
    try:
        from wildlife_datasets import datasets
    except ImportError as error:
        raise InputError(f"the package wildlife-datasets cannot be imported ({error}); pip install wildlife-datasets") from None
    found = getattr(datasets, name, None)
    if not (isinstance(found, type) and issubclass(found, datasets.WildlifeDataset)):
        near = difflib.get_close_matches(name, [key for key, value in vars(datasets).items() if isinstance(value, type)])
        raise InputError(f"{name}: wildlife-datasets has no such set" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        catalogue = found(str(root), check_files=False).df
    except Exception as error:  # each set raises its own kinds
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"{root}: wildlife-datasets finds no {name} there ({why}); "
                         f"download it with datasets.{name}.get_data({str(root)!r})") from None
    table = with_identity(as_text(catalogue), name, identity)
    write_sightings(data, table, Source(f"wildlife-datasets {name}", "row {}", 0), root, date_format)


def as_text(catalogue: pd.DataFrame) -> pd.DataFrame:
    """The table as its own CSV would be read."""
    return pd.read_csv(io.StringIO(catalogue.to_csv(index=False)), dtype=str, keep_default_na=False)


def write_folders(data: Path, folder: Path) -> None:
    """From folders named after individuals; a photograph directly in `folder` is of an unknown one. Times are the cameras'."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found, links = files_below(folder)
    found = nameable(found)
    path = pd.Series([name for name in found if name.lower().endswith(SUFFIXES)], dtype=object)
    others = [name for name in found if not name.lower().endswith(SUFFIXES)]
    if path.empty:
        raise InputError(f"{folder}: no photographs in it ({', '.join(SUFFIXES)}); "
                         "give the folder that holds a folder for each individual")
    for names, what in ((others, "other files are left out"), (links, "links to folders are not entered; put the folders themselves there")):
        if names:
            print(f"note: {counted(names, what)}")
    identity = path.map(lambda name: name.split("/")[0] if "/" in name else "")
    if (identity == "").all():
        print("note: no folder of an individual holds photographs, so all are of unknown ones: to be named, nothing to learn from")
    table = pd.DataFrame({"path": path, "identity": identity, "timestamp": taken(folder, path)})
    untimed = list(path[table["timestamp"] == ""])
    if untimed:
        print(f"note: {counted(untimed, 'photographs do not say when they were taken, so each counts as an encounter of its own')}")
    write_sightings(data, table, Source(str(folder), "photograph {}", 1), folder)


def taken(folder: Path, path: pd.Series) -> pd.Series:
    """When the camera took each photograph, as its EXIF says; "" where it says nothing that is a time."""
    said = pd.Series([original_time(folder / name) for name in progress(list(path), "reading times")], path.index, dtype=str)
    return pd.to_datetime(said, format="%Y:%m:%d %H:%M:%S", errors="coerce").dt.strftime("%Y-%m-%d %H:%M:%S").fillna("")


def original_time(file: Path) -> str:
    """The tag DateTimeOriginal."""
    from PIL import ExifTags

    try:
        with stream(file) as opened:
            return str(recognised(opened).getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal, ""))
    except Exception:  # each decoder has its own kinds for damaged bytes; what cannot be read is counted later
        return ""


def files_below(folder: Path) -> tuple[list[str], list[str]]:
    """Files, and links to folders, which are not entered: paths relative to `folder` in order. What is hidden is passed over."""
    found, links = [], []
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(at, name), folder) for name in files if not name.startswith(".")]
        links += [os.path.relpath(os.path.join(at, name), folder) for name in folders if os.path.islink(os.path.join(at, name))]
    return sorted(found), sorted(links)
