"""The search against a plain loop over its grid, calibrations against what the data were drawn from."""

import dataclasses
import itertools
import math
import resource
import sys
import time

import numpy as np
import pytest

from solution import calibrate, identify, recipe

SMALL = calibrate.Grid((0.5, 2.0), (0.0, 1.0, 2.0), (0.0, 1.0, 3.0), (0.0, 0.2, 0.4), (0.0, 0.25, 0.5, 0.75, 0.9), (0.0, 0.25, 0.5, 0.75))
POINTS = [60, 30, 20, 15, 12]  # sixtieths, which a computer adds without rounding


def naive_search(similarity, probability, truth, grid):
    """Every combination in turn, every query sorted; the first that is best."""
    found = None
    for temperature in grid.temperatures:
        P = probability(temperature).tolist()
        for c1, c2, c3, theta_f, theta_p in itertools.product(grid.c1, grid.c2, grid.c3, grid.theta_f, grid.theta_p):
            points = 0
            for s, p, true in zip(similarity.tolist(), P, truth.tolist()):
                scores = [(c1 + c2) * a + c3 * b for a, b in zip(s, p)] + [c1 * s[-1] + (c2 * theta_f + c3 * theta_p)]
                order = sorted(range(len(scores)), key=lambda column: (-scores[column], column))[:5]
                points += POINTS[order.index(true)] if true in order else 0
            if found is None or points > found[0]:
                found = points, (temperature, c1, c2, c3, theta_f, theta_p)
    return calibrate.Found(*found[1], found[0] / 60 / len(truth))


def queries(seed, q, k, levels=None):
    """Similarities, logits and truth of q queries and k whales: known, new, and some without a column; equal values where `levels` is given."""
    rng = np.random.default_rng([seed, q, k])
    truth = rng.choice([-1, k, *range(k)], q, p=[0.1, 0.35, *[0.55 / k] * k])
    similarity, logits = rng.beta(4, 8, (q, k + 1)), rng.normal(0, 2, (q, k))
    known = np.flatnonzero((truth >= 0) & (truth < k))
    similarity[known, truth[known]] += rng.normal(0.2, 0.2, len(known))
    logits[known, truth[known]] += rng.normal(3, 3, len(known))
    similarity = np.clip(similarity, 0, 1)
    if levels:
        similarity, logits = np.round(similarity * levels) / levels, np.round(logits)
    return similarity.astype(np.float32), logits.astype(np.float32), truth


def check(similarity, probability, truth, grid):
    found, expected = (search(similarity, probability, truth, grid) for search in (calibrate.search, naive_search))
    assert dataclasses.replace(found, map5=0) == dataclasses.replace(expected, map5=0)
    assert found.map5 == pytest.approx(expected.map5, abs=1e-12)


def softmax_of(logits):
    return lambda temperature: identify.probabilities(logits, temperature)


# The search

@pytest.mark.parametrize("levels", [None, 4, 8, 1])
@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_what_a_plain_loop_finds(seed, levels):
    similarity, logits, truth = queries(seed, 12, 6, levels)
    check(similarity, softmax_of(logits), truth, SMALL)


