"""One folder of cases for the whole session, and the valid places of all commands, made once."""

import shutil

import pytest

import commands
import fuzz


@pytest.fixture(scope="session")
def place():
    folder = fuzz.base()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def known(place):
    return commands.made(place / "templates")
