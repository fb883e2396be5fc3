"""A variational autoencoder on MNIST, with a latent space to look at and to travel in.

python -m experiments.vae_mnist
python -m experiments.vae_mnist --latent 3
python -m experiments.vae_mnist --morph 1 7 9 4
"""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self

import jax
import jax.numpy as jnp
import optax

import jaxgen
from jaxgen import data, pictures, run, torch_weights, training
from jaxgen.command import command
from jaxgen.config import Bound, Count, DataConfig, Free, Positive
from jaxgen.durable import write
from jaxgen.errors import InputError
from jaxgen.models import vae
from jaxgen.stored import load_for


@dataclasses.dataclass(frozen=True)
class Config(DataConfig):
    data: str = "mnist"
    """What to encode: mnist, fashion_mnist, cifar10, faces, digits, folder:PATH or tfds:NAME; made gray and 32×32."""
    latent: Count = 2
    """Dimensions of the latent space."""
    epochs: Free[Count] = 5
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: Annotated[int, Bound(2)] = 30
    """Images a step, two at least for batch norm."""
    learning_rate: Positive = 1e-3
    """Adam's."""
    weight_decay: Annotated[float, Bound(0)] = 1e-5
    """L2 decay, added to the gradient before Adam's moments as PyTorch does."""
    extent: Free[Positive] = 3.0
    """The latent grid is decoded from −extent to extent, in standard deviations of the prior."""
    morph: Free[tuple[int, ...] | None] = None
    """Train nothing: decode the path through the means of these classes with the finished run, strip and animation."""
    weights: Path | None = None
    """Start from these weights, a .safetensors or .pth file with PyTorch's names."""
    test: Free[bool] = False
    """Train nothing: the loss of the test images under the finished run's model, or under --weights, forward only."""

    @property
    def looks_back(self) -> bool:
        return self.resume or self.morph is not None or (self.test and self.weights is None)

    def under(self, stored: dict[str, Any], where: Path) -> Self:
        found = super().under(stored, where)
        # To look at a run is to look at what it came to, whatever it started from.
        return dataclasses.replace(found, weights=None) if self.test or self.morph is not None else found


def recipe(config: Config) -> jaxgen.Recipe:
    optimizer = optax.chain(optax.add_decayed_weights(config.weight_decay), optax.adam(config.learning_rate))
    return vae.recipe(config.latent, optimizer=optimizer)


def main(config: Config) -> None:
    """Train a variational autoencoder, and look at its latent space."""
    module = vae.ConvVAE(config.latent)
    weights = torch_weights.load(module, config.weights) if config.weights and run.begins(config) else None
    load = partial(data.load, config.data, size=(32, 32), channels=1, skip_bad=config.skip_bad, log=print)
    test = load("test")
    images = test.images / test.white
    if config.test:
        found = figures(module, weights or trained(config), images, run.key_of(config, "test"))
        print("  ".join(f"{name} {value:.2f}" for name, value in found.items()))
        return
    if config.morph is not None:
        morph(config, module, images, test.labels)
        return
    train = load("train")

    with run.start(config, jaxgen.scaled(train.images, white=train.white)) as this_run:
        real = images[: config.batch_size]

        def draw(epoch: int, state: vae.State) -> None:
            this_run.picture(f"real_image_{epoch:03d}", pictures.grid(real, columns=5))
            back = vae.decode(module, state.variables, vae.encode(module, state.variables, real))
            this_run.picture(f"image_{epoch:03d}", pictures.grid(back, columns=5))

        state, history = this_run.fit(recipe(config), [(1, draw)], weights, best="loss")
        this_run.results(figures(module, state.variables, images, this_run.key("test")))
        this_run.picture("loss", pictures.curves(history, ["loss", "reconstruction", "kl"], "nats an image"))

        means = vae.encode(module, state.variables, images)
        this_run.picture("latent_points", pictures.scatter(means, test.labels))
        plane = latent_plane(config.latent, config.extent)
        this_run.picture("latent_grid", pictures.grid(vae.decode(module, state.variables, plane), GRID, margin=0))
        path = [number for number in TUTORIALS_PATH if (test.labels == number).any()]
        if len(path) > 1:
            frames = vae.morph(module, state.variables, class_means(means, test.labels, path), FRAMES)
            this_run.picture("morph", pictures.grid(frames[:: FRAMES // 5], columns=len(frames) // 4 + 1))
            this_run.animation("morph", [pictures.to_image(frame) for frame in frames])


def trained(config: Config) -> training.PyTree:
    """The finished run's variables."""
    found = load_for(config)
    if found.config.latent != config.latent:
        raise InputError(
            f"--latent {config.latent}: the run in {config.folder} has {found.config.latent}; leave the option out"
        )
    return found.variables


GRID = 20  # images a side of the decoded latent plane
FRAMES = 20  # of the animation, from one class to the next
TUTORIALS_PATH = (2, 4, 9, 3, 5, 3, 8)


def figures(module: vae.ConvVAE, variables: training.PyTree, images: jax.Array, key: jax.Array) -> dict[str, float]:
    """The loss and its terms on the test set, forward only, in nats an image."""
    epsilon = jax.random.normal(key, (len(images), module.latent))
    found = vae.evaluate(module, variables, images, epsilon)
    return {f"test_{name}": float(found[name]) for name in ("loss", "reconstruction", "kl")}


def latent_plane(latent: int, extent: float) -> jax.Array:
    """The latent plane's first two dimensions from −extent to extent, row by row from the top, the others zero."""
    line = jnp.linspace(-extent, extent, GRID)
    across, up = jnp.meshgrid(line, line[::-1])
    plane = jnp.stack([across.ravel(), up.ravel()], axis=1)[:, :latent]
    return jnp.pad(plane, ((0, 0), (0, latent - plane.shape[1])))


def class_means(means: jax.Array, labels: jax.Array, path: Sequence[int]) -> jax.Array:
    return jnp.stack([means[labels == number].mean(0) for number in path])


def morph(config: Config, module: vae.ConvVAE, images: jax.Array, labels: jax.Array) -> None:
    path = config.morph or ()
    if len(path) < 2:
        raise InputError("--morph: name two classes or more, as --morph 2 4 9")
    if missing := [number for number in path if not (labels == number).any()]:
        raise InputError(f"--morph {missing[0]}: there is no such class in {config.data}")
    variables = trained(config)
    points = class_means(vae.encode(module, variables, images), labels, path)
    frames = vae.morph(module, variables, points, FRAMES)
    target = config.folder / "samples" / f"morph_{'_'.join(map(str, path))}"
    write(target.with_suffix(".png"), pictures.png(pictures.grid(frames[:: FRAMES // 5], columns=len(frames) // 4 + 1)))
    write(target.with_suffix(".gif"), pictures.gif([pictures.to_image(frame) for frame in frames]))
    print(f"{target.with_suffix('.png')}\n{target.with_suffix('.gif')}")


if __name__ == "__main__":
    command(main, Config)
