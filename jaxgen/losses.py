"""The recipes' losses: arrays in, a scalar out."""

import jax
import jax.numpy as jnp


def binary_cross_entropy(logits: jax.Array, target: float | jax.Array) -> jax.Array:
    """Mean binary cross-entropy of sigmoid(logits) against `target` in [0, 1]; any shape -> scalar.

        t·log(1 + exp(−l)) + (1 − t)·log(1 + exp(l))

    Equals `torch.nn.BCELoss` on the probabilities wherever that is not clamped. From the logits nothing saturates:
    BCELoss stops at 100 and its gradient fades once the discriminator is sure of itself
    (https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html).
    """
    return jnp.mean(target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits))


def mean_squared_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean over all elements of (prediction − target)²; two arrays of one shape -> scalar (`torch.nn.MSELoss`)."""
    return jnp.mean(jnp.square(prediction - target))


def bernoulli_cross_entropy(probabilities: jax.Array, target: jax.Array, delta: float = 1e-7) -> jax.Array:
    """−Σ [t·log(p + δ) + (1 − t)·log(1 − p + δ)] over all elements, in nats; δ keeps the logarithms finite."""
    return -jnp.sum(target * jnp.log(probabilities + delta) + (1 - target) * jnp.log(1 - probabilities + delta))


def gaussian_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(mean, σ²) ‖ N(0, 1)) = −½ Σ (1 + log σ² − mean² − σ²), summed over all elements, in nats.

    Kingma and Welling 2013, appendix B.
    """
    return -0.5 * jnp.sum(1 + log_variance - jnp.square(mean) - jnp.exp(log_variance))
