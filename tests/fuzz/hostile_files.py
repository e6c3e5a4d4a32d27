"""Hostile files, made from valid ones by small changes that hypothesis draws: tables, JSON and YAML.

    change = data.draw(hostile_files.changes("metadata.csv"))        # a small description that hypothesis can print and shrink
    found = hostile_files.changed(b"image_id,path\\na,a.jpg\\n", change)   # bytes, or a Place: what stands there instead of a file

Rows, columns and keys are picked by number, counted round, so that a change fits any file.
"""

import csv
import gzip
import io
import json
from functools import lru_cache
from typing import NamedTuple

import yaml
from hypothesis import strategies as st

FIELD = 10_000_000  # letters of a field that is long


class Place(NamedTuple):
    """Instead of a file: nothing, a folder, a pipe, or a link `to` somewhere."""

    kind: str
    to: str = ""


CELLS = [
    "", " ", "  x", "x ", ",", '"', '""', "a,b", 'a"b', "a\nb", "a\r\nb", "a\rb", "a\tb", "a\0b", "\x1b[31mred", "'", ";", "|", "#", "\\", "/", ".", "..",
    "../../outside/secret.jpg", "../../outside/secret.csv", "../../../outside/secret.csv", "../../../outside/secret.jpg", "/etc/passwd", "/", "images/../../../outside/secret.jpg", "images/link.jpg", "queries/link.csv", "folder",
    "folder/secret.jpg", "C:\\whales\\a.jpg", "\\\\server\\share", "..\\outside", "images", "images/", "images//a.jpg", "./metadata.csv", "loop", "loop/a.jpg",
    "nan", "NaN", "NA", "None", "null", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e308", "-1e308", "1e-400", "0x10", "1,5", "1.234,5", "1_000", "１２", "٣", "²",
    "0", "-0", "-1", "1", "2", "0.5", "1.0000000001", "1e15", "1e16", "99999999999999999999", "9" * 400, "+1", "1e5", "True", "false",
    "now", "today", "NaT", "2019", "2019-02-30", "2019-13-01", "0000-00-00", "0001-01-01", "-0001-01-01", "9999-12-31", "10000-01-01", "2019-06-01T10:00:00+14:00",
    "2019-06-01T10:00:00-99:99", "2019-06-01 25:00", "1e9", "20190601", "1559383200", "31/12/2019", "12:00", "2019-06-01 10:00:00.123456789123Z", "Thursday",
    "=cmd|' /C calc'!A0", "=1+1", "@SUM(1)", "-2+3", "<script>alert(1)</script>", "${1}", "{0}", "{query_id}", "%s", "%n", "é", "e\u0301", "\u202egpj.exe", "\u05d0\u05d1", "\u200b", "\ufeff",
    "\u2028", "\u0085", "\x0b", "\x0c", "\x1c", "\U0001f433", "\U0010ffff", "\\ud800", "x" * 300, "x" * 5000, "é" * 200, "InputError: nothing", "Unnamed: 0", "new_whale", "new_individual", "unknown",
    "____", "whale000", "scenario01", "[0, 0, 1, 1]", "[nan, 0, 1, 1]", "[0, 0, 1e308, 1e308]", "[]", "((((", "1 2 3 4 5", "a b", "a\u00a0b", "a b c d e f g", "top", "left", "up",
]
NAMES = ["image_id", "path", "whale_id", "encounter_id", "date", "timestamp", "viewpoint", "species", "x0", "y0", "x1", "y1", "query_id", "database_image_id", "score", "Image", "Id",
         "probability", "identity", "bbox", "height", "width", "strict", "n_pos", "models", "kind", "_merge", "index", "query", "file", "digest", "fold", "rank"]
