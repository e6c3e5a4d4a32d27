"""Rehearsing submissions: a packed one here and in the organisers' versions, and crafted ones that would fool the official entry point."""

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import toy
import toy_names
from eval import score
from submission import archive, confinement, runtime
from submission import rehearse as rehearsal
from test_embed import ensemble, tiny

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
VALID = """
import csv, os
def rows(path):
    return list(csv.DictReader(open("data/" + path)))
with open("submission/submission.csv", "w") as file:
    print("query_id,database_image_id,score", file=file)
    for scenario in rows("query_scenarios.csv"):
        for query in rows(scenario["queries_path"]):
            images = [row["database_image_id"] for row in rows(scenario["database_path"])]
            for place, image in enumerate([image for image in images if image != query["query_image_id"]][:20]):
                print(query["query_id"], image, 0.9 - place / 100, sep=",", file=file)
"""


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    fold = tmp_path_factory.mktemp("fold")
    toy.scenarios(toy.competition(fold / "test")).to_csv(fold / "truth.csv", index=False)
    return fold


def rehearse(submission, fold, output, *options, runtime="current", **environment):
    words = [sys.executable, "-m", "submission.rehearse", submission, "--data", fold / "test", "--output", output, "--runtime", runtime, *options]
    return subprocess.run(list(map(str, words)), cwd=ROOT, env={**ENVIRONMENT, **environment}, capture_output=True, text=True)


def crafted(path, code):
    """A zip of nothing but a main.py."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("main.py", code)
    return path


def report(output):
    return json.loads((output / "rehearsal.json").read_text())


def log(output):
    return (output / "submission" / "log.txt").read_text()


def one_line(done, words, code):
    lines = done.stderr.strip().splitlines()
    assert done.returncode == code and len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0], done.stderr


def files(folder):
    return {path: (path.stat().st_mode, path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in [folder, *folder.rglob("*")]}


# A packed submission

@pytest.fixture(scope="module")
def packed(fold):
    """A submission in full precision of two models that the organisers' timm knows too."""
    specs = [tiny(name, place, size, model={"backbone": "tf_efficientnet_lite0"}) for place, (name, size) in enumerate([("one", 32), ("two", 48)])]
    ensemble(fold / "weights", *specs)
    words = ["-m", "submission.pack", "--weights", fold / "weights", "--output", fold / "submission.zip", "--precision", "full"]
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=ENVIRONMENT, check=True)
    return fold / "submission.zip"


@pytest.fixture(scope="module")
def here(fold, packed):
    """The folder of a rehearsal in the project's own environment."""
    before = files(fold)
    done = rehearse(packed, fold, fold / "here", "--truth", fold / "truth.csv")
    assert done.returncode == 0, done.stderr
    after = files(fold)
    assert {path: after[path] for path in before if path != fold} == {path: before[path] for path in before if path != fold}
    assert {path for path in set(after) - set(before)} == set(files(fold / "here"))
    return fold / "here"


def test_a_rehearsal_reports_what_the_organisers_would_see(here, fold):
    told, rows = report(here), pd.read_csv(here / "submission" / "submission.csv")
    assert told["passed"] and told["exit_code"] == 0 and told["strict_errors"] == told["warnings"] == [] and told["rows"] == len(rows)
    evaluation = score.evaluate(here / "submission" / "submission.csv", fold / "truth.csv", fold / "test")
    assert told["score"] == score.summarise(evaluation.per_query, [])
    assert {"unpack", "copy the data", "main.py", *(f"main.py: {phase}" for phase in rehearsal.PHASES)} == set(told["seconds"])
    assert told["seconds"]["main.py"] > told["seconds"]["main.py: embed"] > 0 and told["peak_mb"] > 100
    assert "ranks with one, two" in log(here) and not (here / "data").exists()


