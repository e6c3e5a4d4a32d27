"""Photographs of every kind become the same RGB array; what cannot is refused in one line."""

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import toy
from solution import images
from solution.files import InputError


def noise(height=40, width=60, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def saved(tmp_path, image, name="photograph.png", **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(tmp_path / name, **options)
    return tmp_path / name


def cut(path, box, margin=0.0):
    return np.asarray(images.cropped(images.read(path), box, margin))


def refusal(path):
    with pytest.raises(InputError) as refused:
        images.read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def directory(tmp_path, *lines):
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


# The box

def test_a_box_cuts_rows_and_columns(tmp_path):
    pixels = noise()
    assert np.array_equal(cut(saved(tmp_path, pixels), (10, 5, 31, 25)), pixels[5:25, 10:31])


@pytest.mark.parametrize("box, expected", [
    ((-5, -7, 20, 30), (0, 0, 20, 30)),
    ((30, 10, 1000, 1000), (30, 10, 60, 40)),
    ((-9, -9, 99, 99), (0, 0, 60, 40)),
    ((1.4, 1.6, 20.2, 19.9), (1, 2, 20, 20)),
    ((70, 5, 90, 20), (0, 0, 60, 40)),  # nothing left: the whole image
    ((20, 5, 20, 20), (0, 0, 60, 40)),
    ((30, 5, 20, 20), (0, 0, 60, 40)),
    ((59.4, 39.4, 59.6, 39.6), (59, 39, 60, 40)),
])
def test_a_box_is_clipped_to_the_image(box, expected):
    assert images.within(box, (60, 40)) == expected


def test_a_margin_moves_every_side_out_by_its_share(tmp_path):
    """10 % of 30 and of 20 pixels, on either side: the box grows by 20 %."""
    pixels = noise()
    path = saved(tmp_path, pixels)
    assert np.array_equal(cut(path, (10, 5, 40, 25), 0.1), pixels[3:27, 7:43])
    assert np.array_equal(cut(path, (10, 10, 40, 20), 0.25), pixels[8:22, 2:48])  # 7.5 and 2.5, rounded to even
    assert np.array_equal(cut(path, (5, 3, 55, 38), 0.1), pixels[:, :60])
    assert np.array_equal(cut(path, (0, 0, 20, 20), 0.5), pixels[:30, :30])
    assert np.array_equal(cut(path, None, 0.5), pixels)


def test_any_box_leaves_at_least_a_pixel_inside_the_image():
    for box in np.random.default_rng(0).uniform(-100, 160, (500, 4)):
        left, top, right, bottom = images.within(tuple(box), (60, 40))
        assert 0 <= left < right <= 60 and 0 <= top < bottom <= 40


# Kinds of file

@pytest.mark.parametrize("orientation, turned", [
    (1, lambda a: a), (2, lambda a: a[:, ::-1]), (3, lambda a: a[::-1, ::-1]), (4, lambda a: a[::-1]),
    (5, lambda a: a.transpose(1, 0, 2)), (6, lambda a: np.rot90(a, -1)), (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)), (8, np.rot90),
])
def test_a_photograph_is_turned_as_its_exif_says_before_the_box_is_cut(orientation, turned, tmp_path):
    pixels, exif = noise(), Image.Exif()
    exif[0x0112] = orientation
    path, expected = saved(tmp_path, pixels, exif=exif), turned(pixels)
    assert np.array_equal(np.asarray(images.read(path)), expected)
    assert np.array_equal(cut(path, (3, 5, 20, 30)), expected[5:30, 3:20])


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = noise(channels=1)[..., 0]
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, grey))), np.dstack([grey] * 3))


def test_black_and_white_becomes_0_and_255(tmp_path):
    bits = noise(channels=1)[..., 0] > 127
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, Image.fromarray(bits)))), np.dstack([bits * 255] * 3))


def test_transparency_is_dropped(tmp_path):
    pixels = noise(channels=4)
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, pixels))), pixels[..., :3])
    grey = noise(channels=2)
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, Image.fromarray(grey, "LA")))), np.dstack([grey[..., 0]] * 3))


def test_a_palette_is_looked_up(tmp_path):
    palette, index = noise(1, 256)[0], noise(channels=1)[..., 0]
    image = Image.fromarray(index, "P")
    image.putpalette(palette.ravel().tolist())
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, image))), palette[index])
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, image, transparency=7))), palette[index])


