"""Augmentation in the compiled loop: every digit in nine positions, shifted by up to one pixel.

A source's `batch` makes examples of row numbers. Here row 9·i + s is digit i in position s; no digit is stored twice.
"""

import jax
import jax.numpy as jnp
import optax

import jaxgen
from jaxgen import data
from jaxgen.models import autoencoder

digits = data.load("digits")
train, test = digits.images[:600], digits.images[1500:] / digits.white


def shifted(images, rows):
    """Digits `[B, 8, 8, 1]` in [0, 1]; the pixels that come in are black."""
    padded = jnp.pad(images[rows // 9], ((0, 0), (1, 1), (1, 1), (0, 0)))
    cut = jax.vmap(lambda image, shift: jax.lax.dynamic_slice(image, (shift // 3, shift % 3, 0), (8, 8, 1)))
    return cut(padded, rows % 9).astype(jnp.float32) / digits.white


def error_on_shifted_digits(source, epochs):
    module = autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(channels=1), input_shape=(8, 8, 1))
    recipe = autoencoder.recipe(module, optax.adam(1e-2))
    state = recipe.init(jax.random.key(0))
    state, _ = jaxgen.fit(recipe, state, source, epochs=epochs, batch_size=50, key=jax.random.key(1))
    moved = jnp.roll(jnp.asarray(test), 1, axis=2)
    return float(autoencoder.evaluate(module, recipe.variables(state), moved))


plain = error_on_shifted_digits(jaxgen.scaled(train, white=digits.white), epochs=27)
augmented = error_on_shifted_digits(jaxgen.Source(train, 9 * len(train), shifted), epochs=3)  # as many steps
print(f"error on shifted test digits: {plain:.4f} without augmentation, {augmented:.4f} with it")
assert augmented < plain
