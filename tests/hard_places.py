"""Places where work fails: disks that are small, read-only or taken away, and commands in this process on them.

    with hard_places.disk(tmp_path / "disk", 64) as disk:      # 64 KiB in memory; the test is skipped where mounting is not allowed
        done = hard_places.command(score.main, "submission.csv", "truth.csv", "--json", disk.path / "score.json")
        disk.resize(1024), disk.fill(), disk.empty(), disk.read_only()
    with hard_places.mounted(real, tmp_path / "disk"): ...     # `real` at another place, where it can be taken away: taken_away(...)
"""

import contextlib
import errno
import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Callable, Iterator
from unittest import mock

import pytest

import eval.files
import solution.files
from toy_training import Finished

PAGE = 4096  # bytes, of which a file in memory takes whole ones


def mount(*words) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


def taken_away(path: Path) -> None:
    """As a network drive that is gone: who has a file open keeps it, the path leads to what was below."""
    subprocess.run(["umount", "--lazy", path], capture_output=True)


@contextlib.contextmanager
def mounted(real: Path, path: Path) -> Iterator[Path]:
    """The folder `real` at `path` too, as long as nobody takes it away."""
    path.mkdir(exist_ok=True)
    mount("--bind", real, path)
    try:
        yield path
    finally:
        taken_away(path)  # for the second time where it is already


class Disk:
    def __init__(self, path: Path) -> None:
        self.path, self.ballast = path, path / "ballast"

    def resize(self, kilobytes: int) -> None:
        mount("-o", f"remount,size={kilobytes}k", self.path)

    def read_only(self) -> None:
        mount("-o", "remount,ro", self.path)

    def fill(self, but: int = 0) -> None:
        """Nothing more goes on it, but for some pages."""
        free = os.statvfs(self.path).f_bfree - but
        with open(self.ballast, "ab") as file:
            file.write(bytes(PAGE * max(0, free)))

    def empty(self) -> None:
        self.ballast.unlink()

    def strays(self) -> list[str]:
        """What a command has left that is no output."""
        return [str(path.relative_to(self.path)) for path in self.path.rglob(".*")]


@contextlib.contextmanager
def disk(path: Path, kilobytes: int = 64) -> Iterator[Disk]:
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", path)
    try:
        yield Disk(path)
    finally:
        taken_away(path)


def command(main: Callable[[], None], *words) -> Finished:
    """The command in this process, as `python -m` runs it."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    run = eval.files.run if main.__module__.startswith("eval.") else lambda work: eval.files.run(lambda: solution.files.run(work))
    with mock.patch.object(sys, "argv", ["command", *map(str, words)]), redirect_stdout(out), redirect_stderr(err):
        try:
            run(main)
        except SystemExit as stopped:
            code = stopped.code
            if isinstance(code, str):  # as the interpreter does
                print(code, file=err)
                code = 1
    return Finished(code or 0, out.getvalue(), err.getvalue())


def contents(path: Path) -> dict[str, bytes]:
    """Every file below a folder, or the one file; nothing of what is not there."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


FULL = os.strerror(errno.ENOSPC)
READ_ONLY = os.strerror(errno.EROFS)
