"""The page about a run: on a toy run with hostile names, read back with the standard library's HTML parser."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy_run
from eval import leaderboard, report, score
from eval.page import answers, charts, figures, render
from eval.files import InputError, write_json, write_table
from toy_run import HOSTILE

ROOT = Path(__file__).parents[1]
DRAWN = '<svg viewBox="0 0 9 9"><circle r="1" data-fold="0" data-image="test0000"/></svg>'
SECTIONS = [
    figures.Section("drawn", "Drawn", "What is drawn.", [charts.Figure("a", "One <b>", "Of it.", DRAWN, ["in <b> words"]), charts.Figure("b", "Two", "", "", [], "It is missing.")]),
    figures.Section("tabled", "Tabled", "", [], (["model", "score"], [[HOSTILE, ".5"]]))]


class Page(HTMLParser):
    """Every element as (tag, attributes), the text outside of scripts, and the data that the script shows."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text, self.scripts, self.open = [], "", [], ""
        self.feed(Path(path).read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open = tag

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open == "script":
            self.scripts.append(data)
        elif self.open != "style":
            self.text += " ".join(data.split()) + " "

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def data(self):
        return json.loads(self.scripts[0])


def words(text):
    return " ".join(text.split())


def command(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "eval.report", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


@pytest.fixture(scope="module", autouse=True)
def drawn():
    """Drawing takes seconds and has tests of its own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "sections", lambda run, folds, against: SECTIONS)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return toy_run.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(run, drawn):
    return Page(report.report(run, run.parent / "page.html"))


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run to spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_the_headline_numbers_are_those_of_score_json(run, page):
    result = json.loads((run / "score.json").read_text())
    for measure, title in report.TITLES.items():
        assert f"{title} {result[measure]:.3f}" in words(page.text)
    assert "95 % interval {:.3f} to {:.3f}".format(*result["ci95"]) in page.text
    assert all(meaning in page.text for meaning in report.MEANINGS.values())
    for name, means in result["scenarios"].items():
        assert name.replace("/", " ").replace("fold", "fold ") in page.text and f"{means['strict']:.3f}" in page.text


def test_the_page_needs_no_other_file_and_runs_no_script_but_its_own(page):
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href", "xlink:href", "srcset")]
    assert links and all(link.startswith(("data:image/webp;base64,", "#")) for link in links)
    assert not page.all("link") and not page.all("iframe") and page.all("script") == [{"type": "application/json", "id": "data"}, {}]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    allowed = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in policy and "default-src 'none'" in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|Function\(", page.scripts[1])


def test_hostile_names_are_shown_as_they_are_written(run, page):
    assert words(HOSTILE) in words(page.text) and "<b>" in page.text and not page.all("b")
    assert any(whale.endswith(HOSTILE) for whale in page.data["queries"]["whale"])
    text = (run.parent / "page.html").read_text()
    assert text.count("<script") == 2 and "\u2028" not in page.scripts[0]


def test_the_data_of_the_script_are_the_answers(run, page):
    found, data = answers.read(run, [0, 1]), page.data
    assert data["queries"]["id"] == found.queries.query_id.tolist() and data["queries"]["fold"] == found.queries.fold.tolist()
    assert data["queries"]["value"] == found.queries.strict.round(6).tolist() and set(data["queries"]["before"]) == {None}
    assert data["queries"]["first"] == [None if np.isnan(place) else place for place in found.queries.first_right]
    assert data["tiles"]["right"] == found.tiles.right.tolist() and data["tiles"]["image"] == found.tiles.image.tolist()
    assert data["images"]["whale"] == found.images.whale_id.tolist() and not data["names"]
    assert sorted(data["orders"]) == ["best", "worst"] and sorted(data["orders"]["best"]) == list(range(len(found.queries)))
    assert data["kinds"]["scenario01"].startswith("part 1 of each whale's encounters")


def test_without_script_the_two_best_and_the_two_worst_queries_can_be_read(run, page):
    per_query = pd.concat([score.read_per_query(run / f"fold{k}/per_query.csv") for k in (0, 1)]).sort_values("strict")
    static = re.findall(r"scenario\d\d-test\d{4}", page.text)
    value = per_query.set_index("query_id").strict
    assert len(static) == 4 and value[static[0]].max() == per_query.strict.max() and value[static[3]].min() == per_query.strict.min()
    images = page.all("img")
    assert 4 * 5 < len(images) <= 4 * 7 and page.all("noscript") and "Without script" in page.text
    for image in images:
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
        assert picture.format == "WEBP" and max(picture.size) <= 320 and re.match(r"(query|not found|\d+ (right|wrong)): photograph test\d{4}$", image["alt"])


def test_ids_are_unique_and_every_reference_finds_one(run, page):
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', (run.parent / "page.html").read_text())) <= set(ids)
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)
    assert set(re.findall(r'getElementById\("([\w-]+)"\)', page.scripts[1])) <= set(ids)


def test_what_is_drawn_is_shown_with_words_and_reasons(page):
    assert "Drawn What is drawn. One <b> Of it. In words in <b> words Two It is missing." in words(page.text)
    assert "Tabled model score" in words(page.text) and {"href": "#tabled"} in page.all("a")
    assert {"role": "group", "aria-label": "One <b>"} in page.all("div") and len(page.all("circle")) == 1  # its points can be reached
    assert {"role": "img", "aria-label": "Loss"} in page.all("div")


def test_the_same_inputs_give_the_same_bytes(run, tmp_path):
    with ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda seed: command(run, "--output", tmp_path / f"{seed}.html", PYTHONHASHSEED=seed), "12"))
    assert [each.returncode for each in done] == [0, 0], done[0].stderr
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_what_is_absent_is_said(tmp_path):
    (tmp_path / "run/fold0").mkdir(parents=True)
    seen = Page(report.report(tmp_path / "run", tmp_path / "report.html"))
    for absent in ("No headline scores", "No scenarios", "No answers", "No learning curves", "No heat maps", "No leaderboard", "No times: summary.csv",
                   "No counts", "provenance.json is not there", "recipe.yaml is not there"):
        assert absent in seen.text
    assert not seen.scripts


def test_a_blind_guess_and_the_folds_notes_stand_beside_the_scores(run, page):
    """The guess is the mean over all queries of the share of the database that matches."""
    rights = []
    for k in (0, 1):
        truth = pd.read_csv(run / "folds" / str(k) / "truth.csv")
        for scenario in pd.read_csv(run / "folds" / str(k) / "test/query_scenarios.csv").itertuples():
            database = set(pd.read_csv(run / "folds" / str(k) / "test" / scenario.database_path).database_image_id)
            for query in pd.read_csv(run / "folds" / str(k) / "test" / scenario.queries_path).itertuples():
                matches = (truth.query_id == query.query_id).sum()
                rights.append(matches / len(database - {query.query_image_id}))
    assert f"A blind guess is right for {np.mean(rights):.3f}." in page.text
    assert all(f"Note: {note}." in page.text for note in json.loads((run / "folds/manifest.json").read_text())["notes"])


@pytest.mark.parametrize("gone, words", [
    ("score.json", "No headline scores"), ("summary.csv", "No times: summary.csv"),
    ("fold*/per_query.csv", "No answers"), ("folds/*/test/metadata.csv", "nothing to show"), ("folds/manifest.json", "No counts"),
    ("fold*/submission.csv", "There are no photographs of the answers"),
    ("fold*/weights/*.log.csv", "No learning curves"), ("fold*/weights/validated.log.csv", "Nothing was validated"),
    ("fold*/weights/recipe.yaml", "No recipe")])
def test_each_file_may_be_absent(other, tmp_path, page, gone, words):
    for path in other.glob(gone):
        path.unlink()
    assert words in Page(report.report(other, tmp_path / "report.html")).text and words not in page.text


def test_a_run_without_its_folds_still_shows_its_scores_and_queries(other, tmp_path):
    shutil.rmtree(other / "folds")
    seen = Page(report.report(other, tmp_path / "report.html"))
    score = json.loads((other / "score.json").read_text())
    assert f"MAP@20, strict {score['strict']:.3f}" in words(seen.text) and len(seen.data["queries"]["id"]) == score["n_queries"]


def test_a_file_that_breaks_the_rules_shows_its_errors_and_no_strict_number(other, tmp_path):
    result = json.loads((other / "score.json").read_text()) | {"strict": None, "ci95": None, "strict_errors": ["line 3: " + HOSTILE]}
    write_json(result, other / "score.json")
    for k in (0, 1):
        path = other / f"fold{k}/per_query.csv"
        write_table(pd.read_csv(path).assign(strict=np.nan), path)
    seen = Page(report.report(other, tmp_path / "report.html"))
    assert "Rules broken line 3: </script>" in words(seen.text) and "Not measured" in seen.text and set(seen.data["queries"]["value"]) == {None}


def test_photographs_that_are_missing_or_broken_leave_a_place(other, tmp_path):
    images = sorted(other.glob("folds/*/test/images/*"))
    for number, path in enumerate(images):
        path.unlink() if number % 2 else path.write_bytes(b"no photograph")
    seen = Page(report.report(other, tmp_path / "report.html"))
    assert not seen.all("img") and "nothing to show" in seen.text and set(seen.data["sources"].values()) == {""}


def test_with_too_little_room_the_page_says_how_many_queries_have_photographs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(report.pictures, "ROOM", 12_000)
    seen = Page(report.report(run, tmp_path / "report.html"))
    assert re.search(r"\b\d+ of them have photographs on this page", seen.text) and sum(map(len, seen.data["sources"].values())) <= 12_000


def test_most_changed_is_against_another_run_of_the_same_folds(run, tmp_path):
    theirs = toy_run.other(run, tmp_path / "theirs")
    seen = Page(report.report(run, tmp_path / "report.html", against=theirs))
    before = pd.concat([pd.read_csv(theirs / f"fold{k}/per_query.csv").sort_values("query_id") for k in (0, 1)]).strict
    assert seen.data["queries"]["before"] == before.round(6).tolist() and seen.data["baseline"] == "theirs" and "changed" in seen.data["orders"]
    assert "average precision against theirs" in seen.text and {"value": "changed"} in seen.all("option")


def test_without_another_run_the_order_by_change_is_off_and_says_why(page):
    assert {"value": "changed", "disabled": None} in page.all("option") and "No change to sort by" in page.text


@pytest.mark.parametrize("key, value", [("metadata_sha256", "0" * 64), ("protocol", "time"), ("seed", 7), ("n_folds", 3)])
def test_a_run_of_other_folds_is_refused_in_one_line(run, other, tmp_path, key, value):
    path = other / "folds/manifest.json"
    write_json(json.loads(path.read_text()) | {key: value}, path)
    with pytest.raises(InputError, match=f"{key} is {value!r}") as told:
        report.report(run, tmp_path / "report.html", against=other)
    assert str(told.value).startswith(str(path)) and len(str(told.value).splitlines()) == 1 and not (tmp_path / "report.html").exists()


def test_another_run_without_folds_or_scores_is_refused(run, other, tmp_path):
    with pytest.raises(InputError, match="manifest.json: no such file"):
        report.report(run, tmp_path / "report.html", against=tmp_path)
    shutil.rmtree(other / "fold0")
    shutil.rmtree(other / "fold1")
    with pytest.raises(InputError, match="no fold"):
        report.report(run, tmp_path / "report.html", against=other)


def test_the_boards_of_these_folds_mark_this_run(run, other, tmp_path):
    manifest = json.loads((run / "folds/manifest.json").read_text())
    same = {"protocol": "whale", "data": manifest["metadata_sha256"][:12], "board": "here"}
    rows = [same | {"system": leaderboard.system(run, tmp_path / "board.csv"), "variant": "all", "score": 0.4}, same | {"system": "theirs <i>", "score": 0.3},
            same | {"board": "other data", "data": "f" * 12, "system": "elsewhere"}, same | {"board": "other protocol", "protocol": "time", "system": "elsewhere"}]
    usual = dict.fromkeys(leaderboard.COLUMNS, "") | {"seed": 0, "n_folds": 2, "fold": "0", "measure": "MAP@20", "score": 0.2, "n_queries": 9}
    path = write_table(pd.DataFrame([usual | row for row in rows]), tmp_path / "board.csv")
    seen = Page(report.report(run, tmp_path / "report.html", board=path))
    assert "theirs <i>" in seen.text and seen.text.count("(this run)") == 1 and "elsewhere" not in seen.text and seen.all("tr").count({"class": "own"}) == 1
    shutil.copy(path, run.parent / "leaderboard.csv")
    try:
        assert "theirs <i>" in Page(report.report(run, tmp_path / "beside.html")).text
    finally:
        (run.parent / "leaderboard.csv").unlink()
    elsewhere = {"board": "cut otherwise", "seed": 1, "fold": "0+1+2", "system": "theirs"}
    more = write_table(pd.DataFrame([usual | same | elsewhere, *(usual | row for row in rows)]), tmp_path / "more.csv")
    assert list(report.contents(run, board=more)["boards"]) == ["here", "cut otherwise"]  # where this run is stands first
    with pytest.raises(InputError, match="none.csv: no such file"):
        report.report(run, tmp_path / "report.html", board=tmp_path / "none.csv")


def test_explained_pairs_have_a_section_and_a_place_in_their_query(other, tmp_path):
    pairs = toy_run.explain(other, 1)
    seen = Page(report.report(other, tmp_path / "report.html"))
    whale = pd.read_csv(other / "folds/1/labels.csv").set_index("image_id").whale_id
    for pair in pairs.itertuples():
        told = f"Query {pair.query_id}, fold 1: {pair.query_image_id} ({whale[pair.query_image_id]}) and, at place 1, {pair.database_image_id} "
        assert words(told + f"({whale[pair.database_image_id]}); cosine {pair.similarity:.4f}") in words(seen.text)
    assert [seen.data["queries"]["id"][query] for query in seen.data["pairs"]["query"]] == pairs.query_id.tolist()
    true = set(pd.read_csv(other / "folds/1/truth.csv")[["query_id", "database_image_id"]].itertuples(index=False, name=None))
    marks = ["right" if pair in true else "wrong" for pair in pairs[["query_id", "database_image_id"]].itertuples(index=False, name=None)]
    assert [figure["class"] for figure in seen.all("figure") if "id" in figure] == [f"card {mark}" for mark in marks]
    assert {seen.data["queries"]["fold"][query] for query in seen.data["pairs"]["query"]} == {1}
    assert [figure["id"] for figure in seen.all("figure") if "id" in figure] == ["pair-0", "pair-1"]


def test_a_run_that_answers_with_names_shows_its_photographs_with_the_names(tmp_path):
    run = toy_run.names(tmp_path)
    seen = Page(report.report(run, tmp_path / "report.html"))
    result = json.loads((run / "score.json").read_text())
    assert f"MAP@5, Kaggle {result['official']:.3f}" in words(seen.text) and "MAP@20" not in seen.text.replace("MAP@20 on the inner fold", "")
    assert "No scenarios: this run answers with names" in seen.text and "first training photograph" in seen.text
    data, truth = seen.data, pd.read_csv(run / "folds/0/truth.csv").set_index("Image").Id
    assert data["names"] and [truth[image] for image in data["queries"]["id"]] == [whale or "new_whale" for whale in data["queries"]["whale"]]
    assert "probability" in seen.text and "new individual" in seen.text and all(image["src"] for image in seen.all("img"))


FIGURES = {"auc": 0.912, "accuracy_known": 0.823, "accuracy_unknown": 0.734, "n_known": 1234, "n_unknown": 56, "brier": 0.123,
           "calibration_error": 0.045, "first_right_known": 0.645, "first_right_unknown": None, "wrong_above": {"0.5": [1001, 7], "0.9": [3, 0]}}


def test_how_well_unknown_whales_are_told_is_a_table_with_a_column_for_each_fold_that_has_it(other, tmp_path):
    path = other / "fold1" / "score.json"
    write_json(json.loads(path.read_text()) | {"open_set": FIGURES}, path)
    text = words(Page(report.report(other, tmp_path / "report.html")).text)
    table = text[text.index("Is this whale known?"):text.index("A scenario asks")]
    assert "fold 1" in table and "fold 0" not in table and "first answer" not in table  # no fold has that one
    for shown in ("0.912", "0.823", "0.734", "known individuals 1,234", "unknown individuals 56", "0.123", "0.045", "0.645",
                  "at least 50 % sure 7 of 1,001", "at least 90 % sure 0 of 3"):
        assert shown in table
    write_json(json.loads(path.read_text()) | {"open_set": FIGURES | {"auc": "<b>"}}, path)
    with pytest.raises(InputError, match="open_set: auc is '<b>', not a number"):
        report.report(other, tmp_path / "report.html")


SCORE = {"official": 1, "strict": 1, "map5_images": 1, "map5_individuals": 1, "top1": 1, "n_queries": 1, "ci95": None, "strict_errors": [], "scenarios": {}}
MANIFEST = {"protocol": "whale", "seed": 0, "folds": {}}


@pytest.mark.parametrize("name, content, words", [
    ("score.json", "{", "not valid JSON"), ("score.json", "[]", "not a JSON object"), ("score.json", "{}", "'official' is missing"),
    ("score.json", json.dumps(SCORE | {"official": "<b>"}), "official is '<b>', not a number"),
    ("score.json", json.dumps(SCORE | {"ci95": ["low", 1]}), "ci95 is 'low', not a number"),
    ("score.json", json.dumps(SCORE | {"ci95": 3}), "ci95 is 3, not a list"),
    ("score.json", json.dumps(SCORE | {"ci95": [1]}), "ci95 is [1], not two numbers"),
    ("score.json", json.dumps(SCORE | {"scenarios": []}), "scenarios is [], not an object"),
    ("score.json", json.dumps(SCORE | {"scenarios": {"a": 1}}), "a is 1, not an object"),
    ("score.json", json.dumps(SCORE | {"scenarios": {"a": {}}}), "official is 'missing', not a number"),
    ("score.json", json.dumps(SCORE | {"open_set": {"wrong_above": {"x": [1, 2]}}}), "wrong_above 'x' is [1, 2], not two numbers"),
    ("folds/manifest.json", "{}", "'protocol' is missing"), ("folds/manifest.json", json.dumps(MANIFEST | {"protocol": []}), "protocol is [], not a text"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"folds": []}), "folds is [], not an object"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"folds": {"0": 3}}), "fold 0 is 3, not an object"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"folds": {"0": {"scenarios": 3}}}), "fold 0: scenarios is 3, not an object"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"folds": {"0": {"scenarios": {"a": "b"}}}}), "fold 0: a is 'b', not an object"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"folds": {"0": {"queries": "b"}}}), "fold 0: queries is 'b', not a number"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"images": "b"}), "images is 'b', not a number"),
    ("folds/manifest.json", json.dumps(MANIFEST | {"notes": "b"}), "notes is 'b', not a list"),
    ("summary.csv", "step,seconds\n", "'peak_mb' is missing"),
    ("summary.csv", "step,seconds,peak_mb\na,1,2\nb,soon,2\n", "line 3: seconds is 'soon'"),
    ("fold1/weights/plain.log.csv", "epoch,loss\n1,2\n2,much\n", "line 3: loss is 'much'"),
    ("fold0/per_query.csv", "query_id\n", "'scenario_id' is missing"),
    ("fold0/submission.csv", "query_id,score\n", "'database_image_id' is missing")])
def test_bad_input_names_the_file_and_writes_nothing(other, tmp_path, name, content, words):
    (other / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(words)) as told:
        report.report(other, tmp_path / "new/report.html")
    assert str(told.value).startswith(str(other / name)) and len(str(told.value).splitlines()) == 1
    assert not list(tmp_path.glob("new/*"))


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    done = command(tmp_path, "--output", tmp_path / "report.html")
    assert done.returncode == 2 and "no run here" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_log_without_epochs_is_no_curve(other, tmp_path):
    for path in other.glob("fold*/weights/*.log.csv"):
        path.write_text("epoch\n")
    assert "or one without epochs" in Page(report.report(other, tmp_path / "report.html")).text


def test_a_curve_has_a_point_an_epoch_and_takes_any_name():
    log = pd.DataFrame({"epoch": [1.0, 2, 3, 4], "loss": [3, np.nan, 2, 1]})
    drawing = charts.curves("a", {"$x_<script>": log, "_hidden": log}, "loss")
    for series in (1, 2):  # three epochs have a loss, and the legend shows the marker once more
        assert len(re.findall(rf"<use [^>]*fill: var\(--series-{series}\)", drawing)) == 3 + 1
    assert "$x_&lt;script&gt;" in drawing and "_hidden" in drawing and "<script" not in drawing
    assert not re.search(r"#[0-9a-f]{6}", drawing) and "var(--series-2)" in drawing and "currentColor" in drawing


def luminance(colour):
    channel = np.array([int(colour[place:place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(one, other):
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_the_page(mode):
    blocks = re.findall(r":root \{([^}]*)\}", (ROOT / "eval/page/report.css").read_text())
    colours = {name: "#" + "".join(2 * digit for digit in value[1:]) if len(value) == 4 else value
               for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]+)", blocks[mode])}
    for ground in ("page", "card"):
        assert all(contrast(colours[name], colours[ground]) >= 4.5 for name in ("ink", "soft", "link", "right", "wrong"))
        assert all(contrast(colours[f"series-{number}"], colours[ground]) >= 3 for number in range(1, 7))


@pytest.mark.parametrize("seconds, words", [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (3599.7, "1 h 00 min"), (np.nan, "–")])
def test_seconds_are_told_in_minutes_and_hours(seconds, words):
    assert render.duration(seconds) == words
