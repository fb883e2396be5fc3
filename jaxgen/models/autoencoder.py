"""A convolutional autoencoder for small colour images, whose encoder and decoder can be replaced."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import protocols
from jaxgen.errors import InputError
from jaxgen.from_loss import Noise, State, recipe_from_loss
from jaxgen.layers import Conv, ConvTranspose, MaxPool, in_batches
from jaxgen.losses import mean_squared_error
from jaxgen.training import Metrics, PyTree, Recipe

__all__ = [
    "ConvAutoencoder",
    "Decoder",
    "Encoder",
    "Noise",
    "PixelNoise",
    "State",
    "code_size",
    "evaluate",
    "recipe",
    "reconstruct",
]


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


class PixelNoise(NamedTuple):
    """The random numbers of one step of a denoising autoencoder."""

    pixels: jax.Array  # [B, H, W, C], normal(0, 1)


def recipe(
    module: nn.Module | None = None, optimizer: optax.GradientTransformation | None = None, noise: float = 0.0
) -> Recipe[State]:
    """Reconstruct images by the mean squared error.

    Batches are images `[B, H, W, C]` in [0, 1]. Metric: `loss`.

    With `noise` it is a denoising autoencoder: Gaussian noise is added to the images that the network is given, and
    it learns to restore the images without it (Vincent et al., "Extracting and composing robust features with denoising
    autoencoders", 2008, https://doi.org/10.1145/1390156.1390294). Noisy pixels are not clipped.

    Args:
        module: The network; `ConvAutoencoder()` by default.
        optimizer: Adam with learning rate 1e-3 by default.
        noise: Standard deviation of the noise; 0 for none.

    Returns:
        The recipe. Its `init` raises `ValueError` for a module that keeps more than parameters.

    Raises:
        InputError: The module lacks something, or the noise is negative.
    """
    module = module or ConvAutoencoder()
    protocols.check("module", module, protocols.Network)
    if not noise >= 0:
        raise InputError(f"noise {noise}: must be a standard deviation, 0 or more")
    apply: Callable[..., Any] = module.apply

    def loss(
        variables: PyTree, images: jax.Array, drawn: Noise | PixelNoise
    ) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        given = images + noise * drawn.pixels if isinstance(drawn, PixelNoise) else images
        error = mean_squared_error(apply(variables, given), images)
        return error, ({"loss": (error, jnp.ones_like(error))}, {})

    def draw(key: jax.Array, batch_size: int) -> Noise | PixelNoise:
        return PixelNoise(jax.random.normal(key, (batch_size, *module.input_shape))) if noise else Noise()

    return recipe_from_loss(module, optimizer or optax.adam(1e-3), loss, noise=draw)


@partial(jax.jit, static_argnums=0)
def reconstruct(module: nn.Module, variables: PyTree, images: jax.Array | np.ndarray) -> jax.Array:
    """Reconstruct images, fifty at a time, which fit into a processor's caches.

    Args:
        module: The autoencoder.
        variables: Its variables.
        images: `[N, H, W, C]` in [0, 1].

    Returns:
        `[N, H, W, C]`.
    """
    reconstructions: jax.Array = in_batches(lambda batch: module.apply(variables, batch), images, 50)
    return reconstructions


def code_size(module: nn.Module) -> int:
    """How many numbers the code of an image has.

    Args:
        module: The autoencoder.
    """
    images = jnp.zeros((1, *module.input_shape))

    def encode(module: nn.Module, images: jax.Array) -> jax.Array:
        code: jax.Array = module.enc(images)
        return code

    code = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), images, method=encode)[0])
    return math.prod(code.shape[1:])


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
