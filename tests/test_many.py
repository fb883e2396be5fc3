"""Many models as one recipe, one of them by itself, and averages of what is trained."""

import re
import subprocess
import sys
from typing import ClassVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import runs
from jaxgen.errors import InputError
from jaxgen.layers import BatchNorm, Conv, ConvTranspose, Linear
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.recipes import Averaged
from jaxgen.runs import checkpoint
from jaxgen.training import Loop, Recipe, as_source
from tests.support import tiny
from tests.test_parallel import SmallVAE

pytestmark = pytest.mark.unoptimized

BATCH, STEPS, COUNT = 4, 10, 3  # steps in an epoch; models


class Generator(nn.Module):
    """A small network for `dcgan.mnist_recipe`.

    Before batch norm there is no bias: its gradient would be 0, and Adam would make steps of the rounding errors.
    """

    input_shape: ClassVar = (2,)

    def prior(self, key, count):
        return jax.random.normal(key, (count, 2))

    @nn.compact
    def __call__(self, z, train=False):
        x = nn.relu(BatchNorm(name="norm")(Linear(8, use_bias=False, name="first")(z), train))
        return nn.sigmoid(Linear(16, name="second")(x)).reshape(-1, 4, 4, 1)


class Discriminator(nn.Module):
    """A small network for `dcgan.mnist_recipe`."""

    input_shape: ClassVar = (4, 4, 1)

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(BatchNorm(name="norm")(Linear(8, use_bias=False, name="first")(x.reshape(-1, 16)), train))
        return Linear(1, name="second")(x)[:, 0]


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.relu(Conv(2, 2, stride=2, name="0")(x))


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.sigmoid(ConvTranspose(1, 2, stride=2, name="0")(x))


def gan_recipe(optimizer=None) -> Recipe:
    return dcgan.mnist_recipe(Generator(), Discriminator(), optimizer, optimizer)


def mean_recipe(optimizer=None) -> Recipe:
    """One network with one parameter, which learns the mean of 8×8 points."""
    return tiny.recipe(tiny.Config()) if optimizer is None else autoencoder.recipe(tiny.Mean(), optimizer)


def points() -> np.ndarray:
    return tiny.points()[: 5 * BATCH]


def digits_images() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(BATCH * STEPS, 8, 8, 1))


def small_images() -> np.ndarray:
    return digits_images()[:, :4, :4]


def rows() -> tuple[np.ndarray, np.ndarray]:
    images = digits_images()[..., 0]
    return images[:, :3], images[:, 3]


RECIPES = {
    "dcgan_digits": (dcgan.digits_recipe, digits_images),
    "dcgan_mnist": (gan_recipe, small_images),
    "conv_autoencoder": (
        lambda: autoencoder.recipe(autoencoder.ConvAutoencoder(Encoder(), Decoder(), (4, 4, 1))),
        small_images,
    ),
    "vae": (lambda: vae.recipe(module=SmallVAE()), small_images),
    "rnn_complete": (lambda: completion.recipe(module=completion.RowCompleter("lstm", 4, 8)), rows),
}


def train(recipe, data, *, epochs=1, devices=()):
    """As `jaxgen.fit` from `recipe.init(key(0))`, with one program less to compile."""
    loop = Loop(recipe, as_source(data), BATCH, devices)
    pieces = list(loop.slices(loop.initial(jax.random.key(0)), epochs=epochs, key=jax.random.key(1)))
    ends = [piece.metrics for piece in pieces if piece.metrics]
    return pieces[-1].carry.state, {name: [metrics[name] for metrics in ends] for name in ends[0]}


def model_of(tree, index):
    return jax.tree.map(lambda array: array[index], tree)


# ---- many and one_of ----


@pytest.mark.parametrize("name", RECIPES)
def test_one_of_trains_as_that_model_of_many(name, float64):
    """For 50 steps in float64."""
    make, data = RECIPES[name]
    index = COUNT - 1
    together, of_all = train(jaxgen.many(make(), COUNT), data(), epochs=5)
    alone, of_it = train(jaxgen.one_of(make(), index), data(), epochs=5)
    assert {leaf.dtype for leaf in jax.tree.leaves(alone)} <= {jnp.dtype("float64"), jnp.dtype("int32")}
    chex.assert_trees_all_close(model_of(together, index), alone, rtol=1e-9, atol=1e-9)
    for metric, values in of_it.items():
        np.testing.assert_allclose(of_all[f"{metric}/{index}"], values, rtol=1e-9)


def test_one_of_trains_as_that_model_of_many_in_float32():
    """For an epoch, after which rounding may lead apart."""
    make, data = RECIPES["conv_autoencoder"]
    data = data().astype(np.float32)
    _, of_all = train(jaxgen.many(make(), COUNT), data)
    _, of_it = train(jaxgen.one_of(make(), 1), data)
    np.testing.assert_allclose(of_all["loss/1"], of_it["loss"], rtol=1e-5)


