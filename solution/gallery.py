"""Who is known: labelled photographs as every model sees them, which travel with the weights and to which more can be added.

WEIGHTS/gallery/MODEL.npz      image_id, whale_id ("": unknown) and digest (m,), embedding (m, d) float32, rows of unit length
WEIGHTS/classifier/MODEL.npz   whale_id (k,), weight (k, width), bias (k,): the total classifier, where the recipe trains one
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import pandas as pd

from solution import fusion, images, recipe
from solution.files import STRICT, Complaints, InputError, arrays, write_arrays

BOX = ["x0", "y0", "x1", "y1"]
UNKNOWN = "new_whale", "new_individual"  # as the competitions call whales that nobody knows


@dataclass(frozen=True)
class Gallery:
    """m photographs, their whales ("": unknown), what their bytes and boxes are known by, and their embeddings by model (m, d)."""

    image_id: np.ndarray
    whale_id: np.ndarray
    digest: np.ndarray
    embeddings: Dict[str, np.ndarray]


def read(weights: Path, names: List[str]) -> Gallery:
    """The gallery of several models, of unit length again where half precision has rounded it; InputError where one is missing or holds other
    photographs than the first."""
    if not (weights / "gallery").is_dir():
        raise InputError(f"{weights}: holds no gallery; train with a recipe of protocol identify, or with --validate FOLD of that protocol")
    tables = {name: arrays(weights / "gallery" / f"{name}.npz", ("image_id", "whale_id", "digest", "embedding")) for name in names}
    first = tables[names[0]]
    for name, table in tables.items():
        check_lists(weights / "gallery" / f"{name}.npz", table, "image_id", "whale_id", "digest")
        if not all(np.array_equal(table[key], first[key]) for key in ("image_id", "whale_id", "digest")):
            raise InputError(f"{weights}/gallery/{name}.npz: its photographs are not those of {names[0]}; train the models on one data directory")
        if table["embedding"].ndim != 2 or not len(table["embedding"]) == len(table["image_id"]) == len(table["whale_id"]) == len(table["digest"]):
            raise InputError(f"{weights}/gallery/{name}.npz: needs image_id, whale_id and digest (m) and embedding (m, d)")
        if not finite(table["embedding"]):
            raise InputError(f"{weights}/gallery/{name}.npz: array embedding holds what is no finite number; train the models again")
    return Gallery(first["image_id"], first["whale_id"], first["digest"], {name: fusion.to_unit_length(table["embedding"].astype(np.float32)) for name, table in tables.items()})


def check_lists(path: Path, table: Dict[str, np.ndarray], *keys: str) -> None:
    """InputError where ids are no lists of text, or an individual's could not stand in a submission."""
    for key in keys:
        if table[key].ndim != 1 or table[key].dtype.kind != "U":
            raise InputError(f"{path}: array {key} is no list of text; train the model again")
    for whale_id in np.unique(table["whale_id"]).tolist():
        if whale_id in UNKNOWN or whale_id and whale_id.split() != [whale_id] or not whale_id.isprintable():
            raise InputError(f"{path}: whale_id {whale_id[:100]!r} is no name that can stand in a submission; train the model again")


def finite(values: np.ndarray) -> bool:
    """Whether all are numbers that float32 holds."""
    return values.dtype.kind == "f" and bool((np.abs(values) < np.finfo(np.float32).max).all())


def write(gallery: Gallery, weights: Path) -> Path:
    columns = {"image_id": gallery.image_id.astype(str), "whale_id": gallery.whale_id.astype(str), "digest": gallery.digest.astype(str)}
    for name, embedding in gallery.embeddings.items():
        write_arrays(weights / "gallery" / f"{name}.npz", **columns, embedding=embedding)
    return weights / "gallery"


def labelled(data: Path, complaints: Complaints = STRICT) -> pd.DataFrame:
    """The photographs of a data directory with their `whale_id` and `digest`; InputError where it has no whale_id."""
    table = images.listed(data, complaints).reset_index(drop=True)
    if "whale_id" not in table:
        raise InputError(f"{data}/metadata.csv: column whale_id is missing; a gallery needs to know its individuals")
    check_names(table, data)
    return with_digests(table)


