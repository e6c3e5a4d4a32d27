"""A catalogue that is built, asked and added to, against a plain loop; damaged, foreign and half-written ones."""

import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eval import outputs
from eval.benchmarks import search as benchmark
from solution import catalogue, fusion, inverted, joined, recipe, search
from solution.files import InputError, read_json, write_arrays, write_json

ROOT = Path(__file__).parents[1]
FEW = 300  # images above which FAISS is asked in these tests


def clustered(n, width=24, seed=0):
    """Photographs of 150 individuals, which are the same for all seeds."""
    individuals, random = np.random.default_rng(9).normal(size=(150, width)), np.random.default_rng(seed)
    return (individuals[random.integers(150, size=n)] + 0.6 * random.normal(size=(n, width))).astype(np.float32)


def saved(folder, prefix, *models, start=0, **predict):
    """Embeddings of images PREFIX0000... by models "a", "b"...; half of the numbers are the mirror images'."""
    for position, rows in enumerate(models):
        name, (plain, mirror) = "abc"[position], np.split(rows, 2, axis=1)
        write_arrays(folder / f"{name}.npz", image_id=np.array([f"{prefix}{k + start:04}" for k in range(len(rows))]), plain=plain, mirror=mirror)
        write_json(recipe.plain(recipe.Spec(name, position, recipe.Model("b"), predict=recipe.Predict(**predict))), folder / f"{name}.json")
    return folder


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["search", *map(str, words)])
    search.main()


def build(monkeypatch, tmp_path, *folders):
    command(monkeypatch, "build", "--embeddings", *folders, "--output", tmp_path / "index")
    return tmp_path / "index"


def ask(monkeypatch, index, folder, *options):
    output = index.with_name("answers.csv")
    command(monkeypatch, "ask", "--embeddings", folder, "--index", index, "--output", output, *options)
    return output


def add(monkeypatch, index, *folders):
    command(monkeypatch, "add", "--embeddings", *folders, "--index", index)


