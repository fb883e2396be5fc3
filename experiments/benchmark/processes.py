"""What is measured in a process of its own: peak memory, and a whole command from its start.

The functions with a leading `measure` start `python -m experiments.benchmark.processes …` and read its last line.
That process imports nothing before its clock runs.
"""

import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

from experiments.benchmark.stopwatch import Stopwatch


def measure_memory(system: str, name: str, shape: tuple[int, ...], **environment: str) -> int:
    """The peak of the resident set, in bytes, of a system that trains on random images of this shape, [N, H, W, C]."""
    return int(child("memory", system, name, *map(str, shape), **environment)["peak_bytes"])


def measure_our_memory(name: str, shape: tuple[int, ...]) -> dict[str, int]:
    """The same of ours, with an empty compilation cache and with a filled one: XLA takes memory to compile."""
    with tempfile.TemporaryDirectory() as cache:
        return {kind: measure_memory("jaxgen", name, shape, **caching(cache)) for kind in ("cold", "warm")}


def measure_starts(command: tuple[str, ...], times: int) -> dict[str, list[float]]:
    """Seconds from a command to the end of its first step, with an empty compilation cache and with a filled one."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            for kind in seconds:
                began = time.time()  # a clock that both processes read
                seconds[kind].append(run_command("start", command, cache)["ended"] - began)
    return seconds


def measure_command(command: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Seconds that a command takes, by parts: with an empty compilation cache, and with a filled one."""
    with tempfile.TemporaryDirectory() as cache:
        return {kind: taken_apart(command, cache) for kind in ("cold", "warm")}


def taken_apart(command: tuple[str, ...], cache: str) -> dict[str, float]:
    began = time.time()
    parts: dict[str, float] = run_command("whole", command, cache)["parts"]
    total = time.time() - began
    parts["other"] += total - sum(parts.values())  # Python's own start and end
    return {"total": total, **parts}


def run_command(how_far: str, command: tuple[str, ...], cache: str) -> dict[str, Any]:
    """Run an experiment's command with its compiled programs in this folder."""
    with tempfile.TemporaryDirectory() as folder:
        return child(how_far, *command, "--out", f"{folder}/run", **caching(cache))


def caching(folder: str) -> dict[str, str]:
    """JAX's persistent cache as `jaxgen.command` sets it up, but in this folder."""
    return {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def child(*arguments: str, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmark.processes", *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def train_for_memory(system: str, name: str, *shape: str) -> dict[str, Any]:
    """Train ten steps, or a few more."""
    size = tuple(map(int, shape))
    if system == "jaxgen":
        from jaxgen.command import provide_cpu_devices

        from experiments.benchmark.cases import CASES
        from experiments.benchmark.images import random_images
        from experiments.benchmark.race import Jaxgen

        case = CASES[name]()
        provide_cpu_devices(case.config)
        Jaxgen(case, random_images(size)).train(10)
    else:
        import numpy as np

        from tests.support.torch_recipes import Training

        floats = np.random.default_rng(0).random(size, np.float32)
        Training(name, floats, compile=system == "pytorch_compiled").epoch(10)
    assert not {"jax", "torch"} <= sys.modules.keys(), "the one would be charged for the other"
    return {"peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Not `ru_maxrss` on Linux: there it is at least that of the process which started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def follow_command(how_far: str, module: str, options: list[str]) -> dict[str, Any]:
    """Do what `python -m MODULE OPTIONS` does, to its end or to that of its first training step."""
    stopwatch = Stopwatch()
    with stopwatch.part("importing"):
        experiment = importlib.import_module(module)
    from jaxgen.command import command

    from experiments.benchmark import images
    from jaxgen import checkpoint, data, pictures, run, training

    data.load = images.load
    drawing = [(pictures, name) for name, _ in inspect.getmembers(pictures, inspect.isfunction)]
    for owner, name in [*drawing, (run.Run, "draw"), (run.Run, "picture"), (run.Run, "animation")]:
        stopwatch.watch(owner, name, "drawing")
    stopwatch.watch(run.Run, "train", "training")
    stopwatch.watch(checkpoint, "save", "saving")
    slices = training.slices

    def first_slice(*arguments: Any, **options: Any) -> NoReturn:
        next(slices(*arguments, **options))
        raise SystemExit

    if how_far == "start":
        training.slices = first_slice
    sys.argv = [module, *options]
    with stopwatch.compiling():
        try:
            command(experiment.main, experiment.Config)
        except SystemExit as end:
            if end.code:
                raise
    ended = time.time()
    stopwatch.settle()
    return {"ended": ended, "parts": stopwatch.spent}


if __name__ == "__main__":
    kind, first, *others = sys.argv[1:]
    found = train_for_memory(first, *others) if kind == "memory" else follow_command(kind, first, others)
    print(json.dumps(found))
