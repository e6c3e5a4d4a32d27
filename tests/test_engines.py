"""What runs a model: the choice, ONNX Runtime's embeddings against PyTorch's, and the graphs that are kept."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

import toy
from solution import device, embed, engines, kept, models, onnx_engine, predict, recipe
from solution.files import Complaints, InputError
from solution.torch_engine import TorchEngine

ROOT = Path(__file__).parents[1]
needs_onnx = pytest.mark.skipif(any(engines.obstacle("cpu")), reason="onnxruntime or onnxscript is not installed")
PUBLISHED = {spec.name: spec for name in ("whaledo", "hwi") for spec in recipe.load(name).models}


def tiny(name="tiny", size=48, **model):
    wanted = recipe.Model("test_efficientnet", pretrained="none", **model)
    return recipe.Spec(name, 0, wanted, train=recipe.Train(size=size))


def trained(spec, weights, seed=0):
    """Weights as training leaves them: batch normalisations that know what they see. Untrained ones blow up rounding."""
    torch.manual_seed(seed)
    model = models.EmbeddingModel(spec.model)
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)):
        norm.momentum = None
    with torch.no_grad():
        model.train()(models.normalised(torch.from_numpy(pictures(12, spec.test_size)), spec.model))
    models.save(model, spec, weights)
    return weights


def pictures(count, size, seed=1):
    """Images (count, size, size, 3) of coarse patches, no two alike and none its own mirror image."""
    patch = np.arange(size) * 8 // size
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)[:, patch][:, :, patch].copy()


def unit(embeddings):
    return embeddings / np.linalg.norm(embeddings.astype(float), axis=1, keepdims=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all tests of this file, so that each model is exported once; a test that breaks it takes one of its own."""
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache"))):
        yield kept.folder(onnx_engine.ROOM)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, cache):
    return trained(tiny(), tmp_path_factory.mktemp("weights"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return kept.folder(onnx_engine.ROOM)


@pytest.fixture
def exports(monkeypatch):
    """The models that are exported from now on; the export itself is a graph of a few bytes."""
    names = []
    monkeypatch.setattr(onnx_engine, "exported", lambda spec, weights: names.append(spec.name) or f"graph of {spec.name}".encode())
    monkeypatch.setattr(onnx_engine, "OnnxEngine", lambda spec, graph, threads: graph)
    return names


# The choice

@needs_onnx
@pytest.mark.parametrize("asked, device, limit, wanted, told", [
    ("auto", "cpu", None, "onnx", "engine: onnx (on a CPU, with ONNX Runtime installed)\n"),
    ("auto", "cpu", 10800, "onnx", "engine: onnx (on a CPU, with ONNX Runtime installed)\n"),
    ("auto", "cpu", 599, "torch", "engine: torch (a time limit below 600 s leaves no time to export)\n"),
    ("auto", "cuda", None, "torch", "engine: torch (ONNX Runtime is used on a CPU only)\n"),
    ("onnx", "cpu", 10, "onnx", ""), ("torch", "cpu", None, "torch", ""), ("torch", "cuda", None, "torch", ""),
])
def test_the_choice_follows_from_device_and_time_limit_and_is_told(asked, device, limit, wanted, told, capsys):
    assert engines.chosen(asked, device, limit) == wanted
    assert capsys.readouterr().out == told


def test_without_the_packages_auto_is_torch_and_says_which_are_missing(monkeypatch, capsys):
    monkeypatch.setattr(engines, "PACKAGES", ("numpy", "no_such_runtime", "no_such_exporter"))
    assert engines.chosen("auto", "cpu") == "torch"
    assert capsys.readouterr().out == "engine: torch (no_such_runtime and no_such_exporter not installed)\n"


def test_onnx_without_the_packages_or_on_a_gpu_is_refused_with_what_helps(monkeypatch):
    with pytest.raises(InputError, match="--engine onnx: ONNX Runtime is used on a CPU only; add --device cpu"):
        engines.chosen("onnx", "cuda")
    monkeypatch.setattr(engines, "PACKAGES", ("no_such_runtime",))
    with pytest.raises(InputError, match="--engine onnx: no_such_runtime not installed; python -m pip install no_such_runtime, or take --engine auto"):
        engines.chosen("onnx", "cpu")


def test_a_prediction_that_is_not_strict_goes_on_without_onnx(monkeypatch, capsys):
    monkeypatch.setattr(engines, "PACKAGES", ("no_such_runtime",))
    complaints = Complaints(strict=False)
    assert engines.chosen("onnx", "cpu", None, complaints) == "torch" and complaints.count == 1
    assert "warning: --engine onnx: no_such_runtime not installed" in capsys.readouterr().err


# ONNX Runtime against PyTorch

def both(spec, weights, images, mirrored=False):
    found = {kind: engines.made(spec, weights, "cpu", kind) for kind in ("torch", "onnx")}
    assert isinstance(found["onnx"], onnx_engine.OnnxEngine)
    return [engine(images, mirrored) for engine in found.values()]


@needs_onnx
@pytest.mark.parametrize("spec", [
    tiny(), tiny("stripes", 128, parts=4, part_width=16, stages=(4,)), tiny("branches", parts=2, cut="branches", gem_p=3.74, grey=True, mean=(0.4, 0.5, 0.6))],
    ids=lambda spec: spec.name)
def test_both_engines_give_the_same_similarities(spec, cache, tmp_path):
    trained(spec, tmp_path)
    images = pictures(11, spec.test_size, seed=2)
    for mirrored in (False, True):
        ours, theirs = (unit(rows) for rows in both(spec, tmp_path, images, mirrored))
        assert ours.shape == theirs.shape and np.abs(ours - ours[0]).max() > 0.01
        for one, other in ((ours, theirs), (theirs, theirs)):
            np.testing.assert_allclose(one @ other.T, ours @ ours.T, rtol=0, atol=1e-4)


@needs_onnx
def test_a_mirrored_embedding_is_that_of_the_mirror_image(weights):
    images = pictures(5, 48)
    engine = engines.made(tiny(), weights, "cpu", "onnx")
    np.testing.assert_array_equal(engine(images, mirrored=True), engine(np.ascontiguousarray(images[:, :, ::-1])))
    assert np.abs(engine(images) - engine(images, mirrored=True)).max() > 0.01


@needs_onnx
def test_neither_threads_nor_batches_change_a_bit(weights):
    images, spec = pictures(21, 48), tiny()
    engines.made(spec, weights, "cpu", "onnx")
    graph = kept.read(onnx_engine.ROOM, onnx_engine.key_of(spec, weights))
    wanted = onnx_engine.OnnxEngine(spec, graph, 1)(images)
    for threads in (1, 2, 5, 40):
        engine = onnx_engine.OnnxEngine(spec, graph, threads)
        np.testing.assert_array_equal(engine(images), wanted)
        np.testing.assert_array_equal(np.concatenate([engine(images[:1]), engine(images[1:4]), engine(images[4:])]), wanted)


@needs_onnx
def test_an_engine_has_as_many_threads_as_there_are_cores(weights, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    engine = engines.made(tiny(), weights, "cpu", "onnx")
    assert engine.threads == device.cores() == 3 and engine.width == 112 and engine.spec == tiny()


@needs_onnx
def test_a_model_that_fails_while_it_runs_fails_as_with_pytorch(weights):
    engine = engines.made(tiny(), weights, "cpu", "onnx")
    with pytest.raises(RuntimeError, match="InvalidArgument"):
        engine(pictures(2, 32))


# One export a model

@needs_onnx
def test_two_exports_of_the_same_weights_are_the_same_bytes(weights):
    engines.made(tiny(), weights, "cpu", "onnx")
    assert onnx_engine.exported(tiny(), weights) == kept.read(onnx_engine.ROOM, onnx_engine.key_of(tiny(), weights))


@needs_onnx
def test_a_graph_that_is_kept_needs_neither_export_nor_torch(weights, cache):
    engines.made(tiny(), weights, "cpu", "onnx")
    code = ("import sys\nfrom pathlib import Path\nimport numpy as np\nfrom solution import engines, recipe\n"
            "(spec,) = recipe.specs(Path(sys.argv[1]))\n"
            "rows = engines.made(spec, Path(sys.argv[1]), 'cpu', 'onnx')(np.zeros((3, 48, 48, 3), np.uint8))\n"
            "print(rows.shape, sorted({'torch', 'timm', 'onnx', 'onnxscript', 'solution.models'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code, weights], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "(3, 112) []\n" and done.stderr == ""
    assert [path.name for path in cache.parent.parent.iterdir()] == ["whale-ranking"]  # nor does the runtime keep an identifier


def test_a_model_is_exported_once_whatever_it_is_called(own_cache, exports, tmp_path):
    for name in ("one", "other"):
        trained(tiny(name), tmp_path)
    assert onnx_engine.made(tiny("one"), tmp_path) == onnx_engine.made(tiny("one"), tmp_path) == b"graph of one"
    assert onnx_engine.made(tiny("other"), tmp_path) == b"graph of one" and exports == ["one"]


def test_other_weights_another_size_and_other_code_are_exported_anew(own_cache, exports, tmp_path, monkeypatch):
    for folder, seed in (("a", 0), ("b", 1)):
        trained(tiny(), tmp_path / folder, seed)
    wanted = [(tiny(), "a"), (tiny(), "b"), (tiny(size=64), "a"), (tiny(grey=True), "a"), (tiny(mean=(0, 0, 0)), "a"),
              (dataclasses.replace(tiny(), predict=recipe.Predict(test_size=96)), "a")]
    for count, (spec, folder) in enumerate(wanted, 1):
        onnx_engine.made(spec, tmp_path / folder)
        assert len(exports) == count
    monkeypatch.setattr(onnx_engine, "version", lambda package: "0.0")
    onnx_engine.made(tiny(), tmp_path / "a")
    assert len(exports) == len(wanted) + 1


def test_a_graph_that_is_not_as_it_was_kept_is_made_again(own_cache, exports, weights):
    onnx_engine.made(tiny(), weights)
    (path,) = own_cache.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert onnx_engine.made(tiny(), weights) == b"graph of tiny" and len(exports) == 2
    assert onnx_engine.made(tiny(), weights) == b"graph of tiny" and len(exports) == 2


def test_a_cache_that_cannot_be_used_stops_nothing(exports, weights, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for count in (1, 2):
        assert onnx_engine.made(tiny(), weights) == b"graph of tiny" and len(exports) == count
        assert "warning: onnx: nothing is kept for the next time: " in capsys.readouterr().err


# Where the export fails

@needs_onnx
def test_a_graph_that_is_not_exact_is_never_used_and_tried_once(own_cache, weights, monkeypatch, capsys):
    from solution import onnx_export

    tried = []
    monkeypatch.setattr(onnx_export, "difference", lambda spec, model, engine: tried.append(spec.name) or 6e-5)
    for _ in range(2):
        assert isinstance(engines.made(tiny(), weights, "cpu", "onnx"), TorchEngine)
        assert "warning: tiny: PyTorch runs it, as ONNX Runtime could not: its graph does not give PyTorch's embeddings" in capsys.readouterr().err
    assert tried == ["tiny"]
    monkeypatch.setattr(onnx_export, "difference", lambda spec, model, engine: float("nan"))
    assert onnx_engine.exported(tiny(), weights) == b""


@needs_onnx
def test_the_check_finds_a_graph_of_other_weights(weights, cache, tmp_path):
    from solution import onnx_export

    trained(tiny(), tmp_path, seed=5)
    engine = engines.made(tiny(), weights, "cpu", "onnx")
    assert onnx_export.difference(tiny(), models.load(tiny(), weights), engine) < 5e-5
    assert onnx_export.difference(tiny(), models.load(tiny(), tmp_path), engine) > 0.01


@needs_onnx
def test_an_exporter_that_gives_up_leaves_the_model_to_pytorch(own_cache, weights, monkeypatch, capsys):
    monkeypatch.setattr(torch.onnx, "export", mock.Mock(side_effect=TypeError("no such\nthing")))
    assert isinstance(engines.made(tiny(), weights, "cpu", "onnx"), TorchEngine)
    assert "warning: tiny: PyTorch runs it, as ONNX Runtime could not: TypeError: no such thing\n" in capsys.readouterr().err
    assert not own_cache.exists()


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"no npz"), lambda path: path.unlink(), lambda path: path.unlink() or path.mkdir()])
def test_damaged_weights_are_told_as_with_pytorch(harm, own_cache, tmp_path):
    harm(trained(tiny(), tmp_path) / "tiny.npz")
    for kind in ("torch", "onnx"):
        with pytest.raises(InputError, match="tiny.npz"):
            engines.made(tiny(), tmp_path, "cpu", kind)


# Predicting

@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = toy.competition(tmp_path_factory.mktemp("data") / "test")
    toy.scenarios(data)
    return data


def predicted(data, weights, output, engine, *more):
    options = ["--data", data, "--weights", weights, "--output", output, "--engine", engine, "--device", "cpu", "--workers", 0, "--no-cache", *more]
    predict.main([str(option) for option in options])
    return output


@needs_onnx
def test_a_prediction_is_the_same_by_both_engines_and_to_the_byte_by_the_same_one(data, weights, cache, tmp_path, capsys):
    cold = predicted(data, weights, tmp_path / "cold.csv", "auto")
    told = capsys.readouterr()
    assert "engine: onnx (on a CPU, with ONNX Runtime installed)\n" in told.out and "warning" not in told.err
    warm = predicted(data, weights, tmp_path / "warm.csv", "onnx")
    assert cold.read_bytes() == warm.read_bytes()
    onnx, eager = (pd.read_csv(path) for path in (warm, predicted(data, weights, tmp_path / "torch.csv", "torch")))
    both = onnx.merge(eager, on=["query_id", "database_image_id"])
    assert len(both) > 0.9 * len(onnx) == 0.9 * len(eager)
    np.testing.assert_allclose(both.score_x, both.score_y, rtol=0, atol=5e-5)


@needs_onnx
def test_embedding_and_predicting_choose_alike(data, weights, tmp_path, monkeypatch, capsys):
    predicted(data, weights, tmp_path / "s.csv", "auto", "--embeddings", tmp_path / "p")
    monkeypatch.setattr(sys, "argv", ["embed", "--data", str(data), "--weights", str(weights), "--output", str(tmp_path / "e"), "--device", "cpu", "--workers", "0", "--no-cache"])
    embed.main()
    assert capsys.readouterr().out.count("engine: onnx") == 2
    assert (tmp_path / "p" / "tiny.npz").read_bytes() == (tmp_path / "e" / "tiny.npz").read_bytes()


@needs_onnx
def test_an_export_that_takes_too_long_leaves_a_complete_file_before_the_limit(data, weights, tmp_path):
    code = ("import sys, time\nfrom solution import onnx_engine, predict\n"
            "onnx_engine.exported = lambda spec, weights: time.sleep(100)\npredict.main(sys.argv[1:])")
    options = ["--data", data, "--weights", weights, "--output", tmp_path / "s.csv", "--engine", "onnx", "--device", "cpu", "--workers", 0, "--time-limit", 8]
    done = subprocess.run([sys.executable, "-c", code, *map(str, options)], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 1 and "time is up" in done.stderr
    rows = pd.read_csv(tmp_path / "s.csv")
    assert set(rows.query_id) == set().union(*(pd.read_csv(path).query_id for path in (data / "queries").iterdir()))


# The published networks

def off(one, other):
    return np.linalg.norm(unit(one) - unit(other), axis=1).max()


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("name", ["b2_380", "v2m_380", "densenet121", "vgg16", "seresnext50", "resnet50", "inception4"])
def test_a_published_network_is_as_exact_as_in_another_memory_layout(name, tmp_path):
    """Random weights amplify rounding, so 1e-4 means nothing here: the yardstick is PyTorch against itself, channels first and last."""
    from solution import onnx_export

    wanted = dataclasses.replace(PUBLISHED[name].model, pretrained="none", parts=1)
    spec = recipe.Spec(name, 0, wanted, train=recipe.Train(size=128))
    model = models.load(spec, trained(spec, tmp_path))
    engine = onnx_engine.OnnxEngine(spec, onnx_export.graph_of(spec, model), 2)
    pixels = models.normalised(torch.from_numpy(pictures(6, 128)), spec.model)
    with torch.no_grad():
        first = model(pixels.contiguous()).numpy()
        last = model.to(memory_format=torch.channels_last)(pixels).numpy()
    assert off(engine(pictures(6, 128)), last) < 3 * off(first, last) + 1e-6 < 0.01
    assert np.abs(unit(last) - unit(last)[0]).max() > 0.01


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "tf_efficientnet_lite1"])
def test_pretrained_networks_agree_within_the_promise(backbone, own_cache, tmp_path):
    from solution import weights

    spec = recipe.Spec("m", 0, recipe.Model(backbone, pretrained="embedded", mean=(0.5,) * 3, std=(0.5,) * 3), train=recipe.Train(size=224))
    model = models.EmbeddingModel(spec.model)
    weights.load_pretrained(model, spec.model)
    models.save(model, spec, tmp_path)
    ours, theirs = both(spec, tmp_path, pictures(6, 224))
    assert off(ours, theirs) < 5e-5
