"""The page about a run: on a toy run with hostile names, read back with the standard library's HTML parser and a browser."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy
from eval import charts, folds, pictures, report, score, summary
from eval.files import InputError, write_json, write_table

ROOT = Path(__file__).parents[1]
HOSTILE = """<script>document.title="owned"</script>" onerror="document.title='owned'"""
CHROMIUM = shutil.which("chromium")


class Page(HTMLParser):
    """Every element as (tag, attributes), and the text."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(Path(path).read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += " ".join(data.split()) + " "

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def command(*arguments, **environment):
    return subprocess.run([sys.executable, "-m", "eval.report", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | environment)


def answers(fold, seed):
    """A submission whose true matches score higher than chance."""
    rng, truth = np.random.default_rng(seed), set(map(tuple, pd.read_csv(fold / "truth.csv").to_numpy()))
    rows = []
    for scenario in pd.read_csv(fold / "test/query_scenarios.csv").itertuples():
        database = pd.read_csv(fold / "test" / scenario.database_path).database_image_id
        for query in pd.read_csv(fold / "test" / scenario.queries_path).query_id:
            value = rng.uniform(0, 0.6, len(database)) + [0.3 * ((query, image) in truth) for image in database]
            rows += sorted(zip([query] * len(database), database, value), key=lambda row: -row[2])[:20]
    return pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"])


def write_fold(run, k):
    fold, truth = run / f"fold{k}", run / "folds" / str(k) / "truth.csv"
    submission = write_table(answers(run / "folds" / str(k), k), fold / "submission.csv")
    evaluation = score.evaluate(submission, truth)
    write_table(evaluation.per_query, fold / "per_query.csv")
    write_json(score.summarise(*evaluation[:2]), fold / "score.json")
    write_json({"embed_seconds": 1.25, "images": 9}, fold / "timings.json")
    write_json({"command": "python -m solution.train " + HOSTILE, "seed": 7, "packages": {"torch": "9.8"}}, fold / "weights/provenance.json")
    (fold / "weights/recipe.yaml").write_text(f"about: {HOSTILE}\n")
    log = pd.DataFrame({"epoch": [1, 2, 3], "learning_rate": 0.1, "loss": [3, 2, 1.5], "seconds": 1.0})
    write_table(log, fold / "weights/plain.log.csv")
    write_table(log.assign(map20=[np.nan, 0.2, 0.4]), fold / "weights/validated.log.csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two folds whose individuals, encounters, steps and recipe are named by an attacker."""
    path = tmp_path_factory.mktemp("runs") / "a <b> run"
    data = toy.competition(path.parent / "data", n_whales=10)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table[["whale_id", "encounter_id"]] += HOSTILE
    write_table(table, data / "metadata.csv")
    folds.make(data, path / "folds", "whale", n_folds=2)
    for k in (0, 1):
        write_fold(path, k)
    write_json(summary.pooled([path / "fold0", path / "fold1"]), path / "score.json")
    write_table(pd.DataFrame([["folds", 1.5, 100], [HOSTILE, 125.2, 2048]], columns=["step", "seconds", "peak_mb"]), path / "summary.csv")
    return path


@pytest.fixture(scope="module")
def page(run):
    return Page(report.report(run, run.parent / "report.html"))


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run to spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_the_headline_numbers_are_those_of_score_json(run, page):
    result = json.loads((run / "score.json").read_text())
    for measure, title in report.TITLES.items():
        assert f"{title} {result[measure]:.3f}" in re.sub(r"\s+", " ", page.text)
    assert "95 % interval {:.3f} to {:.3f}".format(*result["ci95"]) in page.text
    assert all(meaning in page.text for meaning in report.MEANINGS.values())
    for name, means in result["scenarios"].items():
        assert name.replace("/", " ").replace("fold", "fold ") in page.text and f"{means['strict']:.3f}" in page.text


def test_the_page_needs_no_other_file_and_no_script(page):
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href", "xlink:href", "srcset")]
    assert links and all(link.startswith(("data:image/webp;base64,", "#")) for link in links)
    assert not page.all("script") and not page.all("link") and not page.all("iframe")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_hostile_names_are_shown_as_they_are_written(run, page):
    assert all(ranking.query.whale_id.endswith(HOSTILE) and ranking.query.whale_id in page.text for ranking in pictures.rankings(run, [0, 1]))
    assert page.text.count("document.title") > 6 and "<b>" in page.text and not page.all("b")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_in_a_browser_the_pictures_are_there_and_hostile_names_do_nothing(run, page, tmp_path):
    address = (run.parent / "report.html").as_uri()
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}", "--dump-dom", address],
        capture_output=True, text=True, timeout=120)
    dom = tmp_path / "dom.html"
    dom.write_text(done.stdout)
    seen = Page(dom)
    assert [image["src"] for image in seen.all("img")] == [image["src"] for image in page.all("img")] != []
    assert len(seen.all("svg")) == len(page.all("svg"))
    assert "<title>a &lt;b&gt; run: report</title>" in done.stdout and not seen.all("script")


