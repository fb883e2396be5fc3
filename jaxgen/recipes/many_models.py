"""Many models that are trained together, as one recipe."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import DictKey, GetAttrKey

from jaxgen import parallel
from jaxgen.errors import InputError
from jaxgen.training import Metrics, PyTree, Recipe, StateT

Hyperparams = Mapping[str, Sequence[float]]  # one value for each model


def many(
    recipe: Recipe[StateT],
    count: int,
    hyperparams: Hyperparams | None = None,
    *,
    indices: Sequence[int] | None = None,
) -> Recipe[StateT]:
    """A recipe that trains `count` models at once.

    Each model has its own initialisation and its own noise; all see the same batches in the same order, so that a
    comparison of them is paired. `one_of` is the recipe of one of them.

    The state is the recipe's own with a first axis of `count` in every array, and so are the metrics; in a history,
    `loss` is `loss/0`, `loss/1`, … Noise keeps the batch as its first axis and has the models as its second. Several
    devices have some of the models each. `variables` are a mapping with the keys `0.generator`, `0.discriminator`,
    `1.generator`, …, where the recipe has two networks, and `0.model`, `1.model`, … where it has one.

    `init` takes as its `weights` such a mapping, or the variables of one model, from which all then start.

    Args:
        recipe: how one model learns. Its functions are mapped by `jax.vmap`.
        count: the number of models.
        hyperparams: values of hyperparameters, one for each model, such as `{"learning_rate": [1e-3, 1e-4]}`. They
            replace what `optax.inject_hyperparams` keeps in the optimiser's state, in every optimiser that has a
            hyperparameter of that name: in both of a GAN.
        indices: for each model, the index of its keys, by default 0, 1, 2, …. Models with one index have the same
            initialisation and noise, so that they differ in their hyperparameters alone.

    Returns:
        The recipe of all models.

    Raises:
        InputError: a count below 1, indices or a hyperparameter without one value for each model, or one that no
            optimiser of the recipe has or that a schedule sets.
    """
    if count < 1:
        raise InputError(f"count {count}: must be at least 1")
    indices = range(count) if indices is None else indices
    if len(indices) != count:
        raise InputError(f"indices: there are {len(indices)} for {count} models")
    values = _checked(recipe, count, hyperparams or {})

    def init(key: jax.Array, weights: PyTree = None) -> StateT:
        def init_one(key: jax.Array, weights: PyTree, values: Mapping[str, jax.Array]) -> StateT:
            return _with_hyperparams(recipe.init(key, weights), values)

        is_of_each = _holds_several(weights)
        if is_of_each:
            _check_models(weights, count)
            weights = _stack([model_of(weights, index) for index in range(count)])
        each = {name: jnp.asarray(value) for name, value in values.items()}
        return jax.vmap(init_one, (0, 0 if is_of_each else None, 0))(keys_of(key), weights, each)

    def noise(key: jax.Array, batch_size: int) -> PyTree:
        keys = parallel.local_models(keys_of(key))
        return jax.vmap(lambda key: recipe.noise(key, batch_size), out_axes=1)(keys)

    def update(state: StateT, batch: PyTree, noise: PyTree) -> tuple[StateT, Metrics]:
        updated: tuple[StateT, Metrics] = jax.vmap(recipe.update, (0, None, 1))(state, batch, noise)
        return updated

    def variables(state: StateT) -> dict[str, PyTree]:
        each = jax.vmap(recipe.variables)(state)
        return {
            f"{index}.{name}": jax.tree.map(lambda array, index=index: array[index], network)
            for index in range(count)
            for name, network in _networks(each).items()
        }

    def keys_of(key: jax.Array) -> jax.Array:
        return jax.vmap(_key_of, (None, 0))(key, jnp.asarray(indices, jnp.int32))

    is_nested = recipe.models is not None  # then the devices share every batch instead
    return Recipe(init, noise, update, variables, recipe.smallest_batch, models=None if is_nested else count)


def one_of(recipe: Recipe[StateT], index: int) -> Recipe[StateT]:
    """The recipe whose training is that of one model of `many(recipe, count)`, up to rounding.

    That is, with the same keys for `init` and `fit`, and the same data. Hyperparameters that `many` sets are set in
    the recipe that is given here.

    Args:
        recipe: the recipe that `many` was given.
        index: the model's, from 0 on.

    Returns:
        The recipe of this model. Its `init` takes weights as that of `many` does.

    Raises:
        InputError: the index is negative.
    """
    if index < 0:
        raise InputError(f"index {index}: must be at least 0")

    def init(key: jax.Array, weights: PyTree = None) -> StateT:
        return recipe.init(_key_of(key, index), model_of(weights, index) if _holds_several(weights) else weights)

    def noise(key: jax.Array, batch_size: int) -> PyTree:
        return recipe.noise(_key_of(key, index), batch_size)

    return recipe._replace(init=init, noise=noise)


def _key_of(key: jax.Array, index: jax.Array | int) -> jax.Array:
    """A model's key, whatever the number of models."""
    return jax.random.fold_in(key, index)


