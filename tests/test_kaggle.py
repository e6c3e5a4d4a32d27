"""The folders of the two Kaggle competitions become the one layout; the real tables against the csv module."""

import csv
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from eval.files import InputError
from eval.folds import make
from eval.sources.kaggle import COMPETITIONS, write_competition

ROOT = Path(__file__).parents[1]
HWI = ROOT.parent / "shared" / "data" / "hwi"
real = pytest.mark.skipif(not HWI.is_dir(), reason="the shared humpback tables are not here")


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def command(*arguments):
    run = [sys.executable, "-m", "eval.importers", *map(str, arguments)]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True)


def photograph(name):
    """The lines of a picture of one black pixel."""
    return ["P3 1 1 255", "0 0 0", f"# {name}"]


def photographs(folder, *names):
    for name in names:
        write(folder / name, *photograph(name))


@pytest.fixture
def hwi(tmp_path):
    """Four training images, two of one whale and one unknown, and two test images; boxes in another order, c.jpg has none."""
    source = tmp_path / "kaggle"
    write(source / "train.csv", "Image,Id", "b.jpg,w_1", "a.jpg,w_2", "d.jpg,new_whale", "c.jpg,w_1")
    write(source / "sample_submission.csv", "Image,Id", "z.jpg,new_whale w_1", "y.jpg,new_whale w_1")
    write(source / "bounding_boxes.csv", "Image,x0,y0,x1,y1", "z.jpg,1,2,30,40", "d.jpg,4,4,44,44", "a.jpg,1,1,11,11",
          "b.jpg,2,2,22,22", "y.jpg,5,6,70,80", "nobody.jpg,0,0,1,1")
    photographs(source / "train", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    photographs(source / "test", "y.jpg", "z.jpg")
    return source


@pytest.fixture
def happywhale(tmp_path):
    source = tmp_path / "kaggle"
    write(source / "train.csv", "image,species,individual_id", "a.jpg,globis,i1", "b.jpg,kiler_whale,i2", "c.jpg,beluga,i3",
          "d.jpg,bottlenose_dolpin,i1", "e.jpg,pilot_whale,new_individual")
    write(source / "sample_submission.csv", "image,predictions", "y.jpg,i1 i2 i3")
    photographs(source / "train_images", *[f"{name}.jpg" for name in "abcde"])
    photographs(source / "test_images", "y.jpg")
    return source


def imported(source, name="hwi", boxes=None):
    data = source.parent / "data"
    data.mkdir()
    write_competition(data, source, COMPETITIONS[name], boxes)
    return data


def table(data):
    return pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)


def test_both_parts_have_their_images_labels_and_boxes_by_name(hwi):
    data = imported(hwi)
    assert table(data).to_csv(index=False).split() == [
        "image_id,path,whale_id,x0,y0,x1,y1", "b,images/b.jpg,w_1,2,2,22,22", "a,images/a.jpg,w_2,1,1,11,11",
        "d,images/d.jpg,,4,4,44,44", "c,images/c.jpg,w_1,,,,"]
    assert table(data / "test").to_csv(index=False).split() == [
        "image_id,path,x0,y0,x1,y1", "z,images/z.jpg,1,2,30,40", "y,images/y.jpg,5,6,70,80"]
    for part in (data, data / "test"):
        assert [(part / path).read_text().splitlines() for path in table(part).path] == [photograph(Path(path).name) for path in table(part).path]
        assert len(list((part / "images").iterdir())) == len(table(part))


def test_the_order_of_the_boxes_does_not_matter(hwi, tmp_path):
    header, *rows = (hwi / "bounding_boxes.csv").read_text().split()
    turned = write(tmp_path / "turned.csv", header.replace("Image", "image"), *rows[::-1])
    first = (imported(hwi) / "metadata.csv").read_bytes()
    (tmp_path / "data").rename(tmp_path / "first")
    assert (imported(hwi, boxes=turned) / "metadata.csv").read_bytes() == first


