"""A convolutional autoencoder on CIFAR-10.

python -m experiments.conv_autoencoder
python -m experiments.conv_autoencoder --noise 0.2
python -m experiments.conv_autoencoder --summary
"""

from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import jax
import numpy as np
import optax
from pydantic import Field

import jaxgen
from jaxgen import layers, losses, metrics, pictures, report, runs
from jaxgen.data import GIVEN, Given, about, hold_out, load_splits
from jaxgen.models import autoencoder
from jaxgen.recipes import with_hyperparams
from jaxgen.training import PyTree


class Config(runs.DataConfig):
    data: runs.Resumable[str] = "cifar10"
    """What to reconstruct: cifar10, mnist, fashion_mnist, faces, digits, folder:PATH, arrays:FILE.npz or tfds:NAME."""
    size: runs.Size | None = (32, 32)
    """Height and width to resize the images to, in pixels, multiples of four; None leaves them as they are."""
    channels: runs.Dimension = 3
    """3 for colour, 1 for gray."""
    epochs: runs.Resumable[runs.Count] = 20
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: runs.Dimension = 50
    """Images a step."""
    learning_rate: runs.Crossed[runs.Positive] = 1e-3
    """Adam's."""
    noise: Annotated[float, Field(ge=0, lt=1e30)] = 0.0
    """Standard deviation of the noise on the images that the network is given and learns to remove; 0 for none."""
    draw_every: runs.Count = 5
    """Epochs from one picture of reconstructed test images to the next."""
    validation: runs.Fraction = 0.0
    """Hold out this part of the training images, such as 0.1, and keep the checkpoint that is best on them; 0: none."""
    weights: runs.Starting[Path | None] = None
    """Start from these weights, a .safetensors or .pth file with PyTorch's names."""
    summary: runs.Resumable[bool] = False
    """Train nothing: print the shape at every layer."""

    cpu_devices: ClassVar[int] = 2


def recipe(config: Config) -> jaxgen.Recipe[autoencoder.State]:
    optimizer = with_hyperparams(optax.adam, learning_rate=config.learning_rate)
    return autoencoder.recipe(network(config), optimizer, noise=config.noise)


def network(config: Config) -> autoencoder.ConvAutoencoder:
    height, width = config.size or (32, 32)
    if height % 4 or width % 4:
        raise jaxgen.InputError(
            f"images of {height}×{width}: both must be multiples of four; {runs.option('size')} resizes them"
        )
    decoder = autoencoder.Decoder(config.channels)
    return autoencoder.ConvAutoencoder(autoencoder.Encoder(), decoder, (height, width, config.channels))


@runs.experiment
def main(config: Config, data: Given | None = None) -> runs.Outcome | None:
    """Train a convolutional autoencoder, and look at what comes back out."""
    if config.summary:
        print(layers.summary(network(config)))
        return None
    images = config.data if data is None else data
    train, test = load_splits(images, size=config.size, channels=config.channels, **config.loading)
    train, validation = hold_out(train, config.validation)
    config = config.replace(size=train.images.shape[1:3], data=config.data if data is None else GIVEN)
    module = network(config)
    originals = test.preview(10).as_floats()

    measure = metrics.of_autoencoder(test.images, train.images, autoencoder.code_size(module), white=train.white)

    source = jaxgen.scaled(train.images, white=train.white)
    with runs.start(config, source, module, about_data=about(config.data, train, test), page=report.write) as run:

        def noisy(images: np.ndarray) -> jax.Array:
            return config.noise * jax.random.normal(run.key("noise"), images.shape) + images

        def draw(epoch: int, variables: PyTree) -> None:
            given = noisy(originals) if config.noise else originals
            back = autoencoder.reconstruct(module, variables, given)
            sets = {"original": originals} | ({"noisy": given} if config.noise else {}) | {"reconstruction": back}
            compared = pictures.compared(sets, 10, title=run.title("test images", epoch))
            run.picture("reconstructed", compared, raw=pictures.over(given, back))
            run.curves("loss", ["loss"], "training loss (mean squared error)")
            run.results(lambda: measure(partial(autoencoder.reconstruct, module, variables)))

        def draw_end(epoch: int, variables: PyTree) -> None:
            images = test.as_floats()
            run.results({"test_mse": autoencoder.evaluate(module, variables, images)})
            if config.noise:
                restored = autoencoder.reconstruct(module, variables, noisy(images))
                run.results({"test_mse_of_noisy": losses.mean_squared_error(restored, images)})

        def validate(variables: PyTree) -> dict[str, jax.Array]:
            return {"validation_loss": autoencoder.evaluate(module, variables, validation.as_floats())}

        best, measure_best = ("validation_loss", validate) if config.validation else ("loss", None)
        run.fit(recipe(config), [(config.draw_every, draw), ((), draw_end)], best=best, measure=measure_best)
    return run.outcome


if __name__ == "__main__":
    runs.command(main, Config)
