"""The figures of samples, beside the floor: the same figures of held-out real images."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.metrics.distances import frechet_distance, kernel_distance
from jaxgen.metrics.features import Features, learned_features, pixels
from jaxgen.metrics.figure import Figure, Figures
from jaxgen.metrics.neighbours import density_coverage, precision_recall, radii
from jaxgen.metrics.scaling import as_floats, halves, in_memory, labels_in_memory, some

FLOOR = "real against held-out real"

FEWEST = 10  # images that are compared

_FEW_PIXELS = 200  # up to which distances between pixels mean something


def of_samples(
    real: ArrayLike,
    held_out: ArrayLike | Callable[[], ArrayLike] | None = None,
    *,
    labels: ArrayLike | None = None,
    features: Sequence[Features] | None = None,
    white: int = 255,
) -> "SampleMeasure":
    """Measure samples against real images, beside the same measure of held-out real images: the floor.

    The distances depend on the number of images. So all three sets are cut to the size of the smallest, and the floor
    is at that size. Of images on disk, 10,000 from all over are used.

    Args:
        real: Images that samples are compared with, usually those of training: `[N, H, W, C]`, integers from 0 to
            `white`; or floats in [0, 1] where `features` are given.
        held_out: Other real images of the same shape, or a function that loads them. None, or the same images again,
            where there are none: `real` is then cut into two halves, always the same; samples are compared with one,
            and the floor is between the two.
        labels: Integers `[N]`, for the default features.
        features: What the images are compared by; by default `learned_features(real, labels)` and, for images of at
            most 200 numbers, the pixels too.
        white: The integer that is 1.

    Returns:
        A function of samples `[M, H, W, C]` in [0, 1], which gives `frechet_distance`, `kernel_distance` with its
        standard error, `precision`, `recall`, `density` and `coverage`, each with the floor as its baseline. By pixels,
        their names end in `_of_pixels`. What depends on the data alone is computed at its first call. Fewer than ten
        images say nothing and give no figures.
    """
    labels = None if labels is None else labels_in_memory(labels, real)
    return SampleMeasure(in_memory(real), held_out, labels, features, white)


@dataclasses.dataclass(frozen=True, eq=False)
class SampleMeasure:
    """What `of_samples` gives.

    Attributes:
        images: The real images that samples are compared with, and the held-out ones.
        features: What the images are compared by.
        descriptions: The same for people.
        most: How many samples are used at most.
    """

    _real: NDArray[np.generic]
    _held_out: ArrayLike | Callable[[], ArrayLike] | None
    _labels: ArrayLike | None
    _features: Sequence[Features] | None
    _white: int

    def __call__(self, samples: ArrayLike) -> Figures:
        """The figures of samples `[M, H, W, C]` in [0, 1]."""
        chosen = as_floats(samples)[: self.most]
        if len(chosen) < FEWEST:
            return {}
        figures: Figures = {}
        for each, reference in zip(self.features, self._references(len(chosen)), strict=True):
            for name, figure in _compare(reference.real, each.of(chosen), reference.radii).items():
                full_name = "_".join(filter(None, (name, each.name)))
                figures[full_name] = figure._replace(baselines={FLOOR: reference.floor[name].value})
        return figures

    @cached_property
    def images(self) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
        given = self._held_out() if callable(self._held_out) else self._held_out
        if given is None or np.array_equal(given, self._real):
            return halves(self._real)
        return self._real, in_memory(given)

    @cached_property
    def features(self) -> Sequence[Features]:
        if self._features is not None:
            return self._features
        learned = learned_features(self._real, self._labels, white=self._white)
        return [learned, pixels()] if self._real[0].size <= _FEW_PIXELS else [learned]

    @property
    def descriptions(self) -> list[str]:
        """What the images are compared by, for people."""
        return [each.description for each in self.features]

    @property
    def most(self) -> int:
        return min(map(len, self.images))

    @cached_property
    def _references(self) -> Callable[[int], list["_Reference"]]:
        """What samples are compared with, given their number."""

        @cache
        def references(count: int) -> list[_Reference]:
            sets = [as_floats(some(images, count), self._white) for images in self.images]
            return [_reference(*map(each.of, sets)) for each in self.features]

        return references


class _Reference(NamedTuple):
    """Real features, and what is known of them."""

    real: NDArray[np.float32]
    radii: dict[int, NDArray[np.float64]]  # by the number of neighbours
    floor: Figures


def _reference(real: NDArray[np.float32], held_out: NDArray[np.float32]) -> _Reference:
    of_real = {neighbours: radii(real, neighbours) for neighbours in (3, 5)}
    return _Reference(real, of_real, _compare(real, held_out, of_real))


def _compare(
    real: NDArray[np.float32], samples: NDArray[np.float32], of_real: dict[int, NDArray[np.float64]]
) -> Figures:
    kernel, error = kernel_distance(real, samples)
    precision, recall = precision_recall(real, samples, neighbours=3, real_radii=of_real[3])
    density, coverage = density_coverage(real, samples, neighbours=5, real_radii=of_real[5])
    return {
        "frechet_distance": Figure(frechet_distance(real, samples)),
        "kernel_distance": Figure(kernel, standard_error=error),
        "precision": Figure(precision, better="higher"),
        "recall": Figure(recall, better="higher"),
        "density": Figure(density, better="higher"),
        "coverage": Figure(coverage, better="higher"),
    }
