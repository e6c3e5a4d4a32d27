"""Shards made by several processes, some of which are killed: every photograph is embedded once, and nothing that does not belong together is joined."""

import io
import os
import shutil
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import toy
import toy_training as toying
from eval import outputs
from solution import device, embed, pixels, rank, search, shards, turns
from solution.files import InputError, run
from test_embed import ensemble, tiny

SPECS = tiny("first", 0, 32), tiny("second", 1, 48, predict={"mirror": "off"})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """data/ of 22 photographs, weights/, whole/ as one process embeds them, and whole.csv as they are ranked."""
    place = tmp_path_factory.mktemp("catalogue")
    toy.scenarios(toy.competition(place / "data", n_whales=6, images_per_whale=(4, 3, 4)))
    ensemble(place / "weights", *SPECS)
    assert embedded(place, "whole") == (0, "22 photographs embedded by 2 models, 0 warnings")
    ranked(place, place / "whole")
    return place


def words_of(place, output, *more):
    return ["embed", "--data", place / "data", "--weights", place / "weights", "--output", place / output, "--device", "cpu", "--engine", "torch", "--no-cache", "--workers", 0, *more]


def embedded(place, output, *more):
    """The exit status of the command in this process, and its last line without the output's name."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", list(map(str, words_of(place, output, *more)))), redirect_stdout(out), redirect_stderr(err):
        try:
            run(embed.main)
        except SystemExit as stop:
            return stop.code, err.getvalue().strip()
    return 0, out.getvalue().strip().split("\n")[-1].replace(f"{place / output}: ", "")


def ranked(place, embeddings):
    with mock.patch.object(sys, "argv", ["rank", "--embeddings", str(embeddings), "--data", str(place / "data"), "--output", f"{embeddings}.csv"]):
        rank.main()


def assert_whole(place, output):
    """What the shards are together is what one process embedded and ranked, to the byte."""
    for name, paths in shards.embedding_files(place / output).items():
        joined, expected = shards.joined(paths), np.load(place / "whole" / f"{name}.npz")
        assert all(joined[part].tobytes() == expected[part].tobytes() and joined[part].dtype == expected[part].dtype for part in shards.PARTS)
    ranked(place, place / output)
    assert (place / f"{output}.csv").read_bytes() == (place / "whole.csv").read_bytes()


def killed(place, output, model, shard, *more):
    """A process that is killed just before it writes a model's shard."""
    save = embed.save

    def dies(embeddings, specs, folder, of, sources):
        if (specs[0].name, of.number) == (model, shard):
            os.kill(os.getpid(), signal.SIGKILL)
        return save(embeddings, specs, folder, of, sources)

    with mock.patch.object(embed, "save", dies):
        os._exit(embedded(place, output, *more)[0])


def makes(place, output, told, *more):
    """A process that leaves a line in `told` for each shard that it embeds."""
    write = embed.Work.write

    def noted(self, specs, shard, sources):
        with open(told, "a") as file:
            file.write(f"{shard.number} {','.join(spec.name for spec in specs)}\n")
        return write(self, specs, shard, sources)

    with mock.patch.object(embed.Work, "write", noted):
        os._exit(embedded(place, output, *more)[0])


def as_ranks(world, work, *words):
    """The exit statuses of work(*words) in processes such as torchrun starts."""
    def at(rank):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), LOCAL_WORLD_SIZE=str(world))
        work(*words)

    return toying.in_forks(at, *[(rank,) for rank in range(world)])


def test_each_process_of_torchrun_makes_a_shard_and_together_they_are_the_whole(place, tmp_path):
    assert as_ranks(2, makes, place, "two", tmp_path / "told") == [0, 0]
    assert sorted((tmp_path / "told").read_text().split()) == ["1", "2", "first,second", "first,second"]
    assert sorted(path.name for path in (place / "two").glob("*.npz")) == [f"{name}.{number}-of-2.npz" for name in ("first", "second") for number in (1, 2)]
    assert_whole(place, "two")


def test_what_is_there_is_not_made_again(place, tmp_path):
    assert embedded(place, "kept", "--shards", 3)[1] == "22 photographs embedded by 2 models, 0 warnings; all 3 shards are there"
    before = toying.files(place / "kept")
    for more in (["--shards", 3], ["--shard", "2/3"]):
        assert embedded(place, "kept", *more) == (0, "0 photographs embedded by 2 models, 0 warnings; all 3 shards are there")
    assert as_ranks(3, makes, place, "kept", tmp_path / "told") == [0, 0, 0] and not (tmp_path / "told").exists()
    assert toying.files(place / "kept") == before


