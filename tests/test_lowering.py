"""What XLA makes of the recipes: on the CPU matrix products within the loop, on a GPU the library's convolutions."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen import training
from jaxgen.models import autoencoder, completion, dcgan, vae

BATCH = 8
IMAGES = {
    "dcgan_digits": (dcgan.digits_recipe, (8, 8, 1)),
    "dcgan_mnist": (dcgan.mnist_recipe, (28, 28, 1)),
    "conv_autoencoder": (autoencoder.recipe, (32, 32, 3)),
    "vae_mnist": (vae.recipe, (32, 32, 1)),
}


def recipe_and_source(name: str) -> tuple[training.Recipe, training.Source]:
    if name in IMAGES:
        make, shape = IMAGES[name]
        return make(), training.scaled(jnp.zeros((2 * BATCH, *shape), jnp.uint8))
    return completion.recipe(cell=name), completion.windows(jnp.zeros((2, 56, 56, 1), jnp.uint8), 28)


@pytest.mark.parametrize("name", [*IMAGES, "lstm", "gru"])
def test_on_the_cpu_no_convolution_is_left(name):
    """They are slow within a loop there (jax#12868), and those with `lhs_dilation` everywhere (jax#23783)."""
    recipe, source = recipe_and_source(name)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    carry = jax.eval_shape(lambda state: training.begin(recipe, source, state, BATCH), state)
    epoch = training.epoch_of(source, jax.random.split(jax.random.key(1)), 0)
    loop = training.advance(recipe, source, BATCH).lower(carry, source.arrays, epoch, 0, 2)
    optimised = loop.compile().as_text()
    assert "while(" in optimised
    assert " dot(" in optimised
    assert "convolution(" not in optimised
    assert "lhs_dilate" not in optimised


# Forward, and backward by the images and by the kernel, each where it is needed and no more often.
CONVOLUTIONS = {
    # G; D on fakes, and on real ones: 3 + 2 + 3 each; G through D: 3 + 3 forward, 3 through D, 2 + 3 through G
    "dcgan_digits": 3 + 8 + 8 + 14,
    # G; D on real ones, and on fakes: 2 + 1 + 2 each; G through D: 2 + 2 forward, 2 through D, 2 + 2 through G
    "dcgan_mnist": 2 + 5 + 5 + 10,
    "conv_autoencoder": 4 + 3 + 4,
    "vae_mnist": 8 + 7 + 8,
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_on_a_gpu_they_are_the_librarys(name):
    """As exported for CUDA, for which none needs to be here."""
    recipe, source = recipe_and_source(name)
    state = jax.eval_shape(recipe.init, jax.random.key(0))
    batch = jax.eval_shape(source.batch, source.arrays, jax.ShapeDtypeStruct((BATCH,), jnp.int32))
    noise = jax.eval_shape(lambda: recipe.noise(jax.random.key(0), BATCH))
    exported = jax.export.export(jax.jit(recipe.update), platforms=["cuda"])(state, batch, noise)
    assert exported.mlir_module().count("stablehlo.convolution(") == CONVOLUTIONS[name]


@pytest.mark.parametrize(
    "module",
    [
        dcgan.DigitsGenerator(),
        dcgan.DigitsDiscriminator(),
        dcgan.MnistGenerator(),
        dcgan.MnistDiscriminator(),
        vae.ConvVAE(),
        autoencoder.ConvAutoencoder(),
        completion.RowCompleter("lstm", hidden=8),
        completion.RowCompleter("gru", hidden=8),
    ],
    ids=lambda module: type(module).__name__,
)
def test_every_network_is_exported_with_a_symbolic_batch(module):
    shape = (28, 56) if isinstance(module, completion.RowCompleter) else module.input_shape
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *shape)))
    batch = jax.export.symbolic_shape(f"b, {', '.join(map(str, shape))}")
    images = jax.ShapeDtypeStruct(batch, jnp.float32)
    exported = jax.export.export(jax.jit(module.apply), platforms=["cpu", "cuda"])(variables, images)
    for output in jax.tree.leaves(exported.out_avals):
        assert str(output.shape[0]) == "b"
    weights = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1).astype(leaf.dtype), variables)
    for size in (1, 3):
        x = jax.random.uniform(jax.random.key(size), (size, *shape))
        for ours, plain in zip(
            *(map(jax.tree.leaves, (exported.call(weights, x), module.apply(weights, x)))), strict=True
        ):
            assert jnp.allclose(ours, plain, rtol=1e-5, atol=1e-5)
