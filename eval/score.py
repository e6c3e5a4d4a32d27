"""Scores and validates a submission.

Reads submission.csv (`query_id,database_image_id,score`, or `Image,Id` / `image,predictions`), the fold's truth.csv and,
where they exist, the scenarios in the fold's `test/` and the whales in its `labels.csv`.
Writes score.json, and with --per-query a row per query of the truth.

    python -m eval.score submission.csv folds/0/truth.csv --json score.json [--probabilities probabilities.csv]

Expect a short table. `official` is the organisers' number, `strict` the same for a file that breaks no rule, with a
missing query counted as 0. A file that breaks a rule is told line by line and the exit status is 2. With calibrated
probabilities `eval.openset` adds `open_set`: how well unknown whales are told.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval import metrics, openset
from eval.files import InputError, read_table, run, write_json, write_table
from eval.labels import numbers, refuse
from eval.rules import COLUMNS, LABEL_COLUMNS, LABEL_LIMIT, Scenarios, answer_rule, header_rule, image_rules, label_rules, listed
from eval.rules import mark_rule, neighbouring_scenarios, once, read_truth, scenarios_of, shown, such_as, within_0_and_1

NEW = "new_whale"
MEASURES = ["official", "strict", "map5_images", "map5_individuals", "top1"]


class Evaluation(NamedTuple):
    per_query: pd.DataFrame  # query_id, scenario_id, query_image_id, whale_id ("" unknown), n_pos, then MEASURES
    breaches: list[str]
    warnings: list[str]


def asked_queries(query_id: pd.Index, scenarios: Scenarios | None) -> pd.DataFrame:
    """query_id, scenario_id, query_image_id: from the scenario tables, else from ids such as `scenario01-train2893`."""
    if scenarios is None:
        parts = query_id.to_series().str.extract("^(?:([^-]*)-)?(.*)$").fillna("")
        return parts.set_axis(["scenario_id", "query_image_id"], axis=1).rename_axis("query_id").reset_index()
    found = scenarios.queries.set_index("query_id")[["scenario_id", "query_image_id"]].reindex(query_id)
    return found.fillna("").rename_axis("query_id").reset_index()


class Ranked(NamedTuple):
    """The submitted rows of the truth's queries in ranking order, parallel arrays."""
    query: np.ndarray
    image: np.ndarray
    score: np.ndarray
    hit: np.ndarray


def ranked(rows: pd.DataFrame, score: np.ndarray, truth: pd.DataFrame, queries: pd.Index, images: pd.Index) -> Ranked:
    query, image = queries.get_indexer(rows.query_id), images.get_indexer(rows.database_image_id)
    match = queries.get_indexer(truth.query_id) * len(images) + images.get_indexer(truth.database_image_id)
    hit = pd.Series(query * len(images) + image).isin(match).to_numpy()
    order = metrics.ranking(query, score, image)
    order = order[np.searchsorted(query[order], 0):]  # of the queries numbered -1 the truth knows nothing
    return Ranked(query[order], image[order], score[order], hit[order])


def score_images(rows: pd.DataFrame, truth: pd.DataFrame, scenarios: Scenarios | None, whale_id: pd.Series | None,
                 breaches: list[str]) -> Evaluation:
    """Evaluates a ranking of images. `whale_id`: by image id, None without labels; `breaches`: those of the header."""
    table = asked_queries(pd.Index(truth.query_id.unique()), scenarios)
    queries, n_pos = pd.Index(table.query_id), truth.groupby("query_id", sort=False).size().to_numpy()
    ids = pd.concat([rows.database_image_id, truth.database_image_id, table.query_image_id])
    images = pd.Index(ids.unique()).sort_values()
    score = pd.to_numeric(rows.score, errors="coerce").to_numpy(float)
    row = ranked(rows, score, truth, queries, images)
    official = metrics.average_precision(row.query, row.score, row.hit, n_pos)
    refused = bool(breaches) or not within_0_and_1(score).all()
    rules = image_rules(rows, score, scenarios) + ([] if scenarios else answer_rule(rows, truth))
    breaches = breaches + listed(rules, rows)
    whales = pd.Series("", images) if whale_id is None else whale_id.reindex(images).fillna("")
    table["whale_id"], table["n_pos"] = whales[table.query_image_id].to_numpy(), n_pos
    table["official"] = np.nan if refused else official
    table["strict"] = np.nan if breaches else np.nan_to_num(official)
    query_image = images.get_indexer(table.query_image_id)
    table = table.assign(**first_places(row, n_pos, metrics.whale_groups(whales), query_image))
    table["map5_individuals"] = table.map5_individuals.where(table.whale_id != "")
    return Evaluation(table, breaches, warnings_of(table, np.isnan(official), rows, truth, whale_id is not None))


