"""Where a run begins: decided once, before anything is changed on disk."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.errors import InputError
from jaxgen.runs import checkpoint
from jaxgen.runs.config import Config, option
from jaxgen.runs.layout import Layout


class New(NamedTuple):
    """At the first step: the run is new, or was stopped before it had a checkpoint."""


class At(NamedTuple):
    """At a checkpoint."""

    checkpoint: Path
    about: dict[str, Any]  # what was saved beside the arrays: epoch, step, …
    damaged: list[tuple[Path, checkpoint.DamagedError]]  # newer checkpoints that are not as they were written


class Finished(NamedTuple):
    """Nowhere: it is finished, and its last checkpoint has the state."""

    checkpoint: Path
    about: dict[str, Any]
    results: dict[str, float]


Start = New | At | Finished


def decide(config: Config, data_sha256: str) -> Start:
    """Where a run with this configuration and data begins.

    Raises:
        InputError: the folder is not usable for it.
    """
    layout = Layout(config.folder)
    _check_name(layout.folder)
    if not config.resume:
        _check_new(layout)
        return New()
    stored = layout.read_config()
    if stored is None:
        raise InputError(f"{layout.folder}: no run to resume; leave {option('resume', True)} out to start one")
    check_experiment(config, stored)
    if stored.get("data_sha256") != data_sha256:
        raise InputError(
            f"{layout.folder}: the run was started on other data (SHA-256 {str(stored.get('data_sha256'))[:12]}…, not "
            f"{data_sha256[:12]}…); give it the same, or start another with another {option('out')}"
        )
    if not checkpoint.numbered(layout.checkpoints) and not layout.metrics.exists():
        return New()
    newest = newest_good(layout)
    epoch, finished = newest.about["epoch"], layout.read_finished()
    if finished and config.epochs <= finished["epochs"] <= epoch:
        return Finished(newest.checkpoint, newest.about, finished["results"])
    if epoch > config.epochs:
        raise InputError(f"{option('epochs', config.epochs)}: the run in {layout.folder} is past that; ask for more")
    return newest


def check_experiment(config: Config, stored: dict[str, Any]) -> None:
    """Raise InputError where the folder holds a run of another experiment."""
    if stored["experiment"] != config.experiment:
        raise InputError(
            f"{config.folder} holds a run of {stored['experiment']}, not {config.experiment}; name another folder with "
            f"{option('out')}"
        )


def newest_good(layout: Layout) -> At:
    """The newest checkpoint that is as it was written. Nothing is changed on disk.

    Raises:
        InputError: there is none.
    """
    damaged: list[tuple[Path, checkpoint.DamagedError]] = []
    for path in reversed(checkpoint.numbered(layout.checkpoints)):
        try:
            return At(path, checkpoint.verify(path), damaged)
        except checkpoint.DamagedError as error:
            damaged.append((path, error))
    if damaged:
        raise InputError(f"no checkpoint in {layout.checkpoints} is intact: {damaged[0][1]}; nothing was deleted")
    raise InputError(f"{layout.checkpoints}: no checkpoint to resume from; start the run again in another folder")


def best_good(layout: Layout) -> Path:
    """The checkpoint with the smallest value of the metric that the run names.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = checkpoint.best(layout.checkpoints)
    if path is None:
        raise InputError(f"{layout.folder}: no checkpoint is the best one; load the newest, without best")
    try:
        checkpoint.verify(path)
    except checkpoint.DamagedError as error:
        raise InputError(f"the best checkpoint is damaged: {error}; load the newest, without best") from error
    return path


def _check_name(folder: Path) -> None:
    """Raise InputError where Orbax, which takes paths as UTF-8, could not write into the folder."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        name = str(folder.absolute()).encode(errors="backslashreplace").decode()
        raise InputError(f"{name}: the name of this folder is not UTF-8; name another with {option('out')}") from None


def _check_new(layout: Layout) -> None:
    folder = layout.folder
    if layout.read_config() is not None:
        raise InputError(
            f"{folder} already holds a run; {option('resume', True)} resumes it, {option('out')} names another folder"
        )
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} holds other files; name another folder with {option('out')}")
    nearest = next(path for path in [folder, *folder.absolute().parents] if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise InputError(f"{nearest} is not a folder; name another with {option('out')}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest} is not writable; name another folder with {option('out')}")
