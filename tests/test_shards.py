"""Shards: every photograph is embedded by one of them, and together they are the whole, to the byte."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from solution import embed, rank, recipe, shards
from solution.files import InputError
from test_embed import ensemble, tiny

SPECS = tiny("first", 0, 32), tiny("second", 1, 48, predict={"mirror": "off"})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = toy.competition(tmp_path_factory.mktemp("data") / "test", n_whales=3, images_per_whale=(4, 3, 4))  # 11 photographs
    toy.scenarios(data)
    ensemble(data.parent / "weights", *SPECS)
    return data


def command(main, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    main()


def embedded(data, output, monkeypatch, *options):
    command(embed.main, monkeypatch, "--data", data, "--weights", data.parent / "weights", "--output", output, "--device", "cpu", "--engine", "torch", "--no-cache", *options)
    return output


def ranked(data, embeddings, monkeypatch, *options):
    command(rank.main, monkeypatch, "--data", data, "--embeddings", embeddings, "--output", embeddings.parent / f"{embeddings.name}.csv", *options)
    return (embeddings.parent / f"{embeddings.name}.csv").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_shards_joined_are_the_whole_to_the_byte(count, data, tmp_path, monkeypatch):
    """20 shards of 11 photographs: some are empty."""
    whole = embedded(data, tmp_path / "whole", monkeypatch)
    for number in range(count, 0, -1):
        embedded(data, tmp_path / "shards", monkeypatch, "--shard", f"{number}/{count}")
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == sorted(
        [f"{spec.name}.json" for spec in SPECS] + [f"{spec.name}.{number}-of-{count}.npz" for spec in SPECS for number in range(1, count + 1)])
    for name, paths in shards.embedding_files(tmp_path / "shards").items():
        joined, expected = shards.joined(paths), dict(np.load(whole / f"{name}.npz"))
        for part in shards.PARTS:
            np.testing.assert_array_equal(joined[part], expected[part])
            assert joined[part].dtype == expected[part].dtype
    for options in ([], ["--models", "second,first"], ["--no-mirror"]):
        assert ranked(data, tmp_path / "shards", monkeypatch, *options) == ranked(data, whole, monkeypatch, *options)


def test_a_shard_is_every_nth_photograph_from_its_own_on(data, tmp_path, monkeypatch):
    ids = pd.read_csv(data / "metadata.csv").image_id.to_numpy(str)
    embedded(data, tmp_path, monkeypatch, "--shard", "2/3")
    assert list(np.load(tmp_path / "first.2-of-3.npz")["image_id"]) == list(ids[1::3])


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "/", "-1/4", "1/4/2", "a/b", "1 /4", "1/9999999"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not i/n with i from 1 to n"):
        shards.shard(text)


def files(folder, *names, n=2):
    for name in names:
        np.savez(folder / f"{name}.npz", image_id=np.array([f"{name}{row}" for row in range(n)]), plain=np.ones((n, 4), np.float32), mirror=np.ones((n, 4), np.float32))
    return folder


@pytest.mark.parametrize("names, words", [
    (["m.1-of-4", "m.4-of-4"], "of model m shard 2/4 is missing, and 1 more; python -m solution.embed --shard 2/4 makes it"),
    (["m.2-of-2"], "of model m shard 1/2 is missing; "),
    (["m", "m.1-of-2", "m.2-of-2"], "holds the whole and shards of 2 of model m; remove what is not to be used"),
    (["m", "m.1-of-1"], "holds the whole and shards of 1 of model m"),
    (["m.1-of-2", "m.2-of-2", "m.1-of-3"], "holds shards of 2 and shards of 3 of model m"),
    (["m.3-of-2", "m.1-of-2"], "of model m there is a shard 3/2; remove it"),
    (["a", "m.1-of-2"], "of model m shard 2/2 is missing"),
])
def test_shards_that_are_missing_or_of_two_divisions_are_told(names, words, tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: ") as told:
        shards.embedding_files(files(tmp_path, *names))
    assert words in str(told.value)


def test_shards_of_other_photographs_or_weights_are_told(tmp_path):
    files(tmp_path, "m.1-of-2", n=3), files(tmp_path, "m.2-of-2", n=5)
    with pytest.raises(InputError, match="m.2-of-2.npz: does not fit to the other shards|m.1-of-2.npz: does not fit to the other shards"):
        shards.joined(shards.embedding_files(tmp_path)["m"])
    files(tmp_path, "m.2-of-2", n=3)
    np.savez(tmp_path / "m.2-of-2.npz", image_id=np.array(["a", "b", "c"]), plain=np.ones((3, 5), np.float32), mirror=np.ones((3, 5), np.float32))
    with pytest.raises(InputError, match="m.2-of-2.npz: does not fit to the other shards"):
        shards.joined(shards.embedding_files(tmp_path)["m"])


def test_ranking_names_the_missing_shard_in_one_line(data, tmp_path, monkeypatch):
    embedded(data, tmp_path / "e", monkeypatch, "--shard", "1/2")
    with pytest.raises(InputError, match="shard 2/2 is missing"):
        ranked(data, tmp_path / "e", monkeypatch)


def test_a_directory_without_shards_is_each_models_one_file(data, tmp_path, monkeypatch):
    embedded(data, tmp_path, monkeypatch)
    assert shards.embedding_files(tmp_path) == {spec.name: [tmp_path / f"{spec.name}.npz"] for spec in SPECS}
    assert [spec.name for spec in recipe.specs(data.parent / "weights")] == list(shards.embedding_files(tmp_path))
    assert shards.embedding_files(Path(tmp_path / "nowhere")) == {}
