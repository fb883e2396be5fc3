"""What a step exchanges between devices, counted in the program: its collective operations and their operands."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_OPERATIONS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")
_BODY = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]")  # f32[64,3], pred[], f8e4m3fn[8]
_NAME = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(r"\b(?:body|to_apply|calls|\w+_computations?)=\{?((?:%?[\w.-]+(?:, )?)+)")
_TRIP_COUNT = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Exchange(NamedTuple):
    """A collective operation of a step."""

    operation: str  # "all-reduce", …
    operand_bytes: int  # what each device contributes; how much travels depends on the algorithm
    times: int  # in a step


class _Instruction(NamedTuple):
    name: str
    shape: str
    operation: str
    rest: str  # its operands and attributes


def in_module(hlo: str) -> list[Exchange]:
    """Return the collective operations of one step of a training loop.

    Args:
        hlo: an optimised module, from `compiled.as_text()`, whose outermost loop is over the steps.

    Raises:
        ValueError: a collective operation is in a loop within the step whose number of iterations the module does not
            state.
    """
    bodies = _bodies(hlo)
    shapes = {each.name: each.shape for body in bodies.values() for each in body}

    def within(body: str, times: int, in_step: bool) -> Iterator[Exchange]:
        for each in bodies.get(body, []):
            operation = each.operation.removesuffix("-start")  # the other half of a pair, `-done`, moves nothing
            if operation in _OPERATIONS:
                if not times:
                    raise ValueError(f"{each.name}: is in a loop of an unknown number of iterations")
                operands = _NAME.findall(each.rest.partition(")")[0])
                yield Exchange(operation, sum(_bytes(shapes[name]) for name in operands), times)
            elif each.operation == "while":
                known = _TRIP_COUNT.search(each.rest)
                repeated = (int(known[1]) if known else 0) if in_step else 1
                for called in _called(each):
                    yield from within(called, times * repeated, in_step=True)
            elif each.operation in ("call", "conditional", "fusion", "async-start"):
                for called in _called(each):
                    yield from within(called, times, in_step)

    return list(within("ENTRY", 1, in_step=False))


def in_jaxpr(jaxpr: Any) -> list[Exchange]:
    """Return the all-reduces of one step, from the traced training loop, which need not be compiled for that.

    They have the operands that `in_module` finds, unless XLA merges some of them.
    """
    return list(_within(jaxpr, 1))


def _within(jaxpr: Any, times: int) -> Iterator[Exchange]:
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("psum"):
            size = sum(math.prod(value.aval.shape) * value.aval.dtype.itemsize for value in equation.invars)
            yield Exchange("all-reduce", size, times)
        repeated = equation.params["length"] if equation.primitive.name == "scan" else 1
        for parameter in equation.params.values():
            for value in parameter if isinstance(parameter, tuple | list) else [parameter]:
                inner = getattr(value, "jaxpr", value)  # of a closed one
                if hasattr(inner, "eqns"):
                    yield from _within(inner, times * repeated)


def _bodies(hlo: str) -> dict[str, list[_Instruction]]:
    """The instructions of every computation by its name; the entry's is ENTRY."""
    bodies: dict[str, list[_Instruction]] = {}
    body: list[_Instruction] = []
    for line in hlo.splitlines():
        if head := _BODY.match(line):
            body = bodies.setdefault("ENTRY" if head[1] else head[2], [])
        elif instruction := _INSTRUCTION.match(line):
            body.append(_Instruction(*instruction.groups()))
    return bodies


def _called(instruction: _Instruction) -> list[str]:
    """The computations that an instruction runs, without the condition of a loop."""
    return [name for names in _CALLED.findall(instruction.rest) for name in re.findall(r"[\w.-]+", names)]


def _bytes(shape: str) -> int:
    """The size of an array, or of a tuple of arrays, such as `(f32[4]{0}, bf16[])`."""
    size = 0
    for kind, bits, dimensions in _ARRAY.findall(shape):
        width = 1 if kind == "pred" else math.ceil(int(bits) / 8)
        size += width * math.prod(int(length) for length in dimensions.split(",") if length)
    return size
