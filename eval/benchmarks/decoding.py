"""What decoding JPEGs at a reduced scale would save, and what it would change: a decoder can leave out a large photograph's detail.

    python -m eval.bench decoding --data DATA --weights WEIGHTS --json decoding.json

Reads photographs of DATA into memory and, by turns, decodes and resizes them at full scale, as solution.images does, and at a half, a
quarter or an eighth, the least that still has so many times the side a model looks at. Boxes are not cut out. Shows the seconds, the largest change
of a grey level, and by what the similarities of all pairs with a reduced photograph change, with the first model of WEIGHTS in eval.reference (by
default an untrained one of 224 px). `ratio` is that of the fastest reduction that changes none by more than 1e-4, null where there is
none: then nothing can be gained without loss, which is why solution.images decodes at full scale. Expect a minute.
"""

import argparse
import math
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

from eval.benchmarks import options, rounds, speed
from eval.benchmarks.sample import photographs
from eval.benchmarks.zips import alone, untrained_weights
from eval.files import InputError, progress

OVERSAMPLINGS = (8, 6, 4, 3, 2)  # a reduced photograph's sides are at least so many times the model's
SCALES = (8, 4, 2, 1)  # of a JPEG's decoder, the smallest picture first
FULL, BICUBIC = "full scale", 3  # PIL.Image.Resampling.BICUBIC, without importing it


class Jpeg(NamedTuple):
    path: str
    content: bytes
    side: int  # pixels, the shorter one


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Decode JPEGs at full and at reduced scale, by turns, and compare what a model then finds similar."
    parser.epilog = "example: python -m eval.bench decoding --data animals --weights runs/small/fold0/weights"
    parser.add_argument("--data", type=Path, required=True, help="whose photographs are decoded; the larger they are, the more there is to save")
    parser.add_argument("--weights", type=Path, help="directory that python -m solution.train wrote (default: an untrained EfficientNet-Lite)")
    parser.add_argument("--images", type=options.count, default=64, metavar="N", help="photographs at most (default 64)")


def measured(args: argparse.Namespace) -> dict:
    from eval.reference import network, predict

    found = jpegs(args.data, args.images)
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        weights = args.weights or untrained_weights(alone("tf_efficientnet_lite0", 224), Path(place))
        spec = predict.read_specs(weights)[0]
        model, size = network.loaded(spec, weights), spec["size"]
    scales = {way: [scale_of(one, side) for one in found] for way, side in least_sides(size).items()}
    works = {way: partial(squares, found, chosen, size) for way, chosen in scales.items()}
    pixels = {way: work()[0] for way, work in progress_of(works, "warming up")}
    spent = rounds.by_turns(works, args.repeats, lambda work: work()[1:])
    similar = {way: rounds.cosines(network.of_pixels(model, spec, seen)) for way, seen in progress_of(pixels, "comparing")}
    ways = {way: {**seconds(spent[way], spent[FULL]), **change(np.array(scales[way]) > 1, (pixels[way], pixels[FULL]), (similar[way], similar[FULL]))}
            for way in works}
    sides = sorted(one.side for one in found)
    return {"ratio": best(ways), "ways": ways, "photographs": len(found), "shorter_sides_pixels": [sides[0], sides[-1]],
            "model": spec["name"], "size_pixels": size, "repeats": args.repeats, "threads": 1}


def progress_of(table: dict, label: str) -> Iterator[tuple]:
    return progress(list(table.items()), label)


def least_sides(size: int) -> dict[str, float]:
    """How large a reduced photograph's shorter side must be, for each way of decoding."""
    return {FULL: math.inf, **{f"{times} times {size} px": times * size for times in OVERSAMPLINGS}}


def jpegs(data: Path, count: int) -> list[Jpeg]:
    """The first JPEGs of DATA in the order of the other benchmarks; InputError where there are fewer than two."""
    files = (Path(file) for file in photographs(data)[1])
    jpegs = (Jpeg(str(file), file.read_bytes(), 0) for file in files if is_jpeg(file))
    found = [one._replace(side=min(decoded(one, 1).size)) for one in islice(jpegs, count)]
    if len(found) < 2:
        raise InputError(f"{data}: {len(found)} of its photographs are JPEGs; two at least are needed for a similarity")
    return found


