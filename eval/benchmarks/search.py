"""How fast, how right and how large `python -m solution.search` is: a catalogue is built, asked, added to and asked again.

    python -m eval.bench search --images 2000000 --width 512 --queries 1000 --json search.json

The photographs are made up, the same every time: 40 an individual on average, by a log-normal law (many have fewer than 20, some hundreds),
200 individuals that look alike in a group. A photograph is group + individual + one of eight poses + noise, whose squared lengths are
.64, 1, .16 and 1.44: cosines of about .5 within an individual, .2 within a group, 0 elsewhere. So the best 20 are of the individual and,
where it has fewer, those of its group's 8,000 photographs that chance put nearest. One query in ten shows an individual that has no
photograph in the catalogue. `recall` is the share of the exact best 20 that is answered, `recall_after_adding` that with 1,000 images more.

Exact answers come from blocked float32 products in this process; making the blocks is not in `exact_seconds`. The commands are processes
that start, read and write: `ratio` = exact_seconds / ask_seconds is of the whole command, `ratio_of_questions` of what all queries take
longer than one. Copies of the images that were added must get these as first answers (`added_found`). Two million images of 512
numbers: some 10 minutes on two cores, 9 GB of temporary files ($TMPDIR), 3 GB of memory; `ask_peak_mb` counts
mapped pages of the index, too, up to 4 GB, which the system can take back. Needs faiss-cpu.
"""

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from eval.benchmarks import options, rounds
from eval.benchmarks.workers import command
from eval.files import InputError, progress, read_json, read_table

TOP = 20
PART = 2 ** 17  # images of one directory of embeddings
BLOCK = 2 ** 15  # images whose cosines are held at once
FIRST = 1024  # images of a block that tell where its best ones begin
ADDED = 1000
INDIVIDUAL, GROUP, POSES = 40, 200, 8  # photographs an individual, individuals a group, poses
PARTS = {"group": 0.8, "individual": 1.0, "pose": 0.4, "noise": 1.2}  # lengths
UNKNOWN = 0.1  # of the queries


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Build an index of made-up photographs, ask it, add to it, and compare with exact answers."
    parser.epilog = "example: python -m eval.bench search --images 200000 --queries 200"
    parser.add_argument("--images", type=options.count, default=2_000_000, metavar="N", help="photographs of the catalogue (default 2000000)")
    parser.add_argument("--width", type=options.count, default=512, metavar="D", help="numbers an image, even (default 512)")
    parser.add_argument("--queries", type=options.count, default=1000, metavar="N", help="photographs that ask (default 1000)")


def measured(args: argparse.Namespace) -> dict:
    if args.images < FIRST or args.width % 2:
        raise InputError(f"--images {args.images} --width {args.width}: {FIRST} images or more, and an even width")
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, world = Path(place), World(args.images, args.width)
        exact = Exact(world.photographs(args.queries, [1], UNKNOWN))
        parts = catalogue(world, args.images, exact, folder)
        write(exact.queries, "query", folder / "queries"), write(exact.queries[:1], "query", folder / "one")
        build = stepped(folder, "build", "--embeddings", *parts, "--output", folder / "index")
        spent, memory = asked(folder, args.repeats)
        answers, before = answers_of(folder / "queries.csv"), (exact.images.copy(), exact.seconds)
        size, told = sum(path.stat().st_size for path in (folder / "index").iterdir()), read_json(folder / "index" / "index.json")
        later = added(world, args.images, exact, folder)
    whole, one = spent["queries"], spent["one"]
    questions, exact_seconds = rounds.seconds(whole - one), before[1]
    return {
        "ratio": exact_seconds / rounds.seconds(whole), "ratio_of_questions": questions and exact_seconds / questions,
        "recall": recall(answers, before[0]), "recall_worst_query": recall(answers, before[0], np.min), **later,
        "build_seconds": build[0], "build_peak_mb": build[1], "ask_seconds": rounds.seconds(whole), "ask_one_seconds": rounds.seconds(one),
        "questions_seconds": questions, "ask_peak_mb": memory, "exact_seconds": exact_seconds,
        "index_mb": size / 1e6, "embeddings_mb": 4e-6 * args.images * args.width, "lists": told["lists"],
        "images": args.images, "width": args.width, "queries": args.queries, "repeats": args.repeats, "threads": rounds.threads(),
    }