def test_the_organisers_versions_give_the_same_similarities_and_the_same_best_20(here, fold, packed, organisers_python):
    done = rehearse(packed, fold, fold / "there", "--truth", fold / "truth.csv", runtime="drivendata")
    assert done.returncode == 0, done.stderr
    assert "Python 3.9" in report(fold / "there")["runtime"] and "torch 1.8.0, timm 0.5.4" in report(fold / "there")["runtime"]
    ours, theirs = (pd.read_csv(folder / "submission" / "submission.csv").set_index(["query_id", "database_image_id"]).score for folder in (here, fold / "there"))
    both = ours.index.intersection(theirs.index)
    np.testing.assert_allclose(2 * ours[both], 2 * theirs[both], atol=1e-4)  # a score is (1 + cos) / 2
    for one, other in ((ours, theirs), (theirs, ours)):
        alone = one.drop(both)
        last = other.groupby("query_id").min()
        np.testing.assert_allclose(2 * alone, 2 * last[alone.index.get_level_values(0)], atol=1e-4)  # ties with the 20th


def test_a_limit_too_short_for_one_model_fails_with_a_valid_file_before_it_is_killed(fold, packed, tmp_path):
    done = rehearse(packed, fold, tmp_path / "out", "--time-limit", 2.5)
    told = report(tmp_path / "out")
    assert done.returncode == 1 and told["killed"] is None and told["exit_code"] == 1 and told["rows"] > 0 and told["strict_errors"] == []
    assert told["seconds"]["main.py"] < 2.5


# Names

@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A fold that asks for names, and a submission that gives them; a model with mirror images and without a classifier, and one as Humpback's."""
    specs = tiny("bare", 0, 32, model={"backbone": "tf_efficientnet_lite0"}), toy_names.striped("striped", 1, 64, "tf_efficientnet_lite0")
    fold = toy_names.fold(tmp_path_factory.mktemp("named"), *specs)
    words = ["-m", "submission.pack", "--weights", fold / "weights", "--output", fold / "submission.zip", "--precision", "full"]
    subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=ENVIRONMENT, check=True)
    return fold


def test_names_are_the_same_here_and_in_the_organisers_versions(named, tmp_path, organisers_python):
    answers = []
    for name in ("current", "drivendata"):
        done = rehearse(named / "submission.zip", named, tmp_path / name, "--truth", named / "truth.csv", runtime=name)
        assert done.returncode == 0 and "names with bare, striped" in log(tmp_path / name), done.stderr
        told, rows = report(tmp_path / name), tmp_path / name / "submission" / "submission.csv"
        evaluation = score.evaluate(rows, named / "truth.csv")
        assert told["passed"] and told["warnings"] == [] and told["score"] == score.summarise(evaluation.per_query, []) and 0 < told["score"]["official"] < 1
        assert f"{told['score']['official']:.4f}" in done.stdout
        answers.append(pd.read_csv(rows))
    ours, theirs = answers
    assert list(ours.Image) == list(theirs.Image) and (ours.Id == theirs.Id).mean() >= 0.9  # rounding decides between names that are as near


def most_photographed(fold):
    """`new_whale` and the four names that stand most often in the gallery, the first of the alphabet where as often."""
    whales = np.load(fold / "weights" / "gallery" / "bare.npz")["whale_id"].tolist()
    return ["new_whale", *sorted(set(whales) - {""}, key=lambda whale: (-whales.count(whale), whale))[:4]]


@pytest.mark.parametrize("name", ["current", "drivendata"])
def test_a_limit_too_short_for_one_model_leaves_the_most_photographed_names(named, tmp_path, name, request):
    if name == "drivendata":
        request.getfixturevalue("organisers_python")
    done = rehearse(named / "submission.zip", named, tmp_path / "out", "--time-limit", 2.3, "--truth", named / "truth.csv", runtime=name)
    told, rows = report(tmp_path / "out"), pd.read_csv(tmp_path / "out" / "submission" / "submission.csv")
    assert done.returncode == 1 and told["killed"] is None and told["exit_code"] == 1 and told["seconds"]["main.py"] < 2.3
    assert told["strict_errors"] == told["warnings"] == [] and len(rows) == len(pd.read_csv(named / "truth.csv"))
    assert set(rows.Id) == {" ".join(most_photographed(named))}


