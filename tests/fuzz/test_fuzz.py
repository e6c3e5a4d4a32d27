"""Hostile tables, recipes and JSON for every command: each is refused in one line that names its place, or answered rightly.

    python -m pytest tests/fuzz                             some 330 cases
    python -m pytest tests/fuzz -m slow -s                  more than 20,000, with the number of each command; an hour on one core

The cases are derived, not random: the same ones in every run. `fuzz.tried` says what is checked of each.
"""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import fuzz
from commands import CASES

LEAST = 20_000  # cases of the long run


def outcomes(command, count, place) -> Counter:
    """What became of so many cases; the smallest that did not do as it should is the error."""
    found = Counter()

    @settings(max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @given(fuzz.cases(command))
    def every(case):
        found[fuzz.tried(command, case, place)] += 1

    every()
    return found


def test_every_command_answers_its_valid_place(known, place):
    """Else a refusal would tell nothing."""
    assert set(known) == set(CASES)
    told = {name: fuzz.tried(command, fuzz.Case((), 0), place) for name, command in known.items()}
    assert {name for name, outcome in told.items() if outcome != "answered"} == {"ladder", "bench, its arguments"}  # which are stopped before they work


@pytest.mark.parametrize("name", [name for name, (count, _) in CASES.items() if count])
def test_what_is_hostile_is_refused_in_a_line_or_answered_rightly(name, known, place):
    assert sum(outcomes(known[name], CASES[name][0], place).values()) >= CASES[name][0]


def test_the_long_run_is_long():
    assert sum(count for _, count in CASES.values()) >= LEAST


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_is_hostile_is_refused_or_answered_in_the_long_run(name, known, place):
    found = outcomes(known[name], CASES[name][1], place)
    print(f"{name}: {sum(found.values())} cases, {', '.join(f'{count} {outcome}' for outcome, count in sorted(found.items()))}")
    assert sum(found.values()) >= CASES[name][1]
