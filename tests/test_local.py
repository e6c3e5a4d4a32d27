"""Local evidence against plain loops; what is shared is found, what lies too far apart is not; it travels, and its absence is told."""

import json
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import toy
import toy_training as toying
from solution import fitting, images, local, local_contrast, local_fit, local_layers, models, places, predict, rank, recipe, routes, ties, train
from solution.files import Failure, InputError
from solution.pixels import Pixels
from solution.sift import labelled, training_set
from test_pack import main, packed

SIZE = 64


def unit_cells(n, cells, d=8, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, cells, d))
    return (rows / np.linalg.norm(rows, axis=2, keepdims=True)).astype(np.float16)


def naive(one, other, side):
    """The docstring of places.evidence written out, a cell at a time."""
    near = lambda i, j: np.hypot(i // side - j // side, i % side - j % side) <= places.REACH * side
    best = lambda own, others: sum(max(0, max(float(own[i].astype(float) @ others[j].astype(float)) for j in range(len(others)) if near(i, j)) - places.ALIKE)
                                   for i in range(len(own)))
    return (best(one, other) + best(other, one)) / len(one)


def test_evidence_is_what_a_loop_over_cells_finds():
    cells = unit_cells(8, 16, d=3)
    candidates = np.array([[1, 2, -1, 4, 5, 6, 7], [0, 4, 3, -1, -1, -1, -1], [-1] * 7])  # more than TOGETHER, fewer, none
    found = places.evidence(cells, np.array([0, 3, 2]), candidates)
    expected = [[0 if c < 0 else naive(cells[q], cells[c], 4) for c in row] for q, row in zip((0, 3, 2), candidates)]
    assert np.abs(found - expected).max() < 2e-3 and (found[candidates < 0] == 0).all() and np.count_nonzero(found) >= 7


def test_a_mark_counts_where_it_is_and_a_little_beside_it_but_not_across_the_photograph():
    ground, mark = np.eye(8)[0], np.eye(8)[1]
    ground_of_others = np.eye(8)[2]
    cells = np.stack([np.tile(ground if n == 0 else ground_of_others, (100, 1)) for n in range(4)]).astype(np.float16)
    for number, place in enumerate((0, 0, 2, 9)):  # of the first row
        cells[number, place] = mark
    here, beside, far = places.evidence(cells, np.array([0]), np.array([[1, 2, 3]]))[0]
    assert here == beside == pytest.approx(2 * (1 - places.ALIKE) / 100, abs=1e-4) and far == 0


def test_the_rim_of_a_map_is_left_out():
    maps = torch.arange(2 * 3 * 20 * 20).reshape(2, 3, 20, 20).float()
    cells = places.inner(maps)
    assert cells.shape == (2, 256, 3)
    assert all(torch.equal(cells[1, row * 16 + column], maps[1, :, row + 2, column + 2]) for row in (0, 7, 15) for column in (0, 3, 15))
    assert places.inner(maps[..., :4, :4]).shape == (2, 16, 3)  # of a small map nothing


def test_copies_of_a_photograph_share_equally_much():
    cells = unit_cells(3, 64)
    cells = np.concatenate([cells, cells[1:2], cells[1:2]])
    found = places.evidence(cells, np.array([0]), np.array([[1, 2, 3, 4]]))[0]
    assert found[0] == found[2] == found[3]


def test_evidence_and_ranking_count_alike_whatever_their_units():
    random = np.random.default_rng(1)
    values, found = -np.sort(-random.normal(0.5, 0.1, (3, 30)), axis=1), random.random((3, 30))
    weighed = local.weighed(values, found, 1)
    for unit in (1e-4, 1e4):
        assert np.allclose(local.weighed(values, unit * found, 1), weighed)
    z = lambda rows: (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    assert np.allclose(z(weighed), z(z(values) + z(found)))
    assert np.allclose(z(local.weighed(values, found, 2.5)), z(z(values) + 2.5 * z(found)))
    assert np.array_equal(local.weighed(values, found, 0), values)


def test_without_evidence_for_anyone_and_in_empty_places_nothing_changes():
    values = np.array([[0.9, 0.5, -np.inf], [0.3, 0.2, 0.1]])
    assert np.array_equal(local.weighed(values, np.zeros((2, 3)), 1), values)
    assert np.array_equal(local.weighed(values, np.full((2, 3), 0.7), 1), values)
    assert local.weighed(values, np.random.default_rng(0).random((2, 3)), 1)[0, 2] == -np.inf


def test_whitened_cells_are_uncorrelated_with_variance_one():
    random = np.random.default_rng(0)
    cells = (random.normal(size=(5000, 10)) @ random.normal(size=(10, 10)) + 3).astype(np.float32)
    whitening = local_fit.whitened(cells)
    assert np.allclose(np.cov(((cells - whitening.mean) @ whitening.projection).T, bias=True), np.eye(10), atol=1e-3)
    flat = local_fit.whitened(np.ones((50, 4), np.float32))
    assert np.isfinite(flat.mean).all() and np.isfinite(flat.projection).all()


# What tells individuals apart

def animals(count, photographs, seed, side=6, channels=12, quiet=3, loudness=5):
    """Cells of photographs of animals whose marks lie in a few quiet channels; the others are loud and differ from photograph to photograph."""
    random = np.random.default_rng(seed)
    whales = np.repeat(np.arange(count), photographs)
    marks = np.repeat(random.normal(size=(count, side * side, quiet)), photographs, axis=0) + 0.5 * random.normal(size=(len(whales), side * side, quiet))
    noise = random.normal(size=(len(whales), side * side, channels - quiet))
    return np.concatenate([marks, loudness * noise], axis=2).astype(np.float16), whales


def as_maps(cells):
    """(n, cells, c) to maps (n, c, side, side)."""
    side = round(cells.shape[1] ** 0.5)
    return torch.from_numpy(cells).transpose(1, 2).reshape(len(cells), -1, side, side)


def learning_of(cells, seed=0, part=None, prefix=""):
    return local_contrast.Learning(part or nn.Identity(), prefix, local_fit.whitened(cells.reshape(-1, cells.shape[2])), seed, torch.device("cpu"))


def learned(cells, groups, whales, seed=0, part=None, prefix=""):
    learning = learning_of(cells, seed, part, prefix)
    assert run_on(learning, cells, groups, whales)
    return learning.sight()


def run_on(learning, cells, groups, whales, stop=local_fit.never):
    """On photographs whose layers are given `cells`."""
    with torch.no_grad():
        made = learning.part(as_maps(cells).float())
    return learning.run(as_maps(cells), places.inner(made).half(), groups, whales, stop)


def first_answers(cells, whales, sight):
    """The share of photographs whose best candidate by local evidence is the same animal."""
    seen = (cells.astype(np.float32) - sight.mean) @ sight.projection
    seen = (seen / np.linalg.norm(seen, axis=2, keepdims=True)).astype(np.float16)
    numbers = np.arange(len(whales))
    others = np.array([np.delete(numbers, number) for number in numbers])
    best = places.evidence(seen, numbers, others).argmax(axis=1)
    return (whales[others[numbers, best]] == whales).mean()


def test_learning_finds_the_channels_that_tell_animals_apart_and_animals_never_seen_profit():
    cells, whales = animals(12, 4, seed=0)
    whitening = local_fit.whitened(cells.reshape(-1, 12))
    sight = learned(cells, whales, whales)
    others, unseen = animals(12, 3, seed=1)
    assert np.array_equal(sight.mean, whitening.mean) and sight.projection.dtype == np.float32 and not sight.layers
    assert first_answers(others, unseen, sight) > first_answers(others, unseen, whitening) + 0.2


def test_layers_learn_what_no_projection_of_their_maps_could():
    """Of 24 channels, 8 with marks, the layers mix ten: whatever is made of these is full of noise. The animals that are asked were never seen."""
    (cells, whales), (others, unseen) = animals(12, 4, 0, 6, 24, 8, 1.5), animals(12, 3, 1, 6, 24, 8, 1.5)
    layers = nn.Sequential(nn.Conv2d(24, 10, 1, bias=False))
    with torch.no_grad():
        layers[0].weight.copy_(0.005 * torch.randn(10, 24, 1, 1, generator=torch.Generator().manual_seed(0)))
    before, seen = layers[0].weight.clone(), lambda own, some: own(as_maps(some).float()).detach().flatten(2).transpose(1, 2).numpy()
    learning = local_contrast.Learning(layers, "blocks.1.", local_fit.whitened(seen(layers, cells).reshape(-1, 10)), 0, torch.device("cpu"))
    assert run_on(learning, cells, whales, whales)
    sight, alone = learning.sight(), learned(seen(layers, cells), whales, whales)
    assert torch.equal(layers[0].weight, before)  # a copy of it learned
    assert list(sight.layers) == ["blocks.1.0.weight"] and np.array_equal(sight.layers["blocks.1.0.weight"], learning.part[0].weight.detach().numpy())
    assert first_answers(seen(learning.part, others), unseen, sight) > first_answers(seen(layers, others), unseen, alone) + 0.5


@pytest.mark.parametrize("stops", [{3}, {0, 1, 2, 350}, {499}])
def test_learning_goes_on_from_where_it_was_stopped_to_the_same_numbers(stops, monkeypatch):
    cells, whales = animals(6, 3, seed=0)
    layers = nn.Sequential(nn.Conv2d(12, 12, 1), nn.BatchNorm2d(12)).eval()
    undisturbed, state, taken = learned(cells, whales, whales, 0, layers, "top."), None, []
    monkeypatch.setattr(local_contrast.Learning, "learn", lambda self, *words, learn=local_contrast.Learning.learn: taken.append(self.step) or learn(self, *words))
    while True:
        learning = learning_of(cells, 0, layers, "top.")
        if state is not None:
            learning.resume(state)
        if run_on(learning, cells, whales, whales, lambda: len(taken) in stops and not stops.remove(len(taken))):
            break
        state = learning.state()
    assert taken == list(range(local_contrast.STEPS)) and not stops
    again = learning.sight()
    assert np.array_equal(again.projection, undisturbed.projection) and set(again.layers) == set(undisturbed.layers) == {"top.0.weight", "top.0.bias", "top.1.weight", "top.1.bias"}
    assert all(np.array_equal(array, undisturbed.layers[name]) for name, array in again.layers.items())


def test_learning_is_the_same_again_and_another_with_another_seed():
    cells, whales = animals(6, 3, seed=0)
    one, same, other = (learned(cells, whales, whales, seed).projection for seed in (0, 0, 1))
    assert np.array_equal(one, same) and np.abs(one - other).max() > 0.01 * np.abs(one).max()


def test_a_loss_that_is_no_number_stops_the_learning():
    cells, whales = animals(6, 3, seed=0)
    learning = learning_of(cells)
    with pytest.raises(Failure, match="no number any more in step 1; train the model"):
        run_on(learning, np.full_like(cells, np.nan), whales, whales)


@pytest.mark.parametrize("groups", [np.arange(12), np.repeat([0, 1, 2, 3], 3)])
def test_with_hardly_any_animal_seen_twice_the_whitening_stays(groups, capsys):
    """No two photographs of one group; four groups, but of two animals or fewer."""
    cells, whales = animals(12, 1, seed=0)[0], groups // 2
    learning = learning_of(cells)
    assert run_on(learning, cells, groups, whales) and learning.sight() is learning.whitening
    assert "have two photographs from one side, and it takes 4 to learn" in capsys.readouterr().err


def test_a_step_draws_pairs_from_one_side_of_as_many_animals_as_it_may(monkeypatch):
    whales = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4])
    pairs = [np.flatnonzero(groups == number) for number in range(5)]
    monkeypatch.setattr(local_contrast, "PAIRS", 3)
    seen = set()
    for step in range(50):
        one, other = local_contrast.drawn(pairs, whales, np.random.default_rng(step))
        assert len(one) == 3 == len(set(whales[one])) and np.array_equal(groups[one], groups[other]) and not set(one) & set(other)
        seen |= set(groups[one])
    assert seen == set(range(5))


