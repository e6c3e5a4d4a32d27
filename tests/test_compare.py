"""The comparison of two submissions: on small files, and its interval on simulated whales."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval import compare, metrics
from eval.files import InputError

ROOT = Path(__file__).parents[1]


def make_fold(folder, seed, n=60, queries_per_whale=3, better=0.3):
    """A fold with one match a query; a names it at a random place, b at the same place or, now and then, first."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    query = [f"s{number % 2}-q{number}" for number in range(n)]
    pd.DataFrame({"query_id": query, "database_image_id": "right"}).to_csv(folder / "truth.csv", index=False)
    place = rng.integers(1, 21, n)
    for name, places in (("a", place), ("b", np.where(rng.uniform(size=n) < better, 1, place))):
        rows = [(q, "right" if k == p else f"wrong{k}", 1 - k / 100) for q, p in zip(query, places) for k in range(1, 21)]
        pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"]).to_csv(folder / f"{name}.csv", index=False)
    whales = [f"w{number // queries_per_whale}" for number in range(n)]
    pd.DataFrame({"image_id": [f"q{number}" for number in range(n)], "whale_id": whales}).to_csv(folder / "labels.csv", index=False)
    return [folder / name for name in ("a.csv", "b.csv", "truth.csv")]


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "eval.compare", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def reciprocal_places(path):
    rows = pd.read_csv(path).sort_values("score", ascending=False, kind="stable")
    place = rows.groupby("query_id").cumcount() + 1
    return (1 / place[rows.database_image_id == "right"]).set_axis(rows.query_id[rows.database_image_id == "right"])


def test_the_means_and_the_difference_are_those_worked_out_in_pandas(tmp_path):
    triple = make_fold(tmp_path / "0", 0)
    result = compare.compare(compare.paired([triple], [None]))
    a, b = reciprocal_places(triple[0]), reciprocal_places(triple[1])
    assert result["a"] == pytest.approx(a.mean()) and result["b"] == pytest.approx(b.mean())
    assert result["difference"] == pytest.approx((b - a).mean())
    for name, scenario in result["scenarios"].items():
        assert scenario["difference"] == pytest.approx((b - a)[lambda values: values.index.str.startswith(name)].mean())
    changed = (b - a).abs().sort_values(ascending=False)
    assert [abs(row["difference"]) for row in result["changed_most"]] == pytest.approx(changed.iloc[:10].tolist())
    assert result["n_resampled"] == 20 and result["resampled"] == "whales"


def test_interval_and_p_value_are_those_of_the_differences_by_whale(tmp_path):
    table = compare.paired([make_fold(tmp_path / "0", 1)], [None])
    result = compare.compare(table)
    parts = [(result, table), *((result["scenarios"][name], part) for name, part in table.groupby("scenario_id"))]
    for told, part in parts:
        groups = metrics.whale_groups(part.whale_id)
        assert told["ci95"] == metrics.whale_interval((part.b - part.a).to_numpy(), groups)
        assert told["ci95"][0] < told["difference"] < told["ci95"][1]
        assert told["p_value"] == metrics.sign_flip_p_value((part.b - part.a).to_numpy(), groups)
        assert told["n_resampled"] == part.whale_id.nunique() and told["n_queries"] == len(part)


def test_a_submission_does_not_differ_from_itself(tmp_path):
    a, _, truth = make_fold(tmp_path / "0", 2)
    result = compare.compare(compare.paired([(a, a, truth)], [None]))
    assert result["difference"] == 0 and result["ci95"] == [0, 0] and result["p_value"] == 1 and result["changed_most"] == []


def test_turning_the_submissions_round_turns_the_sign(tmp_path):
    a, b, truth = make_fold(tmp_path / "0", 3)
    one, other = (compare.compare(compare.paired([triple], [None])) for triple in ((a, b, truth), (b, a, truth)))
    pairs = [(one, other), *((one["scenarios"][name], other["scenarios"][name]) for name in one["scenarios"])]
    for here, there in pairs:
        assert here["difference"] == -there["difference"] and here["p_value"] == there["p_value"]
        assert here["ci95"] == [-there["ci95"][1], -there["ci95"][0]] and (here["a"], here["b"]) == (there["b"], there["a"])
    assert [row["query_id"] for row in one["changed_most"]] == [row["query_id"] for row in other["changed_most"]]
    assert [row["difference"] for row in one["changed_most"]] == [-row["difference"] for row in other["changed_most"]]


