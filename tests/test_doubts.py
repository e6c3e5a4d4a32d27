"""Doubtful photographs: angles and dominant sub-centres against plain loops, planted errors that come first, the command, what training
keeps for it and leaves out by it, and the page's section."""

import json
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

import toy
import toy_run
import toy_training as toying
from eval import report
from eval.page import doubts as section
from eval.page import figures
from solution import centres, doubts, embed, files, sift

COLUMNS = ["doubt", "image_id", "path", "whale_id", "photographs", "sub_centre", "dominant", "dominant_angle", "angle", "other_whale_id", "other_angle"]


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def angle(one, other):
    cosine = sum(float(a) * float(b) for a, b in zip(one, other)) / math.sqrt(sum(float(a) ** 2 for a in one) * sum(float(b) ** 2 for b in other))
    return math.degrees(math.acos(max(-1.0, min(1.0, cosine))))


# The angles

@pytest.mark.parametrize("n, whales, k, width, block", [(40, 6, 2, 5, 7), (30, 4, 3, 4, 64), (12, 5, 1, 3, 5), (2, 2, 2, 2, 1)])
def test_angles_dominant_sub_centres_and_other_whales_are_those_of_a_plain_loop(n, whales, k, width, block, monkeypatch):
    monkeypatch.setattr(doubts, "BLOCK", block)
    random = np.random.default_rng([n, k])
    rows = [unit(random.normal(size=(n, width))) for _ in range(2)]
    centre = [random.normal(size=(whales, k, width)) * random.uniform(0.1, 9, (whales, k, 1)) for _ in range(2)]
    label = np.concatenate([np.arange(whales), random.integers(0, whales, n - whales)])
    found = [doubts.by_sub_centres(pair, label, each) for pair, each in zip(rows, centre)]
    to_whales = np.zeros((n, whales))
    for (judge, dominance), row, each in zip(found, rows, centre):
        angles = [[[angle(row[i], each[whale, sub]) for sub in range(k)] for whale in range(whales)] for i in range(n)]
        to_whales += np.min(angles, axis=2) / 2
        nearest = [angles[i][label[i]].index(min(angles[i][label[i]])) for i in range(n)]
        assert dominance.nearest.tolist() == nearest
        for whale in range(whales):
            own = [i for i in range(n) if label[i] == whale]
            votes = [(sum(nearest[i] == sub for i in own), sum(math.cos(math.radians(angles[i][whale][sub])) for i in own)) for sub in range(k)]
            dominant = votes.index(max(votes))
            for i in own:
                assert dominance.angle[i] == pytest.approx(angles[i][whale][dominant], abs=0.05) and dominance.dominant[i] == (nearest[i] == dominant)
                assert judge.own[i] == pytest.approx(min(angles[i][whale]), abs=0.05)
    other, other_angle = doubts.nearest_others([judge for judge, _ in found], label)
    to_whales[np.arange(n), label] = np.inf
    assert other.tolist() == to_whales.argmin(axis=1).tolist()
    np.testing.assert_allclose(other_angle, to_whales.min(axis=1), atol=0.05)


def test_the_mean_of_a_whales_other_photographs_is_that_of_a_plain_loop():
    random = np.random.default_rng(3)
    rows, label = unit(random.normal(size=(12, 4))), np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 3])
    judge = doubts.by_means(rows, label, 4)
    for i, whale in enumerate(label):
        others = [rows[j] for j in range(12) if label[j] == whale and j != i] or [rows[i]]
        assert judge.own[i] == pytest.approx(angle(rows[i], np.sum(others, axis=0)), abs=0.05)
        for other in set(label) - {whale}:
            cosine = doubts.to_whales(judge, slice(i, i + 1))[0, other]
            assert math.degrees(math.acos(cosine)) == pytest.approx(angle(rows[i], np.sum(rows[label == other], axis=0)), abs=0.05)


def test_with_one_sub_centre_nothing_is_dominated():
    random = np.random.default_rng(0)
    dominance = doubts.by_sub_centres(unit(random.normal(size=(9, 4))), np.arange(9) % 3, random.normal(size=(3, 1, 4)))[1]
    assert dominance.dominant.all() and not dominance.nearest.any()


