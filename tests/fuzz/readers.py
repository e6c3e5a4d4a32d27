"""What a command wrote, read again by nobody's code but the csv and json modules: is it a valid answer?

    readers.ranking(case / "out/submission.csv", case / "test")         AssertionError where it is not
"""

import csv
import json
import math
import zlib
from pathlib import Path

SIDES = ["x0", "y0", "x1", "y1"]
TEST_COLUMNS = {"image_id", "path", "height", "width", "viewpoint", "date", *SIDES}


def table(path: Path) -> list[dict[str, str]]:
    """Rows by column; every row has as many cells as the header."""
    with open(path, encoding="utf-8", newline="") as file:
        csv.field_size_limit(1 << 30)
        header, *rows = [row for row in csv.reader(file, strict=True) if row]
    assert all(len(row) == len(header) for row in rows) and len(set(header)) == len(header), header
    return [dict(zip(header, row)) for row in rows]


def loaded(path: Path):
    """JSON without NaN and infinities."""
    def refuse(text):
        raise AssertionError(f"{path}: {text}")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def number(text: str, low: float = -math.inf, high: float = math.inf) -> float:
    assert low <= float(text) <= high, text
    return float(text)


def optional(text: str, low: float = -math.inf, high: float = math.inf) -> None:
    assert text == "" or number(text, low, high) is not None


def loose(path: Path) -> list[list[str]]:
    """The rows of an input that may be anything, read as text."""
    import gzip

    if not path.is_file():  # a pipe would be waited for
        raise OSError(path)
    content = path.read_bytes()
    content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    csv.field_size_limit(1 << 30)
    return [row for row in csv.reader(content.decode("utf-8-sig").splitlines(keepends=True)) if row]


def named_column(path: Path, name: str) -> list[str]:
    """The cells of a column of an input; "" where a row is short."""
    header, *rows = loose(path)
    at = header.index(name)
    return [row[at] if at < len(row) else "" for row in rows]


def ranking(output: Path, data: Path) -> None:
    """At most 20 rows a query, scores from 0 to 1 that fall, images of the scenario's database and never the query's own."""
    asked, databases = {}, {}
    scenarios = zip(*(named_column(data / "query_scenarios.csv", name) for name in ("queries_path", "database_path")))
    for number_, (queries, database) in enumerate(scenarios):
        try:
            pairs = list(zip(named_column(data / queries, "query_id"), named_column(data / queries, "query_image_id")))
            databases[number_] = set(named_column(data / database, "database_image_id"))
        except (OSError, EOFError, zlib.error, ValueError, UnicodeDecodeError, IndexError):
            continue  # a scenario that is passed over
        for query, image in pairs:
            asked.setdefault(query, []).append((number_, image))
    rows = {}
    for row in table(output):
        assert list(row) == ["query_id", "database_image_id", "score"]
        rows.setdefault(row["query_id"], []).append(row)
    for query, found in rows.items():
        assert query in asked and len(found) <= 20, query
        scores = [number(row["score"], 0, 1) for row in found]
        assert all(one > other for one, other in zip(scores, scores[1:])), scores
        images = [row["database_image_id"] for row in found]
        assert len(set(images)) == len(images)
        assert any(set(images) <= databases[scenario] - {image} for scenario, image in asked[query]), (query, images)


def names(output: Path, columns: list[str]) -> None:
    rows = table(output)
    assert all(list(row) == columns for row in rows)
    images = [row[columns[0]] for row in rows]
    assert len(set(images)) == len(images)
    for row in rows:
        given = row[columns[1]].split(" ")
        assert 1 <= len(given) <= 5 and len(set(given)) == len(given) and "" not in given, given


def chances(output: Path) -> None:
    for row in table(output):
        number(row["probability"], 0, 1)


def scores(path: Path) -> None:
    found = loaded(path)
    assert {"official", "strict", "strict_errors", "map5_images", "map5_individuals", "top1", "n_queries", "ci95", "scenarios"} <= set(found)
    for part in [found, *found["scenarios"].values()]:
        for key in ("strict", "map5_individuals", "top1"):
            assert part[key] is None or 0 <= part[key] <= 1, (key, part[key])
    if found["ci95"]:
        low, high = found["ci95"]
        assert 0 <= low <= high <= 1
    assert found["n_queries"] >= 1 and (found["strict"] is None or not found["strict_errors"])


def per_query(path: Path) -> None:
    for row in table(path):
        assert int(row["n_pos"]) >= 1
        optional(row["strict"], 0, 1)
        optional(row["official"], 0)


def data(folder: Path, photographs: bool | None = None, boxes: bool = True) -> list[dict[str, str]]:
    """A data directory: unique ids, paths inside that are there, upright boxes where they are not just passed on."""
    rows = table(folder / "metadata.csv")
    ids = [row["image_id"] for row in rows]
    assert len(set(ids)) == len(ids) and "" not in ids, ids
    for row in rows:
        path = Path(row["path"])
        assert not path.is_absolute() and ".." not in path.parts and row["path"] not in ("", "."), path
        file = folder / path
        assert not file.is_symlink() and (not file.exists() or file.resolve().is_relative_to(folder.resolve()))
        if photographs:
            assert file.is_file(), file
        if boxes and any(row.get(side) for side in SIDES):
            x0, y0, x1, y1 = (number(row[side], -1e300, 1e300) for side in SIDES)
            assert x0 < x1 and y0 < y1
    return rows


def folds(folder: Path, photographs: bool) -> None:
    manifest = loaded(folder / "manifest.json")
    assert manifest["folds"] and manifest["images"] >= 1
    for name in manifest["folds"]:
        fold = folder / name
        shown = data(fold / "test", photographs, boxes=False)
        assert all(set(row) <= TEST_COLUMNS for row in shown)
        if (fold / "train").exists():
            data(fold / "train", photographs, boxes=False)
        labels = {row["image_id"]: row for row in table(fold / "labels.csv")}
        assert set(labels) == {row["image_id"] for row in shown}
        truth = table(fold / "truth.csv")
        assert truth and len({tuple(row.values()) for row in truth}) == len(truth)
        if "Image" in truth[0]:
            assert {row["Image"] for row in truth} <= {row["path"].removeprefix("images/") for row in shown} and all(row["Id"] for row in truth)
            continue
        asked, databases = {}, {}
        for row in table(fold / "test/query_scenarios.csv"):
            databases[row["scenario_id"]] = {each["database_image_id"] for each in table(fold / "test" / row["database_path"])}
            asked.update((each["query_id"], (row["scenario_id"], each["query_image_id"])) for each in table(fold / "test" / row["queries_path"]))
        for row in truth:
            scenario, image = asked[row["query_id"]]
            match = row["database_image_id"]
            assert match in databases[scenario] and match != image and labels[match]["whale_id"] == labels[image]["whale_id"] != ""


def leaderboard(path: Path) -> None:
    for row in table(path):
        number(row["score"], 0, 1)
        for key in ("low", "high", "map5_individuals", "top1"):
            optional(row[key], 0, 1)


def page(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.rstrip().endswith("</html>") and text.count("<script") == text.count("</script>")
    assert not any(word in text for word in (">nan<", ">inf<", "nan%"))
