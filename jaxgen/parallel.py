"""Data parallelism: several devices share every batch and train one model.

Each device computes the step on its shard of the batch as if that were the whole. Means over the batch are then averaged
over the devices; sums over the batch are first multiplied by the number of shards, so that their average is the sum over
the whole batch. A recipe averages its gradients and metrics, and `layers.BatchNorm` the statistics of the batch, so the
training equals that of one device up to rounding. Where a batch is not shared, these functions do nothing.

On the CPU a device is a group of the process's threads (`jax_num_cpu_devices`). With small operations, two devices use
two cores better than one device that splits every operation in two.
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
_REPLICATED = PartitionSpec()


def shards() -> int:
    """The number of shards that the batch has in the step that is being traced; 1 where it is not shared."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[AXIS] if AXIS in mesh.manual_axes else 1


def local_shard(tree: PyTree) -> PyTree:
    """This device's part of arrays whose first axis is the batch; scalars are returned as they are."""
    count = shards()

    def part(array: jax.Array) -> jax.Array:
        if not array.ndim:
            return array
        size = array.shape[0] // count
        return lax.dynamic_slice_in_dim(array, lax.axis_index(AXIS) * size, size)

    return tree if count == 1 else jax.tree.map(part, tree)


def mean_over_shards(tree: PyTree) -> PyTree:
    """The mean over the devices of a tree of arrays that have one dtype.

    They are reduced as one vector, because on the CPU each all-reduce takes at least 50 µs. The vector is written part
    by part, the largest first: XLA would recompute the operands of a concatenation, and the first part written, for
    every element of the vector unless it is the result of a matrix product.
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
    """The function run by all devices at once, on replicated arguments and with replicated results."""
    if len(devices) < 2:
        return function
    return jax.shard_map(function, mesh=_mesh(devices), in_specs=_REPLICATED, out_specs=_REPLICATED, check_vma=False)


def replicate(devices: Sequence[jax.Device], tree: PyTree) -> PyTree:
    """The arrays with a copy on each device. A copy that is already there is not made again.

    Without devices the arrays are placed on JAX's default device.
    """
    if len(devices) > 1:
        return jax.device_put(tree, NamedSharding(_mesh(devices), _REPLICATED))
    return jax.device_put(tree, devices[0] if devices else None)


def replicate_constant(devices: Sequence[jax.Device], arrays: PyTree) -> PyTree:
    """`replicate` for arrays that are only read: on the CPU, all devices read the same memory."""
    several_on_the_cpu = len(devices) > 1 and devices[0].platform == "cpu"
    return replicate(devices, jax.tree.map(np.asarray, arrays) if several_on_the_cpu else arrays)


def first_replica(devices: Sequence[jax.Device], tree: PyTree) -> PyTree:
    """The copy on the first device, which shares its memory."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree) if len(devices) > 1 else tree


def check_replicas(devices: Sequence[jax.Device], tree: PyTree) -> None:
    """Check that the devices' copies of a result are equal.

    Raises:
        RuntimeError: they are not, because a recipe does not average its gradients and metrics.
    """
    if len(devices) < 2:
        return
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        first, *others = (np.asarray(shard.data) for shard in array.addressable_shards)
        if not all(np.array_equal(first, other, equal_nan=True) for other in others):
            raise RuntimeError(
                f"{jax.tree_util.keystr(path)} differs between devices: the recipe's update must pass gradients and "
                "metrics through jaxgen.parallel.mean_over_shards"
            )


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
