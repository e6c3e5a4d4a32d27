"""Folds against properties and plain loops: on toy competitions, and on real label tables where ../shared has them."""

import collections
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from eval import folds, protocols
from eval.files import InputError
from eval.labels import read_labels

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
PROTOCOLS = ["stratified", "encounter", "whale", "time", "identify", "suite"]
AGAINST_CATALOGUE = ["stratified", "encounter", "time"]


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def parts(made: Path) -> list[Path]:
    return sorted(path for path in made.iterdir() if path.is_dir())


def pairs_asked(fold: Path):
    """(query_id, query image, database images) of every query of a fold, by plain reading."""
    for scenario in read(fold / "test/query_scenarios.csv").itertuples():
        database = list(read(fold / "test" / scenario.database_path)["database_image_id"])
        for query in read(fold / "test" / scenario.queries_path).itertuples():
            assert query.query_id == f"{scenario.scenario_id}-{query.query_image_id}"
            yield query.query_id, query.query_image_id, database


def naive_truth(fold: Path) -> set:
    whale = dict(read(fold / "labels.csv")[["image_id", "whale_id"]].itertuples(index=False))
    return {(query_id, image) for query_id, query, database in pairs_asked(fold) for image in database
            if image != query and whale[image] and whale[image] == whale[query]}


def naive_encounters(table: pd.DataFrame) -> dict:
    """The encounter of each image by a plain walk through every whale's photographs in order of time."""
    found = {}
    for whale, photographs in table.groupby("whale_id"):
        last, number = None, 0
        for row in photographs.sort_values("timestamp").itertuples():
            time = datetime.datetime.fromisoformat(row.timestamp)
            number += last is not None and (time - last).total_seconds() >= 3600
            found[row.image_id] = (whale, number)
            last = time
    return found


def change(data: Path, **columns) -> None:
    """Rewrites metadata.csv with some columns replaced; None drops one."""
    table = read(data / "metadata.csv")
    table = table.drop(columns=[name for name, values in columns.items() if values is None])
    table.assign(**{name: values for name, values in columns.items() if values is not None}).to_csv(
        data / "metadata.csv", index=False)


def without_some_whales(data: Path) -> Path:
    whales = read(data / "metadata.csv")["whale_id"].to_numpy()
    whales[::7] = ""
    change(data, whale_id=whales)
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=12)


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {protocol: folds.make(data, folder / protocol, protocol, n_folds=3) for protocol in PROTOCOLS}


@pytest.fixture(scope="module")
def beluga(tmp_path_factory) -> dict[str, Path]:
    if not (SHARED / "beluga/metadata.csv").is_file():
        pytest.skip("../shared/data/beluga is absent")
    folder = tmp_path_factory.mktemp("beluga")
    return {protocol: folds.make(SHARED / "beluga", folder / protocol, protocol) for protocol in PROTOCOLS}


def test_no_test_whale_is_in_training(made):
    for fold in parts(made["whale"]):
        assert not set(read(fold / "train/metadata.csv")["whale_id"]) & set(read(fold / "labels.csv")["whale_id"])


@pytest.mark.parametrize("protocol", ["whale", "encounter"])
def test_no_query_meets_its_own_encounter(made, data, protocol):
    encounter = naive_encounters(read(data / "metadata.csv"))
    for fold in parts(made[protocol]):
        original = dict(read(fold / "labels.csv")[["image_id", "original_image_id"]].itertuples(index=False))
        for _, query, database in pairs_asked(fold):
            assert encounter[original[query]] not in {encounter[original[image]] for image in database}


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "identify"])
def test_the_truth_is_that_of_a_plain_loop_and_every_query_has_a_match(made, protocol):
    for fold in parts(made[protocol]):
        truth = read(fold / "truth.csv")
        assert set(truth.itertuples(index=False, name=None)) == naive_truth(fold) and not truth.duplicated().any()
        assert {query_id for query_id, *_ in pairs_asked(fold)} == set(truth["query_id"])


