"""A measured number with what it takes to read it, and a table of such numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

_SPELLED = {"frechet": "Fréchet", "elbo": "ELBO", "kl": "KL", "mse": "MSE", "psnr": "PSNR", "ssim": "SSIM"}
_ARROWS = {"lower": "↓", "higher": "↑"}


class Figure(NamedTuple):
    """A measured number.

    Attributes:
        value: The number.
        baselines: What the same measure gives for something else, by a label such as `real against held-out real`.
        standard_error: Of the value; None where it is not known.
        unit: Such as `dB` or `nats per image`; empty for a pure number.
        better: Whether a lower or a higher value is better.
    """

    value: float
    baselines: Mapping[str, float] = {}
    standard_error: float | None = None
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"


Figures = dict[str, Figure]  # by name, such as `frechet_distance`


def title(name: str) -> str:
    """The title of a figure for people: `frechet_distance` is `Fréchet distance`."""
    words = [_SPELLED.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def table(figures: Mapping[str, Figure | float], shown: Mapping[str, str] = {}) -> str:
    """A table with a row for each figure and columns for the model, the baselines and the unit.

    Args:
        figures: By name, such as `frechet_distance`; a plain number is a figure without baselines.
        shown: What stands in place of the value, for some of the names, such as the mean of several models.

    Returns:
        Lines of aligned text. An arrow after the title says whether a lower (↓) or a higher (↑) value is better.
    """
    rows = {name: figure if isinstance(figure, Figure) else Figure(float(figure)) for name, figure in figures.items()}
    labels = list(dict.fromkeys(label for figure in rows.values() for label in figure.baselines))
    cells = [["", "model", *labels, ""]]
    for name, figure in rows.items():
        arrow = f" {_ARROWS[figure.better]}" if isinstance(figures[name], Figure) else ""
        baselines = [f"{figure.baselines[label]:.4g}" if label in figure.baselines else "" for label in labels]
        cells.append([title(name) + arrow, shown.get(name) or _with_error(figure), *baselines, figure.unit])
    return aligned(cells, left=(0, len(labels) + 2))


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """Rows of cells as lines whose columns are as wide as their longest cell.

    Args:
        rows: The rows, all of one length.
        left: The columns that are aligned left; the others are aligned right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        (
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in lines)


def as_json(figures: Mapping[str, Figure | float]) -> dict[str, dict[str, Any]]:
    """Figures as `figures.json` has them: `{name: {"value": …, "baselines": …, …}}`."""
    rows = {name: figure if isinstance(figure, Figure) else Figure(float(figure)) for name, figure in figures.items()}
    return {name: figure._asdict() | {"baselines": dict(figure.baselines)} for name, figure in rows.items()}


def _with_error(figure: Figure) -> str:
    error = "" if figure.standard_error is None else f" ± {figure.standard_error:.2g}"
    return f"{figure.value:.4g}{error}"
