"""What a table of sightings becomes: a data directory. A sighting is one animal on one photograph.

Takes a table of text, a row a sighting: `path` and `identity`, and where they are there `image_id`, `bbox` ([x, y, width,
height] in pixels) or `x0,y0,x1,y1`, `date`, `timestamp`, `viewpoint` or `orientation`, `encounter_id`, `species`, `width`
and `height`. Writes DATA/metadata.csv and DATA/images/ with hard links to the photographs. `eval.sources.wildlife` and `eval.sources.coco`
bring such tables:

    python -m eval.importers wildlife table.csv --output data

prints how many images, individuals, unknown ones and boxes there are. A photograph that is missing or cannot be read is left
out and counted; so is a row that names a photograph again without a box of its own.
"""

from pathlib import Path
from posixpath import normpath

import numpy as np
import pandas as pd

from eval.files import InputError, write_table
from eval.labels import OUTSIDE, column
from eval.sources.linking import Source, counted, link_all, photographs

OTHER_NAMES = {"orientation": "viewpoint", "encounter": "encounter_id", "datetime": "timestamp"}
KEPT = ["encounter_id", "viewpoint", "species", "height", "width"]
BOX = ["x0", "y0", "x1", "y1"]
UNKNOWN = ["unknown", "Unknown", "UNKNOWN", "____", "new_whale", "new_individual", "nan", "NaN"]  # ____ is Wild Me's
EMPTY = [*UNKNOWN, "NaT", "None", "NA", "null"]  # None and NA may be names, but no dates
DATES = [(r"^(\d{4})[:/.](\d\d?)[:/.](\d\d?)", r"\1-\2-\3"),  # EXIF, Wild Me
         (r"^(\d\d?)\.(\d\d?)\.(\d{4})", r"\3-\2-\1"),
         (r"^(\d{4})-(\d)-", r"\1-0\2-"), (r"^(\d{4}-\d\d)-(\d)( |T|$)", r"\1-0\2\3")]
HOW_TO_DATE = "write YYYY-MM-DD or YYYY-MM-DD HH:MM:SS, or say how with --date-format, for example %d/%m/%Y"


def write_sightings(data: Path, table: pd.DataFrame, source: Source, folder: Path | None, date_format: str | None = None) -> None:
    """Fills the empty directory `data`; paths of the table lie in `folder`, None for labels alone."""
    table = tidy(table, source)
    path = inside(source, table["path"])
    rows = pd.DataFrame({"image_id": image_ids(source, table), "path": below_images(path), "whale_id": table["identity"],
                         **times(source, table, date_format), **{name: table[name] for name in KEPT if name in table},
                         **boxes(source, table)})
    if folder is None:
        print("note: no photographs are given: a label table without them")
        rows = rows[first_only(rows, path)]
    else:
        files = photographs(source, path, folder)
        rows = rows.loc[files.index]
        rows = rows[first_only(rows, files)]
        link_all({data / target: file for target, file in zip(rows["path"], files[rows.index])}, "linking")
    write_table(rows, data / "metadata.csv")
    print(summary(rows))


def summary(rows: pd.DataFrame) -> str:
    whales = rows["whale_id"][rows["whale_id"] != ""]
    n_boxes = int((rows["x0"] != "").sum()) if "x0" in rows else 0
    return (f"{len(rows):,} images: {len(whales):,} of {whales.nunique():,} individuals, "
            f"{len(rows) - len(whales):,} of unknown ones; {n_boxes:,} boxes")


def tidy(table: pd.DataFrame, source: Source) -> pd.DataFrame:
    """Our names for the columns and "" for every word that means nothing; InputError for what no table can hold."""
    if table.empty:
        raise InputError(f"{source.name}: no rows; there is nothing to import")
    table = table.rename(columns={theirs: ours for theirs, ours in OTHER_NAMES.items() if ours not in table})
    source.refuse_control_characters(table[table.columns.intersection(["path", "identity", "image_id", *KEPT])])
    return table.apply(lambda cells: cells if cells.name == "path" else stripped(cells))


def stripped(cells: pd.Series) -> pd.Series:
    cells = cells.str.strip()
    if cells.name in ("width", "height"):
        return cells.where(cells.str.fullmatch(r"\d+"), "")
    cells = cells.mask(cells.isin(UNKNOWN if cells.name in ("identity", "image_id") else EMPTY), "")
    return cells.replace("up", "top") if cells.name == "viewpoint" else cells  # Wild Me's word for seen from above


def inside(source: Source, path: pd.Series) -> pd.Series:
    """Normal paths, with slashes also where a table from Windows has backslashes; InputError where one leads out."""
    source.refuse(path, path.str.contains(OUTSIDE), "not a path inside the folder of photographs; make it relative to that")
    return path.map(lambda cell: normpath(cell.replace("\\", "/")))


def below_images(path: pd.Series) -> pd.Series:
    return path if path.str.startswith("images/").all() else "images/" + path


