"""How much of a fold near-duplicates can answer: photographs of one whale, minutes apart, on both sides of the split.

Reads FOLD (FOLDS/k: labels.csv, test/, and train/ where there is one), or every fold of FOLDS. Prints a table and the images
that are the same, or nearly, on both sides; with --json writes it as one object.

    python -m eval.leakage folds/0 --json leakage.json

For each scenario: the share of queries with another image of their whale within 60 s, within an hour, and of their encounter
(`eval.labels`: photographs of a whale less than an hour apart, whatever the viewpoint), in the database and in the training
images. Times are shares of the queries that have a timestamp. On the beluga labels expect 0 for protocols `whale` and
`encounter`, and about .86 and .96 for `stratified`. A near-identical pair under two names is a label to look at.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from eval.files import InputError, read_table, run, write_json
from eval.fingerprints import alike, fingerprints
from eval.labels import column, encounters, find_images, refuse, times
from eval.rules import once, read_scenarios

SPANS = {"within_60_s": 60_000, "within_1_h": 3_600_000}  # milliseconds
SIDES = ["database", "training"]
HEADS = {"within_60_s": ("60 s", 11), "within_1_h": ("1 h", 8), "same_encounter": ("encounter", 10)}  # and width
WHALES = {"different": "under two names", "same": "of one whale", "unknown": "of unknown whales"}
BOX = ["x0", "y0", "x1", "y1"]
SHOWN = 20  # pairs on the screen; the JSON has all


class Scenario(NamedTuple):
    """Rows of a fold's images."""

    scenario_id: str
    queries: np.ndarray
    database: np.ndarray


def read_images(fold: Path) -> pd.DataFrame:
    """Each image of a fold once: image_id ("" outside of test/), original_image_id, whale_id, box, file, training (is it in
    train/?), and as numbers whale (-1: unknown), encounter, moment (ms) with dated and alone (no time, no encounter_id)."""
    test = _test(fold)
    train = _train(fold) if (fold / "train").exists() else test[:0]
    images = pd.concat([test, train], ignore_index=True).drop_duplicates("original_image_id", ignore_index=True)
    whale = pd.factorize(images["whale_id"].where(images["whale_id"] != ""))[0]
    encounter, source = encounters(whale, images["time"], images["encounter_id"])
    moment = images["time"].astype("datetime64[ms]").astype("int64")
    return images.assign(training=images["original_image_id"].isin(train["original_image_id"]), whale=whale, encounter=encounter,
                         alone=source == "image", moment=moment, dated=images["time"].notna())


def _test(fold: Path) -> pd.DataFrame:
    file = fold / "labels.csv"
    labels = once(read_table(file, ["image_id", "original_image_id", "whale_id"]), ["image_id"], file)
    shown = once(read_table(fold / "test/metadata.csv", ["image_id", "path"]), ["image_id"], fold / "test/metadata.csv")
    shown = shown.set_index("image_id").reindex(labels["image_id"]).reset_index(drop=True)
    refuse(file, labels["image_id"], shown["path"].isna(), "is not in test/metadata.csv; make the fold again")
    for name in ["path", *BOX]:
        labels[name] = column(shown, name)
    return _part(labels, file, fold / "test")


def _train(fold: Path) -> pd.DataFrame:
    file = fold / "train/metadata.csv"
    table = once(read_table(file, ["image_id", "path", "whale_id"]), ["image_id"], file)
    return _part(table.assign(original_image_id=table["image_id"], image_id=""), file, fold / "train")


def _part(table: pd.DataFrame, file: Path, data: Path) -> pd.DataFrame:
    kept = {name: column(table, name) for name in ["image_id", "original_image_id", "whale_id", "encounter_id", *BOX]}
    return pd.DataFrame(kept | {"time": times(file, table, "timestamp"), "file": find_images(data, table) or ""})


def scenarios(fold: Path, images: pd.DataFrame) -> list[Scenario]:
    """What each scenario asks of what; without scenarios (protocol `identify`) every test image, of no database."""
    test = np.flatnonzero(images["image_id"] != "")  # the first rows
    if not (fold / "test/query_scenarios.csv").is_file():
        return [Scenario("", test, np.array([], int))]
    read, index = read_scenarios(fold / "test"), pd.Index(images["image_id"][test])
    rows = [table.assign(row=index.get_indexer(table[name])) for table, name in
            [(read.queries, "query_image_id"), (read.databases, "database_image_id")]]
    if any((table["row"] < 0).any() for table in rows):
        raise InputError(f"{fold}/test: a scenario names images that labels.csv does not have; make the fold again")
    return [Scenario(name, *(table["row"][table["scenario_id"] == name].to_numpy() for table in rows))
            for name in read.queries["scenario_id"].unique()]


