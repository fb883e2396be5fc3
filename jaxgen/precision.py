"""Training a recipe in another precision."""

import jax

from jaxgen.layers import matmul_dtype
from jaxgen.training import Metrics, PyTree, Recipe, StateT


def in_precision(recipe: Recipe[StateT], precision: str) -> Recipe[StateT]:
    """Make a recipe use another precision for matrix products and convolutions.

    With "bf16" their inputs are rounded to bfloat16; parameters, optimiser, biases, batch statistics and losses stay
    float32, as do the gates and states of an LSTM or GRU. With "tf32" a GPU rounds the inputs to TensorFloat-32, as
    PyTorch does after `torch.set_float32_matmul_precision("high")`
    (https://docs.pytorch.org/docs/stable/notes/cuda.html); on a CPU it changes nothing.

    Args:
        recipe: Any recipe whose network consists of `jaxgen.layers`.
        precision: "bf16", "tf32", or "float32", which changes nothing.

    Returns:
        The recipe with another `update`.
    """
    if precision == "float32":
        return recipe

    def update(state: PyTree, batch: PyTree, noise: PyTree) -> tuple[PyTree, Metrics]:
        with matmul_dtype("bfloat16") if precision == "bf16" else jax.default_matmul_precision("tensorfloat32"):
            return recipe.update(state, batch, noise)

    return recipe._replace(update=update)