def refusal(function, *arguments):
    with pytest.raises(InputError) as refused:
        function(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def all_rows(*folders):
    """Image id -> all numbers of the image, of all models one after the other."""
    found = {}
    for folder in folders:
        files = [np.load(path) for path in sorted(folder.glob("*.npz"))]
        for number, image_id in enumerate(files[0]["image_id"]):
            found[str(image_id)] = np.concatenate([file[part][number] for file in files for part in ("plain", "mirror")]).astype(np.float64)
    return found


def naive(queries, database, top=20):
    """query -> [(image, cosine)...], by fsum and sorted()."""
    length = {**{name: math.sqrt(math.fsum(row * row)) for name, row in database.items()}, **{name: math.sqrt(math.fsum(row * row)) for name, row in queries.items()}}
    answers = {}
    for query, row in queries.items():
        cosines = {other: math.fsum(row * values) / length[query] / length[other] for other, values in database.items() if other != query}
        answers[query] = sorted(cosines.items(), key=lambda pair: (-round(pair[1], 6), pair[0]))[:top]
    return answers


def answers_of(path):
    return {query: list(zip(part.database_image_id, part.score)) for query, part in pd.read_csv(path, dtype={0: str, 1: str}).groupby("query_id", sort=False)}


def check_exact(path, queries, database, top=20):
    found, expected = answers_of(path), naive(queries, database, top)
    assert list(found) == list(expected)
    for query, answers in expected.items():
        assert [image for image, _ in found[query]] == [image for image, _ in answers]
        np.testing.assert_allclose([score for _, score in found[query]], [(1 + cosine) / 2 for _, cosine in answers], atol=2e-7)


def check_nearly(path, queries, database, recall=0.98):
    """Whatever is answered is true, in order and complete; nearly all of it is what a plain loop answers."""
    found, everything = answers_of(path), naive(queries, database, None)
    assert list(found) == list(everything)
    expected, cosines = ({query: kind(answers) for query, answers in everything.items()} for kind in (lambda answers: answers[:20], dict))
    for query, answers in found.items():
        assert len(answers) == 20 and query not in dict(answers)
        np.testing.assert_allclose([score for _, score in answers], [(1 + cosines[query][image]) / 2 for image, _ in answers], atol=2e-7)
        assert all(first[1] > second[1] for first, second in zip(answers, answers[1:]))
    hits = [len(dict(found[query]).keys() & dict(answers).keys()) / 20 for query, answers in expected.items()]
    assert np.mean(hits) >= recall


@pytest.fixture(params=["exact", "faiss"])
def kind(request, monkeypatch):
    if request.param == "faiss":
        needs_faiss(monkeypatch)
    return request.param


def needs_faiss(monkeypatch):
    pytest.importorskip("faiss", reason="FAISS is not installed")
    monkeypatch.setattr(catalogue, "EXACT", FEW)
    monkeypatch.setattr(inverted, "AWAY", 5), monkeypatch.setattr(inverted, "RERANKED", 1)  # so that few lists are opened, of few


def made(tmp_path, monkeypatch, n=1500):
    """An index of n photographs, and embeddings that ask: 30 new photographs and 10 of the index."""
    rows = clustered(n)
    database, new = saved(tmp_path / "database", "d", rows), clustered(30, seed=1)
    asking = saved(tmp_path / "asking", "q", np.concatenate([new, rows[:10]]))
    ids = np.array([f"q{k:04}" for k in range(30)] + [f"d{k:04}" for k in range(10)])
    write_arrays(asking / "a.npz", **dict(np.load(asking / "a.npz"), image_id=ids))
    return build(monkeypatch, tmp_path, database), database, asking


def test_shards_answer_as_the_whole_does(tmp_path, monkeypatch):
    whole, questions = saved(tmp_path / "whole", "d", clustered(60), clustered(60, seed=3)), saved(tmp_path / "queries", "q", clustered(8, seed=1), clustered(8, seed=4))
    for name in ("a", "b"):
        arrays = np.load(whole / f"{name}.npz")
        for number in (1, 2, 3):
            write_arrays(tmp_path / "shards" / f"{name}.{number}-of-3.npz", **{part: arrays[part][number - 1 :: 3] for part in arrays.files})
        shutil.copy(whole / f"{name}.json", tmp_path / "shards" / f"{name}.json")
    expected = ask(monkeypatch, build(monkeypatch, tmp_path, whole), questions).read_bytes()
    shutil.rmtree(tmp_path / "index")
    assert ask(monkeypatch, build(monkeypatch, tmp_path, tmp_path / "shards"), questions).read_bytes() == expected
    (tmp_path / "shards" / "b.3-of-3.npz").unlink()
    assert "of model b shard 3/3 is missing" in refusal(command, monkeypatch, "build", "--embeddings", tmp_path / "shards", "--output", tmp_path / "other")


# Asking

def test_a_small_catalogue_answers_as_a_plain_loop_does(tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch)
    check_exact(ask(monkeypatch, index, asking), all_rows(asking), all_rows(database))
    assert sorted(path.name for path in index.iterdir()) == ["ids-1.npz", "index.json", "rows.f32"]


def test_a_large_catalogue_answers_nearly_as_a_plain_loop_does_and_only_what_is_true(tmp_path, monkeypatch, capsys):
    needs_faiss(monkeypatch)
    index, database, asking = made(tmp_path, monkeypatch)
    check_nearly(ask(monkeypatch, index, asking), all_rows(asking), all_rows(database))
    found = catalogue.read(index).lists
    assert found.probes < found.lists and found.recall >= found.recall_least >= 0.99 and found.trained == 1500
    assert f"by {found.probes} of {found.lists} lists and {found.candidates} candidates: recall@20 {found.recall:.4f}" in capsys.readouterr().out


def test_an_index_is_reused_and_the_same_command_gives_the_same_bytes(kind, tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch)
    before = ask(monkeypatch, index, asking).read_bytes()
    shutil.move(index, tmp_path / "first")
    again = build(monkeypatch, tmp_path, database)
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in (tmp_path / "first").iterdir())
    shutil.rmtree(database)
    monkeypatch.setattr(inverted, "trained", None)
    assert ask(monkeypatch, again, asking).read_bytes() == before == ask(monkeypatch, again, asking).read_bytes()


