"""The file formats of MNIST (IDX) and CIFAR-10 (binary batches and pickles), gzipped or not.

Whatever bytes a file holds, they become arrays, or an `InputError` that names the file.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from jaxgen.data import pickles
from jaxgen.data.images import Int32Array, UInt8Array
from jaxgen.errors import InputError

LARGEST = 2**30  # bytes; the largest of these files, EMNIST's by class, has half as many
_UNSIGNED_BYTE, _INT = 8, 12  # IDX's codes of element types
_QMNIST_COLUMNS = 8  # of a label; the first is the digit
_CIFAR_PIXELS = 3 * 32 * 32
_CIFAR_ROW = 1 + _CIFAR_PIXELS  # a label and three planes
_CIFAR_CLASSES = 10


def contents(path: Path) -> bytes:
    """The bytes of a file, decompressed if they are gzipped (decided by the content, not by the name).

    Raises:
        InputError: the file cannot be read, is cut short, or holds more than `LARGEST` bytes.
    """
    try:
        with path.open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            blob = (gzip.GzipFile(fileobj=file) if packed else file).read(LARGEST + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path} cannot be read: {error}. It is damaged or was not downloaded completely: "
            "replace it, or remove it to have it downloaded again"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if len(blob) > LARGEST:
        raise InputError(f"{path} holds more than {LARGEST >> 20} MiB: too much for this kind of file")
    return blob


def idx_images(blob: bytes, path: Path) -> UInt8Array:
    """Parse an IDX file of images to uint8 `[N, H, W, 1]`; `path` is for the error message."""
    return _idx(blob, path, "images", dimensions=3)[..., None]


def idx_labels(blob: bytes, path: Path) -> Int32Array:
    """Parse an IDX file of labels to int32 `[N]`."""
    return _idx(blob, path, "labels", dimensions=1).astype(np.int32)


def idx_qmnist_labels(blob: bytes, path: Path) -> Int32Array:
    """Parse QMNIST's labels, which have eight columns of 32 bits, to int32 `[N]`: the digits."""
    labels = _idx(blob, path, "labels", dimensions=2, code=_INT)
    if labels.shape[1] != _QMNIST_COLUMNS:
        raise InputError(f"{path} has {labels.shape[1]} columns instead of {_QMNIST_COLUMNS}")
    return labels[:, 0].astype(np.int32)


def _idx(blob: bytes, path: Path, what: str, dimensions: int, code: int = _UNSIGNED_BYTE) -> np.ndarray:
    start = 4 + 4 * dimensions
    if len(blob) < start or blob[:4] != bytes([0, 0, code, dimensions]):
        raise InputError(f"{path} is not an IDX file of {what}: its first bytes are {blob[:4].hex(' ') or 'missing'}")
    shape = [int.from_bytes(blob[at : at + 4], "big") for at in range(4, start, 4)]
    dtype = np.dtype(np.uint8 if code == _UNSIGNED_BYTE else ">i4")
    if 0 in shape or math.prod(shape) * dtype.itemsize != len(blob) - start:
        raise InputError(f"{path} is damaged: it claims {what} of shape {shape}, and {len(blob) - start} bytes follow")
    return np.frombuffer(blob, dtype, offset=start).reshape(shape)


def cifar_batch(blob: bytes, path: Path) -> tuple[UInt8Array, Int32Array]:
    """Parse a binary batch of CIFAR-10 to images uint8 `[N, 32, 32, 3]` and labels int32 `[N]`."""
    if not blob or len(blob) % _CIFAR_ROW:
        raise InputError(f"{path} is not a CIFAR-10 batch: {len(blob)} bytes are not a multiple of {_CIFAR_ROW}")
    rows = np.frombuffer(blob, np.uint8).reshape(-1, _CIFAR_ROW)
    return _cifar_images(rows[:, 1:]), _cifar_labels(rows[:, 0], path)


def cifar_pickle(blob: bytes, path: Path) -> tuple[UInt8Array, Int32Array]:
    """Parse a batch of CIFAR-10's Python version to images uint8 `[N, 32, 32, 3]` and labels int32 `[N]`."""
    try:
        batch = pickles.loads(blob)
    except ValueError as error:
        raise InputError(f"{path} cannot be read as a CIFAR-10 batch: {error}") from error
    rows, labels = (batch.get(key) for key in (b"data", b"labels")) if isinstance(batch, dict) else (None, None)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (_CIFAR_PIXELS,):
        raise InputError(f"{path} is not a CIFAR-10 batch: it has no data of {_CIFAR_PIXELS} bytes an image")
    if not isinstance(labels, list) or len(labels) != len(rows) or {type(label) for label in labels} != {int}:
        raise InputError(f"{path} is not a CIFAR-10 batch: it has no list of {len(rows)} labels")
    return _cifar_images(rows), _cifar_labels(np.array(labels), path)


def _cifar_images(rows: UInt8Array) -> UInt8Array:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _cifar_labels(labels: np.ndarray, path: Path) -> Int32Array:
    if labels.min() < 0 or labels.max() >= _CIFAR_CLASSES:
        raise InputError(f"{path} is not a CIFAR-10 batch: its labels are {labels.min()} to {labels.max()}, not 0 to 9")
    return labels.astype(np.int32)
