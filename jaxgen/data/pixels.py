"""Pictures to arrays: what every source does with an image before it becomes bytes on the device."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxgen.errors import InputError

if TYPE_CHECKING:  # Pillow is imported where a picture is handled, so that naming a data set costs nothing
    from PIL import Image


class Pixels(NamedTuple):
    """A data set on the host."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]
    white: int = 255  # the value that means full intensity


def fit(picture: "Image.Image", size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """An `L` or `RGB` picture as uint8 `[H, W, C]`, in the given size (height, width) and channels (1 or 3).

    Pillow's antialiased bilinear resize comes first and its gray after, which is torchvision's usual order; the other
    order differs by up to two levels.
    """
    from PIL import Image

    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    if channels is not None:
        picture = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def fit_all(images: np.ndarray, size: tuple[int, int] | None, channels: int | None) -> np.ndarray:
    """The same for a whole array, uint8 `[N, H, W, 1 or 3]`; one that fits already is returned as it is."""
    height, width, depth = images.shape[1:]
    target = (*(size or (height, width)), channels or depth)
    if target == (height, width, depth):
        return images
    fitted = np.empty((len(images), *target), np.uint8)
    for index, image in enumerate(images):
        fitted[index] = fit(from_array(image), size, channels)
    return fitted


def from_array(image: np.ndarray) -> "Image.Image":
    """A uint8 array `[H, W, 1, 3 or 4]` as a picture."""
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def stack(images: list[np.ndarray]) -> np.ndarray:
    """Images `[H, W, 1 or 3]` of one size as `[N, H, W, C]`; gray ones among coloured ones become coloured."""
    if not images:
        raise InputError("there are no images")
    sizes = sorted({f"{image.shape[0]}×{image.shape[1]}" for image in images})
    if len(sizes) > 1:
        raise InputError(
            f"the images are of different sizes, {sizes[0]} and {sizes[1]} for two: give one for all, "
            "size=(height, width)"
        )
    depth = max(image.shape[2] for image in images)
    return np.stack([np.broadcast_to(image, (*image.shape[:2], depth)) for image in images])


def flatten(picture: "Image.Image") -> "Image.Image":
    """The picture in mode `L` if it is gray and `RGB` if it is not, whatever its mode; transparency becomes white."""
    from PIL import Image

    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    gray = picture.mode in ("1", "L", "LA")
    if picture.has_transparency_data:
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture.convert("RGBA"))
    return picture.convert("L" if gray else "RGB")


def _from_16_bits(picture: "Image.Image") -> "Image.Image":
    """16-bit gray, 0..65535, as `L`. Pillow's own conversion would clip everything above 255 to white."""
    from PIL import Image

    deep = np.asarray(picture).astype(np.int64)
    shallow = (deep * 255 + 32767) // 65535
    if "transparency" in picture.info:
        shallow[deep == picture.info["transparency"]] = 255
    return Image.fromarray(shallow.astype(np.uint8))
