"""Embeddings that rankings and catalogues may meet: zero, tiny, huge and broken rows, copies, one image, none. Against plain loops; every
score is finite and in order."""

import math
from dataclasses import replace

import numpy as np
import pytest

from solution import fusion, rank, recipe, scenarios, ties
from test_search import answers_of, ask, build, kind, saved  # noqa: F401

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
ALONE = recipe.Predict(mirror="off")


def cosine(one, other):
    """In exactly rounded float64 of the numbers as float32 holds them; 0 for a row without a direction."""
    one, other = ([float(value) for value in row] for row in (one, other))
    lengths = [math.sqrt(math.fsum(value * value for value in row)) for row in (one, other)]
    return math.fsum(a * b for a, b in zip(one, other)) / math.prod(lengths) if all(lengths) else 0.0


def of_scenario(queries, database):
    return scenarios.Scenario("s", np.array([f"s-{name}" for name in queries], object), np.array(queries, object), np.array(database, object))


def check_scores(table):
    """What the contract asks of every submission."""
    assert np.isfinite(table.score).all() and table.score.between(1e-10, 1).all()
    steps = table.groupby("query_id").score.diff().dropna()
    assert (steps <= -0.9e-12).all()


def ranked(rows, queries, database, predict=ALONE, mirror=None):
    names = [f"i{number:05}" for number in range(len(rows))]
    own = {"image_id": np.array(names), "plain": rows, **({} if mirror is None else {"mirror": mirror})}
    table = rank.submission([of_scenario([names[k] for k in queries], [names[k] for k in database])], np.array(names), [fusion.spaces([(predict, own)], "concatenate")])
    check_scores(table)
    return {query[2:]: list(part.database_image_id) for query, part in table.groupby("query_id", sort=False)}, table


# Rankings

@pytest.mark.parametrize("size", [1e-42, 1e-38, 1e-30, 1e-20, 1.0, 1e18, 1e30, 1e37])
@pytest.mark.parametrize("predict", [ALONE, replace(ALONE, normalise=True), recipe.Predict(), recipe.Predict(mirror="average")])
def test_rows_of_any_length_rank_as_their_directions_do(size, predict):
    random = np.random.default_rng(0)
    plain, mirror = ((size * random.normal(size=(30, 64))).astype(np.float32) for _ in range(2))
    joined = {"off": plain, "concatenate": np.concatenate([plain, mirror], axis=1), "average": plain.astype(float) / 2 + mirror.astype(float) / 2}[predict.mirror]
    names = np.array([f"i{number:05}" for number in range(30)])
    rows = fusion.combined([(predict, {"image_id": names, "plain": plain, "mirror": mirror})])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for one, other in ((0, 1), (2, 3), (4, 4)):
        assert rows[one] @ rows[other] == pytest.approx(cosine(joined[one], joined[other]), abs=2e-6 if size > 1e-40 else 0.02)
    ranked(plain, range(5), range(30), predict, mirror)


