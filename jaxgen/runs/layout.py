"""The folder of a run: where everything in it is.

    config.json       every option, so that the run can be repeated from it
    environment.json  versions, platform, devices, seed, git commit
    metrics.jsonl     one line an epoch
    events.jsonl      what else there is to remember: checkpoints, bad steps, notes
    checkpoints/      the newest few, by step, and the best one where a metric says which that is
    epochs/020/       the pictures of an epoch, and its weights where they are asked for; in raw/ the pictures without
                      titles, labels and enlargement
    final/            the last pictures, and the trained weights under PyTorch's names
    tensorboard/      scalars and pictures for TensorBoard, where they are asked for
    finished.json     written last: the run is finished, and its results
    report.html       a page about all of it

The path of a file says when it was made, so what is later than a checkpoint is removed by removing folders.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from jaxgen.errors import InputError

VERSION = 2  # of this layout; 1 had `pictures/`, and weights beside it


class Layout:
    """The paths of a run in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.environment = folder / "environment.json"
        self.metrics = folder / "metrics.jsonl"
        self.events = folder / "events.jsonl"
        self.checkpoints = folder / "checkpoints"
        self.epochs = folder / "epochs"
        self.final = folder / "final"
        self.finished = folder / "finished.json"
        self.page = folder / "report.html"
        self.event_log = folder / "tensorboard"
        self.lock = folder / ".lock"

    def epoch(self, number: int) -> Path:
        """The folder of an epoch; 0 is the untrained model."""
        return self.epochs / f"{number:03d}"

    def drawn_epochs(self) -> list[Path]:
        """The folders of epochs that are there, in order."""
        folders = self.epochs.iterdir() if self.epochs.is_dir() else ()
        return sorted((path for path in folders if path.name.isdigit()), key=lambda path: int(path.name))

    def remove_later(self, epoch: int) -> None:
        """Remove what is later than an epoch, and what belongs to the end."""
        self.finished.unlink(missing_ok=True)
        shutil.rmtree(self.final, ignore_errors=True)
        for path in self.drawn_epochs():
            if int(path.name) > epoch:
                shutil.rmtree(path)

    def read_config(self) -> dict[str, Any] | None:
        """What `config.json` says; None where there is no run.

        Raises:
            InputError: it cannot be read, or the folder has another layout.
        """
        if not self.config.exists():
            return None
        try:
            found = json.loads(self.config.read_text())
            if not (isinstance(found["options"], dict) and isinstance(found["experiment"], str)):
                raise KeyError("options")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self.config}: not a run's configuration; restore the file as it was written") from error
        if (version := found.get("layout", 1)) != VERSION:
            raise InputError(
                f"{self.folder} holds a run of another version of jaxgen (layout {version}, this version has "
                f"{VERSION}); use that version for it, or another folder"
            )
        return dict(found)

    def read_finished(self) -> dict[str, Any] | None:
        """What `finished.json` says: `epochs` and `results`; None where the run is not finished."""
        try:
            found = json.loads(self.finished.read_text())
            return found if isinstance(found["epochs"], int) and isinstance(found["results"], dict) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
