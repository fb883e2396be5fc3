"""The user's own arrays: given in Python, or `arrays:FILE.npz`, as `np.savez` and `np.savez_compressed` write them.

A file is not trusted: nothing in it is unpickled, and no memory is taken for more than it can hold.
"""

import math
import os
import struct
import tokenize
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from jaxgen import memory
from jaxgen.data import cache, splits
from jaxgen.data.images import Images, Int32Array, Target, UInt8Array, check_memory, fit_all, fit_each, full_range
from jaxgen.data.report import Report, summary
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray

GIVEN = "arrays given in Python"  # the name of such data in a run's records
Given = NDArray[Any] | tuple[NDArray[Any], NDArray[Any]] | Images

_DEFLATE_RATIO = 1032  # the most bytes that a byte of a deflated stream can stand for
_RULE = "images is uint8 [N, H, W], [N, H, W, 1] or [N, H, W, 3]"
_LARGEST_LABEL = 2**16  # so that a stray value does not make millions of classes


def read(
    path: str, split: str, target: Target, division: splits.Division, report: Report, on_disk: bool | None = None
) -> Images:
    """The images of one split: a seeded fraction is held out for testing. Resized images are cached."""
    name = f"arrays:{path}"
    file = cache.expand_user(path, name)
    original, held_out = _divide(_images(*_load(file, name, on_disk)), name, split, division)
    fitted = _fit(original, name, file, split, target, division, report, on_disk)
    _inform(original, fitted, name, split, target, held_out, report)
    return fitted


def from_python(given: Given, split: str, target: Target, division: splits.Division, report: Report) -> Images:
    """The images of one split of arrays that are in memory, divided as those in a file are."""
    original, held_out = _divide(_given_images(given), GIVEN, split, division)
    if target.size not in (None, original.images.shape[1:3]):
        original = full_range(original)
    fitted = original
    if target.shape_of(original.images) != original.images.shape[1:]:
        progress = partial(report.progress, task=f"{GIVEN}: resizing")
        fitted = original._replace(images=fit_all(np.asarray(original.images), target, progress))
    _inform(original, fitted, GIVEN, split, target, held_out, report)
    return fitted


def _given_images(given: Given) -> Images:
    if isinstance(given, Images):
        on_disk = isinstance(given.images, DiskArray)
        images = _checked_images(given.images if on_disk else np.asarray(given.images), GIVEN)
        return given._replace(images=images, labels=_checked_labels(np.asarray(given.labels), len(images), GIVEN))
    if not isinstance(given, tuple | list):
        return _images(_checked_images(np.asarray(given), GIVEN), None)
    if len(given) != 2:
        raise InputError(f"{GIVEN}: {len(given)} of them; give images, or images and labels")
    images = _checked_images(np.asarray(given[0]), GIVEN)
    return _images(images, _checked_labels(np.asarray(given[1]), len(images), GIVEN))


def _images(images: UInt8Array | DiskArray, labels: Int32Array | None) -> Images:
    if labels is None:
        return Images(images, np.zeros(len(images), np.int32))
    return Images(images, labels, classes=tuple(map(str, range(int(labels.max()) + 1))))


def _divide(everything: Images, name: str, split: str, division: splits.Division) -> tuple[Images, int]:
    """One split, and how many images are held out for testing."""
    count = len(everything.images)
    if count < 2:
        raise InputError(f"{name} holds a single image: to train and to test takes two")
    held_out = splits.held_out([str(index).encode() for index in range(count)], division)
    rows = np.array([index for index in range(count) if (index in held_out) == (split == "test")])
    return everything.select(rows), len(held_out)


def _inform(
    original: Images, fitted: Images, name: str, split: str, target: Target, held_out: int, report: Report
) -> None:
    distorted = len(original.images) if target.distorts(*original.images.shape[1:3]) else 0
    report.inform(summary(name, split, fitted, target, distorted, held_out if split == "train" else 0))


def _load(file: Path, name: str, on_disk: bool | None) -> tuple[UInt8Array | DiskArray, Int32Array | None]:
    try:
        with zipfile.ZipFile(file) as archive:
            size = os.path.getsize(file)
            images = _member(archive, "images", size, name, on_disk)
            labels = np.asarray(_member(archive, "labels", size, name)) if "labels.npy" in archive.namelist() else None
    except FileNotFoundError:
        raise InputError(f"{name}: there is no such file; if it was moved, name its new place (--data)") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{name} is damaged, or not a file of np.savez: {error}") from error
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, NotImplementedError, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} cannot be read: {error or 'there is not enough memory'}") from error
    images = _checked_images(images, name)
    return images, None if labels is None else _checked_labels(labels, len(images), name)


