"""What a training sees, and in which order: a function of (seed, epoch, image) alone."""

from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np
from torch.utils.data import DataLoader, Dataset

from solution import recipe
from solution.augment import Augmentation
from solution.files import InputError, progress
from solution.images import Photographs, Readable

HELD_BYTES = 8 << 30  # decoded training images are kept in memory up to here, beyond it they are decoded in every epoch
READ = 64  # images


class Squares:
    """Photographs as models look at them: decoded once for models of the same view that train one after the other, and held where they
    fit into HELD_BYTES."""

    def __init__(self) -> None:
        self.photographs: Optional[Photographs] = None
        self.held: Optional[np.ndarray] = None

    def read(self, photographs: Photographs, workers: int, label: str) -> Dict[int, str]:
        """Decodes all photographs, of one view; tells why some, by their number, cannot be read. The others are held."""
        (view,) = photographs.views
        self.held, problems, count = None, {}, 0  # lets go of those of another view first
        if fits(photographs):
            self.held = np.empty((len(photographs), view.size, view.size, 3), np.uint8)
        looked_at = Readable(photographs.paths, photographs.views if fits(photographs) else [], photographs.boxes)
        loader = DataLoader(looked_at, batch_size=READ, num_workers=workers)
        for number, (squares, reasons) in enumerate(progress(loader, label)):
            problems.update({number * READ + place: reason for place, reason in enumerate(reasons) if reason})
            read = np.array([not reason for reason in reasons])
            if self.held is not None:
                self.held[count : count + read.sum()] = squares[0].numpy()[read]
            count += read.sum()
        self.photographs = photographs.without(problems)
        self.held = None if self.held is None else self.held[:count]
        return problems

    def of(self, photographs: Photographs, workers: int, label: str) -> Optional[np.ndarray]:
        """(n, size, size, 3) uint8, None where they do not fit into memory; InputError where one cannot be read."""
        if not fits(photographs):
            return None
        if self.photographs is None or vars(self.photographs) != vars(photographs):
            for problem in self.read(photographs, workers, label).values():
                raise InputError(problem)
        return self.held


def fits(photographs: Photographs) -> bool:
    return len(photographs) * photographs.views[0].size ** 2 * 3 <= HELD_BYTES


@dataclass(frozen=True)
class TrainingSet:
    """Photographs, of each its whale and its species as numbers from 0 (-1: unknown whale), the names of both, and its viewpoint ("" where none is told).

    `fingerprint` is of the table and the files' sizes. With `mirrored` every photograph stands there twice: number n + i is the
    mirror image of i, and each whale's mirror image is a whale of its own.
    """

    photographs: Photographs
    labels: np.ndarray
    species: np.ndarray
    whale_ids: np.ndarray
    species_names: np.ndarray
    viewpoints: np.ndarray
    fingerprint: str
    mirrored: bool = False
    squares: Squares = field(default_factory=Squares)

    @property
    def all_labels(self) -> np.ndarray:
        """One label an item: (n,), or (2n,) with mirror images."""
        if not self.mirrored:
            return self.labels
        return np.concatenate([self.labels, np.where(self.labels < 0, -1, self.labels + len(self.whale_ids))])

    @property
    def counts(self) -> np.ndarray:
        """Images of each class, (classes,)."""
        labels = self.all_labels
        return np.bincount(labels[labels >= 0])


class Augmented(Dataset):
    """Training items by (epoch, number): an augmented image (size, size, 3) uint8, its label and its species."""

    def __init__(self, training: TrainingSet, spec: recipe.Spec, seed: int, workers: int) -> None:
        self.photographs, self.seed = training.photographs, seed
        self.labels, self.species = training.all_labels, training.species
        self.augmentation = Augmentation(spec.augment, spec.train.size)
        self.held = training.squares.of(self.photographs, workers, f"{spec.name}: reading")

    def __getitem__(self, key: Tuple[int, int]) -> Tuple[np.ndarray, int, int]:
        epoch, number = key
        photograph = number % len(self.photographs)
        image = self.photographs[photograph][0] if self.held is None else self.held[photograph]
        image = image if number == photograph else np.ascontiguousarray(image[:, ::-1])
        return self.augmentation(image, (self.seed, epoch, number)), int(self.labels[number]), int(self.species[photograph])


class Batches:
    """The batches of one epoch for one of `world` processes, from `step` on; the last incomplete batch is dropped."""

    def __init__(self, labels: np.ndarray, train: recipe.Train, seed: int, rank: int, world: int) -> None:
        self.labels, self.train, self.seed, self.rank, self.world = labels, train, seed, rank, world
        self.epoch = self.step = 0

    @property
    def steps(self) -> int:
        return len(self.labels) // self.train.batch_size

    def __len__(self) -> int:
        return self.steps - self.step

    def __iter__(self) -> Iterator[List[Tuple[int, int]]]:
        random = np.random.default_rng((self.seed, self.epoch))
        shuffled = random.permutation(len(self.labels))
        order = shuffled if self.train.sampling == "shuffle" else by_whale(self.labels[shuffled], self.train.images_per_whale, random, shuffled)
        for step in range(self.step, self.steps):
            batch = order[step * self.train.batch_size : (step + 1) * self.train.batch_size]
            yield [(self.epoch, int(number)) for number in batch[self.rank :: self.world]]


def by_whale(labels: np.ndarray, each: int, random: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """As many of `numbers` (n,) as there are and more, `each` of one whale side by side, the whales in turn in an order drawn anew
    each time: every whale comes alike often, and its images by turns. `labels` (n,) are the whales of `numbers`."""
    alone = np.where(labels < 0, -1 - np.arange(len(labels)), labels)  # each unknown one is a whale of its own
    _, whale, count = np.unique(alone, return_inverse=True, return_counts=True)
    grouped, start = numbers[np.argsort(whale, kind="stable")], np.cumsum(count) - count
    rounds = -(-len(numbers) // (each * len(count)))
    turns = np.concatenate([random.permutation(len(count)) for _ in range(rounds)])  # whales
    nth = np.repeat(np.arange(rounds), len(count))  # time that the whale's turn comes
    place = (nth[:, None] * each + np.arange(each)) % count[turns][:, None]
    return grouped[start[turns][:, None] + place].ravel()
