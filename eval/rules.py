"""What a submission may not do: the rules, and the one way to tell where a file breaks them.

Reads the truth, `query_scenarios.csv` of a data directory and the tables that it names. Writes nothing; `eval.score` is
the command.
"""

import os
from pathlib import Path
from typing import Iterable, NamedTuple

import numpy as np
import pandas as pd

from eval import metrics
from eval.files import InputError, read_table

ANOTHER_FOLD = "; is this the submission of another fold?"
SWAPPED = "the submission comes first, the truth second"
ROW_LIMIT, LABEL_LIMIT, LISTED = 20, 5, 20
COLUMNS = ["query_id", "database_image_id", "score"]
LABEL_COLUMNS = [["Image", "Id"], ["image", "predictions"]]


class Rule(NamedTuple):
    broken: np.ndarray  # True for the rows (n,) that break it
    text: str  # with {column} for a cell of the row
    advice: str = ""  # told where so many rows break it that there is one cause


class Scenarios(NamedTuple):
    queries: pd.DataFrame  # query_id, query_image_id, scenario_id
    databases: pd.DataFrame  # database_image_id, scenario_id


def once(table: pd.DataFrame, columns: list[str], path: Path) -> pd.DataFrame:
    """The table, if it has rows and no two with the same `columns`."""
    if table.empty:
        raise InputError(f"{path}: no rows; there is nothing to score against")
    repeated = table.duplicated(columns).to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        raise InputError(f"{path}: {' '.join(table[columns].iloc[row])!r} appears twice (row {row + 1}); remove one")
    return table


def read_scenarios(data: Path) -> Scenarios:
    """All scenarios of a data directory; a path that leads out of the directory is an error."""
    path = Path(data) / "query_scenarios.csv"
    table = once(read_table(path, ["scenario_id", "queries_path", "database_path"]), ["scenario_id"], path)
    root = os.path.join(os.path.realpath(data), "")
    for part in [*table.queries_path, *table.database_path]:
        if not os.path.realpath(os.path.join(root, part)).startswith(root):
            raise InputError(f"{path}: {part!r} leads out of {data}; give a path inside it")
    queries = joined(data, table.scenario_id, table.queries_path, ["query_id", "query_image_id"])
    databases = joined(data, table.scenario_id, table.database_path, ["database_image_id"])
    return Scenarios(once(queries, ["query_id"], path), databases)


def joined(data: Path, scenario_id: pd.Series, paths: pd.Series, columns: list[str]) -> pd.DataFrame:
    tables = [read_table(data / path, columns)[columns].assign(scenario_id=name) for name, path in zip(scenario_id, paths)]
    return pd.concat(tables, ignore_index=True)


def read_truth(path: Path) -> tuple[pd.DataFrame, bool]:
    """The truth, and whether it names images (`query_id,database_image_id`) or labels (`Image,Id`)."""
    table = read_table(path)
    names = list(table.columns)
    if names == COLUMNS[:2]:
        return once(table, names, path), True
    if len(names) == 2 and names[0].lower() == "image" and names[1] != "predictions":
        spaced = np.flatnonzero(table[names[1]].str.contains(" "))
        if len(spaced):
            label = shown(table[names[1]][spaced[0]])
            raise InputError(f"{path}: line {spaced[0] + 2}: {label!r} holds spaces, and spaces separate labels; {SWAPPED}")
        return once(table, names[:1], path), False
    raise InputError(f"{path}: a truth has the header query_id,database_image_id or Image,Id, not {shown(written(names))}; {SWAPPED}")


def neighbouring_scenarios(truth: Path, data: Path | None) -> Scenarios | None:
    beside = Path(truth).parent / "test"
    if data is None and not (beside / "query_scenarios.csv").is_file():
        return None
    return read_scenarios(Path(data or beside))


def scenarios_of(truth: Path, asked: pd.DataFrame, data: Path | None) -> Scenarios | None:
    """`neighbouring_scenarios`, if they ask every query of the truth."""
    scenarios = neighbouring_scenarios(truth, data)
    unasked = asked.query_id[~asked.query_id.isin(scenarios.queries.query_id)] if scenarios else asked.query_id[:0]
    if len(unasked):
        raise InputError(f"{truth}: query {shown(unasked.iloc[0])} is asked by no scenario of {data or 'test/ beside it'}; "
                         "give the --data of its fold")
    return scenarios


