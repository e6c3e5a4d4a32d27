"""Packing tiny models: what is in the zip, what half precision does, in which order models run, what a damaged zip does."""

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import toy
import toy_names
from eval import score
from solution import centres, engines, gallery, losses, predict, recipe
from submission import measure, pack
from test_embed import ensemble, tiny

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
# A limit too short to export models for ONNX Runtime, which every folder would do anew.
ALONE = {**{key: value for key, value in ENVIRONMENT.items() if key != "PYTHONPATH"}, "SUBMISSION_TIME_LIMIT": "500"}


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """test/, truth.csv, and weights/ of two models among what else a training leaves."""
    fold = tmp_path_factory.mktemp("fold")
    toy.scenarios(toy.competition(fold / "test")).to_csv(fold / "truth.csv", index=False)
    weights = ensemble(fold / "weights", tiny("first", 0, 32), tiny("second", 1, 48))
    (weights / "first.log.csv").write_text("epoch,seconds\n0,1.0\n")
    (weights / "provenance.json").write_text('{"command": "python -m solution.train /home/me", "seed": 3, "commit": "abc"}')
    (weights / "first.optimiser.pt").write_bytes(b"state")
    centres.write(losses.Objective(1, 16, torch.tensor([2, 1]), 0, recipe.Head()), np.array(["a", "b"]), weights, "first")
    (weights / ".git").mkdir()
    return fold


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """As `fold`, for names: `bare` without a classifier, `striped` with all."""
    fold = toy_names.fold(tmp_path_factory.mktemp("named"), tiny("bare", 0, 32), toy_names.striped("striped", 1, 64))
    for precision in ("half", "full"):
        done = packed(fold, fold / f"{precision}.zip", "--precision", precision)
        assert done.returncode == 0, done.stderr
    return fold


