"""Weights, galleries, embeddings, caches and pretrained files from a stranger: refused in a line, nothing run, no more memory than they have bytes."""

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import hostile
import toy_names
from hostile import Member, Payload, bounded, bounded_each, npy, payload, write_zip
from solution import gallery, joined, kept, models, naming, npz, rank, recipe, shards, weights
from solution.files import InputError, arrays, write_arrays
from test_embed import ensemble, tiny

GOOD = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "ids": np.array(["x", "yé"]), "n": np.array(7), "none": np.empty((0, 5), np.float16)}


def saved(path, write=np.savez, **values):
    write(path, **values)
    return path


def refused(function, *arguments):
    told = bounded(function, *arguments)
    assert told, "it was not refused"
    return told


def all_refused(calls, words):
    """Each is refused, in one process of little memory, with some of the words."""
    for name, told in bounded_each(calls).items():
        assert any(word in told for word in words), (name, told)


def line(function, *arguments):
    """What is refused without a look at the memory it takes, as there are no sizes in it that could lie."""
    with pytest.raises(InputError) as told:
        function(*arguments)
    assert str(told.value).isprintable() and len(str(told.value)) < 1000
    return str(told.value)


# Npz files

MARKER = "MARKER"  # stands for a folder that the payload would make
HEADERS = {
    "a trillion numbers": npy(shape="(1000000000000,)"),
    "a product of a trillion": npy(shape="(1000000, 1000000)"),
    "a product that is 0 in 64 bits": npy(shape="(4611686018427387904, 4)"),
    "a product that is 3 in 64 bits": npy(shape="(6148914691236517205, 9)"),
    "no numbers but a huge side": npy(shape="(0, 1000000000000000000000)", data=b""),
    "a negative side": npy(shape="(-1,)"),
    "two negative sides": npy(shape="(-3, -1)"),
    "a shape that is no tuple": npy(shape="3"),
    "a shape of floats": npy(shape="(3.0,)"),
    "a shape that is true": npy(shape="(True, 3)"),
    "a shape of seventy sides": npy(shape="(" + "1, " * 70 + "3)"),
    "a shape as Python 2 wrote it": npy(shape="(3L,)"),
    "objects": npy(descr="'|O'", data=pickle.dumps([1])),
    "void": npy(descr="'|V4'"),
    "complex": npy(descr="'<c8'", shape="(1,)", data=bytes(8)),
    "times": npy(descr="'<M8[s]'", shape="(1,)", data=bytes(8)),
    "bytes": npy(descr="'|S4'"),
    "fields": npy(descr="[('a', '<f4')]"),
    "an array of arrays": npy(descr="('<f4', (1000000000,))", shape="(1,)", data=bytes(4)),
    "arrays in a word": npy(descr="'(1000000000,)<f4'", shape="(1,)", data=bytes(4)),
    "the other byte order": npy(descr="'>f4'"),
    "128 bits": npy(descr="'<f16'", shape="(1,)", data=bytes(16)),
    "a trillion empty texts": npy(descr="'<U0'", shape="(1000000000000,)", data=b""),
    "text of no characters": npy(descr="'<U1'", data=b"\xff" * 12),
    "half a surrogate pair": npy(descr="'<U1'", shape="(1,)", data=struct.pack("<I", 0xD800)),
    "a type that is none": npy(descr="'<q9'"),
    "code for a shape": npy(shape=f"__import__('os').mkdir({MARKER!r})"),
    "code for a header": npy(header=f"__import__('os').mkdir({MARKER!r}) or {{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }}"),
    "five hundred brackets": npy(header="(" * 500 + ")" * 500),
    "nine hundred signs": npy(shape="(" + "-" * 900 + "3,)"),
    "no header": npy(header=""),
    "a header longer than the file": npy(length=60_000),
    "a header of four gigabytes": npy(version=b"\2\0", length=2**32 - 1),
    "a header of the third kind": npy(version=b"\3\0"),
    "an older kind": npy(version=b"\0\0"),
    "too few numbers": npy(data=bytes(11)),
    "too many numbers": npy(data=bytes(13)),
    "a pickle": payload(Path(MARKER)),
    "nothing": b"",
    "its magic alone": b"\x93NUMPY\1\0",
}


