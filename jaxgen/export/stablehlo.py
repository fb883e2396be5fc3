"""StableHLO: programs for CPU and CUDA that need JAX alone, written by `jax.export`."""

import jax
from jax import export

from jaxgen.export.functions import Function, traced_as

PLATFORMS = ("cpu", "cuda")


def stablehlo(function: Function) -> bytes:
    """Write a function of a trained model as a StableHLO program, which holds the weights.

    It runs wherever JAX does, on the CPU or on an NVIDIA GPU, without jaxgen or Flax:

        program = jax.export.deserialize(bytearray(content))
        images = program.call(z)

    Args:
        function: What to export. The batch, None in its shapes, is of any size.

    Returns:
        The content of the file.
    """
    with jax.default_matmul_precision("highest"):  # or a GPU would round the products' inputs to tf32
        exported = export.export(jax.jit(function.call), platforms=PLATFORMS)(*traced_as(function.inputs))
    return bytes(exported.serialize())
