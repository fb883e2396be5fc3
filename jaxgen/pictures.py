"""Pictures: arrays in, `PIL.Image` out. Values from 0 to 1 are black to white; values outside are clipped.

Plots are drawn by Matplotlib, under its own default settings whatever the user's environment, `matplotlibrc` or
`rcParams` say, and without a window system. It is imported when the first plot is drawn.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

__all__ = ["curves", "gif", "grid", "labelled", "over", "png", "scatter", "strips", "to_image"]

Array = jax.Array | np.ndarray


def to_image(values: Array) -> Image.Image:
    """Convert an array to an 8-bit picture.

    Args:
        values: `[H, W]`, `[H, W, 1]` (gray) or `[H, W, 3]` (RGB), from 0 to 1. NaN is drawn black.
    """
    values = np.nan_to_num(np.asarray(values, np.float32))
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(levels.squeeze(-1) if levels.shape[2:] == (1,) else levels)


def png(image: Image.Image) -> bytes:
    """Encode a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def gif(frames: Sequence[Image.Image], frames_a_second: int = 20, scale: int = 4) -> bytes:
    """Encode frames as an animated GIF file that repeats for ever.

    Args:
        frames: at least one picture; all of one size.
        frames_a_second: the speed.
        scale: each pixel is enlarged to `scale` by `scale` pixels.
    """
    first, *others = (
        frame.resize((frame.width * scale, frame.height * scale), Image.Resampling.NEAREST) for frame in frames
    )
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=1000 // frames_a_second, loop=0)
    return buffer.getvalue()


def grid(images: Array, columns: int, margin: int = 2) -> Image.Image:
    """Arrange images in rows. 256 images of 8×8 pixels in 16 columns make a picture of 160×160.

    Args:
        images: `[N, H, W, C]`, from 0 to 1.
        columns: images in a row. The last row is filled up with black.
        margin: width in pixels of the black margin to the right of each image and below it.
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height + margin, width + margin, channels), images.dtype)
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    return to_image(cells.reshape(rows * (height + margin), columns * (width + margin), channels))


def over(*rows: Array, margin: int = 2) -> Image.Image:
    """Arrange rows of images one above the other, such as originals above their reconstructions.

    Args:
        rows: each `[N, H, W, C]`, from 0 to 1, all of one shape.
        margin: as in `grid`.
    """
    return grid(np.concatenate([np.asarray(row) for row in rows]), columns=len(rows[0]), margin=margin)


def curves(
    history: Mapping[str, Sequence[float]], names: Sequence[str], label: str, *, scale: str = "linear"
) -> Image.Image:
    """Plot metrics over the epochs, which count from 1.

    Args:
        history: the values of each metric, one an epoch. Values that are not finite leave a gap.
        names: the metrics to plot.
        label: the label of the vertical axis.
        scale: the scale of the vertical axis, "linear" or "log".
    """
    with _matplotlib_defaults():
        from matplotlib.ticker import MaxNLocator

        figure = _new_figure(7, 4)
        axes = figure.subplots()
        for name in names:
            values = history[name]
            marker = "." if len(values) < 3 else ""
            axes.plot(range(1, len(values) + 1), values, label=_literal(name.replace("_", " ")), marker=marker)
        axes.set(xlabel="epoch", ylabel=_literal(label), yscale=scale)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
        return _render(figure)


def labelled(images: Array, labels: Array, title: str) -> Image.Image:
    """Draw images in a row, each under its label.

    Args:
        images: `[N, H, W, C]`, from 0 to 1.
        labels: `[N]`.
        title: stands above the row.
    """
    with _matplotlib_defaults():
        figure = _new_figure(1.1 * len(images), 1.7)
        figure.suptitle(_literal(title), fontsize=10)
        all_axes = figure.subplots(1, len(images), squeeze=False)[0]
        for axes, image, label in zip(all_axes, np.asarray(images), np.asarray(labels), strict=True):
            axes.imshow(to_image(image), cmap="gray", vmin=0, vmax=255)
            axes.set_title(_literal(str(label)), fontsize=10)
            axes.axis("off")
        return _render(figure)


def strips(named: Mapping[str, Image.Image], title: str) -> Image.Image:
    """Draw pictures one above the other, each with its name on the left.

    Args:
        named: the pictures by name, from top to bottom.
        title: stands above all.
    """
    with _matplotlib_defaults():
        figure = _new_figure(9, 1 + 0.9 * len(named))
        figure.suptitle(_literal(title))
        all_axes = figure.subplots(len(named), 1, squeeze=False)[:, 0]
        for axes, (name, picture) in zip(all_axes, named.items(), strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            axes.set_ylabel(_literal(name), rotation=0, ha="right", va="center")
            axes.set(xticks=[], yticks=[], frame_on=False)
        return _render(figure)


def scatter(points: Array, labels: Array) -> Image.Image:
    """Plot latent points, coloured by label.

    One dimension is plotted against the label, two as they are, and three from six sides. More than three are projected
    onto their first two principal components, and the title gives the share of the variance that these explain.

    Args:
        points: `[N, latent]`.
        labels: integers `[N]`.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    with _matplotlib_defaults():
        return _scatter_3d(points, labels) if points.shape[1] == 3 else _scatter_2d(points, labels)


