"""The training loop: one trace, any division into slices, vmap, and randomness that depends on (key, epoch, step)."""

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import training
from jaxgen.models import dcgan
from jaxgen.training import Carry, Epoch, Recipe, Source, descend

SIZE, BATCH = 22, 4  # five full batches and one of two


class LineState(NamedTuple):
    params: jax.Array
    optimizer: optax.OptState


def line_recipe(learning_rate=0.1, smallest_batch: int | None = 1) -> Recipe:
    """A minimal recipe: fit a mean, with noise in every step."""
    optimizer = optax.adam(learning_rate)

    def init(key, weights=None):
        params = jnp.asarray(jax.random.normal(key, (3,)) if weights is None else weights)
        return LineState(params, optimizer.init(params))

    def update(state, batch, noise):
        def error(params):
            return jnp.square(params - batch - 0.1 * noise).mean()

        loss, gradient = jax.value_and_grad(error)(state.params)
        params, optimizer_state = descend(optimizer, gradient, state.optimizer, state.params)
        return LineState(params, optimizer_state), {
            "loss": (loss * batch.shape[0], jnp.full_like(loss, batch.shape[0]))
        }

    def noise(key, batch_size):
        return jax.random.normal(key, (batch_size, 3))

    return Recipe(init, noise, update, lambda state: state.params, smallest_batch)


def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(SIZE, 3))


def images(count: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(count, 8, 8, 1)).astype(dtype)


def source(dtype=jnp.float32) -> Source:
    return training.as_source(jnp.asarray(rows(), dtype))


def same_bits(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def train(recipe, data, *, epochs=3, seed=1, start=None, **options):
    """All slices, with the carry on the host."""
    loop = training.Loop(recipe, data, BATCH)
    carry = start.carry if start else loop.begin(recipe.init(jax.random.key(0)))
    position = {"epoch": start.epoch, "step": start.step} if start else {}
    pieces = loop.slices(carry, epochs=epochs, key=jax.random.key(seed), **position, **options)
    return [piece._replace(carry=jax.tree.map(np.array, piece.carry)) for piece in pieces]


def test_a_step_is_traced_once_for_each_batch_shape():
    shapes = []
    recipe = line_recipe()

    def counted(state, batch, noise):
        shapes.append(batch.shape[0])
        return recipe.update(state, batch, noise)

    data = source()
    loop = training.Loop(recipe._replace(update=counted), data, BATCH)
    list(loop.slices(loop.initial(jax.random.key(0)), epochs=4, key=jax.random.key(1), seconds=0))
    assert sorted(shapes) == [2, BATCH]


def test_the_first_state_is_traced_once_with_its_shapes():
    recipe, traced = line_recipe(), []

    def counted(key, weights=None):
        traced.append(key)
        return recipe.init(key, weights)

    loop = training.Loop(recipe._replace(init=counted), source(), BATCH)
    shapes = loop.shapes()
    carry = loop.initial(jax.random.key(0))
    assert len(traced) == 1
    assert shapes == jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), carry)


def test_slice_length_does_not_change_the_result(monkeypatch):
    recipe, data = line_recipe(), source()
    whole = train(recipe, data, seconds=1e9)
    single = train(recipe, data, seconds=0)
    assert len(single) > len(whole)
    assert same_bits(whole[-1].carry, single[-1].carry)
    assert [piece.metrics for piece in whole if piece.metrics] == [piece.metrics for piece in single if piece.metrics]


def test_dividing_advance_is_bitwise_reproducible():
    recipe, data = dcgan.digits_recipe(), training.as_source(images(28))
    loop = training.advance(recipe, data, BATCH)
    epoch = Epoch(jnp.arange(28, dtype=jnp.int32), jax.random.key(5), 0)
    ends = []
    for cuts in ([0, 7], [0, 1, 2, 3, 4, 5, 6, 7], [0, 3, 3, 7]):
        carry = training.begin(recipe, data, recipe.init(jax.random.key(0)), BATCH)
        for first, stop in pairwise(cuts):
            carry = loop(carry, data.arrays, epoch, first, stop)
        ends.append(jax.tree.map(np.array, carry))
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])


