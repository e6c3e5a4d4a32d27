"""Recipes against the published table: every default, every refusal, and that what is written is read back."""

import dataclasses
import json

import pytest
import yaml

from solution import recipe
from solution.files import InputError, write_arrays, write_json

# whaledo.md: section 2, number by number; what that system does not have is off. The shipped code may only repeat it.
PUBLISHED = {
    "model": {"pretrained": "hub", "stages": [3, 4], "gem_p": 3.0, "parts": 1, "cut": "stripes", "part_width": None, "dropout": 0.3,
              "box_margin": 0.0, "grey": False, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    "head": {"kind": "arcface", "sub_centres": 2, "scale": 21.0, "margin_scale": 0.5, "margin_power": -0.125, "margin_offset": 0.05,
             "dropout": 0.0, "total": False, "loss": "cross_entropy", "ring": 0.0, "ring_radius": 1.5, "centre": 0.0, "species": False},
    "augment": {"affine": 0.5, "crop": 1.0, "grey": 0.1, "blur": 0.05, "noise": 0.05, "grid_shuffle": 0.3, "posterise": 0.2,
                "brightness_contrast": 0.5, "dropout": 0.05, "snow": 0.1, "rain": 0.05, "flip": 0.5,
                "rotate": 0.0, "zoom": 0.0, "warp": 0.0, "lighting": 0.0, "contrast": 0.0, "rgb": 0.0, "cutout": 0.0},
    "train": {"learning_rate": 1.6e-3, "early_learning_rate": None, "head_learning_rate": 1.6e-2, "frozen_epochs": 0, "frozen_learning_rate": 6.67e-3, "frozen_stages": 0,
              "schedule": "warmup", "weight_decay": 0.01, "beta2": 0.999, "warmup": 0.2, "final_factor": 0.01, "clip": None,
              "sampling": "shuffle", "images_per_whale": 1, "mirror_identities": False, "unknown": False, "mixup": 0.0,
              "precision": "fp16", "size": 380, "epochs": 20, "batch_size": 32},
    "predict": {"test_size": None, "mirror": "concatenate", "normalise": False, "weight": 1.0, "queries": [], "database": [], "local_size": None},
}
SEVEN = [  # backbone, train size, batch, epochs, warm-up epochs
    ("tf_efficientnet_b2.ns_jft_in1k", 380, 64, 20, 4),
    ("tf_efficientnet_b3.ns_jft_in1k", 380, 32, 30, 6),
    ("tf_efficientnet_b4.ns_jft_in1k", 380, 32, 25, 5),
    ("tf_efficientnet_b4.ns_jft_in1k", 456, 24, 20, 4),
    ("tf_efficientnet_b5.ns_jft_in1k", 456, 16, 22, 4.4),
    ("tf_efficientnet_b5.ns_jft_in1k", 528, 16, 20, 4),
    ("tf_efficientnetv2_m.in21k_ft_in1k", 380, 32, 20, 4),
]
# hwi.md, section 3, number by number: what differs from the table above.
OFF = ("affine", "crop", "grey", "blur", "noise", "grid_shuffle", "posterise", "brightness_contrast", "dropout", "snow", "rain", "flip")
HUMPBACK = {
    "model": {"stages": [4], "gem_p": 3.74, "parts": 4, "cut": "stripes", "part_width": 512, "dropout": 0.3, "box_margin": 0.1, "grey": True},
    "head": {"kind": "linear", "dropout": 0.5, "total": True, "loss": "cross_entropy", "ring": 0.01, "ring_radius": 1.5, "centre": 0.0},
    "augment": {**dict.fromkeys(OFF, 0.0), "rotate": 0.75, "zoom": 0.75, "warp": 0.75, "lighting": 0.75, "contrast": 0.75},
    "train": {"size": 384, "batch_size": 20, "schedule": "one_cycle", "warmup": 0.3, "frozen_epochs": 100, "frozen_learning_rate": 6.67e-3, "frozen_stages": 0,
              "epochs": 100, "early_learning_rate": 2e-4, "learning_rate": 2e-3, "head_learning_rate": 2e-3, "beta2": 0.99,
              "weight_decay": 0.01, "clip": 0.1},
    "predict": {"mirror": "off"},
}
SIX = {"vgg16_bn": [5], "densenet121": [4], "seresnext50_32x4d": [4], "resnet50": [4], "resnet152": [4], "inception_v4": [4]}  # stage of stride 32
IDENTIFY = {"by": "both", "temperature": None, "new_share": None, "by_species": False, "columns": ["Image", "Id"], "new": "new_whale"}


def spec(**differences):
    return recipe.from_table({"models": {"m": recipe.merged({"model": {"backbone": "b"}}, differences)}}, "r").models[0]


def file(tmp_path, text):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path, text):
    """The one line with which a recipe is refused."""
    path = file(tmp_path, text)
    with pytest.raises(InputError) as refused:
        recipe.load(str(path))
    assert str(refused.value).startswith(f"{path}: ") and "\n" not in str(refused.value)
    return str(refused.value)


