"""Decode latent vectors: what does z = (1, 0.5) look like?"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgen import pictures
from jaxgen.commands._classes import ClassOption, class_name, label
from jaxgen.commands._models import Model, find, is_vae
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.commands.sample import in_unit_range
from jaxgen.errors import InputError
from jaxgen.models import vae
from jaxgen.runs import option

_MOST_COLUMNS = 10


class Options(ModelOptions):
    """The options of this command."""

    at: tuple[float, ...] = ()
    """The vector's numbers, as many as the model's latent space has dimensions; or those of several vectors."""
    class_: ClassOption = None
    """The class to decode as, by number or name, for a model that was trained with classes; None is each."""


def run(options: Options) -> None:
    """Write a picture of each vector."""
    model = find(options, "decode")
    z = _vectors(options.at, model)
    number = label(options.class_, model)
    every: list[int | None] = [*range(model.classes)] or [None]
    kinds = every if number is None else [number]  # a row shows a vector as each of them
    labels = {} if kinds == [None] else {"labels": np.tile(np.asarray(kinds), len(z))}
    images = decode(model, np.repeat(z, len(kinds), axis=0), labels)
    shown = "_".join(f"{value:g}" for value in options.at[:4]) + ("_etc" if len(options.at) > 4 else "")
    name = f"{model.prefix}decoded_{shown}" + ("" if number is None else f"_class_{number}")
    write_files(model.folder, {f"{name}.png": pictures.png(_sheet(images, z, kinds, model))})


def _sheet(images: np.ndarray, z: np.ndarray, kinds: Sequence[int | None], model: Model) -> Image.Image:
    points = [f"({', '.join(f'{value:g}' for value in vector[:3])}{', …' * (len(vector) > 3)})" for vector in z]
    names = [class_name(kind, model) for kind in kinds if kind is not None]
    if len(kinds) > 1:
        return pictures.sheet(images, len(kinds), title=model.name, row_labels=points, column_labels=names)
    title = f"{model.name}, z = {points[0]}" if len(z) == 1 else model.name
    title += f", class {names[0]}" if names else ""
    columns = points if 1 < len(z) <= _MOST_COLUMNS else ()
    return pictures.sheet(images, _MOST_COLUMNS, title=title, column_labels=columns)


def _vectors(numbers: tuple[float, ...], model: Model) -> np.ndarray:
    latent = model.module.latent
    if not numbers or len(numbers) % latent:
        example = option("at", [1, 0.5, *[0] * 8][: min(latent, 10)]) + (" …" if latent > 10 else "")
        raise InputError(
            f"{option('at')}: {model.name} takes {latent} number{'s' * (latent > 1)} for each image, not "
            f"{len(numbers)}; as {example}"
        )
    if beyond := [number for number in numbers if abs(number) > float(np.finfo(np.float32).max)]:
        raise InputError(f"{option('at', beyond[0])}: is beyond the range of float32")
    return np.reshape(np.asarray(numbers, np.float32), (-1, latent))


def decode(model: Model, z: np.ndarray, labels: dict[str, Any]) -> np.ndarray:
    """Images `[N, H, W, C]`, from 0 to 1, of latent vectors `[N, latent]`."""
    if is_vae(model.module):
        return np.asarray(vae.decode(model.module, model.variables, z, **labels))
    return in_unit_range(_generate(model.module, model.variables, jnp.asarray(z), labels), model)


@partial(jax.jit, static_argnums=0)
def _generate(module: Any, variables: Any, z: jax.Array, labels: dict[str, Any]) -> jax.Array:
    images: jax.Array = module.apply(variables, z, **labels)
    return images
