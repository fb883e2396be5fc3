"""The figures of models that are given images.

The data come first, so that what depends on them alone is computed once.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxgen.metrics import images as of_images
from jaxgen.metrics.figure import Figure, Figures
from jaxgen.metrics.latent import Decode, Encode, active_units, bounds, decoded, encoded, linear_probe
from jaxgen.metrics.neighbours import nearest
from jaxgen.metrics.pca import principal_components
from jaxgen.metrics.scaling import as_floats, in_memory, in_parts, labels_in_memory, some

_MOST_DECIBELS = 100.0  # that an image counts for which equals its reference
_PROBED = 10_000  # images that the linear probe learns from


Reconstruct = Callable[[Any], Any]  # images [N, H, W, C] in [0, 1] -> images of the same shape
Complete = Callable[[Any], Any]  # the same, of which the upper rows are given


def of_autoencoder(
    test: ArrayLike, train: ArrayLike, numbers: int, *, white: int = 255
) -> Callable[[Reconstruct], Figures]:
    """Measure reconstructions of test images, beside those of principal components with as many numbers.

    Args:
        test: Images to reconstruct, `[N, H, W, C]`, integers from 0 to `white` or floats in [0, 1].
        train: Images `[M, H, W, C]` whose principal components are taken.
        numbers: How many numbers the code of an image has.
        white: The integer that is 1.

    Returns:
        A function of `reconstruct: images [N, H, W, C] in [0, 1] -> images`, which gives `mse`, `psnr` and `ssim`.
    """
    images = as_floats(test, white)

    @cache
    def baseline() -> tuple[str, Figures]:
        pca = principal_components(train, numbers, white=white)
        return f"PCA with {len(pca.components)} numbers", _alike(pca.reconstruct(images), images)

    def measure(reconstruct: Reconstruct) -> Figures:
        label, of_pca = baseline()
        figures = _alike(np.asarray(reconstruct(images)), images)
        return {name: figure._replace(baselines={label: of_pca[name].value}) for name, figure in figures.items()}

    return measure


def _alike(images: NDArray[np.float32], references: NDArray[np.float32]) -> Figures:
    ratio = np.minimum(of_images.psnr(images, references), _MOST_DECIBELS)
    return {
        "mse": _mean(of_images.squared_error(images, references)),
        "psnr": _mean(ratio, unit="dB", better="higher"),
        "ssim": _ssim(images, references),
    }


def _ssim(images: NDArray[np.float32], references: NDArray[np.float32]) -> Figure:
    sigma = of_images.window_sigma(*images.shape[1:3])
    return _mean(of_images.ssim(images, references, sigma=sigma), better="higher")


def _mean(values: NDArray[np.float64], **said: Any) -> Figure:
    """The mean over images, with its standard error."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Figure(float(values.mean()), standard_error=error, **said)