def test_what_is_learned_from_is_the_evidence_but_for_its_rounded_threshold(monkeypatch):
    cells = unit_cells(5, 16, d=3)
    own, others = torch.from_numpy(cells[0]).float(), torch.from_numpy(cells[1:]).float()
    monkeypatch.setattr(local_contrast, "ROUND", 1e5)
    one_way = local_contrast.in_common(own, others, places.beyond(16))
    back = torch.stack([local_contrast.in_common(other, own[None], places.beyond(16))[0] for other in others])
    assert np.allclose(one_way + back, [naive(cells[0], other, 4) for other in cells[1:]], atol=2e-3)


def test_the_loss_is_the_cross_entropy_of_evidence_in_units_of_its_spread():
    evidence = np.random.default_rng(0).random((5, 5))
    z = (evidence - evidence.mean(1, keepdims=True)) / evidence.std(1, ddof=1, keepdims=True) * local_contrast.SHARPNESS
    expected = -np.mean([z[i, i] - np.log(np.exp(z[i]).sum()) for i in range(5)])
    assert float(local_contrast.contrast(torch.from_numpy(evidence))) == pytest.approx(expected, abs=1e-4)
    assert torch.isfinite(local_contrast.contrast(torch.ones(4, 4)))


def test_a_group_is_an_animal_from_one_side_and_unknown_ones_are_alone():
    groups = local_fit.sides(np.array([0, 0, 0, 1, -1, -1, 1]), np.array(["left", "right", "left", "left", "left", "left", "left"]))
    same = groups[:, None] == groups
    assert same[0, 2] and same[3, 6] and same.sum() == 7 + 2 * 2


