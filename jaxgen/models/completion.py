"""Completing an image from its top half: an LSTM or a GRU that reads rows of pixels and predicts the next row."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import ondisk, protocols, staging
from jaxgen.from_loss import Noise, State, recipe_from_loss
from jaxgen.layers import GRU, LSTM, Linear, check_input
from jaxgen.losses import mean_squared_error
from jaxgen.ondisk import DiskArray
from jaxgen.training import Metrics, PyTree, Recipe, Source

__all__ = ["Noise", "RowCompleter", "State", "complete", "recipe", "windows"]

CELLS: dict[str, type[LSTM] | type[GRU]] = {"lstm": LSTM, "gru": GRU}


class RowCompleter(nn.Module):
    """Rows `[B, T, width]` -> the row after them `[B, width]`, for any T; no activation at the end.

    Attributes:
        cell: "lstm" or "gru".
        hidden: Size of the state.
        width: Pixels in a row.
    """

    cell: str = "lstm"
    hidden: int = 256
    width: int = 56

    @property
    def input_shape(self) -> tuple[int, int]:
        return (1, self.width)

    @nn.compact
    def __call__(self, rows: jax.Array) -> jax.Array:
        check_input("RowCompleter", rows, (None, self.width))
        outputs = CELLS[self.cell](self.hidden, name="rnn")(rows)  # [B, T, hidden]
        return Linear(self.width, name="fc")(outputs[:, -1])


def recipe(
    cell: str = "lstm", module: nn.Module | None = None, optimizer: optax.GradientTransformation | None = None
) -> Recipe[State]:
    """Predict the next row of an image from the rows above it, by the mean squared error.

    Batches are `(windows [B, T, width], targets [B, width])`, in [0, 1]. Metric: `loss`.

    Args:
        cell: "lstm" or "gru".
        module: The network; `RowCompleter(cell)` by default.
        optimizer: Adam with learning rate 1e-3 by default.

    Returns:
        The recipe.

    Raises:
        InputError: The module lacks something.
    """
    module = module or RowCompleter(cell)
    protocols.check("module", module, protocols.Network)
    apply: Callable[..., Any] = module.apply

    def loss(
        variables: PyTree, batch: tuple[jax.Array, jax.Array], noise: Noise
    ) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
        windows, targets = batch
        error = mean_squared_error(apply(variables, windows), targets)
        return error, ({"loss": (error, jnp.ones_like(error))}, {})

    return recipe_from_loss(module, optimizer or optax.adam(1e-3), loss)


@dataclasses.dataclass(frozen=True)
class _Windows:
    """The batch function of `windows`; equal settings make equal functions."""

    length: int
    white: int

    def __call__(self, images: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        starts = images.shape[1] - self.length
        image, start = rows // starts, rows % starts
        cut = images[image[:, None], start[:, None] + jnp.arange(self.length + 1), :, 0]  # [B, length + 1, W]
        cut = cut.astype(jnp.float32) / self.white
        return cut[:, :-1], cut[:, -1]


def windows(images: jax.Array | np.ndarray | DiskArray, length: int, *, white: int = 255) -> Source:
    """Make a source of all windows of `length` consecutive rows, each with the row after it as its target.

    A window is an index, never a copy. Window w is of image w // (H − length), from row w % (H − length).

    Args:
        images: Integers 0..`white`, `[N, H, W, 1]`. An `np.memmap` is read from its file.
        length: Rows in a window, fewer than H.
        white: The integer that becomes 1.

    Returns:
        A source of N·(H − length) examples, `(windows [B, length, W], targets [B, W])` in [0, 1].
    """
    images, starts = ondisk.from_memmap(images), images.shape[1] - length
    return Source(images, images.shape[0] * starts, _Windows(length, white), partial(_piece, starts))


def _piece(starts: int, images: PyTree, rows: np.ndarray) -> tuple[PyTree, np.ndarray]:
    """The piece of windows: for each an image of its own, of which it begins in the same row."""
    image, start = np.divmod(rows, starts)
    images, places = staging.gather(images, image)
    return images, places * starts + start


@partial(jax.jit, static_argnums=(0, 3))
def complete(module: nn.Module, variables: PyTree, images: jax.Array | np.ndarray, length: int) -> jax.Array:
    """Keep the first `length` rows of images and predict the others, one after the other.

    Each row is predicted from the `length` rows above it, starting from a zero state, so later predictions depend on
    earlier ones. They are not clipped. All images and rows are one call of the device.

    Args:
        module: The network.
        variables: Its variables.
        images: `[N, H, W, 1]` in [0, 1].
        length: Rows to keep.

    Returns:
        `[N, H, W, 1]`.
    """

    def predict(row: jax.Array, rows: jax.Array) -> jax.Array:
        window = jax.lax.dynamic_slice_in_dim(rows, row - length, length, axis=1)
        return rows.at[:, row].set(module.apply(variables, window))

    rows: jax.Array = jax.lax.fori_loop(length, images.shape[1], predict, images[..., 0])
    return rows[..., None]
