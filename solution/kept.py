"""What was computed once and is kept by its content: files in $XDG_CACHE_HOME/whale-ranking/ROOM, by default below ~/.cache.

    key = hashlib.sha256(everything the result depends on).hexdigest()
    content = kept.read("onnx", key)
    kept.keep("onnx", key, content, kept.Bounds(files=64, size=4 << 30))

Nothing here ever stops anything: what cannot be read is computed again, what cannot be written is not kept.
"""

import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import List, NamedTuple, Optional

from solution.errors import Busy, InputError
from solution.files import whole

DIGEST = 32  # bytes of a SHA-256, with which a kept file begins
LARGEST = 4 << 30  # bytes; nothing larger is read


class Bounds(NamedTuple):
    """Of a room: what was not used for longest goes first."""

    files: int
    size: int  # bytes


def folder(room: str) -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whale-ranking" / room


def read(room: str, key: str) -> Optional[bytes]:
    """What is kept under that key; None where there is nothing, something damaged or too large, or what others put there or could change."""
    try:
        path = folder(room) / key
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # what is looked at is what is read
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH or found.st_size > LARGEST:
                return None
            content = file.read()
        os.utime(path)
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    kept = memoryview(content)[DIGEST:]
    return bytes(kept) if content[:DIGEST] == digest(key, kept) else None


def keep(room: str, key: str, content: bytes, bounds: Bounds) -> None:
    """Keeps `content`, and removes from the room what is beyond its bounds."""
    try:
        with whole(folder(room) / key, wait=False) as beside:
            with open(beside, "wb") as file:
                file.write(digest(key, content))
                file.write(content)
        tidy(room, bounds)
    except Busy:
        pass  # another process keeps the same just now
    except (InputError, OSError, RuntimeError) as error:
        print(f"warning: {room}: nothing is kept for the next time: {error}", file=sys.stderr)


def digest(key: str, content) -> bytes:
    found = hashlib.sha256(key.encode())
    found.update(content)
    return found.digest()


def tidy(room: str, bounds: Bounds) -> None:
    room_left = bounds.size
    found = [(status.st_mtime, status.st_size, path) for path in folder(room).iterdir() for status in status_of(path)]
    for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
        room_left -= size
        if number >= bounds.files or room_left < 0:
            path.unlink(missing_ok=True)


def status_of(path: Path) -> List[os.stat_result]:
    """One, or none where another process has just removed the file."""
    try:
        return [path.lstat()]
    except FileNotFoundError:
        return []
