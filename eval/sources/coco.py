"""COCO JSON with individuals, such as LILA's Beluga ID 2022, brought into the one data layout.

Reads one JSON file: `images` (id, file_name; width, height, date_captured), `annotations` (image_id; bbox, viewpoint, and
the individual as name, individual_id or identity) and `categories`. Writes DATA/metadata.csv, a row an annotation, and
DATA/images/.

    python -m eval.importers coco beluga.coco/annotations/instances_train2022.json \\
        --images beluga.coco/images/train2022 --output data

prints the counts. Field names as Wild Me's exports and COCO Camera Traps have them: `____` is an unknown individual, `up` the
viewpoint `top`, `theta` the angle of a box whose corners stand in `segmentation`; the upright box around them counts.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from eval.files import InputError, read_json
from eval.sources.linking import Source, counted
from eval.sources.sightings import write_sightings

IDENTITY = ["name", "individual_id", "identity"]
SAID_BY_EITHER = {  # our column: fields of the annotation or its image, the first that says something
    "timestamp": ["timestamp", "date_captured", "datetime"], "date": ["date"], "viewpoint": ["viewpoint", "orientation"],
    "encounter_id": ["encounter_id", "seq_id"]}


def write_coco(data: Path, file: Path, images: Path | None, identity: str | None, date_format: str | None) -> None:
    """Fills the empty directory `data`; without `images` with labels alone. InputError names the entry that is wrong."""
    if images and not images.is_dir():
        raise InputError(f"{images}: no such folder; name that of the photographs with --images")
    content = read_json(file)
    photographs = by_id(file, entries(file, content, "images"))
    annotations = with_categories(entries(file, content, "annotations"), entries(file, content, "categories"))
    if not annotations:
        raise InputError(f"{file}: 'annotations' is empty; there is nothing to import")
    table = sightings(file, photographs, annotations, identity or individual_field(file, annotations))
    without = sorted(photographs.keys() - set(map(annotated, annotations)))
    if without:
        print(f"note: {counted(without, 'images have no annotation and are left out')}")
    write_sightings(data, table, Source(str(file), "annotations[{}]", 0), images, date_format)


def entries(file: Path, content: object, name: str) -> list[dict]:
    found = content.get(name, [] if name == "categories" else None) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InputError(f"{file}: {name!r} is not a list of objects; a COCO file has images, annotations and categories")
    return found


def by_id(file: Path, images: list[dict]) -> dict[str, dict]:
    found = {}
    for k, image in enumerate(images):
        name = text(image.get("id"))
        if not name or not text(image.get("file_name")):
            raise InputError(f"{file}: images[{k}]: id or file_name is missing; every image needs both")
        if name in found:
            raise InputError(f"{file}: images[{k}]: an earlier image has the id {name!r} too; keep one of them")
        found[name] = image
    return found


def with_categories(annotations: list[dict], categories: list[dict]) -> list[dict]:
    """The annotations with the names of their categories as `category`."""
    names = {text(category.get("id")): text(category.get("name")) for category in categories}
    return [{**annotation, "category": names.get(text(annotation.get("category_id")), "")} for annotation in annotations]


def individual_field(file: Path, annotations: list[dict]) -> str:
    there = {key for annotation in annotations for key in annotation}
    name = next((name for name in IDENTITY if name in there), None)
    if name is None:
        raise InputError(f"{file}: no annotation has {', '.join(IDENTITY)}; "
                         f"choose the individual's field with --identity from {', '.join(sorted(there))}")
    return name


def sightings(file: Path, photographs: dict[str, dict], annotations: list[dict], identity: str) -> pd.DataFrame:
    """A row an annotation, all text; image_id is the image's id, with a number where it has several annotations."""
    if not any(identity in annotation for annotation in annotations):
        raise InputError(f"{file}: no annotation has {identity!r}; choose another field with --identity")
    several, numbers, rows = Counter(map(annotated, annotations)), Counter(), []
    for k, annotation in enumerate(annotations):
        name = annotated(annotation)
        if name not in photographs:
            raise InputError(f"{file}: annotations[{k}]: image_id {name!r} is none of the images; mend or drop it")
        image = photographs[name]
        rows.append({"image_id": f"{name}-{numbers[name]}" if several[name] > 1 else name, "path": text(image["file_name"]),
                     "identity": text(annotation.get(identity)), "bbox": box(annotation), "species": annotation["category"],
                     "width": text(image.get("width")), "height": text(image.get("height")),
                     **{ours: first_said(theirs, annotation, image) for ours, theirs in SAID_BY_EITHER.items()}})
        numbers[name] += 1
    table = pd.DataFrame(rows, dtype=object)
    return table.loc[:, table.ne("").any() | (table.columns == "identity")]


def annotated(annotation: dict) -> str:
    return text(annotation.get("image_id"))


def first_said(fields: list[str], *entries: dict) -> str:
    return next((said for entry in entries for field in fields if (said := text(entry.get(field)))), "")


def box(annotation: dict) -> str:
    """[x, y, width, height] as text; of a turned one the upright box around its corners."""
    found, parts = annotation.get("bbox"), annotation.get("segmentation")
    if annotation.get("theta") and isinstance(parts, list) and len(parts) == 1 and is_polygon(parts[0]):
        corners = np.array(parts[0], float).reshape(-1, 2)
        found = [*corners.min(axis=0), *np.ptp(corners, axis=0)]
    return " ".join(map(str, found)) if isinstance(found, list) else text(found)


def is_polygon(points: object) -> bool:
    numbers = isinstance(points, list) and all(isinstance(number, (int, float)) and abs(number) < 1e9 for number in points)
    return numbers and len(points) >= 6 and len(points) % 2 == 0


def text(value: object) -> str:
    return "" if value is None else str(value)
