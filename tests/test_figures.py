"""What is drawn of a run, against naive counts, scikit-learn and formulas written out; hostile names; the same bytes twice."""

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

import toy
from eval import metrics, score
from eval.page import change, charts, cost, difficulty, embedding_map, figures, outcomes, row_charts, trust
from eval.page.charts import Line
from eval.files import InputError, write_json, write_table
from eval.page.intervals import Redrawn, in_bins

ROOT = Path(__file__).parents[1]
HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}{0}$ & ]]>", "\u202e$x_2$\u0007'"]


def answers(fold, seed):
    """A submission whose true matches score higher than chance; one query in seven is left out."""
    rng, truth, rows = np.random.default_rng(seed), set(map(tuple, pd.read_csv(fold / "truth.csv").to_numpy())), []
    for scenario in pd.read_csv(fold / "test/query_scenarios.csv").itertuples():
        database = pd.read_csv(fold / "test" / scenario.database_path).database_image_id
        for number, query in enumerate(pd.read_csv(fold / "test" / scenario.queries_path).query_id):
            value = rng.uniform(0, 0.6, len(database)) + [0.3 * ((query, image) in truth) for image in database]
            best = sorted(zip([query] * len(database), database, value.round(2)), key=lambda row: -row[2])[:20]
            rows += best if number % 7 else []
    return pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"])