def test_each_whale_is_tested_once_and_each_of_its_images_asked_once_or_counted(made, data):
    table, manifest = read(data / "metadata.csv"), json.loads((made["whale"] / "manifest.json").read_text())
    tested = pd.concat([read(fold / "labels.csv") for fold in parts(made["whale"])])
    assert sorted(tested["original_image_id"]) == sorted(table["image_id"])
    assert sum(len(set(read(fold / "labels.csv")["whale_id"])) for fold in parts(made["whale"])) == 12
    n_encounters = collections.Counter(whale for whale, _ in set(naive_encounters(table).values()))
    askable = sum(n_encounters[whale] > 1 for whale in table["whale_id"])
    assert sum(fold["queries"] for fold in manifest["folds"].values()) == askable
    unmade = sum(fold["queries_not_made_without_a_true_match"] for fold in manifest["folds"].values())
    assert unmade == len(table) - askable


def test_encounters_are_dealt_into_five_parts_and_a_database_is_all_but_one_of_them(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=4, images_per_whale=[20], images=False)
    fold = folds.make(data, tmp_path / "folds", "whale", n_folds=2) / "0"
    images = set(read(fold / "test/metadata.csv")["image_id"])
    asked = collections.defaultdict(set)
    for query_id, query, database in pairs_asked(fold):
        asked[query_id.split("-")[0]].add(query)
        assert query not in database
    assert sorted(asked) == [f"scenario{k:02d}" for k in range(1, 6)]
    for scenario_id, queries in asked.items():
        assert set(read(fold / f"test/databases/{scenario_id}.csv")["database_image_id"]) == images - queries


@pytest.mark.parametrize("protocol", AGAINST_CATALOGUE)
def test_the_database_is_the_training_part_and_no_query_is_in_it(made, protocol):
    for fold in parts(made[protocol]):
        original = dict(read(fold / "labels.csv")[["image_id", "original_image_id"]].itertuples(index=False))
        train = set(read(fold / "train/metadata.csv")["image_id"])
        for _, query, database in pairs_asked(fold):
            assert {original[image] for image in database} == train and original[query] not in train


@pytest.mark.parametrize("protocol", ["stratified", "encounter"])
def test_over_all_folds_every_image_is_held_out_once(made, data, protocol):
    images = set(read(data / "metadata.csv")["image_id"])
    held_out = [images - set(read(fold / "train/metadata.csv")["image_id"]) for fold in parts(made[protocol])]
    assert sorted(image for part in held_out for image in part) == sorted(images)


def test_time_trains_before_the_date_and_asks_from_then_on(data, tmp_path, made):
    fold = folds.make(data, tmp_path / "folds", "time", date="2018-08-10") / "0"
    shown = read(fold / "test/metadata.csv").set_index("image_id")["date"]
    assert read(fold / "train/metadata.csv")["date"].max() < "2018-08-10"
    assert min(shown[query] for _, query, _ in pairs_asked(fold)) >= "2018-08-10"
    n_asked = json.loads((made["time"] / "manifest.json").read_text())["folds"]["0"]["test_images"]
    assert 0.2 < n_asked / len(read(data / "metadata.csv")) < 0.5  # a third, as near as whole days allow


