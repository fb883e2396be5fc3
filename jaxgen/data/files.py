"""The file formats of MNIST (IDX) and CIFAR-10 (binary batches), gzipped or not.

Whatever the bytes are, they become arrays or an `InputError` with the file's name.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from jaxgen.errors import InputError

LARGEST = 2**28  # bytes; none of these files has a quarter of that, so a larger one is a mistake or a trap
_UNSIGNED_BYTE = 8  # IDX's code for it
_CIFAR_ROW = 1 + 3 * 32 * 32  # a label and three planes


def contents(path: Path) -> bytes:
    """The bytes of a file, decompressed if they are gzipped (by what it holds, not by what it is called)."""
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            blob = (gzip.GzipFile(fileobj=file) if packed else file).read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if len(blob) > LARGEST:
        raise InputError(f"{path} holds more than {LARGEST >> 20} MiB: too much for what it is said to be")
    return blob


def idx_images(blob: bytes, path: Path) -> np.ndarray:
    """The images of an IDX file's bytes, uint8 `[N, H, W, 1]`; `path` is for the message."""
    return _idx(blob, path, "images", dimensions=3)[..., None]


def idx_labels(blob: bytes, path: Path) -> np.ndarray:
    """The labels of an IDX file's bytes, int32 `[N]`."""
    return _idx(blob, path, "labels", dimensions=1).astype(np.int32)


def _idx(blob: bytes, path: Path, what: str, dimensions: int) -> np.ndarray:
    start = 4 + 4 * dimensions
    if len(blob) < start or blob[:4] != bytes([0, 0, _UNSIGNED_BYTE, dimensions]):
        raise InputError(f"{path} is no IDX file of {what}: its first bytes are {blob[:4].hex(' ') or 'missing'}")
    shape = [int.from_bytes(blob[at : at + 4], "big") for at in range(4, start, 4)]
    if 0 in shape or math.prod(shape) != len(blob) - start:
        raise InputError(f"{path} is damaged: it announces {what} of shape {shape}, {len(blob) - start} bytes follow")
    return np.frombuffer(blob, np.uint8, offset=start).reshape(shape)


def cifar_batch(blob: bytes, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[N, 32, 32, 3]` and labels int32 `[N]` of a CIFAR-10 binary batch's bytes."""
    if not blob or len(blob) % _CIFAR_ROW:
        raise InputError(f"{path} is no CIFAR-10 batch: {len(blob)} bytes are no whole number of {_CIFAR_ROW}")
    rows = np.frombuffer(blob, np.uint8).reshape(-1, _CIFAR_ROW)
    if (largest := rows[:, 0].max()) > 9:
        raise InputError(f"{path} is no CIFAR-10 batch: it has a label {largest}, there are 0 to 9")
    images = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), rows[:, 0].astype(np.int32)
