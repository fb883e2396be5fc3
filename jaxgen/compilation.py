"""Compiled programs: reused within a process, and kept on disk for the next one."""

import contextlib
import ctypes
import hashlib
import importlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr

_MOST_PROGRAMS = 64  # that are kept in memory
_LARGEST_CONSTANTS = 1 << 20  # bytes; a program that embeds more is not kept
_LARGEST_DISK_CACHE = 2 << 30  # bytes
_ZSTANDARD = b"\x28\xb5\x2f\xfd"  # how its data begin

# Without it, XLA's CPU compiler copies an optimizer's moments and parameters in every step of a training loop, although
# it may overwrite them. It changes no result.
_OPTIONS: dict[str, str | bool] = {"xla_cpu_copy_insertion_use_region_analysis": True}

_programs: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
_lock = threading.Lock()


def compiled(
    function: jax.stages.Wrapped, *arguments: Any, inspect: Callable[[jax.stages.Lowered], None] | None = None
) -> Callable[..., Any]:
    """The program for these arguments, compiled only if an equal one was not compiled before in this process.

    Programs are equal if their StableHLO, their argument and result structures and their devices are. So functions
    that are made anew but compute the same, such as the closures of a recipe that is built twice, share a program.

    A program that embeds large arrays or Python callbacks belongs to the objects that it closes over: it is compiled
    but not kept here.

    Args:
        function: the result of `jax.jit`.
        arguments: arrays, or `jax.ShapeDtypeStruct`s, as the program will be called with.
        inspect: called with what is about to be compiled.
    """
    config: Any = jax.config  # whose attributes are made at run time
    if config.jax_disable_jit:
        return function
    traced = function.trace(*arguments)
    lowered: jax.stages.Lowered = traced.lower()
    if not _is_shareable(traced.jaxpr):
        if inspect is not None:
            inspect(lowered)
        program: Callable[..., Any] = _compile(lowered)
        return program
    key = (
        hashlib.sha256(lowered.as_text().encode()).digest(),
        str(jax.tree.leaves(lowered.args_info)),
        lowered.in_tree,
        lowered.out_tree,
        tuple(leaf.sharding for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array)),
        str(config.jax_default_device),
    )
    with _lock:
        if key in _programs:
            _programs.move_to_end(key)
            return _programs[key]
    if inspect is not None:
        inspect(lowered)
    program = _compile(lowered)
    with _lock:
        _programs[key] = program
        while len(_programs) > _MOST_PROGRAMS:
            _programs.popitem(last=False)
    return program


def _compile(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    try:
        return lowered.compile(compiler_options=_OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return lowered.compile()  # a future XLA may not have the option any more
    finally:
        _return_freed_memory()


def _return_freed_memory() -> None:
    """Give the memory that the compiler has freed back to the system, instead of keeping it while a model trains.

    Only the C library of most Linux systems can be told to.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def forget_programs() -> None:
    """Free the programs that are kept in memory."""
    with _lock:
        _programs.clear()


def _is_shareable(traced: ClosedJaxpr) -> bool:
    """Whether a program embeds neither large arrays nor Python callbacks."""
    size = 0
    for jaxpr in _nested(traced):
        size += sum(getattr(constant, "nbytes", 0) for constant in jaxpr.consts)
        if size > _LARGEST_CONSTANTS or any("callback" in equation.primitive.name for equation in jaxpr.jaxpr.eqns):
            return False
    return True


def _nested(traced: ClosedJaxpr) -> Iterator[ClosedJaxpr]:
    """A jaxpr and all those in its equations' parameters."""
    yield traced
    for equation in traced.jaxpr.eqns:
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if isinstance(part, ClosedJaxpr):
                    yield from _nested(part)
                elif hasattr(part, "eqns"):  # an open jaxpr, which has no constants of its own
                    yield from _nested(ClosedJaxpr(part, ()))


class _DiskCache:
    """Whether JAX's persistent cache is on on our behalf, for how many users, and what to restore."""

    users = 0
    before: dict[str, Any] = {}  # noqa: RUF012


@contextlib.contextmanager
def disk_cache() -> Iterator[None]:
    """Keep compiled programs in the user's cache folder while this lasts.

    The folder is `jaxgen/compiled` in `XDG_CACHE_HOME` or `~/.cache`, readable by the user alone, since its entries are
    code; the least recently used ones beyond 2 GiB are removed. A folder that the user has chosen, as by
    `JAX_COMPILATION_CACHE_DIR`, is used as it is. Where no folder can be made, nothing is kept.
    """
    with _lock:
        if _DiskCache.users == 0:
            _DiskCache.before = _enable_disk_cache()
        _DiskCache.users += 1
    try:
        yield
    finally:
        with _lock:
            _DiskCache.users -= 1
            if _DiskCache.users == 0:
                _set_disk_cache(_DiskCache.before)


def _enable_disk_cache() -> dict[str, Any]:
    """Switch JAX's persistent cache on, and return the settings to restore."""
    folder = None if jax.config.values["jax_compilation_cache_dir"] else cache_folder("compiled")
    if folder is None:
        return {}
    with contextlib.suppress(OSError):
        _remove_damaged(folder)
    _remove_oldest(folder, _LARGEST_DISK_CACHE)
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: jax.config.values[name] for name in settings}
    _set_disk_cache(settings)
    return before


def _set_disk_cache(settings: dict[str, Any]) -> None:
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    for name, value in settings.items():
        jax.config.update(name, value)
    if settings:
        reset_cache()  # JAX decides once, at its first compilation, whether and where it keeps programs


def cache_folder(name: str) -> Path | None:
    """A folder in `jaxgen` in the user's cache, made if it is missing; None where that is impossible."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxgen" / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except (OSError, RuntimeError):  # the latter: there is no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


def _remove_damaged(folder: Path) -> None:
    """Remove the entries that are incomplete, as a full disk, a power cut or a kill leaves them.

    JAX would not replace such an entry, but warn of it and compile again at every start. What was complete at an
    earlier start is not read again.
    """
    checked = folder / ".checked"
    since = checked.stat().st_mtime if checked.exists() else 0.0
    checked.touch()  # before the entries are read, so that one which is written meanwhile is read at the next start
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may be removing it too
            status = entry.stat()
            if not status.st_size or (status.st_mtime >= since and not _is_complete(entry.read_bytes())):
                entry.unlink(missing_ok=True)


def _is_complete(entry: bytes) -> bool:
    """Whether an entry can be decompressed. JAX compresses by Zstandard where Python has it, otherwise by zlib."""
    for name in ("compression.zstd", "zstandard") if entry.startswith(_ZSTANDARD) else ("zlib",):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        try:
            module.decompress(entry)
        except Exception:  # each module has an error of its own
            return False
        return True
    return True  # of another Python, which can tell


def _remove_oldest(folder: Path, limit: int) -> None:
    """Remove the files that were used least recently until the folder holds at most `limit` bytes.

    JAX has `jax_compilation_cache_max_size` for this, but a process that is killed while it writes an entry leaves one
    that stops all later writing (https://github.com/jax-ml/jax/issues/39880).
    """
    with contextlib.suppress(OSError):  # another process may be removing them too
        files = [(path.stat(), path) for path in folder.iterdir()]
        size = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda file: max(file[0].st_atime, file[0].st_mtime)):
            if size <= limit:
                break
            path.unlink(missing_ok=True)
            size -= status.st_size
