"""MNIST, Fashion-MNIST and CIFAR-10 from their original files: where they lie, where they come from, what they must be.

Files that were put into the cache folder by hand are used where they lie, gzipped or not. Those that are not there are
fetched once. Either way the decompressed bytes are checked against the published sums before anything reads them.
"""

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.data import cache, fetch, files
from jaxgen.data.pixels import Pixels, fit_all
from jaxgen.errors import InputError


class Original(NamedTuple):
    name: str
    digest: str  # of the decompressed bytes, in hex: 64 characters are SHA-256, 32 are MD5


class Collection(NamedTuple):
    shape: tuple[int, int, int]  # of an image
    places: tuple[str, ...]  # in the cache folder; what is fetched comes into the first
    sources: tuple[str, ...]  # addresses of a folder with the files
    files: dict[str, tuple[Original, ...]]  # by split
    archive: str | None = None  # the files come packed in this one; otherwise each as a .gz


def _by_split(names: tuple[str, ...], training: int, digests: tuple[str, ...]) -> dict[str, tuple[Original, ...]]:
    """The first `training` files are the training split's, the others the test's."""
    originals = tuple(Original(name, digest) for name, digest in zip(names, digests, strict=True))
    return {"train": originals[:training], "test": originals[training:]}


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_CIFAR = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")

