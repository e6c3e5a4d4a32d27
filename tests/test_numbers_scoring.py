"""Scores, comparisons, leaderboards and pages of odd submissions: one query, one whale, nothing or everything right, ties, identical
answers, constant values. No file and no line that they write says nan or inf, and numpy warns of nothing."""

import json
import sys

import numpy as np
import pandas as pd
import pytest

import numbers_said
import toy
from eval import compare, ensembles, folds, leaderboard, metrics, openset, report, score, summary
from eval.files import InputError, write_json, write_table
from eval.page import charts, embedding_map, render, trust
from eval.page.charts import Line
from eval.page.intervals import Redrawn

pytestmark = [pytest.mark.filterwarnings("error::RuntimeWarning"), pytest.mark.filterwarnings("error::UserWarning")]
VALUES = {"zero": np.zeros, "one": np.ones, "a third": lambda n: np.full(n, 1 / 3), "one differs": lambda n: np.eye(1, n)[0],
          "tiny": lambda n: np.full(n, 1e-300), "spread": lambda n: np.linspace(-1, 1, n)}


def groups(n):
    """Whales of n queries: one, all different, two, one of nearly all."""
    return [np.zeros(n, int), np.arange(n), np.arange(n) % 2, np.minimum(np.arange(n), 1)]


@pytest.mark.parametrize("n", [1, 2, 3, 16, 40])
@pytest.mark.parametrize("sort", VALUES)
def test_intervals_and_p_values_of_degenerate_differences_are_numbers(n, sort):
    value = VALUES[sort](n)
    for group in groups(n):
        low, high = metrics.bootstrap_interval(value, group, resamples=50)
        assert low <= high and np.isfinite([low, high]).all() and value.min() - 1e-12 <= low and high <= value.max() + 1e-12
        assert 0 < metrics.sign_flip_p_value(value, group, flips=200) <= 1
        interval = metrics.whale_interval(value, group)
        assert (interval is None) == (len(np.unique(group)) == 1)
        assert interval is None or (np.isfinite(interval).all() and interval[0] <= value.mean() + 1e-12 and value.mean() - 1e-12 <= interval[1])


def test_identical_submissions_differ_by_zero_surely():
    queries = pd.DataFrame({"fold": 0, "query_id": list("abcd"), "scenario_id": ["s", "s", "t", "t"], "whale_id": list("vvwx"), "a": [0.5, 1, 0, 1.0]})
    found = compare.compare(queries.assign(b=queries.a, difference=0.0))
    assert (found["difference"], found["p_value"], found["ci95"], found["changed_most"]) == (0, 1, [0, 0], [])
    for part in (queries.head(1), queries.head(2), queries.assign(whale_id="")):
        json.dumps(compare.compare(part.assign(b=1 - part.a, difference=1 - 2 * part.a)), allow_nan=False)


@pytest.mark.parametrize("known", [[True] * 4, [False] * 4, [True, False, True, False], [True]])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 1e-300])
def test_an_open_set_of_one_kind_or_one_value_has_figures_or_none(known, p, capsys):
    known = np.array(known)
    found = openset.detection(np.full(len(known), p), known) | dict.fromkeys(["first_right_known", "first_right_unknown", "wrong_above"])
    assert found["auc"] == (0.5 if len(set(known)) == 2 else None)
    json.dumps(found, allow_nan=False)
    openset.show(found)
    assert not numbers_said.WORDS.search(capsys.readouterr().out)


# Submissions

def submission(fold, sort):
    """Rows of all queries of a fold whose scores and hits are of an odd sort."""
    truth, rows = set(map(tuple, pd.read_csv(fold / "truth.csv").to_numpy())), []
    for scenario in pd.read_csv(fold / "test/query_scenarios.csv").itertuples():
        database = pd.read_csv(fold / "test" / scenario.database_path).database_image_id
        for query, own in pd.read_csv(fold / "test" / scenario.queries_path).itertuples(index=False):
            right = {image: (query, image) in truth for image in database if image != own}
            chosen = {"perfect": [name for name in right if right[name]], "hopeless": [name for name in right if not right[name]]}.get(sort, list(right))
            rows += [(query, image, value(sort, place)) for place, image in enumerate(chosen[:20])]
    return pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"])


def value(sort, place):
    return {"ties": 0.5, "an ulp": 1 - place * 2**-53, "tiny": 1e-300 * (21 - place)}.get(sort, 1 - place / 100)


SORTS = ["perfect", "hopeless", "ties", "an ulp", "tiny"]


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """Two whale folds of twelve whales, and one of two whales with a query or two each."""
    path = tmp_path_factory.mktemp("cut")
    folds.make(toy.competition(path / "data", n_whales=12, images=False), path / "folds", "whale", n_folds=2)
    small = toy.competition(path / "small", n_whales=2, images_per_whale=(2, 2), images=False)
    folds.make(small, path / "few", "suite")
    return path


