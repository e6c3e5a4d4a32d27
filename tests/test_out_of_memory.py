"""Too little memory: one line that says so and what needs less, exit status 1, and what was there before stays."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

import toy
import toy_training as toying
from hard_places import command, contents
from eval import shortage as evals
from solution import batches, embed, fusion, images, kept, known, pixels, predict, shortage
from test_embed import ensemble, tiny
from test_predict import assert_complete

ROOT = Path(__file__).parents[1]
SPECS = tiny("huge", 0, 1024), tiny("small", 1, 32)
RUNS = "--engine", "torch", "--device", "cpu", "--workers", 0, "--no-cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the commands read; test/ has a photograph of 144 megapixels, which nobody asks for but `large/`."""
    made = tmp_path_factory.mktemp("made")
    toy.scenarios(toy.competition(made / "test")).to_csv(made / "truth.csv", index=False)
    ensemble(made / "weights", *SPECS), ensemble(made / "hopeless", SPECS[0]), ensemble(made / "easy", SPECS[1])
    toy.scenarios(toy.competition(made / "large"))
    Image.new("L", (12000, 12000)).save(made / "large" / pd.read_csv(made / "large" / "metadata.csv").path[0])
    table = {"shared": {"model": {"backbone": "test_efficientnet", "pretrained": "none"}, "train": {**toying.TRAIN, "epochs": 1}},
             "models": {"tiny": {}, "huge": {"train": {"size": 512, "batch_size": 24}}}}
    (made / "recipe.yaml").write_text(yaml.safe_dump(table, sort_keys=False))
    toying.write_recipe(made / "tiny.yaml", epochs=1)
    write_embeddings(made)
    ids = [f"image{number:06d}" for number in range(200_000)]
    (made / "rows.csv").write_text("query_id,database_image_id,score\n" + "".join(f"scenario01-{image},{image},0.5\n" for image in ids))
    (made / "labels").mkdir()
    (made / "labels" / "metadata.csv").write_text("image_id,path,whale_id\n" + "".join(f"{image},{image}.jpg,whale{image[-4:]}\n" for image in ids))
    return made


def write_embeddings(made: Path, count: int = 20_000, width: int = 256) -> None:
    """20 MB in one array."""
    ids = [*pd.read_csv(made / "test" / "metadata.csv").image_id, *(f"more{number}" for number in range(count))]
    (made / "e").mkdir()
    np.savez(made / "e" / "wide.npz", image_id=np.array(ids), plain=np.ones((len(ids), width), np.float32), mirror=np.ones((len(ids), width), np.float32))


def cases(made: Path, at: Path) -> dict:
    """By name: the module, the megabytes it may take, its arguments. Each writes at/NAME."""
    data = "--data", made / "test"
    return {
        "train": ("solution.train", 200, "--recipe", made / "recipe.yaml", *data, "--output", at / "train", "--device", "cpu", "--workers", 0),
        "train large": ("solution.train", 300, "--recipe", made / "tiny.yaml", "--data", made / "large", "--output", at / "train large", "--device", "cpu", "--workers", 0),
        "predict": ("solution.predict", 300, *data, "--weights", made / "weights", *RUNS, "--output", at / "predict"),
        "predict hopeless": ("solution.predict", 300, *data, "--weights", made / "hopeless", *RUNS, "--output", at / "predict hopeless"),
        "predict strict": ("solution.predict", 300, *data, "--weights", made / "weights", *RUNS, "--output", at / "predict strict", "--strict"),
        "predict large": ("solution.predict", 300, "--data", made / "large", "--weights", made / "easy", *RUNS, "--output", at / "predict large"),
        "embed": ("solution.embed", 300, *data, "--weights", made / "weights", *RUNS, "--output", at / "embed"),
        "rank": ("solution.rank", 30, "--embeddings", made / "e", *data, "--output", at / "rank"),
        "score": ("eval.score", 40, made / "rows.csv", made / "truth.csv", "--json", at / "score"),
        "folds": ("eval.folds", 40, made / "labels", "--output", at / "folds"),
    }


EARLIER = b"what was written before"
FILES = "predict", "predict hopeless", "predict strict", "predict large", "rank", "score"