def test_cmyk_becomes_rgb(tmp_path):
    cmyk = np.zeros((8, 8, 4), np.uint8)
    cmyk[:4, :, 0], cmyk[4:, :, 3] = 255, 255  # cyan above, black below
    read = np.asarray(images.read(saved(tmp_path, Image.fromarray(cmyk, "CMYK"), "photograph.tif")))
    assert (read[:4] == [0, 255, 255]).all() and (read[4:] == 0).all()
    assert images.read(saved(tmp_path, Image.fromarray(cmyk, "CMYK"), "photograph.jpg")).mode == "RGB"


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_keep_their_upper_eight(name, tmp_path):
    deep = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    assert np.array_equal(np.asarray(images.read(saved(tmp_path, deep, name))), np.dstack([deep >> 8] * 3))


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    first, second = (Image.new("L", (9, 9), value) for value in (10, 200))
    path = saved(tmp_path, first, "photograph.gif", save_all=True, append_images=[second])
    assert (np.asarray(images.read(path)) == 10).all()


# What is refused

def test_a_missing_a_broken_and_an_empty_file_are_refused_in_one_line(tmp_path):
    assert "no such image" in refusal(tmp_path / "absent.jpg")
    for name, content in (("empty.jpg", b""), ("text.jpg", b"no image\n"), ("half.jpg", b"\xff\xd8\xff\xe0")):
        (tmp_path / name).write_bytes(content)
        assert "not a readable image" in refusal(tmp_path / name)
    assert "not a readable image" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["photograph.jpg", "photograph.png", "photograph.tif", "photograph.webp"])
def test_a_truncated_file_is_refused_in_one_line(name, tmp_path):
    path = saved(tmp_path, noise(), name)
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        assert "not a readable image" in refusal(path)


@pytest.mark.filterwarnings("ignore")  # Pillow's, on damaged TIFF tags
def test_damaged_bytes_give_an_image_or_one_line_never_a_traceback(tmp_path):
    random, path = np.random.default_rng(0), tmp_path / "damaged"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(noise(20, 30)).save(file, kind, exif=exif)
        for _ in range(60):
            content = np.frombuffer(file.getvalue(), np.uint8).copy()
            content[random.integers(0, min(len(content), 200), 4)] = random.integers(0, 256, 4)
            path.write_bytes(content.tobytes())
            try:
                assert images.read(path).mode == "RGB"
            except InputError as error:
                assert "\n" not in str(error)


def header_of(width, height):
    """A PNG of a few bytes that says it is large."""
    chunk = lambda kind, content: struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width, height", [(20_000, 10_001), (15_000, 15_000), (60_000, 60_000)])
