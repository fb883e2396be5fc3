"""Flax (Linen) layers with PyTorch's semantics, initialisation and names, over `jaxgen.ops`.

Parameters carry PyTorch's names (`weight`, `bias`, `running_mean`, …) and are PyTorch's tensors with one transposition
by rank (`jaxgen.torch_weights`): a matrix is transposed, a convolution's kernel is `[height, width, …]`.
Where Flax's own layers differ from PyTorch (initialisation, the variance that batch norm stores, two bias vectors in an
LSTM), these follow PyTorch.

Matrix products and convolutions use the dtype of the input, whatever the dtype of the parameters, and every layer
returns the dtype that it is given; inside `matmul_dtype` the products use another dtype.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import KW_ONLY
from functools import lru_cache
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import InputError
from jaxgen.ops._products import accumulator
from jaxgen.ops.batch_norm import batch_norm, inverse_root
from jaxgen.ops.conv import conv, conv_transpose
from jaxgen.ops.linear import linear
from jaxgen.ops.pool import max_pool
from jaxgen.ops.recurrent import gru, lstm
from jaxgen.parallel import mean_over_shards, shards

Initializer = Callable[..., jax.Array]
Size = int | tuple[int, int]
HALVABLE = (
    "images must be square, 4, 5, 6 or 7 times a power of two pixels a side: 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, "
    "48, 56, 64, 80, 96, 112, 128, …"
)


def bounded_uniform(fan_in: int) -> Initializer:
    """Initialise with U(−1/√fan_in, 1/√fan_in), PyTorch's default for weights and biases alike.

    `torch.nn.Linear` and `Conv2d` count C_in·k² as the fan-in, `ConvTranspose2d` C_out·k², `LSTM` and `GRU` the hidden
    size (https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html and the pages beside it).
    """
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
        # Flat, for the same numbers: XLA takes up to five times as long to compile a draw of four dimensions.
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


def normal(deviation: float) -> Initializer:
    """Initialise with a normal distribution of mean 0 and this standard deviation."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = float) -> jax.Array:
        return deviation * jax.random.normal(key, (math.prod(shape),), dtype).reshape(shape)

    return init


_products: ContextVar[str | None] = ContextVar("dtype of matrix products", default=None)


@contextlib.contextmanager
def matmul_dtype(dtype: str) -> Iterator[None]:
    """Layers traced in this context multiply in another dtype and return the one that they are given.

    What lies between the products is unchanged: biases, sums over a batch and its statistics, or a sigmoid near 1 would
    suffer.

    Args:
        dtype: For example "bfloat16".
    """
    token = _products.set(dtype)
    try:
        yield
    finally:
        _products.reset(token)


def _for_products(x: jax.Array) -> jax.Array:
    return x.astype(_products.get() or x.dtype)


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
    """Apply a function to many examples, a batch of them at a time, which bounds the memory.

    `jax.lax.map` with its `batch_size` would call the function with one example and map that: the operations would then
    see batches of one, and choose their algorithms for these.

    Args:
        function: Takes and returns trees of arrays with the batch as their first axis.
        examples: Arrays `[N, ...]`.
        size: Examples at a time.

    Returns:
        The function's results, `[N, ...]`.
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


def pair(size: Size, name: str = "size") -> tuple[int, int]:
    """One number for height and width, or two, as a pair.

    Args:
        size: A whole number, or (height, width).
        name: What the error calls it.

    Raises:
        ValueError: There are neither one nor two numbers.
    """
    if isinstance(size, int | np.integer):
        return int(size), int(size)
    if isinstance(size, str) or len(size) != 2:
        raise ValueError(f"{name} must be one number or two (height, width), not {size!r}")
    return size


def halvings(size: int) -> tuple[int, int]:
    """How often a square image can be halved, for networks that do so from stage to stage.

    Args:
        size: Height and width of the image.

    Returns:
        The side of the smallest feature map, from 4 to 7, and the number of halvings, at least one.

    Raises:
        InputError: The size is not 4, 5, 6 or 7 times a power of two.
    """
    side, count = size, 0
    while side > 7 and side % 2 == 0:
        side, count = side // 2, count + 1
    if not (4 <= side <= 7 and count):
        raise InputError(f"size {size}: {HALVABLE}")
    return side, count


def halvable(size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of an image that `halvings` takes.

    Raises:
        ValueError: It does not take this image, or the image is not square.
    """
    height, width = size
    try:
        if height == width:
            halvings(height)
            return size
    except InputError:
        pass
    raise ValueError(HALVABLE)


