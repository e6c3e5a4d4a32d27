"""What a ranking is: embeddings + scenarios -> submission.csv, the best 20 database images of each query by cosine.

    python -m solution.rank --embeddings EMBEDDINGS --data DATA --output submission.csv [--models a,b] [--no-mirror]

Reads EMBEDDINGS/MODEL.npz (and MODEL.json, the model's spec) and the scenario files of DATA. Writes query_id,
database_image_id,score; 4,419 queries against 3,400 images of 8,544 numbers take a few seconds on two cores.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

import numpy as np
import pandas as pd

from solution import recipe
from solution.files import InputError, arrays, progress, run, write_table
from solution.scenarios import Scenario, read

TOP = 20  # rows a query
BLOCK = 1024  # queries whose similarities are held at once
PAIRS = 4096  # pairs whose embeddings are held at once
NEAR = 1e-6  # closer cosines are computed again, in float64
SMALLEST, STEP = 1e-9, 1e-12  # of a score; the distance between two scores of a query

Embeddings = Dict[str, np.ndarray]  # image_id (n,), plain and mirror (n, width) float32


def combined(models: Iterable[Tuple[recipe.Predict, Embeddings]]) -> np.ndarray:
    """One L2-normalised row per image (n, d): each model's plain and mirror embeddings joined as its recipe says.

    The dot product of two rows is the ensemble's cosine. A row of zeros stays zero, and one that is not finite becomes it.
    """
    parts = [(predict, with_mirror(predict.mirror, embeddings["plain"], embeddings.get("mirror"))) for predict, embeddings in models]
    rows = np.empty((len(parts[0][1]), sum(part.shape[1] for _, part in parts)), np.float32)
    start = 0
    for predict, part in parts:
        own = rows[:, start : start + part.shape[1]]
        own[:] = part
        broken = ~np.isfinite(own).all(axis=1)
        if broken.any():
            print(f"warning: {broken.sum()} of {len(own)} embeddings are not finite; for that model they are like nothing", file=sys.stderr)
            own[broken] = 0
        if predict.normalise:
            to_unit_length(own)
        own *= np.float32(np.sqrt(predict.weight))
        start += part.shape[1]
    return to_unit_length(rows)


def with_mirror(mirror: str, plain: np.ndarray, mirrored: Optional[np.ndarray]) -> np.ndarray:
    if mirror == "off" or mirrored is None:
        return plain
    return np.concatenate([plain, mirrored], axis=1) if mirror == "concatenate" else (plain + mirrored) / 2


def to_unit_length(rows: np.ndarray) -> np.ndarray:
    """Divides each row by its L2 norm, in place; a row of zeros stays."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    rows /= np.where(norms > 0, norms, 1)[:, None].astype(np.float32)
    return rows


def best(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, top: int = TOP) -> Tuple[np.ndarray, np.ndarray]:
    """The `top` most similar database rows of each query: their numbers (q, top) and cosines (q, top), best first.

    queries (q, d), database (m, d): unit rows. own (q,): the query's own row in the database, -1 where it is not there;
    it is never an answer. order (m,): the place of each database image by its id, which breaks ties. Places that
    a short database leaves empty hold row -1 and cosine -inf.
    """
    rows, cosines = np.full((len(queries), top), -1), np.full((len(queries), top), -np.inf)
    for start in range(0, len(queries), BLOCK):
        block = slice(start, start + BLOCK)
        similarity = queries[block] @ database.T
        inside = np.flatnonzero(own[block] >= 0)
        similarity[inside, own[block][inside]] = -np.inf
        query, column = candidates(similarity, top)
        cosine = similarity[query, column].astype(np.float64)
        sequence = np.lexsort((order[column], -cosine, query))
        close = sequence[near(query[sequence], cosine[sequence])]
        cosine[close] = exact(queries[block], database, query[close], column[close])
        sequence = np.lexsort((order[column], -cosine, query))
        query, column, cosine = query[sequence], column[sequence], cosine[sequence]
        place = np.arange(len(query)) - np.searchsorted(query, query)
        kept = place < top
        rows[start + query[kept], place[kept]], cosines[start + query[kept], place[kept]] = column[kept], cosine[kept]
    return rows, cosines


def candidates(similarity: np.ndarray, top: int) -> Tuple[np.ndarray, np.ndarray]:
    """Row and column of all that may be among the `top` best of their row (b, m): not below its `top`-th value by more than NEAR."""
    m = similarity.shape[1]
    least = np.partition(similarity, m - top, axis=1)[:, m - top] if m > top else np.full(len(similarity), -np.inf)
    return np.nonzero((similarity >= least[:, None] - NEAR) & (similarity > -np.inf))


