"""The benchmark of growth: its arithmetic, what grows in which run, and the figure."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from eval.benchmarks import growth
from eval.files import read_table
from solution import recipe
from test_embed import ensemble, tiny

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_the_exponent_is_the_power_by_which_cost_grows(power):
    told = growth.line([3 * times**power for times in growth.TIMES])
    assert told["exponent"] == pytest.approx(power) and told["factors"] == pytest.approx([2**power] * 3)


def test_one_thing_grows_at_a_time(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(growth, "untrained_weights", lambda recipe, folder: ensemble(folder / "weights", tiny("model", 0, 32)))
    monkeypatch.setattr(growth, "predict", lambda data, weights, folder: asked.append((len(read_table(data / "metadata.csv")), len(list(weights.glob("*.npz"))))))
    works = growth.predictions(3, 32, tmp_path)
    for work in works.values():
        work()
    assert dict(zip(works, asked)) == {**{("images", times): (3 * times, 1) for times in (1, 2, 4, 8)}, **{("models", times): (3, times) for times in (1, 2, 4, 8)}}


def test_copies_of_a_model_are_models(tmp_path):
    growth.copies(ensemble(tmp_path / "weights", tiny("model", 0, 32)), 4, tmp_path / "four")
    assert [spec.name for spec in recipe.specs(tmp_path / "four")] == ["model0", "model1", "model2", "model3"]


def test_the_seconds_of_a_prediction_are_those_of_its_work(tmp_path, monkeypatch):
    noted = {"decode_seconds": 1, "forward_seconds": 2, "rank_seconds": 4, "write_seconds": 8, "load_seconds": 16, "embed_seconds": 32}
    monkeypatch.setattr(growth, "command", lambda *words, **environment: Path(words[words.index("--timings") + 1]).write_text(json.dumps(noted)))
    assert growth.predict(tmp_path / "data", tmp_path / "weights", tmp_path) == 15


def test_more_queries_ask_the_same_database(tmp_path):
    works = growth.rankings(3, tmp_path)
    assert all(work() > 0 for work in [works["queries", 1], works["queries", 4]])
    few, many = (read_table(tmp_path / f"{times} times the queries" / "queries.csv") for times in (1, 4))
    assert (len(few), len(many)) == (3, 12) and many.query_id.is_unique
    assert len(read_table(tmp_path / "1 times the queries" / "database.csv")) == len(read_table(tmp_path / "4 times the queries" / "database.csv")) == growth.DATABASE
    ranked = read_table(tmp_path / "ranked.csv")
    assert set(ranked.query_id) == set(many.query_id) and ranked.groupby("query_id").size().eq(20).all()


@pytest.fixture
def result():
    seconds = {"images": [1, 2, 4, 8], "models": [1.1, 2.1, 4.4, 8.5], "queries": [.3, .6, 1.2, 9]}
    return {what: {"smallest": 7, **growth.line(values)} for what, values in seconds.items()}


def test_the_figure_is_an_undated_picture_in_colours_of_its_own(result):
    svg = growth.drawn(result)
    assert svg == growth.drawn(result) and ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert all(words in svg for words in growth.WORDS.values()) and "what would be linear" in svg
    assert not any(word in svg for word in ("var(", "currentColor", "<dc:date", "<metadata"))


def test_the_table_has_every_step(result, capsys):
    growth.show(result)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and "8 times" in lines[0] and "9.00 (x 7.50)" in lines[3] and lines[1].endswith("1.00")


@pytest.mark.slow
def test_growth_is_one_object_and_a_figure(tmp_path):
    words = ["growth", "--images", "4", "--queries", "10", "--size", "64", "--repeats", "1", "--plot", tmp_path / "g.svg", "--json", tmp_path / "g.json"]
    done = subprocess.run([sys.executable, "-m", "eval.bench", *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == json.loads((tmp_path / "g.json").read_text()) and told["benchmark"] == "growth" and told["threads"] >= 1
    assert all(len(told[what]["seconds"]) == 4 and min(told[what]["seconds"]) > 0 for what in growth.WORDS)
    assert (tmp_path / "g.svg").read_text().startswith("<svg")