def test_continuing_from_any_step_is_bitwise_reproducible():
    recipe, data = line_recipe(), source()
    through = train(recipe, data, seconds=0)
    for cut in through[:-1]:
        rest = train(recipe, data, start=cut._replace(carry=jax.tree.map(jnp.array, cut.carry)), seconds=0)
        assert same_bits(rest[-1].carry, through[-1].carry)
        assert rest[-1].metrics == through[-1].metrics


def test_every_epoch_visits_every_example_once_in_a_new_order():
    seen = []

    def watch(state, batch, noise):
        jax.debug.callback(lambda values: seen.append(np.array(values)), batch, ordered=True)
        return line_recipe().update(state, batch, noise)

    data = training.as_source(jnp.arange(SIZE, dtype=jnp.float32)[:, None] * jnp.ones(3))
    train(line_recipe()._replace(update=watch), data, epochs=2)
    jax.effects_barrier()
    order = np.concatenate(seen)[:, 0]
    first, second = order[:SIZE], order[SIZE:]
    assert sorted(first) == sorted(second) == list(range(SIZE))
    assert list(first) != list(second)


@pytest.mark.parametrize(("smallest", "steps"), [(1, 6), (2, 6), (3, 5), (None, 5)])
def test_smallest_batch_decides_on_the_last_batch(smallest, steps):
    recipe = line_recipe(smallest_batch=smallest)
    assert training.steps_per_epoch(recipe, source(), BATCH) == steps
    last = train(recipe, source(), epochs=1)[-1]
    assert last.carry.state.optimizer[0].count == steps


