"""Data sets by name: `load("digits")` returns images and labels as NumPy arrays in host memory."""

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import arrays, cache, digits, faces, folder, originals, splits, tfds
from jaxgen.data.arrays import GIVEN, Given
from jaxgen.data.images import Images, Size, Target
from jaxgen.data.pictures import load_pictures
from jaxgen.data.report import Report
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray

__all__ = [
    "GIVEN",
    "NAMES",
    "Given",
    "Images",
    "about",
    "absolute",
    "check_same_shape",
    "hold_out",
    "load",
    "load_pictures",
    "load_splits",
]

_MOST_HELD_OUT = 2000  # images that are held out of data on disk
_ON_DISK = "folder:PATH, arrays:FILE.npz and tfds:NAME"

NAMES = ("digits", "faces", *originals.COLLECTIONS, "tfds:NAME", "folder:PATH", "arrays:FILE.npz")


def load(
    name: str | Given,
    split: str = "train",
    *,
    size: Size | None = None,
    channels: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    log: Callable[[str], object] | None = None,
    on_disk: bool | None = None,
) -> Images:
    """Load one split of a data set.

    Args:
        name: one of

            - `digits`: scikit-learn's 8×8 digits. They have no test split: `test` is the same 1,797 images again.
            - `faces`: cartoon faces drawn by this project, 56×56, without labels.
            - `mnist`, `fashion_mnist`, `cifar10`: from files in the cache folder (`JAXGEN_DATA`, or the user's
              cache), or fetched into it.
            - `kmnist`, `qmnist`, `emnist_letters`, `emnist_balanced`, `emnist_digits`, `emnist_mnist`,
              `emnist_bymerge`, `emnist_byclass`: from files in the cache folder or, but for `qmnist`, as TensorFlow
              Datasets has prepared them. EMNIST is upright here, and its labels start from 0.
            - `tfds:NAME`: any image data set of TensorFlow Datasets.
            - `folder:PATH`: pictures in all formats that Pillow reads, in `PATH/train/CLASS` and `PATH/test/CLASS`
              (training, testing, val, valid, validation, eval, dev and any case are understood too), or in
              `PATH/CLASS` or `PATH`, of which a part is held out for testing.
            - `arrays:FILE.npz`: `images`, uint8 `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]`, and `labels`,
              integers `[N]` from 0, if there are any. A part is held out for testing.
            - not a name but such arrays themselves: images, a pair of images and labels, or an `Images`.
        split: `train` or `test`.
        size: height and width to resize to, with Pillow's antialiased bilinear filter. None keeps the size.
        channels: 1 converts to gray, after resizing; 3 converts to RGB. None keeps the channels.
        crop: keep the proportions: resize so that the image covers `size`, then crop its centre. For a square this
            is torchvision's `Resize` and `CenterCrop`. Otherwise images are squeezed or stretched to `size`.
        skip_bad: leave out a folder's unreadable files, with a line to `log` for each, instead of refusing them.
        test_fraction: the part of a folder or file without splits that is held out, between 0 and 1.
        split_seed: determines which part that is.
        log: called with a line that summarises what was loaded from folders, files and TensorFlow Datasets, and
            with a line for each download, for each file that was skipped, and for progress. By default, lines go to
            the logger `jaxgen.data`.
        on_disk: whether the images of a folder, an array file or a data set of TensorFlow Datasets stay on disk, as a
            `DiskArray` from which rows are read by indexing: pictures in the cache folder, once they are decoded, and
            arrays in their file. None: where they take more than half of the memory that is free.

    Returns:
        The images, uint8 `[N, H, W, C]`, with labels, white and the names of the classes.

    Raises:
        InputError: unknown name, split or option; data that are not there and cannot be fetched; a file that is
            damaged or of the wrong kind. The message names it and the remedy.
    """
    _check(split, size, channels, crop, test_fraction)
    division = splits.Division(test_fraction, split_seed)
    target = Target(size and (size[0], size[1]), channels, crop)
    loaded = _read(name, split, target, division, skip_bad, Report(log), on_disk)
    if isinstance(loaded.images, DiskArray):
        return loaded
    if on_disk:
        shown = name if isinstance(name, str) else GIVEN
        raise InputError(f"{shown}: these data are kept in memory; what can stay on disk is {_ON_DISK}")
    return loaded._replace(images=np.require(loaded.images, np.uint8, ["C", "W"]))


def absolute(name: str) -> str:
    """The name of a data set with an absolute path, if it has a path: it means the same from any working directory.

    Raises:
        InputError: the path starts with a home folder that is not known.
    """
    kind, _, path = name.partition(":")
    if kind not in ("folder", "arrays") or not path:
        return name
    return f"{kind}:{cache.expand_user(path, name).absolute()}"


