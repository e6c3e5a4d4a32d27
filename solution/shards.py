"""A shard is every n-th photograph from the i-th on: several GPUs or machines embed one data directory, each `--shard i/n` of it.

    python -m solution.embed --data DATA --weights WEIGHTS --output EMBEDDINGS --shard 1/4      # EMBEDDINGS/MODEL.1-of-4.npz
    files = embedding_files(EMBEDDINGS)                     # {model: its one file, or all its shards}
    embeddings = joined(files[model])

The file of a shard tells of what it was made (Source), so that shards of other weights or data are never joined. solution.turns makes them.
"""

import argparse
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

import numpy as np

from solution import npz
from solution.files import InputError, arrays

PARTS = "image_id", "plain", "mirror"


class Shard(NamedTuple):
    """One of `count`, `number` from 1 on."""

    number: int
    count: int

    def rows(self) -> slice:
        return slice(self.number - 1, None, self.count)

    def of(self, model: str) -> str:
        """The name of its file, without suffix."""
        return f"{model}.{self.number}-of-{self.count}"


WHOLE = Shard(0, 0)


class Source(NamedTuple):
    """Of what a model's shard was made, as digests: the first two are alike in all shards that belong together."""

    weights: str  # the model, and how it looks at photographs
    data: str  # all ids and boxes of the data directory
    photographs: str  # the shard's own ids, and the sizes of their files


def source(path: Path) -> Optional[Source]:
    """None where a file of embeddings does not tell."""
    with npz.opened(path) as file:
        members = npz.members(file)
        told = npz.array(file, members["source"]) if "source" in members else np.empty(0)
    return Source(*map(str, told)) if told.shape == (len(Source._fields),) else None


def shard(text: str) -> Shard:
    """An argument `i/n`, i from 1 to n."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not i/n with i from 1 to n, such as 1/4")
    return Shard(int(found[1]), int(found[2]))


def number(text: str) -> int:
    """An argument that is a number of shards."""
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of shards, such as 64")
    return int(text)


def embedding_files(directory: Path) -> Dict[str, List[Path]]:
    """The files of each model in a directory of embeddings, its shards in order; InputError where some are missing."""
    return {model: [parts[part] for part in sorted(parts)] for model, parts in there(directory).items() if whole(directory, model, list(parts)) and alike(parts)}


def there(directory: Path) -> Dict[str, Dict[Shard, Path]]:
    """The files of each model in a directory of embeddings, by the part of the photographs that they hold."""
    files: Dict[str, Dict[Shard, Path]] = {}
    for path in sorted(directory.glob("*.npz")):
        found = re.fullmatch(r"(.+)\.([1-9]\d{0,5})-of-([1-9]\d{0,5})", path.stem)
        model, part = (found[1], Shard(int(found[2]), int(found[3]))) if found else (path.stem, WHOLE)
        files.setdefault(model, {})[part] = path
    return files


def alike(parts: Dict[Shard, Path]) -> bool:
    """True; InputError where shards tell that they were made of different weights or data."""
    first, *others = (parts[part] for part in sorted(parts))
    like = source(first) if others else None
    for path in others:
        other = differs(source(path), like)
        if other:
            raise InputError(f"{path}: was made of other {other} than {first}; remove the shards that are not to be used, and embed those anew")
    return True


def differs(one: Optional[Source], other: Optional[Source]) -> str:
    """What two shards were made of that is not alike, weights or data; empty where nothing is known to be."""
    return next((name for name in ("weights", "data") if one and other and getattr(one, name) != getattr(other, name)), "")


def whole(directory: Path, model: str, parts: List[Shard]) -> bool:
    """True; InputError where the parts of a model are not one file or all the shards of one division."""
    counts = sorted({part.count for part in parts})
    if len(counts) > 1:
        kinds = " and ".join("the whole" if count == 0 else f"shards of {count}" for count in counts)
        raise InputError(f"{directory}: holds {kinds} of model {model}; remove what is not to be used")
    missing, more = sorted(set(range(1, counts[0] + 1)) - {part.number for part in parts}), max(part.number for part in parts)
    if more > counts[0]:
        raise InputError(f"{directory}: of model {model} there is a shard {more}/{counts[0]}; remove it")
    if missing:
        others = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{directory}: of model {model} shard {missing[0]}/{counts[0]} is missing{others}; python -m solution.embed --shard {missing[0]}/{counts[0]} makes it")
    return True


def joined(paths: List[Path]) -> Dict[str, np.ndarray]:
    """image_id, plain and mirror of a model's files, in the order of the data directory."""
    shards = [of_images(path) for path in paths]
    if len(shards) == 1:
        return shards[0]
    total, count = sum(len(shard["image_id"]) for shard in shards), len(shards)
    for number, (path, shard) in enumerate(zip(paths, shards)):
        expected = len(range(number, total, count))
        if any(shard[part].shape[:1] != (expected,) or shard[part].shape[1:] != shards[0][part].shape[1:] for part in PARTS):
            raise InputError(f"{path}: does not fit to the other shards; embed all of them from one data directory with the same weights")
    return {part: interleaved([shard[part] for shard in shards]) for part in PARTS}


def of_images(path: Path) -> Dict[str, np.ndarray]:
    """image_id, plain and mirror of one file; InputError where they are no ids and numbers of images."""
    found = arrays(path, PARTS)
    if found["image_id"].ndim != 1 or any(found[part].ndim != 2 or found[part].dtype.kind not in "fiu" for part in PARTS[1:]):
        raise InputError(f"{path}: needs unique image_id (n), plain (n, d) and mirror (n, d)")
    return {part: found[part] for part in PARTS}


def interleaved(parts: List[np.ndarray]) -> np.ndarray:
    """Row k of the i-th of n parts becomes row k * n + i."""
    result = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    for number, part in enumerate(parts):
        result[number :: len(parts)] = part
    return result