NAMES = """
import csv
rows = list(csv.DictReader(open("data/metadata.csv")))
with open("submission/submission.csv", "w") as file:
    print("Image,Id", file=file)
    for row in rows:
        print(row["path"].split("/")[-1], "new_whale a b c d", sep=",", file=file)
"""


@pytest.mark.parametrize("code, words", [
    (NAMES + "print('other.jpg,a', file=open('submission/submission.csv', 'a'))", "image other.jpg: not an image of the truth"),
    (NAMES.replace(" d", " d e"), "more than 5 labels"),
    (NAMES.replace(" d", " a"), "a label is given twice"),
    (NAMES.replace("Image,Id", "Id,Image"), "the header is 'Id,Image', not 'Image,Id' or 'image,predictions'"),
    (VALID.replace("query_scenarios.csv", "metadata.csv"), "main.py exited 1"),
])
def test_names_that_break_a_rule_fail_with_and_without_a_truth(named, tmp_path, code, words):
    for options in ([], ["--truth", named / "truth.csv"]):
        one_line(rehearse(crafted(tmp_path / "s.zip", code), named, tmp_path / f"out{len(options)}", *options), words, 1)


def test_valid_names_pass_with_and_without_a_truth_and_missing_ones_are_told(named, tmp_path):
    valid, some = crafted(tmp_path / "s.zip", NAMES), crafted(tmp_path / "some.zip", NAMES.replace("in rows", "in rows[1:]"))
    assert rehearse(valid, named, tmp_path / "a").returncode == 0 and report(tmp_path / "a")["score"] is None
    assert rehearse(valid, named, tmp_path / "b", "--truth", named / "truth.csv").returncode == 0
    truth = pd.read_csv(named / "truth.csv")
    assert report(tmp_path / "b")["score"]["strict"] == pytest.approx((truth.Id == "new_whale").mean())
    done = rehearse(some, named, tmp_path / "c")
    assert done.returncode == 0 and "photographs that are asked and missing: 1" in done.stdout


def test_a_truth_of_the_other_kind_is_refused_before_anything_runs(fold, named, tmp_path):
    zipped = crafted(tmp_path / "s.zip", NAMES)
    one_line(rehearse(zipped, named, tmp_path / "out", "--truth", fold / "truth.csv"), "truth.csv: its answers are rankings, those that", 2)
    one_line(rehearse(zipped, fold, tmp_path / "out", "--truth", named / "truth.csv"), "truth.csv: its answers are names, those that", 2)
    assert not (tmp_path / "out").exists()


# What fools the official entry point

@pytest.mark.parametrize("code, words", [
    ("", "no such file"),
    (VALID + "print('q,x,0.5', file=open('submission/submission.csv', 'a'))", "no scenario asks this query"),
    (VALID.replace("0.9", "1.9"), "is not a number from 0 to 1"),
    (VALID.replace("query_id,database_image_id,score", "database_image_id,query_id,score"), "the header is"),
    (VALID.replace("image for image in images if image != query[\"query_image_id\"]", "query[\"query_image_id\"]"), "given as its own match"),
    ("print('query_id,database_image_id,score', file=open('submission/submission.csv', 'w'))", "no rows"),
    ("open('submission/submission.csv', 'wb').write(b'\\xff\\xfe')", "not a readable CSV"),
    (VALID + "raise SystemExit(3)", "main.py exited 3"),
    (VALID + "import signal; os.kill(os.getpid(), signal.SIGSEGV)", "main.py exited -11"),
])
def test_a_submission_that_would_score_nothing_fails_although_the_entry_point_exits_0(fold, tmp_path, code, words):
    done = rehearse(crafted(tmp_path / "s.zip", code), fold, tmp_path / "out")
    one_line(done, words, 1)
    assert report(tmp_path / "out")["passed"] is False


