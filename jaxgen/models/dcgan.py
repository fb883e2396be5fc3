"""Two DCGANs: on MNIST, 28×28 or other sizes, and on scikit-learn's digits, 8×8.

Radford, Metz and Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", 2015 (https://arxiv.org/abs/1511.06434), as in two PyTorch tutorials. They differ in their networks, in the
distribution of the latent vector and in what a step is; the recipes' docstrings say how.
Discriminators return logits.

With `classes` above 0 a network is conditional on labels, as in Mirza and Osindero, "Conditional generative adversarial
nets", 2014 (https://arxiv.org/abs/1411.1784): the label's one-hot code is appended to the latent vector, and to every
pixel of the image that the discriminator is given. Batches are then `(images, labels)`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import protocols
from jaxgen.conditioning import Given, append_labels, classes_of, given_labels, inputs_of
from jaxgen.errors import InputError
from jaxgen.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Linear,
    check_input,
    flatten,
    halvings,
    in_batches,
    init_variables,
    normal,
    unflatten,
)
from jaxgen.losses import binary_cross_entropy
from jaxgen.parallel import mean_over_shards, shards
from jaxgen.training import Metrics, Recipe, descend

Variables = Any  # {"params": …} and, with batch norm, {"batch_stats": …}


class State(NamedTuple):
    """What training changes."""

    generator: Variables
    discriminator: Variables
    generator_optimizer: optax.OptState
    discriminator_optimizer: optax.OptState


class Noise(NamedTuple):
    """The random numbers of one step."""

    z_discriminator: jax.Array  # [B, latent], for the fakes that the discriminator learns from
    z_generator: jax.Array  # [B or 2B, latent], for those that the generator learns from


def leaky_relu(x: jax.Array) -> jax.Array:
    """Apply `torch.nn.LeakyReLU(0.2)`, whose gradient at 0 is 0.2; that of `jax.nn.leaky_relu` is 1.

    This matters: while biases are 0, black pixels of MNIST are exactly 0 after the first convolution.
    """
    return jnp.where(x > 0, x, 0.2 * x)


class DigitsGenerator(nn.Module):
    """`[B, latent]` -> images `[B, 8, 8, 1]` in (−1, 1).

    Attributes:
        latent: Dimensions of the latent space.
        classes: The number of classes whose labels `[B]` it takes; 0: it takes no labels.
        image_range: What black and white are in its images; in those of other generators they are 0 and 1.
    """

    latent: int = 64
    classes: int = 0
    image_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.latent,)

    def prior(self, key: jax.Array, count: int) -> jax.Array:
        """Draw `count` latent vectors `[count, latent]`, normal(0, 1)."""
        return jax.random.normal(key, (count, self.latent))

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        check_input("DigitsGenerator", z, self.input_shape)
        x = append_labels(self, z, labels)[:, None, None, :]  # [B, 1, 1, latent + classes]
        x = nn.relu(ConvTranspose(64, 3, name="convt_1")(x))  # [B, 3, 3, 64]
        x = nn.relu(ConvTranspose(32, 3, name="convt_2")(x))  # [B, 5, 5, 32]
        return jnp.tanh(ConvTranspose(1, 4, name="convt_3")(x))  # [B, 8, 8, 1]


class DigitsDiscriminator(nn.Module):
    """Images `[B, 8, 8, 1]` in [−1, 1] -> logits `[B]`, positive for real.

    Attributes:
        classes: The number of classes whose labels `[B]` it takes; 0: it takes no labels.
    """

    classes: int = 0
    input_shape: ClassVar[tuple[int, ...]] = (8, 8, 1)

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        check_input("DigitsDiscriminator", x, self.input_shape)
        x = append_labels(self, x, labels)
        x = leaky_relu(Conv(16, 4, name="conv_1")(x))  # [B, 5, 5, 16]
        x = leaky_relu(Conv(32, 3, name="conv_2")(x))  # [B, 3, 3, 32]
        return Conv(1, 3, name="conv_3")(x).reshape(x.shape[0])  # [B, 1, 1, 1] -> [B]


dcgan_init: dict[str, Any] = {"weight_init": normal(0.02), "bias_init": nn.initializers.zeros}


class MnistGenerator(nn.Module):
    """`[B, latent]` -> images `[B, size, size, channels]` in (0, 1).

    By default the tutorial's, for 28×28. For other sizes transposed convolutions double the image from a side of 4 to
    7, and halve the channels each time, as in the DCGAN paper: 64×64 begins with 4×4×512.

    Attributes:
        latent: Dimensions of the latent space.
        size: Height and width of the images: 4, 5, 6 or 7 times a power of two.
        channels: 1 for gray images, 3 for colour.
        width: Channels of the largest feature map; those of all others are multiples of it.
        classes: The number of classes whose labels `[B]` it takes; 0: it takes no labels.
    """

    latent: int = 62
    size: int = 28
    channels: int = 1
    width: int = 64
    classes: int = 0

    def __post_init__(self) -> None:
        halvings(self.size)
        super().__post_init__()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.latent,)

    def prior(self, key: jax.Array, count: int) -> jax.Array:
        """Draw `count` latent vectors `[count, latent]`, uniform on [0, 1)."""
        return jax.random.uniform(key, (count, self.latent))

    @nn.compact
    def __call__(self, z: jax.Array, labels: jax.Array | None = None, train: bool = False) -> jax.Array:
        check_input("MnistGenerator", z, self.input_shape)
        side, doublings = halvings(self.size)  # of 28×28: 7 and 2, and the shapes in the comments
        maps = [self.width * 2**stage for stage in reversed(range(doublings))]  # [128, 64]
        x = append_labels(self, z, labels)
        x = Linear(16 * self.width, **dcgan_init, name="fc.0")(x)
        x = nn.relu(BatchNorm(name="fc.1")(x, train))
        x = Linear(maps[0] * side * side, **dcgan_init, name="fc.3")(x)
        x = nn.relu(BatchNorm(name="fc.4")(x, train))
        x = unflatten(x, side, side)  # [B, 7, 7, 128]
        for stage, features in enumerate(maps[1:]):
            x = ConvTranspose(features, 4, stride=2, padding=1, **dcgan_init, name=f"deconv.{3 * stage}")(x)
            x = nn.relu(BatchNorm(name=f"deconv.{3 * stage + 1}")(x, train))  # [B, 14, 14, 64]
        last = f"deconv.{3 * (doublings - 1)}"
        return nn.sigmoid(ConvTranspose(self.channels, 4, stride=2, padding=1, **dcgan_init, name=last)(x))


class MnistDiscriminator(nn.Module):
    """Images `[B, size, size, channels]` in [0, 1] -> logits `[B]`, positive for real.

    By default the tutorial's, for 28×28. For other sizes convolutions halve the image down to a side of 4 to 7, and
    double the channels each time.

    Attributes:
        size: As the generator's.
        channels: As the generator's.
        width: Channels of the largest feature map; those of all others are multiples of it.
        classes: The number of classes whose labels `[B]` it takes; 0: it takes no labels.
    """

    size: int = 28
    channels: int = 1
    width: int = 64
    classes: int = 0

    def __post_init__(self) -> None:
        halvings(self.size)
        super().__post_init__()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.size, self.size, self.channels)

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array | None = None, train: bool = False) -> jax.Array:
        check_input("MnistDiscriminator", x, self.input_shape)
        x = append_labels(self, x, labels)
        x = leaky_relu(Conv(self.width, 4, stride=2, padding=1, **dcgan_init, name="conv.0")(x))  # [B, 14, 14, 64]
        for stage in range(1, halvings(self.size)[1]):
            features = self.width * 2**stage
            x = Conv(features, 4, stride=2, padding=1, **dcgan_init, name=f"conv.{3 * stage - 1}")(x)
            x = leaky_relu(BatchNorm(name=f"conv.{3 * stage}")(x, train))  # [B, 7, 7, 128]
        x = Linear(16 * self.width, **dcgan_init, name="fc.0")(flatten(x))
        x = leaky_relu(BatchNorm(name="fc.1")(x, train))
        return Linear(1, **dcgan_init, name="fc.3")(x).reshape(x.shape[0])


def digits_recipe(
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Recipe[State]:
    """DCGAN on 8×8 digits, with three Adam steps in each training step.

    1. the discriminator on fakes: BCE(D(G(z₁)), 0);
    2. the discriminator on the real batch: BCE(D(x), 1);
    3. the generator with fresh noise of twice the batch: BCE(D(G(z₂)), 1).

    Each uses the networks as the step before left them. Batches are images `[B, 8, 8, 1]` in [−1, 1], and with
    conditional networks `(images, labels [B])`: fakes are made for the labels of the batch, in 3 twice for each.
    Metrics: `error_fake`, `error_real` (mean BCE) and `accuracy_fake`, `accuracy_real` (fraction of right answers) of
    the discriminator in 1 and 2.

    Args:
        generator: `DigitsGenerator()` by default; any `protocols.Generator`.
        discriminator: `DigitsDiscriminator()` by default; any `protocols.Discriminator` with the generator's `classes`.
        generator_optimizer: Adam with learning rate 1e-3 by default.
        discriminator_optimizer: Adam with learning rate 1e-3 by default.

    Returns:
        The recipe. Its variables are a mapping with the keys `generator` and `discriminator`.

    Raises:
        InputError: A network lacks something, or the two differ in their classes.
    """
    generator = generator or DigitsGenerator()
    discriminator = discriminator or DigitsDiscriminator()
    _check(generator, discriminator)
    generate: Callable[..., Any] = generator.apply
    discriminate: Callable[..., Any] = discriminator.apply
    generator_optimizer = generator_optimizer or optax.adam(1e-3)
    discriminator_optimizer = discriminator_optimizer or optax.adam(1e-3)

    def noise(key: jax.Array, batch_size: int) -> Noise:
        z = generator.prior(key, 3 * batch_size)
        return Noise(z[:batch_size], z[batch_size:])

    def discriminator_loss(
        params: Variables, images: jax.Array, given: Given, target: float
    ) -> tuple[jax.Array, jax.Array]:
        logits: jax.Array = discriminate({"params": params}, images, **given)
        right = (jax.nn.sigmoid(logits) < 0.5) == (target < 0.5)  # 0.5 itself counts as real
        return binary_cross_entropy(logits, target), right.sum(dtype=logits.dtype) * shards()

    def generator_loss(params: Variables, discriminator_params: Variables, z: jax.Array, given: Given) -> jax.Array:
        return discriminator_loss(discriminator_params, generate({"params": params}, z, **given), given, 1.0)[0]

    def update(state: State, batch: Any, noise: Noise) -> tuple[State, Metrics]:
        images, given = inputs_of(generator, batch)
        given_twice = {name: jnp.repeat(labels, 2) for name, labels in given.items()}  # so each device has its own
        g, d = state.generator["params"], state.discriminator["params"]
        learn = partial(descend, discriminator_optimizer)
        loss_and_gradient = jax.value_and_grad(discriminator_loss, has_aux=True)
        fake = generate({"params": g}, noise.z_discriminator, **given)
        (error_fake, right_fake), gradient = mean_over_shards(loss_and_gradient(d, fake, given, 0.0))
        d, d_optimizer = learn(gradient, state.discriminator_optimizer, d)
        (error_real, right_real), gradient = mean_over_shards(loss_and_gradient(d, images, given, 1.0))
        d, d_optimizer = learn(gradient, d_optimizer, d)
        gradient = mean_over_shards(jax.grad(generator_loss)(g, d, noise.z_generator, given_twice))
        g, g_optimizer = descend(generator_optimizer, gradient, state.generator_optimizer, g)

        one, count = jnp.ones_like(error_fake), jnp.full_like(error_fake, images.shape[0] * shards())
        metrics = {
            "error_fake": (error_fake, one),
            "error_real": (error_real, one),
            "accuracy_fake": (right_fake, count),
            "accuracy_real": (right_real, count),
        }
        return State({"params": g}, {"params": d}, g_optimizer, d_optimizer), metrics

    init = _initializer(generator, discriminator, generator_optimizer, discriminator_optimizer)
    return Recipe(init, noise, update, variables)


def mnist_recipe(
    generator: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    generator_optimizer: optax.GradientTransformation | None = None,
    discriminator_optimizer: optax.GradientTransformation | None = None,
) -> Recipe[State]:
    """DCGAN on MNIST, with one Adam step of each network in each training step.

    1. the discriminator: BCE(D(x), 1) + BCE(D(G(z₁)), 0), in two passes, each with its own batch's statistics;
    2. the generator with fresh noise: BCE(D(G(z₂)), 1), through the discriminator as 1 left it.

    All passes are in training mode: the discriminator's running statistics move three times, the generator's twice.
    Batches are images `[B, 28, 28, 1]` in [0, 1], or of the networks' size, and with conditional networks
    `(images, labels [B])`: fakes are made for the labels of the batch. An epoch's last, smaller batch is dropped.
    Metrics: `loss_discriminator`, `loss_generator`.

    Args:
        generator: `MnistGenerator()` by default; any `protocols.Generator` that is a `protocols.TrainMode` too.
        discriminator: `MnistDiscriminator()` by default; any `protocols.Discriminator` that is a `protocols.TrainMode`
            too, with the generator's `classes`.
        generator_optimizer: Adam with learning rate 2e-4 and β₁ 0.5 by default.
        discriminator_optimizer: Adam with learning rate 2e-4 and β₁ 0.5 by default.

    Returns:
        The recipe. Its variables are a mapping with the keys `generator` and `discriminator`.

    Raises:
        InputError: A network lacks something, or the two differ in their classes.
    """
    generator = generator or MnistGenerator()
    discriminator = discriminator or MnistDiscriminator()
    _check(generator, discriminator, protocols.TrainMode)
    generator_optimizer = generator_optimizer or optax.adam(2e-4, b1=0.5)
    discriminator_optimizer = discriminator_optimizer or optax.adam(2e-4, b1=0.5)

    def noise(key: jax.Array, batch_size: int) -> Noise:
        discriminator_key, generator_key = jax.random.split(key)
        return Noise(generator.prior(discriminator_key, batch_size), generator.prior(generator_key, batch_size))

    def run(network: nn.Module, variables: Variables, x: jax.Array, given: Given) -> tuple[jax.Array, Variables]:
        """The output in training mode, and the variables with the running statistics moved."""
        apply: Callable[..., Any] = partial(network.apply, train=True, mutable=["batch_stats"])
        output, moved = apply(variables, x, **given)
        return output, {**variables, **moved}

    def discriminator_loss(
        params: Variables, d: Variables, real: jax.Array, fake: jax.Array, given: Given
    ) -> tuple[jax.Array, Variables]:
        logits_real, d = run(discriminator, {**d, "params": params}, real, given)
        logits_fake, d = run(discriminator, d, fake, given)
        return binary_cross_entropy(logits_real, 1.0) + binary_cross_entropy(logits_fake, 0.0), d

    def generator_loss(
        params: Variables, g: Variables, d: Variables, z: jax.Array, given: Given
    ) -> tuple[jax.Array, tuple[Variables, Variables]]:
        fake, g = run(generator, {**g, "params": params}, z, given)
        logits, d = run(discriminator, d, fake, given)
        return binary_cross_entropy(logits, 1.0), (g, d)

    def update(state: State, batch: Any, noise: Noise) -> tuple[State, Metrics]:
        images, given = inputs_of(generator, batch)
        g, d = state.generator, state.discriminator
        fake, g = run(generator, g, noise.z_discriminator, given)
        (loss_d, d), gradient = jax.value_and_grad(discriminator_loss, has_aux=True)(
            d["params"], d, images, fake, given
        )
        loss_d, gradient = mean_over_shards((loss_d, gradient))
        params, d_optimizer = descend(discriminator_optimizer, gradient, state.discriminator_optimizer, d["params"])
        d = {**d, "params": params}
        (loss_g, (g, d)), gradient = jax.value_and_grad(generator_loss, has_aux=True)(
            g["params"], g, d, noise.z_generator, given
        )
        loss_g, gradient = mean_over_shards((loss_g, gradient))
        params, g_optimizer = descend(generator_optimizer, gradient, state.generator_optimizer, g["params"])
        g = {**g, "params": params}
        one = jnp.ones_like(loss_d)
        return State(g, d, g_optimizer, d_optimizer), {
            "loss_discriminator": (loss_d, one),
            "loss_generator": (loss_g, one),
        }

    init = _initializer(generator, discriminator, generator_optimizer, discriminator_optimizer)
    return Recipe(init, noise, update, variables, smallest_batch=None)


def _check(generator: nn.Module, discriminator: nn.Module, *more: type) -> None:
    """Raise `InputError` unless the two networks offer what a recipe needs, and are conditional on the same classes."""
    protocols.check("generator", generator, protocols.Generator, *more)
    protocols.check("discriminator", discriminator, protocols.Discriminator, *more)
    classes = classes_of(generator), classes_of(discriminator)
    if classes[0] != classes[1]:
        raise InputError(f"the generator has classes={classes[0]}, the discriminator {classes[1]}: give both the same")


def _initializer(
    generator: nn.Module,
    discriminator: nn.Module,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
) -> Callable[..., State]:
    """The recipes' `init(key, weights=None)`; `weights` is `{"generator": variables, "discriminator": variables}`."""

    def init(key: jax.Array, weights: Variables | None = None) -> State:
        if weights is None:
            generator_key, discriminator_key = jax.random.split(key)
            weights = {
                "generator": init_variables(generator, generator_key),
                "discriminator": init_variables(discriminator, discriminator_key),
            }
        g, d = (jax.tree.map(jnp.array, weights[name]) for name in ("generator", "discriminator"))
        return State(g, d, generator_optimizer.init(g["params"]), discriminator_optimizer.init(d["params"]))

    return init