def test_one_whale_alone_has_no_other():
    rows = unit(np.random.default_rng(0).normal(size=(3, 4)))
    table = pd.DataFrame({"image_id": list("abc"), "path": list("abc"), "whale_id": "x"})
    found = doubts.judged(table, [doubts.by_means(rows, np.zeros(3, int), 1)], [], np.array(["x"]), np.zeros(3, int))
    assert (found.other_whale_id == "").all() and (found.other_angle == 180).all() and found.dominant.isna().all()


def test_photographs_that_were_put_to_another_whale_come_first():
    """Clusters around orthogonal directions; three bear another whale's name, and one of these has a sub-centre of its own there."""
    random, whales = np.random.default_rng(1), 5
    true = np.repeat(np.arange(whales), 8)
    rows = unit(np.eye(whales)[true] + random.normal(0, 0.1, (40, whales)))
    label = true.copy()
    label[[0, 9, 18]] = [3, 4, 0]
    second = unit(random.normal(size=(whales, whales)))
    second[3] = unit(np.eye(whales)[0] + np.eye(whales)[3])  # half way to where photograph 0 lies
    judge, dominance = doubts.by_sub_centres(rows, label, np.stack([np.eye(whales), second], axis=1))
    table = pd.DataFrame({"image_id": [f"{i:02}" for i in range(40)], "path": "p", "whale_id": [f"w{each}" for each in label]})
    found = doubts.judged(table, [judge, doubts.by_means(rows, label, whales)], [dominance], np.array([f"w{each}" for each in range(whales)]), label)
    assert set(found.image_id[:3]) == {"00", "09", "18"} and (found.doubt[:3] > 0).all() and (found.doubt[3:] < 0).all()
    named = found.set_index("image_id")
    assert named.other_whale_id[["00", "09", "18"]].tolist() == ["w0", "w1", "w2"] and named.dominant["00"] == 0
    assert found.columns.tolist() == COLUMNS and found.doubt.is_monotonic_decreasing


# What a training keeps

@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    place = tmp_path_factory.mktemp("trained")
    done = toying.train(toying.write_recipe(place / "recipe.yaml", "one", "two"), data, place / "weights")
    assert done.code == 0, done.stderr
    return place / "weights"


def judged(weights, data, output, *more):
    words = ["doubts.py", "--weights", weights, "--data", data, "--output", output, "--device", "cpu", "--engine", "torch", "--workers", 0, "--no-cache", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, words)))
        doubts.main()
    return pd.read_csv(output, dtype={"sub_centre": str}, keep_default_na=False)


def test_a_training_keeps_its_heads_sub_centres_in_the_whales_order(tmp_path, data):
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=1, also={"model": {"parts": 2, "cut": "branches", "part_width": 8}, "head": {"sub_centres": 3}, "train": {"mirror_identities": True}}), data, tmp_path / "c.npz")
    assert now.fit(toying.never)
    now.save(tmp_path / "weights")
    found = centres.read(tmp_path / "weights", now.spec)
    whales = sorted(set(pd.read_csv(data / "metadata.csv").whale_id))
    assert found["whale_id"].tolist() == whales and found["centres"].shape == (2, len(whales), 3, 8)
    heads = list(now.trainee.objective.heads)
    for part, whale, sub in ((0, 0, 0), (1, 4, 2), (1, len(whales) - 1, 1)):
        np.testing.assert_array_equal(found["centres"][part, whale, sub], heads[part].weight.detach().numpy()[whale * 3 + sub])


@pytest.mark.parametrize("also, epochs", [({"head": {"kind": "linear"}}, 1), ({"head": {"kind": "lgm"}}, 1), ({}, 0)])
def test_other_heads_and_untrained_ones_leave_no_sub_centres_and_means_take_their_place(tmp_path, data, also, epochs, capsys):
    done = toying.train(toying.write_recipe(tmp_path / "recipe.yaml", epochs=epochs, also=also), data, tmp_path / "weights")
    assert done.code == 0 and not (tmp_path / "weights" / "centres").exists()
    found = judged(tmp_path / "weights", data, tmp_path / "doubts.csv")
    assert capsys.readouterr().err.count("has no sub-centres") == 1
    assert len(found) == len(pd.read_csv(data / "metadata.csv")) and (found.dominant == "").all() and (found.sub_centre == "").all()


