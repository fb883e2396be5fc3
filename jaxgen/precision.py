"""The same recipe in another precision."""

from jaxgen.layers import multiplying_in
from jaxgen.training import Metrics, PyTree, Recipe


def in_precision(recipe: Recipe, precision: str) -> Recipe:
    """The recipe whose layers multiply in `precision`: "bf16", or "float32", which changes nothing.

    With bf16 parameters, optimiser, batch statistics, activations and losses stay float32, as PyTorch's autocast has it
    (https://docs.pytorch.org/docs/stable/amp.html). No model knows of it.
    """
    if precision == "float32":
        return recipe

    def update(state: PyTree, batch: PyTree, noise: PyTree) -> tuple[PyTree, Metrics]:
        with multiplying_in("bfloat16"):
            return recipe.update(state, batch, noise)

    return recipe._replace(update=update)
