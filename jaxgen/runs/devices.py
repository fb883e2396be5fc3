"""Where a run computes."""

import contextlib
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxgen import processes
from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option
from jaxgen.runs.models import models_of
from jaxgen.signals import say

_MOST_CPU_DEVICES = 256
_CPUINFO = Path("/proc/cpuinfo")


def find_device(name: str) -> jax.Device:
    """The device of that name: `auto`, a platform such as `cpu` or `gpu`, or one of several as `gpu:1`.

    Raises:
        InputError: it is not there.
    """
    platform, _, index = name.partition(":")
    try:
        devices = jax.local_devices(backend=None if platform == "auto" else platform)
        if not (index or "0").isdecimal():
            raise IndexError(index)
        return devices[int(index or 0)]
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        raise InputError(f"{option('device', name)}: {_why_no_device(platform)}") from error


def _why_no_device(platform: str) -> str:
    asked = os.environ.get("JAX_PLATFORMS")
    try:
        here = ", ".join(f"{device.platform}:{device.id}" for device in jax.devices())
    except (RuntimeError, AssertionError):
        return f"JAX cannot start, because JAX_PLATFORMS is {asked!r}; unset it, or set it to cpu"
    if platform in ("gpu", "cuda"):
        return f"there is no such device; here: {here}; for an NVIDIA GPU install jaxgen[cuda12]"
    if asked and platform not in asked.split(","):
        return f"JAX_PLATFORMS is {asked!r} and admits only {here}"
    return f"there is no such device; here: {here}"


def find_devices(config: Config) -> Sequence[jax.Device]:
    """The devices that share every batch, or the models; the first one also does everything else.

    Raises:
        InputError: there are not enough, or they cannot share batches of this size.
    """
    if processes.are_several():
        return _devices_of_all(config)
    first = find_device(config.device)
    available = jax.devices(first.platform)
    available = available[available.index(first) :]
    count = config.devices
    if count is None:
        count = min(config.cpu_devices, len(available)) if first.platform == "cpu" else 1
        return available[: count if _can_share(config, count) else 1]
    if count > len(available):
        raise InputError(
            f"{option('devices', count)}: there are only {len(available)} from {first.platform}:{first.id} on; ask for "
            "no more"
        )
    if not _can_share(config, count):
        raise InputError(
            f"{option('devices', count)}: cannot share batches of {config.batch_size} evenly; a divisor of it can"
        )
    return available[:count]


def _devices_of_all(config: Config) -> Sequence[jax.Device]:
    """The devices of all processes, of each equally many."""
    if ":" in config.device:
        raise InputError(f"{option('device', config.device)}: each process uses its first devices; name no number")
    platform = find_device(config.device).platform
    of_each: dict[int, list[jax.Device]] = {}
    for device in jax.devices(platform):
        of_each.setdefault(device.process_index, []).append(device)
    most = min(map(len, of_each.values()))
    count = config.devices or most * len(of_each)
    asked = option("devices", count) if config.devices else f"{count} devices of {len(of_each)} processes"
    if count % len(of_each) or count > most * len(of_each):
        raise InputError(
            f"{asked}: must be a multiple of the {len(of_each)} processes, and at most {most} for each of them"
        )
    if not _can_share(config, count):
        raise InputError(
            f"{asked}: cannot share batches of {config.batch_size} evenly; choose another {option('batch_size')} or "
            f"fewer {option('devices')}"
        )
    return [device for its in of_each.values() for device in its[: count // len(of_each)]]


def _can_share(config: Config, count: int) -> bool:
    """Whether so many devices, in as many groups as have models of their own, can share every batch evenly."""
    return config.batch_size % (count // math.gcd(count, models_of(config).number)) == 0


def connect(config: Config) -> None:
    """Connect this process with the others that the configuration, or Slurm or Open MPI, tells of, if there are any.

    Where JAX's distributed runtime connects it already, it stays as it is.

    Raises:
        InputError: the options do not fit together, JAX has started, or the processes do not find each other.
    """
    given = {name: getattr(config, name) for name in ("coordinator", "processes", "process")}
    missing = [name for name, value in given.items() if value is None]
    is_said = len(missing) < len(given)
    if jax.distributed.is_initialized() or not (is_said or processes.is_one_of_several_tasks()):
        return
    if not is_said or config.coordinator == "auto":
        given = dict.fromkeys(given)  # which the cluster knows
    elif missing:
        raise InputError(f"{' and '.join(map(option, missing))}: missing; several processes need {_all_options()}")
    elif not _is_address(config.coordinator or ""):
        raise InputError(f"{option('coordinator', config.coordinator)}: must be HOST:PORT or auto")
    elif given["process"] >= given["processes"]:
        raise InputError(f"{option('process', config.process)}: must be below {option('processes', config.processes)}")
    by_hand = f"{given['processes']} processes at {given['coordinator']}"
    say(f"connecting {by_hand if given['coordinator'] else 'the processes that the cluster names'}")
    try:
        processes.connect(*given.values())
    except (RuntimeError, ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"the processes could not be connected: {why}; check {_all_options()}") from error


def _is_address(text: str) -> bool:
    parts = re.fullmatch(r".+:(\d{1,5})", text)
    return parts is not None and 0 < int(parts[1]) < 1 << 16


def _all_options() -> str:
    return f"{option('coordinator')}, {option('processes')} and {option('process')}"


def provide_cpu_devices(config: Config) -> None:
    """Split the CPU into as many of JAX's devices as are to share every batch, if JAX has not started yet."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jax.config.values["jax_num_cpu_devices"] < 1:  # otherwise it is the user's choice, as by JAX_NUM_CPU_DEVICES
        of_each = None if config.devices is None else max(1, config.devices // (config.processes or 1))
        count = of_each or min(config.cpu_devices, cores)
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", min(count, _MOST_CPU_DEVICES))


def lacks_bfloat16(device: jax.Device) -> bool:
    """Whether a device is known to be an x86 processor without instructions that multiply bfloat16.

    Those with AMX or AVX-512 BF16 have them. Only Linux says which a processor has.
    """
    if device.platform != "cpu" or not _CPUINFO.exists():
        return False
    flags = re.search(r"^flags\s*:(.*)$", _CPUINFO.read_text(), re.MULTILINE)
    return flags is not None and not {"amx_bf16", "avx512_bf16"} & set(flags[1].split())
