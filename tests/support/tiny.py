"""The smallest experiment: an average of 22 points, learnt with noise. What all experiments share is tested on it."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen import pictures, run, training
from jaxgen.command import command
from jaxgen.config import Config as BaseConfig
from jaxgen.config import Count, Free, Positive
from jaxgen.parallel import mean_over_shards
from jaxgen.training import Recipe, descend


@dataclasses.dataclass(frozen=True)
class Config(BaseConfig):
    epochs: Free[Count] = 6
    """Passes over the points."""
    batch_size: Count = 4
    """Points a step."""
    learning_rate: Positive = 0.1
    """Adam's."""
    sample_every: Count = 2
    """Epochs from one picture to the next."""
    kind: tuple[str, ...] = ("a", "b")
    """A setting with several values."""
    limit: Count | None = None
    """A setting that may be none."""

    cpu_devices: ClassVar[int] = 2


class State(NamedTuple):
    variables: dict
    optimizer: optax.OptState


def recipe(config: Config) -> Recipe:
    optimizer = optax.adam(config.learning_rate)

    def init(key, weights=None):
        variables = {"params": {"mean": jax.random.normal(key, (8, 8, 1))}} if weights is None else weights
        return State(variables, optimizer.init(variables["params"]))

    def update(state, batch, noise):
        def error(params):
            return jnp.square(params["mean"] - batch - 0.1 * noise).mean()

        loss, gradient = mean_over_shards(jax.value_and_grad(error)(state.variables["params"]))
        params, optimizer_state = descend(optimizer, gradient, state.optimizer, state.variables["params"])
        return State({"params": params}, optimizer_state), {"loss": (loss, jnp.ones_like(loss))}

    def noise(key, batch_size):
        return jax.random.normal(key, (batch_size, 8, 8, 1))

    return Recipe(init, noise, update, lambda state: state.variables)


def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(22, 8, 8, 1)).astype(np.float32)


NOTES = {"the error is below 0.4": lambda metrics: metrics["loss"] < 0.4}


def main(config: Config, data: np.ndarray | None = None) -> tuple[State, run.History]:
    """Learn the average of 22 points."""
    with run.start(config, training.as_source(points() if data is None else data)) as this_run:

        def draw(epoch: int, state: State) -> None:
            noise = jax.random.uniform(this_run.key("samples", epoch), (4, 8, 8, 1))
            this_run.picture(f"mean_{epoch:03d}", pictures.grid(state.variables["params"]["mean"] + noise, 2))

        state, history = this_run.fit(recipe(config), [(config.sample_every, draw)], best="loss", notes=NOTES)
        this_run.animation("learning", this_run.frames("mean"))
        this_run.picture("loss", pictures.curves(history, ["loss"], "error"))
        return state, history


if __name__ == "__main__":
    command(main, Config)
