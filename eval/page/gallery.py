"""The queries of a page: a block of JSON for its script, and a few of them as rows that need no script.

Reads and writes nothing; what it is given comes from `eval.page.answers` and `eval.page.pictures`.

    block(answers, sources, pairs)       ->  every query with its answer, its three orders, every photograph once
    rows(answers, sources, chosen)       ->  what the template shows of some queries
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.page.answers import Answers, number_of, orders


class Tile(NamedTuple):
    """One photograph or name of a row."""
    place: int  # 0: a right answer that was not given; -1: the query
    right: bool
    name: str
    score: float
    source: str
    photograph: dict  # image_id, whale_id, encounter_id, date; "" where there is none


class Row(NamedTuple):
    query: dict  # the row of `Answers.queries`
    tiles: list[Tile]  # the query first


def block(answers: Answers, sources: dict[int, str], pairs: pd.DataFrame, kinds: dict[str, str]) -> dict:
    """Columns of queries, tiles and images, NaN as None; `kinds`: what a scenario asks; `pairs` come by their row numbers."""
    queries, tiles, images = answers.queries, answers.tiles, answers.images
    return {
        "baseline": answers.baseline, "names": answers.of_names, "kinds": kinds,
        "orders": {name: order.tolist() for name, order in orders(answers).items()},
        "queries": columns(queries, fold="fold", id="query_id", scenario="scenario_id", image="image", whale="whale_id", viewpoint="viewpoint",
                           value="strict", before="before", matches="n_pos", first="first_right"),
        "tiles": columns(tiles, **{name: name for name in ("query", "place", "image", "name", "right", "score")}),
        "images": columns(images, fold="fold", part="part", id="image_id", whale="whale_id", encounter="encounter_id", date="date"),
        "sources": sources,
        "pairs": {"query": number_of_queries(queries, pairs).tolist(), "place": pairs.place.astype(float).tolist()},
    }


def columns(table: pd.DataFrame, **names: str) -> dict[str, list]:
    short = {shown: table[name].round(6) if table[name].dtype.kind == "f" else table[name] for shown, name in names.items()}
    return {shown: column.astype(object).where(column.notna(), None).tolist() for shown, column in short.items()}


def number_of_queries(queries: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    """The row of each pair's query, -1 where the run has no such query."""
    keys, wanted = (table.fold.astype(str) + "/" + table.query_id for table in (queries, pairs))
    return number_of(keys, wanted)


def with_whales(pairs: pd.DataFrame, answers: Answers | None) -> pd.DataFrame:
    """The pairs with query_whale and found_whale, "" where that is not known, and right: 1, 0, or NaN where the answers do not tell."""
    if answers is None:
        return pairs.assign(query_whale="", found_whale="", right=np.nan)
    keys, whales = answers.images.fold.astype(str) + "/" + answers.images.image_id, np.append(answers.images.whale_id.to_numpy(object), "")
    each = {name: whales[number_of(keys, pairs.fold.astype(str) + "/" + pairs[column])]
            for name, column in {"query_whale": "query_image_id", "found_whale": "database_image_id"}.items()}
    places = pd.MultiIndex.from_arrays([number_of_queries(answers.queries, pairs), pairs.place])
    tiles = answers.tiles.set_index(["query", "place"])[["name", "right"]].reindex(places)
    if answers.of_names:
        each["found_whale"] = tiles.name.fillna("").to_numpy()
    return pairs.assign(right=tiles.right.astype(float).to_numpy(), **each)


def rows(answers: Answers, sources: dict[int, str], chosen: list[int]) -> list[Row]:
    found = answers.tiles[answers.tiles["query"].isin(chosen)].groupby("query")
    images = answers.images[["image_id", "whale_id", "encounter_id", "date"]]

    def tile(place: int, right: bool, name: str, score: float, image: int) -> Tile:
        return Tile(place, right, name, score, sources.get(image, ""), images.loc[image].to_dict() if image >= 0 else dict.fromkeys(images, ""))

    shown = []
    for number in chosen:
        query = answers.queries.loc[number].to_dict()
        given = found.get_group(number).itertuples() if number in found.groups else []
        tiles = [tile(each.place, each.right, each.name, each.score, each.image) for each in given]
        shown.append(Row(query, [tile(-1, True, "", np.nan, query["image"]), *tiles]))
    return shown


def ends(answers: Answers, n: int = 2) -> list[int]:
    """The n best and the n worst queries, each once."""
    order = orders(answers)
    return list(dict.fromkeys([*order["best"][:n].tolist(), *order["worst"][:n][::-1].tolist()]))
