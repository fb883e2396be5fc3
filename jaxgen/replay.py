"""Which step of a training made a value that is not finite, and which tensor was the first of them.

A training notices such a value at the end of a slice. Since a step is a function of what it is given, the steps can be
run again from a checkpoint, one by one, and the one to blame operation by operation.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun

from jaxgen.training import Carry, PyTree, Recipe, Source, all_finite, epoch_of, slices

# Operations that only stand for others, which are looked at in their place.
CALLS = {"jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call", "custom_vjp_call"}


class BadStep(NamedTuple):
    epoch: int  # finished epochs before it
    step: int  # steps before it in its epoch
    rows: list[int]  # the examples of its batch
    tensor: str  # the first one that is not finite
    before: Carry


def find_bad_step(
    recipe: Recipe,
    source: Source,
    carry: Carry,
    *,
    batch_size: int,
    key: jax.Array,
    epoch: int,
    step: int,
    epochs: int,
    left_out: Collection[tuple[int, int]] = (),
    devices: Sequence[jax.Device] = (),
) -> BadStep | None:
    """The first step from (`epoch`, `step`) on after which a metric or a number of the state is not finite.

    It takes time and arithmetic as the training itself did. `carry` stays the caller's. None where all is finite until
    `epochs` are finished: the device has then computed otherwise than the first time, as a GPU may.

    Args:
        carry, key, batch_size, epochs, epoch, step, devices: as `jaxgen.training.slices` was given them.
        left_out: steps as (epoch, step) that the training left out, and this does too.
    """
    place = epoch, step
    while True:  # once, and once more for every step that is left out
        pieces = slices(
            recipe, source, copied(carry), epochs=epochs, batch_size=batch_size, key=key,
            epoch=place[0], step=place[1], longest=1, devices=devices,
        )  # fmt: skip
        for piece in pieces:
            if place in left_out or int(piece.carry.bad_step) >= 0:
                break
            carry, place = copied(piece.carry), (piece.epoch, piece.step)
        else:
            return None
        if place not in left_out:
            break
        place = place[0], place[1] + 1
    this_epoch = epoch_of(source, jax.random.split(key), place[0])
    rows = this_epoch.rows[place[1] * batch_size :][:batch_size]
    noise = recipe.noise(jax.random.fold_in(this_epoch.noise_key, place[1]), len(rows))
    tensor = first_bad_tensor(recipe, carry.state, source.batch(source.arrays, rows), noise)
    return BadStep(*place, [int(row) for row in rows], tensor, carry)


def first_bad_tensor(recipe: Recipe, state: PyTree, batch: PyTree, noise: PyTree) -> str:
    """What is the first not to be finite in a step: in its batch, in its arithmetic, or in what comes out of it."""
    if found := bad_leaf({"batch": batch, "noise": noise}):
        return found
    if found := first_bad_operation(recipe.update, state, batch, noise):
        return found
    # Compiled, an operation may round otherwise than alone.
    after, metrics = jax.jit(recipe.update)(state, batch, noise)
    return bad_leaf({"metrics": metrics, "state": after}) or "none when the step is run alone"


def bad_leaf(tree: PyTree) -> str | None:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return next((f"{jax.tree_util.keystr(path)} {kind(leaf)}" for path, leaf in leaves if not finite([leaf])), None)


def first_bad_operation(function: Callable[..., Any], *arguments: PyTree) -> str | None:
    """The first operation of the function that makes something not finite of what was finite; None if there is none.

    Such as `log in jvp(ConvVAE)/decoder, float32[30, 32, 32, 1]`.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    return walk(traced, jax.tree.leaves(arguments))[1]


def walk(traced: ClosedJaxpr, arguments: Sequence[Any], within: str = "") -> tuple[list[Any], str | None]:
    """The results, up to the first bad operation, and that operation."""
    jaxpr = traced.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for operation in jaxpr.eqns:
        given = [read(variable) for variable in operation.invars]
        where = "/".join(filter(None, [within, str(operation.source_info.name_stack)]))
        inner = next((value for value in operation.params.values() if isinstance(value, ClosedJaxpr)), None)
        if inner is not None and operation.primitive.name in CALLS:
            results, found = walk(inner, given, where)
            if found:
                return [], found
        else:
            variables = {v: value for v, value in zip(operation.invars, given, strict=True) if isinstance(v, Var)}
            alone = jaxpr.replace(constvars=[], invars=list(variables), outvars=operation.outvars, eqns=[operation])
            results = jaxpr_as_fun(ClosedJaxpr(alone, []))(*variables.values())
            bad = next((result for result in results if not finite([result])), None)
            if bad is not None and finite(given):
                return [], f"{operation.primitive} in {where or 'the update'}, {kind(bad)}"
        values.update(zip(operation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars], None


def finite(values: Sequence[Any]) -> bool:
    return bool(all_finite([jnp.asarray(value) for value in values]))


def kind(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}"


def copied(carry: Carry) -> Carry:
    """A copy that a slice may consume."""
    return jax.tree.map(jnp.copy, carry)
