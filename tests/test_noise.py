"""Planted label errors: what is planted, what a list of doubts is worth by a plain loop, and the whole measurement."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
import toy_training as toying
from eval import folds, noise
from eval.files import InputError

ROOT = Path(__file__).parents[1]
WHALES, EPOCHS = 24, 2  # of the whole measurement


def metadata(n, whales, unknown=0):
    return pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "whale_id": [f"w{k % whales}" for k in range(n - unknown)] + [""] * unknown})


@pytest.mark.parametrize("share, seed", [(0.05, 0), (0.05, 1), (0.3, 0)])
def test_a_share_of_the_labelled_photographs_gets_another_name_of_the_same_data(share, seed):
    rows = noise.planted(metadata(210, 7, unknown=10), share, seed)
    wrong = rows[rows.whale_id != rows.given]
    assert len(rows) == 200 and len(wrong) == round(200 * share) and set(rows.given) <= set(rows.whale_id)
    pd.testing.assert_frame_equal(rows, noise.planted(metadata(210, 7, unknown=10), share, seed))
    assert not rows.given.equals(noise.planted(metadata(210, 7, unknown=10), share, seed + 5).given)


def test_each_other_name_is_as_likely():
    given = pd.concat([noise.planted(metadata(400, 5), 0.5, seed) for seed in range(20)])
    counts = given[given.whale_id != given.given].groupby(["whale_id", "given"]).size()
    assert len(counts) == 20 and counts.max() < 1.35 * counts.min()


@pytest.mark.parametrize("n, whales, share", [(10, 1, 0.5), (10, 5, 0.04), (10, 5, 0.99)])
def test_a_share_that_plants_nothing_or_everything_is_refused(n, whales, share):
    with pytest.raises(InputError, match="--share"):
        noise.planted(metadata(n, whales), share, 0)


def test_the_copy_differs_by_the_names_alone(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=6)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    rows = noise.planted(table, 0.2, 0)
    copy = noise.relabelled(data, rows, tmp_path / "copy")
    wrong = pd.read_csv(copy / "metadata.csv", dtype=str)
    pd.testing.assert_frame_equal(wrong.drop(columns="whale_id"), table.drop(columns="whale_id"))
    assert wrong.whale_id.tolist() == rows.given.tolist() and (wrong.whale_id != table.whale_id).sum() == round(0.2 * len(table))
    assert all((copy / path).read_bytes() == (data / path).read_bytes() for path in table.path)


def test_precision_recall_and_average_precision_are_those_of_a_plain_loop():
    random = np.random.default_rng(0)
    rows = noise.planted(metadata(100, 8), 0.1, 3)
    true, given = (dict(zip(rows.image_id, rows[name])) for name in ("whale_id", "given"))
    doubt = {image: random.normal() + 1.5 * (true[image] != given[image]) for image in rows.image_id}
    listed = sorted(doubt, key=lambda image: -doubt[image])
    doubts = pd.DataFrame({"image_id": listed, "doubt": [doubt[image] for image in listed], "other_whale_id": [true[image] if random.uniform() < 0.5 else "w0" for image in listed]})
    found = noise.found(doubts, rows)
    hits = [true[image] != given[image] for image in listed]
    for times in (0.5, 1, 2, 4):
        first = hits[: int(10 * times)]
        assert found["by_rows"][f"{times:g}"] == {"rows": len(first), "precision": pytest.approx(sum(first) / len(first)), "recall": pytest.approx(sum(first) / 10)}
    assert found["average_precision"] == pytest.approx(sum(sum(hits[: k + 1]) / (k + 1) for k in range(100) if hits[k]) / 10)
    sure = [hit for hit, image in zip(hits, listed) if doubt[image] > 0]
    assert found["threshold"] == {"rows": len(sure), "precision": pytest.approx(np.mean(sure)), "recall": pytest.approx(sum(sure) / 10)}
    right = [suggested == true[image] for image, suggested in zip(listed, doubts.other_whale_id) if true[image] != given[image]]
    assert found["suggestion_right"] == pytest.approx(np.mean(right)) and found["planted"] == 10
    nothing = noise.found(doubts.assign(doubt=-1.0), rows)["threshold"]
    assert nothing == {"rows": 0, "precision": None, "recall": 0}


def command(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "eval.noise", *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("words, told", [(["--share", "0"], "no share between 0 and 1"), (["--seed", "-1"], "--seed: is -1"), ([], "truth.csv: no such file")])
def test_wrong_words_are_told_before_anything_is_trained(tmp_path, words, told):
    done = command("--fold", tmp_path, "--recipe", "demo", *words)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_whole_measurement_plants_finds_and_compares(tmp_path):
    """Three trainings of a tiny model, half a minute."""
    data = toy.competition(tmp_path / "data", n_whales=WHALES)
    fold = folds.make(data, tmp_path / "folds", "whale", n_folds=2) / "0"
    work = toying.write_recipe(tmp_path / "recipe.yaml", epochs=EPOCHS)
    done = command("--fold", fold, "--recipe", work, "--share", 0.2, "--device", "cpu", "--output", tmp_path / "noise.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "noise.json").read_text())
    assert result["photographs"] == len(pd.read_csv(fold / "train/metadata.csv")) and list(result["map20"]) == list(noise.TRAININGS)
    assert all(0 < each["map20"] <= 1 for each in result["map20"].values()) and "average precision" in done.stdout
