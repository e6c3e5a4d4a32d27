"""The page in a real Chromium, headless: it fetches nothing, its filters count what pandas counts, and hostile names do nothing."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy_run
from eval import report
from eval.page import answers, charts, figures
from eval.files import write_table
from test_report import contrast

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PHONE = {"width": 360, "height": 740}
MARKS = "".join(f'<circle r="4" cx="{20 * k + 10}" cy="20" fill="var(--series-1)" data-fold="0" data-image="test{k:04d}"/>' for k in range(5))
SECTIONS = [figures.Section("map", "Map", "", [charts.Figure("map", "Map", "Of photographs.", f'<svg viewBox="0 0 100 40">{MARKS}</svg>', [])])]


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = toy_run.make(tmp_path_factory.mktemp("runs"))
    toy_run.explain(run, 0)
    return run


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The tables behind the page, and the page."""
    theirs = toy_run.other(run, tmp_path_factory.mktemp("theirs") / "theirs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(figures, "sections", lambda run, folds, against: SECTIONS)
        return answers.read(run, [0, 1], theirs), report.report(run, theirs.parent / "report.html", theirs)


@pytest.fixture
def visit(chromium):
    """Opens a page; at the end nothing was fetched and nothing went wrong in it."""
    pages, wrong = [], []

    def opened(path, **options):
        page = chromium.new_page(**{"viewport": {"width": 1280, "height": 900}} | options)
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.append(request.url[:80]) if not request.url.startswith(("data:", Path(path).as_uri())) else None)
        page.goto(Path(path).as_uri())
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not wrong


@pytest.fixture
def page(visit, written):
    return visit(written[1])


def counted(page):
    """How many queries pass the filters."""
    return int(re.match(r"\d+|", page.inner_text("#shown"))[0] or 0)


def listed(page):
    return page.locator("#rows h3").all_inner_texts()


def test_the_first_page_shows_twenty_queries_with_all_their_pictures(page, written):
    found = written[0]
    assert listed(page) == found.queries.query_id[answers.orders(found)["best"][:20]].tolist() and counted(page) == len(found.queries)
    for _ in range(600):  # half a minute; then the next line fails
        if page.evaluate("[...document.images].every(image => image.complete)"):
            break
        page.wait_for_timeout(50)
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    for place, query in enumerate(answers.orders(found)["best"][:3]):
        tiles, strip = found.tiles[found.tiles["query"] == query], page.locator("#rows .strip").nth(place)
        marks = ["not found" if not tile.place else f"{tile.place} {'right' if tile.right else 'wrong'}" for tile in tiles.itertuples()]
        heat = ["where it was seen"] * strip.locator(".heat").count()
        assert [text.strip() for text in strip.locator(".sign").all_inner_texts()] == ["query", *marks, *heat]
        for tile, words in zip(tiles.itertuples(), strip.locator("figcaption").all_inner_texts()[1:]):
            image = found.images.loc[tile.image]
            assert " ".join(image.encounter_id.split()) in " ".join(words.split()) and image.date in words
            assert np.isnan(tile.score) or f"similarity {tile.score:.4f}" in words


def test_each_order_is_that_of_the_tables(page, written):
    found = written[0]
    for name, order in answers.orders(found).items():
        page.select_option("[name=order]", name)
        changed = found.queries.before != found.queries.strict if name == "changed" else np.ones(len(order), bool)
        order = [query for query in order if changed[query]]
        assert listed(page) == found.queries.query_id[order[:20]].tolist() and counted(page) == len(order)
    first = found.queries.loc[order[0]]
    sign = "▲ +" if first.strict > first.before else "▼ −"
    assert f"{sign}{abs(first.strict - first.before):.3f} against theirs ({first.before:.3f})" in page.inner_text("#rows article >> nth=0")


@pytest.mark.parametrize("name, column", [("fold", "fold"), ("scenario", "scenario_id"), ("viewpoint", "viewpoint"), ("whale", "whale_id")])
def test_a_filter_counts_what_pandas_counts(page, written, name, column):
    counts = written[0].queries[column].astype(str).value_counts()
    values = page.locator(f"[name={name}] option").evaluate_all("options => options.map(option => option.value)")
    assert set(values) == {"", *counts.index}
    for value, count in list(counts.items())[:4]:
        page.select_option(f"[name={name}]", value)
        assert counted(page) == count


def test_filters_are_joined_and_taken_back(page, written):
    queries = written[0].queries
    page.select_option("[name=fold]", "1")
    page.select_option("[name=viewpoint]", "top")
    page.fill("[name=search]", "TEST000")
    assert counted(page) == ((queries.fold == 1) & (queries.viewpoint == "top") & queries.query_id.str.contains("test000")).sum() > 0
    page.fill("[name=search]", "nobody")
    assert page.inner_text("#shown") == "No query is like that." and not listed(page)
    page.click("text=All queries")
    page.wait_for_selector("#rows article")  # wait_for_function would evaluate a text in the page, which it forbids
    assert counted(page) == len(queries)


