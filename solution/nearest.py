"""The nearest rows of a file of unit rows, exactly, in bounded memory: the file may be larger than the memory.

A file of rows holds float32 numbers and nothing else, so that more can be added at its end. Answers follow the rules of
solution.ties: cosines in float64, equal ones ordered by image id, an image is never an answer to itself.
"""

import hashlib
from pathlib import Path
from typing import Iterator, Optional, Tuple

import numpy as np

from solution import ties
from solution.files import InputError
from solution.joined import rows_a_block

LOOKED_AT = 256  # rows that a fingerprint takes in


class Rows:
    """The first `count` rows (count, width) of a file; what follows them does not count."""

    def __init__(self, path: Path, count: int, width: int) -> None:
        self.path, self.count, self.width = path, count, width
        size = path.stat().st_size if path.is_file() else 0
        if size < 4 * count * width:
            raise InputError(f"{path}: holds {size} bytes, less than the {4 * count * width} of {count} images; copy the index again or build it anew")

    def __len__(self) -> int:
        return self.count

    def mapped(self, start: int = 0, stop: Optional[int] = None) -> np.ndarray:
        """Rows as they lie in the file. Their pages count as this process's memory until the array is gone."""
        stop = self.count if stop is None else stop
        return np.asarray(np.memmap(self.path, "<f4", "r", 4 * start * self.width, (stop - start, self.width)))

    def blocks(self, start: int = 0) -> Iterator[Tuple[int, np.ndarray]]:
        """The rows from `start` on: the number of a block's first one, and the block."""
        size = rows_a_block(self.width)
        for first in range(start, self.count, size):
            block = self.mapped(first, min(first + size, self.count))
            if not np.isfinite(block).all():
                raise InputError(f"{self.path}: damaged, it holds numbers that are not finite; copy the index again or build it anew")
            yield first, block

    def fingerprint(self) -> str:
        """Of rows all over the file: it tells another file from this one, not every damage."""
        places = np.linspace(0, self.count - 1, LOOKED_AT).astype(int)
        return hashlib.sha256(self.mapped()[places].tobytes()).hexdigest()


def candidates(queries: np.ndarray, rows: Rows, own: np.ndarray, order: np.ndarray, top: int) -> np.ndarray:
    """Numbers of rows (q, k) among which the `top` nearest of each query are: the best of every block, -1 where a block has fewer.

    queries (q, width), own (q,) and order (count,) as in ties.best.
    """
    found = []
    for start, block in rows.blocks():
        inside = (own >= start) & (own < start + len(block))
        best, _ = ties.best(queries, block, np.where(inside, own - start, -1), order[start : start + len(block)], top)
        found.append(np.where(best >= 0, best + start, -1))
    return np.concatenate(found, axis=1)


def similarities(queries: np.ndarray, rows: Rows, found: np.ndarray) -> np.ndarray:
    """The cosines of candidates (q, k), float32 as from a product; -inf where there is none.

    One mapping for all: each look into the file maps the pages around it, too, so that soon none has to be waited for.
    """
    values, mapped = np.empty(found.shape, np.float32), rows.mapped()
    size = max(1, rows_a_block(rows.width) // found.shape[1])
    for start in range(0, len(queries), size):
        block = slice(start, start + size)
        values[block] = np.matmul(mapped[np.maximum(found[block], 0)], queries[block, :, None])[:, :, 0]
    if not (np.abs(values) < 1.001).all():
        raise InputError(f"{rows.path}: damaged, it holds rows that are not of unit length; copy the index again or build it anew")
    values[found < 0] = -np.inf
    return values


def settled(queries: np.ndarray, rows: Rows, found: np.ndarray, own: np.ndarray, order: np.ndarray, top: int) -> Tuple[np.ndarray, np.ndarray]:
    """Of candidates (q, k) the `top` nearest: their numbers (q, top) and cosines (q, top), best first, -1 and -inf where there are fewer."""
    found = np.where(found == own[:, None], -1, found)
    query, place = ties.candidates(similarities(queries, rows, found), top)
    row = found[query, place]
    best, values = np.full((len(queries), top), -1), np.full((len(queries), top), -np.inf)
    ties.place_best(query, row, ties.exact(queries, rows.mapped(), query, row), order, best, values)
    return best, values
