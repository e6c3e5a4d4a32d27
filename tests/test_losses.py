"""Each loss against its formula, written out in numpy in float64; the objective against the sum of its parts, and who learns from which."""

import numpy as np
import pytest
import torch

from solution import recipe
from solution.losses import Centre, Objective, classification, ring

COUNTS = torch.tensor([1, 4, 2, 9, 3])
KINDS = "cross_entropy", "focal", "bce"


def toy(n=12, classes=5, seed=0, unknown=True):
    """Logits (n, classes) in float64 and labels (n,), some of them of no class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    if unknown:
        labels[::4] = -1
    return random.normal(0, 3, (n, classes)), labels


def row_loss(logits, label, loss):
    """What one row costs, one class at a time."""
    p = np.exp(logits) / np.exp(logits).sum()
    if loss == "bce":
        yes = 1 / (1 + np.exp(-logits))
        return -sum(np.log(yes[k]) if k == label else np.log(1 - yes[k]) for k in range(len(logits)))
    if label == -1:
        return -sum(np.log(p)) / len(p)
    return -np.log(p[label]) * ((1 - p[label]) ** 2 if loss == "focal" else 1)


def tensors(*arrays):
    return [torch.from_numpy(array) if array.dtype.kind == "i" else torch.from_numpy(array.astype(np.float32)) for array in arrays]


@pytest.mark.parametrize("loss", KINDS)
@pytest.mark.parametrize("unknown", [False, True])
def test_a_classification_loss_is_the_mean_of_its_formula(loss, unknown):
    logits, labels = toy(unknown=unknown)
    expected = np.mean([row_loss(row, label, loss) for row, label in zip(logits, labels)])
    assert float(classification(*tensors(logits, labels), loss)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", KINDS)
def test_the_gradient_of_a_classification_loss_is_its_finite_difference(loss):
    logits, labels = toy(n=8)
    given = torch.from_numpy(logits).float().requires_grad_()
    classification(given, torch.from_numpy(labels), loss).backward()
    step = 1e-6
    for place in np.ndindex(*logits.shape):
        sides = [row_loss(logits[place[0]] + side * step * np.eye(5)[place[1]], labels[place[0]], loss) for side in (1, -1)]
        assert float(given.grad[place]) == pytest.approx((sides[0] - sides[1]) / (2 * step) / 8, abs=1e-5)


def test_where_all_classes_are_alike_a_row_without_class_is_at_rest():
    for loss in ("cross_entropy", "focal"):
        logits = torch.zeros(3, 5, requires_grad=True)
        classification(logits, torch.full((3,), -1), loss).backward()
        assert logits.grad.abs().max() < 1e-7


@pytest.mark.parametrize("loss", KINDS)
def test_certainty_right_or_wrong_gives_finite_losses_and_gradients(loss):
    logits = (torch.eye(5)[[0, 1, 2]] * 200 - 100).requires_grad_()
    value = classification(logits, torch.tensor([0, 3, -1]), loss)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", KINDS)
def test_half_precision_logits_cost_what_they_cost_in_float32(loss):
    logits, labels = tensors(*toy())
    half = logits.half()
    assert classification(half, labels, loss).dtype == torch.float32
    assert torch.equal(classification(half, labels, loss), classification(half.float(), labels, loss))


def test_the_ring_loss_is_its_formula_and_half_of_lambda_is_its_weight():
    random = np.random.default_rng(0)
    features, radius, weight = random.normal(size=(7, 6)), 1.5, 0.01
    squares = sum((sum(value**2 for value in row) ** 0.5 - radius) ** 2 for row in features)
    found = float(ring(*tensors(features), torch.tensor(radius)))
    assert found == pytest.approx(squares / 7, rel=1e-5)
    paper = lambda the_lambda: the_lambda / (2 * 7) * squares
    assert weight * found == pytest.approx(paper(2 * weight), rel=1e-5)


def test_the_ring_loss_moves_radius_and_features_along_its_derivatives():
    """By R: -2 mean(||x|| - R); by x: 2 (||x|| - R) x / ||x|| / m."""
    random = np.random.default_rng(1)
    features = random.normal(size=(5, 3))
    x, radius = torch.from_numpy(features).float().requires_grad_(), torch.tensor(1.5, requires_grad=True)
    ring(x, radius).backward()
    length = np.linalg.norm(features, axis=1, keepdims=True)
    assert float(radius.grad) == pytest.approx(-2 * (length - 1.5).mean(), rel=1e-5)
    np.testing.assert_allclose(x.grad, 2 * (length - 1.5) * features / length / 5, atol=1e-6)


def centre_toy(seed=0):
    """A centre loss whose centres lie anywhere, features (9, 4) and labels (9,), two of no class; class 4 has none."""
    random = np.random.default_rng(seed)
    module = Centre(4, 5)
    module.centres = torch.from_numpy(random.normal(size=(5, 4))).float()
    return module, random.normal(size=(9, 4)), np.array([0, 1, 1, -1, 2, 2, 2, 3, -1])


def test_the_centre_loss_is_half_the_mean_squared_distance_to_the_own_centre():
    module, features, labels = centre_toy()
    centres = module.centres.double().numpy()
    squares = [sum((x - c) ** 2 for x, c in zip(row, centres[y])) for row, y in zip(features, labels) if y >= 0]
    assert float(module(*tensors(features, labels))) == pytest.approx(0.5 * sum(squares) / 7, rel=1e-5)


def test_a_centre_goes_half_of_the_class_mean_of_c_minus_x_after_the_loss():
    module, features, labels = centre_toy()
    before = module.centres.double().numpy()
    module(*tensors(features, labels))
    expected = before.copy()
    for whale in range(4):
        away = [before[whale] - row for row, y in zip(features, labels) if y == whale]
        expected[whale] = before[whale] - 0.5 * np.mean(away, axis=0)
    np.testing.assert_allclose(module.centres, expected, atol=1e-6)
    assert np.array_equal(module.centres[4], before[4].astype(np.float32))  # it has no image in the batch


def test_centres_move_in_training_only_and_by_no_gradient():
    module, features, labels = centre_toy()
    before, x = module.centres.clone(), torch.from_numpy(features).float().requires_grad_()
    module.eval()(x, torch.from_numpy(labels)).backward()
    assert torch.equal(module.centres, before) and not list(module.parameters()) and list(module.state_dict()) == ["centres"]
    expected = np.where(labels[:, None] >= 0, features - before.numpy()[labels], 0) / 7
    np.testing.assert_allclose(x.grad, expected, atol=1e-6)


def test_a_batch_of_unknown_whales_costs_no_centre_anything():
    module, features, _ = centre_toy()
    before = module.centres.clone()
    assert float(module(*tensors(features, np.full(9, -1)))) == 0 and torch.equal(module.centres, before)


def objective(parts=3, width=4, n_species=2, seed=0, **settings):
    """An objective of `parts`, embeddings (n, parts * width) that ask for gradients, labels and species."""
    torch.manual_seed(seed)
    made = Objective(parts, width, COUNTS, n_species, recipe.Head(**settings))
    labels = torch.randint(0, len(COUNTS), (8,))
    labels[3] = -1
    return made, torch.randn(8, parts * width, requires_grad=True), labels, torch.randint(0, n_species, (8,))


@pytest.mark.parametrize("kind", ["arcface", "cosface", "linear", "lgm"])
@pytest.mark.parametrize("loss", KINDS)
def test_the_objective_is_the_sum_of_its_parts_and_the_total_classifier(kind, loss):
    made, embeddings, labels, species = objective(kind=kind, loss=loss, total=True, ring=0.01, centre=0.1, species=True)
    made.eval()
    found, expected = made(embeddings, labels, species).item(), 0.0
    for k in range(3):
        part = embeddings[:, 4 * k : 4 * k + 4].detach()
        logits = made.heads[k](part, labels).detach().double().numpy()
        x, known = part.double().numpy(), labels.numpy() >= 0
        expected += np.mean([row_loss(row, label, loss) for row, label in zip(logits, labels.numpy())])
        expected += 0.01 * np.mean((np.linalg.norm(x, axis=1) - 1.5) ** 2)
        expected += 0.1 * 0.5 * np.mean((x[known] ** 2).sum(1))  # centres start at the origin
    for linear, of in ((made.total[1], labels), (made.species[1], species)):
        logits = (embeddings @ linear.weight.T + linear.bias).detach().double().numpy()
        expected += np.mean([row_loss(row, label, "cross_entropy") for row, label in zip(logits, of.numpy())])
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_published_objective_of_the_belugas_is_the_heads_cross_entropy_alone():
    made, embeddings, labels, species = objective(parts=1, width=12)
    assert [name for name, _ in made.named_parameters()] == ["heads.0.weight"] and made.total is None and made.species is None
    expected = classification(made.heads[0](embeddings, labels), labels)
    assert made(embeddings, labels, species).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_humpback_objective_has_a_head_and_a_radius_a_part_and_one_total():
    made, *_ = objective(kind="linear", total=True, ring=0.01)
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    expected = {"total.1.weight": (5, 12), "total.1.bias": (5,)}
    for k in range(3):
        expected.update({f"heads.{k}.1.weight": (5, 4), f"heads.{k}.1.bias": (5,), f"radii.{k}": ()})
    assert shapes == expected and [radius.item() for radius in made.radii] == [1.5] * 3


@pytest.mark.parametrize("kind", ["linear", "arcface"])
def test_nothing_of_the_total_classifiers_loss_reaches_the_embedding(kind):
    made, embeddings, labels, species = objective(kind=kind, total=True)
    without, *_ = objective(kind=kind, total=False)
    without.heads.load_state_dict(made.heads.state_dict())
    (through,) = torch.autograd.grad(made(embeddings, labels, species), embeddings)
    (expected,) = torch.autograd.grad(without(embeddings, labels, species), embeddings)
    assert torch.equal(through, expected) and through.abs().max() > 0
    total = made(embeddings, labels, species) - without(embeddings, labels, species)
    (left,) = torch.autograd.grad(total, embeddings, retain_graph=True)
    assert left.abs().max() < 1e-7
    assert torch.autograd.grad(total, made.total[1].weight)[0].abs().max() > 1e-3  # while the classifier itself learns


@pytest.mark.parametrize("settings", [{"kind": "linear"}, {"kind": "arcface"}, {"kind": "lgm"}, {"kind": "linear", "ring": 0.1}, {"kind": "linear", "centre": 0.1}])
def test_a_parts_head_reaches_its_own_part_only(settings):
    made, embeddings, labels, species = objective(**settings)
    loss = made(embeddings, labels, species)
    for k in range(3):
        (moved,) = torch.autograd.grad(loss, made.heads[k].parameters(), retain_graph=True)[:1]
        assert moved.abs().max() > 0
    other = embeddings.detach().clone()
    other[:, 4:] = torch.randn(8, 8)  # all but the first part
    other.requires_grad_()
    (first,), (second,) = (torch.autograd.grad(made.eval()(x, labels, species), x) for x in (embeddings, other))
    assert torch.equal(first[:, :4], second[:, :4]) and not torch.equal(first[:, 4:], second[:, 4:])


def test_the_species_classifier_does_reach_the_embedding():
    made, embeddings, labels, species = objective(kind="linear", species=True)
    with_species = torch.autograd.grad(made(embeddings, labels, species), embeddings)[0]
    other = torch.autograd.grad(made(embeddings, labels, 1 - species), embeddings)[0]
    assert (with_species - other).abs().max() > 1e-3
