"""Pooling, channels last, with PyTorch's semantics."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[int, int]  # height, width


def max_pool(x: jax.Array, window: Pair = (2, 2), *, stride: Pair | None = None, padding: Pair = (0, 0)) -> jax.Array:
    """The largest number of every window, as `torch.nn.functional.max_pool2d` does.

    The gradient goes to that number; among equal ones to the first of the window, row by row. Equal ones are common
    after a ReLU, and a maximum over a reshaped axis would split the gradient among them. A window that holds a NaN
    gives NaN. It has derivatives of reverse mode only, of any order.

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
    x = jnp.pad(x, edges, constant_values=-jnp.inf)
    rows, columns = ((x.shape[1 + a] - window[a]) // stride[a] + 1 for a in (0, 1))
    if window == stride:
        x = x[:, : rows * window[0], : columns * window[1]]
        return _largest_in_tiles(x.reshape(-1, rows, window[0], columns, window[1], x.shape[3]))
    down, across = stride
    places = [(i, j) for i in range(window[0]) for j in range(window[1])]
    return _largest([x[:, i::down, j::across][:, :rows, :columns] for i, j in places])[0]


def _largest(images: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The largest of images, number by number, and in which of them it is: the first of equal ones, the last NaN."""
    numbers = np.arange(len(images), dtype=np.min_scalar_type(len(images) - 1))  # a byte, for all but huge windows
    largest, place = images[0], jnp.zeros(images[0].shape, numbers.dtype)
    for number, image in zip(numbers[1:], images[1:], strict=True):
        takes = (image > largest) | jnp.isnan(image)
        largest, place = lax.select(takes, image, largest), jnp.where(takes, number, place)
    return largest, place


@jax.custom_vjp
def _largest_in_tiles(tiles: jax.Array) -> jax.Array:
    """[B, H', window, W', window, C] -> [B, H', W', C]. Autodiff would keep a mask for every comparison and lay out the
    gradient pixel by pixel; here a place is kept, and the gradient is laid out in one pass."""
    return _largest(_pixels(tiles))[0]


def _pixels(tiles: jax.Array) -> list[jax.Array]:
    return [tiles[:, :, i, :, j] for i in range(tiles.shape[2]) for j in range(tiles.shape[4])]


def _keep_places(tiles: jax.Array) -> tuple[jax.Array, tuple[jax.Array, Pair]]:
    largest, place = _largest(_pixels(tiles))
    return largest, (_computed_once(place), (tiles.shape[2], tiles.shape[4]))


def _computed_once(place: jax.Array) -> jax.Array:
    """The same numbers. XLA's CPU would compute them anew for every pixel of the gradient, each time from all pixels of
    the window and from what these are made of; it drops an optimization barrier, but repeats no product."""

    def by_product(place: jax.Array) -> jax.Array:
        numbers = place.reshape(-1, place.shape[-1]).astype(jnp.float32)  # which has all of them, exactly
        return (numbers @ jnp.eye(numbers.shape[1], dtype=jnp.float32)).astype(place.dtype).reshape(place.shape)

    return lax.platform_dependent(place, cpu=by_product, default=lambda place: place)


def _to_places(saved: tuple[jax.Array, Pair], gradient: jax.Array) -> tuple[jax.Array]:
    place, (height, width) = saved
    number = jnp.arange(height * width, dtype=place.dtype).reshape(height, 1, width, 1)
    here = place[:, :, None, :, None] == number
    return (jnp.where(here, gradient[:, :, None, :, None], jnp.zeros((), gradient.dtype)),)


_largest_in_tiles.defvjp(_keep_places, _to_places)
