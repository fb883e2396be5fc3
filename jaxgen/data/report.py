"""What loading tells the caller: one-line summaries, warnings and progress."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import suppress
from typing import Protocol, TypeVar

from jaxgen.data.images import Images, Target

_FIRST, _INTERVAL = 2.0, 10.0  # seconds until the first progress line, and between progress lines

_logger = logging.getLogger("jaxgen.data")
_T = TypeVar("_T", covariant=True)


class _Items(Sized, Iterable[_T], Protocol):
    """What can be counted and gone through."""


class Report:
    """Passes lines to the caller's `log`, or to Python's logging where there is none.

    A line that cannot be printed, because the terminal is gone for example, is dropped: it never ends the loading.
    """

    def __init__(self, log: Callable[[str], object] | None = None) -> None:
        self._inform = log or _logger.info
        self._warn = log or _logger.warning

    def inform(self, line: str) -> None:
        """Tell what was loaded."""
        with suppress(OSError, ValueError):
            self._inform(line)

    def warn(self, line: str) -> None:
        """Tell what was left out, or takes the network."""
        with suppress(OSError, ValueError):
            self._warn(line)

    def progress(self, items: _Items[_T], task: str) -> Iterator[_T]:
        """Yield the items, with a line about every ten seconds."""
        due = time.monotonic() + _FIRST
        for done, item in enumerate(items):
            if time.monotonic() >= due:
                self.inform(f"{task}: {done:,} of {len(items):,}")
                due = time.monotonic() + _INTERVAL
            yield item


def summary(name: str, split: str, images: Images, target: Target, distorted: int, held_out: int = 0) -> str:
    """One line: how many images of how many classes, which classes have none, and what resizing did to shapes."""
    count, height, width, _ = images.images.shape
    line = f"{name}: {count:,} {'training' if split == 'train' else 'test'} images of {height}×{width} pixels"
    if images.classes:
        line += f" in {len(images.classes)} {'class' if len(images.classes) == 1 else 'classes'}"
    if held_out:
        line += f", {held_out:,} held out for testing"
    parts = [line]
    if target.size is not None:
        parts.append(_resizing(count, target, distorted))
    present = set(images.labels.tolist())
    if absent := [class_name for label, class_name in enumerate(images.classes) if label not in present]:
        parts.append(f"no images of {listed(absent)}")
    return "; ".join(parts)


def _resizing(count: int, target: Target, distorted: int) -> str:
    if target.crop:
        return "resized and cropped at the centre"
    if distorted:
        return f"resized, which squeezed or stretched {distorted:,} of {count:,} (crop keeps their proportions)"
    return "resized"


def listed(names: Sequence[str], most: int = 10) -> str:
    """The names separated by commas; of many names, the first and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
