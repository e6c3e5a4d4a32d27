"""Embeddings that were computed before: known again by what they were computed from, never by a name or a path.

    known = Known(weights, "cpu", "onnx")
    found = known.found(spec, "mirror", pixels)             # (n, width), NaN where they are to be computed
    known.keep(spec, "mirror", pixels, found)

Keeps a file a model and side in room `embeddings` (kept.py): digest (n, 32) uint8 of photographs and their boxes, and embedding (n, width)
float32. The file's key is a hash of weights, architecture, size, engine, device, packages, and the code that computes.
"""

import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Dict, NamedTuple, Optional

import numpy as np

from solution import kept, recipe
from solution.device import processor
from solution.files import InputError, arrays
from solution.onnx_engine import sha256_of, version_of
from solution.pixels import Pixels

ROOM, BOUNDS = "embeddings", kept.Bounds(files=4096, size=2 << 30)
PACKAGES = "numpy", "onnx", "onnxruntime", "onnxscript", "opencv-python-headless", "pillow", "timm", "torch"
CODE = "eight_bit", "images", "models", "onnx_engine", "onnx_export", "pixels", "torch_engine"


class Rows(NamedTuple):
    digest: np.ndarray
    embedding: np.ndarray


class Known:
    """What is kept of the models of WEIGHTS by an engine of `kind` on a device."""

    def __init__(self, weights: Path, device: str, kind: str) -> None:
        self.weights, self.device, self.kind = weights, device, kind
        self.keys: Dict[str, str] = {}  # of models, by name

    def found(self, spec: recipe.Spec, side: str, pixels: Pixels) -> Optional[np.ndarray]:
        """The embeddings (n, width) of the photographs, rows of NaN where there are none; None where nothing is kept of the model."""
        rows = self.read(spec, side)
        if rows is None:
            return None
        place = {digest.tobytes(): number for number, digest in enumerate(rows.digest)}
        places = np.array([place.get(digest, -1) for digest in pixels.all_digests()], int)
        found = rows.embedding[places]
        found[places < 0] = np.nan
        return found

    def keep(self, spec: recipe.Spec, side: str, pixels: Pixels, embeddings: np.ndarray) -> None:
        """Keeps the embeddings (n, width) of the photographs that could be read, beside those of others. Where there is no room for
        both these stay alone, and where there is none even for them nothing does."""
        fit = np.isfinite(embeddings).all(axis=1)
        row_of = {digest: row for row, digest in enumerate(pixels.digests) if digest and fit[row]}
        new = Rows(np.frombuffer(b"".join(row_of), np.uint8).reshape(-1, kept.DIGEST), embeddings[list(row_of.values())])
        old = self.read(spec, side)
        if old is not None and old.embedding.shape[1] == new.embedding.shape[1]:
            others = np.array([digest.tobytes() not in row_of for digest in old.digest], bool)
            both = Rows(*(np.concatenate(parts) for parts in zip(new, (old.digest[others], old.embedding[others]))))
            new = both if size(both) <= BOUNDS.size else new
        if not len(new.digest):
            return
        if size(new) > BOUNDS.size:
            print(f"{spec.name}: its embeddings are not kept for the next time: {size(new) >> 20} MB, and {BOUNDS.size >> 20} are kept at most", file=sys.stderr)
            return
        content = io.BytesIO()
        np.savez(content, **new._asdict())
        kept.keep(ROOM, self.key(spec, side), content.getvalue(), BOUNDS)

    def read(self, spec: recipe.Spec, side: str) -> Optional[Rows]:
        try:
            content = kept.read(ROOM, self.key(spec, side))
            if content is None:
                return None
            rows = Rows(**arrays(io.BytesIO(content)))
        except (InputError, TypeError, MemoryError):
            return None
        fits = rows.digest.dtype == np.uint8 and rows.embedding.dtype == np.float32 and rows.digest.shape == (len(rows.embedding), kept.DIGEST)
        return rows if fits and rows.embedding.ndim == 2 and len(rows.digest) else None

    def key(self, spec: recipe.Spec, side: str) -> str:
        if spec.name not in self.keys:
            self.keys[spec.name] = self.key_of(spec)
        return hashlib.sha256(f"{self.keys[spec.name]} {side}".encode()).hexdigest()

    def key_of(self, spec: recipe.Spec) -> str:
        """What a model's embeddings of one photograph depend on."""
        packages = {name: version_of(name) for name in PACKAGES}
        told = json.dumps([recipe.plain(spec.model), spec.test_size, spec.train.precision, self.kind, self.device, gpu(self.device), processor(), packages], sort_keys=True)
        code = [Path(__file__).with_name(f"{name}.py") for name in CODE]
        eight_bit = self.weights / f"{spec.name}.8bit.json"
        files = [self.weights / f"{spec.name}.npz", *filter(Path.is_file, [eight_bit] if self.kind == "onnx8" else []), *filter(Path.is_file, code)]
        return hashlib.sha256(told.encode() + b"".join(map(sha256_of, files))).hexdigest()


def size(rows: Rows) -> int:
    """In bytes."""
    return sum(array.nbytes for array in rows)


def gpu(device: str) -> str:
    if device != "cuda":
        return ""
    import torch

    return torch.cuda.get_device_name()
