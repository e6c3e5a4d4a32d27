"""One process at a time writes an output, and it appears whole or not at all: the same for both halves of the project."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from solution import kept, outputs

ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["solution", "eval"])
def house(request):
    names = {name: import_module(f"{request.param}.{name}") for name in ("outputs", "locks", "errors")}
    return SimpleNamespace(name=request.param, **names)


def other(house, work, **more):
    """Another process that does `work` and says "here" when it is at its `pause()`."""
    code = f"import os, signal, sys, time\nfrom pathlib import Path\nfrom {house.name} import outputs, locks\npause = lambda: (print('here', flush=True), time.sleep(100))\n{work}"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, **more)


def holding(house, path):
    process = other(house, f"with outputs.alone(Path({str(path)!r})): pause()")
    assert process.stdout.readline() == "here\n"
    return process


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_another_process_holds_is_refused_in_one_line_and_free_once_it_is_killed(house, tmp_path):
    path = tmp_path / "new" / "out.csv"
    process = holding(house, path)
    with pytest.raises(house.errors.InputError, match="out.csv: another run is writing it; wait for that one, or choose another --output") as refused:
        with house.outputs.alone(path):
            pass
    assert "\n" not in str(refused.value)
    process.kill(), process.wait()
    assert names(path.parent) == [".out.csv.lock"]
    with house.outputs.alone(path):
        with house.outputs.whole(path) as beside:
            beside.write_text("1\n")
    assert names(path.parent) == ["out.csv"] and path.read_text() == "1\n"


def test_the_turn_can_be_awaited(house, tmp_path):
    process = other(house, f"with outputs.alone(Path({str(tmp_path / 'o')!r})):\n print('here', flush=True)\n time.sleep(0.5)\n Path({str(tmp_path / 'done')!r}).touch()")
    assert process.stdout.readline() == "here\n"
    with house.outputs.alone(tmp_path / "o", wait=True):
        assert (tmp_path / "done").exists()
    assert process.wait() == 0 and names(tmp_path) == ["done"]


def test_several_processes_that_await_their_turn_never_meet(house, tmp_path):
    """Each adds to a number 40 times; an addition that another one overtakes would be lost."""
    path = tmp_path / "number"
    path.write_text("0")
    add = f"path = Path({str(path)!r})\nfor _ in range(40):\n with outputs.alone(path, wait=True):\n  n = int(path.read_text())\n  with outputs.whole(path) as beside: beside.write_text(str(n + 1))"
    processes = [other(house, add) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert path.read_text() == "160" and names(tmp_path) == ["number"]


def test_a_forked_process_that_lives_on_holds_nothing_and_removes_nothing(house, tmp_path):
    path = tmp_path / "o"
    process = other(house, f"with outputs.alone(Path({str(path)!r})), outputs.whole(Path({str(path)!r})):\n signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job may have it ignored\n child = os.fork()\n os.write(1, f'{{child}}\\n'.encode())\n time.sleep(100)", start_new_session=True)
    said = {process.stdout.readline().strip() for _ in range(2)}
    child = int((said - {"0"}).pop())
    process.kill(), process.wait()
    os.kill(child, 0)  # it is there
    with house.outputs.alone(path), house.outputs.whole(path) as beside:
        beside.write_text("1")
        os.kill(child, signal.SIGINT)
        while Path(f"/proc/{child}/fd").is_dir() and os.path.lexists(f"/proc/{child}/exe"):
            time.sleep(0.01)
        assert names(tmp_path) == [".o.lock", ".o.part"]
    assert names(tmp_path) == ["o"]


def test_an_inner_command_takes_again_what_the_outer_one_holds(house, tmp_path):
    with house.outputs.alone(tmp_path / "o"):
        with house.outputs.whole_directory(tmp_path / "o") as folder:
            (folder / "file").write_text("")
        assert names(tmp_path) == [".o.lock", "o"]
    assert names(tmp_path) == ["o"]


def test_a_folder_that_was_made_for_an_output_goes_where_there_is_none(house, tmp_path):
    (tmp_path / "there").mkdir()
    for folder in ("a/b", "there"):
        with pytest.raises(ZeroDivisionError), house.outputs.alone(tmp_path / folder / "o"):
            1 / 0
    assert names(tmp_path) == ["there"]
    with pytest.raises(ZeroDivisionError), house.outputs.alone(tmp_path / "a/b/o", tmp_path / "a/c/o"):
        (tmp_path / "a/b/kept").touch()
        1 / 0
    assert names(tmp_path / "a") == ["b"] and names(tmp_path / "a/b") == ["kept"]


def test_what_a_killed_process_was_writing_is_written_over(house, tmp_path):
    for work in ("whole(Path('o')) as beside: beside.write_text('x' * 1000); pause()", "whole_directory(Path('d')) as beside: (beside / 'half').touch(); pause()"):
        process = other(house, f"os.chdir({str(tmp_path)!r})\nwith outputs.{work}")
        assert process.stdout.readline() == "here\n"
        process.kill(), process.wait()
    assert names(tmp_path) == [".d.lock", ".d.part", ".o.part"]
    with house.outputs.whole(tmp_path / "o") as beside:
        beside.write_text("short")
    with house.outputs.whole_directory(tmp_path / "d") as beside:
        (beside / "all").touch()
    assert names(tmp_path) == ["d", "o"] and names(tmp_path / "d") == ["all"] and (tmp_path / "o").read_text() == "short"


def test_two_that_write_one_file_at_once_write_it_one_after_the_other(house, tmp_path):
    path = tmp_path / "o"
    slowly = f"with outputs.whole(Path({str(path)!r})) as beside, open(beside, 'w') as file:\n file.write('a' * 1000)\n file.flush()\n print('here', flush=True)\n time.sleep(0.5)\n file.write('a' * 1000)"
    process = other(house, slowly)
    assert process.stdout.readline() == "here\n"
    with pytest.raises(house.errors.InputError, match="another run is writing it"), house.outputs.whole(path, wait=False):
        pass
    with house.outputs.whole(path) as beside:
        assert path.read_text() == "a" * 2000
        beside.write_text("b")
    assert process.wait() == 0 and path.read_text() == "b" and names(tmp_path) == ["o"]


def test_who_has_written_a_file_takes_nothing_from_the_next_that_writes_it(house, tmp_path, monkeypatch):
    path, replace, started = tmp_path / "o", os.replace, []

    def replaced(*paths):
        replace(*paths)
        started.append(other(house, f"with outputs.whole(Path({str(path)!r})): pause()"))
        assert started[0].stdout.readline() == "here\n"

    monkeypatch.setattr(os, "replace", replaced)
    with house.outputs.whole(path):
        pass
    assert names(tmp_path) == [".o.part", "o"]
    started[0].kill(), started[0].wait()


def test_what_fails_leaves_what_was_there(house, tmp_path):
    (tmp_path / "o").write_text("before")
    with pytest.raises(ZeroDivisionError), house.outputs.whole(tmp_path / "o") as beside:
        beside.write_text("half")
        1 / 0
    with pytest.raises(ZeroDivisionError), house.outputs.whole_directory(tmp_path / "d") as beside:
        (beside / "half").touch()
        1 / 0
    assert names(tmp_path) == ["o"] and (tmp_path / "o").read_text() == "before"


@pytest.mark.parametrize("odd", [".", "folder", "/dev/null"])
def test_what_is_no_file_is_never_replaced(house, tmp_path, monkeypatch, odd):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(house.errors.InputError, match="is no file; give the path of a file"), house.outputs.whole(Path(odd)):
        pass
    assert Path("/dev/null").is_char_device() and names(tmp_path) == ["folder"]


def test_a_link_in_place_of_a_hidden_file_is_not_followed(house, tmp_path):
    (tmp_path / "elsewhere").write_text("mine")
    for hidden, write in ((".o.part", house.outputs.whole), (".o.lock", house.outputs.alone)):
        (tmp_path / hidden).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(OSError) as refused, write(tmp_path / "o"):
            pass
        assert refused.value.errno == errno.ELOOP and refused.value.filename == str(tmp_path / "o")
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_file_system_without_locks_is_written_to_all_the_same(house, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with house.outputs.alone(tmp_path / "o"), house.outputs.whole(tmp_path / "o") as beside:
        beside.write_text("1")
    assert names(tmp_path) == ["o"]


def test_an_error_of_the_file_system_names_the_output(house, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(house.errors.InputError, match="file: is no folder, or lies in what is none"), house.outputs.alone(tmp_path / "file" / "o"):
        pass
    with pytest.raises(OSError) as raised, house.outputs.whole(tmp_path / "o") as beside:
        os.unlink(beside)
    assert raised.value.filename == str(tmp_path / "o") and names(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_the_name(house, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: told.append(os.fstat(descriptor).st_size))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (told.append("replaced"), replace(*paths)))
    with house.outputs.whole(tmp_path / "o") as beside:
        beside.write_text("abc")
    assert told == [3, "replaced"]


def test_a_process_that_ends_at_once_leaves_nothing(house, tmp_path):
    path = str(tmp_path / "o")
    ends = f"with outputs.alone(Path({path!r})), outputs.whole(Path({path!r})) as beside:\n beside.write_text('half')\n locks.release_all()\n os._exit(0)"
    assert other(house, ends).wait() == 0
    assert names(tmp_path) == []


# Of solution alone

def test_a_folder_that_was_to_be_replaced_comes_back_where_the_replacing_was_killed(tmp_path):
    (tmp_path / ".d.earlier").mkdir(), (tmp_path / ".d.earlier" / "old").touch()
    with pytest.raises(ZeroDivisionError), outputs.whole_directory(tmp_path / "d", replace=True):
        1 / 0
    assert names(tmp_path) == ["d"] and names(tmp_path / "d") == ["old"]
    with outputs.whole_directory(tmp_path / "d", replace=True) as beside:
        (beside / "new").touch()
    assert names(tmp_path) == ["d"] and names(tmp_path / "d") == ["new"]


def test_the_cache_keeps_nothing_that_another_process_is_just_keeping_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = kept.folder("room") / "key"
    process = other(SimpleNamespace(name="solution"), f"with outputs.whole(Path({str(path)!r})): pause()")
    assert process.stdout.readline() == "here\n"
    kept.keep("room", "key", b"content", kept.Bounds(10, 1000))
    assert kept.read("room", "key") is None and capsys.readouterr().err == ""
    process.kill(), process.wait()
    kept.keep("room", "key", b"content", kept.Bounds(10, 1000))
    assert kept.read("room", "key") == b"content" and names(path.parent) == ["key"]