def changed(tmp_path, difference):
    return refusal(tmp_path, f"models:\n  m:\n    model: {{backbone: b}}\n    {difference}\n")


def test_every_default_is_the_published_constant():
    resolved = recipe.plain(spec())
    assert resolved["model"].pop("backbone") == "b"
    assert {part: resolved[part] for part in PUBLISHED} == PUBLISHED
    assert {part: sorted(resolved[part]) for part in PUBLISHED} == {part: sorted(PUBLISHED[part]) for part in PUBLISHED}
    assert list(resolved["augment"]) == list(PUBLISHED["augment"])
    assert recipe.plain(recipe.from_table({"models": {"m": {"model": {"backbone": "b"}}}}, "r").identify) == IDENTIFY


def test_the_published_recipe_is_the_published_table():
    whaledo = recipe.load("whaledo")
    rows = [(m.model.backbone, m.train.size, m.train.batch_size, m.train.epochs, round(m.train.warmup * m.train.epochs, 9)) for m in whaledo.models]
    assert rows == SEVEN
    for model in whaledo.models:
        resolved = recipe.plain(model)
        assert all(resolved[part] == PUBLISHED[part] for part in ("head", "augment", "predict"))
        assert dict(resolved["model"], backbone=None) == dict(PUBLISHED["model"], backbone=None)


def test_the_humpback_recipe_is_the_published_table():
    hwi = recipe.load("hwi")
    assert (hwi.protocol, recipe.plain(hwi.identify)) == ("identify", IDENTIFY)
    assert {model.model.backbone.split(".")[0]: list(model.model.stages) for model in hwi.models} == SIX
    for model in hwi.models:
        halves = [0.5] * 3 if model.name == "inception4" else None
        differences = recipe.merged(HUMPBACK, {"model": {"stages": list(model.model.stages), **({"mean": halves, "std": halves} if halves else {})}})
        expected, resolved = recipe.merged(PUBLISHED, differences), recipe.plain(model)
        del resolved["model"]["backbone"], resolved["name"], resolved["position"]
        assert resolved == expected, model.name
        assert (model.train.all_epochs, model.test_size) == (200, 384)


def test_each_model_is_tested_at_its_own_size_unless_the_recipe_says_otherwise(tmp_path):
    assert [model.test_size for model in recipe.load("whaledo").models] == [380, 380, 380, 456, 456, 528, 380]
    table = yaml.safe_load((recipe.RECIPES / "whaledo.yaml").read_text())
    slip = recipe.from_table(dict(table, shared={"predict": {"test_size": 380}}), "slip")
    assert [model.test_size for model in slip.models] == [380] * 7
    assert [model.train.size for model in slip.models] == [380, 380, 380, 456, 456, 528, 380]


@pytest.mark.parametrize("name", sorted(path.stem for path in recipe.RECIPES.glob("*.yaml")))
def test_every_recipe_that_ships_loads_and_survives_a_round_trip(name, tmp_path):
    loaded = recipe.load(name)
    again = recipe.load(str(recipe.save(loaded, tmp_path / f"{name}.yaml")))
    assert again == loaded and len({model.name for model in loaded.models}) == len(loaded.models)


