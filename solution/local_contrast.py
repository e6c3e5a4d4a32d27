"""What tells individuals apart, cell by cell: the layers that make a feature map, and the projection of its channels, trained until photographs of
one animal have the most in common.

    learning = Learning(part, prefix, whitening, seed, device)
    done = learning.run(given, cells, groups, whales, stop)        # False where stop() said so; the next run goes on from there

Each step draws PAIRS animals and of each two photographs from the same side. The evidence of places.py between every first and every second
photograph, one way (what cells of the first find in the second), in units of its spread as local.weighed takes it, is to be the largest for
the animal itself: a softmax over the second photographs and its cross-entropy (the N-pair loss of Sohn, Improved deep metric learning with multi-class N-pair loss objective, NeurIPS
2016, with evidence in the place of a dot product). The threshold on cosines is rounded off, so that cells below it learn too, and a step
looks at CELLS cells of each first photograph. In the first ALONE steps only the projection learns, which
takes seconds; then both do. What lies below those layers stays as it is, so what they are given of a photograph is computed once, and a step costs a fraction
of one through the whole network.
"""

import copy
import math
import sys
from typing import Callable, Dict, List, Tuple

import numpy as np
import torch
from torch import nn

from solution.files import Failure, progress
from solution.places import ALIKE, Sight, beyond, inner

ALONE = 200  # first steps, in which the projection learns alone
STEPS = 500
PAIRS = 16  # animals a step
LEAST = 4  # animals with two photographs from one side, without which nothing is learned
CELLS = 128  # of each first photograph
LEARNING_RATE = 3e-4  # of the layers, as AdamW's
PROJECTION_RATES = 0.1, 0.03  # of a number of the projection, in units of their mean size: alone, and with the layers
WARMUP = 40  # of the steps with the layers; the rates rise from 0. In both parts they fall to 0 as half a cosine
ROUND = 20.0  # softplus(ROUND * x) / ROUND in the place of max(0, x)
SHARPNESS = 2.0  # of the softmax, over evidence in units of its spread


