"""What a stranger could send: zips and arrays that say one thing and hold another, and pickles that would make a file if they were run.

    path = hostile.write_zip(tmp_path / "m.npz", hostile.Member("a.npy", hostile.npy(shape="(10**12,)")))
    told = hostile.bounded(arrays, path)        # the line of its InputError, in a process that is given few megabytes

Every byte of a zip is written here, so that each may lie.
"""

import json
import os
import pickle
import resource
import struct
import zlib
from pathlib import Path
from typing import Callable, NamedTuple, Optional

MEGABYTES = 100  # that a refusal may take
STORED, DEFLATED = 0, 8


class Member(NamedTuple):
    """One of a zip. What is None is as it should be; `local` are the same fields in the header before the content, where those differ."""

    name: str
    content: bytes = b""
    method: int = STORED
    size: Optional[int] = None
    packed: Optional[int] = None
    crc: Optional[int] = None
    flags: int = 0
    mode: int = 0o100644
    extra: bytes = b""
    local: dict = {}
    offset: Optional[int] = None  # of another member, to lie upon


def write_zip(path: Path, *members: Member, after: bytes = b"", end: dict = {}) -> Path:
    """A zip of these members; `end` overrides fields of its last record: entries, size, offset."""
    body, central = bytearray(), bytearray()
    for member in members:
        name, start = member.name.encode("utf-8", "surrogateescape"), len(body)
        told = {"name": name, "method": member.method, "flags": member.flags | (0 if name.isascii() else 0x800), "crc": member.crc if member.crc is not None else zlib.crc32(member.content),
                "packed": len(member.content) if member.packed is None else member.packed, "size": len(member.content) if member.size is None else member.size}
        here = told | member.local
        if member.offset is None:
            body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, here["flags"], here["method"], 0, 33, here["crc"], min(here["packed"], 2**32 - 1), min(here["size"], 2**32 - 1), len(here["name"]), 0) + here["name"]
            body += member.content
        large = struct.pack("<HHQQ", 1, 16, told["size"], told["packed"]) if max(told["size"], told["packed"]) >= 2**32 - 1 else b""
        extra, place = member.extra + large, start if member.offset is None else member.offset
        central += struct.pack("<4s6H3I5H2I", b"PK\1\2", 0x314, 45 if large else 20, told["flags"], told["method"], 0, 33, told["crc"], min(told["packed"], 2**32 - 1), min(told["size"], 2**32 - 1),
                               len(name), len(extra), 0, 0, 0, member.mode << 16, place) + name + extra
    last = {"entries": min(len(members), 2**16 - 1), "size": len(central), "offset": len(body)} | end
    path.write_bytes(bytes(body + central) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, last["entries"], last["entries"], last["size"], last["offset"], 0) + after)
    return path


def npy(descr: str = "'<f4'", shape: str = "(3,)", data: bytes = bytes(12), by_columns: str = "False", header: Optional[str] = None, version: bytes = b"\1\0", length: Optional[int] = None) -> bytes:
    """An array as numpy writes it, each part of its header as text."""
    text = (f"{{'descr': {descr}, 'fortran_order': {by_columns}, 'shape': {shape}, }}" if header is None else header).encode()
    size = 2 if version == b"\1\0" else 4
    text += b" " * (-(len(text) + 9 + size) % 64) + b"\n"
    return b"\x93NUMPY" + version + (len(text) if length is None else length).to_bytes(size, "little") + text + data


def zeros(gigabytes: int = 1) -> tuple[bytes, int]:
    """Zeros, deflated a thousandfold without having been there, and how many they are."""
    packer = zlib.compressobj(9, wbits=-15)
    million = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return million * (1024 * gigabytes) + packer.flush(), gigabytes << 30


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def payload(marker: Path, protocol: int = 2) -> bytes:
    return pickle.dumps({"weight": Payload(marker)}, protocol)


def bounded(function: Callable, *arguments, megabytes: int = MEGABYTES) -> str:
    """What a call says in its one line, in a forked process that may take so many megabytes more; "" where it refuses nothing."""
    return bounded_each({"": (function, *arguments)}, megabytes)[""]


def bounded_each(calls: dict, megabytes: int = MEGABYTES) -> dict[str, str]:
    """The same of several calls (function, arguments ...) by their names, one after another in one process.

    Anything but an InputError, no memory among it, is told as an AssertionError.
    """
    reading, writing = os.pipe()
    if not os.fork():
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (megabytes << 20),) * 2)
            for name, (function, *arguments) in calls.items():
                os.write(writing, json.dumps([name, *said(function, *arguments)]).encode() + b"\n")
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading) as told:
        answers = {name: (kind, text) for name, kind, text in map(json.loads, told)}
    os.wait()
    assert answers.keys() == calls.keys(), f"it was killed at {[name for name in calls if name not in answers][:1]}"
    for name, (kind, text) in answers.items():
        assert kind != "fell" and text.isprintable() and len(text) < 1000, (name, kind, text[:2000])
    return {name: text for name, (_, text) in answers.items()}


def said(function: Callable, *arguments) -> tuple[str, str]:
    try:
        function(*arguments)
        return "done", ""
    except BaseException as error:
        refused = type(error).__name__ == "InputError"  # of solution or of eval
        return ("told", str(error)) if refused else ("fell", f"{type(error).__name__}: {str(error)[:2000]}")
