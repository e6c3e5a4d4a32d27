"""The scorer and validator on small files, against the organisers' formula in pandas and scikit-learn."""

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval import files, score
from eval.files import InputError

ROOT = Path(__file__).parents[1]
BELUGA = ROOT.parent / "shared" / "data" / "beluga"
HEADER = "query_id,database_image_id,score"


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "eval.score", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


@pytest.fixture
def fold(tmp_path):
    """Two scenarios over whales a (a1..a4), b (b1..b3), c (c1); scenario01 holds its queries in its database."""
    images = ["a1", "a2", "a3", "a4", "b1", "b2", "b3", "c1", *[f"x{k:02d}" for k in range(30)]]
    test = tmp_path / "test"
    write(test / "query_scenarios.csv", "scenario_id,queries_path,database_path",
          *[f"{name},queries/{name}.csv,databases/{name}.csv" for name in ("scenario01", "scenario02")])
    write(test / "queries/scenario01.csv", "query_id,query_image_id", "scenario01-a1,a1", "scenario01-b1,b1", "scenario01-c1,c1")
    write(test / "queries/scenario02.csv", "query_id,query_image_id", "scenario02-a1,a1")
    write(test / "databases/scenario01.csv", "database_image_id", *images)
    write(test / "databases/scenario02.csv", "database_image_id", "a2", "b2", "x00")
    write(tmp_path / "truth.csv", "query_id,database_image_id", *[f"scenario01-a1,{image}" for image in ("a2", "a3", "a4")],
          "scenario01-b1,b2", "scenario01-b1,b3", "scenario02-a1,a2")
    write(tmp_path / "labels.csv", "image_id,original_image_id,whale_id,encounter_id,timestamp",
          *[f"{image},o{image},{'' if image[0] == 'x' else image[0]},," for image in images])
    return tmp_path


VALID = ["scenario01-a1,a2,0.9", "scenario01-a1,b1,0.8", "scenario01-a1,a3,0.7",
         "scenario01-b1,x00,0.9", "scenario01-b1,b2,0.8", "scenario02-a1,b2,0.6", "scenario02-a1,a2,0.4"]


def evaluate(fold, *lines, header=HEADER, **options):
    return score.evaluate(write(fold / "submission.csv", header, *lines), fold / "truth.csv", **options)


def summary(fold, *lines, **options):
    evaluation = evaluate(fold, *lines, **options)
    return score.summarise(evaluation.per_query, evaluation.breaches)


