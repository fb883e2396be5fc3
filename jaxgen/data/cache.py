"""The cache folder, and prepared images that are kept there: decoded and resized once.

An entry is one file: a line of JSON, the bytes of the images, the bytes of the labels, and the SHA-256 of all these.
It is staged beside its place and moved there once it is complete. An entry that is damaged, or was made from other
input, is ignored and made again. Where there is no cache folder, or it cannot be written, nothing is kept.
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

from jaxgen.data.images import Images
from jaxgen.errors import InputError

_FORMAT = 2  # to be increased whenever the same options come to mean other bytes
_DIGEST = hashlib.sha256().digest_size


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


def fingerprint(*parts: Any) -> str:
    """A digest of all that an entry is made from, including Pillow's version, which determines how it resizes."""
    from PIL import __version__ as pillow

    return hashlib.sha256(repr((_FORMAT, pillow, *parts)).encode("utf-8", "surrogateescape")).hexdigest()


def cached(title: str, origin: str, make: Callable[[], Prepared]) -> Prepared:
    """Return the entry `title` if it was made from the same `origin`; otherwise call `make` and keep its result.

    A title has one entry: of a folder whose content changes, only the last state is kept.
    """
    try:
        path = folder() / "prepared" / title
    except InputError:
        return make()
    with suppress(OSError, ValueError):
        return _read(path, origin)
    prepared = make()
    with suppress(OSError):  # a full or read-only disk makes the next start slower, and nothing else
        _write(path, origin, prepared)
    return prepared


def _read(path: Path, origin: str) -> Prepared:
    with path.open("rb") as file:
        line = file.readline()
        body = np.fromfile(file, np.uint8)  # an array rather than bytes, so that the images in it are writable
    digest = hashlib.sha256(line)
    digest.update(body[:-_DIGEST].data)
    if digest.digest() != body[-_DIGEST:].tobytes():
        raise ValueError("damaged")
    header = json.loads(line)
    if header["origin"] != origin:
        raise ValueError("made from other input")
    size = math.prod(header["shape"])
    labels = np.frombuffer(body[size:-_DIGEST].tobytes(), "<i4").astype(np.int32)
    images = Images(body[:size].reshape(header["shape"]), labels, header["white"], tuple(header["classes"]))
    return Prepared(images, tuple(header["skipped"]), header["distorted"])


def _write(path: Path, origin: str, prepared: Prepared) -> None:
    images, labels, white, classes = prepared.images
    header = {
        "origin": origin,
        "shape": images.shape,
        "white": white,
        "classes": classes,
        "skipped": prepared.skipped,
        "distorted": prepared.distorted,
    }
    digest = hashlib.sha256()
    with staging_dir(path.parent) as staging:
        with (staging / path.name).open("wb") as file:
            for part in (
                json.dumps(header).encode() + b"\n",
                np.ascontiguousarray(images).data,
                labels.astype("<i4").tobytes(),
            ):
                digest.update(part)
                file.write(part)
            file.write(digest.digest())
        os.replace(staging / path.name, path)


@contextmanager
def staging_dir(place: Path) -> Iterator[Path]:
    """A temporary folder inside `place`. A file that is moved from it into `place` appears there complete."""
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=place) as name:
        yield Path(name)
