"""A β-VAE: a heavier KL term gives codes that say less about the image, and reconstructions that are worse."""

import jax
import optax

import jaxgen
from jaxgen import data
from jaxgen.models import vae

digits = data.load("digits")
source = jaxgen.scaled(digits.images, white=digits.white)
module = vae.ConvVAE(latent=4, size=8, width=8)

histories = {}
for beta in (1, 4):
    recipe = vae.recipe(module=module, optimizer=optax.adam(3e-3), beta=beta)
    state = recipe.init(jax.random.key(0))
    _, histories[beta] = jaxgen.fit(recipe, state, source, epochs=8, batch_size=64, key=jax.random.key(1))
    kl, reconstruction = histories[beta]["kl"][-1], histories[beta]["reconstruction"][-1]
    print(f"β {beta}: KL divergence {kl:.2f}, reconstruction {reconstruction:.1f} nats an image")

assert histories[4]["kl"][-1] < histories[1]["kl"][-1] / 1.5
assert histories[4]["reconstruction"][-1] > histories[1]["reconstruction"][-1]
