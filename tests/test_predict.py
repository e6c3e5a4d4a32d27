"""An anytime prediction: complete from the first second, better after every pass, in time whatever happens, and lenient."""

import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import toy
from eval import rules, score
from solution import embed, fusion, images, models, pixels, predict, rank, recipe
from solution.deadline import MARGIN, Deadline
from solution.files import InputError, run
from solution.torch_engine import TorchEngine

ROOT = Path(__file__).parents[1]
NAMES = ["large", "small", "slip"]  # in the recipe's order, which is not the alphabet's


def tiny(name, position, size):
    table = {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": {"size": size}, "predict": {"normalise": True}}
    return recipe.built(recipe.Spec, dict(table, name=name, position=position))


def ensemble(weights, sizes=(48, 32, 32)):
    """Random weights of as many of the three models as there are sizes."""
    for position, (name, size) in enumerate(zip(NAMES, sizes)):
        torch.manual_seed(position)
        spec = tiny(name, position, size)
        model = models.EmbeddingModel(spec.model)
        model.necks[0][0].running_mean.uniform_(0.2, 0.6), model.necks[0][0].running_var.uniform_(0.01, 0.1)
        models.save(model, spec, weights)
    return weights


def competition(path):
    """PATH/test with 24 photographs and two scenarios, PATH/truth.csv."""
    toy.scenarios(toy.competition(path / "test")).to_csv(path / "truth.csv", index=False)
    return path


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    fold = competition(tmp_path_factory.mktemp("fold"))
    ensemble(fold / "weights")
    return fold


def predicted(fold, output, *options, weights=None, workers=0):
    """Runs the command in this process; returns where it wrote."""
    options = ["--data", fold / "test", "--weights", weights or fold / "weights", "--output", output, "--device", "cpu", "--engine", "torch", "--workers", workers, "--no-cache", *options]
    predict.main([str(option) for option in options])
    return output


def breaches(path, data):
    """The rules that a file breaks by the scorer's own reading of them, and the queries that it leaves out."""
    rows, asked = pd.read_csv(path, dtype=str), rules.read_scenarios(data)
    assert list(rows.columns) == rules.COLUMNS
    number = pd.to_numeric(rows.score).to_numpy(float)
    return rules.listed(rules.image_rules(rows, number, asked), rows), sorted(set(asked.queries.query_id) - set(rows.query_id))


def assert_complete(path, data):
    assert breaches(path, data) == ([], [])


def in_the_databases_order(data):
    """What the fallback must hold, written out: the first 20 of the database for each query, without its own photograph."""
    expected = {}
    for scenario in pd.read_csv(data / "query_scenarios.csv").itertuples():
        database = list(pd.read_csv(data / scenario.database_path).database_image_id)
        for query in pd.read_csv(data / scenario.queries_path).itertuples():
            expected[query.query_id] = [image for image in database if image != query.query_image_id][:20]
    return expected


# One file after the other

@pytest.fixture
def states(monkeypatch):
    """The content of the file each time that it is written."""
    write, found = predict.write_table, []
    monkeypatch.setattr(predict, "write_table", lambda table, path: found.append(write(table, path).read_bytes()))
    return found


def test_after_every_pass_the_file_is_complete_and_valid(fold, tmp_path, states):
    predicted(fold, tmp_path / "s.csv", "--time-limit", 1000)
    assert len(states) == 1 + 2 * len(NAMES) and len(set(states)) == len(states)
    for state in states:
        (tmp_path / "state.csv").write_bytes(state)
        assert_complete(tmp_path / "state.csv", fold / "test")
        evaluation = score.evaluate(tmp_path / "state.csv", fold / "truth.csv", fold / "test")
        assert evaluation.breaches == [] and not any("missing" in warning for warning in evaluation.warnings)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_first_file_is_the_databases_order(fold, tmp_path, states):
    predicted(fold, tmp_path / "s.csv")
    rows = pd.read_csv(io.BytesIO(states[0]))
    assert {query: list(part.database_image_id) for query, part in rows.groupby("query_id")} == in_the_databases_order(fold / "test")
    assert (rows.groupby("query_id").score.diff().dropna() < 0).all()


def test_under_a_time_limit_all_models_see_the_photographs_before_one_sees_the_mirror_images(fold, tmp_path, monkeypatch):
    seen, sides = [], TorchEngine.sides
    monkeypatch.setattr(TorchEngine, "sides", lambda self, batch, mirrored: seen.append((self.spec.name, mirrored)) or sides(self, batch, mirrored))
    limited = predicted(fold, tmp_path / "limited.csv", "--time-limit", 1000)
    assert seen == [(name, [mirrored]) for mirrored in (False, True) for name in NAMES]
    seen.clear()
    assert predicted(fold, tmp_path / "s.csv").read_bytes() == limited.read_bytes()
    assert seen == [(name, [False, True]) for name in NAMES]


def test_without_a_limit_there_is_a_better_file_after_every_model(fold, tmp_path, states):
    predicted(fold, tmp_path / "s.csv")
    assert len(states) == 1 + len(NAMES) and len(set(states)) == len(states)


def test_every_state_is_the_ranking_of_the_passes_so_far(fold, tmp_path, states):
    """Against `solution.rank` on saved embeddings, of which later passes are taken away."""
    predicted(fold, tmp_path / "s.csv", "--embeddings", tmp_path / "e", "--time-limit", 1000)
    ids, asked = None, predict.scenarios.read(fold / "test")
    whole = {spec.name: (spec, dict(np.load(tmp_path / "e" / f"{spec.name}.npz"))) for spec in recipe.specs(fold / "weights")}
    for number, state in enumerate(states[1:], 1):
        parts = []
        for place, name in enumerate(NAMES[:number]):
            spec, arrays = whole[name]
            kept = ("plain", "mirror") if place < number - len(NAMES) else ("plain",)
            parts.append((spec.predict, {key: arrays[key] for key in kept}))
            ids = arrays["image_id"]
        rank.submission(asked, ids, [fusion.spaces(parts, "concatenate")] * len(asked)).to_csv(tmp_path / "expected.csv", index=False)
        assert state == (tmp_path / "expected.csv").read_bytes(), number
    assert states[-1] == (tmp_path / "s.csv").read_bytes()


def test_a_file_is_replaced_at_once_by_one_that_lay_beside_it(fold, tmp_path, monkeypatch):
    replaced, replace = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: replaced.append((breaches(source, fold / "test"), Path(target).name)) or replace(source, target))
    predicted(fold, tmp_path / "s.csv", "--time-limit", 1000)
    assert replaced == [(([], []), "s.csv")] * (1 + 2 * len(NAMES))


