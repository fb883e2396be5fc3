"""Features of images, in which distances mean more than between pixels: those of a network trained on the data itself.

The usual features are those of a classifier of photographs, which mean little for digits
(https://github.com/mseitzer/pytorch-fid/issues/12). Here a small network learns to classify the data set at hand, or,
where it has no labels, to reconstruct it. It is trained once, always in the same way, and kept in the user's cache.
"""

import contextlib
import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike, NDArray

from jaxgen.compilation import cache_folder, disk_cache
from jaxgen.durable import write
from jaxgen.from_loss import Noise, recipe_from_loss
from jaxgen.layers import Conv, Linear, MaxPool, flatten, in_batches, init_variables
from jaxgen.metrics.scaling import as_floats, in_memory, labels_in_memory, some
from jaxgen.training import Loop, Metrics, PyTree, scaled

FEATURES = 64  # numbers that describe an image

_FORMAT = 1  # to be increased when the network or its training changes
_BATCH = 128
_RATE = 3e-3
_STEPS = 500  # at least; an epoch is always finished
_AT_ONCE = 100  # images that the trained network is given
_MOST_IMAGES = 60_000  # that are learned from
_SCALED_BY = 10_000  # images whose features say how features are scaled


class Features(NamedTuple):
    """Features of images.

    Attributes:
        description: What they are, for people.
        of: `images [N, H, W, C] in [0, 1] -> features [N, D]`.
        classify: `images [N, H, W, C] in [0, 1] -> class [N]`; None where no classifier gives the features.
        name: What is appended to the names of figures that are measured with these; empty for the usual ones.
    """

    description: str
    of: Callable[[ArrayLike], NDArray[np.float32]]
    classify: Callable[[ArrayLike], NDArray[np.int32]] | None = None
    name: str = ""


def pixels() -> Features:
    """The pixels as they are, which are good features for images as small as 8×8."""

    def of(images: ArrayLike) -> NDArray[np.float32]:
        array = as_floats(images)
        return array.reshape(len(array), -1)

    return Features("pixels", of, name="of_pixels")


def learned_features(images: ArrayLike, labels: ArrayLike | None = None, *, white: int = 255) -> Features:
    """The features of a small convolutional network that is trained on these images.

    With labels of two classes or more, it learns to classify them: 64 numbers, from which one linear layer predicts the
    class. Otherwise it learns to reconstruct them: 64 numbers, from which one linear layer predicts the pixels. At most
    60,000 images are used, for at least 500 steps of Adam and whole epochs. The same images and labels give the
    same features. They are kept in `jaxgen/features` in the user's cache, under a hash of the data.

    The features are shifted and scaled together, so that the mean of each is 0 and their mean variance is 1.

    Args:
        images: Integers from 0 to `white`, `[N, H, W, C]`.
        labels: Integers `[N]`, from 0.
        white: The integer that is 1.

    Returns:
        The features.
    """
    labels = None if labels is None else labels_in_memory(labels, images)
    images = in_memory(images)
    labels = np.zeros(len(images), np.int32) if labels is None else np.asarray(labels, np.int32)
    classes = int(labels.max()) + 1 if len(np.unique(labels)) > 1 else 0
    module = _Network(classes or math.prod(images.shape[1:]), images.shape[1:])
    variables = _cached(module, _hash(images, labels, white), lambda: _train(module, images, labels, white, classes))
    mean, deviation = _mean_and_deviation(_features(module, variables, as_floats(some(images, _SCALED_BY), white)))

    def of(images: ArrayLike) -> NDArray[np.float32]:
        return (np.asarray(_features(module, variables, as_floats(images))) - mean) / deviation

    def classify(images: ArrayLike) -> NDArray[np.int32]:
        return np.asarray(_class_of(module, variables, as_floats(images)))

    kind = f"a classifier of {classes} classes" if classes else "an autoencoder"
    return Features(f"{FEATURES} features of {kind}, trained on these data", of, classify if classes else None)


