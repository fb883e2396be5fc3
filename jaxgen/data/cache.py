"""Where data is kept between runs: the cache folder, and images that were decoded and resized once.

An entry is one file: a line of JSON, the bytes of the images, the bytes of the labels, and the SHA-256 of all that.
It is written beside its place and moved there whole. An entry that is damaged, or was made from something else, is as
good as none: it is made again.
"""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data.pixels import Pixels

_FORMAT = 1  # to be raised when the same options come to mean other bytes
_DIGEST = hashlib.sha256().digest_size


class Prepared(NamedTuple):
    pixels: Pixels
    skipped: tuple[str, ...] = ()  # what could not be read, and why: a second run has to tell of it too


def folder() -> Path:
    """`JAXGEN_DATA`, or else the place that the system has for a user's caches."""
    if given := os.environ.get("JAXGEN_DATA"):
        return Path(given).expanduser()
    import pooch

    return Path(pooch.os_cache("jaxgen")).expanduser()


def fingerprint(*parts: Any) -> str:
    """One name for all that an entry is made from, Pillow's version included: its resize is part of the data."""
    from PIL import __version__ as pillow

    return hashlib.sha256(repr((_FORMAT, pillow, *parts)).encode("utf-8", "surrogateescape")).hexdigest()


def remembered(title: str, origin: str, make: Callable[[], Prepared]) -> Prepared:
    """What `make` returned when it was called for the same `title` and `origin` before; else what it returns now.

    A title has one entry: of a folder that changes, only the last state is kept.
    """
    path = folder() / "prepared" / title
    with suppress(OSError, ValueError):
        return _read(path, origin)
    prepared = make()
    with suppress(OSError):  # a full or read-only disk costs the next run its quick start, and nothing else
        _write(path, origin, prepared)
    return prepared


def _read(path: Path, origin: str) -> Prepared:
    content = path.read_bytes()
    body = memoryview(content)[:-_DIGEST]
    if hashlib.sha256(body).digest() != content[-_DIGEST:]:
        raise ValueError("damaged")
    start = content.index(b"\n") + 1
    header = json.loads(content[:start])
    if header["origin"] != origin:
        raise ValueError("made from something else")
    shape = header["shape"]
    images = np.frombuffer(body, np.uint8, math.prod(shape), start).reshape(shape)
    labels = np.frombuffer(body, "<i4", shape[0], start + images.size).astype(np.int32)
    return Prepared(Pixels(images, labels), tuple(header["skipped"]))


def _write(path: Path, origin: str, prepared: Prepared) -> None:
    images, labels, _ = prepared.pixels
    header = {"origin": origin, "shape": images.shape, "skipped": prepared.skipped}
    digest = hashlib.sha256()
    with room(path.parent) as beside:
        with (beside / path.name).open("wb") as file:
            for part in (
                json.dumps(header).encode() + b"\n",
                np.ascontiguousarray(images).data,
                labels.astype("<i4").tobytes(),
            ):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
        os.replace(beside / path.name, path)


@contextmanager
def room(place: Path) -> Iterator[Path]:
    """A folder within `place` to work in, gone afterwards. What is moved out of it into `place` appears there whole."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=place) as name:
        yield Path(name)
