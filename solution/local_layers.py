"""The layers of a network that make its first feature map, and what they are given of photographs: all that lies below them, computed once.

    lower = Lower(model, spec)
    given = lower.of(photographs, mirrored, stop)       # (n, ...) float16; lower.part makes the map of it
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Optional, Tuple

import numpy as np
import torch
from torch import nn

from solution import recipe
from solution.device import decoders
from solution.files import progress
from solution.images import Photographs
from solution.models import EmbeddingModel, normalised, path_of
from solution.places import inner

BATCH = 16


class Reached(Exception):
    """A network came to the layers of interest; holds what they are given."""


class Lower:
    """A model up to the layers that make its first feature map: what they are given of photographs, computed once."""

    def __init__(self, model: EmbeddingModel, spec: recipe.Spec) -> None:
        self.spec, self.backbone = spec, model.eval().to(memory_format=torch.channels_last).backbone
        self.device = next(model.parameters()).device
        size = spec.predict.local_size
        trial = torch.linspace(-1, 1, 3 * size * size, device=self.device).view(1, 3, size, size)
        self.prefix, self.part = made_by(self.backbone, trial)
        self.bytes = 2 * self.given(trial).numel()

    def given(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, size, size), normalised, to what the layers are given (n, ...) as float16."""

        def reached(part, given):
            raise Reached(given[0])

        if not self.prefix:
            with torch.no_grad():
                return self.backbone(images)[0].half()
        hook = self.part.register_forward_pre_hook(reached)
        try:
            with torch.no_grad():
                self.backbone(images)
        except Reached as stopped:
            return stopped.args[0].half()
        finally:
            hook.remove()

    def of(self, photographs: Photographs, mirrored: np.ndarray, stop: Callable[[], bool]) -> Optional[torch.Tensor]:
        """What the layers are given of all photographs, of those `mirrored` (n,) of their mirror images: a tensor (n, ...); None where it was stopped."""
        found, square = [], lambda number: photographs[number][0][:, :: -1 if mirrored[number] else 1]
        with ThreadPoolExecutor(decoders()) as threads:
            for start in progress(range(0, len(photographs), BATCH), f"{self.spec.name}: places"):
                if stop():
                    return None
                squares = np.stack(list(threads.map(square, range(start, min(start + BATCH, len(photographs))))))
                found.append(self.given(normalised(torch.from_numpy(squares).to(self.device), self.spec.model)).cpu())
        return torch.cat(found)

    def cells(self, given: torch.Tensor) -> torch.Tensor:
        """The cells (n, cells, c) float16 of photographs, by what the layers are given of them (n, ...), as these are now."""
        with torch.no_grad():
            return torch.cat([inner(self.part(some.to(self.device).float())).half().cpu() for some in given.split(BATCH)])


def made_by(backbone: nn.Module, images: torch.Tensor) -> Tuple[str, nn.Module]:
    """The layers that make a backbone's first feature map, and what their names begin with there; nn.Identity() and nothing where no module of timm's
    makes that very map of `images`."""
    path, seen = path_of(backbone, backbone.feature_info.module_name()[0]), []
    if path is not None:
        hook = backbone.get_submodule(path).register_forward_hook(lambda part, given, result: seen.append(result))
        with torch.no_grad():
            map_of = backbone(images)[0]
        hook.remove()
        if len(seen) == 1 and torch.is_tensor(seen[0]) and torch.equal(seen[0], map_of):
            return path + ".", backbone.get_submodule(path)
    return "", nn.Identity()
