"""Several devices train together: they share every batch of a model, or each has its share of several models.

The devices form a mesh of two axes, "models" and "shards". A recipe of several models (`jaxgen.many`) is divided over
the first: each group of devices has its share of the models, which need nothing of each other. The devices of a group
share every batch.

Each device computes the step on its shard of the batch as if that were the whole. Means over the batch are then
averaged over the devices of the group; sums over the batch are first multiplied by the number of shards, so that their
average is the sum over the whole batch. A recipe averages its gradients and metrics, and `layers.BatchNorm` the
statistics of the batch, so the training equals that of one device up to rounding. Where a batch is not shared, these
functions do nothing.

On the CPU a device is a group of the process's threads (`jax_num_cpu_devices`). With small operations, two devices use
two cores better than one device that splits every operation in two.

The devices may belong to several processes (`jaxgen.processes`), each of which then makes the same calls. A process
holds the parts of an array that are on its own devices.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen import processes

PyTree = Any
MODELS, SHARDS = "models", "shards"
REPLICATED, SPREAD = PartitionSpec(), PartitionSpec(MODELS)


def mesh_of(devices: Sequence[jax.Device], models: int | None = None) -> Mesh | None:
    """The mesh for a recipe of so many models, or of a plain one; None for JAX's default device.

    The devices form as many groups as divide both their number and that of the models. Each group has its share of the
    models, and within a group the devices share every batch.
    """
    if not devices:
        return None
    groups = math.gcd(models or 1, len(devices))
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((groups, len(devices) // groups), (MODELS, SHARDS), axis_types=types, devices=devices)


def is_spread(mesh: Mesh | None) -> bool:
    """Whether the models are divided over the devices."""
    return mesh is not None and mesh.shape[MODELS] > 1


# ---- Within a step ----


def shards() -> int:
    """The number of shards that the batch has in the step that is being traced; 1 where it is not shared."""
    return _size(SHARDS)


def _size(axis: str) -> int:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[axis] if axis in mesh.manual_axes else 1


def local_shard(tree: PyTree) -> PyTree:
    """This device's part of arrays whose first axis is the batch; scalars are returned as they are."""
    return _local_part(tree, SHARDS)


def local_models(tree: PyTree) -> PyTree:
    """The part of this device's models in arrays whose first axis is the models."""
    return _local_part(tree, MODELS)


def _local_part(tree: PyTree, axis: str) -> PyTree:
    count = _size(axis)

    def part(array: jax.Array) -> jax.Array:
        if not array.ndim:
            return array
        size = array.shape[0] // count
        return lax.dynamic_slice_in_dim(array, lax.axis_index(axis) * size, size)

    return tree if count == 1 else jax.tree.map(part, tree)


def mean_over_shards(tree: PyTree) -> PyTree:
    """The mean over the devices that share a batch, of a tree of arrays that have one dtype.

    They are reduced as one vector, because on the CPU each all-reduce takes at least 50 µs. The vector is written part
    by part, because XLA would recompute the operands of a concatenation for every element. The largest part comes
    first, which made a step of the recurrent networks and of the digits 1 to 3 % faster.
    """
    count = shards()
    if count == 1:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    ends = np.cumsum([leaf.size for leaf in leaves])
    places = [slice(end - leaf.size, end) for leaf, end in zip(leaves, ends, strict=True)]
    vector = jnp.zeros(ends[-1], leaves[0].dtype)
    # Were the places constants, XLA would pad the first part to the whole vector, with masked reads beyond the part:
    # each takes a quarter of a microsecond where no memory has been used there yet.
    origin = lax.optimization_barrier(jnp.zeros((), jnp.int32))
    for leaf, place in sorted(zip(leaves, places, strict=True), key=lambda pair: -pair[0].size):
        vector = lax.dynamic_update_slice_in_dim(vector, leaf.reshape(-1), origin + place.start, 0)
    vector = lax.psum(vector, SHARDS) / count
    return jax.tree.unflatten(
        structure, [vector[place].reshape(leaf.shape) for leaf, place in zip(leaves, places, strict=True)]
    )


