"""What runs a model: arrays of images in, embeddings of the images or of their mirror images out.

    engine = made(spec, weights, "cpu", chosen("auto", "cpu"))
    embeddings = engine(images, mirrored=True)

An engine has its model's `spec` and the `width` of its embeddings. Similarities by two engines agree within 1e-4. Which one runs
follows from the device, the installed packages and the time limit, never from timing: the same command on the same machine gives
the same bytes. Large libraries are imported where they are used: a model that ONNX Runtime has run before needs no timm.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Optional, Tuple

from solution import recipe
from solution.files import STRICT, Complaints

PACKAGES = "onnxruntime", "onnxscript"  # what runs, and what exports
KINDS = "torch", "onnx", "onnx8"  # the last one in 8 bits where solution.quantize found that faster
ENOUGH = 600  # seconds of a time limit from which on the export of a model, a few seconds, is no loss


def chosen(engine: str, device: str, limit: Optional[float] = None, complaints: Complaints = STRICT) -> str:
    """One of KINDS for auto or one of KINDS; complains where ONNX Runtime is asked for and cannot be had. For auto prints a line that
    says why it is `torch` or `onnx`: that a model answers a little differently in 8 bits is for the user to want."""
    reason, cure = obstacle(device)
    if engine in ("onnx", "onnx8") and reason:
        complaints.add(f"--engine {engine}: {reason}; {cure}, or take --engine auto")
    if engine == "auto":
        hurry = limit is not None and limit < ENOUGH
        why = reason or (f"a time limit below {ENOUGH} s leaves no time to export" if hurry else "")
        engine = "torch" if why else "onnx"
        print(f"engine: {engine} ({why or 'on a CPU, with ONNX Runtime installed'})")
    return "torch" if reason else engine


def obstacle(device: str) -> Tuple[str, str]:
    """What keeps ONNX Runtime from running here, and what helps; empty where nothing does."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if device != "cpu":
        return "ONNX Runtime is used on a CPU only", "add --device cpu"
    return (f"{' and '.join(missing)} not installed", f"python -m pip install {' '.join(PACKAGES)}") if missing else ("", "")


def made(spec: recipe.Spec, weights: Path, device: str, kind: str, complaints: Complaints = STRICT):
    """The engine of a model of WEIGHTS; PyTorch steps in where the export for ONNX Runtime fails or is not exact, and 32 bits where those of
    8 are not faster, which is said, or do not fit, of which it complains. InputError for weights that do not fit."""
    if kind in ("onnx", "onnx8"):
        from solution import onnx_engine

        try:
            return onnx_engine.made(spec, weights, ranges_of(spec, weights, complaints) if kind == "onnx8" else None)
        except onnx_engine.OnnxFailure as error:
            print(f"warning: {spec.name}: PyTorch runs it, as ONNX Runtime could not: {error}", file=sys.stderr)
    from solution import models, torch_engine

    return torch_engine.TorchEngine(spec, models.load(spec, weights), device)


def ranges_of(spec: recipe.Spec, weights: Path, complaints: Complaints):
    from solution import eight_bit  # which is not packed: nothing asks for 8 bits there

    return eight_bit.fitting(spec, weights, complaints)
