"""Arrays to pictures, pixel by pixel, and pictures to files."""

import io
from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Array", "enlarged", "gif", "grid", "over", "png", "to_image", "to_levels"]

Array = jax.Array | np.ndarray

_GIF_WIDTH = 320  # pixels; narrower frames are enlarged


def to_levels(values: Array) -> NDArray[np.uint8]:
    """Values from 0 to 1 as 8-bit levels, of the same shape. NaN is black."""
    values = np.nan_to_num(np.asarray(values, np.float32))
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def to_image(values: Array) -> Image.Image:
    """Convert an array to an 8-bit picture.

    Args:
        values: `[H, W]`, `[H, W, 1]` (gray) or `[H, W, 3]` (RGB), from 0 to 1. NaN is drawn black.
    """
    levels = to_levels(values)
    return Image.fromarray(levels.squeeze(-1) if levels.shape[2:] == (1,) else levels)


def enlarged(image: Image.Image, factor: int) -> Image.Image:
    """Enlarge each pixel to `factor` by `factor` pixels."""
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """Encode a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def gif(frames: Sequence[Image.Image], frames_a_second: int = 20, scale: int | None = None) -> bytes:
    """Encode frames as an animated GIF file that repeats for ever.

    Args:
        frames: at least one picture; all of one size.
        frames_a_second: the speed.
        scale: each pixel is enlarged to `scale` by `scale` pixels. None chooses the smallest whole factor that makes
            the animation at least 320 pixels wide.
    """
    scale = scale or -(-_GIF_WIDTH // frames[0].width)
    first, *others = (enlarged(frame, scale) for frame in frames)
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
