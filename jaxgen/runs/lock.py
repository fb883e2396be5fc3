"""One process at a time works on a run."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jaxgen import processes
from jaxgen.durable import make_folder
from jaxgen.errors import InputError
from jaxgen.runs.config import option
from jaxgen.signals import say

if TYPE_CHECKING:  # it is imported when a run starts
    import filelock

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(folder: Path, lock: Path) -> Iterator[None]:
    """Make a folder and hold its lock, which the system releases however the process ends.

    Of several processes that train together, the first one does.

    Some file systems have no locks; then the run goes on without one, and says so. A folder in which nothing was
    written is removed again.

    Raises:
        InputError: the folder cannot be written, or another process holds the lock.
    """
    import filelock

    held = filelock.FileLock(lock, timeout=0, fallback_to_soft=False)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    processes.decided(lambda: _acquire(held, folder))
    try:
        yield
    finally:
        if processes.is_first():
            with contextlib.suppress(OSError, NotImplementedError):
                if missing and [path.name for path in folder.iterdir()] in ([], [lock.name]):
                    lock.unlink(missing_ok=True)
                    for place in missing:
                        place.rmdir()
            with contextlib.suppress(OSError, NotImplementedError):
                held.release()


def _acquire(held: "filelock.FileLock", folder: Path) -> None:
    import filelock

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
