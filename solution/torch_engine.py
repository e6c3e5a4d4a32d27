"""PyTorch as an engine: on a CPU in equal small parts, on a GPU in half precision.

    engine = TorchEngine(spec, models.load(spec, weights), "cuda")
    plain, mirror = engine.both(images)

Runs on torch 1.8 as well as on today's.
"""

import copy
import math
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Sequence

import numpy as np
import torch
from torch import nn

from solution import recipe
from solution.models import EmbeddingModel, normalised

TOGETHER = 200_000  # pixels of a part on a CPU: activations of more leave the processor's cache
LEAST, MOST = 4, 32  # images of a part
VECTOR = 32  # numbers; half of it on processors without AVX-512


class TorchEngine:
    """One model on one device. Every part has the same number of images, the last one filled up with the first image again.

    On a CPU each thread runs parts of its own, and no layer is divided among threads. PyTorch takes the numbers of a layer VECTOR at a time,
    and computes those that are left over by other instructions; of LEAST images and channels in eights none are. So an
    embedding depends neither on the images that share its batch nor on the number of threads, and memory stays bounded.
    """

    kind = "torch"

    def __init__(self, spec: recipe.Spec, model: EmbeddingModel, device: str) -> None:
        self.spec, self.device = spec, torch.device(device)
        self.width, self.gpu = model.width, self.device.type == "cuda"
        self.model = (model if self.gpu else with_even_activations(model)).to(self.device, memory_format=torch.channels_last)
        self.together = MOST if self.gpu else images_together(spec.test_size)
        self.pool = None if self.gpu else threads_of_one()

    def __call__(self, images: np.ndarray, mirrored: bool = False) -> np.ndarray:
        """Images (n, size, size, 3) uint8 -> embeddings (n, width) float32, of the mirror images where `mirrored`."""
        return self.sides(images, [mirrored])[0]

    def both(self, images: np.ndarray) -> np.ndarray:
        """The embeddings (2, n, width) of images and mirror images, on a GPU by the same batches."""
        return self.sides(images, [False, True])

    def sides(self, images: np.ndarray, mirrored: Sequence[bool]) -> np.ndarray:
        """(len(mirrored), n, width); a part that the GPU has no memory for is halved, from then on."""
        starts = range(0, len(images), self.together)
        parts = [filled(images[start : start + self.together], self.together) for start in starts]
        each = self.pool.map if self.pool else map
        try:
            found = list(each(lambda part: self.embeddings(part, mirrored), parts))
        except RuntimeError as error:
            if "out of memory" not in str(error) or self.together == 1:
                raise
            print(f"warning: {self.spec.name}: no memory for {self.together} images at once; trying half as many", file=sys.stderr)
            self.together //= 2
            torch.cuda.empty_cache()
            return self.sides(images, mirrored)
        return torch.cat(found, dim=1)[:, : len(images)].float().cpu().numpy()

    def embeddings(self, images: np.ndarray, mirrored: Sequence[bool]) -> torch.Tensor:
        """Of one part (n, size, size, 3): (len(mirrored), n, width), on the device; the GPU may still be at it."""
        with torch.no_grad():
            pixels = normalised(self.uploaded(images), self.spec.model)
            turned = [pixels.flip(3) if mirror else pixels for mirror in mirrored]
            if not self.gpu:
                return torch.stack([self.model(side) for side in turned])
            with half_precision(self.spec.train.precision):
                return self.model(torch.cat(turned)).reshape(len(turned), len(images), -1)

    def uploaded(self, images: np.ndarray) -> torch.Tensor:
        """As bytes, a quarter of the floats; from pinned memory the copy does not wait for the model before it."""
        tensor = torch.from_numpy(images)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.gpu else tensor


class Even(nn.Module):
    """An activation that is given a multiple of VECTOR numbers, where the channels of squeeze and excitation make none."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        lacking = -maps.numel() % VECTOR
        if not lacking:
            return self.activation(maps)
        return self.activation(nn.functional.pad(maps.reshape(-1), (0, lacking)))[:-lacking].reshape(maps.shape)


def with_even_activations(model: nn.Module) -> nn.Module:
    """A copy, since the model may be one that is being trained."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if "activation" in type(child).__module__ and not list(child.parameters()):  # PyTorch's and timm's, but no attention
                setattr(parent, name, Even(child))
    return model


def images_together(size: int) -> int:
    """A power of two of images that are TOGETHER pixels or a few less, LEAST to MOST."""
    return min(MOST, max(LEAST, 2 ** int(math.log2(max(1, TOGETHER / size**2)))))


def filled(images: np.ndarray, count: int) -> np.ndarray:
    """`count` images: these, and the first one as often as some are lacking."""
    return np.concatenate([images, np.repeat(images[:1], count - len(images), axis=0)])


def half_precision(wanted: str):
    """The autocast of a GPU: bfloat16 where the recipe trains in it and the GPU has it, else float16."""
    if not hasattr(torch, "autocast"):
        return torch.cuda.amp.autocast()  # torch 1.8 knows only this one, today's torch deprecates it
    return torch.autocast("cuda", torch.bfloat16 if wanted == "bf16" and torch.cuda.is_bf16_supported() else torch.float16)


def threads_of_one() -> ThreadPoolExecutor:
    """As many threads as torch has, each of which runs a layer by itself. They are all there before torch gets its number back."""
    count = torch.get_num_threads()
    pool, there = ThreadPoolExecutor(count, initializer=alone), threading.Barrier(count + 1)
    started = [pool.submit(there.wait) for _ in range(count)]
    there.wait()
    torch.set_num_threads(count)
    return pool


def alone() -> None:
    torch.get_num_threads()  # a thread takes the process's number when it first asks, so before it is given another
    torch.set_num_threads(1)
