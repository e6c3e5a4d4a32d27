"""Photographs whose name may be wrong, or that are hard: they lie nearer to another whale than to their own, or not much farther.

    python -m solution.doubts --weights WEIGHTS --data DATA --output doubts.csv

Embeds the labelled photographs of DATA, those that WEIGHTS were trained on, without augmentation. Each model gives two angles to every whale,
their mean is what counts, and the mean of it over the models:

* to the nearest of the whale's sub-centres, WEIGHTS/centres/MODEL.npz. Most photographs of a whale gather at its dominant one, hard and
  mislabelled ones at another (Deng et al., Sub-center ArcFace, ECCV 2020, which drops those more than 75 degrees from the dominant one). A
  head has seen the wrong names, too, and believes some of them.
* to the mean of the whale's photographs, the one in question left out, which cannot vouch for itself (nearest class mean, Mensink et al.,
  Distance-based image classification, TPAMI 2013). It alone counts for models without sub-centres (another head, no training).

doubt = angle - other_angle: to its own whale less to the nearest other one. A whale's only photograph is never doubted by the second.

Writes a row a photograph, the most doubtful first, angles in degrees: doubt, image_id, path, whale_id, photographs (of the whale), sub_centre
(the nearest of its whale's, one a model and part), dominant (share of these that are the dominant one), dominant_angle (to the
dominant one), angle, other_whale_id, other_angle. Expect what solution.embed takes, seconds for a thousand photographs;
python -m eval.noise says how well it finds planted errors. solution.train --without doubts.csv --most 25 leaves out the first ones.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import pandas as pd

from solution import centres, embed, engines, images, recipe
from solution.device import chosen, decoders
from solution.files import Complaints, InputError, alone, check_room, natural, run, write_table
from solution.fusion import Embeddings, to_unit_length
from solution.known import Known

BLOCK = 1024  # photographs whose angles to all whales are held at once
FAR = 180.0  # degrees, the largest angle


class Judge(NamedTuple):
    """Unit rows (n, d) of the photographs, k unit centres (c, k, d) of each whale, and the angle (n,) of each photograph to its own whale."""

    rows: np.ndarray
    centres: np.ndarray
    own: np.ndarray


class Dominance(NamedTuple):
    """Of each photograph the nearest sub-centre (n,) of its whale, whether (n,) that is the dominant one, and the angle (n,) to that."""

    nearest: np.ndarray
    dominant: np.ndarray
    angle: np.ndarray


def by_sub_centres(rows: np.ndarray, label: np.ndarray, sub_centres: np.ndarray) -> Tuple[Judge, Dominance]:
    """rows (n, d) unit; label (n,), the whale of each; sub_centres (c, k, d). The dominant sub-centre has most photographs; of several
    such the one that is nearer to all of them."""
    unit = to_unit_length(sub_centres.reshape(-1, sub_centres.shape[2]).astype(np.float32)).reshape(sub_centres.shape)
    own = np.concatenate([np.einsum("nd,nkd->nk", rows[block], unit[label[block]]) for block in blocks(len(rows))])
    nearest, votes, nearness = own.argmax(axis=1), np.zeros(unit.shape[:2]), np.zeros(unit.shape[:2])
    np.add.at(votes, (label, nearest), 1)
    np.add.at(nearness, label, own)
    most = np.where(votes == votes.max(axis=1, keepdims=True), nearness, -np.inf).argmax(axis=1)
    return Judge(rows, unit, degrees(own.max(axis=1))), Dominance(nearest, nearest == most[label], degrees(own[np.arange(len(rows)), most[label]]))


def by_means(rows: np.ndarray, label: np.ndarray, whales: int) -> Judge:
    """The mean of a whale's photographs as its one centre; for each of them that of the others, itself where it is alone."""
    total = np.zeros((whales, rows.shape[1]), np.float32)
    np.add.at(total, label, rows)
    alone = np.bincount(label, minlength=whales)[label] == 1
    others = to_unit_length(np.where(alone[:, None], rows, total[label] - rows))
    return Judge(rows, to_unit_length(total)[:, None], degrees(np.einsum("nd,nd->n", rows, others)))