def test_plain_differs_from_the_published_system_in_size_and_learning_rate_only():
    for model in recipe.load("plain").models:
        resolved = recipe.plain(model)
        assert resolved["head"] == PUBLISHED["head"] and resolved["augment"] == PUBLISHED["augment"]
        assert (model.train.learning_rate, model.train.head_learning_rate, model.train.batch_size) == (5e-4, 5e-3, 32)
        assert (model.train.warmup, model.train.final_factor, model.train.weight_decay) == (0.2, 0.01, 0.01)


def test_a_models_own_differences_win_over_the_shared_ones_key_by_key(tmp_path):
    path = file(tmp_path, """
about: two
protocol: time
shared: {model: {backbone: b, gem_p: 4}, train: {size: 64, epochs: 3}}
models:
  first:
  second: {model: {backbone: c}, train: {epochs: 5}}
""")
    loaded = recipe.load(str(path))
    first, second = loaded.models
    assert (loaded.name, loaded.about, loaded.protocol) == ("r", "two", "time")
    assert (first.name, first.position, second.name, second.position) == ("first", 0, "second", 1)
    assert (first.model.backbone, first.model.gem_p, first.train.size, first.train.epochs) == ("b", 4.0, 64, 3)
    assert (second.model.backbone, second.model.gem_p, second.train.size, second.train.epochs) == ("c", 4.0, 64, 5)


