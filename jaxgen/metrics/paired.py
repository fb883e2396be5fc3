"""Comparing two groups of figures: the difference of their means, with its 95 % confidence interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxgen.errors import InputError

CONFIDENCE = 0.95
Figures = Sequence[float] | np.ndarray


class Difference(NamedTuple):
    """A difference of means and its 95 % confidence interval, in the unit of the figures."""

    mean: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired_difference(first: Figures, second: Figures) -> Difference:
    """Compute mean(first − second) over pairs, with Student's interval for the mean of the differences.

    Args:
        first: figures, such as one for each seed.
        second: as many, each the counterpart of the one at its place.

    Raises:
        InputError: the lengths differ, or are below two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise InputError(f"{len(first)} and {len(second)} figures: a comparison of pairs takes two pairs or more")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return _interval(float(differences.mean()), _standard_error(differences), len(differences) - 1)


def unpaired_difference(first: Figures, second: Figures) -> Difference:
    """Compute mean(first) − mean(second), with Welch's interval for groups of unequal variances.

    Args:
        first: figures.
        second: others, not necessarily as many.

    Raises:
        InputError: one of the groups has fewer than two.
    """
    if min(len(first), len(second)) < 2:
        raise InputError(f"{len(first)} and {len(second)} figures: a comparison takes two of each or more")
    mean = np.mean(first) - np.mean(second)
    shares = np.square([_standard_error(first), _standard_error(second)])  # of the variance of the difference
    total = shares.sum()
    freedom = total**2 / (shares[0] ** 2 / (len(first) - 1) + shares[1] ** 2 / (len(second) - 1)) if total else 1.0
    return _interval(float(mean), float(np.sqrt(total)), float(freedom))


def _standard_error(figures: Figures) -> float:
    return float(np.std(figures, ddof=1) / np.sqrt(len(figures)))


def _interval(mean: float, standard_error: float, freedom: float) -> Difference:
    from scipy import stats  # takes half a second, which `--help` need not wait for

    reach = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * standard_error
    return Difference(float(mean), float(mean - reach), float(mean + reach))
