"""COCO JSON with individuals against tables written by hand; every way in which such a file can be wrong."""

import json

import pandas as pd
import pytest

import toy_sightings as toy
from eval.files import InputError
from eval.folds import make


def image(number, **fields):
    return {"id": number, "file_name": f"{number:04d}.jpg", "width": 8, "height": 6, **fields}


def annotation(number, image_id, name, bbox=(0, 0, 8, 6), **fields):
    return {"id": number, "image_id": image_id, "category_id": 1, "name": name, "bbox": list(bbox), **fields}


@pytest.fixture
def content():
    """As LILA hands belugas out: whole-image boxes, an unknown whale, two whales on one photograph, a photograph of none."""
    return {
        "images": [image(1, date_captured="2017/08/07 20:38:36"), image(2, date_captured="2018/08/07 09:05:06"),
                   image(3, date_captured="NA"), image(4), image(5)],
        "annotations": [annotation(11, 1, "whale-a", viewpoint="up"), annotation(12, 2, "whale-a", (1, 1, 3.5, 2), viewpoint="left"),
                        annotation(13, 3, "____", viewpoint="up"), annotation(14, 4, "Bé, la", (0, 0, 4, 6)),
                        annotation(15, 4, "whale-a", (4, 0, 4, 6))],
        "categories": [{"id": 1, "name": "beluga_whale", "supercategory": "animal"}]}


@pytest.fixture
def imported(tmp_path, monkeypatch, content):
    folder = toy.photographs(tmp_path / "train2022", *[f"000{k}.jpg" for k in range(1, 6)])

    def run(*options, images=folder):
        (tmp_path / "lila.json").write_text(json.dumps(content))
        where = ["--images", images] if images else []
        return toy.imported(monkeypatch, "coco", tmp_path / "lila.json", *where, *options, output=tmp_path / "data")
    return run


def test_each_annotation_becomes_a_row_with_its_box_in_corners(imported, capsys):
    data = imported()
    assert toy.lines(data) == [
        "image_id,path,whale_id,date,timestamp,viewpoint,species,height,width,x0,y0,x1,y1",
        "1,images/0001.jpg,whale-a,2017-08-07,2017-08-07 20:38:36,top,beluga_whale,6,8,,,,",
        "2,images/0002.jpg,whale-a,2018-08-07,2018-08-07 09:05:06,left,beluga_whale,6,8,1,1,4.5,3",
        "3,images/0003.jpg,,,,top,beluga_whale,6,8,,,,",
        '4-0,images/0004.jpg,"Bé, la",,,,beluga_whale,6,8,0,0,4,6',
        "4-1,images/0004.jpg,whale-a,,,,beluga_whale,6,8,4,0,8,6"]
    note, last = capsys.readouterr().out.splitlines()
    assert note == "note: 1 images have no annotation and are left out (the first is 5)"
    assert last == "5 images: 4 of 2 individuals, 1 of unknown ones; 3 boxes"
    assert sorted(path.name for path in (data / "images").iterdir()) == ["0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg"]


def test_the_data_can_be_cut_into_folds(imported, content, tmp_path):
    content["annotations"] = [annotation(k, k, f"whale{k % 2}") for k in (1, 2, 3, 4)]
    folds = make(imported(), tmp_path / "folds", "whale", n_folds=2)
    assert len(pd.read_csv(folds / "0" / "truth.csv")) == 2


def test_without_a_folder_of_photographs_the_labels_come_alone(imported, capsys):
    data = imported(images=None)
    assert [path.name for path in data.iterdir()] == ["metadata.csv"] and len(toy.lines(data)) == 6
    assert "a label table without them" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["individual_id", "identity"])
def test_other_usual_fields_name_the_individual(imported, content, field):
    content["annotations"] = [{"image_id": k, field: "" if k == 2 else k} for k in (1, 2, 3)]
    assert toy.lines(imported())[1:] == ["1,images/0001.jpg,1,2017-08-07,2017-08-07 20:38:36,6,8",
                                         "2,images/0002.jpg,,2018-08-07,2018-08-07 09:05:06,6,8", "3,images/0003.jpg,3,,,6,8"]


def test_any_field_can_be_chosen_also_the_category(imported, content, tmp_path):
    for entry in content["annotations"]:
        entry["whale"] = "w"
    assert {line.split(",")[2] for line in toy.lines(imported("--identity", "whale"))[1:4]} == {"w"}
    (tmp_path / "data").rename(tmp_path / "first")
    assert {line.split(",")[2] for line in toy.lines(imported("--identity", "category"))[1:4]} == {"beluga_whale"}


def test_camera_traps_ids_are_text_and_bursts_are_encounters(imported, content):
    content["images"] = [{"id": "site/a b", "file_name": "0001.JPG", "seq_id": "burst7", "datetime": "2019-01-02 03:04:05"}]
    content["annotations"] = [{"id": "x", "image_id": "site/a b", "category_id": 7, "individual_id": None}]
    assert toy.lines(imported()) == ["image_id,path,whale_id,date,timestamp,encounter_id",
                                     "site/a b,images/0001.JPG,,2019-01-02,2019-01-02 03:04:05,burst7"]


