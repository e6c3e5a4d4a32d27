"""Local evidence: the first candidates of every query in another order, by what their photographs have in common place by place (places.py).

    evidence = Evidence(specs, pixels, table, weights, device, weight)
    rows, values = evidence.reordered(rows, values, query_image_ids, database_image_ids)

Photographs whose `viewpoint` is left are mirrored, so that all animals face one way; where the table has no viewpoint none is.
"""

from pathlib import Path
from typing import List, Tuple

import numpy as np
import pandas as pd

from solution import recipe
from solution.images import View, viewpoints
from solution.pixels import Pixels

MIRRORED = "left"


def looking(specs: List[recipe.Spec]) -> List[recipe.Spec]:
    """The models that look at places."""
    return [spec for spec in specs if spec.predict.local_size]


def view_of(spec: recipe.Spec) -> View:
    return View(spec.predict.local_size, spec.model.box_margin)


def mirrored(seen_from: np.ndarray) -> np.ndarray:
    """Which photographs (n,) are looked at in a mirror."""
    return seen_from == MIRRORED


class Evidence:
    """The places of all photographs of a table, by each of some models; `weight` as rank.evidence in a recipe."""

    def __init__(self, specs: List[recipe.Spec], pixels: Pixels, table: pd.DataFrame, weights: Path, device: str, weight: float) -> None:
        from solution.places import Eye  # and PyTorch, which most predictions on a CPU do without

        self.images, self.device, self.weight = pd.Index(table.image_id), device, weight
        turned = mirrored(viewpoints(table))
        self.cells = [Eye(spec, weights, device).cells(pixels, turned) for spec in specs]

    def reordered(self, rows: np.ndarray, values: np.ndarray, query_image_ids: np.ndarray, database_image_ids: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Candidates (q, k), numbers of database images, and their values (q, k), best first, in their new order. -1 is none."""
        from solution.places import evidence

        queries, database = (self.images.get_indexer(ids) for ids in (query_image_ids, database_image_ids))
        candidates = np.where(rows >= 0, database[rows], -1)
        found = sum(evidence(cells, queries, candidates, self.device) for cells in self.cells)
        values = weighed(values, found, self.weight)
        sequence = np.argsort(-values, axis=1, kind="stable")
        return np.take_along_axis(rows, sequence, axis=1), np.take_along_axis(values, sequence, axis=1)


def weighed(values: np.ndarray, found: np.ndarray, weight: float) -> np.ndarray:
    """The values (q, k) of a ranking with their local evidence (q, k) added in units of their own spread among a query's candidates, `weight`
    times. Where all its evidence is equal nothing is added; empty places, of value -inf, stay."""
    there = np.isfinite(values)
    (_, spread), (deviation, unit) = deviations(np.where(there, values, 0), there), deviations(found, there)
    return np.where(there, values + weight * deviation * np.divide(spread, unit, out=np.zeros_like(spread), where=unit > 1e-9), values)


def deviations(values: np.ndarray, there: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """From the mean of what is there in each row (q, k), and the standard deviation (q, 1)."""
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)
    deviation = np.where(there, values - np.where(there, values, 0).sum(axis=1, keepdims=True) / count, 0)
    return deviation, np.sqrt((deviation**2).sum(axis=1, keepdims=True) / count)
