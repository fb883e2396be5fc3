"""The training loop: pure, compiled once, and ignorant of models, disks and pictures.

A `Recipe` says how one step learns, a `Source` what a batch is; `advance` runs any number of steps of an epoch in one
compiled loop, and `slices` asks it for about half a second's worth at a time. Every random number is a function of
(key, epoch, step), so a run that is cut anywhere goes on to the same bits.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import parallel
from jaxgen.errors import InputError

PyTree = Any
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight); the mean over an epoch is Σ sum / Σ weight


class Recipe(NamedTuple):
    """How a model learns, as pure functions.

    Where devices share a batch, `update` is given one device's shard of it and of the noise. It multiplies what is a
    sum over the batch by `parallel.shards()`, and takes the mean of gradients and metrics over them all
    (`parallel.mean_over_shards`).
    """

    init: Callable[..., PyTree]  # (key, weights=None) -> state: parameters, running statistics, optimiser states
    noise: Callable[[jax.Array, int], PyTree]  # (key, batch_size) -> every random number of one step; [batch, ...] each
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, Metrics]]  # (state, batch, noise), deterministic
    variables: Callable[[PyTree], PyTree]  # (state) -> what is sampled from, saved and exported
    smallest_batch: int | None = 1  # an epoch's last, smaller batch is trained on from this size; None: never


class Source(NamedTuple):
    """Arrays that stay on the device, and the rule that makes a batch of some rows."""

    arrays: PyTree
    size: int  # examples in an epoch
    batch: Callable[[PyTree, jax.Array], PyTree]  # (arrays, rows [B]) -> batch


class Carry(NamedTuple):
    """What the loop carries; with the epoch and the step it is the whole of a checkpoint."""

    state: PyTree
    sums: Metrics  # over the epoch so far
    bad_step: jax.Array  # int32: the first step of the epoch at which a value was not finite; −1 for none


class Epoch(NamedTuple):
    """One pass over the data."""

    rows: jax.Array  # int32: the examples in the order in which they are seen
    noise_key: jax.Array
    origin: jax.Array | int | None  # the step at which `rows` begin; None: the first


class Slice(NamedTuple):
    """Where training stands after some steps. `carry` is good until the next slice is asked for."""

    epoch: int  # finished epochs
    step: int  # steps done in the epoch under way
    carry: Carry
    metrics: dict[str, float] | None  # the epoch's means, where a slice ends an epoch


def scaled(images: jax.Array, low: float = 0.0, high: float = 1.0, *, white: int = 255) -> Source:
    """A source of images `[N, H, W, C]` kept as integers 0..`white` and scaled to [low, high] float32 in the loop."""

    def batch(images: jax.Array, rows: jax.Array) -> jax.Array:
        return images[rows].astype(jnp.float32) / white * (high - low) + low

    return Source(images, images.shape[0], batch)


def as_source(data: Source | jax.Array | np.ndarray) -> Source:
    """A plain float array `[N, ...]` is a source of its rows as they are."""
    if isinstance(data, Source):
        return data
    array = jnp.asarray(data)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"data of type {array.dtype}: scale it first, as with jaxgen.scaled(images, -1, 1)")
    return Source(array, array.shape[0], rows_of)


def rows_of(array: jax.Array, rows: jax.Array) -> jax.Array:
    return array[rows]


def begin(recipe: Recipe, source: Source, state: PyTree, batch_size: int, devices: Sequence[jax.Device] = ()) -> Carry:
    """The carry before an epoch's first step. `state` is copied: `advance` takes over its carry.

    It needs no devices, but given those of `advance` it traces the step as that will, which then need not.
    """
    rows = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    step = shared(step_of(recipe, source.batch, batch_size), batch_size, devices)
    _, metrics = jax.eval_shape(step, state, source.arrays, rows, jax.random.key(0))

    @jax.jit  # one program, where each array by itself would be compiled by itself
    def carry(state: PyTree) -> Carry:
        return Carry(jax.tree.map(jnp.copy, state), zeros(metrics), jnp.full((), -1, jnp.int32))

    return carry(state)


def descend(
    optimizer: optax.GradientTransformation, gradient: PyTree, state: optax.OptState, params: PyTree
) -> tuple[PyTree, optax.OptState]:
    """One step of the optimiser: the new parameters and its new state."""
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def zeros(metrics: PyTree) -> Metrics:
    return jax.tree.map(jnp.zeros_like, metrics)


def all_finite(tree: PyTree) -> jax.Array:
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not floating:
        return jnp.array(True)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floating]))


def advance(
    recipe: Recipe, source: Source, batch_size: int, devices: tuple[jax.Device, ...] = ()
) -> jax.stages.Wrapped:
    """`(carry, source.arrays, epoch, first, stop) -> carry`: the steps first ≤ step < stop of an epoch.

    One compiled loop whose bounds are data, so it is traced once however the epoch is cut, and every cut gives the same
    bits. It consumes its carry. Under `vmap` leave `first` and `stop` unmapped, or the loop's predicate is batched.
    A value that is not finite is recorded, not acted on: metrics at every step, the state at the end of the call.
    The same recipe on the same source gives the same function, which has been compiled already.

    Several devices share every batch, if it can be split evenly; else each does the whole of it. The arguments must
    have a copy on each of them (`parallel.copied_to`).
    """
    return loop_of(recipe, source.batch, batch_size, devices)


@lru_cache(maxsize=16)
def loop_of(
    recipe: Recipe,
    batch: Callable[[PyTree, jax.Array], PyTree],
    batch_size: int,
    devices: tuple[jax.Device, ...],
) -> jax.stages.Wrapped:
    one = step_of(recipe, batch, batch_size)

    def loop(carry: Carry, arrays: PyTree, epoch: Epoch, first: jax.Array | int, stop: jax.Array | int) -> Carry:
        origin = 0 if epoch.origin is None else epoch.origin

        def step(number: jax.Array, carry: Carry) -> Carry:
            rows = jax.lax.dynamic_slice_in_dim(epoch.rows, (number - origin) * batch_size, batch_size)
            state, metrics = one(carry.state, arrays, rows, jax.random.fold_in(epoch.noise_key, number))
            sums = jax.tree.map(lambda total, value: total + value, carry.sums, metrics)
            return Carry(state, sums, first_bad(carry.bad_step, metrics, number))

        carry = jax.lax.fori_loop(first, stop, step, carry)
        return carry._replace(bad_step=first_bad(carry.bad_step, carry.state, jnp.asarray(stop) - 1))

    return jax.jit(shared(loop, batch_size, devices), donate_argnums=0)


def shared(function: Callable[..., PyTree], batch_size: int, devices: Sequence[jax.Device]) -> Callable[..., PyTree]:
    """The function of a batch as the devices run it together, or each by itself if they cannot share it evenly."""
    return parallel.on_all(devices, function) if batch_size % max(1, len(devices)) == 0 else function


@lru_cache(maxsize=16)
def step_of(
    recipe: Recipe, batch: Callable[[PyTree, jax.Array], PyTree], batch_size: int
) -> Callable[[PyTree, PyTree, jax.Array, jax.Array], tuple[PyTree, Metrics]]:
    """`(state, arrays, rows, key) -> (state, metrics)`, traced once for `begin` and the loop together."""

    @jax.jit
    def step(state: PyTree, arrays: PyTree, rows: jax.Array, key: jax.Array) -> tuple[PyTree, Metrics]:
        rows, noise = parallel.own_shard((rows, recipe.noise(key, batch_size)))
        return recipe.update(state, batch(arrays, rows), noise)

    return step


def first_bad(bad_step: jax.Array, values: PyTree, step: jax.Array) -> jax.Array:
    return jnp.where((bad_step < 0) & ~all_finite(values), step.astype(jnp.int32), bad_step)


def slices(
    recipe: Recipe,
    source: Source,
    carry: Carry,
    *,
    epochs: int,
    batch_size: int,
    key: jax.Array,
    epoch: int = 0,
    step: int = 0,
    seconds: float = 0.5,
    longest: int | None = None,
    devices: Sequence[jax.Device] = (),
) -> Iterator[Slice]:
    """Train from (`epoch`, `step`) until `epochs` are finished, handing back control about every `seconds`.

    Args:
        carry: from `begin` or from the last slice; taken over.
        epochs: epochs finished in all when the training ends.
        key: what the order of every epoch and the noise of every step follow from.
        epoch, step: finished epochs, and steps done in the one under way.
        longest: steps that a slice has at most.
        devices: what trains, in place of JAX's default; several share every batch. What a slice hands out is on the
            first of them.
    """
    keys = jax.random.split(key)
    whole, rest = divmod(source.size, batch_size)
    steps = steps_per_epoch(recipe, source, batch_size)
    run_whole, run_rest = (advance(recipe, source, size, tuple(devices)) for size in (batch_size, rest))
    arrays, carry = parallel.shown_to(devices, source.arrays), parallel.copied_to(devices, carry)
    pace = 1  # steps in a slice; the first one compiles

    while epoch < epochs:
        this_epoch = parallel.copied_to(devices, epoch_of(source, keys, epoch))
        while step < steps:
            began, first = time.perf_counter(), step
            if step < whole:
                step = min(whole, step + pace)
                carry = jax.block_until_ready(run_whole(carry, arrays, this_epoch, first, step))
                growth = seconds / (time.perf_counter() - began)
                pace = min(max(1, int((step - first) * min(growth, 32))), longest or whole)
            else:
                step = steps
                left = jax.lax.slice_in_dim(this_epoch.rows, whole * batch_size, source.size)
                this_epoch = this_epoch._replace(rows=left, origin=whole)
                carry = jax.block_until_ready(run_rest(carry, arrays, this_epoch, first, step))
            if step < steps:
                yield Slice(epoch, step, parallel.on_first(devices, carry), None)
        parallel.check_alike(devices, carry)
        sums = jax.device_get(carry.sums)
        metrics = {name: float(total) / float(weight) for name, (total, weight) in sums.items()}
        carry = carry._replace(sums=parallel.copied_to(devices, jax.jit(zeros)(carry.sums)))
        epoch, step = epoch + 1, 0
        yield Slice(epoch, 0, parallel.on_first(devices, carry), metrics)


def epoch_of(source: Source, keys: jax.Array, number: int) -> Epoch:
    """The order of an epoch, and what its noise follows from; `keys` is what the key of the training splits into."""
    order_key, noise_key = keys
    rows = jax.random.permutation(jax.random.fold_in(order_key, number), source.size)
    return Epoch(rows, jax.random.fold_in(noise_key, number), 0)


def steps_per_epoch(recipe: Recipe, source: Source, batch_size: int) -> int:
    """Batches in an epoch, the last, smaller one included where the recipe trains on it."""
    whole, rest = divmod(source.size, batch_size)
    return whole + (recipe.smallest_batch is not None and rest >= max(1, recipe.smallest_batch))


def fit(
    recipe: Recipe,
    state: PyTree,
    data: Source | jax.Array | np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    key: jax.Array,
    devices: Sequence[jax.Device] = (),
) -> tuple[PyTree, dict[str, list[float]]]:
    """Train `state` for `epochs` passes over `data`.

    Args:
        recipe: for instance `jaxgen.models.dcgan.digits_recipe()`.
        state: from `recipe.init`; it is copied and stays the caller's.
        data: a `Source`, or a float array `[N, ...]` already in the recipe's range.
        key: order and noise follow from it; the same key gives the same training.
        devices: what trains, in place of JAX's default, as `jax.devices()`. Several share every batch; to rounding, the
            training is that of one.

    Returns:
        The trained state, and the mean of every metric in every epoch: `history["loss"][0]` is the first epoch's.

    Raises:
        InputError: fewer examples than a batch, data that is not floating point, or a batch that the devices cannot
            share evenly.
        FloatingPointError: a metric or a parameter was not finite; the message names the epoch and the step.
    """
    source = as_source(data)
    check_batch_size(batch_size, source.size)
    if batch_size % max(1, len(devices)):
        raise InputError(f"batch size {batch_size}: {len(devices)} devices cannot share it evenly")
    history: dict[str, list[float]] = {}
    carry = begin(recipe, source, state, batch_size, devices)
    for piece in slices(recipe, source, carry, epochs=epochs, batch_size=batch_size, key=key, devices=devices):
        carry = piece.carry
        check_finite(piece)
        for name, value in (piece.metrics or {}).items():
            history.setdefault(name, []).append(value)
    return carry.state, history


def check_batch_size(batch_size: int, size: int) -> None:
    if not 1 <= batch_size <= size:
        raise InputError(f"batch size {batch_size}: must be from 1 to the {size} examples there are")


def check_finite(piece: Slice) -> None:
    """Raise FloatingPointError where a value went bad in the epoch of this slice."""
    bad_step = int(piece.carry.bad_step)
    if bad_step >= 0:
        epoch = piece.epoch + (piece.metrics is None)  # the epoch under way, counted from 1
        raise FloatingPointError(f"a value is not finite since epoch {epoch}, step {bad_step + 1}")