STOPPED_AT_TORCH = """
import sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "torch":
            sys.exit(77)
sys.meta_path.insert(0, Finder)
from solution import predict
predict.main(sys.argv[1:])
"""


def test_before_torch_is_imported_a_complete_file_is_on_disk(fold, tmp_path):
    options = ["--data", fold / "test", "--weights", fold / "weights", "--output", tmp_path / "s.csv", "--time-limit", 1000, "--engine", "torch"]
    done = subprocess.run([sys.executable, "-c", STOPPED_AT_TORCH, *map(str, options)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 77, done.stderr
    assert_complete(tmp_path / "s.csv", fold / "test")


def test_photographs_that_do_not_fit_into_memory_are_decoded_again_to_the_same_bytes(fold, tmp_path, monkeypatch):
    opened, read = [], images.opened
    kept = predicted(fold, tmp_path / "kept.csv")
    monkeypatch.setattr(images, "opened", lambda content, path: opened.append(path) or read(content, path))
    monkeypatch.setattr(pixels, "HELD_BYTES", 0)
    monkeypatch.setattr(pixels, "BATCH", 7)
    again = predicted(fold, tmp_path / "again.csv")
    assert len(opened) == 24 * len(NAMES)
    monkeypatch.setattr(pixels, "HELD_BYTES", 8 << 30)
    by_seven = predicted(fold, tmp_path / "seven.csv")
    assert again.read_bytes() == by_seven.read_bytes() == kept.read_bytes() and len(opened) == 24 * len(NAMES) + 24


def ranked(path):
    return {query: list(part.database_image_id) for query, part in pd.read_csv(path).groupby("query_id")}


# With an identification

TOLD = {"temperature": 1.0, "theta_p": 0.2, "theta_f": 0.9, "c1": 1.0, "c2": 1.0, "c3": 0.0, "map5": None, "ci95": None, "n_queries": 0, "scale": 9.0, "bias": 0.0, "nearest": [30.0, -31.0]}


def test_rankings_of_weights_that_can_tell_come_with_the_chance_of_a_new_whale(fold, tmp_path):
    """The similarity of the best row is the mean of the models', here of the embeddings joined in numpy."""
    weights = shutil.copytree(fold / "weights", tmp_path / "weights")
    (weights / "identify.json").write_text(json.dumps(TOLD))
    predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv", "--embeddings", tmp_path / "e", weights=weights)
    assert (tmp_path / "s.csv").read_bytes() == predicted(fold, tmp_path / "plain.csv").read_bytes()
    table, rows = pd.read_csv(tmp_path / "p.csv"), pd.read_csv(tmp_path / "s.csv")
    assert list(table.columns) == ["query_id", "Id", "probability"] and set(table.Id) == {"new_whale"}
    best = rows.drop_duplicates("query_id").set_index("query_id").database_image_id
    assert list(table.query_id) == list(best.index)
    parts = [np.hstack([array[kind].astype(float) for kind in ("plain", "mirror")]) for array in (np.load(tmp_path / "e" / f"{name}.npz") for name in NAMES)]
    units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    place = {image_id: number for number, image_id in enumerate(np.load(tmp_path / "e" / "large.npz")["image_id"])}
    asked = pd.concat([pd.read_csv(path) for path in sorted((fold / "test" / "queries").iterdir())]).set_index("query_id").query_image_id
    for query, chance in zip(table.query_id, table.probability):
        similarity = np.mean([(2 - np.linalg.norm(unit[place[asked[query]]] - unit[place[best[query]]])) / 2 for unit in units])
        assert chance == pytest.approx(1 / (1 + np.exp(-(30 - 31 * similarity))), abs=2e-4)
    assert table.probability.between(0, 1).all() and table.probability.nunique() > 5


def test_weights_that_cannot_tell_refuse_to_and_leave_nothing(fold, tmp_path):
    with pytest.raises(InputError, match="--probabilities: .*weights has no identify.json"):
        predicted(fold, tmp_path / "s.csv", "--probabilities", tmp_path / "p.csv")
    assert not list(tmp_path.iterdir())


# In time

def played(fold, folder, cases):
    """Runs the cases of tests/forked.py at the same time; each gets its answer and its output as a path."""
    for number, case in enumerate(cases):
        (folder / str(number)).mkdir()
        case.update(data=str(fold / "test"), weights=case.get("weights", str(fold / "weights")), output=str(folder / str(number) / "s.csv"))
    (folder / "plan.json").write_text(json.dumps(cases))
    environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, ROOT / "tests" / "forked.py", folder / "plan.json"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return [dict(case, **answer, output=Path(case["output"])) for case, answer in zip(cases, json.loads(done.stdout))]


STATES = ["is in the database's order, of no model", "ranks with large (no mirror images)", "ranks with large (no mirror images), small (no mirror images)",
          "ranks with large (no mirror images), small (no mirror images), slip (no mirror images)",
          "ranks with large, small (no mirror images), slip (no mirror images)", "ranks with large, small, slip (no mirror images)", "ranks with large, small, slip"]


@pytest.fixture(scope="module")
def expected(fold, tmp_path_factory):
    """The file in each of its states, in a process like those that are stopped."""
    folder = tmp_path_factory.mktemp("states")
    (folder / "record").mkdir()
    case, = played(fold, folder, [{"record": str(folder / "record"), "limit": 1000}])
    assert case["status"] == 0 and case["log"].endswith(f"0 warnings; {STATES[-1]}\n")
    found = [(folder / "record" / f"{number}.csv").read_bytes() for number in range(len(STATES))]
    assert case["output"].read_bytes() == found[-1] and len(set(found)) == len(found)
    return found


def reached(case, expected):
    """The number of the state that a case's file is in; it must be one of them, whole, and alone in its folder."""
    assert [path.name for path in case["output"].parent.iterdir()] == ["s.csv"], case["log"]
    return expected.index(case["output"].read_bytes())


class Clock:
    """A time that passes only while a model runs: each batch takes as long as `seconds` says of its model."""

    def __init__(self, monkeypatch, seconds, batch):
        self.now, embeddings = 0.0, TorchEngine.embeddings

        def late(engine, photographs, mirrored):
            self.now += seconds(engine.spec.name)
            return embeddings(engine, photographs, mirrored)

        monkeypatch.setattr(pixels, "BATCH", batch)
        monkeypatch.setattr(TorchEngine, "embeddings", late)

    def deadline(self, limit, started=None):
        return Deadline(limit, clock=lambda: self.now)


def in_simulated_time(fold, output, monkeypatch, capsys, limit, seconds, batch):
    """What a prediction says of the models that it left out, and its last line. No guard ends it."""
    clock = Clock(monkeypatch, seconds.__getitem__, batch)
    monkeypatch.setattr(predict, "Deadline", clock.deadline)
    monkeypatch.setattr(Deadline, "guard", lambda self, end: None)
    predicted(fold, output, "--time-limit", limit)
    said = capsys.readouterr()
    return re.findall("^(.*): left out, would not end within the time limit$", said.err, re.MULTILINE), said.out, clock.now


def left_out(limit, seconds, batches):
    """The same by a plain account of the passes: one that would not end is broken off after its second batch, as the first tells no speed."""
    told, now = [], 0.0
    for mirrored in (False, True):
        for name in NAMES:
            if mirrored and name in told:
                continue
            if now + batches * seconds[name] <= limit - MARGIN + 1e-9:
                now += batches * seconds[name]
            else:
                told.append(f"{name}, mirror images" if mirrored else name)
                now += 2 * seconds[name]
    return told


BATCHES = 4  # of 24 photographs by sevens
SHARES = [0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.1, 2]


@pytest.mark.parametrize("share", SHARES)
def test_mirror_images_are_left_out_before_models_and_the_log_says_so(fold, tmp_path, monkeypatch, capsys, share):
    seconds = dict.fromkeys(NAMES, 0.5)
    limit = share * 2 * len(NAMES) * BATCHES * 0.5 + MARGIN + 0.01
    told, said, _ = in_simulated_time(fold, tmp_path / "s.csv", monkeypatch, capsys, limit, seconds, batch=7)
    assert told == left_out(limit, seconds, BATCHES)
    ranked = [name + " (no mirror images)" * (f"{name}, mirror images" in told) for name in NAMES if name not in told]
    assert said.endswith(f"; ranks with {', '.join(ranked)}\n" if ranked else f"; {STATES[0]}\n")
    assert_complete(tmp_path / "s.csv", fold / "test")


def test_a_model_ten_times_slower_than_the_others_is_left_out_and_they_rank(fold, tmp_path, monkeypatch, capsys):
    told, said, took = in_simulated_time(fold, tmp_path / "s.csv", monkeypatch, capsys, 8, {"large": 1, "small": 0.1, "slip": 0.1}, batch=3)
    assert told == ["large"] and said.endswith("; ranks with small, slip\n") and took == pytest.approx(2 + 4 * 8 * 0.1)
    assert_complete(tmp_path / "s.csv", fold / "test")


def test_a_slow_first_batch_costs_no_model(fold, monkeypatch):
    """As with threads that start and a device that warms up; by the first of 12 batches it would take twice what is left."""
    warming_up = iter([0.5] + [0.0] * 11)
    clock = Clock(monkeypatch, lambda name: next(warming_up), batch=2)
    spec, table = recipe.specs(fold / "weights")[1], images.listed(fold / "test")
    engine_of = embed.Engines(fold / "weights", "cpu")
    found = embed.Embedder(embed.Pixels(table, fold / "test", embed.views([spec]), 0), engine_of).one(spec, ("plain",), clock.deadline(MARGIN + 3))
    assert found["plain"].shape == (24, engine_of(spec).width) and next(warming_up, None) is None


@pytest.fixture(scope="module")
def limited(fold, expected, tmp_path_factory):
    """Predictions whose six passes take 1.2 s each, under limits from 1 % to 90 % of the whole."""
    seconds = 0.3
    whole = 2 * len(NAMES) * BATCHES * seconds + MARGIN
    cases = [{"limit": share * whole, "slow": dict.fromkeys(NAMES, seconds)} for share in (0.01, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9)]
    return played(fold, tmp_path_factory.mktemp("limited"), cases)


def test_under_any_limit_it_ends_before_it_with_a_complete_file(limited, expected, fold):
    for case in limited:
        assert case["seconds"] < max(case["limit"], 1.5), case  # 1.5: reading tables and writing the first file
        assert_complete(case["output"], fold / "test")
        state = reached(case, expected)
        assert case["status"] == (0 if state else 1), case
        assert case["log"].rstrip().endswith(STATES[state]), case


def test_a_limit_too_short_for_one_model_leaves_the_databases_order(limited, expected):
    assert [reached(case, expected) for case in limited[:2]] == [0, 0] and limited[0]["status"] == 1


def test_whatever_hangs_it_ends_in_time_and_leaves_a_complete_file(fold, expected, tmp_path):
    hanging = [{"hang": "decoder"}, {"hang": "decoder", "workers": 2}, {"hang": "disk"}, {"hang": "lock"}]
    cases = played(fold, tmp_path, [dict(case, limit=4) for case in hanging])
    for case in cases:
        assert case["seconds"] < 4, case  # its log too has ended: no process that decodes is left behind
        assert_complete(case["output"], fold / "test")
    for case in cases[:3]:
        assert case["status"] == 1 and reached(case, expected) == 0, case
        assert case["log"].endswith(f"time is up; {case['output']} {STATES[0]}\n")
    assert cases[3]["status"] == -signal.SIGALRM and cases[3]["output"].read_bytes() == expected[0]
    assert {path.name for path in cases[3]["output"].parent.iterdir()} == {"s.csv", ".s.csv.lock"}  # killed by the kernel; the next run removes it


def test_stopped_or_killed_at_any_moment_it_leaves_a_complete_file(fold, expected, tmp_path):
    delays = random.Random(0)
    signals = [signal.SIGTERM, signal.SIGKILL] * 8
    cases = played(fold, tmp_path, [{"signal": [number, delays.uniform(0, 2)], "slow": dict.fromkeys(NAMES, 0.1), "limit": 1000} for number in signals])
    for case in cases:
        assert_complete(case["output"], fold / "test")
        assert case["output"].read_bytes() in expected and case["status"] in (0, -case["signal"][0])
    assert sum(case["status"] < 0 for case in cases) > len(cases) / 2


def test_the_command_ends_in_time_while_it_starts(fold, tmp_path):
    """Three seconds are hardly enough for torch and timm; the margin takes the other two."""
    options = ["--data", fold / "test", "--weights", fold / "weights", "--output", tmp_path / "s.csv", "--time-limit", 5]
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "solution.predict", *map(str, options)], cwd=ROOT, capture_output=True, text=True)
    assert time.monotonic() - begun < 5 and done.returncode in (0, 1, -signal.SIGALRM), done
    assert_complete(tmp_path / "s.csv", fold / "test")


