"""Where a run computes."""

import contextlib
import math
import os
from collections.abc import Sequence

import jax

from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option
from jaxgen.runs.models import models_of

_MOST_CPU_DEVICES = 256


def find_device(name: str) -> jax.Device:
    """The device of that name: `auto`, a platform such as `cpu` or `gpu`, or one of several as `gpu:1`.

    Raises:
        InputError: it is not there.
    """
    platform, _, index = name.partition(":")
    try:
        devices = jax.devices(None if platform == "auto" else platform)
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


def _can_share(config: Config, count: int) -> bool:
    """Whether so many devices, in as many groups as have models of their own, can share every batch evenly."""
    return config.batch_size % (count // math.gcd(count, models_of(config).number)) == 0


def provide_cpu_devices(config: Config) -> None:
    """Split the CPU into as many of JAX's devices as are to share every batch, if JAX has not started yet."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jax.config.values["jax_num_cpu_devices"] < 1:  # otherwise it is the user's choice, as by JAX_NUM_CPU_DEVICES
        count = config.devices or min(config.cpu_devices, cores)
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", min(count, _MOST_CPU_DEVICES))
