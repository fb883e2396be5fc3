"""Pictures: arrays in, `PIL.Image` out. Values 0..1 are black to white; what lies outside is clipped.

Curves are drawn by Matplotlib, which is imported when the first is asked for.
"""

import io
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


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def gif(frames: Sequence[Image.Image], frames_a_second: int = 20, scale: int = 4) -> bytes:
    """The frames as an animated GIF that repeats, each pixel enlarged to `scale` by `scale`."""
    first, *others = (
        frame.resize((frame.width * scale, frame.height * scale), Image.Resampling.NEAREST) for frame in frames
    )
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=1000 // frames_a_second, loop=0)
    return buffer.getvalue()


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


def curves(
    history: Mapping[str, Sequence[float]], names: Sequence[str], label: str, *, scale: str = "linear"
) -> Image.Image:
    """The named metrics over the epochs, counted from 1, in one plot; `label` is for the vertical axis.

    Errors that fall by orders of magnitude are told apart on a `scale` that is "log".
    """
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(7, 4)
    axes = figure.subplots()
    for name in names:
        values = history[name]
        axes.plot(
            range(1, len(values) + 1), values, label=name.replace("_", " "), marker="." if len(values) < 3 else ""
        )
    axes.set(xlabel="epoch", ylabel=label, yscale=scale)
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


def over(*rows: Array, margin: int = 2) -> Image.Image:
    """Rows of images `[N, H, W, C]`, one row under the other: originals over their reconstructions."""
    return grid(np.concatenate([np.asarray(row) for row in rows]), columns=len(rows[0]), margin=margin)


def strips(named: Mapping[str, Image.Image], title: str) -> Image.Image:
    """Pictures under each other, each with its name before it."""
    figure = blank_figure(9, 1 + 0.9 * len(named))
    figure.suptitle(title)
    for axes, (name, picture) in zip(figure.subplots(len(named), 1), named.items(), strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[], frame_on=False)
    return rendered(figure)


def scatter(points: Array, labels: Array) -> Image.Image:
    """Latent points `[N, latent]`, coloured by label: one dimension beside the label, two alone, three from six sides.

    More are projected onto the plane in which they vary most (principal components), and the title says how much of
    the variance that shows.
    """
    points, labels = np.asarray(points), np.asarray(labels)
    if points.shape[1] == 3:
        return scatter_from_six_sides(points, labels)
    title, across, up = "", "z₁", "z₂"
    if points.shape[1] == 1:
        points, across, up = np.concatenate([points, labels[:, None]], axis=1), "z", "label"
    elif points.shape[1] > 3:
        points, share = principal_plane(points)
        across, up = "first component", "second component"
        title = f"two principal components of {points.shape[1]}: {share:.0%} of the variance"
    figure = blank_figure(6.5, 5.5)
    axes = figure.subplots()
    axes.set(title=title, xlabel=across, ylabel=up)
    if up != "label":
        axes.set_aspect("equal", "datalim")
    dots = axes.scatter(points[:, 0], points[:, 1], c=labels, **by_class(labels))
    figure.colorbar(dots, ticks=np.unique(labels))
    return rendered(figure)


def scatter_from_six_sides(points: np.ndarray, labels: np.ndarray) -> Image.Image:
    figure = blank_figure(10, 6.5)
    for number, axes in enumerate(figure.subplots(2, 3, subplot_kw={"projection": "3d"}).flat):
        dots = axes.scatter(*points.T, c=labels, **by_class(labels))
        axes.view_init(azim=60 * number)
        axes.set_title(f"{60 * number}°", fontsize=9)
    figure.colorbar(dots, ax=figure.axes, ticks=np.unique(labels), shrink=0.6)
    return rendered(figure)


def by_class(labels: np.ndarray) -> dict[str, Any]:
    low, high = int(labels.min()), int(labels.max())
    return {"cmap": "tab10" if high - low < 10 else "viridis", "vmin": low - 0.5, "vmax": high + 0.5, "s": 4}


def principal_plane(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The points in the plane in which they vary most, `[N, 2]`, and the share of the variance that lies in it."""
    centred = points - points.mean(0)
    _, spread, directions = np.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, float((spread[:2] ** 2).sum() / (spread**2).sum())
