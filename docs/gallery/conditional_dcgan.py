"""A DCGAN that draws the digit it is asked for. A classifier of real digits says how often it does."""

import jax
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

import jaxgen
from jaxgen import data, pictures
from jaxgen.models import dcgan

digits = data.load("digits")
source = jaxgen.scaled(digits.images, -1, 1, white=digits.white, labels=digits.labels)  # batches (images, labels)
generator = dcgan.DigitsGenerator(classes=10)
adam = optax.adam(2e-3, b1=0.5)
recipe = dcgan.digits_recipe(generator, dcgan.DigitsDiscriminator(classes=10), adam, adam)
state, _ = jaxgen.fit(recipe, recipe.init(jax.random.key(0)), source, epochs=10, batch_size=32, key=jax.random.key(1))

labels = np.repeat(np.arange(10), 50)
samples = dcgan.sample(generator, state.generator, jax.random.key(2), len(labels), labels)
pictures.grid(samples[np.arange(500).reshape(10, 50)[:, :16].ravel()] / 2 + 0.5, columns=16).save("by_class.png")

classifier = LogisticRegression(max_iter=200).fit(digits.images.reshape(-1, 64) / 16, digits.labels)
right = classifier.score(np.asarray(samples).reshape(-1, 64) / 2 + 0.5, labels)
print(f"{right:.0%} of the samples are taken for the digit that was asked for")
assert right > 0.5
