"""Complete images from their top half, row by row, with an LSTM and with a GRU.

python -m experiments.rnn_complete --cell gru
python -m experiments.rnn_complete --data folder:my_images
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jax
import numpy as np
import optax
from PIL import Image
from pydantic import model_validator

import jaxgen
from jaxgen import metrics, pictures, report, runs
from jaxgen.data import GIVEN, Given, Images, about, hold_out, load_splits
from jaxgen.losses import mean_squared_error
from jaxgen.metrics.paired import paired_difference, unpaired_difference
from jaxgen.models import completion
from jaxgen.recipes import with_hyperparams
from jaxgen.training import PyTree

LOSS = "training loss (mean squared error)"


class Config(runs.DataConfig):
    data: runs.Resumable[str] = "faces"
    """What to complete: faces, folder:PATH, arrays:FILE.npz, digits, mnist, fashion_mnist, cifar10 or tfds:NAME; made
    gray."""
    size: runs.Size | None = (56, 56)
    """Height and width to resize the images to, in pixels; None leaves them as they are."""
    cell: runs.Several[Literal["lstm", "gru"]] = ("lstm", "gru")
    """lstm, gru, or both one after the other, and then compared."""
    hidden: runs.Dimension = 256
    """Size of the cell's state."""
    sequence_length: runs.Count | None = None
    """Rows from which the next one is predicted; None is half the height."""
    epochs: runs.Resumable[runs.Count] = 501
    """Passes over all windows, in all; more of them continue a finished run."""
    batch_size: runs.Dimension = 32
    """Windows a step."""
    learning_rate: runs.Crossed[runs.Positive] = 1e-3
    """Adam's."""
    draw_every: runs.Count = 100
    """Epochs from one completion of the validation images to the next."""
    save_every: runs.Resumable[runs.Count] = 10
    """Epochs from one checkpoint to the next; there is always one at the end and when the run is stopped."""
    validation: runs.Fraction = 0.0
    """Hold out this part of the training images, such as 0.1, and keep the checkpoint that is best on them; 0: none."""
    weights: runs.Starting[Path | None] = None
    """Start from these weights, a .safetensors or .pth file with PyTorch's names; for one cell."""

    cpu_devices: ClassVar[int] = 2

    @model_validator(mode="after")
    def check_cells(self) -> Self:
        if len(set(self.cell)) != len(self.cell) or not self.cell:
            raise jaxgen.InputError(f"{runs.option('cell', self.cell)}: name lstm, gru or each once")
        if self.weights and len(self.cell) > 1:
            raise jaxgen.InputError(
                f"{runs.option('weights', self.weights)}: is for one cell; name it with {runs.option('cell', 'lstm')} "
                f"or {runs.option('cell', 'gru')}"
            )
        return self


def network(config: Config) -> completion.RowCompleter:
    _, width = config.size or (56, 56)
    return completion.RowCompleter(config.cell[0], config.hidden, width=width)


def recipe(config: Config) -> jaxgen.Recipe[completion.State]:
    optimizer = with_hyperparams(optax.adam, learning_rate=config.learning_rate)
    return completion.recipe(module=network(config), optimizer=optimizer)


@runs.experiment
def main(config: Config, data: Given | None = None) -> runs.Outcome:
    """Complete images from their top half, row by row, with an LSTM and with a GRU."""
    images = config.data if data is None else data
    train, test = load_splits(images, size=config.size, channels=1, **config.loading)
    train, validation = hold_out(train, config.validation)
    height, width = train.images.shape[1:3]
    length = config.sequence_length or height // 2
    if not 1 <= length < height:
        raise jaxgen.InputError(
            f"{runs.option('sequence_length', length)}: must be from 1 to {height - 1}, below the images' height"
        )
    config = config.replace(size=(height, width), sequence_length=length, data=config.data if data is None else GIVEN)
    windows = completion.windows(train.images, length, white=train.white)
    measure = metrics.of_completion(test.images, train.images, length, white=train.white)
    about_data = about(config.data, train, test)

    if len(config.cell) == 1:
        with runs.start(
            config, windows, network(config), about_data=about_data, label=config.cell[0], page=report.write
        ) as run:
            learn(run, test, validation, measure)
        return run.outcome
    outcomes: dict[str, runs.Outcome] = {}
    with runs.start_group(config, windows, about_data=about_data, page=report.write) as group:
        for cell in config.cell:
            with group.start(cell, network(config.replace(cell=cell)), cell=cell) as run:
                learn(run, test, validation, measure)
            outcomes[cell] = run.outcome
        compare(group, config, outcomes)
    return group.outcome(outcomes)


