"""A small run of odd photographs, command by command: two whales, some photographs black, white or the same as others. And 8 bits and ONNX
of constant photographs and dead models. No file says nan or inf, and numpy warns of nothing."""

import io
import itertools
import os
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import numbers_said
import toy
import toy_training as toying
from eval import ensembles, folds, leaderboard, report, score, summary
from eval.files import write_table
from solution import eight_bit, embed, engines, explain, fusion, heat, models, onnx_engine, predict, quantize, recipe
from solution.files import InputError
from test_engines import needs_onnx, pictures, trained

pytestmark = [pytest.mark.filterwarnings("error::RuntimeWarning")]
NAMED = {"model": {"parts": 2, "part_width": 8, "cut": "branches"}, "head": {"kind": "linear", "total": True}}


def odd_photographs(path, n_whales=2, each=(9, 9)):
    """Of every three photographs of a whale one is black or white and one the same as another whale's."""
    data = toy.competition(path, n_whales=n_whales, images_per_whale=each, size=(40, 60))
    table = pd.read_csv(data / "metadata.csv", dtype=str).sort_values(["whale_id", "image_id"])
    for number, row in enumerate(table.itertuples()):
        if number % 3 == 0:
            Image.new("RGB", (int(row.width), int(row.height)), ["black", "white"][number % 2]).save(data / row.path)
        elif number % 3 == 1 and number > 1:
            shutil.copy(data / table.path.iloc[1], data / row.path)
    return data


def said(main, *words):
    """What a command says on both streams; it runs in this process and must end well."""
    text = io.StringIO()
    with mock.patch.object(sys, "argv", ["command", *map(str, words)]), redirect_stdout(text), redirect_stderr(text):
        main()
    return text.getvalue()


def run_of(tmp_path, protocol, also, **train):
    """RUN of an odd data directory up to its report, and all that its commands said."""
    data, run = odd_photographs(tmp_path / "data", *((2, (9, 9)) if protocol == "stratified" else (6, (3, 6)))), tmp_path / "runs" / "odd"
    told = said(folds.main, data, "--output", run / "folds", "--protocol", protocol, "--n-folds", 2)
    fold, out, more = run / "folds/0", run / "fold0", []
    training, named = fold / "train", protocol == "identify"
    if named:
        told += said(folds.main, fold / "train", "--output", out / "inner", "--protocol", "identify")
        training, more = out / "inner/0/train", ["--validate", out / "inner/0"]
    finished = toying.train(toying.write_recipe(tmp_path / "recipe.yaml", batch_size=4, epochs=2, also=also, **train), training, out / "weights", *more)
    assert finished.code == 0, finished.stderr
    chances = ["--probabilities", out / "probabilities.csv"] if named else []
    words = ["--data", fold / "test", "--weights", out / "weights", "--output", out / "submission.csv", "--embeddings", out / "embeddings", "--timings", out / "timings.json", "--engine", "torch", "--device", "cpu", *chances]
    told += finished.stdout + finished.stderr + said(lambda: predict.main([str(word) for word in words]))
    told += said(score.main, out / "submission.csv", fold / "truth.csv", "--json", out / "score.json", "--per-query", out / "per_query.csv", *chances)
    write_table(pd.DataFrame({"step": ["train fold 0"], "seconds": [0.0], "peak_mb": [1]}), run / "summary.csv")
    return run, told


def reported(run, told):
    told += said(summary.main, run) + said(report.main, run, "--output", run / "report.html")
    assert numbers_said.wrong(run.parent) == [] and not numbers_said.WORDS.search(told), told
    return run


@pytest.mark.parametrize("protocol, also", [("stratified", {}), pytest.param("identify", NAMED, marks=pytest.mark.slow)])
def test_a_run_of_constant_and_duplicate_photographs_says_no_nan_anywhere(tmp_path, protocol, also):
    run = reported(*run_of(tmp_path, protocol, also))
    if protocol == "stratified":
        table = pd.read_csv(run / "fold0/submission.csv")
        assert table.score.between(1e-10, 1).all() and (table.groupby("query_id").score.diff().dropna() < 0).all()
    else:
        table = pd.read_csv(run / "fold0/probabilities.csv")
        assert table.probability.between(0, 1).all() and (table.groupby("Image").probability.sum() < 1 + 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("protocol, also", [("stratified", {}), ("stratified", toying.HUMPBACK)])
def test_so_does_a_run_with_ensembles_pictures_and_a_leaderboard(tmp_path, protocol, also):
    run, told = run_of(tmp_path, protocol, {**also, "predict": {"mirror": "concatenate"}})
    told += said(ensembles.main, run) + said(leaderboard.main, run.parent / "leaderboard.csv")
    told += said(explain.main, "--data", run / "folds/0/test", "--weights", run / "fold0/weights", "--submission", run / "fold0/submission.csv", "--output", run / "fold0/explain", "--device", "cpu", "--workers", 0)
    reported(run, told)


def test_embeddings_that_are_no_numbers_are_told_and_leave_no_trace_in_any_file(tmp_path, monkeypatch):
    """As of half precision that overflows in the models of a finished training."""
    from solution.torch_engine import TorchEngine

    whole = TorchEngine.embeddings
    monkeypatch.setattr(TorchEngine, "embeddings", lambda self, batch, mirrored: whole(self, batch, mirrored) * torch.tensor([float("nan")] + [1.0] * (self.width - 1)))
    data = odd_photographs(tmp_path / "data")
    weights = tmp_path / "weights"
    finished = toying.train(toying.write_recipe(tmp_path / "recipe.yaml", batch_size=4, epochs=1, also=NAMED), data, weights)
    told = said(embed.main, "--data", data, "--weights", weights, "--output", tmp_path / "embeddings", "--engine", "torch", "--device", "cpu", "--no-cache")
    assert finished.code == 0 and "18 of 18 embeddings are not finite" in told and numbers_said.wrong(tmp_path) == []


# 8 bits and ONNX Runtime

CONTENTS, DEAD = ("noise", "black", "white"), ("nothing", "a channel", "a layer", "the neck", "huge activations")
SPEC = recipe.Spec("relu", 0, recipe.Model("test_resnet", pretrained="none"), train=recipe.Train(size=64))


@pytest.fixture
def cache(tmp_path):
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(tmp_path / "cache")):
        yield


