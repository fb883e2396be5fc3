"""What a run is: `config.json`, `environment.json`, and the first lines on the screen."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxgen.durable import write_json
from jaxgen.ondisk import DiskArray
from jaxgen.runs.config import Config
from jaxgen.runs.devices import lacks_bfloat16
from jaxgen.runs.environment import environment
from jaxgen.runs.layout import VERSION, Layout
from jaxgen.signals import say
from jaxgen.staging import Place

PyTree = Any
_PLACES: dict[Place, str] = {
    "device": "on the device",
    "host": "streamed from memory",
    "disk": "streamed from disk",
}


def record(config: Config, data_sha256: str, about_data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "layout": VERSION,
        "experiment": config.experiment,
        "options": config.stored(),
        "data_sha256": data_sha256,
        "data": dict(about_data or {}),
    }


def title(content: Mapping[str, Any], what: str, epoch: int | None) -> str:
    """A picture's title, such as `vae_mnist · mnist · epoch 5: latent plane`.

    Args:
        content: that of `config.json`.
        what: what the picture shows.
        epoch: the finished epochs of what it shows; None where that belongs to no epoch.
    """
    parts = [content["experiment"].rpartition(".")[2], content["data"].get("name", "")]
    if epoch is not None:
        parts.append(f"epoch {epoch}" if epoch else "untrained")
    return ": ".join(filter(None, [" · ".join(filter(None, parts)), what]))


def write_record(layout: Layout, content: Mapping[str, Any], config: Config, devices: Sequence[jax.Device]) -> None:
    """Write `config.json` and `environment.json`."""
    write_json(layout.config, content)
    write_json(layout.environment, environment(config, devices))


def announce(
    layout: Layout, content: Mapping[str, Any], devices: Sequence[jax.Device], models: int, place: Place
) -> None:
    """Say what a run of so many models learns from, where that is, where it computes, and where it writes."""
    if data := content["data"]:
        size = "×".join(map(str, (*data["size"], data["channels"])))
        classes = len(data.get("classes", ()))
        held_out = f"{data['held_out']:,}" if data.get("held_out") else "none"
        kinds = f", {classes} classes" if classes > 1 else ""
        images = f"{data['name']}: {data['images']:,} images of {size}{kinds}"
        say(f"data      {images}; {held_out} held out; {_PLACES[place]}")
    process_count = len({device.process_index for device in devices})
    shared = f", {_division(len(devices), process_count, models)}" if len(devices) > 1 else ""
    say(f"device    {devices[0].platform}:{devices[0].id} ({devices[0].device_kind}){shared}")
    if content.get("options", {}).get("precision") == "bf16" and lacks_bfloat16(devices[0]):
        say("precision bf16: this processor cannot multiply bfloat16 (no AMX, no AVX-512 BF16); float32 may be faster")
    say(f"folder    {layout.folder}")


def _division(devices: int, processes: int, models: int) -> str:
    """How the devices of some processes divide the work."""
    groups = math.gcd(devices, models)
    those = f"{devices} devices" + (f" of {processes} processes" if processes > 1 else "")
    if groups == 1:
        return f"{those} sharing each batch"
    its = f"{models // groups} of the {models} models"
    if groups == devices:
        return f"{those}, each with {its}"
    return f"{those} in {groups} groups, each with {its} and sharing each batch"


def digest(arrays: PyTree) -> str:
    """The SHA-256 of arrays' types, shapes and SHA-256 sums, the same in memory and on disk."""
    leaves = jax.tree.leaves(arrays)
    return hashlib.sha256("".join(f"{leaf.dtype}{leaf.shape}{_sum(leaf)}" for leaf in leaves).encode()).hexdigest()


def _sum(array: jax.Array | np.ndarray | DiskArray) -> str:
    if isinstance(array, DiskArray):
        return array.sha256()
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
