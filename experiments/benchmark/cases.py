"""The recipes as both systems run them: the data, the batch, and what is generated at the end."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import data
from jaxgen.data import Images, originals
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.training import PyTree, Recipe, Source

LENGTH = 28  # rows in a window of the row completer


class Case(NamedTuple):
    """One recipe. Images are integers [N, H, W, C] where nothing else is said."""

    command: tuple[str, ...]  # the experiment's module, and its options
    data: str  # a name that `jaxgen.data.load` knows
    shape: tuple[int, int, int]  # of the images, which are resized to it
    batch_size: int
    recipe: Recipe
    generated: str  # what `generate` makes, in words
    generate: Callable[[PyTree, jax.Array], jax.Array]  # (recipe.variables(state), given) -> float images
    given: Callable[[np.ndarray], np.ndarray]  # (float images) -> what `generate` starts from, in either system
    low: float = 0.0  # the range of the float images
    windows: bool = False  # the examples are the images' windows

    def source(self, images: Images) -> Source:
        if self.windows:
            return completion.windows(images.images, LENGTH, white=images.white)
        return jaxgen.scaled(images.images, self.low, 1.0, white=images.white)

    def floats(self, images: Images) -> np.ndarray:
        """The images as PyTorch is given them, float32 from `low` to 1."""
        return np.asarray(images.images, np.float32) / images.white * (1.0 - self.low) + self.low


def rows(cell: str) -> Case:
    module = completion.RowCompleter(cell)
    return Case(
        ("experiments.rnn_complete", "--cell", cell),
        "faces",
        (56, 56, 1),
        batch_size=32,
        recipe=completion.recipe(cell),
        windows=True,
        generated="10 images completed",
        generate=lambda variables, images: completion.complete(module, variables, images, LENGTH),
        given=lambda images: images[:10],
    )


def colour_images() -> Case:
    module = autoencoder.ConvAutoencoder()
    return Case(
        ("experiments.conv_autoencoder",),
        "cifar10",
        (32, 32, 3),
        batch_size=50,
        recipe=autoencoder.recipe(module),
        generated="10,000 images reconstructed",
        generate=lambda variables, images: autoencoder.reconstruct(module, variables, images),
        given=lambda images: images[:10_000],
    )


def mnist() -> Case:
    generator = dcgan.MnistGenerator()
    return Case(
        ("experiments.dcgan_mnist",),
        "mnist",
        (28, 28, 1),
        batch_size=128,
        recipe=dcgan.mnist_recipe(generator),
        generated="10,000 digits sampled",
        generate=lambda variables, z: sample(generator, variables, len(z)),
        given=lambda images: np.random.default_rng(0).random((10_000, 62), np.float32),
    )


def digits() -> Case:
    generator = dcgan.DigitsGenerator()
    return Case(
        ("experiments.dcgan_digits",),
        "digits",
        (8, 8, 1),
        batch_size=16,
        recipe=dcgan.digits_recipe(generator),
        low=-1.0,
        generated="10,000 digits sampled",
        generate=lambda variables, z: sample(generator, variables, len(z)),
        given=lambda images: np.random.default_rng(0).standard_normal((10_000, 64), np.float32),
    )


def sample(generator: Any, variables: PyTree, count: int) -> jax.Array:
    """Ours draws its own latent vectors; PyTorch is spared that and is given them."""
    return dcgan.sample(generator, variables["generator"], jax.random.key(0), count)


def latent_plane() -> Case:
    module = vae.ConvVAE()
    axis = np.linspace(-3, 3, 40, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return Case(
        ("experiments.vae_mnist",),
        "mnist",
        (32, 32, 1),
        batch_size=30,
        recipe=vae.recipe(),
        generated="40 × 40 latent grid decoded",
        generate=lambda variables, z: vae.decode(module, variables, z),
        given=lambda images: grid,
    )


CASES: dict[str, Callable[[], Case]] = {
    "dcgan_digits": digits,
    "conv_autoencoder": colour_images,
    "rnn_lstm": lambda: rows("lstm"),
    "rnn_gru": lambda: rows("gru"),
    "dcgan_mnist": mnist,
    "vae_mnist": latent_plane,
}
GROUPS = {"rnn_complete": ["rnn_lstm", "rnn_gru"]}  # an experiment that is more than one case

COUNTS = {"mnist": {"train": 60_000, "test": 10_000}, "cifar10": {"train": 50_000, "test": 10_000}}
load_real = data.load


def at_hand(name: str) -> bool:
    """Whether the data is here, so that nothing need be fetched."""
    return name not in originals.COLLECTIONS or name in originals.at_hand()


def load(name: str, split: str = "train", *, size: Any = None, channels: int | None = None, **options: Any) -> Images:
    """`jaxgen.data.load`, with random images in the place of originals that are not at hand."""
    if at_hand(name):
        return load_real(name, split, size=size, channels=channels, **options)
    height, width, depth = originals.COLLECTIONS[name].shape
    return random_images((COUNTS[name][split], *(size or (height, width)), channels or depth))


def random_images(shape: tuple[int, ...]) -> Images:
    """Bytes that mean nothing, `[N, H, W, C]`, in ten classes."""
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return Images(jnp.asarray(pixels), jnp.arange(shape[0], dtype=jnp.int32) % 10, 255)
