"""What is kept by its content: what comes back, what does not, and how much stays."""

import os
from pathlib import Path
from unittest import mock

import pytest

from solution import kept

ROOM, KEY, CONTENT = "room", "0" * 64, b"what took long to compute"
BOUNDS = kept.Bounds(files=10, size=1 << 20)


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return kept.folder(ROOM)


@pytest.fixture
def path(room):
    kept.keep(ROOM, KEY, CONTENT, BOUNDS)
    return room / KEY


def used(room, name, when):
    os.utime(room / name, (when, when))


def test_what_is_kept_comes_back_under_its_key_and_room_alone(path):
    assert kept.read(ROOM, KEY) == CONTENT
    assert kept.read(ROOM, "1" * 64) is None and kept.read("other", KEY) is None


def test_it_is_below_the_users_cache_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert kept.folder(ROOM) == tmp_path / ".cache" / "whale-ranking" / ROOM


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def of_another_key(path):
    kept.keep(ROOM, "1" * 64, CONTENT, BOUNDS)
    (path.parent / ("1" * 64)).replace(path)


def a_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [flipped, of_another_key, a_link, a_pipe, a_folder, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(path.read_bytes()[:20])],
                         ids=["flipped", "of another key", "a link", "a pipe", "a folder", "empty", "cut off"])
def test_what_is_not_as_it_was_kept_does_not_come_back(harm, path):
    harm(path)
    assert kept.read(ROOM, KEY) is None


@pytest.mark.parametrize("harm", [flipped, a_link, a_pipe], ids=["flipped", "a link", "a pipe"])
def test_what_is_not_as_it_was_kept_is_replaced(harm, path):
    harm(path)
    kept.keep(ROOM, KEY, CONTENT, BOUNDS)
    assert kept.read(ROOM, KEY) == CONTENT and path.is_file() and not path.is_symlink()


def test_what_another_user_put_there_does_not_come_back(path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert kept.read(ROOM, KEY) is None


def test_what_is_too_large_is_not_even_read(path, monkeypatch):
    monkeypatch.setattr(kept, "LARGEST", path.stat().st_size)
    assert kept.read(ROOM, KEY) == CONTENT
    monkeypatch.setattr(kept, "LARGEST", path.stat().st_size - 1)
    with mock.patch.object(Path, "read_bytes", side_effect=AssertionError("was read")):
        assert kept.read(ROOM, KEY) is None


@pytest.mark.parametrize("place", ["a file", "no home"])
def test_a_place_that_cannot_be_used_stops_nothing(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    if place == "a file":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    assert kept.read(ROOM, KEY) is None
    kept.keep(ROOM, KEY, CONTENT, BOUNDS)
    told = capsys.readouterr().err
    assert told.startswith("warning: room: nothing is kept for the next time: ") and told.count("\n") == 1


def test_what_was_not_used_for_longest_goes_first(room):
    for number in range(3):
        kept.keep(ROOM, f"{number}", CONTENT, BOUNDS)
        used(room, f"{number}", number)
    assert kept.read(ROOM, "0") == CONTENT  # used just now
    kept.keep(ROOM, "3", CONTENT, kept.Bounds(files=3, size=1 << 20))
    assert sorted(path.name for path in room.iterdir()) == ["0", "2", "3"]


def test_the_bytes_that_are_kept_are_bounded(room):
    for number in range(5):
        kept.keep(ROOM, f"{number}", bytes(300), kept.Bounds(files=10, size=1000))
        used(room, f"{number}", number)
    assert sorted(path.name for path in room.iterdir()) == ["2", "3", "4"]


def test_a_file_that_another_process_removes_meanwhile_stops_nothing(room, monkeypatch, capsys):
    for number in range(3):
        kept.keep(ROOM, f"{number}", CONTENT, BOUNDS)
    status = kept.status_of
    monkeypatch.setattr(kept, "status_of", lambda path: (path.unlink() if path.name == "1" else None, status(path))[1])
    kept.keep(ROOM, "3", CONTENT, kept.Bounds(files=2, size=1 << 20))
    assert len(list(room.iterdir())) == 2 and kept.read(ROOM, "3") == CONTENT and capsys.readouterr().err == ""