def _member(
    archive: zipfile.ZipFile, key: str, size: int, name: str, on_disk: bool | None = False
) -> NDArray[Any] | DiskArray:
    """Read one array. The size that its header claims is believed only as far as the file could hold as much.

    One that stays on disk must be stored as it is: `np.savez` does that, and `np.savez_compressed` does not.
    """
    try:
        info = archive.getinfo(f"{key}.npy")
    except KeyError:
        there = ", ".join(sorted(entry.removesuffix(".npy") for entry in archive.namelist())) or "nothing"
        raise InputError(f"{name} has no array {key!r}, only {there}; {_RULE}") from None
    with cast(zipfile.ZipExtFile, archive.open(info)) as stream:
        shape, fortran_order, dtype = _header(stream)
        if dtype.hasobject:
            raise InputError(f"{name}: {key} holds Python objects, which are not read: save it as uint8")
        claimed = math.prod(shape) * dtype.itemsize
        most = min(info.compress_size, size) * (1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO)
        if claimed > min(most, info.file_size):
            raise InputError(f"{name} is damaged: {key} claims {claimed:,} bytes, of which the file has fewer")
        if cache.stays_on_disk(claimed, on_disk):
            return _stored_member(archive, info, stream.tell(), shape, dtype, name, in_order=not fortran_order)
        content = np.empty(claimed, np.uint8)
        view, at = content.data, 0
        while at < claimed and (count := stream.readinto(view[at : at + 2**20])):
            at += count
        if at < claimed or stream.read(1):
            raise InputError(f"{name} is damaged: {key} claims {claimed:,} bytes, the file has another number of them")
    array = content.view(dtype)
    return array.reshape(shape[::-1]).T if fortran_order else array.reshape(shape)


def _stored_member(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    header_size: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    name: str,
    *,
    in_order: bool,
) -> DiskArray:
    """An array within the file, of which nothing is read."""
    if info.compress_type != zipfile.ZIP_STORED or not in_order:
        what = "compressed" if in_order else "in Fortran's order"
        raise InputError(
            f"{name}: its images are {what}, and take {memory.text(info.file_size)} in memory; to leave them on disk, "
            "save them with np.savez, in C order"
        )
    assert archive.filename is not None
    assert archive.fp is not None
    archive.fp.seek(info.header_offset + 26)
    lengths = struct.unpack("<HH", archive.fp.read(4))  # of the name and of the extra field, which follow
    return DiskArray(Path(archive.filename), info.header_offset + 30 + sum(lengths) + header_size, shape, dtype)


def _header(stream: zipfile.ZipExtFile) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    from numpy.lib import format as npy

    if (version := npy.read_magic(stream)) != (1, 0):  # later versions are for records with many fields
        raise ValueError(f"version {version} of the format, which plain arrays do not have")
    try:
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    except tokenize.TokenError as error:  # NumPy tries whether Python 2 wrote it
        raise ValueError(f"its header is damaged: {error.args[0]}") from error
    if any(length < 0 for length in shape):
        raise ValueError(f"a shape of {shape}")
    return shape, fortran_order, dtype


def _checked_images(images: NDArray[Any] | DiskArray, name: str) -> UInt8Array | DiskArray:
    if images.dtype != np.uint8:
        raise InputError(
            f"{name}: its images are {images.dtype}; {_RULE}. "
            "Save values in 0..1 as (images * 255).round().astype('uint8')"
        )
    if images.ndim == 3:
        images = images.reshape((*images.shape, 1))
    if images.ndim == 4 and images.shape[-1] not in (1, 3) and images.shape[1] in (1, 3):
        raise InputError(f"{name}: its images have channels first, {images.shape}; take images.transpose(0, 2, 3, 1)")
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or not images.size:
        raise InputError(f"{name}: its images have shape {images.shape}; {_RULE}")
    return images


def _checked_labels(labels: NDArray[Any], count: int, name: str) -> Int32Array:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise InputError(f"{name}: its labels are {labels.dtype} {labels.shape}; save {count} integers, one an image")
    if labels.min() < 0 or labels.max() >= _LARGEST_LABEL:
        raise InputError(f"{name}: its labels are {labels.min()} to {labels.max()}; number the classes from 0")
    return labels.astype(np.int32)


def _fit(
    original: Images,
    name: str,
    file: Path,
    split: str,
    target: Target,
    division: splits.Division,
    report: Report,
    on_disk: bool | None,
) -> Images:
    def make(collector: cache.Collector) -> cache.About:
        return collector.add_all(original, fit_each(report.progress(original.images, f"{name}: resizing"), target))

    shape = target.shape_of(original.images)
    if shape == original.images.shape[1:]:
        return original
    check_memory(1, *shape)
    state = file.stat()
    title = cache.fingerprint(file.resolve(), split, target, division)
    origin = cache.fingerprint(state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return cache.cached(f"arrays-{title[:32]}", origin, make, on_disk=on_disk).images
