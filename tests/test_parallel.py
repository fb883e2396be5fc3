"""Data parallelism: training on several devices equals training on one, up to rounding."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen import compilation, parallel, training
from jaxgen.errors import InputError
from jaxgen.layers import BatchNorm, Linear
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.runs.devices import find_devices
from jaxgen.runs.layout import Layout
from jaxgen.runs.record import announce
from jaxgen.training import Recipe, Source
from tests.support import tiny

pytestmark = pytest.mark.unoptimized

BATCH = 4
SIZE = 2 * BATCH + 3  # the last batch cannot be divided between two devices


class SmallVAE(nn.Module):
    """A small module for `vae.recipe`: compiling `ConvVAE` in float64 takes half a minute."""

    input_shape = (4, 4, 1)
    latent = 2

    @nn.compact
    def __call__(self, images, epsilon=None, train=False):
        x = nn.relu(BatchNorm()(Linear(8)(images.reshape(len(images), -1)), train))
        mean, log_variance = Linear(2)(x), Linear(2)(x)
        z = mean + epsilon * jnp.exp(0.5 * log_variance) if epsilon is not None else mean
        return vae.Output(mean, log_variance, z, nn.sigmoid(Linear(16)(z)).reshape(images.shape))


RECIPES = {
    "dcgan_digits": (dcgan.digits_recipe, (8, 8, 1)),
    "dcgan_mnist": (dcgan.mnist_recipe, (28, 28, 1)),
    "conv_autoencoder": (autoencoder.recipe, (32, 32, 3)),
    "vae": (lambda: vae.recipe(module=SmallVAE()), (4, 4, 1)),
    "lstm": (lambda: completion.recipe("lstm"), (56, 56, 1)),
    "gru": (lambda: completion.recipe("gru"), (56, 56, 1)),
}


def recipe_and_source(name: str) -> tuple[Recipe, Source]:
    make, shape = RECIPES[name]
    images = np.random.default_rng(0).integers(0, 256, (SIZE, *shape), np.uint8)
    if name in ("lstm", "gru"):
        return make(), completion.windows(jnp.asarray(images[:1]), 56 - SIZE)
    return make(), training.as_source(images / 255)


def as_float64(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@pytest.mark.parametrize(("name", "count"), [("dcgan_digits", 4), *((name, 2) for name in list(RECIPES)[1:])])
def test_several_devices_equal_one(name, count, float64):
    recipe, source = recipe_and_source(name)
    normalised = name in ("dcgan_mnist", "vae")
    of_each = source.batch
    source = source._replace(batch=lambda arrays, rows: as_float64(of_each(arrays, rows)))
    start = as_float64(recipe.init(jax.random.key(0)))
    (one, of_one), (several, of_several) = (
        jaxgen.fit(recipe, start, source, epochs=1, batch_size=BATCH, key=jax.random.key(1), devices=devices)
        for devices in ((), jax.devices()[:count])
    )
    # The gradient of a bias before a batch norm is rounding error alone, which Adam scales to full steps.
    chex.assert_trees_all_close(one, several, rtol=0, atol=1e-7 if normalised else 1e-13)
    for metric, values in of_one.items():
        np.testing.assert_allclose(of_several[metric], values, rtol=1e-10 if normalised else 1e-13)


def test_each_device_computes_its_shard_only():
    """No operation has a whole batch, and there is one all-reduce for each gradient."""
    recipe, source = recipe_and_source("conv_autoencoder")
    devices = tuple(jax.devices()[:2])
    carry = training.begin(recipe, source, recipe.init(jax.random.key(0)), BATCH)
    epoch = training.epoch_of(source, jax.random.split(jax.random.key(1)), 0)
    loop = training.advance(recipe, source, BATCH, devices)
    optimised = loop.lower(carry, source.arrays, epoch, 0, 1).compile().as_text()
    assert f"f32[{BATCH // 2},32,32,3]" in optimised
    assert f"f32[{BATCH},32,32,3]" not in optimised
    assert optimised.count("all-reduce(") == 1


def test_the_vector_of_a_mean_is_not_padded():
    """XLA's CPU compiler reads beyond the operand of a `pad`, which can be 50 times slower."""
    mesh = parallel.mesh_of(jax.devices()[:2])
    shared = parallel.on_all(mesh, lambda x: parallel.mean_over_shards({"product": x @ x, "sum": x.sum(0)}))
    optimised = jax.jit(shared).lower(jnp.ones((64, 64))).compile().as_text()
    assert "all-reduce(" in optimised
    assert " pad(" not in optimised


