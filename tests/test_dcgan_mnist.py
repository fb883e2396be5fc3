"""The DCGAN on MNIST against PyTorch: two passes of the discriminator, three of its running statistics."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from sklearn.datasets import load_digits

from jaxgen import torch_weights
from jaxgen.models import dcgan
from tests.support import torch_recipes
from tests.support.parity import optax_moments, tensors_of, torch_moments, variables_of
from tests.test_vae import (
    Arrays,
    assert_same_gradients_and_statistics,
    assert_same_metrics,
    assert_within_spread,
    channels_first,
)

History = list[dict[str, float]]


def digits(steps: int, size: int, dtype: type) -> np.ndarray:
    """Batches of 28×28 digits `[steps, size, 28, 28, 1]`, black around as MNIST's."""
    images = np.kron(load_digits().images[: steps * size] / 16, np.ones((4, 4)))[:, 2:30, 2:30]
    return images.reshape(steps, size, 28, 28, 1).astype(dtype)


class Pair:
    """The recipe here and in PyTorch, from the same weights; both give the generator's tensors, the discriminator's,
    and the losses of every step. The noise is a function of the step.
    """

    def __init__(self, g: torch.nn.Module, d: torch.nn.Module, learning_rate: float | None = None) -> None:
        self.g, self.d, self.learning_rate = g, d, learning_rate
        adam = None if learning_rate is None else optax.adam(learning_rate, b1=0.5)
        self.recipe = dcgan.mnist_recipe(generator_optimizer=adam, discriminator_optimizer=adam)
        weights = {
            "generator": variables_of(dcgan.MnistGenerator(), self.g),
            "discriminator": variables_of(dcgan.MnistDiscriminator(), self.d),
        }
        self.state = self.recipe.init(jax.random.key(0), weights)

    def train(self, batches: np.ndarray) -> tuple[Arrays, Arrays, History]:
        state, update, history = self.state, jax.jit(self.recipe.update), []
        for number, batch in enumerate(batches):
            state, metrics = update(state, batch, self.noise(number, len(batch)))
            history.append({name: float(value) for name, (value, _) in metrics.items()})
            assert {float(weight) for _, weight in metrics.values()} == {1}
        return (
            {**torch_weights.flatten(state.generator), **optax_moments(state.generator_optimizer)},
            {**torch_weights.flatten(state.discriminator), **optax_moments(state.discriminator_optimizer)},
            history,
        )

    def train_torch(
        self, batches: np.ndarray, order: np.random.Generator | None = None
    ) -> tuple[Arrays, Arrays, History]:
        """Each batch in an order of its own where `order` is given."""
        g, d = copy.deepcopy((self.g, self.d))
        optimizers, history = (torch_recipes.mnist_optimizer(g), torch_recipes.mnist_optimizer(d)), []
        if self.learning_rate is not None:
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = self.learning_rate
        for number, batch in enumerate(batches):
            rows = np.arange(len(batch)) if order is None else order.permutation(len(batch))
            noise = (torch.from_numpy(np.asarray(z)[rows]) for z in self.noise(number, len(batch)))
            history.append(torch_recipes.mnist_step(g, d, *optimizers, channels_first(batch[rows]), *noise))
        return (
            {**tensors_of(g), **torch_moments(g, optimizers[0])},
            {**tensors_of(d), **torch_moments(d, optimizers[1])},
            history,
        )

    def noise(self, number: int, batch_size: int) -> dcgan.Noise:
        return self.recipe.noise(jax.random.key(number), batch_size)


def test_trains_as_pytorch_does(float64: None) -> None:
    torch.manual_seed(0)
    pair = Pair(torch_recipes.MnistGenerator().double(), torch_recipes.MnistDiscriminator().double())
    batches = digits(3, 8, np.float64)
    *ours, our_history = pair.train(batches)
    *theirs, their_history = pair.train_torch(batches)
    assert_same_metrics(our_history, their_history, 1e-9)
    reordered = [pair.train_torch(batches, np.random.default_rng(seed)) for seed in range(5)]
    for network, passes in ((0, 2), (1, 3)):  # the generator runs twice a step, the discriminator three times
        assert_within_spread(ours[network], theirs[network], [run[network] for run in reordered])
        counters = {name for name in theirs[network] if name.endswith("num_batches_tracked")}
        assert {int(ours[network][name]) for name in counters} == {3 * passes}


