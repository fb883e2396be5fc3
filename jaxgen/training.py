"""The training loop: pure, compiled once, and independent of models, disks and pictures.

A `Recipe` says how one step learns and a `Source` what a batch is. `advance` runs any number of steps of an epoch in
one compiled loop, and a `Loop` asks it for about a second and a half of steps at a time. Every random number is a
function of (key, epoch, step), so a training that is interrupted anywhere continues with the same bits.
"""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import checkify
from jax.sharding import Mesh

from jaxgen import ondisk, parallel, processes, staging
from jaxgen.compilation import compiled, disk_cache
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray
from jaxgen.ops.conv.loops import has_convolution_in_loop
from jaxgen.signals import available, say, stop_on_signals

PyTree = Any
Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, weight); the mean over an epoch is Σ sum / Σ weight
StateT = TypeVar("StateT")

# About how long a slice takes. On a CPU, its program gets working memory from the system, which clears every page: of
# slices of half a second, that took a tenth of the time in dcgan_mnist, whose program works in 140 MB.
_SLICE_SECONDS = 1.5


class Recipe(NamedTuple, Generic[StateT]):
    """How a model learns, as pure functions.

    Where devices share a batch, `update` gets one device's shard of the batch and of the noise. It multiplies sums over
    the batch by `parallel.shards()`, and averages gradients and metrics by `parallel.mean_over_shards`.

    Attributes:
        init: `(key, weights=None) -> state`. The state is everything that training changes: parameters, running
            statistics, optimiser states. `weights` are variables to start from.
        noise: `(key, batch_size) -> noise`: every random number of one step, as a tree of arrays `[batch, ...]`.
        update: `(state, batch, noise) -> (state, metrics)`, one deterministic step. Metrics are
            `{name: (sum, weight)}`; the mean over an epoch is Σ sum / Σ weight.
        variables: `(state) -> variables`: what is sampled from, saved and exported.
        smallest_batch: an epoch's last, smaller batch is trained on if it has at least this size; None drops it.
        models: of a recipe that trains several models, their number, which is then the first axis of every array of the
            state and of the metrics, and the second of the noise; devices may have some of the models each. None: the
            state is one whole.
    """

    init: Callable[..., StateT]
    noise: Callable[[jax.Array, int], PyTree]
    update: Callable[[StateT, PyTree, PyTree], tuple[StateT, Metrics]]
    variables: Callable[[StateT], PyTree]
    smallest_batch: int | None = 1
    models: int | None = None


class Source(NamedTuple):
    """Training data: arrays, and a function that makes a batch of them.

    The arrays are placed on the devices once. Where they are too large for that, the examples of some hundred steps are
    brought there at a time, if `piece` says how.

    Attributes:
        arrays: a tree of NumPy or JAX arrays or arrays on disk, such as images `[N, H, W, C]` as bytes.
        size: the number of examples in an epoch.
        batch: `(arrays, indices [B]) -> batch`, in which indices are from 0 to `size - 1`.
        piece: `(arrays, indices [M]) -> (smaller arrays [M, ...], indices [M] in them)`, in NumPy, of which `batch`
            makes the same. None: the arrays must be on the devices as a whole.
    """

    arrays: PyTree
    size: int
    batch: Callable[[PyTree, jax.Array], PyTree]
    piece: Callable[[PyTree, np.ndarray], tuple[PyTree, np.ndarray]] | None = None


class Carry(NamedTuple):
    """What the loop carries from step to step; with the epoch and the step, it is a checkpoint."""

    state: PyTree
    sums: Metrics  # over the epoch so far
    bad_step: jax.Array  # int32: the first step of the epoch after which a value was not finite; −1 for none


class Epoch(NamedTuple):
    """One pass over the data."""

    rows: jax.Array  # int32: the examples in the order in which they are seen
    noise_key: jax.Array
    origin: jax.Array | int | None  # the step at which `rows` begin; None: the first


