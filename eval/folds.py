"""What a fold is: a directory shaped like the competition's data, plus its truth.

Reads DATA/metadata.csv (and images/); writes FOLDS/k/train, FOLDS/k/test (data directories), FOLDS/k/truth.csv,
FOLDS/k/labels.csv and FOLDS/manifest.json. `eval.protocols` says what each protocol asks.

    python -m eval.folds data --output folds --protocol whale --n-folds 5 --seed 0

prints a line a fold, with how often a blind guess is right; 5,902 rows without images take a second. Nothing in test/
tells the whale: neutral ids in a new order, only the columns a photograph shows, copies with one time and mode. The image
files themselves are copied byte by byte, so whatever their EXIF says stays in them.
"""

import argparse
import hashlib
import os
import shutil
from pathlib import Path
from typing import Iterator

import numpy as np
import pandas as pd

from eval.files import InputError, alone, check_file, progress, read_json, run, whole_directory, write_json, write_table
from eval.labels import Labels, column, find_images, moments, read_labels
from eval.protocols import Fold, Scenario, matches, select

TEST_COLUMNS = ["image_id", "path", "height", "width", "viewpoint", "date", "x0", "y0", "x1", "y1"]
TEST_TIME = 946684800  # 2000-01-01 UTC, for every test image
FLATTERS = "stratified folds flatter: queries meet photographs of their own encounter in the database"
NO_IMAGES = "a label table without images: no files are copied"
NO_ENCOUNTER = ("some images have neither timestamp nor encounter_id: each is an encounter of its own, so a query may meet "
                "photographs of the same minute, and the scores flatter")
NO_WHALE = "images without a whale_id are never asked and never a match; they stay in training"
EASY = .2  # of the queries
FEW = ("the databases hold so few individuals that a guess scores high and systems hardly differ; fewer folds (--n-folds) or protocol "
       "encounter make them larger")
UNMADE = "queries_not_made_without_a_true_match"


def ask(k: int, fold: Fold, labels: Labels) -> list[tuple[Scenario, pd.DataFrame]]:
    """Each scenario of a fold with its matches; a fold that asks nothing is refused before any is written."""
    asked = [(scenario, matches(labels, scenario)) for scenario in fold.scenarios]
    if not len(fold.test) or asked and not any(len(pairs) for _, pairs in asked):
        if labels.known.sum() == labels.whale.max() + 1:
            raise InputError(f"{labels.file}: no individual has two photographs, so none can be found again; add photographs")
        raise InputError(f"{labels.file}: fold {k}: no query has a true match in its database; choose fewer folds or another protocol")
    return asked


def write_fold(folder: Path, fold: Fold, asked: list[tuple[Scenario, pd.DataFrame]], labels: Labels,
               files: list[str] | None, random: np.random.Generator) -> dict:
    """Writes one fold; returns its counts for the manifest."""
    made = [(scenario, pairs) for scenario, pairs in asked if len(pairs)]
    rows = np.unique(np.concatenate([fold.test, *(scenario.database for scenario, _ in made)]))
    test = rename(labels.metadata, random.permutation(rows))
    if len(fold.train):
        write_train(folder / "train", fold, labels.metadata, files)
    write_test(folder / "test", test, labels.metadata, files)
    truth = write_scenarios(folder / "test", made, test["image_id"]) if made else names(fold, labels, test["path"])
    write_table(truth, folder / "truth.csv")
    write_table(label_table(labels.metadata, test["image_id"]), folder / "labels.csv")
    return counts(fold, labels, len(rows)) | (ask_counts(asked) if made else name_counts(fold))


def rename(metadata: pd.DataFrame, rows: np.ndarray) -> pd.DataFrame:
    """The neutral image_id and path of each row, in the order of `rows`, which is their index."""
    digits = max(4, len(str(len(rows) - 1)))
    image_id = pd.Series([f"test{number:0{digits}d}" for number in range(len(rows))], index=rows)
    suffix = metadata["path"][rows].str.extract(r"(\.\w+)$", expand=False).fillna("")
    return pd.DataFrame({"image_id": image_id, "path": "images/" + image_id + suffix})


