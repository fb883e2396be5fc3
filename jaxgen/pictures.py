"""Pictures: arrays in, `PIL.Image` out. Values 0..1 are black to white; what lies outside is clipped.

Curves are drawn by Matplotlib, which is imported when the first is asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from PIL import Image

Array = jax.Array | np.ndarray


def to_image(values: Array) -> Image.Image:
    """`[H, W]` or `[H, W, 1 or 3]` in 0..1 as an 8-bit picture."""
    levels = np.round(np.clip(np.asarray(values, np.float32), 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(levels.squeeze(-1) if levels.shape[2:] == (1,) else levels)


def grid(images: Array, columns: int, margin: int = 2) -> Image.Image:
    """Images `[N, H, W, C]` in rows of `columns`, with a black margin of `margin` pixels right of and below each.

    16×16 images of 8×8 pixels with the default margin make a picture of 160×160.
    """
    images = np.asarray(images)
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, height + margin, width + margin, channels), images.dtype)
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    return to_image(cells.reshape(rows * (height + margin), columns * (width + margin), channels))


def curves(history: Mapping[str, Sequence[float]], names: Sequence[str], label: str) -> Image.Image:
    """The named metrics over the epochs, counted from 1, in one plot; `label` is for the vertical axis."""
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(7, 4)
    axes = figure.subplots()
    for name in names:
        values = history[name]
        axes.plot(
            range(1, len(values) + 1), values, label=name.replace("_", " "), marker="." if len(values) < 3 else ""
        )
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return rendered(figure)


def labelled(images: Array, labels: Array, title: str) -> Image.Image:
    """A row of images `[N, H, W, C]`, each under its label."""
    figure = blank_figure(1.1 * len(images), 1.7)
    figure.suptitle(title, fontsize=10)
    for axes, image, label in zip(figure.subplots(1, len(images)), np.asarray(images), np.asarray(labels), strict=True):
        axes.imshow(to_image(image), cmap="gray", vmin=0, vmax=255)
        axes.set_title(str(label), fontsize=10)
        axes.axis("off")
    return rendered(figure)


def blank_figure(width: float, height: float) -> Any:
    """A Matplotlib figure, `width` by `height` inches, that no window system or global state knows of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def rendered(figure: Any) -> Image.Image:
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
