"""`python -m solution.identify PHOTO...`: five names with probabilities, and a picture of the nearest photographs."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import naive_names
import toy_names
from solution import gallery, identify, matches, predict, recipe
from solution.files import run
from test_embed import tiny

ROOT = Path(__file__).parents[1]
SPECS = (toy_names.striped("first", 0, 48), tiny("third", 1, 32, head={"total": True}, predict={"mirror": "average", "weight": 2.0}))
NAMES = ["first", "third"]
TILE, GAP, LINE = 240, 8, 18


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    return toy_names.fold(tmp_path_factory.mktemp("fold"), *SPECS)


@pytest.fixture
def asked(fold, capsys, monkeypatch):
    """Runs the command in this process: exit status, lines on stdout, stderr."""

    def command(*words, weights=None):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["identify", *map(str, words), "--weights", str(weights or fold / "weights"), "--device", "cpu", "--no-cache"])
        try:
            run(identify.main)
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return command


def photographs(fold, n=2):
    return [fold / "test" / path for path in pd.read_csv(fold / "test" / "metadata.csv").path[:n]]


def one_line(answer, words):
    status, out, err = answer
    assert status == 2 and out == [] and err.startswith("error: ") and err.count("\n") == 1 and words in err, answer


# In words

@pytest.fixture
def by_loops(fold, tmp_path):
    """Of each photograph of the fold (by its file name) the chances of all names, and the photograph nearest to each individual."""
    predict.main(["--data", str(fold / "test"), "--weights", str(fold / "weights"), "--output", str(tmp_path / "s.csv"), "--embeddings", str(tmp_path / "e"), "--device", "cpu", "--engine", "torch", "--workers", "0", "--no-cache"])
    known, parts = naive_names.Weights(fold / "weights", NAMES), {name: naive_names.stored(tmp_path / "e" / f"{name}.npz") for name in NAMES}
    files = pd.read_csv(fold / "test" / "metadata.csv").set_index("image_id").path.str.rsplit("/").str[-1]
    found = {}
    for number, image_id in enumerate(parts["first"]["image_id"]):
        scores = known.scores(parts, number)
        found[files[image_id]] = scores, known.chances(scores), nearest(known, parts, number)
    return found


def nearest(known, parts, number):
    """The most similar photograph of each individual by the weighted mean of the models' cosines."""
    cosines = sum(share * known.galleries[name]["embedding"].astype(float) @ known.row(name, parts[name], number) for name, share in known.shares(known.specs).items())
    ids = known.galleries["first"]["image_id"]
    order = np.argsort(cosines)
    return dict(zip(known.galleries["first"]["whale_id"][order], ids[order]))


def test_five_known_names_are_told_with_their_chances_and_nearest_photographs_and_how_likely_a_new_one_is(fold, asked, by_loops):
    paths = photographs(fold, 3)
    status, lines, err = asked(*paths)
    assert (status, err) == (0, "") and len(lines) == 3 * 6
    for path, (head, *rest) in zip(paths, (lines[start : start + 6] for start in (0, 6, 12))):
        scores, chances, image = by_loops[path.name]
        told = re.fullmatch(rf"{path}: new_whale (\d+)%", head)
        assert abs(int(told[1]) - 100 * chances["new_whale"]) < 0.6
        names = sorted((name for name in scores if name != "new_whale"), key=lambda name: -scores[name])[:5]
        for name, line in zip(names, rest):
            told = re.fullmatch(r" +(\d+)%  (\S+), nearest in (\S+)", line)
            assert (told[2], told[3]) == (name, image[name]) and abs(int(told[1]) - 100 * chances[name]) < 0.6
        assert sum(int(percent) for percent in re.findall(r"(\d+)%", "".join([head, *rest]))) <= 103


def test_several_photographs_at_once_get_the_answers_that_each_gets_alone(fold, asked):
    paths = photographs(fold, 2)
    together = asked(*paths)[1]
    assert together == asked(paths[0])[1] + asked(paths[1])[1]


