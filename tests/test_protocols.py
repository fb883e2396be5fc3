"""What a module must offer is checked when a recipe is made, and the error says what is missing."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import pytest

from jaxgen import protocols
from jaxgen.errors import InputError
from jaxgen.models import autoencoder, completion, dcgan, vae


class Network(nn.Module):
    """A module that offers everything; tests remove one thing at a time."""

    input_shape = (4,)
    latent = 2
    classes = 3

    def prior(self, key, count):
        return None

    def __call__(self, x, epsilon=None, labels=None, train=False):
        return x

    def encode(self, images, labels=None, train=False):
        return images, images

    def decode(self, z, labels=None, train=False):
        return z


def without(name: str) -> nn.Module:
    """A `Network` that lacks an attribute."""
    members = {key: value for key, value in vars(Network).items() if key in OFFERED and key != name}
    return type("Mine", (nn.Module,), members)()


OFFERED = ("input_shape", "latent", "classes", "prior", "__call__", "encode", "decode")


def generator(module: nn.Module) -> Any:
    return dcgan.mnist_recipe(module, Network())


def discriminator(module: nn.Module) -> Any:
    return dcgan.mnist_recipe(Network(), module)


def digits(module: nn.Module) -> Any:
    return dcgan.digits_recipe(module, Network())


def autoencoding(module: nn.Module) -> Any:
    return vae.recipe(module=module)


def weighted(module: nn.Module) -> Any:
    return vae.recipe(module=module, samples=2)


def completing(module: nn.Module) -> Any:
    return completion.recipe(module=module)


@pytest.mark.parametrize(
    ("recipe", "missing", "said"),
    [
        (generator, "prior", r"generator: Mine needs a method prior\(key, count\): draw `count` latent vectors"),
        (digits, "prior", r"generator: Mine needs a method prior.*see jaxgen\.protocols\.Generator"),
        (generator, "input_shape", r"generator: Mine needs an attribute input_shape: the shape of one input without"),
        (discriminator, "input_shape", "discriminator: Mine needs an attribute input_shape"),
        (autoencoding, "latent", "module: Mine needs an attribute latent: the number of dimensions"),
        (autoencoding, "input_shape", "module: Mine needs an attribute input_shape"),
        (weighted, "encode", r"module: Mine needs a method encode\(images, train=…\): compute mean and log σ²"),
        (weighted, "decode", r"module: Mine needs a method decode\(z, train=…\)"),
        (autoencoder.recipe, "input_shape", "module: Mine needs an attribute input_shape"),
        (completing, "input_shape", "module: Mine needs an attribute input_shape"),
    ],
)
def test_missing_attribute_is_named(recipe: Callable[[nn.Module], Any], missing: str, said: str) -> None:
    recipe(Network())
    with pytest.raises(InputError, match=said):
        recipe(without(missing))


class WithoutTrain(Network):
    def __call__(self, x, labels=None):
        return x


class WithoutLabels(Network):
    def __call__(self, x, epsilon=None, train=False):
        return x


class OneArgumentPrior(Network):
    def prior(self, key):
        return None


@pytest.mark.parametrize(
    ("recipe", "module", "said"),
    [
        (generator, WithoutTrain(), r"WithoutTrain must take __call__\(train=…\): use the statistics of the batch"),
        (discriminator, WithoutTrain(), r"discriminator: WithoutTrain must take __call__\(train=…\)"),
        (autoencoding, WithoutTrain(), r"must take __call__\(images, epsilon, train=…\)"),
        (autoencoding, WithoutLabels(), r"WithoutLabels must take __call__\(labels=…\): .*protocols\.Conditional"),
        (generator, OneArgumentPrior(), r"OneArgumentPrior must take prior\(key, count\)"),
    ],
)
def test_missing_argument_is_named(recipe: Callable[[nn.Module], Any], module: nn.Module, said: str) -> None:
    with pytest.raises(InputError, match=said):
        recipe(module)


def test_train_and_labels_are_asked_for_only_where_they_are_used() -> None:
    class Plain(WithoutTrain):
        classes = 0

        def __call__(self, x):
            return x

    dcgan.digits_recipe(Plain(), Plain())


def test_a_class_in_place_of_a_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"generator: MnistGenerator is a class; give a module, as MnistGenerator\(\)"):
        dcgan.mnist_recipe(dcgan.MnistGenerator)


def test_what_is_no_linen_module_is_refused() -> None:
    with pytest.raises(InputError, match=r"module: dict needs an attribute input_shape"):
        autoencoder.recipe({"params": 1})


@pytest.mark.parametrize(
    "classes", [(3, 0), (0, 3), (3, 4)], ids=["generator alone", "discriminator alone", "different"]
)
def test_both_networks_have_the_same_classes(classes: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=f"the generator has classes={classes[0]}, the discriminator {classes[1]}"):
        dcgan.digits_recipe(dcgan.DigitsGenerator(classes=classes[0]), dcgan.DigitsDiscriminator(classes=classes[1]))


@pytest.mark.parametrize(
    ("module", "kinds"),
    [
        (dcgan.MnistGenerator(classes=2), (protocols.Generator, protocols.TrainMode)),
        (dcgan.MnistDiscriminator(classes=2), (protocols.Discriminator, protocols.TrainMode)),
        (dcgan.DigitsGenerator(classes=2), (protocols.Generator,)),
        (dcgan.DigitsDiscriminator(classes=2), (protocols.Discriminator,)),
        (vae.ConvVAE(classes=2), (protocols.VAE, protocols.EncoderDecoder)),
    ],
)
def test_own_modules_offer_what_the_protocols_ask_for(module: nn.Module, kinds: tuple[type, ...]) -> None:
    protocols.check("module", module, *kinds)
