"""8 bits: which models get a NAME.8bit.json, what one of them changes, and that no other one changes anything."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import toy
from solution import eight_bit, embed, engines, images, kept, onnx_engine, predict, quantize, recipe
from solution.files import Complaints, InputError
from submission import pack
from test_engines import needs_onnx, pictures, trained, unit

ROOT = Path(__file__).parents[1]
pytestmark = needs_onnx
SPEC = recipe.Spec("relu", 0, recipe.Model("test_resnet", pretrained="none"), train=recipe.Train(size=64))
FASTER = mock.patch.object(quantize, "faster", lambda whole, short, photographs: 2.0)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One for all tests of this file, so that the model is exported once."""
    with mock.patch.dict(os.environ, XDG_CACHE_HOME=str(tmp_path_factory.mktemp("cache"))):
        yield


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    weights = trained(SPEC, tmp_path_factory.mktemp("weights"))
    with FASTER:
        told = quantize.decided(SPEC, weights, pictures(24, 64))
    assert told.startswith("2.00 times as fast in 8 bits, similarities change by 0.0") and told.endswith(f": {weights / 'relu.8bit.json'}")
    return weights


@pytest.fixture
def weights(calibrated, tmp_path):
    return Path(shutil.copytree(calibrated, tmp_path / "weights"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = toy.competition(tmp_path_factory.mktemp("data") / "test")
    toy.scenarios(data)
    return data


def embeddings(weights, kind="onnx8", complaints=Complaints(strict=True), mirrored=False):
    return engines.made(SPEC, weights, "cpu", kind, complaints)(pictures(12, 64, seed=5), mirrored)


def similarities(rows):
    return unit(rows) @ unit(rows).T


# Graphs

def test_ranges_are_the_least_and_the_most_that_a_tensor_reaches(calibrated, tmp_path):
    """Against a graph that gives those tensors out as they are."""
    import onnx
    import onnxruntime

    photographs = pictures(9, 64, seed=3)
    graph = onnx_engine.graph_of(SPEC, calibrated)
    found = eight_bit.ranges(graph, photographs)
    model = onnx.load(eight_bit.prepared(graph, tmp_path))
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in found)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    reached = session.run(list(found), {"images": photographs})
    assert len(found) > 20
    np.testing.assert_allclose(list(found.values()), [(values.min(), values.max()) for values in reached], rtol=1e-4, atol=1e-5)


def test_every_convolution_but_the_first_three_has_weights_of_8_bits(calibrated):
    import onnx

    graph = onnx.load_from_string(eight_bit.quantised(onnx_engine.graph_of(SPEC, calibrated), eight_bit.fitting(SPEC, calibrated)))
    maker = {node.output[0]: node for node in graph.graph.node}
    types = {constant.name: constant.data_type for constant in graph.graph.initializer}
    weights = [types[maker[node.input[1]].input[0]] if node.input[1] in maker else types[node.input[1]] for node in graph.graph.node if node.op_type == "Conv"]
    assert len(weights) == 15 and weights == 3 * [onnx.TensorProto.FLOAT] + 12 * [onnx.TensorProto.INT8]


@pytest.mark.parametrize("mirrored", [False, True])
def test_8_bits_change_similarities_a_little(calibrated, mirrored):
    change = np.abs(similarities(embeddings(calibrated, mirrored=mirrored)) - similarities(embeddings(calibrated, "onnx", mirrored=mirrored)))
    assert 1e-4 < change.max() < 0.05


def test_what_is_noted_of_the_change_is_what_it_is(calibrated):
    whole, short = (similarities(engines.made(SPEC, calibrated, "cpu", kind)(pictures(24, 64))) for kind in ("onnx", "onnx8"))
    changes = [abs(whole[i, j] - short[i, j]) for i in range(24) for j in range(i)]
    noted = json.loads((calibrated / "relu.8bit.json").read_text())
    assert noted["photographs"] == 24 and noted["faster"] == 2.0
    np.testing.assert_allclose([noted["mean_change"], noted["largest_change"]], [np.mean(changes), np.max(changes)], rtol=0, atol=1e-6)


def test_another_process_with_only_the_float_graph_kept_gives_the_same_bits(calibrated, tmp_path):
    """So does this one from what is kept, and with other threads and batches."""
    (tmp_path / "cache" / "whale-ranking" / "onnx").mkdir(parents=True)
    shutil.copy(kept.folder("onnx") / onnx_engine.key_of(SPEC, calibrated), tmp_path / "cache" / "whale-ranking" / "onnx")
    code = ("import sys\nfrom pathlib import Path\nimport numpy as np\nfrom solution import engines, recipe\n"
            "spec, = recipe.specs(Path(sys.argv[1]))\n"
            "np.save(sys.argv[2], engines.made(spec, Path(sys.argv[1]), 'cpu', 'onnx8')(np.load(sys.argv[3])))")
    photographs = pictures(12, 64, seed=5)
    np.save(tmp_path / "photographs.npy", photographs)
    words = [sys.executable, "-c", code, calibrated, tmp_path / "rows.npy", tmp_path / "photographs.npy"]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = np.load(tmp_path / "rows.npy")
    np.testing.assert_array_equal(embeddings(calibrated), wanted)
    graph = onnx_engine.in_8_bits(onnx_engine.graph_of(SPEC, calibrated), eight_bit.fitting(SPEC, calibrated))
    for threads in (1, 3):
        engine = onnx_engine.OnnxEngine(SPEC, graph, threads)
        np.testing.assert_array_equal(np.concatenate([engine(photographs[:1]), engine(photographs[1:])]), wanted)


def test_a_graph_in_8_bits_is_made_once(calibrated, monkeypatch):
    embeddings(calibrated)
    monkeypatch.setattr(eight_bit, "quantised", mock.Mock(side_effect=AssertionError))
    embeddings(calibrated)


# What decides

@pytest.mark.parametrize("speed, change, why", [(1.09, 0, "1.09 times as fast"), (float("nan"), 0, "nan times as fast"), (2, 0.2, "change by 0.2"), (2, float("nan"), "change by nan")])
def test_what_is_not_faster_or_no_longer_the_same_model_stays_as_it_is(weights, monkeypatch, speed, change, why):
    monkeypatch.setattr(quantize, "faster", lambda *_: speed)
    found = iter([np.full(3, 0.5), np.full(3, 0.5 + change)])
    monkeypatch.setattr(quantize, "similarities", lambda _: next(found))
    told = quantize.decided(SPEC, weights, pictures(3, 64))
    assert why in told and told.endswith(": stays as it is") and not (weights / "relu.8bit.json").exists()


def test_a_model_that_onnx_runtime_cannot_have_in_8_bits_stays_as_it_is(weights, monkeypatch):
    monkeypatch.setattr(eight_bit, "ranges", mock.Mock(side_effect=TypeError("no such\nthing")))
    assert quantize.decided(SPEC, weights, pictures(3, 64)) == "stays as it is, ONNX Runtime cannot have it in 8 bits: TypeError: no such thing"
    assert not (weights / "relu.8bit.json").exists()


def test_the_ratio_is_the_median_of_rounds():
    spent = iter([2, 1, 9, 1, 3, 1, 2, 1, 1, 2, 4, 1, 3, 1])
    with mock.patch.object(quantize, "seconds", lambda engine, photographs: next(spent)):
        assert quantize.faster(None, None, None) == 3  # of 2, 9, 3, 2, 0.5, 4, 3


def test_without_a_file_a_model_runs_in_float_and_says_so(weights, capsys):
    (weights / "relu.8bit.json").unlink()
    rows = embeddings(weights)
    told = capsys.readouterr()
    assert told.out.startswith("relu: not in 8 bits, as there is no ") and told.out.count("\n") == 1 and not told.err
    np.testing.assert_array_equal(rows, embeddings(weights, "onnx"))


def broken(weights, **keys):
    path = weights / "relu.8bit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


TENSORS = {"tensors": ["a", "b"], "lowest": [0.0, 1.0]}
NO_FILES = {
    "other weights": (lambda w: trained(SPEC, w, seed=1), "belongs to other weights"),
    "another graph": (lambda w: broken(w, graph="0" * 64), "belongs to other weights, or was made with other packages"),
    "another processor": (lambda w: broken(w, processor="x86_64 amx_int8 of tomorrow"), "a processor with other instructions, 'x86_64 amx_int8 of tomorrow'"),
    "not a number": (lambda w: broken(w, **TENSORS, highest=[1.0, float("nan")]), "not valid JSON"),
    "a huge number": (lambda w: broken(w, **TENSORS, highest=[1.0, 10**400]), "not valid JSON"),
    "a number of 64 bits": (lambda w: broken(w, **TENSORS, highest=[1.0, 1e39]), "range of b"),
    "a range turned round": (lambda w: broken(w, **TENSORS, highest=[1.0, 0.5]), "range of b"),
    "a range too few": (lambda w: broken(w, **TENSORS, highest=[1.0]), "lengths"),
    "a word": (lambda w: broken(w, **TENSORS, highest=[1.0, "1.0.0"]), "highest is '1.0.0'"),
    "an unknown key": (lambda w: broken(w, run="rm"), "unknown key run"),
    "a long answer": (lambda w: broken(w, faster=["x" * 1000] * 500), "faster is"),
    "a list": (lambda w: (w / "relu.8bit.json").write_text("[1, 2]"), "table"),
    "half a file": (lambda w: (w / "relu.8bit.json").write_text('{"graph": "'), "not valid JSON"),
    "bytes": (lambda w: (w / "relu.8bit.json").write_bytes(bytes(range(256))), "not valid JSON"),
    "a deep well": (lambda w: (w / "relu.8bit.json").write_text("[" * 200_000), "not valid JSON"),
    "a large file": (lambda w: (w / "relu.8bit.json").write_text(" " * (1 << 21)), "no calibration"),
}


@pytest.mark.parametrize("harm, words", NO_FILES.values(), ids=NO_FILES)
def test_a_file_that_does_not_fit_is_one_line_and_the_model_runs_in_float(weights, capsys, harm, words):
    harm(weights)
    with pytest.raises(InputError, match="relu.8bit.json: ") as caught:
        embeddings(weights)
    assert words in str(caught.value) and len(str(caught.value)) < 600 and "\n" not in str(caught.value)
    assert words == "not valid JSON" or str(caught.value).endswith("; run python -m solution.quantize again")
    complaints = Complaints(strict=False)
    rows = embeddings(weights, complaints=complaints)
    assert complaints.count == 1 and capsys.readouterr().err.count("warning: relu: not in 8 bits: ") == 1
    np.testing.assert_array_equal(rows, embeddings(weights, "onnx"))


def test_a_file_without_a_tensor_that_is_needed_leaves_the_model_to_pytorch(weights, capsys):
    broken(weights, tensors=["a"], lowest=[0.0], highest=[1.0])
    assert engines.made(SPEC, weights, "cpu", "onnx8").kind == "torch"
    assert capsys.readouterr().err.count("warning: relu: PyTorch runs it, as ONNX Runtime could not: ValueError") == 1


def test_8_bits_without_the_packages_or_on_a_gpu_are_refused_with_what_helps(monkeypatch):
    with pytest.raises(InputError, match="--engine onnx8: ONNX Runtime is used on a CPU only; add --device cpu"):
        engines.chosen("onnx8", "cuda")
    assert engines.chosen("onnx8", "cuda", None, Complaints(strict=False)) == "torch"
    assert engines.chosen("onnx8", "cpu") == "onnx8" and engines.chosen("auto", "cpu") == "onnx"


# The command

def quantized(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["quantize", *map(str, words)])
    quantize.main()


def test_the_command_calibrates_on_drawn_photographs_as_they_are_embedded(data, weights, monkeypatch, capsys):
    (weights / "relu.8bit.json").unlink()
    with FASTER:
        quantized(monkeypatch, "--data", data, "--weights", weights, "--photographs", 12, "--seed", 3)
    assert capsys.readouterr().out.startswith("relu: 2.00 times as fast in 8 bits, ")
    first, noted = (weights / "relu.8bit.json").read_bytes(), json.loads((weights / "relu.8bit.json").read_text())
    drawn = quantize.sample(data, [SPEC], 12, 3)[embed.view_of(SPEC)]
    assert noted["photographs"] == len(drawn) == 12 and noted["tensors"]
    every = [images.Photographs([path], [embed.view_of(SPEC)])[0][0].tobytes() for path in images.listed(data).path]
    assert len({every.index(photograph.tobytes()) for photograph in drawn}) == 12
    with FASTER:
        quantized(monkeypatch, "--data", data, "--weights", weights, "--photographs", 12, "--seed", 3)
    assert (weights / "relu.8bit.json").read_bytes() == first
    assert (quantize.sample(data, [SPEC], 12, 4)[embed.view_of(SPEC)] != drawn).any()


def test_data_with_few_photographs_gives_all_and_with_one_is_refused(data, tmp_path):
    assert len(quantize.sample(data, [SPEC], 1000, 0)[embed.view_of(SPEC)]) == len(images.listed(data))
    with pytest.raises(InputError, match="metadata.csv, --photographs 1: makes 1 to calibrate on; 2 are the least"):
        quantize.sample(data, [SPEC], 1, 0)


def test_without_onnx_runtime_the_command_says_what_helps(data, weights, monkeypatch):
    monkeypatch.setattr(engines, "PACKAGES", ("no_such_runtime",))
    with pytest.raises(InputError, match="8 bits need ONNX Runtime: no_such_runtime not installed; python -m pip install no_such_runtime"):
        quantized(monkeypatch, "--data", data, "--weights", weights)
    assert (weights / "relu.8bit.json").exists()


# What else reads WEIGHTS

def predicted(data, weights, output, engine):
    words = ["--data", data, "--weights", weights, "--output", output, "--engine", engine, "--device", "cpu", "--workers", 0]
    predict.main(list(map(str, words)))
    return output


def test_a_prediction_in_8_bits_is_the_same_twice_and_near_that_in_float(data, calibrated, tmp_path):
    first, again, whole = (predicted(data, calibrated, tmp_path / f"{number}.csv", engine) for number, engine in enumerate(["onnx8", "onnx8", "onnx"]))
    assert first.read_bytes() == again.read_bytes() != whole.read_bytes()
    both = pd.read_csv(first).merge(pd.read_csv(whole), on=["query_id", "database_image_id"])
    assert np.abs(both.score_x - both.score_y).max() < 0.05 and len(both) > 0.8 * len(pd.read_csv(whole))


@pytest.mark.parametrize("engine", ["auto", "onnx", "torch"])
def test_no_other_engine_looks_at_the_file(data, weights, tmp_path, engine):
    (weights / "relu.8bit.json").write_text("nonsense")
    with_it = predicted(data, weights, tmp_path / "with.csv", engine)
    (weights / "relu.8bit.json").unlink()
    assert with_it.read_bytes() == predicted(data, weights, tmp_path / "without.csv", engine).read_bytes()


def test_it_is_no_model_and_not_packed(weights, tmp_path, monkeypatch):
    for name in ("with", "without"):
        assert recipe.specs(weights) == [SPEC]
        monkeypatch.setattr(sys, "argv", ["pack", "--weights", str(weights), "--output", str(tmp_path / f"{name}.zip")])
        pack.main()
        (weights / "relu.8bit.json").unlink(missing_ok=True)
    assert (tmp_path / "with.zip").read_bytes() == (tmp_path / "without.zip").read_bytes()