def test_blocks_change_nothing(kind, tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=500)
    before = ask(monkeypatch, index, asking).read_bytes()
    for module, name, value in ((joined, "BLOCK", 24 * 4 * 101), (search, "QUERIES", 7)):
        monkeypatch.setattr(module, name, value)
    assert ask(monkeypatch, index, asking).read_bytes() == before
    shutil.rmtree(index)
    assert ask(monkeypatch, build(monkeypatch, tmp_path, database), asking).read_bytes() == before


def test_models_are_joined_as_for_a_ranking(tmp_path, monkeypatch):
    a, b = clustered(90), 30 * clustered(90, 10, seed=3)
    database = saved(tmp_path / "database", "d", a[:80], b[:80])
    asking = saved(tmp_path / "asking", "q", a[80:], b[80:])
    check_exact(ask(monkeypatch, build(monkeypatch, tmp_path, database), asking), all_rows(asking), all_rows(database))
    models = [(recipe.Predict(mirror="average", normalise=True, weight=2.0), np.load(database / f"{name}.npz")) for name in "ab"]
    whole = fusion.combined([(predict, dict(model)) for predict, model in models])
    saved(database, "d", a[:80], b[:80], mirror="average", normalise=True, weight=2.0)
    monkeypatch.setattr(joined, "BLOCK", 17 * 7)
    part = joined.parts_of(database)[0]
    assert np.array_equal(np.concatenate(list(part.blocks())), whole) and part.width == whole.shape[1]


def test_equal_photographs_are_ordered_by_id(kind, tmp_path, monkeypatch):
    rows = np.repeat(clustered(120), 5, axis=0)[np.random.default_rng(2).permutation(600)]
    database, asking = saved(tmp_path / "database", "d", rows), saved(tmp_path / "asking", "q", clustered(5, seed=1))
    path = ask(monkeypatch, build(monkeypatch, tmp_path, database), asking)
    check_exact(path, all_rows(asking), all_rows(database))


def test_a_photograph_of_the_catalogue_is_no_answer_to_itself_but_its_copy_is(kind, tmp_path, monkeypatch):
    rows = clustered(500)
    database, copies = saved(tmp_path / "database", "d", rows), saved(tmp_path / "copies", "c", rows)
    index = build(monkeypatch, tmp_path, database)
    for query, answers in answers_of(ask(monkeypatch, index, database)).items():
        assert query not in dict(answers) and len(answers) == 20
    assert all(answers[0][0] == query.replace("c", "d") for query, answers in answers_of(ask(monkeypatch, index, copies)).items())


@pytest.mark.parametrize("top", [1, 7, 90])
def test_more_or_fewer_answers_can_be_asked_for(kind, top, tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=600)
    found, expected = answers_of(ask(monkeypatch, index, asking, "--top", top)), naive(all_rows(asking), all_rows(database), top)
    assert all(len(answers) == top for answers in found.values())
    hits = [len(dict(found[query]).keys() & dict(answers).keys()) / top for query, answers in expected.items()]
    assert np.mean(hits) >= (1 if kind == "exact" else 0.97)


def test_where_the_opened_lists_hold_too_few_all_images_are_compared(tmp_path, monkeypatch):
    needs_faiss(monkeypatch)
    index, database, asking = made(tmp_path, monkeypatch)
    found = catalogue.read(index)
    catalogue.write(replace(found, lists=replace(found.lists, probes=1)), index)
    found, expected = answers_of(ask(monkeypatch, index, asking, "--top", 1400)), naive(all_rows(asking), all_rows(database), 1400)
    for query, answers in expected.items():
        assert len(dict(found[query])) == 1400
        np.testing.assert_allclose([score for _, score in found[query]], [(1 + cosine) / 2 for _, cosine in answers], atol=1e-6)


def test_a_catalogue_smaller_than_the_answers_gives_all_of_it(tmp_path, monkeypatch):
    database, asking = saved(tmp_path / "database", "d", clustered(3)), saved(tmp_path / "asking", "q", clustered(2, seed=1))
    check_exact(ask(monkeypatch, build(monkeypatch, tmp_path, database), asking), all_rows(asking), all_rows(database))


