"""What a training is made of: the rows of a table whose photographs can be read.

All are read once, before anything is counted; what cannot be read is told and left out:

    table = labelled(data)
    table = table[~table.image_id.isin(doubtful(table, data, without, most))]               # what the user leaves out; solution.doubts lists it
    lost = left_out(table, data, photographs_of(table, data, spec), squares, workers)       # image ids, a line each on stderr
    training = training_set(table[~table.image_id.isin(lost)], data, spec, squares)

More than a twentieth of them are an InputError: then a path is wrong or a disk is broken. What is left is trained on as if the others
had never stood in the table.
"""

import hashlib
import os
import sys
from itertools import islice
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np
import pandas as pd

from solution import images, recipe
from solution.files import Complaints, InputError, read_table

SHARE = 0.05  # of the photographs that train, at most


def labelled(data: Path) -> pd.DataFrame:
    """All rows of the metadata; InputError where they do not name two whales or more than a few photographs are missing."""
    table = images.listed(data)
    if "whale_id" not in table:
        raise InputError(f"{data}/metadata.csv: column whale_id is missing; training needs to know the individuals")
    refuse_few(table, data)
    refuse_absent(table, data)
    return table.reset_index(drop=True)


def fingerprint(table: pd.DataFrame, also: Sequence[str] = ()) -> str:
    """SHA-256 over ids, labels, boxes, other columns and file sizes: changed data are noticed before a resume."""
    sizes = [str(os.path.getsize(path)) if os.path.exists(path) else "" for path in table.path]
    told = [table[name] for name in ("image_id", "whale_id", "species", "x0", "y0", "x1", "y1", *also) if name in table]
    return hashlib.sha256("\n".join(map("\t".join, zip(*told, sizes))).encode()).hexdigest()


def doubtful(table: pd.DataFrame, data: Path, without: Optional[Path], most: Optional[float]) -> List[str]:
    """The image ids that a file such as solution.doubts writes names, its first `most` rows: so many, or below 1 that share of the labelled photographs.

    InputError where one is not in `table`, or where fewer than two whales would be left.
    """
    if without is None:
        return []
    ids = read_table(without, ["image_id"]).image_id
    labelled = int((table.whale_id != "").sum())
    ids = ids if most is None else ids[: int(most) if most >= 1 else round(most * labelled)]
    for row in np.flatnonzero(~ids.isin(table.image_id))[:1]:
        raise InputError(f"{without}: line {row + 2}: image_id {ids[row]!r} is not in {data}/metadata.csv; give a list of photographs of that training")
    left = table[~table.image_id.isin(ids)]
    refuse_few(left, data)
    gone = table.whale_id[table.whale_id != ""].nunique() - left.whale_id[left.whale_id != ""].nunique()
    print(f"{len(table) - len(left)} of {len(table)} photographs are left out, as {without} says{f', and {gone} of the whales with them' if gone else ''}", file=sys.stderr)
    return table.image_id[table.image_id.isin(ids)].tolist()


def photographs_of(table: pd.DataFrame, data: Path, spec: recipe.Spec) -> images.Photographs:
    """As a model in training looks at them."""
    return images.Photographs(table.path, [images.View(spec.train.size, spec.model.box_margin)], images.boxes(table, data))


def training_set(table: pd.DataFrame, data: Path, spec: recipe.Spec, squares=None):
    """What a model sees of the `labelled` table: the known whales, and the unknown ones where its recipe wants them. `squares` has what is decoded."""
    from solution.batches import Squares, TrainingSet

    if spec.head.species and "species" not in table:
        raise InputError(f"{data}/metadata.csv: column species is missing; {spec.name} has head.species true, which needs it")
    if not spec.train.unknown:
        table = table[table.whale_id != ""]
    names = np.unique(table.whale_id[table.whale_id != ""].to_numpy(str))
    known = (table.whale_id != "").to_numpy()
    labels = np.where(known, np.searchsorted(names, table.whale_id.to_numpy(str)), -1)
    species_names, species = np.unique(table.species.to_numpy(str) if "species" in table else np.full(len(table), ""), return_inverse=True)
    photographs, trail = photographs_of(table, data, spec), fingerprint(table, ["viewpoint"] if spec.predict.local_size else [])
    return TrainingSet(photographs, labels, species, names, species_names, images.viewpoints(table), trail, spec.train.mirror_identities, squares or Squares())


def refuse_absent(table: pd.DataFrame, data: Path) -> None:
    """InputError where more files than SHARE are missing, before any is read."""
    absent = [path for path in table.path if not os.path.exists(path)]
    if len(absent) > SHARE * len(table):
        raise InputError(f"{absent[0]}: no such image; {data}/metadata.csv names it (and {len(absent) - 1} others that are missing)")


def refuse_few(table: pd.DataFrame, data: Path) -> None:
    """InputError where fewer than two whales are named."""
    whales = table.whale_id[table.whale_id != ""].nunique()
    if whales < 2:
        raise InputError(f"{data}/metadata.csv: whale_id names {whales} individuals; training needs two or more")


def trained(table: pd.DataFrame, models: Sequence[recipe.Spec]) -> pd.DataFrame:
    """The rows that any of the models trains on."""
    return table if any(spec.train.unknown for spec in models) else table[table.whale_id != ""]


def left_out(table: pd.DataFrame, data: Path, photographs: images.Photographs, squares, workers: int) -> List[str]:
    """The image ids of those rows of `table` whose photographs cannot be read, each told; InputError where they are more than SHARE.

    `squares` (batches.Squares) holds what could be.
    """
    problems = squares.read(photographs, workers, "reading")
    if not problems:
        return []
    first, said = next(iter(problems.values())), f"{len(problems)} of {len(table)} photographs cannot be read"
    if len(problems) > SHARE * len(table):
        raise InputError(f"{data}/metadata.csv: {said}, which is more than {SHARE:.0%}; mend them or drop their rows; the first: {first}")
    complaints = Complaints(strict=False)
    for problem in problems.values():
        complaints.add(problem)
    complaints.add(f"{said} and are left out")
    ids = table.image_id.iloc[list(problems)].tolist()
    refuse_few(table[~table.image_id.isin(ids)], data)
    return ids


def refuse_others(trail: Path, made: Sequence[str], lost: Sequence[str]) -> None:
    """InputError where a training that goes on was begun without other photographs, those `made`, than are `lost` now."""
    changed = sorted(set(made) ^ set(lost))
    if changed:
        how, now = ("without", "can be read now") if changed[0] in made else ("with", "cannot be read any more")
        raise InputError(f"{trail}: its weights were begun {how} photograph {changed[0]}, which {now} (and {len(changed) - 1} others); "
                         "put them back as they were, or choose another --output")


def first_readable(table: pd.DataFrame, count: int) -> pd.DataFrame:
    """The first `count` rows whose photograph can be read."""
    readable = images.Readable(table.path, [])
    return table.iloc[list(islice((row for row in range(len(table)) if not readable[row][1]), count))]
