"""An ONNX graph under construction, and the values in it.

Images are channels last in jaxgen and channels first in ONNX. A value remembers how its tensor lies, so that a chain of
layers is transposed at its ends only.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.export import is_symbolic_dim

Shape = tuple[Any, ...]  # of numbers, and of symbolic dimensions where the batch is involved

_CHANNELS_FIRST, _CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_TO_THE_END = np.iinfo(np.int64).max


class Value(NamedTuple):
    """A value of the program that is converted.

    Attributes:
        tensor: The name of a tensor of the graph, or a constant.
        shape: The shape of that tensor, with its channels last. Where it is 1, the value's shape may be more.
        channels_first: Whether the tensor's axes are in the order 0, 3, 1, 2.
    """

    tensor: str | np.ndarray
    shape: Shape
    channels_first: bool = False

    @property
    def is_constant(self) -> bool:
        return isinstance(self.tensor, np.ndarray)


class Graph:
    """The nodes and the constants of an ONNX graph.

    Args:
        output: The name of its output.

    Attributes:
        nodes: The nodes, in the order in which they are computed.
        initializers: The constants by name.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._names: dict[str, int] = {output: 1}
        self._constants: dict[tuple[str, str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[str] = []

    def input(self, name: str, shape: Shape) -> Value:
        """Add an input, whose first axis is the batch."""
        self._inputs.append(self._unique(name))
        return Value(name, tuple(shape))

    def finish(self, value: Value, shape: Shape) -> None:
        """Make a value the output."""
        from onnx import helper

        self.nodes.append(helper.make_node("Identity", [self.whole(value, shape)], [self._output], name=self._output))

    def node(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node.

        Args:
            operator: The ONNX operator.
            inputs: The names of its input tensors.
            name: The node's name; by default its operator's. A number is appended where there is one already.
            attributes: Its attributes.

        Returns:
            The name of its first output.
        """
        from onnx import helper

        name = self._unique(name or operator)
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray, name: str = "constant") -> str:
        """The name of a constant; equal ones of one name are stored once."""
        array = np.asarray(array, order="C")
        key = name, str(array.dtype), array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self._unique(name)
            self.initializers[self._constants[key]] = array
        return self._constants[key]

    def _unique(self, name: str) -> str:
        number = self._names[name] = self._names.get(name, 0) + 1
        return name if number == 1 else self._unique(f"{name}_{number}")

    def reshape(self, tensor: str, shape: Shape) -> str:
        """Reshape a tensor; a symbolic dimension is what remains."""
        return self.node(
            "Reshape", tensor, self.integers(-1 if is_symbolic_dim(length) else length for length in shape)
        )

    def integers(self, values: Any) -> str:
        """A constant of 64-bit integers, as shapes and axes are given."""
        return self.constant(np.array(list(values), np.int64))

    def slice(self, tensor: str, bounds: Sequence[tuple[Any, Any, int]], shape: Shape) -> str:
        """Cut a part out of a tensor: from, to and step along each axis."""
        cut = [
            (axis, start, _TO_THE_END if stop == length else stop, step)
            for axis, ((start, stop, step), length) in enumerate(zip(bounds, shape, strict=True))
            if not (start == 0 and stop == length and step == 1)
        ]
        if not cut:
            return tensor
        axes, starts, stops, steps = zip(*cut, strict=True)
        return self.node("Slice", tensor, *map(self.integers, (starts, stops, axes, steps)))

    # ---- Layouts ----

    def tensor(self, value: Value) -> str:
        """The tensor of a value, channels last, before it is broadcast to the value's shape."""
        if isinstance(value.tensor, np.ndarray):
            return self.constant(value.tensor)
        if value.channels_first:
            return self.node("Transpose", value.tensor, perm=_CHANNELS_LAST)
        return value.tensor

    def channels_first(self, value: Value, shape: Shape) -> str:
        """The tensor of images of this shape `[B, H, W, C]`, as `[B, C, H, W]`."""
        if value.channels_first and isinstance(value.tensor, str):
            return value.tensor
        batch, height, width, channels = shape
        whole = self.whole(value, shape)
        if height == width == 1 or channels == 1:  # the numbers are in the same order
            return self.reshape(whole, (batch, channels, height, width))
        return self.node("Transpose", whole, perm=_CHANNELS_FIRST)

    def whole(self, value: Value, shape: Shape) -> str:
        """The tensor of a value, channels last and of its whole shape."""
        tensor = self.tensor(value)
        if value.shape == tuple(shape):
            return tensor
        if not value.shape:
            return self.node("Expand", tensor, self._shape(shape))
        if any(is_symbolic_dim(length) and have == 1 for length, have in zip(shape, value.shape, strict=True)):
            return self.node("Expand", tensor, self._shape(shape))
        # Where the batch is symbolic, the tensor has it already, which a 1 leaves as it is.
        return self.node("Expand", tensor, self.integers(1 if is_symbolic_dim(length) else length for length in shape))

    def _shape(self, shape: Shape) -> str:
        """A shape as a tensor, with the batch of the graph's first input."""
        batch = self.node("Slice", self.node("Shape", self._inputs[0]), *map(self.integers, ([0], [1])))
        parts = [batch if is_symbolic_dim(length) else self.integers([length]) for length in shape]
        return self.node("Concat", *parts, axis=0)