def test_more_than_200_megapixels_are_refused_from_the_header(width, height, tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    (tmp_path / "huge.png").write_bytes(header_of(width, height))
    with warnings.catch_warnings(record=True) as said:
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # as images.py sets it outside of pytest
        assert "pixels" in refusal(tmp_path / "huge.png")
    assert not said


# Sizes

@pytest.mark.parametrize("size", [32, 90])
def test_the_square_is_pillows_bicubic_resize(size):
    """Columns before rows, for portrait and landscape alike; Pillow's own choice of the order differs by its version."""
    image = Image.fromarray(noise())
    columns = image.resize((size, image.height), resample=Image.Resampling.BICUBIC)
    expected = np.asarray(columns.resize((size, size), resample=Image.Resampling.BICUBIC))
    assert np.array_equal(images.square(image, size), expected)


def test_a_complete_jpeg_has_the_pixels_of_libjpeg_turbo_and_a_cut_one_is_refused(tmp_path):
    path = tmp_path / "photograph.jpg"
    Image.fromarray(noise()).save(path, quality=85)
    assert np.array_equal(np.asarray(images.read(path)), cv2.imread(str(path))[..., ::-1])
    path.write_bytes(path.read_bytes()[:-200])
    assert "not a readable image" in refusal(path)


def test_making_smaller_antialiases():
    """A checkerboard of single pixels becomes grey, which sampling without a filter would not give."""
    board = (np.indices((256, 256)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(images.square(Image.fromarray(board), 32).astype(int) - 127).max() < 8


def test_a_photograph_is_opened_once_for_all_views(tmp_path, monkeypatch):
    pixels = noise()
    path, opened, read = saved(tmp_path, pixels), [], images.read
    monkeypatch.setattr(images, "read", lambda path: opened.append(path) or read(path))
    views = [images.View(32), images.View(48, 0.1), images.View(32, 0.5), images.View(64, 0.1)]
    photographs = images.Photographs([path, path], views, [None, (20, 10, 40, 20)])
    assert len(photographs) == 2
    crops = [pixels[10:20, 20:40], pixels[9:21, 18:42], pixels[5:25, 10:50], pixels[9:21, 18:42]]
    for found, view, crop in zip(photographs[1], views, crops):
        assert found.dtype == np.uint8 and np.array_equal(found, images.square(Image.fromarray(crop), view.size))
    for found, view in zip(photographs[0], views):
        assert np.array_equal(found, images.square(Image.fromarray(pixels), view.size))
    assert opened == [path, path]


def test_a_photograph_that_cannot_be_read_is_black_in_every_view_and_told(tmp_path):
    (tmp_path / "a.jpg").write_text("no image")
    arrays, told = images.Readable([tmp_path / "a.jpg"], [images.View(32), images.View(48, 0.1)])[0]
    assert [array.shape for array in arrays] == [(32, 32, 3), (48, 48, 3)] and not any(array.any() for array in arrays)
    assert told.startswith(f"{tmp_path}/a.jpg: not a readable image")


# metadata.csv

def test_a_toy_competition_is_listed_with_absolute_paths(tmp_path):
    data = toy.competition(tmp_path / "data")
    listed, written = images.listed(data), pd.read_csv(data / "metadata.csv", dtype=str)
    assert list(listed.image_id) == list(written.image_id) and list(listed.whale_id) == list(written.whale_id)
    assert list(listed.path) == [str((data / path).resolve()) for path in written.path]
    assert images.boxes(listed, data) == [None] * len(listed)


def test_cells_stay_text(tmp_path):
    listed = images.listed(directory(tmp_path, "image_id,path,whale_id", "007,a.jpg,NA", "1e5,b.jpg,"))
    assert list(listed.image_id) == ["007", "1e5"] and list(listed.whale_id) == ["NA", ""]


@pytest.mark.parametrize("lines, words", [
    (["image_id", "a"], "column 'path' is missing"),
    (["image_id,path", "a,a.jpg", "b,b.jpg", "a,c.jpg"], "line 4: image_id 'a'"),
    (["image_id,path", "a,a.jpg", ",b.jpg"], "line 3: image_id ''"),
    (["image_id,path", "a,images/a.jpg", "b,../b.jpg"], "line 3: path '../b.jpg' leads out"),
    (["image_id,path", "a,images/../../a.jpg"], "line 2: path"),
    (["image_id,path", "a,/etc/passwd"], "line 2: path '/etc/passwd' leads out"),
    (["image_id,path", "a,"], "line 2: path ''"),
    ([""], "the file is empty"),
])
def test_a_table_that_is_wrong_is_refused_by_its_line(lines, words, tmp_path):
    with pytest.raises(InputError) as refused:
        images.listed(directory(tmp_path, *lines))
    assert "metadata.csv: " in str(refused.value) and words in str(refused.value)


def test_a_link_that_leads_out_of_the_directory_is_refused(tmp_path):
    data = directory(tmp_path, "image_id,path", "a,inside.png")
    saved(tmp_path, noise(), "real.png")
    (data / "inside.png").symlink_to(data / "real.png")
    assert images.listed(data).path[0] == str(data.resolve() / "inside.png")  # by its own name, which an answer may tell
    (data / "inside.png").unlink()
    (data / "inside.png").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="leads out"):
        images.listed(data)
    neighbour = tmp_path.parent / (tmp_path.name + "-neighbour")  # its path begins as the directory's does
    neighbour.mkdir()
    with pytest.raises(InputError, match="leads out"):
        images.listed(directory(tmp_path, "image_id,path", f"a,../{neighbour.name}/a.jpg"))


def test_boxes_are_read_where_they_are_given(tmp_path):
    data = directory(tmp_path, "image_id,path,x0,y0,x1,y1", "a,a.jpg,1,2.5,30,40", "b,b.jpg,,,,")
    assert images.boxes(images.listed(data), data) == [(1.0, 2.5, 30.0, 40.0), None]
    data = directory(tmp_path, "image_id,path,x0,y0,x1", "a,a.jpg,1,2,3")
    assert images.boxes(images.listed(data), data) == [None]
    data = directory(tmp_path, "image_id,path,x0,y0,x1,y1")
    assert images.boxes(images.listed(data), data) == []


@pytest.mark.parametrize("box", ["1,2,x,4", "1,2,3,", ",,,4", "1,2,inf,4", "nan,2,3,4"])
def test_a_box_that_is_not_four_numbers_is_refused_by_its_image(box, tmp_path):
    data = directory(tmp_path, "image_id,path,x0,y0,x1,y1", "a,a.jpg,1,2,3,4", f"b,b.jpg,{box}")
    with pytest.raises(InputError, match="the box of b is not four numbers"):
        images.boxes(images.listed(data), data)


@pytest.mark.benchmark_suite
def test_benchmark_of_decoding_and_resizing(benchmark, tmp_path):
    path = saved(tmp_path, toy.photograph(1, 8, 900, 700, np.random.default_rng(0)), "photograph.jpg", quality=90)
    benchmark(lambda: images.square(images.read(path), 380))
