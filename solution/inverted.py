"""Which rows of a large file may be the nearest ones: lists and short codes of FAISS, tuned to a recall.

Rows are turned by a random rotation, so that no few of their numbers matter more than the others, put into the list of the nearest of
some centres, and kept there as codes of 2 bits a number (in wide rows fewer). A question opens the nearest `probes` lists and takes the
`candidates` rows nearest by their codes, of which solution.nearest finds the nearest by their true cosines. How many of both is
measured on rows of the file, as they are and as if the 80 most like them were not there, which is what the photographs of a new
individual meet: the cheapest with which the lower end of the recall's 95 % interval is RECALL in both.
"""

import math
import sys
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from solution import nearest, recipe
from solution.files import Failure, InputError, progress
from solution.nearest import Rows
from solution.ties import NEAR, TOP

RECALL = 0.99  # share of the exact best 20 that must be found
ASKED = 512  # rows of the file on which that is measured
AWAY = 80  # rows that are taken away to ask as if for a new individual
CANDIDATES = (50, 100, 200, 400, 800)
RERANKED = 100  # codes that are looked through in the time of one true cosine
CENTRES, TURNS = 64, 10  # rows that train a centre, and turns of k-means: more change the recall by less than its interval
CODES = 512  # pieces of a row that are coded, of 4 bits each, at most
SEED = 0


@dataclass(frozen=True)
class Lists:
    """What index.json says of them: how many, of which so many are opened, and the recall that was measured with that."""

    faiss: str  # the version that wrote them
    lists: int
    trained: int  # images that there were when the lists were drawn
    probes: int
    candidates: int
    recall: float
    recall_new: float  # as if for new individuals
    recall_least: float  # the lower end of the lower one's interval
    asked: int

    def __post_init__(self) -> None:
        for key in ("lists", "trained", "probes", "candidates"):
            recipe.require(0 < getattr(self, key) < 1 << 31, key, getattr(self, key), "above 0, and of 32 bits")
        recipe.require(self.candidates <= CANDIDATES[-1], "candidates", self.candidates, f"at most {CANDIDATES[-1]}")


def library():
    try:
        import faiss
    except ImportError:
        raise InputError("FAISS is not installed, which a database of this size needs; python -m pip install faiss-cpu") from None
    return faiss


def held_back(count: int) -> np.ndarray:
    """The rows that ask when the recall is measured; none of them trains the centres."""
    return np.sort(np.random.default_rng([SEED, count]).choice(count, min(ASKED, count // 4), replace=False))


def trained(rows: Rows):
    """An empty index whose lists and codes suit the rows; a pass over the file and some minutes of k-means for two million."""
    faiss = library()
    lists = 2 ** round(math.log2(1.5 * math.sqrt(len(rows))))
    pieces = min(CODES, -(-rows.width // 2))
    index = faiss.index_factory(rows.width, f"RR{-(-rows.width // pieces) * pieces},IVF{lists},PQ{pieces}x4fsr", faiss.METRIC_INNER_PRODUCT)
    clustering = faiss.extract_index_ivf(index).cp
    clustering.seed, clustering.niter, clustering.min_points_per_centroid, clustering.max_points_per_centroid = SEED, TURNS, 1, CENTRES
    sample = drawn(rows, CENTRES * lists)
    print(f"drawing {lists} lists from {len(sample)} images", file=sys.stderr)
    index.train(sample)
    return index


def drawn(rows: Rows, most: int) -> np.ndarray:
    others = np.setdiff1d(np.arange(len(rows)), held_back(len(rows)))
    chosen = np.zeros(len(rows), bool)
    chosen[np.random.default_rng([SEED]).choice(others, min(most, len(others)), replace=False)] = True
    return np.concatenate([block[chosen[start : start + len(block)]] for start, block in rows.blocks()])


def fill(index, rows: Rows) -> None:
    """Adds the rows that the index does not hold yet."""
    left = len(rows) - index.ntotal
    for _, block in progress(rows.blocks(index.ntotal), "filling the lists", -(-left // nearest.rows_a_block(rows.width))):
        index.add(block)


def search(index, queries: np.ndarray, probes: int, candidates: int) -> np.ndarray:
    """Numbers of rows (q, candidates), nearest by their codes first, -1 where the lists hold fewer."""
    library().extract_index_ivf(index).nprobe = probes
    found = index.search(queries, candidates)[1]
    if found.size and found.max() >= index.ntotal:
        raise Failure("the lists name images that the index does not hold; build it anew")
    return found


def tuned(index, rows: Rows, images: int) -> Optional[Lists]:
    """The cheapest way to ask lists drawn from so many images that reaches RECALL; None where even all candidates of all lists do not."""
    faiss, asked = library(), held_back(len(rows))
    queries, lists, everyone = rows.mapped()[asked], faiss.extract_index_ivf(index).nlist, np.arange(len(rows))
    print(f"measuring recall on {len(asked)} images", file=sys.stderr)
    found = nearest.candidates(queries, rows, asked, everyone, AWAY + TOP)
    exact = nearest.settled(queries, rows, found, asked, everyone, AWAY + TOP)[1]
    best, cost, probes = None, math.inf, 1
    while probes <= lists and probes * len(rows) / lists + RERANKED * CANDIDATES[0] < cost:
        found = search(index, queries, probes, CANDIDATES[-1] + AWAY + 1)
        cosines = nearest.similarities(queries, rows, np.where(found == asked[:, None], -1, found))
        known, new = (recalls(cosines, exact[:, away : away + TOP], away) for away in (0, AWAY))
        for candidates, one, other in zip(CANDIDATES, known, new):
            spent, least = probes * len(rows) / lists + RERANKED * candidates, min(one[1], other[1])
            if least >= RECALL and spent < cost:
                best, cost = Lists(faiss.__version__, lists, images, probes, candidates, one[0], other[0], least, len(asked)), spent
        probes *= 2
    return best


def recalls(cosines: np.ndarray, exact: np.ndarray, away: int) -> List[Tuple[float, float]]:
    """For each of CANDIDATES the recall with so many of those found, and the lower end of its 95 % interval.

    cosines (q, k) in the order found, exact (q, 20) those of the answers, best first; where rows are taken `away`, what is nearer than
    the answers counts as not there. What is as near as the last answer is as good an answer.
    """
    there = cosines <= (exact[:, :1] + NEAR if away else np.inf)
    hit, place = there & (cosines >= exact[:, -1:] - NEAR), np.cumsum(there & (cosines > -np.inf), axis=1)
    shares = [np.minimum((hit & (place <= candidates)).sum(axis=1), TOP) / TOP for candidates in CANDIDATES]
    return [(float(share.mean()), float(share.mean() - 1.96 * share.std() / math.sqrt(len(share)))) for share in shares]


def written(index) -> bytes:
    return library().serialize_index(index).tobytes()


def read(content: bytes, rows: Rows, source: str):
    """The index of `written`; InputError where FAISS cannot read it or it is not one of these rows. Only for bytes that are trusted."""
    faiss = library()
    try:
        index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
    except RuntimeError as error:
        raise InputError(f"{source}: FAISS {faiss.__version__} cannot read it: {str(error).splitlines()[0]}; build the index anew") from None
    if not isinstance(index, faiss.IndexPreTransform) or (index.d, index.ntotal) != (rows.width, len(rows)):
        raise InputError(f"{source}: not the lists of these {len(rows)} images; copy the index again or build it anew")
    return index