# The command

def test_the_table_has_every_labelled_photograph_once_and_the_same_bytes_again(trained, data, tmp_path):
    found = judged(trained, data, tmp_path / "one.csv")
    table = pd.read_csv(data / "metadata.csv", dtype=str).set_index("image_id")
    assert found.columns.tolist() == COLUMNS and sorted(found.image_id) == sorted(table.index)
    assert (found.whale_id == table.whale_id[found.image_id].to_numpy()).all() and (found.path == table.path[found.image_id].to_numpy()).all()
    assert (found.photographs == table.whale_id.value_counts()[found.whale_id].to_numpy()).all()
    np.testing.assert_allclose(found.doubt, found.angle - found.other_angle, atol=0.002)
    assert found.doubt.is_monotonic_decreasing and (found.whale_id != found.other_whale_id).all() and found.sub_centre.str.fullmatch("[01] [01]").all()
    judged(trained, data, tmp_path / "two.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


def test_the_angles_are_those_of_the_models_embeddings(trained, data, tmp_path):
    """Of one photograph of a whale with several, by hand from solution.embed's arrays and the sub-centres."""
    found = judged(trained, data, tmp_path / "doubts.csv").set_index("image_id")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["embed.py", "--data", str(data), "--weights", str(trained), "--output", str(tmp_path / "e"), "--device", "cpu", "--engine", "torch", "--workers", "0", "--no-cache"])
        embed.main()
    image_id = found.index[found.photographs > 2][0]
    whale_of, whale, angles, nearest, dominant = found.whale_id, found.whale_id[image_id], [], [], []
    for name in ("one", "two"):
        arrays, own = np.load(tmp_path / "e" / f"{name}.npz"), np.load(trained / "centres" / f"{name}.npz")
        rows = unit(unit(arrays["plain"]) + unit(arrays["mirror"]))
        mine = arrays["image_id"] == image_id
        others = (whale_of[arrays["image_id"]] == whale).to_numpy() & ~mine
        to_centres = [angle(rows[mine][0], each) for each in own["centres"][0][own["whale_id"].tolist().index(whale)]]
        angles += [angle(rows[mine][0], rows[others].sum(axis=0)), min(to_centres)]
        nearest.append(str(to_centres.index(min(to_centres))))
        dominant.append(to_centres)
    assert found.angle[image_id] == pytest.approx(np.mean(angles), abs=0.05) and found.sub_centre[image_id] == " ".join(nearest)
    assert any(found.dominant_angle[image_id] == pytest.approx((dominant[0][i] + dominant[1][j]) / 2, abs=0.05) for i in (0, 1) for j in (0, 1))


def altered(data, folder, change):
    shutil.copytree(data, folder)
    table = pd.read_csv(folder / "metadata.csv", dtype=str)
    change(table).to_csv(folder / "metadata.csv", index=False)
    return folder


