"""The benchmark of reduced decoding: what full scale is, which scale is taken, and what it changes, by naive loops."""

import argparse

import numpy as np
import pytest
from PIL import Image

import toy
from eval.benchmarks import decoding
from eval.files import InputError
from solution import images
from test_embed import ensemble, tiny


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six JPEGs, 90 to 300 pixels on their shorter sides."""
    return toy.competition(tmp_path_factory.mktemp("data") / "data", n_whales=3, size=(90, 300))


def measured(data, weights):
    return decoding.measured(argparse.Namespace(data=data, weights=weights, images=64, repeats=2))


def test_full_scale_is_what_the_predictor_sees(data):
    found = decoding.jpegs(data, 64)
    seen, *seconds = decoding.squares(found, [1] * len(found), 32)
    assert all((pixels == images.square(images.decoded(one.content), 32)).all() for pixels, one in zip(seen, found)) and min(seconds) > 0


@pytest.mark.parametrize("side, least, scale", [(100, 100, 1), (199, 100, 1), (200, 100, 2), (399, 100, 2), (400, 100, 4), (799, 100, 4), (5000, 100, 8), (5000, np.inf, 1)])
def test_the_least_scale_that_leaves_enough_is_taken(side, least, scale):
    assert decoding.scale_of(decoding.Jpeg("", b"", side), least) == scale


def test_what_is_decoded_is_as_small_as_it_is_said_to_be(data):
    for one in decoding.jpegs(data, 64):
        full, half = (decoding.squares([one], [scale], 24)[0] for scale in (1, 2))
        assert (full != half).any() and np.abs(full.astype(int) - half).mean() < 12


def test_a_change_is_that_of_pairs_with_a_reduced_photograph():
    random, reduced = np.random.default_rng(0), np.array([False, True, False, True, False])
    similar, pixels = random.uniform(-1, 1, (2, 5, 5)), random.integers(0, 256, (2, 5, 4, 4, 3)).astype(np.uint8)
    told = decoding.change(reduced, tuple(pixels), tuple(similar))
    changes = [abs(similar[0, a, b] - similar[1, a, b]) for a in range(5) for b in range(5) if a != b and (reduced[a] or reduced[b])]
    assert told["largest_similarity_change"] == max(changes) and told["mean_similarity_change"] == pytest.approx(np.mean(changes))
    assert told["photographs_reduced"] == 2
    assert told["largest_grey_level_change"] == max(abs(int(one) - int(other)) for one, other in zip(pixels[0].ravel(), pixels[1].ravel()))


def test_only_a_reduction_within_the_stated_change_has_a_ratio():
    way = lambda ratio, count, change: {"ratio": ratio, "photographs_reduced": count, "largest_similarity_change": change}
    assert decoding.best({"full": way(9, 0, 0), "a": way(2, 3, 1e-3)}) is None
    assert decoding.best({"a": way(2, 3, 1e-3), "b": way(1.5, 3, 9e-5), "c": way(1.2, 1, 0)}) == 1.5


def test_a_measurement_names_every_way(data, tmp_path, capsys):
    told = measured(data, ensemble(tmp_path / "weights", tiny("m", 0, 32)))
    assert list(told["ways"]) == ["full scale", *(f"{times} times 32 px" for times in (8, 6, 4, 3, 2))]
    reduced = [way["photographs_reduced"] for way in told["ways"].values()]
    assert reduced[0] == 0 and reduced == sorted(reduced) and 0 < reduced[-1] <= told["photographs"]
    for way in told["ways"].values():
        assert (way["largest_similarity_change"] > 0) == (way["photographs_reduced"] > 0) == (way["largest_grey_level_change"] > 0)
        assert way["decode_seconds"] > 0 and way["resize_seconds"] > 0 and len(way["ratio_of_rounds"]) == 2
    decoding.show(told)
    assert f"{told['photographs']} JPEGs" in capsys.readouterr().out


def test_a_damaged_photograph_is_named(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=2)
    path = data / "images" / "train0001.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="train0001.jpg: not a readable JPEG"):
        decoding.jpegs(data, 64)


def test_other_photographs_than_jpegs_do_not_count(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=2)
    for path in sorted((data / "images").iterdir())[1:]:
        with Image.open(path) as image:
            image.save(path, format="PNG")
    with pytest.raises(InputError, match="1 of its photographs are JPEGs; two at least"):
        decoding.jpegs(data, 64)
