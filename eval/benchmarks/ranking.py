"""How fast a ranking is: `python -m solution.rank` against the reference and against the bare matrix product, by turns.

    python -m eval.bench ranking --shape 4419,3400,8544 --json ranking.json

Made-up embeddings, the same every time, lie in files. As in the contest, photographs of the database ask, as far as it goes; where it
has more images than there are queries, new photographs do, as they would ask a catalogue. `seconds` is what the command itself notes for
ranking, as the reference and the product begin with joined rows, too; nothing is taken off `whole_command_seconds`. `ratio` compares
`seconds` with eval.reference.ranking in this process, on 50 drawn queries scaled to all of them; `times_bare_product` with the
float32 product alone, in blocks. The answers to the 50 queries must agree within 1e-4. Expect a minute and 1 GB; 28000,51000,4272
with --repeats 1 takes 8 minutes and 7 GB.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from eval.benchmarks import options, rounds, speed
from eval.benchmarks.workers import command
from eval.files import read_json, read_table, write_table

DRAWN = 50  # queries that the reference answers: each takes it a tenth of a second, or one of a large database
BLOCK = 1024  # queries of the bare product at once, so that its memory is bounded


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Rank made-up embeddings with solution.rank, the reference and a bare matrix product, by turns."
    parser.epilog = "example: python -m eval.bench ranking --json ranking.json"
    parser.add_argument("--shape", type=options.shape, default=(4419, 3400, 8544), metavar="Q,M,D",
                        help="queries, database images, numbers an image (default 4419,3400,8544); "
                        "new photographs ask where there are more images than queries")
    parser.set_defaults(repeats=5)


def measured(args: argparse.Namespace) -> dict:
    queries, images, width = args.shape
    first = images if images > queries else 0  # of the photographs that ask
    asking = slice(first, first + queries)
    rows = np.random.default_rng([0]).standard_normal((max(images, asking.stop), width), np.float32)
    ids = np.array([f"train{number:05}" for number in range(len(rows))])
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder = Path(place)
        write_embeddings(rows, ids, folder / "embeddings")
        write_scenario(ids[asking], ids[:images], folder / "data")
        reference, timings = Reference(rows, ids, images, asking), []
        bare = partial(product, database=rows[:images], similarity=np.empty((BLOCK, images), np.float32))
        peak_mb = noted_memory(folder)  # this and the next two warm up
        reference(1)
        bare(rows[asking][:BLOCK])
        works = {"ours": lambda: timings.append(rank(folder)), "reference": reference, "product": partial(bare, rows[asking])}
        spent = rounds.by_turns(works, args.repeats)
        answers = read_table(folder / "submission.csv")
    same = rounds.agreement(answers[answers.query_id.isin(reference.answers.query_id)], reference.answers)
    speeds = told(pd.DataFrame(timings), spent, queries, len(reference.queries))
    return {**speeds, **same, "shape": args.shape, "peak_mb": peak_mb, "repeats": args.repeats, "threads": rounds.threads()}


def told(timings: pd.DataFrame, spent: dict[str, np.ndarray], queries: int, drawn: int) -> dict:
    """The figures, from what the works took and what our command noted, a row a round; the reference's are of the drawn queries."""
    ours, reference = timings.rank_seconds.tolist(), (spent["reference"][:, 0] * queries / drawn).tolist()
    whole, product = spent["ours"][:, 0].tolist(), spent["product"][:, 0].tolist()
    bare = speed.spread(product, ours)
    return {
        **speed.spread(ours, reference), "seconds": median(ours), "reference_seconds": median(reference), "reference_queries": drawn,
        "bare_product_seconds": median(product), **{f"times_bare_product{name.removeprefix('ratio')}": value for name, value in bare.items()},
        "read_seconds": timings.read_seconds.median(), "join_seconds": timings.join_seconds.median(), "write_seconds": timings.write_seconds.median(),
        "whole_command_seconds": median(whole), "ratio_of_whole_command": speed.spread(whole, reference)["ratio"],
    }


def show(result: dict) -> None:
    print("ranking {shape}: {seconds:.2f} s, the reference {reference_seconds:.0f} s by {reference_queries} queries: {ratio:.3g} times ours, "
          "{ratio_least:.3g} to {ratio_most:.3g} by round".format(**result))
    print("the bare product {bare_product_seconds:.2f} s: ours takes {times_bare_product:.2f} times as long, {times_bare_product_least:.2f} to "
          "{times_bare_product_most:.2f} by round".format(**result))
    print("the whole command takes {whole_command_seconds:.2f} s, {read_seconds:.2f} of them to read, {join_seconds:.2f} to join and {write_seconds:.2f} to write, and "
          "{peak_mb:.0f} MB".format(**result))
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

def words(folder: Path) -> list:
    return ["solution.rank", "--embeddings", folder / "embeddings", "--data", folder / "data", "--output", folder / "submission.csv",
            "--timings", folder / "timings.json"]


def rank(folder: Path) -> dict:
    """Ranks FOLDER/data into FOLDER/submission.csv; what the command notes of its seconds."""
    command(*words(folder))
    return read_json(folder / "timings.json")


def noted_memory(folder: Path) -> float:
    """Peak MB of ranking. A process between knows it: what this one starts seems to begin with this one's memory."""
    command("eval.step", folder / "summary.csv", "rank", "--", sys.executable, "-m", *words(folder))
    return float(read_table(folder / "summary.csv").peak_mb[0])


class Reference:
    """The reference on queries drawn from those that ask: a call answers them, or the first few, `answers` are the last answers."""

    def __init__(self, rows: np.ndarray, ids: np.ndarray, images: int, asking: slice) -> None:
        from eval.reference import ranking

        drawn = np.random.default_rng([1]).permutation(ids[asking])[:DRAWN]
        self.queries = pd.DataFrame({"query_id": query_ids(drawn), "query_image_id": drawn})
        table = pd.DataFrame(rows, index=ids, copy=False)
        self.answer = partial(ranking.answers, database=table[:images], embeddings=table)

    def __call__(self, count: int = DRAWN) -> None:
        self.answers = self.answer(self.queries[:count])


def product(queries: np.ndarray, database: np.ndarray, similarity: np.ndarray) -> None:
    """Every cosine, BLOCK queries at a time, into `similarity` (BLOCK, m)."""
    for start in range(0, len(queries), BLOCK):
        block = queries[start:start + BLOCK]
        np.matmul(block, database.T, out=similarity[:len(block)])
