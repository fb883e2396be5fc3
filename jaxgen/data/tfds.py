"""Image data sets of TensorFlow Datasets, `tfds:NAME`, `tfds:NAME/CONFIG` or `tfds:NAME:VERSION`.

A prepared data set is read from its folder alone, without TensorFlow, its own code or a network. Preparing one takes
TensorFlow and a network; both are checked first, since TensorFlow Datasets waits for minutes where there is none.
"""

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import cache, fetch
from jaxgen.data.images import Images, Target, check_memory, fit, flatten, from_array
from jaxgen.data.report import Report, summary
from jaxgen.errors import InputError

_PACKAGES = ("tensorflow_datasets", "importlib_resources")  # the first imports the second and does not say so
_SITE = "https://www.tensorflow.org/datasets"  # answers if there is a network


def read(name: str, split: str, target: Target, report: Report, on_disk: bool | None = None) -> Images:
    """The images of a split. For a data set without a `test` split, that is its `validation`."""
    if not _installed():
        raise InputError(f"tfds:{name} takes TensorFlow Datasets: pip install 'jaxgen[tfds]'")
    place = _prepared(name) or _prepare(name, report)
    title = f"tfds-{cache.fingerprint(place.resolve(), split, target)[:32]}"
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(place.iterdir())]
    make = partial(_decode, name, place, split, target, report)
    prepared = cache.cached(title, cache.fingerprint(states), make, on_disk=on_disk)
    report.inform(summary(f"tfds:{name}", split, prepared.images, target, prepared.distorted))
    return prepared.images


def is_prepared(name: str) -> bool:
    """Whether a data set can be read without preparing it."""
    try:
        return _installed() and _prepared(name) is not None
    except InputError:  # there is no home folder that it could be in
        return False


def _installed() -> bool:
    return all(find_spec(package) for package in _PACKAGES)


def _prepared(name: str) -> Path | None:
    """The folder of a prepared data set, TFDS_DATA_DIR/NAME[/CONFIG]/VERSION; of several versions, the latest."""
    path, _, version = name.partition(":")
    home = _home() / path
    places = [info.parent for pattern in ("*", "*/*") for info in home.glob(f"{pattern}/dataset_info.json")]
    places = [place for place in places if _number(place) and version in ("", place.name)]
    configs = sorted({place.parent.name for place in places})
    if len(configs) > 1:
        raise InputError(f"tfds:{name} is prepared in several configurations, {', '.join(configs)}: name one after a /")
    return max(places, key=_number, default=None)


def _home() -> Path:
    given = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return cache.expand_user(given, "TFDS_DATA_DIR")


def _number(place: Path) -> tuple[int, ...]:
    """A version as numbers; () for a folder that is not a version, for example an unfinished one."""
    parts = place.name.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() for part in parts) else ()


def _prepare(name: str, report: Report) -> Path:
    """Let TensorFlow Datasets download and prepare a data set, after checking that this can succeed."""
    if find_spec("tensorflow") is None:
        raise InputError(
            f"tfds:{name} is not prepared in {_home()}, which takes TensorFlow, this once: pip install tensorflow-cpu"
        )
    if fetch.first_to_answer([_SITE]) is None:
        raise InputError(f"tfds:{name} is not prepared in {_home()} and there is no network: {_SITE} does not answer")
    import tensorflow_datasets as tfds

    report.warn(f"tfds:{name}: TensorFlow Datasets fetches and prepares it in {_home()}")
    try:
        builder = tfds.builder(name, data_dir=_home(), file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # an unknown name, a broken download, a full disk, a source that is gone
        raise InputError(f"tfds:{name} cannot be prepared: {error}") from error
    return Path(builder.data_dir)


def _decode(
    name: str, place: Path, split: str, target: Target, report: Report, collector: cache.Collector
) -> cache.About:
    import tensorflow_datasets as tfds

    distorted = 0
    try:
        builder = tfds.builder_from_directory(place)
        image_key, label_key = _keys(name, builder.info.features)
        _check_format(name, builder.info.file_format, place)
        examples = builder.as_data_source(_split(name, split, list(builder.info.splits)))
        if target.size is not None:
            check_memory(1, *target.size, target.channels or 1)
        collector.count = len(examples)
        for example in report.progress(examples, f"tfds:{name}: decoding"):
            picture = flatten(from_array(example[image_key]))
            distorted += target.distorts(picture.height, picture.width)
            collector.add(fit(picture, target), int(example[label_key]) if label_key else 0)
        classes = tuple(builder.info.features[label_key].names) if label_key else ()
    except InputError:
        raise
    except Exception as error:  # a file that is damaged or missing
        raise InputError(f"tfds:{name} cannot be read from {place}: {error}") from error
    return cache.About(classes=classes, distorted=distorted)


def _check_format(name: str, file_format: Any, place: Path) -> None:
    if file_format not in type(file_format).with_random_access():
        raise InputError(
            f"tfds:{name} is prepared as {file_format.value} in {place}, which only TensorFlow reads: "
            "prepare it with file_format='array_record'"
        )


def _keys(name: str, features: Any) -> tuple[str, str | None]:
    """The names of the features that are the image and, if there is one, the class."""
    from tensorflow_datasets import features as kinds

    def of_kind(kind: type, usual_name: str) -> list[str]:
        return sorted((key for key in features if isinstance(features[key], kind)), key=lambda key: key != usual_name)

    images, labels = of_kind(kinds.Image, "image"), of_kind(kinds.ClassLabel, "label")
    if not images:
        raise InputError(f"tfds:{name} has no images: its features are {', '.join(features)}")
    if features[images[0]].np_dtype != np.uint8:
        raise InputError(f"tfds:{name} has images of {features[images[0]].np_dtype}, not of bytes (uint8)")
    return images[0], labels[0] if labels else None


def _split(name: str, split: str, available: list[str]) -> str:
    for candidate in (split, *(["validation"] if split == "test" else [])):
        if candidate in available:
            return candidate
    raise InputError(f"tfds:{name} has no split {split!r}: it has {', '.join(available)}")
