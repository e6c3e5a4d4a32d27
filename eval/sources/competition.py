"""The directory of Where's Whale-do? as the competition hands it out, checked and brought over.

Reads SOURCE/metadata.csv, and where they are there SOURCE/images/, query_scenarios.csv with its queries/ and databases/, and
example_labels.csv (`query_id,database_image_id`; --labels names another file, such as the hidden test's on LILA). Writes the
same to DATA, photographs as hard links and the labels as DATA/truth.csv.

    python -m eval.importers whaledo beluga --output data
    python -m eval.score submission.csv data/truth.csv --data data --labels data/metadata.csv

The import prints the counts. A photograph that is missing or cannot be read is left out of all tables, and counted.
"""

import os
from pathlib import Path

import pandas as pd

from eval.files import InputError, read_table, write_table
from eval.labels import column
from eval.sources.linking import Source, link_all, photographs
from eval.rules import Scenarios, listed, once, read_scenarios, scenario_rules
from eval.sources.sightings import UNKNOWN, moments

PHOTOGRAPH = r"images/[^/\\]*[^/\\.][^/\\]*"
LABELS = ["query_id", "database_image_id"]


def write_whaledo(data: Path, source: Path, labels: Path | None = None) -> None:
    """Fills the empty directory `data`; InputError names the line of a table that cannot be used."""
    metadata = read_metadata(source / "metadata.csv")
    scenarios = truth = None
    if (source / "query_scenarios.csv").is_file():
        scenarios = read_checked_scenarios(source, metadata["image_id"])
    if labels or (source / "example_labels.csv").is_file():
        truth = read_truth(labels or source / "example_labels.csv", scenarios)
    metadata = with_photographs(metadata, source, data)
    write_table(metadata, data / "metadata.csv")
    told = [individuals(metadata)]
    if scenarios:
        scenarios = of_images(scenarios, metadata["image_id"])
        write_scenarios(data, scenarios)
        told.append(f"{scenarios.queries['scenario_id'].nunique():,} scenarios, {len(scenarios.queries):,} queries")
    if truth is not None:
        left = truth["query_id"].isin(scenarios.queries["query_id"]) & truth["database_image_id"].isin(metadata["image_id"])
        truth = truth[left]
        write_table(truth, data / "truth.csv")
        told.append(f"{len(truth):,} true matches")
    print("; ".join(told))


def individuals(metadata: pd.DataFrame) -> str:
    whale_id = column(metadata, "whale_id")
    return f"{len(metadata):,} images: {int((whale_id != '').sum()):,} of {whale_id[whale_id != ''].nunique():,} individuals"


def read_metadata(file: Path) -> pd.DataFrame:
    """All columns; ids are unique, paths are names below images/, dates are dates, words for unknown whales are ""."""
    table, source = read_table(file, ["image_id", "path"]), Source(str(file))
    if table.empty:
        raise InputError(f"{file}: no rows; give the competition's own table")
    source.refuse_control_characters(table)
    source.refuse(table["image_id"], table["image_id"] == "", "image_id is empty; give every image one")
    source.refuse(table["image_id"], table["image_id"].duplicated(), "an earlier line has this image_id too; keep one of them")
    source.refuse(table["path"], ~table["path"].str.fullmatch(PHOTOGRAPH), "not the path of a photograph; images/NAME is needed")
    source.refuse(table["path"], table["path"].duplicated(), "an earlier line names this photograph too; keep one of them")
    for name in table.columns.intersection(["date", "timestamp"]):
        moments(source, table[name], name, None)
    return table.assign(whale_id=known(table["whale_id"])) if "whale_id" in table else table


def known(whale_id: pd.Series) -> pd.Series:
    return whale_id.mask(whale_id.isin(UNKNOWN), "")


def read_checked_scenarios(source: Path, image_id: pd.Series) -> Scenarios:
    """The scenarios, whose tables lie in `source` and name images of the metadata, none twice in a database."""
    file, root = source / "query_scenarios.csv", os.path.join(os.path.realpath(source), "")
    index = read_table(file, ["queries_path", "database_path"])
    for part in [*index["queries_path"], *index["database_path"]]:
        if not os.path.realpath(source / part).startswith(root):
            raise InputError(f"{file}: {part!r} leads out of {source}; put the table itself there")
    scenarios = read_scenarios(source)
    for table, name in ((scenarios.queries, "query_image_id"), (scenarios.databases, "database_image_id")):
        refuse_first(file, table, name, ~table[name].isin(image_id), "is not in metadata.csv; take both from the same data")
    twice = scenarios.databases.duplicated()
    refuse_first(file, scenarios.databases, "database_image_id", twice, "stands twice in its database; remove one")
    return scenarios


def refuse_first(file: Path, table: pd.DataFrame, name: str, bad: pd.Series, why: str) -> None:
    if bad.any():
        first = table[bad].iloc[0]
        raise InputError(f"{file}: scenario {first['scenario_id']}: {name} {first[name]!r} {why}")


def read_truth(file: Path, scenarios: Scenarios | None) -> pd.DataFrame:
    """query_id, database_image_id; each is asked, in its scenario's database, and not the query itself."""
    if scenarios is None:
        raise InputError(f"{file}: these labels need the scenarios they answer; put query_scenarios.csv beside metadata.csv")
    truth = once(read_table(file, LABELS)[LABELS], LABELS, file)
    broken = listed(scenario_rules(truth, scenarios), truth)
    if broken:
        raise InputError(f"{file}: {broken[0]}; mend or drop the line")
    return truth


def with_photographs(metadata: pd.DataFrame, source: Path, data: Path) -> pd.DataFrame:
    """The rows whose photograph is in SOURCE/images, linked to DATA/images; all rows where there is no such folder."""
    folder = source / "images"
    if not folder.is_dir():
        print(f"note: no folder {folder}: a label table without photographs")
        return metadata
    files = photographs(Source(str(source / "metadata.csv")), metadata["path"].str.removeprefix("images/"), folder)
    metadata = metadata.loc[files.index]
    link_all({data / path: file for path, file in zip(metadata["path"], files)}, "images: linking")
    return metadata


def of_images(scenarios: Scenarios, image_id: pd.Series) -> Scenarios:
    """What the scenarios ask of these images; one without a query or a database is gone."""
    queries = scenarios.queries[scenarios.queries["query_image_id"].isin(image_id)]
    databases = scenarios.databases[scenarios.databases["database_image_id"].isin(image_id)]
    return Scenarios(queries[queries["scenario_id"].isin(databases["scenario_id"])],
                     databases[databases["scenario_id"].isin(queries["scenario_id"])])


def write_scenarios(data: Path, scenarios: Scenarios) -> None:
    """query_scenarios.csv and its tables under names of our own: those of the source may be any."""
    index = pd.DataFrame({"scenario_id": scenarios.queries["scenario_id"].unique()})
    number = [f"{k:02d}" for k in range(1, len(index) + 1)]
    for folder, name, table, columns in (("queries", "queries_path", scenarios.queries, ["query_id", "query_image_id"]),
                                         ("databases", "database_path", scenarios.databases, ["database_image_id"])):
        index[name] = [f"{folder}/scenario{k}.csv" for k in number]
        for scenario_id, path in zip(index["scenario_id"], index[name]):
            write_table(table.loc[table["scenario_id"] == scenario_id, columns], data / path)
    write_table(index, data / "query_scenarios.csv")
