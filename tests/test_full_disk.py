"""Disks that are full, read-only or taken away: one line that names the file, what was there before stays, and it goes on when there is room."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

import hard_places
import toy
import toy_names
import toy_run
import toy_training as toying
from eval import folds, importers, leaderboard, report, score, step
from eval import shortage as eval_shortage
from hard_places import FULL, READ_ONLY, command, contents
from solution import embed, explain, fitting, naming, pixels, predict, rank, shortage, train
from submission import cache, pack
from test_embed import ensemble, tiny
from test_predict import assert_complete, in_the_databases_order, ranked

ROOT = Path(__file__).parents[1]
SPECS = tiny("large", 0, 48), tiny("small", 1, 32)
RUNS = "--engine", "torch", "--device", "cpu", "--workers", 0, "--no-cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the commands read: test/ with truth.csv, weights/, e/ and s.csv, folders/ of individuals, a run, a recipe."""
    made = tmp_path_factory.mktemp("made")
    toy.scenarios(toy.competition(made / "test")).to_csv(made / "truth.csv", index=False)
    ensemble(made / "weights", *SPECS)
    given = "--data", made / "test", "--weights", made / "weights"
    assert command(predict.main, *given, *RUNS, "--output", made / "s.csv", "--embeddings", made / "e").code == 0
    for row in pd.read_csv(made / "test" / "metadata.csv").itertuples():
        (made / "folders" / row.whale_id).mkdir(parents=True, exist_ok=True)
        shutil.copy(made / "test" / row.path, made / "folders" / row.whale_id)
    toy_run.make(made / "runs").rename(made / "run")
    toying.write_recipe(made / "tiny.yaml")
    return made


def words_of(name: str, made: Path, at: Path) -> list:
    """The command and its arguments, and what it writes below `at`."""
    data, given = ("--data", made / "test"), ("--weights", made / "weights")
    return {
        "train": [train.main, "--recipe", made / "tiny.yaml", *data, "--output", at / "out", "--device", "cpu", "--workers", 0, "--resume"],
        "predict": [predict.main, *data, *given, *RUNS, "--output", at / "out", "--strict"],
        "embed": [embed.main, *data, *given, *RUNS, "--output", at / "out"],
        "rank": [rank.main, "--embeddings", made / "e", *data, "--output", at / "out"],
        "explain": [explain.main, *data, *given, "--submission", made / "s.csv", "--output", at / "out", "--pairs", 4, "--device", "cpu", "--workers", 0],
        "pack": [pack.main, *given, "--output", at / "out"],
        "kernel": [pack.main, *given, "--output", at / "out", "--target", "kaggle"],
        "folds": [folds.main, made / "test", "--output", at / "out", "--n-folds", 2],
        "importers": [importers.main, "folders", made / "folders", "--output", at / "out"],
        "score": [score.main, made / "s.csv", made / "truth.csv", "--json", at / "out"],
        "per query": [score.main, made / "s.csv", made / "truth.csv", "--per-query", at / "out"],
        "report": [report.main, made / "run", "--output", at / "out"],
        "leaderboard": [leaderboard.main, at / "out", "--add", made / "run" / "fold0" / "submission.csv", "--fold", made / "run" / "folds" / "0", "--name", "new"],
    }[name]


NEW = "train", "embed", "kernel", "folds", "importers"  # which write a folder, and never over another one
OVER = "rank", "explain", "pack", "score", "per query", "leaderboard"


def earlier(name: str, made: Path, at: Path) -> dict:
    """Puts an output of before there, and returns its bytes."""
    at.mkdir(exist_ok=True)
    if name in NEW:
        return {}
    if name == "leaderboard":
        assert command(*words_of(name, made, at)[:-1], "before").code == 0
    elif name == "explain":
        assert command(*words_of(name, made, at), "--queries", pd.read_csv(made / "s.csv").query_id[0]).code == 0
    else:
        (at / "out").write_text("what was written before")
    return contents(at / "out")


def undisturbed(name: str, made: Path, at: Path) -> dict:
    """What the command writes where there is room."""
    assert command(*words_of(name, made, at)).code == 0
    return results(name, at)


def results(name: str, at: Path) -> dict:
    if name == "train":
        return toying.result(at / "out")
    return {file: content for file, content in contents(at / "out").items() }


SHARES = 0, 0.3, 0.6, 0.9  # of what a command writes


