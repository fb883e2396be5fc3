"""What both systems learn: the same recipe on the same images for the same number of epochs."""

import time
from collections.abc import Callable
from typing import Any

from experiments.benchmark.race import EAGER, OURS, Jaxgen, PyTorch

Metrics = dict[str, float]


def train_both(ours: Jaxgen, rival: PyTorch, epochs: int, said: Callable[[int], None]) -> list[dict[str, Any]]:
    """Of every epoch, each system's mean metrics and the seconds that it took; they take turns epoch by epoch.

    They start from weights of their own and see the images in orders of their own, so the figures should be alike, not
    equal. `said` is called with the number of every epoch before it begins.
    """
    found = []
    for epoch in range(1, epochs + 1):
        said(epoch)
        found.append({OURS: timed(ours.epoch), EAGER: timed(rival.training.epoch)})
    return found


def timed(train: Callable[[], Metrics]) -> Metrics:
    began = time.perf_counter()
    metrics = train()
    return {**metrics, "seconds": time.perf_counter() - began}
