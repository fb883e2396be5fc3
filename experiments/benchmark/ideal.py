"""The ideal time: that of a recipe's multiply-adds at the rate of large matrix products on this machine.

The multiply-adds are counted as the layers define them. Winograd's algorithm takes fewer, so for a recipe that uses it
the ideal time is a measure and not a lower bound.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.benchmark.cases import Precision
from jaxgen.layers import GRU, LSTM, Conv, ConvTranspose, Linear
from jaxgen.training import Recipe, Source, steps_per_epoch


def ideal_time(recipe: Recipe[Any], source: Source, batch_size: int, rate: float) -> dict[str, float]:
    """Return the ideal time of an epoch, its last, smaller batch included if the recipe trains on it.

    Args:
        rate: multiply-adds a second in large matrix products, from `matmul_rate`.
    """
    whole, rest = divmod(source.size, batch_size)
    count = whole * multiply_adds(recipe, source, batch_size)
    if steps_per_epoch(recipe, source, batch_size) > whole:
        count += multiply_adds(recipe, source, rest)
    return {
        "multiply_adds_per_epoch": count,
        "matmul_multiply_adds_per_second": rate,
        "seconds_per_epoch": count / rate,
    }


class Product(NamedTuple):
    """A layer's product of an input and a weight in one step of training."""

    multiply_adds: int  # of one pass
    passes: int  # forward, and one for each of the two whose gradient is computed
    in_sequence: int  # the parts that wait for each other: time steps of a recurrence, or 1


def multiply_adds(recipe: Recipe[Any], source: Source, batch_size: int) -> int:
    """Count the multiply-adds of one step in its layers (`noted_products`), from their shapes, computing nothing."""

    def step(state: Any, arrays: Any, rows: jax.Array, key: jax.Array) -> Any:
        return recipe.update(state, source.batch(arrays, rows), recipe.noise(key, batch_size))

    key = jax.random.key(0)
    state = jax.eval_shape(recipe.init, key)
    with noted_products() as products:
        jax.eval_shape(step, state, source.arrays, jax.ShapeDtypeStruct((batch_size,), jnp.int32), key)
    return sum(each.multiply_adds * each.passes for each in products)


@contextlib.contextmanager
def noted_products() -> Iterator[list[Product]]:
    """Note the products of all layers that are traced in the meantime, forward and backward.

    A layer's weights are used once at every position: of the output in a convolution, of the input in a transposed one,
    at every time step in a recurrence. The gradient with respect to the input takes as many multiply-adds again, and so
    does the one with respect to the weights; each is counted only if the step computes it. Products with padding count,
    as they do in PyTorch's counter (torch.utils.flop_counter); biases, activations, normalisation and the optimiser do
    not. Only the layers of `jaxgen.layers` are counted.
    """
    products: list[Product] = []

    def note(
        call: Callable[..., jax.Array], arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> jax.Array:
        output, layer = call(*arguments, **keywords), context.module
        if context.method_name == "__call__" and isinstance(layer, Linear | Conv | ConvTranspose | LSTM | GRU):
            x, weights = arguments[0], layer.variables["params"]
            positions = output if isinstance(layer, Conv) else x
            if isinstance(layer, LSTM | GRU):
                factors = [(x, weights["weight_ih_l0"], 1), (output, weights["weight_hh_l0"], x.shape[1])]
            else:
                factors = [(x, weights["weight"], 1)]
            for factor, weight, in_sequence in factors:
                size = positions.size // positions.shape[-1] * weight.size
                products.append(Product(size, 1 + sum(differentiated(factor, weight)), in_sequence))
        return output

    with nn.intercept_methods(note):
        yield products


def differentiated(*values: jax.Array) -> list[bool]:
    """Return for each value whether the function that is being traced is differentiated with respect to it."""
    answers = [False] * len(values)

    @jax.custom_vjp
    def identity(*values: jax.Array) -> tuple[jax.Array, ...]:
        return values

    def forward(*values: Any) -> tuple[tuple[jax.Array, ...], None]:
        answers[:] = [value.perturbed for value in values]
        return tuple(value.value for value in values), None

    identity.defvjp(forward, lambda _, gradients: gradients, symbolic_zeros=True)
    identity(*values)  # under differentiation JAX calls `forward` instead
    return answers


def matmul_rate(repeats: int, precision: Precision = "float32", size: int = 2048) -> float:
    """Measure multiply-adds a second in a product of two square matrices: the best of XLA's and PyTorch's."""
    import torch

    multiply = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))
    ours, theirs = jnp.ones((size, size)), torch.ones(size, size)
    if precision == "bf16":
        ours, theirs = ours.astype(jnp.bfloat16), theirs.bfloat16()
    multiply(ours, ours).block_until_ready()  # compiles
    products: list[Callable[[], object]]
    products = [lambda: multiply(ours, ours).block_until_ready(), lambda: theirs @ theirs]
    best = float("inf")
    for _ in range(repeats):
        for product in products:
            began = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - began)
    return size**3 / best
