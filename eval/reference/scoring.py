"""How the competition scores: a group of rows a query, and for each one call of scikit-learn. eval.metrics has the formula.

    official(submission.csv, truth.csv)      # MAP@20, the mean over the submitted queries that have a match
"""

from pathlib import Path

import pandas as pd
from sklearn.metrics import average_precision_score

LIMIT = 20  # true matches a query that can be found at most
PAIR = ["query_id", "database_image_id"]


def official(submission: Path, truth: Path) -> float:
    """The organisers' number for a submission of valid scores."""
    rows, matches = pd.read_csv(submission), pd.read_csv(truth)
    rows = rows.merge(matches.assign(hit=1), on=PAIR, how="left").fillna({"hit": 0})
    found = rows.groupby("query_id").hit.sum()
    precision = rows.groupby("query_id")[["hit", "score"]].apply(precision_of_one)
    wanted = matches.groupby("query_id").size().clip(upper=LIMIT)
    return float((precision * found / wanted).mean())  # queries that only one of the two names are NaN, which no mean counts


def precision_of_one(rows: pd.DataFrame) -> float:
    """Average precision over the rows of one query (hit, score); ties make one step. 0 where nothing hit."""
    return average_precision_score(rows.hit, rows.score) if rows.hit.any() else 0.0
