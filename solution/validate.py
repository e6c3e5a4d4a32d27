"""What an inner fold tells: the contest's own metric while a model trains, never used to choose an epoch; or, where the fold asks
for names, what identification takes from it once all models are there."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np
import pandas as pd

from solution import embed, gallery, identify, images, models, naming, rank, recipe, scenarios
from solution.files import Complaints, InputError, read_table
from solution.torch_engine import TorchEngine


def validation(fold: Path, spec: recipe.Spec, device: str, workers: int) -> Callable[[models.EmbeddingModel], Dict[str, float]]:
    """A function that scores a model on FOLD/test against FOLD/truth.csv and gives {"map20": mean average precision}."""
    asked, truth = scenarios.read(fold / "test"), read_table(fold / "truth.csv", ["query_id", "database_image_id"])
    if truth.empty:
        raise InputError(f"{fold}/truth.csv: no rows; there is nothing to score against")
    table = images.asked_for(fold / "test", scenarios.asked(asked))
    image_ids, pixels = table.image_id.to_numpy(str), embed.Pixels(table, fold / "test", embed.views([spec]), workers, Complaints(strict=False))

    def score(model: models.EmbeddingModel) -> Dict[str, float]:
        engine = TorchEngine(spec, model.eval(), device)
        embeddings = embed.embed(pixels, [spec], lambda _: engine, image_ids)
        rows = rank.combined([(spec.predict, embeddings[spec.name])])
        return {"map20": mean_average_precision(rank.submission(asked, image_ids, rows), truth)}

    return score


def mean_average_precision(submission: pd.DataFrame, truth: pd.DataFrame, top: int = rank.TOP) -> float:
    """The mean over the truth's queries of (sum of the precision at each hit) / min(number of true matches, top).

    The submission's rows stand best first within a query; a query without rows counts 0.
    """
    hit = submission.set_index(["query_id", "database_image_id"]).index.isin(truth.set_index(["query_id", "database_image_id"]).index)
    grouped = pd.Series(hit.astype(float)).groupby(submission.query_id.to_numpy())
    precision = grouped.cumsum() / (grouped.cumcount() + 1)
    found = (precision * hit).groupby(submission.query_id.to_numpy()).sum()
    positives = truth.query_id.value_counts().clip(upper=top)
    return float((found.reindex(positives.index).fillna(0) / positives).mean())


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


def ship(weights: Path, specs: List[recipe.Spec], wanted: recipe.Identify, data: Path, inner: Optional[Inner], further: Optional[pd.DataFrame], device: str, workers: int) -> None:
    """Writes WEIGHTS/gallery, and WEIGHTS/identify.json as fitted on the photographs of an inner fold against those of `data`.

    The gallery holds the photographs of `data`, those of the fold, and those of `further`, whose names count most.
    """
    engine_of = embed.Engines(weights, device)
    known = gallery_of(*embedded(gallery.labelled(data), data, specs, engine_of, workers), specs)
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


def embedded(table: pd.DataFrame, data: Path, specs: List[recipe.Spec], engine_of: embed.Engines, workers: int) -> Tuple[pd.DataFrame, Dict[str, rank.Embeddings]]:
    """The rows of a table whose photographs can be read, and their embeddings by model. The others are told: after hours of training they stop nothing."""
    pixels = embed.Pixels(table, data, embed.views(specs), workers, Complaints(strict=False))
    embeddings = embed.embed(pixels, specs, engine_of, table.image_id.to_numpy(str))
    there = ~np.isin(np.arange(len(table)), list(pixels.told))
    return table[there], {name: {key: rows[there] for key, rows in parts.items()} for name, parts in embeddings.items()}


def gallery_of(table: pd.DataFrame, embeddings: Dict[str, rank.Embeddings], specs: List[recipe.Spec]) -> gallery.Gallery:
    """The gallery that the photographs of a `labelled` table make."""
    rows = {spec.name: gallery.unit_rows(spec, embeddings[spec.name]) for spec in specs}
    return gallery.Gallery(table.image_id.to_numpy(str), table.whale_id.to_numpy(str), table.digest.to_numpy(str), rows)


def fitted(weights: Path, specs: List[recipe.Spec], wanted: recipe.Identify, known: gallery.Gallery, queries: Dict[str, rank.Embeddings], names: np.ndarray) -> identify.Identification:
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