def near(asked: np.ndarray, shown: np.ndarray, group: np.ndarray, moment: np.ndarray, span: int) -> np.ndarray:
    """Whether each row asked has another row among those shown, of its group and at most `span` from its moment.

    `asked`, `shown`: rows; `group` (-1: none) and `moment`: integers of all rows. A row is no neighbour of itself.
    """
    moment = moment - moment.min()
    key = group * (moment.max() + 2 * span + 1) + moment  # so wide that one group's moments never come near the next one's
    shown = np.unique(shown)
    found = np.sort(key[shown[group[shown] >= 0]])
    n = np.searchsorted(found, key[asked] + span, "right") - np.searchsorted(found, key[asked] - span, "left")
    return (n > np.isin(asked, shown)) & (group[asked] >= 0)


def close(images: pd.DataFrame, asked: np.ndarray, shown: np.ndarray) -> pd.DataFrame:
    """For each row asked 1 or 0 by the keys of HEADS; NaN where it has no timestamp or encounter, and where nothing is shown."""
    whale, dated = images["whale"].to_numpy(), images["dated"].to_numpy()
    moment = np.where(dated, images["moment"], images["moment"][dated].min() if dated.any() else 0)
    found = {name: np.where(dated[asked], near(asked, shown, np.where(dated, whale, -1), moment, span), np.nan)
             for name, span in SPANS.items()}
    encounter = np.where(whale >= 0, images["encounter"], -1)
    met = near(asked, shown, encounter, np.zeros_like(encounter), 0)
    found["same_encounter"] = np.where(images["alone"].to_numpy()[asked], np.nan, met)
    return pd.DataFrame(found if len(shown) else dict.fromkeys(HEADS, np.full(len(asked), np.nan)))


def per_query(images: pd.DataFrame, asked: list[Scenario]) -> pd.DataFrame:
    """A row a query: scenario_id, dated, alone, and database_ and training_ with each key of HEADS."""
    training = np.flatnonzero(images["training"])
    return pd.concat([pd.concat([
        images.iloc[scenario.queries][["dated", "alone"]].assign(scenario_id=scenario.scenario_id).reset_index(drop=True),
        close(images, scenario.queries, scenario.database).add_prefix("database_"),
        close(images, scenario.queries, training).add_prefix("training_")], axis=1) for scenario in asked], ignore_index=True)


def shares(table: pd.DataFrame) -> dict:
    """The shares of a per-query table; None where nothing tells."""
    mean = {name: table[name].mean() for name in [f"{side}_{name}" for side in SIDES for name in HEADS]}
    mean = {name: None if np.isnan(value) else float(value) for name, value in mean.items()}
    counts = {"queries": len(table), "queries_without_timestamp": int((~table["dated"]).sum()),
              "queries_without_encounter": int(table["alone"].sum())}
    return counts | {side: {name: mean[f"{side}_{name}"] for name in HEADS} for side in SIDES}


def across(images: pd.DataFrame, asked: list[Scenario], pairs: pd.DataFrame) -> pd.DataFrame:
    """Those of the pairs (`fingerprints.alike`) of which one trains and the other is held out, or one is asked and the other in
    its database. The one asked or held out comes first; pairs under two names are on top, then by distance."""
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    training = images["training"].to_numpy()
    forth, back = np.zeros((2, len(pairs)), bool)
    for scenario in asked:
        queries, database = np.zeros((2, len(images)), bool)
        queries[scenario.queries], database[scenario.database] = True, True
        forth |= queries[first] & database[second]
        back |= queries[second] & database[first]
    turned = np.where(forth | back, ~forth, training[first])
    names = ["image_id", "original_image_id", "whale_id"]
    one, other = (images[names].iloc[np.where(turned == side, first, second)].reset_index(drop=True) for side in (False, True))
    unknown = (one["whale_id"] == "") | (other["whale_id"] == "")
    told = pd.concat([one, other.add_prefix("other_")], axis=1).assign(
        whales=np.select([unknown, one["whale_id"] == other["whale_id"]], ["unknown", "same"], "different"),
        in_database=forth | back, in_training=training[first] != training[second], **pairs[["distance", "mirrored", "identical"]])
    told = told[told["in_database"] | told["in_training"]]
    return told.sort_values(["whales", "distance", "original_image_id", "other_original_image_id"], ignore_index=True)


def measure(fold: Path, known: dict) -> dict:
    """All that is told of a fold; `known` keeps fingerprints from one fold to the next."""
    images = read_images(fold)
    asked = scenarios(fold, images)
    table = per_query(images, asked)
    told = {"queries": len(table), "training_images": int(images["training"].sum()), "images": len(images),
            "scenarios": {name: shares(rows) for name, rows in table.groupby("scenario_id") if name}, "all": shares(table)}
    return told | compare(images, asked, known)


