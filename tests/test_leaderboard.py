"""The local leaderboard: figures against the scorer's and a plain loop, boards that never mix, and adders that wait for each other."""

import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from eval import folds, leaderboard, score
from eval.files import InputError, write_table

ROOT = Path(__file__).parents[1]


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "eval.leaderboard", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def answers(fold, path, seed=0, right=0.5):
    """A valid submission in a random order that now and then puts the true matches first."""
    truth, random = pd.read_csv(fold / "truth.csv", dtype=str), np.random.default_rng(seed)
    rows = []
    for scenario in pd.read_csv(fold / "test" / "query_scenarios.csv").itertuples():
        database = pd.read_csv(fold / "test" / scenario.database_path).database_image_id.to_numpy()
        for query_id, image in pd.read_csv(fold / "test" / scenario.queries_path).itertuples(index=False):
            matches = truth.database_image_id[truth.query_id == query_id]
            order = random.uniform(size=len(database)) + (np.isin(database, matches) & (random.uniform() < right))
            best = [name for name in database[np.argsort(-order)] if name != image][:20]
            rows += [(query_id, name, 1 - place / 100) for place, name in enumerate(best)]
    return write_table(pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"]), path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two whale folds of a toy competition, and answers to both."""
    place = tmp_path_factory.mktemp("leaderboard")
    folds.make(toy.competition(place / "data", n_whales=24, images=False), place / "folds", "whale", n_folds=2)
    for fold in (0, 1):
        answers(place / "folds" / str(fold), place / f"{fold}.csv", seed=fold)
    return place


def rows_of(place, *numbers, name="theirs"):
    return leaderboard.of_files([place / f"{fold}.csv" for fold in numbers], [place / "folds" / str(fold) for fold in numbers], name)


def made_up(scores, board="whale 0 seed 0 n-folds 5 fold 0", systems=None, **values):
    """Rows of a board that hold scores and little else."""
    first = {"board": board, "protocol": "whale", "data": "0", "seed": 0, "n_folds": 5, "fold": "0", "variant": "", "models": "", "mirror": "",
             "measure": "MAP@20", "low": np.nan, "high": np.nan, "map5_individuals": np.nan, "top1": 0.5, "n_queries": 9, "seconds": np.nan}
    systems = systems or [f"system{number}" for number in range(len(scores))]
    return pd.DataFrame([{**first, "system": system, "score": value, **values} for system, value in zip(systems, scores)])[leaderboard.COLUMNS]


# What a row holds

def test_a_row_holds_what_the_scorer_says(place):
    (row,) = rows_of(place, 0).itertuples()
    evaluation = score.evaluate(place / "0.csv", place / "folds" / "0" / "truth.csv")
    told = score.summarise(evaluation.per_query, [])
    assert (row.score, [row.low, row.high], row.map5_individuals, row.top1) == (told["strict"], told["ci95"], told["map5_individuals"], told["top1"])
    assert (row.system, row.variant, row.measure, row.n_queries, row.fold) == ("theirs", "", "MAP@20", len(evaluation.per_query), "0")


def test_several_folds_are_pooled_by_query_and_stand_alone_too(place):
    rows = rows_of(place, 0, 1).set_index("fold")
    values = [score.evaluate(place / f"{fold}.csv", place / "folds" / str(fold) / "truth.csv").per_query.strict for fold in (0, 1)]
    assert list(rows.index) == ["0+1", "0", "1"]
    assert rows.score.tolist() == pytest.approx([pd.concat(values).mean(), values[0].mean(), values[1].mean()])
    pd.testing.assert_frame_equal(rows_of(place, 1, 0), rows_of(place, 0, 1))


def test_names_are_scored_by_map5(tmp_path):
    cut = folds.make(toy.competition(tmp_path / "data", n_whales=24, images=False), tmp_path / "folds", "identify")
    truth = pd.read_csv(cut / "0" / "truth.csv", dtype=str)
    write_table(truth.assign(Id="new_whale"), tmp_path / "new.csv")
    (row,) = leaderboard.of_files([tmp_path / "new.csv"], [cut / "0"], "new").itertuples()
    assert (row.measure, row.score) == ("MAP@5", pytest.approx((truth.Id == "new_whale").mean()))


# Boards

@pytest.mark.parametrize("key, value", [("protocol", "encounter"), ("seed", 1), ("n_folds", 3), ("date", "2019-01-01"), ("metadata_sha256", "ab" * 32)])
def test_what_is_cut_otherwise_is_another_board(key, value, place, tmp_path):
    manifest = json.loads((place / "folds" / "manifest.json").read_text())
    scored = pd.DataFrame([{"folds": "0", "variant": "", "models": "", "mirror": "", "seconds": np.nan, **leaderboard.measured(
        score.evaluate(place / "0.csv", place / "folds" / "0" / "truth.csv").per_query)}])
    for name, content in {"as it is": manifest, "otherwise": {**manifest, key: value}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(content))
        leaderboard.add(tmp_path / "l.csv", leaderboard.rows(tmp_path / name, [0], "same", scored))
    found = leaderboard.ranked(tmp_path / "l.csv")
    assert len(found) == 2 and all(len(board) == 1 and board["rank"].tolist() == [1] for board in found.values())


def test_folds_together_and_each_are_boards_of_their_own(place):
    assert sorted(name.split("fold ")[-1] for name in leaderboard.boards(rows_of(place, 0, 1))) == ["0", "0+1", "1"]


def test_the_same_folds_made_elsewhere_are_the_same_board(place, tmp_path):
    folds.make(toy.competition(tmp_path / "copied", n_whales=24, images=False), tmp_path / "folds", "whale", n_folds=2)
    there = leaderboard.of_files([place / "0.csv"], [tmp_path / "folds" / "0"], "theirs")
    pd.testing.assert_frame_equal(there, rows_of(place, 0))


def test_the_best_is_first_and_equal_scores_share_a_rank():
    board = leaderboard.boards(made_up([0.2, 0.5, 0.1, 0.5, 0.2, 0.9]))["whale 0 seed 0 n-folds 5 fold 0"]
    assert board["rank"].tolist() == [1, 2, 2, 4, 4, 6] and board.score.tolist() == [0.9, 0.5, 0.5, 0.2, 0.2, 0.1]
    assert board.system.tolist() == ["system5", "system1", "system3", "system0", "system4", "system2"]


def test_of_one_cut_all_folds_together_are_first_then_each_by_number():
    numbers = ["10", "2", "0+1", "0+1+2"]
    cuts = [made_up([0.1], f"{cut} fold {fold}", fold=fold) for cut in ("whale b", "whale a") for fold in numbers]
    found = leaderboard.boards(pd.concat(cuts))
    assert list(found) == [f"{cut} fold {fold}" for cut in ("whale a", "whale b") for fold in ("0+1+2", "0+1", "2", "10")]


# Adding

def test_the_file_is_the_same_whoever_came_first_and_however_often(tmp_path):
    parts = [made_up([0.3], systems=[name]) for name in ("a", "b", "c")]
    for path, order in ((tmp_path / "x.csv", (0, 1, 2)), (tmp_path / "y.csv", (2, 0, 1, 1, 0, 2, 2))):
        for number in order:
            leaderboard.add(path, parts[number])
    assert (tmp_path / "x.csv").read_bytes() == (tmp_path / "y.csv").read_bytes()
    assert len(leaderboard.read(tmp_path / "x.csv")) == 3


def test_what_is_scored_again_replaces_its_own_rows_and_no_other(tmp_path):
    path, other = tmp_path / "l.csv", "whale 0 seed 0 n-folds 5 fold 1"
    leaderboard.add(path, pd.concat([made_up([0.1, 0.2], systems=["run"] * 2).assign(variant=["a", "a+b"]), made_up([0.3], other, ["run"], fold="1", variant="a")]))
    leaderboard.add(path, made_up([0.4, 0.5], systems=["file", "run"]))
    leaderboard.add(path, made_up([0.6], systems=["run"], variant="a"))
    found = leaderboard.read(path)
    assert sorted(zip(found.fold, found.system, found.variant, found.score)) == [
        ("0", "file", "", 0.4), ("0", "run", "", 0.5), ("0", "run", "a", 0.6), ("1", "run", "a", 0.3)]


def test_numbers_and_names_come_back_as_they_were(place, tmp_path):
    rows = rows_of(place, 0, 1, name="007, \"Bond\"")
    leaderboard.add(tmp_path / "l.csv", rows)
    before = (tmp_path / "l.csv").read_bytes()
    found = leaderboard.read(tmp_path / "l.csv")
    pd.testing.assert_frame_equal(found, leaderboard.in_order(rows).reset_index(drop=True), check_dtype=False, check_exact=True)
    leaderboard.add(tmp_path / "l.csv", rows)
    assert (tmp_path / "l.csv").read_bytes() == before


def add_often(path, number):
    for turn in range(6):
        leaderboard.add(path, made_up([0.1 * turn], systems=[f"{number} {turn}"]))


def test_adders_at_once_lose_no_row(tmp_path):
    context = multiprocessing.get_context("fork")
    adders = [context.Process(target=add_often, args=(tmp_path / "l.csv", number)) for number in range(6)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
        assert adder.exitcode == 0
    assert set(leaderboard.read(tmp_path / "l.csv").system) == {f"{number} {turn}" for number in range(6) for turn in range(6)}
    assert [path.name for path in tmp_path.iterdir()] == ["l.csv"]


# What is refused

def test_a_damaged_leaderboard_is_one_line_and_never_written_over(place, tmp_path):
    path = tmp_path / "l.csv"
    leaderboard.add(path, made_up([0.25, 0.5]))
    lines = path.read_text().splitlines()
    for damaged, told in [
            ("", "the file is empty"), ("<html>", "web page"), ("\n".join([lines[0].replace("score,", "points,"), *lines[1:]]), "no leaderboard"),
            ("\n".join([lines[0], lines[1].replace("0.5,", "half,", 1)]), "line 2: score is 'half'"),
            ("\n".join([*lines[:2], lines[2].replace("0.25", "25")]), "line 3: score is '25'"),
            ("\n".join([lines[0], lines[1].replace("0.5,", ",", 1)]), "line 2: score is ''"),
            ("\n".join([lines[0], lines[1].replace(",9,", ",nine,")]), "line 2: n_queries is 'nine'"),
            ("\n".join([lines[0], lines[1].replace("system1", "sys\x1btem")]), "line 2: system is"),
            ("\n".join([*lines, lines[1]]), "stands there twice"),
            ("\n".join([*lines[:2], lines[2].replace(",whale,", ",time,")]), "would hold rows of protocol"),
            ("\n".join([*lines[:2], lines[2].replace(",9,", ",8,")]), "would hold rows of n_queries 9 and 8")]:
        path.write_text(damaged)
        with pytest.raises(InputError, match=told):
            leaderboard.read(path)
        with pytest.raises(InputError):
            leaderboard.add(path, rows_of(place, 0))
        assert path.read_text() == damaged
    refused = command(path, "--add", place / "0.csv", "--fold", place / "folds" / "0", "--name", "x")
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1 and path.read_text() == damaged


def test_rows_of_other_questions_do_not_get_on_a_board(tmp_path):
    leaderboard.add(tmp_path / "l.csv", made_up([0.5]))
    before = (tmp_path / "l.csv").read_bytes()
    with pytest.raises(InputError, match="n_queries 9 and 10"):
        leaderboard.add(tmp_path / "l.csv", made_up([0.5], systems=["other"], n_queries=10))
    assert (tmp_path / "l.csv").read_bytes() == before


@pytest.mark.parametrize("damage, told", [
    (lambda text: text.replace("0.99", "1.5", 1), "score is not a number within"),
    (lambda text: text.replace("score", "points", 1), "the header is"),
])
def test_a_broken_file_is_refused_as_the_scorer_does(damage, told, place, tmp_path):
    (tmp_path / "broken.csv").write_text(damage((place / "0.csv").read_text()))
    refused = command(tmp_path / "l.csv", "--add", tmp_path / "broken.csv", "--fold", place / "folds" / "0", "--name", "broken")
    scored = subprocess.run([sys.executable, "-m", "eval.score", tmp_path / "broken.csv", place / "folds" / "0" / "truth.csv"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == scored.returncode == 2 and refused.stderr == scored.stderr
    assert refused.stdout in scored.stdout and "rules broken" in refused.stdout and not (tmp_path / "l.csv").exists()


def test_folds_of_two_cuts_or_one_twice_are_not_pooled(place, tmp_path):
    folds.make(place / "data", tmp_path / "folds", "whale", n_folds=2)
    for second in (tmp_path / "folds" / "1", place / "folds" / "0", place / "folds"):
        with pytest.raises(InputError, match="give different folds of one cut"):
            leaderboard.of_files([place / "0.csv", place / "1.csv"], [place / "folds" / "0", second], "x")


@pytest.mark.parametrize("manifest, told", [("{}", "'protocol' is missing"), ("[]", "'protocol' is missing"), ("{", "not valid JSON"), (None, "no such file")])
def test_a_fold_without_its_manifest_is_on_no_board(manifest, told, tmp_path):
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(InputError, match=told):
        leaderboard.read_manifest(tmp_path)


@pytest.mark.parametrize("name", ["", " ", "two\nlines"])
def test_a_system_needs_a_name(name, place):
    with pytest.raises(InputError, match="--name"):
        rows_of(place, 0, name=name)


@pytest.mark.parametrize("arguments", [["--add", "x.csv"], ["--add", "x.csv", "--fold", "0"], ["--name", "x"], ["--fold", "0", "--name", "x"],
                                       ["--add", "x.csv", "--fold", "0", "--fold", "1", "--name", "x"]])
def test_adding_takes_a_file_a_fold_and_a_name(arguments, tmp_path):
    refused = command(tmp_path / "l.csv", *arguments)
    assert refused.returncode == 2 and "go together" in refused.stderr


def test_the_command_shows_what_it_added_and_all_boards_without(place, tmp_path):
    path = tmp_path / "l.csv"
    leaderboard.add(path, made_up([0.5]))
    done = command(path, "--add", place / "0.csv", "--fold", place / "folds" / "0", "--name", "theirs")
    assert done.returncode == 0 and "theirs" in done.stdout and "system0" not in done.stdout
    everything = command(path).stdout
    assert "theirs" in everything and "system0" in everything and f"{rows_of(place, 0).score[0]:.4f}" in everything
    again = command(path, "--add", place / "1.csv", "--fold", place / "folds" / "1", "--name", "theirs").stdout
    assert "was there" not in again and "eval.compare" not in again
    answers(place / "folds" / "0", tmp_path / "better.csv", right=1)
    better = command(path, "--add", tmp_path / "better.csv", "--fold", place / "folds" / "0", "--name", "theirs").stdout
    assert better.startswith(f"note: 'theirs' was there with {rows_of(place, 0).score[0]:.4f}, now ")
    leaderboard.write_table(pd.DataFrame(columns=leaderboard.COLUMNS), tmp_path / "empty.csv")
    assert command(tmp_path / "empty.csv").stdout.startswith(f"note: {tmp_path}/empty.csv holds no rows")
    assert command(tmp_path / "none.csv").stderr == f"error: {tmp_path}/none.csv: no such file\n"
