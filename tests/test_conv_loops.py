"""The search for XLA's convolutions inside loops that are compiled for the CPU."""

import warnings
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.ops.conv import conv
from jaxgen.ops.conv.loops import has_convolution_in_loop

LAX = partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


def ours(x, kernel):
    return conv(x, kernel, padding=(1, 1))


def in_loop(function):
    return lambda x, kernel: jax.lax.fori_loop(0, 3, lambda _, x: function(x, kernel), x)


def in_loop_through_a_call(function):
    return in_loop(jax.jit(lambda x, kernel: jax.jit(function)(x, kernel)))


def gradient_in_loop(function):
    return in_loop(lambda x, kernel: jax.grad(lambda x: jnp.sum(function(x, kernel) ** 2))(x))


def outside(function):
    return lambda x, kernel: in_loop(lambda x, kernel: x + kernel.sum())(function(x, kernel), kernel)


@pytest.mark.parametrize(
    ("make", "found"),
    [(in_loop, True), (in_loop_through_a_call, True), (gradient_in_loop, True), (outside, False)],
)
def test_finds_the_convolutions_of_lax_inside_loops_and_none_of_ours(make, found):
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    assert has_convolution_in_loop(jax.jit(make(LAX)).lower(x, kernel)) == found
    assert not has_convolution_in_loop(jax.jit(make(ours)).lower(x, kernel))


class PlainConv(nn.Module):
    """A convolutional network of Flax's own layers."""

    convolution: Any = None

    @nn.compact
    def __call__(self, x):
        return nn.Conv(1, (3, 3), conv_general_dilated=self.convolution)(x)


def fit(module):
    def update(params, batch, noise):
        loss, gradient = jax.value_and_grad(lambda params: jnp.square(module.apply(params, batch) - batch).mean())(
            params
        )
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), {"loss": (loss, jnp.ones(()))}

    images = np.random.default_rng(0).random((8, 6, 6, 1), np.float32)
    recipe = jaxgen.Recipe(
        lambda key, weights=None: module.init(key, images[:1]), lambda key, size: (), update, lambda params: params
    )
    return jaxgen.fit(recipe, recipe.init(jax.random.key(0)), images, epochs=2, batch_size=4, key=jax.random.key(1))[1][
        "loss"
    ]


def test_fit_warns_of_flax_convolutions_on_the_cpu_and_ours_are_a_drop_in():
    with pytest.warns(UserWarning, match="jaxgen.conv_general_dilated"):
        plain = fit(PlainConv())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = fit(PlainConv(jaxgen.conv_general_dilated))
    np.testing.assert_allclose(ours, plain, rtol=1e-5)