def test_a_step_is_traced_once_for_each_batch_shape_on_two_devices():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())
    shapes = []

    def counted(state, batch, noise):
        shapes.append(batch.shape[0])
        return recipe.update(state, batch, noise)

    jaxgen.fit(
        recipe._replace(update=counted), recipe.init(jax.random.key(0)), source,
        epochs=3, batch_size=BATCH, key=jax.random.key(1), devices=jax.devices()[:2],
    )  # fmt: skip
    assert shapes == [BATCH // 2, source.size % BATCH // 2]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fit_compiles_once_for_each_batch_shape(count):
    events = []

    def listen(event, _, fun_name="", **__):
        if event.endswith("backend_compile_duration"):
            events.append(fun_name)

    def fit():
        recipe = tiny.recipe(tiny.Config())  # a new one each time, as in every `main`
        return jaxgen.fit(
            recipe, recipe.init(jax.random.key(0)), tiny.points(),
            epochs=3, batch_size=BATCH, key=jax.random.key(1), devices=devices,
        )[0]  # fmt: skip

    devices = jax.devices()[1:][:count]
    compilation.forget_programs()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        trained = fit()
        assert events.count("jit(_advance)") == 2
        fit()
        events.clear()
        fit()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert events == []
    assert {leaf.device for leaf in jax.tree.leaves(trained)} == {[*devices, jax.devices()[0]][0]}


def test_slice_length_does_not_change_the_result_on_two_devices():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())

    def train(longest):
        loop = training.Loop(recipe, source, BATCH, jax.devices()[:2])
        *_, last = loop.slices(loop.initial(jax.random.key(0)), epochs=2, key=jax.random.key(1), longest=longest)
        assert {device for leaf in jax.tree.leaves(last.carry) for device in leaf.devices()} == {jax.devices()[0]}
        return jax.device_get(last.carry.state), last.metrics

    (whole, of_whole), (cut, of_cut) = train(None), train(1)
    chex.assert_trees_all_equal(whole, cut)
    assert of_whole == of_cut


def test_recipe_without_mean_over_shards_is_refused():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())

    def update(state, batch, noise):
        return state._replace(variables={"params": {"mean": batch.mean(0)}}), {"loss": (jnp.float32(1), jnp.float32(1))}

    with pytest.raises(RuntimeError, match="mean_over_shards"):
        jaxgen.fit(
            recipe._replace(update=update), recipe.init(jax.random.key(0)), source,
            epochs=1, batch_size=BATCH, key=jax.random.key(1), devices=jax.devices()[:2],
        )  # fmt: skip


def test_uneven_batch_size_is_refused():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())
    with pytest.raises(InputError, match="4 devices cannot share it evenly"):
        jaxgen.fit(
            recipe, recipe.init(jax.random.key(0)), source,
            epochs=1, batch_size=6, key=jax.random.key(1), devices=jax.devices(),
        )  # fmt: skip


def test_cpu_devices_share_one_copy_of_the_data():
    images = jnp.asarray(np.zeros((100, 32, 32, 3), np.uint8))
    shown = parallel.place_constant(parallel.mesh_of(jax.devices()), images)
    places = {shard.data.unsafe_buffer_pointer() for shard in shown.addressable_shards}
    assert places == {images.unsafe_buffer_pointer()}


@pytest.mark.parametrize(
    ("experiment", "by_default"),
    [(dcgan_digits, 2), (conv_autoencoder, 2), (rnn_complete, 2), (dcgan_mnist, 1), (vae_mnist, 1)],
)
def test_number_of_devices(experiment, by_default):
    config = experiment.Config(batch_size=20)

    def devices(**changes):
        return list(find_devices(config.replace(**changes)))

    assert devices() == jax.devices()[:by_default]
    assert devices(batch_size=21) == jax.devices()[:1]
    assert devices(devices=4) == jax.devices()
    assert devices(devices=2, device="cpu:1") == jax.devices()[1:3]
    with pytest.raises(InputError, match="devices=5: there are only 4 from cpu:0 on"):
        devices(devices=5)
    with pytest.raises(InputError, match="devices=4: cannot share batches of 21 evenly"):
        devices(devices=4, batch_size=21)
    with pytest.raises(InputError, match="devices=4: cannot share batches of 21 evenly"):
        devices(devices=4, batch_size=21, seeds=2)  # two devices would share those of a model
    assert devices(devices=4, batch_size=21, seeds=8) == jax.devices()


@pytest.mark.parametrize(
    ("devices", "models", "said"),
    [
        (2, 1, "2 devices sharing each batch"),
        (8, 32, "8 devices, each with 4 of the 32 models"),
        (4, 2, "4 devices in 2 groups, each with 1 of the 2 models and sharing each batch"),
        (2, 3, "2 devices sharing each batch"),
    ],
)
def test_first_lines_say_how_devices_divide_the_work(devices, models, said, tmp_path, capsys):
    content = {"data": {}, "options": {"precision": "float32"}}
    announce(Layout(tmp_path), content, jax.devices()[:1] * devices, models, "device")
    assert f"({jax.devices()[0].device_kind}), {said}\n" in capsys.readouterr().out
