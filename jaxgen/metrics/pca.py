"""Principal components: what a linear map to a few numbers keeps of images."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.metrics.blocks import over_blocks
from jaxgen.metrics.scaling import as_floats, in_memory, in_parts, some

_LARGEST = 4096  # rows of the matrix whose eigenvectors are found
_NOTHING = 1e-10  # the share of the largest eigenvalue up to which one is rounding error


class PCA(NamedTuple):
    """Principal components of images, `[H, W, C]` each.

    Attributes:
        mean: The mean image, `[H·W·C]`.
        components: `[K, H·W·C]`, orthonormal, that of the largest variance first.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def encode(self, images: ArrayLike) -> NDArray[np.float32]:
        """The K numbers of each image: `[N, H, W, C]` in [0, 1] -> `[N, K]`."""
        return over_blocks(_encode, _flat(images), self.mean, self.components)

    def reconstruct(self, images: ArrayLike) -> NDArray[np.float32]:
        """What K numbers keep of each image, clipped to [0, 1]: `[N, H, W, C]` -> the same."""
        flat = over_blocks(_reconstruct, _flat(images), self.mean, self.components)
        return flat.reshape(np.shape(images))


def principal_components(images: ArrayLike, count: int, *, white: int = 255) -> PCA:
    """The principal components of images.

    Args:
        images: `[N, H, W, C]`, integers from 0 to `white` or floats in [0, 1].
        count: The number of components, K; fewer are taken where the images have fewer pixels.
        white: The integer that is 1.

    Returns:
        The mean and the components. Of images of more than 4,096 numbers, as many images are used, from all over the
        data. Products are summed in float32 from deviations from the mean, a part of the images at a time.
    """
    images = in_memory(images)
    size = images[0].size
    if size > _LARGEST:
        images = some(images, _LARGEST)
    total = sum(part.sum(axis=0, dtype=np.float64) for part in in_parts(images, white))
    mean = np.asarray(total / len(images), np.float32).ravel()
    if len(images) > size:
        covariance = jnp.zeros((size, size))
        for part in in_parts(images, white):
            covariance = _add_products(covariance, part.reshape(len(part), size), mean)
        _, vectors = _largest(covariance, min(count, size))
        return PCA(mean, np.ascontiguousarray(vectors.T, np.float32))
    # Of fewer images than numbers, the products of images with each other have the same eigenvalues.
    centred = as_floats(images, white).reshape(len(images), size) - mean
    values, vectors = _largest(centred @ centred.T, min(count, len(images) - 1))
    components = (vectors / np.sqrt(values)).T @ centred
    return PCA(mean, np.asarray(components[values > _NOTHING * values.max()], np.float32))


def _largest(matrix: ArrayLike, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues of a symmetric matrix, in descending order, and their eigenvectors as columns."""
    from scipy.linalg import eigh

    matrix = np.asarray(matrix, np.float64)
    values, vectors = eigh(matrix, subset_by_index=(len(matrix) - count, len(matrix) - 1))
    return np.maximum(values[::-1], np.finfo(np.float64).tiny), vectors[:, ::-1]


def _flat(images: ArrayLike) -> NDArray[np.float32]:
    images = as_floats(images)
    return images.reshape(len(images), -1)


@jax.jit
def _add_products(total: jax.Array, rows: jax.Array, mean: jax.Array) -> jax.Array:
    return total + (rows - mean).T @ (rows - mean)


@jax.jit
def _encode(rows: jax.Array, mean: jax.Array, components: jax.Array) -> jax.Array:
    return (rows - mean) @ components.T


@jax.jit
def _reconstruct(rows: jax.Array, mean: jax.Array, components: jax.Array) -> jax.Array:
    return jnp.clip(_encode(rows, mean, components) @ components + mean, 0, 1)
