"""Research use of `jaxgen.fit` and `Run.fit`: continuing, stopping, measuring, one's own data."""

import json
import pydoc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import runs, training
from jaxgen.runs import checkpoint
from jaxgen.training import Recipe, Source
from tests.support import tiny
from tests.test_runs import bits
from tests.test_training import line_recipe, rows

pytestmark = pytest.mark.unoptimized

POINTS = rows().astype(np.float32)


def fit(state=None, data=POINTS, recipe=None, epochs=1, **options):
    recipe = recipe or line_recipe()
    state = recipe.init(jax.random.key(0)) if state is None else state
    return jaxgen.fit(recipe, state, data, epochs=epochs, batch_size=4, key=jax.random.key(1), **options)


def test_training_in_two_calls_is_bitwise_reproducible():
    whole, history = fit(epochs=4)
    state, first = fit(epochs=2)
    state, second = fit(state, epochs=2, epoch=2)
    assert bits(state) == bits(whole)
    assert first["loss"] + second["loss"] == history["loss"]


def test_each_sees_every_slice_and_ends_the_training():
    seen = []
    fit(epochs=2, each=lambda piece: seen.append((piece.epoch, piece.step, piece.metrics is not None)))
    assert seen == sorted(seen)
    assert [place for place in seen if place[2]] == [(1, 0, True), (2, 0, True)]
    state, history = fit(epochs=5, each=lambda piece: piece.epoch == 2)
    assert bits(state) == bits(fit(epochs=2)[0])
    assert len(history["loss"]) == 2


@pytest.mark.parametrize("make", [lambda image, label: (image, label), lambda image, label: {"x": image, "y": label}])
def test_a_tree_of_arrays_is_data(make):
    labels = np.arange(len(POINTS))
    recipe = line_recipe()

    def update(state, batch, noise):
        image, label = batch.values() if isinstance(batch, dict) else batch
        _, metrics = recipe.update(state, image, noise)
        first = jnp.asarray(POINTS)[label]
        return state, metrics | {"pairs": (jnp.sum(first == image), jnp.float32(image.size))}

    _, history = fit(data=make(POINTS, labels), recipe=recipe._replace(update=update))
    assert history["pairs"] == [1.0]


def test_scaled_images_come_with_their_labels():
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    source = jaxgen.scaled(images, -1, 1, white=5, labels=np.arange(10, 16))
    values, labels = source.batch(source.arrays, jnp.array([5, 0]))
    np.testing.assert_array_equal(values.ravel(), [1, -1])
    np.testing.assert_array_equal(labels, [15, 10])


BAD = {
    "22 and 5 examples: the arrays need one length": lambda: fit(data=(POINTS, POINTS[:5])),
    "no examples": lambda: fit(data=()),
    "single numbers: give an array": lambda: fit(data=[[1.0, 2.0], [3.0, 4.0]]),
    r"int64\[22, 3, 4\]: scale it first": lambda: fit(data=np.zeros((22, 3, 4), np.int64)),
    "6 and 5 examples": lambda: jaxgen.scaled(np.zeros((6, 2, 2, 1), np.uint8), labels=np.arange(5)),
    "float32: scaled is for integers": lambda: jaxgen.scaled(np.zeros((6, 2, 2, 1), np.float32)),
    "23 examples by its size, but not by its batch function: .*index 22 is out of bounds": lambda: fit(
        data=Source(POINTS, 23, lambda arrays, rows: arrays[rows])
    ),
}


@pytest.mark.parametrize("said", BAD)
def test_data_that_do_not_fit_are_refused(said):
    with pytest.raises(jaxgen.InputError, match=said):
        BAD[said]()


def test_integer_labels_are_accepted():
    source = training.as_source((np.zeros((4, 2, 2, 1), np.float32), np.arange(4), np.arange(4, dtype=np.uint8)))
    assert source.size == 4


def test_it_works_without_jit(tmp_path):
    """As with `JAX_DISABLE_JIT=1`, and to the same result, up to rounding."""

    def losses(name: str) -> list[float]:
        config = tiny.Config(out=tmp_path / name, epochs=1, batch_size=22, devices=1)
        with runs.start(config, tiny.points(), tiny.Mean()) as this_run:
            this_run.fit(tiny.recipe(config))
        outcome = this_run.outcome
        return [fit(data=POINTS[:4])[1]["loss"][0], outcome.history["loss"][0]]

    with jax.disable_jit():
        without = losses("without")
    assert without == pytest.approx(losses("with"), rel=1e-5)


def test_recipe_is_generic_and_help_explains_its_fields():
    assert Recipe[tiny.State].__origin__ is Recipe
    said = " ".join(pydoc.render_doc(Recipe, renderer=pydoc.plaintext).split())
    for field in Recipe._fields:
        assert f"{field}: " in said, field
    assert "an epoch's last, smaller batch is trained on if it has at least this size" in said


def run(folder, **options) -> runs.Outcome:
    config = tiny.Config(out=folder, epochs=6, keep=1)
    with runs.start(config, tiny.points(), tiny.Mean()) as this_run:
        this_run.fit(tiny.recipe(config), **options)
    return this_run.outcome


def test_measured_figures_join_the_metrics_and_choose_the_best_checkpoint(tmp_path):
    figures = iter([5.0, 1.0, 4.0, 3.0, 2.0, 6.0])
    outcome = run(tmp_path / "run", measure=lambda state: {"distance": next(figures)}, best="distance")
    assert outcome.history["distance"] == [5.0, 1.0, 4.0, 3.0, 2.0, 6.0]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["distance"] == 1.0
    names = [path.name for path in checkpoint.numbered(tmp_path / "run" / "checkpoints")]
    assert names == ["00000012", "00000036"]  # six steps an epoch: the best one and the newest


def test_a_run_ended_early_has_its_weights_and_is_finished(tmp_path):
    outcome = run(tmp_path / "run", each=lambda piece: piece.epoch == 2)
    assert len(outcome.history["loss"]) == 2
    straight = tiny.main(tiny.Config(out=tmp_path / "straight", epochs=2))
    assert bits(outcome.variables) == bits(straight.variables)
    assert bits(jaxgen.load(tmp_path / "run", module=tiny.Mean()).variables) == bits(straight.variables)
    assert (tmp_path / "run" / "finished.json").exists()
