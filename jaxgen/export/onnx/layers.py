"""The layers of `jaxgen.layers` as ONNX nodes, in evaluation mode."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import numpy as np

from jaxgen import layers
from jaxgen.export.onnx.graph import Graph, Shape, Value
from jaxgen.layers import pair

Arrays = dict[str, np.ndarray]


def convert(graph: Graph, layer: nn.Module, x: Value, shape: Shape, output_shape: Shape) -> Value:
    """Add a layer's nodes.

    Args:
        graph: Where to.
        layer: The bound layer, with concrete variables.
        x: Its input.
        shape: The input's shape.
        output_shape: The output's shape.
    """
    arrays = {name: np.asarray(array) for collection in layer.variables.values() for name, array in collection.items()}
    name = ".".join(layer.path) or type(layer).__name__
    tensor, channels_first = _NODES[type(layer)](graph, layer, arrays, name, x, shape)
    return Value(tensor, tuple(output_shape), channels_first)


def supports(layer: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    """Whether this call of a module is one of a layer that `convert` knows: of one array, in evaluation mode."""
    given = [argument for argument in (*arguments[1:], *keywords.values()) if argument is not None]
    return type(layer) in _NODES and not any(argument is not False for argument in given)


def _linear(graph: Graph, layer: layers.Linear, arrays: Arrays, name: str, x: Value, shape: Shape) -> tuple[str, bool]:
    weight = graph.constant(arrays["weight"], f"{name}.weight")
    bias = [graph.constant(arrays["bias"], f"{name}.bias")] if layer.use_bias else []
    tensor = graph.whole(x, shape)
    if len(shape) == 2:
        return graph.node("Gemm", tensor, weight, *bias, name=name), False
    product = graph.node("MatMul", tensor, weight, name=name)
    return (graph.node("Add", product, *bias) if bias else product), False


def _conv(graph: Graph, layer: layers.Conv, arrays: Arrays, name: str, x: Value, shape: Shape) -> tuple[str, bool]:
    kernel, dilation = pair(layer.kernel_size), pair(layer.dilation)
    if layer.padding == "same":
        total = [step * (taps - 1) for step, taps in zip(dilation, kernel, strict=True)]
        pads = [*(pixels // 2 for pixels in total), *(pixels - pixels // 2 for pixels in total)]
    else:
        pads = 2 * [*pair(0 if layer.padding == "valid" else layer.padding)]
    tensor = graph.node(
        "Conv",
        graph.channels_first(x, shape),
        *_kernel_and_bias(graph, arrays, name),
        name=name,
        kernel_shape=kernel,
        strides=pair(layer.stride),
        pads=pads,
        dilations=dilation,
        group=layer.groups,
    )
    return tensor, True


def _conv_transpose(
    graph: Graph, layer: layers.ConvTranspose, arrays: Arrays, name: str, x: Value, shape: Shape
) -> tuple[str, bool]:
    tensor = graph.node(
        "ConvTranspose",
        graph.channels_first(x, shape),
        *_kernel_and_bias(graph, arrays, name),
        name=name,
        kernel_shape=pair(layer.kernel_size),
        strides=pair(layer.stride),
        pads=2 * [*pair(layer.padding)],
        output_padding=pair(layer.output_padding),
        dilations=pair(layer.dilation),
        group=layer.groups,
    )
    return tensor, True


def _kernel_and_bias(graph: Graph, arrays: Arrays, name: str) -> list[str]:
    """The kernel in the layout that ONNX shares with PyTorch, and the bias where there is one."""
    kernel = graph.constant(arrays["weight"].transpose(3, 2, 0, 1), f"{name}.weight")
    return [kernel, *([graph.constant(arrays["bias"], f"{name}.bias")] if "bias" in arrays else [])]


def _max_pool(
    graph: Graph, layer: layers.MaxPool, arrays: Arrays, name: str, x: Value, shape: Shape
) -> tuple[str, bool]:
    tensor = graph.node(
        "MaxPool",
        graph.channels_first(x, shape),
        name=name,
        kernel_shape=pair(layer.window),
        strides=pair(layer.window if layer.stride is None else layer.stride),
        pads=2 * [*pair(layer.padding)],
    )
    return tensor, True


def _batch_norm(
    graph: Graph, layer: layers.BatchNorm, arrays: Arrays, name: str, x: Value, shape: Shape
) -> tuple[str, bool]:
    parameters = [
        graph.constant(arrays[array], f"{name}.{array}") for array in ("weight", "bias", "running_mean", "running_var")
    ]
    if len(shape) == 4:
        tensor = graph.channels_first(x, shape)
        return graph.node("BatchNormalization", tensor, *parameters, name=name, epsilon=layer.eps), True
    tensor = graph.whole(x, shape)
    rows = tensor if len(shape) == 2 else graph.node("Reshape", tensor, graph.integers([-1, shape[-1]]))
    normal = graph.node("BatchNormalization", rows, *parameters, name=name, epsilon=layer.eps)
    return (normal if len(shape) == 2 else graph.reshape(normal, shape)), False


def _recurrent(
    graph: Graph, layer: layers.LSTM | layers.GRU, arrays: Arrays, name: str, x: Value, shape: Shape
) -> tuple[str, bool]:
    is_lstm = isinstance(layer, layers.LSTM)
    order = (0, 3, 1, 2) if is_lstm else (1, 0, 2)  # ONNX has the gates i, o, f, g and z, r, n
    settings: dict[str, Any] = {} if is_lstm else {"linear_before_reset": 1}
    suffixes = ["", "_reverse"] if layer.bidirectional else [""]
    tensor = graph.node("Transpose", graph.whole(x, shape), perm=(1, 0, 2))  # [T, B, in]
    for number in range(layer.num_layers):

        def stacked(kind: str, number: int = number) -> np.ndarray:
            """The parameters of this kind, of both directions, `[directions, gates · hidden, …]`."""
            return np.stack(
                [_reordered(arrays[f"{kind}_l{number}{suffix}"].T, layer.hidden, order) for suffix in suffixes]
            )

        weights = [graph.constant(stacked(kind), f"{name}.{kind}_l{number}") for kind in ("weight_ih", "weight_hh")]
        if layer.use_bias:
            bias = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
            weights.append(graph.constant(bias, f"{name}.bias_l{number}"))
        outputs = graph.node(  # [T, directions, B, hidden]
            type(layer).__name__,
            tensor,
            *weights,
            name=name,
            hidden_size=layer.hidden,
            direction="bidirectional" if layer.bidirectional else "forward",
            **settings,
        )
        by_step = graph.node("Transpose", outputs, perm=(0, 2, 1, 3))
        tensor = graph.node("Reshape", by_step, graph.integers([0, 0, len(suffixes) * layer.hidden]))
    return graph.node("Transpose", tensor, perm=(1, 0, 2)), False


def _reordered(parameters: np.ndarray, hidden: int, order: tuple[int, ...]) -> np.ndarray:
    """`[gates · hidden, …]` with its gates in another order."""
    return np.concatenate([parameters[gate * hidden : (gate + 1) * hidden] for gate in order])


_NODES: dict[type, Callable[..., tuple[str, bool]]] = {
    layers.Linear: _linear,
    layers.Conv: _conv,
    layers.ConvTranspose: _conv_transpose,
    layers.MaxPool: _max_pool,
    layers.BatchNorm: _batch_norm,
    layers.LSTM: _recurrent,
    layers.GRU: _recurrent,
}
