"""Whether a training fits into memory, decided before anything is made."""

import math
from typing import Any, get_args

import jax
import jax.numpy as jnp

from jaxgen import memory
from jaxgen.errors import InputError
from jaxgen.runs.config import DIMENSION, Config, metadata, option
from jaxgen.training import Loop, PyTree


def check_memory(config: Config, loop: Loop) -> None:
    """Compare what a training holds with the memory of its device.

    Counted are parameters, their gradient, running statistics, the optimiser's state, and the batch and the noise of
    one step, by their shapes. What the step computes in between comes on top, so a training that passes may still run
    out of memory.

    Raises:
        InputError: it cannot fit. The message names the likely options and both figures.
    """
    device = loop.device or jax.local_devices()[0]
    there = memory.available_on(device)
    rows, key = jax.ShapeDtypeStruct((loop.batch_size,), jnp.int32), jax.random.key(0)
    batch = jax.eval_shape(loop.source.batch, loop.arrays, rows)
    noise = jax.eval_shape(lambda: loop.recipe.noise(key, loop.batch_size))
    carry = loop.shapes()
    step, state = _size((batch, noise)), _size(carry) + _size(jax.eval_shape(loop.recipe.variables, carry.state))
    if state + step <= there:
        return
    raise InputError(
        f"{_likely(config)}: training takes {memory.text(state + step)} ({memory.text(state)} for parameters, their "
        f"gradient and the optimiser, {memory.text(step)} for a batch), but {device.platform} has "
        f"{memory.text(there)}; choose smaller values"
    )


def _size(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if _is_array(leaf))


def _is_array(leaf: Any) -> bool:
    return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _likely(config: Config) -> str:
    """The options that memory grows with, as they are set: those that are not at their defaults, or else all."""
    fields = {name: field for name, field in type(config).model_fields.items() if _is_dimension(field)}
    changed = [name for name, field in fields.items() if getattr(config, name) != field.default]
    return ", ".join(option(name, getattr(config, name)) for name in changed or fields)


def _is_dimension(field: Any) -> bool:
    def within(annotation: Any) -> bool:
        parts = get_args(annotation)
        return DIMENSION in parts or any(map(within, parts))

    return DIMENSION in metadata(field) or within(field.annotation)
