"""The images that are trained on: the recipe's own, or random ones where the original files are not on this machine."""

from pathlib import Path

import numpy as np
from PIL import Image

from jaxgen import data
from jaxgen.data import Images, originals
from jaxgen.runs import DataConfig

_TRAINING_IMAGES = {"mnist": 60_000, "cifar10": 50_000}


def is_available(name: str) -> bool:
    """Return whether a data set can be loaded without downloading anything."""
    return name not in originals.COLLECTIONS or name in originals.at_hand()


def load(config: DataConfig, shape: tuple[int, int, int]) -> Images:
    """Load the training images in the given shape, or make as many random ones if they would have to be downloaded."""
    if is_available(config.data):
        return data.load(config.data, size=shape[:2], channels=shape[2])
    return random_images((_TRAINING_IMAGES[config.data], *shape))


def random_images(shape: tuple[int, ...]) -> Images:
    """Return random bytes as images `[N, H, W, C]`, in ten classes."""
    return Images(_random_bytes(shape), np.arange(shape[0], dtype=np.int32) % 10, 255)


def write_random_images(folder: Path, shape: tuple[int, ...]) -> None:
    """Write random images `[N, H, W, C]` as PNG files, as training images and again as test images."""
    for split in ("train", "test"):
        (folder / split / "random").mkdir(parents=True)
        for number, image in enumerate(_random_bytes(shape)):
            pixels = image[..., 0] if shape[-1] == 1 else image
            Image.fromarray(pixels).save(folder / split / "random" / f"{number:05d}.png")


def _random_bytes(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
