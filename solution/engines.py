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

import numpy as np

from solution import recipe
from solution.files import STRICT, Complaints

PACKAGES = "onnxruntime", "onnxscript"  # what runs, and what exports
ENOUGH = 600  # seconds of a time limit from which on the export of a model, a few seconds, is no loss


def chosen(engine: str, device: str, limit: Optional[float] = None, complaints: Complaints = STRICT) -> str:
    """`torch` or `onnx` for auto, torch or onnx; complains where onnx is asked for and cannot be had. For auto prints a line that says why."""
    reason, cure = obstacle(device)
    if engine == "onnx" and reason:
        complaints.add(f"--engine onnx: {reason}; {cure}, or take --engine auto")
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


def made(spec: recipe.Spec, weights: Path, device: str, kind: str):
    """The engine of a model of WEIGHTS; of kind onnx PyTorch steps in where the export fails or is not exact. InputError for weights that do not fit."""
    if kind == "onnx":
        from solution import onnx_engine

        try:
            return onnx_engine.made(spec, weights)
        except onnx_engine.OnnxFailure as error:
            print(f"warning: {spec.name}: PyTorch runs it, as ONNX Runtime could not: {error}", file=sys.stderr)
    from solution import models

    return TorchEngine(spec, models.load(spec, weights), device)


class TorchEngine:
    """PyTorch on one device: float32 on a CPU, half precision by autocast on CUDA, channels last on both."""

    def __init__(self, spec: recipe.Spec, model, device: str) -> None:
        import torch

        self.spec, self.device = spec, torch.device(device)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.width = self.model.width

    def __call__(self, images: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Images (n, size, size, 3) uint8 -> embeddings (n, width) float32, of the mirror images where `mirrored`.

        A batch that the GPU has no memory for is halved.
        """
        import torch

        try:
            return self.embeddings(images, mirrored)
        except RuntimeError as error:
            if "out of memory" not in str(error) or len(images) == 1:
                raise
            torch.cuda.empty_cache()
            print(f"warning: {self.spec.name}: no memory for {len(images)} images at once; trying half as many", file=sys.stderr)
            half = len(images) // 2
            return np.concatenate([self(images[:half], mirrored), self(images[half:], mirrored)])

    def embeddings(self, images: np.ndarray, mirrored: bool) -> np.ndarray:
        import torch

        from solution.models import normalised

        with torch.no_grad():
            pixels = normalised(torch.from_numpy(images).to(self.device), self.spec.model)
            pixels = pixels.flip(3) if mirrored else pixels
            if self.device.type == "cuda":
                # torch 1.8 knows only the second of the two, today's torch deprecates it
                with torch.autocast("cuda") if hasattr(torch, "autocast") else torch.cuda.amp.autocast():
                    return self.model(pixels).float().cpu().numpy()
            return self.model(pixels).numpy()