def write_train(folder: Path, fold: Fold, metadata: pd.DataFrame, files: list[str] | None) -> None:
    """All columns, but unknown rows lose what names their whale; images hard-linked, else copied."""
    table = metadata.copy()
    table.loc[fold.unknown, table.columns.intersection(["whale_id", "encounter_id"])] = ""
    table = table.iloc[fold.train]
    folder.mkdir(parents=True)
    write_table(table, folder / "metadata.csv")
    paths = {os.path.normpath(metadata["path"][row]): files[row] for row in fold.train} if files else {}
    # Fewer paths than rows where several rows are boxes in one photograph.
    for path, source in progress(list(paths.items()), f"fold {folder.parent.name}: linking"):
        _link(source, folder / path)


def _link(source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_test(folder: Path, test: pd.DataFrame, metadata: pd.DataFrame, files: list[str] | None) -> None:
    """What a photograph shows and no more; images copied in test order, so no inode or time follows the whales."""
    folder.mkdir(parents=True)
    table = metadata.loc[test.index].assign(**test)
    write_table(table[[name for name in TEST_COLUMNS if name in table]], folder / "metadata.csv")
    if files is None:
        return
    (folder / "images").mkdir()
    for row, path in progress(list(test["path"].items()), f"fold {folder.parent.name}: copying"):
        shutil.copyfile(files[row], folder / path)
        os.chmod(folder / path, 0o644)
        os.utime(folder / path, (TEST_TIME, TEST_TIME))


def write_scenarios(folder: Path, made: list[tuple[Scenario, pd.DataFrame]], image_id: pd.Series) -> pd.DataFrame:
    """query_scenarios.csv, queries/ and databases/; returns the truth, query_id and database_image_id."""
    (folder / "queries").mkdir()
    (folder / "databases").mkdir()
    index = pd.DataFrame({"scenario_id": [f"scenario{number:02d}" for number in range(1, len(made) + 1)]})
    index["queries_path"] = "queries/" + index["scenario_id"] + ".csv"
    index["database_path"] = "databases/" + index["scenario_id"] + ".csv"
    write_table(index, folder / "query_scenarios.csv")
    return pd.concat([_write_scenario(folder, paths, scenario, pairs, image_id)
                      for paths, (scenario, pairs) in zip(index.itertuples(), made)])


def _write_scenario(folder: Path, paths: tuple, scenario: Scenario, pairs: pd.DataFrame,
                    image_id: pd.Series) -> pd.DataFrame:
    queries = np.sort(image_id[pairs["query"].unique()])
    query_id = f"{paths.scenario_id}-"
    write_table(pd.DataFrame({"query_id": query_id + queries, "query_image_id": queries}), folder / paths.queries_path)
    write_table(pd.DataFrame({"database_image_id": np.sort(image_id[scenario.database])}), folder / paths.database_path)
    truth = pd.DataFrame({"query_id": query_id + image_id[pairs["query"]].to_numpy(),
                          "database_image_id": image_id[pairs["database"]].to_numpy()})
    return truth.sort_values(["query_id", "database_image_id"])


def names(fold: Fold, labels: Labels, path: pd.Series) -> pd.DataFrame:
    """The truth of protocol `identify`: Image (base name of the path) and Id, `new_whale` for unknowns."""
    whale_id = labels.metadata["whale_id"].mask(np.isin(np.arange(len(labels.whale)), fold.unknown), "new_whale")
    return pd.DataFrame({"Image": path.str.removeprefix("images/"), "Id": whale_id[path.index]})


def label_table(metadata: pd.DataFrame, image_id: pd.Series) -> pd.DataFrame:
    """Who each test image shows, as DATA says it, for scoring by whale, comparison, leakage and the report."""
    table = pd.DataFrame({name: column(metadata, name) for name in ["whale_id", "encounter_id", "timestamp"]})
    table = table.loc[image_id.index]
    table.insert(0, "image_id", image_id)
    table.insert(1, "original_image_id", metadata["image_id"])
    return table


def counts(fold: Fold, labels: Labels, n_in_test: int) -> dict:
    return {"train_images": len(fold.train), "train_whales": _n_whales(labels, np.setdiff1d(fold.train, fold.unknown)),
            "test_images": len(fold.test), "test_whales": _n_whales(labels, fold.test),
            "images_in_test_directory": n_in_test, "left_out": fold.left_out}


def ask_counts(asked: list[tuple[Scenario, pd.DataFrame]]) -> dict:
    """Queries made and not made, over all scenarios."""
    made = [{"kind": scenario.kind, "queries": int(pairs["query"].nunique()), "database": len(scenario.database),
             "queries_in_database": int(np.isin(pairs["query"].unique(), scenario.database).sum()),
             "truth_rows": len(pairs), "chance_top1": chance(scenario, pairs)} for scenario, pairs in asked if len(pairs)]
    n_queries = sum(scenario["queries"] for scenario in made)
    return {"queries": n_queries,
            "chance_top1": sum(scenario["queries"] * scenario["chance_top1"] for scenario in made) / n_queries,
            UNMADE: sum(len(scenario.queries) for scenario, _ in asked) - n_queries,
            "scenarios": {f"scenario{number:02d}": scenario for number, scenario in enumerate(made, start=1)},
            "scenarios_without_queries": [scenario.kind for scenario, pairs in asked if not len(pairs)]}


def chance(scenario: Scenario, pairs: pd.DataFrame) -> float:
    """How often a blind guess names the whale: the mean share of matches in a query's database."""
    n_matches = pairs["query"].value_counts()
    return float((n_matches / (len(scenario.database) - np.isin(n_matches.index, scenario.database))).mean())


def name_counts(fold: Fold) -> dict:
    return {"queries": len(fold.test), "queries_of_unknown_whales": int(np.isin(fold.test, fold.unknown).sum())}


def _n_whales(labels: Labels, rows: np.ndarray) -> int:
    return len(np.unique(labels.whale[rows][labels.known[rows]]))


def make(data: Path, output: Path, protocol: str, n_folds: int = 5, seed: int = 0, date: str | None = None) -> Path:
    """Makes all folds of a protocol; returns `output`, which appears whole. InputError on bad labels or arguments."""
    _check_arguments(protocol, n_folds, seed, date)
    labels = read_labels(data)
    files = find_images(data, labels.metadata)
    folds = select(labels, protocol, n_folds, seed, date)
    asked = [ask(k, fold, labels) for k, fold in enumerate(folds)]
    with whole_directory(Path(output)) as folder:
        told = {str(k): write_fold(folder / str(k), fold, asked[k], labels, files, np.random.default_rng([seed, k, 1]))
                for k, fold in enumerate(folds)}
        write_json(settings(data, protocol, n_folds, seed, date) | manifest(labels, files, protocol, told), folder / "manifest.json")
    return Path(output)


def _check_arguments(protocol: str, n_folds: int, seed: int, date: str | None) -> None:
    if n_folds < 2:
        raise InputError(f"--n-folds {n_folds}: at least 2 are needed")
    if seed < 0:
        raise InputError(f"--seed {seed}: must be 0 or more")
    if date and protocol != "time":
        raise InputError(f"--date goes with --protocol time, not {protocol}")
    if date and (len(date) != 10 or pd.isna(moments(pd.Series([date]))[0])):
        raise InputError(f"--date {date!r}: not a day; write YYYY-MM-DD")


def settings(data: Path, protocol: str, n_folds: int, seed: int, date: str | None) -> dict:
    """What decides the folds, and the fingerprint of the metadata they were made from."""
    file = Path(data) / "metadata.csv"
    check_file(file)
    return {"protocol": protocol, "seed": seed, "n_folds": n_folds, "date": date, "metadata_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def kept(data: Path, output: Path, **asked) -> bool:
    """Whether `output` holds the folds that are asked for; InputError where it holds others."""
    if not os.path.lexists(output):
        return False
    made = read_json(output / "manifest.json")
    for key, value in settings(data, **asked).items():
        before = made.get(key) if isinstance(made, dict) else None
        if before != value:
            raise InputError(f"{output}: made with another {key} ({before}, now {value}); remove it or choose another --output")
    return True


def manifest(labels: Labels, files: list[str] | None, protocol: str, folds: dict) -> dict:
    sources = pd.Series(labels.encounter_source[labels.known]).value_counts().sort_index()
    notes = {FLATTERS: protocol == "stratified", NO_IMAGES: files is None,
             NO_ENCOUNTER: protocol in ("whale", "encounter") and "image" in sources,
             NO_WHALE: protocol in ("whale", "encounter", "stratified") and not labels.known.all()}
    return {
        "images": len(labels.whale), "whales": int(labels.whale.max()) + 1,
        "images_without_whale_id": int((~labels.known).sum()),
        "images_grouped_into_encounters_by": {source: int(n) for source, n in sources.items()},
        "encounters": len(np.unique(labels.encounter[labels.known])),
        "notes": [note for note, holds in notes.items() if holds],
        "folds": folds}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Cut labelled data into folds shaped like the competition's data, each with its truth.",
        epilog="example: python -m eval.folds data --output folds --protocol whale --n-folds 5 --seed 0")
    parser.add_argument("data", type=Path, help="labelled data directory: metadata.csv, images/ where there are any")
    parser.add_argument("--output", type=Path, required=True, help="new directory for the folds")
    parser.add_argument("--protocol", default="whale",
                        choices=["stratified", "encounter", "whale", "time", "identify", "suite"])
    parser.add_argument("--n-folds", type=int, default=5, help="time, identify and suite make the one fold 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--date", help="time: first day asked, YYYY-MM-DD; else 1/n of the images are asked")
    parser.add_argument("--keep", action="store_true", help="leave OUTPUT as it is where it holds these very folds")
    arguments = vars(parser.parse_args())
    with alone(arguments["output"]):
        if not arguments.pop("keep") or not kept(**arguments):
            make(**arguments)
    tell(arguments["output"] / "manifest.json")


def tell(path: Path) -> None:
    """Says what folds were made; InputError where their manifest is not as `make` writes it."""
    try:
        print("\n".join(sentences(read_json(path))))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not as python -m eval.folds writes it; remove the folds and make them again") from None


def sentences(manifest: dict) -> Iterator[str]:
    for k, fold in manifest["folds"].items():
        yield (f"fold {k}: {fold['train_images']:,} training images of {fold['train_whales']:,} whales; "
               f"{fold['test_images']:,} test images of {fold['test_whales']:,}; {fold['queries']:,} queries{of_queries(fold)}")
        for name, one in fold["scenarios"].items() if manifest["protocol"] == "suite" else []:
            yield f"  {name}: {one['queries']:,} queries, {one['database']:,} images; {one['kind']}"
        for what, number in fold["left_out"].items():
            if number:
                yield f"note: {number:,} {what} are left out"
    easy = [k for k, fold in manifest["folds"].items() if fold.get("chance_top1", 0) > EASY]
    if easy:
        yield f"note: fold {', '.join(easy)}: {FEW}"
    for note in manifest["notes"]:
        yield f"note: {note}"


def of_queries(fold: dict) -> str:
    """What to know of a fold's queries, in brackets; folds made before tell no chance."""
    said = {f"{fold.get(UNMADE, 0):,} more have no true match": fold.get(UNMADE),
            f"{fold.get('queries_of_unknown_whales', 0):,} of them of unknown whales": "queries_of_unknown_whales" in fold,
            f"a blind guess is right for {fold.get('chance_top1', 0):.1%}": "chance_top1" in fold}
    words = ", ".join(words for words, holds in said.items() if holds)
    return f" ({words})" if words else ""


if __name__ == "__main__":
    run(main)
