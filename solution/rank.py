"""What a ranking is: embeddings + scenarios -> submission.csv, the best 20 database images of each query by cosine.

    python -m solution.rank --embeddings EMBEDDINGS --data DATA --output submission.csv [--models a,b] [--no-mirror]

Reads EMBEDDINGS/MODEL.npz (and MODEL.json, the model's spec) and the scenario files of DATA. Writes query_id,
database_image_id,score; 4,419 queries against 3,400 images of 8,544 numbers take a few seconds on two cores, 28,000
against 51,000 of 4,272 take 3 GB. --timings notes the seconds of reading, joining, ranking and writing.
"""

import argparse
import hashlib
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

import numpy as np
import pandas as pd

from solution import recipe, shards
from solution.device import keep_pages
from solution.files import InputError, alone, progress, run, write_json, write_table
from solution.scenarios import Scenario, read

TOP = 20  # rows a query
JOINED = 128  # images whose embeddings are joined at once: few enough for the processor's cache
BLOCK = 1024  # queries whose similarities are held at once
PAIRS = 4096  # pairs whose embeddings are held at once
NEAR = 1e-6  # closer cosines are computed again, in float64
COPIES = 100  # of those a query, from which on most are copies of each other
SMALLEST, STEP = 1e-9, 1e-12  # of a score; the distance between two scores of a query
ORDINARY = 1e-30, 1e38  # norms that float32 holds in full

Embeddings = Dict[str, np.ndarray]  # image_id (n,), plain and mirror (n, width) float32


def combined(models: Iterable[Tuple[recipe.Predict, Embeddings]]) -> np.ndarray:
    """One L2-normalised row per image (n, d): each model's plain and mirror embeddings joined as its recipe says.

    The dot product of two rows is the ensemble's cosine. A row of zeros stays zero, and one that is not finite becomes it.
    """
    models = list(models)
    widths = [with_mirror(*model, slice(0)).shape[1] for model in models]
    rows = np.empty((len(models[0][1]["plain"]), sum(widths)), np.float32)
    columns, broken = np.split(rows, np.cumsum(widths)[:-1], axis=1), np.zeros(len(models), int)
    most = max(predict.weight for predict, _ in models)  # so that no weight takes numbers out of float32
    for start in range(0, len(rows), JOINED):
        block = slice(start, start + JOINED)
        for number, (model, own) in enumerate(zip(models, columns)):
            broken[number] += join(*model, block, own[block], most)
        to_unit_length(rows[block])
    for count in broken[broken > 0]:
        print(f"warning: {count} of {len(rows)} embeddings are not finite; for that model they are like nothing", file=sys.stderr)
    return rows


def join(predict: recipe.Predict, embeddings: Embeddings, block: slice, own: np.ndarray, most: float) -> int:
    """Fills a model's `own` columns (b, width) of a block of rows, `most` being the largest weight of a model; returns how many were not finite."""
    with np.errstate(over="ignore", invalid="ignore"):  # which those have told that are not finite
        own[:] = with_mirror(predict, embeddings, block)
    broken = ~np.isfinite(own).all(axis=1)
    own[broken] = 0
    if predict.normalise:
        to_unit_length(own)
    own *= np.float32(np.sqrt(predict.weight / most))
    return broken.sum()


def with_mirror(predict: recipe.Predict, embeddings: Embeddings, block: slice) -> np.ndarray:
    plain, mirrored = embeddings["plain"][block], embeddings.get("mirror")
    if predict.mirror == "off" or mirrored is None:
        return plain
    return np.concatenate([plain, mirrored[block]], axis=1) if predict.mirror == "concatenate" else plain / 2 + mirrored[block] / 2


def to_unit_length(rows: np.ndarray) -> np.ndarray:
    """Divides each row by its L2 norm, in place; a row of zeros stays."""
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    extreme = (norms > 0) & ((norms < ORDINARY[0]) | (norms > ORDINARY[1]))
    rows[extreme], norms[extreme] = rows[extreme] / norms[extreme, None], 1
    rows /= np.where(norms > 0, norms, 1)[:, None].astype(np.float32)
    return rows


def best(queries: np.ndarray, database: np.ndarray, own: np.ndarray, order: np.ndarray, top: int = TOP) -> Tuple[np.ndarray, np.ndarray]:
    """The `top` most similar database rows of each query: their numbers (q, top) and cosines (q, top), best first.

    queries (q, d), database (m, d): unit rows. own (q,): the query's own row in the database, -1 where it is not there;
    it is never an answer. order (m,): the place of each database image by its id, which breaks ties. Places that
    a short database leaves empty hold row -1 and cosine -inf.
    """
    rows, cosines = np.full((len(queries), top), -1), np.full((len(queries), top), -np.inf)
    for start in progress(range(0, len(queries), BLOCK), "blocks of queries"):
        block = slice(start, start + BLOCK)
        similarity = queries[block] @ database.T
        inside = np.flatnonzero(own[block] >= 0)
        similarity[inside, own[block][inside]] = -np.inf
        query, column = candidates(similarity, top)
        cosine = similarity[query, column].astype(np.float64)
        sequence = np.lexsort((order[column], -cosine, query))
        close = sequence[near(query[sequence], cosine[sequence])]
        several = exact if len(close) < COPIES * len(similarity) else exact_of_copies
        cosine[close] = several(queries[block], database, query[close], column[close])
        place_best(query, column, cosine, order, rows[block], cosines[block])
    return rows, cosines


