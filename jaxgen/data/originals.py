"""MNIST, its relatives and CIFAR-10 from their original files: where they are, how they are fetched and checked.

Files that were put into the cache folder by hand are used where they are, gzipped or not. Some data sets are fetched
if they are missing. The decompressed bytes are compared with the published checksums, where there are any.
"""

import gzip
import hashlib
import os
import string
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.data import cache, fetch, files, tfds
from jaxgen.data.images import Images, Int32Array, Target, UInt8Array, check_memory, fit_all, fit_each
from jaxgen.data.report import Report
from jaxgen.errors import InputError

Loaded = list[tuple[Path, bytes]]  # path and decompressed bytes of each file of a split


class Original(NamedTuple):
    """A file of a data set.

    Attributes:
        name: what it is called when it is not compressed.
        digest: checksum of the decompressed bytes in hex: 64 characters are SHA-256, 32 are MD5. None: not published.
    """

    name: str
    digest: str | None = None


class Collection(NamedTuple):
    """A data set that consists of original files.

    Attributes:
        shape: of an image.
        classes: the names of the classes.
        places: folders in the cache folder where the files may be; what is fetched is put into the first.
        files: the files of each split.
        parse: from the files of a split to images and labels.
        sources: addresses of a folder with the files; none if they are not fetched.
        archive: the files come packed in this one; otherwise each comes as a .gz.
        alternative: the same data in other files, which are used if they are there.
        tfds: the name under which TensorFlow Datasets may have it, if it is not used under this name only.
        transposed: rows and columns of the images are exchanged.
        first_label: the smallest label in the files.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    places: tuple[str, ...]
    files: dict[str, tuple[Original, ...]]
    parse: Callable[[Loaded], tuple[UInt8Array, Int32Array]]
    sources: tuple[str, ...] = ()
    archive: str | None = None
    alternative: "Collection | None" = None
    tfds: str | None = None
    transposed: bool = False
    first_label: int = 0


def _by_split(names: tuple[str, ...], training: int, digests: tuple[str, ...] = ()) -> dict[str, tuple[Original, ...]]:
    """The first `training` files belong to the training split, the others to the test split."""
    originals = tuple(
        Original(name, digest) for name, digest in zip(names, digests or [None] * len(names), strict=True)
    )
    return {"train": originals[:training], "test": originals[training:]}


def _parse_idx(loaded: Loaded) -> tuple[UInt8Array, Int32Array]:
    (images_path, images), (labels_path, labels) = loaded
    return files.idx_images(images, images_path), files.idx_labels(labels, labels_path)


def _parse_qmnist(loaded: Loaded) -> tuple[UInt8Array, Int32Array]:
    (images_path, images), (labels_path, labels) = loaded
    return files.idx_images(images, images_path), files.idx_qmnist_labels(labels, labels_path)


def _parse_cifar(loaded: Loaded) -> tuple[UInt8Array, Int32Array]:
    return _joined([files.cifar_batch(blob, path) for path, blob in loaded])


def _parse_cifar_pickles(loaded: Loaded) -> tuple[UInt8Array, Int32Array]:
    return _joined([files.cifar_pickle(blob, path) for path, blob in loaded])


def _joined(batches: list[tuple[UInt8Array, Int32Array]]) -> tuple[UInt8Array, Int32Array]:
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


_SHARED = (".", "raw")  # places where files of several data sets may be
_DIGITS = tuple(string.digits)
_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def _idx_places(*names: str) -> tuple[str, ...]:
    return tuple(place for name in names for place in (name, f"{name}/raw"))


_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# CIFAR-10 as torchvision has it. The checksums are torchvision's.
_CIFAR10_PYTHON = Collection(
    shape=(32, 32, 3),
    classes=_CIFAR10_CLASSES,
    places=(
        "cifar10",
        "cifar10/cifar-10-batches-py",
        "cifar-10-batches-py",
        "CIFAR10",
        "CIFAR10/cifar-10-batches-py",
        ".",
    ),
    files=_by_split(
        _BATCHES,
        5,
        (
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
            "40351d587109b95175f43aff81a1287e",
        ),
    ),
    parse=_parse_cifar_pickles,
    archive="cifar-10-python.tar.gz",
)

# Letters whose capitals look alike share a class in all but `byclass`.
_EMNIST_MERGED = tuple(sorted({*string.digits, *string.ascii_letters} - set("cijklmopsuvwxyz")))
_EMNIST_CLASSES = {
    "byclass": tuple(string.digits + string.ascii_uppercase + string.ascii_lowercase),
    "bymerge": _EMNIST_MERGED,
    "balanced": _EMNIST_MERGED,
    "letters": tuple(string.ascii_lowercase),
    "digits": _DIGITS,
    "mnist": _DIGITS,
}


def _emnist(part: str) -> Collection:
    names = (f"emnist-{part}-{split}-{kind}" for split in ("train", "test") for kind in ("images-idx3", "labels-idx1"))
    return Collection(
        shape=(28, 28, 1),
        classes=_EMNIST_CLASSES[part],
        places=(*_idx_places("emnist", "EMNIST"), "emnist/gzip", "EMNIST/raw/gzip", "gzip", *_SHARED),
        files=_by_split(tuple(f"{name}-ubyte" for name in names), 2),
        parse=_parse_idx,
        tfds=f"emnist/{part}",
        transposed=True,
        first_label=1 if part == "letters" else 0,
    )


_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

COLLECTIONS = {
    "mnist": Collection(
        shape=(28, 28, 1),
        classes=_DIGITS,
        places=(*_idx_places("mnist", "MNIST"), *_SHARED),
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
        parse=_parse_idx,
    ),
    "fashion_mnist": Collection(
        shape=(28, 28, 1),
        classes=_FASHION_CLASSES,
        places=(*_idx_places("fashion_mnist", "fashion-mnist", "FashionMNIST"), *_SHARED),
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
        parse=_parse_idx,
    ),
    "cifar10": Collection(
        shape=(32, 32, 3),
        classes=_CIFAR10_CLASSES,
        places=("cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "CIFAR10", "."),
        sources=("https://www.cs.toronto.edu/~kriz/",),
        files=_by_split(
            tuple(f"{name}.bin" for name in _BATCHES),
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
        parse=_parse_cifar,
        archive="cifar-10-binary.tar.gz",
        alternative=_CIFAR10_PYTHON,
    ),
    "kmnist": Collection(
        shape=(28, 28, 1),
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        places=_idx_places("kmnist", "KMNIST"),
        files=_by_split(_IDX, 2),
        parse=_parse_idx,
        tfds="kmnist",
    ),
    "qmnist": Collection(
        shape=(28, 28, 1),
        classes=_DIGITS,
        places=(*_idx_places("qmnist", "QMNIST"), *_SHARED),
        files=_by_split(
            tuple(
                f"qmnist-{split}-{kind}"
                for split in ("train", "test")
                for kind in ("images-idx3-ubyte", "labels-idx2-int")
            ),
            2,
        ),
        parse=_parse_qmnist,
    ),
    **{f"emnist_{part}": _emnist(part) for part in _EMNIST_CLASSES},
}


def read(name: str, split: str, target: Target, report: Report) -> Images:
    """The images of a split. Resized ones are cached under the published checksums, and read without the originals."""
    collection = COLLECTIONS[name]
    height, width, depth = collection.shape
    shape = (*(target.size or (height, width)), target.channels or depth)
    if shape == collection.shape:
        return _originals(name, split, report)
    check_memory(1, *shape)
    progress = partial(report.progress, task=f"{name}: resizing")
    if not all(file.digest for file in collection.files[split]):
        images = _originals(name, split, report)
        return images._replace(images=fit_all(np.asarray(images.images), target, progress))

    def make(collector: cache.Collector) -> cache.About:
        images = _originals(name, split, report)
        return collector.add_all(images, fit_each(progress(images.images), target))

    title = "-".join([name, split, "x".join(map(str, shape)), *(["crop"] if target.crop else [])])
    return cache.cached(title, cache.fingerprint(collection.files[split], target), make, on_disk=False).images


def _originals(name: str, split: str, report: Report) -> Images:
    collection = COLLECTIONS[name]
    if collection.tfds and not _available(collection, split) and tfds.is_prepared(collection.tfds):
        found = tfds.read(collection.tfds, split, Target(), Report(lambda _: None), on_disk=False)
        images, labels = np.asarray(found.images), found.labels
    else:
        form = _form(collection, split)
        loaded = _load(name, form, split, report)
        images, labels = form.parse(loaded)
        if len(images) != len(labels):
            raise InputError(f"{loaded[0][0]} has {len(images)} images, {loaded[1][0]} has {len(labels)} labels")
    if images.shape[1:] != collection.shape:
        raise InputError(f"{name}: its images are {images.shape[1:]} instead of {collection.shape}")
    labels = labels - np.int32(collection.first_label)
    if labels.min() < 0 or labels.max() >= len(collection.classes):
        raise InputError(
            f"{name}: its labels are {labels.min()} to {labels.max()}, for {len(collection.classes)} classes"
        )
    if collection.transposed:
        images = images.transpose(0, 2, 1, 3)
    return Images(images, labels, classes=collection.classes)


def _form(collection: Collection, split: str) -> Collection:
    """The form of the data set that is there: the alternative if only that is."""
    alternative = collection.alternative
    return (
        alternative
        if alternative and not _available(collection, split) and _available(alternative, split)
        else collection
    )


def at_hand() -> list[str]:
    """The data sets that need not be fetched. Their files are not checked yet."""
    return [name for name, collection in COLLECTIONS.items() if _complete(collection)]


def _complete(collection: Collection) -> bool:
    forms = (collection, *([collection.alternative] if collection.alternative else []))
    return any(all(_available(form, split) for split in form.files) for form in forms)


def _available(collection: Collection, split: str) -> bool:
    return bool(_archive_at_hand(collection)) or all(
        any(_candidates(collection, file)) for file in collection.files[split]
    )


def _candidates(collection: Collection, original: Original) -> Iterator[tuple[str, Path]]:
    """Files that may be the original, by their place and name."""
    dotted = original.name.replace("-idx", ".idx")  # as some programs name it when they unpack it
    for place in collection.places:
        folder = cache.folder() / place
        for name in dict.fromkeys([original.name, dotted]):
            # Kaggle's copy, once unpacked, has a folder for each file, of the same name.
            for path in (folder / name, folder / f"{name}.gz", folder / name / name, folder / f"{name}.gz" / name):
                if os.path.isfile(path):
                    yield place, path


def _archive_at_hand(collection: Collection) -> Path | None:
    if collection.archive is None:
        return None
    paths = (cache.folder() / place / collection.archive for place in collection.places)
    return next((path for path in paths if os.path.isfile(path)), None)


def _load(name: str, collection: Collection, split: str, report: Report) -> Loaded:
    """The files of a split, checked; those that are missing come from an archive or the network."""
    loaded: dict[Original, tuple[Path, bytes]] = {}
    for original in collection.files[split]:
        found = loaded.get(original) or _find(collection, original)
        if found is None:
            loaded |= _provide(name, collection, original, report)
            found = loaded[original]
        loaded[original] = found
    return [loaded[original] for original in collection.files[split]]


def _find(collection: Collection, original: Original) -> tuple[Path, bytes] | None:
    for place, path in _candidates(collection, original):
        blob = files.contents(path)
        if _is_genuine(blob, original):
            return path, blob
        if place in _SHARED and _is_published(blob, original.name):
            continue  # MNIST and Fashion-MNIST use the same names, so in a shared place it may be the other one
        if original.digest is None:
            raise InputError(f"{path} is another data set's file of the same name; replace it")
        remedy = "replace it, or remove it to have it downloaded" if collection.sources else "replace it"
        raise InputError(
            f"{path} is damaged or another file: its checksum is not the published one, {original.digest}; {remedy}"
        )
    return None


def _is_genuine(blob: bytes, original: Original) -> bool:
    """Whether a file has its published checksum, or, where there is none, not that of another data set's file."""
    if original.digest is None:
        return not _is_published(blob, original.name)
    method = hashlib.sha256 if len(original.digest) == 64 else hashlib.md5
    return method(blob, usedforsecurity=False).hexdigest() == original.digest


