"""Where a training step's time goes, kernel by kernel, measured with XLA's profiler."""

import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

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


def profile(ours: Jaxgen, steps: int) -> dict[str, Any]:
    """Train under the profiler, about so many steps.

    Returns:
        `seconds_per_step` in kernels of each kind, and `kernels_per_step`. Kernels run side by side, and the time
        between them belongs to no kind; so the kinds need not add up to the time of a step.
    """
    ours.train(1)  # compiled and warm
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            done = ours.train(steps)
        (path,) = Path(folder).rglob("*.xplane.pb")
        kernels = list(_kernels_in(jax.profiler.ProfileData.from_file(str(path))))
    kinds: dict[Kernel, str] = {}
    for executable in jax.devices()[0].client.live_executables():
        for module in executable.hlo_modules():
            kinds |= kinds_of_kernels(module.to_string())
    nanoseconds: defaultdict[str, float] = defaultdict(float)
    for kernel, duration in kernels:
        if kernel in kinds:
            nanoseconds[kinds[kernel]] += duration
    return {
        "seconds_per_step": {kind: nanoseconds[kind] / 1e9 / done for kind in KINDS},
        "kernels_per_step": sum(kernel in kinds for kernel, _ in kernels) / done,
    }


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


def kind_of(operations: set[str]) -> str:
    """Return the kind of a kernel that consists of these HLO operations."""
    if "dot" in operations:
        return "matmul"
    if operations & {"reduce", "reduce-window"}:
        return "reduction"
    if "all-reduce" in operations:
        return "all-reduce wait"
    return "copy" if operations <= _MOVES else "elementwise"


def _kernels_in(data: jax.profiler.ProfileData) -> list[tuple[Kernel, float]]:
    """Every kernel that was run, and its nanoseconds."""
    kernels = []
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                about = dict(event.stats)
                if "hlo_op" in about:
                    kernels.append(((str(about["hlo_module"]), str(about["hlo_op"])), event.duration_ns))
    return kernels