def test_of_too_many_photographs_as_many_animals_as_there_are_keep_a_pair():
    groups = np.concatenate([np.arange(100) % 10, np.arange(10, 60)])
    assert np.array_equal(local_fit.sample(groups, 0, 1000), np.arange(150))
    some = local_fit.sample(groups, 0, 36)
    assert len(some) == 36 and (np.diff(some) > 0).all() and not np.array_equal(some, local_fit.sample(groups, 1, 36))
    assert sorted(np.bincount(groups[some], minlength=60)) == [0] * 50 + [2] * 2 + [4] * 8
    assert (np.bincount(groups[local_fit.sample(groups, 0, 120)], minlength=60)[:10] == 10).all()


# A model that looks at places

@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained toy model that looks at places, its photographs, and scenarios over them."""
    root = tmp_path_factory.mktemp("local")
    data = toy.competition(root / "test")
    toy.scenarios(data).to_csv(root / "truth.csv", index=False)
    recipe_file = toying.write_recipe(root / "recipe.yaml", epochs=1, also={"predict": {"local_size": SIZE}})
    done = toying.train(recipe_file, data, root / "weights")
    assert done.code == 0, done.stderr
    return root


def predicted(run, output, *options, weights=None):
    words = ["--data", run / "test", "--weights", weights or run / "weights", "--output", output, "--device", "cpu", "--engine", "torch", "--workers", 0, "--no-cache", *options]
    predict.main([str(word) for word in words])
    return pd.read_csv(output)


def without_places(run, path):
    (path / "w").mkdir()
    for name in ("tiny.npz", "tiny.json"):
        (path / "w" / name).write_bytes((run / "weights" / name).read_bytes())
    return path / "w"


def fitted(monkeypatch, weights, data):
    monkeypatch.setattr("sys.argv", ["local_fit.py", "--weights", str(weights), "--data", str(data)])
    local_fit.main()


def test_training_leaves_what_the_command_makes_again(run, tmp_path, monkeypatch):
    """But for the last digits, which hang on the number of threads."""
    weights = without_places(run, tmp_path)
    fitted(monkeypatch, weights, run / "test")
    backbone = models.EmbeddingModel(recipe.read_spec(weights / "tiny.json").model).backbone
    one, other = (places.read_sight(folder / "local" / "tiny.npz", backbone) for folder in (run / "weights", weights))
    assert np.allclose(one.mean, other.mean, atol=1e-4) and set(one.layers) == set(other.layers)
    metric, again = (sight.projection @ sight.projection.T for sight in (one, other))
    assert np.abs(metric - again).max() < 1e-2 * np.abs(metric).max()


def test_a_time_limit_may_come_while_it_learns_and_the_rest_gives_the_same_bytes(run, tmp_path, monkeypatch):
    steps, learn = [], local_contrast.Learning.learn
    monkeypatch.setattr(local_contrast.Learning, "learn", lambda *words: steps.append(1) or learn(*words))
    monkeypatch.setattr(train, "timer", lambda started, limit: lambda: len(steps) == 3)
    stopped = toying.train(run / "recipe.yaml", run / "test", tmp_path / "w")
    assert stopped.code == 0 and "stopped by --time-limit in tiny" in stopped.stdout and not (tmp_path / "w" / "tiny.npz").exists()
    steps.append(1)
    monkeypatch.setattr(fitting.Fitting, "step", None)  # the epochs are not trained again
    assert toying.train(run / "recipe.yaml", run / "test", tmp_path / "w", "--resume").code == 0
    for name in ("tiny.npz", "local/tiny.npz"):
        assert (tmp_path / "w" / name).read_bytes() == (run / "weights" / name).read_bytes()
    assert len(steps) == 1 + local_contrast.STEPS  # none is taken twice


def test_a_trial_tells_what_learning_takes_with_so_many_photographs(run, monkeypatch):
    """In simulated time: 2 s a photograph, 1 s a step of the projection alone and 3 s with the layers, the first of each kind 50 s more."""
    spec, now, of, learn = recipe.read_spec(run / "weights" / "tiny.json"), [0.0], local_layers.Lower.of, local_contrast.Learning.learn

    def takes(seconds, result):
        now[0] += seconds
        return result

    monkeypatch.setattr(local_fit.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(local_layers.Lower, "of", lambda self, photographs, *words: takes(2 * len(photographs), of(self, photographs, *words)))
    monkeypatch.setattr(local_contrast.Learning, "learn", lambda self, *words: takes({0: 51, 1: 1, 200: 53, 201: 3}[self.step], learn(self, *words)))
    training = training_set(labelled(run / "test"), run / "test", spec)
    for count, read in ((1000, 1000), (10_000, local_fit.PHOTOGRAPHS)):
        assert local_fit.trial(models.load(spec, run / "weights"), spec, training, count) == pytest.approx(2 * read + 200 * 1 + 300 * 3)


def test_weights_that_never_look_at_places_are_one_line(run, tmp_path, monkeypatch):
    weights = without_places(run, tmp_path)
    (weights / "tiny.json").write_text((weights / "tiny.json").read_text().replace(f'"local_size": {SIZE}', '"local_size": null'))
    with pytest.raises(InputError, match="no model here has a predict.local_size; set it"):
        fitted(monkeypatch, weights, run / "test")


def test_cells_are_unit_vectors_and_left_ones_those_of_the_mirror_image(run, tmp_path):
    spec = recipe.read_spec(run / "weights" / "tiny.json")
    table = labelled(run / "test")
    eye = places.Eye(spec, run / "weights", "cpu")
    pixels = Pixels(table, run / "test", [local.view_of(spec)], 0)
    left = np.arange(len(table)) % 2 == 0
    cells, plain = eye.cells(pixels, left), eye.cells(pixels, np.zeros(len(table), bool))
    assert np.allclose(np.linalg.norm(cells.astype(float), axis=2), 1, atol=2e-3)
    assert np.array_equal(cells[~left], plain[~left])
    squares = pixels.held[local.view_of(spec)][left][:, :, ::-1]
    with torch.no_grad():
        maps = eye.engine.model(models.normalised(torch.from_numpy(squares.copy()), spec.model))
    assert np.allclose(cells[left].reshape(left.sum(), -1), maps.numpy(), atol=2e-3)


def test_what_is_learned_from_is_what_prediction_sees(run, tmp_path):
    """Of a table some of whose photographs show the left side; with the layers' weights as they were before they learned."""
    spec, table, weights = recipe.read_spec(run / "weights" / "tiny.json"), labelled(run / "test"), shutil.copytree(run / "weights", tmp_path / "w")
    training = training_set(table.assign(viewpoint=np.where(np.arange(len(table)) % 3, "right", "left")), run / "test", spec)
    left = local.mirrored(training.viewpoints)
    views = images.Photographs(training.photographs.paths, [local.view_of(spec)], training.photographs.boxes)
    lower = local_layers.Lower(models.load(spec, weights), spec)
    given = lower.of(views, left, local_fit.never)
    assert given.dtype == torch.float16 and len(given) == len(table) and given[0].numel() * 2 == lower.bytes
    sight = places.read_sight(weights / "local" / "tiny.npz", lower.backbone)
    places.write_sight(sight._replace(layers={}), weights / "local" / "tiny.npz")
    eye, pixels = places.Eye(spec, weights, "cpu"), Pixels(table, run / "test", [local.view_of(spec)], 0)
    seen = (lower.cells(given).numpy().astype(np.float32) - sight.mean) @ sight.projection
    seen /= np.linalg.norm(seen, axis=2, keepdims=True)
    assert left.any() and not left.all() and np.abs(seen - eye.cells(pixels, left)).max() < 0.1
    assert np.abs(seen - eye.cells(pixels, ~left)).max() > 0.5
    assert lower.of(views, left, lambda: True) is None


