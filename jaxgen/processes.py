"""Several processes that train together, by JAX's distributed runtime (https://docs.jax.dev/en/latest/multi_process.html).

Every process runs the same program. What could differ between them, such as a decision that depends on a clock or on
the disk, is decided by the first process and told to the others. With a single process these functions do nothing.
"""

import pickle
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from jaxgen.errors import InputError

T = TypeVar("T")


def are_several() -> bool:
    """Whether JAX's distributed runtime connects this process with others."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process is the one that decides and writes."""
    return not are_several() or jax.process_index() == 0


def decided(function: Callable[[], T]) -> T:
    """What the function returns in the first process, which alone calls it.

    Raises:
        InputError: the function raised it; then in all processes.
    """
    if not are_several():
        return function()
    message = b""
    if is_first():
        try:
            message = pickle.dumps((function(), None))
        except InputError as error:
            message = pickle.dumps((None, error))
    result: tuple[T, InputError | None] = pickle.loads(_from_first(message))
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
