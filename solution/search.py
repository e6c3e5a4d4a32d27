"""Who looks like this, among millions? A catalogue of embedded photographs is built once, asked again and again, added to later.

    python -m solution.search build --embeddings EMBEDDINGS --output INDEX
    python -m solution.search ask --embeddings QUERIES --index INDEX --output answers.csv
    python -m solution.search add --embeddings MORE --index INDEX

Reads directories of embeddings (MODEL.npz, MODEL.json) as python -m solution.embed writes them; their models are joined as solution.fusion does (concatenate).
`ask` writes query_id (the image that asks), database_image_id and score, the best 20 by cosine under the rules of solution.rank: an image
that is in the index by its id is no answer to itself. Up to 100,000 images are compared exactly. Above, FAISS (`python -m pip install
faiss-cpu`) finds candidates, whose true cosines decide; the recall of that is measured on images of the catalogue and told.
Two million images of 512 numbers: minutes to build, seconds to ask 1,000, 2 GB of memory and, while it is asked, pages of the index that
the system takes back where it needs them. What an index is and which of its bytes are checked stands in solution.catalogue; ask only one
that you trust.
"""

import argparse
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np
import pandas as pd

from solution import catalogue, inverted, nearest, rank, ties
from solution.catalogue import Index
from solution.files import natural, progress, run, write_table
from solution.joined import Joined, joined

QUERIES = 1024  # that are asked at once


class Opened:
    """An index that can be asked."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.index = index
        self.ids, self.rows, self.lists = catalogue.opened(index, folder)
        self.order = self.ids.order()

    def answers(self, queries: np.ndarray, own: np.ndarray, top: int) -> Tuple[np.ndarray, np.ndarray]:
        """The `top` nearest rows of each query (q, top) and their cosines, best first, -1 and -inf where the index has fewer images.

        queries (q, width) unit rows, own (q,) the row of each query in the index or -1.
        """
        if self.lists is None:
            return self.exactly(queries, own, top)
        chosen = self.index.lists
        deep = chosen.candidates * -(-top // ties.TOP) + 1  # one more, as the query itself may be among them
        found = inverted.search(self.lists, queries, chosen.probes, deep)
        best, cosines = nearest.settled(queries, self.rows, found, own, self.order, top)
        short = np.flatnonzero((best >= 0).sum(axis=1) < np.minimum(top, self.index.count - (own >= 0)))  # the opened lists held too few
        if len(short):
            best[short], cosines[short] = self.exactly(queries[short], own[short], top)
        return best, cosines

    def exactly(self, queries: np.ndarray, own: np.ndarray, top: int) -> Tuple[np.ndarray, np.ndarray]:
        found = nearest.candidates(queries, self.rows, own, self.order, top)
        return nearest.settled(queries, self.rows, found, own, self.order, top)


def answered(opened: Opened, parts: List[Joined], top: int) -> pd.DataFrame:
    """query_id, database_image_id, score for all images of some embeddings, in their order, best first."""
    image_id = catalogue.once(np.concatenate([part.image_ids for part in parts])).image_id
    own, tables = opened.ids.rows_of(image_id), []
    for start, queries in progress(asking(parts), "asking", -(-len(image_id) // QUERIES)):
        asked = slice(start, start + len(queries))
        found, cosines = opened.answers(queries, own[asked], top)
        there = found >= 0
        query_id, database_image_id = np.repeat(image_id[asked], there.sum(axis=1)), opened.ids.image_id[found[there]]
        tables.append(pd.DataFrame({"query_id": query_id, "database_image_id": database_image_id, "score": rank.scores(cosines)[there]}))
    return pd.concat(tables, ignore_index=True)


def asking(parts: List[Joined]) -> Iterator[Tuple[int, np.ndarray]]:
    """The rows of all images, QUERIES at a time, and the number of the first of them."""
    number = 0
    for rows in (rows for part in parts for rows in part.blocks()):
        for start in range(0, len(rows), QUERIES):
            queries = rows[start : start + QUERIES]
            yield number, queries
            number += len(queries)


# The commands

def build(args: argparse.Namespace) -> None:
    parts = joined(args.embeddings)
    with catalogue.new_folder(args.output) as folder:
        index = catalogue.extended(catalogue.empty(parts[0]), folder, parts)
        catalogue.write(index, folder)
    print(f"{args.output}: {told(index)}")


def add(args: argparse.Namespace) -> None:
    with catalogue.alone(args.index):
        old = catalogue.read(args.index)
        index = catalogue.extended(old, args.index, joined(args.embeddings, old))
        catalogue.write(index, args.index)
    print(f"{args.index}: {index.count - old.count} added, {told(index)}")


def ask(args: argparse.Namespace) -> None:
    index = catalogue.read(args.index)
    parts = joined(args.embeddings, index)
    table = write_table(answered(Opened(args.index, index), parts, min(args.top, index.count)), args.output)
    print(f"{table}: {sum(map(len, parts))} images asked, {told(index)}")


def told(index: Index) -> str:
    lists = index.lists
    if lists is None:
        return f"{index.count} images, compared exactly"
    return (f"{index.count} images, by {lists.probes} of {lists.lists} lists and {lists.candidates} candidates: "
            f"recall@{ties.TOP} {lists.recall:.4f}, {lists.recall_new:.4f} for new individuals, both at least {lists.recall_least:.4f}")


def several(text: str) -> int:
    if natural(text) == 0:
        raise argparse.ArgumentTypeError("0 is no number of answers; 1 or more")
    return natural(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Build an index of embedded photographs, ask it for those that look most like others, add to it.",
        epilog="example: python -m solution.search build --embeddings runs/demo/fold0/embeddings --output index",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command, line, example in (
        (build, "an index from embeddings", "--embeddings catalogue/1 catalogue/2 --output index"),
        (ask, "the most similar images of an index", "--embeddings new --index index --output answers.csv"),
        (add, "more images into an index", "--embeddings more --index index"),
    ):
        own = commands.add_parser(command.__name__, help=line, description=line, epilog=f"example: python -m solution.search {command.__name__} {example}")
        own.add_argument("--embeddings", type=Path, nargs="+", required=True, metavar="EMBEDDINGS", help="directories that python -m solution.embed wrote, with one set of models")
        if command is not build:
            own.add_argument("--index", type=Path, required=True, help="the directory that build wrote")
        if command is not add:
            own.add_argument("--output", type=Path, required=True, help="the new directory of the index" if command is build else "the answers.csv to write")
        if command is ask:
            own.add_argument("--top", type=several, default=ties.TOP, metavar="N", help="answers an image (default %(default)s)")
        own.set_defaults(command=command)
    args = parser.parse_args()
    args.command(args)


if __name__ == "__main__":
    run(main)
