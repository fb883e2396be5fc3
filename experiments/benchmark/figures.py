"""What repeated times say."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles of two values or more, and the values themselves."""
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "quartiles": [lower, upper], "each": list(values)}


def interval(values: Sequence[float]) -> list[float] | None:
    """A 95 % confidence interval for the median, whatever the distribution; fewer than six values allow none.

    It runs from the k-th smallest to the k-th largest of n values. The median is not in it with a probability of
    2·P(Binomial(n, ½) < k), which is at most 5 %; k is the largest for which that is so.
    """
    ordered, n = sorted(values), len(values)
    k, outside = 0, 0
    while 2 * (outside + math.comb(n, k)) <= 0.05 * 2**n:
        outside += math.comb(n, k)
        k += 1
    return [ordered[k - 1], ordered[-k]] if k else None


def compared(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The systems' times, round by round, and how many times faster the first one is than the best of the others."""
    ours, *rivals = seconds
    spreads = {name: spread(values) for name, values in seconds.items()}
    best = min(rivals, key=lambda name: spreads[name]["median"])
    ratios = [theirs / own for own, theirs in zip(seconds[ours], seconds[best], strict=True)]
    return {**spreads, "best_rival": best, "times_faster": {**spread(ratios), "interval_95": interval(ratios)}}
