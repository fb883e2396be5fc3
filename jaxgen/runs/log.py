"""The log of a run: `metrics.jsonl`, a line an epoch, and `events.jsonl`, a line for what else there is to remember.

An event gives its time as `epoch`, the finished epochs, and `step`, the finished steps of the current one:

    {"event": "checkpoint", "epoch": 20, "step": 0, "name": "00002260"}
    {"event": "not finite", "epoch": 3, "step": 17, "tensor": …, "rows": […], "from": "00000339", "then": "stop"}
    {"event": "note", "epoch": 41, "step": 0, "text": …}

A checkpoint is completely on disk before its line is written. `rows` are the examples of the batch, `from` is the
checkpoint from which the steps were repeated to find the bad one, and `then` is the consequence, `stop` or `skip`.
"""

import json
from pathlib import Path
from typing import Any

from jaxgen.durable import sync, write
from jaxgen.runs.layout import Layout

Line = dict[str, Any]


class Log:
    """The log of a run."""

    def __init__(self, layout: Layout) -> None:
        self.metrics = layout.metrics
        self.events = layout.events

    def epoch(self, line: Line) -> None:
        """Append the line of an epoch."""
        _append(self.metrics, line)

    def event(self, line: Line) -> None:
        """Append an event."""
        _append(self.events, line)

    def until(self, epoch: int, step: int) -> tuple[list[Line], list[Line]]:
        """The lines of epochs, and the events, up to a place in the run."""
        epochs = [line for line in lines(self.metrics) if line["epoch"] <= epoch]
        return epochs, [line for line in lines(self.events) if (line["epoch"], line["step"]) <= (epoch, step)]

    def remove_later(self, epoch: int, step: int) -> None:
        """Keep only the lines up to a place in the run."""
        for path, kept in zip((self.metrics, self.events), self.until(epoch, step), strict=True):
            write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def sync(self) -> None:
        """Flush both files to the disk."""
        for path in (self.metrics, self.events, self.metrics.parent):
            if path.exists():
                sync(path)


def _append(path: Path, line: Line) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def lines(path: Path) -> list[Line]:
    """The complete lines of a file; a last line without its end is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
