"""The host-side type of a data set, and the conversion of pictures to arrays that all sources share."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxgen import memory
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray

if TYPE_CHECKING:  # Pillow is imported inside functions: importing jaxgen.data stays cheap
    from PIL import Image

UInt8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Size = tuple[int, int]  # height, width

_SAME_ASPECT = 0.01  # relative change of the aspect ratio below which a resized picture does not count as distorted


class Images(NamedTuple):
    """One split of a data set, in host memory, or with its images on disk.

    Attributes:
        images: uint8 `[N, H, W, C]`, C-contiguous. Of those on disk, rows are read by indexing.
        labels: int32 `[N]`, indices into `classes`. All zero where the data set has no labels.
        white: the pixel value of full intensity: 255, or 16 for scikit-learn's digits at their own size.
        classes: the name of each class. Empty where the data set has no labels. Both splits have the same classes,
            also where one split has no image of some class.
    """

    images: UInt8Array | DiskArray
    labels: Int32Array
    white: int = 255
    classes: tuple[str, ...] = ()

    def preview(self, count: int) -> "Images":
        """The first `count` images, or a mixture of classes where the images are sorted by class.

        Image folders are sorted by class, so their first images would all show one class. From these, the classes
        take turns: the first image of each class, then the second of each, and so on. The choice is deterministic.

        Args:
            count: the number of images. Fewer are returned where the data set has fewer.
        """
        rows = np.arange(len(self.labels))
        if len(rows) and self.labels[0] != self.labels[-1] and (np.diff(self.labels) >= 0).all():
            turn = rows - np.searchsorted(self.labels, self.labels)  # the image's position within its class
            rows = np.lexsort((self.labels, turn))
        rows = rows[:count]
        return self._replace(images=self.images[rows], labels=self.labels[rows])

    def as_floats(self) -> NDArray[np.float32]:
        """The images in [0, 1], `[N, H, W, C]`, in memory."""
        return np.asarray(self.images, np.float32) / np.float32(self.white)

    def select(self, chosen: NDArray[Any]) -> "Images":
        """Some of the images. Those on disk stay there.

        Args:
            chosen: indices in ascending order, or one truth value an image.
        """
        images = self.images.rows(chosen) if isinstance(self.images, DiskArray) else self.images[chosen]
        return self._replace(images=images, labels=self.labels[chosen])


def full_range(images: Images) -> Images:
    """The images with white at 255: interpolation between pixels needs more than the 17 shades of the digits."""
    if images.white == 255:
        return images
    scaled = (np.asarray(images.images, np.uint32) * 255 + images.white // 2) // images.white
    return images._replace(images=scaled.astype(np.uint8), white=255)


class Target(NamedTuple):
    """What `load` was asked to make of each picture.

    Attributes:
        size: height and width to resize to; None leaves pictures as they are.
        channels: 1 for gray, 3 for RGB; None leaves pictures as they are.
        crop: resize the short side and crop the centre, instead of resizing both sides independently.
    """

    size: Size | None = None
    channels: int | None = None
    crop: bool = False

    def shape_of(self, images: "UInt8Array | DiskArray") -> tuple[int, ...]:
        """The shape `[H, W, C]` that images `[N, H, W, C]` get."""
        height, width, depth = images.shape[1:]
        return (*(self.size or (height, width)), self.channels or depth)

    def distorts(self, height: int, width: int) -> bool:
        """Whether resizing changes the aspect ratio of a picture of this size noticeably."""
        if self.size is None or self.crop:
            return False
        across, down = width * self.size[0], height * self.size[1]
        return abs(across - down) > _SAME_ASPECT * max(across, down)


def fit(picture: "Image.Image", target: Target) -> UInt8Array:
    """Convert a picture of mode `L` or `RGB` to uint8 `[H, W, C]`.

    Resizing uses Pillow's antialiased bilinear filter and precedes the conversion to gray, which is the usual order
    of torchvision's transforms; the other order differs by up to two levels.
    """
    from PIL import Image

    if target.size is not None and target.crop:
        picture = _resize_and_crop(picture, target.size)
    elif target.size is not None:
        picture = picture.resize(target.size[::-1], Image.Resampling.BILINEAR)
    if target.channels is not None:
        picture = picture.convert("L" if target.channels == 1 else "RGB")
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _resize_and_crop(picture: "Image.Image", size: Size) -> "Image.Image":
    """Resize to the smallest picture of the same aspect ratio that covers `size`, and crop its centre.

    For a square this is torchvision's `Resize(n)` and `CenterCrop(n)`, including how they round.
    """
    from PIL import Image

    height, width = size
    if width * picture.height >= height * picture.width:
        covering = (width, width * picture.height // picture.width)
    else:
        covering = (height * picture.width // picture.height, height)
    left, top = round((covering[0] - width) / 2), round((covering[1] - height) / 2)
    return picture.resize(covering, Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def check_memory(count: int, *shape: int) -> None:
    """Raise InputError where so many images `[H, W, C]` take more memory than there is."""
    needed, there = count * math.prod(shape), memory.available()
    if needed > there:
        raise InputError(
            f"{count:,} images of {'×'.join(map(str, shape))} take {memory.text(needed)}, but {memory.text(there)} of "
            "memory are free; choose a smaller size (--size) or fewer images"
        )


def fit_all(
    images: UInt8Array, target: Target, progress: Callable[[UInt8Array], Iterable[UInt8Array]] = iter
) -> UInt8Array:
    """Convert uint8 `[N, H, W, 1 or 3]` as `fit` does. Returns its argument where nothing is to be done."""
    shape = target.shape_of(images)
    if shape == images.shape[1:]:
        return images
    check_memory(len(images), *shape)
    fitted = np.empty((len(images), *shape), np.uint8)
    for index, image in enumerate(fit_each(progress(images), target)):
        fitted[index] = image
    return fitted


def fit_each(images: Iterable[UInt8Array], target: Target) -> Iterator[UInt8Array]:
    """Convert images `[H, W, 1 or 3]` as `fit` does, one after the other."""
    return (fit(from_array(image), target) for image in images)


def from_array(image: UInt8Array) -> "Image.Image":
    """Convert uint8 `[H, W, 1, 3 or 4]` to a picture."""
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def stack(images: list[UInt8Array]) -> UInt8Array:
    """Stack `[H, W, 1 or 3]` images of one size to `[N, H, W, C]`; if any image is RGB, gray ones become RGB too.

    Raises:
        InputError: there are no images, or their sizes differ.
    """
    if not images:
        raise InputError("there are no images")
    shapes = sorted({image.shape[:2] for image in images})
    if len(shapes) > 1:
        raise InputError(differing_sizes(*shapes[:2]))
    depth = max(image.shape[2] for image in images)
    return np.stack([np.broadcast_to(image, (*image.shape[:2], depth)) for image in images])


def differing_sizes(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    """What is wrong with two images of different shapes, and the remedy."""
    if one[:2] == other[:2]:
        return "some of the images are gray and some are colour: give channels=1 or channels=3 for all"
    sizes = " and ".join(sorted(f"{height}×{width}" for height, width, *_ in (one, other)))
    return f"the images have different sizes, for example {sizes}: give one size for all, size=(height, width)"


def flatten(picture: "Image.Image") -> "Image.Image":
    """Convert a picture of any mode to `L` if it is gray and to `RGB` otherwise, on a white background.

    Raises:
        ValueError: the pixels are floating-point numbers or integers of more than 16 bits, whose white is unknown.
    """
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers; convert it to 8 or 16 bits")
    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    gray = picture.mode in ("1", "L", "LA")
    if picture.has_transparency_data:
        background = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(background, picture.convert("RGBA"))
    return picture.convert("L" if gray else "RGB")


def _from_16_bits(picture: "Image.Image") -> "Image.Image":
    """Scale 16-bit gray, 0..65535, to `L`. Pillow's own conversion would clip everything above 255 to white."""
    from PIL import Image

    deep = np.asarray(picture).astype(np.int64)
    if deep.min() < 0 or deep.max() > 65535:
        raise ValueError(f"its pixels are {deep.min()} to {deep.max()}; convert it to 8 or 16 bits")
    shallow = (deep * 255 + 32767) // 65535
    if "transparency" in picture.info:
        shallow[deep == picture.info["transparency"]] = 255
    return Image.fromarray(shallow.astype(np.uint8))
