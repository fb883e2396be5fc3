"""A denoising autoencoder: it is given noisy digits and learns to restore the clean ones."""

import jax
import jax.numpy as jnp
import optax

import jaxgen
from jaxgen import data, pictures
from jaxgen.models import autoencoder

NOISE = 0.3  # standard deviation, where black is 0 and white 1

digits = data.load("digits")
train, test = digits.images[:1500], digits.images[1500:] / digits.white
decoder = autoencoder.Decoder(channels=1)
module = autoencoder.ConvAutoencoder(decoder=decoder, input_shape=(8, 8, 1))
recipe = autoencoder.recipe(module, optax.adam(1e-2), noise=NOISE)
source = jaxgen.scaled(train, white=digits.white)
state, history = jaxgen.fit(
    recipe, recipe.init(jax.random.key(0)), source, epochs=30, batch_size=32, key=jax.random.key(1)
)

noisy = jnp.asarray(test) + NOISE * jax.random.normal(jax.random.key(2), test.shape)
restored = autoencoder.reconstruct(module, recipe.variables(state), noisy)
pictures.over(noisy[:16], restored[:16]).save("restored.png")

before, after = (float(jnp.mean((images - test) ** 2)) for images in (noisy, restored))
print(f"mean squared error {before:.3f} → {after:.3f}")
assert after < before / 2
