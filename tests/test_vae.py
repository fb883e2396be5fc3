"""The VAE against PyTorch, and what one does with a trained one."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxgen import torch_weights
from jaxgen.models import vae
from jaxgen.models.vae import ConvVAE
from jaxgen.training import Recipe, as_source, steps_per_epoch
from tests.support import torch_recipes
from tests.support.parity import optax_moments, tensors_of, torch_moments, variables_of

Arrays = dict[str, np.ndarray]


def soft_spots(count: int, size: int, dtype: type) -> np.ndarray:
    """Images `[count, size, size, 1]` in [0, 1] of three blurred spots each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    centres, widths = rng.uniform(0.2, 0.8, (2, count, 3, 1, 1)), rng.uniform(0.02, 0.1, (count, 3, 1, 1))
    spots = np.exp(-((y - centres[0]) ** 2 + (x - centres[1]) ** 2) / widths)
    return spots.sum(1).clip(0, 1)[..., None].astype(dtype)


def channels_first(images: np.ndarray) -> torch.Tensor:
    """As PyTorch has them. A copy: one channel must not keep the strides of channels last, for which PyTorch 2.13 has
    another batch norm, wrong by 1e-4 in float32 where most of an image is flat.
    """
    return torch.from_numpy(np.moveaxis(images, -1, 1).copy())


def assert_within_spread(ours: Arrays, theirs: Arrays, reordered: list[Arrays]) -> None:
    """Each tensor is within four times PyTorch's own spread: how far it gets from itself with every batch reordered.

    A spread below 1e-12 of the tensor's largest value counts as that: sums of thousands of terms are not rounded to
    less, and the spread of a tensor of one or two numbers may be zero by chance.
    """
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        spread = max(np.abs(other[name] - tensor).max() for other in reordered)
        allowed = 4 * max(spread, 1e-12 * np.abs(tensor).max())
        assert np.abs(ours[name] - tensor).max() <= allowed, name


class Pair:
    """The recipe here and in PyTorch, from the same weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.network = torch_recipes.ConvVAE().to(dtype)
        self.recipe = vae.recipe()
        self.state = self.recipe.init(jax.random.key(0), variables_of(ConvVAE(), self.network))

    def train(self, batches: np.ndarray) -> tuple[Arrays, list[dict[str, float]]]:
        """All tensors after a step on each batch, and each step's metrics; the noise is a function of the step."""
        state, update, history = self.state, jax.jit(self.recipe.update), []
        for number, batch in enumerate(batches):
            state, metrics = update(state, batch, self.noise(number, len(batch)))
            history.append({name: float(value) for name, (value, _) in metrics.items()})
            assert {float(weight) for _, weight in metrics.values()} == {len(batch)}
        return {**torch_weights.flatten(state.variables), **optax_moments(state.optimizer)}, history

    def train_torch(
        self, batches: np.ndarray, order: np.random.Generator | None = None
    ) -> tuple[Arrays, list[dict[str, float]]]:
        """The same in PyTorch, each batch in an order of its own where `order` is given."""
        network, history = copy.deepcopy(self.network), []
        optimizer = torch_recipes.vae_optimizer(network)
        for number, batch in enumerate(batches):
            rows = np.arange(len(batch)) if order is None else order.permutation(len(batch))
            epsilon = torch.from_numpy(np.asarray(self.noise(number, len(batch)).epsilon)[rows])
            history.append(torch_recipes.vae_step(network, optimizer, channels_first(batch[rows]), epsilon))
        return {**tensors_of(network), **torch_moments(network, optimizer)}, history

    def noise(self, number: int, batch_size: int) -> vae.Noise:
        return self.recipe.noise(jax.random.key(number), batch_size)


def assert_same_metrics(ours: list[dict[str, float]], theirs: list[dict[str, float]], tolerance: float) -> None:
    for step, wanted in zip(ours, theirs, strict=True):
        assert step == pytest.approx(wanted, rel=tolerance, abs=0)


def assert_same_gradients_and_statistics(ours: Arrays, theirs: Arrays) -> None:
    """After one step in float32: the gradients (Adam's first moment is a tenth of one) to 1e-4 of their norms, running
    statistics to 1e-6.

    In front of a batch norm a bias has no gradient but rounding, in PyTorch as here; that both are small against the
    gradient of its weight is all there is to say.
    """
    for name, tensor in theirs.items():
        if name.startswith("first "):
            layer, _, kind = name.removeprefix("first ").rpartition(".")
            block, _, number = layer.rpartition(".")
            if kind == "bias" and f"{block}.{int(number) + 1}.running_mean" in theirs:
                weight = np.linalg.norm(theirs[f"first {layer}.weight"])
                assert max(np.linalg.norm(ours[name]), np.linalg.norm(tensor)) < 1e-4 * weight, name
            else:
                assert np.linalg.norm(ours[name] - tensor) < 1e-4 * np.linalg.norm(tensor), name
        if "running" in name:
            assert np.abs(ours[name] - tensor).max() < 1e-6 * np.abs(tensor).max(), name
        if name.endswith("num_batches_tracked"):
            assert ours[name] == tensor


