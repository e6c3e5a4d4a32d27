"""How well planted label errors are found, and what they cost: a training with errors, one without what was found, one with clean labels.

    python -m eval.noise --fold FOLDS/0 --recipe demo --output noise.json

Gives some training photographs of FOLD, drawn by seed, the name of another individual, each other one as likely. Trains the recipe on
that, lists the doubtful photographs (solution.doubts), trains anew without as many of its first rows as errors were planted, and once
more with the right names; every training answers FOLD/test. Prints and writes as JSON:

* precision and recall of the list at half as many, as many, twice and four times as many rows as were planted, its average precision,
  how often the suggested individual is the true one, and `threshold`: of the rows with a doubt above 0;
* MAP@20 of the three, the paired difference of each from the first with its 95 % interval over individuals.

Expect three times what the training takes. Same command, same machine and threads: same numbers.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from eval import compare
from eval.benchmarks.workers import command
from eval.files import InputError, check_file, progress, read_table, run, write_json, write_table
from eval.labels import find_images, numbers, read_labels

TIMES = (0.5, 1, 2, 4)  # rows of the list, for each error that was planted
TRAININGS = ("with errors", "without the found ones", "with clean labels")


def planted(metadata: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The labelled rows of a metadata table with `given`: the whale_id that each is to bear, another one for round(share * rows) of them."""
    rows = metadata[metadata.whale_id != ""]
    whales, code = np.unique(rows.whale_id.to_numpy(str), return_inverse=True)
    count = round(share * len(rows))
    if len(whales) < 2 or not 0 < count < len(rows):
        raise InputError(f"--share: {share} of {len(rows)} photographs of {len(whales)} individuals plants no errors among right names; take another share or more photographs")
    random = np.random.default_rng([seed])
    wrong = random.choice(len(rows), count, replace=False)
    given = code.copy()
    given[wrong] = (code[wrong] + random.integers(1, len(whales), count)) % len(whales)
    return rows.assign(given=whales[given])


def relabelled(data: Path, rows: pd.DataFrame, folder: Path) -> Path:
    """A copy of a data directory, its photographs linked where that can be, in which the photographs of `rows` bear their `given` names."""
    labels = read_labels(data)
    files = find_images(data, labels.metadata)
    if files is None:
        raise InputError(f"{data}: there are no photographs in it, only tables; put images/ there")
    for path, file in zip(labels.metadata.path, files):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        linked(Path(file), folder / path)
    given = rows.set_index("image_id").given.reindex(labels.metadata.image_id).fillna("")
    write_table(labels.metadata.assign(whale_id=given.to_numpy()), folder / "metadata.csv")
    return folder


