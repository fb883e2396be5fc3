"""PyTorch state_dicts to Flax variables and back.

`jaxgen.layers` name their parameters as PyTorch does, so a name is a path joined by dots and a tensor is transposed by
its rank alone: matrices `[out, in]` <-> `[in, out]`, kernels `[out, in, kh, kw]` <-> `[kh, kw, in, out]`.
"""

import json
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.durable import write
from jaxgen.errors import InputError

Variables = Any
TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}
FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}
COUNTER = "num_batches_tracked"  # int64 in PyTorch; files of before 2018 lack it


def state_dict(module: nn.Module, variables: Variables) -> dict[str, np.ndarray]:
    """The variables under PyTorch's names and in PyTorch's layouts.

    Raises:
        InputError: the variables are not this module's.
    """
    tensors = flatten(variables)
    check(tensors, expected(module), "variables")
    return tensors


def flatten(variables: Variables) -> dict[str, np.ndarray]:
    """`state_dict` for variables whose module is not at hand: nothing is checked."""
    return {name: to_torch(name, leaf) for name, (_, leaf) in by_name(variables).items()}


def save(module: nn.Module, variables: Variables, path: str | Path) -> None:
    """Write the variables as `.safetensors` that PyTorch's `load_state_dict(strict=True)` takes."""
    write(Path(path), to_safetensors(state_dict(module, variables)))


def to_safetensors(tensors: dict[str, np.ndarray], about: Mapping[str, Any] | None = None) -> bytes:
    """Named tensors in the safetensors format, with `about` as JSON in the header."""
    from safetensors.numpy import save

    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    return save(contiguous, {"config": json.dumps(about or {}, sort_keys=True)})


def load(module: nn.Module, source: str | Path | Mapping[str, Any]) -> Variables:
    """A state_dict as the module's variables.

    Args:
        module: one with an `input_shape` (without the batch), as all in `jaxgen.models` have.
        source: a `.safetensors` or `.pth` file, or a mapping of names to arrays. A prefix `module.` (DataParallel) is
            understood, and so is a checkpoint that holds the state_dict under one of its keys.

    Raises:
        InputError: the file cannot be read, or its names or shapes are not the module's.
    """
    where = "state_dict" if isinstance(source, Mapping) else str(source)
    wanted = expected(module)
    found = source if isinstance(source, Mapping) else read(Path(source), wanted)
    tensors = {plain(name): np.asarray(tensor) for name, tensor in found.items()}
    for name in wanted:
        if name.endswith(COUNTER):
            tensors.setdefault(name, np.zeros((), np.int64))
    check(tensors, wanted, where)
    paths = {name: path for name, (path, _) in by_name(template(module)).items()}
    return unflatten_dict({path: from_torch(name, tensors[name]) for name, path in paths.items()})


def load_all(modules: Mapping[str, nn.Module], sources: Iterable[str | Path]) -> dict[str, Variables]:
    """`load` for the networks of a GAN: {name: module} and a source for each -> {name: variables}."""
    return {name: load(module, source) for (name, module), source in zip(modules.items(), sources, strict=True)}


def template(module: nn.Module) -> Variables:
    """The shapes and dtypes of a module's variables."""
    return jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *module.input_shape))), jax.random.key(0))


def expected(module: nn.Module) -> dict[str, tuple[int, ...]]:
    shapes = {name: leaf.shape for name, (_, leaf) in by_name(template(module)).items()}
    return {
        name: tuple(shape[axis] for axis in TO_TORCH.get(len(shape), range(len(shape))))
        for name, shape in shapes.items()
    }


def by_name(variables: Variables) -> dict[str, tuple[tuple[str, ...], Any]]:
    """PyTorch's name -> (path in the variables, leaf); the collection, first in the path, is no part of the name."""
    return {".".join(path[1:]): (path, leaf) for path, leaf in flatten_dict(variables).items()}


def to_torch(name: str, leaf: jax.Array) -> np.ndarray:
    array = np.asarray(leaf)
    if name.endswith(COUNTER):
        return array.astype(np.int64)
    return array.transpose(TO_TORCH.get(array.ndim, range(array.ndim)))


def from_torch(name: str, tensor: np.ndarray) -> jax.Array:
    if name.endswith(COUNTER):
        return jnp.asarray(tensor, jnp.int32)
    tensor = tensor.astype(np.promote_types(tensor.dtype, np.float32))  # half precision is widened
    return jnp.asarray(tensor.transpose(FROM_TORCH.get(tensor.ndim, range(tensor.ndim))))


def plain(name: str) -> str:
    return name.removeprefix("module.")


def check(tensors: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]], where: str) -> None:
    if missing := [name for name in wanted if name not in tensors]:
        raise InputError(f"{where}: no tensor {missing[0]}; it holds {', '.join(sorted(tensors)[:4]) or 'none'}, …")
    if foreign := [name for name in tensors if name not in wanted]:
        raise InputError(f"{where}: tensor {foreign[0]} is not the model's, which has {', '.join(list(wanted)[:4])}, …")
    for name, shape in wanted.items():
        if tensors[name].shape != shape:
            raise InputError(f"{where}: {name} has shape {list(tensors[name].shape)}, the model's is {list(shape)}")
        if np.iscomplexobj(tensors[name]):
            raise InputError(f"{where}: {name} holds complex numbers, the model's are real")


def read(path: Path, wanted: Container[str]) -> Mapping[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; --weights takes a .safetensors or .pth file")
    return read_pth(path, wanted) if path.suffix in {".pth", ".pt"} else read_safetensors(path)


def read_safetensors(path: Path) -> Mapping[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:  # the last: no such NumPy type
        raise InputError(f"{path}: not a readable .safetensors file ({error})") from error


def read_pth(path: Path, wanted: Container[str]) -> Mapping[str, np.ndarray]:
    """The state_dict in a `.pth` file, or the one with the `wanted` names where a checkpoint holds several.

    PyTorch reads it with `weights_only=True`: nothing in it is executed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path}: reading .pth needs PyTorch; install torch, or save it there as .safetensors"
        ) from error
    try:
        with warnings.catch_warnings():  # of what is odd in a damaged file; that it is damaged we say ourselves
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind, where a file is damaged
        raise InputError(
            f"{path}: not a plain state_dict; in PyTorch write it again with torch.save(model.state_dict(), path)"
        ) from error
    candidates = list(state_dicts(found, torch.Tensor))
    if not candidates:
        raise InputError(f"{path}: holds no state_dict; write one with torch.save(model.state_dict(), path)")
    tensors = max(candidates, key=lambda candidate: sum(plain(name) in wanted for name in candidate))
    # NumPy has no bfloat16.
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().numpy() for name, t in tensors.items()}


def state_dicts(found: Any, tensor: type) -> Iterator[Mapping[str, Any]]:
    """The mappings of names to tensors in `found`: itself, or among its values (Adam's moments look like one too)."""
    if not isinstance(found, Mapping):
        return
    if found and all(isinstance(name, str) and isinstance(value, tensor) for name, value in found.items()):
        yield found
    for value in found.values():
        yield from state_dicts(value, tensor)


def describe(module):  # TEMPORARY, until the branch with weights is merged
    return {"class": type(module).__qualname__}


def load_file(path, module=None):
    raise NotImplementedError
