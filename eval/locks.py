"""One process at a time: locks that the system drops when a process ends, however it ends.

    with locked(Path("weights/.tiny.npz.lock")):        # BlockingIOError where another process holds it
        ...

What is locked is a small file of its own, or the file that is being written. One that a killed process has left hinders nobody: the next
process locks and removes it. Processes that are forked meanwhile, as those that read for a training, hold nothing, so that none that
outlives its parent is in the way. Where a file system knows no locks the work goes on without.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Dict, Iterator

UNKNOWN = errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS  # what file systems without locks answer

HELD: Dict[Path, int] = {}  # the files that this process has locked, and their descriptors


@contextlib.contextmanager
def locked(file: Path, wait: bool = False) -> Iterator[None]:
    """Makes and holds a file, and removes it at the end unless it has got another name. BlockingIOError where another process holds
    it, unless its turn is to be awaited; what this process holds already it may take again."""
    if file in HELD:
        yield
        return
    HELD[file] = taken(file, wait)
    try:
        yield
    finally:
        release(file)


def taken(file: Path, wait: bool) -> int:
    """The descriptor of a file that is locked."""
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # another process has just removed the folder, which was empty
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if error.errno not in UNKNOWN:
                os.close(descriptor)
                raise
        if is_called(descriptor, file):
            return descriptor
        os.close(descriptor)  # who held it has removed or renamed it meanwhile


def is_called(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(file))
    except FileNotFoundError:
        return False


def release(file: Path) -> None:
    descriptor = HELD.pop(file, None)
    if descriptor is not None:  # else this is a forked process, and the file its parent's
        with contextlib.suppress(OSError):  # a disk that is gone takes nothing back
            if is_called(descriptor, file):
                os.unlink(file)
        os.close(descriptor)


def release_all() -> None:
    """What a process does that ends at once."""
    for file in list(HELD):
        release(file)


def forget() -> None:
    for descriptor in HELD.values():
        os.close(descriptor)
    HELD.clear()


os.register_at_fork(after_in_child=forget)
