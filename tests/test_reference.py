"""The slow side of the benchmarks against the predictor, the definition of the score and naive loops; and what is timed, by turns."""

import argparse
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy
from eval import bench as command
from eval import rules, score
from eval.benchmarks import ranking as timed_ranking
from eval.benchmarks import rounds
from eval.benchmarks import scoring as timed_scoring
from eval.benchmarks import throughput, zips
from eval.files import InputError, read_table
from eval.reference import network, ranking, scoring
from eval.reference import predict as reference
from solution import predict, recipe
from test_embed import ensemble, tiny

ROOT = Path(__file__).parents[1]
SPECS = (tiny("first", 1, 32), tiny("before", 0, 48, predict={"mirror": "average"}), tiny("alone", 2, 40, predict={"mirror": "off", "weight": 0.3}),
         tiny("slip", 3, 64, predict={"test_size": 32, "normalise": True}))


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """test/ (24 photographs, two scenarios), truth.csv and weights/ (four models, joined in as many ways)."""
    fold = tmp_path_factory.mktemp("fold")
    toy.scenarios(toy.competition(fold / "test")).to_csv(fold / "truth.csv", index=False)
    ensemble(fold / "weights", *SPECS)
    return fold


def answered(main, data, weights, output, *options):
    ours = ["--engine", "torch", "--no-cache"] if main is predict.main else []  # nothing is exported for it
    main([str(word) for word in ["--data", data, "--weights", weights, "--output", output, "--device", "cpu", "--workers", 0, *ours, *options]])
    return read_table(output)


def one_line(done, code, *words):
    assert done.returncode == code and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def run(module, *words, cwd=ROOT):
    return subprocess.run([sys.executable, "-m", module, *map(str, words)], cwd=cwd, capture_output=True, text=True)


# The predictor's answers, the published way

def test_it_answers_as_the_predictor_does(fold, tmp_path):
    ours = answered(predict.main, fold / "test", fold / "weights", tmp_path / "ours.csv")
    theirs = answered(reference.main, fold / "test", fold / "weights", tmp_path / "theirs.csv", "--timings", tmp_path / "t.json")
    same = rounds.agreement(ours, theirs)
    assert same["rows"] == len(theirs) and same["rows_that_differ"] == 0 and same["largest_similarity_difference"] < 1e-5
    spent = json.loads((tmp_path / "t.json").read_text())
    assert list(spent) == ["load_seconds", "decode_seconds", "forward_seconds", "rank_seconds", "write_seconds"] and min(spent.values()) > 0


def test_its_file_breaks_no_rule_and_misses_no_query(fold, tmp_path):
    answered(reference.main, fold / "test", fold / "weights", tmp_path / "s.csv")
    evaluation = score.evaluate(tmp_path / "s.csv", fold / "truth.csv", fold / "test")
    assert evaluation.breaches == [] and not any("missing" in warning for warning in evaluation.warnings)
    assert scoring.official(tmp_path / "s.csv", fold / "truth.csv") == pytest.approx(score.means(evaluation.per_query)["official"], abs=1e-12)


def test_boxes_turned_photographs_and_other_formats_are_seen_alike(tmp_path):
    data = toy.competition(tmp_path / "data")
    toy.scenarios(data)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    Image.open(data / table.path[0]).save(data / table.path[0], exif=turned())
    Image.open(data / table.path[1]).convert("L").save(data / "images" / "grey.png")
    edges = pd.DataFrame([["5", "3.6", "30", "33"], ["-4", "2", "999", "31.5"]] + [[""] * 4] * (len(table) - 2), columns=["x0", "y0", "x1", "y1"])
    table.assign(path=[table.path[0], "images/grey.png", *table.path[2:]], **edges).to_csv(data / "metadata.csv", index=False)
    ensemble(tmp_path / "weights", SPECS[0])
    ours, theirs = (answered(main, data, tmp_path / "weights", tmp_path / "s.csv") for main in (predict.main, reference.main))
    assert rounds.agreement(ours, theirs)["largest_similarity_difference"] < 1e-5


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_processes_that_decode_change_no_byte(fold, tmp_path):
    answered(reference.main, fold / "test", fold / "weights", tmp_path / "0.csv")
    answered(reference.main, fold / "test", fold / "weights", tmp_path / "2.csv", "--workers", 2)
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_each_model_opens_each_photograph_and_looks_at_it_twice(fold, tmp_path, monkeypatch):
    opened, seen = [], []
    square, forward = network.Photographs.square, network.Network.forward
    monkeypatch.setattr(network.Photographs, "square", lambda self, number: opened.append(number) or square(self, number))
    monkeypatch.setattr(network.Network, "forward", lambda self, images: seen.append(images.clone()) or forward(self, images))
    answered(reference.main, fold / "test", fold / "weights", tmp_path / "s.csv")
    assert len(opened) == 24 * len(SPECS) and len(seen) == 2 * 3 + 1  # the model `alone` sees no mirror images
    before, mirrored = seen[:2]
    assert before.shape == (24, 3, 48, 48) and before.is_contiguous() and np.array_equal(before.numpy()[..., ::-1], mirrored.numpy())


