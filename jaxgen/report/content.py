"""What a page says of a run, or of several: JSON-able, in the order in which the page shows it."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxgen.metrics import title
from jaxgen.report.folder import Run, without_paths

__all__ = ["of_comparison", "of_run", "plotted"]

_RELOAD = 10  # seconds from one reload of the page of an unfinished run to the next
_SETS = {"test", "train", "validation", "held"}  # words before a metric that say what it was measured on
_TITLES = {
    "rnn_complete": "Row-by-row completion",
    "conv_autoencoder": "Convolutional autoencoder",
    "dcgan_mnist": "Generative adversarial network",
    "dcgan_digits": "Generative adversarial network",
    "vae_mnist": "Variational autoencoder",
}
_DATA = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "faces": "faces",
    "digits": "8×8 digits",
}
Series = dict[str, Any]


def of_run(run: Run) -> dict[str, Any]:
    """Everything but pictures and networks."""
    runs = {name.upper(): cell for name, cell in run.cells.items()} or {"": run}
    finished = run.finished is not None
    asked = run.options.get("epochs")
    state = ("finished", "good") if finished else (f"in training: epoch {run.epochs} of {asked}", "active")
    return {
        "title": _title(run),
        "eyebrow": f"{run.experiment} · a run of jaxgen",
        "summary": _summary(run),
        "chips": [state, *((chip, "") for chip in _chips(run))],
        "notes": _notes(run),
        "figures": [_figure(name, figure) for name, figure in _last_figures(run).items()],
        "curves": _curves(runs),
        "command": run.command,
        "settings": [[title(name), _text(value)] for name, value in run.options.items() if value is not None],
        "environment": _environment(run),
        "footer": [
            f"Made by jaxgen {run.environment.get('jaxgen', '')}. This file is complete: it loads nothing from "
            "the network and sends nothing."
        ],
        "reload": None if finished else _RELOAD,
    }


def of_comparison(runs: Mapping[str, Run]) -> dict[str, Any]:
    """The same for several runs, one over the other."""
    names = list(runs)
    options = list(dict.fromkeys(name for run in runs.values() for name in run.options))
    rows = [[title(name), [_text(run.options.get(name)) for run in runs.values()]] for name in options]
    rows = [["Experiment", [run.experiment for run in runs.values()]], *rows]
    rows += [["Device", [_device(run) for run in runs.values()]], ["Time", [_time(run) for run in runs.values()]]]
    differing = [row for row in rows if len(set(row[1])) > 1]
    cells = {
        f"{name} {cell.upper()}".strip(): inner
        for name, run in runs.items()
        for cell, inner in (run.cells or {"": run}).items()
    }
    unfinished = [name for name, run in runs.items() if run.finished is None]
    return {
        "title": f"Comparison of {len(runs)} runs",
        "eyebrow": "jaxgen compare",
        "summary": "Their curves over one another, their figures and pictures side by side, and what differs in their "
        "settings.",
        "chips": [(name, "active" if name in unfinished else "good") for name in names],
        "notes": [],
        "names": names,
        "figures": [],
        "figure_rows": _figure_rows(runs),
        "curves": _curves(cells),
        "setting_rows": differing,
        "footer": ["Made by jaxgen. This file is complete: it loads nothing from the network and sends nothing."],
        "reload": None,
    }


def plotted(run: Run) -> set[str]:
    """Names of pictures that plot what the page's curves show, and so need not be on it."""
    names = {name for one in (run, *run.cells.values()) for line in one.metrics[-1:] for name in line}
    words = names | {name.partition("_")[0] for name in names}
    return words | {_plural(word) for word in words}


def _plural(word: str) -> str:
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"


def _title(run: Run) -> str:
    data = _DATA.get(run.data_name, run.data_name)
    return f"{_TITLES.get(run.experiment, title(run.experiment))} on {data}"


def _summary(run: Run) -> str:
    count = run.data.get("images")
    images = f"{count:,} images" if isinstance(count, int) else "images"
    size = run.data.get("size")
    if isinstance(size, list) and len(size) == 2:
        colour = "colour" if run.data.get("channels") == 3 else "gray"
        images += f" of {size[0]}×{size[1]} pixels in {colour}"
    epochs = run.epochs
    return (
        f"Trained for {epochs:,} {'epoch' if epochs == 1 else 'epochs'} on {images}, in {_time(run)} on {_device(run)}."
    )


def _chips(run: Run) -> list[str]:
    held_out = run.data.get("held_out")
    chips = [f"seed {run.options['seed']}"] if "seed" in run.options else []
    if isinstance(held_out, int) and held_out:
        chips.append(f"{held_out:,} held-out images")
    return chips


def _seconds(run: Run) -> float:
    lines = [line for one in (run.cells.values() or [run]) for line in one.metrics]
    return float(sum(line["seconds"] for line in lines if isinstance(line.get("seconds"), int | float)))


def _time(run: Run) -> str:
    seconds = _seconds(run)
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _device(run: Run) -> str:
    environment = run.environment or next((cell.environment for cell in run.cells.values()), {})
    devices = environment.get("devices") or ["unknown device"]
    name = "the CPU" if devices[0] == "cpu" else str(devices[0])
    return name if len(devices) == 1 else f"{name} ({len(devices)} devices)"


def _environment(run: Run) -> list[list[str]]:
    shown = {name: value for name, value in run.environment.items() if name not in ("command", "seed")}
    return [[name.replace("_", " "), _text(value)] for name, value in shown.items() if value is not None]