def place_best(query: np.ndarray, row: np.ndarray, cosine: np.ndarray, order: np.ndarray, rows: np.ndarray, cosines: np.ndarray) -> None:
    """Puts the best of each query's candidates, given as pairs (n,), into `rows` and `cosines` (q, top), as `best` returns them."""
    sequence = np.lexsort((order[row], -cosine, query))
    query, row, cosine = query[sequence], row[sequence], cosine[sequence]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    kept = place < rows.shape[1]
    rows[query[kept], place[kept]], cosines[query[kept], place[kept]] = row[kept], cosine[kept]


def candidates(similarity: np.ndarray, top: int) -> Tuple[np.ndarray, np.ndarray]:
    """Row and column of all that may be among the `top` best of their row (b, m): not below its `top`-th value by more than NEAR."""
    m = similarity.shape[1]
    least = np.partition(similarity, m - top, axis=1)[:, m - top] if m > top else np.full(len(similarity), -np.inf)
    least = np.maximum(least - NEAR, np.finfo(np.float32).min)  # -inf is not among them
    return np.divmod(np.flatnonzero(similarity >= least[:, None]), m)  # many times faster than nonzero of a table


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


def exact_of_copies(queries: np.ndarray, database: np.ndarray, query: np.ndarray, column: np.ndarray) -> np.ndarray:
    """As `exact`, but equal database rows of a query are computed once: where all are copies, or zero, that spares hours."""
    digests = np.array([hashlib.sha256(row).digest() for row in database])
    _, first, kind = np.unique(digests, return_index=True, return_inverse=True)
    pairs, place = np.unique(query * len(database) + first[kind][column], return_inverse=True)
    return exact(queries, database, *np.divmod(pairs, len(database)))[place]


def scores(cosines: np.ndarray) -> np.ndarray:
    """(1 + cos) / 2 in [1e-9, 1], (q, top) best first, each at most the previous one minus 1e-12 so that no two are equal, and all above 0."""
    values = np.clip((1 + cosines) / 2, max(SMALLEST, STEP * cosines.shape[1]), 1)
    for place in range(1, values.shape[1]):
        values[:, place] = np.minimum(values[:, place], values[:, place - 1] - STEP)
    return values


def ranking(scenario: Scenario, image_ids: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
    """The submission's rows for one scenario, from one unit row (n, d) per image id (n,)."""
    wanted = np.concatenate([scenario.query_image_ids, scenario.database_image_ids])
    places = pd.Index(image_ids).get_indexer(wanted)
    if (places < 0).any():
        raise InputError(f"{scenario.scenario_id}: there is no embedding of image {wanted[places < 0][0]}; embed this data directory")
    own = pd.Index(scenario.database_image_ids).get_indexer(scenario.query_image_ids)
    order = np.argsort(np.argsort(scenario.database_image_ids.astype(str), kind="stable"), kind="stable")
    queries, database = (rows[part] for part in np.split(places, [len(scenario.query_ids)]))
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
    files = shards.embedding_files(directory)
    there = {name: directory / f"{name}.npz" for name in files}
    if not there:
        raise InputError(f"{directory}: no embeddings here (MODEL.npz); make them with python -m solution.embed")
    for name in names or []:
        if name not in there:
            raise InputError(f"--models: {directory} has no model {name!r}{recipe.nearest(name, list(there))}; it has {', '.join(there)}")
    if len(set(names or [])) < len(names or []):
        raise InputError(f"--models: {','.join(names)} names a model twice")
    specs = {name: spec_beside(path) for name, path in there.items()}
    chosen = names or sorted(there, key=lambda name: (specs[name].position, name))
    models = [(specs[name].predict, shards.joined(files[name])) for name in chosen]
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
    parser.add_argument("--timings", type=Path, help="JSON file for the seconds of reading, joining, ranking and writing")
    args = parser.parse_args()
    keep_pages()
    with alone(args.output):
        rank(args)


def rank(args: argparse.Namespace) -> None:
    """Writes the submission, and the seconds of each phase where they are asked for."""
    clock = [time.perf_counter()]
    scenarios = read(args.data)
    models = read_embeddings(args.embeddings, args.models.split(",") if args.models else None)
    if args.no_mirror:
        models = [(replace(predict, mirror="off"), embeddings) for predict, embeddings in models]
    image_ids, count, queries = models[0][1]["image_id"], len(models), sum(len(scenario.query_ids) for scenario in scenarios)
    clock.append(time.perf_counter())
    rows = combined(models)
    clock.append(time.perf_counter())
    del models  # the pages they leave hold the copies that ranking makes
    ranked = submission(scenarios, image_ids, rows)
    clock.append(time.perf_counter())
    write_table(ranked, args.output)
    clock.append(time.perf_counter())
    if args.timings:
        seconds = dict(zip(("read_seconds", "join_seconds", "rank_seconds", "write_seconds"), np.diff(clock).tolist()))
        write_json({**seconds, "queries": queries, "images": len(rows)}, args.timings)
    print(f"{args.output}: {queries} queries ranked by {count} models")


if __name__ == "__main__":
    run(main, relief="name fewer --models, or join with --no-mirror")
