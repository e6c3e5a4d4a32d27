"""The contest's metric on rankings as solution.rank makes them: what an inner fold tells while models train, and what weights are fitted to."""

import pandas as pd

from solution.ties import TOP


def average_precision(submission: pd.DataFrame, truth: pd.DataFrame, top: int = TOP) -> pd.Series:
    """By query id of the truth: (sum of the precision at each hit) / min(number of true matches, top).

    The submission's rows stand best first within a query; a query without rows counts 0.
    """
    hit = submission.set_index(["query_id", "database_image_id"]).index.isin(truth.set_index(["query_id", "database_image_id"]).index)
    grouped = pd.Series(hit.astype(float)).groupby(submission.query_id.to_numpy())
    precision = grouped.cumsum() / (grouped.cumcount() + 1)
    found = (precision * hit).groupby(submission.query_id.to_numpy()).sum()
    positives = truth.query_id.value_counts().clip(upper=top)
    return found.reindex(positives.index).fillna(0) / positives
