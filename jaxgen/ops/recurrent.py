"""LSTM and GRU: one layer in one direction over whole sequences, with PyTorch's arithmetic.

Both gradients are written by hand. What makes them fast on the CPU, where the steps are small:

- The gradient of the recurrent weight is one matrix product over all steps. Autodiff adds it up step by step, and so
  reads and writes the whole matrix T times.
- Whatever does not depend on the previous step is computed for all steps at once: the products with the inputs and the
  derivatives of the gates. The loop is left with one product and a few multiplications a step, and a first step that
  starts from zeros with no product.
- Results are written straight into buffers that hold all steps, which makes a step of about eight kernels. XLA runs a
  loop body that short in order; in a longer one it moves kernels of a few microseconds from thread to thread, which
  costs more than the kernels.
- All gates of an LSTM are computed by one kernel, from both the sigmoid and the tanh of every element.

16-bit inputs are multiplied in their own dtype; products, gates and states are float32.

Inside, time is the first axis, so that a step is contiguous, and the gates have an axis of their own: [T, B, gates, H].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgen.ops._products import accumulator

__all__ = ["gru", "lstm"]

Arrays = tuple[jax.Array, ...]
Step = int | jax.Array


def lstm(
    x: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias_ih: jax.Array,
    bias_hh: jax.Array,
    *,
    initial_carry: tuple[jax.Array, jax.Array] | None = None,
    return_carry: bool = False,
) -> Any:
    """Run an LSTM over sequences.

    With a = x W + bias_ih + h U + bias_hh, split into four gates:

        i, f, o = σ(aᵢ), σ(a_f), σ(aₒ)    g = tanh(a_g)    c ← f c + i g    h ← o tanh(c)

    It has derivatives of reverse mode only, of any order.

    Args:
        x: `[B, T, I]` with T ≥ 1, of a floating dtype that all other arguments share.
        weight_ih: W, `[I, 4H]`, the gates side by side in the order i, f, g, o.
        weight_hh: U, `[H, 4H]`, likewise.
        bias_ih: `[4H]`.
        bias_hh: `[4H]`.
        initial_carry: (h, c) before the first step, `[B, H]` each; zeros by default.
        return_carry: Whether to return the final (h, c) too.

    Returns:
        The hidden states `[B, T, H]` after every step, as `torch.nn.LSTM(I, H, batch_first=True)(x)[0]` with both
        weights transposed; with `return_carry`, a pair of them and the final (h, c).

    Raises:
        ValueError: The shapes or dtypes do not match, or one of the sizes is 0 (an empty batch is allowed).
    """
    carry = () if initial_carry is None else tuple(initial_carry)
    hidden = _check("lstm", 4, x, (weight_ih, weight_hh, bias_ih, bias_hh), carry, 2)
    if x.shape[0] == 0:
        empty = jnp.zeros((0, hidden), x.dtype)
        outputs, final = jnp.zeros((0, x.shape[1], hidden), x.dtype), (empty, empty)
    else:
        bias = _widen(bias_ih) + _widen(bias_hh)
        hs, c = _lstm(jnp.swapaxes(x, 0, 1), weight_ih, weight_hh, bias, tuple(map(_widen, carry)))
        outputs, final = jnp.swapaxes(hs, 0, 1).astype(x.dtype), (hs[-1].astype(x.dtype), c.astype(x.dtype))
    return (outputs, final) if return_carry else outputs


def gru(
    x: jax.Array,
    weight_ih: jax.Array,
    weight_hh: jax.Array,
    bias_ih: jax.Array,
    bias_hh: jax.Array,
    *,
    initial_carry: jax.Array | None = None,
    return_carry: bool = False,
) -> Any:
    """Run a GRU over sequences.

    With a = x W + bias_ih and b = h U + bias_hh, each split into three gates:

        r, z = σ(a_r + b_r), σ(a_z + b_z)    n = tanh(a_n + r b_n)    h ← (1 − z) n + z h

    It has derivatives of reverse mode only, of any order.

    Args:
        x: `[B, T, I]` with T ≥ 1, of a floating dtype that all other arguments share.
        weight_ih: W, `[I, 3H]`, the gates side by side in the order r, z, n.
        weight_hh: U, `[H, 3H]`, likewise.
        bias_ih: `[3H]`.
        bias_hh: `[3H]`.
        initial_carry: h before the first step, `[B, H]`; zeros by default.
        return_carry: Whether to return the final h too.

    Returns:
        The hidden states `[B, T, H]` after every step, as `torch.nn.GRU(I, H, batch_first=True)(x)[0]` with both
        weights transposed; with `return_carry`, a pair of them and the final h.

    Raises:
        ValueError: The shapes or dtypes do not match, or one of the sizes is 0 (an empty batch is allowed).
    """
    carry = () if initial_carry is None else (initial_carry,)
    hidden = _check("gru", 3, x, (weight_ih, weight_hh, bias_ih, bias_hh), carry, 1)
    if x.shape[0] == 0:
        outputs, final = jnp.zeros((0, x.shape[1], hidden), x.dtype), jnp.zeros((0, hidden), x.dtype)
    else:
        biases = _widen(bias_ih), _widen(bias_hh)
        hs = _gru(jnp.swapaxes(x, 0, 1), weight_ih, weight_hh, *biases, tuple(map(_widen, carry)))
        outputs, final = jnp.swapaxes(hs, 0, 1).astype(x.dtype), hs[-1].astype(x.dtype)
    return (outputs, final) if return_carry else outputs


def _check(name: str, gates: int, x: jax.Array, weights: Arrays, carry: Arrays, states: int) -> int:
    """Raise ValueError unless all arguments match; returns the hidden size."""
    if x.ndim != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: takes floating-point sequences [B, T, I], not {x.dtype} {x.shape}")
    hidden = weights[1].shape[0] if weights[1].ndim else 0
    if x.shape[1] == 0 or x.shape[2] == 0 or hidden == 0:
        raise ValueError(f"{name}: sequences {x.shape} and a hidden size of {hidden}: no size but the batch may be 0")
    wide = gates * hidden
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", *("initial_carry" for _ in carry)]
    wanted = [(x.shape[2], wide), (hidden, wide), (wide,), (wide,), *((x.shape[0], hidden) for _ in carry)]
    if carry and len(carry) != states:
        raise ValueError(f"{name}: initial_carry must hold {states} arrays, not {len(carry)}")
    for argument, array, shape in zip(names, (*weights, *carry), wanted, strict=True):
        if array.shape != shape:
            raise ValueError(
                f"{name}: {argument} must have shape {shape} for sequences {x.shape} and a hidden size of {hidden}, "
                f"not {array.shape}"
            )
        if array.dtype != x.dtype:
            raise ValueError(
                f"{name}: {argument} is {array.dtype} {array.shape}, the sequences are {x.dtype} {x.shape}"
            )
    return hidden


@jax.custom_vjp
def _lstm(
    x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias: jax.Array, carry: Arrays
) -> tuple[jax.Array, jax.Array]:
    """x [T, B, I] -> h [T, B, H] and the last c [B, H], with the sum of both biases; carry is (h, c) or ()."""
    return _lstm_forward(x, weight_ih, weight_hh, bias, carry)[0]


IS_TANH = np.array([False, False, True, False])[:, None]  # among the gates i, f, g, o


def _lstm_forward(
    x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias: jax.Array, carry: Arrays
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    steps, batch, hidden = *x.shape[:2], weight_hh.shape[0]
    inputs = (_matmul(_rows(x), weight_ih) + bias).reshape(steps, batch, 4, hidden)

    def cell(t: Step, a: jax.Array, c: jax.Array, buffers: Arrays) -> Arrays:
        gates, cs, hs = buffers
        gates = _write(gates, jnp.where(IS_TANH, jnp.tanh(a), lax.logistic(a)), t)
        i, f, g, o = _split(_read(gates, t))
        cs = _write(cs, f * c + i * g, t)
        return gates, cs, _write(hs, o * jnp.tanh(_read(cs, t)), t)

    def recurrent(h: jax.Array) -> jax.Array:
        return _matmul(h, weight_hh).reshape(batch, 4, hidden)

    def step(t: Step, buffers: Arrays) -> Arrays:
        _, cs, hs = buffers
        return cell(t, _read(inputs, t) + recurrent(_read(hs, t - 1)), _read(cs, t - 1), buffers)

    zeros = jnp.zeros((steps, batch, hidden), inputs.dtype)
    h, c = carry or (None, zeros[0])
    a = inputs[0] if h is None else inputs[0] + recurrent(h)
    first = cell(0, a, c, (jnp.zeros_like(inputs), zeros, zeros))
    gates, cs, hs = lax.fori_loop(1, steps, step, first)
    return (hs, cs[-1]), (x, weight_ih, weight_hh, carry, gates, cs, hs)


def _lstm_backward(saved: Any, cotangents: tuple[jax.Array, jax.Array]) -> tuple[Any, ...]:
    """From the last step to the first, where d_ stands for the gradient with respect to:

    d_h = d_outputs + d_a[t + 1] Uᵀ
    d_c = d_c[t + 1] f[t + 1] + d_h o (1 − tanh² c)
    d_a = d_c g i (1 − i), d_c c[t − 1] f (1 − f), d_c i (1 − g²), d_h tanh(c) o (1 − o)
    """
    x, weight_ih, weight_hh, carry, gates, cs, hs = saved
    d_outputs, d_last_c = cotangents
    last = x.shape[0] - 1
    transposed = weight_hh.T  # made once, outside the loop
    i, f, g, o = _split(gates)
    h_first, c_first = carry or (None, None)
    tanh_c = jnp.tanh(cs)
    c_to_ifg = jnp.stack([g * i * (1 - i), _previous(cs, c_first) * f * (1 - f), i * (1 - g * g)], 2)
    h_to_o = tanh_c * o * (1 - o)
    h_to_c = o * (1 - tanh_c * tanh_c)
    c_to_c = jnp.concatenate([f[1:], jnp.ones_like(f[:1])])

    def cell(t: Step, d_h: jax.Array, d_c: jax.Array, d_a: jax.Array) -> Arrays:
        d_c = d_c * _read(c_to_c, t) + d_h * _read(h_to_c, t)
        d_a = _write(d_a, d_c[:, None] * _read(c_to_ifg, t), t)
        return d_c, _write(d_a, (d_h * _read(h_to_o, t))[:, None], t, gate=3)

    def recurrent(d_a: jax.Array) -> jax.Array:
        return _matmul(d_a.reshape(d_a.shape[0], -1), transposed)

    def step(n: Step, state: Arrays) -> Arrays:
        t = last - n
        d_c, d_a = state
        return cell(t, _read(d_outputs, t) + recurrent(_read(d_a, t + 1)), d_c, d_a)

    first = cell(last, d_outputs[last], d_last_c, jnp.zeros_like(gates))
    d_c, d_a = lax.fori_loop(1, x.shape[0], step, first)
    d_carry = (recurrent(d_a[0]), d_c * f[0]) if carry else ()
    d_a = _rows(d_a)
    d_x = _matmul(d_a, weight_ih.T).reshape(x.shape).astype(x.dtype)
    d_weights = _weight_gradient(x, d_a, weight_ih), _weight_gradient(_previous(hs, h_first), d_a, weight_hh)
    return d_x, *d_weights, d_a.sum(0), d_carry


_lstm.defvjp(_lstm_forward, _lstm_backward)


@jax.custom_vjp
def _gru(
    x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array, carry: Arrays
) -> jax.Array:
    """x [T, B, I] -> h [T, B, H]; carry is (h,) or ()."""
    return _gru_forward(x, weight_ih, weight_hh, bias_ih, bias_hh, carry)[0]


def _gru_forward(
    x: jax.Array, weight_ih: jax.Array, weight_hh: jax.Array, bias_ih: jax.Array, bias_hh: jax.Array, carry: Arrays
) -> tuple[jax.Array, Any]:
    steps, batch, hidden = *x.shape[:2], weight_hh.shape[0]
    inputs = (_matmul(_rows(x), weight_ih) + bias_ih).reshape(steps, batch, 3, hidden)

    def cell(t: Step, b: jax.Array, h: jax.Array, buffers: Arrays) -> Arrays:
        gates, ns, b_ns, hs = buffers
        a = _read(inputs, t)
        gates = _write(gates, lax.logistic(a[:, :2] + b[:, :2]), t)
        r, z = _split(_read(gates, t))
        b_ns = _write(b_ns, b[:, 2], t)
        ns = _write(ns, jnp.tanh(a[:, 2] + r * b[:, 2]), t)
        n = _read(ns, t)
        return gates, ns, b_ns, _write(hs, n + z * (h - n), t)

    def recurrent(h: jax.Array) -> jax.Array:
        return (_matmul(h, weight_hh) + bias_hh).reshape(batch, 3, hidden)

    def step(t: Step, buffers: Arrays) -> Arrays:
        h = _read(buffers[-1], t - 1)
        return cell(t, recurrent(h), h, buffers)

    gates = jnp.zeros((steps, batch, 2, hidden), inputs.dtype)
    zeros = gates[:, :, 0]
    b = recurrent(carry[0]) if carry else jnp.broadcast_to(bias_hh.reshape(3, hidden), (batch, 3, hidden))
    first = cell(0, b, carry[0] if carry else zeros[0], (gates, zeros, zeros, zeros))
    gates, ns, b_ns, hs = lax.fori_loop(1, steps, step, first)
    return hs, (x, weight_ih, weight_hh, carry, gates, ns, b_ns, hs)


def _gru_backward(saved: Any, d_outputs: jax.Array) -> tuple[Any, ...]:
    """From the last step to the first, where d_ stands for the gradient with respect to:

    d_h = d_outputs + d_h[t + 1] z[t + 1] + d_b[t + 1] Uᵀ
    d_n = d_h (1 − z) (1 − n²)                                  that is d_a of gate n
    d_b = d_n b_n r (1 − r), d_h (h[t − 1] − n) z (1 − z), d_n r       the first two are d_a of gates r and z
    """
    x, weight_ih, weight_hh, carry, gates, ns, b_ns, hs = saved
    last = x.shape[0] - 1
    transposed = weight_hh.T  # made once, outside the loop
    r, z = _split(gates)
    previous = _previous(hs, carry[0] if carry else None)
    h_to_n = (1 - z) * (1 - ns * ns)
    h_to_b = jnp.stack([h_to_n * b_ns * r * (1 - r), (previous - ns) * z * (1 - z), h_to_n * r], 2)

    def cell(t: Step, d_h: jax.Array, d_hs: jax.Array, d_b: jax.Array) -> Arrays:
        d_hs = _write(d_hs, d_h, t)
        return d_hs, _write(d_b, _read(d_hs, t)[:, None] * _read(h_to_b, t), t)

    def recurrent(d_b: jax.Array) -> jax.Array:
        return _matmul(d_b.reshape(d_b.shape[0], -1), transposed)

    def step(n: Step, state: Arrays) -> Arrays:
        t = last - n
        d_hs, d_b = state
        d_h = _read(d_outputs, t) + _read(d_hs, t + 1) * _read(z, t + 1)
        return cell(t, d_h + recurrent(_read(d_b, t + 1)), d_hs, d_b)

    first = cell(last, d_outputs[last], jnp.zeros_like(hs), jnp.zeros_like(h_to_b))
    d_hs, d_b = lax.fori_loop(1, x.shape[0], step, first)
    d_carry = (d_hs[0] * z[0] + recurrent(d_b[0]),) if carry else ()
    d_a = _rows(jnp.concatenate([d_b[:, :, :2], (d_hs * h_to_n)[:, :, None]], 2))
    d_b = _rows(d_b)
    d_x = _matmul(d_a, weight_ih.T).reshape(x.shape).astype(x.dtype)
    d_weights = _weight_gradient(x, d_a, weight_ih), _weight_gradient(previous, d_b, weight_hh)
    return d_x, *d_weights, d_a.sum(0), d_b.sum(0), d_carry


_gru.defvjp(_gru_forward, _gru_backward)


def _widen(x: jax.Array) -> jax.Array:
    """16-bit numbers as float32, others as they are."""
    return x.astype(accumulator(x.dtype))


def _matmul(x: jax.Array, weight: jax.Array) -> jax.Array:
    """x · weight in the weight's dtype, with 16-bit products summed to float32."""
    return jnp.matmul(x.astype(weight.dtype), weight, preferred_element_type=accumulator(weight.dtype))


