"""Embeddings that were computed before: bit for bit those that would be computed, known by content alone, within bounds."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy
import toy_names
from solution import embed, identify, images, kept, known, models, pixels, predict, recipe
from solution.deadline import Deadline
from solution.torch_engine import TorchEngine
from test_embed import ensemble, tiny
from test_naming import newcomer, photographs

ROOT = Path(__file__).parents[1]
SPECS = tiny("small", 0, 32), tiny("bare", 1, 48, predict={"mirror": "off"})
BOX = ["x0", "y0", "x1", "y1"]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """24 photographs, two scenarios, two models, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    toy.scenarios(toy.competition(tmp_path / "test"))
    ensemble(tmp_path / "weights", *SPECS)
    return tmp_path / "test"


@pytest.fixture
def computed(monkeypatch):
    """How many images each model saw, by model and side; how many photographs were decoded stands under `decoded`."""
    found, sides, opened = {}, TorchEngine.sides, images.opened

    def count(name, many):
        found[name] = found.get(name, 0) + many

    def counted(self, batch, mirrored):
        for side in mirrored:
            count((self.spec.name, "mirror" if side else "plain"), len(batch))
        return sides(self, batch, mirrored)

    monkeypatch.setattr(TorchEngine, "sides", counted)
    monkeypatch.setattr(images, "opened", lambda content, path: count("decoded", 1) or opened(content, path))
    return found


def all_of(count):
    return {("small", "plain"): count, ("small", "mirror"): count, ("bare", "plain"): count, "decoded": count}


def predicted(data, *options, weights=None):
    """The bytes of the submission, and of every model's embeddings."""
    output = data.parent / "out"
    shutil.rmtree(output, ignore_errors=True)
    words = ["--data", data, "--weights", weights or data.parent / "weights", "--output", output / "s.csv", "--embeddings", output / "e", "--timings", output / "t.json",
             "--device", "cpu", "--engine", "torch", *options]
    predict.main([str(word) for word in words])
    return {path.relative_to(output): path.read_bytes() for path in sorted(output.rglob("*")) if path.suffix in (".csv", ".npz")}


def told(data):
    return json.loads((data.parent / "out" / "t.json").read_text())


def room():
    return sorted(kept.folder(known.ROOM).iterdir())


def edited(data, change):
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(data / "metadata.csv", index=False)


def repainted(path, grey=7):
    path.unlink()
    Image.fromarray(np.full((50, 60, 3), grey, np.uint8)).save(path)


# The same, without a model

@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limit", [(), ("--time-limit", 1000)])
def test_a_second_prediction_computes_and_decodes_nothing_and_gives_the_same_bytes(data, computed, capsys, limit, workers):
    plain = predicted(data, "--no-cache")
    computed.clear()
    first = predicted(data, "--workers", workers, *limit)
    assert computed == all_of(24) and told(data)["cached"] == 0 and capsys.readouterr().err == ""
    computed.clear()
    assert predicted(data, "--workers", workers, *limit) == first == plain
    assert computed == {} and told(data)["cached"] == 3 * 24 and told(data)["forward_seconds"] == 0
    names = ["small", "bare", "small mirrored"] if limit else ["small", "bare"]
    counts = [24] * 3 if limit else [48, 24]
    assert capsys.readouterr().err.splitlines() == [f"{name}: {count} of {count} embeddings were kept from before" for name, count in zip(names, counts)]


def test_what_was_known_and_what_was_computed_are_the_same_bytes_in_any_mixture(data, computed):
    whole = predicted(data, "--no-cache")
    edited(data, lambda table: table[:7])
    predicted(data)
    toy_again = toy.competition(data.parent / "again")
    shutil.copy(toy_again / "metadata.csv", data)
    computed.clear()
    assert predicted(data) == whole and computed == all_of(17)


