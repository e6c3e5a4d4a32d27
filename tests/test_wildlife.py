"""Tables of path, identity, sets of wildlife-datasets and folders named after individuals, against tables written by hand."""

import argparse
import csv
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy_sightings as toy
from eval import importers, reading
from eval.sources import sightings
from eval.files import InputError
from eval.folds import make

NYALA = Path(__file__).parents[2] / "shared" / "data" / "nyala"
real = pytest.mark.skipif(not NYALA.is_dir(), reason="the shared nyala photographs are not here")


@pytest.fixture
def imported(tmp_path, monkeypatch):
    return lambda name, source, *options: toy.imported(monkeypatch, name, source, *options, output=tmp_path / "data")


@pytest.fixture
def table(tmp_path, imported):
    """Imports a table of these lines beside photographs of these names."""
    def run(lines, *options, names=("a.jpg", "b.jpg", "c.jpg", "d.jpg")):
        toy.photographs(tmp_path / "set", *names)
        return imported("wildlife", toy.write(tmp_path / "set" / "table.csv", *lines), *options)
    return run


def test_every_column_of_the_convention_finds_its_place(table, tmp_path, capsys):
    data = table(['image_id,identity,path,bbox,date,orientation,species,encounter,keypoints',
                  '7,ANNA,a.jpg,"[1, 2, 3.5, 3]",2019-08-05 16:49:13,left,nyala,e1,"[3]"', '8,unknown,b.jpg,,2019-08-06,up,nyala,,',
                  '9,"Bé, la",c.jpg,,,,,,'])
    assert toy.lines(data) == [
        "image_id,path,whale_id,date,timestamp,encounter_id,viewpoint,species,x0,y0,x1,y1",
        "7,images/a.jpg,ANNA,2019-08-05,2019-08-05 16:49:13,e1,left,nyala,1,2,4.5,5",
        "8,images/b.jpg,,2019-08-06,,,top,nyala,,,,", '9,images/c.jpg,"Bé, la",,,,,,,,,']
    assert (data / "images" / "a.jpg").samefile(tmp_path / "set" / "a.jpg")
    assert capsys.readouterr().out == "3 images: 2 of 2 individuals, 1 of unknown ones; 1 boxes\n"


def test_two_columns_are_enough_and_folds_can_be_cut(table, tmp_path):
    data = table(["path,identity", "a.jpg,1", "b.jpg,1", "c.jpg,2", "d.jpg,2"])
    assert toy.lines(data)[:2] == ["image_id,path,whale_id", "photo00000,images/a.jpg,1"]
    assert len(pd.read_csv(make(data, tmp_path / "folds", "whale", n_folds=2) / "0" / "truth.csv")) == 2


def test_spaces_commas_and_letters_of_any_alphabet_stay_in_names(table):
    names = ["Ünï cödé/ä, b.jpg", "Новая земля/1.jpg", "鯨/二.png"]
    data = table(["path , identity", f'"{names[0]}", O\'Malley ', f"{names[1]},Аня", f"{names[2]},鯨"], names=names)
    assert toy.lines(data)[1:] == ["photo00000,\"images/Ünï cödé/ä, b.jpg\",O'Malley", "photo00001,images/Новая земля/1.jpg,Аня",
                                   "photo00002,images/鯨/二.png,鯨"]
    assert all((data / "images" / name).is_file() for name in names)


def test_paths_of_windows_and_suffixes_in_the_other_case_find_their_files(table):
    names = ["deep/er/a.JPG", "b.jpg", "c.Jpg"]
    data = table(["path,identity", "deep\\er\\a.jpg,1", "./b.JPG,2", "c.Jpg,3"], names=names)
    assert [line.split(",")[1] for line in toy.lines(data)[1:]] == ["images/deep/er/a.jpg", "images/b.JPG", "images/c.Jpg"]
    assert (data / "images" / "deep" / "er" / "a.jpg").is_file()


def test_paths_that_start_with_images_are_not_nested_twice(table):
    data = table(["path,identity", "images/a.jpg,1", "images/b.jpg,2"], names=["images/a.jpg", "images/b.jpg"])
    assert [line.split(",")[1] for line in toy.lines(data)[1:]] == ["images/a.jpg", "images/b.jpg"]


