"""Measures of variational autoencoders: bounds on the likelihood, and what the latent space holds."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.losses import bernoulli_cross_entropy, gaussian_kl
from jaxgen.metrics.scaling import as_floats

Encode = Callable[..., tuple[Any, Any]]  # images [B, H, W, C] (and labels [B]) -> mean and log σ² [B, latent]
Decode = Callable[..., Any]  # codes [B, latent] (and labels [B]) -> images [B, H, W, C] in (0, 1)

_BATCH = 500  # images that are encoded or decoded at a time


class Codes(NamedTuple):
    """The distributions of images' codes: independent normal ones."""

    mean: NDArray[np.float32]  # [N, latent]
    log_variance: NDArray[np.float32]  # [N, latent]


class Bounds(NamedTuple):
    """Bounds on the log-likelihood of each image, in nats.

    Attributes:
        reconstruction: The cross-entropy of each image under the decoder, for one code drawn by the encoder, `[N]`.
        kl: The divergence of the encoder's distribution from the prior, `[N]`.
        importance_weighted: The importance-weighted bound, `[N]`; None where it was not asked for.
    """

    reconstruction: NDArray[np.float64]
    kl: NDArray[np.float64]
    importance_weighted: NDArray[np.float64] | None = None

    @property
    def elbo(self) -> NDArray[np.float64]:
        """The evidence lower bound, `[N]`."""
        return -(self.reconstruction + self.kl)


def bounds(
    codes: Codes,
    decode: Decode,
    images: ArrayLike,
    key: jax.Array,
    *,
    labels: ArrayLike | None = None,
    importance_samples: int = 0,
) -> Bounds:
    """The evidence lower bound, and the importance-weighted bound of K samples.

        ELBO = E_q [log p(x|z)] − KL(q(z|x) ‖ p(z)),   L_K = E_q [log 1/K Σₖ p(x|zₖ) p(zₖ) / q(zₖ|x)]

    with a standard normal prior, a normal q and pixels that are independent Bernoulli variables, as in the recipe's
    loss. Kingma and Welling, "Auto-encoding variational Bayes", 2013 (https://arxiv.org/abs/1312.6114); Burda, Grosse
    and Salakhutdinov, "Importance weighted autoencoders", 2015 (https://arxiv.org/abs/1509.00519). L_K rises with K
    towards log p(x). Some hundred images are decoded at a time, for one sample after the other.

    Args:
        codes: What the encoder makes of the images, as `encoded` gives it.
        decode: `codes [B, latent] -> images [B, H, W, C]` in (0, 1).
        images: `[N, H, W, C]` in [0, 1].
        key: What the codes are drawn with.
        labels: `[N]`, for a conditional model, whose functions take a batch of them as their second argument.
        importance_samples: K; 0 leaves the importance-weighted bound out.

    Returns:
        The bounds of each image.
    """
    parts = []
    for start, (batch, mean, log_variance), given in _batches((as_floats(images), *codes), labels):
        batch_key = jax.random.fold_in(key, start)
        z, _ = _draw(mean, log_variance, jax.random.fold_in(batch_key, 0))
        kl, reconstruction = _kl(mean, log_variance), _cross_entropy(decode(z, *given), batch)
        total: jax.Array = jnp.full(len(batch), -jnp.inf)
        for sample in range(importance_samples):
            z, log_ratio = _draw(mean, log_variance, jax.random.fold_in(batch_key, 1 + sample))
            total = _add_weight(total, log_ratio, _cross_entropy(decode(z, *given), batch))
        parts.append(jax.device_get((reconstruction, kl, total)))
    each = [np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)]
    weighted = each[2] - np.log(importance_samples) if importance_samples else None
    return Bounds(each[0], each[1], weighted)


def encoded(encode: Encode, images: ArrayLike, labels: ArrayLike | None = None) -> Codes:
    """The codes of images, some hundred at a time.

    Args:
        encode: `images [B, H, W, C] -> (mean, log σ²)`, `[B, latent]` each.
        images: `[N, H, W, C]` in [0, 1].
        labels: `[N]`, for a conditional model, whose function takes a batch of them as its second argument.
    """
    each = [encode(batch, *given) for _, (batch,), given in _batches((as_floats(images),), labels)]
    mean, log_variance = (np.concatenate(jax.device_get(part)) for part in zip(*each, strict=True))
    return Codes(mean, log_variance)


def decoded(decode: Decode, codes: ArrayLike, labels: ArrayLike | None = None) -> NDArray[np.float32]:
    """The images `[N, H, W, C]` of codes `[N, latent]`, some hundred at a time; the arguments are those of `bounds`."""
    images = [decode(batch, *given) for _, (batch,), given in _batches((np.asarray(codes),), labels)]
    return np.concatenate(jax.device_get(images))


def active_units(means: ArrayLike, threshold: float = 0.01) -> int:
    """The number of latent dimensions whose mean depends on the image: Var_x(E_q[z]) > threshold.

    Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", 2015 (https://arxiv.org/abs/1509.00519).

    Args:
        means: Means of the codes of many images, `[N, latent]`.
        threshold: The variance above which a dimension counts.
    """
    return int((np.var(np.asarray(means, np.float64), axis=0, ddof=1) > threshold).sum())


def linear_probe(codes: ArrayLike, labels: ArrayLike, test_codes: ArrayLike, test_labels: ArrayLike) -> float:
    """The fraction of test images that a linear classifier of their codes classifies correctly.

    The classifier is scikit-learn's `LogisticRegression` with its defaults, on standardised codes.

    Args:
        codes: Codes to learn from, `[N, D]`.
        labels: Their classes, `[N]`, two or more different ones.
        test_codes: `[M, D]`.
        test_labels: `[M]`.

    Returns:
        The accuracy, from 0 to 1.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(np.asarray(codes, np.float64), np.asarray(labels))
    return float(probe.score(np.asarray(test_codes, np.float64), np.asarray(test_labels)))


def _batches(
    arrays: Sequence[NDArray[Any]], labels: ArrayLike | None
) -> Iterator[tuple[int, list[NDArray[Any]], tuple[NDArray[Any], ...]]]:
    """For each batch: the number of its first row, its rows of each array, and its labels if there are any."""
    for start in range(0, len(arrays[0]), _BATCH):
        rows = slice(start, start + _BATCH)
        yield start, [array[rows] for array in arrays], () if labels is None else (np.asarray(labels)[rows],)


@jax.jit
def _draw(mean: jax.Array, log_variance: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Codes from q, and log p(z) − log q(z|x) of each."""
    epsilon = jax.random.normal(key, mean.shape, mean.dtype)
    z = mean + epsilon * jnp.exp(0.5 * log_variance)
    return z, 0.5 * jnp.sum(jnp.square(epsilon) - jnp.square(z) + log_variance, axis=1)


@jax.jit
def _kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    return jax.vmap(gaussian_kl)(mean, log_variance)


@jax.jit
def _cross_entropy(probabilities: jax.Array, images: jax.Array) -> jax.Array:
    return jax.vmap(bernoulli_cross_entropy)(probabilities, images)


@jax.jit
def _add_weight(total: jax.Array, log_ratio: jax.Array, cross_entropy: jax.Array) -> jax.Array:
    return jnp.logaddexp(total, log_ratio - cross_entropy)
