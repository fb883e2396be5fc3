"""Convolutions as matrix products, for the CPU: which implementation computes which shape.

16-bit inputs give float32.
"""

import math

import jax

from jaxgen.ops.conv import _matmul, _winograd
from jaxgen.ops.conv._geometry import Geometry

# Measured on the CPU: relative cost of the zeros beyond the border above which summing patches is faster than phases.
MUCH_BORDER = 1.25


def conv(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    if taps := _winograd.choose(geometry, large, kernel.shape[2:], geometry.small):
        return _winograd.conv(taps, geometry, large, kernel)
    return _matmul.conv(geometry, large, kernel)


def conv_transpose(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    one_patch_a_pixel = (
        count == 1 or length == step
        for count, length, step in zip(geometry.small, geometry.window, geometry.stride, strict=True)
    )
    if geometry.dilation == (1, 1) and all(one_patch_a_pixel):
        return _matmul.tile_patches(geometry, _matmul.patches(small, kernel))
    if 4 * kernel.shape[2] <= kernel.shape[3]:  # the patches are smaller than the windows that they come from
        return _matmul.col2im(geometry, _matmul.patches(small, kernel))
    if taps := _winograd.choose(geometry, small, kernel.shape[2:], _winograd.depth_range(geometry)[1]):
        return _winograd.conv_transpose(taps, geometry, small, kernel)
    if math.prod(geometry.large) > MUCH_BORDER * math.prod(geometry.small) * math.prod(geometry.stride):
        return _matmul.col2im(geometry, _matmul.patches(small, kernel))  # phases would multiply many zeros
    return _matmul.conv_transpose_by_phases(geometry, small, kernel)


def kernel_grad(geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    if taps := _winograd.choose(geometry, large, (large.shape[3], small.shape[3]), geometry.small):
        return _winograd.kernel_grad(taps, geometry, large, small)
    return _matmul.kernel_grad(geometry, large, small)