def test_unknown_whales_are_left_out_and_other_data_are_refused(trained, data, tmp_path, capsys):
    some = altered(data, tmp_path / "some", lambda table: table.assign(whale_id=table.whale_id.mask(table.index == 0, "").mask(table.index.isin([1, 2]), "stranger")))
    assert len(judged(trained, some, tmp_path / "some.csv")) == len(pd.read_csv(data / "metadata.csv")) - 3
    assert "2 photographs of 1 whales that were not trained on are left out" in capsys.readouterr().err
    for change, words in ((lambda table: table.assign(whale_id="stranger"), "names none of the whales"), (lambda table: table.assign(whale_id=""), "names no whale"), (lambda table: table.drop(columns="whale_id"), "names no whale")):
        with pytest.raises(files.InputError, match=words):
            judged(trained, altered(data, tmp_path / words.replace(" ", str(len(list(tmp_path.iterdir())))), change), tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


def test_a_photograph_that_cannot_be_read_is_told_and_left_out(trained, data, tmp_path, capsys):
    broken = altered(data, tmp_path / "broken", lambda table: table)
    table = pd.read_csv(broken / "metadata.csv")
    (broken / table.path[3]).write_bytes(b"no photograph")
    found = judged(trained, broken, tmp_path / "doubts.csv")
    assert len(found) == len(table) - 1 and table.image_id[3] not in set(found.image_id) and "not a readable image" in capsys.readouterr().err


@pytest.mark.parametrize("change, words", [
    (lambda own: {**own, "centres": own["centres"][:, :-1]}, "not those of"), (lambda own: {**own, "centres": own["centres"] * np.nan}, "no finite numbers"),
    (lambda own: {**own, "whale_id": own["whale_id"][[0] * len(own["whale_id"])]}, "needs whale_id"), (lambda own: {"whale_id": own["whale_id"]}, "centres"),
    (lambda own: {**own, "centres": own["centres"][..., :-1]}, "numbers"),
])
def test_sub_centres_that_are_none_are_refused_in_one_line(trained, data, tmp_path, change, words):
    shutil.copytree(trained, tmp_path / "weights")
    path = tmp_path / "weights" / "centres" / "one.npz"
    np.savez(path, **change(dict(np.load(path))))
    with pytest.raises(files.InputError, match=words) as refused:
        judged(tmp_path / "weights", data, tmp_path / "doubts.csv")
    assert "one.npz" in str(refused.value)


# Training without them

def test_a_training_leaves_out_the_first_rows_of_a_list_and_says_so(data, tmp_path):
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table[["image_id"]].iloc[::-1].to_csv(tmp_path / "doubts.csv", index=False)
    work = toying.write_recipe(tmp_path / "recipe.yaml", epochs=1)
    done = toying.train(work, data, tmp_path / "by list", "--without", tmp_path / "doubts.csv", "--most", 3)
    assert done.code == 0 and f"3 of {len(table)} photographs are left out" in done.stderr
    made = json.loads((tmp_path / "by list" / "provenance.json").read_text())
    assert (made["doubtful"], made["images"]) == (3, len(table) - 3) and sorted(made["doubtful_ids"]) == sorted(table.image_id[-3:])
    assert toying.train(work, altered(data, tmp_path / "fewer", lambda table: table[:-3]), tmp_path / "as if never there").code == 0
    one, other = (toying.result(tmp_path / name) for name in ("by list", "as if never there"))
    assert one == other


@pytest.mark.parametrize("most, left_out", [(0.1, 3), (0.5, 14), (7, 7), (None, 20)])
def test_a_share_is_one_of_the_labelled_photographs_and_without_a_number_the_whole_list_counts(data, tmp_path, most, left_out):
    table = sift.labelled(altered(data, tmp_path / "some", lambda table: table.assign(whale_id=table.whale_id.mask(table.index < 3, ""))))
    assert len(table) == 31
    table.image_id[:20].to_csv(tmp_path / "doubts.csv", index=False)
    assert sift.doubtful(table, data, tmp_path / "doubts.csv", most) == table.image_id[:left_out].tolist()


@pytest.mark.parametrize("content, more, words", [
    ("image_id\nnobody\n", [], "line 2: image_id 'nobody' is not in"), ("photograph\nx\n", [], "column 'image_id' is missing"), (None, [], "no such file"),
    ("all", [], "names 0 individuals"), ("image_id\n", ["--most", "0"], "neither a whole number"), ("image_id\n", ["--most", "1.5"], "neither a whole number"),
])
def test_a_list_that_cannot_be_left_out_is_refused_before_anything_is_trained(data, tmp_path, content, more, words):
    ids = pd.read_csv(data / "metadata.csv", dtype=str).image_id
    if content:
        (tmp_path / "doubts.csv").write_text("image_id\n" + "\n".join(ids) + "\n" if content == "all" else content)
    done = toying.train(toying.write_recipe(tmp_path / "recipe.yaml"), data, tmp_path / "weights", "--without", tmp_path / "doubts.csv", *more)
    assert done.code == 2 and words in done.stderr and not list(tmp_path.glob("weights/*"))


def test_how_many_without_a_list_is_refused(data, tmp_path):
    assert "give that table" in toying.train(toying.write_recipe(tmp_path / "recipe.yaml"), data, tmp_path / "weights", "--most", 3).line


def test_going_on_with_another_list_is_refused(data, tmp_path):
    ids = pd.read_csv(data / "metadata.csv", dtype=str).image_id
    ids[:2].to_csv(tmp_path / "two.csv", index=False)
    work = toying.write_recipe(tmp_path / "recipe.yaml", epochs=0)
    assert toying.train(work, data, tmp_path / "weights", "--without", tmp_path / "two.csv").code == 0
    assert toying.train(work, data, tmp_path / "weights", "--without", tmp_path / "two.csv", "--resume").code == 0
    assert "begun with another data" in toying.train(work, data, tmp_path / "weights", "--resume").line


# The page

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return toy_run.make(tmp_path_factory.mktemp("runs"))


def listed(run, fold, seed):
    """A doubts.csv of the fold's training photographs, as if judged."""
    table, random = pd.read_csv(run / "folds" / str(fold) / "train/metadata.csv", dtype=str), np.random.default_rng(seed)
    whales = np.unique(table.whale_id)
    other = whales[(np.searchsorted(whales, table.whale_id) + 1) % len(whales)]
    rows = table[["image_id", "path", "whale_id"]].assign(angle=random.uniform(20, 90, len(table)), other_whale_id=other, other_angle=60.0)
    rows = rows.assign(doubt=rows.angle - 60).sort_values("doubt", ascending=False)
    rows.to_csv(run / f"fold{fold}/doubts.csv", index=False)
    return rows


def test_the_page_shows_the_most_doubtful_with_their_whale_and_the_suggested_one(run, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "sections", lambda run, folds, against: [])  # which take seconds
    assert section.read(run, [0, 1]) is None
    tables = {fold: listed(run, fold, seed=fold) for fold in (0, 1)}
    found = section.read(run, [0, 1])
    together = pd.concat([table.assign(fold=fold) for fold, table in tables.items()]).sort_values("doubt", ascending=False)
    once = together.drop_duplicates("image_id")
    assert [row.tiles[0].image_id for row in found.rows] == once.image_id[: section.SHOWN].tolist()
    assert (found.photographs, found.nearer) == (len(once), int((once.doubt > 0).sum()))
    for row, asked in zip(found.rows, once.itertuples()):
        own = tables[asked.fold]
        for kind, whale in (("named", asked.whale_id), ("suggested", asked.other_whale_id)):
            others = own[(own.whale_id == whale) & (own.image_id != asked.image_id)].sort_values("doubt").image_id[: section.BESIDE]
            assert [tile.image_id for tile in row.tiles if tile.kind == kind] == others.tolist()
        assert all(tile.source.startswith("data:image/webp;base64,") for tile in row.tiles)
    text = report.report(run, tmp_path / "report.html").read_text("utf-8")
    assert text.count('class="strip doubts"') == len(found.rows) and "Photographs to look at again" in text and toy_run.HOSTILE not in text
    for fold in (0, 1):
        (run / f"fold{fold}/doubts.csv").unlink()
    assert "No list of doubtful photographs" in report.report(run, tmp_path / "none.html").read_text("utf-8")


def test_photographs_without_room_or_file_are_said_and_paths_of_the_list_are_not_followed(run, tmp_path, monkeypatch):
    rows = listed(run, 0, seed=0)
    rows.assign(path="/etc/passwd").to_csv(run / "fold0/doubts.csv", index=False)
    monkeypatch.setattr(section, "ROOM", 1)
    found = section.read(run, [0])
    sources = [tile.source for row in found.rows for tile in row.tiles]
    assert sources[0].startswith("data:") and None in sources
    pd.concat([rows.assign(image_id="stranger")[:1], rows]).to_csv(run / "fold0/doubts.csv", index=False)
    assert section.read(run, [0]).rows[0].tiles[0].source == ""
    (run / "fold0/doubts.csv").write_text("doubt,image_id\n1,x\n")
    with pytest.raises(Exception, match="column 'whale_id' is missing"):
        section.read(run, [0])
    (run / "fold0/doubts.csv").unlink()
