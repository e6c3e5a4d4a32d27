"""Npz files, which may come from a stranger: nothing is unpickled or run, and no more memory is taken than the file has bytes.

    values = arrays(Path("weights/lite0.npz"))              # {name: array}

What is read is what numpy.savez writes: a zip whose members are stored as they are, one array of text or numbers each. Before memory is
taken, what a header tells must be what its member holds, to the byte. The members have checksums, so that changed numbers are noticed.
"""

import contextlib
import io
import math
import re
import zipfile
from pathlib import Path
from typing import Dict, Iterator, Sequence, Tuple

import numpy as np

from solution.errors import InputError

MOST = 20_000  # arrays of a file; a checkpoint of the largest published model has a tenth
NAME = re.compile(r"\w[\w.-]{0,150}(/\w[\w.-]{0,150}){0,3}\.npy", re.ASCII)
RESERVED = "path", "file", "allow_pickle"  # words of the functions that write arrays by their names
END = b"PK\5\6"  # and 18 bytes more, of which the seventh and eighth tell how many members there are
MAGIC = np.lib.format.magic(1, 0)
HEADER = re.compile(rb"\{'descr': '[<|](?:b1|[iu][1248]|f[248]|U\d{1,9})', 'fortran_order': (?:True|False), 'shape': \([\d, ]{0,200}\), \}\s{0,200}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An npz file, whose arrays are read meanwhile; InputError where it is none, or turns out to be damaged."""
    if not isinstance(path, io.BytesIO) and not Path(path).is_file():
        raise InputError(f"{path}: {'is no plain file' if Path(path).exists() else 'no such file'}")
    try:
        with zipfile.ZipFile(path) as file:
            yield file
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and numpy each have kinds of their own for damaged bytes
        raise InputError(f"{path}: not a readable npz of plain arrays: {' '.join(str(error).split())[:200] or type(error).__name__}") from None


def members(file: zipfile.ZipFile) -> Dict[str, zipfile.ZipInfo]:
    """What holds each array, by its name; ValueError where the file cannot hold what it tells."""
    entries = file.infolist()
    for entry in entries:
        if not NAME.fullmatch(entry.orig_filename) or entry.filename[:-4] in RESERVED:
            raise ValueError(f"{entry.orig_filename[:100]!r} is no name of an array")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise ValueError(f"array {entry.filename[:-4]} is compressed or encrypted; write it with numpy.savez")
    found = {entry.filename[:-4]: entry for entry in entries}
    size, told = file.fp.seek(-len(END) - 18, io.SEEK_END) + len(END) + 18, sum(entry.file_size for entry in entries)
    end = file.fp.read()
    if not end.startswith(END) or int.from_bytes(end[10:12], "little") != len(entries):
        raise ValueError(f"its end does not tell of the {len(entries)} arrays that are listed before it")
    if len(found) < len(entries) or len(entries) > MOST or told > size:
        raise ValueError(f"tells of {len(entries)} arrays, {len(found)} of them different, of {told} bytes; it has {size} bytes, and {MOST} arrays are the most")
    return found


def header(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tuple:
    """An array's stream, which stands before the first number, its shape, whether it is stored by columns, and its dtype."""
    stream = file.open(entry)
    start = stream.read(len(MAGIC) + 2)
    text = stream.read(min(1000, int.from_bytes(start[-2:], "little")))
    if start[:-2] != MAGIC or not HEADER.fullmatch(text):
        raise ValueError(f"array {entry.filename[:-4]} is not text or numbers as numpy.savez writes them")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(start[-2:] + text))
    count = math.prod(shape)
    if dtype.itemsize == 0 < count or len(start) + len(text) + count * dtype.itemsize != entry.file_size:
        raise ValueError(f"array {entry.filename[:-4]} is not the {dtype} of shape {shape} that it tells to be")
    return stream, shape, by_columns, dtype


def array(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    header(file, entry)
    with file.open(entry) as stream:  # anew: a stream that is set back no longer checks its sum in newer Pythons
        return checked(np.lib.format.read_array(stream, allow_pickle=False))


def checked(values: np.ndarray) -> np.ndarray:
    """The same; ValueError where text holds numbers that are no characters, at which whatever reads it would stumble."""
    if values.dtype.kind == "U" and values.size:
        codes = values.reshape(-1).view("<u4")
        if ((codes >= 0x110000) | (codes >> 11 == 0xD800 >> 11)).any():
            raise ValueError("text holds numbers that are no characters")
    return values


def arrays(path: Path, required: Sequence[str] = ()) -> Dict[str, np.ndarray]:
    """All arrays of an npz file by their names; InputError where it is none, or where a `required` one is missing."""
    with opened(path) as file:
        found = {name: array(file, entry) for name, entry in members(file).items()}
    for name in required:
        if name not in found:
            raise InputError(f"{path}: array {name} is missing")
    return found