def used(disk: hard_places.Disk) -> int:
    """In KiB."""
    status = os.statvfs(disk.path)
    return (status.f_blocks - status.f_bfree) * hard_places.PAGE // 1024


LONG = "embed", "explain", "report"


@pytest.mark.parametrize("name", [*sorted({*NEW, *OVER}.difference(LONG)), *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_on_a_disk_that_grows_every_command_ends_with_the_same_bytes(name, made, tmp_path):
    """From no room at all to enough: as long as it is too little there is one line that names the file, and nothing is changed."""
    with hard_places.disk(tmp_path / "large", 1 << 16) as disk:
        before = earlier(name, made, disk.path)
        least = used(disk)
        expected, most = undisturbed(name, made, disk.path), used(disk)
    with hard_places.disk(tmp_path / "disk", 1 << 16) as disk:
        assert earlier(name, made, disk.path) == before
        for share in SHARES:
            disk.resize(max(4, least + int(share * (most - least))))
            done = command(*words_of(name, made, disk.path))
            assert (done.code, FULL in done.line, str(disk.path / "out") in done.line) == (1, True, True), done.line
            assert disk.strays() == [] and (name in NEW or contents(disk.path / "out") == before)
        disk.resize(1 << 16)
        assert command(*words_of(name, made, disk.path)).code == 0
        assert results(name, disk.path) == expected and disk.strays() == []


def test_a_page_that_finds_no_room_leaves_the_earlier_one(made, tmp_path):
    page = "x" * 200_000
    with hard_places.disk(tmp_path / "disk", 128) as disk, mock.patch.object(report, "contents", lambda *run: {}), mock.patch.object(report, "render", lambda values: page):
        (disk.path / "out").write_text("earlier")
        done = command(*words_of("report", made, disk.path))
        assert (done.code, done.line) == (1, f"error: {disk.path}/out: {FULL}; make room there or choose another place")
        assert contents(disk.path) == {"out": b"earlier"} and disk.strays() == []
        disk.resize(512)
        assert command(*words_of("report", made, disk.path)).code == 0 and (disk.path / "out").read_text() == page


@pytest.mark.parametrize("name", ["pack", "report"])
def test_what_takes_long_to_make_is_not_begun_on_a_full_disk(name, made, tmp_path):
    with hard_places.disk(tmp_path / "disk") as disk, mock.patch.object(report, "contents", None), mock.patch.object(pack, "pack", None):
        disk.fill()
        done = command(*words_of(name, made, disk.path))
        assert (done.code, done.line) == (1, f"error: {disk.path}/out: {FULL}; make room there or choose another place")


def test_a_step_whose_seconds_cannot_be_noted_is_not_begun(tmp_path):
    with hard_places.disk(tmp_path / "disk") as disk:
        disk.read_only()
        done = command(step.main, disk.path / "summary.csv", "a step", "--", "touch", tmp_path / "done")
    assert done.code == 1 and READ_ONLY in done.line and not (tmp_path / "done").exists()


def test_of_a_copy_that_found_no_room_the_copy_is_named():
    for module in (shortage, eval_shortage):
        assert module.told(OSError(errno.ENOSPC, FULL, "read.jpg", None, "written.jpg")) == f"written.jpg: {FULL}"


@pytest.mark.parametrize("name", ["score", "rank"])
def test_where_nothing_can_be_mounted_too_a_file_that_grows_too_large_is_one_line(name, made, tmp_path):
    """The kernel refuses files beyond a size, as it does beyond a quota."""
    before, (_, hard) = earlier(name, made, tmp_path / "at"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        done = command(*words_of(name, made, tmp_path / "at"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (done.code, done.line) == (1, f"error: {tmp_path}/at/out: File too large; make room there or choose another place")
    assert contents(tmp_path / "at" / "out") == before and [path.name for path in (tmp_path / "at").iterdir()] == ["out"]


# Training

@pytest.mark.parametrize("moment", ["an epoch", "the finished weights"])
def test_a_disk_that_fills_while_it_trains_costs_an_epoch_at_most(moment, made, tmp_path):
    expected = undisturbed("train", made, tmp_path)
    with hard_places.disk(tmp_path / "disk", 1 << 14) as disk:
        say, save = fitting.Fitting.say, fitting.Fitting.save

        def filling(self):
            say(self)
            if self.progress.epoch == 2:
                disk.fill()

        patch = mock.patch.object(fitting.Fitting, "say", filling) if moment == "an epoch" else mock.patch.object(fitting.Fitting, "save", lambda self, weights: (disk.fill(), save(self, weights)))
        with patch:
            done = command(*words_of("train", made, disk.path))
        assert done.code == 1 and FULL in done.line and f"{disk.path}/out" in done.line and disk.strays() == []
        disk.empty()
        steps = []
        with mock.patch.object(fitting.Fitting, "epoch", lambda self, stop, epoch=fitting.Fitting.epoch: (steps.append(self.progress.epoch), epoch(self, stop))[1]):
            assert command(*words_of("train", made, disk.path)).code == 0
        assert steps == ([2] if moment == "an epoch" else []) and results("train", disk.path) == expected


@pytest.mark.parametrize("place", ["out", "out.resume"])
def test_training_on_a_read_only_disk_ends_before_its_first_step(place, made, tmp_path):
    """Also where only the checkpoints, which lie beside the weights, find no place."""
    (tmp_path / place).mkdir()
    with hard_places.disk(tmp_path / "disk") as disk, hard_places.mounted(disk.path, tmp_path / place), mock.patch.object(fitting.Fitting, "step", None):
        disk.read_only()
        done = command(*words_of("train", made, tmp_path))
    assert done.code == 1 and READ_ONLY in done.line and f"{tmp_path}/{place}" in done.line


def test_a_disk_that_is_taken_away_while_it_trains_is_one_line_and_the_training_goes_on_when_it_is_back(made, tmp_path):
    expected, say = undisturbed("train", made, tmp_path), fitting.Fitting.say
    (tmp_path / "real").mkdir()

    def leaving(self):
        say(self)
        if self.progress.epoch == 2:
            hard_places.taken_away(tmp_path / "disk")

    with hard_places.mounted(tmp_path / "real", tmp_path / "disk"), mock.patch.object(fitting.Fitting, "say", leaving):
        done = command(*words_of("train", made, tmp_path / "disk"))
    assert (done.code, done.line) == (1, f"error: {tmp_path}/disk/out: is no longer there; was its disk taken away? With it back, the same command with --resume goes on")
    assert contents(tmp_path / "disk") == {}  # nothing that nobody would look for there
    with hard_places.mounted(tmp_path / "real", tmp_path / "disk"):
        assert command(*words_of("train", made, tmp_path / "disk")).code == 0
        assert results("train", tmp_path / "disk") == expected


def test_finished_weights_are_not_put_where_their_recipe_is_gone(made, tmp_path):
    fit = fitting.Fitting.fit
    with mock.patch.object(fitting.Fitting, "fit", lambda self, *rest: (fit(self, *rest), shutil.rmtree(tmp_path / "out"))[0]):
        done = command(*words_of("train", made, tmp_path))
    assert done.code == 1 and f"{tmp_path}/out: what was written there is gone" in done.line and not (tmp_path / "out").exists()
    assert (tmp_path / "out.resume" / "tiny.npz").is_file()


# Predictions

def predicted(made: Path, output: Path, *more) -> toying.Finished:
    return command(predict.main, "--data", made / "test", "--weights", made / "weights", *RUNS, "--output", output, *more)


@pytest.fixture
def writing(monkeypatch):
    """Calls what is put into it after the table of that number has been written: the databases' order is table 1."""
    after, write, count = {}, predict.write_table, []

    def written(table, path):
        write(table, path)
        count.append(path)
        after.get(len(count), lambda: None)()

    monkeypatch.setattr(predict, "write_table", written)
    return after


def test_a_prediction_that_cannot_write_a_better_file_keeps_the_best_so_far_and_ends_well(made, tmp_path, writing):
    with hard_places.disk(tmp_path / "disk") as disk:
        writing[2] = lambda: (shutil.copy(disk.path / "s.csv", tmp_path), disk.fill())
        done = predicted(made, disk.path / "s.csv")
        assert done.code == 0 and done.stdout.endswith("1 warnings; ranks with large\n")
        assert f"warning: small: not written: {disk.path}/s.csv: {FULL}\n" in done.stderr and "Traceback" not in done.stderr
        assert (disk.path / "s.csv").read_bytes() == (tmp_path / "s.csv").read_bytes() and disk.strays() == []
        assert_complete(disk.path / "s.csv", made / "test")
        disk.empty()
        assert predicted(made, disk.path / "s.csv").code == 0
        assert (disk.path / "s.csv").read_bytes() == (made / "s.csv").read_bytes()


def test_a_better_file_that_found_no_room_is_in_the_next_one(made, tmp_path, writing):
    with hard_places.disk(tmp_path / "disk") as disk:
        writing[1] = disk.fill
        with mock.patch.object(embed.Embedder, "one", lambda self, spec, *rest, one=embed.Embedder.one: (spec.name == "small" and disk.empty(), one(self, spec, *rest))[1]):
            done = predicted(made, disk.path / "s.csv")
        assert done.code == 0 and "large: not written" in done.stderr and done.stdout.endswith("; ranks with large, small\n")
        assert (disk.path / "s.csv").read_bytes() == (made / "s.csv").read_bytes()


def test_without_one_models_answers_on_disk_the_exit_status_is_1_and_the_file_complete(made, tmp_path, writing):
    with hard_places.disk(tmp_path / "disk") as disk:
        writing[1] = disk.fill
        done = predicted(made, disk.path / "s.csv")
        assert (done.code, done.line) == (1, f"error: no model got in; {disk.path}/s.csv is in the database's order, of no model")
        assert ranked(disk.path / "s.csv") == in_the_databases_order(made / "test") and disk.strays() == []


def test_strict_a_disk_that_fills_ends_the_prediction_and_the_best_file_stays(made, tmp_path, writing):
    with hard_places.disk(tmp_path / "disk") as disk:
        writing[1] = disk.fill  # of the first model: strict does not begin with the databases' order
        done = predicted(made, disk.path / "s.csv", "--strict")
        assert (done.code, done.line) == (1, f"error: small: not written: {disk.path}/s.csv: {FULL}")
        assert_complete(disk.path / "s.csv", made / "test")


def test_what_is_wanted_besides_a_submission_never_costs_it(made, tmp_path, writing):
    with hard_places.disk(tmp_path / "disk") as disk:
        writing[1] = disk.fill
        done = predicted(made, tmp_path / "s.csv", "--timings", disk.path / "t.json", "--embeddings", disk.path / "e")
        assert done.code == 0 and done.stdout.endswith("2 warnings; ranks with large, small\n")
        assert f"warning: --timings: {disk.path}/t.json: {FULL}\n" in done.stderr and f"warning: --embeddings: {disk.path}/e/" in done.stderr
        assert (tmp_path / "s.csv").read_bytes() == (made / "s.csv").read_bytes() and disk.strays() == []


def test_chances_that_find_no_room_cost_no_submission_and_leave_no_older_ones(tmp_path):
    fold = toy_names.fold(tmp_path / "fold", *SPECS)
    words = "--data", fold / "test", "--weights", fold / "weights", *RUNS
    assert command(predict.main, *words, "--output", tmp_path / "room.csv", "--probabilities", tmp_path / "p.csv").code == 0
    with hard_places.disk(tmp_path / "disk") as disk:
        answers, calls = naming.Naming.answers, []

        def second_fills(self, *rest):
            calls.append(disk.fill() if calls else None)
            return answers(self, *rest)

        with mock.patch.object(naming.Naming, "answers", second_fills), mock.patch.object(Path, "unlink", kept_full(disk, Path.unlink)):
            done = command(predict.main, *words, "--output", tmp_path / "s.csv", "--probabilities", disk.path / "p.csv")
        assert done.code == 0 and f"small: not written: {disk.path}/p.csv: {FULL}" in done.stderr
        assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "room.csv").read_bytes() and not (disk.path / "p.csv").exists()


def kept_full(disk: hard_places.Disk, unlink):
    """What a file leaves is taken by somebody else at once."""
    def taken(self, *rest, **more):
        unlink(self, *rest, **more)
        if disk.ballast.exists():
            disk.fill()
    return taken


@pytest.mark.parametrize("option, name", [("--output", "s.csv"), ("--timings", "t.json"), ("--embeddings", "e")])
@pytest.mark.parametrize("strict", [[], ["--strict"]])
@pytest.mark.parametrize("state", [FULL, READ_ONLY])
def test_what_cannot_be_written_at_all_is_told_before_a_photograph_is_read(option, name, state, strict, made, tmp_path):
    with hard_places.disk(tmp_path / "disk") as disk, mock.patch.object(pixels.Pixels, "__init__", None):
        disk.read_only() if state == READ_ONLY else disk.fill()
        done = predicted(made, tmp_path / "s.csv", option, disk.path / name, *strict)
    assert done.code == 1 and state in done.line and str(disk.path / name) in done.line
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_a_folder_that_is_taken_away_is_made_again_for_the_submission(made, tmp_path, writing):
    (tmp_path / "real").mkdir()
    with hard_places.mounted(tmp_path / "real", tmp_path / "disk"):
        writing[1] = lambda: hard_places.taken_away(tmp_path / "disk")
        assert predicted(made, tmp_path / "disk" / "new" / "s.csv").code == 0
    assert (tmp_path / "disk" / "new" / "s.csv").read_bytes() == (made / "s.csv").read_bytes()
    assert_complete(tmp_path / "real" / "new" / "s.csv", made / "test")


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_cache_without_room_is_a_warning(state, made, tmp_path, monkeypatch):
    with hard_places.disk(tmp_path / "disk") as disk:
        disk.fill() if state == "full" else disk.read_only()
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk.path))
        words = "--data", made / "test", "--weights", made / "weights", *RUNS[:-1], "--output", tmp_path / "s.csv"
        done = command(predict.main, *words)
        assert done.code == 0 and done.stdout.endswith("; ranks with large, small\n")
        assert "nothing is kept for the next time" in done.stderr and "Traceback" not in done.stderr
        assert (tmp_path / "s.csv").read_bytes() == (made / "s.csv").read_bytes() and disk.strays() == []


def test_what_was_measured_for_a_pack_is_told_though_it_cannot_be_kept(tmp_path, monkeypatch, capsys):
    with hard_places.disk(tmp_path / "disk") as disk:
        disk.read_only()
        monkeypatch.setenv("XDG_CACHE_HOME", str(disk.path))
        assert cache.cached("measured.json", lambda: {"metric": 0.5}) == {"metric": 0.5}
    assert READ_ONLY in capsys.readouterr().err


# Places where nothing can be written

@pytest.mark.parametrize("name", [name for name in [*NEW, *OVER, "predict", "report"] if name != "leaderboard"])
def test_on_a_read_only_disk_every_command_is_one_line_that_names_its_output(name, made, tmp_path):
    with hard_places.disk(tmp_path / "disk") as disk, mock.patch.object(fitting.Fitting, "step", None), mock.patch.object(report, "contents", None), mock.patch.object(pack, "pack", None):
        disk.read_only()
        done = command(*words_of(name, made, disk.path))
    assert done.code == 1 and READ_ONLY in done.line and str(disk.path / "out") in done.line


def a_file(path):
    path.write_text("")


def a_link_to_nowhere(path):
    path.symlink_to(path.with_name("nowhere") / "at all")


@pytest.mark.parametrize("name", [*NEW, *OVER, "predict", "report"])
@pytest.mark.parametrize("instead", [a_file, a_link_to_nowhere])
def test_where_a_folder_is_wanted_a_file_is_one_line(name, instead, made, tmp_path):
    instead(tmp_path / "folder")
    done = command(*words_of(name, made, tmp_path / "folder"))
    assert done.code in (1, 2) and str(tmp_path / "folder") in done.line
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("name", [*NEW, *OVER, "predict", "report"])
def test_a_folder_that_cannot_be_made_is_one_line(name, made):
    done = command(*words_of(name, made, Path("/proc/none/such")))
    assert done.code in (1, 2) and "/proc/none" in done.line


@pytest.mark.parametrize("name", ["predict", "rank", "score", "report"])
def test_where_a_file_is_wanted_a_folder_is_one_line(name, made, tmp_path):
    (tmp_path / "out").mkdir()
    done = command(*words_of(name, made, tmp_path))
    assert done.code == 2 and str(tmp_path / "out") in done.line and list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("module, words", [("eval.score", ("s.csv", "truth.csv")), ("solution.rank", ("--embeddings", "e", "--data", "test", "--output", "ranked.csv"))])
def test_words_that_find_no_room_are_one_line(module, words, made, tmp_path):
    """Standard output on a full disk; what is still unsaid does not fail once more as the interpreter ends."""
    shutil.copytree(made / "test", tmp_path / "test"), shutil.copytree(made / "e", tmp_path / "e")
    shutil.copy(made / "s.csv", tmp_path), shutil.copy(made / "truth.csv", tmp_path)
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}, "PYTHONPATH": str(ROOT)}
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", module, *words], cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, f"error: standard output: {FULL}; make room there or choose another place\n")
    assert module == "eval.score" or (tmp_path / "ranked.csv").read_bytes() == (made / "s.csv").read_bytes()