def of_vae(
    test: ArrayLike,
    train: ArrayLike,
    *,
    test_labels: ArrayLike | None = None,
    train_labels: ArrayLike | None = None,
    conditional: bool = False,
    white: int = 255,
    seed: int = 0,
    importance_samples: int = 0,
) -> Callable[[Encode, Decode], Figures]:
    """Measure a variational autoencoder on test images.

    Args:
        test: Images `[N, H, W, C]`, integers from 0 to `white` or floats in [0, 1].
        train: Images that the linear probe and the principal components are learned from; at most 10,000 by the probe.
        test_labels: Integers `[N]`; without labels of two classes, there is no linear probe.
        train_labels: Integers, one for each image of `train`.
        conditional: Whether the model's functions take the labels as their second argument.
        white: The integer that is 1.
        seed: Of the codes that are drawn.
        importance_samples: K of the importance-weighted bound; 0 leaves it out.

    Returns:
        A function of `encode` and `decode`, as `bounds` takes them, which gives `elbo` and its terms `reconstruction`
        and `kl_divergence`, all in nats per image; `importance_weighted_bound`, beside the ELBO; `active_units`;
        `reconstruction_mse`, of decoded means; and `linear_probe`. The last two are beside principal components with as
        many numbers as the latent space has dimensions.
    """
    if train_labels is not None:
        train_labels = labels_in_memory(train_labels, train)
    images, train = as_floats(test, white), in_memory(train)
    probed = as_floats(some(train, _PROBED), white)
    probed_labels = None if train_labels is None else some(np.asarray(train_labels), _PROBED)
    test_labels = None if test_labels is None else np.asarray(test_labels)
    given, probe_given = (test_labels, probed_labels) if conditional else (None, None)

    def probe(codes: Callable[[], ArrayLike], test_codes: ArrayLike) -> float | None:
        """The accuracy of the linear probe; None where there are no classes."""
        if probed_labels is None or test_labels is None or len(np.unique(probed_labels)) < 2:
            return None
        return linear_probe(codes(), probed_labels, test_codes, test_labels)

    @cache
    def baseline(latent: int) -> tuple[str, float, float | None]:
        pca = principal_components(train, latent, white=white)
        error = of_images.squared_error(pca.reconstruct(images), images).mean()
        accuracy = probe(lambda: pca.encode(probed), pca.encode(images))
        return f"PCA with {latent} numbers", float(error), accuracy

    def measure(encode: Encode, decode: Decode) -> Figures:
        codes = encoded(encode, images, given)
        found = bounds(codes, decode, images, jax.random.key(seed), labels=given, importance_samples=importance_samples)
        means = codes.mean
        label, error_of_pca, accuracy_of_pca = baseline(means.shape[1])
        nats = "nats per image"
        elbo = _mean(found.elbo, unit=nats, better="higher")
        figures = {
            "elbo": elbo,
            "reconstruction": _mean(found.reconstruction, unit=nats),
            "kl_divergence": _mean(found.kl, unit=nats),
        }
        if found.importance_weighted is not None:
            bound = _mean(found.importance_weighted, unit=nats, better="higher")
            figures["importance_weighted_bound"] = bound._replace(baselines={"ELBO": elbo.value})
        figures["active_units"] = Figure(active_units(means), unit=f"of {means.shape[1]}", better="higher")
        error = _mean(of_images.squared_error(decoded(decode, means, given), images))
        figures["reconstruction_mse"] = error._replace(baselines={label: error_of_pca})
        accuracy = probe(lambda: encoded(encode, probed, probe_given).mean, means)
        if accuracy is not None and accuracy_of_pca is not None:
            figures["linear_probe"] = Figure(accuracy, {label: accuracy_of_pca}, better="higher")
        return figures

    return measure


def of_completion(test: ArrayLike, train: ArrayLike, length: int, *, white: int = 255) -> Callable[[Complete], Figures]:
    """Measure completions of test images from their upper rows, on the rows that are completed.

    Args:
        test: Images `[N, H, W, C]`, integers from 0 to `white` or floats in [0, 1].
        train: Images `[M, H, W, C]`, from which the baselines are made.
        length: How many rows from the top are given.
        white: The integer that is 1.

    Returns:
        A function of `complete: images [N, H, W, C] in [0, 1] -> images`, which gives `completion_mse` and
        `completion_ssim`, beside those of three simple completions: the last given row again and again, the mean of the
        training images, and the training image whose upper rows are nearest.
    """
    images, train = as_floats(test, white), in_memory(train)
    wanted = images[:, length:]

    @cache
    def baselines() -> dict[str, Figures]:
        total = sum(part[:, length:].sum(axis=0, dtype=np.float64) for part in in_parts(train, white))
        made = {
            "last row repeated": np.repeat(images[:, length - 1 : length], wanted.shape[1], axis=1),
            "mean image": np.broadcast_to(np.asarray(total / len(train), np.float32), wanted.shape),
            "nearest image": _nearest_by_upper_rows(images, train, length, white)[:, length:],
        }
        return {label: _of_completed(completed, wanted) for label, completed in made.items()}

    def measure(complete: Complete) -> Figures:
        figures = _of_completed(np.asarray(complete(images))[:, length:], wanted)
        return {
            name: figure._replace(baselines={label: found[name].value for label, found in baselines().items()})
            for name, figure in figures.items()
        }

    return measure


def _nearest_by_upper_rows(
    images: NDArray[np.float32], train: NDArray[Any], length: int, white: int
) -> NDArray[np.float32]:
    """For each image the training image whose first `length` rows are nearest."""
    given = images[:, :length].reshape(len(images), -1)
    found, least = np.zeros_like(images), np.full(len(images), np.inf)
    for part in in_parts(train, white):
        upper = part[:, :length].reshape(len(part), -1)
        rows = nearest(given, upper)
        error = np.square(given - upper[rows], dtype=np.float64).sum(axis=1)
        closer = error < least
        found[closer], least[closer] = part[rows[closer]], error[closer]
    return found


def _of_completed(completed: NDArray[np.float32], wanted: NDArray[np.float32]) -> Figures:
    error = _mean(of_images.squared_error(completed, wanted))
    return {"completion_mse": error, "completion_ssim": _ssim(completed, wanted)}
