"""The whole run killed, with all its steps, and started again by the same command; and a second one beside it."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

import driver
import toy
from test_run_all import RECIPE, contents, run_all

ROOT = Path(__file__).parents[2]
KILLS = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    if not (ROOT / ".venv" / "installed.lock").is_file():
        pytest.skip("there is no .venv yet: ./run_all.sh test makes it, then this test runs in it")
    place = tmp_path_factory.mktemp("whole")
    toy.competition(place / "data", n_whales=20, images_per_whale=(2, 3, 4, 5, 6))
    (place / "tiny.yaml").write_text(RECIPE)
    return place


def words(place, name):
    return "--data", str(place / "data"), "--recipe", str(place / "tiny.yaml"), "--folds", "0,1", "--output", str(place / name)


def started(place, name):
    return subprocess.Popen([ROOT / "run_all.sh", *words(place, name)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def test_a_second_run_in_the_same_directory_stops_with_one_line_and_starts_once_the_first_is_killed(place):
    first = started(place, "two")
    while not (place / "two" / "folds").is_dir() and first.poll() is None:
        time.sleep(0.05)
    second = run_all(*words(place, "two"))
    assert second.returncode == 2 and second.stderr == f"error: --output is '{place}/two', where another run is at work; wait for it, or choose another --output; see ./run_all.sh --help\n"
    assert first.poll() is None
    os.kill(first.pid, signal.SIGKILL), first.wait()  # its step lives on
    assert run_all(*words(place, "two")).returncode == 2
    os.killpg(first.pid, signal.SIGKILL)
    third = started(place, "two")
    time.sleep(2)
    assert third.poll() is None
    os.killpg(third.pid, signal.SIGKILL), third.wait()


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_nothing_had_happened(place):
    begun = time.monotonic()
    assert run_all(*words(place, "whole")).returncode == 0
    took, when = time.monotonic() - begun, random.Random(0)
    for _ in range(KILLS):
        run, seen, partial = started(place, "killed"), {}, []
        end = time.monotonic() + when.uniform(1, took)
        while time.monotonic() < end and run.poll() is None:
            partial += driver.not_whole(place / "killed", seen)
            time.sleep(0.1)
        killed = run.poll() is None
        os.killpg(run.pid, signal.SIGKILL) if killed else None
        assert run.wait() == -signal.SIGKILL if killed else run.returncode == 0
        assert not partial + driver.not_whole(place / "killed", seen)
    assert run_all(*words(place, "killed")).returncode == 0
    assert contents(place / "killed") == contents(place / "whole")
