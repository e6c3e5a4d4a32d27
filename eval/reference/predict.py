"""Data directory + weights -> submission.csv the published way: slow, plain, and the measure of what is faster.

    python -m eval.reference --data DATA --weights WEIGHTS --output submission.csv

Reads what `python -m solution.predict` reads: DATA/metadata.csv, its photographs and scenarios, and of every model of WEIGHTS the
files MODEL.npz (without unpickling) and MODEL.json. One model after the other decodes and resizes every photograph anew and looks
at it twice, as it is and mirrored (network.py); each query is ranked by itself (ranking.py). Writes query_id,database_image_id,score
with (1 + cosine) / 2 as the score, the best 20 of each query, and with --timings the seconds of each phase. Expect the
predictor's own answers, similarities within 1e-4, in several times its time. Nothing is mended: a photograph that cannot be
read ends it.
"""

import argparse
import contextlib
import time
from collections import defaultdict
from pathlib import Path
from typing import Iterator

import numpy as np
import pandas as pd

from eval.files import InputError, progress, read_json, read_table, run, write_json, write_table
from eval.labels import OUTSIDE, find_images, refuse
from eval.rules import Scenarios, read_scenarios

PHASES = ("load", "decode", "forward", "rank", "write")
PLAIN = {"parts": 1, "part_width": None, "grey": False, "box_margin": 0}  # of a spec's "model": the one kind that is rendered here


class Clock:
    """Seconds by phase, those of its `with` blocks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start


def read_specs(weights: Path) -> list[dict]:
    """The spec of each model of WEIGHTS, in the recipe's order; InputError for one that is not of the published kind."""
    specs = [read_spec(path.with_suffix(".json")) for path in sorted(weights.glob("*.npz"))]
    if not specs:
        raise InputError(f"{weights}: no models here (MODEL.npz with MODEL.json); train some with python -m solution.train")
    return sorted(specs, key=lambda spec: (spec["position"], spec["name"]))


def read_spec(path: Path) -> dict:
    """What the reference needs of a spec, without levels."""
    try:
        told = read_json(path)
        model, predict = told["model"], told["predict"]
        other = [key for key, value in PLAIN.items() if model[key] != value]
        if other:
            raise InputError(f"{path}: model.{other[0]} is {model[other[0]]!r}; the reference renders only models with {PLAIN[other[0]]!r} there")
        return {key: model[key] for key in ("backbone", "stages", "gem_p", "mean", "std")} | {
            "name": path.stem, "position": told["position"], "size": predict["test_size"] or told["train"]["size"],
            **{key: predict[key] for key in ("mirror", "normalise", "weight")}}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not the spec of a model: {error} is missing; train or pack it again") from None


def asked_for(data: Path, scenarios: Scenarios) -> pd.DataFrame:
    """The rows of the metadata that the scenarios ask for, `path` leading to the file."""
    file = data / "metadata.csv"
    table = read_table(file, ["image_id", "path"])
    refuse(file, table.image_id, table.image_id.duplicated(), "another row has this image_id too; keep one of them")
    refuse(file, table.path, table.path.str.contains(OUTSIDE), "path must lie inside the data directory")
    asked = pd.concat([scenarios.queries.query_image_id, scenarios.databases.database_image_id])
    absent = asked[~asked.isin(table.image_id)]
    if len(absent):
        raise InputError(f"{file}: a scenario asks for image {absent.iloc[0]!r}, which has no row; add it")
    files = find_images(data, table)
    if files is None:
        raise InputError(f"{data}: there are no photographs in it, only tables; put images/ there")
    return table.assign(path=files)[table.image_id.isin(asked)]


def joined(specs: list[dict], embeddings: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One row an image (n, d): each model's embeddings of the image and of its mirror image, joined as its spec says."""
    columns = []
    for spec in specs:
        plain, mirrored = embeddings[spec["name"]]
        both = {"off": plain, "average": (plain + mirrored) / 2, "concatenate": np.hstack([plain, mirrored])}[spec["mirror"]]
        if spec["normalise"]:
            both = both / np.linalg.norm(both, axis=1, keepdims=True)
        columns.append(both * np.float32(spec["weight"] ** 0.5))
    return np.hstack(columns)


def predict(args: argparse.Namespace) -> None:
    clock, specs = Clock(), read_specs(args.weights)
    if not (args.data / "query_scenarios.csv").is_file():
        raise InputError(f"{args.data}: has no query_scenarios.csv; the reference ranks scenarios and names nobody")
    scenarios = read_scenarios(args.data)
    table = asked_for(args.data, scenarios)
    from eval.reference import network, ranking

    embeddings = {spec["name"]: network.embedded(spec, args.weights, table, args.device, args.workers, clock)
                  for spec in progress(specs, "models")}
    with clock("rank"):
        rows = ranking.submission(scenarios, pd.DataFrame(joined(specs, embeddings), index=table.image_id))
    with clock("write"):
        write_table(rows, args.output)
    if args.timings:
        write_json({f"{phase}_seconds": clock.seconds[phase] for phase in PHASES}, args.timings)
    print(f"{args.output}: {len(scenarios.queries)} queries, {len(table)} photographs, {len(specs)} models")


def count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m eval.reference", description="Rank the database of every scenario the published, slow way, to measure against.",
        epilog="example: python -m eval.reference --data runs/demo/folds/0/test --weights runs/demo/fold0/weights --output reference.csv")
    parser.add_argument("--data", type=Path, required=True, help="data directory: metadata.csv, photographs, query_scenarios.csv")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--output", type=Path, required=True, help="the submission.csv to write")
    parser.add_argument("--timings", type=Path, help="JSON file for the seconds of each phase")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--workers", type=count, help="processes that decode (default: as in solution.predict, 1, with a GPU up to 8)")
    predict(parser.parse_args(argv))


if __name__ == "__main__":
    run(main)
