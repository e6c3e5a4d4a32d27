"""Rankings against a plain loop with exactly rounded sums, and submissions against the scorer's strict rules."""

import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from eval import score
from solution import fusion, rank, recipe, scenarios, ties
from solution.files import InputError, write_arrays, write_json, write_table

ROOT = Path(__file__).parents[1]


def unit_rows(n, d=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def naive(queries, database, own, ids, top=20):
    """Row numbers and cosines of each query, by fsum and sorted()."""
    answers = []
    for number, query in enumerate(queries.tolist()):
        cosines = [math.fsum(a * b for a, b in zip(query, row)) for row in database.tolist()]
        order = sorted((row for row in range(len(database)) if row != own[number]), key=lambda row: (-cosines[row], ids[row]))
        answers.append((order[:top], [cosines[row] for row in order[:top]]))
    return answers


def check(queries, database, own, ids, **options):
    order = np.argsort(np.argsort(ids))
    rows, cosines = ties.best(queries, database, own, order, **options)
    for found, cosine, (expected, values) in zip(rows, cosines, naive(queries, database, own, ids, **options)):
        there = len(expected)
        assert found[:there].tolist() == expected and (found[there:] == -1).all() and (cosine[there:] == -np.inf).all()
        np.testing.assert_allclose(cosine[:there], values, atol=5e-7)


def shuffled_ids(n, seed=1):
    return np.random.default_rng(seed).permutation([f"image{k:04d}" for k in range(n)])


NOWHERE = lambda n: np.full(n, -1)


# The best rows

@pytest.mark.parametrize("n_database", [1, 5, 19, 20, 21, 60])
def test_the_best_rows_are_those_of_a_plain_loop(n_database):
    check(unit_rows(7), unit_rows(n_database, seed=1), NOWHERE(7), shuffled_ids(n_database))


def test_ties_of_equal_photographs_are_broken_by_id():
    database = np.repeat(unit_rows(6, seed=1), 9, axis=0)[np.random.default_rng(2).permutation(54)]
    check(unit_rows(5), database, NOWHERE(5), shuffled_ids(54))


@pytest.mark.parametrize("d", [3, 472, 688, 8544])
def test_a_whole_database_of_one_photograph_is_ordered_by_id(d):
    ids = shuffled_ids(70)
    rows, cosines = ties.best(unit_rows(3, d), np.repeat(unit_rows(1, d, seed=1), 70, axis=0), NOWHERE(3), np.argsort(np.argsort(ids)))
    assert all(list(ids[found]) == sorted(ids)[:20] for found in rows)
    assert all(len(set(cosine)) == 1 for cosine in cosines)


def test_cosines_that_float32_cannot_tell_apart_are_ordered_in_float64():
    """Rows one step of float32 apart in one place: a single-precision product is the same for many of them."""
    query, database = unit_rows(1, 64), np.repeat(unit_rows(1, 64, seed=1), 40, axis=0)
    for k in range(40):
        database[k, k] = np.nextafter(database[k, k], np.float32(2))
    check(query, database, NOWHERE(1), shuffled_ids(40))


def test_a_photograph_is_never_an_answer_to_itself():
    rows, own = unit_rows(30), np.arange(30)
    check(rows, rows, own, shuffled_ids(30))
    found, _ = ties.best(rows, rows, own, np.arange(30))
    assert not (found == own[:, None]).any()


def test_a_copy_under_another_id_is_an_answer():
    rows = np.concatenate([unit_rows(5), unit_rows(5)])
    found, _ = ties.best(rows, rows, np.arange(10), np.arange(10))
    assert found[:, 0].tolist() == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]


def test_a_database_of_the_query_alone_or_of_nothing_has_no_answer():
    row = unit_rows(1)
    for database, own in ((row, np.array([0])), (row[:0], np.array([-1]))):
        found, cosines = ties.best(row, database, own, np.arange(len(database)))
        assert (found == -1).all() and (cosines == -np.inf).all() and found.shape == (1, 20)
    assert ties.best(row[:0], row, np.array([], int), np.array([0]))[0].shape == (0, 20)


