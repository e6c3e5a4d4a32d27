"""What an inner fold tells: the contest's own metric while a model trains, never used to choose an epoch; or, where the fold asks
for names, what identification takes from it once all models are there."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
import pandas as pd

from solution import embed, fusion, gallery, identify, images, models, naming, rank, recipe, scenarios
from solution.files import Complaints, InputError, read_table
from solution.precision import average_precision
from solution.torch_engine import TorchEngine


def validation(fold: Path, spec: recipe.Spec, device: str, workers: int) -> Callable[[models.EmbeddingModel], Dict[str, float]]:
    """A function that scores a model on FOLD/test against FOLD/truth.csv, by cosine whatever the recipe's `rank`: {"map20": mean average precision}."""
    asked, truth = scenarios.read(fold / "test"), read_table(fold / "truth.csv", ["query_id", "database_image_id"])
    if truth.empty:
        raise InputError(f"{fold}/truth.csv: no rows; there is nothing to score against")
    table = images.asked_for(fold / "test", scenarios.asked(asked))
    image_ids, pixels = table.image_id.to_numpy(str), embed.Pixels(table, fold / "test", embed.views([spec]), workers, Complaints(strict=False))

    def score(model: models.EmbeddingModel) -> Dict[str, float]:
        engine = TorchEngine(spec, model.eval(), device)
        embeddings = embed.embed(pixels, [spec], lambda _: engine, image_ids)
        space = fusion.spaces([(spec.predict, embeddings[spec.name])], "concatenate")
        return {"map20": float(average_precision(rank.submission(asked, image_ids, [space] * len(asked)), truth).mean())}

    return score


@dataclass(frozen=True)
class Inner:
    """An inner fold of names: its photographs under their ids in DATA and with DATA's whale_id, and the names that its truth has, "" for
    unknown whales."""

    asked: pd.DataFrame
    names: np.ndarray


def inner_fold(fold: Optional[Path]) -> Optional[Inner]:
    """The fold, read and checked, where it asks for names; None where it asks for rankings or there is none."""
    if fold is None or "query_id" in read_table(fold / "truth.csv"):
        return None
    asked = images.listed(fold / "test").reset_index(drop=True)
    if asked.empty:
        raise InputError(f"{fold}/test/metadata.csv: no rows; there is nothing to fit the naming on")
    missing = [path for path in asked.path if not os.path.isfile(path)]
    if missing:
        raise InputError(f"{missing[0]}: no such image; {fold}/test/metadata.csv names it")
    labels = read_table(fold / "labels.csv", ["image_id", "original_image_id", "whale_id"]).set_index("image_id")
    truth = read_table(fold / "truth.csv", ["Image", "Id"]).set_index("Image").Id
    image = asked.path.map(os.path.basename)
    for table, ids, name in ((labels, asked.image_id, "labels.csv"), (truth, image, "truth.csv")):
        if not ids.isin(table.index).all() or not table.index.is_unique:
            raise InputError(f"{fold}/{name}: must have one row for each photograph of {fold}/test; make the fold again")
    labels = labels.loc[asked.image_id]
    return Inner(asked.assign(image_id=labels.original_image_id.to_numpy(), whale_id=labels.whale_id.to_numpy()), truth[image].replace("new_whale", "").to_numpy(str))


def further_gallery(data: Optional[Path]) -> Optional[pd.DataFrame]:
    """The photographs of a further gallery, read and checked; None where there is none."""
    if data is None:
        return None
    table = gallery.labelled(data)
    missing = table.path[table.digest == ""]
    if len(missing):
        raise InputError(f"{missing.iloc[0]}: no such image; {data}/metadata.csv names it")
    return table


def ship(weights: Path, specs: List[recipe.Spec], wanted: recipe.Identify, data: Path, inner: Optional[Inner], further: Optional[pd.DataFrame], device: str, workers: int,
         doubtful: Sequence[str] = ()) -> None:
    """Writes WEIGHTS/gallery, and WEIGHTS/identify.json as fitted on the photographs of an inner fold against those of `data`.

    The gallery holds the photographs of `data` but the `doubtful` ones, by their ids, those of the fold, and those of `further`, whose names count most.
    """
    engine_of = embed.Engines(weights, device)
    labelled = gallery.labelled(data)
    known = gallery_of(*embedded(labelled[~labelled.image_id.isin(doubtful)].reset_index(drop=True), data, specs, engine_of, workers), specs)
    if inner is not None:
        asked, queries = embedded(gallery.with_digests(inner.asked.assign(name=inner.names)), data, specs, engine_of, workers)
        identify.write(fitted(weights, specs, wanted, known, queries, asked.name.to_numpy(str)), weights / "identify.json")
        known = gallery.enlarged(known, asked, {spec.name: gallery.unit_rows(spec, queries[spec.name])[gallery.unseen(asked, known)] for spec in specs})
    if further is not None:
        new = further[gallery.unseen(further, known)]
        readable, embeddings = embedded(new, data, specs, engine_of, workers)
        lost = new.image_id[~new.image_id.isin(readable.image_id)]
        known = gallery.enlarged(known, further[~further.image_id.isin(lost)], {spec.name: gallery.unit_rows(spec, embeddings[spec.name]) for spec in specs})
    gallery.write(known, weights)


def embedded(table: pd.DataFrame, data: Path, specs: List[recipe.Spec], engine_of: embed.Engines, workers: int) -> Tuple[pd.DataFrame, Dict[str, fusion.Embeddings]]:
    """The rows of a table whose photographs can be read, and their embeddings by model. The others are told: after hours of training they stop nothing."""
    pixels = embed.Pixels(table, data, embed.views(specs), workers, Complaints(strict=False))
    embeddings = embed.embed(pixels, specs, engine_of, table.image_id.to_numpy(str))
    there = ~np.isin(np.arange(len(table)), list(pixels.told))
    return table[there], {name: {key: rows[there] for key, rows in parts.items()} for name, parts in embeddings.items()}


def gallery_of(table: pd.DataFrame, embeddings: Dict[str, fusion.Embeddings], specs: List[recipe.Spec]) -> gallery.Gallery:
    """The gallery that the photographs of a `labelled` table make."""
    rows = {spec.name: gallery.unit_rows(spec, embeddings[spec.name]) for spec in specs}
    return gallery.Gallery(table.image_id.to_numpy(str), table.whale_id.to_numpy(str), table.digest.to_numpy(str), rows)


def fitted(weights: Path, specs: List[recipe.Spec], wanted: recipe.Identify, known: gallery.Gallery, queries: Dict[str, fusion.Embeddings], names: np.ndarray) -> identify.Identification:
    from solution import calibrate

    if not len(names):
        raise InputError("--validate: none of its photographs can be read, so there is nothing to fit the naming on; put readable ones there")
    evidence = naming.Evidence(specs, weights, known)
    column = np.searchsorted(evidence.individuals, names)
    truth = np.where(names == "", len(evidence.individuals), np.where(np.isin(names, evidence.individuals), column, -1))
    probability = (lambda temperature: evidence.probability(queries, temperature)) if any(evidence.classifiers) else None
    found = calibrate.fitted(evidence.similarity(queries), probability, truth, names, wanted)
    print(f"identify.json: MAP@5 {found.map5:.4f} on {len(names)} photographs, {(names == '').sum()} of them of unknown whales", file=sys.stderr)
    return found
