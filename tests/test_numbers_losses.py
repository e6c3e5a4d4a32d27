"""Every head and loss on odd embeddings and labels against float64, and pooling at its ends: losses and slopes are numbers, or are told to be none."""

import itertools

import numpy as np
import pytest
import torch

from solution import models, recipe, sound
from solution.files import InputError
from solution.heads import dynamic_margins, with_angular_margin
from solution.losses import Objective

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

KINDS, LOSSES = ("arcface", "cosface", "linear", "lgm"), ("cross_entropy", "focal", "bce")
COUNTS = torch.tensor([1, 4, 2, 0, 9])  # no image of the fourth class is left
PARTS, WIDTH, SPECIES = 2, 4, 3
EXTRAS = {"ring": 0.1, "centre": 0.2, "total": True, "species": True}
SETTINGS = {"as published": {}, "a scale of 10,000": {"scale": 1e4}, "margins near pi": {"margin_scale": 0.0, "margin_offset": np.pi - 0.05},
            "margins beyond pi": {"margin_scale": 0.0, "margin_offset": 5.0}}
LABELS = {"mixed": [0, 1, 2, 4, 4, -1], "all of one class": [1] * 6, "all unknown": [-1] * 6, "a class without images": [3] * 6}


def objective(kind, loss, settings={}, seed=0):
    torch.manual_seed(seed)
    return Objective(PARTS, WIDTH, COUNTS, SPECIES, recipe.Head(kind=kind, loss=loss, **EXTRAS, **settings))


def embeddings(made, sort):
    """Six rows of an odd sort, (6, 8)."""
    rows = torch.randn(6, PARTS * WIDTH, generator=torch.Generator().manual_seed(1))
    centres = [head.weight if hasattr(head, "weight") else head[1].weight for head in made.heads]
    own = torch.cat([weight.detach()[[0, 1, 2, 3, 4, 0]] for weight in centres], dim=1)
    unit = rows / rows.norm(dim=1, keepdim=True)
    return {"zero": 0 * rows, "identical": rows[:1].repeat(6, 1), "ordinary": rows, "a centre": 3 * own, "opposite to a centre": -3 * own,
            "norm 1e-30": 1e-30 * unit, "norm 1e10": 1e10 * unit, "norm 1e30": 1e30 * unit, "infinite": np.inf * rows, "no numbers": np.nan * rows}[sort]


def true_logits(head, kind, x, labels, settings):
    """In float64, from the formulas; a row shorter than 1e-12 has hardly a direction."""
    weight = (head[1].weight if kind == "linear" else head.weight).detach().double().numpy()
    true = np.arange(len(COUNTS)) == labels[:, None]
    told = recipe.Head(kind=kind, **settings)
    margin = told.margin_scale * np.maximum(COUNTS.numpy(), 1.0) ** told.margin_power + told.margin_offset
    if kind == "linear":
        return x @ weight.T + head[1].bias.detach().double().numpy()
    if kind == "lgm":
        return -((x[:, None] - weight) ** 2).sum(axis=2) / 2 * np.where(true, 1 + margin, 1)
    unit = lambda rows: rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    cosine = (unit(x) @ unit(weight).T).clip(-1, 1).reshape(len(x), len(COUNTS), -1).max(axis=2)
    beyond = cosine - margin * np.sin(np.pi - margin)
    lowered = cosine - margin if kind == "cosface" else np.where(cosine > np.cos(np.pi - margin), np.cos(np.arccos(cosine) + margin), beyond)
    return told.scale * np.where(true, lowered, cosine)


def true_classification(logits, labels, loss="cross_entropy"):
    if loss == "bce":
        signs = np.where(np.arange(logits.shape[1]) == labels[:, None], -1, 1)
        return np.logaddexp(0, signs * logits).sum() / len(labels)
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    own = log_p[np.arange(len(labels)), labels]
    own = own * (1 - np.exp(own)) ** 2 if loss == "focal" else own
    return -np.where(labels < 0, log_p.mean(axis=1), own).mean()


def true_loss(made, kind, loss, x, labels, species, settings):
    total = 0.0
    for head, part in zip(made.heads, np.split(x, PARTS, axis=1)):
        total += true_classification(true_logits(head, kind, part, labels, settings), labels, loss)
        total += EXTRAS["ring"] * ((np.linalg.norm(part, axis=1) - 1.5) ** 2).mean()
        total += EXTRAS["centre"] * 0.5 * (part[labels >= 0] ** 2).sum() / max((labels >= 0).sum(), 1)
    for linear, wanted in ((made.total[1], labels), (made.species[1], species)):
        weight, bias = (tensor.detach().double().numpy() for tensor in (linear.weight, linear.bias))
        total += true_classification(x @ weight.T + bias, wanted)
    return total