def written(columns: Iterable[str]) -> str:
    """A header as it stands in the file: pandas names what has no name."""
    return ",".join("" if str(name).startswith("Unnamed: ") else str(name) for name in columns)


def header_rule(columns: pd.Index, accepted: list[list[str]]) -> list[str]:
    """The breach of a header that is none of `accepted`, with what is likely to mend it."""
    given = list(columns)
    if given in accepted:
        return []
    wanted = next((names for names in accepted if set(names) & set(given)), accepted[0])
    missing, extra = [name for name in wanted if name not in given], [name for name in given if name not in wanted]
    causes = {
        "the first column is pandas' row numbers: write the file with index=False": written(given).startswith(",") and not missing,
        "put the columns in this order": not missing and not extra,
        "remove " + shown(", ".join(map(repr, extra))): not missing,
        "write the names letter for letter, without spaces": [name.strip().lower() for name in given] == list(map(str.lower, wanted)),
        "whole lines are quoted: remove the quotes": len(given) == 1 and "," in given[0],
        "the cells are separated by spaces: write commas": len(given) == 1 and " " in given[0],
        "this file ranks images and the truth names individuals: give a truth of query_id,database_image_id": given == COLUMNS,
        "this file names individuals and the truth holds images: give a truth of Image,Id": given in LABEL_COLUMNS,
        "is the header line missing?": len(given) == len(wanted) == len(missing),
        "there is no " + ", ".join(map(repr, missing)): True,
    }
    names = " or ".join(repr(",".join(names)) for names in accepted)
    return [f"line 1: the header is {shown(written(given))!r}, not {names}; {next(cause for cause, found in causes.items() if found)}"]


def shown(cell: str) -> str:
    """At most 80 letters of a cell, none of which moves a terminal's cursor."""
    return "".join(letter if letter.isprintable() else " " for letter in cell[:80])


def listed(rules: list[Rule], rows: pd.DataFrame) -> list[str]:
    """One sentence a breach in the order of the file, at most LISTED and then a count; one for a rule that many rows break."""
    found = []
    for order, rule in enumerate(rules):
        broken, number = np.flatnonzero(rule.broken), int(np.sum(rule.broken))
        many = number > 1 and number > min(LISTED, len(rows) / 2)
        told = f"{number} of {len(rows)} rows, the first is " if many else ""
        advice = f"; {rule.advice}" if many and rule.advice else ""
        for row in broken[:1 if many else LISTED]:
            cells = {column: shown(cell) for column, cell in rows.iloc[row].items()}
            found.append((row, order, f"{told}line {row + 2}: {rule.text.format(**cells)}{advice}"))
    found = [sentence for _, _, sentence in sorted(found)]
    return found[:LISTED] + [f"and {len(found) - LISTED} more"] * (len(found) > LISTED)


def within_0_and_1(score: np.ndarray) -> np.ndarray:
    return (score >= 0) & (score <= 1)  # False for NaN


def image_rules(rows: pd.DataFrame, score: np.ndarray, scenarios: Scenarios | None) -> list[Rule]:
    """`query_id,database_image_id,score` with `score` read as numbers; without scenarios nothing is foreign."""
    (query, query_ids), (image, image_ids) = pd.factorize(rows.query_id), pd.factorize(rows.database_image_id)
    spaced = padded(query_ids)[query] | padded(image_ids)[image]
    order = np.argsort(query, kind="stable")
    beyond = metrics.place(query[order]) == ROW_LIMIT
    rules = [
        Rule(spaced, "query {query_id!r}, database image {database_image_id!r}: remove the spaces around the ids"),
        Rule(~within_0_and_1(score), "query {query_id}: score '{score}' is not a number from 0 to 1", score_advice(score)),
        Rule(~metrics.first_of(query, image), "query {query_id}: database image {database_image_id} is given twice"),
        Rule(beyond[np.argsort(order)], f"query {{query_id}}: more than {ROW_LIMIT} rows", f"keep the best {ROW_LIMIT} of each query"),
    ]
    return rules + (scenario_rules(rows, scenarios) if scenarios else [])