def test_a_valid_file_passes_with_and_without_a_truth_and_missing_queries_are_told(fold, tmp_path):
    archive = crafted(tmp_path / "s.zip", VALID)
    assert rehearse(archive, fold, tmp_path / "a").returncode == 0
    assert rehearse(archive, fold, tmp_path / "b", "--truth", fold / "truth.csv").returncode == 0
    assert report(tmp_path / "a")["score"] is None and 0 < report(tmp_path / "b")["score"]["strict"] < 1
    some = crafted(tmp_path / "some.zip", VALID.replace("rows(scenario[\"queries_path\"])", "rows(scenario[\"queries_path\"])[1:]"))
    done = rehearse(some, fold, tmp_path / "c")
    assert done.returncode == 0 and "queries that are asked and missing: 2" in done.stdout


@pytest.mark.parametrize("options, code, words", [
    (["--time-limit", 1], VALID + "import subprocess; subprocess.Popen(['/bin/sleep', '60.25']); __import__('time').sleep(60)", "the time limit of 1 s"),
    (["--memory", 0.3], VALID + "held = [b'x' * 10_000_000 for _ in range(1000)]", "the memory limit of 0.3 GB"),
])
def test_a_limit_that_is_passed_kills_it(fold, tmp_path, options, code, words):
    done = rehearse(crafted(tmp_path / "s.zip", code), fold, tmp_path / "out", *options)
    one_line(done, f"killed at {words}", 1)
    told = report(tmp_path / "out")
    assert told["killed"] == words and told["exit_code"] == -9 and told["strict_errors"] == [] and told["seconds"]["main.py"] < 10
    assert not running("/bin/sleep", "60.25")


def running(*command):
    """The processes of a command; they are found by their words, since in namespaces they have other numbers."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [process] * ((process / "cmdline").read_bytes() == b"".join(word.encode() + b"\0" for word in command))
    return found


# Zips that are not unpacked

def entry(path, name, content=b"", **attributes):
    info = zipfile.ZipInfo(name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("main.py", VALID)
        archive.writestr(info, content)
        for key, value in attributes.items():
            setattr(info, key, value)  # the list at the end of the zip is written after this
    return path


@pytest.mark.parametrize("make, words", [
    (lambda path: entry(path, "/etc/passwd-of-a-test"), "leads out of the folder"),
    (lambda path: entry(path, "../outside"), "leads out of the folder"),
    (lambda path: entry(path, "a/../../outside"), "leads out of the folder"),
    (lambda path: entry(path, "..\\outside"), "leads out of the folder"),
    (lambda path: entry(path, "link", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16), "is a link"),
    (lambda path: entry(path, "pipe", external_attr=(stat.S_IFIFO | 0o666) << 16), "is a link or another special file"),
    (lambda path: entry(path, "bomb", b"0", file_size=1 << 40), "are unpacked"),
    (lambda path: entry(path, "weights/a.npz", b"0", flag_bits=1), "is encrypted"),
    (lambda path: entry(path, "main.py"), "is in it twice"),
    (lambda path: entry(path, "data/metadata.csv"), "leave it out"),
    (lambda path: path.write_bytes(b"PK no zip") and path, "not a readable zip"),
    (lambda path: path.write_bytes(entry(path, "x", b"1" * 9999).read_bytes()[:-30]) and path, "not a readable zip"),
    (lambda path: damaged(entry(path, "x", b"1" * 9999)), "not a readable zip"),
    (lambda path: path, "no such file"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_or_damaged_zip_is_refused_with_one_line(fold, tmp_path, make, words):
    one_line(rehearse(make(tmp_path / "s.zip"), fold, tmp_path / "deep" / "out"), words, 2)
    assert not list(tmp_path.rglob("outside")) and not (tmp_path / "deep").exists() and not Path("/etc/passwd-of-a-test").exists()


def damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_a_zip_without_main_at_its_root_is_refused(fold, tmp_path):
    for name, words in (("mine.py", "no main.py at its root"), ("submission/main.py", "it is in submission/main.py: zip what is in the folder")):
        with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
            archive.writestr(name, VALID)
        one_line(rehearse(tmp_path / "s.zip", fold, tmp_path / "out"), words, 2)
        assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_and_one_within_the_data_are_refused(fold, tmp_path):
    zipped = crafted(tmp_path / "s.zip", VALID)
    one_line(rehearse(zipped, fold, tmp_path), "is not empty", 2)
    before = files(fold / "test")
    one_line(rehearse(zipped, fold, fold / "test" / "out"), "lie in each other", 2)
    one_line(rehearse(zipped, fold, fold), "lie in each other", 2)
    one_line(rehearse(zipped, fold, tmp_path / "out", "--truth", tmp_path / "none.csv"), "none.csv: no such file", 2)
    assert files(fold / "test") == before


# Confinement

REACH = VALID + """
import socket, urllib.request
for reach in (lambda: socket.create_connection(("127.0.0.1", PORT), 3), lambda: socket.create_connection(("1.1.1.1", 53), 3),
              lambda: urllib.request.urlopen("http://127.0.0.1:PORT", timeout=3), lambda: socket.socket(socket.AF_INET6).connect(("::1", PORT)),
              lambda: socket.getaddrinfo("pypi.org", 443)):
    try:
        reach()
        print("reached")
    except OSError as error:
        print("unreachable")
