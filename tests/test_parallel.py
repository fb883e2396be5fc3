"""Devices that share every batch: the same training as on one, to rounding."""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen import parallel, run, training
from jaxgen.errors import InputError
from jaxgen.layers import BatchNorm, Linear
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.training import Recipe, Source
from tests.support import tiny

BATCH = 4
SIZE = 2 * BATCH + 3  # the last batch is one that no two devices can share


class SmallVAE(nn.Module):
    """What `vae.recipe` asks of a module: `ConvVAE` takes XLA half a minute in float64."""

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


def in_float64(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


@pytest.mark.parametrize(("name", "count"), [("dcgan_digits", 4), *((name, 2) for name in list(RECIPES)[1:])])
def test_several_devices_train_as_one(name, count, float64):
    recipe, source = recipe_and_source(name)
    normalised = name in ("dcgan_mnist", "vae")
    of_each = source.batch
    source = source._replace(batch=lambda arrays, rows: in_float64(of_each(arrays, rows)))
    start = in_float64(recipe.init(jax.random.key(0)))
    (one, of_one), (several, of_several) = (
        jaxgen.fit(recipe, start, source, epochs=1, batch_size=BATCH, key=jax.random.key(1), devices=devices)
        for devices in ((), jax.devices()[:count])
    )
    # Before a batch norm a bias has a gradient of nothing but rounding, which Adam makes steps of.
    chex.assert_trees_all_close(one, several, rtol=0, atol=1e-7 if normalised else 1e-13)
    for metric, values in of_one.items():
        np.testing.assert_allclose(of_several[metric], values, rtol=1e-10 if normalised else 1e-13)


def test_each_device_does_its_share_of_the_work():
    """A share, not the whole: no product has a batch's rows, and the devices meet once for each gradient."""
    recipe, source = recipe_and_source("conv_autoencoder")
    devices = tuple(jax.devices()[:2])
    carry = training.begin(recipe, source, recipe.init(jax.random.key(0)), BATCH)
    epoch = training.epoch_of(source, jax.random.split(jax.random.key(1)), 0)
    loop = training.advance(recipe, source, BATCH, devices)
    optimised = loop.lower(carry, source.arrays, epoch, 0, 1).compile().as_text()
    assert f"f32[{BATCH // 2},32,32,3]" in optimised
    assert f"f32[{BATCH},32,32,3]" not in optimised
    assert optimised.count("all-reduce(") == 1


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
def test_fit_compiles_a_loop_for_each_batch_shape_and_none_the_next_time(count):
    compiled = []

    def listen(event, _, fun_name="", **__):
        if event.endswith("backend_compile_duration") and fun_name == "jit(loop)":
            compiled.append(event)

    recipe, devices = tiny.recipe(tiny.Config()), jax.devices()[1:][:count]
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for _ in range(2):
            trained, _ = jaxgen.fit(
                recipe, recipe.init(jax.random.key(0)), tiny.points(),
                epochs=3, batch_size=BATCH, key=jax.random.key(1), devices=devices,
            )  # fmt: skip
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) == 2
    assert {leaf.device for leaf in jax.tree.leaves(trained)} == {[*devices, jax.devices()[0]][0]}


def test_every_cut_gives_the_same_bits_on_two_devices():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())

    def train(longest):
        carry = training.begin(recipe, source, recipe.init(jax.random.key(0)), BATCH)
        *_, last = training.slices(
            recipe, source, carry, epochs=2, batch_size=BATCH, key=jax.random.key(1), longest=longest,
            devices=jax.devices()[:2],
        )  # fmt: skip
        assert {device for leaf in jax.tree.leaves(last.carry) for device in leaf.devices()} == {jax.devices()[0]}
        return jax.device_get(last.carry.state), last.metrics

    (whole, of_whole), (cut, of_cut) = train(None), train(1)
    chex.assert_trees_all_equal(whole, cut)
    assert of_whole == of_cut


def test_a_recipe_that_forgets_to_take_the_mean_is_refused():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())

    def update(state, batch, noise):
        return state._replace(variables={"params": {"mean": batch.mean(0)}}), {"loss": (jnp.float32(1), jnp.float32(1))}

    with pytest.raises(RuntimeError, match="mean_over_shards"):
        jaxgen.fit(
            recipe._replace(update=update), recipe.init(jax.random.key(0)), source,
            epochs=1, batch_size=BATCH, key=jax.random.key(1), devices=jax.devices()[:2],
        )  # fmt: skip


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    recipe, source = tiny.recipe(tiny.Config()), training.as_source(tiny.points())
    with pytest.raises(InputError, match="4 devices cannot share it evenly"):
        jaxgen.fit(
            recipe, recipe.init(jax.random.key(0)), source,
            epochs=1, batch_size=6, key=jax.random.key(1), devices=jax.devices(),
        )  # fmt: skip


def test_the_data_is_there_once_for_all_devices_of_the_cpu():
    images = jnp.asarray(np.zeros((100, 32, 32, 3), np.uint8))
    shown = parallel.shown_to(jax.devices(), images)
    places = {shard.data.unsafe_buffer_pointer() for shard in shown.addressable_shards}
    assert places == {images.unsafe_buffer_pointer()}


@pytest.mark.parametrize(
    ("experiment", "by_default"),
    [(dcgan_digits, 2), (conv_autoencoder, 2), (rnn_complete, 2), (dcgan_mnist, 1), (vae_mnist, 1)],
)
def test_how_many_devices_share_a_batch(experiment, by_default):
    config = experiment.Config(batch_size=20)

    def devices(**changes):
        return list(run.find_devices(dataclasses.replace(config, **changes)))

    assert devices() == jax.devices()[:by_default]
    assert devices(batch_size=21) == jax.devices()[:1]
    assert devices(devices=4) == jax.devices()
    assert devices(devices=2, device="cpu:1") == jax.devices()[1:3]
    with pytest.raises(InputError, match="--devices 5: there are only 4 from cpu:0 on"):
        devices(devices=5)
    with pytest.raises(InputError, match="--devices 4: cannot share batches of 21 evenly"):
        devices(devices=4, batch_size=21)
