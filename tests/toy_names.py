"""Toy weights that name individuals: a toy competition cut twice, models of random weights, their galleries, classifiers and identify.json.

    import toy_names
    fold = toy_names.fold(tmp_path, *specs)       # an `identify` fold with weights/ beside its test/ and truth.csv

The gallery is the whole training part, and everything counts in a score. Models whose head has no `total` have no classifier.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

import toy
from eval import folds
from solution import gallery, identify, models, recipe, validate
from test_embed import ensemble, tiny

COUNTS = {"temperature": 2.2, "c1": 1.0, "c2": 2.0, "c3": 0.2, "theta_f": 0.9, "theta_p": 0.3}


def striped(name: str, position: int, size: int, backbone: str = "test_efficientnet") -> recipe.Spec:
    """A tiny model as Humpback's: stripes with features of their own, and no mirror images."""
    return tiny(name, position, size, model={"backbone": backbone, "stages": [4], "parts": 2, "part_width": 8}, head={"total": True}, predict={"mirror": "off"})


def fold(path: Path, *specs: recipe.Spec) -> Path:
    """Writes path/data, path/folds and path/inner; returns path/folds/0."""
    outer = folds.make(toy.competition(path / "data", n_whales=15), path / "folds", "identify") / "0"
    inner = folds.make(outer / "train", path / "inner", "identify") / "0"
    weights = ensemble(outer / "weights", *specs)
    for spec in specs:
        if spec.head.total:
            gallery.write_classifier(classifier(inner / "train", spec), weights, spec.name)
    validate.ship(weights, list(specs), recipe.Identify(), inner / "train", validate.inner_fold(inner), validate.further_gallery(outer / "train"), "cpu", 0)
    identify.write(replace(identify.read(weights / "identify.json"), **COUNTS), weights / "identify.json")
    return outer


def classifier(data: Path, spec: recipe.Spec) -> gallery.Classifier:
    """A random one for the individuals of a data directory."""
    whales, random = np.setdiff1d(gallery.labelled(data).whale_id.to_numpy(str), ""), np.random.default_rng(0)
    weight, bias = (random.normal(size=shape).astype(np.float32) for shape in ((len(whales), models.EmbeddingModel(spec.model).width), len(whales)))
    return gallery.Classifier(whales, weight, bias)