class Slice(NamedTuple):
    """Where the training stands after some steps. `carry` is valid until the next slice is asked for."""

    epoch: int  # finished epochs
    step: int  # finished steps of the current epoch
    carry: Carry
    metrics: dict[str, float] | None  # the epoch's means, where a slice ends an epoch
    seconds: float  # of computing and of waiting for data, without compilation


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """The batch function of `scaled`; equal settings make equal functions."""

    low: float
    high: float
    white: int
    labels: bool

    def __call__(self, arrays: PyTree, rows: jax.Array) -> PyTree:
        images = arrays[0] if self.labels else arrays
        values = images[rows].astype(jnp.float32) / self.white * (self.high - self.low) + self.low
        return (values, arrays[1][rows]) if self.labels else values


def scaled(
    images: jax.Array | np.ndarray | DiskArray,
    low: float = 0.0,
    high: float = 1.0,
    *,
    white: int = 255,
    labels: jax.Array | np.ndarray | None = None,
) -> Source:
    """A source of images that are stored as integers and scaled in the compiled loop.

    Args:
        images: integers `[N, H, W, C]` from 0 to `white`. An `np.memmap` is read from its file.
        low: the value of black in a batch.
        high: the value of white in a batch.
        white: the integer that stands for full intensity.
        labels: one label an image `[N]`; then a batch is `(images, labels)`.

    Returns:
        A source whose batches are float32 images `[B, H, W, C]` in [low, high], with their labels if there are any.

    Raises:
        InputError: the images are no integers, or there are not as many labels as images.
    """
    if not jnp.issubdtype(images.dtype, jnp.integer):
        raise InputError(
            f"images of type {images.dtype}: scaled is for integers; floating-point images are data as they are"
        )
    images = ondisk.from_memmap(images)
    arrays = images if labels is None else (images, labels)
    return Source(arrays, _common_length(arrays), _Scaled(low, high, white, labels is not None), staging.gather)


def as_source(data: Source | PyTree) -> Source:
    """A source of the rows of arrays as they are.

    Args:
        data: a `Source`, which is returned; an array `[N, ...]`; or a tree of such arrays with one length N, such as
            `(images, labels)`. An `np.memmap` is read from its file.

    Raises:
        InputError: the arrays' lengths differ, or images are integers, which are not yet scaled.
    """
    if isinstance(data, Source):
        return data
    arrays = jax.tree.map(_as_array, data)
    for leaf in jax.tree.leaves(arrays):
        if _looks_like_unscaled_images(leaf):
            raise InputError(
                f"data of type {leaf.dtype}{list(leaf.shape)}: scale it first, as with jaxgen.scaled(images, -1, 1)"
            )
    return Source(arrays, _common_length(arrays), _take, staging.gather)


def _as_array(leaf: Any) -> jax.Array | np.ndarray | DiskArray:
    leaf = ondisk.from_memmap(leaf)
    return leaf if isinstance(leaf, jax.Array | DiskArray) else np.asarray(leaf)


def _looks_like_unscaled_images(leaf: jax.Array | np.ndarray | DiskArray) -> bool:
    """Integers with three axes or more, or bytes with two; labels have one axis, tokens two."""
    is_integer = jnp.issubdtype(leaf.dtype, jnp.integer)
    return is_integer and leaf.ndim > (1 if leaf.dtype.itemsize == 1 else 2)


def _take(arrays: PyTree, rows: jax.Array) -> PyTree:
    return jax.tree.map(lambda array: array[rows], arrays)


def _common_length(arrays: PyTree) -> int:
    if not all(leaf.ndim for leaf in jax.tree.leaves(arrays)):
        raise InputError("data of single numbers: give an array [N, ...], or a tree of arrays that have one length N")
    lengths = [leaf.shape[0] for leaf in jax.tree.leaves(arrays)]
    if len(set(lengths)) != 1:
        raise InputError(f"data of {' and '.join(map(str, lengths)) or 'no'} examples: the arrays need one length")
    return int(lengths[0])


def descend(
    optimizer: optax.GradientTransformation, gradient: PyTree, state: optax.OptState, params: PyTree
) -> tuple[PyTree, optax.OptState]:
    """One step of the optimiser.

    Returns:
        The new parameters and the optimiser's new state.
    """
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state


