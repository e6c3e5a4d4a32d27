"""A command of the project, run in this process and watched: every file it opens, lists, makes, links, renames or removes, and every process and
connection it starts.

    done = watched.run(files.run, score.main, ["submission.csv", "truth.csv"], within)
    done.code, done.stdout, done.stderr, done.events           # events: (what, real path, whether it writes)

Files are watched by an audit hook of the interpreter, which sees what Python does; libraries that open files by themselves are not
asked to here. What may be read besides a case's own directories stands in `LIBRARIES`; nothing else may be written.
"""

import contextlib
import io
import os
import signal
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path
from typing import Callable, NamedTuple, Sequence
from unittest import mock

ROOT = Path(__file__).parents[2]
LIBRARIES = [os.path.join(os.path.realpath(place), "") for place in {
    sys.prefix, sys.base_prefix, *filter(None, sys.path), *(sysconfig.get_paths().values()), ROOT / "solution", ROOT / "eval", ROOT / "submission", ROOT / "tests", "/proc", "/sys", "/usr/share/zoneinfo", "/usr/share/fonts", "/usr/lib"}]
DEVICES = ["/dev/null", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/mime.types"]
SECONDS = 60  # after which a command hangs
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TAKEN = {"shutil.copyfile", "shutil.copytree", "os.link"}  # of whose two paths the first is read
PATHS = {"os.listdir": 1, "os.scandir": 1, "os.mkdir": 1, "os.rmdir": 1, "os.remove": 1, "os.truncate": 1, "os.chmod": 1, "os.chown": 1, "os.utime": 1, "os.rename": 2, "os.link": 2,
         "os.symlink": 2, "os.mkfifo": 1, "shutil.copyfile": 2, "shutil.copytree": 2, "shutil.move": 2, "shutil.rmtree": 1, "shutil.unpack_archive": 2, "shutil.make_archive": 1, "os.chdir": 1}
READS = {"os.listdir", "os.scandir"}
NEVER = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto",
         "socket.gethostbyname", "urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect", "pickle.find_class"}
seen: list[tuple[str, str, bool]] | None = None


class Hung(BaseException):
    """A command that did not end."""


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str
    events: list[tuple[str, str, bool]]
    warnings: list[str]


def hook(event: str, arguments: tuple) -> None:
    if seen is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if not isinstance(path, int):
            note(event, path, bool((flags or 0) & WRITES))
    elif event in PATHS:
        fds = [fd for fd in arguments[PATHS[event]:] if isinstance(fd, int)]
        for number, (path, fd) in enumerate(zip(arguments[: PATHS[event]], [*fds[-PATHS[event]:], -1, -1])):
            if event != "os.symlink" or number:
                note(event, path, event not in READS and not (event in TAKEN and number == 0), fd)
    elif event in NEVER:
        seen.append((event, str(arguments[:2])[:200], True))


def note(event: str, path, writes: bool, fd: int = -1) -> None:
    if path is None or isinstance(path, int):
        return
    text = os.fsdecode(path)
    if not text.startswith("/") and event == "open" and not writes and "/" not in text and not os.path.lexists(text):
        return  # a folder of a tree that is removed, named to its parent's descriptor
    if fd > 2 and not text.startswith("/"):
        text = os.path.join(os.readlink(f"/proc/self/fd/{fd}"), text)
    # Of what is renamed, linked or removed it counts where it stands, not what a link points to.
    place = os.path.realpath(text) if event in ("open", "os.listdir", "os.scandir") else os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(text))), os.path.basename(text))
    seen.append((event, place, writes))


sys.addaudithook(hook)


@contextlib.contextmanager
def watching():
    """Gives the list that events go to meanwhile."""
    global seen
    seen = events = []
    try:
        yield events
    finally:
        seen = None


@contextlib.contextmanager
def in_time(seconds: int):
    def stop(*_):
        raise Hung(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(wrapped: Callable, main: Callable, words: Sequence[str], within: Path) -> Done:
    """What `wrapped(main)` does with these words on its command line; its cache and temporary files lie in `within`."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors, newline="\n") for errors in ("strict", "backslashreplace"))
    code = 0
    environment = {"XDG_CACHE_HOME": str(within / "cache"), "TMPDIR": str(within / "temporary"), "OMP_NUM_THREADS": "1"}
    place = os.getcwd()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(mock.patch.object(tempfile, "tempdir", str(within / "temporary")))
        stack.enter_context(mock.patch.object(sys, "argv", ["command", *map(str, words)]))
        stack.enter_context(mock.patch.object(sys, "dont_write_bytecode", True))
        told = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        os.chdir(within / "elsewhere")
        stack.callback(os.chdir, place)
        stack.enter_context(in_time(SECONDS))
        with watching() as events:
            try:
                wrapped(main)
            except SystemExit as stopped:
                code = stopped.code or 0
                if isinstance(code, str):  # as the interpreter does
                    code = print(code, file=err) or 1
    texts = [stream.flush() or stream.buffer.getvalue().decode() for stream in (out, err)]
    return Done(code, *texts, events, [f"{each.category.__name__}: {each.message} ({each.filename}:{each.lineno})" for each in told])


def outside(events, named: Sequence[Path]) -> list[tuple[str, str, bool]]:
    """Those of the events that are in none of the `named` places, and for reading in none of the libraries either."""
    own = [os.path.realpath(place) for place in named]

    def inside(path: str, writes: bool) -> bool:
        if any(path == place or path.startswith(place + "/") for place in own):
            return True
        return path in DEVICES or not writes and any((path + "/").startswith(place) for place in LIBRARIES)

    return [event for event in events if event[0] in NEVER or not inside(event[1], event[2])]
