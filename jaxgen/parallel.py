"""Data parallelism: several devices share every batch and learn as one.

Each device does the step on its shard of the batch as if the whole were like it: it takes means as they are and sums
times the number of shards. What is true of the whole batch is then the mean over the devices. A recipe takes it of
gradients and metrics, `layers.BatchNorm` of the batch's statistics, and so the training is that of one device but for
rounding. Where no batch is shared, these functions do nothing.

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

    They travel as one vector, for on the CPU each array by itself would take 50 µs to meet. It is written part by part,
    the largest first: XLA would compute the operands of a concatenation, and what is written first, anew for each of
    the vector's numbers, unless that is a product.
    """
    count = shards()
    if count == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])
    places = [slice(end - leaf.size, end) for leaf, end in zip(leaves, ends, strict=True)]
    vector = jnp.zeros(ends[-1], leaves[0].dtype)
    for leaf, place in sorted(zip(leaves, places, strict=True), key=lambda pair: -pair[0].size):
        vector = lax.dynamic_update_slice_in_dim(vector, leaf.reshape(-1), place.start, 0)
    vector = lax.psum(vector, AXIS) / count
    return jax.tree.unflatten(
        structure, [vector[place].reshape(leaf.shape) for leaf, place in zip(leaves, places, strict=True)]
    )


def on_all(devices: Sequence[jax.Device], function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The function run by all devices at once, on the same arguments and to the same results."""
    if len(devices) < 2:
        return function
    return jax.shard_map(function, mesh=mesh(devices), in_specs=EVERYWHERE, out_specs=EVERYWHERE, check_vma=False)


def copied_to(devices: Sequence[jax.Device], tree: PyTree) -> PyTree:
    """The arrays with a copy on each device. The copy where they are now is their own memory."""
    if not devices:
        return tree
    return jax.device_put(tree, devices[0] if len(devices) == 1 else NamedSharding(mesh(devices), EVERYWHERE))


def shown_to(devices: Sequence[jax.Device], arrays: PyTree) -> PyTree:
    """Arrays that nobody changes, for each device to read; all devices of the CPU read the same memory."""
    several_of_the_cpu = len(devices) > 1 and devices[0].platform == "cpu"
    return copied_to(devices, jax.tree.map(np.asarray, arrays) if several_of_the_cpu else arrays)


def on_first(devices: Sequence[jax.Device], tree: PyTree) -> PyTree:
    """The first device's copy, which stays its own memory."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree) if len(devices) > 1 else tree


def check_alike(devices: Sequence[jax.Device], tree: PyTree) -> None:
    """Raise RuntimeError where the devices' copies of what they have computed are not the same."""
    if len(devices) < 2:
        return
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        first, *others = (np.asarray(shard.data) for shard in array.addressable_shards)
        if not all(np.array_equal(first, other, equal_nan=True) for other in others):
            raise RuntimeError(
                f"{jax.tree_util.keystr(path)} is another on each device: the recipe's update must take gradients and "
                "metrics through jaxgen.parallel.mean_over_shards"
            )


def mesh(devices: Sequence[jax.Device]) -> Mesh:
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