def test_pooling_and_neck_are_the_published_formula(fold):
    net = network.loaded(reference.read_spec(fold / "weights" / "first.json"), fold / "weights")
    images = network.torch.rand(2, 3, 32, 32)
    with network.torch.no_grad():
        maps, found = [maps.numpy().astype(float) for maps in net.backbone(images)], net(images).numpy()
    pooled = np.concatenate([(np.maximum(part, 1e-6) ** 3).mean(axis=(2, 3)) ** (1 / 3) for part in maps], axis=1)
    with np.load(fold / "weights" / "first.npz") as arrays:
        mean, var, scale, shift = (arrays[f"necks.0.0.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    assert found == pytest.approx((pooled - mean) / np.sqrt(var + 1e-5) * scale + shift, rel=1e-4, abs=1e-4)


def test_it_imports_nothing_of_the_predictor():
    sources = {path: path.read_text() for path in (ROOT / "eval").rglob("*.py")}
    assert len(sources) > 20 and not [path for path, text in sources.items() if re.search(r"^\s*(from|import) solution", text, re.MULTILINE)]


def test_help_comes_without_anything_heavy():
    code = "import sys; from eval.reference.predict import main\ntry: main(['--help'])\nfinally: print(sorted({'torch', 'timm', 'sklearn', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "example: python -m eval.reference" in done.stdout and done.stdout.endswith("[]\n") and done.returncode == 0


@pytest.mark.parametrize("differences, words", [
    ({"model": {"parts": 4}}, "model.parts is 4; the reference renders only models with 1 there"), ({"model": {"grey": True}}, "model.grey is True"),
    ({"model": {"box_margin": 0.1}}, "model.box_margin is 0.1"), ({"model": {"part_width": 512}}, "model.part_width is 512")])
def test_models_of_another_kind_are_refused(differences, words, tmp_path):
    (tmp_path / "m.json").write_text(json.dumps(recipe.plain(tiny("m", 0, 32, **differences))))
    (tmp_path / "m.npz").touch()
    with pytest.raises(InputError, match=words):
        reference.read_specs(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": {}, "predict": {}}', "7"])
def test_a_spec_that_is_none_is_told(content, tmp_path):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InputError, match="m.json: not the spec of a model"):
        reference.read_spec(tmp_path / "m.json")


def damaged_image(data, weights):
    next((data / "images").iterdir()).write_bytes(b"no image")


def missing_image(data, weights):
    next((data / "images").iterdir()).unlink()


def other_weights(data, weights):
    np.savez(weights / "m.npz", some=np.zeros(3))


def pickled_weights(data, weights):
    np.savez(weights / "m.npz", some=np.array([{}], object))


def no_zip(data, weights):
    (weights / "m.npz").write_text("weights")


def no_models(data, weights):
    (weights / "m.npz").unlink()


def no_scenarios(data, weights):
    (data / "query_scenarios.csv").unlink()


def path_outside(data, weights):
    table = pd.read_csv(data / "metadata.csv")
    table.assign(path=["../secret.jpg", *table.path[1:]]).to_csv(data / "metadata.csv", index=False)


def image_unknown(data, weights):
    pd.read_csv(data / "metadata.csv")[1:].to_csv(data / "metadata.csv", index=False)


@pytest.mark.parametrize("damage, words", [
    (damaged_image, "not a readable image"), (missing_image, "is missing"), (other_weights, "m.npz: not the weights of test_efficientnet"),
    (pickled_weights, "m.npz: not the weights"), (no_zip, "m.npz: not the weights"), (no_models, "no models here"), (no_scenarios, "has no query_scenarios.csv"),
    (path_outside, "path must lie inside"), (image_unknown, "which has no row")])
def test_what_is_wrong_is_one_line(damage, words, tmp_path):
    data = toy.competition(tmp_path / "data", n_whales=3)
    toy.scenarios(data)
    damage(data, ensemble(tmp_path / "weights", tiny("m", 0, 32)))
    with pytest.raises(InputError) as told:
        answered(reference.main, data, tmp_path / "weights", tmp_path / "s.csv", *(["--workers", 1] if damage is damaged_image else []))
    assert words in str(told.value) and "\n" not in str(told.value) and not (tmp_path / "s.csv").exists()


def test_bad_input_is_exit_status_2(fold, tmp_path):
    one_line(run("eval.reference", "--data", fold / "test", "--weights", tmp_path, "--output", tmp_path / "s.csv"), 2, "no models here")


# Ranking

def test_each_query_gets_the_20_nearest_images_but_its_own():
    random = np.random.default_rng(0)
    rows, ids = random.standard_normal((40, 6), np.float32), [f"i{number}" for number in range(40)]
    scenarios = rules.Scenarios(pd.DataFrame({"query_id": ["a-i0", "a-i39", "b-i1"], "query_image_id": ["i0", "i39", "i1"], "scenario_id": list("aab")}),
                                pd.DataFrame({"database_image_id": [*ids[:30], *ids[:5]], "scenario_id": ["a"] * 30 + ["b"] * 5}))
    found = ranking.submission(scenarios, pd.DataFrame(rows, index=ids))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for query, own, database in (("a-i0", 0, range(30)), ("a-i39", 39, range(30)), ("b-i1", 1, range(5))):
        cosine = {ids[image]: float(unit[own] @ unit[image]) for image in database if image != own}
        best = sorted(cosine, key=lambda image: -cosine[image])[:20]
        mine = found[found.query_id == query]
        assert list(mine.database_image_id) == best and 2 * mine.score.to_numpy() - 1 == pytest.approx([cosine[image] for image in best], abs=1e-6)


# Scoring: the table of what the organisers' scorer gives

def official(tmp_path, rows, truth):
    pd.DataFrame(rows, columns=["query_id", "database_image_id", "score"]).to_csv(tmp_path / "s.csv", index=False)
    pd.DataFrame(truth, columns=["query_id", "database_image_id"]).to_csv(tmp_path / "t.csv", index=False)
    found = scoring.official(tmp_path / "s.csv", tmp_path / "t.csv")
    evaluated = score.means(score.evaluate(tmp_path / "s.csv", tmp_path / "t.csv").per_query)["official"]
    assert evaluated == pytest.approx(found, abs=1e-12)
    return found


def in_order(hits, query="q"):
    return [(query, f"{'hit' if place in hits else 'miss'}{place}", 1 - place / 100) for place in range(1, 1 + max([*hits, 20]))]


def matches(hits, n_pos, query="q"):
    names = [f"hit{place}" for place in hits]
    return [(query, name) for name in names + [f"other{number}" for number in range(n_pos - len(names))]]


@pytest.mark.parametrize("hits, n_pos, expected", [
    ([1, 3, 10], 3, (1 + 2 / 3 + 3 / 10) / 3), (range(1, 21), 40, 1), (range(1, 11), 40, .5), ([1], 5, .2), ([23], 1, 1 / 23), (range(1, 26), 25, 1.25), ([], 3, 0)])
def test_one_query_is_worth_what_the_organisers_give(hits, n_pos, expected, tmp_path):
    assert official(tmp_path, in_order(hits), matches(hits, n_pos)) == pytest.approx(expected, abs=1e-12)


def test_equal_scores_are_one_step(tmp_path):
    assert official(tmp_path, [("q", f"i{number}", .5) for number in range(20)], [("q", "i7")]) == pytest.approx(.05)
    assert official(tmp_path, [("q", "a", .9), ("q", "b", .5), ("q", "c", .5), ("q", "d", .1)], [("q", "c")]) == pytest.approx(1 / 3)


def test_a_query_that_only_one_of_the_two_names_is_left_out(tmp_path):
    rows, truth = in_order([1, 3], "q") + in_order([], "r"), matches([1, 3], 2, "q") + matches([], 4, "absent")
    assert official(tmp_path, rows, truth) == pytest.approx((1 + 2 / 3) / 2)


# By turns

def test_works_run_by_turns_and_each_round_backwards():
    order = []
    spent = rounds.by_turns({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert order == list("abccbaabc") and {name: found.shape for name, found in spent.items()} == dict.fromkeys("abc", (3, 2))
    assert all((found >= 0).all() for found in spent.values())


def test_processor_seconds_of_children_count():
    work = "import time\nwhile time.process_time() < 0.3: pass"
    spent = rounds.by_turns({"child": lambda: subprocess.run([sys.executable, "-c", work])}, 1)["child"]
    assert spent[0, 1] >= 0.3


def test_ratios_are_theirs_by_ours_round_by_round():
    told = rounds.ratios(np.array([[1, 2], [2, 2], [4, 2.]]), np.array([[3, 2], [8, 4], [8, 8.]]))
    assert (told["ratio"], told["ratio_least"], told["ratio_most"], told["ratio_of_rounds"]) == (3, 2, 4, [3, 4, 2]) and told["cpu"]["ratio_of_rounds"] == [1, 2, 4]
    assert rounds.seconds(np.array([[3, 0], [1, 0], [2, 0]])) == 2 and rounds.seconds(np.array([[-1, 0]])) is None


def rows_of(scores, images="abcd"):
    return pd.DataFrame({"query_id": "q", "database_image_id": list(images)[:len(scores)], "score": [str(value) for value in scores]})


def test_agreement_is_of_rows_and_of_places():
    same = rounds.agreement(rows_of([.9, .5, .4]), rows_of([.5, .9, .40002], "bac"))
    assert same == {"rows": 3, "rows_that_differ": 0, "largest_similarity_difference": pytest.approx(4e-5)}
    assert rounds.agreement(rows_of([.9, .5, .4]), rows_of([.9, .5, .40001], "abx"))["rows_that_differ"] == 1


def test_of_photographs_that_are_alike_any_may_come_last():
    assert rounds.agreement(rows_of([.9, .4, .4], "abc"), rows_of([.9, .4, .4], "abd")) == {"rows": 3, "rows_that_differ": 1, "largest_similarity_difference": 0}
    with pytest.raises(SystemExit, match="differ by 2.0e-01"):  # c, at .5, is not among theirs, which end with .4
        rounds.agreement(rows_of([.9, .5, .4], "acd"), rows_of([.9, .5, .4], "aed"))


@pytest.mark.parametrize("theirs, words", [
    (rows_of([.9, .5, .3]), "similarities differ by 2.0e-01"), (rows_of([.9, .5, .3], "abx"), "differ by 2.0e-01"), (rows_of([.5, .9, .4]), "differ by 8.0e-01"),
    (rows_of([.9, .5]), "do not answer the same"), (rows_of([.9, .5, .4]).assign(query_id="r"), "do not answer the same")])
def test_other_answers_end_a_benchmark(theirs, words):
    with pytest.raises(SystemExit, match=words):
        rounds.agreement(rows_of([.9, .5, .4]), theirs)


# The ranking benchmark

def test_ratios_are_of_ranking_alone_and_the_drawn_queries_stand_for_all():
    ours, whole, slow, bare = [2.0, 1.0, 4.0], [5.0, 3.0, 6.0], .5, [1.0, .8, 2.0]
    both = lambda seconds: np.array([seconds, seconds]).T
    timings = pd.DataFrame({"rank_seconds": ours, "read_seconds": [1, 2, 3], "join_seconds": .5, "write_seconds": .25})
    told = timed_ranking.told(timings, {"ours": both(whole), "reference": both([50 * slow] * 3), "product": both(bare)}, 80, 50)
    assert told["ratio_of_rounds"] == [20, 40, 10] and (told["ratio"], told["ratio_least"], told["ratio_most"]) == (20, 10, 40)
    assert (told["seconds"], told["reference_seconds"], told["bare_product_seconds"]) == (2, 80 * slow, 1)
    assert told["times_bare_product_of_rounds"] == [2, 1.25, 2] and told["times_bare_product"] == 2 and told["times_bare_product_least"] == 1.25
    assert (told["read_seconds"], told["join_seconds"], told["write_seconds"]) == (2, .5, .25)
    assert told["whole_command_seconds"] == 5 and told["ratio_of_whole_command"] == 8


@pytest.mark.parametrize("queries, images", [(2100, 5), (7, 12), (1024, 3)])
def test_the_bare_product_is_of_all_queries(queries, images, monkeypatch):
    blocks, matmul = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda *args, **options: blocks.append(matmul(*args, **options).copy()))
    rows = np.random.default_rng(0).standard_normal((max(queries, images), 4), np.float32)
    timed_ranking.product(rows[:queries], rows[:images], np.empty((1024, images), np.float32))
    assert np.concatenate(blocks) == pytest.approx(rows[:queries] @ rows[:images].T, abs=1e-5)


def test_drawn_queries_are_the_same_every_time_and_of_those_that_ask():
    rows, ids = np.random.default_rng(0).standard_normal((90, 4), np.float32), np.array([f"train{number:05}" for number in range(90)])
    one, other = (timed_ranking.Reference(rows, ids, 30, slice(9, 80)) for _ in range(2))
    assert one.queries.equals(other.queries) and len(one.queries) == 50 and one.queries.query_image_id.isin(ids[9:80]).all() and one.queries.query_id.is_unique
    one()
    assert one.answers.groupby("query_id").size().eq(20).all() and one.answers.database_image_id.isin(ids[:30]).all()
    answers = one.answers
    one(3)
    assert one.answers.equals(answers[:60])


@pytest.mark.parametrize("queries, images, asking", [(60, 40, range(60)), (20, 40, range(40, 60))])
def test_new_photographs_ask_a_database_that_is_larger_than_what_asks(queries, images, asking, monkeypatch):
    asked, write_scenario = [], timed_ranking.write_scenario
    monkeypatch.setattr(timed_ranking, "write_scenario", lambda *scenario: asked.append(scenario) or write_scenario(*scenario))
    told = timed_ranking.measured(argparse.Namespace(shape=(queries, images, 4), repeats=1))
    assert [list(ids) for ids in asked[0][:2]] == [[f"train{number:05}" for number in part] for part in (asking, range(images))]
    assert told["rows_that_differ"] == 0 and told["ratio"] > 0


def benched(*words):
    done = run("eval.bench", *words)
    assert done.returncode == 0, done.stderr
    return done, json.loads(done.stdout.splitlines()[-1])


def test_a_ranking_is_one_object_and_agrees_with_the_reference(tmp_path):
    done, told = benched("ranking", "--shape", "60,40,16", "--repeats", 1, "--json", tmp_path / "r.json")
    assert told == json.loads((tmp_path / "r.json").read_text()) and told["benchmark"] == "ranking" and told["shape"] == [60, 40, 16]
    assert told["reference_queries"] == 50 and told["rows"] == 1000 and told["rows_that_differ"] == 0 and told["largest_similarity_difference"] < 1e-6
    assert len(told["ratio_of_rounds"]) == 1 and told["peak_mb"] > 20 and told["threads"] >= 1 and told["machine"]["cores"] >= 1 and told["packages"]["numpy"]
    assert told["reference_seconds"] > 0 and told["bare_product_seconds"] > 0 and told["whole_command_seconds"] > 0


@pytest.mark.parametrize("text", ["4419", "4419,3400", "4419,3400,8543", "1,3400,8544", "4419,1,8544", "4419,3400,x", "4419,3400,8544,2"])
def test_a_shape_that_is_none_is_told_at_once(text, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "ranking", "--shape", text])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2 and "is not three numbers above 1" in capsys.readouterr().err


# The scoring benchmark

def test_the_made_up_tables_have_the_numbers_of_the_hidden_test(tmp_path):
    rows, truth = (read_table(path) for path in timed_scoring.write_tables(tmp_path, timed_scoring.QUERIES))
    assert len(rows) == 88380 and len(truth) == 93277 and rows.query_id.nunique() == truth.query_id.nunique() == 4419
    assert not rows.duplicated(["query_id", "database_image_id"]).any() and not truth.duplicated().any()
    assert rows.groupby("query_id").size().eq(20).all() and rows.duplicated(["query_id", "score"]).any()
    assert .1 < rows.merge(truth).shape[0] / len(rows) < .9


def test_the_same_number_of_queries_gives_the_same_bytes(tmp_path):
    one, other = (timed_scoring.write_tables(tmp_path / name, 30) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_scoring_is_one_object_and_equal_to_the_official_way(tmp_path):
    done, told = benched("scoring", "--queries", 40, "--repeats", 2, "--json", tmp_path / "s.json")
    assert told == json.loads((tmp_path / "s.json").read_text()) and told["benchmark"] == "scoring" and told["rows"] == 800 and told["truth_rows"] == 844
    assert told["official"] == pytest.approx(told["reference_official"], abs=1e-12) and 0 < told["official"] < 1
    assert len(told["ratio_of_rounds"]) == 2 and told["seconds"] > 0 and told["reference_seconds"] > 0 and told["bare_reading_seconds"] > 0


def test_a_score_that_differs_is_no_benchmark(monkeypatch):
    way = scoring.official
    monkeypatch.setattr(scoring, "official", lambda *tables: way(*tables) + 1e-9)
    with pytest.raises(SystemExit, match="a faster wrong number is none"):
        timed_scoring.measured(argparse.Namespace(queries=20, repeats=1))


@pytest.mark.parametrize("name", ["ranking", "scoring"])
def test_their_help_comes_without_anything_heavy(name):
    code = f"import sys; from eval import bench; sys.argv = ['bench', '{name}', '--help']\n" \
           "try: bench.main()\nfinally: print(sorted({'torch', 'cv2', 'scipy', 'sklearn', 'onnxruntime', 'matplotlib', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert f"example: python -m eval.bench {name}" in done.stdout and done.stdout.endswith("[]\n") and done.returncode == 0


# The reference as a zip

@pytest.fixture(scope="module")
def packed(fold, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "ours.zip"
    assert run("submission.pack", "--weights", fold / "weights", "--output", path).returncode == 0
    return path


def test_the_reference_runs_alone_on_the_weights_of_a_submission(packed, fold, tmp_path):
    path = zips.reference(packed, tmp_path / "reference.zip")
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(packed) as theirs:
        weights = [name for name in theirs.namelist() if name.startswith("weights/")]
        assert weights and all(ours.read(name) == theirs.read(name) for name in weights)
        assert not any(name.startswith("solution/") for name in ours.namelist())
        ours.extractall(tmp_path / "alone")
    (tmp_path / "alone" / "data").symlink_to(fold / "test")
    alone = "import runpy, sys; sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]; runpy.run_path('main.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", alone], cwd=tmp_path / "alone", env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answered(predict.main, fold / "test", tmp_path / "alone" / "weights", tmp_path / "ours.csv")
    same = rounds.agreement(read_table(tmp_path / "ours.csv"), read_table(tmp_path / "alone" / "submission" / "submission.csv"))
    assert same["rows_that_differ"] == 0 and same["largest_similarity_difference"] < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "ours.csv", "reference.zip"]


def test_a_zip_without_weights_has_no_reference(tmp_path):
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("main.py", "")
    with pytest.raises(InputError, match="no weights/MODEL.npz"):
        zips.reference(tmp_path / "s.zip", tmp_path / "r.zip")


@pytest.mark.slow
def test_a_submission_and_the_reference_run_by_turns(packed, fold):
    done, told = benched("inference", "--submission", packed, "--compare", "reference", "--data", fold / "test", "--sizes", "6,12", "--repeats", 1)
    assert (told["submission"], told["compare"]["submission"]) == ("ours.zip", "reference.zip") and told["largest_similarity_difference"] < 1e-4
    assert told["order"] == ["submission 6", "compare 6", "submission 12", "compare 12"] and told["compare"]["shares"]["decode"] > 0


class Played:
    """Instead of runs: the reference takes five times as long, and answers a little differently."""

    def __init__(self, folder, time_limit):
        pass

    def __call__(self, path, size):
        theirs = path.name == "reference.zip"
        return throughput.Run(5 * size if theirs else size, 1, 1, None, rows_of([.9, .50001 if theirs else .5]))


@pytest.mark.parametrize("named", [{}, {"compare": Path("reference")}])
def test_the_reference_is_what_is_measured_against_where_no_zip_is_named(named, packed, fold, monkeypatch):
    monkeypatch.setattr(throughput, "untrained", lambda folder: packed)
    monkeypatch.setattr(throughput, "Player", Played)
    named = {"submission": packed if named else None, "compare": None, **named}
    told = throughput.measured(argparse.Namespace(**named, data=fold / "test", sizes=(6, 12), repeats=2, time_limit=60))
    assert (told["submission"], told["compare"]["submission"], told["ratio"]) == ("ours.zip", "reference.zip", 5)
    assert told["largest_similarity_difference"] == pytest.approx(2e-5) and told["rows_that_differ"] == 0


@pytest.mark.slow
def test_the_untrained_zip_is_three_models_of_three_sizes_with_mirror_images(tmp_path):
    with zipfile.ZipFile(zips.untrained(tmp_path)) as archive:
        specs = [json.loads(archive.read(name)) for name in archive.namelist() if re.fullmatch(r"weights/[^/]*\.json", name)]
    assert {spec["model"]["backbone"]: spec["train"]["size"] for spec in specs} == {f"tf_efficientnet_lite{n}": size for n, size in enumerate((224, 240, 260))}
    assert [spec["predict"]["mirror"] for spec in specs] == ["concatenate"] * 3
