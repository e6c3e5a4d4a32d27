"""What each model adds: every ensemble of a run's models, ranked from saved embeddings and scored.

Reads RUN/folds and, of every fold that was predicted, RUN/foldK/embeddings/ and timings.json. No model runs: each ranking is
`python -m solution.rank` on some of the models, as the rank.json beside them says. Ranked are every model alone, the prefixes of the recipe's order, and all
models without one; each with and without mirror images.

    python -m eval.ensembles runs/small --folds 0,1

Writes RUN/foldK/ensembles.csv (strict AP of every query, a column a variant), RUN/ensembles.csv and rows of the leaderboard.
A row of RUN/ensembles.csv is a variant in one of three roles, over all folds together or in one:

    single    a model alone
    prefix    the first models of the recipe; gain: what the last of them adds
    without   all models without one; gain: what that one adds. All of them (no mirror images); gain: what the mirror images add
    local     all models and local evidence, where one looks for it: RUN/foldK/submission.csv as it is, since that needs the photographs;
              gain: what it adds

`gain` is a difference of strict MAP with its 95 % interval by whale, `seconds` those of the forward passes for 1,000 images,
`gain_per_second` the gain over the seconds of what is added; `mirror` is off where the recipe has no mirror images.
Expect half a second a ranking and core: 38 rankings a fold with seven models, 6 with two. Runs that answer with names have
no rankings: only their score goes to the leaderboard.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval import leaderboard, metrics
from eval.files import InputError, alone, progress, read_json, read_table, run, write_table
from eval.labels import numbers, refuse
from eval.page import records
from eval.score import evaluate

AT_ONCE = 4  # rankings at most; each holds the embeddings it joins
COLUMNS = ["variant", "kind", "models", "mirror", "folds", "n_queries", "strict", "low", "high", "map5_individuals", "top1",
           "gain", "gain_low", "gain_high", "seconds", "gain_per_second"]


class Variant(NamedTuple):
    models: tuple[str, ...]
    mirror: str  # with mirror images: yes, no, or off where the recipe has none for these models
    local: bool = False  # with local evidence, as it was predicted

    @property
    def name(self) -> str:
        return "+".join(self.models) + " (no mirror images)" * (self.mirror == "no") + " and local evidence" * self.local


class Role(NamedTuple):
    kind: str
    variant: Variant
    more: Variant | None = None  # the gain is the difference of these two
    less: Variant | None = None


def read(path: Path, figures: list[str]) -> pd.DataFrame:
    """The table that this command wrote, `figures` as numbers and `models` as lists; InputError with the line of what it never writes."""
    table = numbers(read_table(path, ["kind", "models", "mirror", "folds", *figures]), figures, path)
    several = table.models.str.split("+")
    known, count = set(max(several, key=len, default=[])), several.map(len)
    fits = {"single": (count == 1) & table.gain.isna(), "prefix": count > 1, "without": count > 0, "local": count > 0}
    told = table.strict.between(0, 1) & table.mirror.isin(["yes", "no", "off", ""]) & several.map(lambda names: known.issuperset(names))
    right = told & pd.DataFrame({kind: fit & (table.kind == kind) for kind, fit in fits.items()}).any(axis=1)
    refuse(path, table.kind + " " + table.models, ~right, "no row of a run's ensembles; run python -m eval.ensembles again")
    return table.assign(models=several)


def roles(mirrored: dict[str, bool], local: bool = False) -> list[Role]:
    """The rows of a fold, each variant ranked once though it have two. `mirrored`: see `models`; `local`: whether one looks for local evidence."""
    found, whole = {}, Variant(tuple(mirrored), "yes" if any(mirrored.values()) else "off")
    closer = [Role("local", whole._replace(local=True), whole._replace(local=True), whole)] if local else []
    for role in [*series(mirrored, "yes"), *(series(mirrored, "no") if any(mirrored.values()) else []), *closer]:
        found.setdefault((role.kind, role.variant), role)
    return list(found.values())


def series(mirrored: dict[str, bool], mirror: str) -> list[Role]:
    names = tuple(mirrored)
    of = lambda some: Variant(some, mirror if any(mirrored[name] for name in some) else "off")
    singles = [Role("single", of((name,))) for name in names]
    prefixes = [Role("prefix", of(names[:k]), of(names[:k]), of(names[: k - 1])) for k in range(2, len(names) + 1)]
    rests = [tuple(other for other in names if other != name) for name in names if len(names) > 1]
    without = [Role("without", of(rest), of(names), of(rest)) for rest in rests]
    mirrors = [Role("without", of(names), Variant(names, "yes"), of(names))] if mirror == "no" else []
    return [*singles, *prefixes, *without, *mirrors]


def models(embeddings: Path) -> dict[str, bool]:
    """The models of an embeddings directory in solution.rank's order, and whether they have mirror images."""
    told = {path.stem: position_and_mirror(path.with_suffix(".json")) for path in sorted(embeddings.glob("*.npz"))}
    if not told:
        raise InputError(f"{embeddings}: no embeddings here (MODEL.npz); make them with python -m solution.predict --embeddings")
    return {name: told[name][1] for name in sorted(told, key=lambda name: (told[name][0], name))}


