"""What users hand in and what they get: bad input becomes one clear line, and outputs appear whole or not at all."""

import gzip
import io
import json
import os
import sys
import time
import zlib
from pathlib import Path
from typing import Callable, Iterator, Sequence

import pandas as pd

from eval import tables
from eval.errors import InputError
from eval.outputs import alone, whole, whole_directory
from eval.shortage import check_memory, check_room, lacks_memory, told

LONGEST = 1000  # letters of a message
CELL = 120  # bytes that pandas takes for one besides its text, which it holds three times; it crashes where it does not find them
GZIP = b"\x1f\x8b"
HEAD = 2 ** 16  # bytes that tell what a file is
UNPACKED, CELLS = 256 * 2 ** 20, 20_000_000  # what a gzip file may hold, five million rows of a submission; a bomb holds more
QUOTE = "quote cells that hold commas, write decimals with a point"
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook", b"%PDF": "a PDF",
    b"\xff\xfe": "text in UTF-16", b"\xfe\xff": "text in UTF-16", b"<": "a web page (HTML or XML)", b"{": "JSON", b"[": "JSON",
    b"BZh": "packed with bzip2", b"\xfd7zXZ": "packed with xz", b"\x28\xb5\x2f\xfd": "packed with zstd",
    GZIP: "packed with gzip twice", b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"PAR1": "Parquet",
    b"\x93NUMPY": "a NumPy file",
}


def run(main: Callable[[], None], relief: str = "close other programs, or take a machine that has more") -> None:
    """Runs a command; exit status 2 and one line for bad input, 1 and one line for a failing disk, or for no memory with what needs less."""
    try:
        main()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
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


def read_table(path: Path, required: Sequence[str] = (), strict: bool = True) -> pd.DataFrame:
    """A CSV (plain or gzip, whatever its name) with every cell as text, empty cells as ""; row i is line i + 2 of the file.

    InputError also for a column name that stands there twice and a row with fewer cells than the header; where not `strict`, the second
    column is NAME.1 and the cells are empty.
    """
    content = content_of(Path(path))
    check_memory(3 * len(content) + CELL * (content.count(b",") + content.count(b"\n") + 1), path)
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; a header line is needed") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {line_not_utf8(content)} is not UTF-8; save the file as CSV in UTF-8") from None
    except ValueError as error:
        if lacks_memory(error):
            raise MemoryError(f"{path}: {error}") from None
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        raise InputError(f"{path}: not a readable CSV: {reason}; {QUOTE}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path}: line 2 has more cells than the header; {QUOTE}")
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; the header is {','.join(map(str, table.columns))!r}")
    if strict:
        check_shape(path, content, table)
    return table


def check_shape(path: Path, content: bytes, table: pd.DataFrame) -> None:
    twice = tables.repeated_name(content) if any(name[-1:].isdecimal() for name in table.columns) else None
    if twice:
        raise InputError(f"{path}: line 1: column {twice!r} stands there twice; remove one")
    short = tables.short_row(content, len(table.columns), len(table))
    if short:
        raise InputError(f"{path}: line {short[0]}: {short[1]} cells, and the header has {len(table.columns)}; was the file cut short?")


def check_file(path: Path) -> None:
    """InputError where `path`, which may be any text, is no file."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: is a directory; give a file" if os.path.isdir(path) else f"{path}: no such file")


def content_of(path: Path) -> bytes:
    """The bytes of a table, unpacked where they are gzip; InputError for what can be told to be something else."""
    check_file(path)
    try:
        with open(path, "rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else open(path, "rb") as file:
            refuse_other_formats(path, file.read(HEAD))
            file.seek(0)
            content = file.read(UNPACKED + 1 if packed else -1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is cut short or broken ({error}); copy or pack it again") from None
    if packed and (len(content) > UNPACKED or content.count(b",") + content.count(b"\n") > CELLS):
        raise InputError(f"{path}: unpacks to more than {UNPACKED >> 20} MiB or {CELLS} cells; if that is right, unpack it yourself")
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(0)) + 1
        raise InputError(f"{path}: not a readable CSV, line {line} holds a zero byte; save it as CSV in UTF-8")
    return content


def refuse_other_formats(path: Path, head: bytes) -> None:
    """InputError where the first bytes of a file are not those of a table with commas."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = next((kind for start, kind in OTHER_FORMATS.items() if text.startswith(start)), "no text" if b"\0" in head else None)
    if kind:
        raise InputError(f"{path}: not a readable CSV, this is {kind}; save it as CSV in UTF-8")
    header = text.splitlines()[0] if text else b""
    if len(header) >= HEAD - 4:
        raise InputError(f"{path}: line 1 is longer than {len(header)} bytes; a header line is needed")
    mark = next((mark for mark in (";", "\t", "|") if mark.encode() in header and b"," not in header), None)
    if mark:
        raise InputError(f"{path}: line 1: the cells are separated by {mark!r}; write commas")


def line_not_utf8(content: bytes) -> int:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1


def write_table(table: pd.DataFrame, path: Path) -> Path:
    with whole(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")
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


def number(text: str) -> int | float:
    """A number of a JSON file; ValueError for NaN, and for those too large to calculate with."""
    value = float(text)
    if not abs(value) < float("inf"):
        raise ValueError(f"{text[:20]} is no finite number")
    return int(text) if text.lstrip("-").isdecimal() else value


def progress(items: Sequence, label: str) -> Iterator:
    """Passes `items` on; after 5 s tells on stderr how far it is: in place on a terminal, else one line a minute."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, label, delay=5)
        return
    start = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told > 60:
            print(tqdm.format_meter(done, len(items), now - start, prefix=label, ncols=80), file=sys.stderr)
            told = now
        yield item
