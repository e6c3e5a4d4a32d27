"""Which pairs of photographs are worth a look: a few queries of a submission, each with the first that it found.

A ranking answers with photographs. Names are taken for every photograph at hand of the individual that they name; of these
candidates, rows of one query and place, the most similar one is the pair.
"""

from pathlib import Path
from typing import List, NamedTuple, Optional

import numpy as np
import pandas as pd

from solution import identify, images, scenarios
from solution.files import Complaints, InputError, read_table

EACH = 2  # places of a query that are looked at


class Candidates(NamedTuple):
    """query_id, place from 1, query and match: rows of `photographs`, which has image_id, path and box (or None)."""

    table: pd.DataFrame
    photographs: pd.DataFrame


class Wish(NamedTuple):
    """Which queries, None: evenly spread ones; and how many pairs at most."""

    queries: Optional[List[str]]
    count: int


def of_ranking(data: Path, submission: Path, wish: Wish, complaints: Complaints) -> Candidates:
    """The first database images of some queries; InputError where the submission is not one for DATA."""
    rows = read_table(submission, ["query_id", "database_image_id", "score"])
    score = pd.to_numeric(rows.score, errors="coerce")
    for line, value in images.lines(score.isna(), rows.score):
        raise InputError(f"{submission}: line {line}: score {value!r} is not a number")
    rows = rows.assign(order=pd.factorize(rows.query_id)[0], fall=-score).sort_values(["order", "fall", "database_image_id"])
    rows = few(rows.assign(place=rows.groupby("query_id").cumcount() + 1), wish, submission)
    asked = scenarios.read(data, complaints)
    image_of = {query: image for scenario in asked for query, image in zip(scenario.query_ids, scenario.query_image_ids)}
    photographs = with_boxes(images.listed(data, complaints), data, complaints)
    row_of = {image: row for row, image in enumerate(photographs.image_id)}
    for query, image in rows[["query_id", "database_image_id"]].itertuples(index=False):
        if image_of.get(query) not in row_of or image not in row_of:
            raise InputError(f"{submission}: query {query} or its answer {image} is not in {data}; give the test/ that it was made for")
    found = rows.assign(query=rows.query_id.map(image_of).map(row_of), match=rows.database_image_id.map(row_of))
    return Candidates(found[["query_id", "place", "query", "match"]], photographs)


def of_names(data: Path, submission: Path, weights: Path, known: Path, wish: Wish, complaints: Complaints) -> Candidates:
    """All photographs in `known`, a labelled data directory, of the first individuals there that some photographs of DATA are named as."""
    image, names = identify.read(weights / "identify.json").columns
    rows = read_table(submission, [image, names])
    rows = rows.assign(query_id=rows[image], whale_id=rows[names].str.split())[["query_id", "whale_id"]].explode("whale_id").reset_index(drop=True)
    rows["place"] = rows.groupby("query_id").cumcount() + 1
    there = images.listed(known, complaints)
    if "whale_id" not in there:
        raise InputError(f"{known}/metadata.csv: column whale_id is missing; a gallery needs to know its individuals")
    rows = few(rows[rows.whale_id.isin(there.whale_id)], wish, submission)
    asked = images.listed(data, complaints)
    photographs = pd.concat([with_boxes(asked, data, complaints), with_boxes(there, known, complaints)], ignore_index=True)
    row_of = {Path(path).name: row for row, path in reversed(list(enumerate(asked.path)))}
    for query in rows.query_id[~rows.query_id.isin(row_of)]:
        raise InputError(f"{submission}: {query} is no photograph of {data}; give the data that it was made for")
    matches = pd.DataFrame({"whale_id": there.whale_id.to_numpy(), "match": np.arange(len(there)) + len(asked)})
    found = rows.assign(query=rows.query_id.map(row_of)).merge(matches, on="whale_id")
    return Candidates(found[["query_id", "place", "query", "match"]], photographs)


def few(rows: pd.DataFrame, wish: Wish, submission: Path) -> pd.DataFrame:
    """The first rows of the queries wished for, in the order of `rows`; queries that are named share the pairs evenly."""
    there = rows.query_id.unique()
    if len(there) == 0:
        raise InputError(f"{submission}: answers no query with a photograph at hand; there is nothing to explain")
    if wish.queries is None:
        number, each = min(len(there), -(-wish.count // EACH)), EACH
        queries = there[np.arange(number) * len(there) // number]
    else:
        queries, each = list(dict.fromkeys(wish.queries)), max(1, wish.count // len(wish.queries))
        for query in queries:
            if query not in there:
                raise InputError(f"--queries: {submission} answers no query {query!r} with a photograph at hand")
    rows = rows[rows.query_id.isin(queries)]
    return rows[rows.groupby("query_id").cumcount() < each].head(wish.count).reset_index(drop=True)


def with_boxes(table: pd.DataFrame, data: Path, complaints: Complaints) -> pd.DataFrame:
    return table[["image_id", "path"]].assign(box=pd.Series(images.boxes(table, data, complaints), table.index, dtype=object))