def _weight_gradient(x: jax.Array, d_a: jax.Array, weight: jax.Array) -> jax.Array:
    """xᵀ · d_a over all steps, in the weight's dtype."""
    gradient: jax.Array = _matmul(_rows(x).astype(weight.dtype).T, d_a.astype(weight.dtype)).astype(weight.dtype)
    return gradient


def _split(gates: jax.Array) -> Arrays:
    return tuple(jnp.moveaxis(gates, -2, 0))


def _read(buffer: jax.Array, t: Step) -> jax.Array:
    rows: jax.Array = lax.dynamic_index_in_dim(buffer, t, keepdims=False)
    return rows


def _write(buffer: jax.Array, rows: jax.Array, t: Step, gate: int = 0) -> jax.Array:
    """The buffer with these rows at step t, from this gate on; inside a loop, XLA writes them in place."""
    return lax.dynamic_update_slice(buffer, rows[None], (t, 0, gate, 0)[: buffer.ndim])


def _previous(states: jax.Array, first: jax.Array | None) -> jax.Array:
    """For every step, the state before it."""
    first = jnp.zeros_like(states[:1]) if first is None else first[None]
    return jnp.concatenate([first, states[:-1]])


def _rows(x: jax.Array) -> jax.Array:
    """[T, B, ...] -> [T·B, features]"""
    return x.reshape(x.shape[0] * x.shape[1], -1)
