"""The command: the same bytes however often, however interrupted and by however many workers; every mistake is one line."""

import hashlib
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
from PIL import Image

import naive_names
import toy
import toy_training as toying
from eval import folds
from solution import batches, embed, fitting, images, models, recipe
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
    assert sorted(file.name for file in trained.iterdir()) == ["centres", "provenance.json", "recipe.yaml", "tiny.json", "tiny.log.csv", "tiny.npz"]
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
    (lambda table: table.assign(path=["images/none.jpg", "images/nor.jpg", *table.path[2:]]), "images/none.jpg: no such image"),
    (lambda table: table.assign(image_id="same"), "metadata.csv: line 3: image_id 'same'"),
    (lambda table: table.head(7), "tiny: train.batch_size 8 is more than the 7 labelled images"),
])
def test_data_that_cannot_be_trained_on_is_one_line(copy, tmp_path, tiny, change, told):
    done = toying.train(tiny, rewrite(copy, change), tmp_path / "w")
    assert done.code == 2 and told in done.line
    assert not list(tmp_path.glob("w/*.npz"))


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_are_no_images_are_one_line_where_they_are_many(copy, tmp_path, tiny, workers):
    for name in ("train0003.jpg", "train0030.jpg"):
        (copy / "images" / name).write_text("no image")
    done = toying.train(tiny, copy, tmp_path / "w", "--workers", workers)
    assert done.code == 2 and "2 of 31 photographs cannot be read" in done.line and "train0003.jpg: not a readable image" in done.line


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


# Names: gallery, classifier, identify.json

@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """data/ folded by protocol identify, folds/0; its training part folded again, inner/0."""
    folder = tmp_path_factory.mktemp("named")
    outer = folds.make(toy.competition(folder / "data", n_whales=15), folder / "folds", "identify") / "0"
    folds.make(outer / "train", folder / "inner", "identify")
    return folder


STRIPES = {"model": {"stages": [4], "parts": 2, "part_width": 8}, "head": {"kind": "linear", "total": True, "ring": 0.01}}


def naming_recipe(path, *names, **more):
    """A recipe of protocol identify whose models have stripes; of those named `plain` the mirror image does not count."""
    toying.write_recipe(path, *names, also=STRIPES, size=64, epochs=2)
    table = {**yaml.safe_load(path.read_text()), "protocol": "identify", **more}
    if "plain" in names:
        table["models"]["plain"] = {"predict": {"mirror": "off"}}
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def two(named):
    return naming_recipe(named / "two.yaml", "plain", "other")


def inner(named):
    return named / "inner" / "0"


@pytest.fixture(scope="module")
def naming(named, two):
    """Weights of two models trained on the inner fold's training part, and what was said."""
    done = toying.train(two, inner(named) / "train", named / "weights", "--validate", inner(named))
    assert done.code == 0, done.stderr
    return named / "weights", done


