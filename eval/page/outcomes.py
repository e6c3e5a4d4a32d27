"""What came of each query of a run: which places of its answer are right, which true matches were found, and what is known of it.

Reads RUN/fold*/per_query.csv and submission.csv, and truth.csv, labels.csv, test/ and train/metadata.csv of RUN/folds; all but
the first three may be absent. Writes nothing.

    outcomes = read(run, [0, 1])
    outcomes.hits.mean(axis=0)          how often the answer at each place is right
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval import metrics
from eval.files import InputError, read_table
from eval.labels import moments, numbers
from eval.score import read_per_query

PLACES, LABELS = 20, 5
NEEDED = ["fold{}/per_query.csv", "fold{}/submission.csv", "folds/{}/truth.csv"]


class Outcomes(NamedTuple):
    """`queries`: per_query.csv with fold, first_score (NaN: none), viewpoint ("": unknown), shorter side in pixels (NaN) and
    photographs: of the whale in the database, or in the catalogue where names are asked for (NaN: none).
    `matches`: a row a true match with query (its row), found (in the first 20), from and to (viewpoints), days apart (NaN)."""
    queries: pd.DataFrame  # n rows
    hits: np.ndarray  # (n, 20) the photograph at this place is a true match; (n, 5) the name is right
    matches: pd.DataFrame
    group: np.ndarray  # (n,) the whale as 0 .. g-1
    of_names: bool


def read(run: Path, folds: list[int]) -> Outcomes | None:
    """The folds that have all of NEEDED, one under another; None where there is none or nothing was asked."""
    complete = [fold for fold in folds if all((run / name.format(fold)).is_file() for name in NEEDED)]
    if not complete:
        return None
    queries, hits, matches = zip(*(of_fold(run, fold) for fold in complete))
    if len({table.shape[1] for table in hits}) > 1:
        raise InputError(f"{run}: some folds answer with names and some with photographs; keep them in runs of their own")
    starts = np.cumsum([0, *map(len, queries)])
    matches = pd.concat([table.assign(query=table["query"] + start) for table, start in zip(matches, starts)], ignore_index=True)
    together = pd.concat(queries, ignore_index=True)
    if together.empty:
        return None
    group = np.unique(metrics.whale_groups(together.whale_id), return_inverse=True)[1]
    return Outcomes(together, np.concatenate(hits), matches, group, hits[0].shape[1] == LABELS)


def of_fold(run: Path, fold: int) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    answered, asked = run / f"fold{fold}", run / "folds" / str(fold)
    queries = read_per_query(answered / "per_query.csv").assign(fold=fold)
    truth, images = read_table(asked / "truth.csv"), photographs(asked)
    named = "database_image_id" not in truth
    known = (images.drop_duplicates("file").set_index("file") if named else images)[["viewpoint", "shorter"]]
    queries = queries.join(known, on="query_image_id").fillna({"viewpoint": ""})
    if named:
        return of_names(queries, read_table(answered / "submission.csv"), asked / "train" / "metadata.csv")
    rows = read_table(answered / "submission.csv", ["query_id", "database_image_id", "score"])
    rows = numbers(rows, ["score"], answered / "submission.csv")
    if "query_id" not in truth:
        raise InputError(f"{asked / 'truth.csv'}: column 'query_id' is missing; cut the folds again")
    return of_photographs(queries, rows, truth, images)


def photographs(asked: Path) -> pd.DataFrame:
    """By image_id of a fold: file (name), viewpoint ("" unknown), shorter side in pixels, time and day (NaT), as far as told."""
    table = told(asked / "test" / "metadata.csv", ["path", "viewpoint", "date", "height", "width"])
    table = table.join(told(asked / "labels.csv", ["timestamp"]), how="outer")
    height, width = (pd.to_numeric(table[name], errors="coerce") for name in ("height", "width"))
    time, date = moments(table.timestamp), moments(table.date)
    return pd.DataFrame({"file": table.path.str.replace("^.*/", "", regex=True), "viewpoint": table.viewpoint.fillna(""),
                         "shorter": np.minimum(height, width), "time": time, "day": date.fillna(time).dt.normalize()})


def told(path: Path, columns: list[str]) -> pd.DataFrame:
    """These columns by image_id, NaN where the table lacks them; no rows where there is no table."""
    table = read_table(path, ["image_id"]) if path.is_file() else pd.DataFrame({"image_id": pd.Series(dtype="str")})
    return table.drop_duplicates("image_id").set_index("image_id").reindex(columns=columns).astype("str")


def of_photographs(queries: pd.DataFrame, rows: pd.DataFrame, truth: pd.DataFrame,
                   images: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    asked = pd.Index(queries.query_id)
    names = pd.Index(pd.concat([rows.database_image_id, truth.database_image_id]).unique()).sort_values()
    rows, truth = rows[rows.query_id.isin(asked)], truth[truth.query_id.isin(asked)]
    query, image, score = first_places(asked.get_indexer(rows.query_id), names.get_indexer(rows.database_image_id), rows.score.to_numpy(float))
    given, owner = query * len(names) + image, asked.get_indexer(truth.query_id)
    true = owner * len(names) + names.get_indexer(truth.database_image_id)
    hits = np.zeros((len(asked), PLACES), bool)
    hits[query, metrics.place(query)] = np.isin(given, true)
    first = np.full(len(asked), np.nan)
    first[query[metrics.place(query) == 0]] = score[metrics.place(query) == 0]
    between = apart(images.reindex(queries.query_image_id.iloc[owner]), images.reindex(truth.database_image_id))
    matches = pd.DataFrame({"query": owner, "found": np.isin(true, given), **between})
    return queries.assign(first_score=first, photographs=queries.n_pos), hits, matches


def first_places(query: np.ndarray, image: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first 20 rows of each query in ranking order; a repeated row is left out."""
    order = metrics.ranking(query, score, image)
    order = order[metrics.first_of(query[order], image[order])]
    order = order[metrics.place(query[order]) < PLACES]
    return query[order], image[order], score[order]


def apart(query: pd.DataFrame, match: pd.DataFrame) -> dict[str, np.ndarray]:
    """What lies between the photographs of two tables, row by row; the time of day counts where both have one."""
    days = [(match[name].to_numpy() - query[name].to_numpy()) / pd.Timedelta(days=1) for name in ("time", "day")]
    return {"from": query.viewpoint.fillna("").to_numpy(), "to": match.viewpoint.fillna("").to_numpy(),
            "days": np.abs(np.where(np.isnan(days[0]), days[1], days[0]))}


def of_names(queries: pd.DataFrame, rows: pd.DataFrame, catalogue: Path) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    given = rows.drop_duplicates(rows.columns[0]).set_index(rows.columns[0]).iloc[:, 0].reindex(queries.query_id).fillna("")
    labels = given.str.split(n=LABELS, expand=True).reindex(columns=range(LABELS)).fillna("").to_numpy(object)
    wanted = queries.whale_id.to_numpy(object)[:, None]
    hits = np.where(wanted == "", pd.DataFrame(labels).isin(["new_whale", "new_individual"]), labels == wanted)
    known = told(catalogue, ["whale_id"]).whale_id.value_counts().drop("", errors="ignore")
    nothing = pd.DataFrame({"query": np.zeros(0, int), "found": np.zeros(0, bool), "from": [], "to": [], "days": np.zeros(0)})
    return queries.assign(first_score=np.nan, photographs=queries.whale_id.map(known)), hits, nothing
