"""Conditioning on labels: what modules with a field `classes` and their recipes share.

A module with `classes=0` takes no labels, and its recipe takes batches of images. With `classes` above 0 the module
takes int32 labels `[B]` from 0 to `classes - 1`, and its recipe takes batches `(images, labels)`, as
`jaxgen.scaled(images, labels=labels)` makes them.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import InputError

__all__ = ["Given", "append_labels", "classes_of", "given_labels", "inputs_of"]

PyTree = Any
Given = dict[str, jax.Array]  # {"labels": [B]} for a conditional module, else nothing


def classes_of(module: nn.Module) -> int:
    """The number of classes that a module is conditional on; 0 where it is not conditional."""
    return int(getattr(module, "classes", 0))


def append_labels(module: nn.Module, x: jax.Array, labels: jax.Array | None) -> jax.Array:
    """Append the one-hot code of labels to the last axis: to a vector, or to every pixel of an image.

    Mirza and Osindero, "Conditional generative adversarial nets", 2014 (https://arxiv.org/abs/1411.1784).

    Args:
        module: The module that is called; it has a field `classes`. While its variables are initialised, `labels` may
            be None.
        x: `[B, ..., C]`.
        labels: Integers `[B]` from 0 to `classes - 1`; None where `classes` is 0.

    Returns:
        `[B, ..., C + classes]`.

    Raises:
        InputError: There are no labels though the module is conditional, there are some though it is not, or their
            shape or type is wrong.
    """
    classes, name = classes_of(module), type(module).__name__
    if not classes:
        if labels is not None:
            raise InputError(f"{name}: takes no labels; make it conditional, as {name}(classes=10)")
        return x
    if labels is None and module.is_initializing():
        labels = jnp.zeros(len(x), jnp.int32)
    if labels is None:
        raise InputError(f"{name}: is conditional on {classes} classes and takes labels [batch]")
    if labels.shape != x.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"{name}: takes an integer label for each of the {x.shape[0]} inputs, not {labels.dtype} {labels.shape}"
        )
    code = jax.nn.one_hot(labels, classes, dtype=x.dtype)
    code = code.reshape(x.shape[0], *(1,) * (x.ndim - 2), classes)
    return jnp.concatenate([x, jnp.broadcast_to(code, (*x.shape[:-1], classes))], axis=-1)


def inputs_of(module: nn.Module, batch: PyTree) -> tuple[jax.Array, Given]:
    """The images of a batch, and what a module takes besides: labels, if it is conditional.

    Raises:
        InputError: The batch has no labels though the module is conditional, or has some though it is not.
    """
    classes, name = classes_of(module), type(module).__name__
    has_labels = isinstance(batch, tuple | list)
    if not classes and has_labels:
        raise InputError(f"{name} takes no labels: batches must be images; or make it conditional by classes=10")
    if not classes:
        return batch, {}
    if not has_labels or len(batch) != 2:
        raise InputError(
            f"{name} is conditional on {classes} classes: batches must be (images, labels), as those of "
            "jaxgen.scaled(images, labels=labels)"
        )
    return batch[0], {"labels": batch[1]}


def given_labels(module: nn.Module, labels: jax.Array | np.ndarray | int | None, count: int) -> Given:
    """What a module takes besides `count` images or codes: labels, if there are any.

    They are checked here, before they are traced, because the one-hot code of a wrong label is zero.

    Args:
        module: The module.
        labels: Integers `[count]`, or one for all; None for none.
        count: The number of labels that are needed.

    Raises:
        InputError: A label is not from 0 to `classes - 1`, or there are not `count`.
    """
    if labels is None:
        return {}
    classes, name = classes_of(module), type(module).__name__
    values = jnp.asarray(labels)
    if values.shape not in {(), (count,)} or not jnp.issubdtype(values.dtype, jnp.integer):
        raise InputError(
            f"{name}: labels must be {count} integers, or one for all, not {values.dtype} {list(values.shape)}"
        )
    if classes and values.size and not isinstance(values, jax.core.Tracer):
        low, high = int(values.min()), int(values.max())
        if not 0 <= low <= high < classes:
            raise InputError(f"{name}: labels from {low} to {high}; its {classes} classes are 0 to {classes - 1}")
    return {"labels": jnp.broadcast_to(values, count).astype(jnp.int32)}
