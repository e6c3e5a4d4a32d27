"""What an index is: a directory that holds the embeddings of a catalogue, in files that index.json names.

    rows.f32        a unit row an image, float32; more are written behind them
    ids-N.npz       image_id, in the order of the rows, and sequence, the rows in the order of their ids
    index-N.faiss   lists and codes of FAISS, where there are more than EXACT images
    index.json      models, numbers of images, digests, and the recall that was measured

index.json is written last, so that a command that fails or is killed leaves the old index. Sizes, the SHA-256 of ids-N.npz and
index-N.faiss and that of 256 rows are checked before anything is used. That tells damage and mixed-up files, not malice: who can write
into the directory can write index.json, too, and FAISS's reader is not made for hostile files. Use an index only where you trust who built it.
"""

import contextlib
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ContextManager, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from solution import inverted, outputs, recipe
from solution.files import InputError, arrays, progress, read_json, whole, whole_directory, write_arrays, write_json
from solution.joined import Joined, rows_a_block
from solution.nearest import Rows

EXACT = 100_000  # images up to which a blocked product answers fast enough
ROWS = "rows.f32"
DAMAGED = "copy the index again or build it anew"


@dataclass(frozen=True)
class File:
    size: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What index.json holds."""

    models: Tuple[recipe.Spec, ...]  # how their embeddings are joined, in this order
    width: int
    count: int
    version: int  # counts what was added; the N of ids-N.npz and index-N.faiss
    rows: str  # nearest.Rows.fingerprint
    ids: File
    faiss: Optional[File]  # none where all is compared exactly
    lists: Optional[inverted.Lists]

    def __post_init__(self) -> None:
        recipe.require((self.faiss is None) == (self.lists is None), "lists", self.lists, "there where faiss is, and only there")


class Ids(NamedTuple):
    """The images of the rows, sorted once, so that few of millions are found at once."""

    image_id: np.ndarray  # (n,) text
    sequence: np.ndarray  # (n,) the rows in the order of their ids

    def rows_of(self, image_id: np.ndarray) -> np.ndarray:
        """The row of each image (q,), -1 for those that are not there."""
        place = np.searchsorted(self.image_id, image_id, sorter=self.sequence)
        row = self.sequence[np.minimum(place, len(self.sequence) - 1)]
        return np.where(self.image_id[row] == image_id, row, -1)

    def order(self) -> np.ndarray:
        """The place of each row (n,) among the sorted ids."""
        order = np.empty_like(self.sequence)
        order[self.sequence] = np.arange(len(order))
        return order


def once(image_id: np.ndarray) -> Ids:
    """The images, of which there must be some and none twice."""
    sequence = np.argsort(image_id, kind="stable")
    twice = image_id[sequence[1:]] == image_id[sequence[:-1]]
    if twice.any():
        raise InputError(f"image {str(image_id[sequence[1:]][twice][0])!r} is there twice: in two directories, or in the index already; leave it out")
    if not len(image_id):
        raise InputError("the embeddings hold no images; embed some with python -m solution.embed")
    return Ids(image_id, sequence)


# The directory

def read(folder: Path) -> Index:
    try:
        index = recipe.built(Index, read_json(folder / "index.json"))
        for key in ("width", "count"):
            recipe.require(getattr(index, key) > 0, key, getattr(index, key), "above 0")
        return index
    except ValueError as error:
        raise InputError(f"{folder}/index.json: not an index of this program: {error}; build it anew") from None


def ids_path(folder: Path, version: int) -> Path:
    return folder / f"ids-{version}.npz"


def faiss_path(folder: Path, version: int) -> Path:
    return folder / f"index-{version}.faiss"


def checked(path: Path, expected: File) -> bytes:
    """The bytes of a file, which are those that were written."""
    if not path.is_file() or path.stat().st_size != expected.size:
        raise InputError(f"{path}: missing or not the {expected.size} bytes that were written; {DAMAGED}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise InputError(f"{path}: damaged, its SHA-256 is not that of index.json; {DAMAGED}")
    return content


def described(path: Path) -> File:
    return File(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def opened(index: Index, folder: Path) -> Tuple[Ids, Rows, object]:
    """The images of an index, their rows and, where it has them, its lists; InputError where they are not what was written."""
    path, rows = ids_path(folder, index.version), Rows(folder / ROWS, index.count, index.width)
    checked(path, index.ids)
    found = arrays(path, ("image_id", "sequence"))
    if found["image_id"].shape != (index.count,) or found["sequence"].shape != (index.count,):
        raise InputError(f"{path}: holds {found['image_id'].size} images instead of {index.count}; {DAMAGED}")
    if found["image_id"].dtype.kind != "U" or found["sequence"].dtype.kind != "i" or not np.array_equal(np.sort(found["sequence"]), np.arange(index.count)):
        raise InputError(f"{path}: image_id is no text, or sequence is not each row once; {DAMAGED}")
    if rows.fingerprint() != index.rows:
        raise InputError(f"{folder / ROWS}: damaged or of another index; {DAMAGED}")
    path = faiss_path(folder, index.version)
    return Ids(found["image_id"], found["sequence"]), rows, inverted.read(checked(path, index.faiss), rows, str(path)) if index.lists else None


# Building and adding

def empty(part: Joined) -> Index:
    """An index of nothing yet for embeddings such as these."""
    return Index(part.models, part.width, 0, 0, "", File(0, ""), None, None)


def extended(index: Index, folder: Path, parts: List[Joined]) -> Index:
    """The index with more images. Its files lie beside those of the old one, which stay as they are: rows.f32 only grows at its end."""
    old, _, lists = opened(index, folder) if index.count else (Ids(np.empty(0, str), np.empty(0, int)), None, None)
    tidy(index, folder)  # a command that was killed may have left some of its own
    ids = once(np.concatenate([old.image_id, *(part.image_ids for part in parts)]))
    count, version = len(ids.image_id), index.version + 1
    if count > EXACT:
        inverted.library()  # whose absence is told before the work
    with growing(folder / ROWS, 4 * index.count * index.width) as file:
        append(file, parts)
        rows = Rows(folder / ROWS, count, index.width)
        written = described(write_arrays(ids_path(folder, version), **ids._asdict()))
        tuned, faiss = with_lists(index, lists, folder, rows) if count > EXACT else (None, None)
        return Index(index.models, index.width, count, version, rows.fingerprint(), written, faiss, tuned)


@contextlib.contextmanager
def growing(path: Path, size: int) -> Iterator[BinaryIO]:
    """A file to write to behind its first `size` bytes; what fails, or was killed earlier, leaves no more than these."""
    with open(path, "ab") as file:
        file.truncate(size)
        try:
            yield file
        except BaseException:
            file.truncate(size)
            raise


def append(file: BinaryIO, parts: List[Joined]) -> None:
    for part in parts:
        for rows in progress(part.blocks(), f"joining {part.directory}", -(-len(part) // rows_a_block(part.width))):
            file.write(np.ascontiguousarray(rows, "<f4"))
    file.flush()


def with_lists(index: Index, lists, folder: Path, rows: Rows) -> Tuple[Optional[inverted.Lists], Optional[File]]:
    """The lists with all rows: the old ones and more, or new ones where there are none or they were drawn from half as many images."""
    grown = lists is not None and len(rows) < 2 * index.lists.trained
    lists = lists if grown else inverted.trained(rows)
    inverted.fill(lists, rows)
    tuned = inverted.tuned(lists, rows, index.lists.trained if grown else len(rows))
    if tuned is None:
        print(f"no number of lists and candidates reaches recall {inverted.RECALL}; all images are compared exactly, which takes longer", file=sys.stderr)
        return None, None
    path = faiss_path(folder, index.version + 1)
    with whole(path) as beside:
        beside.write_bytes(inverted.written(lists))
    return tuned, described(path)


def new_folder(output: Path) -> ContextManager[Path]:
    """A folder beside `output` to fill; it takes that name when the block ends well and is removed when not."""
    if os.path.lexists(output):
        raise InputError(f"{output}: is there already; add to it, or choose another --output")
    return whole_directory(output)


def alone(folder: Path) -> ContextManager[None]:
    """Nobody else adds to the index meanwhile, or builds one there."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such directory; make it with python -m solution.search build")
    return outputs.alone(folder)


def write(index: Index, folder: Path) -> None:
    """From here on the folder holds this index; files of earlier ones go."""
    write_json({**recipe.plain(index), "models": [recipe.plain(model) for model in index.models]}, folder / "index.json")
    tidy(index, folder)


def tidy(index: Index, folder: Path) -> None:
    """Removes the files of earlier indexes, and what commands that were killed have left."""
    kept = {ids_path(folder, index.version), *([faiss_path(folder, index.version)] if index.faiss else [])}
    for path in {*folder.glob("ids-*.npz"), *folder.glob("index-*.faiss"), *folder.glob(".*.part")} - kept:
        path.unlink()
