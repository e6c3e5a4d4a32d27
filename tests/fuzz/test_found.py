"""What the fuzzer and the reading before it found, each with the smallest input that shows it."""

import json
import lzma
import os
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from eval import ensembles, files, folds, labels, ladder, leaderboard, openset, rules, score, step, summary
from eval.errors import InputError
from eval.page import answers, pictures
from eval.page.records import read_manifest
from eval.sources import kaggle, wildlife
from places import fold, pictures as photographs, table
from solution import errors, identify, images, naming, pseudo, recipe, scenarios, validate
from solution import files as solution_files
from submission import main as offline
from submission import pack, rehearse

HALVES = {"eval": (files, InputError), "solution": (solution_files, errors.InputError)}
both = pytest.mark.parametrize("module, error", HALVES.values(), ids=HALVES)
SOLUTION = errors.InputError


def refused(error, words: str, call, *arguments, **more) -> str:
    with pytest.raises(error) as told:
        call(*arguments, **more)
    assert words in str(told.value), str(told.value)[:500]
    return str(told.value)


def one_line(module, raised, capsys) -> str:
    def main():
        raise raised

    with pytest.raises(SystemExit) as stopped:
        module.run(main)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1
    return err


# Tables

@both
def test_of_two_columns_of_one_name_none_is_chosen(module, error, tmp_path):
    path = table(tmp_path / "t.csv", ["image_id,path,path", "a,b,c"])
    refused(error, "t.csv: line 1: column 'path' stands there twice", module.read_table, path)
    assert list(module.read_table(table(path, ["a,,,a.1", "1,2,3,4"])).columns)[0] == "a"  # nameless ones, and a name as pandas would make it


@both
def test_a_file_cut_within_its_last_line_is_told_with_the_line(module, error, tmp_path):
    path = tmp_path / "t.csv"
    for content, line in ((b'a,b,c\n1,"2,\n2",3\n4,5', 4), (b"a,b,c\r1,2,3\r4", 3), (b"\xef\xbb\xbfa,b\n\n1\n", 3)):
        path.write_bytes(content)
        refused(error, f"t.csv: line {line}: ", module.read_table, path)
    for content in (b'a,b\n"1,2",3\n\n"x""y,",4', b"a\n1\n\n2", b"a,b\n5\" long,1\n6\" long,2\n"):
        path.write_bytes(content)
        assert len(module.read_table(path)) == 2


def test_a_prediction_leaves_a_row_out_that_was_cut_and_says_so(tmp_path, capsys):
    path = table(tmp_path / "t.csv", ["a,b", "1,2", "3", "4,5"])
    found = solution_files.read_table(path, ["a"], solution_files.Complaints(strict=False))
    assert found.values.tolist() == [["1", "2"], ["4", "5"]] and "line 3" in capsys.readouterr().err


def test_a_submission_that_was_cut_breaks_a_rule(tmp_path):
    place = fold(tmp_path / "folds/0")
    query, image = pd.read_csv(place / "truth.csv").iloc[0]
    evaluation = score.evaluate(table(tmp_path / "s.csv", ["query_id,database_image_id,score", f"{query},{image},0.5", f"{query},{image}"]), place / "truth.csv")
    assert any("score ''" in breach for breach in evaluation.breaches)


def test_the_name_of_a_table_unpacks_nothing(tmp_path):
    (tmp_path / "t.csv.xz").write_bytes(lzma.compress(b"a\n1\n"))
    refused(SOLUTION, "t.csv.xz: ", solution_files.read_table, tmp_path / "t.csv.xz")
    table(tmp_path / "t.zip", ["a", "1"])
    assert len(solution_files.read_table(tmp_path / "t.zip")) == 1


