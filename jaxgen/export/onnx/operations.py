"""What lies between the layers, JAX's primitives, as ONNX nodes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.export import is_symbolic_dim

from jaxgen.errors import InputError
from jaxgen.export.onnx.graph import Graph, Shape, Value

_ELEMENTWISE = {
    "abs": "Abs", "add": "Add", "and": "And", "ceil": "Ceil", "cos": "Cos", "div": "Div", "eq": "Equal", "erf": "Erf",
    "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log",
    "logistic": "Sigmoid", "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not",
    "or": "Or", "pow": "Pow", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "sub": "Sub", "tanh": "Tanh",
}  # fmt: skip
_UNCHANGED = {"copy", "stop_gradient"}


def convert(graph: Graph, equation: Any, inputs: list[Value]) -> Value:
    """Add the nodes of an equation with one result.

    Args:
        graph: Where to.
        equation: The equation of a jaxpr.
        inputs: The values of its operands.

    Returns:
        The value of its result.

    Raises:
        InputError: ONNX has no counterpart here.
    """
    name, shape = equation.primitive.name, tuple(equation.outvars[0].aval.shape)
    shapes = [tuple(operand.aval.shape) for operand in equation.invars]
    known = all(value.is_constant and value.shape == whole for value, whole in zip(inputs, shapes, strict=True))
    if known and not any(map(is_symbolic_dim, shape)):
        with jax.ensure_compile_time_eval():
            result = np.asarray(equation.primitive.bind(*(value.tensor for value in inputs), **equation.params))
        return Value(result, shape)
    if name in _UNCHANGED:
        return inputs[0]
    if name == "broadcast_in_dim":
        return _broadcast(graph, equation, inputs[0])
    if name == "transpose" and equation.params["permutation"] == (0, 3, 1, 2) and inputs[0].channels_first:
        return Value(inputs[0].tensor, shape)  # it lies so already
    if name == "gather" and isinstance(inputs[1].tensor, np.ndarray) and len(shapes[1]) == 1:
        return Value(_part(graph, equation, graph.whole(inputs[0], shapes[0]), inputs[1].tensor), shape)
    if name in _ELEMENTWISE:
        return _elementwise(graph, inputs, lambda *tensors: graph.node(_ELEMENTWISE[name], *tensors))
    if name in _SPECIAL:
        return _elementwise(graph, inputs, lambda *tensors: _SPECIAL[name](graph, equation, *tensors))
    if name in _OF_WHOLE:
        return Value(_OF_WHOLE[name](graph, equation, *map(graph.whole, inputs, shapes)), shape)
    raise unsupported(name)


def unsupported(name: str) -> InputError:
    return InputError(
        f"ONNX: {name} is not supported outside the layers of jaxgen.layers; export to stablehlo, which takes any model"
    )


# ---- Elementwise ----


def _elementwise(graph: Graph, inputs: Sequence[Value], add: Callable[..., str]) -> Value:
    """Apply an operator that broadcasts. Channels stay first where all other operands are single numbers."""
    arrays = [value for value in inputs if any(length != 1 for length in value.shape)]
    channels_first = bool(arrays) and all(value.channels_first for value in arrays)
    lying = [value._replace(channels_first=False) for value in inputs] if channels_first else inputs
    return Value(add(*map(graph.tensor, lying)), _joint_shape(inputs), channels_first)


def _joint_shape(values: Sequence[Value]) -> Shape:
    """The shape to which shapes are broadcast; those of no dimensions are of single numbers."""
    shapes = [value.shape for value in values if value.shape]
    return tuple(next((length for length in axis if length != 1), 1) for axis in zip(*shapes, strict=True))


def _one(equation: Any) -> np.ndarray:
    return np.ones((), equation.outvars[0].aval.dtype)


def _cast(graph: Graph, equation: Any, x: str) -> str:
    from onnx.helper import np_dtype_to_tensor_dtype

    return graph.node("Cast", x, to=np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"])))


def _select(graph: Graph, equation: Any, which: str, *cases: str) -> str:
    if len(cases) != 2 or equation.invars[0].aval.dtype != bool:
        raise unsupported("a choice among more than two")
    return graph.node("Where", which, cases[1], cases[0])


def _integer_power(graph: Graph, equation: Any, x: str) -> str:
    return graph.node("Pow", x, graph.constant(_one(equation) * equation.params["y"]))


_SPECIAL: dict[str, Callable[..., str]] = {
    "clamp": lambda graph, _, low, x, high: graph.node("Min", graph.node("Max", x, low), high),
    "convert_element_type": _cast,
    "expm1": lambda graph, equation, x: graph.node("Sub", graph.node("Exp", x), graph.constant(_one(equation))),
    "integer_pow": _integer_power,
    "log1p": lambda graph, equation, x: graph.node("Log", graph.node("Add", x, graph.constant(_one(equation)))),
    "ne": lambda graph, _, x, y: graph.node("Not", graph.node("Equal", x, y)),
    "rsqrt": lambda graph, _, x: graph.node("Reciprocal", graph.node("Sqrt", x)),
    "select_n": _select,
    "square": lambda graph, _, x: graph.node("Mul", x, x),
}


# ---- Shapes and sums ----


def _broadcast(graph: Graph, equation: Any, x: Value) -> Value:
    """Give a value its new axes, of length 1; it is broadcast only where something needs the whole of it."""
    axes, rank = equation.params["broadcast_dimensions"], len(equation.outvars[0].aval.shape)
    lengths = dict(zip(axes, x.shape, strict=True))
    shape = tuple(lengths.get(axis, 1) for axis in range(rank))
    if isinstance(x.tensor, np.ndarray):
        return Value(x.tensor.reshape(shape), shape)
    return x if shape == x.shape else Value(graph.reshape(graph.tensor(x), shape), shape)


def _reshape(graph: Graph, equation: Any, x: str) -> str:
    return graph.reshape(x, equation.outvars[0].aval.shape)


def _transpose(graph: Graph, equation: Any, x: str) -> str:
    return graph.node("Transpose", x, perm=equation.params["permutation"])


def _slice(graph: Graph, equation: Any, x: str) -> str:
    starts, limits, steps = (equation.params[name] for name in ("start_indices", "limit_indices", "strides"))
    bounds = list(zip(starts, limits, steps or [1] * len(starts), strict=True))
    return graph.slice(x, bounds, equation.invars[0].aval.shape)


def _concatenate(graph: Graph, equation: Any, *parts: str) -> str:
    return graph.node("Concat", *parts, axis=equation.params["dimension"])


def _part(graph: Graph, equation: Any, x: str, start: np.ndarray) -> str:
    """A part that begins at a known place, as `x[:, 3:, 0]` takes it."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    starts = dict(zip(numbers.start_index_map, start.tolist(), strict=True))
    bounds = [(starts.get(axis, 0), starts.get(axis, 0) + size, 1) for axis, size in enumerate(sizes)]
    part = graph.slice(x, bounds, equation.invars[0].aval.shape)
    return graph.reshape(part, equation.outvars[0].aval.shape)


