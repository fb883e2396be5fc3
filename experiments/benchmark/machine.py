"""The machine that is measured on: its processor, the software on it, and what its other processes do meanwhile."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

QUIET_SHARE = 0.05  # of the processors' time: more than that, used by other processes, disturbs a measurement
ENOUGH_ROUNDS = 6  # the fewest for which there is a 95 % interval of the median

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy")
_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")


class CpuTimes(NamedTuple):
    """A reading of the processors' clocks, in seconds since any fixed moment."""

    wall: float
    busy: float  # of all processors that this process may use, added up; time stolen by a hypervisor counts as busy
    own: float  # of this process and of those that work with it, all threads


def read_cpu_times(partners: Sequence[psutil.Process] = ()) -> CpuTimes:
    """Read the clocks now.

    Args:
        partners: processes whose work is part of what is measured.
    """
    usable = _usable_cpus()
    busy = 0.0
    for cpu, times in enumerate(psutil.cpu_times(percpu=True)):
        if cpu in usable:
            idle = {"idle", "iowait", "guest", "guest_nice"}  # Linux counts guests' time in `user` too
            busy += sum(seconds for kind, seconds in times._asdict().items() if kind not in idle)
    theirs = sum(sum(partner.cpu_times()[:2]) for partner in partners)  # in the kernel and outside
    return CpuTimes(time.perf_counter(), busy, time.process_time() + theirs)


def share_of_others(before: CpuTimes, after: CpuTimes) -> float | None:
    """Return the share of the processors' time that other processes used between two readings.

    Returns:
        A number from 0 to 1; None if the processors' clocks do not even show this process's own time, as in sandboxes
        that hide them.
    """
    wall, busy, own = (end - start for start, end in zip(before, after, strict=True))
    if busy < 0.8 * own - 0.05:
        return None
    return min(1.0, max(0.0, busy - own) / (wall * len(_usable_cpus())))


def share_of_others_during(seconds: float) -> float | None:
    """Watch the machine for some seconds, with work of our own for a tenth of them, and return the others' share."""
    before = read_cpu_times()
    while time.perf_counter() < before.wall + seconds / 10:
        pass
    time.sleep(0.9 * seconds)
    return share_of_others(before, read_cpu_times())


def quiet_rounds(shares: Sequence[float | None]) -> tuple[list[int], bool]:
    """Choose the rounds whose figures count.

    Args:
        shares: for each round the share of the processors' time that other processes used; None if it is not known.

    Returns:
        The indices of all quiet rounds and True, if there are enough of them (six, or all where fewer were measured);
        else the quieter half of the rounds, two at least, and False.
    """
    quiet = [number for number, share in enumerate(shares) if share is not None and share <= QUIET_SHARE]
    if len(quiet) >= min(ENOUGH_ROUNDS, len(shares)):
        return quiet, True
    by_share = sorted(range(len(shares)), key=lambda number: _or_all(shares[number]))
    return sorted(by_share[: max(2, len(shares) // 2)]), False


def describe_machine() -> dict[str, Any]:
    """Describe processor, operating system and threads, in values that JSON has."""
    import jax
    import torch

    return {
        "processor": _processor(),
        "flags": _flags(),
        "cpus": len(_usable_cpus()),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "pytorch_threads": torch.get_num_threads(),
        "jax_devices": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def git_commit() -> str | None:
    """Return the commit of this checkout, with a "+" if files have been changed since; None outside a checkout."""
    described = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(described, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _or_all(share: float | None) -> float:
    return 1.0 if share is None else share


def _usable_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _processor() -> str:
    """The processor's name; on Linux with family and model number, as clouds hide the rest of the name."""
    about = _cpuinfo()
    if "model name" not in about:
        return platform.processor() or platform.machine()
    numbers = [f"{key.removeprefix('cpu ')} {about[key]}" for key in ("cpu family", "model") if key in about]
    return about["model name"] + (f" ({', '.join(numbers)})" if numbers else "")


def _flags() -> list[str]:
    """Those of the processor's vector and matrix extensions that matter here; none where the system does not say."""
    about = _cpuinfo()
    there = (about.get("flags") or about.get("Features") or "").split()
    return [flag for flag in _FLAGS if flag in there]


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor."""
    path = Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}
