"""What a module must offer to take part in a recipe, as protocols, and the check that a recipe makes of it.

Any Flax (Linen) module that offers these attributes and methods will do; none of them is a base class. Arguments
before a `/` are passed by position, so their names are free; those after a `*` are passed by name.
"""

import inspect
from collections.abc import Iterator
from typing import Any, Protocol

import jax

from jaxgen.errors import InputError

__all__ = ["VAE", "Conditional", "Discriminator", "EncoderDecoder", "Generator", "Network", "TrainMode", "check"]


class Network(Protocol):
    """What every recipe needs, and weights files too."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input without the batch axis, such as (28, 28, 1)."""

    def init(self, *args: Any, **kwargs: Any) -> Any:
        """Make the initial variables; every Linen module has it."""

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output from variables and inputs; every Linen module has it."""


class Generator(Network, Protocol):
    """A generator, for `dcgan.digits_recipe`, `dcgan.mnist_recipe` and `dcgan.sample`."""

    def prior(self, key: jax.Array, count: int, /) -> jax.Array:
        """Draw `count` latent vectors, `[count, *input_shape]`."""

    def __call__(self, z: jax.Array, /) -> jax.Array:
        """Generate images `[B, H, W, C]` from latent vectors."""


class Discriminator(Network, Protocol):
    """A discriminator, for `dcgan.digits_recipe` and `dcgan.mnist_recipe`."""

    def __call__(self, images: jax.Array, /) -> jax.Array:
        """Judge images `[B, H, W, C]`: logits `[B]`, positive for real."""


class VAE(Network, Protocol):
    """A variational autoencoder, for `vae.recipe` and `vae.evaluate`."""

    @property
    def latent(self) -> int:
        """The number of dimensions of the latent space."""

    def __call__(self, images: jax.Array, epsilon: jax.Array, /, *, train: bool) -> Any:
        """Encode images and decode mean + epsilon·σ: a `vae.Output`."""


class EncoderDecoder(Protocol):
    """The two halves of a variational autoencoder, for `vae.recipe(samples=…)`, `vae.encode` and `vae.decode`."""

    def encode(self, images: jax.Array, /, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Compute mean and log σ² of the latent codes, `[B, latent]` each."""

    def decode(self, z: jax.Array, /, *, train: bool) -> jax.Array:
        """Compute images in (0, 1) from latent codes `[B, latent]`."""


class TrainMode(Protocol):
    """A network that behaves differently in training, as batch norm does: for `dcgan.mnist_recipe`, both networks."""

    def __call__(self, *, train: bool) -> Any:
        """Use the statistics of the batch, and update the running ones, where `train` is true."""


class Conditional(Protocol):
    """A network that is conditional on labels, where its `classes` is above 0.

    `encode` and `decode` take labels too, where there are any.
    """

    @property
    def classes(self) -> int:
        """The number of classes."""

    def __call__(self, *, labels: jax.Array | None) -> Any:
        """Take int32 labels `[B]`, which are None while the variables are initialised."""


def check(role: str, module: Any, *protocols: type) -> None:
    """Check that a module offers what protocols ask for, and what `Conditional` does if its `classes` is above 0.

    Args:
        role: What the error calls the module, such as "generator".
        module: The module.
        protocols: Protocols of this file.

    Raises:
        InputError: Something is missing. The message says what, and what it must do.
    """
    if isinstance(module, type):
        raise InputError(f"{role}: {module.__name__} is a class; give a module, as {module.__name__}()")
    if getattr(module, "classes", 0):
        protocols = (*protocols, Conditional)
    for protocol in protocols:
        for name, member in _members(protocol):
            if problem := _problem(module, name, member):
                purpose = (inspect.getdoc(member) or "").rstrip(".")
                raise InputError(
                    f"{role}: {type(module).__name__} {problem}: {purpose[:1].lower()}{purpose[1:]} "
                    f"(see jaxgen.protocols.{protocol.__name__})"
                )


def _members(protocol: type) -> Iterator[tuple[str, Any]]:
    """The attributes and methods that a protocol and its bases ask for."""
    for kind in reversed(protocol.__mro__):
        if kind.__module__ == __name__:
            for name, member in vars(kind).items():
                if isinstance(member, property) or (inspect.isfunction(member) and member.__doc__):
                    yield name, member


def _problem(module: Any, name: str, member: Any) -> str | None:
    """What is wrong with this member of the module; None where it is as asked for."""
    if isinstance(member, property):
        return None if hasattr(module, name) else f"needs an attribute {name}"
    parameters = list(inspect.signature(member).parameters.values())[1:]
    by_position = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY]
    by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    call = f"{name}({', '.join([*by_position, *(f'{each}=…' for each in by_name)])})"
    if not callable(getattr(module, name, None)):
        return f"needs a method {call}"
    try:
        inspect.signature(getattr(module, name)).bind_partial(*by_position, **dict.fromkeys(by_name))
    except TypeError:
        return f"must take {call}"
    return None