def test_what_boxes_and_images_do_not_share_is_counted_on_one_line(hwi, capsys):
    imported(hwi)
    note, last = capsys.readouterr().out.splitlines()
    assert note == "note: 1 images have no box and count whole (the first is c.jpg); 1 boxes name no image (the first is nobody.jpg)"
    assert last == "4 images: 3 of 2 individuals, 1 of unknown ones; 2 test images; 5 boxes"


def test_images_are_hard_linked_and_of_a_link_the_photograph_itself(hwi):
    (hwi / "train" / "a.jpg").rename(hwi / "elsewhere.jpg")
    (hwi / "train" / "a.jpg").symlink_to("../elsewhere.jpg")
    images = imported(hwi) / "images"
    assert (images / "b.jpg").samefile(hwi / "train" / "b.jpg")
    assert (images / "a.jpg").samefile(hwi / "elsewhere.jpg") and not (images / "a.jpg").is_symlink()


def test_a_photograph_that_is_missing_is_left_out_and_counted(hwi, capsys):
    (hwi / "train" / "a.jpg").unlink()
    (hwi / "test" / "y.jpg").unlink()
    data = imported(hwi)
    assert list(table(data).image_id) == ["b", "d", "c"] and list(table(data / "test").image_id) == ["z"]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert len(told) == 2 and "1 photographs are not in" in told[0] and "a.jpg" in told[0] and "y.jpg" in told[1]


def test_without_a_sample_submission_the_folder_names_the_test_images(hwi):
    (hwi / "sample_submission.csv").unlink()
    write(hwi / "test" / ".DS_Store", "no photograph")
    assert list(table(imported(hwi) / "test").image_id) == ["y", "z"]


def test_without_test_images_and_boxes_there_is_the_labelled_part_alone(hwi):
    for name in ("sample_submission.csv", "bounding_boxes.csv", "test/y.jpg", "test/z.jpg"):
        (hwi / name).unlink()
    data = imported(hwi)
    assert not (data / "test").exists() and list(table(data).columns) == ["image_id", "path", "whale_id"]


def test_happywhale_has_its_species_spelt_right_and_its_folders(happywhale, tmp_path):
    boxes = write(tmp_path / "boxes.csv", "image,x0,y0,x1,y1", "y.jpg,0,0,9,9", "a.jpg,0.5,0,9,9")
    data = imported(happywhale, "happywhale", boxes)
    assert table(data).to_csv(index=False).split() == [
        "image_id,path,whale_id,species,x0,y0,x1,y1", "a,images/a.jpg,i1,short_finned_pilot_whale,0.5,0,9,9",
        "b,images/b.jpg,i2,killer_whale,,,,", "c,images/c.jpg,i3,beluga,,,,", "d,images/d.jpg,i1,bottlenose_dolphin,,,,",
        "e,images/e.jpg,,short_finned_pilot_whale,,,,"]
    assert (data / "test" / "images" / "y.jpg").is_file() and list(table(data / "test").x1) == ["9"]


@pytest.mark.parametrize("file, line, words", [
    ("train.csv", "a.jpg,w_9", "line 6: 'a.jpg': an earlier line names this image"),
    ("train.csv", "a.png,w_9", "line 6: 'a.png': an earlier line names this image"),
    ("train.csv", "../a.jpg,w_9", "line 6: '../a.jpg': not the name of a file"),
    ("train.csv", "deep/e.jpg,w_9", "line 6: 'deep/e.jpg': not the name of a file"),
    ("train.csv", "deep\\e.jpg,w_9", "not the name of a file"),
    ("train.csv", "..,w_9", "not the name of a file"),
    ("train.csv", ",w_9", "line 6: '': not the name of a file"),
    ("sample_submission.csv", "/etc/passwd,w_1", "line 4: '/etc/passwd': not the name of a file"),
    ("bounding_boxes.csv", "c.jpg,1,2,wide,4", "line 8: 'c.jpg': its box is not four numbers"),
    ("bounding_boxes.csv", "c.jpg,1,2,3,", "its box is not four numbers"),
    ("bounding_boxes.csv", "c.jpg,1,2,inf,4", "its box is not four numbers"),
    ("bounding_boxes.csv", "c.jpg,5,2,1,4", "x0 < x1"),
    ("bounding_boxes.csv", "a.jpg,1,2,3,4", "line 8: 'a.jpg': an earlier line gives this image a box"),
])
def test_a_bad_line_is_told_with_its_file_and_number(hwi, file, line, words):
    with open(hwi / file, "a") as end:
        end.write(line + "\n")
    with pytest.raises(InputError) as error:
        imported(hwi)
    assert file in str(error.value) and words in str(error.value)


