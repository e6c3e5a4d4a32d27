"""What a run answered, query by query, as three tables for the page to show and to filter.

Reads RUN/fold*/per_query.csv, submission.csv, probabilities.csv and ensembles.csv, and truth.csv, labels.csv, test/ and train/
of RUN/folds; of a run to compare to, its per_query.csv. All but per_query.csv may be absent. Writes nothing.

    read(run, [0, 1])       ->  Answers(queries, tiles, images), alike for rankings of photographs and for files that give names
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.files import InputError, read_table
from eval.labels import leads_out, numbers
from eval.rules import LABEL_COLUMNS, LABEL_LIMIT

SHOWN = 5  # places a query
BOX = ["x0", "y0", "x1", "y1"]
LABELS = ["whale_id", "encounter_id", "timestamp"]
NEW = "new_whale"
OUTSIDE = r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"


class Answers(NamedTuple):
    """Tables with a RangeIndex; the columns `query` and `image` hold row numbers of `queries` and `images`, -1: none."""
    queries: pd.DataFrame  # fold, query_id, scenario_id, image, whale_id, viewpoint, strict, before, n_pos, first_right; by fold, query_id
    tiles: pd.DataFrame  # query, place (0: a right answer that was not given), image, name ("" in a ranking), right, score; by query, place
    images: pd.DataFrame  # fold, image_id, file ("": none), x0, y0, x1, y1, whale_id, encounter_id, date, viewpoint, part (test or train)
    of_names: bool
    baseline: str  # whose strict average precision `before` is; "" where there is nothing to compare to


def read(run: Path, folds: list[int], against: Path | None = None) -> Answers | None:
    """The answers of the folds that have a per_query.csv, None without one. InputError where a file cannot be read."""
    folds = [fold for fold in folds if (run / f"fold{fold}" / "per_query.csv").is_file()]
    tables: list[list[pd.DataFrame]] = [[], [], []]
    for fold in folds:
        queries, tiles, images = of_fold(run, fold)
        n_queries, n_images = sum(map(len, tables[0])), sum(map(len, tables[2]))
        tables[0].append(queries.assign(fold=fold, image=queries.image + n_images * (queries.image >= 0)))
        tables[1].append(tiles.assign(query=tiles["query"] + n_queries, image=tiles.image + n_images * (tiles.image >= 0)))
        tables[2].append(images.assign(fold=fold))
    if not folds:
        return None
    queries, tiles, images = (pd.concat(parts, ignore_index=True) for parts in tables)
    before, baseline = earlier(run, queries, against)
    return Answers(queries.assign(before=before), tiles, images, bool((tiles.name != "").any()), baseline)


def of_fold(run: Path, fold: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The three tables of one fold, without what takes all folds."""
    results, folder = run / f"fold{fold}", run / "folds" / str(fold)
    queries, images = asked(results / "per_query.csv"), photographs(folder, "test")
    rows = optional(results / "submission.csv")
    columns = next((names for names in LABEL_COLUMNS if set(names) <= set(rows.columns)), None)
    if columns:
        images = pd.concat([images, catalogue(folder, rows[columns[1]], queries.whale_id)], ignore_index=True)
        rows = named(rows[columns], queries, images, optional(results / "probabilities.csv", ["Image", "Id", "probability"]))
    else:
        rows = ranked(results / "submission.csv", folder / "truth.csv", queries, images)
    first_right = rows[rows.right & (rows.place > 0)].groupby("query").place.min().reindex(queries.index)
    seen = (rows.place <= SHOWN) | (rows.place == rows["query"].map(first_right))
    tiles = rows[seen].sort_values(["query", "place"], key=lambda column: column.replace(0, np.inf) if column.name == "place" else column)
    return queries.assign(first_right=first_right, **of_image(queries.query_image_id, images)), tiles, images


def asked(path: Path) -> pd.DataFrame:
    queries = read_table(path, ["query_id", "scenario_id", "query_image_id", "whale_id", "strict", "n_pos"])
    return numbers(queries, ["strict", "n_pos"], path).sort_values("query_id", ignore_index=True)


def of_image(image_id: pd.Series, images: pd.DataFrame) -> dict[str, np.ndarray]:
    """Row number and viewpoint of each query's photograph; files that give names call it by the name of its file."""
    image, by_file = number_of(images.image_id, image_id), number_of(images.file.str.replace("^.*/", "", regex=True), image_id)
    image = np.where(image < 0, by_file, image)
    return {"image": image, "viewpoint": np.append(images.viewpoint.to_numpy(object), "")[image]}


def number_of(keys: pd.Series, wanted: pd.Series) -> np.ndarray:
    """The first row of `keys` that holds each of `wanted`, -1 where none does."""
    first = keys.drop_duplicates()
    return np.append(first.index, -1).astype(int)[pd.Index(first).get_indexer(wanted)]


def photographs(folder: Path, part: str) -> pd.DataFrame:
    """The images of FOLD/test with the whales of labels.csv, or of FOLD/train with its own."""
    path = folder / part / "metadata.csv"
    table = optional(path, ["image_id", "path"]).drop_duplicates("image_id")
    outside = table.path.str.contains(OUTSIDE) | leads_out(folder / part, table.path)
    if outside.any():
        row = outside.idxmax()
        raise InputError(f"{path}: line {row + 2}: path {table.path[row]!r} leads out of {folder / part}; give a path inside it")
    if part == "test":
        labels = optional(folder / "labels.csv", ["image_id", *LABELS[:2]]).drop_duplicates("image_id")
        kept = ["image_id", *labels.columns.intersection(LABELS)]
        table = table.drop(columns=kept[1:], errors="ignore").merge(labels[kept], on="image_id", how="outer")
    table = table.reindex(columns=["image_id", "path", *BOX, *LABELS, "date", "viewpoint"], fill_value="").fillna("").reset_index(drop=True)
    boxes = table[BOX].apply(pd.to_numeric, errors="coerce")
    date = table.date.where(table.date != "", table.timestamp.str[:10])
    file = (f"{folder / part}/" + table.path).where(table.path != "", "")
    return table.assign(date=date, file=file, part=part, **boxes).drop(columns=["path", "timestamp"])


