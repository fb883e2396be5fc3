"""What a weights file says of its module, and the module built from that.

A description is the module's class by name and its fields as JSON. Reading one imports and calls nothing that it
names: the class is looked up among those of `jaxgen.models` and `jaxgen.layers`, and each field must be of the type
that the class declares.
"""

import dataclasses
import difflib
import functools
import importlib
import itertools
import json
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np

from jaxgen.errors import InputError
from jaxgen.names import module_name
from jaxgen.torch_weights.files import Tensors
from jaxgen.torch_weights.layout import Shapes, expected, listed, printable
from jaxgen.torch_weights.matching import matches

GIVE_MODULE = "in Python, give the module itself: module="
DEEPEST = 16  # modules in modules
SMALL = 4096  # a size that any file may name
Field = tuple[str | int, ...]  # the keys and positions that lead to a value in a description
CHOICES = {"cell": ("lstm", "gru")}  # fields of text that decide the shapes
SIDES = (4, 5, 6, 7)  # of the smallest feature map, in modules with a field `size`; see jaxgen.layers.halvings
SIZES = tuple(SIDES[0] * 2**depth for depth in range(1, 7))


def describe(module: nn.Module) -> dict[str, Any]:
    """Describe a module such that `build` makes an equal one.

    A class or function in `__main__` (a notebook's) is described by its name. `build` refuses it, as it does every
    class from outside jaxgen.

    Args:
        module: a Linen module. Its fields are numbers, text, None, modules, sequences and mappings of these, or
            functions and classes that can be imported by their names, such as `nn.relu`. A list comes back as a tuple.
            A field of another kind is left out if it has its default value.

    Returns:
        `{"class": "jaxgen.models.vae.ConvVAE", "fields": {"latent": 2}}`: JSON-able, with modules among the fields
        described alike.

    Raises:
        InputError: the class is defined inside a function, or a field is a lambda, an array or the like.
    """
    return _describe_module(module, type(module).__qualname__)


def build(description: Mapping[str, Any]) -> nn.Module:
    """Build the module that `describe` described. Nothing of its size is allocated.

    Raises:
        InputError: the class is not one of `jaxgen.models` or `jaxgen.layers`, or a field is not of the type that the
            class declares.
    """
    return _build_module(description, "the description", 0)


def build_for(description: Mapping[str, Any], state_dicts: Mapping[str, Tensors], where: str) -> nn.Module:
    """`build` for the module of a file that holds these tensors.

    No size in the description may be larger than the tensors could explain, so that it takes little time to find that
    the two do not belong together.
    """
    try:
        module = build(description)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    every = [tensor for tensors in state_dicts.values() for tensor in tensors.values()]
    largest = max(SMALL, sum(math.prod(tensor.shape) for tensor in every))
    for field, value in _integers(description):
        # A count of layers costs time to trace, however narrow they are.
        if abs(value) > (len(every) if "layers" in str(field[-1]) else largest):
            name = ".".join(str(key) for key in field if key != "fields")
            raise InputError(f"{where}: its header says {name}={value}, its tensors are smaller; {GIVE_MODULE}")
    try:
        expected(module)
    except Exception as error:  # of any kind: it is what the module raises when its fields do not belong together
        raise InputError(f"{where}: its header describes a module that cannot be built; {GIVE_MODULE}") from error
    return module


def recognise(state_dicts: Mapping[str, Tensors], where: str, name: str | None = None) -> nn.Module:
    """Find the architecture in `jaxgen.models` that has these tensors.

    Names and shapes decide. Integer fields that shapes follow from (such as `latent` or `hidden`) are taken from the
    shapes, others (such as an image's height) are the defaults.

    Args:
        state_dicts: the state_dicts of a file, by their place in it.
        where: the file, for messages.
        name: the class, such as `dcgan.MnistGenerator`, if only that one may be found.

    Raises:
        InputError: there is none, or there are several.
    """
    found: list[nn.Module] = []
    for architectures in (_default_descriptions(), _sized_descriptions()):
        for description, shapes in architectures:
            if name is None or description["class"] == full_name(name):
                found += [
                    module for match in matches(state_dicts, shapes) for module in _fitted(description, match.shapes)
                ]
        if found:
            break
    found = [module for at, module in enumerate(found) if module not in found[:at]]
    names = list(dict.fromkeys(_short_name(type(module)) for module in found))
    if len(found) == 1:
        return found[0]
    if found:
        remedy = f'name one, as module="{names[0]}" (--module {names[0]})' if len(names) > 1 else GIVE_MODULE
        raise InputError(f"{where}: its tensors are those of several modules ({', '.join(names)}); {remedy}")
    tensors = listed({name: None for each in state_dicts.values() for name in each})
    if name is None:
        raise InputError(f"{where}: its tensors ({tensors}) are not those of a module in jaxgen.models; {GIVE_MODULE}")
    wanted = listed(next(shapes for each, shapes in _default_descriptions() if each["class"] == full_name(name)))
    raise InputError(f"{where}: its tensors ({tensors}) are not those of {name}, which are like {wanted}")


