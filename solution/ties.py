"""The best of a database for each query, with ties told exactly: close values are computed again in float64, and equal ones ordered by image id.

    rows, cosines = best(queries, database, own, order)            # (q, 20) each, by the cosine
    rows, values = best_by(similarity, own, order)                 # by any other similarity, such as those of rerank.py

A similarity is a function of a block of queries, a slice. It gives their values (b, m), each wrong by less than NEAR / 2, and a function that
computes those of pairs, query (n,) within the block and database row (n,), in float64. Values are on the scale of cosines.
"""

import hashlib
from functools import partial
from typing import Callable, Tuple

import numpy as np

from solution.files import progress

TOP = 20  # rows a query
BLOCK = 1024  # queries whose similarities are held at once
PAIRS = 4096  # pairs whose embeddings are held at once
NEAR = 1e-6  # closer values are computed again, in float64
COPIES = 100  # of those a query, from which on most are copies of each other

OfPairs = Callable[[np.ndarray, np.ndarray], np.ndarray]
Similarity = Callable[[slice], Tuple[np.ndarray, OfPairs]]


def best(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, top: int = TOP) -> Tuple[np.ndarray, np.ndarray]:
    """The `top` most similar database rows of each query: their numbers (q, top) and cosines (q, top), best first.

    queries (q, d), database (m, d): unit rows. own (q,): the query's own row in the database, -1 where it is not there;
    it is never an answer. order (m,): the place of each database image by its id, which breaks ties. Places that
    a short database leaves empty hold row -1 and cosine -inf.
    """
    return best_by(cosine(queries, database), own, order, top)


def best_by(similarity: Similarity, own: np.ndarray, order: np.ndarray, top: int = TOP) -> Tuple[np.ndarray, np.ndarray]:
    """As `best`, by another similarity than the cosine."""
    rows, values = np.full((len(own), top), -1), np.full((len(own), top), -np.inf)
    for start in progress(range(0, len(own), BLOCK), "blocks of queries"):
        block = slice(start, start + BLOCK)
        table, of_pairs = similarity(block)
        inside = np.flatnonzero(own[block] >= 0)
        table[inside, own[block][inside]] = -np.inf
        query, column = candidates(table, top)
        value = table[query, column].astype(np.float64)
        sequence = np.lexsort((order[column], -value, query))
        close = sequence[near(query[sequence], value[sequence])]
        value[close] = of_pairs(query[close], column[close])
        place_best(query, column, value, order, rows[block], values[block])
    return rows, values


def cosine(queries: np.ndarray, database: np.ndarray) -> Similarity:
    """The cosine of unit rows, queries (q, d) and database (m, d)."""

    def of_block(block: slice) -> Tuple[np.ndarray, OfPairs]:
        return queries[block] @ database.T, partial(cosines, queries[block], database)

    return of_block


def place_best(query: np.ndarray, row: np.ndarray, value: np.ndarray, order: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """Puts the best of each query's candidates, given as pairs (n,), into `rows` and `values` (q, top), as `best` returns them."""
    sequence = np.lexsort((order[row], -value, query))
    query, row, value = query[sequence], row[sequence], value[sequence]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    kept = place < rows.shape[1]
    rows[query[kept], place[kept]], values[query[kept], place[kept]] = row[kept], value[kept]


def candidates(table: np.ndarray, top: int) -> Tuple[np.ndarray, np.ndarray]:
    """Row and column of all that may be among the `top` best of their row (b, m): not below its `top`-th value by more than NEAR."""
    m = table.shape[1]
    least = np.partition(table, m - top, axis=1)[:, m - top] if m > top else np.full(len(table), -np.inf)
    least = np.maximum(least - NEAR, np.finfo(np.float32).min)  # -inf is not among them
    return np.divmod(np.flatnonzero(table >= least[:, None]), m)  # many times faster than nonzero of a table


def near(query: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which of the sorted candidates stand closer than NEAR to a neighbour of the same query."""
    close, either = (query[1:] == query[:-1]) & (value[:-1] - value[1:] < NEAR), np.zeros(len(query), bool)
    either[:-1] |= close
    either[1:] |= close
    return either


def cosines(queries: np.ndarray, database: np.ndarray, query: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The cosines (n,) of pairs of rows in float64, by the way that suits their number."""
    several = exact if len(query) < COPIES * len(queries) else exact_of_copies
    return several(queries, database, query, column)


def exact(queries: np.ndarray, database: np.ndarray, query: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The cosines of pairs of rows in float64, alike for equal rows, which a blocked matrix product does not promise."""
    pairs = [slice(start, start + PAIRS) for start in range(0, len(query), PAIRS)]
    parts = [np.einsum("ij,ij->i", queries[query[part]], database[column[part]], dtype=np.float64) for part in pairs]
    return np.concatenate(parts) if parts else np.zeros(0)


def exact_of_copies(queries: np.ndarray, database: np.ndarray, query: np.ndarray, column: np.ndarray) -> np.ndarray:
    """As `exact`, but equal database rows of a query are computed once: where all are copies, or zero, that spares hours."""
    digests = np.array([hashlib.sha256(row).digest() for row in database])
    _, first, kind = np.unique(digests, return_index=True, return_inverse=True)
    pairs, place = np.unique(query * len(database) + first[kind][column], return_inverse=True)
    return exact(queries, database, *np.divmod(pairs, len(database)))[place]