def all_finite(tree: PyTree) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite, as a boolean scalar."""
    floating = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    if not floating:
        return jnp.array(True)
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floating]))


def begin(
    recipe: Recipe[Any], source: Source, state: PyTree, batch_size: int, devices: Sequence[jax.Device] = ()
) -> Carry:
    """The carry before an epoch's first step. `state` is copied, because `advance` donates its carry."""
    return _Steps(recipe, source.batch, batch_size, parallel.mesh_of(devices, recipe.models)).begin(
        source.arrays, state
    )


def advance(
    recipe: Recipe[Any], source: Source, batch_size: int, devices: Sequence[jax.Device] = ()
) -> jax.stages.Wrapped:
    """`(carry, source.arrays, epoch, first, stop) -> carry`: the steps first ≤ step < stop of an epoch.

    One compiled loop whose bounds are arguments, so it is traced once however the epoch is divided, and every division
    gives the same bits. It donates its carry. Under `vmap`, leave `first` and `stop` unmapped, or the loop's predicate
    is batched. A value that is not finite is recorded, not acted on: metrics after every step, the state at the end of
    the call.

    Several devices share every batch if it can be divided evenly; otherwise each computes the whole of it. The
    arguments must be on each of them (`parallel.place`).
    """
    return _Steps(recipe, source.batch, batch_size, parallel.mesh_of(devices, recipe.models)).advance


class _Steps:
    """The functions that train on batches of one size."""

    def __init__(
        self,
        recipe: Recipe[Any],
        batch: Callable[[PyTree, jax.Array], PyTree],
        batch_size: int,
        mesh: Mesh | None,
    ) -> None:
        self.recipe, self.batch, self.batch_size = recipe, batch, batch_size
        of_models = parallel.SPREAD if parallel.is_spread(mesh) else parallel.REPLICATED
        self.specs: Any = Carry(state=of_models, sums=of_models, bad_step=parallel.REPLICATED)  # type: ignore[arg-type]
        share_batch = mesh is not None and batch_size % mesh.shape[parallel.SHARDS] == 0
        self.on_all = partial(parallel.on_all, mesh, share_batch=share_batch)
        self.step = jax.jit(self._step)  # a function of its own, so that `begin` and `advance` trace it once together
        whole = parallel.REPLICATED
        advance = self.on_all(self._advance, (self.specs, whole, whole, whole, whole), self.specs)
        self.advance = jax.jit(advance, donate_argnums=0)

    def _step(self, state: PyTree, arrays: PyTree, rows: jax.Array, key: jax.Array) -> tuple[PyTree, Metrics]:
        rows, noise = parallel.local_shard((rows, self.recipe.noise(key, self.batch_size)))
        return self.recipe.update(state, self.batch(arrays, rows), noise)

    def _advance(
        self, carry: Carry, arrays: PyTree, epoch: Epoch, first: jax.Array | int, stop: jax.Array | int
    ) -> Carry:
        origin = 0 if epoch.origin is None else epoch.origin

        def step(number: jax.Array, carry: Carry) -> Carry:
            rows = jax.lax.dynamic_slice_in_dim(epoch.rows, (number - origin) * self.batch_size, self.batch_size)
            state, metrics = self.step(carry.state, arrays, rows, jax.random.fold_in(epoch.noise_key, number))
            sums = jax.tree.map(lambda total, value: total + value, carry.sums, metrics)
            return Carry(state, sums, _first_bad(carry.bad_step, all_finite(metrics), number))

        carry = jax.lax.fori_loop(first, stop, step, carry)
        bad_step = _first_bad(carry.bad_step, _is_finite(carry.state), jnp.asarray(stop) - 1)
        return carry._replace(bad_step=_earliest(bad_step))

    def zero_sums(self, arrays: PyTree, state: PyTree) -> Metrics:
        rows = jax.ShapeDtypeStruct((self.batch_size,), jnp.int32)
        whole = parallel.REPLICATED
        step = self.on_all(self.step, (self.specs.state, whole, whole, whole), (self.specs.state, self.specs.sums))
        _, metrics = jax.eval_shape(step, state, arrays, rows, jax.random.key(0))
        zeros: Metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), metrics)
        return zeros

    def begin(self, arrays: PyTree, state: PyTree) -> Carry:
        def carry(state: PyTree) -> Carry:
            return Carry(jax.tree.map(jnp.copy, state), self.zero_sums(arrays, state), jnp.full((), -1, jnp.int32))

        made: Carry = jax.jit(carry)(state)  # one program, where each array by itself would be compiled by itself
        return made

    def initial(self, arrays: PyTree) -> jax.stages.Wrapped:
        """`(key, weights) -> carry` of a new training."""

        def carry(key: jax.Array, weights: PyTree) -> Carry:
            return self.begin(arrays, self.recipe.init(key, weights))

        return jax.jit(carry)


