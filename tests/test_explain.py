"""Heat maps of pairs: their similarity and gradient against rank.py and finite differences, planted marks, every backbone, the command."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import toy
import toy_names
from solution import embed, explain, fusion, images, models, overlay, pairs, predict, recipe, ties, weights
from solution.files import STRICT, InputError
from solution.heat import Heat, combined, look, similarity
from test_embed import ROOT, SPECS, command, embedded, ensemble, tiny

AREA = 1 / 16  # of the planted marks


def noise(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def heat_of(folder, *specs, device="cpu"):
    return Heat(specs, ensemble(folder, *specs), device)


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """test/ (24 photographs, two scenarios), weights/ (three models that differ in size and joining) and submission.csv."""
    fold = tmp_path_factory.mktemp("fold")
    toy.scenarios(toy.competition(fold / "test"))
    ensemble(fold / "weights", *SPECS)
    with pytest.MonkeyPatch.context() as patch:
        command(predict.main, patch, "--data", fold / "test", "--weights", fold / "weights", "--output", fold / "submission.csv", "--workers", 0)
    return fold


def explained(fold, output, monkeypatch, *options):
    command(explain.main, monkeypatch, "--data", fold / "test", "--weights", fold / "weights", "--submission", fold / "submission.csv",
            "--output", output, "--workers", 0, *options)
    return pd.read_csv(output / "pairs.csv", dtype={"similarity": str})


# The similarity

@pytest.mark.parametrize("mirrors", [("concatenate", "off"), ("average", "concatenate"), ("off", "average")])
def test_the_similarity_of_tensors_is_the_cosine_that_rankings_use(mirrors):
    random = np.random.default_rng(0)
    said = [recipe.Predict(mirror=mirror, normalise=normalise, weight=weight) for mirror, normalise, weight in zip(mirrors, (True, False), (0.3, 2.0))]
    parts = [{kind: random.normal(size=(8, width)).astype(np.float32) for kind in ("plain", "mirror")} for width in (5, 7)]
    parts[0]["plain"][3] = parts[0]["mirror"][3] = 0
    rows = fusion.combined(list(zip(said, copy.deepcopy(parts))))
    found = combined([(each, *([torch.from_numpy(part[kind]) for kind in ("plain", "mirror")][: 1 if each.mirror == "off" else 2])) for each, part in zip(said, parts)])
    np.testing.assert_allclose(found, rows, atol=1e-6)
    np.testing.assert_allclose(similarity(found), ties.exact(rows[:4], rows[4:], np.arange(4), np.arange(4)), atol=1e-6)


def test_the_cosines_are_those_of_the_saved_embeddings(fold):
    found, specs = embedded(fold / "test", fold / "weights"), recipe.specs(fold / "weights")
    rows = fusion.combined([(spec.predict, found[spec.name]) for spec in specs])
    photographs = images.Photographs(images.listed(fold / "test").path, [embed.view_of(spec) for spec in specs])
    squares = [torch.from_numpy(np.stack(each)) for each in zip(*(photographs[number] for number in range(24)))]
    asked = np.random.default_rng(0).integers(0, 24, (30, 2))
    cosine, _ = Heat(specs, fold / "weights", "cpu")(squares, asked)
    np.testing.assert_allclose(cosine, (rows[asked[:, 0]] * rows[asked[:, 1]]).sum(axis=1), atol=1e-5)


# The gradient

class Double(models.GeM):
    """The pooling without its float32."""

    def forward(self, maps):
        return maps.clamp(min=1e-6).pow(self.p).mean(dim=(2, 3)).pow(1 / self.p)


@pytest.mark.parametrize("differences", [{}, {"parts": 2, "part_width": 6, "stages": [2, 4]}])
def test_the_gradient_is_that_of_finite_differences(differences):
    spec = tiny("m", 0, 64, model=differences)
    torch.manual_seed(0)
    model = models.EmbeddingModel(spec.model).double().eval().requires_grad_(False)
    model.pooling = Double(spec.model.gem_p)
    pixels, rows = torch.rand(3, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 0, 1, 2])

    def cosines(maps):
        with model.backbone.register_forward_hook(lambda *_: maps):
            return similarity(combined([(recipe.Predict(mirror="off"), model(pixels))]))

    maps = look(model, pixels, rows).maps
    slopes = torch.autograd.grad(cosines(maps).sum(), maps)
    for stage, slope in enumerate(slopes):
        directions = torch.randn(5, *slope.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(stage))
        for direction in directions:
            up, down = ([*maps[:stage], maps[stage].detach() + step * direction, *maps[stage + 1 :]] for step in (1e-6, -1e-6))
            difference = (cosines(up).sum() - cosines(down).sum()).detach() / 2e-6
            assert float(difference) == pytest.approx(float((slope * direction).sum()), rel=1e-4, abs=1e-8)


def test_the_heat_of_a_map_sums_to_what_raises_the_similarity_of_what_is_pooled(tmp_path):
    """Generalised means are homogeneous: the places' shares add up to pooled x gradient, channel by channel."""
    spec = tiny("m", 0, 64, model={"stages": [4]}, predict={"mirror": "off"})
    heat, squares = heat_of(tmp_path, spec), torch.from_numpy(noise(2, 64))
    _, found = heat([squares], np.array([[0, 1]]))
    model = heat.models[0]
    with torch.no_grad():
        pooled = model.pooling(model.backbone(models.normalised(squares, spec.model))[0])
    pooled.requires_grad_()
    similarity(combined([(spec.predict, model.necks[0](pooled))])).sum().backward()
    expected = (pooled * pooled.grad).detach().clamp(min=0).sum(dim=1)
    np.testing.assert_allclose(found[0.0][0].sum(axis=(1, 2)), expected, rtol=1e-3)


