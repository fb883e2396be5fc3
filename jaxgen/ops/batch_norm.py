"""Batch normalisation in training mode, with PyTorch's arithmetic.

The gradient is written by hand, with two sums over the gradient and one pass. Autodiff goes back through the variance
and then through the mean, with a pass over all images and a sum for each.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["batch_norm", "inverse_root"]

Mean = Callable[[Any], Any]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def batch_norm(
    x: jax.Array, weight: jax.Array, bias: jax.Array, eps: float, mean_over_devices: Mean
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalise every channel over all other axes.

    It has derivatives of reverse mode only, of any order.

    Args:
        x: `[..., C]`, floating-point; the other arrays share its dtype.
        weight: `[C]`, by which the normalised values are multiplied.
        bias: `[C]`, which is added.
        eps: Added to the variance.
        mean_over_devices: Takes a tree of arrays and gives its mean over the devices that share the batch.

    Returns:
        The normalised values `[..., C]`; the mean and the biased variance of every channel, `[C]` each, which count as
        constants in derivatives.
    """
    y, mean, var = _forward(x, weight, bias, eps, mean_over_devices)[0]
    return y, mean, var


def _forward(x: jax.Array, weight: jax.Array, bias: jax.Array, eps: float, mean_over_devices: Mean) -> tuple[Any, Any]:
    axes = tuple(range(x.ndim - 1))
    mean = mean_over_devices(x.mean(axes))
    centred = x - mean  # E[(x − mean)²], not E[x²] − mean², which cancels badly
    var = mean_over_devices(jnp.square(centred).mean(axes))
    scale = inverse_root(var + eps)
    return (centred * (weight * scale) + bias, mean, var), (centred, weight, scale)


def _backward(eps: float, mean_over_devices: Mean, saved: Any, gradients: Any) -> tuple[jax.Array, ...]:
    """With n = (x − mean) / √(var + eps), and d_ for the gradient with respect to:

    d_x = weight / √(var + eps) (d_y − mean of d_y − n · mean of d_y n)
    """
    centred, weight, scale = saved
    d_y, _, _ = gradients
    axes, count = tuple(range(d_y.ndim - 1)), math.prod(d_y.shape[:-1])
    d_bias, d_weight = d_y.sum(axes), (d_y * centred).sum(axes) * scale
    mean, slope = mean_over_devices((d_bias / count, d_weight / count))
    return (weight * scale) * (d_y - mean - centred * (slope * scale)), d_weight, d_bias


batch_norm.defvjp(_forward, _backward)


def inverse_root(x: jax.Array) -> jax.Array:
    """1/√x. The gradient of `lax.rsqrt`, −½ x^(−3/2), is 0 in float32 from x = 1e26 on."""
    return 1 / jnp.sqrt(x)