def near(query: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Which of the sorted candidates stand closer than NEAR to a neighbour of the same query."""
    close, either = (query[1:] == query[:-1]) & (cosine[:-1] - cosine[1:] < NEAR), np.zeros(len(query), bool)
    either[:-1] |= close
    either[1:] |= close
    return either


def exact(queries: np.ndarray, database: np.ndarray, query: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The cosines of pairs of rows in float64, alike for equal rows, which a blocked matrix product does not promise."""
    pairs = [slice(start, start + PAIRS) for start in range(0, len(query), PAIRS)]
    parts = [np.einsum("ij,ij->i", queries[query[part]], database[column[part]], dtype=np.float64) for part in pairs]
    return np.concatenate(parts) if parts else np.zeros(0)


def scores(cosines: np.ndarray) -> np.ndarray:
    """(1 + cos) / 2 in [1e-9, 1], (q, top) best first, each at most the previous one minus 1e-12 so that no two are equal."""
    values = np.clip((1 + cosines) / 2, SMALLEST, 1)
    for place in range(1, values.shape[1]):
        values[:, place] = np.minimum(values[:, place], values[:, place - 1] - STEP)
    return values


def ranking(scenario: Scenario, image_ids: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """The submission's rows for one scenario, from one unit row (n, d) per image id (n,)."""
    position = pd.Series(np.arange(len(image_ids)), index=image_ids)
    wanted = np.concatenate([scenario.query_image_ids, scenario.database_image_ids])
    if not np.isin(wanted, image_ids).all():
        raise InputError(f"{scenario.scenario_id}: there is no embedding of image {wanted[~np.isin(wanted, image_ids)][0]}; embed this data directory")
    own = pd.Series(np.arange(len(scenario.database_image_ids)), index=scenario.database_image_ids)
    own = own.reindex(scenario.query_image_ids, fill_value=-1).to_numpy()
    order = np.argsort(np.argsort(scenario.database_image_ids.astype(str), kind="stable"), kind="stable")
    queries, database = (rows[position[ids].to_numpy()] for ids in (scenario.query_image_ids, scenario.database_image_ids))
    found, cosines = best(queries, database, own, order)
    there = found >= 0
    return pd.DataFrame({
        "query_id": np.repeat(scenario.query_ids, there.sum(axis=1)),
        "database_image_id": scenario.database_image_ids[found[there]],
        "score": scores(cosines)[there],
    })


def submission(scenarios: List[Scenario], image_ids: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """query_id, database_image_id, score for all scenarios, ordered by query, then score."""
    return pd.concat([ranking(scenario, image_ids, rows) for scenario in progress(scenarios, "ranking")], ignore_index=True)


def fallback(scenarios: List[Scenario]) -> pd.DataFrame:
    """A complete valid submission without any model: the first 20 images of each database in their order, not the query's own."""
    return pd.concat([first_of_database(scenario) for scenario in scenarios], ignore_index=True)


def first_of_database(scenario: Scenario) -> pd.DataFrame:
    images = scenario.database_image_ids[: TOP + 1]
    other = images[None, :] != scenario.query_image_ids[:, None]
    place = other.cumsum(axis=1) - 1
    kept = other & (place < TOP)
    query, column = np.nonzero(kept)
    return pd.DataFrame({"query_id": scenario.query_ids[query], "database_image_id": images[column], "score": 0.5 - place[kept] / 100})


def read_embeddings(directory: Path, names: Optional[List[str]]) -> List[Tuple[recipe.Predict, Embeddings]]:
    """Each model's way of joining and its embeddings, in the recipe's order (or that of `names`)."""
    there = {path.stem: path for path in sorted(directory.glob("*.npz"))}
    if not there:
        raise InputError(f"{directory}: no embeddings here (MODEL.npz); make them with python -m solution.embed")
    for name in names or []:
        if name not in there:
            raise InputError(f"--models: {directory} has no model {name!r}{recipe.nearest(name, list(there))}; it has {', '.join(there)}")
    if len(set(names or [])) < len(names or []):
        raise InputError(f"--models: {','.join(names)} names a model twice")
    specs = {name: spec_beside(path) for name, path in there.items()}
    chosen = names or sorted(there, key=lambda name: (specs[name].position, name))
    models = [(specs[name].predict, arrays(there[name], ("image_id", "plain", "mirror"))) for name in chosen]
    for name, (_, embeddings) in zip(chosen, models):
        n = len(embeddings["image_id"])
        if len(np.unique(embeddings["image_id"])) < n or any(embeddings[part].shape != (n, embeddings["plain"].shape[-1]) for part in ("plain", "mirror")):
            raise InputError(f"{there[name]}: needs unique image_id (n), plain (n, d) and mirror (n, d)")
        if not np.array_equal(embeddings["image_id"], models[0][1]["image_id"]):
            raise InputError(f"{there[name]}: its images are not those of {there[chosen[0]]}; embed both from one data directory")
    return models


def spec_beside(path: Path) -> recipe.Spec:
    """The spec MODEL.json beside embeddings; the defaults for embeddings of another system, which have none."""
    beside = path.with_suffix(".json")
    return recipe.read_spec(beside) if beside.is_file() else recipe.Spec(path.stem, 0, recipe.Model(path.stem))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Rank the database of every scenario for each of its queries, from saved embeddings.",
        epilog="example: python -m solution.rank --embeddings runs/demo/fold0/embeddings --data runs/demo/folds/0/test --output submission.csv --models lite0",
    )
    parser.add_argument("--embeddings", type=Path, required=True, help="directory with MODEL.npz files")
    parser.add_argument("--data", type=Path, required=True, help="data directory with query_scenarios.csv")
    parser.add_argument("--output", type=Path, required=True, help="the submission.csv to write")
    parser.add_argument("--models", help="names separated by commas (default: all, in the recipe's order)")
    parser.add_argument("--no-mirror", action="store_true", help="rank by the images alone, whatever the recipe says of their mirror images")
    args = parser.parse_args()
    scenarios = read(args.data)
    models = read_embeddings(args.embeddings, args.models.split(",") if args.models else None)
    if args.no_mirror:
        models = [(replace(predict, mirror="off"), embeddings) for predict, embeddings in models]
    image_ids = models[0][1]["image_id"]
    write_table(submission(scenarios, image_ids, combined(models)), args.output)
    print(f"{args.output}: {sum(len(scenario.query_ids) for scenario in scenarios)} queries ranked by {len(models)} models")


if __name__ == "__main__":
    run(main)
