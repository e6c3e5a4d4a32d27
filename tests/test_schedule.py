"""Rates against the published tables by hand; groups and freezing against the order in which a backbone's layers are run."""

import dataclasses
import math

import pytest
import timm
import torch
from torch import nn

from solution import recipe, schedule
from solution.files import InputError

HUMPBACK = recipe.load("hwi").models[0].train


@pytest.mark.parametrize("epochs, epoch, expected", [
    (20, 0, 0.01), (20, 1, 0.2575), (20, 2, 0.505), (20, 3, 0.7525), (20, 4, 1.0),
    (20, 8, 0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2),  # a quarter of the half cosine
    (20, 12, 0.505),  # its middle
    (20, 19, 0.01 + 0.99 * (1 - math.cos(math.pi / 16)) / 2),
    (22, 4, 0.91),  # w = 4.4: 0.01 + 0.99 * 4 / 4.4; a rounded w would be at 1 here
    (22, 5, 0.01 + 0.99 * (1 + math.cos(math.pi * 0.6 / 17.6)) / 2),
    (22, 21, 0.01 + 0.99 * (1 - math.cos(math.pi / 17.6)) / 2),
    (30, 6, 1.0), (25, 5, 1.0), (1, 0, 0.01),
])
def test_the_warm_up_schedule_is_the_published_one(epochs, epoch, expected):
    train = recipe.Train(epochs=epochs)
    assert schedule.factor(epoch, train) == pytest.approx(expected, abs=1e-12)
    for step in (0, 5, 9):  # within an epoch nothing moves
        rates, beta = schedule.rates(epoch, step, 10, train)
        assert rates == pytest.approx([1.6e-3 * expected, 1.6e-3 * expected, 1.6e-2 * expected], rel=1e-9) and beta == 0.9


def test_without_warm_up_the_schedule_starts_at_its_full_rate():
    assert schedule.factor(0, recipe.Train(epochs=5, warmup=0.0)) == 1
    assert schedule.one_cycle(0.0, 0.0) == (1, 0.85)


def test_the_lowest_rate_is_never_reached_at_the_end():
    assert all(schedule.factor(epochs - 1, recipe.Train(epochs=epochs)) > 0.01 for epochs in range(2, 60))


@pytest.mark.parametrize("done, share, momentum", [
    (0.0, 1 / 25, 0.95),
    (0.075, 1 / 25 + 24 / 25 * (1 - math.sqrt(0.5)) / 2, 0.95 - 0.1 * (1 - math.sqrt(0.5)) / 2),  # a quarter of the way up
    (0.15, 13 / 25, 0.90),  # half of the way up
    (0.3, 1.0, 0.85),
    (0.475, 1 - (1 - 1 / 250_000) * (1 - math.sqrt(0.5)) / 2, 0.85 + 0.1 * (1 - math.sqrt(0.5)) / 2),  # a quarter of the way down
    (0.65, 0.500002, 0.90),  # half of the way down
    (1.0, 1 / 250_000, 0.95),
])
def test_one_cycle_is_the_published_one(done, share, momentum):
    assert schedule.one_cycle(done, 0.3) == (pytest.approx(share, rel=1e-9), pytest.approx(momentum, rel=1e-9))


def test_one_cycle_rises_to_its_top_once_and_then_falls():
    shares, momenta = zip(*(schedule.one_cycle(k / 1000, 0.3) for k in range(1001)))
    assert list(shares) == sorted(shares[:301]) + sorted(shares[301:], reverse=True)
    assert list(momenta) == sorted(momenta[:301], reverse=True) + sorted(momenta[301:]) and max(shares) == shares[300]


# 50 steps an epoch: 100 + 100 epochs, each with its top at 30 % of 5,000 steps, the 30th epoch's start.
@pytest.mark.parametrize("epoch, step, expected, beta", [
    (0, 0, [6.67e-3 / 25] * 3, 0.95),
    (15, 0, [6.67e-3 * 13 / 25] * 3, 0.90),
    (30, 0, [6.67e-3] * 3, 0.85),
    (65, 0, [6.67e-3 * 0.500002] * 3, 0.90),
    (100, 0, [2e-4 / 25, 2e-3 / 25, 2e-3 / 25], 0.95),  # anew
    (115, 0, [2e-4 * 13 / 25, 2e-3 * 13 / 25, 2e-3 * 13 / 25], 0.90),
    (130, 0, [2e-4, 2e-3, 2e-3], 0.85),
    (165, 0, [2e-4 * 0.500002, 2e-3 * 0.500002, 2e-3 * 0.500002], 0.90),
])
def test_the_humpbacks_train_by_two_cycles(epoch, step, expected, beta):
    rates, found = schedule.rates(epoch, step, 50, HUMPBACK)
    assert rates == pytest.approx(expected, rel=1e-9) and found == pytest.approx(beta, rel=1e-12)


def test_one_cycle_moves_with_every_step_and_ends_one_step_before_its_lowest():
    rates = [schedule.rates(epoch, step, 50, HUMPBACK)[0][2] for epoch in range(100, 200) for step in range(50)]
    assert len(set(rates)) == 5000 and rates.index(max(rates)) == 1500
    last = 3499 / 3500  # of the way down
    assert rates[-1] == pytest.approx(2e-3 * (4e-6 + (1 - 4e-6) * (1 + math.cos(math.pi * last)) / 2), rel=1e-9)
    assert rates[-1] < 2e-3 / 200_000


