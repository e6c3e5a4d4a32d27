"""Each kind of head against a plain loop over images and classes, and against the published numbers."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

from solution import recipe
from solution.heads import GaussianMixture, Linear, SubCentreMargin, dynamic_margins, head_for

BELUGA = Path(__file__).parents[2] / "shared" / "data" / "beluga" / "metadata.csv"
HEAD = recipe.Head()


def toy(sub_centres=2, classes=5, width=6, n=12, seed=0, counts=None, **settings):
    """A head (ArcFace unless `kind` says otherwise), embeddings (n, width) and labels (n,)."""
    random = torch.Generator().manual_seed(seed)
    counts = torch.arange(1, classes + 1) if counts is None else counts
    head = head_for(width, counts, recipe.Head(sub_centres=sub_centres, **settings))
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random)
    return head, torch.randn(n, width, generator=random), torch.randint(0, len(counts), (n,), generator=random)


def logit_by_hand(embedding, centres, is_true, n, settings):
    """One logit in Python's float64, from the formulas of the write-ups."""
    length = lambda row: math.sqrt(sum(value * value for value in row))
    cosine = max(sum(a * b for a, b in zip(embedding, centre)) / (length(embedding) * length(centre)) for centre in centres)
    if is_true:
        m = settings.margin_scale * n**settings.margin_power + settings.margin_offset
        if settings.kind == "cosface":
            cosine = cosine - m
        elif cosine > math.cos(math.pi - m):
            cosine = math.cos(math.acos(cosine) + m)
        else:
            cosine = cosine - m * math.sin(math.pi - m)
    return settings.scale * cosine


def by_hand(head, embeddings, labels, counts, settings):
    k = settings.sub_centres
    centres = head.weight.detach().double().tolist()
    return [[logit_by_hand(row, centres[k * c : k * c + k], c == label, counts[c], settings) for c in range(len(counts))]
            for row, label in zip(embeddings.double().tolist(), labels.tolist())]


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
@pytest.mark.parametrize("sub_centres", [1, 2, 3])
def test_logits_equal_a_plain_loop(kind, sub_centres):
    head, embeddings, labels = toy(sub_centres, n=40, kind=kind)
    labels[::7] = -1  # of no class: nothing is lowered
    expected = by_hand(head, embeddings, labels, [1, 2, 3, 4, 5], recipe.Head(kind=kind, sub_centres=sub_centres))
    np.testing.assert_allclose(head(embeddings, labels).detach().numpy(), expected, atol=2e-4)


def test_the_branch_beyond_the_threshold_equals_the_loop_too():
    head, embeddings, labels = toy(1, n=5)
    embeddings = -head.weight.data[labels] + 0.05 * embeddings  # nearly opposite to the true centre
    logits = head(embeddings, labels).detach().numpy()
    expected = np.array(by_hand(head, embeddings, labels, [1, 2, 3, 4, 5], recipe.Head(sub_centres=1)))
    cosine = functional.cosine_similarity(embeddings, head.weight.data[labels]).numpy()
    assert (cosine <= np.cos(np.pi - dynamic_margins(labels + 1, HEAD).numpy())).all()
    np.testing.assert_allclose(logits, expected, atol=2e-4)


def test_one_sub_centre_and_a_constant_margin_are_arcface():
    m, s = 0.5, 64.0
    head, embeddings, labels = toy(1, margin_scale=0.0, margin_offset=m, scale=s, n=40)
    theta = torch.acos(functional.cosine_similarity(embeddings.double()[:, None], head.weight.data.double()[None], dim=2))
    turned = theta + m * functional.one_hot(labels, 5)
    inside = turned.gather(1, labels[:, None])[:, 0] < math.pi  # beyond pi ArcFace itself is not monotone
    assert inside.sum() > 30
    np.testing.assert_allclose(head(embeddings, labels).detach()[inside], s * torch.cos(turned)[inside], atol=1e-3)


@pytest.mark.parametrize("kind", ["arcface", "cosface"])
def test_the_margin_falls_on_the_true_class_only(kind):
    head, embeddings, labels = toy(kind=kind)
    without, _, _ = toy(kind=kind, margin_scale=0.0, margin_offset=0.0)
    difference = (without(embeddings, labels) - head(embeddings, labels)).detach().numpy()
    true = np.eye(5, dtype=bool)[labels]
    assert (difference[true] > 0.1).all() and np.abs(difference[~true]).max() < 1e-4


