"""Kills commands with SIGKILL, starts them again until they end, and looks at their outputs all the while.

    whole = undisturbed(command, tmp_path / "whole")
    kills = survived(command, tmp_path / "killed", whole, [Event(7), Seconds(0.4)])

A command runs in a forked process, so that what takes seconds to import is there already. It is killed with all that it has started: when a
time is over, or just before its n-th change in the file system below its folder, which an audit hook counts: files opened to be written,
renamed, linked, removed, folders made and removed. So every state of the folder that can be met is met, too short as it may last.
"""

import io
import itertools
import json
import os
import runpy
import signal
import sys
import time
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Union

import pandas as pd
import yaml

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.link": 2, "os.truncate": 1}  # audit events, and their paths
MAY_DIFFER = {"provenance.json", "timings.json", "summary.csv"}  # commands and seconds; they must be there all the same
LOOK = 0.01  # seconds between two looks at the folder
RUNS = itertools.count()


class Event(NamedTuple):
    number: int  # from 1 on


class Seconds(NamedTuple):
    number: float


Moment = Union[Event, Seconds]


class Command(NamedTuple):
    """`words`: a module and its arguments, in which {} is the command's folder. `before` puts into the folder what is there from the start,
    `patch` changes the process that runs it. `done`: what a command says, with status 2, that was killed when all was done."""

    name: str
    words: list
    before: Callable[[Path], None] = lambda folder: None
    patch: Callable[[Path], None] = lambda folder: None
    done: str = ""


class Ran(NamedTuple):
    status: int  # -9: killed
    seconds: float
    events: list
    said: str
    partial: list  # what was seen under its final name and was not whole


def start(command: Command, folder: Path) -> Path:
    folder.mkdir()
    command.before(folder)
    return folder


def ran(command: Command, folder: Path, moment: Optional[Moment] = None) -> Ran:
    number = next(RUNS)
    log, events = (folder.with_name(f"{folder.name}.{number}.{kind}") for kind in ("log", "events"))
    log.touch(), events.touch()
    process, begun = os.fork(), time.monotonic()
    if process == 0:
        child(command, folder, moment.number if isinstance(moment, Event) else 0, log, events)
    seen, partial = {}, []
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if isinstance(moment, Seconds) and time.monotonic() - begun > moment.number:
            os.killpg(process, signal.SIGKILL)
        partial += not_whole(folder, seen)
        time.sleep(LOOK)
    took = time.monotonic() - begun
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Ran(status, took, events.read_text().splitlines(), log.read_text(errors="replace"), partial + not_whole(folder, seen))


def child(command: Command, folder: Path, number: int, log: Path, events: Path) -> None:
    """Never returns."""
    os.setpgid(0, 0)
    code = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1), os.dup2(said, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb", 0), write_through=True)
        sys.addaudithook(killer(folder, number, os.open(events, os.O_WRONLY | os.O_APPEND)))
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        command.patch(folder)
        sys.argv = [str(word).replace("{}", str(folder)) for word in command.words]
        warnings.simplefilter("ignore")  # runpy's, of modules that are there already
        code = exit_status(lambda: runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True))
    finally:
        os._exit(code)


def exit_status(work: Callable) -> int:
    try:
        work()
        return 0
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def killer(folder: Path, number: int, told: int) -> Callable:
    """An audit hook that kills the process and its children before their change of that number below the folder; 0 is never."""
    below, counted = f"{folder}{os.sep}", [0]

    def hook(event: str, arguments: tuple) -> None:
        paths = arguments[:1] if event == "open" and (arguments[2] or 0) & WRITING else arguments[: CHANGES.get(event, 0)]
        if any(isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(below) for path in paths):
            counted[0] += 1
            os.write(told, f"{event} {' '.join(map(str, paths))}\n".encode())
            if counted[0] == number:
                os.killpg(0, signal.SIGKILL)

    return hook


# What a folder holds

def shown(folder: Path) -> list[Path]:
    """Its files that are not hidden, nor in something hidden; the cache is nobody's to look at."""
    found = []
    for at, folders, files in os.walk(folder):  # which minds no folder that vanishes
        folders[:] = [name for name in folders if not name.startswith(".") and (at, name) != (str(folder), "cache")]
        found += [Path(at, name) for name in files if not name.startswith(".")]
    return found


def not_whole(folder: Path, seen: dict) -> list[str]:
    """The files that are not whole; `seen` has those that were, with what the file system tells of them."""
    found = []
    for path in shown(folder):
        try:
            status = path.stat()
            known = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen.get(path) != known and not is_whole(path):
                found.append(f"{path}: {status.st_size} bytes")
            seen[path] = known
        except FileNotFoundError:
            pass  # it was removed meanwhile
    return found


def is_whole(path: Path) -> bool:
    content = path.read_bytes()
    try:
        if path.suffix in (".npz", ".zip"):
            return zipfile.ZipFile(io.BytesIO(content)).testzip() is None
        if path.suffix == ".json":
            return json.loads(content) is not None
        if path.suffix == ".yaml":
            return "models" in yaml.safe_load(content)
    except (zipfile.BadZipFile, ValueError, TypeError, yaml.YAMLError):
        return False
    if path.suffix == ".html":
        return content.rstrip().endswith(b"</html>")
    return content.endswith({".csv": b"\n", ".jpg": b"\xff\xd9"}.get(path.suffix, b""))


def contents(folder: Path) -> dict:
    """Every file below a folder, hidden ones too, by its name: bytes, or of what holds seconds the rest. Empty folders are told, too; of the
    cache what is hidden alone."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if name.parts[0] == "cache" and not any(part.startswith(".") for part in name.parts):
            continue
        if path.is_file():
            found[str(name)] = b"" if path.name in MAY_DIFFER else without_seconds(path)
        elif not any(path.iterdir()):
            found[str(name)] = b"an empty folder"
    return found


def without_seconds(path: Path) -> bytes:
    if not path.name.endswith(".log.csv"):
        return path.read_bytes()
    return pd.read_csv(path, dtype=str).drop(columns="seconds", errors="ignore").to_csv().encode()


# The proof

def undisturbed(command: Command, folder: Path) -> tuple[dict, Ran]:
    """What a command makes that nobody disturbs."""
    done = ran(command, start(command, folder))
    assert done.status == 0 and not done.partial, (done.said, done.partial)
    return contents(folder), done


def survived(command: Command, folder: Path, whole: dict, moments: list[Moment]) -> int:
    """Runs a command that is killed at one moment after the other and at last left alone; the number of kills.

    AssertionError where anything was ever partial, or what came out is not that of an undisturbed run.
    """
    start(command, folder)
    kills = 0
    for moment in [*moments, None]:
        done = ran(command, folder, moment)
        told = f"{command.name}, {moment}: status {done.status}, {done.events[-1:]}\n{done.said}"
        assert not done.partial, (told, done.partial)
        kills += done.status == -signal.SIGKILL
        assert done.status in (0, -signal.SIGKILL) or done.status == 2 and kills and command.done and command.done in done.said, told
        if done.status != -signal.SIGKILL:
            break
    found = contents(folder)
    assert found.keys() == whole.keys(), (told, moments, sorted(found.keys() ^ whole.keys()))
    assert not [name for name in whole if found[name] != whole[name]], (told, moments, [name for name in whole if found[name] != whole[name]])
    return kills
