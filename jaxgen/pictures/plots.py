"""Curves and scatter plots, by Matplotlib."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from jaxgen.pictures.images import Array
from jaxgen.pictures.matplotlib_setup import matplotlib_defaults
from jaxgen.pictures.text import BACKGROUND, families, literal, shortened

__all__ = ["curves", "scatter"]

_SIZE = 18  # of text, in pixels
_MARGIN = 16  # pixels
_MOST_IN_A_LEGEND = 20

_Floats = NDArray[np.floating[Any]]


def curves(
    history: Mapping[str, ArrayLike], names: Sequence[str], label: str, *, scale: str = "linear", title: str = ""
) -> Image.Image:
    """Plot metrics over the epochs, which count from 1.

    Args:
        history: the values of each metric, `[epochs]`, or `[models, epochs]` for several models, whose mean is drawn
            with a band of one standard deviation (of a sample, with n − 1). Values that are not finite leave a gap.
        names: the metrics to plot.
        label: the label of the vertical axis.
        scale: the scale of the vertical axis, "linear" or "log".
        title: stands above.
    """
    values = {literal(name.replace("_", " ")): np.asarray(history[name], float) for name in names}
    label, title = literal(label), literal(title)
    with matplotlib_defaults(families([*values, label, title])):
        figure = _new_figure(8, 5)
        axes = figure.subplots()
        for name, array in values.items():
            _draw_curve(axes, name, array)
        axes.set(xlabel="epoch", ylabel=_fitted(label, 400), yscale=scale)
        _count_epochs(axes, max((array.shape[-1] for array in values.values()), default=0))
        _set_title(figure, title)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
        return _render(figure)


def _draw_curve(axes: Any, name: str, values: _Floats) -> None:
    """A line; of several models, their mean and a band."""
    epochs = np.arange(1, values.shape[-1] + 1)
    marker = "o" if len(epochs) < 3 else ""
    if values.ndim == 1 or len(values) == 1:
        axes.plot(epochs, values.ravel(), marker=marker, linewidth=2, label=_fitted(name, 300))
        return
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    label = f"{_fitted(name, 300)}: mean ± s.d. of {len(values)}"
    (line,) = axes.plot(epochs, mean, marker=marker, linewidth=2, label=label)
    axes.fill_between(epochs, mean - deviation, mean + deviation, color=line.get_color(), alpha=0.25, linewidth=0)
    if marker:
        axes.errorbar(epochs, mean, deviation, color=line.get_color(), capsize=6)


def _count_epochs(axes: Any, epochs: int) -> None:
    """Whole numbers on the horizontal axis, also where there are one or two epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if epochs < 3:
        axes.set(xlim=(0.5, epochs + 0.5), xticks=range(1, epochs + 1))


