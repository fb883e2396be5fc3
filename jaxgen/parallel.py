"""Data parallelism: several devices share every batch and learn as one.

Each device does the step on its shard of the batch as if the whole were like it: it takes means as they are and sums
times the number of shards. What is true of the whole batch is then the mean over the devices, and it is taken of
gradients (`training.descend`), of batch norm's statistics (`layers.BatchNorm`) and of metrics (`training.advance`), so
that the training is that of one device but for rounding. Where no batch is shared, these functions do nothing.

On the CPU a device is a share of the process's threads (`jax_num_cpu_devices`). Two of them keep two cores busier than
one that cuts every operation in two, where operations are as small as those of a few rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

PyTree = Any
AXIS = "shards"
EVERYWHERE = PartitionSpec()


def shards() -> int:
    """Into how many the batch is split in the step that is being traced."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[AXIS] if AXIS in mesh.manual_axes else 1


def own_shard(tree: PyTree) -> PyTree:
    """Of arrays with the batch as their first axis, the part that is this device's; scalars as they are."""
    count = shards()

    def part(array: jax.Array) -> jax.Array:
        if not array.ndim:
            return array
        size = array.shape[0] // count
        return lax.dynamic_slice_in_dim(array, lax.axis_index(AXIS) * size, size)

    return tree if count == 1 else jax.tree.map(part, tree)


def mean_over_shards(tree: PyTree) -> PyTree:
    """The mean over the devices of arrays of one dtype.

    They travel as one vector, for on the CPU each array by itself would take 50 µs to meet. It is written part by part:
    XLA would compute the operands of a concatenation anew for each of its numbers.
    """
    count = shards()
    if count == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])
    vector = jnp.zeros(ends[-1], leaves[0].dtype)
    for leaf, end in zip(leaves, ends, strict=True):
        vector = lax.dynamic_update_slice_in_dim(vector, leaf.reshape(-1), end - leaf.size, 0)
    vector = lax.psum(vector, AXIS) / count
    parts = [vector[end - leaf.size : end].reshape(leaf.shape) for leaf, end in zip(leaves, ends, strict=True)]
    return jax.tree.unflatten(structure, parts)


def on_all(devices: Sequence[jax.Device], function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The function run by all devices at once, on the same arguments and to the same results."""
    if len(devices) < 2:
        return function
    return jax.shard_map(function, mesh=mesh(devices), in_specs=EVERYWHERE, out_specs=EVERYWHERE, check_vma=False)


def copied_to(devices: Sequence[jax.Device], tree: PyTree) -> PyTree:
    """The arrays with a copy on each device. The copy where they are now is their own memory."""
    return jax.device_put(tree, NamedSharding(mesh(devices), EVERYWHERE)) if len(devices) > 1 else tree


def shown_to(devices: Sequence[jax.Device], arrays: PyTree) -> PyTree:
    """Arrays that nobody changes, for each device to read; all devices of the CPU read the same memory."""
    several_of_the_cpu = len(devices) > 1 and devices[0].platform == "cpu"
    return copied_to(devices, jax.tree.map(np.asarray, arrays) if several_of_the_cpu else arrays)


def on_first(devices: Sequence[jax.Device], tree: PyTree) -> PyTree:
    """The first device's copy, which stays its own memory."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree) if len(devices) > 1 else tree


def mesh(devices: Sequence[jax.Device]) -> Mesh:
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
