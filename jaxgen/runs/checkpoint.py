"""Checkpoints: Orbax writes the arrays, and this module makes them durable and checks them.

    checkpoints/
      00004520/             the step, counted over the whole run
        state/              the arrays, written by Orbax
        model.safetensors   the weights of each network, under PyTorch's names
        about.json          what is not an array: epoch, step, …
        manifest.json       the SHA-256 of every other file

Orbax neither syncs all that it writes nor checks what it reads. So a checkpoint is written in a staging folder
(`.saving-…`), checksummed and synced file by file and folder by folder, and only then renamed; before it is read, its
checksums are checked.
"""

import contextlib
import errno
import functools
import hashlib
import itertools
import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen import processes
from jaxgen.durable import make_folder, sync

PyTree = Any
_MANIFEST = "manifest.json"
_orbax_lock = threading.Lock()  # its settings are global, and two threads may train two models
_PATIENCE = 10.0  # seconds for the threads of a save that failed
_OVERHEAD = 1 << 18  # bytes of a checkpoint beside its arrays, generously: small files take a block each


class DamagedError(Exception):
    """A checkpoint is incomplete, or not what was written. The message names the file."""


def save(
    folder: Path,
    number: int,
    tree: PyTree,
    about: Mapping[str, Any],
    *,
    keep: int,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write checkpoint `number` of `folder`. When this returns, it is on disk and survives a power cut.

    Only then are the oldest checkpoints removed, down to the newest `keep` and the `best`.

    Several processes call this together, with arrays of all of them: each writes its part of the arrays, and the first
    one does the rest.

    Args:
        folder: the folder of all checkpoints.
        number: names the checkpoint, and orders it among the others.
        tree: the arrays.
        about: what is not an array, for `about.json`.
        keep: how many of the newest are kept.
        files: contents of further files, by name.

    Raises:
        OSError: the disk is full or failing. What was there before is unchanged.
    """
    final = folder / f"{number:08d}"
    staging = folder / f".saving-{final.name}"
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) + sum(map(len, (files or {}).values()))
    processes.decided(lambda: _make_staging(staging, size))
    try:
        with _orbax_lock, _one_os_error(folder), _orbax() as checkpointer:
            checkpointer.save((staging / "state").absolute(), tree)
        processes.decided(lambda: _complete(staging, final, about, files or {}))
    except OSError:
        if processes.is_first():
            with contextlib.suppress(OSError):  # free the space that it took
                shutil.rmtree(staging)
        raise
    if processes.is_first() and (older := numbered(folder)[:-keep]):
        kept = best(folder)
        for path in older:
            if path != kept:
                _remove(path)
    return final


def _make_staging(staging: Path, size: int) -> None:
    make_folder(staging.parent)
    shutil.rmtree(staging, ignore_errors=True)
    _check_free_space(staging.parent, size)
    staging.mkdir()


def _complete(staging: Path, final: Path, about: Mapping[str, Any], files: Mapping[str, bytes]) -> None:
    """Add what is missing to a checkpoint whose arrays are written, make it durable, and give it its name."""
    for name, content in files.items():
        (staging / name).write_bytes(content)
    (staging / "about.json").write_text(json.dumps(about, indent=1))
    (staging / _MANIFEST).write_text(json.dumps(checksums(staging), indent=1))
    for path in [*staging.rglob("*"), staging]:
        sync(path)
    if final.exists():  # saved before, by a run that was then resumed from an earlier step
        _remove(final)
    staging.rename(final)
    sync(final.parent)


def _check_free_space(folder: Path, size: int) -> None:
    """Raise OSError where the disk has no room: checked first, because Orbax does not fail cleanly."""
    if shutil.disk_usage(folder).free < size + _OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _ignore(said: object) -> None:
    pass


@contextlib.contextmanager
def _one_os_error(folder: Path) -> Iterator[None]:
    """Turn what Orbax raises where the disk fails into one OSError; what its threads print is dropped."""
    asyncio_log, hooks = logging.getLogger("asyncio"), (threading.excepthook, sys.unraisablehook)
    asyncio_log.addFilter(_is_not_of_orbax)  # and if the save fails it stays: tasks are collected later
    threading.excepthook = sys.unraisablehook = _ignore
    try:
        yield
    except (ValueError, RuntimeError, TypeError, UnicodeError) as error:  # TensorStore's status, as text
        hooks = hooks[0], functools.partial(_print_unless_loop_is_closed, hooks[1])
        said, _, _ = " ".join(str(error).split()).partition(" [tensorstore_spec=")
        said = said.replace(f"{folder}/", "")  # the message below names it already
        known = (number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS) if os.strerror(number) in said)
        number = next(known, None)
        if number is not None:
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise OSError(errno.EIO, f"the checkpoint could not be written: {said}", str(folder)) from error
    else:
        asyncio_log.removeFilter(_is_not_of_orbax)
    finally:
        threading.excepthook, sys.unraisablehook = hooks


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.getMessage()


def _print_unless_loop_is_closed(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Keep TensorStore quiet: its other writes end after the one that failed, and find Orbax's event loop closed."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


def best(folder: Path) -> Path | None:
    """The checkpoint with the smallest `figure` in its `about.json`; None where none has one."""
    figures = {}
    for path in numbered(folder):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a damaged one has none
            figures[path] = json.loads((path / "about.json").read_text()).get("figure")
    return min((path for path in figures if figures[path] is not None), key=lambda path: figures[path], default=None)


def restore(path: Path, like: PyTree) -> PyTree:
    """The arrays of a checkpoint that `verify` has passed, in NumPy and in the structure and dtypes of `like`.

    `like` may lack entries of the outermost mapping; they are not read.
    """
    import orbax.checkpoint as ocp

    as_numpy = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype), like)
    args = ocp.args.PyTreeRestore(item=like, restore_args=as_numpy, partial_restore=True)
    with _orbax_lock, _orbax() as checkpointer:
        return checkpointer.restore((path / "state").absolute(), args)


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its checksum.

    Returns:
        What was saved as `about`.

    Raises:
        DamagedError: a file is missing, changed or added.
    """
    try:
        written = json.loads((path / _MANIFEST).read_text())
        there = checksums(path)
        if bad := sorted(name for name in written.keys() | there.keys() if written.get(name) != there.get(name)):
            raise DamagedError(f"{path / bad[0]} is not as it was written")
        about: dict[str, Any] = json.loads((path / "about.json").read_text())
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path / _MANIFEST} cannot be read") from error
    return about


