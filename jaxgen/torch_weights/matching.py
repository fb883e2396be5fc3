"""Which tensors of a file are the model's: prefixes, several state_dicts in one file, and what is no weight."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from jaxgen.errors import InputError
from jaxgen.torch_weights.files import Tensors, to_numpy
from jaxgen.torch_weights.layout import COUNTER, Shapes, listed, printable

WRAPPERS = {"module", "_orig_mod"}  # DataParallel and AveragedModel; torch.compile
# Single numbers that tools store among a model's weights: AveragedModel; thop; averages of weights.
NO_WEIGHTS = {"n_averaged", "total_ops", "total_params", "num_updates", "decay"}


class Match(NamedTuple):
    """Tensors of a state_dict that have the model's names, once wrappers and a prefix are removed from theirs."""

    place: str  # of the state_dict in the file
    prefix: str
    tensors: Tensors  # the whole state_dict
    names: dict[str, str]  # the model's name -> the name in the file

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(self.tensors[original].shape) for name, original in self.names.items()}


def select(state_dicts: Mapping[str, Tensors], wanted: Shapes, where: str) -> dict[str, np.ndarray]:
    """Find the model's tensors.

    Args:
        state_dicts: the state_dicts of a file, by their place in it.
        wanted: the model's names and shapes, as PyTorch has them.
        where: the file, for messages.

    Returns:
        The tensors by the model's names. Counters of batches that are missing, as in files from before 2018, are 0.

    Raises:
        InputError: none of the state_dicts is the model's, or several are and they differ.
    """
    candidates = list(_candidates(state_dicts, wanted))
    fitting = [match for match in candidates if _problem(match, wanted) is None]
    if not fitting:
        _refuse(candidates, wanted, where)
    tensors, *others = [_converted(match, where) for match in fitting]
    for match, other in zip(fitting[1:], others, strict=True):
        if any(not np.array_equal(tensor, other.get(name, tensor)) for name, tensor in tensors.items()):
            first, second = (printable(f"{each.place}{each.prefix}" or "the top") for each in (fitting[0], match))
            raise InputError(
                f"{where}: holds two different sets of the model's tensors, at {first} and at {second}; save the right "
                "one alone with torch.save"
            )
    return {name: tensors.get(name, np.zeros((), np.int64)) for name in wanted}


def check(tensors: Tensors, wanted: Shapes, where: str) -> None:
    """Raise `InputError` unless the tensors have exactly the model's names and shapes."""
    if problem := _problem(Match("", "", tensors, {name: name for name in tensors}), wanted):
        raise InputError(f"{where}: {problem}")


def matches(state_dicts: Mapping[str, Tensors], wanted: Shapes) -> Iterator[Match]:
    """Every set of tensors in a file that has exactly the model's names, whatever the shapes."""
    required = _required(wanted)
    return (match for match in _candidates(state_dicts, wanted) if required <= match.names.keys() <= wanted.keys())


def _candidates(state_dicts: Mapping[str, Tensors], wanted: Shapes) -> Iterator[Match]:
    """The tensors under each prefix that leaves one of the model's names, and under none."""
    for place, tensors in state_dicts.items():
        plain = _without_wrappers(tensors, wanted)
        for prefix in sorted(
            {""} | {prefix for name in plain for prefix in _prefixes(name) if name[len(prefix) :] in wanted}
        ):
            names = {
                name.removeprefix(prefix): original
                for name, original in plain.items()
                if name.startswith(prefix)
                and (name.removeprefix(prefix) in wanted or not _is_no_weight(name, tensors[original]))
            }
            yield Match(place, prefix, tensors, names)


def _without_wrappers(tensors: Tensors, wanted: Shapes) -> dict[str, str]:
    """The names without `module.` and `_orig_mod.` -> the names, unless that makes two of them equal."""
    if any(WRAPPERS.intersection(name.split(".")) for name in wanted):
        return {name: name for name in tensors}
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): name for name in tensors}
    return plain if len(plain) == len(tensors) else {name: name for name in tensors}


def _prefixes(name: str) -> list[str]:
    """`a.b.c` -> `a.`, `a.b.`"""
    return [name[: at + 1] for at, letter in enumerate(name) if letter == "."]


def _is_no_weight(name: str, tensor: Any) -> bool:
    return name.rpartition(".")[2] in NO_WEIGHTS and tuple(tensor.shape) in {(), (1,)}


def _required(wanted: Shapes) -> set[str]:
    return {name for name in wanted if not name.endswith(COUNTER)}


def _problem(match: Match, wanted: Shapes) -> str | None:
    """What keeps the tensors from being the model's, in words; None where they are."""
    if missing := [name for name in wanted if name not in match.names and not name.endswith(COUNTER)]:
        hint = ""
        if missing[0].endswith(("running_mean", "running_var")):
            hint = " (batch norm's running statistics: model.state_dict() has them, model.parameters() has not)"
        return f"no tensor {match.prefix}{missing[0]}{hint}; it holds {listed(match.tensors)}"
    if foreign := [original for name, original in match.names.items() if name not in wanted]:
        return f"tensor {printable(foreign[0])} is not the model's, which has {listed(wanted)}"
    for name, shape in match.shapes.items():
        if shape != wanted[name]:
            original = printable(match.names[name])
            return f"{original} has shape {list(shape)}, the model's is {list(wanted[name])}"
    return None


def _refuse(candidates: list[Match], wanted: Shapes, where: str) -> NoReturn:
    """Say what is wrong with the candidate that has the most of the model's names."""
    if not candidates:
        raise InputError(f"{where}: holds no tensors, the model has {listed(wanted)}")
    closest = max(candidates, key=lambda match: len(match.names.keys() & wanted.keys()))
    raise InputError(f"{where}: {_problem(closest, wanted)}")


def _converted(match: Match, where: str) -> dict[str, np.ndarray]:
    tensors = {}
    for name, original in match.names.items():
        try:
            tensors[name] = to_numpy(match.tensors[original])
        except ValueError as error:
            raise InputError(f"{where}: {printable(original)} {error}") from error
    return tensors
