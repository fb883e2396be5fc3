"""Where a training step's time goes, kernel by kernel, measured with XLA's profiler."""

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from experiments.benchmark.race import Jaxgen

KINDS = ("matmul", "reduction", "elementwise", "copy", "all-reduce wait")

_MOVES = {
    "bitcast", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "dynamic-update-slice", "gather",
    "get-tuple-element", "iota", "pad", "parameter", "reshape", "reverse", "slice", "transpose", "tuple",
}  # fmt: skip
_MODULE = re.compile(r"^HloModule ([\w.-]+)")
_BODY = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (?:\(.*?\)|\S+) ([\w-]+)\(")
_CALLED = re.compile(r"calls=%?([\w.-]+)")

Kernel = tuple[str, str]  # the names of its module and of its instruction
Interval = tuple[float, float]  # from, to


class _Event(NamedTuple):
    """A kernel that was run."""

    kernel: Kernel
    program: int  # the number of the program that it was part of
    device: int
    start: float  # nanoseconds
    stop: float


def profile(ours: Jaxgen, steps: int) -> dict[str, Any]:
    """Train under the profiler, about so many steps.

    Returns:
        `seconds_per_step` in kernels of each kind, and `kernels_per_step`. Kernels run side by side, and the time
        between them belongs to no kind; so the kinds need not add up to the time of a step. `overlapped`: the share of
        the all-reduces' time in which the same device also ran another kernel; None without all-reduces.
    """
    ours.train(1)  # compiled and warm
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            done = ours.train(steps)
        (path,) = Path(folder).rglob("*.xplane.pb")
        events = list(_events_in(jax.profiler.ProfileData.from_file(str(path))))
    executables = jax.devices()[0].client.live_executables()
    modules = [kinds_of_kernels(module.to_string()) for each in executables for module in each.hlo_modules()]
    kinds = kinds_by_program(modules, events)
    nanoseconds: defaultdict[str, float] = defaultdict(float)
    exchanging: defaultdict[int, list[Interval]] = defaultdict(list)  # by device
    computing: defaultdict[int, list[Interval]] = defaultdict(list)
    known = [event for event in events if event.kernel in kinds[event.program]]
    for kernel, program, device, start, stop in known:
        kind = kinds[program][kernel]
        nanoseconds[kind] += stop - start
        (exchanging if kind == "all-reduce wait" else computing)[device].append((start, stop))
    both = sum(overlap(exchanging[device], computing[device]) for device in exchanging)
    either = sum(stop - start for intervals in exchanging.values() for start, stop in united(intervals))
    return {
        "seconds_per_step": {kind: nanoseconds[kind] / 1e9 / done for kind in KINDS},
        "kernels_per_step": len(known) / done,
        "overlapped": both / either if either else None,
    }


def united(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union of intervals, as intervals in order that do not overlap."""
    union: list[Interval] = []
    for start, stop in sorted(intervals):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(stop, union[-1][1]))
        else:
            union.append((start, stop))
    return union


def overlap(some: Iterable[Interval], others: Iterable[Interval]) -> float:
    """Return for how long an interval of both kinds was under way."""
    total, left, right = 0.0, united(some), united(others)
    while left and right:
        total += max(0.0, min(left[-1][1], right[-1][1]) - max(left[-1][0], right[-1][0]))
        (left if left[-1][0] > right[-1][0] else right).pop()  # the one that began later can meet no other
    return total


def kinds_of_kernels(hlo: str) -> dict[Kernel, str]:
    """Return the kind of every instruction of an optimised HLO module that does something by itself."""
    module = ""
    bodies: dict[str, set[str]] = {}  # of every computation, the operations in it
    instructions: list[tuple[str, str, str | None]] = []
    operations: set[str] = set()
    for line in hlo.splitlines():
        if head := _MODULE.match(line):
            module = head[1]
        elif body := _BODY.match(line):
            operations = bodies.setdefault(body[1], set())
        elif instruction := _INSTRUCTION.match(line):
            name, operation = instruction.groups()
            operations.add(operation)
            called = _CALLED.search(line)
            instructions.append((name, operation, called[1] if called else None))
    return {
        (module, name): kind_of({operation} if called is None else bodies[called])
        for name, operation, called in instructions
        if operation not in ("while", "call", "conditional")
    }


def kinds_by_program(
    modules: Sequence[Mapping[Kernel, str]], events: Iterable[_Event]
) -> dict[int, Mapping[Kernel, str]]:
    """Return the kinds of kernels of each program that was run, by its number.

    Several modules can have one name, and events do not say which of them a program is: it is the smallest of those
    that have the most of the kernels that were run.
    """
    run: defaultdict[int, set[Kernel]] = defaultdict(set)
    for event in events:
        run[event.program].add(event.kernel)
    return {
        program: max(modules, key=lambda module: (len(kernels & module.keys()), -len(module)))
        for program, kernels in run.items()
    }


def kind_of(operations: set[str]) -> str:
    """Return the kind of a kernel that consists of these HLO operations."""
    if "dot" in operations:
        return "matmul"
    if operations & {"reduce", "reduce-window"}:
        return "reduction"
    if "all-reduce" in operations:
        return "all-reduce wait"
    return "copy" if operations <= _MOVES else "elementwise"


def _events_in(data: jax.profiler.ProfileData) -> Iterator[_Event]:
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                about = dict(event.stats)
                if "hlo_op" in about:
                    kernel = str(about["hlo_module"]), str(about["hlo_op"])
                    device = int(str(about.get("device_ordinal", 0)))
                    program = int(str(about["program_id"]))
                    yield _Event(kernel, program, device, event.start_ns, event.start_ns + event.duration_ns)