def linked(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def found(doubts: pd.DataFrame, rows: pd.DataFrame) -> dict:
    """What a list of doubts, most doubtful first, is worth against the `rows` of `planted`."""
    truth = rows.set_index("image_id")
    doubts = doubts[doubts.image_id.isin(truth.index)]
    true = truth.whale_id[doubts.image_id].to_numpy()
    hit = true != truth.given[doubts.image_id].to_numpy()
    count, sure = int((rows.whale_id != rows.given).sum()), (doubts.doubt > 0).to_numpy()
    at = {f"{times:g}": counted(hit[: max(1, round(times * count))], count) for times in TIMES}
    places = np.flatnonzero(hit) + 1
    return {"planted": count, "photographs": len(doubts), "by_rows": at, "threshold": counted(hit[sure], count),
            "average_precision": float((np.arange(1, len(places) + 1) / places).sum() / count),
            "suggestion_right": float((doubts.other_whale_id.to_numpy() == true)[hit].mean())}


def counted(hit: np.ndarray, count: int) -> dict:
    return {"rows": len(hit), "precision": float(hit.mean()) if len(hit) else None, "recall": float(hit.sum() / count)}


def measured(args: argparse.Namespace, folder: Path) -> dict:
    train = args.fold / "train"
    rows = planted(read_labels(train).metadata, args.share, args.seed)
    wrong = relabelled(train, rows, folder / "wrong")
    count, listed = int((rows.whale_id != rows.given).sum()), folder / "doubts.csv"
    works = {
        TRAININGS[0]: lambda: trained(args, wrong, folder / "0"),
        "the list": lambda: command("solution.doubts", "--weights", folder / "0" / "weights", "--data", wrong, "--output", listed, "--device", args.device, "--no-cache"),
        TRAININGS[1]: lambda: trained(args, wrong, folder / "1", "--without", listed, "--most", count),
        TRAININGS[2]: lambda: trained(args, relabelled(train, rows.assign(given=rows.whale_id), folder / "right"), folder / "2"),
    }
    for name in progress(list(works), "trainings"):
        works[name]()
    doubts = numbers(read_table(listed, ["doubt", "image_id", "other_whale_id"]), ["doubt"], listed)
    return {**found(doubts, rows), "map20": compared(args.fold, folder), "share": args.share, "seed": args.seed, "recipe": args.recipe, "fold": str(args.fold)}


def trained(args: argparse.Namespace, data: Path, folder: Path, *more: object) -> None:
    """FOLDER/weights, and FOLDER/submission.csv: their answer to the fold."""
    chosen = ("--model", args.model) if args.model else ()
    command("solution.train", "--recipe", args.recipe, "--data", data, "--output", folder / "weights", "--device", args.device, *chosen, *more)
    command("solution.predict", "--data", args.fold / "test", "--weights", folder / "weights", "--output", folder / "submission.csv", "--device", args.device, "--no-cache")


def compared(fold: Path, folder: Path) -> dict:
    """MAP@20 of each training, and of the second and third what eval.compare says of them against the first."""
    answers = [folder / str(number) / "submission.csv" for number in range(len(TRAININGS))]
    against = [compare.compare(compare.paired([(answers[0], other, fold / "truth.csv")], [None])) for other in answers[1:]]
    told = {TRAININGS[0]: {"map20": against[0]["a"]}}
    return told | {name: {"map20": each["b"], **{key: each[key] for key in ("difference", "ci95", "p_value")}} for name, each in zip(TRAININGS[1:], against)}


def show(result: dict) -> None:
    print(f"{result['planted']} errors among {result['photographs']} photographs; average precision of the list {result['average_precision']:.3f}; the suggested "
          f"individual is the true one for {result['suggestion_right']:.0%} of them")
    for name, at in {**{f"first {each['rows']} rows": each for each in result["by_rows"].values()}, "doubt above 0": result["threshold"]}.items():
        print(f"{name:<18} {at['rows']:>5} rows  precision {'-' if at['precision'] is None else format(at['precision'], '.2f')}  recall {at['recall']:.2f}")
    for name, each in result["map20"].items():
        interval = f", 95 % interval {each['ci95'][0]:+.4f} to {each['ci95'][1]:+.4f}" if each.get("ci95") else ""
        print(f"MAP@20 {name:<24} {each['map20']:.4f}" + (f"  {each['difference']:+.4f}{interval}" if "difference" in each else ""))


def share(text: str) -> float:
    value = pd.to_numeric(text, errors="coerce")
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no share between 0 and 1")
    return float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description="Plant label errors, look for them, and measure what they cost.",
                                     epilog="example: python -m eval.noise --fold runs/demo/folds/0 --recipe demo --model lite0_128")
    parser.add_argument("--fold", type=Path, required=True, help="fold of rankings with train/, test/ and truth.csv")
    parser.add_argument("--recipe", required=True, help="as solution.train takes it")
    parser.add_argument("--model", help="train this model of the recipe only")
    parser.add_argument("--share", type=share, default=0.05, help="of the labelled training photographs that get another name (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the errors (default %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write it as JSON")
    args = parser.parse_args()
    if args.seed < 0:
        raise InputError(f"--seed: is {args.seed}; give a whole number, 0 or more")
    check_file(args.fold / "truth.csv")  # before the trainings, not after them
    with tempfile.TemporaryDirectory(prefix="noise-") as place:
        result = measured(args, Path(place))
    show(result)
    if args.output:
        write_json(result, args.output)


if __name__ == "__main__":
    run(main)
