"""A photograph's file, read within bounds: whatever may hang, fill the memory or start a program is refused first.

Reads a file; writes nothing. Read is an ordinary file of at most 640 MB, of one of FORMATS, with at most 200 megapixels, 65,535 on a
side; of several pictures in a file the first. The bounds are those of `solution.images`, so what is imported can be trained on.

    with stream(file) as opened:
        picture = upright(recognised(opened))           # errors of any kind where it is no photograph
"""

import logging
import os
import stat
import warnings
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

FORMATS = ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"]  # as Pillow names them
MAX_BYTES = 640_000_000  # of a file: 200 megapixels as they are take 600
MAX_PIXELS = 200_000_000
PILLOWS = MAX_PIXELS // 2  # at twice as many Pillow raises an error, before memory is taken
MAX_SIDE = 65_535
MAX_VISITS = 20_000_000_000  # to a pixel by the scans of a progressive JPEG: a hundred at 200 megapixels, some ten are usual
LONG, MAX_EXIF = 1 << 25, 100  # bytes of a file, and blocks of EXIF in a longer one
TILE = 322, 323  # TIFF's tags for the sides of a tile, each of which is decoded whole
ORIENTATION = 274  # EXIF's tag, and what to do about it
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
warnings.filterwarnings("ignore", module=r"PIL\.")  # what it only warns of is read, or said here
logging.getLogger("PIL").addHandler(logging.NullHandler())


def stream(file: Path | str) -> BinaryIO:
    """The file, open for reading; OSError or ValueError where it is not there, no ordinary file, or too large."""
    opened = open(file, "rb", opener=_at_once)
    status = os.fstat(opened.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size <= MAX_BYTES:
        return opened
    opened.close()
    raise ValueError(f"{file}: no ordinary file of at most {MAX_BYTES} bytes")


def content(file: Path | str) -> bytes:
    """All that it holds; errors as of `stream`."""
    with stream(file) as opened:
        return opened.read(os.fstat(opened.fileno()).st_size)


def _at_once(file: str, flags: int) -> int:
    """Opens a file; a pipe too, that nobody may ever write to."""
    return os.open(file, flags | os.O_NONBLOCK)


def recognised(opened: BinaryIO):
    """The Pillow image that a file holds, not yet decoded; an error where it holds none, or decoding would take much memory or time."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = PILLOWS
    if opened.seek(0, os.SEEK_END) > LONG and _count(opened, b"Exif\0\0") > MAX_EXIF:  # Pillow joins them one by one, each time all anew
        raise ValueError("too much EXIF")
    image = Image.open(opened, formats=FORMATS)
    tags, pixels = getattr(image, "tag_v2", {}), prod(image.size)
    sides = [float(max(side)) if isinstance(side, tuple) else float(side) for side in (tags.get(tag, 1) for tag in TILE)]
    if max(pixels, prod(sides)) > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise ValueError("more than 200 megapixels")
    if image.info.get("progressive") and _count(opened, b"\xff\xda") * pixels > MAX_VISITS:
        raise ValueError("too many scans")
    return image


def _count(opened: BinaryIO, mark: bytes) -> int:
    """How often a file holds a mark; leaves the file where it stands."""
    at = opened.tell()
    opened.seek(0)
    count = opened.read().count(mark)
    opened.seek(at)
    return count


def upright(image):
    """The picture as a viewer shows it, decoded, grey in 8 bits where it had more; as it is stored where its EXIF cannot be read."""
    from PIL import Image

    image.load()
    if image.mode == "F" or image.mode == "I" and image.getextrema()[1] > 65535:
        raise ValueError("pixels of 32 bits, of which none says what is white")
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # of kinds as many as there are ways to break EXIF
        turn = None
    picture = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)) if image.mode.startswith("I") else image
    return picture.transpose(Image.Transpose[turn]) if turn else picture
