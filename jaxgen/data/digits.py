"""scikit-learn's handwritten digits: 1,797 images of 8×8 pixels in 17 shades, part of that package."""

from importlib.metadata import version

import numpy as np

from jaxgen.data import cache
from jaxgen.data.pixels import Pixels, fit_all

WHITE = 16


def read(size: tuple[int, int] | None, channels: int | None) -> Pixels:
    """All 1,797 digits, 8×8 gray in 0..16 as scikit-learn has them; resized ones are in 0..255.

    A blend of pixels needs more than 17 shades.
    """
    # Importing scikit-learn takes a second; the second run does without.
    origin = cache.fingerprint("scikit-learn", version("scikit-learn"))
    images, labels, _ = cache.remembered("digits", origin, of_scikit_learn).pixels
    white = WHITE
    if size not in (None, images.shape[1:3]):
        images = ((images.astype(np.uint16) * 255 + WHITE // 2) // WHITE).astype(np.uint8)
        white = 255
    return Pixels(fit_all(images, size, channels), labels, white)


def of_scikit_learn() -> cache.Prepared:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return cache.Prepared(Pixels(pixels.astype(np.uint8).reshape(-1, 8, 8, 1), labels.astype(np.int32)))
