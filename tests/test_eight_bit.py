"""eval.bench eight-bit: its arithmetic on commands that only pretend, what it asks for, and a whole run of a tiny model."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
from eval import bench, compare
from eval.benchmarks import eight_bit
from eval.files import InputError
from test_engines import needs_onnx

ROOT = Path(__file__).parents[1]
SPENT = {  # a model's seconds by engine, round after round, the first one to warm up
    "onnx": {"fast": [99, 3, 4, 8], "slow": [99, 1, 1, 1]},
    "onnx8": {"fast": [99, 1, 2, 2], "slow": [99, 2, 2, 1]},
}


@pytest.fixture
def folds(tmp_path):
    """Two folds, and weights of which one model is in 8 bits."""
    for number in ("0", "1"):
        fold = tmp_path / "folds" / number
        toy.scenarios(toy.competition(fold / "test", seed=int(number))).to_csv(fold / "truth.csv", index=False)
        (tmp_path / "weights" / number).mkdir(parents=True)
        (tmp_path / "weights" / number / "fast.8bit.json").write_text("{}")
    return tmp_path


@pytest.fixture
def asked(folds, monkeypatch):
    """Commands that note seconds and answer by chance, float otherwise than 8 bits: what they were asked."""
    asked = []

    def command(module, *words):
        options = dict(zip(words[::2], words[1::2])) if "--no-cache" not in words else dict(zip(*[iter(word for word in words if word != "--no-cache")] * 2))
        asked.append((module, options))
        output = options["--output"]
        output.parent.mkdir(parents=True, exist_ok=True)
        if module == "solution.rank":
            return answered(options["--data"], output, seed=len(output.parent.name))
        engine, number = options["--engine"], options["--weights"].name
        done = sum(module == "solution.embed" and (other["--engine"], other["--weights"].name) == (engine, number) for module, other in asked[:-1])
        models = {"fast": {side: SPENT[engine]["fast"][done] / 2 for side in ("plain_seconds", "mirror_seconds")}, "slow": {"plain_seconds": SPENT[engine]["slow"][done]}}
        options["--timings"].write_text(json.dumps({"models": models}))

    monkeypatch.setattr(eight_bit, "command", command)
    return asked


def answered(data, output, seed):
    random, rows = np.random.default_rng(seed), []
    for scenario in pd.read_csv(data / "query_scenarios.csv").itertuples():
        queries, database = (pd.read_csv(data / path) for path in (scenario.queries_path, scenario.database_path))
        for query in queries.itertuples():
            others = database.database_image_id[database.database_image_id != query.query_image_id]
            best = random.permutation(others)[:20]
            rows += [(query.query_id, image, 1 - rank / 100) for rank, image in enumerate(best)]
    pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"]).to_csv(output, index=False)


def arguments(folds, *numbers, repeats=3):
    return argparse.Namespace(weights=[folds / "weights" / number for number in numbers], fold=[folds / "folds" / number for number in numbers], repeats=repeats)


def test_ratios_are_of_all_passes_by_round_and_without_the_one_to_warm_up(folds, asked, capsys):
    result = eight_bit.measured(arguments(folds, "0"))
    assert result["ratio_of_rounds"] == [4 / 3, 5 / 4, 9 / 3] and result["ratio"] == 4 / 3 and result["ratio_most"] == 3
    assert result["models"]["fast"]["ratio_of_rounds"] == [3, 2, 4] and result["models"]["slow"]["ratio"] == 0.5
    assert result["in_8_bits"] == ["fast"] and result["repeats"] == 3
    eight_bit.show(result)
    told = capsys.readouterr().out
    assert "fast: in 8 bits 3.00 times as fast (2.00 to 4.00 by round)\nslow: float in both, the ratio tells what varies: 0.50\n" in told
    assert "all models: 1.33 times as fast (1.25 to 3.00 by round)\nMAP@20 " in told


def test_seconds_and_rankings_of_several_folds_are_pooled(folds, asked):
    result = eight_bit.measured(arguments(folds, "0", "1"))
    assert result["ratio_of_rounds"] == [4 / 3, 5 / 4, 9 / 3]  # twice of everything
    triples = []
    for number in ("0", "1"):
        data = folds / "folds" / number
        pair = [data / f"{engine}.csv" for engine in ("onnx", "onnx8")]
        for path in pair:
            answered(data / "test", path, seed=len(path.stem))
        triples.append((*pair, data / "truth.csv"))
    wanted, tables = compare.compare(compare.paired(triples, [None, None])), [[set(map(tuple, pd.read_csv(path).iloc[:, :2].to_numpy())) for path in triple[:2]] for triple in triples]
    assert [result[key] for key in ("map20_float", "map20_8_bits", "difference", "ci95", "p_value", "queries")] == [
        wanted[key] for key in ("a", "b", "difference", "ci95", "p_value", "n_queries")]
    assert result["rows_that_differ"] == sum(len(whole - short) for whole, short in tables) > 0 and result["rows"] == sum(len(whole) for whole, _ in tables)


def test_every_round_embeds_anew_and_by_turns_on_the_processor(folds, asked):
    eight_bit.measured(arguments(folds, "0", repeats=2))
    embeds = [options for module, options in asked if module == "solution.embed"]
    assert [options["--engine"] for options in embeds] == ["onnx", "onnx8", "onnx", "onnx8", "onnx8", "onnx"]
    assert all(options["--device"] == "cpu" and options["--data"] == folds / "folds" / "0" / "test" for options in embeds)


def test_what_cannot_be_compared_is_told_before_anything_runs(folds, asked):
    with pytest.raises(InputError, match="1 --weights, 2 --fold; give as many"):
        eight_bit.measured(argparse.Namespace(**{**vars(arguments(folds, "0", "1")), "weights": [folds / "weights" / "0"]}))
    (folds / "weights" / "0" / "fast.8bit.json").unlink()
    with pytest.raises(InputError, match="weights/0: no MODEL.8bit.json; run python -m solution.quantize first"):
        eight_bit.measured(arguments(folds, "0"))
    (folds / "folds" / "1" / "truth.csv").unlink()
    with pytest.raises(InputError, match="folds/1/truth.csv: no such file"):
        eight_bit.measured(arguments(folds, "1"))
    assert asked == []


def test_its_help_comes_without_anything_heavy():
    code = "import sys; from eval import bench; sys.argv = ['bench', 'eight-bit', '--help']\n" \
           "try: bench.main()\nfinally: print(sorted({'torch', 'cv2', 'scipy', 'sklearn', 'onnxruntime', 'matplotlib', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "example: python -m eval.bench eight-bit" in done.stdout and done.stdout.endswith("[]\n") and done.returncode == 0


@pytest.mark.slow
@needs_onnx
def test_a_whole_run_of_a_tiny_model_ends_in_one_object(folds, tmp_path, monkeypatch, capsys):
    from solution import quantize
    from test_engines import pictures, trained
    from test_quantize import FASTER, SPEC

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = trained(SPEC, tmp_path / "own")
    with FASTER:
        quantize.decided(SPEC, weights, pictures(8, 64))
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, ["eight-bit", "--weights", weights, "--fold", folds / "folds" / "0", "--repeats", 1])])
    bench.main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["ratio"] > 0 and result["in_8_bits"] == ["relu"] and result["rows"] > 100
    assert result["ci95"][0] <= result["difference"] <= result["ci95"][1]
