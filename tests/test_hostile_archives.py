"""Submissions from a stranger: a zip that would land elsewhere, on itself, or on the whole disk is told before a byte of it is written."""

import io
import os
import stat
import struct
import zipfile

import numpy as np
import pytest

import hostile
from eval.files import InputError
from hostile import Member, bounded, write_zip
from submission import archive

MAIN = Member("main.py", b"print()")
PACKED, SIZE = hostile.zeros()


def whole(path, folder):
    """What a rehearsal does with a zip before anything of it runs."""
    archive.names(path)
    archive.unpacked(path, folder)


def refused(path, folder):
    """The line, in a process of little memory; nothing was written, within the folder or beside it."""
    before = sorted(folder.parent.rglob("*"))
    told = bounded(whole, path, folder)
    assert told.startswith(f"{path}: ") and sorted(folder.parent.rglob("*")) == before, told
    return told


def packed(name, content=b"", **more):
    return [MAIN, Member(name, content, **more)]


ELSEWHERE = ["/absolute", "../out", "a/../../out", "a/..", "..", "..\\out", "a\\..\\..\\out", "C:\\out", "C:out", "c:/out", "\\\\server\\share\\out", "//server/share/out", "a\0b", "main.py\0.txt", "file:///out", "a:stream"]
NO_NAMES = ["", ".", "./a", "a/./b", "a//b", "/", "a/.", "a\nb", "a\rb", "\x1b[2Ja", "a\u202eyp.niam", "a\u200bb", "a\ufeffb", "a\x7f"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused(name, tmp_path):
    assert "leads out of the folder" in refused(write_zip(tmp_path / "s.zip", *packed(name, b"x")), tmp_path / "run")


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_not_what_it_looks_like_is_refused(name, tmp_path):
    told = refused(write_zip(tmp_path / "s.zip", *packed(name, b"x")), tmp_path / "run")
    assert "is no plain name" in told or "leads out of the folder" in told or "is a link or another special file" in told or not name


@pytest.mark.parametrize("name", ["a" * 201, "é" * 101, "/".join(["abcdefgh"] * 120), "a" * 60_000], ids=len)
def test_a_name_that_is_too_long_for_a_disk_is_refused(name, tmp_path):
    assert "is too long a name" in refused(write_zip(tmp_path / "s.zip", *packed(name)), tmp_path / "run")


@pytest.mark.parametrize("one, other", [
    ("a", "a"), ("a/b", "a/b"), ("a", "A"), ("main.py", "MAIN.PY"), ("weights/é", "weights/e\u0301"), ("ﬁle", "file"), ("straße", "STRASSE"), ("a/", "a"), ("a", "a/b"), ("a/b", "a"),
    ("A", "a/b/c"), ("a/b", "A/B/c"), ("ａ", "a"), ("a/", "A/"),
])
def test_two_names_that_are_one_on_some_system_are_refused(one, other, tmp_path):
    members = [Member(name, b"" if name.endswith("/") else b"x", mode=0o040755 if name.endswith("/") else 0o100644) for name in (one, other)]
    assert "is in it twice, or beside a file of that name" in refused(write_zip(tmp_path / "s.zip", MAIN, *members), tmp_path / "run")


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o666, stat.S_IFCHR | 0o666, stat.S_IFBLK | 0o666, stat.S_IFSOCK | 0o777, stat.S_IFDIR | 0o755, 0o170000], ids=oct)
def test_what_is_no_plain_file_is_refused(mode, tmp_path):
    assert "is a link or another special file" in refused(write_zip(tmp_path / "s.zip", *packed("a", b"/etc/passwd", mode=mode)), tmp_path / "run")


@pytest.mark.parametrize("members, words", [
    ([Member("a", PACKED, hostile.DEFLATED, size=SIZE)], "100 times the zip"),
    ([Member("a", b"x", size=1 << 40, packed=1)], "100 times the zip"),
    ([Member(f"a{number}", b"x", size=1 << 30) for number in range(40)], "at most 10000 of 34 GB"),
    ([Member("a", PACKED, hostile.DEFLATED, size=SIZE)] + [Member(f"a{number}", b"", hostile.DEFLATED, size=SIZE, packed=len(PACKED), offset=37) for number in range(30)], "100 times the zip"),
    ([Member(f"a{number}", b"x" * 100, offset=37) for number in range(100)], "100 times the zip"),
    ([Member(f"a{number}") for number in range(20_000)], "at most 10000 of"),
    ([Member("a", b"x", flags=1)], "is encrypted"), ([Member("a", b"x", flags=0x40)], "strong encryption"), ([Member("a", b"x", flags=0x20)], "compressed patched data"),
    ([Member("a", b"x", 12)], "neither plainly nor by deflate"), ([Member("a", b"x", 14)], "neither plainly nor by deflate"), ([Member("a", b"x", 99)], "neither plainly nor by deflate"),
    ([Member("a/", b"x", mode=0o040755)], "is a link or another special file"),
    ([Member("a", b"xyz", local={"name": b"main.py"})], "not a readable zip"), ([Member("a", b"xyz", crc=1)], "a is damaged"),
    ([Member("a", b"xyz", hostile.DEFLATED)], "not a readable zip"), ([Member("a", b"x", offset=10_000)], "not a readable zip"),
    ([Member("a", b"x", extra=struct.pack("<HH", 1, 60_000))], "not a readable zip"),
])
def test_a_bomb_or_a_broken_zip_is_refused(members, words, tmp_path):
    assert words in refused(write_zip(tmp_path / "s.zip", MAIN, *members), tmp_path / "run")


