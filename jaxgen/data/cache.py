"""The cache folder, and prepared images that are kept there: decoded and resized once.

An entry is a folder: `images.npy`, `labels.npy`, and `about.json` with their SHA-256 sums. It is made beside its place
and moved there once it is complete. An entry that is damaged, or was made from other input, is ignored and made again.
Where there is no cache folder, or it cannot be written, nothing is kept.

Images that are read into memory are compared with their sum. Those that stay on disk, because they take more than half
of the memory that is free, are recognised by the size and the time of their file, and compared with their sum where the
time differs or `jaxgen data prepare` is called.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from jaxgen import memory
from jaxgen.data.images import Images, UInt8Array, check_memory, differing_sizes
from jaxgen.durable import sync
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray

_FORMAT = 3  # to be increased whenever the same options come to mean other bytes
_DAY = 24 * 3600.0  # seconds after which what an unfinished preparation left behind is removed


class About(NamedTuple):
    """What is known of prepared images besides these themselves.

    Attributes:
        white: the pixel value of full intensity.
        classes: the names of the classes.
        skipped: a line for each file that could not be read.
        distorted: the number of images whose aspect ratio was changed.
    """

    white: int = 255
    classes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    distorted: int = 0


class Prepared(NamedTuple):
    """Prepared images, with what the caller has to be told about them, also when they come from the cache.

    Attributes:
        images: the images.
        skipped: a line for each file that could not be read.
        distorted: the number of images whose aspect ratio was changed.
    """

    images: Images
    skipped: tuple[str, ...] = ()
    distorted: int = 0


def folder() -> Path:
    """The cache folder: `JAXGEN_DATA`, or jaxgen's folder in the user's cache.

    Raises:
        InputError: there is no home folder that it could be in.
    """
    if given := os.environ.get("JAXGEN_DATA"):
        return expand_user(given, "JAXGEN_DATA")
    import pooch

    try:
        return Path(pooch.os_cache("jaxgen")).expanduser()
    except RuntimeError:
        raise InputError("there is no home folder to keep data in: set JAXGEN_DATA to a folder for them") from None


def expand_user(path: str, name: str) -> Path:
    """Replace a leading `~` or `~user`. `name` is what the path is, for the error message.

    Raises:
        InputError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no HOME and no entry for the user, as in many containers, or an unknown user
        home = Path(path).parts[0]
        raise InputError(f"{name}: there is no home folder {home}; give the path in full") from None


