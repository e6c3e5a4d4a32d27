"""A step against plain torch, what frozen, clipped and mixed steps are against their formulas, an epoch against itself."""

import math

import numpy as np
import pandas as pd
import pytest
import timm
import torch

import toy
import toy_training as toying
from solution import fitting, gallery, models, recipe
from solution.files import Failure


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("toy") / "data", n_whales=10)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_optimiser_has_the_published_groups_and_constants(tmp_path, data):
    """Parameters told apart by name here, by module there; every one is in exactly one group."""
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", learning_rate=1.6e-3, head_learning_rate=1.6e-2, warmup=0), data, tmp_path / "c.npz")
    now.step(*next(iter(now.loader)))
    names = {id(parameter): name for name, parameter in now.trainee.named_parameters()}
    early, late, fast = ([names[id(parameter)] for parameter in group["params"]] for group in now.optimiser.optimizer.param_groups)
    assert sorted(early + late + fast) == sorted(names.values())
    assert all(name.startswith("model.backbone.") for name in early + late) and early and late
    assert sorted(fast) == ["model.necks.0.0.bias", "model.necks.0.0.weight", "objective.heads.0.weight"]
    assert type(now.optimiser.optimizer) is torch.optim.AdamW
    assert [group["lr"] for group in now.optimiser.optimizer.param_groups] == [1.6e-3, 1.6e-3, 1.6e-2]
    for group in now.optimiser.optimizer.param_groups:
        assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.9, 0.999), 0.01, 1e-8)


def test_every_step_of_an_epoch_uses_the_rates_of_that_epoch(tmp_path, data, monkeypatch):
    now, rates = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=5), data, tmp_path / "c.npz"), []
    step = fitting.Fitting.step

    def noting(self, *batch):
        loss = step(self, *batch)
        rates.append((self.progress.epoch, *(group["lr"] for group in self.optimiser.optimizer.param_groups)))
        return loss

    monkeypatch.setattr(fitting.Fitting, "step", noting)
    assert now.fit(toying.never)
    factors = [0.01, 1.0, 0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2, 0.505, 0.01 + 0.99 * (1 - math.sqrt(0.5)) / 2]
    expected = [(epoch, 1e-3 * factor, 1e-3 * factor, 1e-2 * factor) for epoch, factor in enumerate(factors) for _ in range(31 // 8)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    assert [row["learning_rate"] for row in now.progress.log] == [rate for _, _, rate, _ in rates[::3]]


def test_a_step_is_the_step_written_out(tmp_path, data):
    """The published model and loss in plain torch give the gradients; AdamW's formula in numpy makes the step of them. Twice."""
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", warmup=0), data, tmp_path / "c.npz")
    names = [name for name, _ in now.trainee.named_parameters()]
    counts = pd.read_csv(data / "metadata.csv").whale_id.value_counts().sort_index().to_numpy()
    moments, random = {name: (0.0, 0.0) for name in names}, np.random.default_rng(3)
    now.module.train()
    for number in (1, 2):
        start = {name: tensor.clone() for name, tensor in now.trainee.state_dict().items()}
        pixels, labels = random.integers(0, 256, (8, 32, 32, 3), np.uint8), random.integers(0, 10, 8)
        loss = now.step(torch.from_numpy(pixels), torch.from_numpy(labels), torch.zeros(8, dtype=torch.long))
        expected, gradients, running_mean = written_out(start, counts, pixels, labels)
        assert float(loss) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(now.trainee.model.necks[0][0].running_mean, running_mean, atol=1e-6)
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, parameter in now.trainee.named_parameters():
            np.testing.assert_allclose(parameter.grad, gradients[name], atol=1e-4 * largest, err_msg=name)
            rate = 1e-3 if name.startswith("model.backbone.") else 1e-2
            wanted, moments[name] = adamw(start[name].numpy(), parameter.grad.numpy(), *moments[name], rate, number)
            np.testing.assert_allclose(parameter.detach(), wanted, atol=1e-6, err_msg=name)


def test_steps_read_no_memory_that_they_did_not_write(tmp_path, data, monkeypatch):
    """PyTorch would fill new memory with NaN, an eighth of the time: that must change nothing, and is off."""
    states = []
    for fill in (False, True):
        now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=1), data, tmp_path / "c.npz")
        assert not torch.utils.deterministic.fill_uninitialized_memory
        monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", fill)
        assert now.fit(toying.never)
        states.append({name: tensor.numpy() for name, tensor in now.trainee.state_dict().items()})
    assert toying.same(*states)