def test_an_entry_that_holds_more_than_it_tells_is_stopped_there(tmp_path):
    """A gigabyte of zeros that tells of ten: no more than these are ever unpacked, and the sum is wrong."""
    path = write_zip(tmp_path / "s.zip", MAIN, Member("a", PACKED, hostile.DEFLATED, size=10, crc=0))
    assert "is damaged" in refused(path, tmp_path / "run")


@pytest.mark.parametrize("end", [{"size": 2**32 - 1}, {"size": 2**31}, {"offset": 2**31}, {"size": 1}, {"entries": 9}, {"entries": 0}])
def test_a_zip_whose_end_lies_is_refused(end, tmp_path):
    assert "not a readable zip" in refused(write_zip(tmp_path / "s.zip", MAIN, Member("a", b"x"), end=end), tmp_path / "run")


def test_what_is_packed_once_more_stays_packed(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", Member("../out", PACKED, hostile.DEFLATED, size=SIZE)).read_bytes()
    path = write_zip(tmp_path / "s.zip", MAIN, Member("inner.zip", inner))
    whole(path, tmp_path / "run")
    assert (tmp_path / "run" / "inner.zip").read_bytes() == inner and sorted(each.name for each in (tmp_path / "run").iterdir()) == ["inner.zip", "main.py"]


def test_modes_of_a_zip_are_not_taken_over(tmp_path):
    path = write_zip(tmp_path / "s.zip", MAIN, Member("a", b"x", mode=stat.S_IFREG | 0o6777))
    whole(path, tmp_path / "run")
    assert (tmp_path / "run" / "a").stat().st_mode & 0o7111 == 0


def test_a_pipe_a_device_and_a_folder_are_no_zips(tmp_path):
    os.mkfifo(tmp_path / "pipe"), (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero", "absent", "."):
        assert refused(tmp_path / name, tmp_path / "run").endswith(("is no plain file", "no such file"))


def test_a_changed_byte_is_refused_or_unpacks_to_the_same(tmp_path):
    content = {"main.py": b"print()" * 40, "weights/a.npz": np.random.default_rng(1).bytes(300), "a.txt": b"a" * 500}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as file:
        for name, value in content.items():
            file.writestr(name, value, zipfile.ZIP_DEFLATED if name == "a.txt" else zipfile.ZIP_STORED)
    original, random, told = written.getvalue(), np.random.default_rng(0), 0
    for number, place in enumerate(random.choice(len(original), 400, replace=False)):
        path, folder = tmp_path / "s.zip", tmp_path / f"{number}"
        path.write_bytes(original[:place] + bytes([original[place] ^ (1 << random.integers(8))]) + original[place + 1:])
        try:
            whole(path, folder)
        except InputError as error:
            assert str(error).isprintable() and not folder.exists()
            told += 1
            continue
        assert {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()} == content
    assert 200 < told < 400


@pytest.mark.parametrize("name", ["weights/a-b_c.1.npz", "Ünïcode/наме.txt", "a b.txt", ".hidden", "a...b", "x" * 200])
def test_plain_names_are_unpacked(name, tmp_path):
    path = write_zip(tmp_path / "s.zip", MAIN, Member("folder/", mode=0o040755), Member(name, b"content"), Member("empty"))
    assert archive.names(path) == ["main.py", "folder/", name, "empty"]
    whole(path, tmp_path / "run")
    assert (tmp_path / "run" / name).read_bytes() == b"content" and (tmp_path / "run" / "folder").is_dir() and (tmp_path / "run" / "empty").stat().st_size == 0


def test_what_shrinks_well_is_unpacked_below_a_quarter_of_a_gigabyte(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("main.py", "")
        file.writestr("zeros", bytes(50 << 20))
    whole(tmp_path / "s.zip", tmp_path / "run")
    assert (tmp_path / "run" / "zeros").stat().st_size == 50 << 20