def _notes(run: Run) -> list[str]:
    notes = []
    for one in (run, *run.cells.values()):
        for event in one.events:
            when = f"Epoch {event['epoch']}"
            if event.get("event") == "not finite":
                done = "skipped" if event.get("then") == "skip" else "where the run stopped"
                notes.append(f"{when}, step {event.get('step')}: {event.get('tensor')} was not finite; {done}.")
            elif event.get("event") in ("note", "failure"):
                notes.append(f"{when}: {without_paths(str(event.get('text')))}")
    return notes


def _last_figures(run: Run) -> dict[str, Any]:
    """The figures of the end, or of the last epoch that has some; of cells, each under its name."""
    figures: dict[str, Any] = {}
    for _, found in run.figures():
        figures = found
    for name, cell in run.cells.items():
        figures |= {f"{name.upper()}_{key}": figure for key, figure in _last_figures(cell).items()}
    return figures


def _figure(name: str, figure: Mapping[str, Any]) -> dict[str, Any]:
    baselines, several = figure.get("baselines") or {}, figure.get("values") or []
    notes = [f"{figure['better']} is better"] if figure.get("better") else []
    if several:
        notes.append(f"mean and standard deviation of {len(several)} models")
    return {
        "title": title(name),
        "value": figure.get("value"),
        "baselines": [{"label": label, "value": value} for label, value in baselines.items()],
        "error": figure.get("standard_deviation" if several else "standard_error"),
        "unit": figure.get("unit") or "",
        "note": "; ".join(notes),
    }


def _figure_rows(runs: Mapping[str, Run]) -> list[list[Any]]:
    """A row for each figure: its title, a text for each run, and which of them is best."""
    every = [_last_figures(run) for run in runs.values()]
    rows: list[list[Any]] = []
    for name in dict.fromkeys(name for figures in every for name in figures):
        given = [figures.get(name, {}) for figures in every]
        values = [figure.get("value") for figure in given]
        known = [value for value in values if isinstance(value, int | float)]
        better = next((figure["better"] for figure in given if figure.get("better")), None)
        best = None
        if better and len(known) > 1:
            best = values.index(max(known) if better == "higher" else min(known))
        texts = [None if value is None else _number(value) for value in values]
        arrow = {"lower": " ↓", "higher": " ↑"}.get(better or "", "")
        rows.append([title(name) + arrow, texts, best])
    return rows


def _curves(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    """A chart for each group of metrics, and for each figure that was measured in several epochs.

    Several runs share a chart for each metric.
    """
    metrics = list(dict.fromkeys(name for run in runs.values() for line in run.metrics for name in line))
    metrics = [name for name in metrics if name not in ("epoch", "seconds")]
    groups: dict[str, list[str]] = {}
    for name in metrics:
        base, several, _ = name.partition("/")  # of several models, `loss/0` is that of the first
        alone = len(runs) == 1 and not several
        groups.setdefault(_group(name, metrics) if alone else base, []).append(name)
    charts = []
    for group, names in groups.items():
        series = [
            _series(_label(label, run, name, group), run, name)
            for name in names
            for label, run in runs.items()
            if any(name in line for line in run.metrics)
        ]
        series = [one for one in series if any(value is not None for value in one["y"])]
        if series:
            charts.append({"title": title(group), "series": series, "key": f"log {group}"})
    return charts + _figure_curves(runs)


def _group(name: str, others: Sequence[str]) -> str:
    """What a metric shares a chart with: `test_loss` with `loss`, `error_fake` with `error_real`."""
    words = name.split("_")
    if words[0] in _SETS and len(words) > 1:
        return "_".join(words[1:])
    alike = [other for other in others if other.split("_")[0] == words[0] and len(other.split("_")) == 2]
    return words[0] if len(words) == 2 and len(alike) > 1 else name


def _label(run_name: str, run: Run, name: str, group: str) -> str:
    """What tells a curve from the others of its chart."""
    _, several, index = name.partition("/")
    if several:
        return " ".join(filter(None, [run_name, run.model_name(index)]))
    if run_name:
        return run_name
    if name.startswith(f"{group}_"):
        return name[len(group) + 1 :].replace("_", " ")
    return name.replace("_", " ")


def _series(label: str, run: Run, name: str) -> Series:
    points = [(line["epoch"], line[name]) for line in run.metrics if isinstance(line.get(name), int | float | None)]
    return {"name": label, "x": [epoch for epoch, _ in points], "y": [_rounded(value) for _, value in points]}


def _figure_curves(runs: Mapping[str, Run]) -> list[dict[str, Any]]:
    charts: dict[str, dict[str, Any]] = {}
    for label, run in runs.items():
        history: dict[str, dict[int, Any]] = {}
        for epoch, figures in run.figures():
            for name, figure in figures.items():
                if isinstance(figure, Mapping):
                    history.setdefault(name, {})[run.epochs if epoch is None else epoch] = figure
        for name, by_epoch in history.items():
            if len(by_epoch) < 2:
                continue
            last = list(by_epoch.values())[-1]
            chart = charts.setdefault(
                name, {"title": title(name), "note": last.get("unit") or None, "series": [], "key": f"log {name}"}
            )
            y = [_rounded(figure.get("value")) for figure in by_epoch.values()]
            chart["series"].append({"name": label or "this model", "x": list(by_epoch), "y": y})
            chart["baselines"] = _figure(name, last)["baselines"]
    return list(charts.values())


def _rounded(value: Any) -> float | None:
    """Six digits, which is more than a chart shows."""
    return float(f"{value:.6g}") if isinstance(value, int | float) else None


def _number(value: float) -> str:
    return f"{value:.4g}"


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return without_paths(str(value))