def test_laying_tables_over_each_other_changes_neither():
    base, over = {"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}, "c": {"z": 1}}
    assert recipe.merged(base, over) == {"a": {"x": 1, "y": 5}, "b": 3, "c": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3} and over == {"a": {"y": 5}, "c": {"z": 1}}


@pytest.mark.parametrize("difference, words", [
    ("train: {epoch: 3}", ["m: unknown key train.epoch", "did you mean 'epochs'?"]),
    ("augmentation: {flip: 0}", ["m: unknown key augmentation", "did you mean 'augment'?"]),
    ("head: {subcentres: 1}", ["unknown key head.subcentres", "'sub_centres'"]),
    ("predict: {zzz: 1}", ["unknown key predict.zzz"]),
    ("train: 3", ["m: train is 3", "a table of keys and values"]),
    ("train:", ["m: train is None"]),
    ("train: {size: big}", ["train.size is 'big'", "a whole number"]),
    ("train: {size: 380.0}", ["train.size is 380.0", "a whole number"]),
    ("train: {size: true}", ["train.size is True", "a whole number"]),
    ("train: {learning_rate: 5e}", ["train.learning_rate is '5e'", "a number"]),
    ("train: {learning_rate: .nan}", ["train.learning_rate is nan", "a number"]),
    ("train: {learning_rate: .inf}", ["train.learning_rate is inf", "a number"]),
    ("train: {learning_rate: 0}", ["train.learning_rate is 0.0", "above 0"]),
    ("predict: {normalise: 1}", ["predict.normalise is 1", "true or false"]),
    ("predict: {mirror: both}", ["predict.mirror is 'both'", "concatenate, average or off"]),
    ("train: {size: 31}", ["train.size is 31", "between 32 and 2048"]),
    ("train: {size: 2049}", ["train.size is 2049", "between 32 and 2048"]),
    ("predict: {test_size: 16}", ["predict.test_size is 16", "between 32 and 2048"]),
    ("predict: {weight: 0}", ["predict.weight is 0.0", "above 0"]),
    ("train: {batch_size: 1}", ["train.batch_size is 1", "at least 2"]),
    ("train: {epochs: -1}", ["train.epochs is -1"]),
    ("train: {warmup: 1}", ["train.warmup is 1.0"]),
    ("train: {precision: fp8}", ["train.precision is 'fp8'", "fp16, bf16 or fp32"]),
    ("augment: {flip: 1.5}", ["augment.flip is 1.5", "between 0 and 1"]),
    ("augment: {rain: -0.1}", ["augment.rain is -0.1"]),
    ("head: {sub_centres: 0}", ["head.sub_centres is 0", "at least 1"]),
    ("head: {scale: -1}", ["head.scale is -1.0", "above 0"]),
    ("head: {kind: softmax}", ["head.kind is 'softmax'", "arcface, cosface, linear or lgm"]),
    ("head: {loss: hinge}", ["head.loss is 'hinge'", "cross_entropy, focal or bce"]),
    ("head: {dropout: 1}", ["head.dropout is 1.0", "below 1"]),
    ("head: {dropout: -0.1}", ["head.dropout is -0.1", "0 or more"]),
    ("head: {ring: -0.01}", ["head.ring is -0.01", "0 or more"]),
    ("head: {centre: -1}", ["head.centre is -1.0", "0 or more"]),
    ("head: {total: 1}", ["head.total is 1", "true or false"]),
    ("head: {species: all}", ["head.species is 'all'", "true or false"]),
    ("head: {rings: 1}", ["unknown key head.rings", "'ring'"]),
    ("augment: {warp: 2}", ["augment.warp is 2.0", "between 0 and 1"]),
    ("augment: {cutout: -1}", ["augment.cutout is -1.0"]),
    ("train: {schedule: cosine}", ["train.schedule is 'cosine'", "warmup or one_cycle"]),
    ("train: {sampling: pk}", ["train.sampling is 'pk'", "shuffle or whales"]),
    ("train: {images_per_whale: 0}", ["train.images_per_whale is 0", "at least 1"]),
    ("train: {sampling: whales, batch_size: 32, images_per_whale: 5}", ["train.images_per_whale is 5", "a divisor of train.batch_size, 32"]),
    ("train: {sampling: whales, batch_size: 4, images_per_whale: 8}", ["train.images_per_whale is 8", "a divisor of train.batch_size, 4"]),
    ("train: {clip: 0}", ["train.clip is 0.0", "above 0"]),
    ("train: {clip: off}", ["train.clip is False", "a number"]),
    ("train: {mixup: -1}", ["train.mixup is -1.0", "0 or more"]),
    ("train: {mirror_identities: both}", ["train.mirror_identities is 'both'", "true or false"]),
    ("train: {unknown: 1}", ["train.unknown is 1", "true or false"]),
    ("train: {beta2: 1}", ["train.beta2 is 1.0", "between 0 and 1"]),
    ("train: {beta2: 0}", ["train.beta2 is 0.0", "between 0 and 1"]),
    ("train: {frozen_stages: 6}", ["train.frozen_stages is 6", "0 to 5"]),
    ("train: {frozen_epochs: -1}", ["train.frozen_epochs is -1", "0 or more"]),
    ("train: {frozen_learning_rate: 0}", ["train.frozen_learning_rate is 0.0", "above 0"]),
    ("train: {early_learning_rate: 0}", ["train.early_learning_rate is 0.0", "above 0"]),
    ("train: {frozen_learning_rate:}", ["train.frozen_learning_rate is None", "a number"]),
])
def test_a_wrong_difference_is_refused_by_its_key(difference, words, tmp_path):
    message = changed(tmp_path, difference)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("model, word", [
    ("{}", "model.backbone is missing"),
    ("{backbone: 3}", "model.backbone is 3"),
    ("{backbone: b, stages: 3}", "model.stages is 3"),
    ("{backbone: b, stages: []}", "model.stages is []"),
    ("{backbone: b, stages: [3, 7]}", "model.stages is [3, 7]"),
    ("{backbone: b, stages: [-1]}", "model.stages is [-1]"),
    ("{backbone: b, stages: [3, 3]}", "model.stages is [3, 3]"),
    ("{backbone: b, stages: [6]}", "model.stages is [6]"),
    ("{backbone: b, gem_p: 0}", "model.gem_p is 0.0"),
    ("{backbone: b, parts: 0}", "model.parts is 0; it must be at least 1"),
    ("{backbone: b, parts: 1.5}", "model.parts is 1.5; it must be a whole number"),
    ("{backbone: b, cut: rows}", "model.cut is 'rows'; it must be stripes or branches"),
    ("{backbone: b, part_width: 0}", "model.part_width is 0; it must be at least 1, or null"),
    ("{backbone: b, dropout: 1}", "model.dropout is 1.0"),
    ("{backbone: b, dropout: -0.5}", "model.dropout is -0.5"),
    ("{backbone: b, box_margin: 1.1}", "model.box_margin is 1.1; it must be between 0 and 1"),
    ("{backbone: b, box_margin: -0.1}", "model.box_margin is -0.1"),
    ("{backbone: b, grey: 1}", "model.grey is 1; it must be true or false"),
    ("{backbone: b, mean: [0.5]}", "model.mean is [0.5]"),
    ("{backbone: b, std: [0.5, 0.5, 0]}", "model.std is [0.5, 0.5, 0.0]"),
])
def test_a_wrong_model_is_refused_by_its_key(model, word, tmp_path):
    assert f"m: {word}" in refusal(tmp_path, f"models:\n  m:\n    model: {model}\n")


@pytest.mark.parametrize("identify, words", [
    ("3", ["identify is 3", "a table of keys and values"]),
    ("{news: a}", ["unknown key identify.news", "did you mean 'new'?"]),
    ("{by: head}", ["identify.by is 'head'", "classifier, neighbours or both"]),
    ("{temperature: 0}", ["identify.temperature is 0.0", "above 0"]),
    ("{temperature: hot}", ["identify.temperature is 'hot'", "a number"]),
    ("{new_share: 1.5}", ["identify.new_share is 1.5", "between 0 and 1"]),
    ("{new_share: -0.1}", ["identify.new_share is -0.1"]),
    ("{by_species: 1}", ["identify.by_species is 1", "true or false"]),
    ("{columns: [Image]}", ["identify.columns is ['Image']", "two names"]),
    ("{columns: [Image, Image]}", ["identify.columns is ['Image', 'Image']", "two names"]),
    ("{columns: [a, b, c]}", ["identify.columns is ['a', 'b', 'c']", "two names"]),
    ("{columns: Image}", ["identify.columns is 'Image'", "a list"]),
    ("{new: new whale}", ["identify.new is 'new whale'", "one word"]),
    ("{new: ''}", ["identify.new is ''", "one word"]),
])
def test_a_wrong_way_to_name_individuals_is_refused_by_its_key(identify, words, tmp_path):
    message = refusal(tmp_path, f"models:\n  m: {{model: {{backbone: b}}}}\nidentify: {identify}\n")
    assert all(word in message for word in words), message


def test_what_a_recipe_says_of_naming_is_kept_and_the_rest_is_the_default(tmp_path):
    path = file(tmp_path, "models: {m: {model: {backbone: b}}}\nidentify: {new_share: 0.165, columns: [image, predictions], new: new_individual}\n")
    loaded = recipe.load(str(path))
    assert recipe.plain(loaded.identify) == dict(IDENTIFY, new_share=0.165, columns=["image", "predictions"], new="new_individual")
    assert recipe.load(str(recipe.save(loaded, path))) == loaded


def test_images_per_whale_need_divide_the_batch_only_where_whales_are_sampled():
    assert spec(train={"images_per_whale": 5, "batch_size": 32}).train.images_per_whale == 5
    assert spec(train={"images_per_whale": 4, "batch_size": 32, "sampling": "whales"}).train.sampling == "whales"


@pytest.mark.parametrize("text, words", [
    ("", ["recipe is None"]),
    ("- a\n", ["recipe is ['a']"]),
    ("about: nothing\n", ["models is None"]),
    ("models: {}\n", ["models is {}"]),
    ("modles: {a: }\n", ["unknown key modles", "did you mean 'models'?"]),
    ("models:\n  m: 3\n", ["m is 3"]),
    ("models:\n  ../m: {model: {backbone: b}}\n", ["models is '../m'", "it names files"]),
    ("models:\n  3: {model: {backbone: b}}\n", ["models is 3"]),
    ("models:\n  m: {name: n, model: {backbone: b}}\n", ["m: unknown key name"]),
    ("models:\n  m: {model: {backbone: b}}\nshared: 3\n", ["shared is 3"]),
    ("models:\n  m: {model: {backbone: b}}\nprotocol: random\n", ["protocol is 'random'", "stratified, encounter, whale, time, identify"]),
    ("models: [\n", ["not valid YAML"]),
])
def test_a_file_that_is_no_recipe_is_refused(text, words, tmp_path):
    message = refusal(tmp_path, text)
    assert all(word in message for word in words), message


def test_a_recipe_may_not_run_code(tmp_path):
    assert "not valid YAML" in refusal(tmp_path, "models: !!python/object/apply:os.system ['true']\n")


def test_an_unknown_recipe_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="no recipe 'whaledoo'; did you mean 'whaledo'"):
        recipe.load("whaledoo")
    with pytest.raises(InputError, match="no recipe 'absent.yaml'"):
        recipe.load("absent.yaml")