def test_the_limit_counts_from_when_it_is_said_to_have_begun(fold, tmp_path, monkeypatch):
    guarded = []
    monkeypatch.setattr(predict.Deadline, "guard", lambda self, end: guarded.append(self.left()))
    predict.main(["--data", str(fold / "test"), "--weights", str(fold / "weights"), "--output", str(tmp_path / "s.csv"),
                  "--time-limit", "1000", "--workers", "0", "--device", "cpu", "--engine", "torch", "--no-cache"], started=time.monotonic() - 100)
    assert 800 < guarded[0] < 900 - MARGIN


def test_the_state_that_the_guard_tells_is_that_of_the_file_not_of_the_work(fold, tmp_path, monkeypatch):
    """Should the time be up while the first model is ranked, the file is still the databases' order and the status 1."""
    told, states, submission, begin = [], [], rank.submission, predict.Submission.begin
    monkeypatch.setattr(predict.Submission, "begin", lambda self: told.append(self) or begin(self))
    monkeypatch.setattr(rank, "submission", lambda *a: states.append((told[0].state, told[0].status)) or submission(*a))
    predicted(fold, tmp_path / "s.csv", "--time-limit", 1000)
    assert states == [(state, 0 if number else 1) for number, state in enumerate(STATES[:-1])]
    assert (told[0].state, told[0].status) == (STATES[-1], 0)


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_no_time_is_bad_usage(limit, fold, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        predicted(fold, tmp_path / "s.csv", f"--time-limit={limit}")
    assert stopped.value.code == 2 and "--time-limit" in capsys.readouterr().err


# Lenient

def jpeg(pixels, **options):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "JPEG", **options)
    return content.getvalue()


