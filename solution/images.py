"""What an image becomes: read once, cropped to its box where there is one, resized to every view that is asked for.

A file from outside may be anything. Read is an ordinary file of at most 640 MB in one of FORMATS, whose decoders run no other program, with at most
200 megapixels, 65,535 on a side; of several pictures in a file the first. Everything else is refused in one line, before memory is taken for it.
"""

import io
import logging
import os
import stat
import warnings
from pathlib import Path
from typing import Collection, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from solution.files import LONGEST_NAME, STRICT, Complaints, InputError, read_table
from solution.shortage import lacks_memory, last_line, told

Box = Tuple[float, float, float, float]


class View(NamedTuple):
    """What a model looks at: the square's side in pixels, and the share of a box's sides by which each is moved out."""

    size: int
    box_margin: float = 0.0


FORMATS = "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"  # as Pillow names them
MAX_BYTES = 640_000_000  # of a file: 200 megapixels as they are take 600
MAX_PIXELS = 200_000_000  # larger files are refused from their header
MAX_SIDE = 65_535  # as of a JPEG; resizing one side of a ribbon takes memory by the other
MAX_VISITS = 20_000_000_000  # to a pixel, or a pixel's place, by the scans of a progressive JPEG: a hundred at 200 megapixels, some ten are usual
LONG, MAX_EXIF = 1 << 25, 100  # bytes of a file, and blocks of EXIF in a longer one
TOO_LARGE = f"more than 200 megapixels, or than {MAX_SIDE} pixels on a side; make it smaller"
TILE = 322, 323  # TIFF's tags for the sides of a tile, each of which is decoded whole
ORIENTATION = 274  # EXIF's tag, and what to do about it
TURNS = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM, 5: Image.TRANSPOSE, 6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90}
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns from there on, and raises an error at twice as many
END_OF_JPEG, SCAN = b"\xff\xd9", b"\xff\xda"
warnings.filterwarnings("ignore", module=r"PIL\.")  # what it only warns of is read, or said as an error here
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read(path: Path) -> Image.Image:
    """An RGB image in the orientation in which a viewer shows it (EXIF).

    InputError where the file is missing, is no image, or is more than may be; MemoryError that names it.
    """
    return opened(content(path), path)


def content(path: Path) -> bytes:
    """A file's bytes; InputError where there are none, or more than may be."""
    if not path:
        raise InputError("no path")  # said already, by `asked_for`
    try:
        with open(path, "rb", opener=at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("a pipe, a device or the like, not an ordinary file")
            if status.st_size > MAX_BYTES:
                raise ValueError(f"{status.st_size} bytes are more than {MAX_BYTES}; make it smaller")
            return file.read(status.st_size)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; metadata.csv names it") from None
    except (OSError, ValueError) as error:  # ValueError: also of a path with a null byte
        raise InputError(f"{path}: not a readable image: {getattr(error, 'strerror', None) or error}") from None


def at_once(path: str, flags: int) -> int:
    """Opens a file; a pipe too, that nobody may ever write to."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def opened(content: bytes, path: Path) -> Image.Image:
    """An RGB image from the bytes of the file `path`, as `read` gives it."""
    try:
        return decoded(content)
    except UnidentifiedImageError:
        reason = f"of no kind that is read here ({', '.join(FORMATS)}), or broken at its beginning" if content else "the file is empty"
    except Image.DecompressionBombError:
        reason = TOO_LARGE
    except Exception as error:  # each decoder has its own kinds for damaged bytes
        if lacks_memory(error):  # which says nothing of the photograph
            raise MemoryError(f"{path}: {last_line(error)}") from None
        reason = told(error)
    raise InputError(f"{path}: not a readable image: {reason}")


def decoded(content: bytes) -> Image.Image:
    """An RGB image from a file's bytes. Complete JPEGs go through OpenCV, whose decoder gave the same pixels in 2021 as it
    does today, which Pillow's did not; Pillow reads everything else, and refuses what is cut short."""
    if len(content) > LONG and content.count(b"Exif\0\0") > MAX_EXIF:  # Pillow joins them one by one, each time all anew
        raise ValueError("more EXIF than any camera writes; save it anew")
    with recognised(content) as image:
        refuse_excess(image, content)
        if image.format == "JPEG" and image.mode in ("RGB", "L") and content.endswith(END_OF_JPEG):
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if pixels is not None:
                return turned(Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)), image)
        image.load()
        return turned(eight_bit(image), image).convert("RGB")


