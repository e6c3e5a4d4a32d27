"""Identification against plain loops over pairs and columns, and the size and speed of the real task."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from solution import identify
from solution.files import InputError

ROOT = Path(__file__).parents[1]
LABELS = Path(__file__).parents[2] / "shared" / "data" / "hwi" / "train.csv"

FITTED = identify.Identification(
    temperature=2.2, theta_p=0.4, theta_f=0.25, c1=1.0, c2=2.0, c3=0.6, map5=0.8, ci95=(0.7, 0.9), n_queries=50, scale=20.0, bias=-0.5, nearest=(15.0, -40.0)
)


def unit_rows(n, d=8, seed=0):
    rows = np.random.default_rng([seed, n]).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def photographs(seed, n_queries=9, m=40, known=12):
    """Queries, gallery and whose each gallery image is; some individuals have none."""
    return unit_rows(n_queries, seed=seed), unit_rows(m, seed=seed + 100), np.random.default_rng(seed).integers(0, known + 1, m), known


def scored(seed, n=60, k=7, levels=None):
    """Similarities (n, k + 1) and probabilities (n, k); where `levels` is given, multiples of 1 / levels, so that many are equal."""
    rng = np.random.default_rng(seed)
    similarity, logits = rng.random((n, k + 1)), rng.normal(0, 2, (n, k))
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    similarity, probability = (np.round(values * levels) / levels if levels else values for values in (similarity, probability))
    return similarity.astype(np.float32), probability.astype(np.float32)


# Similarities

@pytest.mark.parametrize("seed", range(5))
def test_a_similarity_is_that_of_the_nearest_image(seed):
    queries, gallery, individual, known = photographs(seed)
    found = identify.similarities(queries, gallery, individual, known)
    assert found.shape == (9, known + 1) and found.dtype == np.float32
    for query, row in zip(queries.astype(float), found):
        for number, value in enumerate(row):
            distances = [math.dist(query, image) for image, whose in zip(gallery.astype(float), individual) if whose == number]
            assert value == pytest.approx((2 - min(distances, default=2)) / 2, abs=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 9, 39, 40, 41, 1000])
def test_blocks_of_any_size_give_the_same_similarities(block):
    queries, gallery, individual, known = photographs(1, n_queries=50)
    np.testing.assert_allclose(identify.similarities(queries, gallery, individual, known, block), identify.similarities(queries, gallery, individual, known), atol=1e-6)


def test_the_order_of_the_gallery_does_not_matter():
    queries, gallery, individual, known = photographs(2)
    order = np.random.default_rng(3).permutation(len(gallery))
    np.testing.assert_allclose(identify.similarities(queries, gallery[order], individual[order], known), identify.similarities(queries, gallery, individual, known), atol=1e-6)


def test_a_copy_of_the_query_in_the_gallery_has_similarity_1_and_its_opposite_0():
    queries = unit_rows(30, 2048)
    found = identify.similarities(queries, np.concatenate([queries, -queries]), np.arange(60), 60)
    np.testing.assert_allclose(found[np.arange(30), np.arange(30)], 1, atol=1e-3)
    np.testing.assert_allclose(found[np.arange(30), np.arange(30, 60)], 0, atol=1e-6)
    assert found.min() >= 0 and found.max() <= 1


def test_images_of_unknown_whales_move_only_the_last_column():
    queries, gallery, individual, known = photographs(4)
    more = unit_rows(25, seed=9)
    before = identify.similarities(queries, gallery, individual, known)
    after = identify.similarities(queries, np.concatenate([gallery, more]), np.append(individual, np.full(25, known)), known)
    np.testing.assert_allclose(after[:, :-1], before[:, :-1], atol=1e-6)
    assert (after[:, -1] >= before[:, -1] - 1e-6).all() and (after[:, -1] > before[:, -1] + 1e-3).any()


def test_an_empty_gallery_resembles_nothing():
    assert (identify.similarities(unit_rows(3), unit_rows(0), np.zeros(0, int), 4) == 0).all()


MEASURE = """
import resource, sys, time
import numpy as np, pandas as pd
from solution import identify