def test_mirror_images_give_mirrored_heat_and_the_same_similarity(tmp_path):
    heat = heat_of(tmp_path, tiny("a", 0, 64), tiny("b", 1, 64, predict={"mirror": "average"}))
    squares, asked = torch.from_numpy(noise(4, 64)), np.array([[0, 1], [2, 3]])
    cosine, found = heat([squares] * 2, asked)
    turned_cosine, turned = heat([squares.flip(2)] * 2, asked)
    np.testing.assert_allclose(cosine, turned_cosine, atol=1e-5)
    np.testing.assert_allclose(found[0.0], turned[0.0][..., ::-1], atol=1e-3 * found[0.0].max())
    assert np.abs(found[0.0] - turned[0.0]).max() > 0.1 * found[0.0].max()


def test_one_pair_at_a_time_gives_the_heat_of_all_at_once(tmp_path):
    heat, squares = heat_of(tmp_path, tiny("a", 0, 64), tiny("b", 1, 64, model={"parts": 2})), torch.from_numpy(noise(5, 64))
    asked = np.array([[0, 1], [0, 2], [3, 0], [4, 4], [1, 0]])
    cosine, found = heat([squares] * 2, asked)
    for number, pair in enumerate(asked):
        own, alone = heat([squares[np.unique(pair)]] * 2, np.searchsorted(np.unique(pair), pair)[None])
        assert own[0] == pytest.approx(cosine[number], abs=1e-5)
        np.testing.assert_allclose(alone[0.0][0], found[0.0][number], atol=1e-5)
    np.testing.assert_allclose(found[0.0][0], found[0.0][4][::-1], atol=1e-6)  # the same pair the other way round


