"""How fast each part of a model learns, and when."""

import math
from typing import Collection, Dict, List, Set, Tuple

import torch
from torch import nn

from solution import recipe
from solution.files import InputError
from solution.models import path_of

FIRST, LAST = 1 / 25, 1 / 250_000  # of the full learning rate, at both ends of one cycle
MOMENTUM = 0.95, 0.85  # at the ends and at the top of one cycle; Smith, Super-convergence, as fastai has it
BETA = 0.9  # Adam's first, where it does not move


def factor(epoch: int, train: recipe.Train) -> float:
    """The share of the full learning rate in an epoch 0 .. E-1, linear from `final_factor` to 1 over w = warmup * E epochs,
    then a half cosine: f + (1 - f) e/w for e < w, else f + (1 - f) (1 + cos(pi (e - w)/(E - w)))/2. w is not rounded."""
    ramp, low = train.warmup * train.epochs, train.final_factor
    if epoch < ramp:
        return low + (1 - low) * epoch / ramp
    return low + (1 - low) * (1 + math.cos(math.pi * (epoch - ramp) / (train.epochs - ramp))) / 2


def one_cycle(done: float, warmup: float) -> Tuple[float, float]:
    """The share of the full learning rate and the momentum when the share `done` of the steps is behind: half a cosine from 1/25 up
    to 1 over `warmup`, then half a cosine down to 1/250,000; the momentum goes the other way."""
    if done < warmup:
        return between(FIRST, 1, done / warmup), between(*MOMENTUM, done / warmup)
    rest = (done - warmup) / (1 - warmup)
    return between(1, LAST, rest), between(*MOMENTUM[::-1], rest)


def between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def rates(epoch: int, step: int, steps: int, train: recipe.Train) -> Tuple[List[float], float]:
    """The learning rates of the three groups of `optimiser_for` and Adam's first beta in one of the `steps` of an epoch."""
    frozen = epoch < train.frozen_epochs
    late = train.frozen_learning_rate if frozen else train.learning_rate
    full = [late] * 3 if frozen else [train.early_learning_rate or late, late, train.head_learning_rate]
    begun, epochs = (0, train.frozen_epochs) if frozen else (train.frozen_epochs, train.epochs)
    share, beta = 1.0 if frozen else factor(epoch - begun, train), BETA
    if train.schedule == "one_cycle":
        share, beta = one_cycle(((epoch - begun) * steps + step) / (epochs * steps), train.warmup)
    return [rate * share for rate in full], beta


def optimiser_for(backbone: nn.Module, others: List[nn.Module], train: recipe.Train) -> torch.optim.AdamW:
    """AdamW over three groups: the first half of the backbone's layers, its second half, and all else."""
    layers = [list(layer.parameters(recurse=False)) for layer in backbone.modules()]
    layers = [layer for layer in layers if layer]
    half = len(layers) // 2
    early, late = ([parameter for layer in part for parameter in layer] for part in (layers[:half], layers[half:]))
    groups: List[Dict] = [{"params": early}, {"params": late}, {"params": [parameter for module in others for parameter in module.parameters()]}]
    return torch.optim.AdamW(groups, betas=(BETA, train.beta2), weight_decay=train.weight_decay)


def freeze(backbone: nn.Module, frozen: bool, always: Collection[nn.Module] = ()) -> None:
    """Freezes the backbone, or not; its batch normalisation learns in either case. The layers of `always` stay as they are whatever the epoch, batch
    normalisation and its running statistics too; forwards they cost what they did, backwards nothing."""
    for module in backbone.modules():
        module.training = module.training and module not in always
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(module not in always and (not frozen or isinstance(module, nn.modules.batchnorm._BatchNorm)))


def lowest(backbone: nn.Module, stages: int) -> Set[nn.Module]:
    """The layers that make a backbone's first feature maps: those registered up to the module that makes the last of them, as timm's networks run.
    InputError where timm does not tell which that is."""
    if not stages:
        return set()
    known = backbone.feature_info.info
    if stages >= len(known):
        raise InputError(f"train.frozen_stages is {stages}; this backbone has {len(known)} feature maps, and the last is to learn")
    path = path_of(backbone, known[stages - 1]["module"])
    if path is None:
        raise InputError(f"train.frozen_stages is {stages}, but timm does not tell which layers of this backbone make a feature map; set it to 0")
    top, layers = backbone.get_submodule(path), list(backbone.modules())
    around = {module for module in layers if module is not top and top in set(module.modules())}
    return set(layers[: 1 + max(map(layers.index, top.modules()))]) - around
