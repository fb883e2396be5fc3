"""A variational autoencoder on MNIST, with a latent space to look at and to travel in.

python -m experiments.vae_mnist
python -m experiments.vae_mnist --latent 3
python -m experiments.vae_mnist --morph 1 7 9 4
python -m experiments.vae_mnist --conditional
python -m experiments.vae_mnist --data folder:photos --size 64 --channels 3 --latent 64
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image
from pydantic import AfterValidator, Field

import jaxgen
from jaxgen import layers, metrics, pictures, report, runs, torch_weights
from jaxgen.data import GIVEN, Given, Images, about, hold_out, load, load_splits
from jaxgen.models import vae
from jaxgen.recipes import with_hyperparams
from jaxgen.training import PyTree

GRID = 20  # images a side of the decoded latent plane
CODES = 10  # a conditional model's samples of each class
FRAMES = 20  # of the animation, from one class to the next
POINTS = 1000  # test images whose means are drawn while training; at the end all are
TUTORIALS_PATH = (2, 4, 9, 3, 5, 3, 8)


class Config(runs.ConditionalConfig):
    data: runs.Resumable[str] = "mnist"
    """What to encode: mnist, fashion_mnist, cifar10, faces, digits, folder:PATH, arrays:FILE.npz or tfds:NAME; made
    gray and 32×32, or what size and channels say."""
    size: Annotated[runs.Size, AfterValidator(layers.halvable)] = (32, 32)
    """Height and width of the images in pixels, equal: 4, 5, 6 or 7 times a power of two, such as 28, 32 or 64."""
    channels: Literal[1, 3] = 1
    """1 for gray, 3 for colour."""
    width: runs.Dimension = 64
    """Channels of the largest feature map; those of all others are multiples of it."""
    latent: runs.Dimension = 2
    """Dimensions of the latent space."""
    epochs: runs.Resumable[runs.Count] = 5
    """Passes over the images, in all; more of them continue a finished run."""
    batch_size: Annotated[runs.Dimension, Field(ge=2)] = 30
    """Images a step, two at least for batch norm."""
    learning_rate: runs.Crossed[runs.Positive] = 1e-3
    """Adam's."""
    weight_decay: Annotated[float, Field(ge=0, lt=1e30)] = 1e-5
    """L2 decay, added to the gradient before Adam's moments as PyTorch does."""
    beta: Annotated[float, Field(ge=0, lt=1e30)] = 1.0
    """Weight of the KL divergence in the loss."""
    latent_samples: runs.Dimension = 1
    """Latent codes that are drawn for each image while training; several train the importance-weighted bound."""
    extent: runs.Resumable[runs.Positive] = 3.0
    """The latent grid is decoded from −extent to extent, in standard deviations of the prior."""
    morph: runs.Resumable[runs.Several[int] | None] = None
    """Train nothing: decode the path through the means of these classes with the finished run, strip and animation."""
    samples_out: runs.Resumable[Path | None] = None
    """Folder for what --morph draws; None is samples/ in the run's folder."""
    validation: runs.Fraction = 0.0
    """Hold out this part of the training images, such as 0.1, and keep the checkpoint that is best on them; 0: none."""
    weights: runs.Starting[Path | None] = None
    """Start from these weights, a .safetensors or .pth file with PyTorch's names."""
    test: runs.Resumable[bool] = False
    """Train nothing: the loss of the test images under the finished run's model, or under --weights, forward only."""

    @property
    def uses_existing_run(self) -> bool:
        return self.resume or self.morph is not None or (self.test and self.weights is None)


def recipe(config: Config, classes: int = 0) -> jaxgen.Recipe[vae.State]:
    adam = with_hyperparams(optax.adam, learning_rate=config.learning_rate)
    optimizer = optax.chain(optax.add_decayed_weights(config.weight_decay), adam)
    return vae.recipe(
        module=network(config, classes), optimizer=optimizer, beta=config.beta, samples=config.latent_samples
    )


def network(config: Config, classes: int) -> vae.ConvVAE:
    return vae.ConvVAE(config.latent, config.size[0], config.channels, config.width, classes)


