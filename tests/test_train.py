"""The command: the same bytes however often, however interrupted and by however many workers; every mistake is one line."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml

import toy
import toy_training as toying
from solution import batches, fitting, models, recipe
from solution import train as training


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return toying.write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data, tiny):
    output = tmp_path_factory.mktemp("trained") / "weights"
    assert toying.train(tiny, data, output).code == 0
    return output


@pytest.fixture
def copy(tmp_path, data):
    """The toy data, to be changed."""
    return shutil.copytree(data, tmp_path / "copy")


def rewrite(data, change):
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(data / "metadata.csv", index=False)
    return data


def at(epoch, step, action):
    """Has `action` happen in place of that step; epochs and steps count from 0."""
    take = fitting.Fitting.step

    def step_or_action(self, *batch):
        if (self.progress.epoch, self.progress.step) == (epoch, step):
            action()
        return take(self, *batch)

    return mock.patch.object(fitting.Fitting, "step", step_or_action)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def control_c():
    raise KeyboardInterrupt


@pytest.fixture
def begun(tmp_path, data, tiny):
    """An output with the checkpoint of the first epoch."""
    with at(1, 1, control_c):
        assert toying.train(tiny, data, tmp_path / "weights").code == 1
    assert (tmp_path / "weights.resume" / "tiny.npz").is_file()
    return tmp_path / "weights"


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_same_command_gives_the_same_bytes_with_any_number_of_workers(tmp_path, data, tiny, trained, workers):
    assert toying.train(tiny, data, tmp_path / "w", "--workers", workers).code == 0
    assert toying.result(tmp_path / "w") == toying.result(trained)


def test_a_process_of_its_own_gives_the_same_bytes(tmp_path, data, tiny, trained):
    child = toying.command(tiny, data, tmp_path / "w", "--workers", "1")
    assert child.wait(120) == 0, child.stderr.read()
    assert toying.result(tmp_path / "w") == toying.result(trained)


def test_another_seed_gives_other_weights(tmp_path, data, tiny, trained):
    assert toying.train(tiny, data, tmp_path / "w", "--seed", 1).code == 0
    assert not toying.same(np.load(tmp_path / "w" / "tiny.npz"), np.load(trained / "tiny.npz"))


def test_an_epoch_that_decodes_each_image_anew_gives_the_same_bytes(tmp_path, data, tiny, trained, monkeypatch):
    monkeypatch.setattr(batches, "HELD_BYTES", 0)
    assert toying.train(tiny, data, tmp_path / "w").code == 0
    assert toying.result(tmp_path / "w") == toying.result(trained)


def test_images_without_a_whale_change_nothing_but_are_told(copy, tmp_path, tiny, trained):
    rewrite(copy, lambda table: pd.concat([table.head(3).assign(image_id=["a", "b", "c"], whale_id=""), table]))
    done = toying.train(tiny, copy, tmp_path / "w")
    assert "31 images (3 without a whale_id are left out) of 10 whales" in done.stderr
    assert toying.result(tmp_path / "w") == toying.result(trained)


def test_the_log_has_a_row_an_epoch_with_its_rate(trained):
    log = pd.read_csv(trained / "tiny.log.csv")
    assert list(log.columns) == ["epoch", "learning_rate", "loss", "seconds"] and list(log.epoch) == [0, 1, 2]
    w = 0.2 * 3
    factors = [0.01, *(0.01 + 0.99 * (1 + np.cos(np.pi * (epoch - w) / (3 - w))) / 2 for epoch in (1, 2))]
    np.testing.assert_allclose(log.learning_rate, 1e-3 * np.array(factors))


def test_the_output_holds_the_contracts_files_and_no_pickle(trained, tiny):
    assert sorted(file.name for file in trained.iterdir()) == ["provenance.json", "recipe.yaml", "tiny.json", "tiny.log.csv", "tiny.npz"]
    with np.load(trained / "tiny.npz", allow_pickle=False) as file:
        assert all(file[name].dtype.kind in "fi" for name in file.files)
    for name in ("tiny.json", "provenance.json"):
        json.loads((trained / name).read_text())
    assert not (trained.parent / "weights.resume").exists()


def test_the_weights_load_and_the_recipe_reloads_to_itself(trained, tiny):
    asked = recipe.load(str(tiny))
    assert recipe.load(str(trained / "recipe.yaml")).models == asked.models
    assert recipe.specs(trained) == list(asked.models)
    assert models.load(asked.models[0], trained)(torch.zeros(2, 3, 32, 32)).shape == (2, 112)


def test_provenance_tells_command_seed_versions_and_data(trained, tiny, data):
    told = json.loads((trained / "provenance.json").read_text())
    words = ["python -m solution.train", f"--recipe {tiny}", f"--data {data}", f"--output {trained}"]
    assert all(word in told["command"] for word in words)
    assert told["seed"] == 0 and told["device"] == "cpu" and (told["images"], told["whales"]) == (31, 10)
    assert told["python"] == sys.version.split()[0]
    assert (told["packages"]["torch"].split("+")[0], told["packages"]["timm"]) == (torch.__version__.split("+")[0], timm.__version__)
    assert len(told["data"]) == 64


def test_provenance_does_without_git(tmp_path, data, tiny, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert toying.train(tiny, data, tmp_path / "w").code == 0
    assert json.loads((tmp_path / "w" / "provenance.json").read_text())["commit"] is None


@pytest.mark.parametrize("change", [
    lambda table: table.assign(whale_id=["other", *table.whale_id[1:]]),
    lambda table: table.assign(image_id=["other", *table.image_id[1:]]),
    lambda table: table.iloc[::-1],
    lambda table: table[1:],
    lambda table: table.assign(x0="0", y0="0", x1="9", y1="9"),
])
def test_the_fingerprint_notices_changed_labels_order_and_boxes(copy, change):
    before = training.fingerprint(training.labelled(copy))
    assert training.fingerprint(training.labelled(rewrite(copy, lambda table: table))) == before
    assert training.fingerprint(training.labelled(rewrite(copy, change))) != before


@pytest.mark.parametrize("epoch, step", [(0, 1), (1, 0), (2, 2)])
def test_a_training_killed_in_a_step_resumes_to_the_same_bytes(tmp_path, data, tiny, trained, epoch, step):
    with at(epoch, step, kill):
        assert toying.in_forks(toying.train, (tiny, data, tmp_path / "weights", "--workers", 1)) == [-signal.SIGKILL]
    assert not (tmp_path / "weights" / "tiny.npz").exists()
    assert (tmp_path / "weights.resume" / "tiny.npz").is_file() == (epoch > 0)
    resumes(tiny, data, tmp_path / "weights", trained)


def resumes(tiny, data, output, trained):
    done = toying.train(tiny, data, output, "--resume")
    assert done.code == 0, done.stderr
    assert toying.result(output) == toying.result(trained)


def test_a_training_killed_while_it_writes_a_checkpoint_resumes_from_the_one_before(tmp_path, data, tiny, trained):
    save, written = np.savez, []

    def half(file, **values):
        written.append(save(file, **values))
        if len(written) == 2:
            file.truncate(file.tell() // 2)
            file.flush()
            kill()

    with mock.patch.object(np, "savez", half):
        assert toying.in_forks(toying.train, (tiny, data, tmp_path / "weights")) == [-signal.SIGKILL]
    with np.load(tmp_path / "weights.resume" / "tiny.npz") as file:
        assert json.loads(str(file["progress"]))["epoch"] == 1
    resumes(tiny, data, tmp_path / "weights", trained)


def test_the_command_killed_after_a_checkpoint_resumes_to_the_same_bytes(tmp_path, data):
    longer = toying.write_recipe(tmp_path / "tiny.yaml", epochs=12)
    child = toying.command(longer, data, tmp_path / "weights")
    while not (tmp_path / "weights.resume" / "tiny.npz").exists() and child.poll() is None:
        time.sleep(0.002)
    child.kill()
    assert child.wait(60) == -signal.SIGKILL, child.stderr.read()
    assert toying.train(longer, data, tmp_path / "weights", "--resume").code == 0
    assert toying.train(longer, data, tmp_path / "other").code == 0
    assert toying.result(tmp_path / "weights") == toying.result(tmp_path / "other")


def test_resume_without_a_checkpoint_starts_anew(tmp_path, data, tiny, trained):
    resumes(tiny, data, tmp_path / "weights", trained)


def test_resume_of_a_finished_model_changes_nothing(data, tiny, trained):
    before = toying.files(trained)
    done = toying.train(tiny, data, trained, "--resume")
    assert done.code == 0 and "nothing left to do" in done.stdout
    assert toying.files(trained) == before


def test_existing_work_is_refused_without_resume(data, tiny, trained, begun):
    for output, path in ((trained, trained / "tiny.npz"), (begun, begun.parent / "weights.resume" / "tiny.npz")):
        before = toying.files(output.parent)
        done = toying.train(tiny, data, output)
        assert done.code == 2 and done.line == f"error: {path}: already there; add --resume to go on, or choose another --output"
        assert toying.files(output.parent) == before


def refused(done, output, before, word):
    assert done.code == 2 and word in done.line, done.stderr
    assert toying.files(output.parent) == before


def test_a_resume_with_another_seed_recipe_or_data_is_refused(tmp_path, data, copy, tiny, trained, begun):
    other = toying.write_recipe(tmp_path / "other.yaml", epochs=4)
    less = rewrite(copy, lambda table: table[1:])
    for output in (begun, trained):
        before = toying.files(output.parent)
        refused(toying.train(tiny, data, output, "--resume", "--seed", 1), output, before, "another seed")
        refused(toying.train(other, data, output, "--resume"), output, before, "another recipe")
        refused(toying.train(tiny, less, output, "--resume"), output, before, "another data")
    resumes(tiny, data, begun, trained)


def test_a_checkpoint_alone_refuses_other_settings(data, tiny, begun, tmp_path):
    """The one that is left where somebody removed WEIGHTS: it knows its own settings."""
    other = toying.write_recipe(tmp_path / "other.yaml", epochs=4)
    shutil.rmtree(begun)
    done = toying.train(other, data, begun, "--resume")
    assert done.code == 2 and done.line.startswith("error: ")


def test_a_broken_checkpoint_is_one_line(data, tiny, begun):
    path = begun.parent / "weights.resume" / "tiny.npz"
    path.write_bytes(path.read_bytes()[:1000])
    done = toying.train(tiny, data, begun, "--resume")
    assert done.code == 2 and str(path) in done.line


def test_a_mistake_that_wrote_no_weights_can_be_mended_in_place(tmp_path, data, tiny, trained):
    wrong = toying.write_recipe(tmp_path / "wrong.yaml", batch_size=64)
    done = toying.train(wrong, data, tmp_path / "weights")
    assert done.code == 2 and done.line == "error: tiny: train.batch_size 64 is more than the 31 labelled images"
    assert toying.train(tiny, data, tmp_path / "weights").code == 0
    assert toying.result(tmp_path / "weights") == toying.result(trained)


def test_a_time_limit_stops_in_time_and_the_rest_gives_the_same_bytes(tmp_path, data, tiny, trained, monkeypatch):
    step = fitting.Fitting.step
    monkeypatch.setattr(fitting.Fitting, "step", lambda self, *batch: time.sleep(0.4) or step(self, *batch))
    stops = 0
    for more in ([], *[["--resume"]] * 30):
        done = toying.train(tiny, data, tmp_path / "weights", "--time-limit", 4.8, *more)
        assert done.code == 0
        if "stopped by --time-limit" not in done.stdout:
            break
        stops += 1
    assert stops
    assert toying.result(tmp_path / "weights") == toying.result(trained)


def test_a_time_limit_that_is_over_stops_before_the_photographs_are_read(tmp_path, data, tiny, monkeypatch):
    monkeypatch.setattr(fitting, "Augmented", None)
    done = toying.train(tiny, data, tmp_path / "weights", "--time-limit", 0.1)
    assert done.code == 0 and "stopped by --time-limit in tiny, 1 of 1 models to finish" in done.stdout


def test_a_dry_run_tells_time_and_memory_and_writes_nothing(tmp_path, data):
    two = toying.write_recipe(tmp_path / "two.yaml", "one", "other")
    before = toying.files(tmp_path)
    done = toying.train(two, data, tmp_path / "weights", "--dry-run")
    assert done.code == 0 and not (tmp_path / "weights").exists() and toying.files(tmp_path) == before
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["one", "other"] and lines[2].startswith("2 models, 31 images of 10 whales")
    assert all("9 steps of 8 images at 32 px" in line and " min, " in line and line.endswith(" MB") for line in lines[:2])


def test_one_model_trained_alone_is_the_one_trained_with_the_others(tmp_path, data):
    two = toying.write_recipe(tmp_path / "two.yaml", "one", "other")
    assert toying.train(two, data, tmp_path / "together").code == 0
    assert toying.train(two, data, tmp_path / "apart", "--model", "other").code == 0
    assert sorted(file.stem for file in (tmp_path / "apart").glob("*.npz")) == ["other"]
    assert toying.result(tmp_path / "apart", "other") == toying.result(tmp_path / "together", "other")
    assert toying.train(two, data, tmp_path / "apart", "--model", "one").code == 0  # beside the finished other
    assert toying.result(tmp_path / "apart", "one") == toying.result(tmp_path / "together", "one")
    assert [one.name for one in recipe.specs(tmp_path / "apart")] == ["one", "other"]


def test_an_unknown_model_is_refused_with_the_nearest_name(tmp_path, data):
    two = toying.write_recipe(tmp_path / "two.yaml", "lite0_192", "b4_456")
    done = toying.train(two, data, tmp_path / "w", "--model", "lite_192")
    assert done.code == 2 and done.line == "error: --model: recipe two has no 'lite_192'; did you mean 'lite0_192'?; it has lite0_192, b4_456"
    assert not (tmp_path / "w").exists()


@pytest.fixture
def untrained(tmp_path):
    """A recipe of no epochs from a state dict, and the state."""
    torch.manual_seed(5)
    state = timm.create_model("test_efficientnet").state_dict()
    torch.save(state, tmp_path / "state.pth")
    model = {"backbone": "test_efficientnet", "pretrained": str(tmp_path / "state.pth")}
    table = {"models": {"tiny": {"model": model, "train": {"epochs": 0, "size": 32, "batch_size": 64}}}}
    (tmp_path / "untrained.yaml").write_text(yaml.safe_dump(table))
    return tmp_path / "untrained.yaml", state


def test_no_epochs_write_the_pretrained_weights_as_they_are(tmp_path, data, untrained):
    recipe_file, state = untrained
    assert toying.train(recipe_file, data, tmp_path / "w").code == 0
    with np.load(tmp_path / "w" / "tiny.npz") as file:
        backbone = [name for name in file.files if name.startswith("backbone.")]
        assert all(np.array_equal(file[name], state[name.removeprefix("backbone.")]) for name in backbone)
        assert len(backbone) > 50 and (file["necks.0.0.weight"] == 1).all() and (file["necks.0.0.running_mean"] == 0).all()
    assert (tmp_path / "w" / "tiny.log.csv").read_text() == "epoch\n"


def test_a_dry_run_of_no_epochs_is_no_work(tmp_path, data, untrained):
    done = toying.train(untrained[0], data, tmp_path / "w", "--dry-run")
    assert done.code == 0 and "tiny: 0 steps" in done.stdout, done.stderr


def test_a_learning_rate_that_blows_up_is_one_line(tmp_path, data):
    wild = toying.write_recipe(tmp_path / "wild.yaml", learning_rate=1e30, head_learning_rate=1e38)
    done = toying.train(wild, data, tmp_path / "w")
    assert done.code == 1 and "lower train.learning_rate" in done.line
    assert not (tmp_path / "w" / "tiny.npz").exists()


def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(tmp_path, data, tiny, trained, begun):
    before = toying.files(begun.parent / "weights.resume")
    step = fitting.Fitting.step
    with mock.patch.object(fitting.Fitting, "step", lambda self, *batch: step(self, *batch) * np.nan):
        done = toying.train(tiny, data, begun, "--resume")
    assert done.code == 1 and "the loss is nan in epoch 2" in done.line
    assert toying.files(begun.parent / "weights.resume") == before
    resumes(tiny, data, begun, trained)


def test_a_full_disk_is_one_line_and_leaves_the_last_checkpoint(data, tiny, trained, begun):
    """The kernel refuses files beyond a size; a checkpoint is beyond it, the small files are not."""
    checkpoint = begun.parent / "weights.resume"
    before, (_, hard) = toying.files(checkpoint), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        done = toying.train(tiny, data, begun, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert done.code == 1 and "File too large" in done.line
    assert toying.files(checkpoint) == before and not list(begun.parent.rglob("*.part"))
    resumes(tiny, data, begun, trained)


def test_a_disk_that_fills_with_the_finished_weights_keeps_them_in_the_checkpoint(data, tiny, trained, tmp_path):
    with mock.patch.object(models, "save", side_effect=OSError(28, "No space left on device", "tiny.npz")):
        done = toying.train(tiny, data, tmp_path / "weights")
    assert done.code == 1 and done.line == "error: tiny.npz: No space left on device; make room there or choose another place"
    with mock.patch.object(fitting.Fitting, "step", None):  # no step is left to take
        resumes(tiny, data, tmp_path / "weights", trained)


@pytest.mark.parametrize("change, told", [
    (lambda table: table.drop(columns="whale_id"), "metadata.csv: column whale_id is missing"),
    (lambda table: table.assign(whale_id="one"), "metadata.csv: whale_id names 1 individuals"),
    (lambda table: table.assign(whale_id=""), "metadata.csv: whale_id names 0 individuals"),
    (lambda table: table.head(0), "metadata.csv: whale_id names 0 individuals"),
    (lambda table: table.assign(path=["images/none.jpg", *table.path[1:]]), "images/none.jpg: no such image"),
    (lambda table: table.assign(image_id="same"), "metadata.csv: line 3: image_id 'same'"),
    (lambda table: table.head(7), "tiny: train.batch_size 8 is more than the 7 labelled images"),
])
def test_data_that_cannot_be_trained_on_is_one_line(copy, tmp_path, tiny, change, told):
    done = toying.train(tiny, rewrite(copy, change), tmp_path / "w")
    assert done.code == 2 and told in done.line
    assert not list(tmp_path.glob("w/*.npz"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_no_image_is_one_line(copy, tmp_path, tiny, workers):
    (copy / "images" / "train0003.jpg").write_text("no image")
    done = toying.train(tiny, copy, tmp_path / "w", "--workers", workers)
    assert done.code == 2 and "train0003.jpg: not a readable image" in done.line


def test_a_directory_or_recipe_that_is_not_there_is_one_line(tmp_path, data, tiny):
    for words, told in (((tiny, tmp_path / "none", tmp_path / "w"), "none/metadata.csv: no such file"),
                        ((Path("whaldo"), data, tmp_path / "w"), "did you mean 'whaledo'?"),
                        ((tiny, data, tmp_path / "w", "--validate", tmp_path / "fold"), "fold/truth.csv: no such file")):
        done = toying.train(*words)
        assert done.code == 2 and told in done.line
        assert not list(tmp_path.glob("w/*.npz"))


@pytest.mark.parametrize("option", ["--seed", "--workers"])
@pytest.mark.parametrize("value", ["-1", "one"])
def test_a_seed_or_number_of_workers_below_0_is_bad_usage(tmp_path, data, tiny, option, value):
    done = toying.train(tiny, data, tmp_path / "w", option, value)
    assert done.code == 2 and f"argument {option}: '{value}' is not a whole number, 0 or more" in done.stderr


def test_cuda_where_there_is_none_is_one_line(tmp_path, data, tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = toying.train(tiny, data, tmp_path / "w", "--device", "cuda")
    assert done.code == 2 and "--device cuda" in done.line


def test_the_current_directory_can_be_the_output(tmp_path, data, tiny, trained, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert toying.train(tiny, data, Path(".")).code == 0
    assert toying.result(tmp_path / "here") == toying.result(trained)


def test_the_help_has_an_example_and_comes_without_torch():
    code = "import sys; from solution import train; sys.argv = ['train', '--help']\n" \
           "try: train.main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=toying.CHILD, cwd=toying.ROOT, capture_output=True, text=True)
    assert "example: python -m solution.train" in done.stdout and done.stdout.endswith("False\n")
