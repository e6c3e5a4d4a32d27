"""The fuzzer sees what it is to see: commands that misbehave in each way that is forbidden are caught."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fuzz
import hostile_files
import readers
import watched
from eval.errors import InputError
from places import Command, nothing, table

DATA = "image_id,path\na,images/a.jpg\n"


@pytest.fixture
def command(tmp_path):
    """A place of one table, for a command that is handed over."""
    (tmp_path / "template/data").mkdir(parents=True)
    (tmp_path / "template/data/metadata.csv").write_text(DATA)
    return lambda main, **more: Command(tmp_path / "template", main, ["{case}/data"], ["data/metadata.csv"], ["data"], more.pop("check", nothing), **more)


def data() -> Path:
    return Path(sys.argv[1])


def out() -> Path:
    (data().parent / "out").mkdir(exist_ok=True)
    return data().parent / "out"


def secret() -> Path:
    return data().parents[1] / "outside/secret.csv"


def raises(error: BaseException):
    def main():
        raise error
    return main


def write(path: Path, text: str) -> None:
    path.write_text(text)


WRONG = {
    "a traceback": raises(KeyError("x")),
    "an error that names nothing": raises(InputError("something is wrong")),
    "a line without end": lambda: print("warning: " + "x" * 5000, file=sys.stderr),
    "a line of its own": lambda: print("by the way", file=sys.stderr),
    "exit status 1": lambda: sys.exit("no"),
    "exit status 2 without a word": lambda: sys.exit(2),
    "what Python warns of": lambda: __import__("warnings").warn("divided by zero", RuntimeWarning),
    "reading a secret": lambda: secret().read_text(),
    "reading through a link in the data": lambda: (data() / "link.csv").read_text(),
    "listing a folder above": lambda: os.listdir(data().parents[1]),
    "writing beside the data": lambda: write(data().parent / "more.csv", "x"),
    "writing into the data": lambda: write(data() / "more.csv", "x"),
    "changing the data": lambda: write(data() / "metadata.csv", "x"),
    "removing the data": lambda: shutil.rmtree(data()),
    "writing where the secrets are": lambda: write(secret().with_name("new"), "x"),
    "writing where it stands": lambda: write(Path("x.csv"), "x"),
    "linking a secret": lambda: os.link(secret(), out() / "s.csv"),
    "copying a secret": lambda: shutil.copyfile(secret(), out() / "s.csv"),
    "leaving half a file": lambda: write(out() / ".s.csv.part", "x"),
    "an output of what was refused": lambda: (write(out() / "s.csv", "x"), raises(InputError("metadata.csv: no"))()),
    "a process": lambda: subprocess.run(["true"]),
    "a connection": lambda: __import__("socket").create_connection(("127.0.0.1", 9), 0.1),
}


@pytest.mark.parametrize("main", WRONG.values(), ids=WRONG)
def test_what_no_command_may_do_is_caught(main, command, place):
    with pytest.raises((AssertionError, KeyError, ConnectionError)):
        fuzz.tried(command(main), fuzz.Case((), 0), place)


def test_a_command_that_hangs_is_caught(command, place, monkeypatch):
    monkeypatch.setattr(watched, "SECONDS", 0.2)
    with pytest.raises(watched.Hung):
        fuzz.tried(command(lambda: os.read(os.pipe()[0], 1)), fuzz.Case((), 0), place)


def test_what_a_command_may_do_is_not(command, place):
    def main():
        print("warning: a word", file=sys.stderr)
        write(out() / "s.csv", (data() / "metadata.csv").read_text())

    assert fuzz.tried(command(main), fuzz.Case((), 0), place) == "answered"
    assert fuzz.tried(command(raises(InputError("data/metadata.csv: line 2: no"))), fuzz.Case((), 0), place) == "refused"


RANKING = ["query_id,database_image_id,score", "s-a,b,0.9", "s-a,c,0.8"]


@pytest.mark.parametrize("rows", [
    ["query_id,database_image_id", "s-a,b"], [*RANKING, "s-a,d"], [RANKING[0], "s-a,b,nan"], [RANKING[0], "s-a,b,1.5"], [*RANKING, "s-a,b,0.7"], [*RANKING, "s-a,a,0.7"], [*RANKING, "s-a,x,0.7"],
    [RANKING[0], "s-z,b,0.9"], [RANKING[0], "s-a,b,0.8", "s-a,c,0.9"]])
def test_a_wrong_ranking_is_no_answer(rows, tmp_path):
    table(tmp_path / "query_scenarios.csv", ["scenario_id,queries_path,database_path", "s,q.csv,d.csv"])
    table(tmp_path / "q.csv", ["query_id,query_image_id", "s-a,a"])
    table(tmp_path / "d.csv", ["database_image_id", *"abcd"])
    readers.ranking(table(tmp_path / "right.csv", RANKING), tmp_path)
    with pytest.raises((AssertionError, KeyError)):
        readers.ranking(table(tmp_path / "wrong.csv", rows), tmp_path)


@pytest.mark.parametrize("row", ["a,images/b.jpg,", ",images/b.jpg,", "b,../b.jpg,", "b,/b.jpg,", "b,images/b.jpg,5"])
def test_a_wrong_data_directory_is_no_answer(row, tmp_path):
    table(tmp_path / "metadata.csv", ["image_id,path,x0,y0,x1,y1", "a,images/a.jpg,,,,", f"{row}5,1,9"])
    with pytest.raises((AssertionError, ValueError)):
        readers.data(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "json", "yaml"])
def test_changes_change_and_never_fail(kind):
    from hypothesis import given, settings

    content = {"csv": DATA.encode(), "json": b'{"a": {"b": [1, 2]}, "c": "x"}', "yaml": b"a: {b: [1, 2]}\nc: x\n"}[kind]
    seen = set()

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(hostile_files.changes(f"x.{kind}"))
    def every(change):
        seen.add(hash(hostile_files.changed(content, change)))

    every()
    assert len(seen) > 100
