"""A network as a list of steps that a page can compute: traced from the module itself.

A module is traced with each layer of `jaxgen.layers` kept as one operation. What lies between the layers (activations,
reshapes, concatenations) is read from JAX's own record of the computation, so a step is what JAX computes, whatever the
module. Batch norm is folded into the layer before it. A module with an operation that is not in this file is refused.

The steps are for one image, and every shape begins with 1. `evaluate` computes them in NumPy, for any number of images.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal, Primitive

from jaxgen.layers import BatchNorm, Conv, ConvTranspose, Linear, MaxPool, intercepted, pair

__all__ = ["Network", "Step", "UnsupportedError", "evaluate", "trace"]

Arrays = Sequence[np.ndarray]


class UnsupportedError(Exception):
    """A module does something that a page cannot compute. The message names it."""


class Step(NamedTuple):
    """One operation.

    Attributes:
        op: Its name.
        inputs: The values that it takes: the network's inputs come first, then one value for each step.
        shape: The shape of its result for one image, `[1, ...]`.
        attributes: What else it takes, JSON-able.
        weights: Its arrays; `float32`, in the layouts that `_layer` describes.
    """

    op: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    attributes: Mapping[str, Any]
    weights: tuple[np.ndarray, ...]


class Network(NamedTuple):
    """A network.

    Attributes:
        inputs: The shapes of its inputs for one image.
        steps: Its operations, in order.
        outputs: The values that it returns.
    """

    inputs: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @property
    def weights(self) -> list[np.ndarray]:
        """The arrays of all steps, in order."""
        return [array for step in self.steps for array in step.weights]

    def with_weights(self, arrays: Iterable[np.ndarray]) -> "Network":
        """The same network with other weights."""
        given = iter(arrays)
        steps = (step._replace(weights=tuple(itertools.islice(given, len(step.weights)))) for step in self.steps)
        return self._replace(steps=tuple(steps))


def trace(function: Callable[..., Any], *inputs: jax.ShapeDtypeStruct) -> Network:
    """Trace a function of a network, such as `lambda z: module.apply(variables, z)`.

    Args:
        function: Takes and returns arrays with a batch of one. Variables are constants of it.
        inputs: The shapes and dtypes of what it takes.

    Raises:
        UnsupportedError: It does what a page cannot compute.
    """
    layers: list[tuple[Any, tuple[int, ...]]] = []

    def note(layer: Any, call: Callable[[jax.Array], Any], x: jax.Array) -> Any:
        y = call(x)
        if not isinstance(y, jax.Array):
            raise UnsupportedError(f"{type(layer).__name__} returns more than one array")
        layers.append((layer, y.shape))
        return y

    with intercepted(note):
        jax.eval_shape(function, *inputs)
    shapes = iter([shape for _, shape in layers])
    called: list[tuple[Any, Mapping[str, Any]]] = []

    def keep_whole(layer: Any, call: Callable[[jax.Array], Any], x: jax.Array) -> Any:
        called.append((layer, layer.variables))
        return _layer_call.bind(x, index=len(called) - 1, shape=next(shapes))

    with intercepted(keep_whole):
        traced = jax.make_jaxpr(lambda *x: function(*x))(*inputs)  # a new function: JAX remembers traces by function
    return _without_unused(_folded(_Translation(called, traced, [spec.shape for spec in inputs]).network))


_layer_call = Primitive("layer_call")
_layer_call.def_abstract_eval(lambda x, *, index, shape: jax.core.ShapedArray(shape, x.dtype))

# The names of JAX's operations whose steps need no more than their inputs.
_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "div": np.divide,
    "eq": np.equal,
    "exp": np.exp,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "log": np.log,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "neg": np.negative,
    "select_n": lambda which, no, yes: np.where(which, yes, no),
    "sqrt": np.sqrt,
    "sub": np.subtract,
    "tanh": np.tanh,
}
_CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
_SAME = {"convert_element_type", "copy", "copy_p", "stop_gradient"}


class _Translation:
    """JAX's record of a computation, as steps."""

    def __init__(
        self,
        layers: Sequence[tuple[Any, Mapping[str, Any]]],
        traced: ClosedJaxpr,
        inputs: Sequence[tuple[int, ...]],
    ) -> None:
        self._layers = layers
        self._inputs = len(inputs)
        self._steps: list[Step] = []
        outputs = self._run(traced, list(range(len(inputs))))
        self.network = Network(tuple(inputs), tuple(self._steps), tuple(self._number_of(value) for value in outputs))

    def _run(self, traced: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
        """Values are numbers of steps (or inputs), or arrays where they are known."""
        jaxpr = traced.jaxpr
        values: dict[Any, Any] = dict(zip(jaxpr.constvars, map(np.asarray, traced.consts), strict=True))
        values |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Any:
            return np.asarray(variable.val) if isinstance(variable, Literal) else values[variable]

        for equation in jaxpr.eqns:
            results = self._equation(equation, [read(variable) for variable in equation.invars])
            values.update(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, given: list[Any]) -> list[Any]:
        name, parameters = equation.primitive.name, equation.params
        if name in _CALLS:
            inner = next(value for value in parameters.values() if isinstance(value, ClosedJaxpr))
            return self._run(inner, given)
        if all(isinstance(value, np.ndarray) for value in given) and name != "layer_call":
            found = equation.primitive.bind(*map(jnp.asarray, given), **parameters)
            return [np.asarray(value) for value in (found if equation.primitive.multiple_results else [found])]
        if name in _SAME:
            return given
        shape = equation.outvars[0].aval.shape
        if name == "layer_call":
            layer, variables = self._layers[parameters["index"]]
            return [self._add(_layer(layer, variables, self._number_of(given[0]), shape))]
        op, attributes = _operation(name, parameters, [tuple(v.aval.shape) for v in equation.invars], shape)
        return [self._add(Step(op, tuple(map(self._number_of, given)), shape, attributes, ()))]

    def _number_of(self, value: Any) -> int:
        """The number of a value; one that is known becomes a step."""
        if isinstance(value, int):
            return value
        array = value.astype(np.float32)
        if array.ndim == 0:
            return self._add(Step("constant", (), (), {"value": float(array)}, ()))
        return self._add(Step("constant", (), array.shape, {}, (array,)))

    def _add(self, step: Step) -> int:
        self._steps.append(step)
        return self._inputs + len(self._steps) - 1


def _operation(
    name: str, parameters: Mapping[str, Any], inputs: Sequence[tuple[int, ...]], shape: tuple[int, ...]
) -> tuple[str, dict[str, Any]]:
    """The step that one of JAX's operations is, and its attributes."""
    if name in _ELEMENTWISE:
        return name, {}
    if name == "integer_pow" and parameters["y"] == 2:
        return "square", {}
    if name in ("reshape", "squeeze", "expand_dims"):
        return "reshape", {}
    if name == "broadcast_in_dim":
        placed = [1] * len(shape)
        for size, axis in zip(inputs[0], parameters["broadcast_dimensions"], strict=True):
            placed[axis] = size
        return "broadcast", {"placed": placed}
    if name == "transpose" and parameters["permutation"][0] == 0:
        return "transpose", {"order": list(parameters["permutation"])}
    if name == "concatenate" and parameters["dimension"] > 0:
        return "concatenate", {"axis": parameters["dimension"]}
    if name == "slice" and not parameters["strides"] and parameters["start_indices"][0] == 0:
        return "slice", {"start": list(parameters["start_indices"])}
    raise UnsupportedError(f"the operation {name}")


def _layer(layer: Any, variables: Mapping[str, Any], x: int, shape: tuple[int, ...]) -> Step:
    """A layer as a step. Products are written as `y = x Wᵀ`, so that a row of W is what one output is made of.

    linear: W `[out, in]`. conv: `[out, kh·kw·in]`. conv_transpose: `[kh·kw·out, in]`. Each is followed by the bias.
    """
    params = {name: np.asarray(value, np.float32) for name, value in variables.get("params", {}).items()}
    if isinstance(layer, BatchNorm):
        stats = {name: np.asarray(value, np.float64) for name, value in variables["batch_stats"].items()}
        scale = params["weight"] / np.sqrt(stats["running_var"] + layer.eps)
        shift = params["bias"] - stats["running_mean"] * scale
        return Step("affine", (x,), shape, {}, (scale.astype(np.float32), shift.astype(np.float32)))
    if isinstance(layer, MaxPool):
        window, stride = pair(layer.window), pair(layer.window if layer.stride is None else layer.stride)
        attributes = {"window": window, "stride": stride, "padding": pair(layer.padding)}
        return Step("max_pool", (x,), shape, attributes, ())
    if not isinstance(layer, Linear | Conv | ConvTranspose) or getattr(layer, "groups", 1) != 1:
        raise UnsupportedError(f"the layer {type(layer).__name__}" + (" with groups" * hasattr(layer, "groups")))
    weight, bias = params["weight"], params.get("bias", np.zeros(shape[-1], np.float32))
    if isinstance(layer, Linear):
        return Step("linear", (x,), shape, {}, (np.ascontiguousarray(weight.T), bias))
    if isinstance(layer.padding, str):
        raise UnsupportedError(f'the padding "{layer.padding}"')
    attributes = {
        "kernel": weight.shape[:2],
        "stride": pair(layer.stride),
        "padding": pair(layer.padding),
        "dilation": pair(layer.dilation),
    }
    if isinstance(layer, Conv):
        matrix = np.ascontiguousarray(weight.reshape(-1, weight.shape[-1]).T)
        return Step("conv", (x,), shape, attributes, (matrix, bias))
    return Step("conv_transpose", (x,), shape, attributes, (weight.reshape(-1, weight.shape[-1]), bias))


def _folded(network: Network) -> Network:
    """The network with each batch norm folded into the layer before it, where nothing else reads that layer."""
    uses = [value for step in network.steps for value in step.inputs] + list(network.outputs)
    steps, first = list(network.steps), len(network.inputs)
    for at, step in enumerate(network.steps):
        before = step.inputs[0] - first if step.op == "affine" else -1
        if before < 0 or uses.count(step.inputs[0]) > 1 or len(steps[before].weights) != 2:
            continue
        (matrix, bias), (scale, shift) = steps[before].weights, step.weights
        rows = np.tile(scale, len(matrix) // len(scale))[:, None]  # a transposed convolution has kh·kw rows a channel
        steps[at] = steps[before]._replace(weights=(matrix * rows, bias * scale + shift))
        steps[before] = Step("constant", (), (), {"value": 0.0}, ())  # nothing reads it any more
    return network._replace(steps=tuple(steps))


def _without_unused(network: Network) -> Network:
    """The network without steps whose results nothing reads."""
    first = len(network.inputs)
    needed = set(network.outputs)
    for at in reversed(range(len(network.steps))):
        if at + first in needed:
            needed |= set(network.steps[at].inputs)
    kept = [*range(first), *(at + first for at in range(len(network.steps)) if at + first in needed)]
    number = {old: new for new, old in enumerate(kept)}
    steps = tuple(
        network.steps[old - first]._replace(inputs=tuple(number[value] for value in network.steps[old - first].inputs))
        for old in kept[first:]
    )
    return Network(network.inputs, steps, tuple(number[value] for value in network.outputs))


# --- In NumPy ---------------------------------------------------------------------------------------------------------


Array = Any  # np.ndarray, which NumPy's operators do not promise to return


def evaluate(network: Network, *inputs: np.ndarray) -> list[np.ndarray]:
    """Compute a network's outputs.

    Args:
        network: The network.
        inputs: `[N, ...]` each.

    Returns:
        The outputs, `[N, ...]` each.
    """
    values = list(inputs)
    for step in network.steps:
        given = [values[number] for number in step.inputs]
        if step.op in _ELEMENTWISE:
            values.append(_ELEMENTWISE[step.op](*given))
        else:
            values.append(_NUMPY[step.op](step, *given))
    return [np.broadcast_to(values[number], (len(inputs[0]), *values[number].shape[1:])) for number in network.outputs]


def _concatenate(step: Step, *arrays: Array) -> Array:
    count = max(len(array) for array in arrays)
    full = [np.broadcast_to(array, (count, *array.shape[1:])) for array in arrays]
    return np.concatenate(full, step.attributes["axis"])


def _slice(step: Step, x: Array) -> Array:
    bounds = zip(step.attributes["start"][1:], step.shape[1:], strict=True)
    return x[(slice(None), *(slice(start, start + size) for start, size in bounds))]


def _broadcast(step: Step, x: Array) -> Array:
    placed = x.reshape(-1, *step.attributes["placed"][1:])
    return np.broadcast_to(placed, (len(placed), *step.shape[1:]))


def _linear(step: Step, x: Array) -> Array:
    weight, bias = step.weights
    return x @ weight.T + bias


def _conv(step: Step, x: Array) -> Array:
    weight, bias = step.weights
    (kh, kw), padding = step.attributes["kernel"], step.attributes["padding"]
    windows = _windows(step, np.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0))), (kh, kw))
    return windows.reshape(-1, *step.shape[1:3], weight.shape[1]) @ weight.T + bias


