"""What a page needs from a run's folder, without paths: a page is made to be sent."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from jaxgen.errors import InputError

__all__ = ["Run", "finite", "read_json", "without_paths"]

_ROOT = r"(?:file://)?(?:~|[A-Za-z]:)?[/\\]"
_QUOTED_PATH = re.compile(rf"(?<=['\"]){_ROOT}[^'\"\n]*(?=['\"])")  # which may have spaces
_PATH = re.compile(rf"(?<![\w.:/\\-]){_ROOT}[^\s'\"`,;:]*")
_WHERE = {"out", "samples_out", "resume", "report", "tensorboard"}  # options that say where files go, not what a run is


class Run:
    """A run's folder, read once.

    Attributes:
        folder: The folder.
        name: Its name.
        experiment: The name of the experiment, such as `vae_mnist`.
        options: Its configuration, without the options that only say where files go.
        data: What it was trained on, as `config.json` has it.
        environment: Versions, platform and devices.
        metrics: A line for each epoch.
        events: What else happened.
        finished: What `finished.json` says; None while the run is not finished.
        best_model: Which model the page shows, where several were trained at once.
        cells: The runs inside, by name, where the folder is of several.
    """

    def __init__(self, folder: Path) -> None:
        config = read_json(folder / "config.json")
        if not isinstance(config, dict) or not isinstance(config.get("options"), dict):
            raise InputError(f"{folder}: no run there; train one first, or name another folder")
        self.folder = folder
        self.name = folder.absolute().name
        self.experiment = str(config.get("experiment", "")).rpartition(".")[2]
        self.module = str(config.get("experiment", ""))
        options = config["options"]
        self.options = {name: _shown(value) for name, value in options.items() if name not in _WHERE}
        self.data: dict[str, Any] = config["data"] if isinstance(config.get("data"), dict) else {}
        self.environment: dict[str, Any] = _mapping(folder / "environment.json") or {}
        self.metrics = list(_lines(folder / "metrics.jsonl"))
        self.events = list(_lines(folder / "events.jsonl"))
        self.finished = _mapping(folder / "finished.json")
        self.best_model = int((self.finished or {}).get("best_model") or 0)
        inside = [] if (folder / "checkpoints").exists() else sorted(folder.glob("*/config.json"))
        order = options.get("cell") if isinstance(options.get("cell"), list) else []
        names = sorted((path.parent.name for path in inside), key=lambda name: (name not in order, name))
        self.cells = {name: Run(folder / name) for name in sorted(names, key=[*order, *names].index)}

    @property
    def data_name(self) -> str:
        """The name of the data without the folders that lead to it."""
        return str(_shown(str(self.data.get("name", "its data"))))

    @property
    def epochs(self) -> int:
        """How many epochs are finished."""
        if self.cells:
            return min(cell.epochs for cell in self.cells.values())
        return int(self.metrics[-1]["epoch"]) if self.metrics else 0

    @property
    def command(self) -> str:
        """The command that makes the run again."""
        started = [str(word) for word in self.environment.get("command", [])][1:]
        given = {word[2:].partition("=")[0].replace("-", "_") for word in started if word.startswith("--")}
        # A resumed run was not started with these words, and a notebook has others.
        whole = "resume" in given or not given <= {*self.options, *_WHERE}
        words = [f"python -m {self.module}"]
        for name, value in self.options.items():
            if whole or name in given:
                words += _as_words(name, value)
        return " ".join(words)

    def model_name(self, index: str) -> str:
        """What one of several models is called, such as `seed 1`."""
        names = (self.finished or {}).get("models") or []
        return str(names[int(index)]) if index.isdigit() and int(index) < len(names) else f"model {index}"

    def figures(self) -> Iterator[tuple[int | None, dict[str, Any]]]:
        """The figures of each epoch, and those of the end under None."""
        for epoch, folder in self.drawn():
            found = read_json(folder / "figures.json")
            if isinstance(found, dict):
                yield epoch, found
        found = read_json(self.folder / "final" / "figures.json")
        if found is None and self.finished is not None:
            found = {
                name: {"value": value} for name, value in self.finished.get("results", {}).items() if "/" not in name
            }
        if isinstance(found, dict):
            yield None, found

    def drawn(self) -> list[tuple[int, Path]]:
        """The folders of epochs that have pictures, in order."""
        folders = (self.folder / "epochs").glob("*")
        return sorted((int(path.name), path) for path in folders if path.name.isdigit())


def without_paths(text: str) -> str:
    """A text with each absolute path in it reduced to its last part, which names neither a user nor a machine."""
    for path in (_QUOTED_PATH, _PATH):
        text = path.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\:"))[-1] or "/", text)
    return text


def _shown(value: Any) -> Any:
    """An option's value, with paths reduced to their last part."""
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    if not isinstance(value, str):
        return value
    kind, colon, path = value.partition(":") if re.match(r"[a-z_]{2,}:", value) else ("", "", value)
    if not re.search(r"[/\\]", path) and not path.startswith("~"):
        return value
    last = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return f"{kind}{colon}{last}"


def _as_words(name: str, value: Any) -> list[str]:
    """An option as words of a command."""
    option = name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{option}"] if value else []
    values = value if isinstance(value, list) else [value]
    return [f"--{option}", *(_quoted(str(item)) for item in values)]


def _quoted(word: str) -> str:
    return word if re.fullmatch(r"[\w.:=+-]+", word) else "'" + word.replace("'", "'\\''") + "'"


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none, or it is being written."""
    try:
        return finite(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError):
        return None


def _mapping(path: Path) -> dict[str, Any] | None:
    found = read_json(path)
    return found if isinstance(found, dict) else None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a log."""
    try:
        text = path.read_text()
    except (OSError, ValueError):
        return
    for line in text.split("\n")[:-1]:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and isinstance(found.get("epoch"), int):
            yield finite(found)


def finite(value: Any) -> Any:
    """The value with None in place of numbers that are not finite, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