def test_photographs_may_lie_elsewhere_and_the_individual_have_any_column(tmp_path, imported):
    toy.photographs(tmp_path / "disk", "a.jpg")
    file = toy.write(tmp_path / "table.csv", "path,identity,nick", "a.jpg,1,ANNA")
    assert toy.lines(imported("wildlife", file, "--images", tmp_path / "disk", "--identity", "nick"))[1] == "photo00000,images/a.jpg,ANNA"


@pytest.mark.parametrize("word", ["unknown", "Unknown", "____", "new_whale", "new_individual", "", "nan", " "])
def test_words_for_an_unknown_individual_become_empty(table, word):
    assert toy.lines(table(["path,identity", f"a.jpg,{word}", "b.jpg,None"]))[1:] == ["photo00000,images/a.jpg,", "photo00001,images/b.jpg,None"]


@pytest.mark.parametrize("text, day, time", [
    ("2019-08-05", "2019-08-05", ""), ("2019-08-05 16:49:13", "2019-08-05", "2019-08-05 16:49:13"), ("2019-08-05T16:49:13Z", "2019-08-05", "2019-08-05 16:49:13"),
    ("2019-08-05 01:00:00+02:00", "2019-08-04", "2019-08-04 23:00:00"), ("2019:08:05 16:49:13", "2019-08-05", "2019-08-05 16:49:13"),
    ("2019/8/5 9:05", "2019-08-05", "2019-08-05 09:05:00"), ("2019-8-5", "2019-08-05", ""), ("5.8.2019", "2019-08-05", ""), ("20190805", "2019-08-05", ""),
    ("05.08.2019 16:49", "2019-08-05", "2019-08-05 16:49:00"), ("2019-08-05 00:00:00", "2019-08-05", ""), ("2019", "2019-01-01", ""), ("2019.11.25", "2019-11-25", "")])
def test_usual_dates_become_iso(table, text, day, time):
    header, row = toy.lines(table(["path,identity,date", f"a.jpg,1,{text}", "b.jpg,1,NA"]))[:2]
    assert row.split(",")[3:] == ([day, time] if time else [day]) and header.split(",")[3:] == (["date", "timestamp"] if time else ["date"])


def test_timestamps_give_dates_and_fill_those_that_lack(table):
    lines = toy.lines(table(["path,identity,date,timestamp", "a.jpg,1,,2019-08-05 16:49:13", "b.jpg,1,2019-08-06,", "c.jpg,1,2019-08-07,2019-08-07 01:02:03"]))
    assert [line.split(",")[3:] for line in lines[1:]] == [["2019-08-05", "2019-08-05 16:49:13"], ["2019-08-06", ""], ["2019-08-07", "2019-08-07 01:02:03"]]


def test_a_date_that_could_be_two_is_refused_until_its_form_is_said(table, tmp_path):
    lines = ["path,identity,date", "a.jpg,1,2019-08-05", "b.jpg,1,05/08/2019"]
    with pytest.raises(InputError, match="line 3: '05/08/2019': date is not a time; .*--date-format"):
        table(lines)
    with pytest.raises(InputError, match="line 2: '2019-08-05': date is not what --date-format %d/%m/%Y says"):
        table(lines, "--date-format", "%d/%m/%Y")
    assert toy.lines(table([lines[0], *lines[2:]], "--date-format", "%d/%m/%Y"))[1].endswith("2019-08-05")
    refused = toy.command("wildlife", tmp_path / "set" / "table.csv", "--output", tmp_path / "x", "--date-format", "%Q%Q%")
    assert refused.returncode == 2 and "is no format of dates" in refused.stderr.splitlines()[-1]


@pytest.mark.parametrize("text", ["DD/MM/YYYY", "%d", ""])
def test_a_format_that_tells_no_date_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no format of dates"):
        importers.date_format(text)


