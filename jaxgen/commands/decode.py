"""Decode latent vectors: what does z = (1, 0.5) look like?"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.commands._classes import ClassOption, label, labels_of
from jaxgen.commands._models import Model, find, is_vae
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.commands._pictures import sheet
from jaxgen.commands.sample import in_unit_range
from jaxgen.errors import InputError
from jaxgen.models import vae
from jaxgen.runs import option


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
    kinds = model.classes if number is None and model.classes else 1  # a row shows a vector as each class
    z = np.repeat(z, kinds, axis=0)
    images = decode(model, z, labels_of(number, len(z), model))
    shown = "_".join(f"{value:g}" for value in options.at[:4]) + ("_etc" if len(options.at) > 4 else "")
    name = f"{model.prefix}decoded_{shown}" + ("" if number is None else f"_class_{number}")
    write_files(model.folder, {f"{name}.png": sheet(images, kinds if kinds > 1 else min(len(z), 10))})


def _vectors(numbers: tuple[float, ...], model: Model) -> np.ndarray:
    latent = model.module.latent
    if not numbers or len(numbers) % latent:
        example = option("at", [1, 0.5, *[0] * 8][: min(latent, 10)]) + (" …" if latent > 10 else "")
        raise InputError(
            f"{option('at')}: {model.name} takes {latent} number{'s' * (latent > 1)} for each image, not "
            f"{len(numbers)}; as {example}"
        )
    return np.reshape(np.asarray(numbers, np.float32), (-1, latent))


def decode(model: Model, z: np.ndarray, labels: dict[str, Any]) -> np.ndarray:
    """Images `[N, H, W, C]`, from 0 to 1, of latent vectors `[N, latent]`."""
    if is_vae(model.module):
        return np.asarray(vae.decode(model.module, model.variables, z, **labels))
    return in_unit_range(_generate(model.module, model.variables, jnp.asarray(z), labels))


@partial(jax.jit, static_argnums=0)
def _generate(module: Any, variables: Any, z: jax.Array, labels: dict[str, Any]) -> jax.Array:
    images: jax.Array = module.apply(variables, z, **labels)
    return images
