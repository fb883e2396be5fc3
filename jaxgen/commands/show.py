"""Say what a run or a weights file is: its module, data, figures, pictures, and where its files are."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxgen import metrics, torch_weights
from jaxgen.commands._models import uses_of
from jaxgen.commands._options import Options as _Options
from jaxgen.errors import InputError
from jaxgen.runs import Layout
from jaxgen.signals import say
from jaxgen.torch_weights.files import read
from jaxgen.trained import current_weights, no_run, runs_below, weights_in

Line = tuple[str, str]  # a label, and what there is to say under it


class Options(_Options):
    """The options of this command."""

    path: Path
    """A run's folder, finished or not, or a weights file: .safetensors, or a .pth of PyTorch's."""
    module: str | None = None
    """The class of a weights file that does not say it, such as dcgan.MnistGenerator."""


def run(options: Options) -> None:
    """Print what the run or the file is."""
    path = options.path
    lines = _of_file(path, options.module) if path.is_file() else _of_folder(path, options.module)
    before = ""
    for label, text in lines:
        for line in text.splitlines():
            say(f"{'' if label == before else label:10}{line}")
            before = label


# ---- Weights files ----


def _of_file(path: Path, module: str | None) -> Iterator[Line]:
    about = torch_weights.read_header(path) or {}
    yield "file", f"{path}, {path.stat().st_size:,} bytes"
    if about.get("experiment"):
        yield "run", f"trained by {about['experiment']}"
    yield from _of_network(path, module)
    yield from _data(about.get("data") or {})
    yield from _settings(about.get("config") or {})


def _of_network(path: Path, module: str | None) -> Iterator[Line]:
    """The module that a weights file belongs to, and the commands that fit it."""
    tensors, _ = read(path)
    weights = {name: tuple(tensor.shape) for each in tensors.values() for name, tensor in each.items()}
    count = sum(math.prod(shape) for name, shape in weights.items() if not name.endswith(_STATISTICS))
    try:
        found = torch_weights.load_file(path, module).module
    except InputError as error:
        yield "module", f"not known: {error}"
        for name, shape in list(weights.items())[:_MOST_TENSORS]:
            yield "tensors", f"{name} {list(shape)}"
        if len(weights) > _MOST_TENSORS:
            yield "tensors", f"… {len(weights)} in all"
        return
    yield "module", f"{_call(torch_weights.describe(found))}, {count:,} parameters"
    uses = uses_of(found)
    yield "commands", ", ".join([*uses, *(["evaluate"] if uses else []), "export", "show"])


_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_MOST_TENSORS = 20


def _call(description: Any) -> str:
    """A module's description as Python would make it: `ConvVAE(latent=2)`."""
    if isinstance(description, Mapping) and "class" in description:
        fields = (f"{name}={_call(value)}" for name, value in description["fields"].items())
        return f"{description['class'].removeprefix('jaxgen.models.')}({', '.join(fields)})"
    return str(tuple(description) if isinstance(description, list) else description)


# ---- Runs ----


def _of_folder(path: Path, module: str | None) -> Iterator[Line]:
    if files := weights_in(path):
        for file in files:
            yield from _of_file(file, module)
        return
    layout = Layout(path)
    stored = layout.read_config()
    if stored is None:
        raise InputError(no_run(path))
    below = runs_below(path)
    finished = layout.read_finished()
    yield "run", f"{stored['experiment']} in {path}: {_progress(layout, below, finished)}"
    for run in below:
        yield "runs", str(run)
    for name in (finished or {}).get("models", []):
        yield "models", name
    if finished and "best_model" in finished:
        yield "best", f"model {finished['best_model']}"
    yield from _data(stored.get("data") or {})
    for each in below or [path]:
        yield from _networks(Layout(each), module)
    yield from _figures(layout, finished)
    yield from _settings(stored["options"])
    last = layout.final if layout.final.is_dir() else (layout.drawn_epochs() or [layout.final])[-1]
    for picture in sorted([*last.glob("*.png"), *last.glob("*.gif")]):
        yield "pictures", str(picture)
    if (page := path / "report.html").is_file():
        yield "page", str(page)


def _networks(layout: Layout, module: str | None) -> Iterator[Line]:
    try:
        files = current_weights(layout)
    except InputError as error:
        yield "weights", str(error)
        return
    for file in files:
        yield "weights", str(file)
    first = [file for file in files if not file.stem[0].isdecimal() or file.stem.startswith("0.")]
    for file in first:
        yield from _of_network(file, module)


def _progress(layout: Layout, below: list[Path], finished: Mapping[str, Any] | None) -> str:
    if finished is not None:
        return f"finished after {finished['epochs']} epochs"
    if below:
        return "not finished"
    epochs = layout.metrics.read_bytes().count(b"\n") if layout.metrics.is_file() else 0
    return f"not finished, {epochs} epochs so far"


def _figures(layout: Layout, finished: Mapping[str, Any] | None) -> Iterator[Line]:
    """The figures of the end, with their baselines; of the epoch that was measured last where there is no end."""
    folders = [layout.final, *reversed(layout.drawn_epochs())]
    file = next((folder / "figures.json" for folder in folders if (folder / "figures.json").is_file()), None)
    try:
        found = json.loads(file.read_text()) if file else {}
    except (OSError, ValueError):
        found = {}
    figures = found or (finished or {}).get("results", {})
    if figures:
        for line in metrics.table({name: _as_figure(figure) for name, figure in figures.items()}).splitlines():
            yield "figures", line


def _as_figure(said: Any) -> metrics.Figure:
    """A figure of `figures.json`, or a number of `finished.json`."""
    if not isinstance(said, dict):
        return metrics.Figure(float(said))
    return metrics.Figure(**{name: value for name, value in said.items() if name in metrics.Figure._fields})


def _data(data: Mapping[str, Any]) -> Iterator[Line]:
    if not data:
        return
    size = "×".join(map(str, [*data.get("size", []), data.get("channels", "")]))
    yield "data", f"{data.get('name')}: {data.get('images', 0):,} images of {size}"
    if classes := data.get("classes"):
        yield "classes", ", ".join(map(str, classes[:20])) + (f", … {len(classes)} in all" if len(classes) > 20 else "")


def _settings(options: Mapping[str, Any]) -> Iterator[Line]:
    shown = {name: value for name, value in options.items() if value is not None and value is not False}
    if shown:
        yield "options", ", ".join(f"{name} {value}" for name, value in shown.items())
