"""Data that stay on the disk: a memory-mapped file is read piece by piece, while the last piece trains."""

from pathlib import Path

import jax
import numpy as np

import jaxgen
from jaxgen import data
from jaxgen.models import autoencoder

digits = data.load("digits")
np.save("digits.npy", digits.images)
on_disk = np.load("digits.npy", mmap_mode="r")  # uint8 [1797, 8, 8, 1]

module = autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(channels=1), input_shape=(8, 8, 1))
recipe = autoencoder.recipe(module)


def train(images, data_on):
    state, source = recipe.init(jax.random.key(0)), jaxgen.scaled(images, white=digits.white)
    return jaxgen.fit(recipe, state, source, epochs=3, batch_size=50, key=jax.random.key(1), data_on=data_on)


from_disk, history = train(on_disk, "disk")
from_memory, _ = train(digits.images, "device")
print(f"{Path('digits.npy').stat().st_size:,} bytes on disk; loss {history['loss'][0]:.3f} → {history['loss'][-1]:.3f}")

assert history["loss"][-1] < history["loss"][0]
for ours, theirs in zip(jax.tree.leaves(from_disk), jax.tree.leaves(from_memory), strict=True):
    np.testing.assert_array_equal(ours, theirs)  # the same training, to the bit
