"""Photographs that cannot be read cost a training themselves alone: the rest is trained as if they had never stood in the table."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import odd_images
import toy
import toy_training as toying
from eval import folds
from solution import batches, images, sift
from solution import train as training

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow, on damaged files
LOST = "train0003", "train0020", "train0041"  # of 62: a file that is no image, one that is cut short, one that is missing


def rewrite(data, change):
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(data / "metadata.csv", index=False)
    return data


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=18, size=(30, 40))


@pytest.fixture(scope="module")
def broken(tmp_path_factory, whole):
    """The same with three photographs less, whose rows are there."""
    data = shutil.copytree(whole, tmp_path_factory.mktemp("broken") / "data")
    no_image, cut, missing = (data / "images" / f"{name}.jpg" for name in LOST)
    no_image.write_text("no image")
    cut.write_bytes(cut.read_bytes()[:-99])
    missing.unlink()
    return data


@pytest.fixture(scope="module")
def without(tmp_path_factory, whole):
    """The same without their rows."""
    return rewrite(shutil.copytree(whole, tmp_path_factory.mktemp("without") / "data"), lambda table: table[~table.image_id.isin(LOST)])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return toying.write_recipe(tmp_path_factory.mktemp("recipe") / "one.yaml", epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, without, one):
    """What a training without their rows writes."""
    output = tmp_path_factory.mktemp("trained") / "weights"
    assert toying.train(one, without, output).code == 0
    return output


def warnings(done) -> list[str]:
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize("held", [8 << 30, 0])
@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_told_counted_and_changes_no_byte(held, workers, broken, one, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "HELD_BYTES", held)
    done = toying.train(one, broken, tmp_path / "w", "--workers", workers)
    assert done.code == 0, done.stderr
    assert toying.result(tmp_path / "w") == toying.result(trained)
    *each, last = warnings(done)
    assert [Path(line.removeprefix("warning: ").split(": ")[0]).stem for line in each] == list(LOST)
    assert "not a readable image" in each[0] and "truncated" in each[1] and "no such image" in each[2]
    assert last == "warning: 3 of 63 photographs cannot be read and are left out" and "60 images of 18 whales" in done.stderr


def test_provenance_tells_who_was_left_out(broken, trained, one, tmp_path):
    assert toying.train(one, broken, tmp_path / "w").code == 0
    found, none = (json.loads((weights / "provenance.json").read_text()) for weights in (tmp_path / "w", trained))
    assert (found["unreadable"], found["unreadable_ids"], found["images"], found["whales"]) == (3, list(LOST), 60, 18)
    assert (none["unreadable"], none["unreadable_ids"], none["images"]) == (0, [], 60)


def test_an_image_draws_the_same_whoever_is_left_out(broken, without, one):
    spec = toying.spec(one)
    table = training.labelled(broken)
    squares = batches.Squares()
    lost = sift.left_out(table, broken, training.photographs_of(table, broken, spec), squares, 0)
    found = batches.Augmented(training.training_set(table[~table.image_id.isin(lost)], broken, spec, squares), spec, 5, 0)
    expected = batches.Augmented(toying.training_set(without, spec), spec, 5, 0)
    assert len(found.photographs) == 60 and all(np.array_equal(found[2, number][0], expected[2, number][0]) for number in range(60))


def test_a_whale_without_a_photograph_left_drops_out(whole, one, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    single = table[table.whale_id == table.whale_id.value_counts().index[-1]]
    (data / single.path.iloc[0]).write_bytes(b"")
    done = toying.train(one, data, tmp_path / "w")
    assert len(single) == 1 and "62 images of 17 whales" in done.stderr and json.loads((tmp_path / "w" / "provenance.json").read_text())["whales"] == 17


def test_fewer_than_two_whales_left_are_refused(whole, one, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    rewrite(data, lambda table: table.assign(whale_id=["other", *["one"] * (len(table) - 1)]))
    (data / "images" / "train0000.jpg").write_bytes(b"")
    done = toying.train(one, data, tmp_path / "w")
    assert done.code == 2 and "whale_id names 1 individuals" in done.line


def test_more_than_the_share_stop_the_training_and_name_the_first(whole, one, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    for number in range(4):  # 6 % of 63
        (data / "images" / f"train{number:04d}.jpg").write_bytes(b"")
    done = toying.train(one, data, tmp_path / "w")
    assert done.code == 2 and not list(tmp_path.glob("w/*")) and not warnings(done)
    assert "4 of 63 photographs cannot be read, which is more than 5%" in done.line and "train0000.jpg: not a readable image: the file is empty" in done.line


def test_more_missing_than_the_share_are_a_wrong_path(whole, one, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    shutil.rmtree(data / "images")
    done = toying.train(one, data, tmp_path / "w")
    assert done.code == 2 and "train0000.jpg: no such image" in done.line and "(and 62 others that are missing)" in done.line


def test_only_what_trains_is_read_and_counted(broken, one, trained, tmp_path):
    """Photographs of unknown whales that no model wants may be anything."""
    data = shutil.copytree(broken, tmp_path / "data")
    rewrite(data, lambda table: pd.concat([table, table.head(20).assign(image_id=[f"x{k}" for k in range(20)], whale_id="", path="images/train0003.jpg")]))
    done = toying.train(one, data, tmp_path / "w")
    assert done.code == 0 and len(warnings(done)) == 4 and toying.result(tmp_path / "w") == toying.result(trained)


def test_an_interrupted_training_goes_on_without_the_same_photographs(broken, one, trained, tmp_path):
    assert stopped(one, broken, tmp_path / "w").code == 0
    done = toying.train(one, broken, tmp_path / "w", "--resume")
    assert done.code == 0 and toying.result(tmp_path / "w") == toying.result(trained)


def stopped(one, data, output):
    """A training that its time limit stops before the second step."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "timer", lambda *_: lambda: len(asked) > 3 or bool(asked.append(1)))
        done = toying.train(one, data, output)
    assert "stopped by --time-limit" in done.stdout and output.with_name(output.name + ".resume").is_dir()
    return done


