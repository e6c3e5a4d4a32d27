"""What tells one drawn beluga from another: its skin, its dorsal ridge and, a little, its girth.

Reads and writes nothing: `make_whale(rng)` draws an individual, which `photographs.py` then wraps round a body. Marks lie
at (along, angle), the distance from the nose in body lengths and the degrees from the dorsal ridge (left is negative), so
a mark on the flank is seen from above and from its side. Tone hardly differs between whales.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SKIN = (800, 500)  # pixels along the body, pixels round it: about square at the body's thickest place
# Half width of the body along its length, in body lengths: melon, neck, shoulders, belly, peduncle.
OUTLINE_AT = (0, .006, .02, .045, .08, .12, .16, .22, .30, .40, .50, .60, .70, .80, .88, .94, .97)
OUTLINE = (0, .018, .034, .047, .056, .059, .061, .076, .094, .102, .098, .084, .062, .038, .021, .013, 0)


@dataclass(frozen=True)
class Whale:
    """One individual: skin reflectance (along, round), ridge height and half width along the body, in body lengths."""

    skin: np.ndarray
    ridge: np.ndarray
    width: np.ndarray
    tone: np.ndarray


def make_whale(rng: np.random.Generator) -> Whale:
    """A new individual."""
    shape = np.interp(np.linspace(0, 1, SKIN[0]), OUTLINE_AT, OUTLINE)
    shape = cv2.GaussianBlur(shape[:, None], (1, 9), 0, borderType=cv2.BORDER_REFLECT)[:, 0]
    girth = 1 + rng.uniform(-.06, .06) + rng.uniform(-.05, .05) * np.linspace(-1, 1, SKIN[0])
    skin, tone = common_skin(rng), np.array([.97, .97, .94]) * rng.uniform(.93, 1)
    ridge = draw_ridge(skin, rng)
    draw_marks(skin, rng)
    return Whale(cv2.GaussianBlur(skin, (0, 0), 1.0), ridge, shape * girth, tone)


def common_skin(rng: np.random.Generator) -> np.ndarray:
    """Skin as every beluga has it: pale, faintly mottled, with blowhole, eyes and a crease behind the head."""
    skin = (1 + .025 * noise(SKIN, rng, 40)).astype(np.float32)
    for along, angle, size in ((.125, 0, 7), (.085, -75, 5), (.085, 75, 5)):
        cv2.ellipse(skin, skin_pixel(along, angle), (size + 2, size), 0, 0, 360, .35, -1, cv2.LINE_AA)
    cv2.ellipse(skin, skin_pixel(.17, 0), (105, 12), 0, 0, 180, .86, 4, cv2.LINE_AA)
    return skin


def skin_pixel(along: float, angle: float) -> tuple[int, int]:
    return int((angle / 360 + .5) * SKIN[1]), int(along * SKIN[0])


def draw_ridge(skin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The dorsal ridge: a crest with this whale's notches, dark on the skin where it is low. Returns its height."""
    along = np.linspace(0, 1, SKIN[0])
    height = .012 * np.clip(1 - ((along - .56) / .17) ** 2, 0, 1)
    column = skin_pixel(0, 0)[0]
    skin[int(.40 * SKIN[0]):int(.72 * SKIN[0]), column - 3:column + 4] *= .80
    for place in rng.uniform(.42, .70, rng.integers(2, 6)):
        length, shade = rng.uniform(.008, .022), rng.choice([.35, .5])
        height *= 1 - .95 * np.exp(-((along - place) / length) ** 2)
        axes = int(rng.integers(8, 20)), int(length * SKIN[0])
        cv2.ellipse(skin, skin_pixel(place, 0), axes, 0, 0, 360, shade, -1, cv2.LINE_AA)
    return height


def draw_marks(skin: np.ndarray, rng: np.random.Generator) -> None:
    """Scars, rakes, spots and patches that tell this whale from others, drawn into `skin` in place."""
    for _ in range(rng.integers(1, 4)):
        draw_patch(skin, rng)
    for _ in range(rng.integers(2, 5)):
        draw_scar(skin, rng, lines=1)
    for _ in range(rng.integers(0, 3)):
        draw_scar(skin, rng, lines=int(rng.integers(2, 5)))
    for _ in range(rng.integers(3, 9)):
        shade = rng.choice([.3, .45, .6])
        axes = rng.integers(5, 17, 2).tolist()
        cv2.ellipse(skin, mark_place(rng), axes, rng.uniform(0, 180), 0, 360, shade, -1, cv2.LINE_AA)


def mark_place(rng: np.random.Generator) -> tuple[int, int]:
    return skin_pixel(rng.uniform(.07, .84), rng.uniform(-95, 95))


def draw_patch(skin: np.ndarray, rng: np.random.Generator) -> None:
    """A grey patch of irregular outline, as old wounds leave it."""
    turn, phase = np.linspace(0, 2 * np.pi, 24, endpoint=False), rng.uniform(0, 6, 2)
    radius = rng.uniform(16, 46) * (1 + .25 * np.sin(2 * turn + phase[0]) + .15 * np.sin(5 * turn + phase[1]))
    outline = np.array(mark_place(rng)) + np.stack([radius * np.cos(turn), radius * np.sin(turn)], 1)
    layer = np.zeros(SKIN, np.float32)
    cv2.fillPoly(layer, [outline.round().astype(np.int32)], 1.0, cv2.LINE_AA)
    skin *= 1 - rng.uniform(.25, .5) * cv2.GaussianBlur(layer, (0, 0), 3)


def draw_scar(skin: np.ndarray, rng: np.random.Generator, lines: int) -> None:
    """A curved scar, or several in parallel as teeth and ice leave them."""
    start, heading, length = np.array(mark_place(rng)), rng.uniform(0, np.pi), rng.uniform(40, 190 / lines ** .5)
    course = heading + np.linspace(0, rng.uniform(-.9, .9), 16)
    path = np.cumsum(np.stack([np.cos(course), np.sin(course)], 1), 0) * length / 16
    aside = np.array([-np.sin(heading), np.cos(heading)]) * rng.uniform(11, 18)
    thickness, shade = int(rng.integers(4, 10 if lines == 1 else 7)), rng.choice([.3, .45, .6])
    for line in range(lines):
        points = (start + path + aside * line).round().astype(np.int32)
        cv2.polylines(skin, [points], False, shade, thickness, cv2.LINE_AA)


def noise(shape: tuple[int, int], rng: np.random.Generator, coarse: float, stretch: float = 1.0) -> np.ndarray:
    """Smooth random field of unit deviation: three octaves from `coarse` pixels down, wider by `stretch`."""
    total = np.zeros(shape, np.float32)
    for octave in range(3):
        cell = coarse / 2 ** octave
        grid = rng.standard_normal((int(shape[0] / cell) + 3, int(shape[1] / cell / stretch) + 3)).astype(np.float32)
        total += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC) * .6 ** octave
    return total / total.std()
