"""One-layer recurrences with PyTorch's arithmetic (`torch.nn.LSTM`, `torch.nn.GRU`, `batch_first=True`)."""

import jax
import jax.numpy as jnp
from jax import lax


def lstm(x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array) -> jax.Array:
    """Hidden states [B, T, H] of an LSTM over x [B, T, I] that starts from zeros.

    weight_ih [I, 4H], weight_hh [H, 4H], bias_ih [4H], bias_hh [4H]; gates in the order i, f, g, o.
    """
    inputs = jnp.swapaxes(x, 0, 1) @ weight_ih + (bias_ih + bias_hh)

    def step(state, step_inputs):
        hidden, cell = state
        i, f, g, o = jnp.split(step_inputs + hidden @ weight_hh, 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zeros = jnp.zeros((x.shape[0], weight_hh.shape[0]), inputs.dtype)
    _, outputs = lax.scan(step, (zeros, zeros), inputs)
    return jnp.swapaxes(outputs, 0, 1)


def gru(x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array) -> jax.Array:
    """Hidden states [B, T, H] of a GRU over x [B, T, I] that starts from zeros.

    weight_ih [I, 3H], weight_hh [H, 3H], bias_ih [3H], bias_hh [3H]; gates in the order r, z, n.
    """
    inputs = jnp.swapaxes(x, 0, 1) @ weight_ih + bias_ih

    def step(hidden, step_inputs):
        input_r, input_z, input_n = jnp.split(step_inputs, 3, axis=-1)
        hidden_r, hidden_z, hidden_n = jnp.split(hidden @ weight_hh + bias_hh, 3, axis=-1)
        r, z = jax.nn.sigmoid(input_r + hidden_r), jax.nn.sigmoid(input_z + hidden_z)
        n = jnp.tanh(input_n + r * hidden_n)
        hidden = (1 - z) * n + z * hidden
        return hidden, hidden

    zeros = jnp.zeros((x.shape[0], weight_hh.shape[0]), inputs.dtype)
    _, outputs = lax.scan(step, zeros, inputs)
    return jnp.swapaxes(outputs, 0, 1)
