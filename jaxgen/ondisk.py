"""Arrays that stay in a file, of which rows are read when they are asked for."""

import hashlib
import io
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["DiskArray", "from_memmap"]

_BLOCK = 2**24  # bytes that are read at a time where all rows are


class DiskArray:
    """An array `[N, ...]` in a file, or some of its rows.

    `array[index]` reads rows, in the order of the file, and returns a NumPy array; `np.asarray(array)` reads all. The
    file is open as long as the array is in use. It is not mapped into memory, so that what is read does not stay in the
    process's memory, and a file that is cut short is an OSError. Several threads may read at once.

    Attributes:
        path: the file.
        shape: the shape.
        dtype: the type of an element.

    Args:
        path: the file.
        offset: where in the file the first row begins, in bytes.
        shape: the shape of the whole array, in C order.
        dtype: the type of an element.
        sha256: the SHA-256 of the whole array's bytes, where it is known.

    Raises:
        OSError: the file cannot be opened, or is too short.
    """

    def __init__(
        self, path: Path, offset: int, shape: tuple[int, ...], dtype: DTypeLike, *, sha256: str | None = None
    ) -> None:
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        self._offset, self._sha256 = offset, sha256
        self._rows: NDArray[np.int64] | None = None  # which rows of the file these are; None: all
        self._file = _File(path)
        if self._file.size() < offset + self.nbytes:
            raise OSError(0, "the file is shorter than its array", str(path))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DiskArray({str(self.path)!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Read rows: an integer, a slice, or an array of integers or truth values; further indices apply to these."""
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = np.arange(len(self))[first]
        if rows.ndim == 0:
            chosen = self._read(rows[None])[0]
        elif (np.diff(rows) >= 0).all():
            chosen = self._read(rows)
        else:
            unique, places = np.unique(rows, return_inverse=True)
            chosen = self._read(unique)[places]
        part: NDArray[Any] = chosen[(slice(None),) * rows.ndim + tuple(others)] if others else chosen
        return part

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for block in self.blocks():
            yield from block

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("an array on disk is always copied into memory")
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """All rows, some megabytes at a time."""
        step = max(1, _BLOCK // max(1, self._row_bytes))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def rows(self, chosen: NDArray[Any]) -> "DiskArray":
        """These rows as an array on disk, of which nothing is read now.

        Args:
            chosen: indices in ascending order, or one truth value a row.
        """
        view = object.__new__(DiskArray)
        view.__dict__.update(self.__dict__)
        view._rows = np.asarray((np.arange(len(self)) if self._rows is None else self._rows)[chosen], np.int64)
        view._sha256 = None
        view.shape = (len(view._rows), *self.shape[1:])
        return view

    def reshape(self, shape: tuple[int, ...]) -> "DiskArray":
        """The same rows in another shape."""
        if shape[0] != len(self) or math.prod(shape) != self.size:
            raise ValueError(f"an array of shape {self.shape} has not the rows of one of shape {shape}")
        view = object.__new__(DiskArray)
        view.__dict__.update(self.__dict__, shape=shape)
        return view

    def sha256(self) -> str:
        """The SHA-256 of the bytes, in C order. All of them are read where it is not known."""
        if self._sha256 is None:
            self._sha256 = self.compute_sha256()
        return self._sha256

    def compute_sha256(self) -> str:
        """Read everything and return its SHA-256."""
        total = hashlib.sha256()
        for block in self.blocks():
            total.update(block.data)
        return total.hexdigest()

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def _read(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Read rows, which are in ascending order, each run of consecutive ones at once."""
        places = rows if self._rows is None else self._rows[rows]
        content = np.empty((len(rows), *self.shape[1:]), self.dtype)
        size = self._row_bytes
        if not content.nbytes:
            return content
        ends = np.append(np.flatnonzero(np.diff(places) != 1) + 1, len(places))
        starts = np.append(0, ends[:-1])
        offsets = places[starts].astype(np.int64) * size + self._offset
        memory = content.reshape(-1).view(np.uint8).data
        for start, end, offset in zip((starts * size).tolist(), (ends * size).tolist(), offsets.tolist(), strict=True):
            self._file.fill(memory[start:end], offset)
        return content


class _File:
    """A file that is open while it is in use, and is read by several threads."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = io.FileIO(path), threading.Lock()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def size(self) -> int:
        return self._file.seek(0, io.SEEK_END)

    def fill(self, memory: memoryview, offset: int) -> None:
        """Fill the memory with what begins here."""
        with self._lock:
            self._file.seek(offset)
            while len(memory):
                count = self._file.readinto(memory)
                if not count:
                    raise OSError(0, "the file has become shorter while it was in use", str(self._file.name))
                memory = memory[count:]


def from_memmap(array: Any) -> Any:
    """A `DiskArray` of a whole `np.memmap` in C order; anything else as it is."""
    is_whole = isinstance(array, np.memmap) and not isinstance(array.base, np.ndarray) and array.filename
    if not is_whole or not array.flags.c_contiguous or not array.ndim:
        return array
    return DiskArray(Path(array.filename), array.offset, array.shape, array.dtype)
