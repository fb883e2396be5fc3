"""Prepare data once, so that training on them starts at once: `data prepare folder:PATH`.

The pictures of a folder, of a data set of TensorFlow Datasets (tfds:NAME) or of an array file (arrays:FILE.npz) are
decoded and resized, training and test images, into files from which an experiment with the same `--data`, `--size`,
`--channels`, `--crop` and `--skip-bad` reads them: into memory or, where they do not fit, piece by piece. It takes
little memory. What was prepared before is compared with its sum, and made again if it is damaged. Experiments prepare
their data themselves where that was not done.
"""

import os
from pathlib import Path
from typing import Literal

from jaxgen import data, memory
from jaxgen.commands._options import Options as _Options
from jaxgen.data import cache
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray
from jaxgen.runs import Size, option
from jaxgen.signals import say


class Options(_Options):
    """The options of this command."""

    action: Literal["prepare"]
    """What to do: prepare."""
    name: str
    """The data: folder:PATH, arrays:FILE.npz or tfds:NAME."""
    size: Size | None = None
    """Height and width to resize the images to; None leaves them as they are."""
    channels: Literal[1, 3] | None = None
    """1 for gray, 3 for colour; None leaves the images as they are."""
    crop: bool = False
    """Keep the proportions of images: resize to cover the size and crop the centre, instead of squeezing."""
    skip_bad: bool = False
    """Leave out a folder's unreadable images, and list them, instead of refusing the folder."""
    out: Path | None = None
    """Folder for the files, which JAXGEN_DATA must name when they are used; None is the cache folder."""


def run(options: Options) -> None:
    """Prepare both splits."""
    if options.out is not None:
        if options.out.exists() and not options.out.is_dir():
            raise InputError(f"{option('out', options.out)}: is not a folder")
        os.environ["JAXGEN_DATA"] = str(options.out.absolute())
    for split in ("train", "test"):
        images = _load(options, split)
        if cache.remove_damaged(images):
            say(f"{images.path}: was damaged, and is made again", error=True)
            images = _load(options, split)
        shape = "×".join(map(str, images.shape[1:]))
        say(f"{split:9} {len(images):,} images of {shape}, {memory.text(images.nbytes)}: {images.path}")


def _load(options: Options, split: str) -> DiskArray:
    loaded = data.load(
        options.name,
        split,
        size=options.size,
        channels=options.channels,
        crop=options.crop,
        skip_bad=options.skip_bad,
        log=say,
        on_disk=True,
    ).images
    assert isinstance(loaded, DiskArray)
    return loaded