def test_fit_of_many_names_metrics_and_variables():
    recipe = jaxgen.many(mean_recipe(), COUNT)
    start = recipe.init(jax.random.key(0))
    state, history = jaxgen.fit(recipe, start, points(), epochs=1, batch_size=BATCH, key=jax.random.key(1))
    assert history.keys() == {"loss/0", "loss/1", "loss/2"}
    variables = recipe.variables(state)
    assert list(variables) == ["0.model", "1.model", "2.model"]
    for index, network in enumerate(variables.values()):
        chex.assert_trees_all_equal(network, model_of(state.variables, index))


def test_models_have_different_initialisation_and_noise():
    recipe = jaxgen.many(mean_recipe(), COUNT)
    first = recipe.init(jax.random.key(0)).variables["params"]["mean"]
    noise = recipe.noise(jax.random.key(0), BATCH)
    assert noise.shape == (BATCH, COUNT, 8, 8, 1)
    for models in (first, noise.swapaxes(0, 1)):
        assert not np.isclose(models[0], models[1]).all()
        assert not np.isclose(models[1], models[2]).all()
        assert not np.isclose(models[2], models[0]).all()


def test_smallest_batch_is_kept():
    assert jaxgen.many(vae.recipe(), 2).smallest_batch == 2
    assert jaxgen.one_of(vae.recipe(), 0).smallest_batch == 2
    assert jaxgen.averaged(vae.recipe(), 0.9).smallest_batch == 2


@pytest.mark.parametrize("devices", [2, 4])
def test_models_are_divided_over_devices(devices, float64):
    """Two devices have a model each; of four, two share the batches of each model.

    With batch norm, whose statistics the devices that share a batch take together; the last batch cannot be shared.
    """
    recipe = jaxgen.many(gan_recipe(), 2)._replace(smallest_batch=3)
    images = small_images()[:-1]
    (one, of_one), (divided, of_divided) = (
        train(recipe, images, epochs=2, devices=devices) for devices in ((), jax.devices()[:devices])
    )
    assert all(leaf.addressable_data(0).shape == (1, *leaf.shape[1:]) for leaf in jax.tree.leaves(divided))
    chex.assert_trees_all_close(one, divided, rtol=0, atol=1e-7)  # as in test_parallel
    assert of_one.keys() == {
        "loss_discriminator/0", "loss_discriminator/1", "loss_generator/0", "loss_generator/1",
    }  # fmt: skip
    for metric, values in of_one.items():
        np.testing.assert_allclose(of_divided[metric], values, rtol=1e-10)


def test_models_and_devices_without_common_divisor_share_batches(float64):
    together, of_all = train(jaxgen.many(mean_recipe(), 3), points(), devices=jax.devices()[:2])
    alone, of_it = train(jaxgen.many(mean_recipe(), 3), points())
    chex.assert_trees_all_close(together, alone, rtol=1e-10)
    assert of_all.keys() == of_it.keys() == {"loss/0", "loss/1", "loss/2"}


def test_first_bad_step_of_models_on_different_devices():
    """The second model is not finite from step 2 on, and the first one from step 3 on."""

    def update(state, batch, noise):
        step = state["step"] + 1
        return {"step": step, "at": state["at"]}, {"loss": (jnp.where(step > state["at"], jnp.nan, 1.0), jnp.ones(()))}

    def init(key, weights=None):
        return {"step": jnp.zeros((), jnp.int32), "at": jnp.asarray(jax.random.randint(key, (), 0, 1))}

    plain = Recipe(init, lambda key, size: {}, update, lambda state: state)
    loop = Loop(jaxgen.many(plain, 2), as_source(points()), BATCH, jax.devices()[:2])
    carry = loop.begin({"step": jnp.zeros(2, jnp.int32), "at": jnp.array([3, 2])})
    *_, last = loop.slices(carry, epochs=1, key=jax.random.key(1))
    assert int(last.carry.bad_step) == 2


