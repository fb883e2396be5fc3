"""Single pictures that a user brings, beside any data set: files, or folders of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.data.decode import open_picture, suffixes
from jaxgen.data.images import Size, Target, UInt8Array, fit, stack
from jaxgen.errors import InputError


class Pictures(NamedTuple):
    """Pictures, in the order in which they were named."""

    files: list[Path]
    images: UInt8Array  # [N, H, W, C]


def load_pictures(
    paths: Sequence[str | Path], *, size: Size | None = None, channels: int | None = None, crop: bool = False
) -> Pictures:
    """Load pictures from files in any format and mode that Pillow reads, as `load` does for a folder.

    They are turned upright by their EXIF orientation, and what is transparent in them becomes white.

    Args:
        paths: files, and folders, of which all pictures are taken, by name and without those of sub-folders.
        size: height and width to resize to. None leaves the pictures as they are; they must then be of one size.
        channels: 1 converts to gray, 3 to RGB. None leaves them as they are.
        crop: keep the proportions: resize so that a picture covers `size`, then crop its centre.

    Raises:
        InputError: a file is missing or is no picture, a folder holds none, or the sizes differ.
    """
    files = [file for path in paths for file in _files(Path(path))]
    if not files:
        raise InputError("no picture is given; name a picture, or a folder of pictures")
    target = Target(size, channels, crop)
    return Pictures(files, np.ascontiguousarray(stack([fit(open_picture(file), target) for file in files])))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path}: there is no such picture; name a picture, or a folder of pictures")
        return [path]
    try:
        found = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    pictures = [file for file in found if file.suffix.lower() in suffixes() and file.is_file()]
    if not pictures:
        raise InputError(f"{path}: the folder holds no pictures in a format that Pillow reads")
    return pictures
