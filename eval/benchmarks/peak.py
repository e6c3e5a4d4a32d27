"""How fast this machine multiplies in float32: the limit that a network's forward pass is compared with.

    peak.about, peak()      # of workers.Worker("eval.benchmarks.peak"): who multiplies, and the GFLOP/s of each in one round

Large squares by numpy's BLAS, PyTorch and ONNX Runtime, and a convolution of 1 x 1 by ONNX Runtime, whichever are installed: the
largest rate is the nearest to the arithmetic units' own. All with as many threads as PyTorch takes.
"""

import importlib.util
import os
import time
from typing import Callable

import numpy as np

from eval.benchmarks.workers import serve

SIDE, CALLS = 2048, 4  # 17 GFLOP a product, a tenth of a second on two cores; the best of so many counts
IMAGES, CHANNELS, PLACES = 16, 256, 56 * 56  # of the convolution: 6.6 GFLOP

Multiplication = tuple[float, Callable[[], object]]  # its floating-point operations, and the call


def candidates() -> tuple[dict[str, Multiplication], int]:
    """Who multiplies, and with how many threads."""
    import torch

    random, flop, threads = np.random.default_rng([0]), 2 * SIDE**3, torch.get_num_threads()
    one, other = random.standard_normal((2, SIDE, SIDE), np.float32)
    found = {"numpy": (flop, lambda: one @ other), "torch.mm": (flop, lambda pair=(torch.from_numpy(one), torch.from_numpy(other)): torch.mm(*pair))}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        images = random.standard_normal((IMAGES, CHANNELS, PLACES, 1), np.float32)
        filters = random.standard_normal((CHANNELS, CHANNELS, 1, 1), np.float32)
        found["onnxruntime MatMul"] = flop, node("MatMul", one, other, threads)
        found["onnxruntime Conv"] = 2 * IMAGES * PLACES * CHANNELS**2, node("Conv", images, filters, threads)
    return found, threads


def node(kind: str, data: np.ndarray, weight: np.ndarray, threads: int) -> Callable[[], object]:
    """A call of one operator of ONNX Runtime, `weight` being part of its graph as a network's are."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read on import; else it tells its maker what runs here
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("data", data.shape), ("product", None))]
    graph = helper.make_graph([helper.make_node(kind, ["data", "weight"], ["product"])], kind, ends[:1], ends[1:],
                              [numpy_helper.from_array(weight, "weight")])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"data": data})


def rate(flop: float, call: Callable[[], object]) -> float:
    """GFLOP/s of the fastest of some calls."""
    took = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return flop / min(took) / 1e9


if __name__ == "__main__":
    found, threads = candidates()
    serve({"candidates": list(found), "threads": threads}, lambda: [rate(*candidate) for candidate in found.values()])