class Learning:
    """A training of a Sight that can be interrupted: `state` is everything that changes, and `resume` takes it back."""

    def __init__(self, part: nn.Module, prefix: str, whitening: Sight, seed: int, device: torch.device) -> None:
        """`part`: the layers that make the map (nn.Identity() where they stay as they are), whose names begin with `prefix` in their backbone. They are copied."""
        self.part, self.prefix, self.whitening, self.seed, self.device = copy.deepcopy(part).to(device).eval(), prefix, whitening, seed, device
        self.mean = torch.from_numpy(whitening.mean).to(device)
        self.projection = torch.tensor(whitening.projection, device=device, requires_grad=True)
        groups = [{"params": [self.projection], "rates": [rate * float(np.abs(whitening.projection).mean()) for rate in PROJECTION_RATES]}]
        layers = list(self.part.parameters())
        groups += [{"params": layers, "rates": [0.0, LEARNING_RATE]}] * bool(layers)
        for group in groups:
            for parameter in group["params"]:
                parameter.requires_grad_()
        self.optimiser = torch.optim.AdamW(groups)
        self.step, self.steps = 0, STEPS if layers else ALONE

    def run(self, given: torch.Tensor, cells: torch.Tensor, groups: np.ndarray, whales: np.ndarray, stop: Callable[[], bool]) -> bool:
        """Trains on photographs, by what the layers are given of them, (n, ...) float16, and by the cells that these, as they were, make of it (n, cells, c).
        groups (n,): a number for each animal and side; whales (n,): for each animal.

        Nothing is learned where fewer than LEAST animals have a pair. False where `stop()` said so before the last step.
        """
        pairs = [group for group in np.split(np.argsort(groups, kind="stable"), np.flatnonzero(np.diff(np.sort(groups))) + 1) if len(group) > 1]
        animals = len({whales[group[0]] for group in pairs})
        if animals < LEAST:
            print(f"local evidence: {animals} individuals have two photographs from one side, and it takes {LEAST} to learn; its channels are whitened only", file=sys.stderr)
            return True
        for _ in progress(range(self.step, self.steps), "local evidence: learning"):
            if stop():
                return False
            random = np.random.default_rng((self.seed, self.step))
            one, other = drawn(pairs, whales, random)
            seen = cells if self.step < ALONE else given
            self.learn(seen[one + other].to(self.device).float(), random)
        return True

    def learn(self, seen: torch.Tensor, random: np.random.Generator) -> None:
        """One step on the first photographs and, after them, the second ones: their cells, or what the layers are given."""
        cells = seen if self.step < ALONE else inner(self.part(seen))
        own, others = nn.functional.normalize((cells - self.mean) @ self.projection, dim=2).chunk(2)
        looked_at = [torch.from_numpy(random.permutation(cells.shape[1])[:CELLS]).to(self.device) for _ in own]
        distant = beyond(cells.shape[1]).to(self.device)
        loss = contrast(torch.stack([in_common(photograph[some], others, distant[:, some]) for photograph, some in zip(own, looked_at)]))
        if not torch.isfinite(loss):
            raise Failure(f"local evidence: its loss is no number any more in step {self.step + 1}; train the model with a lower train.learning_rate, or with predict.local_size null")
        for group in self.optimiser.param_groups:
            group["lr"] = group["rates"][self.step >= ALONE] * share(self.step)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.step += 1

    @property
    def learned(self) -> Dict[str, nn.Parameter]:
        return {"projection": self.projection, **{f"layers.{name}": parameter for name, parameter in self.part.named_parameters()}}

    def sight(self) -> Sight:
        if not self.step:
            return self.whitening
        layers = {self.prefix + name: parameter.detach().cpu().numpy() for name, parameter in self.part.named_parameters()}
        return Sight(self.whitening.mean, self.projection.detach().cpu().numpy(), layers)

    def state(self) -> Dict[str, np.ndarray]:
        """Arrays by their names."""
        found = {"step": torch.tensor(self.step)}
        for name, parameter in self.learned.items():
            found.update({f"{name}/{kind}": tensor for kind, tensor in (("value", parameter), *self.optimiser.state[parameter].items())})
        return {name: tensor.detach().cpu().numpy() for name, tensor in found.items()}

    def resume(self, state: Dict[str, np.ndarray]) -> None:
        self.step = int(state["step"])
        for name, parameter in self.learned.items():
            own = {key[len(name) + 1 :]: torch.from_numpy(array) for key, array in state.items() if key.startswith(f"{name}/")}
            with torch.no_grad():
                parameter.copy_(own.pop("value"))
            self.optimiser.state[parameter] = {kind: tensor.to(self.device) if tensor.ndim else tensor for kind, tensor in own.items()}


def share(step: int) -> float:
    """Of the full learning rates, in a step 0 .. STEPS-1."""
    rise, done = (1.0, step / ALONE) if step < ALONE else (min(1.0, (step - ALONE + 1) / WARMUP), (step - ALONE) / (STEPS - ALONE))
    return rise * (1 + math.cos(math.pi * done)) / 2


def drawn(pairs: List[np.ndarray], whales: np.ndarray, random: np.random.Generator) -> Tuple[List[int], List[int]]:
    """Two photographs of one group for each of PAIRS animals, or of all where there are fewer."""
    chosen = {}
    for number in random.permutation(len(pairs)):
        chosen.setdefault(whales[pairs[number][0]], pairs[number])
        if len(chosen) == PAIRS:
            break
    one, other = zip(*(random.choice(group, 2, replace=False) for group in chosen.values()))
    return list(one), list(other)


def in_common(own: torch.Tensor, others: torch.Tensor, distant: torch.Tensor) -> torch.Tensor:
    """The rounded evidence (k,), one way, of cells (m, d) of a photograph with those of k others (k, cells, d); distant (cells, m) as for places.shared."""
    alike = (others.flatten(0, 1) @ own.T).view(len(others), -1, len(own)) + distant
    return nn.functional.softplus(ROUND * (alike.amax(1) - ALIKE)).mean(1) / ROUND


def contrast(evidence: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of evidence (k, k) whose diagonal is to be the largest of each row."""
    spread = (evidence - evidence.mean(1, keepdim=True)) / (evidence.std(1, keepdim=True) + 1e-12)
    return nn.functional.cross_entropy(SHARPNESS * spread, torch.arange(len(evidence), device=evidence.device))
