"""The throughput benchmark: its arithmetic on given seconds, what it asks, and crafted submissions that count, fail, hang or lie."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import pandas as pd
import pytest

import toy
from eval import bench as command
from eval.benchmarks import notes, sample, speed, throughput
from eval.files import InputError, read_table
from solution import predict
from submission import archive
from test_embed import ensemble, tiny
from test_rehearse import VALID, crafted

ROOT = Path(__file__).parents[1]
NOTES = """
import json
json.dump({"load_seconds": 0.001, "decode_seconds": 0.002, "forward_seconds": 0.003, "rank_seconds": 0.004, "write_seconds": 0.005}, open("submission/timings.json", "w"))
"""
REVERSED = VALID.replace("][:20]", "][::-1][:20]")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data directory of 24 photographs with scenarios."""
    data = toy.competition(tmp_path_factory.mktemp("data") / "data")
    toy.scenarios(data)
    return data


def bench(*options, data=None, **environment):
    words = [sys.executable, "-m", "eval.bench", "inference", *(["--data", data] if data else []), *options]
    return subprocess.run(list(map(str, words)), cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def measured(folder, monkeypatch, **options):
    """The same within this process; its temporary files lie in FOLDER/tmp."""
    (folder / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    defaults = {"submission": None, "compare": None, "data": None, "sizes": (6, 12), "repeats": 1, "time_limit": 60}
    return throughput.measured(argparse.Namespace(**{**defaults, **options}))


def one_line(done, code, *words):
    assert done.returncode == code and done.stdout == "", done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and all(word in done.stderr for word in words), done.stderr


# What seconds tell

@pytest.mark.parametrize("start_up, each", [(3.0, 0.05), (0.0, 2.0), (40.0, 0.001)])
def test_seconds_that_grow_in_a_line_give_back_its_slope_and_start(start_up, each):
    told = speed.speed({256: [start_up + 256 * each] * 3, 64: [start_up + 64 * each] * 3})
    assert told["images_per_second"] == pytest.approx(1 / each) and told["seconds_per_image"] == pytest.approx(each)
    assert told["start_up_seconds"] == pytest.approx(start_up, abs=1e-9)


def test_one_run_that_was_held_up_changes_no_speed():
    assert speed.speed({10: [2, 2, 2], 20: [3, 300, 3]}) == speed.speed({10: [2, 2, 2], 20: [3, 3, 3]})


@pytest.mark.parametrize("many", [2.0, 1.9])
def test_no_speed_is_told_where_more_photographs_take_no_longer(many):
    told = speed.speed({10: [2.0], 20: [many]})
    assert told["images_per_second"] is told["seconds_per_image"] is told["start_up_seconds"] is None
    assert "20 photographs took no longer than 10" in told["no_speed"]


def test_shares_and_what_is_left_make_up_the_whole():
    assert speed.shares(10, {"decode": 1, "forward": 6.5}) == pytest.approx({"decode": .1, "forward": .65, "other": .25})
    assert speed.shares(10, {}) == {"other": 1}
    assert speed.shares(10, {"decode": 6, "forward": 4.1}) is None


def test_a_ratio_is_theirs_by_ours_in_each_round_without_what_both_sizes_have():
    ours, theirs = {10: [5, 6, 5], 20: [6, 8, 7]}, {10: [105, 9, 2], 20: [109, 11, 5]}
    assert speed.ratios(ours, theirs) == {"ratio": 1.5, "ratio_least": 1, "ratio_most": 4, "ratio_of_rounds": [4, 1, 1.5]}
    assert speed.ratios(theirs, ours)["ratio"] == pytest.approx(1 / 1.5)
    assert speed.ratios(ours, ours)["ratio_of_rounds"] == [1, 1, 1]


def test_a_round_without_speed_has_no_ratio():
    assert speed.ratios({10: [5, 5], 20: [6, 5]}, {10: [5, 5], 20: [7, 7]}) == {"ratio": 2, "ratio_least": 2, "ratio_most": 2, "ratio_of_rounds": [2, None]}
    assert speed.ratios({10: [5], 20: [4]}, {10: [5], 20: [7]}) == {"ratio": None, "ratio_least": None, "ratio_most": None, "ratio_of_rounds": [None]}


def test_rounds_that_tell_no_ratio_are_counted_where_it_is_shown(capsys):
    ours, theirs = ({size: [throughput.Run(value, value, 1, None, pd.DataFrame({"a": [1]})) for value in values] for size, values in seconds.items()}
                    for seconds in ({10: [5, 5], 20: [6, 5]}, {10: [5, 5], 20: [7, 7]}))
    throughput.show(throughput.told({"submission": "a.zip", "compare": "b.zip"}, {"submission": ours, "compare": theirs}))
    assert "b.zip, seconds: 2.00 times ours, 2.00 to 2.00 by round; only 1 of 2 rounds tell one" in capsys.readouterr().out


def test_two_submissions_run_by_turns_and_each_round_backwards():
    assert throughput.turns(["a", "b"], (1, 2), 2) == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("b", 2), ("a", 2), ("b", 1), ("a", 1)]
    assert throughput.turns(["a"], (1, 2), 3) == [("a", 1), ("a", 2), ("a", 2), ("a", 1), ("a", 1), ("a", 2)]


@pytest.mark.parametrize("text", ["", "[]", "7", '"decode_seconds"', "[" * 5000, '{"decode_seconds": 1}', *(
    json.dumps(dict.fromkeys(notes.PHASES, 1) | {"decode_seconds": value}) for value in (-1, float("nan"), float("inf"), "soon", None, [], 10**400))])
def test_timings_that_are_none_are_none(text, tmp_path):
    (tmp_path / "t.json").write_text(text)
    assert notes.noted(tmp_path / "t.json") is None and notes.noted(tmp_path / "other.json") is None


@pytest.mark.parametrize("log, engine", [
    ("engine: onnx (on a CPU)\nall done\n", "onnx (on a CPU)"), ("warning\nengine: to\x1b[2Jrch\nengine: other\n", "to[2Jrch"), ("the engine: none\n", None), ("", None)])
def test_the_engine_is_what_the_program_says_it_is(log, engine, tmp_path):
    (tmp_path / "log.txt").write_text(log)
    assert notes.engine_of(tmp_path / "log.txt") == engine


def test_the_ratio_of_whole_runs_has_their_start_in_it():
    runs = {which: {size: [throughput.Run(start + size * each, 1, 1, None, pd.DataFrame({"query_id": ["q"], "database_image_id": ["a"]}))] for size in (10, 20)}
            for which, start, each in (("submission", 20, 1), ("compare", 20, 4))}
    told = throughput.told({"submission": "a", "compare": "b"}, runs)
    assert (told["ratio"], told["ratio_with_start_up"]) == (4, 100 / 40)


# What is asked

def test_both_sizes_ask_each_of_their_photographs_against_all_of_them(data, tmp_path):
    sample.write_sizes(data, (5, 12), tmp_path)
    small, large = (read_table(tmp_path / size / "metadata.csv") for size in ("5", "12"))
    assert list(small.image_id) == list(large.image_id[:5]) and len(large) == 12
    assert list(large) == ["image_id", "path", "height", "width", "viewpoint", "date"]
    path = read_table(data / "metadata.csv").set_index("image_id").path
    for row in large.itertuples():
        assert (tmp_path / "12" / row.path).read_bytes() == (data / path[row.image_id]).read_bytes()
    scenario, = read_table(tmp_path / "12/query_scenarios.csv").itertuples()
    queries, database = (read_table(tmp_path / "12" / path) for path in (scenario.queries_path, scenario.database_path))
    assert set(queries.query_image_id) == set(database.database_image_id) == set(large.image_id) and queries.query_id.is_unique


def test_the_same_data_and_sizes_give_the_same_bytes(data, tmp_path):
    contents = []
    for name in ("one", "other"):
        sample.write_sizes(data, (5, 12), tmp_path / name)
        contents.append({path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()})
    assert contents[0] == contents[1]


def test_fewer_photographs_than_asked_for_are_repeated_by_ids_of_their_own(data, tmp_path, capsys):
    sample.write_sizes(data, (24, 60), tmp_path)
    assert capsys.readouterr().err == "24 photographs are there: they are repeated to make 60\n"
    small, large = (read_table(tmp_path / size / "metadata.csv") for size in ("24", "60"))
    assert large.image_id.is_unique and large.path.is_unique and len(large) == 60 and list(small.image_id) == list(large.image_id[:24])
    content = [(tmp_path / "60" / path).read_bytes() for path in large.path]
    assert len(set(content[:24])) == 24 and content[24:48] == content[:24] and content[48:] == content[:12]
    asked = read_table(tmp_path / "60/queries/scenario01.csv")
    assert set(asked.query_image_id) == set(large.image_id) and asked.query_id.is_unique


def test_ids_of_repeated_photographs_are_their_own_whatever_ids_there_are():
    table, files = sample.repeated(pd.DataFrame({"image_id": ["a", "a.1", "a.0", "a.1.0"]}), list("wxyz"), 11)
    assert table.image_id.is_unique and files == list("wxyzwxyzwxy")


def test_without_scenarios_names_are_asked(data, tmp_path):
    alone = toy.competition(tmp_path / "data")
    sample.write_sizes(alone, (5, 12), tmp_path)
    assert sorted(path.name for path in (tmp_path / "5").iterdir()) == ["images", "metadata.csv"]
    sample.write_sizes(alone, (5, 12), tmp_path / "ranked", ranked=True)
    assert sorted(path.name for path in (tmp_path / "ranked/5").iterdir()) == ["databases", "images", "metadata.csv", "queries", "query_scenarios.csv"]


@pytest.mark.parametrize("change, words", [
    (lambda table: table.assign(path=["../secret.jpg", *table.path[1:]]), "metadata.csv: line 2: '../secret.jpg': path must lie inside"),
    (lambda table: table.assign(path=["images/none.jpg", *table.path[1:]]), "images/none.jpg is missing"),
    (lambda table: table.assign(image_id=[table.image_id[1], *table.image_id[1:]]), "line 3: 'train0001': another row has this image_id too"),
    (lambda table: table[:2], "2 photographs are there"),
    (lambda table: table.drop(columns="path"), "column 'path' is missing"),
])
def test_data_that_cannot_be_measured_on_are_refused(change, words, tmp_path):
    data = toy.competition(tmp_path / "data")
    change(pd.read_csv(data / "metadata.csv", dtype=str)).to_csv(data / "metadata.csv", index=False)
    with pytest.raises(InputError, match=words):
        sample.write_sizes(data, (5, 12), tmp_path)


# Whole runs

@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    """Two crafted submissions by turns: the command's outcome, its --json file and the folder for temporary files."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "tmp").mkdir()
    fresh = "import os\nassert sorted(os.listdir()) == ['data', 'main.py', 'submission'] and os.listdir('submission') == []\nopen('kept', 'w')\n"
    sizes = "assert len(os.listdir('data/images')) in (6, 12)\n"
    crafted(folder / "ours.zip", fresh + sizes + VALID + NOTES), crafted(folder / "theirs.zip", fresh + sizes + REVERSED)
    options = ["--submission", folder / "ours.zip", "--compare", folder / "theirs.zip", "--sizes", "12,6", "--repeats", 2, "--json", folder / "b.json"]
    return bench(*options, data=data, TMPDIR=str(folder / "tmp")), folder


def test_the_last_line_is_one_object_and_that_of_the_file(compared):
    done, folder = compared
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == json.loads((folder / "b.json").read_text())
    assert told["benchmark"] == "inference" and told["threads"] >= 1 and told["repeats"] == 2
    assert told["machine"]["processor"] and told["machine"]["cores"] >= 1 and told["python"] and told["packages"]["pandas"] == pd.__version__


def test_both_are_told_apart_and_in_the_order_in_which_they_ran(compared):
    told = json.loads((compared[1] / "b.json").read_text())
    assert (told["submission"], told["compare"]["submission"]) == ("ours.zip", "theirs.zip")
    assert told["order"] == ["submission 6", "compare 6", "submission 12", "compare 12", "compare 12", "submission 12", "compare 6", "submission 6"]
    for figures in (told, told["compare"]):
        assert {size: len(seconds) for size, seconds in figures["seconds_by_size"].items()} == {"6": 2, "12": 2}
        assert set(figures["peak_mb_by_size"]) == {"6", "12"} and {"images_per_second", "seconds_per_image", "start_up_seconds"} <= set(figures)
    assert len(told["ratio_of_rounds"]) == 2 and {"ratio", "ratio_least", "ratio_most"} <= set(told)


def test_shares_are_of_the_whole_and_absent_with_a_word_where_nothing_was_noted(compared):
    done, folder = compared
    told = json.loads((folder / "b.json").read_text())
    assert list(told["shares"]) == ["loading", "decode", "forward", "ranking", "writing", "other"] and sum(told["shares"].values()) == pytest.approx(1)
    assert told["shares"]["writing"] == pytest.approx(5 * told["shares"]["loading"])
    assert told["compare"]["shares"] is None and "decode_seconds" in told["compare"]["no_shares"] and told["compare"]["no_shares"] in done.stdout


def test_rows_that_only_one_has_are_counted(compared):
    """Of 12 photographs, 11 candidates a query: all are ranked, in whatever order."""
    told = json.loads((compared[1] / "b.json").read_text())
    assert (told["rows"], told["rows_that_differ"]) == (12 * 11, 0)
    ours, theirs = (pd.DataFrame({"query_id": ["q", "q", "r"], "database_image_id": ids}) for ids in (list("abc"), list("bdc")))
    runs = {which: {1: [throughput.Run(1, 1, 1, None, answers)], 2: [throughput.Run(2, 3, 1, None, answers)]} for which, answers in (("submission", ours), ("compare", theirs))}
    both = throughput.told({"submission": "a", "compare": "b"}, runs)
    assert (both["rows"], both["rows_that_differ"], both["ratio"], both["cpu"]["ratio"]) == (3, 1, 1, 1)


def test_nothing_stays_behind_but_what_was_asked_for(compared):
    assert sorted(path.name for path in compared[1].iterdir()) == ["b.json", "ours.zip", "theirs.zip", "tmp"]
    assert list((compared[1] / "tmp").iterdir()) == []


def test_memory_of_a_child_is_seen_and_a_single_submission_has_no_ratio(data, tmp_path):
    child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'held = bytes([1]) * 200_000_000'])\n"
    done = bench("--submission", crafted(tmp_path / "s.zip", child + VALID), "--sizes", "6,12", "--repeats", 1, data=data)
    told = json.loads(done.stdout.splitlines()[-1])
    assert all(200 < peak < 300 for peak in told["peak_mb_by_size"].values()) and told["ratio"] is None and "compare" not in told


def test_names_are_measured_too(tmp_path, monkeypatch):
    code = "import csv\nwith open('submission/submission.csv', 'w') as file:\n    print('Image,Id', file=file)\n" \
           "    for row in csv.DictReader(open('data/metadata.csv')): print(row['path'][7:] + ',a b c d new_whale', file=file)\n"
    told = measured(tmp_path, monkeypatch, submission=crafted(tmp_path / "s.zip", code), data=toy.competition(tmp_path / "data"))
    assert told["submission"] == "s.zip" and set(told["peak_mb_by_size"]) == {6, 12}


def test_what_the_predictor_notes_is_what_is_read(data, tmp_path):
    ensemble(tmp_path / "weights", tiny("m", 0, 32))
    options = {"--data": data, "--weights": tmp_path / "weights", "--output": tmp_path / "s.csv", "--timings": tmp_path / "t.json", "--device": "cpu", "--workers": 0, "--engine": "torch"}
    predict.main([str(word) for option in options.items() for word in option])
    found = notes.noted(tmp_path / "t.json")
    assert list(found) == ["loading", "decode", "forward", "ranking", "writing"] and all(seconds > 0 for seconds in found.values())


@pytest.mark.slow
def test_a_packed_submission_tells_where_its_time_goes(data, tmp_path):
    ensemble(tmp_path / "weights", tiny("m", 0, 32))
    pack = [sys.executable, "-m", "submission.pack", "--weights", tmp_path / "weights", "--output", tmp_path / "s.zip"]
    subprocess.run(list(map(str, pack)), cwd=ROOT, check=True, capture_output=True)
    done = bench("--submission", tmp_path / "s.zip", "--sizes", "6,12", "--repeats", 1, data=data)
    told = json.loads(done.stdout.splitlines()[-1])
    assert all(share > 0 for share in told["shares"].values()) and sum(told["shares"].values()) == pytest.approx(1)


# What is refused

@pytest.mark.parametrize("code, words", [
    ("print('loading'); raise SystemExit('no \\x1b[2Jweights')", "main.py exited 1 on 6 photographs: no [2Jweights"),
    ("import os; os._exit(3)", "main.py exited 3 on 6 photographs: it said nothing"),
    ("import time; print('thinking', flush=True); time.sleep(600)", "main.py was killed at the time limit of 2 s on 6 photographs: thinking"),
    ("print('done')", "main.py exited 0 on 6 photographs, but its answer is not valid: submission/submission.csv: no such file"),
    (VALID.replace("0.9 - place / 100", "7"), "but its answer is not valid: 30 of 30 rows, the first is line 2"),
    (VALID.replace("in rows(scenario[\"queries_path\"])", "in rows(scenario[\"queries_path\"])[1:]"), "queries that are asked and missing: 1"),
])
def test_a_submission_that_fails_is_one_line_with_its_last_words(code, words, data, tmp_path, monkeypatch):
    path = crafted(tmp_path / "s.zip", code)
    with pytest.raises(SystemExit, match=re.escape(words)) as stopped:
        measured(tmp_path, monkeypatch, submission=path, data=data, time_limit=2 if "thinking" in code else 60)
    assert stopped.value.code.startswith(f"error: {path}: ") and "\n" not in stopped.value.code
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_failure_is_exit_status_1_and_one_line(data, tmp_path):
    path = crafted(tmp_path / "s.zip", "import sys; print('one', 'two', sep='\\n'); sys.exit(7)")
    one_line(bench("--submission", path, "--sizes", "6,12", data=data), 1, f"{path}: main.py exited 7 on 6 photographs: two")


def zip_of(path, *names):
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, VALID)
    return path


@pytest.mark.parametrize("names, words", [
    (["main.py", "../../outside.py"], "'../../outside.py' leads out of the folder"),
    (["main.py", "data/metadata.csv"], "holds data/"),
    (["folder/main.py"], "no main.py at its root"),
    (["main.py", *(f"{number}" for number in range(archive.MOST_FILES))], "at most 10000 of"),
    ([], "no main.py"),
])
def test_a_hostile_zip_is_refused_before_anything_runs(names, words, data, tmp_path, monkeypatch):
    hostile, good = zip_of(tmp_path / "hostile.zip", *names), crafted(tmp_path / "good.zip", "raise SystemExit('ran')")
    with pytest.raises(InputError, match=f"hostile.zip.*{re.escape(words)}"):
        measured(tmp_path, monkeypatch, submission=good, compare=hostile, data=data)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["good.zip", "hostile.zip", "tmp"]


@pytest.mark.parametrize("submission, place, words", [
    ("text.zip", "data", "text.zip: not a readable zip"), ("none.zip", "data", "none.zip: no such file"), ("good.zip", "none", "metadata.csv: no such file")])
def test_what_is_no_zip_and_what_is_not_there_are_refused(submission, place, words, data, tmp_path, monkeypatch):
    (tmp_path / "text.zip").write_text("main.py")
    crafted(tmp_path / "good.zip", VALID)
    with pytest.raises(InputError, match=words):
        measured(tmp_path, monkeypatch, submission=tmp_path / submission, data=data.parent / place)


def test_bad_input_is_exit_status_2_and_one_line(tmp_path):
    one_line(bench("--submission", tmp_path / "none.zip"), 2, "none.zip: no such file")


@pytest.mark.parametrize("options, words", [
    (["--sizes", "64"], "'64' is not two different numbers"), (["--sizes", "64,64"], "'64,64' is not two"), (["--sizes", "1,64"], "above 1"),
    (["--sizes", "2,3,x"], "is not two"), (["--repeats", "0"], "'0' is not a whole number above 0"), (["--repeats", "x"], "'x' is not"),
])
def test_bad_usage_is_told_at_once(options, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "inference", *options])
    with pytest.raises(SystemExit) as stopped:
        command.main()
    assert stopped.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_it_leaves_no_file_and_no_process(stop, data, tmp_path):
    (tmp_path / "tmp").mkdir()
    sleep = f"import time; time.sleep(600)  # {tmp_path}"
    code = f"import subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', {sleep!r}])\nopen('started', 'w').close()\nchild.wait()"
    words = [sys.executable, "-m", "eval.bench", "inference", "--submission", crafted(tmp_path / "s.zip", code), "--data", data, "--sizes", "6,12"]
    listening = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job has it ignored
    process = subprocess.Popen(list(map(str, words)), cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}, stderr=subprocess.PIPE, text=True, preexec_fn=listening)
    while not list((tmp_path / "tmp").glob("bench-*/run/started")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    assert running(sleep)
    process.send_signal(stop)
    assert "Traceback" not in process.communicate(timeout=60)[1] and process.returncode in (1, 143)
    assert list((tmp_path / "tmp").iterdir()) == [] and not running(sleep)


def running(code):
    """The processes that run this code; they are found by their words, since in a namespace they have other numbers."""
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    return [command for command in commands if code.encode() in command.split(b"\0")]


@pytest.mark.parametrize("words", [[], ["inference"]])
def test_help_comes_without_anything_heavy(words):
    code = f"import sys; from eval import bench; sys.argv = ['bench', *{words}, '--help']\n" \
           "try: bench.main()\nfinally: print(sorted({'torch', 'cv2', 'scipy', 'sklearn', 'onnxruntime', 'matplotlib', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "example: python -m eval.bench inference" in done.stdout.replace("\n", " ") and done.stdout.endswith("[]\n") and done.returncode == 0