def test_images_without_an_embedding_are_like_nothing(kind, tmp_path, monkeypatch):
    rows = clustered(600)
    rows[[3, 50]] = np.nan
    database, asking = saved(tmp_path / "database", "d", rows), saved(tmp_path / "asking", "q", rows[:5])
    found = answers_of(ask(monkeypatch, build(monkeypatch, tmp_path, database), asking))
    assert all(len(answers) == 20 and not {"d0003", "d0050"} & dict(answers).keys() for query, answers in found.items() if query != "q0003")
    assert [score for _, score in found["q0003"]] == pytest.approx([0.5] * 20)


@pytest.mark.parametrize("width", [2, 6, 26, 258])
def test_rows_of_any_width_can_be_searched(width, tmp_path, monkeypatch):
    needs_faiss(monkeypatch)
    monkeypatch.setattr(inverted, "CODES", 64)  # as wide rows have it
    rows = clustered(440, width)
    database, asking = saved(tmp_path / "database", "d", rows[:400]), saved(tmp_path / "asking", "q", rows[400:])
    check_nearly(ask(monkeypatch, build(monkeypatch, tmp_path, database), asking), all_rows(asking), all_rows(database))


def test_where_the_recall_cannot_be_reached_all_images_are_compared(tmp_path, monkeypatch, capsys):
    needs_faiss(monkeypatch)
    monkeypatch.setattr(inverted, "RECALL", 1.01)
    index, database, asking = made(tmp_path, monkeypatch, n=600)
    assert "no number of lists and candidates reaches recall 1.01" in capsys.readouterr().err
    check_exact(ask(monkeypatch, index, asking), all_rows(asking), all_rows(database))


def test_the_recall_that_is_kept_is_the_share_of_the_exact_answers(tmp_path, monkeypatch):
    needs_faiss(monkeypatch)
    index, database, _ = made(tmp_path, monkeypatch, n=800)
    lists, ids = catalogue.read(index).lists, np.load(database / "a.npz")["image_id"]
    rows = all_rows(database)
    asked = {str(ids[row]): rows[str(ids[row])] for row in inverted.held_back(800)}
    opened = search.Opened(index, catalogue.read(index))
    numbers = opened.ids.rows_of(np.array(list(asked)))
    found, _ = opened.answers(opened.rows.mapped()[numbers], numbers, 20)
    hits = [len({image for image, _ in answers} & set(ids[row])) / 20 for answers, row in zip(naive(asked, rows).values(), found)]
    # how equal codes are ordered depends on how many candidates are wanted
    assert np.mean(hits) == pytest.approx(lists.recall, abs=2e-3) and lists.asked == len(hits) == 200
    assert 0.99 <= lists.recall_least <= np.mean(hits) - 1.96 * np.std(hits) / math.sqrt(200) + 2e-3 and lists.recall_new > lists.recall_least


def test_recall_counts_what_is_as_near_as_the_last_answer_and_ignores_what_is_taken_away(monkeypatch):
    monkeypatch.setattr(inverted, "TOP", 2), monkeypatch.setattr(inverted, "CANDIDATES", (2, 4))
    found = np.array([[0.9, 0.5, 0.8, 0.7, 0.6], [0.1, -np.inf, 0.9, 0.8, 0.3]])  # by their codes best first; -inf is the image itself
    exact = np.array([[0.9, 0.8, 0.7, 0.6], [0.9, 0.8, 0.3, 0.2]])
    known, new = (inverted.recalls(found, exact[:, away : away + 2], away) for away in (0, 2))
    assert [recall for recall, _ in known] == [0.5, 1.0]  # of two candidates 1/2 and 1/2, of four all
    assert [recall for recall, _ in new] == [0.5, 0.75]  # of two candidates .5 .7 and .1 .3, of four .5 .7 .6 and .1 .3
    assert new[1][1] == pytest.approx(0.75 - 1.96 * 0.25 / math.sqrt(2))


# Adding

def test_images_added_later_are_found(kind, tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=700)
    more = saved(tmp_path / "more", "m", clustered(40, seed=5)), saved(tmp_path / "most", "m", clustered(40, seed=6), start=40)
    add(monkeypatch, index, *more)
    check = check_exact if kind == "exact" else check_nearly
    check(ask(monkeypatch, index, asking), all_rows(asking), all_rows(database, *more))
    copies = saved(tmp_path / "copies", "c", clustered(40, seed=5))
    assert [answers[0][0] for answers in answers_of(ask(monkeypatch, index, copies)).values()] == [f"m{k:04}" for k in range(40)]
    assert catalogue.read(index).count == 780 and len(list(index.iterdir())) == (3 if kind == "exact" else 4)


