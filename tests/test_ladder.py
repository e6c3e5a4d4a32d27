"""An ablation table: what a row's recipe is, what is done again and what is not, and a toy ladder from end to end."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy
import yaml

from eval import folds, ladder
from eval.files import InputError
from solution import heads, recipe

ROOT = Path(__file__).parents[1]
BASE = {"about": "the base", "protocol": "identify",
        "shared": {"model": {"backbone": "one", "stages": [4]}, "train": {"epochs": 3, "size": 32}},
        "models": {"a": {}, "b": {"model": {"backbone": "two"}}}, "identify": {"by": "both", "new": "new_whale"}}


def write_yaml(path, table):
    path.write_text(yaml.safe_dump(table, sort_keys=False))
    return path


def row_recipe(tmp_path, base=BASE, **row):
    """The recipe of a row with these differences."""
    rows = write_yaml(tmp_path / "rows.yaml", {"row": {"about": "what differs", **row}})
    return ladder.read_rows(rows, str(write_yaml(tmp_path / "base.yaml", base)))["row"]


@pytest.fixture
def nested(tmp_path):
    """Folds of protocol identify, without photographs, and folded again; a Ladder on both."""
    data = toy.competition(tmp_path / "data", n_whales=24, images=False)
    folds.make(data, tmp_path / "folds", "identify")
    folds.make(tmp_path / "folds" / "0" / "train", tmp_path / "inner", "identify")
    return ladder.Ladder(tmp_path / "folds" / "0", tmp_path / "inner" / "0", tmp_path / "ladder", 0, "cpu")


# What a row is

def test_shared_and_identify_are_laid_over_and_models_are_replaced(tmp_path):
    made = row_recipe(tmp_path, shared={"train": {"epochs": 9}, "head": {"kind": "linear"}}, models={"c": {}}, identify={"by": "classifier"})
    assert made == {
        "about": "what differs", "protocol": "identify", "models": {"c": {}}, "identify": {"by": "classifier", "new": "new_whale"},
        "shared": {"model": {"backbone": "one", "stages": [4]}, "train": {"epochs": 9, "size": 32}, "head": {"kind": "linear"}}}


def test_a_list_is_replaced_and_a_row_without_differences_is_the_recipe(tmp_path):
    assert row_recipe(tmp_path, shared={"model": {"stages": [3, 4]}})["shared"]["model"]["stages"] == [3, 4]
    assert row_recipe(tmp_path) == {**BASE, "about": "what differs"}


def test_a_recipe_that_lacks_a_table_takes_the_rows(tmp_path):
    assert row_recipe(tmp_path, {"models": {"a": {}}}, shared={"train": {"size": 64}})["shared"] == {"train": {"size": 64}}


@pytest.mark.parametrize("text, says", [
    ("fine: {about: x}\nodd: 3", "row 'odd': it is 3"),
    ("odd: {shared: {}}", "row 'odd': about is None"),
    ("odd: {about: 'two\n\nlines'}", "row 'odd': about is"),
    ("odd: {about: x, share: {}}", "row 'odd': unknown key share"),
    ("odd: {about: x, shared: fast}", "row 'odd': shared is 'fast'"),
    ("odd: {about: x, models: }", "row 'odd': models is None"),
    ("../odd: {about: x}", "row '../odd': a name"),
    ("7: {about: x}", "row 7: a name"),
    ("odd: {about: x}\nodd: {about: y}", "odd stands there twice"),
    ("odd: {about: x, shared: {train: {}, train: {}}}", "line 1: train stands there twice"),
    ("odd: {about", "not valid YAML"),
    ("", "it is None; it must be a table"),
])
def test_a_malformed_row_is_named(tmp_path, text, says):
    (tmp_path / "rows.yaml").write_text(text)
    with pytest.raises(InputError, match=r"rows\.yaml") as error:
        ladder.read_rows(tmp_path / "rows.yaml", str(write_yaml(tmp_path / "base.yaml", BASE)))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_the_recipe_may_be_a_name_and_must_be_there(tmp_path):
    rows = write_yaml(tmp_path / "rows.yaml", {"row": {"about": "x"}})
    assert ladder.read_rows(rows, "small")["row"]["models"]
    with pytest.raises(InputError, match="no-such.yaml: no such file"):
        ladder.read_rows(rows, "no-such")


@pytest.mark.parametrize("rows, base", [("ladder", "base"), ("switches", "short"), ("members", "member"), ("peers", "member"), ("naming", "hwi-small"), ("rank", "small")])
def test_every_row_that_ships_is_a_recipe(tmp_path, rows, base):
    tried = ladder.RECIPES / "tried"
    told = tried / f"{base}.yaml"
    made = ladder.read_rows(tried / f"{rows}.yaml", str(told) if told.is_file() else base)
    loaded = [recipe.load(str(write_yaml(tmp_path / f"{name}.yaml", row))) for name, row in made.items()]
    assert len({str((one.models, one.rank, one.identify)) for one in loaded}) == len(made)


def test_the_rows_of_peers_are_what_they_are_named_after(tmp_path):
    tried = ladder.RECIPES / "tried"
    rows = ladder.read_rows(tried / "peers.yaml", str(tried / "member.yaml"))
    humpback, wildlife_tools = (recipe.load(str(write_yaml(tmp_path / f"{name}.yaml", rows[name]))).models[0] for name in ("humpback", "wildlife-tools"))
    assert replace(humpback, name="lite0_224") == recipe.load("hwi-small").models[0]
    assert (wildlife_tools.head.sub_centres, wildlife_tools.head.scale) == (1, 64)
    assert heads.dynamic_margins(torch.tensor([1, 50]), wildlife_tools.head).tolist() == [0.5, 0.5]


# What is done again

def test_a_hash_follows_what_decides_a_row_and_nothing_else(nested, tmp_path):
    same = [BASE, {**BASE, "about": "other words"}, dict(reversed(BASE.items())),
            {**BASE, "shared": dict(reversed(BASE["shared"].items()))}]
    other = [{**BASE, "identify": {}}, {**BASE, "protocol": "whale"}, {**BASE, "shared": {}},
             {**BASE, "models": dict(reversed(BASE["models"].items()))}]
    assert len({nested.hash(recipe) for recipe in same}) == 1
    assert len({nested.hash(recipe) for recipe in [BASE, *other]}) == 5
    elsewhere = [ladder.Ladder(nested.fold, nested.inner, tmp_path / "other", 0, "cuda"), nested]
    assert len({one.hash(BASE) for one in elsewhere}) == 1
    changed = [ladder.Ladder(nested.fold, nested.inner, nested.keep, 1, "cpu"), ladder.Ladder(nested.fold, None, nested.keep, 0, "cpu")]
    assert len({one.hash(BASE) for one in [nested, *changed]}) == 3
    manifest = nested.inner.parent / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 5'))
    assert nested.hash(BASE) != ladder.Ladder(nested.fold, None, nested.keep, 0, "cpu").hash(BASE)
    assert nested.hash(BASE) not in {one.hash(BASE) for one in changed}


class Obeyed:
    """In place of the commands: notes them and writes what they would; a training whose recipe has epochs 0 fails."""

    def __init__(self):
        self.told = []

    def __call__(self, command):
        module, words = command[0], dict(zip(command[1:], command[2:]))
        self.told.append(module)
        if module == "solution.train":
            weights, recipe = words["--output"], yaml.safe_load(words["--recipe"].read_text())
            if recipe["shared"]["train"]["epochs"] == 0:
                raise ladder.Failed("solution.train ended with status 2: error: no epochs")
            weights.mkdir(exist_ok=True)
            if not (weights / "a.npz").is_file():
                self.told.append("epochs")
                (weights / "a.npz").write_text("weights")
                (weights / "a.log.csv").write_text("epoch,seconds\n0,60\n1,30\n")
            assert not (weights / "identify.json").exists()
            (weights / "identify.json").write_text(json.dumps({"map5": 0.5, "identify": recipe["identify"]}))
        elif module == "eval.score":
            words["--json"].write_text(json.dumps({"strict": 0.75, "ci95": [0.5, 1.0], "open_set": {"auc": 0.9}}))
            per_query = {"query_id": list("abc"), "scenario_id": "", "query_image_id": list("abc"), "whale_id": ["w", "", "v"], "n_pos": 1}
            measures = dict.fromkeys(["official", "map5_images", "map5_individuals", "top1"], np.nan)
            pd.DataFrame({**per_query, **measures, "strict": [1.0, 0.5, 0.75]}).to_csv(words["--per-query"], index=False)


@pytest.fixture
def climb(nested, tmp_path, monkeypatch):
    """A function of rows, and of names where not all: the modules that ran, the table as it stands and as it is on disk."""

    def run(rows, *names):
        obeyed = Obeyed()
        monkeypatch.setattr(ladder, "obey", obeyed)
        recipes = {name: ladder.laid_over(BASE, {"about": name, **row}) for name, row in rows.items()}
        standing = ladder.fill(recipes, list(names or rows), nested, tmp_path / "ladder.csv")
        return obeyed.told, standing, pd.read_csv(tmp_path / "ladder.csv")

    return run


COMMANDS = ["solution.train", "solution.predict", "eval.score"]
TRAINED = ["solution.train", "epochs", "solution.predict", "eval.score"]
ROWS = {"base": {}, "named": {"identify": {"by": "classifier"}}, "long": {"shared": {"train": {"epochs": 9}}}}
FAILING = {"shared": {"train": {"epochs": 0}}}


def test_a_row_that_differs_in_identify_alone_takes_the_weights_but_is_fitted_anew(climb, nested, capsys):
    told, _, table = climb(ROWS)
    assert told == [*TRAINED, *COMMANDS, *TRAINED] and list(table.row) == list(ROWS)
    assert "named: takes the weights of base" in capsys.readouterr().err
    fitted = json.loads((nested.keep / "named" / "weights" / "identify.json").read_text())
    assert fitted["identify"] == {"by": "classifier", "new": "new_whale"}


def test_a_row_that_ranks_otherwise_takes_the_weights_too(climb, nested):
    told, _, table = climb({"base": {}, "expanded": {"rank": {"rerank": "database_expansion"}}})
    assert told == [*TRAINED, *COMMANDS] and table.hash.nunique() == 2
    assert yaml.safe_load((nested.keep / "expanded" / "recipe.yaml").read_text())["rank"] == {"rerank": "database_expansion"}
    both = ladder.laid_over({"rank": {"rerank": "k_reciprocal", "cosine": 0.5}}, {"rank": {"cosine": 0.7}})
    assert both["rank"] == {"rerank": "k_reciprocal", "cosine": 0.7}


def test_figures_are_those_of_the_files(climb):
    _, _, table = climb({"base": {}})
    row = table.iloc[0]
    assert (row.score, row.low, row.high, row.auc, row.inner_map5, row.seconds) == (0.75, 0.5, 1, 0.9, 0.5, 90)
    assert (row.known, row.unknown) == ((1 + 0.75) / 2, 0.5)


def test_a_second_run_does_nothing(climb, tmp_path, capsys):
    climb(ROWS)
    before = (tmp_path / "ladder.csv").stat().st_mtime_ns
    told, standing, _ = climb(ROWS)
    assert told == [] and list(standing.row) == list(ROWS) and (tmp_path / "ladder.csv").stat().st_mtime_ns == before
    assert capsys.readouterr().err.count("already") == 3


def test_a_failing_row_is_told_and_the_others_stand(climb, capsys):
    _, standing, table = climb({"base": {}, "none": FAILING, "long": ROWS["long"]})
    assert list(table.row) == list(standing.row) == ["base", "long"]
    error = capsys.readouterr().err
    assert "row 2 of 3: none: none" in error and "none: failed: solution.train ended with status 2: error: no epochs" in error


def test_a_row_that_changes_is_made_anew_and_another_files_row_stays_on_disk_alone(climb):
    climb(ROWS)
    told, standing, table = climb({"base": {}, "named": {"identify": {"by": "neighbours"}}})
    assert told == COMMANDS  # on the weights that it has
    assert list(standing.row) == ["base", "named"] and sorted(table.row) == ["base", "long", "named"]


def test_a_row_whose_training_changed_is_trained_anew_in_a_directory_of_its_own(climb, nested, capsys):
    climb(ROWS)
    stale = nested.keep / "long" / "weights" / "b.npz"
    stale.write_text("of the old recipe")
    told, standing, table = climb({**ROWS, "long": {"models": {"c": {}}}})
    assert told == TRAINED and not stale.exists() and (nested.keep / "named" / "weights" / "a.npz").exists()
    assert list(standing.row) == list(ROWS) == list(table.row)
    assert f"long: shared or models changed; {nested.keep / 'long'} is removed" in capsys.readouterr().err


def test_an_old_result_stays_in_the_table_until_the_new_one_is_there(climb):
    _, _, before = climb(ROWS)
    _, standing, table = climb({**ROWS, "base": FAILING})
    assert list(standing.row) == ["named", "long"] and table.equals(before)
    told, standing, table = climb({**ROWS, "base": {"shared": {"train": {"epochs": 5}}}})
    assert told == TRAINED and sorted(standing.row) == sorted(table.row) == sorted(ROWS)


def test_weights_are_not_taken_from_a_row_that_was_since_made_with_another_recipe(climb):
    climb({"base": {}})
    climb({"base": FAILING})
    told, standing, _ = climb(ROWS, "named")  # the result of `base` stands, its weights are gone
    assert told == TRAINED and list(standing.row) == ["base", "named"]


def test_rows_can_be_made_one_by_one_and_are_shown_in_the_order_of_the_file(climb):
    climb(ROWS, "long")
    told, standing, _ = climb(ROWS, "named")
    assert told == TRAINED and list(standing.row) == ["long", "named"]
    told, standing, _ = climb(ROWS)
    assert told == COMMANDS  # `base` takes the weights of `named`
    standing = pd.concat([standing, standing[:1].assign(row="bare", known="", auc="")])
    lines = ladder.markdown(standing, {name: {"about": f"as {name}"} for name in [*ROWS, "never", "bare"]}).split("\n")
    assert lines[2] == "| base | as base | 0.7500 | 0.5000 to 1.0000 | 0.8750 | 0.5000 | 0.9000 | 1.5 |"
    assert [line.split()[1] for line in lines[2:]] == ["base", "named", "long", "bare"]
    assert lines[5] == "| bare | as bare | 0.7500 | 0.5000 to 1.0000 | - | 0.5000 | - | 1.5 |"
    assert {line.count("|") for line in lines} == {9}


def test_without_names_nothing_is_validated_and_no_probabilities_are_asked(nested):
    bare = ladder.Ladder(nested.fold, None, nested.keep, 3, "cpu")
    for one, given in ((nested, True), (bare, False)):
        commands = [list(map(str, command)) for command in one.commands(nested.keep / "row")]
        train, predict, score = commands
        assert ("--validate" in train) == ("--probabilities" in predict) == ("--probabilities" in score) == given
        assert train[train.index("--data") + 1] == str((nested.inner if given else nested.fold) / "train")
    assert train[train.index("--seed") + 1] == "3"


# The command

def command(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-m", "eval.ladder", *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True)


def asked(path, rows, base=BASE):
    return [write_yaml(path / "rows.yaml", rows), "--recipe", write_yaml(path / "base.yaml", base), "--output", path / "ladder.csv", "--device", "cpu"]


def test_folds_that_do_not_go_together_are_refused(nested, tmp_path):
    words = asked(tmp_path, {"row": {"about": "x"}})
    folds.make(tmp_path / "data", tmp_path / "whale", "whale")
    folds.make(tmp_path / "data", tmp_path / "leaking", "identify")
    for given, says in [
        (["--folds", tmp_path / "folds"], "they need it"),
        (["--folds", tmp_path / "whale", "--inner", nested.inner], "protocol identify alone"),
        (["--folds", tmp_path / "folds", "--inner", tmp_path / "leaking" / "0"], "may hold what"),
        (["--folds", tmp_path / "folds", "--fold", 4], "no such fold"),
        (["--folds", tmp_path / "folds", "--inner", nested.inner, "--only", "other"], "has no row 'other'; there are row"),
    ]:
        refused = command(*words, *given)
        assert refused.returncode == 2 and says in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert not (tmp_path / "ladder.csv").exists() and not nested.keep.exists()


TINY = {"protocol": "identify", "models": {"tiny": {}}, "shared": {
    "model": {"backbone": "test_efficientnet", "pretrained": "none", "stages": [4], "parts": 2, "part_width": 8},
    "head": {"kind": "linear", "total": True}, "train": {"size": 64, "epochs": 2, "batch_size": 16}}}


def test_a_toy_ladder_from_end_to_end(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=24)
    folds.make(data, tmp_path / "folds", "identify")
    folds.make(tmp_path / "folds" / "0" / "train", tmp_path / "inner", "identify")
    rows = {"plain": {"about": "as it is"}, "share": {"about": "a third is new", "identify": {"new_share": 0.3}},
            "odd": {"about": "no such key", "shared": {"train": {"epoch": 3}}}}
    words = [*asked(tmp_path, rows, TINY), "--folds", tmp_path / "folds", "--inner", tmp_path / "inner" / "0"]
    done = command(*words)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "row 3 of 3: odd: no such key" in done.stderr and "unknown key train.epoch" in done.stderr
    assert done.stderr.endswith("no result for odd: the lines above tell why; the same command tries again\n")
    table = pd.read_csv(tmp_path / "ladder.csv").set_index("row")
    assert list(table.index) == ["plain", "share"] and [line.split()[1] for line in done.stdout.splitlines()[2:]] == ["plain", "share"]

    work = tmp_path / "ladder"
    for name in ("tiny.npz", "tiny.log.csv"):
        assert (work / "plain" / "weights" / name).read_bytes() == (work / "share" / "weights" / name).read_bytes()
    fitted = {name: json.loads((work / name / "weights" / "identify.json").read_text()) for name in table.index}
    assert fitted["plain"]["new_share"] is None and fitted["share"]["new_share"] == 0.3
    for name, row in table.iterrows():
        truth = pd.read_csv(tmp_path / "folds" / "0" / "truth.csv").set_index("Image").Id
        given = pd.read_csv(work / name / "submission.csv").set_index("Image").Id.str.split()
        value = {image: 1 / (given[image].index(whale) + 1) if whale in given[image] else 0 for image, whale in truth.items()}
        known = [value[image] for image in truth.index if truth[image] != "new_whale"]
        unknown = [value[image] for image in truth.index if truth[image] == "new_whale"]
        assert (row.score, row.known, row.unknown) == pytest.approx((np.mean(known + unknown), np.mean(known), np.mean(unknown)))
        assert row.low <= row.score <= row.high and 0 <= row.auc <= 1 and row.inner_map5 == fitted[name]["map5"] and row.seconds > 0

    before = {path: path.stat().st_mtime_ns for path in [*work.rglob("*"), tmp_path / "ladder.csv"]}
    again = command(*words, "--only", "plain,share")
    assert again.returncode == 0 and again.stderr.count("already") == 2 and again.stdout == done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in [*work.rglob("*"), tmp_path / "ladder.csv"]}
