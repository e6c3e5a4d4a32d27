"""What a drawn photograph of a beluga is: a whale's skin wrapped round a body, lit, under water, seen by a camera.

Reads and writes nothing. `make_scene(viewpoint, rng)` draws what the photographs of one encounter share, knowing nothing
of the whale; `photograph(whale, scene, rng)` returns one picture. Lengths are in body lengths unless they are pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from eval.sources.belugas import SKIN, Whale, noise

SUPERSAMPLE = 2  # shapes are computed at twice the picture's size, then averaged
# Outlines of the right flipper and fluke: (along, across) in body lengths.
FLIPPER = ((.235, .06), (.262, .11), (.295, .15), (.33, .172), (.352, .168), (.35, .14), (.33, .11), (.315, .06))
FLUKE = ((.88, 0), (.895, .022), (.918, .062), (.95, .105), (.982, .128), (.99, .118), (.984, .075), (.962, 0))
WATERS = ((.36, .43, .40), (.44, .46, .42), (.30, .38, .38), (.47, .45, .38), (.33, .42, .46), (.25, .31, .30))


@dataclass(frozen=True)
class Scene:
    """What the photographs of one encounter share: water, light, camera and how the whale swims, not who it is.

    Colours are RGB from 0 to 1, `ripple` is in waves per picture, `sun` says where light comes from (-1 left, 1 right),
    `murk` and `pitch` how deep and steep the whale lies, `blur` is in pixels, `bend` in body lengths, `roll` in degrees.
    """

    viewpoint: str
    water: np.ndarray
    waves: float
    ripple: np.ndarray
    glare: float
    foam: float
    murk: float
    pitch: float
    light: np.ndarray
    sun: float
    blur: float
    bend: float
    roll: float
    flipped: bool


def make_scene(viewpoint: str, rng: np.random.Generator) -> Scene:
    """The circumstances of one encounter, seen from `viewpoint` (top, left or right)."""
    direction, wavelength = rng.uniform(0, np.pi), rng.uniform(.05, .16)
    return Scene(
        viewpoint=viewpoint,
        water=np.array(WATERS[rng.integers(len(WATERS))]) * rng.uniform(.75, 1.25) * rng.uniform(.97, 1.03, 3),
        waves=rng.uniform(.03, .16),
        ripple=np.array([np.cos(direction), np.sin(direction)]) / wavelength,
        glare=max(0, rng.uniform(-.5, .6)),
        foam=max(0, rng.uniform(-.9, .5)),
        murk=rng.uniform(.02, .38),
        pitch=rng.uniform(-.5, .5),
        light=rng.uniform(.65, 1.12) * rng.uniform(.95, 1.05, 3),
        sun=rng.uniform(-.8, .8),
        blur=rng.uniform(0, 1.3),
        bend=rng.uniform(-.05, .05),
        roll=rng.uniform(-14, 14),
        flipped=bool(rng.random() < .12),
    )


def photograph(whale: Whale, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """One photograph, (height, width, 3) uint8 RGB. `rng` gives what differs between photographs of an encounter."""
    height, width = picture_size(scene.viewpoint, rng)
    shape = (height * SUPERSAMPLE, width * SUPERSAMPLE)
    water, surface = draw_water(shape, scene, rng)
    to_body, spine = camera_matrix(shape, scene, rng), draw_spine(scene, rng)
    picture = water.copy()
    for outline in limbs(scene.viewpoint):
        seen = limb_mask(shape, outline, to_body, spine) * (.82 - scene.murk)
        picture += seen[..., None] * (.80 * whale.tone - picture)
    body, inside, seen = draw_body(surface, to_body, spine, whale, scene, rng)
    picture += inside[..., None] * (water + seen[..., None] * (body - water) - picture)
    add_foam(picture, scene, rng)
    return develop(picture, (width, height), scene, rng)


def picture_size(viewpoint: str, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in pixels: portrait from above, landscape from the side."""
    if viewpoint == "top":
        height = int(rng.triangular(170, 300, 400))
        return height, max(70, int(height * rng.uniform(.33, .42)))
    width = int(rng.triangular(240, 330, 400))
    return max(70, int(width / rng.uniform(3, 4.6))), width


