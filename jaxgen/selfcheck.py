"""A check that operations and their gradients are computed correctly on this device by this version of jaxlib.

Some versions of jaxlib give wrong results on some processors. Each operation, in the shapes of the recipes, is compiled
inside a loop as in training, and compared with its definition in NumPy and float64. Gradients are compared along random
directions with finite differences of the definition.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

from jaxgen.errors import InputError
from jaxgen.layers import BatchNorm
from jaxgen.ops.conv import conv, conv_transpose
from jaxgen.ops.pool import max_pool
from jaxgen.ops.recurrent import gru, lstm

Shape = tuple[int, ...]

TOLERANCE = 1e-4  # of the largest output, or of a gradient's norm; float32 rounds to some 1e-6
STEP = 1e-6  # of the finite differences, in float64


class Case(NamedTuple):
    """An operation, its definition, and the shapes on which they are compared."""

    name: str
    ours: Callable[..., jax.Array]
    plain: Callable[..., np.ndarray]  # the same by its definition
    shapes: tuple[Shape, ...]  # of the arguments


def check(device: jax.Device) -> float:
    """Compare all operations with their definitions.

    Args:
        device: Where to compute.

    Returns:
        The largest error, relative as in `TOLERANCE`.

    Raises:
        InputError: An error is beyond the tolerance; the message names the operation, the version and the platform.
    """
    worst = 0.0
    with jax.default_device(device):
        for name, what, error in ((case.name, *result) for case in cases() for result in errors(case)):
            if not error <= TOLERANCE:
                raise InputError(
                    f"jaxlib {jaxlib.version.__version__} computes wrongly on {device.platform} here: {what} of {name} "
                    f"is off by {error:.1e} of its size; train with another version of jaxlib, or another --device"
                )
            worst = max(worst, error)
    return worst


def cases() -> Iterator[Case]:
    """Yield all operations in the shapes of the recipes."""
    for x, kernel, stride, padding in [
        ((4, 32, 32, 3), (3, 3, 3, 16), 1, 1),
        ((4, 16, 16, 64), (3, 3, 64, 128), 1, 1),
        ((4, 28, 28, 1), (4, 4, 1, 64), 2, 1),
        ((4, 14, 14, 64), (4, 4, 64, 128), 2, 1),
        ((4, 4, 4, 64), (4, 4, 64, 128), 1, 0),
        ((16, 8, 8, 1), (4, 4, 1, 16), 1, 0),
    ]:
        yield convolution(conv, plain_conv, x, kernel, stride, padding)
    for x, kernel, stride, padding in [
        ((16, 1, 1, 64), (3, 3, 64, 64), 1, 0),
        ((16, 3, 3, 64), (3, 3, 32, 64), 1, 0),
        ((16, 5, 5, 32), (4, 4, 1, 32), 1, 0),
        ((4, 8, 8, 8), (2, 2, 16, 8), 2, 0),
        ((4, 7, 7, 128), (4, 4, 64, 128), 2, 1),
        ((4, 14, 14, 64), (4, 4, 1, 64), 2, 1),
    ]:
        yield convolution(conv_transpose, plain_conv_transpose, x, kernel, stride, padding)
    yield Case("max_pool (4, 16, 16, 16)", max_pool, plain_max_pool, ((4, 16, 16, 16),))
    recurrent = (8, 28, 56)
    cells: dict[str, tuple[Callable[..., Any], Callable[..., np.ndarray], int]]
    cells = {"lstm": (lstm, plain_lstm, 4), "gru": (gru, plain_gru, 3)}
    for name, (function, definition, gates) in cells.items():
        wide = gates * 64
        shapes = (recurrent, (56, wide), (64, wide), (wide,), (wide,))
        yield Case(f"{name} {recurrent}", function, definition, shapes)
    yield Case("batch norm (16, 7, 7, 32)", batch_norm, plain_batch_norm, ((16, 7, 7, 32), (32,), (32,)))


def convolution(
    function: Callable[..., jax.Array],
    definition: Callable[..., np.ndarray],
    x: Shape,
    kernel: Shape,
    stride: int,
    padding: int,
) -> Case:
    """The case of a convolution or a transposed one."""
    return Case(
        f"{function.__name__} {x}, {kernel}, stride {stride}, padding {padding}",
        partial(function, stride=(stride, stride), padding=(padding, padding)),
        partial(definition, stride=stride, padding=padding),
        (x, kernel),
    )


def errors(case: Case) -> Iterator[tuple[str, float]]:
    """Yield the relative errors of the output and of the gradient with respect to each argument, with a name."""
    random = np.random.default_rng(0)
    # Matrices are scaled by what they sum over, so that gates and the like do not saturate.
    arguments = [random.normal(size=shape) / math.sqrt(max(1, math.prod(shape[:-1]) // 8)) for shape in case.shapes[1:]]
    arguments = [part.astype(np.float32) for part in (random.normal(size=case.shapes[0]), *arguments)]
    exact = [part.astype(np.float64) for part in arguments]
    output = case.plain(*exact)
    weight = random.normal(size=output.shape).astype(np.float32)

    def weighed(*arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
        output = case.ours(*arguments)
        return jnp.sum(output * weight), output

    def both(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        (_, output), gradients = jax.value_and_grad(weighed, tuple(range(len(arguments))), has_aux=True)(*arguments)
        return output, gradients

    with jax.default_matmul_precision("highest"):
        result, gradients = jax.device_get(in_a_loop(both, arguments))
    yield "the output", float(np.abs(result - output).max() / np.abs(output).max())

    for number, gradient in enumerate(gradients):
        direction = random.normal(size=gradient.shape)
        ahead, behind = (
            case.plain(*exact[:number], exact[number] + step * direction, *exact[number + 1 :])
            for step in (STEP, -STEP)
        )
        slope = float(np.sum((ahead - behind) * weight) / (2 * STEP))
        error = abs(float(np.sum(gradient.astype(np.float64) * direction)) - slope)
        yield f"the gradient by argument {number}", error / max(float(np.linalg.norm(gradient)), 1e-12)


def in_a_loop(function: Callable[..., Any], arguments: list[np.ndarray]) -> Any:
    """Compute `function(*arguments)`, compiled inside a loop as a training step is."""

    def loop(arguments: list[jax.Array], times: jax.Array) -> Any:
        before = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(function, *arguments))
        return jax.lax.fori_loop(0, times, lambda _, before: function(*arguments), before)

    return jax.jit(loop)(arguments, 1)


def batch_norm(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    """Batch norm in training, without the running statistics."""
    variables = BatchNorm().init(jax.random.key(0), x)
    variables = {**variables, "params": {"weight": weight, "bias": bias}}
    output: jax.Array = BatchNorm().apply(variables, x, True, mutable=True)[0]
    return output


# ---- The definitions, in NumPy ----


def plain_conv(x: np.ndarray, kernel: np.ndarray, *, stride: int, padding: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = ((x.shape[1 + a] - kernel.shape[a]) // stride + 1 for a in (0, 1))
    y = np.zeros((x.shape[0], height, width, kernel.shape[3]))
    for i, j in np.ndindex(kernel.shape[:2]):
        y += x[:, i::stride, j::stride][:, :height, :width] @ kernel[i, j]
    return y


def plain_conv_transpose(x: np.ndarray, kernel: np.ndarray, *, stride: int, padding: int) -> np.ndarray:
    height, width = ((x.shape[1 + a] - 1) * stride + kernel.shape[a] for a in (0, 1))
    y = np.zeros((x.shape[0], height, width, kernel.shape[2]))
    for m, n in np.ndindex(x.shape[1:3]):
        patch = np.einsum("bc,ijdc->bijd", x[:, m, n], kernel, optimize=True)
        y[:, m * stride :, n * stride :][:, : kernel.shape[0], : kernel.shape[1]] += patch
    return y[:, padding : height - padding, padding : width - padding]


def plain_max_pool(x: np.ndarray) -> np.ndarray:
    batch, height, width, channels = x.shape
    largest: np.ndarray = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return largest


def sigmoid(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result


def plain_lstm(x: np.ndarray, w: np.ndarray, u: np.ndarray, bias_ih: np.ndarray, bias_hh: np.ndarray) -> np.ndarray:
    h = c = np.zeros((x.shape[0], u.shape[0]))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ w + bias_ih + h @ u + bias_hh, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def plain_gru(x: np.ndarray, w: np.ndarray, u: np.ndarray, bias_ih: np.ndarray, bias_hh: np.ndarray) -> np.ndarray:
    h = np.zeros((x.shape[0], u.shape[0]))
    outputs = []
    for t in range(x.shape[1]):
        (r, z, n), (hr, hz, hn) = np.split(x[:, t] @ w + bias_ih, 3, axis=1), np.split(h @ u + bias_hh, 3, axis=1)
        z = sigmoid(z + hz)
        h = (1 - z) * np.tanh(n + sigmoid(r + hr) * hn) + z * h
        outputs.append(h)
    return np.stack(outputs, axis=1)


def plain_batch_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    axes = (0, 1, 2)
    result: np.ndarray = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * weight + bias
    return result
