"""One process at a time works on a run."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from jaxgen.durable import make_folder
from jaxgen.errors import InputError
from jaxgen.runs.config import option
from jaxgen.signals import say

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(folder: Path, lock: Path) -> Iterator[None]:
    """Make a folder and hold its lock, which the system releases however the process ends.

    Some file systems have no locks; then the run goes on without one, and says so.

    Raises:
        InputError: the folder cannot be written, or another process holds the lock.
    """
    import filelock

    held = filelock.FileLock(lock, timeout=0, fallback_to_soft=False)
    try:
        make_folder(folder)
        held.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another process is working on this run; wait for it, or use another {option('out')}"
        ) from None
    except (OSError, NotImplementedError) as error:
        if not (isinstance(error, NotImplementedError) or error.errno in _NO_LOCKS):
            raise InputError(f"{folder} cannot be written ({error.strerror}); name another {option('out')}") from error
        say(f"{folder}: this file system has no locks; do not start another process on this run", error=True)
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError, NotImplementedError):
            held.release()