def padded(ids: pd.Index) -> np.ndarray:
    return ids.to_numpy() != ids.str.strip().to_numpy()


def score_advice(score: np.ndarray) -> str:
    finite = score[np.isfinite(score)]
    if within_0_and_1(finite).all():
        return "write numbers with a point, such as 0.25"
    low, high = finite.min(), finite.max()
    mend = ": (1 + c) / 2 of a cosine c" if low >= -1.01 and high <= 1.01 else ": 1 / (1 + d) of a distance d" if low >= 0 else ""
    return f"the scores run from {low:g} to {high:g}; bring them into 0 to 1, the best match highest{mend}"


def scenario_rules(rows: pd.DataFrame, scenarios: Scenarios) -> list[Rule]:
    asked = pd.Index(scenarios.queries.query_id).get_indexer(rows.query_id)
    own = scenarios.queries.query_image_id.to_numpy()[asked] == rows.database_image_id.to_numpy()
    names = pd.Index(pd.concat([scenarios.queries.scenario_id, scenarios.databases.scenario_id]).unique())
    images = pd.Index(scenarios.databases.database_image_id.unique())
    member = images.get_indexer(scenarios.databases.database_image_id) * len(names)
    member += names.get_indexer(scenarios.databases.scenario_id)
    image, scenario = images.get_indexer(rows.database_image_id), names.get_indexer(scenarios.queries.scenario_id)[asked]
    inside = pd.Series(image * len(names) + scenario).isin(member).to_numpy()
    return [
        Rule(asked < 0, "query {query_id}: no scenario asks this query", such_as(scenarios.queries.query_id) + ANOTHER_FOLD),
        Rule((asked >= 0) & own, "query {query_id}: the query image {database_image_id} is given as its own match"),
        Rule((asked >= 0) & ~own & ~inside, "query {query_id}: database image {database_image_id} is not in its scenario's database",
             such_as(images) + "; write them like that, without folder or suffix"),
    ]


def such_as(ids: pd.Series | pd.Index) -> str:
    return f"the ids are such as {shown(ids[0])!r}" if len(ids) else "there are no ids at all"


def answer_rule(rows: pd.DataFrame, truth: pd.DataFrame) -> list[Rule]:
    """Where no scenario tells what is foreign: a file without a single query of the truth answers something else."""
    foreign = np.full(len(rows), not rows.query_id.isin(truth.query_id).any())
    return [Rule(foreign, "query {query_id}: not in the truth", such_as(truth.query_id) + ANOTHER_FOLD)]


def mark_rule(rows: pd.DataFrame, truth: pd.DataFrame) -> list[Rule]:
    """Labels that stand between other marks than spaces, where no label of the truth has such a mark in it."""
    marks = "[,;|]"
    between = rows.iloc[:, 1].str.contains(marks).to_numpy(bool) & ~np.any(truth.iloc[:, 1].str.contains(marks))
    return [Rule(between, f"image {{{rows.columns[0]}}}: {{{rows.columns[1]}!r}} is not labels separated by spaces")]


def label_rules(rows: pd.DataFrame, labels: np.ndarray, known: np.ndarray) -> list[Rule]:
    ordered = np.sort(labels, axis=1)
    start = f"image {{{rows.columns[0]}}}: "
    return [
        Rule(~known, start + "not an image of the truth", "an image is its file's name without folder" + ANOTHER_FOLD),
        Rule(rows.iloc[:, 0].duplicated().to_numpy(), start + "the image is given twice", "write all labels of an image in one line"),
        Rule((labels < 0).all(axis=1), start + "no label"),
        Rule(labels[:, LABEL_LIMIT] >= 0, start + f"more than {LABEL_LIMIT} labels", f"keep the best {LABEL_LIMIT}"),
        Rule(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1), start + "a label is given twice"),
    ]
