"""How cost grows: the seconds of 1, 2, 4 and 8 times the photographs, the models and the queries; twice the work should take twice as long.

    python -m eval.bench growth --plot docs/growth.svg --json growth.json

Everything is made up, the same every time. Photographs and models: `python -m solution.predict`, what it notes for waiting for photographs,
running the models, ranking and writing. Queries: `python -m solution.rank` against a database that stays as it is, ranking and writing.
Starting and loading are not in it. `exponent` is the slope of a straight line through the logarithms: 1 is linear. --plot draws
the seconds, a line each, with a thin one for what would be linear. Expect 4 minutes.
"""

import argparse
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd

from eval.benchmarks import options, ranking, rounds, sample
from eval.benchmarks.workers import command
from eval.benchmarks.zips import alone, untrained_weights
from eval.files import read_json, whole, write_json, write_table

TIMES = (1, 2, 4, 8)
DATABASE, WIDTH = 4000, 512  # of the ranking, numbers an image without its mirror image
PHASES = ("decode", "forward", "rank", "write")
WORDS = {"images": "photographs (solution.predict)", "models": "models (solution.predict)", "queries": "queries (solution.rank)"}
COLOURS = ["#0072b2", "#c44e00", "#00805c"]  # of the page, on white
INK = "#333333"


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Predict and rank 1, 2, 4 and 8 times as much, by turns, and tell whether cost grows as work does."
    parser.epilog = "example: python -m eval.bench growth --plot growth.svg"
    parser.add_argument("--images", type=options.count, default=64, metavar="N", help="photographs of the smallest run (default 64)")
    parser.add_argument("--queries", type=options.count, default=2000, metavar="N", help="queries of the smallest run (default 2000)")
    parser.add_argument("--size", type=options.count, default=160, metavar="PIXELS", help="side of the models' images (default 160)")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it")