@pytest.mark.parametrize("levels", [None, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_among_many_whales_leaves_none_out_that_matters(seed, levels):
    similarity, logits, truth = queries(seed, 25, 60, levels)
    check(similarity, softmax_of(logits), truth, calibrate.Grid((0.1, 3.0), (0.0, 1.0), (0.0, 4.0), (0.0, 0.2, 0.8), (0.3, 0.6), (0.0, 0.5, 0.9)))


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("spread", [0.1, 0.5, 3.0])
def test_the_leading_whales_are_those_of_all_columns_sorted(levels, spread):
    similarity, logits, _ = queries(10, 300, 80, levels)
    similarity, probability = similarity**2, identify.probabilities(logits, spread)
    for (c12, c3), (columns, scores) in calibrate.leading(similarity, probability, calibrate.Grid()).items():
        everything = c12 * similarity[:, :-1].astype(float) + c3 * probability.astype(float)
        np.testing.assert_array_equal(columns, np.argsort(-everything, axis=1, kind="stable")[:, :5])
        np.testing.assert_array_equal(scores, np.take_along_axis(everything, columns, axis=1))


@pytest.mark.parametrize("k", [1, 3, 4, 5])
def test_the_search_knows_fewer_whales_than_places(k):
    similarity, logits, truth = queries(1, 15, k, 4)
    check(similarity, softmax_of(logits), truth, SMALL)


@pytest.mark.parametrize("weights", [(0.0,), (1.0,)])
def test_a_grid_of_one_point_is_that_point(weights):
    similarity, logits, truth = queries(2, 15, 8)
    check(similarity, softmax_of(logits), truth, calibrate.Grid((2.2,), weights, (0.0,), weights, (0.4,), (0.4,)))


def test_queries_that_resemble_nothing_are_searched_too():
    similarity, logits, truth = queries(3, 20, 30)
    similarity[::2, :-1] = 0
    logits[::3] = np.where(np.arange(30) == 4, 0, -200)  # probabilities of exactly 0
    check(similarity, softmax_of(logits), truth, SMALL)


@pytest.mark.parametrize("seed", range(3))
def test_the_published_thresholds_are_searched_to_the_last_bit(seed):
    """Scores on the very thresholds: sums that are equal on paper differ by rounding, here as in the plain loop."""
    grid = calibrate.Grid((1.0,), (1.0,), (1.0,), (0.2,), calibrate.Grid().theta_f[:40], calibrate.Grid().theta_p[::30])
    similarity, logits, truth = queries(seed, 8, 6)
    similarity = np.random.default_rng(seed).choice(grid.theta_f, similarity.shape).astype(np.float32) / 2
    check(similarity, softmax_of(logits), truth, grid)


@pytest.mark.parametrize("levels", [None, 4])
def test_without_a_classifier_only_distances_are_searched(levels):
    similarity, _, truth = queries(4, 20, 9, levels)
    found = calibrate.search(similarity, None, truth, SMALL)
    zero = lambda temperature: np.zeros((20, 9), np.float32)
    expected = naive_search(similarity, zero, truth, dataclasses.replace(SMALL, temperatures=(1.0,), c3=(0.0,)))
    assert dataclasses.replace(found, map5=0) == dataclasses.replace(expected, map5=0)


def test_a_whale_without_a_column_is_never_found():
    similarity, logits, _ = queries(5, 10, 7)
    assert calibrate.search(similarity, softmax_of(logits), np.full(10, -1), SMALL).map5 == 0


def test_what_the_search_promises_is_what_merged_scores_reach():
    similarity, logits, truth = queries(6, 200, 30)
    identification = calibrate.fitted(similarity, softmax_of(logits), truth, truth.astype(str), recipe.Identify(), SMALL)
    scores = identify.merged(similarity, identify.probabilities(logits, identification.temperature), identification)
    reached = [1 / (order.index(true) + 1) if true in order else 0 for order, true in zip(identify.best(scores).tolist(), truth.tolist())]
    assert math.fsum(reached) / 200 == pytest.approx(identification.map5, abs=1e-12)
    assert identification.map5 > 0.5


# Calibration

def drawn(seed, scale, bias, q=4000, k=12):
    """Scores and a truth drawn from the chances they have at this scale and bias."""
    rng = np.random.default_rng([seed, 77])
    scores = rng.random((q, k + 1))
    exponents = scale * scores + bias * (np.arange(k + 1) == k)
    chance = np.exp(exponents) / np.exp(exponents).sum(axis=1, keepdims=True)
    return scores, (chance.cumsum(axis=1) < rng.random((q, 1))).sum(axis=1).clip(max=k)


@pytest.mark.parametrize("scale, bias", [(8.0, 1.5), (20.0, -3.0), (1.0, 0.0)])
def test_scale_and_bias_are_recovered_from_what_they_made(scale, bias):
    found = calibrate.calibration(*drawn(0, scale, bias))
    assert found[0] == pytest.approx(scale, rel=0.07, abs=0.15) and found[1] == pytest.approx(bias, abs=0.3)


def test_the_calibration_is_the_minimum_of_the_loss_written_out():
    scores, truth = drawn(1, 6.0, -1.0, q=300, k=3)

    def loss(scale, bias):
        total = 0.0
        for row, true in zip(scores.tolist(), truth.tolist()):
            exponents = [scale * score for score in row[:-1]] + [scale * row[-1] + bias]
            total += math.log(math.fsum(math.exp(exponent) for exponent in exponents)) - exponents[true]
        return total / len(truth)

    scale, bias = calibrate.calibration(scores, truth)
    assert all(loss(scale, bias) < loss(scale + a, bias + b) for a, b in [(0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)])


def test_a_whale_without_a_column_counts_as_new():
    scores, truth = drawn(2, 5.0, 0.0, q=500)
    assert calibrate.calibration(scores, np.where(truth == 12, -1, truth)) == calibrate.calibration(scores, truth)


def test_scores_that_separate_perfectly_have_a_finite_scale():
    truth = np.arange(40) % 5
    scale, bias = calibrate.calibration(0.3 + 0.5 * np.eye(5)[truth], truth)
    assert 20 < scale < 1000 and abs(bias) < 10


def test_useless_scores_keep_a_scale_above_0():
    scores, truth = drawn(3, 5.0, 0.0)
    scale, _ = calibrate.calibration(-scores, truth)
    assert 0 < scale < 0.01


def test_a_and_b_are_recovered_from_what_they_made():
    rng = np.random.default_rng(4)
    best = rng.random(20_000)
    found = calibrate.calibration_of_best(best.astype(np.float32), rng.random(20_000) < 1 / (1 + np.exp(-(9 - 20 * best))))
    np.testing.assert_allclose(found, (9, -20), rtol=0.05)


@pytest.mark.parametrize("is_new", [np.arange(50) < 25, np.zeros(50, bool), np.ones(50, bool)])
def test_similarities_that_separate_perfectly_have_finite_chances(is_new):
    a, b = calibrate.calibration_of_best(np.linspace(0.1, 0.9, 50), is_new)
    assert np.isfinite([a, b]).all() and b < 0
    chance = 1 / (1 + np.exp(-(a + b * np.linspace(0.1, 0.9, 50))))
    assert ((chance > 0.5) == is_new).all() and 0.001 < chance.min() and chance.max() < 0.999


# The interval

def test_the_interval_is_that_of_whales_drawn_one_by_one():
    rng = np.random.default_rng(5)
    whale = np.array([f"w{number}" for number in rng.integers(0, 20, 60)] + [""] * 15)
    values = rng.random(75)
    groups = [values[whale == name] for name in sorted(set(whale) - {""})] + [[value] for value in values[60:]]
    means = [np.concatenate([groups[n] for n in rng.integers(len(groups), size=len(groups))]).mean() for _ in range(4000)]
    np.testing.assert_allclose(calibrate.interval(values, whale, 4000), np.percentile(means, [2.5, 97.5]), atol=0.008)


def test_one_whale_that_makes_the_difference_widens_the_interval():
    values, alone = np.repeat([1.0, 0.0], 50), np.full(100, "")
    low, high = calibrate.interval(values, alone)
    wide = calibrate.interval(values, np.repeat(["a", "b"], 50))
    assert wide == (0, 1) and 0.35 < low < 0.5 < high < 0.65
    assert calibrate.interval(values, alone) == (low, high) != calibrate.interval(values, alone, seed=1)


# All of it

def test_everything_fitted_travels_through_identify_json(tmp_path):
    similarity, logits, truth = queries(7, 150, 20)
    wanted = recipe.Identify(new_share=0.165, by_species=True, columns=("image", "predictions"), new="new_individual")
    identification = calibrate.fitted(similarity, softmax_of(logits), truth, truth.astype(str), wanted, SMALL)
    assert identify.read(identify.write(identification, tmp_path / "identify.json")) == identification
    assert identification.ci95[0] < identification.map5 < identification.ci95[1] and identification.n_queries == 150
    assert (identification.new_share, identification.by_species, identification.columns, identification.new) == (0.165, True, ("image", "predictions"), "new_individual")
    assert calibrate.fitted(similarity, softmax_of(logits), truth, truth.astype(str), wanted, SMALL) == identification


def test_fitted_chances_are_as_often_right_as_they_say():
    similarity, logits, truth = queries(8, 3000, 20)
    identification = calibrate.fitted(similarity, softmax_of(logits), truth, truth.astype(str), recipe.Identify(), SMALL)
    chance = identify.chances(identify.merged(similarity, identify.probabilities(logits, identification.temperature), identification), identification)
    unknown = (truth < 0) | (truth == 20)
    assert chance[:, -1].mean() == pytest.approx(unknown.mean(), abs=0.01)
    right = chance.argmax(axis=1) == np.where(unknown, 20, truth)
    assert chance.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.05)
    assert identify.chance_new_of_best(similarity[:, :-1].max(axis=1), identification).mean() == pytest.approx(unknown.mean(), abs=0.01)


def test_the_recipe_says_what_counts_and_at_which_temperature():
    similarity, logits, truth = queries(10, 120, 20)
    of = lambda **wanted: calibrate.fitted(similarity, softmax_of(logits), truth, truth.astype(str), recipe.Identify(**wanted), SMALL)
    classifier, neighbours, warm = of(by="classifier", temperature=1.0), of(by="neighbours"), of(temperature=0.7)
    assert (classifier.c1, classifier.c2, classifier.temperature) == (0, 0, 1) and classifier.c3 > 0
    assert neighbours.c3 == 0 and warm.temperature == 0.7
    assert of().map5 >= max(classifier.map5, neighbours.map5)


def test_new_queries_are_resampled_alone_whatever_their_label():
    similarity, logits, truth = queries(9, 120, 20)
    named, unnamed = (np.where(truth == 20, label, truth.astype(str)) for label in ("new_whale", ""))
    assert calibrate.fitted(similarity, None, truth, named, recipe.Identify(), SMALL) == calibrate.fitted(similarity, None, truth, unnamed, recipe.Identify(), SMALL)


@pytest.mark.slow
def test_the_published_grids_are_searched_at_full_size():
    """One photograph of each whale that has two or more, and 1,000 new ones, against 5,004; prints its seconds."""
    similarity, logits, truth = queries(0, 3931, 5004)
    start = time.perf_counter()
    found = calibrate.search(similarity, softmax_of(logits), truth)
    print(f"{found}: {time.perf_counter() - start:.1f} s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB", file=sys.stderr)
    scores = identify.merged(similarity, identify.probabilities(logits, found.temperature), found)
    assert calibrate.precision(scores, truth).mean() == pytest.approx(found.map5, abs=1e-12)
