"""Large batches in little memory: `optax.MultiSteps` sums up the gradients of four batches before it takes a step."""

import jax
import numpy as np
import optax

import jaxgen
from jaxgen import data
from jaxgen.models import autoencoder

digits = data.load("digits").images[:1792] / np.float32(16)  # 56 batches of 32
module = autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(channels=1), input_shape=(8, 8, 1))


def train(optimizer, batch_size):
    recipe = autoencoder.recipe(module, optimizer)
    state = recipe.init(jax.random.key(0))
    return jaxgen.fit(recipe, state, digits, epochs=5, batch_size=batch_size, key=jax.random.key(1))


accumulating = optax.MultiSteps(optax.adam(3e-3), every_k_schedule=4).gradient_transformation()
small, history = train(accumulating, batch_size=8)
large, of_large = train(optax.adam(3e-3), batch_size=32)
print("loss, four batches of 8:", *(f"{loss:.4f}" for loss in history["loss"]))
print("loss, one batch of 32:  ", *(f"{loss:.4f}" for loss in of_large["loss"]))

np.testing.assert_allclose(history["loss"], of_large["loss"], rtol=1e-3)
for ours, theirs in zip(jax.tree.leaves(small.variables), jax.tree.leaves(large.variables), strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-2)
