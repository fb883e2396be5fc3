"""A program of several processes: each trains the same recipe with `jaxgen.fit`, and the first saves what it became.

Started as `python -m tests.support.together FILE.npz NAME --coordinator HOST:PORT --processes N --process I`.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

import jaxgen
from jaxgen import processes
from jaxgen.models import dcgan, vae
from tests.test_parallel import SmallVAE


def images(size: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (size, *shape))


RECIPES = {  # the recipe, its data, the epochs and the batch size; fifty steps each
    "dcgan_digits": (dcgan.digits_recipe, images(16 * 25, 8, 8, 1), 2, 16),
    "vae": (lambda: vae.recipe(module=SmallVAE()), images(46, 4, 4, 1) / 2 + 0.5, 4, 4),  # its last batch has 2
}


def train(name: str) -> dict[str, np.ndarray]:
    """The losses, and the parameters as one tree of arrays by their number."""
    make, data, epochs, batch_size = RECIPES[name]
    recipe, devices = make(), jax.devices() if processes.are_several() else ()
    state, history = jaxgen.fit(
        recipe, recipe.init(jax.random.key(0)), data,
        epochs=epochs, batch_size=batch_size, key=jax.random.key(1), devices=devices,
    )  # fmt: skip
    leaves = {f"{name}.{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(state))}
    return leaves | {f"{name}.{metric}": np.array(values) for metric, values in history.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", 1)
    processes.connect(options.coordinator, options.processes, options.process)
    arrays = train(options.name)
    if processes.is_first():
        np.savez(options.out, **arrays)


if __name__ == "__main__":
    main()
