"""What users hand in and what they get: bad input becomes one clear line, and outputs appear whole or not at all."""

import contextlib
import gzip
import io
import json
import os
import shutil
import sys
import time
import zlib
from pathlib import Path
from typing import Callable, Iterator, Sequence

import pandas as pd

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


class InputError(Exception):
    """Something the user can mend: says which file, which row or key, and what to do."""


def run(main: Callable[[], None]) -> None:
    """Runs a command; exit status 2 and one line for bad input, 1 and one line for a failing disk."""
    try:
        main()
    except InputError as error:
        line = "".join(letter if letter.isprintable() else " " for letter in str(error))  # one line, whatever a cell holds
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.filename or 'file system'}: {error.strerror or error}; make room there or choose another place", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("stopped by the keyboard")


def read_table(path: Path, required: Sequence[str] = ()) -> pd.DataFrame:
    """A CSV (plain or gzip, whatever its name) with every cell as text, empty cells as ""; row i is line i + 2 of the file."""
    content = content_of(Path(path))
    try:
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; a header line is needed") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: line {line_not_utf8(content)} is not UTF-8; save the file as CSV in UTF-8") from None
    except ValueError as error:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        raise InputError(f"{path}: not a readable CSV: {reason}; {QUOTE}") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path}: line 2 has more cells than the header; {QUOTE}")
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise InputError(f"{path}: column {missing[0]!r} is missing; the header is {','.join(map(str, table.columns))!r}")
    return table


def content_of(path: Path) -> bytes:
    """The bytes of a table, unpacked where they are gzip; InputError for what can be told to be something else."""
    if not path.is_file():
        raise InputError(f"{path}: is a directory; give a file" if path.is_dir() else f"{path}: no such file")
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


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the name `path` when the block ends well and is removed when not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes the name `path` when the block ends well and is removed when not.

    InputError where `path` is there already: folders are never written over.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise InputError(f"{path}: already exists; remove it or choose another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.mkdir()
        yield beside
        os.rename(beside, path)
    except OSError as error:
        if error.filename in (None, str(beside)):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_table(table: pd.DataFrame, path: Path) -> Path:
    with whole(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")
    return Path(path)


def write_json(value: object, path: Path) -> Path:
    with whole(path) as beside:
        beside.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    return Path(path)


def read_json(path: Path) -> object:
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None


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
