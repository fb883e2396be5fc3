"""Networks traced into steps compute what the modules compute."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.layers import LSTM, BatchNorm, Conv, ConvTranspose, GroupNorm, Linear, MaxPool, flatten
from jaxgen.models import completion, vae
from jaxgen.report.network import UnsupportedError, evaluate, trace
from jaxgen.report.rows import complete
from tests.support.run_folder import MODULES, trained_variables

pytestmark = pytest.mark.unoptimized


def traced(function, *inputs):
    """The network of a function, traced for one example."""
    return trace(function, *(jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in inputs))


def assert_same(function, *inputs, tolerance=1e-5):
    network = traced(function, *inputs)
    expected = jax.jit(function)(*inputs)
    for got, want in zip(
        evaluate(network, *inputs), expected if isinstance(expected, tuple) else (expected,), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return network


def draw(*shape, low=-1.0):
    return np.random.default_rng(0).uniform(low, 1, shape).astype(np.float32)


@pytest.mark.parametrize("name", ["dcgan_mnist", "dcgan_digits", "conv_autoencoder"])
def test_network_of_a_model_computes_what_the_model_does(name):
    module = MODULES[name]
    network = assert_same(partial(module.apply, trained_variables(module)), draw(3, *module.input_shape))
    assert not [step for step in network.steps if step.op == "affine"]  # batch norm is in the layer before it


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_both_halves_of_a_vae(method):
    module = vae.ConvVAE(2, width=8)
    given = draw(2, 32, 32, 1) if method == "encode" else draw(3, 2)
    assert_same(partial(module.apply, trained_variables(module), method=method), given, tolerance=1e-4)


class Everything(nn.Module):
    """Every kind of layer and operation that a page knows, with uneven sizes."""

    input_shape = (9, 7, 2)

    @nn.compact
    def __call__(self, x, labels):
        code = jax.nn.one_hot(labels, 3, dtype=x.dtype)[:, None, None]
        x = jnp.concatenate([x, jnp.broadcast_to(code, (*x.shape[:-1], 3))], axis=-1)
        x = BatchNorm(name="first")(x)  # there is no layer before it to fold it into
        x = nn.relu(Conv(4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), name="conv")(x))
        x = MaxPool((2, 3), stride=1, padding=(1, 0))(x)
        x = ConvTranspose(3, (3, 4), stride=(2, 3), padding=1, output_padding=(1, 0), dilation=(2, 1), name="up")(x)
        x = BatchNorm(name="norm")(x)
        x = jnp.where(x > 0, x, 0.2 * x) + jnp.tanh(x) * jax.nn.sigmoid(x) - x**2 / 7
        x = flatten(x[:, 1:4, 2:])
        return Linear(5, use_bias=False, name="last")(x), jnp.exp(x)


def test_every_kind_of_layer():
    module = Everything()
    images, labels = draw(4, *module.input_shape), np.array([2, 0, 1, 1], np.int32)
    variables = module.init(jax.random.key(0), images, labels)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf) + (0.1 if leaf.dtype == np.float32 else 0), variables)
    network = assert_same(partial(module.apply, variables), images, labels)
    kinds = {step.op for step in network.steps}
    assert {"affine", "conv", "conv_transpose", "max_pool", "concatenate", "linear", "slice", "transpose"} <= kinds


class Shared(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = Linear(3, name="a")(x)
        return BatchNorm(name="b")(y) + y


def test_batch_norm_is_not_folded_into_a_layer_that_something_else_reads():
    module, x = Shared(), draw(4, 5)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf) + leaf.dtype.type(1), module.init(jax.random.key(0), x))
    assert_same(partial(module.apply, variables), x)


class Unknown(nn.Module):
    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.layer(x)


@pytest.mark.parametrize(
    "layer", [GroupNorm(num_groups=2), LSTM(3), LSTM(3, return_carry=True), nn.LayerNorm()], ids=str
)
def test_what_a_page_cannot_compute_is_refused(layer):
    module, x = Unknown(layer), draw(1, 4, 4)
    variables = module.init(jax.random.key(0), x)
    with pytest.raises(UnsupportedError):
        traced(partial(module.apply, variables), x)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_completion_as_one_product_a_row(cell):
    module = completion.RowCompleter(cell, 12, 6)
    variables = trained_variables(module)
    params = variables["params"]
    weights = [
        np.asarray(params[layer][name]).T
        for layer, names in (
            ("rnn", ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")),
            ("fc", ("weight", "bias")),
        )
        for name in names
    ]
    images = draw(3, 11, 6, low=0)
    expected = completion.complete(module, variables, images[..., None], 5)[..., 0]
    np.testing.assert_allclose(complete(cell, weights, images, 5), expected, rtol=1e-5, atol=1e-5)