def predict(run, k, seed):
    fold, truth = run / f"fold{k}", run / "folds" / str(k) / "truth.csv"
    submission = write_table(answers(run / "folds" / str(k), seed), fold / "submission.csv")
    evaluation = score.evaluate(submission, truth)
    write_table(evaluation.per_query, fold / "per_query.csv")
    images = pd.read_csv(run / "folds" / str(k) / "test/metadata.csv").image_id.to_numpy().astype(str)
    rng = np.random.default_rng(seed)
    (fold / "embeddings").mkdir()
    for model, width in {"a": 6, "b": 4}.items():
        arrays = {name: rng.normal(size=(len(images), width)).astype(np.float32) for name in ("plain", "mirror")}
        np.savez(fold / "embeddings" / f"{model}.npz", image_id=images, **arrays)
    write_json({"embed_seconds": 5.0, "load_seconds": 1, "forward_seconds": 2.5, "rank_seconds": 0.25, "images": 40,
                "models": {"a": {"plain_seconds": 1.5, "mirror_seconds": 1.0}}}, fold / "timings.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two folds, four of whose individuals are named by an attacker."""
    place = tmp_path_factory.mktemp("figures")
    data = toy.competition(place / "data", n_whales=40, images_per_whale=(3, 6, 9), images=False)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table["whale_id"] = table.whale_id.replace({f"whale{number:03d}": name for number, name in zip((2, 5, 8, 11), HOSTILE)})
    write_table(table, data / "metadata.csv")
    run = place / "run"
    command("eval.folds", data, "--output", run / "folds", "--n-folds", 3)
    for k in (0, 1):
        predict(run, k, k)
    (run / "summary.csv").write_text("step,seconds,peak_mb\nfolds,2.5,9\ntrain fold 0,60,9\ntrain fold 1,90,9\n$x$ <b>,1,9\n")
    return run


def command(module, *arguments):
    return subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def found(run):
    return outcomes.read(run, [0, 1])


@pytest.fixture(scope="module")
def made(run):
    return {section.name: section for section in figures.sections(run, [0, 1], run)}


def naive(run, k):
    """query -> (hits by place, number of matches), by a plain loop."""
    truth = pd.read_csv(run / "folds" / str(k) / "truth.csv", dtype=str).groupby("query_id").database_image_id.apply(set)
    given = pd.read_csv(run / f"fold{k}" / "submission.csv").groupby("query_id")[["database_image_id", "score"]]
    rows = {query: sorted(part.itertuples(index=False), key=lambda row: (-row.score, row.database_image_id)) for query, part in given}
    return {query: ([row.database_image_id in matches for row in rows.get(query, [])], len(matches)) for query, matches in truth.items()}


def figure(section, name):
    return next(each for each in section.figures if each.name == name)


def numbers(line):
    return [float(text) for text in re.findall(r"[+-]?\d+\.\d+", line)]


def test_hits_by_place_are_those_of_a_plain_loop(run, found):
    for k in (0, 1):
        queries = found.queries[found.queries.fold == k]
        for (query, (hits, n_pos)), row, value in zip(naive(run, k).items(), found.hits[queries.index], queries.n_pos):
            assert list(row[: len(hits)]) == hits and not row[len(hits):].any() and value == n_pos
        assert set(queries.query_id) == set(naive(run, k))


def test_match_precision_and_recall_at_k_are_those_of_a_plain_loop(run, made):
    queries = [*naive(run, 0).values(), *naive(run, 1).values()]
    words = figure(made["ranks"], "ranks").words
    for k in (1, 2, 7, 20):
        first = [(sum(hits[:k]), min(n_pos, 20)) for hits, n_pos in queries]
        expected = [np.mean([n > 0 for n, _ in first]), np.mean([n / k for n, _ in first]), np.mean([n / most for n, most in first])]
        told = numbers(words[k - 1])
        assert [told[0], told[3], told[6]] == pytest.approx(expected, abs=5e-4)
        assert told[1] <= told[0] <= told[2]


def test_the_first_places_of_a_query_are_the_best_without_repetitions():
    query, image, value = outcomes.first_places(np.array([1, 0, 0, 0, 1]), np.array([4, 2, 2, 1, 3]), np.array([0.1, 0.5, 0.9, 0.5, 0.1]))
    assert list(zip(query, image, value)) == [(0, 2, 0.9), (0, 1, 0.5), (1, 3, 0.1), (1, 4, 0.1)]


def test_scores_by_photographs_are_group_means(found, made):
    strict, n_pos = found.queries.strict, found.queries.n_pos
    said = {line.partition(":")[0]: numbers(line)[0] for line in figure(made["kinds"], "photographs").words}
    bins = {"1 photograph": (1, 1), "2 photographs": (2, 2), "3–4": (3, 4), "5–8": (5, 8), "9–16": (9, 16)}
    expected = {name: strict[n_pos.between(*ends)].mean() for name, ends in bins.items() if n_pos.between(*ends).any()}
    assert said == pytest.approx(expected, abs=5e-4) and len(said) >= 2


def test_scores_by_scenario_are_means_pooled_over_the_folds(found, made):
    said = {line.split(" (")[0]: numbers(line)[0] for line in figure(made["kinds"], "by-scenario").words}
    by_scenario = found.queries.groupby("scenario_id").strict.mean()
    by_fold = found.queries.groupby("fold").strict.mean().rename(lambda fold: f"fold {fold}")
    assert said == pytest.approx(pd.concat([by_scenario, by_fold]).to_dict(), abs=5e-4)


def test_matches_by_viewpoint_and_by_time_are_those_of_a_plain_loop(run, found, made):
    viewpoints, days = {}, {}
    for k in (0, 1):
        fold, answer = run / "folds" / str(k), pd.read_csv(run / f"fold{k}" / "submission.csv")
        given = set(zip(answer.query_id, answer.database_image_id))
        table = pd.read_csv(fold / "test/metadata.csv").set_index("image_id")
        time = pd.to_datetime(pd.read_csv(fold / "labels.csv").set_index("image_id").timestamp)
        for query, image in pd.read_csv(fold / "truth.csv").to_numpy():
            asked, right = query.partition("-")[2], (query, image) in given
            viewpoints.setdefault(f"{table.viewpoint[asked]} → {table.viewpoint[image]}", []).append(right)
            apart = abs(time[asked] - time[image]).total_seconds() / 86400
            near = "within a day" if apart <= 1 else "within 30 days" if apart <= 30 else "within a year" if apart <= 365 else "later"
            days.setdefault(near, []).append(right)
    assert found.queries.n_pos.max() <= 20
    for name, parts in {"viewpoint": viewpoints, "days": days}.items():
        said = {line.partition(":")[0]: numbers(line)[0] for line in figure(made["kinds"], name).words}
        assert said == pytest.approx({key: np.mean(part) for key, part in parts.items()}, abs=5e-4)


def test_without_a_time_of_day_whole_days_lie_between_photographs():
    table = lambda times, days: pd.DataFrame({"viewpoint": "top", "time": pd.to_datetime(times), "day": pd.to_datetime(days)})
    query = table(["2020-01-01 23:00", None], ["2020-01-01", "2020-03-01"])
    match = table(["2020-01-02 05:00", "2020-01-01 05:00"], ["2020-01-02", "2020-01-01"])
    assert outcomes.apart(query, match)["days"].tolist() == [0.25, 60.0]


def test_intervals_are_those_of_whales_drawn_one_by_one():
    rng = np.random.default_rng(1)
    group, values = rng.integers(0, 30, 200), rng.uniform(size=(200, 2))
    part = (rng.uniform(size=(200, 2)) < 0.5).astype(float)
    drawn = Redrawn(group)
    value, low, high = drawn.means(values * part, part)
    naive = [[sum(values[group == whale, k] @ part[group == whale, k] * n for whale, n in enumerate(times)) /
              sum(part[group == whale, k].sum() * n for whale, n in enumerate(times)) for k in (0, 1)] for times in drawn.times[:1000].tolist()]
    assert np.allclose(value, (values * part).sum(axis=0) / part.sum(axis=0))
    assert np.allclose([low, high], np.percentile(naive, [2.5, 97.5], axis=0))
    assert drawn.times.sum(axis=1).tolist() == [30] * 1000


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    inside = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        whale = np.repeat(rng.normal(0.5, 0.2, 60), 4)
        value = (whale + rng.normal(0, 0.1, 240))[:, None]
        _, low, high = Redrawn(np.repeat(np.arange(60), 4), seed).means(value, np.ones((240, 1)))
        inside.append(low[0] <= 0.5 <= high[0])
    assert 0.88 <= np.mean(inside) <= 0.99


def test_fewer_than_five_whales_have_no_interval():
    value, low, high = Redrawn(np.repeat(np.arange(4), 9)).means(np.arange(36.0)[:, None], np.ones((36, 1)))
    assert value == [17.5] and np.isnan(low) and np.isnan(high)


def test_parts_are_counted_in_their_bins():
    top, bottom = in_bins(np.array([1.0, 2, 4, 8]), np.array([0, 2, 2, 1]), np.array([1, 0, 0, -1]), 3, 2)
    assert top.tolist() == [[0, 1], [0, 0], [6, 0]] and bottom.tolist() == [[0, 1], [0, 0], [2, 0]]


def test_the_area_under_the_roc_is_that_of_scikit_learn_also_when_whales_are_drawn():
    rng = np.random.default_rng(2)
    group, positive = rng.integers(0, 40, 300), rng.uniform(size=300) < 0.4
    value = (rng.normal(size=300) + positive).round(1)
    drawn = Redrawn(group)
    area, low, high = drawn.area_under_roc(value, positive)
    assert area == pytest.approx(roc_auc_score(positive, value)) and low < area < high
    drawn.times = drawn.times[:60]
    _, low, high = drawn.area_under_roc(value, positive)
    naive = [roc_auc_score(positive, value, sample_weight=times[group]) for times in drawn.times]
    assert [low, high] == pytest.approx(np.percentile(naive, [2.5, 97.5]))


def test_the_curve_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    value, positive = rng.uniform(size=80).round(1), rng.uniform(size=80) < 0.5
    alarms, found, _ = roc_curve(positive, value, drop_intermediate=False)
    assert np.allclose(trust.rates(value, positive), [alarms, found])


def test_the_first_similarity_is_asked_whether_it_tells_right_from_wrong(found, made):
    given = found.queries[found.queries.first_score.notna()]
    area = metrics.area_under_roc(given.first_score.to_numpy(), found.hits[given.index, 0])
    assert numbers(figure(made["trust"], "roc").words[0])[0] == pytest.approx(area, abs=5e-4)
    assert 0 < found.queries.first_score.isna().sum() < len(found.queries)


def test_calibration_bins_are_those_counted_by_hand():
    said = np.array([0.0, 0.05, 0.1, 0.11, 0.95, 1.0] * 5)
    true = np.array([True, False, False, True, True, False] * 5)
    words = trust.calibration("c", "", Redrawn(np.arange(30) % 10), said, true, ("said", "true")).words
    assert [numbers(line)[-1] for line in words] and len(words) == 3
    assert [re.search(r"(\d+) queries", line)[1] for line in words] == ["15", "5", "10"]
    assert "0 to 0.1: 15 queries, said 0.050, true 0.333" in words[0] and "said 0.975, true 0.500" in words[2]


def names_run(place, probabilities=True):
    """A run that answers with names: 60 photographs, a third of unknown individuals; one individual is named by an attacker."""
    rng, run = np.random.default_rng(5), place / "names"
    whales = np.array([f"whale{number}" for number in range(11)] + [HOSTILE[0].replace(" ", "")])
    truth = np.where(np.arange(60) % 3 == 0, "new_whale", whales[np.arange(60) % 12])
    images = [f"test{number:02d}.jpg" for number in range(60)]
    chance = rng.dirichlet(np.ones(13) / 2, 60)
    names = np.append(whales, "new_whale")
    chance[np.arange(60), [list(names).index(name) for name in truth]] += 0.3
    chance /= chance.sum(axis=1, keepdims=True)
    order = np.argsort(-chance, axis=1)[:, :5]
    table = pd.DataFrame({"Image": images, "Id": [" ".join(names[row]) for row in order]})
    write_table(pd.DataFrame({"Image": images, "Id": truth}), run / "folds/0/truth.csv")
    write_table(pd.DataFrame({"image_id": [name[:-4] for name in images], "path": [f"images/{name}" for name in images], "viewpoint": "left",
                              "height": range(60), "width": 99}), run / "folds/0/test/metadata.csv")
    write_table(pd.DataFrame({"image_id": range(24), "path": "", "whale_id": [*whales, *whales[:6], *[""] * 6]}), run / "folds/0/train/metadata.csv")
    evaluation = score.evaluate(write_table(table, run / "fold0/submission.csv"), run / "folds/0/truth.csv")
    write_table(evaluation.per_query, run / "fold0/per_query.csv")
    long = pd.DataFrame({"Image": np.repeat(images, 13), "Id": np.tile(names, 60), "probability": chance.ravel()})
    if probabilities:
        write_table(long, run / "fold0/probabilities.csv")
    return run, truth, names, chance, evaluation.per_query


def test_a_run_of_names_has_names_curves_and_both_calibrations(tmp_path):
    run, truth, names, chance, per_query = names_run(tmp_path)
    made = {section.name: section for section in figures.sections(run, [0], None)}
    right = names[np.argsort(-chance, axis=1)] == truth[:, None]
    known = truth != "new_whale"
    told = re.findall(r"individuals ([\d.]+)", figure(made["ranks"], "ranks").words[2])
    assert [float(value) for value in told] == pytest.approx([right[known, :3].any(axis=1).mean(), right[~known, :3].any(axis=1).mean()], abs=5e-4)
    area = numbers(figure(made["trust"], "roc").words[0])[0]
    assert area == pytest.approx(roc_auc_score(~known, chance[:, -1]), abs=5e-4)
    expected = score.open_set(run / "fold0/probabilities.csv", run / "folds/0/truth.csv", None, per_query)
    assert f"{expected['calibration_error']:.3f}" in figure(made["trust"], "calibration-new").caption
    best = metrics.calibration_error(chance.max(axis=1), right[:, 0])
    assert f"{best:.3f}" in figure(made["trust"], "calibration-best").caption
    said = {line.partition(":")[0]: numbers(line)[0] for line in figure(made["kinds"], "photographs").words}
    count = pd.Series(truth).map(dict.fromkeys(names[:6], 2) | dict.fromkeys(names[6:12], 1))
    expected = per_query.strict.groupby(count.fillna(0)).mean()
    assert said == pytest.approx({"1 photograph": expected[1], "2 photographs": expected[2], "none": expected[0]}, abs=5e-4)
    assert "ensembles" not in made


def test_names_without_probabilities_say_what_makes_them(tmp_path):
    made = figures.sections(names_run(tmp_path, probabilities=False)[0], [0], None)
    roc = next(section for section in made if section.name == "trust").figures[0]
    assert not roc.chart and "solution.predict --probabilities" in roc.absent


def test_rankings_with_probabilities_tell_new_from_known(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    asked = pd.concat([pd.read_csv(path) for path in sorted((run / "folds/0/test/queries").glob("*.csv"))])
    known = asked.query_id.isin(pd.read_csv(run / "folds/0/truth.csv").query_id)
    chance = np.random.default_rng(0).uniform(size=len(asked)).round(2)
    write_table(pd.DataFrame({"query_id": asked.query_id, "Id": "new_whale", "probability": chance}), copy / "fold0/probabilities.csv")
    table = trust.probabilities(copy, [0, 1])
    assert len(table) == len(asked) and table.new.sum() == (~known).sum()
    assert sorted(table.p_new) == sorted(chance) and table.best.isna().all()


def test_seconds_of_steps_and_phases_are_summed(made, run):
    steps = dict(line.split(": ", 1) for line in figure(made["time"], "steps").words)
    assert steps["train"] == "2.5 min, 98 % (fold 0 1.0 min, fold 1 1.5 min)" and steps["folds"].startswith("2.5 s, 2 %")
    prediction = figure(made["time"], "prediction").words[0]
    assert prediction == "fold 0: 5.2 s, 7.6 photographs/s (load models 1.0 s, run models 2.5 s, embed, the rest 1.5 s, rank 0.2 s)"
    assert figure(made["time"], "models").words == ["a: 5.0 s, 100 % (photographs 3.0 s, mirror images 2.0 s)"]


def ensembles(place):
    rows = [("a", "single", "a", "yes", 0.2, "", 10), ("b", "single", "b", "yes", 0.1, "", 20), ("a+b", "prefix", "a+b", "yes", 0.25, 0.05, 30),
            ("b", "without", "b", "yes", 0.1, 0.15, 20), ("a", "without", "a", "yes", 0.2, 0.05, 10), ("a+b no", "without", "a+b", "no", 0.22, 0.03, 15)]
    table = pd.DataFrame(rows, columns=["variant", "kind", "models", "mirror", "strict", "gain", "seconds"])
    table = table.assign(n_queries=9, folds="0+1", low=0.1, high=0.3, gain_low=table.gain.map(lambda gain: gain and gain - 0.1), gain_high=table.gain)
    write_table(pd.concat([table.assign(folds="0", n_queries=4), table]), place / "ensembles.csv")


def test_ensembles_are_told_as_score_over_seconds_and_as_gains(tmp_path):
    ensembles(tmp_path)
    (frontier, gains), (header, rows) = cost.of_ensembles(tmp_path)
    assert len(rows) == 6 and all(len(row) == len(header) for row in rows)
    assert [row[1] for row in rows] == ["alone", "alone", "first 2", "without a", "without b", "without mirror images"]
    assert [row[6] for row in rows] == ["–", "–", "+0.050", "+0.150", "+0.050", "+0.030"]
    assert [line for line in frontier.words if line.startswith("a + b")] == ["a + b (first models, with mirror images): 0.250 (0.100–0.300), 30.0 s"]
    assert gains.words[0] == "b (added to the recipe's first model): +0.050 (-0.050 to +0.050)"
    assert [line.split(":")[0] for line in gains.words[1:]] == ["a (added to all others)", "b (added to all others)", "mirror images (added to all models)"]


def test_one_model_adds_to_nothing(tmp_path):
    table = {"variant": "a", "kind": "single", "models": "a", "mirror": "", "folds": "0", "n_queries": 3, "strict": 0.2}
    write_table(pd.DataFrame([table | dict.fromkeys(["low", "high", "gain", "gain_low", "gain_high", "seconds"], "")]), tmp_path / "ensembles.csv")
    (frontier, gains), table = cost.of_ensembles(tmp_path)
    assert "timings.json" in frontier.absent and "one model" in gains.absent and table[1][0][0] == "a"


def other_run(run, place, move):
    """The per-query tables of a run with `move` applied."""
    for k in (0, 1):
        write_table(move(score.read_per_query(run / f"fold{k}" / "per_query.csv")), place / f"fold{k}" / "per_query.csv")
    return place


def test_changes_are_differences_query_by_query(run, found, tmp_path):
    other = other_run(run, tmp_path / "before", lambda table: table.assign(strict=(table.strict * 0.5).round(3)).sample(frac=1, random_state=0))
    waterfall, square = change.figures(run, [0, 1], other)
    difference = found.queries.strict - (found.queries.strict * 0.5).round(3)
    assert f"{difference.mean():+.4f}" in waterfall.words[0]
    assert f"{(difference > 0).sum():,} queries are better, {(difference < 0).sum():,} worse" in waterfall.words[1]
    assert sum(int(re.search(r"now: ([\d,]+) ", line)[1].replace(",", "")) for line in square.words) == len(found.queries)


@pytest.mark.parametrize("move", [lambda table: table.iloc[1:], lambda table: table.assign(n_pos=table.n_pos + 1),
                                  lambda table: table.assign(query_id="other" + table.query_id)])
def test_a_run_of_other_queries_is_not_compared(run, tmp_path, move):
    only, = change.figures(run, [0, 1], other_run(run, tmp_path / "other", move))
    assert "not asked the same queries" in only.absent


def test_a_run_without_folds_in_common_is_not_compared(run, tmp_path):
    assert "not asked the same queries" in change.figures(run, [0, 1], tmp_path)[0].absent


def test_a_map_takes_whole_whales_and_those_with_most_photographs_first():
    whale = np.array(["a"] * 30 + ["b"] * 5 + [""] * 20 + [f"w{number}" for number in range(100) for _ in range(3)], object)
    chosen = embedding_map.choose(whale, most=60)
    taken = pd.Series(whale[chosen]).value_counts()
    assert len(chosen) <= 60 and taken["a"] == 30 and taken["b"] == 5
    assert all(count == 3 for name, count in taken.items() if name.startswith("w"))
    assert list(embedding_map.most_photographed(whale)) == ["a", "b", "w0", "w1", "w10", "w11"]


def test_every_photograph_is_a_point_of_the_map(run, made):
    points = [point for point in ElementTree.fromstring(figure(made["map"], "map").chart).iter() if "data-image" in point.attrib]
    images = pd.read_csv(run / "folds/0/test/metadata.csv").image_id
    assert sorted(point.get("data-image") for point in points) == sorted(images) and {point.get("data-fold") for point in points} == {"0"}
    assert {point.tag.rpartition("}")[2] for point in points} == {"circle"}
    whale = pd.read_csv(run / "folds/0/labels.csv").set_index("image_id").whale_id
    assert all(point[0].text == f"{image}: {charts.clip(whale[image], 200)}" for point in points if (image := point.get("data-image")))


def test_nearest_photographs_are_counted_by_cosine(run, made):
    image_id, rows = embedding_map.read(sorted((run / "fold0/embeddings").glob("*.npz")))
    whale = pd.read_csv(run / "folds/0/labels.csv").set_index("image_id").whale_id[image_id].to_numpy()
    assert np.allclose((rows**2).sum(axis=1), 1)
    same = sum(whale[max((other for other in range(len(rows)) if other != row), key=lambda other: rows[row] @ rows[other])] == whale[row] for row in range(len(rows)))
    assert figure(made["map"], "map").words[-1] == f"all: {same} of {len(rows)} photographs have one of the same individual as the nearest"


def test_embeddings_that_are_pickled_or_disagree_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", image_id=np.array(["x", "y"]), plain=np.ones((2, 3)), mirror=np.ones((2, 3)))
    np.savez(tmp_path / "b.npz", image_id=np.array(["x", "z"]), plain=np.ones((2, 3)), mirror=np.ones((2, 3)))
    np.savez(tmp_path / "c.npz", image_id=np.array(["x", None], object), plain=np.ones((2, 3)))
    with pytest.raises(InputError, match="other photographs"):
        embedding_map.read([tmp_path / "a.npz", tmp_path / "b.npz"])
    with pytest.raises(InputError, match="not embeddings"):
        embedding_map.read([tmp_path / "c.npz"])


@pytest.mark.parametrize("damage", [
    lambda path, arrays: path.write_bytes(path.read_bytes()[:200]), lambda path, arrays: path.write_bytes(b""),
    lambda path, arrays: np.savez(path, **arrays | {"plain": arrays["plain"][:1], "mirror": arrays["mirror"][:1]}),
    lambda path, arrays: np.savez(path, **arrays | {"mirror": arrays["mirror"][:, 0]}),
    lambda path, arrays: np.savez(path, **arrays | {"plain": np.full((2, 3), "a")})])
def test_damaged_embeddings_are_refused_with_their_file(tmp_path, damage):
    path, arrays = tmp_path / "a.npz", {"image_id": np.array(["x", "y"]), "plain": np.ones((2, 3)), "mirror": np.ones((2, 3))}
    np.savez(path, **arrays)
    damage(path, arrays)
    with pytest.raises(InputError, match="a.npz: "):
        embedding_map.read([path])


def test_an_empty_run_says_what_is_missing_everywhere(tmp_path):
    made = figures.sections(tmp_path, [0], None)
    assert all(each.absent and not each.chart and not each.words for section in made for each in section.figures)
    assert [section.name for section in made] == ["ranks", "kinds", "trust", "map", "time", "ensembles"]


def test_a_file_that_breaks_the_rules_has_no_strict_figures(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    per_query = score.read_per_query(copy / "fold0/per_query.csv")
    write_table(per_query.assign(strict=np.nan), copy / "fold0/per_query.csv")
    made = {section.name: section for section in figures.sections(copy, [0], run)}
    assert "breaks the rules" in made["kinds"].figures[0].absent and "breaks the rules" in made["change"].figures[0].absent
    assert made["ranks"].figures[0].chart


def test_seconds_without_end_are_refused(tmp_path):
    write_table(pd.DataFrame({"step": ["folds"], "seconds": ["inf"], "peak_mb": [1]}), tmp_path / "summary.csv")
    with pytest.raises(InputError, match="line 2: seconds is 'inf'"):
        cost.of_steps(tmp_path)


def test_a_similarity_without_end_is_refused_with_its_line(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    path = copy / "fold0/submission.csv"
    rows = pd.read_csv(path, dtype=str)
    rows.loc[0, "score"] = "inf"
    write_table(rows, path)
    with pytest.raises(InputError, match="submission.csv: line 2: score is 'inf', not a number"):
        outcomes.read(copy, [0])


@pytest.mark.parametrize("text, key", [('{"embed_seconds": "1"}', "embed_seconds"), ('{"images": -1}', "images"), ('[1]', "models"), ('{"models": {"a": 3}}', "models"),
                                       ('{"models": [1]}', "models"), ('{"models": {"a": {"plain_seconds": NaN}}}', "NaN is no finite number")])
def test_timings_that_are_no_numbers_are_refused_by_name(tmp_path, text, key):
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0/timings.json").write_text(text)
    with pytest.raises(InputError, match=key):
        cost.of_predictions(tmp_path, [0])


def drawn(made):
    return [each for section in made.values() for each in section.figures if each.chart]


def test_every_figure_is_xml_with_a_view_box_and_ids_of_its_own(made):
    ids = []
    for each in drawn(made):
        svg = ElementTree.fromstring(each.chart)
        assert svg.tag == "{http://www.w3.org/2000/svg}svg" and svg.get("viewBox") and each.words
        own = [element.get("id") for element in svg.iter() if element.get("id")]
        assert all(name.startswith(each.name + "-") for name in own)
        assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', each.chart)) <= set(own)
        ids += own
    assert len(ids) == len(set(ids)) and len(drawn(made)) >= 12


def test_hostile_names_are_text_and_nothing_else(made):
    """Whales are named in the map, steps in the bars; neither may open an element or be set as a formula."""
    for each in drawn(made):
        svg = ElementTree.fromstring(each.chart)
        assert not {element.tag.rpartition("}")[2] for element in svg.iter()} & {"script", "img", "foreignObject", "image", "a"}
        assert not [name for element in svg.iter() for name in element.attrib if name.lower().startswith("on")]
    whales = np.array(HOSTILE, object)
    for chart in [embedding_map.draw(whales, whales, HOSTILE, np.arange(8.0).reshape(4, 2), 0), row_charts.forest("f", [row_charts.Row(name, 1.0) for name in HOSTILE], "$x$")]:
        texts = "".join(ElementTree.fromstring(chart).itertext())
        assert HOSTILE[0] in texts and HOSTILE[2] in texts and "\u202e" not in texts and "<script" not in chart and "<img" not in chart
    assert "$x$ <b>" in "".join(ElementTree.fromstring(figure(made["time"], "steps").chart).itertext())


def test_colours_are_those_of_the_page(made):
    for each in drawn(made):
        assert not re.search(r"(?:fill|stroke): ?#", each.chart), each.name


def test_all_figures_of_a_run_stay_small(made):
    assert sum(len(each.chart.encode()) for each in drawn(made)) < 1_500_000


def test_words_of_any_length_and_kind_stay_one_line_of_a_chart():
    rows = [row_charts.Row("a\nb" * 40, 0.5, 0.4, 0.6, note="n 1,000", detail="\u0000" + "x" * 99), row_charts.Row("鯨" * 9, np.nan), row_charts.Row("", 0.1)]
    svg = ElementTree.fromstring(row_charts.forest("f", rows, "x", 0.3))
    assert max(len(text.text or "") for text in svg.iter("{http://www.w3.org/2000/svg}text")) <= 60
    bars = row_charts.bars("b", ["$x"], {f"part {number}": [1.0] for number in range(13)}, ["note"], "seconds")
    assert ElementTree.fromstring(bars) is not None


def test_charts_bear_nothing_but_zeros_and_single_values():
    zero = np.zeros(1)
    for chart in [charts.waterfall("w", zero, "y"), charts.bubbles("b", zero, zero, np.ones(1), ("x", "y")), row_charts.bars("z", ["a"], {"p": zero}, [""], "s"),
                  charts.lines("l", {"a": Line(np.ones(1), zero)}, "x", "y"), charts.reliability("r", Line(zero, zero, zero, zero), zero, "x", "y", True),
                  charts.reliability("s", Line(zero, zero, zero, zero), zero, "x", "y", False), charts.paths("p", {"a": Line(zero, zero, zero, zero)}, [], "x", "y")]:
        assert ElementTree.fromstring(chart) is not None


def test_the_same_run_has_the_same_bytes_also_in_another_process(run, made):
    code = ("import hashlib, sys; from pathlib import Path; from eval.page import figures; run = Path(sys.argv[1]); "
            "print(hashlib.sha256(repr(figures.sections(run, [0, 1], run)).encode()).hexdigest())")
    import hashlib
    told = subprocess.run([sys.executable, "-c", code, run], cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True).stdout
    assert told.strip() == hashlib.sha256(repr([*made.values()]).encode()).hexdigest()


def test_figures_start_without_heavy_libraries():
    code = "import sys; import eval.page.figures; print({'matplotlib', 'sklearn', 'scipy', 'torch', 'PIL'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_tables_without_rows_and_a_single_query_are_no_trouble(run, tmp_path):
    for name, header in {"summary.csv": "step,seconds", "ensembles.csv": ",".join(["variant", "kind", "models", "mirror", "folds", *cost.MEASURED])}.items():
        (tmp_path / name).write_text(header + "\n")
    write_table(score.read_per_query(run / "fold0/per_query.csv").head(1), tmp_path / "fold0/per_query.csv")
    write_table(pd.read_csv(run / "fold0/submission.csv").head(0), tmp_path / "fold0/submission.csv")
    write_table(pd.read_csv(run / "folds/0/truth.csv"), tmp_path / "folds/0/truth.csv")
    made = {section.name: section for section in figures.sections(tmp_path, [0], tmp_path)}
    assert figure(made["ranks"], "ranks").words[0].startswith("first 1: a match among them 0.000")
    assert all(not each.chart for name in ("trust", "map", "time", "ensembles") for each in made[name].figures)
    write_table(score.read_per_query(run / "fold0/per_query.csv").head(0), tmp_path / "fold0/per_query.csv")
    assert all(each.absent for section in figures.sections(tmp_path, [0], None) for each in section.figures)


def test_a_truth_without_queries_is_refused(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    write_table(pd.read_csv(copy / "folds/0/truth.csv").drop(columns="query_id"), copy / "folds/0/truth.csv")
    with pytest.raises(InputError, match="folds/0/truth.csv: column 'query_id' is missing"):
        outcomes.read(copy, [0])