def is_jpeg(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(3) == b"\xff\xd8\xff"


def scale_of(photograph: Jpeg, side: float) -> int:
    """The scale that leaves the fewest pixels and no side below `side`; 1 where each would."""
    return next((scale for scale in SCALES if photograph.side / scale >= side), 1)


# What is timed

def squares(found: list[Jpeg], scales: list[int], size: int) -> tuple[np.ndarray, float, float]:
    """Photographs (n, size, size, 3) uint8 as a model sees them, the seconds of decoding and those of resizing."""
    result, clocks = [], []
    for one, scale in zip(found, scales):
        start = time.perf_counter()
        image = decoded(one, scale)
        between = time.perf_counter()
        across = image.resize((size, image.height), BICUBIC)  # columns first, as everywhere
        result.append(np.asarray(across.resize((size, size), BICUBIC)))
        clocks.append((start, between, time.perf_counter()))
    return np.stack(result), *np.diff(clocks).sum(axis=0).tolist()


def decoded(photograph: Jpeg, scale: int):
    """The photograph as an upright PIL image, or a `scale`-th of it; InputError where it cannot be decoded."""
    import cv2
    from PIL import Image

    flags = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
    pixels = cv2.imdecode(np.frombuffer(photograph.content, np.uint8), flags[scale])
    if pixels is None:
        raise InputError(f"{photograph.path}: not a readable JPEG; remove it or take another copy")
    return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


# What it tells

def seconds(spent: np.ndarray, full: np.ndarray) -> dict:
    """Of (decoding, resizing) by round (repeats, 2)."""
    decode, resize = np.median(spent, axis=0).tolist()
    return {"decode_seconds": decode, "resize_seconds": resize, **speed.spread(spent.sum(axis=1).tolist(), full.sum(axis=1).tolist())}


def change(reduced: np.ndarray, pixels: tuple[np.ndarray, np.ndarray], similar: tuple[np.ndarray, np.ndarray]) -> dict:
    """What the `reduced` photographs (n) change, and their pairs with all others; of each two the second is of full scale."""
    pairs = (reduced[:, None] | reduced) & ~np.eye(len(reduced), dtype=bool)
    changes = np.abs(similar[0] - similar[1])[pairs]
    return {"photographs_reduced": int(reduced.sum()), "largest_grey_level_change": int(np.abs(np.subtract(*pixels, dtype=int)).max()),
            "largest_similarity_change": float(changes.max(initial=0)), "mean_similarity_change": float(changes.mean()) if len(changes) else 0.0}


def best(ways: dict[str, dict]) -> float | None:
    """The ratio of the fastest reduction that stays within the stated change."""
    kept = [of["ratio"] for of in ways.values() if of["photographs_reduced"] and of["largest_similarity_change"] <= rounds.ALIKE]
    return max(kept, default=None)


def show(result: dict) -> None:
    print("{photographs} JPEGs, shorter sides {shorter_sides_pixels[0]} to {shorter_sides_pixels[1]} px, for {model} at {size_pixels} px"
          .format(**result))
    print(f"{'':20}{'reduced':>8}{'decode ms':>11}{'resize ms':>11}{'faster by':>11}{'grey levels':>13}  similarities by at most, in the mean")
    for way, of in result["ways"].items():
        each = [1000 * of[f"{step}_seconds"] / result["photographs"] for step in ("decode", "resize")]
        print(f"{way:20}{of['photographs_reduced']:8}{each[0]:11.1f}{each[1]:11.1f}{of['ratio']:11.2f}{of['largest_grey_level_change']:13}"
              f"{of['largest_similarity_change']:25.1e}{of['mean_similarity_change']:13.1e}")
    within = f"{result['ratio']:.2f} times faster" if result["ratio"] else "none of these"
    print(f"no similarity changed by more than {rounds.ALIKE:g}: {within}")