@both
def test_a_zero_byte_is_told_with_its_line(module, error, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a\n" + b"1\n" * 40_000 + b"2\0\n")
    refused(error, "line 40002 holds a zero byte", module.read_table, tmp_path / "t.csv")


@both
def test_an_error_is_one_line_of_bounded_length_whatever_a_cell_holds(module, error, capsys):
    line = one_line(module, error("t.csv: line 2: " + "a\nb\x1b" * 1_000_000 + "; mend it"), capsys)
    assert line.startswith("error: t.csv: line 2: ") and line.endswith("; mend it\n") and len(line) < 1100


def test_a_cell_that_names_our_error_hides_no_place():
    assert str(errors.InputError("t.csv: line 2: 'InputError: x' is wrong")).startswith("t.csv: line 2")
    wrapped = "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  raise\nsolution.errors.InputError: a.jpg: broken"
    assert str(errors.InputError(wrapped)) == "a.jpg: broken"


@both
def test_a_path_may_be_any_text(module, error, tmp_path):
    os.symlink("loop", tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("x" * 5000, "no such file"), ("a\0b", "no such file"), ("loop", "no such file"), ("pipe", "no such file"), (".", "is a directory")):
        refused(error, words, module.read_table, tmp_path / name)
        refused(error, words, module.read_json, tmp_path / name)


# JSON

@both
@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", "1e400", "9" * 400, "9" * 5000, "[" * 100_000, "\ufeff{}", "{", '"\udcff"'])
def test_json_holds_numbers_that_can_be_calculated_with(module, error, text, tmp_path):
    (tmp_path / "x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(error, "x.json: not valid JSON", module.read_json, tmp_path / "x.json")


@both
def test_numbers_of_json_are_as_they_were(module, error, tmp_path):
    (tmp_path / "x.json").write_text("[1, -2, 1.5, 1e3, 12345678901234567890]")
    assert module.read_json(tmp_path / "x.json") == [1, -2, 1.5, 1000.0, 12345678901234567890] and type(module.read_json(tmp_path / "x.json")[0]) is int


# Dates

@pytest.mark.parametrize("word", ["now", "today", "-0001-01-01"])
def test_a_time_never_comes_from_the_clock(word, tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=4, images=False)
    rows = pd.read_csv(data / "metadata.csv", dtype=str)
    rows.assign(date=word).to_csv(data / "metadata.csv", index=False)
    refused(InputError, "line 2", labels.read_labels, data)
    refused(InputError, "not a day", folds.make, data, tmp_path / "f", "time", date=word)
    photographs(tmp_path / "p", "a.jpg")
    refused(InputError, "is not a time", wildlife.write_paths, tmp_path, table(tmp_path / "p/t.csv", ["path,identity,date", f"a.jpg,w,{word}"]), None, None, None)


def test_years_that_iso_8601_writes_otherwise_are_no_dates(tmp_path):
    photographs(tmp_path / "p", "a.jpg")
    refused(InputError, "is not a time", wildlife.write_paths, tmp_path, table(tmp_path / "p/t.csv", ["path,identity,date", "a.jpg,w,0001-01-01"]), None, None, None)


# Numbers

@pytest.mark.parametrize("column, cell", [("strict", "x"), ("official", "inf"), ("n_pos", "0"), ("n_pos", ""), ("strict", "1e300")])
def test_a_per_query_file_is_told_with_its_line(column, cell, tmp_path):
    row = {"query_id": "q", "scenario_id": "s", "query_image_id": "a", "whale_id": "w", "n_pos": "1", **dict.fromkeys(score.MEASURES, "0.5"), "_merge": "x", column: cell}
    pd.DataFrame([row]).to_csv(tmp_path / "q.csv", index=False)
    refused(InputError, "q.csv: line 2: ", score.read_per_query, tmp_path / "q.csv")
    pd.DataFrame([{**row, column: "1"}]).to_csv(tmp_path / "q.csv", index=False)
    assert "_merge" not in score.read_per_query(tmp_path / "q.csv")


def test_a_box_may_be_larger_than_numbers_go():
    assert images.within((float("-inf"), -1e308, float("inf"), 1e308), (30, 20)) == (0, 0, 30, 20)
    assert images.within((5.4, 6.6, 1e300, 8), (30, 20)) == (5, 7, 30, 8) and images.within((40, 0, 50, 5), (30, 20)) == (0, 0, 30, 20)


def test_a_seed_is_one_that_every_library_takes():
    assert solution_files.natural(str(2**63 - 1)) == 2**63 - 1
    for text in (str(2**63), "9" * 5000, "-1", "²"):
        with pytest.raises(Exception, match="is not a whole number"):
            solution_files.natural(text)


def test_more_folds_than_photographs_take_no_memory(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=4, images=False)
    refused(InputError, "--n-folds 1000000000: ", folds.make, data, tmp_path / "f", "encounter", n_folds=10**9)


# Ids and paths

@pytest.mark.parametrize("name", ["image_id", "whale_id"])
def test_an_id_is_not_as_wide_as_memory(name, tmp_path, capsys):
    row = {"image_id": "b", "path": "b.jpg", "whale_id": "w", name: "y" * 10_000_000}
    table(tmp_path / "metadata.csv", ["image_id,path,whale_id", "a,a.jpg,w", ",".join(row.values())])
    refused(SOLUTION, f"line 3: {name} 'yyy", images.listed, tmp_path)
    found = images.listed(tmp_path, solution_files.Complaints(strict=False))
    assert list(found.image_id) == ["a"] and len(capsys.readouterr().err) < 1100


def scenario(data: Path, queries: str = "q.csv", query: str = "q", image: str = "a") -> Path:
    table(data / "query_scenarios.csv", ["scenario_id,queries_path,database_path", f"s,{queries},d.csv"])
    table(data / "q.csv", ["query_id,query_image_id", f"{query},{image}"])
    table(data / "d.csv", ["database_image_id", "b"])
    return data


def test_the_ids_of_scenarios_are_bounded_too(tmp_path):
    refused(SOLUTION, "q.csv: line 2: query_image_id", scenarios.read, scenario(tmp_path, image="y" * 5000))


@pytest.mark.parametrize("path", ["loop", "folder/q.csv", "folder/../../outside/q.csv", "/etc/passwd", "../outside/q.csv"])
def test_no_scenario_is_read_through_a_link(path, tmp_path):
    table(tmp_path / "outside/q.csv", ["query_id,query_image_id", "q,a"])
    data = scenario(tmp_path / "data", queries=path)
    os.symlink("../outside", data / "folder")
    os.symlink("loop", data / "loop")
    for error, read in ((SOLUTION, scenarios.read), (InputError, rules.read_scenarios)):
        refused(error, "loop" if path == "loop" else "leads out of", read, data)


@pytest.mark.parametrize("path", ["link.jpg", "folder/secret.jpg"])
def test_no_page_shows_a_photograph_through_a_link(path, tmp_path):
    photographs(tmp_path / "outside", "secret.jpg")
    run = tmp_path / "folds/0"
    table(run / "test/metadata.csv", ["image_id,path", f"a,{path}"])
    table(run / "labels.csv", ["image_id,whale_id,encounter_id", "a,w,e"])
    os.symlink("../../../outside/secret.jpg", run / "test/link.jpg")
    os.symlink("../../../outside", run / "test/folder")
    refused(InputError, "metadata.csv: line 2: path", answers.photographs, run, "test")
    table(run / "test/pairs.csv", [",".join(pictures.PAIR), "q,a,b,1,0.5,link.jpg"])
    refused(InputError, "pairs.csv: line 2: picture", pictures.explained, run / "test/pairs.csv")


def test_a_photograph_is_called_by_the_name_of_its_file(tmp_path):
    asked = naming.Naming.__new__(naming.Naming)
    asked.asked = pd.DataFrame({"path": [str(tmp_path / "x\\a.jpg"), str(tmp_path / "a.jpg"), str(tmp_path / "d\ne/b.jpg")]}, dtype=object)
    asked.identification = Namespace(columns=("Image", "Id"))
    assert list(asked.submission(np.full((3, 5), "w", object)).Image) == ["x\\a.jpg", "a.jpg", "b.jpg"]


def test_a_kaggle_photograph_needs_a_name_before_its_suffix():
    refused(InputError, "no name before its suffix", kaggle.image_rows, Path("train.csv"), pd.Series([".jpg"]))


# Recipes

ALIASES = "\n".join(["a: &a0 {flip: 1}", *(f"b{k}: &a{k} {{{', '.join(f'k{n}: *a{k - 1}' for n in range(9))}}}" for k in range(1, 12)), "shared: {augment: *a11}", "models: {m: {augment: *a11}}"])


@pytest.mark.parametrize("text, words", [
    (ALIASES, "are no recipe"), ("models: &m {a: *m}", "are no recipe"), ("[" * 600, "nested too deeply"), ("x" * 300_000, "KiB are no recipe"),
    ("models: {" + "m" * 60 + ": {model: {backbone: b}}}", "at most 50 letters"), ('models: {m: {model: {backbone: "\\ud800"}}}', "text that a file can hold"), ("\n".join(f"k{n}: 1" for n in range(6000)), "are no recipe"),
    ('models: {m: {model: {backbone: b}}}\nidentify: {columns: ["a\\nb", c]}', "identify.columns"), ('models: {m: {model: {backbone: b}}}\nidentify: {new: "\\u202e"}', "identify.new"),
    *((f"models: {{m: {{model: {{backbone: b, parts: {value}}}}}}}", "model.parts") for value in (10**9, "9" * 400)), ("models: {m: {model: {backbone: b, part_width: 1000000000}}}", "model.part_width"),
    ("models: {m: {model: {backbone: b, parts: 256, part_width: 1000}}}", "model.part_width"),
    *((f"models: {{m: {{model: {{backbone: b}}, {key}: {value}}}}}", key.replace(": {", ".").split(".")[0]) for key, value in (("train: {epochs", "1000000000}"), ("train: {batch_size", "1000000000000}"), ("head: {sub_centres", "1000000}")))])
def test_a_recipe_that_would_take_everything_is_refused(text, words, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    assert refused(SOLUTION, words, recipe.load, str(tmp_path / "r.yaml")).startswith(f"{tmp_path}/r.yaml: ")
    if "are no recipe" in words or "deeply" in words:
        refused(InputError, words, ladder.read_yaml, tmp_path / "r.yaml")


def test_aliases_that_only_spare_writing_are_read(tmp_path):
    (tmp_path / "r.yaml").write_text("shared: {train: {epochs: 3}}\nmodels: {a: &m {model: {backbone: b}}, c: *m}\n")
    assert [spec.train.epochs for spec in recipe.load(str(tmp_path / "r.yaml")).models] == [3, 3]


def test_a_value_that_is_refused_is_shown_in_part(tmp_path):
    (tmp_path / "r.yaml").write_text("models: [" + "[[[[[[[[1, 2]]]]]]]], " * 100 + "1]")
    assert len(refused(SOLUTION, "models is [", recipe.load, str(tmp_path / "r.yaml"))) < 600


def test_keys_of_an_ablation_are_words(tmp_path):
    (tmp_path / "rows.yaml").write_text("a: {about: x, shared: {train: {1: 2, b: 3}}}")
    (tmp_path / "base.yaml").write_text("models: {}")
    refused(InputError, "shared has the key 1", ladder.read_rows, tmp_path / "rows.yaml", str(tmp_path / "base.yaml"))


# Files that commands read back

@pytest.mark.parametrize("columns", [["a", "a"], ["a"], ["Id", "a"], ["a\nb", "c"], ["", "b"], ["\ud800", "b"]])
def test_names_are_written_under_two_different_columns(columns, tmp_path):
    told = {"temperature": 1, "theta_p": 0, "theta_f": 0, "c1": 1, "c2": 1, "c3": 1, "map5": None, "ci95": None, "n_queries": 1, "scale": 1, "bias": 0, "nearest": [0, 0]}
    (tmp_path / "identify.json").write_text(json.dumps({**told, "columns": columns}))
    refused(SOLUTION, "identify.json: not an identification: columns", identify.read, tmp_path / "identify.json")
    (tmp_path / "identify.json").write_text(json.dumps({**told, "new": "new whale"}))
    refused(SOLUTION, "new is 'new whale'", identify.read, tmp_path / "identify.json")


@pytest.mark.parametrize("key, value", [("seed", [1]), ("seed", -1), ("seed", 1.5), ("n_folds", "5"), ("protocol", {}), ("protocol", "a\nb"), ("date", 3), ("metadata_sha256", None), ("seed", 10**18)])
def test_a_manifest_goes_on_no_board_that_would_refuse_it(key, value, tmp_path):
    right = {"protocol": "whale", "seed": 0, "n_folds": 5, "date": None, "metadata_sha256": "ab"}
    (tmp_path / "manifest.json").write_text(json.dumps({**right, key: value}))
    refused(InputError, f"manifest.json: {key} is ", leaderboard.read_manifest, tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "{}", '{"folds": []}', '{"folds": {"0": {}}}', '{"folds": {"0": {"train_images": "x"}}, "notes": []}'])
def test_folds_that_are_kept_are_told_or_refused(text, tmp_path):
    (tmp_path / "manifest.json").write_text(text)
    refused(InputError, "manifest.json: not as python -m eval.folds writes it", folds.tell, tmp_path / "manifest.json")


def test_a_manifest_that_is_no_object_is_of_other_folds(tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=4, images=False)
    table(tmp_path / "folds/manifest.json", ["[]"])
    refused(InputError, "made with another protocol", folds.kept, data, tmp_path / "folds", protocol="whale", n_folds=5, seed=0, date=None)
    refused(InputError, "no such file", folds.kept, tmp_path, tmp_path / "folds", protocol="whale", n_folds=5, seed=0, date=None)


def test_counts_of_a_manifest_are_not_negative(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"protocol": "whale", "seed": 0, "folds": {"0": {"queries": 1, "chance_top1": 0.1}, "1": {"queries": -1}}}))
    refused(InputError, "fold 1: queries is -1", read_manifest, tmp_path / "manifest.json")


def run_of(path: Path, **more) -> Path:
    row = {"query_id": "q", "scenario_id": "s", "query_image_id": "a", "whale_id": "w", "n_pos": 1, **dict.fromkeys(score.MEASURES, 0.5)}
    (path / "fold0").mkdir(parents=True)
    pd.DataFrame([row]).to_csv(path / "fold0/per_query.csv", index=False)
    (path / "fold0/score.json").write_text(json.dumps({**score.summarise(pd.DataFrame([row]), []), **more}))
    table(path / "summary.csv", ["step,seconds,peak_mb", "a,1,2"])
    return path


@pytest.mark.parametrize("more", [{"strict_errors": 3}, {"scenarios": []}, {"open_set": []}, {"n_queries": "x"}])
def test_a_summary_reads_scores_with_suspicion(more, tmp_path):
    refused(InputError, "fold0/score.json", summary.pooled, [run_of(tmp_path, **more) / "fold0"])


def test_a_summary_passes_over_folders_that_are_no_folds(tmp_path, monkeypatch, capsys):
    run = run_of(tmp_path / "run", open_set={"auc": None})
    table(run / "foldx/per_query.csv", ["x"])
    monkeypatch.setattr(sys, "argv", ["summary", str(run)])
    summary.main()
    assert "open set: AUC -" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["summary", str(run), "--folds", "0/../../x"])
    refused(InputError, "--folds: '0/../../x'", summary.main)
    table(run / "summary.csv", ["step,seconds,peak_mb", "a,x,2"])
    monkeypatch.setattr(sys, "argv", ["summary", str(run)])
    refused(InputError, "summary.csv: line 2: seconds is 'x'", summary.main)


def test_figures_that_are_absent_are_shown_as_such(capsys):
    openset.show({"auc": 0.5, "wrong_above": {"0.5": [1, None]}})
    assert "AUC 0.5000, Brier -" in capsys.readouterr().out


@pytest.mark.parametrize("row", ["odd,a,yes,0.5,", "single,a+b,yes,0.5,", "single,a,yes,0.5,0.1", "prefix,a,yes,0.5,0.1", "without,c,yes,0.5,0.1", "single,a,maybe,0.5,", "single,a,yes,1.5,", "single,a,yes,,"])
def test_rows_of_ensembles_that_no_run_has_are_told(row, tmp_path):
    path = table(tmp_path / "ensembles.csv", ["kind,models,mirror,strict,gain,folds", "prefix,a+b,yes,0.5,0.1,0", f"{row},0"])
    refused(InputError, "ensembles.csv: line 3", ensembles.read, path, ["strict", "gain"])


@pytest.mark.parametrize("text", ["[]", '{"models": 3}', '{"models": {"a": {"plain_seconds": "x"}}}', '{"images": -1}'])
def test_timings_are_numbers(text, tmp_path):
    table(tmp_path / "fold0/timings.json", [text])
    refused(InputError, "fold0/timings.json", ensembles.read_timings, tmp_path, [0])


def test_timings_that_lack_something_tell_no_seconds():
    variant = ensembles.Variant(("a",), "yes")
    for timing in ({}, {"models": {"a": {}}, "images": 3}, {"models": {"a": {"plain_seconds": 1}}}, {"models": {"a": {"plain_seconds": 1}}, "images": 0}):
        assert np.isnan(ensembles.seconds(variant, [timing]))


@pytest.mark.parametrize("row", ["a,x,2", "a,nan,2", "a,,2", "a,-1,2", "a,1"])
def test_a_damaged_list_of_steps_is_told_before_the_step_runs(row, tmp_path, monkeypatch):
    table(tmp_path / "s.csv", ["step,seconds,peak_mb", row])
    monkeypatch.setattr(sys, "argv", ["step", str(tmp_path / "s.csv"), "a", "--", "touch", str(tmp_path / "ran")])
    refused(InputError, "s.csv: line 2", step.main)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["[]", "3", '"x"'])
