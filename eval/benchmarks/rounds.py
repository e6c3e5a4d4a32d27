"""Runs works by turns, so that what else the machine does strikes them alike, and says whether two answer the same.

    spent = by_turns({"ours": ours, "reference": reference}, repeats=3)
    ratios(spent["ours"], spent["reference"])

A work is a function without arguments. What it took are two numbers: seconds, and processor seconds of this process and of those
it has waited for. eval.benchmarks.ranking and eval.benchmarks.scoring measure with it.
"""

import resource
import sys
import time
from statistics import median
from typing import Callable

import numpy as np
import pandas as pd

from eval.benchmarks import speed
from eval.files import progress

ALIKE = 1e-4  # similarities of two systems that are to answer the same
PAIR = ["query_id", "database_image_id"]


def timed(work: Callable[[], object]) -> np.ndarray:
    before = clocks()
    work()
    return clocks() - before


def said(work: Callable[[], object]) -> object:
    """For works that measure themselves: what a call answers."""
    return work()


def by_turns(works: dict[str, Callable[[], object]], repeats: int, took: Callable = timed) -> dict[str, np.ndarray]:
    """What each work took, (repeats, 2), or what else `took` tells of it; every other round runs backwards."""
    order = [name for number in range(repeats) for name in (list(works)[::-1] if number % 2 else works)]
    spent: dict[str, list] = {name: [] for name in works}
    for name in progress(order, "runs"):
        spent[name].append(took(works[name]))
    return {name: np.array(rounds) for name, rounds in spent.items()}


def clocks() -> np.ndarray:
    usages = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)])


def ratios(ours: np.ndarray, theirs: np.ndarray) -> dict:
    """`ratio`: their seconds / ours, with its spread over the rounds; `cpu`: the same of processor seconds."""
    seconds, cpu = (speed.spread(*pair) for pair in zip(ours.T.tolist(), theirs.T.tolist()))
    return {**seconds, "cpu": cpu}


def seconds(spent: np.ndarray) -> float | None:
    """The median of the rounds; None where that is no time at all, as of a difference that drowned in what else varies."""
    value = median(spent[:, 0].tolist())
    return value if value > 0 else None


def threads() -> int:
    """Of the matrix product in this process."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


def cosines(embeddings: np.ndarray) -> np.ndarray:
    """Of all pairs of rows (n, d): (n, n)."""
    rows = embeddings.astype(float)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def agreement(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict:
    """How two submissions with (1 + cosine) / 2 as score differ: rows that only ours has, and the largest step between the
    similarities of one row, or of one place of a query. A row that theirs lacks is for them at most as similar as their last one
    of its query; of photographs that are alike any may come last. Exits where that is no longer the same answer."""
    ours, theirs = (table.astype({"score": float}) for table in (ours, theirs))
    joined = ours.merge(theirs, "left", PAIR)
    last = joined.query_id.map(theirs.groupby("query_id").score.min())
    of_rows = (joined.score_x - joined.score_y.fillna(np.minimum(joined.score_x, last))).abs().max()
    ours, theirs = (table.sort_values(["query_id", "score"], ascending=[True, False], ignore_index=True) for table in (ours, theirs))
    if not ours.query_id.equals(theirs.query_id):
        sys.exit("error: the two do not answer the same queries with as many rows each; the benchmark compares nothing")
    difference = 2 * max(of_rows, (ours.score - theirs.score).abs().max())
    if not difference <= ALIKE:
        sys.exit(f"error: the reference's similarities differ by {difference:.1e}, more than {ALIKE:g}; a faster wrong answer is none")
    return {"rows": len(ours), "rows_that_differ": int(joined.score_y.isna().sum()), "largest_similarity_difference": difference}
