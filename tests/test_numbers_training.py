"""Numbers that training may meet: constant batches, half precision that overflows, and breaks at any step. It learns, or it stops with one
line before a checkpoint holds what is no number."""

import itertools

import lightning_fabric
import numpy as np
import pytest
import torch
from lightning_fabric.plugins.precision import MixedPrecision

import toy
import toy_training as toying
from solution import fitting, models, recipe, sound
from solution.files import Failure, InputError
from solution.losses import Objective

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.competition(tmp_path_factory.mktemp("numbers") / "data", n_whales=8)


@pytest.mark.parametrize("content", ["black", *(pytest.param(content, marks=pytest.mark.slow) for content in ("white", "duplicates"))])
@pytest.mark.parametrize("also", [{}, toying.HUMPBACK], ids=["beluga", "humpback"])
def test_constant_and_duplicate_images_train_to_finite_weights(tmp_path, also, content):
    """A batch of two or of eight whose variance is 0."""
    for batch_size in (2, 8):
        now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", also=also, batch_size=batch_size, mixup=0.0), toy.competition(tmp_path / f"data{batch_size}", 4), tmp_path / "c.npz")
        now.module.train()
        square = np.random.default_rng(0).integers(0, 256, (32, 32, 3)) if content == "duplicates" else np.full((32, 32, 3), 255 * (content == "white"))
        images, labels = torch.from_numpy(square.astype(np.uint8)).repeat(batch_size, 1, 1, 1), torch.arange(batch_size) % 4
        for now.progress.step in range(3):
            loss = now.step(images, labels, torch.zeros_like(labels))
        assert np.isfinite(now.checked(loss))


def test_a_batch_of_one_image_a_process_is_refused(tmp_path, data, monkeypatch):
    monkeypatch.setattr(lightning_fabric.Fabric, "world_size", property(lambda self: 2))
    with pytest.raises(InputError, match="tiny: train.batch_size 2 leaves each of 2 processes one image, and batch normalisation needs two"):
        toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", batch_size=2), data, tmp_path / "c.npz")


# Half precision

@pytest.fixture
def half(monkeypatch):
    """Trains the CPU in half precision, with a loss scale to begin with."""
    def use(precision="16-mixed", scale=2.0**16):
        def launched(device, train):
            scaler = torch.amp.GradScaler("cpu", init_scale=scale) if precision == "16-mixed" else None
            fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision(precision, "cpu", scaler)])
            fabric.launch()
            return fabric

        monkeypatch.setattr(fitting, "launched", launched)
    return use


def steeper(monkeypatch, by):
    """Losses and their slopes `by` times what they are."""
    forward = Objective.forward
    monkeypatch.setattr(Objective, "forward", lambda self, *given: by * forward(self, *given))


@pytest.mark.parametrize("also", [{}, *(pytest.param(also, marks=pytest.mark.slow) for also in (toying.HUMPBACK, {"head": {"kind": "cosface"}}, {"head": {"kind": "lgm", "loss": "focal"}}, {"head": {"loss": "bce"}}))])
@pytest.mark.parametrize("precision", ["16-mixed", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_half_precision_learns_what_float32_learns(tmp_path, data, half, also, precision):
    losses = []
    for way in (lambda: None, lambda: half(precision)):
        way()
        now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", also=also), data, tmp_path / f"{len(losses)}.npz")
        assert now.fit(toying.never)
        losses.append([row["loss"] for row in now.progress.log])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)


def test_a_step_that_overflows_is_left_out_and_training_goes_on(tmp_path, data, half):
    """From a scale of 2^24 the first steps overflow; each halves it."""
    half(scale=2.0**24)
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=6), data, tmp_path / "c.npz")
    taken, step = [], fitting.Fitting.step

    def noted(self, *batch):
        before = [parameter.detach().clone() for parameter in self.trainee.parameters()]
        loss = step(self, *batch)
        taken.append(not all(map(torch.equal, before, self.trainee.parameters())))
        return loss

    now.step = noted.__get__(now)
    assert now.fit(toying.never)
    left_out = taken.count(False)
    assert not any(taken[:5]) and any(taken)
    assert now.scaler.get_scale() == 2.0 ** (24 - left_out)
    assert sound.finite(now.trainee.state_dict().values())


def test_training_that_overflows_in_every_step_stops_with_one_line(tmp_path, data, half, monkeypatch):
    half(scale=2.0**-5)
    steeper(monkeypatch, 1e30)
    now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=40), data, tmp_path / "c.npz")
    with pytest.raises(Failure, match="tiny: every step overflows half precision in epoch 2; lower train.learning_rate, or train with train.precision bf16 or fp32"):
        now.fit(toying.never)  # at 2^-11 after six steps, three an epoch


