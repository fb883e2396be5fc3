"""Images as floating-point numbers, and which of them are compared."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.ondisk import DiskArray

_PART = 5000  # images that are scaled at a time, so that the floats of a whole data set are never in memory
_MOST_FROM_DISK = 10_000  # images that are measured of data on disk


def as_floats(images: ArrayLike, white: int = 255) -> NDArray[np.float32]:
    """Images in [0, 1]: integers are divided by `white`, floats are taken as they are."""
    array = np.asarray(images)
    if np.issubdtype(array.dtype, np.integer):
        return np.asarray(array, np.float32) / np.float32(white)
    return np.asarray(array, np.float32)


def in_parts(images: NDArray[np.generic], white: int) -> Iterator[NDArray[np.float32]]:
    """Images in [0, 1], a few thousand at a time."""
    for start in range(0, len(images), _PART):
        yield as_floats(images[start : start + _PART], white)


def in_memory(images: Any) -> NDArray[np.generic]:
    """Images in memory; of those on disk, at most 10,000, as `some` chooses them."""
    return some(images, _MOST_FROM_DISK) if isinstance(images, DiskArray) else np.asarray(images)


def labels_in_memory(labels: ArrayLike, images: Any) -> NDArray[np.generic]:
    """The labels of the images that `in_memory` gives."""
    array = np.asarray(labels)
    return some(array, _MOST_FROM_DISK) if isinstance(images, DiskArray) else array


def halves(images: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Data without a test split, cut into two halves that differ by at most one image; always the same halves."""
    order = np.random.default_rng(0).permutation(len(images))
    middle = len(images) // 2
    return images[np.sort(order[:middle])], images[np.sort(order[middle:])]


def some(images: NDArray[np.generic] | DiskArray, count: int) -> NDArray[np.generic]:
    """At most `count` images from all over the data, which may be sorted by class; always the same ones."""
    order = np.random.default_rng(0).permutation(len(images))
    return images[np.sort(order[:count])]
