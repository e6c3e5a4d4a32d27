"""Compares two submissions on the same queries: is b better than a, and by how much?

Reads two submissions and the truth they answer, as eval.score does; several folds are given as several triples and pooled.
Writes nothing but --json.

    python -m eval.compare a.csv b.csv folds/0/truth.csv
    python -m eval.compare a0.csv b0.csv folds/0/truth.csv a1.csv b1.csv folds/1/truth.csv

Expect both means of strict AP, their difference b - a with a 95 % interval and a p-value, of all queries and of each
scenario, and the ten queries that changed most. Interval and p are by whale, because queries of one whale are not independent.

p asks whether the two could be one system: whale by whale, a and b are exchanged. That is exact for any number of whales.
The interval asks how large the difference is for whales like these. Where one excludes 0 and the other does not, believe
p on whether there is a difference; how large it is, these whales then do not tell.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from eval import metrics
from eval.files import InputError, run, write_json
from eval.score import evaluate

FEW_WHALES = 50


def strict_table(submission: Path, truth: Path, labels: Path | None) -> pd.DataFrame:
    evaluation = evaluate(submission, truth, labels=labels)
    if evaluation.breaches:
        raise InputError(f"{submission}: breaks the rules and cannot be compared; {evaluation.breaches[0]}")
    for warning in evaluation.warnings:
        print(f"warning: {submission}: {warning}", file=sys.stderr)
    return evaluation.per_query


def paired(folds: list[tuple[Path, Path, Path]], labels: list[Path | None]) -> pd.DataFrame:
    """A row per query of all folds: fold, query_id, scenario_id, whale_id, a, b (strict AP) and difference = b - a."""
    tables = []
    for number, ((a, b, truth), whales) in enumerate(zip(folds, labels)):
        table, other = strict_table(a, truth, whales), strict_table(b, truth, whales)
        table = table[["query_id", "scenario_id", "whale_id"]].assign(fold=number, a=table.strict, b=other.strict)
        tables.append(table)
    together = pd.concat(tables, ignore_index=True)
    return together.assign(difference=together.b - together.a)


def compare(queries: pd.DataFrame) -> dict:
    """What `paired` gives -> what --json holds. A whale that is in several folds is one whale."""
    changed = queries[queries.difference != 0]
    changed = changed.iloc[(-changed.difference.abs()).argsort(kind="stable")[:10]]
    return {
        **measured(queries),
        "resampled": "whales" if (queries.whale_id != "").any() else "queries",
        "scenarios": {name: measured(part) for name, part in queries.groupby("scenario_id") if name},
        "changed_most": changed[["fold", "scenario_id", "query_id", "whale_id", "a", "b", "difference"]].to_dict("records"),
    }


def measured(queries: pd.DataFrame) -> dict:
    """Means, interval (None for a single whale), p-value and how many whales, a query of an unknown one counting for itself."""
    difference, groups = queries.difference.to_numpy(), metrics.whale_groups(queries.whale_id)
    return {
        **{name: float(queries[name].mean()) for name in ("a", "b", "difference")},
        "n_queries": len(queries),
        "ci95": metrics.whale_interval(difference, groups),
        "p_value": metrics.sign_flip_p_value(difference, groups),
        "n_resampled": len(np.unique(groups)),
    }


def show(result: dict) -> None:
    by, rows = result["resampled"], [*result["scenarios"].items(), ("all", result)]
    print(f"{'strict AP':<16}{'queries':>8}{by:>8}{'a':>9}{'b':>9}{'b - a':>9}{'95 % interval':>20}{'p':>9}")
    for name, row in rows:
        interval = "{:+.4f} to {:+.4f}".format(*row["ci95"]) if row["ci95"] else "-"
        print(f"{name:<16}{row['n_queries']:>8}{row['n_resampled']:>8}{row['a']:>9.4f}{row['b']:>9.4f}{row['difference']:>+9.4f}"
              f"{interval:>20}{row['p_value']:>9.4f}")
    print("changed most:")
    for row in result["changed_most"]:
        print(f"  fold {row['fold']}  {row['query_id']:<28}{row['whale_id']:<12}{row['a']:>8.4f} -> {row['b']:.4f}")
    if by == "queries":
        print("warning: no whale is known, so every query counts for itself; give --labels", file=sys.stderr)
    unlike = [name for name, row in rows if row["ci95"] and (row["p_value"] <= 0.05) != (row["ci95"][0] * row["ci95"][1] > 0)]
    if unlike:
        print(f"warning: interval and p disagree about 0 in {', '.join(unlike)}; p tells whether a and b differ", file=sys.stderr)
    few = [f"{name} ({row['n_resampled']})" for name, row in rows if row["n_resampled"] < FEW_WHALES]
    if few:
        print(f"warning: below {FEW_WHALES} {by} interval and p are rough: {', '.join(few)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compares two submissions on the same queries; several folds are pooled.",
        epilog="example: python -m eval.compare plain.csv best.csv folds/0/truth.csv --json difference.json")
    parser.add_argument("files", type=Path, nargs="+", metavar="A.csv B.csv TRUTH.csv", help="a triple for each fold")
    parser.add_argument("--labels", type=Path, action="append",
                        help="whales of the images, once a triple (default: labels.csv beside the truth)")
    parser.add_argument("--json", type=Path, help="write the result here")
    arguments = parser.parse_intermixed_args()
    folds = list(zip(*[iter(arguments.files)] * 3))
    labels = arguments.labels or [None] * len(folds)
    if len(arguments.files) % 3 or len(labels) != len(folds):
        parser.error(f"{len(arguments.files)} files, --labels {len(arguments.labels or [])} times; "
                     "give A.csv B.csv TRUTH.csv for each fold, and --labels for each or for none")
    result = compare(paired(folds, labels))
    if arguments.json:
        write_json(result, arguments.json)
    show(result)


if __name__ == "__main__":
    run(main)
