"""The autoencoder against PyTorch, and its two plugs."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest
import torch
from sklearn.datasets import load_sample_image

from jaxgen import torch_weights
from jaxgen.layers import BatchNorm, Linear, flatten, init_variables, unflatten
from jaxgen.models import autoencoder
from jaxgen.models.autoencoder import ConvAutoencoder, Decoder
from tests.support import torch_recipes
from tests.support.parity import (
    channels_first,
    largest_difference,
    optax_moments,
    tensors_of,
    torch_moments,
    variables_of,
)


def photographs(dtype: type) -> np.ndarray:
    """260 tiles of a photograph `[260, 32, 32, 3]` in [0, 1], from its top to its bottom."""
    tiles = load_sample_image("china.jpg")[: 13 * 32, : 20 * 32].reshape(13, 32, 20, 32, 3).swapaxes(1, 2)
    return (tiles.reshape(-1, 32, 32, 3) / 255).astype(dtype)


class Pair:
    """The recipe here and in PyTorch, from the same weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.network = torch_recipes.ConvAutoencoder().to(dtype)
        self.optimizer = torch_recipes.autoencoder_optimizer(self.network)
        self.recipe = autoencoder.recipe()
        self.state = self.recipe.init(jax.random.key(0), variables_of(ConvAutoencoder(), self.network))
        self.update = jax.jit(self.recipe.update)

    def step(self, batch: np.ndarray) -> float:
        """One step of both; the difference of the losses."""
        self.state, ours = self.update(self.state, batch, self.recipe.noise(jax.random.key(0), len(batch)))
        theirs = torch_recipes.autoencoder_step(self.network, self.optimizer, channels_first(batch))
        assert ours.keys() == theirs.keys()
        assert ours["loss"][1] == 1
        return abs(float(ours["loss"][0]) - theirs["loss"])

    def difference(self) -> float:
        """The largest difference of a parameter or an Adam moment."""
        return max(
            largest_difference(torch_weights.flatten(self.state.variables), tensors_of(self.network)),
            largest_difference(optax_moments(self.state.optimizer), torch_moments(self.network, self.optimizer)),
        )

    def gradients(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ours and PyTorch's after one step: Adam's first moment is a tenth of the gradient then."""
        ours, theirs = optax_moments(self.state.optimizer), torch_moments(self.network, self.optimizer)
        return [(ours[name], gradient) for name, gradient in theirs.items() if name.startswith("first")]


def test_trains_as_pytorch_does_for_100_steps(float64: None) -> None:
    pair, images = Pair(torch.float64), photographs(np.float64)
    order = np.random.default_rng(0).permutation(len(images))
    for number in range(100):
        assert pair.step(images[order[number % 25 * 10 :][:10]]) < 1e-9
    assert pair.difference() < 1e-9


def test_gradients_in_float32() -> None:
    pair = Pair(torch.float32)
    assert pair.step(photographs(np.float32)[:10]) < 1e-6
    for ours, theirs in pair.gradients():
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


def test_max_pools_gradient_on_ties() -> None:
    """Black and white pixels, a flat half and weights of few bits: exact ties in both poolings, not of zeros only."""
    pair, rng = Pair(torch.float32), np.random.default_rng(0)
    weights = {name: rng.integers(-4, 5, tensor.shape) / 8 for name, tensor in tensors_of(pair.network).items()}
    pair.network.load_state_dict({name: torch.from_numpy(tensor).float() for name, tensor in weights.items()})
    pair.state = pair.recipe.init(jax.random.key(0), variables_of(ConvAutoencoder(), pair.network))
    batch = rng.integers(0, 2, (10, 32, 32, 3)).astype(np.float32)
    batch[:, :, 16:] = 1
    pair.step(batch)
    for ours, theirs in pair.gradients():
        assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)


class DenseEncoder(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.relu(Linear(64)(flatten(x)))


class DenseDecoder(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return unflatten(nn.sigmoid(Linear(8 * 8 * 3)(x)), 8, 8)


@pytest.mark.parametrize(
    "module",
    [
        ConvAutoencoder(DenseEncoder(), DenseDecoder(), (8, 8, 3)),
        ConvAutoencoder(decoder=Decoder(channels=1), input_shape=(28, 20, 1)),
    ],
    ids=["fully connected", "gray and narrow"],
)
def test_other_plugs_sizes_and_channels_learn(module: ConvAutoencoder) -> None:
    height, width, channels = module.input_shape
    images = photographs(np.float32)[::25, :height, :width, :channels]
    recipe = autoencoder.recipe(module, optax.adam(0.01))
    state, update, losses = recipe.init(jax.random.key(0)), jax.jit(recipe.update), []
    for _ in range(50):
        state, metrics = update(state, images, autoencoder.Noise())
        losses.append(metrics["loss"][0])
    assert losses[-1] < losses[0] / 2
    assert recipe.variables(state)["params"].keys() == {"enc", "dec"}


class NormalisedEncoder(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return BatchNorm()(DenseEncoder()(x))


def test_plugs_that_keep_more_than_parameters_are_refused() -> None:
    recipe = autoencoder.recipe(ConvAutoencoder(NormalisedEncoder(), DenseDecoder(), (8, 8, 3)))
    with pytest.raises(ValueError, match="keeps batch_stats"):
        recipe.init(jax.random.key(0))


@pytest.mark.parametrize("shape", [(30, 32, 3), (32, 32, 1)])
def test_images_that_do_not_come_back_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"images .* come back as \(1, \d+, 32, 3\)"):
        init_variables(ConvAutoencoder(input_shape=shape), jax.random.key(0))


def test_reconstructions_of_more_images_than_go_at_once_are_in_order() -> None:
    module = ConvAutoencoder(DenseEncoder(), DenseDecoder(), (8, 8, 3))
    variables = init_variables(module, jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (1003, 8, 8, 3))
    reconstructions = jax.jit(autoencoder.reconstruct, static_argnums=0)(module, variables, images)
    np.testing.assert_allclose(reconstructions, module.apply(variables, images), atol=1e-6)


def test_reconstruct_is_pytorchs() -> None:
    pair, images = Pair(torch.float32), photographs(np.float32)[:7]
    ours = jax.jit(autoencoder.reconstruct, static_argnums=0)(ConvAutoencoder(), pair.state.variables, images)
    theirs = torch_recipes.reconstruct(pair.network, channels_first(images))
    np.testing.assert_allclose(channels_first(ours), theirs, atol=1e-5)


def test_given_weights_are_copied_and_used() -> None:
    recipe = autoencoder.recipe()
    weights = variables_of(ConvAutoencoder(), torch_recipes.ConvAutoencoder())
    given = recipe.variables(recipe.init(jax.random.key(0), weights))
    for ours, theirs in zip(jax.tree.leaves(given), jax.tree.leaves(weights), strict=True):
        assert ours.unsafe_buffer_pointer() != theirs.unsafe_buffer_pointer()
        np.testing.assert_array_equal(ours, theirs)


def test_integer_images_are_refused() -> None:
    module = ConvAutoencoder()
    variables = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(ValueError, match=r"not uint8 .*jaxgen\.scaled"):
        jax.eval_shape(module.apply, variables, np.zeros((2, 32, 32, 3), np.uint8))