def test_an_array_that_is_not_what_its_header_tells_is_refused(tmp_path):
    contents = {name: content.replace(MARKER.encode(), str(tmp_path / "ran").encode()) if "code" in name else content for name, content in HEADERS.items()}
    calls = {name: (arrays, write_zip(tmp_path / f"{name}.npz", Member("a.npy", content))) for name, content in contents.items()}
    all_refused(calls, ["npz: not a readable npz of plain arrays: "])
    assert not (tmp_path / "ran").exists()


def test_a_header_of_a_hundred_megabytes_is_not_parsed(tmp_path):
    path = write_zip(tmp_path / "m.npz", Member("a.npy", npy(header="[" * 100_000_000, version=b"\2\0")))
    assert "not text or numbers" in refused(arrays, path)


PLAIN = npy()
PACKED, SIZE = hostile.zeros()
ZIPS = {
    "a bomb": [Member("a.npy", PACKED, hostile.DEFLATED, size=SIZE)],
    "by another method, of a dictionary of four gigabytes": [Member("a.npy", b"\x09\x04\x05\x00\x5d\xff\xff\xff\xff" + bytes(200), 14)],
    "deflated": [Member("a.npy", b"\x03\x00", hostile.DEFLATED, size=0)],
    "encrypted": [Member("a.npy", PLAIN, flags=1)],
    "with a terabyte": [Member("a.npy", npy(shape="(274877906944,)"), size=128 + (1 << 40), packed=128 + (1 << 40))],
    "with more than it holds": [Member("a.npy", npy(shape="(1000000,)"), size=128 + 4_000_000, packed=128 + 4_000_000)],
    "with unequal sizes": [Member("a.npy", PLAIN, size=len(PLAIN) + 8)],
    "twice": [Member("a.npy", PLAIN), Member("a.npy", npy(data=b"\1" * 12))],
    "twice in one place": [Member("a.npy", PLAIN), Member("b.npy", PLAIN, offset=0)],
    "ten thousand times in one place": [Member("a.npy", PLAIN)] + [Member(f"b{number}.npy", PLAIN, offset=0) for number in range(10_000)],
    "a hundred thousand times": [Member(f"a{number}.npy", PLAIN) for number in range(100_000)],
    "of another name in its header": [Member("a.npy", PLAIN, local={"name": b"b.npy"})],
    "with another sum": [Member("a.npy", PLAIN, crc=1)],
    "below": [Member("../../a.npy", PLAIN)],
    "absolute": [Member("/a.npy", PLAIN)],
    "with a zero byte": [Member("a.npy\0b.npy", PLAIN)],
    "on two lines": [Member("a\nb.npy", PLAIN)],
    "of another kind": [Member("a.txt", PLAIN)],
    "for the words of a function": [Member("file.npy", PLAIN)],
    "beyond the end": [Member("a.npy", PLAIN, offset=10_000)],
    "with a broken addition": [Member("a.npy", PLAIN, extra=struct.pack("<HH", 1, 60_000), size=2**32 - 1, packed=2**32 - 1)],
}


def test_a_zip_that_is_not_what_it_tells_is_refused(tmp_path):
    all_refused({name: (arrays, write_zip(tmp_path / f"{name}.npz", *members)) for name, members in ZIPS.items()}, ["npz: not a readable npz of plain arrays: "])


@pytest.mark.parametrize("end", [{"size": 2**32 - 1}, {"size": 2**31}, {"offset": 2**31}, {"offset": 2**32 - 1}, {"size": 1}, {"size": 0, "offset": 0, "entries": 5}])
def test_a_zip_whose_end_lies_is_refused_or_holds_what_it_did(end, tmp_path):
    path = write_zip(tmp_path / "m.npz", Member("a.npy", PLAIN), end=end)
    told = bounded(lambda: arrays(path) and None)
    assert told or {name: values.tolist() for name, values in arrays(path).items()} in ({"a": [0, 0, 0]}, {})


def test_sizes_in_local_headers_change_nothing_and_what_stands_behind_is_refused(tmp_path):
    path = write_zip(tmp_path / "m.npz", Member("a.npy", PLAIN, local={"size": 1 << 31, "packed": 7, "crc": 9}))
    assert arrays(path)["a"].tolist() == [0, 0, 0]
    assert "its end does not tell" in line(arrays, write_zip(tmp_path / "m.npz", Member("a.npy", PLAIN), after=b"more"))
    assert "its end does not tell" in line(arrays, write_zip(tmp_path / "m.npz", Member("a.npy", PLAIN), end={"entries": 2}))