def read(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def stored(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_a_recipe_that_names_ships_gallery_classifier_and_identification(naming):
    found = {str(path.relative_to(naming[0])) for path in naming[0].rglob("*") if path.is_file()}
    assert found == {"identify.json", "provenance.json", "recipe.yaml"} | {
        f"{name}{end}" for name in ("plain", "other") for end in (".npz", ".json", ".log.csv")} | {
        f"{kind}/{name}.npz" for name in ("plain", "other") for kind in ("gallery", "classifier")}
    told = json.loads((naming[0] / "identify.json").read_text())
    assert {"temperature", "theta_p", "theta_f", "c1", "c2", "c3", "map5", "ci95"} <= set(told)
    assert told["n_queries"] == len(read(inner(naming[0].parent) / "truth.csv")) and told["ci95"][0] <= told["map5"] <= told["ci95"][1]
    assert f"MAP@5 {told['map5']:.4f}" in naming[1].stderr


def test_the_gallery_is_the_whole_training_part_under_its_own_ids_and_names(naming, named):
    outer = named / "folds" / "0" / "train"
    table = read(outer / "metadata.csv").set_index("image_id")
    assert {"", "whale000"} < {*table.whale_id, "whale000"} and 0 < (table.whale_id == "").sum() < len(table)
    for name in ("plain", "other"):
        gallery = stored(naming[0] / "gallery" / f"{name}.npz")
        assert sorted(gallery) == ["digest", "embedding", "image_id", "whale_id"]
        assert sorted(gallery["image_id"]) == sorted(table.index)
        for image_id, whale_id, digest in zip(gallery["image_id"], gallery["whale_id"], gallery["digest"]):
            assert whale_id == table.whale_id[image_id]
            assert digest == hashlib.sha256((outer / table.path[image_id]).read_bytes()).hexdigest()[:32]


def test_the_gallerys_embeddings_are_the_models_own_of_unit_length(naming, named):
    """Image and mirror image, for `plain` the image alone, resized by Pillow here."""
    outer = named / "folds" / "0" / "train"
    table = read(outer / "metadata.csv").set_index("image_id")
    for spec in recipe.specs(naming[0]):
        gallery, model = stored(naming[0] / "gallery" / f"{spec.name}.npz"), models.load(spec, naming[0])
        pixels = np.stack([images.square(Image.open(outer / table.path[image_id]).convert("RGB"), 64) for image_id in gallery["image_id"]])
        both = [pixels] if spec.name == "plain" else [pixels, np.ascontiguousarray(pixels[:, :, ::-1])]
        with torch.no_grad():
            rows = np.hstack([model(models.normalised(torch.from_numpy(each), spec.model)).numpy() for each in both]).astype(float)
        assert gallery["embedding"].dtype == np.float32 and gallery["embedding"].shape == (len(table), 16 * len(both))
        np.testing.assert_allclose(gallery["embedding"], rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(gallery["embedding"].astype(float), axis=1), 1, atol=1e-6)


def test_the_classifier_knows_the_whales_that_were_trained_on(naming, named):
    whales = sorted({*read(inner(named) / "train" / "metadata.csv").whale_id} - {""})
    for name in ("plain", "other"):
        classifier = stored(naming[0] / "classifier" / f"{name}.npz")
        assert list(classifier["whale_id"]) == whales and classifier["weight"].shape == (len(whales), 16) and classifier["bias"].shape == (len(whales),)
        assert classifier["weight"].dtype == np.float32 and np.isfinite(classifier["weight"]).all()


@pytest.mark.parametrize("moved", [0, 1])
def test_map5_of_the_identification_is_that_of_plain_loops_on_the_inner_fold(moved, naming, named, two, tmp_path):
    """Its queries against the photographs it was trained on: the gallery that ships is larger by the queries themselves. A truth whose
    names are moved by a row is one that the toy models do not all tell."""
    weights, fold = shutil.copytree(naming[0], tmp_path / "w"), shutil.copytree(inner(named), tmp_path / "fold")
    (weights / "identify.json").unlink(), shutil.rmtree(weights / "gallery")
    read(fold / "labels.csv")[::-1].to_csv(fold / "labels.csv", index=False)  # in any order
    read(fold / "truth.csv").assign(Id=lambda table: np.roll(table.Id, moved)).to_csv(fold / "truth.csv", index=False)
    assert toying.train(two, inner(named) / "train", weights, "--validate", fold, "--resume").code == 0
    assert (weights / "gallery" / "plain.npz").read_bytes() == (naming[0] / "gallery" / "plain.npz").read_bytes()
    known, (test, told) = naive_names.Weights(weights, ["plain", "other"]), (fold / "test", read(fold / "truth.csv").set_index("Image").Id)
    trained_on = read(inner(named) / "train" / "metadata.csv").image_id
    for gallery in known.galleries.values():
        kept = np.isin(gallery["image_id"], trained_on)
        gallery.update({key: gallery[key][kept] for key in ("image_id", "whale_id", "embedding")})
    table, specs = images.listed(test), recipe.specs(weights)
    parts = embed.embed(embed.Pixels(table, test, embed.views(specs), 0), specs, embed.Engines(weights, "cpu"), table.image_id.to_numpy(str))
    parts["plain"]["mirror"] = parts["plain"]["plain"]  # never asked for
    precisions = []
    for number, path in enumerate(table.path):
        names = naive_names.five(known.scores(parts, number))
        true = told[Path(path).name]
        precisions.append(1 / (names.index(true) + 1) if true in names else 0)
    found = json.loads((weights / "identify.json").read_text())
    assert found["map5"] == pytest.approx(np.mean(precisions), abs=1e-9) and len(precisions) == found["n_queries"]
    assert "new_whale" in set(told) and (found["map5"] > 0.9 if moved == 0 else 0.2 < found["map5"] < 0.9)


def without_times(weights):
    """The bytes of every file but provenance.json; of the logs all but the column `seconds`."""
    found = {path.relative_to(weights): path.read_bytes() for path in weights.rglob("*") if path.is_file() and path.name != "provenance.json"}
    return {path: read(weights / path).drop(columns="seconds").to_csv() if path.suffix == ".csv" else content for path, content in found.items()}


def test_the_same_command_ships_the_same_bytes(naming, named, two, tmp_path):
    assert toying.train(two, inner(named) / "train", tmp_path / "w", "--validate", inner(named)).code == 0
    assert without_times(tmp_path / "w") == without_times(naming[0])


@pytest.mark.parametrize("lost", [["identify.json"], ["gallery/other.npz"], ["identify.json", "gallery/plain.npz", "gallery/other.npz"]])
def test_resume_makes_again_what_is_missing_without_training(lost, naming, named, two, tmp_path):
    weights = shutil.copytree(naming[0], tmp_path / "w")
    for name in lost:
        (weights / name).unlink()
    with mock.patch.object(fitting, "Fitting", None):
        done = toying.train(two, inner(named) / "train", weights, "--validate", inner(named), "--resume")
    assert done.code == 0, done.stderr
    assert without_times(weights) == without_times(naming[0])


def test_resume_of_a_complete_one_changes_nothing(naming, named, two):
    before = toying.files(naming[0])
    done = toying.train(two, inner(named) / "train", naming[0], "--validate", inner(named), "--resume")
    assert done.code == 0 and "nothing left to do" in done.stdout and toying.files(naming[0]) == before


def test_the_names_of_a_further_gallery_count_most_and_its_photographs_travel_along(naming, named, two, tmp_path):
    outer, further = named / "folds" / "0" / "train", tmp_path / "further"
    shutil.copytree(outer, further)
    table = read(outer / "metadata.csv")
    added = Image.fromarray(toy.photograph(3, 15, 50, 60, np.random.default_rng(5)))
    added.save(further / "images" / "added.jpg")
    renamed = table.assign(whale_id=table.whale_id.replace({"whale001": "Nina"}))[4:]
    pd.concat([renamed, pd.DataFrame({"image_id": ["added"], "path": ["images/added.jpg"], "whale_id": ["whale077"]})]).to_csv(further / "metadata.csv", index=False)
    weights = shutil.copytree(naming[0], tmp_path / "w")
    (weights / "identify.json").unlink(), shutil.rmtree(weights / "gallery")
    done = toying.train(two, inner(named) / "train", weights, "--validate", inner(named), "--gallery", further, "--resume")
    assert done.code == 0, done.stderr
    expected = {**dict(zip(table.image_id, table.whale_id)), **dict(zip(renamed.image_id, renamed.whale_id)), "added": "whale077"}
    for name in ("plain", "other"):
        before, after = (stored(place / "gallery" / f"{name}.npz") for place in (naming[0], weights))
        assert dict(zip(after["image_id"], after["whale_id"])) == expected and len(after["image_id"]) == len(table) + 1
        assert np.array_equal(after["embedding"][:-1], before["embedding"]) and np.linalg.norm(after["embedding"][-1]) == pytest.approx(1, abs=1e-6)
    assert (weights / "identify.json").read_bytes() == (naming[0] / "identify.json").read_bytes()  # fitted as before


def test_another_way_of_naming_is_fitted_on_the_weights_that_are_there(naming, named, two, tmp_path):
    weights, table = shutil.copytree(naming[0], tmp_path / "w"), yaml.safe_load(two.read_text())
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({**table, "identify": {"by": "neighbours"}}, sort_keys=False))
    with mock.patch.object(fitting, "Fitting", None):
        done = toying.train(tmp_path / "two.yaml", inner(named) / "train", weights, "--validate", inner(named), "--resume")
    assert done.code == 0, done.stderr
    assert json.loads((weights / "identify.json").read_text())["c3"] == 0
    assert yaml.safe_load((weights / "recipe.yaml").read_text())["identify"]["by"] == "neighbours"


def test_a_name_of_two_words_is_refused_before_the_training(named, two, tmp_path):
    data = shutil.copytree(inner(named) / "train", tmp_path / "data")
    table = read(data / "metadata.csv")
    table.assign(whale_id=table.whale_id.replace({max(table.whale_id): "Old Nina"})).to_csv(data / "metadata.csv", index=False)
    done = toying.train(two, data, tmp_path / "w")
    assert done.code == 2 and "whale_id 'Old Nina' holds a space" in done.line and "'Old_Nina'" in done.line


def test_the_gallery_waits_for_the_last_model(named, two, naming, tmp_path):
    words = two, inner(named) / "train", tmp_path / "w", "--validate", inner(named)
    done = toying.train(*words, "--model", "other")
    assert done.code == 0 and "the gallery waits for plain" in done.stdout and not (tmp_path / "w" / "gallery").exists()
    assert toying.train(*words, "--model", "plain").code == 0
    assert without_times(tmp_path / "w") == without_times(naming[0])


def test_a_naming_recipe_without_an_inner_fold_has_a_gallery_of_its_data_and_no_identification(named, two, naming, tmp_path):
    weights = shutil.copytree(naming[0], tmp_path / "w")
    (weights / "identify.json").unlink(), shutil.rmtree(weights / "gallery")
    assert toying.train(two, inner(named) / "train", weights, "--resume").code == 0
    assert not (weights / "identify.json").exists()
    table = read(inner(named) / "train" / "metadata.csv")
    gallery = stored(weights / "gallery" / "plain.npz")
    assert dict(zip(gallery["image_id"], gallery["whale_id"])) == dict(zip(table.image_id, table.whale_id))


def test_a_recipe_of_rankings_with_a_fold_of_names_names_by_neighbours(named, tiny, tmp_path):
    done = toying.train(tiny, inner(named) / "train", tmp_path / "w", "--validate", inner(named))
    assert done.code == 0, done.stderr
    told = json.loads((tmp_path / "w" / "identify.json").read_text())
    assert told["c3"] == 0 and not (tmp_path / "w" / "classifier").exists() and stored(tmp_path / "w" / "gallery" / "tiny.npz")["embedding"].shape[1] == 2 * 112
    assert list(read(tmp_path / "w" / "tiny.log.csv").columns) == ["epoch", "learning_rate", "loss", "seconds"]


def test_a_naming_recipe_with_a_fold_of_rankings_reports_map20_and_ships_its_gallery(named, tmp_path):
    fold = folds.make(named / "data", tmp_path / "folds", "whale", n_folds=3) / "0"
    done = toying.train(naming_recipe(tmp_path / "one.yaml", "plain"), fold / "train", tmp_path / "w", "--validate", fold)
    assert done.code == 0, done.stderr
    assert read(tmp_path / "w" / "plain.log.csv").map20.astype(float).between(0, 1).all()
    assert (tmp_path / "w" / "gallery" / "plain.npz").is_file() and not (tmp_path / "w" / "identify.json").exists()


def test_what_the_recipe_wants_of_identification_is_kept(named, tmp_path):
    wanted = {"by": "classifier", "temperature": 2.2, "new_share": 0.276, "by_species": True, "columns": ["image", "predictions"], "new": "new_individual"}
    one = naming_recipe(tmp_path / "one.yaml", "plain", identify=wanted)
    assert toying.train(one, inner(named) / "train", tmp_path / "w", "--validate", inner(named)).code == 0
    told = json.loads((tmp_path / "w" / "identify.json").read_text())
    assert (told["c1"], told["c2"], told["c3"]) == (0, 0, 1) and {key: told[key] for key in wanted if key != "by"} == {key: wanted[key] for key in wanted if key != "by"}


def test_a_species_classifier_needs_species(named, tmp_path):
    one = naming_recipe(tmp_path / "one.yaml", "plain", shared=None)
    table = yaml.safe_load(one.read_text())
    table["shared"] = {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": toying.TRAIN, "head": {"species": True}}
    one.write_text(yaml.safe_dump(table))
    done = toying.train(one, inner(named) / "train", tmp_path / "w")
    assert done.code == 2 and "metadata.csv: column species is missing; plain has head.species true" in done.line
