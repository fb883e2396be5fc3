"""DCGAN on scikit-learn's 8×8 digits.

python -m experiments.dcgan_digits
python -m experiments.dcgan_digits --sample 100 --seed 7
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import jax
import optax

import jaxgen
from jaxgen import data, pictures, run, torch_weights
from jaxgen.command import command
from jaxgen.config import Count, DataConfig, Free, Positive
from jaxgen.models import dcgan
from jaxgen.stored import load_for


@dataclasses.dataclass(frozen=True)
class Config(DataConfig):
    data: str = "digits"
    """What to draw: digits, mnist, fashion_mnist, cifar10, faces, folder:PATH or tfds:NAME; made gray and 8×8."""
    epochs: Free[Count] = 200
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: Count = 16
    """Images a step; the generator learns from twice as many."""
    learning_rate: Positive = 1e-3
    """Adam's, for both networks."""
    sample_every: Count = 20
    """Epochs from one sheet of 256 samples to the next."""
    frame_every: Count = 1
    """Epochs from one frame of the animation to the next."""
    save_every: Free[Count] = 20
    """Epochs from one checkpoint to the next; there is always one at the end and when the run is stopped."""
    weights: tuple[Path, Path] | None = None
    """Start from these weights, the generator's and the discriminator's, .safetensors or .pth with PyTorch's names."""
    sample: Free[Count | None] = None
    """Train nothing: draw so many digits from the finished run's generator, with --seed, to a PNG and an .npy."""

    cpu_devices: ClassVar[int] = 2


def recipe(config: Config) -> jaxgen.Recipe:
    return dcgan.digits_recipe(
        generator_optimizer=optax.adam(config.learning_rate),
        discriminator_optimizer=optax.adam(config.learning_rate),
    )


def main(config: Config) -> None:
    """Train a DCGAN on scikit-learn's 8×8 digits, and watch it learn to draw them."""
    if config.sample is not None:
        draw_samples(config, config.sample)
        return
    generator, discriminator = dcgan.DigitsGenerator(), dcgan.DigitsDiscriminator()
    weights = None
    if config.weights and run.begins(config):
        weights = torch_weights.load_all({"generator": generator, "discriminator": discriminator}, config.weights)
    digits = data.load(config.data, size=(8, 8), channels=1, skip_bad=config.skip_bad, log=print)

    with run.start(config, jaxgen.scaled(digits.images, -1, 1, white=digits.white)) as this_run:
        shape = " × ".join(map(str, digits.images.shape))
        this_run.picture("first_ten", pictures.labelled(digits.images[:10] / digits.white, digits.labels[:10], shape))
        this_run.picture("digits", pictures.grid(digits.images[:256] / digits.white, columns=16))
        same_z = this_run.key("frames")

        def sheet(epoch: int, state: dcgan.State) -> None:
            samples = dcgan.sample(generator, state.generator, this_run.key("samples", epoch), 256)
            this_run.picture(f"samples_{epoch:03d}", pictures.grid(samples / 2 + 0.5, columns=16))

        def frame(epoch: int, state: dcgan.State) -> None:
            samples = dcgan.sample(generator, state.generator, same_z, 64)
            this_run.picture(f"frames/frame_{epoch:03d}", pictures.grid(samples / 2 + 0.5, columns=8))

        drawings = [(config.sample_every, sheet), (config.frame_every, frame)]
        _, history = this_run.fit(recipe(config), drawings, weights, notes={dcgan.WON: dcgan.discriminator_has_won})
        this_run.animation("training", this_run.frames("frames/frame"))
        this_run.picture("accuracies", pictures.curves(history, ["accuracy_fake", "accuracy_real"], "accuracy"))
        this_run.picture("errors", pictures.curves(history, ["error_fake", "error_real"], "binary cross-entropy"))


def draw_samples(config: Config, count: int) -> None:
    variables = load_for(config).variables["generator"]
    samples = dcgan.sample(dcgan.DigitsGenerator(), variables, jax.random.key(config.seed), count)
    run.write_samples(config, samples / 2 + 0.5)


if __name__ == "__main__":
    command(main, Config)
