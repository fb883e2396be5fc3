"""A small diffusion model (Ho, Jain and Abbeel 2020, https://arxiv.org/abs/2006.11239) of plain Flax layers."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxgen
from jaxgen import data
from jaxgen.from_loss import recipe_from_loss

STEPS = 50
betas = jnp.linspace(1e-3, 0.2, STEPS)
kept = jnp.cumprod(1 - betas)  # the share of the image's variance that is left after each step


class Denoiser(nn.Module):
    """Noisy images `[B, 64]`, with the step in a 65th number -> the noise in them."""

    input_shape = (65,)

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = jnp.concatenate([nn.swish(nn.Dense(256)(x)), x[:, -1:]], axis=1)
        return nn.Dense(64)(x)


class Noise(NamedTuple):
    step: jax.Array  # [B]
    epsilon: jax.Array  # [B, 64]


def noise(key, batch_size):
    step_key, key = jax.random.split(key)
    return Noise(jax.random.randint(step_key, batch_size, 0, STEPS), jax.random.normal(key, (batch_size, 64)))


def predict(variables, x, step):
    return module.apply(variables, jnp.column_stack([x, jnp.broadcast_to(step, len(x)) / STEPS]))


def loss(variables, images, noise):
    share = kept[noise.step][:, None]
    noisy = jnp.sqrt(share) * images.reshape(-1, 64) + jnp.sqrt(1 - share) * noise.epsilon
    error = jnp.mean((predict(variables, noisy, noise.step) - noise.epsilon) ** 2)
    return error, ({"loss": (error, 1.0)}, {})


@jax.jit
def sample(variables, key):
    def back(number, x):
        step = STEPS - 1 - number
        epsilon = predict(variables, x, step)
        mean = (x - betas[step] / jnp.sqrt(1 - kept[step]) * epsilon) / jnp.sqrt(1 - betas[step])
        fresh = jax.random.normal(jax.random.fold_in(key, step), x.shape)
        return mean + jnp.where(step > 0, jnp.sqrt(betas[step]), 0) * fresh

    return jax.lax.fori_loop(0, STEPS, back, jax.random.normal(key, (500, 64)))


digits = data.load("digits")
source = jaxgen.scaled(digits.images, -1, 1, white=digits.white)
module = Denoiser()
recipe = recipe_from_loss(module, optax.adam(2e-3), loss, noise=noise)
state, history = jaxgen.fit(
    recipe, recipe.init(jax.random.key(0)), source, epochs=60, batch_size=64, key=jax.random.key(1)
)
samples = sample(recipe.variables(state), jax.random.key(2))
real = np.asarray(digits.images.reshape(-1, 64) / 8.0 - 1)
mean, deviation = (np.abs(f(samples, axis=0) - f(real, axis=0)).mean() for f in (np.mean, np.std))
print(
    f"loss {history['loss'][0]:.3f} → {history['loss'][-1]:.3f}; pixels' means differ by {mean:.3f}, deviations by {deviation:.3f}"
)
assert history["loss"][-1] < 0.6 * history["loss"][0]
assert mean < 0.1
assert deviation < 0.1
