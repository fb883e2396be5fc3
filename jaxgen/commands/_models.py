"""Finding the trained model that a command is to use, and whether it can."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jaxgen
from jaxgen import torch_weights
from jaxgen.commands._options import ModelOptions
from jaxgen.errors import InputError
from jaxgen.models import autoencoder, completion
from jaxgen.runs import Layout, option
from jaxgen.signals import say
from jaxgen.trained import best_model, count_models, no_run, runs_below, weights_in


class Model(NamedTuple):
    """A trained model to use.

    Attributes:
        name: what it is called in messages and titles, such as `dcgan_mnist's generator`.
        module: the Flax module.
        variables: its variables.
        folder: where its files go by default.
        prefix: what their names begin with: nothing in a run's folder, where the folder says whose they are.
        options: the options of its run, as far as they are known.
        data: what it was trained on, as `config.json` has it; empty where that is not known.
        latent_points: where a finished run has the means of its classes' latent codes, if it is one that has them.
    """

    name: str
    module: Any
    variables: Any
    folder: Path
    prefix: str
    options: Mapping[str, Any]
    data: Mapping[str, Any]
    latent_points: Path | None = None

    @property
    def classes(self) -> int:
        """How many classes the model is given as labels; 0 for one without labels."""
        return int(getattr(self.module, "classes", 0))


class Use(NamedTuple):
    """What a command does with a model.

    Attributes:
        fits: whether a module can be used so.
        lack: what one that does not fit lacks.
    """

    fits: Callable[[Any], bool]
    lack: str


def is_vae(module: Any) -> bool:
    """Whether a module encodes images as distributions of latent vectors, and decodes these."""
    return hasattr(module, "encode") and hasattr(module, "decode")


def _is_generator(module: Any) -> bool:
    return hasattr(module, "prior")


def _is_autoencoder(module: Any) -> bool:
    return isinstance(module, autoencoder.ConvAutoencoder)


USES = {
    "sample": Use(lambda module: _is_generator(module) or is_vae(module), "has no distribution to sample from"),
    "decode": Use(lambda module: _is_generator(module) or is_vae(module), "has no decoder of latent vectors"),
    "encode": Use(lambda module: is_vae(module) or _is_autoencoder(module), "has no encoder"),
    "complete": Use(lambda module: isinstance(module, completion.RowCompleter), "does not complete images"),
    "morph": Use(lambda module: is_vae(module) or _is_autoencoder(module), "has no encoder"),
}


def uses_of(module: Any) -> list[str]:
    """The commands that fit a module."""
    return [name for name, use in USES.items() if use.fits(module)]


def find(options: ModelOptions, use: str) -> Model:
    """The model at a path, for a command that takes one.

    Args:
        options: the command's.
        use: the command, one of `USES`.

    Raises:
        InputError: there is none, it cannot be loaded, or the command does not fit it.
    """
    models = find_all(options, use)
    if len(models) > 1:
        paths = ", ".join(str(options.path / path.name) for path in runs_below(options.path))
        raise InputError(f"{options.path}: holds several runs; take one of {paths}")
    return models[0]


def find_all(options: ModelOptions, use: str | None = None) -> list[Model]:
    """The models at a path: one, or those of all runs in a folder of several, such as `lstm/` and `gru/`.

    Args:
        options: the command's.
        use: the command, one of `USES`; None for one that fits every model for which any of `USES` fits.
    """
    models = list(_load(options))
    for model in models:
        fitting = uses_of(model.module)
        if (use not in fitting) if use else not fitting:
            raise InputError(
                f"{model.name} {USES[use].lack if use else 'cannot be measured'}; "
                + (f"{_listed(fitting)} {'fits' if len(fitting) == 1 else 'fit'}" if fitting else _NO_USE)
            )
    return models


_NO_USE = "it makes no images, so of the commands for models only show fits; give the generator beside it"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _load(options: ModelOptions) -> Iterator[Model]:
    path = options.path
    if path.is_file():
        if options.model is not None:
            raise InputError(f"{option('model', options.model)}: {path} is the file of one model; leave it out")
        yield _of_file(path, options)
        return
    if files := weights_in(path):
        number = options.model or "0"
        of_model = [file for file in files if not file.stem[0].isdecimal() or file.stem.partition(".")[0] == number]
        if not of_model:
            raise InputError(f"{option('model', number)}: {path} holds no weights of that model")
        models = [_of_file(file, options) for file in of_model]
        yield next((model for model in models if uses_of(model.module)), models[0])
        return
    runs = runs_below(path) if Layout(path).read_config() is not None else []
    for run in runs or [path]:
        yield _of_run(run, options)


def _of_file(path: Path, options: ModelOptions) -> Model:
    module, variables, about = torch_weights.load_file(path, options.module)
    return Model(
        f"the {type(module).__name__} in {path.name}", module, variables, options.out or Path(), f"{path.stem}_",
        about.get("config") or {}, about.get("data") or {},
    )  # fmt: skip


def _of_run(run: Path, options: ModelOptions) -> Model:
    layout = Layout(run)
    stored = layout.read_config()
    if stored is None:
        raise InputError(no_run(run))
    chosen = chosen_model(layout, options.model)
    trained = jaxgen.load(run, module=options.module, model=chosen)
    module, variables, experiment = trained.module, trained.variables, stored["experiment"].rpartition(".")[2]
    name = f"{experiment}'s model"
    if isinstance(module, Mapping):
        network = next((key for key, each in module.items() if uses_of(each)), next(iter(module)))
        name, module, variables = f"{experiment}'s {network}", module[network], variables[network]
    number = "" if chosen is None else f"{chosen}."
    return Model(
        name, module, variables, options.out or options.path / "samples",
        "" if chosen is None else f"model_{chosen}_", stored["options"], stored.get("data") or {},
        layout.final / f"{number}latent_points.json" if layout.read_finished() is not None else None,
    )  # fmt: skip


def chosen_model(layout: Layout, asked: str | None) -> int | None:
    """The number of the model to take from a run of several; None where it has but one."""
    count = count_models(layout)
    if asked is None:
        number = 0
        if count > 1:
            say(f"model 0 of {count}; {option('model')} takes another")
    elif asked == "best":
        number = best_model(layout)
    elif asked.isdecimal() and int(asked) < count:
        number = int(asked)
    else:
        there = f"a number from 0 to {count - 1}, or best" if count > 1 else "0, the only one"
        raise InputError(f"{option('model', asked)}: must be {there}")
    return number if count > 1 else None
