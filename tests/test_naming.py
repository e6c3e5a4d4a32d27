"""Names instead of rankings: `python -m solution.predict` on photographs without scenarios, against plain loops over its files."""

import json
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import naive_names
import toy
import toy_names
from eval import score
from solution import embed, gallery, identify, images, naming, predict, recipe
from solution.torch_engine import TorchEngine
from solution.files import run
from test_embed import tiny

SPECS = (toy_names.striped("first", 0, 48), tiny("bare", 1, 32, predict={"weight": 2.0}), tiny("third", 2, 32, head={"total": True}, predict={"mirror": "average"}))
NAMES = ["first", "bare", "third"]


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """train/, test/, truth.csv and weights/ with a gallery: stripes, a model that counts twice without a classifier, a third one."""
    fold = toy_names.fold(tmp_path_factory.mktemp("fold"), *SPECS)
    told(fold / "weights", temperature=0.1, theta_f=0.985, theta_p=0.1, scale=20.0, bias=0.5)  # as random models are: all counts, and new is among the names
    return fold


def told(weights, **changes):
    """Changes keys of identify.json."""
    file = weights / "identify.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return weights


def predicted(fold, output, *options, data=None, weights=None):
    options = ["--data", data or fold / "test", "--weights", weights or fold / "weights", "--output", output, "--device", "cpu", "--engine", "torch", "--workers", 0, "--no-cache", *options]
    predict.main([str(option) for option in options])
    return output


@pytest.fixture(scope="module")
def answered(fold, tmp_path_factory):
    """s.csv, p.csv and e/ for the fold's photographs."""
    folder = tmp_path_factory.mktemp("answered")
    predicted(fold, folder / "s.csv", "--probabilities", folder / "p.csv", "--embeddings", folder / "e")
    return folder


@pytest.fixture
def weights(fold, tmp_path):
    """A copy of the weights, to be changed."""
    return shutil.copytree(fold / "weights", tmp_path / "weights")


def answers(path):
    return {image: labels.split() for image, labels in pd.read_csv(path, dtype=str).itertuples(index=False)}


def embedded(folder, names=NAMES):
    return {name: naive_names.stored(folder / "e" / f"{name}.npz") for name in names}


def expected(folder, known, names=NAMES):
    """Of each image of the fold its scores by plain loops, in the order of the embeddings."""
    parts = embedded(folder, names)
    return [known.scores(parts, number) for number in range(len(parts[names[0]]["image_id"]))]


def one_line(capsys, words, *arguments, **options):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(lambda: predicted(*arguments, **options))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1 and words in said, said


# The answers

def test_every_photograph_gets_five_different_names_and_new_whale_is_one_of_them_for_some(fold, answered):
    found, truth = answers(answered / "s.csv"), pd.read_csv(fold / "truth.csv")
    assert (answered / "s.csv").read_text().startswith("Image,Id\n") and set(found) == set(truth.Image)
    individuals = set(gallery.read(fold / "weights", NAMES).whale_id) - {""}
    for labels in found.values():
        assert len(set(labels)) == len(labels) == 5 and set(labels) <= individuals | {"new_whale"}
    with_new = sum("new_whale" in labels for labels in found.values())
    assert 0 < with_new < len(found) and len({labels[0] for labels in found.values()}) > 2
    assert score.evaluate(answered / "s.csv", fold / "truth.csv").breaches == []


def test_the_answers_are_those_of_plain_loops(fold, answered):
    known, found = naive_names.Weights(fold / "weights", NAMES), answers(answered / "s.csv")
    image_ids = embedded(answered)["first"]["image_id"]
    paths = pd.read_csv(fold / "test" / "metadata.csv").set_index("image_id").path
    for image_id, scores in zip(image_ids, expected(answered, known)):
        assert found[paths[image_id].rsplit("/")[-1]] == naive_names.five(scores)


