"""A model in 8 bits: what `solution.quantize` found on photographs, and the graph of integers that follows from it.

    ranges = eight_bit.fitting(spec, weights)              # from WEIGHTS/NAME.8bit.json; None where the model is to run as it is
    graph = eight_bit.quantised(float_graph, ranges)

A file holds for one graph (weights, architecture, packages, code) on processors with the same instructions, and is believed: nothing is
timed here, so the same files give the same bytes. A tensor's range, lowest to highest, is cut into 256 steps; weights have a
scale of their own for every output channel.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Tuple

import numpy as np

from solution import device, recipe
from solution.files import STRICT, Complaints, InputError, progress, read_json
from solution.onnx_engine import INPUT, Ranges, key_of
from solution.spec import require

KINDS = ["Conv", "Add", "Clip", "Relu"]  # of nodes that become integers: a float one between two of them would cost more than it saves
IN_FLOAT = 3  # convolutions, the first ones: of a small network they make half of the error and none of the speed
MOST_BYTES = 1 << 20  # of a NAME.8bit.json; one of 200 layers has 30 thousand
LARGEST = 3e38  # number of 32 bits
INSTRUCTIONS = "avx2", "avx_vnni", "avx512bw", "avx512_vnni", "amx_int8", "asimddp", "i8mm"  # that decide on the speed of 8 bits
AGAIN = "run python -m solution.quantize again"


@dataclass(frozen=True)
class Calibration:
    """What a NAME.8bit.json holds."""

    graph: str  # onnx_engine.key_of
    processor: str
    photographs: int
    faster: float  # float seconds / 8-bit seconds
    mean_change: float  # of the similarities of the photographs
    largest_change: float
    tensors: Tuple[str, ...]
    lowest: Tuple[float, ...]
    highest: Tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = [len(self.tensors), len(self.lowest), len(self.highest)]
        require(len(set(lengths)) == 1, "lengths of tensors, lowest, highest", lengths, "the same number three times")
        for name, lowest, highest in zip(self.tensors, self.lowest, self.highest):
            require(-LARGEST < lowest <= highest < LARGEST, f"range of {name}", (lowest, highest), "two numbers of 32 bits, the lower one first")

    @property
    def ranges(self) -> Ranges:
        return dict(zip(self.tensors, zip(self.lowest, self.highest)))


# The file beside the weights

def path_of(spec: recipe.Spec, weights: Path) -> Path:
    return weights / f"{spec.name}.8bit.json"


def fitting(spec: recipe.Spec, weights: Path, complaints: Complaints = STRICT) -> Optional[Ranges]:
    """What a model of WEIGHTS runs in 8 bits with; None, with a line that says so, where it is not to. Complains of a file that does not fit."""
    path, key = path_of(spec, weights), key_of(spec, weights)
    if not path.is_file():
        print(f"{spec.name}: not in 8 bits, as there is no {path}; python -m solution.quantize writes one where that is faster")
        return None
    try:
        return checked(path, key).ranges
    except InputError as error:
        complaints.add(str(error) if complaints.strict else f"{spec.name}: not in 8 bits: {error}")
        return None


def checked(path: Path, key: str) -> Calibration:
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES} bytes are no calibration; {AGAIN}")
    try:
        found = recipe.built(Calibration, read_json(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a calibration: {' '.join(str(error).split())[:200]}; {AGAIN}") from None
    if found.graph != key:
        raise InputError(f"{path}: belongs to other weights, or was made with other packages; {AGAIN}")
    if found.processor != processor():
        raise InputError(f"{path}: was measured on a processor with other instructions, {found.processor[:100]!r}; {AGAIN}")
    return found


def processor() -> str:
    """Its architecture, and those of its instructions that matter here."""
    words = device.processor().split()
    return " ".join(words[:1] + [name for name in INSTRUCTIONS if name in words])


# Graphs

def ranges(graph: bytes, images: np.ndarray) -> Ranges:
    """What the tensors of a float graph reach on images (n, size, size, 3) uint8."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        path = prepared(graph, Path(folder))
        calibrator = create_calibrator(path, KINDS, str(path.with_name("watched.onnx")), CalibrationMethod.MinMax)
        calibrator.collect_data(Reader(images))
        found = calibrator.compute_data().items()
    return {name: tuple(float(end.item()) for end in tensor.range_value) for name, tensor in sorted(found)}


class Reader:
    """Images as a calibrator asks for them: one at a time, for it holds every tensor of theirs."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = progress(images, "calibrating")

    def get_next(self) -> Optional[Dict[str, np.ndarray]]:
        image = next(self.images, None)
        return None if image is None else {INPUT: image[None]}


def quantised(graph: bytes, ranges: Ranges) -> bytes:
    """A float graph -> the graph in 8 bits. Raises what ONNX raises, where tensors have no range."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    with tempfile.TemporaryDirectory(prefix="quantize-") as folder:
        model = onnx.load(prepared(graph, Path(folder)))
    first = [node.name for node in model.graph.node if node.op_type == "Conv"][:IN_FLOAT]
    known = TensorsData(CalibrationMethod.MinMax, {name: tuple(map(np.float32, ends)) for name, ends in ranges.items()})
    quantizer = QDQQuantizer(model, per_channel=True, reduce_range=False, weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
                             tensors_range=known, nodes_to_quantize=[], nodes_to_exclude=first, op_types_to_quantize=KINDS, extra_options={})
    quantizer.quantize_model()
    return quantizer.model.model.SerializeToString()


def prepared(graph: bytes, folder: Path) -> Path:
    """The graph with what is constant computed and batch normalisations within their convolutions, as a file of `folder`."""
    import onnxruntime

    options, path = onnxruntime.SessionOptions(), folder / "prepared.onnx"
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return path
