"""Encode pictures: their latent codes as a table and as JSON, and their reconstructions.

Pictures may have any format, size and mode; they are made what the model's data are. A variational autoencoder gives
each the mean and the standard deviation of its code, an autoencoder the code.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import pictures
from jaxgen.commands._classes import ClassOption, label, labels_of
from jaxgen.commands._models import Model, find, is_vae
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.commands._pictures import Brought, read, title, warn_if_inverted
from jaxgen.errors import InputError
from jaxgen.signals import say

_MOST_COLUMNS = 8  # of the table


class Options(ModelOptions):
    """The options of this command."""

    pictures: tuple[Path, ...]
    """Picture files, or folders of them."""
    class_: ClassOption = None
    """The pictures' class, by number or name, for a model that was trained with classes."""
    invert: bool = False
    """Exchange black and white first."""


class Codes(NamedTuple):
    """What an encoder makes of images."""

    mean: np.ndarray  # [N, latent]; an autoencoder's code [N, h, w, channels]
    deviation: np.ndarray | None  # [N, latent]; None for an autoencoder


def run(options: Options) -> None:
    """Write the codes and the reconstructions."""
    model = find(options, "encode")
    brought = read_for(model, options.pictures, invert=options.invert)
    labels = needed_labels(options.class_, len(brought.images), model)
    warn_if_unlike(model, brought, labels)
    codes = encode(model, brought.images, labels)
    back = decode(model, codes.mean, labels)
    _print_table(brought.names, codes)
    name = f"{model.prefix}encoded_{title(brought.names)}"
    rows = {"original": brought.images, "reconstruction": back}
    names = brought.names if len(brought.names) <= 10 else ()
    image = pictures.compared(rows, 10, title=f"Reconstructed by {model.name}", column_labels=names)
    write_files(model.folder, {f"{name}.json": _as_json(brought.names, codes), f"{name}.png": pictures.png(image)})


def read_for(model: Model, paths: Sequence[Path], *, invert: bool) -> Brought:
    """The user's pictures as an encoder takes them."""
    height, width, channels = image_shape(model)
    return read(paths, (height, width), channels, model, invert=invert)


def image_shape(model: Model) -> tuple[int, int, int]:
    """Height, width and channels of the images that an encoder takes: its data's, since some take any size."""
    height, width, channels = model.module.input_shape
    height, width = model.data.get("size", (height, width))
    return height, width, model.data.get("channels", channels)


def warn_if_unlike(model: Model, brought: Brought, labels: dict[str, Any]) -> None:
    """Say which pictures seem to have black and white exchanged: the model reconstructs them better the other way."""

    def squared_error(images: np.ndarray) -> np.ndarray:
        back = decode(model, encode(model, images, labels).mean, labels)
        return np.asarray(((back - images) ** 2).mean((1, 2, 3)))

    warn_if_inverted(brought, squared_error)


def needed_labels(text: str | None, count: int, model: Model) -> dict[str, Any]:
    """The argument `labels` of a conditional model, which has to be told what it is given.

    Raises:
        InputError: it is not.
    """
    number = label(text, model)
    if model.classes and number is None:
        raise InputError(f"{model.name} was trained with classes; name that of the pictures with --class")
    return labels_of(number, count, model)


def encode(model: Model, images: np.ndarray, labels: dict[str, Any]) -> Codes:
    """The codes of images `[N, H, W, C]`, from 0 to 1."""
    if not is_vae(model.module):
        return Codes(np.asarray(_code(model.module, model.variables, jnp.asarray(images))), None)
    mean, log_variance = _distribution(model.module, model.variables, jnp.asarray(images), labels)
    return Codes(np.asarray(mean), np.exp(0.5 * np.asarray(log_variance)))


def decode(model: Model, codes: np.ndarray, labels: dict[str, Any]) -> np.ndarray:
    """Images `[N, H, W, C]`, from 0 to 1, of codes as `encode` gives them."""
    if not is_vae(model.module):
        return np.asarray(_image(model.module, model.variables, jnp.asarray(codes)))
    return np.asarray(_decoded(model.module, model.variables, jnp.asarray(codes), labels))


@partial(jax.jit, static_argnums=0)
def _distribution(module: Any, variables: Any, images: jax.Array, labels: dict[str, Any]) -> Any:
    return module.apply(variables, images, **labels, method="encode")


@partial(jax.jit, static_argnums=0)
def _decoded(module: Any, variables: Any, z: jax.Array, labels: dict[str, Any]) -> Any:
    return module.apply(variables, z, **labels, method="decode")


@partial(jax.jit, static_argnums=0)
def _code(module: Any, variables: Any, images: jax.Array) -> Any:
    return module.apply(variables, images, method=lambda whole, images: whole.enc(images))


@partial(jax.jit, static_argnums=0)
def _image(module: Any, variables: Any, codes: jax.Array) -> Any:
    return module.apply(variables, codes, method=lambda whole, codes: whole.dec(codes))


def _as_json(names: Sequence[str], codes: Codes) -> bytes:
    each = [
        {"picture": name, "code": mean.tolist()}
        if codes.deviation is None
        else {"picture": name, "mean": mean.tolist(), "standard_deviation": deviation.tolist()}
        for name, mean, deviation in zip(
            names, codes.mean, codes.mean if codes.deviation is None else codes.deviation, strict=True
        )
    ]
    return (json.dumps(each, indent=1) + "\n").encode()


def _print_table(names: Sequence[str], codes: Codes) -> None:
    """One line for each picture: mean ± standard deviation in each dimension, or the first numbers of its code."""
    flat = codes.mean.reshape(len(names), -1)
    shown = min(flat.shape[1], _MOST_COLUMNS)
    rest = f"  … {flat.shape[1]} numbers in all" if flat.shape[1] > shown else ""
    cells = [[f"{value:.3f}" for value in row[:shown]] for row in flat]
    if codes.deviation is not None:
        cells = [
            [f"{text} ± {spread:.3f}" for text, spread in zip(row, spreads, strict=False)]
            for row, spreads in zip(cells, codes.deviation, strict=True)
        ]
    header = [f"z{at + 1}" for at in range(shown)]
    width = max(len("picture"), *map(len, names))
    columns = max(len(text) for row in [header, *cells] for text in row)
    for name, row in [("picture", header), *zip(names, cells, strict=True)]:
        say(
            "  ".join([f"{name:{width}}", *(f"{text:>{columns}}" for text in row)])
            + (rest if row is not header else "")
        )