@pytest.mark.parametrize("before, after, told", [
    (LOST[:1], LOST[:2], "begun with photograph train0020, which cannot be read any more (and 0 others)"),
    (LOST[:2], LOST[:1], "begun without photograph train0020, which can be read now (and 0 others)"),
])
def test_a_photograph_that_changed_in_between_is_noticed(before, after, told, whole, one, tmp_path):
    """Its size is the same, so the table's fingerprint does not notice."""
    data = shutil.copytree(whole, tmp_path / "data")
    blank(data, before)
    stopped(one, data, tmp_path / "w")
    shutil.copytree(whole / "images", data / "images", dirs_exist_ok=True)
    blank(data, after)
    done = toying.train(one, data, tmp_path / "w", "--resume")
    assert done.code == 2 and told in done.line


def blank(data, names):
    for name in names:
        path = data / "images" / f"{name}.jpg"
        path.write_bytes(bytes(path.stat().st_size))


def test_models_of_one_view_share_what_is_decoded(broken, one, tmp_path, monkeypatch):
    """Three models, of which the first two look alike: the photographs are read twice."""
    read, opened = images.read, []
    monkeypatch.setattr(images, "read", lambda path: opened.append(path) or read(path))
    three = toying.write_recipe(tmp_path / "three.yaml", "a", "b", "c", epochs=1)
    table = yaml.safe_load(three.read_text())
    table["models"]["c"] = {"train": {"size": 48}}
    three.write_text(yaml.safe_dump(table, sort_keys=False))
    assert toying.train(three, broken, tmp_path / "w").code == 0
    assert len(opened) == 63 + 60
    assert toying.train(three, broken, tmp_path / "alone", "--model", "b").code == 0
    assert toying.result(tmp_path / "alone", "b") == toying.result(tmp_path / "w", "b")


