"""What a head's answers cost: logits, features and labels in, one number out, in float32 on any device. Label -1 is of no class."""

import torch
from torch import nn
from torch.nn import functional

from solution import heads, recipe

FOCUS = 2.0  # gamma of the focal loss
RATE = 0.5  # of the way that a centre moves towards its class's mean in each step


def classification(logits: torch.Tensor, labels: torch.Tensor, loss: str = "cross_entropy") -> torch.Tensor:
    """The mean over logits (n, classes) and labels (n,).

    cross_entropy  -log p(y); without a class, of all classes' mean: a row that should lean to none of them
    focal          (1 - p(y))^2 of that times it. Lin et al., Focal Loss for Dense Object Detection
    bce            the sum over the classes of each one's own yes or no; without a class all are no
    """
    logits, known = logits.float(), labels >= 0
    if loss == "bce":
        targets = heads.true_class(logits, labels).float()
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(labels)
    log_p = functional.log_softmax(logits, dim=1)
    true = log_p.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    if loss == "focal":
        true = true * (1 - true.exp()) ** FOCUS
    return -torch.where(known, true, log_p.mean(dim=1)).mean()


def ring(features: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """mean((||x|| - R)^2) over features (n, width) and a learned radius R.

    Zheng et al., Ring loss, weigh it with lambda / 2; the published humpback code with 0.01, which is lambda = 0.02.
    """
    return ((features.float().norm(dim=1) - radius) ** 2).mean()


class Centre(nn.Module):
    """Half the mean squared distance of features (n, width) to their class's centre, 0.5 * mean(||x - c_y||^2).

    No gradient moves the centres: in training each goes RATE of the class mean of c - x back, after the loss was taken, over the shares
    of a batch of all processes.
    Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(classes, width))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x, y = features.float()[labels >= 0], labels[labels >= 0]
        away = self.centres[y] - x
        loss = 0.5 * (away**2).sum() / max(len(y), 1)
        if self.training:
            self.move(away.detach(), y)
        return loss

    def move(self, away: torch.Tensor, labels: torch.Tensor) -> None:
        total = torch.zeros_like(self.centres).index_add_(0, labels, away)
        count = torch.bincount(labels, minlength=len(self.centres))
        for values in (total, count) if torch.distributed.is_initialized() else ():
            torch.distributed.all_reduce(values)
        self.centres = self.centres - RATE * total / count.clamp(min=1)[:, None]


class Objective(nn.Module):
    """All that a model is trained against: embeddings (n, width), labels (n,) and species (n,) to the loss.

    Each part of the embedding has a head, and a ring or centre loss where its weight is not 0. The total classifier sees the whole
    embedding detached: nothing of its loss reaches the model.
    """

    def __init__(self, parts: int, part_width: int, counts: torch.Tensor, species: int, head: recipe.Head) -> None:
        super().__init__()
        self.loss, self.ring, self.centre, self.parts = head.loss, head.ring, head.centre, parts
        self.heads = nn.ModuleList(heads.head_for(part_width, counts, head) for _ in range(parts))
        self.radii = nn.ParameterList(nn.Parameter(torch.tensor(head.ring_radius)) for _ in range(parts if head.ring else 0))
        self.centres = nn.ModuleList(Centre(part_width, len(counts)) for _ in range(parts if head.centre else 0))
        self.total = heads.Linear(parts * part_width, len(counts), head.dropout) if head.total else None
        self.species = heads.Linear(parts * part_width, species, head.dropout) if head.species else None

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        parts = embeddings.chunk(self.parts, dim=1)
        loss = sum(classification(head(part, labels), labels, self.loss) for head, part in zip(self.heads, parts))
        loss = loss + self.ring * sum(ring(part, radius) for part, radius in zip(parts, self.radii))
        loss = loss + self.centre * sum(centre(part, labels) for part, centre in zip(parts, self.centres))
        if self.total is not None:
            loss = loss + classification(self.total(embeddings.detach(), labels), labels)
        if self.species is not None:
            loss = loss + classification(self.species(embeddings, species), species)
        return loss
