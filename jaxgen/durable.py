"""Files that are completely on disk when the call returns, or unchanged."""

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES}


def write(path: Path, content: bytes) -> None:
    """Write a file atomically: into a temporary file beside it, which is synced and renamed.

    Missing folders are made.

    Raises:
        OSError: the file could not be written. What was there before is unchanged.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    """`write` a value as indented JSON."""
    write(path, (json.dumps(value, indent=1) + "\n").encode())


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, and sync each folder that gained an entry."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in made:
        with contextlib.suppress(PermissionError):  # the parent of the first one may be unreadable
            sync(folder.absolute().parent)


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk.

    Some file systems (CIFS, 9p, FUSE) and Windows cannot sync folders. That is ignored: there is nothing to do instead.
    A file that cannot be synced is an error.
    """
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows syncs only writable files
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not (is_folder and error.errno in _NO_FOLDER_SYNC):
            raise