def check_names(table: pd.DataFrame, data: Path) -> None:
    """InputError where a whale_id cannot stand in a submission, or is a word for unknown whales."""
    for line, whale_id in images.lines(table.whale_id.str.contains(r"\s"), table.whale_id):
        raise InputError(f"{data}/metadata.csv: line {line}: whale_id {whale_id!r} holds a space, which stands between names in a submission; write {'_'.join(whale_id.split())!r}")
    for line, whale_id in images.lines(table.whale_id.isin(UNKNOWN), table.whale_id):
        raise InputError(f"{data}/metadata.csv: line {line}: whale_id {whale_id!r} is no individual; leave it empty where the whale is unknown")


def with_digests(table: pd.DataFrame) -> pd.DataFrame:
    boxes = table[BOX].agg(" ".join, axis=1) if set(BOX) <= set(table) and len(table) else [""] * len(table)
    return table.assign(digest=np.array([digest(path, box) for path, box in zip(table.path, boxes)], object))


def digest(path: str, box: str) -> str:
    """What a photograph's bytes and its box are known by; none where the file cannot be read."""
    try:
        return hashlib.sha256(images.content(path) + box.encode()).hexdigest()[:32]
    except InputError:
        return ""


def unseen(table: pd.DataFrame, gallery: Gallery) -> np.ndarray:
    """Which photographs of a `labelled` table the gallery does not hold: it would have the same id and the same bytes."""
    held = set(zip(gallery.image_id, gallery.digest))
    return np.array([not digest or (image_id, digest) not in held for image_id, digest in zip(table.image_id, table.digest)], bool)


def enlarged(gallery: Gallery, table: pd.DataFrame, embeddings: Dict[str, np.ndarray]) -> Gallery:
    """The gallery with a `labelled` table: what it holds already takes the table's label, the rest is added with `embeddings` (n, d)
    by model, a row for each photograph that is `unseen`."""
    new = table[unseen(table, gallery)]
    for name, rows in embeddings.items():
        check_width(name, gallery.embeddings[name], rows)
    told = dict(zip(zip(table.image_id, table.digest), table.whale_id))
    whale_id = [told.get((image_id, digest), whale) for image_id, digest, whale in zip(gallery.image_id, gallery.digest, gallery.whale_id)]
    columns = [np.concatenate([np.asarray(old, object), added.to_numpy(object)]) for old, added in ((gallery.image_id, new.image_id), (whale_id, new.whale_id), (gallery.digest, new.digest))]
    return Gallery(*columns, {name: np.concatenate([gallery.embeddings[name], rows]) for name, rows in embeddings.items()} if len(new) else gallery.embeddings)


def check_width(name: str, held: np.ndarray, rows: np.ndarray) -> None:
    """InputError where the rows that a gallery holds are not as long as those that its model gives."""
    if held.shape[1] != rows.shape[1]:
        raise InputError(f"gallery/{name}.npz: embeddings of {held.shape[1]} numbers, the model gives {rows.shape[1]}; was it made with other weights?")


@dataclass(frozen=True)
class Classifier:
    whale_id: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def logits(self, embeddings: fusion.Embeddings) -> np.ndarray:
        """(n, k) of plain embeddings (n, width), or the mean of theirs and their mirror images'."""
        plain = embeddings["plain"]
        return ((plain + embeddings["mirror"]) / 2 if "mirror" in embeddings else plain) @ self.weight.T + self.bias


def read_classifier(weights: Path, spec: recipe.Spec) -> Optional[Classifier]:
    """The total classifier of a model; None where its recipe has none."""
    if not spec.head.total:
        return None
    path = weights / "classifier" / f"{spec.name}.npz"
    found = arrays(path, ("whale_id", "weight", "bias"))
    check_lists(path, found, "whale_id")
    if found["weight"].ndim != 2 or not found["bias"].shape == found["whale_id"].shape == found["weight"].shape[:1] or "" in found["whale_id"]:
        raise InputError(f"{path}: needs whale_id (k), weight (k, width) and bias (k)")
    if not (finite(found["weight"]) and finite(found["bias"])):
        raise InputError(f"{path}: array weight or bias holds what is no finite number; train the model again")
    return Classifier(found["whale_id"], found["weight"].astype(np.float32), found["bias"].astype(np.float32))


def write_classifier(classifier: Classifier, weights: Path, name: str) -> Path:
    return write_arrays(weights / "classifier" / f"{name}.npz", whale_id=classifier.whale_id.astype(str), weight=classifier.weight, bias=classifier.bias)


def unit_rows(spec: recipe.Spec, embeddings: fusion.Embeddings) -> np.ndarray:
    """Image and mirror image joined as the model's recipe says, of unit length (n, d)."""
    return fusion.combined([(spec.predict, embeddings)])
