"""What is fitted on validation: temperature, thresholds, merge weights, and the calibration of probabilities.

Takes the arrays of identify.py for validation queries (their similarities, the classifier's probabilities, the true columns)
and gives the Identification that identify.json keeps. 3,931 queries against 5,004 individuals take a few seconds with the
published grids: 8 temperatures, 125 weights and 14,641 thresholds.
"""

import itertools
from dataclasses import dataclass, replace
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import pandas as pd

from solution import recipe
from solution.identify import TOP, Identification, best, blocks, known_scores, merged

Probability = Callable[[float], np.ndarray]  # P (q, k) by temperature

LEAST_SCALE = 1e-3
RIDGE = 1e-6  # keeps the scale of separable scores finite
SLACK = 1e-4  # far above the rounding of float32 similarities


@dataclass(frozen=True)
class Grid:
    """What is searched: the temperatures of the published code and write-up together, its weights and thresholds."""

    temperatures: Tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 2.2, 3.0)
    c1: Tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0)
    c2: Tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 4.0)
    c3: Tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    theta_f: Tuple[float, ...] = tuple(np.linspace(0, 0.95, 121).tolist())
    theta_p: Tuple[float, ...] = tuple(np.linspace(0, 0.95, 121).tolist())


@dataclass(frozen=True)
class Found:
    temperature: float
    c1: float
    c2: float
    c3: float
    theta_f: float
    theta_p: float
    map5: float


# MAP@5 in sixtieths, by the place of the true label from 0: whole numbers, whose sums are the same in any order.
POINTS = np.array([60, 30, 20, 15, 12, 0])
FALL = POINTS[:-1] - POINTS[1:]  # what the true label loses, and new as the true label gains, where new passes that place


class Steps(NamedTuple):
    """How the points of all queries depend on new's score: `start` below everything; passing `value` of `query` brings `gain`, (n,) each."""

    start: int
    query: np.ndarray
    value: np.ndarray
    gain: np.ndarray


def search(similarity: np.ndarray, probability: Optional[Probability], truth: np.ndarray, grid: Grid = Grid()) -> Found:
    """The first best MAP@5 in the order temperature, c1, c2, c3, theta_f, theta_p; as a plain loop over the grid finds it.

    similarity (q, k + 1), probability(temperature) (q, k) of numbers from 0; None where there is no classifier: c3 is 0 then.
    truth (q,): the true column, k for new, -1 for a whale that has none.

    For given temperature, c1 + c2 and c3 the order of the known individuals is fixed. New enters it at c1 * S_new + offset,
    offset = c2 * theta_f + c3 * theta_p, so that MAP@5 is a step function of one number. Scores are those of
    identify.merged to the last bit, and equal ones keep their order by column: new is the last of them.
    """
    if probability is None:
        grid = Grid((1.0,), grid.c1, grid.c2, (0.0,), grid.theta_f, grid.theta_p)
        probability = lambda temperature: np.broadcast_to(np.float32(0), (len(similarity), similarity.shape[1] - 1))
    f, p = np.array(grid.theta_f)[:, None], np.array(grid.theta_p)
    offsets = {(c2, c3): np.unique(c2 * f + c3 * p, return_inverse=True) for c2, c3 in itertools.product(grid.c2, grid.c3)}
    new, most, found = similarity[:, -1].astype(np.float64), -1, None
    for temperature in grid.temperatures:
        steps = {pair: point_steps(columns, scores, truth, len(similarity[0]) - 1) for pair, (columns, scores) in leading(similarity, probability(temperature), grid).items()}
        for c1, c2, c3 in itertools.product(grid.c1, grid.c2, grid.c3):
            distinct, number = offsets[c2, c3]
            points = total_points(steps[c1 + c2, c3], c1 * new, distinct)[number.ravel()]
            if points.max() > most:
                most, (row, column) = points.max(), divmod(int(points.argmax()), len(grid.theta_p))
                found = (temperature, c1, c2, c3, grid.theta_f[row], grid.theta_p[column])
    return Found(*found, int(most) / (60 * len(truth)))


