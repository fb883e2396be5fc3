"""The completion of images row by row, in NumPy, as the page does it."""

from collections.abc import Sequence

import numpy as np

__all__ = ["complete"]


def complete(cell: str, weights: Sequence[np.ndarray], images: np.ndarray, length: int) -> np.ndarray:
    """Keep the first `length` rows of images and predict the others, as `jaxgen.models.completion.complete` does.

    Each row is predicted from the `length` rows above it, from a zero state. A row belongs to up to `length` of these
    windows; as soon as it is known, all of them read it at once, as one matrix product.

    Args:
        cell: "lstm" or "gru".
        weights: Of the inputs `[gates·H, W]` and of the state `[gates·H, H]`, both biases, weight `[W, H]` and bias of
            the last layer.
        images: `[N, rows, W]`.
        length: Rows to keep.

    Returns:
        `[N, rows, W]`.
    """
    of_input, of_state, input_bias, state_bias, last, last_bias = weights
    rows = images.copy()
    count, height, _ = rows.shape
    windows, hidden = height - length, of_state.shape[1]
    h = np.zeros((count, windows, hidden), np.float32)
    c = np.zeros_like(h)
    for row in range(height - 1):
        first, stop = max(0, row - length + 1), min(windows, row + 1)  # the windows that this row belongs to
        a = (rows[:, row] @ of_input.T + input_bias)[:, None]
        b = h[:, first:stop] @ of_state.T + state_bias
        h[:, first:stop], c[:, first:stop] = _step(cell, a, b, h[:, first:stop], c[:, first:stop])
        if row >= length - 1:
            rows[:, row + 1] = h[:, row - length + 1] @ last.T + last_bias
    return rows


def _step(cell: str, a: np.ndarray, b: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The next state, from what the input and the state contribute to the gates."""
    if cell == "gru":
        (a_r, a_z, a_n), (b_r, b_z, b_n) = np.split(a, 3, -1), np.split(b, 3, -1)
        z = _sigmoid(a_z + b_z)
        return (1 - z) * np.tanh(a_n + _sigmoid(a_r + b_r) * b_n) + z * h, c
    i, f, g, o = np.split(a + b, 4, -1)
    c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(c), c


def _sigmoid(x: np.ndarray) -> np.ndarray:
    y: np.ndarray = 1 / (1 + np.exp(-x))
    return y
