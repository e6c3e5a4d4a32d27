"""Data directory + weights -> submission.csv: embeds the photographs that are asked for and ranks or names them, in time.

    python -m solution.predict --data DATA --weights WEIGHTS --output submission.csv --time-limit 600

Reads the photographs and tables of DATA and the models of WEIGHTS. Where DATA has query_scenarios.csv it ranks each scenario's
database, as WEIGHTS/rank.json says where there is one, and writes query_id,database_image_id,score, at most 20 rows a query. Where it has none, WEIGHTS must have an identify.json:
five names for every photograph, as Image,Id. The file is complete from the first second on, without any model, and is replaced by
a better one after every model; under a time limit rankings are so first over the images, then over their mirror images, and last by local
evidence where the recipe asks for it (local.py). What was
computed before is taken from the cache, unless --no-cache. A photograph that cannot be read, and whatever else is wrong with single rows, is
told and passed over; --strict stops there. A file that cannot be written at all is told before the work. Later, a model that finds no
memory, or no room on the disk for its answers, is told and costs itself alone: the best submission so far stands and the exit status is 0
once a model is in it; so does what --embeddings, --timings and --probabilities find no room for.
"""

import argparse
import os
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple, Union

import pandas as pd

from solution import STARTED, embed, engines, fusion, identify, images, local, naming, rank, recipe, routes, scenarios
from solution.deadline import Deadline
from solution.device import chosen, decoders
from solution.files import Complaints, Failure, InputError, alone, check_room, natural, run, seconds, write_json, write_table
from solution.known import Known
from solution.locks import release_all


class Ranking:
    """The answers where scenarios ask: rows of database images."""

    untrained, trained = "is in the database's order, of no model", "ranks with "

    def __init__(self, data: Path, way: recipe.Rank, identification: Optional[identify.Identification], complaints: Complaints) -> None:
        self.rank, self.scenarios, self.data, self.identification, self.complaints = way, scenarios.read(data, complaints), data, identification, complaints
        self.count = sum(len(scenario.query_ids) for scenario in self.scenarios)

    @cached_property
    def table(self) -> pd.DataFrame:
        return images.asked_for(self.data, scenarios.asked(self.scenarios), self.complaints)

    @cached_property
    def way(self) -> routes.Way:
        return routes.Way(self.rank, self.table)

    def passes(self, specs: List[recipe.Spec], joint: bool) -> List[embed.Pass]:
        return embed.passes(specs, joint)

    def usable(self, spec: recipe.Spec, embeddings: fusion.Embeddings) -> bool:
        return "plain" in embeddings

    def fallback(self) -> pd.DataFrame:
        return rank.fallback(self.scenarios)

    def answers(self, specs: List[recipe.Spec], embeddings: Dict[str, fusion.Embeddings], unreadable: Set[int]) -> Tuple[pd.DataFrame, Optional[pd.DataFrame]]:
        """The submission, and with an identification the chance that a query's whale is not in its database. What was unreadable
        is ranked all the same: every query needs its rows."""
        spaces = self.way.spaces(self.scenarios, [(spec.predict, embeddings[spec.name]) for spec in specs])
        submission = rank.submission(self.scenarios, self.table.image_id.to_numpy(str), spaces, self.way)
        if self.identification is None:
            return submission, None
        image_of = pd.concat([pd.Series(scenario.query_image_ids, scenario.query_ids) for scenario in self.scenarios])
        return submission, naming.chances_of_ranking(submission, image_of, specs, embeddings, self.identification)


Asked = Union[Ranking, naming.Naming]


