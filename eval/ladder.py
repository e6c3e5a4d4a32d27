"""An ablation table: a recipe and a file of differences -> one row each, trained, predicted and scored.

Reads ROWS.yaml, a recipe and a fold. A row is a name with `about` (one line) and differences in the recipe's own form:
`shared`, `rank` and `identify` are laid over the recipe's, `models` takes the place of its models.

    python -m eval.ladder ROWS.yaml --recipe hwi-small --folds FOLDS --fold 0 --inner INNER/0 --output ladder.csv

Writes ladder.csv anew after every row, and its recipe, weights, submission and scores to ladder/ROW/. A row that is
there with the same hash (recipe, folds, seed) is passed over, one that was begun goes on, and one that differs from a
done one in `rank` or `identify` alone takes its weights. Where a row's `shared` or `models` changed, ladder/ROW/ is removed
and the row trained anew. `seconds` are those of the epochs, whichever row trained them.
Expect a Markdown table, and exit status 1 where a row failed; the others stand.
"""

import argparse
import hashlib
import json
import re
import reprlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Hashable, Iterator, Mapping

import pandas as pd
import yaml

from eval.files import InputError, alone, check_file, read_json, read_table, run, whole, whole_directory, write_table
from eval.labels import numbers
from eval.page.records import read_object
from eval.score import read_per_query

RECIPES = Path(__file__).parents[1] / "solution" / "recipes"
TABLES = "shared", "models", "rank", "identify"
MOST_BYTES, MOST_NODES = 1 << 18, 10_000  # of a YAML file; of what it holds, an alias counting as often as it stands there
COLUMNS = ["row", "score", "low", "high", "known", "unknown", "auc", "seconds", "inner_map5", "hash"]


class Failed(Exception):
    """A row's command that did not end well, with the last line it told."""


class Loader(yaml.SafeLoader):
    """Refuses keys that stand there twice, and aliases that make much of little."""

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None and nodes_of(node, {}) > MOST_NODES:
            raise ValueError(f"more than {MOST_NODES} values, an alias (*name) counting as often as it stands there, are no recipe")
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key in (self.construct_object(key, deep=True) for key, _ in node.value):
            if isinstance(key, Hashable) and key in seen:  # of two YAML would drop the first without a word
                raise ValueError(f"line {node.start_mark.line + 1}: {key} stands there twice")
            seen.add(key if isinstance(key, Hashable) else None)
        return super().construct_mapping(node, deep)


def nodes_of(node: yaml.Node, known: dict[int, int]) -> int:
    """The values that a node stands for, its own and those below, an alias counting each time; more than enough where it holds itself."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1
        parts = node.value if isinstance(node.value, list) else []
        below = [part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(nodes_of(part, known) for part in below)
    return known[id(node)]


def read_yaml(path: Path) -> dict:
    check_file(path)
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES >> 10} KiB are no recipe; take what is not needed out of it")
    try:
        return yaml.load(path.read_text("utf-8"), Loader)
    except RecursionError:
        raise InputError(f"{path}: nested too deeply; a recipe has tables in tables in tables and no more") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def read_rows(path: Path, recipe: str) -> dict[str, dict]:
    """The whole recipe of each row, by its name; `recipe`: a name of solution/recipes or the path of a .yaml file."""
    file = Path(recipe) if recipe.endswith((".yaml", ".yml")) else RECIPES / f"{recipe}.yaml"
    base, rows = with_tables(read_yaml(file), file), with_tables(read_yaml(path), path)
    return {name: laid_over(base, checked(name, row, path)) for name, row in rows.items()}


def with_tables(table: object, where: object) -> dict:
    """A recipe or a row, in which each of TABLES is a table where it stands."""
    parts = {"it": table} | ({key: table[key] for key in TABLES if key in table} if isinstance(table, Mapping) else {})
    for key, part in parts.items():
        if not isinstance(part, Mapping):
            raise InputError(f"{where}: {key} is {reprlib.repr(part)}; it must be a table")
        for odd in (inner for inner in keys_of(part) if key != "it" and not isinstance(inner, str)):
            raise InputError(f"{where}: {key} has the key {odd!r}; keys are words")
    return dict(table)


def keys_of(table: Mapping) -> Iterator:
    """Its keys, and those of the tables in it."""
    for key, part in table.items():
        yield key
        yield from keys_of(part) if isinstance(part, Mapping) else ()


def checked(name: object, row: object, path: Path) -> dict:
    where = f"{path}: row {name!r}"
    row = with_tables(row, where)
    if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]{0,49}", name)):
        raise InputError(f"{where}: a name is text of at most 50 letters, digits, -, _ and . (it names a directory)")
    if not isinstance(row.get("about"), str) or len(row["about"].splitlines()) != 1:
        raise InputError(f"{where}: about is {reprlib.repr(row.get('about'))}; it must be one line that says what differs")
    for key in row.keys() - {"about", *TABLES}:
        raise InputError(f"{where}: unknown key {key}; there are about, {', '.join(TABLES)}")
    return row


def laid_over(recipe: dict, row: dict) -> dict:
    """The recipe with a row's differences."""
    return recipe | row | {key: merged(recipe.get(key, {}), row[key]) for key in ("shared", "rank", "identify") if key in row}


