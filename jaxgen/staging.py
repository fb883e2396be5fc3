"""Where training data are while they are trained on, and the pieces of them that are brought to the devices.

Data that fit stay on the devices. Of others, the examples of the next few hundred steps are gathered by a thread, from
memory or from disk, while the devices train on those before. The order of an epoch is the same, and so is the training,
bit for bit.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, TypeVar

import jax
import numpy as np

from jaxgen import memory
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray

__all__ = ["Cut", "DataOn", "choose", "gather", "one_ahead", "resident", "size_of"]

PyTree = Any
DataOn = Literal["auto", "device", "host", "disk"]
Place = Literal["device", "host", "disk"]
T = TypeVar("T")

PIECE_BYTES = 2**25  # about how large a piece is; up to four of them are in memory


def choose(data_on: DataOn, arrays: PyTree, can_be_cut: bool, device: jax.Device | None = None) -> Place:
    """Where the arrays are kept.

    Args:
        data_on: what was asked for; "auto" takes the first of device, memory and disk in which they take at most half
            of what is free.
        arrays: those of a source.
        can_be_cut: whether pieces can be made of them.
        device: one that trains; JAX's default device by default.

    Raises:
        InputError: that is not possible with these arrays.
    """
    on_disk = any(isinstance(leaf, DiskArray) for leaf in jax.tree.leaves(arrays))
    if data_on == "disk" and not on_disk:
        raise InputError(
            "the data are in memory, so they cannot be read from disk: keep them on the device or the host"
        )
    if data_on in ("host", "disk") and not can_be_cut:
        raise InputError(
            f"the data cannot be kept on the {data_on}: their source has no `piece`; keep them on the device"
        )
    if data_on != "auto":
        return data_on
    device = device or next(iter(jax.device_put(0).devices()))
    to_place = [leaf for leaf in jax.tree.leaves(arrays) if not isinstance(leaf, jax.Array)]
    needed, there = 2 * size_of(to_place), memory.available()
    fits_in_memory = needed <= there or not on_disk  # what is in memory already fits
    if not can_be_cut or (fits_in_memory and needed <= memory.available_on(device)):
        return "device"
    return "host" if fits_in_memory else "disk"


def size_of(arrays: PyTree) -> int:
    """The bytes of a tree of arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


def resident(arrays: PyTree) -> PyTree:
    """The arrays, those on disk read into memory."""
    return jax.tree.map(lambda leaf: leaf[:] if isinstance(leaf, DiskArray) else leaf, arrays)


def gather(arrays: PyTree, rows: np.ndarray) -> tuple[PyTree, np.ndarray]:
    """The piece of arrays whose rows are examples.

    Args:
        arrays: a tree of arrays `[N, ...]` in memory or on disk.
        rows: indices of the examples.

    Returns:
        Arrays `[len(rows), ...]` of these examples in ascending order, and where in them each example is.
    """
    order = np.argsort(rows, kind="stable")
    places = np.empty_like(rows)
    places[order] = np.arange(len(rows), dtype=rows.dtype)
    return jax.tree.map(lambda leaf: leaf[rows[order]], arrays), places


class Cut:
    """Data that come to the devices in pieces of one shape.

    Args:
        source: a `training.Source` with `piece`.
        batch_size: examples a step.
        in_memory: whether arrays on disk are read into memory first.

    Attributes:
        shapes: the shapes and dtypes of a piece's arrays.
    """

    def __init__(self, source: Any, batch_size: int, *, in_memory: bool) -> None:
        self._source, self._batch_size = source, batch_size
        arrays = resident(source.arrays) if in_memory else source.arrays
        self._arrays = jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, arrays)
        batch, _ = self.last_examples()
        whole = source.size // batch_size
        self._steps = max(1, min(whole, PIECE_BYTES // max(1, size_of(batch))))
        self.shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((self._steps * len(leaf), *leaf.shape[1:]), leaf.dtype), batch
        )

    def last_examples(self) -> tuple[PyTree, np.ndarray]:
        """The piece of the data's last examples, as many as a batch."""
        size = self._source.size
        return self.piece(np.arange(size - self._batch_size, size, dtype=np.int32))

    def pieces(
        self, rows: np.ndarray, step: int, steps: int
    ) -> Generator[tuple[int, int, PyTree, np.ndarray], None, None]:
        """The pieces of an epoch: its first step, the step after its last, arrays, and the rows in them.

        The last full batches fill a piece of the same shape as the others. A last, smaller batch is a piece of its own.

        Args:
            rows: the examples in the order of the epoch.
            step: the first step.
            steps: the steps in the epoch.
        """
        whole = len(rows) // self._batch_size
        bounds = [(first, min(whole, first + self._steps)) for first in range(step, whole, self._steps)]
        if step < steps and whole < steps:
            bounds.append((whole, steps))
        tasks = (partial(self._examples, rows, *bound, whole) for bound in bounds)
        with contextlib.closing(one_ahead(tasks)) as pieces:
            for bound, piece in zip(bounds, pieces, strict=True):
                yield *bound, *piece

    def _examples(self, rows: np.ndarray, first: int, stop: int, whole: int) -> tuple[PyTree, np.ndarray]:
        chosen = rows[first * self._batch_size : stop * self._batch_size]
        if first < whole:
            chosen = np.pad(chosen, (0, self._steps * self._batch_size - len(chosen)), mode="edge")
        return self.piece(chosen)

    def piece(self, rows: np.ndarray) -> tuple[PyTree, np.ndarray]:
        """Arrays that have some examples, and the indices of these in them."""
        piece: tuple[PyTree, np.ndarray] = self._source.piece(self._arrays, rows)
        return piece


def one_ahead(tasks: Iterable[Callable[[], T]]) -> Generator[T, None, None]:
    """The results of tasks, the next of which is under way in a thread while one is in use.

    The thread ends with the iterator, also when that is closed early. An error in a task is raised when its result is
    asked for.
    """
    is_ending = sys.is_finalizing  # a name of this function, because those of modules are gone by then
    thread = ThreadPoolExecutor(1, "jaxgen-data")
    waiting: deque[Future[T]] = deque()
    try:
        for task in tasks:
            waiting.append(thread.submit(task))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        if not is_ending():  # when Python ends, it ends the threads first
            thread.shutdown(cancel_futures=True)
