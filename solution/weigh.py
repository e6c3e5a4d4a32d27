"""Weights of the models of an ensemble, fitted on an inner fold: which model counts how much.

    python -m solution.weigh --weights WEIGHTS --embeddings EMBEDDINGS --fold INNER --output WEIGHED

Reads the embeddings of INNER/test by the models of WEIGHTS, as python -m solution.embed writes them, INNER/truth.csv and, for the interval,
INNER/labels.csv. Writes WEIGHED, a copy of WEIGHTS with another predict.weight in each MODEL.json (and recipe.yaml), and the gain in
provenance.json; WEIGHTS stays as it is. Coordinate ascent: each weight in turn is multiplied and divided by a step and kept where MAP@20 is
higher, until none is; then with a finer step. Rankings are made as WEIGHTS/rank.json says. INNER is a fold of the training part, never the one
that is scored; on INNER itself the gain flatters. Expect up to a hundred rankings.
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Callable, List, Tuple

import pandas as pd

from solution import calibrate, rank, recipe, routes, scenarios
from solution.files import InputError, alone, progress, read_object, read_table, run, whole_directory, write_json
from solution.fusion import Model
from solution.precision import average_precision

STEPS = 4.0, 2.0, 2**0.5
FURTHEST = 64.0  # times its first weight, or that part of it, that a model may come to count

Value = Callable[[List[float]], float]


def ascended(value: Value, weights: List[float]) -> List[float]:
    """The weights from which no step up or down of a single one gives a higher value; deterministic, equal ones do not count as higher."""
    first, best = weights, value(weights)
    for step in progress(STEPS, "weights"):
        before = None
        while before != weights:
            before = weights
            for number, factor in ((number, factor) for number in range(len(weights)) for factor in (step, 1 / step)):
                tried = [weight * (factor if place == number else 1) for place, weight in enumerate(weights)]
                if 1 / FURTHEST <= tried[number] / first[number] <= FURTHEST and (found := value(tried)) > best:
                    weights, best = tried, found
    return weights


class Fold:
    """An inner fold whose embeddings are there: the average precision of each of its queries, by the models' weights."""

    def __init__(self, fold: Path, weights: Path, models: List[Model]) -> None:
        self.asked, self.models = scenarios.read(fold / "test"), models
        self.truth = read_table(fold / "truth.csv", ["query_id", "database_image_id"])
        if self.truth.empty:
            raise InputError(f"{fold}/truth.csv: no rows; there is nothing to fit weights to")
        self.way = routes.way(weights, fold / "test", [predict for predict, _ in models])
        self.whale = whales_of(fold / "labels.csv")

    def precision(self, weights: List[float]) -> pd.Series:
        models = [(replace(predict, weight=weight), embeddings) for weight, (predict, embeddings) in zip(weights, self.models)]
        ranked = rank.submission(self.asked, models[0][1]["image_id"], self.way.spaces(self.asked, models), self.way)
        return average_precision(ranked, self.truth)

    def value(self, weights: List[float]) -> float:
        return float(self.precision(weights).mean())

    def gain(self, before: List[float], after: List[float]) -> dict:
        """MAP@20 with both weights, and the 95 % interval of the difference when whales are drawn; queries where there are no labels."""
        one, other = self.precision(before), self.precision(after)
        image_of = pd.concat([pd.Series(scenario.query_image_ids, scenario.query_ids) for scenario in self.asked]).reindex(one.index)
        whale = self.whale.reindex(image_of).fillna("").to_numpy(str)
        return {"queries": len(one), "before": float(one.mean()), "map20": float(other.mean()), "ci95": calibrate.interval((other - one).to_numpy(), whale)}


def whales_of(labels: Path) -> pd.Series:
    """The whale of each image of a fold; of none where it has no labels, so that queries are drawn for themselves."""
    table = read_table(labels, ["image_id", "whale_id"]) if labels.is_file() else pd.DataFrame({"image_id": [], "whale_id": []}, dtype=object)
    twice = table.image_id.duplicated()
    if twice.any():
        raise InputError(f"{labels}: line {int(twice.to_numpy().argmax()) + 2}: {table.image_id[twice].iloc[0]} stands there twice; make the fold again")
    return table.set_index("image_id").whale_id


def models_of(weights: Path, embeddings: Path) -> Tuple[List[recipe.Spec], List[Model]]:
    """The models of WEIGHTS and what they made of the fold; InputError where that was made by others."""
    specs = recipe.specs(weights)
    if (weights / "identify.json").is_file():
        raise InputError(f"{weights}/identify.json: these weights name individuals, and what they do it by was fitted with the weights they have")
    if len(specs) < 2:
        raise InputError(f"{weights}: has one model, {specs[0].name}; a single one needs no weight")
    found = rank.read_embeddings(embeddings, [spec.name for spec in specs])
    for spec in specs:
        if replace(rank.spec_beside(embeddings / f"{spec.name}.npz"), position=spec.position) != spec:
            raise InputError(f"{embeddings}/{spec.name}.json: not the model of that name in {weights}; embed the fold with those weights")
    return specs, found


def weighed(weights: Path, folder: Path, specs: List[recipe.Spec], told: dict) -> None:
    """Fills `folder` with the weights of WEIGHTS under other specs."""
    shutil.copytree(weights, folder, dirs_exist_ok=True)
    for spec in specs:
        write_json(recipe.plain(spec), folder / f"{spec.name}.json")
    if (folder / "recipe.yaml").is_file():
        loaded, now = recipe.load(str(folder / "recipe.yaml")), {spec.name: spec.predict.weight for spec in specs}
        models = [replace(spec, predict=replace(spec.predict, weight=now.get(spec.name, spec.predict.weight))) for spec in loaded.models]
        recipe.save(replace(loaded, models=tuple(models)), folder / "recipe.yaml")
    made = read_object(folder / "provenance.json") if (folder / "provenance.json").is_file() else {}
    write_json({**made, "weighed": {**told, "weight": {spec.name: spec.predict.weight for spec in specs}}}, folder / "provenance.json")


def weigh(args: argparse.Namespace) -> None:
    specs, models = models_of(args.weights, args.embeddings)
    fold = Fold(args.fold, args.weights, models)
    before = [spec.predict.weight for spec in specs]
    after = ascended(fold.value, before)
    told = fold.gain(before, after)
    with whole_directory(args.output) as folder:
        weighed(args.weights, folder, [replace(spec, predict=replace(spec.predict, weight=weight)) for spec, weight in zip(specs, after)], told)
    for spec, weight in zip(specs, after):
        print(f"  {spec.name:<16} {spec.predict.weight:g} -> {weight:g}")
    low, high = told["ci95"]
    gain = f"MAP@20 {told['before']:.4f} -> {told['map20']:.4f} (difference {low:+.4f} to {high:+.4f})"
    print(f"{args.output}: {gain} on the {told['queries']} queries it was fitted to; another fold says what it is worth")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Fit the weights of an ensemble's models on an inner fold, never on the fold that is scored.",
        epilog="example: python -m solution.weigh --weights weights --embeddings inner/embeddings --fold inner/folds/0 --output weighed",
    )
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote, with two models or more")
    parser.add_argument("--embeddings", type=Path, required=True, help="those of FOLD/test by these weights (python -m solution.embed)")
    parser.add_argument("--fold", type=Path, required=True, help="inner fold with test/ and truth.csv, cut from the training part")
    parser.add_argument("--output", type=Path, required=True, help="the new directory of weights")
    args = parser.parse_args()
    with alone(args.output):
        weigh(args)


if __name__ == "__main__":
    run(main)