@runs.experiment
def main(config: Config, data: Given | None = None) -> runs.Outcome | None:
    """Train a variational autoencoder, and look at its latent space."""
    recipe(config)  # so that settings that do not go together are refused before anything is loaded
    given = config.data if data is None else data
    size, channels = config.size, config.channels
    if config.test or config.morph is not None:
        inspect(config, load(given, "test", size=size, channels=channels, **config.loading))
        return None
    train, test = load_splits(given, size=size, channels=channels, **config.loading)
    train, validation = hold_out(train, config.validation)
    classes = config.classes_of(train.classes)
    module = network(config, classes)
    config = config.replace(data=config.data if data is None else GIVEN)
    some = test.preview(POINTS)
    values = some.as_floats()
    real = values[: config.batch_size]

    measure = metrics.of_vae(
        test.images,
        train.images,
        test_labels=test.labels,
        train_labels=train.labels,
        conditional=bool(classes),
        white=train.white,
    )

    source = jaxgen.scaled(train.images, white=train.white, labels=train.labels if classes else None)
    with runs.start(config, source, module, about_data=about(config.data, train, test), page=report.write) as run:
        # A conditional model's codes do not say the class, so there is no way from one class to the next.
        path = [number for number in TUTORIALS_PATH if (test.labels == number).any() and not classes]

        def draw(epoch: int, variables: PyTree) -> None:
            labels = labels_for(module, some)
            codes = vae.encode(module, variables, values, labels)  # these three are computed while pictures are drawn
            back = vae.decode(module, variables, codes[: len(real)], None if labels is None else labels[: len(real)])
            decoded = decode_latent_space(run, module, variables)
            original = pictures.sheet(real, 10, title=run.title("test images"))
            run.picture("real_image", original, raw=pictures.grid(real, columns=5))
            both: Mapping[str, jax.Array | np.ndarray] = {"original": real, "reconstruction": back}
            compared = pictures.compared(both, 10, title=run.title("test images", epoch))
            run.picture("image", compared, raw=pictures.grid(back, columns=5))
            run.curves("loss", ["loss", "reconstruction", "kl"], "training loss (nats an image)")
            draw_latent_space(run, epoch, module, np.asarray(codes), some, decoded)
            run.results(
                lambda: measure(partial(vae.posterior, module, variables), partial(vae.decode, module, variables))
            )

        def draw_end(epoch: int, variables: PyTree) -> None:
            images, labels = test.as_floats(), labels_for(module, test)
            run.results(figures(module, variables, images, labels, run.key("test")))
            means = np.asarray(vae.encode(module, variables, images, labels))
            draw_latent_space(run, epoch, module, means, test, decode_latent_space(run, module, variables))
            if len(path) > 1:
                frames = vae.morph(module, variables, class_means(means, test.labels, path), FRAMES)
                names = [test.classes[number] if test.classes else str(number) for number in path]
                run.picture(
                    "morph", morph_sheet(frames, names, run.title("between means of classes", epoch)), raw=strip(frames)
                )
                run.animation("morph", morph_frames(frames, names, run.title("", epoch)))

        def validate(variables: PyTree) -> dict[str, float]:
            labels = labels_for(module, validation)
            found = figures(module, variables, validation.as_floats(), labels, run.key("validation"))
            return {"validation_loss": found["test_loss"]}

        best, measure_best = ("validation_loss", validate) if config.validation else ("loss", None)
        run.fit(recipe(config, classes), [(1, draw), ((), draw_end)], best=best, measure=measure_best)
    return run.outcome


def draw_latent_space(
    run: "runs.Run[Config]", epoch: int, module: vae.ConvVAE, means: np.ndarray, shown: Images, decoded: jax.Array
) -> None:
    """The means of images in the latent space, and the images of `decode_latent_space`."""
    latent, extent = module.latent, run.config.extent
    title = run.title(f"means of {len(means):,} test images", epoch)
    run.picture(
        "latent_points",
        lambda: pictures.scatter(means, shown.labels, names=shown.classes, extent=extent, title=title),
    )
    present = [(number, name) for number, name in enumerate(shown.classes) if (shown.labels == number).any()]
    centres = class_means(means, shown.labels, [number for number, _ in present])
    by_class = {name: centre.tolist() for (_, name), centre in zip(present, centres, strict=True)}
    run.values("latent_points", {"classes": list(shown.classes), "means": by_class})
    if module.classes:
        sheet = pictures.sheet(decoded, CODES, title=run.title("samples", epoch), row_labels=shown.classes)
        run.picture("samples", sheet, raw=pictures.grid(decoded, columns=CODES))
        return
    kind = "line" if latent == 1 else "plane" if latent == 2 else "plane where all but z₁ and z₂ are 0"
    sheet = pictures.plane(decoded, GRID, extent, title=run.title(f"the decoded latent {kind}", epoch))
    run.picture("latent_grid", sheet, raw=pictures.grid(decoded, GRID, margin=0))


def decode_latent_space(run: "runs.Run[Config]", module: vae.ConvVAE, variables: PyTree) -> jax.Array:
    """The images of a grid in the latent plane; of a conditional model, of the same random codes for each class."""
    if not module.classes:
        return vae.decode(module, variables, latent_plane(module.latent, run.config.extent))
    z = jax.random.normal(run.key("classes"), (CODES, module.latent))
    labels = jnp.repeat(jnp.arange(module.classes), CODES)
    return vae.decode(module, variables, jnp.tile(z, (module.classes, 1)), labels)


