"""What a ranking is: embeddings + scenarios -> submission.csv, the best 20 database images of each query, by cosine or as rank.json says.

    python -m solution.rank --embeddings EMBEDDINGS --data DATA --output submission.csv [--models a,b] [--no-mirror]

Reads EMBEDDINGS/MODEL.npz (and MODEL.json, the model's spec, and rank.json, the recipe's `rank`) and the scenario files of DATA; where viewpoints
or labels are asked for also its metadata.csv. Writes query_id,database_image_id,score; 4,419 queries against 3,400 images of 8,544 numbers take a few seconds on two cores, 28,000
against 51,000 of 4,272 take 3 GB. --timings notes the seconds of reading, joining, ranking and writing.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
import pandas as pd

from solution import fusion, recipe, rerank, routes, shards, ties
from solution.device import keep_pages
from solution.files import InputError, alone, progress, run, write_json, write_table
from solution.fusion import Embeddings, Space
from solution.scenarios import Scenario, read

SMALLEST, STEP = 1e-9, 1e-12  # of a score; the distance between two scores of a query


def scores(cosines: np.ndarray) -> np.ndarray:
    """(1 + cos) / 2 in [1e-9, 1], (q, top) best first, each at most the previous one minus 1e-12 so that no two are equal, and all above 0."""
    values = np.clip((1 + cosines) / 2, max(SMALLEST, STEP * cosines.shape[1]), 1)
    for place in range(1, values.shape[1]):
        values[:, place] = np.minimum(values[:, place], values[:, place - 1] - STEP)
    return values


def ranking(scenario: Scenario, image_ids: np.ndarray, spaces: List[Space], way: routes.Way) -> pd.DataFrame:
    """The submission's rows for one scenario, from spaces with one unit row (n, d) per image id (n,)."""
    wanted = np.concatenate([scenario.query_image_ids, scenario.database_image_ids])
    places = pd.Index(image_ids).get_indexer(wanted)
    if (places < 0).any():
        raise InputError(f"query_scenarios.csv: scenario {scenario.scenario_id!r}: there is no embedding of image {wanted[places < 0][0]!r}; embed this data directory")
    found, values = answers(scenario, np.split(places, [len(scenario.query_ids)]), spaces, way)
    there = found >= 0
    return pd.DataFrame({
        "query_id": np.repeat(scenario.query_ids, there.sum(axis=1)),
        "database_image_id": scenario.database_image_ids[found[there]],
        "score": scores(values)[there],
    })


def answers(scenario: Scenario, places: List[np.ndarray], spaces: List[Space], way: routes.Way) -> fusion.Lists:
    """Numbers of database images (q, 20) and their values (q, 20), best first; `places` are the rows of queries and database in each space."""
    own = pd.Index(scenario.database_image_ids).get_indexer(scenario.query_image_ids)
    order = np.argsort(np.argsort(scenario.database_image_ids.astype(str), kind="stable"), kind="stable")
    whale, lists = way.whales(scenario.database_image_ids), []
    for space in spaces:
        queries, database = (space.rows[part] for part in places)
        similarity = rerank.similarity(way.rank, queries, database, own, order, whale)
        lists.append(ties.best_by(similarity, own, order, way.depth if len(spaces) == 1 else max(way.depth, fusion.DEPTH)))
    found = lists[0] if len(spaces) == 1 else fusion.reciprocal_rank(lists, [space.weight for space in spaces], order, way.depth)
    if way.evidence:
        found = way.evidence.reordered(*found, scenario.query_image_ids, scenario.database_image_ids)
    return found[0][:, : ties.TOP], found[1][:, : ties.TOP]


def submission(scenarios: List[Scenario], image_ids: np.ndarray, spaces: List[List[Space]], way: routes.Way = routes.Way()) -> pd.DataFrame:
    """query_id, database_image_id, score for all scenarios, each by its own of the spaces, ordered by query, then score."""
    jobs = list(zip(scenarios, spaces))
    return pd.concat([ranking(scenario, image_ids, own, way) for scenario, own in progress(jobs, "ranking")], ignore_index=True)


def fallback(scenarios: List[Scenario]) -> pd.DataFrame:
    """A complete valid submission without any model: the first 20 images of each database in their order, not the query's own."""
    return pd.concat([first_of_database(scenario) for scenario in scenarios], ignore_index=True)


def first_of_database(scenario: Scenario) -> pd.DataFrame:
    images = scenario.database_image_ids[: ties.TOP + 1]
    other = images[None, :] != scenario.query_image_ids[:, None]
    place = other.cumsum(axis=1) - 1
    kept = other & (place < ties.TOP)
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
    way = routes.way(args.embeddings, args.data, [predict for predict, _ in models])
    if any(predict.local_size for predict, _ in models):
        print("note: local evidence needs the photographs, which saved embeddings do not hold; ranked without it", file=sys.stderr)
    image_ids, count, queries = models[0][1]["image_id"], len(models), sum(len(scenario.query_ids) for scenario in scenarios)
    clock.append(time.perf_counter())
    spaces = way.spaces(scenarios, models)
    clock.append(time.perf_counter())
    del models  # the pages they leave hold the copies that ranking makes
    ranked = submission(scenarios, image_ids, spaces, way)
    clock.append(time.perf_counter())
    write_table(ranked, args.output)
    clock.append(time.perf_counter())
    if args.timings:
        seconds = dict(zip(("read_seconds", "join_seconds", "rank_seconds", "write_seconds"), np.diff(clock).tolist()))
        write_json({**seconds, "queries": queries, "images": len(image_ids)}, args.timings)
    print(f"{args.output}: {queries} queries ranked by {count} models")


if __name__ == "__main__":
    run(main, relief="name fewer --models, or join with --no-mirror")
