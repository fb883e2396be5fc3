"""Warm-up, cosine decay and clipping of gradients: an optimiser is whatever Optax makes."""

import jax
import optax

import jaxgen
from jaxgen import data
from jaxgen.models import autoencoder

EPOCHS, BATCH = 20, 32

digits = data.load("digits")
source = jaxgen.scaled(digits.images, white=digits.white)
steps = EPOCHS * -(-source.size // BATCH)  # an epoch's last, smaller batch counts
schedule = optax.warmup_cosine_decay_schedule(0.0, 2e-2, warmup_steps=100, decay_steps=steps)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=1e-4))

module = autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(channels=1), input_shape=(8, 8, 1))
recipe = autoencoder.recipe(module, optimizer)
state, history = jaxgen.fit(
    recipe, recipe.init(jax.random.key(0)), source, epochs=EPOCHS, batch_size=BATCH, key=jax.random.key(1)
)
taken = int(optax.tree.get(state.optimizer, "count", filtering=lambda path, value: "ScaleByAdam" in str(path)))
print(f"loss {history['loss'][0]:.4f} → {history['loss'][-1]:.4f}")
print(f"learning rate {schedule(0):.4f} → {schedule(100):.4f} → {schedule(taken):.4f}")
assert taken == steps
assert history["loss"][-1] < history["loss"][0] / 4