@pytest.fixture(scope="module")
def answers(made, tmp_path_factory):
    """(folder, {name: what its command said})."""
    at = tmp_path_factory.mktemp("answers")
    for name in FILES:
        (at / name).write_bytes(EARLIER)
    plan = [{"module": module, "megabytes": megabytes, "words": list(map(str, words))} for module, megabytes, *words in cases(made, at).values()]
    (made / "plan.json").write_text(json.dumps(plan))
    environment = {**toying.CHILD, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, ROOT / "tests" / "little_memory.py", made / "plan.json"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    told = {name: toying.Finished(**answer) for name, answer in zip(cases(made, at), json.loads(done.stdout.splitlines()[-1]))}
    return at, told


RELIEF = {"train": "lower train.batch_size or train.size in the recipe, or --workers", "embed": "lower --workers, or embed in parts with --shard",
          "rank": "name fewer --models, or join with --no-mirror", "score": "close other programs", "folds": "close other programs"}


@pytest.mark.parametrize("name", RELIEF)
def test_a_command_that_finds_no_memory_is_one_line_that_says_what_needs_less(name, answers):
    at, told = answers
    assert told[name].code == 1 and told[name].line.startswith("error: out of memory (") and RELIEF[name] in told[name].line
    assert not [path for path in at.iterdir() if path.name.startswith(".")]
    assert name not in FILES or (at / name).read_bytes() == EARLIER


def test_models_that_were_finished_before_stay(answers):
    at, told = answers
    assert (at / "train" / "tiny.npz").is_file() and not (at / "train" / "huge.npz").exists()
    assert not (at / "folds").exists()


def test_a_model_without_memory_is_left_out_of_a_prediction_and_the_others_answer(made, answers):
    at, told = answers
    assert told["predict"].code == 0 and told["predict"].stdout.endswith("; ranks with small\n")
    assert "warning: huge: left out: out of memory (" in told["predict"].stderr and "Traceback" not in told["predict"].stderr
    assert_complete(at / "predict", made / "test")


def test_without_memory_for_any_model_the_file_is_complete_and_the_exit_status_is_1(made, answers):
    at, told = answers
    assert told["predict hopeless"].code == 1 and "no model got in" in told["predict hopeless"].line
    assert_complete(at / "predict hopeless", made / "test")


def test_strict_a_model_without_memory_ends_the_prediction(answers):
    at, told = answers
    assert told["predict strict"].code == 1 and told["predict strict"].line.startswith("error: huge: left out: out of memory (")
    assert (at / "predict strict").read_bytes() == EARLIER


def test_a_photograph_too_large_for_the_memory_is_told_in_a_prediction_and_ends_a_training(made, answers):
    """It is no broken one: a training that passed over it would learn from other photographs on a smaller machine."""
    at, told = answers
    photograph = made / "large" / pd.read_csv(made / "large" / "metadata.csv").path[0]
    assert told["predict large"].code == 0 and f"warning: {photograph}: no memory to read it\n" in told["predict large"].stderr
    assert_complete(at / "predict large", made / "large")
    assert told["train large"].code == 1 and told["train large"].line.startswith(f"error: out of memory ({photograph}: ") and RELIEF["train"] in told["train large"].line


# How it is said

def too_many_threads():
    raise RuntimeError("can't start new thread")


def by_the_system():
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def by_pillow():
    """Not tried: it takes its memory block by block, until the system has none."""
    raise MemoryError


def by_onnxruntime():
    """As its allocator says it, where a graph is run or loaded."""
    raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... bfc_arena.cc:342 void* ... Failed to allocate memory for requested buffer of size 4096")


class Items:
    def __init__(self, work):
        self.work = work

    def __len__(self):
        return 2

    def __getitem__(self, number):
        return self.work()


def from_a_worker(work):
    return lambda: list(DataLoader(Items(work), num_workers=1))


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def too_large():
    return np.empty(1 << 60, np.uint8)


@pytest.mark.parametrize("work", [
    too_large, lambda: torch.empty(1 << 46, dtype=torch.uint8), by_pillow,
    lambda: cv2.resize(np.zeros((9, 9, 3), np.uint8), (1 << 19, 1 << 19)), lambda: bytes(1 << 60), too_many_threads, by_the_system, by_onnxruntime,
    from_a_worker(too_large), from_a_worker(killed), from_a_worker(lambda: torch.empty(1 << 46, dtype=torch.uint8))],
    ids=["numpy", "torch", "pillow", "opencv", "python", "threads", "system", "onnxruntime", "worker", "worker killed", "worker torch"])
def test_every_library_is_understood(work):
    with pytest.raises(Exception) as raised:
        work()
    assert shortage.lacks_memory(raised.value)
    told = shortage.told(raised.value)
    assert told.startswith("out of memory (") and "\n" not in told and "Traceback" not in told


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOSPC, "full", "here"), RuntimeError("shape '[2]' is invalid"), KeyError("memory")])
def test_other_failures_are_not_taken_for_it(error):
    assert not shortage.lacks_memory(error) and not evals.lacks_memory(error)