def saved(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(PICTURE, "JPEG", exif=exif)


def huge_jpeg():
    """A JPEG whose frame header says 30,000 x 30,000."""
    content = jpeg(PIXELS)
    frame = content.index(b"\xff\xc0")
    return content[: frame + 5] + struct.pack(">HH", 30_000, 30_000) + content[frame + 9 :]


def huge_png(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return saved(PICTURE, "PNG")[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + saved(PICTURE, "PNG")[33:]


READABLE = {
    "a PNG named .jpg": saved(PICTURE, "PNG"),
    "a TIFF named .jpg": saved(PICTURE, "TIFF"),
    "grey": jpeg(PIXELS[..., 0]),
    "CMYK": saved(PICTURE.convert("CMYK"), "JPEG"),
    "16 bits": saved(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256), "PNG"),
    "RGBA": saved(PICTURE.convert("RGBA"), "PNG"),
    "turned by EXIF": turned(),
    "one pixel": jpeg(PIXELS[:1, :1]),
}
UNREADABLE = {
    "missing": None,
    "zero bytes": b"",
    "a truncated JPEG": jpeg(PIXELS)[:-200],
    "a truncated PNG": saved(PICTURE, "PNG")[:-2000],
    "a truncated TIFF": saved(PICTURE, "TIFF")[:-2000],
    "text": b"image_id,path\n",
    "a JPEG of 30,000 x 30,000": huge_jpeg(),
    "a PNG of 30,000 x 30,000": huge_png(30_000, 30_000),
    "a ribbon of 8 x 2,000,000": saved(Image.new("1", (8, 2_000_000)), "PNG"),  # whole, of 5 KB
}


@pytest.fixture
def broken(tmp_path):
    """A toy competition to break, with one model."""
    competition(tmp_path)
    ensemble(tmp_path / "weights", (32,))
    return tmp_path


def put(data, contents):
    """Gives the first photographs other contents; their file names by kind."""
    names = [f"train{number:04d}.jpg" for number in range(len(contents))]
    for name, content in zip(names, contents.values()):
        (data / "images" / name).unlink()
        if content is not None:
            (data / "images" / name).write_bytes(content)
    return dict(zip(contents, names))


def lenient(fold, capsys, *warnings, **options):
    """Predicts, and asserts that each of `warnings` is said in one line of its own, that they are all, and counted last."""
    output = predicted(fold, fold / "s.csv", **options)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == len(warnings) and all(line.startswith("warning: ") for line in lines), lines
    for words in warnings:
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert f" {len(warnings)} warning" in said.out.splitlines()[-1]
    return output


def strict(fold, capsys, words, **options):
    """The same input is one line and exit status 2 where strict; the line begins with the file that is wrong."""
    (fold / "s.csv").unlink(missing_ok=True)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        run(lambda: predicted(fold, fold / "s.csv", "--strict", **options))
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and said.startswith(f"error: {fold}/") and said.count("\n") == 1 and words in said, said
    assert not (fold / "s.csv").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_photographs_of_every_kind_are_read_and_the_unreadable_told_once_each(workers, broken, capsys, monkeypatch):
    monkeypatch.setattr(pixels, "HELD_BYTES", 0)  # decoded in both passes, told in one
    monkeypatch.setattr(pixels, "BATCH", 5)
    names = put(broken / "test", {**UNREADABLE, **READABLE})
    output = lenient(broken, capsys, *(f"images/{names[kind]}: " for kind in UNREADABLE), workers=workers)
    assert_complete(output, broken / "test")


def test_kinds_that_are_no_fault_pass_where_strict_too(broken, capsys):
    put(broken / "test", READABLE)
    predicted(broken, broken / "s.csv", "--strict")
    said = capsys.readouterr()
    assert said.err == "" and " 0 warnings" in said.out
    assert_complete(broken / "s.csv", broken / "test")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_photograph_is_exit_status_2_where_strict(kind, broken, capsys):
    name = put(broken / "test", {kind: UNREADABLE[kind]})[kind]
    strict(broken, capsys, f"images/{name}: ")


PEAK = """
import resource, sys
from pathlib import Path
from solution.images import InputError, read, square
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
for path in sys.argv[1:]:
    try:
        square(read(Path(path)), 32)
        sys.exit("was read")
    except InputError:
        print((peak() - before) // 1024)
"""


def test_an_image_too_large_takes_no_memory(tmp_path):
    kinds = [kind for kind in UNREADABLE if " x " in kind]
    paths = [tmp_path / str(number) for number in range(len(kinds))]
    for path, kind in zip(paths, kinds):
        path.write_bytes(UNREADABLE[kind])
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
    assert [int(megabytes) < 20 for megabytes in done.stdout.split()] == [True] * 3, done


def edited(path, change):
    """Rewrites a CSV by `change`, a function of the table."""
    change(pd.read_csv(path, dtype=str)).to_csv(path, index=False)


def without(image_id):
    return lambda table: table[table.image_id != image_id]


def other(image_id, **cells):
    def change(table):
        for column, value in cells.items():
            table.loc[table.image_id == image_id, column] = value
        return table

    return change


def boxed(table):
    table[["x0", "y0", "x1", "y1"]] = ""
    table.loc[3, ["x0", "y0", "x1", "y1"]] = ["10", "10", "5", "20"]
    return table


METADATA = {
    "an id without a row": (without("train0004"), ["asks for image train0004, which has no row"]),
    "an id with two rows": (lambda table: pd.concat([table, table[5:6]]), ["line 26: image_id 'train0005' is empty or stands there twice"]),
    "a path that leaves the data": (other("train0006", path="../../etc/passwd"), ["line 8: path '../../etc/passwd' leads out", "asks for image train0006, which has no row"]),
    "no path": (other("train0006", path=""), ["line 8: path '' leads out", "asks for image train0006, which has no row"]),
    "a bad box": (boxed, ["the box of train0003 is not four numbers"]),
}


@pytest.mark.parametrize("kind", METADATA)
def test_rows_of_the_metadata_that_are_wrong_are_told_and_passed_over(kind, broken, capsys):
    change, warnings = METADATA[kind]
    edited(broken / "test" / "metadata.csv", change)
    assert_complete(lenient(broken, capsys, *warnings), broken / "test")
    strict(broken, capsys, warnings[0])


def test_of_two_rows_the_first_counts(broken, capsys):
    expected = predicted(broken, broken / "first.csv").read_bytes()
    capsys.readouterr()
    edited(broken / "test" / "metadata.csv", lambda table: pd.concat([table, table[5:6].assign(path=table.path[0])]))
    assert lenient(broken, capsys, "stands there twice").read_bytes() == expected


def scenario(data, number, queries=None, database=None):
    """Replaces the lines below the header of a scenario's files, or the whole content where it is bytes; None leaves them."""
    for folder, header, lines in (("queries", "query_id,query_image_id", queries), ("databases", "database_image_id", database)):
        path = data / folder / f"scenario{number:02d}.csv"
        if lines is not None:
            path.write_bytes(lines if isinstance(lines, bytes) else "\n".join([header, *lines, ""]).encode())


@pytest.mark.parametrize("queries, database, warnings", [
    ([], None, ["queries/scenario02.csv: has no rows"]),
    (None, [], ["databases/scenario02.csv: has no rows"]),
    (b"", None, ["queries/scenario02.csv: the file is empty"]),
    (None, b"", ["databases/scenario02.csv: the file is empty"]),
    (b"query,image\n1,2\n", None, ["queries/scenario02.csv: column 'query_id' is missing"]),
    (b"\xff\xfe\x00\x01", None, ["queries/scenario02.csv: line 1 holds a zero byte"]),
])
def test_of_an_empty_or_unreadable_scenario_only_the_others_are_answered(queries, database, warnings, broken, capsys):
    whole = pd.read_csv(predicted(broken, broken / "whole.csv"))
    capsys.readouterr()
    scenario(broken / "test", 2, queries, database)
    found = pd.read_csv(lenient(broken, capsys, *warnings))
    first = whole[whole.query_id.str.startswith("scenario01")]
    pd.testing.assert_frame_equal(found, first[["query_id", "database_image_id", "score"]].reset_index(drop=True), rtol=0, atol=1e-6)
    strict(broken, capsys, warnings[0])


def test_a_file_that_is_not_there_is_a_scenario_less(broken, capsys):
    (broken / "test" / "queries" / "scenario01.csv").unlink()
    found = pd.read_csv(lenient(broken, capsys, "queries/scenario01.csv: no such file"))
    assert set(found.query_id.str[:10]) == {"scenario02"}
    strict(broken, capsys, "queries/scenario01.csv: no such file")


def test_without_any_query_the_file_is_a_header(broken, capsys):
    scenario(broken / "test", 1, queries=[]), scenario(broken / "test", 2, queries=[], database=[])
    output = lenient(broken, capsys, "queries/scenario01.csv: has", "queries/scenario02.csv: has", "databases/scenario02.csv: has")
    assert output.read_text() == "query_id,database_image_id,score\n"


@pytest.mark.parametrize("database, rows", [
    (["train0001", "train0002", "train0003"], {"q1": 2, "q9": 3}), (["train0002"], {"q1": 1, "q9": 1}), (["train0001"], {"q9": 1}),
    ([f"train{number:04d}" for number in range(20)], {"q1": 19, "q9": 19}), ([f"train{number:04d}" for number in range(21)], {"q1": 20, "q9": 20}),
])
def test_a_small_database_is_ranked_whole(database, rows, broken, capsys, states):
    scenario(broken / "test", 1, ["q1,train0001", "q9,train0009"], database)
    scenario(broken / "test", 2, ["other,train0009"])
    lenient(broken, capsys)
    for state in states:
        (broken / "s.csv").write_bytes(state)
        found = pd.read_csv(broken / "s.csv").query_id.value_counts().to_dict()
        assert found.pop("other") > 0 and found == rows and breaches(broken / "s.csv", broken / "test")[0] == []


def test_a_query_that_stands_there_twice_is_asked_once(broken, capsys):
    predicted(broken, broken / "once.csv"), capsys.readouterr()
    edited(broken / "test" / "queries" / "scenario01.csv", lambda table: pd.concat([table, table[:1]]))
    assert lenient(broken, capsys, "queries/scenario01.csv: line ").read_bytes() == (broken / "once.csv").read_bytes()
    strict(broken, capsys, "stands there twice")


def test_a_database_image_that_stands_there_twice_counts_once(broken, capsys):
    predicted(broken, broken / "once.csv"), capsys.readouterr()
    edited(broken / "test" / "databases" / "scenario02.csv", lambda table: pd.concat([table, table[:2]]))
    assert lenient(broken, capsys, "databases/scenario02.csv: line ").read_bytes() == (broken / "once.csv").read_bytes()
    strict(broken, capsys, "stands there twice")


def test_a_query_id_of_two_scenarios_is_asked_in_the_first(broken, capsys):
    predicted(broken, broken / "once.csv"), capsys.readouterr()
    first = pd.read_csv(broken / "test" / "queries" / "scenario01.csv")[:1]
    edited(broken / "test" / "queries" / "scenario02.csv", lambda table: pd.concat([table, first]))
    assert lenient(broken, capsys, f"query_id {first.query_id[0]} stands in another scenario too").read_bytes() == (broken / "once.csv").read_bytes()
    strict(broken, capsys, "stands in another scenario too")


@pytest.mark.parametrize("change", [lambda text: text.replace(b"\n", b"\r\n"), lambda text: b"\xef\xbb\xbf" + text,
                                    lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n").rstrip()])
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(change, broken, capsys):
    predicted(broken, broken / "plain.csv"), capsys.readouterr()
    for path in (broken / "test").rglob("*.csv"):
        path.write_bytes(change(path.read_bytes()))
    assert lenient(broken, capsys).read_bytes() == (broken / "plain.csv").read_bytes()


# Models that fail

def damaged(weights, name):
    content = (weights / f"{name}.npz").read_bytes()
    (weights / f"{name}.npz").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("kind", ["cut", "without spec", "spec of another", "spec cut"])
def test_a_damaged_model_is_left_out_and_the_others_rank(kind, fold, tmp_path, capsys):
    competition(tmp_path), shutil.copytree(fold / "weights", tmp_path / "weights")
    spec = tmp_path / "weights" / "small.json"
    if kind == "cut":
        damaged(tmp_path / "weights", "small")
    elif kind == "without spec":
        spec.unlink()
    elif kind == "spec of another":
        spec.write_text(spec.read_text().replace("test_efficientnet", "test_resnet"))
    else:
        spec.write_text(spec.read_text()[:100])
    output = lenient(tmp_path, capsys, "small: left out: ")
    assert_complete(output, tmp_path / "test")
    shutil.rmtree(tmp_path / "weights"), shutil.copytree(fold / "weights", tmp_path / "weights")
    for path in (tmp_path / "weights").glob("small.*"):
        path.rename(tmp_path / path.name)
    assert predicted(tmp_path, tmp_path / "two.csv").read_bytes() == output.read_bytes()


def test_with_all_models_damaged_the_databases_order_stays_and_the_exit_status_is_1(fold, tmp_path, capsys):
    competition(tmp_path), shutil.copytree(fold / "weights", tmp_path / "weights")
    for name in NAMES:
        damaged(tmp_path / "weights", name)
    with pytest.raises(SystemExit) as stopped:
        run(lambda: predicted(tmp_path, tmp_path / "s.csv"))
    assert "no model got in" in stopped.value.code and capsys.readouterr().err.count("left out") == 3
    assert ranked(tmp_path / "s.csv") == in_the_databases_order(tmp_path / "test")
    strict(tmp_path, capsys, "large.npz")


def test_a_device_that_gives_up_costs_one_model(fold, tmp_path, monkeypatch, capsys):
    embeddings = TorchEngine.embeddings

    def failing(self, batch, mirrored):
        if self.spec.name == "large":
            raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")
        return embeddings(self, batch, mirrored)

    monkeypatch.setattr(TorchEngine, "embeddings", failing)
    predicted(fold, tmp_path / "s.csv")
    said = capsys.readouterr()
    assert said.err == "warning: large: left out: CUDA error: device-side assert triggered Compile with TORCH_USE_CUDA_DSA\n"
    assert said.out.endswith("1 warnings; ranks with small, slip\n")
    assert_complete(tmp_path / "s.csv", fold / "test")


def test_embeddings_that_are_no_numbers_cost_only_themselves(fold, tmp_path, monkeypatch, capsys):
    embeddings, bad = TorchEngine.embeddings, {"large": np.inf, "small": np.nan}
    monkeypatch.setattr(TorchEngine, "embeddings", lambda self, batch, mirrored: embeddings(self, batch, mirrored) * bad.get(self.spec.name, 1))
    predicted(fold, tmp_path / "s.csv")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in lines] == [" large", " large, mirror images", " small", " small, mirror images"]
    assert all("24 of 24 embeddings are not finite" in line for line in lines)
    assert_complete(tmp_path / "s.csv", fold / "test")
    alone = tmp_path / "weights"
    alone.mkdir()
    for path in (fold / "weights").glob("slip.*"):
        shutil.copy(path, alone)
    assert ranked(predicted(fold, tmp_path / "alone.csv", weights=alone)) == ranked(tmp_path / "s.csv")


def test_a_models_embeddings_that_are_no_numbers_leave_those_of_the_others(capsys):
    random = np.random.default_rng(0)
    good, bad = ({"plain": random.normal(size=(5, 4)).astype(np.float32)} for _ in range(2))
    bad["plain"][2, 1], bad["plain"][3, 0] = np.nan, -np.inf
    kept = {"plain": np.where(np.isfinite(bad["plain"]).all(axis=1, keepdims=True), bad["plain"], 0)}
    way = recipe.Predict(normalise=True, mirror="off")
    np.testing.assert_array_equal(fusion.combined([(way, good), (way, bad)]), fusion.combined([(way, good), (way, kept)]))
    assert "2 of 5 embeddings are not finite" in capsys.readouterr().err


def test_without_one_finite_embedding_the_file_is_valid(fold, tmp_path, monkeypatch):
    embeddings = TorchEngine.embeddings
    monkeypatch.setattr(TorchEngine, "embeddings", lambda self, batch, mirrored: embeddings(self, batch, mirrored) * np.nan)
    assert_complete(predicted(fold, tmp_path / "s.csv"), fold / "test")


# Timings

def timings(fold, folder, *options):
    predicted(fold, folder / "s.csv", "--timings", folder / "t.json", *options)
    return json.loads((folder / "t.json").read_text())


def test_timings_make_up_the_whole_and_name_every_pass(fold, tmp_path, monkeypatch):
    took = []
    told_of = predict.timings
    monkeypatch.setattr(predict, "timings", lambda seconds, *rest: took.append(seconds) or told_of(seconds, *rest))
    told = timings(fold, tmp_path)
    assert told["images"] == 24 and told["embed_seconds"] + told["rank_seconds"] + told["write_seconds"] == pytest.approx(took[0])
    within = [told[f"{phase}_seconds"] for phase in ("load", "decode", "forward")]
    assert min(within) > 0 and sum(within) < told["embed_seconds"]
    assert {name: set(seconds) for name, seconds in told["models"].items()} == dict.fromkeys(NAMES, {"plain_seconds", "mirror_seconds"})
    assert sum(second for seconds in told["models"].values() for second in seconds.values()) == pytest.approx(told["forward_seconds"])


def test_seconds_go_to_the_pass_that_took_them(fold, tmp_path, monkeypatch):
    """A clock that only the engines and the writing move: an hour a batch, a day a file."""
    now, embeddings, write = [0.0], TorchEngine.embeddings, predict.write_table

    def moved(seconds, result):
        now[0] += seconds
        return result

    monkeypatch.setattr(TorchEngine, "embeddings", lambda self, batch, mirrored: moved(3600 * sum(1 + side for side in mirrored), embeddings(self, batch, mirrored)))
    monkeypatch.setattr(predict, "write_table", lambda table, path: moved(86400, write(table, path)))
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(pixels, "BATCH", 8)
    told = timings(fold, tmp_path, "--time-limit", 1000)
    assert told["models"] == dict.fromkeys(NAMES, {"plain_seconds": 3 * 3600, "mirror_seconds": 6 * 3600})
    assert (told["forward_seconds"], told["write_seconds"]) == (3 * 9 * 3600, 7 * 86400)  # a file before any model, one a pass
    assert told["embed_seconds"] == told["forward_seconds"] and told["rank_seconds"] == told["decode_seconds"] == told["load_seconds"] == 0
    assert timings(fold, tmp_path)["models"] == dict.fromkeys(NAMES, dict.fromkeys(("plain_seconds", "mirror_seconds"), 4.5 * 3600))  # at once: half of it each


def test_a_pass_that_failed_is_not_among_the_models_timings(fold, tmp_path, monkeypatch):
    embeddings = TorchEngine.embeddings

    def failing(self, batch, mirrored):
        if self.spec.name == "small" and True in mirrored or self.spec.name == "large":
            raise RuntimeError("no such device")
        return embeddings(self, batch, mirrored)

    monkeypatch.setattr(TorchEngine, "embeddings", failing)
    told = timings(fold, tmp_path, "--time-limit", 1000)
    assert {name: set(seconds) for name, seconds in told["models"].items()} == {"small": {"plain_seconds"}, "slip": {"plain_seconds", "mirror_seconds"}}
    assert told["forward_seconds"] >= sum(second for seconds in told["models"].values() for second in seconds.values())
