"""How fast a ranking is: `python -m solution.rank` against the reference and against the bare matrix product, by turns.

    python -m eval.bench ranking --shape 4419,3400,8544 --json ranking.json

Made-up embeddings, the same every time, lie in files; photographs that ask are in the database too, as far as it goes. Ours is a
process of its own, which also starts, reads and writes, so it ranks all queries and one in eight: what all of them take longer is the
work on the rest, and `seconds` is that work for all. `ratio` compares it with eval.reference.ranking in this process, its table made
before, on 50 drawn queries scaled to all of them; `times_bare_product` with the float32 product alone, in blocks. Nothing is taken
off `whole_command_seconds`. The answers to the 50 queries must agree within 1e-4. Expect a minute or two and 2 GB.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eval.benchmarks import rounds
from eval.files import read_table, write_table

DRAWN = 50  # queries that the reference answers: each takes it a tenth of a second
FEW = 8  # the smaller run asks one query in so many
BLOCK = 1024  # queries of the bare product at once, so that its memory is bounded


def measured(args: argparse.Namespace) -> dict:
    queries, images, width = args.shape
    rows = np.random.default_rng([0]).standard_normal((max(queries, images), width), np.float32)
    ids = np.array([f"train{number:05}" for number in range(len(rows))])
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, few = Path(place), max(1, queries // FEW)
        write_embeddings(rows, ids, folder / "embeddings")
        write_scenario(ids[:few], ids[:images], folder / "few")
        write_scenario(ids[:queries], ids[:images], folder / "all")
        reference = Reference(rows, ids, images, queries)
        peak_mb = noted_memory(folder)
        works = {"few": partial(rank, folder, "few"), "all": partial(rank, folder, "all"),
                 "reference": reference, "product": partial(product, rows[:queries], rows[:images])}
        rounds.by_turns(works, 1)  # to warm up
        spent = rounds.by_turns(works, args.repeats)
        answers = read_table(folder / "all.csv")
    same = rounds.agreement(answers[answers.query_id.isin(reference.answers.query_id)], reference.answers)
    speeds = told(spent, queries, few, len(reference.queries))
    return {**speeds, **same, "shape": args.shape, "peak_mb": peak_mb, "repeats": args.repeats, "threads": rounds.threads()}


def told(spent: dict[str, np.ndarray], queries: int, few: int, drawn: int) -> dict:
    """The figures, from what the works took: ours on few and on all queries, the reference's on those drawn."""
    ours, reference = (spent["all"] - spent["few"]) * queries / (queries - few), spent["reference"] * queries / drawn
    bare = rounds.ratios(spent["product"], ours)
    return {
        **rounds.ratios(ours, reference), "seconds": rounds.seconds(ours), "reference_seconds": rounds.seconds(reference),
        "reference_queries": drawn, "bare_product_seconds": rounds.seconds(spent["product"]), "times_bare_product": bare["ratio"],
        "times_bare_product_least": bare["ratio_least"], "times_bare_product_most": bare["ratio_most"],
        "whole_command_seconds": rounds.seconds(spent["all"]), "ratio_of_whole_command": rounds.ratios(spent["all"], reference)["ratio"],
    }


def show(result: dict) -> None:
    if result["seconds"] is None:
        print(f"all queries took no longer than one in {FEW}: no round tells a ratio; a larger --shape does")
    else:
        print("ranking {shape}: {seconds:.2f} s, the reference {reference_seconds:.0f} s by {reference_queries} queries: {ratio:.3g} times ours, "
              "{ratio_least:.3g} to {ratio_most:.3g} by round; {times_bare_product:.2f} times the bare product".format(**result))
    print("the whole command takes {whole_command_seconds:.2f} s and {peak_mb:.0f} MB".format(**result))
    print("{rows_that_differ} of {rows} rows differ, similarities by at most {largest_similarity_difference:.1e}".format(**result))


# What is ranked

def write_embeddings(rows: np.ndarray, ids: np.ndarray, folder: Path) -> None:
    """One model's, half of the numbers being the mirror images'."""
    folder.mkdir()
    plain, mirror = np.split(rows, 2, axis=1)
    np.savez(folder / "model.npz", image_id=ids, plain=plain, mirror=mirror)


def write_scenario(queries: np.ndarray, database: np.ndarray, folder: Path) -> None:
    folder.mkdir()
    paths = {"queries_path": "queries.csv", "database_path": "database.csv"}
    write_table(pd.DataFrame({"scenario_id": ["scenario01"], **paths}), folder / "query_scenarios.csv")
    write_table(pd.DataFrame({"query_id": query_ids(queries), "query_image_id": queries}), folder / "queries.csv")
    write_table(pd.DataFrame({"database_image_id": database}), folder / "database.csv")


def query_ids(images: np.ndarray) -> pd.Series:
    return "scenario01-" + pd.Series(images)


# What is timed

def rank(folder: Path, name: str, *before: object) -> None:
    """FOLDER/NAME ranked into FOLDER/NAME.csv, behind the words of another command where there are any."""
    words = [*before, sys.executable, "-m", "solution.rank", "--embeddings", folder / "embeddings", "--data", folder / name,
             "--output", folder / f"{name}.csv"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: python -m solution.rank: {(done.stderr.strip().splitlines() or ['failed'])[-1].removeprefix('error: ')}")


def noted_memory(folder: Path) -> float:
    """Peak MB of ranking everything. A process between knows it: what this one starts seems to begin with this one's memory."""
    rank(folder, "all", sys.executable, "-m", "eval.step", folder / "summary.csv", "rank", "--")
    return float(read_table(folder / "summary.csv").peak_mb[0])


class Reference:
    """The reference on drawn queries: a call answers them, `answers` are the last answers."""

    def __init__(self, rows: np.ndarray, ids: np.ndarray, images: int, queries: int) -> None:
        from eval.reference import ranking

        drawn = np.random.default_rng([1]).permutation(queries)[:DRAWN]
        self.queries = pd.DataFrame({"query_id": query_ids(ids[drawn]), "query_image_id": ids[drawn]})
        table = pd.DataFrame(rows, index=ids)
        self.answer = partial(ranking.answers, self.queries, table[:images], table)

    def __call__(self) -> None:
        self.answers = self.answer()


def product(queries: np.ndarray, database: np.ndarray) -> None:
    similarity = np.empty((BLOCK, len(database)), np.float32)
    for start in range(0, len(queries), BLOCK):
        block = queries[start:start + BLOCK]
        np.matmul(block, database.T, out=similarity[:len(block)])
