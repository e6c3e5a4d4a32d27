"""How the published system ranks: for every query a copy of the database without it, and one call of scikit-learn.

    submission(scenarios, embeddings)      # query_id, database_image_id, score

Embeddings are a table with a row an image, its index the image ids.
"""

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from eval.files import progress
from eval.rules import Scenarios

TOP = 20  # rows a query


def submission(scenarios: Scenarios, embeddings: pd.DataFrame) -> pd.DataFrame:
    """query_id, database_image_id, score for all queries, scenario by scenario."""
    parts = []
    for name, queries in scenarios.queries.groupby("scenario_id", sort=False):
        database = scenarios.databases.database_image_id[scenarios.databases.scenario_id == name]
        parts.append(answers(queries, embeddings.loc[database], embeddings))
    return pd.concat(parts, ignore_index=True)


def answers(queries: pd.DataFrame, database: pd.DataFrame, embeddings: pd.DataFrame) -> pd.DataFrame:
    """The best rows of each of `queries` (query_id, query_image_id); score: (1 + cosine) / 2, best first."""
    pairs = zip(queries.query_id, queries.query_image_id)
    return pd.concat([answer(query_id, embeddings.loc[[image]], database, image)
                      for query_id, image in progress(list(pairs), "ranking")], ignore_index=True)


def answer(query_id: str, query: pd.DataFrame, database: pd.DataFrame, own: str) -> pd.DataFrame:
    """The best rows of one query, whose own image is dropped from the database where it is in it."""
    others = database.drop(own, errors="ignore")
    similarity = pd.Series(cosine_similarity(query, others)[0], index=others.index).sort_values(ascending=False, kind="stable")[:TOP]
    return pd.DataFrame({"query_id": query_id, "database_image_id": similarity.index, "score": np.clip((1 + similarity.to_numpy(float)) / 2, 0, 1)})