class Submission:
    """The files on disk and the embeddings behind them."""

    def __init__(self, output: Path, probabilities: Optional[Path], asked: Asked) -> None:
        self.output, self.probabilities, self.asked = output, probabilities, asked
        self.embeddings: Dict[str, fusion.Embeddings] = {}
        self.unreadable: Set[int] = set()  # rows of what is asked that turned out to be no photographs
        self.state, self.status = "is not written", 1  # of the file as it stands: the guard's thread reads them at any moment
        self.ranking, self.writing = embed.Stopwatch(), embed.Stopwatch()

    def begin(self) -> None:
        """A complete file before any model."""
        fallback = self.asked.fallback()
        with self.writing:
            write_table(fallback, self.output)
        self.state = self.asked.untrained

    def improve(self, specs: List[recipe.Spec]) -> None:
        """Answers with all embeddings there are and replaces the files."""
        used = [spec for spec in specs if self.asked.usable(spec, self.embeddings.get(spec.name, {}))]
        if not used:
            return
        with self.ranking:
            submission, probabilities = self.asked.answers(used, self.embeddings, self.unreadable)
        with self.writing:
            write_table(submission, self.output)
            self.stands(used)
            if self.probabilities:
                self.probabilities.unlink(missing_ok=True)  # of the file before, which they would outlive where there is no room for new ones
            if self.probabilities and probabilities is not None:
                write_table(probabilities, self.probabilities)

    def stands(self, used: List[recipe.Spec]) -> None:
        """What is told of the file from now on."""
        lacking = [spec for spec in used if spec.predict.mirror != "off" and "mirror" not in self.embeddings[spec.name]]
        closer = " and local evidence" * (isinstance(self.asked, Ranking) and self.asked.way.evidence is not None)
        self.state = self.asked.trained + ", ".join(spec.name + " (no mirror images)" * (spec in lacking) for spec in used) + closer
        self.status = 0

    def end(self) -> None:
        """What happens when the time is up: the file stands as it is, and the process ends at once with all its threads."""
        try:
            print(f"time is up; {self.output} {self.state}", file=sys.stderr, flush=True)
            release_all()
        finally:
            os._exit(self.status)


def asked_of(args: argparse.Namespace, complaints: Complaints) -> Asked:
    """What DATA asks: rankings where it has scenarios, else names."""
    if (args.data / "query_scenarios.csv").is_file():
        if args.gallery:
            raise InputError(f"--gallery: {args.data}/query_scenarios.csv says which photographs are searched; --gallery goes with data that have no scenarios")
        if args.probabilities and not (args.weights / "identify.json").is_file():
            raise InputError(f"--probabilities: {args.weights} has no identify.json to tell them by; train with --validate FOLD of protocol identify")
        way = recipe.Rank()
        with complaints.passing_over("ranked by cosine"):
            way = recipe.read_rank(args.weights)
        return Ranking(args.data, way, identify.read(args.weights / "identify.json") if args.probabilities else None, complaints)
    if not (args.weights / "identify.json").is_file():
        raise InputError(f"{args.data}: has no query_scenarios.csv, and {args.weights} no identify.json to name individuals with; train with --validate FOLD of protocol identify")
    table = images.listed(args.data, complaints)
    twice = table.path.map(os.path.basename).duplicated()
    if twice.any():
        complaints.add(f"{args.data}/metadata.csv: another photograph is called {os.path.basename(table.path[twice].iloc[0])} too; only the first of a name is answered")
    return naming.Naming(args.weights, recipe.specs(args.weights, complaints), table[~twice].reset_index(drop=True), args.gallery, complaints)


def predict(args: argparse.Namespace, started: Optional[float] = None) -> None:
    """`started`: when the time limit began, by time.monotonic(); by default now."""
    start, deadline, complaints = time.perf_counter(), Deadline(args.time_limit, started), Complaints(args.strict)
    asked = asked_of(args, complaints)
    for path in filter(None, (args.output, args.probabilities, args.timings, args.embeddings and args.embeddings / "MODEL.npz")):
        check_room(path)
    submission = Submission(args.output, args.probabilities, asked)
    if not args.strict:
        submission.begin()
    if args.probabilities:
        args.probabilities.unlink(missing_ok=True)  # those of an earlier run would be taken for this one's
    deadline.guard(submission.end)
    try:
        specs, embedder = improved(submission, args, deadline, complaints)
        if args.embeddings:
            with complaints.passing_over("--embeddings"):
                if isinstance(asked, Ranking):
                    recipe.write_rank(asked.rank, args.embeddings)
                embed.save(submission.embeddings, [spec for spec in specs if spec.name in submission.embeddings], args.embeddings)
        if args.timings:
            with complaints.passing_over("--timings"):
                write_json(timings(time.perf_counter() - start, submission, embedder), args.timings)
        print(f"{args.output}: {asked.count} queries, {len(asked.table)} photographs, {complaints.count} warnings; {submission.state}")
    finally:
        deadline.release()