def numbered(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    return sorted(path for path in folder.glob("*") if path.name.isdigit()) if folder.is_dir() else []


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint but the manifest, by its path within it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _remove(path: Path) -> None:
    """Rename first, so that a crash never leaves half a checkpoint under a checkpoint's name."""
    doomed = path.with_name(f".removing-{path.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """A synchronous Orbax checkpointer that logs nothing and does not sync, which `save` does afterwards.

    TensorStore, under Orbax, would fail on file systems that cannot sync folders. Orbax has no public option for it.
    """
    root, absl = logging.getLogger(), logging.getLogger("absl")
    level, silent = absl.level, logging.NullHandler()
    root.addHandler(silent)  # absl, through which Orbax logs, would give the root logger one if it had none
    absl.setLevel(logging.CRITICAL)
    try:
        import orbax.checkpoint as ocp
        from orbax.checkpoint._src.serialization import tensorstore_utils

        with contextlib.ExitStack() as stack:
            for name in ("_BASE_TS_CONTEXT", "_DEFAULT_OCDBT_TS_CONTEXT"):
                context = getattr(tensorstore_utils, name)
                context["file_io_sync"] = False
                stack.callback(context.pop, "file_io_sync")
            options = _of_several_processes() if processes.are_several() else ocp.options.MultiprocessingOptions()
            handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=options)
            checkpointer = stack.enter_context(ocp.Checkpointer(handler, multiprocessing_options=options))
            try:
                yield checkpointer
            except Exception:
                _wait_for_orbax()
                raise
    finally:
        absl.setLevel(level)
        root.removeHandler(silent)


_uses = itertools.count()


def _of_several_processes() -> Any:
    """Options by which Orbax's processes wait for each other as JAX's do, and not in an operation of the devices.

    Its barriers need names of their own in every use.
    """
    import orbax.checkpoint as ocp

    return ocp.options.MultiprocessingOptions(
        active_processes=set(range(jax.process_count())), barrier_sync_key_prefix=f"jaxgen-{next(_uses)}"
    )


def _wait_for_orbax() -> None:
    """Wait for Orbax's threads, which would otherwise report errors of their own when Python ends."""
    until = time.monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax"):
            thread.join(max(0.0, until - time.monotonic()))