def test_losses_and_gradients_in_float32() -> None:
    """Where float32 can tell: one activation in 400,000 that falls on the other side of a ReLU changes the gradients by
    a thousandth, in PyTorch against itself too. So Adam does not move the discriminator between the two gradients (its
    first step takes the sign of each number, rounding or not); the fakes differ from each other, as untrained ones
    hardly do; and with this seed no activation is so near to zero.
    """
    torch.manual_seed(5)
    g, d = torch_recipes.MnistGenerator(), torch_recipes.MnistDiscriminator()
    with torch.no_grad():
        g.deconv[3].weight *= 20
    pair, batches = Pair(g, d, learning_rate=0), digits(1, 8, np.float32)
    *ours, our_history = pair.train(batches)
    *theirs, their_history = pair.train_torch(batches)
    assert_same_metrics(our_history, their_history, 1e-5)
    for network in (0, 1):
        assert_same_gradients_and_statistics(ours[network], theirs[network])


def test_leaky_relu_has_pytorchs_gradient_at_zero() -> None:
    """The first convolution's output is exactly 0 wherever an image is black, as long as its bias is 0."""
    x = torch.tensor([-2.0, -0.0, 0.0, 3.0], requires_grad=True)
    torch.nn.functional.leaky_relu(x, 0.2).sum().backward()
    np.testing.assert_array_equal(jax.vmap(jax.grad(dcgan.leaky_relu))(x.detach().numpy()), x.grad)
    np.testing.assert_array_equal(dcgan.leaky_relu(jnp.array([-2.0, 3.0])), [np.float32(-0.4), 3])


def test_sampling_uses_the_running_statistics() -> None:
    torch.manual_seed(0)
    network, generator = torch_recipes.MnistGenerator(), dcgan.MnistGenerator()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, 62))
    sample = jax.jit(dcgan.sample, static_argnums=(0, 3))
    images = sample(generator, variables_of(generator, network), jax.random.key(1), 5)
    z = torch.from_numpy(np.array(generator.prior(jax.random.key(1), 5)))
    wanted = torch_recipes.sample(network, z).permute(0, 2, 3, 1)
    assert images.shape == (5, 28, 28, 1)
    np.testing.assert_allclose(images, wanted, rtol=0, atol=1e-5)
    with torch.no_grad():
        in_training = network(z).permute(0, 2, 3, 1)
    assert float((in_training - wanted).abs().max()) > 1e-3


def test_initial_weights_are_narrow_normals() -> None:
    """Normal(0, 0.02), biases 0, batch norms as they come; mean and deviation within five standard errors."""
    state = dcgan.mnist_recipe().init(jax.random.key(0))
    for variables in (state.generator, state.discriminator):
        for name, tensor in torch_weights.flatten(variables).items():
            if tensor.ndim > 1:
                assert abs(tensor.mean()) < 5 * 0.02 / np.sqrt(tensor.size), name
                assert abs(tensor.std() - 0.02) < 5 * 0.02 / np.sqrt(2 * tensor.size), name
                assert tensor.min() < -0.04 < 0.04 < tensor.max(), name
            else:
                ones = name.endswith(("running_var", "weight"))
                assert np.all(tensor == ones), name


def test_the_two_noises_are_uniform_named_and_independent() -> None:
    noise = dcgan.mnist_recipe().noise(jax.random.key(0), 128)
    for z in (noise.z_discriminator, noise.z_generator):
        assert z.shape == (128, 62)
        assert 0 <= z.min() < 0.001
        assert 0.999 < z.max() < 1
        assert abs(z.mean() - 0.5) < 5 / np.sqrt(12 * z.size)
    assert abs(np.corrcoef(noise.z_discriminator.ravel(), noise.z_generator.ravel())[0, 1]) < 5 / np.sqrt(128 * 62)
