"""Zip files: written with the same bytes for the same content, and read with suspicion.

    zipped(folder, ["main.py", "weights/lite0.npz"], Path("submission.zip"))
    names(Path("submission.zip")); unpacked(Path("submission.zip"), Path("rehearsal"))

A zip is unpacked only where all of it is plain files with plain names of their own, below the folder on every system, and hardly larger than
the zip. All of that is told before anything is written; checksums are, too. What is packed in it once more stays packed.
"""

import contextlib
import shutil
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath
from typing import Iterator, List

from eval.files import InputError, whole

MOST_FILES = 10_000
MOST_BYTES = 32 << 30  # unpacked
FREE_BYTES, RATIO = 256 << 20, 100  # what unpacks to more is at most so many times the size of its zip
LONGEST = 200, 1000  # bytes of a name between slashes, and of the whole; file systems end at 255
LONGEST_END = 22 + (1 << 16)  # bytes, with a comment
KINDS = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
CENTURY = 1980, 1, 1, 0, 0, 0  # the first time that a zip can tell; every file gets it


def zipped(folder: Path, names: List[str], path: Path) -> Path:
    """The files `names` of `folder` as a zip: sorted, of one time and one mode, stored as they are (weights hardly shrink)."""
    with whole(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name, CENTURY)
            entry.create_system, entry.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            entry.file_size = (folder / name).stat().st_size
            with open(folder / name, "rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return path


def names(path: Path) -> List[str]:
    """The names in a zip, all of it read once; InputError for a damaged or hostile one."""
    with opened(path) as archive:
        found = checked(archive, path)
        damaged = archive.testzip()
    if damaged:
        raise InputError(f"{path}: not a readable zip: {damaged} is damaged")
    return found


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip, which is read meanwhile; InputError where it cannot be."""
    if not path.is_file():
        raise InputError(f"{path}: {'is no plain file' if path.exists() else 'no such file'}")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (InputError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and struct each have kinds of their own for damaged bytes
        raise InputError(f"{path}: not a readable zip: {' '.join(str(error).split())[:200] or type(error).__name__}") from None


def unpacked(path: Path, folder: Path) -> Path:
    """Unpacks a zip that `names` has read into `folder`, which must be empty or not there."""
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; choose another --output")
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder, checked(archive, path))
    return folder


def checked(archive: zipfile.ZipFile, path: Path) -> List[str]:
    """The names in the zip; InputError where an entry would land elsewhere or on another one, is no plain file, or there is too much."""
    entries = archive.infolist()
    if count(path) != len(entries) & 0xFFFF:
        raise InputError(f"{path}: not a readable zip: its end does not tell of the {len(entries)} files that are listed before it")
    for entry in entries:
        reason = refused(entry)
        if reason:
            raise InputError(f"{path}: {entry.orig_filename[:200]!r} {reason}; such a zip is not unpacked")
    size, packed = sum(entry.file_size for entry in entries), sum(entry.compress_size for entry in entries)
    if len(entries) > MOST_FILES or size > MOST_BYTES or size > max(FREE_BYTES, RATIO * path.stat().st_size) or packed > path.stat().st_size:
        raise InputError(f"{path}: {len(entries)} files of {size / 1e9:.1f} GB in {path.stat().st_size / 1e9:.3f} GB; at most {MOST_FILES} of {MOST_BYTES / 1e9:.0f} GB, "
                         f"{RATIO} times the zip, are unpacked")
    names = [entry.filename.rstrip("/") for entry in entries]
    files = {alike(name) for name, entry in zip(names, entries) if not entry.is_dir()}
    seen = set()
    for name in names:
        if alike(name) in seen or any(alike(str(folder)) in files for folder in PurePosixPath(name).parents):
            raise InputError(f"{path}: {name!r} is in it twice, or beside a file of that name; such a zip is not unpacked")
        seen.add(alike(name))
    return [entry.filename for entry in entries]


def count(path: Path) -> int:
    """How many files the end of a zip tells of, the last 16 bits of it."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_END))
        end = file.read()
    place = end.rfind(b"PK\5\6") + 10
    return int.from_bytes(end[place : place + 2], "little")


def alike(name: str) -> str:
    """The same for names that are one on some system: in another case, or with accents written otherwise."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def refused(entry: zipfile.ZipInfo) -> str:
    """Why an entry is not unpacked, empty where it may be."""
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    if name.startswith("/") or "\\" in name or ":" in name or "\0" in name or ".." in PurePosixPath(name).parts:
        return "leads out of the folder"
    if not name.isprintable() or "/".join(PurePosixPath(name).parts) + "/" * entry.is_dir() != name:
        return "is no plain name"
    if len(name.encode()) > LONGEST[1] or any(len(part.encode()) > LONGEST[0] for part in PurePosixPath(name).parts):
        return "is too long a name"
    if kind not in (0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG) or entry.is_dir() and entry.file_size:
        return "is a link or another special file"
    return "is encrypted" if entry.flag_bits & 1 else "" if entry.compress_type in KINDS else "is packed neither plainly nor by deflate"
