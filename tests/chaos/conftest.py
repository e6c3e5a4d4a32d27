"""The commands on their toys, and what they make undisturbed."""

import pytest
import torch

import driver
import subjects


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    torch.set_num_threads(1)
    return subjects.made(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory, commands):
    """What a command makes that nobody disturbs, and how that went; run when first asked for."""
    place, found = tmp_path_factory.mktemp("whole"), {}

    def of(name):
        if name not in found:
            found[name] = driver.undisturbed(commands[name], place / str(len(found)))
        return found[name]

    return of