def _is_published(blob: bytes, name: str) -> bool:
    """Whether these are the bytes of the file of this name of any data set."""
    splits = (split for collection in COLLECTIONS.values() for split in collection.files.values())
    same_name = (file for split in splits for file in split if file.name == name)
    return any(file.digest and _is_genuine(blob, file) for file in same_name)


def _provide(
    name: str, collection: Collection, original: Original, report: Report
) -> dict[Original, tuple[Path, bytes]]:
    """Bring a file, and what is packed with it, into the first of its places, from an archive there or the network.

    An archive in a folder that cannot be written to is unpacked elsewhere, for this time.
    """
    packed = collection.archive or f"{original.name}.gz"
    archive = _archive_at_hand(collection)
    source = archive or _address(name, original, packed)
    home = cache.folder() / collection.places[0]
    with ExitStack() as stack:
        stack.enter_context(_writable(home))
        try:
            staging = stack.enter_context(cache.staging_dir(home))
        except OSError:
            if archive is None:
                raise
            home = staging = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if archive is None:
            report.warn(f"fetching {source} into {home}")
            fetch.download(str(source), staging / packed)
        wanted = {original: staging / packed}
        if collection.archive:
            wanted = {file: staging / file.name for split in collection.files.values() for file in split}
            _unpack(archive or staging / packed, [path.name for path in wanted.values()], staging)
        provided = {}
        for file, path in wanted.items():
            if not path.exists() or not _is_genuine(blob := files.contents(path), file):
                raise InputError(f"{source} does not hold the published {file.name}: it is damaged or another file")
            provided[file] = (home / path.name, blob)
        for path in wanted.values():
            os.replace(path, home / path.name)
    return provided


