"""How much memory there is, so that what cannot fit is refused before it is made."""

import contextlib
from pathlib import Path

import jax
import psutil

__all__ = ["available", "available_on", "text"]

_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available() -> int:
    """The bytes of memory that this machine can still give, or less where this process runs in a container."""
    limits = [psutil.virtual_memory().available]
    for file in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(Path(file).read_text()))
    return min(limits)


def available_on(device: jax.Device) -> int:
    """The bytes of memory that JAX can use on a device, including what it uses now; for a CPU, `available`."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return available() if limit is None else int(limit)


def text(size: int) -> str:
    """A number of bytes as people read it, such as `16.0 TB`."""
    power = min(len(str(size)) - 1, 15) // 3
    if not power:
        return f"{size} bytes"
    return f"{size / 1000**power:,.1f} {('kB', 'MB', 'GB', 'TB', 'PB')[power - 1]}"
