"""Measures that compare each vector with its nearest neighbours: precision, recall, density, coverage."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.metrics.blocks import as_features, over_blocks


class PrecisionRecall(NamedTuple):
    """How many samples look real, and how much of what is real is sampled."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely samples lie where data are, and how much of the data has samples near it."""

    density: float
    coverage: float


def precision_recall(
    real: ArrayLike, samples: ArrayLike, *, neighbours: int = 3, real_radii: ArrayLike | None = None
) -> PrecisionRecall:
    """Improved precision and recall.

    Around every vector of a set lies the ball that reaches to its k-th nearest neighbour in the set. Precision is the
    fraction of samples in the ball of any real vector; recall, the fraction of real vectors in the ball of any sample.
    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", 2019
    (https://arxiv.org/abs/1904.06991). In float64, a block of rows at a time.

    Args:
        real: Features `[N, D]`, N > k.
        samples: Features `[M, D]`, M > k.
        neighbours: k.
        real_radii: `radii(real, k)`, where it is known already.

    Returns:
        Two numbers from 0 to 1.

    Raises:
        ValueError: The shapes do not fit, or a value is not finite.
    """
    real, samples = as_features("precision_recall", real, samples, least=neighbours + 1)
    real_radii = radii(real, neighbours) if real_radii is None else np.asarray(real_radii)
    with jax.enable_x64(True):
        precise = over_blocks(_in_any_ball, samples, real, real_radii)
        recalled = over_blocks(_in_any_ball, real, samples, radii(samples, neighbours))
    return PrecisionRecall(float(precise.mean()), float(recalled.mean()))


def density_coverage(
    real: ArrayLike, samples: ArrayLike, *, neighbours: int = 5, real_radii: ArrayLike | None = None
) -> DensityCoverage:
    """Density and coverage, which outliers among the real vectors affect less than precision and recall.

    Density is the mean number of balls around real vectors that a sample lies in, divided by k; coverage, the fraction
    of such balls that hold a sample. Naeem et al., "Reliable fidelity and diversity metrics for generative models",
    2020 (https://arxiv.org/abs/2002.09797). In float64, a block of rows at a time.

    Args:
        real: Features `[N, D]`, N > k.
        samples: Features `[M, D]`.
        neighbours: k.
        real_radii: `radii(real, k)`, where it is known already.

    Returns:
        The density, which is about 1 for samples from the distribution of the data and may be larger; and the coverage,
        from 0 to 1, which is then about 1 − 2⁻ᵏ.

    Raises:
        ValueError: The shapes do not fit, or a value is not finite.
    """
    real, samples = as_features("density_coverage", real, samples, least=1)
    real_radii = radii(real, neighbours) if real_radii is None else np.asarray(real_radii)
    with jax.enable_x64(True):
        held = over_blocks(_held, (real, np.asarray(real_radii)), samples)
    return DensityCoverage(float(held.sum() / (neighbours * len(samples))), float((held > 0).mean()))


def radii(features: ArrayLike, neighbours: int) -> NDArray[np.float64]:
    """The distance of every vector to its k-th nearest neighbour in the same set.

    Args:
        features: `[N, D]`, N > k.
        neighbours: k.

    Returns:
        Distances `[N]`.

    Raises:
        ValueError: There are too few vectors, or a value is not finite.
    """
    (features,) = as_features("radii", features, least=neighbours + 1)
    with jax.enable_x64(True):
        # The nearest of all is the vector itself, at a distance of 0.
        squared = over_blocks(partial(_kth_smallest, k=neighbours), features, features)
    distances: NDArray[np.float64] = np.sqrt(squared)
    return distances


def nearest(vectors: ArrayLike, among: ArrayLike) -> NDArray[np.int64]:
    """The index of the nearest vector by the Euclidean distance.

    Args:
        vectors: `[N, D]`.
        among: `[M, D]`.

    Returns:
        Indices `[N]` into `among`.
    """
    vectors, among = as_features("nearest", vectors, among, least=1)
    with jax.enable_x64(True):
        return over_blocks(_nearest, vectors, among)


def _squared_distances(rows: jax.Array, columns: jax.Array) -> jax.Array:
    norms = jnp.square(rows).sum(1)[:, None] + jnp.square(columns).sum(1)
    distances: jax.Array = jnp.maximum(norms - 2 * rows @ columns.T, 0)
    return distances


@partial(jax.jit, static_argnames="k")
def _kth_smallest(rows: jax.Array, columns: jax.Array, *, k: int) -> jax.Array:
    """The k-th smallest of the squared distances of each row, counted from 0.

    One pass for each distinct value up to it: on the CPU, `lax.top_k` in float64 sorts, which takes ten times as long.
    """
    distances = _squared_distances(rows, columns)

    def step(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        smallest, found = carry
        following = jnp.min(jnp.where(distances > smallest[:, None], distances, jnp.inf), axis=1)
        smallest = jnp.where(found > k, smallest, following)
        return smallest, jnp.sum(distances <= smallest[:, None], axis=1)

    begin = jnp.full(len(rows), -jnp.inf), jnp.zeros(len(rows), int)
    smallest: jax.Array = jax.lax.fori_loop(0, k + 1, step, begin)[0]
    return smallest


@jax.jit
def _in_any_ball(rows: jax.Array, centres: jax.Array, radius: jax.Array) -> jax.Array:
    return jnp.any(_squared_distances(rows, centres) <= jnp.square(radius), axis=1)


@jax.jit
def _held(balls: tuple[jax.Array, jax.Array], vectors: jax.Array) -> jax.Array:
    """How many vectors each ball holds."""
    centres, radius = balls
    return jnp.sum(_squared_distances(centres, vectors) <= jnp.square(radius)[:, None], axis=1)


@jax.jit
def _nearest(rows: jax.Array, among: jax.Array) -> jax.Array:
    return jnp.argmin(_squared_distances(rows, among), axis=1)