def test_the_probabilities_are_those_of_plain_loops_for_the_five_names_and_a_new_whale(fold, answered):
    known, found, table = naive_names.Weights(fold / "weights", NAMES), answers(answered / "s.csv"), pd.read_csv(answered / "p.csv", dtype={"Id": str})
    assert list(table.columns) == ["Image", "Id", "probability"] and set(table.Image) == set(found)
    scores = dict(zip(images.listed(fold / "test").path.str.rsplit("/").str[-1], expected(answered, known)))
    for image, part in table.groupby("Image", sort=False):
        assert list(part.Id) == found[image] + ["new_whale"] * ("new_whale" not in found[image])
        chances = known.chances(scores[image])
        np.testing.assert_allclose(part.probability, [chances[name] for name in part.Id], atol=2e-4)
        assert 0 < part.probability.sum() <= 1 + 1e-9 and part.probability.between(0, 1).all()
    assert len(table) > 5 * len(found)


def test_the_scorer_takes_the_probabilities(fold, answered, tmp_path, monkeypatch):
    words = ["score", answered / "s.csv", fold / "truth.csv", "--probabilities", answered / "p.csv", "--json", tmp_path / "score.json"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    score.main()
    open_set = json.loads((tmp_path / "score.json").read_text())["open_set"]
    assert open_set["n_known"] + open_set["n_unknown"] == len(pd.read_csv(fold / "truth.csv")) and 0 <= open_set["auc"] <= 1


def test_the_same_command_gives_the_same_bytes(fold, answered, tmp_path):
    predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv")
    assert all((tmp_path / name).read_bytes() == (answered / name).read_bytes() for name in ("s.csv", "p.csv"))


@pytest.mark.parametrize("at_once", [1, 20, 25])
def test_scores_held_in_smaller_blocks_change_nothing(at_once, fold, answered, tmp_path, monkeypatch):
    monkeypatch.setattr(naming, "SCORES", at_once)
    predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv")
    assert (tmp_path / "s.csv").read_bytes() == (answered / "s.csv").read_bytes()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "p.csv").probability, pd.read_csv(answered / "p.csv").probability, atol=2e-4)


def test_happywhales_columns_and_word_are_those_of_identify_json(fold, weights, answered, tmp_path):
    told(weights, columns=["image", "predictions"], new="new_individual")
    predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv", weights=weights)
    assert (tmp_path / "s.csv").read_text() == (answered / "s.csv").read_text().replace("Image,Id", "image,predictions").replace("new_whale", "new_individual")
    assert (tmp_path / "p.csv").read_text().startswith("image,Id,probability\n") and "new_individual" in (tmp_path / "p.csv").read_text()


# A known share of new individuals

@pytest.mark.parametrize("share", [0.0, 0.276, 0.5, 1.0])
def test_a_wanted_share_of_the_first_names_is_new_and_those_where_it_scores_best(share, fold, weights, answered, tmp_path):
    found = answers(predicted(fold, tmp_path / "s.csv", weights=told(weights, new_share=share)))
    leads = {}
    for image, scores in zip(found, expected(answered, naive_names.Weights(weights, NAMES))):
        new = scores.pop("new_whale")
        leads[image] = max(scores.values()) - new
    nearest = sorted(leads, key=leads.get)[: round(share * len(found))]
    assert {image for image, labels in found.items() if labels[0] == "new_whale"} == set(nearest)
    assert all(len(set(labels)) == 5 for labels in found.values())


def test_the_share_holds_within_each_species_where_that_is_wanted(fold, weights, tmp_path):
    data = shutil.copytree(fold / "test", tmp_path / "test")
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table["species"] = np.where(np.arange(len(table)) % 3 == 0, "beluga", "humpback_whale")
    table.to_csv(data / "metadata.csv", index=False)
    found = answers(predicted(fold, tmp_path / "s.csv", data=data, weights=told(weights, new_share=0.5, by_species=True)))
    new = table.path.str.rsplit("/").str[-1].map(lambda image: found[image][0] == "new_whale")
    assert new.groupby(table.species).sum().to_dict() == {name: round(0.5 * count) for name, count in table.species.value_counts().items()}


# Ensembles