@pytest.mark.parametrize("weight", [1e-30, 1e-9, 1.0, 1e9, 1e30])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_a_models_weight_alone_changes_nothing_and_beside_another_it_multiplies_cosines(weight, size):
    random = np.random.default_rng(1)
    one, other = ({"plain": (size * random.normal(size=(9, 8))).astype(np.float32)} for _ in range(2))
    alone = fusion.combined([(replace(ALONE, weight=weight), one)])
    np.testing.assert_allclose(alone, fusion.combined([(ALONE, one)]), rtol=1e-6)
    way = replace(ALONE, normalise=True)
    rows = fusion.combined([(way, one), (replace(way, weight=weight), other)])
    expected = (cosine(one["plain"][0], one["plain"][1]) + weight * cosine(other["plain"][0], other["plain"][1])) / (1 + weight)
    assert rows[0] @ rows[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weight", [0.0, -1.0, 1e-31, 1e31, math.inf, math.nan])
def test_other_weights_are_refused(weight):
    with pytest.raises(ValueError, match="predict.weight"):
        recipe.Predict(weight=weight)


def test_rows_of_zeros_and_broken_ones_are_like_nothing_and_ties_go_by_id(capsys):
    rows = np.random.default_rng(2).normal(size=(40, 16)).astype(np.float32)
    rows[0], rows[[3, 5]], rows[7, 2], rows[9, 1] = 0, 0, np.nan, -np.inf
    found, table = ranked(rows, [0, 7, 1], range(40))
    assert "2 of 40 embeddings are not finite" in capsys.readouterr().err
    for query in ("i00000", "i00007"):
        assert found[query] == [f"i{k:05}" for k in range(40) if f"i{k:05}" != query][:20]
    assert table.score[table.query_id == "s-i00000"].tolist() == pytest.approx([0.5] * 20, abs=1e-10)
    clean = np.nan_to_num(rows, posinf=0, neginf=0)
    clean[[7, 9]] = 0
    expected = sorted((k for k in range(40) if k != 1), key=lambda k: (-cosine(clean[1], clean[k]), k))[:20]
    assert found["i00001"] == [f"i{k:05}" for k in expected]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("mirror", ["off", "concatenate", "average"])
def test_embeddings_of_other_precisions_rank_as_their_float32_and_what_is_beyond_it_is_told(dtype, mirror, capsys):
    random = np.random.default_rng(3)
    plain, other = (random.normal(size=(12, 8)).astype(dtype) for _ in range(2))
    predict = recipe.Predict(mirror=mirror)
    found, _ = ranked(plain, range(4), range(12), predict, other)
    assert found == ranked(plain.astype(np.float32), range(4), range(12), predict, other.astype(np.float32))[0]
    plain[5], other[5] = np.finfo(dtype).max, np.finfo(dtype).max
    ranked(plain, range(4), range(12), predict, other)
    assert ("1 of 12 embeddings are not finite" in capsys.readouterr().err) == (dtype == np.float64)


def test_one_image_one_query_no_database_and_a_query_alone_in_its_database():
    rows = np.random.default_rng(4).normal(size=(3, 8)).astype(np.float32)
    assert ranked(rows, [0], [1])[0] == {"i00000": ["i00001"]}
    for queries, database in (([0], []), ([0], [0]), ([], [1, 2])):
        found, table = ranked(rows, queries, database)
        assert found == {} and list(table.columns) == ["query_id", "database_image_id", "score"]


def test_twenty_thousand_copies_are_told_apart_by_their_ids_alone():
    rows = np.repeat(np.random.default_rng(5).normal(size=(1, 32)).astype(np.float32), 20_000, axis=0)
    found, table = ranked(rows, [0, 7, 19_999], range(20_000))
    assert found["i00000"] == [f"i{k:05}" for k in range(1, 21)] and found["i19999"] == [f"i{k:05}" for k in range(20)]
    assert table.score[table.query_id == "s-i00007"].tolist() == pytest.approx([1.0] * 20, abs=1e-7)


@pytest.mark.parametrize("kinds", [1, 3, 400])
def test_of_many_copies_each_kind_is_computed_once_and_to_the_same_bits(kinds, monkeypatch):
    rows = fusion.to_unit_length(np.random.default_rng(6).normal(size=(kinds, 48)).astype(np.float32))[np.arange(1200) % kinds]
    rows[:5] = 0
    own, order = np.full(9, -1), np.random.default_rng(7).permutation(1200)
    found, asked, exact = ties.best(rows[:9], rows, own, order), [], ties.exact
    monkeypatch.setattr(ties, "exact", lambda *given: asked.append(len(given[2])) or exact(*given))
    again = ties.best(rows[:9], rows, own, order)
    monkeypatch.setattr(ties, "COPIES", 10**9)
    plain = ties.best(rows[:9], rows, own, order)
    assert all(map(np.array_equal, found, again)) and all(map(np.array_equal, found, plain))
    assert asked[0] <= 9 * (kinds + 1) and asked[1] > 1200


@pytest.mark.parametrize("top", [1, 20, 1000, 5000])
@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0, -1.0000001, 1.0000001])
def test_scores_of_equal_cosines_are_distinct_and_above_zero_however_many(top, value):
    found = rank.scores(np.full((2, top), value))
    assert (found > 0).all() and (found <= 1).all() and (np.diff(found, axis=1) < -0.9e-12).all()
    assert abs(found[0, 0] - min(max((1 + value) / 2, 1e-9), 1)) < 1e-8


# Catalogues

def odd_rows(n=420):
    """Photographs of which some have no embedding, some are copies, and some are tiny or huge."""
    rows = np.random.default_rng(6).normal(size=(n, 24)).astype(np.float32)
    rows[[1, 2]], rows[3, 0], rows[4, 5] = 0, np.nan, np.inf
    rows[10:40] = rows[10]
    rows[50:60] *= np.float32(1e-35)
    rows[60:70] *= np.float32(1e36)
    return rows


def test_a_catalogue_of_odd_rows_answers_as_a_ranking_of_them_does(kind, tmp_path, monkeypatch):  # noqa: F811
    rows = odd_rows()
    database, asking = saved(tmp_path / "database", "d", rows), saved(tmp_path / "asking", "q", rows[:70])
    found = answers_of(ask(monkeypatch, build(monkeypatch, tmp_path, database), asking))
    unit = fusion.combined([(ALONE, {"plain": rows})])
    hits = []
    for number, (query, answers) in enumerate(found.items()):
        scores = [score for _, score in answers]
        assert len(answers) == 20 and np.isfinite(scores).all() and 0 < min(scores) and max(scores) <= 1 and (np.diff(scores) < 0).all()
        for image, score in answers:
            assert score == pytest.approx((1 + float(unit[number] @ unit[int(image[1:])])) / 2, abs=1e-6)
        best = np.sort(unit @ unit[number])[-20:].min()
        hits.append(np.mean([2 * score - 1 >= best - 1e-5 for score in scores]))
    assert np.mean(hits) >= (1 if kind == "exact" else 0.98)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_catalogue_of_nothing_but_copies_answers_by_id(kind, value, tmp_path, monkeypatch):  # noqa: F811
    rows = np.full((400, 24), value, np.float32)
    database, asking = saved(tmp_path / "database", "d", rows), saved(tmp_path / "asking", "q", rows[:3])
    found = answers_of(ask(monkeypatch, build(monkeypatch, tmp_path, database), asking))
    for answers in found.values():
        scores = [score for _, score in answers]
        assert scores == pytest.approx([(1 + value) / 2] * 20, abs=1e-6) and len({image for image, _ in answers}) == 20
        if kind == "exact":
            assert [image for image, _ in answers] == [f"d{k:04}" for k in range(20)]