def variables(state: State) -> dict[str, Variables]:
    """Return both networks' variables, with the keys `generator` and `discriminator`."""
    return {"generator": state.generator, "discriminator": state.discriminator}


def discriminator_has_won(metrics: Mapping[str, float]) -> bool:
    """Whether the sum of the discriminator's two errors in an epoch is below 0.005.

    It is then right with a probability of more than 99.5 %, and its answers hardly depend on what the generator
    changes. Arjovsky and Bottou, "Towards principled methods for training generative adversarial networks", 2017
    (https://arxiv.org/abs/1701.04862).

    Args:
        metrics: The means of an epoch, of either recipe.

    Returns:
        True if the generator has little left to learn from.
    """
    if "loss_discriminator" in metrics:
        return metrics["loss_discriminator"] < 0.005
    return metrics["error_fake"] + metrics["error_real"] < 0.005


WON = "the discriminator has won: its errors are near 0, and the generator learns little from it"

BATCH = 100  # images that are drawn at a time: few enough for a processor's caches


def sample(
    generator: nn.Module,
    variables: Variables,
    key: jax.Array,
    count: int,
    labels: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Generate images from the generator's prior, in evaluation mode.

    Args:
        generator: The network.
        variables: Its variables, as in `recipe.variables(state)["generator"]`.
        key: What the latent vectors are drawn with.
        count: Number of images.
        labels: For a conditional generator, the classes `[count]`, or one for all; by default 0, 1, 2 … in turn.

    Returns:
        Images `[count, H, W, C]`.

    Raises:
        InputError: The labels are not classes of the generator, or not `count`.
    """
    if labels is None and classes_of(generator):
        labels = jnp.arange(count) % classes_of(generator)
    images: jax.Array = _sample(generator, variables, key, count, given_labels(generator, labels, count))
    return images


@partial(jax.jit, static_argnums=(0, 3))
def _sample(generator: nn.Module, variables: Variables, key: jax.Array, count: int, given: Given) -> jax.Array:
    z = generator.prior(key, count)
    images: jax.Array = in_batches(lambda inputs: generator.apply(variables, inputs[0], **inputs[1]), (z, given), BATCH)
    return images
