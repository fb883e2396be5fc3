"""Statistics of repeated measurements."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Summarise measurements.

    Args:
        values: two or more.

    Returns:
        Their `median`, their lower and upper `quartiles`, and `each` of them in the given order.
    """
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "quartiles": [lower, upper], "each": list(values)}


def interval(values: Sequence[float]) -> list[float] | None:
    """Return a distribution-free 95 % confidence interval for the median, or None for fewer than six values.

    It runs from the k-th smallest to the k-th largest of n values. The median lies outside with a probability of
    2·P(Binomial(n, ½) < k), which is at most 5 %; k is the largest number for which that holds.
    """
    ordered, n = sorted(values), len(values)
    k, outside = 0, 0
    while 2 * (outside + math.comb(n, k)) <= 0.05 * 2**n:
        outside += math.comb(n, k)
        k += 1
    return [ordered[k - 1], ordered[-k]] if k else None


def compare(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Compare the first system with the fastest of the others.

    Args:
        seconds: for each system its time in each round; round i of all systems was measured together.

    Returns:
        For each system the spread of its times; `best_rival`, the system with the smallest median among the others;
        and `times_faster`, the spread of the ratios `rival / first system` within a round, with `interval_95` for
        their median.
    """
    first, *rivals = seconds
    spreads = {name: spread(values) for name, values in seconds.items()}
    best = min(rivals, key=lambda name: spreads[name]["median"])
    ratios = [theirs / own for own, theirs in zip(seconds[first], seconds[best], strict=True)]
    return {**spreads, "best_rival": best, "times_faster": {**spread(ratios), "interval_95": interval(ratios)}}