def labels_for(module: vae.ConvVAE, images: Images) -> np.ndarray | None:
    return images.labels if module.classes else None


def inspect(config: Config, test: Images) -> None:
    """`--test` and `--morph`, on a finished run."""
    images = test.as_floats()
    module = network(config, config.classes_of(test.classes))
    if config.morph is not None:
        check_path(config, config.morph, test)
    variables = (
        torch_weights.load(module, config.weights)
        if config.weights is not None
        else jaxgen.load(config.folder).variables
    )
    if config.morph is None:
        found = figures(module, variables, images, labels_for(module, test), runs.key_of(config, "test"))
        runs.say("  ".join(f"{name} {value:.2f}" for name, value in found.items()))
        return
    points = class_means(np.asarray(vae.encode(module, variables, images)), test.labels, config.morph)
    frames = vae.morph(module, variables, points, FRAMES)
    name = f"morph_{'_'.join(map(str, config.morph))}"
    names = [test.classes[number] if test.classes else str(number) for number in config.morph]
    files = {
        f"{name}.png": pictures.png(morph_sheet(frames, names, "vae_mnist: between means of classes")),
        f"raw/{name}.png": pictures.png(strip(frames)),
        f"{name}.gif": pictures.gif(morph_frames(frames, names, "vae_mnist")),
    }
    runs.write_extra(config, files, config.samples_out)


def check_path(config: Config, path: Sequence[int], test: Images) -> None:
    if config.conditional:
        raise jaxgen.InputError(
            f"{runs.option('morph', path)}: the run is conditional, so its codes do not say the class; "
            "python -m jaxgen decode draws one code as every class"
        )
    if len(path) < 2:
        raise jaxgen.InputError(f"{runs.option('morph', path)}: name two classes or more, as 2 4 9")
    if missing := [number for number in path if not (test.labels == number).any()]:
        raise jaxgen.InputError(f"{runs.option('morph', missing[0])}: there is no such class in the data")


def figures(
    module: vae.ConvVAE, variables: object, images: np.ndarray, labels: np.ndarray | None, key: jax.Array
) -> dict[str, float]:
    """The loss and its terms on the test set, forward only, in nats an image."""
    epsilon = jax.random.normal(key, (len(images), module.latent))
    found = vae.evaluate(module, variables, images, epsilon, labels)
    return {f"test_{name}": float(found[name]) for name in ("loss", "reconstruction", "kl")}


def latent_plane(latent: int, extent: float) -> np.ndarray:
    """The latent plane's first two dimensions from −extent to extent, row by row from the top, the others zero.

    A latent space of one dimension has a single row.
    """
    line = np.linspace(-extent, extent, GRID, dtype=np.float32)
    across, up = np.meshgrid(line, line[::-1] if latent > 1 else line[:1])
    plane = np.stack([across.ravel(), up.ravel()], axis=1)[:, :latent]
    return np.pad(plane, ((0, 0), (0, latent - plane.shape[1])))


def class_means(means: np.ndarray, labels: np.ndarray, path: Sequence[int]) -> np.ndarray:
    """The mean of each class of a path, `[len(path), latent]`. JAX would compile a program for each class's size."""
    return np.array([means[labels == number].mean(0) for number in path])


def strip(frames: jax.Array) -> Image.Image:
    """Every fourth frame of a morph, in a row."""
    return pictures.grid(frames[:: FRAMES // 5], columns=len(frames) // 4 + 1)


def morph_sheet(frames: jax.Array, names: Sequence[str], title: str) -> Image.Image:
    """A morph with a row from each class to the next: every other frame, from the one's mean to the other's."""
    rows = [frames[FRAMES * number : FRAMES * (number + 1) + 1 : 2] for number in range(len(names) - 1)]
    labels = [f"{one} → {other}" for one, other in pairwise(names)]
    return pictures.sheet(np.concatenate(rows), FRAMES // 2 + 1, title=title, row_labels=labels)


def morph_frames(frames: jax.Array, names: Sequence[str], title: str) -> list[Image.Image]:
    """The frames of a morph as an animation, each under the classes that it is between."""
    steps = [f"{one} → {other} · {title}" for one, other in pairwise(names)]
    return [
        pictures.captioned(pictures.to_image(frame), steps[min(number // FRAMES, len(steps) - 1)])
        for number, frame in enumerate(frames)
    ]


if __name__ == "__main__":
    runs.command(main, Config)
