"""A convolutional variational autoencoder on MNIST, 32×32, with a latent space small enough to look at.

Kingma and Welling, "Auto-encoding variational Bayes", 2013 (https://arxiv.org/abs/1312.6114), with the networks of a
PyTorch tutorial.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.from_loss import State, recipe_from_loss
from jaxgen.layers import BatchNorm, Conv, ConvTranspose, Linear, MaxPool, check_input, in_batches
from jaxgen.losses import bernoulli_cross_entropy, gaussian_kl
from jaxgen.parallel import shards
from jaxgen.training import Metrics, PyTree, Recipe

__all__ = ["ConvVAE", "Noise", "Output", "State", "decode", "elbo_terms", "encode", "evaluate", "morph", "recipe"]


BATCH = 100  # images that are encoded or decoded at a time in evaluation: few enough for a processor's caches


class Output(NamedTuple):
    """What the network returns."""

    mean: jax.Array  # [B, latent]
    log_variance: jax.Array  # [B, latent]
    z: jax.Array  # [B, latent]
    reconstruction: jax.Array  # [B, 32, 32, 1], in (0, 1)


class ConvBNAct(nn.Module):
    """A layer, batch norm and an activation, with the parameter names of a `torch.nn.Sequential`.

    Attributes:
        layer: Makes the layer, given its name.
        activation: Applied last.
    """

    layer: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return self.activation(BatchNorm(name="1")(self.layer(name="0")(x), train))


class Head(nn.Module):
    """A linear layer, with the parameter names of a `torch.nn.Sequential`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Linear(self.features, name="0")(x)


