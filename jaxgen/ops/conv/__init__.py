"""Two-dimensional convolution and transposed convolution, channels last, with PyTorch's semantics.

A convolution relates a large image, a kernel and a small image: pixel m of the small image and tap t of the kernel meet
pixel stride·m + dilation·t − padding of the large image. Everything that is computed here is a derivative of

    Σ over m, t of  large[stride·m + dilation·t − padding] · kernel[t] · small[m]

which is linear in each of the three:

    `_conv`             by the small image: the convolution                          large, kernel -> small
    `_conv_transpose`   by the large image: the transposed convolution               small, kernel -> large
    `_kernel_grad`      by the kernel: the gradient of both with respect to it       large, small -> kernel

Each of the three has the other two as its gradients, to any order of reverse mode. Arrays are large [B, H, W, C],
small [B, h, w, D] and kernel [kh, kw, C, D] throughout.

Each has two lowerings, chosen by the platform that is compiled for: the convolutions of the platform's library
(`_library`) everywhere but on the CPU, and matrix products (`_cpu`, from `_matmul` and `_winograd`) on the CPU. There,
XLA's convolutions are 2 to 15 times slower inside a loop than outside (jax#12868), and transposed ones are slow
everywhere (jax#23783); the gradients of a convolution are such convolutions too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.export import is_symbolic_dim
from jax.typing import DTypeLike

from jaxgen.ops.conv import _cpu, _library
from jaxgen.ops.conv._geometry import Geometry, Pair, pad

__all__ = ["conv", "conv_general_dilated", "conv_transpose"]

CHANNELS_LAST = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    matmul_dtype: DTypeLike | None = None,
) -> jax.Array:
    """Cross-correlate images with a kernel, as `torch.nn.functional.conv2d` does without its bias.

    16-bit products are summed in float32.

    Args:
        x: Images `[B, H, W, C_in]`; B may be 0.
        kernel: `[kh, kw, C_in / groups, C_out]`, PyTorch's Conv2d weight transposed (2, 3, 1, 0), in the dtype of `x`.
        stride: Pixels between neighbouring windows, along height and width.
        padding: Rows and columns of zeros added on both sides.
        dilation: Pixels between neighbouring taps of the kernel.
        groups: Groups of channels; each group of outputs reads only the inputs of its own group.
        matmul_dtype: What images and kernel are rounded to before they are multiplied; by default their own dtype.

    Returns:
        `[B, H', W', C_out]` with H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1, and W' likewise.

    Raises:
        ValueError: The shapes or dtypes do not match, or the output would be empty.
    """
    _check("conv", x, kernel, groups, stride=stride, padding=padding, dilation=dilation)
    if x.shape[3] != groups * kernel.shape[2] or kernel.shape[3] % groups:
        raise ValueError(
            f"conv: images {x.shape} and kernel {kernel.shape} do not match: a kernel for {x.shape[3]} channels in "
            f"{groups} group(s) is [kh, kw, {x.shape[3] / groups:g}, C_out], with C_out a multiple of {groups}"
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
    geometry = Geometry((height, width), small, (kh, kw), _pair(stride), _pair(padding), _pair(dilation))
    products = _Products(geometry, jnp.dtype(matmul_dtype or x.dtype))
    return _in_groups(partial(_conv, products), groups, x, kernel, (x.shape[0], *small, kernel.shape[3]))


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    matmul_dtype: DTypeLike | None = None,
) -> jax.Array:
    """Apply the transpose of a convolution, as `torch.nn.functional.conv_transpose2d` does without its bias.

    16-bit products are summed in float32.

    Args:
        x: Images `[B, H, W, C_in]`; B may be 0.
        kernel: `[kh, kw, C_out / groups, C_in]`, PyTorch's ConvTranspose2d weight transposed (2, 3, 1, 0), in the dtype
            of `x`.
        stride: That of the convolution whose transpose this is.
        padding: That of the convolution: so many rows and columns are removed from each side of the output.
        output_padding: Rows and columns added at the bottom and at the right, because several input sizes of a strided
            convolution have the same output size.
        dilation: That of the convolution.
        groups: Groups of channels; each group of inputs contributes only to the outputs of its own group.
        matmul_dtype: What images and kernel are rounded to before they are multiplied; by default their own dtype.

    Returns:
        `[B, H', W', C_out]` with H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1, W' likewise.

    Raises:
        ValueError: The shapes or dtypes do not match, the output would be empty, or `output_padding` is smaller than
            neither the stride nor the dilation.
    """
    _check(
        "conv_transpose",
        x,
        kernel,
        groups,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
    )
    if x.shape[3] != kernel.shape[3] or x.shape[3] % groups:
        raise ValueError(
            f"conv_transpose: images {x.shape} and kernel {kernel.shape} do not match: a kernel for {x.shape[3]} "
            f"channels is [kh, kw, C_out / groups, {x.shape[3]}], and {groups} group(s) must divide {x.shape[3]}"
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
    geometry = Geometry(large, (height, width), (kh, kw), _pair(stride), _pair(padding), _pair(dilation))
    products = _Products(geometry, jnp.dtype(matmul_dtype or x.dtype))
    shape = (x.shape[0], *large, groups * kernel.shape[2])
    return _in_groups(partial(_conv_transpose, products), groups, x, kernel, shape)


def conv_general_dilated(
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **others: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated`, as fast inside a loop on the CPU as outside.

    It is for Flax's `nn.Conv(..., conv_general_dilated=jaxgen.conv_general_dilated)`: XLA's convolutions are 2 to 15
    times slower on the CPU inside a loop, as in `jaxgen.fit` (jax#12868). What Flax computes for images channels last
    is computed by `conv`; anything else (other layouts or dimensions, `lhs_dilation`, a `precision`) by `lax`.

    Args:
        lhs: The images.
        rhs: The kernel.
        window_strides: As in `lax`, like all other arguments.
        padding: "SAME", "VALID", or pairs of numbers.
        lhs_dilation: None or ones; otherwise `lax` computes.
        rhs_dilation: Pixels between neighbouring taps of the kernel.
        dimension_numbers: The layouts; `("NHWC", "HWIO", "NHWC")` for `conv`.
        feature_group_count: Groups of channels.
        batch_group_count: 1; otherwise `lax` computes.
        precision: None; otherwise `lax` computes.
        preferred_element_type: None or the images' dtype; otherwise `lax` computes.
        **others: Further arguments of `lax.conv_general_dilated`, which then computes.

    Returns:
        The same as `jax.lax.conv_general_dilated`, to rounding.
    """
    plain = (
        lhs.ndim == rhs.ndim == 4
        and lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers) == CHANNELS_LAST
        and all(step == 1 for step in lhs_dilation or ())
        and (batch_group_count, precision) == (1, None)
        and preferred_element_type in (None, lhs.dtype)
        and lhs.dtype == rhs.dtype
        and not any(value is not None for value in others.values())
    )
    if plain:
        strides, dilation = _pair(window_strides), _pair(rhs_dilation or (1, 1))
        windows = [1 + step * (taps - 1) for taps, step in zip(rhs.shape[:2], dilation, strict=True)]
        edges: list[tuple[int, int]]
        if isinstance(padding, str):
            edges = lax.padtype_to_pads(lhs.shape[1:3], windows, strides, padding)
        else:
            edges = list(padding)
        sizes = [length + low + high for length, (low, high) in zip(lhs.shape[1:3], edges, strict=True)]
        plain = all(window <= size for window, size in zip(windows, sizes, strict=True))
    if not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            dimension_numbers=dimension_numbers,
            feature_group_count=feature_group_count,
            batch_group_count=batch_group_count,
            precision=precision,
            preferred_element_type=preferred_element_type,
            **others,
        )
    both = [max(0, min(low, high)) for low, high in edges]  # what is padded on both sides; the rest is padded here
    rest = [(low - edge, high - edge) for (low, high), edge in zip(edges, both, strict=True)]
    return conv(
        pad(lhs, *rest), rhs, stride=strides, padding=_pair(both), dilation=dilation, groups=feature_group_count
    )


