"""A second round: which photographs join under which name, and the directory that comes of it."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import toy
from solution import images, pseudo
from solution.files import InputError
from solution.train import labelled

ROOT = Path(__file__).parents[1]
HEADER = "Image,Id,probability"


def told(path, *rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def command(*options):
    done = subprocess.run([sys.executable, "-m", "solution.pseudo", *map(str, options)], cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def asked(tmp_path):
    """data/ with names and asked/ of another seed without; names of its files."""
    toy.competition(tmp_path / "data", n_whales=5)
    data = toy.competition(tmp_path / "asked", n_whales=4, seed=1)
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    table.drop(columns=["whale_id", "encounter_id"]).to_csv(data / "metadata.csv", index=False)
    return [path.rsplit("/")[-1] for path in table.path]


# Which names

def test_the_best_name_counts_where_it_is_probable_enough_and_no_new_whale(tmp_path):
    rows = ["a.jpg,x,0.7", "a.jpg,y,0.2", "b.jpg,y,0.1", "b.jpg,x,0.85", "b.jpg,new_whale,0.05", "c.jpg,new_whale,0.9", "c.jpg,x,0.1",
            "d.jpg,x,0.8", "e.jpg,x,0.7999", "f.jpg,z,1"]
    found = pseudo.confident(told(tmp_path / "p.csv", *rows), 0.8)
    assert found.to_dict() == {"b.jpg": "x", "d.jpg": "x", "f.jpg": "z"}
    assert len(pseudo.confident(tmp_path / "p.csv", 0.001)) == 5
    assert pseudo.confident(tmp_path / "p.csv", 1.0).to_dict() == {"f.jpg": "z"}


@pytest.mark.parametrize("word", ["new_whale", "new_individual", ""])
def test_no_word_for_a_new_individual_becomes_one(word, tmp_path):
    assert pseudo.confident(told(tmp_path / "p.csv", f"a.jpg,{word},0.9", "a.jpg,x,0.1"), 0.05).empty


def test_happywhales_column_is_read_too(tmp_path):
    path = told(tmp_path / "p.csv", "a.jpg,x,0.9", header="image,Id,probability")
    assert pseudo.confident(path, 0.8).to_dict() == {"a.jpg": "x"}


@pytest.mark.parametrize("value", ["1.1", "-0.1", "often", "", "nan"])
def test_what_is_no_probability_is_refused_by_its_line(value, tmp_path):
    with pytest.raises(InputError, match="p.csv: line 3: probability is not a number between 0 and 1"):
        pseudo.confident(told(tmp_path / "p.csv", "a.jpg,x,0.5", f"a.jpg,y,{value}"), 0.8)


# The directory

@pytest.fixture
def second(asked, tmp_path):
    told(tmp_path / "p.csv", f"{asked[0]},whale001,0.95", f"{asked[1]},whale002,0.5", f"{asked[2]},stranger,0.81", f"{asked[3]},new_whale,0.99")
    done = command("--data", tmp_path / "data", "--asked", tmp_path / "asked", "--probabilities", tmp_path / "p.csv", "--output", tmp_path / "second")
    assert done.returncode == 0, done.stderr
    return done


def test_the_directory_holds_both_kinds_of_photographs_under_their_names(second, asked, tmp_path):
    both, first = (pd.read_csv(tmp_path / name / "metadata.csv", dtype=str, keep_default_na=False) for name in ("second", "data"))
    pd.testing.assert_frame_equal(both[: len(first)][list(first.columns)], first)
    added = both[len(first) :]
    other = pd.read_csv(tmp_path / "asked" / "metadata.csv", dtype=str)
    assert list(added.image_id) == ["pseudo-" + other.image_id[number] for number in (0, 2)]
    assert list(added.whale_id) == ["whale001", "stranger"] and list(added.path) == [f"pseudo/{asked[0]}", f"pseudo/{asked[2]}"]
    assert list(added.date) == list(other.date[[0, 2]]) and set(added.encounter_id) == {""}
    assert f"{len(first) + 2} photographs, 2 of them named with a probability of 0.8 or more" in second.stdout


def test_its_photographs_are_those_that_were_there(second, asked, tmp_path):
    listed = images.listed(tmp_path / "second")
    sources = [tmp_path / "data" / path for path in pd.read_csv(tmp_path / "data" / "metadata.csv").path] + [tmp_path / "asked" / "images" / asked[number] for number in (0, 2)]
    assert [Path(path).read_bytes() for path in listed.path] == [source.read_bytes() for source in sources]
    assert len(labelled(tmp_path / "second")) == len(listed)  # as the training reads it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked", "data", "p.csv", "second"]


def test_where_nothing_can_be_linked_it_is_copied(asked, tmp_path, monkeypatch):
    def elsewhere(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    names = pseudo.confident(told(tmp_path / "p.csv", f"{asked[0]},whale001,0.95"), 0.8)
    pseudo.write(pseudo.joined(tmp_path / "data", tmp_path / "asked", names), tmp_path / "second")
    assert (tmp_path / "second" / "pseudo" / asked[0]).read_bytes() == (tmp_path / "asked" / "images" / asked[0]).read_bytes()
    assert (tmp_path / "second" / "pseudo" / asked[0]).stat().st_nlink == 1


def test_several_boxes_in_one_photograph_stay_rows_of_their_own(asked, tmp_path):
    table = pd.read_csv(tmp_path / "data" / "metadata.csv", dtype=str).assign(x0="0", y0="0", x1="20", y1="20")
    pd.concat([table, table[:1].assign(image_id="second box", x0="5")]).to_csv(tmp_path / "data" / "metadata.csv", index=False)
    names = pseudo.confident(told(tmp_path / "p.csv", f"{asked[0]},whale001,0.95"), 0.8)
    pseudo.write(pseudo.joined(tmp_path / "data", tmp_path / "asked", names), tmp_path / "second")
    listed = images.listed(tmp_path / "second")
    assert len(listed) == len(table) + 2 and listed.path.nunique() == len(table) + 1
    assert images.boxes(listed, tmp_path / "second")[-1] is None


def test_what_is_there_already_is_refused_and_left_alone(second, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "second").rglob("*")}
    done = command("--data", tmp_path / "data", "--asked", tmp_path / "asked", "--probabilities", tmp_path / "p.csv", "--output", tmp_path / "second")
    assert done.returncode == 2 and done.stderr == f"error: {tmp_path}/second: already exists; remove it or choose another --output\n"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "second").rglob("*")} == before


def test_a_photograph_that_is_not_there_leaves_nothing_behind(asked, tmp_path):
    (tmp_path / "data" / "images" / "train0001.jpg").unlink()
    told(tmp_path / "p.csv", f"{asked[0]},whale001,0.95")
    done = command("--data", tmp_path / "data", "--asked", tmp_path / "asked", "--probabilities", tmp_path / "p.csv", "--output", tmp_path / "second")
    assert done.returncode in (1, 2) and done.stderr.startswith("error: ") and "train0001.jpg" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asked", "data", "p.csv"]


def test_the_help_has_an_example():
    assert "example: python -m solution.pseudo" in command("--help").stdout
