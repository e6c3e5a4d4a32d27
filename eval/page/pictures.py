"""Photographs for a page: small, each once, and only as many as the page has room for.

Reads the photographs that `eval.page.answers` names and RUN/fold*/explain/{pairs.csv,*.jpg}. Writes nothing.

    photographs(answers, first)  ->  {image: "data:image/webp;base64,..."}, those of the queries worth a look first
    pairs(run, [0])              ->  the pairs of photographs that tell where a match was seen

A photograph takes 5 to 15 KB. Same files, same bytes.
"""

import base64
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd

from eval.labels import leads_out, numbers
from eval.page.answers import BOX, Answers, orders
from eval.files import InputError, progress, read_table
from eval.reading import recognised, stream, upright

ROOM, PAIR_ROOM = 8_500_000, 1_500_000  # characters of data URIs: of all photographs, of all explained pairs
SIDES, PAIR_SIDE = (180, 320), 640  # pixels of the longer side
QUALITY, BYTES = 60, 0.18  # of WebP: a pixel of a thumbnail takes this many bytes where there is foliage, fewer over water
LOOKED_AT = 40  # queries of each order that come before all others
PAIR = ["query_id", "query_image_id", "database_image_id", "place", "similarity", "picture"]


def photographs(answers: Answers, first: pd.Series) -> dict[int, str]:
    """A data URI by row number of `images`, "" for a file without a picture; what does not fit into ROOM is left out.

    `first` (n,) marks queries that come before all others. Fewer photographs are larger.
    """
    images = wanted(answers, first)
    side = side_for(len(images))
    sources: dict[int, str] = {}
    room = ROOM
    for image in progress(images, "photographs"):
        row = answers.images.loc[image]
        sources[image] = thumbnail(Path(row.file), row[BOX].to_numpy(float), side) if row.file else ""
        room -= len(sources[image])
        if room < 0:
            del sources[image]
            break
    return sources


def wanted(answers: Answers, first: pd.Series) -> list[int]:
    """The images of all queries, each once, those of the queries worth a look first."""
    tiles = pd.concat([answers.queries.image.rename_axis("query").reset_index().assign(place=-1), answers.tiles])
    tiles = tiles[tiles.image >= 0].assign(turn=turns(answers, first)[tiles["query"][tiles.image >= 0]])
    return tiles.sort_values("turn", kind="stable").image.unique().tolist()


def turns(answers: Answers, first: pd.Series) -> np.ndarray:
    """The place (n,) of each query in the queue: marked ones, both ends of every order, then the scenarios in turn."""
    queries = answers.queries
    place = np.min([np.argsort(order) for order in orders(answers).values()], axis=0)
    waiting = pd.DataFrame({"place": place, "fold": queries.fold, "scenario": queries.scenario_id}).sort_values("place", kind="stable")
    round_ = waiting.groupby(["fold", "scenario"]).cumcount().sort_index().to_numpy()
    round_ = np.where(first, -2, np.where(place < LOOKED_AT, -1, round_))
    return np.argsort(np.lexsort((place, round_)))


def side_for(n: int) -> int:
    """The longer side in pixels that lets n photographs of ordinary detail fit into ROOM."""
    return int(np.clip(math.sqrt(ROOM * 3 / 4 / BYTES / max(n, 1)), *SIDES))


def pictured(answers: Answers, sources: dict[int, str]) -> pd.Series:
    """True for the queries (n,) all of whose photographs the page has."""
    there = answers.tiles.image.isin([-1, *sources])
    missing = answers.tiles["query"][~there]
    return answers.queries.image.isin(sources) & ~answers.queries.index.isin(missing)


def thumbnail(path: Path, box: np.ndarray, side: int) -> str:
    """A data URI of the photograph, upright and cut to `box` (x0, y0, x1, y1 in pixels, NaN: none); "" if unreadable."""
    try:
        with stream(path) as opened:
            small = cut(recognised(opened), box, side)
    except Exception:  # each decoder has its own kinds for damaged bytes, and a page is worth having without one photograph
        return ""
    small.thumbnail((side, side))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=QUALITY, icc_profile=b"", exif=b"")
    return "data:image/webp;base64," + base64.b64encode(written.getvalue()).decode()


def cut(photograph, box: np.ndarray, side: int):
    """The part of an upright photograph; a JPEG is decoded at an eighth, quarter or half where that has `side` pixels."""
    full = photograph.size
    box = np.clip(box, 0, max(full))
    longest = max(*(box[2:] - box[:2]), 1) if np.isfinite(box).all() else max(full)
    photograph.draft("RGB", tuple(math.ceil(length * side / longest) for length in full))
    picture = upright(photograph).convert("RGB")
    x0, y0, x1, y1 = np.clip(box * max(picture.size) / max(full), 0, [*picture.size] * 2)
    return picture.crop((x0, y0, x1, y1)) if x0 < x1 and y0 < y1 else picture


def pairs(run: Path, folds: list[int]) -> pd.DataFrame:
    """fold, the columns of pairs.csv and `source` of each explained pair: "" where it is unreadable, None when PAIR_ROOM is spent.

    The folds take their turns, so that each has some.
    """
    paths = {fold: run / f"fold{fold}" / "explain" / "pairs.csv" for fold in folds}
    tables = [explained(path).assign(fold=fold) for fold, path in paths.items() if path.is_file()]
    table = pd.concat([pd.DataFrame(columns=[*PAIR, "fold"]), *tables], ignore_index=True)
    sources, room = {}, PAIR_ROOM
    for row in table.groupby("fold").cumcount().sort_values(kind="stable").index:
        if room > 0:
            sources[row] = thumbnail(paths[table.fold[row]].parent / table.picture[row], np.full(4, np.nan), PAIR_SIDE)
            room -= len(sources[row])
    return table.assign(source=pd.Series(map(sources.get, table.index), dtype=object))


def explained(path: Path) -> pd.DataFrame:
    table = numbers(read_table(path, PAIR), ["place", "similarity"], path)[PAIR]
    outside = ~table.picture.str.fullmatch(r"[^/\\]+") | table.picture.isin([".", ".."])
    outside |= leads_out(path.parent, table.picture.mask(outside, ""))
    if outside.any():
        row = outside.idxmax()
        raise InputError(f"{path}: line {row + 2}: picture {table.picture[row]!r} is not a file name in that folder; write the file again")
    return table
