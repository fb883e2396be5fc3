"""Work on many rows a block at a time, so that a matrix of all pairs is never in memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

_ROWS = 100  # of a block: with 10,000 columns in float64 it is 8 MB, which stays in a processor's caches


def over_blocks(function: Callable[..., Any], rows: Any, *arguments: Any) -> NDArray[Any]:
    """Apply a jitted function to blocks of rows, and concatenate what it returns.

    Args:
        function: `(block, *arguments) -> array` with the block's rows as its first axis.
        rows: An array, or a tree of arrays with the rows as their first axis.
        arguments: What else the function takes; arrays are placed on the device once.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    size = min(_ROWS, count)
    placed = jax.device_put(arguments)
    done = []
    for start in range(0, count, size):
        # The last block repeats the last row, so that one size is compiled.
        block = np.minimum(np.arange(start, start + size), count - 1)
        done.append(function(jax.tree.map(lambda array, block=block: array[block], rows), *placed))
    return np.concatenate(jax.device_get(done))[:count]


def as_features(name: str, *sets: ArrayLike, least: int) -> list[NDArray[np.float64]]:
    """Sets of feature vectors in float64.

    Args:
        name: What the error calls the caller.
        sets: `[N, D]` each, with one D.
        least: The fewest rows that the caller can use.

    Raises:
        ValueError: They have other shapes or fewer rows, or a value is not finite.
    """
    arrays = [np.asarray(each, np.float64) for each in sets]
    shapes = " and ".join(str(array.shape) for array in arrays)
    if any(array.ndim != 2 for array in arrays) or len({array.shape[1:] for array in arrays}) > 1:
        raise ValueError(f"{name}: takes features [N, D] with one D, not {shapes}")
    if min(map(len, arrays)) < least:
        raise ValueError(f"{name}: takes at least {least} vectors in each set, not {shapes}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(f"{name}: a feature is not finite")
    return arrays
