"""Finding the step that made a value not finite, and the tensor."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import replay, training
from jaxgen.models import dcgan
from tests.support import tiny

KEY = jax.random.key(3)
BATCH = 4


def found(recipe, data, epoch=0, step=0, batch_size=BATCH, left_out=()):
    source = training.as_source(data)
    carry = training.begin(recipe, source, recipe.init(jax.random.key(0)), batch_size)
    for piece in training.slices(recipe, source, carry, epochs=9, batch_size=batch_size, key=KEY, longest=1):
        if (piece.epoch, piece.step) == (epoch, step):
            carry = piece.carry
            break
    else:
        carry = training.begin(recipe, source, recipe.init(jax.random.key(0)), batch_size)
        epoch = step = 0
    options = {"batch_size": batch_size, "key": KEY, "epochs": 9, "epoch": epoch, "step": step, "left_out": left_out}
    return replay.find_bad_step(recipe, source, carry, **options)


@pytest.mark.parametrize("bad_row", range(0, 22, 3))
def test_the_batch_with_the_bad_example_is_found(bad_row):
    data = tiny.points()
    data[bad_row] = np.nan
    bad = found(tiny.recipe(tiny.Config()), data)
    order = training.epoch_of(training.as_source(data), jax.random.split(KEY), 0).rows
    place = int(np.flatnonzero(np.asarray(order) == bad_row)[0])
    assert (bad.epoch, bad.step) == (0, place // BATCH)  # the last batch, of two, included
    assert bad.rows == np.asarray(order)[bad.step * BATCH :][:BATCH].tolist()
    assert bad.tensor == f"['batch'] float32[{len(bad.rows)}, 8, 8, 1]"
    assert training.check_finite(training.Slice(0, 1, bad.before, None)) is None


def test_none_is_found_where_there_is_none():
    assert found(tiny.recipe(tiny.Config()), tiny.points()) is None


def test_it_is_the_same_step_from_every_checkpoint_before():
    """A recipe that fails at one step of the third epoch, whatever the batch."""
    recipe = tiny.recipe(tiny.Config())

    def update(state, batch, noise):
        after, metrics = recipe.update(state, batch, noise)
        count = after.optimizer[0].count
        late = jax.tree.map(lambda leaf: jnp.where(count == 2 * 6 + 4, leaf * jnp.inf, leaf), after.variables)
        return after._replace(variables=late), metrics

    failing = recipe._replace(update=update)
    first = found(failing, tiny.points())
    assert (first.epoch, first.step) == (2, 3)
    for epoch, step in [(0, 1), (1, 0), (1, 5), (2, 0), (2, 3)]:
        assert found(failing, tiny.points(), epoch, step)[:4] == first[:4]


def test_steps_that_were_left_out_are_left_out_again():
    data = tiny.points()
    data[3] = np.nan
    recipe = tiny.recipe(tiny.Config())
    first = found(recipe, data)
    second = found(recipe, data, left_out={(first.epoch, first.step)})
    assert (first.epoch, second.epoch) == (0, 1)
    assert 3 in first.rows
    assert 3 in second.rows


def test_an_operation_within_a_layer_is_named_with_it():
    recipe = dcgan.digits_recipe(generator_optimizer=optax.sgd(1e30))
    bad = found(recipe, np.random.default_rng(0).random((12, 8, 8, 1), np.float32))
    assert "DigitsGenerator/convt_" in bad.tensor


def test_infinities_that_an_operation_is_given_are_not_its_fault():
    def function(x):
        padded = jnp.pad(x, 1, constant_values=-jnp.inf)
        return jnp.log(padded[1:-1].max() - x)  # one of them is 0

    assert replay.first_bad_operation(function, jnp.arange(3.0)) == "log in the update, float32[3]"
    assert replay.first_bad_operation(jnp.exp, jnp.arange(3.0)) is None
