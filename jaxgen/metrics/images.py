"""How alike two images are, each with its own reference: MSE, PSNR, SSIM."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.metrics.blocks import over_blocks

_TRUNCATE = 3.5  # standard deviations at which the window of SSIM ends, as in scikit-image


def squared_error(images: ArrayLike, references: ArrayLike) -> NDArray[np.float64]:
    """The mean squared error of each image.

    Args:
        images: `[N, H, W, C]`.
        references: Of the same shape.

    Returns:
        `[N]`, in squared units of the pixels.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("squared_error", images, references)
    with jax.enable_x64(True):
        return over_blocks(_squared_error, (np.asarray(images), np.asarray(references)))


def psnr(images: ArrayLike, references: ArrayLike, *, data_range: float = 1.0) -> NDArray[np.float64]:
    """The peak signal-to-noise ratio of each image, 10 log₁₀(range² / mean squared error).

    Args:
        images: `[N, H, W, C]`.
        references: Of the same shape.
        data_range: White minus black.

    Returns:
        `[N]`, in dB; infinite where an image equals its reference.

    Raises:
        ValueError: The shapes differ.
    """
    _check_shapes("psnr", images, references)
    with np.errstate(divide="ignore"):
        ratio: NDArray[np.float64] = 10 * np.log10(data_range**2 / squared_error(images, references))
    return ratio


def ssim(
    images: ArrayLike, references: ArrayLike, *, data_range: float = 1.0, sigma: float = 1.5
) -> NDArray[np.float64]:
    """The structural similarity of each image to its reference, averaged over its channels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, with its settings: a
    Gaussian window of σ = 1.5 and 11×11 pixels, K₁ = 0.01, K₂ = 0.03. Only windows inside the image count. Equals
    `skimage.metrics.structural_similarity(..., channel_axis=-1, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`. In float64.

    Args:
        images: `[N, H, W, C]`.
        references: Of the same shape.
        data_range: White minus black.
        sigma: Of the window, which has 2⌊3.5σ + ½⌋ + 1 pixels a side. `window_sigma` gives one for small images.

    Returns:
        `[N]`, 1 for equal images.

    Raises:
        ValueError: The shapes differ, or the window is larger than the images.
    """
    _check_shapes("ssim", images, references)
    window = _window(sigma)
    height, width = np.shape(images)[1:3]
    if min(height, width) < len(window):
        raise ValueError(f"ssim: images of {height}×{width} are smaller than the window of {len(window)}×{len(window)}")
    down, across = _valid_filter(window, height), _valid_filter(window, width)
    with jax.enable_x64(True):
        function = partial(_ssim, data_range=data_range)
        return over_blocks(function, (np.asarray(images), np.asarray(references)), down, across)


def window_sigma(height: int, width: int) -> float:
    """The σ of the window of SSIM for images of a size: 1.5, or less where a window of 11×11 pixels is too large."""
    return min(1.5, (min(height, width) - 1) // 2 / _TRUNCATE)


def _window(sigma: float) -> NDArray[np.float64]:
    reach = int(_TRUNCATE * sigma + 0.5)
    if reach == 0:
        return np.ones(1)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / sigma))
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def _valid_filter(window: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The matrix `[size − len(window) + 1, size]` that filters a vector wherever the window lies inside it."""
    places = size - len(window) + 1
    matrix = np.zeros((places, size))
    for place in range(places):
        matrix[place, place : place + len(window)] = window
    return matrix


@jax.jit
def _squared_error(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    image, reference = (each.astype(float) for each in pair)
    return jnp.mean(jnp.square(image - reference), axis=(1, 2, 3))


@partial(jax.jit, static_argnames="data_range")
def _ssim(pair: tuple[jax.Array, jax.Array], down: jax.Array, across: jax.Array, *, data_range: float) -> jax.Array:
    x, y = (each.astype(float) for each in pair)
    parts = jnp.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = jnp.einsum("ih,sbhwc,jw->sbijc", down, parts, across)
    variance_x, variance_y = square_x - mean_x**2, square_y - mean_y**2
    covariance = product - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    mean: jax.Array = similarity.mean(axis=(1, 2, 3))
    return mean


def _check_shapes(name: str, images: ArrayLike, references: ArrayLike) -> None:
    shapes = np.shape(images), np.shape(references)
    if shapes[0] != shapes[1] or len(shapes[0]) != 4:
        raise ValueError(f"{name}: takes images [N, H, W, C] and as many references, not {shapes[0]} and {shapes[1]}")