def _is_finite(state: PyTree) -> jax.Array:
    """`all_finite`, for many numbers.

    On the CPU, XLA sums in one fast pass over memory, and tests number by number in two slow ones. A sum is finite only
    if all numbers are; where it is not, it may have overflowed, and they are tested.
    """
    floating = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    sums = [leaf.sum() for leaf in floating]
    finite: jax.Array = jax.lax.cond(all_finite(sums), lambda leaves: jnp.array(True), all_finite, floating)
    return finite


def _first_bad(bad_step: jax.Array, is_finite: jax.Array, step: jax.Array | int) -> jax.Array:
    return jnp.where((bad_step < 0) & ~is_finite, jnp.asarray(step, jnp.int32), bad_step)


def _earliest(bad_step: jax.Array) -> jax.Array:
    """The first bad step of all models."""
    never = np.iinfo(np.int32).max
    first = parallel.least_over_models(jnp.where(bad_step < 0, never, bad_step))
    return jnp.where(first == never, -1, first)


class _Piece(NamedTuple):
    """What some steps of an epoch are trained with."""

    steps: _Steps
    arrays: PyTree
    epoch: Epoch  # whose rows are indices in the arrays
    stop: int  # the step after the last one


class Loop:
    """The training loop over one recipe, source, batch size and devices.

    Args:
        recipe: how a step learns.
        source: the data.
        batch_size: examples a step.
        devices: where to train, in place of JAX's default device. Several share every batch, or have some of several
            models each (`parallel.mesh_of`).
        data_on: where the data are kept: placed on the devices once, or else brought to them piece by piece from memory
            ("host") or from disk; "auto" decides by their size. The training is the same.

    Attributes:
        steps: the batches in an epoch, including the last, smaller one where the recipe trains on it.
        data_on: where the data are kept.
        arrays: the data on the devices; the shapes of a piece where they come in pieces.
        device: the first device of this process; None for JAX's default device.

    Raises:
        InputError: the batch size does not fit the data, the batch function reads beyond the data, or the data cannot
            be kept where they are to be.
    """

    def __init__(
        self,
        recipe: Recipe[Any],
        source: Source,
        batch_size: int,
        devices: Sequence[jax.Device] = (),
        data_on: staging.DataOn = "auto",
    ) -> None:
        check_batch_size(batch_size, source.size)
        self.recipe, self.source, self.batch_size, self.devices = recipe, source, batch_size, tuple(devices)
        self.steps = steps_per_epoch(recipe, source, batch_size)
        self.mesh = parallel.mesh_of(self.devices, recipe.models)
        self.device = None if self.mesh is None else self.mesh.local_devices[0]
        self.data_on: staging.Place = processes.decided(
            lambda: staging.choose(data_on, source.arrays, source.piece is not None, self.device)
        )
        self._cut = (
            None if self.data_on == "device" else staging.Cut(source, batch_size, in_memory=self.data_on == "host")
        )
        self._full = _Steps(recipe, source.batch, batch_size, self.mesh)
        self._last = _Steps(recipe, source.batch, source.size % batch_size, self.mesh)
        self._programs: dict[int, Callable[..., Carry]] = {}  # by batch size
        if self._cut is None:
            self.arrays = parallel.place_constant(self.mesh, staging.resident(source.arrays))
            rows = np.arange(source.size - batch_size, source.size, dtype=np.int32)
            _check_rows(source, parallel.first_replica(self.mesh, self.arrays), rows)
        else:
            self.arrays = self._cut.shapes
            _check_rows(source, *self._cut.last_examples())
        self._initial = self._full.initial(self.arrays)  # `shapes` and `initial` trace it once together

    def initial(self, key: jax.Array, weights: PyTree = None) -> Carry:
        """The carry of a new training, made by the recipe's `init` in one program.

        So there is never a state beside its copy in the carry.
        """
        carry: Carry = compiled(self._initial, key, weights)(key, weights)
        return carry if self.device is None else jax.device_put(carry, self.device)

    def shapes(self) -> Carry:
        """The shapes and dtypes of the carry, as `jax.ShapeDtypeStruct`s."""
        carry: Carry = jax.eval_shape(self._initial, jax.random.key(0), None)
        return carry

    def begin(self, state: PyTree) -> Carry:
        """The carry of a training that starts from a state, which is copied."""

        def make(state: PyTree) -> Carry:
            return self._full.begin(self.arrays, state)

        carry: Carry = compiled(jax.jit(make), state)(state)
        return carry

    def batch(self, rows: jax.Array) -> PyTree:
        """The batch of some examples, wherever the data are kept."""
        if self._cut is None:
            return self.source.batch(parallel.first_replica(self.mesh, self.arrays), rows)
        arrays, places = self._cut.piece(np.asarray(rows))
        return self.source.batch(jax.tree.map(jnp.asarray, arrays), jnp.asarray(places))

    def slices(
        self,
        carry: Carry,
        *,
        epochs: int,
        key: jax.Array,
        epoch: int = 0,
        step: int = 0,
        seconds: float = _SLICE_SECONDS,
        longest: int | None = None,
    ) -> Generator[Slice, None, None]:
        """Train from (`epoch`, `step`) until `epochs` are finished, handing back control about every `seconds`.

        Args:
            carry: from `initial`, `begin` or the last slice; it is donated.
            epochs: epochs finished in all when the training ends.
            key: determines the order of every epoch and the noise of every step.
            epoch: finished epochs.
            step: finished steps of the current epoch.
            seconds: about how long a slice takes.
            longest: the most steps in a slice.

        Yields:
            Slices, whose arrays are on the first device; of several models that are divided over the devices, each
            array is, too.
        """
        keys = jax.random.split(key)
        carry = self.placed(carry)
        pace, spent = 1, 0.0  # steps in a slice; seconds since the last slice was handed out
        while epoch < epochs:
            asked = time.perf_counter()
            for piece in self._pieces(epoch_of(self.source, keys, epoch), step):
                waited = time.perf_counter() - asked
                run = self._program(piece, carry)
                while step < piece.stop:
                    first, step = step, min(piece.stop, step + pace)
                    began = time.perf_counter()
                    carry = jax.block_until_ready(run(carry, piece.arrays, piece.epoch, first, step))
                    spent = time.perf_counter() - began
                    if piece.steps is self._full:
                        pace = min(max(1, int((step - first) * min(seconds / spent, 32))), longest or self.steps)
                        pace = processes.largest(pace)  # each process has its own clock
                    spent, waited = spent + waited, 0.0
                    if step < self.steps:
                        yield Slice(epoch, step, self._handed_out(carry), None, spent)
                asked = time.perf_counter()
            parallel.check_replicas(self.mesh, carry)
            sums = jax.device_get(parallel.gathered(self.mesh, carry.sums))
            carry = self.placed(carry._replace(sums=jax.tree.map(np.zeros_like, sums)))
            epoch, step = epoch + 1, 0
            yield Slice(epoch, 0, self._handed_out(carry), _means(sums), spent)

    def placed(self, carry: Carry) -> Carry:
        """The carry on all devices: whole on each, or divided by models."""
        specs = self._full.specs
        return Carry(*(parallel.place(self.mesh, part, spec) for part, spec in zip(carry, specs, strict=True)))

    def _handed_out(self, carry: Carry) -> Carry:
        return carry if parallel.is_spread(self.mesh) else parallel.first_replica(self.mesh, carry)

    def _pieces(self, epoch: Epoch, step: int) -> Iterator[_Piece]:
        """What the steps of an epoch from `step` on are trained with, in turn."""
        whole = self.source.size // self.batch_size
        if self._cut is None:
            epoch = parallel.place(self.mesh, epoch)
            if step < whole:
                yield _Piece(self._full, self.arrays, epoch, whole)
            if step < self.steps and whole < self.steps:
                rows = jax.lax.slice_in_dim(epoch.rows, whole * self.batch_size, self.source.size)
                yield _Piece(self._last, self.arrays, epoch._replace(rows=rows, origin=whole), self.steps)
            return
        with contextlib.closing(self._cut.pieces(np.asarray(epoch.rows), step, self.steps)) as pieces:
            for first, stop, arrays, places in pieces:
                steps = self._full if first < whole else self._last
                part = parallel.place(self.mesh, epoch._replace(rows=jnp.asarray(places), origin=first))
                yield _Piece(steps, parallel.place_constant(self.mesh, arrays), part, stop)

    def _program(self, piece: _Piece, carry: Carry) -> Callable[..., Carry]:
        size = piece.steps.batch_size
        if size not in self._programs:
            arguments = carry, piece.arrays, piece.epoch, 0, 1
            self._programs[size] = compiled(piece.steps.advance, *arguments, inspect=self._warn_of_slow_loop)
            processes.meet()
        return self._programs[size]

    def _warn_of_slow_loop(self, lowered: jax.stages.Lowered) -> None:
        """Warn of XLA's own convolutions in a loop on the CPU (https://github.com/jax-ml/jax/issues/12868)."""
        platform = jax.default_backend() if self.device is None else self.device.platform
        if platform == "cpu" and has_convolution_in_loop(lowered):
            warnings.warn(
                "the training step holds XLA's own convolutions, which are up to ten times slower in a loop on the CPU "
                "than outside; use jaxgen.layers, or flax.linen.Conv(..., "
                "conv_general_dilated=jaxgen.conv_general_dilated)",
                stacklevel=2,
            )


