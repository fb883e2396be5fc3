"""scikit-learn's handwritten digits: 1,797 images of 8×8 pixels in 17 shades, part of that package."""

import numpy as np

from jaxgen.data.pixels import Pixels, fit_all

WHITE = 16


def read(size: tuple[int, int] | None, channels: int | None) -> Pixels:
    """All 1,797 digits, 8×8 gray in 0..16 as scikit-learn has them; resized ones are in 0..255.

    A blend of pixels needs more than 17 shades.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.astype(np.uint8).reshape(-1, 8, 8, 1)
    white = WHITE
    if size not in (None, images.shape[1:3]):
        images = ((images.astype(np.uint16) * 255 + WHITE // 2) // WHITE).astype(np.uint8)
        white = 255
    return Pixels(fit_all(images, size, channels), labels.astype(np.int32), white)