def test_a_trail_is_an_object(text, tmp_path):
    table(tmp_path / "provenance.json", [text])
    refused(SOLUTION, "provenance.json: holds a ", pack.trail, tmp_path)


@pytest.mark.parametrize("text", ["[]", '{"embed_seconds": "x"}', '{"embed_seconds": null}', "{", "NaN", '"embed_seconds"'])
def test_what_a_strangers_program_notes_stops_no_rehearsal(text, tmp_path):
    table(tmp_path / "timings.json", [text])
    assert rehearse.phases_of_main(tmp_path / "timings.json") == {}


@pytest.mark.parametrize("manifest", ["[]", '{"format": 1}', '{"format": 1, "files": []}', '{"format": 1, "files": {"a": 3}}', '{"format": 1, "files": {"../a": {"size": 1, "sha256": ""}}}', "[" * 100_000])
def test_a_packed_submission_refuses_a_manifest_in_a_line(manifest, tmp_path, capsys):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(SystemExit):
        offline.check(tmp_path, offline.manifest_of(tmp_path))
    assert capsys.readouterr().err.startswith("error: manifest.json: ")


def test_a_packed_submission_waits_for_no_pipe(tmp_path, capsys):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(SystemExit):
        offline.manifest_of(tmp_path)
    assert "no such file" in capsys.readouterr().err


