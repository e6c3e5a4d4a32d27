"""How far down a run's right answers stand, and which queries are hard: by scenario, by photographs of the whale, by viewpoint, by time.

Reads what eval.page.outcomes read, and RUN/folds/manifest.json for what the scenarios ask. Writes nothing: `ranks` and `kinds` give
figures, their intervals by whale.
"""

from pathlib import Path
from typing import Sequence

import numpy as np

from eval.page import charts, row_charts
from eval.page.charts import Figure, Line
from eval.files import read_json
from eval.page.intervals import Redrawn, in_bins, in_words
from eval.page.outcomes import Outcomes
from eval.page.row_charts import Row

PHOTOGRAPHS = [1, 2, 4, 8, 16, 32]  # upper edges of the bins of how many photographs a whale has
DAYS = {"within a day": 1, "within 30 days": 30, "within a year": 365, "later": np.inf}
MANY = 12  # rows of a figure at most, where the data may have any number of kinds
QUARTERS = [0.25, 0.5, 0.75]


def ranks(found: Outcomes, drawn: Redrawn) -> Figure:
    """The first k places, k = 1 .. 20 (1 .. 5 for names); an empty place is a wrong one."""
    places, title = np.arange(1, found.hits.shape[1] + 1), "Right answers by place"
    so_far, one = np.cumsum(found.hits, axis=1), np.ones(found.hits.shape)
    if found.of_names:
        known = one * (found.queries.whale_id != "").to_numpy()[:, None]
        shares = {"known individuals": (so_far > 0) * known, "new individuals": (so_far > 0) * (1 - known)}
        of = dict(zip(shares, [known, 1 - known]))
        caption = "Share of the photographs whose right name is among the first k."
    else:
        most = np.minimum(found.queries.n_pos.to_numpy(float), len(places))[:, None]
        shares = {"a match among them": so_far > 0, "share that matches": so_far / places, "matches found": so_far / most}
        of = dict.fromkeys(shares, one)
        caption = ("Of the first k photographs found: how often one is a match (CMC), what share of them are matches (precision), and what share of "
                   "the true matches they hold (recall; 20 matches at most are asked for).")
    series = {name: drawn.means(share, of[name]) for name, share in shares.items() if of[name].any()}
    chart = charts.lines("ranks", {name: Line(places, *values) for name, values in series.items()}, "first k places", "share")
    words = [f"first {k}: " + ", ".join(f"{name} {in_words(*values[:, k - 1])}" for name, values in series.items()) for k in places]
    return Figure("ranks", title, f"{caption} Bands are 95 % intervals over redrawn individuals.", chart, words)


def kinds(run: Path, found: Outcomes, drawn: Redrawn) -> list[Figure]:
    """The figures that have at least two rows, or say what is missing."""
    if found.queries.strict.isna().any():
        return [charts.nothing("kinds", "Scores by kind of query",
                               "There are no strict scores: the file breaks the rules, which python -m eval.score tells.")]
    figures = [by_scenario(run, found, drawn), by_photographs(found, drawn), by_viewpoint(found, drawn), by_size(found, drawn)]
    return [figure for figure in figures + [by_days(found, drawn)] * (not found.of_names) if figure]


def by_scenario(run: Path, found: Outcomes, drawn: Redrawn) -> Figure | None:
    """Scenarios of one name and kind are pooled over the folds; with several folds each has a row, too."""
    asked, queries = said(run), found.queries
    keys = [(name, asked.get((fold, name), "")) if name else None for fold, name in zip(queries.fold, queries.scenario_id)]
    rows, several = scores(keys, found, drawn), queries.fold.nunique() > 1
    rows += scores([(f"fold {fold}", "all its queries") for fold in queries.fold], found, drawn) if several else []
    caption = f"Strict score of each scenario{', pooled over the folds, and of each fold' if several else ''}."
    return score_forest("by-scenario", "By scenario", caption, rows, found)


def said(run: Path) -> dict[tuple[int, str], str]:
    """What each scenario of each fold asks, as the manifest has it."""
    path = run / "folds" / "manifest.json"
    folds = read_json(path)["folds"] if path.is_file() else {}
    return {(int(fold), name): str(asked.get("kind", "")) for fold, each in folds.items() for name, asked in each.get("scenarios", {}).items()}


def by_photographs(found: Outcomes, drawn: Redrawn) -> Figure | None:
    photographs = found.queries.photographs
    names = ["1 photograph", "2 photographs", *(f"{low + 1}–{high}" for low, high in zip(PHOTOGRAPHS[1:], PHOTOGRAPHS[2:])),
             f"{PHOTOGRAPHS[-1] + 1} and more", "none"]
    number = np.where(photographs.isna(), len(PHOTOGRAPHS) + 1, np.searchsorted(PHOTOGRAPHS, photographs.fillna(1)))
    rows = rows_of(names, number, found.queries.strict.to_numpy(), drawn)
    where = "the catalogue, none where it is new" if found.of_names else "the query's database, its own left out"
    caption = f"Strict score by the number of photographs that the individual has in {where}."
    return score_forest("photographs", "By photographs of the individual", caption, rows, found)