def flatten(x: jax.Array) -> jax.Array:
    """`[B, H, W, C]` -> `[B, C·H·W]`, in PyTorch's order (channels first)."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], math.prod(x.shape[1:]))


def unflatten(x: jax.Array, height: int, width: int) -> jax.Array:
    """`[B, C·H·W]` in PyTorch's order -> `[B, H, W, C]`."""
    channels = x.shape[1] // (height * width)
    return x.reshape(x.shape[0], channels, height, width).transpose(0, 2, 3, 1)


def check_input(name: str, x: jax.Array, shape: tuple[int | None, ...]) -> None:
    """Check the images or sequences that a network is given.

    Args:
        name: What the error calls the network.
        x: The input, `[B, *shape]`.
        shape: The expected shape without the batch; None for an axis of any length.

    Raises:
        ValueError: x has another shape, or is not floating-point.
    """
    _check_floating(name, x)
    if x.ndim != 1 + len(shape) or any(want not in (None, have) for want, have in zip(shape, x.shape[1:], strict=True)):
        wanted = ", ".join("*" if length is None else str(length) for length in shape)
        raise ValueError(f"{name}: takes inputs of shape (batch, {wanted}), not {x.shape}")


def _check_floating(name: str, x: jax.Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(
            f"{name}: takes floating-point inputs, not {x.dtype} {x.shape}; scale integer images first, as with "
            "jaxgen.scaled"
        )


def _as_input(layer: nn.Module, x: jax.Array, *ndim: int) -> jax.Array:
    """A layer's input as a floating-point array, of one of these numbers of dimensions if any are given."""
    x, name = jnp.asarray(x), type(layer).__name__
    _check_floating(name, x)
    if ndim and x.ndim not in ndim:
        raise ValueError(f"{name}: takes inputs of {ndim[0]} dimensions, not {x.shape}")
    if 0 in x.shape[1:]:
        raise ValueError(f"{name}: inputs {x.shape}: no size but the batch may be 0")
    return x


def _parameter(layer: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], x: jax.Array) -> jax.Array:
    """A parameter in the input's dtype.

    Raises:
        ValueError: The layer has been given a parameter of another shape.
    """
    _check_shape(layer, "params", name, shape, x)
    parameter: jax.Array = layer.param(name, init, shape)
    return parameter.astype(x.dtype)


def _check_shape(layer: nn.Module, collection: str, name: str, shape: tuple[int, ...], x: jax.Array) -> None:
    if layer.has_variable(collection, name):
        given = jnp.shape(layer.get_variable(collection, name))
        if given != shape:
            where = ".".join((*layer.path, name))
            raise ValueError(
                f"{type(layer).__name__}: {where} must have shape {shape} for inputs {x.shape}, not {given}"
            )


