"""The user's own pictures, as a model takes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.commands._models import Model
from jaxgen.data import load_pictures
from jaxgen.runs import option
from jaxgen.signals import say


class Brought(NamedTuple):
    """Pictures of the user's."""

    names: list[str]
    images: np.ndarray  # [N, H, W, C], from 0 to 1


def read(paths: Sequence[Path], size: tuple[int, int], channels: int, model: Model, *, invert: bool) -> Brought:
    """The user's pictures, made of one size as the model's data were.

    Args:
        paths: files and folders.
        size: height and width.
        channels: 1 or 3.
        model: what they are for.
        invert: exchange black and white.

    Raises:
        InputError: there is none, or one cannot be read.
    """
    found = load_pictures(paths, size=size, channels=channels, crop=bool(model.options.get("crop")))
    images = found.images.astype(np.float32) / 255
    return Brought([file.name for file in found.files], 1 - images if invert else images)


def warn_if_inverted(brought: Brought, error: Callable[[np.ndarray], np.ndarray]) -> None:
    """Say which pictures the model knows better with black and white exchanged.

    Args:
        brought: the pictures, as the model gets them.
        error: how far the model is from images, one number for each of `[N, H, W, C]`.
    """
    as_given, exchanged = error(brought.images), error(1 - brought.images)
    odd = [name for name, one, other in zip(brought.names, as_given, exchanged, strict=True) if other < one / 2]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        say(
            f"warning: {odd[0]}{more}: black and white seem to be the other way round than in the model's data; "
            f"{option('invert')} exchanges them",
            error=True,
        )


def title(names: Sequence[str]) -> str:
    """A part of a file's name that says which pictures it shows."""
    first = Path(names[0]).stem
    return first if len(names) == 1 else f"{first}_and_{len(names) - 1}_more"