@pytest.mark.parametrize("cell", ["[1, 2, 3, 3]", "(1,2,3,3)", "1 2 3 3", "[1.  2.  3.  3. ]", "[1.0, 2.0, 3.0, 3.0]", "[np.float64(1.0), np.float64(2), np.int64(3), 3]"])
def test_boxes_are_read_as_lists_tuples_and_arrays_print_them(table, cell):
    assert toy.lines(table(["path,identity,bbox", f'a.jpg,1,"{cell}"']))[1].split(",")[3:] == ["1", "2", "4", "5"]


def test_corners_are_taken_as_they_are(table):
    lines = toy.lines(table(["path,identity,x0,y0,x1,y1", "a.jpg,1,1,2,4.25,5", "b.jpg,2,,,,"]))
    assert [line.split(",")[3:] for line in lines[1:]] == [["1", "2", "4.25", "5"], ["", "", "", ""]]


def test_two_boxes_of_one_photograph_are_two_rows_and_one_file(table):
    data = table(["path,identity,bbox", 'a.jpg,1,"[0, 0, 4, 6]"', 'a.jpg,2,"[4, 0, 4, 6]"'])
    assert len(toy.lines(data)) == 3 and [path.name for path in (data / "images").iterdir()] == ["a.jpg"]


def test_a_photograph_that_is_named_again_is_left_out_and_told(table, capsys):
    data = table(["path,identity", "a.jpg,1", "b.jpg,1", "./a.jpg,1", "a.JPG,2"])
    assert [line.split(",")[0] for line in toy.lines(data)[1:]] == ["photo00000", "photo00001"]
    assert capsys.readouterr().out.splitlines()[0] == (
        "warning: 2 rows name a photograph again, without a box of their own, and are left out (the first is images/a.jpg); "
        "1 of them name another individual")


def test_missing_and_unreadable_photographs_are_counted_and_change_no_other_id(table, tmp_path, capsys, monkeypatch):
    toy.write(tmp_path / "set" / "e.jpg", "no photograph")
    (tmp_path / "set" / "empty.jpg").touch()
    (tmp_path / "set" / "folder.jpg").mkdir()
    Image.new("L", (50, 50)).save(tmp_path / "set" / "huge.png")
    monkeypatch.setattr(reading, "MAX_PIXELS", 2000)
    data = table(["path,identity", "gone.jpg,1", "e.jpg,1", "a.jpg,1", "empty.jpg,1", "folder.jpg,1", "huge.png,1"])
    assert toy.lines(data)[1:] == ["photo00002,images/a.jpg,1"] and [path.name for path in (data / "images").iterdir()] == ["a.jpg"]
    missing, unreadable, last = capsys.readouterr().out.splitlines()
    assert missing == f"warning: 2 photographs are not in {tmp_path / 'set'} and are left out (the first is gone.jpg)"
    assert unreadable == "warning: 3 photographs cannot be read and are left out (the first is e.jpg)"
    assert last == "1 images: 1 of 1 individuals, 0 of unknown ones; 0 boxes"


@pytest.mark.parametrize("cells, words", [
    ("../secret.jpg,1,,", "'../secret.jpg': not a path inside"), ("/etc/passwd,1,,", "'/etc/passwd': not a path inside"),
    ("a/../../b.jpg,1,,", "not a path inside"), ("..\\b.jpg,1,,", "not a path inside"), ("C:/b.jpg,1,,", "not a path inside"),
    ("\\\\host\\b.jpg,1,,", "not a path inside"), (",1,,", "'': not a path inside"), ('"a\nb.jpg",1,,', "path holds a control character"),
    ("b.jpg,x\x01,,", "identity holds a control character"), ("out/secret.jpg,1,,", "'out/secret.jpg': leads out of"),
    ("link.jpg,1,,", "'link.jpg': leads out of"), ("b.jpg,1,,summer", "'summer': date is not a time"), ("b.jpg,1,,2019-02-30", "'2019-02-30': date is not"),
    ("b.jpg,1,1 2 3,", "'1 2 3': not a box"), ("b.jpg,1,1 2 3 x,", "not a box"), ("b.jpg,1,1 2 -3 4,", "not a box"), ("b.jpg,1,1 2 inf 4,", "not a box"),
    ("b.jpg,1,1 2 3 4 5,", "not a box"), ("b.jpg,1," + "1 " * 1000 + ",", "not a box"), ("b.jpg,1,__import__('os'),", "not a box")])
