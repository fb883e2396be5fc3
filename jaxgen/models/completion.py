"""Completing an image from its top half: an LSTM or a GRU that reads rows and predicts the next."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.layers import GRU, LSTM, Linear, initial
from jaxgen.losses import mean_squared_error
from jaxgen.parallel import mean_over_shards
from jaxgen.training import Metrics, PyTree, Recipe, Source, descend

CELLS: dict[str, type[LSTM] | type[GRU]] = {"lstm": LSTM, "gru": GRU}


class RowCompleter(nn.Module):
    """Rows `[B, T, width]` -> the row after them `[B, width]`, any T; no activation at the end."""

    cell: str = "lstm"  # or "gru"
    hidden: int = 256
    width: int = 56

    @property
    def input_shape(self) -> tuple[int, int]:
        return (1, self.width)

    @nn.compact
    def __call__(self, rows: jax.Array) -> jax.Array:
        outputs = CELLS[self.cell](self.hidden, name="rnn")(rows)  # [B, T, hidden]
        return Linear(self.width, name="fc")(outputs[:, -1])


class State(NamedTuple):
    variables: PyTree
    optimizer: optax.OptState


class Noise(NamedTuple):
    """Nothing here is random."""


def recipe(
    cell: str = "lstm", module: nn.Module | None = None, optimizer: optax.GradientTransformation | None = None
) -> Recipe:
    """Predict row j + T from rows j … j + T − 1, by the mean squared error.

    Batches are `(windows [B, T, width], targets [B, width])`, in [0, 1]. Metric: `loss`. The defaults are the recipe's
    network with this cell, "lstm" or "gru", and Adam at 1e-3.
    """
    module = module or RowCompleter(cell)
    optimizer = optimizer or optax.adam(1e-3)

    def init(key: jax.Array, weights: PyTree = None) -> State:
        variables = jax.tree.map(jnp.array, weights or initial(module, key))
        return State(variables, optimizer.init(variables["params"]))

    def update(state: State, batch: tuple[jax.Array, jax.Array], noise: Noise) -> tuple[State, Metrics]:
        windows, targets = batch

        def error(params: PyTree) -> jax.Array:
            return mean_squared_error(module.apply({"params": params}, windows), targets)

        loss, gradient = mean_over_shards(jax.value_and_grad(error)(state.variables["params"]))
        params, optimizer_state = descend(optimizer, gradient, state.optimizer, state.variables["params"])
        return State({"params": params}, optimizer_state), {"loss": (loss, jnp.ones_like(loss))}

    return Recipe(init, lambda key, batch_size: Noise(), update, lambda state: state.variables)


def windows(images: jax.Array, length: int, *, white: int = 255) -> Source:
    """Every run of `length` rows in the images and the row after it, as a source; a window is an index, never a copy.

    Args:
        images: integers 0..`white`, `[N, H, W, 1]`. Window w is of image w // (H − length), from row w % (H − length).
        length: rows in a window, less than H.
    """
    starts = images.shape[1] - length

    def batch(images: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        image, start = rows // starts, rows % starts
        cut = images[image[:, None], start[:, None] + jnp.arange(length + 1), :, 0]  # [B, length + 1, W]
        cut = cut.astype(jnp.float32) / white
        return cut[:, :-1], cut[:, -1]

    return Source(images, images.shape[0] * starts, batch)


@partial(jax.jit, static_argnums=(0, 3))
def complete(module: nn.Module, variables: PyTree, images: jax.Array, length: int) -> jax.Array:
    """Keep the first `length` rows of images `[N, H, W, 1]` and predict the others, one after the other.

    Each row is predicted from the `length` rows above it, from a zero state, so predictions feed on predictions; they
    are not clipped. One call of the device for all images and rows.
    """

    def predict(row: jax.Array, rows: jax.Array) -> jax.Array:
        window = jax.lax.dynamic_slice_in_dim(rows, row - length, length, axis=1)
        return rows.at[:, row].set(module.apply(variables, window))

    return jax.lax.fori_loop(length, images.shape[1], predict, images[..., 0])[..., None]
