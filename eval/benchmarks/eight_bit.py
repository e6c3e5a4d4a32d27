"""What 8 bits save and what they cost: `solution.embed --engine onnx8` against `--engine onnx` by turns, and both rankings' MAP@20.

    python -m solution.quantize --data FOLD/train --weights WEIGHTS      # before: calibrates, never on photographs that are scored
    python -m eval.bench eight-bit --weights WEIGHTS --fold FOLD --json eight_bit.json

Embeds FOLD/test with both engines, nothing cached, in each round. `ratio` is float seconds / 8-bit seconds of all models together, as
solution.embed notes them where nothing is decoded beside (--workers 0). Models without a WEIGHTS/NAME.8bit.json run in float both times.
The difference of MAP@20 is paired by query, with interval and p by whale, as of eval.compare. Several folds, each with its
weights, are pooled. Expect half a minute a round and fold for 243 photographs and two models.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd

from eval import compare
from eval.benchmarks import rounds, speed
from eval.benchmarks.workers import command
from eval.files import InputError, read_json, read_table

FLOAT, SHORT = "onnx", "onnx8"  # --engine
Fold = tuple[Path, Path]  # weights, and the fold that they were not trained on
Seconds = dict[str, float]  # of each model


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Embed a fold's test photographs with both engines by turns, rank by both, and compare the rankings."
    parser.epilog = "example: python -m eval.bench eight-bit --weights runs/small/fold0/weights --fold runs/small/folds/0"
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="what python -m solution.quantize has gone over")
    parser.add_argument("--fold", type=Path, nargs="+", required=True, help="the fold of each, with test/ and truth.csv")


def measured(args: argparse.Namespace) -> dict:
    folds = checked(args.weights, args.fold)
    short = sorted({path.name.removesuffix(".8bit.json") for weights in args.weights for path in weights.glob("*.8bit.json")})
    if not short:
        raise InputError(f"{args.weights[0]}: no MODEL.8bit.json; run python -m solution.quantize first, or nothing is faster in 8 bits here")
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        folder, noted = Path(place), {FLOAT: [], SHORT: []}
        works = {engine: partial(embed, engine, folds, folder, seconds) for engine, seconds in noted.items()}
        rounds.by_turns(works, 1)  # to export and to warm up
        for seconds in noted.values():
            seconds.clear()
        rounds.by_turns(works, args.repeats)
        cost = compared(folds, folder)
    return {**speeds(noted[SHORT], noted[FLOAT]), "in_8_bits": short, **cost, "repeats": args.repeats}


def checked(weights: list[Path], folds: list[Path]) -> list[Fold]:
    if len(weights) != len(folds):
        raise InputError(f"{len(weights)} --weights, {len(folds)} --fold; give as many of the one as of the other")
    for path in [fold / name for fold in folds for name in ("truth.csv", "test/metadata.csv")]:
        if not path.is_file():
            raise InputError(f"{path}: no such file; --fold is a directory such as python -m eval.folds writes")
    return list(zip(weights, folds))


def show(result: dict) -> None:
    spread = "{ratio:.2f} times as fast ({ratio_least:.2f} to {ratio_most:.2f} by round)"
    for name, model in result["models"].items():
        print(f"{name}: " + (f"in 8 bits {spread}" if name in result["in_8_bits"] else "float in both, the ratio tells what varies: {ratio:.2f}").format(**model))
    print(f"all models: {spread}".format(**result))
    interval = "95 % interval {:+.4f} to {:+.4f}".format(*result["ci95"]) if result["ci95"] else "no interval by one whale"
    print("MAP@20 {map20_float:.4f} -> {map20_8_bits:.4f}: {difference:+.4f}, ".format(**result) + interval +
          ", p = {p_value:.3f}; {rows_that_differ} of {rows} rows differ, {queries} queries of {whales} whales".format(**result))


# Seconds

def embed(engine: str, folds: list[Fold], folder: Path, noted: list[Seconds]) -> None:
    """Every fold's test photographs into FOLDER/ENGINE/NUMBER; notes the forward seconds of each model, over all folds."""
    together: Seconds = {}
    for number, (weights, fold) in enumerate(folds):
        output, timings = folder / engine / str(number), folder / "timings.json"
        command("solution.embed", "--engine", engine, "--device", "cpu", "--workers", 0, "--no-cache", "--data", fold / "test",
                "--weights", weights, "--output", output, "--timings", timings)
        for name, seconds in read_json(timings)["models"].items():
            together[name] = together.get(name, 0) + sum(seconds.values())
    noted.append(together)


def speeds(short: list[Seconds], whole: list[Seconds]) -> dict:
    """The ratio of both engines over all models and for each, from the rounds' seconds."""
    totals = [[sum(models.values()) for models in noted] for noted in (short, whole)]
    models = {name: speed.spread(*([models[name] for models in noted] for noted in (short, whole))) for name in short[0]}
    return {**speed.spread(*totals), "models": models}


# Rankings

def compared(folds: list[Fold], folder: Path) -> dict:
    """What 8 bits change in the rankings of all folds."""
    answers = [[ranked(folder / engine / str(number), fold) for engine in (FLOAT, SHORT)] for number, (_, fold) in enumerate(folds)]
    found = compare.compare(compare.paired([(*pair, fold / "truth.csv") for pair, (_, fold) in zip(answers, folds)], [None] * len(folds)))
    tables = [[read_table(path)[rounds.PAIR] for path in pair] for pair in answers]
    rows = sum(len(whole) for whole, _ in tables)
    same = sum(len(pd.merge(*pair)) for pair in tables)
    return {"map20_float": found["a"], "map20_8_bits": found["b"], **{key: found[key] for key in ("difference", "ci95", "p_value")},
            "queries": found["n_queries"], "whales": found["n_resampled"], "rows": rows, "rows_that_differ": rows - same}


def ranked(embeddings: Path, fold: Path) -> Path:
    output = embeddings.with_suffix(".csv")
    command("solution.rank", "--embeddings", embeddings, "--data", fold / "test", "--output", output)
    return output