def test_a_short_training_whose_every_step_overflowed_is_none(tmp_path, data, half, monkeypatch):
    half()
    steeper(monkeypatch, 1e30)
    for _ in range(2):  # nor is it one when it is resumed
        now = toying.fitted(toying.write_recipe(tmp_path / "recipe.yaml", epochs=2), data, tmp_path / "c.npz")
        now.resume()
        with pytest.raises(Failure, match="tiny: every step of 2 epochs overflowed half precision, so nothing was learned"):
            now.fit(toying.never)


# Breaks

def no_numbers(now):
    now.trainee.model.necks[0][0].weight.data[3] = np.nan


def running_statistics(now):
    now.trainee.model.necks[0][0].running_var[0] = np.inf


def moments(now):
    """As of a slope of 1e25: its square is beyond float32, and what it moves never moves again."""
    next(iter(now.optimiser.optimizer.state.values()))["exp_avg_sq"].fill_(np.inf)


def batch(now):
    return np.nan


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("undisturbed")
    now = toying.fitted(toying.write_recipe(path / "recipe.yaml", epochs=2), data, path / "c.npz")
    now.fit(toying.never)
    now.save(path / "weights")
    return (path / "weights/tiny.npz").read_bytes()


@pytest.mark.parametrize("broken", [no_numbers, running_statistics, moments, batch])
@pytest.mark.parametrize("number, seconds", [(2, 600.0), (4, 0.0), *(pytest.param(*both, marks=pytest.mark.slow) for both in itertools.product(range(6), (600.0, 0.0)))])
def test_whatever_breaks_at_any_step_no_checkpoint_holds_it_and_resuming_gives_the_undisturbed_bytes(tmp_path, data, undisturbed, broken, number, seconds, monkeypatch):
    """With a checkpoint an epoch, and with one after every step."""
    recipe_file, step, done = toying.write_recipe(tmp_path / "recipe.yaml", epochs=2), fitting.Fitting.step, []

    def breaking(self, *given):
        done.append(step(self, *given))
        factor = broken(self) if len(done) == number + 1 else None
        return done[-1] * (factor or 1)

    with monkeypatch.context() as during:
        during.setattr(fitting.Fitting, "step", breaking)
        during.setattr(fitting, "CHECK_STEPS", 2)
        during.setattr(fitting, "CHECKPOINT_SECONDS", seconds)
        with pytest.raises(Failure, match=f"tiny: .* in epoch {number // 3 + 1}; lower train.learning_rate"):
            toying.fitted(recipe_file, data, tmp_path / "c.npz").fit(toying.never)
    assert len(done) <= number + 2 and (tmp_path / "c.npz").exists() == (number >= 3 or not seconds)
    if (tmp_path / "c.npz").exists():
        with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "progress") and "NaN" not in str(file["progress"])
    again = toying.fitted(recipe_file, data, tmp_path / "c.npz")
    again.resume()
    again.fit(toying.never)
    again.save(tmp_path / "weights")
    assert (tmp_path / "weights/tiny.npz").read_bytes() == undisturbed


def test_pretrained_weights_that_are_no_numbers_are_refused_before_any_step(tmp_path, data):
    state = models.EmbeddingModel(recipe.Model("test_efficientnet")).backbone.state_dict()
    next(iter(state.values()))[0] = np.nan
    torch.save(state, tmp_path / "broken.pth")
    for epochs in (0, 3):
        done = toying.train(toying.write_recipe(tmp_path / "recipe.yaml", epochs=epochs, also={"model": {"pretrained": str(tmp_path / "broken.pth")}}), data, tmp_path / "w")
        assert done.code == 2 and "broken.pth: holds weights that are no numbers" in done.line and not list(tmp_path.glob("w/*.npz"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_model_with_weights_that_are_no_numbers_is_refused(tmp_path, value):
    model = models.EmbeddingModel(recipe.Model("test_efficientnet"))
    values = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    name = "necks.0.0.weight"
    values[name] = values[name].astype(np.float64)
    values[name][0] = value
    with pytest.raises(InputError, match=f"m.npz: array {name} holds numbers that are not finite"):
        models.fill(model, values, tmp_path / "m.npz")


def test_an_inner_fold_without_a_true_match_is_refused_before_training(tmp_path, data):
    inner = toy.competition(tmp_path / "inner" / "test", n_whales=3)
    toy.scenarios(inner).head(0).to_csv(tmp_path / "inner" / "truth.csv", index=False)
    done = toying.train(toying.write_recipe(tmp_path / "recipe.yaml"), data, tmp_path / "w", "--validate", tmp_path / "inner")
    assert done.code == 2 and "truth.csv: no rows; there is nothing to" in done.line