def test_a_dry_run_passes_over_what_cannot_be_read(whole, one, tmp_path):
    data = shutil.copytree(whole, tmp_path / "data")
    blank(data, ["train0000"])
    done = toying.train(one, data, tmp_path / "w", "--dry-run")
    assert done.code == 0 and "1 models" in done.stdout


def test_every_odd_file_is_trained_on_or_told(whole, one, tmp_path, monkeypatch):
    data = shutil.copytree(whole, tmp_path / "data")
    corpus, others = odd_images.corpus(), odd_images.not_files(data / "images")
    paths = [odd.write(data / "images") for odd in corpus] + [path for name, path in others.items() if name != "zeros-for-ever"]  # leads out
    rows = pd.DataFrame({"image_id": [path.name for path in paths], "path": [f"images/{path.name}" for path in paths]})
    rows["whale_id"] = [f"odd{number % 7}" for number in range(len(rows))]
    rewrite(data, lambda table: pd.concat([table, rows]))
    monkeypatch.setattr(sift, "SHARE", 0.9)
    done = toying.train(one, data, tmp_path / "w")
    assert done.code == 0, done.stderr
    refused = {odd.name for odd in corpus if odd.seen is None} | {path.name for name, path in others.items() if name != "zeros-for-ever"}
    assert set(json.loads((tmp_path / "w" / "provenance.json").read_text())["unreadable_ids"]) == refused
    assert len(warnings(done)) == len(refused) + 1 and f"{len(rows) + 63 - len(refused)} images of 25 whales" in done.stderr


# What is looked at after hours of training stops nothing

def test_a_fold_to_validate_on_and_a_gallery_may_hold_what_cannot_be_read(tmp_path):
    outer = folds.make(toy.competition(tmp_path / "data", n_whales=15), tmp_path / "folds", "identify") / "0"
    inner = folds.make(outer / "train", tmp_path / "inner", "identify") / "0"
    lost = {}
    for part in (inner / "train", inner / "test", outer / "test"):
        table = pd.read_csv(part / "metadata.csv", dtype=str, keep_default_na=False)
        lost[part] = table.iloc[0]
        (part / table.path[0]).unlink()
        os.mkfifo(part / table.path[0]) if part == inner / "train" else (part / table.path[0]).write_text("no image")
    more = rewrite(outer / "test", lambda table: table.assign(whale_id="newcomer"))
    recipe = toying.write_recipe(tmp_path / "r.yaml", also={"model": {"stages": [4]}, "head": {"kind": "linear", "total": True}}, epochs=1)
    recipe.write_text(recipe.read_text() + "protocol: identify\n")
    done = toying.train(recipe, inner / "train", tmp_path / "w", "--validate", inner, "--gallery", more)
    assert done.code == 0, done.stderr
    held = np.load(tmp_path / "w" / "gallery" / "tiny.npz")["image_id"]
    known = pd.read_csv(inner / "train" / "metadata.csv", dtype=str)
    assert set(known.image_id) - set(held) == {lost[inner / "train"].image_id} and lost[outer / "test"].image_id not in held
    identified = json.loads((tmp_path / "w" / "identify.json").read_text())
    assert identified["n_queries"] == len(pd.read_csv(inner / "truth.csv")) - 1
    assert toying.train(recipe, inner / "train", tmp_path / "w", "--validate", inner, "--gallery", more, "--resume").code == 0


def test_a_fold_of_rankings_may_hold_what_cannot_be_read(whole, one, tmp_path):
    made = folds.make(whole, tmp_path / "folds", "whale", n_folds=2) / "0"
    next(iter(sorted((made / "test" / "images").iterdir()))).write_bytes(b"")
    done = toying.train(one, made / "train", tmp_path / "w", "--validate", made)
    assert done.code == 0 and len(warnings(done)) == 1 and "MAP@20" in done.stderr