def improved(submission: Submission, args: argparse.Namespace, deadline: Deadline, complaints: Complaints) -> Tuple[List[recipe.Spec], embed.Embedder]:
    """Has every model answer that fits into the time: the models and what ran them; Failure where none could."""
    specs = recipe.specs(args.weights, complaints)
    device = chosen(args.device, complaints)
    kind = engines.chosen(args.engine, device, args.time_limit, complaints)
    eyes = local.looking(specs) if isinstance(submission.asked, Ranking) and submission.asked.rank.evidence else []
    views = sorted({*embed.views(specs), *map(local.view_of, eyes)})
    pixels = embed.Pixels(submission.asked.table, args.data, views, decoders() if args.workers is None else args.workers, complaints)
    submission.unreadable = pixels.told
    embedder = embed.Embedder(pixels, embed.Engines(args.weights, device, kind, complaints), None if args.no_cache else Known(args.weights, device, kind))
    improve(submission, submission.asked.passes(specs, joint=args.time_limit is None), embedder, deadline, complaints)
    if not submission.status == 0:
        raise Failure(f"no model got in; {args.output} {submission.state}")
    if eyes:
        with complaints.passing_over("local evidence: left out"):
            submission.asked.way.evidence = local.Evidence(eyes, pixels, submission.asked.table, args.weights, device, submission.asked.rank.evidence)
            submission.improve(specs)
    return specs, embedder


def improve(submission: Submission, passes: List[embed.Pass], embedder: embed.Embedder, deadline: Deadline, complaints: Complaints) -> None:
    """One pass after the other over the photographs, with better files after each."""
    specs = list({spec.name: spec for spec, _ in passes}.values())
    for spec, sides in passes:
        if sides == ("mirror",) and spec.name not in submission.embeddings:
            continue
        name = spec.name + ", mirror images" * (sides == ("mirror",))
        with complaints.passing_over(f"{name}: left out"):
            embeddings = embedder.one(spec, sides, deadline)
            if embeddings is None:
                print(f"{name}: left out, would not end within the time limit", file=sys.stderr)
                continue
            for side in sides:
                embed.without_broken(embeddings[side], spec, side, complaints)
            parts = submission.embeddings.setdefault(spec.name, {"image_id": submission.asked.table.image_id.to_numpy(str)})
            parts.update(embeddings)
            with complaints.passing_over(f"{name}: not written"):
                submission.improve(specs)


def timings(took: float, submission: Submission, embedder: embed.Embedder) -> dict:
    """What --timings writes. `embed_seconds`, `rank_seconds` and `write_seconds` make up all of `took`.

    Within `embed_seconds` lie `load_seconds` for weights, `decode_seconds` that this process waited for photographs,
    `forward_seconds` of the models, and as their remainder reading the tables, importing libraries and saving embeddings.
    `models` has the forward seconds of each pass that got in, those of a pass over images and mirror images shared out evenly;
    `forward_seconds` also those of the passes that were broken off. `cached` embeddings were known from before and took none.
    """
    ranked, written = submission.ranking.seconds, submission.writing.seconds
    return {"embed_seconds": took - ranked - written, "rank_seconds": ranked, "write_seconds": written, **embedder.timings()}


def main(argv: Optional[List[str]] = None, started: Optional[float] = None) -> None:
    parser = argparse.ArgumentParser(
        description="Rank the database of every scenario of a data directory for each of its queries; without scenarios, name who is on each photograph.",
        epilog="example: python -m solution.predict --data runs/demo/folds/0/test --weights runs/demo/fold0/weights --output submission.csv",
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory: metadata.csv, photographs and, for rankings, query_scenarios.csv")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--output", type=Path, required=True, help="the submission.csv to write")
    parser.add_argument("--gallery", type=Path, metavar="DATA", help="labelled photographs to name individuals by, besides those in the weights")
    parser.add_argument("--probabilities", type=Path, help="CSV file for the chance of each name, and of a new individual")
    parser.add_argument("--time-limit", type=seconds, metavar="SECONDS", help="end before, with the best file that fits")
    parser.add_argument("--strict", action="store_true", help="stop at anything wrong with the input instead of passing over it")
    parser.add_argument("--embeddings", type=Path, help="directory to keep the embeddings in")
    parser.add_argument("--timings", type=Path, help="JSON file for the seconds of each phase")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--engine", choices=["auto", *engines.KINDS], default="auto", help="what runs the models (default: onnx on a CPU where it is installed); onnx8: in 8 bits, see solution.quantize")
    parser.add_argument("--workers", type=natural, help="threads that decode (default: one a core, at most 8)")
    parser.add_argument("--no-cache", action="store_true", help="compute everything, and keep no embeddings for the next time")
    args = parser.parse_args(argv)
    with alone(args.output):
        predict(args, started)


if __name__ == "__main__":
    run(lambda: main(started=STARTED), relief="lower --workers")
