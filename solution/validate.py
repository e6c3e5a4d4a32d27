"""What an inner fold tells: the contest's own metric while a model trains, never used to choose an epoch; or, where the fold asks
for names, what identification takes from it once all models are there."""

import sys
from pathlib import Path
from typing import Callable, Dict, List, Optional

import numpy as np
import pandas as pd

from solution import embed, gallery, identify, images, models, naming, rank, recipe, scenarios
from solution.engines import TorchEngine
from solution.files import InputError, read_table


def of_names(fold: Path) -> bool:
    """Whether the fold's truth names individuals (protocol identify) and not images."""
    return "query_id" not in read_table(fold / "truth.csv")


def validation(fold: Path, spec: recipe.Spec, device: str, workers: int) -> Callable[[models.EmbeddingModel], Dict[str, float]]:
    """A function that scores a model on FOLD/test against FOLD/truth.csv and gives {"map20": mean average precision}."""
    asked, truth = scenarios.read(fold / "test"), read_table(fold / "truth.csv", ["query_id", "database_image_id"])
    table = images.asked_for(fold / "test", scenarios.asked(asked))
    image_ids, pixels = table.image_id.to_numpy(str), embed.Pixels(table, fold / "test", embed.views([spec]), workers)

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
    return float((found.reindex(positives.index).fillna(0) / positives).mean()) if len(positives) else float(np.nan)


def ship(weights: Path, specs: List[recipe.Spec], wanted: recipe.Identify, data: Path, fold: Optional[Path], further: Optional[Path], device: str, workers: int) -> None:
    """Writes WEIGHTS/gallery, and WEIGHTS/identify.json as fitted on the photographs of FOLD against those of `data`.

    The gallery holds the photographs of `data`, those of the fold, named by its labels.csv, and those of `further`, whose names count most.
    """
    engine_of = embed.Engines(weights, device)
    known = embedded(gallery.labelled(data), data, specs, engine_of, workers)
    if fold is not None:
        asked = gallery.with_digests(images.listed(fold / "test").reset_index(drop=True))
        names = read_table(fold / "labels.csv", ["image_id", "original_image_id", "whale_id"]).set_index("image_id").loc[asked.image_id]
        queries = embed.embed(embed.Pixels(asked, fold / "test", embed.views(specs), workers), specs, engine_of, asked.image_id.to_numpy(str))
        identify.write(fitted(weights, specs, wanted, known, queries, true_names(fold, asked)), weights / "identify.json")
        asked = asked.assign(image_id=names.original_image_id.to_numpy(), whale_id=names.whale_id.to_numpy())
        known = gallery.enlarged(known, asked, {spec.name: gallery.unit_rows(spec, queries[spec.name])[gallery.unseen(asked, known)] for spec in specs})
    if further is not None:
        table = gallery.labelled(further)
        new = embedded(table[gallery.unseen(table, known)], further, specs, engine_of, workers)
        known = gallery.enlarged(known, table, new.embeddings)
    gallery.write(known, weights)


def embedded(table: pd.DataFrame, data: Path, specs: List[recipe.Spec], engine_of: embed.Engines, workers: int) -> gallery.Gallery:
    """The gallery that the photographs of a `labelled` table make."""
    image_ids = table.image_id.to_numpy(str)
    embeddings = embed.embed(embed.Pixels(table, data, embed.views(specs), workers), specs, engine_of, image_ids)
    rows = {spec.name: gallery.unit_rows(spec, embeddings[spec.name]) for spec in specs}
    return gallery.Gallery(image_ids, table.whale_id.to_numpy(str), table.digest.to_numpy(str), rows)


def true_names(fold: Path, asked: pd.DataFrame) -> np.ndarray:
    """The individual of each asked photograph as the fold's truth has it, "" for the unknown."""
    truth = read_table(fold / "truth.csv", ["Image", "Id"])
    images_of = asked.path.str.rsplit("/", n=1).str[-1]
    missing = images_of[~images_of.isin(truth.Image)]
    if len(missing):
        raise InputError(f"{fold}/truth.csv: has no row for {missing.iloc[0]}; make the fold again")
    return truth.set_index("Image").Id.loc[images_of].replace("new_whale", "").to_numpy(str)


def fitted(weights: Path, specs: List[recipe.Spec], wanted: recipe.Identify, known: gallery.Gallery, queries: Dict[str, rank.Embeddings], names: np.ndarray) -> identify.Identification:
    from solution import calibrate

    evidence = naming.Evidence(specs, weights, known)
    column = np.searchsorted(evidence.individuals, names)
    known_here = np.isin(names, evidence.individuals)
    truth = np.where(names == "", len(evidence.individuals), np.where(known_here, column, -1))
    classifies = any(evidence.classifiers)
    found = calibrate.fitted(evidence.similarity(queries), (lambda temperature: evidence.probability(queries, temperature)) if classifies else None, truth, names, wanted)
    print(f"identify.json: MAP@5 {found.map5:.4f} on {len(names)} photographs, {(names == '').sum()} of them of unknown whales", file=sys.stderr)
    return found
