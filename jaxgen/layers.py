"""Flax (Linen) layers with PyTorch's semantics, initialisation and names, over `jaxgen.ops`.

Parameters carry PyTorch's names (`weight`, `bias`, `running_mean`, …) and are PyTorch's tensors with one transposition
by rank (`jaxgen.torch_weights`): a matrix is transposed, a convolution's kernel is `[height, width, …]`.
Where Flax's own layers differ from PyTorch (initialisation, the variance that batch norm stores, two bias vectors in an
LSTM), these follow PyTorch.

What multiplies does it in the type of its input, whatever that of its parameters; `matmul_dtype` chooses another.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.ops.conv import conv, conv_transpose
from jaxgen.ops.pool import max_pool
from jaxgen.ops.recurrent import gru, lstm
from jaxgen.parallel import mean_over_shards, shards

Initializer = Callable[..., jax.Array]
Size = int | tuple[int, int]


def bounded_uniform(fan_in: int) -> Initializer:
    """U(−1/√fan_in, 1/√fan_in), PyTorch's default for weights and biases alike.

    `torch.nn.Linear` and `Conv2d` count C_in·k² as the fan-in, `ConvTranspose2d` C_out·k², `LSTM` and `GRU` the hidden
    size (https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html and the pages beside it).
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
        # Flat, for the same numbers: XLA takes up to five times as long to compile a draw of four dimensions.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def normal(deviation: float) -> Initializer:
    """Normal(0, deviation)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
        return deviation * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return init


def init_variables(module: nn.Module, key: jax.Array) -> Any:
    """Draw a module's initial variables; each comes from a key that follows from `key` and the variable's name.

    Compiled, so that only the parameters are computed and not the forward pass. Equal modules share one compilation.

    Args:
        module: A module that says by `input_shape` (without the batch) what images or vectors it takes.
        key: A typed PRNG key.

    Returns:
        The variables, `{"params": ..., "batch_stats": ...}`.
    """
    try:
        init = _compiled_init(module)
    except TypeError:  # a field that cannot be hashed, such as an array
        init = jax.jit(module.init)
    return init(key, jnp.zeros((1, *module.input_shape)))


@lru_cache(maxsize=32)
def _compiled_init(module: nn.Module) -> jax.stages.Wrapped:
    return jax.jit(module.init)


def in_batches(function: Callable[[Any], Any], examples: Any, size: int) -> Any:
    """`function` of arrays `[N, ...]`, `size` examples at a time, which bounds the memory -> its results, `[N, ...]`.

    `jax.lax.map` with its `batch_size` would show the function one example and map that: then the operations see
    batches of one, and choose their forms for these.
    """
    count = jax.tree.leaves(examples)[0].shape[0]
    whole = count // size * size
    done = []
    if whole:
        batches = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), examples)
        done.append(jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), jax.lax.map(function, batches)))
    if whole < count:
        done.append(function(jax.tree.map(lambda x: x[whole:], examples)))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *done)


def pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def flatten(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> `[B, C·H·W]`, in PyTorch's order (channels first)."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)


def unflatten(x: jax.Array, height: int, width: int) -> jax.Array:
    """`[B, C·H·W]` in PyTorch's order -> `[B, H, W, C]`."""
    return x.reshape(x.shape[0], -1, height, width).transpose(0, 2, 3, 1)


class Linear(nn.Module):
    """`torch.nn.Linear`: `[..., in]` -> `[..., features]`."""

    features: int
    weight_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        default = bounded_uniform(x.shape[-1])
        weight = self.param("weight", self.weight_init or default, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init or default, (self.features,))
        return x @ weight.astype(x.dtype) + bias


