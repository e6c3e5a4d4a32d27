"""Leakage against plain double loops, on planted copies of photographs, and on the beluga labels where ../shared has them."""

import datetime
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

import toy
from eval import fingerprints, folds, leakage
from eval.files import InputError
from eval.labels import read_labels
from test_folds import PROTOCOLS, ROOT, SHARED, change, naive_encounters, pairs_asked, read

BELUGA = SHARED / "beluga"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    """Folds of a toy label table of which every seventh photograph has neither timestamp nor encounter_id."""
    folder = tmp_path_factory.mktemp("folds")
    data = toy.competition(folder / "data", n_whales=14, images=False)
    table = read(data / "metadata.csv")
    gap = np.arange(len(table)) % 7 == 0
    change(data, timestamp=table["timestamp"].mask(gap, ""), encounter_id=table["encounter_id"].mask(gap, ""))
    return {"data": data} | {protocol: folds.make(data, folder / protocol, protocol, n_folds=3) for protocol in PROTOCOLS}


def naive_shares(fold: Path, data: Path) -> dict:
    """By scenario, side and name: the share of queries that meet a photograph too near, by comparing each with each."""
    table, labels = read(data / "metadata.csv"), read(fold / "labels.csv")
    by_id = {row.image_id: row for row in table.itertuples()}
    encounter = naive_encounters(table[table["timestamp"] != ""])
    original = dict(labels[["image_id", "original_image_id"]].itertuples(index=False))
    train = [row.image_id for row in read(fold / "train/metadata.csv").itertuples() if row.whale_id] if (fold / "train").exists() else []
    asked = ([(query_id.split("-")[0], original[query], [original[image] for image in database]) for query_id, query, database in pairs_asked(fold)]
             if (fold / "test/query_scenarios.csv").exists() else [("", image, []) for image in original.values()])

    def meets(query: str, shown: list) -> dict:
        if not by_id[query].timestamp or not shown:
            return dict.fromkeys(leakage.HEADS, None)
        others = [by_id[image] for image in shown if image != query and by_id[image].whale_id == by_id[query].whale_id and by_id[image].timestamp]
        gaps = [abs(datetime.datetime.fromisoformat(by_id[query].timestamp) - datetime.datetime.fromisoformat(other.timestamp)) for other in others]
        return {"within_60_s": any(gap.total_seconds() <= 60 for gap in gaps), "within_1_h": any(gap.total_seconds() <= 3600 for gap in gaps),
                "same_encounter": any(encounter[other.image_id] == encounter[query] for other in others)}

    found = {}
    for scenario_id, query, database in asked:
        for side, shown in [("database", database), ("training", train)]:
            for name, value in meets(query, shown).items():
                for where in {scenario_id or "all", "all"}:
                    found.setdefault((where, side, name), []).append(value)
    known = {key: [value for value in values if value is not None] for key, values in found.items()}
    return {key: sum(values) / len(values) if values else None for key, values in known.items()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_shares_are_those_of_a_plain_double_loop(made, protocol):
    fold = made[protocol] / "0"
    told = leakage.measure(fold, {})
    expected = naive_shares(fold, made["data"])
    rows = {**told["scenarios"], "all": told["all"]}
    assert {where for where, *_ in expected} == set(rows) and not told["images_compared"]
    for (where, side, name), share in expected.items():
        assert rows[where][side][name] == (share if share is None else pytest.approx(share, abs=1e-12)), (where, side, name)
    undated = sum(1 for _, query, _ in pairs_asked(fold) if not stamp(fold)[query]) if told["scenarios"] else (read(fold / "labels.csv")["timestamp"] == "").sum()
    assert told["all"]["queries_without_timestamp"] == told["all"]["queries_without_encounter"] == undated > 0


def stamp(fold: Path) -> dict:
    return dict(read(fold / "labels.csv")[["image_id", "timestamp"]].itertuples(index=False))


def test_near_is_at_most_the_span_of_the_same_group_and_never_the_row_itself():
    moment, group = np.array([0, 60, 121, 0, 5, 5, 7]), np.array([0, 0, 0, 1, 2, 2, -1])
    rows = np.arange(7)
    assert leakage.near(rows, rows, group, moment, 60).tolist() == [True, True, False, False, True, True, False]
    assert leakage.near(rows, np.array([0, 0, 3, 6]), group, moment, 60).tolist() == [False, True, False, False, False, False, False]
    random = np.random.default_rng(0)
    for _ in range(20):
        group, moment, span = random.integers(-1, 4, 40), random.integers(-500, 500, 40), int(random.integers(0, 60))
        asked, shown = random.integers(0, 40, 15), random.integers(0, 40, 15)
        plain = [group[a] >= 0 and any(a != b and group[a] == group[b] and abs(moment[a] - moment[b]) <= span for b in shown) for a in asked]
        assert leakage.near(asked, shown, group, moment, span).tolist() == plain


@pytest.fixture(scope="module")
def beluga() -> Path:
    if not (BELUGA / "metadata.csv").is_file():
        pytest.skip("../shared/data/beluga is absent")
    return BELUGA


def test_plain_splits_of_the_beluga_labels_leak_as_published(beluga):
    labels = read_labels(beluga)
    time = pd.to_datetime(labels.metadata["timestamp"]).astype("datetime64[s]").astype("int64").to_numpy()
    splits = [np.split(np.random.default_rng(seed).permutation(5902), [1180]) for seed in range(20)]
    # The published ranges. The mean of seeds, for one split strays by .012 and .009 (one standard deviation of 300 seeds).
    assert 0.80 <= np.mean([leakage.near(test, train, labels.whale, time, 60).mean() for test, train in splits]) <= 0.85
    assert 0.91 <= np.mean([leakage.near(test, train, labels.whale, time, 3600).mean() for test, train in splits]) <= 0.93
    test, train = splits[0]
    taken = {}
    for row in train:
        taken.setdefault(labels.whale[row], []).append(time[row])
    plain = [any(abs(other - time[row]) <= 60 for other in taken.get(labels.whale[row], [])) for row in test]
    assert leakage.near(test, train, labels.whale, time, 60).tolist() == plain


def test_folds_of_whales_and_encounters_leak_nothing_and_stratified_ones_nearly_all(beluga, tmp_path):
    told = {protocol: leakage.measure(folds.make(beluga, tmp_path / protocol, protocol) / "0", {}) for protocol in ["whale", "encounter", "stratified", "suite"]}
    for protocol in ("whale", "encounter"):
        assert {value for side in leakage.SIDES for value in told[protocol]["all"][side].values()} == {0.0}
    assert told["stratified"]["all"]["database"] == told["stratified"]["all"]["training"]
    assert told["stratified"]["all"]["database"]["within_60_s"] > 0.8 and told["stratified"]["all"]["database"]["within_1_h"] > 0.9
    assert set(told["suite"]["all"]["training"].values()) == {None}
    across_years = [told["suite"]["scenarios"][f"scenario{number:02d}"]["database"] for number in (6, 7, 8)]
    assert all(set(shares.values()) == {0.0} for shares in across_years)


def photograph(random: np.random.Generator) -> Image.Image:
    """A smooth texture unlike any other."""
    return Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)


