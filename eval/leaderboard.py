"""What every system scored on the same folds, ranked: a local leaderboard.

Reads and writes FILE, one CSV that runs (eval.ensembles) and files from elsewhere (--add) put their rows into; what is
scored again replaces its own rows. A board holds what may be compared: one protocol, data, seed, cut and set of folds.

    python -m eval.leaderboard runs/leaderboard.csv
    python -m eval.leaderboard runs/leaderboard.csv --add theirs.csv --fold runs/small/folds/0 --name theirs

Expect a ranked table a board, within a second. With several --add and --fold the folds are pooled, and each stands alone too.
"""

import argparse
import os
import reprlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from eval.files import InputError, alone, read_json, read_table, run, write_table
from eval.score import evaluate, summarise

COLUMNS = ["board", "protocol", "data", "seed", "n_folds", "fold", "system", "variant", "models", "mirror", "measure", "score",
           "low", "high", "map5_individuals", "top1", "n_queries", "seconds"]
WHOLE_NUMBERS = ["seed", "n_folds", "n_queries"]
SHARES = ["score", "low", "high", "map5_individuals", "top1"]  # between 0 and 1; all but the score may be empty
SAME = ["protocol", "data", "seed", "n_folds", "fold", "measure", "n_queries"]  # in all rows of a board
FEW = 5  # whales; redrawing fewer tells nothing of others
DIFFERENCE = "intervals are of each system alone; whether one is better than another: python -m eval.compare ONE OTHER TRUTH"
ROW = ["board", "system", "variant"]  # tells rows apart


def read(path: Path) -> pd.DataFrame:
    """The leaderboard with its numbers as numbers, NaN where none is; InputError where it is none or is damaged."""
    table = read_table(path)
    if list(table.columns) != COLUMNS:
        raise InputError(f"{path}: no leaderboard: the header is {','.join(table.columns)!r}, not {','.join(COLUMNS)!r}")
    number = table.apply(pd.to_numeric, errors="coerce")
    wrong = pd.DataFrame({
        **{name: ~table[name].str.fullmatch("[0-9]{1,18}") for name in WHOLE_NUMBERS},
        **{name: (table[name] != "") & ~number[name].between(0, 1) for name in SHARES},
        "seconds": (table.seconds != "") & ~number.seconds.between(0, np.inf, inclusive="left"),
        **{name: ~table[name].map(str.isprintable) for name in ROW}})
    wrong["score"] |= table.score == ""
    for row, name in np.argwhere(wrong.to_numpy())[:1]:
        raise InputError(f"{path}: line {row + 2}: {wrong.columns[name]} is {table[wrong.columns[name]][row]!r}; mend it or remove the line")
    table = table.assign(**{name: table[name].map(int) for name in WHOLE_NUMBERS},
                         **{name: table[name].replace("", "nan").astype(float) for name in [*SHARES, "seconds"]})
    return consistent(table, path)