def adamw(weight, gradient, first, second, rate, number):
    """Loshchilov & Hutter, Decoupled weight decay regularization, algorithm 2."""
    weight, gradient = weight.astype(float), gradient.astype(float)
    first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    direction = first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
    return weight - rate * direction - rate * 0.01 * weight, (first, second)


def written_out(start, counts, pixels, labels):
    """The loss of a batch, its gradients by name and the neck's running mean, one image and one class at a time."""
    backbone = timm.create_model("test_efficientnet", features_only=True, out_indices=(3, 4))
    neck, centres = torch.nn.BatchNorm1d(sum(backbone.feature_info.channels())), torch.nn.Parameter(start["objective.heads.0.weight"].clone())
    for part, prefix in ((backbone, "model.backbone."), (neck, "model.necks.0.0.")):
        part.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in start.items() if name.startswith(prefix)})
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    inputs = torch.from_numpy(((pixels / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    embeddings = neck(torch.cat([maps.clamp(1e-6).pow(3).mean((2, 3)).pow(1 / 3) for maps in backbone(inputs)], 1))
    unit, centre = embeddings / embeddings.norm(dim=1, keepdim=True), centres / centres.norm(dim=1, keepdim=True)
    total = 0
    for row, whale in zip(unit, labels):
        cosines = torch.stack([(centre[2 * k : 2 * k + 2] @ row).max() for k in range(len(counts))])
        margin = 0.5 * counts[whale] ** -0.125 + 0.05
        assert cosines[whale] > math.cos(math.pi - margin)
        shifted = torch.cos(torch.acos(cosines[whale]) + margin)
        logits = 21 * torch.cat([cosines[:whale], shifted[None], cosines[whale + 1 :]])
        total = total - torch.log_softmax(logits, 0)[whale]
    (total / len(labels)).backward()
    parts = ("model.backbone.", backbone), ("model.necks.0.0.", neck)
    gradients = {prefix + name: parameter.grad for prefix, part in parts for name, parameter in part.named_parameters()}
    return float(total.detach()) / len(labels), {"objective.heads.0.weight": centres.grad, **gradients}, neck.running_mean


def test_margins_come_from_the_counts_of_the_training_images(tmp_path, data):
    counts = {}
    for whale in pd.read_csv(data / "metadata.csv").whale_id:
        counts[whale] = counts.get(whale, 0) + 1
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml"), data, tmp_path / "c.npz")
    expected = [0.5 * counts[whale] ** -0.125 + 0.05 for whale in sorted(counts)]
    np.testing.assert_allclose(now.trainee.objective.heads[0].margins, expected, rtol=1e-6)
    assert len(now.trainee.objective.heads[0].weight) == 2 * len(counts)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("uninterrupted")
    torch.set_num_threads(1)
    now = toying.fitted(toying.write_recipe(folder / "recipe.yaml"), data, folder / "resume" / "tiny.npz")
    assert now.fit(toying.never)
    now.save(folder)
    return folder, now


def stop_after(steps):
    asked = iter(range(10**6))
    return lambda: next(asked) >= steps


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 8])
def test_a_training_stopped_after_any_step_goes_on_to_the_same_bytes(tmp_path, data, uninterrupted, steps):
    folder, whole = uninterrupted
    first = toying.fitted(folder / "recipe.yaml", data, tmp_path / "resume.npz")
    assert first.fit(stop_after(steps)) is False
    assert (first.progress.epoch, first.progress.step) == divmod(steps, 3)
    second = toying.fitted(folder / "recipe.yaml", data, tmp_path / "resume.npz")
    second.resume()
    assert second.fit(toying.never)
    second.save(tmp_path)
    assert (tmp_path / "tiny.npz").read_bytes() == (folder / "tiny.npz").read_bytes()
    assert [row["loss"] for row in second.progress.log] == [row["loss"] for row in whole.progress.log]
    assert not (tmp_path / "resume.npz").exists()


def test_a_training_stopped_after_every_step_goes_on_to_the_same_bytes(tmp_path, data, uninterrupted):
    finished = False
    for _ in range(12):
        now = toying.fitted(uninterrupted[0] / "recipe.yaml", data, tmp_path / "resume.npz")
        now.resume()
        finished = now.fit(stop_after(1))
        if finished:
            break
    now.save(tmp_path)
    assert finished and (tmp_path / "tiny.npz").read_bytes() == (uninterrupted[0] / "tiny.npz").read_bytes()


STEPS = 2 * 31 // 8  # of an epoch with mirror images


def humpback(folder, data, **train):
    file = toying.write_recipe(folder / "humpback.yaml", also=recipe.merged(toying.HUMPBACK, {"train": train}))
    return toying.fitted(file, data, folder / "resume" / "tiny.npz")


def held(now):
    """Parameters and buffers by name, as they are now."""
    return {name: tensor.detach().clone() for name, tensor in now.trainee.state_dict().items()}


def test_both_cycles_move_the_rates_and_the_momentum_with_every_step(tmp_path, data, monkeypatch):
    now, found, step = humpback(tmp_path, data), [], fitting.Fitting.step

    def noting(self, *batch):
        loss = step(self, *batch)
        found.append([(group["lr"], *group["betas"]) for group in self.optimiser.optimizer.param_groups])
        return loss

    monkeypatch.setattr(fitting.Fitting, "step", noting)
    assert now.fit(toying.never)
    full = [[6.67e-3] * 3] * STEPS + [[1e-4, 1e-3, 1e-2]] * 2 * STEPS
    done = [k / STEPS for k in range(STEPS)] + [k / (2 * STEPS) for k in range(2 * STEPS)]
    annealed = lambda start, end, share: start + (end - start) * math.sin(math.pi * share / 2) ** 2
    for rates, at, groups in zip(full, done, found, strict=True):
        share = annealed(1 / 25, 1, at / 0.3) if at < 0.3 else annealed(1, 1 / 250_000, (at - 0.3) / 0.7)
        beta = annealed(0.95, 0.85, at / 0.3) if at < 0.3 else annealed(0.85, 0.95, (at - 0.3) / 0.7)
        np.testing.assert_allclose(groups, [(rate * share, beta, 0.99) for rate in rates], rtol=1e-9)


def test_frozen_epochs_move_everything_but_the_backbones_own_weights(tmp_path, data):
    """Of the backbone batch normalisation alone learns; the epochs after them move all of it."""
    now = humpback(tmp_path, data)
    start = held(now)
    assert now.fit(stop_after(STEPS)) is False and now.progress.epoch == 1
    frozen = held(now)
    norms = tuple(f"model.backbone.{name}." for name, module in now.trainee.model.backbone.named_modules() if isinstance(module, torch.nn.BatchNorm2d))
    still = {name for name in start if name.startswith("model.backbone.") and not name.startswith(norms)}
    assert {name for name in start if torch.equal(start[name], frozen[name])} == still and len(still) > 10
    assert all(start[name].numpy().tobytes() == frozen[name].numpy().tobytes() for name in still)
    assert now.fit(stop_after(1)) is False and (now.progress.epoch, now.progress.step) == (1, 1)
    assert not any(torch.equal(start[name], tensor) for name, tensor in held(now).items() if name in still)


def test_frozen_stages_stay_as_they_were_to_the_last_epoch_and_after_a_resume(tmp_path, data):
    """All that makes the first feature map, with the statistics of its batch normalisation; everything else moves."""
    file = toying.write_recipe(tmp_path / "r.yaml", frozen_stages=1, epochs=2)
    now = toying.fitted(file, data, tmp_path / "resume" / "tiny.npz")
    start, still = held(now), tuple(f"model.backbone.{name}." for name in ("conv_stem", "bn1", "blocks.0"))
    assert now.fit(stop_after(now.batches.steps + 1)) is False and now.progress.epoch == 1
    again = toying.fitted(file, data, tmp_path / "resume" / "tiny.npz")
    again.resume()
    assert again.fit(toying.never)
    same = {name for name, tensor in held(again).items() if torch.equal(start[name], tensor)}
    assert {name for name in same if name.startswith("model.")} == {name for name in start if name.startswith(still)} and sum("running_mean" in name for name in same) == 2


def test_frozen_epochs_may_be_all_there_are(tmp_path, data):
    now = humpback(tmp_path, data, epochs=0, schedule="warmup")
    assert now.fit(toying.never) and [row["learning_rate"] for row in now.progress.log] == [6.67e-3]


def batch_of(n=8, seed=3):
    random = np.random.default_rng(seed)
    pixels, labels = random.integers(0, 256, (n, 32, 32, 3), np.uint8), random.integers(0, 10, n)
    return torch.from_numpy(pixels), torch.from_numpy(labels), torch.zeros(n, dtype=torch.long)


@pytest.mark.parametrize("limit", [0.05, 1e6])
def test_clipped_gradients_are_the_gradients_cut_to_the_limits_length(tmp_path, data, limit):
    free, clipped = (toying.fitted(toying.write_recipe(tmp_path / f"{clip}.yaml", clip=clip), data, tmp_path / "c.npz") for clip in (None, limit))
    for now in (free, clipped):
        now.module.train()
        now.step(*batch_of())
    plain, cut = ({name: parameter.grad.double() for name, parameter in now.trainee.named_parameters()} for now in (free, clipped))
    length, after = (math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients.values())) for gradients in (plain, cut))
    assert 0.05 < length < 1e6 and after == pytest.approx(min(limit, length), rel=1e-4)
    for (name, gradient), parameter in zip(plain.items(), clipped.trainee.parameters()):
        np.testing.assert_allclose(cut[name], gradient * min(1, limit / length), rtol=1e-4, atol=1e-9, err_msg=name)
        np.testing.assert_allclose(clipped.optimiser.optimizer.state[parameter]["exp_avg"], 0.1 * cut[name], rtol=1e-4, atol=1e-9)


