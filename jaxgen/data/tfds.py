"""Image data sets of TensorFlow Datasets, `tfds:NAME`, `tfds:NAME/CONFIG` or `tfds:NAME:VERSION`.

One that is prepared is read from its folder alone, without TensorFlow, its own code or a network. Preparing one takes
TensorFlow and a network; both are looked for first, since TensorFlow Datasets waits for minutes where there is none.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import cache, fetch
from jaxgen.data.pixels import Pixels, fit, flatten, from_array, stack
from jaxgen.errors import InputError

_PACKAGES = ("tensorflow_datasets", "importlib_resources")  # the first imports the second and does not say so
_SITE = "https://www.tensorflow.org/datasets"  # answers if there is a network


def read(
    name: str, split: str, size: tuple[int, int] | None, channels: int | None, log: Callable[[str], object]
) -> Pixels:
    """The images of a split; a data set that has no `test` is tested with its `validation`."""
    if not all(find_spec(package) for package in _PACKAGES):
        raise InputError(f"tfds:{name} takes TensorFlow Datasets: pip install 'jaxgen[tfds]'")
    place = _prepared(name) or _prepare(name, log)
    title = f"tfds-{cache.fingerprint(place.resolve(), split, size, channels)[:32]}"
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(place.iterdir())]
    make = partial(_decode, name, place, split, size, channels)
    return cache.remembered(title, cache.fingerprint(states), make).pixels


def _prepared(name: str) -> Path | None:
    """The folder of a prepared data set, TFDS_DATA_DIR/NAME[/CONFIG]/VERSION, of several versions the latest."""
    path, _, version = name.partition(":")
    home = _home() / path
    places = [info.parent for pattern in ("*", "*/*") for info in home.glob(f"{pattern}/dataset_info.json")]
    places = [place for place in places if _number(place) and version in ("", place.name)]
    configs = sorted({place.parent.name for place in places})
    if len(configs) > 1:
        raise InputError(f"tfds:{name} is prepared in several configurations, {', '.join(configs)}: name one after a /")
    return max(places, key=_number, default=None)


def _home() -> Path:
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _number(place: Path) -> tuple[int, ...]:
    """A version as numbers; () for a folder that is none, an unfinished one for example."""
    parts = place.name.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _prepare(name: str, log: Callable[[str], object]) -> Path:
    """Has TensorFlow Datasets download and prepare a data set, once it is sure that this can succeed."""
    if find_spec("tensorflow") is None:
        raise InputError(
            f"tfds:{name} is not prepared in {_home()}, which takes TensorFlow, this once: pip install tensorflow-cpu"
        )
    if fetch.first_to_answer([_SITE]) is None:
        raise InputError(f"tfds:{name} is not prepared in {_home()} and there is no network: {_SITE} does not answer")
    import tensorflow_datasets as tfds

    log(f"tfds:{name}: TensorFlow Datasets fetches and prepares it in {_home()}")
    try:
        builder = tfds.builder(name, data_dir=_home(), file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # an unknown name, a broken download, a full disk, a source that is gone
        raise InputError(f"tfds:{name} cannot be prepared: {error}") from error
    return Path(builder.data_dir)


def _decode(name: str, place: Path, split: str, size: tuple[int, int] | None, channels: int | None) -> cache.Prepared:
    import tensorflow_datasets as tfds

    images, labels = [], []
    try:
        builder = tfds.builder_from_directory(place)
        image_key, label_key = _keys(name, builder.info.features)
        _check_format(name, builder.info.file_format, place)
        for example in builder.as_data_source(_split(name, split, list(builder.info.splits))):
            images.append(fit(flatten(from_array(example[image_key])), size, channels))
            labels.append(int(example[label_key]) if label_key else 0)
    except InputError:
        raise
    except Exception as error:  # a file that is damaged or missing
        raise InputError(f"tfds:{name} cannot be read from {place}: {error}") from error
    return cache.Prepared(Pixels(stack(images), np.array(labels, np.int32)))


def _check_format(name: str, file_format: Any, place: Path) -> None:
    if file_format not in type(file_format).with_random_access():
        raise InputError(
            f"tfds:{name} is prepared as {file_format.value} in {place}, which only TensorFlow reads: "
            "prepare it with file_format='array_record'"
        )


def _keys(name: str, features: Any) -> tuple[str, str | None]:
    """What the data set calls its image, and its class if it has one."""
    from tensorflow_datasets import features as kinds

    def of_kind(kind: type, usual_name: str) -> list[str]:
        return sorted((key for key in features if isinstance(features[key], kind)), key=lambda key: key != usual_name)

    images, labels = of_kind(kinds.Image, "image"), of_kind(kinds.ClassLabel, "label")
    if not images:
        raise InputError(f"tfds:{name} has no images: its features are {', '.join(features)}")
    if features[images[0]].np_dtype != np.uint8:
        raise InputError(f"tfds:{name} has images of {features[images[0]].np_dtype}, not of bytes (uint8)")
    return images[0], labels[0] if labels else None


def _split(name: str, split: str, there: list[str]) -> str:
    for candidate in (split, *(["validation"] if split == "test" else [])):
        if candidate in there:
            return candidate
    raise InputError(f"tfds:{name} has no split {split!r}: it has {', '.join(there)}")
