"""Image files as they come from outside: odd ones that must be read, and broken or hostile ones that must be refused, all made by code.

    for odd in odd_images.corpus(): odd.write(tmp_path)             # same bytes every time

`odd.seen` are the pixels that a viewer shows, None where the file is to be refused with a line that has `odd.words`.
"""

import gzip
import io
import json
import os
import struct
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
LOSSY = 12.0  # grey levels that a lossy format may be off in the mean of the worst channel; another picture is off by 40 and more
LARGE = "more than 200 megapixels"


class Odd(NamedTuple):
    """A file: its pixels (height, width, 3) as they are to be read, to `tolerance` grey levels in the mean; or the words of the refusal."""

    name: str
    content: bytes
    seen: Optional[np.ndarray] = None
    tolerance: float = 0.0
    words: str = ""

    def write(self, folder: Path) -> Path:
        (folder / self.name).write_bytes(self.content)
        return folder / self.name


def picture(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A picture that is another one however it is turned: a corner of each colour on a ramp."""
    down, across = np.linspace(0, 120, height)[:, None], np.linspace(0, 120, width)[None]
    pixels = np.dstack([60 + down + 0 * across, 60 + across + 0 * down, 180 - down / 2 - across / 2])
    pixels[: height // 3, : width // 3], pixels[-height // 3 :, : width // 3], pixels[: height // 3, -width // 4 :] = (230, 30, 30), (30, 220, 40), (40, 40, 235)
    return pixels.round().astype(np.uint8)


PICTURE = picture()
GREY = PICTURE[..., 0]
TURNED: dict[int, Callable] = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90}


def as_stored(orientation: int) -> np.ndarray:
    """The picture so turned that its orientation turns it upright."""
    return np.ascontiguousarray(TURNED[{6: 8, 8: 6}.get(orientation, orientation)](PICTURE))


def saved(image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    (image.copy() if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def several(images: list[Image.Image]) -> dict:
    """What makes further pictures of a file."""
    return {"save_all": True, "append_images": [image.copy() for image in images]}  # saving leaves its traces in an image


def grey(values: np.ndarray) -> np.ndarray:
    return np.dstack([values] * 3)


# Bricks

def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)) + b"".join(chunks) + chunk(b"IEND", b"")


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """The picture as a PNG with a chunk more, behind its header."""
    plain = saved(PICTURE, "PNG")
    return plain[:33] + chunk(kind, content) + plain[33:]


def segment(marker: int, content: bytes) -> bytes:
    """Of a JPEG."""
    return struct.pack(">BBH", 255, marker, len(content) + 2) + content


JPEG = saved(PICTURE, "JPEG", quality=95, subsampling=0)


def with_segments(*segments: bytes, jpeg: bytes = JPEG) -> bytes:
    """A JPEG with segments more, ahead of all others but its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"", following: int = 0) -> bytes:
    """A TIFF: (tag, type, count, value) of each entry of its one directory, which begins at 8; then `data`."""
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHLL", *entry) for entry in entries) + struct.pack("<L", following)
    return b"II*\0" + struct.pack("<L", 8) + directory + data


def exif(*entries: tuple[int, int, int, int], data: bytes = b"", following: int = 0) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff(list(entries), data, following))


