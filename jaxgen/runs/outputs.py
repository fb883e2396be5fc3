"""What a run writes besides its log and checkpoints: pictures, animations and weights."""

import contextlib
import errno
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxgen import pictures, torch_weights
from jaxgen.durable import write
from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option
from jaxgen.runs.layout import Layout
from jaxgen.runs.log import Log
from jaxgen.runs.models import SHOWN, Models
from jaxgen.signals import say

PyTree = Any
Picture = Image.Image | Callable[[], Image.Image]
Frames = Sequence[Image.Image] | Callable[[], Sequence[Image.Image]]


class _NotWrittenError(OSError):
    """A picture was drawn, but the disk failed."""


@contextlib.contextmanager
def surviving(what: str, note: Callable[[str], object]) -> Iterator[None]:
    """Go on where a picture cannot be drawn, whatever the reason, with one line about it.

    Args:
        what: the picture.
        note: called with the line.

    Raises:
        OSError: the picture was drawn but could not be written.
    """
    try:
        yield
    except _NotWrittenError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # a C module that was being imported made it of a signal
            raise
        why = " ".join([f"{type(error).__name__}:", *str(error).split()])[:300].rstrip(":")
        text = f"{what} was not drawn: {why}"
        note(text)
        say(text, error=True)


class Outputs:
    """The files that a run writes while it trains, each into the folders of the moment.

    Before training has begun, files wait, because the run's folder may turn out not to fit.

    Args:
        layout: the run's paths.
        log: where failures are noted.
        models: the models of the run. Of several, pictures show the first few side by side.

    Attributes:
        failures: a line for each picture that could not be drawn.
        folders: the folders of the moment.
    """

    def __init__(self, layout: Layout, log: Log, models: Models) -> None:
        self.failures: list[str] = []
        self.folders: Sequence[Path] | None = None
        self._layout = layout
        self._log = log
        self._models = models
        self._model: int | None = None  # the one of several that is being drawn
        self._of_models: dict[str, dict[str, Picture]] = {}  # pictures by name and by the label of their model
        self._epoch = 0
        self._waiting: list[tuple[str, Callable[[], bytes]]] = []

    def picture(self, name: str, image: Picture, raw: Picture | None = None) -> None:
        """Write `NAME.png`, and `raw/NAME.png` if there is a raw picture."""
        if self._model is not None:
            if self._model < SHOWN:
                self._of_models.setdefault(name, {})[self._models.labels[self._model]] = image
                if raw is not None:
                    self.write(f"raw/{self._model}.{name}.png", partial(png, raw))
            return
        self.write(f"{name}.png", partial(png, image))
        if raw is not None:
            self.write(f"raw/{name}.png", partial(png, raw))

    def of_all_models(self, name: str, image: Picture) -> None:
        """Write `NAME.png`, a picture that is the same for all models, so that it is drawn once."""
        if not self._model:
            self.write(f"{name}.png", partial(png, image))

    def animation(self, name: str, frames: Frames) -> None:
        """Write `NAME.gif`; of several models, that of the first."""
        if not self._model:
            self.write(f"{name}.gif", lambda: pictures.gif(frames() if callable(frames) else frames))

    def of_network(self, name: str, content: bytes) -> None:
        """Write a file of the model that is being drawn; of several models, its name begins with the model's number."""
        self.write(name if self._model is None else f"{self._model}.{name}", partial(bytes, content))

    def write(self, name: str, make: Callable[[], bytes]) -> None:
        """Write a file, by name, into the folders of the moment; a content that cannot be made costs the file."""
        if self.folders is None:
            self._waiting.append((name, make))
            return
        with surviving(name, self.note):
            content = make()
            try:
                for folder in self.folders:
                    write(folder / name, content)
            except OSError as error:
                raise _NotWrittenError(error.errno, error.strerror or str(error), error.filename) from error

    def begin(self) -> None:
        """Write the files that waited into the folder of the untrained model."""
        self.folders = [self._layout.epoch(0)]
        for name, make in self._waiting:
            self.write(name, make)
        self._waiting.clear()
        self.folders = [self._layout.final]

    def draw(
        self, epoch: int, draw: Callable[[PyTree], object], variables: Iterable[PyTree], folders: Sequence[Path]
    ) -> None:
        """Call a drawing function for each model; until `end_drawing`, files go into these folders."""
        self._epoch, self.folders = epoch, list(folders)
        for index, its_variables in enumerate(variables):
            self._model = index if self._models.are_several else None
            with surviving(f"a picture of epoch {epoch}", self.note):
                draw(its_variables)
        self._model = None
        for name, images in self._of_models.items():
            self.write(f"{name}.png", partial(_side_by_side, images))
        self._of_models.clear()

    def end_drawing(self) -> None:
        """Files go into the folder of the end again."""
        self.folders = [self._layout.final]

    def note(self, text: str) -> None:
        """Remember a failure that does not end the run."""
        self.failures.append(text)
        self._log.event({"event": "failure", "epoch": self._epoch, "step": 0, "text": text})


def _side_by_side(images: Mapping[str, Picture]) -> bytes:
    drawn = {label: image() if callable(image) else image for label, image in images.items()}
    return pictures.png(pictures.beside(drawn, ""))


def png(image: Picture) -> bytes:
    """A picture, or what a function draws, as a PNG file."""
    return pictures.png(image() if callable(image) else image)


def weights_files(variables: PyTree, descriptions: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, bytes]:
    """The weights of each network under PyTorch's names, by file name: `model.safetensors` for a single one.

    Args:
        variables: `{"params": …}`, or a mapping of names to such.
        descriptions: what each network is, by name, as `torch_weights.describe` has it.
        about: what else the files' headers say.
    """
    networks = {"model": variables} if "params" in variables else variables
    return {
        f"{name}.safetensors": torch_weights.to_safetensors(
            torch_weights.flatten(its_variables), {**about, "module": descriptions.get(_plain(name, descriptions))}
        )
        for name, its_variables in networks.items()
    }


def _plain(name: str, descriptions: Mapping[str, Any]) -> str:
    """The name of a network without the number of its model: `generator` for `3.generator`."""
    return name if name in descriptions else name.partition(".")[2]


def write_samples(config: Config, samples: jax.Array, folder: Path | None = None, columns: int = 16) -> None:
    """Write images `[N, H, W, C]` in 0..1, drawn with `config.seed`, as pictures and an array; see `write_extra`."""
    array = io.BytesIO()
    np.save(array, np.asarray(samples))
    name = f"{len(samples)}_of_seed_{config.seed}"
    title = f"{config.experiment.rpartition('.')[2]}: {len(samples):,} samples of seed {config.seed}"
    files = {
        f"{name}.png": pictures.png(pictures.sheet(samples, columns, title=title)),
        f"raw/{name}.png": pictures.png(pictures.grid(samples, columns)),
        f"{name}.npy": array.getvalue(),
    }
    write_extra(config, files, folder)


def write_extra(config: Config, files: Mapping[str, bytes], folder: Path | None = None) -> None:
    """Write files, by name, and print their paths.

    Args:
        config: the run's.
        files: contents by name.
        folder: the value of the option `samples_out`; None for `samples/` of the run's folder.

    Raises:
        InputError: the folder is not writable.
    """
    folder = folder or config.folder / "samples"
    for name, content in files.items():
        try:
            write(folder / name, content)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise InputError(
                f"{folder} cannot be written ({error.strerror}); {option('samples_out')} names another folder"
            ) from error
        say(str(folder / name))