def test_trains_as_pytorch_does(float64: None) -> None:
    pair = Pair(torch.float64)
    batches = soft_spots(5 * 6, 32, np.float64).reshape(5, 6, 32, 32, 1)
    (ours, our_history), (theirs, their_history) = pair.train(batches), pair.train_torch(batches)
    assert_same_metrics(our_history, their_history, 1e-9)
    reordered = [pair.train_torch(batches, np.random.default_rng(seed))[0] for seed in range(4)]
    assert_within_spread(ours, theirs, reordered)
    for name in theirs:
        if name.endswith("num_batches_tracked"):
            assert ours[name] == theirs[name] == 5


def test_one_step_in_float32() -> None:
    pair = Pair(torch.float32)
    batches = soft_spots(16, 32, np.float32)[None]
    (ours, our_history), (theirs, their_history) = pair.train(batches), pair.train_torch(batches)
    assert_same_metrics(our_history, their_history, 1e-5)
    assert_same_gradients_and_statistics(ours, theirs)


@pytest.fixture(scope="module")
def trained() -> torch_recipes.ConvVAE:
    """PyTorch's network after a few steps, so that running statistics and those of a batch differ."""
    torch.manual_seed(0)
    network = torch_recipes.ConvVAE()
    optimizer = torch_recipes.vae_optimizer(network)
    for batch in soft_spots(24, 32, np.float32).reshape(3, 8, 32, 32, 1):
        torch_recipes.vae_step(network, optimizer, channels_first(batch), torch.randn(8, 2))
    return network


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three images at a time: six take two rounds."""
    monkeypatch.setattr(vae, "BATCH", 3)


IMAGES = soft_spots(6, 32, np.float32)
MODULE = ConvVAE()


def test_encode_is_pytorchs_in_evaluation_mode(trained: torch_recipes.ConvVAE, few_at_once: None) -> None:
    with torch_recipes.evaluating(trained):
        wanted = trained.encode(channels_first(IMAGES))[0].numpy()
    means = jax.jit(vae.encode, static_argnums=0)(MODULE, variables_of(MODULE, trained), IMAGES)
    np.testing.assert_allclose(means, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_morph_passes_through_its_points(trained: torch_recipes.ConvVAE, few_at_once: None) -> None:
    points = np.float32([[-1, 0], [1, 2], [0.5, -2]])
    images = jax.jit(vae.morph, static_argnums=(0, 3))(MODULE, variables_of(MODULE, trained), points, 3)
    assert images.shape == (7, 32, 32, 1)
    path = np.float32([[-1, 0], [-1 / 3, 2 / 3], [1 / 3, 4 / 3], [1, 2], [5 / 6, 2 / 3], [2 / 3, -2 / 3], [0.5, -2]])
    wanted = torch_recipes.decode(trained, torch.from_numpy(path)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images, wanted, rtol=0, atol=1e-5)


def test_evaluate_is_pytorchs_loss_of_the_same_noise(trained: torch_recipes.ConvVAE, few_at_once: None) -> None:
    epsilon = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    found = jax.jit(vae.evaluate, static_argnums=0)(MODULE, variables_of(MODULE, trained), IMAGES, epsilon)
    with torch_recipes.evaluating(trained):
        output = trained(channels_first(IMAGES), torch.from_numpy(epsilon))
        reconstruction, kl = (float(term) / 6 for term in torch_recipes.vae_losses(channels_first(IMAGES), output))
    wanted = {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(wanted, rel=1e-5)


def test_without_noise_z_is_the_mean(trained: torch_recipes.ConvVAE) -> None:
    output = jax.jit(MODULE.apply)(variables_of(MODULE, trained), IMAGES[:1])
    np.testing.assert_array_equal(output.z, output.mean)


@pytest.mark.parametrize("recipe", [vae.recipe(latent=3), vae.recipe(module=ConvVAE(3))], ids=["latent", "module"])
def test_any_latent_dimension(recipe: Recipe) -> None:
    noise = recipe.noise(jax.random.key(0), 5000)
    assert noise.epsilon.shape == (5000, 3)
    assert abs(noise.epsilon.mean()) < 5 / np.sqrt(noise.epsilon.size)
    assert abs(noise.epsilon.std() - 1) < 5 / np.sqrt(noise.epsilon.size)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    images, epsilon = jax.ShapeDtypeStruct((4, 32, 32, 1), jnp.float32), jax.ShapeDtypeStruct((4, 3), jnp.float32)
    after, _ = jax.eval_shape(recipe.update, state, images, vae.Noise(epsilon))
    assert after == state


def test_a_last_batch_of_one_is_dropped() -> None:
    recipe = vae.recipe()
    sizes = [steps_per_epoch(recipe, as_source(np.zeros((count, 32, 32, 1), np.float32)), 3) for count in (6, 7, 8)]
    assert sizes == [2, 2, 3]


def test_images_of_another_kind_are_refused(trained: torch_recipes.ConvVAE) -> None:
    variables = variables_of(MODULE, trained)
    with pytest.raises(ValueError, match=r"ConvVAE: takes floating-point inputs, not uint8 .*jaxgen\.scaled"):
        vae.encode(MODULE, variables, (255 * IMAGES).astype(np.uint8))
    with pytest.raises(ValueError, match=r"\(batch, 32, 32, 1\), not \(6, 28, 28, 1\)"):
        vae.encode(MODULE, variables, IMAGES[:, 2:30, 2:30])
    with pytest.raises(ValueError, match=r"ConvVAE.decode: .* \(batch, 2\), not \(4, 3\)"):
        vae.decode(MODULE, variables, np.zeros((4, 3), np.float32))