def test_a_whole_number_is_a_number_and_the_table_is_not_changed():
    differences = {"head": {"scale": 30}, "model": {"backbone": "b", "mean": [0, 0, 0], "std": [1, 1, 1]}}
    resolved = spec(**differences)
    assert resolved.head.scale == 30.0 and type(resolved.head.scale) is float
    assert resolved.model.mean == (0.0, 0.0, 0.0) and type(resolved.model.mean) is tuple
    assert differences["model"]["mean"] == [0, 0, 0]


def test_a_spec_is_a_value_that_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().train.size = 380
    assert hash(spec()) == hash(spec())


def written(tmp_path, name="m", **changes):
    table = recipe.plain(dataclasses.replace(spec(), name=name))
    write_json(dict(table, **changes), tmp_path / f"{name}.json")
    write_arrays(tmp_path / f"{name}.npz")
    return tmp_path / f"{name}.json"


def test_the_spec_beside_the_weights_is_read_back_equal(tmp_path):
    assert recipe.read_spec(written(tmp_path)) == spec()
    assert json.loads((tmp_path / "m.json").read_text())["train"]["learning_rate"] == 1.6e-3


@pytest.mark.parametrize("changes, word", [
    ({"extra": 1}, "unknown key extra"),
    ({"train": {"sizes": 3}}, "unknown key train.sizes; did you mean 'size'?"),
    ({"position": "first"}, "position is 'first'"),
    ({"model": {}}, "model.backbone is missing"),
    ({"model": None}, "model is None"),
])
def test_a_spec_beside_the_weights_is_read_strictly(changes, word, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as refused:
        recipe.read_spec(path)
    assert str(path) in str(refused.value) and word in str(refused.value)


def test_a_spec_under_another_name_or_that_is_no_json_is_refused(tmp_path):
    path = written(tmp_path)
    path.rename(tmp_path / "other.json")
    with pytest.raises(InputError, match="other.json: holds the spec of a model named 'm'"):
        recipe.read_spec(tmp_path / "other.json")
    for text in ("{", "[]", "3", "null"):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(InputError, match="m.json: "):
            recipe.read_spec(tmp_path / "m.json")


def test_the_models_of_a_directory_come_in_the_recipes_order(tmp_path):
    for name, position in (("a", 2), ("b", 0), ("c", 1)):
        written(tmp_path, name, position=position)
    assert [found.name for found in recipe.specs(tmp_path)] == ["b", "c", "a"]
    with pytest.raises(InputError, match="no models here"):
        recipe.specs(tmp_path / "nowhere")
    (tmp_path / "a.json").unlink()
    with pytest.raises(InputError, match="a.json: no such file"):
        recipe.specs(tmp_path)


def test_5e_4_is_a_number_although_yaml_reads_it_as_text(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("models: {a: {model: {backbone: b}, train: {learning_rate: 5e-4}}}")
    assert recipe.load(str(path)).models[0].train.learning_rate == 5e-4


def test_a_key_given_twice_is_refused_with_its_line(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("models:\n  a: {model: {backbone: b}}\n  a: {model: {backbone: c}}\n")
    with pytest.raises(InputError, match="line 2: a stands there twice"):
        recipe.load(str(path))
