"""What a share or a curve over queries is worth when whales, not queries, are drawn again.

Reads and writes nothing. Every number of a figure comes from the same draws: `Redrawn(group)`, `group` (n,) the whale of each
query as 0 .. g-1. A percentile bootstrap (Efron 1979) over whales, because queries of one whale are not independent.

    Redrawn(group).means(hits, np.ones_like(hits))        ->  (3, k): value, low and high of each column
"""

import numpy as np
import pandas as pd

from eval import metrics

FEW = 5  # whales; redrawing fewer tells nothing about others
RESAMPLES, BLOCK = 1000, 50  # draws; draws whose weights of all queries are held at once


class Redrawn:
    """Draws of whales with replacement, as many as there are; `times` (1000, g): how often each is in each draw."""

    def __init__(self, group: np.ndarray, seed: int = 0):
        self.group, n = group, int(group.max()) + 1
        self.times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.uint16)

    def means(self, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        """sum of `top` / sum of `bottom` over the queries, both (n, k) -> (3, k): value, low and high end of the 95 % interval.

        NaN without any `bottom`; no interval where fewer than FEW whales have a part in it or all draws agree.
        """
        above, below = self.by_whale(top), self.by_whale(bottom)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = (self.times @ above) / (self.times @ below)
            value = above.sum(axis=0) / below.sum(axis=0)
        low, high = pd.DataFrame(drawn).quantile([0.025, 0.975]).to_numpy()  # NaN, a draw without any `bottom`, is left out
        nothing = ((below > 0).sum(axis=0) < FEW) | (low == high)
        return np.array([value, np.where(nothing, np.nan, low), np.where(nothing, np.nan, high)])

    def by_whale(self, values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(self.group, column, minlength=self.times.shape[1]) for column in values.T], axis=1)

    def area_under_roc(self, score: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """metrics.area_under_roc of `score` (n,) and its 95 % interval, (3,)."""
        order = np.argsort(score, kind="stable")
        starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
        drawn = [self.areas(block, order, starts, positive) for block in np.array_split(self.times, -(-len(self.times) // BLOCK))]
        few = min(len(np.unique(self.group[positive == kind])) for kind in (True, False)) < FEW
        ends = [np.nan] * 2 if few else np.nanpercentile(np.concatenate(drawn), [2.5, 97.5])
        return np.array([metrics.area_under_roc(score, positive), *ends])

    def areas(self, times: np.ndarray, order: np.ndarray, starts: np.ndarray, positive: np.ndarray) -> np.ndarray:
        """The area in each draw: over the runs of equal score, positives times the negatives below and half of the equal ones."""
        weight = times[:, self.group[order]].astype(float)
        ups = np.add.reduceat(weight * positive[order], starts, axis=1)
        downs = np.add.reduceat(weight * ~positive[order], starts, axis=1)
        below = np.cumsum(downs, axis=1) - downs / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            return (ups * below).sum(axis=1) / (ups.sum(axis=1) * downs.sum(axis=1))


def in_bins(value: np.ndarray, query: np.ndarray, number: np.ndarray, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """What `Redrawn.means` takes of parts with a `value` in bin `number` (-1: none) of a `query`: sums and counts, (n, k)."""
    inside = number >= 0
    key = query[inside] * k + number[inside]
    total, count = np.bincount(key, value[inside], minlength=n * k), np.bincount(key, minlength=n * k)
    return total.reshape(n, k), count.reshape(n, k).astype(float)


def in_words(value: float, low: float = np.nan, high: float = np.nan, sign: str = "") -> str:
    """`0.123 (0.101–0.145)`; `sign` "+" shows that of each number."""
    number = lambda each: f"{each:{sign}.3f}"
    return number(value) if np.isnan(low) else f"{number(value)} ({number(low)}{' to ' if sign else '–'}{number(high)})"
