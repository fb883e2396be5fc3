"""Stopping cleanly: signals that ask a training to stop after the slice under way."""

import contextlib
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from jaxgen import processes

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

    A further signal within two seconds counts as the same request, also where it comes when this has ended; a later one
    raises. A signal that is ignored, as under `nohup`, stays ignored. Outside the main thread, where Python allows no
    handlers, nothing is caught.

    Args:
        numbers: signal numbers.
        announce: called once at the first signal, at once even while the main thread compiles.
        abort: makes the exception that a later signal raises.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    # None stands for a handler that was set by something other than Python.
    caught = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]

    with _announcing(announce, caught) as announce_now:

        def handle(number: int, frame: types.FrameType | None) -> None:
            now = time.monotonic()
            if request.number is None:
                request.number, request.time = number, now
                announce_now()
                if not request.stops_now:
                    return
            if request.stops_now or now - request.time > GRACE:
                raise abort(number)

        before = {number: signal.signal(number, handle) for number in caught}
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if request.number is None else _after_grace(request.time, handler))


def _after_grace(requested: float, handler: Any) -> Callable[[int, types.FrameType | None], None]:
    """A handler that ignores what still counts as the same request, and then gives its place to `handler`."""

    def handle(number: int, frame: types.FrameType | None) -> None:
        if time.monotonic() - requested > GRACE:
            signal.signal(number, handler)
            signal.raise_signal(number)

    return handle


@contextlib.contextmanager
def _announcing(announce: Callable[[], object], numbers: Sequence[int]) -> Iterator[Callable[[], object]]:
    """Call `announce` at the first of these signals, from a thread.

    Python calls a signal's handler only when the main thread is back from compiled code, such as XLA's compiler, but it
    writes the signal's number into this socket at once.

    Yields:
        What the handler is to call: `announce`, where something else, such as an event loop, owns the only such socket.
    """
    ours, pythons = socket.socketpair()
    pythons.setblocking(False)
    before = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)
        ours.close()
        pythons.close()
        yield announce
        return

    def listen() -> None:
        announced = False
        while received := ours.recv(64):
            if not announced and set(received) & set(numbers):
                announced = True
                announce()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield lambda: None
    finally:
        signal.set_wakeup_fd(before)
        pythons.close()
        listener.join()
        ours.close()


def say(text: str, *, error: bool = False) -> None:
    """Print a line. A terminal that is gone, or a stream that is closed or full, never ends a training.

    Of several processes that train together, the first one speaks for all; of errors, each does.
    """
    if not processes.is_first():
        if not error:
            return
        text = f"process {jax.process_index()}: {text}"
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
        print(text, file=sys.stderr if error else sys.stdout, flush=True)
