"""What a score is: one value per query, the mean last.

Reads and writes nothing. Rows are parallel arrays; `query` holds numbers 0 .. n-1, `hit` tells whether the row names a
true match, `n_pos` (n,) how many true matches the query has. Rows stand in the order that `ranking` gives.

    order = ranking(query, score, image)
    average_precision(query[order], score[order], hit[order], n_pos)     ->  (n,) float64, NaN where nothing was submitted
"""

from typing import Iterator

import numpy as np
import pandas as pd

EXACT = 14  # whales whose 2^14 sign patterns are all tried
ALIKE = 0.05  # correlation of a whale's queries that is taken for granted


def ranking(query: np.ndarray, score: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Row numbers ordered by (query, -score, image), NaN last. `image`: numbers in the order of the ids."""
    return np.lexsort((image, -score, query))


def first_of(*columns: np.ndarray) -> np.ndarray:
    """True at the first row of each combination of non-negative numbers."""
    key = columns[0].astype(np.int64)
    for column in columns[1:]:
        key = key * (column.max(initial=0) + 1) + column
    return ~pd.Series(key).duplicated().to_numpy()


def place(query: np.ndarray) -> np.ndarray:
    """0, 1, 2 .. within each query; equal numbers of `query` stand together."""
    rows = np.arange(len(query))
    starts = np.flatnonzero(np.diff(query, prepend=-1))
    return rows - np.repeat(starts, np.diff(starts, append=len(query)))


def hits_so_far(query: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Hits of the row's query down to the row, the row included."""
    total = np.cumsum(hit)
    before = (total - hit)[np.arange(len(query)) - place(query)]
    return total - before


def average_precision(query, score, hit, n_pos: np.ndarray, limit: int = 20) -> np.ndarray:
    """The organisers' average precision of each query, (n,); NaN for a query without rows.

        AP = sum over g of hits(g) * precision(g) / min(n_pos, limit)

    g           a group of rows with equal scores
    hits(g)     true matches in the group
    precision   true matches / rows, from the first row to the last row of the group

    Equals scikit-learn's `average_precision_score(hit, score) * hits / min(n_pos, limit)`, so rows beyond `limit` and
    repeated rows count: a valid submission has neither.
    """
    last = np.append((query[1:] != query[:-1]) | (score[1:] != score[:-1]), True)[: len(query)]
    owner, found = query[last], hits_so_far(query, hit)[last]
    new = found - np.where(np.diff(owner, prepend=-1) != 0, 0, np.roll(found, 1))
    total = np.bincount(owner, new * found / (place(query)[last] + 1), minlength=len(n_pos))
    submitted = np.bincount(owner, minlength=len(n_pos)) > 0
    return np.where(submitted, total / np.minimum(n_pos, limit), np.nan)


def average_precision_of_first(query, hit, n_pos: np.ndarray, limit: int = 5) -> np.ndarray:
    """Average precision of the first `limit` rows of each query, (n,); 0 for a query without rows. Ties are in order.

        AP = sum over k = 1 .. limit of hit(k) * precision(k) / min(n_pos, limit)
    """
    rank = place(query) + 1
    terms = np.where(hit & (rank <= limit), hits_so_far(query, hit) / rank, 0)
    return np.bincount(query, terms, minlength=len(n_pos)) / np.minimum(n_pos, limit)


def reciprocal_rank_of_individual(query, individual, wanted: np.ndarray, limit: int = 5) -> np.ndarray:
    """1 / rank of the query's whale among the first `limit` distinct whales of its rows, else 0, (n,).

    individual  number of the whale of each row
    wanted      number of the whale of each query, (n,)
    """
    first = first_of(query, individual)
    query, individual = query[first], individual[first]
    rank = place(query) + 1
    terms = np.where((individual == wanted[query]) & (rank <= limit), 1 / rank, 0)
    return np.bincount(query, terms, minlength=len(wanted))


def top1(query, hit, n: int) -> np.ndarray:
    """1 where the first row of a query is a true match, else 0, (n,)."""
    return np.bincount(query, hit & (place(query) == 0), minlength=n).astype(float)


def label_average_precision(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Kaggle's AP@5, (n,): 1 / place of the true label among the five of `labels` (n, 5), else 0.

    With one true label a query only its first occurrence counts. Labels are numbers, -1 where none is given.
    """
    right = labels == truth[:, None]
    return np.where(right.any(axis=1), 1 / (right.argmax(axis=1) + 1), 0)


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive of `score` (n,) stands above a negative, ties counting 1/2; NaN without both kinds.

        AUC = (sum of the positives' ranks - n1 (n1 + 1) / 2) / (n1 n0)      (Mann and Whitney 1947; ties share a rank)
    """
    n_positive = int(positive.sum())
    ranks = pd.Series(score).rank().to_numpy()[positive]
    pairs = n_positive * (len(score) - n_positive)
    return float((ranks.sum() - n_positive * (n_positive + 1) / 2) / pairs) if pairs else float("nan")


def brier_score(probability: np.ndarray, outcome: np.ndarray) -> float:
    """Mean squared distance of a probability (n,) from what came out, 0 or 1 (n,)."""
    return float(np.mean((probability - outcome) ** 2))


def calibration_error(probability: np.ndarray, outcome: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of a probability (n,) against what came out, 0 or 1 (n,).

        ECE = sum over b of |mean of outcome in b - mean of probability in b| * share of the queries in b

    over `bins` equal bins, b holding (b - 1) / bins < probability <= b / bins and the first bin 0 too (Guo et al. 2017).
    """
    bin_number = np.searchsorted(np.arange(1, bins) / bins, probability)
    return float(np.abs(np.bincount(bin_number, outcome - probability)).sum() / len(probability))


def whale_groups(whale_id: pd.Series) -> np.ndarray:
    """Numbers of the groups that are resampled together: queries of one whale, (n,). An unknown whale ("") stands alone."""
    number, names = pd.factorize(whale_id)
    return np.where(whale_id == "", len(names) + np.arange(len(number)), number)


def resampled_means(values: np.ndarray, group: np.ndarray, resamples: int, seed: int) -> Iterator[float]:
    """Means over the queries of `resamples` draws, with replacement, of as many groups as there are."""
    _, group = np.unique(group, return_inverse=True)
    total, size = np.bincount(group, values), np.bincount(group)
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = rng.integers(len(size), size=len(size))
        yield total[drawn].sum() / size[drawn].sum()


def bootstrap_interval(values: np.ndarray, group: np.ndarray, resamples: int = 1000, seed: int = 0) -> list[float]:
    """95 % percentile interval [2.5 %, 97.5 %] of the mean of `values` (n,) when groups (n,), not queries, are drawn."""
    means = list(resampled_means(values, group, resamples, seed))
    return [float(bound) for bound in np.percentile(means, [2.5, 97.5])]


def whale_interval(values: np.ndarray, group: np.ndarray) -> list[float] | None:
    """95 % interval of the mean of `values` (n,) whose groups (n,) are independent, not its queries; None for one group.

        mean +- t * sqrt(sum over g of e(g)^2 / (1 - h(g))) / n

    e(g)  sum over the group of value - mean;  h(g)  share of the queries that are the group's
    t     97.5 % of Student's t with the degrees of freedom that `degrees_of_freedom` gives

    Bell and McCaffrey (2002). With 50 to 200 whales of unequal size it holds the truth as often as it says, where the
    percentile bootstrap does not: tests/test_compare.py simulates both.
    """
    from scipy.special import stdtrit

    group = np.unique(group, return_inverse=True)[1]
    size, mean = np.bincount(group), values.mean()
    if len(size) < 2:
        return None
    rest = np.bincount(group, values - mean)
    half = np.sqrt((rest ** 2 / (1 - size / len(values))).sum()) / len(values)
    half = half * stdtrit(degrees_of_freedom(values - mean, rest, size), 0.975)
    return [float(mean - half), float(mean + half)]


def degrees_of_freedom(rest: np.ndarray, rest_of_group: np.ndarray, size: np.ndarray) -> float:
    """Of the variance in `whale_interval`, by Satterthwaite's rule; from the residuals (n,), their sums by group and its size.

        tr(C A)^2 / tr(C A C A),  C = diag(1 / (1 - h)),  A = diag(v) - h v' - v h' + sum(v) h h',  h = size / n

    A is what the residuals' sums vary by where queries of a group correlate by r: v(g) = size + r size (size - 1). As
    Imbens and Kolesar (2016), r is estimated; below ALIKE the estimate is not trusted. Without a G x G matrix, any G fits.
    """
    pairs, square = (size ** 2 - size).sum(), (rest ** 2).sum()
    alike = len(rest) / pairs * ((rest_of_group ** 2).sum() / square - 1) if pairs and square else 0
    h, v, c = size / len(rest), size + max(alike, ALIKE) * size * (size - 1.0), len(rest) / (len(rest) - size)
    both, middle = np.stack([h, v]), np.array([[v.sum(), -1.0], [-1.0, 0.0]])
    off = (both * c) @ both.T @ middle
    diagonal = v.sum() * h ** 2 - 2 * h * v
    return (c * (v + diagonal)).sum() ** 2 / (np.trace(off @ off) + (c ** 2 * v * (v + 2 * diagonal)).sum())


def sign_flip_p_value(difference: np.ndarray, group: np.ndarray, flips: int = 10_000, seed: int = 0) -> float:
    """Two-sided permutation p-value of a mean difference of zero, (n,) -> number in (0, 1].

    Under the null hypothesis the two submissions are interchangeable for each whale, so its differences may change sign
    together. Up to EXACT whales that differ all sign patterns are tried: p is the share of those at least as far from 0
    as what was observed. Above, `flips` random ones and the observed one: p = (1 + as far) / (1 + flips).
    """
    total = np.bincount(np.unique(group, return_inverse=True)[1], difference)
    total = total[total != 0]  # what is 0 stays 0
    # Sums in another order differ in the last digits: they are ties, not smaller.
    observed = np.abs(total.sum()) - 1e-12 * np.abs(total).sum()
    if len(total) <= EXACT:
        signs = 1 - 2.0 * (np.arange(2 ** len(total))[:, None] >> np.arange(len(total)) & 1)
        return float((np.abs(signs @ total) >= observed).mean())
    rng, block = np.random.default_rng(seed), max(1, 2 ** 22 // len(total))
    as_far = 0
    for start in range(0, flips, block):
        signs = 1 - 2.0 * rng.integers(2, size=(min(block, flips - start), len(total)), dtype=np.int8)
        as_far += int((np.abs(signs @ total) >= observed).sum())
    return (1 + as_far) / (1 + flips)