def least_over_models(number: jax.Array) -> jax.Array:
    """The smallest of the numbers that the groups of devices have."""
    return number if _size(MODELS) == 1 else lax.pmin(number, MODELS)


# ---- Around it ----


def on_all(
    mesh: Mesh | None,
    function: Callable[..., PyTree],
    in_specs: Any = REPLICATED,
    out_specs: Any = REPLICATED,
    *,
    share_batch: bool = True,
) -> Callable[..., PyTree]:
    """The function run by all devices at once.

    Args:
        mesh: the devices.
        function: computes a device's part.
        in_specs: which arguments every device has whole (`REPLICATED`), and of which it has its models (`SPREAD`).
        out_specs: the same for the results.
        share_batch: whether the devices of a group share the batch; otherwise each of them computes the whole of it.
    """
    axes = [axis for axis in (MODELS, SHARDS) if mesh is not None and mesh.shape[axis] > 1]
    if not share_batch and SHARDS in axes:
        axes.remove(SHARDS)
    if not axes:
        return function
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=set(axes), check_vma=False
    )


def place(mesh: Mesh | None, tree: PyTree, spec: PartitionSpec = REPLICATED) -> PyTree:
    """The arrays on the devices, whole on each or divided by models. A part that is already there is not copied.

    Of several processes, all give the same arrays.
    """
    if mesh is None:
        return jax.device_put(tree)
    sharding = NamedSharding(mesh, spec)
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding if mesh.size > 1 else mesh.devices.item())
    return jax.tree.map(lambda array: _place_own_parts(array, sharding), tree)


def _place_own_parts(array: jax.typing.ArrayLike, sharding: NamedSharding) -> jax.Array:
    """Place the parts of an array that belong on this process's devices."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return array
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _place_own_parts(jax.random.key_data(array), sharding)
        key: jax.Array = jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
        return key
    host = np.asarray(array)
    parts = [
        jax.device_put(host[index], device)
        for device, index in sharding.addressable_devices_indices_map(host.shape).items()
    ]
    return jax.make_array_from_single_device_arrays(host.shape, sharding, parts)


def place_constant(mesh: Mesh | None, arrays: PyTree) -> PyTree:
    """`place` for arrays that are only read: on the CPU, all devices read the same memory."""
    several_on_the_cpu = mesh is not None and mesh.size > 1 and mesh.devices.flat[0].platform == "cpu"
    return place(mesh, jax.tree.map(np.asarray, arrays) if several_on_the_cpu else arrays)


def first_replica(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """The copy of replicated arrays on this process's first device, which shares its memory."""
    if mesh is None or mesh.size == 1:
        return tree
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def gathered(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """All of the arrays on this process's first device. Of several processes, all call it together."""
    if not is_spread(mesh):
        return tree
    assert mesh is not None
    if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        return jax.device_put(tree, mesh.local_devices[0])
    return first_replica(mesh, jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, REPLICATED))(tree))


def check_replicas(mesh: Mesh | None, tree: PyTree) -> None:
    """Check that the devices' copies of a result are equal, also in different processes.

    Raises:
        RuntimeError: they are not, because a recipe does not average its gradients and metrics.
    """
    if mesh is None or mesh.shape[SHARDS] == 1:
        return
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        first: dict[str, np.ndarray] = {}
        for shard in array.addressable_shards:
            part = np.asarray(shard.data)
            if not np.array_equal(first.setdefault(str(shard.index), part), part, equal_nan=True):
                raise RuntimeError(_differs(jax.tree_util.keystr(path)))
    if processes.are_several() and not is_spread(mesh) and not processes.agree(_digest(first_replica(mesh, tree))):
        raise RuntimeError(_differs("the state"))


def _digest(tree: PyTree) -> bytes:
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.ascontiguousarray(leaf).data)
    return total.digest()


def _differs(what: str) -> str:
    return (
        f"{what} differs between devices: the recipe's update must pass gradients and metrics through "
        "jaxgen.parallel.mean_over_shards"
    )