def test_rows_of_zeros_have_the_cosine_zero():
    queries, database = unit_rows(4), unit_rows(30, seed=1)
    queries[2], database[[3, 8, 21]] = 0, 0
    check(queries, database, NOWHERE(4), shuffled_ids(30))


def test_blocks_of_queries_and_of_pairs_change_nothing(monkeypatch):
    queries, own = unit_rows(23), np.arange(23)
    database, ids = np.concatenate([queries, queries[:9], unit_rows(9, seed=1)]), shuffled_ids(41)
    at_once = ties.best(queries, database, own, np.argsort(np.argsort(ids)))
    monkeypatch.setattr(ties, "BLOCK", 4), monkeypatch.setattr(ties, "PAIRS", 3)
    check(queries, database, own, ids)
    assert np.array_equal(at_once[0], ties.best(queries, database, own, np.argsort(np.argsort(ids)))[0])


def test_fewer_than_twenty_can_be_asked_for():
    check(unit_rows(6), unit_rows(30, seed=1), NOWHERE(6), shuffled_ids(30), top=5)


def test_the_order_of_database_and_queries_does_not_matter():
    queries, database, ids = unit_rows(9), np.repeat(unit_rows(20, seed=1), 2, axis=0), shuffled_ids(40)
    new, turn = np.random.default_rng(3).permutation(40), np.random.default_rng(4).permutation(9)
    first, _ = ties.best(queries, database, NOWHERE(9), np.argsort(np.argsort(ids)))
    second, _ = ties.best(queries[turn], database[new], NOWHERE(9), np.argsort(np.argsort(ids[new])))
    assert np.array_equal(ids[first][turn], ids[new][second])


# Scores

@pytest.mark.parametrize("cosines", [
    np.ones(20), -np.ones(20), np.zeros(20), np.linspace(1, -1, 20), 1 - np.arange(20) * 1e-13, -1 + np.arange(20)[::-1] * 1e-14,
    np.r_[1 + 2e-7, 1 + 1e-7, np.ones(18)], np.r_[np.ones(10), -1 - 1e-7 * np.ones(10)],
])
def test_scores_lie_within_0_and_1_and_fall_by_1e12_at_least(cosines):
    values = rank.scores(cosines[None])[0]
    assert (values > 0).all() and (values <= 1).all()
    assert (values[:-1] - values[1:] >= 1e-12 - 2.3e-16).all()  # one rounding of a float64 near 1
    assert np.abs(values - (1 + cosines) / 2).max() < 2e-7


def test_scores_that_are_apart_are_left_as_they_are():
    cosines = np.sort(np.random.default_rng(0).uniform(-1, 1, (50, 20)))[:, ::-1]
    assert np.array_equal(rank.scores(cosines), (1 + cosines) / 2)


@pytest.mark.filterwarnings("ignore")  # pandas 4 will know one way only
@pytest.mark.parametrize("options", [{}, {"float_precision": "high"}, {"float_precision": "round_trip"}, {"engine": "python"}])
def test_scores_are_distinct_after_a_csv_in_every_way_of_reading(options, tmp_path):
    cosines = np.concatenate([np.ones((1, 20)), -np.ones((1, 20)), np.full((200, 20), np.random.default_rng(0).uniform(-1, 1, (200, 1)))])
    path = write_table(pd.DataFrame({"query": np.repeat(np.arange(202), 20), "score": rank.scores(cosines).ravel()}), tmp_path / "s.csv")
    read = pd.read_csv(path, **options)
    assert read.groupby("query").score.apply(lambda part: part.is_monotonic_decreasing and part.is_unique).all()


# Joining models

def embeddings(n, width, seed, scale=1.0):
    random = np.random.default_rng(seed)
    return {"image_id": shuffled_ids(n), "plain": (scale * random.normal(size=(n, width))).astype(np.float32),
            "mirror": (scale * random.normal(size=(n, width))).astype(np.float32)}