def test_a_photograph_of_the_gallery_itself_is_named_first_with_its_own_image(fold, asked, tmp_path):
    row = pd.read_csv(fold / "train" / "metadata.csv").dropna(subset=["whale_id"]).iloc[0]
    weights = shutil.copytree(fold / "weights", tmp_path / "weights")
    identify.write(replace(identify.read(weights / "identify.json"), c3=0.0), weights / "identify.json")
    status, lines, _ = asked(fold / "train" / row.path, weights=weights)
    assert status == 0 and lines[1].endswith(f"%  {row.whale_id}, nearest in {row.image_id}")


def test_a_name_without_a_photograph_is_told_without_one(fold, asked, tmp_path):
    """The classifier knows whales whose photographs the gallery no longer names."""
    data = shutil.copytree(fold / "train", tmp_path / "train")
    pd.read_csv(data / "metadata.csv", dtype=str).assign(whale_id="").to_csv(data / "metadata.csv", index=False)
    status, lines, _ = asked(photographs(fold, 1)[0], "--gallery", data, "--picture", tmp_path / "m.png")
    assert status == 0 and len(lines) == 7 and all(re.fullmatch(r" +\d+%  whale\d+", line) for line in lines[1:6])


# As a picture

def plain(folder, colours):
    """A data directory with a photograph of one colour for each whale, and gallery and identify.json for a model to match them by."""
    (folder / "images").mkdir(parents=True)
    for name, colour in colours.items():
        Image.new("RGB", (60, 30), colour).save(folder / "images" / f"{name}.png")
    pd.DataFrame({"image_id": list(colours), "path": [f"images/{name}.png" for name in colours], "whale_id": list(colours)}).to_csv(folder / "metadata.csv", index=False)
    return folder


COLOURS = {"red": (200, 20, 30), "green": (20, 190, 40), "blue": (30, 20, 210), "yellow": (220, 220, 10), "white": (250, 250, 250), "black": (5, 5, 5)}