def _scatter_2d(points: np.ndarray, labels: np.ndarray) -> Image.Image:
    figure = _new_figure(6.5, 5.5)
    axes = figure.subplots()
    latent = points.shape[1]
    if latent == 1:
        points = np.concatenate([points, labels[:, None]], axis=1)
        axes.set(xlabel="z", ylabel="label")
    elif latent == 2:
        axes.set(xlabel="z₁", ylabel="z₂")
    else:
        points, share = _principal_components(points)
        title = f"two principal components of {latent}: {share:.0%} of the variance"
        axes.set(xlabel="first component", ylabel="second component", title=title)
    if latent > 1:
        axes.set_aspect("equal", "datalim")
    dots = axes.scatter(points[:, 0], points[:, 1], c=labels, **_label_colours(labels))
    figure.colorbar(dots, ticks=np.unique(labels))
    return _render(figure)


def _scatter_3d(points: np.ndarray, labels: np.ndarray) -> Image.Image:
    figure = _new_figure(10, 6.5)
    for number, axes in enumerate(figure.subplots(2, 3, subplot_kw={"projection": "3d"}).flat):
        dots = axes.scatter(*points.T, c=labels, **_label_colours(labels))
        axes.view_init(azim=60 * number)
        axes.set_title(f"{60 * number}°", fontsize=9)
    figure.colorbar(dots, ax=figure.axes, ticks=np.unique(labels), shrink=0.6)
    return _render(figure)


def _label_colours(labels: np.ndarray) -> dict[str, Any]:
    low, high = int(labels.min()), int(labels.max())
    return {"cmap": "tab10" if high - low < 10 else "viridis", "vmin": low - 0.5, "vmax": high + 0.5, "s": 4}


def _principal_components(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The first two principal components of the points, `[N, 2]`, and the share of the variance that they explain."""
    centred = points - points.mean(0)
    _, singular_values, directions = np.linalg.svd(centred, full_matrices=False)
    variances = singular_values**2
    total = variances.sum()
    return centred @ directions[:2].T, float(variances[:2].sum() / total) if total else 1.0


def _literal(text: str) -> str:
    """Text for Matplotlib that it draws as it is: it would read what stands between two dollar signs as a formula."""
    return text.replace("$", r"\$")


@contextlib.contextmanager
def _matplotlib_defaults() -> Iterator[None]:
    """Matplotlib under its own default settings and silent; afterwards everything is as the user had it."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    # It would report on settings that are not used here, a cache folder that cannot be written and missing glyphs.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matplotlib = _import_matplotlib()
            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                yield
    finally:
        logger.setLevel(level)


def _import_matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError:
        raise
    except Exception:  # MPLBACKEND or a matplotlibrc has a value that Matplotlib cannot read
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        settings = {name: os.environ.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
        os.environ.update(MPLBACKEND="", MATPLOTLIBRC=os.devnull)
        try:
            return importlib.import_module("matplotlib")
        finally:
            for name, value in settings.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _new_figure(width: float, height: float) -> Any:
    """A Matplotlib figure, `width` by `height` inches, that is drawn in memory and unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _render(figure: Any) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
