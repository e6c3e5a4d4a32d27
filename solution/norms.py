"""Batch normalisation over the whole batch, where several processes have a part of it each.

    trainee = shared_on_gpu(trainee)                    # torch's own SyncBatchNorm, which a CPU has not
    with WholeBatch(rank, world): loss = trainee(...)   # the same on a CPU

A process alone with four images of 32 would normalise by four, and the model become another one, and a worse one, with every GPU that is added.
So mean and variance are those of all processes' images (https://arxiv.org/abs/1711.07240, cross-GPU batch normalisation), as in one process.
"""

from typing import Tuple

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def shared_on_gpu(module: nn.Module) -> nn.Module:
    from timm.layers import convert_sync_batchnorm  # which knows timm's layers besides torch's

    return convert_sync_batchnorm(module)


class WholeBatch(TorchFunctionMode):
    """Within it, torch's batch normalisation in training takes in the images of all processes, of which each has equally many."""

    def __init__(self, rank: int, world: int) -> None:
        super().__init__()
        self.own, self.world = torch.eye(world)[rank], world

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (self.batch_norm if func is functional.batch_norm else func)(*args, **(kwargs or {}))

    def batch_norm(self, images: torch.Tensor, mean_so_far: torch.Tensor, variance_so_far: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor,
                   training: bool, momentum: float, eps: float) -> torch.Tensor:
        """As torch.nn.functional.batch_norm: images (n, channels, ...)."""
        if not training:
            return functional.batch_norm(images, mean_so_far, variance_so_far, weight, bias, training, momentum, eps)
        mean, variance = self.moments(images)
        count = images.numel() // len(mean) * self.world
        mean_so_far.lerp_(mean.detach(), momentum)
        variance_so_far.lerp_(variance.detach() * (count / (count - 1)), momentum)
        scale = torch.rsqrt(variance + eps) * weight
        shape = [1, -1] + [1] * (images.ndim - 2)
        return images * scale.view(shape) + (bias - mean * scale).view(shape)

    def moments(self, images: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance (channels,) over the images of all processes: the mean variance within a process and the variance between their means."""
        variance, mean = torch.var_mean(images, [0, *range(2, images.ndim)], unbiased=False)
        means, variances = Sum.apply(self.own[:, None] * torch.stack([mean, variance])[:, None]).unbind()  # (world, channels) each
        return means.mean(dim=0), variances.mean(dim=0) + means.var(dim=0, unbiased=False)


class Sum(torch.autograd.Function):
    """The sum over all processes; what flows back is summed likewise."""

    @staticmethod
    def forward(ctx, values: torch.Tensor) -> torch.Tensor:
        values = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradients: torch.Tensor) -> torch.Tensor:
        return Sum.forward(ctx, gradients)