def test_without_a_cache_nothing_is_read_or_written(data, computed):
    predicted(data, "--no-cache")
    assert not kept.folder(known.ROOM).exists()
    predicted(data)
    before = [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in room()]
    computed.clear()
    predicted(data, "--no-cache")
    assert computed == all_of(24) and told(data)["cached"] == 0 and before == [(path.name, path.stat().st_mtime_ns, path.read_bytes()) for path in room()]


def test_embedding_and_predicting_know_the_same(data, computed, monkeypatch):
    predicted(data)
    computed.clear()
    words = ["--data", data, "--weights", data.parent / "weights", "--output", data.parent / "e", "--device", "cpu", "--engine", "torch", "--timings", data.parent / "t.json"]
    monkeypatch.setattr(sys, "argv", ["embed", *map(str, words)])
    embed.main()
    assert computed == {} and (data.parent / "e" / "small.npz").read_bytes() == (data.parent / "out" / "e" / "small.npz").read_bytes()
    found = json.loads((data.parent / "t.json").read_text())
    assert found["cached"] == 72 and found["images"] == 24 and found["models"]["small"] == {"plain_seconds": 0, "mirror_seconds": 0}
    monkeypatch.setattr(sys, "argv", ["embed", *map(str, words), "--no-cache"])
    embed.main()
    assert computed == all_of(24)


def test_a_prediction_that_knows_everything_needs_no_torch(data):
    predicted(data)
    words = ["--data", data, "--weights", data.parent / "weights", "--output", data.parent / "s.csv", "--engine", "torch", "--device", "cpu"]
    code = "import sys\nfrom solution import predict\npredict.main(sys.argv[1:])\nprint(sorted({'torch', 'timm', 'onnxruntime', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("\n[]\n") and (data.parent / "s.csv").read_bytes() == (data.parent / "out" / "s.csv").read_bytes(), done


# By content, never by name

def test_changing_one_photograph_recomputes_one(data, computed):
    predicted(data)
    computed.clear()
    repainted(data / "images" / "train0005.jpg")
    changed = predicted(data)
    assert computed == all_of(1) and told(data)["cached"] == 3 * 23
    assert changed == predicted(data, "--no-cache")


def test_other_names_and_places_of_the_same_photographs_are_known(data, computed):
    predicted(data)
    computed.clear()
    (data / "images").rename(data / "pictures")
    edited(data, lambda table: table.assign(path=table.path.str.replace("images/", "pictures/")).iloc[::-1])
    for path in (data.parent / "weights").glob("small.*"):
        path.rename(path.with_name(path.name.replace("small", "renamed")))
    spec = data.parent / "weights" / "renamed.json"
    spec.write_text(spec.read_text().replace('"small"', '"renamed"'))
    predicted(data)
    assert computed == {}


def test_photographs_under_each_others_names_are_known_by_their_bytes(data, computed):
    predicted(data)
    computed.clear()
    one, other = (data / "images" / f"train000{number}.jpg" for number in (1, 2))
    content = one.read_bytes(), other.read_bytes()
    one.unlink(), other.unlink()
    one.write_bytes(content[1]), other.write_bytes(content[0])
    swapped = predicted(data)
    assert computed == {} and swapped == predicted(data, "--no-cache")


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_another_box_is_another_image(margin, data, computed):
    ensemble(data.parent / "boxed", tiny("m", 0, 32, model={"box_margin": margin}))
    boxed = lambda *edges: lambda table: table.assign(**dict.fromkeys(BOX, "")).assign(**{name: [str(edge)] + [""] * 23 for name, edge in zip(BOX, edges)})
    for count, change in ((24, lambda table: table), (1, boxed(1, 1, 20, 20)), (1, boxed(1, 1, 20, 21)), (0, boxed(1, 1, 20, 20)), (0, boxed("", "", "", ""))):
        computed.clear()
        edited(data, change)
        predicted(data, weights=data.parent / "boxed")
        assert computed.get("decoded", 0) == count


