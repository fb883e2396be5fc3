"""WGAN-GP (Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028): a recipe written out, with five critic steps."""

import jax
import jax.numpy as jnp
import optax

import jaxgen
from jaxgen import data, layers, training
from jaxgen.models import dcgan

CRITIC_STEPS, PENALTY = 5, 10.0  # a batch is five of the critic's and one of the generator's
generator, critic = dcgan.DigitsGenerator(), dcgan.DigitsDiscriminator()
adam = optax.adam(1e-3, b1=0.0, b2=0.9)


def init(key, weights=None):
    g, d = (layers.init_variables(module, key)["params"] for module in (generator, critic))  # names are keys, too
    return g, adam.init(g), d, adam.init(d)


def noise(key, batch_size):
    z_key, key = jax.random.split(key)
    return generator.prior(z_key, batch_size), jax.random.uniform(key, (batch_size, 1, 1, 1))


def score(d, images):
    return critic.apply({"params": d}, images)


def critic_loss(d, real, fake, share):
    slopes = jax.grad(lambda images: score(d, images).sum())(share * real + (1 - share) * fake)
    norms = jnp.sqrt(jnp.sum(slopes**2, axis=(1, 2, 3)) + 1e-12)
    distance = score(d, real).mean() - score(d, fake).mean()
    return PENALTY * jnp.mean((norms - 1) ** 2) - distance, distance


def update(state, batch, noise):
    g, g_optimizer, d, d_optimizer = state

    def critic_step(carry, inputs):
        (d, d_optimizer), (real, z, share) = carry, inputs
        fake = generator.apply({"params": g}, z)
        gradient, distance = jax.grad(critic_loss, has_aux=True)(d, real, fake, share)
        return training.descend(adam, gradient, d_optimizer, d), distance

    parts = jax.tree.map(lambda x: x.reshape(CRITIC_STEPS, -1, *x.shape[1:]), (batch, *noise))
    (d, d_optimizer), distances = jax.lax.scan(critic_step, (d, d_optimizer), parts)
    gradient = jax.grad(lambda g: -score(d, generator.apply({"params": g}, parts[1][0])).mean())(g)
    g, g_optimizer = training.descend(adam, gradient, g_optimizer, g)
    return (g, g_optimizer, d, d_optimizer), {"distance": (distances[-1], 1.0)}


recipe = jaxgen.Recipe(init, noise, update, lambda state: {"params": state[0]}, smallest_batch=None)
digits, key = data.load("digits"), jax.random.key(0)
source = jaxgen.scaled(digits.images, -1, 1, white=digits.white)
state, history = jaxgen.fit(recipe, recipe.init(key), source, epochs=40, batch_size=80, key=key)
mean = dcgan.sample(generator, recipe.variables(state), key, 500).mean(0) / 2 + 0.5
assert history["distance"][-1] < history["distance"][0] / 2
assert jnp.abs(mean - digits.images.mean(0) / digits.white).mean() < 0.06
