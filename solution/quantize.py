"""Photographs + weights -> which models run faster in 8 bits on this processor, and what they need for it.

    python -m solution.quantize --data DATA --weights WEIGHTS

Reads the models of WEIGHTS and a drawn sample of the photographs of DATA: the kind that will be asked, but never those that a score is
taken on. Runs every model by turns as it is and in 8 bits. Where 8 bits are faster it writes WEIGHTS/NAME.8bit.json, which
`--engine onnx8` of solution.predict and solution.embed goes by; elsewhere it says so and removes the file. Expect a quarter of a minute a small
model, and on processors with instructions for it twice the speed of networks of convolutions and ReLUs. What it does to a
ranking, python -m eval.bench eight-bit measures.
"""

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Dict, List

import numpy as np

from solution import eight_bit, embed, engines, fusion, images, onnx_engine, recipe
from solution.files import Complaints, InputError, alone, natural, progress, run, write_json
from solution.onnx_engine import OnnxEngine

LEAST = 1.1  # times as fast, below which rounding is not worth it
MOST = 0.05  # mean change of similarities, above which it is another model
TIMED, ROUNDS = 8, 7  # images a round


def sample(data: Path, specs: List[recipe.Spec], count: int, seed: int) -> Dict[images.View, np.ndarray]:
    """At most `count` photographs of DATA, (n, size, size, 3) uint8 in each view."""
    table, views = images.listed(data), embed.views(specs)
    drawn = np.sort(np.random.default_rng([seed]).permutation(len(table))[:count])
    if len(drawn) < 2:
        raise InputError(f"{data}/metadata.csv, --photographs {count}: makes {len(drawn)} to calibrate on; 2 are the least, 64 are good")
    table = table.iloc[drawn].reset_index(drop=True)
    photographs, complaints = images.Readable(table.path, views, images.boxes(table, data)), Complaints(strict=False)
    found = [photographs[number] for number in progress(range(len(table)), "photographs")]
    for problem in filter(None, (problem for _, problem in found)):
        complaints.add(problem)
    read = [squares for squares, problem in found if not problem]
    if len(read) < 2:
        raise InputError(f"{data}/metadata.csv: {len(read)} of {len(found)} photographs can be read; 2 are the least to calibrate on")
    return {view: np.stack(squares) for view, squares in zip(views, zip(*read))}


def calibrated(spec: recipe.Spec, weights: Path, photographs: np.ndarray) -> eight_bit.Calibration:
    """What a model is in 8 bits: the ranges of its tensors, how much faster it is, and how its similarities change."""
    graph = onnx_engine.graph_of(spec, weights)
    with onnx_engine.failures():
        ranges = eight_bit.ranges(graph, photographs)
    whole, short = onnx_engine.made(spec, weights), onnx_engine.made(spec, weights, ranges)
    change = np.abs(similarities(short(photographs)) - similarities(whole(photographs)))
    lowest, highest = zip(*ranges.values())
    with onnx_engine.failures():  # of ranges that are not finite
        return eight_bit.Calibration(
        onnx_engine.key_of(spec, weights), eight_bit.processor(), len(photographs), faster(whole, short, photographs[:TIMED]),
        float(change.mean()), float(change.max()), tuple(ranges), lowest, highest)


def similarities(embeddings: np.ndarray) -> np.ndarray:
    """Of all pairs of two rows."""
    unit = fusion.to_unit_length(embeddings.copy())
    return (unit @ unit.T)[np.triu_indices(len(unit), 1)]


def faster(whole: OnnxEngine, short: OnnxEngine, photographs: np.ndarray) -> float:
    """Seconds of the one / seconds of the other: the median of rounds in which they take turns."""
    return median(seconds(whole, photographs) / seconds(short, photographs) for _ in range(ROUNDS))


def seconds(engine: OnnxEngine, photographs: np.ndarray) -> float:
    """Of the processor: other work on the machine changes them less."""
    start = time.process_time()
    engine(photographs)
    return time.process_time() - start


def decided(spec: recipe.Spec, weights: Path, photographs: np.ndarray) -> str:
    """Writes or removes NAME.8bit.json; a line that says which, and why."""
    path = eight_bit.path_of(spec, weights)
    path.unlink(missing_ok=True)
    try:
        found = calibrated(spec, weights, photographs)
    except onnx_engine.OnnxFailure as error:
        return f"stays as it is, ONNX Runtime cannot have it in 8 bits: {error}"
    told = f"{found.faster:.2f} times as fast in 8 bits, similarities change by {found.mean_change:.3f}, at most {found.largest_change:.3f}"
    if not (found.faster >= LEAST and found.mean_change <= MOST):
        return f"{told}: stays as it is"
    write_json(recipe.plain(found), path)
    return f"{told}: {path}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Find the models that run faster in 8 bits on this processor, calibrated on your own photographs.",
        epilog="example: python -m solution.quantize --data runs/demo/folds/0/train --weights runs/demo/fold0/weights",
    )
    parser.add_argument("--data", type=Path, required=True, help="data directory with photographs like those that will be asked")
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote; MODEL.8bit.json is written there")
    parser.add_argument("--photographs", type=natural, default=64, metavar="N", help="how many of DATA are drawn (default %(default)s)")
    parser.add_argument("--seed", type=natural, default=0)
    args = parser.parse_args()
    reason, cure = engines.obstacle("cpu")
    if reason:
        raise InputError(f"8 bits need ONNX Runtime: {reason}; {cure}")
    specs = recipe.specs(args.weights)
    photographs = sample(args.data, specs, args.photographs, args.seed)
    with alone(*(eight_bit.path_of(spec, args.weights) for spec in specs)):
        for spec in specs:
            print(f"{spec.name}: {decided(spec, args.weights, photographs[embed.view_of(spec)])}", flush=True)


if __name__ == "__main__":
    run(main)
