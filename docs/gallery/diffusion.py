"""A small diffusion model (Ho, Jain and Abbeel 2020, https://arxiv.org/abs/2006.11239) of plain Flax layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jaxgen
from jaxgen import data
from jaxgen.from_loss import recipe_from_loss

STEPS = 50
betas = jnp.linspace(1e-3, 0.2, STEPS)
kept = jnp.cumprod(1 - betas)  # the share of the image's variance that is left


class Denoiser(nn.Module):
    input_shape = (64,)

    @nn.compact
    def __call__(self, x, step=0):
        time = jnp.full((len(x), 1), jnp.reshape(step, (-1, 1)) / STEPS)
        for _ in range(2):
            x = nn.swish(nn.Dense(256)(jnp.concatenate([x, time], axis=1)))
        return nn.Dense(64)(x)  # the noise in the pixels


def noise(key, batch_size):
    step_key, key = jax.random.split(key)
    return jax.random.randint(step_key, batch_size, 0, STEPS), jax.random.normal(key, (batch_size, 64))


def loss(variables, images, noise):
    step, pixels = noise
    share = kept[step][:, None]
    noisy = jnp.sqrt(share) * images.reshape(-1, 64) + jnp.sqrt(1 - share) * pixels
    error = jnp.mean((module.apply(variables, noisy, step) - pixels) ** 2)
    return error, ({"loss": (error, 1.0)}, {})


@jax.jit
def sample(variables, key):
    def back(number, x):
        step = STEPS - 1 - number
        mean = x - betas[step] / jnp.sqrt(1 - kept[step]) * module.apply(variables, x, step)
        fresh = jnp.sqrt(betas[step]) * jax.random.normal(jax.random.fold_in(key, step), x.shape)
        return mean / jnp.sqrt(1 - betas[step]) + (step > 0) * fresh

    return jax.lax.fori_loop(0, STEPS, back, jax.random.normal(key, (500, 64)))


digits, key, module = data.load("digits"), jax.random.key(0), Denoiser()
source = jaxgen.scaled(digits.images, -1, 1, white=digits.white)
recipe = recipe_from_loss(module, optax.adam(2e-3), loss, noise=noise)
state, history = jaxgen.fit(recipe, recipe.init(key), source, epochs=80, batch_size=64, key=key)
assert history["loss"][-1] < history["loss"][0] / 2, history
samples, real = sample(recipe.variables(state), key) / 2 + 0.5, digits.images.reshape(-1, 64) / digits.white
for statistic in (jnp.mean, jnp.std):
    assert jnp.abs(statistic(samples, axis=0) - statistic(real, axis=0)).mean() < 0.1, statistic
