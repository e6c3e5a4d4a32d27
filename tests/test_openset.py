"""Probabilities that a whale is not known: the figures of `open_set` by hand and by loop, and what a file may not do."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval import metrics, openset, score, summary
from eval.files import InputError, write_json, write_table

ROOT = Path(__file__).parents[1]


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "eval.score", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


TRUTH = ["Image,Id", "1.jpg,w_a", "2.jpg,w_b", "3.jpg,new_whale", "4.jpg,w_a", "5.jpg,new_whale"]
FIVE = ["Image,Id", "1.jpg,w_a w_b", "2.jpg,w_a w_b", "3.jpg,new_whale", "4.jpg,w_a new_whale", "5.jpg,w_b w_a"]
PROBABILITIES = ["Image,Id,probability", "1.jpg,new_whale,0.1", "1.jpg,w_a,0.9", "2.jpg,new_whale,0.5", "2.jpg,w_a,0.3",
                 "2.jpg,w_b,0.2", "3.jpg,w_a,0.2", "3.jpg,new_whale,0.8", "4.jpg,w_a,0.6", "4.jpg,w_b,0.3", "4.jpg,new_whale,0.1",
                 "5.jpg,w_b,0.8", "5.jpg,w_a,0.1", "5.jpg,new_whale,0.1"]


@pytest.fixture
def labels(tmp_path):
    write(tmp_path / "truth.csv", *TRUTH)
    write(tmp_path / "submission.csv", *FIVE)
    return tmp_path


def open_set(fold, *lines, data=None):
    """`lines`: the probabilities file."""
    per_query = score.evaluate(fold / "submission.csv", fold / "truth.csv", data).per_query
    return score.open_set(write(fold / "probabilities.csv", *lines), fold / "truth.csv", data, per_query)


def test_a_label_file_has_the_figures_worked_out_by_hand(labels):
    figures = open_set(labels, *PROBABILITIES)
    assert list(figures) == ["auc", "accuracy_known", "accuracy_unknown", "n_known", "n_unknown", "brier", "calibration_error",
                             "first_right_known", "first_right_unknown", "wrong_above"]
    assert figures["auc"] == pytest.approx((3 + 1 / 2 + 1 / 2 + 0) / 6)  # .8 and .1 against .1, .5, .1
    assert (figures["accuracy_known"], figures["accuracy_unknown"]) == (1, 1 / 2)
    assert (figures["n_known"], figures["n_unknown"]) == (3, 2)
    assert figures["brier"] == pytest.approx((.01 + .25 + .04 + .01 + .81) / 5)
    assert figures["calibration_error"] == pytest.approx((abs(1 - .3) + .5 + .2) / 5)  # the three at .1 share a bin
    assert figures["first_right_known"] == pytest.approx(2 / 3) and figures["first_right_unknown"] == 1 / 2
    assert figures["wrong_above"] == {"0.5": [3, 1], "0.6": [3, 1], "0.8": [2, 1], "0.9": [1, 0]}


def test_the_order_of_the_rows_and_the_word_for_a_new_whale_do_not_matter(labels):
    expected = open_set(labels, *PROBABILITIES)
    assert open_set(labels, PROBABILITIES[0], *PROBABILITIES[:0:-1]) == expected
    for word in ("new_individual", ""):
        assert open_set(labels, *[line.replace("new_whale", word).replace("Image", "image") for line in PROBABILITIES]) == expected


def test_a_whale_with_new_alone_has_no_known_label_to_believe(labels):
    lines = ["Image,Id,probability", *[f"{number}.jpg,new_whale,1" for number in range(1, 6)]]
    assert open_set(labels, *lines)["wrong_above"] == {name: [0, 0] for name in ("0.5", "0.6", "0.8", "0.9")}


@pytest.mark.parametrize("ids, known", [("w_a", True), ("new_whale", False)])
def test_one_kind_of_whale_alone_leaves_null_what_needs_the_other(labels, ids, known):
    write(labels / "truth.csv", "Image,Id", *[f"{number}.jpg,{ids}" for number in range(1, 6)])
    figures = open_set(labels, *PROBABILITIES)
    other = "unknown" if known else "known"
    assert figures["auc"] is figures[f"accuracy_{other}"] is figures[f"first_right_{other}"] is None
    assert figures[f"n_{other}"] == 0 and figures["brier"] is not None


@pytest.mark.parametrize("seed", range(3))
def test_wrong_names_above_a_threshold_are_those_of_a_loop(seed):
    random, n = np.random.default_rng(seed), 60
    whales, names = random.choice(["", "a", "b", "c"], n), ["", "a", "b", "c"]
    probability = random.dirichlet([0.3] * 4, n)
    table = pd.DataFrame([(k, name, name == "", probability[k, j]) for k in range(n) for j, name in enumerate(names)],
                         columns=["query", "Id", "new", "probability"])
    expected = {str(threshold): [0, 0] for threshold in openset.THRESHOLDS}
    for k in range(n):
        best = 1 + int(np.argmax(probability[k, 1:]))
        for threshold in openset.THRESHOLDS:
            expected[str(threshold)][0] += int(probability[k, best] >= threshold)
            expected[str(threshold)][1] += int(probability[k, best] >= threshold and names[best] != whales[k])
    assert openset.wrong_above(table.sample(frac=1, random_state=seed), whales) == expected


@pytest.fixture
def scenarios(tmp_path):
    """Three queries are asked; the truth has no match for s-c1."""
    write(tmp_path / "test/query_scenarios.csv", "scenario_id,queries_path,database_path", "s,queries/s.csv,databases/s.csv")
    write(tmp_path / "test/queries/s.csv", "query_id,query_image_id", "s-c1,c1", "s-a1,a1", "s-b1,b1")
    write(tmp_path / "test/databases/s.csv", "database_image_id", "a2", "a3", "b2")
    write(tmp_path / "truth.csv", "query_id,database_image_id", "s-a1,a2", "s-a1,a3", "s-b1,b2")
    write(tmp_path / "submission.csv", "query_id,database_image_id,score", "s-a1,a2,0.9", "s-b1,a3,0.9")
    return tmp_path


ASKED = ["query_id,Id,probability", "s-a1,a,0.9", "s-a1,,0.1", "s-b1,,0.6", "s-c1,new_whale,0.8"]


def test_in_scenario_files_the_queries_without_a_match_are_the_unknown(scenarios):
    figures = open_set(scenarios, *ASKED)
    assert figures == open_set(scenarios, *ASKED, data=scenarios / "test")
    p_new, known = np.array([.1, .6, .8]), np.array([True, True, False])
    assert figures["auc"] == 1 and (figures["accuracy_known"], figures["accuracy_unknown"]) == (1 / 2, 1)
    assert (figures["n_known"], figures["n_unknown"]) == (2, 1)
    assert figures["brier"] == pytest.approx(np.mean((p_new - ~known) ** 2))
    assert figures["calibration_error"] == pytest.approx(metrics.calibration_error(p_new, ~known))
    assert figures["first_right_known"] is figures["first_right_unknown"] is figures["wrong_above"] is None


def test_without_scenarios_the_truth_asks_known_whales_alone(scenarios):
    (scenarios / "test/query_scenarios.csv").unlink()
    figures = open_set(scenarios, *ASKED[:4])
    assert figures["n_unknown"] == 0 and figures["auc"] is None
    with pytest.raises(InputError, match="line 5: 's-c1': no query of the truth"):
        open_set(scenarios, *ASKED)


@pytest.mark.parametrize("change, words", [
    (lambda lines: [*lines, "1.jpg,w_c,1.2"], "line 15: '1.2': not a probability"),
    (lambda lines: [*lines, "1.jpg,w_c,-0.1"], "not a probability"),
    (lambda lines: [*lines, "1.jpg,w_c,"], "line 15: '': not a probability"),
    (lambda lines: [*lines, "1.jpg,w_c,nan"], "not a probability"),
    (lambda lines: [*lines, "9.jpg,w_c,0.2"], "line 15: '9.jpg': no query"),
    (lambda lines: [*lines, "1.jpg,w_a,0.2"], "line 15: '1.jpg': the query has this label twice"),
    (lambda lines: [*lines, "1.jpg,new_individual,0.2"], "line 15: '1.jpg': the query has this label twice"),
    (lambda lines: [line for line in lines if line != "2.jpg,new_whale,0.5"], "line 4: '2.jpg': the query has no row whose Id is new_whale"),
    (lambda lines: lines[:8], "query '4.jpg' has no rows, as 2 in all"),
    (lambda lines: lines[:1], "query '1.jpg' has no rows, as 5 in all"),
    (lambda lines: ["query_id,Id,probability", *lines[1:]], "column 'Image' is missing"),
    (lambda lines: ["Image,label,probability", *lines[1:]], "column 'Id' is missing"),
])
def test_a_malformed_file_is_told_with_its_line(labels, change, words):
    with pytest.raises(InputError) as error:
        open_set(labels, *change(PROBABILITIES))
    assert words in str(error.value) and str(labels / "probabilities.csv") in str(error.value)


def test_the_command_adds_one_key_prints_it_and_the_folds_still_pool(labels):
    probabilities = write(labels / "probabilities.csv", *PROBABILITIES)
    fold, paths = labels / "fold0", [labels / "submission.csv", labels / "truth.csv"]
    fold.mkdir()
    plain = command(*paths, "--json", labels / "plain.json")
    done = command(*paths, "--json", fold / "score.json", "--per-query", fold / "per_query.csv", "--probabilities", probabilities)
    result, without = json.loads((fold / "score.json").read_text()), json.loads((labels / "plain.json").read_text())
    assert done.returncode == plain.returncode == 0 and done.stderr == ""
    assert {name: value for name, value in result.items() if name != "open_set"} == without
    assert "open set: AUC 0.6667" in done.stdout and "3 known whales" in done.stdout and "at least 0.9: 0 wrong" in done.stdout
    assert "open set" not in plain.stdout
    pooled = summary.pooled([fold])
    assert list(pooled) == [*without, "folds"] and pooled["folds"]["fold0"]["open_set"] == result["open_set"]


def test_the_summary_of_a_run_prints_it_for_the_folds_that_have_it_alone(labels, monkeypatch, capsys):
    per_query = score.evaluate(labels / "submission.csv", labels / "truth.csv").per_query
    for name, more in {"fold0": {}, "fold1": {"open_set": open_set(labels, *PROBABILITIES)}}.items():
        write_table(per_query, labels / name / "per_query.csv")
        write_json(score.summarise(per_query, []) | more, labels / name / "score.json")
    write(labels / "summary.csv", "step,seconds,peak_mb", "folds,1,2")
    monkeypatch.setattr(sys, "argv", ["summary", str(labels)])
    summary.main()
    told = capsys.readouterr().out
    assert "fold1, open set: AUC 0.6667" in told and "3 known whales" in told and told.count("open set") == 1


def test_the_command_ends_with_one_line_and_status_2_where_the_file_is_malformed(labels):
    probabilities = write(labels / "probabilities.csv", *PROBABILITIES, "1.jpg,w_c,2")
    done = command(labels / "submission.csv", labels / "truth.csv", "--probabilities", probabilities)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "line 15" in done.stderr


def test_the_first_labels_of_a_file_that_cannot_be_read_are_null(labels):
    write(labels / "submission.csv", "name,five", "1.jpg,w_a")
    figures = open_set(labels, *PROBABILITIES)
    assert figures["first_right_known"] is None and figures["auc"] is not None
