"""What a model is trained against: heads turn embeddings and labels into logits for a loss, in float32 on any device."""

import math

import torch
from torch import nn
from torch.nn import functional

from solution import recipe
from solution.files import InputError


def head_for(width: int, counts: torch.Tensor, head: recipe.Head) -> nn.Module:
    """The head of one part of the embedding, `width` numbers; `counts` (classes,) are images per class in training."""
    if head.kind == "linear":
        return Linear(width, len(counts), head.dropout)
    return GaussianMixture(width, counts, head) if head.kind == "lgm" else SubCentreMargin(width, counts, head)


def dynamic_margins(counts: torch.Tensor, head: recipe.Head) -> torch.Tensor:
    """The margin of each class, m(n) = margin_scale * n ** margin_power + margin_offset, n its training images, of which it counts one at least.

    Small classes are harder and get larger margins. Ha et al., Google Landmark Recognition 2020 Competition Third Place Solution.
    InputError where a margin is no number.
    """
    margins = head.margin_scale * counts.float().clamp(min=1) ** head.margin_power + head.margin_offset
    for count in counts[~margins.isfinite()][:1].tolist():
        raise InputError(f"head.margin_scale, margin_power and margin_offset: the margin of a class of {count} images is beyond float32; bring them nearer to 0")
    return margins


class Linear(nn.Sequential):
    """Dropout -> linear: embeddings (n, width) to logits (n, classes), without looking at the labels."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__(nn.Dropout(dropout), nn.Linear(width, classes))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return super().forward(embeddings.float())


class SubCentreMargin(nn.Module):
    """Embeddings (n, width) and labels (n,) to logits (n, classes).

    The cosine of a class is the largest over its sub-centres (Deng et al., Sub-center ArcFace). That of the true class is lowered
    by the class's margin m, as an angle (`arcface`, in radians) or as it is (`cosface`, Wang et al.); all times `scale`. Label -1
    is of no class.
    """

    def __init__(self, width: int, counts: torch.Tensor, head: recipe.Head) -> None:
        super().__init__()
        self.scale, self.sub_centres, self.lowered = head.scale, head.sub_centres, LOWERED[head.kind]
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(len(counts) * head.sub_centres, width).uniform_(-bound, bound))
        self.register_buffer("margins", dynamic_margins(counts, head))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = functional.linear(functional.normalize(embeddings.float()), functional.normalize(self.weight.float()))
            cosines = cosines.view(len(embeddings), -1, self.sub_centres).amax(dim=2)
            return self.scale * torch.where(true_class(cosines, labels), self.lowered(cosines, self.margins), cosines)


def true_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, classes), True at each row's label."""
    return torch.arange(logits.shape[1], device=labels.device) == labels[:, None]


def with_angular_margin(cosine: torch.Tensor, margin: torch.Tensor) -> torch.Tensor:
    """cos(theta + m) where theta + m stays below pi, else cos(theta) - m sin(pi - m)."""
    # The square root has no finite derivative at 0; below 1e-7 float32 has no digits of 1 - cos^2 left anyway.
    sine = (1 - cosine**2).clamp(min=1e-7).sqrt()
    shifted = cosine * torch.cos(margin) - sine * torch.sin(margin)
    return torch.where(cosine > torch.cos(math.pi - margin), shifted, cosine - margin * torch.sin(math.pi - margin))


LOWERED = {"arcface": with_angular_margin, "cosface": torch.sub}


class GaussianMixture(nn.Module):
    """Embeddings (n, width) and labels (n,) to logits -||x - c||^2 / 2 (n, classes), for the true class times 1 + m with its margin m.

    Wan et al., Rethinking Feature Distribution for Loss Functions in Image Classification (LGM), with unit covariances.
    """

    def __init__(self, width: int, counts: torch.Tensor, head: recipe.Head) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(counts), width) / math.sqrt(width))
        self.register_buffer("margins", dynamic_margins(counts, head))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            x, centres = embeddings.float(), self.weight.float()
            squared = (x**2).sum(1, keepdim=True) + (centres**2).sum(1) - 2 * x @ centres.T
            return -squared / 2 * torch.where(true_class(squared, labels), 1 + self.margins, torch.ones_like(self.margins))