def middle(picture, column, row):
    """The colour in the middle of a tile; column 0 is the photograph itself."""
    top = GAP + row * (TILE + 2 * LINE + GAP) + TILE // 2
    return picture[top, GAP + column * (TILE + GAP) + TILE // 2].astype(int)


def close(colour, other):
    return np.abs(colour - np.array(other)).max() < 16


@pytest.mark.parametrize("name", ["m.png", "m.jpg", "deep/m.JPEG"])
def test_the_picture_has_a_row_a_photograph_and_shows_the_nearest_photographs(name, fold, asked, tmp_path):
    data = plain(tmp_path / "plain", COLOURS)
    paths = [data / "images" / "blue.png", data / "images" / "yellow.png"]
    status, lines, err = asked(*paths, "--gallery", data, "--picture", tmp_path / name)
    assert (status, err) == (0, "") and lines[-1] == str(tmp_path / name)
    image = Image.open(tmp_path / name)
    assert image.size == (GAP + 6 * (TILE + GAP), GAP + 2 * (TILE + 2 * LINE + GAP)) and image.format == ("PNG" if name == "m.png" else "JPEG")
    picture = np.asarray(image.convert("RGB"))
    for row, colour in enumerate(("blue", "yellow")):
        assert close(middle(picture, 0, row), COLOURS[colour])
        whales = [re.fullmatch(r" +\d+%  (\S+), nearest in \S+", line)[1] for line in lines[1 + 6 * row : 6 + 6 * row]]
        assert colour in whales  # its own photograph is in the gallery
        for place, whale in enumerate(whales, 1):
            assert whale not in COLOURS or close(middle(picture, place, row), COLOURS[whale])
    assert (picture[:GAP] > 240).all() and (picture[:, :GAP] > 240).all()
    assert not list(tmp_path.rglob("*.part"))


def test_a_photograph_that_is_not_at_hand_leaves_its_place_empty(fold, asked, tmp_path):
    assert asked(photographs(fold, 1)[0], "--picture", tmp_path / "m.png")[0] == 0
    picture = np.asarray(Image.open(tmp_path / "m.png").convert("RGB"))
    assert all(close(picture[GAP + 20, GAP + place * (TILE + GAP) + 20].astype(int), (208, 208, 208)) for place in range(1, 6))
    whole = tmp_path / "whole.png"
    assert asked(photographs(fold, 1)[0], "--picture", whole, "--gallery", fold / "train")[0] == 0
    shown = np.asarray(Image.open(whole).convert("RGB")).astype(int)
    assert all(np.ptp(shown[GAP : GAP + TILE, GAP + place * (TILE + GAP) :][:, :TILE], axis=(0, 1)).min() > 30 for place in range(1, 6))


def test_the_same_picture_has_the_same_bytes(fold, asked, tmp_path):
    for name in ("one.png", "other.png"):
        asked(photographs(fold, 1)[0], "--gallery", fold / "train", "--picture", tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_the_nearest_photograph_of_each_name_is_that_of_a_plain_loop():
    random = np.random.default_rng(0)

    def unit(n, d):
        rows = random.normal(size=(n, d)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    specs = [tiny("a", 0, 32, predict={"mirror": "off"}), tiny("b", 1, 32, predict={"mirror": "off", "weight": 3.0})]
    known = gallery.Gallery(np.arange(9).astype(str), np.array(list("xxyyzzz") + ["", ""]), np.arange(9).astype(str), {"a": unit(9, 4), "b": unit(9, 6)})
    evidence, queries = matches.naming.Evidence(specs, Path("nowhere"), known), {"a": {"plain": unit(5, 4)}, "b": {"plain": unit(5, 6)}}
    names = np.array([["x", "y", "z", "w", "new_whale"]] * 5, dtype=object)
    found = matches.nearest_photographs(evidence, queries, names)
    for query in range(5):
        cosine = [sum(weight * float(np.dot(queries[name]["plain"][query].astype(float), known.embeddings[name][image])) for name, weight in (("a", 1), ("b", 3))) for image in range(9)]
        for place, whale in enumerate("xyz"):
            own = [image for image in range(9) if known.whale_id[image] == whale]
            assert found[query, place] == max(own, key=lambda image: cosine[image])
    assert (found[:, 3:] == -1).all()


# What is wrong

def test_a_photograph_that_is_not_there_or_cannot_be_read_is_one_line(fold, asked, tmp_path):
    good = photographs(fold, 1)[0]
    one_line(asked(good, tmp_path / "none.jpg"), f"{tmp_path}/none.jpg: no such photograph")
    (tmp_path / "broken.jpg").write_bytes(good.read_bytes()[:300])
    status, _, warned = asked(tmp_path / "broken.jpg")
    assert status == 2 and warned.endswith(f"error: {tmp_path}/broken.jpg: not a readable image; there is no other photograph to name\n")
    status, lines, warned = asked(tmp_path / "broken.jpg", good)
    assert status == 0 and lines == asked(good)[1] and "broken.jpg: not a readable image" in warned
    one_line(asked(tmp_path), "no such photograph")


def test_a_picture_of_another_kind_weights_without_names_and_no_gallery_are_one_line(fold, asked, tmp_path):
    good = photographs(fold, 1)[0]
    one_line(asked(good, "--picture", tmp_path / "m.pdf"), "m.pdf must end in .jpg or .png")
    one_line(asked(good, weights=tmp_path), "no models here")
    one_line(asked(good, "--gallery", tmp_path), "metadata.csv: no such file")
    weights = shutil.copytree(fold / "weights", tmp_path / "weights")
    (weights / "identify.json").unlink()
    one_line(asked(good, weights=weights), "identify.json: no such file")
    assert recipe.specs(weights)


def test_the_command_of_its_own_says_the_same(fold, asked):
    path = photographs(fold, 1)[0]
    words = [sys.executable, "-m", "solution.identify", path, "--weights", fold / "weights", "--device", "cpu"]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines() == asked(path)[1], done.stderr


def test_the_help_comes_without_torch():
    code = "import sys; from solution import identify; sys.argv = ['identify', '--help']\n" \
           "try: identify.main()\nfinally: print(sorted({'torch', 'timm', 'scipy', 'PIL', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "example: python -m solution.identify" in done.stdout and done.stdout.endswith("[]\n")
