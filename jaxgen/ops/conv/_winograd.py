"""Winograd's minimal filtering: convolutions with fewer multiplications.

F(2×2, r×r) computes 2×2 pixels of an r×r convolution of stride 1 from a tile d of (r + 1)² pixels of the image with
(r + 1)² multiplications instead of 4·r²: y = Aᵀ [(G k Gᵀ) ⊙ (Bᵀ d B)] A, summed over channels inside the brackets.
Over all tiles and channels each of them is one matrix product (Lavin and Gray, arXiv:1509.09308).

Treating every s×s block of pixels as one pixel with s² times the channels (space to depth) turns a convolution of
stride s and r·s taps into one of stride 1 and r taps. Below, C counts the channels of the depth.

With two pixels along each axis, a pixel of the image reaches only those outputs of its tile that read it, so a NaN
spreads no further than in the plain sum; with three it would. The exception is the gradient with respect to the kernel,
where a NaN in the outermost pixels of an image also reaches taps that do not read it: the plain sum for this gradient
makes a step of `vae_mnist` 18 % slower, and recomputing it if it holds a NaN 6 %.

Rounding errors grow with the size of the tiles. In float32 these round as the plain sum does; F(4×4, 2×2) and
F(4×4, 3×3) were no faster, and rounded six times worse. In bfloat16 all of them round worse, so 16-bit inputs use the
plain sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from jaxgen.ops.conv._geometry import Geometry, Pair, pad
from jaxgen.ops.conv._matmul import gram

Table = list[list[jax.Array]]

PIXELS = 2  # of the output along each axis of a tile
POINTS = 0.0, 1.0, -1.0  # at which polynomials are evaluated, besides infinity

# Measured on the CPU, as the sizes from which Winograd's form is faster.
WIDE = 64  # channels of both images, the large one's counted in depth
MANY = 32  # tiles in the whole batch
FEWER = 0.75  # multiplications as a fraction of those of the plain sum: it must need less


def choose(geometry: Geometry, images: jax.Array, channels: tuple[int, ...], size: Pair) -> int | None:
    """The taps r along each axis of F(2×2, r×r) where that form applies and is faster than the plain sum, else None.

    Args:
        images: The image that is transformed tile by tile, or any other of as many images and of its dtype.
        channels: Of the large and of the small image.
        size: Of what comes out of the tiles: the small image, or the large one in depth.
    """
    step = geometry.stride[0]
    taps = geometry.window[0] // step
    square = geometry.stride == (step, step) and geometry.window == (taps * step, taps * step)
    if not square or taps not in (2, 3) or geometry.dilation != (1, 1):
        return None
    if images.dtype not in (jnp.float32, jnp.float64) or min(step * step * channels[0], channels[1]) < WIDE:
        return None
    tiles = math.prod(_tiles_of(size))
    fewer = tiles * (PIXELS + taps - 1) ** 2 < FEWER * taps * taps * math.prod(geometry.small)
    return taps if fewer and (is_symbolic_dim(images.shape[0]) or images.shape[0] * tiles >= MANY) else None


def conv(taps: int, geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    depth = _to_depth(large, geometry.stride[0], geometry.padding, _image_size(taps, geometry.small))
    _, to_products, _ = _matrices(taps)
    return _convolve(depth, _transform(to_products, _table(_taps_to_depth(kernel, taps))), geometry.small)


def conv_transpose(taps: int, geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    step, (start, size) = geometry.stride[0], depth_range(geometry)
    margin = [taps - 1 - first for first in start]
    (height, width), (rows, columns) = small.shape[1:3], _image_size(taps, size)
    small = pad(small, (margin[0], rows - margin[0] - height), (margin[1], columns - margin[1] - width))
    _, to_products, _ = _matrices(taps)
    flipped = _transform(to_products, _table(_taps_to_depth(kernel, taps)[::-1, ::-1]))
    large = _from_depth(_convolve(small, [[tap.T for tap in row] for row in flipped], size), step)
    top, left = (pixels - step * first for pixels, first in zip(geometry.padding, start, strict=True))
    return large[:, top : top + geometry.large[0], left : left + geometry.large[1]]


def kernel_grad(taps: int, geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    """The transpose by the kernel: Gᵀ [(Bᵀ d B)ᵀ (A y Aᵀ)] G."""
    to_pixels, to_products, _ = _matrices(taps)
    channels, step, (rows, columns) = small.shape[3], geometry.stride[0], _tiles_of(geometry.small)
    depth = _to_depth(large, step, geometry.padding, _image_size(taps, geometry.small))
    (height, width), m = geometry.small, PIXELS
    small = pad(small, (0, rows * m - height), (0, columns * m - width))
    small = small.reshape(small.shape[0], rows, m, columns, m, channels)
    tiles = [[_as_matrix(small[:, :, i, :, j]) for j in range(m)] for i in range(m)]
    products = [
        [gram(tile, pixel, tile.shape[1])[0] for tile, pixel in zip(*row, strict=True)]
        for row in zip(_tiles(taps, depth, geometry.small), _transform(to_pixels.T, tiles), strict=True)
    ]
    kernel = jnp.stack([jnp.stack(row) for row in _transform(to_products.T, products)])
    kernel = kernel.reshape(taps, taps, step, step, large.shape[3], channels)
    return kernel.swapaxes(1, 2).reshape(*geometry.window, large.shape[3], channels)


def _convolve(image: jax.Array, products: Table, size: Pair) -> jax.Array:
    """[B, *_image_size(taps, size), C], and a transformed kernel of [C, D] each, -> [B, *size, D]."""
    to_pixels, _, _ = _matrices(len(products) - PIXELS + 1)
    products = [
        [tile @ tap for tile, tap in zip(*row, strict=True)]
        for row in zip(_tiles(len(products) - PIXELS + 1, image, size), products, strict=True)
    ]
    rows, columns = _tiles_of(size)
    batch, channels = image.shape[0], products[0][0].shape[1]
    lines = [
        jnp.concatenate([pixel.reshape(batch, rows, columns, channels) for pixel in row], axis=3)
        for row in _transform(to_pixels, products)
    ]
    whole = jnp.stack(lines, axis=2).reshape(batch, rows * PIXELS, columns * PIXELS, channels)
    return whole[:, : size[0], : size[1]]


def _matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ, G and Bᵀ of F(2, taps), from Toom's and Cook's multiplication of polynomials.

    Both factors are evaluated at as many points as the product has coefficients, which are then recovered by Lagrange
    interpolation; all of it transposed.
    """
    points = np.array(POINTS[: PIXELS + taps - 2])
    others = [np.delete(points, n) for n in range(len(points))]
    scales = [np.prod(point - rest) for point, rest in zip(points, others, strict=True)]
    at_pixels, at_taps = (np.vander(points, n, increasing=True) for n in (PIXELS, taps))
    image = [np.append(np.poly(rest)[::-1], 0) for rest in others] + [np.poly(points)[::-1]]
    return (
        np.vstack([at_pixels, np.eye(PIXELS)[-1]]).T,
        np.vstack([at_taps / np.array(scales)[:, None], np.eye(taps)[-1]]),
        np.array(image),
    )


def _tiles_of(size: Pair) -> Pair:
    return -(-size[0] // PIXELS), -(-size[1] // PIXELS)


def _image_size(taps: int, size: Pair) -> Pair:
    """The size of the image that is cut into whole tiles for an output of this size."""
    rows, columns = (n * PIXELS + taps - 1 for n in _tiles_of(size))
    return rows, columns


def _tiles(taps: int, image: jax.Array, size: Pair) -> Table:
    """Bᵀ d B of all tiles, each of its elements as a matrix [B·tiles, C]."""
    _, _, to_tile = _matrices(taps)

    def along(image: jax.Array, axis: int) -> list[jax.Array]:
        last = (_tiles_of(size)[axis] - 1) * PIXELS + 1
        pixels = [lax.slice_in_dim(image, n, n + last, PIXELS, axis=1 + axis) for n in range(len(to_tile))]
        return [_combine(row, pixels) for row in to_tile]

    return [[_as_matrix(tile) for tile in along(lines, 1)] for lines in along(image, 0)]


def _as_matrix(image: jax.Array) -> jax.Array:
    batch, rows, columns, channels = image.shape
    return image.reshape(batch * rows * columns, channels)


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
