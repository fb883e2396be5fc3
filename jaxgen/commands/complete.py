"""Complete pictures from their upper half, by one cell or by all in the folder of a run.

The upper part of each picture is kept and the rest is predicted row by row. Pictures may have any format, size and
mode; they are made what the model's data are.
"""

from pathlib import Path

import numpy as np

from jaxgen import pictures
from jaxgen.commands._models import Model, find_all
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.commands._pictures import read, title, warn_if_inverted
from jaxgen.errors import InputError
from jaxgen.models import completion
from jaxgen.runs import Count, option


class Options(ModelOptions):
    """The options of this command."""

    pictures: tuple[Path, ...]
    """Picture files, or folders of them."""
    rows: Count | None = None
    """How many rows to keep; None is as many as the model was trained with, or else half of them."""
    invert: bool = False
    """Exchange black and white first."""


def run(options: Options) -> None:
    """Write the completed pictures."""
    models = find_all(options, "complete")
    height, width = _size(models[0])
    length = options.rows or models[0].options.get("sequence_length") or height // 2
    if not 1 <= length < height:
        raise InputError(f"{option('rows', length)}: must be from 1 to {height - 1}, below the images' height")
    brought = read(options.pictures, (height, width), 1, models[0], invert=options.invert)
    warn_if_inverted(brought, lambda images: _error_of_rows(models[0], images, length))
    completed = {model.module.cell.upper(): complete(model, brought.images, length) for model in models}
    rows = {"original": brought.images, **completed}
    name = f"{models[0].prefix}completed_{title(brought.names)}"
    whose = "Completed by " + " and ".join(completed)
    names = brought.names if len(brought.names) <= 10 else ()
    image = pictures.compared(rows, 10, title=f"{whose} below the line", column_labels=names, cut=length)
    write_files(models[0].folder, {f"{name}.png": pictures.png(image)})


def complete(model: Model, images: np.ndarray, length: int) -> np.ndarray:
    """Images `[N, H, W, 1]`, from 0 to 1, of which the first `length` rows are kept and the others predicted."""
    return np.asarray(completion.complete(model.module, model.variables, images, length))


def _size(model: Model) -> tuple[int, int]:
    """Height and width of the images: the run's, or a square's as wide as the model's rows."""
    width: int = model.module.width
    height, its_width = model.data.get("size") or model.options.get("size") or (width, width)
    return (height, width) if its_width == width else (width, width)


def _error_of_rows(model: Model, images: np.ndarray, length: int) -> np.ndarray:
    """The mean squared error of each row that is predicted from the true rows above it, `[N]`."""
    starts = range(images.shape[1] - length)
    windows = np.concatenate([images[:, start : start + length + 1] for start in starts])
    predicted = complete(model, windows, length)[:, length]
    return np.asarray(((predicted - windows[:, length]) ** 2).mean((1, 2)).reshape(len(starts), -1).mean(0))