def full_name(name: str) -> str:
    """The full name of an architecture in `jaxgen.models`.

    Args:
        name: the class with or without its modules: `MnistGenerator`, `dcgan.MnistGenerator` or the full name.

    Raises:
        InputError: there is none of that name.
    """
    known = {
        _short_name(_known_classes()[description["class"]]): description["class"]
        for description, _ in _default_descriptions()
    }
    for short, full in known.items():
        if name in (short, full, short.rpartition(".")[2]):
            return str(full)
    near = difflib.get_close_matches(name.rpartition(".")[2], [short.rpartition(".")[2] for short in known], n=1)
    hint = (
        f"did you mean {next(short for short in known if short.endswith(near[0]))}?"
        if near
        else f"there are {', '.join(known)}"
    )
    raise InputError(f"there is no module {printable(name)!r} in jaxgen.models; {hint}")


def _short_name(kind: type[nn.Module]) -> str:
    return f"{kind.__module__.removeprefix('jaxgen.models.')}.{kind.__qualname__}"


# --- Describing -------------------------------------------------------------------------------------------------------


def _describe_module(module: nn.Module, where: str) -> dict[str, Any]:
    kind = type(module)
    if "<locals>" in kind.__qualname__:
        raise InputError(
            f"{where}: a weights file cannot name the class {kind.__name__}, which is defined inside a function; "
            "define it at the top level of a Python file"
        )
    fields = {}
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if not field.init or field.name == "parent" or (field.name == "name" and value is None):
            continue
        try:
            fields[field.name] = _describe_value(value, f"{where}.{field.name}")
        except InputError:
            if value is not field.default:
                raise
    return {"class": f"{module_name(kind)}.{kind.__qualname__}", "fields": fields}


def _describe_value(value: Any, where: str) -> Any:
    if isinstance(value, nn.Module):
        return _describe_module(value, where)
    if isinstance(value, np.bool_ | np.integer | np.floating):
        value = value.item()
    if value is None or type(value) in {bool, int, str} or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, tuple | list):
        return [_describe_value(item, f"{where}[{at}]") for at, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _describe_value(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if name := _importable_name(value):
        return {"name": name}
    raise InputError(
        f"{where}: a weights file cannot hold {printable(repr(value))}; use a number, text, a module, or a function or "
        "class that is defined at the top level of a Python file"
    )


def _importable_name(value: Any) -> str | None:
    """The name under which a function or class can be imported, None where there is none."""
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not callable(value) or not isinstance(module, str) or not isinstance(qualname, str):
        return None
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return f"{module}.{qualname}" if found is value else None


# --- Building ---------------------------------------------------------------------------------------------------------


@functools.cache
def _known_classes() -> dict[str, type[nn.Module]]:
    """The modules of `jaxgen.models` and `jaxgen.layers` by their full names."""
    import jaxgen.layers
    import jaxgen.models

    files = [
        importlib.import_module(f"jaxgen.models.{entry.name}") for entry in pkgutil.iter_modules(jaxgen.models.__path__)
    ]
    return {
        f"{kind.__module__}.{kind.__qualname__}": kind
        for file in (jaxgen.layers, *files)
        for kind in vars(file).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == file.__name__
    }


def _build_module(description: Any, where: str, depth: int) -> nn.Module:
    if not isinstance(description, Mapping) or description.keys() != {"class", "fields"} or depth > DEEPEST:
        raise InputError(f"{where} does not describe a module; {GIVE_MODULE}")
    name, fields = description["class"], description["fields"]
    kind = _known_classes().get(name) if isinstance(name, str) else None
    if kind is None:
        raise InputError(f"{where} names the class {printable(name)}, which is not jaxgen's; {GIVE_MODULE}")
    declared = {field.name: field.type for field in dataclasses.fields(kind) if field.init and field.name != "parent"}
    declared["name"] = str | None
    if not isinstance(fields, Mapping) or not fields.keys() <= declared.keys():
        raise InputError(f"{where} gives {kind.__name__} fields that it does not have; {GIVE_MODULE}")
    values = {
        field: _build_value(value, declared[field], f"{kind.__name__}.{field}", depth)
        for field, value in fields.items()
    }
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where} describes a {kind.__name__} that cannot be built ({error}); {GIVE_MODULE}"
        ) from error