def test_mixup_is_the_shared_loss_of_both_labels_on_mixed_images(tmp_path, data):
    """-(share * log p(y) + (1 - share) * log p(y of the other)), image by image, for each part and for the total classifier."""
    now = humpback(tmp_path, data)
    trainee, order, share = now.trainee.eval(), torch.tensor([3, 0, 1, 2, 4, 7, 5, 6]), 0.3
    trainee.objective.ring = trainee.objective.centre = 0.0
    pixels, labels, species = batch_of()
    inputs = models.normalised(pixels, now.spec.model)
    found = trainee(inputs, labels, species, order, share).item()
    mixed = torch.stack([share * inputs[i] + (1 - share) * inputs[order[i]] for i in range(8)])
    embeddings, objective, expected = trainee.model(mixed).detach().double(), trainee.objective, 0.0
    for linear, features in [(objective.heads[0][1], embeddings[:, :8]), (objective.heads[1][1], embeddings[:, 8:]), (objective.total[1], embeddings)]:
        log_p = (features @ linear.weight.T.double() + linear.bias.double()).softmax(1).log().detach().numpy()
        expected -= np.mean([share * log_p[i, labels[i]] + (1 - share) * log_p[i, labels[order[i]]] for i in range(8)])
    assert found == pytest.approx(expected, rel=1e-5)
    assert trainee(inputs, labels, species, order, 1.0).item() == pytest.approx(trainee(inputs, labels, species).item(), rel=1e-6)


