"""One case: a command's valid place, made hostile, and what the command may do about it: refuse it in one line, or answer it rightly.

    outcome = fuzz.tried(command, case, base)          "refused", "failed" or "answered"; AssertionError where it did something else

A case lies in BASE/case. BASE/outside holds secrets, to which links in the folders of data lead; nothing may read or write there,
nor what the command's words do not name.
"""

import contextlib
import os
import re
import shutil
import stat
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

import hostile_files
import watched
from places import Command, pictures

LARGE = 1 << 14  # bytes of a file that is linked instead of written
SECRETS = {"secret.csv": b"image_id,path,query_id,query_image_id,database_image_id,whale_id\nsecret,secret.jpg,s,secret,secret,w\n", "metadata.csv": b"image_id,path,whale_id\nsecret,secret.jpg,w\n"}
LINKS = {"loop": "loop", "link.csv": "outside/secret.csv", "link.jpg": "outside/secret.jpg", "folder": "outside"}
NOISE = re.compile(r"torch|lightning|timm|multiprocessing|hypothesis")  # whose warnings are not the input's
LONG = 1100  # letters of a line


class Case(NamedTuple):
    changes: tuple[tuple[str, tuple], ...]  # a file and what happens to it
    options: int


def cases(command: Command) -> st.SearchStrategy:
    change = st.sampled_from(command.hostile).flatmap(lambda name: st.tuples(st.just(name), hostile_files.changes(name)))
    return st.builds(Case, st.lists(change, min_size=1, max_size=3).map(tuple), st.integers(0, len(command.options) - 1))


@lru_cache(maxsize=None)
def files_of(template: Path) -> tuple[tuple[str, Path, bytes | None], ...]:
    found = []
    for path in sorted(path for path in template.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        found.append((str(path.relative_to(template)), path, path.read_bytes() if path.stat().st_size <= LARGE else None))
    return tuple(found)


def base() -> Path:
    """A folder for cases, in memory where there is such; what lies outside of them."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None))
    (folder / "outside").mkdir()
    for name, content in SECRETS.items():
        (folder / "outside" / name).write_bytes(content)
    pictures(folder / "outside", "secret.jpg")
    return folder


def laid_out(command: Command, case: Case, place: Path) -> None:
    """Writes the case's files, hostile ones in place of the valid ones."""
    changed: dict[str, list] = {}
    for name, change in case.changes:
        changed.setdefault(name, []).append(change)
    for folder in ("cache", "temporary", "elsewhere"):
        (place / folder).mkdir(parents=True)
    for name, path, content in files_of(command.template):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        found = content
        for change in changed.get(name, []):
            if not isinstance(found, hostile_files.Place):
                found = hostile_files.changed(path.read_bytes() if found is None else found, change)
        put(found, path, place / name)
    for folder in {(place / name).parent for name in command.hostile if name.endswith(".csv")}:
        for at in (folder, folder / "images", folder / "queries"):
            for name, target in LINKS.items() if at.is_dir() else ():
                with contextlib.suppress(FileExistsError):
                    os.symlink(target if target == "loop" else os.path.relpath(place.parent / target, at), at / name)


def put(found: bytes | hostile_files.Place | None, source: Path, target: Path) -> None:
    if found is None:
        os.link(source, target)
    elif isinstance(found, bytes):
        target.write_bytes(found)
    elif found.kind == "folder":
        target.mkdir()
    elif found.kind == "pipe":
        os.mkfifo(target)
    elif found.kind == "link":
        os.symlink(target.name if found.to == "loop" else found.to, target)


def picture(place: Path) -> dict[str, tuple]:
    """Every file with what tells a change of it."""
    found = {}
    for folder, folders, names in os.walk(place):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            large = not stat.S_ISREG(status.st_mode) or status.st_size > LARGE
            content = os.readlink(path) if stat.S_ISLNK(status.st_mode) else (status.st_size, status.st_mtime_ns, status.st_ino) if large else Path(path).read_bytes()
            found[os.path.relpath(path, place)] = (stat.S_IFMT(status.st_mode), content)
    return found


def tried(command: Command, case: Case, base: Path) -> str:
    place = base / "case"
    try:
        laid_out(command, case, place)
        before, secrets = picture(place), picture(base / "outside")
        words = [word.replace("{case}", str(place)) for word in [*command.words, *command.options[case.options]]]
        with command.patched():
            done = watched.run(command.wrapped, command.main, words, place)
        after = picture(place)
        outcome = judged(command, done, place)
        confined(command, done, place)
        unchanged(command, before, after, done.code)
        assert picture(base / "outside") == secrets
        if done.code == 0:
            with watched.in_time(watched.SECONDS):
                command.check(place)
        return outcome
    finally:
        shutil.rmtree(place, ignore_errors=True)


def judged(command: Command, done: watched.Done, place: Path) -> str:
    """One line that names a place, where the input is refused; nothing but warnings, where it is not."""
    lines = done.stderr.splitlines()
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    assert not any(len(line) > LONG for line in lines), max(lines, key=len)[:300]
    told = [warning for warning in done.warnings if not NOISE.search(warning)]
    assert not told, told
    if done.code == 0:
        assert all(fine(command, line) for line in lines), lines
        return "answered"
    if lines and lines[0].startswith("usage: "):
        assert done.code == 2 and ": error: " in lines[-1], lines
        return "refused"
    last = lines[-1] if lines else ""
    if done.code == 1:
        assert any(words in last for words in command.fails), lines
        return "failed"
    assert done.code == 2 and last.startswith("error: ") and all(fine(command, line) for line in lines[:-1]), (done.code, lines)
    names = {part for name, *_ in files_of(command.template) for part in (name, Path(name).name, Path(name).stem)}
    assert str(place) in last or "--" in last or "packed with" in last or any(name in last for name in names), last
    return "refused"


def fine(command: Command, line: str) -> bool:
    return line.startswith(("warning: ", "note: ", *command.says)) or not line


def confined(command: Command, done: watched.Done, place: Path) -> None:
    named = [place / name for name in command.named] + [place / name for name in ("out", "cache", "temporary")]
    events = watched.outside(done.events, named)
    mine = [event for event in events if not (event[1] == str(place) and not event[2]) and not (event[0] == "os.mkdir" and event[1] == str(place))]
    assert [event for event in mine if not any(start in event[1] for start in command.starts)] == [], mine[:5]
    away = [event for event in done.events if event[1].startswith(str(place.parent / "outside"))]
    assert not away, away[:5]


def unchanged(command: Command, before: dict, after: dict, code: int) -> None:
    own = lambda name: name.split("/")[0] in ("out", "cache") or any(name == change or name.startswith(change + "/") for change in command.changes)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name) and not own(name)}
    assert not changed, sorted(changed)[:5]
    left = [name for name in after if name not in before and (name.endswith(".part") or "/.".join(["", ""]) in name and name.split("/")[0] == "out")]
    assert not left, left
    if code == 2:
        made = [name for name in after if name.startswith("out/") and name.split("/")[1] not in command.stays]
        assert not made, made[:5]
