"""The recipes' variations: sizes, conditioning on labels, β, importance weights, denoising."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import jaxgen
from jaxgen import parallel, torch_weights
from jaxgen.conditioning import append_labels, given_labels, inputs_of
from jaxgen.errors import InputError
from jaxgen.layers import Linear, halvings, init_variables
from jaxgen.models import autoencoder, dcgan, vae
from jaxgen.training import Recipe

pytestmark = pytest.mark.unoptimized

KEY = jax.random.key(0)
SIZES = [(8, 4, 1), (10, 5, 1), (14, 7, 1), (28, 7, 2), (32, 4, 3), (48, 6, 3), (64, 4, 4), (96, 6, 4), (224, 7, 5)]
LABELS = np.array([2, 0, 1, 2, 1, 0])


def images(size: int = 8, channels: int = 1, count: int = 6) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(count, size, size, channels)).astype(np.float32)


# --- Sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "side", "count"), SIZES)
def test_halvings_end_at_four_to_seven(size: int, side: int, count: int) -> None:
    assert halvings(size) == (side, count)


@pytest.mark.parametrize("size", [30, 9, 7, 4, 1, 0, -28, 36])
@pytest.mark.parametrize("kind", [dcgan.MnistGenerator, dcgan.MnistDiscriminator, vae.ConvVAE])
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(kind: type[nn.Module], size: int) -> None:
    with pytest.raises(InputError, match=rf"size {size}: images must be square, 4, 5, 6 or 7 times a power .* 28, 32"):
        kind(size=size)


@pytest.mark.parametrize(("size", "side", "count"), SIZES[:-2])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_every_size_fit_their_images(size: int, side: int, count: int, channels: int) -> None:
    options = {"size": size, "channels": channels, "width": 2}
    shape = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    generator, discriminator, encoder = (
        kind(**options) for kind in (dcgan.MnistGenerator, dcgan.MnistDiscriminator, vae.ConvVAE)
    )
    made, _ = jax.eval_shape(generator.init_with_output, KEY, jax.ShapeDtypeStruct((2, 62), jnp.float32))
    assert made.shape == shape.shape
    assert jax.eval_shape(discriminator.init_with_output, KEY, shape)[0].shape == (2,)
    output, _ = jax.eval_shape(encoder.init_with_output, KEY, shape)
    assert output.reconstruction.shape == shape.shape
    assert output.mean.shape == (2, 2)


def kernels(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The convolutions' shapes under PyTorch's names, without those of batch norm and biases."""
    shapes = torch_weights.expected(module)
    return {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 4}


def test_channels_double_where_the_image_halves() -> None:
    """As in the DCGAN paper's 64×64 and PyTorch's example of it, whose `ngf` and `ndf` are 64."""
    assert kernels(dcgan.MnistGenerator(size=64, channels=3)) == {
        "deconv.0": (512, 256, 4, 4),
        "deconv.3": (256, 128, 4, 4),
        "deconv.6": (128, 64, 4, 4),
        "deconv.9": (64, 3, 4, 4),
    }
    assert kernels(dcgan.MnistDiscriminator(size=64, channels=3)) == {
        "conv.0": (64, 3, 4, 4),
        "conv.2": (128, 64, 4, 4),
        "conv.5": (256, 128, 4, 4),
        "conv.8": (512, 256, 4, 4),
    }
    assert kernels(vae.ConvVAE(size=64, channels=3, width=16)) == {
        "conv1.0": (16, 3, 3, 3),
        "conv2.0": (32, 16, 3, 3),
        "conv3.0": (64, 32, 3, 3),
        "conv4.0": (128, 64, 3, 3),
        "conv5.0": (256, 128, 4, 4),
        "convTrans1.0": (256, 128, 4, 4),
        "convTrans2.0": (128, 64, 4, 4),
        "convTrans3.0": (64, 32, 4, 4),
        "convTrans4.0": (32, 16, 4, 4),
        "convTrans5.0": (16, 3, 4, 4),
    }


def test_width_scales_every_layer() -> None:
    for kind in (dcgan.MnistGenerator, dcgan.MnistDiscriminator, vae.ConvVAE):
        wide, narrow = (torch_weights.expected(kind(width=width)) for width in (64, 16))
        assert wide.keys() == narrow.keys()
        for name, shape in wide.items():
            ratios = {a / b for a, b in zip(shape, narrow[name], strict=True)}
            assert ratios <= {1, 4}, name


