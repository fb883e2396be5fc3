"""scikit-learn's handwritten digits: 1,797 images of 8×8 pixels in 17 shades, which are part of that package."""

from importlib.metadata import version

import numpy as np

from jaxgen.data import cache
from jaxgen.data.images import Images, Target, fit_all, full_range

_WHITE = 16


def read(target: Target) -> Images:
    """All 1,797 digits, 8×8 gray in 0..16 as scikit-learn has them; resized ones are in 0..255."""
    # Importing scikit-learn takes a second, which the cache saves.
    origin = cache.fingerprint("scikit-learn", version("scikit-learn"))
    digits = cache.cached("digits", origin, _from_sklearn, on_disk=False).images
    if target.size not in (None, digits.images.shape[1:3]):
        digits = full_range(digits)
    return digits._replace(images=fit_all(np.asarray(digits.images), target))


def _from_sklearn(collector: cache.Collector) -> cache.About:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = pixels.astype(np.uint8).reshape(-1, 8, 8, 1)
    return collector.add_all(Images(images, labels.astype(np.int32), _WHITE, tuple("0123456789")), images)
