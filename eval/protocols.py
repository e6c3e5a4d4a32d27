"""What each protocol selects: which images train, which are asked, and against which database.

Takes a `Labels` (one entry a row of metadata.csv), returns `Fold`s of row numbers; writes nothing. `eval.folds` makes
directories of them. An empty whale_id is never a class and never a match: such images stay in training (in `time` if
dated before the cut), hence in the catalogue where that is the database; only `identify` asks some, as unknown.

Whales with one image, or one encounter: dealt like all others. Where they come to be asked nothing can match them, so
the query is not made; in the databases and trainings that their part belongs to they are distractors.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from eval.files import InputError
from eval.labels import Labels

PARTS = 5  # of a test whale's encounters in protocol `whale`, whatever the number of folds
UNKNOWN_QUERIES = 1000  # the seventh-place validation set of the humpback competition held so many
SUITE_QUERIES = (1183, 616, 567, 501, 309, 306, 282, 279, 274, 102)  # of the hidden test of Where's Whale-do?, which
SUITE_IMAGES = 3400  # has about so many images
OUTSIDE = "top to top, all years, queries outside the database"


@dataclass(frozen=True)
class Scenario:
    """Rows to ask, all of known whales, and rows that may answer; those without a match are dropped by `matches`."""

    kind: str
    queries: np.ndarray
    database: np.ndarray


@dataclass(frozen=True)
class Fold:
    """Rows to train on, the test part, and its scenarios; `unknown` rows lose their whale (protocol `identify`)."""

    train: np.ndarray
    test: np.ndarray
    scenarios: list[Scenario] = field(default_factory=list)
    unknown: np.ndarray = field(default_factory=lambda: np.array([], int))
    left_out: dict[str, int] = field(default_factory=dict)


def select(labels: Labels, protocol: str, n_folds: int, seed: int, date: str | None = None) -> list[Fold]:
    """The folds of a protocol; `date` is for `time`."""
    makers = {
        "stratified": lambda: stratified(labels, n_folds, seed),
        "encounter": lambda: encounter(labels, n_folds, seed),
        "whale": lambda: whale(labels, n_folds, seed),
        "time": lambda: time(labels, n_folds, date),
        "identify": lambda: identify(labels, seed),
        "suite": lambda: suite(labels, seed),
    }
    return makers[protocol]()


def matches(labels: Labels, scenario: Scenario) -> pd.DataFrame:
    """All pairs of rows (query, database) that show the same whale in two images."""
    queries = pd.DataFrame({"whale": labels.whale[scenario.queries], "query": scenario.queries})
    database = pd.DataFrame({"whale": labels.whale[scenario.database], "database": scenario.database})
    pairs = queries.merge(database, on="whale")
    return pairs.loc[pairs["query"] != pairs["database"], ["query", "database"]]


def deal(whale: np.ndarray, group: np.ndarray, parts: int, random: np.random.Generator) -> np.ndarray:
    """A part in 0..parts-1 for each row: each whale's groups (encounters or images), shuffled, go round like cards.

    Rows of one group share a part; a whale with no more groups than parts has each in another one.
    """
    _, first, which = np.unique(group, return_index=True, return_inverse=True)
    seat = random.permutation(whale.max() + 1)[whale[first]]
    order = np.lexsort((random.permutation(len(first)), seat))
    part = np.empty(len(first), int)
    part[order] = np.arange(len(first)) % parts
    return part[which]


def whale(labels: Labels, n_folds: int, seed: int) -> list[Fold]:
    """Test whales are not in training; scenario k asks part k of their encounters against the other parts."""
    fold_of_whale = _deal_whales(labels, n_folds, np.random.default_rng([seed]))
    fold = np.where(labels.known, fold_of_whale[labels.whale], -1)
    return [_whale_fold(labels, fold == k, np.random.default_rng([seed, k])) for k in range(n_folds)]


def _deal_whales(labels: Labels, n_folds: int, random: np.random.Generator) -> np.ndarray:
    """A fold for each whale: from those with most images down, the askable ones first, each next n by a new shuffle."""
    rows = pd.DataFrame({"whale": labels.whale, "encounter": labels.encounter})[labels.known]
    n_images = rows.groupby("whale").size().to_numpy()
    if n_folds > len(n_images):
        advice = "choose at most as many folds" if len(n_images) > 1 else "protocol whale needs two or more, choose encounter"
        raise InputError(f"--n-folds {n_folds}: there are only {len(n_images)} whales; {advice}")
    askable = rows.groupby("whale")["encounter"].nunique().to_numpy() > 1
    order = np.lexsort((random.permutation(len(n_images)), -n_images, ~askable))
    rounds = -(-len(order) // n_folds)
    fold = np.empty(len(order), int)
    fold[order] = np.argsort(random.random((rounds, n_folds)), axis=1).ravel()[: len(order)]
    return fold


def _whale_fold(labels: Labels, asked: np.ndarray, random: np.random.Generator) -> Fold:
    test = np.flatnonzero(asked)
    part = deal(labels.whale[test], labels.encounter[test], PARTS, random)
    scenarios = [Scenario(f"part {k + 1} of each whale's encounters against the other parts",
                          test[part == k], test[part != k]) for k in range(PARTS)]
    return Fold(np.flatnonzero(~asked), test, scenarios)


def encounter(labels: Labels, n_folds: int, seed: int) -> list[Fold]:
    """Encounters are split: queries are the test images, the database is the training images."""
    return _against_catalogue(labels, labels.encounter, "new encounters against the catalogue", n_folds, seed)


def stratified(labels: Labels, n_folds: int, seed: int) -> list[Fold]:
    """Images dealt per whale, near-duplicates on both sides."""
    return _against_catalogue(labels, np.arange(len(labels.whale)), "images against the catalogue", n_folds, seed)


def _against_catalogue(labels: Labels, group: np.ndarray, kind: str, n_folds: int, seed: int) -> list[Fold]:
    groups = len(np.unique(group[labels.known]))
    if n_folds > groups:
        raise InputError(f"--n-folds {n_folds}: {labels.file} has {groups} to deal out, so in some folds no query has a true match; choose fewer")
    part = np.full(len(labels.whale), -1)
    part[labels.known] = deal(labels.whale[labels.known], group[labels.known], n_folds, np.random.default_rng([seed]))
    parts = [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(n_folds)]
    return [Fold(train, test, [Scenario(kind, test, train)]) for train, test in parts]


def time(labels: Labels, n_folds: int, date: str | None) -> list[Fold]:
    """One fold: training before `date`, queries from then on; by default the day that leaves nearest 1/n to ask."""
    day = labels.day
    if day.dropna().nunique() < 2:
        raise InputError(f"{labels.file}: protocol time needs column 'date' (or 'timestamp') with at least two days")
    cut = pd.Timestamp(date) if date else _cut(day.dropna(), 1 / n_folds)
    if not day.min() < cut <= day.max():
        raise InputError(f"--date {date}: photographs are needed before it and from it on, "
                         f"and they are of {day.min().date()} to {day.max().date()}")
    before, after = (day < cut).to_numpy(), (day >= cut).to_numpy()
    train, test = np.flatnonzero(before), np.flatnonzero(after & labels.known)
    left_out = {"images without a date": int(day.isna().sum()),
                "images after the date without a whale_id": int((after & ~labels.known).sum())}
    kind = f"from {cut.date()} on against the catalogue before"
    return [Fold(train, test, [Scenario(kind, test, train)], left_out=left_out)]


def _cut(day: pd.Series, share: float) -> pd.Timestamp:
    n_from = day.value_counts().sort_index(ascending=False).cumsum()[:-1]  # never the first day: something must train
    return (n_from / len(day) - share).abs().idxmin()


def suite(labels: Labels, seed: int) -> list[Fold]:
    """The competition's kinds of scenario in one fold of the hidden test's size, without training.

    Of the hidden test ten numbers of queries are known and nine kinds; which number goes with which kind is not. Chosen
    here: the tenth kind asks photographs that are not in their database, and the larger numbers go to the kinds that can
    ask more images of all DATA, so that no seed runs short. On the beluga labels (images that could be asked, queries):

        all years, queries in the database        5,206   1,183      2019 to 2018       1,054   306
        all years, queries outside the database   2,496     616      within 2017        1,031   282
        top to lateral                            2,489     567      2018 to 2017         980   279
        within 2019                               2,158     501      2019 to 2017         920   274
        within 2018                               1,972     309      lateral to top       468   102

    Fewer kinds or smaller data ask what they can of that, kinds beyond ten the smallest number each. DATA of more than
    3,400 images is cut by drawing whole whales, so a query keeps all its matches.
    """
    random = np.random.default_rng([seed])
    kinds = _kinds(labels, random)
    able = [matches(labels, kind)["query"].unique() for kind in kinds]
    sampled = _whole_whales(labels.whale, random)
    sizes = _sizes(np.array([len(rows) for rows in able]))
    scenarios = [_drawn(*one, sampled, random) for one in zip(kinds, able, sizes)]
    beyond = [max(0, int(np.isin(rows, sampled).sum()) - int(size)) for rows, size in zip(able, sizes)]
    answering = np.concatenate([scenario.database for scenario in scenarios])
    left_out = {f"images of whales beyond {SUITE_IMAGES:,} images": len(labels.whale) - len(sampled),
                "images of another viewpoint than top, left and right (in no database)": len(np.setdiff1d(sampled, answering)),
                "queries beyond the hidden test's number for their scenario": sum(beyond)}
    return [Fold(np.array([], int), sampled, scenarios, left_out=left_out)]


def _kinds(labels: Labels, random: np.random.Generator) -> list[Scenario]:
    """Every kind with all the rows that it could ask, if they have a match, and all that could answer."""
    if "viewpoint" not in labels.metadata or labels.day.isna().all():
        raise InputError(f"{labels.file}: protocol suite needs columns 'viewpoint' and 'date'; choose another protocol")
    viewpoint, year = labels.metadata["viewpoint"].to_numpy(), labels.day.dt.year.to_numpy()
    top, lateral = viewpoint == "top", np.isin(viewpoint, ["left", "right"])
    if not top.any():
        raise InputError(f"{labels.file}: protocol suite needs images with viewpoint 'top'; choose another protocol, or mend the column, "
                         f"which holds {', '.join(map(repr, pd.unique(viewpoint)[:5]))}")
    years = np.unique(year[top & ~np.isnan(year)]).astype(int)
    kinds = [("top to top, all years", top, top), (OUTSIDE, _half(labels.whale, top, random), top)]
    kinds += [(f"top to top, within {one}", top & (year == one), top & (year == one)) for one in years]
    kinds += [(f"top to top, {newer} to {older}", top & (year == newer), top & (year == older))
              for newer in years for older in years if newer > older]
    kinds += [("top to lateral", top, lateral), ("lateral to top", lateral, top)]
    return [Scenario(kind, np.flatnonzero(queries & labels.known), np.flatnonzero(database))
            for kind, queries, database in kinds]


def _half(whale: np.ndarray, among: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """True for half of each whale's rows, rounded down: however many are asked, another one stays to be found."""
    rows = random.permutation(np.flatnonzero(among))
    of_whale = pd.Series(whale[rows]).groupby(whale[rows])
    half = np.zeros(len(whale), bool)
    half[rows] = of_whale.cumcount() < of_whale.transform("size") // 2
    return half


