"""Whether a training is still one: what is told here is told before a checkpoint holds it."""

import math
from typing import Iterable, Optional

import torch

LEAST_SCALE = 2.0**-10  # of a loss in half precision; it begins at 2^16, halves with every overflow, and doubles after 2,000 steps without one


def trouble(loss: float, weights: Iterable[torch.Tensor], optimiser: torch.optim.Optimizer, scaler: Optional[torch.amp.GradScaler]) -> str:
    """What is no longer a number, or why nothing is learned; empty where all is well. The loss of a step is that of the weights before it,
    and moments that overflow leave weights as they are for ever: so all three are looked at."""
    moments = [values[name] for values in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not finite(weights):
        return "weights are no longer numbers"
    if not finite(moments):
        return "Adam's moments are no longer numbers"
    return "every step overflows half precision" if scaler and scaler.get_scale() < LEAST_SCALE else ""


def finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all are numbers; a GPU is waited for once."""
    told = [tensor.isfinite().all() for tensor in tensors]
    return not told or bool(torch.stack(told).all())
