"""Checkpoints: Orbax writes them, and this makes them durable.

    checkpoints/
      00004520/           the step, counted over the whole run
        state/            the arrays, by Orbax
        about.json        what is not an array: epoch, step, …
        manifest.json     the SHA-256 of every other file

Orbax neither syncs all that it writes nor checks what it reads. So a checkpoint is written beside (`.saving-…`), summed
and synced file by file and folder by folder, and only then renamed; before it is read it is checked against its sums.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxgen.durable import make_folder, sync

PyTree = Any
MANIFEST = "manifest.json"
OVERHEAD = 1 << 18  # bytes of a checkpoint beside its arrays, with room to spare: small files take a block each


class DamagedError(Exception):
    """A checkpoint is incomplete or not what was written; the message names the file."""


def save(folder: Path, number: int, tree: PyTree, about: dict[str, Any], *, keep: int) -> Path:
    """Write `tree` as checkpoint `number` of `folder`; when this returns it is on disk and survives a power cut.

    Only then are the oldest checkpoints removed, down to the newest `keep` and the `best`.

    Raises:
        OSError: the disk is full or failing; what was there before is as it was.
    """
    final = folder / f"{number:08d}"
    staging = folder / f".saving-{final.name}"
    make_folder(folder)
    shutil.rmtree(staging, ignore_errors=True)
    check_room(folder, tree)
    staging.mkdir()
    try:
        with quiet_failures(folder), orbax() as checkpointer:
            checkpointer.save((staging / "state").absolute(), tree)
        (staging / "about.json").write_text(json.dumps(about, indent=1))
        (staging / MANIFEST).write_text(json.dumps(sums(staging), indent=1))
        for path in [*staging.rglob("*"), staging]:
            sync(path)
    except OSError:
        with contextlib.suppress(OSError):  # give back the room that it took
            shutil.rmtree(staging)
        raise
    if final.exists():  # saved before, by a run that was then resumed from an earlier step
        remove(final)
    staging.rename(final)
    sync(folder)
    if older := numbered(folder)[:-keep]:
        kept = best(folder)
        for path in older:
            if path != kept:
                remove(path)
    return final


def check_room(folder: Path, tree: PyTree) -> None:
    """Raise OSError where the disk has no room for the tree: asked first, for Orbax does not fail in good order."""
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + OVERHEAD
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def silence(said: object) -> None:
    pass


@contextlib.contextmanager
def quiet_failures(folder: Path) -> Iterator[None]:
    """What Orbax raises where the disk gives out, as one OSError; its threads' own last words are not printed."""
    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = sys.unraisablehook = silence
    try:
        yield
    except (ValueError, RuntimeError) as error:  # TensorStore's status, as text
        known = (number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) if os.strerror(number) in str(error))
        number = next(known, errno.EIO)
        raise OSError(number, os.strerror(number), str(folder)) from error
    finally:
        threading.excepthook, sys.unraisablehook = hooks


def best(folder: Path) -> Path | None:
    """The checkpoint with the smallest `figure` in what was saved as `about`; None where none has one."""
    figures = {}
    for path in numbered(folder):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a damaged one has none
            figures[path] = json.loads((path / "about.json").read_text()).get("figure")
    return min((path for path in figures if figures[path] is not None), key=lambda path: figures[path], default=None)


def restore(path: Path, like: PyTree) -> PyTree:
    """Arrays of a checkpoint that `verify` has passed, in the structure, shapes and dtypes of `like`.

    `like` may leave out entries of the outermost mapping; they are not read.
    """
    import orbax.checkpoint as ocp

    args = ocp.args.PyTreeRestore(
        item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
    )
    with orbax() as checkpointer:
        return checkpointer.restore((path / "state").absolute(), args)


def verify(path: Path) -> dict[str, Any]:
    """What was saved as `about`, once every file of the checkpoint has been found as it was written.

    Raises:
        DamagedError: a file is missing, changed or too many.
    """
    try:
        written = json.loads((path / MANIFEST).read_text())
        found = sums(path)
        if bad := sorted(name for name in written.keys() | found.keys() if written.get(name) != found.get(name)):
            raise DamagedError(f"{path / bad[0]} is not as it was written")
        return json.loads((path / "about.json").read_text())
    except (OSError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path / MANIFEST} cannot be read") from error


def numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit()) if folder.is_dir() else []


def remove(path: Path) -> None:
    """Rename first, so that a crash never leaves half a checkpoint under a checkpoint's name."""
    doomed = path.with_name(f".removing-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@contextlib.contextmanager
def orbax() -> Iterator[Any]:
    """A synchronous Orbax checkpointer that keeps its remarks to itself."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        yield checkpointer
