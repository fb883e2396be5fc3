"""Stopping cleanly: signals that ask a training to stop after the slice under way."""

import contextlib
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence

GRACE = 2.0  # seconds in which a further signal counts as the same request: an impatient second Ctrl-C


def available(*names: str) -> list[int]:
    """The numbers of the signals that this system has; Windows lacks some."""
    return [int(getattr(signal, name)) for name in names if hasattr(signal, name)]


class StopRequest:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.time = 0.0
        self.stops_now = False  # whether the next signal is acted on at once, because nothing needs to be saved


@contextlib.contextmanager
def stop_on_signals(
    numbers: Sequence[int],
    announce: Callable[[], object],
    abort: Callable[[int], BaseException] = lambda number: KeyboardInterrupt(),
) -> Iterator[StopRequest]:
    """Record the first of these signals instead of raising an exception, while this lasts.

    A further signal within two seconds counts as the same request; a later one raises. A signal that is ignored, as
    under `nohup`, stays ignored. Outside the main thread, where Python allows no handlers, nothing is caught.

    Args:
        numbers: signal numbers.
        announce: called, within the signal handler, at the first signal.
        abort: makes the exception that a later signal raises.
    """
    request = StopRequest()

    def handle(number: int, frame: types.FrameType | None) -> None:
        now = time.monotonic()
        if request.number is None:
            request.number, request.time = number, now
            announce()
            if not request.stops_now:
                return
        if request.stops_now or now - request.time > GRACE:
            raise abort(number)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: set by something other than Python
                handlers[number] = signal.signal(number, handle)
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def say(text: str, *, error: bool = False) -> None:
    """Print a line. A terminal that is gone, or a stream that is closed or full, never ends a training."""
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
        print(text, file=sys.stderr if error else sys.stdout, flush=True)