COLLECTIONS = {
    "mnist": Collection(
        shape=(28, 28, 1),
        places=("mnist", "mnist/raw", "MNIST", "MNIST/raw", "."),
        sources=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        files=_by_split(
            _IDX,
            2,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    ),
    "fashion_mnist": Collection(
        shape=(28, 28, 1),
        places=("fashion_mnist", "fashion_mnist/raw", "fashion-mnist", "FashionMNIST", "FashionMNIST/raw", "."),
        sources=(
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        files=_by_split(
            _IDX,
            2,
            (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            ),
        ),
    ),
    "cifar10": Collection(
        shape=(32, 32, 3),
        places=("cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "CIFAR10", "."),
        sources=("https://www.cs.toronto.edu/~kriz/",),
        files=_by_split(
            _CIFAR,
            5,
            (
                "5dd7e06a14cb22eb9f671a540d1b7c25",
                "5ea93a67294ea407fff1d09f752e9692",
                "942cd6a4bcdd0dd3c604fbe906cb4421",
                "ae636b3ba5c66a11e91e8cb52e771fcb",
                "53f37980c15c3d472c316c40844f3f0d",
                "803d5f7f4d78ea53de84dbe85f74fb6d",
            ),
        ),
        archive="cifar-10-binary.tar.gz",
    ),
}


def read(
    name: str, split: str, size: tuple[int, int] | None, channels: int | None, log: Callable[[str], object]
) -> Pixels:
    """The images of a split in the given size and channels. Resized ones are remembered by the published sums."""
    collection = COLLECTIONS[name]
    height, width, depth = collection.shape
    target = (*(size or (height, width)), channels or depth)

    def make() -> cache.Prepared:
        images, labels = _arrays(name, split, log)
        return cache.Prepared(Pixels(fit_all(images, target[:2], target[2]), labels))

    if target == collection.shape:
        return make().pixels
    title = "-".join([name, split, "x".join(map(str, target))])
    return cache.remembered(title, cache.fingerprint(collection.files[split], target), make).pixels


def _arrays(name: str, split: str, log: Callable[[str], object]) -> tuple[np.ndarray, np.ndarray]:
    loaded = _load(name, split, log)
    if COLLECTIONS[name].archive:
        batches = [files.cifar_batch(blob, path) for path, blob in loaded]
        return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])
    (images_path, images_blob), (labels_path, labels_blob) = loaded
    images, labels = files.idx_images(images_blob, images_path), files.idx_labels(labels_blob, labels_path)
    if len(images) != len(labels):
        raise InputError(f"{images_path} has {len(images)} images, {labels_path} {len(labels)} labels")
    return images, labels


def at_hand() -> list[str]:
    """The collections that lie in the cache folder, not yet checked."""
    return [name for name, collection in COLLECTIONS.items() if _complete(collection)]


def _complete(collection: Collection) -> bool:
    if _archive_at_hand(collection):
        return True
    return all(any(_candidates(collection, file)) for split in collection.files.values() for file in split)


def _candidates(collection: Collection, original: Original) -> Iterator[Path]:
    """Files that may be the original, by where they lie and what they are called."""
    dotted = original.name.replace("-idx", ".idx")  # as some programs name it when they unpack it
    for place in collection.places:
        for name in dict.fromkeys([original.name, dotted]):
            for path in (cache.folder() / place / name, cache.folder() / place / f"{name}.gz"):
                if path.is_file():
                    yield path


def _archive_at_hand(collection: Collection) -> Path | None:
    if collection.archive is None:
        return None
    paths = (cache.folder() / place / collection.archive for place in collection.places)
    return next((path for path in paths if path.is_file()), None)


def _load(name: str, split: str, log: Callable[[str], object]) -> list[tuple[Path, bytes]]:
    """Path and decompressed bytes of each file of a split, checked; brought here first where they are missing."""
    collection = COLLECTIONS[name]
    loaded = []
    for original in collection.files[split]:
        found = _find(collection, original)
        if found is None:
            _provide(name, original, log)
            found = _find(collection, original)
        assert found is not None, "what was provided was checked and lies in the first place"
        loaded.append(found)
    return loaded


def _find(collection: Collection, original: Original) -> tuple[Path, bytes] | None:
    for path in _candidates(collection, original):
        blob = files.contents(path)
        if (digest := _digest(blob, original)) == original.digest:
            return path, blob
        if path.parent == cache.folder() and _is_published(digest):
            continue  # MNIST and Fashion-MNIST use the same names, so here it may be the other one
        raise InputError(
            f"{path} is damaged or another file: its checksum is {digest}, the published one is {original.digest}; "
            "replace it, or remove it to have it fetched"
        )
    return None


def _is_published(digest: str) -> bool:
    splits = (split for collection in COLLECTIONS.values() for split in collection.files.values())
    return any(digest == original.digest for split in splits for original in split)


def _digest(blob: bytes, original: Original) -> str:
    method = hashlib.sha256 if len(original.digest) == 64 else hashlib.md5
    return method(blob, usedforsecurity=False).hexdigest()


def _provide(name: str, original: Original, log: Callable[[str], object]) -> None:
    """Brings an original into the first of its places, from an archive that lies there or from the network."""
    collection = COLLECTIONS[name]
    packed = collection.archive or f"{original.name}.gz"
    archive = _archive_at_hand(collection)
    source = archive or _address(name, original, packed)
    home = cache.folder() / collection.places[0]
    with _writable(home), cache.room(home) as room:
        if archive is None:
            log(f"fetching {source} into {home}")
            fetch.download(str(source), room / packed)
        wanted = {room / packed: original}
        if collection.archive:
            wanted = {room / file.name: file for split in collection.files.values() for file in split}
            _unpack(archive or room / packed, [path.name for path in wanted], room)
        for path, file in wanted.items():
            if not path.exists() or _digest(files.contents(path), file) != file.digest:
                raise InputError(f"{source} does not hold the published {file.name}: it is damaged or another file")
        for path in wanted:
            os.replace(path, home / path.name)


def _address(name: str, original: Original, packed: str) -> str:
    """Where to fetch a file from; if nowhere, the error that says what else there is."""
    urls = [source + packed for source in COLLECTIONS[name].sources]
    if url := fetch.first_to_answer(urls):
        return url
    home = cache.folder() / COLLECTIONS[name].places[0]
    here = ", ".join(["digits", "faces", *at_hand()])
    raise InputError(
        f"{name}: {original.name} is not in {home}, and {' and '.join(urls)} cannot be reached. "
        f"Put {packed} into that folder by hand; or take other data that is here: {here}; "
        "or your own images: folder:PATH"
    )


@contextmanager
def _writable(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{home} cannot be written to ({error}); set JAXGEN_DATA to a folder that can") from error


def _unpack(archive: Path, names: list[str], room: Path) -> None:
    """Unpacks the files of these names, whichever folder of the archive they lie in, straight into `room`."""

    def only(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo | None:
        member = tarfile.data_filter(member, destination)  # refuses what would land outside, links and devices too
        name = Path(member.name).name
        wanted = name in names and member.isreg() and member.size <= files.LARGEST
        return member.replace(name=name) if wanted else None

    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(room, filter=only)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{archive} cannot be unpacked: {error}") from error
