"""Kill anything, any time: every command ends after it as if nothing had happened, and nothing is ever seen half written.

The fast tests kill a few commands at a few changes in the file system; the slow ones kill each at EVENTS of them, or all where there are fewer,
and at TIMES random times.
"""

from pathlib import Path

import numpy as np
import pytest

import driver
import subjects
from driver import Event, Seconds

NAMES = ["train", "train, a checkpoint a step", "train for names", "folds", "importer", "report", "score", "leaderboard", "step", "predict", "embed", "rank",
         "explain", "explain again", "pack", "pack a kernel", "search build", "search add"]
FEW = [("train", ["os.rename .tiny.npz.part", 21, 8]), ("train", ["os.remove tiny.npz"]), ("train, a checkpoint a step", [60]), ("folds", [40, 200]),
       ("pack", ["os.rename .submission.zip.part"]), ("search add", ["os.remove ids-1.npz"]), ("leaderboard", ["os.rename .board.csv.part"]),
       ("explain again", ["os.rename .explain.part", 4])]  # the changes before which they are killed, by their number or the last of that kind
EVENTS, TIMES, TOGETHER = 20, 6, 3  # moments of a command, of which up to TOGETHER befall one run
LEAST = 200  # kills in all
AGAIN = {"train": 3, "train, a checkpoint a step": 1}  # steps that a kill may cost: those of an epoch, or of a checkpoint's interval


def test_every_command_has_its_toy(commands):
    assert list(commands) == NAMES


def survived(command, folder, whole, moments):
    """The number of kills; no more is computed again than they may cost."""
    kills = driver.survived(command, folder, whole[0], moments)
    if command.name in AGAIN:
        steps = folder.with_suffix(".steps").stat().st_size
        assert subjects.STEPS <= steps <= subjects.STEPS + kills * AGAIN[command.name], (command.name, moments, steps)
    return kills


def number_of(change, events):
    """From 1 on."""
    said = [" ".join([event.split()[0], Path(event.split()[1]).name]) for event in events]
    return change if isinstance(change, int) else len(said) - said[::-1].index(change)


@pytest.mark.parametrize("name, changes", FEW)
def test_a_command_that_is_killed_at_a_few_moments_ends_as_if_nothing_had_happened(tmp_path, commands, whole, name, changes):
    moments = [Event(number_of(change, whole(name)[1].events)) for change in changes]
    assert survived(commands[name], tmp_path / "killed", whole(name), moments) == len(changes)


@pytest.fixture(scope="module")
def kills():
    """By command."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_is_killed_at_any_moment_ends_as_if_nothing_had_happened(tmp_path, commands, whole, kills, name):
    random, done = np.random.default_rng([*name.encode()]), whole(name)[1]
    events = [Event(int(number) + 1) for number in random.permutation(len(done.events))[:EVENTS]]
    times = [Seconds(float(number)) for number in random.uniform(0, done.seconds, TIMES)]
    drawn = [(events + times)[number] for number in random.permutation(len(events + times))]
    groups = [drawn[start : start + TOGETHER] for start in range(0, len(drawn), TOGETHER)]
    kills[name] = sum(survived(commands[name], tmp_path / str(number), whole(name), group) for number, group in enumerate(groups))
    assert kills[name] >= len(groups) / 2


@pytest.mark.slow
def test_there_were_enough_kills(kills):
    if list(kills) != NAMES:
        pytest.skip("not all commands were killed in this run")
    assert sum(kills.values()) >= LEAST
    print(kills, sum(kills.values()))