@pytest.mark.parametrize("change", ["weights", "size", "margin", "mean", "package", "code", "processor", "engine"])
def test_what_computes_otherwise_is_not_known(change, data, computed, monkeypatch):
    predicted(data)
    spec, weights = SPECS[0], data.parent / "weights"
    if change == "weights":
        with np.load(weights / "small.npz") as file:
            arrays = dict(file)
        arrays["necks.0.0.bias"] = arrays["necks.0.0.bias"] + np.float32(1e-3)
        np.savez(weights / "small.npz", **arrays)
    elif change in ("size", "margin", "mean"):
        differences = {"size": {"predict": {"test_size": 64}}, "margin": {"model": {"box_margin": 0.1}}, "mean": {"model": {"mean": [0.4, 0.4, 0.4]}}}[change]
        spec = tiny("small", 0, 32, **differences)
        (weights / "small.json").write_text(json.dumps(recipe.plain(spec)))
    elif change == "package":
        monkeypatch.setattr(known, "version_of", lambda package: "0.0")
    elif change == "code":
        monkeypatch.setattr(known, "CODE", known.CODE[1:])
    elif change == "processor":
        monkeypatch.setattr(known, "processor", lambda: "another")
    computed.clear()
    if change == "engine":
        assert known.Known(weights, "cpu", "onnx").key(spec, "plain") != known.Known(weights, "cpu", "torch").key(spec, "plain") != known.Known(weights, "cpu", "torch").key(spec, "mirror")
    else:
        predicted(data)
        assert computed["small", "plain"] == computed["small", "mirror"] == 24


# What is not kept

def test_a_photograph_that_cannot_be_read_is_told_each_time_and_never_kept(data, computed, capsys):
    (data / "images" / "train0003.jpg").unlink()
    (data / "images" / "train0003.jpg").write_bytes(b"broken")
    first = predicted(data)
    for _ in range(2):
        computed.clear(), capsys.readouterr()
        assert predicted(data) == first
        said = capsys.readouterr()
        assert computed == all_of(1) and "images/train0003.jpg: not a readable image" in said.err and " 1 warnings" in said.out


def test_embeddings_that_are_not_finite_are_not_kept(data, computed, monkeypatch, capsys):
    whole = TorchEngine.embeddings
    monkeypatch.setattr(TorchEngine, "embeddings", lambda self, batch, mirrored: whole(self, batch, mirrored) * np.nan)
    predicted(data)
    assert not kept.folder(known.ROOM).exists()
    monkeypatch.setattr(TorchEngine, "embeddings", whole)
    computed.clear(), capsys.readouterr()
    predicted(data)
    assert computed == all_of(24) and "not finite" not in capsys.readouterr().err


def test_what_another_engine_computed_in_its_place_is_not_kept(data, computed, monkeypatch):
    weights, spec = data.parent / "weights", SPECS[0]
    table = images.listed(data)
    engine = TorchEngine(spec, models.load(spec, weights), "cpu")
    embed.embed(embed.Pixels(table, data, embed.views([spec]), 0), [spec], lambda _: engine, table.image_id.to_numpy(str), known.Known(weights, "cpu", "onnx"))
    assert not kept.folder(known.ROOM).exists()


def test_a_pass_that_would_not_end_in_time_keeps_nothing(data, monkeypatch):
    spec, weights = SPECS[0], data.parent / "weights"
    monkeypatch.setattr(pixels, "BATCH", 8)
    photographs = embed.Pixels(images.listed(data), data, embed.views([spec]), 0)
    embedder = embed.Embedder(photographs, embed.Engines(weights, "cpu"), known.Known(weights, "cpu", "torch"))
    assert embedder.one(spec, ("plain",), Deadline(0.1)) is None and not kept.folder(known.ROOM).exists()
    assert embedder.one(spec, ("plain",), Deadline(None))["plain"].shape == (24, 112) and len(room()) == 1


# Bounds

def bounded(monkeypatch, size):
    monkeypatch.setattr(known, "BOUNDS", kept.Bounds(files=100, size=size))


