"""WGAN-GP (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028): a recipe written out, with five critic steps.

A batch of 5·16 images is five batches of the critic's and one step of the generator's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxgen
from jaxgen import data, training
from jaxgen.layers import init_variables
from jaxgen.models import dcgan

generator, critic = dcgan.DigitsGenerator(), dcgan.DigitsDiscriminator()
adam = optax.adam(1e-3, b1=0.0, b2=0.9)
CRITIC_STEPS, PENALTY = 5, 10.0


class State(NamedTuple):
    generator: Any
    critic: Any
    generator_optimizer: Any
    critic_optimizer: Any


def init(key, weights=None):
    g_key, d_key = jax.random.split(key)
    g, d = init_variables(generator, g_key)["params"], init_variables(critic, d_key)["params"]
    return State(g, d, adam.init(g), adam.init(d))


def noise(key, batch_size):
    z_key, share_key = jax.random.split(key)
    return generator.prior(z_key, batch_size), jax.random.uniform(share_key, (batch_size, 1, 1, 1))


def update(state, batch, noise):
    g, g_optimizer = state.generator, state.generator_optimizer

    def critic_step(carry, inputs):
        d, d_optimizer = carry
        real, z, share = inputs
        fake = generator.apply({"params": g}, z)

        def loss(d):
            def critique(images):
                return critic.apply({"params": d}, images)

            slopes = jax.grad(lambda images: critique(images).sum())(share * real + (1 - share) * fake)
            norms = jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2, 3)) + 1e-12)
            distance = critique(real).mean() - critique(fake).mean()
            return PENALTY * jnp.mean((norms - 1) ** 2) - distance, distance

        gradient, distance = jax.grad(loss, has_aux=True)(d)
        return training.descend(adam, gradient, d_optimizer, d), distance

    pieces = jax.tree.map(lambda x: x.reshape(CRITIC_STEPS, -1, *x.shape[1:]), (batch, *noise))
    (d, d_optimizer), distances = jax.lax.scan(critic_step, (state.critic, state.critic_optimizer), pieces)
    z = pieces[1][0]
    gradient = jax.grad(lambda g: -critic.apply({"params": d}, generator.apply({"params": g}, z)).mean())(g)
    g, g_optimizer = training.descend(adam, gradient, g_optimizer, g)
    return State(g, d, g_optimizer, d_optimizer), {"distance": (distances[-1], jnp.ones(()))}


recipe = jaxgen.Recipe(init, noise, update, lambda state: {"params": state.generator}, smallest_batch=None)
digits = data.load("digits")
source = jaxgen.scaled(digits.images, -1, 1, white=digits.white)
state, history = jaxgen.fit(
    recipe, recipe.init(jax.random.key(0)), source, epochs=40, batch_size=80, key=jax.random.key(1)
)
distance = history["distance"]  # the critic's estimate of the Wasserstein distance, in pixels
print(f"distance: at most {max(distance):.2f}, at the end {distance[-1]:.2f}")

samples = dcgan.sample(generator, recipe.variables(state), jax.random.key(2), 500)
difference = np.abs(samples.mean(0) / 2 + 0.5 - digits.images.mean(0) / digits.white).mean()
print(f"the mean sample differs from the mean digit by {difference:.3f}")
assert distance[-1] < 0.7 * max(distance)
assert difference < 0.1
