"""Whether a program that is compiled for the CPU holds XLA's convolutions inside a loop, where they are slow."""

from typing import Any

import jax

__all__ = ["has_convolution_in_loop"]


def has_convolution_in_loop(lowered: jax.stages.Lowered) -> bool:
    """Whether a lowered function contains `stablehlo.convolution` inside a loop.

    This reads the StableHLO of the platform that was lowered for. The jaxpr would not do: there our own layers hold
    `lax`'s convolution too, as the branch of another platform.

    Args:
        lowered: From `jax.jit(function).lower(...)`, for one platform.

    Returns:
        True if the body of a `stablehlo.while`, or a function called from there, holds a convolution.
    """
    module: Any = lowered.compiler_ir("stablehlo")
    functions = {_symbol(operation, "sym_name"): operation for operation in module.body.operations}
    called_in_loops: set[str] = set()

    def search(operation: Any, in_loop: bool) -> bool:
        name = operation.operation.name
        if in_loop and name == "stablehlo.convolution":
            return True
        if in_loop and name == "func.call" and (callee := _symbol(operation, "callee")) not in called_in_loops:
            called_in_loops.add(callee)
            if search(functions[callee], True):
                return True
        inside = in_loop or name == "stablehlo.while"
        return any(
            search(nested, inside)
            for region in operation.operation.regions
            for block in region.blocks
            for nested in block.operations
        )

    return any(search(operation, False) for operation in functions.values())


def _symbol(operation: Any, attribute: str) -> str:
    return str(operation.operation.attributes[attribute]).strip('@"')
