"""May an answer be believed? How well a run's own certainty parts right from wrong, and whether it comes true as often as it says.

Reads RUN/fold*/probabilities.csv where there is one, with per_query.csv, truth.csv and test/ of that fold; else the similarity
of first answers that eval.page.outcomes read. Writes nothing: `of_probabilities` and `of_similarities` give figures.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from eval import metrics, openset, score
from eval.page import charts
from eval.page.charts import Figure, Line
from eval.page.intervals import Redrawn, in_bins, in_words
from eval.page.outcomes import Outcomes

BINS = 10
VERTICES = 300  # of a drawn curve
TOLD = [0.01, 0.05, 0.1, 0.2, 0.5]  # false alarms of which the words tell the rate of hits


def probabilities(run: Path, folds: list[int]) -> pd.DataFrame | None:
    """A row a query of the folds that have probabilities: whale_id, p_new, new, and best and right of the best label (NaN in rankings)."""
    tables = [table(run, fold) for fold in folds if all((run / name.format(fold)).is_file() for name in
              ("fold{}/probabilities.csv", "fold{}/per_query.csv", "folds/{}/truth.csv"))]
    return pd.concat(tables, ignore_index=True) if any(map(len, tables)) else None


def table(run: Path, fold: int) -> pd.DataFrame:
    path, truth = run / f"fold{fold}" / "probabilities.csv", run / "folds" / str(fold) / "truth.csv"
    answered = score.read_per_query(run / f"fold{fold}" / "per_query.csv")
    if score.read_truth(truth)[1]:
        return of_rankings(path, truth, pd.Index(answered.query_id))
    rows = openset.read_probabilities(path, ["Image", "image"], pd.Index(answered.query_id))
    rows = rows.assign(Id=rows.Id.mask(rows.new, "")).sort_values(["query", "probability", "Id"], ascending=[True, False, True])
    best = rows.drop_duplicates("query")
    whale = answered.whale_id.to_numpy()
    return pd.DataFrame({"whale_id": whale, "p_new": openset.new_probability(rows, len(whale)), "new": whale == "",
                         "best": best.probability.to_numpy(), "right": (best.Id.to_numpy() == whale).astype(float)})


def of_rankings(path: Path, truth: Path, matched: pd.Index) -> pd.DataFrame:
    """As `table`; a query that the scenarios ask and the truth does not match is of an unknown whale."""
    scenarios, whales = score.neighbouring_scenarios(truth, None), score.neighbouring_whales(truth, None)
    asked = matched.union(scenarios.queries.query_id, sort=False) if scenarios else matched
    rows = openset.read_probabilities(path, ["query_id"], asked)
    images = score.asked_queries(asked, scenarios).query_image_id
    whale = pd.Series("", images) if whales is None else whales.reindex(images).fillna("")
    return pd.DataFrame({"whale_id": whale.to_numpy(), "p_new": openset.new_probability(rows, len(asked)),
                         "new": ~asked.isin(matched), "best": np.nan, "right": np.nan})


def of_probabilities(table: pd.DataFrame) -> list[Figure]:
    group = np.unique(metrics.whale_groups(table.whale_id), return_inverse=True)[1]
    drawn, new = Redrawn(group), table.new.to_numpy()
    figures = [roc("roc", "Known or new? ROC of the probability of being new", drawn, table.p_new.to_numpy(), new,
                   ("share of known ones taken for new", "share of new ones taken for new"), ("photographs of new individuals", "of known ones")),
               calibration("calibration-new", "Is the probability of being new true?", drawn, table.p_new.to_numpy(), new,
                           ("probability of being new", "share that is new"))]
    if table.best.notna().all():
        figures.append(calibration("calibration-best", "Is the probability of the first name true?", drawn, table.best.to_numpy(),
                                   table.right.to_numpy() == 1, ("probability of the first name", "share that is right")))
    return figures


def of_similarities(outcomes: Outcomes) -> list[Figure]:
    """Of rankings that tell no probability; a query without an answer has no part in it."""
    given = outcomes.queries.first_score.notna().to_numpy()
    if not given.any():
        return [charts.nothing("roc", "May the first answer be believed?", "No query has a first answer with a similarity.")]
    value, right = outcomes.queries.first_score.to_numpy()[given], outcomes.hits[given, 0]
    drawn = Redrawn(np.unique(outcomes.group[given], return_inverse=True)[1])
    edges = np.unique(np.quantile(value, np.linspace(0, 1, BINS + 1)))
    words = ("similarity of the first answer", "share that is right")
    figures = [roc("roc", "May the first answer be believed? ROC of its similarity", drawn, value, right,
                   ("share of wrong ones believed", "share of right ones believed"), ("first answers are right", "are wrong"))]
    if len(edges) > 1:
        figures.append(calibration("calibration", "How often is the first answer right?", drawn, value, right, words, edges))
    return figures


def roc(name: str, title: str, drawn: Redrawn, value: np.ndarray, positive: np.ndarray, words: tuple[str, str], kinds: tuple[str, str]) -> Figure:
    """`value` (n,) is to be higher where `positive` (n,); words of the axes, false alarms first; what the positives and the others are."""
    if positive.all() or not positive.any():
        return charts.nothing(name, title, f"All {len(positive):,} queries are of one kind, so nothing can be told apart.")
    alarms, found = rates(value, positive)
    area = in_words(*drawn.area_under_roc(value, positive))
    shown = np.unique(np.linspace(0, len(alarms) - 1, VERTICES).round().astype(int))
    chart = charts.lines(name, {f"area {area}": Line(alarms[shown], found[shown])}, *words, diagonal=True)
    at = found[np.searchsorted(alarms, TOLD, side="right") - 1]
    lines = [f"area {area}", *(f"{words[0]} {alarm:.2f}: {words[1]} {hit:.3f}" for alarm, hit in zip(TOLD, at))]
    caption = (f"{int(positive.sum()):,} {kinds[0]}, {int((~positive).sum()):,} {kinds[1]}; from left to right ever lower values count. "
               "A guess follows the dotted line and has the area 0.5. The interval is over redrawn individuals.")
    return Figure(name, title, caption, chart, lines)


def rates(value: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate at each distinct threshold, from none to all, (t + 1,) each."""
    order = np.argsort(-value, kind="stable")
    last = np.append(np.diff(value[order]) != 0, True)
    hits, misses = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    return np.append(0, misses / misses[-1]), np.append(0, hits / hits[-1])