def learn(
    run: "runs.Run[Config]", test: Images, validation: Images, measure: Callable[[metrics.Complete], metrics.Figures]
) -> None:
    """Train one cell, draw what it makes of some validation images, and measure what it makes of all of them."""
    config, module = run.config, network(run.config)
    length = config.sequence_length or 0
    originals = test.preview(10).as_floats()

    def complete(variables: PyTree, images: np.ndarray) -> jax.Array:
        completed: jax.Array = completion.complete(module, variables, images, length)
        return completed

    def error(variables: PyTree, images: Images) -> jax.Array:
        """The mean squared error of the completed rows."""
        wanted = images.as_floats()
        return mean_squared_error(complete(variables, wanted)[:, length:], wanted[:, length:])

    def draw(epoch: int, variables: PyTree) -> None:
        completed = complete(variables, originals)
        sets: Mapping[str, jax.Array | np.ndarray] = {"original": originals, config.cell[0].upper(): completed}
        heading = run.title("completed below the line", epoch)
        sheet = pictures.compared(sets, 10, title=heading, cut=config.sequence_length)
        run.picture("completed", sheet, raw=pictures.grid(completed, columns=len(originals)))
        run.curves("loss", ["loss"], LOSS, scale="log")
        run.results(lambda: measure(partial(complete, variables)))

    def draw_end(epoch: int, variables: PyTree) -> None:
        run.results({"validation_mse": error(variables, test)})

    def validate(variables: PyTree) -> dict[str, jax.Array]:
        return {"held_out_mse": error(variables, validation)}

    title = run.title("validation images")
    run.picture(
        "original",
        lambda: pictures.sheet(originals, 10, title=title),
        raw=lambda: pictures.grid(originals, columns=len(originals)),
    )
    best, measure_best = ("held_out_mse", validate) if config.validation else ("loss", None)
    run.fit(recipe(config), [(config.draw_every, draw), ((), draw_end)], best=best, measure=measure_best)


def compare(group: runs.Group[Config], config: Config, outcomes: Mapping[str, runs.Outcome]) -> None:
    """The tutorial's comparison: completions side by side, both losses, both training times and their difference."""
    first, second = (runs.Layout(config.folder / cell) for cell in config.cell)
    original = first.epoch(0) / "raw" / "original.png"
    for folders in [*zip(first.drawn_epochs(), second.drawn_epochs(), strict=False), (first.final, second.final)]:
        paths = {cell.upper(): completed_in(folder / "raw") for cell, folder in zip(config.cell, folders, strict=True)}
        if original.exists() and all(path.exists() for path in paths.values()):
            is_last = folders[0] == first.final
            epoch = config.epochs if is_last else int(folders[0].name)
            which = "completed below the line" + (", seed 0" if config.seeds > 1 else "")
            title = group.title(which, epoch)
            drawn = partial(side_by_side, {"original": original, **paths}, config, title)
            group.picture("completed", drawn, epoch=None if is_last else epoch)
    # Where one cell was trained further, it is compared as far as the other.
    losses: dict[str, Any] = {
        cell.upper(): runs.of_models(each.history, "loss", config.epochs) for cell, each in outcomes.items()
    }
    seconds = {cell.upper(): each.history["seconds"][: config.epochs] for cell, each in outcomes.items()}
    title = group.title(LOSS)
    group.picture("losses", lambda: pictures.curves(losses, list(losses), LOSS, scale="log", title=title))

    runs.say("epoch" + "".join(f"  {cell:>4} loss  {cell:>4} time" for cell in losses))
    for epoch in sorted({1, *range(config.draw_every, config.epochs + 1, config.draw_every), config.epochs}):
        figures = ((losses[cell][:, epoch - 1].mean(), sum(seconds[cell][:epoch])) for cell in losses)
        runs.say(f"{epoch:5}" + "".join(f"  {loss:9.6f}  {time:7.1f} s" for loss, time in figures))
    one, other = losses
    runs.say(f"training time, {one} − {other}: {sum(seconds[one]) - sum(seconds[other]):.1f} s")
    if config.seeds > 1:
        compare_over_seeds(group, losses, seconds, outcomes)
    runs.say(f"compared  {config.folder}/final/losses.png and {config.folder}/final/completed.png")


def compare_over_seeds(
    group: runs.Group[Config],
    losses: Mapping[str, np.ndarray],
    seconds: Mapping[str, list[float]],
    outcomes: Mapping[str, runs.Outcome],
) -> None:
    """Differences between the cells with their 95 % intervals, and what may be concluded.

    Models of one seed see the same order of the data, so their errors are paired. All seeds of a cell train together,
    so that times are compared over epochs.
    """
    (one, final), (other, other_final) = ((cell, loss[:, -1]) for cell, loss in losses.items())
    errors = [runs.of_models({**each.results}, "validation_mse") for each in outcomes.values()]
    found = {
        "final_training_loss": paired_difference(final, other_final),
        "validation_mse": paired_difference(*errors),
    }
    if len(seconds[one]) > 1:
        found["seconds_an_epoch"] = unpaired_difference(seconds[one], seconds[other])
    for name, difference in found.items():
        group.results({f"{name}_difference": difference.mean})
        over = f"{len(seconds[one])} epochs" if name == "seconds_an_epoch" else f"{len(final)} pairs of models"
        lower, higher = (one, other) if difference.mean < 0 else (other, one)
        conclusion = f"{lower}'s is lower than {higher}'s" if difference.is_clear else "no difference is shown"
        runs.say(
            f"{name.replace('_', ' ')}, {one} − {other}: {difference.mean:.3g}, 95 % interval {difference.low:.3g} to "
            f"{difference.high:.3g} over {over}: {conclusion}"
        )


def completed_in(folder: Path) -> Path:
    """The file of the completed images; of several models, that of the first."""
    several = folder / "0.completed.png"
    return several if several.exists() else folder / "completed.png"


def side_by_side(paths: dict[str, Path], config: Config, title: str) -> Image.Image:
    """The rows of images in these files, one above the other."""
    height, width = config.size or (56, 56)
    rows = {}
    for name, path in paths.items():
        pixels = np.asarray(Image.open(path))[:height] / 255  # a row of images, each with a margin of two pixels
        rows[name] = np.stack(np.split(pixels, pixels.shape[1] // (width + 2), axis=1))[:, :, :width, None]
    return pictures.compared(rows, 10, title=title, cut=config.sequence_length)


if __name__ == "__main__":
    runs.command(main, Config)
