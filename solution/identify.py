"""A ranking of individuals instead of images: 1-NN, classifier, new individual.

    python -m solution.identify PHOTO... --weights WEIGHTS --gallery DATA [--picture matches.jpg]

prints five names a photograph with their probabilities, and that of a new individual, in seconds.

Every image is scored against every known individual, columns 0 to k - 1, and against the unknown ones, the last column
(`new_whale`), as the seventh prize of Humpback Whale Identification did:

    score = c1 * S + c2 * S' + c3 * P'

S = (2 - d) / 2 for the distance d to an individual's nearest image, P = softmax(temperature * logits) of the classifier; in S'
and P' the last column is a constant, theta_f and theta_p. An identification holds these numbers as calibrate.py fits them on
validation queries; identify.json keeps it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Tuple

import numpy as np

from solution import recipe
from solution.files import InputError, read_json, run, write_json
from solution.spec import heading

TOP = 5  # answers a query
BLOCK = 1024  # gallery images whose cosines with 8 times as many queries are held at once: 32 MiB
ROWS = 256  # queries whose temporaries are held at once elsewhere
LARGEST = 1e6  # number of an identification: no product of such and scores is beyond float32


@dataclass(frozen=True)
class Identification:
    """What identify.json holds: how scores become answers and chances, and how well that did on validation."""

    temperature: float
    theta_p: float
    theta_f: float
    c1: float
    c2: float
    c3: float
    map5: Optional[float]  # on the validation queries; the interval is resampled by whale
    ci95: Optional[Tuple[float, ...]]
    n_queries: int
    scale: float  # chances = softmax(scale * scores, + bias in the new column)
    bias: float
    nearest: Tuple[float, ...]  # a, b: P(not in the gallery) = 1 / (1 + exp(-(a + b * best similarity)))
    new_share: Optional[float] = None  # of the first answers, known beforehand; null is as the thresholds have it
    by_species: bool = False  # whether that share holds within each species
    columns: Tuple[str, ...] = ("Image", "Id")
    new: str = "new_whale"

    def __post_init__(self) -> None:
        recipe.require(self.temperature > 0, "temperature", self.temperature, "above 0")
        for key in ("c1", "c2", "c3"):
            recipe.require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")
        recipe.require(self.scale > 0, "scale", self.scale, "above 0")
        for key in ("temperature", "theta_p", "theta_f", "c1", "c2", "c3", "scale", "bias"):
            recipe.require(abs(getattr(self, key)) <= LARGEST, key, getattr(self, key), f"at most {LARGEST:g} from 0")
        recipe.require(max(map(abs, self.nearest), default=0) <= LARGEST, "nearest", list(self.nearest), f"at most {LARGEST:g} from 0")
        recipe.require(self.n_queries >= 0, "n_queries", self.n_queries, "0 or more")
        recipe.require(self.ci95 is None or len(self.ci95) == 2, "ci95", self.ci95, "two numbers or null")
        recipe.require(len(self.nearest) == 2, "nearest", list(self.nearest), "two numbers")
        recipe.require(self.new_share is None or 0 <= self.new_share <= 1, "new_share", self.new_share, "a share between 0 and 1, or null")
        columns = len(set(self.columns)) == len(self.columns) == 2 and all(map(heading, self.columns)) and self.columns[0] not in ("Id", "probability")
        recipe.require(columns, "columns", list(self.columns), "two names, of the image's and the label's column")
        recipe.require(self.new.split() == [self.new] and heading(self.new), "new", self.new, "one word")


def read(path: Path) -> Identification:
    """The identification of an identify.json; InputError names the key that is wrong."""
    try:
        return recipe.built(Identification, read_json(path))
    except ValueError as error:
        raise InputError(f"{path}: not an identification: {error}") from None


def write(identification: Identification, path: Path) -> Path:
    return write_json(recipe.plain(identification), path)


def blocks(n: int, size: int = ROWS) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def similarities(queries: np.ndarray, gallery: np.ndarray, individual: np.ndarray, known: int, block: int = BLOCK) -> np.ndarray:
    """S (q, known + 1) float32: (2 - distance) / 2 for the nearest image of each individual, 0 for one without image.

    queries (q, d), gallery (m, d): unit rows of float32. individual (m,): 0 to known - 1, or `known` for the unknown ones.
    The cosine of two equal rows is 1 but for 1e-7, so their similarity is 1 but for some 1e-4.
    """
    nearest = np.full((len(queries), known + 1), -1, np.float32)  # the greatest cosine; -1 is a distance of 2
    order = np.argsort(individual, kind="stable")
    for images in blocks(len(order), block):
        rows, whose = gallery[order[images]], individual[order[images]]
        starts = np.flatnonzero(np.diff(whose, prepend=-1))
        for part in blocks(len(queries), 8 * block):
            # Images by queries, so that the maximum runs along whole rows of memory.
            greatest = np.maximum.reduceat(rows @ queries[part].T, starts, axis=0).T
            nearest[part, whose[starts]] = np.maximum(nearest[part, whose[starts]], greatest)
    for part in blocks(len(queries)):
        nearest[part] = 1 - np.sqrt(2 - 2 * np.clip(nearest[part], -1, 1)) / 2
    return nearest


def softmax(exponents: np.ndarray) -> np.ndarray:
    """The softmax of each row (q, columns), in place."""
    exponents -= exponents.max(axis=1, keepdims=True)
    np.exp(exponents, out=exponents)
    exponents /= exponents.sum(axis=1, keepdims=True)
    return exponents


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """P (q, k) float32: the softmax of temperature * logits (q, k)."""
    return softmax(np.multiply(logits, temperature, dtype=np.float32, casting="same_kind"))


def known_scores(similarity: np.ndarray, probability: Optional[np.ndarray], c12: float, c3: float) -> np.ndarray:
    """c12 * S + c3 * P in float64 for known individuals, c12 = c1 + c2. The only place that computes them, so that ties are alike everywhere."""
    scores = c12 * similarity.astype(np.float64)
    return scores if probability is None else scores + c3 * probability.astype(np.float64)


def merged(similarity: np.ndarray, probability: Optional[np.ndarray], identification: Identification) -> np.ndarray:
    """Scores (q, k + 1) float64 of S (q, k + 1) and P (q, k); P is None where there is no classifier (c3 is 0).

    Queries do not depend on each other: hand them over in parts where 8 bytes a score are too many.
    """
    fitted = identification
    scores = np.empty(similarity.shape)
    for part in blocks(len(scores)):
        scores[part, :-1] = known_scores(similarity[part, :-1], None if probability is None else probability[part], fitted.c1 + fitted.c2, fitted.c3)
    scores[:, -1] = fitted.c1 * similarity[:, -1].astype(np.float64) + (fitted.c2 * fitted.theta_f + fitted.c3 * fitted.theta_p)
    return scores


def best(scores: np.ndarray, top: int = TOP) -> np.ndarray:
    """The columns (q, top) of the best of the finite scores (q, n), best first, equal ones by column; (q, n) where n < top."""
    found = np.empty((len(scores), min(top, scores.shape[1])), int)
    for part in blocks(len(scores)):
        rest = scores[part].copy()
        for place in range(found.shape[1]):
            found[part, place] = rest.argmax(axis=1)  # the first of equal ones
            rest[np.arange(len(rest)), found[part, place]] = -np.inf
    return found


def lead(scores: np.ndarray) -> np.ndarray:
    """By how much the best known individual is ahead of the new one, (q,) of merged scores (q, k + 1); -inf where none is known."""
    return scores[:, :-1].max(axis=1, initial=-np.inf) - scores[:, -1]


def shift_for_share(leads: np.ndarray, share: float, groups: np.ndarray) -> np.ndarray:
    """What, added to the new column, makes round(share * n) of the n first answers of each of the groups (q,) new: (q,)."""
    shift = np.empty(len(leads))
    for group in np.unique(groups):
        shift[groups == group] = above_share(leads[groups == group], share)
    return shift


def above_share(values: np.ndarray, share: float) -> float:
    """A number above round(share * n) of the values (n,), half way to the next one."""
    ordered = np.sort(values)
    edges = np.concatenate([ordered[:1] - 1, ordered, ordered[-1:] + 1])
    return float(edges[round(share * len(values)) :][:2].mean())


def chances(scores: np.ndarray, identification: Identification) -> np.ndarray:
    """The calibrated probability (q, k + 1) float64 that a query is each individual, or new, from merged scores (q, k + 1)."""
    exponents = identification.scale * scores.astype(np.float64)
    exponents[:, -1] += identification.bias
    return softmax(exponents)


def chance_new_of_best(best_similarity: np.ndarray, identification: Identification) -> np.ndarray:
    """The probability (q,) that a query is not in the gallery, from the similarity (q,) of its best image: a database without names has no more."""
    a, b = identification.nearest
    return np.exp(-np.logaddexp(0, -(a + b * best_similarity.astype(np.float64))))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Who is this? Names the individual on each photograph, by weights trained for it and a gallery of labelled photographs.",
        epilog="example: python -m solution.identify new.jpg --weights runs/hwi-small/fold0/weights --gallery photographs --picture matches.jpg",
    )
    parser.add_argument("photographs", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--weights", type=Path, required=True, help="directory with identify.json that python -m solution.train wrote")
    parser.add_argument("--gallery", type=Path, metavar="DATA", help="labelled photographs, besides those in the weights")
    parser.add_argument("--picture", type=Path, help="image file to draw the nearest photographs to, those that DATA holds")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--no-cache", action="store_true", help="compute everything, and keep no embeddings for the next time")
    args = parser.parse_args()
    from solution import matches

    matches.show(args.photographs, args.weights, args.gallery, args.picture, args.device, not args.no_cache)


if __name__ == "__main__":
    run(main)