@pytest.mark.parametrize(
    "module",
    [
        dcgan.MnistGenerator(size=16, channels=3, width=2, classes=3),
        dcgan.MnistDiscriminator(size=16, channels=3, width=2, classes=3),
        dcgan.DigitsGenerator(classes=3),
        vae.ConvVAE(3, size=8, channels=3, width=2, classes=3),
    ],
    ids=lambda module: type(module).__name__,
)
def test_a_file_says_what_module_it_is_of(module: nn.Module, tmp_path) -> None:
    variables = init_variables(module, KEY)
    torch_weights.save(module, variables, tmp_path / "weights.safetensors")
    loaded = jaxgen.load(tmp_path / "weights.safetensors")
    assert loaded.module == module
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)


# --- Conditioning on labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditional", "wider"),
    [
        (dcgan.DigitsGenerator(5, classes=3), dcgan.DigitsGenerator(8)),
        (dcgan.MnistGenerator(5, 8, width=2, classes=3), dcgan.MnistGenerator(8, 8, width=2)),
        (dcgan.MnistDiscriminator(8, width=2, classes=3), dcgan.MnistDiscriminator(8, channels=4, width=2)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_labels_are_one_hot_codes_beside_the_input(conditional: nn.Module, wider: nn.Module) -> None:
    variables, code = init_variables(conditional, KEY), np.eye(3, dtype=np.float32)[LABELS]
    x = jax.random.normal(KEY, (len(LABELS), *conditional.input_shape))
    shape = (len(LABELS), *(1,) * (x.ndim - 2), 3)
    beside = jnp.concatenate([x, jnp.broadcast_to(code.reshape(shape), (*x.shape[:-1], 3))], axis=-1)
    ours, theirs = jax.jit(conditional.apply)(variables, x, LABELS), jax.jit(wider.apply)(variables, beside)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


SMALL_VAE = vae.ConvVAE(3, size=8, width=2, classes=3)


def test_vae_functions_use_the_labels() -> None:
    variables, x = init_variables(SMALL_VAE, KEY), images()
    epsilon = np.asarray(jax.random.normal(KEY, (6, 3)))
    output = jax.jit(SMALL_VAE.apply)(variables, x, epsilon, LABELS)
    means = vae.encode(SMALL_VAE, variables, x, LABELS)
    np.testing.assert_allclose(means, output.mean, rtol=1e-5, atol=1e-6)
    assert np.abs(means - vae.encode(SMALL_VAE, variables, x, 0))[LABELS == 1].max() > 1e-4
    decoded = vae.decode(SMALL_VAE, variables, output.z, LABELS)
    np.testing.assert_allclose(decoded, output.reconstruction, rtol=1e-5, atol=1e-6)
    reconstruction, kl = vae.elbo_terms(output, x)
    found = vae.evaluate(SMALL_VAE, variables, x, epsilon, LABELS)
    assert float(found["loss"]) == pytest.approx((float(reconstruction) + float(kl)) / 6, rel=1e-5)
    morph = vae.morph(SMALL_VAE, variables, output.z[:2], 5, label=1)  # six images
    wanted = vae.decode(SMALL_VAE, variables, output.z, 1)[0]
    np.testing.assert_allclose(morph[0], wanted, rtol=1e-5, atol=1e-6)


def test_samples_have_the_labels_that_are_asked_for() -> None:
    generator, z = dcgan.DigitsGenerator(classes=3), dcgan.DigitsGenerator(classes=3).prior(KEY, 6)
    variables = init_variables(generator, KEY)

    def wanted(labels: np.ndarray) -> jax.Array:
        return generator.apply(variables, z, labels)

    for labels, each in [(LABELS, LABELS), (1, np.full(6, 1)), (None, np.array([0, 1, 2, 0, 1, 2]))]:
        samples = dcgan.sample(generator, variables, KEY, 6, labels)
        np.testing.assert_allclose(samples, wanted(each), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 3], r"labels from 0 to 3; its 3 classes are 0 to 2"),
        ([-1, 0], r"labels from -1 to 0; its 3 classes"),
        ([0, 1, 2], r"labels must be 2 integers, or one for all, not int32 \[3\]"),
        ([0.0, 1.0], r"labels must be 2 integers, .* not float32"),
    ],
)
def test_wrong_labels_are_refused(labels: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        given_labels(SMALL_VAE, np.array(labels), 2)


def test_labels_and_modules_belong_together() -> None:
    plain = dcgan.DigitsGenerator()
    with pytest.raises(InputError, match=r"DigitsGenerator: takes no labels; .* DigitsGenerator\(classes=10\)"):
        append_labels(plain, jnp.zeros((2, 64)), jnp.zeros(2, jnp.int32))
    with pytest.raises(InputError, match="is conditional on 3 classes and takes labels"):
        jax.eval_shape(lambda v, x: vae.encode(SMALL_VAE, v, x), init_variables(SMALL_VAE, KEY), images())
    with pytest.raises(InputError, match=r"batches must be \(images, labels\), as those of jaxgen\.scaled"):
        inputs_of(SMALL_VAE, images())
    with pytest.raises(InputError, match="DigitsGenerator takes no labels: batches must be images"):
        inputs_of(plain, (images(), LABELS))


class LinearVAE(nn.Module):
    """The smallest module for `vae.recipe`, without batch norm."""

    classes: int = 0
    input_shape = (2, 2, 1)
    latent = 2

    def setup(self):
        self.to_mean, self.to_log_variance, self.from_z = Linear(2), Linear(2), Linear(4)

    def __call__(self, images, epsilon=None, labels=None, train=False):
        mean, log_variance = self.encode(images, labels)
        z = mean if epsilon is None else mean + epsilon * jnp.exp(0.5 * log_variance)
        return vae.Output(mean, log_variance, z, self.decode(z, labels))

    def encode(self, images, labels=None, train=False):
        x = append_labels(self, images.reshape(-1, 4), labels)
        return self.to_mean(x), self.to_log_variance(x)

    def decode(self, z, labels=None, train=False):
        return nn.sigmoid(self.from_z(append_labels(self, z, labels))).reshape(-1, 2, 2, 1)


@pytest.mark.parametrize("name", ["dcgan_digits", "weighted vae"])
def test_a_step_with_labels_on_two_devices_equals_one(name: str) -> None:
    """So each fake, and each sample of an image, has the same label on either."""
    sgd = optax.sgd(0.1)
    networks = dcgan.DigitsGenerator(4, classes=3), dcgan.DigitsDiscriminator(classes=3)
    recipe: Recipe = {
        "dcgan_digits": lambda: dcgan.digits_recipe(*networks, sgd, sgd),
        "weighted vae": lambda: vae.recipe(module=LinearVAE(classes=3), optimizer=sgd, samples=3),
    }[name]()
    state, batch = recipe.init(KEY), (images(2 if name == "weighted vae" else 8), LABELS)
    noise = recipe.noise(KEY, 6)

    def step(state, batch, noise):
        return recipe.update(state, *parallel.local_shard((batch, noise)))

    alone = jax.jit(recipe.update)(state, batch, noise)
    together = jax.jit(parallel.on_all(parallel.mesh_of(jax.devices()[:2]), step))(state, batch, noise)
    for ours, theirs in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


# --- β and importance weights -----------------------------------------------------------------------------------------


LINEAR = LinearVAE()


def one_step(
    recipe: Recipe[vae.State], x: np.ndarray, noise: vae.Noise
) -> tuple[vae.State, vae.State, dict[str, float]]:
    """The states before and after a step, and the metrics as means."""
    state = recipe.init(KEY)
    after, metrics = jax.jit(recipe.update)(state, x, noise)
    return state, after, {name: float(total / weight) for name, (total, weight) in metrics.items()}


@pytest.mark.parametrize("beta", [0.0, 4.0])
def test_beta_weighs_the_kl_term_of_loss_and_gradient(beta: float) -> None:
    x = images(2)
    recipe = vae.recipe(module=LINEAR, optimizer=optax.sgd(1.0), beta=beta)
    noise = recipe.noise(KEY, 6)
    state, after, metrics = one_step(recipe, x, noise)
    assert metrics["loss"] == pytest.approx(metrics["reconstruction"] + beta * metrics["kl"], rel=1e-6)

    def loss(params):
        reconstruction, kl = vae.elbo_terms(LINEAR.apply({"params": params}, x, noise.epsilon), x)
        return reconstruction + beta * kl

    params = state.variables["params"]
    wanted = jax.tree.map(lambda value, gradient: value - gradient, params, jax.jit(jax.grad(loss))(params))
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6),
        after.variables["params"],
        wanted,
    )