def test_32_models_on_8_devices_equal_32_on_one():
    """In a process of its own, which has eight devices."""
    program = """
import chex, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
import jaxgen
from jaxgen.models import dcgan
from tests.test_many import Discriminator, Generator

recipe = jaxgen.many(dcgan.mnist_recipe(Generator(), Discriminator()), 32)
state, images = recipe.init(jax.random.key(0)), np.random.default_rng(0).uniform(size=(40, 4, 4, 1))
one, several = (
    jaxgen.fit(recipe, state, images, epochs=5, batch_size=4, key=jax.random.key(1), devices=devices)
    for devices in ((), jax.devices())
)
assert {leaf.addressable_data(0).shape[0] for leaf in jax.tree.leaves(several[0])} == {4}
chex.assert_trees_all_close(one, several, rtol=1e-8, atol=1e-8)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("make", [mean_recipe, gan_recipe], ids=["one network", "two networks"])
def test_init_takes_its_own_variables_or_those_of_one_model(make):
    plain, recipe, key = make(), jaxgen.many(make(), 2), jax.random.key(1)
    own = recipe.variables(jax.jit(recipe.init)(jax.random.key(0)))
    networks = {"model"} if make is mean_recipe else {"generator", "discriminator"}
    assert own.keys() == {f"{index}.{name}" for index in range(2) for name in networks}
    again = jax.jit(recipe.init)(key, own)
    chex.assert_trees_all_equal(recipe.variables(again), own)
    chex.assert_trees_all_equal(jax.jit(jaxgen.one_of(plain, 1).init)(key, own), model_of(again, 1))

    weights = plain.variables(model_of(again, 0))
    shared = jax.jit(recipe.init)(key, weights)
    for index in range(2):
        chex.assert_trees_all_equal(plain.variables(model_of(shared, index)), weights)
    with pytest.raises(InputError, match="of 2 models, wanted 3"):
        jaxgen.many(plain, 3).init(key, own)
    with pytest.raises(InputError, match="no model 2"):
        jaxgen.one_of(plain, 2).init(key, own)


def test_many_computes_in_lower_precision():
    recipe = jaxgen.in_precision(jaxgen.many(gan_recipe(), 2), "bf16")
    images = small_images()[:BATCH].astype(np.float32)
    state, noise = jax.eval_shape(recipe.init, jax.random.key(0)), recipe.noise(jax.random.key(1), BATCH)
    traced = jax.jit(recipe.update).trace(state, images, noise)
    products = [line for line in traced.lower().as_text().splitlines() if "dot_general" in line]
    assert products
    assert all(re.search(r"xbf16>, .*xbf16>\) ->", line) for line in products)
    assert {leaf.dtype for leaf in jax.tree.leaves(traced.out_info)} == {jnp.dtype("float32"), jnp.dtype("int32")}


def test_no_key_is_used_twice():
    recipe = jaxgen.many(gan_recipe(), 2)
    with jax.debug_key_reuse(True):
        jax.jit(recipe.init)(jax.random.key(0))
        jax.jit(lambda key: recipe.noise(key, BATCH))(jax.random.key(1))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: jaxgen.many(mean_recipe(), 0), "count 0: must be at least 1"),
    (lambda: jaxgen.one_of(mean_recipe(), -1), "index -1: must be at least 0"),
])  # fmt: skip
def test_count_and_index_are_checked(call, message):
    with pytest.raises(InputError, match=message):
        call()


# ---- Hyperparameters ----


def test_hyperparams_are_set_in_every_optimizer():
    rates = [1e-2, 1e-3]
    recipe = gan_recipe(optax.inject_hyperparams(optax.adam)(learning_rate=1.0))
    state = jax.jit(jaxgen.many(recipe, 2, hyperparams={"learning_rate": rates}).init)(jax.random.key(0))
    for optimizer in (state.generator_optimizer, state.discriminator_optimizer):
        np.testing.assert_array_equal(optimizer.hyperparams["learning_rate"], np.float32(rates))


def test_hyperparams_equal_those_of_the_plain_recipe(float64):
    data, rates = points().astype(np.float64), [1e-2, 1e-3]
    recipe = mean_recipe(optax.inject_hyperparams(optax.adam)(learning_rate=1.0))
    together, _ = train(jaxgen.many(recipe, 2, hyperparams={"learning_rate": rates}), data)
    for index, rate in enumerate(rates):
        alone, _ = train(jaxgen.one_of(mean_recipe(optax.adam(rate)), index), data)
        chex.assert_trees_all_close(model_of(together.variables, index), alone.variables, rtol=1e-9)


def test_hyperparams_within_a_chain_keep_their_dtype():
    optimizer = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=0.1, momentum=0.5))
    state = jaxgen.many(mean_recipe(optimizer), 2, {"momentum": [0.0, 0.9]}).init(jax.random.key(0))
    kept = state.optimizer[1].hyperparams
    np.testing.assert_array_equal(kept["momentum"], np.float32([0.0, 0.9]))
    np.testing.assert_array_equal(kept["learning_rate"], np.float32([0.1, 0.1]))
    assert kept["momentum"].dtype == jnp.float32


injected = optax.inject_hyperparams(optax.sgd)


@pytest.mark.parametrize(("optimizer", "hyperparams", "message"), [
    (injected(0.1), {"learning_rate": [0.1, 0.2, 0.3]}, "learning_rate needs one number for each of the 2 models"),
    (injected(0.1), {"learning_rate": 0.1}, "learning_rate needs one number for each of the 2 models"),
    (injected(0.1), {"learning_rate": [0.1, None]}, "learning_rate needs one number for each of the 2 models"),
    (injected(0.1), {"rate": [0.1, 0.2]}, "rate is in no optimiser's state, there are learning_rate; make"),
    (optax.sgd(0.1), {"learning_rate": [0.1, 0.2]}, "learning_rate is in no optimiser's state, there are none; make"),
    (injected(optax.linear_schedule(1, 0, 9)), {"learning_rate": [0.1, 0.2]}, "learning_rate is set by a schedule"),
    (injected(1), {"learning_rate": [0.1, 0.2]}, "learning_rate is a whole number in the optimiser"),
])  # fmt: skip
def test_hyperparams_that_cannot_be_set_are_refused(optimizer, hyperparams, message):
    with pytest.raises(InputError, match=message):
        jaxgen.many(mean_recipe(optimizer), 2, hyperparams)


# ---- Runs ----


def run_of_many(folder, epochs, **options):
    """A run of three models, one file of weights each, whose state holds averages too."""
    config = tiny.Config(out=folder, epochs=epochs, **options)
    module = completion.RowCompleter("gru", 4, 8)
    recipe = jaxgen.many(jaxgen.averaged(completion.recipe(module=module), 0.9), COUNT)
    data = jax.tree.map(np.float32, rows())
    with runs.start(config, data, {f"{index}.model": module for index in range(COUNT)}) as run:
        run.fit(recipe, best="loss/2")
    return run.outcome


def test_run_of_many_models_resumes_and_is_loaded(tmp_path):
    whole = run_of_many(tmp_path / "whole", 4)
    run_of_many(tmp_path / "cut", 2)
    resumed = run_of_many(tmp_path / "cut", 4, resume=True)
    assert whole.history["loss/1"] == resumed.history["loss/1"]
    chex.assert_trees_all_equal(whole.variables, resumed.variables)

    files = ["0.model.safetensors", "1.model.safetensors", "2.model.safetensors"]
    newest = checkpoint.numbered(whole.folder / "checkpoints")[-1]
    for folder in (whole.folder / "final", newest):
        assert sorted(path.name for path in folder.glob("*.safetensors")) == files
    trained = jaxgen.load(whole.folder)
    assert trained.module["2.model"] == completion.RowCompleter("gru", 4, 8)
    chex.assert_trees_all_equal(trained.variables, whole.variables)
    one = jaxgen.load(whole.folder / "final" / "1.model.safetensors")
    chex.assert_trees_all_equal(one.variables, whole.variables["1.model"])


# ---- averaged ----


def test_average_follows_parameters_and_running_statistics():
    """Against NumPy. Counters have their latest value."""
    decay, plain, batch = 0.9, gan_recipe(), small_images()[:BATCH].astype(np.float32)
    recipe = jaxgen.averaged(plain, decay)
    state = jax.jit(recipe.init)(jax.random.key(0))
    chex.assert_trees_all_equal(recipe.variables(state), plain.variables(state.state))
    expected = recipe.variables(state)
    step = jax.jit(recipe.update)
    for number in range(5):
        state, _ = step(state, batch, recipe.noise(jax.random.key(number), BATCH))
        expected = jax.tree.map(
            lambda average, value: decay * average + (1 - decay) * np.float64(value) if value.ndim else value,
            expected, plain.variables(state.state),
        )  # fmt: skip
    average = recipe.variables(state)
    chex.assert_trees_all_close(jax.tree.map(np.float64, average), jax.tree.map(np.float64, expected), rtol=1e-5)
    counters = [average[name]["batch_stats"]["norm"]["num_batches_tracked"] for name in ("discriminator", "generator")]
    assert [(counter.dtype, int(counter)) for counter in counters] == [(jnp.int32, 15), (jnp.int32, 10)]


def test_averaging_does_not_change_the_training_and_decay_of_zero_averages_nothing():
    recipe = jaxgen.averaged(mean_recipe(), 0)
    state, averaged_history = train(recipe, points())
    plain, history = train(mean_recipe(), points())
    assert isinstance(state, Averaged)
    assert averaged_history == history
    chex.assert_trees_all_equal(state.state, plain)
    chex.assert_trees_all_equal(recipe.variables(state), plain.variables)


def test_average_of_many_equals_many_averages():
    inside = jaxgen.many(jaxgen.averaged(mean_recipe(), 0.9), 2)
    outside = jaxgen.averaged(jaxgen.many(mean_recipe(), 2), 0.9)
    (one, _), (other, _) = train(inside, points()), train(outside, points())
    chex.assert_trees_all_close(inside.variables(one), outside.variables(other), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5, float("nan")])
def test_decay_out_of_bounds_is_refused(decay):
    with pytest.raises(InputError, match="at least 0 and less than 1"):
        jaxgen.averaged(mean_recipe(), decay)
