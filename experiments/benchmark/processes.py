"""What is measured in processes of their own: start-up, whole commands, and peak memory.

A command is run as its users run it and observed from outside. Memory is that of
`python -m experiments.benchmark.processes SYSTEM RECIPE SHAPE`, which trains and prints its peak.
"""

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_PROGRESS_BAR = re.compile(rb"steps/s|s/ ?steps")  # its rate; it appears when the first step has been trained
_LONGEST_START = 600.0  # seconds


def measure_starts(command: Sequence[str], times: int) -> dict[str, list[float]]:
    """Measure the seconds from a command to the end of its first training step, when its progress bar appears.

    Args:
        command: a module and its options, as after `python -m`.
        times: how often.

    Returns:
        The seconds with an empty compilation cache ("cold") and with a filled one ("warm").
    """
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(times):
        with tempfile.TemporaryDirectory() as cache:
            for kind in seconds:
                seconds[kind].append(_seconds_to_first_step(command, cache))
    return seconds


def measure_command(command: Sequence[str]) -> dict[str, dict[str, float]]:
    """Measure the seconds that a command takes from start to end, and those of them that it spends in training.

    Returns:
        `total` and `training` with an empty compilation cache ("cold") and with a filled one ("warm"). Training
        includes the compilation of its loop; the rest is starting, drawing and saving.
    """
    seconds = {}
    with tempfile.TemporaryDirectory() as cache:
        for kind in ("cold", "warm"):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder, "run")
                began = time.perf_counter()
                _run([*command, "--out", str(run)], _caching(cache))
                total = time.perf_counter() - began
                lines = (run / "metrics.jsonl").read_text().splitlines()
                seconds[kind] = {"total": total, "training": sum(json.loads(line)["seconds"] for line in lines)}
    return seconds


def measure_memory(system: str, name: str, shape: Sequence[int], environment: dict[str, str] | None = None) -> int:
    """Measure the peak of the resident set, in bytes, of a system that trains ten steps on random images.

    Args:
        system: "jaxgen", "pytorch_eager" or "pytorch_compiled".
        name: the recipe.
        shape: of the images, `[N, H, W, C]`.
    """
    words = ["experiments.benchmark.processes", system, name, *map(str, shape)]
    return int(json.loads(_run(words, environment or {}).splitlines()[-1])["peak_bytes"])


def measure_our_memory(name: str, shape: Sequence[int]) -> dict[str, int]:
    """Measure jaxgen's peak memory with an empty compilation cache ("cold") and with a filled one ("warm")."""
    with tempfile.TemporaryDirectory() as cache:
        return {kind: measure_memory("jaxgen", name, shape, _caching(cache)) for kind in ("cold", "warm")}


def peak_bytes() -> int:
    """Return the peak of this process's resident set.

    On Linux `ru_maxrss` is no less than that of the process which started this one, so it is not used there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _caching(folder: str) -> dict[str, str]:
    """The environment in which JAX keeps compiled programs in this folder, all of them as jaxgen's commands do."""
    return {"JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def _run(words: Sequence[str], environment: dict[str, str]) -> str:
    """Run `python -m WORDS` and return what it prints; if it fails, raise RuntimeError with what it says."""
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-m", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr or done.returncode}")
    return done.stdout


def _seconds_to_first_step(command: Sequence[str], cache: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", *command, "--out", f"{folder}/run"]
        began = time.perf_counter()
        with _on_terminal(words, {**os.environ, **_caching(cache)}) as terminal:
            shown = b""
            while not _PROGRESS_BAR.search(shown):
                left = began + _LONGEST_START - time.perf_counter()
                if not select.select([terminal], [], [], max(0.0, left))[0]:
                    raise RuntimeError(f"{' '.join(command)}: no training step in {_LONGEST_START:.0f} s")
                new = _read(terminal)
                if not new:
                    raise RuntimeError(f"{' '.join(command)}: {shown.decode(errors='replace').strip()}")
                shown += new
            return time.perf_counter() - began


@contextlib.contextmanager
def _on_terminal(words: Sequence[str], environment: dict[str, str]) -> Iterator[int]:
    """Run a command on a terminal of its own, whose output can be read from the descriptor; then kill it."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(terminal: int) -> bytes:
    """Read what there is; nothing at the end, which Linux reports as an error."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""


def _train_for_memory(system: str, name: str, *shape: str) -> dict[str, Any]:
    """Train ten steps, or a few more."""
    size = tuple(map(int, shape))
    if system == "jaxgen":
        from experiments.benchmark.cases import CASES
        from experiments.benchmark.images import random_images
        from experiments.benchmark.race import Jaxgen
        from jaxgen.runs.devices import provide_cpu_devices

        case = CASES[name]()
        provide_cpu_devices(case.config)
        Jaxgen(case, random_images(size)).train(10)
    else:
        import numpy as np

        from tests.support.torch_recipes import Training

        floats = np.random.default_rng(0).random(size, np.float32)
        Training(name, floats, compile=system == "pytorch_compiled").epoch(10)
    assert not {"jax", "torch"} <= sys.modules.keys(), "one system's memory would be counted as the other's"
    return {"peak_bytes": peak_bytes()}


if __name__ == "__main__":
    print(json.dumps(_train_for_memory(*sys.argv[1:])))
