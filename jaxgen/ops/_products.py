"""Products of matrices, and the dtype in which sums are accumulated."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def accumulator(dtype: np.dtype) -> np.dtype:
    """float32 for 16-bit floating-point dtypes, every other dtype itself."""
    return jnp.dtype(jnp.float32) if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2 else dtype


def dot(a: jax.Array, b: jax.Array, axis_of_a: int, axis_of_b: int) -> jax.Array:
    """The product of two matrices, contracted over these axes, in the dtype in which sums are accumulated.

    On the CPU, XLA multiplies 16-bit matrices as such only if the result is float32, the axes are (1, 0) or (1, 1), and
    no operand is a transposition; otherwise it converts both to float32 first.
    """
    contracted = (((axis_of_a,), (axis_of_b,)), ((), ()))
    product: jax.Array = lax.dot_general(a, b, contracted, preferred_element_type=accumulator(a.dtype))
    return product


def transposed_dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """aᵀ · b of [N, K] and [N, M], such as the gradient of a weight: [K, M]."""
    if accumulator(a.dtype) == a.dtype:
        return dot(a, b, 0, 0)
    # The barrier keeps XLA from contracting axis 0 instead; after the reshape, it sees no transposition any more.
    return dot(lax.optimization_barrier(a.T[None]).reshape(a.shape[1], a.shape[0]), b, 1, 0)