def image_ids(source: Source, table: pd.DataFrame) -> pd.Series:
    """Those of the table, or numbers by the row, so that a photograph more or less changes no other's."""
    if "image_id" not in table:
        return pd.Series([f"photo{row:05d}" for row in range(len(table))], index=table.index)
    source.refuse(table["image_id"], table["image_id"] == "", "image_id is empty; give every row one, or none at all")
    source.refuse(table["image_id"], table["image_id"].duplicated(), "an earlier row has this image_id too; give each its own")
    return table["image_id"]


def times(source: Source, table: pd.DataFrame, date_format: str | None) -> dict[str, pd.Series]:
    """`date` and `timestamp` in ISO 8601, each where any is known; a midnight is a day without an hour."""
    moment, day = (moments(source, column(table, name), name, date_format) for name in ("timestamp", "date"))
    moment, day = moment.fillna(day), day.fillna(moment)
    moment = moment.where(moment != moment.dt.normalize())
    written = {"date": day.dt.strftime("%Y-%m-%d").fillna(""), "timestamp": moment.dt.strftime("%Y-%m-%d %H:%M:%S").fillna("")}
    return {name: text for name, text in written.items() if (text != "").any()}


def moments(source: Source, text: pd.Series, name: str, date_format: str | None) -> pd.Series:
    """Times, of UTC where they have a zone; NaT where empty or, as COCO files write it, 0. A year alone is its first day."""
    text = text.mask(text == "0", "")
    iso = text
    for form, as_iso in [] if date_format else DATES:
        iso = iso.str.replace(form, as_iso, regex=True)
    iso = iso.mask(iso.isin(["now", "today"]), "-")  # pandas takes these from the clock
    moment = pd.to_datetime(iso, format=date_format or "ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
    moment = moment.where(moment.dt.year >= 1000)  # which ISO 8601 writes with four digits
    why = f"is not what --date-format {date_format} says" if date_format else f"is not a time; {HOW_TO_DATE}"
    source.refuse(text, moment.isna() & (text != ""), f"{name} {why}")
    return moment


def boxes(source: Source, table: pd.DataFrame) -> dict[str, pd.Series]:
    """x0, y0, x1, y1 in pixels, "" where there is no box or it spans the whole image; {} where there are none at all."""
    corners = "bbox" not in table and set(BOX) <= set(table)
    text = table[BOX].agg(" ".join, axis=1).str.strip() if corners else column(table, "bbox")
    edges = four_numbers(text)
    edges[:, 2:] += 0 if corners else edges[:, :2]
    upright = np.isfinite(edges).all(axis=1) & (edges[:, 0] < edges[:, 2]) & (edges[:, 1] < edges[:, 3])
    form = "x0 < x1 and y0 < y1" if corners else "[x, y, width, height]"
    source.refuse(text, (text != "") & ~upright, f"not a box, {form} in pixels; mend or empty it")
    source.refuse(text, (text != "") & outside(edges, table), "the box lies outside of its photograph; mend or empty it")
    given = (text != "").to_numpy() & ~spans(edges, table)
    return {name: pd.Series(np.where(given, [f"{edge:.7g}" for edge in edges[:, k]], ""), table.index)
            for k, name in enumerate(BOX) if given.any()}


def four_numbers(text: pd.Series) -> np.ndarray:
    """(n, 4) from cells such as `[1, 2.5, 30, 40]`, as lists, tuples and arrays print themselves; NaN where they are not."""
    plain = text.str.replace(r"np\.\w+\(([^)]*)\)", r"\1", regex=True).str.strip("[]() ")
    cells = plain.str.split(r"[\s,]+", n=4, regex=True, expand=True).reindex(columns=range(5))
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    return np.where(cells[4].isna().to_numpy()[:, None], numbers[:, :4], np.nan)


def size(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of each row's photograph; NaN where the table does not tell them."""
    return tuple(pd.to_numeric(column(table, name), errors="coerce").to_numpy(float) for name in ("width", "height"))


def outside(edges: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Whether no pixel of the image, where its size is told, lies in the box."""
    width, height = size(table)
    return (edges[:, 0] >= width) | (edges[:, 1] >= height) | (edges[:, 2] <= 0) | (edges[:, 3] <= 0)


def spans(edges: np.ndarray, table: pd.DataFrame) -> np.ndarray:
    """Whether each box covers its whole image but for a pixel, which rounding takes."""
    width, height = size(table)
    return (edges[:, 0] <= 1) & (edges[:, 1] <= 1) & (edges[:, 2] >= width - 1) & (edges[:, 3] >= height - 1)


def first_only(rows: pd.DataFrame, place: pd.Series) -> pd.Series:
    """Whether each row is the first of its photograph and box; one line tells of the others."""
    keys = [place, *(rows[edge] for edge in BOX if edge in rows)]
    again = pd.concat(keys, axis=1).duplicated()
    if again.any():
        other = again & (rows["whale_id"] != rows.groupby(keys)["whale_id"].transform("first"))
        what = "rows name a photograph again, without a box of their own, and are left out"
        print(f"warning: {counted(list(rows['path'][again]), what)}; {int(other.sum()):,} of them name another individual")
    return ~again
