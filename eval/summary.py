"""The table at the end of a run: the folds' scores pooled, `open_set` of each fold that has it, seconds and memory of each
step, and where every file is.

    python -m eval.summary RUN

Reads RUN/fold*/per_query.csv, score.json and RUN/summary.csv. Writes RUN/score.json (the keys of a fold's, pooled over the
queries of all folds that ran, plus `folds`) and prints.
"""

import argparse
from pathlib import Path

import pandas as pd

from eval import openset
from eval.files import InputError, read_json, read_table, run, write_json
from eval.score import read_per_query, show, summarise


def pooled(folds: list[Path]) -> dict:
    """The content of score.json over the queries of several folds; scenarios are named fold0/scenario01."""
    tables = [read_per_query(fold / "per_query.csv") for fold in folds]
    tables = [table.assign(scenario_id=(f"{fold.name}/" + table.scenario_id).str.rstrip("/")) for fold, table in zip(folds, tables)]
    scores = {fold.name: read_json(fold / "score.json") for fold in folds}
    breaches = [f"{name}: {error}" for name, score in scores.items() for error in score["strict_errors"]]
    return summarise(pd.concat(tables, ignore_index=True), breaches) | {"folds": scores}


def scored(path: Path) -> list[Path]:
    folds = sorted((fold.parent for fold in path.glob("fold*/per_query.csv")), key=lambda fold: (len(fold.name), fold.name))
    if not folds:
        raise InputError(f"{path}: no scored fold here (fold0/per_query.csv)")
    return folds


def main() -> None:
    parser = argparse.ArgumentParser(description="Pool the folds of a run and show what came out.", epilog="example: python -m eval.summary runs/demo")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--folds", help="numbers separated by commas (default: every fold that was scored)")
    arguments = parser.parse_args()
    path = arguments.run
    folds = [path / f"fold{k}" for k in arguments.folds.split(",")] if arguments.folds else scored(path)
    summary = pooled(folds)
    write_json(summary, path / "score.json")
    print()
    show(summary)
    for name, score in summary["folds"].items():
        if "open_set" in score:
            openset.show(score["open_set"], f"{name}, open set")
    steps = read_table(path / "summary.csv", ["step", "seconds", "peak_mb"])
    print("\n" + steps.to_string(index=False))
    print(f"\n{path}/report.html             the page to look at")
    print(f"{path}/score.json              scores over {len(folds)} fold{'s' if len(folds) > 1 else ''}")
    print(f"{path}/summary.csv             seconds and peak memory")
    for fold in folds:
        print(f"{fold}/                  submission.csv, score.json, per_query.csv, timings.json, weights/, embeddings/")


if __name__ == "__main__":
    run(main)
