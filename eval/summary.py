"""The table at the end of a run: the folds' scores pooled, `open_set` of each fold that has it, what each model adds, the
run's place on the leaderboard, seconds and memory of each step, and where every file is.

    python -m eval.summary RUN

Reads RUN/fold*/per_query.csv, score.json, RUN/summary.csv and, where eval.ensembles wrote them, RUN/ensembles.csv and the
leaderboard beside RUN. Writes RUN/score.json (the keys of a fold's, pooled over the queries of all folds that ran, plus
`folds`) and prints.
"""

import argparse
from pathlib import Path

import pandas as pd

from eval import ensembles, leaderboard, openset
from eval.files import InputError, check_file, read_table, run, write_json
from eval.labels import numbers
from eval.page.records import read_score
from eval.score import read_per_query, show, summarise

MEASURED = ["strict", "gain", "gain_low", "gain_high", "seconds", "gain_per_second"]


def pooled(folds: list[Path]) -> dict:
    """The content of score.json over the queries of several folds; scenarios are named fold0/scenario01."""
    tables = [read_per_query(fold / "per_query.csv") for fold in folds]
    tables = [table.assign(scenario_id=(f"{fold.name}/" + table.scenario_id).str.rstrip("/")) for fold, table in zip(folds, tables)]
    for fold in folds:
        check_file(fold / "score.json")
    scores = {fold.name: read_score(fold / "score.json") for fold in folds}
    breaches = [f"{name}: {error}" for name, score in scores.items() for error in score["strict_errors"]]
    return summarise(pd.concat(tables, ignore_index=True), breaches) | {"folds": scores}


def scored(path: Path) -> list[Path]:
    folds = sorted((file.parent for file in path.glob("fold*/per_query.csv") if file.parent.name[4:].isdecimal()), key=lambda fold: (len(fold.name), fold.name))
    if not folds:
        raise InputError(f"{path}: no scored fold here (fold0/per_query.csv)")
    return folds


def chosen(path: Path, folds: list[str]) -> list[Path]:
    for fold in folds:
        if not fold.isdecimal():
            raise InputError(f"--folds: {fold!r} is no number of a fold; write such as 0,1")
    return [path / f"fold{int(fold)}" for fold in dict.fromkeys(folds)]


def read_ensembles(path: Path, folds: list[int]) -> pd.DataFrame | None:
    """The rows of RUN/ensembles.csv over these folds together; None where it is not there, or of other folds."""
    table = ensembles.read(path, MEASURED) if path.is_file() else None
    if table is None or set(table.folds) != set(leaderboard.fold_sets(folds)):
        return None
    return table[table.folds == next(iter(leaderboard.fold_sets(folds)))]


def additions(table: pd.DataFrame) -> pd.DataFrame:
    """What each model adds, in the recipe's order, and at last what the mirror images add: a row each."""
    names = max(table.models, key=len)
    rows = {name: {} for name in [*names, "mirror images", "local evidence"]}
    for row in table.itertuples():
        if row.kind == "local":
            rows["local evidence"] = {"to all others": gained(row)}
        elif row.kind == "without" and len(row.models) == len(names):
            rows["mirror images"] = {"to all others": gained(row), "seconds": table.seconds.max() - row.seconds, "per second": row.gain_per_second}
        elif row.mirror != "no" and row.kind == "single":
            rows[row.models[0]] |= {"alone": f"{row.strict:.4f}", "seconds": row.seconds}
        elif row.mirror != "no" and row.kind == "prefix":
            rows[row.models[-1]] |= {"to those before": gained(row)}
        elif row.mirror != "no":
            left_out = next(name for name in names if name not in row.models)
            rows[left_out] |= {"to all others": gained(row), "per second": row.gain_per_second}
    return pd.DataFrame.from_dict({name: row for name, row in rows.items() if row}, orient="index",
                                  columns=["alone", "to those before", "to all others", "seconds", "per second"])


def gained(row: tuple) -> str:
    return f"{row.gain:+.4f}" + ("" if pd.isna(row.gain_low) else f" ({row.gain_low:+.4f} to {row.gain_high:+.4f})")


def show_additions(table: pd.DataFrame) -> None:
    for column, form in (("seconds", "{:.1f}"), ("per second", "{:+.5f}")):
        table[column] = table[column].map(form.format, na_action="ignore")
    print("\nwhat each model adds to MAP@20, with its mirror images; seconds are those of the models for 1,000 images")
    print(table.dropna(axis="columns", how="all").fillna("").to_string())


def place(run: Path, folds: list[int]) -> str:
    """The place of the run's whole ensemble on the leaderboard beside it, in words; none where it is not there."""
    file, manifest = leaderboard.beside(run), run / "folds" / "manifest.json"
    if not (file.is_file() and manifest.is_file()):
        return ""
    name = leaderboard.board_name(leaderboard.read_manifest(manifest.parent), leaderboard.joined(folds))
    board = leaderboard.ranked(file).get(name)
    own = board[(board.system == leaderboard.system(run, file)) & (board.variant != "") & (board.mirror != "no")] if board is not None else ()
    if not len(own):
        return ""
    own = own.sort_values("variant", key=lambda names: ~names.str.endswith("local evidence"), kind="stable")  # first what was predicted
    whole, first = own.loc[own.models.str.count(r"\+").idxmax()], board.iloc[0]
    return (f"place {whole['rank']} of {len(board)} on {file}, board {name}\n"
            f"first: {first.system} {first.variant}".rstrip() + f", {first.measure} {first.score:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Pool the folds of a run and show what came out.", epilog="example: python -m eval.summary runs/demo")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--folds", help="numbers separated by commas (default: every fold that was scored)")
    arguments = parser.parse_args()
    path = arguments.run
    folds = chosen(path, arguments.folds.split(",")) if arguments.folds else scored(path)
    summary = pooled(folds)
    write_json(summary, path / "score.json")
    print()
    show(summary)
    for name, score in summary["folds"].items():
        if "open_set" in score:
            openset.show(score["open_set"], f"{name}, open set")
    order = [int(fold.name.removeprefix("fold")) for fold in folds]
    worth = read_ensembles(path / "ensembles.csv", order)
    if worth is not None:
        show_additions(additions(worth))
    if stands := place(path, order):
        print("\n" + stands)
    steps = read_table(path / "summary.csv", ["step", "seconds", "peak_mb"])
    numbers(steps, ["seconds", "peak_mb"], path / "summary.csv")
    print("\n" + steps.to_string(index=False))
    print(f"\n{path}/report.html             the page to look at")
    print(f"{path}/score.json              scores over {len(folds)} fold{'s' if len(folds) > 1 else ''}")
    print(f"{path}/summary.csv             seconds and peak memory")
    if worth is not None:
        print(f"{path}/ensembles.csv           every ensemble: score, gain, seconds")
    for fold in folds:
        print(f"{fold}/                  submission.csv, score.json, per_query.csv, timings.json, weights/, embeddings/, explain/")


if __name__ == "__main__":
    run(main)
