"""Morph one image into the next, in latent space: between classes, or between pictures of one's own.

A class, by number or name, stands for the mean of its images' latent codes. The way is written as a strip and as an
animation.
"""

import json
import os
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxgen import data, pictures
from jaxgen.commands import encode
from jaxgen.commands._classes import ClassOption, class_number, labels_of, there_are
from jaxgen.commands._models import Model, find
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.errors import InputError
from jaxgen.runs import Count
from jaxgen.signals import say


class Options(ModelOptions):
    """The options of this command."""

    stops: tuple[str, ...]
    """Two or more of: a class by number or name, a picture file, a folder of pictures."""
    frames: Count = 20
    """Images from one stop to the next."""
    data: str | None = None
    """The data set whose classes are meant, such as mnist; None is the run's own."""
    class_: ClassOption = None
    """The class to draw as, by number or name, for a model that was trained with classes."""
    invert: bool = False
    """Exchange black and white in the pictures first."""


def run(options: Options) -> None:
    """Write the strip and the animation."""
    model = find(options, "morph")
    stops, points = _points(options, model)
    if len(points) < 2:
        raise InputError("name two classes or pictures to morph between, or more, as 2 7 or one.png other.png")
    share = np.arange(options.frames).reshape(-1, *[1] * (points.ndim - 1)) / options.frames
    way = np.concatenate([*(one + share * (other - one) for one, other in pairwise(points)), points[-1:]])
    way = way.astype(np.float32)
    images = encode.decode(model, way, encode.needed_labels(options.class_, len(way), model))
    ways = [f"{one} → {other}" for one, other in pairwise(stops)]
    captions = [*np.repeat(ways, options.frames), stops[-1]]
    frames = [
        pictures.captioned(pictures.to_image(image), str(caption))
        for image, caption in zip(images, captions, strict=True)
    ]
    files = {"png": pictures.png(_strip(images, ways, options.frames, model)), "gif": pictures.gif(frames, scale=1)}
    name = f"{model.prefix}morph_{'_'.join(Path(stop).stem for stop in options.stops)}"
    write_files(model.folder, {f"{name}.{kind}": content for kind, content in files.items()})


def _strip(images: np.ndarray, ways: Sequence[str], frames: int, model: Model) -> Image.Image:
    """A row from each stop to the next, of at most eleven images."""
    shown = np.unique(np.linspace(0, frames, min(frames, 10) + 1).round().astype(int))
    rows = np.concatenate([images[at * frames + shown] for at in range(len(ways))])
    return pictures.sheet(rows, len(shown), title=f"A morph by {model.name}", row_labels=ways)


def _points(options: Options, model: Model) -> tuple[list[str], np.ndarray]:
    """The names of the stops, and their latent codes: of pictures, or the means of classes."""
    names: list[str] = []
    points: dict[int, np.ndarray] = {}  # by position; those of the stops that are known already
    batches: dict[int, _Batch] = {}  # by position; what the others are the means of
    classes = _Classes(model, options.data)
    for stop in options.stops:
        mean = classes.stored_mean(stop)
        if mean is not None:
            points[len(names)] = mean
            names.append(stop)
        elif classes.number(stop) is None and _is_path(stop):
            brought = encode.read_for(model, [Path(stop)], invert=options.invert)
            labels = encode.needed_labels(options.class_, len(brought.images), model)
            encode.warn_if_unlike(model, brought, labels)
            for name, image in zip(brought.names, brought.images, strict=True):
                batches[len(names)] = _Batch(image[None], {kind: each[:1] for kind, each in labels.items()})
                names.append(name)
        else:
            batches[len(names)] = classes.images(stop)
            names.append(stop)
    points |= zip(batches, _mean_codes(model, list(batches.values())), strict=True)
    return names, np.array([points[at] for at in range(len(names))])


class _Batch(NamedTuple):
    """Images whose codes have the mean that is looked for."""

    images: np.ndarray  # [N, H, W, C], from 0 to 1
    labels: dict[str, Any]  # the argument `labels` of a conditional model


def _mean_codes(model: Model, batches: Sequence[_Batch]) -> list[np.ndarray]:
    """The mean code of each batch. All are encoded at once, because each number of images is compiled anew."""
    if not batches:
        return []
    images = np.concatenate([batch.images for batch in batches])
    labels = {kind: np.concatenate([batch.labels[kind] for batch in batches]) for kind in batches[0].labels}
    codes = encode.encode(model, images, labels).mean
    ends = np.cumsum([len(batch.images) for batch in batches])
    return [each.mean(0) for each in np.split(codes, ends[:-1])]


def _is_path(stop: str) -> bool:
    return bool(Path(stop).suffix) or os.sep in stop or os.path.exists(stop)


class _Classes:
    """The classes of the model's data. The data are loaded when they are needed.

    Args:
        model: the model.
        given: the name of the data set, if it is given.
    """

    def __init__(self, model: Model, given: str | None) -> None:
        self._model = model
        self._given = given

    def stored_mean(self, stop: str) -> np.ndarray | None:
        """The mean of a class as the run wrote it at its end; None where that is not known."""
        names = [*self._stored]
        number = class_number(stop, names, 0)
        return None if number is None else np.asarray(self._stored[names[number]], np.float32)

    def number(self, stop: str) -> int | None:
        """The number of a class; None where it is not known to be one."""
        if self._given is not None:
            return class_number(stop, self._test.classes, len(self._test.classes))
        names = list(map(str, self._model.data.get("classes") or ()))
        return class_number(stop, names, len(names))

    def images(self, stop: str) -> _Batch:
        """The test images of a class.

        Raises:
            InputError: there is no such class, or the data are not there.
        """
        test = self._test
        number = class_number(stop, test.classes, len(test.classes))
        if number is None or not (test.labels == number).any():
            raise InputError(f"{stop}: {there_are(stop, test.classes, 0) if test.classes else _UNLABELED}")
        images = test.select(test.labels == number).as_floats()
        return _Batch(images, labels_of(number, len(images), self._model))

    @cached_property
    def _stored(self) -> dict[str, Any]:
        file = self._model.latent_points
        if self._given is not None or file is None or self._model.classes:
            return {}
        try:
            return dict(json.loads(file.read_text())["means"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @cached_property
    def _test(self) -> data.Images:
        model = self._model
        name = self._given or model.options.get("data") or model.data.get("name")
        if name is None:
            raise InputError(f"{model.name} does not say what it was trained on; {_REMEDY}")
        height, width, channels = encode.image_shape(model)
        try:
            return data.load(
                str(name), "test", size=(height, width), channels=channels,
                crop=bool(model.options.get("crop")), skip_bad=bool(model.options.get("skip_bad")), log=say,
            )  # fmt: skip
        except InputError as error:
            raise InputError(f"the means of classes need the data: {error}; {_REMEDY}") from error


_REMEDY = "--data names a data set, and pictures of your own can be morphed without one"
_UNLABELED = "the data have no classes; name pictures"
