"""The same recipe in another precision."""

import jax

from jaxgen.layers import matmul_dtype
from jaxgen.training import Metrics, PyTree, Recipe, StateT


def in_precision(recipe: Recipe[StateT], precision: str) -> Recipe[StateT]:
    """The recipe whose layers multiply in `precision`: "bf16", "tf32", or "float32", which changes nothing.

    With bf16 layers are given bfloat16 and give float32 back: parameters, optimiser, batch statistics and losses stay
    float32, and an LSTM or a GRU goes through its whole sequence in bfloat16. With tf32 a GPU rounds what it multiplies
    to TensorFloat-32, as PyTorch does after `torch.set_float32_matmul_precision("high")`
    (https://docs.pytorch.org/docs/stable/notes/cuda.html); the CPU knows no such type. No model knows of either.
    """
    if precision == "float32":
        return recipe

    def update(state: StateT, batch: PyTree, noise: PyTree) -> tuple[StateT, Metrics]:
        with matmul_dtype("bfloat16") if precision == "bf16" else jax.default_matmul_precision("tensorfloat32"):
            return recipe.update(state, batch, noise)

    return recipe._replace(update=update)
