"""The whole sentence on a toy competition, as a user runs it: ./run_all.sh --data DATA --recipe FILE."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy

ROOT = Path(__file__).parents[1]
RECIPE = """
shared:
  model: {pretrained: none, backbone: test_efficientnet}
  train: {size: 64, epochs: 2, batch_size: 8, learning_rate: 1.0e-3, head_learning_rate: 1.0e-2}
models:
  first: {}
  second: {train: {size: 48}}
"""
MAY_DIFFER = {"provenance.json", "timings.json", "summary.csv", "report.html"}  # commands, dates and seconds
SECONDS = ["seconds", "gain_per_second"]


def run_all(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "run_all.sh", *arguments], capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("whole")
    toy.competition(place / "data", n_whales=20, images_per_whale=(2, 3, 4, 5, 6))
    (place / "tiny.yaml").write_text(RECIPE)
    return place


@pytest.fixture(scope="module")
def finished(place) -> subprocess.CompletedProcess:
    if not (ROOT / ".venv" / "installed.lock").is_file():
        pytest.skip("there is no .venv yet: ./run_all.sh test makes it, then this test runs in it")
    return run_all("--data", str(place / "data"), "--recipe", str(place / "tiny.yaml"), "--folds", "0,1", "--output", str(place / "run"))


def contents(run: Path) -> dict:
    """Every file of a run that must be the same each time; of tables with seconds all but those."""
    files = {path.relative_to(run): path for path in sorted(run.rglob("*")) if path.is_file() and path.name not in MAY_DIFFER}
    timed = {name for name in files if name.name.endswith(".log.csv") or str(name) == "ensembles.csv"}
    return {name: without_seconds(path) if name in timed else path.read_bytes() for name, path in files.items()}


def without_seconds(table: Path) -> str:
    return pd.read_csv(table).drop(columns=SECONDS, errors="ignore").to_csv()


def test_one_command_leads_from_photographs_to_a_score_and_a_page(place, finished):
    assert finished.returncode == 0, finished.stderr
    score = json.loads((place / "run" / "score.json").read_text())
    assert score["official"] == score["strict"] and 0 <= score["strict"] <= 1
    assert score["n_queries"] == sum(fold["n_queries"] for fold in score["folds"].values()) > 0
    assert (place / "run" / "report.html").read_text().lower().startswith("<!doctype html>")
    for word in ("official", "strict", "map5_images", "top1", "95 % interval", "what each model adds", "place ", "peak_mb", "report.html", "fold1"):
        assert word in finished.stdout


def test_the_pooled_score_is_the_mean_over_the_queries_of_all_folds(place, finished):
    tables = [pd.read_csv(place / "run" / f"fold{k}" / "per_query.csv") for k in (0, 1)]
    assert json.loads((place / "run" / "score.json").read_text())["strict"] == pytest.approx(pd.concat(tables).strict.mean())


def test_the_summary_has_a_row_for_every_step(place, finished):
    summary = pd.read_csv(place / "run" / "summary.csv")
    of_fold = [f"{step} fold {k}" for k in (0, 1) for step in ("train", "predict", "score", "explain", "doubts")]
    assert list(summary.step) == ["folds", *of_fold, "ensembles", "report"]
    assert (summary.peak_mb > 10).all() and (summary.seconds >= 0).all()


def test_every_ensemble_is_scored_and_the_whole_one_is_what_was_predicted(place, finished):
    table = pd.read_csv(place / "run" / "ensembles.csv", dtype={"folds": str})
    whole = table[(table.kind == "prefix") & (table.mirror == "yes")].set_index("folds")
    for path, folds in {"score.json": "all", "fold0/score.json": "0", "fold1/score.json": "1"}.items():
        score = json.loads((place / "run" / path).read_text())
        assert whole.variant[folds] == "first+second" and whole.strict[folds] == pytest.approx(score["strict"])
        few = pd.concat(pd.read_csv(place / "run" / f"fold{k}/per_query.csv") for k in (folds if folds != "all" else "01")).whale_id.nunique() < 5
        assert [whole.low[folds], whole.high[folds]] == pytest.approx([np.nan] * 2 if few else score["ci95"], nan_ok=True)
    assert (table.seconds > 0).all() and (table.seconds[table.mirror == "no"].max() < table.seconds.max())


def test_a_second_run_elsewhere_gives_the_same_bytes_and_a_third_one_here_trains_nothing(place, finished):
    arguments = "--data", str(place / "data"), "--recipe", str(place / "tiny.yaml"), "--folds", "0,1"
    assert run_all(*arguments, "--output", str(place / "again")).returncode == 0
    first = contents(place / "run")
    assert first == contents(place / "again")
    board = pd.read_csv(place / "leaderboard.csv").query("fold == '0+1'").set_index(["system", "variant"]).score
    assert set(board.index.levels[0]) == {"again", "run"} and board["again"].to_dict() == board["run"].to_dict()
    third = run_all(*arguments, "--output", str(place / "run"))
    assert third.returncode == 0 and "nothing left to do" in third.stdout
    assert contents(place / "run") == first


@pytest.mark.parametrize("arguments, told", [
    (["--folds", "some", "--data", "x", "--recipe", "small"], "--folds is 'some'"),
    (["--folds", "0,1,0", "--data", "x", "--recipe", "small"], "--folds is '0,1,0'; a fold stands there twice"),
    (["--recipe", "small", "--data", "x", "--output", "README.md/run"], "--output is 'README.md/run'; no folder can be made there"),
    (["--recipe", "small"], "needs --data"),
    (["--data", "x"], "needs --recipe"),
    (["--data", "x", "--recipe", "small", "--protocol", "suite"], "suite has nothing to train on; python -m eval.folds DATA --output FOLDS --protocol suite makes it"),
    (["--data", "x", "--recipe", "small", "--protocol", "whales"], "--protocol is 'whales'"),
    (["--data", "x", "--recipe", "small", "--device", "gpu"], "--device is 'gpu'"),
    (["--data", "x", "--recipe", "smal"], "did you mean 'small'"),
    (["--dta", "x"], "unknown option --dta"),
    (["--data"], "--data needs a value"),
    (["test", "--everything"], "test takes --all, --lowest or nothing"),
])
def test_a_wrong_option_is_told_in_one_line(arguments, told):
    refused = run_all(*arguments)
    assert refused.returncode == 2 and told in refused.stderr and refused.stderr.count("\n") == 1


def test_missing_data_are_told_in_one_line_and_stop_the_run(place, finished):
    refused = run_all("--data", str(place / "nowhere"), "--recipe", str(place / "tiny.yaml"), "--output", str(place / "none"))
    assert refused.returncode == 2 and "nowhere" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_the_demo_is_learnt_and_far_above_the_frozen_backbones(tmp_path):
    """About five minutes: the demo as ./run_all.sh runs it, and its fold 0 ranked by ImageNet's features as they are."""
    assert run_all("--output", str(tmp_path / "demo")).returncode == 0
    assert run_all("--data", str(tmp_path / "demo" / "data"), "--recipe", "frozen", "--output", str(tmp_path / "frozen")).returncode == 0
    trained, frozen = (json.loads((tmp_path / name / "score.json").read_text()) for name in ("demo", "frozen"))
    assert trained["n_queries"] >= 50
    assert 0.3 < trained["strict"] < 0.8
    assert frozen["strict"] < trained["strict"] - 0.15
    assert pd.read_csv(tmp_path / "demo" / "summary.csv").peak_mb.max() < 4000


@pytest.mark.slow
def test_what_is_packed_tells_the_score_of_the_folds_where_recipe_and_data_are_theirs(place, finished, tmp_path):
    """Half a minute: twice a training on everything."""
    arguments = "--data", str(place / "data"), "--recipe", str(place / "tiny.yaml"), "--folds", "none"
    assert run_all(*arguments, "--output", str(place / "run")).returncode == 0
    card = (place / "run" / "submission.card.md").read_text("utf-8")
    score = json.loads((place / "run" / "score.json").read_text())
    assert f"| `all` | {score['n_queries']} | {score['strict']:.4f} |" in card and "Protocol `whale`" in card
    assert run_all(*arguments, "--output", str(tmp_path / "alone")).returncode == 0
    assert "Scores: not measured." in (tmp_path / "alone" / "submission.card.md").read_text("utf-8")
