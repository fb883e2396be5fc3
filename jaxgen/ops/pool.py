"""Pooling, channels last, with PyTorch's semantics."""

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]  # height, width


def max_pool(x: jax.Array, window: Pair = (2, 2), *, stride: Pair | None = None, padding: Pair = (0, 0)) -> jax.Array:
    """The largest number of every window, as `torch.nn.functional.max_pool2d` does.

    The gradient goes to that number; among equal ones to the first of the window, row by row. Equal ones are common
    after a ReLU, and a maximum over a reshaped axis would split the gradient among them. A window that holds a NaN
    gives NaN.

    Args:
        x: images [B, H, W, C], of any floating type.
        window: its height and width.
        stride: from one window to the next; the window's size unless given, so that windows do not overlap.
        padding: pixels on both sides that are never the largest; at most half the window.

    Returns:
        [B, H', W', C] with H' = ⌊(H + 2·padding − window) / stride⌋ + 1, and W' likewise.

    Raises:
        ValueError: nothing would come out, or a window could hold padding alone.
    """
    stride = window if stride is None else stride
    if x.ndim != 4 or min(*window, *stride) < 1:
        raise ValueError(f"max_pool: takes images [B, H, W, C], not {x.shape}; window and stride must be positive")
    if any(not 0 <= 2 * edge <= length for edge, length in zip(padding, window, strict=True)):
        raise ValueError(f"max_pool: padding {padding} must be between 0 and half the window {window}")
    if any(x.shape[1 + a] + 2 * padding[a] < window[a] for a in (0, 1)):
        raise ValueError(f"max_pool: a {window} window does not fit into images of {x.shape[1:3]} with {padding=}")
    edges = [(0, 0), *((edge, edge) for edge in padding), (0, 0)]
    first, *others = _pixels(jnp.pad(x, edges, constant_values=-jnp.inf), window, stride)
    largest = first
    for other in others:  # only a larger one takes the place, so the first of equal ones keeps the gradient
        largest = lax.select((other > largest) | jnp.isnan(other), other, largest)
    return largest


def _pixels(x: jax.Array, window: Pair, stride: Pair) -> list[jax.Array]:
    """The pixels at each place of the window, row by row: as many images [B, H', W', C] as a window has pixels."""
    height, width = ((x.shape[1 + a] - window[a]) // stride[a] + 1 for a in (0, 1))
    places = [(i, j) for i in range(window[0]) for j in range(window[1])]
    if window == stride:  # a view; on the CPU its gradient is faster than that of slices with steps
        x = x[:, : height * window[0], : width * window[1]].reshape(-1, height, window[0], width, window[1], x.shape[3])
        return [x[:, :, i, :, j] for i, j in places]
    down, across = stride
    return [x[:, i : i + height * down : down, j : j + width * across : across][:, :height, :width] for i, j in places]