def total_points(steps: Steps, new: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The points of all queries together for each of the sorted offsets (n,), where new scores new (q,) + offset."""
    crossing = first_above(new[steps.query], steps.value, offsets)
    return steps.start + np.bincount(crossing, steps.gain, len(offsets) + 1).cumsum()[:-1].astype(int)


def first_above(base: np.ndarray, value: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Number of the first of the sorted offsets (n,) with base + offset > value, n where there is none.

    A bisection on that very sum: searchsorted for value - base would round elsewhere, and take ties for steps.
    """
    ends = np.append(offsets, np.inf)
    low, high = np.zeros(len(value), int), np.full(len(value), len(offsets))
    for _ in range(len(offsets).bit_length()):
        middle = (low + high) // 2
        above = base + ends[middle] > value
        low, high = np.where(above, low, middle + 1), np.where(above, middle, high)
    return high


def leading(similarity: np.ndarray, probability: np.ndarray, grid: Grid) -> Dict[Tuple[float, float], Tuple[np.ndarray, np.ndarray]]:
    """Columns and scores (q, 5) of the best known individuals for each c1 + c2 and c3 at one temperature."""
    pairs = sorted({(c1 + c2, c3) for c1, c2, c3 in itertools.product(grid.c1, grid.c2, grid.c3)})
    reach = max(grid.c3) / min((c12 for c12, _ in pairs if c12 > 0), default=1)
    found: Dict[Tuple[float, float], List[Tuple[np.ndarray, np.ndarray]]] = {pair: [] for pair in pairs}
    for part in blocks(len(similarity)):
        columns = candidates(similarity[part, :-1], probability[part], reach)
        S, P = (np.take_along_axis(values[part], np.maximum(columns, 0), axis=1) for values in (similarity, probability))
        for c12, c3 in pairs:
            scores = np.where(columns < 0, -np.inf, known_scores(S, P, c12, c3))
            order = best(scores)
            found[c12, c3].append((np.take_along_axis(columns, order, axis=1), np.take_along_axis(scores, order, axis=1)))
    return {pair: (np.concatenate([columns for columns, _ in parts]), np.concatenate([scores for _, scores in parts])) for pair, parts in found.items()}


def candidates(similarity: np.ndarray, probability: np.ndarray, reach: float) -> np.ndarray:
    """The columns of all known individuals that can be among the best five of S + r * P, 0 <= r <= reach, of P alone, or of all equal.

    (b, k), (b, k) -> (b, most) columns in ascending order, -1 behind them. The fifth best S is what the five best reach at
    any r; an individual that stays below it even at r = reach is never one of them.
    """
    rows = np.arange(len(similarity))[:, None]
    fifth = similarity[rows, best(similarity)[:, -1:]]
    possible = similarity + np.float32(reach) * probability >= fifth - np.float32(SLACK)
    possible[rows, best(probability)] = True
    possible[:, :TOP] = True
    row, column = np.nonzero(possible)
    columns = np.full((len(rows), possible.sum(axis=1).max()), -1)
    columns[row, np.arange(len(row)) - np.searchsorted(row, row)] = column
    return columns


def point_steps(columns: np.ndarray, scores: np.ndarray, truth: np.ndarray, new: int) -> Steps:
    """The steps from the columns and scores (q, places) of the best known individuals; `new` is new's column."""
    places = columns.shape[1]
    hit, is_new = columns == truth[:, None], truth == new
    gain = FALL[:places] * (is_new[:, None].astype(int) - hit)
    query, place = np.nonzero(gain)
    return Steps(int((hit * POINTS[:places]).sum() + is_new.sum() * POINTS[places]), query, scores[query, place], gain[query, place])


def precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 / rank of the true column among the best five, else 0, (q,): its mean is MAP@5."""
    order = best(scores)
    return (order == truth[:, None]) @ (1 / np.arange(1, order.shape[1] + 1))


def calibration(scores: np.ndarray, truth: np.ndarray) -> Tuple[float, float]:
    """scale and bias of identify.chances with the greatest likelihood of the truth; a whale without a column (-1) counts as new."""
    column = np.where(truth < 0, scores.shape[1] - 1, truth)
    return likeliest(scores, scores[np.arange(len(scores)), column], column == scores.shape[1] - 1)


def calibration_of_best(best_similarity: np.ndarray, is_new: np.ndarray) -> Tuple[float, float]:
    """a and b of identify.chance_new_of_best, b < 0, from the best similarity of each query and whether it is not in the gallery, (q,) each.

    The targets are Platt's, (n_new + 1) / (n_new + 2) and 1 / (n_known + 2), which tell "always so far" from "always".
    """
    target = np.where(is_new, (is_new.sum() + 1) / (is_new.sum() + 2), 1 / ((~is_new).sum() + 2))
    scores = np.stack([best_similarity, np.zeros(len(target))], axis=1).astype(np.float64)
    scale, bias = likeliest(scores, scores[:, 0] * (1 - target), target)
    return bias, -scale


def likeliest(scores: np.ndarray, target_score: np.ndarray, target_new: np.ndarray) -> Tuple[float, float]:
    """Scale and bias that minimise the cross-entropy of softmax(scale * scores + bias in the last column), scale at least 1e-3.

    scores (q, columns); of each query's target, a distribution over the columns: its mean score and the share of the last
    column, (q,). The loss is convex; its ridge is on both numbers.
    """
    from scipy.optimize import minimize

    known = np.array([target_score.mean(), target_new.mean()])

    def loss(x: np.ndarray) -> Tuple[float, np.ndarray]:
        total, expected = 0.0, np.zeros(2)
        for part in blocks(len(scores)):
            exponents = x[0] * scores[part]
            exponents[:, -1] += x[1]
            greatest = exponents.max(axis=1, keepdims=True)
            weight = np.exp(exponents - greatest)
            norm = weight.sum(axis=1, keepdims=True)
            total += float((np.log(norm) + greatest).sum())
            weight /= norm
            expected += np.vdot(weight, scores[part]), weight[:, -1].sum()
        return total / len(scores) - known @ x + RIDGE / 2 * x @ x, expected / len(scores) - known + RIDGE * x

    fit = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(LEAST_SCALE, None), (None, None)], options={"ftol": 1e-13, "gtol": 1e-8})
    return float(fit.x[0]), float(fit.x[1])


def interval(values: np.ndarray, whale: np.ndarray, resamples: int = 1000, seed: int = 0) -> Tuple[float, float]:
    """95 % percentile interval of the mean of `values` (q,) when whales, not queries, are drawn. An unknown whale ("") stands alone."""
    number, names = pd.factorize(np.asarray(whale, object))
    _, group = np.unique(np.where(np.asarray(whale) == "", len(names) + np.arange(len(number)), number), return_inverse=True)
    total, size = np.bincount(group, values), np.bincount(group)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(len(size), size=len(size)) for _ in range(resamples))
    low, high = np.percentile([total[drawn].sum() / size[drawn].sum() for drawn in draws], [2.5, 97.5])
    return float(low), float(high)


def fitted(similarity: np.ndarray, probability: Optional[Probability], truth: np.ndarray, whale_ids: np.ndarray, wanted: recipe.Identify, grid: Grid = Grid()) -> Identification:
    """Everything that is fitted on validation queries, as `search` takes them, within what the recipe wants.

    whale_ids (q,) are resampled for the interval, those of new queries each alone.
    """
    if wanted.by == "neighbours":
        probability = None
    if wanted.by == "classifier":
        grid = replace(grid, c1=(0.0,), c2=(0.0,), c3=(1.0,))
    if wanted.temperature is not None:
        grid = replace(grid, temperatures=(wanted.temperature,))
    found = search(similarity, probability, truth, grid)
    weights = {key: getattr(found, key) for key in ("temperature", "theta_p", "theta_f", "c1", "c2", "c3")}
    kept = {key: getattr(wanted, key) for key in ("new_share", "by_species", "columns", "new")}
    start = Identification(**weights, **kept, map5=None, ci95=None, n_queries=len(truth), scale=1.0, bias=0.0, nearest=(0.0, 0.0))
    scores = merged(similarity, None if probability is None else probability(found.temperature), start)
    scale, bias = calibration(scores, truth)
    known = similarity.shape[1] - 1
    is_new = (truth < 0) | (truth == known)
    ci95 = interval(precision(scores, truth), np.where(truth == known, "", whale_ids))
    nearest = calibration_of_best(similarity[:, :-1].max(axis=1), is_new)
    return replace(start, map5=found.map5, ci95=ci95, scale=scale, bias=bias, nearest=nearest)