def odd_run(run, source, chosen, sort):
    """A run that answered `chosen` folds of `source`, with embeddings that are all alike, and its scores."""
    run.mkdir(parents=True)
    (run / "folds").symlink_to(source)
    for k in chosen:
        fold, answered = source / str(k), run / f"fold{k}"
        write_table(submission(fold, sort), answered / "submission.csv")
        evaluation = score.evaluate(answered / "submission.csv", fold / "truth.csv")
        write_table(evaluation.per_query, answered / "per_query.csv")
        write_json(score.summarise(*evaluation[:2]), answered / "score.json")
        write_json({"embed_seconds": 0.0, "images": 4}, answered / "timings.json")
        write_table(pd.DataFrame({"epoch": [0], "learning_rate": 0.0, "loss": 0.0, "seconds": 0.0}), answered / "weights/m.log.csv")
        ids = pd.read_csv(fold / "test/metadata.csv", dtype=str).image_id.to_numpy(str)
        (answered / "embeddings").mkdir()
        np.savez(answered / "embeddings/m.npz", image_id=ids, plain=np.zeros((len(ids), 4), np.float32), mirror=np.zeros((len(ids), 4), np.float32))
    write_json(summary.pooled([run / f"fold{k}" for k in chosen]), run / "score.json")
    write_table(pd.DataFrame({"step": ["folds"], "seconds": [0.0], "peak_mb": [0]}), run / "summary.csv")
    write_ensembles(run, chosen)
    return run


def write_ensembles(run, chosen):
    """As eval.ensembles does for one model whose mirror images change nothing."""
    per_query = {k: score.read_per_query(run / f"fold{k}/per_query.csv") for k in chosen}
    rows = ensembles.roles({"m": True})
    table = ensembles.table(rows, {k: {role.variant: queries for role in rows} for k, queries in per_query.items()}, {k: {} for k in chosen})
    write_table(table, run / "ensembles.csv")
    board = leaderboard.rows(run / "folds", list(chosen), "odd", table)
    leaderboard.add(run.parent / "leaderboard.csv", board)


