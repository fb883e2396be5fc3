"""Figures of the trained model: `figures.json` beside the pictures of an epoch, and the results of the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.durable import write_json
from jaxgen.metrics.figure import Figure, table, title
from jaxgen.runs.models import Spread, spread

FILE = "figures.json"
_WIDTH = 80


class Results:
    """What was measured at the moment, and at the end of the run.

    Attributes:
        at_end: the figures of the end by name; of several models, their mean, and `NAME/0`, `NAME/1`, … of each.
    """

    def __init__(self) -> None:
        self.at_end: dict[str, float] = {}
        self._pending: dict[str, list[Any]] = {}
        self._written: dict[Path, dict[str, Any]] = {}

    def add(self, figures: Mapping[str, Any]) -> None:
        """Add figures of one model; those of the first model come first."""
        for name, figure in figures.items():
            self._pending.setdefault(name, []).append(figure)

    def write(self, folders: Sequence[Path], *, at_end: bool, seconds: float) -> str:
        """Write what was added since the last call into `figures.json` of these folders.

        Args:
            folders: the folders.
            at_end: whether they are figures of the end.
            seconds: how long it took to measure them.

        Returns:
            The figures as text: at the end a table with what each is compared with, otherwise a line of the first few;
            empty where there are none.
        """
        pending, self._pending = self._pending, {}
        if not pending:
            return ""
        for folder in folders:
            content = self._written.setdefault(folder, {})
            content |= {name: _as_json(figures) for name, figures in pending.items()}
            write_json(folder / FILE, content)
        if at_end:
            for name, figures in pending.items():
                values = list(map(_value, figures))
                self.at_end[name] = spread(values).mean
                if len(values) > 1:
                    self.at_end |= {f"{name}/{index}": value for index, value in enumerate(values)}
        took = f"measured in {seconds:.1f} s" if seconds >= 0.05 else ""
        if at_end and any(isinstance(figures[0], Figure) for figures in pending.values()):
            shown = {name: f"{_shown(figures):.4g}" for name, figures in pending.items() if len(figures) > 1}
            rows = table({name: figures[0] for name, figures in pending.items()}, shown)
            return f"{rows}\n{took}".rstrip()
        return _line([f"{title(name)} {_shown(figures):.4g}" for name, figures in pending.items()], took)


def _line(parts: list[str], took: str) -> str:
    """The first parts, and how long they took, as far as they fit a line."""
    ending = [took] if took else []
    while len(parts) > 1 and len("  ".join([*parts, *ending])) > _WIDTH:
        parts = parts[:-1]
    return "  ".join([*parts, *ending])


def _value(figure: Any) -> float:
    """The number of a figure, which is a number or has a `value`."""
    return float(getattr(figure, "value", figure))


def _shown(figures: Sequence[Any]) -> float | Spread:
    return _value(figures[0]) if len(figures) == 1 else spread(map(_value, figures))


def _as_json(figures: Sequence[Any]) -> dict[str, Any]:
    """A figure with what it says beside its value; of several models, their mean and the value of each."""
    values = list(map(_value, figures))
    said = dict(figures[0]._asdict()) if hasattr(figures[0], "_asdict") else {}
    said["value"] = spread(values).mean
    if len(values) > 1:
        said |= {"standard_deviation": spread(values).deviation, "values": values}
    return said