def test_pooled_folds_are_the_queries_of_both_and_a_whale_of_both_is_one_whale(tmp_path):
    folds = [make_fold(tmp_path / str(number), number, n=30) for number in range(2)]
    pooled = compare.compare(compare.paired(folds, [None, None]))
    single = [compare.compare(compare.paired([fold], [None])) for fold in folds]
    assert pooled["n_queries"] == 60 and pooled["n_resampled"] == 10
    assert pooled["difference"] == pytest.approx(np.mean([fold["difference"] for fold in single]))
    assert {row["fold"] for row in pooled["changed_most"]} == {0, 1}


def test_without_labels_queries_are_resampled_and_it_says_so(tmp_path):
    triple = make_fold(tmp_path / "0", 4)
    (tmp_path / "0" / "labels.csv").unlink()
    done = command(*triple, "--json", tmp_path / "difference.json")
    result = json.loads((tmp_path / "difference.json").read_text())
    assert done.returncode == 0 and "every query counts for itself" in done.stderr
    assert result["resampled"] == "queries" and result["n_resampled"] == 60


def test_few_whales_are_warned_of(tmp_path):
    few = command(*make_fold(tmp_path / "few", 5)).stderr
    assert few == "warning: below 50 whales interval and p are rough: s0 (20), s1 (20), all (20)\n"
    assert command(*make_fold(tmp_path / "many", 5, n=150)).stderr == ""


def test_the_command_takes_triples_and_labels_and_tells_the_same_twice(tmp_path):
    folds = [make_fold(tmp_path / str(number), number) for number in range(2)]
    labels = [part for number in range(2) for part in ("--labels", tmp_path / str(number) / "labels.csv")]
    first, second = (command(*folds[0], *folds[1], *labels, "--json", tmp_path / name) for name in ("1.json", "2.json"))
    assert first.returncode == 0 and "120" in first.stdout and first.stdout == second.stdout
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize("count", [2, 4])
def test_files_that_are_no_triples_are_bad_usage(tmp_path, count):
    done = command(*(make_fold(tmp_path / "0", 6) * 2)[:count])
    assert done.returncode == 2 and "A.csv B.csv TRUTH.csv" in done.stderr


def test_a_submission_that_breaks_the_rules_is_not_compared(tmp_path):
    a, b, truth = make_fold(tmp_path / "0", 7)
    with open(b, "a") as file:
        file.write("s0-q0,right,2\n")
    with pytest.raises(InputError, match="b.csv: breaks the rules and cannot be compared; line 1202"):
        compare.paired([(a, b, truth)], [None])


def test_a_missing_query_counts_zero_in_the_difference(tmp_path):
    a, b, truth = make_fold(tmp_path / "0", 8, better=0)
    rows = pd.read_csv(b)
    rows[rows.query_id != "s0-q0"].to_csv(b, index=False)
    result = compare.compare(compare.paired([(a, b, truth)], [None]))
    assert result["difference"] == pytest.approx(-reciprocal_places(a)["s0-q0"] / 60)


def test_missing_queries_are_told_for_each_file(tmp_path):
    a, b, truth = make_fold(tmp_path / "0", 9, n=150)
    for path, gone in ((a, ["s0-q0"]), (b, ["s0-q0", "s1-q1"])):
        rows = pd.read_csv(path)
        rows[~rows.query_id.isin(gone)].to_csv(path, index=False)
    warnings = command(a, b, truth).stderr.splitlines()
    start = "queries of the truth that are missing and count 0 in strict"
    assert warnings == [f"warning: {a}: {start}: 1; the first is s0-q0", f"warning: {b}: {start}: 2; the first is s0-q0"]


def test_files_of_labels_are_compared_by_individual(tmp_path):
    truth = [f"{number}.jpg,{'w_' + str(number % 3) if number < 9 else 'new_whale'}" for number in range(12)]
    files = {"truth": truth, "a": [line.split(",")[0] + ",w_0 w_1 w_2 new_whale" for line in truth], "b": truth}
    for name, lines in files.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["Image,Id", *lines]) + "\n")
    result = compare.compare(compare.paired([tuple(tmp_path / f"{name}.csv" for name in ("a", "b", "truth"))], [None]))
    assert result["a"] == pytest.approx(np.mean([1, 1 / 2, 1 / 3, 1 / 4])) and result["b"] == 1 and result["scenarios"] == {}
    assert result["n_resampled"] == 3 + 3  # three whales, and each unknown one for itself
    assert result["p_value"] == 2 / 2 ** 5  # whale w_0 does not differ


def test_a_single_whale_has_a_difference_and_no_interval(tmp_path):
    triple = make_fold(tmp_path / "0", 10, n=9, queries_per_whale=9)
    done = command(*triple, "--json", tmp_path / "difference.json")
    result = json.loads((tmp_path / "difference.json").read_text())
    assert done.returncode == 0 and result["ci95"] is None and result["p_value"] == 1 and result["n_resampled"] == 1


