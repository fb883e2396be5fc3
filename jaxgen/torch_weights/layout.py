"""PyTorch's names and layouts for the variables of a Flax module.

`jaxgen.layers` name their parameters as PyTorch does. A tensor's name is its path in the variables, joined by dots, and
its layout depends on its rank alone: matrices `[out, in]` <-> `[in, out]`, kernels `[out, in, kh, kw]` <->
`[kh, kw, in, out]`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.errors import InputError

Variables = Any
Shapes = Mapping[str, tuple[int, ...]]

TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}
FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}
COUNTER = "num_batches_tracked"  # int64 in PyTorch, int32 here


def template(module: nn.Module) -> Variables:
    """Trace a module's initialisation. Nothing is computed or allocated.

    Args:
        module: a module with an `input_shape` (without the batch axis), as all architectures in `jaxgen.models` have.

    Returns:
        The module's variables with a `jax.ShapeDtypeStruct` for each array.
    """
    image = jax.ShapeDtypeStruct((1, *module.input_shape), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


def expected(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the module's tensors as PyTorch has them."""
    return torch_shapes(template(module))


def torch_shapes(variables: Variables) -> dict[str, tuple[int, ...]]:
    """The names and shapes of variables, or of a template, as PyTorch has them."""
    return {name: _torch_shape(leaf.shape) for name, (_, leaf) in _by_name(variables).items()}


def flatten(variables: Variables) -> dict[str, np.ndarray]:
    """Convert variables to a state_dict, without checking them against a module.

    Args:
        variables: collections of parameters and statistics, such as `{"params": …, "batch_stats": …}`.

    Returns:
        The arrays under PyTorch's names and in PyTorch's layouts.
    """
    return {name: to_torch(name, leaf) for name, (_, leaf) in _by_name(variables).items()}


def unflatten(like: Variables, tensors: Mapping[str, np.ndarray], where: str) -> Variables:
    """Convert a state_dict that has the names and shapes of a template to variables.

    Raises:
        InputError: a tensor's values cannot be the module's. The message begins with `where`.
    """
    leaves = {}
    for name, (path, _) in _by_name(like).items():
        try:
            leaves[path] = from_torch(name, tensors[name])
        except ValueError as error:
            raise InputError(f"{where}: {name} {error}") from error
    variables: Variables = unflatten_dict(leaves)
    return variables


def to_torch(name: str, leaf: jax.Array) -> np.ndarray:
    """Convert one array to PyTorch's layout."""
    array = np.asarray(leaf)
    if name.endswith(COUNTER):
        return array.astype(np.int64)
    return array.transpose(TO_TORCH.get(array.ndim, range(array.ndim)))


def from_torch(name: str, tensor: np.ndarray) -> jax.Array:
    """Convert one tensor from PyTorch's layout. The result is a copy in float32, or in float64 where JAX has that.

    Raises:
        ValueError: the tensor has values that are not finite, or is a counter that is no count.
    """
    if name.endswith(COUNTER):
        if not 0 <= tensor < 2**31:
            raise ValueError(f"is {tensor}, which is not a count of batches")
        return jnp.array(tensor, jnp.int32)
    if jnp.issubdtype(tensor.dtype, jnp.complexfloating):
        raise ValueError("holds complex numbers, the model's are real")
    wide = jax.dtypes.canonicalize_dtype(np.float64 if tensor.dtype.itemsize > 4 else np.float32)
    with np.errstate(over="ignore"):
        values = tensor.astype(wide)
    if not np.isfinite(values).all():
        raise ValueError(f"has values that are NaN or infinite in {wide}")
    return jnp.array(values.transpose(FROM_TORCH.get(values.ndim, range(values.ndim))))


def listed(names: Mapping[str, Any]) -> str:
    """The first four names, for a message."""
    first = [printable(name) for name in sorted(names)[:4]]
    return ", ".join(first) + (", …" if len(names) > len(first) else "") if first else "none"


def printable(text: object) -> str:
    """Text that a file gives, for a message: one line, of bounded length, without control characters."""
    text = str(text)
    short = text if len(text) <= 100 else f"{text[:100]}…"
    return short if short.isprintable() else repr(short)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in TO_TORCH.get(len(shape), range(len(shape))))


def _by_name(variables: Variables) -> dict[str, tuple[tuple[str, ...], Any]]:
    """PyTorch's name -> (path in the variables, leaf). The collection, first in the path, is not part of the name."""
    return {".".join(path[1:]): (path, leaf) for path, leaf in flatten_dict(variables).items()}