def unit_rows(n, rng):
    rows = rng.standard_normal((n, 2048), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows

def bare():
    for part in identify.blocks(len(queries), 2048):
        queries[part] @ gallery.T

ids = pd.read_csv(sys.argv[1]).Id
number, names = pd.factorize(ids.where(ids != "new_whale"))
individual = np.where(number < 0, len(names), number)
rng = np.random.default_rng(0)
queries, gallery = unit_rows(7960, rng), unit_rows(len(ids), rng)
seconds = {}
for step in [lambda: identify.similarities(queries, gallery, individual, len(names)), bare] * 4:
    start = time.perf_counter()
    step()
    seconds.setdefault(step is bare, []).append(time.perf_counter() - start)
ours, product = (min(seconds[key]) for key in (False, True))
print(f"similarities {ours:.2f} s, the bare product {product:.2f} s, ratio {ours / product:.2f}", file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not LABELS.is_file(), reason="the label table shared/data/hwi/train.csv is not here")
def test_the_real_task_fits_into_4_gb():
    done = subprocess.run([sys.executable, "-c", MEASURE, str(LABELS)], cwd=ROOT, capture_output=True, text=True, check=True)
    print(done.stderr, f"peak {float(done.stdout):.2f} GiB")
    assert float(done.stdout) < 4e9 / 2**30


# Probabilities and merged scores

@pytest.mark.parametrize("temperature", [0.1, 1.0, 2.2])
def test_probabilities_are_the_softmax_written_out(temperature):
    logits = np.random.default_rng(5).normal(0, 4, (6, 9)).astype(np.float32)
    expected = [[math.exp(temperature * value) for value in row] for row in logits.tolist()]
    np.testing.assert_allclose(identify.probabilities(logits, temperature), [np.divide(row, math.fsum(row)) for row in expected], rtol=1e-5)
    assert identify.probabilities(logits, temperature).dtype == np.float32


def test_huge_logits_overflow_nothing_and_stay_as_they_are():
    logits = np.array([[1e4, 0, -1e4], [3e4, 3e4, 0]], np.float16)
    assert identify.probabilities(logits, 3.0).tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert logits[0, 0] == 1e4


@pytest.mark.parametrize("seed", range(3))
def test_merged_scores_are_those_of_the_write_up(seed):
    S, P = scored(seed)
    found = identify.merged(S, P, FITTED)
    for query in range(len(S)):
        s, p = S[query].tolist(), P[query].tolist()
        nearest, replaced, classified = s, s[:-1] + [FITTED.theta_f], p + [FITTED.theta_p]
        expected = [FITTED.c1 * a + FITTED.c2 * b + FITTED.c3 * c for a, b, c in zip(nearest, replaced, classified)]
        assert found[query].tolist() == pytest.approx(expected, abs=1e-12)


def test_without_a_classifier_its_part_is_missing():
    S, P = scored(4)
    fitted = dataclasses.replace(FITTED, c3=0.0)
    np.testing.assert_array_equal(identify.merged(S, None, fitted), identify.merged(S, P, fitted))


@pytest.mark.parametrize("n, k", [(1, 1), (30, 3), (30, 4), (30, 5), (600, 20)])
@pytest.mark.parametrize("levels", [1, 4, None])
def test_the_best_columns_are_those_of_a_sorted_list(n, k, levels):
    scores = scored(n, n, k, levels)[0]
    before = scores.copy()
    expected = [sorted(range(k + 1), key=lambda column: (-row[column], column))[:5] for row in scores.tolist()]
    assert identify.best(scores).tolist() == expected
    np.testing.assert_array_equal(scores, before)


# New individuals

def firsts_that_are_new(scores, share, groups):
    shifted = scores.copy()
    shifted[:, -1] += identify.shift_for_share(identify.lead(scores), share, groups)
    return identify.best(shifted)[:, 0] == scores.shape[1] - 1


@pytest.mark.parametrize("share", [0.0, 0.001, 0.165, 0.276, 0.5, 1.0])
@pytest.mark.parametrize("n", [1, 7, 600])
def test_the_share_of_new_first_answers_is_met_exactly(share, n):
    scores = identify.merged(*scored(n, n), FITTED)
    assert firsts_that_are_new(scores, share, np.full(n, "")).sum() == round(share * n)


def test_the_share_is_met_exactly_within_each_species():
    S, P = scored(8, 300)
    species = np.array(["beluga", "minke", "orca"])[np.random.default_rng(0).choice(3, 300, p=[0.7, 0.25, 0.05])]
    S[species == "minke", -1] += 1
    new = firsts_that_are_new(identify.merged(S, P, FITTED), 0.2, species)
    assert all(new[species == one].sum() == round(0.2 * (species == one).sum()) for one in set(species))


def test_chances_are_the_softmax_of_scaled_scores_with_a_bias_for_new():
    scores = identify.merged(*scored(9), FITTED)
    found = identify.chances(scores, FITTED)
    for row, chance in zip(scores.tolist(), found):
        exponents = [20 * score for score in row[:-1]] + [20 * row[-1] - 0.5]
        total = math.fsum(math.exp(exponent) for exponent in exponents)
        assert chance.tolist() == pytest.approx([math.exp(exponent) / total for exponent in exponents], rel=1e-9)


def test_the_chance_of_new_falls_with_the_best_similarity():
    best = np.linspace(0, 1, 11, dtype=np.float32)
    found = identify.chance_new_of_best(best, FITTED)
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(-(15 - 40 * value))) for value in best.tolist()], rel=1e-9)
    steep = dataclasses.replace(FITTED, nearest=(5e4, -1e5))
    with np.errstate(over="raise"):
        assert identify.chance_new_of_best(best[[0, -1]], steep).tolist() == [1, 0]


# identify.json

@pytest.mark.parametrize("changes", [{}, {"map5": None, "ci95": None}, {"new_share": 0.165, "by_species": True, "columns": ("image", "predictions"), "new": "new_individual"}])
def test_an_identification_is_read_back_as_it_was_written(tmp_path, changes):
    identification = dataclasses.replace(FITTED, **changes)
    assert identify.read(identify.write(identification, tmp_path / "identify.json")) == identification


@pytest.mark.parametrize("key, value", [
    ("temperature", 0), ("temperature", "warm"), ("c3", -0.2), ("scale", 0), ("nearest", [1.0]), ("ci95", [0.5]), ("ci95", 0.5), ("n_queries", 1.5), ("new_share", 27.6),
    ("by_species", "yes"), ("columns", ["Id"]), ("new", None), ("theta_f", None), ("thetaf", 0.5),
])
def test_a_bad_value_is_named(tmp_path, key, value):
    path = identify.write(FITTED, tmp_path / "identify.json")
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **{key: value})))
    with pytest.raises(InputError, match=f"identify.json: .*{key}"):
        identify.read(path)


def test_a_missing_key_is_named(tmp_path):
    path = identify.write(FITTED, tmp_path / "identify.json")
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "bias"}))
    with pytest.raises(InputError, match="bias is missing"):
        identify.read(path)