def position_and_mirror(spec: Path) -> tuple[int, bool]:
    """Of the model's spec beside its embeddings; those of another system have none."""
    if not spec.is_file():
        return 0, True
    try:
        told = read_json(spec)
        return int(told["position"]), told["predict"]["mirror"] != "off"
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{spec}: not the spec of a model, position or predict.mirror is missing; predict this fold again") from None


def looks_closer(embeddings: Path) -> bool:
    """Whether a model of an embeddings directory looks for local evidence."""
    return any(read_json(spec)["predict"].get("local_size") for spec in sorted(embeddings.glob("*.json")) if spec.with_suffix(".npz").is_file())


def common_models(run: Path, folds: list[int]) -> dict[str, bool]:
    """The models of the folds, which must be the same."""
    found = {fold: models(run / f"fold{fold}" / "embeddings") for fold in folds}
    for fold, these in found.items():
        if list(these.items()) != list(found[folds[0]].items()):
            raise InputError(f"{run}/fold{fold}/embeddings: has {', '.join(these)}, fold {folds[0]} {', '.join(found[folds[0]])}, "
                             "or other mirror images; predict both with one recipe, or leave one out with --folds")
    return found[folds[0]]


def predicted(run: Path, asked: str | None) -> list[int]:
    """The folds that have embeddings; of them those of --folds, which must be there."""
    there = sorted(int(path.parent.name[4:]) for path in run.glob("fold*/embeddings") if path.parent.name[4:].isdecimal())
    if not there:
        raise InputError(f"{run}: no predicted fold here (fold0/embeddings/); make one with ./run_all.sh")
    for fold in asked.split(",") if asked else []:
        if fold not in map(str, there):
            raise InputError(f"--folds: {fold!r} was not predicted; {run} has {', '.join(map(str, there))}")
    return sorted({int(fold) for fold in asked.split(",")}) if asked else there


def ranked(run: Path, job: tuple[int, Variant]) -> pd.DataFrame:
    """Ranks a fold by the variant's models and scores it: a row a query."""
    fold, variant = job
    if variant.local:
        return scored(run, fold, variant, run / f"fold{fold}" / "submission.csv")
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "submission.csv"
        command = [sys.executable, "-m", "solution.rank", "--embeddings", run / f"fold{fold}" / "embeddings", "--output", output,
                   "--data", run / "folds" / str(fold) / "test", f"--models={','.join(variant.models)}", *["--no-mirror"] * (variant.mirror == "no")]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # the cores are shared by rankings at once
        done = subprocess.run(list(map(str, command)), env=one_thread, capture_output=True, text=True, errors="replace")
        if done.returncode:
            told = done.stderr.strip().splitlines() or [f"solution.rank ended with status {done.returncode}"]
            raise InputError(told[-1].removeprefix("error: "))
        return scored(run, fold, variant, output)


def scored(run: Path, fold: int, variant: Variant, submission: Path) -> pd.DataFrame:
    evaluation = evaluate(submission, run / "folds" / str(fold) / "truth.csv")
    if evaluation.breaches:
        raise InputError(f"{run}/folds/{fold}: a ranking by {variant.name} breaks the rules: {evaluation.breaches[0]}; make the folds again")
    return evaluation.per_query


