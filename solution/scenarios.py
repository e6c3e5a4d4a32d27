"""What a scenario is: the queries it asks and the database it asks them of. Reads DATA/query_scenarios.csv and its files."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import List

import numpy as np
import pandas as pd

from solution.files import LONGEST_NAME, STRICT, Complaints, InputError, read_table


@dataclass(frozen=True)
class Scenario:
    scenario_id: str
    query_ids: np.ndarray  # as the submission names them, unique
    query_image_ids: np.ndarray  # the photograph of each query
    database_image_ids: np.ndarray  # unique


def read(data: Path, complaints: Complaints = STRICT) -> List[Scenario]:
    """The scenarios of a data directory in the order of its table.

    Where the complaints are strict an InputError names a missing file or a repeated id; otherwise a scenario that cannot be
    read is left out, and of a repeated id the first counts.
    """
    table = read_table(data / "query_scenarios.csv", ["scenario_id", "queries_path", "database_path"], complaints)
    if len(table) == 0:
        raise InputError(f"{data}/query_scenarios.csv: there is no scenario in it")
    found, taken = [], set()
    for scenario_id, queries_path, database_path in table[["scenario_id", "queries_path", "database_path"]].itertuples(index=False):
        try:
            queries = read_ids(data, queries_path, ["query_id", "query_image_id"], complaints)
            database = read_ids(data, database_path, ["database_image_id"], complaints)
        except InputError as error:
            complaints.add(str(error))
            continue
        for part, path in ((queries, queries_path), (database, database_path)):
            if part.empty:
                complaints.add(f"{data / path}: has no rows; scenario {scenario_id} asks nothing")
        queries = once(queries, "query_id", data / queries_path, complaints)
        elsewhere = queries.query_id.isin(taken)
        if elsewhere.any():
            complaints.add(f"{data / queries_path}: query_id {queries.query_id[elsewhere].iloc[0]} stands in another scenario too; a submission could not tell them apart")
            queries = queries[~elsewhere]
        taken.update(queries.query_id)
        database = once(database, "database_image_id", data / database_path, complaints)
        columns = queries.query_id, queries.query_image_id, database.database_image_id
        found.append(Scenario(scenario_id, *(column.to_numpy(dtype=object) for column in columns)))
    if not found:
        raise InputError(f"{data}/query_scenarios.csv: none of its scenarios can be read")
    return found


def once(table: pd.DataFrame, column: str, path: Path, complaints: Complaints) -> pd.DataFrame:
    """The rows whose `column` did not stand in an earlier one."""
    repeated = table[column].duplicated()
    if repeated.any():
        complaints.add(f"{path}: line {int(repeated.to_numpy().argmax()) + 2}: {table[column][repeated].iloc[0]} stands there twice")
    return table[~repeated]


def read_ids(data: Path, path: str, columns: List[str], complaints: Complaints) -> pd.DataFrame:
    """The columns of one of the files of a scenario, all of ids; complains of those that are longer than a name may be, and leaves their rows out."""
    table = read_table(inside(data, path), columns, complaints)
    for column in columns:
        endless = (table[column].str.len() > LONGEST_NAME).to_numpy()
        if endless.any():
            line, text = int(endless.argmax()) + 2, table[column][endless].iloc[0]
            complaints.add(f"{data / path}: line {line}: {column} {text[:40]!r}... has more than {LONGEST_NAME} letters; write a shorter one")
        table = table[~endless]
    return table


def inside(data: Path, path: str) -> Path:
    root = os.path.join(os.path.realpath(data), "")
    full = os.path.realpath(os.path.join(root, path))
    if not full.startswith(root):
        raise InputError(f"{data}/query_scenarios.csv: {path!r} leads out of the data directory")
    return Path(full)


def asked(scenarios: List[Scenario]) -> np.ndarray:
    """The ids of all images that the scenarios need, sorted."""
    needed = [ids for scenario in scenarios for ids in (scenario.query_image_ids, scenario.database_image_ids)]
    return np.unique(np.concatenate([np.empty(0, object), *needed]).astype(str))
