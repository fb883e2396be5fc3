"""The recipes as both systems run them: their settings, their data, and what is generated from the trained model."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen.data import Images
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.precision import in_precision
from jaxgen.runs import DataConfig
from jaxgen.training import PyTree, Source

Precision = Literal["float32", "bf16"]


class Case(NamedTuple):
    """An experiment with its default settings. Images are integers `[N, H, W, C]` unless said otherwise."""

    experiment: ModuleType
    config: DataConfig
    shape: tuple[int, int, int]  # of an image
    low: float  # pixels are scaled to [low, 1]
    generated: str  # what `generate` makes, in words
    generate: Callable[[PyTree, jax.Array], jax.Array]  # (variables, given) -> float images
    given: Callable[[np.ndarray], np.ndarray]  # (float images) -> the input of both systems' generation
    length: int | None = None  # for completion: rows in a window
    options: tuple[str, ...] = ()  # with which the experiment's command has this `config`

    @property
    def command(self) -> tuple[str, ...]:
        """The module and the options, as after `python -m`."""
        return (self.experiment.__name__, *self.options)

    @property
    def recipe(self) -> jaxgen.Recipe[Any]:
        recipe: jaxgen.Recipe[Any] = self.experiment.recipe(self.config)
        return in_precision(recipe, self.config.precision)

    def source(self, images: Images) -> Source:
        if self.length:
            return completion.windows(images.images, self.length, white=images.white)
        return jaxgen.scaled(images.images, self.low, 1.0, white=images.white)

    def floats(self, images: Images) -> np.ndarray:
        """Return the images as PyTorch gets them: float32 in [low, 1]."""
        return images.as_floats() * (1.0 - self.low) + self.low


def completer(cell: Literal["lstm", "gru"]) -> Case:
    length, module = 28, completion.RowCompleter(cell)
    return Case(
        rnn_complete,
        rnn_complete.Config(cell=(cell,)),
        (56, 56, 1),
        low=0.0,
        generated="10 images completed",
        generate=lambda variables, images: completion.complete(module, variables, images, length),
        given=lambda images: images[:10],
        length=length,
        options=("--cell", cell),
    )


def reconstructor() -> Case:
    module = autoencoder.ConvAutoencoder()
    return Case(
        conv_autoencoder,
        conv_autoencoder.Config(),
        (32, 32, 3),
        low=0.0,
        generated="10,000 images reconstructed",
        generate=lambda variables, images: autoencoder.reconstruct(module, variables, images),
        given=lambda images: images[:10_000],
    )


def sampler(
    experiment: ModuleType,
    generator: dcgan.DigitsGenerator | dcgan.MnistGenerator,
    shape: tuple[int, int, int],
    low: float,
) -> Case:
    """jaxgen draws its latent vectors within the measured time; PyTorch gets them ready-made."""

    def generate(variables: PyTree, z: jax.Array) -> jax.Array:
        samples: jax.Array = dcgan.sample(generator, variables["generator"], jax.random.key(0), len(z))
        return samples

    def given(images: np.ndarray) -> np.ndarray:
        return np.asarray(generator.prior(jax.random.key(0), 10_000))

    return Case(experiment, experiment.Config(), shape, low, "10,000 digits sampled", generate, given)


def decoder() -> Case:
    module = vae.ConvVAE()
    axis = np.linspace(-3, 3, 40, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return Case(
        vae_mnist,
        vae_mnist.Config(),
        (32, 32, 1),
        low=0.0,
        generated="40 × 40 latent grid decoded",
        generate=lambda variables, z: vae.decode(module, variables, z),
        given=lambda images: grid,
    )


CASES: dict[str, Callable[[], Case]] = {
    "dcgan_digits": lambda: sampler(dcgan_digits, dcgan.DigitsGenerator(), (8, 8, 1), low=-1.0),
    "conv_autoencoder": reconstructor,
    "rnn_lstm": lambda: completer("lstm"),
    "rnn_gru": lambda: completer("gru"),
    "dcgan_mnist": lambda: sampler(dcgan_mnist, dcgan.MnistGenerator(), (28, 28, 1), low=0.0),
    "vae_mnist": decoder,
}
GROUPS = {"rnn_complete": ("rnn_lstm", "rnn_gru")}  # experiments that are several cases
