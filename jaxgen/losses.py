"""The recipes' losses: arrays in, a scalar out."""

import jax
import jax.numpy as jnp
import numpy as np


def binary_cross_entropy(logits: jax.Array, target: float | jax.Array) -> jax.Array:
    """Compute the mean binary cross-entropy of sigmoid(logits).

        t·log(1 + exp(−l)) + (1 − t)·log(1 + exp(l))

    Equals `torch.nn.BCELoss` on the probabilities wherever that is not clamped. From the logits nothing saturates:
    BCELoss stops at 100 and its gradient fades once the discriminator is certain
    (https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html).

    Args:
        logits: Of any shape.
        target: In [0, 1], of the same shape, or one number for all.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("binary_cross_entropy", logits, target, scalar=True)
    return jnp.mean(target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits))


def mean_squared_error(prediction: jax.Array, target: float | jax.Array | np.ndarray) -> jax.Array:
    """Compute the mean over all elements of (prediction − target)², as `torch.nn.MSELoss` does.

    Args:
        prediction: Of any shape.
        target: Of the same shape, or one number for all.

    Returns:
        A scalar.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("mean_squared_error", prediction, target, scalar=True)
    return jnp.mean(jnp.square(prediction - target))


def bernoulli_cross_entropy(probabilities: jax.Array, target: float | jax.Array, delta: float = 1e-7) -> jax.Array:
    """Compute −Σ [t·log(p + δ) + (1 − t)·log(1 − p + δ)] over all elements.

    Args:
        probabilities: In [0, 1], of any shape.
        target: In [0, 1], of the same shape, or one number for all.
        delta: Keeps the logarithms finite.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("bernoulli_cross_entropy", probabilities, target, scalar=True)
    return -jnp.sum(target * jnp.log(probabilities + delta) + (1 - target) * jnp.log(1 - probabilities + delta))


def gaussian_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Compute KL(N(mean, σ²) ‖ N(0, 1)) = −½ Σ (1 + log σ² − mean² − σ²) over all elements.

    Kingma and Welling 2013, appendix B.

    Args:
        mean: Of any shape.
        log_variance: log σ², of the same shape.

    Returns:
        A scalar, in nats.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("gaussian_kl", mean, log_variance, scalar=False)
    return -0.5 * jnp.sum(1 + log_variance - jnp.square(mean) - jnp.exp(log_variance))


def _check_shapes(name: str, first: jax.Array, second: float | jax.Array | np.ndarray, *, scalar: bool) -> None:
    """Broadcasting `[4, 1]` with `[4]` would give another number without a word."""
    shapes = jnp.shape(first), jnp.shape(second)
    if shapes[0] != shapes[1] and not (scalar and shapes[1] == ()):
        raise ValueError(f"{name}: shapes {shapes[0]} and {shapes[1]} differ")
