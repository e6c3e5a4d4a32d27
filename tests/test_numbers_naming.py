"""Naming and its calibration on odd evidence: one individual, one photograph, one kind of query, scores that separate, and ones that do
not. What is fitted is finite, is read back, and gives chances that sum to 1; an identify.json of anything else is refused."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from solution import calibrate, fusion, gallery, identify, naming, recipe
from solution.files import InputError
from test_embed import tiny

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def seen(q, k, seed=0):
    random = np.random.default_rng([seed, q, k])
    return random.uniform(0.2, 0.9, (q, k + 1)).astype(np.float32), random.normal(0, 3, (q, k)).astype(np.float32)


def separated(q, k, truth, gap):
    similarity, logits = (np.full(shape, 0.5, np.float32) for shape in ((q, k + 1), (q, k)))
    rows = np.flatnonzero((truth >= 0) & (truth < k))
    similarity[rows, truth[rows]] += gap
    logits[rows, truth[rows]] += 10 * gap
    return similarity, logits


CASES = {
    "only known ones": (6, 4, [0, 1, 2, 3, 0, 1], None), "only new ones": (6, 4, [4] * 6, None), "of no column": (6, 4, [-1] * 6, None),
    "one individual": (6, 1, [0, 0, 1, 0, 1, 1], None), "one photograph": (1, 4, [2], None), "one new photograph": (1, 1, [1], None),
    "separable": (20, 3, [0, 1, 2, 3] * 5, 0.4), "inseparable": (20, 3, [0, 1, 2, 3] * 5, -0.4), "all the same score": (20, 3, [0, 1, 2, 3] * 5, 0.0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("by", ["both", "neighbours", "classifier"])
@pytest.mark.parametrize("temperature", [None, 1e-6, 1e6])
def test_whatever_is_fitted_is_finite_is_read_back_and_gives_chances_that_sum_to_one(case, by, temperature, tmp_path):
    q, k, truth, gap = CASES[case]
    truth = np.array(truth)
    similarity, logits = seen(q, k) if gap is None else separated(q, k, truth, gap)
    small = calibrate.Grid((0.5, 2.0), (0.0, 1.0, 2.0), (0.0, 1.0), (0.0, 0.4), (0.0, 0.5, 0.9), (0.0, 0.5))
    wanted = recipe.Identify(by=by, temperature=temperature)
    found = calibrate.fitted(similarity, lambda heat: identify.probabilities(logits, heat), truth, np.array([f"w{t}" for t in truth]), wanted, small)
    identify.write(found, tmp_path / "identify.json")
    json.loads((tmp_path / "identify.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert identify.read(tmp_path / "identify.json") == found
    chance = identify.chances(identify.merged(similarity, None if by == "neighbours" else identify.probabilities(logits, found.temperature), found), found)
    assert np.isfinite(chance).all() and (chance >= 0).all()
    np.testing.assert_allclose(chance.sum(axis=1), 1, atol=1e-9)
    best = identify.chance_new_of_best(similarity[:, :-1].max(axis=1), found)
    assert np.isfinite(best).all() and ((best >= 0) & (best <= 1)).all()


@pytest.mark.parametrize("temperature", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
def test_the_softmax_of_any_logits_at_any_temperature_is_that_of_float64(temperature, size):
    logits = (size * np.random.default_rng(7).normal(size=(6, 5))).astype(np.float32)
    exponents = temperature * logits.astype(np.float64)
    expected = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    found = identify.probabilities(logits, temperature)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


NUMBERS = dict(temperature=1.0, theta_p=0.1, theta_f=0.9, c1=1.0, c2=1.0, c3=0.2, map5=0.5, ci95=[0.4, 0.6], n_queries=3, scale=10.0, bias=0.0, nearest=[9.0, -12.0])


@pytest.mark.parametrize("key, value", [
    *itertools.product([key for key in NUMBERS if key != "n_queries"], ["NaN", "Infinity", "-Infinity", "1e999"]),
    *((key, "1e300") for key in NUMBERS if key not in ("n_queries", "map5", "ci95"))])
def test_an_identify_json_of_what_is_no_number_is_refused_by_its_key(key, value, tmp_path):
    several = isinstance(NUMBERS[key], list)
    text = json.dumps({**NUMBERS, key: ["@", 1.0] if several else "@"}).replace('"@"', value)
    (tmp_path / "identify.json").write_text(text)
    with pytest.raises(InputError, match=f"identify.json: not (an identification: {key}|valid JSON)"):
        identify.read(tmp_path / "identify.json")


def known_by(rows, whales, name="m"):
    ids = np.array([f"g{number}" for number in range(len(rows))])
    return gallery.Gallery(ids, np.array(whales), ids, {name: rows})


@pytest.mark.parametrize("whales", [["x"], ["x", "x", "x"], ["x", "", ""], ["x", "y", "z"], ["", "", ""]])
@pytest.mark.parametrize("new_share", [None, 0.0, 0.5, 1.0])
def test_photographs_of_any_kind_are_named_with_finite_chances(whales, new_share, tmp_path):
    """Zero rows, copies of the gallery, its opposite; a gallery of one individual, or of unknown ones only."""
    spec, random = tiny("m", 0, 32, predict={"mirror": "off"}), np.random.default_rng(8)
    rows = random.normal(size=(len(whales), 6)).astype(np.float32)
    queries = np.concatenate([np.zeros((2, 6), np.float32), rows, -rows, random.normal(size=(2, 6)).astype(np.float32) * np.float32(1e30)])
    asked = pd.DataFrame({"image_id": [f"q{k}" for k in range(len(queries))], "path": [f"q{k}.jpg" for k in range(len(queries))]})
    evidence = naming.Evidence([spec], tmp_path, known_by(fusion.to_unit_length(rows.copy()), whales))
    told = identify.Identification(1.0, 0.1, 0.9, 1.0, 1.0, 0.0, None, None, 0, 10.0, 0.0, (9.0, -12.0), new_share=new_share)
    names = object.__new__(naming.Naming)
    names.identification, names.asked = told, asked
    given, chance = names.named(evidence, {"m": {"plain": queries}})
    assert np.isfinite(chance).all() and (chance >= 0).all() and (chance <= 1 + 1e-12).all()
    whole = names.chances(given, chance)
    if len(evidence.individuals) < 5:
        np.testing.assert_allclose(whole.groupby("Image").probability.sum(), 1, atol=1e-9)
    if len(evidence.individuals) and new_share is not None:
        assert (given[:, 0] == told.new).sum() == round(new_share * len(queries))


def test_a_query_whose_database_holds_no_other_photograph_is_certainly_new():
    spec, rows = tiny("m", 0, 32, predict={"mirror": "off"}), np.random.default_rng(9).normal(size=(3, 4)).astype(np.float32)
    told = identify.Identification(1.0, 0.1, 0.9, 1.0, 1.0, 0.0, None, None, 0, 10.0, 0.0, (9.0, -12.0))
    image_of = pd.Series({"a": "p", "b": "q", "c": "r"})
    table = pd.DataFrame([("b", "p", 0.9)], columns=["query_id", "database_image_id", "score"])
    for answers in (table, table.head(0)):
        found = naming.chances_of_ranking(answers, image_of, [spec], {"m": {"image_id": np.array(list("pqr")), "plain": rows}}, told).set_index("query_id").probability
        assert sorted(found.index) == list("abc") and found["a"] == found["c"] == 1 and found.between(0, 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gallery_and_a_classifier_of_what_is_no_number_are_refused(value, tmp_path):
    rows = np.random.default_rng(10).normal(size=(3, 4)).astype(np.float32)
    gallery.write(known_by(rows, ["x", "y", ""]), tmp_path)
    assert gallery.read(tmp_path, ["m"]).embeddings["m"].shape == (3, 4)
    rows[1, 1] = value
    gallery.write(known_by(rows, ["x", "y", ""]), tmp_path)
    with pytest.raises(InputError, match="gallery/m.npz: array embedding holds what is no finite number"):
        gallery.read(tmp_path, ["m"])
    gallery.write_classifier(gallery.Classifier(np.array(["x", "y", "z"]), rows, np.zeros(3, np.float32)), tmp_path, "m")
    with pytest.raises(InputError, match="classifier/m.npz: array weight or bias holds what is no finite number"):
        gallery.read_classifier(tmp_path, tiny("m", 0, 32, head={"total": True}))
