"""Two-dimensional convolution and its transpose, channels last, with PyTorch's semantics."""

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]


def conv(
    x: jax.Array, kernel: jax.Array, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> jax.Array:
    """x [B, H, W, C_in], kernel [kh, kw, C_in, C_out]: `torch.nn.functional.conv2d`, channels last."""
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[2]:
        raise ValueError(f"conv: images {x.shape} do not fit kernel {kernel.shape} [kh, kw, C_in, C_out]")
    size = tuple(
        (x.shape[1 + a] + 2 * padding[a] - dilation[a] * (kernel.shape[a] - 1) - 1) // stride[a] + 1 for a in (0, 1)
    )
    if min(size) < 1:
        raise ValueError(f"conv: output would be {size}")

    def by_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _patches(x, kernel.shape, size, stride, padding, dilation) @ kernel.reshape(-1, kernel.shape[3])

    def by_library(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, stride, [(p, p) for p in padding], rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    return lax.platform_dependent(x, kernel, cpu=by_matmul, default=by_library)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    output_padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> jax.Array:
    """x [B, H, W, C_in], kernel [kh, kw, C_out, C_in]: `torch.nn.functional.conv_transpose2d`, channels last."""
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[3]:
        raise ValueError(f"conv_transpose: images {x.shape} do not fit kernel {kernel.shape} [kh, kw, C_out, C_in]")
    for a in (0, 1):
        if output_padding[a] >= max(stride[a], dilation[a]):
            raise ValueError("conv_transpose: output_padding must be smaller than the stride or the dilation")
    size = tuple(
        (x.shape[1 + a] - 1) * stride[a] - 2 * padding[a] + dilation[a] * (kernel.shape[a] - 1) + output_padding[a] + 1
        for a in (0, 1)
    )
    if min(size) < 1:
        raise ValueError(f"conv_transpose: output would be {size}")

    def by_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
        columns = x @ kernel.reshape(-1, kernel.shape[3]).T
        return _overlap_add(columns, kernel.shape, size, stride, padding, dilation)

    def by_library(x: jax.Array, kernel: jax.Array) -> jax.Array:
        edges = [
            (dilation[a] * (kernel.shape[a] - 1) - padding[a],) * 2 for a in (0, 1)
        ]
        edges = [(low, high + extra) for (low, high), extra in zip(edges, output_padding, strict=True)]
        return lax.conv_general_dilated(
            x, kernel[::-1, ::-1], (1, 1), edges, lhs_dilation=stride, rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWOI", "NHWC"),
        )  # fmt: skip

    return lax.platform_dependent(x, kernel, cpu=by_matmul, default=by_library)


def _patches(x, kernel_shape, size, stride, padding, dilation):
    """[B, H, W, C] -> [B, H', W', kh * kw * C]."""
    kh, kw = kernel_shape[:2]
    x = jnp.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    return jnp.concatenate(
        [
            x[
                :,
                i * dilation[0] : i * dilation[0] + (size[0] - 1) * stride[0] + 1 : stride[0],
                j * dilation[1] : j * dilation[1] + (size[1] - 1) * stride[1] + 1 : stride[1],
            ]
            for i in range(kh)
            for j in range(kw)
        ],
        axis=-1,
    )


def _overlap_add(columns, kernel_shape, size, stride, padding, dilation):
    """[B, H, W, kh * kw * C] -> [B, H', W', C], the transpose of `_patches`."""
    kh, kw = kernel_shape[:2]
    batch, *inner, _ = columns.shape
    columns = columns.reshape(batch, *inner, kh, kw, -1)
    zero = jnp.zeros((), columns.dtype)

    def edge(tap, axis):
        low = tap * dilation[axis] - padding[axis]
        return low, size[axis] - low - (inner[axis] - 1) * stride[axis] - 1, stride[axis] - 1

    return sum(
        lax.pad(columns[:, :, :, i, j], zero, ((0, 0, 0), edge(i, 0), edge(j, 1), (0, 0, 0)))
        for i in range(kh)
        for j in range(kw)
    )
