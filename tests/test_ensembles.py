"""What each model adds: the sets of models written by hand, rankings by a plain loop, gains and seconds worked out in pandas."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from eval import ensembles, folds, leaderboard, metrics, summary
from eval.ensembles import Variant
from eval.files import InputError
from solution import recipe
from solution.files import write_arrays, write_json

ROOT = Path(__file__).parents[1]
SPECS = {"zebra": recipe.Predict(normalise=True, weight=2.0), "apple": recipe.Predict(mirror="average")}  # in the recipe's order


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "eval.ensembles", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def embedded(run, fold, name, position, predict, seed):
    """Random embeddings with something of the whale in them."""
    folder = run / "folds" / str(fold)
    ids = pd.read_csv(folder / "test" / "metadata.csv", dtype=str).image_id
    whale = pd.factorize(ids.map(pd.read_csv(folder / "labels.csv", dtype=str).set_index("image_id").whale_id))[0]
    random = np.random.default_rng([seed, fold])
    centre = random.normal(size=(whale.max() + 1, 12))[whale]
    plain, mirror = ((0.5 * centre + random.normal(size=centre.shape)).astype(np.float32) for _ in range(2))
    write_arrays(run / f"fold{fold}" / "embeddings" / f"{name}.npz", image_id=ids.to_numpy(str), plain=plain, mirror=mirror)
    write_json(recipe.plain(recipe.Spec(name, position, recipe.Model("b"), predict=predict)), run / f"fold{fold}" / "embeddings" / f"{name}.json")


def predicted_run(path, n_folds=2):
    folds.make(toy.competition(path / "data", n_whales=24, images=False), path / "runs" / "toy" / "folds", "whale", n_folds=n_folds)
    run = path / "runs" / "toy"
    for fold in range(n_folds):
        for position, (name, predict) in enumerate(SPECS.items()):
            embedded(run, fold, name, position, predict, seed=position)
        models = {name: {"plain_seconds": 2.0 + position + fold, "mirror_seconds": 1.0} for position, name in enumerate(SPECS)}
        write_json({"images": 50 * (fold + 1), "models": models}, run / f"fold{fold}" / "timings.json")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = predicted_run(tmp_path_factory.mktemp("ensembles"))
    done = command(run)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture(scope="module")
def table(run):
    return pd.read_csv(run / "ensembles.csv", dtype={"folds": str})


def row(table, variant, kind, which="all"):
    (found,) = table[(table.variant == variant) & (table.kind == kind) & (table.folds == which)].itertuples()
    return found


# The sets of models

def told(mirrored):
    """kind, variant and what the gain is the difference of, as words."""
    return [(role.kind, role.variant.name, *([role.more.name, role.less.name] if role.more else [])) for role in ensembles.roles(mirrored)]


def test_the_sets_of_three_models_are_these():
    no = " (no mirror images)"
    with_mirror = [
        ("single", "a"), ("single", "b"), ("single", "c"),
        ("prefix", "a+b", "a+b", "a"), ("prefix", "a+b+c", "a+b+c", "a+b"),
        ("without", "b+c", "a+b+c", "b+c"), ("without", "a+c", "a+b+c", "a+c"), ("without", "a+b", "a+b+c", "a+b")]
    without_mirror = [(kind, *(name + no for name in names)) for kind, *names in with_mirror]
    assert told({"a": True, "b": True, "c": True}) == [*with_mirror, *without_mirror, ("without", "a+b+c" + no, "a+b+c", "a+b+c" + no)]
    assert told({"a": False, "b": False, "c": False}) == with_mirror


def test_one_model_has_only_its_mirror_images_to_add():
    assert told({"a": True}) == [("single", "a"), ("single", "a (no mirror images)"), ("without", "a (no mirror images)", "a", "a (no mirror images)")]
    assert told({"a": False}) == [("single", "a")]


def test_a_model_without_mirror_images_is_ranked_once():
    rows = told({"a": True, "b": False})
    assert len(rows) == len({row[:2] for row in rows}) and [row[1] for row in rows if row[0] == "single"] == ["a", "b", "a (no mirror images)"]
    assert ("prefix", "a+b (no mirror images)", "a+b (no mirror images)", "a (no mirror images)") in rows
    assert ("without", "a+b (no mirror images)", "a+b", "a+b (no mirror images)") in rows
    variants = {role.variant for role in ensembles.roles({"a": True, "b": False})}
    assert Variant(("b",), "off") in variants and len(variants) == 5


def test_seven_models_are_38_rankings():
    assert len({role.variant for role in ensembles.roles(dict.fromkeys("abcdefg", True))}) == 38


def test_the_order_is_that_of_the_recipe_and_of_names_where_there_is_none(run, tmp_path):
    assert ensembles.models(run / "fold0" / "embeddings") == {"zebra": True, "apple": True}
    shutil.copytree(run / "fold0" / "embeddings", tmp_path / "e")
    for name in SPECS:
        (tmp_path / "e" / f"{name}.json").unlink()
    assert list(ensembles.models(tmp_path / "e")) == ["apple", "zebra"]


# Scores

def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def joined(run, fold, names, mirror):
    """One row per image as SPECS says, in float64."""
    parts = []
    for name in names:
        saved = np.load(run / f"fold{fold}" / "embeddings" / f"{name}.npz")
        plain, mirrored = saved["plain"].astype(float), saved["mirror"].astype(float)
        if name == "zebra":
            parts.append(np.sqrt(2) * unit(np.hstack([plain, mirrored]) if mirror else plain))
        else:
            parts.append((plain + mirrored) / 2 if mirror else plain)
    return dict(zip(saved["image_id"], unit(np.hstack(parts))))


def naive_precision(run, fold, names, mirror):
    """Average precision of each query by loops."""
    folder, rows, values = run / "folds" / str(fold), joined(run, fold, names, mirror), {}
    truth = pd.read_csv(folder / "truth.csv").groupby("query_id").database_image_id.agg(set)
    for scenario in pd.read_csv(folder / "test" / "query_scenarios.csv").itertuples():
        database = pd.read_csv(folder / "test" / scenario.database_path).database_image_id
        for query_id, image in pd.read_csv(folder / "test" / scenario.queries_path).itertuples(index=False):
            others = sorted((other for other in database if other != image), key=lambda other: -(rows[image] @ rows[other]))[:20]
            hits = np.array([other in truth[query_id] for other in others])
            values[query_id] = (hits * hits.cumsum() / np.arange(1, len(hits) + 1)).sum() / min(len(truth[query_id]), 20)
    return values


@pytest.mark.parametrize("variant, names, mirror", [
    ("zebra", ["zebra"], True), ("apple", ["apple"], True), ("zebra+apple", ["zebra", "apple"], True),
    ("zebra (no mirror images)", ["zebra"], False), ("apple (no mirror images)", ["apple"], False),
    ("zebra+apple (no mirror images)", ["zebra", "apple"], False)])
def test_every_ranking_is_that_of_a_plain_loop(variant, names, mirror, run):
    for fold in (0, 1):
        found = pd.read_csv(run / f"fold{fold}" / "ensembles.csv").set_index("query_id")[variant]
        assert found.to_dict() == pytest.approx(naive_precision(run, fold, names, mirror))


def test_each_fold_has_a_column_a_variant_and_all_folds_are_pooled_by_query(run, table):
    per_query = [pd.read_csv(run / f"fold{fold}" / "ensembles.csv") for fold in (0, 1)]
    assert list(per_query[0].columns) == ["query_id", *dict.fromkeys(table.variant)]
    for variant in set(table.variant):
        values = [part[variant] for part in per_query]
        for which, expected in {"all": pd.concat(values), "0": values[0], "1": values[1]}.items():
            rows = table[(table.variant == variant) & (table.folds == which)]
            assert rows.strict.tolist() == pytest.approx([expected.mean()] * len(rows)) and set(rows.n_queries) == {len(expected)}


def test_the_table_holds_every_role_over_all_folds_and_in_each(table):
    rows = told({"zebra": True, "apple": True})
    assert list(table.columns) == ensembles.COLUMNS
    assert list(zip(table.folds, table.kind, table.variant)) == [(which, *row[:2]) for which in ("all", "0", "1") for row in rows]
    assert set(zip(table.models, table.mirror)) == {(models, mirror) for models in ("zebra", "apple", "zebra+apple") for mirror in ("yes", "no")}


def test_gains_are_differences_paired_by_whale(run, table):
    """What apple adds to zebra, with its interval over whales, from the columns of the folds."""
    parts = []
    for fold in (0, 1):
        whale = pd.read_csv(run / "folds" / str(fold) / "labels.csv").set_index("image_id").whale_id
        part = pd.read_csv(run / f"fold{fold}" / "ensembles.csv")
        parts.append(part.assign(whale=part.query_id.str.split("-").str[-1].map(whale)))
    queries = pd.concat(parts, ignore_index=True)
    for found, more, less in [
            (row(table, "zebra+apple", "prefix"), "zebra+apple", "zebra"),
            (row(table, "apple", "without"), "zebra+apple", "apple"),
            (row(table, "zebra+apple (no mirror images)", "without"), "zebra+apple", "zebra+apple (no mirror images)"),
            (row(table, "zebra+apple (no mirror images)", "prefix"), "zebra+apple (no mirror images)", "zebra (no mirror images)")]:
        difference = (queries[more] - queries[less]).to_numpy()
        interval = metrics.whale_interval(difference, metrics.whale_groups(queries.whale))
        assert [found.gain, found.gain_low, found.gain_high] == pytest.approx([difference.mean(), *interval])
    assert table[table.kind == "single"].gain.isna().all()


def test_seconds_are_those_of_the_passes_for_a_thousand_images(table):
    """150 images; zebra took 2 + 3 s plain and 2 s mirrored in the two folds, apple 3 + 4 and 2."""
    expected = {"zebra": 7, "apple": 9, "zebra+apple": 16, "zebra (no mirror images)": 5, "apple (no mirror images)": 7}
    for variant, seconds in expected.items():
        rows = table[(table.variant == variant) & (table.folds == "all")]
        assert rows.seconds.tolist() == pytest.approx([1000 * seconds / 150] * len(rows))
    found = row(table, "zebra+apple", "prefix")
    assert found.gain_per_second == pytest.approx(found.gain / (1000 * 9 / 150))
    found = row(table, "zebra+apple (no mirror images)", "without")
    assert found.gain_per_second == pytest.approx(found.gain / (1000 * 4 / 150))
    assert row(table, "zebra", "single", "1").seconds == pytest.approx(1000 * 4 / 100)


def test_seconds_that_nobody_told_are_empty():
    timing = {"images": 10, "models": {"a": {"plain_seconds": 1.0}}}
    assert ensembles.seconds(Variant(("a",), "off"), [timing]) == 100
    assert np.isnan(ensembles.seconds(Variant(("a", "b"), "off"), [timing])) and np.isnan(ensembles.seconds(Variant(("a",), "yes"), [timing, {}]))


# The leaderboard, and what a run is told

def test_local_evidence_is_the_runs_own_submission_against_all_models(run, tmp_path):
    """A third run like the first, whose submission is the truth."""
    copy = tmp_path / "runs" / "toy"
    shutil.copytree(run, copy)
    for fold in (0, 1):
        spec = copy / f"fold{fold}" / "embeddings" / "apple.json"
        spec.write_text(spec.read_text().replace('"local_size": null', '"local_size": 320'))
        truth = pd.read_csv(copy / "folds" / str(fold) / "truth.csv")
        truth["score"] = 1 - truth.groupby("query_id").cumcount() / 100
        truth.groupby("query_id").head(20).to_csv(copy / f"fold{fold}" / "submission.csv", index=False)
    done = command(copy)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(copy / "ensembles.csv", dtype={"folds": str})
    row, before = rows[(rows.kind == "local") & (rows.folds == "all")].iloc[0], rows[(rows.variant == "zebra+apple") & (rows.folds == "all")].iloc[0]
    assert row.strict == 1 and row.gain == pytest.approx(1 - before.strict) and np.isnan(row.seconds)
    told = summary.additions(summary.read_ensembles(copy / "ensembles.csv", [0, 1])).loc["local evidence"]
    assert told["to all others"].startswith(f"{1 - before.strict:+.4f}")
    board = leaderboard.ranked(tmp_path / "runs" / "leaderboard.csv")
    assert all(part.iloc[0].variant == "zebra+apple and local evidence" for part in board.values())
    assert "place 1 of" in summary.place(copy, [0, 1])


def test_every_variant_is_a_row_of_the_leaderboard(run, table):
    board = leaderboard.read(run.parent / "leaderboard.csv")
    assert set(board.fold) == {"0+1", "0", "1"} and set(board.system) == {"toy"} and len(board) == 3 * 6
    for each in board.itertuples():
        found = table[(table.variant == each.variant) & (table.folds == {"0+1": "all"}.get(each.fold, each.fold))].iloc[0]
        assert (each.score, each.low, each.seconds, each.mirror) == (found.strict, found.low, found.seconds, found.mirror)


def test_the_summary_says_what_each_model_adds_and_where_the_run_stands(run, table):
    read = summary.read_ensembles(run / "ensembles.csv", [0, 1])
    found = summary.additions(read)
    assert list(found.index) == ["zebra", "apple", "mirror images"]
    gain = row(table, "zebra+apple", "prefix").gain
    assert found["to those before"]["apple"].startswith(f"{gain:+.4f} (") and found["to all others"]["apple"] == found["to those before"]["apple"]
    assert found["to all others"]["zebra"].startswith(f"{row(table, 'apple', 'without').gain:+.4f}")
    assert found.seconds["mirror images"] == pytest.approx(1000 * 4 / 150)
    assert summary.read_ensembles(run / "ensembles.csv", [0]) is None
    board = leaderboard.ranked(run.parent / "leaderboard.csv")
    name = next(name for name in board if name.endswith("fold 0+1"))
    place = board[name].set_index("variant")["rank"]["zebra+apple"]
    assert summary.place(run, [0, 1]).startswith(f"place {place} of 6 on ") and summary.place(run, [7]) == ""


def test_a_second_run_writes_the_same_bytes_and_leaves_no_other_file(run, table, tmp_path):
    again = tmp_path / "runs" / "toy"
    shutil.copytree(run.parent, again.parent, ignore=shutil.ignore_patterns("ensembles.csv"))
    before = set(tmp_path.rglob("*"))
    assert command(again, "--folds", "1").returncode == 0
    for name in ("fold1/ensembles.csv", "../leaderboard.csv"):  # whose rows of fold 1 were replaced
        assert (again / name).read_bytes() == (run / name).read_bytes()
    only = pd.read_csv(again / "ensembles.csv", dtype={"folds": str})
    pd.testing.assert_frame_equal(only, table[table.folds == "1"].reset_index(drop=True), check_exact=True)
    assert set(tmp_path.rglob("*")) - before == {again / "ensembles.csv", again / "fold1" / "ensembles.csv"}


# What cannot be done

@pytest.fixture
def small(run, tmp_path):
    """A copy with fold 0 alone, not ranked yet."""
    shutil.copytree(run, tmp_path / "runs" / "toy", ignore=shutil.ignore_patterns("ensembles.csv", "fold1"))
    return tmp_path / "runs" / "toy"


def test_a_run_that_answers_with_names_has_its_score_alone_on_the_leaderboard(tmp_path):
    run = tmp_path / "runs" / "names"
    folds.make(toy.competition(tmp_path / "data", n_whales=24, images=False), run / "folds", "identify")
    embedded(run, 0, "one", 0, recipe.Predict(mirror="off"), 0)
    truth = pd.read_csv(run / "folds" / "0" / "truth.csv", dtype=str)
    whales = [whale for whale in dict.fromkeys(truth.Id) if whale != "new_whale"][:4]
    truth.assign(Id=" ".join(["new_whale", *whales])).to_csv(run / "fold0" / "submission.csv", index=False)
    done = command(run)
    assert done.returncode == 0 and "answers with names" in done.stdout and not (run / "ensembles.csv").exists()
    (only,) = leaderboard.read(run.parent / "leaderboard.csv").itertuples()
    places = truth.Id.map({name: place for place, name in enumerate(["new_whale", *whales], start=1)})
    assert (only.measure, only.protocol, only.variant, only.mirror) == ("MAP@5", "identify", "one", "off")
    assert only.score == pytest.approx((1 / places).fillna(0).mean())


@pytest.mark.parametrize("arguments, told", [
    (["--folds", "0,1"], "--folds: '1' was not predicted"), (["--folds", "x"], "--folds: 'x' was not predicted")])
def test_a_fold_that_was_not_predicted_is_refused(arguments, told, small):
    refused = command(small, *arguments)
    assert refused.returncode == 2 and told in refused.stderr and refused.stderr.count("\n") == 1


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="no predicted fold here"):
        ensembles.predicted(tmp_path, None)


def test_folds_of_different_models_are_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "toy")
    (tmp_path / "toy" / "fold1" / "embeddings" / "apple.npz").unlink()
    with pytest.raises(InputError, match="fold1/embeddings: has zebra, fold 0 zebra, apple"):
        ensembles.common_models(tmp_path / "toy", [0, 1])
    assert list(ensembles.common_models(tmp_path / "toy", [1])) == ["zebra"]


@pytest.mark.parametrize("spec", ["[]", "{}", '{"position": "first", "predict": {"mirror": "off"}}', '{"position": 0, "predict": null}', "{"])
def test_a_spec_that_says_nothing_is_refused(spec, small):
    (small / "fold0" / "embeddings" / "apple.json").write_text(spec)
    with pytest.raises(InputError, match="apple.json"):
        ensembles.models(small / "fold0" / "embeddings")


def test_embeddings_of_other_photographs_are_told_in_one_line_and_nothing_is_written(small):
    write_arrays(small / "fold0" / "embeddings" / "apple.npz", image_id=np.array(["x"]), plain=np.ones((1, 3)), mirror=np.ones((1, 3)))
    refused = command(small)
    assert refused.returncode == 2 and refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1 and "error: error" not in refused.stderr
    assert not list(small.rglob("ensembles.csv")) and not (small.parent / "leaderboard.csv").exists()


def test_a_damaged_leaderboard_is_told_before_anything_is_ranked(small):
    (small.parent / "leaderboard.csv").write_text("board,score\nmine,1\n")
    refused = command(small)
    assert refused.returncode == 2 and "no leaderboard" in refused.stderr and not list(small.rglob("ensembles.csv"))
    assert (small.parent / "leaderboard.csv").read_text() == "board,score\nmine,1\n"
