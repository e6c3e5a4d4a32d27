"""The photographs of a page: cut and upright, each once, the queries worth a look first, and never more than there is room for."""

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy_run
from eval.page import answers, pictures
from eval.files import InputError, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return toy_run.make(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def found(run):
    return answers.read(run, [0, 1])


def first(found, *chosen):
    return found.queries.index.isin(chosen)


def opened(source):
    return Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))


def photographs_of(found, query):
    tiles = found.tiles.image[found.tiles["query"] == query].tolist()
    return {found.queries.image[query], *tiles} - {-1}


def test_every_photograph_of_an_answer_is_there_once_where_there_is_room(found):
    sources = pictures.photographs(found, first(found))
    assert set(sources) == set.union(*(photographs_of(found, query) for query in found.queries.index))
    assert all(opened(source).format == "WEBP" for source in sources.values()) and pictures.pictured(found, sources).all()


def test_what_does_not_fit_is_left_out_and_marked_queries_come_first(found, monkeypatch):
    monkeypatch.setattr(pictures, "ROOM", 12_000)
    sources = pictures.photographs(found, first(found, 7))
    assert 8_000 < sum(map(len, sources.values())) <= 12_000
    assert photographs_of(found, 7) == set(list(sources)[: len(photographs_of(found, 7))])
    best, worst = (answers.orders(found)[name][0] for name in ("best", "worst"))
    following = photographs_of(found, best) | photographs_of(found, worst) | photographs_of(found, 7)
    assert set(list(sources)[: len(following)]) <= following
    has = pictures.pictured(found, sources)
    assert [photographs_of(found, query) <= set(sources) for query in found.queries.index] == has.tolist() and has[7] and not has.all()


def test_both_ends_of_every_order_come_before_the_rest_and_the_rest_spreads_over_the_scenarios(found, monkeypatch):
    monkeypatch.setattr(pictures, "LOOKED_AT", 2)
    turns = pictures.turns(found, first(found, 5))
    assert sorted(turns) == list(range(len(turns))) and turns[5] == 0
    orders = answers.orders(found)
    ends = {*orders["best"][:2], *orders["worst"][:2]} - {5}
    assert {query for query in found.queries.index if 1 <= turns[query] <= len(ends)} == ends
    rest = found.queries.assign(turn=turns)[turns > len(ends)].sort_values("turn")
    scenarios = (rest.fold.astype(str) + rest.scenario_id).tolist()
    assert len(set(scenarios[: len(set(scenarios))])) > len(set(scenarios)) / 2


@pytest.mark.parametrize("n, side", [(1, 320), (10_000, 180)])
def test_few_photographs_are_large_and_many_small(n, side):
    assert pictures.side_for(n) == side and 180 < pictures.side_for(600) < 320


def test_a_thumbnail_is_cut_to_its_box_upright_and_without_what_the_file_says(tmp_path):
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 200:] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 3, "SECRET" * 1000  # upside down; a description
    Image.fromarray(pixels[::-1, ::-1]).save(tmp_path / "a.jpg", exif=exif, quality=95)

    def read(box):
        source = pictures.thumbnail(tmp_path / "a.jpg", np.array(box, float), 240)
        assert b"SECRET" not in base64.b64decode(source.split(",")[1])
        return np.asarray(opened(source))

    whole, right = read([np.nan] * 4), read([200, 0, 300, 100])
    assert whole.shape == (80, 240, 3) and whole[:, :150].mean() < 5 and whole[:, 170:].mean() > 250
    assert right.shape == (100, 100, 3) and right.mean() > 250
    assert read([250, 0, 9e9, 100]).shape == (100, 50, 3) and read([5, 5, 5, 5]).shape == whole.shape


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_is_cut_alike_though_it_is_decoded_small(tmp_path, orientation):
    ramp = np.linspace(0, 255, 2000).astype(np.uint8)
    pixels = np.dstack([np.tile(ramp, (1200, 1)), np.tile(ramp[:1200, None], (1, 2000)), np.zeros((1200, 2000), np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels if orientation == 1 else np.rot90(pixels)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    for box in ([np.nan] * 4, [500, 300, 1500, 1100], [10, 20, 210, 180]):
        x0, y0, x1, y1 = (0, 0, 2000, 1200) if np.isnan(box[0]) else box
        seen = np.asarray(opened(pictures.thumbnail(tmp_path / "a.jpg", np.array(box, float), 200)), int)
        expected = np.asarray(Image.fromarray(pixels[y0:y1, x0:x1]).resize(seen.shape[1::-1], Image.Resampling.BOX), int)
        assert max(seen.shape) == 200 and np.abs(seen - expected)[..., :2].mean() < 4


@pytest.mark.parametrize("content", [b"", b"no photograph", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_an_unreadable_photograph_leaves_a_place(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    assert pictures.thumbnail(tmp_path / "a.png", np.full(4, np.nan), 100) == pictures.thumbnail(tmp_path / "none.png", np.full(4, np.nan), 100) == ""


@pytest.fixture
def explained(run, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    return copy, toy_run.explain(copy, 1, n=3)


def test_explained_pairs_come_with_their_pictures_until_the_room_is_spent(explained, monkeypatch):
    run, written = explained
    (run / "fold1/explain/1.png").unlink()
    pairs = pictures.pairs(run, [0, 1])
    assert pairs.query_id.tolist() == written.query_id.tolist() and set(pairs.fold) == {1}
    assert opened(pairs.source[0]).size == (100, 40) and pairs.source[1] == ""
    monkeypatch.setattr(pictures, "PAIR_ROOM", 10)
    assert [source is None for source in pictures.pairs(run, [0, 1]).source] == [False, True, True]
    assert pictures.pairs(run, [0]).empty
    shutil.copytree(run / "fold1/explain", run / "fold0/explain", dirs_exist_ok=True)
    monkeypatch.setattr(pictures, "PAIR_ROOM", len(pairs.source[0]) + 10)
    both = pictures.pairs(run, [0, 1])
    assert set(both.fold[both.source.notna()]) == {0, 1}  # the folds take their turns


@pytest.mark.parametrize("name", ["../per_query.csv", "/etc/passwd", "..", "", "a\\b.png"])
def test_a_picture_outside_its_folder_is_refused(explained, name):
    run, written = explained
    written.loc[written.index[1], "picture"] = name
    write_table(written, run / "fold1/explain/pairs.csv")
    with pytest.raises(InputError, match="pairs.csv: line 3: picture"):
        pictures.pairs(run, [1])