def spec_of(folder, backbone, stages):
    return toying.spec(toying.write_recipe(folder / "recipe.yaml", backbone=backbone, also={"model": {"stages": list(stages)}, "predict": {"local_size": SIZE}}))


@pytest.mark.parametrize("backbone, stages", [("tf_efficientnet_lite0", (3, 4)), ("resnet18", (2, 3)), ("convnext_atto", (2, 3))])
def test_the_layers_that_learn_are_those_that_make_the_map_of_what_they_are_given(tmp_path, backbone, stages):
    spec = spec_of(tmp_path, backbone, stages)
    model = models.EmbeddingModel(spec.model).eval()
    lower, images_seen = local_layers.Lower(model, spec), torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        maps = model.backbone(images_seen)[0]
        assert torch.allclose(lower.part(lower.given(images_seen).float()), maps, atol=2e-2 * float(maps.abs().max()))
    assert all(torch.equal(model.backbone.state_dict()[lower.prefix + name], value) for name, value in lower.part.state_dict().items())
    fewer = sum(value.numel() for value in lower.part.parameters())
    assert 0 < fewer < sum(value.numel() for value in model.backbone.parameters())


def test_where_no_layer_makes_the_map_only_the_projection_learns(tmp_path):
    spec = spec_of(tmp_path, "tf_efficientnet_lite0", (3, 4))
    model = models.EmbeddingModel(spec.model).eval()
    model.backbone.feature_info.info[3]["module"] = "elsewhere"
    lower, images_seen = local_layers.Lower(model, spec), torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        assert lower.prefix == "" and torch.equal(lower.part(lower.given(images_seen)), model.backbone(images_seen)[0].half())