class Linear(nn.Module):
    """`torch.nn.Linear`: `[..., in]` -> `[..., features]`.

    Attributes:
        features: Size of the output.
        use_bias: Whether a bias is added.
        weight_init: Initialiser of the weight; by default PyTorch's.
        bias_init: Initialiser of the bias; by default PyTorch's.
    """

    features: int
    _: KW_ONLY
    use_bias: bool = True
    weight_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer.

        Args:
            x: `[..., in]`, floating-point.

        Returns:
            `[..., features]` in the dtype of `x`.
        """
        x = _as_input(self, x)
        default = bounded_uniform(x.shape[-1])
        weight = _parameter(self, "weight", self.weight_init or default, (x.shape[-1], self.features), x)
        y = linear(x, weight, matmul_dtype=_products.get())
        return y + _parameter(self, "bias", self.bias_init or default, (self.features,), x) if self.use_bias else y


class Conv(nn.Module):
    """`torch.nn.Conv2d`: `[B, H, W, C]` -> `[B, H', W', features]`, H' = ⌊(H + 2p − d(k−1) − 1)/s⌋ + 1.

    Attributes:
        features: Channels of the output.
        kernel_size: Height and width of the kernel.
        stride: Pixels from one window to the next.
        padding: Rows and columns of zeros on both sides, "valid" (none), or "same", which keeps the size and takes a
            stride of 1.
        dilation: Pixels from one tap of the kernel to the next.
        groups: Groups of channels, each of which reads only its own inputs.
        use_bias: Whether a bias is added.
        weight_init: Initialiser of the weight; by default PyTorch's.
        bias_init: Initialiser of the bias; by default PyTorch's.
    """

    features: int
    kernel_size: Size
    _: KW_ONLY
    stride: Size = 1
    padding: Size | Literal["same", "valid"] = 0
    dilation: Size = 1
    groups: int = 1
    use_bias: bool = True
    weight_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer.

        Args:
            x: `[B, H, W, C]`, floating-point.

        Returns:
            `[B, H', W', features]` in the dtype of `x`.
        """
        x = _as_input(self, x, 4)
        kernel_size, stride = pair(self.kernel_size, "kernel_size"), pair(self.stride, "stride")
        dilation, channels = pair(self.dilation, "dilation"), _per_group(self, "inputs", x.shape[-1])
        _per_group(self, "features", self.features)
        default = bounded_uniform(channels * math.prod(kernel_size))
        images, padding = self._pad(x, kernel_size, stride, dilation)
        shape = *kernel_size, channels, self.features
        weight = _parameter(self, "weight", self.weight_init or default, shape, images)
        y = conv(
            images,
            weight,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=self.groups,
            matmul_dtype=_products.get(),
        )
        return y + _parameter(self, "bias", self.bias_init or default, (self.features,), x) if self.use_bias else y

    def _pad(
        self, x: jax.Array, kernel_size: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]
    ) -> tuple[jax.Array, tuple[int, int]]:
        """The images, and the padding that they still need on both sides."""
        if self.padding == "valid":
            return x, (0, 0)
        if self.padding != "same":
            return x, pair(self.padding, "padding")
        if stride != (1, 1):
            raise ValueError(f'Conv: padding "same" takes a stride of 1, not {self.stride}')
        total = [step * (taps - 1) for step, taps in zip(dilation, kernel_size, strict=True)]
        x = jnp.pad(x, ((0, 0), (0, total[0] % 2), (0, total[1] % 2), (0, 0)))  # PyTorch's odd one comes last
        return x, (total[0] // 2, total[1] // 2)


class ConvTranspose(nn.Module):
    """`torch.nn.ConvTranspose2d`: `[B, H, W, C]` -> `[B, H', W', features]`.

    H' = (H − 1)s − 2p + d(k − 1) + output_padding + 1. The weight is `[kh, kw, features / groups, C]`: PyTorch's
    `[C, features / groups, kh, kw]` under the transposition of every other kernel.

    Attributes:
        features: Channels of the output.
        kernel_size: Height and width of the kernel.
        stride: That of the convolution whose transpose this is.
        padding: That of the convolution: so many rows and columns are removed from each side.
        output_padding: Rows and columns added at the bottom and at the right.
        dilation: That of the convolution.
        groups: Groups of channels, each of which contributes only to its own outputs.
        use_bias: Whether a bias is added.
        weight_init: Initialiser of the weight; by default PyTorch's.
        bias_init: Initialiser of the bias; by default PyTorch's.
    """

    features: int
    kernel_size: Size
    _: KW_ONLY
    stride: Size = 1
    padding: Size = 0
    output_padding: Size = 0
    dilation: Size = 1
    groups: int = 1
    use_bias: bool = True
    weight_init: Initializer | None = None
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer.

        Args:
            x: `[B, H, W, C]`, floating-point.

        Returns:
            `[B, H', W', features]` in the dtype of `x`.
        """
        x = _as_input(self, x, 4)
        kernel_size, features = pair(self.kernel_size, "kernel_size"), _per_group(self, "features", self.features)
        _per_group(self, "inputs", x.shape[-1])
        default = bounded_uniform(features * math.prod(kernel_size))
        weight = _parameter(self, "weight", self.weight_init or default, (*kernel_size, features, x.shape[-1]), x)
        y = conv_transpose(
            x,
            weight,
            stride=pair(self.stride, "stride"),
            padding=pair(self.padding, "padding"),
            output_padding=pair(self.output_padding, "output_padding"),
            dilation=pair(self.dilation, "dilation"),
            groups=self.groups,
            matmul_dtype=_products.get(),
        )
        return y + _parameter(self, "bias", self.bias_init or default, (self.features,), x) if self.use_bias else y


def _per_group(layer: Conv | ConvTranspose, name: str, channels: int) -> int:
    if layer.groups < 1 or channels % layer.groups:
        raise ValueError(f"{type(layer).__name__}: {layer.groups} groups do not divide {channels} {name}")
    return channels // layer.groups


class MaxPool(nn.Module):
    """`torch.nn.MaxPool2d`: `[B, H, W, C]` -> `[B, H', W', C]`, H' = ⌊(H + 2p − k)/s⌋ + 1.

    Attributes:
        window: Height and width of the window.
        stride: Pixels from one window to the next; by default the size of the window.
        padding: Pixels on both sides that are never the largest.
    """

    window: Size
    _: KW_ONLY
    stride: Size | None = None
    padding: Size = 0

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer.

        Args:
            x: `[B, H, W, C]`, floating-point.

        Returns:
            `[B, H', W', C]` in the dtype of `x`.
        """
        x = _as_input(self, x, 4)
        window, stride = pair(self.window, "window"), self.window if self.stride is None else self.stride
        return max_pool(x, window, stride=pair(stride, "stride"), padding=pair(self.padding, "padding"))


class BatchNorm(nn.Module):
    """`torch.nn.BatchNorm1d` and `BatchNorm2d`: over every axis but the last, `[..., C]` -> `[..., C]`.

    Training normalises with the batch's biased variance and moves the running statistics towards the batch's mean and
    **unbiased** variance by `momentum`; evaluation normalises with the running statistics. Devices that share a batch
    normalise it as one. 16-bit inputs are normalised in float32. Training has derivatives of reverse mode only.

    Attributes:
        momentum: How far the running statistics move at each step.
        eps: Added to the variance.
    """

    _: KW_ONLY
    momentum: float = 0.1
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the layer.

        Args:
            x: `[..., C]`, floating-point.
            train: Whether to normalise with the batch's statistics and move the running ones.

        Returns:
            `[..., C]` in the dtype of `x`.

        Raises:
            ValueError: A training batch holds no more than one value a channel.
        """
        given = _as_input(self, x)
        _check_eps(self)
        x, features = given.astype(accumulator(given.dtype)), given.shape[-1:]
        weight = _parameter(self, "weight", nn.initializers.ones, features, x)
        bias = _parameter(self, "bias", nn.initializers.zeros, features, x)
        for name in ("running_mean", "running_var"):
            _check_shape(self, "batch_stats", name, features, x)
        running_mean = self.variable("batch_stats", "running_mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "running_var", jnp.ones, features)
        tracked = self.variable("batch_stats", "num_batches_tracked", jnp.zeros, (), jnp.int32)
        if not train:
            mean, var = (value.value.astype(x.dtype) for value in (running_mean, running_var))
            y: jax.Array = (x - mean) * (weight * jax.lax.rsqrt(var + self.eps)) + bias
            return y.astype(given.dtype)
        count = shards() * math.prod(x.shape[:-1])
        if count < 2:
            raise ValueError(f"BatchNorm: training needs more than one value a channel, not {x.shape}")
        y, mean, var = batch_norm(x, weight, bias, self.eps, mean_over_shards)
        if not self.is_initializing():
            moved = self.momentum * jnp.stack([mean, var * (count / (count - 1))])
            running_mean.value = (1 - self.momentum) * running_mean.value + moved[0]
            running_var.value = (1 - self.momentum) * running_var.value + moved[1]
            tracked.value += 1
        return y.astype(given.dtype)


class GroupNorm(nn.Module):
    """`torch.nn.GroupNorm`: each image's groups of channels have mean 0 and variance 1, `[B, ..., C]` -> the same.

    Attributes:
        num_groups: Groups that the channels are divided into.
        eps: Added to the variance.
    """

    _: KW_ONLY
    num_groups: int
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer.

        Args:
            x: `[B, ..., C]`, floating-point.

        Returns:
            `[B, ..., C]` in the dtype of `x`.
        """
        given = _as_input(self, x)
        _check_eps(self)
        features = given.shape[-1:]
        if given.ndim < 2 or self.num_groups < 1 or features[0] % self.num_groups:
            raise ValueError(f"GroupNorm: {self.num_groups} groups do not divide the channels of {given.shape}")
        x = given.astype(accumulator(given.dtype))
        weight = _parameter(self, "weight", nn.initializers.ones, features, x)
        bias = _parameter(self, "bias", nn.initializers.zeros, features, x)
        x = x.reshape(*x.shape[:-1], self.num_groups, features[0] // self.num_groups)
        axes = (*range(1, x.ndim - 2), x.ndim - 1)
        centred = x - x.mean(axes, keepdims=True)
        var = jnp.square(centred).mean(axes, keepdims=True)
        return ((centred * inverse_root(var + self.eps)).reshape(given.shape) * weight + bias).astype(given.dtype)


def _check_eps(layer: BatchNorm | GroupNorm) -> None:
    if not layer.eps >= 0:
        raise ValueError(f"{type(layer).__name__}: eps must not be negative, but is {layer.eps}")


class _Recurrent(nn.Module):
    """What LSTM and GRU share."""

    gates: ClassVar[int]
    cell: ClassVar[Callable[..., Any]]
    states: ClassVar[int]

    hidden: int
    _: KW_ONLY
    num_layers: int = 1
    bidirectional: bool = False
    use_bias: bool = True
    return_carry: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, initial_carry: Any = None, *, return_carry: bool | None = None) -> Any:
        """Run all layers over sequences.

        Args:
            x: `[B, T, in]`, floating-point, T ≥ 1.
            initial_carry: The states before the first step, `[num_layers · directions, B, hidden]`, in the order of
                PyTorch; zeros by default. (h, c) for an LSTM, h for a GRU.
            return_carry: In place of the attribute of this name.

        Returns:
            The last layer's outputs `[B, T, directions · hidden]` in the dtype of `x`; with `return_carry`, a pair of
            them and the final states, like `initial_carry`.
        """
        x = _as_input(self, x, 3)
        directions = 2 if self.bidirectional else 1
        if self.num_layers < 1 or self.hidden < 1:
            raise ValueError(
                f"{type(self).__name__}: num_layers {self.num_layers} and hidden {self.hidden} must be at least 1"
            )
        given, x = x.dtype, _for_products(x)
        initial = self._check_carry(x, initial_carry, (self.num_layers * directions, x.shape[0], self.hidden))
        finals: list[tuple[jax.Array, ...]] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                suffix = f"_l{layer}" + ("_reverse" if direction else "")
                carry = None if initial is None else [states[len(finals)] for states in initial]
                sequence = jnp.flip(x, 1) if direction else x
                output, state = self.cell(
                    sequence,
                    *self._parameters(suffix, x),
                    initial_carry=carry[0] if carry and self.states == 1 else carry and tuple(carry),
                    return_carry=True,
                )
                outputs.append(jnp.flip(output, 1) if direction else output)
                finals.append(state if self.states > 1 else (state,))
            x = jnp.concatenate(outputs, axis=2) if directions > 1 else outputs[0]
        if not (self.return_carry if return_carry is None else return_carry):
            return x.astype(given)
        final = tuple(jnp.stack(states).astype(given) for states in zip(*finals, strict=True))
        return x.astype(given), final if self.states > 1 else final[0]

    def _parameters(self, suffix: str, x: jax.Array) -> list[jax.Array]:
        wide, init = self.gates * self.hidden, bounded_uniform(self.hidden)
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (x.shape[-1], wide), "weight_hh": (self.hidden, wide)}
        shapes |= {"bias_ih": (wide,), "bias_hh": (wide,)}
        return [
            _parameter(self, name + suffix, init, shape, x)
            if self.use_bias or name.startswith("weight")
            else jnp.zeros(shape, x.dtype)
            for name, shape in shapes.items()
        ]

    def _check_carry(self, x: jax.Array, carry: Any, shape: tuple[int, ...]) -> list[jax.Array] | None:
        if carry is None:
            return None
        states = [carry] if self.states == 1 else list(carry)
        if len(states) != self.states or any(jnp.shape(state) != shape for state in states):
            raise ValueError(
                f"{type(self).__name__}: initial_carry must be {self.states} array(s) of shape {shape} for inputs "
                f"{x.shape}, not {[jnp.shape(state) for state in states]}"
            )
        return [_for_products(jnp.asarray(state)) for state in states]