def draw_water(shape: tuple[int, int], scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Empty water as float RGB, and its surface height (about unit deviation): swell, chop and a train of ripples."""
    size, stretch = max(shape), 1.0 if scene.viewpoint == "top" else 3.0
    swell, chop = noise(shape, rng, size / 6, stretch), noise(shape, rng, size / 20, stretch)
    rows, columns = np.indices(shape, np.float32) / size
    ripple = np.sin(2 * np.pi * (rows * scene.ripple[0] * stretch + columns * scene.ripple[1]) + 2.2 * swell + .8 * chop)
    surface = (.5 * swell + .7 * (1.2 - 1.5 * np.abs(chop)) + .6 * ripple).astype(np.float32)
    silt = .025 * noise(shape, rng, size / 2)
    return (scene.water * (1 + scene.waves * surface + silt)[..., None]).astype(np.float32), surface


def camera_matrix(shape: tuple[int, int], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """2 x 3 affine map from a pixel (row, column, 1) to the body (along, across), in body lengths."""
    towards = {"top": ((1, 0), (0, 1)), "left": ((0, 1), (1, 0)), "right": ((0, -1), (1, 0))}[scene.viewpoint]
    tilt = np.deg2rad(rng.normal(0, 2.5)) + (np.pi if scene.flipped and scene.viewpoint == "top" else 0)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    linear = turn @ np.array(towards) / (max(shape) * rng.uniform(.90, .97))
    middle = np.array([.5, 0]) + rng.normal(0, .008, 2)
    return np.column_stack([linear, middle - linear @ (np.array(shape) / 2)])


def draw_spine(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """How far the spine lies across at each place along: the body's bend, the head's turn and the tail's stroke."""
    along = np.linspace(0, 1, SKIN[0])
    scale = 1 if scene.viewpoint == "top" else .35
    bend, head, tail = scene.bend + rng.normal(0, .012), rng.normal(0, .02), rng.normal(0, .03)
    curve = bend * np.sin(np.pi * along) + head * np.clip(1 - along / .25, 0, 1) ** 2
    return scale * (curve - bend * .6 + tail * np.clip(along / .4 - 1.5, 0, 1) ** 2)


def limbs(viewpoint: str) -> list[np.ndarray]:
    """Outlines of flippers and flukes, (n, 2) along and across. From the side: the flukes' edge, flippers under water."""
    flipper, fluke = np.array(FLIPPER), np.array(FLUKE)
    if viewpoint == "top":
        return [side for limb in (flipper, fluke) for side in (limb, limb * (1, -1))]
    return [fluke * (1, .15) - (0, .004), fluke * (1, -.08)]


def limb_mask(shape: tuple[int, int], outline: np.ndarray, to_body: np.ndarray, spine: np.ndarray) -> np.ndarray:
    """Which pixels (0 to 1) a limb covers; it moves with the spine where it is attached."""
    across = outline[:, 1] + np.interp(outline[:, 0], np.linspace(0, 1, SKIN[0]), spine)
    pixels = (np.column_stack([outline[:, 0], across]) - to_body[:, 2]) @ np.linalg.inv(to_body[:, :2]).T
    mask = np.zeros(shape, np.float32)
    cv2.fillPoly(mask, [(pixels[:, ::-1] * 16).round().astype(np.int32)], 1.0, cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(mask, (0, 0), 2)


def draw_body(surface: np.ndarray, to_body: np.ndarray, spine: np.ndarray, whale: Whale, scene: Scene,
              rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The skin wrapped round the body: its colour, which pixels it covers, and the share that the water lets through."""
    along, across = body_coordinates(to_body, surface, scene.murk)
    index = np.clip(along * (SKIN[0] - 1), 0, SKIN[0] - 1).astype(np.int32)
    top, offset = scene.viewpoint == "top", across - spine[index].astype(np.float32)
    reach = whale.width[index] + (0 if top else whale.ridge[index] * (offset < 0))
    side = np.clip(offset / np.maximum(reach, 1e-4), -1, 1).astype(np.float32)
    centre, sense = {"top": (0, 1), "left": (-90, -1), "right": (90, 1)}[scene.viewpoint]
    angle = centre + sense * np.rad2deg(np.arcsin(side)) + scene.roll + rng.normal(0, 3)
    column = ((angle / 360 + .5) * SKIN[1]).astype(np.float32)
    skin = cv2.remap(whale.skin, column, along * SKIN[0], cv2.INTER_LINEAR)
    sun = .32 * np.sqrt(1 - side ** 2) + .40 * side * (scene.sun if top else -.5)
    light = .62 * (1 + .4 * scene.waves * surface) + sun
    inside = np.clip((reach - np.abs(offset)) * max(surface.shape) * .5 + .5, 0, 1) * ((along > 0) & (along < 1))
    return (skin * light)[..., None] * whale.tone, inside, 1 - cover(along, side, offset, surface, scene, rng)


def body_coordinates(to_body: np.ndarray, surface: np.ndarray, murk: float) -> tuple[np.ndarray, np.ndarray]:
    """(along, across) of every pixel, shifted by the refraction of the moving surface above the whale."""
    rows, columns = np.indices(surface.shape, np.float32)
    along, across = (row[0] * rows + row[1] * columns + row[2] for row in to_body)
    swell = cv2.GaussianBlur(surface, (0, 0), max(surface.shape) / 60) * (.003 + .008 * murk)
    return (along + np.roll(swell, 15, 0)).astype(np.float32), (across + swell).astype(np.float32)


def cover(along: np.ndarray, side: np.ndarray, offset: np.ndarray, surface: np.ndarray, scene: Scene,
          rng: np.random.Generator) -> np.ndarray:
    """The share that water hides: edges and the end that points down; from the side, all below a water line."""
    deep = scene.murk + rng.uniform(0, .12)
    slope = np.clip((along - .5) * (scene.pitch + rng.normal(0, .1)), 0, 1)
    covered = deep + .35 * side ** 4 + 2 * slope + .15 * deep * surface
    if scene.viewpoint != "top":
        line = offset - rng.uniform(.015, .06) + .004 * surface
        covered = .5 * deep + .85 / (1 + np.exp(-line * 300))
    return np.clip(covered, 0, .95)


def add_foam(picture: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    """Sun glitter and foam on top of everything."""
    stretch = 1.3 if scene.viewpoint == "top" else 4.0
    glitter = np.clip(noise(picture.shape[:2], rng, max(picture.shape) / 45, stretch) - 1.7, 0, 1) * scene.glare
    foam = np.clip(noise(picture.shape[:2], rng, max(picture.shape) / 14, stretch) - 1.9, 0, .8) * scene.foam
    white = np.clip(glitter + foam, 0, .9)[..., None]
    picture += white * (1 - picture)


def develop(picture: np.ndarray, size: tuple[int, int], scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of it: exposure, blur, grain, and white where the crop leaves the source photograph."""
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) * scene.light * rng.uniform(.93, 1.07)
    picture = cv2.GaussianBlur(picture, (0, 0), .3 + scene.blur * rng.uniform(.7, 1.1))
    picture += rng.normal(0, rng.uniform(.005, .03), picture.shape)
    if rng.random() < .25:
        picture[outside_source(size, rng)] = 1
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


def outside_source(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A triangle in one corner, mask (height, width): the edge of the source photograph cuts a rotated crop."""
    rows, columns = np.indices(size[::-1]) / np.array(size[::-1])[:, None, None]
    legs = rng.uniform(.08, .40, 2)
    down, right = rng.integers(0, 2, 2)
    return np.abs(rows - down) / legs[0] + np.abs(columns - right) / legs[1] < 1