def test_evidence_that_counts_nothing_is_not_looked_for(run, tmp_path, capsys):
    weights = shutil.copytree(run / "weights", tmp_path / "w")
    recipe.write_rank(recipe.Rank(evidence=0), weights)
    predicted(run, tmp_path / "none.csv", weights=weights)
    assert "local evidence" not in capsys.readouterr().out


def test_prediction_reorders_its_first_candidates_by_what_a_loop_finds(run, tmp_path, capsys):
    """A query's new list from its cosines and the loop's evidence, for every query."""
    submission = predicted(run, tmp_path / "s.csv", "--embeddings", tmp_path / "e")
    assert "ranks with tiny and local evidence" in capsys.readouterr().out
    spec = recipe.read_spec(run / "weights" / "tiny.json")
    way, models_there = routes.Way(), rank.read_embeddings(tmp_path / "e", None)
    table = labelled(run / "test").set_index("image_id")
    pixels = Pixels(table.reset_index(), run / "test", [local.view_of(spec)], 0)
    cells = dict(zip(table.index, places.Eye(spec, run / "weights", "cpu").cells(pixels, (table.viewpoint == "left").to_numpy(bool))))
    side = round(len(next(iter(cells.values()))) ** 0.5)
    rows = dict(zip(models_there[0][1]["image_id"], way.spaces(rank.read(run / "test"), models_there)[0][0].rows))
    for scenario in rank.read(run / "test"):
        for query_id, image_id in zip(scenario.query_ids, scenario.query_image_ids):
            others = [other for other in scenario.database_image_ids if other != image_id]
            cosines = np.array([float(rows[image_id] @ rows[other]) for other in others])
            found = np.array([naive(cells[image_id], cells[other], side) for other in others])
            z = lambda values: (values - values.mean()) / max(values.std(), 1e-12)
            expected = z(cosines) + recipe.Rank().evidence * (z(found) if found.std() > 1e-9 else 0)
            answers = submission[submission.query_id == query_id].database_image_id.tolist()
            value = dict(zip(others, expected))
            ranked = np.array([value[answer] for answer in answers])
            assert len(answers) == min(20, len(others)) and (np.diff(ranked) < 2e-2).all()


