"""How the models of an ensemble come together: their embeddings as one row an image, or their lists as one list.

    concatenate       the cosine of all embeddings one after the other. Where every model has predict.normalise that is the mean of the
                      models' cosines, weighted by predict.weight; without it a model counts by the square of its embedding's length too.
    reciprocal_rank   each model has a space of its own and makes a list; an image scores the sum over the lists of weight / (60 + place)
                      (Cormack, Clarke and Buettcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning methods,
                      SIGIR 2009). Places alone count, so no model's scale does. A list is its first DEPTH images.

Weights that an inner fold prefers are fitted by solution.weigh.
"""

import sys
from typing import Dict, Iterable, List, NamedTuple, Tuple

import numpy as np

from solution import recipe, ties

JOINED = 128  # images whose embeddings are joined at once: few enough for the processor's cache
ORDINARY = 1e-30, 1e38  # norms that float32 holds in full
DEPTH, CONSTANT = 100, 60  # places of a model's list that count, and Cormack's k

Embeddings = Dict[str, np.ndarray]  # image_id (n,), plain and mirror (n, width) float32
Model = Tuple[recipe.Predict, Embeddings]
Lists = Tuple[np.ndarray, np.ndarray]  # rows (q, top) and values (q, top), best first, as ties.best has them


class Space(NamedTuple):
    """Where cosines are taken: a unit row (n, d) an image."""

    weight: float
    rows: np.ndarray


def spaces(models: List[Model], fusion: str) -> List[Space]:
    """The spaces of some models: a common one, or one each."""
    if fusion == "concatenate":
        return [Space(1.0, combined(models))]
    return [Space(model[0].weight, combined([model])) for model in models]


def reciprocal_rank(lists: List[Lists], weights: List[float], order: np.ndarray, top: int) -> Lists:
    """The `top` best of several lists by their places: rows (q, top) and values (q, top), 1 for what is first in all of them, best first.

    order (m,) as for ties.best, which breaks ties; sums are rounded, so that the order of the models makes none of them.
    """
    fused = np.full((len(lists[0][0]), top), -1), np.full((len(lists[0][0]), top), -np.inf)
    found = [np.nonzero(rows >= 0) for rows, _ in lists]
    keys = np.concatenate([query * len(order) + rows[query, place] for (rows, _), (query, place) in zip(lists, found)])
    parts = np.concatenate([weight / (CONSTANT + 1 + place) for weight, (_, place) in zip(weights, found)])
    pairs, which = np.unique(keys, return_inverse=True)
    value = np.bincount(which, parts, len(pairs)) * ((CONSTANT + 1) / sum(weights))
    ties.place_best(*np.divmod(pairs, len(order)), np.round(value, 12), order, *fused)
    return fused


def combined(models: Iterable[Model]) -> np.ndarray:
    """One L2-normalised row per image (n, d): each model's plain and mirror embeddings joined as its recipe says.

    The dot product of two rows is the ensemble's cosine. A row of zeros stays zero, and one that is not finite becomes it.
    """
    models = list(models)
    widths = [with_mirror(*model, slice(0)).shape[1] for model in models]
    rows = np.empty((len(models[0][1]["plain"]), sum(widths)), np.float32)
    columns, broken = np.split(rows, np.cumsum(widths)[:-1], axis=1), np.zeros(len(models), int)
    most = max(predict.weight for predict, _ in models)  # so that no weight takes numbers out of float32
    for start in range(0, len(rows), JOINED):
        block = slice(start, start + JOINED)
        for number, (model, own) in enumerate(zip(models, columns)):
            broken[number] += join(*model, block, own[block], most)
        to_unit_length(rows[block])
    for count in broken[broken > 0]:
        print(f"warning: {count} of {len(rows)} embeddings are not finite; for that model they are like nothing", file=sys.stderr)
    return rows


def join(predict: recipe.Predict, embeddings: Embeddings, block: slice, own: np.ndarray, most: float) -> int:
    """Fills a model's `own` columns (b, width) of a block of rows, `most` being the largest weight of a model; returns how many were not finite."""
    with np.errstate(over="ignore", invalid="ignore"):  # which those have told that are not finite
        own[:] = with_mirror(predict, embeddings, block)
    broken = ~np.isfinite(own).all(axis=1)
    own[broken] = 0
    if predict.normalise:
        to_unit_length(own)
    own *= np.float32(np.sqrt(predict.weight / most))
    return broken.sum()


def with_mirror(predict: recipe.Predict, embeddings: Embeddings, block: slice) -> np.ndarray:
    plain, mirrored = embeddings["plain"][block], embeddings.get("mirror")
    if predict.mirror == "off" or mirrored is None:
        return plain
    return np.concatenate([plain, mirrored[block]], axis=1) if predict.mirror == "concatenate" else plain / 2 + mirrored[block] / 2


def to_unit_length(rows: np.ndarray) -> np.ndarray:
    """Divides each row by its L2 norm, in place; a row of zeros stays."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    extreme = (norms > 0) & ((norms < ORDINARY[0]) | (norms > ORDINARY[1]))
    rows[extreme], norms[extreme] = rows[extreme] / norms[extreme, None], 1
    rows /= np.where(norms > 0, norms, 1)[:, None].astype(np.float32)
    return rows