def test_a_disagreement_of_interval_and_p_about_zero_is_told(capsys):
    row = {"n_queries": 9, "n_resampled": 60, "a": 0.1, "b": 0.2, "difference": 0.1, "ci95": [-0.01, 0.21], "p_value": 0.04}
    compare.show({**row, "scenarios": {"s0": {**row, "p_value": 0.06}}, "resampled": "whales", "changed_most": []})
    assert capsys.readouterr().err == "warning: interval and p disagree about 0 in all; p tells whether a and b differ\n"


def sizes(rng, whales):
    """Queries of each whale, as unequal as the belugas' photographs: median 5, mean 8, a few with up to 106."""
    return np.clip(rng.lognormal(1.6, 1, whales), 1, 106).astype(int)


def even(rng, whales):
    """Differences about .05 whose whales differ from each other as much as their queries do."""
    whale = np.repeat(np.arange(whales), sizes(rng, whales))
    return 0.05 + rng.normal(0, 0.2, whales)[whale] + rng.normal(0, 0.2, len(whale)), whale


def skewed(rng, whales):
    """Exact zeros for three queries in four, more gains than losses, some whales changed everywhere and some nowhere."""
    whale = np.repeat(np.arange(whales), sizes(rng, whales))
    n, changed = len(whale), rng.beta(0.5, 1.5, whales)[whale]
    size = np.where(rng.uniform(size=n) < 0.65, rng.beta(0.6, 2, n), -rng.beta(0.5, 3, n))
    return np.where(rng.uniform(size=n) < changed, size, 0), whale


TRUTH = {even: 0.05, skewed: 0.25 * (0.65 * 0.6 / 2.6 - 0.35 * 0.5 / 3.5)}  # a beta's mean is a / (a + b)


def coverage(interval, draw, whales, runs, seed=0):
    """Share of simulated comparisons whose interval holds the true difference."""
    rng = np.random.default_rng([seed, whales])
    bounds = np.array([interval(*draw(rng, whales)) for _ in range(runs)])
    return np.mean((bounds[:, 0] <= TRUTH[draw]) & (TRUTH[draw] <= bounds[:, 1]))


def margin(runs, share=0.93):
    """Three standard deviations of a share that was counted in `runs` runs."""
    return 3 * np.sqrt(share * (1 - share) / runs)


@pytest.mark.parametrize("draw", TRUTH)
def test_the_interval_holds_the_true_difference_about_as_often_as_it_says(draw):
    assert 0.93 - margin(800) <= coverage(metrics.whale_interval, draw, 60, 800) <= 0.97 + margin(800)


def test_queries_taken_for_independent_promise_too_much():
    alone = lambda difference, whale: metrics.whale_interval(difference, np.arange(len(whale)))
    assert coverage(alone, even, 60, 300) < 0.8


@pytest.mark.slow
@pytest.mark.parametrize("whales", [50, 100, 200])
@pytest.mark.parametrize("draw", TRUTH)
def test_ninety_five_percent_intervals_hold_the_truth_in_93_to_97_percent(draw, whales):
    share = coverage(metrics.whale_interval, draw, whales, 10_000, seed=1)
    assert 0.93 - margin(10_000) <= share <= 0.97 + margin(10_000)


@pytest.mark.slow
@pytest.mark.parametrize("draw", TRUTH)
def test_the_percentile_bootstrap_would_promise_too_much_with_fifty_whales(draw):
    percentile = lambda *differences: metrics.bootstrap_interval(*differences, resamples=500)
    assert coverage(percentile, draw, 50, 2000, seed=1) < 0.93


def p_values_of_equals(draw, whales, runs, flips):
    """p where nothing differs: a and b are exchanged at random for each whale."""
    rng = np.random.default_rng([2, whales])
    for _ in range(runs):
        difference, whale = draw(rng, whales)
        yield metrics.sign_flip_p_value(difference * rng.choice([-1, 1], whales)[whale], whale, flips=flips)


@pytest.mark.parametrize("draw", TRUTH)
def test_the_p_value_is_small_as_often_as_it_says_when_nothing_differs(draw):
    small = np.mean(np.array(list(p_values_of_equals(draw, 30, 600, flips=399))) <= 0.05)
    assert abs(small - 0.05) <= margin(600, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("whales", [8, 20, 50, 100])
@pytest.mark.parametrize("draw", TRUTH)
def test_p_values_of_equals_are_uniform(draw, whales):
    p = np.array(list(p_values_of_equals(draw, whales, 4000, flips=999)))
    for bound in (0.05, 0.1, 0.25, 0.5, 0.75):
        assert np.mean(p <= bound) <= bound + margin(4000, bound)
        assert whales == 8 or np.mean(p <= bound) >= bound - margin(4000, bound)  # few sign patterns: p takes large steps