def compare(images: pd.DataFrame, asked: list[Scenario], known: dict) -> dict:
    if (images["file"] == "").any():
        return {"images_compared": False, "unreadable": [], "identical": [], "near_identical": []}
    boxes = images[BOX].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    prints = fingerprints(list(images["file"]), boxes, known)
    pairs = across(images, asked, alike(prints))
    identical, alike_only = (pairs[pairs["identical"] == same].drop(columns="identical") for same in (True, False))
    return {"images_compared": True, "unreadable": list(images["original_image_id"][prints.unreadable]),
            "identical": identical.to_dict("records"), "near_identical": alike_only.to_dict("records")}


def folds(path: Path) -> list[Path]:
    """The fold itself, or the folds in a folder of folds by number."""
    if (path / "labels.csv").is_file():
        return [path]
    found = [file.parent for file in path.glob("*/labels.csv")]
    if not found:
        raise InputError(f"{path}: no fold here (labels.csv and test/); make folds with python -m eval.folds")
    return sorted(found, key=lambda fold: (len(fold.name), fold.name))


def show(name: Path, told: dict) -> None:
    print(f"{name}: {told['queries']:,} queries; {told['training_images']:,} training images")
    print(f"{'':<34}" + "".join(f"{'in ' + side:^29}" for side in SIDES).rstrip())
    print(f"{'':<16}{'queries':>8}{'undated':>10}" + "".join(f"{head:>{width}}" for _ in SIDES for head, width in HEADS.values()))
    for scenario_id, row in [*told["scenarios"].items(), ("all", told["all"])]:
        values = [(row[side][key], width) for side in SIDES for key, (_, width) in HEADS.items()]
        print(f"{scenario_id:<16}{row['queries']:>8}{row['queries_without_timestamp']:>10}"
              + "".join(f"{'-' if value is None else format(value, '.4f'):>{width}}" for value, width in values))
    for note in notes(told):
        print(f"note: {note}")
    for kind in ["identical", "near_identical"]:
        show_pairs(kind.replace("_", "-"), pd.DataFrame(told[kind]))


def notes(told: dict) -> list[str]:
    undated, alone = told["all"]["queries_without_timestamp"], told["all"]["queries_without_encounter"]
    unreadable = told["unreadable"]
    holds = {
        "no query has a timestamp or an encounter_id: whether photographs of one minute meet cannot be told":
            undated == alone == told["queries"],
        "no query has a timestamp, so only encounters are told": undated == told["queries"] > alone,
        f"{undated:,} queries have no timestamp and are in no share of time": 0 < undated < told["queries"],
        f"{alone:,} queries have neither timestamp nor encounter_id and are in no share of encounters":
            0 < alone and not undated == alone == told["queries"],
        "no training images in this fold": told["training_images"] == 0,
        "no scenarios, so no database: photographs are named": not told["scenarios"],
        "a label table without images: images were not compared": not told["images_compared"],
        f"{told['images']:,} images compared: none is the same or nearly on both sides of the split":
            told["images_compared"] and not told["identical"] and not told["near_identical"],
        f"images that could not be read, compared byte by byte alone: {len(unreadable):,}; the first: {''.join(unreadable[:1])}":
            len(unreadable) > 0}
    return [note for note, true in holds.items() if true]


def show_pairs(kind: str, pairs: pd.DataFrame) -> None:
    """How many there are, and the first of them."""
    if pairs.empty:
        return
    n = pairs["whales"].value_counts()
    print(f"{kind} images across the split: " + ", ".join(f"{n.get(whales, 0):,} {text}" for whales, text in WHALES.items()))
    print(pairs.head(SHOWN).to_string(index=False))
    if len(pairs) > SHOWN:
        print(f"and {len(pairs) - SHOWN:,} more (--json has all)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Say how much of a fold near-duplicates can answer, and list like images across its split.",
        epilog="example: python -m eval.leakage folds/0 --json leakage.json")
    parser.add_argument("fold", type=Path, metavar="FOLD", help="FOLDS/k, or FOLDS for all of them")
    parser.add_argument("--json", type=Path, help="write the same here as one object")
    arguments = parser.parse_args()
    known, told = {}, {}
    for fold in folds(arguments.fold):
        told[fold] = measure(fold, known)
        show(fold, told[fold])
    if arguments.json:
        of_all = {"folds": {fold.name: one for fold, one in told.items()}}
        write_json(told.get(arguments.fold, of_all), arguments.json)


if __name__ == "__main__":
    run(main)
