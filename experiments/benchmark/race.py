"""The two systems, turn by turn."""

import itertools
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmark.cases import Case
from experiments.benchmark.figures import compared
from experiments.benchmark.stopwatch import Stopwatch
from jaxgen import training
from jaxgen.data import Images

OURS, EAGER, COMPILED = "jaxgen", "pytorch_eager", "pytorch_compiled"

Turn = Callable[[int], int]  # do so much, or a little more -> how much it was


class Effort(NamedTuple):
    """What is spent on a recipe's figures."""

    rivals: tuple[str, ...] = (EAGER, COMPILED)
    rounds: int = 12  # turns of each system
    training: float = 2.0  # seconds that ours trains in a turn
    generating: float = 0.5  # and generates


class Jaxgen:
    """Our training of a recipe. It goes on where the last call of `train` ended."""

    def __init__(self, case: Case, images: Images) -> None:
        source = case.source(images)
        self.steps = training.steps_per_epoch(case.recipe, source, case.batch_size)
        self.last_is_smaller = self.steps > source.size // case.batch_size
        self.done = 0
        init_key, training_key = jax.random.split(jax.random.key(0))
        state = case.recipe.init(init_key)
        carry = training.begin(case.recipe, source, state, case.batch_size)
        self.slices = training.slices(
            case.recipe, source, carry, epochs=sys.maxsize, batch_size=case.batch_size, key=training_key
        )
        self.variables = case.recipe.variables(state)
        self.generator = jax.jit(case.generate)

    def train(self, steps: int) -> int:
        first = self.done
        while self.done < first + steps:
            piece = next(self.slices)
            training.check_finite(piece)
            self.done = piece.epoch * self.steps + piece.step
        return self.done - first

    def generate(self, given: np.ndarray) -> np.ndarray:
        return np.asarray(self.generator(self.variables, given))


class PyTorch:
    """The reference's. It goes on where the last call of `train` ended."""

    def __init__(self, name: str, floats: np.ndarray, *, compile: bool) -> None:
        from tests import torch_recipes

        self.training = torch_recipes.Training(name, floats, compile=compile)
        self.batches = itertools.chain.from_iterable(itertools.repeat(self.training.loader))
        self.sums: Counter[str] = Counter()

    def train(self, steps: int) -> int:
        for batch in itertools.islice(self.batches, steps):
            self.sums.update(self.training.recipe.step(*batch))
        return steps

    def generate(self, given: np.ndarray) -> np.ndarray:
        return self.training.generate(given)


def race_training(ours: Jaxgen, rivals: Mapping[str, PyTorch], effort: Effort) -> dict[str, Any]:
    """Seconds an epoch, and what compiling took before."""
    with Stopwatch().compiling() as stopwatch:
        steps = turn_length(ours, effort.training)
    compiling = {OURS: stopwatch.spent["compiling"]}
    first = {name: timed(rival.train, steps) for name, rival in rivals.items()}
    own, others = take_turns(ours.train, {name: rival.train for name, rival in rivals.items()}, steps, effort.rounds)
    if COMPILED in rivals:  # PyTorch compiles at the first steps, so that is what they took longer
        compiling[COMPILED] = steps * (first[COMPILED] - statistics.median(others[COMPILED]))
    return {
        "steps_per_epoch": ours.steps,
        "steps_per_turn": steps,
        "compile_seconds": compiling,
        "seconds_per_epoch": compared(
            [each * ours.steps for each in own],
            {name: [each * ours.steps for each in seconds] for name, seconds in others.items()},
        ),
    }


def race_generation(
    ours: Jaxgen, rivals: Mapping[str, PyTorch], given: np.ndarray, effort: Effort
) -> dict[str, Any]:
    """Seconds from what is given to the images."""

    def repeated(system: Jaxgen | PyTorch) -> Turn:
        def turn(times: int) -> int:
            for _ in range(times):
                system.generate(given)
            return times

        turn(1)  # compiles
        return turn

    generate = repeated(ours)
    times = max(1, round(effort.generating / timed(generate, 1)))
    return compared(
        *take_turns(generate, {name: repeated(rival) for name, rival in rivals.items()}, times, effort.rounds)
    )


def turn_length(ours: Jaxgen, seconds: float) -> int:
    """Steps in a turn: an epoch's, or as many as take ours about so many seconds.

    It leaves ours compiled and warm, and at the beginning of an epoch where a turn is one.
    """
    ours.train(ours.steps if ours.last_is_smaller else 1)  # a last, smaller batch is a program of its own
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < 1:
        done += ours.train(1)
    a_step = (time.perf_counter() - began) / done
    if ours.steps * a_step > seconds:
        return max(1, round(seconds / a_step))
    ours.train(-ours.done % ours.steps)
    return ours.steps


def take_turns(
    ours: Turn, rivals: Mapping[str, Turn], amount: int, rounds: int
) -> tuple[list[float], dict[str, list[float]]]:
    """Seconds for each unit of the amount, round by round. In a round all do as much as ours did."""
    own: list[float] = []
    others: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        done = amount

        def timed_ours(amount: int) -> int:
            return 0

    return own, others


def timed(turn: Turn, amount: int) -> float:
    """Seconds that a turn takes for each unit of the amount."""
    time.sleep(0.05)  # threads of the turn before, which wait for work for a while, have gone to sleep
    began = time.perf_counter()
    done = turn(amount)
    return (time.perf_counter() - began) / done