one, other = socket.socketpair()
one.send(b"within"), print(other.recv(6).decode())
"""


def allowed() -> bool:
    """Whether this system lets one make network namespaces."""
    return subprocess.run([*confinement.NAMESPACE, "true"], capture_output=True).returncode == 0


@pytest.mark.parametrize("path, words", [(os.environ["PATH"], "namespace"), ("/nonexistent", "sockets switched off")])
def test_the_network_cannot_be_reached_from_inside(fold, tmp_path, path, words):
    if words == "namespace" and not allowed():
        pytest.skip("this system allows no network namespaces")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        code = REACH.replace("PORT", str(server.getsockname()[1]))
        done = rehearse(crafted(tmp_path / "s.zip", code), fold, tmp_path / "out", PATH=path)
    assert done.returncode == 0, done.stderr
    assert log(tmp_path / "out").split() == ["unreachable"] * 5 + ["within"] and words in report(tmp_path / "out")["network"]


def test_data_are_read_only_threads_are_limited_and_the_log_has_everything(fold, tmp_path):
    code = VALID + """
    import pathlib, sys
    for path in ("data/metadata.csv", "data/new"):
        try:
            open(path, "a").write("x")
            print("written")
        except OSError:
            print("refused", file=sys.stderr)
    print(os.environ["OMP_NUM_THREADS"], len(os.sched_getaffinity(0)), "SECRET" in os.environ, "PYTHONPATH" in os.environ)
    print(pathlib.Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], sorted(os.listdir(".")), os.path.realpath(".") == os.environ["HOME"])
    """.replace("\n    ", "\n")
    before = files(fold / "test")
    done = rehearse(crafted(tmp_path / "s.zip", code), fold, tmp_path / "out", SECRET="1")
    assert done.returncode == 0 and files(fold / "test") == before
    lines, few = sorted(log(tmp_path / "out").splitlines()), min(6, len(os.sched_getaffinity(0)))
    assert f"{few} {few} False False" in lines and f"{'0' * 16} ['data', 'main.py', 'submission'] True" in lines
    assert lines.count("refused") == 2 or not allowed() and os.geteuid() == 0  # root without namespaces writes where it likes


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="only root can become nobody, in an interpreter that nobody may start")
@pytest.mark.parametrize("path", [os.environ["PATH"], "/nonexistent"])
def test_root_rehearses_as_nobody(fold, tmp_path, monkeypatch, capsys, path):
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(runtime, "python_of", lambda name: Path("/usr/bin/python3"))
    zipped = crafted(tmp_path / "s.zip", VALID + "print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])")
    with tempfile.TemporaryDirectory() as reachable:
        os.chmod(reachable, 0o755)
        output = Path(reachable) / "out"
        monkeypatch.setattr(sys, "argv", ["rehearse", str(zipped), "--data", str(fold / "test"), "--output", str(output)])
        rehearsal.main()
        assert report(output)["user"] == "nobody" and log(output).split() == ["65534", "0" * 16]
        assert (output / "submission" / "submission.csv").stat().st_uid == 65534


def test_the_time_limit_is_passed_on_and_absent_without_one(fold, tmp_path):
    code = VALID + "print(os.environ.get('SUBMISSION_TIME_LIMIT'))"
    for number, (options, words) in enumerate([(["--time-limit", 77], "77"), ([], "None")]):
        assert rehearse(crafted(tmp_path / "s.zip", code), fold, tmp_path / str(number), *options).returncode == 0
        assert log(tmp_path / str(number)).strip() == words


def test_memory_is_that_of_all_processes_together(fold, tmp_path):
    code = VALID + """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "import subprocess, sys, time; held = b'x' * 150_000_000; subprocess.run([sys.executable, '-c', 'import time; held = bytes([1]) * 150_000_000; time.sleep(1)'])"])
