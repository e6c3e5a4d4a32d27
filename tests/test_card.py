"""The card of packed weights: what it says against the models, the score and the provenance; what it does not; hostile names; the same bytes."""

import json
import shutil
import subprocess
import sys
import zipfile

import pytest

import toy_names
from eval.files import InputError
from solution import models, recipe
from submission import archive, card, pack
from test_embed import ensemble, tiny
from test_pack import ALONE, ENVIRONMENT, ROOT

HOSTILE = "x` <script>alert(1)</script> ``` | [a](javascript:alert(1)) ![](http://evil.example/x) https://evil.example # _*~ \n# heading\n```\n\x1b[2J {{7*7}} \u2028 `"
MADE = {"command": "python -m solution.train --data /home/me/secret", "seed": 3, "device": "cpu", "data": "d" * 64, "images": 61, "whales": 9, "unreadable": 2, "unreadable_ids": ["secret_id"],
        "doubtful": 4, "commit": "abc", "python": "3.11.7", "packages": {"torch": "2.9.1"}}
MEASURED = {"official": 0.51, "strict": 0.5, "strict_errors": [], "map5_images": 0.52, "map5_individuals": 0.61, "top1": 0.25, "n_queries": 1234, "ci95": [0.41, 0.59], "scenarios": {}}
FOLDS = {"protocol": "whale", "seed": 0, "images": 606, "whales": 115, "metadata_sha256": "e" * 64, "notes": ["few whales"], "folds": {}}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    weights = ensemble(tmp_path_factory.mktemp("card") / "weights", tiny("first", 0, 32), tiny("second", 1, 48, predict={"test_size": 64, "mirror": "average"}, head={"kind": "linear"}, train={"epochs": 1}))
    (weights / "provenance.json").write_text(json.dumps(MADE))
    return weights


