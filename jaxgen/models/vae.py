"""A convolutional variational autoencoder on MNIST, 32×32 or other sizes, with a latent space to look at.

Kingma and Welling, "Auto-encoding variational Bayes", 2013 (https://arxiv.org/abs/1312.6114), with the networks of a
PyTorch tutorial.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import protocols
from jaxgen.conditioning import Given, append_labels, given_labels, inputs_of
from jaxgen.errors import InputError
from jaxgen.from_loss import State, recipe_from_loss
from jaxgen.layers import BatchNorm, Conv, ConvTranspose, Linear, MaxPool, check_input, halvings, in_batches
from jaxgen.losses import bernoulli_cross_entropy, gaussian_kl
from jaxgen.parallel import shards
from jaxgen.training import Metrics, PyTree, Recipe

__all__ = [
    "ConvVAE",
    "Noise",
    "Output",
    "State",
    "decode",
    "elbo_terms",
    "encode",
    "evaluate",
    "morph",
    "posterior",
    "recipe",
]


BATCH = 50  # images that are encoded or decoded at a time in evaluation: few enough for a processor's caches


class Output(NamedTuple):
    """What the network returns."""

    mean: jax.Array  # [B, latent]
    log_variance: jax.Array  # [B, latent]
    z: jax.Array  # [B, latent]
    reconstruction: jax.Array  # [B, 32, 32, 1], or of the module's shape, in (0, 1)


class ConvBNAct(nn.Module):
    """A layer, batch norm and an activation, with the parameter names of a `torch.nn.Sequential`.

    Attributes:
        layer: Makes the layer, given its name.
        activation: Applied last.
    """

    layer: Callable[..., nn.Module]
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return self.activation(BatchNorm(name="1")(self.layer(name="0")(x), train))


class Head(nn.Module):
    """A linear layer, with the parameter names of a `torch.nn.Sequential`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Linear(self.features, name="0")(x)


