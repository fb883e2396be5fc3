"""What a trained model computes, as functions of arrays alone: what is exported."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import export

from jaxgen.errors import InputError
from jaxgen.models import autoencoder, completion

__all__ = ["Function", "functions_of"]

Variables = Any
Shape = tuple[int | None, ...]  # None is the batch, of any size
Inputs = Mapping[str, tuple[Shape, str]]  # the shape and the dtype of each argument, by name


class Function(NamedTuple):
    """A function of a trained model, which holds its weights.

    Attributes:
        name: What it does, such as "decode"; the name of its files.
        call: Takes the arrays of `inputs`, by position, and returns an array.
        inputs: The shape and dtype of each argument, by name.
        output: What the result is called.
    """

    name: str
    call: Callable[..., jax.Array]
    inputs: Inputs
    output: str


def functions_of(
    module: nn.Module,
    variables: Variables,
    *,
    count: int = 64,
    height: int | None = None,
    length: int | None = None,
    unrolled: bool = False,
) -> list[Function]:
    """Find out what a trained model computes.

    - A generator (a module with a method `prior`): `generate` images from latent vectors, and `sample`, which draws
      `count` latent vectors itself, from a key.
    - A variational autoencoder (`latent`, `encode` and `decode`): `encode` images to the means of their codes,
      `decode` codes, `reconstruct` images.
    - `ConvAutoencoder`: `encode`, `decode` and `reconstruct`, where a code is an image of several channels.
    - `RowCompleter`: `complete` images of one height from their first rows.
    - Any other module with an `input_shape`, such as a discriminator: `apply`.

    A conditional module takes int32 labels `[B]` too.

    Args:
        module: The network.
        variables: Its variables.
        count: Images that `sample` makes.
        height: Height of the images that `complete` takes; by default their width.
        length: Rows that `complete` keeps; by default half the height.
        unrolled: Whether to write loops as one step after the other, for ONNX.

    Raises:
        InputError: The module has no `input_shape`, or `length` does not fit the height.
    """
    if not hasattr(module, "input_shape"):
        raise InputError(f"{type(module).__name__} has no input_shape: the shape of its input without the batch axis")
    variables = jax.tree.map(jnp.asarray, variables)
    apply: Callable[..., Any] = partial(module.apply, variables)
    labels: dict[str, tuple[Shape, str]] = {"labels": ((None,), "int32")} if getattr(module, "classes", 0) else {}
    taken = {"images": ((None, *module.input_shape), "float32")}
    if isinstance(module, completion.RowCompleter):
        return [_completion(module, variables, height or module.width, length, unrolled)]
    if hasattr(module, "prior"):
        return _generation(module, variables, labels, count)
    if hasattr(module, "encode") and hasattr(module, "decode") and hasattr(module, "latent"):
        code = {"z": ((None, module.latent), "float32")}

        def encode(images: jax.Array, *labels: jax.Array) -> jax.Array:
            mean: jax.Array = apply(images, *labels, method="encode")[0]
            return mean

        decode = partial(apply, method="decode")
        return [
            Function("encode", encode, taken | labels, "z"),
            Function("decode", decode, code | labels, "images"),
            Function("reconstruct", lambda x, *y: decode(encode(x, *y), *y), taken | labels, "reconstructions"),
        ]
    if isinstance(module, autoencoder.ConvAutoencoder):
        encode_ = partial(apply, method=lambda module, images: module.enc(images))
        decode_ = partial(apply, method=lambda module, code: module.dec(code))
        code_shape = jax.eval_shape(encode_, jnp.zeros((1, *module.input_shape))).shape[1:]
        return [
            Function("encode", encode_, taken, "code"),
            Function("decode", decode_, {"code": ((None, *code_shape), "float32")}, "images"),
            Function("reconstruct", apply, taken, "reconstructions"),
        ]
    return [Function("apply", apply, taken | labels, "output")]


def _generation(
    generator: nn.Module, variables: Variables, labels: dict[str, tuple[Shape, str]], count: int
) -> list[Function]:
    generate: Callable[..., Any] = partial(generator.apply, variables)

    def sample(key: jax.Array, *labels: jax.Array) -> jax.Array:
        z = generator.prior(jax.random.wrap_key_data(key, impl="threefry2x32"), count)
        images: jax.Array = generate(z, *labels)
        return images

    of_count = {name: ((count,), dtype) for name, (_, dtype) in labels.items()}
    return [
        Function("generate", generate, {"z": ((None, *generator.input_shape), "float32")} | labels, "images"),
        Function("sample", sample, {"key": ((2,), "uint32")} | of_count, "images"),
    ]


def _completion(
    module: completion.RowCompleter, variables: Variables, height: int, length: int | None, unrolled: bool
) -> Function:
    length = length or height // 2
    if not 1 <= length < height:
        raise InputError(f"{length} rows to keep: must be from 1 to {height - 1}, below the images' height")

    predict: Callable[..., Any] = partial(module.apply, variables)

    def by_loop(images: jax.Array) -> jax.Array:
        completed: jax.Array = completion.complete(module, variables, images, length)
        return completed

    def row_by_row(images: jax.Array) -> jax.Array:
        rows = images[:, :length, :, 0]
        for _ in range(length, height):
            following = predict(rows[:, rows.shape[1] - length :])
            rows = jnp.concatenate([rows, following[:, None]], axis=1)
        return rows[..., None]

    shape = (None, height, module.width, 1)
    return Function("complete", row_by_row if unrolled else by_loop, {"images": (shape, "float32")}, "completed")


def traced_as(inputs: Inputs) -> list[jax.ShapeDtypeStruct]:
    """What to trace a function with: a symbolic batch in place of None."""
    (batch,) = export.symbolic_shape("batch")
    return [
        jax.ShapeDtypeStruct([batch if length is None else length for length in shape], dtype)
        for shape, dtype in inputs.values()
    ]
