"""A convolutional autoencoder for small colour images, whose encoder and decoder can be replaced."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.from_loss import Noise, State, recipe_from_loss
from jaxgen.layers import Conv, ConvTranspose, MaxPool, in_batches
from jaxgen.losses import mean_squared_error
from jaxgen.training import Metrics, PyTree, Recipe

__all__ = ["ConvAutoencoder", "Decoder", "Encoder", "Noise", "State", "evaluate", "recipe", "reconstruct"]


class Encoder(nn.Module):
    """Images `[B, H, W, C]` -> a code `[B, H/4, W/4, 8]`: 512 numbers for 32×32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = MaxPool(2, name="2")(nn.relu(Conv(16, 3, padding=1, name="0")(x)))  # [B, H/2, W/2, 16]
        return MaxPool(2, name="5")(nn.relu(Conv(8, 3, padding=1, name="3")(x)))  # [B, H/4, W/4, 8]


class Decoder(nn.Module):
    """A code `[B, H, W, 8]` -> images `[B, 4H, 4W, channels]` in (0, 1)."""

    channels: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(ConvTranspose(16, 2, stride=2, name="0")(x))  # [B, 2H, 2W, 16]
        return nn.sigmoid(ConvTranspose(self.channels, 2, stride=2, name="2")(x))


class ConvAutoencoder(nn.Module):
    """Images `[B, *input_shape]` -> their reconstructions.

    Attributes:
        encoder: Any module that keeps nothing but parameters (no running statistics, unlike batch norm).
        decoder: Any such module that maps the encoder's output back to the shape of the images.
        input_shape: Height, width and channels of the images.
    """

    encoder: nn.Module = Encoder()
    decoder: nn.Module = Decoder()
    input_shape: tuple[int, int, int] = (32, 32, 3)

    def setup(self) -> None:
        self.enc, self.dec = self.encoder.clone(), self.decoder.clone()  # under the names that PyTorch's weights have

    def __call__(self, images: jax.Array) -> jax.Array:
        reconstructions: jax.Array = self.dec(self.enc(images))
        if reconstructions.shape != images.shape:
            raise ValueError(f"images {images.shape} come back as {reconstructions.shape}")
        return reconstructions


def recipe(module: nn.Module | None = None, optimizer: optax.GradientTransformation | None = None) -> Recipe[State]:
    """Reconstruct images by the mean squared error.

    Batches are images `[B, H, W, C]` in [0, 1]. Metric: `loss`.

    Args:
        module: The network; `ConvAutoencoder()` by default.
        optimizer: Adam with learning rate 1e-3 by default.

    Returns:
        The recipe. Its `init` raises `ValueError` for a module that keeps more than parameters.
    """
    module = module or ConvAutoencoder()
    apply: Callable[..., Any] = module.apply

    def loss(variables: PyTree, images: jax.Array, noise: Noise) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        error = mean_squared_error(apply(variables, images), images)
        return error, ({"loss": (error, jnp.ones_like(error))}, {})

    return recipe_from_loss(module, optimizer or optax.adam(1e-3), loss)


@partial(jax.jit, static_argnums=0)
def reconstruct(module: nn.Module, variables: PyTree, images: jax.Array | np.ndarray) -> jax.Array:
    """Reconstruct images, a hundred at a time, which fit into a processor's caches.

    Args:
        module: The autoencoder.
        variables: Its variables.
        images: `[N, H, W, C]` in [0, 1].

    Returns:
        `[N, H, W, C]`.
    """
    reconstructions: jax.Array = in_batches(lambda batch: module.apply(variables, batch), images, 100)
    return reconstructions


@partial(jax.jit, static_argnums=0)
def evaluate(module: nn.Module, variables: PyTree, images: jax.Array | np.ndarray) -> jax.Array:
    """Compute the mean squared error of the reconstructions over all pixels.

    Args:
        module: The autoencoder.
        variables: Its variables.
        images: `[N, H, W, C]` in [0, 1].

    Returns:
        A scalar.
    """
    return mean_squared_error(reconstruct(module, variables, images), jnp.asarray(images))
