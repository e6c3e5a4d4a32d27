"""The competition's directory comes over whole: tables against what was written by hand, the real labels against themselves."""

import csv
from pathlib import Path

import pandas as pd
import pytest

import toy_sightings as toy
from eval.files import InputError
from eval.folds import make
from eval.score import evaluate, summarise

BELUGA = Path(__file__).parents[2] / "shared" / "data" / "beluga"
real = pytest.mark.skipif(not BELUGA.is_dir(), reason="the shared beluga tables are not here")
METADATA = ["image_id,path,height,width,viewpoint,date,timestamp,whale_id,encounter_id",
            "train0,images/train0.jpg,6,8,top,2017-08-07,2017-08-07 20:38:36,whale0,whale0-000",
            "train1,images/train1.jpg,6,8,top,2018-08-07,2018-08-07 20:38:36,whale0,whale0-001",
            "train2,images/train2.jpg,6,8,left,2017-08-08,2017-08-08 20:38:36,whale1,whale1-000",
            "train3,images/train3.jpg,6,8,left,2018-08-08,2018-08-08 20:38:36,whale1,whale1-001"]


@pytest.fixture
def source(tmp_path):
    """Four photographs of two whales; one scenario asks train0 of all, another train2 of the last two."""
    source = toy.photographs(tmp_path / "beluga", *[f"images/train{k}.jpg" for k in range(4)])
    toy.write(source / "metadata.csv", *METADATA)
    toy.write(source / "query_scenarios.csv", "scenario_id,queries_path,database_path",
              "scenario01,queries/scenario01.csv,databases/scenario01.csv", "scenario02,queries/scenario02.csv,databases/scenario02.csv")
    toy.write(source / "queries/scenario01.csv", "query_id,query_image_id", "scenario01-train0,train0")
    toy.write(source / "queries/scenario02.csv", "query_id,query_image_id", "scenario02-train2,train2")
    toy.write(source / "databases/scenario01.csv", "database_image_id", "train0", "train1", "train2", "train3")
    toy.write(source / "databases/scenario02.csv", "database_image_id", "train1", "train3")
    toy.write(source / "example_labels.csv", "query_id,database_image_id", "scenario01-train0,train1", "scenario02-train2,train3")
    return source


@pytest.fixture
def imported(source, tmp_path, monkeypatch):
    return lambda *options: toy.imported(monkeypatch, "whaledo", source, *options, output=tmp_path / "data")


def append(file, *lines):
    with open(file, "a", encoding="utf-8") as end:
        end.write("\n".join(lines) + "\n")


def test_everything_comes_over_as_it_was_and_the_labels_become_the_truth(source, imported, capsys):
    data = imported()
    for file in ("metadata.csv", "query_scenarios.csv", "queries/scenario01.csv", "queries/scenario02.csv", "databases/scenario01.csv"):
        assert (data / file).read_bytes() == (source / file).read_bytes()
    assert (data / "truth.csv").read_bytes() == (source / "example_labels.csv").read_bytes()
    assert all((data / f"images/train{k}.jpg").samefile(source / f"images/train{k}.jpg") for k in range(4))
    assert capsys.readouterr().out == "4 images: 4 of 2 individuals; 2 scenarios, 2 queries; 2 true matches\n"


def test_a_submission_scores_against_the_truth_of_the_data(imported, tmp_path):
    data = imported()
    rows = ["scenario01-train0,train2,0.9", "scenario01-train0,train1,0.8", "scenario02-train2,train3,0.9", "scenario02-train2,train1,0.2"]
    submission = toy.write(tmp_path / "submission.csv", "query_id,database_image_id,score", *rows)
    scored = summarise(*evaluate(submission, data / "truth.csv", data, data / "metadata.csv")[:2])
    assert scored["strict"] == scored["official"] == (1 / 2 + 1) / 2
    assert scored["strict_errors"] == [] and set(scored["scenarios"]) == {"scenario01", "scenario02"}
    toy.write(tmp_path / "submission.csv", "query_id,database_image_id,score", "scenario02-train2,train0,0.9")
    assert "not in its scenario's database" in evaluate(submission, data / "truth.csv", data).breaches[0]


def test_the_data_can_be_cut_into_folds(imported, tmp_path):
    folds = make(imported(), tmp_path / "folds", "whale", n_folds=2)
    assert len(pd.read_csv(folds / "0" / "truth.csv")) == 2 and (folds / "0" / "test" / "images").is_dir()