def test_what_is_added_piece_by_piece_is_what_is_built_at_once(tmp_path, monkeypatch):
    rows = clustered(200)
    parts = [saved(tmp_path / f"part{k}", "d", rows[k : k + 50], start=k) for k in range(0, 200, 50)]
    index = build(monkeypatch, tmp_path, *parts)
    index.rename(tmp_path / "once")
    build(monkeypatch, tmp_path, parts[0])
    for part in parts[1:]:
        add(monkeypatch, index, part)
    assert (index / "rows.f32").read_bytes() == (tmp_path / "once" / "rows.f32").read_bytes()
    assert (index / "ids-4.npz").read_bytes() == (tmp_path / "once" / "ids-1.npz").read_bytes()


def test_a_catalogue_that_outgrows_exact_answers_gets_lists_and_new_ones_when_it_has_doubled(tmp_path, monkeypatch):
    needs_faiss(monkeypatch)
    rows, trained = clustered(1000), []
    parts = [saved(tmp_path / f"part{start}", "d", rows[start:stop], start=start) for start, stop in ((0, 250), (250, 450), (450, 600), (600, 1000))]
    index = build(monkeypatch, tmp_path, parts[0])
    for part in parts[1:]:
        trained.append(catalogue.read(index).lists and catalogue.read(index).lists.trained)
        add(monkeypatch, index, part)
    assert trained + [catalogue.read(index).lists.trained] == [None, 450, 450, 1000]
    asking = saved(tmp_path / "asking", "q", clustered(20, seed=1))
    check_nearly(ask(monkeypatch, index, asking), all_rows(asking), all_rows(*parts))


def test_an_image_is_added_once(tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=50)
    before = contents(index)
    more = saved(tmp_path / "more", "m", clustered(4))
    assert "image 'd0000' is there twice" in refusal(add, monkeypatch, index, more, database)
    assert "image 'm0000' is there twice" in refusal(add, monkeypatch, index, more, more)
    assert contents(index) == before


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("place", ["catalogue.write_arrays", "catalogue.with_lists", "inverted.fill", "catalogue.whole", "catalogue.write_json"])
def test_a_command_that_is_killed_leaves_the_old_index(place, tmp_path, monkeypatch):
    needs_faiss(monkeypatch)
    index, database, asking = made(tmp_path, monkeypatch, n=500)
    before, more = ask(monkeypatch, index, asking).read_bytes(), saved(tmp_path / "more", "m", clustered(40, seed=5))
    words = ["search", "add", "--embeddings", str(more), "--index", str(index)]
    code = (f"import os, sys; from solution import catalogue, inverted, search; catalogue.EXACT = {FEW}; sys.argv = {words}\n"
            f"{place} = lambda *_, **__: os.kill(os.getpid(), 9)\nsearch.main()")
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    assert ask(monkeypatch, index, asking).read_bytes() == before
    add(monkeypatch, index, more)
    check_nearly(ask(monkeypatch, index, asking), all_rows(asking), all_rows(database, more))
    assert sorted(contents(index)) == ["ids-2.npz", "index-2.faiss", "index.json", "rows.f32"]
    assert (index / "rows.f32").stat().st_size == 540 * 24 * 4


