"""Convolutions as matrix products: im2col, col2im, and a transposed convolution by phases.

16-bit inputs give float32.
"""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim

from jaxgen.ops._products import accumulator, dot, transposed_dot
from jaxgen.ops.conv._geometry import Geometry, Pair, pad

# Measured on the CPU, as the sizes below which the other form is faster.
FEW_NUMBERS = 32  # in the part of a window that lies in one row: below, a window is gathered as a whole
FEW_WINDOWS = 100_000  # numbers in all windows: below, starting the copies takes longer than making them
FEW_COLUMNS = 256  # of a kernel gradient: below, XLA multiplies faster with the longer side of the result last


def conv(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    return _multiply(_padded_windows(geometry, large), kernel, (large.shape[0], *geometry.small))


def kernel_grad(geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    channels = large.shape[3], small.shape[3]
    small = small.reshape(math.prod(small.shape[:3]), channels[1])
    parts = [gram(columns, small, channels[0]) for columns in _padded_windows(geometry, large)]
    return jnp.concatenate(parts).reshape(*geometry.window, *channels)


def conv_transpose_by_phases(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    """For each phase r < stride, large[stride·q + r] is a convolution of stride 1.

    It is the convolution of the small image with the taps that meet this phase, last tap first. The phases are
    interleaved at the end, so the zeros between the pixels of a dilated image are never multiplied.
    """
    vertical, horizontal = _phases(geometry, 0), _phases(geometry, 1)
    (top, bottom), (left, right) = _margins(vertical, geometry.small[0]), _margins(horizontal, geometry.small[1])
    small = pad(small, (top, bottom), (left, right))
    kernel = kernel.transpose(0, 1, 3, 2)
    batch, channels = small.shape[0], kernel.shape[3]

    def pixels(v: _Phase, h: _Phase) -> jax.Array:
        if not (v.taps and h.taps):
            return jnp.zeros((batch, v.number, h.number, channels), accumulator(small.dtype))
        window, origin = (len(v.taps), len(h.taps)), (top + v.first, left + h.first)
        columns = _im2col(small, _Windows((v.number, h.number), window, origin, (1, 1), (v.step, h.step)))
        return _multiply(columns, kernel[_from_last(v.taps), _from_last(h.taps)], (batch, v.number, h.number))

    rows = [jnp.concatenate([pixels(v, h) for h in horizontal], axis=3) for v in vertical]  # [B, q, q', stride'·C]
    large = jnp.stack(rows, axis=2).reshape(
        batch, len(vertical) * vertical[0].number, len(horizontal) * horizontal[0].number, channels
    )
    return large[:, : geometry.large[0], : geometry.large[1]]


def patches(small: jax.Array, kernel: jax.Array) -> jax.Array:
    """The contribution of each small pixel: patch[m, t] = small[m] · kernel[t]ᵀ, [B, h, w, kh, kw, C].

    As a product of matrices, because XLA would copy a kernel of four dimensions first.
    """
    rows, channels = math.prod(small.shape[:3]), kernel.shape[3]
    products = dot(small.reshape(rows, channels), kernel.reshape(-1, channels), 1, 1)
    return products.reshape(*small.shape[:3], *kernel.shape[:3])


def tile_patches(geometry: Geometry, patches: jax.Array) -> jax.Array:
    """large[stride·m + t − padding] = patch[m, t], for patches of the size of the stride (or a single patch)."""
    batch, rows, columns, kh, kw, channels = patches.shape
    tiled = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * kh, columns * kw, channels)
    (top, left), (height, width) = geometry.padding, geometry.large
    return pad(tiled, (-top, height + top - rows * kh), (-left, width + left - columns * kw))


def col2im(geometry: Geometry, patches: jax.Array) -> jax.Array:
    """large[stride·m + dilation·t − padding] += patch[m, t].

    Along the rows and then along the columns, this sums one shifted and dilated image per tap.
    """

    def edges(tap: int, axis: int) -> tuple[int, int, int]:
        low = tap * geometry.dilation[axis] - geometry.padding[axis]
        reach = (geometry.small[axis] - 1) * geometry.stride[axis] + 1
        return low, geometry.large[axis] - low - reach, geometry.stride[axis] - 1

    def add(images: list[jax.Array], axis: int) -> jax.Array:
        zero, unchanged = jnp.zeros((), patches.dtype), (0, 0, 0)
        shifted = []
        for tap, image in enumerate(images):
            config = [unchanged] * image.ndim
            config[1 + axis] = edges(tap, axis)
            shifted.append(lax.pad(image, zero, config))
        return reduce(operator.add, shifted)

    kh, kw = geometry.window
    lines = add([patches[:, :, :, :, j] for j in range(kw)], 1)  # [B, h, W, kh, C]
    return add([lines[:, :, :, i] for i in range(kh)], 0)


def gram(columns: jax.Array, pixels: jax.Array, channels: int) -> jax.Array:
    """columnsᵀ · pixels: [N, taps·C], [N, D] -> [taps, C, D]"""
    if pixels.shape[1] < min(columns.shape[1], FEW_COLUMNS):
        products = transposed_dot(pixels, columns)
        return products.reshape(pixels.shape[1], -1, channels).transpose(1, 2, 0)
    return transposed_dot(columns, pixels).reshape(-1, channels, pixels.shape[1])


class _Phase(NamedTuple):
    """Along one axis, the large pixels stride·q + r of one r, for q < number.

    Pixel q meets tap taps[n] at small pixel first + q + step·n.
    """

    taps: tuple[int, ...]
    first: int
    step: int
    number: int


def _phases(geometry: Geometry, axis: int) -> list[_Phase]:
    """Tap t meets pixel stride·q + r at small pixel q + (r + padding − dilation·t) / stride, where that is whole."""
    stride, padding, dilation = geometry.stride[axis], geometry.padding[axis], geometry.dilation[axis]
    phases = []
    for r in range(stride):
        taps = [t for t in reversed(range(geometry.window[axis])) if (r + padding - dilation * t) % stride == 0]
        first = (r + padding - dilation * taps[0]) // stride if taps else 0
        step = dilation // math.gcd(dilation, stride)
        phases.append(_Phase(tuple(taps), first, step, -(-geometry.large[axis] // stride)))
    return phases


def _from_last(taps: tuple[int, ...]) -> slice:
    """Taps at equal distances, the last one first, as a slice: XLA gathers indices number by number."""
    step = taps[1] - taps[0] if len(taps) > 1 else -1
    stop = taps[-1] + step
    return slice(taps[0], stop if stop >= 0 else None, step)


def _margins(phases: list[_Phase], length: int) -> Pair:
    """How far the windows of all phases extend beyond both ends of a small image of this length."""
    last = max(phase.first + phase.number - 1 + phase.step * (len(phase.taps) - 1) for phase in phases)
    return max(0, -min(phase.first for phase in phases)), max(0, last - (length - 1))


class _Windows(NamedTuple):
    """The windows of an image that the kernel is applied to; the first pixel of the first one is at `origin`."""

    number: Pair
    taps: Pair
    origin: Pair
    stride: Pair
    dilation: Pair


def _padded_windows(geometry: Geometry, large: jax.Array) -> list[jax.Array]:
    (top, left), origin = geometry.padding, (0, 0)
    windows = _Windows(geometry.small, geometry.window, origin, geometry.stride, geometry.dilation)
    return _im2col(pad(large, (top, top), (left, left)), windows)


def _im2col(image: jax.Array, windows: _Windows) -> list[jax.Array]:
    """The windows as matrices [B·windows, taps·C], to be multiplied with consecutive parts of the kernel and summed.

    One matrix, made by two rounds of slices, if contiguous runs of memory are very short or windows are few; otherwise
    one matrix per row of taps.
    """
    batch, height, width, channels = image.shape
    (rows, columns), (kh, kw) = windows.number, windows.taps
    shape = batch * rows * columns, kh * kw * channels
    if windows.taps == (height, width) or (windows.taps == (1, 1) and windows.number == (height, width)):
        return [image.reshape(shape)]
    few = not is_symbolic_dim(batch) and math.prod(shape) < FEW_WINDOWS
    if kw * channels < FEW_NUMBERS or few:
        image = jnp.concatenate([_strided(image, windows, 1, tap) for tap in range(kw)], axis=3)
        image = jnp.concatenate([_strided(image, windows, 0, tap) for tap in range(kh)], axis=3)
        return [image.reshape(shape)]
    return _im2col_by_rows(image, windows)


def _im2col_by_rows(image: jax.Array, windows: _Windows) -> list[jax.Array]:
    """One matrix [B·windows, kw·C] per row of taps.

    Within a row, a window is one contiguous run of memory, which XLA copies at full speed; it copies a window of
    several runs number by number.
    """
    batch, height, width, channels = image.shape
    (rows, columns), (kh, kw) = windows.number, windows.taps
    dilated = windows.dilation[1] > 1
    starts = np.arange(kw if dilated else 1) * windows.dilation[1]
    run = channels if dilated else kw * channels
    across = (windows.origin[1] + np.arange(columns)[:, None] * windows.stride[1] + starts) * channels
    down = windows.origin[0] + np.arange(rows)[:, None, None] * windows.stride[0]
    image = image.reshape(batch, height, width * channels)
    return [
        _runs(image, down + tap * windows.dilation[0], across, run).reshape(batch * rows * columns, kw * channels)
        for tap in range(kh)
    ]


def _strided(image: jax.Array, windows: _Windows, axis: int, tap: int) -> jax.Array:
    """Along one axis, the pixels that this tap reads."""
    start = windows.origin[axis] + tap * windows.dilation[axis]
    stop = start + (windows.number[axis] - 1) * windows.stride[axis] + 1
    return lax.slice_in_dim(image, start, stop, windows.stride[axis], axis=1 + axis)


def _runs(image: jax.Array, row: np.ndarray, start: np.ndarray, length: int) -> jax.Array:
    """image[:, row, start : start + length] of [B, H, N] for all rows and starts, broadcast: [B, …, length]."""
    where = np.stack(np.broadcast_arrays(row, start), axis=-1).astype(np.int32)
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(0, where.ndim), collapsed_slice_dims=(1,), start_index_map=(1, 2)
    )
    return lax.gather(image, where, dimensions, (image.shape[0], 1, length), mode="promise_in_bounds")


def _multiply(columns: list[jax.Array], kernel: jax.Array, size: tuple[int, int, int]) -> jax.Array:
    """Σ of each matrix times its part of the kernel, as images [*size, channels] of size [B, H, W]."""
    parts = kernel.reshape(len(columns), -1, kernel.shape[3])
    products = [dot(matrix, parts[n], 1, 0) for n, matrix in enumerate(columns)]
    return sum(products[1:], products[0]).reshape(*size, kernel.shape[3])
