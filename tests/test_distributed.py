"""Several processes against one: the same gradients, the same bytes again, and only the first process writes."""

import hashlib
import os
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from timm.layers import DropPath

import toy
import toy_training as toying
from solution import fitting, models, recipe, schedule


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return toying.write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


def gradients(recipe_file, data, folder, *phases):
    """Saves the gradients of the first batch's loss, and the statistics of batch normalisation after it, with dropout off; after several
    phases, the backbone frozen in those that say so, those of the last."""
    now = toying.fitted(recipe_file, data, folder / "checkpoint.npz")
    now.module.train()
    for module in now.module.modules():
        if isinstance(module, (torch.nn.Dropout, DropPath)):
            module.eval()
    images, labels, species = next(iter(now.loader))
    for phase in phases or ("all",):
        schedule.freeze(now.trainee.model.backbone, phase == "frozen", now.still)
        now.optimiser.zero_grad()
        with now.whole_batch:
            loss = now.module(models.normalised(images, now.spec.model), labels, species)
        now.fabric.backward(loss)
    found = {name: parameter.grad.numpy() for name, parameter in now.trainee.named_parameters() if parameter.grad is not None}
    found.update({name: buffer.numpy() for name, buffer in now.trainee.named_buffers() if "running" in name})
    np.savez(folder / f"gradients{now.fabric.global_rank}.npz", **found)
    return {"images": len(images), "mean loss": now.checked(loss.detach().double())}


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_compute_the_gradients_of_one(tmp_path, data, tiny, world):
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    alone = toying.in_ranks(tmp_path / "r1", gradients, tiny, data, tmp_path / "one", world=1)
    told = toying.in_ranks(tmp_path / "r2", gradients, tiny, data, tmp_path / "several", world=world)
    agree(tmp_path, alone, told, world)


@pytest.mark.parametrize("phases", [["frozen"], ["frozen", "all"]])
def test_two_processes_compute_the_gradients_of_one_while_the_backbone_is_frozen_and_after(tmp_path, data, phases):
    humpback = toying.write_recipe(tmp_path / "humpback.yaml", also=toying.HUMPBACK)
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    alone = toying.in_ranks(tmp_path / "r1", gradients, humpback, data, tmp_path / "one", *phases, world=1)
    told = toying.in_ranks(tmp_path / "r2", gradients, humpback, data, tmp_path / "several", *phases)
    found = agree(tmp_path, alone, told, 2)
    assert ("model.backbone.conv_stem.weight" in found) == (phases[-1] == "all") and "model.backbone.bn1.weight" in found


def test_two_processes_compute_the_gradients_of_one_where_the_lower_layers_stay(tmp_path, data):
    still = toying.write_recipe(tmp_path / "still.yaml", frozen_stages=1)
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    alone = toying.in_ranks(tmp_path / "r1", gradients, still, data, tmp_path / "one", world=1)
    told = toying.in_ranks(tmp_path / "r2", gradients, still, data, tmp_path / "several")
    found = agree(tmp_path, alone, told, 2)
    assert "model.backbone.conv_stem.weight" not in found and "model.backbone.blocks.1.0.conv_exp.weight" in found


def agree(tmp_path, alone, told, world):
    """The names of the gradients that one process and each of several found alike."""
    assert alone[0]["images"] == 8 and [rank["images"] for rank in told] == [8 // world] * world
    assert all(rank["mean loss"] == pytest.approx(alone[0]["mean loss"], rel=1e-5) for rank in told)
    expected = np.load(tmp_path / "one" / "gradients0.npz")
    largest = max(np.abs(expected[name]).max() for name in expected.files)
    assert largest > 1e-3
    for rank in range(world):
        found = np.load(tmp_path / "several" / f"gradients{rank}.npz")
        assert found.files == expected.files
        for name in expected.files:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5 * largest, err_msg=name)
    return expected.files


def parameters(recipe_file, data, folder):
    """What every parameter is after a whole training, as a digest of its bytes."""
    now = toying.fitted(recipe_file, data, folder / "checkpoint.npz")
    assert now.fit(toying.never)
    return {name: hashlib.sha256(parameter.detach().numpy().tobytes()).hexdigest() for name, parameter in now.trainee.named_parameters()}


def test_two_processes_keep_the_same_parameters_through_frozen_and_thawed_epochs(tmp_path, data):
    humpback = toying.write_recipe(tmp_path / "humpback.yaml", also=toying.HUMPBACK)
    first, second = toying.in_ranks(tmp_path / "ranks", parameters, humpback, data, tmp_path)
    assert first == second and len(first) > 50


