"""Better rankings from rankings: what a query's best answers say of the other images of the database.

    similarity = rerank.similarity(recipe.Rank(rerank="k_reciprocal"), queries, database, own, order)
    rows, values = ties.best_by(similarity, own, order)

Every neighbour is an image of the query's own database: other queries never are, because the competition forbids it. (In scenarios whose
queries are part of the database they are neighbours as what they are there, database images.) The query's own image in the database is
neither its answer nor its neighbour. Neighbours are found as answers are: by cosine, equal ones by image id. Values are on the scale of cosines.

queries (q, d), database (m, d): unit rows. own (q,), order (m,): as for ties.best. Held at once are BLOCK queries' values and, for
k_reciprocal, some hundred numbers a database image.
"""

from typing import Iterator, Optional, Tuple

import numpy as np

from solution.fusion import to_unit_length
from solution.reciprocal import k_reciprocal
from solution.spec import Rank
from solution.ties import BLOCK, OfPairs, Similarity, best, cosine, cosines


def similarity(rank: Rank, queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, whale: Optional[np.ndarray] = None) -> Similarity:
    """What `rank.rerank` ranks by. whale (m,): the number of each database image's whale, every unknown one's its own; whale_sums ranks by cosine
    without it."""
    if len(database) == 0:
        return cosine(queries, database)
    if rank.rerank == "database_expansion":
        return database_expansion(queries, database, own, order, rank.weights, rank.power or 7)
    if rank.rerank == "query_expansion":
        return cosine(expanded(queries, database, own, order, rank.neighbours or 10, rank.power or 3), database)
    if rank.rerank == "k_reciprocal":
        return k_reciprocal(queries, database, own, order, rank.neighbours or 20, rank.cosine)
    if rank.rerank == "whale_sums" and whale is not None:
        return whale_sums(queries, database, own, order, whale, rank.neighbours or 10, rank.power or 3, rank.cosine)
    return cosine(queries, database)


def database_expansion(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, weights: Tuple[float, ...], power: float) -> Similarity:
    """The first prize of Where's Whale-do?: .4 s_q^7 + .4 s_1^7 + .2 s_2^7, s_q a candidate's cosine with the query, s_1 and s_2 with the query's
    two best answers, negative ones as 0.

    The value is the sum's 7th root, a mean of the cosines, which ranks alike. A candidate that is a neighbour has the cosine 1 with itself. A
    neighbour that a small database lacks adds nothing.
    """
    near, _ = best(queries, database, own, order, len(weights) - 1)
    mean = lambda total: np.power(total, 1 / power, out=total)

    def of_block(block: slice) -> Tuple[np.ndarray, OfPairs]:
        asked = [(weights[0], queries[block]), *((weight, looked_up(database, row)) for weight, row in zip(weights[1:], near[block].T))]
        total = sum_of(powered(rows @ database.T, power, weight) for weight, rows in asked)
        return mean(total), lambda query, column: mean(sum_of(
            powered(cosines(rows, database, query, column), power, weight) for weight, rows in asked))

    return of_block


def powered(values: np.ndarray, power: float, weight: float) -> np.ndarray:
    """weight * max(value, 0) ** power, in place."""
    np.maximum(values, 0, out=values)
    np.power(values, power, out=values)
    values *= weight
    return values


def sum_of(parts: Iterator[np.ndarray]) -> np.ndarray:
    """The sum of arrays, in the first of them, so that two are held at once."""
    total = next(parts)
    for part in parts:
        total += part
    return total


def looked_up(database: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of the database (b, d), zeros for row -1, which is none."""
    found = database[rows]
    found[rows < 0] = 0
    return found


def expanded(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, neighbours: int, power: float) -> np.ndarray:
    """Queries (q, d) moved towards their best answers: the sum of the query and each of them times its cosine to the power alpha, again of unit
    length (alpha query expansion; Radenovic, Tolias and Chum, Fine-tuning CNN image retrieval with no human annotation, TPAMI 2018: alpha 3,
    and 50 neighbours in databases of thousands). Negative cosines count as 0."""
    near, value = best(queries, database, own, order, neighbours)
    weight = np.maximum(np.where(near >= 0, value, 0), 0).astype(np.float32) ** np.float32(power)
    moved = queries.copy()
    for place in range(neighbours):
        for start in range(0, len(moved), BLOCK):
            part = slice(start, start + BLOCK)
            moved[part] += weight[part, place, None] * looked_up(database, near[part, place])
    return to_unit_length(moved)


def whale_sums(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, whale: np.ndarray, neighbours: int, power: float, share: float) -> Similarity:
    """Neighbours of one whale add up: the nearest images vote for their whales, each with its cosine to a power (the distance-weighted
    rule of Dudani, IEEE Transactions on Systems, Man and Cybernetics 1976, on images that are labelled).

    The value is (1 - share) * the whale's share of the votes + share * the cosine, so that of a whale's images the most similar comes first.
    """
    near, value = best(queries, database, own, order, neighbours)
    vote = np.maximum(np.where(near >= 0, value, 0), 0) ** power
    vote /= np.maximum(vote.sum(axis=1, keepdims=True), 1e-30)
    whales, plain = whale.max() + 1, cosine(queries, database)

    def of_block(block: slice) -> Tuple[np.ndarray, OfPairs]:
        table, of_pairs = plain(block)
        place = np.arange(len(table))[:, None] * whales + whale[near[block]]
        votes = np.bincount(place.ravel(), vote[block].ravel(), len(table) * whales).reshape(len(table), whales)
        return share * table + (1 - share) * votes[:, whale], lambda query, column: share * of_pairs(query, column) + (1 - share) * votes[query, whale[column]]

    return of_block
