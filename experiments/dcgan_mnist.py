"""DCGAN on MNIST.

python -m experiments.dcgan_mnist
python -m experiments.dcgan_mnist --sample 100 --seed 7
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
import optax

import jaxgen
from jaxgen import data, pictures, run, torch_weights
from jaxgen.command import command
from jaxgen.config import Bound, Count, DataConfig, Free, Positive
from jaxgen.models import dcgan
from jaxgen.stored import load_for


@dataclasses.dataclass(frozen=True)
class Config(DataConfig):
    data: str = "mnist"
    """What to draw: mnist, fashion_mnist, cifar10, faces, digits, folder:PATH or tfds:NAME; made gray and 28×28."""
    epochs: Free[Count] = 25
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: Annotated[int, Bound(2)] = 128
    """Images a step, two at least for batch norm; an epoch's last, smaller batch is dropped."""
    learning_rate: Positive = 2e-4
    """Adam's, for both networks."""
    beta1: Positive = 0.5
    """Adam's first decay rate, for both networks."""
    sample_at: tuple[Count, ...] = (1, 10, 25)
    """Epochs after which 64 samples are drawn and both networks' weights saved; the last is always among them."""
    weights: tuple[Path, Path] | None = None
    """Start from these weights, the generator's and the discriminator's, .safetensors or .pth with PyTorch's names."""
    sample: Free[Count | None] = None
    """Train nothing: draw so many images from the finished run's generator, with --seed, to a PNG and an .npy."""


generator, discriminator = dcgan.MnistGenerator(), dcgan.MnistDiscriminator()


def recipe(config: Config) -> jaxgen.Recipe:
    return dcgan.mnist_recipe(
        generator_optimizer=optax.adam(config.learning_rate, b1=config.beta1),
        discriminator_optimizer=optax.adam(config.learning_rate, b1=config.beta1),
    )


def main(config: Config) -> None:
    """Train a DCGAN on MNIST, and watch it learn to write."""
    if config.sample is not None:
        key, variables = jax.random.key(config.seed), load_for(config).variables["generator"]
        run.write_samples(config, dcgan.sample(generator, variables, key, config.sample), columns=8)
        return
    train = data.load(config.data, size=(28, 28), channels=1, skip_bad=config.skip_bad, log=print)
    weights = None
    if config.weights and run.begins(config):
        weights = torch_weights.load_all({"generator": generator, "discriminator": discriminator}, config.weights)

    with run.start(config, jaxgen.scaled(train.images, white=train.white)) as this_run:

        def draw(epoch: int, state: dcgan.State) -> None:
            samples = dcgan.sample(generator, state.generator, this_run.key("samples", epoch), 64)
            this_run.picture(f"samples_{epoch:03d}", pictures.grid(samples, columns=8))
            this_run.weights(dcgan.variables(state), f"_{epoch:03d}")

        _, history = this_run.fit(
            recipe(config), [(config.sample_at, draw)], weights, notes={dcgan.WON: dcgan.discriminator_has_won}
        )
        this_run.picture("losses", pictures.curves(history, ["loss_discriminator", "loss_generator"], "loss"))


if __name__ == "__main__":
    command(main, Config)
