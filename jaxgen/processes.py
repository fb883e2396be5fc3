"""Several processes that train together, by JAX's distributed runtime (https://docs.jax.dev/en/latest/multi_process.html).

Every process runs the same program. What could differ between them, such as a decision that depends on a clock or on
the disk, is decided by the first process and told to the others. With a single process these functions do nothing.
"""

import os
import pickle
import socket
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
    jax.distributed.initialize(
        coordinator,
        count,
        index,
        initialization_timeout=_PATIENCE,
        heartbeat_timeout_seconds=_HEARTBEAT,
        shutdown_timeout_seconds=_SHUTDOWN,
    )


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
    return jax.distributed.is_initialized() and jax.process_count() > 1


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


def _from_first(message: bytes) -> bytes:
    """The first process's message, in all processes."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

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

    return np.asarray(process_allgather(own))
