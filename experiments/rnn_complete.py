"""Complete images from their top half, row by row, with an LSTM and with a GRU.

python -m experiments.rnn_complete --cell gru
python -m experiments.rnn_complete --data folder:my_images
"""

import dataclasses
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import jax
import optax
from PIL import Image

import jaxgen
from jaxgen import data, pictures, run, torch_weights
from jaxgen.command import command
from jaxgen.config import Count, DataConfig, Free, Positive
from jaxgen.errors import InputError
from jaxgen.models import completion


@dataclasses.dataclass(frozen=True)
class Config(DataConfig):
    data: str = "faces"
    """What to complete: faces, folder:PATH, digits, mnist, fashion_mnist, cifar10 or tfds:NAME; made gray."""
    size: tuple[Count, Count] | None = (56, 56)
    """Height and width to resize the images to, in pixels; None leaves them as they are."""
    cell: tuple[Literal["lstm", "gru"], ...] = ("lstm", "gru")
    """lstm, gru, or both one after the other, and then compared."""
    hidden: Count = 256
    """Size of the cell's state."""
    sequence_length: Count | None = None
    """Rows from which the next one is predicted; None is half the height."""
    epochs: Free[Count] = 501
    """Passes over all windows, in all; more of them continue a finished run."""
    batch_size: Count = 32
    """Windows a step."""
    learning_rate: Positive = 1e-3
    """Adam's."""
    draw_every: Count = 100
    """Epochs from one completion of the validation images to the next."""
    save_every: Free[Count] = 10
    """Epochs from one checkpoint to the next; there is always one at the end and when the run is stopped."""
    weights: Path | None = None
    """Start from these weights, a .safetensors or .pth file with PyTorch's names; for one cell."""

    cpu_devices: ClassVar[int] = 2


def network(config: Config) -> completion.RowCompleter:
    assert config.size is not None  # main has put the data's own size in its place
    return completion.RowCompleter(config.cell[0], config.hidden, width=config.size[1])


def sequence_length(config: Config) -> int:
    assert config.sequence_length is not None  # likewise
    return config.sequence_length


def recipe(config: Config) -> jaxgen.Recipe:
    return completion.recipe(module=network(config), optimizer=optax.adam(config.learning_rate))


def main(config: Config) -> None:
    """Complete images from their top half, row by row, with an LSTM and with a GRU."""
    load = partial(data.load, config.data, size=config.size, channels=1, skip_bad=config.skip_bad, log=print)
    train, validation = load("train"), load("test")
    data.check_same_shape(train, validation)
    height, width = train.images.shape[1:3]
    length = config.sequence_length or height // 2
    config = dataclasses.replace(config, size=(height, width), sequence_length=length)
    check(config, height)
    windows = completion.windows(train.images, length, white=train.white)
    originals = validation.images[:10] / validation.white

    if len(config.cell) == 1:
        with run.start(config, windows) as this_run:
            learn(this_run, config, originals)
        return
    with run.start_group(config, windows) as group:
        histories: dict[str, run.History] = {}
        for cell in config.cell:
            with group.start(cell, cell=(cell,)) as this_run:
                histories[cell] = learn(this_run, dataclasses.replace(config, cell=(cell,)), originals)
        compare(group, config, histories)


def learn(this_run: run.Run, config: Config, originals: jax.Array) -> run.History:
    """Train one cell, and draw what it makes of the validation images."""
    module, length = network(config), sequence_length(config)

    def draw(epoch: int, state: completion.State) -> None:
        completed = completion.complete(module, state.variables, originals, length)
        this_run.picture(f"completed_{epoch:03d}", pictures.grid(completed, columns=len(originals)))

    this_run.picture("original", pictures.grid(originals, columns=len(originals)))
    resumed = this_run.found is not None
    weights = torch_weights.load(module, config.weights) if config.weights and not resumed else None
    _, history = this_run.fit(recipe(config), [(config.draw_every, draw)], weights, best="loss")
    this_run.picture("loss", pictures.curves(history, ["loss"], "mean squared error", scale="log"))
    return history


def check(config: Config, height: int) -> None:
    length = sequence_length(config)
    if not 1 <= length < height:
        raise InputError(
            f"--sequence-length {length}: must be from 1 to {height - 1}, one less than the images' height"
        )
    if len(set(config.cell)) != len(config.cell) or not config.cell:
        raise InputError(f"--cell {' '.join(config.cell)}: name lstm, gru or each once")
    if config.weights and len(config.cell) > 1:
        raise InputError("--weights: is for one cell; name it with --cell lstm or --cell gru")
    if config.weights and run.begins(config):
        torch_weights.load(network(config), config.weights)  # what does not fit is refused before anything is written


def compare(group: run.Group, config: Config, histories: dict[str, run.History]) -> None:
    """The tutorial's comparison: completions side by side, both losses, both training times and their difference."""
    folder = config.folder
    for earlier in folder.glob("completed_*.png"):  # of a run that ended sooner
        earlier.unlink()
    for drawn in sorted((folder / config.cell[0] / "pictures").glob("completed_*.png")):
        named = {cell.upper(): folder / cell / "pictures" / drawn.name for cell in config.cell}
        original = folder / config.cell[0] / "pictures" / "original.png"
        strips = {name: Image.open(path) for name, path in {"original": original, **named}.items() if path.exists()}
        group.picture(drawn.stem, pictures.strips(strips, f"epoch {int(drawn.stem.rpartition('_')[2])}"))
    histories = {  # where one cell's run is past that, it is compared as far as the other's goes
        cell: {name: values[: config.epochs] for name, values in history.items()} for cell, history in histories.items()
    }
    losses = {cell.upper(): history["loss"] for cell, history in histories.items()}
    group.picture("losses", pictures.curves(losses, list(losses), "mean squared error", scale="log"))

    print("epoch" + "".join(f"  {cell.upper():>4} loss  {cell.upper():>4} time" for cell in config.cell))
    for epoch in sorted({1, *range(config.draw_every, config.epochs + 1, config.draw_every), config.epochs}):
        figures = ((history["loss"][epoch - 1], sum(history["seconds"][:epoch])) for history in histories.values())
        print(f"{epoch:5}" + "".join(f"  {loss:9.6f}  {seconds:7.1f} s" for loss, seconds in figures))
    first, second = config.cell
    difference = sum(histories[first]["seconds"]) - sum(histories[second]["seconds"])
    print(f"training time, {first.upper()} − {second.upper()}: {difference:.1f} s")
    print(f"compared  {folder}/losses.png and {folder}/completed_*.png", flush=True)


if __name__ == "__main__":
    command(main, Config)