def packed(fold, output, *options, **environment):
    words = [sys.executable, "-m", "submission.pack", "--weights", fold / "weights", "--output", output, "--device", "cpu", *options]
    return subprocess.run(list(map(str, words)), cwd=ROOT, env={**ENVIRONMENT, **environment}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def archives(fold):
    """half.zip and full.zip."""
    for precision in ("half", "full"):
        done = packed(fold, fold / f"{precision}.zip", "--precision", precision)
        assert done.returncode == 0, done.stderr
    return fold


def unpacked(archive, folder):
    zipfile.ZipFile(archive).extractall(folder)
    return folder


def ready(archives, folder, name="half.zip"):
    """An unpacked submission with the fold's data."""
    unpacked(archives / name, folder)
    shutil.copytree(archives / "test", folder / "data")
    return folder


def main(folder, *before, **environment):
    return subprocess.run([sys.executable, *before, "main.py"], cwd=folder, env={**ALONE, **environment}, capture_output=True, text=True)


def one_line(done, words, code=2):
    assert done.returncode == code and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr, done.stderr


# What is in it

def test_the_zip_holds_main_the_inference_path_and_the_weights_and_nothing_else(archives):
    names = zipfile.ZipFile(archives / "half.zip").namelist()
    weights = {f"weights/{name}.{kind}" for name in ("first", "second") for kind in ("json", "npz")}
    code = {name for name in names if name.startswith("solution/")}
    assert set(names) == {"main.py", "manifest.json", "MODEL_CARD.md"} | weights | code and names == sorted(names)
    assert not any(word in name for name in code for word in ("train", "fitting", "heads", "augment", "weights", "validate", "calibrate", "matches"))


def test_the_zip_runs_alone_and_uses_every_module_in_it(archives, tmp_path):
    folder = ready(archives, tmp_path / "run")
    code = ("import json, os, runpy, sys\n"
            "files = lambda: {name: getattr(module, '__file__', None) for name, module in sys.modules.items()}\n"
            "os._exit = lambda status: print(json.dumps(files()))\n"
            "runpy.run_path('main.py', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env={**ALONE, "SUBMISSION_TIME_LIMIT": "5000", "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and not list(folder.rglob("embeddings"))  # nothing is kept elsewhere, and no embeddings at all
    loaded = {name: file for name, file in json.loads(done.stdout.splitlines()[-1]).items() if name.split(".")[0] in ("solution", "eval", "submission")}
    packed_code = {name for name in zipfile.ZipFile(archives / "half.zip").namelist() if name.startswith("solution/")}
    spare = {"solution/onnx_export.py" if any(engines.obstacle("cpu")) else "solution/torch_engine.py",
             "solution/places.py"}  # of models that look for local evidence, which test_local packs
    assert {Path(file).relative_to(folder).as_posix() for file in loaded.values()} == packed_code - spare
    evaluation = score.evaluate(folder / "submission" / "submission.csv", archives / "truth.csv")
    assert evaluation.breaches == [] and evaluation.warnings == []


def test_the_same_weights_packed_again_give_the_same_bytes(fold, archives, tmp_path):
    shutil.copytree(fold / "weights", tmp_path / "weights")  # with other times
    os.utime(tmp_path / "weights" / "first.npz", (1, 1))
    assert packed(tmp_path, tmp_path / "there" / "again.zip").returncode == 0
    assert (tmp_path / "there" / "again.zip").read_bytes() == (archives / "half.zip").read_bytes()
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["again.card.md", "again.zip"]


def test_the_manifest_tells_the_files_and_where_the_weights_come_from(archives):
    archive = zipfile.ZipFile(archives / "half.zip")
    manifest = json.loads(archive.read("manifest.json"))
    assert set(manifest["files"]) == set(archive.namelist()) - {"manifest.json"}
    for name, told in manifest["files"].items():
        assert told == {"size": len(archive.read(name)), "sha256": hashlib.sha256(archive.read(name)).hexdigest()}
    assert manifest["time_limit"] == 10800 and manifest["trained"] == {"seed": 3, "commit": "abc"}
    assert manifest["half_precision"] == "not measured" and [model["name"] for model in manifest["models"]] == ["first", "second"]


def test_models_that_are_not_trained_yet_are_told(fold, tmp_path):
    shutil.copytree(fold / "weights", tmp_path / "weights")
    (tmp_path / "weights" / "recipe.yaml").write_text("models: {first: {model: {backbone: x}}, second: {model: {backbone: x}}, third: {model: {backbone: x}}}")
    done = packed(tmp_path, tmp_path / "s.zip")
    assert done.returncode == 0 and "no weights of third yet" in done.stdout + done.stderr


def test_arrays_that_need_unpickling_are_refused(fold, tmp_path):
    shutil.copytree(fold / "weights", tmp_path / "weights")
    np.savez(tmp_path / "weights" / "first.npz", evil=np.array([print], dtype=object))
    one_line(packed(tmp_path, tmp_path / "s.zip"), "first.npz: not a readable npz of plain arrays")
    assert not (tmp_path / "s.zip").exists()


def test_what_names_individuals_travels_too_and_answers_as_the_weights_do(named, tmp_path):
    names = {name for name in zipfile.ZipFile(named / "half.zip").namelist() if name.startswith("weights/")}
    assert names == {f"weights/{name}" for name in ("bare.json", "bare.npz", "striped.json", "striped.npz", "identify.json", "gallery/bare.npz", "gallery/striped.npz", "classifier/striped.npz")}
    folder = ready(named, tmp_path / "run", "full.zip")
    done = main(folder)
    assert done.returncode == 0 and "names with bare, striped" in done.stdout, done.stderr
    assert (folder / "submission" / "submission.csv").read_bytes() == predicted(named, named / "weights", tmp_path)


def predicted(fold, weights, folder):
    """What solution.predict writes of the fold."""
    options = {"--data": fold / "test", "--weights": weights, "--output": folder / "predicted.csv", "--device": "cpu", "--workers": 0}
    predict.main([str(word) for option in options.items() for word in option])
    return (folder / "predicted.csv").read_bytes()


def test_galleries_and_classifiers_are_rounded_and_come_back_as_float32(named, tmp_path):
    there = unpacked(named / "half.zip", tmp_path) / "weights"
    for name, matrix in (("gallery/bare.npz", "embedding"), ("gallery/striped.npz", "embedding"), ("classifier/striped.npz", "weight")):
        given, rounded = (dict(np.load(path / name)) for path in (named / "weights", there))
        assert rounded.pop(matrix).dtype == np.float16 and given.pop(matrix).dtype == np.float32
        assert set(given) == set(rounded) and all(np.array_equal(given[key], rounded[key]) for key in given)
    full, half = (gallery.read(path, ["bare", "striped"]).embeddings for path in (named / "weights", there))
    for name, rows in full.items():
        assert half[name].dtype == np.float32 and not np.array_equal(half[name], rows)
        np.testing.assert_allclose(half[name], rows, rtol=2.0**-10, atol=2.0**-25)
        np.testing.assert_allclose(np.linalg.norm(half[name], axis=1), 1, atol=2.0**-22)  # else no photograph would be like itself
    assert (there / "identify.json").read_bytes() == (named / "weights" / "identify.json").read_bytes()


def test_weights_that_name_packed_again_give_the_same_bytes(named, tmp_path):
    shutil.copytree(named / "weights", tmp_path / "weights")
    assert packed(tmp_path, tmp_path / "again.zip").returncode == 0
    assert (tmp_path / "again.zip").read_bytes() == (named / "half.zip").read_bytes()


def test_a_recipe_that_names_individuals_without_identify_json_is_told(named, tmp_path):
    shutil.copytree(named / "weights", tmp_path / "weights")
    (tmp_path / "weights" / "recipe.yaml").write_text("protocol: identify\nmodels: {bare: {model: {backbone: x}}, striped: {model: {backbone: x}}}")
    assert "warning" not in packed(tmp_path, tmp_path / "s.zip").stdout
    (tmp_path / "weights" / "identify.json").unlink()
    done = packed(tmp_path, tmp_path / "s.zip")
    assert done.returncode == 0 and "has no identify.json; what is packed names no individuals" in done.stdout
    one_line(packed(tmp_path, tmp_path / "s.zip", "--fold", named), "identify.json: no such file")


@pytest.mark.parametrize("break_it, words", [
    (lambda weights: (weights / "gallery" / "striped.npz").unlink(), "gallery/striped.npz: "),
    (lambda weights: shutil.rmtree(weights / "gallery"), "holds no gallery"),
    (lambda weights: (weights / "identify.json").write_text("{}"), "identify.json: not an identification"),
    (lambda weights: (weights / "classifier" / "striped.npz").write_bytes(b"PK"), "classifier/striped.npz: not a readable npz"),
])
def test_what_could_not_name_anybody_is_not_packed(named, tmp_path, break_it, words):
    shutil.copytree(named / "weights", tmp_path / "weights")
    break_it(tmp_path / "weights")
    one_line(packed(tmp_path, tmp_path / "s.zip"), words)
    assert not (tmp_path / "s.zip").exists()


def test_without_weights_or_with_a_fold_of_none_packing_is_refused(fold, tmp_path):
    one_line(packed(tmp_path, tmp_path / "s.zip"), "no models here")
    one_line(packed(fold, tmp_path / "s.zip", "--fold", tmp_path), "truth.csv: no such file")
    assert list(tmp_path.iterdir()) == []


# Half precision

def test_half_precision_rounds_the_weights_and_keeps_vectors_and_full_precision_keeps_all(archives, tmp_path):
    half, full = (unpacked(archives / f"{name}.zip", tmp_path / name) / "weights" for name in ("half", "full"))
    for name in ("first.npz", "second.npz"):
        given, rounded, kept = (dict(np.load(path / name)) for path in (archives / "weights", half, full))
        assert set(given) == set(rounded) == set(kept)
        for key, value in given.items():
            assert kept[key].dtype == value.dtype and np.array_equal(kept[key], value)
            assert rounded[key].dtype == (np.float16 if value.ndim >= 2 else value.dtype)
            assert (np.abs(rounded[key].astype(float) - value) <= np.maximum(np.abs(value) * 2.0**-11, 2.0**-25)).all()
    assert half.joinpath("first.npz").stat().st_size < 0.75 * full.joinpath("first.npz").stat().st_size  # tiny models are mostly zip headers


@pytest.mark.parametrize("value", [70000.0, np.inf, np.nan])
def test_what_float16_cannot_hold_stays(value):
    array = np.full((2, 2), value, np.float32)
    assert pack.halved(array) is array


def test_the_change_that_half_precision_makes_is_that_of_naive_sets(fold):
    judge = measure.judge_of(fold, recipe.specs(fold / "weights"), "cpu")
    random, n = np.random.default_rng(0), len(judge.image_ids)
    full = {name: {key: random.normal(size=(n, 6)).astype(np.float32) for key in ("plain", "mirror")} for name in judge.specs}
    half = {name: {key: value + random.normal(size=value.shape).astype(np.float32) for key, value in parts.items()} for name, parts in full.items()}
    answers = [judge.answering(fold / "weights")(parts, list(judge.specs)) for parts in (full, half)]
    found = measure.change(judge, *answers)
    rankings = [set(zip(table.query_id, table.database_image_id)) for table in answers]
    assert found["share_that_differs"] == pytest.approx(1 - len(rankings[0] & rankings[1]) / len(rankings[0])) and found["share_that_differs"] > 0
    values = [scored(table, fold) for table in answers]
    assert [found["full"], found["half"]] == pytest.approx(values) and values[0] != values[1]


def test_the_change_of_names_is_that_of_a_naive_loop(named):
    judge = measure.judge_of(named, recipe.specs(named / "weights"), "cpu")
    full, random = judge.embeddings(named / "weights")[0], np.random.default_rng(0)
    other = {name: {key: value + 0.3 * random.normal(size=value.shape).astype(np.float32) for key, value in parts.items() if key != "image_id"} for name, parts in full.items()}
    one, two = (judge.answering(named / "weights")(parts, list(judge.specs)) for parts in (full, other))
    found = measure.change(judge, one, two)
    differ = [a != b for a, b in zip(one.Id, two.Id)]
    assert found["share_that_differs"] == sum(differ) / len(differ) and 0 < sum(differ)
    truth = dict(pd.read_csv(named / "truth.csv").itertuples(index=False))
    for table, value in ((one, found["full"]), (two, found["half"])):
        places = [(names.split() + [truth[image]]).index(truth[image]) for image, names in zip(table.Image, table.Id)]
        assert value == pytest.approx(sum(1 / (place + 1) for place in places if place < 5) / len(truth))
        assert value == pytest.approx(scored(table, named))


def scored(table, fold):
    table.to_csv(fold / "answers.csv", index=False)
    return score.evaluate(fold / "answers.csv", fold / "truth.csv").per_query.strict.mean()


# The order of the models

def test_models_run_in_the_order_of_what_they_add_per_second():
    value = {(): 0.0, ("a",): 0.4, ("b",): 0.3, ("c",): 0.1, ("a", "b"): 0.45, ("a", "c"): 0.44, ("b", "c"): 0.5, ("a", "b", "c"): 0.52}
    order = measure.greedy({"a": 4.0, "b": 1.0, "c": 2.0}, lambda names: value[tuple(sorted(names))])
    assert order == [("b", 0.3), ("c", 0.5), ("a", 0.52)]  # .3 a second; then .1 against .0375


def test_of_two_models_that_only_harm_the_slow_one_comes_last():
    value = lambda names: 0.5 * ("good" in names) - 0.01 * len(set(names) - {"good"})
    for names in itertools.permutations(["quick", "good", "slow"]):
        seconds = {name: {"quick": 1.0, "good": 9.0, "slow": 5.0}[name] for name in names}
        assert [name for name, _ in measure.greedy(seconds, value)] == ["good", "quick", "slow"]


@pytest.mark.parametrize("asks, metric, counted", [("fold", "MAP@20", "top-20 rows"), ("named", "MAP@5", "photographs' five names")])
def test_a_fold_orders_and_measures_once_and_the_zip_runs_in_that_order(request, tmp_path, asks, metric, counted):
    fold = request.getfixturevalue(asks)
    runs = [packed(fold, tmp_path / f"{n}.zip", "--fold", fold, XDG_CACHE_HOME=str(tmp_path / "cache")) for n in (1, 2)]
    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert f"% of the {counted} differ" in runs[0].stdout and runs[0].stdout.count(metric) == 3
    assert "measured before" in runs[1].stderr and runs[0].stdout == runs[1].stdout.replace("2.zip", "1.zip")
    shutil.copy(tmp_path / "1.zip", tmp_path / "half.zip")
    (tmp_path / "test").symlink_to(fold / "test")
    folder = ready(tmp_path, tmp_path / "run")
    manifest = json.loads((folder / "manifest.json").read_text())
    order = [model["name"] for model in manifest["models"]]
    assert sorted(order) == [spec.name for spec in recipe.specs(fold / "weights")] and all(model["seconds_per_image"] > 0 for model in manifest["models"])
    assert [json.loads((folder / "weights" / f"{name}.json").read_text())["position"] for name in order] == [0, 1]
    done = main(folder)
    assert done.returncode == 0 and f" with {', '.join(order)}" in done.stdout
    gained = sum(model["gain"] for model in manifest["models"])
    assert manifest["metric"] == metric and gained == pytest.approx(manifest["half_precision"]["full"])
    found = score.evaluate(folder / "submission" / "submission.csv", fold / "truth.csv").per_query.strict.mean()
    assert found == pytest.approx(manifest["half_precision"]["half"], abs=1e-6)


def test_other_galleries_are_measured_anew(named, tmp_path, monkeypatch):
    shutil.copytree(named / "weights", tmp_path / "weights")
    measurements = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(measure, "measured", lambda *asked: measurements.append(asked) or {"metric": "MAP@5", "models": [], "half": None})
    monkeypatch.setattr(sys, "argv", ["pack", "--weights", str(tmp_path / "weights"), "--output", str(tmp_path / "s.zip"), "--fold", str(named), "--device", "cpu"])
    pack.main(), pack.main()
    assert len(measurements) == 1
    held = dict(np.load(tmp_path / "weights" / "gallery" / "bare.npz"))
    np.savez(tmp_path / "weights" / "gallery" / "bare.npz", **{**held, "embedding": np.nextafter(held["embedding"], np.float32(0))})  # the same in half precision
    pack.main()
    assert len(measurements) == 2


# What starts it

@pytest.mark.parametrize("break_it, words", [
    (lambda folder: (folder / "weights" / "first.npz").unlink(), "weights/first.npz: missing"),
    (lambda folder: (folder / "solution" / "rank.py").write_text("print()"), "solution/rank.py: 7 bytes"),
    (lambda folder: flip(folder / "weights" / "second.npz"), "weights/second.npz: its SHA-256 is not the packed one"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: "),
    (lambda folder: (folder / "manifest.json").unlink(), "manifest.json: "),
    (lambda folder: (folder / "manifest.json").write_text("{}"), "manifest.json: not of format 1"),
])
def test_a_damaged_or_incomplete_submission_stops_with_one_line(archives, tmp_path, break_it, words):
    folder = unpacked(archives / "half.zip", tmp_path / "run")
    break_it(folder)
    one_line(main(folder), words)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_time_limit_comes_from_the_environment_and_a_short_one_leaves_a_valid_file(archives, tmp_path):
    folder = ready(archives, tmp_path / "run")
    for wrong in ("soon", "0", "-3", "nan", "inf"):
        one_line(main(folder, SUBMISSION_TIME_LIMIT=wrong), f"SUBMISSION_TIME_LIMIT is {wrong!r}")
    assert main(folder, SUBMISSION_TIME_LIMIT="0.5").returncode == 1
    assert score.evaluate(folder / "submission" / "submission.csv", archives / "truth.csv").breaches == []


@pytest.mark.parametrize("module", ["pack", "rehearse"])
def test_help_comes_without_torch(module):
    code = f"import sys; from submission import {module} as m; sys.argv = ['{module}', '--help']\n" \
           "try: m.main()\nfinally: print(sorted({'torch', 'timm', 'scipy', 'sklearn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert f"example: python -m submission.{module}" in done.stdout and done.stdout.endswith("[]\n") and done.returncode == 0


# Kaggle

def wheel(folder):
    """A wheel of one module."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "travelling-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("travelling.py", "there = True\n")
        archive.writestr("travelling-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: travelling\nVersion: 1.0\n")
        archive.writestr("travelling-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("travelling-1.0.dist-info/RECORD", "")
    return folder


def test_a_kaggle_folder_runs_from_its_inputs_to_the_working_folder(fold, archives, tmp_path):
    kernel = tmp_path / "kernel"
    done = packed(fold, kernel, "--target", "kaggle", "--owner", "me", "--wheels", wheel(tmp_path / "wheels"))
    assert done.returncode == 0, done.stderr
    names = {path.relative_to(kernel).as_posix() for path in kernel.rglob("*") if path.is_file()}
    added = {"kernel.py", "kernel-metadata.json", "dataset-metadata.json", "wheels/travelling-1.0-py3-none-any.whl"}
    assert names == set(zipfile.ZipFile(archives / "half.zip").namelist()) | added
    metadata, dataset = (json.loads((kernel / f"{name}-metadata.json").read_text()) for name in ("kernel", "dataset"))
    assert metadata["code_file"] == "kernel.py" and metadata["enable_internet"] is False and metadata["dataset_sources"] == [dataset["id"]]

    inputs, working = tmp_path / "input", tmp_path / "working"
    shutil.copytree(kernel, inputs / "whale-ranking-weights")
    (inputs / "whale-ranking-weights" / "kernel.py").unlink()
    shutil.copytree(fold / "test", inputs / "competitions" / "whales")
    working.mkdir()
    environment = {**ALONE, "KAGGLE_INPUT": str(inputs), "KAGGLE_WORKING": str(working), "PIP_TARGET": str(tmp_path / "installed")}
    run = subprocess.run([sys.executable, kernel / "kernel.py"], cwd=working, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "installed" / "travelling.py").is_file()
    official = ready(archives, tmp_path / "official")
    assert main(official).returncode == 0
    assert (working / "submission.csv").read_bytes() == (official / "submission" / "submission.csv").read_bytes()


def kaggle(inputs, working, **environment):
    """The kernel run over folders of inputs; what it wrote."""
    working.mkdir(parents=True)
    environment = {**ALONE, "KAGGLE_INPUT": str(inputs), "KAGGLE_WORKING": str(working), "TMPDIR": str(working), **environment}
    done = subprocess.run([sys.executable, ROOT / "submission" / "kaggle" / "kernel.py"], cwd=working, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return (working / "submission.csv").read_bytes()


def test_a_kernel_names_the_photographs_of_a_layout_and_of_the_competitions_own_folder(named, tmp_path):
    layout, raw = tmp_path / "layout", tmp_path / "raw"
    for inputs in (layout, raw):
        unpacked(named / "half.zip", inputs / "weights")
    expected = predicted(named, layout / "weights" / "weights", tmp_path)
    shutil.copytree(named / "test", layout / "photographs")
    assert kaggle(layout, tmp_path / "a") == expected

    asked = pd.read_csv(named / "test" / "metadata.csv").path.str.rsplit("/", n=1).str[-1]
    shutil.copytree(named / "test" / "images", raw / "humpback-whale-identification" / "test")
    pd.DataFrame({"Image": asked, "Id": "new_whale w_1 w_2 w_3 w_4"}).to_csv(raw / "humpback-whale-identification" / "sample_submission.csv", index=False)
    for folder, _, _ in os.walk(raw):
        os.chmod(folder, 0o555)
    assert kaggle(raw, tmp_path / "b") == expected


def test_a_kernel_without_its_inputs_and_a_folder_that_is_there_are_one_line(fold, tmp_path):
    (tmp_path / "kernel").mkdir()
    one_line(packed(fold, tmp_path / "kernel", "--target", "kaggle"), "already exists")
    environment = {**ALONE, "KAGGLE_INPUT": str(tmp_path)}
    run = subprocess.run([sys.executable, ROOT / "submission" / "kaggle" / "kernel.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    one_line(run, "no folder holds main.py and manifest.json", code=1)
    assert list((tmp_path / "kernel").iterdir()) == []
    (tmp_path / "none").mkdir()
    one_line(packed(fold, tmp_path / "k", "--target", "kaggle", "--wheels", tmp_path / "none"), "holds no .whl")


def test_pandas_is_not_needed_to_read_a_damaged_manifest(archives, tmp_path):
    """What stops a damaged submission is Python's own library alone: the check comes before anything packed is imported."""
    folder = unpacked(archives / "half.zip", tmp_path / "run")
    (folder / "solution" / "files.py").unlink()
    one_line(main(folder, "-S", "-E"), "solution/files.py: missing")
