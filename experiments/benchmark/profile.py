"""What a step's time goes to, kernel by kernel, as XLA's own profiler tells."""

import gzip
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.benchmark.race import Jaxgen
from jaxgen import parallel, training

KINDS = ("products", "sums", "elementwise", "copies", "meeting")
MOVES = {
    "bitcast", "broadcast", "concatenate", "constant", "copy", "dynamic-slice", "dynamic-update-slice", "gather",
    "get-tuple-element", "iota", "pad", "parameter", "reshape", "reverse", "slice", "transpose", "tuple",
}  # fmt: skip
BODY = re.compile(r"^(?:ENTRY )?%?([\w.-]+) \(.*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (?:\(.*?\)|\S+) ([\w-]+)\(")
CALLED = re.compile(r"calls=%?([\w.-]+)")


def profile(ours: Jaxgen, steps: int) -> dict[str, Any]:
    """Seconds a step in kernels of each kind, and how many kernels a step starts, over so many steps of training.

    Kernels may run side by side, and what is between them is in none; so the kinds need not add up to a step's time.
    """
    recipe, source, batch_size, devices = ours.recipe, ours.source, ours.batch_size, ours.devices
    loop = training.advance(recipe, source, batch_size, tuple(devices))  # which has been compiled already
    carry = training.begin(recipe, source, recipe.init(jax.random.key(0)), batch_size)
    epoch = training.epoch_of(source, jax.random.split(jax.random.key(1)), 0)
    carry, epoch = parallel.copied_to(devices, (carry, epoch))
    arrays = parallel.shown_to(devices, source.arrays)
    compiled = loop.lower(carry, arrays, epoch, 0, steps).compile()
    kinds = kinds_of_kernels(compiled.as_text() or "")
    carry = jax.block_until_ready(loop(carry, arrays, epoch, 0, min(steps, 2)))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            jax.block_until_ready(loop(carry, arrays, epoch, 0, steps))
        events = [event for event in events_in(Path(folder)) if event["name"] in kinds]
    microseconds: Counter[str] = Counter()
    for event in events:
        microseconds[kinds[event["name"]]] += event.get("dur", 0)
    return {
        "seconds_per_step": {kind: microseconds[kind] / 1e6 / steps for kind in KINDS},
        "kernels_per_step": len(events) / steps,
    }


def kinds_of_kernels(hlo: str) -> dict[str, str]:
    """The kind of every instruction of an optimised module that does something by itself, by its name."""
    bodies: dict[str, set[str]] = {}  # of every computation, the operations in it
    instructions: list[tuple[str, str, str | None]] = []
    operations: set[str] = set()
    for line in hlo.splitlines():
        if body := BODY.match(line):
            operations = bodies.setdefault(body[1], set())
        elif found := INSTRUCTION.match(line):
            name, operation = found.groups()
            operations.add(operation)
            called = CALLED.search(line)
            instructions.append((name, operation, called[1] if called else None))
    return {
        name: kind_of({operation} if called is None else bodies[called])
        for name, operation, called in instructions
        if operation not in ("while", "call", "conditional")
    }


def kind_of(operations: set[str]) -> str:
    if "dot" in operations:
        return "products"
    if operations & {"reduce", "reduce-window"}:
        return "sums"
    if "all-reduce" in operations:
        return "meeting"
    return "copies" if operations <= MOVES else "elementwise"


def events_in(folder: Path) -> Iterator[dict[str, Any]]:
    """The finished events of a trace, with their names and durations in microseconds."""
    (path,) = folder.rglob("perfetto_trace.json.gz")
    for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]:
        if event.get("ph") == "X":
            yield event
