"""Which step of a training made a value that is not finite, and which tensor was the first.

A training notices such a value at the end of a slice. Since a step is a function of its arguments, the steps can be
repeated one by one from a checkpoint, and the bad one operation by operation.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, Var, jaxpr_as_fun

from jaxgen import parallel, processes
from jaxgen.training import Carry, Loop, PyTree, Recipe, all_finite, epoch_of

# Operations that only wrap others, which are examined in their place.
_CALLS = {"jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call", "custom_vjp_call"}
_LONGEST_REPLAY = 600.0  # seconds for repeating steps
_LONGEST_WALK = 60.0  # seconds for examining the operations of the bad step


class BadStep(NamedTuple):
    """A step after which a value is not finite, though all were before it."""

    epoch: int  # finished epochs before it
    step: int  # finished steps before it in its epoch
    rows: list[int]  # the examples of its batch
    tensor: str  # the first one that is not finite
    before: Carry


class SearchStoppedError(Exception):
    """The search took too long. The steps up to (`epoch`, `step`) are good."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"all values are finite up to epoch {epoch + 1}, step {step}")
        self.epoch, self.step = epoch, step


def find_bad_step(
    loop: Loop,
    carry: Carry,
    *,
    key: jax.Array,
    epoch: int,
    step: int,
    until: tuple[int, int],
    skipped: Collection[tuple[int, int]] = (),
) -> BadStep | None:
    """The first step from (`epoch`, `step`) on after which a metric or a number of the state is not finite.

    It takes the time and the arithmetic of the training itself. `carry` stays the caller's.

    Args:
        loop: the training loop.
        carry: at (`epoch`, `step`).
        key: the key of the training.
        epoch: finished epochs.
        step: finished steps of the current epoch.
        until: where to stop looking, as (epoch, step).
        skipped: steps as (epoch, step) that the training skipped, and this does too.

    Returns:
        The step; None where everything is finite up to `until`, because the device computed something else than the
        first time, as a GPU may.

    Raises:
        SearchStoppedError: ten minutes were not enough.
    """
    place, deadline = (epoch, step), time.monotonic() + _LONGEST_REPLAY
    while True:  # once, and once more for every skipped step
        pieces = loop.slices(
            _copied(carry), epochs=until[0] + (until[1] > 0), key=key, epoch=place[0], step=place[1], longest=1
        )
        for piece in pieces:
            if place in skipped or int(piece.carry.bad_step) >= 0:
                break
            if processes.largest(int(time.monotonic() > deadline)):
                raise SearchStoppedError(*place)
            carry, place = _copied(piece.carry), (piece.epoch, piece.step)
            if place >= until:
                return None
        else:
            return None
        if place not in skipped:
            break
        place = place[0], place[1] + 1
    this_epoch = epoch_of(loop.source, jax.random.split(key), place[0])
    rows = this_epoch.rows[place[1] * loop.batch_size :][: loop.batch_size]
    noise = loop.recipe.noise(jax.random.fold_in(this_epoch.noise_key, place[1]), len(rows))
    batch = loop.batch(rows)
    tensor = first_bad_tensor(loop.recipe, parallel.gathered(loop.mesh, carry.state), batch, noise)
    return BadStep(*place, [int(row) for row in rows], tensor, carry)


def first_bad_tensor(recipe: Recipe[Any], state: PyTree, batch: PyTree, noise: PyTree) -> str:
    """The first value of a step that is not finite: in its batch, its operations or its results."""
    if bad := _bad_leaf({"batch": batch, "noise": noise}):
        return bad
    if bad := first_bad_operation(recipe.update, state, batch, noise):
        return bad
    # Compiled, an operation may round differently than alone.
    after, metrics = jax.jit(recipe.update)(state, batch, noise)
    return _bad_leaf({"metrics": metrics, "state": after}) or "none when the step is run alone"


def _bad_leaf(tree: PyTree) -> str | None:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return next((f"{jax.tree_util.keystr(path)} {_kind(leaf)}" for path, leaf in leaves if not _finite([leaf])), None)


def first_bad_operation(function: Callable[..., Any], *arguments: PyTree) -> str | None:
    """The first operation of a function that makes a value that is not finite of finite ones; None if there is none.

    Such as `log in jvp(ConvVAE)/decoder, float32[30, 32, 32, 1]`. Every operation is compiled by itself, which may take
    long; after a minute the answer is where the search was.
    """
    traced = jax.make_jaxpr(function)(*arguments)
    return _walk(traced, jax.tree.leaves(arguments), time.monotonic() + _LONGEST_WALK)[1]


def _walk(
    traced: ClosedJaxpr, arguments: Sequence[Any], deadline: float, within: str = ""
) -> tuple[list[Any], str | None]:
    """The results, or the first bad operation."""
    jaxpr = traced.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*traced.consts, *arguments], strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for operation in jaxpr.eqns:
        given = [read(variable) for variable in operation.invars]
        where = "/".join(filter(None, [within, str(operation.source_info.name_stack)]))
        if time.monotonic() > deadline:
            return [], f"none up to {operation.primitive} in {where or 'the update'}, where the search was stopped"
        inner = next((value for value in operation.params.values() if isinstance(value, ClosedJaxpr)), None)
        if inner is not None and operation.primitive.name in _CALLS:
            results, bad = _walk(inner, given, deadline, where)
            if bad:
                return [], bad
        else:
            variables = {v: value for v, value in zip(operation.invars, given, strict=True) if isinstance(v, Var)}
            alone = jaxpr.replace(constvars=[], invars=list(variables), outvars=operation.outvars, eqns=[operation])
            results = jaxpr_as_fun(ClosedJaxpr(alone, []))(*variables.values())
            wrong = next((result for result in results if not _finite([result])), None)
            if wrong is not None and _finite(given):
                return [], f"{operation.primitive} in {where or 'the update'}, {_kind(wrong)}"
        values.update(zip(operation.outvars, results, strict=True))
    return [read(variable) for variable in jaxpr.outvars], None


def _finite(values: Sequence[Any]) -> bool:
    return bool(all_finite([jnp.asarray(value) for value in values]))


def _kind(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _copied(carry: Carry) -> Carry:
    """A copy that may be donated."""
    copy: Carry = jax.tree.map(jnp.copy, carry)
    return copy
