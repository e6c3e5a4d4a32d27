"""Outputs: one command at a time writes one, and it appears whole or not at all, whatever happens to the command.

    with alone(Path("submission.csv")):                 # InputError where another run is at it
        with whole(Path("submission.csv")) as beside:   # .submission.csv.part
            beside.write_text(...)

What is not whole yet has a fixed hidden name, so that the next run of a command that was killed writes over what is left of it.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterator

from eval.errors import InputError
from eval.locks import locked


def hidden(path: Path, ending: str) -> Path:
    """A hidden name beside `path`."""
    folder, name = os.path.split(os.path.abspath(path))
    return Path(folder, f".{name}.{ending}")


def part(path: Path) -> Path:
    """What `path` is called while it is written."""
    return hidden(path, "part")


@contextlib.contextmanager
def alone(*paths: Path, wait: bool = False) -> Iterator[None]:
    """Holds outputs against other processes for as long as a command works on them: the InputError that another one does, unless its
    turn is to be awaited. A folder that is made for it does not stay empty."""
    with contextlib.ExitStack() as held:
        for path in map(Path, paths):
            held.callback(remove_empty, made(path.parent))
            with told_of(path, hidden(path, "lock")):
                held.enter_context(locked(hidden(path, "lock"), wait))
        yield


def made(folder: Path) -> list[Path]:
    """Makes a folder; those that are new, the innermost first. InputError where something else is in the way."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{folder}: is no folder, or lies in what is none; choose another place") from None
    return new


def remove_empty(folders: list[Path]) -> None:
    with contextlib.suppress(OSError):  # from the first that is not empty on
        for folder in folders:
            folder.rmdir()


@contextlib.contextmanager
def told_of(path: Path, beside: Path) -> Iterator[None]:
    """What goes wrong with a hidden file or folder beside `path`, or in it, is told of `path`."""
    try:
        yield
    except BlockingIOError:
        raise InputError(f"{path}: another run is writing it; wait for that one, or choose another --output") from None
    except OSError as error:
        name = error.filename2 or error.filename or path  # of a copy the second is what was to be written
        error.filename, error.filename2 = str(name).replace(str(beside), str(path)), None
        raise


@contextlib.contextmanager
def whole(path: Path, wait: bool = True) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the name `path` when the block ends well and is removed when not.

    Another process that is just writing it is awaited, or without `wait` an InputError; so is what is no file.
    """
    path = Path(path)
    if path.is_dir() or path.is_char_device() or path.is_block_device():
        raise InputError(f"{path}: is no file; give the path of a file")
    made(path.parent)
    with told_of(path, part(path)), locked(part(path), wait):
        yield part(path)
        on_disk(part(path))
        os.replace(part(path), path)


def on_disk(file: Path) -> None:
    """Has the system write a file out, so that after a power cut too its name stands for all of it."""
    with open(file, "rb") as content:
        os.fsync(content.fileno())


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes the name `path` when the block ends well and is removed when not.

    InputError where `path` is there already: folders are never written over.
    """
    path = Path(path)
    with alone(path), told_of(path, part(path)):
        if os.path.lexists(path):
            raise InputError(f"{path}: already exists; remove it or choose another --output")
        with emptied(part(path)) as beside:
            yield beside
            os.rename(beside, path)


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """A new folder, whatever a killed run has left of it; it does not stay."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
