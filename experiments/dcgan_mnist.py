"""DCGAN on MNIST.

python -m experiments.dcgan_mnist
python -m experiments.dcgan_mnist --sample 100 --seed 7
python -m experiments.dcgan_mnist --conditional
python -m experiments.dcgan_mnist --data folder:photos --size 64 --channels 3
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import optax
from pydantic import AfterValidator, Field

import jaxgen
from jaxgen import layers, metrics, pictures, report, runs
from jaxgen.data import GIVEN, Given, about, load
from jaxgen.models import dcgan
from jaxgen.recipes import with_hyperparams
from jaxgen.training import PyTree

MEASURED = 10_000  # samples, or as many as there are test images


class Config(runs.ConditionalConfig):
    data: runs.Resumable[str] = "mnist"
    """What to draw: mnist, fashion_mnist, cifar10, faces, digits, folder:PATH, arrays:FILE.npz or tfds:NAME; made
    gray and 28×28, or what size and channels say."""
    size: Annotated[runs.Size, AfterValidator(layers.halvable)] = (28, 28)
    """Height and width of the images in pixels, equal: 4, 5, 6 or 7 times a power of two, such as 28, 32 or 64."""
    channels: Literal[1, 3] = 1
    """1 for gray, 3 for colour."""
    width: runs.Dimension = 64
    """Channels of the largest feature map; those of all others are multiples of it."""
    epochs: runs.Resumable[runs.Count] = 25
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: Annotated[runs.Dimension, Field(ge=2)] = 128
    """Images a step, two at least for batch norm; an epoch's last, smaller batch is dropped."""
    learning_rate: runs.Crossed[runs.Positive] = 2e-4
    """Adam's, for both networks."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Adam's first decay rate, for both networks."""
    sample_at: runs.Several[runs.Count] = (1, 10, 25)
    """Epochs after which 64 samples are drawn and both networks' weights saved; the last is always among them."""
    weights: runs.Starting[tuple[Path, Path] | None] = None
    """Start from these weights, the generator's and the discriminator's, .safetensors or .pth with PyTorch's names."""
    sample: runs.Resumable[runs.Count | None] = None
    """Train nothing: draw so many images from the finished run's generator, with --seed, to a PNG and an .npy."""
    samples_out: runs.Resumable[Path | None] = None
    """Folder for what --sample draws; None is samples/ in the run's folder."""

    @property
    def uses_existing_run(self) -> bool:
        return self.resume or self.sample is not None


def recipe(config: Config, classes: int = 0) -> jaxgen.Recipe[dcgan.State]:
    optimizer = with_hyperparams(optax.adam, learning_rate=config.learning_rate, b1=config.beta1)
    return dcgan.mnist_recipe(*networks(config, classes), optimizer, optimizer)


def networks(config: Config, classes: int) -> tuple[dcgan.MnistGenerator, dcgan.MnistDiscriminator]:
    size, channels, width = config.size[0], config.channels, config.width
    generator = dcgan.MnistGenerator(size=size, channels=channels, width=width, classes=classes)
    return generator, dcgan.MnistDiscriminator(size, channels, width, classes)


@runs.experiment
def main(config: Config, data: Given | None = None) -> runs.Outcome | None:
    """Train a DCGAN on MNIST, and watch it learn to write."""
    if config.sample is not None:
        trained = jaxgen.load(config.folder)
        module, variables = trained.module["generator"], trained.variables["generator"]
        samples = dcgan.sample(module, variables, jax.random.key(config.seed), config.sample)
        runs.write_samples(config, samples, config.samples_out, columns=8)
        return None
    load_images = partial(
        load, config.data if data is None else data, size=config.size, channels=config.channels, **config.loading
    )
    train = load_images()
    config = config.replace(data=config.data if data is None else GIVEN)
    classes = config.classes_of(train.classes)
    generator, discriminator = networks(config, classes)
    modules = {"generator": generator, "discriminator": discriminator}

    measure = metrics.of_samples(
        train.images, lambda: load_images(split="test").images, labels=train.labels, white=train.white
    )

    source = jaxgen.scaled(train.images, white=train.white, labels=train.labels if classes else None)
    with runs.start(config, source, modules, about_data=about(config.data, train), page=report.write) as run:

        def draw(epoch: int, variables: PyTree) -> None:
            labels = np.repeat(np.arange(classes), 8) if classes else None  # a row for each class
            count, names = (8 * classes, train.classes) if classes else (64, ())
            samples = dcgan.sample(generator, variables["generator"], run.key("samples", epoch), count, labels)
            sheet = pictures.sheet(samples, 8, title=run.title("samples", epoch), row_labels=names)
            run.picture("samples", sheet, raw=pictures.grid(samples, columns=8))
            run.curves("losses", ["loss_discriminator", "loss_generator"], "training loss (cross-entropy)")
            run.weights(variables)
            run.results(lambda: measure(many_samples(epoch, variables)))

        def many_samples(epoch: int, variables: PyTree) -> jax.Array:
            labels = np.resize(train.labels, MEASURED) if classes else None  # in the proportions of the data
            key = run.key("measured samples", epoch)
            return dcgan.sample(generator, variables["generator"], key, MEASURED, labels)

        notes = {dcgan.WON: dcgan.discriminator_has_won}
        run.fit(recipe(config, classes), [(config.sample_at, draw)], notes=notes)
    return run.outcome


if __name__ == "__main__":
    runs.command(main, Config)