@pytest.mark.parametrize("samples", [2, 7])
def test_importance_weighted_bound_is_that_of_the_densities(samples: int) -> None:
    x = images(2)
    recipe = vae.recipe(module=LINEAR, optimizer=optax.sgd(0.0), samples=samples)
    noise = recipe.noise(KEY, 6)
    assert noise.epsilon.shape == (6, samples, 2)
    state, _, metrics = one_step(recipe, x, noise)

    mean, log_variance = (np.asarray(part)[:, None] for part in LINEAR.apply(state.variables, x, method="encode"))
    z = mean + np.asarray(noise.epsilon) * np.exp(0.5 * log_variance)  # [6, samples, 2]
    p = np.asarray(LINEAR.apply(state.variables, z.reshape(-1, 2), method="decode")).reshape(6, samples, 4)
    pixels = x.reshape(6, 1, 4)
    log_likelihood = (pixels * np.log(p) + (1 - pixels) * np.log(1 - p)).sum(-1)
    log_prior = scipy.stats.norm.logpdf(z).sum(-1)
    log_posterior = scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_variance)).sum(-1)
    weights = log_likelihood + log_prior - log_posterior
    bounds = scipy.special.logsumexp(weights, axis=1) - np.log(samples)
    assert metrics["loss"] == pytest.approx(-bounds.mean(), rel=1e-5)
    assert metrics["reconstruction"] == pytest.approx(-log_likelihood.mean(), rel=1e-5)
    kl = -0.5 * (1 + log_variance - mean**2 - np.exp(log_variance)).sum(-1)
    assert metrics["kl"] == pytest.approx(kl.mean(), rel=1e-5)