class _Network(nn.Module):
    """Images `[B, H, W, C]` -> features `[B, 64]` and, by one more linear layer, outputs `[B, outputs]`."""

    outputs: int
    input_shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        blocks = max(2, math.ceil(math.log2(max(self.input_shape[:2]) / 8)))
        for block in range(blocks):
            x = nn.relu(Conv(32 if block else 16, 3, padding=1, name=f"conv{block}")(x))
            x = MaxPool((min(2, x.shape[1]), min(2, x.shape[2])))(x)
        features = Linear(FEATURES, name="features")(flatten(x))
        return features, Linear(self.outputs, name="outputs")(features)


def _mean_and_deviation(features: ArrayLike) -> tuple[NDArray[np.float32], np.float32]:
    """The mean of each feature, and the root of their mean variance."""
    features = np.asarray(features)
    deviation = np.sqrt(features.var(axis=0, dtype=np.float64).mean()) or 1.0
    return features.mean(axis=0), np.float32(deviation)


@partial(jax.jit, static_argnums=0)
def _features(module: nn.Module, variables: PyTree, images: jax.Array) -> jax.Array:
    features: jax.Array = in_batches(lambda batch: module.apply(variables, batch)[0], images, _AT_ONCE)
    return features


@partial(jax.jit, static_argnums=0)
def _class_of(module: nn.Module, variables: PyTree, images: jax.Array) -> jax.Array:
    outputs = in_batches(lambda batch: module.apply(variables, batch)[1], images, _AT_ONCE)
    return jnp.argmax(outputs, axis=1).astype(jnp.int32)


def _train(module: _Network, images: NDArray[Any], labels: NDArray[np.int32], white: int, classes: int) -> PyTree:
    apply: Callable[..., Any] = module.apply

    def loss(
        variables: PyTree, batch: tuple[jax.Array, jax.Array], noise: Noise
    ) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        images, labels = batch
        outputs = apply(variables, images)[1]
        if classes:
            error = optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()
        else:
            error = jnp.square(outputs - images.reshape(outputs.shape)).mean()
        return error, ({"loss": (error, jnp.ones_like(error))}, {})

    source = scaled(some(images, _MOST_IMAGES), white=white, labels=some(labels, _MOST_IMAGES))
    batch_size = min(_BATCH, source.size)
    with disk_cache():
        recipe = recipe_from_loss(module, optax.adam(_RATE), loss, smallest_batch=None)
        loop = Loop(recipe, source, batch_size)
        carry = loop.initial(jax.random.key(0))
        for piece in loop.slices(carry, epochs=math.ceil(_STEPS / loop.steps), key=jax.random.key(1)):
            carry = piece.carry
    return jax.device_get(carry.state.variables)


def _hash(images: NDArray[Any], labels: NDArray[np.int32], white: int) -> str:
    training = _FORMAT, _BATCH, _RATE, _STEPS, _MOST_IMAGES
    digest = hashlib.sha256(repr((training, images.shape, str(images.dtype), white)).encode())
    for array in (images, labels):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _cached(module: _Network, name: str, train: Callable[[], PyTree]) -> PyTree:
    """The variables that are kept under a name, or else trained and kept; a cache that fails costs only time."""
    folder = cache_folder("features")
    path = None if folder is None else folder / f"{name}.npz"
    like = jax.eval_shape(lambda: init_variables(module, jax.random.key(0)))
    if path is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return _read(path, like)
    variables = train()
    if path is not None:
        with contextlib.suppress(OSError):
            _write(path, variables)
    return variables


def _read(path: Path, like: PyTree) -> PyTree:
    """Variables from a file, whose sums its format checks.

    Raises:
        ValueError: They have other shapes than these.
    """
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
        leaves, tree = jax.tree_util.tree_flatten_with_path(like)
        arrays = [file[jax.tree_util.keystr(name)] for name, _ in leaves]
    if any(
        array.shape != leaf.shape or array.dtype != leaf.dtype for array, (_, leaf) in zip(arrays, leaves, strict=True)
    ):
        raise ValueError(f"{path}: other shapes")
    return jax.tree_util.tree_unflatten(tree, arrays)


def _write(path: Path, variables: PyTree) -> None:
    content = io.BytesIO()
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    np.savez(content, allow_pickle=False, **{jax.tree_util.keystr(name): np.asarray(leaf) for name, leaf in leaves})
    write(path, content.getvalue())