def by_size(found: Outcomes, drawn: Redrawn) -> Figure | None:
    """Quarters of the queries by the shorter side of the photograph."""
    side = found.queries.shorter
    if side.isna().all():
        return charts.nothing("size", "By size of the photograph", "The sizes are not known: metadata.csv has no height and width.")
    edges = np.unique(side.quantile(QUARTERS, interpolation="lower"))
    between = [f"{low + 1:.0f}–{high:.0f} pixels" for low, high in zip(edges, edges[1:])]
    names = [f"up to {edges[0]:.0f} pixels", *between, f"over {edges[-1]:.0f} pixels"]
    number = np.where(side.isna(), -1, np.searchsorted(edges, side))
    rows = rows_of(names, number, found.queries.strict.to_numpy(), drawn)
    caption = "Strict score by the shorter side of the query's photograph, quarters of the queries."
    return score_forest("size", "By size of the photograph", caption, rows, found)


def by_viewpoint(found: Outcomes, drawn: Redrawn) -> Figure | None:
    """Of names the score by viewpoint; of photographs how many matches are found, by both viewpoints."""
    title, matches = "By viewpoint", found.matches
    if (found.queries.viewpoint == "").all():
        return charts.nothing("viewpoint", title, "The viewpoints are not known: metadata.csv has no column viewpoint.")
    if found.of_names:
        keys = [(viewpoint, "") if viewpoint else None for viewpoint in found.queries.viewpoint]
        return score_forest("viewpoint", title, "Strict score by viewpoint of the photograph.", scores(keys, found, drawn), found)
    pair = (matches["from"] + " → " + matches["to"]).where((matches["from"] != "") & (matches["to"] != ""))
    names = pair.value_counts().head(MANY).index.sort_values()
    kind = "viewpoint of query and match" + f" (the {MANY} most frequent)" * (pair.nunique() > MANY)
    return of_matches("viewpoint", title, kind, names, names.get_indexer(pair), found, drawn)


def by_days(found: Outcomes, drawn: Redrawn) -> Figure | None:
    title, days = "By time between the photographs", found.matches.days
    if days.isna().all():
        return charts.nothing("days", title, "The times are not known: the data have no timestamp and no date.")
    number = np.where(days.isna(), -1, np.searchsorted(list(DAYS.values()), days.fillna(0)))
    return of_matches("days", title, "the time between query and match", list(DAYS), number, found, drawn)


def of_matches(name: str, title: str, kind: str, names: Sequence[str], number: np.ndarray, found: Outcomes, drawn: Redrawn) -> Figure | None:
    """Which true matches are found; only queries that can have all of theirs among the answers have a part in it."""
    matches, most = found.matches, found.hits.shape[1]
    number = np.where(found.queries.n_pos.to_numpy()[matches["query"]] <= most, number, -1)
    rows = rows_of(names, number, matches.found, drawn, matches["query"])
    caption = f"Share of the true matches that stand among the first {most}, by {kind}, of queries that have {most} matches at most."
    return forest(name, title, caption, rows, matches.found[number >= 0].mean(), "matches found", "matches")


def score_forest(name: str, title: str, caption: str, rows: list[Row], found: Outcomes) -> Figure | None:
    measure = f"MAP@{found.hits.shape[1]}, strict"
    return forest(name, title, caption, rows, found.queries.strict.mean(), measure, "queries")


def scores(keys: list[tuple[str, str] | None], found: Outcomes, drawn: Redrawn) -> list[Row]:
    """Rows of strict scores by each query's label and detail (None: it has no part); fold 10 follows fold 9."""
    order = sorted({key for key in keys if key}, key=lambda key: (len(key[0]), key))
    place = {key: number for number, key in enumerate(order)}
    return rows_of(order, np.array([place.get(key, -1) for key in keys]), found.queries.strict.to_numpy(), drawn)


def rows_of(names: Sequence[str | tuple[str, str]], number: np.ndarray, value: np.ndarray, drawn: Redrawn,
            query: np.ndarray | None = None) -> list[Row]:
    """A row a name, with its detail or without, that has parts: their mean `value`.

    Part i has the name `number[i]` (-1: none) and is query i, or a match of `query[i]`.
    """
    if not len(names):
        return []
    n = len(drawn.group)
    query = np.arange(n) if query is None else np.asarray(query)
    top, bottom = in_bins(np.asarray(value, float), query, number, n, len(names))
    counts = bottom.sum(axis=0)
    labels = [name if isinstance(name, tuple) else (name, "") for name in names]
    return [Row(label, *worth, note=f"{in_words(*worth)}, n {count:,.0f}", detail=detail)
            for (label, detail), worth, count in zip(labels, drawn.means(top, bottom).T, counts) if count]


def forest(name: str, title: str, caption: str, rows: list[Row], reference: float, measure: str, counted: str) -> Figure | None:
    """None where all is of one kind."""
    if len(rows) < 2:
        return None
    chart = row_charts.forest(name, rows, measure, reference)
    return Figure(name, title, f"{caption} n counts {counted}.", chart, row_charts.words(rows))