def consistent(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table, unless a row stands there twice or a board holds what cannot be compared."""
    twice = table.duplicated(ROW)
    if twice.any():
        raise InputError(f"{path}: {' / '.join(filter(None, table[ROW][twice].iloc[0]))} stands there twice; remove one of the lines")
    mixed = table.groupby("board")[SAME].nunique() > 1
    for board, name in np.argwhere(mixed.to_numpy())[:1]:
        values = table[SAME[name]][table.board == mixed.index[board]].unique()
        raise InputError(f"{path}: board {mixed.index[board]!r} would hold rows of {SAME[name]} {values[0]} and {values[1]}, "
                         "which cannot be compared; make the folds again, or begin another leaderboard")
    return table


def boards(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Each board of a leaderboard, best first, with a column `rank`; equal scores share a rank. Of one cut the folds together are first."""
    parts = {name: part.assign(rank=part.score.rank(method="min", ascending=False).astype(int)).reset_index(drop=True)
             for name, part in in_order(table).groupby("board")}
    return dict(sorted(parts.items(), key=lambda part: by_fold(*part)))


def by_fold(name: str, board: pd.DataFrame) -> tuple:
    """What boards are sorted by: the cut, the most folds first, then the number of the fold."""
    fold = board.fold[0]
    return name.removesuffix(fold), -fold.count("+"), len(fold), fold


def ranked(path: Path) -> dict[str, pd.DataFrame]:
    return boards(read(path))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """By board, best first: the same rows are the same file, whoever came first."""
    return table.assign(worse=-table.score).sort_values(["board", "worse", "system", "variant"])[COLUMNS]


def add(path: Path, rows: pd.DataFrame) -> Path:
    """Puts rows (COLUMNS) into the leaderboard, in place of the same system's on the same boards; waits its turn.

    Rows with a variant are a run's and those without are a file's, so that neither replaces the other of its name.
    """
    path = Path(path)
    with alone(path, wait=True):
        table = read(path) if os.path.lexists(path) else pd.DataFrame(columns=COLUMNS)
        own = table.board.isin(rows.board) & table.system.isin(rows.system) & ((table.variant == "") == (rows.variant == "").all())
        together = [part for part in (table[~own], rows) if len(part)]
        return write_table(in_order(consistent(pd.concat(together, ignore_index=True), path)), path)


def beside(run: Path) -> Path:
    """The leaderboard of a run where none is named."""
    return run.resolve().parent / "leaderboard.csv"


def system(run: Path, path: Path) -> str:
    """What a run is called on a leaderboard: its path from there, so that two runs of one name are two."""
    return os.path.relpath(run.resolve(), Path(path).resolve().parent)


def measured(per_query: pd.DataFrame) -> dict[str, float | None]:
    """The figures of a per-query table of eval.score: strict with its interval by whale, and the other measures."""
    summary = summarise(per_query, [])
    whales = per_query.whale_id[per_query.whale_id != ""].nunique()
    low, high = summary["ci95"] if summary["ci95"] and whales >= FEW else (None, None)
    return {"n_queries": len(per_query), "strict": summary["strict"], "low": low, "high": high,
            "map5_individuals": summary["map5_individuals"], "top1": summary["top1"]}


def fold_sets(folds: list[int]) -> dict[str, list[int]]:
    """All folds together and, where they are several, each: {"all": [0, 1], "0": [0], "1": [1]}, or {"0": [0]}."""
    return ({"all": folds} if len(folds) > 1 else {}) | {str(fold): [fold] for fold in folds}


def rows(folder: Path, folds: list[int], system: str, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the leaderboard from `variant, models, mirror, seconds`, `folds` (see fold_sets) and what `measured` gives."""
    cut = read_manifest(folder)
    fold = table.folds.replace("all", joined(folds))
    table = table.rename(columns={"strict": "score"}).assign(**cut, fold=fold, board=board_name(cut, fold), system=system)
    measure = "MAP@5" if cut["protocol"] == "identify" else "MAP@20"
    return table.assign(measure=measure).drop_duplicates(["fold", "variant"])[COLUMNS]


def joined(folds: list[int]) -> str:
    return "+".join(map(str, sorted(folds)))


def board_name(cut: dict, fold):
    """What a board is called: all that must agree for its rows to be comparable. `fold`: such as 0+1, or a column of them."""
    date = f" date {cut['date']}" if cut["date"] else ""
    return f"{cut['protocol']} {cut['data']} seed {cut['seed']} n-folds {cut['n_folds']}{date} fold " + fold


def read_manifest(folder: Path) -> dict:
    """What decides the folds: protocol, data (a fingerprint of the labels), seed, n_folds, date."""
    path = Path(folder) / "manifest.json"
    manifest, keys = read_json(path), ["protocol", "seed", "n_folds", "date", "metadata_sha256"]
    missing = [key for key in keys if not isinstance(manifest, dict) or key not in manifest]
    if missing:
        raise InputError(f"{path}: key {missing[0]!r} is missing; make the folds with python -m eval.folds")
    for key in keys:
        value = manifest[key]
        whole = isinstance(value, int) and 0 <= value < 10 ** 18
        if not (whole if key in WHOLE_NUMBERS else isinstance(value, str) and value.isprintable() or key == "date" and value is None):
            raise InputError(f"{path}: {key} is {reprlib.repr(value)}; make the folds with python -m eval.folds")
    return {key: manifest[key] for key in keys[:-1]} | {"data": manifest["metadata_sha256"][:12]}


def scored(submission: Path, fold: Path) -> pd.DataFrame:
    """A submission's row per query of a fold; InputError, and every rule that is broken, where one is."""
    evaluation = evaluate(submission, fold / "truth.csv")
    for warning in evaluation.warnings:
        print(f"warning: {submission}: {warning}", file=sys.stderr)
    if evaluation.breaches:
        print("rules broken:", *evaluation.breaches, sep="\n  ")
        raise InputError(f"{submission}: breaks the rules, so there is no strict score; {evaluation.breaches[0]}")
    return evaluation.per_query


def of_files(submissions: list[Path], folds: list[Path], name: str) -> pd.DataFrame:
    """The rows of one system whose file k answers fold k: of all folds together and of each."""
    if not (name.strip() and name.isprintable()):
        raise InputError(f"--name {name!r}: must be a word or more, on one line")
    folds = [fold.resolve() for fold in folds]
    for fold in folds:
        if fold.parent != folds[0].parent or folds.count(fold) > 1 or not fold.name.isdecimal():
            raise InputError(f"--fold {fold}: give different folds of one cut, such as FOLDS/0 and FOLDS/1")
    tables = {int(fold.name): scored(submission, fold) for submission, fold in zip(submissions, folds)}
    figures = [{"folds": together, **measured(pd.concat([tables[fold] for fold in part]))} for together, part in fold_sets(sorted(tables)).items()]
    table = pd.DataFrame(figures).assign(variant="", models="", mirror="", seconds=np.nan)
    return rows(folds[0].parent, list(tables), name, table)


def show(board: pd.DataFrame) -> None:
    """Prints one board, ranked."""
    first, number = board.iloc[0], lambda digits: lambda value: "" if pd.isna(value) else f"{value:.{digits}f}"
    print(f"\n{first.board}: {first.n_queries} queries")
    interval = [f"{row.low:.4f} to {row.high:.4f}" if pd.notna(row.low) else "" for row in board.itertuples()]
    table = pd.DataFrame({
        "rank": board["rank"], first.measure: board.score.map(number(4)), "95 % interval": interval,
        "MAP@5 individuals": board.map5_individuals.map(number(4)), "top-1": board.top1.map(number(4)),
        "s / 1,000 images": board.seconds.map(number(1)), "system": board.system, "variant": board.variant})
    print(table.to_string(index=False))


def tell_replaced(path: Path, added: pd.DataFrame) -> None:
    """One line where a file of this name stands on the boards with another score."""
    before = read(path) if os.path.lexists(path) else pd.DataFrame(columns=COLUMNS)
    again = added.merge(before, on=ROW, suffixes=("", "_before"))
    for row in again[again.score != again.score_before].head(1).itertuples():
        print(f"note: {row.system!r} was there with {row.score_before:.4f}, now {row.score:.4f}; another --name keeps both")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Show a local leaderboard, each board ranked; with --add, score a file of any system and add it first.",
        epilog="example: python -m eval.leaderboard runs/leaderboard.csv --add theirs.csv --fold runs/small/folds/0 --name theirs")
    parser.add_argument("file", type=Path, metavar="FILE", help="the leaderboard, made where --add finds none")
    parser.add_argument("--add", type=Path, action="append", default=[], metavar="SUBMISSION", help="a file that answers the --fold of the same place")
    parser.add_argument("--fold", type=Path, action="append", default=[], metavar="FOLDS/K", help="once for each --add; several are pooled")
    parser.add_argument("--name", help="what the system is called on the board")
    arguments = parser.parse_args()
    if len(arguments.add) != len(arguments.fold) or bool(arguments.add) != (arguments.name is not None):
        parser.error("--add, --fold and --name go together: a --fold for each --add, and one --name")
    shown = None
    if arguments.add:
        added = of_files(arguments.add, arguments.fold, arguments.name)
        tell_replaced(arguments.file, added)
        add(arguments.file, added)
        shown = set(added.board)
    found = {name: board for name, board in ranked(arguments.file).items() if shown is None or name in shown}
    for board in found.values():
        show(board)
    if not found:
        print(f"note: {arguments.file} holds no rows; add a system with --add, --fold and --name")
    if any(len(board) > 1 for board in found.values()):
        print(f"\n{DIFFERENCE}")


if __name__ == "__main__":
    run(main)
