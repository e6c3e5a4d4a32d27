"""What a training sees against its definition: which images come when, with which label, and what is done to them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
import toy_training as toying
from solution import batches, images, recipe
from solution.augment import Augmentation
from solution.batches import Augmented, Batches, TrainingSet, by_whale

OFF = dict.fromkeys(recipe.plain(recipe.Augment()), 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return toying.spec(toying.write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.yaml"))


def spec_of(folder, augment={}, **train):
    return toying.spec(toying.write_recipe(folder / "recipe.yaml", also={"augment": augment}, **train))


def some_unknown(data: Path, folder: Path) -> Path:
    """The same photographs, every fourth without its whale."""
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table.loc[::4, "whale_id"] = ""
    table.to_csv(folder / "metadata.csv", index=False)
    (folder / "images").mkdir()
    for path in table.path:
        (folder / path).hardlink_to(data / path)
    return folder


def epoch_of(labels, seed=0, rank=0, world=1, epoch=0, step=0, **train):
    """The batches of an epoch, as lists of (epoch, number)."""
    made = Batches(np.asarray(labels), recipe.Train(**train), seed, rank, world)
    made.epoch, made.step = epoch, step
    listed = list(made)
    assert len(made) == len(listed)
    return listed


def numbers(*args, **more):
    return [[number for _, number in batch] for batch in epoch_of(*args, **more)]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_an_epoch_is_a_permutation_in_batches_and_the_processes_share_each_batch(world):
    labels = np.zeros(31, int)
    for epoch in range(3):
        ranks = [epoch_of(labels, 5, rank, world, epoch, batch_size=8) for rank in range(world)]
        assert [len(of_rank) for of_rank in ranks] == [31 // 8] * world  # 7 images are dropped
        for parts in zip(*ranks):
            assert {len(part) for part in parts} == {8 // world}
        together = [key for parts in zip(*ranks) for part in parts for key in part]
        assert {key[0] for key in together} == {epoch}
        assert len({number for _, number in together}) == 24 and {number for _, number in together} <= set(range(31))
        alone = epoch_of(labels, 5, 0, 1, epoch, batch_size=8)
        assert [sorted(sum(parts, [])) for parts in zip(*ranks)] == [sorted(batch) for batch in alone]


SAMPLINGS = {"sampling": "shuffle"}, {"sampling": "whales"}, {"sampling": "whales", "images_per_whale": 5}


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_order_changes_with_the_epoch_and_the_seed_and_with_nothing_else(sampling):
    labels, given = np.arange(100) % 23, {"batch_size": 10, **sampling}
    order = numbers(labels, 0, 0, 1, 0, **given)
    assert order == numbers(labels, 0, 0, 1, 0, **given)
    assert order != numbers(labels, 0, 0, 1, 1, **given) and order != numbers(labels, 1, 0, 1, 0, **given)
    assert order[4:] == numbers(labels, 0, 0, 1, 0, 4, **given)  # a resumed epoch goes on with the batches that are left


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_over_many_epochs_no_image_is_always_left_out(sampling):
    labels = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 1, 2, 3, 4, 6])
    seen = np.bincount(np.concatenate([np.concatenate(numbers(labels, epoch=epoch, batch_size=10, **sampling)) for epoch in range(40)]), minlength=31)
    fair = 40 * 30 / 31 if sampling["sampling"] == "shuffle" else 40 * 30 / 10 / np.bincount(labels)[labels]
    assert (seen > 0.5 * fair).all() and len(seen) == 31


@pytest.mark.parametrize("world", [1, 2])
def test_sampled_by_whales_the_processes_share_each_batch_too(world):
    labels, given = np.arange(60) % 7, {"batch_size": 12, "sampling": "whales", "images_per_whale": 4}
    parts = [numbers(labels, 3, rank, world, **given) for rank in range(world)]
    assert [sorted(sum(batch, [])) for batch in zip(*parts)] == [sorted(batch) for batch in numbers(labels, 3, **given)]
    assert {len(batch) for part in parts for batch in part} == {12 // world}


COUNTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]  # images of twelve whales
WHALES = np.random.default_rng(0).permutation(np.repeat(np.arange(12), COUNTS))


@pytest.mark.parametrize("each, whales", [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2)])
def test_a_batch_holds_so_many_images_of_so_many_whales(each, whales):
    """Twelve whales are rounds of whole batches here, so no whale comes in a batch twice."""
    for epoch in range(4):
        for batch in numbers(WHALES, 2, epoch=epoch, batch_size=each * whales, sampling="whales", images_per_whale=each):
            held = Counter(WHALES[batch])
            assert set(held.values()) == {each} and len(held) == whales
            for whale in held:
                different = len({number for number in batch if WHALES[number] == whale})
                assert different == min(each, COUNTS[whale])


def test_a_whales_images_stand_side_by_side_also_where_rounds_do_not_fill_batches():
    for batch in numbers(WHALES, 4, batch_size=15, sampling="whales", images_per_whale=3):
        turns = WHALES[batch].reshape(-1, 3)
        assert (turns == turns[:, :1]).all()


@pytest.mark.parametrize("each", [1, 3])
def test_every_whale_comes_equally_often_up_to_one_round_and_its_images_by_turns(each):
    for epoch in range(3):
        order = np.concatenate(numbers(WHALES, 1, epoch=epoch, batch_size=6, sampling="whales", images_per_whale=each))
        assert len(order) == len(WHALES)  # 78 images, 13 batches
        times = np.bincount(WHALES[order], minlength=12)
        assert times.max() - times.min() <= each
        for whale in range(12):
            of_each = np.bincount(order, minlength=78)[WHALES == whale]
            assert of_each.max() - of_each.min() <= 1 and of_each.sum() == times[whale]


def test_one_image_per_whale_is_oversampling():
    """A round is every whale once, so 78 draws are six and a half rounds: the whale with one image shows it six or seven times."""
    order = np.concatenate(numbers(WHALES, batch_size=6, sampling="whales"))
    rounds = WHALES[order][:72].reshape(6, 12)
    assert (np.sort(rounds, axis=1) == np.arange(12)).all()
    assert len({tuple(turn) for turn in rounds}) == 6  # in another order each time
    (single,) = np.flatnonzero(WHALES == 0)
    assert (order == single).sum() in (6, 7)


def test_by_whale_gives_numbers_of_the_whale_and_enough_of_them():
    shuffled = np.random.default_rng(5).permutation(78)
    order = by_whale(WHALES[shuffled], 4, np.random.default_rng(6), shuffled)
    assert 78 <= len(order) < 78 + 4 * 12 and len(order) % (4 * 12) == 0
    assert np.array_equal(np.bincount(WHALES[order]), np.full(12, len(order) // 12))


def training(labels, whales, mirrored):
    labels = np.asarray(labels)
    names = np.array([f"w{k}" for k in range(whales)])
    return TrainingSet(images.Photographs([], []), labels, np.zeros(len(labels), int), names, np.array([""]), np.full(len(labels), ""), "", mirrored)


def test_labels_and_counts_are_those_of_the_known_whales():
    plain = training([2, -1, 0, 1, 2, -1], 3, mirrored=False)
    assert plain.all_labels.tolist() == [2, -1, 0, 1, 2, -1] and plain.counts.tolist() == [1, 1, 2]


def test_mirror_images_are_whales_of_their_own_after_the_others():
    both = training([2, -1, 0, 1, 2, -1], 3, mirrored=True)
    assert both.all_labels.tolist() == [2, -1, 0, 1, 2, -1, 5, -1, 3, 4, 5, -1]
    assert both.counts.tolist() == [1, 1, 2, 1, 1, 2] and both.labels.tolist() == [2, -1, 0, 1, 2, -1]


def test_an_item_beyond_the_photographs_is_the_exact_mirror_image(tmp_path, data):
    still = spec_of(tmp_path, OFF, mirror_identities=True)
    both = toying.training_set(data, still)
    items, n, whales = Augmented(both, still, 0, workers=0), len(both.labels), len(both.whale_ids)
    assert (n, whales, len(both.all_labels)) == (31, 10, 62)
    for i in range(n):
        (image, label, species), (mirror, own, same) = items[1, i], items[1, n + i]
        assert np.array_equal(image, both.photographs[i][0]) and np.array_equal(mirror, image[:, ::-1])
        assert own == label + whales and species == same == 0 and not np.array_equal(mirror, image)


def test_a_mirror_image_is_augmented_by_its_own_number(tmp_path, data, monkeypatch):
    moving = spec_of(tmp_path, mirror_identities=True)
    both = toying.training_set(data, moving)
    held = Augmented(both, moving, 7, workers=0)
    monkeypatch.setattr(batches, "HELD_BYTES", 0)
    decoded = Augmented(both, moving, 7, workers=0)
    assert held.held is not None and decoded.held is None
    for number in (31, 40, 61):
        mirror = np.ascontiguousarray(both.photographs[number - 31][0][:, ::-1])
        expected = Augmentation(moving.augment, 32)(mirror, (7, 2, number))
        assert np.array_equal(held[2, number][0], expected) and np.array_equal(decoded[2, number][0], expected)


def test_an_epoch_with_mirror_identities_is_a_permutation_of_both(data, tmp_path):
    both = toying.training_set(data, spec_of(tmp_path, mirror_identities=True))
    order = np.concatenate(numbers(both.all_labels, batch_size=2))
    assert sorted(order) == list(range(62))


def test_unknown_whales_keep_the_label_of_no_class_and_are_left_out_unless_asked_for(tmp_path, data):
    (tmp_path / "data").mkdir()
    partly = some_unknown(data, tmp_path / "data")
    table = pd.read_csv(partly / "metadata.csv", dtype=str, keep_default_na=False)
    asked = spec_of(tmp_path, unknown=True, mirror_identities=True)
    training = toying.training_set(partly, asked)
    names = sorted(set(table.whale_id) - {""})
    expected = [names.index(whale) if whale else -1 for whale in table.whale_id]
    assert training.whale_ids.tolist() == names and training.labels.tolist() == expected and expected.count(-1) == 8
    items = Augmented(training, asked, 0, workers=0)
    labels = [items[0, number][1] for number in range(62)]
    assert labels == expected + [-1 if label < 0 else label + len(names) for label in expected]
    without = toying.training_set(partly, spec_of(tmp_path))
    assert without.labels.tolist() == [label for label in expected if label >= 0] and len(without.photographs) == 23
    assert np.array_equal(without.counts, training.counts[: len(names)]) and without.whale_ids.tolist() == names


def test_held_images_are_the_images_decoded_each_time(data, one, monkeypatch):
    training = toying.training_set(data, one)
    held = Augmented(training, one, 0, workers=0)
    monkeypatch.setattr(batches, "HELD_BYTES", 0)
    decoded = Augmented(training, one, 0, workers=0)
    assert held.held is not None and decoded.held is None
    for number in range(31):
        (image, label, species), (other, same, alike) = held[2, number], decoded[2, number]
        assert np.array_equal(image, other) and label == same == training.labels[number] and species == alike


def test_an_augmented_image_depends_on_seed_epoch_and_number_alone(data, one):
    training = toying.training_set(data, one)
    first, second = Augmented(training, one, 7, 0), Augmented(training, one, 7, 0)
    forwards = [first[1, number][0] for number in range(31)]
    backwards = [second[1, number][0] for number in reversed(range(31))][::-1]
    assert all(map(np.array_equal, forwards, backwards))
    assert not all(np.array_equal(first[2, number][0], forwards[number]) for number in range(31))
    alone = Augmentation(one.augment, 32)(training.photographs[4][0], (7, 1, 4))
    assert np.array_equal(alone, forwards[4])
