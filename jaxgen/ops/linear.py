"""A linear layer's product, in a dtype of its own."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgen.ops._products import accumulator, dot, transposed_dot

__all__ = ["linear"]


def linear(x: jax.Array, weight: jax.Array, *, matmul_dtype: DTypeLike | None = None) -> jax.Array:
    """x · weight.

    16-bit products are summed in float32, in the gradients too.

    Args:
        x: `[..., in]`.
        weight: `[in, out]`, in the dtype of `x`.
        matmul_dtype: What both are rounded to before they are multiplied; by default their own dtype.

    Returns:
        `[..., out]` in the dtype of `x`.
    """
    dtype = jnp.dtype(matmul_dtype or x.dtype)
    if accumulator(dtype) == dtype == x.dtype:
        return x @ weight
    y = _linear(dtype, x.reshape(math.prod(x.shape[:-1]), x.shape[-1]), weight)
    return y.reshape(*x.shape[:-1], weight.shape[1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _linear(dtype: np.dtype, x: jax.Array, weight: jax.Array) -> jax.Array:
    return dot(x.astype(dtype), weight.astype(dtype), 1, 0).astype(x.dtype)


def _gradients(dtype: np.dtype, saved: tuple[jax.Array, jax.Array], d_y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight, d_y = (array.astype(dtype) for array in (*saved, d_y))
    d_x, d_weight = dot(d_y, weight, 1, 1), transposed_dot(x, d_y)
    return d_x.astype(saved[0].dtype), d_weight.astype(saved[1].dtype)


_linear.defvjp(lambda dtype, x, weight: (_linear(dtype, x, weight), (x, weight)), _gradients)