def measured(args: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        works = {**predictions(args.images, args.size, Path(place)), **rankings(args.queries, Path(place))}
        rounds.by_turns({name: work for name, work in works.items() if name[1] == 1}, 1, rounds.said)  # to warm up, and to export
        spent = rounds.by_turns(works, args.repeats, rounds.said)
    smallest = {"images": args.images, "models": 1, "queries": args.queries}
    lines = {what: {"smallest": smallest[what], **line([np.median(spent[what, times]) for times in TIMES])} for what in WORDS}
    result = {"ratio": None, "times": TIMES, **lines, "photographs_for_models": args.images, "size_pixels": args.size, "database": DATABASE,
              "repeats": args.repeats, "threads": rounds.threads()}
    if args.plot:
        with whole(args.plot) as beside:
            beside.write_text(drawn(result))
    return result


def line(seconds: list[float]) -> dict:
    """What is told of the seconds of TIMES as much."""
    slope = np.polyfit(np.log(TIMES), np.log(seconds), 1)[0]
    factors = [float(more / less) for less, more in zip(seconds, seconds[1:])]
    return {"seconds": list(map(float, seconds)), "factors": factors, "exponent": float(slope)}


def show(result: dict) -> None:
    print(f"{'':32}{'seconds of':>10} " + "".join(f"{f'{times} times':>18}" for times in TIMES) + f"{'exponent':>12}")
    for what, words in WORDS.items():
        of = result[what]
        factors = ["", *(f" (x {factor:.2f})" for factor in of["factors"])]
        cells = [f"{seconds:.2f}{factor:>9}" for seconds, factor in zip(of["seconds"], factors)]
        print(f"{words:32}{of['smallest']:10} " + "".join(f"{cell:>18}" for cell in cells) + f"{of['exponent']:12.2f}")


# What is timed

def predictions(images: int, size: int, folder: Path) -> dict:
    """Works by what grows and how often: photographs for one model, models on the fewest photographs."""
    counts = [times * images for times in TIMES]
    sample.write_sizes(sample.write_drawn(folder / "drawn", counts[-1], 2 * size, ".jpg"), counts, folder, ranked=True)
    weights = untrained_weights(alone("tf_efficientnet_lite0", size), folder)
    for times in TIMES:
        copies(weights, times, folder / f"{times} models")
    work = lambda times, models: partial(predict, folder / str(times * images), folder / f"{models} models", folder)
    return {("images", times): work(times, 1) for times in TIMES} | {("models", times): work(1, times) for times in TIMES}


def copies(weights: Path, count: int, folder: Path) -> None:
    """The one model of WEIGHTS under so many names."""
    spec = read_json(weights / "model.json")
    for number in range(count):
        write_json({**spec, "name": f"model{number}", "position": number}, folder / f"model{number}.json")
        shutil.copyfile(weights / "model.npz", folder / f"model{number}.npz")


def predict(data: Path, weights: Path, folder: Path) -> float:
    words = ["--data", data, "--weights", weights, "--output", folder / "submission.csv", "--timings", folder / "timings.json"]
    command("solution.predict", *words, "--device", "cpu", "--no-cache", XDG_CACHE_HOME=str(folder / "cache"))
    timings = read_json(folder / "timings.json")
    return sum(timings[f"{phase}_seconds"] for phase in PHASES)


def rankings(queries: int, folder: Path) -> dict:
    """Works by how often as many queries: they ask the database's own images, again and again."""
    rows = np.random.default_rng([0]).standard_normal((DATABASE, 2 * WIDTH), np.float32)
    ids = np.array([f"image{number:05}" for number in range(DATABASE)])
    ranking.write_embeddings(rows, ids, folder / "embeddings")
    return {("queries", times): partial(rank, asked(ids, times * queries, folder / f"{times} times the queries"), folder) for times in TIMES}


def asked(ids: np.ndarray, queries: int, data: Path) -> Path:
    ranking.write_scenario(ids[:1], ids, data)
    rows = {"query_id": [f"query{number:06}" for number in range(queries)], "query_image_id": ids[np.arange(queries) % len(ids)]}
    write_table(pd.DataFrame(rows), data / "queries.csv")
    return data


def rank(data: Path, folder: Path) -> float:
    words = ["--data", data, "--output", folder / "ranked.csv", "--timings", folder / "ranked.json"]
    command("solution.rank", "--embeddings", folder / "embeddings", *words)
    timings = read_json(folder / "ranked.json")
    return timings["rank_seconds"] + timings["write_seconds"]


# The figure

def drawn(result: dict) -> str:
    """An SVG for a README: undated, on white. Same numbers, same bytes."""
    import matplotlib

    from eval.page import charts

    with matplotlib.rc_context({**charts.STYLE, "svg.hashsalt": "growth"}):
        figure, axes = charts.empty(3.6)
        figure.set_figwidth(5.5)  # inches
        for number, what in enumerate(WORDS):
            axes.plot(TIMES, result[what]["seconds"], color=charts.SERIES[number], linestyle=charts.DASHES[number],
                      marker=charts.MARKERS[number], markersize=4, linewidth=1.6)
        for what in WORDS:
            linear, = axes.plot(TIMES, np.multiply(TIMES, result[what]["seconds"][0]), color=charts.INK, linewidth=0.7, alpha=0.6)
        axes.set(xscale="log", yscale="log", xlabel="times as many", ylabel="seconds")
        plain_numbers(axes.xaxis, TIMES)
        plain_numbers(axes.yaxis, ticks(*axes.get_ylim()))
        smallest = {what: f"{words}, from {result[what]['smallest']}" for what, words in WORDS.items()}
        charts.legend(figure, [*axes.lines[:len(WORDS)], linear], [*smallest.values(), "what would be linear"])
        return on_white(charts.inline(figure, "growth"))


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between."""
    return [value for power in range(-4, 6) for value in np.multiply([1, 2, 5], 10.0**power) if low <= value <= high]


def plain_numbers(axis, values: Sequence[float]) -> None:
    from matplotlib.ticker import NullLocator

    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())


def on_white(svg: str) -> str:
    """A chart of the page by itself: with the page's light colours."""
    for number, colour in enumerate(COLOURS, start=1):
        svg = svg.replace(f"var(--series-{number})", colour)
    start = svg.index(">") + 1
    return svg[:start] + '<rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:].replace("currentColor", INK)
