"""The answer for single photographs, in words and as a picture: who it may be, and the nearest photograph of each."""

import os
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from solution import embed, gallery, images, naming, recipe
from solution.device import chosen, decoders
from solution.files import Complaints, InputError, whole
from solution.known import Known

TILE, GAP, LINE = 240, 8, 18  # pixels
INK, PAPER, EMPTY = "#1b1b1b", "#ffffff", "#d0d0d0"


def show(photographs: List[Path], weights: Path, further: Optional[Path], picture: Optional[Path], device: str, cache: bool = True) -> None:
    """Prints the answers and draws `picture` where one is asked for; InputError where a photograph or the weights cannot be read."""
    missing = [path for path in photographs if not path.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: no such photograph")
    if picture and picture.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InputError(f"--picture: {picture} must end in .jpg or .png")
    specs, complaints = recipe.specs(weights), Complaints(strict=False)
    paths = [os.path.realpath(path) for path in photographs]
    asked = naming.Naming(weights, specs, pd.DataFrame({"image_id": paths, "path": paths}, dtype=object), further, complaints)
    pixels, device = embed.Pixels(asked.table, further or weights, embed.views(specs), decoders(), complaints), chosen(device)
    known = Known(weights, device, "torch") if cache else None
    embeddings = embed.embed(pixels, specs, embed.Engines(weights, device), asked.table.image_id.to_numpy(str), known)
    readable = [number for number in range(len(photographs)) if number not in pixels.told]
    if not readable:
        raise InputError(f"{photographs[0]}: not a readable image; there is no other photograph to name")
    evidence, queries = asked.evidence(specs, embeddings, pixels.told)
    names, chance = (part[readable] for part in asked.named(evidence, queries, known_only=True))
    nearest = nearest_photographs(evidence, {model: {key: rows[readable] for key, rows in parts.items()} for model, parts in queries.items()}, names)
    photographs, new = [photographs[number] for number in readable], asked.identification.new
    for path, name, row, image in zip(photographs, names, chance, nearest):
        print(f"{path}: {new} {row[-1]:.0%}")
        for place in range(names.shape[1] - 1):
            print(f"  {row[place]:4.0%}  {name[place]}" + (f", nearest in {evidence.gallery.image_id[image[place]]}" if image[place] >= 0 else ""))
    if picture:
        draw(photographs, names, chance, nearest, paths_of(evidence.gallery, asked.further), new, picture)
        print(picture)


def nearest_photographs(evidence: naming.Evidence, queries: Dict, names: np.ndarray) -> np.ndarray:
    """The row in the gallery of each name's most similar photograph (q, names), -1 where it has none."""
    rows = {spec.name: gallery.unit_rows(spec, queries[spec.name]) for spec in evidence.specs}
    cosine = sum(weight * rows[spec.name] @ evidence.gallery.embeddings[spec.name].T for weight, spec in zip(evidence.weights, evidence.specs))
    found = np.full(names.shape, -1)
    for query, name in np.ndindex(*names.shape):
        own = np.flatnonzero(evidence.gallery.whale_id == names[query, name])
        if len(own):
            found[query, name] = own[cosine[query, own].argmax()]
    return found


def paths_of(known: gallery.Gallery, further: Optional[pd.DataFrame]) -> List[Optional[str]]:
    """The file of each photograph of the gallery that is at hand."""
    there = {} if further is None else dict(zip(further.digest, further.path))
    return [there.get(digest) for digest in known.digest]


def draw(photographs: List[Path], names: np.ndarray, chance: np.ndarray, nearest: np.ndarray, files: List[Optional[str]], new: str, output: Path) -> Path:
    """A row a photograph: itself, then the nearest photograph of each name that may be it."""
    width, height = GAP + (TILE + GAP) * names.shape[1], GAP + (TILE + 2 * LINE + GAP) * len(photographs)
    sheet = Image.new("RGB", (width, height), PAPER)
    for row, photograph in enumerate(photographs):
        top = GAP + row * (TILE + 2 * LINE + GAP)
        tile(sheet, (GAP, top), str(photograph), [photograph.name, f"{new} {chance[row, -1]:.0%}"])
        for place in range(names.shape[1] - 1):
            file = files[nearest[row, place]] if nearest[row, place] >= 0 else None
            tile(sheet, (GAP + (place + 1) * (TILE + GAP), top), file, [names[row, place], f"{chance[row, place]:.0%}"])
    with whole(output) as beside:
        sheet.save(beside, "PNG" if output.suffix.lower() == ".png" else "JPEG")
    return output


def tile(sheet: Image.Image, corner, file: Optional[str], lines: List[str]) -> None:
    left, top = corner
    if file:
        image = images.read(Path(file))
        image.thumbnail((TILE, TILE))
        sheet.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
    else:
        ImageDraw.Draw(sheet).rectangle((left, top, left + TILE, top + TILE), fill=EMPTY)
        ImageDraw.Draw(sheet).text((left + 12, top + TILE // 2), "photograph not at hand; --gallery DATA", fill=INK)
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((left, top + TILE + LINE * number), line[:30], fill=INK, font=ImageFont.load_default(15))