def load_splits(name: str | Given, **options: Any) -> tuple[Images, Images]:
    """`load` both splits, whose images must be of one shape. `log` is told about the training images.

    Where the training images stay on disk, the test images are in memory, and at most 2,000 from all over them.

    Args:
        name: as `load` takes it.
        options: as `load` takes them.

    Raises:
        InputError: as `load` does, or the splits' images differ in shape.
    """
    train, test = load(name, **options), load(name, "test", **(options | {"log": None}))
    check_same_shape(train, test)
    return train, _sample(test) if isinstance(train.images, DiskArray) else test


def hold_out(images: Images, fraction: float, seed: int = 0) -> tuple[Images, Images]:
    """Divide training images into those to train on and those to validate on.

    Args:
        images: the training images.
        fraction: the part to validate on, from 0 to below 1; at least one image unless it is 0.
        seed: determines which part that is.

    Returns:
        Both. Where the images are on disk, those to train on stay there, and at most 2,000 of the others, from all over
        them, are in memory.

    Raises:
        InputError: there is a single image, which cannot be divided.
    """
    count = len(images.images)
    if fraction and count < 2:
        raise InputError("a single training image: to train and to validate takes two")
    chosen = np.zeros(count, bool)
    if fraction:
        names = [str(row).encode() for row in range(count)]
        chosen[list(splits.held_out(names, splits.Division(fraction, seed)))] = True
    if isinstance(images.images, DiskArray) and not fraction:
        return images, _sample(images.select(chosen))
    train, validation = (images.select(rows) for rows in (~chosen, chosen))
    return train, _sample(validation) if isinstance(images.images, DiskArray) else validation


def _sample(images: Images) -> Images:
    """At most 2,000 of the images, from all over them, in memory; always the same ones."""
    order = np.random.default_rng(0).permutation(len(images.images))
    some = images.select(np.sort(order[:_MOST_HELD_OUT]))
    return some._replace(images=np.asarray(some.images))


def about(name: str, train: Images, held_out: Images | None = None) -> dict[str, object]:
    """What a data set is, for a run's records: without the folders that it is in.

    Args:
        name: as `load` took it.
        train: the training images.
        held_out: the images that are not trained on, if there are any.
    """
    kind, _, path = name.partition(":")
    count, height, width, channels = train.images.shape
    return {
        "name": f"{kind}:{Path(path).name}" if kind in ("folder", "arrays") else name,
        "images": count,
        "size": [height, width],
        "channels": channels,
        "white": train.white,
        "classes": list(train.classes),
        "held_out": 0 if held_out is None else len(held_out.images),
    }


def check_same_shape(train: Images, test: Images) -> None:
    """Raise InputError if the images of the two splits differ in shape, as those of a folder may."""
    shapes = ["×".join(map(str, images.images.shape[1:])) for images in (train, test)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"the training images are {shapes[0]}, the test images {shapes[1]}; give a size to make them alike"
        )


def _read(
    name: str | Given,
    split: str,
    target: Target,
    division: splits.Division,
    skip_bad: bool,
    report: Report,
    on_disk: bool | None,
) -> Images:
    if not isinstance(name, str):
        return arrays.from_python(name, split, target, division, report)
    if name == GIVEN:
        raise InputError(f"the run's data are {GIVEN}: give them again, as in main(config, data=images)")
    kind, _, path = name.partition(":")
    if name == "digits":
        return digits.read(target)
    if name == "faces":
        return faces.read(split, target)
    if name in originals.COLLECTIONS:
        return originals.read(name, split, target, report)
    if kind == "tfds" and path:
        return tfds.read(path, split, target, report, on_disk)
    if kind == "folder" and path:
        return folder.read(path, split, target, division=division, skip_bad=skip_bad, report=report, on_disk=on_disk)
    if kind == "arrays" and path:
        return arrays.read(path, split, target, division, report, on_disk)
    raise InputError(f"there is no data set {name!r}: {_suggestion(name)}the data sets are {', '.join(NAMES)}")


def _suggestion(name: str) -> str:
    """What was probably meant by an unknown name."""
    if os.path.isdir(name):
        return f"folder:{name} for a folder of images; "
    if Path(name).suffix == ".npz":
        return f"arrays:{name} for a file of arrays; "
    known = [entry for entry in NAMES if ":" not in entry]
    squeezed = {entry.replace("_", ""): entry for entry in known}
    plain = "".join(letter for letter in name.lower() if letter.isalnum())
    close = difflib.get_close_matches(plain, squeezed, n=1)
    return f"did you mean {squeezed[close[0]]}? " if close else ""


def _is_size(size: object) -> bool:
    if not isinstance(size, tuple | list) or len(size) != 2:
        return False
    return all(isinstance(side, int | np.integer) and side >= 1 for side in size)


def _check(split: str, size: Size | None, channels: int | None, crop: bool, test_fraction: float) -> None:
    if split not in ("train", "test"):
        raise InputError(f"there is no split {split!r}: take train or test")
    if size is not None and not _is_size(size):
        raise InputError(f"size is a height and a width of at least one pixel, not {size}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels is 1 (gray) or 3 (RGB), not {channels}")
    if crop and size is None:
        raise InputError("crop needs a size to crop to: a height and a width")
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction is between 0 and 1, not {test_fraction}")
