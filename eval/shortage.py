"""What is short, memory or room on a disk: tried before the work where that can be, and told in one line.

    check_room(Path("report.html"))    # OSError
    except Exception as error:
        if lacks_memory(error): print(told(error))

Every library says in a way of its own that there is no memory.
"""

import errno
import os
from pathlib import Path

from eval.errors import InputError

# Of pandas, OpenCV, Pillow, C++, threads, and shared libraries that do not fit.
WORDS = ("out of memory", "allocate memory", "unable to allocate", "failed to allocate", "insufficient memory", "bad_alloc", "start new thread",
         "failed to map segment")


def lacks_memory(error: BaseException) -> bool:
    """Whether an exception says that there is no memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM or any(words in text for words in WORDS)


def told(error: BaseException) -> str:
    """What an exception says, on one line: of one from a disk the file, of one that says there is no memory that first."""
    if lacks_memory(error):
        return f"out of memory ({last_line(error)})"
    if isinstance(error, OSError) and error.strerror:
        # Of a copy the first name is what was read, the second what could not be written.
        return f"{error.filename2 or error.filename or 'file system'}: {error.strerror}"
    return last_line(error)


def last_line(error: BaseException) -> str:
    """What an exception says; of what a DataLoader's worker has raised, with its whole traceback, the end, where its own words stand."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if lines[0].startswith("Caught ") else " ".join(lines)


def check_room(path: Path, size: int = 4096) -> None:
    """Tries whether a file of `size` bytes could be written at `path`, and leaves nothing there but its folder.

    OSError, which names `path`, where there is no room or no right; InputError where a file stands for a folder or a folder for a file.
    """
    import tempfile

    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(file.fileno(), 0, max(size, 1))  # which takes no 0
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path.parent}: is no folder, or lies in what is none; choose another place") from None
    except OSError as error:
        error.filename = str(path)
        raise


def check_memory(size: int, what: object) -> None:
    """MemoryError, which names `what`, where it would not find `size` bytes. They are asked for and given back, not written to: it takes no time."""
    import mmap

    try:
        mmap.mmap(-1, size).close()
    except OSError:
        raise MemoryError(f"{what}: {max(1, size >> 20)} MB are needed") from None
