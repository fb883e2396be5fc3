"""Exponential moving averages of what is trained."""

from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.errors import InputError
from jaxgen.training import Metrics, PyTree, Recipe, StateT


class Averaged(NamedTuple, Generic[StateT]):
    """The state of an averaged recipe."""

    state: StateT  # of the recipe itself, which trains as if it were not averaged
    average: PyTree  # of its variables


def averaged(recipe: Recipe[StateT], decay: float) -> Recipe[Averaged[StateT]]:
    """The same training, whose variables are an exponential moving average over the steps.

    After every step, average ← decay · average + (1 − decay) · variables, beginning with the initial variables. What
    uses the recipe's `variables` (sampling, evaluation, saving) so uses the average; the metrics of the training are
    those of the model that is trained. The average is over about 1 / (1 − decay) steps, so a training should be
    several times as long.

    All floating-point variables are averaged. The running statistics of batch norm are among them, for they belong to
    the parameters under which they were taken. Others are counters (`num_batches_tracked`), which have their latest
    value.

    Args:
        recipe: a recipe.
        decay: from 0, which averages nothing, up to but not including 1; often 0.999.

    Returns:
        A recipe whose state is an `Averaged`.

    Raises:
        InputError: the decay is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"decay {decay}: must be at least 0 and less than 1, such as 0.999")

    def init(key: jax.Array, weights: PyTree = None) -> Averaged[StateT]:
        state = recipe.init(key, weights)
        return Averaged(state, jax.tree.map(jnp.array, recipe.variables(state)))

    def update(state: Averaged[StateT], batch: PyTree, noise: PyTree) -> tuple[Averaged[StateT], Metrics]:
        trained, metrics = recipe.update(state.state, batch, noise)
        average = jax.tree.map(moved, state.average, recipe.variables(trained))
        return Averaged(trained, average), metrics

    def moved(average: jax.Array, value: jax.Array) -> jax.Array:
        is_floating = jnp.issubdtype(value.dtype, jnp.floating)
        return decay * average + (1 - decay) * value if is_floating else value

    return Recipe(init, recipe.noise, update, lambda state: state.average, recipe.smallest_batch)