def ranked_all(run: Path, folds: list[int], variants: list[Variant]) -> dict[int, dict[Variant, pd.DataFrame]]:
    jobs = [(fold, variant) for fold in folds for variant in variants]
    with ThreadPool(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        done = pool.imap(partial(ranked, run), jobs)
        tables = {job: next(done) for job in progress(jobs, "ranking")}
    return {fold: {variant: tables[fold, variant] for variant in variants} for fold in folds}


def read_timings(run: Path, folds: list[int]) -> dict[int, dict]:
    paths = {fold: run / f"fold{fold}" / "timings.json" for fold in folds}
    return {fold: records.read_timings(path) if path.is_file() else {} for fold, path in paths.items()}


def seconds(variant: Variant, timings: list[dict]) -> float:
    """Seconds of forward passes for 1,000 images, over some folds; NaN where one does not tell them."""
    told = [timing.get("models", {}).get(name) for timing in timings for name in variant.models]
    images = sum(timing.get("images", 0) for timing in timings)
    if variant.local or not images or not all(model and "plain_seconds" in model for model in told):
        return np.nan
    mirror = variant.mirror == "yes"
    spent = sum(model["plain_seconds"] + mirror * (model.get("mirror_seconds") or 0) for model in told)
    return 1000 * spent / images


def table(rows: list[Role], per_query: dict[int, dict[Variant, pd.DataFrame]], timings: dict[int, dict]) -> pd.DataFrame:
    """RUN/ensembles.csv: the rows over all folds together, then fold by fold."""
    parts = []
    for together, folds in progress(list(leaderboard.fold_sets(list(per_query)).items()), "intervals"):
        pooled = {variant: pd.concat([per_query[fold][variant] for fold in folds], ignore_index=True) for variant in per_query[folds[0]]}
        cost = {variant: seconds(variant, [timings[fold] for fold in folds]) for variant in pooled}
        figures = {variant: described(variant) | leaderboard.measured(queries) for variant, queries in pooled.items()}
        parts += [{"kind": role.kind, "folds": together, "seconds": cost[role.variant], **figures[role.variant], **gain(role, pooled, cost)} for role in rows]
    return pd.DataFrame(parts, columns=COLUMNS)


def described(variant: Variant) -> dict[str, str]:
    return {"variant": variant.name, "models": "+".join(variant.models), "mirror": variant.mirror}


def gain(role: Role, pooled: dict[Variant, pd.DataFrame], cost: dict[Variant, float]) -> dict[str, float]:
    """What the larger set's additions are worth: the mean difference of strict AP, its interval by whale, and a second's worth."""
    if role.more is None:
        return {}
    whales = pooled[role.more].whale_id
    difference = (pooled[role.more].strict - pooled[role.less].strict).to_numpy()
    interval = metrics.whale_interval(difference, metrics.whale_groups(whales)) if (whales != "").any() else None
    low, high = interval or (np.nan, np.nan)
    added = cost[role.more] - cost[role.less]
    return {"gain": difference.mean(), "gain_low": low, "gain_high": high, "gain_per_second": difference.mean() / added if added > 0 else np.nan}


def of_rankings(run: Path, folds: list[int]) -> pd.DataFrame:
    """Ranks and scores everything; writes and returns RUN/ensembles.csv."""
    rows = roles(common_models(run, folds), looks_closer(run / f"fold{folds[0]}" / "embeddings"))
    per_query = ranked_all(run, folds, list(dict.fromkeys(role.variant for role in rows)))
    for fold, tables in per_query.items():
        columns = {"query_id": next(iter(tables.values())).query_id} | {variant.name: queries.strict for variant, queries in tables.items()}
        write_table(pd.DataFrame(columns), run / f"fold{fold}" / "ensembles.csv")
    scores = table(rows, per_query, read_timings(run, folds))
    print(f"{write_table(scores, run / 'ensembles.csv')}: {scores.variant.nunique()} ensembles, folds {','.join(map(str, folds))}")
    return scores


def of_names(run: Path, folds: list[int]) -> pd.DataFrame:
    """The row of a run that answers with names, of its files as they are: they come of more than these embeddings."""
    mirrored = common_models(run, folds)
    variant = Variant(tuple(mirrored), "yes" if any(mirrored.values()) else "off")
    per_query = {fold: {variant: leaderboard.scored(run / f"fold{fold}" / "submission.csv", run / "folds" / str(fold))} for fold in folds}
    print(f"{run}: answers with names, not rankings: no ensembles")
    return table([Role("whole", variant)], per_query, read_timings(run, folds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Rank and score every ensemble of a run's models from saved embeddings: what each model adds.",
        epilog="example: python -m eval.ensembles runs/small --folds 0,1,2")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--folds", help="numbers separated by commas (default: every fold that has embeddings)")
    parser.add_argument("--leaderboard", type=Path, metavar="FILE", help="the CSV to put the rows into (default: RUN/../leaderboard.csv)")
    arguments = parser.parse_args()
    path = arguments.run
    board, folds = arguments.leaderboard or leaderboard.beside(path), predicted(path, arguments.folds)
    if os.path.lexists(board):
        leaderboard.read(board)  # a damaged one is told before minutes of work
    rankings = all((path / "folds" / str(fold) / "test" / "query_scenarios.csv").is_file() for fold in folds)
    with alone(path / "ensembles.csv"):
        scores = of_rankings(path, folds) if rankings else of_names(path, folds)
    rows = leaderboard.rows(path / "folds", folds, leaderboard.system(path, board), scores)
    print(f"{leaderboard.add(board, rows)}: {len(rows)} rows")


if __name__ == "__main__":
    run(main)
