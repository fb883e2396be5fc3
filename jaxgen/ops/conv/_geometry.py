"""The geometry of a convolution, shared by all of its implementations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]  # height, width


class Geometry(NamedTuple):
    """The sizes of both images and of the kernel, and how the kernel moves.

    Pixel m of the small image and tap t of the kernel meet pixel stride·m + dilation·t − padding of the large image.
    """

    large: Pair
    small: Pair
    window: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


def pad(image: jax.Array, rows: Pair, columns: Pair) -> jax.Array:
    """Add rows and columns of zeros around `[B, H, W, C]`; negative numbers remove some."""
    if rows == columns == (0, 0):
        return image
    return lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
