"""The images that are trained on: the recipe's own, or, where they are not here, random ones."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen import data
from jaxgen.data import Images, originals

COUNTS = {  # of the originals that may have to be replaced
    "mnist": {"train": 60_000, "test": 10_000},
    "cifar10": {"train": 50_000, "test": 10_000},
}
load_real = data.load


def at_hand(name: str) -> bool:
    """Whether nothing would have to be fetched."""
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
