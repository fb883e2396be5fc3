"""Measure how good a trained model is, or a folder of images, against a data set.

Samples are measured by distances to real images, beside the same distances of held-out real images; reconstructions and
completions by their error, beside those of simple baselines. The figures are printed as a table and written as JSON.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

from jaxgen import metrics
from jaxgen.commands._classes import labels_of
from jaxgen.commands._models import Model, find_all, is_vae
from jaxgen.commands._options import ModelOptions, Seed, write_files
from jaxgen.commands.sample import draw
from jaxgen.data import Images, load_splits
from jaxgen.errors import InputError
from jaxgen.metrics import FEWEST, Figures
from jaxgen.models import autoencoder, completion, vae
from jaxgen.runs import Count, Layout, option
from jaxgen.signals import say
from jaxgen.trained import no_run


class Options(ModelOptions):
    """The options of this command."""

    path: Path
    """A run's folder, finished or not; a weights file, .safetensors or a .pth of PyTorch's; or a folder of images."""
    data: str | None = None
    """The data set to measure against, as the experiments take it; None is what the model was trained on."""
    samples: Count = 10_000
    """How many to draw. No more are used than there are real images to compare with."""
    importance_samples: Annotated[int, Field(ge=0)] = 0
    """Codes for each image in a variational autoencoder's importance-weighted bound; 0 leaves that bound out."""
    seed: Seed = 0
    """Determines the samples."""


def run(options: Options) -> None:
    """Print the figures, and write them."""
    if options.path.is_dir() and Layout(options.path).read_config() is None:
        _evaluate_folder(options)
        return
    for model in find_all(options):
        train, test, name = _data_of(model, options)
        say(f"{model.name}, against {name}")
        figures: Figures = {}
        for some in _figures(model, train, test, options):
            say(metrics.table(some))
            figures |= some
        _write(model.folder, f"{model.prefix}{_label(model)}figures.json", figures)


def _label(model: Model) -> str:
    """What tells the models of several runs in one folder apart."""
    return f"{model.module.cell}_" if isinstance(model.module, completion.RowCompleter) else ""


def _evaluate_folder(options: Options) -> None:
    if options.data is None:
        raise InputError(
            f"{no_run(options.path)}; for a folder of images, name what to compare them with, {option('data')}"
        )
    train, test = load_splits(options.data, log=say)
    size, channels = train.images.shape[1:3], train.images.shape[3]
    parts = load_splits(f"folder:{options.path}", size=size, channels=channels, log=None)
    images = np.concatenate([np.asarray(part.images[: options.samples]) for part in parts])
    figures = _of_samples(train, test, images[: options.samples] / np.float32(parts[0].white))
    say(metrics.table(figures))
    _write(options.out or Path(), f"{options.path.resolve().name}_figures.json", figures)


def _write(folder: Path, name: str, figures: Figures) -> None:
    write_files(folder, {name: (json.dumps(metrics.as_json(figures), indent=1) + "\n").encode()})


def _data_of(model: Model, options: Options) -> tuple[Images, Images, str]:
    """The training and the test images to measure against, as the model takes or makes them, and their name."""
    name = options.data or model.options.get("data") or model.data.get("name")
    if name is None:
        raise InputError(f"{model.name} does not say what it was trained on; name a data set with {option('data')}")
    height, width, channels = _image_shape(model)
    loading: dict[str, Any] = {key: model.options.get(key, False) for key in ("crop", "skip_bad")}
    try:
        train, test = load_splits(name, size=(height, width), channels=channels, log=say, **loading)
    except InputError as error:
        if options.data is not None:
            raise
        raise InputError(
            f"the data of {model.name} cannot be loaded: {error}; {option('data')} names others"
        ) from error
    return train, test, name


def _image_shape(model: Model) -> tuple[int, int, int]:
    """Height, width and channels of the images that a model takes or makes."""
    if isinstance(model.module, completion.RowCompleter):
        height, width = model.data.get("size") or model.options.get("size") or 2 * (model.module.width,)
        return height, width, 1
    if hasattr(model.module, "prior"):
        z = jax.ShapeDtypeStruct((1, *model.module.input_shape), np.float32)
        _, height, width, channels = jax.eval_shape(
            model.module.apply, model.variables, z, **labels_of(None, 1, model)
        ).shape
        return height, width, channels
    height, width, channels = model.module.input_shape
    return height, width, channels


def _figures(model: Model, train: Images, test: Images, options: Options) -> Iterator[Figures]:
    """The figures of what a model does; one table for each kind of them."""
    if is_vae(model.module):
        yield _of_vae(model, train, test, options)
    if is_vae(model.module) or hasattr(model.module, "prior"):
        labels = labels_of(None, options.samples, model)
        yield _of_samples(train, test, draw(model, jax.random.key(options.seed), options.samples, labels))
    elif isinstance(model.module, completion.RowCompleter):
        length = model.options.get("sequence_length") or train.images.shape[1] // 2
        measure = metrics.of_completion(test.images, train.images, length, white=train.white)
        yield measure(lambda images: completion.complete(model.module, model.variables, images, length))
    else:
        numbers = autoencoder.code_size(model.module)
        measure = metrics.of_autoencoder(test.images, train.images, numbers, white=train.white)
        yield measure(lambda images: autoencoder.reconstruct(model.module, model.variables, images))


def _of_samples(train: Images, test: Images, samples: np.ndarray) -> Figures:
    measure = metrics.of_samples(train.images, test.images, labels=train.labels, white=train.white)
    count = min(len(samples), measure.most)
    if count < FEWEST:
        raise InputError(f"{count} images can be compared; {FEWEST} are the fewest that say something")
    say(f"{count:,} samples and as many real images, compared by {' and by '.join(measure.descriptions)}")
    return measure(samples)


def _of_vae(model: Model, train: Images, test: Images, options: Options) -> Figures:
    measure = metrics.of_vae(
        test.images,
        train.images,
        test_labels=test.labels,
        train_labels=train.labels,
        conditional=model.classes > 0,
        white=train.white,
        seed=options.seed,
        importance_samples=options.importance_samples,
    )
    module, variables = model.module, model.variables
    return measure(
        lambda images, *labels: vae.posterior(module, variables, images, *labels),
        lambda codes, *labels: vae.decode(module, variables, codes, *labels),
    )