def _means(sums: Metrics) -> dict[str, float]:
    """The mean of every metric; of several models, under the names `loss/0`, `loss/1`, …."""
    means = {}
    for name, (total, weight) in sums.items():
        for index in np.ndindex(total.shape):
            means["/".join(map(str, (name, *index)))] = float(total[index]) / float(weight[index])
    return means


def _check_rows(source: Source, arrays: PyTree, rows: np.ndarray) -> None:
    """Raise InputError where a batch function indexes beyond its arrays; JAX would clamp the index silently."""
    if isinstance(source.batch, _Scaled) or source.batch is _take:
        return
    checked = checkify.checkify(source.batch, errors=checkify.index_checks)

    def index_is_out_of_range(arrays: PyTree, rows: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(checked(arrays, rows)[0])  # of each error: whether it occurred, and numbers
        return jnp.any(jnp.stack([leaf for leaf in leaves if leaf.dtype == bool] or [jnp.array(False)]))

    try:
        # The error itself compares by identity, so a program that returned it would be compiled every time.
        is_bad = compiled(jax.jit(index_is_out_of_range), arrays, rows)(arrays, rows)
    except NotImplementedError:  # for operations that checkify does not know
        return
    if is_bad:
        said = checked(jax.tree.map(jnp.asarray, arrays), rows)[0].get()
        raise InputError(f"the source has {source.size} examples by its size, but not by its batch function: {said}")


def epoch_of(source: Source, keys: jax.Array, number: int) -> Epoch:
    """The order and the noise of an epoch; `keys` are the two that the key of the training is split into."""
    order_key, noise_key = keys
    rows = jax.random.permutation(jax.random.fold_in(order_key, number), source.size)
    return Epoch(rows, jax.random.fold_in(noise_key, number), 0)


def steps_per_epoch(recipe: Recipe[Any], source: Source, batch_size: int) -> int:
    """Batches in an epoch, including the last, smaller one where the recipe trains on it."""
    whole, rest = divmod(source.size, batch_size)
    return whole + (recipe.smallest_batch is not None and rest >= max(1, recipe.smallest_batch))


def fit(
    recipe: Recipe[StateT],
    state: StateT,
    data: Source | PyTree,
    *,
    epochs: int,
    batch_size: int,
    key: jax.Array,
    epoch: int = 0,
    each: Callable[[Slice], object] | None = None,
    devices: Sequence[jax.Device] = (),
    data_on: staging.DataOn = "auto",
) -> tuple[StateT, dict[str, list[float]]]:
    """Train `state` for `epochs` passes over `data`.

    The first Ctrl-C returns after the slice under way, with what has been trained so far; so does a second one within
    two seconds. A later one raises KeyboardInterrupt.

    Args:
        recipe: for instance `jaxgen.models.dcgan.digits_recipe()`.
        state: from `recipe.init`. It is copied and stays the caller's.
        data: a `Source`; or an array `[N, ...]`, or a tree of such arrays with one length N, whose values are already
            in the recipe's range.
        epochs: the passes of this call.
        batch_size: examples a step.
        key: determines the order of every epoch and the noise of every step. The same key gives the same training.
        epoch: the epochs that `state` has already been trained for under this key: `fit(…, epochs=2)` and then
            `fit(…, epochs=2, epoch=2)` equal `fit(…, epochs=4)`, bit for bit.
        each: called with a `Slice` about every second and a half; a true result ends the training.
        devices: where to train, in place of JAX's default device, such as `jax.devices()`. Several share every batch,
            or have some of several models each; either is the same training up to rounding. They may be those of
            several processes that JAX's distributed runtime connects, all of which then call this.
        data_on: where the data are kept: on the "device", or else in memory ("host") or on "disk" and brought to the
            device piece by piece while the last piece trains. "auto" decides by their size. The training is the same,
            bit for bit.

    Returns:
        The trained state, and the mean of every metric in every epoch: `history["loss"][0]` is the first epoch's.

    Raises:
        InputError: fewer examples than a batch, arrays of different lengths, images that are not scaled, a batch that
            the devices cannot share evenly, or data that cannot be kept where they are to be.
        FloatingPointError: a metric or a parameter was not finite. The message names the epoch and the step.
    """
    source = as_source(data)
    check_batch_size(batch_size, source.size)
    mesh = parallel.mesh_of(devices, recipe.models)
    if mesh is not None and batch_size % mesh.shape[parallel.SHARDS]:
        raise InputError(f"batch size {batch_size}: {mesh.shape[parallel.SHARDS]} devices cannot share it evenly")
    history: dict[str, list[float]] = {}

    def announce() -> None:
        say("stopping after the current slice; Ctrl-C again in a moment aborts", error=True)

    with disk_cache(), stop_on_signals(available("SIGINT"), announce) as stop:
        loop = Loop(recipe, source, batch_size, devices, data_on)
        carry = loop.begin(state)
        del state  # the caller may have no other reference to it
        with contextlib.closing(loop.slices(carry, epochs=epoch + epochs, key=key, epoch=epoch)) as slices:
            for piece in slices:
                carry = piece.carry
                check_finite(piece)
                for name, value in (piece.metrics or {}).items():
                    history.setdefault(name, []).append(value)
                if processes.largest(int(bool(each is not None and each(piece)) or stop.number is not None)):
                    break
    return carry.state, history


def check_batch_size(batch_size: int, size: int) -> None:
    """Raise InputError where the batch size does not fit the number of examples."""
    if not 1 <= batch_size <= size:
        raise InputError(f"batch size {batch_size}: must be from 1 to the {size} examples there are")


def check_finite(piece: Slice) -> None:
    """Raise FloatingPointError where a value became not finite in the epoch of this slice."""
    bad_step = int(piece.carry.bad_step)
    if bad_step >= 0:
        epoch = piece.epoch + (piece.metrics is None)  # the current epoch, counted from 1
        raise FloatingPointError(f"a value is not finite since epoch {epoch}, step {bad_step + 1}")
