"""Distances between two sets of feature vectors: how far samples are from data as a whole."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.metrics.blocks import as_features, over_blocks

_GROUPS = 10  # whose estimates give the standard error


def frechet_distance(first: ArrayLike, second: ArrayLike) -> float:
    """The Fréchet distance between the normal distributions that have the means and covariances of two sets.

        |μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½)

    Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982; as a measure of samples,
    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", 2017
    (https://arxiv.org/abs/1706.08500). The trace of (C₁C₂)^½ is the sum of the singular values of S₁ᵀS₂ with
    Cᵢ = SᵢSᵢᵀ, which is exact for singular covariances too. In float64.

    Args:
        first: Features `[N, D]`, at least two rows.
        second: Features `[M, D]`, at least two rows.

    Returns:
        The distance, in squared units of the features. It depends on N and M: compare at equal counts only.

    Raises:
        ValueError: The shapes do not fit, or a value is not finite.
    """
    first, second = as_features("frechet_distance", first, second, least=2)
    mean_1, root_1 = _mean_and_root(first)
    mean_2, root_2 = _mean_and_root(second)
    between = np.linalg.svd(root_1.T @ root_2, compute_uv=False).sum()
    distance = np.square(mean_1 - mean_2).sum() + np.square(root_1).sum() + np.square(root_2).sum() - 2 * between
    return max(0.0, float(distance))


def _mean_and_root(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean `[D]`, and S `[D, D]` with SSᵀ the covariance."""
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(features, rowvar=False)))
    return features.mean(axis=0), vectors * np.sqrt(np.maximum(values, 0))


def kernel_distance(first: ArrayLike, second: ArrayLike) -> tuple[float, float]:
    """The squared maximum mean discrepancy of two sets under the kernel (xᵀy / D + 1)³, without bias.

    Bińkowski et al., "Demystifying MMD GANs", 2018 (https://arxiv.org/abs/1801.01401), where it is called KID. That
    paper averages the estimate over random subsets; this takes all pairs, which has the same expectation and a smaller
    variance. The standard error is the jackknife's over ten groups. In float64, a block of rows at a time.

    Args:
        first: Features `[N, D]`, at least four rows.
        second: Features `[M, D]`, at least four rows.

    Returns:
        The estimate, whose expectation does not depend on N and M and which may be negative, and its standard error.

    Raises:
        ValueError: The shapes do not fit, or a value is not finite.
    """
    first, second = as_features("kernel_distance", first, second, least=4)
    groups = min(_GROUPS, len(first) // 2, len(second) // 2)
    within_1, within_2 = (_kernel_sums(each, each, groups, same=True) for each in (first, second))
    between = _kernel_sums(first, second, groups, same=False)
    sizes_1, sizes_2 = (np.bincount(_group_of(len(each), groups)) for each in (first, second))

    def estimate(kept: NDArray[np.bool_]) -> float:
        n, m = sizes_1[kept].sum(), sizes_2[kept].sum()
        pairs = np.ix_(kept, kept)
        within = within_1[pairs].sum() / (n * (n - 1)) + within_2[pairs].sum() / (m * (m - 1))
        return float(within - 2 * between[pairs].sum() / (n * m))

    without = np.array([estimate(np.arange(groups) != group) for group in range(groups)])
    error = np.sqrt((groups - 1) * without.var())
    return estimate(np.ones(groups, bool)), float(error)


def _group_of(count: int, groups: int) -> NDArray[np.int64]:
    """The group of each row; groups of consecutive rows, alike in size."""
    return np.arange(count) * groups // count


def _kernel_sums(
    rows: NDArray[np.float64], columns: NDArray[np.float64], groups: int, *, same: bool
) -> NDArray[np.float64]:
    """Sums of the kernel over the pairs of each two groups, `[groups, groups]`; without pairs of a row with itself."""
    with jax.enable_x64(True):
        memberships = [np.eye(groups)[_group_of(len(each), groups)] for each in (rows, columns)]
        sums = over_blocks(partial(_block_sums, same=same), (rows, np.arange(len(rows))), columns, memberships[1])
        return np.asarray(memberships[0].T @ sums)


@partial(jax.jit, static_argnames="same")
def _block_sums(
    block: tuple[jax.Array, jax.Array], columns: jax.Array, membership: jax.Array, *, same: bool
) -> jax.Array:
    rows, numbers = block
    kernel = (rows @ columns.T / rows.shape[1] + 1) ** 3
    if same:
        kernel = jnp.where(numbers[:, None] == jnp.arange(columns.shape[0]), 0, kernel)
    return kernel @ membership