def calibration(name: str, title: str, drawn: Redrawn, said: np.ndarray, true: np.ndarray, words: tuple[str, str],
                edges: np.ndarray | None = None) -> Figure:
    """What was said (n,) against how often it came true (n,), in bins that hold their upper edge: ten of a probability without `edges`."""
    bounds = np.linspace(0, 1, BINS + 1) if edges is None else edges
    number, query, k = np.searchsorted(bounds[1:-1], said), np.arange(len(said)), len(bounds) - 1
    came = drawn.means(*in_bins(true.astype(float), query, number, len(said), k)).T
    count, total = np.bincount(number, minlength=k), np.bincount(number, said, minlength=k)
    bins = [(bounds[b], bounds[b + 1], count[b], total[b] / count[b], *came[b]) for b in np.flatnonzero(count)]
    lines = [f"{low:.3g} to {high:.3g}: {n:,} queries, {words[0]} {mean:.3f}, {words[1]} {in_words(*worth)}" for low, high, n, mean, *worth in bins]
    chart = charts.reliability(name, Line(*np.array(bins)[:, 3:].T), said, *words, probable=edges is None)
    caption = (f"Points: {words[1]} with its 95 % interval over redrawn individuals (none: fewer than five, or all alike), by tenths of the "
               f"{'range' if edges is None else 'queries'}. Bars: how many queries.")
    if edges is None:
        error = metrics.calibration_error(said, true)
        caption += f" On the dotted line it is as sure as it should be; the mean gap (calibration error) is {error:.3f}."
    return Figure(name, title, caption, chart, lines)
