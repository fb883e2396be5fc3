"""Winograd's minimal filtering: convolutions with fewer multiplications.

F(m×m, r×r) computes m² pixels of an r×r convolution of stride 1 from a tile d of (m + r − 1)² pixels of the image with
(m + r − 1)² multiplications instead of m²·r²: y = Aᵀ [(G k Gᵀ) ⊙ (Bᵀ d B)] A, summed over channels inside the brackets.
Over all tiles and channels each of them is one matrix product (Lavin and Gray, arXiv:1509.09308).

Treating every s×s block of pixels as one pixel with s² times the channels (space to depth) turns a convolution of
stride s and r·s taps into one of stride 1 and r taps. Below, C counts the channels of the depth.

Rounding errors grow with the size of the tiles. In float32, tiles of three and four pixels a side round as the plain
sum does; F(4×4, 2×2) and F(4×4, 3×3) were no faster still, and rounded six times worse. In bfloat16 all of them round
worse, so 16-bit inputs use the plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgen.ops.conv._geometry import Geometry, Pair, pad
from jaxgen.ops.conv._matmul import gram

Table = list[list[jax.Array]]

POINTS = 0.0, 1.0, -1.0  # at which polynomials are evaluated, besides infinity

# Measured on the CPU, as the sizes from which Winograd's form is faster.
WIDE = 64  # channels of both images, the large one's counted in depth
MANY = 32  # tiles in the whole batch
FEWER = 0.75  # multiplications as a fraction of those of the plain sum: it must need less


class Winograd(NamedTuple):
    """F(pixels, taps) along each axis."""

    pixels: int
    taps: int

    def matrices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Aᵀ, G and Bᵀ, from Toom's and Cook's multiplication of polynomials: both factors are evaluated at as many
        points as the product has coefficients, which Lagrange's polynomials give back; all of it transposed."""
        points = np.array(POINTS[: self.pixels + self.taps - 2])
        others = [np.delete(points, n) for n in range(len(points))]
        scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
        pixels, taps = (np.vander(points, n, increasing=True) for n in self)
        image = [np.append(np.poly(rest)[::-1], 0) for rest in others] + [np.poly(points)[::-1]]
        return (
            np.vstack([pixels, np.eye(self.pixels)[-1]]).T,
            np.vstack([taps / np.array(scales)[:, None], np.eye(self.taps)[-1]]),
            np.array(image),
        )

    def tiles(self, size: Pair) -> Pair:
        return -(-size[0] // self.pixels), -(-size[1] // self.pixels)

    def image_size(self, size: Pair) -> Pair:
        """Of the image that whole tiles for so many pixels are cut from."""
        rows, columns = (n * self.pixels + self.taps - 1 for n in self.tiles(size))
        return rows, columns


def choose(geometry: Geometry, images: jax.Array, channels: tuple[int, ...], size: Pair) -> Winograd | None:
    """The form that takes the fewest multiplications, where it pays.

    Args:
        images: what is transformed tile by tile, or any other of as many images and of its dtype.
        channels: of the large and of the small image.
        size: of what comes out of the tiles: the small image, or the large one in depth.
    """
    step = geometry.stride[0]
    taps = geometry.window[0] // step
    square = geometry.stride == (step, step) and geometry.window == (taps * step, taps * step)
    if not square or taps not in (2, 3) or geometry.dilation != (1, 1):
        return None
    if images.dtype not in (jnp.float32, jnp.float64) or min(step * step * channels[0], channels[1]) < WIDE:
        return None

    def multiplications(form: Winograd) -> int:
        return math.prod(tiles * (form.pixels + taps - 1) for tiles in form.tiles(size))

    form = min((Winograd(pixels, taps) for pixels in (2, 3) if pixels + taps < 6), key=multiplications)
    fewer = multiplications(form) < FEWER * taps * taps * math.prod(geometry.small)
    return form if fewer and images.shape[0] * math.prod(form.tiles(size)) >= MANY else None


def conv(form: Winograd, geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    depth = _to_depth(large, geometry.stride[0], geometry.padding, form.image_size(geometry.small))
    taps = _transform(form.matrices()[1], _table(_taps_to_depth(kernel, form.taps)))
    return _convolve(form, depth, taps, geometry.small)


def conv_transpose(form: Winograd, geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    step, (start, size) = geometry.stride[0], depth_range(geometry)
    margin = [form.taps - 1 - first for first in start]
    (height, width), (rows, columns) = small.shape[1:3], form.image_size(size)
    small = pad(small, (margin[0], rows - margin[0] - height), (margin[1], columns - margin[1] - width))
    taps = _transform(form.matrices()[1], _table(_taps_to_depth(kernel, form.taps)[::-1, ::-1]))
    depth = _convolve(form, small, [[tap.T for tap in row] for row in taps], size)
    large = _from_depth(depth, step)
    top, left = (pixels - step * first for pixels, first in zip(geometry.padding, start, strict=True))
    return large[:, top : top + geometry.large[0], left : left + geometry.large[1]]


def kernel_grad(form: Winograd, geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    """The transpose by the kernel: Gᵀ [(Bᵀ d B)ᵀ (A y Aᵀ)] G."""
    to_pixels, to_taps, _ = form.matrices()
    channels, step, (rows, columns) = small.shape[3], geometry.stride[0], form.tiles(geometry.small)
    depth = _to_depth(large, step, geometry.padding, form.image_size(geometry.small))
    (height, width), m = geometry.small, form.pixels
    small = pad(small, (0, rows * m - height), (0, columns * m - width)).reshape(-1, rows, m, columns, m, channels)
    tiles = [[small[:, :, i, :, j].reshape(-1, channels) for j in range(m)] for i in range(m)]
    products = [
        [gram(tile, pixel, tile.shape[1])[0] for tile, pixel in zip(*row, strict=True)]
        for row in zip(_tiles(form, depth, geometry.small), _transform(to_pixels.T, tiles), strict=True)
    ]
    kernel = jnp.stack([jnp.stack(row) for row in _transform(to_taps.T, products)])
    kernel = kernel.reshape(form.taps, form.taps, step, step, large.shape[3], channels)
    return kernel.swapaxes(1, 2).reshape(*geometry.window, large.shape[3], channels)


def _convolve(form: Winograd, image: jax.Array, taps: Table, size: Pair) -> jax.Array:
    """[B, *form.image_size(size), C], and transformed taps of [C, D] each, -> [B, *size, D]."""
    to_pixels, _, _ = form.matrices()
    products = [
        [tile @ tap for tile, tap in zip(*row, strict=True)]
        for row in zip(_tiles(form, image, size), taps, strict=True)
    ]
    rows, columns = form.tiles(size)
    lines = [
        jnp.concatenate([pixel.reshape(-1, rows, columns, pixel.shape[1]) for pixel in row], axis=3)
        for row in _transform(to_pixels, products)
    ]
    shape = len(image), rows * form.pixels, columns * form.pixels, taps[0][0].shape[1]
    whole = jnp.stack(lines, axis=2).reshape(shape)
    return whole[:, : size[0], : size[1]]


def _tiles(form: Winograd, image: jax.Array, size: Pair) -> Table:
    """Bᵀ d B of all tiles, each number of it as a matrix [B·tiles, C]."""
    _, _, to_tile = form.matrices()

    def along(image: jax.Array, axis: int) -> list[jax.Array]:
        last = (form.tiles(size)[axis] - 1) * form.pixels + 1
        pixels = [lax.slice_in_dim(image, n, n + last, form.pixels, axis=1 + axis) for n in range(len(to_tile))]
        return [_combine(row, pixels) for row in to_tile]

    return [[tile.reshape(-1, image.shape[3]) for tile in along(lines, 1)] for lines in along(image, 0)]


def _to_depth(image: jax.Array, step: int, padding: Pair, size: Pair) -> jax.Array:
    """[B, H, W, channels] -> [B, *size, step²·channels], with `padding` pixels of zeros before the image."""
    batch, height, width, channels = image.shape
    (top, left), (rows, columns) = padding, size
    image = pad(image, (top, rows * step - top - height), (left, columns * step - left - width))
    lines = image.reshape(batch, rows, step, columns, step * channels)
    return jnp.concatenate([lines[:, :, n] for n in range(step)], axis=3)


def _from_depth(depth: jax.Array, step: int) -> jax.Array:
    """[B, h, w, step²·channels] -> [B, step·h, step·w, channels]"""
    batch, rows, columns, channels = depth.shape
    lines = depth.reshape(batch, rows, columns, step, channels // step).swapaxes(2, 3)
    return lines.reshape(batch, rows * step, columns * step, channels // step**2)


def _taps_to_depth(kernel: jax.Array, taps: int) -> jax.Array:
    """[taps·step, taps·step, channels, D] -> [taps, taps, step²·channels, D]"""
    step = kernel.shape[0] // taps
    kernel = kernel.reshape(taps, step, taps, step, *kernel.shape[2:]).swapaxes(1, 2)
    return kernel.reshape(taps, taps, -1, kernel.shape[5])


def depth_range(geometry: Geometry) -> tuple[Pair, Pair]:
    """Which pixels of the depth the large image touches: the first one, and how many, along both axes."""
    axes = list(zip(geometry.padding, geometry.large, geometry.stride, strict=True))
    top, left = (padding // step for padding, _, step in axes)
    bottom, right = (-(-(padding + length) // step) for padding, length, step in axes)
    return (top, left), (bottom - top, right - left)


def _table(kernel: jax.Array) -> Table:
    rows, columns = kernel.shape[:2]
    taps = kernel.reshape(rows * columns, *kernel.shape[2:])
    return [[lax.index_in_dim(taps, i * columns + j, keepdims=False) for j in range(columns)] for i in range(rows)]


def _transform(matrix: np.ndarray, table: Table) -> Table:
    """matrix · table · matrixᵀ, where the table's entries are arrays."""
    columns = [[_combine(row, column) for row in matrix] for column in zip(*table, strict=True)]
    return [[_combine(row, entries) for row in matrix] for entries in zip(*columns, strict=True)]


def _combine(row: np.ndarray, arrays: Iterable[jax.Array]) -> jax.Array:
    """Σ factor · array. By `lax`: of hundreds of them, `jax.numpy` would take a quarter of a second more to trace."""
    total = None
    for factor, array in zip(row, arrays, strict=True):
        if factor:
            term = array if abs(factor) == 1 else lax.mul(array, lax.full_like(array, abs(factor)))
            if total is None:
                total = term if factor > 0 else lax.neg(term)
            else:
                total = lax.add(total, term) if factor > 0 else lax.sub(total, term)
    assert total is not None  # no row of the matrices is zero
    return total