@pytest.mark.parametrize("file, lines, words", [
    ("train.csv", None, "no such file"), ("train.csv", ["Image"], "column 'Id' is missing"), ("train.csv", ["Image,Id"], "no rows"),
    ("train.csv", ["image,Id", "a.jpg,w"], "column 'Image' is missing"), ("sample_submission.csv", ["id"], "column 'Image' is missing"),
    ("bounding_boxes.csv", ["x0,y0,x1,y1"], "column 'Image' is missing"),
    ("bounding_boxes.csv", ["Image,x0,y0,x1"], "column 'y1' is missing")])
def test_a_table_that_is_missing_or_lacks_a_column_is_refused(hwi, file, lines, words):
    (hwi / file).unlink() if lines is None else write(hwi / file, *lines)
    with pytest.raises(InputError, match=words):
        imported(hwi)


def test_a_folder_with_none_of_the_photographs_is_refused(hwi):
    for photograph in (hwi / "train").iterdir():
        photograph.unlink()
    with pytest.raises(InputError, match="none of the photographs"):
        imported(hwi)


def test_the_command_makes_the_directory_whole_or_not_at_all(hwi, tmp_path):
    output = tmp_path / "data"
    with open(hwi / "bounding_boxes.csv", "a") as boxes:
        boxes.write("c.jpg,1,2,,4\n")
    refused = command("hwi", hwi, "--output", output)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1 and [*tmp_path.iterdir()] == [hwi]
    boxes = write(tmp_path / "boxes.csv", "Image,x0,y0,x1,y1", "c.jpg,1,2,3,4")
    done = command("hwi", hwi, "--output", output, "--boxes", boxes)
    assert done.returncode == 0 and done.stderr == "" and "; 1 boxes" in done.stdout
    assert list(table(output).x0) == ["", "", "", "1"]


@pytest.fixture(scope="module")
def humpbacks(tmp_path_factory):
    data = tmp_path_factory.mktemp("hwi") / "data"
    assert command("hwi", HWI, "--output", data).returncode == 0
    return data


@real
def test_the_real_tables_have_their_published_counts(humpbacks):
    labelled, test = table(humpbacks), table(humpbacks / "test")
    assert len(labelled) == 25360 and (labelled.whale_id == "").sum() == 9664 and len(test) == 7960
    assert labelled.whale_id[labelled.whale_id != ""].nunique() == 5004
    assert not (humpbacks / "images").exists() and "whale_id" not in test


@real
def test_the_real_boxes_and_labels_stand_beside_their_own_images(humpbacks):
    with open(HWI / "bounding_boxes.csv") as boxes, open(HWI / "train.csv") as train:
        box, whale = {row["Image"]: row for row in csv.DictReader(boxes)}, {row["Image"]: row["Id"] for row in csv.DictReader(train)}
    for part in (humpbacks, humpbacks / "test"):
        for row in table(part).iloc[::97].itertuples():
            name = row.path.removeprefix("images/")
            assert name == row.image_id + ".jpg"
            assert [row.x0, row.y0, row.x1, row.y1] == [box[name][edge] for edge in ("x0", "y0", "x1", "y1")]
            assert part.name == "test" or (row.whale_id or "new_whale") == whale[name]


@real
def test_the_real_tables_make_an_identify_fold(humpbacks, tmp_path):
    truth = pd.read_csv(make(humpbacks, tmp_path / "folds", "identify") / "0" / "truth.csv")
    assert (truth.Id == "new_whale").sum() == 1000 and len(truth) == 1000 + 5004 - 2073