def test_an_addition_that_fails_leaves_the_old_index_as_it_was(tmp_path, monkeypatch):
    index, database, _ = made(tmp_path, monkeypatch, n=50)
    before, more = contents(index), saved(tmp_path / "more", "m", clustered(400))
    content = (more / "a.npz").read_bytes()
    (more / "a.npz").write_bytes(content[:-9000] + b"####" + content[-8996:])  # where it is noticed last
    assert "Bad CRC" in refusal(add, monkeypatch, index, more)
    assert contents(index) == before


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    database = saved(tmp_path / "database", "d", clustered(20))
    monkeypatch.setattr(catalogue, "write_json", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(monkeypatch, tmp_path, database)
    assert [path.name for path in tmp_path.iterdir()] == ["database"]


def test_two_do_not_add_at_once(tmp_path, monkeypatch):
    index, database, _ = made(tmp_path, monkeypatch, n=30)
    more = saved(tmp_path / "more", "m", clustered(4))
    with outputs.alone(index):  # of eval/, which holds it against solution/ in this process too
        assert f"{index}: another run is writing it" in refusal(add, monkeypatch, index, more)
    add(monkeypatch, index, more)


# What is refused

def test_embeddings_of_other_models_or_widths_are_refused(tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=30)
    two = saved(tmp_path / "two", "q", clustered(5), clustered(5))
    other = saved(tmp_path / "other", "q", clustered(5), mirror="average")
    wide = saved(tmp_path / "wide", "q", clustered(5, 26))
    for function, folder in ((ask, two), (add, two)):
        assert "two: embeddings by a, b, but those of the index are by a;" in refusal(function, monkeypatch, index, folder)
    assert "other/a.json: not the model of that name that the index has" in refusal(ask, monkeypatch, index, other)
    assert "wide: 26 numbers an image, but 24 in the index" in refusal(add, monkeypatch, index, wide)
    assert f"wide: 26 numbers an image, but 24 in {database}" in refusal(joined.joined, [database, wide])


def test_an_index_that_is_there_is_not_built_over_and_one_that_is_not_is_not_asked(tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=30)
    assert "is there already" in refusal(build, monkeypatch, tmp_path, database)
    assert "nowhere/index.json: no such file" in refusal(ask, monkeypatch, tmp_path / "nowhere", asking)
    assert "nowhere: no such directory" in refusal(add, monkeypatch, tmp_path / "nowhere", asking)


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "changed":
        content[len(content) // 2] ^= 1
    path.write_bytes(content) if how != "gone" else path.unlink()


@pytest.mark.parametrize("how, name, words", [
    ("cut", "ids-1.npz", "ids-1.npz: missing or not the"), ("gone", "ids-1.npz", "missing"), ("changed", "ids-1.npz", "ids-1.npz: damaged"),
    ("cut", "index-1.faiss", "index-1.faiss: missing or not the"), ("gone", "index-1.faiss", "missing"), ("changed", "index-1.faiss", "damaged, its SHA-256"),
    ("cut", "rows.f32", "rows.f32: holds"), ("gone", "rows.f32", "rows.f32: holds 0 bytes"),
    ("cut", "index.json", "index.json: not valid JSON"), ("gone", "index.json", "index.json: no such file"),
])
def test_a_damaged_index_is_refused(how, name, words, tmp_path, monkeypatch):
    needs_faiss(monkeypatch)
    index, _, asking = made(tmp_path, monkeypatch, n=400)
    damaged(index / name, how)
    before = contents(index)
    assert words in refusal(ask, monkeypatch, index, asking)
    assert words in refusal(add, monkeypatch, index, saved(tmp_path / "more", "m", clustered(4)))
    assert contents(index) == before


@pytest.mark.parametrize("value", [np.nan, 1e30, 3.0])
def test_rows_that_are_not_of_unit_length_are_told(kind, value, tmp_path, monkeypatch):
    index, database, asking = made(tmp_path, monkeypatch, n=400)
    rows = np.memmap(index / "rows.f32", np.float32, "r+", shape=(400, 24))
    rows[:] = value
    rows.flush()
    monkeypatch.setattr(catalogue.Rows, "fingerprint", lambda self: catalogue.read(index).rows)
    assert "rows.f32: damaged, it holds" in refusal(ask, monkeypatch, index, asking)


def test_rows_of_another_index_are_told(tmp_path, monkeypatch):
    index, _, asking = made(tmp_path, monkeypatch, n=300)
    index.rename(tmp_path / "first")
    other = build(monkeypatch, tmp_path, saved(tmp_path / "others", "d", clustered(300, seed=8)))
    shutil.copy(tmp_path / "first" / "rows.f32", other)
    assert "rows.f32: damaged or of another index" in refusal(ask, monkeypatch, other, asking)


def test_lists_that_are_not_what_they_are_said_to_be_are_told(tmp_path, monkeypatch):
    """The digests are right, so it is not damage."""
    needs_faiss(monkeypatch)
    import faiss

    index, _, asking = made(tmp_path, monkeypatch, n=400)
    for content, words in ((b"no index of FAISS", "cannot read it"), (faiss.serialize_index(faiss.IndexFlatIP(24)).tobytes(), "not the lists of these 400 images")):
        (index / "index-1.faiss").write_bytes(content)
        catalogue.write(replace(catalogue.read(index), faiss=catalogue.described(index / "index-1.faiss")), index)
        assert words in refusal(ask, monkeypatch, index, asking)


@pytest.mark.parametrize("key, value, words", [
    ("width", -1, "width"), ("width", 0, "width"), ("count", 0, "count"), ("count", "30", "count"), ("models", [{}], "name"), ("ids", None, "ids"), ("lists", None, None), ("owner", "me", "unknown key owner"),
    ("count", 31, "less than the"), ("count", 29, "instead of 29"), ("version", 7, "missing"),
])
def test_a_wrong_index_json_is_one_line(key, value, words, tmp_path, monkeypatch):
    index, _, asking = made(tmp_path, monkeypatch, n=30)
    write_json({**read_json(index / "index.json"), key: value}, index / "index.json")
    if words:
        assert words in refusal(ask, monkeypatch, index, asking)
    else:
        ask(monkeypatch, index, asking)


def test_without_faiss_small_catalogues_work_and_large_ones_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    index, database, asking = made(tmp_path, monkeypatch, n=400)
    check_exact(ask(monkeypatch, index, asking), all_rows(asking), all_rows(database))
    monkeypatch.setattr(catalogue, "EXACT", FEW)
    before, more = contents(index), saved(tmp_path / "more", "m", clustered(4))
    assert "python -m pip install faiss-cpu" in refusal(add, monkeypatch, index, more)
    assert contents(index) == before


# Reading embeddings in blocks

@pytest.mark.parametrize("write, dtype", [(np.savez, np.float32), (np.savez, np.float16), (np.savez, np.float64)])
def test_embeddings_however_stored_are_read_alike(write, dtype, tmp_path, monkeypatch):
    folder, rows = saved(tmp_path / "e", "d", clustered(50)), clustered(50).astype(dtype)
    write(folder / "a.npz", image_id=[f"x{k}" for k in range(50)], plain=rows[:, :12], mirror=rows[:, 12:])
    monkeypatch.setattr(joined, "BLOCK", 24 * 4 * 9)
    found = joined.parts_of(folder)[0]
    assert list(found.image_ids) == [f"x{k}" for k in range(50)] and len(found) == 50
    values = rows.astype(np.float64)
    np.testing.assert_allclose(np.concatenate(list(found.blocks())), values / np.linalg.norm(values, axis=1, keepdims=True), atol=1e-6)


def arrays_of(**changed):
    rows = clustered(6)
    return {"image_id": np.array([f"d{k}" for k in range(6)]), "plain": rows[:, :12], "mirror": rows[:, 12:], **changed}


@pytest.mark.parametrize("changed, words", [
    ({"plain": np.asfortranarray(clustered(6, 12))}, "array plain is not text or numbers row by row"),
    ({"image_id": np.array(list("abcdef"), object)}, "array image_id is not text or numbers"),
    ({"mirror": np.zeros((6, 11), np.float32)}, "needs unique image_id (n), plain (n, d) and mirror (n, d)"),
    ({"image_id": np.array(["a", "b"])}, "needs unique image_id"),
    ({"image_id": np.array([["a"]] * 6)}, "needs unique image_id"),
])
def test_embeddings_that_are_no_plain_arrays_are_refused(changed, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays_of(**changed))
    assert words in refusal(joined.parts_of, tmp_path)


def test_damaged_embeddings_are_refused(tmp_path, monkeypatch):
    assert "no embeddings here" in refusal(joined.parts_of, tmp_path)
    folder = saved(tmp_path / "e", "d", clustered(200), clustered(200))
    content = (folder / "b.npz").read_bytes()
    (folder / "b.npz").write_bytes(content[:-500])
    assert "b.npz: not a readable npz of plain arrays" in refusal(joined.parts_of, folder)
    (folder / "b.npz").write_bytes(content[:9000] + b"####" + content[9004:])
    assert "b.npz: not a readable npz of plain arrays: Bad CRC" in refusal(build, monkeypatch, tmp_path, folder)
    np.savez(folder / "b.npz", image_id=np.array(["a"]), plain=np.zeros((1, 2)))
    assert "b.npz: not a readable npz of plain arrays: array mirror is missing" in refusal(joined.parts_of, folder)
    saved(folder, "other", clustered(200))
    saved(tmp_path / "f", "d", clustered(200), clustered(200))
    shutil.copy(tmp_path / "f" / "b.npz", folder)
    assert "b.npz: its images are not those of" in refusal(joined.parts_of, folder)
    np.savez(tmp_path / "f" / "a.npz", **arrays_of(image_id=np.array(list("abcdea"))))
    (tmp_path / "f" / "b.npz").unlink()
    assert "image 'a' is there twice" in refusal(build, monkeypatch, tmp_path, tmp_path / "f")


def test_a_catalogue_of_nothing_is_refused(tmp_path, monkeypatch):
    saved(tmp_path / "none", "d", clustered(0))
    assert "hold no images" in refusal(build, monkeypatch, tmp_path, tmp_path / "none")


def test_the_commands_say_what_they_need_in_one_line(tmp_path):
    run = lambda *words: subprocess.run([sys.executable, "-m", "solution.search", *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    done = run("ask", "--embeddings", tmp_path, "--index", tmp_path / "no", "--output", tmp_path / "a.csv")
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path}/no/index.json: no such file\n" and done.stdout == ""
    assert "example: python -m solution.search ask" in run("ask", "--help").stdout
    assert "1 or more" in run("ask", "--embeddings", tmp_path, "--index", tmp_path, "--output", "a", "--top", "0").stderr


# The benchmark

def test_exact_answers_of_the_benchmark_are_those_of_a_plain_loop(monkeypatch):
    monkeypatch.setattr(benchmark, "BLOCK", 64)
    monkeypatch.setattr(benchmark, "FIRST", 32)
    world = benchmark.World(2000, 16)
    queries, rows = world.photographs(5, [1], 0.5), world.photographs(300, [2])
    exact = benchmark.Exact(queries)
    for start in (0, 170):
        exact.see(rows[start : start + 170], start)
    for query, images, cosines in zip(queries.tolist(), exact.images, exact.cosines):
        expected = sorted(((math.fsum(a * b for a, b in zip(query, row)), number) for number, row in enumerate(rows.tolist())), reverse=True)[:20]
        assert images.tolist() == [number for _, number in expected]
        np.testing.assert_allclose(cosines, [cosine for cosine, _ in expected], atol=1e-6)
    assert np.array_equal(world.photographs(5, [1], 0.5), queries) and np.allclose(np.linalg.norm(rows, axis=1), 1)


def test_the_benchmarks_recall_is_the_share_of_the_exact_answers():
    expected, answers = np.arange(40).reshape(2, 20), np.arange(40).reshape(2, 20)[:, ::-1].copy()
    assert benchmark.recall(answers, expected) == 1
    answers[1, :5] += 1000
    assert benchmark.recall(answers, expected) == pytest.approx((1 + 0.75) / 2) and benchmark.recall(answers, expected, np.min) == 0.75


def test_the_benchmark_builds_asks_and_adds(tmp_path):
    words = ["--images", 3000, "--width", 32, "--queries", 25, "--repeats", 1, "--json", tmp_path / "s.json"]
    done = subprocess.run([sys.executable, "-m", "eval.bench", "search", *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == json.loads((tmp_path / "s.json").read_text()) and told["benchmark"] == "search"
    assert told["recall"] == told["recall_after_adding"] == told["added_found"] == told["recall_worst_query"] == 1 and told["lists"] is None
    assert "3000 images of 32 numbers" in done.stdout and all(told[key] > 0 for key in ("ratio", "build_seconds", "ask_peak_mb", "index_mb"))


@pytest.mark.slow
def test_of_200_000_photographs_99_in_100_are_found(tmp_path):
    pytest.importorskip("faiss", reason="FAISS is not installed")
    done = subprocess.run([sys.executable, "-m", "eval.bench", "search", "--images", "200000", "--queries", "500", "--repeats", "1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["recall"] >= 0.99 and told["added_found"] == 1 and told["lists"]["recall_least"] >= 0.99
    assert max(told["build_peak_mb"], told["ask_peak_mb"]) < 2000