class LSTM(_Recurrent):
    """`torch.nn.LSTM`, batch first: `[B, T, in]` -> the outputs `[B, T, directions · hidden]`.

    Both bias vectors of PyTorch are kept: summed they would give the same outputs and another training.

    Attributes:
        hidden: Size of the state.
        num_layers: Layers, each of which reads the outputs of the one before.
        bidirectional: Whether each layer also runs from the last step to the first, with parameters of its own.
        use_bias: Whether there are biases.
        return_carry: Whether a call returns the final states too: `(outputs, (h, c))`.
    """

    _: KW_ONLY  # for Flax's own fields too
    gates: ClassVar[int] = 4
    cell: ClassVar[Callable[..., Any]] = staticmethod(lstm)
    states: ClassVar[int] = 2


class GRU(_Recurrent):
    """`torch.nn.GRU`, batch first: `[B, T, in]` -> the outputs `[B, T, directions · hidden]`.

    Attributes:
        hidden: Size of the state.
        num_layers: Layers, each of which reads the outputs of the one before.
        bidirectional: Whether each layer also runs from the last step to the first, with parameters of its own.
        use_bias: Whether there are biases.
        return_carry: Whether a call returns the final state too: `(outputs, h)`.
    """

    _: KW_ONLY  # for Flax's own fields too
    gates: ClassVar[int] = 3
    cell: ClassVar[Callable[..., Any]] = staticmethod(gru)
    states: ClassVar[int] = 1