def recognised(content: bytes) -> Image.Image:
    """What Pillow takes it for. A second look, since a thread that loads the rarer formats hides them from others until it is done."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, KeyError):
        Image.init()
        return Image.open(io.BytesIO(content), formats=FORMATS)


def refuse_excess(image: Image.Image, content: bytes) -> None:
    """ValueError where a small file would take much memory or time: by its size, a tile of it, or scan over scan."""
    tags, pixels = getattr(image, "tag_v2", {}), image.width * image.height
    tile = np.prod([np.max(tags.get(side, 1)) for side in TILE], dtype=float)
    if max(pixels, tile) > MAX_PIXELS or max(image.size) > MAX_SIDE:
        raise ValueError(TOO_LARGE)
    if image.info.get("progressive") and content.count(SCAN) * pixels > MAX_VISITS:
        raise ValueError(f"{content.count(SCAN)} scans over {pixels} pixels would take too long; save it anew")


def turned(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """The pixels of an image as a viewer shows them; as they are stored where its EXIF cannot be read."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # of kinds as many as there are ways to break EXIF, and only its pixels are needed
        turn = None
    return pixels if turn is None else pixels.transpose(turn)


def eight_bit(image: Image.Image) -> Image.Image:
    """A 16-bit grey image (mode I;16, with older Pillows I) by its upper eight bits; others as they are. ValueError where none says what is white."""
    if image.mode == "F" or image.mode == "I" and image.getextrema()[1] > 65535:
        raise ValueError("pixels of 32 bits, of which none says what is white; save it with 8 or 16")
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)) if image.mode.startswith("I") else image


