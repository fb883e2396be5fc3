"""The event log of a run, for TensorBoard: `tensorboard/` in its folder, with scalars and pictures by epoch.

It follows the run's files: `metrics.jsonl`, and the pictures and figures in the folders of epochs and of the end. A run
that is resumed writes it anew from what is left of these, so nothing in it is later than the checkpoint.
"""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option
from jaxgen.runs.layout import Layout
from jaxgen.runs.log import lines
from jaxgen.runs.outputs import surviving
from jaxgen.runs.results import FILE


def check_event_log(config: Config) -> None:
    """Raise InputError where an event log is asked for and the package that writes it is not installed."""
    if config.tensorboard and find_spec("tensorboardX") is None:
        raise InputError(f"{option('tensorboard', True)}: needs tensorboardX: pip install 'jaxgen[tensorboard]'")


class EventLog:
    """The event log of a run. A failure costs the log, not the run.

    Args:
        layout: the run's paths.
        note: called with a line about a failure.
    """

    def __init__(self, layout: Layout, note: Callable[[str], object]) -> None:
        self._layout = layout
        self._note = note
        self._writer: Any = None
        self._epochs = 0  # whose lines are written
        self._written: set[tuple[str, int]] = set()  # names and epochs of pictures and figures

    def follow(self, epoch: int, *, at_end: bool = False) -> None:
        """Write what has come since the last call.

        Args:
            epoch: the finished epochs.
            at_end: whether the run is finished; the log is then closed.
        """
        with surviving("the event log", self._note):
            if self._writer is None:
                self._writer = self._new_writer()
            found = lines(self._layout.metrics)[self._epochs :]
            for line in found:
                for name, value in line.items():
                    if name != "epoch":
                        self._writer.add_scalar(name, value, line["epoch"])
            self._epochs += len(found)
            for folder in self._layout.drawn_epochs():
                self._add_folder(folder, int(folder.name))
            if at_end:
                self._add_folder(self._layout.final, epoch)
            self._writer.flush()
            if at_end:
                self._writer.close()

    def _new_writer(self) -> Any:
        from tensorboardX import SummaryWriter

        shutil.rmtree(self._layout.event_log, ignore_errors=True)
        return SummaryWriter(str(self._layout.event_log))

    def _add_folder(self, folder: Path, epoch: int) -> None:
        for path in sorted(folder.glob("*.png")):
            if self._is_new(path.stem, epoch):
                with Image.open(path) as image:
                    pixels = np.asarray(image.convert("RGB"))
                self._writer.add_image(path.stem, pixels, epoch, dataformats="HWC")
        file = folder / FILE
        for name, figure in (json.loads(file.read_text()) if file.exists() else {}).items():
            if self._is_new(f"figures/{name}", epoch):
                self._writer.add_scalar(f"figures/{name}", figure["value"], epoch)

    def _is_new(self, name: str, epoch: int) -> bool:
        is_new = (name, epoch) not in self._written
        self._written.add((name, epoch))
        return is_new