def show(result: dict) -> None:
    lists = result["lists"]
    how = "{probes} of {lists} lists, {candidates} candidates, recall {recall:.4f} and {recall_new:.4f} when built".format(**lists) if lists else "compared exactly"
    print("{images} images of {width} numbers: built in {build_seconds:.0f} s with {build_peak_mb:.0f} MB; {index_mb:.0f} MB on disk, ".format(**result) + how)
    print("{queries} queries: {ask_seconds:.2f} s with {ask_peak_mb:.0f} MB, of which {ask_one_seconds:.2f} s for any one; exactly {exact_seconds:.1f} s: "
          "{ratio:.3g} times as long".format(**result) + (", {:.3g} times without starting".format(result["ratio_of_questions"]) if result["ratio_of_questions"] else ""))
    print("recall@20 {recall:.4f}, of the worst query {recall_worst_query:.2f}; with {added} images more, added in {add_seconds:.0f} s with {add_peak_mb:.0f} MB, "
          "{recall_after_adding:.4f}; {added_found:.1%} of those found by their copies".format(**result))


# What is searched

class World:
    """Groups, individuals and poses, of which photographs are made."""

    def __init__(self, images: int, width: int) -> None:
        random, known = np.random.default_rng([0]), max(1, images // INDIVIDUAL)
        numbers = {"group": -(-known // GROUP), "individual": known + -(-known // 10), "pose": POSES}
        self.looks = {what: PARTS[what] * unit(random.standard_normal((number, width), np.float32)) for what, number in numbers.items()}
        self.group, weight = random.integers(numbers["group"], size=numbers["individual"]), random.lognormal(size=known)
        self.chance, self.noise = weight / weight.sum(), np.float32(PARTS["noise"] / np.sqrt(width))

    def photographs(self, count: int, seed: list[int], unknown: float = 0.0) -> np.ndarray:
        """Unit rows (count, width) float32, the same for the same seed; a share of them shows individuals that others never show."""
        random, known = np.random.default_rng(seed), len(self.chance)
        who = random.choice(known, count, p=self.chance)
        new = random.random(count) < unknown
        who[new] = random.integers(known, len(self.group), size=new.sum())
        rows = self.noise * random.standard_normal((count, len(self.looks["pose"][0])), np.float32)
        for what, which in (("group", self.group[who]), ("individual", who), ("pose", random.integers(POSES, size=count))):
            rows += self.looks[what][which]
        return unit(rows)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def catalogue(world: World, images: int, exact: "Exact", folder: Path) -> list[Path]:
    """Directories of embeddings, all of which `exact` has seen."""
    parts = []
    for start in progress(range(0, images, PART), "making photographs"):
        rows = world.photographs(min(PART, images - start), [2, start])
        exact.see(rows, start)
        parts.append(write(rows, "image", folder / f"part{start:08}", start))
    return parts


def write(rows: np.ndarray, word: str, folder: Path, start: int = 0) -> Path:
    """One model's embeddings as solution.embed saves them; half of the numbers are the mirror images'."""
    folder.mkdir()
    plain, mirror = np.split(rows, 2, axis=1)
    np.savez(folder / "model.npz", image_id=np.array([f"{word}{number:08}" for number in range(start, start + len(rows))]), plain=plain, mirror=mirror)
    return folder


class Exact:
    """The best 20 of each query among the photographs seen so far: their numbers (q, 20) and cosines, in `seconds`."""

    def __init__(self, queries: np.ndarray) -> None:
        self.queries, self.seconds = queries, 0.0
        self.images, self.cosines = np.full((len(queries), TOP), -1), np.full((len(queries), TOP), -np.inf, np.float32)

    def see(self, rows: np.ndarray, first: int) -> None:
        before = time.perf_counter()
        for start in range(0, len(rows), BLOCK):
            self.keep(self.queries @ rows[start:start + BLOCK].T, first + start)
        self.seconds += time.perf_counter() - before

    def keep(self, similarity: np.ndarray, first: int) -> None:
        """Only what is above the last of the best so far, or of a few of the block, can be among the best."""
        some = min(FIRST, similarity.shape[1])
        least = np.partition(similarity[:, :some], some - TOP, axis=1)[:, some - TOP] if some >= TOP else -np.inf
        query, column = np.divmod(np.flatnonzero(similarity >= np.maximum(least, self.cosines[:, -1])[:, None]), similarity.shape[1])
        both = np.concatenate([np.repeat(np.arange(len(self.queries)), TOP), query])
        images, cosines = np.concatenate([self.images.ravel(), first + column]), np.concatenate([self.cosines.ravel(), similarity[query, column]])
        order = np.lexsort((-cosines, both))
        place = np.arange(len(order)) - np.searchsorted(both[order], both[order])
        kept = order[place < TOP]
        self.images, self.cosines = images[kept].reshape(-1, TOP), cosines[kept].reshape(-1, TOP)


# What is timed

def search(*words: object) -> None:
    command("solution.search", *words)


def ask(folder: Path, what: str) -> None:
    """FOLDER/WHAT asked, into FOLDER/WHAT.csv."""
    search("ask", "--embeddings", folder / what, "--index", folder / "index", "--output", folder / f"{what}.csv")


def asked(folder: Path, repeats: int) -> tuple[dict, float]:
    """What all queries take and what one takes, by turns, and the peak MB of all."""
    _, peak_mb = stepped(folder, "ask", "--embeddings", folder / "queries", "--index", folder / "index", "--output", folder / "first.csv")
    return rounds.by_turns({what: partial(ask, folder, what) for what in ("queries", "one")}, repeats), peak_mb  # after one to warm up


def stepped(folder: Path, *words: object) -> tuple[float, float]:
    """Seconds and peak MB of a command of solution.search."""
    print(f"solution.search {words[0]}", file=sys.stderr)
    command("eval.step", folder / "summary.csv", words[0], "--", sys.executable, "-m", "solution.search", *words)
    row = read_table(folder / "summary.csv").set_index("step").loc[words[0]]
    return float(row.seconds), float(row.peak_mb)


def added(world: World, images: int, exact: Exact, folder: Path) -> dict:
    """The figures of adding further photographs, and of asking then."""
    more = world.photographs(ADDED, [3], UNKNOWN)
    exact.see(more, images)
    write(more, "image", folder / "more", images), write(more, "copy", folder / "copies")
    seconds, peak_mb = stepped(folder, "add", "--embeddings", folder / "more", "--index", folder / "index")
    ask(folder, "queries"), ask(folder, "copies")
    found = answers_of(folder / "copies.csv")[:, 0] == images + np.arange(ADDED)
    return {"added": ADDED, "add_seconds": seconds, "add_peak_mb": peak_mb, "added_found": float(found.mean()),
            "recall_after_adding": recall(answers_of(folder / "queries.csv"), exact.images)}


def answers_of(path: Path) -> np.ndarray:
    """The numbers of the images answered (q, 20); exits where a query has more or fewer."""
    table = read_table(path)
    if (table.groupby("query_id").size() != TOP).any() or (table.score.astype(float).diff()[table.query_id.eq(table.query_id.shift())] >= 0).any():
        sys.exit(f"error: {path.name}: not {TOP} answers a query, best first; the benchmark compares nothing")
    return table.database_image_id.str.removeprefix("image").astype(int).to_numpy().reshape(-1, TOP)


def recall(answers: np.ndarray, expected: np.ndarray, over=np.mean) -> float:
    return float(over((answers[:, :, None] == expected[:, None, :]).any(axis=1).mean(axis=1)))
