"""A variational autoencoder of one's own: fully connected, in place of the convolutional one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxgen
from jaxgen import data, layers
from jaxgen.models import vae


class MlpVAE(nn.Module):
    """What `jaxgen.protocols.VAE` asks for, and the two halves for `vae.encode` and `vae.decode`."""

    latent: int = 4
    input_shape = (8, 8, 1)

    def setup(self):
        self.hidden, self.expand, self.pixels = layers.Linear(128), layers.Linear(128), layers.Linear(64)
        self.mean, self.log_variance = layers.Linear(self.latent), layers.Linear(self.latent)

    def __call__(self, images, epsilon=None, train=False):
        mean, log_variance = self.encode(images)
        z = mean if epsilon is None else mean + epsilon * jnp.exp(0.5 * log_variance)
        return vae.Output(mean, log_variance, z, self.decode(z))

    def encode(self, images, train=False):
        x = nn.relu(self.hidden(images.reshape(-1, 64)))
        return self.mean(x), self.log_variance(x)

    def decode(self, z, train=False):
        return nn.sigmoid(self.pixels(nn.relu(self.expand(z)))).reshape(-1, 8, 8, 1)


digits = data.load("digits")
source = jaxgen.scaled(digits.images, white=digits.white)
module = MlpVAE()
recipe = vae.recipe(module=module, optimizer=optax.adam(3e-3))
state, history = jaxgen.fit(
    recipe, recipe.init(jax.random.key(0)), source, epochs=10, batch_size=32, key=jax.random.key(1)
)
print(f"loss {history['loss'][0]:.1f} → {history['loss'][-1]:.1f} nats an image")

z = jax.random.normal(jax.random.key(2), (500, module.latent))
samples = vae.decode(module, recipe.variables(state), z)  # [500, 8, 8, 1]
difference = np.abs(samples.mean(0) - digits.images.mean(0) / digits.white).mean()
print(f"the mean sample differs from the mean digit by {difference:.3f}")

assert history["loss"][-1] < 0.85 * history["loss"][0]
assert difference < 0.05