def test_of_a_turned_box_the_upright_one_around_its_corners_counts(imported, content):
    content["annotations"] = [annotation(1, 1, "a", (2, 2, 4, 2), theta=.5, segmentation=[[1, 2.5, 4, 1, 6, 3, 2, 5]]),
                              annotation(2, 2, "a", (2, 2, 4, 2), theta=0, segmentation=[[1, 2.5, 4, 1, 6, 3, 2, 5]])]
    assert [line.split(",")[-4:] for line in toy.lines(imported())[1:]] == [["1", "1", "6", "5"], ["2", "2", "6", "4"]]


def test_a_second_annotation_of_a_whole_photograph_is_left_out_and_told(imported, content, capsys):
    content["annotations"].append(annotation(16, 1, "whale-b") | {"bbox": None})
    assert [line.split(",")[0] for line in toy.lines(imported())[1:]] == ["1-0", "2", "3", "4-0", "4-1"]
    told = capsys.readouterr().out
    assert "warning: 1 rows name a photograph again" in told and "1 of them name another individual" in told


def test_the_same_command_gives_the_same_bytes(imported, tmp_path):
    first = (imported() / "metadata.csv").read_bytes()
    (tmp_path / "data").rename(tmp_path / "first")
    assert (imported() / "metadata.csv").read_bytes() == first


@pytest.mark.parametrize("change, words", [
    (lambda c: c.update(images={}), "'images' is not a list of objects"),
    (lambda c: c.pop("annotations"), "'annotations' is not a list of objects"),
    (lambda c: c["annotations"].append(7), "'annotations' is not a list of objects"),
    (lambda c: c["annotations"].clear(), "'annotations' is empty"),
    (lambda c: c["annotations"][1].update(bbox=[0, 9000, 3, 4]), "annotations[1]: '0 9000 3 4': the box lies outside of its photograph"),
    (lambda c: c["annotations"][1].update(bbox=[-9, 1, 9, 4]), "the box lies outside of its photograph"),
    (lambda c: c["images"].append(image(1)), "images[5]: an earlier image has the id '1' too"),
    (lambda c: c["images"].append({"id": 9}), "images[5]: id or file_name is missing"),
    (lambda c: c["annotations"].append(annotation(16, 77, "a")), "annotations[5]: image_id '77' is none of the images"),
    (lambda c: c["annotations"].append({"name": "a"}), "annotations[5]: image_id '' is none of the images"),
    (lambda c: [entry.pop("name") for entry in c["annotations"]], "choose the individual's field with --identity from bbox, category"),
    (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotations[1]: '1 2 3': not a box, [x, y, width, height]"),
    (lambda c: c["annotations"][1].update(bbox=[1, 2, 0, 4]), "annotations[1]: '1 2 0 4': not a box"),
    (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, 4, 5]), "not a box"),
    (lambda c: c["annotations"][1].update(bbox=[1, 2, "wide", 4]), "not a box"),
    (lambda c: c["annotations"][1].update(bbox=[1, 2, float("inf"), 4]), "is no finite number"),
    (lambda c: c["annotations"][1].update(bbox=[1, 2, 10 ** 400, 4]), "is no finite number"),
    (lambda c: c["annotations"][1].update(bbox={"x": [1]}), "not a box"),
    (lambda c: c["annotations"][1].update(date="last summer"), "annotations[1]: 'last summer': date is not a time"),
    (lambda c: c["annotations"][1].update(name="a\x00"), "annotations[1]: 'a\\x00': identity holds a control character"),
    (lambda c: c["annotations"][1].update(name="\ud800"), "annotations[1]: '\\ud800': identity holds a control character"),
    (lambda c: c["images"][1].update(file_name="../secret.jpg"), "annotations[1]: '../secret.jpg': not a path inside"),
    (lambda c: c["images"][1].update(file_name="/etc/passwd"), "annotations[1]: '/etc/passwd': not a path inside"),
    (lambda c: c["images"][1].update(file_name="a\\..\\..\\b.jpg"), "not a path inside"),
    (lambda c: c["images"][1].update(file_name="a\n.jpg"), "path holds a control character"),
])
def test_what_cannot_be_used_is_told_with_its_place(imported, content, tmp_path, change, words):
    change(content)
    with pytest.raises(InputError) as error:
        imported()
    assert words in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "data").exists()


def test_no_json_no_folder_and_no_such_field_are_one_line(tmp_path, imported):
    for words, options in (("no annotation has 'nick'", ["--identity", "nick"]), ("no such folder", [])):
        with pytest.raises(InputError, match=words):
            imported(*options, images=tmp_path / ("train2022" if options else "nowhere"))
    toy.write(tmp_path / "broken.json", '{"images": [')
    refused = toy.command("coco", tmp_path / "broken.json", "--output", tmp_path / "data")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and "not valid JSON" in refused.stderr


def test_a_list_and_a_number_are_no_coco_files(tmp_path, monkeypatch):
    for text in ("[]", "3", '"images"', "null"):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(InputError, match="'images' is not a list of objects"):
            toy.imported(monkeypatch, "coco", tmp_path / "c.json", output=tmp_path / "data")
