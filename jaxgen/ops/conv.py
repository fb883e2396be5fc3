"""Two-dimensional convolution and transposed convolution: channels last, with PyTorch's semantics.

A convolution relates a large image to a small one: pixel m of the small image and tap t of the kernel meet pixel
stride·m + dilation·t − padding of the large one. All there is to compute are the three derivatives of one number that
is linear in both images and in the kernel,

    Σ over m, t of  large[stride·m + dilation·t − padding] · kernel[t] · small[m]

    `_correlate`   by the small image: the convolution                        large, kernel -> small
    `_spread`      by the large image: the transposed convolution             small, kernel -> large
    `_weigh`       by the kernel: the gradient of both with respect to it     large, small -> kernel

and each of the three has the other two as its gradients, to any order of reverse mode. Arrays are large [B, H, W, C],
small [B, h, w, D] and kernel [kh, kw, C, D] throughout.

Each has two forms, and the platform it is lowered for picks one. Everywhere but on the CPU it is the convolution of
the platform's own library. On the CPU it is matrix products: XLA's convolutions are 2 to 15 times slower there inside a
loop than outside (jax#12868), and transposed ones are slow everywhere (jax#23783); the gradients of a convolution are
such convolutions too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[int, int]  # height, width

# What was measured on the CPU, as the sizes at which another form becomes the faster one.
FEW_NUMBERS = 32  # in the part of a window that lies in one row: below, a window is better gathered whole
FEW_WINDOWS = 100_000  # numbers in all of them: below, starting the copies takes longer than making them
MUCH_BORDER = 1.25  # times the products without a border: above, it pays to lay out patches rather than windows
WIDE = 64  # channels on both sides, the large image's in depth: below, Winograd's form takes longer
MANY = 32  # tiles in all: below, too
FEWER = 0.75  # of the multiplications: it must need less than this part
FEW_COLUMNS = 256  # of a kernel gradient: below, XLA multiplies faster with the longer side of the result last


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> jax.Array:
    """Cross-correlates images with a kernel, as `torch.nn.functional.conv2d` does, without its bias.

    Args:
        x: images [B, H, W, C_in].
        kernel: [kh, kw, C_in, C_out], PyTorch's Conv2d weight transposed (2, 3, 1, 0); x's dtype.
        stride, padding, dilation: pixels along height and width; the padding is zeros, on both sides.

    Returns:
        [B, H', W', C_out] with H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1, and W' likewise.

    Raises:
        ValueError: the arrays do not fit each other, or nothing would come out.
    """
    _check("conv", x, kernel, stride, padding, dilation)
    if x.shape[3] != kernel.shape[2]:
        raise ValueError(
            f"conv: the images have {x.shape[3]} channels, the kernel takes {kernel.shape[2]} "
            f"({kernel.shape} is [kh, kw, C_in, C_out])"
        )
    (kh, kw), (height, width) = kernel.shape[:2], x.shape[1:3]

    def size(length: int, taps: int, axis: int) -> int:
        return (length + 2 * padding[axis] - dilation[axis] * (taps - 1) - 1) // stride[axis] + 1

    small = size(height, kh, 0), size(width, kw, 1)
    if min(small) < 1:
        raise ValueError(
            f"conv: a {kh}x{kw} kernel with dilation {dilation} does not fit into images of {height}x{width} "
            f"with padding {padding}"
        )
    return _correlate(_Geometry((height, width), small, (kh, kw), stride, padding, dilation), x, kernel)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> jax.Array:
    """Spreads images with a kernel, as `torch.nn.functional.conv_transpose2d` does, without its bias.

    Args:
        x: images [B, H, W, C_in].
        kernel: [kh, kw, C_out, C_in], PyTorch's ConvTranspose2d weight transposed (2, 3, 1, 0); x's dtype.
        stride, padding, dilation: those of the convolution whose transpose this is.
        output_padding: rows and columns added below and to the right, since several input sizes of a strided
            convolution have one output size.

    Returns:
        [B, H', W', C_out] with H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1, W' likewise.

    Raises:
        ValueError: the arrays do not fit each other, nothing would come out, or output_padding is neither smaller
            than the stride nor than the dilation.
    """
    _check("conv_transpose", x, kernel, stride, padding, dilation)
    if x.shape[3] != kernel.shape[3]:
        raise ValueError(
            f"conv_transpose: the images have {x.shape[3]} channels, the kernel takes {kernel.shape[3]} "
            f"({kernel.shape} is [kh, kw, C_out, C_in])"
        )
    (kh, kw), (height, width) = kernel.shape[:2], x.shape[1:3]
    for extra, step, spacing in zip(output_padding, stride, dilation, strict=True):
        if not 0 <= extra < max(step, spacing):
            raise ValueError(
                f"conv_transpose: output_padding {output_padding} must be smaller than the stride {stride} "
                f"or the dilation {dilation}"
            )

    def size(length: int, taps: int, axis: int) -> int:
        reach = dilation[axis] * (taps - 1) + output_padding[axis] + 1
        return (length - 1) * stride[axis] - 2 * padding[axis] + reach

    large = size(height, kh, 0), size(width, kw, 1)
    if min(large) < 1:
        raise ValueError(f"conv_transpose: padding {padding} leaves nothing of the output")
    return _spread(_Geometry(large, (height, width), (kh, kw), stride, padding, dilation), x, kernel)


def _check(name: str, x: jax.Array, kernel: jax.Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(f"{name}: images {x.shape} and kernel {kernel.shape} must have four dimensions each")
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"{name}: stride {stride} and dilation {dilation} must be positive, padding {padding} not negative"
        )


class _Geometry(NamedTuple):
    """Which pixels meet: the sizes of both images and of the kernel, and how it steps."""

    large: Pair
    small: Pair
    window: Pair
    stride: Pair
    padding: Pair
    dilation: Pair


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _correlate(geometry: _Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        large,
        kernel,
        cpu=partial(_correlate_by_products, geometry),
        default=partial(_correlate_by_library, geometry),
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        small, kernel, cpu=partial(_spread_by_products, geometry), default=partial(_spread_by_library, geometry)
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weigh(geometry: _Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        large, small, cpu=partial(_weigh_by_products, geometry), default=partial(_weigh_by_library, geometry)
    )


_correlate.defvjp(
    lambda geometry, large, kernel: (_correlate(geometry, large, kernel), (large, kernel)),
    lambda geometry, saved, small: (_spread(geometry, small, saved[1]), _weigh(geometry, saved[0], small)),
)
_spread.defvjp(
    lambda geometry, small, kernel: (_spread(geometry, small, kernel), (small, kernel)),
    lambda geometry, saved, large: (_correlate(geometry, large, saved[1]), _weigh(geometry, large, saved[0])),
)
_weigh.defvjp(
    lambda geometry, large, small: (_weigh(geometry, large, small), (large, small)),
    lambda geometry, saved, kernel: (_spread(geometry, saved[1], kernel), _correlate(geometry, saved[0], kernel)),
)


# ---- Convolutions of the platform's library ----


def _correlate_by_library(geometry: _Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    small = lax.conv_general_dilated(
        large,
        kernel,
        geometry.stride,
        [(pixels, pixels) for pixels in geometry.padding],
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    # Output padding makes the large image larger than its kernel reaches; what lies beyond meets no small pixel.
    return small[:, : geometry.small[0], : geometry.small[1]]


def _spread_by_library(geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    shape = (small.shape[0], *geometry.large, kernel.shape[2])
    by_large = jax.linear_transpose(
        lambda large: _correlate_by_library(geometry, large, kernel), jax.ShapeDtypeStruct(shape, small.dtype)
    )
    return by_large(small)[0]


def _weigh_by_library(geometry: _Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    shape = (*geometry.window, large.shape[3], small.shape[3])
    by_kernel = jax.linear_transpose(
        lambda kernel: _correlate_by_library(geometry, large, kernel), jax.ShapeDtypeStruct(shape, large.dtype)
    )
    return by_kernel(small)[0]


# ---- Matrix products: the rule, and the forms that it picks from ----


def _correlate_by_products(geometry: _Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    if form := _winograd_form(geometry, large, kernel.shape[2:], geometry.small):
        return _correlate_by_winograd(form, geometry, large, kernel)
    return _multiply(_padded_windows(geometry, large), kernel, geometry.small)


def _spread_by_products(geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    alone = (
        count == 1 or taps == step
        for count, taps, step in zip(geometry.small, geometry.window, geometry.stride, strict=True)
    )
    if geometry.dilation == (1, 1) and all(alone):  # the patches of the small pixels do not overlap
        return _lay_patches(geometry, _patches(small, kernel))
    if 4 * kernel.shape[2] <= kernel.shape[3]:  # the patches are smaller than the windows that they come from
        return _add_patches(geometry, _patches(small, kernel))
    if form := _winograd_form(geometry, small, kernel.shape[2:], _depth_range(geometry)[1]):
        return _spread_by_winograd(form, geometry, small, kernel)
    if math.prod(geometry.large) > MUCH_BORDER * math.prod(geometry.small) * math.prod(geometry.stride):
        return _add_patches(geometry, _patches(small, kernel))  # phases would multiply many zeros beyond the border
    return _spread_by_phases(geometry, small, kernel)


def _weigh_by_products(geometry: _Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    channels = large.shape[3], small.shape[3]
    if form := _winograd_form(geometry, large, channels, geometry.small):
        return _weigh_by_winograd(form, geometry, large, small)
    small = small.reshape(-1, channels[1])
    parts = [_gram(columns, small, channels[0]) for columns in _padded_windows(geometry, large)]
    return jnp.concatenate(parts).reshape(*geometry.window, *channels)


def _padded_windows(geometry: _Geometry, large: jax.Array) -> list[jax.Array]:
    (top, left), origin = geometry.padding, (0, 0)
    windows = _Windows(geometry.small, geometry.window, origin, geometry.stride, geometry.dilation)
    return _columns(_pad(large, (top, top), (left, left)), windows)


class _Windows(NamedTuple):
    """The windows that a kernel sees as it steps over an image, the first pixel of the first one at `origin`."""

    number: Pair
    taps: Pair
    origin: Pair
    stride: Pair
    dilation: Pair


def _patches(small: jax.Array, kernel: jax.Array) -> jax.Array:
    """What each small pixel contributes: patch[m, t] = small[m] · kernel[t]ᵀ, [B, h, w, kh, kw, C].

    As matrices, for XLA would copy the kernel first if it came with four dimensions.
    """
    channels = kernel.shape[3]
    patches = lax.dot_general(small.reshape(-1, channels), kernel.reshape(-1, channels), (((1,), (1,)), ((), ())))
    return patches.reshape(*small.shape[:3], *kernel.shape[:3])


def _lay_patches(geometry: _Geometry, patches: jax.Array) -> jax.Array:
    """large[stride·m + t − padding] = patch[m, t], for patches as large as the stride (or a single one)."""
    batch, rows, columns, kh, kw, channels = patches.shape
    laid = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * kh, columns * kw, channels)
    (top, left), (height, width) = geometry.padding, geometry.large
    return _pad(laid, (-top, height + top - rows * kh), (-left, width + left - columns * kw))


def _add_patches(geometry: _Geometry, patches: jax.Array) -> jax.Array:
    """large[stride·m + dilation·t − padding] += patch[m, t]: along the rows, then along the columns, the sum of one
    shifted and spaced image per tap."""

    def edges(tap: int, axis: int) -> tuple[int, int, int]:
        low = tap * geometry.dilation[axis] - geometry.padding[axis]
        reach = (geometry.small[axis] - 1) * geometry.stride[axis] + 1
        return low, geometry.large[axis] - low - reach, geometry.stride[axis] - 1

    def add(images: list[jax.Array], axis: int) -> jax.Array:
        zero, whole = jnp.zeros((), patches.dtype), (0, 0, 0)
        shifted = []
        for tap, image in enumerate(images):
            config = [whole] * image.ndim
            config[1 + axis] = edges(tap, axis)
            shifted.append(lax.pad(image, zero, config))
        return reduce(operator.add, shifted)

    kh, kw = geometry.window
    lines = add([patches[:, :, :, :, j] for j in range(kw)], 1)  # [B, h, W, kh, C]
    return add([lines[:, :, :, i] for i in range(kh)], 0)


def _spread_by_phases(geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    """large[stride·q + r] for one phase r < stride is a convolution of stride 1 of the small image with the taps that
    meet this phase, last tap first. The phases are interleaved at the end; no zero in between is multiplied.
    """
    vertical, horizontal = _phases(geometry, 0), _phases(geometry, 1)
    (top, bottom), (left, right) = _margins(vertical, geometry.small[0]), _margins(horizontal, geometry.small[1])
    small = _pad(small, (top, bottom), (left, right))
    kernel = kernel.transpose(0, 1, 3, 2)
    batch, channels = small.shape[0], kernel.shape[3]

    def pixels(v: _Phase, h: _Phase) -> jax.Array:
        if not (v.taps and h.taps):
            return jnp.zeros((batch, v.number, h.number, channels), small.dtype)
        window, origin = (len(v.taps), len(h.taps)), (top + v.first, left + h.first)
        columns = _columns(small, _Windows((v.number, h.number), window, origin, (1, 1), (v.step, h.step)))
        return _multiply(columns, kernel[np.array(v.taps)][:, np.array(h.taps)], (v.number, h.number))

    rows = [jnp.concatenate([pixels(v, h) for h in horizontal], axis=3) for v in vertical]  # [B, q, q', stride'·C]
    large = jnp.stack(rows, axis=2).reshape(batch, len(vertical) * vertical[0].number, -1, channels)
    return large[:, : geometry.large[0], : geometry.large[1]]


class _Phase(NamedTuple):
    """The large pixels stride·q + r of one r along one axis, q < number: pixel q meets tap taps[n] at small pixel
    first + q + step·n."""

    taps: tuple[int, ...]
    first: int
    step: int
    number: int


def _phases(geometry: _Geometry, axis: int) -> list[_Phase]:
    """Tap t meets pixel stride·q + r at small pixel q + (r + padding − dilation·t) / stride, where that is whole."""
    stride, padding, dilation = geometry.stride[axis], geometry.padding[axis], geometry.dilation[axis]
    phases = []
    for r in range(stride):
        meeting = [t for t in reversed(range(geometry.window[axis])) if (r + padding - dilation * t) % stride == 0]
        first = (r + padding - dilation * meeting[0]) // stride if meeting else 0
        step = dilation // math.gcd(dilation, stride)
        phases.append(_Phase(tuple(meeting), first, step, -(-geometry.large[axis] // stride)))
    return phases


def _margins(phases: list[_Phase], length: int) -> Pair:
    """How far the windows of all phases reach beyond both ends of a small image of this length."""
    last = max(phase.first + phase.number - 1 + phase.step * (len(phase.taps) - 1) for phase in phases)
    return max(0, -min(phase.first for phase in phases)), max(0, last - (length - 1))


def _columns(image: jax.Array, windows: _Windows) -> list[jax.Array]:
    """The windows as matrices [B·windows, taps·C], to be multiplied with consecutive parts of the kernel and summed.

    If the runs of memory in them are very short, or the windows few, one matrix by two rounds of slices; else one per
    row of taps.
    """
    batch, height, width, channels = image.shape
    (rows, columns), (kh, kw) = windows.number, windows.taps
    shape = batch * rows * columns, kh * kw * channels
    if windows.taps == (height, width) or (windows.taps == (1, 1) and windows.number == (height, width)):
        return [image.reshape(shape)]
    if kw * channels < FEW_NUMBERS or math.prod(shape) < FEW_WINDOWS:
        image = jnp.concatenate([_every(image, windows, 1, tap) for tap in range(kw)], axis=3)
        image = jnp.concatenate([_every(image, windows, 0, tap) for tap in range(kh)], axis=3)
        return [image.reshape(shape)]
    return _columns_by_rows(image, windows)


def _columns_by_rows(image: jax.Array, windows: _Windows) -> list[jax.Array]:
    """One matrix [B·windows, kw·C] per row of taps: within a row a window is one run of memory, which XLA copies at
    full speed; a window of several runs it copies number by number."""
    batch, height, width, channels = image.shape
    (rows, columns), (kh, kw) = windows.number, windows.taps
    spread_taps = windows.dilation[1] > 1
    starts = np.arange(kw if spread_taps else 1) * windows.dilation[1]
    run = channels if spread_taps else kw * channels
    across = (windows.origin[1] + np.arange(columns)[:, None] * windows.stride[1] + starts) * channels
    down = windows.origin[0] + np.arange(rows)[:, None, None] * windows.stride[0]
    image = image.reshape(batch, height, width * channels)
    return [
        _runs(image, down + tap * windows.dilation[0], across, run).reshape(batch * rows * columns, kw * channels)
        for tap in range(kh)
    ]


def _every(image: jax.Array, windows: _Windows, axis: int, tap: int) -> jax.Array:
    """Along one axis, the pixels that this tap sees."""
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


def _multiply(columns: list[jax.Array], kernel: jax.Array, size: Pair) -> jax.Array:
    """Σ over parts of columns · part of the kernel, as an image [B, *size, channels]."""
    parts = kernel.reshape(len(columns), -1, kernel.shape[3])
    products = [matrix @ parts[n] for n, matrix in enumerate(columns)]
    return sum(products[1:], products[0]).reshape(-1, *size, kernel.shape[3])


def _gram(columns: jax.Array, pixels: jax.Array, channels: int) -> jax.Array:
    """columnsᵀ · pixels: [N, taps·C], [N, D] -> [taps, C, D]."""
    contract_pixels = (((0,), (0,)), ((), ()))
    if pixels.shape[1] < min(columns.shape[1], FEW_COLUMNS):
        gram = lax.dot_general(pixels, columns, contract_pixels)
        return gram.reshape(pixels.shape[1], -1, channels).transpose(1, 2, 0)
    return lax.dot_general(columns, pixels, contract_pixels).reshape(-1, channels, pixels.shape[1])


def _pad(image: jax.Array, rows: Pair, columns: Pair) -> jax.Array:
    """Zeros around the image; a negative number takes rows or columns away."""
    if rows == columns == (0, 0):
        return image
    return lax.pad(image, jnp.zeros((), image.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))


# ---- Winograd's minimal filtering ----
#
# F(m×m, r×r): m² pixels of an r×r convolution of stride 1 from a tile d of (m + r − 1)² pixels of the image in as many
# multiplications, instead of m²·r²: y = Aᵀ [(G k Gᵀ) ⊙ (Bᵀ d B)] A, summed over channels inside the brackets. Over all
# tiles and channels each of the (m + r − 1)² is one matrix product (Lavin and Gray, arXiv:1509.09308).
#
# Taking every s×s block of pixels for one pixel with s² times the channels, its depth, turns a convolution of stride s
# and r·s taps into one of stride 1 and r taps. Below, C counts the channels of the depth.
#
# Rounding grows with the tiles, and products shrink. In float32, tiles of three and four pixels a side round as the
# plain sum does; F(4×4, 2×2) and F(4×4, 3×3) were no faster still, and rounded six times worse. In bfloat16 all round
# worse, and take the plain form.

Table = list[list[jax.Array]]

POINTS = 0.0, 1.0, -1.0  # where polynomials are evaluated, and at infinity


class _Winograd(NamedTuple):
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


def _winograd_form(geometry: _Geometry, images: jax.Array, channels: tuple[int, ...], size: Pair) -> _Winograd | None:
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

    def multiplications(form: _Winograd) -> int:
        return math.prod(tiles * (form.pixels + taps - 1) for tiles in form.tiles(size))

    form = min((_Winograd(pixels, taps) for pixels in (2, 3) if pixels + taps < 6), key=multiplications)
    fewer = multiplications(form) < FEWER * taps * taps * math.prod(geometry.small)
    return form if fewer and images.shape[0] * math.prod(form.tiles(size)) >= MANY else None


def _correlate_by_winograd(form: _Winograd, geometry: _Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    depth = _to_depth(large, geometry.stride[0], geometry.padding, form.image_size(geometry.small))
    taps = _transform(form.matrices()[1], _table(_taps_to_depth(kernel, form.taps)))
    return _convolve_by_winograd(form, depth, taps, geometry.small)


def _spread_by_winograd(form: _Winograd, geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    step, (start, size) = geometry.stride[0], _depth_range(geometry)
    margin = [form.taps - 1 - first for first in start]
    (height, width), (rows, columns) = small.shape[1:3], form.image_size(size)
    small = _pad(small, (margin[0], rows - margin[0] - height), (margin[1], columns - margin[1] - width))
    taps = _transform(form.matrices()[1], _table(_taps_to_depth(kernel, form.taps)[::-1, ::-1]))
    depth = _convolve_by_winograd(form, small, [[tap.T for tap in row] for row in taps], size)
    large = _from_depth(depth, step)
    top, left = (pixels - step * first for pixels, first in zip(geometry.padding, start, strict=True))
    return large[:, top : top + geometry.large[0], left : left + geometry.large[1]]


def _weigh_by_winograd(form: _Winograd, geometry: _Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    """The transpose by the kernel: Gᵀ [(Bᵀ d B)ᵀ (A y Aᵀ)] G."""
    to_pixels, to_taps, _ = form.matrices()
    channels, step, (rows, columns) = small.shape[3], geometry.stride[0], form.tiles(geometry.small)
    depth = _to_depth(large, step, geometry.padding, form.image_size(geometry.small))
    (height, width), m = geometry.small, form.pixels
    small = _pad(small, (0, rows * m - height), (0, columns * m - width)).reshape(-1, rows, m, columns, m, channels)
    tiles = [[small[:, :, i, :, j].reshape(-1, channels) for j in range(m)] for i in range(m)]
    products = [
        [_gram(tile, pixel, tile.shape[1])[0] for tile, pixel in zip(*row, strict=True)]
        for row in zip(_tiles(form, depth, geometry.small), _transform(to_pixels.T, tiles), strict=True)
    ]
    kernel = jnp.stack([jnp.stack(row) for row in _transform(to_taps.T, products)])
    kernel = kernel.reshape(form.taps, form.taps, step, step, large.shape[3], channels)
    return kernel.swapaxes(1, 2).reshape(*geometry.window, large.shape[3], channels)


def _convolve_by_winograd(form: _Winograd, image: jax.Array, taps: Table, size: Pair) -> jax.Array:
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


def _tiles(form: _Winograd, image: jax.Array, size: Pair) -> Table:
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
    image = _pad(image, (top, rows * step - top - height), (left, columns * step - left - width))
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


def _depth_range(geometry: _Geometry) -> tuple[Pair, Pair]:
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