def test_every_picture_is_small_and_says_what_it_shows(page):
    images = page.all("img")
    assert len(images) == 6 * 6 and all(image["alt"] for image in images)
    for image in images:
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
        assert picture.format == "WEBP" and max(picture.size) <= 240
    drawings = [attributes for _, attributes in page.elements if attributes.get("role") == "img"]
    assert len(drawings) == 1 + 2 * 2 and all(drawing["aria-label"] for drawing in drawings)


def test_ids_are_unique_and_every_reference_finds_one(run, page):
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert set(ids.values()) == {1}
    text = (run.parent / "report.html").read_text()
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', text)) <= set(ids)
    assert {attributes["aria-labelledby"] for attributes in page.all("section")} <= set(ids)


def test_the_queries_shown_are_two_best_two_median_two_worst(run):
    per_query = pd.concat([score.read_per_query(run / f"fold{k}/per_query.csv").assign(fold=k) for k in (0, 1)])
    order = sorted(per_query.itertuples(), key=lambda row: (-row.strict, row.fold, row.query_id))
    middle = len(order) // 2
    expected = [(row.fold, row.query_id) for row in order[:2] + order[middle - 1:middle + 1] + order[-2:]]
    found = pictures.rankings(run, [0, 1])
    assert [(ranking.fold, ranking.query_id) for ranking in found] == expected
    assert [ranking.group for ranking in found] == ["best"] * 2 + ["median"] * 2 + ["worst"] * 2


def test_the_photographs_shown_are_the_first_five_and_right_as_the_truth_says(run):
    for ranking in pictures.rankings(run, [0, 1]):
        fold = run / "folds" / str(ranking.fold)
        truth = pd.read_csv(fold / "truth.csv").query("query_id == @ranking.query_id").database_image_id.tolist()
        rows = pd.read_csv(run / f"fold{ranking.fold}/submission.csv").query("query_id == @ranking.query_id")
        ordered = sorted(rows.itertuples(), key=lambda row: (-row.score, row.database_image_id))
        whale = pd.read_csv(fold / "labels.csv").set_index("image_id").whale_id
        assert [picture.image_id for picture in ranking.found] == [row.database_image_id for row in ordered[:5]]
        assert [picture.right for picture in ranking.found] == [picture.image_id in truth for picture in ranking.found]
        assert all(picture.right == (picture.whale_id == ranking.query.whale_id) for picture in ranking.found)
        assert all(picture.whale_id == whale[picture.image_id] for picture in ranking.found)
        places = [place for place, row in enumerate(ordered, start=1) if row.database_image_id in truth]
        assert ranking.first_right == (places[0] if places else None) and ranking.n_pos == len(truth)


@pytest.mark.parametrize("n", range(9))
def test_each_query_is_shown_once_however_few_there_are(n):
    table = pd.DataFrame({"fold": 0, "query_id": [f"q{k}" for k in range(n)], "strict": [0.5] * n})
    picked = pictures.pick(table)
    assert len(picked) == min(n, 6) and picked.query_id.is_unique and list(picked.query_id) == sorted(picked.query_id)