def _gather(graph: Graph, equation: Any, x: str, indices: str) -> str:
    """Entries along one axis, as `x[:, ::2]` and `table[labels]` take them."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    shape, at = equation.invars[0].aval.shape, equation.invars[1].aval.shape
    axis, *others = numbers.start_index_map
    kept = (*range(axis), *range(axis + len(at) - 1, len(shape) + len(at) - 2))
    simple = (
        not others
        and numbers.collapsed_slice_dims == (axis,)
        and not numbers.operand_batching_dims
        and tuple(sizes) == (*shape[:axis], 1, *shape[axis + 1 :])
        and numbers.offset_dims == kept
    )
    if not simple:
        raise unsupported("gather")
    return graph.node("Gather", x, graph.reshape(indices, at[:-1]), axis=axis)


def _dot(graph: Graph, equation: Any, x: str, y: str) -> str:
    (x_sum, y_sum), (x_batch, y_batch) = equation.params["dimension_numbers"]
    ranks = [len(operand.aval.shape) for operand in equation.invars]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    of_x = [next(letters) for _ in range(ranks[0])]
    shared = {**dict(zip(y_sum, x_sum, strict=True)), **dict(zip(y_batch, x_batch, strict=True))}
    of_y = [of_x[shared[axis]] if axis in shared else next(letters) for axis in range(ranks[1])]
    result = [
        *(of_x[axis] for axis in x_batch),
        *(letter for axis, letter in enumerate(of_x) if axis not in (*x_batch, *x_sum)),
        *(letter for axis, letter in enumerate(of_y) if axis not in shared),
    ]
    return graph.node("Einsum", x, y, equation=f"{''.join(of_x)},{''.join(of_y)}->{''.join(result)}")


def _reduction(operator: str) -> Callable[[Graph, Any, str], str]:
    def reduce(graph: Graph, equation: Any, x: str) -> str:
        return graph.node(operator, x, graph.integers(equation.params["axes"]), keepdims=0)

    return reduce


_OF_WHOLE: dict[str, Callable[..., str]] = {
    "concatenate": _concatenate,
    "dot_general": _dot,
    "gather": _gather,
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_sum": _reduction("ReduceSum"),
    "reshape": _reshape,
    "slice": _slice,
    "squeeze": _reshape,
    "transpose": _transpose,
}
