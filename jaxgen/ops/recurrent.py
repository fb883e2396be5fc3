"""LSTM and GRU over whole sequences: one layer, one direction, zero initial state; PyTorch's arithmetic.

Both gradients are written by hand. What makes them fast on the CPU, where the steps are small:

- the gradient of the recurrent weight is one matrix product over all steps. Autodiff adds it up step by step, and so
  reads and writes the whole matrix T times;
- whatever does not wait for the step before is computed for all steps at once: the products with the inputs, the
  derivatives of the gates. A loop is left with one product and a few multiplications a step, and the first step, which
  has no state before it, with no product;
- these write straight into buffers that hold all steps, which makes a step of about eight kernels. XLA runs a loop body
  that short in order; of a longer one it hands kernels of a few microseconds from thread to thread, at a higher price
  than their own;
- sigmoid(a) = ½ + ½ tanh(a/2), so that one tanh serves several gates. The buffers keep the tanh.

Inside, time is the first axis, so that a step is contiguous, and the gates have an axis of their own: [T, B, gates, H].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Arrays = tuple[jax.Array, ...]
Step = int | jax.Array


def lstm(x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array) -> jax.Array:
    """The hidden states of an LSTM that starts from zeros, after every step.

    With a = x W + bias_ih + h U + bias_hh, cut into four gates:

        i, f, o = σ(aᵢ), σ(a_f), σ(aₒ)    g = tanh(a_g)    c ← f c + i g    h ← o tanh(c)

    Args, all of one floating dtype:
        x: [B, T, I], T ≥ 1.
        weight_ih, weight_hh: W [I, 4H] and U [H, 4H], the gates side by side in the order i, f, g, o.
        bias_ih, bias_hh: [4H] each.

    Returns:
        [B, T, H], as `torch.nn.LSTM(I, H, batch_first=True)(x)[0]` with both weights transposed.

    It has derivatives of reverse mode only, of any order.
    """
    outputs = _lstm(jnp.swapaxes(x, 0, 1), weight_ih, weight_hh, bias_ih + bias_hh)
    return jnp.swapaxes(outputs, 0, 1)


def gru(x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array) -> jax.Array:
    """The hidden states of a GRU that starts from zeros, after every step.

    With a = x W + bias_ih and b = h U + bias_hh, each cut into three gates:

        r, z = σ(a_r + b_r), σ(a_z + b_z)    n = tanh(a_n + r b_n)    h ← (1 − z) n + z h

    Args, all of one floating dtype:
        x: [B, T, I], T ≥ 1.
        weight_ih, weight_hh: W [I, 3H] and U [H, 3H], the gates side by side in the order r, z, n.
        bias_ih, bias_hh: [3H] each.

    Returns:
        [B, T, H], as `torch.nn.GRU(I, H, batch_first=True)(x)[0]` with both weights transposed.

    It has derivatives of reverse mode only, of any order.
    """
    outputs = _gru(jnp.swapaxes(x, 0, 1), weight_ih, weight_hh, bias_ih, bias_hh)
    return jnp.swapaxes(outputs, 0, 1)


@jax.custom_vjp
def _lstm(x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias: jax.Array) -> jax.Array:
    """x [T, B, I] -> h [T, B, H], with the sum of both biases."""
    return _lstm_forward(x, weight_ih, weight_hh, bias)[0]


def _lstm_forward(
    x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias: jax.Array
) -> tuple[jax.Array, Arrays]:
    steps, batch, hidden = *x.shape[:2], len(weight_hh)
    inputs = (_rows(x) @ weight_ih + bias).reshape(steps, batch, 4, hidden)
    scale = np.array([0.5, 0.5, 1, 0.5], inputs.dtype)[:, None]  # σ, σ, tanh, σ

    def cell(t: Step, a: jax.Array, c: jax.Array, buffers: Arrays) -> Arrays:
        gates, cs, hs = buffers
        gates = _write(gates, jnp.tanh(scale * a), t)
        i, f, g, o = _lstm_gates(_read(gates, t))
        cs = _write(cs, f * c + i * g, t)
        return gates, cs, _write(hs, o * jnp.tanh(_read(cs, t)), t)

    def step(t: Step, buffers: Arrays) -> Arrays:
        _, cs, hs = buffers
        recurrent = _read(hs, t - 1) @ weight_hh
        return cell(t, _read(inputs, t) + recurrent.reshape(batch, 4, hidden), _read(cs, t - 1), buffers)

    zeros = jnp.zeros((steps, batch, hidden), inputs.dtype)
    first = cell(0, inputs[0], zeros[0], (jnp.zeros_like(inputs), zeros, zeros))
    gates, cs, hs = lax.fori_loop(1, steps, step, first)
    return hs, (x, weight_ih, weight_hh, gates, cs, hs)


def _lstm_backward(kept: Arrays, d_outputs: jax.Array) -> Arrays:
    """From the last step to the first, where d_ stands for the gradient with respect to:

    d_h = d_outputs + d_a[t + 1] Uᵀ
    d_c = d_c[t + 1] f[t + 1] + d_h o (1 − tanh² c)
    d_a = d_c g i (1 − i), d_c c[t − 1] f (1 − f), d_c i (1 − g²), d_h tanh(c) o (1 − o)
    """
    x, weight_ih, weight_hh, gates, cs, hs = kept
    last = len(x) - 1
    transposed = weight_hh.T  # made once, outside the loop
    i, f, g, o = _lstm_gates(gates)
    tanh_c = jnp.tanh(cs)
    c_to_ifg = jnp.stack([g * i * (1 - i), _before(cs) * f * (1 - f), i * (1 - g * g)], 2)
    h_to_o = tanh_c * o * (1 - o)
    h_to_c = o * (1 - tanh_c * tanh_c)
    c_to_c = jnp.concatenate([f[1:], jnp.zeros_like(f[:1])])

    def cell(t: Step, d_h: jax.Array, d_c: jax.Array, d_a: jax.Array) -> Arrays:
        d_c = d_c * _read(c_to_c, t) + d_h * _read(h_to_c, t)
        d_a = _write(d_a, d_c[:, None] * _read(c_to_ifg, t), t)
        return d_c, _write(d_a, (d_h * _read(h_to_o, t))[:, None], t, gate=3)

    def step(n: Step, carry: Arrays) -> Arrays:
        t = last - n
        d_c, d_a = carry
        d_h = _read(d_outputs, t) + _read(d_a, t + 1).reshape(d_c.shape[0], -1) @ transposed
        return cell(t, d_h, d_c, d_a)

    first = cell(last, d_outputs[last], jnp.zeros_like(cs[0]), jnp.zeros_like(gates))
    d_a = _rows(lax.fori_loop(1, len(x), step, first)[1])
    d_x = (d_a @ weight_ih.T).reshape(x.shape)
    return d_x, _rows(x).T @ d_a, _rows(_before(hs)).T @ d_a, d_a.sum(0)


_lstm.defvjp(_lstm_forward, _lstm_backward)


def _lstm_gates(tanhs: jax.Array) -> Arrays:
    i, f, g, o = jnp.moveaxis(tanhs, -2, 0)
    return _sigmoid(i), _sigmoid(f), g, _sigmoid(o)


@jax.custom_vjp
def _gru(x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array) -> jax.Array:
    """x [T, B, I] -> h [T, B, H]."""
    return _gru_forward(x, weight_ih, weight_hh, bias_ih, bias_hh)[0]


def _gru_forward(
    x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array
) -> tuple[jax.Array, Arrays]:
    steps, batch, hidden = *x.shape[:2], len(weight_hh)
    inputs = (_rows(x) @ weight_ih + bias_ih).reshape(steps, batch, 3, hidden)

    def cell(t: Step, b: jax.Array, h: jax.Array, buffers: Arrays) -> Arrays:
        gates, ns, b_ns, hs = buffers
        a = _read(inputs, t)
        gates = _write(gates, jnp.tanh((a[:, :2] + b[:, :2]) / 2), t)
        r, z = _gru_gates(_read(gates, t))
        b_ns = _write(b_ns, b[:, 2], t)
        ns = _write(ns, jnp.tanh(a[:, 2] + r * b[:, 2]), t)
        n = _read(ns, t)
        return gates, ns, b_ns, _write(hs, n + z * (h - n), t)

    def step(t: Step, buffers: Arrays) -> Arrays:
        h = _read(buffers[-1], t - 1)
        return cell(t, (h @ weight_hh + bias_hh).reshape(batch, 3, hidden), h, buffers)

    gates = jnp.zeros((steps, batch, 2, hidden), inputs.dtype)
    zeros = gates[:, :, 0]
    b = jnp.broadcast_to(bias_hh.reshape(3, hidden), (batch, 3, hidden))
    first = cell(0, b, zeros[0], (gates, zeros, zeros, zeros))
    gates, ns, b_ns, hs = lax.fori_loop(1, steps, step, first)
    return hs, (x, weight_ih, weight_hh, gates, ns, b_ns, hs)


def _gru_backward(kept: Arrays, d_outputs: jax.Array) -> Arrays:
    """From the last step to the first, where d_ stands for the gradient with respect to:

    d_h = d_outputs + d_h[t + 1] z[t + 1] + d_b[t + 1] Uᵀ
    d_n = d_h (1 − z) (1 − n²)                                  that is d_a of gate n
    d_b = d_n b_n r (1 − r), d_h (h[t − 1] − n) z (1 − z), d_n r       the first two are d_a of gates r and z
    """
    x, weight_ih, weight_hh, gates, ns, b_ns, hs = kept
    last = len(x) - 1
    transposed = weight_hh.T  # made once, outside the loop
    r, z = _gru_gates(gates)
    h_to_n = (1 - z) * (1 - ns * ns)
    h_to_b = jnp.stack([h_to_n * b_ns * r * (1 - r), (_before(hs) - ns) * z * (1 - z), h_to_n * r], 2)

    def cell(t: Step, d_h: jax.Array, d_hs: jax.Array, d_b: jax.Array) -> Arrays:
        d_hs = _write(d_hs, d_h, t)
        return d_hs, _write(d_b, _read(d_hs, t)[:, None] * _read(h_to_b, t), t)

    def step(n: Step, carry: Arrays) -> Arrays:
        t = last - n
        d_hs, d_b = carry
        d_h = _read(d_outputs, t) + _read(d_hs, t + 1) * _read(z, t + 1)
        return cell(t, d_h + _read(d_b, t + 1).reshape(len(d_h), -1) @ transposed, d_hs, d_b)

    first = cell(last, d_outputs[last], jnp.zeros_like(hs), jnp.zeros_like(h_to_b))
    d_hs, d_b = lax.fori_loop(1, len(x), step, first)
    d_a = _rows(jnp.concatenate([d_b[:, :, :2], (d_hs * h_to_n)[:, :, None]], 2))
    d_b = _rows(d_b)
    d_x = (d_a @ weight_ih.T).reshape(x.shape)
    return d_x, _rows(x).T @ d_a, _rows(_before(hs)).T @ d_b, d_a.sum(0), d_b.sum(0)


_gru.defvjp(_gru_forward, _gru_backward)


def _gru_gates(tanhs: jax.Array) -> Arrays:
    r, z = jnp.moveaxis(tanhs, -2, 0)
    return _sigmoid(r), _sigmoid(z)


def _sigmoid(tanh_of_half: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * tanh_of_half


def _read(buffer: jax.Array, t: Step) -> jax.Array:
    return lax.dynamic_index_in_dim(buffer, t, keepdims=False)


def _write(buffer: jax.Array, rows: jax.Array, t: Step, gate: int = 0) -> jax.Array:
    """The buffer with these rows as step t, from this gate on; in a loop, XLA writes them in place."""
    return lax.dynamic_update_slice(buffer, rows[None], (t, 0, gate, 0)[: buffer.ndim])


def _before(states: jax.Array) -> jax.Array:
    """Of every step, the state that it starts from."""
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


def _rows(x: jax.Array) -> jax.Array:
    """[T, B, ...] -> [T·B, features]"""
    return x.reshape(x.shape[0] * x.shape[1], -1)