def trains(recipe_file, data, output, *more):
    """The command as one of several processes; any but the first may write nothing."""
    def written(*_, **__):
        raise AssertionError("a process that is not the first writes")

    if os.environ["RANK"] == "0":
        done = toying.train(recipe_file, data, output, *more)
    else:
        with mock.patch.object(os, "replace", written), mock.patch.object(np, "savez", written):
            done = toying.train(recipe_file, data, output, *more)
    return {"code": done.code, "stdout": done.stdout, "stderr": done.stderr}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data, tiny):
    folder = tmp_path_factory.mktemp("two")
    told = toying.in_ranks(folder / "ranks", trains, tiny, data, folder / "weights")
    assert [rank["code"] for rank in told] == [0, 0], told
    return folder / "weights", told


def test_two_processes_write_loadable_weights_once(trained, tiny):
    weights, _ = trained
    (one,) = recipe.specs(weights)
    assert one == toying.spec(tiny)
    assert models.load(one, weights)(torch.zeros(2, 3, 32, 32)).isfinite().all()
    assert sorted(file.name for file in weights.iterdir()) == ["centres", "provenance.json", "recipe.yaml", "tiny.json", "tiny.log.csv", "tiny.npz"]


def test_only_the_first_process_speaks(trained):
    first, second = trained[1]
    assert first["stderr"].count("tiny: epoch") == 3 and "tiny trained" in first["stdout"]
    assert (second["stdout"], second["stderr"]) == ("", "")


def test_two_processes_give_the_same_bytes_twice_and_after_a_stop(tmp_path, data, tiny, trained):
    def stopped(*words):
        take = fitting.Fitting.step

        def step(self, *batch):
            if (self.progress.epoch, self.progress.step) == (1, 1):
                raise KeyboardInterrupt
            return take(self, *batch)

        with mock.patch.object(fitting.Fitting, "step", step):
            return trains(*words)

    told = toying.in_ranks(tmp_path / "stopped", stopped, tiny, data, tmp_path / "weights")
    assert [rank["code"] for rank in told] == [1, 1]
    told = toying.in_ranks(tmp_path / "resumed", trains, tiny, data, tmp_path / "weights", "--resume")
    assert [rank["code"] for rank in told] == [0, 0], told
    assert toying.result(tmp_path / "weights") == toying.result(trained[0])


def test_a_time_limit_stops_all_processes_at_the_same_step(tmp_path, data, tiny, trained):
    def limited(*words):
        def timer(*_):  # only the first process's clock counts
            asked = iter(range(100))
            return lambda: os.environ["RANK"] == "0" and next(asked) >= 5

        with mock.patch("solution.train.timer", timer):
            return trains(*words)

    told = toying.in_ranks(tmp_path / "stopped", limited, tiny, data, tmp_path / "weights")
    assert [rank["code"] for rank in told] == [0, 0] and "stopped by --time-limit" in told[0]["stdout"]
    told = toying.in_ranks(tmp_path / "resumed", trains, tiny, data, tmp_path / "weights", "--resume")
    assert [rank["code"] for rank in told] == [0, 0], told
    assert (tmp_path / "weights" / "tiny.npz").read_bytes() == (trained[0] / "tiny.npz").read_bytes()
    losses = [pd.read_csv(output / "tiny.log.csv").loss for output in (tmp_path / "weights", trained[0])]
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_a_checkpoint_of_two_processes_is_refused_by_one(tmp_path, data, tiny):
    def limited(*words):
        with mock.patch("solution.train.timer", lambda *_: iter([False] * 5 + [True] * 9).__next__):
            return trains(*words)

    toying.in_ranks(tmp_path / "ranks", limited, tiny, data, tmp_path / "weights")
    done = toying.train(tiny, data, tmp_path / "weights", "--resume")
    assert done.code == 2 and "number of processes" in done.line


def test_a_batch_that_does_not_divide_is_one_line(tmp_path, data):
    odd = toying.write_recipe(tmp_path / "odd.yaml", batch_size=7)
    for rank in toying.in_ranks(tmp_path / "ranks", trains, odd, data, tmp_path / "w"):
        done = toying.Finished(**rank)
        assert done.code == 2 and done.line == "error: tiny: train.batch_size 7 does not divide among 2 processes"


def test_a_loss_that_is_no_number_in_one_process_ends_all(tmp_path, data, tiny):
    def spoiled(*words):
        step = fitting.Fitting.step
        factor = np.nan if os.environ["RANK"] == "1" else 1
        with mock.patch.object(fitting.Fitting, "step", lambda self, *batch: step(self, *batch) * factor):
            return trains(*words)

    for rank in toying.in_ranks(tmp_path / "ranks", spoiled, tiny, data, tmp_path / "w"):
        done = toying.Finished(**rank)
        assert done.code == 1 and "the loss is nan in epoch 1" in done.line


def test_torchrun_finishes_a_training(tmp_path, data, tiny, trained):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "solution.train")
    child = toying.command(tiny, data, tmp_path / "w", launcher=launcher)
    try:
        _, stderr = child.communicate(timeout=120)
    finally:
        child.terminate()
    assert child.returncode == 0, stderr
    assert toying.result(tmp_path / "w") == toying.result(trained[0])
