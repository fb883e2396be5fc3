"""The search for XLA's convolutions inside loops that are compiled for the CPU."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

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
