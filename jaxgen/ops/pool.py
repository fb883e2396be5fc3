"""Pooling, channels last, with PyTorch's semantics."""

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]


def max_pool(x: jax.Array, window: Pair = (2, 2), *, stride: Pair | None = None, padding: Pair = (0, 0)) -> jax.Array:
    """x [B, H, W, C]: `torch.nn.functional.max_pool2d`, channels last."""
    stride = window if stride is None else stride
    size = tuple((x.shape[1 + a] + 2 * padding[a] - window[a]) // stride[a] + 1 for a in (0, 1))
    if min(size) < 1:
        raise ValueError(f"max_pool: output would be {size}")
    x = jnp.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)), constant_values=-jnp.inf)
    shifted = [
        x[
            :,
            i : i + (size[0] - 1) * stride[0] + 1 : stride[0],
            j : j + (size[1] - 1) * stride[1] + 1 : stride[1],
        ]
        for i in range(window[0])
        for j in range(window[1])
    ]
    best = shifted[0]
    for other in shifted[1:]:  # strictly greater: on ties the first keeps the gradient
        best = lax.select((other > best) | jnp.isnan(other), other, best)
    return best
