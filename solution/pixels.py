"""The photographs of a table as models look at them: each decoded once for all models, by threads that are ahead of the models.

    pixels = Pixels(table, data, views, workers=2)
    for rows, batch in pixels.batches(view): ...

OpenCV's decoder and Pillow's resizing let go of the interpreter, so threads do what processes would, without shared memory.
"""

import hashlib
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

import numpy as np
import pandas as pd

from solution import images
from solution.device import cores, sharers
from solution.files import STRICT, Complaints, InputError, progress
from solution.images import View

BATCH = min(256, max(32, 16 * cores()))  # images that an engine is handed at once, some for each of its threads
HELD_BYTES = 8 << 30  # of resized photographs at most, and no more than half of the machine's memory


class Stopwatch:
    """The seconds spent in its `with` blocks, which do not lie in each other, all together."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error) -> None:
        self.seconds += time.perf_counter() - self.start


class Decoded(NamedTuple):
    """A photograph in each view, and what it is known by; or why it cannot be read."""

    squares: List[np.ndarray]
    digest: bytes
    problem: str


class Pixels:
    """The photographs of `table` in each of several views, decoded once for all passes over them.

    The first pass that needs a photograph decodes it; of a collection too large to keep every pass does. `workers` threads decode, up to two
    batches ahead; without any the caller does. `digests` are what photographs are known by, bytes and box, None as long as
    they were not read, empty where they cannot be; `told` are the rows of which that was told.
    """

    def __init__(self, table: pd.DataFrame, data: Path, views: List[View], workers: int, complaints: Complaints = STRICT) -> None:
        self.photographs = images.Photographs(table.path, views, images.boxes(table, data, complaints))
        self.complaints, self.count = complaints, len(table)
        self.told: Set[int] = set()
        self.digests: List[Optional[bytes]] = [None] * len(table)
        self.decoded = np.zeros(len(table), bool)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self.kept = len(table) * sum(view.size**2 * 3 for view in views) <= min(HELD_BYTES, memory // 2 // sharers())
        try:
            self.held = room(views, len(table) if self.kept else BATCH)
        except MemoryError:  # this process may use less than the machine has
            self.kept, self.held = False, room(views, BATCH)
        self.waiting = Stopwatch()  # for threads that decode beside the models, or for the decoding itself
        self.pool = ThreadPoolExecutor(workers) if workers else None

    def batches(self, view: View, rows: Optional[np.ndarray] = None) -> Iterator[Tuple[np.ndarray, np.ndarray]]:
        """Rows (b,), all or of those given, and their images (b, size, size, 3) uint8, in order."""
        rows = np.arange(self.count) if rows is None else rows
        decoding = self.mapped(self.decode, rows[~self.decoded[rows]].tolist())
        for batch in (rows[start : start + BATCH] for start in range(0, len(rows), BATCH)):
            places = batch if self.kept else np.arange(len(batch))
            with self.waiting:
                for number in np.flatnonzero(~self.decoded[batch]):
                    self.hold(int(batch[number]), places[number], next(decoding))
            yield batch, self.held[view][places]
        decoding.close()

    def steps(self, count: int) -> int:
        """The batches that `count` photographs make."""
        return -(-count // BATCH)

    def mapped(self, work, rows: Iterable[int]) -> Iterator:
        """work(row) of each of `rows`, in order, by threads that are up to two batches ahead."""
        if self.pool is None:
            yield from map(work, rows)
            return
        rows = iter(rows)
        ahead = deque(self.pool.submit(work, row) for row in islice(rows, 2 * BATCH))
        try:
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(self.pool.submit(work, row) for row in islice(rows, 1))
                yield result
        finally:
            for future in ahead:
                future.cancel()

    def decode(self, row: int) -> Decoded:
        path = self.photographs.paths[row]
        try:
            content = images.content(path)
            return Decoded(self.photographs.squares(row, images.opened(content, path)), self.digest(row, content), "")
        except InputError as error:
            return Decoded([], b"", str(error))
        except MemoryError:
            if self.complaints.strict:
                raise
            return Decoded([], b"", f"{path}: no memory to read it")

    def hold(self, row: int, place: int, photograph: Decoded) -> None:
        """Keeps what a row was decoded to; one that cannot be read is black, and told once."""
        self.digests[row], self.decoded[row] = photograph.digest, self.kept
        if photograph.problem and row not in self.told and self.photographs.paths[row]:
            self.complaints.add(photograph.problem)
            self.told.add(row)
        for held, square in zip(self.held.values(), photograph.squares or [0] * len(self.held)):
            held[place] = square

    def all_digests(self) -> List[bytes]:
        """`digests` of all rows; those of which none is known yet are read for it."""
        rows = [row for row in range(self.count) if self.digests[row] is None]
        with self.waiting:
            for row, digest in zip(rows, progress(self.mapped(self.read_digest, rows), "looking for known photographs", len(rows))):
                self.digests[row] = digest
        return self.digests

    def read_digest(self, row: int) -> bytes:
        try:
            return self.digest(row, images.content(self.photographs.paths[row]))
        except (InputError, MemoryError):
            return b""

    def digest(self, row: int, content: bytes) -> bytes:
        return hashlib.sha256(hashlib.sha256(content).digest() + repr(self.photographs.boxes[row]).encode()).digest()


def room(views: List[View], count: int) -> Dict[View, np.ndarray]:
    return {view: np.empty((count, view.size, view.size, 3), np.uint8) for view in views}