def test_vmap_over_seeds_equals_separate_runs(float64):
    recipe, data = dcgan.digits_recipe(), training.as_source(images(20, np.float64))
    loop = training.advance(recipe, data, BATCH)

    def begin(seed):
        weights = recipe.variables(recipe.init(jax.random.key(seed)))
        state = recipe.init(jax.random.key(0), jax.tree.map(lambda leaf: leaf.astype(jnp.float64), weights))
        return training.begin(recipe, data, state, BATCH)

    def epoch_of(seed):
        return Epoch(jax.random.permutation(jax.random.key(seed), 20), jax.random.key(100 + seed), None)

    def stack(trees):
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    alone = [loop(begin(seed), data.arrays, epoch_of(seed), 0, 5) for seed in range(3)]
    mapped = jax.vmap(loop, (0, None, Epoch(0, 0, None), None, None))
    together = mapped(stack([begin(seed) for seed in range(3)]), data.arrays, stack(map(epoch_of, range(3))), 0, 5)
    for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(stack(alone)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_vmap_over_learning_rates():
    data = source()

    def trained(rate):
        recipe = line_recipe(rate)
        carry = training.begin(recipe, data, recipe.init(jax.random.key(0)), BATCH)
        epoch = Epoch(jnp.arange(SIZE, dtype=jnp.int32), jax.random.key(1), None)
        return training.advance(recipe, data, BATCH)(carry, data.arrays, epoch, 0, 5).state.params

    rates = jnp.array([0.01, 0.1])
    together = jax.jit(jax.vmap(trained))(rates)
    np.testing.assert_allclose(together[0], trained(0.01), rtol=1e-5)
    assert not np.allclose(together[0], together[1])


def test_training_on_staged_parts_of_the_data_is_bitwise_reproducible():
    """Data that does not fit on the device comes in parts; `rows` are indices within a part, steps are counted on."""
    recipe, data = line_recipe(), source()
    loop = training.advance(recipe, data, BATCH)
    start = recipe.init(jax.random.key(0))
    order, key = jnp.arange(20, dtype=jnp.int32), jax.random.key(1)
    through = loop(training.begin(recipe, data, start, BATCH), data.arrays, Epoch(order, key, 0), 0, 5)
    carry = loop(training.begin(recipe, data, start, BATCH), data.arrays[:8], Epoch(order[:8], key, 0), 0, 2)
    carry = loop(carry, data.arrays[8:20], Epoch(order[:12], key, 2), 2, 5)
    assert same_bits(carry, through)


def test_non_finite_metric_is_recorded_with_its_step():
    recipe = line_recipe()
    points = rows().astype(np.float32)
    points[13] = np.nan
    data = training.as_source(points)
    carry = training.begin(recipe, data, recipe.init(jax.random.key(0)), BATCH)
    epoch = Epoch(jnp.arange(SIZE, dtype=jnp.int32), jax.random.key(1), 0)
    carry = training.advance(recipe, data, BATCH)(carry, data.arrays, epoch, 0, 5)
    assert carry.bad_step == 13 // BATCH
    with pytest.raises(FloatingPointError, match="epoch 1, step"):
        jaxgen.fit(recipe, recipe.init(jax.random.key(0)), points, epochs=1, batch_size=BATCH, key=jax.random.key(0))


def test_non_finite_parameter_is_recorded():
    recipe = line_recipe()

    def overflow(state, batch, noise):
        state, metrics = recipe.update(state, batch, noise)
        return state._replace(params=state.params * jnp.inf), metrics

    data = source()
    carry = training.begin(recipe, data, recipe.init(jax.random.key(0)), BATCH)
    epoch = Epoch(jnp.arange(SIZE, dtype=jnp.int32), jax.random.key(1), 0)
    carry = training.advance(recipe._replace(update=overflow), data, BATCH)(carry, data.arrays, epoch, 0, 1)
    assert carry.bad_step == 0


@pytest.mark.parametrize(("largest", "bad_step"), [(3e38, -1), (np.inf, 0), (np.nan, 0)])
def test_a_state_whose_sum_overflows_is_finite(largest, bad_step):
    recipe, data = line_recipe(), source()
    large = jnp.array([largest, 3e38], jnp.float32)

    def update(state, batch, noise):
        small, metrics = recipe.update(state[0], batch, noise)
        return (small, state[1]), metrics

    with_large = recipe._replace(update=update)
    carry = training.begin(with_large, data, (recipe.init(jax.random.key(0)), large), BATCH)
    epoch = Epoch(jnp.arange(SIZE, dtype=jnp.int32), jax.random.key(1), 0)
    assert training.advance(with_large, data, BATCH)(carry, data.arrays, epoch, 0, 1).bad_step == bad_step


def test_fit_learns_and_does_not_change_its_argument():
    recipe = line_recipe()
    state = recipe.init(jax.random.key(0))
    before = np.array(state.params)
    trained, history = jaxgen.fit(
        recipe, state, rows().astype(np.float32), epochs=30, batch_size=BATCH, key=jax.random.key(1)
    )
    np.testing.assert_array_equal(state.params, before)
    assert len(history["loss"]) == 30
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(trained.params, rows().mean(0), atol=0.3)


def test_key_determines_the_training():
    recipe = line_recipe()
    ends = [train(recipe, source(), seed=seed)[-1].carry for seed in (1, 1, 2)]
    assert same_bits(ends[0], ends[1])
    assert not same_bits(ends[0], ends[2])


def test_no_key_is_reused():
    with jax.debug_key_reuse(True):
        recipe = dcgan.digits_recipe()
        state = recipe.init(jax.random.key(0))
        jaxgen.fit(recipe, state, images(10), epochs=2, batch_size=BATCH, key=jax.random.key(1))


@pytest.mark.parametrize("batch_size", [0, -1, SIZE + 1])
def test_batch_size_out_of_range_is_refused(batch_size):
    recipe = line_recipe()
    with pytest.raises(jaxgen.InputError, match=f"batch size {batch_size}: must be from 1 to the {SIZE} examples"):
        jaxgen.fit(
            recipe, recipe.init(jax.random.key(0)), rows().astype(np.float32), epochs=1, batch_size=batch_size,
            key=jax.random.key(0),
        )  # fmt: skip


def test_unscaled_bytes_are_refused():
    with pytest.raises(jaxgen.InputError, match=r"uint8.*jaxgen\.scaled"):
        training.as_source(np.zeros((4, 8, 8, 1), np.uint8))


def test_scaled_source():
    source = jaxgen.scaled(jnp.array([[[[0]]], [[[8]]], [[[16]]]], jnp.uint8), -1, 1, white=16)
    assert source.arrays.dtype == jnp.uint8
    np.testing.assert_array_equal(source.batch(source.arrays, jnp.array([2, 0, 1])).ravel(), [1, -1, 0])


def test_carry_fields():
    assert Carry._fields == ("state", "sums", "bad_step")
