"""The same feature maps in the organisers' runtime as in today's: the stages that the published recipes use of each backbone, with the
same random weights, in float64."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from solution import models, recipe

ROOT = Path(__file__).parents[1]
PUBLISHED = {spec.name: spec.model for name in ("whaledo", "hwi") for spec in recipe.load(name).models}
FEATURES = """
import sys, numpy as np, torch
from pathlib import Path
from solution import models, recipe
folder = Path(sys.argv[1])
(spec,) = recipe.specs(folder)
with np.load(folder.parent / "images.npz") as file, torch.no_grad():
    images = models.normalised(torch.from_numpy(file["images"]), spec.model)
    maps = models.load(spec, folder).backbone.double()(images.double())  # untrained float32 features are rounding, amplified
    np.save(sys.argv[2], np.concatenate([each.numpy().ravel() for each in maps]))
"""


def features(python: Path, folder: Path) -> np.ndarray:
    output = folder.parent / "features.npy"
    done = subprocess.run([python, "-c", FEATURES, folder, output], cwd=ROOT, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(output)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_gives_the_same_features_in_the_official_runtime(name, tmp_path, organisers_python):
    spec = recipe.Spec(name, 0, dataclasses.replace(PUBLISHED[name], pretrained="none", parts=1), train=recipe.Train(size=128))
    torch.manual_seed(0)
    model = models.EmbeddingModel(spec.model)
    images = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)):
        norm.momentum = None  # the mean of what it sees: untrained statistics let values grow until rounding decides
    with torch.no_grad():
        model.train()(models.normalised(torch.from_numpy(images), spec.model))
    models.save(model, spec, tmp_path / "weights")
    np.savez(tmp_path / "images.npz", images=images)
    today, official = (features(python, tmp_path / "weights") for python in (Path(sys.executable), organisers_python))
    assert today.shape == official.shape and np.isfinite(today).all() and np.ptp(today) > 0
    np.testing.assert_allclose(official, today, rtol=0, atol=1e-9 * np.abs(today).max())