def cosine(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def of(*models):
    rows = fusion.combined(models)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    return rows.astype(np.float64) @ rows.T.astype(np.float64)


def test_the_published_joining_is_the_cosine_of_all_vectors_in_a_row():
    first, second = embeddings(9, 5, 0), embeddings(9, 7, 1, scale=30)
    row = np.concatenate([first["plain"], first["mirror"], second["plain"], second["mirror"]], axis=1)
    np.testing.assert_allclose(of((recipe.Predict(), first), (recipe.Predict(), second)), cosine(row, row), atol=1e-6)


def test_normalised_models_give_the_weighted_mean_of_their_cosines():
    first, second = embeddings(9, 5, 0), embeddings(9, 7, 1, scale=30)
    each = [np.concatenate([model["plain"], model["mirror"]], axis=1) for model in (first, second)]
    expected = (1 * cosine(each[0], each[0]) + 0.75 * cosine(each[1], each[1])) / 1.75
    found = of((recipe.Predict(normalise=True), first), (recipe.Predict(normalise=True, weight=0.75), second))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_weight_multiplies_dot_products():
    first, second = embeddings(9, 5, 0), embeddings(9, 7, 1)
    row = np.concatenate([first["plain"], first["mirror"], 2 * second["plain"], 2 * second["mirror"]], axis=1)
    np.testing.assert_allclose(of((recipe.Predict(), first), (recipe.Predict(weight=4.0), second)), cosine(row, row), atol=1e-6)


def test_mirrors_can_be_averaged_or_left_off():
    model = embeddings(9, 5, 0)
    mean = (model["plain"] + model["mirror"]) / 2
    np.testing.assert_allclose(of((recipe.Predict(mirror="average"), model)), cosine(mean, mean), atol=1e-6)
    np.testing.assert_allclose(of((recipe.Predict(mirror="off"), model)), cosine(model["plain"], model["plain"]), atol=1e-6)


def test_joining_in_blocks_of_images_changes_no_bit_and_counts_what_is_broken_once(monkeypatch, capsys):
    first, second = embeddings(23, 5, 0), embeddings(23, 7, 1, scale=30)
    first["plain"][[3, 20], 1], second["mirror"][11, 0] = np.nan, np.inf
    models = [(recipe.Predict(mirror="average"), first), (recipe.Predict(normalise=True, weight=0.75), second)]
    at_once, told = fusion.combined(models), capsys.readouterr().err
    assert "2 of 23 embeddings are not finite" in told and "1 of 23" in told and told.count("\n") == 2
    monkeypatch.setattr(fusion, "JOINED", 4)
    assert np.array_equal(fusion.combined(iter(models)).view(np.uint32), at_once.view(np.uint32)) and capsys.readouterr().err == told


def test_joining_changes_no_embedding_and_keeps_rows_of_zeros():
    model = embeddings(9, 5, 0)
    model["plain"][4] = model["mirror"][4] = 0
    before = {name: value.copy() for name, value in model.items()}
    for predict in (recipe.Predict(), recipe.Predict(normalise=True, weight=2.0), recipe.Predict(mirror="off"), recipe.Predict(mirror="average")):
        assert (fusion.combined([(predict, model)])[4] == 0).all()
    assert all(np.array_equal(model[name], before[name]) for name in before)


# The command

def competition(tmp_path, **options):
    """A toy fold: test/ with scenarios, truth.csv, and embeddings of two models for its photographs."""
    data = toy.competition(tmp_path / "test", images=False, **options)
    toy.scenarios(data).to_csv(tmp_path / "truth.csv", index=False)
    ids = pd.read_csv(data / "metadata.csv", dtype=str).image_id.to_numpy(str)
    for place, name in enumerate(("second", "first")):
        saved(tmp_path / "embeddings", name, ids, 1 - place, seed=place)
    return data


def saved(directory, name, ids, position, seed=0, **predict):
    model = embeddings(len(ids), 6, seed)
    write_arrays(directory / f"{name}.npz", **dict(model, image_id=ids))
    spec = recipe.Spec(name, position, recipe.Model("b"), predict=recipe.Predict(**predict))
    write_json(recipe.plain(spec), directory / f"{name}.json")


def ranked(tmp_path, monkeypatch, *options):
    output = tmp_path / "submission.csv"
    command = ["rank", "--embeddings", tmp_path / "embeddings", "--data", tmp_path / "test", "--output", output, *options]
    monkeypatch.setattr(sys, "argv", list(map(str, command)))
    rank.main()
    return output


def refusal(function, *arguments):
    with pytest.raises(InputError) as refused:
        function(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("n_whales, seed", [(8, 0), (3, 1), (20, 2)])
def test_what_is_written_passes_the_strict_rules_and_misses_no_query(n_whales, seed, tmp_path, monkeypatch):
    competition(tmp_path, n_whales=n_whales, seed=seed)
    evaluation = score.evaluate(ranked(tmp_path, monkeypatch), tmp_path / "truth.csv")
    assert evaluation.breaches == [] and not any("missing" in warning for warning in evaluation.warnings)
    summary = score.summarise(evaluation.per_query, evaluation.breaches)
    assert summary["official"] == summary["strict"] > 0


def test_a_submission_of_equal_or_opposite_embeddings_passes_the_strict_rules(tmp_path, monkeypatch):
    data = competition(tmp_path)
    ids = pd.read_csv(data / "metadata.csv", dtype=str).image_id.to_numpy(str)
    for signs in (np.ones(len(ids)), np.where(np.arange(len(ids)) % 2, 1, -1), np.zeros(len(ids))):
        rows = signs[:, None].astype(np.float32) * np.ones((1, 4), np.float32)
        for name in ("first", "second"):
            write_arrays(tmp_path / "embeddings" / f"{name}.npz", image_id=ids, plain=rows, mirror=rows)
        path = ranked(tmp_path, monkeypatch)
        assert score.evaluate(path, tmp_path / "truth.csv").breaches == []
        assert not pd.read_csv(path).duplicated(["query_id", "score"]).any()


def test_the_file_is_the_plain_loops_ranking_in_the_order_of_the_queries(tmp_path, monkeypatch):
    data = competition(tmp_path)
    path = ranked(tmp_path, monkeypatch)
    assert path.read_text().split("\n")[0] == "query_id,database_image_id,score" and path.read_text().endswith("\n")
    table, expected = pd.read_csv(path), []
    both = [np.load(tmp_path / "embeddings" / f"{name}.npz") for name in ("first", "second")]
    rows = dict(zip(both[0]["image_id"], fusion.combined([(recipe.Predict(), model) for model in both])))
    for scenario in ("scenario01", "scenario02"):
        queries, database = (pd.read_csv(data / part / f"{scenario}.csv") for part in ("queries", "databases"))
        for query_id, image_id in queries.itertuples(index=False):
            others = [other for other in database.database_image_id if other != image_id]
            cosines = {other: math.fsum(np.float64(rows[image_id]) * rows[other]) for other in others}
            best = sorted(others, key=lambda other: (-cosines[other], other))[:20]
            expected += [(query_id, other, (1 + cosines[other]) / 2) for other in best]
    assert list(table.query_id) == [row[0] for row in expected] and list(table.database_image_id) == [row[1] for row in expected]
    np.testing.assert_allclose(table.score, [row[2] for row in expected], atol=1e-6)
    assert ranked(tmp_path, monkeypatch).read_bytes() == path.read_bytes()


def test_models_are_joined_in_the_recipes_order_or_in_the_one_asked_for(tmp_path, monkeypatch):
    competition(tmp_path)
    directory = tmp_path / "embeddings"
    plain = lambda names: [model["plain"][0, 0] for _, model in rank.read_embeddings(directory, names)]
    first, second = (np.load(directory / f"{name}.npz")["plain"][0, 0] for name in ("first", "second"))
    assert plain(None) == [first, second] and plain(["second", "first"]) == [second, first] and plain(["second"]) == [second]
    alone = ranked(tmp_path, monkeypatch, "--models", "second").read_bytes()
    assert alone != ranked(tmp_path, monkeypatch).read_bytes()
    assert ranked(tmp_path, monkeypatch).read_bytes() == ranked(tmp_path, monkeypatch, "--models", "first,second").read_bytes()
    message = refusal(rank.read_embeddings, directory, ["frist"])
    assert "has no model 'frist'; did you mean 'first'?" in message and "first, second" in message


def test_the_recipe_beside_the_embeddings_decides_how_they_are_joined(tmp_path):
    ids = shuffled_ids(5)
    saved(tmp_path, "m", ids, 0, mirror="average", normalise=True, weight=0.5)
    (predict, _), = rank.read_embeddings(tmp_path, None)
    assert predict == recipe.Predict(mirror="average", normalise=True, weight=0.5)


@pytest.mark.parametrize("mirror", ["concatenate", "average", "off"])
def test_without_mirror_images_the_ranking_is_that_of_the_images_alone(mirror, tmp_path, monkeypatch):
    """Whatever the recipe says, as if it said `off`: of all models and of one."""
    data = competition(tmp_path)
    ids = pd.read_csv(data / "metadata.csv", dtype=str).image_id.to_numpy(str)
    for options in ((), ("--models", "second")):
        said = {}
        for say, extra in (("off", ()), (mirror, ("--no-mirror",)), (mirror, ())):
            for place, name in enumerate(("second", "first")):
                saved(tmp_path / "embeddings", name, ids, 1 - place, seed=place, mirror=say)
            said[say, extra] = ranked(tmp_path, monkeypatch, *options, *extra).read_bytes()
        assert said[mirror, ("--no-mirror",)] == said["off", ()]
        assert (said[mirror, ()] == said["off", ()]) == (mirror == "off")


def test_embeddings_of_another_system_need_no_recipe(tmp_path, monkeypatch):
    competition(tmp_path)
    path = ranked(tmp_path, monkeypatch)
    before = path.read_bytes()
    for name in ("first", "second"):
        (tmp_path / "embeddings" / f"{name}.json").unlink()
    assert ranked(tmp_path, monkeypatch).read_bytes() == before  # two whose names stand in the order of the recipe


def test_embeddings_that_are_not_of_these_photographs_are_refused(tmp_path, monkeypatch):
    data = competition(tmp_path)
    ids = pd.read_csv(data / "metadata.csv", dtype=str).image_id.to_numpy(str)
    assert "no embeddings here" in refusal(rank.read_embeddings, tmp_path / "nowhere", None)
    saved(tmp_path / "embeddings", "first", ids[::-1], 0)
    assert "its images are not those of" in refusal(rank.read_embeddings, tmp_path / "embeddings", None)
    for name in ("first", "second"):
        saved(tmp_path / "embeddings", name, ids[:5], 0)
    assert "there is no embedding of image" in refusal(ranked, tmp_path, monkeypatch)
    write_arrays(tmp_path / "embeddings" / "first.npz", image_id=ids, plain=np.zeros((len(ids), 3), np.float32))
    assert "array mirror is missing" in refusal(rank.read_embeddings, tmp_path / "embeddings", None)


def test_the_seconds_of_each_phase_are_noted_on_request_and_change_no_byte(tmp_path, monkeypatch):
    data = competition(tmp_path)
    before = ranked(tmp_path, monkeypatch).read_bytes()
    assert ranked(tmp_path, monkeypatch, "--timings", tmp_path / "t.json").read_bytes() == before
    noted = json.loads((tmp_path / "t.json").read_text())
    assert min(noted.pop(f"{phase}_seconds") for phase in ("read", "join", "rank", "write")) > 0
    queries = sum(len(scenario.query_ids) for scenario in scenarios.read(data))
    assert noted == {"queries": queries, "images": len(pd.read_csv(data / "metadata.csv"))}


def test_bad_input_is_one_line_and_exit_status_2(tmp_path):
    competition(tmp_path)
    command = [sys.executable, "-m", "solution.rank", "--embeddings", tmp_path / "embeddings", "--data", tmp_path, "--output", tmp_path / "s.csv"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path}/query_scenarios.csv: no such file\n"
    assert not (tmp_path / "s.csv").exists()


# Scenarios

def with_scenarios(tmp_path, *rows):
    data = tmp_path / "data"
    for part in ("queries", "databases"):
        (data / part).mkdir(parents=True, exist_ok=True)
    (data / "query_scenarios.csv").write_text("\n".join(["scenario_id,queries_path,database_path", *rows]) + "\n")
    (data / "queries" / "1.csv").write_text("query_id,query_image_id\n1-b,b\n1-a,a\n")
    (data / "databases" / "1.csv").write_text("database_image_id\nc\na\n007\n")
    return data


def test_scenarios_are_read_in_the_order_of_their_files(tmp_path):
    (found,) = scenarios.read(with_scenarios(tmp_path, "one,queries/1.csv,databases/1.csv"))
    assert (found.scenario_id, list(found.query_ids), list(found.query_image_ids)) == ("one", ["1-b", "1-a"], ["b", "a"])
    assert list(found.database_image_ids) == ["c", "a", "007"] and list(scenarios.asked([found])) == ["007", "a", "b", "c"]


@pytest.mark.parametrize("row, words", [
    ("one,../q.csv,databases/1.csv", "'../q.csv' leads out of the data directory"),
    ("one,queries/../../q.csv,databases/1.csv", "leads out of the data directory"),
    ("one,queries/1.csv,/etc/passwd", "'/etc/passwd' leads out of the data directory"),
    ("one,,databases/1.csv", "leads out of the data directory"),
    ("one,queries/2.csv,databases/1.csv", "2.csv: no such file"),
    ("one,databases/1.csv,databases/1.csv", "column 'query_id' is missing"),
])
def test_a_scenario_that_cannot_be_read_is_refused(row, words, tmp_path):
    assert words in refusal(scenarios.read, with_scenarios(tmp_path, row))


def test_scenarios_that_lead_out_by_a_link_are_refused(tmp_path):
    data = with_scenarios(tmp_path, "one,queries/link.csv,databases/1.csv")
    (tmp_path / "outside.csv").write_text("query_id,query_image_id\n")
    (data / "queries" / "link.csv").symlink_to(tmp_path / "outside.csv")
    assert "leads out" in refusal(scenarios.read, data)


def test_repeated_ids_are_refused_by_their_line(tmp_path):
    data = with_scenarios(tmp_path, "one,queries/1.csv,databases/1.csv")
    (data / "queries" / "1.csv").write_text("query_id,query_image_id\nq,a\np,a\nq,b\n")
    assert "queries/1.csv: line 4: q stands there twice" in refusal(scenarios.read, data)
    data = with_scenarios(tmp_path, "one,queries/1.csv,databases/1.csv")
    (data / "databases" / "1.csv").write_text("database_image_id\na\na\n")
    assert "databases/1.csv: line 3: a stands there twice" in refusal(scenarios.read, data)


def test_a_query_id_may_not_stand_in_two_scenarios(tmp_path):
    data = with_scenarios(tmp_path, "one,queries/1.csv,databases/1.csv", "two,queries/1.csv,databases/1.csv")
    assert "query_id 1-b stands in another scenario too" in refusal(scenarios.read, data)


def test_a_table_without_a_scenario_is_refused(tmp_path):
    assert "there is no scenario in it" in refusal(scenarios.read, with_scenarios(tmp_path))


def test_a_scenario_whose_database_is_the_query_alone_gives_no_rows(tmp_path):
    ids = np.array(["a", "b"])
    lonely = scenarios.Scenario("one", np.array(["1-a"], object), np.array(["a"], object), np.array(["a"], object))
    normal = scenarios.Scenario("two", np.array(["2-a"], object), np.array(["a"], object), np.array(["a", "b"], object))
    table = rank.submission([lonely, normal], ids, [[fusion.Space(1, unit_rows(2))]] * 2)
    assert table[["query_id", "database_image_id"]].values.tolist() == [["2-a", "b"]]
    assert table.to_csv(io.StringIO(), index=False) is None and table.score.dtype == np.float64


@pytest.mark.benchmark_suite
def test_benchmark_of_ranking_500_queries_in_1000_images(benchmark):
    queries, database = unit_rows(500, 512), unit_rows(1000, 512, seed=1)
    benchmark(ties.best, queries, database, NOWHERE(500), np.arange(1000))
