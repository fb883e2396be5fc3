"""ONNX: graphs for ONNX Runtime, browsers and other frameworks.

A function is traced with its layers opaque. Each layer of `jaxgen.layers` becomes the ONNX operator of its kind, as
`Conv` or `LSTM`, with its weights under PyTorch's names, whichever algorithm `jaxgen.ops` has for a platform. JAX's
primitives between the layers become elementwise operators and the like.
"""

import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax import export
from jax.extend.core import ClosedJaxpr, Literal, Primitive

from jaxgen.errors import InputError
from jaxgen.export.functions import Function, traced_as
from jaxgen.export.onnx import layers, operations
from jaxgen.export.onnx.graph import Graph, Value

__all__ = ["onnx_model"]

_OPSET = 18  # ONNX Runtime 1.14, of 2023
_IR_VERSION = 8  # of that time

_layer = Primitive("jaxgen_layer")  # (x, y, index) -> y, where y is what layer number `index` makes of x
_layer.def_abstract_eval(lambda x, y, *, index: y)

# Primitives that call a jaxpr, and the parameter that holds it.
_CALLS = {
    "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr", "jit": "jaxpr", "pjit": "jaxpr", "remat2": "jaxpr", "checkpoint": "jaxpr",
}  # fmt: skip


def onnx_model(function: Function, about: Mapping[str, Any] | None = None) -> bytes:
    """Write a function of a trained model as an ONNX model, which holds the weights.

    Images are `[batch, height, width, channels]` as everywhere in jaxgen. The batch is of any size.

    Args:
        function: What to export, with unrolled loops.
        about: What the model's metadata say under the key `jaxgen`, JSON-able.

    Returns:
        The content of the file.

    Raises:
        InputError: The package onnx is not installed, or the function computes something outside of its layers that is
            not supported.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ModuleNotFoundError as error:
        raise InputError("--to onnx needs the package onnx: pip install 'jaxgen[onnx]'") from error

    traced, called = _trace(function)
    graph = Graph(function.output)
    arguments = [
        graph.input(name, variable.aval.shape)
        for name, variable in zip(function.inputs, traced.jaxpr.invars, strict=True)
    ]
    (result,) = _converted(graph, traced, called, arguments)
    (made,) = traced.out_avals
    graph.finish(result, made.shape)

    def described(name: str, aval: Any) -> Any:
        shape = ["batch" if export.is_symbolic_dim(length) else length for length in aval.shape]
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(aval.dtype), shape)

    inputs = list(map(described, function.inputs, traced.in_avals))
    weights = [numpy_helper.from_array(array, name) for name, array in graph.initializers.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, function.name, inputs, [described(function.output, made)], weights),
        producer_name="jaxgen",
        ir_version=_IR_VERSION,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )
    helper.set_model_props(model, {"jaxgen": json.dumps(about or {}, sort_keys=True)})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _trace(function: Function) -> tuple[ClosedJaxpr, list[nn.Module]]:
    """The function's jaxpr, in which every layer is one equation, and the layers by their number."""
    called: list[nn.Module] = []

    def intercept(call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*arguments, **keywords)
        if context.method_name != "__call__" or not layers.supports(context.module, arguments, keywords):
            return output
        called.append(context.module)
        # What computed the output stays in the jaxpr, but nothing reads it there.
        return _layer.bind(arguments[0], output, index=len(called) - 1)

    def opaque(*arguments: jax.Array) -> jax.Array:
        with nn.intercept_methods(intercept):
            return function.call(*arguments)

    traced: ClosedJaxpr = jax.jit(opaque).trace(*traced_as(function.inputs)).jaxpr
    return traced, called


def _converted(graph: Graph, traced: ClosedJaxpr, called: list[nn.Module], arguments: list[Value]) -> list[Value]:
    """Convert a jaxpr, from its inputs to its outputs."""
    jaxpr = traced.jaxpr
    values: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
    for variable, array in zip(jaxpr.constvars, traced.consts, strict=True):
        values[variable] = Value(np.asarray(array), np.shape(array))

    def value(operand: Any) -> Value:
        if isinstance(operand, Literal):
            aval: Any = operand.aval
            return Value(np.asarray(operand.val, aval.dtype), ())
        return values[operand]

    for equation in _needed(jaxpr):
        name = equation.primitive.name
        if name == "jaxgen_layer":
            x, output = equation.invars[0], equation.outvars[0]
            layer = called[equation.params["index"]]
            made = [layers.convert(graph, layer, value(x), x.aval.shape, output.aval.shape)]
        elif name in _CALLS:
            inner = equation.params[_CALLS[name]]
            closed = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            made = _converted(graph, closed, called, [value(operand) for operand in equation.invars])
        elif len(equation.outvars) == 1:
            made = [operations.convert(graph, equation, [value(operand) for operand in equation.invars])]
        else:
            raise operations.unsupported(name)
        values.update(zip(equation.outvars, made, strict=True))
    return [value(operand) for operand in jaxpr.outvars]


def _needed(jaxpr: Any) -> list[Any]:
    """The equations that the outputs depend on, in order; a layer depends on its input only."""
    wanted, needed = {id(variable) for variable in jaxpr.outvars}, []
    for equation in reversed(jaxpr.eqns):
        if any(id(variable) in wanted for variable in equation.outvars):
            needed.append(equation)
            is_layer = equation.primitive.name == "jaxgen_layer"
            wanted |= {id(variable) for variable in (equation.invars[:1] if is_layer else equation.invars)}
    return needed[::-1]