def _pair(values: Sequence[int]) -> Pair:
    height, width = values
    return height, width


def _check(name: str, x: jax.Array, kernel: jax.Array, groups: int, **options: Pair) -> None:
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(f"{name}: images {x.shape} and kernel {kernel.shape} must have four dimensions each")
    if x.dtype != kernel.dtype:
        raise ValueError(f"{name}: images {x.shape} are {x.dtype}, the kernel {kernel.shape} is {kernel.dtype}")
    if 0 in (*x.shape[1:], *kernel.shape):
        raise ValueError(f"{name}: images {x.shape} and kernel {kernel.shape}: no size but the batch may be 0")
    if groups < 1:
        raise ValueError(f"{name}: groups must be at least 1, not {groups}")
    for option, value in options.items():
        least = 0 if "padding" in option else 1
        if len(value) != 2 or min(value) < least:
            raise ValueError(f"{name}: {option} must be two numbers (height, width) of at least {least}, not {value}")


def _in_groups(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    groups: int,
    x: jax.Array,
    kernel: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """`function(x, kernel)`, of each group of channels by itself, as `[*shape]`."""
    if not is_symbolic_dim(x.shape[0]) and x.shape[0] == 0:
        return jnp.zeros(shape, x.dtype)
    if groups == 1:
        return function(x, kernel)
    x, kernel = (array.reshape(*array.shape[:3], groups, array.shape[3] // groups) for array in (x, kernel))
    return jax.vmap(function, in_axes=3, out_axes=3)(x, kernel).reshape(shape)


class _Products(NamedTuple):
    """What determines the products of a convolution, besides the arrays."""

    geometry: Geometry
    dtype: np.dtype  # in which they are multiplied


def _lowered(products: _Products, name: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """The function of that name in `_cpu` or in `_library`, in the dtype of `a`."""

    def compute(implementation: ModuleType, a: jax.Array, b: jax.Array) -> jax.Array:
        low = a.astype(products.dtype), b.astype(products.dtype)
        result: jax.Array = getattr(implementation, name)(products.geometry, *low)
        return result.astype(a.dtype)

    chosen: jax.Array = lax.platform_dependent(a, b, cpu=partial(compute, _cpu), default=partial(compute, _library))
    return chosen


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(products: _Products, large: jax.Array, kernel: jax.Array) -> jax.Array:
    return _lowered(products, "conv", large, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose(products: _Products, small: jax.Array, kernel: jax.Array) -> jax.Array:
    return _lowered(products, "conv_transpose", small, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_grad(products: _Products, large: jax.Array, small: jax.Array) -> jax.Array:
    return _lowered(products, "kernel_grad", large, small)


_conv.defvjp(
    lambda products, large, kernel: (_conv(products, large, kernel), (large, kernel)),
    lambda products, saved, small: (
        _conv_transpose(products, small, saved[1]),
        _kernel_grad(products, saved[0], small),
    ),
)
_conv_transpose.defvjp(
    lambda products, small, kernel: (_conv_transpose(products, small, kernel), (small, kernel)),
    lambda products, saved, large: (_conv(products, large, saved[1]), _kernel_grad(products, large, saved[0])),
)
_kernel_grad.defvjp(
    lambda products, large, small: (_kernel_grad(products, large, small), (large, small)),
    lambda products, saved, kernel: (_conv_transpose(products, saved[1], kernel), _conv(products, saved[0], kernel)),
)
