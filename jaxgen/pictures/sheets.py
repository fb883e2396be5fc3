"""Sheets to be read on their own: images enlarged by a whole factor, with a title, labels and a margin.

A sheet is a stack of bands, pictures of various widths, aligned at the left on a light background.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw

from jaxgen.pictures.images import Array, enlarged, to_levels
from jaxgen.pictures.text import BACKGROUND, draw_text, literal, shortened, text_band, text_width, wrapped

__all__ = ["beside", "captioned", "compared", "plane", "sheet", "strips"]

_LINE = "#e8590c"
_AXIS = "#666666"
_WIDTH, _HEIGHT = 1150, 800  # pixels that the enlarged images fill at most
_LEAST_WIDTH = 480  # of a sheet's content, so that there is room for the title of a small picture
_BESIDE_WIDTH = 1600  # of a row of pictures side by side; there are always two in a row
_FRAME_WIDTH = 320  # of a frame of an animation

_Levels = NDArray[np.uint8]  # [N, H, W] for gray images, else [N, H, W, 3]


def sheet(
    images: Array,
    columns: int,
    *,
    title: str = "",
    row_labels: Sequence[object] = (),
    column_labels: Sequence[object] = (),
    cut: int | None = None,
) -> Image.Image:
    """Arrange images in rows.

    Args:
        images: `[N, H, W, C]`, from 0 to 1, at least one.
        columns: images in a row.
        title: stands above all, in two lines at most.
        row_labels: a label for each row. They stand to the left of the rows, or above them if they are long.
        column_labels: a label for each column.
        cut: draw a line between this row of pixels of every image and the one above it, as where a completion begins.

    Raises:
        ValueError: there are no images, or not as many labels as rows or columns.
    """
    levels = _levels(images)
    columns = min(columns, len(levels))
    rows = [levels[first : first + columns] for first in range(0, len(levels), columns)]
    labels = _labels("rows", row_labels, len(rows)) or [""] * len(rows)
    return _arranged([list(zip(labels, rows, strict=True))], columns, title, column_labels, cut)


def compared(
    rows: Mapping[str, Array],
    columns: int,
    *,
    title: str = "",
    column_labels: Sequence[object] = (),
    cut: int | None = None,
) -> Image.Image:
    """Arrange sets of images one above the other, such as originals above their reconstructions.

    Where a set has more images than there are columns, the sets continue below, again one above the other.

    Args:
        rows: the images by label, each `[N, H, W, C]`, from 0 to 1, all of one shape.
        columns: images in a row.
        title: as for `sheet`.
        column_labels: as for `sheet`.
        cut: as for `sheet`.

    Raises:
        ValueError: as for `sheet`.
    """
    sets = {literal(label): _levels(images) for label, images in rows.items()}
    count = max(map(len, sets.values()))
    columns = min(columns, count)
    starts = range(0, count, columns)
    blocks = [[(label, levels[first : first + columns]) for label, levels in sets.items()] for first in starts]
    return _arranged(blocks, columns, title, column_labels, cut)


def plane(images: Array, columns: int, extent: float, *, title: str = "") -> Image.Image:
    """Draw images that were decoded from a regular grid of latent points, with the axes z₁ and z₂.

    Args:
        images: `[N, H, W, C]`, from 0 to 1, row by row from the top: the first image is at (−extent, extent).
        columns: images in a row. A single row has the axis z₁ only.
        extent: the latent coordinate of the centres of the outermost images.
        title: as for `sheet`.
    """
    levels = _levels(images)
    rows = -(-len(levels) // columns)
    factor = _factor(columns * levels.shape[2], rows * levels.shape[1])
    height, width = factor * levels.shape[1], factor * levels.shape[2]  # of an image
    right, bottom, size = columns * width, rows * height, _text_size(columns * width)
    steps = 6 if extent % 3 == 0 else 4
    ticks = [extent * (2 * step / steps - 1) for step in range(steps + 1)]
    beside = size + max(text_width(_number(tick), size) for tick in ticks)  # where ticks and their numbers stand
    left = beside + text_width("z₂", size) if rows > 1 else 0

    band = Image.new(_mode(levels), (left + right + size, bottom + round(2.9 * size)), BACKGROUND)
    for row in range(rows):
        band.paste(_row(levels[row * columns : (row + 1) * columns], factor, columns, 0), (left, row * height))
    draw = ImageDraw.Draw(band)
    for tick in ticks:
        x = left + width / 2 + (right - width) * (1 + tick / extent) / 2
        draw.line((x, bottom, x, bottom + size / 4), fill=_AXIS, width=2)
        draw_text(draw, (x, bottom + 1.3 * size), _number(tick), size, "m")
        if rows > 1:
            y = height / 2 + (bottom - height) * (1 - tick / extent) / 2
            draw.line((left - size / 4, y, left - 1, y), fill=_AXIS, width=2)
            draw_text(draw, (left - size / 2, y + size / 3), _number(tick), size, "r")
    draw_text(draw, (left + right / 2, bottom + 2.6 * size), "z₁", size, "m")
    if rows > 1:
        draw_text(draw, (0, bottom / 2 + size / 3), "z₂", size)
    return _page([band], title, size)


def strips(named: Mapping[str, Image.Image], title: str) -> Image.Image:
    """Draw pictures one above the other, each under its name, enlarged by the same whole factor.

    Args:
        named: the pictures by name, from top to bottom.
        title: as for `sheet`.
    """
    width = max(image.width for image in named.values())
    factor = _factor(width, sum(image.height for image in named.values()))
    size = _text_size(factor * width)
    return _page([_under(name, enlarged(image, factor), size) for name, image in named.items()], title, size)


def beside(named: Mapping[str, Image.Image], title: str) -> Image.Image:
    """Draw the pictures of several models side by side, each under its name, in rows of about 1600 pixels.

    Args:
        named: the pictures by name.
        title: as for `sheet`.
    """
    width = max(image.width for image in named.values())
    rows = math.ceil(len(named) / max(2, _BESIDE_WIDTH // width))
    columns = math.ceil(len(named) / rows)
    size = _text_size(columns * width)
    cells = [_under(name, image, size) for name, image in named.items()]
    bands = []
    for first in range(0, len(cells), columns):
        row = cells[first : first + columns]
        band = Image.new("RGB", (columns * (width + size) - size, max(cell.height for cell in row)), BACKGROUND)
        for column, cell in enumerate(row):
            band.paste(cell, (column * (width + size), 0))
        bands.append(band)
    return _page(bands, title, size)


def captioned(image: Image.Image, caption: str) -> Image.Image:
    """Draw a frame of an animation under its caption, enlarged by a whole factor to a width of about 320 pixels.

    Frames of one size stay of one size, whatever their captions.
    """
    image = enlarged(image, max(1, round(_FRAME_WIDTH / image.width)))
    size = max(16, image.width // 20)
    text = shortened(literal(caption), size, image.width)
    return _stacked([text_band(text, size, image.mode), image], size // 2, size)


def _levels(images: Array) -> _Levels:
    levels = to_levels(images)
    if not len(levels):
        raise ValueError("a sheet needs at least one image")
    return levels.squeeze(-1) if levels.shape[-1] == 1 else levels


def _labels(of: str, labels: Sequence[object], count: int) -> list[str]:
    if len(labels) not in (0, count):
        raise ValueError(f"{len(labels)} labels for {count} {of}")
    return [literal(str(label)) for label in labels]


def _mode(levels: _Levels) -> str:
    return "RGB" if levels.ndim == 4 else "L"


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _factor(width: int, height: int) -> int:
    """The whole factor that enlarges pictures of this size to one that is readable and fits on a screen."""
    return max(1, min(_WIDTH // width, _HEIGHT // height))


def _text_size(width: int) -> int:
    """The size of text that is readable when a picture of this width is reduced to the width of a phone."""
    return max(18, width // 34)


def _arranged(
    blocks: Sequence[Sequence[tuple[str, _Levels]]],
    columns: int,
    title: str,
    column_labels: Sequence[object],
    cut: int | None,
) -> Image.Image:
    """Rows of images, each with its label, in blocks that stand a little apart."""
    rows = [row for block in blocks for row in block]
    _, height, width = rows[0][1].shape[:3]
    factor = _factor(columns * width, len(rows) * height)
    gap = max(2, factor * min(height, width) // 16)
    total = columns * (factor * width + gap) - gap
    size = _text_size(total)
    widest = max(text_width(label, size) for label, _ in rows)
    are_above = widest > 0.16 * total
    left = 0 if are_above or not widest else widest + size // 2

    bands = []
    if names := _labels("columns", column_labels, columns):
        bands.append(_column_labels(names, factor * width, gap, left, size, _mode(rows[0][1])))
    for number, block in enumerate(blocks):
        if number and len(block) > 1:
            bands.append(Image.new("L", (1, gap), BACKGROUND))
        for label, levels in block:
            row = _row(levels, factor, columns, gap, cut)
            bands.append(_under(label, row, size) if are_above else _right_of(label, row, left, size))
    return _page(bands, title, size, gap)


def _row(levels: _Levels, factor: int, columns: int, gap: int, cut: int | None = None) -> Image.Image:
    """Enlarged images in a row that has room for `columns` of them."""
    if cut is not None and levels.ndim == 3:
        levels = levels[..., None].repeat(3, -1)
    _, height, width = levels.shape[:3]
    height, width = factor * height, factor * width
    total = columns * (width + gap) - gap
    canvas = np.array(Image.new(_mode(levels), (total, height), BACKGROUND))
    for column, image in enumerate(levels.repeat(factor, 1).repeat(factor, 2)):
        left = column * (width + gap)
        canvas[:, left : left + width] = image
    if cut is not None:  # between the pixels, so that it hides none
        line = np.full((max(2, total // 350), total, 3), ImageColor.getrgb(_LINE), np.uint8)
        canvas = np.concatenate([canvas[: cut * factor], line, canvas[cut * factor :]])
    return Image.fromarray(canvas)


def _column_labels(names: Sequence[str], width: int, gap: int, left: int, size: int, mode: str) -> Image.Image:
    """Labels above the middle of their columns: smaller if they are too wide, then shortened."""
    widest = max(text_width(name, size) for name in names)
    size = max(size * 3 // 5, min(size, size * width // max(1, widest)))
    band = Image.new(mode, (left + len(names) * (width + gap) - gap, round(1.3 * size)), BACKGROUND)
    for column, name in enumerate(names):
        middle = left + column * (width + gap) + width / 2
        draw_text(ImageDraw.Draw(band), (middle, size), shortened(name, size, width), size, "m")
    return band


def _right_of(label: str, row: Image.Image, left: int, size: int) -> Image.Image:
    band = Image.new(row.mode, (left + row.width, row.height), BACKGROUND)
    draw_text(ImageDraw.Draw(band), (left - size // 2, row.height / 2 + size / 3), label, size, "r")
    band.paste(row, (left, 0))
    return band


def _under(label: str, picture: Image.Image, size: int) -> Image.Image:
    text = text_band(shortened(literal(label), size, picture.width), size, picture.mode)
    return _stacked([text, picture], 2, 0)


def _page(bands: Sequence[Image.Image], title: str, size: int, gap: int | None = None) -> Image.Image:
    """Bands under a title, with a margin all round."""
    width = max(_LEAST_WIDTH, *(band.width for band in bands))
    lines = [text_band(line, size, "L") for line in wrapped(literal(title), size, width) if line]
    content = _stacked(bands, size // 2 if gap is None else gap, 0)
    return _stacked([_stacked([*lines, Image.new("L", (width, 1), BACKGROUND)], 0, 0), content], size // 3, size)


def _stacked(bands: Sequence[Image.Image], gap: int, margin: int) -> Image.Image:
    """Pictures one above the other, in colour where one of them is."""
    mode = "L" if all(band.mode == "L" for band in bands) else "RGB"
    width = max(band.width for band in bands) + 2 * margin
    height = sum(band.height for band in bands) + gap * (len(bands) - 1) + 2 * margin
    page, top = Image.new(mode, (width, height), BACKGROUND), margin
    for band in bands:
        page.paste(band, (margin, top))
        top += band.height + gap
    return page