def _address(name: str, original: Original, packed: str) -> str:
    """Where to fetch a file from. If it cannot be fetched, raise the error that says what else there is."""
    collection = COLLECTIONS[name]
    urls = [source + packed for source in collection.sources]
    if url := fetch.first_to_answer(urls):
        return url
    home = cache.folder() / collection.places[0]
    here = ", ".join(["digits", "faces", *at_hand()])
    unreachable = f", and {' and '.join(urls)} cannot be reached" if urls else ""
    by_hand = packed if not collection.alternative else f"{packed} or {collection.alternative.archive}"
    prepared = f" or prepare tfds:{collection.tfds};" if collection.tfds else ""
    raise InputError(
        f"{name}: {original.name} is not in {home}{unreachable}. "
        f"Put {by_hand} into that folder by hand;{prepared} or take other data that is here: {here}; "
        "or your own images: folder:PATH"
    )


@contextmanager
def _writable(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{home} cannot be written to ({error}); set JAXGEN_DATA to a folder that can") from error


def _unpack(archive: Path, names: list[str], staging: Path) -> None:
    """Unpack the files of these names, whichever folder of the archive they are in, straight into `staging`."""

    def only(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo | None:
        member = tarfile.data_filter(member, destination)  # refuses what would land outside, links and devices too
        name = Path(member.name).name
        wanted = name in names and member.isreg() and member.size <= files.LARGEST
        return member.replace(name=name) if wanted else None

    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(staging, filter=only)
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"{archive} cannot be unpacked: {error}") from error