def test_a_killed_process_costs_what_it_was_at_and_nothing_else(place, tmp_path):
    """Killed when the second model's shard 2 of 4 was to be written: the next run makes that one, and what comes after it."""
    assert toying.in_forks(killed, (place, "resumed", "second", 2, "--shards", 4)) == [-signal.SIGKILL]
    before = toying.files(place / "resumed")
    finished = ["first.1-of-4.npz", "first.2-of-4.npz", "second.1-of-4.npz"]
    assert sorted(str(name) for name in before if name.suffix == ".npz") == finished
    with pytest.raises(InputError, match=r"of model first shard 3/4 is missing, and 1 more; python -m solution.embed --shard 3/4 makes it"):
        ranked(place, place / "resumed")
    assert toying.in_forks(makes, (place, "resumed", tmp_path / "told", "--shards", 4)) == [0]
    assert (tmp_path / "told").read_text().splitlines() == ["2 second", "3 first,second", "4 first,second"]
    after = toying.files(place / "resumed")
    assert all(after[name] == before[name] for name in before if str(name) in finished)
    assert not [path for path in (place / "resumed").iterdir() if path.name.startswith(".")]
    assert_whole(place, "resumed")


@pytest.mark.parametrize("victim", [0, 1])
def test_what_a_killed_process_of_torchrun_was_at_is_made_by_the_other_one_or_by_the_next_run(place, tmp_path, victim):
    def work(output):
        if os.environ["RANK"] == str(victim):
            killed(place, output, "second", victim + 1)
        while not (place / output / f"first.{victim + 1}-of-2.npz").exists():
            time.sleep(0.01)  # else the shard could be made before the other process comes to it
        makes(place, output, tmp_path / "told")

    output = f"died{victim}"
    statuses = as_ranks(2, work, output)
    assert statuses[victim] == -signal.SIGKILL and statuses[1 - victim] == 0
    assert as_ranks(2, makes, place, output, tmp_path / "told") == [0, 0]
    assert (tmp_path / "told").read_text().splitlines() == [f"{2 - victim} first,second", f"{victim + 1} second"]
    assert_whole(place, output)


def test_processes_that_know_nothing_of_each_other_share_out_the_shards(place, tmp_path):
    assert toying.in_forks(makes, *[(place, "shared", tmp_path / "told", "--shards", 8)] * 3) == [0, 0, 0]
    assert sorted((tmp_path / "told").read_text().splitlines()) == [f"{number} first,second" for number in range(1, 9)]
    assert_whole(place, "shared")


@pytest.mark.parametrize("rank, numbers", [(0, [1, 3, 5, 2, 4]), (1, [2, 4, 1, 3, 5])])
def test_a_process_of_torchrun_begins_with_its_own_shards(rank, numbers, monkeypatch):
    """So that they do not make the same ones where a file system has no locks."""
    monkeypatch.setenv("RANK", str(rank)), monkeypatch.setenv("WORLD_SIZE", "2")
    assert [shard.number for shard in turns.Turns.order(mock.Mock(count=5))] == numbers


def test_a_shard_that_another_process_is_at_is_left_to_it(place):
    with outputs.alone(place / "busy" / "first.2-of-2.npz"):  # of eval/, which holds it against solution/ in this process too
        assert embedded(place, "busy", "--shards", 2) == (0, "11 photographs embedded by 2 models, 0 warnings; 1 of 2 shards are missing, 2/2 first; where nobody is at them --shards 2 makes them")
        status, line = embedded(place, "busy", "--shard", "2/2")
        assert status == 2 and line.startswith(f"error: {place}/busy/first.2-of-2.npz: another run is writing it")
    assert embedded(place, "busy", "--shards", 2)[1].startswith("11 photographs")
    assert_whole(place, "busy")


# What does not belong together

def copied(place, tmp_path):
    for name in ("data", "weights"):
        shutil.copytree(place / name, tmp_path / name)
    return tmp_path


def other_weights(place):
    ensemble(place / "weights", SPECS[1], SPECS[0])  # by another seed each


def other_data(place):
    table = pd.read_csv(place / "data" / "metadata.csv")
    table.iloc[:-1].to_csv(place / "data" / "metadata.csv", index=False)


@pytest.mark.parametrize("changed, kind", [(other_weights, "weights"), (other_data, "data")])
def test_shards_of_other_weights_or_data_are_neither_added_nor_joined(place, tmp_path, changed, kind):
    place = copied(place, tmp_path)
    assert embedded(place, "e", "--shard", "1/2")[0] == 0
    changed(place)
    before = toying.files(place / "e")
    for more in (["--shard", "2/2"], ["--shard", "1/2"], ["--shards", 2]):
        assert embedded(place, "e", *more) == (2, f"error: {place}/e/first.1-of-2.npz: was made of other {kind}, and shards of both would be mixed; remove it, or choose another --output")
    assert toying.files(place / "e") == before
    assert embedded(place, "f", "--shard", "2/2")[0] == 0
    for name in ("first", "second"):
        shutil.copy(place / "f" / f"{name}.2-of-2.npz", place / "e")
    with pytest.raises(InputError, match=f"first.2-of-2.npz: was made of other {kind} than .*first.1-of-2.npz; remove the shards"):
        ranked(place, place / "e")
    with mock.patch.object(sys, "argv", ["search", "build", "--embeddings", str(place / "e"), "--output", str(place / "index")]), pytest.raises(InputError, match=f"was made of other {kind}"):
        search.main()


