"""What an image becomes: read once, cropped to its box where there is one, resized to every view that is asked for."""

import io
import os
import warnings
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from solution.files import STRICT, Complaints, InputError, read_table

Box = Tuple[float, float, float, float]


class View(NamedTuple):
    """What a model looks at: the square's side in pixels, and the share of a box's sides by which each is moved out."""

    size: int
    box_margin: float = 0.0


MAX_PIXELS = 200_000_000  # larger files are refused from their header, before memory is taken for them
MAX_SIDE = 65_535  # as of a JPEG; resizing one side of a ribbon takes memory by the other
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
END_OF_JPEG = b"\xff\xd9"
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `read` says the same as an error


def read(path: Path) -> Image.Image:
    """An RGB image in the orientation in which a viewer shows it (EXIF).

    InputError where the file is missing, is no image, or has more than 200 megapixels or 65,535 pixels on a side.
    """
    return opened(content(path), path)


def content(path: Path) -> bytes:
    """A file's bytes; InputError where there are none."""
    if not path:
        raise InputError("no path")  # said already, by `asked_for`
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image; metadata.csv names it") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise InputError(f"{path}: not a readable image: {error}") from None


def opened(content: bytes, path: Path) -> Image.Image:
    """An RGB image from the bytes of the file `path`, as `read` gives it."""
    try:
        return decoded(content)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image: of no format that is known here") from None
    except Exception as error:  # each decoder has its own kinds for damaged bytes
        raise InputError(f"{path}: not a readable image: {error}") from None


def decoded(content: bytes) -> Image.Image:
    """An RGB image from a file's bytes. Complete JPEGs go through OpenCV, whose decoder gave the same pixels in 2021 as it
    does today, which Pillow's did not; Pillow reads everything else, and refuses what is cut short."""
    with recognised(content) as image:
        if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
            raise ValueError(f"{image.width} x {image.height} pixels are more than 200 megapixels or {MAX_SIDE} on a side; make it smaller")
        if image.format == "JPEG" and image.mode in ("RGB", "L") and content.endswith(END_OF_JPEG):
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            if pixels is not None:
                return Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        return eight_bit(ImageOps.exif_transpose(image)).convert("RGB")


def recognised(content: bytes) -> Image.Image:
    """What Pillow takes it for. A second look, since a thread that loads the rarer formats hides them from others until it is done."""
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        Image.init()
        return Image.open(io.BytesIO(content))


def eight_bit(image: Image.Image) -> Image.Image:
    """A 16-bit grey image (mode I;16, with older Pillows I) by its upper eight bits; others as they are."""
    return image.point(lambda value: value / 256).convert("L") if image.mode.startswith("I") else image


def within(box: Box, size: Tuple[int, int]) -> Tuple[int, int, int, int]:
    """The box in whole pixels, clipped to the image; the whole image where nothing of it is left."""
    left, top, right, bottom = (int(round(edge)) for edge in box)
    clipped = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
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

    def squares(self, number: int, image: Image.Image) -> List[np.ndarray]:
        """What becomes of the image of a photograph, an array per view."""
        crops = {margin: cropped(image, self.boxes[number], margin) for margin in {view.box_margin for view in self.views}}
        return [square(crops[view.box_margin], view.size) for view in self.views]


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
    table = read_table(data / "metadata.csv", ["image_id", "path"])
    wrong = table.image_id.duplicated() | (table.image_id == "")
    for line, image_id in lines(wrong, table.image_id):
        complaints.add(f"{data}/metadata.csv: line {line}: image_id {image_id!r} is empty or stands there twice; each image needs its own")
    root = os.path.realpath(data)
    paths = pd.Series([os.path.realpath(os.path.join(root, path)) for path in table.path], table.index, dtype=object)
    outside = ~paths.str.startswith(root + os.sep)
    for line, path in lines(outside, table.path):
        complaints.add(f"{data}/metadata.csv: line {line}: path {path!r} leads out of the data directory")
    return table.assign(path=paths)[~(wrong | outside)]


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