def test_all_queries_can_be_paged_through(page, written):
    found, seen = written[0], listed(page)
    while page.locator("#pages button >> nth=1").is_enabled():
        page.click("#pages button >> nth=1")
        seen += listed(page)
    assert seen == found.queries.query_id[answers.orders(found)["best"]].tolist()


def test_the_table_lists_every_query_and_leads_to_its_photographs(page, written):
    found = written[0]
    page.select_option("[name=view]", "table")
    rows = [[cell.strip() for cell in row.split("\t")] for row in page.locator("#rows tbody tr").all_inner_texts()]
    order = answers.orders(found)["best"]
    assert [row[0] for row in rows] == found.queries.query_id[order].tolist()[:100]
    assert np.allclose([float(row[5]) for row in rows], found.queries.strict[order[:100]], atol=0.00051)
    page.locator("#rows tbody button").nth(2).click()
    assert listed(page) == [found.queries.query_id[order[2]]] and page.evaluate("document.activeElement.className") == "photograph"


def test_the_keyboard_enlarges_walks_along_the_row_and_closes(page):
    name = "() => document.activeElement.ariaLabel"
    first = page.locator("#rows .strip >> nth=0 >> button")
    first.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(name) == first.nth(1).get_attribute("aria-label")
    page.keyboard.press("ArrowDown")
    second = page.locator("#rows .strip >> nth=1 >> button")
    assert page.evaluate(name) == second.nth(1).get_attribute("aria-label")
    page.keyboard.press("Enter")
    assert page.locator("#enlarged").is_visible() and page.locator("#enlarged img").get_attribute("src") == second.nth(1).locator("img").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#enlarged p") == second.nth(2).get_attribute("aria-label").strip()
    page.keyboard.press("End")
    assert page.locator("#enlarged button").last.is_disabled()
    page.keyboard.press("Escape")
    assert not page.locator("#enlarged").is_visible() and page.evaluate(name) == second.last.get_attribute("aria-label")


def test_every_control_is_reached_by_tab(page):
    page.locator("[name=order]").focus()
    seen = []
    for _ in range(9):
        seen.append(page.evaluate("document.activeElement.name || document.activeElement.textContent"))
        page.keyboard.press("Tab")
    assert seen[:4] == ["order", "view", "fold", "scenario"] and {"viewpoint", "whale", "search", "All queries"} <= set(seen)


def test_a_click_enlarges_and_the_ground_closes(page):
    page.locator("#rows .strip button").nth(3).click()
    page.locator("#enlarged button >> nth=0").click()
    assert page.inner_text("#enlarged p").startswith("2 ")
    page.mouse.click(5, 5)
    assert not page.locator("#enlarged").is_visible()


def test_a_point_of_the_map_shows_whose_photograph_it_is(page, written):
    images = written[0].images.query("fold == 0").set_index("image_id")
    page.locator("[data-image=test0003]").hover()
    assert "test0003" in page.inner_text("#point") and " ".join(images.encounter_id["test0003"].split()) in " ".join(page.inner_text("#point").split())
    page.mouse.move(5, 5)
    assert not page.locator("#point").is_visible()
    page.locator("[data-image=test0000]").focus()
    page.keyboard.press("ArrowRight")
    assert "test0001" in page.inner_text("#point")
    page.keyboard.press("Enter")
    assert page.inner_text("#enlarged p").startswith("photograph test0001, ")


def test_explained_pairs_stand_in_their_section_and_in_their_row(page, run):
    assert page.locator(".pairs img").count() == 2 and page.locator(".pairs button").count() == 2
    pairs = pd.read_csv(run / "fold0/explain/pairs.csv")
    page.click(".pairs button >> nth=0")
    assert " ".join(page.inner_text("#pair-0 figcaption").split()) == page.inner_text("#enlarged p")
    page.keyboard.press("Escape")
    page.select_option("[name=fold]", "0")
    page.fill("[name=search]", pairs.query_id[1])
    assert page.locator("#rows .heat img").get_attribute("src") == page.locator("#pair-1 img").get_attribute("src")


def test_hostile_names_do_nothing(page, written):
    assert page.title() == "a <b> run: report" and page.evaluate("document.scripts.length") == 2
    page.select_option("[name=view]", "table")
    assert " ".join(toy_run.HOSTILE.split()) in " ".join(page.inner_text("#rows").split()) and page.title() == "a <b> run: report"
    assert page.evaluate("document.querySelectorAll('#rows script, #rows [onerror], b').length") == 0