def merged(base: Mapping, differences: Mapping) -> dict:
    """Nested tables laid over each other; the second wins."""
    both = dict(base)
    for key, value in differences.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


def training(recipe: dict) -> list:
    """The part of a recipe that decides its weights: the models have an order, keys have none."""
    return [recipe.get("shared", {}), list(recipe.get("models", {}).items())]


def trained(work: Path) -> list | None:
    """`training` of the recipe that a row's directory was last made with; None where it has none."""
    file = work / "recipe.yaml"
    return training(with_tables(read_yaml(file), file)) if file.is_file() else None


@dataclass(frozen=True)
class Ladder:
    fold: Path
    inner: Path | None  # where the fold asks for names
    keep: Path
    seed: int
    device: str

    def hash(self, recipe: dict) -> str:
        folds = [(fold.name, read_json(fold.parent / "manifest.json")) for fold in (self.fold, self.inner) if fold]
        told = [training(recipe), recipe.get("identify", {}), recipe.get("protocol"), folds, self.seed, *([recipe["rank"]] if recipe.get("rank") else [])]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:12]

    def climb(self, name: str, recipe: dict, donors: list[str]) -> dict:
        """Trains, predicts and scores a row; returns its figures. `donors`: rows whose weights may be taken."""
        work, weights = self.keep / name, self.keep / name / "weights"
        if trained(work) not in (None, training(recipe)):
            print(f"{name}: shared or models changed; {work} is removed and the row trained anew", file=sys.stderr)
            shutil.rmtree(work)
        with whole(work / "recipe.yaml") as beside:
            beside.write_text(yaml.safe_dump(recipe, sort_keys=False))
        if donors and not weights.exists():
            print(f"{name}: takes the weights of {donors[0]}", file=sys.stderr)
            with whole_directory(weights) as beside:
                shutil.copytree(self.keep / donors[0] / "weights", beside, dirs_exist_ok=True)
        (weights / "identify.json").unlink(missing_ok=True)  # it may have been fitted with another `identify`
        for command in self.commands(work):
            obey(command)
        return figures(work, self.inner is not None)

    def commands(self, work: Path) -> list[list]:
        weights, submission, device = work / "weights", work / "submission.csv", ["--device", self.device]
        validate = ["--validate", self.inner] if self.inner else []
        chances = ["--probabilities", work / "probabilities.csv"] if self.inner else []
        return [["solution.train", "--recipe", work / "recipe.yaml", "--data", (self.inner or self.fold) / "train",
                 "--output", weights, "--resume", "--seed", self.seed, *validate, *device],
                ["solution.predict", "--data", self.fold / "test", "--weights", weights, "--output", submission,
                 *chances, *device],
                ["eval.score", submission, self.fold / "truth.csv", *chances, "--json", work / "score.json",
                 "--per-query", work / "per_query.csv"]]