def test_without_scenarios_images_and_labels_the_table_comes_alone(source, imported, capsys):
    for file in ("query_scenarios.csv", "example_labels.csv"):
        (source / file).unlink()
    (source / "images").rename(source / "pictures")
    assert [path.name for path in imported().iterdir()] == ["metadata.csv"]
    note, last = capsys.readouterr().out.splitlines()
    assert "a label table without photographs" in note and last == "4 images: 4 of 2 individuals"


def test_labels_from_another_file_take_the_place_of_the_example(source, imported, tmp_path):
    labels = toy.write(tmp_path / "private_test_labels.csv", "query_id,database_image_id,split", "scenario02-train2,train3,private")
    data = imported("--labels", labels)
    assert toy.lines(data, "truth.csv") == ["query_id,database_image_id", "scenario02-train2,train3"]


def test_metadata_without_labels_is_enough_for_scenarios(source, imported, capsys):
    toy.write(source / "metadata.csv", *[line.rsplit(",", 3)[0] for line in METADATA])
    imported()
    assert capsys.readouterr().out.startswith("4 images: 0 of 0 individuals; 2 scenarios")


def test_a_photograph_that_is_missing_is_gone_from_every_table_and_counted(source, imported, capsys):
    (source / "images" / "train3.jpg").unlink()
    data = imported()
    assert toy.lines(data) == METADATA[:4]
    assert toy.lines(data, "databases/scenario01.csv") == ["database_image_id", "train0", "train1", "train2"]
    assert toy.lines(data, "databases/scenario02.csv") == ["database_image_id", "train1"]
    assert toy.lines(data, "truth.csv") == ["query_id,database_image_id", "scenario01-train0,train1"]
    assert "warning: 1 photographs are not in" in capsys.readouterr().out


def test_a_scenario_whose_queries_are_all_missing_is_gone(source, imported):
    (source / "images" / "train2.jpg").write_text("no photograph")
    data = imported()
    assert toy.lines(data, "query_scenarios.csv")[1:] == ["scenario01,queries/scenario01.csv,databases/scenario01.csv"]
    assert sorted(path.name for path in (data / "queries").iterdir()) == ["scenario01.csv"]


@pytest.mark.parametrize("file, line, words", [
    ("metadata.csv", "train0,images/x.jpg,1,1,top,,,w,e", "line 6: 'train0': an earlier line has this image_id"),
    ("metadata.csv", ",images/x.jpg,1,1,top,,,w,e", "line 6: '': image_id is empty"),
    ("metadata.csv", "x,images/train0.jpg,1,1,top,,,w,e", "line 6: 'images/train0.jpg': an earlier line names this photograph"),
    ("metadata.csv", "x,images/../metadata.csv,1,1,top,,,w,e", "line 6: 'images/../metadata.csv': not the path of a photograph"),
    ("metadata.csv", "x,images/..,1,1,top,,,w,e", "line 6: 'images/..': not the path of a photograph"),
    ("metadata.csv", "x,/etc/passwd,1,1,top,,,w,e", "line 6: '/etc/passwd': not the path of a photograph"),
    ("metadata.csv", "x,queries/a.csv,1,1,top,,,w,e", "line 6: 'queries/a.csv': not the path of a photograph"),
    ("metadata.csv", "x,images/x.jpg,1,1,top,summer,,w,e", "line 6: 'summer': date is not a time"),
    ("metadata.csv", '"x\x01",images/x.jpg,1,1,top,,,w,e', "holds a control character"),
    ("query_scenarios.csv", "s3,../queries.csv,databases/scenario01.csv", "'../queries.csv' leads out of"),
    ("query_scenarios.csv", "s3,/etc/hosts,databases/scenario01.csv", "'/etc/hosts' leads out of"),
    ("query_scenarios.csv", "s3,link.csv,databases/scenario01.csv", "'link.csv' leads out of"),
    ("query_scenarios.csv", "s3,queries/none.csv,databases/scenario01.csv", "none.csv: no such file"),
    ("queries/scenario01.csv", "scenario01-train9,train9", "scenario scenario01: query_image_id 'train9' is not in metadata.csv"),
    ("queries/scenario02.csv", "scenario01-train0,train0", "'scenario01-train0' appears twice"),
    ("databases/scenario02.csv", "train9", "scenario scenario02: database_image_id 'train9' is not in metadata.csv"),
    ("databases/scenario02.csv", "train1", "scenario scenario02: database_image_id 'train1' stands twice"),
    ("example_labels.csv", "scenario01-train1,train2", "line 4: query scenario01-train1: no scenario asks this query"),
    ("example_labels.csv", "scenario01-train0,train0", "line 4: query scenario01-train0: the query image train0 is given as its own match"),
    ("example_labels.csv", "scenario02-train2,train0", "line 4: query scenario02-train2: database image train0 is not in its scenario's"),
    ("example_labels.csv", "scenario02-train2,train3", "appears twice"),
])
def test_what_cannot_be_used_is_told_with_its_file_and_place(source, imported, tmp_path, file, line, words):
    toy.write(tmp_path / "outside.csv", "query_id,query_image_id", "q,train0")
    (source / "link.csv").symlink_to(tmp_path / "outside.csv")
    append(source / file, line)
    with pytest.raises(InputError) as error:
        imported()
    assert words in str(error.value) and not (tmp_path / "data").exists()