def test_on_a_phone_nothing_is_wider_than_the_screen(visit, written):
    page = visit(written[1], viewport=PHONE)
    for view in ("photographs", "table"):
        page.select_option("[name=view]", view)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.select_option("[name=view]", "photographs")
    page.locator("#rows .strip button").nth(1).click()
    box = page.locator("#enlarged").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["y"] + box["height"] <= 740


def colours(page):
    """(colour, ground) of every element that has text of its own, as the browser computed them."""
    return page.evaluate("""() => [...document.querySelectorAll("body *")].filter(element => element.checkVisibility() && !element.disabled && !element.closest("svg, option")
        && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(element => {
        let ground = element;
        while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor].map(text => "#" + text.match(/\\d+/g).slice(0, 3).map(n => (+n).toString(16).padStart(2, "0")).join(""));
    })""")


def test_light_and_dark_differ_and_all_text_stands_out_in_both(visit, written):
    grounds = []
    for scheme in ("light", "dark"):
        page = visit(written[1], color_scheme=scheme)
        pairs = {tuple(pair) for pair in colours(page)}
        assert len(pairs) > 5 and all(contrast(*pair) >= 4.5 for pair in pairs), scheme
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds[0] != grounds[1]


def test_right_and_wrong_differ_without_colour(page):
    style = "element => getComputedStyle(element).borderStyle"
    assert page.locator("#rows .right .photograph").first.evaluate(style) == "solid" and page.locator("#rows .wrong .photograph").first.evaluate(style) == "dashed"
    signs = [page.locator(f"#rows .{kind} .sign path").first.get_attribute("d") for kind in ("right", "wrong")]
    assert signs[0] != signs[1]


def test_without_script_four_queries_remain(visit, written):
    page = visit(written[1], java_script_enabled=False)
    assert page.locator("#rows article").count() == 4 and page.locator("#rows img").count() > 20 and "Without script" in page.inner_text("#answers")
    assert not page.locator("#filters").is_visible()


def test_names_are_filtered_by_known_and_new(visit, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "sections", lambda run, folds, against: [])
    run = toy_run.names(tmp_path)
    page, queries = visit(report.report(run, tmp_path / "report.html")), answers.read(run, [0]).queries
    for value, chosen in {"new": queries.whale_id == "", "known": queries.whale_id != ""}.items():
        page.select_option("[name=known]", value)
        assert counted(page) == chosen.sum() > 0 and sorted(listed(page)) == sorted(queries.query_id[chosen])
    assert "probability 0.5000" in page.inner_text("#rows") and page.locator("#rows .right img").count() > 0


def large(path, n=5000):
    """A run of n queries, all of other photographs of noise, each answered with twenty of the others."""
    rng, run = np.random.default_rng(0), path / "large"
    ids = np.array([f"test{k:05d}" for k in range(n)])
    whale = rng.permutation(n) % (n // 10)
    folder = run / "folds/0/test/images"
    folder.mkdir(parents=True)
    for number in range(n):
        noise = Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).resize((600, 400))
        noise.save(folder / f"{ids[number]}.jpg", quality=80)
    table = pd.DataFrame({"image_id": ids, "whale_id": [f"whale{k:04d}" for k in whale], "encounter_id": [f"whale{k:04d}-1" for k in whale]})
    write_table(table.assign(original_image_id=ids, timestamp=""), run / "folds/0/labels.csv")
    write_table(pd.DataFrame({"image_id": ids, "path": "images/" + pd.Series(ids) + ".jpg", "viewpoint": "top", "date": "2020-01-01"}), run / "folds/0/test/metadata.csv")
    query, order = np.repeat(np.arange(n), 20), rng.integers(0, n, (n, 20))
    rows = pd.DataFrame({"query_id": ids[query], "database_image_id": ids[order.ravel()], "score": np.tile(np.linspace(0.9, 0.5, 20), n)})
    truth = table.merge(table, on="whale_id", suffixes=("", "_other")).query("image_id != image_id_other")
    write_table(truth[["image_id", "image_id_other"]].set_axis(["query_id", "database_image_id"], axis=1), run / "folds/0/truth.csv")
    toy_run.evaluate(write_table(rows.drop_duplicates(["query_id", "database_image_id"]), run / "fold0/submission.csv"), run / "folds/0/truth.csv")
    return run


@pytest.mark.slow
def test_a_page_of_five_thousand_queries_stays_under_fifteen_megabytes(visit, tmp_path):
    path = report.report(large(tmp_path), tmp_path / "report.html")
    print(f"{path.stat().st_size / 1e6:.1f} MB")
    page = visit(path)
    assert path.stat().st_size < 15e6 and counted(page) == 5000 and page.locator("#rows img").count() > 100