class ConvVAE(nn.Module):
    """Images `[B, 32, 32, 1]` in [0, 1] and epsilon `[B, latent]`, normal(0, 1) -> `Output`.

    Without epsilon, z is the mean.

    Attributes:
        latent: Dimensions of the latent space.
    """

    latent: int = 2
    input_shape: ClassVar[tuple[int, int, int]] = (32, 32, 1)

    def setup(self) -> None:
        self.conv1 = ConvBNAct(partial(Conv, 64, 3, padding=1))
        self.conv2 = ConvBNAct(partial(Conv, 128, 3, padding=1))
        self.conv3 = ConvBNAct(partial(Conv, 256, 3, padding=1))
        self.conv4 = ConvBNAct(partial(Conv, 512, 4))
        self.pool = MaxPool(2)
        self.mean = Head(self.latent)
        self.var = Head(self.latent)  # log σ²; the name is the tutorial's
        self.decoder = ConvBNAct(partial(Linear, 512))
        self.convTrans1 = ConvBNAct(partial(ConvTranspose, 256, 4, stride=2))
        self.convTrans2 = ConvBNAct(partial(ConvTranspose, 128, 4, stride=2, padding=1))
        self.convTrans3 = ConvBNAct(partial(ConvTranspose, 64, 4, stride=2, padding=1))
        self.convTrans4 = ConvBNAct(partial(ConvTranspose, 1, 4, stride=2, padding=1), nn.sigmoid)

    def __call__(self, images: jax.Array, epsilon: jax.Array | None = None, train: bool = False) -> Output:
        mean, log_variance = self.encode(images, train)
        z = mean if epsilon is None else mean + epsilon * jnp.exp(0.5 * log_variance)
        return Output(mean, log_variance, z, self.decode(z, train))

    def encode(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Compute mean and log σ² of the latent codes of images `[B, 32, 32, 1]`, `[B, latent]` each."""
        check_input("ConvVAE", images, self.input_shape)
        x = self.pool(self.conv1(images, train))  # [B, 16, 16, 64]
        x = self.pool(self.conv2(x, train))  # [B, 8, 8, 128]
        x = self.pool(self.conv3(x, train))  # [B, 4, 4, 256]
        x = self.conv4(x, train).reshape(images.shape[0], 512)  # [B, 1, 1, 512] -> [B, 512]
        return self.mean(x), self.var(x)

    def decode(self, z: jax.Array, train: bool = False) -> jax.Array:
        """Compute images `[B, 32, 32, 1]` in (0, 1) from latent codes `[B, latent]`."""
        check_input("ConvVAE.decode", z, (self.latent,))
        x = self.decoder(z, train)[:, None, None, :]  # [B, 1, 1, 512]
        x = self.convTrans1(x, train)  # [B, 4, 4, 256]
        x = self.convTrans2(x, train)  # [B, 8, 8, 128]
        x = self.convTrans3(x, train)  # [B, 16, 16, 64]
        return self.convTrans4(x, train)


class Noise(NamedTuple):
    """The random numbers of one step."""

    epsilon: jax.Array  # [B, latent], normal(0, 1)


def recipe(
    latent: int = 2, module: nn.Module | None = None, optimizer: optax.GradientTransformation | None = None
) -> Recipe[State]:
    """Minimise the negative evidence lower bound, summed over the batch and all pixels.

    Batches are images `[B, 32, 32, 1]` in [0, 1]. Metrics, in nats an image: `loss`, and its two terms
    `reconstruction` and `kl`.

    Args:
        latent: Dimensions of the latent space.
        module: The network; `ConvVAE(latent)` by default. A module of one's own has the attribute `latent`.
        optimizer: By default Adam with learning rate 1e-3 and PyTorch's `weight_decay` of 1e-5, which is added to the
            gradient of every parameter before the moments (that is not AdamW).

    Returns:
        The recipe.
    """
    module = module or ConvVAE(latent)
    optimizer = optimizer or optax.chain(optax.add_decayed_weights(1e-5), optax.adam(1e-3))

    def noise(key: jax.Array, batch_size: int) -> Noise:
        return Noise(jax.random.normal(key, (batch_size, module.latent)))

    def negative_elbo(variables: PyTree, images: jax.Array, noise: Noise) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        output, updated = module.apply(variables, images, noise.epsilon, True, mutable=["batch_stats"])
        reconstruction, kl = (shards() * term for term in elbo_terms(output, images))
        loss = reconstruction + kl
        count = jnp.full_like(loss, images.shape[0] * shards())
        metrics = {"loss": (loss, count), "reconstruction": (reconstruction, count), "kl": (kl, count)}
        return loss, (metrics, updated)

    return recipe_from_loss(
        module,
        optimizer,
        negative_elbo,
        noise=noise,
        mutable=("batch_stats",),
        smallest_batch=2,  # batch norm needs two
    )


def elbo_terms(output: Output, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two terms of the negative evidence lower bound, in nats, summed over the batch.

    Args:
        output: What the network returns for `images`.
        images: `[B, 32, 32, 1]` in [0, 1].

    Returns:
        The reconstruction's cross-entropy, and the KL divergence of the latent codes from their prior.
    """
    return bernoulli_cross_entropy(output.reconstruction, images), gaussian_kl(output.mean, output.log_variance)


@partial(jax.jit, static_argnums=0)
def evaluate(
    module: nn.Module, variables: PyTree, images: jax.Array | np.ndarray, epsilon: jax.Array | np.ndarray
) -> dict[str, jax.Array]:
    """Compute the loss and its two terms in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        images: `[N, 32, 32, 1]` in [0, 1].
        epsilon: `[N, latent]`, normal(0, 1).

    Returns:
        `loss`, `reconstruction` and `kl`, in nats an image.
    """

    apply: Callable[..., Any] = module.apply

    def of_each(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jax.vmap(elbo_terms)(apply(variables, *pair), pair[0])

    each = in_batches(of_each, (images, epsilon), BATCH)
    reconstruction, kl = (term.mean() for term in each)
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


@partial(jax.jit, static_argnums=0)
def encode(module: nn.Module, variables: PyTree, images: jax.Array | np.ndarray) -> jax.Array:
    """Compute the means of images' latent codes, in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        images: `[N, 32, 32, 1]` in [0, 1].

    Returns:
        `[N, latent]`.
    """
    means: jax.Array = in_batches(lambda batch: module.apply(variables, batch, method="encode")[0], images, BATCH)
    return means


@partial(jax.jit, static_argnums=0)
def decode(module: nn.Module, variables: PyTree, z: jax.Array | np.ndarray) -> jax.Array:
    """Decode latent codes, in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        z: `[N, latent]`.

    Returns:
        Images `[N, 32, 32, 1]` in (0, 1).
    """
    images: jax.Array = in_batches(lambda batch: module.apply(variables, batch, method="decode"), z, BATCH)
    return images


def morph(module: nn.Module, variables: PyTree, points: jax.Array, frames: int) -> jax.Array:
    """Decode points along the straight lines from each latent point to the next.

    Args:
        module: The network.
        variables: Its variables.
        points: `[P, latent]`, at least two.
        frames: Images from one point to the next, including the first point's.

    Returns:
        Images `[(P − 1)·frames + 1, 32, 32, 1]` in (0, 1).
    """
    share = jnp.arange(frames)[:, None] / frames
    lines = [start + share * (end - start) for start, end in pairwise(points)]
    images: jax.Array = decode(module, variables, jnp.concatenate([*lines, points[-1:]]))
    return images
