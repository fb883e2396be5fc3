"""Training in bfloat16: the networks compute in it, and everything that lasts stays float32."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.benchmark.cases import CASES
from experiments.benchmark.images import random_images
from jaxgen.layers import BatchNorm

BATCH = 8


def in_precision(name, precision):
    """A recipe, its first state, a batch and a step's noise."""
    case = CASES[name]()
    recipe = case.experiment.recipe(dataclasses.replace(case.config, precision=precision))
    source = case.source(random_images((2 * BATCH, *case.shape)))
    batch = source.batch(source.arrays, jnp.arange(BATCH))
    return recipe, jax.jit(recipe.init)(jax.random.key(0)), batch, recipe.noise(jax.random.key(1), BATCH)


def product_types(recipe, state, batch, noise):
    """The element types of what is multiplied, and of the results, in a step exported for a GPU."""
    exported = jax.export.export(jax.jit(recipe.update), platforms=["cuda"])(state, batch, noise)
    products = re.findall("stablehlo.(?:convolution|dot_general).* : (.*)", exported.mlir_module())
    return set(re.findall(r"b?f\d+(?=>)", " ".join(products)))


@pytest.mark.parametrize("name", CASES)
def test_every_product_is_of_bfloat16(name):
    assert product_types(*in_precision(name, "bf16")) == {"bf16"}
    assert product_types(*in_precision(name, "float32")) == {"f32"}


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_nearly_that_of_float32(name):
    """bfloat16 rounds each number by up to one part in 512, and a network has up to nine layers.

    Batch norm magnifies what is left of a batch once its mean is taken off: there gradients at the start of a training
    are off by tens of per cent, also with PyTorch's autocast.
    """
    recipe, state, batch, noise = in_precision(name, "float32")
    low = in_precision(name, "bf16")[0]
    after, metrics = jax.jit(recipe.update)(state, batch, noise)
    low_after, low_metrics = jax.jit(low.update)(state, batch, noise)
    assert jax.tree.map(lambda x: x.dtype, low_after) == jax.tree.map(lambda x: x.dtype, after)
    for metric, (total, weight) in metrics.items():
        if metric.startswith("accuracy"):
            continue
        assert low_metrics[metric][0].dtype == jnp.float32
        assert float(low_metrics[metric][0] / low_metrics[metric][1]) == pytest.approx(float(total / weight), rel=0.02)
    for moments, low_moments in zip(first_moments(after), first_moments(low_after), strict=True):
        apart = optax.tree.norm(jax.tree.map(jnp.subtract, moments, low_moments))
        assert apart < (0.6 if "batch_stats" in str(jax.tree.structure(after)) else 0.1) * optax.tree.norm(moments)


def first_moments(state):
    """The first moments of every Adam in a state: after a first step they are its gradient's tenth."""
    adams = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, optax.ScaleByAdamState))
    return [adam.mu for adam in adams if isinstance(adam, optax.ScaleByAdamState)]


def test_float64_stays_float64():
    with jax.enable_x64(True):
        for case in (make() for make in CASES.values()):
            recipe = case.recipe
            source = case.source(random_images((BATCH, *case.shape)))
            state = jax.eval_shape(recipe.init, jax.random.key(0))
            batch = jax.eval_shape(source.batch, source.arrays, jnp.arange(BATCH))
            noise = jax.eval_shape(lambda recipe=recipe: recipe.noise(jax.random.key(0), BATCH))
            after, _ = jax.eval_shape(recipe.update, *jax.tree.map(in_float64, (state, batch, noise)))
            assert jnp.float32 not in {leaf.dtype for leaf in jax.tree.leaves(after)}


def in_float64(x):
    return jax.ShapeDtypeStruct(x.shape, jnp.float64 if x.dtype == jnp.float32 else x.dtype)


def test_statistics_are_taken_in_float32():
    """In bfloat16 the mean of 4096 numbers about 100 would be off by more than their spread."""
    x = (100 + jax.random.normal(jax.random.key(0), (4096, 3))).astype(jnp.bfloat16)
    norm = BatchNorm()
    variables = norm.init(jax.random.key(0), x)
    y, moved = norm.apply(variables, x, True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert moved["batch_stats"]["running_mean"].dtype == jnp.float32
    assert moved["batch_stats"]["running_mean"].tolist() == pytest.approx(
        (0.1 * x.astype(jnp.float32).mean(0)).tolist()
    )
    assert jnp.abs(y.astype(jnp.float32).mean(0)).max() < 0.01
