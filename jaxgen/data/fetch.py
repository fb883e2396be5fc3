"""Downloads. A missing network is noticed within seconds."""

import queue
import threading
import time
from pathlib import Path

from jaxgen.errors import InputError

_PATIENCE = 3.0  # seconds within which a server has to answer
_SILENCE = 30.0  # seconds without data after which a download counts as broken off


def first_to_answer(urls: list[str]) -> str | None:
    """Return the first URL whose server confirms that it has the file, or None if none does within three seconds.

    Each server is asked in a thread of its own, because a name look-up has no timeout: without a network it can take
    half a minute. Such a thread is abandoned.
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
        exists = pooch.HTTPDownloader(timeout=_PATIENCE)(url, "", None, check_only=True)
    except Exception:  # any trouble with the network means no
        exists = False
    answers.put(url if exists else None)


def download(url: str, path: Path) -> None:
    """Download a URL to a file. The content is not checked here.

    Raises:
        InputError: the download broke off. The message says where.
    """
    import pooch

    try:
        pooch.HTTPDownloader(chunk_size=2**16, timeout=(_PATIENCE, _SILENCE))(url, str(path), None)
    except OSError as error:  # requests' own errors are OSErrors
        size = path.stat().st_size if path.exists() else 0
        raise InputError(f"{url}: the download broke off after {size} bytes: {error}") from error