def test_a_photograph_that_is_a_link_out_of_the_folder_is_refused(source, imported, tmp_path):
    (source / "images" / "train1.jpg").rename(tmp_path / "secret.jpg")
    (source / "images" / "train1.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match="line 3: 'train1.jpg': leads out of .* through a link"):
        imported()


def test_the_folder_of_photographs_may_itself_be_a_link(source, imported, tmp_path):
    (source / "images").rename(tmp_path / "disk")
    (source / "images").symlink_to(tmp_path / "disk")
    assert (imported() / "images" / "train1.jpg").samefile(tmp_path / "disk" / "train1.jpg")


def test_labels_without_scenarios_and_a_folder_without_photographs_are_refused(source, imported):
    (source / "query_scenarios.csv").unlink()
    with pytest.raises(InputError, match="example_labels.csv: these labels need the scenarios"):
        imported()
    (source / "example_labels.csv").unlink()
    for photograph in (source / "images").iterdir():
        photograph.unlink()
    with pytest.raises(InputError, match="none of the photographs .* such as train0.jpg"):
        imported()


def test_unknown_whales_lose_their_words(source, imported):
    append(source / "metadata.csv", "train4,images/train3.JPG,6,8,top,2018-08-07,,new_whale,e", "train5,images/train2.JPG,6,8,top,,,unknown,e")
    assert [line.split(",")[7] for line in toy.lines(imported())[5:]] == ["", ""]


@real
def test_the_real_tables_come_over_byte_for_byte(tmp_path):
    done = toy.command("whaledo", BELUGA, "--output", tmp_path / "data")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "5,902 images: 5,902 of 788 individuals; 2 scenarios, 10 queries; 45 true matches"
    assert (tmp_path / "data" / "truth.csv").read_bytes() == (BELUGA / "example_labels.csv").read_bytes()
    for file in (file.relative_to(BELUGA) for file in BELUGA.rglob("*.csv") if file.name != "example_labels.csv"):
        assert (tmp_path / "data" / file).read_bytes() == (BELUGA / file).read_bytes()


@real
def test_a_ranking_that_knows_the_whales_scores_one_on_the_real_example(tmp_path, monkeypatch):
    data = toy.imported(monkeypatch, "whaledo", BELUGA, output=tmp_path / "data")
    with open(data / "metadata.csv") as file:
        whale = {row["image_id"]: row["whale_id"] for row in csv.DictReader(file)}
    rows = []
    for scenario in ("scenario01", "scenario02"):
        database = toy.lines(data, f"databases/{scenario}.csv")[1:]
        for query_id, image in (line.split(",") for line in toy.lines(data, f"queries/{scenario}.csv")[1:]):
            rows += [f"{query_id},{other},1" for other in database if other != image and whale[other] == whale[image]]
    submission = toy.write(tmp_path / "submission.csv", "query_id,database_image_id,score", *rows)
    evaluation = evaluate(submission, data / "truth.csv", data, data / "metadata.csv")
    assert evaluation.breaches == [] and set(evaluation.per_query["strict"]) == {1}
    assert (evaluation.per_query["whale_id"] != "").all() and len(evaluation.per_query) == 10