def grey_tiff(width: int, height: int, offset: int, size: int, rows: int, *more: tuple[int, int, int, int], data: bytes = b"", packed: int = 1, following: int = 0) -> bytes:
    """A TIFF of 8 bits in one strip."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, packed), (262, 3, 1, 1), (273, 4, 1, offset),
               (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, 1, size), *more]
    return tiff(sorted(entries), data, following)


def behind(entries: int) -> int:
    """Where the data begin behind a directory of so many entries."""
    return 8 + 2 + 12 * entries + 4


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff" + b"".join(blocks) + b";"


def frame(width: int, height: int, codes: bytes) -> bytes:
    """Of a GIF, of two colours."""
    parts = b"".join(bytes([len(part)]) + part for part in (codes[start : start + 255] for start in range(0, len(codes), 255)))
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02" + parts + b"\0"


def bmp(width: int, height: int, body: bytes = b"", bits: int = 24, packed: int = 0) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packed, len(body), 0, 0, 0, 0) + body


def webp(width: int, height: int) -> bytes:
    """The header of an animated WebP of that size, without a picture."""
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", 4 + len(extended + animation)) + b"WEBP" + extended + animation


def jpeg2000(width: int, height: int) -> bytes:
    """Its header alone."""
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, width, height, 0, 0, 3) + b"\x07\x01\x01" * 3
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size


def box(kind: bytes, content: bytes) -> bytes:
    """Of a film or a HEIC."""
    return struct.pack(">I", len(content) + 8) + kind + content


def resized_header(width: int, height: int, jpeg: bytes = JPEG) -> bytes:
    """A JPEG whose frame says another size."""
    at = next(jpeg.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in jpeg) + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def arithmetic() -> bytes:
    """A grey JPEG whose code is arithmetic and ends in zeros, which need not be written: all of it is zeros, which is about grey."""
    plain = saved(np.full((16, 16), 134, np.uint8), "JPEG", quality=90)
    frame, tables = plain.index(b"\xff\xc0"), plain.index(b"\xff\xc4")
    scan = plain.index(b"\xff\xda")
    return plain[:frame] + b"\xff\xc9" + plain[frame + 2 : tables] + plain[scan : scan + 10] + b"\xff\xd9"


def packed_with(pack: Callable) -> bytes:
    file = io.BytesIO()
    pack(file)
    return file.getvalue()


def zipped(file) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.jpg"), JPEG)


# What is to be read

def odd_colours() -> list[Odd]:
    cmyk = 255 - np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])  # of no black
    cmyk_jpeg = saved(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=95, subsampling=0)
    index = (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 251).astype(np.uint8)
    palette = Image.fromarray(index, "P")
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    palette.putpalette(colours.ravel().tolist())
    alpha, bits = np.dstack([PICTURE, GREY]), GREY > 100
    deep = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
    deep_colours = cv2.imencode(".png", np.dstack([deep, deep[::-1], deep[:, ::-1]])[..., ::-1])[1].tobytes()
    return [
        Odd("cmyk.jpg", cmyk_jpeg, PICTURE, LOSSY),
        Odd("cmyk.tif", saved(Image.fromarray(cmyk, "CMYK"), "TIFF"), PICTURE, 1.0),
        Odd("rgb-of-adobe.jpg", saved(PICTURE, "JPEG", quality=95, keep_rgb=True), PICTURE, LOSSY),
        Odd("grey.jpg", saved(GREY, "JPEG", quality=95), grey(GREY), LOSSY),
        Odd("16-bit-grey.png", saved(deep, "PNG"), grey(deep >> 8)),
        Odd("16-bit-colours.png", deep_colours, np.dstack([deep, deep[::-1], deep[:, ::-1]]) >> 8),
        Odd("16-bit.tif", saved(deep, "TIFF"), grey(deep >> 8)),
        Odd("16-bit-motorola.tif", saved(Image.frombytes("I;16B", (WIDTH, HEIGHT), deep.astype(">u2").tobytes()), "TIFF"), grey(deep >> 8)),
        Odd("16-bit.pgm", b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + deep.astype(">u2").tobytes(), grey(deep >> 8)),
        Odd("1-bit.png", saved(Image.fromarray(bits), "PNG"), grey(bits * np.uint8(255))),
        Odd("fax.tif", saved(Image.fromarray(bits), "TIFF", compression="group4"), grey(bits * np.uint8(255))),
        Odd("palette.png", saved(palette, "PNG"), colours[index]),
        Odd("palette-transparent.png", saved(palette, "PNG", transparency=bytes(range(256))), colours[index]),
        Odd("4-bit-palette.png", saved(Image.fromarray(index % 16, "P"), "PNG", bits=4), grey(index % 16 * 0)),
        Odd("rgba.png", saved(alpha, "PNG"), PICTURE),
        Odd("rgba.webp", saved(alpha, "WEBP", lossless=True, exact=True), PICTURE),
        Odd("grey-alpha.png", saved(Image.fromarray(np.dstack([GREY, GREY]), "LA"), "PNG"), grey(GREY)),
        Odd("lab.tif", saved(Image.fromarray(PICTURE).convert("LAB"), "TIFF"), PICTURE, LOSSY),
        Odd("ycbcr.tif", saved(Image.fromarray(PICTURE).convert("YCbCr"), "TIFF"), PICTURE, LOSSY),
    ]


def odd_kinds() -> list[Odd]:
    plain, second = Image.fromarray(PICTURE), [Image.fromarray(255 - PICTURE), Image.fromarray(PICTURE[::-1].copy())]
    quantised = np.asarray(plain.quantize(64).convert("RGB"))
    text = "P3\n# a comment\n%d %d 255\n" % (WIDTH, HEIGHT) + "\n".join(map(str, PICTURE.ravel())) + "\n"
    blue_first = PICTURE[..., ::-1].tobytes()
    return [
        Odd("progressive.jpg", saved(PICTURE, "JPEG", quality=95, subsampling=0, progressive=True), PICTURE, LOSSY),
        Odd("arithmetic.jpg", arithmetic(), grey(np.full((16, 16), 134, np.uint8)), LOSSY),
        Odd("restarts.jpg", saved(PICTURE, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1), PICTURE, LOSSY),
        Odd("padded-markers.jpg", JPEG[:2] + b"\xff" * 9 + JPEG[2:], PICTURE, LOSSY),
        Odd("more-behind.jpg", JPEG + b"a film of three seconds" * 99, PICTURE, LOSSY),
        Odd("two-cameras.jpg", saved(plain, "MPO", quality=95, subsampling=0, **several(second)), PICTURE, LOSSY),
        Odd("pages.tif", saved(plain, "TIFF", **several(second)), PICTURE),
        Odd("lzw.tif", saved(plain, "TIFF", compression="tiff_lzw"), PICTURE),
        Odd("deflate.tif", saved(plain, "TIFF", compression="tiff_adobe_deflate"), PICTURE),
        Odd("jpeg-in-tiff.tif", saved(plain, "TIFF", compression="jpeg", quality=95), PICTURE, LOSSY),
        Odd("animated.gif", saved(plain.quantize(64), "GIF", save_all=True, append_images=[image.quantize(64) for image in second]), quantised, 1.0),
        Odd("many-frames.gif", gif(2, 2, *[frame(2, 2, b"\x84\x51")] * 20_000), np.zeros((2, 2, 3), np.uint8)),
        Odd("animated.webp", saved(plain, "WEBP", lossless=True, **several(second)), PICTURE),
        Odd("animated.png", saved(plain, "PNG", **several(second)), PICTURE),
        Odd("lossy.webp", saved(plain, "WEBP", quality=95), PICTURE, LOSSY),
        Odd("ascii.ppm", text.encode(), PICTURE),
        Odd("bits.pbm", b"P1 2 2 0 1 1 0\n", grey(np.array([[255, 0], [0, 255]], np.uint8))),
        Odd("top-down.bmp", bmp(WIDTH, -HEIGHT, blue_first), PICTURE),
        Odd("palette.bmp", saved(plain.quantize(64), "BMP"), quantised),
        Odd("lossless.jp2", saved(plain, "JPEG2000", irreversible=False), PICTURE),
        Odd("png-called.jpg", saved(plain, "PNG"), PICTURE), Odd("jpeg-called.png", JPEG, PICTURE, LOSSY),
        Odd("jpeg-called.txt", JPEG, PICTURE, LOSSY), Odd("no-suffix", JPEG, PICTURE, LOSSY),
    ]


def odd_sizes() -> list[Odd]:
    line, tall = np.arange(65_535, dtype=np.uint32).astype(np.uint8)[None], np.arange(65_535, dtype=np.uint32).astype(np.uint8)[:, None]
    return [Odd("1x1.png", saved(PICTURE[:1, :1], "PNG"), PICTURE[:1, :1]), Odd("1x1.jpg", saved(PICTURE[:1, :1], "JPEG"), PICTURE[:1, :1], LOSSY),
            Odd("1x1.gif", gif(1, 1, frame(1, 1, b"\x44\x01")), np.zeros((1, 1, 3), np.uint8)),
            Odd("65535x1.png", saved(line, "PNG"), grey(line)), Odd("1x65535.png", saved(tall, "PNG"), grey(tall)),
            Odd("65536x1.png", saved(np.zeros((1, 65_536), np.uint8), "PNG"), words=LARGE),
            Odd("1x65536.png", saved(np.zeros((65_536, 1), np.uint8), "PNG"), words=LARGE)]


def odd_exif() -> list[Odd]:
    """All orientations, in every format that has EXIF; and EXIF that is broken, which costs no photograph."""
    found = []
    for orientation in TURNED:
        told = Image.Exif()
        told[0x0112] = orientation
        found.append(Odd(f"orientation-{orientation}.jpg", saved(as_stored(orientation), "JPEG", quality=95, subsampling=0, exif=told), PICTURE, LOSSY))
        found += [Odd(f"orientation-{orientation}.{kind.lower()}", saved(as_stored(orientation), kind, exif=told, **options), PICTURE)
                  for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}))]
    itself = [(256 + number, 7, 30_000, 8) for number in range(500)]  # each claims nearly all of the block
    blocks = {
        "of-no-meaning": segment(0xE1, b"Exif\0\0" + bytes(range(256))), "of-nothing": segment(0xE1, b"Exif\0\0"),
        "cut": segment(0xE1, b"Exif\0\0" + tiff([(0x0112, 3, 1, 6)])[:14]), "cut-again": segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"),
        "pointing-out": segment(0xE1, b"Exif\0\0II*\0" + struct.pack("<L", 2**32 - 1)), "loop": exif((0x0112, 3, 1, 1), (0x8769, 4, 1, 8), following=8),
        "orientation-0": exif((0x0112, 3, 1, 0)), "orientation-9": exif((0x0112, 3, 1, 9)), "orientation-of-text": exif((0x0112, 2, 4, 0x41414141)),
        "orientations-many": exif((0x0112, 3, 2**31, 8)), "claims-4-gigabytes": exif((0x010E, 2, 2**32 - 1, 8), (0x0112, 3, 1, 1)),
        "all-of-itself": exif(*itself, data=bytes(40_000)), "nan": exif((0x011A, 5, 1, 8), (0x0128, 3, 1, 2)),
    }
    found += [Odd(f"exif-{name}.jpg", with_segments(block), PICTURE, LOSSY) for name, block in blocks.items()]
    turned = exif((0x0112, 3, 1, 6), (0x010E, 2, 9_999, 60_000), (0x9999, 99, 1, 1))
    return [*found, Odd("exif-turned-and-broken.jpg", with_segments(turned, jpeg=saved(as_stored(6), "JPEG", quality=95, subsampling=0)), PICTURE, LOSSY),
            Odd("exif-of-no-meaning-and-a-density.jpg", with_segments(blocks["of-no-meaning"], jpeg=saved(PICTURE, "JPEG", quality=95, subsampling=0, dpi=(72, 72))), PICTURE, LOSSY),
            Odd("exif-of-no-meaning.png", with_chunk(b"eXIf", bytes(range(200))), PICTURE), Odd("exif-of-noise.png", with_chunk(b"eXIf", b"II*\0" + bytes(range(200))), PICTURE)]


def odd_weights() -> list[Odd]:
    """Large blocks that only describe: they are passed over, unless they unpack to more than a block may."""
    many = lambda marker, head, count: b"".join(segment(marker, head + bytes(60_000)) for _ in range(count))  # noqa: E731
    profile = b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, 200]) + bytes(60_000)) for number in range(200))
    bomb = zlib.compress(bytes(20_000_000))
    return [
        Odd("comments-of-20-mb.jpg", with_segments(many(0xFE, b"", 340)), PICTURE, LOSSY),
        Odd("profile-of-12-mb.jpg", with_segments(profile), PICTURE, LOSSY),
        Odd("exif-of-12-mb.jpg", with_segments(many(0xE1, b"Exif\0\0", 200)), PICTURE, LOSSY),
        Odd("profile-of-noise.png", with_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(range(256)) * 9)), PICTURE),
        Odd("text-of-3-mb.png", with_chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000), PICTURE),
        Odd("text-bomb.png", with_chunk(b"zTXt", b"Comment\0\0" + bomb), words="too large"),
        Odd("international-text-bomb.png", with_chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb), words="too large"),
        Odd("profile-bomb.png", with_chunk(b"iCCP", b"a\0\0" + bomb), words="too large"),
    ]


# What is to be refused

def other_kinds() -> list[Odd]:
    photoshop = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 2, 2, 8, 3) + bytes(12) + b"\0\0" + bytes(12)
    contents = {
        "text.jpg": b"no photograph, only a note about one\n", "page.jpg": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
        "paper.jpg": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n", "archive.jpg": packed_with(zipped),
        "packed.jpg": gzip.compress(JPEG, mtime=0), "object.jpg": json.dumps({"error": "no such key"}).encode(), "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "zeros.jpg": bytes(100_000), "noise.jpg": np.random.default_rng(2).bytes(100_000), "film.mp4": box(b"ftyp", b"isom") + box(b"mdat", bytes(999)),
        "phone.heic": box(b"ftyp", b"heic\0\0\0\0mif1heic"), "new.avif": box(b"ftyp", b"avif\0\0\0\0mif1avif"), "layers.psd": photoshop,
        "icon.ico": saved(PICTURE, "ICO"), "targa.tga": saved(PICTURE, "TGA"), "pixmap.xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000", "a"};',
        "half-text.jpg": b"\xff\xfe" + "a note".encode("utf-16-le"),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(started) (w) file closefile\nshowpage\n%%EOF\n",
    }
    return [Odd("empty.jpg", b"", words="the file is empty"), *(Odd(name, content, words="of no kind that is read here") for name, content in contents.items())]


def cut_short() -> list[Odd]:
    large = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)  # its pixels take most of the file
    files = {"jpg": saved(large, "JPEG", quality=95), "progressive.jpg": saved(large, "JPEG", quality=95, progressive=True), "png": saved(large, "PNG"),
             "tif": saved(large, "TIFF", compression="tiff_lzw"), "webp": saved(large, "WEBP", quality=90), "gif": saved(Image.fromarray(large).quantize(64), "GIF"),
             "bmp": saved(large, "BMP"), "ppm": saved(large, "PPM"), "jp2": saved(large, "JPEG2000")}
    return [Odd(f"cut-at-{share}-percent.{kind}", content[: len(content) * share // 100]) for kind, content in files.items() for share in (1, 20, 50, 90)] + \
        [Odd("cut-before-its-end.jpg", files["jpg"][:-2]), Odd("beginning-alone.jpg", b"\xff\xd8"), Odd("cut-and-ended.jpg", files["jpg"][:100] + b"\xff\xd9")]


def impossible() -> list[Odd]:
    data = zlib.compress(bytes((WIDTH * 3 + 1) * HEIGHT))
    strip = behind(9)
    return [
        Odd("no-width.jpg", resized_header(0, HEIGHT)), Odd("no-height.jpg", resized_header(WIDTH, 0)),
        Odd("12-bit.jpg", JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c")), Odd("no-frame.jpg", JPEG[:20] + JPEG[JPEG.index(b"\xff\xda") :]),
        Odd("no-tables.jpg", b"\xff\xd8" + JPEG[JPEG.index(b"\xff\xc0") : JPEG.index(b"\xff\xc4")] + JPEG[JPEG.index(b"\xff\xda") :]),
        Odd("no-width.png", png(0, HEIGHT, chunk(b"IDAT", data))), Odd("no-pixels.png", png(WIDTH, HEIGHT)),
        Odd("too-few-pixels.png", png(WIDTH, HEIGHT, chunk(b"IDAT", zlib.compress(b"\0" * 99)))), Odd("noise-for-pixels.png", png(WIDTH, HEIGHT, chunk(b"IDAT", bytes(range(256))))),
        Odd("wrong-sum.png", saved(PICTURE, "PNG").replace(b"IDAT", b"IDAU")), Odd("3-bits.png", png(WIDTH, HEIGHT, chunk(b"IDAT", data), bits=3)),
        Odd("no-size.gif", gif(0, 0, frame(0, 0, b"\x44\x01"))), Odd("no-picture.gif", gif(9, 9)),
        Odd("no-size.bmp", bmp(0, 0)), Odd("no-body.bmp", bmp(WIDTH, HEIGHT)), Odd("no-size.ppm", b"P6 0 0 255\n"), Odd("letters.ppm", b"P3 2 2 255 a b c d e f g h i j k l\n"),
        Odd("no-size.webp", b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\0\0\0\0"),
        Odd("float.tif", saved(Image.fromarray(PICTURE[..., 0] / np.float32(255)), "TIFF"), words="what is white"),
        Odd("32-bit.tif", saved(Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH) * 999), "TIFF"), words="what is white"),
        Odd("pointing-out.tif", b"II*\0" + struct.pack("<L", 2**32 - 1)), Odd("no-entries.tif", tiff([])),
        Odd("strip-outside.tif", grey_tiff(9, 9, 2**31, 81, 9)), Odd("strip-of-4-gigabytes.tif", grey_tiff(9, 9, strip, 2**32 - 1, 9, data=bytes(9))),
        Odd("samples.tif", tiff([(256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 1, 8), (277, 3, 1, 65_535)])),
    ]


def bombs() -> list[Odd]:
    """Small files that would unpack to more than 200 megapixels, to a tile of as many, or over and over."""
    rows = zlib.compress(bytes(60_001 * 60), 9)
    tile = [(322, 4, 1, 20_000), (323, 4, 1, 20_000), (324, 4, 1, behind(10)), (325, 4, 1, 2_000)]
    scans = saved(Image.new("L", (2_000, 2_000)), "JPEG", progressive=True)
    last = scans[scans.rindex(b"\xff\xda") : -2]
    return [
        Odd("bomb.png", png(60_000, 60_000, chunk(b"IDAT", rows), bits=8, colour=0), words=LARGE),
        Odd("largest.png", png(2**31 - 1, 2**31 - 1, chunk(b"IDAT", rows)), words=LARGE),
        Odd("just-above.png", png(20_000, 10_001, chunk(b"IDAT", rows)), words=LARGE),
        Odd("bomb.gif", gif(65_535, 65_535, frame(65_535, 65_535, b"\x44" * 999)), words=LARGE),
        Odd("frame-larger-than-screen.gif", gif(9, 9, frame(65_535, 65_535, b"\x44" * 999)), words=LARGE),
        Odd("bomb.bmp", bmp(60_000, -60_000), words=LARGE), Odd("negative.bmp", bmp(-9, 9)), Odd("most-negative.bmp", bmp(9, -(2**31))),
        Odd("bomb.jpg", resized_header(65_500, 65_500), words=LARGE), Odd("bomb.webp", webp(16_383, 16_383), words=LARGE), Odd("largest.webp", webp(2**24, 255)),
        Odd("bomb.jp2", jpeg2000(60_000, 60_000), words=LARGE), Odd("bomb.ppm", b"P6 60000 60000 255\n", words=LARGE), Odd("bits-bomb.pbm", b"P4 65535 65535\n", words=LARGE),
        Odd("bomb.tif", grey_tiff(60_000, 60_000, behind(9), len(rows), 60_000, data=rows, packed=8), words=LARGE),
        Odd("largest.tif", grey_tiff(2**31, 2**31, 8, 9, 9), words=LARGE),
        Odd("tile.tif", tiff(sorted([(256, 4, 1, 9), (257, 4, 1, 9), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1), *tile]), rows), words=LARGE),
        Odd("scans.jpg", scans[:-2] + last * 6_000 + b"\xff\xd9", words="scans"),
    ]


def loops() -> list[Odd]:
    """Files that lead back to themselves; of what is whole the first picture is read."""
    strip = behind(9)
    pixels = np.arange(81, dtype=np.uint8).reshape(9, 9)
    again = [(300 + number, 7, 4_000, 8) for number in range(3_000)]  # each claims the directory itself
    return [
        Odd("next-is-itself.tif", grey_tiff(9, 9, strip, 81, 9, data=pixels.tobytes(), following=8), grey(pixels)),
        Odd("inside-is-itself.tif", grey_tiff(9, 9, behind(10), 81, 9, (0x8769, 4, 1, 8), data=pixels.tobytes()), grey(pixels)),
        Odd("claims-itself.tif", grey_tiff(9, 9, behind(9 + len(again)), 81, 9, *again, data=pixels.tobytes()), grey(pixels)),
    ]


@cache
def corpus() -> list[Odd]:
    makers = odd_colours, odd_kinds, odd_sizes, odd_exif, odd_weights, other_kinds, cut_short, impossible, bombs, loops
    return [odd for maker in makers for odd in maker()]


NAMES = ("a,b.jpg", 'quo"te.jpg', "-rf.jpg", " spaces .jpg", "whale\N{WHALE}.jpg", "x" * 200 + ".jpg", "%s{0}$(id).jpg")  # that a table can hold
UNNAMEABLE = "two\nlines.jpg", "bell\a.jpg", os.fsdecode(b"latin\xe9.jpg")


def not_files(folder: Path) -> dict[str, Path]:
    """What has a photograph's name in `folder` and is none: nobody may wait for it, nor read without end. By their stems."""
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nothing")
    (folder / "zeros-for-ever.jpg").symlink_to("/dev/zero")
    (folder / "itself.jpg").symlink_to("itself.jpg")
    with open(folder / "ten-gigabytes.jpg", "wb") as file:
        file.write(JPEG)
        file.truncate(10 << 30)  # takes no room
    return {name: folder / f"{name}.jpg" for name in ("folder", "pipe", "gone", "zeros-for-ever", "itself", "ten-gigabytes")}
