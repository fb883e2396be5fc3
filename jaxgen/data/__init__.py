"""Data by name: `load("digits")` gives images and labels that stay on the device as the bytes they came in."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.data import digits, faces, folder, originals, tfds
from jaxgen.errors import InputError

__all__ = ["NAMES", "Images", "check_same_shape", "load"]

NAMES = ("digits", "faces", *originals.COLLECTIONS, "tfds:NAME", "folder:PATH")

_warn = logging.getLogger(__name__).warning


class Images(NamedTuple):
    """A data set on the device."""

    images: jax.Array  # uint8 [N, H, W, C], as the bytes they came in
    labels: jax.Array  # int32 [N]
    white: int  # the value that means full intensity: 255; scikit-learn's digits 16


def load(
    name: str,
    split: str = "train",
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    skip_bad: bool = False,
    test_fraction: float = 0.1,
    split_seed: int = 0,
    log: Callable[[str], object] = _warn,
) -> Images:
    """The images of a data set and their classes.

    Args:
        name: one of
            `digits`, scikit-learn's 8×8 (it has no test split: `test` is the same 1,797 images again);
            `faces`, drawn by this project, 56×56, all of class 0;
            `mnist`, `fashion_mnist`, `cifar10`, from files in the cache folder (`JAXGEN_DATA`, or the user's cache)
            or fetched into it;
            `tfds:NAME`, of TensorFlow Datasets;
            `folder:PATH`, PNG, JPEG, WebP and BMP files in `PATH/train/CLASS` and `PATH/test/CLASS` (or `val`), or in
            `PATH/CLASS` or `PATH`, of which a part is kept for the test.
        split: `train` or `test`.
        size: height and width to resize to, by Pillow's antialiased bilinear filter; None leaves them as they are.
        channels: 1 makes them gray, after resizing; 3 makes them RGB; None leaves them as they are.
        skip_bad: leave out a folder's unreadable files, and tell `log` of each, instead of refusing the folder.
        test_fraction: how much of a folder without `train/` is the test split, between 0 and 1.
        split_seed: which part of it that is.
        log: told in a line of each file skipped and of each download; by default they are logged as warnings.

    Raises:
        InputError: a name, split or option that is not known; data that is not there and cannot be fetched; a file
            that is damaged or not what it should be. The message names it and the way on.
    """
    _check(split, size, channels, test_fraction)
    kind, _, what = name.partition(":")
    if name == "digits":
        pixels = digits.read(size, channels)
    elif name == "faces":
        pixels = faces.read(split, size, channels)
    elif name in originals.COLLECTIONS:
        pixels = originals.read(name, split, size, channels, log)
    elif kind == "tfds" and what:
        pixels = tfds.read(what, split, size, channels, log)
    elif kind == "folder" and what:
        pixels = folder.read(
            what,
            split,
            size,
            channels,
            skip_bad=skip_bad,
            test_fraction=test_fraction,
            split_seed=split_seed,
            log=log,
        )
    else:
        raise InputError(f"there is no data {name!r}: take one of {', '.join(NAMES)}")
    return Images(jnp.asarray(pixels.images), jnp.asarray(pixels.labels), pixels.white)


def check_same_shape(train: Images, test: Images) -> None:
    """Raise InputError where the images of the two splits are not of one shape, as a folder's may be."""
    sizes = ["×".join(map(str, images.images.shape[1:])) for images in (train, test)]
    if sizes[0] != sizes[1]:
        raise InputError(f"the training images are {sizes[0]}, those of the test {sizes[1]}; --size makes them alike")


def _check(split: str, size: tuple[int, int] | None, channels: int | None, test_fraction: float) -> None:
    if split not in ("train", "test"):
        raise InputError(f"there is no split {split!r}: take train or test")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise InputError(f"size is a height and a width of at least one pixel, not {size}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels is 1 (gray) or 3 (RGB), not {channels}")
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction is between 0 and 1, not {test_fraction}")