def _build_value(value: Any, declared: Any, where: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        value = _build_module(value, where, depth + 1)
    elif isinstance(value, list):
        value = tuple(value)
    if not _is_of_type(value, declared):
        raise InputError(f"{where} cannot be {printable(repr(value))}; {GIVE_MODULE}")
    return value


def _is_of_type(value: Any, declared: Any) -> bool:
    """Whether a value is of a type that consists of numbers, text, modules, tuples, literals and unions of these."""
    origin, arguments = typing.get_origin(declared), typing.get_args(declared)
    if origin in {typing.Union, types.UnionType}:
        return any(_is_of_type(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return isinstance(value, str) and value in arguments
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[1:] == (...,):
            arguments = arguments[:1] * len(value)
        return len(value) == len(arguments) and all(map(_is_of_type, value, arguments))
    if declared is float:
        return type(value) in {int, float}
    if isinstance(declared, type) and issubclass(declared, nn.Module):
        return isinstance(value, declared)
    return declared in {bool, int, str, types.NoneType} and type(value) is declared


# --- Recognising ------------------------------------------------------------------------------------------------------


@functools.cache
def _default_descriptions() -> list[tuple[dict[str, Any], Shapes]]:
    """Each architecture of `jaxgen.models` with its default fields, and with each choice where there is one."""
    return [each for name, kind in _architectures().items() for each in _descriptions(name, kind, CHOICES)]


@functools.cache
def _sized_descriptions() -> list[tuple[dict[str, Any], Shapes]]:
    """Each architecture that images of several sizes make deeper or shallower, with the smallest size of each depth."""
    return [
        each for name, kind in _architectures().items() if "size" in kind.__dataclass_fields__
        for each in _descriptions(name, kind, {"size": SIZES})
    ]  # fmt: skip


def _architectures() -> dict[str, type[nn.Module]]:
    return {
        name: kind
        for name, kind in _known_classes().items()
        if name.startswith("jaxgen.models.") and hasattr(kind, "input_shape")
    }


def _descriptions(
    name: str, kind: type[nn.Module], choices: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[dict[str, Any], Shapes]]:
    """Descriptions of a class with its default fields and each choice, and the shapes of its tensors."""
    fields = [field for field in choices if field in kind.__dataclass_fields__]
    for values in itertools.product(*(choices[field] for field in fields)):
        description = {"class": name, "fields": dict(zip(fields, values, strict=True))}
        if shapes := _shapes(description):  # None for a class that has no default for one of its fields
            yield describe(build(description)), shapes


def _fitted(description: Mapping[str, Any], wanted: Shapes) -> list[nn.Module]:
    """The described module with fields that give its tensors these shapes; of all sizes that are as deep, the first."""
    size = description["fields"].get("size")
    sizes = [size * side // SIDES[0] for side in SIDES] if size in SIZES else [size]
    for each in sizes:
        fields = description["fields"] if each is None else {**description["fields"], "size": each}
        if module := _fit({**description, "fields": fields}, wanted):
            return [module]
    return []


def _fit(description: Mapping[str, Any], wanted: Shapes) -> nn.Module | None:
    """The described module with its integer fields such that its tensors have these shapes, None where there is none.

    One field after the other, and then one pair after the other (a decoder's channels change with the image's), is
    raised by one. The first axis that grows then gives the value, for sizes grow in proportion. Where two fields make
    the same axis grow, their order matters, so the other order is tried too.
    """
    integers = [field for field, _ in _integers(description)]
    for order in (integers, integers[::-1]):
        fitted = description
        for fields in [(), *itertools.combinations(order, 1), *itertools.combinations(order, 2)]:
            fitted = _with_fitting(fitted, fields, wanted)
            shapes = _shapes(fitted)
            if shapes is not None and wanted.items() <= shapes.items():
                return build(fitted)
    return None


def _with_fitting(description: Mapping[str, Any], fields: tuple[Field, ...], wanted: Shapes) -> Mapping[str, Any]:
    """The description with a value for these fields that follows from the shapes; as it is where none does."""
    now, raised = _shapes(description), _shapes(_raised(description, fields, 1)) if fields else None
    if now is None or raised is None:
        return description
    growth = [
        (wanted[name][axis] - size, raised[name][axis] - size)
        for name in wanted
        if len(wanted[name]) == len(now[name]) == len(raised[name])
        for axis, size in enumerate(now[name])
        if raised[name][axis] != size
    ]
    if not growth or not growth[0][0] or growth[0][0] % growth[0][1]:
        return description
    return dict(_raised(description, fields, growth[0][0] // growth[0][1]))


def _shapes(description: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]] | None:
    return _shapes_of(json.dumps(description))


@functools.lru_cache(1000)
def _shapes_of(description: str) -> Mapping[str, tuple[int, ...]] | None:
    try:
        return expected(build(json.loads(description)))
    except Exception:  # of any kind: it is what a module raises when its fields do not belong together
        return None


def _integers(description: Any, field: Field = ()) -> Iterator[tuple[Field, int]]:
    """The integers in a description, and where they stand."""
    if type(description) is int:
        yield field, description
    elif isinstance(description, Mapping | list):
        items = description.items() if isinstance(description, Mapping) else enumerate(description)
        for key, value in items:
            yield from _integers(value, (*field, key))


def _raised(description: Any, fields: tuple[Field, ...], by: int) -> Any:
    """The description with the integers in these fields raised."""
    if () in fields:
        return description + by
    if not fields:
        return description
    under = {field[0]: tuple(other[1:] for other in fields if other[0] == field[0]) for field in fields}
    if isinstance(description, list):
        return [_raised(value, under.get(at, ()), by) for at, value in enumerate(description)]
    return {key: _raised(value, under.get(key, ()), by) for key, value in description.items()}