def nearest_others(judges: List[Judge], label: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """The other whale (n,) with the smallest mean angle, and that angle (n,)."""
    whale, angle = np.zeros(len(label), int), np.zeros(len(label))
    for block in blocks(len(label)):
        mean = sum(degrees(to_whales(judge, block)) for judge in judges) / len(judges)
        mean[np.arange(len(mean)), label[block]] = FAR  # where there is no other
        whale[block], angle[block] = mean.argmin(axis=1), mean.min(axis=1)
    return whale, angle


def to_whales(judge: Judge, block: slice) -> np.ndarray:
    """The cosine (b, c) to each whale's nearest centre."""
    whales, k, width = judge.centres.shape
    return (judge.rows[block] @ judge.centres.reshape(-1, width).T).reshape(-1, whales, k).max(axis=2)


def blocks(count: int) -> List[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def degrees(cosines: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos(np.clip(cosines, -1, 1), dtype=np.float64))


def labelled(data: Path) -> pd.DataFrame:
    """The rows of the metadata that name a whale; InputError where there is none."""
    table = images.listed(data)
    if "whale_id" not in table or not (table.whale_id != "").any():
        raise InputError(f"{data}/metadata.csv: names no whale (column whale_id); give the photographs that the models were trained on")
    return table[table.whale_id != ""].reset_index(drop=True)


def embedded(table: pd.DataFrame, specs: List[recipe.Spec], args: argparse.Namespace) -> Tuple[pd.DataFrame, Dict[str, Embeddings]]:
    """The rows whose photographs can be read, and their embeddings by model."""
    device = chosen(args.device)
    kind = engines.chosen(args.engine, device)
    pixels = embed.Pixels(table, args.data, embed.views(specs), decoders() if args.workers is None else args.workers, Complaints(strict=False))
    known = None if args.no_cache else Known(args.weights, device, kind)
    embeddings = embed.embed(pixels, specs, embed.Engines(args.weights, device, kind), table.image_id.to_numpy(str), known)
    there = ~np.isin(np.arange(len(table)), list(pixels.told))
    if not there.any():
        raise InputError(f"{args.data}: none of its photographs can be read")
    return table[there].reset_index(drop=True), {name: {side: rows[there] for side, rows in found.items()} for name, found in embeddings.items()}


def parts_of(spec: recipe.Spec, embeddings: Embeddings) -> List[np.ndarray]:
    """Unit rows (n, d) of each part: the mean of the image's and the mirror image's, unless that is another whale's or not looked at."""
    sides = ["plain"] if spec.train.mirror_identities or "mirror" not in embeddings else ["plain", "mirror"]
    split = [np.split(embeddings[side], spec.model.parts, axis=1) for side in sides]
    return [to_unit_length(sum(to_unit_length(side.copy()) for side in part)) for part in zip(*split)]


def judged_by(specs: List[recipe.Spec], embeddings: Dict[str, Embeddings], learned: Dict[str, dict], whale_id: np.ndarray, label: np.ndarray) -> Tuple[List[Judge], List[Dominance]]:
    """The judges that the parts of the models are; `whale_id` (c,) sorted, `label` (n,) their numbers."""
    judges, dominances = [], []
    for spec in specs:
        for number, rows in enumerate(parts_of(spec, embeddings[spec.name])):
            judges.append(by_means(rows, label, len(whale_id)))
            if spec.name in learned:
                judge, dominance = by_sub_centres(rows, label, centres_of(learned[spec.name], spec, number, whale_id, rows.shape[1]))
                judges.append(judge), dominances.append(dominance)
    return judges, dominances


def centres_of(learned: dict, spec: recipe.Spec, part: int, whale_id: np.ndarray, width: int) -> np.ndarray:
    """(c, k, width) of one part of a model; InputError where they are of another width."""
    if learned["centres"].shape[3] != width:
        raise InputError(f"centres/{spec.name}.npz: sub-centres of {learned['centres'].shape[3]} numbers, the model gives {width}; train the model again")
    return learned["centres"][part][pd.Index(learned["whale_id"]).get_indexer(whale_id)]


def learned_by(specs: List[recipe.Spec], weights: Path) -> Dict[str, dict]:
    """The sub-centres of the models that have some, by name; says which have none."""
    learned = {spec.name: found for spec in specs for found in [centres.read(weights, spec)] if found is not None}
    for spec in (spec for spec in specs if spec.name not in learned):
        why = f"head.kind is {spec.head.kind}" if spec.head.kind not in ("arcface", "cosface") else f"no {weights}/centres/{spec.name}.npz"
        print(f"{spec.name} has no sub-centres ({why}): only the mean of a whale's other photographs counts", file=sys.stderr)
    return learned


def judged(table: pd.DataFrame, judges: List[Judge], dominances: List[Dominance], whale_id: np.ndarray, label: np.ndarray) -> pd.DataFrame:
    """A row a photograph, the most doubtful first; angles to a thousandth of a degree, so that no rounding of sums orders them."""
    other, other_angle = nearest_others(judges, label)
    own = np.mean([judge.own for judge in judges], axis=0)
    mean = lambda key: np.mean([getattr(each, key) for each in dominances], axis=0).round(3) if dominances else np.full(len(table), np.nan)
    rows = pd.DataFrame({
        "doubt": (own - other_angle).round(3), "image_id": table.image_id, "path": table.path, "whale_id": table.whale_id, "photographs": np.bincount(label)[label],
        "sub_centre": in_words([each.nearest for each in dominances], len(table)), "dominant": mean("dominant"), "dominant_angle": mean("angle"),
        "angle": own.round(3), "other_whale_id": np.where(other == label, "", whale_id[other]), "other_angle": other_angle.round(3)})
    return rows.sort_values(["doubt", "image_id"], ascending=[False, True], ignore_index=True)


def in_words(numbers: List[np.ndarray], count: int) -> pd.Series:
    """(count,) texts such as "0 1", one number (count,) each."""
    texts = [pd.Series(each).astype(str) for each in numbers] or [pd.Series("", index=range(count))]
    return texts[0] if len(texts) == 1 else texts[0].str.cat(texts[1:], sep=" ")


def doubts(args: argparse.Namespace) -> str:
    """Writes the table; returns what to say of it."""
    specs = recipe.specs(args.weights)
    table, learned = labelled(args.data), learned_by(specs, args.weights)
    known = np.all([table.whale_id.isin(own["whale_id"]) for own in learned.values()] or [np.ones(len(table), bool)], axis=0)
    if not known.any():
        raise InputError(f"{args.data}/metadata.csv: names none of the whales that {args.weights} were trained on; give the photographs of that training")
    if not known.all():
        print(f"{(~known).sum()} photographs of {table.whale_id[~known].nunique()} whales that were not trained on are left out", file=sys.stderr)
    table, embeddings = embedded(table[known].reset_index(drop=True), specs, args)
    whale_id, label = np.unique(table.whale_id.to_numpy(str), return_inverse=True)
    rows = judged(table, *judged_by(specs, embeddings, learned, whale_id, label), whale_id, label)
    root = os.path.realpath(args.data)
    write_table(rows.assign(path=[os.path.relpath(path, root) for path in rows.path]), args.output)
    nearer = int((rows.doubt > 0).sum())
    return f"{args.output}: {len(rows)} photographs of {len(whale_id)} whales, {nearer} of them nearer to another whale than to their own"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="List the training photographs whose whale is most doubtful: mislabelled ones, and hard ones.",
        epilog="example: python -m solution.doubts --weights runs/demo/fold0/weights --data runs/demo/folds/0/train --output doubts.csv",
    )
    parser.add_argument("--weights", type=Path, required=True, help="directory that python -m solution.train wrote")
    parser.add_argument("--data", type=Path, required=True, help="the labelled photographs that it trained on")
    parser.add_argument("--output", type=Path, required=True, help="the table to write")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--engine", choices=["auto", *engines.KINDS], default="auto", help="what runs the models (default: onnx on a CPU where it is installed)")
    parser.add_argument("--workers", type=natural, help="threads that decode (default: one a core, at most 8)")
    parser.add_argument("--no-cache", action="store_true", help="compute everything, and keep no embeddings for the next time")
    args = parser.parse_args()
    with alone(args.output):
        check_room(args.output)
        print(doubts(args))


if __name__ == "__main__":
    run(main, relief="lower --workers")
