"""A β-VAE: a heavier KL term gives codes that say less about the image, and reconstructions that are worse."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jaxgen
from jaxgen import data, layers
from jaxgen.models import vae


class MlpVAE(nn.Module):
    latent: int = 4
    input_shape = (8, 8, 1)

    @nn.compact
    def __call__(self, images, epsilon=0.0, train=False):
        hidden = nn.relu(layers.Linear(128, name="hidden")(images.reshape(-1, 64)))
        mean, log_variance = (layers.Linear(self.latent, name=name)(hidden) for name in ("mean", "log_variance"))
        z = mean + epsilon * jnp.exp(0.5 * log_variance)
        hidden = nn.relu(layers.Linear(128, name="expand")(z))
        pixels = nn.sigmoid(layers.Linear(64, name="pixels")(hidden))
        return vae.Output(mean, log_variance, z, pixels.reshape(images.shape))


digits = data.load("digits")
source = jaxgen.scaled(digits.images, white=digits.white)
terms = {}
for beta in (1, 2):
    recipe = vae.recipe(module=MlpVAE(), optimizer=optax.adam(3e-3), beta=beta)
    state = recipe.init(jax.random.key(0))
    _, history = jaxgen.fit(recipe, state, source, epochs=10, batch_size=32, key=jax.random.key(1))
    terms[beta] = kl, reconstruction = history["kl"][-1], history["reconstruction"][-1]
    print(f"β {beta}: KL divergence {kl:.2f}, reconstruction {reconstruction:.2f} nats an image")

assert terms[2][0] < 0.8 * terms[1][0]
assert terms[2][1] > terms[1][1]
