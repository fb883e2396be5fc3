"""What makes a recipe from a loss function: one network, one optimiser, one descent a step."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.layers import init_variables
from jaxgen.parallel import mean_over_shards
from jaxgen.training import Metrics, PyTree, Recipe, descend


class State(NamedTuple):
    """What training changes."""

    variables: PyTree  # {"params": ...} and what else the module keeps
    optimizer: optax.OptState


class Noise(NamedTuple):
    """Nothing is random."""


Loss = Callable[[PyTree, PyTree, PyTree], tuple[jax.Array, tuple[Metrics, PyTree]]]


def recipe_from_loss(
    module: nn.Module,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    *,
    noise: Callable[[jax.Array, int], PyTree] = lambda key, batch_size: Noise(),
    mutable: tuple[str, ...] = (),
    smallest_batch: int | None = 1,
) -> Recipe[State]:
    """The recipe that minimises a loss of a network's parameters, one step of the optimiser for each batch.

    Args:
        module: The network.
        optimizer: An Optax optimiser.
        loss: `(variables, batch, noise) -> (loss, (metrics, updated))`, with `updated` the new values of the
            collections in `mutable`.
        noise: `(key, batch_size) -> noise`, every random number of one step.
        mutable: The collections of variables, besides the parameters, that the forward pass updates.
        smallest_batch: As in `Recipe`.

    Returns:
        The recipe. Its `init` raises `ValueError` if the module keeps variables that nothing would update.
    """

    def init(key: jax.Array, weights: PyTree = None) -> State:
        variables = jax.tree.map(jnp.array, weights or init_variables(module, key))
        if others := variables.keys() - {"params", *mutable}:
            raise ValueError(f"the module keeps {', '.join(sorted(others))}, which this recipe does not update")
        return State(variables, optimizer.init(variables["params"]))

    def update(state: State, batch: PyTree, noise: PyTree) -> tuple[State, Metrics]:
        def of_params(params: PyTree) -> tuple[jax.Array, tuple[Metrics, PyTree]]:
            return loss({**state.variables, "params": params}, batch, noise)

        params = state.variables["params"]
        gradient, (metrics, updated) = jax.grad(of_params, has_aux=True)(params)
        gradient, metrics = mean_over_shards((gradient, metrics))
        params, optimizer_state = descend(optimizer, gradient, state.optimizer, params)
        return State({"params": params, **updated}, optimizer_state), metrics

    return Recipe(init, noise, update, lambda state: state.variables, smallest_batch)
