"""The benchmark of networks alone: its arithmetic, the operations it counts, and the processes that run by turns."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from eval.benchmarks import forward, peak, rounds, sample, workers
from eval.files import read_table
from eval.reference import eager, network
from eval.reference import predict as reference
from test_embed import ensemble, tiny

ROOT = Path(__file__).parents[1]
ONNX, TORCH, NCHW, (LARGE, SMALL) = *forward.ENGINES.values(), forward.EAGER, forward.KEPT.values()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """DATA with 5 photographs of 32 px and WEIGHTS with a tiny model."""
    folder = tmp_path_factory.mktemp("made")
    return sample.write_drawn(folder / "data", 5, 32, ".png"), ensemble(folder / "weights", tiny("model", 0, 32))


# What rounds tell

@pytest.fixture
def told():
    spent = {ONNX: [.01, .02, .01], TORCH: [.015, .02, .02], NCHW: [.05, .08, .06], LARGE: [.02, .02, .02], SMALL: [.03, .028, .018]}
    rates = {"numpy": np.array([10., 20, 30]), "torch.mm": np.array([40., 10, 20])}
    return forward.told({name: np.array(seconds) for name, seconds in spent.items()}, 200_000_000, rates)


def test_ratios_are_of_eager_as_it_comes_and_of_the_faster_one_that_keeps_its_pages(told):
    assert (told["ratio"], told["ratio_least"], told["ratio_most"]) == pytest.approx((5, 4, 6))
    assert told["best_eager"] == LARGE and told["ratio_to_best_eager_of_rounds"] == pytest.approx([2, 1, 2]) and told["ratio_to_best_eager"] == pytest.approx(2)


def test_the_share_of_the_peak_is_of_the_fastest_product_of_its_round(told):
    shares = [.2 / seconds / fastest for seconds, fastest in zip([.01, .02, .01], [40, 20, 30])]  # GFLOP / s / (GFLOP/s)
    assert told["share_of_peak"] == pytest.approx(sorted(shares)[1]) and told["gflop_per_image"] == .2
    assert (told["peak_gflop_per_second"], told["peak_of"]) == (30, "numpy")
    assert told["engines"][NCHW]["images_per_second"] == pytest.approx(1 / .06) and told["engines"][TORCH]["ratio"] == pytest.approx(1.5)


def test_every_engine_is_a_row_to_read(told, capsys):
    forward.show({"models": {"lite": {**told, "largest_similarity_difference": 2e-6, "threads": 2}}, "size_pixels": 224, "threads": 2})
    lines = capsys.readouterr().out.splitlines()
    assert "0.200 GFLOP an image; the peak of this run is 30 GFLOP/s (numpy)" in lines[0] and "at most 2.0e-06" in lines[-1]
    assert [line.strip().startswith(name) for line, name in zip(lines[2:], (ONNX, TORCH, NCHW, LARGE, SMALL))] == [True] * 5
    assert "5.00 (4.00 to 6.00)" in lines[4]


def test_similarities_are_compared_and_a_wrong_one_ends_it():
    rows = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    assert forward.difference(rows, np.vstack([3 * rows, rows])) < 1e-6
    one, other = rows.copy(), rows.copy()
    one[2, 3] += 1e-2
    cosine = lambda rows, a, b: rows[a].astype(float) @ rows[b] / np.linalg.norm(rows[a].astype(float)) / np.linalg.norm(rows[b].astype(float))
    largest = max(abs(cosine(one, a, b) - cosine(other, a, b)) for a in range(6) for b in range(6))
    with pytest.raises(SystemExit, match=f"differ by {largest:.1e}, more than 0.0001"):
        forward.difference(one, other)


# What is computed

@pytest.mark.parametrize("backbone, size", [("test_efficientnet", 32), ("tf_efficientnet_lite0", 64), ("tf_efficientnet_b0", 64)])
def test_operations_are_those_that_pytorch_counts(backbone, size):
    spec = {"backbone": backbone, "stages": [3, 4], "gem_p": 3.0}
    model, image = network.Network(spec).eval(), torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    assert eager.flop(model, image) == counter.get_total_flops() > 0


@pytest.mark.parametrize("kind, shapes", [("MatMul", [(3, 4), (4, 5)]), ("Conv", [(2, 4, 9, 1), (5, 4, 1, 1)])])
def test_onnx_runtime_multiplies_what_it_is_given(kind, shapes):
    pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    data, weight = (np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32) for shape in shapes)
    found, = peak.node(kind, data, weight, 1)()
    wanted = data @ weight if kind == "MatMul" else np.einsum("nchw,kc->nkhw", data, weight[:, :, 0, 0])
    assert found == pytest.approx(wanted, abs=1e-5)


def test_a_rate_is_that_of_the_fastest_call(monkeypatch):
    clock = iter([0, 4, 10, 12, 20, 21, 30, 38])
    monkeypatch.setattr(peak.time, "perf_counter", lambda: next(clock))
    assert peak.rate(5e9, lambda: None) == 5


# The processes

def test_a_worker_runs_the_reference_again_and_again(made, tmp_path):
    data, weights = made
    with workers.Worker("eval.reference.eager", data, weights, 4, 3, "channels_last", tmp_path / "e.npy") as worker:
        assert worker.about["images"] == 4 and worker.about["flop_per_image"] > 0 and all(worker() > 0 for _ in range(2))
    spec, = reference.read_specs(weights)
    table = read_table(data / "metadata.csv")[:4]
    wanted, _ = network.embedded(spec, weights, table.assign(path=[str(data / path) for path in table.path]), "cpu", 0, reference.Clock())
    assert np.load(tmp_path / "e.npy") == pytest.approx(wanted, abs=1e-4)
    assert worker.process.poll() is not None


def test_a_worker_that_fails_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "fails.py").write_text("import sys\nprint('warning', file=sys.stderr)\nsys.exit('error: no models here')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with pytest.raises(SystemExit, match="^error: python -m fails: no models here$"):
        with workers.Worker("fails"):
            pass


def test_the_environment_of_a_worker_is_its_own(tmp_path, monkeypatch):
    (tmp_path / "told.py").write_text("import os\nfrom eval.benchmarks.workers import serve\nserve(None, lambda: os.environ['TOLD'])")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    with workers.Worker("told", TOLD="one") as one, workers.Worker("told", TOLD="other") as other:
        assert [one(), other(), one()] == ["one", "other", "one"]


def test_ours_is_what_the_command_notes_of_images_and_mirror_images(made, tmp_path, monkeypatch):
    noted = {"images": 5, "models": {"model": {"plain_seconds": 1, "mirror_seconds": 2}, "decoding": {"plain_seconds": 9}}}
    said = []
    monkeypatch.setattr(forward, "command", lambda *words, **environment: (said.append((words, environment)), (tmp_path / "timings.json").write_text(json.dumps(noted))))
    assert forward.embed("onnx", *made, tmp_path) == pytest.approx(.3)
    (words, environment), = said
    assert words[0] == "solution.embed" and "--no-cache" in words and environment == {"XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_works_may_say_themselves_what_they_took():
    answers = iter([[1, 2], [3, 4], [5, 6]])
    assert rounds.by_turns({"a": lambda: next(answers)}, 3, lambda work: work())["a"].tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.slow
def test_a_forward_pass_is_one_object(tmp_path):
    words = ["forward", "--models", "tf_efficientnet_lite0", "--size", "64", "--images", "8", "--repeats", "1", "--json", tmp_path / "f.json"]
    done = subprocess.run([sys.executable, "-m", "eval.bench", *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == json.loads((tmp_path / "f.json").read_text()) and told["benchmark"] == "forward" and told["threads"] >= 1
    model, = told["models"].values()
    assert model["largest_similarity_difference"] < 1e-4 and model["ratio"] == told["ratio"] > 0 and 0 < model["share_of_peak"] < 1
    assert len(model["engines"]) == 5 and len(model["peaks_gflop_per_second"]) >= 2