def warnings_of(table: pd.DataFrame, missing: np.ndarray, rows: pd.DataFrame, truth: pd.DataFrame, labelled: bool) -> list[str]:
    """What breaks no rule and still costs something; `missing`: True for a query of `table` without a row."""
    silent = ~table.scenario_id.isin(["", *table.scenario_id[~missing]])
    strange = np.full(len(rows), not rows.database_image_id.isin(truth.database_image_id).any())
    return [
        *counted("queries of the truth that are missing and count 0 in strict", table.query_id[missing]),
        *counted("scenarios without a single row", table.scenario_id[silent]),
        *counted(f"database images, none of them in the truth, where {such_as(truth.database_image_id)}", rows.database_image_id[strange]),
        *counted("queries that are left out, the truth has no match for them", rows.query_id[~rows.query_id.isin(table.query_id)]),
        *counted("queries without a known whale", table.query_id[labelled & (table.whale_id == "")]),
    ]


def first_places(row: Ranked, n_pos: np.ndarray, whale: np.ndarray, query_image: np.ndarray) -> dict[str, np.ndarray]:
    """What the first five rows are worth, by measure. `whale`: number of each image's; a repeated row earns nothing."""
    distinct = metrics.first_of(row.query, row.image)
    query, image, hit = row.query[distinct], row.image[distinct], row.hit[distinct]
    individual = np.where(image == query_image[query], whale.max() + 1, whale[image])  # a query finds no whale in itself
    return {
        "map5_images": metrics.average_precision_of_first(query, hit, n_pos),
        "map5_individuals": metrics.reciprocal_rank_of_individual(query, individual, whale[query_image]),
        "top1": metrics.top1(query, hit, len(n_pos)),
    }


def counted(what: str, ids: pd.Series) -> list[str]:
    """One warning that counts the ids and names the first, or none."""
    ids = ids.unique()
    return [f"{what}: {len(ids)}; the first is {shown(ids[0])}"] if len(ids) else []


def score_labels(rows: pd.DataFrame, truth: pd.DataFrame, breaches: list[str]) -> Evaluation:
    """Evaluates five labels an image; both competitions' words for an unknown whale, and no word, are one label."""
    images, n = pd.Index(truth.iloc[:, 0]), len(truth)
    split = rows.iloc[:, 1].str.split(n=LABEL_LIMIT, expand=True)
    split = split.reindex(columns=range(LABEL_LIMIT + 1), fill_value="").fillna("")
    words = np.concatenate([truth.iloc[:, 1].replace("", NEW).to_numpy(object), split.to_numpy(object).ravel()])
    codes, names = pd.factorize(np.where(words == "new_individual", NEW, words))
    labels = np.where(words[n:] == "", -1, codes[n:]).reshape(len(rows), LABEL_LIMIT + 1)
    given = images.get_indexer(rows.iloc[:, 0])
    refused = bool(breaches) or rows.iloc[:, 0].duplicated().any()
    breaches = breaches + listed(label_rules(rows, labels, given >= 0) + mark_rule(rows, truth), rows)

    five = np.full((n, LABEL_LIMIT), -1)
    five[given[given >= 0]] = labels[given >= 0, :LABEL_LIMIT]
    value = metrics.label_average_precision(five, codes[:n])
    missing = ~np.isin(np.arange(n), given)
    whale = pd.Series(names[codes[:n]]).replace(NEW, "")
    table = pd.DataFrame({"query_id": images, "scenario_id": "", "query_image_id": images, "whale_id": whale, "n_pos": 1})
    table["official"] = np.nan if refused else value
    table["strict"] = np.nan if breaches else value
    table["map5_images"], table["map5_individuals"], table["top1"] = np.nan, value, (five[:, 0] == codes[:n]).astype(float)
    return Evaluation(table, breaches, counted("images of the truth that are missing and count 0", table.query_id[missing]))


def evaluate(submission: Path, truth: Path, data: Path | None = None, labels: Path | None = None) -> Evaluation:
    """Evaluates a submission; `data` and `labels` default to `test/` and `labels.csv` beside the truth where they exist."""
    rows, asked, of_images = read_table(submission, strict=False), *read_truth(truth)  # the rules tell more than an error
    accepted = [COLUMNS] if of_images else LABEL_COLUMNS
    columns = next((names for names in accepted if set(names) <= set(rows.columns)), None)
    header = header_rule(rows.columns, accepted)
    usable = rows[columns] if columns else pd.DataFrame(columns=accepted[0], dtype=str)
    if of_images:
        scenarios = scenarios_of(truth, asked, data)
        evaluation = score_images(usable, asked, scenarios, neighbouring_whales(truth, labels), header)
    else:
        evaluation = score_labels(usable, asked, header)
    if columns is None:
        return Evaluation(evaluation.per_query.assign(**dict.fromkeys(MEASURES, np.nan)), header, [])
    return evaluation