def organisers(submission, truth):
    """The official mean: scikit-learn's average precision of each submitted query, times hits, over min(n_pos, 20)."""
    from sklearn.metrics import average_precision_score
    rows, positives = pd.read_csv(submission), pd.read_csv(truth)
    rows = rows.merge(positives.assign(hit=1.0), how="left").fillna({"hit": 0.0})
    n_pos = positives.groupby("query_id").size().clip(upper=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = rows.groupby("query_id")[["hit", "score"]].apply(lambda q: average_precision_score(q.hit, q.score) * q.hit.sum())
    return values.divide(n_pos).mean()


def test_a_valid_file_has_the_numbers_worked_out_by_hand(fold):
    result = summary(fold, *VALID)
    expected = [(1 + 2 / 3) / 3, 1 / 2 / 2, 1 / 2]
    assert result["official"] == result["strict"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert result["map5_images"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert result["top1"] == pytest.approx(1 / 3)
    assert result["map5_individuals"] == pytest.approx(np.mean([1, 1 / 2, 1 / 2]))
    assert result["strict_errors"] == [] and result["n_queries"] == 3
    assert result["scenarios"]["scenario02"]["strict"] == 0.5 and result["scenarios"]["scenario01"]["n_queries"] == 2


def test_the_keys_are_those_of_the_contract(fold):
    assert list(summary(fold, *VALID)) == [
        "official", "strict", "strict_errors", "map5_images", "map5_individuals", "top1", "n_queries", "ci95", "scenarios"]


def test_the_order_of_the_rows_does_not_matter(fold):
    assert summary(fold, *VALID) == summary(fold, *VALID[::-1])


def test_equal_scores_are_one_group_in_official_and_ordered_by_id_in_the_first_places(fold):
    lines = ["scenario01-b1,b2,0.5", "scenario01-b1,a1,0.5", "scenario02-a1,a2,0.5", "scenario02-a1,b2,0.5"]
    values = evaluate(fold, *lines).per_query.set_index("query_id").loc[["scenario01-b1", "scenario02-a1"]]
    assert values.official.tolist() == [1 / 2 / 2, 1 / 2] and values.top1.tolist() == [0, 1]
    assert values.map5_images.tolist() == [1 / 2 / 2, 1] and values.map5_individuals.tolist() == [1 / 2, 1]


def test_folds_pooled_with_one_that_breaks_the_rules_have_no_strict(fold):
    tables = [evaluate(fold, *lines).per_query for lines in (VALID, [*VALID, "scenario01-b1,b1,0.4"])]
    pooled = score.summarise(pd.concat(tables, ignore_index=True), ["one breach"])
    assert pooled["strict"] is None and pooled["ci95"] is None and pooled["n_queries"] == 6


def test_a_missing_query_counts_zero_in_strict_and_is_left_out_of_official(fold):
    evaluation = evaluate(fold, *VALID[:3])
    result = score.summarise(evaluation.per_query, evaluation.breaches)
    assert result["official"] == pytest.approx(5 / 9) and result["strict"] == pytest.approx(5 / 27)
    assert evaluation.warnings == ["queries of the truth that are missing and count 0 in strict: 2; the first is scenario01-b1",
                                   "scenarios without a single row: 1; the first is scenario02"]


def test_a_query_without_positives_is_left_out_of_both(fold):
    result = summary(fold, *VALID, "scenario01-c1,x01,0.3")
    assert result["official"] == result["strict"] == summary(fold, *VALID)["strict"]


def test_a_file_of_a_header_alone_scores_zero_in_strict_and_has_no_official(fold):
    result = summary(fold)
    assert result["strict"] == 0 and result["official"] is None and result["top1"] == 0


@pytest.mark.parametrize("line, rule", [
    ("scenario01-b1,b2,0.4", "database image b2 is given twice"),
    ("scenario01-b1,b1,0.4", "the query image b1 is given as its own match"),
    ("scenario02-a1,a3,0.4", "database image a3 is not in its scenario's database"),
    ("scenario01-b1,nobody,0.4", "database image nobody is not in its scenario's database"),
    ("scenario03-b1,b2,0.4", "no scenario asks this query"),
    ("scenario01-b1,b3,1.5", "score '1.5' is not a number from 0 to 1"),
    ("scenario01-b1,b3,-0.1", "score '-0.1' is not a number from 0 to 1"),
    ("scenario01-b1,b3,", "score '' is not a number from 0 to 1"),
    ("scenario01-b1,b3,nan", "score 'nan' is not a number from 0 to 1"),
    ("scenario01-b1,b3,inf", "score 'inf' is not a number from 0 to 1"),
    ("scenario01-b1,b3,high", "score 'high' is not a number from 0 to 1"),
])
def test_a_breach_is_told_with_its_line_query_and_rule(fold, line, rule):
    evaluation = evaluate(fold, *VALID, line)
    assert evaluation.breaches == [f"line {len(VALID) + 2}: query {line.split(',')[0]}: {rule}"]
    result = score.summarise(evaluation.per_query, evaluation.breaches)
    assert result["strict"] is None and result["ci95"] is None and result["top1"] is not None
    assert (result["official"] is None) == ("score" in rule)


def test_a_duplicated_match_counts_twice_in_official_and_once_elsewhere(fold):
    lines = ["scenario02-a1,a2,0.9", "scenario02-a1,a2,0.9"]
    result = summary(fold, *lines)
    assert result["official"] == 2.0 and result["strict"] is None
    assert result["map5_images"] == pytest.approx(1 / 3) and result["scenarios"]["scenario02"]["map5_images"] == 1


def test_the_twenty_first_row_of_a_query_is_a_breach_but_counts_in_official(fold):
    rows = [f"scenario01-b1,x{k:02d},{0.9 - k / 100:.2f}" for k in range(22)] + ["scenario01-b1,b2,0.1"]
    evaluation = evaluate(fold, *rows)
    assert evaluation.breaches == ["line 22: query scenario01-b1: more than 20 rows"]
    assert evaluation.per_query.set_index("query_id").official["scenario01-b1"] == pytest.approx(1 / 23 / 2, abs=1e-12)


def test_twenty_rows_are_allowed(fold):
    assert not evaluate(fold, *[f"scenario01-b1,x{k:02d},{0.9 - k / 100:.2f}" for k in range(20)]).breaches


def test_at_most_twenty_breaches_are_listed_and_the_rest_counted(fold):
    foreign = [f"scenario01-b1,nobody{k},0.5" for k in range(15)]
    bad_score = [f"scenario01-a1,x{k:02d},7" for k in range(15)]
    breaches = evaluate(fold, *foreign, *bad_score).breaches
    assert len(breaches) == 21 and breaches[-1] == "and 10 more"
    assert breaches[0].startswith("line 2:") and breaches[19].startswith("line 21:")


def test_a_rule_that_most_rows_break_is_one_sentence_with_the_likely_cause(fold):
    breaches = evaluate(fold, *[f"scenario01-b1,nobody{k},0.5" for k in range(30)]).breaches
    assert breaches == [
        "30 of 30 rows, the first is line 2: query scenario01-b1: database image nobody0 is not in its scenario's database; "
        "the ids are such as 'a1'; write them like that, without folder or suffix",
        "line 22: query scenario01-b1: more than 20 rows"]


def test_a_rule_that_more_than_twenty_rows_break_is_one_sentence_however_long_the_file(fold):
    fine = [f"scenario01-{query},x{k:02d},0.5" for query in ("a1", "b1", "c1") for k in range(20)]
    breaches = evaluate(fold, *fine, *[f"scenario09-{k},x01,0.5" for k in range(21)]).breaches
    assert len(breaches) == 1 and breaches[0].startswith("21 of 81 rows, the first is line 62: query scenario09-0: no scenario asks")


def test_breaches_of_different_rules_stand_in_the_order_of_the_file(fold):
    breaches = evaluate(fold, "scenario01-b1,b2,0.9", "scenario01-b1,b3,7", "scenario01-b1,b2,0.8", "scenario01-b1,nobody,0.1").breaches
    assert [breach.split(":")[0] for breach in breaches] == ["line 3", "line 4", "line 5"]


@pytest.mark.parametrize("header", ["database_image_id,query_id,score", "query_id,database_image_id,score,note", "id,database_image_id,score"])
def test_another_header_is_refused_by_the_organisers_and_by_strict(fold, header):
    lines = [line + ",hello" * (header.count(",") - 2) for line in VALID]
    evaluation = evaluate(fold, *lines, header=header)
    result = score.summarise(evaluation.per_query, evaluation.breaches)
    assert result["official"] is None and result["strict"] is None and header in result["strict_errors"][0]


def test_a_file_without_the_columns_has_no_scores_at_all_and_its_json_says_why(fold):
    submission = write(fold / "submission.csv", "id,image,score", "scenario01-a1,a2,0.9")
    done = command(submission, fold / "truth.csv", "--json", fold / "score.json")
    result = json.loads((fold / "score.json").read_text())
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(result[name] is None for name in [*score.MEASURES, "ci95"]) and "'id,image,score'" in result["strict_errors"][0]


def random_fold(folder, seed):
    """A valid, complete submission over 30 queries, with ties, more than 20 positives, rows without a hit."""
    rng = np.random.default_rng(seed)
    truth, rows = [], []
    for number in range(30):
        images = [f"d{image}" for image in rng.permutation(60)]
        truth += [(f"s{number % 3}-q{number}", image) for image in images[:rng.integers(1, 35)]]
        values = rng.uniform(size=20) if number % 2 else rng.integers(0, 5, 20) / 4
        rows += [(f"s{number % 3}-q{number}", image, value) for image, value in zip(rng.permutation(images)[:rng.integers(1, 21)], values)]
    pd.DataFrame(truth, columns=["query_id", "database_image_id"]).to_csv(folder / "truth.csv", index=False)
    pd.DataFrame(rows, columns=HEADER.split(",")).sample(frac=1, random_state=seed).to_csv(folder / "submission.csv", index=False)
    return folder / "submission.csv", folder / "truth.csv"


@pytest.mark.parametrize("seed", range(10))
def test_on_valid_complete_files_strict_equals_official_equals_the_organisers_number(tmp_path, seed):
    submission, truth = random_fold(tmp_path, seed)
    evaluation = score.evaluate(submission, truth)
    result = score.summarise(evaluation.per_query, evaluation.breaches)
    assert not evaluation.breaches and not evaluation.warnings
    assert result["official"] == result["strict"]
    assert result["official"] == pytest.approx(organisers(submission, truth), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_official_equals_the_organisers_number_on_files_that_break_the_rules(tmp_path, seed):
    submission, truth = random_fold(tmp_path, seed)
    rows = pd.read_csv(submission)
    extra = rows.sample(60, random_state=seed).assign(score=0.5)
    foreign = pd.DataFrame({"query_id": ["s0-q0"] * 30 + ["s0-nobody"], "database_image_id": [f"f{k}" for k in range(31)], "score": 0.4})
    rows = pd.concat([rows[rows.query_id != "s1-q1"], extra[extra.query_id != "s1-q1"], foreign])
    rows.to_csv(submission, index=False)
    assert score.summarise(*score.evaluate(submission, truth)[:2])["official"] == pytest.approx(organisers(submission, truth), abs=1e-12)


def test_without_labels_there_is_nothing_by_whale(fold):
    (fold / "labels.csv").unlink()
    result = summary(fold, *VALID)
    assert result["map5_individuals"] is None and result["ci95"] is None and result["strict"] is not None


def test_without_scenarios_nothing_is_foreign_and_ids_give_the_scenarios(fold):
    for table in fold.glob("test/**/*.csv"):
        table.unlink()
    evaluation = evaluate(fold, *VALID, "scenario01-b1,nobody,0.1")
    assert not evaluation.breaches
    assert set(score.summarise(*evaluation[:2])["scenarios"]) == {"scenario01", "scenario02"}
    assert evaluation.per_query.query_image_id.tolist() == ["a1", "b1", "a1"]


def test_the_query_image_among_the_rows_finds_no_whale(fold):
    lines = ["scenario01-a1,a1,0.9", "scenario01-a1,b1,0.8", "scenario01-a1,a2,0.7"]
    values = evaluate(fold, *lines).per_query.iloc[0]
    assert values.official == 1 / 3 / 3 and values.top1 == 0 and values.map5_individuals == 1 / 3


def test_an_unknown_whale_in_the_database_is_an_individual_of_its_own(fold):
    lines = [f"scenario01-b1,x{k:02d},{0.9 - k / 100:.2f}" for k in range(4)]
    values = evaluate(fold, *lines, "scenario01-b1,b2,0.1").per_query.map5_individuals
    assert values[1] == 1 / 5
    assert evaluate(fold, *lines, "scenario01-b1,x09,0.2", "scenario01-b1,b2,0.1").per_query.map5_individuals[1] == 0


def test_a_whale_that_comes_twice_takes_one_place(fold):
    lines = ["scenario01-b1,a1,0.9", "scenario01-b1,a2,0.8", "scenario01-b1,a3,0.7", "scenario01-b1,b2,0.6"]
    assert evaluate(fold, *lines).per_query.map5_individuals[1] == 1 / 2


def test_the_interval_is_that_of_the_per_query_values_by_whale(fold):
    from eval.metrics import bootstrap_interval
    evaluation = evaluate(fold, *VALID)
    groups = evaluation.per_query.whale_id.map({"a": 0, "b": 1}).to_numpy()
    assert score.summarise(*evaluation[:2])["ci95"] == bootstrap_interval(evaluation.per_query.strict.to_numpy(), groups)


@pytest.mark.parametrize("path", ["../outside.csv", "/etc/passwd", "queries/../../outside.csv"])
def test_a_scenario_path_that_leaves_the_data_directory_is_refused(fold, path):
    write(fold / "test/query_scenarios.csv", "scenario_id,queries_path,database_path", f"scenario01,{path},databases/scenario01.csv")
    with pytest.raises(InputError, match="leads out of"):
        evaluate(fold, *VALID)


@pytest.mark.parametrize("content, words", [
    (b"", "the file is empty"), (b"\x89PNG\r\n\x1a\n\x00\x01\xff", "not a readable CSV, this is a picture"), (None, "no such file")])
def test_what_is_no_table_is_one_clear_line_and_status_2(fold, content, words):
    path = fold / "submission.csv"
    if content is not None:
        path.write_bytes(content)
    done = command(path, fold / "truth.csv")
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1


GOOD = "\n".join([HEADER, *VALID]) + "\n"


def told(monkeypatch, capsys, *arguments):
    """What the command answers bad input with: the one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["eval.score", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        files.run(score.main)
    lines = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def cells(change):
    """The valid file with every row put through `change(query, image, score)`."""
    return "\n".join([HEADER, *[",".join(change(*line.split(","))) for line in VALID]])


def workbook():
    import zipfile
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("sheet.xml", GOOD)
    return content.getvalue()


NO_SUBMISSION = {
    "blank lines alone": ("\n\n \n", "the file is empty"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "the file is empty"),
    "packed nothing": (gzip.compress(b""), "the file is empty"),
    "semicolons": (GOOD.replace(",", ";"), "line 1: the cells are separated by ';'; write commas"),
    "tabs": (GOOD.replace(",", "\t"), r"separated by '\t'; write commas"),
    "UTF-16": (GOOD.encode("utf-16"), "text in UTF-16"),
    "UTF-16 without its mark": (GOOD.encode("utf-16-le"), "this is no text"),
    "latin-1": ((GOOD + "scenario02-a1,caf\xe9,0.1\n").encode("latin-1"), "line 9 is not UTF-8"),
    "random bytes": (np.random.default_rng(0).bytes(5000), "this is no text"),
    "a zero byte far down": ("query_id\n" + "a\n" * 40_000 + "\0\n", "line 40002 holds a zero byte"),
    "a web page": ("\n<!DOCTYPE html><html></html>", "a web page"),
    "JSON": ('{"message": "not found"}', "this is JSON"),
    "an Excel workbook": (workbook(), "a zip archive or an Excel workbook"),
    "NumPy": (b"\x93NUMPY\x01\x00", "a NumPy file"),
    "gzip cut short": (gzip.compress(GOOD.encode())[:-20], "cut short or broken"),
    "gzip with more behind it": (gzip.compress(GOOD.encode()) + b"more", "cut short or broken"),
    "gzip damaged": (gzip.compress(GOOD.encode())[:30] + b"\xff" * 20, "cut short or broken"),
    "packed twice": (gzip.compress(gzip.compress(GOOD.encode())), "packed with gzip twice"),
    "decimal commas": (GOOD.replace("0.", "0,"), "line 2 has more cells than the header; quote cells that hold commas, write decimals"),
    "a comma at each end": (GOOD.replace("\n", ",\n").replace("score,", "score", 1), "line 2 has more cells than the header"),
    "one long row": (GOOD + "scenario02-a1,b2,0.1,7\n", "Expected 3 fields in line 9, saw 4"),
    "an open quote": (GOOD.replace("scenario", '"scenario', 1), "EOF inside string"),
    "an endless header": ("a" * 100_000, "line 1 is longer than"),
    "a header of commas": ("," * 100_000, "line 1 is longer than"),
}


@pytest.mark.parametrize("content, words", NO_SUBMISSION.values(), ids=NO_SUBMISSION)
def test_what_cannot_be_read_as_a_submission_is_one_line_and_no_json(fold, monkeypatch, capsys, content, words):
    path = fold / "submission.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = told(monkeypatch, capsys, path, fold / "truth.csv", "--json", fold / "score.json")
    assert line.startswith(f"error: {path}: ") and words in line and not (fold / "score.json").exists()


INDEXED = "\n".join(f"{number or ''},{line}" for number, line in enumerate(GOOD.split()))
BREACHES = {
    "no header": ("\n".join(VALID), "is the header line missing?"),
    "shuffled columns": (GOOD.replace(HEADER, "database_image_id,query_id,score"), "put the columns in this order"),
    "a column too many": (GOOD.replace("\n", ",x\n"), "remove 'x'"),
    "a column twice": (GOOD.replace("\n", ",0.1\n").replace("score,0.1", "score,score"), "remove 'score.1'"),
    "a column too few": (cells(lambda *cell: cell[:2]).replace(",score", ""), "there is no 'score'"),
    "pandas' row numbers": (INDEXED, f"the header is ',{HEADER}', not '{HEADER}'; the first column is pandas' row numbers: write"),
    "quoted lines": ("\n".join(f'"{line}"' for line in GOOD.split()), "whole lines are quoted"),
    "blanks for commas": (GOOD.replace(",", " "), "the cells are separated by spaces: write commas"),
    "capitals": (GOOD.replace(HEADER, HEADER.upper()), "write the names letter for letter"),
    "spaces in the header": (GOOD.replace(HEADER, HEADER.replace(",", ", ")), "letter for letter, without spaces"),
    "spaces in the cells": (cells(lambda query, image, value: (query, " " + image, value)),
                            "7 of 7 rows, the first is line 2: query 'scenario01-a1', database image ' a2': remove the spaces"),
    "thousands of columns": (f"{HEADER}{',x' * 9000}\n", "remove 'x', 'x.1', "),
    "labels": ("Image,Id\na1,w\n", "this file names individuals and the truth holds images"),
    "decimal commas in quotes": (cells(lambda query, image, value: (query, image, f'"{value}"'.replace(".", ","))), "such as 0.25"),
    "scores that are empty": (cells(lambda query, image, value: (query, image, "")), "score '' is not a number from 0 to 1; write numbers"),
    "percent": (cells(lambda query, image, value: (query, image, value + "%")), "score '0.9%' is not a number"),
    "distances": (cells(lambda query, image, value: (query, image, f"{40 * float(value):g}")),
                  "the scores run from 16 to 36; bring them into 0 to 1, the best match highest: 1 / (1 + d) of a distance d"),
    "cosines": (cells(lambda query, image, value: (query, image, f"{float(value) - 1:g}")),
                "the scores run from -0.6 to -0.1; bring them into 0 to 1, the best match highest: (1 + c) / 2 of a cosine c"),
    "logits": (cells(lambda query, image, value: (query, image, f"{9 - 20 * float(value):g}")), "run from -9 to 1; bring them"),
    "another fold": (cells(lambda query, image, value: (query.replace("-", "-z"), image, value)),
                     "no scenario asks this query; the ids are such as 'scenario01-a1'; is this the submission of another fold?"),
    "query images": (cells(lambda query, image, value: (query.split("-")[1], image, value)), "the ids are such as 'scenario01-a1'"),
    "paths": (cells(lambda query, image, value: (query, f"images/{image}.jpg", value)), "such as 'a1'; write them like that, without folder"),
    "a row cut short": (GOOD + "scenario02-a1,x00", "line 9: query scenario02-a1: score '' is not a number"),
    "every row twice": (GOOD + GOOD.replace(HEADER + "\n", ""), "line 9: query scenario01-a1: database image a2 is given twice"),
    "a cell that steers the terminal": (GOOD + '"scenario02\n\x1b[31ma1",b2,0.1\n', "line 9: query scenario02  [31ma1: no scenario"),
    "an endless cell": (GOOD + "y" * 500_000 + ",b2,0.1\n", f"query {'y' * 80}: no scenario"),
    "commas alone": (HEADER + "\n,,\n,,\n,,\n", "3 of 3 rows, the first is line 2: query : score ''"),
}


@pytest.mark.parametrize("content, words", BREACHES.values(), ids=BREACHES)
def test_a_submission_that_breaks_a_rule_is_one_line_and_its_json_is_written(fold, monkeypatch, capsys, content, words):
    path = fold / "submission.csv"
    path.write_text(content)
    line = told(monkeypatch, capsys, path, fold / "truth.csv", "--json", fold / "score.json")
    result = json.loads((fold / "score.json").read_text())
    assert line.startswith(f"error: {path}: ") and words in line and len(line) < 600
    assert result["strict"] is None and result["ci95"] is None and any(words in error for error in result["strict_errors"])


SAME = {
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "Windows lines": GOOD.replace("\n", "\r\n").encode(),
    "quotes": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in GOOD.split()).encode(),
    "blank lines": GOOD.replace("\n", "\n\n").encode(),
    "exponents": cells(lambda query, image, value: (query, image, f"{float(value):.3e}")).encode(),
    "gzip without the suffix": gzip.compress(GOOD.encode()),
    "gzip in two members": gzip.compress(GOOD[:40].encode()) + gzip.compress(GOOD[40:].encode()),
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME)
def test_the_same_table_written_otherwise_scores_the_same(fold, content):
    expected = evaluate(fold, *VALID).per_query
    (fold / "submission.csv").write_bytes(content)
    evaluation = score.evaluate(fold / "submission.csv", fold / "truth.csv")
    pd.testing.assert_frame_equal(evaluation.per_query, expected)
    assert evaluation.breaches == [] and evaluation.warnings == []


def test_plain_text_with_the_suffix_of_gzip_is_read(fold):
    expected = summary(fold, *VALID)
    (fold / "submission.csv").rename(fold / "submission.csv.gz")
    evaluation = score.evaluate(fold / "submission.csv.gz", fold / "truth.csv")
    assert score.summarise(*evaluation[:2]) == expected


def test_truth_labels_and_scenarios_may_be_packed_under_any_name(fold):
    expected = summary(fold, *VALID)
    for path in [fold / "truth.csv", fold / "labels.csv", *(fold / "test").rglob("*.csv")]:
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert summary(fold, *VALID) == expected


def test_minus_zero_is_zero(fold):
    lines = ["scenario02-a1,a2,-0", "scenario02-a1,b2,0"]
    assert not evaluate(fold, *lines).breaches and evaluate(fold, *lines).per_query.official[2] == 1 / 2


def test_a_directory_is_no_submission(fold, monkeypatch, capsys):
    assert "is a directory; give a file" in told(monkeypatch, capsys, fold, fold / "truth.csv")


def test_submission_and_truth_given_the_wrong_way_round_are_told(fold, monkeypatch, capsys):
    submission = write(fold / "submission.csv", HEADER, *VALID)
    write(fold / "named.csv", "Image,Id", *FIVE)
    write(fold / "predictions.csv", "image,predictions", *FIVE)
    for truth in (submission, fold / "named.csv", fold / "predictions.csv"):
        assert "the submission comes first, the truth second" in told(monkeypatch, capsys, fold / "truth.csv", truth)


def test_the_data_of_another_fold_is_told(fold, monkeypatch, capsys):
    submission = write(fold / "submission.csv", HEADER, *VALID)
    truth = write(fold / "elsewhere" / "truth.csv", "query_id,database_image_id", "scenario01-a1,a2", "scenario07-z1,a2")
    line = told(monkeypatch, capsys, submission, truth, "--data", fold / "test")
    assert f"{truth}: query scenario07-z1 is asked by no scenario of {fold / 'test'}; give the --data of its fold" in line


def test_without_scenarios_a_file_of_another_fold_is_told_and_strange_images_are_warned_of(fold):
    for table in fold.glob("test/**/*.csv"):
        table.unlink()
    foreign = evaluate(fold, *[line.replace("-", "-z") for line in VALID])
    assert len(foreign.breaches) == 1 and "not in the truth; the ids are such as 'scenario01-a1'; is this" in foreign.breaches[0]
    evaluation = evaluate(fold, *cells(lambda query, image, value: (query, f"images/{image}.jpg", value)).splitlines()[1:])
    assert evaluation.breaches == [] and evaluation.warnings == [
        "database images, none of them in the truth, where the ids are such as 'a2': 5; the first is images/a2.jpg"]


def test_an_empty_database_is_no_reason_to_stumble(fold):
    for name in ("scenario01", "scenario02"):
        write(fold / f"test/databases/{name}.csv", "database_image_id")
    assert "there are no ids at all" in evaluate(fold, *VALID).breaches[0]


def test_a_packed_file_that_grows_without_bound_is_refused(fold, monkeypatch, capsys):
    path = fold / "submission.csv"
    for content, limits in ((GOOD + "a,b,c\n" * 200_000, (2 ** 20, 10 ** 9)), (GOOD + ",,\n" * 200_000, (2 ** 30, 10 ** 5))):
        monkeypatch.setattr(files, "UNPACKED", limits[0])
        monkeypatch.setattr(files, "CELLS", limits[1])
        path.write_bytes(gzip.compress(content.encode()))
        assert "unpacks to more than" in told(monkeypatch, capsys, path, fold / "truth.csv")
        path.write_text(content)
        assert "unpacks to" not in told(monkeypatch, capsys, path, fold / "truth.csv")


def command_within(gigabytes, *arguments):
    """The command in a child that may not reserve more memory; a breach of the limit is a MemoryError."""
    limit = int(gigabytes * 2 ** 30)
    return subprocess.run([sys.executable, "-m", "eval.score", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))


@pytest.mark.slow
def test_a_gzip_bomb_takes_little_memory(fold):
    path = fold / "submission.csv"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(600):
            file.write((HEADER + "\n").encode() * 2 ** 15)  # a mebibyte a time
    done = command_within(1, path, fold / "truth.csv")
    assert done.returncode == 2 and "unpacks to more than" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_million_rows_fit_into_two_gigabytes(tmp_path):
    rng, n, images = np.random.default_rng(0), 50_000, [f"test{number:06d}" for number in range(20_000)]
    asked, right, found = (rng.integers(len(images), size=(n, count)) for count in (1, 20, 20))
    found[:, 0] = right[:, 0]
    (tmp_path / "labels.csv").write_text("image_id,whale_id\n" + "".join(f"{image},whale{k % 800}\n" for k, image in enumerate(images)))
    for name, table in (("truth", right), ("submission", found)):
        with open(tmp_path / f"{name}.csv", "w") as file:
            file.write(HEADER + "\n" if name == "submission" else "query_id,database_image_id\n")
            for number, row in enumerate(table):
                query = f"scenario{number % 10:02d}-{images[asked[number, 0]]}-{number}"
                file.writelines(f"{query},{images[image]}{f',{1 - k / 100:.2f}' if name == 'submission' else ''}\n"
                                for k, image in enumerate(dict.fromkeys(row)))
    done = command_within(2, tmp_path / "submission.csv", tmp_path / "truth.csv", "--json", tmp_path / "score.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "score.json").read_text())
    assert result["n_queries"] == n and result["top1"] == 1.0 and result["strict"] == result["official"]


@pytest.mark.parametrize("truth, words", [
    (["query_id,database_image_id"], "no rows"), (["query_id,score", "q,1"], "a truth has"),
    (["query_id,database_image_id", "q,a", "q,a"], "appears twice"), (["Image,Id", "a.jpg,w", "a.jpg,v"], "appears twice")])
def test_a_truth_that_is_none_is_refused(fold, truth, words):
    write(fold / "truth.csv", *truth)
    with pytest.raises(InputError, match=words):
        evaluate(fold, *VALID)


def test_a_named_data_directory_or_labels_file_must_exist(fold):
    for option in ("data", "labels"):
        with pytest.raises(InputError, match="no such file"):
            evaluate(fold, *VALID, **{option: fold / "nowhere"})


def test_the_command_writes_what_it_tells_and_the_per_query_file_gives_the_same_summary(fold):
    submission = write(fold / "submission.csv", HEADER, *VALID)
    done = command(submission, fold / "truth.csv", "--json", fold / "score.json", "--per-query", fold / "q.csv")
    result = json.loads((fold / "score.json").read_text())
    assert done.returncode == 0 and f"{result['strict']:.4f}" in done.stdout and done.stderr == ""
    assert score.summarise(score.read_per_query(fold / "q.csv"), []) == result
    assert (fold / "q.csv").read_text().splitlines()[0] == (
        "query_id,scenario_id,query_image_id,whale_id,n_pos,official,strict,map5_images,map5_individuals,top1")


def test_the_same_command_writes_the_same_bytes(fold):
    submission = write(fold / "submission.csv", HEADER, *VALID)
    for name in ("1", "2"):
        command(submission, fold / "truth.csv", "--json", fold / f"{name}.json", "--per-query", fold / f"{name}.csv")
    assert (fold / "1.json").read_bytes() == (fold / "2.json").read_bytes()
    assert (fold / "1.csv").read_bytes() == (fold / "2.csv").read_bytes()


def test_a_breach_ends_with_status_2_one_line_and_everything_written(fold):
    submission = write(fold / "submission.csv", HEADER, *VALID, "scenario01-b1,b1,0.4")
    done = command(submission, fold / "truth.csv", "--json", fold / "score.json", "--per-query", fold / "q.csv")
    result = json.loads((fold / "score.json").read_text())
    assert done.returncode == 2 and "as its own match" in done.stderr and len(done.stderr.splitlines()) == 1
    assert "as its own match" in done.stdout and f"{result['official']:.4f}" in done.stdout
    assert result["strict"] is None and result["official"] is not None and len(result["strict_errors"]) == 1
    assert score.summarise(score.read_per_query(fold / "q.csv"), result["strict_errors"]) == result


def test_a_compressed_submission_scores_the_same(fold):
    plain = evaluate(fold, *VALID)
    packed = fold / "submission.csv.gz"
    packed.write_bytes(gzip.compress((fold / "submission.csv").read_bytes()))
    pd.testing.assert_frame_equal(score.evaluate(packed, fold / "truth.csv").per_query, plain.per_query)


@pytest.fixture
def label_fold(tmp_path):
    write(tmp_path / "truth.csv", "Image,Id", "1.jpg,w_a", "2.jpg,w_b", "3.jpg,", "4.jpg,w_a")
    return tmp_path


FIVE = ["1.jpg,w_a w_b", "2.jpg,w_a w_c w_b w_d w_e", "3.jpg,w_a new_whale", "4.jpg,w_b w_c w_d w_e w_f"]


def test_labels_score_one_over_the_place_of_the_true_one(label_fold):
    result = summary(label_fold, *FIVE, header="Image,Id")
    assert result["official"] == result["strict"] == pytest.approx((1 + 1 / 3 + 1 / 2 + 0) / 4)
    assert result["top1"] == 1 / 4 and result["n_queries"] == 4 and result["scenarios"] == {} and result["map5_images"] is None


def test_both_competitions_files_and_words_for_a_new_whale_score_the_same(label_fold):
    other = summary(label_fold, *[line.replace("new_whale", "new_individual") for line in FIVE], header="image,predictions")
    assert other == summary(label_fold, *FIVE, header="Image,Id")


def test_a_label_of_the_truth_may_hold_a_comma_but_no_space(label_fold):
    write(label_fold / "truth.csv", "Image,Id", '1.jpg,"a,b"')
    assert evaluate(label_fold, '1.jpg,"a,b c"', header="Image,Id").per_query.official.tolist() == [1]
    write(label_fold / "truth.csv", "Image,Id", "1.jpg,a b")
    with pytest.raises(InputError, match="line 2: 'a b' holds spaces"):
        evaluate(label_fold, "1.jpg,a", header="Image,Id")


def test_images_given_by_path_are_one_sentence(label_fold):
    breaches = evaluate(label_fold, *["test/" + line for line in FIVE], header="Image,Id").breaches
    assert len(breaches) == 1 and breaches[0].startswith("4 of 4 rows, the first is line 2: image test/1.jpg: not an image of the truth; ")


def test_a_missing_image_counts_zero(label_fold):
    evaluation = evaluate(label_fold, *FIVE[:1], header="Image,Id")
    assert score.summarise(*evaluation[:2])["official"] == 1 / 4 and len(evaluation.warnings) == 1
    assert score.summarise(*evaluate(label_fold, header="Image,Id")[:2])["official"] == 0


def test_a_label_in_sixth_place_earns_nothing(label_fold):
    assert evaluate(label_fold, "1.jpg,b c d e f w_a", header="Image,Id").per_query.official[0] == 0


@pytest.mark.parametrize("line, rule", [
    ("9.jpg,w_a", "image 9.jpg: not an image of the truth"), ("1.jpg,w_a", "image 1.jpg: the image is given twice"),
    ("5.jpg,a b c d e f", "image 5.jpg: more than 5 labels"), ("5.jpg,", "image 5.jpg: no label"),
    ("5.jpg,a b a", "image 5.jpg: a label is given twice"), ('5.jpg,"a,b"', "image 5.jpg: 'a,b' is not labels separated by spaces")])
def test_the_rules_of_a_label_file(label_fold, line, rule):
    with open(label_fold / "truth.csv", "a") as truth:
        truth.write("5.jpg,w_z\n")
    assert evaluate(label_fold, *FIVE, line, header="Image,Id").breaches == ["line 6: " + rule]


def test_an_image_ranking_is_no_answer_to_a_truth_of_labels(label_fold):
    evaluation = evaluate(label_fold, *VALID)
    assert HEADER in evaluation.breaches[0] and evaluation.per_query.official.isna().all()


@pytest.mark.skipif(not BELUGA.is_dir(), reason="the shared beluga tables are not here")
def test_a_perfect_ranking_of_the_published_example_scenarios_scores_one(tmp_path):
    truth = pd.read_csv(BELUGA / "example_labels.csv")
    rows = truth.assign(score=0.9 - truth.groupby("query_id").cumcount() / 100).groupby("query_id").head(20)
    rows.to_csv(tmp_path / "submission.csv", index=False)
    evaluation = score.evaluate(tmp_path / "submission.csv", BELUGA / "example_labels.csv", BELUGA, BELUGA / "metadata.csv")
    result = score.summarise(*evaluation[:2])
    assert not evaluation.breaches and not evaluation.warnings
    assert {result[name] for name in score.MEASURES} == {1.0} and result["n_queries"] == 10


@pytest.mark.skipif(not BELUGA.is_dir(), reason="the shared beluga tables are not here")
def test_a_random_ranking_of_the_example_scenarios_agrees_with_the_organisers_formula(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for name in ("scenario01", "scenario02"):
        database = pd.read_csv(BELUGA / f"databases/{name}.csv").database_image_id
        for query in pd.read_csv(BELUGA / f"queries/{name}.csv").itertuples():
            found = [image for image in rng.permutation(database) if image != query.query_image_id][:20]
            rows += [(query.query_id, image, value) for image, value in zip(found, rng.integers(0, 9, 20) / 8)]
    pd.DataFrame(rows, columns=HEADER.split(",")).to_csv(tmp_path / "submission.csv", index=False)
    evaluation = score.evaluate(tmp_path / "submission.csv", BELUGA / "example_labels.csv", BELUGA)
    expected = organisers(tmp_path / "submission.csv", BELUGA / "example_labels.csv")
    assert not evaluation.breaches and score.summarise(*evaluation[:2])["official"] == pytest.approx(expected, abs=1e-12)