def test_what_is_no_plain_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz"), (tmp_path / "folder.npz").mkdir()
    for name, target in (("device", "/dev/zero"), ("to_pipe", "pipe.npz"), ("nowhere", "absent"), ("round", "round.npz")):
        (tmp_path / f"{name}.npz").symlink_to(target)
    all_refused({path.name: (arrays, path) for path in tmp_path.iterdir()}, ["no such file", "is no plain file"])
    (tmp_path / "p.npz").write_bytes(payload(tmp_path / "ran"))
    saved(tmp_path / "o.npz", a=np.array([Payload(tmp_path / "ran")], object))
    np.save(tmp_path / "y.npy", np.zeros(3))
    shutil.move(tmp_path / "y.npy", tmp_path / "y.npz")
    assert all("not a readable npz" in refused(arrays, tmp_path / f"{name}.npz") for name in "poy") and not (tmp_path / "ran").exists()


def test_what_the_project_writes_is_read_as_it_was(tmp_path):
    more = {"columns": np.asfortranarray(GOOD["a"]), "small": np.arange(3, dtype=np.uint8), "truth": np.array([True]), "optimiser/0/step": np.float32(1), "long": np.array(["é" * 1000])}
    found = arrays(write_arrays(tmp_path / "m.npz", **GOOD, **more))
    assert list(found) == [*GOOD, *more]
    for name, values in {**GOOD, **more}.items():
        assert found[name].dtype == values.dtype and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], values)
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "m.npz")
    assert list(arrays(link)) == list(found)


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path):
    content = write_arrays(tmp_path / "m.npz", **GOOD).read_bytes()
    random, told = np.random.default_rng(0), 0
    for place in random.choice(len(content), 400, replace=False):
        path = tmp_path / "changed.npz"
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << random.integers(8))]) + content[place + 1:])
        try:
            found = arrays(path)
        except InputError:
            told += 1
            continue
        assert {name: (values.dtype, values.shape, values.tobytes()) for name, values in found.items()} == {name: (values.dtype, values.shape, values.tobytes()) for name, values in GOOD.items()}
    assert 200 < told < 400  # the rest are times, modes and comments, which nobody reads


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = write_arrays(tmp_path / "m.npz", **GOOD)
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="m.npz: not a readable npz"):
            arrays(path)


def test_embeddings_that_are_read_in_blocks_are_held_to_the_same(tmp_path):
    for name in ("a trillion numbers", "objects", "a pickle", "a header of four gigabytes", "text of no characters"):
        path = write_zip(tmp_path / "m.npz", *(Member(f"{part}.npy", HEADERS[name]) for part in shards.PARTS))
        assert "m.npz: not a readable npz" in refused(joined.parts_of, tmp_path)
    write_zip(tmp_path / "m.npz", Member("image_id.npy", PACKED, hostile.DEFLATED, size=SIZE), Member("plain.npy", PLAIN), Member("mirror.npy", PLAIN))
    assert "is compressed" in refused(joined.parts_of, tmp_path)


@pytest.mark.parametrize("changed", [
    {"image_id": np.array("x")}, {"image_id": np.array([["x"], ["y"]])}, {"plain": np.array(1.0)}, {"plain": np.array(["a", "b"]), "mirror": np.array(["a", "b"])},
    {"plain": np.array([["a"], ["b"]]), "mirror": np.array([["a"], ["b"]])}, {"plain": np.zeros((2, 3, 4)), "mirror": np.zeros((2, 3, 4))},
    {"plain": np.ones((2, 3), bool), "mirror": np.ones((2, 3), bool)}, {"mirror": np.zeros((2, 5))}, {"image_id": np.array(["x", "x"])}, {"plain": np.zeros((3, 4))},
], ids=str)
def test_embeddings_that_are_no_numbers_of_images_are_refused(changed, tmp_path):
    values = {"image_id": np.array(["x", "y"]), "plain": np.ones((2, 4)), "mirror": np.ones((2, 4)), **changed}
    saved(tmp_path / "whole" / "m.npz" if (tmp_path / "whole").mkdir() is None else None, **values)
    assert "needs unique image_id" in line(rank.read_embeddings, tmp_path / "whole", None)
    if values["image_id"].tolist() != ["x", "x"]:
        told = line(joined.parts_of, tmp_path / "whole")
        assert "needs unique image_id" in told or "is not text or numbers" in told