def test_each_step_draws_its_own_mixing_from_seed_epoch_and_step_alone(tmp_path, data, monkeypatch):
    mixings, forward = [], fitting.Trainee.forward

    def noting(self, images, labels, species, order, share):
        assert images.dtype == (share * images).dtype == torch.float32
        mixings.append((order.tolist(), float(share)))
        return forward(self, images, labels, species, order, share)

    monkeypatch.setattr(fitting.Trainee, "forward", noting)
    for _ in range(2):
        humpback(tmp_path, data, mirror_identities=False).fit(toying.never)
    orders, shares = zip(*mixings[:9])
    assert len(mixings) == 18 and mixings[:9] == mixings[9:]
    assert all(sorted(order) == list(range(8)) for order in orders) and len(set(map(tuple, orders))) == len(set(shares)) == 9
    assert all(0 <= share <= 1 for share in shares)


def test_without_mixup_a_step_mixes_nothing(tmp_path, data, monkeypatch):
    seen, forward = [], fitting.Trainee.forward
    monkeypatch.setattr(fitting.Trainee, "forward", lambda self, *batch: seen.append(len(batch)) or forward(self, *batch))
    humpback(tmp_path, data, mixup=0.0, frozen_epochs=0, epochs=1).fit(toying.never)
    assert seen == [3] * STEPS