def test_a_collection_larger_than_the_cap_is_not_kept_and_that_is_one_line_a_side(data, monkeypatch, capsys):
    bounded(monkeypatch, 24 * (32 + 4 * 112) - 1)
    predicted(data)
    assert not kept.folder(known.ROOM).exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and lines[0] == "small: its embeddings are not kept for the next time: 0 MB, and 0 are kept at most"


def test_where_both_have_no_room_the_new_photographs_push_out_the_old(data, monkeypatch, computed):
    ensemble(data.parent / "one", tiny("m", 0, 32, predict={"mirror": "off"}))
    bounded(monkeypatch, 24 * (32 + 4 * 112) + 2000)
    predicted(data, weights=data.parent / "one")
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    for path in table.path[:20]:
        repainted(data / path, grey=int(path[-6:-4]))
    computed.clear()
    predicted(data, weights=data.parent / "one")
    assert computed["decoded"] == 20
    computed.clear()
    predicted(data, weights=data.parent / "one")
    (path,) = room()
    assert computed == {} and path.stat().st_size < known.BOUNDS.size


def test_of_several_models_those_not_used_for_longest_go_first(data, monkeypatch):
    predicted(data)
    sizes = [path.stat().st_size for path in room()]
    for number, path in enumerate(room()):
        os.utime(path, (number, number))
    oldest = room()[0].name
    ensemble(data.parent / "one", tiny("another", 0, 32, model={"mean": [0.1, 0.1, 0.1]}, predict={"mirror": "off"}))
    bounded(monkeypatch, sum(sizes) + 10)
    predicted(data, weights=data.parent / "one")
    assert len(room()) == 3 and oldest not in [path.name for path in room()]


# What lies there

def rewritten(arrays):
    """Every kept file with other arrays under a digest that fits."""
    for path in room():
        content = io.BytesIO()
        np.savez(content, **arrays)
        kept.keep(known.ROOM, path.name, content.getvalue(), known.BOUNDS)


DIGESTS, ROWS = np.zeros((3, 32), np.uint8), np.zeros((3, 112), np.float32)


@pytest.mark.parametrize("arrays", [
    {}, {"digest": DIGESTS}, {"digest": DIGESTS, "embedding": ROWS, "more": ROWS}, {"digest": DIGESTS, "embedding": ROWS.astype(float)}, {"digest": DIGESTS[:2], "embedding": ROWS},
    {"digest": DIGESTS, "embedding": np.array([None] * 3, object)}, {"digest": DIGESTS[:, :31], "embedding": ROWS}, {"digest": DIGESTS[:0], "embedding": ROWS[:0]}, {"digest": DIGESTS, "embedding": ROWS[:, 0]},
])
def test_arrays_that_do_not_belong_there_are_passed_over(arrays, data, computed):
    first = predicted(data)
    rewritten(arrays)
    computed.clear()
    assert predicted(data) == first and computed == all_of(24)
    computed.clear()
    assert predicted(data) == first and computed == {}


def test_a_damaged_file_is_passed_over_and_replaced(data, computed, capsys):
    first = predicted(data)
    for path in room():
        path.write_bytes(path.read_bytes()[:-1])
    computed.clear(), capsys.readouterr()
    assert predicted(data) == first and computed == all_of(24) and capsys.readouterr().err == ""
    computed.clear()
    assert predicted(data) == first and computed == {}


def test_naming_single_photographs_knows_them_and_the_gallery_from_before(tmp_path, monkeypatch, computed, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fold = toy_names.fold(tmp_path / "fold", tiny("third", 0, 32))
    added = photographs(tmp_path / "added", ("n1", "newcomer", newcomer(1)))
    asked = [str(path) for path in sorted((fold / "test" / "images").iterdir())[:3]]
    said = []
    for more in ([], [], ["--no-cache"]):
        computed.clear(), capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["identify", *asked, "--weights", str(fold / "weights"), "--gallery", str(added), "--device", "cpu", *more])
        identify.main()
        said.append((capsys.readouterr().out, computed.get("decoded", 0)))
    assert [count for _, count in said] == [4, 0, 4] and len({out for out, _ in said}) == 1