def catalogue(folder: Path, names: pd.Series, whale_id: pd.Series) -> pd.DataFrame:
    """The first training photograph of each individual that is named or should be."""
    table = photographs(folder, "train").drop_duplicates("whale_id")
    wanted = set(whale_id).union(*names.str.split()) - {""}
    return table[table.whale_id.isin(wanted)]


def ranked(path: Path, truth: Path, queries: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """query, place, image, name, right, score of every submitted row, and at place 0 a true match of queries that found none."""
    pairs = ["query_id", "database_image_id"]
    rows, truth = numbers(optional(path, [*pairs, "score"]), ["score"], path), optional(truth, pairs)
    right = pd.MultiIndex.from_frame(rows[pairs]).isin(pd.MultiIndex.from_frame(truth[pairs]))
    rows = rows.assign(right=right).sort_values(["query_id", "score", "database_image_id"], ascending=[True, False, True])
    rows["place"] = rows.groupby("query_id").cumcount() + 1
    missed = truth[~truth.query_id.isin(rows.query_id[rows.right])].drop_duplicates("query_id").assign(right=True, place=0, score=np.nan)
    rows = pd.concat([rows, missed], ignore_index=True)
    rows = rows.assign(name="", query=number_of(queries.query_id, rows.query_id), image=number_of(images.image_id, rows.database_image_id))
    return rows.loc[rows["query"] >= 0, ["query", "place", "image", "name", "right", "score"]]


def named(rows: pd.DataFrame, queries: pd.DataFrame, images: pd.DataFrame, sure: pd.DataFrame) -> pd.DataFrame:
    """The same of the names given; each shows the individual's first training photograph, and its score is the probability."""
    given = rows.set_axis(["query_id", "name"], axis=1)
    given = given.assign(name=given.name.str.split(n=LABEL_LIMIT).str[:LABEL_LIMIT], query=number_of(queries.query_id, given.query_id))
    given = given[given["query"] >= 0].drop_duplicates("query").explode("name").dropna(subset="name")
    truth = queries.whale_id.replace("", NEW)
    given = given.assign(name=given.name.replace("new_individual", NEW), place=given.groupby("query").cumcount() + 1)
    given["right"] = given.name == given["query"].map(truth)
    missed = truth[~truth.index.isin(given["query"][given.right])]
    missed = pd.DataFrame({"query": missed.index, "query_id": queries.query_id[missed.index], "name": missed, "place": 0, "right": True})
    given = pd.concat([given, missed], ignore_index=True)
    known = images.whale_id.where(images.part == "train", "")
    sure = sure.drop_duplicates(["Image", "Id"]).set_index(["Image", "Id"]).probability
    score = pd.to_numeric(sure.reindex(pd.MultiIndex.from_frame(given[["query_id", "name"]])), errors="coerce").to_numpy()
    return given.assign(image=np.where(given.name == NEW, -1, number_of(known, given.name)), score=score).drop(columns="query_id")


def earlier(run: Path, queries: pd.DataFrame, against: Path | None) -> tuple[np.ndarray, str]:
    """What the other run, else the first model alone, has for each query (n,), NaN where it has nothing; and who that is."""
    before, title = np.full(len(queries), np.nan), ""
    for fold, part in queries.groupby("fold"):
        path = against / f"fold{fold}" / "per_query.csv" if against else run / f"fold{fold}" / "ensembles.csv"
        if path.is_file():
            table = read_table(path, ["query_id"])
            measure = "strict" if against or len(table.columns) < 2 else table.columns[1]
            if set(table.query_id) != set(part.query_id):
                again = "score both runs on the same folds" if against else f"run python -m eval.ensembles {run} again"
                raise InputError(f"{path}: its queries are not those of {run / f'fold{fold}' / 'per_query.csv'}; {again}")
            value = numbers(read_table(path, ["query_id", measure]), [measure], path)[measure]
            before[part.index] = value.to_numpy()[number_of(table.query_id, part.query_id)]
            title = against.resolve().name if against else f"{measure} alone"
    if against and not title:
        raise InputError(f"{against}: no fold*/per_query.csv of the folds of {run}; score it with ./run_all.sh")
    return before, title


def orders(answers: Answers) -> dict[str, np.ndarray]:
    """Row numbers (n,) of queries best, worst and, with a baseline, most changed first, without a number last; among equals the
    one with more true matches, then the surer first answer."""
    queries, first = answers.queries, answers.tiles[answers.tiles.place == 1]
    equals = (-first.set_index("query").score.reindex(queries.index), -queries.n_pos)
    keys = {"best": -queries.strict, "worst": queries.strict}
    if answers.baseline:
        keys["changed"] = -(queries.strict - queries.before).abs()
    return {name: np.lexsort((*equals, key)) for name, key in keys.items()}


def optional(path: Path, columns: list[str] = []) -> pd.DataFrame:
    """The table; one without rows where there is no file."""
    return read_table(path, columns) if path.is_file() else pd.DataFrame(columns=columns, dtype=str)