def suite_rows(kind: str, table: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Which rows of metadata a kind of scenario may ask and which may answer, by its words."""
    views, span, *_ = [*kind.split(", "), ""]
    masks = []
    for side, view in enumerate(views.split(" to ")):
        year = span.removeprefix("within ").split(" to ")[side if " to " in span else 0]
        of_view = (table["viewpoint"] == "top") == (view == "top")
        masks.append(of_view & ((table["date"].str[:4] == year) | (year in ("all years", ""))))
    return tuple(masks)


def test_a_small_suite_asks_every_photograph_that_has_a_match_in_each_kind_of_scenario(made, data):
    told = json.loads((made["suite"] / "manifest.json").read_text())["folds"]["0"]
    assert not (made["suite"] / "0/train").exists() and told["train_images"] == 0
    table, labels, unmade = read(data / "metadata.csv"), read(made["suite"] / "0/labels.csv"), 0
    original = labels.set_index("image_id")["original_image_id"]
    assert sorted(original) == sorted(table["image_id"])
    for scenario_id, scenario in told["scenarios"].items():
        queries = set(original[read(made["suite"] / f"0/test/queries/{scenario_id}.csv")["query_image_id"]])
        database = set(original[read(made["suite"] / f"0/test/databases/{scenario_id}.csv")["database_image_id"]])
        asked, answering = (table[mask] for mask in suite_rows(scenario["kind"], table))
        able = {row.image_id for row in asked.itertuples()
                if any(row.whale_id == other.whale_id and row.image_id != other.image_id for other in answering.itertuples())}
        assert scenario["queries_in_database"] == len(queries & database)
        if scenario["kind"].endswith("queries outside the database"):
            assert queries < able and database == set(answering["image_id"]) - queries
            whales = table.set_index("image_id")["whale_id"]
            assert all((whales[list(queries)] == whale).sum() == (answering["whale_id"] == whale).sum() // 2 for whale in set(whales))
        else:
            assert queries == able and database == set(answering["image_id"])
            assert len(queries & database) in (0, len(queries))
            unmade += len(asked) - len(able)
    assert told["queries_not_made_without_a_true_match"] == unmade and told["scenarios_without_queries"] == []
    assert [scenario["kind"].split(", ", 1)[-1] for scenario in told["scenarios"].values()] == [
        "all years", "all years, queries outside the database", "within 2017", "within 2018", "within 2019",
        "2018 to 2017", "2019 to 2017", "2019 to 2018", "top to lateral", "lateral to top"]


def test_kinds_beyond_ten_ask_at_most_the_smallest_number(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=30, images_per_whale=[30], images=False)
    change(data, date=[f"{2015 + number % 4}-08-01" for number in range(900)])
    fold = json.loads((folds.make(data, tmp_path / "folds", "suite") / "manifest.json").read_text())["folds"]["0"]
    asked = [scenario["queries"] for scenario in fold["scenarios"].values()]
    assert len(asked) == 1 + 1 + 4 + 6 + 2 and sorted(asked)[:5] == [102, 102, 102, 102, 102]
    assert max(asked) == asked[0] == (read(data / "metadata.csv")["viewpoint"] == "top").sum()


def test_identify_asks_one_image_of_each_known_whale_and_a_share_of_unknown_ones(made, data):
    fold, table = made["identify"] / "0", read(data / "metadata.csv")
    train, labels, truth = read(fold / "train/metadata.csv"), read(fold / "labels.csv"), read(fold / "truth.csv")
    assert list(truth.columns) == ["Image", "Id"]
    assert set(truth["Image"]) == {os.path.basename(path) for path in read(fold / "test/metadata.csv")["path"]}
    unknown = train.loc[train["whale_id"] == ""]
    whale = table.set_index("image_id")["whale_id"]
    in_training, asked_unknown = set(whale[unknown["image_id"]]), set(labels["whale_id"][truth["Id"] == "new_whale"])
    assert len(in_training) == len(asked_unknown) == 2 and (unknown["encounter_id"] == "").all()
    sizes = whale.value_counts()
    known = [name for name in sizes.index if name not in in_training | asked_unknown]
    assert sorted(truth["Id"][truth["Id"] != "new_whale"]) == sorted(name for name in known if sizes[name] > 1)
    assert (truth["Id"] == "new_whale").sum() == sum(sizes[name] for name in asked_unknown)
    assert not asked_unknown & set(train["whale_id"]) and set(known) <= set(train["whale_id"])
    assert not (fold / "test/query_scenarios.csv").exists()


def test_identify_asks_half_of_the_given_unknown_images(tmp_path):
    data = without_some_whales(toy.competition(tmp_path / "data", n_whales=12, images=False))
    n_unknown = int((read(data / "metadata.csv")["whale_id"] == "").sum())
    fold = folds.make(data, tmp_path / "folds", "identify") / "0"
    assert (read(fold / "truth.csv")["Id"] == "new_whale").sum() == n_unknown // 2
    assert (read(fold / "train/metadata.csv")["whale_id"] == "").sum() == n_unknown - n_unknown // 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_the_test_directory_tells_the_whale(made, data, protocol):
    for fold in parts(made[protocol]):
        test, labels = read(fold / "test/metadata.csv"), read(fold / "labels.csv")
        assert set(test.columns) == {"image_id", "path", "height", "width", "viewpoint", "date"}
        files = sorted((fold / "test/images").iterdir())
        stats = [path.lstat() for path in files]
        assert {(stat.st_mtime_ns, stat.st_mode, stat.st_nlink) for stat in stats} == {(946684800 * 10**9, 0o100644, 1)}
        assert [path.name for path in files] == [os.path.basename(path) for path in test["path"]]
        assert list(test["image_id"]) == [f"test{number:04d}" for number in range(len(test))]
        shared = {path.stat().st_ino for path in (data / "images").iterdir()}
        assert not shared & {stat.st_ino for stat in stats}
        text = "".join(path.read_text() for path in (fold / "test").rglob("*.csv"))
        assert "train" not in text and "whale" not in text
        original = dict(labels[["image_id", "original_image_id"]].itertuples(index=False))
        for row in test.itertuples():
            source = data / f"images/{original[row.image_id]}.jpg"
            assert (fold / "test" / row.path).read_bytes() == source.read_bytes()


def test_the_order_of_test_images_follows_neither_whales_nor_the_original_order(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=100, images_per_whale=[10], images=False)
    change(data, **{name: read(data / "metadata.csv").sort_values("whale_id")[name].to_numpy() for name in toy.COLUMNS})
    labels = read(folds.make(data, tmp_path / "folds", "whale") / "0/labels.csv")
    neighbours = (labels["whale_id"] == labels["whale_id"].shift()).mean()
    place = labels["original_image_id"].rank().corr(pd.Series(np.arange(len(labels), dtype=float)))
    assert neighbours < 0.2 and abs(place) < 0.3


def test_training_images_are_links_and_the_training_table_keeps_all_columns(made, data):
    table = read(data / "metadata.csv").set_index("image_id")
    for fold in parts(made["whale"]):
        train = read(fold / "train/metadata.csv").set_index("image_id")
        pd.testing.assert_frame_equal(train, table.loc[train.index])
        for path in train["path"]:
            assert (fold / "train" / path).samefile(data / path)


def test_images_are_copied_where_they_cannot_be_linked(data, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    fold = folds.make(data, tmp_path / "folds", "time") / "0"
    for path in read(fold / "train/metadata.csv")["path"]:
        assert (fold / "train" / path).read_bytes() == (data / path).read_bytes()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made, data, tmp_path, protocol):
    def contents(folder: Path) -> dict:
        return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}

    again = contents(folds.make(data, tmp_path / "again", protocol, n_folds=3))
    other = contents(folds.make(data, tmp_path / "other", protocol, n_folds=3, seed=1))
    assert contents(made[protocol]) == again
    assert other[Path("0/labels.csv")] != again[Path("0/labels.csv")]


def test_an_inner_fold_can_be_made_from_a_training_part(made, tmp_path):
    for protocol in ("whale", "identify"):
        train = made[protocol] / "0/train"
        inner = folds.make(train, tmp_path / protocol, protocol, n_folds=2) / "0"
        images = set(read(train / "metadata.csv")["image_id"])
        inner_train, held_out = read(inner / "train/metadata.csv"), read(inner / "labels.csv")
        assert set(inner_train["image_id"]) | set(held_out["original_image_id"]) == images
        assert len(read(inner / "truth.csv")) > 0


@pytest.mark.parametrize("protocol", ["time", "suite"])
def test_images_without_a_whale_are_never_asked(tmp_path, protocol):
    data = without_some_whales(toy.competition(tmp_path / "data", n_whales=20, images=False))
    fold = folds.make(data, tmp_path / "folds", protocol) / "0"
    whale = read(fold / "labels.csv").set_index("image_id")["whale_id"]
    assert all(whale[query] for _, query, _ in pairs_asked(fold)) and (whale == "").any()
    assert set(read(fold / "truth.csv").itertuples(index=False, name=None)) == naive_truth(fold)


@pytest.mark.parametrize("protocol", ["stratified", "encounter", "whale"])
def test_images_without_a_whale_stay_in_training_and_match_nothing(tmp_path, protocol):
    data = without_some_whales(toy.competition(tmp_path / "data", n_whales=20, images=False))
    unknown = set(read(data / "metadata.csv").query("whale_id == ''")["image_id"])
    made = folds.make(data, tmp_path / "folds", protocol, n_folds=2)
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["images_without_whale_id"] == len(unknown) and "without a whale_id" in "".join(manifest["notes"])
    for fold in parts(made):
        assert unknown <= set(read(fold / "train/metadata.csv")["image_id"])
        assert set(read(fold / "truth.csv").itertuples(index=False, name=None)) == naive_truth(fold)


def test_encounters_come_from_times_then_ids_then_each_image_alone(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=20, images=False)
    table, labels = read(data / "metadata.csv"), read_labels(data)
    plain = naive_encounters(table)
    one_to_one = set(zip(labels.encounter, (plain[image] for image in table["image_id"])))
    assert len(one_to_one) == len(set(labels.encounter)) == len(set(plain.values()))
    assert table["encounter_id"].nunique() > len(set(plain.values()))  # the competition's ids split viewpoints
    change(data, timestamp=None)
    assert len(set(read_labels(data).encounter)) == table["encounter_id"].nunique()
    change(data, encounter_id=None)
    assert len(set(read_labels(data).encounter)) == len(table)


def test_an_hour_parts_encounters_and_a_second_less_does_not(tmp_path):
    times = ["2020-01-01 10:00:00", "2020-01-01 10:59:59", "2020-01-01 11:59:59", ""]
    pd.DataFrame({"image_id": list("abcd"), "path": "x.jpg", "whale_id": "w", "timestamp": times,
                  "encounter_id": ["", "", "e", "e"]}).to_csv(tmp_path / "metadata.csv", index=False)
    a, b, c, d = read_labels(tmp_path).encounter
    assert a == b != c == d  # d has no time of its own and goes where its encounter_id went


def test_boxes_in_one_photograph_are_kept_and_extra_columns_are_not(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=6)
    paths = read(data / "metadata.csv")["path"].to_numpy()
    paths[1] = paths[0]
    change(data, path=paths, x0="1", y0="2", x1="30", y1="31", photographer="someone")
    fold = folds.make(data, tmp_path / "folds", "time") / "0"
    test, train = read(fold / "test/metadata.csv"), read(fold / "train/metadata.csv")
    assert set(test.columns) >= {"x0", "y0", "x1", "y1"}
    assert "photographer" not in test and "photographer" in train
    assert len(list((fold / "test/images").iterdir())) == len(paths)


BAD_TABLES = {
    "column 'whale_id' is missing": {"whale_id": None},
    "column 'path' is missing": {"path": None},
    "lines 2 and 3 have the same image_id": {"image_id": lambda column: [column[0], *column[:1], *column[2:]]},
    "line 4: '/etc/passwd': path must lie inside": {"path": lambda column: [*column[:2], "/etc/passwd", *column[3:]]},
    "line 3: 'images/../../x.jpg': path must": {"path": lambda column: [column[0], "images/../../x.jpg", *column[2:]]},
    "line 2: 'yesterday': timestamp is not a time": {"timestamp": lambda column: ["yesterday", *column[1:]]},
    "line 5: '2019-13-01': date is not a time": {"date": lambda column: [*column[:3], "2019-13-01", *column[4:]]},
    "line 3: 'ANNA ': whale_id begins or ends with a space": {"whale_id": lambda column: [column[0], "ANNA ", *column[2:]]},
    "every whale_id is empty": {"whale_id": lambda column: [""] * len(column)},
    "image_id is empty": {"image_id": lambda column: ["", *column[1:]]},
}


@pytest.mark.parametrize("message", BAD_TABLES)
def test_a_bad_table_is_refused_with_its_line_and_leaves_nothing(tmp_path, message):
    data = toy.competition(tmp_path / "data", n_whales=4, images=False)
    table = read(data / "metadata.csv")
    change(data, **{name: new and new(list(table[name])) for name, new in BAD_TABLES[message].items()})
    with pytest.raises(InputError, match=message):
        folds.make(data, tmp_path / "folds", "whale", n_folds=2)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_bad_arguments_are_refused(data, tmp_path):
    for message, arguments in {
        "at least 2": {"protocol": "whale", "n_folds": 1},
        "only 12 whales": {"protocol": "whale", "n_folds": 13},
        "no query has a true match": {"protocol": "encounter", "n_folds": 999},
        "--seed": {"protocol": "suite", "seed": -1},
        "not a day": {"protocol": "time", "date": "soon"},
        "--date goes with": {"protocol": "whale", "date": "2019-01-01"},
        "--date 1990-01-01: photographs are needed before it": {"protocol": "time", "date": "1990-01-01"},
        "--date 2090-01-01: photographs are needed": {"protocol": "time", "date": "2090-01-01"},
    }.items():
        with pytest.raises(InputError, match=message):
            folds.make(data, tmp_path / "folds", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_no_choice_of_folds_can_mend_is_told_as_such(tmp_path):
    data = toy.competition(tmp_path / "data", images=False)
    table = read(data / "metadata.csv")
    for message, changed in {"metadata.csv: no rows": table[:0], "metadata.csv: no individual has two": table.drop_duplicates("whale_id"),
                             "only 1 whales; protocol whale needs two": table.assign(whale_id="one")}.items():
        changed.to_csv(data / "metadata.csv", index=False)
        with pytest.raises(InputError, match=message):
            folds.make(data, tmp_path / "folds", "whale")


def test_the_chance_of_a_guess_is_that_of_a_plain_loop(made):
    for protocol in ("whale", "suite", "encounter"):
        fold, right = made[protocol] / "0", []
        truth = read(fold / "truth.csv").groupby("query_id").size()
        for scenario in read(fold / "test/query_scenarios.csv").itertuples():
            database = set(read(fold / "test" / scenario.database_path)["database_image_id"])
            right += [truth[query_id] / len(database - {image}) for query_id, image in read(fold / "test" / scenario.queries_path).itertuples(index=False)]
        told = json.loads((made[protocol] / "manifest.json").read_text())["folds"]["0"]
        assert told["chance_top1"] == pytest.approx(np.mean(right))


def test_folds_that_any_guess_answers_and_photographs_left_out_are_noted(tmp_path, capsys):
    data = toy.competition(tmp_path / "data", images=False)
    table = read(data / "metadata.csv").assign(whale_id=lambda table: np.where(table.index % 2, "ANNA", "BEA"), encounter_id="", timestamp="")
    table.to_csv(data / "metadata.csv", index=False)
    folds.tell(folds.make(data, tmp_path / "folds", "whale", n_folds=2) / "manifest.json")
    told = capsys.readouterr().out
    assert "a blind guess is right for 100.0%" in told and "note: fold 0, 1: the databases hold so few individuals" in told
    table.assign(date=["", *table["date"][1:]]).to_csv(data / "metadata.csv", index=False)
    folds.tell(folds.make(data, tmp_path / "later", "time", n_folds=2) / "manifest.json")
    assert "note: 1 images without a date are left out" in capsys.readouterr().out


def test_a_missing_image_and_one_behind_a_link_are_named(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=4)
    image = data / read(data / "metadata.csv")["path"][1]
    image.rename(tmp_path / "elsewhere.jpg")
    with pytest.raises(InputError, match=f"line 3: .*{image.name} is missing"):
        folds.make(data, tmp_path / "folds", "whale", n_folds=2)
    image.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(InputError, match=f"line 3: .*{image.name}' leads out of the data directory"):
        folds.make(data, tmp_path / "folds", "whale", n_folds=2)


def test_protocols_that_lack_a_column_say_so(tmp_path):
    data = toy.competition(tmp_path / "data", images=False)
    change(data, date=None, timestamp=None)
    for protocol in ("time", "suite"):
        with pytest.raises(InputError, match="'date'"):
            folds.make(data, tmp_path / "folds", protocol)


def test_a_suite_without_a_view_from_above_is_refused(tmp_path):
    data = toy.competition(tmp_path / "data", images=False)
    change(data, viewpoint="left")
    with pytest.raises(InputError, match="needs images with viewpoint 'top'; .* which holds 'left'"):
        folds.make(data, tmp_path / "folds", "suite")


def test_the_command_tells_in_one_line_and_never_overwrites(data, tmp_path):
    command = [sys.executable, "-m", "eval.folds", data, "--output", tmp_path / "folds", "--n-folds", "2"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0 and first.stdout.startswith("fold 0: ")
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 2 and second.stderr.count("\n") == 1
    assert "already exists; remove it or choose another --output" in second.stderr


def test_every_protocol_works_on_the_beluga_labels(beluga):
    for protocol, made in beluga.items():
        manifest = json.loads((made / "manifest.json").read_text())
        assert (manifest["images"], manifest["whales"], manifest["encounters"]) == (5902, 788, 1316)
        assert "label table without images" in "".join(manifest["notes"]) and not list(made.rglob("images"))
        for name, fold in manifest["folds"].items():
            beyond = fold["left_out"].get("images of whales beyond 3,400 images")
            left_out = beyond if protocol == "suite" else sum(fold["left_out"].values())
            assert fold["train_images"] + fold["test_images"] + left_out == 5902
            assert fold["train_images"] == (len(read(made / name / "train/metadata.csv")) if protocol != "suite" else 0)
            assert fold["images_in_test_directory"] == len(read(made / name / "test/metadata.csv"))
            truth = read(made / name / "truth.csv")
            assert fold["queries"] == truth.iloc[:, 0].nunique()
            if protocol != "identify":
                assert len(truth) == sum(scenario["truth_rows"] for scenario in fold["scenarios"].values())
            if protocol in ("whale", *AGAINST_CATALOGUE):
                assert fold["queries"] + fold["queries_not_made_without_a_true_match"] == fold["test_images"]


def test_beluga_folds_of_whales_are_of_like_size(beluga):
    sizes = [len(read(fold / "labels.csv")) for fold in parts(beluga["whale"])]
    assert sum(sizes) == 5902 and max(sizes) < 1.1 * min(sizes)


def test_the_suite_of_the_beluga_labels_has_the_hidden_tests_shape_and_size(beluga):
    fold, table = beluga["suite"] / "0", read(SHARED / "beluga/metadata.csv")
    asked = collections.Counter(query_id.split("-")[0] for query_id, *_ in pairs_asked(fold))
    # ../shared/specs/whaledo.md names the numbers; which kind has which is the choice of eval.protocols.suite.
    assert list(asked.values()) == [1183, 616, 282, 309, 501, 279, 274, 306, 567, 102]
    assert sorted(asked.values()) == sorted([1183, 567, 616, 279, 306, 501, 274, 282, 102, 309]) and sum(asked.values()) == 4419
    labels = read(fold / "labels.csv")
    assert 3300 <= len(labels) == len(read(fold / "test/metadata.csv")) <= 3400
    inside = table.set_index("image_id").loc[labels["original_image_id"]]
    assert not set(inside["whale_id"]) & set(table["whale_id"][~table["image_id"].isin(labels["original_image_id"])])
    n_top, year = (inside["viewpoint"] == "top").sum(), inside["date"].str[:4][inside["viewpoint"] == "top"].value_counts()
    told = json.loads((beluga["suite"] / "manifest.json").read_text())["folds"]["0"]["scenarios"].values()
    assert [scenario["database"] for scenario in told] == [
        n_top, n_top - 616, year["2017"], year["2018"], year["2019"], year["2017"], year["2017"], year["2018"], len(inside) - n_top, n_top]
    assert [scenario["queries_in_database"] for scenario in told] == [1183, 0, 282, 309, 501, 0, 0, 0, 0, 0]


def test_every_seed_reaches_the_ten_numbers_on_the_beluga_labels(beluga):
    labels = read_labels(SHARED / "beluga")
    for seed in range(5):
        fold = protocols.suite(labels, seed)[0]
        asked = [protocols.matches(labels, scenario)["query"].nunique() for scenario in fold.scenarios]
        assert asked == [1183, 616, 282, 309, 501, 279, 274, 306, 567, 102] and 3290 < len(fold.test) <= 3400


def test_nyala_has_folds_of_whales_by_its_encounter_ids(tmp_path):
    if not (SHARED / "nyala/metadata.csv").is_file():
        pytest.skip("../shared/data/nyala is absent")
    made = folds.make(SHARED / "nyala", tmp_path / "folds", "whale", n_folds=2)
    manifest = json.loads((made / "manifest.json").read_text())
    assert manifest["images_grouped_into_encounters_by"] == {"encounter_id": 1213}
    for fold in parts(made):
        assert set(read(fold / "truth.csv").itertuples(index=False, name=None)) == naive_truth(fold)
        assert len(list((fold / "train/images").iterdir())) + len(list((fold / "test/images").iterdir())) == 1213


def test_keep_leaves_the_very_folds_alone_and_refuses_others(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=12)
    command = [sys.executable, "-m", "eval.folds", str(data), "--output", str(tmp_path / "folds"), "--n-folds", "3", "--keep"]
    first = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").rglob("*")}
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert first.returncode == again.returncode == 0 and first.stdout == again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "folds").rglob("*")}
    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, cwd=ROOT)
    assert other.returncode == 2 and "made with another seed (0, now 1)" in other.stderr and other.stderr.count("\n") == 1


def test_a_name_of_two_words_cannot_be_asked_for(tmp_path):
    data = toy.competition(tmp_path / "data", images=False)
    text = (data / "metadata.csv").read_text()
    (data / "metadata.csv").write_text(text.replace("whale003,", "Old Nina,"))
    line = next(number for number, row in enumerate(text.split("\n"), start=1) if "whale003," in row)
    with pytest.raises(InputError, match=f"line {line}: whale_id 'Old Nina' holds a space"):
        folds.make(data, tmp_path / "folds", "identify")
    folds.make(data, tmp_path / "others", "stratified", n_folds=2)