def within(box: Box, size: Tuple[int, int]) -> Tuple[int, int, int, int]:
    """The box in whole pixels, clipped to the image; the whole image where nothing of it is left."""
    clipped = tuple(int(round(min(max(edge, 0), side))) for edge, side in zip(box, (*size, *size)))  # clipped first: an edge may be infinite
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else (0, 0, *size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """The image squashed to (size, size, 3) uint8 by Pillow's bicubic filter, which antialiases.

    Columns first, then rows, as Pillow always did before it chose the order by cost: the order shows in the last bits.
    """
    return np.array(image.resize((size, image.height), Image.BICUBIC).resize((size, size), Image.BICUBIC))


def cropped(image: Image.Image, box: Optional[Box], margin: float) -> Image.Image:
    """The image cut to `box` (x0, y0, x1, y1 in pixels) with each side moved out by `margin` of the box's width or height."""
    if box is None:
        return image
    across, down = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return image.crop(within((box[0] - across, box[1] - down, box[2] + across, box[3] + down), image.size))


class Photographs:
    """The photographs of a data directory by their number: `photographs[i]` is one array (size, size, 3) uint8 per view."""

    def __init__(self, paths: Sequence[Path], views: Sequence[View], boxes: Optional[Sequence[Optional[Box]]] = None) -> None:
        self.paths, self.views = list(paths), list(views)
        self.boxes = list(boxes) if boxes is not None else [None] * len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> List[np.ndarray]:
        return self.squares(number, read(self.paths[number]))

    def without(self, numbers: Collection[int]) -> "Photographs":
        """The photographs but some, which close up."""
        kept = [number for number in range(len(self)) if number not in numbers]
        return Photographs([self.paths[number] for number in kept], self.views, [self.boxes[number] for number in kept])

    def squares(self, number: int, image: Image.Image) -> List[np.ndarray]:
        """What becomes of the image of a photograph, an array per view."""
        crops = {margin: cropped(image, self.boxes[number], margin) for margin in {view.box_margin for view in self.views}}
        return [square(crops[view.box_margin], view.size) for view in self.views]


def viewpoints(table: pd.DataFrame) -> np.ndarray:
    """The viewpoint of each photograph (n,), "" where the table has none."""
    return table.viewpoint.to_numpy(str) if "viewpoint" in table else np.full(len(table), "")


class Readable(Photographs):
    """As Photographs, with a word on what could not be read: `readable[i]` is (arrays, "") or (black squares, the reason)."""

    def __getitem__(self, number: int) -> Tuple[List[np.ndarray], str]:
        try:
            return super().__getitem__(number), ""
        except InputError as error:
            return [np.zeros((view.size, view.size, 3), np.uint8) for view in self.views], str(error)


def listed(data: Path, complaints: Complaints = STRICT) -> pd.DataFrame:
    """DATA/metadata.csv: text columns with unique `image_id`, `path` (made absolute) and, where the table has it, `whale_id`.

    Complains of the line of an empty or duplicated id and of a path that leaves DATA, and leaves such rows out.
    """
    table = read_table(data / "metadata.csv", ["image_id", "path"], complaints)
    wrong = table.image_id.duplicated() | (table.image_id == "")
    for line, image_id in lines(wrong, table.image_id):
        complaints.add(f"{data}/metadata.csv: line {line}: image_id {image_id!r} is empty or stands there twice; each image needs its own")
    for name in table.columns.intersection(["image_id", "whale_id", "species"]):
        endless = table[name].str.len() > LONGEST_NAME
        for line, text in lines(endless, table[name]):
            complaints.add(f"{data}/metadata.csv: line {line}: {name} {text[:40]!r}... has more than {LONGEST_NAME} letters; write a shorter one")
        wrong |= endless
    root = os.path.realpath(data)
    paths = pd.Series([located(root, path) for path in table.path], table.index, dtype=object)
    outside = ~paths.map(os.path.realpath).astype(object).str.startswith(root + os.sep)
    for line, path in lines(outside, table.path):
        complaints.add(f"{data}/metadata.csv: line {line}: path {path!r} leads out of the data directory")
    return table.assign(path=paths)[~(wrong | outside)]


def located(root: str, path: str) -> str:
    """Where a photograph is. Links to folders are resolved; one to a file keeps its own name, which a submission may tell."""
    folder, name = os.path.split(os.path.join(root, path))
    return os.path.join(os.path.realpath(folder), name)


def asked_for(data: Path, image_ids: np.ndarray, complaints: Complaints = STRICT) -> pd.DataFrame:
    """A row of the metadata for each id, in the metadata's order; complains of ids that have none, and gives them a row
    whose path leads nowhere."""
    table = listed(data, complaints)
    absent = np.setdiff1d(image_ids, table.image_id.to_numpy(str))
    for image_id in absent:
        complaints.add(f"{data}/metadata.csv: a scenario asks for image {image_id}, which has no row")
    rows = pd.DataFrame({"image_id": absent, "path": ""}, dtype=object)
    return pd.concat([table[table.image_id.isin(image_ids)], rows], ignore_index=True).fillna("")


def boxes(table: pd.DataFrame, data: Path, complaints: Complaints = STRICT) -> List[Optional[Box]]:
    """The box of each row in pixels, None for the whole image (no columns x0,y0,x1,y1, or empty cells).

    Complains of what is no box; the image then counts whole.
    """
    edges = ["x0", "y0", "x1", "y1"]
    if not set(edges) <= set(table.columns):
        return [None] * len(table)
    given = (table[edges] != "").any(axis=1)
    numbers = table[edges].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    upright = np.isfinite(numbers).all(axis=1) & (numbers[:, 2] > numbers[:, 0]) & (numbers[:, 3] > numbers[:, 1])
    for image_id in table.image_id[given & ~upright]:
        complaints.add(f"{data}/metadata.csv: the box of {image_id} is not four numbers with x0 < x1 and y0 < y1")
    return [tuple(row) if whole else None for whole, row in zip(given & upright, numbers.tolist())]


def lines(wrong: pd.Series, shown: pd.Series) -> List[Tuple[int, str]]:
    """The file's line and the value of each row that is wrong."""
    return [(int(row) + 2, shown.iloc[row]) for row in np.flatnonzero(wrong.to_numpy())]
