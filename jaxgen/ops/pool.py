"""Pooling, channels last, with PyTorch's semantics."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[int, int]  # height, width


def max_pool(x: jax.Array, window: Pair = (2, 2), *, stride: Pair | None = None, padding: Pair = (0, 0)) -> jax.Array:
    """Take the largest number of every window, as `torch.nn.functional.max_pool2d` does.

    The gradient goes to that number; among equal ones to the first of the window, row by row. Equal numbers are common
    after a ReLU, and a maximum over a reshaped axis would split the gradient among them. A window that holds a NaN
    gives NaN. It has derivatives of reverse mode only, of any order.

    Args:
        x: Images `[B, H, W, C]` of a floating dtype; B may be 0.
        window: Height and width of the windows.
        stride: Pixels from one window to the next; by default the size of the window, so that windows do not overlap.
        padding: Pixels on both sides that are never the largest; at most half the window.

    Returns:
        `[B, H', W', C]` with H' = ⌊(H + 2·padding − window) / stride⌋ + 1, and W' likewise.

    Raises:
        ValueError: The output would be empty, a window could hold padding alone, or the images are integers.
    """
    x, stride = jnp.asarray(x), window if stride is None else stride
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating) or 0 in x.shape[1:]:
        raise ValueError(f"max_pool: takes floating-point images [B, H, W, C], not {x.dtype} {x.shape}")
    for name, value in {"window": window, "stride": stride, "padding": padding}.items():
        if len(value) != 2 or min(value) < (name != "padding"):
            raise ValueError(f"max_pool: {name} must be two numbers (height, width), not {value}")
    if any(2 * edge > length for edge, length in zip(padding, window, strict=True)):
        raise ValueError(f"max_pool: padding {padding} must be at most half the window {window}")
    if any(x.shape[1 + a] + 2 * padding[a] < window[a] for a in (0, 1)):
        raise ValueError(f"max_pool: a {window} window does not fit into images of {x.shape[1:3]} with {padding=}")
    edges = [(0, 0), *((edge, edge) for edge in padding), (0, 0)]
    real = np.pad(np.ones((1, *x.shape[1:3], 1), bool), edges)
    x = jnp.pad(x, edges)
    rows, columns = ((x.shape[1 + a] - window[a]) // stride[a] + 1 for a in (0, 1))
    if window == stride:
        x, real = (
            _corner(x, rows * window[0], columns * window[1]),
            _corner(real, rows * window[0], columns * window[1]),
        )
        shape = rows, window[0], columns, window[1]
        tiles = x.reshape(x.shape[0], *shape, x.shape[3])
        return _largest_in_tiles(tiles, None if real.all() else _Mask(real.reshape(1, *shape, 1)))
    down, across = stride
    places = [(i, j) for i in range(window[0]) for j in range(window[1])]
    images = [_corner(x[:, i::down, j::across], rows, columns) for i, j in places]
    return _largest(images, [_corner(real[:, i::down, j::across], rows, columns) for i, j in places])[0]


def _corner(array: Any, rows: int, columns: int) -> Any:
    return array[:, :rows, :columns]


class _Mask:
    """Which pixels are not padding, as a static argument: hashed by value."""

    def __init__(self, real: np.ndarray) -> None:
        self.real = real

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Mask) and np.array_equal(self.real, other.real)

    def __hash__(self) -> int:
        return hash((self.real.shape, self.real.tobytes()))


def _largest(images: list[jax.Array], real: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """The largest of images, number by number, and in which of them it is: the first of equal ones, the last NaN.

    Only pixels that are real count. They are known from the start, so padding needs no number of its own that a window
    of −inf would not beat.
    """
    numbers = np.arange(len(images), dtype=np.min_scalar_type(len(images) - 1))  # a byte, for all but huge windows
    largest, place, seen = images[0], jnp.zeros(images[0].shape, numbers.dtype), real[0]
    for number, image, counts in zip(numbers[1:], images[1:], real[1:], strict=True):
        takes = (image > largest) | jnp.isnan(image)
        if not (seen.all() and counts.all()):
            takes = (takes | ~seen) & counts
        largest, place, seen = lax.select(takes, image, largest), jnp.where(takes, number, place), seen | counts
    return largest, place


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _largest_in_tiles(tiles: jax.Array, mask: _Mask | None) -> jax.Array:
    """[B, H', window, W', window, C] -> [B, H', W', C].

    Autodiff would keep a mask for every comparison and lay out the gradient pixel by pixel; here the place of the
    largest is kept, and the gradient is laid out in one pass.
    """
    return _keep_places(tiles, mask)[0]


def _pixels(tiles: Any) -> list[Any]:
    return [tiles[:, :, i, :, j] for i in range(tiles.shape[2]) for j in range(tiles.shape[4])]


def _keep_places(tiles: jax.Array, mask: _Mask | None) -> tuple[jax.Array, tuple[jax.Array, Pair]]:
    pixels = _pixels(tiles)
    largest, place = _largest(pixels, _pixels(mask.real) if mask else [np.array(True)] * len(pixels))
    return largest, (_computed_once(place), (tiles.shape[2], tiles.shape[4]))


def _computed_once(place: jax.Array) -> jax.Array:
    """The same numbers.

    XLA's CPU compiler would compute them again for every pixel of the gradient, each time from all pixels of the window
    and from what these are made of. It drops an optimization barrier, but repeats no matrix product.
    """

    def by_product(place: jax.Array) -> jax.Array:
        rows, channels = math.prod(place.shape[:-1]), place.shape[-1]
        numbers = place.reshape(rows, channels).astype(jnp.float32)  # which has all of them, exactly
        return (numbers @ jnp.eye(channels, dtype=jnp.float32)).astype(place.dtype).reshape(place.shape)

    once: jax.Array = lax.platform_dependent(place, cpu=by_product, default=lambda place: place)
    return once


def _to_places(mask: _Mask | None, saved: tuple[jax.Array, Pair], gradient: jax.Array) -> tuple[jax.Array]:
    place, (height, width) = saved
    number = jnp.arange(height * width, dtype=place.dtype).reshape(height, 1, width, 1)
    here = place[:, :, None, :, None] == number
    return (jnp.where(here, gradient[:, :, None, :, None], jnp.zeros((), gradient.dtype)),)


_largest_in_tiles.defvjp(_keep_places, _to_places)