def test_a_failure_of_another_kind_stays_what_it_is(capsys):
    from eval.files import run as run_eval
    from solution.files import run

    for each in (run, run_eval):
        with pytest.raises(ZeroDivisionError):
            each(lambda: 1 / 0)


# In a prediction

def test_models_that_were_embedded_before_memory_ran_out_are_on_the_disk(made, tmp_path):
    ensemble(tmp_path / "weights", tiny("first", 0, 32), tiny("second", 1, 32))
    one = embed.Embedder.one
    with mock.patch.object(embed.Embedder, "one", lambda self, spec, *rest: too_large() if spec.name == "second" else one(self, spec, *rest)):
        done = command(embed.main, "--data", made / "test", "--weights", tmp_path / "weights", *RUNS, "--output", tmp_path / "e")
    assert done.code == 1 and done.line.startswith("error: out of memory (Unable to allocate")
    assert sorted(contents(tmp_path / "e")) == ["first.json", "first.npz"]


def test_where_not_all_photographs_can_be_held_they_are_decoded_for_each_model(made, tmp_path, monkeypatch):
    words = ["--data", made / "test", "--weights", made / "easy", *RUNS]
    predict.main(list(map(str, [*words, "--output", tmp_path / "a.csv"])))
    room, asked = pixels.room, []

    def little(views, count):
        asked.append(count)
        if len(asked) == 1:
            raise MemoryError
        return room(views, count)

    monkeypatch.setattr(pixels, "room", little)
    predict.main(list(map(str, [*words, "--output", tmp_path / "b.csv"])))
    assert asked == [24, pixels.BATCH] and (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_answers_that_find_no_memory_keep_the_best_file_so_far(made, tmp_path, monkeypatch, capsys):
    ensemble(tmp_path / "weights", tiny("first", 0, 32), tiny("second", 1, 32))
    combined = fusion.combined
    monkeypatch.setattr(fusion, "combined", lambda models: too_large() if len(models) == 2 else combined(models))
    predict.main(list(map(str, ["--data", made / "test", "--weights", tmp_path / "weights", *RUNS, "--output", tmp_path / "s.csv"])))
    said = capsys.readouterr()
    assert "warning: second: not written: out of memory (" in said.err and said.out.endswith("; ranks with first\n")
    assert_complete(tmp_path / "s.csv", made / "test")


@pytest.mark.parametrize("place", ["keep", "read"])
def test_a_cache_that_finds_no_memory_costs_nothing_but_itself(place, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = ["--data", made / "test", "--weights", made / "easy", *RUNS[:-1]]
    predict.main(list(map(str, [*words, "--output", tmp_path / "a.csv"])))
    monkeypatch.setattr(kept, place, lambda *words: too_large())
    predict.main(list(map(str, [*words, "--output", tmp_path / "b.csv"])))
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert place == "read" or "nothing is kept" not in capsys.readouterr().err  # all was known


def test_embeddings_that_find_no_memory_to_be_kept_are_used_all_the_same(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(known.np, "savez", lambda *rest, **more: too_large())
    predict.main(list(map(str, ["--data", made / "test", "--weights", made / "easy", *RUNS[:-1], "--output", tmp_path / "s.csv"])))
    said = capsys.readouterr()
    assert "warning: small: nothing is kept for the next time: out of memory (" in said.err and said.out.endswith("; ranks with small\n")


# In a training

def test_a_worker_that_the_system_kills_is_one_line(made, tmp_path):
    with mock.patch.object(batches.Augmented, "__getitem__", lambda self, key: killed()):
        done = toying.train(made / "tiny.yaml", made / "test", tmp_path / "w", "--workers", 1)
    assert done.code == 1 and done.line.startswith("error: out of memory (DataLoader worker (pid")


def test_no_memory_is_no_word_on_a_photograph(made, monkeypatch):
    path = made / "test" / pd.read_csv(made / "test" / "metadata.csv").path[0]
    monkeypatch.setattr(images, "decoded", lambda content: too_large())
    with pytest.raises(MemoryError, match=f"{path}: Unable to allocate"):
        images.read(path)
    assert contents(path) == {".": path.read_bytes()}