def packed(weights, output, *more):
    """The card in what was packed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pack", *map(str, ["--weights", weights, "--output", output, "--device", "cpu", *more])])
        pack.main()
    if output.is_dir():
        return (output / card.NAME).read_text("utf-8")
    return zipfile.ZipFile(output).read(card.NAME).decode("utf-8")


def scored(folder, score=MEASURED, folds=FOLDS):
    """RUN/score.json, with RUN/folds/manifest.json beside it."""
    (folder / "folds").mkdir(parents=True)
    (folder / "score.json").write_text(json.dumps(score))
    (folder / "folds" / "manifest.json").write_text(json.dumps(folds))
    return folder / "score.json"


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def outside_of_code(text):
    """What is left of Markdown without its code spans: one ends at the next run of backticks that is as long as the one it begins with."""
    left, place = "", 0
    while place < len(text):
        run = len(text[place:]) - len(text[place:].lstrip("`"))
        if not run:
            left, place = left + text[place], place + 1
            continue
        end = place + run
        while end < len(text):
            closing = len(text[end:]) - len(text[end:].lstrip("`"))
            if closing == run:
                break
            end += max(closing, 1)
        place = end + run if end < len(text) else place + run
    return left


# What it says

def test_the_models_are_counted_as_torch_counts_them(weights, tmp_path):
    text = packed(weights, tmp_path / "s.zip")
    files = {entry.filename: entry.file_size for entry in zipfile.ZipFile(tmp_path / "s.zip").infolist()}
    for spec in recipe.specs(weights):
        parameters = sum(parameter.numel() for parameter in models.EmbeddingModel(spec.model).parameters())
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{spec.name}` |")]
        assert f"| {parameters:,} |" in row and f"| {files[f'weights/{spec.name}.npz']:,} bytes |" in row and "`test_efficientnet`" in row and "random weights" in row
    assert "| 32 |" in text and "| 64 (trained at 48) |" in text and "arcface, 2 sub-centres, 20 epochs" in text and "linear, 1 epoch |" in text and "| average |" in text


def test_the_training_data_are_those_of_the_provenance_without_paths_or_ids(weights, tmp_path):
    told = section(packed(weights, tmp_path / "s.zip"), "Training data")
    for line in ("photographs: `61`", "individuals: `9`", "left out, unreadable: `2`", "left out, doubtful: `4`", f"data, SHA-256: `{'d' * 64}`", "seed: `3`", "packages: `torch 2.9.1`"):
        assert f"- {line}\n" in told + "\n"
    assert "secret" not in told


def test_what_nobody_measured_or_stated_is_called_so(weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    (tmp_path / "weights" / "provenance.json").unlink()
    text = packed(tmp_path / "weights", tmp_path / "s.zip")
    assert "Not stated" in section(text, "Training data") and "Not measured" in section(text, "Speed") and "not measured" in section(text, "Half precision")
    assert "Protocol: not stated." in text and "Scores: not measured." in text and "What each model adds: not measured." in text
    assert section(text, "Licences").count("not stated") == 2


def test_the_scores_are_those_of_the_run_with_their_intervals_and_protocol(weights, tmp_path):
    score = scored(tmp_path / "run", {**MEASURED, "strict_errors": ["fold1: a rule"], "folds": {"fold0": {**MEASURED, "strict": None, "ci95": None, "n_queries": 7}}})
    text = packed(weights, tmp_path / "s.zip", "--scores", score, "--data-licence", "CC BY 4.0", "--weights-licence", "MIT")
    told = section(text, "Evaluation")
    assert "| `all` | 1,234 | 0.5000 | 0.5100 | 0.5200 | 0.6100 | 0.2500 | 0.4100 to 0.5900 |" in told and "| `fold0` | 7 | not measured |" in told and "| none |" in told
    assert "Protocol `whale`: whole individuals are held out" in told and "606 photographs of 115 individuals" in told and "Broken rule: `fold1: a rule`" in told
    assert "Note of the folds: `few whales`" in section(text, "Limits") and "- Training photographs: `CC BY 4.0`" in text and "- Weights: `MIT`" in text


def test_a_score_of_one_fold_finds_its_folds_one_step_up(weights, tmp_path):
    scored(tmp_path / "run")
    (tmp_path / "run" / "fold0").mkdir()
    shutil.move(tmp_path / "run" / "score.json", tmp_path / "run" / "fold0" / "score.json")
    text = packed(weights, tmp_path / "s.zip", "--scores", tmp_path / "run" / "fold0" / "score.json")
    assert "Protocol `whale`" in text and "| `this fold` | 1,234 |" in text


def test_what_packing_measures_is_told(weights, tmp_path, monkeypatch):
    known = {"metric": "MAP@20", "models": [{"name": "second", "seconds_per_image": 0.0125, "alone": 0.31, "gain": 0.31}, {"name": "first", "seconds_per_image": 0.5, "alone": 0.3, "gain": -0.01}],
             "half": {"share_that_differs": 0.0009, "full": 0.3, "half": 0.3002}}
    monkeypatch.setattr(pack, "measure", lambda args, folder: known)
    text = packed(weights, tmp_path / "s.zip", "--fold", tmp_path)
    assert "| `second` | 0.3100 | +0.3100 |\n| `first` | 0.3000 | -0.0100 |" in text and "`second`: 12.5 ms a photograph" in text
    assert "0.09 % of the answers differ, MAP@20 0.3000 becomes 0.3002 (+0.0002)" in text
    assert text.index("| `second` | `test_eff") < text.index("| `first` | `test_eff")  # the order in which they run
    monkeypatch.undo()
    assert "in full precision" in section(packed(weights, tmp_path / "full.zip", "--precision", "full"), "Half precision")


def test_weights_that_name_say_so(tmp_path):
    fold = toy_names.fold(tmp_path / "named", tiny("bare", 0, 32), toy_names.striped("striped", 1, 64))
    text = packed(fold / "weights", tmp_path / "s.zip", "--scores", scored(tmp_path / "run", {**MEASURED, "map5_images": None}, {**FOLDS, "protocol": "identify"}))
    assert "name the individual on each" in text and "five names" in text and "MAP@5, Kaggle" in text and "MAP@20" not in text


def test_how_rankings_are_made_is_told(weights, tmp_path):
    assert "joined and compared by cosine; re-ranking: `none`." in packed(weights, tmp_path / "s.zip")
    shutil.copytree(weights, tmp_path / "weights")
    recipe.write_rank(recipe.Rank(fusion="reciprocal_rank", rerank="database_expansion"), tmp_path / "weights")
    assert "joined by reciprocal ranks; re-ranking: `database_expansion`." in packed(tmp_path / "weights", tmp_path / "other.zip")


# Where it lies

def test_the_card_is_in_the_manifest_and_beside_the_zip_and_packed_again_the_same(weights, tmp_path):
    text = packed(weights, tmp_path / "s.zip")
    assert (tmp_path / "s.card.md").read_text("utf-8") == text and sorted(path.name for path in tmp_path.iterdir()) == ["s.card.md", "s.zip"]
    manifest = json.loads(zipfile.ZipFile(tmp_path / "s.zip").read("manifest.json"))
    assert manifest["files"][card.NAME]["size"] == len(text.encode())
    assert packed(weights, tmp_path / "again.zip") == text and (tmp_path / "again.zip").read_bytes() == (tmp_path / "s.zip").read_bytes()
    assert packed(weights, tmp_path / "other.zip", "--data-licence", "CC0") != text
    assert card.NAME in archive.names(tmp_path / "s.zip")


def test_a_kaggle_folder_has_it_too(weights, tmp_path):
    assert "kernel.py" in section(packed(weights, tmp_path / "kernel", "--target", "kaggle"), "How to use them")
    assert not (tmp_path / "kernel.card.md").exists()


def test_what_is_packed_stops_where_its_card_was_changed(weights, tmp_path):
    """That it runs with the right one, test_pack.py and test_rehearse.py show."""
    packed(weights, tmp_path / "s.zip")
    zipfile.ZipFile(tmp_path / "s.zip").extractall(tmp_path / "run")
    (tmp_path / "run" / card.NAME).write_text("# another card")
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path / "run", env=ALONE, capture_output=True, text=True)
    assert done.returncode == 2 and f"{card.NAME}: " in done.stderr


# What comes from outside

def test_names_from_outside_stay_in_code_spans(weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    path = tmp_path / "weights" / "first.json"
    spec = json.loads(path.read_text())
    spec["model"].update(backbone=HOSTILE, pretrained="/secret/folder/" + HOSTILE.replace("/", ""))
    path.write_text(json.dumps(spec))
    (tmp_path / "weights" / "provenance.json").write_text(json.dumps({**dict.fromkeys(MADE, HOSTILE), "packages": {HOSTILE: HOSTILE}}))
    score = scored(tmp_path / "run", {**MEASURED, "strict_errors": [HOSTILE], "folds": {HOSTILE: MEASURED}}, {**FOLDS, "protocol": HOSTILE, "notes": [HOSTILE], "metadata_sha256": HOSTILE})
    text = packed(tmp_path / "weights", tmp_path / "s.zip", "--scores", score, "--data-licence", HOSTILE, "--weights-licence", HOSTILE)
    left = outside_of_code(text)
    for word in ("<", "script", "javascript", "evil.example", "heading", "{{", "](", "\x1b", "\u2028", "secret"):
        assert word not in left, left
    assert text.count("<script>") > 8 and "\x1b" not in text and "/secret" not in text
    rows = [line for line in text.splitlines() if line.startswith("| `") and "test_efficientnet" in line or line.startswith("| ````")]
    assert {line.replace("\\|", "").count("|") for line in rows} <= {9, 8}


@pytest.mark.parametrize("text", ["", "`", "``", "a`b", "`a", "a`", "```a``b`", " `` ", "\n", "x" * 5000, "|", "\\", 3, None, {"a": "`"}])
def test_any_value_is_one_code_span(text):
    span = card.code(text)
    assert outside_of_code(f"before {span} after") == "before  after" and "\n" not in span and len(span) < 400


@pytest.mark.parametrize("change", [lambda score: {**score, "folds": {"fold0": {}}}, lambda score: {**score, "folds": {"fold0": 3}}, lambda score: {**score, "ci95": [1]}, lambda score: {**score, "strict": "a"},
                                    lambda score: {**score, "folds": {"fold0": {**score, "ci95": [1]}}}, lambda score: {**score, "folds": {"fold0": {**score, "ci95": ["<", 1]}}}, lambda score: []])
def test_a_score_of_another_shape_is_refused_and_nothing_is_packed(weights, tmp_path, change):
    (tmp_path / "score.json").write_text(json.dumps(change(MEASURED)))
    with pytest.raises(InputError, match="score.json: "):
        packed(weights, tmp_path / "s.zip", "--scores", tmp_path / "score.json")
    assert [path.name for path in tmp_path.iterdir()] == ["score.json"]


def test_scores_that_are_not_there_are_told_in_one_line(weights, tmp_path):
    words = [sys.executable, "-m", "submission.pack", "--weights", weights, "--output", tmp_path / "s.zip", "--scores", tmp_path / "none.json"]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and "none.json: no such file" in done.stderr and done.stderr.count("\n") == 1 and list(tmp_path.iterdir()) == []