def killed(weights, dead):
    """Sets what is dead of the model to 0, or its first layer to 1e30."""
    model = models.load(SPEC, weights)
    part, value = {"a channel": ("conv1.weight", 0), "a layer": ("conv2", 0), "the neck": ("necks", 0), "huge activations": ("conv1.weight", 1e30)}.get(dead, ("none", 0))
    for name, tensor in model.state_dict().items():
        if part in name:
            (tensor[0] if dead == "a channel" else tensor).fill_(value)
    models.save(model, SPEC, weights)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("content, dead", list(itertools.product(CONTENTS, DEAD)))
def test_constant_photographs_and_dead_models_are_finite_in_8_bits_or_refused(tmp_path, cache, content, dead):
    weights = trained(SPEC, tmp_path / "weights")
    killed(weights, dead)
    photographs = {"noise": pictures(6, 64), "black": np.zeros((6, 64, 64, 3), np.uint8), "white": np.full((6, 64, 64, 3), 255, np.uint8)}[content]
    with mock.patch.object(quantize, "faster", lambda *_: 2.0):
        told = quantize.decided(SPEC, weights, photographs)
    assert "\n" not in told and numbers_said.wrong(weights) == []
    written = (weights / "relu.8bit.json").is_file()
    assert written == ("stays as it is" not in told)
    kinds = ("torch", "onnx", "onnx8") if written else ("torch", "onnx")
    rows = [fusion.combined([(replace(SPEC.predict, mirror="off"), {"plain": engines.made(SPEC, weights, "cpu", one)(photographs)})]) for one in kinds]
    assert all(np.isfinite(each).all() for each in rows)
    if dead != "huge activations":
        np.testing.assert_allclose(np.linalg.norm(rows[0] - rows[1], axis=1), 0, atol=1e-3)
    if written:
        assert np.abs(quantize.similarities(rows[2]) - quantize.similarities(rows[0])).mean() <= quantize.MOST + 1e-6


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("end", [np.inf, np.nan, 3.3e38])
def test_ranges_that_are_no_numbers_leave_the_model_as_it_is(tmp_path, cache, end, monkeypatch):
    weights, found = trained(SPEC, tmp_path / "weights"), eight_bit.ranges
    monkeypatch.setattr(eight_bit, "ranges", lambda *given: {name: (low, end if number == 20 else high) for number, (name, (low, high)) in enumerate(found(*given).items())})
    monkeypatch.setattr(quantize, "faster", lambda *_: 2.0)
    told = quantize.decided(SPEC, weights, pictures(3, 64))
    assert told.startswith("stays as it is, ONNX Runtime cannot have it in 8 bits") and "two numbers of 32 bits" in told


@pytest.mark.parametrize("maps, slopes", [(1e30, 1e30), (np.inf, 0.0), (np.nan, 1.0), (1e-30, 1e-30), (0.0, 1.0)])
def test_heat_of_any_activations_and_slopes_is_a_number(maps, slopes):
    given = [torch.full((1, 3, 2, 2), 2.0) for _ in range(2)]
    for tensor, value in zip(given, (maps, slopes)):
        tensor[0, :, 0, 0] = value
    hot = heat.layer_cam(*given)
    assert hot.isfinite().all() and (hot >= 0).all() and hot[0, 1, 1] == 12


@needs_onnx
@pytest.mark.slow
def test_a_model_of_zeros_is_exact_in_onnx_runtime_and_like_nothing(tmp_path, cache):
    weights = trained(SPEC, tmp_path / "weights")
    killed(weights, "the neck")
    rows = onnx_engine.made(SPEC, weights)(pictures(3, 64))
    assert (rows == 0).all() and (quantize.similarities(rows) == 0).all()


def test_weights_that_are_no_numbers_run_in_no_engine(tmp_path, cache):
    weights = trained(SPEC, tmp_path / "weights")
    with np.load(weights / "relu.npz") as arrays:
        broken = dict(arrays)
    broken["necks.0.0.weight"][0] = np.nan
    np.savez(weights / "relu.npz", **broken)
    for engine in ("torch", "onnx", "onnx8"):
        with pytest.raises(InputError, match="relu.npz: array necks.0.0.weight holds numbers that are not finite"):
            engines.made(SPEC, weights, "cpu", engine)