def test_the_same_inputs_give_the_same_bytes(run, page, tmp_path):
    done = command(run, "--output", tmp_path / "again.html", PYTHONHASHSEED="1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again.html").read_bytes() == (run.parent / "report.html").read_bytes()


def test_what_is_absent_is_said(run, tmp_path):
    lone = tmp_path / "run"
    (lone / "fold0").mkdir(parents=True)
    text = Page(report.report(lone, tmp_path / "report.html")).text
    for words in ("No headline scores", "No scenarios", "No photographs", "No learning curves", "No times: summary.csv",
                  "No times of prediction", "No counts", "provenance.json is not there", "recipe.yaml is not there"):
        assert words in text


@pytest.mark.parametrize("gone, words", [
    ("score.json", "No headline scores"), ("summary.csv", "No times: summary.csv"), ("fold*/timings.json", "No times of prediction"),
    ("fold*/per_query.csv", "No photographs"), ("folds/*/labels.csv", "No photographs"), ("folds/manifest.json", "No counts"),
    ("fold*/weights/*.log.csv", "No learning curves"), ("fold*/weights/validated.log.csv", "Nothing was validated"),
    ("fold*/weights/recipe.yaml", "No recipe")])
def test_each_file_may_be_absent(other, tmp_path, page, gone, words):
    for path in other.glob(gone):
        path.unlink()
    assert words in Page(report.report(other, tmp_path / "report.html")).text and words not in page.text


def test_a_file_that_breaks_the_rules_shows_its_errors_and_no_strict_number(other, tmp_path):
    result = json.loads((other / "score.json").read_text()) | {"strict": None, "ci95": None, "strict_errors": ["line 3: " + HOSTILE]}
    write_json(result, other / "score.json")
    text = Page(report.report(other, tmp_path / "report.html")).text
    assert "Rules broken line 3: <script>" in re.sub(r"\s+", " ", text) and "Not measured" in text


def test_photographs_that_are_missing_or_broken_leave_a_place(other, tmp_path):
    found = pictures.rankings(other, [0, 1])
    first, second = found[0].query, found[0].found[0]
    images = other / "folds" / str(found[0].fold) / "test/images"
    next(images.glob(first.image_id + ".*")).unlink()
    next(images.glob(second.image_id + ".*")).write_bytes(b"no photograph")
    again = pictures.rankings(other, [0, 1])[0]
    assert again.query.source == again.found[0].source == "" and again.found[1] == found[0].found[1]
    seen = Page(report.report(other, tmp_path / "report.html"))
    assert f"Query photograph {first.image_id}: nothing to show" in seen.text


def test_a_thumbnail_is_cut_to_its_box_upright_and_without_what_the_file_says(tmp_path):
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 200:] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 3, "SECRET" * 1000  # upside down; a description
    Image.fromarray(pixels[::-1, ::-1]).save(tmp_path / "a.jpg", exif=exif, quality=95)

    def read(box):
        data = base64.b64decode(pictures.thumbnail(tmp_path / "a.jpg", np.array(box, float)).split(",")[1])
        assert b"SECRET" not in data
        return np.asarray(Image.open(io.BytesIO(data)))

    whole, right = read([np.nan] * 4), read([200, 0, 300, 100])
    assert whole.shape == (80, 240, 3) and whole[:, :150].mean() < 5 and whole[:, 170:].mean() > 250
    assert right.shape == (100, 100, 3) and right.mean() > 250
    assert read([250, 0, 9e9, 100]).shape == (100, 50, 3) and read([5, 5, 5, 5]).shape == whole.shape