def test_embeddings_that_a_report_maps_are_held_to_their_size(tmp_path):
    from eval.page import embedding_map

    os.mkfifo(tmp_path / "pipe.npz")
    write_zip(tmp_path / "bomb.npz", Member("image_id.npy", PACKED, hostile.DEFLATED, size=SIZE))
    names = ("a trillion numbers", "a product that is 0 in 64 bits", "objects", "a pickle", "five hundred brackets", "a header of four gigabytes", "text of no characters")
    for number, name in enumerate(names):
        write_zip(tmp_path / f"{number}.npz", *(Member(f"{part}.npy", HEADERS[name]) for part in shards.PARTS))
    all_refused({path.name: (embedding_map.of_model, path) for path in tmp_path.iterdir()}, ["not embeddings (image_id, plain, mirror)"])


# Weights and what goes with them

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return ensemble(tmp_path_factory.mktemp("weights"), tiny("m", 0, 32))


def with_spec(trained, folder, **model):
    """The same weights under a spec with other values."""
    shutil.copytree(trained, folder)
    table = json.loads((folder / "m.json").read_text())
    table["model"].update(model)
    (folder / "m.json").write_text(json.dumps(table))
    return folder


@pytest.mark.parametrize("model, words", [
    ({"backbone": "resnetv2_152x4_bit"}, "array "), ({"backbone": "coatnet_5_224", "stages": [3]}, "array "), ({"part_width": 60_000}, "array "),
    ({"part_width": 1 << 40}, "model.part_width is"), ({"parts": 1 << 40, "cut": "branches"}, "model.parts is"), ({"stages": [0, 1, 2, 3, 4]}, "array "),
    ({"backbone": "../../x"}, "has no '../../x'"), ({"backbone": "hf-hub:timm/x"}, "has no 'hf-hub"), ({"backbone": "os.mkdir"}, "has no"),
])
def test_a_spec_that_asks_for_more_than_its_arrays_takes_no_memory(model, words, trained, tmp_path):
    folder = with_spec(trained, tmp_path / "weights", **model)
    assert words in refused(lambda: models.load(recipe.read_spec(folder / "m.json"), folder))


@pytest.mark.parametrize("change, words", [
    (lambda table: table.update(name="../../x"), "holds the spec of a model named '../../x'"), (lambda table: table.update(more=1), "unknown key more"),
    (lambda table: table["train"].update(size=1 << 30), "train.size is"), (lambda table: table.update(position="0"), "position is"),
    (lambda table: table.update(model=[]), "model is"), (lambda table: table["model"].update(mean=[0.5, float("nan"), 0.5]), "m.json"),
])
def test_a_spec_that_is_none_is_refused(change, words, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "weights")
    path = tmp_path / "weights" / "m.json"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    assert words in line(recipe.specs, tmp_path / "weights")


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a":' * 200_000, b"1" * 100_000, b"\xff", b"", b"null", b"NaN", b'{"name": 1e999}'])
def test_json_that_is_a_bomb_or_none_is_refused(content, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "weights")
    (tmp_path / "weights" / "m.json").write_bytes(content)
    assert "m.json" in line(recipe.specs, tmp_path / "weights")


@pytest.mark.parametrize("name, value, words", [
    ("necks.0.0.weight", lambda old: old.astype("U"), "holds <U"), ("necks.0.0.weight", lambda old: np.full_like(old, np.nan), "not finite"),
    ("necks.0.0.weight", lambda old: np.full_like(old, np.inf), "not finite"), ("necks.0.0.weight", lambda old: old[None], "has shape"),
    ("necks.0.0.weight", lambda old: old > 0, "holds bool"), ("more", lambda old: np.zeros(1), "array more is not part"), ("a.b", lambda old: np.zeros((0, 10**9)), "array a.b is not part"),
])
def test_arrays_that_do_not_belong_are_refused_by_name(name, value, words, trained, tmp_path):
    values = arrays(trained / "m.npz")
    write_arrays(tmp_path / "m.npz", **{**values, name: value(values["necks.0.0.weight"])})
    assert words in line(lambda: models.load(recipe.read_spec(trained / "m.json"), tmp_path))