"""
    assert rehearse(crafted(tmp_path / "s.zip", code), fold, tmp_path / "out").returncode == 0
    assert 300 < report(tmp_path / "out")["peak_mb"] < 450


# The organisers' environment

def test_without_a_python_39_it_is_one_line(fold, tmp_path):
    done = rehearse(crafted(tmp_path / "s.zip", VALID), fold, tmp_path / "out", runtime="drivendata", PATH="/nonexistent", XDG_CACHE_HOME=str(tmp_path / "cache"))
    one_line(done, "no Python 3.9 found", 2)


def test_pyenvs_stand_in_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    for name, text in (("python3.9", "exit 127"), ("pyenv", f'case $1 in root) echo {tmp_path};; versions) echo 3.8.1 3.9.7;; esac'),
                       ("versions/3.9.7/bin/python3.9", "exit 0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.python39() == str(tmp_path / "versions/3.9.7/bin/python3.9")


def test_the_environment_is_made_once_and_anew_for_other_pins(tmp_path, monkeypatch):
    made = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(runtime, "make", lambda home: (home.mkdir(), made.append(home)))
    first, second = runtime.python_of("drivendata"), runtime.python_of("drivendata")
    monkeypatch.setattr(runtime, "PINS", ("torch==1.9.0",))
    assert first == second != runtime.python_of("drivendata") and len(made) == 2 and first.is_relative_to(tmp_path)


def test_pins_that_cannot_be_installed_are_one_line_and_leave_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="could not be made.*no such package"):
        runtime.told(["sh", "-c", "echo trying >&2; echo no such package >&2; exit 1"])


# Zips, round trip

def test_a_zip_comes_out_as_it_went_in(tmp_path):
    (tmp_path / "from" / "a").mkdir(parents=True)
    content = {"b.txt": b"", "a/c.bin": np.random.default_rng(0).bytes(100_000)}
    for name, value in content.items():
        (tmp_path / "from" / name).write_bytes(value)
    archive.zipped(tmp_path / "from", list(content), tmp_path / "s.zip")
    assert archive.names(tmp_path / "s.zip") == sorted(content)
    archive.unpacked(tmp_path / "s.zip", tmp_path / "to")
    assert {name: (tmp_path / "to" / name).read_bytes() for name in content} == content
