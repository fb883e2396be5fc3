"""A run's folder, read: its configuration, its newest good checkpoint, and both as a notebook wants them."""

import importlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxgen import checkpoint
from jaxgen.config import Config
from jaxgen.errors import InputError
from jaxgen.precision import in_precision
from jaxgen.training import PyTree, Recipe


class Found(NamedTuple):
    """The newest checkpoint that is as it was written."""

    path: Path
    about: dict[str, Any]
    damaged: list[tuple[Path, checkpoint.DamagedError]]  # newer ones that are not


class Trained(NamedTuple):
    """A run as a notebook wants it."""

    recipe: Recipe
    variables: PyTree  # one network: {"params": …}; DCGAN: {"generator": …, "discriminator": …}
    config: Any  # the experiment's Config


def read_config(folder: Path) -> dict[str, Any] | None:
    """What `config.json` of a run's folder says; None where there is no run."""
    path = folder / "config.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if not (isinstance(found["options"], dict) and isinstance(found["experiment"], str)):
            raise KeyError("options")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a run's configuration; put the file back as it was written") from error


def check_same_experiment(config: Config, stored: dict[str, Any]) -> None:
    if stored["experiment"] != config.module:
        raise InputError(
            f"{config.folder} holds a run of {stored['experiment']}, not {config.module}; --out names another folder"
        )


def newest_good(folder: Path) -> Found:
    """The newest good checkpoint of the run in `folder`. Nothing is changed on disk.

    Raises:
        InputError: there is none.
    """
    checkpoints = folder / "checkpoints"
    damaged: list[tuple[Path, checkpoint.DamagedError]] = []
    for path in reversed(checkpoint.numbered(checkpoints)):
        try:
            return Found(path, checkpoint.verify(path), damaged)
        except checkpoint.DamagedError as error:
            damaged.append((path, error))
    if damaged:
        raise InputError(f"no checkpoint in {checkpoints} is whole: {damaged[0][1]}; nothing was deleted")
    raise InputError(f"{checkpoints}: no checkpoint to go on from; start the run again with another --out")


def best_good(folder: Path) -> Path:
    path = checkpoint.best(folder / "checkpoints")
    if path is None:
        raise InputError(f"{folder}: no checkpoint is the best one; load the newest, without best")
    try:
        checkpoint.verify(path)
    except checkpoint.DamagedError as error:
        raise InputError(f"the best checkpoint is not whole: {error}; load the newest, without best") from error
    return path


def load(folder: str | Path, *, best: bool = False) -> Trained:
    """The recipe, the variables and the configuration of the run in `folder`, from its newest good checkpoint.

    The experiment that made it must be importable: start Python in the checkout.

    Args:
        best: take the checkpoint that was kept as the best one, by the smallest training loss.

    Raises:
        InputError: there is no run, its experiment cannot be imported, or no checkpoint is whole.
    """
    folder = Path(folder)
    stored = read_config(folder)
    if stored is None:
        raise InputError(f"{folder}: no run there; train one first, or name another folder")
    runs = [path.parent for path in sorted(folder.glob("*/config.json"))]
    if runs and not (folder / "checkpoints").exists():
        raise InputError(f"{folder}: holds several runs; load one of {', '.join(map(str, runs))}")
    try:
        experiment = importlib.import_module(stored["experiment"])
    except ImportError as error:
        raise InputError(f"{folder}: cannot import {stored['experiment']}; start Python where it can be") from error
    config = experiment.Config().under(stored["options"], folder / "config.json")
    recipe = in_precision(experiment.recipe(config), config.precision)
    like = {"state": jax.eval_shape(recipe.init, jax.random.key(0))}
    path = best_good(folder) if best else newest_good(folder).path
    state = checkpoint.restore(path, like)["state"]
    return Trained(recipe, recipe.variables(state), config)


def load_for(config: Config) -> Trained:
    """`load` the folder of `config`, which must hold a run of the same experiment."""
    if stored := read_config(config.folder):
        check_same_experiment(config, stored)
    return load(config.folder)