# A second round

def test_pseudo_labels_need_the_photographs_names(tmp_path):
    refused(SOLUTION, "p.csv: the column of the photographs' names is missing", pseudo.confident, table(tmp_path / "p.csv", ["Id,probability", "w,0.9"]), 0.5)


@pytest.mark.parametrize("row, words", [("pseudo-a,x.jpg,w", "holds 'pseudo-a' already"), ("b,pseudo/a.jpg,w", "pseudo/a.jpg: is in the way")])
def test_a_second_round_mixes_up_no_photographs(row, words, tmp_path):
    table(tmp_path / "data/metadata.csv", ["image_id,path,whale_id", row])
    table(tmp_path / "asked/metadata.csv", ["image_id,path", "a,a.jpg"])
    photographs(tmp_path, "data/x.jpg", "data/pseudo/a.jpg", "asked/a.jpg")
    refused(SOLUTION, words, pseudo.joined, tmp_path / "data", tmp_path / "asked", pd.Series({"a.jpg": "w"}))


def test_a_fold_that_asks_nothing_is_no_inner_fold(tmp_path):
    scenario(tmp_path / "test")
    table(tmp_path / "truth.csv", ["query_id,database_image_id"])
    refused(SOLUTION, "truth.csv: no rows", validate.validation, tmp_path, None, "cpu", 0)
