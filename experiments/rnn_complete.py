"""Complete images from their top half, row by row, with an LSTM and with a GRU.

python -m experiments.rnn_complete --cell gru
python -m experiments.rnn_complete --data folder:my_images
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import optax
from PIL import Image
from pydantic import model_validator

import jaxgen
from jaxgen import pictures, runs
from jaxgen.data import GIVEN, Given, about, load_splits
from jaxgen.models import completion
from jaxgen.recipes import with_hyperparams
from jaxgen.training import PyTree


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
    train, validation = load_splits(images, size=config.size, channels=1, **config.loading)
    height, width = train.images.shape[1:3]
    length = config.sequence_length or height // 2
    if not 1 <= length < height:
        raise jaxgen.InputError(
            f"{runs.option('sequence_length', length)}: must be from 1 to {height - 1}, below the images' height"
        )
    config = config.replace(size=(height, width), sequence_length=length, data=config.data if data is None else GIVEN)
    windows = completion.windows(train.images, length, white=train.white)
    originals = jnp.asarray(validation.preview(10).images) / validation.white
    about_data = about(config.data, train, validation)

    if len(config.cell) == 1:
        with runs.start(config, windows, network(config), about_data=about_data, label=config.cell[0]) as run:
            learn(run, originals)
        return run.outcome
    outcomes: dict[str, runs.Outcome] = {}
    with runs.start_group(config, windows, about_data=about_data) as group:
        for cell in config.cell:
            with group.start(cell, network(config.replace(cell=cell)), cell=cell) as run:
                learn(run, originals)
            outcomes[cell] = run.outcome
        compare(group, config, {cell: outcome.history for cell, outcome in outcomes.items()})
    return group.outcome(outcomes)


def learn(run: "runs.Run[Config]", originals: jax.Array) -> None:
    """Train one cell, and draw what it makes of the validation images."""
    config, module = run.config, network(run.config)

    def draw(epoch: int, variables: PyTree) -> None:
        completed = completion.complete(module, variables, originals, config.sequence_length)
        run.picture("completed", pictures.grid(completed, columns=len(originals)))

    run.picture("original", lambda: pictures.grid(originals, columns=len(originals)))
    run.fit(recipe(config), [(config.draw_every, draw)], best="loss")
    run.curves("loss", ["loss"], "mean squared error", scale="log")


def compare(group: runs.Group[Config], config: Config, histories: Mapping[str, Mapping[str, Any]]) -> None:
    """The tutorial's comparison: completions side by side, both losses, both training times and their difference."""
    first, second = (runs.Layout(config.folder / cell) for cell in config.cell)
    original = first.epoch(0) / "original.png"
    for folders in [*zip(first.drawn_epochs(), second.drawn_epochs(), strict=False), (first.final, second.final)]:
        paths = {cell.upper(): folder / "completed.png" for cell, folder in zip(config.cell, folders, strict=True)}
        if original.exists() and all(path.exists() for path in paths.values()):
            is_last = folders[0] == first.final
            epoch = config.epochs if is_last else int(folders[0].name)
            drawn = partial(side_by_side, {"original": original, **paths}, f"epoch {epoch}")
            group.picture("completed", drawn, epoch=None if is_last else epoch)
    histories = {  # where one cell was trained further, it is compared as far as the other
        cell: {name: values[: config.epochs] for name, values in history.items()} for cell, history in histories.items()
    }
    losses = {cell.upper(): history["loss"] for cell, history in histories.items()}
    group.picture("losses", lambda: pictures.curves(losses, list(losses), "mean squared error", scale="log"))

    runs.say("epoch" + "".join(f"  {cell.upper():>4} loss  {cell.upper():>4} time" for cell in config.cell))
    for epoch in sorted({1, *range(config.draw_every, config.epochs + 1, config.draw_every), config.epochs}):
        figures = ((history["loss"][epoch - 1], sum(history["seconds"][:epoch])) for history in histories.values())
        runs.say(f"{epoch:5}" + "".join(f"  {loss:9.6f}  {seconds:7.1f} s" for loss, seconds in figures))
    one, other = config.cell
    difference = sum(histories[one]["seconds"]) - sum(histories[other]["seconds"])
    runs.say(f"training time, {one.upper()} − {other.upper()}: {difference:.1f} s")
    runs.say(f"compared  {config.folder}/final/losses.png and {config.folder}/final/completed.png")


def side_by_side(paths: dict[str, Path], title: str) -> Image.Image:
    return pictures.strips({name: Image.open(path) for name, path in paths.items()}, title)


if __name__ == "__main__":
    runs.command(main, Config)
