"""What training does to an image: the published augmentations of both systems and two others, on (size, size, 3) uint8 arrays.

The first twelve are those of Where's Whale-do? (second prize): strengths by the winners' list; what it leaves open is albumentations'
default of mid-2022 (version 1.2), spelt out here. Version 2 differs in the last grey levels: it draws the noise's deviation, not its
variance, from the range, and rounds noise down. The next five, off by default, are those of Humpback Whale Identification (seventh
place): fastai v1's of its default strengths, on whole grey levels after every step; borders that open are mirrored, as there. The last two
are shifted colours and CutOut (DeVries & Taylor), also off. A step that is off draws no random number, so it changes nothing in the
others.
"""

import os
import random
from typing import Any, Dict, Sequence, Tuple

import cv2
import numpy as np

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the network for newer versions
import albumentations as A  # noqa: E402

from solution import recipe  # noqa: E402

NOISE_VARIANCE = 10, 50  # of 8-bit values
BLUR_KERNELS = 3, 5, 7
MAGNIFICATION = 1.1  # at most
TILT = 0.2  # of half the side, either way
LIGHTING = 0.4, 0.6  # what mid-grey becomes
CONTRAST = 0.8, 1.25
CORNERS = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])  # (x, y) of the outermost pixels' centres: left top, left bottom, right top, right bottom


class Augmentation:
    """`augment(image, key)`: the result depends on the image and the key (whole numbers) alone."""

    def __init__(self, augment: recipe.Augment, size: int) -> None:
        hole = min(8, size)
        self.steps = A.Compose([
            A.Affine(rotate=(-15, 15), translate_percent={"x": (0, 0.25), "y": (0, 0.25)}, shear={"x": (-3, 3), "y": (-3, 3)},
                     interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, fill=0, p=augment.affine),
            A.RandomResizedCrop((size, size), scale=(0.9, 1.0), ratio=(0.75, 1.333), interpolation=cv2.INTER_LINEAR, p=augment.crop),
            A.ToGray(p=augment.grey),
            A.OneOf([gaussian_blur(kernel) for kernel in BLUR_KERNELS], p=augment.blur),
            A.GaussNoise(std_range=tuple(np.sqrt(NOISE_VARIANCE) / 255), p=augment.noise),
            A.RandomGridShuffle((2, 2), p=augment.grid_shuffle),
            A.Posterize(4, p=augment.posterise),
            A.RandomBrightnessContrast((-0.2, 0.2), (-0.2, 0.2), brightness_by_max=True, p=augment.brightness_contrast),
            A.CoarseDropout((8, 8), (hole, hole), (hole, hole), fill=0, p=augment.dropout),
            A.RandomSnow(snow_point_range=(0.1, 0.3), brightness_coeff=2.5, method="bleach", p=augment.snow),
            A.RandomRain(slant_range=(-10, 10), drop_length=20, drop_width=1, drop_color=(200, 200, 200), blur_value=7,
                         brightness_coefficient=0.7, p=augment.rain),
            A.HorizontalFlip(p=augment.flip),
            A.Rotate((-10, 10), interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_REFLECT_101, p=augment.rotate),
            A.RandomResizedCrop((size, size), scale=(1 / MAGNIFICATION**2, 1.0), ratio=(1.0, 1.0), interpolation=cv2.INTER_LINEAR, p=augment.zoom),
            Warp(p=augment.warp),
            Lighting(p=augment.lighting),
            Contrast(p=augment.contrast),
            A.RGBShift((-20, 20), (-20, 20), (-20, 20), p=augment.rgb),
            Cutout(p=augment.cutout),
        ])

    def __call__(self, image: np.ndarray, key: Tuple[int, ...]) -> np.ndarray:
        numbers = np.random.default_rng(key)
        # One stream for all steps; set_random_seed would start every step's own stream at the same place.
        self.steps.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        return self.steps(image=image)["image"]


def gaussian_blur(kernel: int) -> A.GaussianBlur:
    """A blur of the kernel's size with the sigma that OpenCV derives from it, as albumentations 1.2 had it."""
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    return A.GaussianBlur(blur_limit=(kernel, kernel), sigma_limit=(sigma, sigma), p=1)


class Warp(A.ImageOnlyTransform):
    """The image seen from aside: each edge grows by a magnitude of its own (below zero: shrinks), in halves of the image's side at each end.

    fastai's symmetric_warp: a corner moves outwards in x by its horizontal edge's magnitude, in y by its vertical edge's.
    """

    def get_params(self) -> Dict[str, Any]:
        return {"edges": [self.py_random.uniform(-TILT, TILT) for _ in range(4)]}

    def apply(self, img: np.ndarray, edges: Sequence[float], **_: Any) -> np.ndarray:
        left, right, top, bottom = edges
        moved = CORNERS * (1 + np.array([[top, left], [bottom, left], [top, right], [bottom, right]]))
        size = img.shape[1], img.shape[0]
        before, after = (((points + 1) / 2 * (np.array(size) - 1)).astype(np.float32) for points in (CORNERS, moved))
        matrix = cv2.getPerspectiveTransform(before, after)
        return cv2.warpPerspective(img, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


class Lighting(A.ImageOnlyTransform):
    """fastai's brightness: the logit of a value in [0, 1] is moved by the logit of what mid-grey is to become."""

    def get_params(self) -> Dict[str, Any]:
        return {"curve": tone_curve(shift=logit(self.py_random.uniform(*LIGHTING)))}

    def apply(self, img: np.ndarray, curve: np.ndarray, **_: Any) -> np.ndarray:
        return cv2.LUT(img, curve)


class Contrast(Lighting):
    """fastai's contrast: the logit of a value in [0, 1] is multiplied; factors and their inverses are alike in frequency."""

    def get_params(self) -> Dict[str, Any]:
        return {"curve": tone_curve(scale=np.exp(self.py_random.uniform(*np.log(CONTRAST))))}


def logit(share: Any) -> Any:
    return np.log(share / (1 - share))


def tone_curve(scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """What each of the 256 grey levels becomes, (256,) uint8: sigmoid(scale * logit(x) + shift) of x in [0, 1]."""
    levels = np.clip(np.arange(256) / 255, 1e-7, 1 - 1e-7)
    return np.rint(255 / (1 + np.exp(-scale * logit(levels) - shift))).astype(np.uint8)


class Cutout(A.ImageOnlyTransform):
    """DeVries and Taylor (2017): a black square of half the image's side; its centre is any pixel, so it may reach over the border."""

    def get_params_dependent_on_data(self, params: Dict[str, Any], data: Dict[str, Any]) -> Dict[str, Any]:
        return {"centre": [self.py_random.randrange(side) for side in params["shape"][:2]]}

    def apply(self, img: np.ndarray, centre: Sequence[int], **_: Any) -> np.ndarray:
        hole, holed = img.shape[0] // 2, img.copy()
        top, left = (max(middle - hole // 2, 0) for middle in centre)
        bottom, right = (middle - hole // 2 + hole for middle in centre)
        holed[top:bottom, left:right] = 0
        return holed
