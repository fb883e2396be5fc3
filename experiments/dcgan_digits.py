"""DCGAN on scikit-learn's 8×8 digits.

python -m experiments.dcgan_digits
python -m experiments.dcgan_digits --sample 100 --seed 7
python -m experiments.dcgan_digits --conditional
"""

from functools import partial
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import optax

import jaxgen
from jaxgen import metrics, pictures, report, runs
from jaxgen.data import GIVEN, Given, Images, about, load
from jaxgen.models import dcgan
from jaxgen.recipes import with_hyperparams
from jaxgen.training import PyTree

MEASURED = 1000  # samples, or as many as half of the data


class Config(runs.ConditionalConfig):
    data: runs.Resumable[str] = "digits"
    """What to draw: digits, mnist, fashion_mnist, cifar10, faces, folder:PATH, arrays:FILE.npz or tfds:NAME; made gray
    and 8×8."""
    epochs: runs.Resumable[runs.Count] = 200
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: runs.Dimension = 16
    """Images a step; the generator learns from twice as many."""
    learning_rate: runs.Crossed[runs.Positive] = 1e-3
    """Adam's, for both networks."""
    sample_every: runs.Count = 20
    """Epochs from one sheet of 256 samples to the next."""
    frame_every: runs.Count = 1
    """Epochs from one frame of the animation to the next."""
    save_every: runs.Resumable[runs.Count] = 20
    """Epochs from one checkpoint to the next; there is always one at the end and when the run is stopped."""
    weights: runs.Starting[tuple[Path, Path] | None] = None
    """Start from these weights, the generator's and the discriminator's, .safetensors or .pth with PyTorch's names."""
    sample: runs.Resumable[runs.Count | None] = None
    """Train nothing: draw so many digits from the finished run's generator, with --seed, to a PNG and an .npy."""
    samples_out: runs.Resumable[Path | None] = None
    """Folder for what --sample draws; None is samples/ in the run's folder."""

    cpu_devices: ClassVar[int] = 2

    @property
    def uses_existing_run(self) -> bool:
        return self.resume or self.sample is not None


def recipe(config: Config, classes: int = 0) -> jaxgen.Recipe[dcgan.State]:
    optimizer = with_hyperparams(optax.adam, learning_rate=config.learning_rate)
    return dcgan.digits_recipe(*networks(classes), optimizer, optimizer)


def networks(classes: int) -> tuple[dcgan.DigitsGenerator, dcgan.DigitsDiscriminator]:
    return dcgan.DigitsGenerator(classes=classes), dcgan.DigitsDiscriminator(classes=classes)


@runs.experiment
def main(config: Config, data: Given | None = None) -> runs.Outcome | None:
    """Train a DCGAN on scikit-learn's 8×8 digits, and watch it learn to draw them."""
    if config.sample is not None:
        trained = jaxgen.load(config.folder)
        module, variables = trained.module["generator"], trained.variables["generator"]
        samples = dcgan.sample(module, variables, jax.random.key(config.seed), config.sample)
        runs.write_samples(config, samples / 2 + 0.5, config.samples_out)
        return None
    load_images = partial(load, config.data if data is None else data, size=(8, 8), channels=1, **config.loading)
    digits = load_images()
    config = config.replace(data=config.data if data is None else GIVEN)
    classes = config.classes_of(digits.classes)
    generator, discriminator = networks(classes)
    modules = {"generator": generator, "discriminator": discriminator}

    measure = metrics.of_samples(
        digits.images, lambda: load_images(split="test").images, labels=digits.labels, white=digits.white
    )

    source = jaxgen.scaled(digits.images, -1, 1, white=digits.white, labels=digits.labels if classes else None)
    with runs.start(config, source, modules, about_data=about(config.data, digits), page=report.write) as run:
        same_z = run.key("frames")
        draw_data(run, digits)

        def draw(epoch: int, variables: PyTree) -> None:
            labels = np.repeat(np.arange(classes), 16) if classes else None  # a row for each class
            count, names = (16 * classes, digits.classes) if classes else (256, ())
            samples = dcgan.sample(generator, variables["generator"], run.key("samples", epoch), count, labels)
            sheet = pictures.sheet(samples / 2 + 0.5, 16, title=run.title("samples", epoch), row_labels=names)
            run.picture("samples", sheet, raw=pictures.grid(samples / 2 + 0.5, columns=16))
            run.curves("accuracies", ["accuracy_fake", "accuracy_real"], "discriminator's accuracy")
            run.curves("errors", ["error_fake", "error_real"], "discriminator's cross-entropy")
            run.results(lambda: measure(many_samples(epoch, variables)))

        def many_samples(epoch: int, variables: PyTree) -> jax.Array:
            labels = np.resize(digits.labels, MEASURED) if classes else None  # in the proportions of the data
            key = run.key("measured samples", epoch)
            return dcgan.sample(generator, variables["generator"], key, MEASURED, labels) / 2 + 0.5

        def draw_frame(epoch: int, variables: PyTree) -> None:
            samples = dcgan.sample(generator, variables["generator"], same_z, 64)
            grid = pictures.grid(samples / 2 + 0.5, columns=8)
            run.picture("frame", pictures.captioned(grid, f"epoch {epoch} · {run.title()}"), raw=grid)

        drawings = [(config.sample_every, draw), (config.frame_every, draw_frame)]
        run.fit(recipe(config, classes), drawings, notes={dcgan.WON: dcgan.discriminator_has_won})
        run.animation("training", lambda: run.frames("frame"))
    return run.outcome


def draw_data(run: "runs.Run[Config]", digits: Images) -> None:
    """The training images in the matrix of the samples, and the first ten with their labels."""
    images = digits.preview(256).as_floats()
    title = run.title("training images")
    run.picture(
        "digits",
        lambda: pictures.sheet(images, 16, title=title),
        raw=lambda: pictures.grid(images, columns=16),
    )
    names = [digits.classes[label] if digits.classes else "" for label in digits.labels[:10]]
    count, height, width, _ = digits.images.shape
    title_of_ten = run.title(f"the first {len(names)} of {count:,} images of {height}×{width} pixels")
    ten = digits.select(np.arange(len(names))).as_floats()
    run.picture("first_ten", lambda: pictures.sheet(ten, 10, title=title_of_ten, column_labels=names))


if __name__ == "__main__":
    runs.command(main, Config)
