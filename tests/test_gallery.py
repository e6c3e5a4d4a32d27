"""Who is known: what a gallery and a classifier keep on disk, what they refuse, and what is added to them."""

import hashlib
import shutil

import numpy as np
import pandas as pd
import pytest

import toy
from solution import gallery
from solution.files import InputError
from test_embed import tiny


def unit_rows(n, d=4, seed=0):
    rows = np.random.default_rng([seed, n, d]).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def known(*names, n=5):
    texts = (np.array([f"{kind}{number}" for number in range(n)]) for kind in ("i", "w", "d"))
    return gallery.Gallery(*texts, {name: unit_rows(n, 3 + place) for place, name in enumerate(names or ("m",))})


def refusal(function, *arguments):
    with pytest.raises(InputError) as refused:
        function(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def table(*rows):
    return pd.DataFrame(rows, columns=["image_id", "whale_id", "digest"], dtype=object)


# On disk

def test_a_gallery_is_read_as_it_was_written_and_twice_to_the_same_bytes(tmp_path):
    before = known("one", "other")
    gallery.write(before, tmp_path / "a"), gallery.write(before, tmp_path / "b")
    after = gallery.read(tmp_path / "a", ["one", "other"])
    assert all(np.array_equal(getattr(before, key), getattr(after, key)) for key in ("image_id", "whale_id", "digest"))
    for name in ("one", "other"):
        np.testing.assert_allclose(after.embeddings[name], before.embeddings[name], atol=1e-6)
        file = tmp_path / "a" / "gallery" / f"{name}.npz"
        assert file.read_bytes() == (tmp_path / "b" / "gallery" / f"{name}.npz").read_bytes()
        with np.load(file, allow_pickle=False) as found:
            assert sorted(found.files) == ["digest", "embedding", "image_id", "whale_id"]


def test_a_gallery_of_half_precision_is_read_as_unit_rows_of_float32(tmp_path):
    before = known()
    gallery.write(gallery.Gallery(before.image_id, before.whale_id, before.digest, {"m": before.embeddings["m"].astype(np.float16)}), tmp_path)
    after = gallery.read(tmp_path, ["m"]).embeddings["m"]
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, before.embeddings["m"], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(after.astype(float), axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("change, words", [
    (lambda values: values.update(image_id=values["image_id"][::-1]), "gallery/other.npz: its photographs are not those of one"),
    (lambda values: values.update(whale_id=np.roll(values["whale_id"], 1)), "gallery/other.npz: its photographs are not those of one"),
    (lambda values: values.update(embedding=values["embedding"][1:]), "gallery/other.npz: needs image_id, whale_id and digest (m) and embedding (m, d)"),
    (lambda values: values.update(embedding=values["embedding"][:, 0]), "gallery/other.npz: needs image_id"),
    (lambda values: values.pop("digest"), "gallery/other.npz: array digest is missing"),
])
def test_galleries_that_do_not_fit_each_other_are_refused(change, words, tmp_path):
    gallery.write(known("one", "other"), tmp_path)
    file = tmp_path / "gallery" / "other.npz"
    with np.load(file) as found:
        values = dict(found)
    change(values)
    np.savez(file, **values)
    assert words in refusal(gallery.read, tmp_path, ["one", "other"])


def test_no_gallery_and_one_that_lacks_a_model_are_refused(tmp_path):
    assert "holds no gallery; train with" in refusal(gallery.read, tmp_path, ["m"])
    gallery.write(known(), tmp_path)
    assert "gallery/another.npz" in refusal(gallery.read, tmp_path, ["m", "another"])


def test_a_classifier_is_read_as_it_was_written_where_the_model_has_one(tmp_path):
    before = gallery.Classifier(np.array(["a", "b", "c"]), unit_rows(3, 6), np.arange(3, dtype=np.float32))
    gallery.write_classifier(before, tmp_path, "m")
    classifies, other = tiny("m", 0, 32, head={"total": True}), tiny("another", 0, 32, head={"total": True})
    after = gallery.read_classifier(tmp_path, classifies)
    assert all(np.array_equal(getattr(before, key), getattr(after, key)) for key in ("whale_id", "weight", "bias"))
    assert gallery.read_classifier(tmp_path, tiny("m", 0, 32)) is None
    assert "classifier/another.npz" in refusal(gallery.read_classifier, tmp_path, other)
    np.savez(tmp_path / "classifier" / "m.npz", whale_id=before.whale_id, weight=before.weight, bias=before.bias[1:])
    assert "classifier/m.npz: needs whale_id (k), weight (k, width) and bias (k)" in refusal(gallery.read_classifier, tmp_path, classifies)


def test_logits_are_of_the_mean_of_image_and_mirror_image():
    random = np.random.default_rng(0)
    weight, bias, plain, mirror = (random.normal(size=shape).astype(np.float32) for shape in ((3, 4), 3, (5, 4), (5, 4)))
    classifier = gallery.Classifier(np.array(list("abc")), weight, bias)
    for embeddings, means in (({"plain": plain}, plain), ({"plain": plain, "mirror": mirror}, (plain.astype(float) + mirror) / 2)):
        expected = [[sum(a * b for a, b in zip(row, one)) + float(number) for one, number in zip(weight.astype(float), bias)] for row in means]
        np.testing.assert_allclose(classifier.logits(embeddings), expected, atol=1e-5)


def test_unit_rows_join_image_and_mirror_image_as_the_recipe_says():
    plain, mirror = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    for way, joined in (("off", plain), ("average", plain + mirror), ("concatenate", np.hstack([plain, mirror]))):
        found = gallery.unit_rows(tiny("m", 0, 32, predict={"mirror": way, "weight": 3.0}), {"plain": plain, "mirror": mirror})
        np.testing.assert_allclose(found, joined / np.linalg.norm(joined, axis=1, keepdims=True), atol=1e-6)


# Which photograph is which

@pytest.fixture
def data(tmp_path):
    return toy.competition(tmp_path / "data", n_whales=4)


def rewrite(data, change):
    change(pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)).to_csv(data / "metadata.csv", index=False)
    return data


def test_a_photograph_is_known_by_its_bytes_and_its_box(data):
    plain = gallery.labelled(data)
    assert list(plain.digest) == [hashlib.sha256(open(path, "rb").read()).hexdigest()[:32] for path in plain.path]
    boxed = gallery.labelled(rewrite(data, lambda table: table.assign(x0="1", y0="2", x1=[str(20 + number) for number in range(len(table))], y1="30")))
    assert len({*plain.digest, *boxed.digest}) == 2 * len(plain)
    assert list(gallery.labelled(data).digest) == list(boxed.digest)


def test_one_that_is_not_there_has_no_digest_and_is_never_held(data):
    missing = data / pd.read_csv(data / "metadata.csv").path[2]
    missing.unlink()
    found = gallery.labelled(data)
    assert list(found.digest == "") == [number == 2 for number in range(len(found))]
    held = gallery.Gallery(found.image_id.to_numpy(str), found.whale_id.to_numpy(str), found.digest.to_numpy(str), {})
    assert list(np.flatnonzero(gallery.unseen(found, held))) == [2]


def test_a_gallery_needs_names_and_may_have_no_rows(data):
    with pytest.raises(InputError, match="column whale_id is missing; a gallery needs to know its individuals"):
        gallery.labelled(rewrite(data, lambda table: table.drop(columns="whale_id")))
    none = gallery.labelled(rewrite(data, lambda table: table.assign(whale_id="", x0="", y0="", x1="", y1="")[:0]))
    assert list(none.digest) == [] and list(gallery.unseen(none, known())) == []


def test_unseen_are_new_ids_and_new_bytes():
    asked = table(("i1", "", "d1"), ("i1b", "", "d1"), ("i2", "", "other"), ("i9", "", "d9"), ("i3", "", ""))
    assert list(gallery.unseen(asked, known())) == [False, True, True, True, True]


def test_what_is_added_comes_last_and_what_is_held_takes_the_new_name():
    before = known("one", "other")
    asked = table(("i9", "w9", "d9"), ("i1", "renamed", "d1"), ("i2", "", "d2"), ("i3", "w7", "changed"))
    rows = {name: unit_rows(2, before.embeddings[name].shape[1], seed=7) for name in ("one", "other")}
    after = gallery.enlarged(before, asked, rows)
    assert list(zip(after.image_id, after.whale_id, after.digest)) == [
        ("i0", "w0", "d0"), ("i1", "renamed", "d1"), ("i2", "", "d2"), ("i3", "w3", "d3"), ("i4", "w4", "d4"), ("i9", "w9", "d9"), ("i3", "w7", "changed")]
    for name in ("one", "other"):
        assert np.array_equal(after.embeddings[name], np.concatenate([before.embeddings[name], rows[name]]))
    assert list(before.whale_id) == ["w0", "w1", "w2", "w3", "w4"]


def test_an_enlarged_gallery_can_be_written_and_read(tmp_path):
    enlarged = gallery.enlarged(known(), table(("a longer id", "a_longer_name", "d9")), {"m": unit_rows(1, 3)})
    gallery.write(enlarged, tmp_path)
    after = gallery.read(tmp_path, ["m"])
    assert after.image_id[-1] == "a longer id" and after.whale_id[-1] == "a_longer_name" and len(after.embeddings["m"]) == 6


def test_copies_of_one_directory_hold_the_same_photographs(data, tmp_path):
    found, copy = gallery.labelled(data), gallery.labelled(shutil.copytree(data, tmp_path / "elsewhere"))
    held = gallery.Gallery(found.image_id.to_numpy(str), found.whale_id.to_numpy(str), found.digest.to_numpy(str), {})
    assert not gallery.unseen(copy, held).any()
