"""A convolutional autoencoder on CIFAR-10.

python -m experiments.conv_autoencoder
python -m experiments.conv_autoencoder --summary
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import ClassVar

import optax

import jaxgen
from jaxgen import data, layers, pictures, run, torch_weights
from jaxgen.command import command
from jaxgen.config import Count, DataConfig, Free, Positive
from jaxgen.errors import InputError
from jaxgen.models import autoencoder


@dataclasses.dataclass(frozen=True)
class Config(DataConfig):
    data: str = "cifar10"
    """What to reconstruct: cifar10, mnist, fashion_mnist, faces, digits, folder:PATH or tfds:NAME."""
    size: tuple[Count, Count] | None = (32, 32)
    """Height and width to resize the images to, in pixels, multiples of four; None leaves them as they are."""
    channels: Count = 3
    """3 for colour, 1 for gray."""
    epochs: Free[Count] = 20
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: Count = 50
    """Images a step."""
    learning_rate: Positive = 1e-3
    """Adam's."""
    draw_every: Count = 5
    """Epochs from one picture of reconstructed test images to the next."""
    weights: Path | None = None
    """Start from these weights, a .safetensors or .pth file with PyTorch's names."""
    summary: Free[bool] = False
    """Train nothing: print the shape at every layer."""

    cpu_devices: ClassVar[int] = 2


def network(config: Config) -> autoencoder.ConvAutoencoder:
    assert config.size is not None  # main has put the data's own size in its place
    decoder = autoencoder.Decoder(config.channels)
    return autoencoder.ConvAutoencoder(autoencoder.Encoder(), decoder, (*config.size, config.channels))


def recipe(config: Config) -> jaxgen.Recipe:
    return autoencoder.recipe(network(config), optax.adam(config.learning_rate))


def main(config: Config) -> None:
    """Train a convolutional autoencoder, and look at what comes back out."""
    if config.summary:
        print(layers.summary(network(check(dataclasses.replace(config, size=config.size or (32, 32))))))
        return
    load = partial(
        data.load, config.data, size=config.size, channels=config.channels, skip_bad=config.skip_bad, log=print
    )
    train, test = load("train"), load("test")
    data.check_same_shape(train, test)
    _, height, width, _ = train.images.shape
    config = dataclasses.replace(config, size=(height, width))
    module = network(check(config))
    weights = torch_weights.load(module, config.weights) if config.weights and run.begins(config) else None
    originals = test.images[:10] / test.white

    with run.start(config, jaxgen.scaled(train.images, white=train.white)) as this_run:

        def draw(epoch: int, state: autoencoder.State) -> None:
            back = autoencoder.reconstruct(module, state.variables, originals)
            this_run.picture(f"reconstructed_{epoch:03d}", pictures.over(originals, back))

        state, history = this_run.fit(recipe(config), [(config.draw_every, draw)], weights, best="loss")
        test_mse = autoencoder.evaluate(module, state.variables, test.images / test.white)
        this_run.results({"test_mse": float(test_mse)})
        this_run.picture("loss", pictures.curves(history, ["loss"], "mean squared error"))


def check(config: Config) -> Config:
    if config.size is None or any(side % 4 for side in config.size):
        raise InputError(f"images of {config.size}: height and width must be multiples of four; --size resizes them")
    return config


if __name__ == "__main__":
    command(main, Config)
