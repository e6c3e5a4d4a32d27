"""Re-ranking, fusion and routing against plain loops; other queries never matter, files travel, and the default is today's ranking."""

import contextlib
import io
import itertools
import json
import math
import shutil
import sys
import zipfile
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

import toy
import toy_training as toying
from eval import score
from solution import embed, fusion, models, predict, rank, recipe, reciprocal, rerank, routes, scenarios, ties, weigh
from solution.files import InputError, run, write_arrays, write_json
from test_numbers_ranking import check_scores
from test_pack import main as run_packed
from test_pack import packed, unpacked
from test_rank import shuffled_ids, unit_rows

WAYS = {
    "expansion": recipe.Rank(rerank="database_expansion"),
    "expansion by four": recipe.Rank(rerank="database_expansion", weights=(0.4, 0.3, 0.2, 0.05, 0.05), power=3.5),
    "query": recipe.Rank(rerank="query_expansion", neighbours=4),
    "query to the first": recipe.Rank(rerank="query_expansion", power=1.0),
    "reciprocal": recipe.Rank(rerank="k_reciprocal", neighbours=5),
    "reciprocal of many": recipe.Rank(rerank="k_reciprocal"),
    "sums": recipe.Rank(rerank="whale_sums"),
    "sums of three": recipe.Rank(rerank="whale_sums", neighbours=3, power=1.0, cosine=0.9),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


# The naive twins: one query, one candidate at a time, in exactly rounded sums

def dot(one, other):
    return math.fsum(a * b for a, b in zip(one.tolist(), other.tolist()))


def nearest(row, database, ids, count, without=-1):
    found = [number for number in range(len(database)) if number != without]
    return sorted(found, key=lambda number: (-dot(row, database[number]), ids[number]))[:count]


def naive_expansion(query, database, own, ids, whale, way):
    near = nearest(query, database, ids, len(way.weights) - 1, own)
    asked = list(zip(way.weights, [query, *(database[number] for number in near)]))
    power = way.power or 7
    return [math.fsum(weight * max(dot(row, candidate), 0) ** power for weight, row in asked) ** (1 / power) for candidate in database]


def naive_query_expansion(query, database, own, ids, whale, way):
    moved = query.astype(float)
    for number in nearest(query, database, ids, way.neighbours or 10, own):
        moved = moved + max(dot(query, database[number]), 0) ** (way.power or 3) * database[number]
    return [dot(moved, candidate) / (math.sqrt(dot(moved, moved)) or 1) for candidate in database]


def naive_sums(query, database, own, ids, whale, way):
    votes = {}
    for number in nearest(query, database, ids, way.neighbours or 10, own):
        votes[whale[number]] = votes.get(whale[number], 0) + max(dot(query, database[number]), 0) ** (way.power or 3)
    total = math.fsum(votes.values()) or 1
    return [(1 - way.cosine) * votes.get(whale[number], 0) / total + way.cosine * dot(query, database[number]) for number in range(len(database))]


def naive_reciprocal(query, database, own, ids, whale, way):
    """Zhong et al. (2017), equations 1 to 12, with the query as one more image that no other has among its neighbours."""
    m, k1 = len(database), way.neighbours or 20
    half = (k1 + 1) // 2
    near = {number: nearest(database[number], database, ids, k1, number) for number in range(m)}

    def accepts(number, row, k):
        """Whether an image with this embedding is among the k nearest of a database image."""
        return len(near[number]) < k or dot(row, database[number]) >= dot(database[number], database[near[number][k - 1]])

    def mutual(row, found, k):
        return {number for number in found[:k] if accepts(number, row, k)}

    def grown(members):
        more = set(members)
        for number in members:
            theirs = mutual(database[number], near[number], half) | {number}
            if 3 * len(theirs & members) >= 2 * len(theirs):
                more |= theirs
        return more

    def encoded(row, members):
        weights = {number: math.exp(dot(row, database[number]) - 1) for number in members}
        return {number: weight / math.fsum(weights.values()) for number, weight in weights.items()}

    def averaged(codes):
        total = {number: math.fsum(code.get(number, 0) for code in codes) for number in set().union(*codes)}
        return {number: value / math.fsum(total.values()) for number, value in total.items()}

    known = [encoded(database[number], grown(mutual(database[number], near[number], k1) | {number})) for number in range(m)]
    whose = [averaged([known[number], *(known[other] for other in near[number][:5])]) for number in range(m)]
    found = nearest(query, database, ids, k1, own)
    code = averaged([encoded(query, grown(mutual(query, found, k1)) - {own}), *(known[number] for number in found[:5])])
    code = {number: value for number, value in code.items() if number != own}
    code = {number: value / math.fsum(code.values()) for number, value in code.items()}
    values = []
    for number, other in enumerate(whose):
        both = set(code) | set(other)
        least, most = (math.fsum(choice(code.get(each, 0), other.get(each, 0)) for each in both) for choice in (min, max))
        values.append((1 - way.cosine) * least / most + way.cosine * dot(query, database[number]))
    return values


NAIVE = {"database_expansion": naive_expansion, "query_expansion": naive_query_expansion, "k_reciprocal": naive_reciprocal, "whale_sums": naive_sums}


def ranked(way, queries, database, own, ids, whale, top=20):
    order = np.argsort(np.argsort(ids))
    return ties.best_by(rerank.similarity(way, queries, database, own, order, whale), own, order, top)


def check(way, queries, database, own, ids, whale):
    rows, values = ranked(way, queries, database, own, ids, whale)
    for number, query in enumerate(queries):
        expected = NAIVE[way.rerank](query, database, own[number], ids, whale, way)
        told = sorted((place for place in range(len(database)) if place != own[number]), key=lambda place: (-round(expected[place], 12), ids[place]))[:20]
        assert rows[number][rows[number] >= 0].tolist() == told, number
        np.testing.assert_allclose(values[number][: len(told)], [expected[place] for place in told], atol=5e-7)


def case(n_database, seed=0, n_queries=9, d=6):
    """Queries of which some are in the database, copies, a row of zeros; whales of one to several images."""
    random = np.random.default_rng([seed, n_database])
    centres = random.normal(size=(max(2, n_database // 4), d))
    whale = random.integers(len(centres), size=n_database)
    rows = centres[whale] + random.normal(size=(n_database, d)) * 0.5
    queries = centres[random.integers(len(centres), size=n_queries)] + random.normal(size=(n_queries, d)) * 0.5
    database, queries = (fusion.to_unit_length(part.astype(np.float32)) for part in (rows, queries))
    own = np.full(n_queries, -1)
    if n_database > 8:
        database[7] = database[3]
        queries[:2], own[:2] = database[[5, 3]], [5, 3]
        database[8] = 0
    return queries, database, own, shuffled_ids(n_database), whale


@every_way
@pytest.mark.parametrize("n_database", [1, 2, 3, 12, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_way_is_its_plain_loop(way, n_database, seed):
    check(way, *case(n_database, seed))


@every_way
def test_a_database_of_nothing_or_of_the_query_alone_has_no_answer(way):
    row = unit_rows(1)
    for database, own in ((row, np.array([0])), (row[:0], np.array([-1]))):
        rows, values = ranked(way, row, database, own, np.array(["a"])[: len(database)], np.zeros(len(database), int))
        assert (rows == -1).all() and (values == -np.inf).all()


@every_way
def test_other_queries_never_matter(way):
    """What the competition forbids: a query asked alone gets what it gets among others."""
    queries, database, own, ids, whale = case(40, seed=2)
    together = ranked(way, queries, database, own, ids, whale)
    for number in range(len(queries)):
        one = slice(number, number + 1)
        rows, values = ranked(way, queries[one], database, own[one], ids, whale)
        assert np.array_equal(rows[0], together[0][number])
        np.testing.assert_allclose(values[0], together[1][number], atol=5e-7)


@pytest.mark.parametrize("way", [way for way in WAYS.values() if way.rerank != "k_reciprocal"])
def test_the_querys_own_photograph_is_as_if_it_were_not_there(way):
    queries, database, own, ids, whale = case(30, seed=3)
    rows, values = ranked(way, queries[:1], database, own[:1], ids, whale)
    left = np.delete(np.arange(30), own[0])
    without, same = ranked(way, queries[:1], database[left], np.array([-1]), ids[left], whale[left])
    assert np.array_equal(rows[0], left[without[0]])
    np.testing.assert_allclose(values, same, atol=5e-7)


@every_way
def test_blocks_change_nothing(way, monkeypatch):
    given = case(40, seed=4)
    at_once = ranked(way, *given)
    for module, name, size in ((ties, "BLOCK", 2), (rerank, "BLOCK", 2), (ties, "PAIRS", 3), (reciprocal, "JOINED", 50)):
        monkeypatch.setattr(module, name, size)
    check(way, *given)
    assert np.array_equal(at_once[0], ranked(way, *given)[0])


@pytest.mark.parametrize("way", [way for way in WAYS.values() if way.rerank != "k_reciprocal"])  # there each copy is the other's neighbour
def test_copies_of_an_answer_stand_in_the_order_of_their_ids(way):
    queries, database, own, ids, _ = case(12, seed=5)
    rows, _ = ranked(way, queries[2:], np.repeat(database[:6], 3, axis=0), own[2:], shuffled_ids(18), np.repeat(np.arange(6), 3))
    for found in rows:
        kinds = np.array([number // 3 for number in found if number >= 0])
        starts = np.flatnonzero(np.diff(kinds, prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(kinds)]):
            names = shuffled_ids(18)[found[start:stop]].tolist()
            assert names == sorted(names)


@pytest.mark.parametrize("way", [WAYS["expansion"], WAYS["sums"]])
def test_values_that_float32_cannot_tell_apart_are_ordered_in_float64(way):
    """Rows one step of float32 apart in one place, of one whale."""
    query, database = unit_rows(1, 64), np.repeat(np.abs(unit_rows(1, 64, seed=1)), 40, axis=0)
    for k in range(40):
        database[k, k] = np.nextafter(database[k, k], np.float32(2))
    check(way, np.abs(query), database, np.array([-1]), shuffled_ids(40), np.zeros(40, int))


def test_the_seventh_root_ranks_as_the_first_prize_did():
    queries, database, own, ids, whale = case(40, seed=6)
    rows, _ = ranked(WAYS["expansion"], queries, database, own, ids, whale)
    for number, query in enumerate(queries):
        first, second = nearest(query, database, ids, 2, own[number])
        s = lambda row, place: max(dot(row, database[place]), 0)
        total = [0.4 * s(query, place) ** 7 + 0.4 * s(database[first], place) ** 7 + 0.2 * s(database[second], place) ** 7 for place in range(40)]
        told = [place for place in rows[number] if place >= 0]
        assert all(total[a] >= total[b] - 1e-12 for a, b in zip(told, told[1:])) and own[number] not in told


# Fusion

def naive_reciprocal_rank(lists, weights, ids):
    """Cormack, Clarke and Buettcher (2009): the sum of w / (60 + place)."""
    answers = []
    for each in zip(*lists):
        total = {}
        for weight, found in zip(weights, each):
            for place, row in enumerate(found[:100], 1):
                total[row] = total.get(row, 0) + weight / (60 + place)
        answers.append(sorted(total, key=lambda row: (-round(total[row] * 61 / sum(weights), 12), ids[row]))[:20])
    return answers


@pytest.mark.parametrize("n_database", [1, 5, 60, 150])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 1.0, 1.0), (0.5, 2.0)])
def test_reciprocal_rank_fusion_is_its_plain_loop(n_database, weights):
    ids = shuffled_ids(n_database)
    order = np.argsort(np.argsort(ids))
    spaces = [(unit_rows(5, seed=2 * k), unit_rows(n_database, seed=2 * k + 1)) for k in range(len(weights))]
    lists = [ties.best(queries, database, np.full(5, -1), order, fusion.DEPTH) for queries, database in spaces]
    rows, values = fusion.reciprocal_rank(lists, list(weights), order, 20)
    expected = naive_reciprocal_rank([[nearest(query, database, ids, 100) for query in queries] for queries, database in spaces], weights, ids)
    assert [found[found >= 0].tolist() for found in rows] == expected
    assert (np.diff(values[:, : min(20, n_database)], axis=1) <= 0).all() and values[values > -np.inf].max() <= 1


@pytest.mark.parametrize("turn", list(itertools.permutations(range(3))))
def test_equal_sums_of_places_are_ordered_by_id_whichever_model_gave_which(turn):
    """Three images, each 6th, 7th and 8th with one of three models: their sums differ in the last bit where they are added in turn."""
    lists = [(np.concatenate([np.arange(5), np.roll([5, 6, 7], shift)])[None], None) for shift in range(3)]
    order = np.array([*range(5), *(5 + np.array(turn))])
    rows, _ = fusion.reciprocal_rank(lists, [1.0, 1.0, 1.0], order, 20)
    assert rows[0, 5:8].tolist() == sorted([5, 6, 7], key=lambda row: order[row]) and (rows[0, 8:] == -1).all()


def test_nothing_comes_of_lists_of_nothing():
    lists = [(np.full((2, 100), -1), np.full((2, 100), -np.inf))] * 2
    rows, values = fusion.reciprocal_rank(lists, [1.0, 1.0], np.zeros(0, int), 20)
    assert (rows == -1).all() and (values == -np.inf).all()


def embeddings_of(rows, mirror=None):
    return {"image_id": np.array([f"i{number:03}" for number in range(len(rows))]), "plain": rows, "mirror": np.zeros_like(rows) if mirror is None else mirror}


def asked(n_queries, n_database):
    name = lambda number: f"i{number:03}"
    queries = [name(number) for number in range(n_queries)]
    ids = [f"s-{query}" for query in queries], queries, [name(number) for number in range(n_database)]
    return scenarios.Scenario("s", *(np.array(each, object) for each in ids))


def test_places_do_not_know_how_long_a_models_embeddings_are():
    models = [(recipe.Predict(), embeddings_of(unit_rows(30, seed=k))) for k in range(3)]
    longer = [(models[0][0], embeddings_of(models[0][1]["plain"] * 100)), *models[1:]]
    way = routes.Way(recipe.Rank(fusion="reciprocal_rank"))
    one, other = (rank.submission([asked(6, 30)], models[0][1]["image_id"], way.spaces([asked(6, 30)], some), way) for some in (models, longer))
    pd.testing.assert_frame_equal(one, other)
    plain, moved = (rank.submission([asked(6, 30)], models[0][1]["image_id"], [fusion.spaces(some, "concatenate")]) for some in (models, longer))
    assert not plain.database_image_id.equals(moved.database_image_id)


@pytest.mark.parametrize("fused", ["concatenate", "reciprocal_rank"])
@pytest.mark.parametrize("way", [recipe.Rank(), *WAYS.values()])
def test_every_submission_keeps_the_contract_of_scores(way, fused):
    table = pd.DataFrame({"image_id": [f"i{number:03}" for number in range(50)], "whale_id": [f"w{number % 7}" * (number % 5 > 0) for number in range(50)]})
    models = [(recipe.Predict(), embeddings_of(np.repeat(unit_rows(25, seed=k), 2, axis=0))) for k in range(2)]
    chosen = routes.Way(replace(way, fusion=fused), table)
    found = rank.submission([asked(8, 50)], models[0][1]["image_id"], chosen.spaces([asked(8, 50)], models), chosen)
    check_scores(found)
    assert (found.groupby("query_id").size() == 20).all() and (found.query_id.str[2:] != found.database_image_id).all()
    assert not found.duplicated(["query_id", "database_image_id"]).any()


# Whales

def test_unknown_whales_are_never_one_whale(capsys):
    table = pd.DataFrame({"image_id": list("abcdef"), "whale_id": ["x", "", "", "y", "x", ""]})
    way = routes.Way(WAYS["sums"], table)
    found = way.whales(np.array(list("fedcba"), object))
    assert found[1] == found[5] and len(set(found)) == 5
    assert routes.Way(recipe.Rank(), table).whales(np.array(["a"], object)) is None and capsys.readouterr().err == ""


def test_without_labels_sums_are_plain_cosines_and_one_line_says_so(capsys):
    models, way = [(recipe.Predict(), embeddings_of(unit_rows(30)))], routes.Way(WAYS["sums"], pd.DataFrame({"image_id": ["i000"]}))
    both = [replace(asked(6, 30), scenario_id=name) for name in ("s", "t")]
    found = rank.submission(both, models[0][1]["image_id"], way.spaces(both, models), way)
    pd.testing.assert_frame_equal(found, rank.submission(both, models[0][1]["image_id"], [fusion.spaces(models, "concatenate")] * 2))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "metadata.csv has no whale_id: rank.rerank is whale_sums" in said


# Which model ranks which scenario

def viewed(*views):
    """A way over photographs with these viewpoints, "" for unknown ones."""
    table = pd.DataFrame({"image_id": [f"i{number:03}" for number in range(len(views))], "viewpoint": list(views)})
    return routes.Way(recipe.Rank(), table)


LATERAL = recipe.Predict(queries=("left", "right"), database=("top",))
TOPS = recipe.Predict(queries=("top",))


@pytest.mark.parametrize("views, taking_part", [
    (["top"] * 4, (0, 1)), (["left", "right", "top", "top"], (0, 2)), (["left", "top", "top", "top"], (0,)), (["top", "top", "left", "top"], (0, 1)),
    (["left", "left", "left", "top"], (0,)), (["", "left", "top", "top"], (0,)), (["left", "left", "top", ""], (0,)),
])
def test_a_model_ranks_the_scenarios_of_its_viewpoints(views, taking_part):
    """The first two photographs are asked, the other two are the database."""
    scenario = scenarios.Scenario("s", np.array(["q", "r"], object), np.array(["i000", "i001"], object), np.array(["i002", "i003"], object))
    assert viewed(*views).taking_part(scenario, [recipe.Predict(), TOPS, LATERAL]) == taking_part


def test_each_scenario_is_ranked_by_its_own_models():
    views = ["left"] * 4 + ["top"] * 30
    models = [(TOPS, embeddings_of(unit_rows(34, seed=1))), (LATERAL, embeddings_of(unit_rows(34, seed=2)))]
    name = lambda numbers: np.array([f"i{number:03}" for number in numbers], object)
    one = scenarios.Scenario("one", name(range(4)), name(range(4)), name(range(4, 34)))
    two = scenarios.Scenario("two", name(range(4, 8)), name(range(4, 8)), name(range(4, 34)))
    way, image_ids = viewed(*views), models[0][1]["image_id"]
    found = rank.submission([one, two], image_ids, way.spaces([one, two], models), way)
    alone = [rank.submission([scenario], image_ids, [fusion.spaces([model], "concatenate")]) for scenario, model in zip([one, two], models[::-1])]
    pd.testing.assert_frame_equal(found, pd.concat(alone, ignore_index=True))


def test_a_scenario_without_a_model_is_ranked_by_all_and_told_once(capsys):
    way, scenario = viewed("left", "top", "left", "left"), asked(2, 4)
    for _ in range(2):
        assert way.taking_part(scenario, [TOPS, LATERAL]) == (0, 1)
    said = capsys.readouterr().err
    assert said == "warning: scenario s: no model that is there takes left+top queries in a database of left+top; ranked by all\n"


def test_without_viewpoints_every_model_ranks_and_one_line_says_so(capsys):
    way = routes.Way(recipe.Rank(), pd.DataFrame({"image_id": ["i000"]}))
    assert way.taking_part(asked(1, 1), [TOPS, LATERAL]) == way.taking_part(asked(1, 1), [TOPS, LATERAL]) == (0, 1)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "metadata.csv has no viewpoint: every model ranks every scenario" in said


# The recipe

def test_the_default_ranks_by_cosine_and_travels_as_no_file(tmp_path):
    (tmp_path / "rank.json").write_text("{}")
    assert recipe.plain(recipe.Rank()) == {"fusion": "concatenate", "rerank": "none", "neighbours": None, "power": None, "weights": [0.4, 0.4, 0.2], "cosine": 0.3, "candidates": 100, "evidence": 4.0}
    recipe.write_rank(recipe.Rank(), tmp_path)
    assert list(tmp_path.iterdir()) == [] and recipe.read_rank(tmp_path) == recipe.Rank()


@every_way
def test_a_way_is_read_back_from_its_recipe_and_its_file(way, tmp_path):
    one = recipe.from_table({"models": {"m": {"model": {"backbone": "b"}, "predict": {"queries": ["left"]}}}, "rank": recipe.plain(way)}, "r")
    assert recipe.load(str(recipe.save(one, tmp_path / "r.yaml"))) == one and one.rank == way and one.models[0].predict.queries == ("left",)
    recipe.write_rank(way, tmp_path)
    assert recipe.read_rank(tmp_path) == way


@pytest.mark.parametrize("values, words", [
    ({"rerank": "magic"}, "rank.rerank is 'magic'"), ({"fusion": "sum"}, "rank.fusion is 'sum'"), ({"neighbours": 0}, "rank.neighbours is 0"), ({"power": 9}, "rank.power is 9"),
    ({"weights": [1]}, "rank.weights is [1.0]"), ({"weights": [0.5, 0.4]}, "rank.weights is"), ({"weights": [0, 1]}, "rank.weights is"), ({"cosine": 1.5}, "rank.cosine is 1.5"),
    ({"neighbors": 3}, "unknown key rank.neighbors; did you mean 'neighbours'?"), ([], "rank is []"), ({"power": True}, "rank.power is True"),
])
def test_what_is_no_way_to_rank_is_one_line(values, words, tmp_path):
    write_json(values, tmp_path / "rank.json")
    with pytest.raises(InputError) as refused:
        recipe.read_rank(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}/rank.json: not a way to rank: ") and words in str(refused.value)
    with pytest.raises(ValueError) as refused:
        recipe.from_table({"models": {"m": {"model": {"backbone": "b"}}}, "rank": values}, "r")
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["rank", "identify", "provenance"])
def test_no_model_may_have_the_name_of_another_file_of_the_weights(name):
    with pytest.raises(ValueError, match="another name"):
        recipe.from_table({"models": {name: {"model": {"backbone": "b"}}}}, "r")


def test_finished_weights_take_another_way_to_rank_but_keep_all_else(tmp_path):
    plain = recipe.from_table({"models": {"m": {"model": {"backbone": "b"}}}}, "r")
    for way in (WAYS["expansion"], WAYS["sums"], recipe.Rank()):
        recipe.save(plain, tmp_path / "recipe.yaml")
        recipe.keep_rank(replace(plain, rank=way), tmp_path)
        assert recipe.read_rank(tmp_path) == way == recipe.load(str(tmp_path / "recipe.yaml")).rank
    assert not (tmp_path / "rank.json").exists()


def test_training_leaves_the_way_beside_the_weights_and_resuming_changes_it_alone(tmp_path):
    data, saved = toy.competition(tmp_path / "data", n_whales=3), None
    for way in (WAYS["expansion"], WAYS["sums"], recipe.Rank()):
        table = {"models": {"m": {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": {"size": 32, "epochs": 0}}}, "rank": recipe.plain(way)}
        recipe.save(recipe.from_table(table, "r"), tmp_path / "r.yaml")
        done = toying.train(tmp_path / "r.yaml", data, tmp_path / "w", "--resume", "--workers", 0)
        assert done.code == 0, done.line
        assert recipe.read_rank(tmp_path / "w") == way == recipe.load(str(tmp_path / "w" / "recipe.yaml")).rank
        saved = saved or (tmp_path / "w" / "m.npz").stat().st_mtime_ns
        assert (tmp_path / "w" / "m.npz").stat().st_mtime_ns == saved
    assert not (tmp_path / "w" / "rank.json").exists()


# From weights to submissions

def tiny(name, position, **predict):
    table = {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": {"size": 32}, "predict": {"normalise": True, **predict}}
    return recipe.built(recipe.Spec, dict(table, name=name, position=position))


def ensemble(weights, *specs):
    for spec in specs:
        torch.manual_seed(spec.position)
        model = models.EmbeddingModel(spec.model)
        model.necks[0][0].running_mean.uniform_(0.2, 0.6), model.necks[0][0].running_var.uniform_(0.01, 0.1)
        models.save(model, spec, weights)
    return weights


RUNS = "--device", "cpu", "--engine", "torch", "--workers", 0, "--no-cache"


def command(main, *words):
    """Runs a command in this process as its shell would see it."""
    said, code = io.StringIO(), 0
    with mock.patch.object(sys, "argv", [main.__module__, *map(str, words)]), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            run(main)
        except SystemExit as ended:
            code = ended.code
    return SimpleNamespace(returncode=code, stderr=said.getvalue())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A fold of a toy competition, weights of two models that expand the database, and their embeddings."""
    fold = tmp_path_factory.mktemp("fold")
    toy.scenarios(toy.competition(fold / "test")).to_csv(fold / "truth.csv", index=False)
    labels = pd.read_csv(fold / "test" / "metadata.csv", dtype=str)
    labels[["image_id", "whale_id"]].to_csv(fold / "labels.csv", index=False)
    labels.drop(columns="whale_id").to_csv(fold / "test" / "metadata.csv", index=False)
    ensemble(fold / "weights", tiny("first", 0), tiny("second", 1))
    recipe.write_rank(WAYS["expansion"], fold / "weights")
    done = command(embed.main, "--data", fold / "test", "--weights", fold / "weights", "--output", fold / "embeddings", *RUNS)
    assert done.returncode == 0, done.stderr
    return fold


def predicted(fold, output, *options, weights=None):
    words = ["--data", fold / "test", "--weights", weights or fold / "weights", "--output", output, *RUNS, *options]
    predict.main([str(word) for word in words])
    return output.read_bytes()


def ranked_again(fold, output, *options, embeddings=None):
    return command(rank.main, "--embeddings", embeddings or fold / "embeddings", "--data", fold / "test", "--output", output, *options)


def with_way(made, folder, way):
    shutil.copytree(made / "embeddings", folder)
    recipe.write_rank(way, folder)
    return folder


def test_embeddings_carry_the_way_and_both_roads_end_alike(made, tmp_path):
    assert recipe.read_rank(made / "embeddings") == WAYS["expansion"]
    found = predicted(made, tmp_path / "a.csv", "--embeddings", tmp_path / "e")
    assert recipe.read_rank(tmp_path / "e") == WAYS["expansion"]
    assert ranked_again(made, tmp_path / "b.csv").returncode == 0 and found == (tmp_path / "b.csv").read_bytes()
    plain = with_way(made, tmp_path / "plain", recipe.Rank())
    assert ranked_again(made, tmp_path / "c.csv", embeddings=plain).returncode == 0 and found != (tmp_path / "c.csv").read_bytes()


def test_embeddings_lose_a_way_that_the_weights_have_no_more(made, tmp_path):
    weights = shutil.copytree(made / "weights", tmp_path / "w")
    predicted(made, tmp_path / "a.csv", "--embeddings", tmp_path / "e", weights=weights)
    recipe.write_rank(recipe.Rank(), weights)
    predicted(made, tmp_path / "a.csv", "--embeddings", tmp_path / "e", weights=weights)
    assert not (tmp_path / "e" / "rank.json").exists()


@pytest.mark.parametrize("way", [WAYS["reciprocal"], recipe.Rank(fusion="reciprocal_rank", rerank="query_expansion"), WAYS["sums"]])
def test_a_prediction_under_a_limit_is_valid_after_every_pass(way, made, tmp_path, monkeypatch):
    weights = shutil.copytree(made / "weights", tmp_path / "w")
    recipe.write_rank(way, weights)
    write, states = predict.write_table, []
    monkeypatch.setattr(predict, "write_table", lambda table, path: states.append(write(table, path).read_bytes()))
    predicted(made, tmp_path / "s.csv", "--time-limit", "1000", weights=weights)
    assert len(states) == 5 and len(set(states)) == 5
    for state in states:
        (tmp_path / "state.csv").write_bytes(state)
        found = score.evaluate(tmp_path / "state.csv", made / "truth.csv", made / "test")
        assert found.breaches == [] and found.warnings == []


def test_a_way_that_is_none_stops_a_ranking_and_costs_a_prediction_only_itself(made, tmp_path, capsys):
    weights = shutil.copytree(made / "weights", tmp_path / "w")
    for place in (weights, with_way(made, tmp_path / "e", recipe.Rank())):
        (place / "rank.json").write_text('{"rerank": "magic"}')
    done = ranked_again(made, tmp_path / "s.csv", embeddings=tmp_path / "e")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "rank.json: not a way to rank: rank.rerank is 'magic'" in done.stderr
    found = predicted(made, tmp_path / "p.csv", weights=weights)
    assert "warning: ranked by cosine: " in capsys.readouterr().err
    (tmp_path / "e" / "rank.json").unlink()
    assert ranked_again(made, tmp_path / "s.csv", embeddings=tmp_path / "e").returncode == 0 and found == (tmp_path / "s.csv").read_bytes()
    with pytest.raises(InputError, match="not a way to rank"):
        predicted(made, tmp_path / "p.csv", "--strict", weights=weights)


def test_routed_models_rank_their_scenarios_on_both_roads(made, tmp_path, capsys):
    """scenario01 of the toy asks all viewpoints, so no routed model is for it."""
    weights = ensemble(tmp_path / "w", tiny("first", 0), tiny("second", 1, queries=["top"], database=["top"]))
    found = predicted(made, tmp_path / "a.csv", "--embeddings", tmp_path / "e", weights=weights)
    assert ranked_again(made, tmp_path / "b.csv", embeddings=tmp_path / "e").returncode == 0 and found == (tmp_path / "b.csv").read_bytes()
    assert ranked_again(made, tmp_path / "c.csv", "--models", "first", embeddings=tmp_path / "e").returncode == 0
    assert found == (tmp_path / "c.csv").read_bytes()
    done = ranked_again(made, tmp_path / "d.csv", "--models", "second", embeddings=tmp_path / "e")
    assert done.returncode == 0 and "no model that is there takes" in done.stderr


def test_a_packed_submission_ranks_as_its_weights_do(made, tmp_path):
    done = packed(made, tmp_path / "s.zip", "--precision", "full")
    assert done.returncode == 0, done.stderr
    folder = unpacked(tmp_path / "s.zip", tmp_path / "packed")
    assert recipe.read_rank(folder / "weights") == WAYS["expansion"]
    shutil.copytree(made / "test", folder / "data")
    done = run_packed(folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "submission" / "submission.csv").read_bytes() == predicted(made, tmp_path / "p.csv")
    assert "weights/rank.json" in json.loads(zipfile.ZipFile(tmp_path / "s.zip").read("manifest.json"))["files"]


def test_a_way_that_is_none_is_not_packed(made, tmp_path):
    shutil.copytree(made / "weights", tmp_path / "weights")
    (tmp_path / "weights" / "rank.json").write_text("[]")
    done = packed(tmp_path, tmp_path / "s.zip")
    assert done.returncode == 2 and "rank.json: not a way to rank" in done.stderr and not (tmp_path / "s.zip").exists()


# Weights of an ensemble

def test_ascent_ends_where_no_step_helps():
    asked = []
    value = lambda weights: asked.append(tuple(weights)) or -sum((math.log2(weight) - best) ** 2 for weight, best in zip(weights, (3, -2, 0.5)))
    found = weigh.ascended(value, [1.0, 1.0, 1.0])
    assert [math.log2(weight) for weight in found] == pytest.approx([3, -2, 0.5])
    assert len(asked) < 100 and weigh.ascended(lambda weights: 0.0, [2.0, 3.0]) == [2.0, 3.0]


def test_ascent_goes_no_further_than_its_bound():
    assert weigh.ascended(lambda weights: weights[0] - weights[1], [1.0, 1.0]) == [64.0, 1 / 64]


def test_weights_that_an_inner_fold_prefers_make_new_weights(made, tmp_path):
    """One model is told what the truth is, the other knows nothing: the first must come to count more."""
    weights, folder = shutil.copytree(made / "weights", tmp_path / "w"), shutil.copytree(made / "embeddings", tmp_path / "e")
    recipe.write_rank(recipe.Rank(), weights)
    saved = recipe.save(recipe.from_table({"models": {name: {"model": {"backbone": "test_efficientnet"}} for name in ("first", "second")}}, "r"), weights / "recipe.yaml")
    before = {path.name: path.read_bytes() for path in weights.iterdir()}
    whale = pd.read_csv(made / "labels.csv", dtype=str).set_index("image_id").whale_id
    known = np.load(folder / "second.npz")["image_id"]
    told = np.eye(whale.nunique(), dtype=np.float32)[pd.factorize(whale[known])[0]]
    write_arrays(folder / "second.npz", image_id=known, plain=told, mirror=told)
    random = np.random.default_rng(0).normal(size=(2, len(known), 4)).astype(np.float32)
    write_arrays(folder / "first.npz", image_id=known, plain=random[0], mirror=random[1])
    options = ["--weights", weights, "--embeddings", folder, "--fold", made]
    done = command(weigh.main, *options, "--output", tmp_path / "new")
    assert done.returncode == 0, done.stderr
    first, second = (spec.predict.weight for spec in recipe.specs(tmp_path / "new"))
    trail = json.loads((tmp_path / "new" / "provenance.json").read_text())["weighed"]
    assert second > first and trail["map20"] > trail["before"] and trail["weight"] == {"first": first, "second": second} and trail["ci95"][0] > 0
    assert {spec.name: spec.predict.weight for spec in recipe.load(str(tmp_path / "new" / "recipe.yaml")).models} == trail["weight"] and saved.is_file()
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == before
    assert (tmp_path / "new" / "first.npz").read_bytes() == before["first.npz"]
    assert command(weigh.main, *options, "--output", tmp_path / "again").returncode == 0
    for path in (tmp_path / "new").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize("harm, words", [
    (lambda weights, folder: [(weights / f"second{end}").unlink() for end in (".npz", ".json")], "has one model, first"),
    (lambda weights, folder: (weights / "identify.json").write_text("{}"), "identify.json: these weights name individuals"),
    (lambda weights, folder: write_json(recipe.plain(tiny("first", 0, weight=2.0)), folder / "first.json"), "embeddings/first.json: not the model of that name"),
    (lambda weights, folder: (folder / "second.npz").unlink(), "has no model 'second'"),
])
def test_what_cannot_be_weighed_is_one_line(harm, words, made, tmp_path):
    weights, folder = shutil.copytree(made / "weights", tmp_path / "w"), shutil.copytree(made / "embeddings", tmp_path / "embeddings")
    harm(weights, folder)
    done = command(weigh.main, "--weights", weights, "--embeddings", folder, "--fold", made, "--output", tmp_path / "new")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr and not (tmp_path / "new").exists()


def test_a_photograph_with_two_whales_is_one_line(made, tmp_path):
    for name in ("weights", "embeddings", "test"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.copy(made / "truth.csv", tmp_path / "truth.csv")
    labels = pd.read_csv(made / "labels.csv", dtype=str)
    pd.concat([labels, labels[4:5]]).to_csv(tmp_path / "labels.csv", index=False)
    done = command(weigh.main, "--weights", tmp_path / "weights", "--embeddings", tmp_path / "embeddings", "--fold", tmp_path, "--output", tmp_path / "new")
    assert done.returncode == 2 and f"labels.csv: line {len(labels) + 2}: {labels.image_id[4]} stands there twice" in done.stderr
