"""PyTorch state_dicts to Flax variables and back, and the files that hold them.

`jaxgen.layers` name their parameters as PyTorch does, so a name is a path joined by dots and a tensor is transposed by
its rank alone. The files that `save` writes also say which module the weights belong to.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from jaxgen.durable import write
from jaxgen.errors import InputError
from jaxgen.torch_weights.description import build, build_for, describe, full_name, recognise
from jaxgen.torch_weights.files import Tensors, read, read_header, state_dicts, to_safetensors
from jaxgen.torch_weights.layout import (
    Variables,
    expected,
    flatten,
    from_torch,
    template,
    to_torch,
    torch_shapes,
    unflatten,
)
from jaxgen.torch_weights.matching import check, select

__all__ = [
    "LoadedWeights",
    "build",
    "describe",
    "expected",
    "flatten",
    "from_torch",
    "load",
    "load_all",
    "load_file",
    "read_header",
    "save",
    "state_dict",
    "template",
    "to_safetensors",
    "to_torch",
]


class LoadedWeights(NamedTuple):
    """A weights file."""

    module: nn.Module
    variables: Variables
    about: dict[str, Any]  # what the header says; empty where the file has no header of jaxgen's


def state_dict(module: nn.Module, variables: Variables) -> dict[str, np.ndarray]:
    """Convert a module's variables to a state_dict.

    Args:
        module: as for `load`.
        variables: the module's, such as `{"params": …, "batch_stats": …}`.

    Returns:
        The arrays under PyTorch's names and in PyTorch's layouts.

    Raises:
        InputError: the variables are not this module's.
    """
    tensors = flatten(variables)
    check(tensors, expected(module), "variables")
    return tensors


def save(module: nn.Module, variables: Variables, path: str | Path) -> None:
    """Write the variables as a `.safetensors` file that PyTorch's `load_state_dict(strict=True)` takes.

    The header describes the module, so that `load_file` needs no more than the file. A module that `describe` refuses
    is saved without a description.

    Args:
        module: as for `load`.
        variables: the module's.
        path: the file; it is replaced as a whole or not at all.

    Raises:
        InputError: the variables are not this module's.
    """
    try:
        about = {"module": describe(module)}
    except InputError:
        about = {}
    write(Path(path), to_safetensors(state_dict(module, variables), about))


def load(module: nn.Module, source: str | Path | Mapping[str, Any]) -> Variables:
    """Convert a state_dict to the module's variables.

    Understood are the prefixes `module.` (DataParallel) and `_orig_mod.` (torch.compile) in any nesting; any other
    prefix that leaves exactly the model's names, such as `model.` or `generator.`; and files that hold the state_dict
    in mappings or lists, beside other things. Types that are no float32 are converted where that is exact.

    Args:
        module: a module with an `input_shape` (without the batch axis), as all architectures in `jaxgen.models` have.
        source: a `.safetensors` file, a file of `torch.save` (which takes PyTorch to read), or a mapping of names to
            arrays or PyTorch tensors.

    Returns:
        The variables, such as `{"params": …, "batch_stats": …}`: copies, in float32 (float64 where JAX has that).

    Raises:
        InputError: the file cannot be read, its names or shapes are not the module's, or a value is not finite.
    """
    if isinstance(source, Mapping):
        return _variables(module, state_dicts(source), "state_dict")
    return _variables(module, read(Path(source))[0], str(source))


def load_all(modules: Mapping[str, nn.Module], sources: Iterable[str | Path]) -> dict[str, Variables]:
    """Load the networks of a GAN, each from its source.

    Args:
        modules: the modules by name.
        sources: as many sources as modules, in the same order.

    Returns:
        The variables by name.
    """
    return {name: load(module, source) for (name, module), source in zip(modules.items(), sources, strict=True)}


def load_file(path: str | Path, module: nn.Module | str | None = None) -> LoadedWeights:
    """Load a weights file whose module is not at hand.

    The file's header names the module. A file without jaxgen's header, such as a tutorial's `.pth`, is recognised by
    the names and shapes of its tensors.

    Args:
        path: a weights file, as for `load`.
        module: the module, if its class is not one of `jaxgen.models`, or to overrule the header; or the name of its
            class in `jaxgen.models`, such as `"dcgan.MnistGenerator"`, where a file's tensors fit several.

    Raises:
        InputError: the file cannot be read, or does not say which module it belongs to, or its tensors are not the
            module's.
    """
    tensors, about = read(Path(path))
    if module is None or isinstance(module, str):
        module = _module_of(tensors, about.get("module"), str(path), module)
    return LoadedWeights(module, _variables(module, tensors, str(path)), about)


def _module_of(tensors: Mapping[str, Tensors], described: Any, where: str, name: str | None) -> nn.Module:
    """The module of a file: what its header describes, unless that is not the class that is asked for."""
    its_class = described.get("class") if isinstance(described, Mapping) else None
    if described is None or (name is not None and its_class != full_name(name)):
        return recognise(tensors, where, name)
    return build_for(described, tensors, where)


def _variables(module: nn.Module, found: Mapping[str, Tensors], where: str) -> Variables:
    if not hasattr(module, "input_shape"):
        raise InputError(f"{type(module).__name__} has no input_shape: the shape of its input without the batch axis")
    like = template(module)
    return unflatten(like, select(found, torch_shapes(like), where), where)