def test_the_same_command_writes_the_same_bytes_and_another_list_than_without(run, tmp_path):
    for name in ("one", "two"):
        predicted(run, tmp_path / f"{name}.csv")
    predicted(run, tmp_path / "without.csv", weights=without_places(run, tmp_path))
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes() != (tmp_path / "without.csv").read_bytes()


def test_where_the_whitening_is_lacking_or_not_the_models_it_is_told_and_the_cosine_ranks(run, tmp_path, capsys):
    weights = without_places(run, tmp_path)
    plain = json.loads((weights / "tiny.json").read_text())
    predicted(run, tmp_path / "lacking.csv", weights=weights)
    told = capsys.readouterr()
    assert "local evidence: left out" in told.err and "tiny.npz" in told.err and "local evidence" not in told.out
    plain["predict"]["local_size"] = None
    (weights / "tiny.json").write_text(json.dumps(plain))
    predicted(run, tmp_path / "never.csv", weights=weights)
    assert (tmp_path / "lacking.csv").read_bytes() == (tmp_path / "never.csv").read_bytes()
    with pytest.raises(InputError, match="local/tiny.npz"):
        predicted(run, tmp_path / "strict.csv", "--strict", weights=lacking_again(weights, plain))


def lacking_again(weights, plain):
    plain["predict"]["local_size"] = SIZE
    (weights / "tiny.json").write_text(json.dumps(plain))
    return weights


