"""Which channels of a cell tell individuals apart: a whitening turned until photographs of one animal have the most in common.

    whitening = told_apart(cells, groups, whales, whitening, seed, device, stop)

Each step draws PAIRS animals and of each two photographs from the same side. The evidence of places.py between every first and every second
photograph, one way (what cells of the first find in the second), in units of its spread as local.weighed takes it, is to be the largest for
the animal itself: a softmax over the second photographs and its cross-entropy (the N-pair loss of Sohn, Improved deep metric learning with multi-class N-pair loss objective, NeurIPS
2016, with evidence in the place of a dot product). The threshold on cosines is rounded off, so that cells below it learn too, and a step
looks at CELLS cells of each first photograph. Only the projection moves: some thousand numbers, which a hundred animals do not spoil.
"""

import sys
from typing import Callable, List, Optional, Tuple

import numpy as np
import torch
from torch import nn

from solution.files import progress
from solution.places import ALIKE, Whitening, beyond

STEPS = 200
PAIRS = 24  # animals a step
LEAST = 4  # animals with two photographs from one side, without which nothing is learned
CELLS = 128  # of each first photograph
LEARNING_RATE = 0.1  # of a number of the projection, in units of their mean size; falls to 0 as half a cosine
ROUND = 20.0  # softplus(ROUND * x) / ROUND in the place of max(0, x)
SHARPNESS = 2.0  # of the softmax, over evidence in units of its spread


def told_apart(cells: np.ndarray, groups: np.ndarray, whales: np.ndarray, whitening: Whitening, seed: int, device: str, stop: Callable[[], bool]) -> Optional[Whitening]:
    """The whitening with a projection that was trained on cells (n, cells, c) of photographs; as it was where fewer than LEAST animals have a pair,
    None where `stop()` said so before the last step.

    groups (n,): a number for each animal and side; whales (n,): for each animal.
    """
    pairs = [group for group in np.split(np.argsort(groups, kind="stable"), np.flatnonzero(np.diff(np.sort(groups))) + 1) if len(group) > 1]
    animals = len({whales[group[0]] for group in pairs})
    if animals < LEAST:
        print(f"local evidence: {animals} individuals have two photographs from one side, and it takes {LEAST} to learn; its channels are whitened only", file=sys.stderr)
        return whitening
    mean, projection = (torch.tensor(value, device=device) for value in whitening)  # copies
    projection.requires_grad_()
    optimiser = torch.optim.Adam([projection], lr=LEARNING_RATE * float(projection.detach().abs().mean()))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    distant = beyond(cells.shape[1]).to(device)
    for step in progress(range(STEPS), "local evidence: learning"):
        if stop():
            return None
        random = np.random.default_rng((seed, step))
        one, other = drawn(pairs, whales, random)
        own, others = (nn.functional.normalize((torch.from_numpy(cells[part]).to(device).float() - mean) @ projection, dim=2) for part in (one, other))
        seen = [torch.from_numpy(random.permutation(cells.shape[1])[:CELLS]).to(device) for _ in one]
        loss = contrast(torch.stack([in_common(photograph[some], others, distant[:, some]) for photograph, some in zip(own, seen)]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    return Whitening(whitening.mean, projection.detach().cpu().numpy())


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
