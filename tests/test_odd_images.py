"""Odd, broken and hostile image files: read as a viewer shows them or refused in one line, by every command, within bounds of memory and time."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import odd_images
import toy_names
import toy_run
from eval import fingerprints, folds, leakage, reading, report
from eval.page import pictures
from eval.sources import kaggle, wildlife
from eval.sources.linking import is_photograph
from solution import explain, images, matches, predict, quantize
from solution.files import InputError
from test_embed import tiny

ROOT = Path(__file__).parents[1]
CORPUS = odd_images.corpus()
READABLE = [odd for odd in CORPUS if odd.seen is not None]
ROOM = 400 << 20  # bytes that reading any of these files may take
HANGS = 60  # seconds after which a test was waiting
pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow, on damaged files


@pytest.fixture(autouse=True)
def alarm():
    """Nothing here may wait for ever."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits"))
    signal.alarm(HANGS)
    yield
    signal.alarm(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    for odd in CORPUS:
        odd.write(folder)
    return folder


def far(pixels, odd) -> float:
    """By how much the worst channel is off in the mean; another shape is as far as can be."""
    return np.abs(np.asarray(pixels).astype(int) - odd.seen).mean(axis=(0, 1)).max() if np.shape(pixels) == odd.seen.shape else 255.0


def test_the_corpus_is_large_and_the_same_every_time():
    again = [odd for maker in (odd_images.odd_exif, odd_images.cut_short, odd_images.bombs) for odd in maker()]
    assert len(CORPUS) > 200 and len({odd.name for odd in CORPUS}) == len(CORPUS)
    assert {odd.name: odd.content for odd in again}.items() <= {odd.name: odd.content for odd in CORPUS}.items()


# One file

@pytest.mark.parametrize("odd", CORPUS, ids=lambda odd: odd.name)
def test_an_odd_file_is_read_as_it_is_or_refused_in_one_line(odd, folder):
    path = folder / odd.name
    if odd.seen is not None:
        assert far(images.read(path), odd) <= odd.tolerance
        return
    with pytest.raises(InputError) as refused:
        images.read(path)
    line = str(refused.value)
    assert line.startswith(f"{path}: not a readable image: ") and odd.words in line and line.isprintable() and len(line) < 300 + len(str(path))


def test_the_harness_reads_and_refuses_the_same_files(folder):
    """`eval` has code of its own: fingerprints, thumbnails, and the look at a header that decides what is imported."""
    for odd in CORPUS:
        path, whole = folder / odd.name, np.full(4, np.nan)
        prints = fingerprints.fingerprints([str(path)], whole[None], {})
        thumbnail = pictures.thumbnail(path, whole, 100)
        assert prints.unreadable[0] == (thumbnail == "") == (odd.seen is None), odd.name
        if odd.seen is not None:
            with reading.stream(path) as opened:
                assert far(reading.upright(reading.recognised(opened)).convert("RGB"), odd) <= odd.tolerance, odd.name


def test_opencv_sees_the_same():
    """An independent decoder."""
    others = "orientations-many", "all-of-itself", "lab", "claims-itself"  # of broken EXIF it makes an orientation, of LAB other colours; it refuses the last
    agreed = 0
    for odd in READABLE:
        if not any(words in odd.name for words in others):
            found = cv2.imdecode(np.frombuffer(odd.content, np.uint8), cv2.IMREAD_COLOR)
            assert far(found[..., ::-1], odd) <= (odd.tolerance or 1.0), odd.name  # 16 bits it rounds
            agreed += 1
    assert agreed > 90


@pytest.mark.parametrize("name, words", [("folder", "directory"), ("pipe", "not an ordinary file"), ("gone", "no such image"), ("zeros-for-ever", "not an ordinary file"),
                                         ("itself", "symbolic links"), ("ten-gigabytes", "10737418240 bytes are more than 640000000")])
def test_what_is_no_file_is_refused_before_it_is_read(name, words, tmp_path):
    path = odd_images.not_files(tmp_path)[name]
    with pytest.raises(InputError) as refused:
        images.read(path)
    assert words in str(refused.value) and str(refused.value).isprintable()
    with pytest.raises((OSError, ValueError)):
        reading.stream(path)
    prints = fingerprints.fingerprints([str(path)] * 2 + [str(tmp_path)], np.full((3, 4), np.nan), {})
    assert prints.unreadable.all() and list(prints.copy) == [0, 0, 1] and pictures.thumbnail(path, np.full(4, np.nan), 100) == ""


def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(odd_images.JPEG)
    (tmp_path / "a.jpg").chmod(0)
    child = os.fork()
    if child == 0:
        os.setuid(65534)  # root may read everything
        try:
            images.read(tmp_path / "a.jpg")
        except InputError as error:
            os._exit(7 if str(error).endswith("Permission denied") else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_of_a_file_that_grows_as_much_is_read_as_there_was(tmp_path, monkeypatch):
    path, told = tmp_path / "a.jpg", os.fstat
    path.write_bytes(odd_images.JPEG)

    def growing(number):
        status = told(number)
        with open(path, "ab") as file:
            file.write(bytes(1_000_000))
        return status

    monkeypatch.setattr(os, "fstat", growing)
    assert images.content(path) == odd_images.JPEG
    assert len(reading.content(path)) < 3_000_000


def test_a_pipe_or_a_huge_file_would_hang_or_fill_the_memory_otherwise(tmp_path):
    """What the protection is for: a plain open of the pipe does not come back."""
    pipe = odd_images.not_files(tmp_path)["pipe"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(["cat", pipe], timeout=0.3)


BOUNDED = """
import json, resource, sys
from pathlib import Path
import numpy as np
from solution import images
from solution.files import InputError
from eval import fingerprints
from eval.page import pictures

def used(): return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
images.read(Path(sys.argv[2])), fingerprints.fingerprints([sys.argv[2]], np.full((1, 4), np.nan), {})  # libraries that come when first used
limit, before = used() + int(sys.argv[1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
told = {}
for path in map(Path, sys.argv[2:]):
    try:
        told[path.name] = list(images.read(path).size)
    except InputError as error:
        told[path.name] = str(error)
    pictures.thumbnail(path, np.full(4, np.nan), 100), fingerprints.fingerprints([str(path)], np.full((1, 4), np.nan), {})
print(json.dumps([told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]))
"""


def test_bombs_are_refused_before_memory_is_taken(folder, tmp_path):
    """In a process that may take 400 MB more than it has: the answers are those of one that may take all, and a quarter of it is used."""
    hostile = [odd for maker in (odd_images.odd_weights, odd_images.bombs, odd_images.loops, odd_images.impossible) for odd in maker()]
    files = [folder / "1x1.png", *(folder / odd.name for odd in hostile), *odd_images.not_files(tmp_path).values()]
    child = subprocess.run([sys.executable, "-c", BOUNDED, str(ROOM), *map(str, files)], cwd=ROOT, capture_output=True, text=True, timeout=HANGS,
                           env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert child.returncode == 0, child.stderr
    told, kilobytes = json.loads(child.stdout)
    for odd in hostile:
        assert (told[odd.name] == [odd.seen.shape[1], odd.seen.shape[0]]) if odd.seen is not None else odd.words in told[odd.name], odd.name
    assert all("memory" not in str(said).lower() for said in told.values())
    assert kilobytes < ROOM >> 12


def test_exif_without_end_is_refused_before_it_is_joined(folder, monkeypatch):
    """Pillow takes time by the square of the blocks, which shows in files of hundreds of megabytes; here a file is long from 1 MB on."""
    for room in (images, reading):
        monkeypatch.setattr(room, "LONG", 1 << 20)
    with pytest.raises(InputError, match="more EXIF than any camera writes"):
        images.read(folder / "exif-of-12-mb.jpg")
    assert not is_photograph(str(folder / "exif-of-12-mb.jpg")) and is_photograph(str(folder / "comments-of-20-mb.jpg"))
    assert images.read(folder / "comments-of-20-mb.jpg").size == (odd_images.WIDTH, odd_images.HEIGHT)


def test_no_program_is_started_for_postscript(folder, tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # to be looked for anew
    path = folder / "postscript.jpg"
    with pytest.raises(InputError):
        images.read(path)
    assert pictures.thumbnail(path, np.full(4, np.nan), 100) == "" and not is_photograph(str(path))
    assert not (tmp_path / "started").exists()
    with pytest.raises(OSError):
        Image.open(path).load()  # what Pillow does of itself
    assert (tmp_path / "started").exists()


def test_a_second_reading_gives_the_same_pixels_and_no_warning(folder):
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as images.py sets it outside of pytest
        for odd in READABLE:
            assert np.array_equal(images.read(folder / odd.name), images.read(folder / odd.name)), odd.name
    assert not said


# Import and folds

def told_of(line: str, lines) -> int:
    """The number at the beginning of the warning that has these words; 0 where there is none."""
    return next((int(said.split()[1].replace(",", "")) for said in lines if line in said), 0)


def photographs(folder: Path) -> Path:
    """Two individuals: the corpus, odd names, and what is no file."""
    for name in ("ANNA", "BEA"):
        (folder / name).mkdir(parents=True)
    for number, odd in enumerate(CORPUS):
        odd.write(folder / ("ANNA", "BEA")[number % 2])
    odd_images.not_files(folder / "BEA")
    for name in odd_images.NAMES + odd_images.UNNAMEABLE:
        (folder / "ANNA" / name).write_bytes(odd_images.JPEG)
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What `folders` makes of it."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "data").mkdir()
    wildlife.write_folders(folder / "data", photographs(folder / "photographs"))
    return folder / "data"


def test_folders_of_odd_files_are_imported_but_for_what_no_header_says(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    wildlife.write_folders(tmp_path / "data", photographs(tmp_path / "photographs"))
    lines, table = capsys.readouterr().out.splitlines(), pd.read_csv(tmp_path / "data" / "metadata.csv", dtype=str, keep_default_na=False)
    there = {Path(path).name for path in table.path}
    wanted = {odd.name: odd for odd in CORPUS if odd.name.endswith(wildlife.SUFFIXES)}
    assert {name for name, odd in wanted.items() if odd.seen is not None} | set(odd_images.NAMES) <= there
    assert not there & {name for name, odd in wanted.items() if odd.words in (odd_images.LARGE, "of no kind that is read here")}
    lost = len(wanted) + len(odd_images.NAMES) + 1 - len(there)  # and ten gigabytes
    assert told_of("photographs cannot be read and are left out", lines) == lost > 40
    assert told_of("photographs are not in", lines) == 4  # pipe, gone, zeros and itself
    assert told_of("whose names no table can hold", lines) == len(odd_images.UNNAMEABLE)
    assert lines[-1].startswith(f"{len(there)} images: ")


def test_a_competition_of_odd_files_is_imported_alike(tmp_path, capsys):
    source = tmp_path / "kaggle"
    for part in ("train", "test"):
        (source / part).mkdir(parents=True)
        others = odd_images.not_files(source / part)
        for odd in CORPUS:
            odd.write(source / part)
    names = [odd.name for odd in CORPUS] + [path.name for path in others.values()]
    pd.DataFrame({"image": names, "species": "beluga", "individual_id": [f"w{number % 3}" for number in range(len(names))]}).drop_duplicates("image").to_csv(tmp_path / "all.csv")
    unique = pd.Series(names)[~pd.Series(names).str.replace(r"\.\w+$", "", regex=True).duplicated()]
    pd.DataFrame({"Image": unique, "Id": "w1"}).to_csv(source / "train.csv", index=False)
    pd.DataFrame({"Image": unique, "Id": "new_whale"}).to_csv(source / "sample_submission.csv", index=False)
    (tmp_path / "data").mkdir()
    kaggle.write_competition(tmp_path / "data", source, kaggle.COMPETITIONS["hwi"])
    lines = capsys.readouterr().out.splitlines()
    for part in (tmp_path / "data", tmp_path / "data" / "test"):
        there = set(pd.read_csv(part / "metadata.csv").path.str.removeprefix("images/"))
        assert {odd.name for odd in READABLE} & set(unique) <= there == {path.name for path in (part / "images").iterdir()}
        assert told_of("photographs cannot be read", lines) + told_of("photographs are not in", lines) == len(unique) - len(there)


def test_a_link_out_of_the_competitions_folder_is_not_followed(tmp_path):
    (tmp_path / "kaggle" / "train").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(odd_images.JPEG)
    (tmp_path / "kaggle" / "train" / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "kaggle" / "train.csv").write_text("Image,Id\na.jpg,w1\n")
    (tmp_path / "data").mkdir()
    with pytest.raises(Exception, match="'a.jpg': leads out of"):
        kaggle.write_competition(tmp_path / "data", tmp_path / "kaggle", kaggle.COMPETITIONS["hwi"])


def test_a_competitions_folder_names_the_files_that_a_table_can_hold(tmp_path, capsys):
    for part in ("train", "test"):
        (tmp_path / "kaggle" / part).mkdir(parents=True)
        for name in odd_images.NAMES + odd_images.UNNAMEABLE:
            (tmp_path / "kaggle" / part / name).write_bytes(odd_images.JPEG)
    (tmp_path / "kaggle" / "train.csv").write_text("Image,Id\n-rf.jpg,w1\n")
    (tmp_path / "data").mkdir()
    kaggle.write_competition(tmp_path / "data", tmp_path / "kaggle", kaggle.COMPETITIONS["hwi"])
    assert set(pd.read_csv(tmp_path / "data" / "test" / "metadata.csv").path.str.removeprefix("images/")) == set(odd_images.NAMES)
    assert told_of("whose names no table can hold", capsys.readouterr().out.splitlines()) == 3


def test_folds_copy_odd_files_as_they_are_and_leakage_counts_what_it_cannot_read(imported, tmp_path):
    made = folds.make(imported, tmp_path / "folds", "stratified", n_folds=2)
    table, labels = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (imported / "metadata.csv", made / "0" / "labels.csv"))
    path_of = dict(zip(table.image_id, table.path))
    copies = pd.read_csv(made / "0" / "test" / "metadata.csv", dtype=str).set_index("image_id").path
    for row in labels.itertuples():
        assert (made / "0" / "test" / copies[row.image_id]).read_bytes() == (imported / path_of[row.original_image_id]).read_bytes()
    told = leakage.measure(made / "0", {})
    broken = {odd.name for odd in CORPUS if odd.seen is None}
    assert set(told["unreadable"]) == {image for image, path in path_of.items() if Path(path).name in broken}


# Prediction

@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A fold of names with weights, and odd/: the corpus and what is no file, to be ranked; names/ has the same without scenarios."""
    fold = toy_names.fold(tmp_path_factory.mktemp("fold"), tiny("bare", 1, 32))
    (fold / "odd" / "images").mkdir(parents=True)
    others = odd_images.not_files(fold / "odd" / "images")
    files = [odd.write(fold / "odd" / "images") for odd in CORPUS] + list(others.values())
    rows = pd.DataFrame({"image_id": [path.name for path in files], "path": [f"images/{path.name}" for path in files]})
    rows[rows.image_id != "zeros-for-ever.jpg"].to_csv(fold / "odd" / "metadata.csv", index=False)
    for name, column in (("queries", "query_image_id"), ("databases", "database_image_id")):
        (fold / "odd" / name).mkdir()
        rows.assign(**{column: rows.image_id, "query_id": "q-" + rows.image_id})[[column] + ["query_id"] * (name == "queries")].to_csv(fold / "odd" / name / "one.csv", index=False)
    (fold / "odd" / "query_scenarios.csv").write_text("scenario_id,queries_path,database_path\none,queries/one.csv,databases/one.csv\n")
    (fold / "names").symlink_to("odd")
    return fold


REFUSED = {odd.name for odd in CORPUS if odd.seen is None} | {"folder.jpg", "pipe.jpg", "gone.jpg", "itself.jpg", "ten-gigabytes.jpg"}


def warned(text: str) -> list[str]:
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("warning: ")]


def test_rankings_of_odd_files_are_complete_and_tell_each_that_cannot_be_read_once(asked, tmp_path, capfd):
    predict.main(["--data", str(asked / "odd"), "--weights", str(asked / "weights"), "--output", str(tmp_path / "s.csv"), "--engine", "torch", "--workers", "2", "--no-cache"])
    said = capfd.readouterr()
    found, queries = pd.read_csv(tmp_path / "s.csv", dtype=str), pd.read_csv(asked / "odd" / "queries" / "one.csv", dtype=str)
    assert set(found.query_id) == set(queries.query_id) and (found.query_id.value_counts() == 20).all()
    lines = warned(said.err)
    told = [Path(line.removeprefix("warning: ").split(": ")[0]).name for line in lines if "/odd/images/" in line]
    assert sorted(told) == sorted(REFUSED) and len(lines) == len(REFUSED) + 1  # and an image that a scenario asks for and that has no row
    assert f"{len(lines)} warnings" in said.out


def test_names_for_odd_files_are_complete_too(asked, tmp_path, capfd):
    (asked / "odd" / "query_scenarios.csv").rename(tmp_path / "aside.csv")
    try:
        predict.main(["--data", str(asked / "odd"), "--weights", str(asked / "weights"), "--output", str(tmp_path / "s.csv"), "--engine", "torch", "--workers", "0", "--no-cache"])
    finally:
        (tmp_path / "aside.csv").rename(asked / "odd" / "query_scenarios.csv")
    found = pd.read_csv(tmp_path / "s.csv", dtype=str)
    assert set(found.Image) == set(pd.read_csv(asked / "odd" / "metadata.csv").image_id)
    assert len([line for line in warned(capfd.readouterr().err) if "/odd/images/" in line]) == len(REFUSED)


def test_single_photographs_are_named_but_for_those_that_cannot_be_read(asked, tmp_path, capfd):
    names = ["cmyk.jpg", "empty.jpg", "orientation-6.png", "bomb.png", "1x1.png"]
    matches.show([asked / "odd" / "images" / name for name in names], asked / "weights", None, tmp_path / "m.png", "cpu", cache=False)
    said = capfd.readouterr()
    assert [line.split(": new_whale")[0].rsplit("/", 1)[1] for line in said.out.splitlines() if "new_whale" in line] == ["cmyk.jpg", "orientation-6.png", "1x1.png"]
    assert len(warned(said.err)) == 2 and Image.open(tmp_path / "m.png").size[1] > 240 * 3


def test_pairs_of_odd_files_are_explained_but_for_those_that_cannot_be_read(asked, tmp_path, capfd, monkeypatch):
    queries = ["q-cmyk.jpg", "q-1x65535.png", "q-orientation-5.webp"]
    matches_of = ["empty.jpg", "two-cameras.jpg", "16-bit.tif", "pipe.jpg"]
    pd.DataFrame([(query, match, 1 - place / 10) for query in queries for place, match in enumerate(matches_of)],
                 columns=["query_id", "database_image_id", "score"]).to_csv(tmp_path / "s.csv", index=False)
    monkeypatch.setattr(sys, "argv", ["explain", "--data", str(asked / "odd"), "--weights", str(asked / "weights"), "--submission", str(tmp_path / "s.csv"),
                                      "--output", str(tmp_path / "e"), "--workers", "0", "--queries", ",".join(queries)])
    explain.main()
    found = pd.read_csv(tmp_path / "e" / "pairs.csv")
    assert sorted(found.query_id.unique()) == sorted(queries) and set(found.database_image_id) == {"two-cameras.jpg", "16-bit.tif"}
    assert len([line for line in warned(capfd.readouterr().err) if "not a readable image" in line]) == 2


def test_eight_bits_are_calibrated_on_what_can_be_read(asked, capfd):
    (squares,) = quantize.sample(asked / "odd", [tiny("bare", 1, 32)], 999, 0).values()
    assert len(squares) == len(READABLE) and len(warned(capfd.readouterr().err)) == len(REFUSED)


def test_a_report_shows_odd_photographs_and_leaves_places_for_the_rest(tmp_path, monkeypatch):
    run = toy_run.make(tmp_path / "run")
    places = sorted((run / "folds" / "0" / "test" / "images").iterdir())
    for path, odd in zip(places, [odd for odd in CORPUS if odd.name in ("cmyk.jpg", "postscript.jpg", "bomb.gif", "16-bit-grey.png", "empty.jpg", "scans.jpg")]):
        path.write_bytes(odd.content)
    places[6].unlink()
    os.mkfifo(places[6])
    monkeypatch.setattr(sys, "argv", ["report", str(run), "--output", str(tmp_path / "r.html")])
    report.main()
    assert (tmp_path / "r.html").read_text().count("data:image/webp;base64,") > 3
