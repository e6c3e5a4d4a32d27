"""Two runs in the same output directory: the second stops with one line, and the first goes on as if it were alone."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import driver
import toy
import toy_training as toying
from eval import outputs
from solution import fitting

# What each command holds from its start to its end.
HELD = {"train": "weights/tiny.npz", "train for names": "weights/other.npz", "folds": "folds", "importer": "data", "report": "report.html", "predict": "submission.csv",
        "embed": "embeddings/large.npz", "rank": "submission.csv", "explain": "explain", "pack": "submission.zip", "pack a kernel": "kernel", "search build": "index"}
WAITS = {"leaderboard": "board.csv", "step": "summary.csv"}


@pytest.mark.parametrize("name", HELD)
def test_a_command_whose_output_another_run_holds_stops_with_one_line_and_touches_nothing(tmp_path, commands, name):
    folder = driver.start(commands[name], tmp_path / "out")
    with outputs.alone(folder / HELD[name]):
        before = driver.contents(folder)
        done = driver.ran(commands[name], folder)
        assert driver.contents(folder) == before
    assert done.status == 2 and done.said.count("\n") == 1, done.said
    assert done.said == f"error: {folder / HELD[name]}: another run is writing it; wait for that one, or choose another --output\n"


@pytest.mark.parametrize("name", WAITS)
def test_a_command_that_adds_to_a_table_waits_for_its_turn(tmp_path, commands, whole, name):
    folder = driver.start(commands[name], tmp_path / "out")
    with ThreadPoolExecutor(1) as pool:
        with outputs.alone(folder / WAITS[name]):
            run = pool.submit(driver.ran, commands[name], folder)
            time.sleep(whole(name)[1].seconds + 0.5)
            assert not run.done()
        assert run.result().status == 0
    assert driver.contents(folder) == whole(name)[0]


def test_the_first_of_two_trainings_goes_on_and_the_second_stops(tmp_path, commands, whole):
    folder = driver.start(commands["train"], tmp_path / "out")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(driver.ran, commands["train"], folder)
        while not (folder / "weights" / ".tiny.npz.lock").exists():
            time.sleep(0.001)
        second = driver.ran(commands["train"], folder)
    assert second.status == 2 and "tiny.npz: another run is writing it" in second.said
    assert first.result().status == 0 and driver.contents(folder) == whole("train")[0]


def test_two_models_of_a_recipe_are_trained_into_the_same_weights_at_once(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=10)
    both = toying.write_recipe(tmp_path / "both.yaml", "one", "two")
    words = ["solution.train", *toying.arguments(both, data, Path("{}/weights"))]
    models = [driver.Command(name, [*words, "--model", name]) for name in ("one", "two")]
    folder = driver.start(models[0], tmp_path / "out")
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda model: driver.ran(model, folder), models))
    assert [each.status for each in done] == [0, 0], done
    alone = driver.undisturbed(driver.Command("both", words), tmp_path / "alone")[0]
    assert driver.contents(folder) == alone


def test_a_training_starts_at_once_where_one_was_killed_whose_readers_live_on(tmp_path, commands, whole):
    def killed_alone(folder):
        fitting.Fitting.step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)

    folder = driver.start(commands["train"], tmp_path / "out")
    words = [word if word != "0" or commands["train"].words[number - 1] != "--workers" else "2" for number, word in enumerate(commands["train"].words)]
    assert driver.ran(commands["train"]._replace(words=words, patch=killed_alone), folder).status == -signal.SIGKILL
    assert driver.ran(commands["train"], folder).status == 0
    assert driver.contents(folder) == whole("train")[0]


def with_a_checkpoint_a_step(*words):
    fitting.CHECKPOINT_SECONDS = 0.0
    return toying.train(*words).code


def as_it_is(*words):
    return toying.train(*words).code


@pytest.mark.slow
def test_checkpoints_within_an_epoch_change_nothing_of_a_training_by_two_processes(tmp_path):
    data, tiny = toy.competition(tmp_path / "data", n_whales=10), toying.write_recipe(tmp_path / "tiny.yaml")
    for name, work in (("some", as_it_is), ("many", with_a_checkpoint_a_step)):
        assert toying.in_ranks(tmp_path / f"ranks of {name}", work, tiny, data, tmp_path / name) == [0, 0]
    assert toying.result(tmp_path / "some") == toying.result(tmp_path / "many")
