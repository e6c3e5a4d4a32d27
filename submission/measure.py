"""What each model adds on a fold and what it costs, and what half precision changes there.

    measured(Path("folds/0"), Path("weights"), Path("packed/weights"), "cpu")

Reads FOLD/test, FOLD/truth.csv and two directories of the same models. Seconds differ from run to run, so `pack` keeps what was
measured in the user's cache: the same weights packed again against the same fold give the same bytes.
"""

import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import pandas as pd

from eval import score
from eval.files import InputError
from solution import embed, images, rank, recipe, scenarios
from solution.device import default_workers

Parts = Dict[str, rank.Embeddings]


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
    """The fold's photographs, scenarios and truth; every model of the fold's is embedded and ranked through it."""

    def __init__(self, fold: Path, specs: List[recipe.Spec], device: str) -> None:
        self.truth, of_images = score.read_truth(fold / "truth.csv")
        if not of_images:
            raise InputError(f"{fold}/truth.csv: holds labels; --fold needs query_id,database_image_id")
        self.specs, self.device = {spec.name: spec for spec in specs}, device
        self.asked = scenarios.read(fold / "test")
        table = images.asked_for(fold / "test", scenarios.asked(self.asked))
        self.image_ids = table.image_id.to_numpy(str)
        self.pixels = embed.Pixels(table, fold / "test", embed.views(specs), default_workers(device))

    def embeddings(self, weights: Path) -> Tuple[Parts, Dict[str, float]]:
        """The embeddings by every model and its seconds per image: the median over the batches, mirror image included."""
        parts, seconds = {}, {}
        for name, spec in self.specs.items():
            engine = Timed(embed.Engines(weights, self.device)(spec))
            parts.update(embed.embed(self.pixels, [spec], lambda _: engine, self.image_ids))
            seconds[name] = float(np.median(engine.seconds)) * len(embed.passes([spec]))
        return parts, seconds

    def ranking(self, parts: Parts, names: List[str]) -> pd.DataFrame:
        rows = rank.combined([(self.specs[name].predict, parts[name]) for name in names])
        return rank.submission(self.asked, self.image_ids, rows)

    def map20(self, ranking: pd.DataFrame) -> float:
        return float(score.score_images(ranking, self.truth, None, None, []).per_query.strict.mean())


def measured(fold: Path, weights: Path, packed: Optional[Path], device: str) -> dict:
    """`models` in the order in which they are to run, and `half`: what the weights in `packed` change, None without them."""
    specs = recipe.specs(weights)
    judge = Judge(fold, specs, device)
    full, seconds = judge.embeddings(weights)
    value = lambda names: judge.map20(judge.ranking(full, names))
    models, before = [], 0.0
    for name, after in greedy(seconds, value):
        models.append({"name": name, "seconds_per_image": seconds[name], "map20_alone": value([name]), "gain": after - before})
        before = after
    return {"models": models, "half": change(judge, full, judge.embeddings(packed)[0]) if packed else None}


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


def change(judge: Judge, full: Parts, half: Parts) -> dict:
    """The share of the top-20 rows (query, database image) that only one of the two rankings has, and both MAP@20."""
    names = list(judge.specs)
    one, other = (judge.ranking(parts, names) for parts in (full, half))
    shared = one.merge(other, on=["query_id", "database_image_id"])
    return {"rows_that_differ": 1 - len(shared) / len(one), "map20_full": judge.map20(one), "map20_half": judge.map20(other)}
