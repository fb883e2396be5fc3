"""Downloads, for those who have a network; those who have none hear so within seconds."""

import queue
import threading
import time
from pathlib import Path

from jaxgen.errors import InputError

_PATIENCE = 3.0  # seconds for any of the servers to answer at all
_SILENCE = 30.0  # seconds without a byte, after which a download has broken off


def first_to_answer(urls: list[str]) -> str | None:
    """The first of these addresses that says it has the file, or None if none does within three seconds.

    Each is asked in a thread of its own, because looking up a name has no time limit: without a network it can take
    half a minute. Such a thread is left to itself.
    """
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for url in urls:
        threading.Thread(target=_ask, args=(url, answers), daemon=True).start()
    deadline = time.monotonic() + _PATIENCE
    for _ in urls:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        if answer:
            return answer
    return None


def _ask(url: str, answers: "queue.SimpleQueue[str | None]") -> None:
    import pooch

    try:
        there = pooch.HTTPDownloader(timeout=_PATIENCE)(url, "", None, check_only=True)
    except Exception:  # whatever is wrong with the network, the answer is no
        there = False
    answers.put(url if there else None)


def download(url: str, path: Path) -> None:
    """Fetches an address into a file. What comes is not checked here.

    Raises:
        InputError: the download broke off, and where.
    """
    import pooch

    try:
        pooch.HTTPDownloader(chunk_size=2**16, timeout=(_PATIENCE, _SILENCE))(url, str(path), None)
    except OSError as error:  # requests' own errors are OSErrors
        size = path.stat().st_size if path.exists() else 0
        raise InputError(f"{url}: the download broke off after {size} bytes: {error}") from error
