"""The score that a training reports, against a naive loop and against the scorer of eval/ on a submission of the same weights."""

import json
import shutil
import sys
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import toy
import toy_training as toying
from eval import folds
from eval.score import evaluate, summarise
from solution import fitting, images, predict, recipe, validate
from solution.files import write_arrays, write_json
from solution.precision import average_precision


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    data = toy.competition(folder / "data", n_whales=16, images_per_whale=(6, 5, 4, 3))
    return folds.make(data, folder / "folds", "whale", n_folds=3) / "0"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return toying.write_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml")


@pytest.fixture(scope="module")
def validated(tmp_path_factory, fold, tiny):
    output = tmp_path_factory.mktemp("validated") / "weights"
    done = toying.train(tiny, fold / "train", output, "--validate", fold)
    assert done.code == 0, done.stderr
    return output, done


def strict(weights, fold, submission):
    """What the scorer makes of the submission that `python -m solution.predict` writes with these weights."""
    words = ["predict.py", "--data", fold / "test", "--weights", weights, "--output", submission, "--device", "cpu", "--workers", 0]
    with mock.patch.object(sys, "argv", list(map(str, words))):
        predict.main()
    evaluation = evaluate(submission, fold / "truth.csv")
    assert evaluation.breaches == []
    return summarise(evaluation.per_query, evaluation.breaches)["strict"]


def test_the_last_epochs_map20_is_the_strict_score_of_the_finished_model(validated, fold, tmp_path):
    log = pd.read_csv(validated[0] / "tiny.log.csv")
    assert list(log.columns) == ["epoch", "learning_rate", "loss", "seconds", "map20"] and log.map20.between(0, 1).all()
    assert log.map20.iloc[-1] == pytest.approx(strict(validated[0], fold, tmp_path / "submission.csv"), abs=1e-9)
    assert 0 < log.map20.iloc[-1] < 1


