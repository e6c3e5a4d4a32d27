"""Embedding and predicting a toy competition with two tiny models of different sizes, end to end on the CPU."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

import toy
from eval import score
from solution import device, embed, images, models, pixels, predict, rank, recipe
from solution.files import InputError
from solution.torch_engine import TorchEngine

ROOT = Path(__file__).parents[1]


def ensemble(weights, *specs):
    """Weights of random tiny models whose statistics are not the untrained ones."""
    for number, spec in enumerate(specs):
        torch.manual_seed(number)
        model = models.EmbeddingModel(spec.model)
        for neck in model.necks:
            neck[0].running_mean.uniform_(0.2, 0.6), neck[0].running_var.uniform_(0.01, 0.1)
        models.save(model, spec, weights)
    return weights


def tiny(name, position, size, **differences):
    table = {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": {"size": size}}
    return recipe.built(recipe.Spec, dict(recipe.merged(table, differences), name=name, position=position))


COMPUTED = "--engine", "torch", "--no-cache"  # anew, by what needs no export
SPECS = tiny("small", 1, 32), tiny("large", 0, 48), tiny("slip", 2, 64, predict={"test_size": 32, "normalise": True})


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """test/ (24 photographs, two scenarios), truth.csv and weights/ (three models)."""
    fold = tmp_path_factory.mktemp("fold")
    toy.scenarios(toy.competition(fold / "test")).to_csv(fold / "truth.csv", index=False)
    ensemble(fold / "weights", *SPECS)
    return fold


def command(main, monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, options), "--device", "cpu"])
    main()


def predicted(fold, output, monkeypatch, *options):
    command(predict.main, monkeypatch, *COMPUTED, "--data", fold / "test", "--weights", fold / "weights", "--output", output, *options)
    return output


def embedded(data, weights, workers=0):
    table, specs = images.listed(data), recipe.specs(weights)
    photographs = embed.Pixels(table, data, embed.views(specs), workers)
    return embed.embed(photographs, specs, embed.Engines(weights, "cpu"), table.image_id.to_numpy(str))


def test_a_prediction_is_an_embedding_and_a_ranking_byte_for_byte(fold, tmp_path, monkeypatch):
    whole = predicted(fold, tmp_path / "whole.csv", monkeypatch, "--workers", 0)
    command(embed.main, monkeypatch, *COMPUTED, "--data", fold / "test", "--weights", fold / "weights", "--output", tmp_path / "e", "--workers", 0)
    monkeypatch.setattr(sys, "argv", ["rank", "--embeddings", str(tmp_path / "e"), "--data", str(fold / "test"), "--output", str(tmp_path / "steps.csv")])
    rank.main()
    assert whole.read_bytes() == (tmp_path / "steps.csv").read_bytes()
    kept = predicted(fold, tmp_path / "again.csv", monkeypatch, "--workers", 0, "--embeddings", tmp_path / "kept", "--timings", tmp_path / "t.json")
    assert kept.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(f"{spec.name}.{kind}" for spec in SPECS for kind in ("json", "npz"))
    for path in (tmp_path / "kept").iterdir():
        assert path.read_bytes() == (tmp_path / "e" / path.name).read_bytes()
    assert json.loads((tmp_path / "t.json").read_text())["images"] == 24


def test_the_number_of_workers_changes_no_byte(fold, tmp_path, monkeypatch):
    first = predicted(fold, tmp_path / "0.csv", monkeypatch, "--workers", 0)
    assert first.read_bytes() == predicted(fold, tmp_path / "2.csv", monkeypatch, "--workers", 2).read_bytes()


def test_a_prediction_passes_the_strict_rules_and_misses_no_query(fold, tmp_path, monkeypatch):
    evaluation = score.evaluate(predicted(fold, tmp_path / "s.csv", monkeypatch, "--workers", 0), fold / "truth.csv", fold / "test")
    assert evaluation.breaches == [] and not any("missing" in warning for warning in evaluation.warnings)


def test_every_photograph_is_opened_once_for_all_models_and_sizes(fold, tmp_path, monkeypatch):
    opened, read = [], images.opened
    monkeypatch.setattr(images, "opened", lambda content, path: opened.append(Path(path).name) or read(content, path))
    predicted(fold, tmp_path / "s.csv", monkeypatch, "--workers", 0)
    assert sorted(opened) == sorted(path.name for path in (fold / "test" / "images").iterdir()) and len(opened) == 24


def test_only_the_photographs_that_the_scenarios_ask_for_are_opened(tmp_path, monkeypatch):
    data = toy.competition(tmp_path / "test")
    toy.scenarios(data)
    (data / "query_scenarios.csv").write_text("scenario_id,queries_path,database_path\ns,queries/scenario02.csv,databases/scenario02.csv\n")
    ensemble(tmp_path / "weights", tiny("m", 0, 32))
    database = pd.read_csv(data / "databases/scenario02.csv")[4:]  # the photographs of the first four rows are not asked for any longer
    database.to_csv(data / "databases/scenario02.csv", index=False)
    needed = {*pd.read_csv(data / "queries/scenario02.csv").query_image_id, *database.database_image_id}
    for image_id in {path.stem for path in (data / "images").iterdir()} - needed:
        (data / "images" / f"{image_id}.jpg").write_bytes(b"")
    assert len(needed) < 24
    assert len(pd.read_csv(predicted(tmp_path, tmp_path / "s.csv", monkeypatch, "--workers", 0))) > 0


def columns_then_rows(image, size):
    return np.asarray(image.resize((size, image.height), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.BICUBIC))


def test_an_embedding_is_that_of_the_model_on_the_resized_photograph(fold):
    found, table = embedded(fold / "test", fold / "weights"), images.listed(fold / "test")
    for spec in SPECS:
        model, size = models.load(spec, fold / "weights"), spec.predict.test_size or spec.train.size
        pixels = [columns_then_rows(Image.open(path).convert("RGB"), size) / 255 for path in table.path]
        pixels = ((np.array(pixels) - spec.model.mean) / spec.model.std).transpose(0, 3, 1, 2).astype(np.float32)
        with torch.no_grad():
            np.testing.assert_allclose(found[spec.name]["plain"], model(torch.from_numpy(pixels)), atol=1e-3)
        assert list(found[spec.name]["image_id"]) == list(table.image_id)
        assert found[spec.name]["plain"].dtype == found[spec.name]["mirror"].dtype == np.float32


def mirrored(data, target):
    """A copy of a data directory whose photographs are lossless mirror images, and one of lossless copies of the originals."""
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    for name, change in (("plain", lambda image: image), ("mirror", ImageOps.mirror)):
        (target / name / "images").mkdir(parents=True)
        for image_id, path in zip(table.image_id, table.path):
            change(Image.open(data / path)).save(target / name / "images" / f"{image_id}.png")
        table.assign(path="images/" + table.image_id + ".png").to_csv(target / name / "metadata.csv", index=False)
    return target / "plain", target / "mirror"


def test_mirror_embeddings_are_those_of_the_mirrored_photographs(fold, tmp_path):
    plain, mirror = (embedded(data, fold / "weights") for data in mirrored(fold / "test", tmp_path))
    for spec in SPECS:
        scale = np.abs(plain[spec.name]["plain"]).max()
        np.testing.assert_allclose(plain[spec.name]["mirror"] / scale, mirror[spec.name]["plain"] / scale, atol=1e-4)
        np.testing.assert_allclose(plain[spec.name]["plain"] / scale, mirror[spec.name]["mirror"] / scale, atol=1e-4)
        assert np.abs(plain[spec.name]["plain"] - plain[spec.name]["mirror"]).max() > 0.02 * scale


def test_an_engine_mirrors_left_and_right(fold):
    engine = TorchEngine(SPECS[0], models.load(SPECS[0], fold / "weights"), "cpu")
    batch = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    turned = np.ascontiguousarray(batch[:, :, ::-1])
    np.testing.assert_allclose(engine(batch, mirrored=True), engine(turned), atol=1e-4)
    np.testing.assert_allclose(engine(batch), engine(turned, mirrored=True), atol=1e-4)


def test_a_batch_that_the_device_has_no_memory_for_is_halved(fold, capsys):
    engine = TorchEngine(SPECS[0], models.load(SPECS[0], fold / "weights"), "cpu")
    batch, whole = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8), engine.embeddings

    def small(images, mirrored):
        if len(images) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return whole(images, mirrored)

    engine.embeddings = small
    np.testing.assert_allclose(engine(batch), whole(batch, [False])[0], atol=1e-4)
    assert capsys.readouterr().err.count("trying half as many") == 4 and engine.together == 2
    engine(batch)
    assert capsys.readouterr().err == ""  # it keeps to that


def test_without_mirror_images_the_model_runs_once_and_they_are_zeros(fold, tmp_path, monkeypatch):
    ensemble(tmp_path / "weights", tiny("m", 0, 32, predict={"mirror": "off"}))
    command(embed.main, monkeypatch, *COMPUTED, "--data", fold / "test", "--weights", tmp_path / "weights", "--output", tmp_path / "e", "--workers", 0)
    with np.load(tmp_path / "e" / "m.npz") as found:
        assert found["plain"].any() and not found["mirror"].any() and found["plain"].shape == found["mirror"].shape == (24, 112)
    assert len(embed.passes(recipe.specs(tmp_path / "weights"))) == 1


def test_a_box_is_what_is_embedded(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=2)
    ensemble(tmp_path / "weights", tiny("m", 0, 32))
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table.assign(x0="5", y0="6", x1="30", y1="35").to_csv(data / "metadata.csv", index=False)
    boxed = embedded(data, tmp_path / "weights")["m"]["plain"]
    for path in table.path:
        Image.open(data / path).crop((5, 6, 30, 35)).save(data / f"{path}.png")
    table.assign(path=table.path + ".png").to_csv(data / "metadata.csv", index=False)
    np.testing.assert_array_equal(boxed, embedded(data, tmp_path / "weights")["m"]["plain"])


def test_models_of_two_margins_see_their_own_crops_of_one_decoding(tmp_path, monkeypatch):
    data = toy.competition(tmp_path / "data", n_whales=2)
    ensemble(tmp_path / "weights", tiny("close", 0, 32), tiny("wide", 1, 32, model={"box_margin": 0.2}))
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table.assign(x0="10", y0="12", x1="30", y1="32").to_csv(data / "metadata.csv", index=False)
    opened, read = [], images.opened
    monkeypatch.setattr(images, "opened", lambda content, path: opened.append(path) or read(content, path))
    found = embedded(data, tmp_path / "weights")
    assert len(opened) == len(set(opened)) == len(table)
    for name, box in (("close", (10, 12, 30, 32)), ("wide", (6, 8, 34, 36))):
        for path in table.path:
            Image.open(data / path).crop(box).save(data / f"{path}.{name}.png")
        table.assign(path=table.path + f".{name}.png").to_csv(data / "metadata.csv", index=False)
        np.testing.assert_array_equal(found[name]["plain"], embedded(data, tmp_path / "weights")[name]["plain"])


def test_more_photographs_than_a_batch_are_all_embedded(tmp_path, monkeypatch):
    data = toy.competition(tmp_path / "data")
    ensemble(tmp_path / "weights", tiny("m", 0, 32))
    at_once = embedded(data, tmp_path / "weights")["m"]
    monkeypatch.setattr(pixels, "BATCH", 7)
    by_seven = embedded(data, tmp_path / "weights")["m"]
    for kind in ("plain", "mirror"):
        np.testing.assert_allclose(at_once[kind], by_seven[kind], atol=1e-3)
    assert list(by_seven["image_id"]) == list(images.listed(data).image_id)


# Bad input

def broken(tmp_path, fold):
    """A copy of the fold's data to break, and a function that predicts it in a process of its own."""
    data = toy.competition(tmp_path / "test")
    toy.scenarios(data)

    def run(*options):
        arguments = ["--data", data, "--weights", fold / "weights", "--output", tmp_path / "s.csv", "--device", "cpu", "--engine", "torch", *options]
        return subprocess.run([sys.executable, "-m", "solution.predict", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)

    return data, run


def one_line(done, words, tmp_path):
    assert done.returncode == 2 and not (tmp_path / "s.csv").exists()
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr


def test_an_image_without_a_row_is_one_line_and_exit_status_2_where_strict(fold, tmp_path):
    data, run = broken(tmp_path, fold)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table[table.image_id != "train0004"].to_csv(data / "metadata.csv", index=False)
    one_line(run("--strict"), "metadata.csv: a scenario asks for image train0004, which has no row", tmp_path)


def test_a_broken_photograph_is_one_line_from_a_worker_too_where_strict(fold, tmp_path):
    data, run = broken(tmp_path, fold)
    (data / "images" / "train0003.jpg").write_bytes(b"broken")
    one_line(run("--strict", "--workers", 1), "images/train0003.jpg: not a readable image", tmp_path)


def test_weights_that_are_not_there_or_do_not_fit_are_refused(fold, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no models here"):
        command(predict.main, monkeypatch, *COMPUTED, "--data", fold / "test", "--weights", tmp_path, "--output", tmp_path / "s.csv")
    ensemble(tmp_path / "weights", tiny("m", 0, 32))
    other = recipe.plain(tiny("m", 0, 32, model={"backbone": "test_resnet"}))
    (tmp_path / "weights" / "m.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="m.npz: array backbone"):
        command(predict.main, monkeypatch, *COMPUTED, "--data", fold / "test", "--weights", tmp_path / "weights", "--output", tmp_path / "s.csv", "--strict")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused():
    assert device.chosen("auto") == device.chosen("cpu") == "cpu"
    with pytest.raises(InputError, match="--device cuda: torch sees no CUDA device"):
        device.chosen("cuda")


@pytest.mark.parametrize("platform, driver, asked", [("linux", "nvidiactl", True), ("linux", "kfd", True), ("linux", "", False), ("win32", "", True)])
def test_torch_is_asked_for_a_gpu_only_where_there_may_be_one(platform, driver, asked, tmp_path, monkeypatch):
    (tmp_path / driver).exists() or (tmp_path / driver).touch()
    monkeypatch.setattr(device, "DRIVERS", tuple(str(tmp_path / name) for name in ("nvidiactl", "kfd")))
    monkeypatch.setattr(device.sys, "platform", platform)
    questions = []
    monkeypatch.setattr(device, "has_cuda", lambda: questions.append("auto") or True)
    assert device.chosen("auto") == ("cuda" if asked else "cpu") and len(questions) == asked
    assert device.chosen("cpu") == "cpu" and len(questions) == asked
    assert device.chosen("cuda") == "cuda" and len(questions) == asked + 1


@pytest.mark.parametrize("told, count", [("3", 3), ("4,2", 4), ("", 2), ("0", 2), ("many", 2)])
def test_the_cores_are_those_that_the_process_may_use_or_that_it_is_told(told, count, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda process: {5, 7}, raising=False)
    assert device.cores() == device.decoders() == count


# Threads that decode

@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_photograph_is_decoded_at_most_two_batches_before_it_is_asked_for(workers, fold, monkeypatch):
    monkeypatch.setattr(pixels, "BATCH", 3)
    decoded, opened = [], images.opened
    monkeypatch.setattr(images, "opened", lambda content, path: decoded.append(path) or opened(content, path))
    table, view = images.listed(fold / "test"), images.View(32)
    photographs = embed.Pixels(table, fold / "test", [view], workers)
    for number, (rows, batch) in enumerate(photographs.batches(view), 1):
        time.sleep(0.05)
        assert list(rows) == list(range(3 * number - 3, 3 * number)) and len(decoded) <= 3 * number + (6 if workers else 0)
        np.testing.assert_array_equal(batch, [images.square(Image.open(path), 32) for path in table.path[rows]])
    assert number == 8 and len(decoded) == len(set(decoded)) == 24


def test_a_pass_that_is_broken_off_leaves_what_it_decoded_to_the_next(fold, monkeypatch):
    monkeypatch.setattr(pixels, "BATCH", 5)
    table, view = images.listed(fold / "test"), images.View(32)
    whole = np.concatenate([batch for _, batch in embed.Pixels(table, fold / "test", [view], 0).batches(view)])
    for workers in (0, 2):
        photographs = embed.Pixels(table, fold / "test", [view], workers)
        begun = photographs.batches(view)
        next(begun), next(begun)
        begun.close()
        assert photographs.decoded.sum() == 10
        np.testing.assert_array_equal(np.concatenate([batch for _, batch in photographs.batches(view)]), whole)


def test_some_rows_are_decoded_alone(fold):
    table, view, wanted = images.listed(fold / "test"), images.View(32), np.array([3, 4, 20])
    photographs = embed.Pixels(table, fold / "test", [view], 1)
    (rows, batch), = photographs.batches(view, wanted)
    assert list(rows) == list(wanted) == list(np.flatnonzero(photographs.decoded))
    np.testing.assert_array_equal(batch, [images.square(images.read(path), 32) for path in table.path[wanted]])


def test_threads_that_open_a_rare_format_at_once_all_read_it(tmp_path):
    """Pillow loads its rarer formats when the first file needs them, and a thread that comes meanwhile would know none."""
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(tmp_path / "a.tiff")
    code = ("import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\nfrom solution import images\n"
            "print(len(list(ThreadPoolExecutor(8).map(images.read, [Path(sys.argv[1])] * 8))))")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.tiff"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "8\n", done.stderr


# Starting

@pytest.mark.parametrize("module", ["predict", "embed", "rank"])
def test_help_comes_without_torch(module):
    code = f"import sys; from solution import {module} as m; sys.argv = ['{module}', '--help']\n" \
           "try: m.main()\nfinally: print(sorted({'torch', 'timm', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert f"example: python -m solution.{module}" in done.stdout and done.stdout.endswith("[]\n") and done.returncode == 0
