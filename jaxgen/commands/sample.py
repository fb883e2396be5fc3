"""Draw samples from a generator, or from a variational autoencoder's prior.

They are written as one picture and as an array, `[count, height, width, channels]` from 0 to 1. Equal seeds give equal
samples, the same as `--sample` of an experiment.
"""

import io
import math
from typing import Any

import jax
import numpy as np

from jaxgen import memory, pictures
from jaxgen.commands._classes import ClassOption, class_name, label, labels_of
from jaxgen.commands._models import Model, find, is_vae
from jaxgen.commands._options import ModelOptions, Seed, write_files
from jaxgen.errors import InputError
from jaxgen.models import dcgan, vae
from jaxgen.runs import Count, option
from jaxgen.signals import say


class Options(ModelOptions):
    """The options of this command."""

    count: Count = 64
    """How many."""
    seed: Seed = 0
    """Determines the samples."""
    class_: ClassOption = None
    """The class of all samples, by number or name, for a model that was trained with classes; None is each in turn."""
    separate: bool = False
    """Also write each sample as a picture of its own, at its own size."""


def run(options: Options) -> None:
    """Write the samples."""
    model = find(options, "sample")
    number = label(options.class_, model)
    samples = draw(model, jax.random.key(options.seed), options.count, labels_of(number, options.count, model))
    name = f"{model.prefix}{options.count}_of_seed_{options.seed}" + ("" if number is None else f"_class_{number}")
    array = io.BytesIO()
    np.save(array, samples)
    columns = math.isqrt(options.count - 1) + 1
    kind = "" if number is None else f" of class {class_name(number, model)}"
    title = f"{options.count:,} samples{kind} of {model.name}, seed {options.seed}"
    sheet = pictures.png(pictures.sheet(samples, columns, title=title))
    write_files(model.folder, {f"{name}.png": sheet, f"{name}.npy": array.getvalue()})
    if options.separate:
        digits = len(str(options.count - 1))
        each = {f"{at:0{digits}}.png": pictures.png(pictures.to_image(image)) for at, image in enumerate(samples)}
        write_files(model.folder / name, each, announce=False)
        say(f"{model.folder / name}/: {len(each):,} pictures")


def draw(model: Model, key: jax.Array, count: int, labels: dict[str, Any]) -> np.ndarray:
    """Samples `[count, H, W, C]`, from 0 to 1.

    Raises:
        InputError: there is not enough memory for so many.
    """
    one = jax.eval_shape(lambda key: _images(model, key, 1, {name: each[:1] for name, each in labels.items()}), key)
    needed, there = 4 * count * one.size * one.dtype.itemsize, memory.available()  # with copies for the files
    if needed > there:
        raise InputError(
            f"{option('count', count)}: so many images take {memory.text(needed)}, and {memory.text(there)} of memory "
            "are free; draw fewer"
        )
    return in_unit_range(_images(model, key, count, labels), model)


def _images(model: Model, key: jax.Array, count: int, labels: dict[str, Any]) -> jax.Array:
    if is_vae(model.module):
        z = jax.random.normal(key, (count, model.module.latent))
        return vae.decode(model.module, model.variables, z, **labels)
    return dcgan.sample(model.module, model.variables, key, count, **labels)


def in_unit_range(images: jax.Array, model: Model) -> np.ndarray:
    """The images that a module makes, from 0 to 1."""
    black, white = getattr(model.module, "image_range", (0, 1))
    return (np.asarray(images) - black) / (white - black)