class Conv(nn.Module):
    """`torch.nn.Conv2d`: `[B, H, W, C]` -> `[B, H', W', features]`, H' = ⌊(H + 2p − d(k−1) − 1)/s⌋ + 1."""

    features: int
    kernel_size: Size
    stride: Size = 1
    padding: Size = 0
    dilation: Size = 1
    weight_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_size = pair(self.kernel_size)
        default = bounded_uniform(x.shape[-1] * math.prod(kernel_size))
        weight = self.param("weight", self.weight_init or default, (*kernel_size, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init or default, (self.features,))
        weight = weight.astype(x.dtype)
        y = conv(x, weight, stride=pair(self.stride), padding=pair(self.padding), dilation=pair(self.dilation))
        return y + bias


class ConvTranspose(nn.Module):
    """`torch.nn.ConvTranspose2d`: `[B, H, W, C]` -> `[B, H', W', features]`.

    H' = (H − 1)s − 2p + d(k − 1) + output_padding + 1. The weight is `[kh, kw, features, C]`: PyTorch's
    `[C, features, kh, kw]` under the transposition of every other kernel.
    """

    features: int
    kernel_size: Size
    stride: Size = 1
    padding: Size = 0
    output_padding: Size = 0
    dilation: Size = 1
    weight_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel_size = pair(self.kernel_size)
        default = bounded_uniform(self.features * math.prod(kernel_size))
        weight = self.param("weight", self.weight_init or default, (*kernel_size, self.features, x.shape[-1]))
        bias = self.param("bias", self.bias_init or default, (self.features,))
        y = conv_transpose(
            x,
            weight.astype(x.dtype),
            stride=pair(self.stride),
            padding=pair(self.padding),
            output_padding=pair(self.output_padding),
            dilation=pair(self.dilation),
        )
        return y + bias


class MaxPool(nn.Module):
    """`torch.nn.MaxPool2d`: `[B, H, W, C]` -> `[B, H', W', C]`; the stride is the window's size unless given."""

    window: Size
    stride: Size | None = None
    padding: Size = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        stride = self.window if self.stride is None else self.stride
        return max_pool(x, pair(self.window), stride=pair(stride), padding=pair(self.padding))


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm1d` and `BatchNorm2d`: over every axis but the last, `[..., C]` -> `[..., C]`.

    Training normalises with the batch's biased variance and moves the running statistics towards the batch's mean and
    **unbiased** variance by `momentum`; evaluation normalises with the running statistics. A training batch must hold
    more than one value a channel (`ValueError`), as in PyTorch. Devices that share a batch normalise it as one.
    """

    momentum: float = 0.1
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        features = x.shape[-1:]
        weight = self.param("weight", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "running_mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "running_var", jnp.ones, features)
        tracked = self.variable("batch_stats", "num_batches_tracked", jnp.zeros, (), jnp.int32)
        if not train:
            return (x - running_mean.value) * (weight * jax.lax.rsqrt(running_var.value + self.eps)) + bias
        axes, count = tuple(range(x.ndim - 1)), shards() * x.size // x.shape[-1]
        if count < 2:
            raise ValueError(f"batch norm in training needs more than one value a channel, got {x.shape}")
        mean = mean_over_shards(x.mean(axes))
        centred = x - mean  # E[(x − mean)²], not E[x²] − mean², which cancels badly
        var = mean_over_shards(jnp.square(centred).mean(axes))
        if not self.is_initializing():
            moved = self.momentum * jax.lax.stop_gradient(jnp.stack([mean, var * (count / (count - 1))]))
            running_mean.value = (1 - self.momentum) * running_mean.value + moved[0]
            running_var.value = (1 - self.momentum) * running_var.value + moved[1]
            tracked.value += 1
        return centred * (weight * jax.lax.rsqrt(var + self.eps)) + bias


class LSTM(nn.Module):
    """`torch.nn.LSTM`, one layer, batch first, zero initial state: `[B, T, in]` -> the outputs `[B, T, hidden]`.

    Both bias vectors of PyTorch are kept: summed they would give the same outputs and another training.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return lstm(x, *recurrent_parameters(self, x, gates=4))


class GRU(nn.Module):
    """`torch.nn.GRU`, one layer, batch first, zero initial state: `[B, T, in]` -> the outputs `[B, T, hidden]`."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return gru(x, *recurrent_parameters(self, x, gates=3))


def recurrent_parameters(layer: LSTM | GRU, x: jax.Array, gates: int) -> list[jax.Array]:
    wide = gates * layer.hidden
    shapes = {
        "weight_ih_l0": (x.shape[-1], wide),
        "weight_hh_l0": (layer.hidden, wide),
        "bias_ih_l0": (wide,),
        "bias_hh_l0": (wide,),
    }
    init = bounded_uniform(layer.hidden)
    return [layer.param(name, init, shape).astype(x.dtype) for name, shape in shapes.items()]


@contextlib.contextmanager
def matmul_dtype(dtype: str) -> Iterator[None]:
    """Layers that are traced within multiply in this type, such as "bfloat16", and give what they are given.

    What lies between them stays as it is: sums over a batch, a batch's statistics and a sigmoid near 1 would suffer.
    """

    def cast(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if not isinstance(context.module, Linear | Conv | ConvTranspose | LSTM | GRU):
            return call(*args, **kwargs)
        (x,) = args
        return call(x.astype(dtype)).astype(x.dtype)

    with nn.intercept_methods(cast):
        yield


def summary(module: nn.Module) -> str:
    """A table of the module's layers as they follow each other: name, what it is, output shape, parameters.

    For a convolution with the arithmetic of its output's height, from the formula in the layer's docstring.
    """
    rows = [("", "input", shape_of(module.input_shape), "", "")]

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        layer = context.module
        if isinstance(layer, Linear | Conv | ConvTranspose | MaxPool | BatchNorm | LSTM | GRU):
            size = sum(leaf.size for leaf in jax.tree.leaves(layer.variables.get("params", {})))
            height = arithmetic(layer, args[0].shape[1])
            rows.append((".".join(layer.path), type(layer).__name__, shape_of(y.shape[1:]), height, f"{size:,}"))
        return y

    with nn.intercept_methods(note):
        variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *module.input_shape)))
    total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    rows = [("layer", "kind", "output", "height", "parameters"), *rows, ("total", "", "", "", f"{total:,}")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def shape_of(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def arithmetic(layer: nn.Module, size: int) -> str:
    """How a convolution or a pool makes its output's height of `size`."""
    if isinstance(layer, Conv):
        k, s, p, d = (pair(value)[0] for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
        return f"⌊({size} + 2·{p} − {d}·({k}−1) − 1)/{s}⌋ + 1"
    if isinstance(layer, ConvTranspose):
        k, s, p, d = (pair(value)[0] for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
        extra = f" + {pair(layer.output_padding)[0]}" if pair(layer.output_padding)[0] else ""
        return f"({size}−1)·{s} − 2·{p} + {d}·({k}−1){extra} + 1"
    if isinstance(layer, MaxPool):
        k, s, p = (pair(value)[0] for value in (layer.window, layer.stride or layer.window, layer.padding))
        return f"⌊({size} + 2·{p} − {k})/{s}⌋ + 1"
    return ""