def gradients(made, x, labels, species):
    """The loss, and the gradients of the embeddings and of everything that learns."""
    x = x.clone().requires_grad_()
    loss = made(x, labels, species)
    loss.backward()
    return loss, [x.grad, *(parameter.grad for parameter in made.parameters())]


@pytest.mark.parametrize("kind, setting", [*itertools.product(KINDS[:2], SETTINGS), *((kind, "as published") for kind in KINDS[2:]), ("lgm", "margins beyond pi")])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_odd_embeddings_and_labels_are_those_of_float64_and_their_gradients_finite(kind, loss, setting):
    species = torch.tensor([0, 1, 2, 0, 0, 0])
    for sort, labels in itertools.product(("zero", "identical", "ordinary", "a centre", "opposite to a centre", "norm 1e-30", "norm 1e10"), LABELS.values()):
        made, labels = objective(kind, loss, SETTINGS[setting]), torch.tensor(labels)
        x = embeddings(made, sort)
        found, slopes = gradients(made, x, labels, species)
        expected = true_loss(objective(kind, loss, SETTINGS[setting]), kind, loss, x.double().numpy(), labels.numpy(), species.numpy(), SETTINGS[setting])
        assert found.item() == pytest.approx(expected, rel=5e-3, abs=1e-4), (sort, labels)
        assert all(slope.isfinite().all() for slope in slopes), (sort, labels)


@pytest.mark.parametrize("kind, loss", list(itertools.product(KINDS, LOSSES)))
@pytest.mark.parametrize("sort", ["norm 1e30", "infinite", "no numbers"])
def test_embeddings_beyond_all_bounds_leave_numbers_behind_or_are_told(kind, loss, sort):
    made = objective(kind, loss)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-3)
    value, _ = gradients(made, embeddings(made, sort), torch.tensor(LABELS["mixed"]), torch.zeros(6, dtype=torch.long))
    optimiser.step()
    held = [tensor.detach().numpy() for tensor in made.state_dict().values()] + [moment.numpy() for state in optimiser.state.values() for moment in state.values()]
    sane = np.isfinite(value.item()) and all(np.isfinite(array).all() for array in held)
    assert bool(sound.trouble(value.item(), made.state_dict().values(), optimiser, None)) != sane
    assert not (sane and sort == "no numbers")


@pytest.mark.parametrize("counts, labels", [([6], [0] * 6), ([1, 1], [0, 1] * 3), ([6], [-1] * 6)])
def test_one_class_and_two_classes_of_one_image_have_finite_losses(counts, labels):
    for kind, loss in itertools.product(KINDS, LOSSES):
        made = Objective(1, WIDTH, torch.tensor(counts), 1, recipe.Head(kind=kind, loss=loss, **EXTRAS))
        value, slopes = gradients(made, torch.randn(6, WIDTH), torch.tensor(labels), torch.zeros(6, dtype=torch.long))
        assert value.isfinite() and all(slope is None or slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("margin", [0.0, 0.55, 3.0, 5.0])
def test_the_angular_margin_at_its_ends_and_a_rounding_beyond_them_has_finite_slopes(margin):
    cosine = torch.tensor([1, -1, 1 + 1.2e-7, -1 - 1.2e-7, 1 - 6e-8, 0]).requires_grad_()
    lowered = with_angular_margin(cosine, torch.tensor(margin))
    lowered.sum().backward()
    x = cosine.detach().double().numpy().clip(-1, 1)
    expected = np.where(x > np.cos(np.pi - margin), np.cos(np.arccos(x) + margin), x - margin * np.sin(np.pi - margin))
    np.testing.assert_allclose(lowered.detach(), expected, atol=1e-3)
    assert cosine.grad.isfinite().all()


def test_a_margin_that_is_no_number_is_refused_by_its_keys():
    with pytest.raises(InputError, match="head.margin_scale, margin_power and margin_offset: the margin of a class of 4 images"):
        dynamic_margins(COUNTS, recipe.Head(margin_power=1000.0))


# Pooling

@pytest.mark.parametrize("p", [0.01, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [0.0, 6e-8, 1e-6, 1.0, 6e4])
def test_pooling_of_empty_tiny_and_huge_maps_is_its_formula(p, dtype, size):
    maps = (size * torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    pooled = models.GeM(p)(maps)
    pooled.sum().backward()
    powers = np.maximum(maps.detach().double().numpy(), 1e-6) ** p
    np.testing.assert_allclose(pooled.detach(), powers.mean(axis=(2, 3)) ** (1 / p), rtol=1e-3)
    assert maps.grad.isfinite().all()


def test_stripes_narrower_than_a_pixel_are_refused():
    model = models.EmbeddingModel(recipe.Model("test_efficientnet", parts=4)).eval()
    with pytest.raises(InputError, match="model.parts: 4 stripes do not fit into a feature map 2 wide"):
        model(torch.zeros(2, 3, 32, 32))
