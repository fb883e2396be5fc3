"""Convolutions of the platform's own library (cuDNN on a GPU), through XLA."""

import jax
from jax import lax

from jaxgen.ops.conv._geometry import Geometry


def conv(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    small = lax.conv_general_dilated(
        large,
        kernel,
        geometry.stride,
        [(pixels, pixels) for pixels in geometry.padding],
        rhs_dilation=geometry.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    # With output padding the large image extends beyond what the kernel reaches; those outputs do not exist.
    return small[:, : geometry.small[0], : geometry.small[1]]


def conv_transpose(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    shape = (small.shape[0], *geometry.large, kernel.shape[2])
    transpose = jax.linear_transpose(
        lambda large: conv(geometry, large, kernel), jax.ShapeDtypeStruct(shape, small.dtype)
    )
    large: jax.Array = transpose(small)[0]
    return large


def kernel_grad(geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    shape = (*geometry.window, large.shape[3], small.shape[3])
    transpose = jax.linear_transpose(
        lambda kernel: conv(geometry, large, kernel), jax.ShapeDtypeStruct(shape, large.dtype)
    )
    kernel: jax.Array = transpose(small)[0]
    return kernel