def _conv_transpose(step: Step, x: Array) -> Array:
    weight, bias = step.weights
    (kh, kw), (sh, sw) = step.attributes["kernel"], step.attributes["stride"]
    (dh, dw), (ph, pw) = step.attributes["dilation"], step.attributes["padding"]
    height, width = x.shape[1:3]
    spread = (x @ weight.T).reshape(*x.shape[:3], kh, kw, -1)
    rows = max(step.shape[1] + 2 * ph, (height - 1) * sh + dh * (kh - 1) + 1)
    columns = max(step.shape[2] + 2 * pw, (width - 1) * sw + dw * (kw - 1) + 1)
    y = np.zeros((len(x), rows, columns, spread.shape[-1]), x.dtype)
    for i, j in itertools.product(range(kh), range(kw)):
        top, left = i * dh, j * dw
        y[:, top : top + (height - 1) * sh + 1 : sh, left : left + (width - 1) * sw + 1 : sw] += spread[:, :, :, i, j]
    return y[:, ph : ph + step.shape[1], pw : pw + step.shape[2]] + bias


def _max_pool(step: Step, x: Array) -> Array:
    padding = ((0, 0), *((p, p) for p in step.attributes["padding"]), (0, 0))
    padded = np.pad(x, padding, constant_values=-math.inf)
    return _windows(step, padded, step.attributes["window"]).max((3, 4))


def _windows(step: Step, x: Array, size: Sequence[int]) -> Array:
    """The windows that outputs are made of: `[N, H', W', kh, kw, C]`."""
    (sh, sw), (dh, dw) = step.attributes["stride"], step.attributes.get("dilation", (1, 1))
    taken = [dh * (size[0] - 1) + 1, dw * (size[1] - 1) + 1]
    windows = np.lib.stride_tricks.sliding_window_view(x, taken, (1, 2))[:, ::sh, ::sw, :, ::dh, ::dw]
    return windows[:, : step.shape[1], : step.shape[2]].transpose(0, 1, 2, 4, 5, 3)


_NUMPY: dict[str, Callable[..., Array]] = {
    "affine": lambda step, x: x * step.weights[0] + step.weights[1],
    "broadcast": _broadcast,
    "concatenate": _concatenate,
    "constant": lambda step: step.weights[0] if step.weights else np.float32(step.attributes["value"]),
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "max_pool": _max_pool,
    "reshape": lambda step, x: x.reshape(-1, *step.shape[1:]),
    "slice": _slice,
    "square": lambda step, x: x * x,
    "transpose": lambda step, x: x.transpose(step.attributes["order"]),
}
