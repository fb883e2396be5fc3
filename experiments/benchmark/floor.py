"""The time of the arithmetic as the layers define it: multiply-adds, counted, over the rate of this machine.

Winograd's form takes fewer, so it is no bound for a recipe that uses it.
"""

import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.layers import GRU, LSTM, Conv, ConvTranspose, Linear
from jaxgen.training import Recipe, Source, steps_per_epoch


def floor(recipe: Recipe, source: Source, batch_size: int, rate: float) -> dict[str, float]:
    """An epoch's arithmetic at so many multiply-adds a second; a last, smaller batch is counted as what it is."""
    whole, rest = divmod(source.size, batch_size)
    count = whole * multiply_adds(recipe, source, batch_size)
    if steps_per_epoch(recipe, source, batch_size) > whole:
        count += multiply_adds(recipe, source, rest)
    return {
        "multiply_adds_per_epoch": count,
        "matmul_multiply_adds_per_second": rate,
        "seconds_per_epoch": count / rate,
    }


def multiply_adds(recipe: Recipe, source: Source, batch_size: int) -> int:
    """Multiply-adds of one step in its layers, forward and backward, from their shapes; nothing is computed.

    A layer's weights meet its input once at every position: of the output in a convolution, of the input in a
    transposed one, at every time in a recurrence. The gradient by the input takes as many again, the one by the weights
    too; each is counted where the step asks for it. Taps that fall on padding count, as they do in PyTorch's own
    counter (torch.utils.flop_counter); biases, activations, normalisation and the optimiser do not. Layers other than
    those of `jaxgen.layers` are not seen.
    """
    count = 0

    def watch(
        call: Callable[..., jax.Array], arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> jax.Array:
        nonlocal count
        output, layer = call(*arguments, **keywords), context.module
        if context.method_name == "__call__" and isinstance(layer, Linear | Conv | ConvTranspose | LSTM | GRU):
            x, weights = arguments[0], layer.variables["params"]
            met = output if isinstance(layer, Conv) else x
            if isinstance(layer, LSTM | GRU):
                products = [(x, weights["weight_ih_l0"]), (output, weights["weight_hh_l0"])]
            else:
                products = [(x, weights["weight"])]
            for factor, weight in products:
                passes = 1 + sum(differentiated(factor, weight))
                count += met.size // met.shape[-1] * weight.size * passes
        return output

    def step(state: Any, arrays: Any, rows: jax.Array, key: jax.Array) -> Any:
        return recipe.update(state, source.batch(arrays, rows), recipe.noise(key, batch_size))

    key = jax.random.key(0)
    state = jax.eval_shape(recipe.init, key)
    with nn.intercept_methods(watch):
        jax.eval_shape(step, state, source.arrays, jax.ShapeDtypeStruct((batch_size,), jnp.int32), key)
    return count


def differentiated(*values: jax.Array) -> list[bool]:
    """Whether the function that is being traced is differentiated by something that each value depends on."""
    answers = [False] * len(values)

    @jax.custom_vjp
    def ask(*values: jax.Array) -> tuple[jax.Array, ...]:
        return values

    def forward(*values: Any) -> tuple[tuple[jax.Array, ...], None]:
        answers[:] = [value.perturbed for value in values]
        return tuple(value.value for value in values), None

    ask.defvjp(forward, lambda _, gradients: gradients, symbolic_zeros=True)
    ask(*values)  # under differentiation JAX calls `forward` in its place
    return answers


def matmul_rate(repeats: int, size: int = 2048) -> float:
    """Multiply-adds a second in a float32 product of two square matrices: the best of XLA's and PyTorch's."""
    import torch

    multiply = jax.jit(jnp.matmul)
    ours, theirs = jnp.ones((size, size)), torch.ones(size, size)
    multiply(ours, ours).block_until_ready()  # compiles
    best = float("inf")
    for _ in range(repeats):
        for product in (lambda: multiply(ours, ours).block_until_ready(), lambda: theirs @ theirs):
            began = time.perf_counter()
            product()
            best = min(best, time.perf_counter() - began)
    return size**3 / best