VARIANTS = {
    "cut.jpg": lambda image: image.crop((4, 3, 318, 238)),
    "darker.png": lambda image: image.point(lambda value: int(value * 0.8)),
    "half.jpg": lambda image: image.resize((160, 120)),
    "mirror.jpg": ImageOps.mirror,
    "turned.jpg": lambda image: image.rotate(-90, expand=True),  # its EXIF will say how to turn it back
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory) -> Path:
    """A data directory: four photographs of each of ten whales, and of the first photograph two byte-identical copies and VARIANTS."""
    data, random = tmp_path_factory.mktemp("copies") / "data", np.random.default_rng(0)
    (data / "images").mkdir(parents=True)
    for number in range(40):
        photograph(random).save(data / f"images/{number:02d}.jpg", quality=90)
    first = data / "images/00.jpg"
    (data / "images/copy1.jpg").write_bytes(first.read_bytes())
    (data / "images/copy2.jpg").write_bytes(first.read_bytes())
    for name, change_image in VARIANTS.items():
        exif = Image.Exif()
        exif[0x0112] = 8 if name == "turned.jpg" else 1
        change_image(Image.open(first)).save(data / "images" / name, exif=exif)
    names = sorted(path.name for path in (data / "images").iterdir())
    whale = [f"whale{int(name[:2]) // 4}" if name[:2].isdigit() else "whale0" for name in names]
    table = pd.DataFrame({"image_id": [name.split(".")[0] for name in names], "path": [f"images/{name}" for name in names], "whale_id": whale})
    table.loc[table["image_id"] == "copy2", "whale_id"] = "whale9"  # one photograph under two names
    table.to_csv(data / "metadata.csv", index=False)
    return data


LIKE = {"00", "copy1", "copy2", *(name.split(".")[0] for name in VARIANTS)}


