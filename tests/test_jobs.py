"""The job table: its lines in any order, several at once, then ./run_all.sh as ever, give the bytes of a run from front to back."""

import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pandas as pd
import pytest

import toy
import toy_training as toying
from eval import outputs
from solution import fitting
from solution import outputs as solution_outputs
from test_run_all import ROOT, contents, finished, place, run_all  # noqa: F401  the toy and its run

NAME = "it's $(here) & there"  # a folder


def words(place, name=NAME):
    return "--data", str(place / "data"), "--recipe", str(place / "tiny.yaml"), "--folds", "0,1", "--output", str(place / name)


def options(line):
    """What each option of a command is, as the shell reads it."""
    words = shlex.split(line)
    return {word: value for word, value in zip(words, words[1:]) if word.startswith("--")}


def ran(line, folder):
    """As a scheduler starts it: by a shell, from anywhere."""
    return subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def table(place):  # noqa: F811
    if not (ROOT / ".venv" / "installed.lock").is_file():
        pytest.skip("there is no .venv yet: ./run_all.sh test makes it, then this test runs in it")
    done = run_all(*words(place), "--jobs")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("\nWhen these have ended, the same ./run_all.sh without --jobs does the rest.\n")
    return done.stdout.splitlines()


def test_the_table_has_a_command_for_each_model_and_fold_and_nothing_is_trained(place, table):  # noqa: F811
    run = place / NAME
    assert [(line["--output"], line["--data"], line["--model"]) for line in map(options, table)] == [
        (f"{run}/fold{k}/weights", f"{run}/folds/{k}/train", model) for k in (0, 1) for model in ("first", "second")]
    assert not list(run.glob("fold[0-9]")) and list(pd.read_csv(run / "summary.csv").step) == ["folds"]


def test_a_training_goes_on_where_another_one_of_the_table_ends_and_takes_the_empty_folder_of_checkpoints_with_it(tmp_path):
    def and_gone(self, weights):
        tried(self, weights)
        self.checkpoint.parent.rmdir()

    tried, data, tiny = fitting.Fitting.check_room, toy.competition(tmp_path / "data", n_whales=10), toying.write_recipe(tmp_path / "tiny.yaml")
    with mock.patch.object(fitting.Fitting, "check_room", and_gone):
        done = toying.train(tiny, data, tmp_path / "weights")
    assert done.code == 0 and not (tmp_path / "weights.resume").exists(), done.stderr


@pytest.mark.parametrize("side", [outputs, solution_outputs])
def test_a_folder_that_another_process_removes_just_then_is_made_again(side, tmp_path):
    with mock.patch.object(side, "made", lambda folder: []), side.whole(tmp_path / "gone" / "file") as beside:
        beside.write_text("here")
    assert (tmp_path / "gone" / "file").read_text() == "here"


@pytest.mark.slow
def test_its_lines_in_any_order_two_at_once_and_the_rest_give_the_bytes_of_a_run(place, table, finished, tmp_path):  # noqa: F811
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda line: ran(line, tmp_path), [table[3], table[0], table[2]]))
    assert [each.returncode for each in done] == [0] * 3, done
    assert run_all(*words(place), "--jobs").stdout.splitlines() == [table[1]]
    with outputs.alone(place / NAME / "fold0" / "weights" / "second.npz"):
        refused = run_all(*words(place))
    assert refused.returncode == 2 and "second.npz: another run is writing it" in refused.stderr
    assert ran(table[1], tmp_path).returncode == 0 and "nothing left to do" in ran(table[0], tmp_path).stdout
    rest = run_all(*words(place))
    assert rest.returncode == 0 and rest.stdout.count("nothing left to do") == 2, rest
    assert contents(place / NAME) == contents(place / "run")