LAYERS = Linear, Conv, ConvTranspose, MaxPool, BatchNorm, GroupNorm, LSTM, GRU


def summary(module: nn.Module) -> str:
    """A table of a module's layers in the order in which they are called: name, kind, output shape, parameters.

    For convolutions and pooling it shows how the output's height follows from the formula in the layer's docstring.

    Args:
        module: A module with an `input_shape`.

    Returns:
        The table as text.
    """
    rows = [("", "input", _shape_of(module.input_shape), "", "")]

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        y = call(*args, **kwargs)
        layer = context.module
        if context.method_name == "__call__" and isinstance(layer, LAYERS):
            size = sum(leaf.size for leaf in jax.tree.leaves(layer.variables.get("params", {})))
            height = _arithmetic(layer, args[0].shape[1])
            output = jax.tree.leaves(y)[0]  # a recurrent layer may return its final states too
            rows.append((".".join(layer.path), type(layer).__name__, _shape_of(output.shape[1:]), height, f"{size:,}"))
        return y

    with nn.intercept_methods(note):
        variables = jax.eval_shape(
            module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *module.input_shape), jnp.float32)
        )
    total = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    rows = [("layer", "kind", "output", "height", "parameters"), *rows, ("total", "", "", "", f"{total:,}")]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _shape_of(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _arithmetic(layer: nn.Module, size: int) -> str:
    """How a convolution or a pool makes its output's height of `size`."""
    if isinstance(layer, Conv) and layer.padding == "same":
        return str(size)
    if isinstance(layer, Conv):
        padding = 0 if isinstance(layer.padding, str) else layer.padding  # "valid"
        k, s, p, d = (pair(value)[0] for value in (layer.kernel_size, layer.stride, padding, layer.dilation))
        return f"⌊({size} + 2·{p} − {d}·({k}−1) − 1)/{s}⌋ + 1"
    if isinstance(layer, ConvTranspose):
        k, s, p, d = (pair(value)[0] for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation))
        extra = f" + {pair(layer.output_padding)[0]}" if pair(layer.output_padding)[0] else ""
        return f"({size}−1)·{s} − 2·{p} + {d}·({k}−1){extra} + 1"
    if isinstance(layer, MaxPool):
        k, s, p = (pair(value)[0] for value in (layer.window, layer.stride or layer.window, layer.padding))
        return f"⌊({size} + 2·{p} − {k})/{s}⌋ + 1"
    return ""


@contextlib.contextmanager
def intercepted(replacement: Callable[[nn.Module, Callable[[jax.Array], Any], jax.Array], Any]) -> Iterator[None]:
    """In this context, `replacement(layer, call, x)` is called in place of each layer of this file.

    Args:
        replacement: Takes the layer, what it would do (a function of x) and its input, and returns its output.
    """

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.method_name == "__call__" and isinstance(context.module, LAYERS):
            return replacement(context.module, lambda x: call(x, *args[1:], **kwargs), args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
