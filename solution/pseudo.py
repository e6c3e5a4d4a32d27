"""A second round: photographs that were named with confidence join the labelled ones (pseudo-labels), to train on both.

    python -m solution.pseudo --data FOLD/train --asked FOLD/test --probabilities probabilities.csv --confidence 0.8 --output DATA

Reads two data directories and what `python -m solution.predict --probabilities` wrote about the second. Writes a data directory:
metadata.csv of both, the images hard-linked, else copied. `python -m eval.score --probabilities` tells how many of such names are
wrong where the truth is known.
"""

import argparse
import os
import shutil
from pathlib import Path

import pandas as pd

from solution import images
from solution.files import InputError, read_table, run, whole_directory, write_table
from solution.gallery import UNKNOWN


def confident(probabilities: Path, confidence: float) -> pd.Series:
    """The name of each photograph (by its base name) whose best name is a known individual of at least this probability."""
    table = read_table(probabilities, ["Id", "probability"])
    table["probability"] = pd.to_numeric(table.probability, errors="coerce")
    if not table.probability.between(0, 1).all():
        raise InputError(f"{probabilities}: line {int((~table.probability.between(0, 1)).to_numpy().argmax()) + 2}: probability is not a number between 0 and 1")
    image = next((name for name in table.columns if name not in ("Id", "probability")), None)
    if image is None:
        raise InputError(f"{probabilities}: the column of the photographs' names is missing, such as Image")
    best = table.sort_values("probability", ascending=False, kind="stable").drop_duplicates(image)
    return best[~best.Id.isin(["", *UNKNOWN]) & (best.probability >= confidence)].set_index(image).Id.astype(object)


def joined(data: Path, asked: Path, names: pd.Series) -> pd.DataFrame:
    """The rows of both directories: `data` as it is, of `asked` those that have a name; `file` is where the photograph lies."""
    labelled, others = images.listed(data), images.listed(asked)
    image = others.path.map(os.path.basename)
    others = others.assign(whale_id=image.mask(image.duplicated()).map(names)).dropna(subset="whale_id")  # the first of a name is what was asked
    others["image_id"] = "pseudo-" + others.image_id
    both = pd.concat([labelled, others], ignore_index=True).fillna("")
    twice = both.image_id.duplicated()
    if twice.any():
        raise InputError(f"{data}/metadata.csv: holds {both.image_id[twice].iloc[0]!r} already, as of an earlier round; join the photographs to what that one began with")
    missing = [path for path in both.path if not os.path.isfile(path)]
    if missing:
        raise InputError(f"{missing[0]}: no such image; metadata.csv names it")
    inside = [os.path.relpath(path, os.path.realpath(data)) for path in labelled.path]
    named = ["pseudo/" + os.path.basename(path) for path in others.path]
    taken = sorted(set(named) & set(inside))
    if taken:
        raise InputError(f"{data}/{taken[0]}: is in the way of a photograph of {asked}; join those to what an earlier round began with")
    return both.assign(file=both.path, path=inside + named)


def write(table: pd.DataFrame, output: Path) -> Path:
    """The data directory, which appears whole; InputError where there is one already."""
    with whole_directory(output) as beside:
        for source, path in zip(table.file, table.path):
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            link(source, beside / path)
        write_table(table.drop(columns="file"), beside / "metadata.csv")
    return output


def link(source: str, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except FileExistsError:
        pass  # several rows are boxes in one photograph
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Add photographs that were named with confidence to the labelled ones, for a second round of training.",
        epilog="example: python -m solution.pseudo --data folds/0/train --asked folds/0/test --probabilities probabilities.csv --confidence 0.8 --output second",
    )
    parser.add_argument("--data", type=Path, required=True, help="labelled data directory")
    parser.add_argument("--asked", type=Path, required=True, help="data directory that the probabilities are about")
    parser.add_argument("--probabilities", type=Path, required=True, help="what python -m solution.predict --probabilities wrote")
    parser.add_argument("--confidence", type=float, default=0.8, help="least probability of a name that is taken in (default 0.8)")
    parser.add_argument("--output", type=Path, required=True, help="the data directory to make")
    args = parser.parse_args()
    if not 0 < args.confidence <= 1:
        raise InputError(f"--confidence: {args.confidence} is no probability; it must be above 0 and at most 1")
    names = confident(args.probabilities, args.confidence)
    table = joined(args.data, args.asked, names)
    write(table, args.output)
    print(f"{args.output}: {len(table)} photographs, {table.image_id.str.startswith('pseudo-').sum()} of them named with a probability of {args.confidence} or more")


if __name__ == "__main__":
    run(main)