def fingerprint(*parts: Any, each: Iterable[Any] = ()) -> str:
    """A digest of all that an entry is made from, including Pillow's version, which determines how it resizes.

    Args:
        parts: values with a `repr` that tells them apart.
        each: more of them, which are never all in memory.
    """
    from PIL import __version__ as pillow

    total = hashlib.sha256()
    for part in chain([(_FORMAT, pillow, *parts)], each):
        total.update(repr(part).encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def cached(title: str, origin: str, make: "Callable[[Collector], About]", *, on_disk: bool | None = None) -> Prepared:
    """Return the entry `title` if it was made from the same `origin`; otherwise make it.

    A title has one entry: of a folder whose content changes, only the last state is kept.

    Args:
        title: a name for the entry.
        origin: a digest of what it is made from.
        make: gives every image and label to its argument.
        on_disk: whether the images stay on disk. None: if they take more than half of the memory that is free.

    Raises:
        InputError: the images do not fit into memory or on disk.
    """
    try:
        path = folder() / "prepared" / f"{title}-{origin[:16]}"
    except InputError:
        if on_disk:
            raise
        path = None
    if path is not None:
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _read(path, origin, on_disk)
    with Collector(path, origin, on_disk) as collector:
        return collector.finish(make(collector))


def remove_damaged(images: DiskArray) -> bool:
    """Remove the entry that these images belong to if they differ from their sum. A file of the user's own is kept."""
    entry = images.path.parent
    if entry.parent != folder() / "prepared" or images.compute_sha256() == images.sha256():
        return False
    shutil.rmtree(entry)
    return True


def stays_on_disk(size: int, on_disk: bool | None) -> bool:
    """Whether images of so many bytes are better left on disk than read into memory."""
    return 2 * size > memory.available() if on_disk is None else on_disk


def _read(path: Path, origin: str, on_disk: bool | None) -> Prepared:
    stored = json.loads((path / "about.json").read_text(encoding="utf-8"))
    about = stored["about"]
    if _sum_of(about) != stored["sha256"] or about["origin"] != origin:
        raise ValueError("damaged, or made from other input")
    images = _read_images(path / "images.npy", about["images"], on_disk)
    labels = _open(path / "labels.npy", about["labels"])
    if labels.compute_sha256() != labels.sha256():
        raise ValueError("damaged")
    read = Images(images, labels[:].astype(np.int32), about["white"], tuple(about["classes"]))
    return Prepared(read, tuple(about["skipped"]), about["distorted"])


def _read_images(file: Path, about: dict[str, Any], on_disk: bool | None) -> UInt8Array | DiskArray:
    stored = _open(file, about)
    if stays_on_disk(stored.nbytes, on_disk):
        if file.stat().st_mtime_ns != about["mtime_ns"] and stored.compute_sha256() != stored.sha256():
            raise ValueError("damaged")
        return stored
    check_memory(*stored.shape)
    images: UInt8Array = stored[:]
    if hashlib.sha256(images.data).hexdigest() != stored.sha256():
        raise ValueError("damaged")
    return images


def _open(file: Path, about: dict[str, Any]) -> DiskArray:
    """An array of an entry: the last bytes of its file."""
    if file.stat().st_size != about["file_bytes"]:
        raise ValueError("cut short")
    return DiskArray(file, about["offset"], about["shape"], about["dtype"], sha256=about["sha256"])


def _sum_of(about: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


class Collector:
    """Takes prepared images, and keeps them in memory or writes each at once.

    Args:
        path: the entry; None to keep nothing.
        origin: what it is made from.
        on_disk: as for `cached`.

    Attributes:
        count: how many images are to come, or more.
    """

    count: int

    def __init__(self, path: Path | None, origin: str, on_disk: bool | None) -> None:
        self._path, self._origin, self._on_disk = path, origin, on_disk
        self._images = np.empty((0, 0, 0, 0), np.uint8)  # as many as are to come, unless they are written
        self._labels: list[int] = []
        self._entry: _Entry | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._entry is not None:
            self._entry.close()

    def add(self, image: UInt8Array, label: int) -> None:
        """Keep an image `[H, W, C]` and its label."""
        if not self._labels:
            self._begin(image)
        if self._entry is None:
            self._hold(image)
        else:
            with self._on_full_disk():
                self._entry.add(image)
        self._labels.append(label)

    def add_all(self, images: Images, fitted: Iterable[UInt8Array]) -> About:
        """Keep images that were made of others, with the labels of these."""
        self.count = len(images.images)
        for image, label in zip(fitted, images.labels.tolist(), strict=True):
            self.add(image, label)
        return About(images.white, images.classes)

    def _begin(self, image: UInt8Array) -> None:
        """Decide by the first image where all go."""
        if not stays_on_disk(self.count * image.nbytes, self._on_disk) or self._path is None:
            check_memory(self.count, *image.shape)
            self._images = np.empty((self.count, *image.shape), np.uint8)
            return
        with self._on_full_disk():
            self._entry = _Entry(self._path)
            free = shutil.disk_usage(self._path.parent).free
        if (needed := self.count * image.nbytes) > free:
            raise InputError(self._remedy(f"they take {memory.text(needed)}, and {memory.text(free)} are free"))

    def _hold(self, image: UInt8Array) -> None:
        """Keep an image in memory. If any is RGB, gray ones become RGB too."""
        shape = self._images.shape[1:]
        if image.shape[:2] != shape[:2]:
            raise InputError(differing_sizes(shape, image.shape))
        if image.shape[2] > shape[2]:
            self._images = np.repeat(self._images, image.shape[2], axis=3)
        self._images[len(self._labels)] = image

    def finish(self, about: About) -> Prepared:
        """All that was added. It is kept in the cache."""
        labels = np.array(self._labels, np.int32)
        if self._entry is not None:
            assert self._path is not None
            with self._on_full_disk():
                self._entry.finish(self._origin, labels, about)
                return _read(self._path, self._origin, on_disk=True)
        images = Images(self._images[: len(labels)], labels, about.white, about.classes)
        if self._path is not None:
            with suppress(OSError):  # a full or read-only disk makes the next start slower, and nothing else
                self._keep(self._path, images, about)
        return Prepared(images, about.skipped, about.distorted)

    def _keep(self, path: Path, images: Images, about: About) -> None:
        self._entry = _Entry(path)
        for image in images.images:
            self._entry.add(image)
        self._entry.finish(self._origin, images.labels, about)

    @contextmanager
    def _on_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(self._remedy(error.strerror or str(error))) from error

    def _remedy(self, why: str) -> str:
        place = None if self._path is None else self._path.parent
        return f"the images cannot be prepared in {place}: {why}; JAXGEN_DATA names another folder for them"


class _Entry:
    """An entry that is being made, beside its place.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._staging = staging_dir(path.parent)
        self._made = self._staging.__enter__() / path.name
        self._made.mkdir()
        self._writer: _Writer | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._staging.__exit__(None, None, None)

    def add(self, image: UInt8Array) -> None:
        if self._writer is None:
            self._writer = _Writer(self._made / "images.npy", image.shape, np.dtype(np.uint8))
        self._writer.add(image[None])

    def finish(self, origin: str, labels: np.ndarray, about: About) -> None:
        """Write the rest, and move the entry to its place, unless another process has meanwhile made the same."""
        assert self._writer is not None
        with closing(_Writer(self._made / "labels.npy", (), np.dtype("<i4"))) as of_labels:
            of_labels.add(labels.astype("<i4"))
            of_arrays = {"images": self._writer.finish(), "labels": of_labels.finish()}
        stored = {"origin": origin, **of_arrays, **about._asdict()}
        stored = json.loads(json.dumps(stored))  # tuples become lists, as they are read
        file = self._made / "about.json"
        file.write_text(json.dumps({"sha256": _sum_of(stored), "about": stored}, indent=1), encoding="utf-8")
        sync(file)
        try:
            self._made.rename(self._path)
        except OSError:  # there is one already
            with suppress(OSError, ValueError, KeyError, TypeError):
                _read(self._path, origin, on_disk=True)
                return
            self._path.rename(self._made.with_name("replaced"))
            self._made.rename(self._path)
        title = self._path.name.rpartition("-")[0]
        for other in self._path.parent.glob(f"{title}-*"):
            if other != self._path:
                shutil.rmtree(other, ignore_errors=True)


class _Writer:
    """Writes an array row by row in NumPy's format, whose header is completed at the end."""

    def __init__(self, file: Path, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self._row_shape, self._dtype = file, row_shape, dtype
        self._count, self._sum = 0, hashlib.sha256()
        self._file = file.open("wb", buffering=2**20)
        self._offset = self._write_header()

    def close(self) -> None:
        with suppress(OSError):  # what could not be written
            self._file.close()

    def add(self, rows: np.ndarray) -> None:
        if rows.shape[1:] != self._row_shape:
            raise InputError(differing_sizes(self._row_shape, rows.shape[1:]))
        content = np.ascontiguousarray(rows).data
        self._sum.update(content)
        self._file.write(content)
        self._count += len(rows)

    def finish(self) -> dict[str, Any]:
        """Complete the file, and describe it."""
        self._file.seek(0)
        assert self._write_header() == self._offset
        self._file.close()
        sync(self._path)
        state = self._path.stat()
        return {
            "shape": [self._count, *self._row_shape],
            "dtype": self._dtype.str,
            "offset": self._offset,
            "sha256": self._sum.hexdigest(),
            "file_bytes": state.st_size,
            "mtime_ns": state.st_mtime_ns,
        }

    def _write_header(self) -> int:
        """The header for as many rows as there are; it has room for more of them."""
        from numpy.lib import format as npy

        shape = (self._count, *self._row_shape)
        npy.write_array_header_1_0(self._file, {"descr": self._dtype.str, "fortran_order": False, "shape": shape})
        return self._file.tell()


@contextmanager
def staging_dir(place: Path) -> Iterator[Path]:
    """A temporary folder inside `place`. A file that is moved from it into `place` appears there complete."""
    place.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(place)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=place) as name:
        yield Path(name)


def _remove_abandoned(place: Path) -> None:
    """Remove what processes that were killed have left behind."""
    for left in place.glob(".unfinished-*"):
        with suppress(OSError):
            if time.time() - max(file.stat().st_mtime for file in [left, *left.rglob("*")]) > _DAY:
                shutil.rmtree(left, ignore_errors=True)
