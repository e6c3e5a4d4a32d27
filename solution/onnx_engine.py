"""ONNX Runtime on the CPU: a model is exported once, and its graph kept by the content of its weights.

    engine = made(spec, weights)

Reads WEIGHTS/NAME.npz. Keeps graphs in $XDG_CACHE_HOME/whale-ranking/onnx, by default below ~/.cache. Expect 3 to 15 s for the
export of a model, and a tenth of a second for one whose graph is there: then neither the model nor timm is loaded.
"""

import contextlib
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Tuple

import numpy as np

from solution import kept, recipe
from solution.device import cores
from solution.files import InputError

INPUT, OUTPUT = "images", "embeddings"  # of a graph
TOGETHER = 100_000  # pixels that a thread runs at once: activations of more leave its cache, which costs a quarter of the speed
ROOM, BOUNDS = "onnx", kept.Bounds(files=64, size=4 << 30)

Ranges = Dict[str, Tuple[float, float]]  # tensor -> its lowest and highest value


class OnnxFailure(RuntimeError):
    """ONNX Runtime or the exporter failed; a RuntimeError as PyTorch's failures are."""


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Their exceptions have no base of their own; the first cause says most."""
    try:
        yield
    except Exception as error:
        while error.__cause__:
            error = error.__cause__
        raise OnnxFailure(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from None


class OnnxEngine:
    """Each thread runs a few images of its own. So no thread waits for another one within a layer, spinning on a core that a decoder
    needs, and any number of threads and images gives the same bytes."""

    def __init__(self, spec: recipe.Spec, graph: bytes, threads: int) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read on import; else it tells its maker what runs here
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.spec, self.width = spec, self.session.get_outputs()[0].shape[1]
        self.together = max(1, round(TOGETHER / spec.test_size**2))
        self.threads, self.pool = threads, ThreadPoolExecutor(threads)

    def __call__(self, images: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Images (n, size, size, 3) uint8 -> embeddings (n, width) float32, of the mirror images where `mirrored`."""
        together = min(self.together, -(-len(images) // self.threads))
        parts = [images[start : start + together] for start in range(0, len(images), together)]
        return np.concatenate(list(self.pool.map(self.embeddings, parts, repeat(mirrored))))

    def embeddings(self, images: np.ndarray, mirrored: bool) -> np.ndarray:
        with failures():
            return self.session.run([OUTPUT], {INPUT: np.ascontiguousarray(images[:, :, ::-1] if mirrored else images)})[0]


def made(spec: recipe.Spec, weights: Path, ranges: Optional[Ranges] = None) -> OnnxEngine:
    """The engine of a model of WEIGHTS, with a thread a core; in 8 bits where tensors have `ranges` (eight_bit.py).

    InputError for weights that do not fit, OnnxFailure.
    """
    graph = graph_of(spec, weights)
    with failures():
        return OnnxEngine(spec, in_8_bits(graph, ranges) if ranges else graph, cores())


def graph_of(spec: recipe.Spec, weights: Path) -> bytes:
    """A model of WEIGHTS as its graph; one that is not exact is told as OnnxFailure, and not tried again."""
    graph = once(key_of(spec, weights), lambda: exported(spec, weights))
    if not graph:
        raise OnnxFailure("its graph does not give PyTorch's embeddings")
    return graph


def exported(spec: recipe.Spec, weights: Path) -> bytes:
    from solution import models

    model = models.load(spec, weights)
    print(f"{spec.name}: exporting it for ONNX Runtime, once for these weights", file=sys.stderr)
    with failures():
        from solution import onnx_export

        return onnx_export.exported(spec, model)


# Graphs that are kept

def in_8_bits(graph: bytes, ranges: Ranges) -> bytes:
    from solution import eight_bit

    told = json.dumps([sorted(ranges.items()), version_of("onnx"), version_of("onnxruntime")])
    parts = told.encode(), hashlib.sha256(graph).digest(), sha256_of(Path(__file__).with_name("eight_bit.py"))
    return once(hashlib.sha256(b"".join(parts)).hexdigest(), lambda: eight_bit.quantised(graph, ranges))


def once(key: str, make: Callable[[], bytes]) -> bytes:
    """What is kept under that key, else what `make` makes, kept from then on."""
    graph = kept.read(ROOM, key)
    if graph is None:
        graph = make()
        kept.keep(ROOM, key, graph, BOUNDS)
    return graph


def key_of(spec: recipe.Spec, weights: Path) -> str:
    """What a graph depends on: arrays, architecture, image size, packages, and the code that exports."""
    packages = {name: version_of(name) for name in ("torch", "timm", "onnx", "onnxscript", "onnxruntime")}
    told = json.dumps([recipe.plain(spec.model), spec.test_size, packages], sort_keys=True)
    files = [weights / f"{spec.name}.npz", *(Path(__file__).with_name(name) for name in ("models.py", "onnx_export.py"))]
    return hashlib.sha256(told.encode() + b"".join(map(sha256_of, files))).hexdigest()


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # installed by another name, as onnxruntime-gpu is
        return ""


def sha256_of(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
