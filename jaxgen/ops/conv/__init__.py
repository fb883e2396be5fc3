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

from functools import partial

import jax
from jax import lax

from jaxgen.ops.conv import _cpu, _library
from jaxgen.ops.conv._geometry import Geometry, Pair

__all__ = ["conv", "conv_transpose"]


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> jax.Array:
    """Cross-correlate images with a kernel, as `torch.nn.functional.conv2d` does without its bias.

    Args:
        x: Images `[B, H, W, C_in]`.
        kernel: `[kh, kw, C_in, C_out]`, PyTorch's Conv2d weight transposed (2, 3, 1, 0), in the dtype of `x`.
        stride: Pixels between neighbouring windows, along height and width.
        padding: Rows and columns of zeros added on both sides.
        dilation: Pixels between neighbouring taps of the kernel.

    Returns:
        `[B, H', W', C_out]` with H' = ⌊(H + 2·padding − dilation·(kh − 1) − 1) / stride⌋ + 1, and W' likewise.

    Raises:
        ValueError: The shapes do not match, or the output would be empty.
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
    return _conv(Geometry((height, width), small, (kh, kw), stride, padding, dilation), x, kernel)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> jax.Array:
    """Apply the transpose of a convolution, as `torch.nn.functional.conv_transpose2d` does without its bias.

    Args:
        x: Images `[B, H, W, C_in]`.
        kernel: `[kh, kw, C_out, C_in]`, PyTorch's ConvTranspose2d weight transposed (2, 3, 1, 0), in the dtype of `x`.
        stride: That of the convolution whose transpose this is.
        padding: That of the convolution: so many rows and columns are removed from each side of the output.
        output_padding: Rows and columns added at the bottom and at the right, because several input sizes of a strided
            convolution have the same output size.
        dilation: That of the convolution.

    Returns:
        `[B, H', W', C_out]` with H' = (H − 1)·stride − 2·padding + dilation·(kh − 1) + output_padding + 1, W' likewise.

    Raises:
        ValueError: The shapes do not match, the output would be empty, or `output_padding` is smaller than neither the
            stride nor the dilation.
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
    return _conv_transpose(Geometry(large, (height, width), (kh, kw), stride, padding, dilation), x, kernel)


def _check(name: str, x: jax.Array, kernel: jax.Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    if x.ndim != 4 or kernel.ndim != 4:
        raise ValueError(f"{name}: images {x.shape} and kernel {kernel.shape} must have four dimensions each")
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
        raise ValueError(
            f"{name}: stride {stride} and dilation {dilation} must be positive, padding {padding} not negative"
        )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        large, kernel, cpu=partial(_cpu.conv, geometry), default=partial(_library.conv, geometry)
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        small, kernel, cpu=partial(_cpu.conv_transpose, geometry), default=partial(_library.conv_transpose, geometry)
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_grad(geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    return lax.platform_dependent(
        large, small, cpu=partial(_cpu.kernel_grad, geometry), default=partial(_library.kernel_grad, geometry)
    )


_conv.defvjp(
    lambda geometry, large, kernel: (_conv(geometry, large, kernel), (large, kernel)),
    lambda geometry, saved, small: (
        _conv_transpose(geometry, small, saved[1]),
        _kernel_grad(geometry, saved[0], small),
    ),
)
_conv_transpose.defvjp(
    lambda geometry, small, kernel: (_conv_transpose(geometry, small, kernel), (small, kernel)),
    lambda geometry, saved, large: (_conv(geometry, large, saved[1]), _kernel_grad(geometry, large, saved[0])),
)
_kernel_grad.defvjp(
    lambda geometry, large, small: (_kernel_grad(geometry, large, small), (large, small)),
    lambda geometry, saved, kernel: (_conv_transpose(geometry, saved[1], kernel), _conv(geometry, saved[0], kernel)),
)