def shown(monkeypatch, capsys, main, *words):
    """What a command says on both streams."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    main()
    said = capsys.readouterr()
    return said.out + said.err


@pytest.mark.parametrize("sort, chosen", [("hopeless", (0,)), *(pytest.param(sort, (0, 1), marks=pytest.mark.slow) for sort in SORTS)])
def test_a_run_of_odd_answers_has_a_page_and_tables_without_nan(cut, tmp_path, sort, chosen, monkeypatch, capsys):
    run = odd_run(tmp_path / "runs/odd", cut / "folds", chosen, sort)
    said = shown(monkeypatch, capsys, summary.main, run) + shown(monkeypatch, capsys, leaderboard.main, run.parent / "leaderboard.csv")
    report.report(run, tmp_path / "runs/report.html", against=run)
    assert numbers_said.wrong(tmp_path / "runs") == [] and not numbers_said.WORDS.search(said), said
    strict = json.loads((run / "score.json").read_text())["strict"]
    assert strict == {"perfect": 1, "hopeless": 0}.get(sort, strict) and 0 <= strict <= 1


@pytest.mark.slow
@pytest.mark.parametrize("sort", ["perfect", "hopeless", "ties"])
def test_a_run_of_one_scenario_of_two_whales_has_a_page_without_nan(cut, tmp_path, sort, monkeypatch, capsys):
    run = odd_run(tmp_path / "runs/odd", cut / "few", (0,), sort)
    said = shown(monkeypatch, capsys, summary.main, run)
    report.report(run, tmp_path / "runs/report.html")
    assert numbers_said.wrong(tmp_path / "runs") == [] and not numbers_said.WORDS.search(said)


def test_one_query_of_one_whale_is_scored_and_compared(cut, tmp_path, monkeypatch, capsys):
    truth = pd.DataFrame({"query_id": ["s-a"], "database_image_id": ["b"]})
    write_table(truth, tmp_path / "truth.csv")
    write_table(pd.DataFrame({"image_id": list("abc"), "whale_id": ["w", "w", "v"]}), tmp_path / "labels.csv")
    for name, first in (("right", "b"), ("wrong", "c")):
        write_table(pd.DataFrame({"query_id": ["s-a"], "database_image_id": [first], "score": [0.5]}), tmp_path / f"{name}.csv")
        said = shown(monkeypatch, capsys, score.main, tmp_path / f"{name}.csv", tmp_path / "truth.csv", "--json", tmp_path / f"{name}.json", "--per-query", tmp_path / f"{name}.q.csv")
        assert not numbers_said.WORDS.search(said)
    said = shown(monkeypatch, capsys, compare.main, tmp_path / "wrong.csv", tmp_path / "right.csv", tmp_path / "truth.csv", "--json", tmp_path / "difference.json")
    assert json.loads((tmp_path / "difference.json").read_text())["ci95"] is None and json.loads((tmp_path / "difference.json").read_text())["p_value"] == 1
    assert numbers_said.wrong(tmp_path) == [] and not numbers_said.WORDS.search(said)


@pytest.mark.parametrize("word", ["inf", "-inf", "nan", "1e999", "", "2"])
def test_scores_that_are_no_numbers_from_0_to_1_are_refused_without_a_warning_and_leave_no_nan_behind(cut, tmp_path, word, monkeypatch):
    table = submission(cut / "folds/0", "ties").astype(str).assign(score=word)
    write_table(table, tmp_path / "s.csv")
    monkeypatch.setattr(sys, "argv", ["score", *map(str, (tmp_path / "s.csv", cut / "folds/0/truth.csv", "--json", tmp_path / "score.json", "--per-query", tmp_path / "q.csv"))])
    with pytest.raises(InputError, match="not a number from 0 to 1"):
        score.main()
    told = json.loads((tmp_path / "score.json").read_text(), parse_constant=pytest.fail)
    assert told["strict"] is None and told["official"] is None
    assert numbers_said.words(tmp_path / "q.csv") == []


# The page

@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), -float("inf"), 10**400])
def test_what_is_no_figure_is_a_dash(value):
    assert [render.number(value), render.count(value), render.duration(value)] == ["–"] * 3
    assert value == 10**400 or render.told({"a": value}) == "a –"


@pytest.mark.parametrize("rows", [np.zeros((9, 4)), np.ones((9, 4)), np.full((9, 4), np.nan), np.full((9, 4), 1e30), np.full((9, 4), np.inf)])
def test_embeddings_that_are_all_alike_have_no_map(rows, tmp_path):
    ids = np.array([f"a{k}" for k in range(9)])
    np.savez(tmp_path / "m.npz", image_id=ids, plain=rows.astype(np.float32))
    write_table(pd.DataFrame({"image_id": ids, "whale_id": list("uuvvwwxx") + [""]}), tmp_path / "labels.csv")
    found = embedding_map.of_fold(0, [tmp_path / "m.npz"], tmp_path / "labels.csv")
    assert found.chart == "" and "the same embedding" in found.absent


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e37, 0.0])
def test_a_map_of_some_broken_embeddings_and_copies_has_a_place_for_each(broken, tmp_path):
    ids, rows = np.array([f"a{k}" for k in range(12)]), np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
    rows[:2], rows[4:7] = broken, rows[4]
    np.savez(tmp_path / "m.npz", image_id=ids, plain=rows)
    write_table(pd.DataFrame({"image_id": ids, "whale_id": list("uuvvwwxx") + [""] * 4}), tmp_path / "labels.csv")
    found = embedding_map.of_fold(0, [tmp_path / "m.npz"], tmp_path / "labels.csv")
    assert found.chart.count("data-image=") == 12 and not numbers_said.WORDS.search(found.chart + str(found.words))


@pytest.mark.parametrize("said, right", [
    (1 - np.arange(9) * 2.0**-53, [True, False] * 4 + [True]), (np.arange(9) * 1e-300, [True] * 9), (np.full(9, 0.5), [True, False] * 4 + [True]),
    *(pytest.param(np.full(9, said), [right] * 9, marks=pytest.mark.slow) for said in (0.0, 0.5, 1.0) for right in (True, False))])
def test_a_certainty_that_hardly_varies_is_drawn_or_said_to_be_none(said, right):
    right, drawn = np.array(right), Redrawn(np.arange(9))
    edges = np.unique(np.quantile(said, np.linspace(0, 1, 11)))
    figures = [trust.roc("roc", "ROC", drawn, said, right, ("a", "b"), ("c", "d")), trust.calibration("whole", "Calibration", drawn, said, right, ("a", "b"))]
    figures += [trust.calibration("parts", "Calibration", drawn, said, right, ("a", "b"), edges)] if len(edges) > 1 else []
    for figure in figures:
        assert (figure.chart or figure.absent) and not numbers_said.WORDS.search(figure.chart + figure.caption + str(figure.words))


@pytest.mark.parametrize("values", [np.full(1, 1.0), *(pytest.param(values, marks=pytest.mark.slow) for values in (np.zeros(3), np.full(5, -1e-300)))])
def test_charts_of_equal_values_are_drawn(values):
    line = {"a": Line(np.arange(len(values)) + 1, values, values, values)}
    drawings = [charts.waterfall("w", values, "y"), charts.bubbles("b", values, values, np.ones(len(values)), ("x", "y")), charts.lines("l", line, "x", "y"),
                charts.paths("p", line, ["a"], "x", "y"), charts.curves("c", {"m": pd.DataFrame({"epoch": line["a"].x, "loss": values})}, "loss")]
    assert all(drawing.startswith("<svg") and not numbers_said.WORDS.search(drawing) for drawing in drawings)