def test_embeddings_that_are_not_finite_are_like_nothing_as_in_rankings(tmp_path):
    specs, squares, asked = (tiny("sound", 0, 64), tiny("broken", 1, 64)), torch.from_numpy(noise(3, 64)), np.array([[0, 1], [0, 2]])
    heat = heat_of(tmp_path, *specs)
    heat.models[1].necks[0][0].weight[0] = float("nan")
    cosine, found = heat([squares] * 2, asked)
    alone, expected = Heat(specs[:1], tmp_path, "cpu")([squares], asked)
    np.testing.assert_allclose(cosine, alone, atol=1e-6)
    np.testing.assert_allclose(found[0.0], expected[0.0], atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_gives_the_heat_of_a_cpu(tmp_path):
    specs, squares, asked = (tiny("a", 0, 64), tiny("b", 1, 64, model={"parts": 2})), torch.from_numpy(noise(3, 64)), np.array([[0, 1], [0, 2]])
    both = [heat_of(tmp_path / device, *specs, device=device)([squares] * 2, asked) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(both[0][0], both[1][0], atol=1e-3)
    np.testing.assert_allclose(both[0][1][0.0], both[1][1][0.0], atol=0.02 * both[0][1][0.0].max())


# Planted marks

def mark(kind, side):
    """Red squares on black, or green and blue rings."""
    down, across = np.mgrid[:side, :side]
    if kind == "squares":
        on = (across // (side // 6) + down // (side // 6)) % 2 * 255
        return np.stack([on, 0 * on, 0 * on], axis=2).astype(np.uint8)
    on = (np.sin(np.hypot(across - side / 2, down - side / 2) * 8 * np.pi / side) > 0) * 255
    return np.stack([0 * on, on, 255 - on], axis=2).astype(np.uint8)


def quarter(corner, size):
    """The rows and columns of a corner, 0 to 3, a quarter of the sides."""
    edge = size // 4
    return [slice(size - edge, size) if far else slice(0, edge) for far in (corner // 2, corner % 2)]


def planted(size, seed, marks):
    """Grey noise with marks by corner."""
    image = np.random.default_rng(seed).normal(128, 40, (size, size, 3)).clip(0, 255).astype(np.uint8)
    for corner, kind in marks.items():
        image[tuple(quarter(corner, size))] = mark(kind, size // 4)
    return image


def share(heat, corner):
    return heat[tuple(quarter(corner, heat.shape[1]))].sum() / heat.sum()


@pytest.fixture(scope="module", params=["pretrained", "random"])
def planted_heat(request, tmp_path_factory):
    """An ImageNet backbone, or a tiny one of random weights; their maps are 16 and 8 places wide."""
    size = 256 if request.param == "pretrained" else 128
    differences = {"backbone": "tf_efficientnet_lite0", "pretrained": "embedded", "mean": [0.5] * 3, "std": [0.5] * 3} if request.param == "pretrained" else {}
    spec, folder = tiny("m", 0, size, model=differences), tmp_path_factory.mktemp("planted")
    if request.param == "random":
        return heat_of(folder, spec)
    model = models.EmbeddingModel(spec.model)
    weights.load_pretrained(model, spec.model)
    models.save(model, spec, folder)
    return Heat([spec], folder, "cpu")


@pytest.mark.parametrize("kind", ["squares", "rings"])
def test_a_mark_that_both_images_share_is_where_the_heat_is_in_any_corner(planted_heat, kind):
    """Four pairs; the query's mark is in each corner once, the match's in the next one."""
    size = planted_heat.specs[0].test_size
    pictures = [planted(size, seed, {seed // 2 if seed % 2 == 0 else (seed // 2 + 1) % 4: kind}) for seed in range(8)]
    _, found = planted_heat([torch.from_numpy(np.stack(pictures))], np.arange(8).reshape(4, 2))
    shares = [[share(both[0], corner), share(both[1], (corner + 1) % 4)] for corner, both in enumerate(found[0.0])]
    assert np.min(shares) > 2.5 * AREA and np.mean(shares) > 4 * AREA


def test_the_heat_moves_with_the_partner_to_the_mark_that_it_shares(planted_heat):
    """A query with both marks in opposite corners, and a partner with each."""
    size, moved = planted_heat.specs[0].test_size, []
    for corner in range(4):
        other = 3 - corner
        pictures = [planted(size, corner, {corner: "squares", other: "rings"}), planted(size, 10, {(corner + 1) % 4: "squares"}), planted(size, 11, {(corner + 1) % 4: "rings"})]
        _, found = planted_heat([torch.from_numpy(np.stack(pictures))], np.array([[0, 1], [0, 2]]))
        with_squares, with_rings = found[0.0][:, 0]
        moved.append([share(with_squares, corner) / share(with_rings, corner), share(with_rings, other) / share(with_squares, other)])
        assert share(with_squares, corner) > share(with_squares, other) and share(with_rings, other) > share(with_rings, corner)
    assert np.min(moved) > 1.5


# Every backbone

def measure_statistics(model, pixels):
    """Batch normalisation as after training; without it random activations die out on their way through a deep network."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(pixels)
    model.eval()


def check(spec, monkeypatch):
    """Random weights give finite heat that changes with the partner, on the grid of the finest map."""
    torch.manual_seed(0)
    model = models.EmbeddingModel(spec.model)
    squares = torch.from_numpy(np.stack([planted(spec.test_size, 0, {0: "squares"}), planted(spec.test_size, 1, {1: "squares"}), planted(spec.test_size, 2, {3: "rings"})]))
    measure_statistics(model, models.normalised(squares, spec.model))
    monkeypatch.setattr(models, "load", lambda *_: model)  # without the detour by the disk
    cosine, found = Heat([spec], Path("nowhere"), "cpu")([squares], np.array([[0, 1], [0, 2]]))
    hot = found[spec.model.box_margin]
    with torch.no_grad():
        finest = max(each.shape[3] for each in model.backbone(models.normalised(squares[:1], spec.model)))
    assert hot.shape == (2, 2, finest, finest) and np.isfinite(hot).all() and (hot >= 0).all() and (np.abs(cosine) <= 1.001).all()
    assert (hot.max(axis=(2, 3)) > 0).all()
    shares = hot / hot.sum(axis=(2, 3), keepdims=True)
    assert np.abs(shares[0, 0] - shares[1, 0]).max() > 0.01 * shares.max()


STRIPED = {"stages": [4], "parts": 4, "part_width": 16, "gem_p": 3.74, "grey": True}
FAMILIES = [("tf_efficientnet_lite0", {}), ("tf_efficientnetv2_b0", {}), ("vgg11_bn", {**STRIPED, "stages": [5]}), ("resnet18", STRIPED),
            ("seresnext26d_32x4d", STRIPED), ("densenet121", STRIPED)]


@pytest.mark.parametrize("backbone, differences", FAMILIES)
def test_each_family_of_backbones_gives_heat(monkeypatch, backbone, differences):
    check(tiny("m", 0, 128, model={"backbone": backbone, **differences}), monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name, model", [(name, spec.name) for name in ("whaledo", "hwi") for spec in recipe.load(name).models])
def test_every_published_backbone_gives_heat(monkeypatch, name, model):
    spec = next(each for each in recipe.load(name).models if each.name == model)
    check(recipe.built(recipe.Spec, recipe.merged(recipe.plain(spec), {"train": {"size": 192}})), monkeypatch)


# The picture

@pytest.mark.parametrize("box", [None, (10.4, 5.6, 50.2, 30.9), (-20, -5, 300, 200), (500, 500, 600, 600)])
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_a_frame_is_where_the_models_crop(box, margin):
    photograph = Image.fromarray(noise(1, 90)[0][:60])
    expected = images.cropped(photograph, box, margin)
    np.testing.assert_array_equal(np.asarray(photograph.crop(overlay.frame(photograph.size, box, margin))), np.asarray(expected))


def test_heat_lies_on_the_crop_of_its_margin(tmp_path):
    """Left column hot for the close crop, bottom row for the wide one, on a box of 40 x 20 pixels moved out by a quarter."""
    Image.fromarray(noise(1, 100)[0]).save(tmp_path / "p.png")
    close, wide = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    close[:, 0] = wide[3] = 1
    crop, hot = overlay.on_crop(tmp_path / "p.png", (30, 40, 70, 60), {0.0: close, 0.25: 0 * wide})
    assert crop.size == hot.shape[::-1] == (overlay.SIDE, overlay.SIDE // 2)
    left = overlay.SIDE // 6  # where the close crop begins
    assert not hot[:, :left - 1].any() and hot[80, left + 2] > 0.9 and not hot[:25].any() and not hot[-25:].any()
    assert overlay.on_crop(tmp_path / "p.png", (30, 40, 70, 60), {0.0: 0 * close, 0.25: wide})[1].argmax() // overlay.SIDE > 130
    crop, hot = overlay.on_crop(tmp_path / "p.png", (-90, -90, -10, -10), {0.0: close, 0.25: wide})  # only the wide one meets the photograph
    assert crop.size == (overlay.SIDE, overlay.SIDE) and hot[300, 10] > 0.9 and hot[20, 25] > 0.9 and not hot[100:, 200:].any()


def test_a_picture_shows_both_photographs_and_their_heat_at_their_aspect(tmp_path):
    for name, size in (("a", (40, 80)), ("b", (90, 30))):
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / f"{name}.png")
    hot = np.zeros((2, 8, 8), np.float32)
    hot[0, 0, 0], hot[1, 7, 7] = 1, 1
    sides = list(pd.DataFrame({"path": [tmp_path / "a.png", tmp_path / "b.png"], "box": pd.Series([None, None], dtype=object)}).itertuples())
    picture = np.asarray(Image.open(overlay.draw(sides, {0.0: hot}, tmp_path / "p.jpg"))).astype(int)
    assert picture.shape == (3 * 8 + 2 * 320, 3 * 8 + 160 + 320, 3)
    assert np.abs(picture[160, 80] - (200, 30, 30)).max() < 10  # as it is
    below = picture[16 + 320 : 16 + 640, 8:168]
    grey = below.max(axis=2) - below.min(axis=2) < 20
    assert not grey[:20, :10].any() and grey[160:, 80:].all()
    below = picture[16 + 320 : 16 + 320 + 107, 176:496]
    grey = below.max(axis=2) - below.min(axis=2) < 20
    assert not grey[-6:, -18:].any() and grey[:50, :160].all()


# Which pairs

def submission(folder, rows, header="query_id,database_image_id,score"):
    (folder / "s.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return folder / "s.csv"


def test_pairs_are_the_first_by_score_of_evenly_spread_queries(fold):
    table = pd.read_csv(fold / "submission.csv")
    candidates = pairs.of_ranking(fold / "test", fold / "submission.csv", pairs.Wish(None, 5), STRICT)
    there = list(dict.fromkeys(table.query_id))
    expected = [(query, place + 1, row) for query in (there[0], there[len(there) // 3], there[2 * len(there) // 3])
                for place, row in enumerate(table[table.query_id == query].database_image_id[:2])][:5]
    ids = candidates.photographs.image_id.to_numpy()
    assert list(zip(candidates.table.query_id, candidates.table.place, ids[candidates.table.match])) == expected
    assert all(query.endswith(image) for query, image in zip(candidates.table.query_id, ids[candidates.table["query"]]))


def test_rows_in_any_order_count_by_score_and_named_queries_share_the_pairs(fold, tmp_path):
    table = pd.read_csv(fold / "submission.csv", dtype=str)
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "s.csv", index=False)
    queries = list(table.query_id.unique()[[4, 1]])
    found = pairs.of_ranking(fold / "test", tmp_path / "s.csv", pairs.Wish(queries, 7), STRICT)
    ids = found.photographs.image_id.to_numpy()
    for query in queries:
        own = found.table[found.table.query_id == query]
        assert list(ids[own.match]) == list(table[table.query_id == query].database_image_id[:3]) and list(own.place) == [1, 2, 3]
    assert len(found.table) == 6


# The command

def test_the_command_writes_the_pairs_with_the_cosines_of_the_submission(fold, tmp_path, monkeypatch, capsys):
    table = explained(fold, tmp_path / "e", monkeypatch, "--pairs", 10)
    assert list(table) == "query_id query_image_id database_image_id place similarity picture".split() and len(table) == 10
    assert table.similarity.str.fullmatch(r"-?[01]\.\d{6}").all() and capsys.readouterr().out == f"{tmp_path / 'e'}: 10 pairs of 5 queries\n"
    scores = pd.read_csv(fold / "submission.csv").merge(table, on=["query_id", "database_image_id"])
    np.testing.assert_allclose(2 * scores.score - 1, scores.similarity.astype(float), atol=1e-5)
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"pairs.csv", *table.picture} and table.picture.is_unique
    assert all(Image.open(tmp_path / "e" / name).format == "JPEG" for name in table.picture)


def test_a_second_run_replaces_the_first_with_the_same_bytes(fold, tmp_path, monkeypatch):
    explained(fold, tmp_path / "e", monkeypatch, "--pairs", 20)
    first = {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()}
    explained(fold, tmp_path / "e", monkeypatch, "--pairs", 4)
    assert len(list((tmp_path / "e").iterdir())) == 5
    explained(fold, tmp_path / "e", monkeypatch, "--pairs", 20, "--workers", 1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "e").iterdir()} == first
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


@pytest.mark.parametrize("made", [lambda path: path.write_text("mine"), lambda path: path.mkdir(), lambda path: other(path, "notes.txt", "mine"),
                                  lambda path: other(path, "pairs.csv", "a,b\n"), lambda path: path.symlink_to(path.parent)])
def test_what_is_no_explanation_is_never_replaced(fold, tmp_path, monkeypatch, made):
    made(tmp_path / "e")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="is there already and is no explanation"):
        explained(fold, tmp_path / "e", monkeypatch)
    assert sorted(tmp_path.rglob("*")) == before


def other(path, name, text):
    path.mkdir()
    (path / "pairs.csv").write_text("query_id,query_image_id,database_image_id,place,similarity,picture\n")
    (path / name).write_text(text)


def test_a_run_that_fails_leaves_the_earlier_explanation(fold, tmp_path, monkeypatch):
    explained(fold, tmp_path / "e", monkeypatch, "--pairs", 2)
    before = (tmp_path / "e" / "pairs.csv").read_bytes()
    monkeypatch.setattr(explain, "draw", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explained(fold, tmp_path / "e", monkeypatch, "--pairs", 4)
    assert (tmp_path / "e" / "pairs.csv").read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_photograph_that_cannot_be_read_costs_only_its_pairs(fold, tmp_path, monkeypatch, capsys):
    whole = explained(fold, tmp_path / "whole", monkeypatch, "--pairs", 12)
    shutil.copytree(fold / "test", tmp_path / "test")
    broken = whole.database_image_id[3]
    (tmp_path / "test" / "images" / f"{broken}.jpg").write_bytes(b"broken")
    for name in ("weights", "submission.csv"):
        (tmp_path / name).symlink_to(fold / name)
    found = explained(tmp_path, tmp_path / "e", monkeypatch, "--pairs", 12)
    kept = whole[(whole.query_image_id != broken) & (whole.database_image_id != broken)]
    assert list(zip(found.query_id, found.place)) == list(zip(kept.query_id, kept.place)) and 0 < len(found) < 12
    np.testing.assert_allclose(found.similarity.astype(float), kept.similarity.astype(float), atol=2e-6)
    assert f"{broken}.jpg: not a readable image" in capsys.readouterr().err


def test_a_query_that_is_its_own_answer_has_a_picture_all_the_same(fold, tmp_path, monkeypatch):
    query = pd.read_csv(fold / "submission.csv").query_id[0]
    path = submission(tmp_path, [(query, query.split("-")[1], 1.0)])
    table = explained(fold, tmp_path / "e", monkeypatch, "--submission", path)
    assert list(table.similarity) == ["1.000000"] and (tmp_path / "e" / table.picture[0]).stat().st_size > 1000


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A fold of names, with a submission by two models, one of them of stripes."""
    fold = toy_names.fold(tmp_path_factory.mktemp("named"), tiny("bare", 0, 32), toy_names.striped("striped", 1, 64))
    with pytest.MonkeyPatch.context() as patch:
        command(predict.main, patch, "--data", fold / "test", "--weights", fold / "weights", "--output", fold / "submission.csv", "--workers", 0)
    return fold


def test_names_are_explained_by_their_most_similar_photograph(named, tmp_path, monkeypatch):
    found = explained(named, tmp_path / "e", monkeypatch, "--gallery", named / "train", "--pairs", 8)
    names = dict(pd.read_csv(named / "submission.csv").itertuples(index=False))
    known = pd.read_csv(named / "train" / "metadata.csv", dtype=str).set_index("image_id")
    specs = recipe.specs(named / "weights")
    asked, there = (embedded(named / part, named / "weights") for part in ("test", "train"))
    rows = [fusion.combined([(spec.predict, each[spec.name]) for spec in specs]) for each in (asked, there)]
    cosine = pd.DataFrame(rows[0] @ rows[1].T, asked["bare"]["image_id"], there["bare"]["image_id"])
    for row in found.itertuples():
        whale = names[row.query_id].split()[row.place - 1]
        of_whale = cosine.loc[row.query_image_id, known.index[known.whale_id == whale]]
        assert row.database_image_id == of_whale.idxmax() and float(row.similarity) == pytest.approx(of_whale.max(), abs=1e-4)
    assert len(found) == 8 and "new_whale" not in known.whale_id


# Bad input

@pytest.mark.parametrize("rows, options, words", [
    ([("q", "d", "high")], (), "s.csv: line 2: score 'high' is not a number"),
    ([("q", "d", 0.5)], (), "s.csv: query q or its answer d is not in"),
    ([], (), "s.csv: answers no query"),
    ([("q", "d", 0.5)], ("--queries", "r"), "--queries: "),
    ([("q", "d", 0.5)], ("--pairs", 0), "--pairs: must be 1 or more"),
])
def test_bad_input_is_named(fold, tmp_path, monkeypatch, rows, options, words):
    with pytest.raises(InputError, match=words):
        explained(fold, tmp_path / "e", monkeypatch, "--submission", submission(tmp_path, rows), *options)
    assert not (tmp_path / "e").exists()


def test_data_without_scenarios_are_told_of_the_gallery_in_one_line(fold, tmp_path):
    (tmp_path / "data").mkdir()
    path = submission(tmp_path, [("a.jpg", "w1 w2")], "Image,Id")
    words = ["--data", tmp_path / "data", "--weights", fold / "weights", "--submission", path, "--output", tmp_path / "e"]
    done = subprocess.run([sys.executable, "-m", "solution.explain", *map(str, words)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "has no query_scenarios.csv; for names give --gallery" in done.stderr


def test_a_gallery_without_individuals_and_a_name_of_no_photograph_are_told(named, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="test/metadata.csv: column whale_id is missing"):
        explained(named, tmp_path / "e", monkeypatch, "--gallery", named / "test")
    whale = pd.read_csv(named / "train" / "metadata.csv").whale_id.dropna().iloc[0]
    path = submission(tmp_path, [("a.jpg", whale)], "Image,Id")
    with pytest.raises(InputError, match="s.csv: a.jpg is no photograph of"):
        explained(named, tmp_path / "e", monkeypatch, "--submission", path, "--gallery", named / "train")


def test_help_comes_without_torch():
    code = "import sys; from solution import explain; sys.argv = ['explain', '--help']\n" \
           "try: explain.main()\nfinally: print(sorted({'torch', 'timm', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "example: python -m solution.explain" in done.stdout and done.stdout.endswith("[]\n") and done.returncode == 0
