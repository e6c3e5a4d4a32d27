"""A pair of photographs and their heat as one picture: above as they are, below in grey under the heat.

    draw([query, match], heats, Path("pair001.jpg"))        # a JPEG, each photograph 320 pixels along its longer side
"""

from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import cv2
import numpy as np
from PIL import Image

from solution import images

SIDE, GAP, PAPER = 320, 8, "#ffffff"  # of a photograph's longer side, and between photographs, in pixels
OPAQUE = 0.75  # share of the colour where the heat is greatest

Heats = Dict[float, np.ndarray]  # by the box margin of the crop that it is on, from 0 up


def draw(photographs: Sequence[Any], heats: Heats, output: Path) -> Path:
    """A picture of two photographs, rows with `path` and `box`, as they are and below with their heat (by margin: (2, g, g))."""
    own = [{margin: both[side] for margin, both in heats.items()} for side in range(2)]
    crops, hot = zip(*(on_crop(each.path, each.box, heat) for each, heat in zip(photographs, own)))
    hot = [each / max(each.mean(), 1e-12) for each in hot]  # one scale: the share of its photograph's heat that a place has
    most = max(each.max() for each in hot) or 1.0
    below = [overlaid(crop, each / most) for crop, each in zip(crops, hot)]
    height = max(crop.height for crop in crops) + GAP
    sheet = Image.new("RGB", (GAP + sum(crop.width + GAP for crop in crops), GAP + 2 * height), PAPER)
    for left, crop, warm in zip((GAP, 2 * GAP + crops[0].width), crops, below):
        sheet.paste(crop, (left, GAP))
        sheet.paste(warm, (left, GAP + height))
    sheet.save(output, "JPEG", quality=85)
    return output


def on_crop(path: Path, box: Optional[images.Box], heats: Heats) -> Tuple[Image.Image, np.ndarray]:
    """The photograph as the models see it, before it is squared, and its heat (height, width): of each margin where its crop lies."""
    photograph = images.read(path)
    frames = np.array([frame(photograph.size, box, margin) for margin in heats])
    seen = np.append(frames[:, :2].min(axis=0), frames[:, 2:].max(axis=0))
    scale = SIDE / (seen[2:] - seen[:2]).max()
    width, height = np.maximum((scale * (seen[2:] - seen[:2])).round().astype(int), 1)
    total = np.zeros((height, width), np.float32)
    for heat, edges in zip(heats.values(), (scale * (frames - np.tile(seen[:2], 2))).round().astype(int)):
        left, top = min(edges[0], width - 1), min(edges[1], height - 1)
        place = total[top : max(edges[3], top + 1), left : max(edges[2], left + 1)]
        place += cv2.resize(heat, place.shape[::-1], interpolation=cv2.INTER_CUBIC).clip(0)
    return photograph.crop(tuple(seen.tolist())).resize((width, height), Image.BICUBIC), total


def frame(size: Tuple[int, int], box: Optional[images.Box], margin: float) -> Tuple[int, int, int, int]:
    """Where images.cropped cuts a photograph of that width and height: left, top, right, bottom in pixels."""
    if box is None:
        return 0, 0, size[0], size[1]
    across, down = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    return images.within((box[0] - across, box[1] - down, box[2] + across, box[3] + down), size)


def overlaid(crop: Image.Image, heat: np.ndarray) -> Image.Image:
    """The photograph in grey under heat (height, width) from 0, which is clear, to 1."""
    colour = cv2.applyColorMap((255 * heat).round().astype(np.uint8), cv2.COLORMAP_INFERNO)[:, :, ::-1]
    grey, share = np.asarray(crop.convert("L"), np.float32)[:, :, None], OPAQUE * heat[:, :, None]
    return Image.fromarray((grey * (1 - share) + colour * share).round().astype(np.uint8))