def test_a_row_that_cannot_be_used_is_told_with_its_line(table, tmp_path, cells, words):
    toy.photographs(tmp_path, "secret.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "out").symlink_to(tmp_path)
    (tmp_path / "set" / "link.jpg").symlink_to("../secret.jpg")
    with pytest.raises(InputError) as error:
        table(["path,identity,bbox,date", "a.jpg,1,,", cells])
    assert "table.csv: line 3: " in str(error.value) and words in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("lines, words", [
    (["file,identity", "a.jpg,1"], "column 'path' is missing; the header is 'file,identity'"),
    (["path,who", "a.jpg,1"], "column 'identity' is missing; .* choose the individual's column with --identity"),
    (["path,identity"], "no rows"), (["path,identity", "x.jpg,1"], "none of the photographs .* such as x.jpg"),
    (["image_id,path,identity", "7,a.jpg,1", "7,b.jpg,1"], "line 3: '7': an earlier row has this image_id too"),
    (["image_id,path,identity", ",a.jpg,1"], "line 2: '': image_id is empty")])
def test_a_table_that_cannot_be_used_is_refused(table, lines, words):
    with pytest.raises(InputError, match=words):
        table(lines)


def test_a_link_within_the_folder_brings_the_photograph_itself(table, tmp_path):
    toy.photographs(tmp_path / "set", "a.jpg")
    (tmp_path / "set" / "z.jpg").symlink_to("a.jpg")
    target = table(["path,identity", "z.jpg,1"]) / "images" / "z.jpg"
    assert target.samefile(tmp_path / "set" / "a.jpg") and not target.is_symlink()


def test_where_links_cannot_be_made_photographs_are_copied(table, tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError("another device")
    monkeypatch.setattr("os.link", refuse)
    copy = table(["path,identity", "a.jpg,1"]) / "images" / "a.jpg"
    assert copy.read_bytes() == (tmp_path / "set" / "a.jpg").read_bytes() and not copy.samefile(tmp_path / "set" / "a.jpg")


def test_four_numbers_agree_with_python_on_random_boxes():
    random = np.random.default_rng(0)
    boxes = [[float(number) for number in random.uniform(-1e4, 1e4, 4).round(random.integers(0, 6))] for _ in range(300)]
    printed = pd.Series([(str, lambda box: str(tuple(box)), lambda box: " ".join(map(str, box)))[k % 3](box) for k, box in enumerate(boxes)])
    assert sightings.four_numbers(printed).tolist() == boxes


def test_folders_name_their_individuals(imported, tmp_path, capsys):
    names = ["Bé, la/1.jpg", "ANNA/2.JPG", "ANNA/2019/1.jpeg", "unknown/x.png", "loose.jpg"]
    toy.photographs(tmp_path / "photographs", *names, ".thumbs/1.jpg", "ANNA/.hidden.jpg")
    toy.write(tmp_path / "photographs" / "ANNA" / "notes.txt", "shy")
    data = imported("folders", tmp_path / "photographs")
    assert toy.lines(data) == [
        "image_id,path,whale_id", "photo00000,images/ANNA/2.JPG,ANNA", "photo00001,images/ANNA/2019/1.jpeg,ANNA",
        'photo00002,"images/Bé, la/1.jpg","Bé, la"', "photo00003,images/loose.jpg,", "photo00004,images/unknown/x.png,"]
    note, untimed, last = capsys.readouterr().out.splitlines()
    assert untimed.startswith("note: 5 photographs do not say when they were taken")
    assert note == "note: 1 other files are left out (the first is ANNA/notes.txt)"
    assert last == "5 images: 3 of 2 individuals, 2 of unknown ones; 0 boxes"


def test_folders_take_the_time_from_the_camera_and_pass_over_what_is_no_time(imported, tmp_path, capsys):
    for name, said in {"1.jpg": "2019:08:05 16:49:13", "2.jpg": "0000:00:00 00:00:00", "3.jpg": None, "4.jpg": "yesterday"}.items():
        exif = Image.Exif()
        if said:
            exif.get_ifd(0x8769)[0x9003] = said
        (tmp_path / "photographs/ANNA").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photographs/ANNA" / name, exif=exif)
    (tmp_path / "photographs/ANNA/5.jpg").write_bytes(b"no photograph")
    data = imported("folders", tmp_path / "photographs")
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False).set_index("path")
    assert table.timestamp.to_dict() == {f"images/ANNA/{k}.jpg": "2019-08-05 16:49:13" * (k == 1) for k in (1, 2, 3, 4)}
    assert table.date["images/ANNA/1.jpg"] == "2019-08-05"
    assert "note: 4 photographs do not say when they were taken" in capsys.readouterr().out


def test_links_to_folders_and_photographs_without_any_folder_are_told(imported, tmp_path, capsys):
    toy.photographs(tmp_path, "elsewhere/1.jpg", "photographs/1.jpg")
    (tmp_path / "photographs" / "ANNA").symlink_to(tmp_path / "elsewhere")
    imported("folders", tmp_path / "photographs")
    link, unknown, _, last = capsys.readouterr().out.splitlines()
    assert link.startswith("note: 1 links to folders are not entered") and link.endswith("(the first is ANNA)")
    assert unknown.startswith("note: no folder of an individual") and last == "1 images: 0 of 0 individuals, 1 of unknown ones; 0 boxes"


def test_folders_can_be_cut_into_folds(imported, tmp_path):
    toy.photographs(tmp_path / "photographs", "ANNA/1.jpg", "ANNA/2.jpg", "BEA/1.jpg", "BEA/2.jpg")
    folds = make(imported("folders", tmp_path / "photographs"), tmp_path / "folds", "whale", n_folds=2)
    assert len(pd.read_csv(folds / "1" / "truth.csv")) == 2


def test_folders_without_photographs_and_links_out_are_refused(imported, tmp_path):
    toy.write(tmp_path / "photographs" / "ANNA" / "notes.txt", "shy")
    with pytest.raises(InputError, match="no photographs in it"):
        imported("folders", tmp_path / "photographs")
    toy.photographs(tmp_path, "secret.jpg")
    (tmp_path / "photographs" / "ANNA" / "1.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match="photograph 1: 'ANNA/1.jpg': leads out of"):
        imported("folders", tmp_path / "photographs")
    with pytest.raises(InputError, match="no such folder"):
        imported("folders", tmp_path / "nowhere")


def test_a_file_name_that_is_no_text_is_left_out_and_counted(imported, tmp_path, capsys):
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "\udce9.txt").write_bytes(b"latin-1")
    (tmp_path / "photographs" / "\udce9.jpg").write_bytes(b"latin-1")
    toy.photographs(tmp_path / "photographs", "ANNA/1.jpg")
    assert toy.lines(imported("folders", tmp_path / "photographs"))[1].split(",")[1] == "images/ANNA/1.jpg"
    assert "warning: 2 files are left out, whose names no table can hold; give them others (the first is '\\udce9.jpg')" in capsys.readouterr().out


@pytest.fixture
def package(monkeypatch):
    """A stand-in for wildlife-datasets: its class, its catalogue as a DataFrame of lists, numbers and empty cells."""
    class WildlifeDataset:
        def __init__(self, root, check_files):
            self.df = self.create_catalogue(root)

    class ToySet(WildlifeDataset):
        def create_catalogue(self, root):
            if not (Path(root) / "a.jpg").exists():
                raise Exception("Some files\nnot found")
            return pd.DataFrame({"image_id": [3, 4, 5], "identity": [193, 7, "unknown"], "path": ["a.jpg", "b.jpg", "gone.jpg"],
                                 "bbox": [[1, 2, 3.5, 3], np.nan, [0, 0, 1, 1]], "orientation": ["up", np.nan, "left"],
                                 "date": [np.nan, pd.Timestamp("2019-08-05 16:49:13"), np.nan]})

    module = types.ModuleType("wildlife_datasets")
    module.datasets = types.SimpleNamespace(WildlifeDataset=WildlifeDataset, ToySet=ToySet)
    monkeypatch.setitem(sys.modules, "wildlife_datasets", module)


def test_a_set_of_the_package_is_asked_for_its_catalogue(package, imported, tmp_path, capsys):
    data = imported("wildlife", "ToySet", "--root", toy.photographs(tmp_path / "root", "a.jpg", "b.jpg"))
    assert toy.lines(data) == ["image_id,path,whale_id,date,timestamp,viewpoint,x0,y0,x1,y1", "3,images/a.jpg,193,,,top,1,2,4.5,5",
                               "4,images/b.jpg,7,2019-08-05,2019-08-05 16:49:13,,,,,"]
    assert "1 photographs are not in" in capsys.readouterr().out


def test_a_set_that_is_not_there_is_one_line(package, imported, tmp_path):
    (tmp_path / "root").mkdir()
    for name, root, words in (("ToySet", "root", r"finds no ToySet there \(Exception: Some files not found\); download it with"),
                              ("ToySets", "root", "ToySets: wildlife-datasets has no such set; did you mean ToySet?"),
                              ("os", "root", "has no such set"), ("ToySet", "nowhere", "no such folder")):
        with pytest.raises(InputError, match=words) as error:
            imported("wildlife", name, "--root", tmp_path / root)
        assert "\n" not in str(error.value)


def test_without_the_package_the_command_says_how_to_get_it(imported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wildlife_datasets", None)
    with pytest.raises(InputError, match="pip install wildlife-datasets"):
        imported("wildlife", "NyalaData", "--root", tmp_path)
    with pytest.raises(InputError, match="NyalaData: no such table; .* --root"):
        imported("wildlife", "NyalaData")


def test_the_command_makes_the_directory_whole_or_not_at_all(tmp_path):
    table = toy.write(toy.photographs(tmp_path / "set", "a.jpg") / "table.csv", "path,identity", "a.jpg,1", "../b.jpg,2")
    refused = toy.command("wildlife", table, "--output", tmp_path / "data")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and [*tmp_path.iterdir()] == [tmp_path / "set"]
    toy.write(table, "path,identity", "a.jpg,1")
    outputs = [tmp_path / "first", tmp_path / "second"]
    assert all(toy.command("wildlife", table, "--output", output).returncode == 0 for output in outputs)
    assert outputs[0].joinpath("metadata.csv").read_bytes() == outputs[1].joinpath("metadata.csv").read_bytes()


@real
def test_nyala_as_a_table_of_path_identity_has_its_own_whales(imported, tmp_path):
    with open(NYALA / "metadata.csv") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    lines = [f"{row['image_id']},{row['path']},{row['whale_id']},{row['viewpoint']}" for row in rows.values()]
    data = imported("wildlife", toy.write(tmp_path / "nyala.csv", "image_id,path,identity,orientation", *lines), "--images", NYALA)
    with open(data / "metadata.csv") as file:
        brought = list(csv.DictReader(file))
    assert len(brought) == len(rows) == 1213
    assert all(row[name] == rows[row["image_id"]][name] for row in brought for name in ("path", "whale_id", "viewpoint"))
    assert all((data / row["path"]).stat().st_size == (NYALA / row["path"]).stat().st_size for row in brought)


@real
@pytest.mark.skipif(not importlib.util.find_spec("wildlife_datasets"), reason="the package wildlife-datasets is not installed")
def test_nyala_through_the_package_itself_has_the_same_whales(imported, tmp_path):
    with open(NYALA / "metadata.csv") as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    for source, row in rows.items():
        link = tmp_path / "nyala" / "wildlife_reidentification-main" / source
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_bytes((NYALA / row["path"]).read_bytes())
    with open(imported("wildlife", "NyalaData", "--root", tmp_path / "nyala") / "metadata.csv") as file:
        brought = {row["path"].removeprefix("images/wildlife_reidentification-main/"): row for row in csv.DictReader(file)}
    assert brought.keys() == rows.keys()
    assert all(int(brought[source]["whale_id"]) == int(row["whale_id"].removeprefix("nyala")) for source, row in rows.items())
    assert all(brought[source]["viewpoint"] == row["viewpoint"] for source, row in rows.items())