def test_like_photographs_across_the_split_are_found_and_nothing_else(copies, tmp_path):
    for k in range(2):
        fold = folds.make(copies, tmp_path / f"folds{k}", "stratified", n_folds=2, seed=k) / str(k)
        told, train = leakage.measure(fold, {}), set(read(fold / "train/metadata.csv")["image_id"])
        found = {(pair["original_image_id"], pair["other_original_image_id"]): pair for pair in told["identical"] + told["near_identical"]}
        across = {(held_out, trained) for held_out in LIKE - train for trained in LIKE & train}
        assert told["images_compared"] and {pair for pair in across if {"00", "copy1", "copy2"} & set(pair)} <= set(found) <= across
        for (held_out, trained), pair in found.items():
            assert pair["in_training"] and pair["in_database"] and pair["image_id"] and pair["other_image_id"]
            assert pair["mirrored"] == ("mirror" in (held_out, trained)) and pair["distance"] <= fingerprints.NEAR
            assert pair["whales"] == ("different" if "copy2" in (held_out, trained) else "same")
        identical = {(pair["original_image_id"], pair["other_original_image_id"]) for pair in told["identical"]}
        assert identical == {pair for pair in across if set(pair) <= {"00", "copy1", "copy2"}}
        assert [pair["whales"] for pair in told["near_identical"]] == sorted(pair["whales"] for pair in told["near_identical"])


def test_a_query_is_compared_with_its_own_database_only(copies, tmp_path):
    fold = folds.make(copies, tmp_path / "folds", "whale", n_folds=2) / "0"
    told, labels = leakage.measure(fold, {}), read(fold / "labels.csv")
    original = dict(labels[["image_id", "original_image_id"]].itertuples(index=False))
    shown = {frozenset((original[query], original[image])) for _, query, database in pairs_asked(fold) for image in database if image != query}
    train = set(read(fold / "train/metadata.csv")["image_id"])
    pairs = told["identical"] + told["near_identical"]
    assert pairs
    for pair in pairs:
        both = {pair["original_image_id"], pair["other_original_image_id"]}
        assert pair["in_database"] == (both in shown) and pair["in_training"] == (len(both & train) == 1)
    assert {frozenset(two) for two in itertools.combinations(["00", "copy1", "copy2"], 2) if set(two) in shown or len({*two} & train) == 1} == {
        frozenset((pair["original_image_id"], pair["other_original_image_id"])) for pair in told["identical"]}


def test_pairs_are_those_of_a_plain_loop_over_bits_whatever_the_block(monkeypatch):
    random = np.random.default_rng(0)
    plain, mirror = random.integers(0, 2**63, (2, 30, 4)).astype(np.uint64)
    plain[7], plain[8], mirror[3] = plain[2], plain[2] ^ np.uint64(0b1011), plain[20] ^ np.uint64(1)
    prints = fingerprints.Fingerprints(np.where(np.arange(30) == 7, 2, np.arange(30)), plain, mirror, np.zeros(30, bool))

    def bits(one, other):
        return sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(one, other))

    expected = []
    for i, j in itertools.combinations(range(30), 2):
        distance, of_mirror = bits(plain[i], plain[j]), bits(mirror[i], plain[j])
        if min(distance, of_mirror) <= fingerprints.NEAR:
            expected.append((i, j, min(distance, of_mirror), of_mirror < distance, {i, j} == {2, 7}))
    assert len(expected) == 4
    for block in (1, 100, 2**22):
        monkeypatch.setattr(fingerprints, "BLOCK", block)
        assert list(fingerprints.alike(prints).itertuples(index=False, name=None)) == expected