def test_cosface_without_a_margin_is_the_scaled_cosine():
    head, embeddings, labels = toy(1, kind="cosface", margin_scale=0.0, margin_offset=0.0, scale=30.0)
    cosine = functional.cosine_similarity(embeddings.double()[:, None], head.weight.data.double()[None], dim=2)
    np.testing.assert_allclose(head(embeddings, labels).detach(), 30 * cosine, atol=1e-5)


def test_cosface_lowers_the_true_logit_by_the_scaled_margin_of_its_class():
    head, embeddings, labels = toy(kind="cosface")
    lowered = (head(embeddings, torch.full_like(labels, -1)) - head(embeddings, labels)).detach().numpy()
    expected = np.where(np.eye(5, dtype=bool)[labels], 21 * (0.5 * np.arange(1, 6) ** -0.125 + 0.05), 0)
    np.testing.assert_allclose(lowered, expected, atol=1e-5)


@pytest.mark.parametrize("margins", [{}, {"margin_scale": 0.0, "margin_offset": 0.3}, {"margin_scale": 0.0, "margin_offset": 0.0}])
def test_lgm_logits_equal_a_plain_loop(margins):
    """-d / 2 with d the squared distance to the class's mean, times 1 + m for the true class; Wan et al., with the margin of the class."""
    head, embeddings, labels = toy(kind="lgm", n=20, **margins)
    labels[::7] = -1
    settings, expected = recipe.Head(kind="lgm", **margins), np.empty((20, 5))
    for i, row in enumerate(embeddings.double().tolist()):
        for c, centre in enumerate(head.weight.detach().double().tolist()):
            m = settings.margin_scale * (c + 1) ** settings.margin_power + settings.margin_offset
            distance = sum((a - b) ** 2 for a, b in zip(row, centre))
            expected[i, c] = -distance / 2 * (1 + m if c == labels[i] else 1)
    np.testing.assert_allclose(head(embeddings, labels).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_the_linear_head_is_the_formula_and_does_not_look_at_the_labels():
    head, embeddings, labels = toy(kind="linear")
    weight, bias = (parameter.detach().double().numpy() for parameter in head.parameters())
    expected = [[bias[c] + sum(weight[c, k] * row[k] for k in range(6)) for c in range(5)] for row in embeddings.double().numpy()]
    np.testing.assert_allclose(head(embeddings, labels).detach(), expected, atol=1e-5)
    assert torch.equal(head(embeddings, labels), head(embeddings, torch.full_like(labels, -1)))


def test_the_linear_head_drops_numbers_in_training_only_and_scales_the_rest():
    head = Linear(2000, 3, dropout=0.75)
    head[1].weight.data.fill_(1.0), head[1].bias.data.zero_()
    embeddings, labels = torch.ones(4, 2000), torch.zeros(4, dtype=torch.long)
    kept = head.train()(embeddings, labels).detach() / 4  # each that is kept counts four times
    assert ((kept - 500).abs() < 100).all() and torch.equal(kept, kept.round()) and len(kept.unique()) > 1
    assert (head.eval()(embeddings, labels) == 2000).all()


@pytest.mark.parametrize("kind", ["arcface", "cosface", "lgm", "linear"])
def test_the_label_of_no_class_lowers_nothing_and_changes_no_other_row(kind):
    head, embeddings, labels = toy(kind=kind)
    some = torch.where(torch.arange(len(labels)) % 3 == 0, -1, labels)
    without, _, _ = toy(kind=kind, margin_scale=0.0, margin_offset=0.0)
    assert torch.equal(head(embeddings, some)[some < 0], without(embeddings, some)[some < 0])
    assert torch.equal(head(embeddings, some)[some >= 0], head(embeddings, labels)[some >= 0])


def test_each_kind_names_its_head():
    counts = torch.tensor([3, 1])
    kinds = {kind: head_for(4, counts, recipe.Head(kind=kind, dropout=0.5)) for kind in ("arcface", "cosface", "linear", "lgm")}
    assert [type(head) for head in kinds.values()] == [SubCentreMargin, SubCentreMargin, Linear, GaussianMixture]
    assert kinds["linear"][0].p == 0.5 and kinds["lgm"].weight.shape == (2, 4) and kinds["linear"][1].weight.shape == (2, 4)


def test_the_order_of_a_classs_sub_centres_does_not_matter():
    head, embeddings, labels = toy(3)
    before = head(embeddings, labels)
    head.weight.data = head.weight.data.view(5, 3, -1).flip(1).reshape(15, -1)
    assert torch.equal(before, head(embeddings, labels))


def test_lengths_of_embeddings_and_centres_do_not_matter():
    head, embeddings, labels = toy()
    before = head(embeddings, labels).detach()
    head.weight.data *= 7
    np.testing.assert_allclose(before, head(embeddings * 0.01, labels).detach(), atol=1e-4)


@pytest.mark.parametrize("n, margin", [(1, 0.55), (2, 0.508502), (3, 0.485843), (5, 0.458883), (10, 0.424947),
                                       (20, 0.393828), (50, 0.356619), (106, 0.329130)])
def test_margins_are_the_published_ones(n, margin):
    """0.5 n^(-1/8) + 0.05, n^(1/8) as three square roots."""
    assert 0.5 / math.sqrt(math.sqrt(math.sqrt(n))) + 0.05 == pytest.approx(margin, abs=1e-6)
    assert dynamic_margins(torch.tensor([n]), HEAD).item() == pytest.approx(margin, abs=2e-6)


def test_smaller_classes_have_larger_margins():
    margins = dynamic_margins(torch.arange(1, 200), HEAD)
    assert (margins[1:] < margins[:-1]).all() and margins.dtype == torch.float32


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gradients_are_finite_where_the_cosine_is_one_or_minus_one(sign):
    head, _, labels = toy(1)
    embeddings = (sign * head.weight.data[labels] * 5).requires_grad_()
    loss = functional.cross_entropy(head(embeddings, labels), labels)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(embeddings.grad).all() and torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("kind", ["arcface", "cosface", "lgm", "linear"])
def test_a_zero_embedding_gives_finite_logits_and_gradients(kind):
    head, _, labels = toy(kind=kind)
    embeddings = torch.zeros(len(labels), 6, requires_grad=True)
    functional.cross_entropy(head(embeddings, labels), labels).backward()
    assert torch.isfinite(embeddings.grad).all()


@pytest.mark.parametrize("kind", ["arcface", "cosface", "lgm", "linear"])
def test_gradients_equal_finite_differences(kind):
    head, embeddings, labels = toy(n=4, kind=kind)
    embeddings.requires_grad_()
    loss = lambda: functional.cross_entropy(head(embeddings, labels), labels)
    loss().backward()
    step, flat = 1e-2, embeddings.data.view(-1)
    for place in range(0, len(flat), 5):
        held = flat[place].item()
        flat[place] = held + step
        above = loss().item()
        flat[place] = held - step
        below = loss().item()
        flat[place] = held
        assert (above - below) / (2 * step) == pytest.approx(embeddings.grad.view(-1)[place].item(), abs=2e-2)


@pytest.mark.parametrize("kind", ["arcface", "cosface", "lgm", "linear"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_the_head_computes_in_float32_under_autocast(kind, precision):
    head, embeddings, labels = toy(kind=kind)
    half = embeddings.to(precision)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(half, labels)
    assert logits.dtype == torch.float32 and torch.equal(logits, head(half.float(), labels))


def test_a_head_starts_within_one_over_the_root_of_its_width_and_holds_its_margins():
    head = SubCentreMargin(400, torch.tensor([1, 10, 106]), HEAD)
    assert head.weight.shape == (6, 400) and head.weight.abs().max() <= 0.05 and head.weight.abs().max() > 0.049
    assert abs(head.weight.mean()) < 0.003 and head.weight.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.05)
    assert list(head.state_dict()) == ["weight", "margins"] and list(dict(head.named_parameters())) == ["weight"]


@pytest.mark.skipif(not BELUGA.is_file(), reason="the official label table is not here")
def test_the_margins_of_the_belugas_lie_between_those_of_1_and_of_106_images():
    counts = pd.read_csv(BELUGA).whale_id.value_counts()
    assert (len(counts), counts.sum(), counts.max(), (counts == 1).sum()) == (788, 5902, 106, 155)
    head = SubCentreMargin(8, torch.from_numpy(counts.to_numpy().copy()), HEAD)
    expected = [0.5 * n ** (-1 / 8) + 0.05 for n in counts]
    np.testing.assert_allclose(head.margins.numpy(), expected, atol=1e-6)
    assert head.weight.shape == (1576, 8) and head.margins.max().item() == pytest.approx(0.55) and head.margins.min().item() == pytest.approx(0.329130, abs=1e-5)


@pytest.mark.benchmark_suite
def test_benchmark_of_a_training_step_of_the_head(benchmark):
    head, embeddings, labels = toy(2, classes=788, width=688, n=32)

    def step():
        functional.cross_entropy(head(embeddings, labels), labels).backward()

    benchmark(step)