def test_an_earlier_epochs_map20_is_the_strict_score_of_its_checkpoint(validated, fold, tiny, tmp_path):
    now = toying.fitted(tiny, fold / "train", tmp_path / "checkpoint.npz")
    now.fit(lambda: now.progress.epoch == 1)
    with np.load(tmp_path / "checkpoint.npz") as file:
        model = {name.removeprefix("trainee/model."): file[name] for name in file.files if name.startswith("trainee/model.")}
    write_arrays(tmp_path / "weights" / "tiny.npz", **model)
    write_json(recipe.plain(toying.spec(tiny)), tmp_path / "weights" / "tiny.json")
    expected = strict(tmp_path / "weights", fold, tmp_path / "submission.csv")
    assert pd.read_csv(validated[0] / "tiny.log.csv").map20[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_changes_no_byte_of_the_weights(validated, fold, tiny, tmp_path, workers):
    assert toying.train(tiny, fold / "train", tmp_path / "w", "--workers", workers).code == 0
    alone, checked = toying.result(tmp_path / "w"), toying.result(validated[0])
    assert {name: alone[name] for name in ("npz", "json", "recipe")} == {name: checked[name] for name in ("npz", "json", "recipe")}
    loss = [pd.read_csv(output / "tiny.log.csv").loss.tolist() for output in (tmp_path / "w", validated[0])]
    assert loss[0] == loss[1]


def test_a_resumed_training_reports_the_same_scores(validated, fold, tiny, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    with mock.patch.object(fitting.Fitting, "say", stop):  # after the first epoch's score, before its checkpoint
        assert toying.train(tiny, fold / "train", tmp_path / "w", "--validate", fold).code == 1
    assert toying.train(tiny, fold / "train", tmp_path / "w", "--validate", fold, "--resume").code == 0
    assert toying.result(tmp_path / "w") == toying.result(validated[0])


def test_each_epoch_tells_its_score(validated):
    assert validated[1].stderr.count(", MAP@20 0.") == 3


def test_a_resume_that_starts_to_validate_leaves_earlier_scores_empty(validated, fold, tiny, tmp_path):
    with mock.patch.object(fitting.Fitting, "save", side_effect=KeyboardInterrupt):
        assert toying.train(tiny, fold / "train", tmp_path / "w").code == 1
    path = tmp_path / "w.resume" / "tiny.npz"
    with np.load(path) as file:
        state = {name: file[name] for name in file.files}
    told = json.loads(str(state["progress"]))
    told["log"][-1]["map20"] = 0.5
    write_arrays(path, **{**state, "progress": np.array(json.dumps(told))})
    assert toying.train(tiny, fold / "train", tmp_path / "w", "--resume").code == 0
    assert pd.read_csv(tmp_path / "w" / "tiny.log.csv").map20.fillna(-1).tolist() == [-1, -1, 0.5]


@pytest.mark.parametrize("missing, told", [
    ("truth.csv", "truth.csv: no such file"),
    ("test/metadata.csv", "test/metadata.csv: no such file"),
    ("test/query_scenarios.csv", "test/query_scenarios.csv: no such file"),
])
def test_a_fold_with_a_missing_file_is_refused_before_the_training(fold, tiny, tmp_path, missing, told):
    for file in ("truth.csv", "test/metadata.csv", "test/query_scenarios.csv", "test/queries/scenario01.csv"):
        (tmp_path / "fold" / file).parent.mkdir(parents=True, exist_ok=True)
        if file != missing:
            (tmp_path / "fold" / file).write_bytes((fold / file).read_bytes())
    with mock.patch.object(fitting.Fitting, "step", None):
        done = toying.train(tiny, fold / "train", tmp_path / "w", "--validate", tmp_path / "fold")
    assert done.code == 2 and "no such file" in done.line
    assert not list(tmp_path.glob("w/*.npz"))


def random_ranking(seed):
    """A submission of 40 queries, best first, with 0 to 20 rows each, and a truth with 1 to 30 matches each."""
    random, rows, truth = np.random.default_rng(seed), [], []
    for query in random.permutation(40):
        rows += [(f"q{query}", f"i{image}") for image in random.permutation(60)[: random.integers(0, 21)]]
        truth += [(f"q{query}", f"i{image}") for image in random.permutation(60)[: random.integers(1, 31)]]
    return pd.DataFrame(rows, columns=["query_id", "database_image_id"]), pd.DataFrame(truth, columns=["query_id", "database_image_id"])


def naive(submission, truth):
    total, queries = 0.0, sorted(set(truth.query_id))
    for query in queries:
        matches = set(truth.database_image_id[truth.query_id == query])
        hits = precisions = 0
        for place, image in enumerate(submission.database_image_id[submission.query_id == query], start=1):
            if image in matches:
                hits += 1
                precisions += hits / place
        total += precisions / min(len(matches), 20)
    return total / len(queries)


@pytest.mark.parametrize("seed", range(5))
def test_mean_average_precision_is_a_naive_loop(seed):
    submission, truth = random_ranking(seed)
    assert average_precision(submission, truth).mean() == pytest.approx(naive(submission, truth), abs=1e-12)


def test_mean_average_precision_by_hand():
    truth = pd.DataFrame({"query_id": ["a", "a", "b", "c"], "database_image_id": ["x", "y", "x", "z"]})
    submission = pd.DataFrame({"query_id": ["a"] * 3 + ["b"] * 2 + ["d"], "database_image_id": ["x", "z", "y", "y", "x", "x"]})
    # a: (1/1 + 2/3) / 2; b: 1/2; c is not answered; d is not asked.
    assert average_precision(submission, truth).mean() == pytest.approx((5 / 6 + 1 / 2 + 0) / 3, abs=1e-15)


def test_a_perfect_ranking_of_more_than_twenty_matches_scores_1():
    images = [f"i{number}" for number in range(30)]
    truth = pd.DataFrame({"query_id": "q", "database_image_id": images})
    assert average_precision(truth.head(20), truth).mean() == pytest.approx(1)


def test_an_empty_submission_scores_0():
    truth = pd.DataFrame({"query_id": ["q"], "database_image_id": ["i"]})
    assert average_precision(truth.head(0), truth).mean() == 0


# A fold that asks for names

@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    return folds.make(toy.competition(folder / "data", n_whales=9), folder / "folds", "identify") / "0"


def test_a_fold_of_names_is_told_from_one_of_rankings_by_its_truth(fold, names):
    assert validate.inner_fold(fold) is None and validate.inner_fold(None) is None


def test_an_inner_fold_has_the_names_of_its_truth_and_the_ids_of_the_data(names):
    inner = validate.inner_fold(names)
    truth = dict(pd.read_csv(names / "truth.csv").itertuples(index=False))
    expected = [truth[path.rsplit("/")[-1]] for path in inner.asked.path]
    assert list(inner.names) == ["" if name == "new_whale" else name for name in expected]
    assert "new_whale" in expected and len(set(expected)) > 3
    original = pd.read_csv(names.parents[1] / "data" / "metadata.csv").set_index("image_id").whale_id
    assert list(inner.asked.whale_id) == list(original[inner.asked.image_id])


@pytest.mark.parametrize("missing, told", [
    ("truth.csv", "truth.csv: must have one row for each photograph of"), ("labels.csv", "labels.csv: no such file"), ("test/images", "no such image"),
])
def test_what_an_inner_fold_of_names_lacks_is_told_before_the_training(names, tiny, missing, told, tmp_path):
    broken = shutil.copytree(names, tmp_path / "broken")
    if missing == "truth.csv":
        (broken / missing).write_text("".join((names / missing).read_text().splitlines(keepends=True)[:-1]))
    else:
        shutil.rmtree(broken / missing) if (broken / missing).is_dir() else (broken / missing).unlink()
    with mock.patch.object(fitting.Fitting, "step", None):
        done = toying.train(tiny, names / "train", tmp_path / "w", "--validate", broken)
    assert done.code == 2 and told in done.line
    assert not list(tmp_path.glob("w/*.npz"))
