"""What probabilities are worth when some whales are not known: is the whale told as new, and may a name be believed?

Reads probabilities.csv, a row per query and label: `query_id,Id,probability`, for label files `Image,Id,probability`. The
row whose Id is new_whale (new_individual, or empty) is the probability that the whale is not known, and every query has
one. Writes nothing: `eval.score --probabilities` puts the figures under `open_set` in score.json and prints them.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from eval import metrics
from eval.files import InputError, read_table
from eval.labels import refuse
from eval.rules import within_0_and_1

NEW = ["", "new_whale", "new_individual"]  # all say that the whale is not known
THRESHOLDS = [0.5, 0.6, 0.8, 0.9]
FIGURES = ["auc", "brier", "calibration_error", "n_known", "n_unknown", "accuracy_known", "accuracy_unknown", "first_right_known",
           "first_right_unknown", "wrong_above"]


def of_scenarios(path: Path, queries: pd.Index, known: np.ndarray) -> dict:
    """`open_set` of scenario files; `known` (n,): the truth has a match for the query."""
    p_new = new_probability(read_probabilities(path, ["query_id"], queries), len(queries))
    nothing = dict.fromkeys(["first_right_known", "first_right_unknown", "wrong_above"])
    return detection(p_new, known) | nothing


def of_labels(path: Path, per_query: pd.DataFrame) -> dict:
    """`open_set` of label files; `per_query`: the scorer's table, whose whale_id is "" where the whale is not known."""
    table = read_probabilities(path, ["Image", "image"], pd.Index(per_query.query_id))
    known, first_right = per_query.whale_id.to_numpy() != "", per_query.top1.to_numpy()
    return detection(new_probability(table, len(per_query)), known) | {
        "first_right_known": mean(first_right[known]), "first_right_unknown": mean(first_right[~known]),
        "wrong_above": wrong_above(table, per_query.whale_id.to_numpy())}


def read_probabilities(path: Path, keys: list[str], queries: pd.Index) -> pd.DataFrame:
    """query (its number), Id (as read), new (the Id says so), probability; InputError with the line of what is wrong."""
    table = read_table(path, ["Id", "probability"])
    key = next((name for name in keys if name in table), None)
    if key is None:
        raise InputError(f"{path}: column {keys[0]!r} is missing; the truth's queries are named by it")
    query, new, name = queries.get_indexer(table[key]), table.Id.isin(NEW), table[key]
    probability = pd.to_numeric(table.probability, errors="coerce")
    refuse(path, table.probability, ~within_0_and_1(probability), "not a probability from 0 to 1")
    refuse(path, name, pd.Series(query < 0), "no query of the truth or its scenarios")
    pairs = pd.DataFrame({"query": query, "Id": table.Id.mask(new, "")})
    refuse(path, name, pairs.duplicated(),
           "the query has this label twice (new_whale, new_individual and no word are one label); keep one row")
    complete = np.isin(np.arange(len(queries)), query[new])
    refuse(path, name, pd.Series(~complete[query]), "the query has no row whose Id is new_whale; every query needs it")
    if not complete.all():
        raise InputError(f"{path}: query {queries[~complete][0]!r} has no rows, as {(~complete).sum():,} in all; "
                         "every query needs them")
    return pd.DataFrame({"query": query, "Id": table.Id, "new": new, "probability": probability})


def new_probability(table: pd.DataFrame, n: int) -> np.ndarray:
    """P(new) of each query, (n,)."""
    p_new = np.empty(n)
    p_new[table["query"][table.new]] = table.probability[table.new]
    return p_new


def detection(p_new: np.ndarray, known: np.ndarray) -> dict:
    """How well P(new) (n,) tells the queries whose whale is not `known` (n,)."""
    auc = metrics.area_under_roc(p_new, ~known)
    return {
        "auc": None if np.isnan(auc) else auc,
        "accuracy_known": mean(p_new[known] <= 0.5), "accuracy_unknown": mean(p_new[~known] > 0.5),
        "n_known": int(known.sum()), "n_unknown": int((~known).sum()),
        "brier": metrics.brier_score(p_new, ~known), "calibration_error": metrics.calibration_error(p_new, ~known),
    }


def mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) and not np.isnan(values).any() else None


def wrong_above(table: pd.DataFrame, whale_id: np.ndarray) -> dict[str, list[int]]:
    """By threshold, how many queries' best known label is at least so probable, and how many of those are wrong.

    Those are what a round of pseudo-labels would take in; the name of an unknown whale ("") is always wrong.
    """
    names = table[~table.new].sort_values(["query", "probability", "Id"], ascending=[True, False, True])
    best = names.drop_duplicates("query")
    wrong = best.Id.to_numpy() != whale_id[best["query"]]
    taken = {threshold: best.probability.to_numpy() >= threshold for threshold in THRESHOLDS}
    return {str(threshold): [int(rows.sum()), int(wrong[rows].sum())] for threshold, rows in taken.items()}


def show(figures: dict, title: str = "open set") -> None:
    figures = dict.fromkeys(FIGURES) | figures
    number, whole = (lambda value, form=form: "-" if value is None else format(value, form) for form in (".4f", ".0f"))
    print(f"{title}: AUC {number(figures['auc'])}, Brier {number(figures['brier'])}, "
          f"calibration error {number(figures['calibration_error'])}")
    for kind, says in {"known": "P(new) <= 0.5", "unknown": "P(new) > 0.5"}.items():
        print(f"{whole(figures[f'n_{kind}']):>8} {kind} whales: {says} for {number(figures[f'accuracy_{kind}'])}, "
              f"first label right for {number(figures[f'first_right_{kind}'])}")
    for threshold, (n, wrong) in (figures["wrong_above"] or {}).items():
        print(f"{whole(n):>8} with a known label of at least {threshold}: {whole(wrong)} wrong")