# ---- Variables of several models ----


def _networks(variables: PyTree) -> Mapping[str, PyTree]:
    """The variables of a recipe by network, under the names that their files have in a run."""
    return variables if isinstance(variables, Mapping) and "params" not in variables else {"model": variables}


def _holds_several(weights: PyTree) -> bool:
    return isinstance(weights, Mapping) and any(name.startswith("0.") for name in weights)


def model_of(variables: Mapping[str, PyTree], index: int) -> PyTree:
    """The variables of one model among those of several.

    Args:
        variables: a mapping with the keys `0.model`, `1.model`, …, as the recipe of `many` has it.
        index: the model's.

    Returns:
        The variables, as the plain recipe has them: of one network, or a mapping of the names of several.

    Raises:
        InputError: there is no such model.
    """
    prefix = f"{index}."
    networks = {name.removeprefix(prefix): variables[name] for name in variables if name.startswith(prefix)}
    if not networks:
        raise InputError(f"the weights have no model {index}, only {', '.join(variables)}")
    return networks["model"] if networks.keys() == {"model"} else networks


def _check_models(weights: Mapping[str, PyTree], count: int) -> None:
    there = len({name.partition(".")[0] for name in weights})
    if there != count:
        raise InputError(f"the weights are of {there} models, wanted {count}")


def _stack(trees: Sequence[PyTree]) -> PyTree:
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *trees)


# ---- Hyperparameters in the state of an optimiser ----


def with_hyperparams(
    optimizer: Callable[..., optax.GradientTransformation], **values: Any
) -> optax.GradientTransformation:
    """An optimiser for one model, or for several that differ in a hyperparameter.

    Args:
        optimizer: makes it, such as `optax.adam`.
        values: its arguments. One that is a sequence has a value for each model, which `many` sets.

    Returns:
        `optimizer(**values)` if there is no sequence among them. Otherwise an optimiser that keeps its hyperparameters
        in its state, by `optax.inject_hyperparams`, with the first value of each sequence.
    """
    if not any(isinstance(value, Sequence) for value in values.values()):
        return optimizer(**values)
    first = {name: value[0] if isinstance(value, Sequence) else value for name, value in values.items()}
    made: optax.GradientTransformation = optax.inject_hyperparams(optimizer)(**first)
    return made


def _checked(recipe: Recipe[Any], count: int, hyperparams: Hyperparams) -> dict[str, np.ndarray]:
    """The values of hyperparameters as arrays `[count]`.

    Raises:
        InputError: they cannot be set in the recipe's state.
    """
    if not hyperparams:
        return {}
    values = {name: np.asarray(value) for name, value in hyperparams.items()}
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    settable, scheduled = _held(state, "hyperparams"), _held(state, "hyperparams_states")
    for name, value in values.items():
        if value.shape != (count,) or value.dtype.kind not in "fiu":
            raise InputError(f"hyperparams: {name} needs one number for each of the {count} models")
        if name not in settable:
            there = ", ".join(sorted(settable)) or "none"
            raise InputError(
                f"hyperparams: {name} is in no optimiser's state, there are {there}; make the optimiser by "
                f"optax.inject_hyperparams, as in optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)"
            )
        if name in scheduled:
            raise InputError(f"hyperparams: {name} is set by a schedule in every step; give the optimiser a number")
        if value.dtype.kind == "f" and any(jnp.issubdtype(dtype, jnp.integer) for dtype in settable[name]):
            raise InputError(f"hyperparams: {name} is a whole number in the optimiser; give the optimiser a float")
    return values


def _with_hyperparams(state: StateT, values: Mapping[str, jax.Array]) -> StateT:
    """The state with these values wherever an optimiser keeps a hyperparameter of that name."""

    def replaced(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = _hyperparam(path, "hyperparams")
        return leaf if name is None or name not in values else jnp.full_like(leaf, values[name])

    result: StateT = jax.tree_util.tree_map_with_path(replaced, state)
    return result


def _held(state: PyTree, field: str) -> dict[str, set[Any]]:
    """The names in `hyperparams` or `hyperparams_states` of Optax's states, and the dtypes of what they name."""
    names: dict[str, set[Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        for end in range(2, len(path) + 1):
            if name := _hyperparam(path[:end], field):
                names.setdefault(name, set()).add(leaf.dtype)
    return names


def _hyperparam(path: tuple[Any, ...], field: str) -> str | None:
    """The name of a hyperparameter that a path leads to; `optax.inject_hyperparams` keeps them in a dict."""
    is_one = len(path) > 1 and path[-2] == GetAttrKey(field) and isinstance(path[-1], DictKey)
    return path[-1].key if is_one else None
