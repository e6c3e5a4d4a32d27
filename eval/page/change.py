"""What changed from another run to this one, query by query.

Reads fold*/per_query.csv of both runs. Writes nothing: `figures` gives the paired differences sorted, and both runs' average
precisions against each other. Difference, interval and p-value are those of eval.compare.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from eval import compare
from eval.page import charts
from eval.page.charts import Figure
from eval.score import read_per_query

STEP = 0.1  # of average precision: side of a cell whose queries are one disc
KEYS = ["fold", "query_id"]


def figures(run: Path, folds: list[int], against: Path) -> list[Figure]:
    ours, theirs = (answered(path, folds) for path in (run, against))
    shared = sorted(set(ours.fold) & set(theirs.fold))
    queries = ours[ours.fold.isin(shared)].merge(theirs[theirs.fold.isin(shared)], "outer", KEYS, suffixes=("", "_before"), indicator=True)
    title, name = "Every query's change", charts.clip(against.resolve().name, 30)
    if queries.empty or (queries["_merge"] != "both").any() or (queries.n_pos != queries.n_pos_before).any():
        return [charts.nothing("change", title, f"{name} was not asked the same queries: no fold of it has the same fold*/per_query.csv; "
                               "predict and score both runs on one FOLDS.")]
    if queries[["strict", "strict_before"]].isna().any(axis=None):
        return [charts.nothing("change", title, "One of the runs has no strict scores: its file breaks the rules, which python -m eval.score tells.")]
    table = queries.assign(a=queries.strict_before, b=queries.strict, difference=queries.strict - queries.strict_before)
    return [waterfall(table, title, name), square(table, name)]


def answered(run: Path, folds: list[int]) -> pd.DataFrame:
    tables = [read_per_query(path).assign(fold=fold) for fold in folds if (path := run / f"fold{fold}" / "per_query.csv").is_file()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*KEYS, "n_pos", "strict", "whale_id", "scenario_id"])


def waterfall(table: pd.DataFrame, title: str, name: str) -> Figure:
    result, difference = compare.compare(table), table.difference.to_numpy()
    interval = "95 % interval {:+.4f} to {:+.4f}".format(*result["ci95"]) if result["ci95"] else "no interval for one individual alone"
    worth = f"{result['difference']:+.4f}, {interval}, p = {result['p_value']:.4f}"
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    counts = f"{better:,} queries are better, {worse:,} worse, {len(table) - better - worse:,} the same"
    quantiles = [f"{share} % of the queries change by {np.quantile(difference, 1 - share / 100):+.3f} or more" for share in (5, 25, 50, 75, 95)]
    caption = f"Average precision of this run minus that of {name}, sorted. In the mean {worth}, by {result['resampled']}; {counts}."
    return Figure("change", title, caption, charts.waterfall("change", difference, "change of AP"), [f"mean {worth}", counts, *quantiles])


def square(table: pd.DataFrame, name: str) -> Figure:
    cells = table.assign(x=(table.a / STEP).round() * STEP, y=(table.b / STEP).round() * STEP).groupby(["x", "y"]).size().reset_index(name="count")
    chart = charts.bubbles("square", cells.x.to_numpy(), cells.y.to_numpy(), cells["count"].to_numpy(), (f"AP in {name}", "AP in this run"))
    cells = cells.sort_values("count", ascending=False, kind="stable")
    words = [f"{x:.2f} before, {y:.2f} now: {count:,.0f} queries" for x, y, count in cells.to_numpy().tolist()]
    caption = (f"Discs above the dotted line are queries that this run answers better than {name}; a disc's area is the number of queries, "
               f"average precisions rounded to {STEP}.")
    return Figure("square", "Before and after", caption, chart, words)