def scatter(
    points: Array, labels: Array, *, names: Sequence[str] = (), extent: float | None = None, title: str = ""
) -> Image.Image:
    """Plot latent points, coloured by class.

    One dimension is plotted against the class, two as they are, and three from six sides. More than three are projected
    onto their first two principal components, and the title gives the share of the variance that these explain.

    Args:
        points: `[N, latent]`.
        labels: integers `[N]`.
        names: the name of each class; the labels themselves where there are none.
        extent: mark the square from −extent to extent in both dimensions, the one that a `plane` shows.
        title: stands above.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    title = literal(title)
    shown = {label: literal(names[label] if names else str(label)) for label in np.unique(labels).tolist()}
    with matplotlib_defaults(families([*shown.values(), title])):
        return (_scatter_3d if points.shape[1] == 3 else _scatter_2d)(points, labels, shown, extent, title)


def _scatter_2d(
    points: _Floats, labels: NDArray[Any], names: Mapping[int, str], extent: float | None, title: str
) -> Image.Image:
    figure = _new_figure(8.5, 7)
    axes = figure.subplots()
    latent, explained = points.shape[1], ""
    if latent == 1:
        points = np.concatenate([points, labels[:, None]], axis=1)
        axes.set(xlabel="z₁", ylabel="class")
    elif latent == 2:
        axes.set(xlabel="z₁", ylabel="z₂")
    else:
        points, share = _principal_components(points)
        explained = f"two principal components of {latent}: {share:.0%} of the variance"
        axes.set(xlabel="first component", ylabel="second component")
    dots = axes.scatter(points[:, 0], points[:, 1], c=labels, **_class_colours(labels))
    if latent > 1:
        axes.set_aspect("equal", "datalim")
    if latent == 2 and extent is not None:
        low, high = -extent, extent
        axes.plot([low, high, high, low, low], [low, low, high, high, low], color="0.3", linestyle="--", linewidth=1)
        axes.text(low, high, "latent grid", color="0.3", verticalalignment="bottom")
    axes.grid(alpha=0.3)
    _set_title(figure, title, explained)
    if latent == 1 and len(names) <= _MOST_IN_A_LEGEND:
        axes.set_yticks(list(names), [_fitted(name, 150) for name in names.values()])
    else:
        _add_legend(figure, dots, names)
    return _render(figure)


def _scatter_3d(
    points: _Floats, labels: NDArray[Any], names: Mapping[int, str], _: float | None, title: str
) -> Image.Image:
    figure = _new_figure(10.5, 7)
    _set_title(figure, title)
    for number, axes in enumerate(figure.subplots(2, 3, subplot_kw={"projection": "3d", "facecolor": BACKGROUND}).flat):
        dots = axes.scatter(*points.T, c=labels, **_class_colours(labels))
        axes.view_init(azim=60 * number)
        axes.set_title(f"{60 * number}°")
        axes.set(xlabel="z₁", ylabel="z₂", zlabel="z₃")
        axes.tick_params(labelsize=9, pad=-2)
        axes.set_box_aspect(None, zoom=0.9)  # room for the axes' names
    _add_legend(figure, dots, names)
    return _render(figure)


def _class_colours(labels: NDArray[Any]) -> dict[str, Any]:
    low, high = int(labels.min()), int(labels.max())
    colours = "tab10" if high - low < 10 else "tab20" if high - low < 20 else "viridis"
    return {"cmap": colours, "vmin": low - 0.5, "vmax": low + 9.5 if colours == "tab10" else high + 0.5, "s": 6}


def _add_legend(figure: Any, dots: Any, names: Mapping[int, str]) -> None:
    """The name of each colour, or a colour bar where there are too many."""
    from matplotlib.lines import Line2D

    if len(names) > _MOST_IN_A_LEGEND:
        figure.colorbar(dots, ax=figure.axes, label="class")
    elif len(names) > 1:
        marks = [
            Line2D([], [], color=dots.to_rgba(label), marker="o", linestyle="", label=_fitted(name, 150))
            for label, name in names.items()
        ]
        figure.legend(handles=marks, loc="outside right center")


def _principal_components(points: _Floats) -> tuple[_Floats, float]:
    """The first two principal components of the points, `[N, 2]`, and the share of the variance that they explain."""
    centred = points - points.mean(0)
    _, singular_values, directions = np.linalg.svd(centred, full_matrices=False)
    variances = singular_values**2
    total = variances.sum()
    return centred @ directions[:2].T, float(variances[:2].sum() / total) if total else 1.0


def _set_title(figure: Any, *lines: str) -> None:
    width = figure.bbox.width - 2 * _MARGIN
    text = "\n".join(_fitted(line, width) for line in lines if line)
    figure.suptitle(text, x=0.01, horizontalalignment="left", fontsize="medium")


def _fitted(text: str, width: float) -> str:
    """Text of at most `width` pixels for Matplotlib, which would read what stands between dollar signs as a formula."""
    return shortened(text, _SIZE, width).replace("$", r"\$")


def _new_figure(width: float, height: float) -> Any:
    """A Matplotlib figure, `width` by `height` inches, that is drawn in memory and unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    return figure


def _render(figure: Any) -> Image.Image:
    figure.canvas.draw()
    drawn = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    return ImageOps.expand(drawn, _MARGIN, BACKGROUND)
