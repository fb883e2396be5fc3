"""The DCGANs against PyTorch: the same weights, batches and noise give the same training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from jaxgen.models import dcgan
from tests.support import torch_recipes
from tests.support.parity import (
    channels_first,
    largest_difference,
    optax_moments,
    tensors_of,
    torch_moments,
    torch_weights,
    variables_of,
)

BATCH = 16


def digits(dtype: type) -> np.ndarray:
    return (load_digits().images / 16 * 2 - 1).astype(dtype)[..., None]


def count(variables) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


class Pair:
    """The digits recipe here and in PyTorch, from the same weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.g, self.d = torch_recipes.DigitsGenerator().to(dtype), torch_recipes.DigitsDiscriminator().to(dtype)
        self.optimizer_g, self.optimizer_d = map(torch_recipes.digits_optimizer, (self.g, self.d))
        weights = {
            "generator": variables_of(dcgan.DigitsGenerator(), self.g),
            "discriminator": variables_of(dcgan.DigitsDiscriminator(), self.d),
        }
        self.recipe = dcgan.digits_recipe()
        self.state = self.recipe.init(jax.random.key(0), weights)
        self.update = jax.jit(self.recipe.update)

    def step(self, batch: np.ndarray, noise: dcgan.Noise) -> float:
        """One step of both; the largest difference of a metric."""
        self.state, ours = self.update(self.state, jnp.asarray(batch), noise)
        z_discriminator, z_generator = (torch.from_numpy(np.array(z)) for z in noise)
        theirs = torch_recipes.digits_step(
            self.g, self.d, self.optimizer_g, self.optimizer_d, channels_first(batch), z_discriminator, z_generator
        )
        assert ours.keys() == theirs.keys()
        return max(abs(float(ours[name][0]) - theirs[name]) for name in theirs)

    def difference(self) -> float:
        """The largest difference of a parameter or an Adam moment."""
        return max(
            max(
                largest_difference(torch_weights.flatten(variables), tensors_of(network)),
                largest_difference(optax_moments(state), torch_moments(network, optimizer)),
            )
            for variables, state, network, optimizer in self.networks()
        )

    def networks(self):
        """Of each network: our variables and optimiser, PyTorch's network and optimiser."""
        return [
            (self.state.generator, self.state.generator_optimizer, self.g, self.optimizer_g),
            (self.state.discriminator, self.state.discriminator_optimizer, self.d, self.optimizer_d),
        ]


def test_digits_trains_as_pytorch_does_for_200_steps(float64):
    pair, images = Pair(torch.float64), digits(np.float64)
    order = np.random.default_rng(0).permutation(len(images))
    for number in range(200):
        batch = images[order[number % 113 * BATCH :][:BATCH]]  # every 113th is the batch of five
        noise = pair.recipe.noise(jax.random.key(number), len(batch))
        assert noise.z_generator.dtype == jnp.float64
        assert pair.step(batch, noise) < 1e-11
    assert pair.difference() < 1e-11


@pytest.mark.parametrize("seed", range(4))
def test_digits_one_step_in_float32(seed):
    """Parameters are compared where Adam's division is well-conditioned: its step is g / (|g| + 1e-8), so where a
    gradient is no larger than that 1e-8, the last digit of the gradient is the first of the step."""
    pair, images = Pair(torch.float32), digits(np.float32)
    assert pair.step(images[:BATCH], pair.recipe.noise(jax.random.key(seed), BATCH)) < 1e-5
    compared = 0
    for ours, our_optimizer, network, optimizer in pair.networks():
        moments = torch_moments(network, optimizer)
        assert largest_difference(optax_moments(our_optimizer), moments) < 1e-5
        weights, reference = torch_weights.flatten(ours), tensors_of(network)
        for name, tensor in reference.items():
            conditioned = np.abs(moments[f"first {name}"]) > 1e-7  # a tenth of the gradient
            np.testing.assert_allclose(np.asarray(weights[name])[conditioned], tensor[conditioned], rtol=0, atol=1e-5)
            compared += conditioned.sum()
    assert compared > 0.95 * (55_905 + 5_201)


def test_parameter_counts():
    recipe = dcgan.digits_recipe()
    state = recipe.init(jax.random.key(0))
    assert count(state.generator) == 55_905
    assert count(state.discriminator) == 5_201


def test_half_is_real():
    """A discriminator that answers 0.5 to everything is right about every real image and wrong about every fake."""
    recipe = dcgan.digits_recipe()
    state = recipe.init(jax.random.key(0))
    state = state._replace(discriminator=jax.tree.map(jnp.zeros_like, state.discriminator))
    _, metrics = jax.jit(recipe.update)(state, jnp.zeros((BATCH, 8, 8, 1)), recipe.noise(jax.random.key(0), BATCH))
    assert metrics["accuracy_fake"] == (0, BATCH)
    assert metrics["error_fake"][0] == pytest.approx(np.log(2))


def test_given_weights_are_copied_and_used():
    recipe = dcgan.digits_recipe()
    weights = recipe.variables(recipe.init(jax.random.key(3)))
    state = recipe.init(jax.random.key(4), weights)
    ours, given = jax.tree.leaves(recipe.variables(state)), jax.tree.leaves(weights)
    for a, b in zip(ours, given, strict=True):
        assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()
        np.testing.assert_array_equal(a, b)


def test_the_two_noises_are_named_and_independent():
    noise = dcgan.digits_recipe().noise(jax.random.key(0), BATCH)
    assert noise.z_discriminator.shape == (BATCH, 64)
    assert noise.z_generator.shape == (2 * BATCH, 64)
    assert abs(np.corrcoef(noise.z_discriminator.ravel(), noise.z_generator[:BATCH].ravel())[0, 1]) < 0.1


def test_sample():
    generator = dcgan.DigitsGenerator()
    variables = dcgan.digits_recipe().init(jax.random.key(0)).generator
    images = jax.jit(dcgan.sample, static_argnums=(0, 3))(generator, variables, jax.random.key(1), 5)
    assert images.shape == (5, 8, 8, 1)
    assert float(jnp.abs(images).max()) <= 1


@pytest.mark.parametrize(
    ("module", "shape", "said"),
    [
        (dcgan.DigitsDiscriminator(), (2, 28, 28, 1), r"\(batch, 8, 8, 1\), not \(2, 28, 28, 1\)"),
        (dcgan.MnistDiscriminator(), (2, 32, 32, 1), r"\(batch, 28, 28, 1\), not \(2, 32, 32, 1\)"),
        (dcgan.DigitsGenerator(), (2, 62), r"\(batch, 64\), not \(2, 62\)"),
        (dcgan.MnistGenerator(), (2, 64), r"\(batch, 62\), not \(2, 64\)"),
    ],
)
def test_inputs_of_another_size_are_refused(module, shape, said):
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize("module", [dcgan.DigitsDiscriminator(), dcgan.MnistDiscriminator()])
def test_integer_images_are_refused(module):
    with pytest.raises(ValueError, match=r"not uint8 .*jaxgen\.scaled"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, *module.input_shape), jnp.uint8))