def test_more_samples_make_the_bound_tighter() -> None:
    x = np.repeat(images(2), 500, axis=0)
    losses = []
    for samples in (1, 2, 20):
        recipe = vae.recipe(module=LINEAR, samples=samples)
        losses.append(one_step(recipe, x, recipe.noise(KEY, len(x)))[2]["loss"])
    assert losses[0] > losses[1] > losses[2]


def test_running_statistics_of_both_halves_follow_several_samples() -> None:
    recipe = vae.recipe(module=vae.ConvVAE(size=8, width=2), samples=3)
    _, after, _ = one_step(recipe, images(), recipe.noise(KEY, 6))
    counters = torch_weights.flatten(after.variables)
    assert {int(counters[f"{name}.1.num_batches_tracked"]) for name in ("conv1", "decoder", "convTrans2")} == {1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beta": -1.0}, "beta -1.0: must be 0 or more"),
        ({"beta": float("nan")}, "beta nan: must be 0 or more"),
        ({"samples": 0}, "samples 0: must be 1 or more"),
        ({"samples": 2, "beta": 2.0}, "with several samples the bound has no KL term to weigh"),
    ],
)
def test_settings_without_a_meaning_are_refused(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        vae.recipe(module=LINEAR, **options)


# --- Denoising --------------------------------------------------------------------------------------------------------


class Halving(nn.Module):
    """One parameter, which multiplies the image."""

    input_shape = (4, 4, 1)

    @nn.compact
    def __call__(self, x):
        return self.param("factor", nn.initializers.constant(0.5), ()) * x


def test_noise_is_on_the_input_and_not_on_the_target() -> None:
    x, recipe = images(4), autoencoder.recipe(Halving(), noise=0.3)
    noise = recipe.noise(KEY, 6)
    _, metrics = recipe.update(recipe.init(KEY), x, noise)
    wanted = np.mean((0.5 * (x + 0.3 * np.asarray(noise.pixels)) - x) ** 2)
    assert float(metrics["loss"][0]) == pytest.approx(wanted, rel=1e-5)
    many = recipe.noise(KEY, 1000).pixels
    assert many.shape == (1000, 4, 4, 1)
    assert abs(float(many.std()) - 1) < 5 / np.sqrt(2 * many.size)


def test_without_noise_nothing_is_random() -> None:
    assert autoencoder.recipe(Halving()).noise(KEY, 6) == autoencoder.Noise()


@pytest.mark.parametrize("noise", [-0.1, float("nan")])
def test_noise_that_is_no_deviation_is_refused(noise: float) -> None:
    with pytest.raises(InputError, match="must be a standard deviation, 0 or more"):
        autoencoder.recipe(Halving(), noise=noise)