@pytest.mark.parametrize("mean, projection", [(np.zeros(3, np.float32), np.zeros((3, 2), np.float32)), (np.zeros(3, np.float32), np.zeros(3, np.float32)),
                                              (np.full(48, np.nan, np.float32), np.zeros((48, 4), np.float32)), (np.array("x"), np.array("y"))])
def test_a_whitening_that_is_not_the_models_is_one_line(run, tmp_path, mean, projection):
    np.savez(tmp_path / "m.npz", mean=mean, projection=projection)
    with pytest.raises(InputError, match=r"m\.npz: needs finite mean \(48\)"):
        places.read_sight(tmp_path / "m.npz", backbone_of(run))


def backbone_of(run):
    return models.load(recipe.read_spec(run / "weights" / "tiny.json"), run / "weights").backbone


@pytest.mark.parametrize("change", [lambda name, array: {name: array[:1]}, lambda name, array: {name: np.full_like(array, np.inf)}, lambda name, array: {name: array.astype(int)},
                                    lambda name, array: {name + "x": array}, lambda name, array: {name[9:]: array}])
def test_layers_that_are_not_the_models_are_one_line(run, tmp_path, change):
    with np.load(run / "weights" / "local" / "tiny.npz") as file:
        found = dict(file)
    name = next(name for name in found if name.startswith("backbone/"))
    np.savez(tmp_path / "m.npz", **{**{other: array for other, array in found.items() if other != name}, **change(name, found[name])})
    with pytest.raises(InputError, match=r"m\.npz: array .* is none of this model's layers"):
        places.read_sight(tmp_path / "m.npz", backbone_of(run))


def test_a_packed_submission_looks_too(run, tmp_path):
    done = packed(run, tmp_path / "s.zip", "--precision", "full")
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "alone")
        assert f"`tiny` looks at {SIZE} px" in archive.read("MODEL_CARD.md").decode()
    assert {"weights/local/tiny.npz", "solution/local.py", "solution/places.py"} <= set(names) and "solution/local_fit.py" not in names
    (tmp_path / "alone" / "data").symlink_to(run / "test")
    done = main(tmp_path / "alone", SUBMISSION_TIME_LIMIT="5000", HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0 and "and local evidence" in done.stdout, done.stderr
    answers, expected = pd.read_csv(tmp_path / "alone" / "submission" / "submission.csv"), predicted(run, tmp_path / "here.csv")
    assert (answers.database_image_id == expected.database_image_id).mean() > 0.98  # another engine has other last digits


def test_depth_grows_only_with_evidence():
    way = routes.Way(recipe.Rank(candidates=50))
    assert way.depth == ties.TOP
    way.evidence = object()
    assert way.depth == 50


@pytest.mark.benchmark_suite
@pytest.mark.benchmark(group="a query's 100 candidates at 384 px, so many at once")
@pytest.mark.parametrize("together", [1, places.TOGETHER, 100])
def test_benchmark_of_comparing_places(benchmark, monkeypatch, together):
    monkeypatch.setattr(places, "TOGETHER", together)
    cells = torch.from_numpy(unit_cells(101, 400, d=64)).float()
    benchmark(places.shared, cells[0], cells[1:], places.beyond(400))
