"""How fast scoring is: `eval.score.evaluate` against the official way (eval.reference.scoring), by turns, from files to the number.

    python -m eval.bench scoring --queries 4419 --json scoring.json

A made-up submission of 20 rows a query and a truth with as many matches as the hidden test, the same every time: 88,380 and
93,277 rows. Both run in this process, so nothing of starting counts. Ours also checks every rule, and tells top-1 and MAP@5.
`times_bare_reading` compares it with reading the two files with pandas. Both official numbers must be equal to 1e-12.
Expect a minute.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from eval import score
from eval.benchmarks import options, rounds
from eval.files import write_table

QUERIES, MATCHES = 4419, 93277  # of the hidden test and of the truth that was timed for it
DATABASE, ROWS, AROUND = 3400, 20, 60  # images; rows a query, all of them among so many images around its first match
EQUAL = 1e-12


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Score a made-up submission of 20 rows a query with eval.score and the official way, by turns."
    parser.epilog = "example: python -m eval.bench scoring --json scoring.json"
    parser.add_argument("--queries", type=options.count, default=QUERIES, metavar="N",
                        help="how many are asked (default 4419, with 93,277 true matches)")


def measured(args: argparse.Namespace) -> dict:
    from eval.reference import scoring

    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        few, tables = write_tables(Path(place) / "few", 20), write_tables(Path(place) / "all", args.queries)
        ours(few), scoring.official(*few)  # to warm up
        works = {"ours": partial(ours, tables), "reference": partial(scoring.official, *tables), "reading": partial(read, tables)}
        spent = rounds.by_turns(works, args.repeats)
        both = ours(tables), scoring.official(*tables)
        rows = dict(zip(("rows", "truth_rows"), map(len, read(tables))))
    if not abs(both[0] - both[1]) <= EQUAL:
        sys.exit(f"error: the official way gives {both[1]!r} and eval.score {both[0]!r}; a faster wrong number is none")
    return {**told(spent), "official": both[0], "reference_official": both[1], "queries": args.queries, **rows, "repeats": args.repeats, "threads": 1}


def told(spent: dict[str, np.ndarray]) -> dict:
    bare = rounds.ratios(spent["reading"], spent["ours"])["ratio"]
    return {**rounds.ratios(spent["ours"], spent["reference"]), "seconds": rounds.seconds(spent["ours"]),
            "reference_seconds": rounds.seconds(spent["reference"]), "bare_reading_seconds": rounds.seconds(spent["reading"]),
            "times_bare_reading": bare}


def show(result: dict) -> None:
    print("scoring {rows} rows of {queries} queries: {seconds:.2f} s, the official way {reference_seconds:.1f} s: {ratio:.3g} times ours, "
          "{ratio_least:.3g} to {ratio_most:.3g} by round; {times_bare_reading:.1f} times reading the files".format(**result))


# What is scored

def write_tables(folder: Path, queries: int) -> tuple[Path, Path]:
    """A submission and its truth. A query's true matches stand side by side among the images, and its rows around there."""
    random = np.random.default_rng([0, queries])
    first = random.integers(DATABASE, size=queries)
    matches = 1 + random.multinomial(round(queries * MATCHES / QUERIES) - queries, np.full(queries, 1 / queries))
    beside = np.arange(matches.sum()) - np.repeat(np.cumsum(matches) - matches, matches)
    answers = random.permuted(np.tile(np.arange(AROUND) - AROUND // 3, (queries, 1)), axis=1)[:, :ROWS]
    scores = -np.sort(-random.random((queries, ROWS)).round(3), axis=1)  # so coarse that some are equal
    rows = pairs(np.full(queries, ROWS), (first[:, None] + answers).ravel()).assign(score=scores.ravel())
    truth = pairs(matches, np.repeat(first, matches) + beside)
    return write_table(rows, folder / "submission.csv"), write_table(truth, folder / "truth.csv")


def pairs(counts: np.ndarray, images: np.ndarray) -> pd.DataFrame:
    """query_id, database_image_id: so many rows of each query in turn, by the numbers of their images."""
    query, image = np.repeat(np.arange(len(counts)), counts), images % DATABASE
    number = lambda values, digits: pd.Series(values).astype(str).str.zfill(digits)
    return pd.DataFrame({"query_id": "scenario01-query" + number(query, 5), "database_image_id": "train" + number(image, 4)})


# What is timed

def ours(tables: tuple[Path, Path]) -> float:
    return score.means(score.evaluate(*tables).per_query)["official"]


def read(tables: tuple[Path, Path]) -> list[pd.DataFrame]:
    return [pd.read_csv(path) for path in tables]