def test_real_photographs_are_near_their_crops_copies_and_mirror_images_and_far_from_each_other(tmp_path):
    if not (SHARED / "nyala/metadata.csv").is_file():
        pytest.skip("../shared/data/nyala is absent")
    table = read(SHARED / "nyala/metadata.csv").drop_duplicates("encounter_id")[:60]
    files = [str(SHARED / "nyala" / path) for path in table["path"]]
    for number, file in enumerate(list(files)):
        image = Image.open(file)
        w, h = image.size
        changed = [image.crop((0.02 * w, 0.01 * h, 0.99 * w, 0.98 * h)), image.resize((w // 2, h // 2)), ImageOps.mirror(image)][number % 3]
        changed.save(tmp_path / f"{number}.jpg", quality=60)
        files.append(str(tmp_path / f"{number}.jpg"))
    pairs = fingerprints.alike(fingerprints.fingerprints(files, np.full((120, 4), np.nan), {}))
    assert list(pairs["first"]) == list(range(60)) and list(pairs["second"]) == list(range(60, 120))
    assert list(np.flatnonzero(pairs["mirrored"])) == list(range(2, 60, 3)) and not pairs["identical"].any()


def test_boxes_in_one_photograph_are_pictures_of_their_own(tmp_path):
    random = np.random.default_rng(0)
    sheet = Image.new("RGB", (960, 240))
    for number in range(3):
        sheet.paste(photograph(random), (320 * number, 0))
    sheet.save(tmp_path / "sheet.png")
    sheet.crop((320, 0, 640, 240)).save(tmp_path / "one.png")
    boxes = np.array([[0, 0, 320, 240], [320, 0, 640, 240], [320, 0, 640, 240], [np.nan] * 4])
    pairs = fingerprints.alike(fingerprints.fingerprints([str(tmp_path / "sheet.png")] * 3 + [str(tmp_path / "one.png")], boxes, {}))
    assert list(zip(pairs["first"], pairs["second"], pairs["identical"])) == [(1, 2, True), (1, 3, False), (2, 3, False)]


def test_unreadable_files_are_told_and_compared_byte_by_byte(tmp_path):
    buffer = io.BytesIO()
    photograph(np.random.default_rng(1)).save(buffer, "JPEG")
    contents = [buffer.getvalue(), buffer.getvalue()[:900], b"not an image", b"not an image", b""]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.jpg").write_bytes(content)
    prints = fingerprints.fingerprints([str(tmp_path / f"{number}.jpg") for number in range(5)], np.full((5, 4), np.nan), {})
    assert prints.unreadable.tolist() == [False, True, True, True, True]
    assert list(fingerprints.alike(prints)[["first", "second", "identical"]].itertuples(index=False, name=None)) == [(2, 3, True)]


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "eval.leakage", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_the_command_tells_one_fold_or_all_and_writes_the_same(copies, tmp_path):
    made = folds.make(copies, tmp_path / "folds", "stratified", n_folds=2)
    one = command(made / "0", "--json", tmp_path / "one.json")
    both = command(made, "--json", tmp_path / "both.json")
    assert one.returncode == both.returncode == 0, one.stderr + both.stderr
    assert both.stdout.startswith(one.stdout) and "under two names" in one.stdout and "no query has a timestamp" in one.stdout
    told = json.loads((tmp_path / "both.json").read_text())["folds"]
    assert list(told) == ["0", "1"] and told["0"] == json.loads((tmp_path / "one.json").read_text())
    again = command(made, "--json", tmp_path / "again.json")
    assert again.stdout == both.stdout and (tmp_path / "again.json").read_bytes() == (tmp_path / "both.json").read_bytes()


def test_a_fold_without_times_and_encounters_says_that_nothing_is_told(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=8, images=False)
    table = pd.read_csv(data / "metadata.csv", dtype=str).drop(columns=["timestamp", "date"])
    for columns, first in ((table, "no query has a timestamp, so only encounters"), (table.drop(columns="encounter_id"), "no query has a timestamp or")):
        columns.to_csv(data / "metadata.csv", index=False)
        fold = folds.make(data, tmp_path / f"folds{columns.shape[1]}", "encounter", n_folds=2) / "0"
        told = [note for note in leakage.notes(leakage.measure(fold, {})) if "timestamp" in note]
        assert len(told) == 1 and told[0].startswith(first)


def broken(text: str, file: str) -> str:
    return {"labels.csv without a column": text.replace("original_image_id", "original"),
            "a time that is none": text.replace("2018-", "2018x", 1),
            "an image that is not in test/": text.replace("test0000", "test9999", 1),
            "a path outside": text.replace("queries/scenario01", "../../scenario01")}[file]


@pytest.mark.parametrize("what, file, message", [
    ("labels.csv without a column", "labels.csv", "column 'original_image_id' is missing"),
    ("a time that is none", "labels.csv", "timestamp is not a time"),
    ("an image that is not in test/", "test/metadata.csv", "is not in test/metadata.csv"),
    ("a path outside", "test/query_scenarios.csv", "leads out of"),
    ("an image that is not in test/", "labels.csv", "is not in test/metadata.csv")])
def test_a_broken_fold_is_one_line(tmp_path, what, file, message):
    fold = folds.make(toy.competition(tmp_path / "data", n_whales=8, images=False), tmp_path / "folds", "whale", n_folds=2) / "0"
    (fold / file).write_text(broken((fold / file).read_text(), what))
    with pytest.raises(InputError, match=message):
        leakage.measure(fold, {})


def test_what_is_no_fold_is_refused(tmp_path):
    told = command(tmp_path, "--json", tmp_path / "leakage.json")
    assert told.returncode == 2 and told.stderr.count("\n") == 1 and "no fold here" in told.stderr and not told.stdout
    assert not (tmp_path / "leakage.json").exists()