def obey(command: list) -> None:
    """Runs a module of the project and passes on what it tells."""
    last, words = "", [sys.executable, "-m", *map(str, command)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    with subprocess.Popen(words, **pipes) as process:
        for line in process.stderr:
            last = line.strip() or last
            print(line, end="", file=sys.stderr)
    if process.returncode:
        raise Failed(f"{command[0]} ended with status {process.returncode}: {last}")


def figures(work: Path, of_names: bool) -> dict:
    """A row's figures as text, "" for none; `known` and `unknown` are means of MAP@5, where the fold asks for names."""
    score, queries = read_json(work / "score.json"), read_per_query(work / "per_query.csv")
    known = queries.whale_id != ""
    epochs = [pd.read_csv(path) for path in sorted((work / "weights").glob("*.log.csv"))]
    identify = work / "weights" / "identify.json"
    told = {"score": score["strict"], **dict(zip(("low", "high"), score["ci95"] or (None, None))),
            "known": queries.strict[known & of_names].mean(), "unknown": queries.strict[~known & of_names].mean(),
            "auc": score.get("open_set", {}).get("auc"),
            "seconds": round(float(sum(table.seconds.sum() for table in epochs if "seconds" in table)), 1),
            "inner_map5": read_json(identify)["map5"] if identify.is_file() else None}
    return {key: "" if pd.isna(value) else str(value) for key, value in told.items()}


def fill(rows: dict[str, dict], names: list[str], ladder: Ladder, output: Path) -> pd.DataFrame:
    """Adds the rows `names` to the table, written after each; returns what stands of `rows`. Failures are told."""
    table = read_table(output, COLUMNS) if output.is_file() else pd.DataFrame(columns=COLUMNS, dtype=str)
    numbers(table, [name for name in COLUMNS if name not in ("row", "hash")], output)  # told before the work
    hashes = {name: ladder.hash(recipe) for name, recipe in rows.items()}
    standing = lambda: table[table.hash == table.row.map(hashes)]  # others are of an earlier recipe or another file
    for number, name in enumerate(names, start=1):
        print(f"row {number} of {len(names)}: {name}: {rows[name]['about']}", file=sys.stderr)
        done = list(standing().row)
        if name in done:
            print(f"{name}: stands in {output} already", file=sys.stderr)
            continue
        donors = [other for other in done if (ladder.keep / other / "weights").is_dir()
                  and training(rows[name]) == training(rows[other]) == trained(ladder.keep / other)]
        try:
            row = ladder.climb(name, rows[name], donors)
            new = pd.DataFrame([{"row": name, **row, "hash": hashes[name]}])
            table = pd.concat([table[table.row != name], new], ignore_index=True)
        except Failed as failure:
            print(f"{name}: failed: {failure} (its files: {ladder.keep / name})", file=sys.stderr)
        write_table(table, output)
    return standing()


def markdown(table: pd.DataFrame, rows: dict[str, dict]) -> str:
    """The rows of the table in the order of `rows`."""
    number = lambda text: f"{float(text):.4f}" if text else "-"
    table = table.set_index("row")
    lines = ["| row | what differs | score | 95 % interval | known | unknown | AUC | minutes |",
             "|---|---|--:|:-:|--:|--:|--:|--:|"]
    for row in table.loc[[name for name in rows if name in table.index]].itertuples():
        score, low, high, *others = map(number, (row.score, row.low, row.high, row.known, row.unknown, row.auc))
        told, minutes = [row.Index, rows[row.Index]["about"]], f"{float(row.seconds) / 60:.1f}"
        lines.append(f"| {' | '.join([*told, score, f'{low} to {high}', *others, minutes])} |")
    return "\n".join(lines)


def told(path: Path, key: str) -> object:
    """What a manifest says under a key."""
    check_file(path)
    return read_object(path, [key])[key]


def chosen(args: argparse.Namespace) -> Ladder:
    """What the arguments ask; InputError where the folds do not go together."""
    fold, asks_names = args.folds / str(args.fold), told(args.folds / "manifest.json", "protocol") == "identify"
    if not fold.is_dir():
        raise InputError(f"{fold}: no such fold; choose another --fold")
    if asks_names != (args.inner is not None):
        raise InputError(f"{args.folds}: --inner goes with folds of protocol identify alone, and they need it")
    check_file(fold / "train" / "metadata.csv")
    made_from = asks_names and told(args.inner.parent / "manifest.json", "metadata_sha256")
    if asks_names and made_from != hashlib.sha256((fold / "train" / "metadata.csv").read_bytes()).hexdigest():
        raise InputError(f"{args.inner}: not made from {fold}/train, so it may hold what {fold} asks; make it again")
    return Ladder(fold, args.inner, args.keep or args.output.with_suffix(""), args.seed, args.device)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train, predict and score a recipe with each of several differences.",
        epilog="example: python -m eval.ladder rows.yaml --recipe small --folds folds --fold 0 --output ladder.csv")
    parser.add_argument("rows", type=Path, metavar="ROWS.yaml", help="name -> about, shared, models, rank, identify")
    parser.add_argument("--recipe", required=True, help="what they differ from: a name or a .yaml file")
    parser.add_argument("--folds", type=Path, required=True, help="directory that python -m eval.folds wrote")
    parser.add_argument("--fold", type=int, default=0, help="the one to predict")
    parser.add_argument("--inner", type=Path, metavar="FOLD", help="protocol identify: the fold's train, folded again")
    parser.add_argument("--output", type=Path, required=True, help="the table.csv; rows are added to it")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="for weights and scores (default: named as the table)")
    parser.add_argument("--only", metavar="NAME,...", help="these rows (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    args = parser.parse_args()
    rows, ladder = read_rows(args.rows, args.recipe), chosen(args)
    names = args.only.split(",") if args.only else list(rows)
    for name in names:
        if name not in rows:
            raise InputError(f"--only: {args.rows} has no row {name!r}; there are {', '.join(rows)}")
    with alone(args.output):
        table = fill(rows, names, ladder, args.output)
    print(markdown(table, rows))
    missing = [name for name in names if name not in set(table.row)]
    if missing:
        sys.exit(f"no result for {', '.join(missing)}: the lines above tell why; the same command tries again")


if __name__ == "__main__":
    run(main)