def neighbouring_whales(truth: Path, labels: Path | None) -> pd.Series | None:
    """whale_id by image_id, "" where unknown."""
    beside = Path(truth).parent / "labels.csv"
    if labels is None and not beside.is_file():
        return None
    table = once(read_table(labels or beside, ["image_id", "whale_id"]), ["image_id"], labels or beside)
    return table.set_index("image_id").whale_id


def means(per_query: pd.DataFrame) -> dict[str, float | int | None]:
    """Means over the queries; official leaves out what was not submitted, None where nothing is left."""
    mean = {name: per_query[name].mean(skipna=name != "strict") for name in MEASURES}
    return {name: None if np.isnan(value) else float(value) for name, value in mean.items()} | {"n_queries": len(per_query)}


def summarise(per_query: pd.DataFrame, breaches: list[str]) -> dict:
    """The content of score.json, of one fold's per-query table or of several in a row."""
    mean = means(per_query)
    known = mean["strict"] is not None and (per_query.whale_id != "").any()
    groups = metrics.whale_groups(per_query.whale_id)
    return {
        "official": mean.pop("official"), "strict": mean.pop("strict"), "strict_errors": breaches, **mean,
        "ci95": metrics.bootstrap_interval(per_query.strict.to_numpy(), groups) if known else None,
        "scenarios": {name: means(part) for name, part in per_query.groupby("scenario_id") if name},
    }


def open_set(probabilities: Path, truth: Path, data: Path | None, per_query: pd.DataFrame) -> dict:
    """The key `open_set`; a query that the scenarios ask and the truth does not match is of an unknown whale."""
    if not read_truth(truth)[1]:
        return openset.of_labels(probabilities, per_query)
    scenarios, matched = neighbouring_scenarios(truth, data), pd.Index(per_query.query_id)
    asked = matched.union(scenarios.queries.query_id, sort=False) if scenarios else matched
    return openset.of_scenarios(probabilities, asked, asked.isin(matched))


def read_per_query(path: Path) -> pd.DataFrame:
    """The table that --per-query wrote, number for number."""
    names = ["query_id", "scenario_id", "query_image_id", "whale_id", "n_pos", *MEASURES]
    table = numbers(read_table(path, names)[names], ["n_pos", *MEASURES], path)
    refuse(path, table.n_pos.map(str), ~(table.n_pos >= 1), "n_pos is the number of true matches, 1 or more; score again")
    refuse(path, table.query_id, table.query_id.duplicated(), "the query stands there twice; score again")
    for name in MEASURES:
        refuse(path, table[name].map(str), (table[name] < 0) | (table[name] > 1) & (name != "official"), f"{name} is no score; score again")
    return table


def show(summary: dict) -> None:
    number = lambda value: "-" if value is None else f"{value:.4f}"
    print(f"{'':<16}{'queries':>8}" + "".join(f"{name:>17}" for name in MEASURES))
    for name, means_of in [*summary["scenarios"].items(), ("all", summary)]:
        print(f"{name:<16}{means_of['n_queries']:>8}" + "".join(f"{number(means_of[measure]):>17}" for measure in MEASURES))
    if summary["ci95"]:
        print("strict, 95 % interval over whales: {:.4f} to {:.4f}".format(*summary["ci95"]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Scores a submission against a fold's truth and tells every breach of the rules.",
        epilog="example: python -m eval.score submission.csv folds/0/truth.csv --json score.json --per-query per_query.csv")
    parser.add_argument("submission", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--data", type=Path, help="directory with query_scenarios.csv (default: test/ beside the truth)")
    parser.add_argument("--labels", type=Path, help="whales of the images (default: labels.csv beside the truth)")
    parser.add_argument("--json", type=Path, help="write the scores here")
    parser.add_argument("--per-query", type=Path, help="write a row per query here")
    parser.add_argument("--probabilities", type=Path, help="table query_id,Id,probability (Image,Id,probability): adds open_set")
    arguments = parser.parse_args()
    evaluation = evaluate(arguments.submission, arguments.truth, arguments.data, arguments.labels)
    summary = summarise(evaluation.per_query, evaluation.breaches)
    if arguments.probabilities:
        summary["open_set"] = open_set(arguments.probabilities, arguments.truth, arguments.data, evaluation.per_query)
    if arguments.json:
        write_json(summary, arguments.json)
    if arguments.per_query:
        write_table(evaluation.per_query, arguments.per_query)
    for warning in [] if evaluation.breaches else evaluation.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    show(summary)
    if arguments.probabilities:
        openset.show(summary["open_set"])
    if evaluation.breaches:
        print("rules broken:", *evaluation.breaches, *evaluation.warnings, sep="\n  ")
        raise InputError(f"{arguments.submission}: breaks the rules, so there is no strict score; {evaluation.breaches[0]}")


if __name__ == "__main__":
    run(main)