def test_the_warm_up_schedule_starts_after_the_frozen_epochs_which_have_their_own_full_rate():
    train = recipe.Train(frozen_epochs=3, epochs=20)
    assert [schedule.rates(epoch, 0, 7, train) for epoch in range(3)] == [([6.67e-3] * 3, 0.9)] * 3
    after = [schedule.rates(epoch, 0, 7, train) for epoch in range(3, 23)]
    assert after == [schedule.rates(epoch, 0, 7, dataclasses.replace(train, frozen_epochs=0)) for epoch in range(20)]


@pytest.mark.parametrize("kind", ["warmup", "one_cycle"])
def test_a_training_of_frozen_epochs_alone_has_rates(kind):
    rates, _ = schedule.rates(1, 3, 5, recipe.Train(frozen_epochs=2, epochs=0, schedule=kind))
    assert len(set(rates)) == 1 and 0 < rates[0] <= 6.67e-3


def test_the_early_rate_is_the_backbones_unless_it_has_its_own():
    same, own = (schedule.rates(4, 0, 9, recipe.Train(early_learning_rate=early))[0] for early in (None, 1e-5))
    assert same == pytest.approx([1.6e-3, 1.6e-3, 1.6e-2]) and own == pytest.approx([1e-5, 1.6e-3, 1.6e-2])


def backbone_of(name):
    torch.manual_seed(0)
    return timm.create_model(name, features_only=True, out_indices=(3, 4))


def groups_of(backbone, *others, train=recipe.Train()):
    return schedule.optimiser_for(backbone, list(others), train).param_groups


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_every_parameter_is_in_exactly_one_of_three_groups(name):
    """Each group's tensors, as often as it holds them, against those that the modules name."""
    backbone, neck, head = backbone_of(name), nn.BatchNorm1d(4), nn.Sequential(nn.Linear(4, 3), nn.ParameterList([nn.Parameter(torch.zeros(()))]))
    early, late, rest = ([id(parameter) for parameter in group["params"]] for group in groups_of(backbone, neck, head))
    assert sorted(early + late) == sorted(map(id, backbone.parameters())) and early and late
    assert sorted(rest) == sorted(id(parameter) for module in (neck, head) for parameter in module.parameters())


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "resnet18", "densenet121"])
def test_the_early_half_of_a_backbone_are_the_layers_that_run_first(name):
    backbone, ran = backbone_of(name), []
    early = {id(parameter) for parameter in groups_of(backbone, nn.Linear(2, 2))[0]["params"]}
    for layer in backbone.modules():
        own = {id(parameter) for parameter in layer.parameters(recurse=False)}
        if own:
            layer.register_forward_hook(lambda *_, own=own: ran.append(own <= early))
    with torch.no_grad():
        backbone.eval()(torch.zeros(1, 3, 32, 32))
    assert ran == sorted(ran, reverse=True)
    assert sum(ran) == len(ran) // 2 > 5


def test_the_optimiser_has_the_published_constants():
    for train, beta2 in ((recipe.Train(), 0.999), (HUMPBACK, 0.99)):
        optimiser = schedule.optimiser_for(backbone_of("test_resnet"), [nn.Linear(2, 2)], train)
        assert type(optimiser) is torch.optim.AdamW and len(optimiser.param_groups) == 3
        for group in optimiser.param_groups:
            assert (group["betas"], group["weight_decay"], group["eps"], group["amsgrad"]) == ((0.9, beta2), 0.01, 1e-8, False)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_freezing_leaves_a_backbones_batch_normalisation_learning_and_nothing_else(name):
    backbone = backbone_of(name)
    norms = {f"{path}.{own}" for path, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d) for own in ("weight", "bias")}
    assert 10 < len(norms) < len(list(backbone.parameters()))
    schedule.freeze(backbone, True)
    assert {path for path, parameter in backbone.named_parameters() if parameter.requires_grad} == norms
    schedule.freeze(backbone, False)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("name, stages", [("test_efficientnet", 1), ("test_resnet", 2), ("tf_efficientnet_lite0", 2), ("resnet18", 3), ("convnext_atto", 2)])
def test_the_lowest_layers_are_those_that_the_first_feature_maps_hang_on(name, stages):
    """By what gradients reach, in a backbone that gives the last of these maps alone."""
    whole, cut = (timm.create_model(name, features_only=True, out_indices=indices) for indices in (None, (stages - 1,)))
    cut(torch.randn(2, 3, 64, 64))[0].sum().backward()
    wanted = {path for path, parameter in cut.named_parameters() if parameter.grad is not None}
    always = schedule.lowest(whole, stages)
    schedule.freeze(whole.train(), False, always)
    assert {path for path, parameter in whole.named_parameters() if not parameter.requires_grad} == wanted != set()
    norms = {path for path, module in whole.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert {path for path in norms if not whole.get_submodule(path).training} == {path for path in norms if f"{path}.weight" in wanted}
    schedule.freeze(whole, True, always)
    assert not any(parameter.requires_grad for module in always for parameter in module.parameters(recurse=False))


@pytest.mark.parametrize("stages, told", [(5, "has 5 feature maps, and the last is to learn"), (2, "timm does not tell which layers")])
def test_feature_maps_that_are_not_there_are_one_line(stages, told):
    backbone = timm.create_model("test_efficientnet", features_only=True)
    backbone.feature_info.info[1]["module"] = "elsewhere"
    with pytest.raises(InputError, match=f"train.frozen_stages is {stages}.*{told}"):
        schedule.lowest(backbone, stages)
