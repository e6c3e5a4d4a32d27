"""PyTorch as an engine: an embedding depends on its image alone, and what a GPU would be told."""

import numpy as np
import pytest
import torch

from solution import models, torch_engine
from solution.torch_engine import TorchEngine
from test_engines import pictures, tiny, trained

# SiLU and GeM are what PyTorch computes by other instructions at the end of what a thread has of a layer.
SPECS = [tiny("plain", 48), tiny("odd", 50), tiny("stripes", 128, parts=4, part_width=16, stages=(4,), gem_p=3.74), tiny("large", 64)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    weights = tmp_path_factory.mktemp("weights")
    for spec in SPECS:
        trained(spec, weights)
    return weights


def engine_of(spec, weights):
    return TorchEngine(spec, models.load(spec, weights), "cpu")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_an_embedding_does_not_depend_on_the_images_that_share_its_batch(spec, weights):
    images, random = pictures(39, spec.test_size), np.random.default_rng(0)
    engine = engine_of(spec, weights)
    wanted = engine(images)
    assert np.abs(wanted - wanted[0]).max() > 0.01
    for engine.together in (4, 8, engine.together):
        wanted = engine(images)
        for _ in range(3):
            order = random.permutation(len(images))
            np.testing.assert_array_equal(engine(images[order]), wanted[order])
        cuts = np.sort(random.choice(np.arange(1, 39), 6, replace=False))
        np.testing.assert_array_equal(np.concatenate([engine(part) for part in np.split(images, cuts)]), wanted)
        for number in (0, 17, 38):
            np.testing.assert_array_equal(engine(images[number : number + 1])[0], wanted[number])


def test_image_and_mirror_image_at_once_are_the_same_as_one_after_the_other(weights):
    images, engine = pictures(7, 48), engine_of(SPECS[0], weights)
    plain, mirror = engine.both(images)
    np.testing.assert_array_equal(plain, engine(images))
    np.testing.assert_array_equal(mirror, engine(images, mirrored=True))
    np.testing.assert_array_equal(mirror, engine(np.ascontiguousarray(images[:, :, ::-1])))
    assert np.abs(plain - mirror).max() > 0.01 and plain.dtype == mirror.dtype == np.float32


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_number_of_threads_changes_no_bit(spec, weights):
    images, before, found = pictures(21, spec.test_size), torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(engine_of(spec, weights)(images))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_a_model_that_is_being_trained_is_not_changed(weights):
    model = models.load(SPECS[0], weights)
    before = [type(module) for module in model.modules()]
    TorchEngine(SPECS[0], model, "cpu")(pictures(2, 48))
    assert [type(module) for module in model.modules()] == before and torch_engine.Even not in before


def test_the_engine_leaves_torch_its_threads(weights):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    engine = engine_of(SPECS[0], weights)
    assert list(engine.pool.map(lambda _: torch.get_num_threads(), range(6))) == [1] * 6 and torch.get_num_threads() == 3
    torch.set_num_threads(before)


@pytest.mark.parametrize("size, count", [(32, 32), (128, 8), (160, 4), (224, 4), (456, 4), (2000, 4)])
def test_a_part_is_a_power_of_two_of_images(size, count):
    assert torch_engine.images_together(size) == count


@pytest.mark.skipif(not hasattr(torch, "autocast"), reason="torch 1.8 has float16 only")
@pytest.mark.parametrize("wanted, able, given", [("fp16", True, torch.float16), ("bf16", True, torch.bfloat16), ("bf16", False, torch.float16), ("fp32", True, torch.float16)])
def test_a_gpu_computes_in_the_half_precision_of_the_recipe_where_it_can(wanted, able, given, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: able)
    told = []
    monkeypatch.setattr(torch, "autocast", lambda *words: told.append(words))
    torch_engine.half_precision(wanted)
    assert told == [("cuda", given)]


def test_a_failure_that_is_not_of_memory_is_told(weights):
    engine = engine_of(SPECS[0], weights)
    with pytest.raises(RuntimeError, match="Expected|size|weight"):
        engine(np.zeros((2, 48, 48, 4), np.uint8))
