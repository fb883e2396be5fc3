"""Trained models: the networks of a run, or of a weights file, ready to use."""

import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jaxgen import torch_weights
from jaxgen.errors import InputError
from jaxgen.runs.layout import Layout
from jaxgen.runs.resume import best_good, newest_good


class Trained(NamedTuple):
    """A trained model.

    Attributes:
        module: the Flax module; for two networks, a mapping with the keys `generator` and `discriminator`.
        variables: its variables, in the same form.
        config: the run's options, as attributes; for a weights file, those that its header names.
    """

    module: Any
    variables: Any
    config: types.SimpleNamespace


def load(
    path: str | Path, *, best: bool = False, module: Any = None, model: int | Literal["best"] | None = None
) -> Trained:
    """The trained model of a run, or in a weights file.

    The experiment that made it need not be installed: the header of the weights names the class of the module and its
    fields. A file without such a header, as a tutorial's `.pth`, is matched by the names and shapes of its tensors.
    Nothing that a file names is imported; a class outside `jaxgen.models` is given as `module`.

    Args:
        path: a run's folder, finished or not (then its newest checkpoint is taken); a folder that `jaxgen export --to
            hub` made; or a `.safetensors` or `.pth` file.
        best: take the checkpoint that was kept as the best one, by the metric that the run names.
        module: the module, where its class is the caller's own; for two networks, a mapping with their names. Or the
            name of the class in `jaxgen.models`, such as `"dcgan.MnistGenerator"`, where the tensors fit several.
        model: which model of a run of several: its number from 0, or `"best"` for the one with the lowest value of the
            metric that the run names. By default all of them, with names such as `0.generator`.

    Raises:
        InputError: there is no run or file, its module cannot be made, or no checkpoint is intact.
    """
    path = Path(path)
    if path.is_file():
        made, variables, about = torch_weights.load_file(path, module)
        return Trained(made, variables, _as_attributes((about or {}).get("config", {})))
    layout = Layout(path)
    files = {file.stem: file for file in weights_in(path)}
    stored = None if files else layout.read_config()
    if stored is None and not files:
        raise InputError(no_run(path))
    if stored is not None:
        if runs := runs_below(path):
            raise InputError(f"{path}: holds several runs; load one of {', '.join(map(str, runs))}")
        files = _of_model(layout, best, model)
    modules, variables = {}, {}
    for name, file in files.items():
        given = module.get(name) if isinstance(module, Mapping) else module
        modules[name], variables[name], about = torch_weights.load_file(file, given)
    config = _as_attributes(about.get("config", {}) if stored is None else stored["options"])
    if modules.keys() == {"model"}:
        return Trained(modules["model"], variables["model"], config)
    return Trained(modules, variables, config)


def weights_in(folder: Path) -> list[Path]:
    """The weights files in a folder that is no run's but a part of one, or made for a model hub."""
    return [] if Layout(folder).environment.exists() else sorted(folder.glob("*.safetensors"))


def runs_below(path: Path) -> list[Path]:
    """The runs in the sub-folders of a folder that holds several; empty where the folder is a run itself."""
    return [] if Layout(path).checkpoints.exists() else [file.parent for file in sorted(path.glob("*/config.json"))]


def count_models(layout: Layout) -> int:
    """How many models a run has: the files of several are called `0.generator.safetensors`."""
    numbers = [number for number, _, name in map(_parts, current_weights(layout)) if name and number.isdecimal()]
    return 1 + max(map(int, numbers), default=0)


def best_model(layout: Layout) -> int:
    """The number of the best model of a run of several, by the metric that the run names.

    Raises:
        InputError: the run does not say which it is.
    """
    best = (layout.read_finished() or {}).get("best_model")
    if isinstance(best, int):
        return best
    if (count := count_models(layout)) > 1:
        raise InputError(f"{layout.folder}: the run does not say which model is best; there are 0 to {count - 1}")
    return 0


def _parts(file: Path) -> tuple[str, str, str]:
    return file.stem.partition(".")


def _of_model(layout: Layout, best: bool, model: int | Literal["best"] | None) -> dict[str, Path]:
    """The weights files of one model by the names of its networks, or those of all under the names of the files."""
    files = current_weights(layout, best)
    if model is None:
        return {file.stem: file for file in files}
    number, count = best_model(layout) if model == "best" else model, count_models(layout)
    if not 0 <= number < count:
        there = f"there are 0 to {count - 1}" if count > 1 else "there is one, 0"
        raise InputError(f"{layout.folder}: there is no model {number}; {there}")
    if count == 1:
        return {file.stem: file for file in files}
    return {name: file for file in files for its_number, _, name in [_parts(file)] if its_number == str(number)}


def no_run(path: Path) -> str:
    """What to say of a path that is neither a file nor a run."""
    above = next((folder for folder in path.absolute().parents[:3] if (folder / "config.json").is_file()), None)
    if path.exists() and above is not None:
        return f"{path}: no run there, but a part of one; load {os.path.relpath(above)}"
    return f"{path}: no run there; train one first, or name another folder"


def _as_attributes(options: Mapping[str, Any]) -> types.SimpleNamespace:
    """Options as attributes; JSON's lists are tuples."""
    return types.SimpleNamespace(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    )


def current_weights(layout: Layout, best: bool = False) -> list[Path]:
    """The weights files of a run: of its end, or else of a checkpoint."""
    if best:
        folder = best_good(layout)
    elif layout.read_finished() is not None:
        folder = layout.final
    else:
        folder = newest_good(layout).checkpoint
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: holds no weights; restore the folder, or load another checkpoint")
    return files