@pytest.fixture(scope="module")
def uninterrupted_humpback(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("humpback")
    torch.set_num_threads(1)
    now = humpback(folder, data)
    assert now.fit(toying.never)
    now.save(folder)
    return folder, now


@pytest.mark.parametrize("steps", [3, STEPS, STEPS + 2, 2 * STEPS + 5])
def test_a_training_stopped_in_either_cycle_goes_on_to_the_same_bytes(tmp_path, data, uninterrupted_humpback, steps):
    folder, whole = uninterrupted_humpback
    first = humpback(tmp_path, data)
    assert first.fit(stop_after(steps)) is False
    assert (first.progress.epoch, first.progress.step) == divmod(steps, STEPS)
    second = humpback(tmp_path, data)
    second.resume()
    assert second.fit(toying.never)
    second.save(tmp_path)
    for file in ("tiny.npz", "classifier/tiny.npz"):
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()
    assert all(torch.equal(tensor, held(whole)[name]) for name, tensor in held(second).items())  # centres and radii too
    assert [row["loss"] for row in second.progress.log] == [row["loss"] for row in whole.progress.log]


def test_the_classifier_that_ships_is_the_total_one_of_the_known_whales_alone(data, uninterrupted_humpback):
    folder, now = uninterrupted_humpback
    whales = sorted(set(pd.read_csv(data / "metadata.csv").whale_id))
    with np.load(folder / "classifier" / "tiny.npz", allow_pickle=False) as file:
        told = {name: file[name] for name in file.files}
    assert told["whale_id"].tolist() == whales and told["weight"].shape == (10, 16) and told["bias"].shape == (10,)
    assert now.trainee.objective.total[1].weight.shape == (20, 16)  # mirror images are whales of their own in training
    embeddings = torch.randn(5, 16)
    logits = now.trainee.objective.total.eval()(embeddings, None).detach()
    np.testing.assert_allclose(gallery.read_classifier(folder, now.spec).logits({"plain": embeddings.numpy()}), logits[:, :10], atol=1e-5)


def test_a_recipe_without_a_total_classifier_ships_none(uninterrupted):
    assert not (uninterrupted[0] / "classifier").exists()


def test_a_humpback_training_lowers_the_loss(uninterrupted_humpback):
    losses = [row["loss"] for row in uninterrupted_humpback[1].progress.log]
    assert losses[-1] < losses[0]


def test_a_checkpoint_is_plain_arrays_with_both_moments_of_every_parameter(tmp_path, data):
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml"), data, tmp_path / "c.npz")
    now.fit(stop_after(4))
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        held = {name: file[name] for name in file.files}
    state = now.optimiser.optimizer.state_dict()["state"]
    for number in range(len(list(now.trainee.parameters()))):
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            np.testing.assert_array_equal(held[f"optimiser/{number}/{moment}"], state[number][moment])


def test_a_loss_that_is_no_number_ends_the_training_and_leaves_the_last_checkpoint(tmp_path, data, monkeypatch):
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml"), data, tmp_path / "c.npz")
    now.fit(stop_after(4))
    good, step = (tmp_path / "c.npz").read_bytes(), fitting.Fitting.step
    monkeypatch.setattr(fitting.Fitting, "step", lambda self, *batch: step(self, *batch) * math.nan)
    with pytest.raises(Failure, match="tiny: the loss is nan in epoch 2; lower train.learning_rate"):
        now.fit(toying.never)
    assert (tmp_path / "c.npz").read_bytes() == good


def test_weights_that_are_no_numbers_are_never_saved(tmp_path, data, monkeypatch):
    """The loss of a step is that of the weights before it, so the last step of an epoch can spoil them unseen."""
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=1), data, tmp_path / "c.npz")
    step = fitting.Fitting.step

    def spoiling(self, *batch):
        loss = step(self, *batch)
        if self.progress.step == 2:
            self.trainee.objective.heads[0].weight.data[0, 0] = math.nan
        return loss

    monkeypatch.setattr(fitting.Fitting, "step", spoiling)
    with pytest.raises(Failure, match="tiny: weights are no longer numbers in epoch 1; lower train.learning_rate"):
        now.fit(toying.never)
    assert not (tmp_path / "c.npz").exists()


def test_a_loss_that_is_no_number_is_noticed_within_an_epoch(tmp_path, data, monkeypatch):
    now, steps = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", batch_size=2), data, tmp_path / "c.npz"), []
    monkeypatch.setattr(fitting, "CHECK_STEPS", 4)
    monkeypatch.setattr(fitting.Fitting, "step", lambda *_: steps.append(1) or torch.tensor(math.inf))
    with pytest.raises(Failure):
        now.fit(toying.never)
    assert len(steps) == 4


def test_a_trial_of_a_step_measures_time_and_memory_and_writes_nothing(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = toying.spec(toying.write_recipe(tmp_path / "recipe.yaml"))
    seconds, learning, megabytes = fitting.trial(one, toying.training_set(data, one), 1000, 0, "cpu")
    assert 0 < seconds < 60 and learning == 0 and 50 < megabytes < 10_000
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


def test_training_lowers_the_loss(tmp_path, data):
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=8), data, tmp_path / "c.npz")
    now.fit(toying.never)
    losses = [row["loss"] for row in now.progress.log]
    assert losses[-1] < 0.9 * losses[0]
