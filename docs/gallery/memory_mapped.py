"""Data that stay on the disk: batches are read from a memory-mapped file by `jax.pure_callback`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import data
from jaxgen.models import autoencoder

digits = data.load("digits")
np.save("digits.npy", digits.images)
on_disk = np.load("digits.npy", mmap_mode="r")  # uint8 [1797, 8, 8, 1]; pages are read when they are needed


def read(rows):
    return on_disk[np.asarray(rows)]


def batch(arrays, rows):
    shape = jax.ShapeDtypeStruct((len(rows), *on_disk.shape[1:]), on_disk.dtype)
    images = jax.pure_callback(read, shape, rows, vmap_method="sequential")
    return images.astype(jnp.float32) / digits.white


module = autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(channels=1), input_shape=(8, 8, 1))
recipe = autoencoder.recipe(module)


def train(source):
    state = recipe.init(jax.random.key(0))
    return jaxgen.fit(recipe, state, source, epochs=3, batch_size=50, key=jax.random.key(1))


from_disk, history = train(jaxgen.Source((), len(on_disk), batch))
from_memory, _ = train(jaxgen.scaled(digits.images, white=digits.white))
print(f"{Path('digits.npy').stat().st_size:,} bytes on disk; loss {history['loss'][0]:.3f} → {history['loss'][-1]:.3f}")

assert history["loss"][-1] < history["loss"][0]
for ours, theirs in zip(jax.tree.leaves(from_disk), jax.tree.leaves(from_memory), strict=True):
    np.testing.assert_array_equal(ours, theirs)  # the same training, to the bit
