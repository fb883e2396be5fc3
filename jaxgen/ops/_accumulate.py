"""The dtype in which sums are accumulated."""

import jax.numpy as jnp
import numpy as np


def accumulator(dtype: np.dtype) -> np.dtype:
    """float32 for 16-bit floating-point dtypes, every other dtype itself."""
    return jnp.dtype(jnp.float32) if jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2 else dtype