def test_array_names_that_are_words_of_a_function_do_not_reach_it(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "weights")
    for name in npz.RESERVED:
        with zipfile.ZipFile(tmp_path / "weights" / "m.npz", "a") as file:
            file.writestr(f"{name}.npy", npy())
    done = subprocess.run([sys.executable, "-m", "submission.pack", "--weights", tmp_path / "weights", "--output", tmp_path / "s.zip"], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "is no name of an array" in done.stderr and not (tmp_path / "s.zip").exists()


# Galleries, classifiers and identify.json

@pytest.fixture(scope="module")
def named(tmp_path_factory):
    return toy_names.fold(tmp_path_factory.mktemp("named"), toy_names.striped("m", 0, 64))


def asked(folder, further=None):
    """Names by some weights for photographs, of embeddings that are drawn."""
    specs = recipe.specs(folder / "weights")
    table = gallery.labelled(folder / "train").head(3)[["image_id", "path"]]
    naming_of = naming.Naming(folder / "weights", specs, table, further)
    rows = {"plain": np.random.default_rng(0).normal(size=(len(naming_of.table), 16)).astype(np.float32)}
    return naming_of.answers(specs, {"m": rows}, set())


def changed(named, tmp_path, part, **values):
    """The fold with other arrays in weights/PART."""
    shutil.copytree(named, tmp_path / "fold")
    path = tmp_path / "fold" / "weights" / part / "m.npz"
    held = arrays(path)
    write_arrays(path, **{**held, **{name: value(held[name]) if callable(value) else value for name, value in values.items()}})
    return tmp_path / "fold"


def test_names_are_given_where_all_fits(named):
    submission, chances = asked(named)
    assert len(submission) == 3 and chances.probability.between(0, 1).all()


@pytest.mark.parametrize("part, values, words", [
    ("gallery", {"embedding": lambda old: old[:, :5]}, "embeddings of 5 numbers, the model gives 16"),
    ("gallery", {"embedding": lambda old: old[0]}, "needs image_id, whale_id and digest (m) and embedding (m, d)"),
    ("gallery", {"embedding": lambda old: old.astype("U8")}, "gallery/m.npz"),
    ("gallery", {"embedding": lambda old: old * np.float32(np.nan)}, "no finite number"),
    ("gallery", {"whale_id": lambda old: old[0]}, "array whale_id is no list of text"),
    ("gallery", {"digest": lambda old: np.arange(len(old))}, "array digest is no list of text"),
    ("gallery", {"image_id": lambda old: old[:, None]}, "array image_id is no list of text"),
    ("gallery", {"whale_id": lambda old: np.char.add(old, " b c d e f")}, "no name that can stand in a submission"),
    ("gallery", {"whale_id": lambda old: np.char.add(old, "\nx,y")}, "no name that can stand in a submission"),
    ("gallery", {"whale_id": lambda old: np.full(len(old), "new_whale")}, "no name that can stand in a submission"),
    ("classifier", {"weight": lambda old: old[:, :5]}, "weights for 5 numbers, the model gives 16"),
    ("classifier", {"weight": lambda old: old[0]}, "needs whale_id (k), weight (k, width) and bias (k)"),
    ("classifier", {"bias": lambda old: old[:, None]}, "needs whale_id (k), weight (k, width) and bias (k)"),
    ("classifier", {"bias": np.float32(0)}, "needs whale_id (k), weight (k, width) and bias (k)"),
    ("classifier", {"bias": lambda old: old + np.float32(np.inf)}, "no finite number"),
    ("classifier", {"whale_id": lambda old: np.arange(len(old))}, "array whale_id is no list of text"),
    ("classifier", {"whale_id": lambda old: np.where(np.arange(len(old)) == 0, "", old)}, "needs whale_id (k), weight (k, width) and bias (k)"),
    ("classifier", {"whale_id": lambda old: np.char.add("a ", old)}, "no name that can stand in a submission"),
])
def test_a_gallery_or_a_classifier_that_does_not_fit_is_refused(part, values, words, named, tmp_path):
    assert words in line(asked, changed(named, tmp_path, part, **values))


def test_a_further_gallery_meets_one_of_another_width_in_one_line(named, tmp_path):
    folder = changed(named, tmp_path, "gallery", embedding=lambda old: old[:, :5], digest=lambda old: np.char.add("other", old))
    assert "embeddings of 5 numbers, the model gives 16" in line(asked, folder, folder / "train")


@pytest.mark.parametrize("key, value, words", [
    ("temperature", 1e300, "temperature is"), ("scale", 1e300, "scale is"), ("bias", -1e300, "bias is"), ("theta_p", float("nan"), "identify.json"), ("c3", -1, "c3 is"),
    ("columns", ["Image", "Image"], "columns is"), ("columns", ["a", "b", "c"], "columns is"), ("new", "two words", "new is"), ("new", "", "new is"), ("nearest", [1], "nearest is"),
    ("new", "WHALE", "which is an individual of the gallery"), ("more", 1, "unknown key more"), ("n_queries", "7", "n_queries is"),
])
def test_an_identify_json_that_could_not_be_used_is_refused(key, value, words, named, tmp_path):
    shutil.copytree(named, tmp_path / "fold")
    path = tmp_path / "fold" / "weights" / "identify.json"
    whale = next(filter(None, arrays(tmp_path / "fold" / "weights" / "gallery" / "m.npz")["whale_id"].tolist()))
    path.write_text(json.dumps({**json.loads(path.read_text()), key: whale if value == "WHALE" else value}))
    assert words in line(asked, tmp_path / "fold")


# Caches

@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.keep("onnx", "key", b"graph", kept.Bounds(9, 1 << 20))
    return kept.folder("onnx")


def test_a_kept_file_that_others_could_change_or_have_put_there_does_not_come_back(room, monkeypatch):
    path = room / "key"
    assert kept.read("onnx", "key") == b"graph"
    os.chmod(path, 0o666)
    assert kept.read("onnx", "key") is None
    os.chmod(path, 0o644)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        assert kept.read("onnx", "key") is None
    path.unlink(), os.mkfifo(path)
    assert bounded(lambda: kept.read("onnx", "key")) == "" and kept.read("onnx", "key") is None
    path.unlink(), path.symlink_to("/dev/zero")
    assert kept.read("onnx", "key") is None


def test_a_graph_that_is_kept_is_not_taken_without_its_digest(room):
    for content in (b"", b"graph", bytes(32) + b"graph", kept.digest("other", b"graph") + b"graph"):
        (room / "key").write_bytes(content)
        assert kept.read("onnx", "key") is None


def test_another_users_measurements_and_interpreters_are_not_used(tmp_path, monkeypatch):
    from eval.files import InputError as Refused
    from submission import cache, runtime

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cached("m.json", lambda: {"a": 1}) == cache.cached("m.json", lambda: {"a": 2}) == {"a": 1}
    monkeypatch.setattr(runtime, "make", lambda home: home.mkdir())
    runtime.python_of("drivendata")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert cache.cached("m.json", lambda: {"a": 2}) == {"a": 2}
    with pytest.raises(Refused, match="belongs to another user"):
        runtime.python_of("drivendata")


# Pretrained files

def state_of(path):
    weights.file_state(path)


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def gadgets(marker):
    """What unpickling could be made to call, by kind."""
    code = f"__import__('os').mkdir({str(marker)!r})"
    return {
        "system": Call(os.system, f"mkdir {marker}"), "mkdir": Call(os.mkdir, str(marker)), "eval": Call(eval, code), "exec": Call(exec, code),
        "import": Call(__import__, "os"), "getattr": Call(getattr, "x", "join"), "run": Call(subprocess.run, ["mkdir", str(marker)]),
        "hub": Call(torch.hub.load_state_dict_from_url, "file:///etc/passwd"),
        "jit": Call(torch.jit.load, str(marker)), "load": Call(torch.load, str(marker)), "compile": Call(compile, code, "x", "exec"),
        "memory": Call(bytearray, 1 << 33), "storage": Call(torch.UntypedStorage, 1 << 33), "tensor": Call(torch.FloatTensor, 1 << 31), "set": Call(set, [1]),
        "open": Call(open, str(marker), "w"), "rename": Call(os.rename, "/etc/hostname", str(marker)),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pretrained_file_that_would_call_something_is_refused(zipped, tmp_path):
    calls = {kind: (state_of, tmp_path / f"{kind}.pth") for kind in gadgets(tmp_path / "ran")}
    for kind, gadget in gadgets(tmp_path / "ran").items():
        torch.save({"a": torch.zeros(3), "b": gadget}, tmp_path / f"{kind}.pth", _use_new_zipfile_serialization=zipped)
    all_refused(calls, [".pth: not a readable state dict: it names "])
    assert not (tmp_path / "ran").exists()


LARGE = b"J" + (10**9).to_bytes(4, "little")


def pickled(opcodes):
    return b"\x80\x02" + opcodes + b"."


def rewritten(path, **members):
    """The zip of a saved state dict with other members."""
    with zipfile.ZipFile(path) as file:
        content = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, value in {**content, **members}.items():
            file.writestr(f"archive/{name}", value)
    return path


@pytest.fixture
def pth(tmp_path):
    torch.save({"a": torch.arange(4.0)}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


def pickle_of(path):
    with zipfile.ZipFile(path) as file:
        return next(file.read(name) for name in file.namelist() if name.endswith("data.pkl"))


def test_a_state_dict_is_read_in_both_formats(tmp_path):
    state = {"a": torch.arange(4.0), "b": torch.nn.Parameter(torch.ones(2, 3).half()), "c": torch.tensor(3)}
    for number, zipped in enumerate((True, False)):
        torch.save(state, tmp_path / f"{number}.pth", _use_new_zipfile_serialization=zipped)
        found = weights.file_state(tmp_path / f"{number}.pth")
        assert all(torch.equal(found[name], value) for name, value in state.items()) and list(found) == list(state)


@pytest.mark.parametrize("find, put", [
    (b"K\x04\x85", LARGE + b"\x85"), (b"K\x04t", b"J" + (-4).to_bytes(4, "little", signed=True) + b"t"), (b"K\x00K\x04", LARGE + b"K\x04"), (b"K\x01\x85", LARGE + b"\x85"),
], ids=["shape", "negative storage", "offset", "stride"])
def test_a_tensor_that_tells_of_more_than_its_storage_is_refused(find, put, pth):
    assert find in pickle_of(pth)
    assert "not a readable state dict" in refused(state_of, rewritten(pth, **{"data.pkl": pickle_of(pth).replace(find, put)}))


@pytest.mark.parametrize("find, put", [(b"K\x04t", LARGE + b"t"), (b"K\x04t", b"\x8a\x08" + (2**62).to_bytes(8, "little") + b"t"), (b"FloatStorage", b"DoubleStorage")], ids=["storage", "huge", "type"])
def test_a_storage_that_tells_of_more_than_the_zip_holds_never_leads_out_of_it(find, put, pth):
    rewritten(pth, **{"data.pkl": pickle_of(pth).replace(find, put)})
    if not bounded(state_of, pth):
        assert weights.file_state(pth)["a"].untyped_storage().nbytes() <= pth.stat().st_size


BOMBS = dict([("lists", b"(" * 100_000), ("tuples", b")" + b"\x85" * 100_000), ("numbers", b"\x8b" + (2**31 - 1).to_bytes(4, "little")), ("text", b"X" + (2**32 - 1).to_bytes(4, "little")),
                                           ("more text", b"\x8d" + (2**62).to_bytes(8, "little")), ("memory", b"Nr" + (2**32 - 1).to_bytes(4, "little")), ("nothing", b""), ("an unknown word", b"\xff"),
                                           ("a newer pickle", b"\x95" + (2**62).to_bytes(8, "little")), ("an extension", b"\x82\x01"), ("a persistent id", b"Pxyz\n")])


def test_a_pickle_that_is_a_bomb_or_none_is_refused(pth):
    calls = {name: (state_of, rewritten(shutil.copy(pth, pth.with_name(f"{name}.pth")), **{"data.pkl": pickled(opcodes)})) for name, opcodes in BOMBS.items()}
    all_refused(calls, ["not a readable state dict"])


def test_a_zip_bomb_within_a_pretrained_file_is_refused(pth, tmp_path):
    content = pickle_of(pth).replace(b"K\x04t", b"J" + (SIZE // 4).to_bytes(4, "little") + b"t")
    write_zip(tmp_path / "w.pth", Member("w/data.pkl", content), Member("w/version", b"3\n"), Member("w/data/0", PACKED, hostile.DEFLATED, size=SIZE))
    assert "compressed, or tells of more than it holds" in refused(state_of, tmp_path / "w.pth")
    write_zip(tmp_path / "w.pth", Member("w/data.pkl", content), Member("w/version", b"3\n"), Member("w/data/0", bytes(16), size=SIZE, packed=SIZE))
    assert "compressed, or tells of more than it holds" in refused(state_of, tmp_path / "w.pth")


def test_tar_files_script_archives_and_what_is_no_plain_file_are_refused(tmp_path):
    with tarfile.open(tmp_path / "tar.pth", "w") as file:
        content = payload(tmp_path / "ran")
        for name in ("storages", "tensors", "pickle"):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    torch.save({"a": torch.zeros(1)}, tmp_path / "script.pth")
    rewritten(tmp_path / "script.pth", **{"constants.pkl": payload(tmp_path / "ran")})
    (tmp_path / "plain.pth").write_bytes(payload(tmp_path / "ran"))
    os.mkfifo(tmp_path / "pipe.pth"), (tmp_path / "zero.pth").symlink_to("/dev/zero"), (tmp_path / "folder.pth").mkdir()
    all_refused({path.name: (state_of, path) for path in tmp_path.glob("*.pth")}, [".pth: not a readable state dict", "no such file"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_changed_byte_of_a_pretrained_file_never_falls(zipped, tmp_path):
    """A zip has sums of its numbers; the older format has none, so there a changed number stays one."""
    state = {"a": torch.arange(40.0), "b": torch.ones(2, 3)}
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    content, random = (tmp_path / "w.pth").read_bytes(), np.random.default_rng(0)

    def all_of_them():
        for place in random.choice(len(content), min(250, len(content)), replace=False):
            (tmp_path / "w.pth").write_bytes(content[:place] + bytes([content[place] ^ (1 << random.integers(8))]) + content[place + 1:])
            try:
                found = weights.file_state(tmp_path / "w.pth")
            except InputError as error:
                assert "\n" not in str(error)
                continue
            assert not zipped or list(found) == list(state) and all(torch.equal(found[name], value) for name, value in state.items())

    assert bounded(all_of_them, megabytes=600) == ""


def safetensors(header, data=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


CRAFTED = [
    safetensors({"a": tensor()}, length=2**63), safetensors({"a": tensor()}, length=10**9), safetensors({"a": tensor(shape=(10**12,))}),
    safetensors({"a": tensor(shape=(2**62, 4))}), safetensors({"a": tensor(offsets=(0, 32))}), safetensors({"a": tensor(offsets=(16, 0))}),
    safetensors({"a": tensor(offsets=(8, 24))}), safetensors({"a": tensor(), "b": tensor()}), safetensors({"a": tensor(shape=(2,), offsets=(0, 8))}),
    safetensors({"a": tensor(offsets=(0, 2**63))}), safetensors({"a": tensor(dtype="OBJECT")}), safetensors({"a": tensor(dtype="I64")}), safetensors({"a": tensor(shape=(-4,))}),
    safetensors(b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}'),
    safetensors(b"[" * 100_000), safetensors(b'{"a":' * 100_000), safetensors(b"\xff" * 100), safetensors({"a": 1}), safetensors([]), safetensors(b""), b"", b"1234567", payload(Path("x")),
]


def test_crafted_safetensors_are_refused(tmp_path):
    for number, content in enumerate(CRAFTED):
        (tmp_path / f"{number}.safetensors").write_bytes(content)
    all_refused({path.stem: (state_of, path) for path in tmp_path.iterdir()}, ["safetensors: not a readable state dict"])


def test_a_safetensors_file_is_read_and_what_is_no_plain_file_is_not(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(safetensors({"a": tensor()}))
    assert weights.file_state(tmp_path / "w.safetensors")["a"].tolist() == [0] * 4
    os.mkfifo(tmp_path / "p.safetensors"), (tmp_path / "z.safetensors").symlink_to("/dev/zero")
    assert all("no such file" in refused(state_of, tmp_path / f"{name}.safetensors") for name in "pz")
