"""What each model adds on a fold and what it costs, and what half precision changes there.

    measured(Path("folds/0"), Path("weights"), Path("packed/weights"), "cpu")

Reads FOLD/test, FOLD/truth.csv and two directories of the same models. Rankings are measured by MAP@20; where the truth names
individuals, names by MAP@5. Seconds differ from run to run, so `pack` keeps what was measured in the user's cache: the same
weights packed again against the same fold give the same bytes.
"""

import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import pandas as pd

from eval import score
from solution import embed, fusion, images, naming, rank, recipe, routes, scenarios
from solution.device import decoders

Parts = Dict[str, fusion.Embeddings]
Answering = Callable[[Parts, List[str]], pd.DataFrame]


class Timed:
    """An engine that notes the seconds per image of each batch."""

    def __init__(self, engine) -> None:
        self.engine, self.spec, self.width = engine, engine.spec, engine.width
        self.seconds: List[float] = []

    def __call__(self, batch: np.ndarray, mirrored: bool) -> np.ndarray:
        start = time.perf_counter()
        embeddings = self.engine(batch, mirrored)
        self.seconds.append((time.perf_counter() - start) / len(batch))
        return embeddings


class Judge:
    """The fold's photographs and truth; every model is embedded through it, and the answers judged.

    Each kind has its `metric`. `answering(weights)` makes submissions of embeddings and the names of the models to use,
    `value` is what one is worth, `differing` the share of what is answered that only one of two has.
    """

    def __init__(self, fold: Path, table: pd.DataFrame, truth: pd.DataFrame, specs: List[recipe.Spec], device: str) -> None:
        self.table, self.truth, self.device = table, truth, device
        self.specs = {spec.name: spec for spec in specs}
        self.image_ids = table.image_id.to_numpy(str)
        self.pixels = embed.Pixels(table, fold / "test", embed.views(specs), decoders())

    def embeddings(self, weights: Path) -> Tuple[Parts, Dict[str, float]]:
        """The embeddings by every model and its seconds per image: the median over the batches, mirror image included."""
        parts, seconds = {}, {}
        for name, spec in self.specs.items():
            engine = Timed(embed.Engines(weights, self.device)(spec))
            parts.update(embed.embed(self.pixels, [spec], lambda _: engine, self.image_ids))
            seconds[name] = float(np.median(engine.seconds)) * len(embed.sides(spec))
        return parts, seconds


class OfRankings(Judge):
    """A row of two submissions is the same where query and database image are."""

    metric = "MAP@20"

    def __init__(self, fold: Path, truth: pd.DataFrame, specs: List[recipe.Spec], device: str) -> None:
        self.asked = scenarios.read(fold / "test")
        super().__init__(fold, images.asked_for(fold / "test", scenarios.asked(self.asked)), truth, specs, device)

    def answering(self, weights: Path) -> Answering:
        way = routes.Way(recipe.read_rank(weights), self.table)
        spaces = lambda parts, names: way.spaces(self.asked, [(self.specs[name].predict, parts[name]) for name in names])
        return lambda parts, names: rank.submission(self.asked, self.image_ids, spaces(parts, names), way)

    def value(self, answers: pd.DataFrame) -> float:
        return float(score.score_images(answers, self.truth, None, None, []).per_query.strict.mean())

    def differing(self, one: pd.DataFrame, other: pd.DataFrame) -> float:
        return 1 - len(one.merge(other, on=["query_id", "database_image_id"])) / len(one)


class OfNames(Judge):
    """A photograph is answered alike where its five names and their order are. One identify.json serves any of the models."""

    metric = "MAP@5"

    def __init__(self, fold: Path, truth: pd.DataFrame, specs: List[recipe.Spec], device: str) -> None:
        super().__init__(fold, images.listed(fold / "test").reset_index(drop=True), truth, specs, device)

    def answering(self, weights: Path) -> Answering:
        asked = naming.Naming(weights, list(self.specs.values()), self.table, None)
        return lambda parts, names: asked.answers([self.specs[name] for name in names], parts, set())[0]

    def value(self, answers: pd.DataFrame) -> float:
        return float(score.score_labels(answers, self.truth, []).per_query.map5_individuals.mean())

    def differing(self, one: pd.DataFrame, other: pd.DataFrame) -> float:
        return float((one.iloc[:, 1] != other.iloc[:, 1]).mean())


def judge_of(fold: Path, specs: List[recipe.Spec], device: str) -> Judge:
    truth, of_images = score.read_truth(fold / "truth.csv")
    return (OfRankings if of_images else OfNames)(fold, truth, specs, device)


def measured(fold: Path, weights: Path, packed: Optional[Path], device: str) -> dict:
    """`metric`, `models` in the order in which they are to run, and `half`: what the weights in `packed` change, None without them."""
    judge = judge_of(fold, recipe.specs(weights), device)
    answers = judge.answering(weights)
    full, seconds = judge.embeddings(weights)
    value = lambda names: judge.value(answers(full, names))
    models, before = [], 0.0
    for name, after in greedy(seconds, value):
        models.append({"name": name, "seconds_per_image": seconds[name], "alone": value([name]), "gain": after - before})
        before = after
    names = list(judge.specs)
    half = change(judge, answers(full, names), judge.answering(packed)(judge.embeddings(packed)[0], names)) if packed else None
    return {"metric": judge.metric, "models": models, "half": half}


def greedy(seconds: Dict[str, float], value: Callable[[List[str]], float]) -> List[Tuple[str, float]]:
    """The models, each the one that adds most per second to those before it, with `value` of the ensemble so far.

    A loss weighs with the seconds instead, so that of two models that only harm the slow one comes last.
    """
    chosen: List[Tuple[str, float]] = []
    left, before = sorted(seconds), 0.0
    while left:
        names = [name for name, _ in chosen]
        after = {name: value(names + [name]) for name in left}
        worth = {name: gain / seconds[name] if gain > 0 else gain * seconds[name] for name, gain in ((name, after[name] - before) for name in left)}
        best = max(left, key=worth.__getitem__)
        chosen.append((best, after[best]))
        left.remove(best)
        before = after[best]
    return chosen


def change(judge: Judge, full: pd.DataFrame, half: pd.DataFrame) -> dict:
    return {"share_that_differs": judge.differing(full, half), "full": judge.value(full), "half": judge.value(half)}
