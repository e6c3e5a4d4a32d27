"""The plain training against the trainer it is measured with, step by step and image by image; what its benchmark tells."""

import argparse
import io
import json
import math
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

import toy
import toy_training as toying
from eval.benchmarks import training as benchmark
from eval.files import InputError, read_table, run
from eval.reference import fitting, network, predict
from eval.reference import training as reference
from solution import models, recipe, schedule
from solution.augment import Augmentation

ROOT = Path(__file__).parents[1]
ALL = [name for name in recipe.plain(recipe.Augment()) if name not in reference.PLAIN["augment"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec_file(folder: Path, also={}, **train) -> Path:
    """The .json of a tiny untrained model, as solution.train leaves it beside the weights."""
    one = toying.spec(toying.write_recipe(folder / "recipe.yaml", also=also, **train))
    (folder / "tiny.json").write_text(json.dumps(recipe.plain(one)))
    return folder / "tiny.json"


def command(data: Path, like: Path, output: Path, *more) -> toying.Finished:
    """The command in this process, which reads and augments itself."""
    words = ["--data", data, "--like", like, "--output", output, "--device", "cpu", *([] if "--workers" in more else ["--workers", 0]), *more]
    code, out, err = 0, io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", ["training", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            run(reference.main)
        except SystemExit as stop:
            code = stop.code
    return toying.Finished(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On several PyTorch, left as it comes, adds up in any order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Its .json and what two epochs of it wrote."""
    folder = tmp_path_factory.mktemp("trained")
    like = spec_file(folder)
    done = command(data, like, folder / "weights", "--epochs", 2)
    assert done.code == 0, done.stderr
    return like, folder / "weights"


# The training

@pytest.mark.parametrize("chances", [{}, dict.fromkeys(ALL, 1.0), *({**dict.fromkeys(ALL, 0.0), name: 1.0} for name in ALL)])
def test_it_augments_as_the_trainer_does_by_the_same_random_numbers(chances):
    augment = {**recipe.plain(recipe.Augment()), **chances}
    ours, theirs, random = Augmentation(recipe.Augment(**augment), 64), fitting.augmentation(augment, 64), np.random.default_rng(0)
    for seed in range(20):
        image = random.integers(0, 256, (64, 64, 3), np.uint8)
        ours.steps.set_random_seed(seed)
        theirs.set_random_seed(seed)
        np.testing.assert_array_equal(theirs(image=image)["image"], ours.steps(image=image)["image"])


def test_a_step_of_it_is_a_step_of_the_trainer(tmp_path, data):
    """The same arrays, the same two batches: the same losses, gradients and arrays."""
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", warmup=0, epochs=4), data, tmp_path / "c.npz")
    told = reference.read_training(spec_file(tmp_path, warmup=0, epochs=4), None)
    step = fitting.Steps(told, now.training.counts, torch.device("cpu"))
    named = {name: (tensor, theirs(name)) for name, tensor in now.trainee.state_dict().items()}
    arrays = {**step.network.state_dict(), **{f"head.{name}": tensor for name, tensor in step.head.state_dict().items()}}
    assert sorted(arrays) == sorted(name for _, name in named.values())
    for tensor, name in named.values():
        arrays[name].copy_(tensor)
    now.module.train()
    random = np.random.default_rng(3)
    for number in range(2):
        pixels, labels = random.integers(0, 256, (8, 32, 32, 3), np.uint8), torch.from_numpy(random.integers(0, 10, 8))
        seen = torch.from_numpy(np.ascontiguousarray(network.normalised(pixels, told["model"])))
        now.progress.epoch = number
        loss = now.step(torch.from_numpy(pixels), labels, torch.zeros(8, dtype=torch.long))
        assert step(seen, labels, fitting.rate(number, told["train"])) == pytest.approx(float(loss), rel=1e-5)
        gradients = dict([*step.network.named_parameters(), *((f"head.{name}", weight) for name, weight in step.head.named_parameters())])
        largest = max(float(parameter.grad.abs().max()) for parameter in now.trainee.parameters())
        for name, parameter in now.trainee.named_parameters():
            np.testing.assert_allclose(gradients[theirs(name)].grad, parameter.grad, atol=1e-4 * largest, err_msg=name)
    assert [group["lr"] for group in step.optimiser.param_groups] == [group["lr"] for group in now.optimiser.optimizer.param_groups][1:]


def theirs(name: str) -> str:
    """The plain training's name of one of the trainer's arrays."""
    return name.replace("model.backbone.", "backbone.").replace("model.necks.0.0.", "neck.").replace("objective.heads.0.", "head.")


@pytest.mark.parametrize("epochs, warmup", [(20, 0.2), (22, 0.2), (4, 0.2), (1, 0.2), (5, 0.0)])
def test_the_learning_rates_are_the_trainers(epochs, warmup):
    train = recipe.Train(epochs=epochs, warmup=warmup)
    assert [fitting.rate(epoch, recipe.plain(train)) for epoch in range(epochs)] == pytest.approx([schedule.factor(epoch, train) for epoch in range(epochs)])


def test_the_head_is_sub_centre_arcface_one_image_and_one_class_at_a_time():
    random, images = np.random.default_rng(0), np.array([1, 4, 30])
    head = fitting.SubCentreArcFace(6, images, recipe.plain(recipe.Head(sub_centres=3)))
    embeddings, whales = torch.from_numpy(random.standard_normal((8, 6)).astype(np.float32)), random.integers(0, 3, 8)
    embeddings[0] = -head.weight[3 * whales[0]] * 2  # so far off that the angle and the margin pass pi
    head.weight.data[3 * whales[0]: 3 * whales[0] + 3] = head.weight.data[3 * whales[0]]
    total, centres = 0.0, head.weight.detach().double().numpy()
    for row, whale in zip(embeddings.detach().double().numpy(), whales):
        cosines = [max(row @ centre / np.linalg.norm(row) / np.linalg.norm(centre) for centre in centres[3 * k: 3 * k + 3]) for k in range(3)]
        margin = 0.5 * images[whale] ** -0.125 + 0.05
        angle = math.acos(max(-1, min(1, cosines[whale])))
        moved = math.cos(angle + margin) if angle + margin < math.pi else cosines[whale] - margin * math.sin(margin)
        logits = [21 * (moved if k == whale else cosine) for k, cosine in enumerate(cosines)]
        total += math.log(sum(map(math.exp, logits))) - logits[whale]
    assert head(embeddings, torch.from_numpy(whales)).item() == pytest.approx(total / 8, rel=1e-4)


def test_it_begins_with_the_weights_that_the_trainer_begins_with():
    from solution.weights import load_pretrained

    model = recipe.Model("tf_efficientnet_lite0", pretrained="embedded")
    ours, plain = models.EmbeddingModel(model), network.Network(recipe.plain(model))
    load_pretrained(ours, model)
    fitting.load_pretrained(plain.backbone, recipe.plain(model))
    expected, found = ours.backbone.state_dict(), plain.backbone.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def test_images_come_as_people_have_them_and_each_process_draws_its_own(tmp_path, data):
    told = reference.read_training(spec_file(tmp_path), None)
    table = reference.labelled(data, 8).iloc[[0] * 16]
    loader = torch.utils.data.DataLoader(fitting.Augmented(table, told, 0), 8, num_workers=2, worker_init_fn=fitting.seeded)
    batches = [images for images, _ in loader]
    assert all(images.is_contiguous() and images.dtype == torch.float32 and images.shape == (8, 3, 32, 32) for images in batches)
    seen = {image.numpy().tobytes() for images in batches for image in images}
    assert len(seen) == 16  # one photograph, augmented anew each time, by either process


def test_what_it_writes_is_read_by_the_predictor_and_the_reference(trained):
    like, weights = trained
    (spec,), asked = recipe.specs(weights), toying.spec(like.with_name("recipe.yaml"))
    assert spec == replace(asked, train=replace(asked.train, epochs=2))
    ours, plain = models.load(spec, weights), network.loaded(*predict.read_specs(weights), weights)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(ours(images), plain(images), atol=1e-5)
    log = read_table(weights / "tiny.log.csv")
    assert list(log) == ["epoch", "loss", "seconds"] and list(log.epoch) == ["0", "1"] and (log.seconds.astype(float) > 0).all()


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(trained, data, tmp_path):
    like, weights = trained
    assert command(data, like, tmp_path / "same", "--epochs", 2).code == command(data, like, tmp_path / "other", "--epochs", 2, "--seed", 1).code == 0
    same, other = ((tmp_path / name / "tiny.npz").read_bytes() for name in ("same", "other"))
    assert same == (weights / "tiny.npz").read_bytes() != other


def test_photographs_without_a_whale_are_left_out(data, tmp_path):
    table = read_table(data / "metadata.csv")
    table.loc[::3, "whale_id"] = ""
    (tmp_path / "data" / "images").mkdir(parents=True)
    for path in table.path:
        (tmp_path / "data" / path).hardlink_to(data / path)
    table.to_csv(tmp_path / "data" / "metadata.csv", index=False)
    known = table[table.whale_id != ""]
    found = reference.labelled(tmp_path / "data", 8)
    assert list(found.image_id) == list(known.image_id) and (found.groupby("whale").whale_id.nunique() == 1).all()
    assert sorted(found.whale.unique()) == list(range(known.whale_id.nunique()))


@pytest.mark.parametrize("also, told", [
    ({"head": {"kind": "linear"}}, "head.kind is 'linear'; the reference renders only trainings with 'arcface' there"),
    ({"augment": {"zoom": 0.5}}, "augment.zoom is 0.5"), ({"train": {"mixup": 0.4}}, "train.mixup is 0.4"),
    ({"model": {"parts": 2}}, "model.parts is 2"),
])
def test_another_training_than_the_published_is_one_line(also, told, tmp_path, data):
    done = command(data, spec_file(tmp_path, also), tmp_path / "out")
    assert done.code == 2 and told in done.line and not (tmp_path / "out").exists()


@pytest.mark.parametrize("train, damaged, told", [({"batch_size": 64}, [], "31 labelled photographs are fewer than a batch of 64"),
                                                  ({"batch_size": 31}, ["train0003.jpg"], "train0003.jpg: not a readable image"), ({}, ["train0003.jpg", ""], "there are no photographs in it")])
@pytest.mark.parametrize("workers", [0, 1])
def test_photographs_that_are_too_few_damaged_or_not_there_are_one_line(train, damaged, told, workers, tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=10)
    for name in damaged:
        (data / "images" / name).write_bytes(b"no photograph") if name else shutil.rmtree(data / "images")
    done = command(data, spec_file(tmp_path, **train), tmp_path / "out", "--epochs", 1, "--workers", workers)
    assert done.code == 2 and told in done.line and not (tmp_path / "out").exists()


def test_weights_that_are_there_are_kept(trained, data):
    like, weights = trained
    before = toying.files(weights)
    done = command(data, like, weights)
    assert done.code == 2 and "already there" in done.line and toying.files(weights) == before


# What the benchmark tells

def test_figures_are_those_of_the_middle_round_and_ratios_are_by_round():
    spent = {benchmark.OURS: np.array([[2, 10, 20, 900], [4, 12, 30, 950], [3, 14, 25, 940.0]]), benchmark.REFERENCE: np.array([[8, 20, 40, 800], [8, 21, 50, 700], [9, 25, 60, 750.0]])}
    told = benchmark.told(spent, 96)
    assert told["images_per_second"] == 32 and told["reference_images_per_second"] == 12
    assert (told["ratio"], told["ratio_least"], told["ratio_most"], told["ratio_of_rounds"]) == (3, 2, 4, [4, 2, 3])
    assert (told["peak_mb"], told["reference_peak_mb"], told["whole_command_seconds"], told["cpu_seconds"], told["cpu_ratio"]) == (950, 800, 12, 25, 2)
    json.dumps(told, allow_nan=False)


def test_its_photographs_are_labelled_and_drawn_alike_each_time(data, tmp_path):
    for name in ("one", "other"):
        benchmark.labelled(data, 12, tmp_path / name)
    one, other = (read_table(tmp_path / name / "metadata.csv") for name in ("one", "other"))
    assert one.equals(other) and len(one) == 12
    whale_of = read_table(data / "metadata.csv").set_index("image_id")
    assert list(one.whale_id) == list(whale_of.whale_id[one.image_id])
    for row in one.itertuples():
        assert (tmp_path / "one" / row.path).read_bytes() == (data / whale_of.path[row.image_id]).read_bytes()


def test_too_few_photographs_are_repeated_under_ids_of_their_own(data, tmp_path):
    table = read_table(benchmark.labelled(data, 70, tmp_path / "data") / "metadata.csv")
    assert len(table) == 70 and table.image_id.is_unique and (table.whale_id != "").all()


@pytest.mark.parametrize("epochs, photographs", [(1, 64), (2, 31)])
def test_one_epoch_or_less_than_a_batch_is_refused(epochs, photographs):
    with pytest.raises(InputError, match="give at least 2 epochs"):
        benchmark.measured(argparse.Namespace(epochs=epochs, photographs=photographs, accuracy=None))


def test_a_fold_without_its_truth_is_refused_before_anything_is_trained(data, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(data, tmp_path / part)
    with pytest.raises(InputError, match="truth.csv: no such file; name a fold"):
        benchmark.measured(argparse.Namespace(epochs=2, photographs=32, accuracy=tmp_path))


@pytest.mark.parametrize("code, kind, told", [("import sys; sys.exit('error: wrong')", SystemExit, "error: python -m broken: wrong"),
                                              ("import sys; print('error: no', file=sys.stderr); sys.exit(2)", InputError, "python -m broken: no"),
                                              ("import os; os.kill(os.getpid(), 9)", SystemExit, "error: python -m broken: killed by SIGKILL: failed")])
def test_a_training_that_fails_is_its_last_line(code, kind, told, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=told):
        benchmark.Training("broken", [], tmp_path)()


@pytest.mark.slow
def test_the_benchmark_trains_by_both_and_compares_what_they_answer(tmp_path):
    data, folds = toy.competition(tmp_path / "data", n_whales=24), tmp_path / "folds"
    assert subprocess.run([sys.executable, "-m", "eval.folds", data, "--output", folds, "--n-folds", "2"], cwd=ROOT).returncode == 0
    words = [sys.executable, "-m", "eval.bench", "training", "--size", "32", "--accuracy", folds / "0", "--epochs", "2"]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["images"], result["repeats"]) == (32, 1) and result["images_per_second"] > 0 and result["reference_images_per_second"] > 0
    assert set(result["accuracy"]) >= {"a", "b", "difference", "ci95"}