def test_a_run_that_answers_with_names_says_so(tmp_path):
    run = tmp_path / "run"
    truth = write_table(pd.DataFrame({"Image": ["1.jpg", "2.jpg"], "Id": ["a", "b"]}), tmp_path / "truth.csv")
    submission = write_table(pd.DataFrame({"Image": ["1.jpg", "2.jpg"], "Id": ["a b", "c b"]}), run / "fold0/submission.csv")
    evaluation = score.evaluate(submission, truth)
    write_table(evaluation.per_query, run / "fold0/per_query.csv")
    write_json(score.summarise(*evaluation[:2]), run / "fold0/score.json")
    write_json(summary.pooled([run / "fold0"]), run / "score.json")
    text = Page(report.report(run, tmp_path / "report.html")).text
    assert "answers with names" in text and "MAP@5, Kaggle 0.750" in re.sub(r"\s+", " ", text) and "MAP@20" not in text
    assert "No scenarios: this run answers with names" in text and "fold0" not in text and "whale known?" not in text


FIGURES = {"auc": 0.912, "accuracy_known": 0.823, "accuracy_unknown": 0.734, "n_known": 1234, "n_unknown": 56, "brier": 0.123,
           "calibration_error": 0.045, "first_right_known": 0.645, "first_right_unknown": None, "wrong_above": {"0.5": [1001, 7], "0.9": [3, 0]}}


def test_how_well_unknown_whales_are_told_is_a_table_with_a_column_for_each_fold_that_has_it(other, tmp_path):
    path = other / "fold1" / "score.json"
    write_json(json.loads(path.read_text()) | {"open_set": FIGURES}, path)
    seen = Page(report.report(other, tmp_path / "report.html"))
    text = re.sub(r"\s+", " ", seen.text)
    table = text[text.index("Is this whale known?"):text.index("A scenario asks")]
    assert "fold 1" in table and "fold 0" not in table and "first answer" not in table  # no fold has that one
    for shown in ("0.912", "0.823", "0.734", "known individuals 1,234", "unknown individuals 56", "0.123", "0.045", "0.645",
                  "at least 50 % sure 7 of 1,001", "at least 90 % sure 0 of 3"):
        assert shown in table
    write_json(json.loads(path.read_text()) | {"open_set": FIGURES | {"auc": "<b>"}}, path)
    with pytest.raises(InputError, match="open_set: auc is '<b>', not a number"):
        report.report(other, tmp_path / "report.html")


@pytest.mark.parametrize("name, content, words", [
    ("score.json", "{", "not valid JSON"), ("score.json", "[]", "not a JSON object"), ("score.json", "{}", "'official' is missing"),
    ("score.json", '{"official": "<b>", "strict": 1, "map5_images": 1, "map5_individuals": 1, "top1": 1, "n_queries": 1, '
                   '"ci95": null, "strict_errors": [], "scenarios": {}}', "official is '<b>', not a number"),
    ("score.json", '{"official": 1, "strict": 1, "map5_images": 1, "map5_individuals": 1, "top1": 1, "n_queries": 1, '
                   '"ci95": ["low", 1], "strict_errors": [], "scenarios": {}}', "ci95 is 'low', not a number"),
    ("folds/manifest.json", "{}", "'protocol' is missing"), ("summary.csv", "step,seconds\n", "'peak_mb' is missing"),
    ("summary.csv", "step,seconds,peak_mb\na,1,2\nb,soon,2\n", "line 3: seconds is 'soon'"),
    ("fold1/weights/plain.log.csv", "epoch,loss\n1,2\n2,much\n", "line 3: loss is 'much'"),
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
    blocks = re.findall(r":root \{([^}]*)\}", (ROOT / "eval/report.html.jinja").read_text())
    colours = {name: "#" + "".join(2 * digit for digit in value[1:]) if len(value) == 4 else value
               for name, value in re.findall(r"--([\w-]+): (#[0-9a-f]+)", blocks[mode])}
    for ground in ("page", "card"):
        assert all(contrast(colours[name], colours[ground]) >= 4.5 for name in ("ink", "soft", "link", "right", "wrong"))
        assert all(contrast(colours[f"series-{number}"], colours[ground]) >= 3 for number in range(1, 7))


@pytest.mark.parametrize("seconds, words", [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (3599.7, "1 h 00 min"), (np.nan, "–")])
def test_seconds_are_told_in_minutes_and_hours(seconds, words):
    assert report.duration(seconds) == words
