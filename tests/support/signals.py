"""Signals of the test process, which commands and trainings that run in it change."""

import contextlib
import signal
from collections.abc import Iterator

from jaxgen.runs.run import STOP_SIGNALS


@contextlib.contextmanager
def handlers_restored() -> Iterator[None]:
    """Give the signals that stop a run the handlers that they had before.

    A command ignores them when it ends, and the processes that later tests start would inherit that.
    """
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