def test_another_number_of_shards_is_refused_before_the_work(place, tmp_path):
    place = copied(place, tmp_path)
    assert embedded(place, "e", "--shards", 2)[0] == 0
    assert embedded(place, "e", "--shards", 3)[1] == f"error: {place}/e/first.1-of-2.npz: is a shard of 2, and shards of 3 are asked for; remove it, or choose another --output"
    assert embedded(place, "w")[0] == 0
    assert embedded(place, "w", "--shard", "1/3")[1] == f"error: {place}/w/first.npz: is a whole, and shards of 3 are asked for; remove it, or choose another --output"


def test_photographs_that_have_changed_are_embedded_again_with_their_shard_alone(place, tmp_path):
    place = copied(place, tmp_path)
    assert embedded(place, "e", "--shards", 3)[0] == 0
    before = toying.files(place / "e")
    row = pd.read_csv(place / "data" / "metadata.csv").iloc[4]  # of shard 2
    shutil.copy(place / "data" / pd.read_csv(place / "data" / "metadata.csv").path[0], place / "data" / row.path)
    assert embedded(place, "e", "--shards", 3)[1].startswith("7 photographs embedded")
    after = toying.files(place / "e")
    assert sorted(str(name) for name in after if after[name] != before[name] and name.suffix == ".npz") == ["first.2-of-3.npz", "second.2-of-3.npz"]


@pytest.mark.parametrize("more, environment, told", [
    (["--shard", "1/2"], {"WORLD_SIZE": "2"}, "--shard: torchrun's processes share out all shards"),
    (["--shards", "2", "--timings", "t.json"], {}, "--timings: tells of one whole embedding"),
])
def test_options_that_do_not_go_together_are_one_line(place, more, environment, told, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, line = embedded(place, "refused", *more)
    assert status == 2 and line.startswith(f"error: {told}") and "\n" not in line and not (place / "refused").exists()


@pytest.mark.parametrize("text", ["0", "-1", "1/2", "²", "9999999", "x"])
def test_what_is_no_number_of_shards_is_refused(text, place):
    status, line = embedded(place, "refused", "--shards", text)
    assert status == 2 and "is not a number of shards, such as 64" in line


# Photographs that cannot be read

def broken(place, tmp_path, *rows):
    place = copied(place, tmp_path)
    for path in pd.read_csv(place / "data" / "metadata.csv").path.iloc[list(rows)]:
        (place / "data" / path).write_bytes(b"broken")
    return place


@pytest.mark.parametrize("more", [[], ["--shards", 2]])
def test_a_photograph_that_cannot_be_read_is_told_and_like_nothing(place, tmp_path, more):
    whole, place = place, broken(place, tmp_path, 3, 8)
    assert embedded(place, "e", *more)[1].startswith("22 photographs embedded by 2 models, 2 warnings")
    for name, paths in shards.embedding_files(place / "e").items():
        found, expected = shards.joined(paths), np.load(whole / "whole" / f"{name}.npz")
        for part in shards.PARTS[1:]:
            assert not found[part][[3, 8]].any()
            np.testing.assert_array_equal(np.delete(found[part], [3, 8], axis=0), np.delete(expected[part], [3, 8], axis=0))
    ranked(place, place / "e")


def test_strict_stops_at_a_photograph_that_cannot_be_read(place, tmp_path):
    place = broken(place, tmp_path, 3)
    status, line = embedded(place, "e", "--strict")
    assert status == 2 and "not a readable image" in line and "\n" not in line and not list((place / "e").glob("*.npz"))


def test_where_no_photograph_can_be_read_nothing_is_written(place, tmp_path):
    place = broken(place, tmp_path, *range(0, 22, 2))
    status, lines = embedded(place, "e", "--shard", "1/2")
    assert status == 2 and lines.endswith(f"error: {place}/data: none of 11 photographs could be read; is their disk there?") and not list((place / "e").glob("*.npz"))


# One machine, several processes

def test_each_process_on_a_machine_takes_a_gpu_of_its_own(monkeypatch):
    taken = []
    monkeypatch.setattr(device, "has_cuda", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    device.chosen("cuda")
    for number in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(number))
        assert device.chosen("cuda") == "cuda"
    assert taken == [0, 1, 0, 1]


def test_processes_on_a_machine_share_its_memory_for_photographs(place, monkeypatch):
    table = embed.images.listed(place / "data")
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    monkeypatch.setattr(pixels, "HELD_BYTES", half)
    monkeypatch.setattr(pixels, "room", lambda views, count: {})
    view = embed.View(round((half / len(table) / 3 * 0.9) ** 0.5), 0.0)  # photographs of nine tenths of that
    assert embed.Pixels(table, place / "data", [view], 0).kept
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not embed.Pixels(table, place / "data", [view], 0).kept
