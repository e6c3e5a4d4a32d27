"""The twelve augmentations and the humpback's seven: their order, strengths and frequencies as published, and what a key promises."""

import random

import cv2
import numpy as np
import pytest

from solution import recipe
from solution.augment import A, Augmentation, Contrast, Cutout, Lighting, Warp

NAMES = list(recipe.plain(recipe.Augment()))
OFF = dict.fromkeys(NAMES, 0.0)
HUMPBACK = NAMES[12:]


def image(size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def only(size=32, **probabilities):
    return Augmentation(recipe.Augment(**dict(OFF, **probabilities)), size)


def steps():
    return list(Augmentation(recipe.Augment(), 380).steps.transforms)


def smooth(size=64):
    """A photograph's stand-in without sharp edges, so that ways of interpolating agree."""
    return cv2.GaussianBlur(cv2.resize(image(8), (size, size), interpolation=cv2.INTER_CUBIC), (0, 0), 3)


# The published list

def test_the_steps_are_the_published_twelve_in_their_order_with_their_probabilities():
    assert [type(step) for step in steps()[:12]] == [
        A.Affine, A.RandomResizedCrop, A.ToGray, A.OneOf, A.GaussNoise, A.RandomGridShuffle, A.Posterize,
        A.RandomBrightnessContrast, A.CoarseDropout, A.RandomSnow, A.RandomRain, A.HorizontalFlip]
    assert [step.p for step in steps()[:12]] == [0.5, 1, 0.1, 0.05, 0.05, 0.3, 0.2, 0.5, 0.05, 0.1, 0.05, 0.5]
    assert Augmentation(recipe.Augment(), 380).steps.p == 1


def test_the_strengths_are_the_published_ones():
    affine, crop, _, blur, noise, grid, posterise, light, dropout, snow, rain, _ = steps()[:12]
    assert (affine.rotate, affine.shear) == ((-15, 15), {"x": (-3, 3), "y": (-3, 3)})
    assert affine.translate_percent == {"x": (0, 0.25), "y": (0, 0.25)} and affine.scale == {"x": (1, 1), "y": (1, 1)}
    assert (affine.interpolation, affine.border_mode, affine.fill, affine.fit_output) == (cv2.INTER_LINEAR, cv2.BORDER_CONSTANT, 0, False)
    assert (crop.size, crop.scale, crop.ratio) == ((380, 380), (0.9, 1.0), (0.75, 1.333))
    assert [step.blur_limit for step in blur.transforms] == [(3, 3), (5, 5), (7, 7)] and set(blur.transforms_ps) == {1 / 3}
    np.testing.assert_allclose((np.array(noise.std_range) * 255) ** 2, [10, 50])
    assert noise.mean_range == (0, 0) and noise.per_channel and noise.noise_scale_factor == 1
    assert grid.grid == (2, 2) and posterise.num_bits == (4, 4)
    assert (light.brightness_limit, light.contrast_limit, light.brightness_by_max) == ((-0.2, 0.2), (-0.2, 0.2), True)
    assert (dropout.num_holes_range, dropout.hole_height_range, dropout.hole_width_range, dropout.fill) == ((8, 8), (8, 8), (8, 8), 0)
    assert (snow.snow_point_range, snow.brightness_coeff, snow.method) == ((0.1, 0.3), 2.5, "bleach")
    assert (rain.slant_range, rain.drop_length, rain.drop_width, rain.drop_color) == ((-10, 10), 20, 1, (200, 200, 200))
    assert (rain.blur_value, rain.brightness_coefficient, rain.rain_type) == (7, 0.7, "default")


def test_the_humpback_steps_follow_in_their_order_and_are_off_unless_asked_for():
    assert HUMPBACK == ["rotate", "zoom", "warp", "lighting", "contrast", "rgb", "cutout"]
    assert [type(step) for step in steps()[12:]] == [A.Rotate, A.RandomResizedCrop, Warp, Lighting, Contrast, A.RGBShift, Cutout]
    assert [step.p for step in steps()[12:]] == [0] * 7
    asked = Augmentation(recipe.Augment(**dict(zip(HUMPBACK, np.arange(1, 8) / 10))), 32).steps.transforms[12:]
    assert [step.p for step in asked] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_with_the_humpback_steps_off_an_image_is_what_the_first_twelve_make_of_it():
    default, zeros = Augmentation(recipe.Augment(), 32), Augmentation(recipe.Augment(**dict.fromkeys(HUMPBACK, 0.0)), 32)
    twelve = A.Compose(Augmentation(recipe.Augment(), 32).steps.transforms[:12])
    for key in range(200):
        numbers = np.random.default_rng((0, key))
        twelve.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        expected = twelve(image=image())["image"]
        assert np.array_equal(default(image(), (0, key)), expected) and np.array_equal(zeros(image(), (0, key)), expected)


@pytest.mark.parametrize("kernel, sigma, place", [(3, 0.8, 0), (5, 1.1, 1), (7, 1.4, 2)])
def test_a_blur_has_the_width_that_opencv_derives_from_the_kernel(kernel, sigma, place):
    """OpenCV: sigma = 0.3 ((k - 1) / 2 - 1) + 0.8; where it is not given at all, its rounded tables are 6 of 255 away at most."""
    blurred = only(blur=1.0).steps.transforms[3].transforms[place](image=image(64))["image"].astype(int)[8:-8, 8:-8]
    away = lambda width: np.abs(blurred - cv2.GaussianBlur(image(64), (kernel, kernel), width)[8:-8, 8:-8]).max()
    assert away(sigma) <= 1 and away(0) <= 6


# Each step alone

def test_without_any_step_the_image_comes_back():
    assert all(np.array_equal(only()(image(), (0, 0, key)), image()) for key in range(20))


def test_a_flip_mirrors_left_and_right():
    assert np.array_equal(only(flip=1.0)(image(), (0,)), image()[:, ::-1])


def test_posterising_leaves_four_bits():
    assert np.array_equal(only(posterise=1.0)(image(), (0,)), image() & 0xF0)


def test_grey_makes_the_channels_equal():
    grey = only(grey=1.0)(image(), (0,)).astype(int)
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()
    np.testing.assert_allclose(grey[..., 0], image() @ [0.299, 0.587, 0.114], atol=1)


def test_a_grid_shuffle_moves_the_four_quarters():
    quarters = lambda a: sorted(a[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16))
    shuffled = [only(grid_shuffle=1.0)(image(), (0, key)) for key in range(20)]
    assert all(quarters(each) == quarters(image()) for each in shuffled)
    assert sum(not np.array_equal(each, image()) for each in shuffled) > 12


def test_dropout_makes_at_most_eight_black_squares_of_eight():
    white = np.full((64, 64, 3), 255, np.uint8)
    for key in range(20):
        black = (only(64, dropout=1.0)(white, (0, key)) == 0).all(axis=2)
        assert 64 <= black.sum() <= 8 * 64


def test_the_content_moves_to_the_right_and_down_only():
    """Without rotation's share: the mean translation over many draws is half of the largest, 0.125, never negative."""
    spot = np.zeros((64, 64, 3), np.uint8)
    spot[31:33, 31:33] = 255
    moved = only(64, affine=1.0)
    centres = [np.argwhere(moved(spot, (0, key)).sum(axis=2) > 100).mean(axis=0) - 31.5 for key in range(200)]
    assert np.min(centres) > -2.5 and np.max(centres) < 0.25 * 64 + 2.5
    np.testing.assert_allclose(np.mean(centres, axis=0), 0.125 * 64, atol=1.2)


def test_noise_has_a_variance_between_10_and_50():
    """Up to the library's rounding of the noise towards zero, which takes about E|x| - 1/3 off: 2.2 at 10, 5.3 at 50."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    variances = [(only(64, noise=1.0)(grey, (0, key)).astype(int) - 128).var() for key in range(100)]
    assert 7.5 < min(variances) < 9 and 42 < max(variances) < 46


# Each humpback step alone

def angle(picture):
    """Of the bright line through the middle, in degrees; the ends are left out, since the mirrored border bends them."""
    across, along = np.mgrid[-50:51, -50:51]
    weight = picture[..., 0] * (across**2 + along**2 < 40**2)
    return np.degrees(np.arctan2((weight * across * along).sum(), (weight * along**2).sum()))


def test_a_rotation_is_by_ten_degrees_at_most_either_way_about_the_middle():
    line = np.zeros((101, 101, 3), np.uint8)
    line[50] = 255
    angles = [angle(only(101, rotate=1.0)(line, (0, key)).astype(float)) for key in range(300)]
    assert -10.2 < min(angles) < -9.5 and 9.5 < max(angles) < 10.2
    assert abs(np.mean(angles)) < 4 * 20 / np.sqrt(12 * 300) and abs(np.std(angles) - 20 / np.sqrt(12)) < 0.6


@pytest.mark.parametrize("name", ["rotate", "zoom", "warp"])
def test_a_moved_image_has_no_blank_border(name):
    white = np.full((64, 64, 3), 255, np.uint8)
    assert all((only(64, **{name: 1.0})(white, (0, key)) == 255).all() for key in range(50))


def test_a_zoom_enlarges_a_square_cut_anywhere_by_at_most_a_tenth():
    zoom, photograph, cuts = only(64, zoom=1.0), smooth(), []
    for key in range(1000):
        zoomed = zoom(photograph, (0, key))
        left, top, right, bottom = zoom.steps.transforms[13].params["crop_coords"]
        assert right - left == bottom - top and min(left, top) >= 0 and max(right, bottom) <= 64
        assert np.array_equal(zoomed, cv2.resize(photograph[top:bottom, left:right], (64, 64), interpolation=cv2.INTER_LINEAR))
        assert right - left < 64 or np.array_equal(zoomed, photograph)
        cuts.append((left, top, right - left))
    left, top, side = np.transpose(cuts)
    assert (side.min(), side.max()) == (58, 64)  # 64 / 1.1 = 58.2
    assert {*left[side == 60]} == {*top[side == 60]} == set(range(5))
    assert abs(np.corrcoef(left[side == 60], top[side == 60])[0, 1]) < 0.4


def test_a_warp_of_nothing_is_the_identity():
    assert np.array_equal(Warp().apply(image(), [0, 0, 0, 0]), image())


@pytest.mark.parametrize("edge, places", [
    (0, [(10, 0), (90, 0), (0, 100), (100, 100)]), (1, [(0, 0), (100, 0), (10, 100), (90, 100)]),
    (2, [(0, 10), (0, 90), (100, 0), (100, 100)]), (3, [(0, 0), (0, 100), (100, 10), (100, 90)])])
def test_one_edge_warped_moves_its_two_corners_along_it(edge, places):
    """Left, right, top, bottom; (row, column): an edge of 101 pixels that shrinks by 0.2 of its half at each end lies from 10 to 90."""
    corners = np.zeros((101, 101, 3), np.uint8)
    corners[[0, 0, 100, 100], [0, 100, 0, 100]] = 255
    warped = Warp().apply(corners, [-0.2 if each == edge else 0 for each in range(4)])
    assert all(warped[place].min() > 200 for place in places)


def naive_warp(picture, targets):
    """Each corner (x, y in [-1, 1]) goes to its target: the eight equations of a perspective map solved, values looked up bilinearly."""
    from scipy.ndimage import map_coordinates

    size, corners = len(picture), [(-1, -1), (-1, 1), (1, -1), (1, 1)]
    rows = [row for (x, y), (u, v) in zip(targets, corners) for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y])]
    a, b, c, d, e, f, g, h = np.linalg.solve(rows, np.ravel(corners))
    y, x = np.mgrid[-1:1:size * 1j, -1:1:size * 1j]
    u, v = (a * x + b * y + c) / (g * x + h * y + 1), (d * x + e * y + f) / (g * x + h * y + 1)
    places = [(v + 1) / 2 * (size - 1), (u + 1) / 2 * (size - 1)]
    return np.stack([map_coordinates(picture[..., channel].astype(float), places, order=1, mode="mirror") for channel in range(3)], axis=2)


def test_a_warp_is_fastai_s_symmetric_warp_with_mirrored_borders():
    warp, drawn = only(64, warp=1.0), []
    for key in range(20):
        warped = warp(smooth(), (0, key))
        left, right, top, bottom = warp.steps.transforms[14].params["edges"]
        targets = [(-1 - top, -1 - left), (-1 - bottom, 1 + left), (1 + top, -1 - right), (1 + bottom, 1 + right)]
        np.testing.assert_allclose(warped, naive_warp(smooth(), targets), atol=1.5)
        drawn += [left, right, top, bottom]
    assert -0.2 <= min(drawn) < -0.18 and 0.18 < max(drawn) <= 0.2 and len(set(drawn)) == 80


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logits(grey):
    return np.log(grey / 255 / (1 - grey / 255))


GREYS = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)  # each level once, three channels alike


@pytest.mark.parametrize("name, step, low, high", [
    ("lighting", Lighting, np.log(0.4 / 0.6), np.log(0.6 / 0.4)), ("contrast", Contrast, np.log(0.8), np.log(1.25))])
def test_lighting_moves_and_contrast_scales_the_logit_within_the_published_range(name, step, low, high):
    """Fitted to the levels that come back: the move, or the logarithm of the factor; black and white stay."""
    tone, inner, found = only(16, **{name: 1.0}), np.arange(32, 224), []
    for key in range(300):
        levels = tone(GREYS, (0, key)).reshape(256, 3)
        assert (levels.T == levels[:, 0]).all() and levels[0, 0] == 0 and levels[255, 0] == 255
        before, after = logits(inner), logits(levels[inner, 0])
        found.append((after - before).mean() if step is Lighting else np.log((after * before).sum() / (before**2).sum()))
        expected = sigmoid(before + found[-1]) if step is Lighting else sigmoid(before * np.exp(found[-1]))
        np.testing.assert_allclose(levels[inner, 0], expected * 255, atol=1)  # half a level of rounding, and what it does to the fit
    assert low - 0.01 < min(found) < low + 0.03 and high - 0.03 < max(found) < high + 0.01
    if step is Lighting:
        found = sigmoid(np.array(found))  # the change itself is drawn evenly, as is the logarithm of contrast's factor
    assert abs(np.mean(found) - (min(found) + max(found)) / 2) < 4 * np.ptp(found) / np.sqrt(12 * 300)


def test_a_change_of_a_half_and_a_factor_of_one_are_the_identity():
    for step in (Lighting(), Contrast()):
        step.py_random = type("Middle", (), {"uniform": staticmethod(lambda low, high: (low + high) / 2)})()
        assert np.array_equal(step.apply(GREYS, **step.get_params()), GREYS)


def test_rgb_moves_each_channel_by_a_shift_of_its_own_of_at_most_20():
    grey, shifts = np.full((16, 16, 3), 128, np.uint8), []
    for key in range(300):
        moved = only(16, rgb=1.0)(grey, (0, key)).astype(int) - 128
        assert (moved == moved[0, 0]).all()
        shifts.append(moved[0, 0])
    assert (np.abs(np.min(shifts, axis=0) + 19.5) <= 1).all() and (np.abs(np.max(shifts, axis=0) - 19.5) <= 1).all()
    assert np.abs(np.corrcoef(np.transpose(shifts)) - np.eye(3)).max() < 0.25


@pytest.mark.parametrize("size", [32, 33])
def test_cutout_blackens_one_square_of_half_the_side_clipped_at_the_border(size):
    """About any pixel: in a corner a quarter of it is left; a side is cut from 1 to 1 / 2 over the outer quarters, so 7 / 8 are left on average."""
    white, cut, shapes = np.full((size, size, 3), 255, np.uint8), only(size, cutout=1.0), []
    for key in range(400):
        black = (cut(white, (0, key)) == 0).all(axis=2)
        rows, columns = np.flatnonzero(black.any(axis=1)), np.flatnonzero(black.any(axis=0))
        assert black.sum() == len(rows) * len(columns) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        at_the_border = rows[0] == 0 or rows[-1] == size - 1, columns[0] == 0 or columns[-1] == size - 1
        assert all(length == 16 or clipped for length, clipped in zip((len(rows), len(columns)), at_the_border))
        shapes.append((len(rows), len(columns)))
    sides = np.ravel(shapes)
    assert (sides.min(), sides.max()) == (8, 16)
    np.testing.assert_allclose(np.prod(shapes, axis=1).mean() / (16 * 16), (7 / 8) ** 2, atol=0.03)


@pytest.mark.parametrize("name", HUMPBACK)
def test_a_humpback_step_is_a_function_of_the_image_and_the_key(name):
    first, second = only(**{name: 0.75}), only(**{name: 0.75})
    for key in range(40):
        second(image(seed=key), (9, key))
        assert np.array_equal(first(image(), (1, key)), second(image(), (1, key)))
    assert len({first(image(), (1, key)).tobytes() for key in range(40)}) > 10
    changed = np.mean([not np.array_equal(first(image(), (1, key)), image()) for key in range(400)])
    assert abs(changed - 0.75) < (0.25 if name == "zoom" else 0.1)  # a zoom to less than a pixel changes nothing


# Keys

def test_the_same_key_gives_the_same_bytes_whatever_came_before():
    first, second = Augmentation(recipe.Augment(), 32), Augmentation(recipe.Augment(), 32)
    for key in range(60):
        second(image(seed=key), (9, 9, key))
        assert np.array_equal(first(image(), (1, 2, key)), second(image(), (1, 2, key)))


def test_another_seed_epoch_or_image_gives_another_result():
    augment = Augmentation(recipe.Augment(), 32)
    results = {augment(image(), key).tobytes() for key in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)]}
    assert len(results) == 6


def test_global_random_numbers_neither_matter_nor_change():
    augment = Augmentation(recipe.Augment(), 32)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = [augment(image(), (0, key)) for key in range(20)]
    assert np.array_equal(before, np.random.get_state()[1])
    np.random.seed(1)
    assert all(np.array_equal(result, augment(image(), (0, key))) for key, result in enumerate(first))


def test_the_given_image_is_not_changed():
    given = image()
    for key in range(60):
        Augmentation(recipe.Augment(**dict.fromkeys(NAMES, 1.0)), 32)(given, (0, key))
    assert np.array_equal(given, image())


# Frequencies

def applied(n=2000):
    """Which of the twelve steps ran, (n, 12), over n keys of one epoch."""
    augment, ran = Augmentation(recipe.Augment(), 32), np.zeros((n, 12), bool)

    def watch(place, step):
        parameters = step.get_params  # asked for only once the step is to run

        def get_params():
            ran[number, place] = True
            return parameters()
        step.get_params = get_params

    for place, step in enumerate(augment.steps.transforms[:12]):
        for each in step.transforms if isinstance(step, A.OneOf) else [step]:
            watch(place, each)
    for number in range(n):
        augment(image(), (0, 3, number))
    return ran


def test_steps_run_as_often_as_published_and_independently_of_each_other():
    ran, wanted = applied(), np.array([0.5, 1, 0.1, 0.05, 0.05, 0.3, 0.2, 0.5, 0.05, 0.1, 0.05, 0.5])
    assert (np.abs(ran.mean(axis=0) - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / len(ran))).all()
    for a in range(12):
        for b in range(a):
            both = wanted[a] * wanted[b]
            assert abs((ran[:, a] & ran[:, b]).mean() - both) <= 4.5 * np.sqrt(both * (1 - both) / len(ran)), (a, b)


def test_neighbouring_images_and_epochs_decide_independently():
    augment = only(flip=0.5)
    flipped = np.array([[not np.array_equal(augment(image(), (0, epoch, number)), image()) for number in range(80)] for epoch in range(12)])
    assert abs(flipped.mean() - 0.5) < 0.07
    assert abs((flipped[:, 1:] == flipped[:, :-1]).mean() - 0.5) < 0.07 and abs((flipped[1:] == flipped[:-1]).mean() - 0.5) < 0.07


@pytest.mark.parametrize("size", [32, 33, 160])
def test_shape_and_type_stay_at_every_size(size):
    everything = Augmentation(recipe.Augment(**dict.fromkeys(NAMES, 1.0)), size)
    for key in range(25):
        result = everything(image(size), (0, key))
        assert result.shape == (size, size, 3) and result.dtype == np.uint8
