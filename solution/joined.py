"""Embeddings of any size -> image ids and unit rows, a block of images at a time, joined as solution.fusion joins them.

Reads EMBEDDINGS/MODEL.npz (and MODEL.json) as python -m solution.embed writes them, whole or in shards, from front to back, never as a whole: two million
images of 512 numbers, 4 GB, pass in blocks of 64 MiB. The blocks one below the other are fusion.combined of the whole.
"""

import zipfile
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import numpy as np

from solution import fusion, npz, rank, shards
from solution.files import InputError

BLOCK = 64 << 20  # bytes of rows that are held at once
PARTS = ("plain", "mirror")


def rows_a_block(width: int) -> int:
    return max(1, BLOCK // (4 * width))


class Joined:
    """The embeddings of one directory, or of one shard of it, a file a model. InputError where they are not of the same images."""

    def __init__(self, directory: Path, files: Dict[str, Path]) -> None:
        specs = {name: rank.spec_beside(directory / f"{name}.npz") for name in files}
        found = sorted(((specs[name], path) for name, path in files.items()), key=lambda model: (model[0].position, model[0].name))
        self.directory, (self.models, self.paths) = directory, zip(*found)
        self.image_ids, widths = opening(self.paths[0])
        for path in self.paths[1:]:
            image_ids, more = opening(path)
            if not np.array_equal(image_ids, self.image_ids):
                raise InputError(f"{path}: its images are not those of {self.paths[0]}; embed both from one data directory")
            widths += more
        self.width = sum(width * (2 if model.predict.mirror == "concatenate" else 1) for width, model in zip(widths, self.models))

    def __len__(self) -> int:
        return len(self.image_ids)

    def blocks(self) -> Iterator[np.ndarray]:
        """Unit rows (b, width) float32, in the order of `image_ids`."""
        for embeddings in zip(*(read(path, rows_a_block(self.width)) for path in self.paths)):
            yield fusion.combined([(model.predict, own) for model, own in zip(self.models, embeddings)])


def joined(directories: List[Path], index=None) -> List[Joined]:
    """The embeddings of several directories; InputError where they are not of the same models, which are those of the index if there is one."""
    parts = [part for directory in directories for part in parts_of(directory)]
    source, like = ("the index", index) if index else (str(directories[0]), parts[0])
    for part in parts:
        names, others = (", ".join(model.name for model in models) for models in (part.models, like.models))
        if names != others:
            raise InputError(f"{part.directory}: embeddings by {names}, but those of {source} are by {others}; embed with the same weights")
        for model, other in zip(part.models, like.models):
            if model != other:
                raise InputError(f"{part.directory}/{model.name}.json: not the model of that name that {source} has; embed with the same weights")
        if part.width != like.width:
            raise InputError(f"{part.directory}: {part.width} numbers an image, but {like.width} in {source}; embed with the same weights")
    return parts


def parts_of(directory: Path) -> List[Joined]:
    """The whole, or every shard."""
    files = shards.embedding_files(directory)
    if not files:
        raise InputError(f"{directory}: no embeddings here (MODEL.npz); make them with python -m solution.embed")
    if len(set(map(len, files.values()))) > 1:
        raise InputError(f"{directory}: its models are in different numbers of shards; embed all of them alike")
    return [Joined(directory, dict(zip(files, paths))) for paths in zip(*files.values())]


def opening(path: Path) -> Tuple[np.ndarray, List[int]]:
    """The image ids (n,) of a model's embeddings and, as a list, their width; InputError where they are not of its images."""
    with npz.opened(path) as file:
        stream, shape, dtype = array(file, "image_id")
        image_ids = npz.checked(np.frombuffer(stream.read(), dtype).reshape(shape))
        shapes = [array(file, name)[1] for name in PARTS]
    if image_ids.ndim != 1 or shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != len(image_ids) or not shapes[0][1]:
        raise InputError(f"{path}: needs unique image_id (n), plain (n, d) and mirror (n, d)")
    return image_ids.astype(str), [shapes[0][1]]


def read(path: Path, size: int) -> Iterator[Dict[str, np.ndarray]]:
    """The plain and mirror embeddings of a model, `size` images at a time."""
    with npz.opened(path) as file:
        parts = {name: array(file, name) for name in PARTS}
        count, width = parts["plain"][1]
        for start in range(0, count, size):
            images = min(size, count - start)
            yield {name: np.frombuffer(stream.read(images * width * dtype.itemsize), dtype).reshape(images, width) for name, (stream, _, dtype) in parts.items()}


def array(file: zipfile.ZipFile, name: str) -> Tuple:
    """An array of an npz file: its stream, which stands before the first number, shape and dtype."""
    members = npz.members(file)
    if name not in members:
        raise ValueError(f"array {name} is missing")
    stream, shape, by_columns, dtype = npz.header(file, members[name])
    if by_columns or dtype.kind not in ("fUi" if name == "image_id" else "fi"):
        raise ValueError(f"array {name} is not text or numbers row by row")
    return stream, shape, dtype
