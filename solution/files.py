"""Reading inputs and writing outputs: bad input becomes one clear line, and outputs appear whole or not at all."""

import argparse
import contextlib
import gzip
import io
import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Callable, Iterable, Iterator, Optional, Sequence, Union

import numpy as np
import pandas as pd

from solution import tables
from solution.errors import Failure, InputError
from solution.npz import arrays
from solution.outputs import alone, whole, whole_directory
from solution.shortage import check_memory, check_room, lacks_memory, told

LONGEST, LONGEST_NAME = 1000, 1000  # letters of a message, and of an id: arrays of ids are as wide as the longest
CELL = 120  # bytes that pandas takes for one besides its text, which it holds three times; it crashes where it does not find them
GZIP, UNPACKED = b"\x1f\x8b", 256 << 20  # bytes with which a gzip file begins, and what it may hold: a bomb holds more
LARGEST = 2**63 - 1  # whole number of an argument: that of a 64-bit integer


def natural(text: str) -> int:
    """An argument that is a whole number, 0 or more."""
    if not text.isdecimal() or len(text) > 19 or int(text) > LARGEST:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number, 0 or more")
    return int(text)


def seconds(text: str) -> float:
    """An argument that is a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


class Complaints:
    """What is wrong with the input but need not stop a prediction: one line each on stderr, counted; an InputError where strict."""

    def __init__(self, strict: bool = True) -> None:
        self.strict, self.count = strict, 0

    def add(self, message: str) -> None:
        if self.strict:
            raise InputError(message)
        self.count += 1
        print(f"warning: {one_line(message)}", file=sys.stderr)

    @contextlib.contextmanager
    def passing_over(self, what: str) -> Iterator[None]:
        """What fails in the block, by a damaged file, a device that gives up, no memory or no room on the disk, costs itself alone, `what`, and
        is complained of; Failure where strict."""
        try:
            yield
        except InputError as error:
            self.add(str(error) if self.strict else f"{what}: {error}")
        except (RuntimeError, MemoryError, OSError) as error:
            if self.strict:
                raise Failure(f"{what}: {told(error)}") from None
            self.add(f"{what}: {told(error)}")


STRICT = Complaints()


def run(main: Callable[[], None], relief: str = "close other programs, or take a machine that has more") -> None:
    """Runs a command; exit status 2 and one line for bad input, 1 and one line for a failing disk, or for no memory with what needs less."""
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except Failure as error:
        sys.exit(f"error: {one_line(str(error))}")
    except KeyboardInterrupt:
        sys.exit("stopped by the keyboard")
    except Exception as error:
        if not (isinstance(error, OSError) or lacks_memory(error)):
            raise
        if isinstance(error, OSError) and not flushed():
            error.filename = "standard output"
        print(f"error: {told(error)}; {relief if lacks_memory(error) else 'make room there or choose another place'}", file=sys.stderr)
        sys.exit(1)


def flushed() -> bool:
    """Whether what was printed has gone out; where it cannot, nothing of it is left to fail once more as the process ends."""
    try:
        sys.stdout.flush()
        return True
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False


def one_line(text: str) -> str:
    """A message as one line that a terminal can show, whatever a cell holds; of a long one the beginning and the end, where it says what to do."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 300]} ... {text[-295:]}"
    return "".join(letter if letter.isprintable() else " " for letter in text)


def read_table(path: Path, required: Sequence[str] = (), complaints: Complaints = STRICT) -> pd.DataFrame:
    """A CSV (plain or gzip) with every cell as text, empty cells as ""; row i of the table is line i + 2 of the file.

    Complains of rows with fewer cells than the header, as a file that was cut short has, and leaves them out.
    """
    content = content_of(Path(path))
    check_memory(3 * len(content) + CELL * (content.count(b",") + content.count(b"\n") + 1), path)
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; a header line is needed") from None
    except ValueError as error:
        if lacks_memory(error):
            raise MemoryError(f"{path}: {error}") from None
        raise InputError(f"{path}: not a readable CSV in UTF-8: {' '.join(str(error).split())}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path}: line 2 has more cells than the header; quote cells that hold commas")
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; the header is {','.join(map(str, table.columns))!r}")
    twice = tables.repeated_name(content) if any(name[-1:].isdecimal() for name in table.columns) else None
    if twice:
        raise InputError(f"{path}: line 1: column {twice!r} stands there twice; remove one")
    short = tables.short_rows(content, len(table.columns), len(table))
    for line in short.values():
        complaints.add(f"{path}: line {line}: fewer cells than the {len(table.columns)} of the header; was the file cut short?")
    return table.drop(index=list(short)).reset_index(drop=True) if short else table


def content_of(path: Path) -> bytes:
    """The bytes of a table, unpacked where they are gzip."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else open(path, "rb") as file:
            content = file.read(UNPACKED + 1 if packed else -1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is cut short or broken ({error}); copy or pack it again") from None
    if packed and len(content) > UNPACKED:
        raise InputError(f"{path}: unpacks to more than {UNPACKED >> 20} MiB; if that is right, unpack it yourself")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(0)) + 1
        raise InputError(f"{path}: line {line} holds a zero byte; save the file as CSV in UTF-8")
    return content


def check_file(path: Path) -> None:
    """InputError where `path`, which may be any text, is no file."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: is a directory; give a file" if os.path.isdir(path) else f"{path}: no such file")


def write_table(table: pd.DataFrame, path: Path) -> Path:
    with whole(path) as beside:
        table.to_csv(beside, index=False)
    return Path(path)


def write_json(value: object, path: Path) -> Path:
    with whole(path) as beside:
        beside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    return Path(path)


def read_json(path: Path) -> object:
    """What a JSON file holds; InputError where it is none, or holds a number that is not finite."""
    check_file(path)
    try:
        return json.loads(Path(path).read_text("utf-8"), parse_int=number, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


def read_object(path: Path) -> dict:
    """A JSON object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, not an object of keys and values; make it again")
    return value


def number(text: str) -> Union[int, float]:
    """A number of a JSON file; ValueError for NaN, and for those too large to calculate with."""
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError(f"{text[:20]} is no finite number")
    return int(text) if text.lstrip("-").isdecimal() else value


def write_arrays(path: Path, **values: np.ndarray) -> Path:
    with whole(path) as beside, open(beside, "wb") as file:
        np.savez(file, **values)
    return Path(path)


def progress(items: Iterable, label: str, total: Optional[int] = None) -> Iterator:
    """Passes `items` on; after 5 s tells on stderr how far it is: in place on a terminal, else one line a minute."""
    from tqdm import tqdm

    total = len(items) if total is None else total
    if sys.stderr.isatty():
        yield from tqdm(items, label, total, delay=5)
        return
    start = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told > 60:
            print(tqdm.format_meter(done, total, now - start, prefix=label, ncols=80), file=sys.stderr)
            told = now
        yield item