def test_a_model_that_does_not_get_in_is_left_out_and_the_others_name(fold, weights, tmp_path, capsys):
    content = (weights / "bare.npz").read_bytes()
    (weights / "bare.npz").write_bytes(content[: len(content) // 2])
    predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv", "--embeddings", tmp_path / "e", weights=weights)
    said = capsys.readouterr()
    assert "warning: bare: left out: " in said.err and said.out.endswith("; names with first, third\n")
    known = naive_names.Weights(weights, ["first", "third"])
    assert list(answers(tmp_path / "s.csv").values()) == [naive_names.five(scores) for scores in expected(tmp_path, known, ["first", "third"])]
    for file in [*weights.glob("bare.*"), weights / "gallery" / "bare.npz"]:
        file.unlink()
    predicted(fold, tmp_path / "two.csv", "--probabilities", tmp_path / "q.csv", weights=weights)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "s.csv").read_bytes() and (tmp_path / "q.csv").read_bytes() == (tmp_path / "p.csv").read_bytes()


def test_a_single_model_names_too(fold, weights, tmp_path):
    for name in ("first", "third"):
        for file in [*weights.glob(f"{name}.*"), *weights.glob(f"*/{name}.npz")]:
            file.unlink()
    predicted(fold, tmp_path / "s.csv", "--embeddings", tmp_path / "e", weights=weights)
    known = naive_names.Weights(weights, ["bare"])
    assert not known.classifiers and list(answers(tmp_path / "s.csv").values()) == [naive_names.five(scores) for scores in expected(tmp_path, known, ["bare"])]


def test_the_file_is_complete_before_any_model_and_after_each(fold, answered, tmp_path, monkeypatch):
    """A model whose mirror images are still to come does not count: the gallery's rows hold both."""
    written, write = [], predict.write_table
    monkeypatch.setattr(predict, "write_table", lambda table, path: written.append(write(table, path).read_text()))
    predicted(fold, tmp_path / "s.csv")
    first, *rest = written
    photographs = pd.Series(gallery.read(fold / "weights", NAMES).whale_id)
    counts = photographs[photographs != ""].value_counts()
    most = sorted(counts.index, key=lambda whale: (-counts[whale], whale))[:4]
    assert set(map(tuple, (line.split(",")[1].split() for line in first.splitlines()[1:]))) == {("new_whale", *most)}
    assert [text.count("\n") for text in written] == [first.count("\n")] * len(written) and rest[-1] == (answered / "s.csv").read_text()
    assert len(set(rest)) <= 3 and len(set(written)) > 2


def test_a_first_model_alone_has_the_answers_of_its_own_loops(fold, answered, tmp_path, monkeypatch):
    written, write = [], predict.write_table
    monkeypatch.setattr(predict, "write_table", lambda table, path: written.append(answers(write(table, path))))
    predicted(fold, tmp_path / "s.csv")
    known = naive_names.Weights(fold / "weights", ["first"])
    assert list(written[1].values()) == [naive_names.five(scores) for scores in expected(answered, known, ["first"])]


# More photographs in the gallery

def photographs(folder, *rows):
    """A data directory of (image_id, whale_id, PIL image or the path of a file to copy)."""
    (folder / "images").mkdir(parents=True)
    for image_id, _, image in rows:
        image.save(folder / "images" / f"{image_id}.jpg", quality=95) if isinstance(image, Image.Image) else shutil.copy(image, folder / "images" / f"{image_id}.jpg")
    table = pd.DataFrame([(image_id, f"images/{image_id}.jpg", whale_id) for image_id, whale_id, _ in rows], columns=["image_id", "path", "whale_id"])
    table.to_csv(folder / "metadata.csv", index=False)
    return folder


def newcomer(seed, height=80, width=60):
    """A photograph of a whale that the toy competition has not: of dark and bright squares, under another light each time."""
    random = np.random.default_rng(seed)
    squares = np.add.outer(np.arange(height) // 8, np.arange(width) // 8) % 2 * random.uniform(0.8, 1)
    return Image.fromarray(((squares[..., None] + random.normal(0, 0.03, (height, width, 3))).clip(0, 1) * 255).astype(np.uint8))


def test_a_whale_that_the_weights_have_never_seen_is_named_by_its_photographs_in_the_gallery(fold, tmp_path):
    """The query is a near copy, somewhat cut and darker, of one of the two photographs."""
    copy = Image.fromarray((np.asarray(newcomer(1))[1:-1, 1:-1] * 0.99).astype(np.uint8))
    asked = photographs(tmp_path / "asked", ("q1", "", copy), ("q2", "", fold / "test" / images.listed(fold / "test").path.iloc[0]))
    added = photographs(tmp_path / "added", ("n1", "newcomer", newcomer(1)), ("n2", "newcomer", newcomer(2)))
    before = {path: path.read_bytes() for path in (fold / "weights").rglob("*.*")}
    without = answers(predicted(fold, tmp_path / "without.csv", data=asked))
    predicted(fold, tmp_path / "with.csv", "--gallery", added, "--probabilities", tmp_path / "p.csv", "--embeddings", tmp_path / "e", data=asked)
    found, table = answers(tmp_path / "with.csv"), pd.read_csv(tmp_path / "p.csv")
    assert not any("newcomer" in labels for labels in without.values())
    assert found["q1.jpg"][0] == "newcomer" and table[table.Image == "q1.jpg"].Id.iloc[0] == "newcomer"
    assert {path: path.read_bytes() for path in (fold / "weights").rglob("*.*")} == before
    known, parts = naive_names.Weights(fold / "weights", NAMES), embedded(tmp_path)
    for number in (2, 3):
        known.add("newcomer", {name: known.row(name, parts[name], number) for name in NAMES})
    for number, (image, labels) in enumerate(found.items()):
        scores = known.scores(parts, number)
        assert labels == naive_names.five(scores)
        chances = known.chances(scores)
        part = table[table.Image == image]
        np.testing.assert_allclose(part.probability, [chances[name] for name in part.Id], atol=2e-3)


def test_an_unknown_whale_in_the_gallery_speaks_for_a_new_one(fold, weights, tmp_path):
    asked = photographs(tmp_path / "asked", ("q1", "", newcomer(1)))
    added = photographs(tmp_path / "added", ("n1", "", newcomer(1)))
    told(weights, c1=4.0, c2=0.0, c3=0.0)
    assert answers(predicted(fold, tmp_path / "s.csv", "--gallery", added, data=asked, weights=weights))["q1.jpg"][0] == "new_whale"


@pytest.fixture
def seen(monkeypatch):
    """How many photographs each model was shown."""
    found, sides = {}, TorchEngine.sides

    def counted(self, batch, mirrored):
        for side in mirrored:
            found[self.spec.name, side] = found.get((self.spec.name, side), 0) + len(batch)
        return sides(self, batch, mirrored)

    monkeypatch.setattr(TorchEngine, "sides", counted)
    return found


def relabelled(fold, target, change):
    """A copy of the fold's training part with other names."""
    data = shutil.copytree(fold / "train", target)
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(data / "metadata.csv", index=False)
    return data


def test_photographs_that_the_gallery_holds_are_not_embedded_again(fold, answered, seen, tmp_path):
    found = predicted(fold, tmp_path / "s.csv", "--gallery", fold / "train")
    count = len(pd.read_csv(fold / "truth.csv"))
    assert seen == {("first", False): count, ("bare", False): count, ("bare", True): count, ("third", False): count, ("third", True): count}
    assert found.read_bytes() == (answered / "s.csv").read_bytes()


def test_a_changed_photograph_of_a_known_id_is_embedded_and_added(fold, seen, tmp_path):
    data = relabelled(fold, tmp_path / "train", lambda table: table)
    path = next((data / "images").iterdir())
    path.unlink()  # it is a hard link
    newcomer(1).save(path)
    predicted(fold, tmp_path / "s.csv", "--gallery", data)
    assert seen["first", False] == len(pd.read_csv(fold / "truth.csv")) + 1


def test_another_name_for_a_photograph_of_the_gallery_counts(fold, answered, tmp_path):
    """What was whale A everywhere is now Z: every answer has Z where it had A, as only the classifier still knows A."""
    known = naive_names.Weights(fold / "weights", NAMES)
    whale = pd.Series([labels[0] for labels in answers(answered / "s.csv").values() if labels[0] != "new_whale"]).mode()[0]
    data = relabelled(fold, tmp_path / "train", lambda table: table.assign(whale_id=table.whale_id.replace(whale, "Z")))
    found = answers(predicted(fold, tmp_path / "s.csv", "--gallery", data))
    for part in known.galleries.values():
        part["whale_id"] = np.where(part["whale_id"] == whale, "Z", part["whale_id"])
    known.individuals = sorted({*known.individuals, "Z"})
    assert list(found.values()) == [naive_names.five(scores) for scores in expected(answered, known)]
    assert any(labels[0] == "Z" for labels in found.values())


def test_a_name_that_is_taken_back_makes_the_photograph_one_of_an_unknown_whale(fold, answered, tmp_path):
    known = naive_names.Weights(fold / "weights", NAMES)
    data = relabelled(fold, tmp_path / "train", lambda table: table.assign(whale_id=""))
    found = answers(predicted(fold, tmp_path / "s.csv", "--gallery", data))
    for part in known.galleries.values():
        part["whale_id"] = np.full(len(part["whale_id"]), "")
    known.individuals = sorted(set.union(*(set(part["whale_id"]) for part in known.classifiers.values())))
    assert list(found.values()) == [naive_names.five(scores) for scores in expected(answered, known)]


def test_a_gallery_without_photographs_changes_nothing(fold, answered, tmp_path):
    found = predicted(fold, tmp_path / "s.csv", "--gallery", photographs(tmp_path / "none"))
    assert found.read_bytes() == (answered / "s.csv").read_bytes()


# What is wrong

def test_without_scenarios_or_an_identification_it_is_one_line(fold, weights, tmp_path, capsys):
    (weights / "identify.json").unlink()
    one_line(capsys, f"{fold}/test: has no query_scenarios.csv, and {weights} no identify.json", fold, tmp_path / "s.csv", weights=weights)
    assert not (tmp_path / "s.csv").exists()


@pytest.mark.parametrize("change, words", [
    (lambda weights: shutil.rmtree(weights / "gallery"), "holds no gallery"),
    (lambda weights: (weights / "gallery" / "bare.npz").unlink(), "gallery/bare.npz"),
    (lambda weights: (weights / "classifier" / "first.npz").write_bytes(b"PK"), "classifier/first.npz: not a readable npz"),
    (lambda weights: (weights / "identify.json").write_text("{}"), "identify.json: not an identification: temperature is missing"),
    (lambda weights: told(weights, temperature=-1.0), "identify.json: not an identification: temperature is -1.0"),
])
def test_weights_that_cannot_name_are_one_line(change, words, fold, weights, tmp_path, capsys):
    change(weights)
    one_line(capsys, words, fold, tmp_path / "s.csv", "--strict", weights=weights)
    assert not (tmp_path / "s.csv").exists()


def test_a_gallery_goes_with_data_without_scenarios_only(fold, tmp_path, capsys):
    data = toy.competition(tmp_path / "data", n_whales=3)
    toy.scenarios(data)
    one_line(capsys, "error: --gallery: ", fold, tmp_path / "s.csv", "--gallery", fold / "train", data=data)


def test_a_gallery_that_is_not_there_is_one_line(fold, tmp_path, capsys):
    one_line(capsys, "nowhere/metadata.csv: no such file", fold, tmp_path / "s.csv", "--gallery", tmp_path / "nowhere")


def test_of_two_photographs_of_one_file_name_the_first_is_answered_and_that_is_told(fold, tmp_path, capsys):
    data = shutil.copytree(fold / "test", tmp_path / "test")
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    (data / "more").mkdir()
    shutil.copy(data / table.path[1], data / "more" / table.path[0].rsplit("/")[-1])
    pd.concat([table, table[:1].assign(image_id="again", path="more/" + table.path[0].rsplit("/")[-1])]).to_csv(data / "metadata.csv", index=False)
    found = predicted(fold, tmp_path / "s.csv", data=data)
    assert "only the first of a name is answered" in capsys.readouterr().err and len(answers(found)) == len(table) == found.read_text().count("\n") - 1
    one_line(capsys, "metadata.csv: another photograph is called", fold, tmp_path / "strict.csv", "--strict", data=data)


def test_a_photograph_that_cannot_be_read_is_answered_too_and_told(fold, tmp_path, capsys):
    data = shutil.copytree(fold / "test", tmp_path / "test")
    broken = data / pd.read_csv(data / "metadata.csv").path[2]
    broken.write_bytes(b"broken")
    found = answers(predicted(fold, tmp_path / "s.csv", data=data))
    assert set(found) == set(pd.read_csv(fold / "truth.csv").Image) and len(set(found[broken.name])) == 5
    assert capsys.readouterr().err.count(f"{broken.name}: not a readable image") == 1
    one_line(capsys, f"{broken.name}: not a readable image", fold, tmp_path / "strict.csv", "--strict", data=data)


def test_a_gallery_photograph_that_cannot_be_read_names_nobody(fold, answered, tmp_path, capsys):
    """It would be a black image, and whatever else cannot be read would be its likeness."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"broken")
    asked = photographs(tmp_path / "asked", ("q1", "", newcomer(1)), ("q2", "", broken))
    added = photographs(tmp_path / "added", ("n0", "ghost", broken), ("n1", "newcomer", newcomer(1)))
    found = answers(predicted(fold, tmp_path / "s.csv", "--gallery", added, data=asked))
    assert found["q1.jpg"][0] == "newcomer" and not any("ghost" in labels for labels in found.values())
    assert capsys.readouterr().err.count("n0.jpg: not a readable image") == 1


def test_without_a_photograph_the_files_are_headers(fold, weights, tmp_path):
    for share in (None, 0.3):
        predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv", data=photographs(tmp_path / f"none{share}"), weights=told(weights, new_share=share))
        assert (tmp_path / "s.csv").read_text() == "Image,Id\n" and (tmp_path / "p.csv").read_text() == "Image,Id,probability\n"


# Units

def named_rows(n=7, d=6, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_of_fewer_than_five_individuals_no_name_is_told_twice(tmp_path):
    """`known_only`, as on one photograph: new is no name then."""
    spec = tiny("m", 0, 32, predict={"mirror": "off"})
    known = gallery.Gallery(np.array(list("abcd")), np.array(["x", "y", "z", ""]), np.array(["1", "2", "3", "4"]), {"m": named_rows(4)})
    evidence = naming.Evidence([spec], tmp_path, known)
    told = identify.Identification(1.0, 0.1, 0.9, 1.0, 1.0, 0.0, None, None, 0, 10.0, 0.0, (1.0, -1.0))
    seen = naming.Seen(evidence, {"m": {"plain": named_rows(5, seed=1)}}, told)
    columns, chance = seen.best(slice(0, 5), np.zeros(5), known_only=True)
    for row in columns:
        assert len(set(row[:-1])) == len(row) - 1 and row[-1] == 3
    np.testing.assert_allclose(chance[:, :3].sum(axis=1) + chance[:, -1], 1, atol=1e-9)


def test_the_chance_that_a_ranked_querys_whale_is_not_in_the_database_is_that_of_its_best_row():
    told = identify.Identification(1.0, 0.1, 0.9, 1.0, 1.0, 0.0, None, None, 0, 10.0, 0.0, (9.0, -12.0), new="new_individual")
    specs = [tiny("m", 0, 32, predict={"mirror": "off"}), tiny("n", 1, 32, predict={"mirror": "off", "weight": 3.0})]
    embeddings = {"m": {"image_id": np.array(list("pqrs")), "plain": named_rows(4)}, "n": {"image_id": np.array(list("pqrs")), "plain": 7 * named_rows(4, seed=1)}}
    ranked = pd.DataFrame([("a", "r", 0.9), ("a", "s", 0.5), ("b", "p", 0.4), ("c", "p", 0.8)], columns=["query_id", "database_image_id", "score"])
    image_of = pd.Series({"c": "s", "a": "p", "b": "q"})
    found = naming.chances_of_ranking(ranked, image_of, specs, embeddings, told)
    assert list(found.columns) == ["query_id", "Id", "probability"] and list(found.query_id) == list("abc") and set(found.Id) == {"new_individual"}
    for number, (query, match) in enumerate(((0, 2), (1, 0), (3, 0))):
        similarity = [(2 - np.linalg.norm(rows[query] - rows[match])) / 2 for rows in (named_rows(4), named_rows(4, seed=1))]
        expected = 1 / (1 + math.exp(-(9 - 12 * (similarity[0] + 3 * similarity[1]) / 4)))
        assert found.probability[number] == pytest.approx(expected, abs=1e-5)
