"""How fast a network runs alone: `solution.embed` against eager PyTorch, by turns, and against the machine's own arithmetic.

    python -m eval.bench forward --models tf_efficientnet_lite0,tf_efficientnet_b0 --size 224 --json forward.json

One untrained model at a time looks at photographs made up for it. Ours is the command `python -m solution.embed`, once an engine, and what it
notes for the model's photographs and mirror images; a tiny model before it has everything decoded. Eager PyTorch is eval.reference.network: as
it comes (NCHW), and as good as it gets (channels last, in an allocator that keeps its pages, with a large and with a small batch,
whichever is faster). `ratio` is that of eager as it comes, the least of the models; `share_of_peak` compares what convolutions and linear
layers compute with the fastest float32 product of the same round (eval.benchmarks.peak). The similarities of all pairs must agree
within 1e-4. Expect 4 minutes.
"""

import argparse
import contextlib
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from eval.benchmarks import options, rounds, speed
from eval.benchmarks.sample import write_drawn
from eval.benchmarks.workers import Worker, command
from eval.benchmarks.zips import alone, untrained_weights
from eval.files import read_json

DECODING = {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": {"epochs": 0, "size": 32}, "predict": {"mirror": "off"}}
ENGINES = {"onnx": "solution.embed --engine onnx", "torch": "solution.embed --engine torch"}
EAGER = "eager, NCHW, as it comes"
PAGES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}  # glibc's; elsewhere nothing happens
KEPT = {batch: f"eager, channels last, pages kept, {batch} at a time" for batch in (32, 2)}
BATCH, SHARE = 32, 4  # eager sees one photograph in so many, but a batch: it takes longer, and each as long as the one before


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Run a network in solution.embed's engines and in eager PyTorch, by turns, and measure the machine's peak beside them."
    parser.epilog = "example: python -m eval.bench forward --json forward.json"
    parser.add_argument("--models", type=lambda text: text.split(","), default=["tf_efficientnet_lite0", "tf_efficientnet_b0"],
                        metavar="NAME,...", help="timm's names (default tf_efficientnet_lite0,tf_efficientnet_b0)")
    parser.add_argument("--size", type=options.count, default=224, metavar="PIXELS", help="side of the images (default 224)")
    parser.add_argument("--images", type=options.count, default=128, metavar="N", help=f"a round (default 128), for eager PyTorch a {SHARE}th")


