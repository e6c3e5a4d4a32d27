"""What is drawn of a run: which figures the page has, in which order, what they say, and why one is missing.

Reads what is there of RUN (eval.page.outcomes, difficulty, trust, cost, embedding_map and change tell which file they read). Writes nothing.

    sections(run, [0, 1, 2], against=None)      ->  list[Section], each with its figures: SVG, caption and the same in words

Expect 3 to 16 s on two cores, most of it for the map. Same files, same machine: same bytes.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from eval.page import change, charts, cost, difficulty, embedding_map, outcomes, trust
from eval.page.charts import Figure
from eval.page.cost import Table
from eval.page.intervals import Redrawn
from eval.page.outcomes import Outcomes

UNSCORED = ("Not every fold has fold*/per_query.csv, fold*/submission.csv and folds/*/truth.csv: ./run_all.sh makes them, and "
            "python -m eval.score SUBMISSION TRUTH --per-query FILE the first of them.")

GAINS = ("Rankings by some of the models, from saved embeddings. The gain of a recipe's first models is what the last of them adds to those before; "
         "where one is left out, what it adds to the others.")


class Section(NamedTuple):
    name: str
    title: str
    intro: str
    figures: list[Figure]
    table: Table | None = None  # header, rows


def sections(run: Path, folds: list[int], against: Path | None = None) -> list[Section]:
    """Every section of the page that is drawn; InputError where a file is there and cannot be read."""
    found, told = outcomes.read(run, folds), trust.probabilities(run, folds)
    drawn = Redrawn(found.group) if found else None
    ensembles, table = cost.of_ensembles(run)
    all_sections = [
        Section("ranks", "How far down the answer?", "What the first answers hold, the more of them are looked at.",
                [difficulty.ranks(found, drawn)] if found else [charts.nothing("ranks", "Right answers by place", UNSCORED)]),
        Section("kinds", "Which queries are hard?", "Means of average precision, and of what is found, by what is known of the query. A diamond has "
                "no interval: fewer than five individuals, or all alike. The dotted stroke is the mean of all.",
                difficulty.kinds(run, found, drawn) if found else [charts.nothing("kinds", "Scores by kind of query", UNSCORED)]),
        Section("trust", "May an answer be believed?", "What the run's own certainty is worth.", believed(told, found)),
        Section("map", "What looks alike to the models?", "", [embedding_map.figure(run, folds)]),
        Section("time", "Where did the time go?", "", [cost.of_steps(run), *cost.of_predictions(run, folds)]),
        Section("ensembles", "What is each model worth?", GAINS if table else "", ensembles, table),
    ]
    if against is not None:
        all_sections.append(Section("change", f"Against {charts.clip(against.resolve().name, 60)}", "", change.figures(run, folds, against)))
    return [section for section in all_sections if section.name != "ensembles" or not (found and found.of_names)]


def believed(told: pd.DataFrame | None, found: Outcomes | None) -> list[Figure]:
    if told is not None:
        return trust.of_probabilities(told)
    if found and not found.of_names:
        return trust.of_similarities(found)
    return [charts.nothing("roc", "Known or new?", "No probabilities: fold*/probabilities.csv is not there; "
                           "solution.predict --probabilities writes it.")]
