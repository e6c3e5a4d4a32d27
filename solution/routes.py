"""Which models rank which scenario, and what else a ranking takes from the table of photographs.

A model whose recipe names viewpoints (predict.queries, predict.database) takes part in the scenarios whose query and database photographs
have only those: models trained on pairs of views rank lateral queries in a database from above, as the first prize of Where's Whale-do? had it.
A scenario that is left without a model is ranked by all of them, which is told.
"""

import sys
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
import pandas as pd

from solution import recipe, ties
from solution.files import STRICT, Complaints, one_line
from solution.fusion import Model, Space, spaces
from solution.scenarios import Scenario


class Way:
    """How scenarios are ranked: the recipe's `rank`, and the columns of the photographs' table (image_id, ...) that it or the models ask for."""

    def __init__(self, rank: recipe.Rank = recipe.Rank(), table: Optional[pd.DataFrame] = None) -> None:
        self.rank, self.table, self.told = rank, None if table is None else table.set_index("image_id"), set()
        self.evidence = None  # local.Evidence of the photographs, once it was looked for

    @property
    def depth(self) -> int:
        """The answers of a query that are looked for: more than are given where evidence chooses among them."""
        return max(ties.TOP, self.rank.candidates) if self.evidence else ties.TOP

    def column(self, name: str, wanted: str) -> Optional[pd.Series]:
        """A column by image id; None, which is told, where the table has none."""
        if self.table is not None and name in self.table:
            return self.table[name]
        self.tell(f"metadata.csv has no {name}: {wanted}")

    def tell(self, line: str) -> None:
        """Once, however often the scenarios are ranked."""
        if line not in self.told:
            print(f"warning: {one_line(line)}", file=sys.stderr)
        self.told.add(line)

    def whales(self, image_ids: np.ndarray) -> Optional[np.ndarray]:
        """The number of each image's whale (m,) where the ranking asks for it, unknown ones each with their own; None where it does not or cannot."""
        known = self.column("whale_id", "rank.rerank is whale_sums, which needs it of the database; ranked by cosine") if self.rank.rerank == "whale_sums" else None
        if known is None:
            return None
        number, names = pd.factorize(known.reindex(image_ids).fillna("").to_numpy(object))
        unknown = np.isin(number, np.flatnonzero(names == ""))
        return np.unique(np.where(unknown, len(names) + np.arange(len(number)), number), return_inverse=True)[1]

    def spaces(self, scenarios: Sequence[Scenario], models: List[Model]) -> List[List[Space]]:
        """The spaces that rank each scenario; those that the same models rank share them."""
        made, chosen = {}, [self.taking_part(scenario, [predict for predict, _ in models]) for scenario in scenarios]
        for some in chosen:
            if some not in made:
                made[some] = spaces([models[number] for number in some], self.rank.fusion)
        return [made[some] for some in chosen]

    def taking_part(self, scenario: Scenario, predicts: List[recipe.Predict]) -> tuple:
        """The numbers of the models that rank a scenario."""
        every = tuple(range(len(predicts)))
        if not any(predict.queries or predict.database for predict in predicts):
            return every
        viewpoint = self.column("viewpoint", "every model ranks every scenario, whatever its predict.queries and predict.database say")
        if viewpoint is None:
            return every
        asked, there = (set(viewpoint.reindex(ids).fillna("")) for ids in (scenario.query_image_ids, scenario.database_image_ids))
        fit = [number for number in every if fits(predicts[number].queries, asked) and fits(predicts[number].database, there)]
        if not fit:
            self.tell(f"scenario {scenario.scenario_id}: no model that is there takes {views(asked)} queries in a database of {views(there)}; ranked by all")
        return tuple(fit) or every


def fits(named: Sequence[str], seen: set) -> bool:
    return not named or seen <= set(named)


def views(seen: set) -> str:
    return "+".join(sorted(view or "unknown" for view in seen)) or "no"


def way(directory: Path, data: Path, predicts: List[recipe.Predict], complaints: Complaints = STRICT) -> Way:
    """The way of a directory of weights or embeddings over a data directory, whose table is read where it is needed."""
    from solution.images import listed  # and OpenCV, which most rankings do without

    rank = recipe.read_rank(directory)
    needed = rank.rerank == "whale_sums" or any(predict.queries or predict.database for predict in predicts)
    return Way(rank, listed(data, complaints) if needed else None)
