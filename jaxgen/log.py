"""A run's log: `metrics.jsonl`, a line an epoch, and `events.jsonl`, a line for what else there is to remember.

An event says when it was by `epoch`, the epochs finished, and `step`, the steps done in the one under way:

    {"event": "checkpoint", "epoch": 20, "step": 0, "name": "00002260"}
    {"event": "not finite", "epoch": 3, "step": 17, "tensor": …, "rows": […], "from": "00000339", "then": "stop"}
    {"event": "note", "epoch": 41, "step": 0, "text": …}

A checkpoint is on disk, whole, before its line is. `rows` are the examples of the batch, `from` is the checkpoint from
which the steps were run again to find the one that went wrong, and `then` is what came of it, `stop` or `skip`.
"""

import json
from pathlib import Path
from typing import Any

from jaxgen.durable import sync, write

Line = dict[str, Any]


class Log:
    """The log of the run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.metrics = folder / "metrics.jsonl"
        self.events = folder / "events.jsonl"

    def epoch(self, line: Line) -> None:
        append(self.metrics, line)

    def event(self, line: Line) -> None:
        append(self.events, line)

    def until(self, epoch: int, step: int) -> tuple[list[Line], list[Line]]:
        """The epochs and the events up to here."""
        epochs = [line for line in lines(self.metrics) if line["epoch"] <= epoch]
        return epochs, [line for line in lines(self.events) if (line["epoch"], line["step"]) <= (epoch, step)]

    def drop_later(self, epoch: int, step: int) -> None:
        for path, kept in zip((self.metrics, self.events), self.until(epoch, step), strict=True):
            write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())

    def sync(self) -> None:
        """Have the system write it to the disk."""
        for path in (self.metrics, self.events, self.metrics.parent):
            if path.exists():
                sync(path)


def append(path: Path, line: Line) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def lines(path: Path) -> list[Line]:
    """The whole lines of a file; a last one that was cut short is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
