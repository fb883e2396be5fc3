"""Several processes that train together, by JAX's distributed runtime (https://docs.jax.dev/en/latest/multi_process.html).

Every process runs the same program. What could differ between them, such as a decision that depends on a clock or on
the disk, is decided by the first process and told to the others. With a single process these functions do nothing.
"""

import functools
import itertools
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from jaxgen.errors import InputError

T = TypeVar("T")

_PATIENCE = 300  # seconds in which the first process must answer, and all must have come
_HEARTBEAT = 30  # seconds without a sign of life, after which a process counts as dead and the others end
_SHUTDOWN = 30  # seconds that a process which ends waits for the others
_ENDING = 5  # seconds that a process which fails waits for the others to fail for the same reason
_MEETING = 86_400  # seconds that a process may take longer than another to prepare data or to compile
_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")  # how many there are, under Slurm's srun and Open MPI


def is_one_of_several_tasks() -> bool:
    """Whether Slurm or Open MPI started this process as one of several."""
    return any(os.environ.get(name, "1") != "1" for name in _TASKS)


def connect(coordinator: str | None = None, count: int | None = None, index: int | None = None) -> None:
    """Connect this process with the others. Nothing else may have started JAX before.

    A process that dies ends the others within a minute.

    Args:
        coordinator: an address of the first process, with a port that is free there, such as `10.0.0.1:9876`.
        count: the number of processes.
        index: the number of this process, from 0.

        What is None is asked of the cluster: JAX knows Slurm, Open MPI, Kubernetes and Cloud TPUs.

    Raises:
        OSError: nobody answers there for five minutes.
        RuntimeError: JAX has started, or the processes do not find each other.
        ValueError: JAX finds no cluster to ask.
    """
    if coordinator is not None and index:
        _wait_for(coordinator)
    # JAX's own handling of SIGTERM would take the place of ours, which saves.
    jax.config.update("jax_enable_preemption_service", False)
    initialize = functools.partial(
        jax.distributed.initialize,
        coordinator,
        count,
        index,
        initialization_timeout=_PATIENCE,
        heartbeat_timeout_seconds=_HEARTBEAT,
        shutdown_timeout_seconds=_SHUTDOWN,
    )
    _Connection.is_pending = True
    _in_thread(initialize)
    _Connection.is_pending = False


class _Connection:
    """Whether JAX is connecting this process with the others, or was interrupted while it did."""

    is_pending = False


def _in_thread(function: Callable[[], None]) -> None:
    """Call the function while this thread handles signals, which it could not within JAX."""
    raised: list[Exception] = []

    def call() -> None:
        try:
            function()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def _wait_for(coordinator: str) -> None:
    """Wait until the first process answers: JAX would end this one without an exception where it does not."""
    host, _, port = coordinator.rpartition(":")
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise OSError(error.errno, f"nobody answers at {coordinator} ({error.strerror})") from error
            time.sleep(0.5)


def are_several() -> bool:
    """Whether JAX's distributed runtime connects this process with others."""
    return jax.distributed.is_initialized() and not _Connection.is_pending and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that decides and writes."""
    return not are_several() or jax.process_index() == 0


def is_lost(error: Exception) -> bool:
    """Whether JAX raised this because another process has ended."""
    said = str(error).lower()
    return are_several() and any(word in said for word in ("gloo", "connection", "nccl", "unavailable", "heartbeat"))


def decided(function: Callable[[], T]) -> T:
    """What the function returns in the first process, which alone calls it.

    Raises:
        InputError, OSError: the function raised it; then in all processes.
    """
    if not are_several():
        return function()
    message = b""
    if is_first():
        try:
            message = pickle.dumps((function(), None))
        except (InputError, OSError) as error:
            message = pickle.dumps((None, error))
    result: tuple[T, Exception | None] = pickle.loads(_from_first(message))
    if result[1] is not None:
        raise result[1]
    return result[0]


def meet() -> None:
    """Wait until all processes are here.

    On the CPU, the first collective operation among some devices fails where it begins more than 30 seconds earlier in
    one process than in another. So they meet before it: one may have to decode its data, or to compile a program that
    another has in its cache.
    """
    if are_several():
        _wait_at_barrier(f"jaxgen-{next(_meetings)}", _MEETING)


_meetings = itertools.count()


@functools.cache
def _meet_once() -> None:
    meet()


def end_together(*, has_failed: bool) -> bool:
    """Wait until all processes are about to end.

    Returns:
        Whether they are. Where this process has failed, it waits a few seconds only; then JAX's own way of ending,
        which waits for all, would abort it.
    """
    if not are_several():
        return True
    try:
        _wait_at_barrier("jaxgen-end", _ENDING if has_failed else _MEETING)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def await_end() -> None:
    """Where another process is lost, wait until JAX says which and ends this one."""
    time.sleep(_HEARTBEAT + _ENDING)


def _wait_at_barrier(name: str, seconds: float) -> None:
    from orbax.checkpoint.multihost import get_barrier_sync_fn

    get_barrier_sync_fn()(key=name, timeout_ms=int(1000 * seconds))


def _from_first(message: bytes) -> bytes:
    """The first process's message, in all processes."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    _meet_once()
    length = int(broadcast_one_to_all(np.array(len(message))))
    padded = np.frombuffer(message.ljust(length, b"\0")[:length], np.uint8)
    return bytes(np.asarray(broadcast_one_to_all(padded)).astype(np.uint8))


def largest(number: int) -> int:
    """The largest of the numbers that the processes have."""
    return int(_of_all(np.array(number)).max())


def agree(value: bytes) -> bool:
    """Whether all processes have the same bytes, whose length is the same everywhere."""
    rows = _of_all(np.frombuffer(value, np.uint8))
    return bool((rows == rows[0]).all())


def _of_all(own: np.ndarray) -> np.ndarray:
    """The arrays of all processes, along a new first axis."""
    if not are_several():
        return own[None]
    from jax.experimental.multihost_utils import process_allgather

    _meet_once()
    return np.asarray(process_allgather(own))