class ConvVAE(nn.Module):
    """Images `[B, size, size, channels]` in [0, 1] and epsilon `[B, latent]`, normal(0, 1) -> `Output`.

    Without epsilon, z is the mean. By default the tutorial's, for 32×32. For other sizes convolutions halve the image
    down to a side of 4 to 7 and double the channels each time, and transposed convolutions do the reverse: 64×64 has
    one stage more of each.

    With `classes` above 0 it is conditional on labels, whose one-hot code is appended to every pixel for the encoder
    and to z for the decoder: Sohn, Lee and Yan, "Learning structured output representation using deep conditional
    generative models", 2015.

    Attributes:
        latent: Dimensions of the latent space.
        size: Height and width of the images: 4, 5, 6 or 7 times a power of two.
        channels: 1 for gray images, 3 for colour.
        width: Channels of the largest feature map; those of all others are multiples of it.
        classes: The number of classes whose labels `[B]` it takes; 0: it takes no labels.
    """

    latent: int = 2
    size: int = 32
    channels: int = 1
    width: int = 64
    classes: int = 0

    def __post_init__(self) -> None:
        halvings(self.size)
        super().__post_init__()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.size, self.size, self.channels)

    @property
    def features(self) -> int:
        """Numbers between the convolutions and the linear layers: 512 for 32×32."""
        features: int = self.width * 2 ** halvings(self.size)[1]
        return features

    def setup(self) -> None:
        side, stages = halvings(self.size)  # of 32×32: 4 and 3; so conv4 and convTrans1 are the innermost
        for stage in range(stages):
            self._add(f"conv{stage + 1}", Conv, self.width * 2**stage, 3, padding=1)
        self._add(f"conv{stages + 1}", Conv, self.features, side)
        self.pool = MaxPool(2)
        self.mean = Head(self.latent)
        self.var = Head(self.latent)  # log σ²; the name is the tutorial's
        self.decoder = ConvBNAct(partial(Linear, self.features))
        self._add("convTrans1", ConvTranspose, self.features // 2, side, stride=2)
        for stage in range(2, stages + 1):
            self._add(f"convTrans{stage}", ConvTranspose, self.features // 2**stage, 4, stride=2, padding=1)
        last = partial(ConvTranspose, self.channels, 4, stride=2, padding=1)
        setattr(self, f"convTrans{stages + 1}", ConvBNAct(last, nn.sigmoid))

    def _add(self, name: str, layer: type[nn.Module], features: int, kernel: int, **options: int) -> None:
        setattr(self, name, ConvBNAct(partial(layer, features, kernel, **options)))

    def __call__(
        self,
        images: jax.Array,
        epsilon: jax.Array | None = None,
        labels: jax.Array | None = None,
        train: bool = False,
    ) -> Output:
        mean, log_variance = self.encode(images, labels, train)
        z = mean if epsilon is None else mean + epsilon * jnp.exp(0.5 * log_variance)
        return Output(mean, log_variance, z, self.decode(z, labels, train))

    def encode(
        self, images: jax.Array, labels: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Compute mean and log σ² of the latent codes of images `[B, size, size, channels]`, `[B, latent]` each."""
        check_input("ConvVAE", images, self.input_shape)
        x = append_labels(self, images, labels)
        stages = halvings(self.size)[1]
        for stage in range(stages):
            x = self.pool(getattr(self, f"conv{stage + 1}")(x, train))  # [B, 16, 16, 64], [B, 8, 8, 128], …
        x = getattr(self, f"conv{stages + 1}")(x, train).reshape(images.shape[0], self.features)  # [B, 512]
        return self.mean(x), self.var(x)

    def decode(self, z: jax.Array, labels: jax.Array | None = None, train: bool = False) -> jax.Array:
        """Compute images `[B, size, size, channels]` in (0, 1) from latent codes `[B, latent]`."""
        check_input("ConvVAE.decode", z, (self.latent,))
        x = self.decoder(append_labels(self, z, labels), train)[:, None, None, :]  # [B, 1, 1, 512]
        for stage in range(halvings(self.size)[1] + 1):
            x = getattr(self, f"convTrans{stage + 1}")(x, train)  # [B, 4, 4, 256], [B, 8, 8, 128], …
        return x


class Noise(NamedTuple):
    """The random numbers of one step."""

    epsilon: jax.Array  # [B, latent], or [B, samples, latent] where there are several samples; normal(0, 1)


def recipe(
    latent: int = 2,
    module: nn.Module | None = None,
    optimizer: optax.GradientTransformation | None = None,
    beta: float = 1.0,
    samples: int = 1,
) -> Recipe[State]:
    """Minimise the negative evidence lower bound, summed over the batch and all pixels.

    Batches are images `[B, 32, 32, 1]` in [0, 1], or of the module's shape, and with a conditional module
    `(images, labels [B])`. Metrics, in nats an image: `loss`, which is minimised, and the two terms of the bound,
    `reconstruction` and `kl`.

    With `beta`, `loss` is reconstruction + beta·kl (Higgins et al., "beta-VAE", 2017,
    https://openreview.net/forum?id=Sy2fzU9gl).

    With several `samples` of z for each image, `loss` is the negative importance-weighted bound (Burda, Grosse and
    Salakhutdinov, "Importance weighted autoencoders", 2015, https://arxiv.org/abs/1509.00519),

        −log 1/K Σₖ p(x, zₖ) / q(zₖ | x),

    which is lower the more samples there are, in expectation; `reconstruction` is the mean over the samples.

    Args:
        latent: Dimensions of the latent space.
        module: The network; `ConvVAE(latent)` by default. Any `protocols.VAE`; with several samples it is a
            `protocols.EncoderDecoder` too.
        optimizer: By default Adam with learning rate 1e-3 and PyTorch's `weight_decay` of 1e-5, which is added to the
            gradient of every parameter before the moments (that is not AdamW).
        beta: The weight of the KL divergence, 0 or more.
        samples: Latent codes that are drawn for each image. The decoder then sees `samples` times the batch.

    Returns:
        The recipe.

    Raises:
        InputError: The module lacks something, `beta` or `samples` is too small, or both are set.
    """
    module = module or ConvVAE(latent)
    optimizer = optimizer or optax.chain(optax.add_decayed_weights(1e-5), optax.adam(1e-3))
    _check(module, beta, samples)
    apply: Callable[..., Any] = partial(module.apply, train=True, mutable=["batch_stats"])

    def noise(key: jax.Array, batch_size: int) -> Noise:
        shape = (batch_size, module.latent) if samples == 1 else (batch_size, samples, module.latent)
        return Noise(jax.random.normal(key, shape))

    def negative_elbo(variables: PyTree, batch: PyTree, noise: Noise) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        images, given = inputs_of(module, batch)
        output, updated = apply(variables, images, noise.epsilon, **given)
        reconstruction, kl = (shards() * term for term in elbo_terms(output, images))
        loss = reconstruction + kl if beta == 1 else reconstruction + beta * kl
        return loss, (per_image(images, loss, reconstruction, kl), updated)

    def negative_weighted_bound(
        variables: PyTree, batch: PyTree, noise: Noise
    ) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        images, given = inputs_of(module, batch)
        (mean, log_variance), updated = apply(variables, images, **given, method="encode")
        z = mean[:, None] + noise.epsilon * jnp.exp(0.5 * log_variance[:, None])  # [B, samples, latent]
        given = {name: jnp.repeat(labels, samples) for name, labels in given.items()}
        decoded, updated = apply({**variables, **updated}, z.reshape(-1, z.shape[-1]), **given, method="decode")
        decoded = decoded.reshape(*z.shape[:2], *images.shape[1:])
        of_samples = jax.vmap(bernoulli_cross_entropy, (0, None))
        reconstructions = jax.vmap(of_samples)(decoded, images)  # [B, samples]
        # log p(z) − log q(z | x), where (z − mean)² / σ² is epsilon²
        log_ratio = 0.5 * jnp.sum(jnp.square(noise.epsilon) + log_variance[:, None] - jnp.square(z), axis=-1)
        bounds = jax.nn.logsumexp(log_ratio - reconstructions, axis=1) - jnp.log(samples)
        loss, reconstruction = -jnp.sum(bounds), jnp.sum(reconstructions) / samples
        loss, reconstruction, kl = (shards() * term for term in (loss, reconstruction, gaussian_kl(mean, log_variance)))
        return loss, (per_image(images, loss, reconstruction, kl), updated)

    def per_image(images: jax.Array, loss: jax.Array, reconstruction: jax.Array, kl: jax.Array) -> Metrics:
        count = jnp.full_like(loss, images.shape[0] * shards())
        return {"loss": (loss, count), "reconstruction": (reconstruction, count), "kl": (kl, count)}

    return recipe_from_loss(
        module,
        optimizer,
        negative_elbo if samples == 1 else negative_weighted_bound,
        noise=noise,
        mutable=("batch_stats",),
        smallest_batch=2,  # batch norm needs two
    )


def _check(module: nn.Module, beta: float, samples: int) -> None:
    protocols.check("module", module, protocols.VAE, *([protocols.EncoderDecoder] if samples > 1 else []))
    if not beta >= 0:
        raise InputError(f"beta {beta}: must be 0 or more")
    if samples < 1:
        raise InputError(f"samples {samples}: must be 1 or more")
    if samples > 1 and beta != 1:
        raise InputError(f"beta {beta}: with several samples the bound has no KL term to weigh; leave one of them out")


def elbo_terms(output: Output, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two terms of the negative evidence lower bound, in nats, summed over the batch.

    Args:
        output: What the network returns for `images`.
        images: `[B, 32, 32, 1]` in [0, 1], or of the module's shape.

    Returns:
        The reconstruction's cross-entropy, and the KL divergence of the latent codes from their prior.
    """
    return bernoulli_cross_entropy(output.reconstruction, images), gaussian_kl(output.mean, output.log_variance)


def evaluate(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array | np.ndarray,
    epsilon: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray | None = None,
) -> dict[str, jax.Array]:
    """Compute the loss and its two terms in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        images: `[N, 32, 32, 1]` in [0, 1], or of the module's shape.
        epsilon: `[N, latent]`, normal(0, 1).
        labels: For a conditional module, the classes `[N]`, or one for all.

    Returns:
        `loss`, `reconstruction` and `kl`, in nats an image.
    """
    found: dict[str, jax.Array] = _evaluate(
        module, variables, images, epsilon, given_labels(module, labels, len(images))
    )
    return found


@partial(jax.jit, static_argnums=0)
def _evaluate(
    module: nn.Module, variables: PyTree, images: jax.Array, epsilon: jax.Array, given: Given
) -> dict[str, jax.Array]:
    apply: Callable[..., Any] = module.apply

    def of_each(inputs: tuple[jax.Array, jax.Array, Given]) -> tuple[jax.Array, jax.Array]:
        images, epsilon, given = inputs
        return jax.vmap(elbo_terms)(apply(variables, images, epsilon, **given), images)

    each = in_batches(of_each, (images, epsilon, given), BATCH)
    reconstruction, kl = (term.mean() for term in each)
    return {"loss": reconstruction + kl, "reconstruction": reconstruction, "kl": kl}


def encode(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Compute the means of images' latent codes, in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        images: `[N, 32, 32, 1]` in [0, 1], or of the module's shape.
        labels: For a conditional module, the classes `[N]`, or one for all.

    Returns:
        `[N, latent]`.
    """
    return posterior(module, variables, images, labels)[0]


def posterior(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Compute the distributions of images' latent codes, in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        images: `[N, 32, 32, 1]` in [0, 1], or of the module's shape.
        labels: For a conditional module, the classes `[N]`, or one for all.

    Returns:
        Mean and log σ², `[N, latent]` each.
    """
    mean, log_variance = _apply(module, "encode", variables, images, given_labels(module, labels, len(images)))
    return mean, log_variance


def decode(
    module: nn.Module,
    variables: PyTree,
    z: jax.Array | np.ndarray,
    labels: jax.Array | np.ndarray | None = None,
) -> jax.Array:
    """Decode latent codes, in evaluation mode.

    Args:
        module: The network.
        variables: Its variables.
        z: `[N, latent]`.
        labels: For a conditional module, the classes `[N]`, or one for all.

    Returns:
        Images `[N, 32, 32, 1]` in (0, 1), or of the module's shape.
    """
    images: jax.Array = _apply(module, "decode", variables, z, given_labels(module, labels, len(z)))
    return images


@partial(jax.jit, static_argnums=(0, 1))
def _apply(module: nn.Module, method: str, variables: PyTree, x: jax.Array, given: Given) -> Any:
    return in_batches(lambda inputs: module.apply(variables, inputs[0], **inputs[1], method=method), (x, given), BATCH)


def morph(
    module: nn.Module, variables: PyTree, points: jax.Array | np.ndarray, frames: int, label: int | None = None
) -> jax.Array:
    """Decode points along the straight lines from each latent point to the next.

    Args:
        module: The network.
        variables: Its variables.
        points: `[P, latent]`, at least two.
        frames: Images from one point to the next, including the first point's.
        label: For a conditional module, the class of all images.

    Returns:
        Images `[(P − 1)·frames + 1, 32, 32, 1]` in (0, 1), or of the module's shape.
    """
    share = jnp.arange(frames)[:, None] / frames
    lines = [start + share * (end - start) for start, end in pairwise(points)]
    labels = None if label is None else jnp.asarray(label)
    images: jax.Array = decode(module, variables, jnp.concatenate([*lines, points[-1:]]), labels)
    return images
