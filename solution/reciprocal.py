"""k-reciprocal encodings: two images are alike whose neighbours are the same ones.

    similarity = k_reciprocal(queries, database, own, order, 20, 0.3)          # as solution.rerank takes it

Sets of neighbours are held as pairs of numbers: some hundred a database image, and of those of two images JOINED at once.
"""

from typing import NamedTuple, Tuple

import numpy as np

from solution.ties import OfPairs, Similarity, best, cosine, cosines

JOINED = 1 << 22  # numbers of two images that are compared at once
SECOND = 6  # Zhong's k2: an image and its nearest, whose encodings are averaged


def k_reciprocal(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, neighbours: int, share: float) -> Similarity:
    """k-reciprocal re-ranking (Zhong, Zheng, Cao and Li, Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017: k1 20, k2 6,
    lambda .3), each query alone with its database.

    An image's neighbours are those of its k1 nearest that would have it among theirs, and the neighbours of such a one, by half of k1, where two
    thirds of them are already there. It is encoded by exp(-distance) of them, with the sum 1, averaged over it and its nearest k2 - 1. The value
    is (1 - share) * sum of minima / sum of maxima of two encodings + share * cosine; distances are 1 - cosine.

    The database's images are encoded once, without any query; a query joins them only as one that asks who would have it among its nearest.
    Its own image in the database has no part in its encoding.
    """
    itself, half = np.arange(len(database)), (neighbours + 1) // 2
    near, _ = best(database, database, itself, order, neighbours)
    halves = with_itself(mutual(near[:, :half], database, database, reach(near[:, half - 1], database)), itself)
    sets = with_itself(mutual(near, database, database, reach(near[:, -1], database)), itself)
    known = encoded(grown(sets, halves), database, database)
    whose = by_member(averaged(known, known, near))

    asking, _ = best(queries, database, own, order, neighbours)
    sets = grown(mutual(asking, queries, database, reach(near[:, -1], database)), halves)
    asked = averaged(encoded(without(sets, own), queries, database), known, asking)
    asked, plain = of_sum_1(without(asked, own)), cosine(queries, database)

    def of_block(block: slice) -> Tuple[np.ndarray, OfPairs]:
        table, of_pairs = plain(block)
        alike = overlap(asked, block, whose)
        return share * table + (1 - share) * alike, lambda query, column: share * of_pairs(query, column) + (1 - share) * alike[query, column]

    return of_block


class Sets(NamedTuple):
    """A set of n images for each of some others, and a number for each of them: the set of i is member[start[i] : start[i + 1]], ascending."""

    start: np.ndarray
    member: np.ndarray
    value: np.ndarray
    n: int

    @property
    def image(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))


def sets_of(image: np.ndarray, member: np.ndarray, value: np.ndarray, count: int, n: int) -> Sets:
    """`count` sets from pairs (p,), the values of repeated pairs added."""
    keys, which = np.unique(image * n + member, return_inverse=True)
    image, member = np.divmod(keys, n)
    return Sets(np.searchsorted(image, np.arange(count + 1)), member, np.bincount(which, value, len(keys)), n)


def reach(kth: np.ndarray, database: np.ndarray) -> np.ndarray:
    """The least cosine with which an image is among the nearest of each database image (m,), whose k-th nearest is given, -1 where it has fewer."""
    there, found = np.flatnonzero(kth >= 0), np.full(len(kth), -np.inf)
    found[there] = cosines(database, database, there, kth[there])
    return found


def mutual(near: np.ndarray, images: np.ndarray, database: np.ndarray, reach: np.ndarray) -> Sets:
    """Of the nearest (n, k) of images (n, d) those that would have the image among theirs."""
    image, place = np.nonzero(near >= 0)
    member = near[image, place]
    kept = cosines(images, database, image, member) >= reach[member]
    return sets_of(image[kept], member[kept], np.ones(kept.sum()), len(images), len(database))


def with_itself(sets: Sets, itself: np.ndarray) -> Sets:
    image, member = np.concatenate([sets.image, itself]), np.concatenate([sets.member, itself])
    return sets_of(image, member, np.ones(len(image)), len(itself), sets.n)


def without(sets: Sets, own: np.ndarray) -> Sets:
    """The sets without the image itself, `own` (count,)."""
    image = sets.image
    kept = sets.member != own[image]
    return sets_of(image[kept], sets.member[kept], sets.value[kept], len(own), sets.n)


def followed(which: np.ndarray, sets: Sets) -> Tuple[np.ndarray, np.ndarray]:
    """All entries of the sets of some images (p,): the place in `which`, and that of the entry in `sets`."""
    count = np.diff(sets.start)[which]
    place = np.repeat(np.arange(len(which)), count)
    return place, np.arange(len(place)) - (np.cumsum(count) - count - sets.start[which])[place]


def grown(sets: Sets, halves: Sets) -> Sets:
    """The sets with those of `halves` of their members of which two thirds are already there."""
    image = sets.image
    pair, entry = followed(sets.member, halves)
    member = halves.member[entry]
    there = np.isin(image[pair] * sets.n + member, image * sets.n + sets.member)
    kept = (3 * np.bincount(pair, there, len(image)) >= 2 * np.bincount(pair, minlength=len(image)))[pair]
    image, member = np.concatenate([image, image[pair[kept]]]), np.concatenate([sets.member, member[kept]])
    return sets_of(image, member, np.ones(len(image)), len(sets.start) - 1, sets.n)


def encoded(sets: Sets, images: np.ndarray, database: np.ndarray) -> Sets:
    return of_sum_1(sets._replace(value=np.exp(cosines(images, database, sets.image, sets.member) - 1)))


def of_sum_1(sets: Sets) -> Sets:
    image = sets.image
    return sets._replace(value=sets.value / np.bincount(image, sets.value, len(sets.start) - 1)[image])


def averaged(sets: Sets, known: Sets, near: np.ndarray) -> Sets:
    """The mean of each encoding and the `known` ones of its nearest (n, k), of which the first SECOND - 1 count."""
    image, place = np.nonzero(near[:, : SECOND - 1] >= 0)
    pair, entry = followed(near[image, place], known)
    image, member = np.concatenate([sets.image, image[pair]]), np.concatenate([sets.member, known.member[entry]])
    return of_sum_1(sets_of(image, member, np.concatenate([sets.value, known.value[entry]]), len(near), sets.n))


def by_member(sets: Sets) -> Sets:
    """Turned round: for each of n images those whose sets it is in, with the same numbers."""
    return sets_of(sets.member, sets.image, sets.value, sets.n, len(sets.start) - 1)


def overlap(asked: Sets, block: slice, whose: Sets) -> np.ndarray:
    """Sum of minima / sum of maxima (b, m) of the encodings of a block of queries, each of sum 1 or empty, with those of the database by member."""
    start = asked.start[block.start : block.stop + 1]
    entries, total = np.arange(start[0], start[-1]), np.zeros((len(start) - 1) * whose.n)
    image = np.repeat(np.arange(len(start) - 1), np.diff(start))
    joined = np.cumsum(np.diff(whose.start)[asked.member[entries]]) // JOINED
    for part in np.split(np.arange(len(entries)), np.flatnonzero(np.diff(joined)) + 1):
        place, other = followed(asked.member[entries[part]], whose)
        least = np.minimum(asked.value[entries[part]][place], whose.value[other])
        total += np.bincount(image[part][place] * whose.n + whose.member[other], least, len(total))
    total = total.reshape(len(start) - 1, whose.n)
    return total / (2 - total)
