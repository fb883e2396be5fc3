"""Trained models: the networks of a run, or of a weights file, ready to use."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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


def load(path: str | Path, *, best: bool = False, module: Any = None) -> Trained:
    """The trained model of a run, or in a weights file.

    The experiment that made it need not be installed: the header of the weights names the class of the module and its
    fields. Nothing that a file names is imported; a class outside `jaxgen.models` is given as `module`.

    Args:
        path: a run's folder, finished or not (then its newest checkpoint is taken); or a `.safetensors` or `.pth` file.
        best: take the checkpoint that was kept as the best one, by the metric that the run names.
        module: the module, where its class is the caller's own; for two networks, a mapping with their names.

    Raises:
        InputError: there is no run or file, its module cannot be made, or no checkpoint is intact.
    """
    path = Path(path)
    if path.is_file():
        made, variables, about = torch_weights.load_file(path, module)
        return Trained(made, variables, _as_attributes((about or {}).get("config", {})))
    layout = Layout(path)
    stored = layout.read_config()
    if stored is None:
        raise InputError(f"{path}: no run there; train one first, or name another folder")
    runs = [folder.parent for folder in sorted(path.glob("*/config.json"))]
    if runs and not layout.checkpoints.exists():
        raise InputError(f"{path}: holds several runs; load one of {', '.join(map(str, runs))}")
    modules, variables = {}, {}
    for file in _weights(layout, best):
        given = module.get(file.stem) if isinstance(module, Mapping) else module
        modules[file.stem], variables[file.stem], _ = torch_weights.load_file(file, given)
    config = _as_attributes(stored["options"])
    if modules.keys() == {"model"}:
        return Trained(modules["model"], variables["model"], config)
    return Trained(modules, variables, config)


def _as_attributes(options: Mapping[str, Any]) -> types.SimpleNamespace:
    """Options as attributes; JSON's lists are tuples."""
    return types.SimpleNamespace(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    )


def _weights(layout: Layout, best: bool) -> list[Path]:
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
