"""The smallest experiment: learn the mean of 22 noisy points. The tests of what all experiments share run it."""

from typing import Annotated, Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from jaxgen import pictures, runs
from jaxgen.parallel import mean_over_shards
from jaxgen.training import Recipe, as_source, descend


class Config(runs.Config):
    epochs: runs.Resumable[runs.Count] = 6
    """Passes over the points."""
    batch_size: runs.Count = 4
    """Points in a batch."""
    learning_rate: runs.Positive = 0.1
    """Learning rate of Adam."""
    sample_every: runs.Count = 2
    """Epochs between pictures."""
    kind: runs.Several[str] = ("a", "b")
    """A setting with several values."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """An optional setting."""
    size: runs.Size | None = (8, 8)
    """A setting of two numbers, or of one for both."""

    cpu_devices: ClassVar[int] = 2


class Mean(nn.Module):
    """A module whose one parameter has the shape of a point."""

    input_shape: ClassVar[tuple[int, ...]] = (8, 8, 1)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.param("mean", nn.initializers.normal(1.0), self.input_shape) + 0 * x


class State(NamedTuple):
    variables: dict
    optimizer: optax.OptState


def recipe(config: Config, optimizer: optax.GradientTransformation | None = None) -> Recipe:
    optimizer = optimizer or optax.adam(config.learning_rate)

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


@runs.experiment
def main(config: Config, data: np.ndarray | None = None) -> runs.Outcome:
    """Learn the mean of 22 points."""
    with runs.start(config, as_source(points() if data is None else data), Mean()) as run:

        def draw(epoch: int, variables: Any) -> None:
            noise = jax.random.uniform(run.key("samples", epoch), (4, 8, 8, 1))
            run.picture("mean", pictures.grid(variables["params"]["mean"] + noise, 2))

        run.fit(recipe(config), [(config.sample_every, draw)], best="loss", notes=NOTES)
        run.animation("learning", lambda: run.frames("mean"))
        run.curves("loss", ["loss"], "error")
    return run.outcome


if __name__ == "__main__":
    runs.command(main, Config)
