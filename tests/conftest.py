"""The session's own cache: nothing of the user's is read or written, by this process or by those that it starts, but the organisers'
Python 3.9, which takes a minute and 2 GB to make."""

import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from eval.files import InputError

USERS = {name: value for name, value in os.environ.items() if name == "XDG_CACHE_HOME"}


def pytest_configure(config):
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache-of-tests-")


def pytest_unconfigure(config):
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def organisers_python():
    """The interpreter of the organisers' environment, made once in the user's cache and linked into the session's."""
    from submission import cache, runtime

    linked = cache.place("")
    with mock.patch.dict(os.environ):
        del os.environ["XDG_CACHE_HOME"]
        os.environ.update(USERS)
        try:
            python = runtime.python_of("drivendata")
        except InputError as error:
            pytest.skip(str(error))
    linked.mkdir(parents=True, exist_ok=True)
    home = python.parents[1]
    (linked / home.name).symlink_to(home)
    return python
