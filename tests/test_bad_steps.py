"""Finding the step and the tensor with the first non-finite value."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import training
from jaxgen.models import dcgan
from jaxgen.runs import bad_steps
from tests.support import tiny

KEY = jax.random.key(3)
BATCH = 4


def find(recipe, data, epoch=0, step=0, batch_size=BATCH, skipped=()):
    loop = training.Loop(recipe, training.as_source(data), batch_size)
    carry = loop.begin(recipe.init(jax.random.key(0)))
    for piece in loop.slices(carry, epochs=9, key=KEY, longest=1):
        if (piece.epoch, piece.step) == (epoch, step):
            carry = piece.carry
            break
    else:
        carry = loop.begin(recipe.init(jax.random.key(0)))
        epoch = step = 0
    return bad_steps.find_bad_step(loop, carry, key=KEY, until=(9, 0), epoch=epoch, step=step, skipped=skipped)


@pytest.mark.parametrize("bad_row", range(0, 22, 3))
def test_batch_with_the_bad_example(bad_row):
    data = tiny.points()
    data[bad_row] = np.nan
    bad = find(tiny.recipe(tiny.Config()), data)
    order = training.epoch_of(training.as_source(data), jax.random.split(KEY), 0).rows
    place = int(np.flatnonzero(np.asarray(order) == bad_row)[0])
    assert (bad.epoch, bad.step) == (0, place // BATCH)  # including the last batch, of two
    assert bad.rows == np.asarray(order)[bad.step * BATCH :][:BATCH].tolist()
    assert bad.tensor == f"['batch'] float32[{len(bad.rows)}, 8, 8, 1]"
    assert training.check_finite(training.Slice(0, 1, bad.before, None, 0.0)) is None


def test_finite_training_has_no_bad_step():
    assert find(tiny.recipe(tiny.Config()), tiny.points()) is None


def test_result_does_not_depend_on_the_checkpoint():
    """The recipe fails at one step of the third epoch, whatever the batch."""
    recipe = tiny.recipe(tiny.Config())

    def update(state, batch, noise):
        after, metrics = recipe.update(state, batch, noise)
        count = after.optimizer[0].count
        late = jax.tree.map(lambda leaf: jnp.where(count == 2 * 6 + 4, leaf * jnp.inf, leaf), after.variables)
        return after._replace(variables=late), metrics

    failing = recipe._replace(update=update)
    first = find(failing, tiny.points())
    assert (first.epoch, first.step) == (2, 3)
    for epoch, step in [(0, 1), (1, 0), (1, 5), (2, 0), (2, 3)]:
        assert find(failing, tiny.points(), epoch, step)[:4] == first[:4]


def test_skipped_steps_are_skipped_again():
    data = tiny.points()
    data[3] = np.nan
    recipe = tiny.recipe(tiny.Config())
    first = find(recipe, data)
    second = find(recipe, data, skipped={(first.epoch, first.step)})
    assert (first.epoch, second.epoch) == (0, 1)
    assert 3 in first.rows
    assert 3 in second.rows


def test_operation_is_named_with_its_layer():
    recipe = dcgan.digits_recipe(generator_optimizer=optax.sgd(1e30))
    bad = find(recipe, np.random.default_rng(0).random((12, 8, 8, 1), np.float32))
    assert "DigitsGenerator/convt_" in bad.tensor


def test_operation_with_infinite_inputs_is_not_blamed():
    def function(x):
        padded = jnp.pad(x, 1, constant_values=-jnp.inf)
        return jnp.log(padded[1:-1].max() - x)  # one of the differences is 0

    assert bad_steps.first_bad_operation(function, jnp.arange(3.0)) == "log in the update, float32[3]"
    assert bad_steps.first_bad_operation(jnp.exp, jnp.arange(3.0)) is None