WHOLE = {  # what becomes of a whole file
    "nothing": lambda content: b"", "a header": lambda content: content.split(b"\n")[0], "a header and its end": lambda content: content.split(b"\n")[0] + b"\n",
    "no header": lambda content: content.partition(b"\n")[2], "blank lines": lambda content: content.replace(b"\n", b"\n\n"), "no last line end": lambda content: content.rstrip(b"\n"),
    "cut": lambda content: content[: len(content) * 2 // 3], "cut in the last line": lambda content: content[:-7], "twice": lambda content: content + content,
    "a mark": lambda content: b"\xef\xbb\xbf" + content, "a mark alone": lambda content: b"\xef\xbb\xbf", "UTF-16": lambda content: content.decode("utf-8", "replace").encode("utf-16"),
    "UTF-16 without a mark": lambda content: content.decode("utf-8", "replace").encode("utf-16-le"), "latin-1": lambda content: content.replace(b"a", b"\xe9", 1), "surrogates": lambda content: content + b"\xed\xa0\x80,\n",
    "gzip": lambda content: gzip.compress(content, mtime=0), "gzip cut": lambda content: gzip.compress(content, mtime=0)[:-9], "gzip broken": lambda content: gzip.compress(content, mtime=0)[:20] + b"\xff" * 9,
    "gzip bomb": lambda content: bomb(), "CR": lambda content: content.replace(b"\n", b"\r"), "CRLF": lambda content: content.replace(b"\n", b"\r\n"), "semicolons": lambda content: content.replace(b",", b";"),
    "tabs": lambda content: content.replace(b",", b"\t"), "quotes": lambda content: content.replace(b",", b'","').replace(b"\n", b'"\n"'), "an open quote": lambda content: content.replace(b",", b',"', 1),
    "a zero byte": lambda content: content[: len(content) // 2] + b"\0" + content[len(content) // 2:], "a comma at each end": lambda content: content.replace(b"\n", b",\n"),
    "a long field": lambda content: content.rstrip(b"\n") + b"y" * FIELD + b"\n", "a long line": lambda content: content + b"," * 100_000, "random": lambda content: bytes(range(256)) * 4,
    "a web page": lambda content: b"<!DOCTYPE html><html></html>", "zip": lambda content: b"PK\x03\x04" + content, "brackets": lambda content: b"[" * 100_000, "JSON": lambda content: b'{"a": 1}',
}
PLACES = [Place("nothing"), Place("folder"), Place("pipe"), Place("link", "loop"), Place("link", "nowhere"), Place("link", "..")]
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e308", "1e-400", "9" * 400, "9" * 5000, "-1", "0", "-0", "0.5", "1.0", "1", "2", "3", "1e3", "99999999999999999999", "1000000000000", "1000000000"]
JSON = [*NUMBERS, "null", "true", "false", '""', '"x"', '"../x"', '"/etc/passwd"', '"a\\nb"', '"\\ud800"', '"\\u0000"', '"\\u202ex"', '"<script>"', '"' + "y" * 3000 + '"', "[]", "[1]", "[null]",
        '["a", "b"]', "[[[]]]", "{}", '{"a": 1}', '{"a": {"b": [1]}}', "[" * 400 + "]" * 400, "[" * 100_000 + "]" * 100_000, '{"a":' * 300 + "1" + "}" * 300, '"2019-01-01"', '"NaN"', '"1e400"', '"1"']
YAML = ["~", ".nan", ".inf", "-.inf", "1e400", "1e308", "5e-4", "1e-320", "9" * 400, "9" * 5000, "0x10", "0o7", "1_000", "-1", "0", "1", "2", "0.5", "1000000000", "1000000000000", "true", "off", "yes",
        '""', "x", '"../x"', '"/etc/passwd"', '"a\\nb"', '"\\ud800"', '"\\0"', '"\\u202e"', "2001-01-01", "2001-01-01 10:00:00", "!!binary aGk=", "!!set {a, b}", "!!python/object/apply:os.system [touch hacked]",
        "!!python/name:os.system", "!!python/object/new:os.system [touch hacked]", "!unknown x", "!!int x", "!!float x", "*nobody", "&a [*a]", "&b {b: *b}", "[]", "[1]", "[a, b]", "[[1], [2]]", "{}", "{a: 1}",
        "{1: 2}", "{[1]: 2}", "{a: 1, a: 2}", "{.nan: 1, .nan: 2}", "[" * 60 + "]" * 60, "[" * 600 + "]" * 600, "{a: " * 60 + "1" + "}" * 60, '"' + "y" * 3000 + '"', "arcface", "linear", "lgm", "whales",
        "one_cycle", "branches", "average", "classifier", "both", "none", "test_efficientnet", "test_vit"]
LAUGHS = "\n".join(["a: &a0 [x, x, x, x, x, x, x, x, x]", *(f"b{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12))])
TABLES = "\n".join(["a: &t0 {flip: 1}", *(f"b{k}: &t{k} {{{', '.join(f'k{n}: *t{k - 1}' for n in range(9))}}}" for k in range(1, 12)), "shared: {augment: *t11}", "models: {m: {augment: *t11}}"])
YAML_FILES = [LAUGHS, TABLES, "", "~", "3", "[]", "- a", "a: b: c", "\t", "%YAML 9.9\n---\n", "---\na: 1\n---\nb: 2\n", "models:\n", "models: {}", "models: [a]", "? [a]\n: b", "<<: 3", "{" * 600, "- " * 3000,
              "!!python/object/apply:os.system ['touch hacked']", "models: &m {a: *m}", "x" * 300_000, "\n".join(f"k{number}: 1" for number in range(6000)), "models: {m: {model: {backbone: b}}}\n\0", "\ufeffmodels: {}"]

number = st.integers(0, 40)
cell = st.one_of(st.sampled_from(CELLS), st.text(max_size=12), st.floats().map(str), st.integers().map(str))
in_table = st.one_of(
    st.tuples(st.just("cell"), number, number, cell), st.tuples(st.just("cell"), number, number, cell), st.tuples(st.just("column"), number, cell), st.tuples(st.just("copy"), number, number, number),
    st.tuples(st.just("drop column"), number), st.tuples(st.just("rename"), number, st.one_of(st.sampled_from(NAMES), cell)), st.tuples(st.just("double column"), number, number),
    st.tuples(st.just("add column"), st.one_of(st.sampled_from(NAMES), cell), cell), st.tuples(st.just("move column"), number), st.tuples(st.just("repeat row"), number),
    st.tuples(st.just("keep rows"), number), st.tuples(st.just("shorten row"), number), st.tuples(st.just("lengthen row"), number, cell), st.tuples(st.just("reverse rows")))
in_file = st.one_of(st.sampled_from(sorted(WHOLE)).map(lambda kind: ("file", kind)), st.sampled_from(PLACES).map(lambda place: ("place", place)),
                    st.tuples(st.just("byte"), st.integers(0, 3000), st.integers(0, 255)))
steps = st.lists(number, max_size=5)
in_json = st.one_of(st.tuples(st.just("value"), steps, st.sampled_from(JSON)), st.tuples(st.just("value"), steps, st.sampled_from(JSON)), st.tuples(st.just("drop key"), steps),
                    st.tuples(st.just("add key"), steps, st.sampled_from(["x", "", "../x", "<b>", "models", "a" * 300]), st.sampled_from(JSON)))
in_yaml = st.one_of(st.tuples(st.just("value"), steps, st.sampled_from(YAML)), st.tuples(st.just("value"), steps, st.sampled_from(YAML)), st.tuples(st.just("drop key"), steps),
                    st.tuples(st.just("add key"), steps, st.sampled_from(["x", "../x", "a/b", "..", "epoch", "models", "<<", "a" * 300]), st.sampled_from(YAML)),
                    st.tuples(st.just("rename key"), steps, st.sampled_from(["../x", "a/b", "x y", "", "..", "-", "é", "a" * 60, "CON", "a.b", "a\nb"])),
                    st.sampled_from(YAML_FILES).map(lambda text: ("text", text)))


@lru_cache
def bomb() -> bytes:
    """300 KB that unpack to 300 MB."""
    return gzip.compress(bytes(300 << 20), mtime=0)


def changes(name: str) -> st.SearchStrategy:
    """A change to a file of this name; one in eight concerns the file as a whole."""
    kind = {"csv": in_table, "json": in_json, "yaml": in_yaml}.get(name.rpartition(".")[2], in_file)
    return st.integers(0, 7).flatmap(lambda turn: kind if turn else in_file)


def changed(content: bytes, change: tuple) -> bytes | Place:
    kind, *rest = change
    if kind == "place":
        return rest[0]
    if kind == "file":
        return WHOLE[rest[0]](content)
    if kind == "text":
        return rest[0].encode()
    if kind == "byte":
        at = rest[0] % max(1, len(content))
        return content[:at] + bytes([rest[1]]) + content[at + 1:]
    if kind in ("value", "drop key", "add key", "rename key"):
        return tree_changed(content, kind, *rest)
    return table_changed(content, kind, *rest)


def table_changed(content: bytes, kind: str, *rest) -> bytes:
    rows = [row for row in csv.reader(io.StringIO(content.decode("utf-8", "replace"), newline="")) if row] or [[""]]
    header, row_of = rows[0], lambda number: rows[1 + number % (len(rows) - 1)] if len(rows) > 1 else rows[0]
    column = rest[-2] % len(header) if kind in ("cell", "column") else rest[0] % len(header) if rest and isinstance(rest[0], int) else 0
    if kind == "cell":
        put(row_of(rest[0]), column, rest[2])
    elif kind == "column":
        for row in rows[1:]:
            put(row, column, rest[1])
    elif kind == "copy":
        one, other, column = row_of(rest[0]), row_of(rest[1]), rest[2] % len(header)
        put(one, column, other[column] if column < len(other) else "")
    elif kind == "drop column":
        rows = [row[:column] + row[column + 1:] for row in rows] if len(header) > 1 else rows
    elif kind == "rename":
        header[column] = rest[1]
    elif kind == "double column":
        rows = [row + [row[column] if column < len(row) and rest[1] % 2 else "z"] for row in rows]
        rows[0][-1] = header[column]
    elif kind == "add column":
        rows = [rows[0] + [rest[0]], *(row + [rest[1]] for row in rows[1:])]
    elif kind == "move column":
        rows = [row[column:] + row[:column] for row in rows]
    elif kind == "repeat row":
        rows.append(list(row_of(rest[0])))
    elif kind == "keep rows":
        rows = rows[: 1 + rest[0] % max(1, len(rows))]
    elif kind == "shorten row":
        del row_of(rest[0])[-1:]
    elif kind == "lengthen row":
        row_of(rest[0]).append(rest[1])
    else:
        rows = [rows[0], *rows[:0:-1]]
    return written(rows)


def put(row: list, column: int, value: str) -> None:
    if column < len(row):
        row[column] = value


def written(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def tree_changed(content: bytes, kind: str, steps: list[int], *rest) -> bytes:
    """JSON, or YAML in its JSON form, with one place changed; raw text stands for what JSON cannot say."""
    if b"&" in content or len(content) > 50_000:
        return content  # hostile enough, for the fuzzer too
    try:
        tree = yaml.safe_load(content) if content[:1] not in b"{[" else json.loads(content)
    except (ValueError, yaml.YAMLError, RecursionError):
        return content
    box = [tree]
    holder, key = box, 0
    for step in steps:
        inner = holder[key]
        keys = list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else []
        if not keys:
            break
        holder, key = inner, keys[step % len(keys)]
    raw = ""
    if kind == "value":
        holder[key], raw = "@raw@", rest[0]
    elif kind == "drop key":
        del holder[key]
    elif kind == "rename key" and isinstance(holder, dict):
        holder[rest[0]] = holder.pop(key)
    elif kind == "add key" and isinstance(holder[key], dict):
        holder[key][rest[0]], raw = "@raw@", rest[1]
    return json.dumps(box[0] if box else None, default=str).replace('"@raw@"', raw).encode("utf-8", "surrogatepass")