def _whole_whales(whale: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The rows of whales in a drawn order while they are at most SUITE_IMAGES; each row without a whale counts as one."""
    one = np.where(whale >= 0, whale, whale.max() + 1 + np.arange(len(whale)))
    _, which, n_images = np.unique(one, return_inverse=True, return_counts=True)
    order = random.permutation(len(n_images))
    drawn = order[np.cumsum(n_images[order]) <= SUITE_IMAGES]
    return np.flatnonzero(np.isin(which, drawn))


def _sizes(able: np.ndarray) -> np.ndarray:
    """The number of queries of each kind by its rank among the numbers of images that the kinds could ask."""
    rank = np.argsort(np.argsort(-able, kind="stable"))
    return np.array(SUITE_QUERIES)[np.minimum(rank, len(SUITE_QUERIES) - 1)]


def _drawn(kind: Scenario, able: np.ndarray, size: int, sampled: np.ndarray, random: np.random.Generator) -> Scenario:
    """The kind among the sampled rows with `size` queries, plus those that cannot be asked, for they are counted."""
    asked = random.permutation(np.intersect1d(able, sampled))[:size]
    unable = np.setdiff1d(np.intersect1d(kind.queries, sampled), able)
    database = np.intersect1d(kind.database, sampled)
    if kind.kind == OUTSIDE:
        database = np.setdiff1d(database, asked)
    return Scenario(kind.kind, np.union1d(asked, unable), database)


def identify(labels: Labels, seed: int) -> list[Fold]:
    """One fold: one image of each known whale with two or more is asked, plus unknowns; no scenarios.

    Unknown are the rows without a whale_id: 1,000 of them are asked, at most half, the others stay in training. Without
    such rows a third of the whales become unknown: all images of half of those are asked, the others stay in training.
    """
    several = labels.metadata["whale_id"].str.contains(r"\s")
    if several.any():
        raise InputError(f"{labels.file}: line {several.idxmax() + 2}: whale_id {labels.metadata['whale_id'][several.idxmax()]!r} holds "
                         "a space, which stands between names in a submission; write one word")
    random = np.random.default_rng([seed])
    unknown, asked_unknown = (_unknown_whales if labels.known.all() else _unknown_images)(labels, random)
    rows = pd.DataFrame({"row": np.arange(len(unknown)), "whale": labels.whale})[~unknown]
    rows = rows[rows["whale"].duplicated(keep=False)]
    asked_known = rows.iloc[random.permutation(len(rows))].drop_duplicates("whale")["row"].to_numpy()
    test = np.union1d(asked_known, asked_unknown)
    return [Fold(np.setdiff1d(np.arange(len(unknown)), test), test, unknown=np.flatnonzero(unknown))]


def _unknown_images(labels: Labels, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows = random.permutation(np.flatnonzero(~labels.known))
    return ~labels.known, rows[: min(UNKNOWN_QUERIES, len(rows) // 2)]


def _unknown_whales(labels: Labels, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    whales = random.permutation(labels.whale.max() + 1)
    whales = whales[: len(whales) // 3]
    return np.isin(labels.whale, whales), np.flatnonzero(np.isin(labels.whale, whales[: -(-len(whales) // 2)]))
