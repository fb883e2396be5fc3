"""The user's own images: a folder in PyTorch's ImageFolder layout, or a flat one. Nothing in it is ever changed.

`PATH/train/CLASS/…` and `PATH/test/CLASS/…` (or `val`) are two splits with a class for each sub-folder, numbered in
alphabetical order. A folder without `train/` is split by a fraction of its files, with sub-folders for classes or none.
"""

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxgen.data import cache
from jaxgen.data.pixels import Pixels, fit, flatten, stack
from jaxgen.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
PIXEL_LIMIT = 2**30 // 12  # 89 million, a quarter GiB of RGB: where Pillow too begins to suspect a decompression bomb
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

Example = tuple[Path, int]  # an image file and its class


def read(
    path: str,
    split: str,
    size: tuple[int, int] | None,
    channels: int | None,
    *,
    skip_bad: bool,
    test_fraction: float,
    split_seed: int,
    log: Callable[[str], object],
) -> Pixels:
    """The images of one split. What was decoded once is remembered until a file or an option changes."""
    root = Path(path).expanduser()
    examples = _examples(root, split, test_fraction, split_seed)
    title = cache.fingerprint(root.resolve(), split, size, channels, skip_bad, test_fraction, split_seed)
    origin = cache.fingerprint([(file, label, _state(file)) for file, label in examples])
    prepared = cache.remembered(f"folder-{title[:32]}", origin, lambda: _decode(examples, size, channels, skip_bad))
    for line in prepared.skipped:
        log(f"skipped: {line}")
    return prepared.pixels


def _state(file: Path) -> tuple[int, int, int] | None:
    try:
        state = file.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _examples(root: Path, split: str, test_fraction: float, seed: int) -> list[Example]:
    if not root.is_dir():
        raise InputError(f"folder:{root}: there is no such folder")
    parts = {name: root / name for name in ("train", "test", "val") if (root / name).is_dir()}
    if not parts:
        return _fraction(_labelled([root])[0], root, split, test_fraction, seed)
    test = parts.get("test", parts.get("val"))
    if "train" not in parts or test is None:
        raise InputError(f"folder:{root} has {' and '.join(parts)}/ only: it needs train/ and test/ or val/")
    train_examples, test_examples = _labelled([parts["train"], test])
    return train_examples if split == "train" else test_examples


def _labelled(folders: list[Path]) -> list[list[Example]]:
    """The examples of each folder. All the folders number their classes alike, also when one of them lacks some."""
    by_class = [_images(folder) for folder in folders]
    names = sorted(set().union(*by_class))
    return [[(file, names.index(name)) for name in sorted(found) for file in found[name]] for found in by_class]


def _images(folder: Path) -> dict[str, list[Path]]:
    """The image files below a folder by the sub-folder of it that they are in; "" stands for the folder itself."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}")

    found: dict[str, list[Path]] = {}
    for place, below, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place)
        below[:] = sorted(name for name in below if not name.startswith(".") and not _loops(here, name))
        files = [here / name for name in sorted(names) if name.lower().endswith(_SUFFIXES) and not name.startswith(".")]
        if files:
            class_name = next(iter(here.relative_to(folder).parts), "")
            found.setdefault(class_name, []).extend(files)
    if not found:
        raise InputError(f"{folder} holds no images ({', '.join(_SUFFIXES)})")
    if "" in found and len(found) > 1:
        raise InputError(f"{folder} holds images and also sub-folders of images: sort all into sub-folders, or none")
    return found


def _loops(here: Path, name: str) -> bool:
    return here.resolve().is_relative_to((here / name).resolve())


def _fraction(examples: list[Example], root: Path, split: str, test_fraction: float, seed: int) -> list[Example]:
    """A part of the files for testing, the others for training. A file's own name decides its place in the draw."""
    if len(examples) < 2:
        raise InputError(f"folder:{root} holds a single image: to train and to test takes two")

    def lot(example: Example) -> bytes:
        name = example[0].relative_to(root).as_posix()
        return hashlib.sha256(os.fsencode(f"{seed}/{name}")).digest()

    count = min(max(1, round(test_fraction * len(examples))), len(examples) - 1)
    drawn = set(sorted(examples, key=lot)[:count])
    return [example for example in examples if (example in drawn) == (split == "test")]


def _decode(
    examples: list[Example], size: tuple[int, int] | None, channels: int | None, skip_bad: bool
) -> cache.Prepared:
    images, labels, skipped = [], [], []
    for file, label in examples:
        try:
            image = fit(_open(file), size, channels)
        except InputError as error:
            if not skip_bad:
                raise InputError(f"{error}; mend or remove it, or skip such files (--skip-bad)") from error
            skipped.append(str(error))
            continue
        images.append(image)
        labels.append(label)
    if not images:
        raise InputError(f"none of the {len(examples)} images can be read: {skipped[0]}")
    return cache.Prepared(Pixels(stack(images), np.array(labels, np.int32)), tuple(skipped))


def _open(file: Path) -> "Image.Image":
    """The picture upright, on white, in mode `L` or `RGB`; or an `InputError` that says what is wrong with the file."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if not file.is_file():  # a pipe would be waited for, a dead link is nothing
            raise ValueError("not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on odd but readable pictures name no file
            with Image.open(file, formats=FORMATS) as picture:
                if (pixels := picture.width * picture.height) > PIXEL_LIMIT:
                    raise ValueError(f"{pixels} pixels are more than the limit of {PIXEL_LIMIT}")
                picture.verify()  # a PNG's checksums, which decoding does not look at
            with Image.open(file, formats=FORMATS) as picture:
                return flatten(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError:
        raise InputError(f"{file} is damaged, or no picture in the format {', '.join(FORMATS)}") from None
    except Exception as error:  # broken bytes make decoders raise almost anything
        raise InputError(f"{file} cannot be read: {error}") from error