def measured(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        data = write_drawn(Path(place) / "data", args.images, args.size, ".png")  # as large as a model wants them: nothing is resized
        models = {name: of_model(name, data, args, Path(place) / f"{number}") for number, name in enumerate(args.models)}
    least = {key: min(model[key] for model in models.values()) for key in ("ratio", "ratio_to_best_eager", "threads")}
    return {**least, "models": models, "size_pixels": args.size, "images": args.images, "repeats": args.repeats}


# One model

def of_model(name: str, data: Path, args: argparse.Namespace, folder: Path) -> dict:
    folder.mkdir()
    recipe, count = {"models": {"decoding": DECODING, **alone(name, args.size)["models"]}}, min(args.images, max(BATCH, args.images // SHARE))
    weights = untrained_weights(recipe, folder)
    with contextlib.ExitStack() as stack:
        start = lambda *words, **environment: stack.enter_context(Worker(*words, **environment))
        eager = start("eval.reference.eager", data, weights, count, BATCH, "nchw", folder / "eager.npy")
        kept = {line: start("eval.reference.eager", data, weights, count, batch, "channels_last", **PAGES) for batch, line in KEPT.items()}
        peak = start("eval.benchmarks.peak")
        ours = {line: partial(embed, engine, data, weights, folder) for engine, line in ENGINES.items()}
        works = {**ours, **{line: partial(each, worker) for line, worker in {EAGER: eager, **kept}.items()}, "peak": peak}
        rounds.by_turns(works, 1, rounds.said)  # to warm up, and to export
        spent = rounds.by_turns(works, args.repeats, rounds.said)
    largest = max(difference(np.load(folder / "eager.npy"), plain(folder / engine)) for engine in ENGINES)
    rates = dict(zip(peak.about["candidates"], spent.pop("peak").T))
    return {**told(spent, eager.about["flop_per_image"], rates), "largest_similarity_difference": largest, "threads": peak.about["threads"]}


def embed(engine: str, data: Path, weights: Path, folder: Path) -> float:
    """Seconds an image, as the command notes them for images and mirror images. Exported graphs are kept below FOLDER."""
    words = ["--data", data, "--weights", weights, "--output", folder / engine, "--engine", engine, "--timings", folder / "timings.json"]
    command("solution.embed", *words, "--device", "cpu", "--no-cache", XDG_CACHE_HOME=str(folder / "cache"))
    timings = read_json(folder / "timings.json")
    return sum(timings["models"]["model"].values()) / (2 * timings["images"])


def each(eager: Worker) -> float:
    """Seconds an image of one round."""
    return eager() / eager.about["images"]


def plain(embeddings: Path) -> np.ndarray:
    with np.load(embeddings / "model.npz", allow_pickle=False) as file:
        return file["plain"]


def difference(reference: np.ndarray, ours: np.ndarray) -> float:
    """The largest of the cosines of all pairs of the reference's images. Exits where that is no longer the same answer."""
    largest = float(np.abs(rounds.cosines(reference) - rounds.cosines(ours[:len(reference)])).max())
    if not largest <= rounds.ALIKE:
        sys.exit(f"error: the reference's similarities differ by {largest:.1e}, more than {rounds.ALIKE:g}; a faster wrong answer is none")
    return largest


# What the rounds tell

def told(spent: dict[str, np.ndarray], flop: int, rates: dict[str, np.ndarray]) -> dict:
    """The figures of one model, from the seconds an image and the peaks' GFLOP/s, both by round."""
    ours, best = spent[ENGINES["onnx"]], min(KEPT.values(), key=lambda line: median(spent[line]))
    peaks, peak = np.max(list(rates.values()), axis=0), max(rates, key=lambda name: median(rates[name]))
    to_best = speed.spread(ours.tolist(), spent[best].tolist())
    engines = {line: {"images_per_second": 1 / median(seconds), "share_of_peak": median(flop / 1e9 / seconds / peaks),
                      **speed.spread(ours.tolist(), seconds.tolist())} for line, seconds in spent.items()}
    return {**speed.spread(ours.tolist(), spent[EAGER].tolist()), "best_eager": best,
            **{key.replace("ratio", "ratio_to_best_eager", 1): value for key, value in to_best.items()},
            "share_of_peak": engines[ENGINES["onnx"]]["share_of_peak"], "gflop_per_image": flop / 1e9,
            "peak_gflop_per_second": median(peaks), "peak_of": peak,
            "peaks_gflop_per_second": {name: median(values) for name, values in rates.items()}, "engines": engines}


def show(result: dict) -> None:
    for name, model in result["models"].items():
        print("{name}, {size_pixels} px, {gflop_per_image:.3f} GFLOP an image; the peak of this run is {peak_gflop_per_second:.0f} GFLOP/s "
              "({peak_of}), {threads} threads".format(name=name, **{**result, **model}))
        print(f"  {'':50}{'images/s':>9}{'of the peak':>13}  ours is faster by")
        for line, figures in model["engines"].items():
            ratio = "{ratio:10.2f} ({ratio_least:.2f} to {ratio_most:.2f})".format(**figures) if line != ENGINES["onnx"] else ""
            print(f"  {line:50}{figures['images_per_second']:9.1f}{figures['share_of_peak']:13.1%}{ratio}")
        print("  similarities differ by at most {largest_similarity_difference:.1e}".format(**model))
