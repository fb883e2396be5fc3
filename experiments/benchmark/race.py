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
from jaxgen.run import find_devices

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
    rounds: int = 12  # turns of each system in training
    training: float = 2.0  # seconds that ours trains in a turn
    products: int = 5  # large ones, of each system, before and after
    generating_rounds: int = 12  # or 0
    generating: float = 0.3
    profiled: int = 50  # steps under the profiler, at most; or 0
    starts: int = 3  # cold and warm ones, two at least; or 0: nothing that needs a process of its own


class Jaxgen:
    """Our training of a recipe, in slices of about so many seconds. It goes on where the last call of `train` ended."""

    def __init__(self, case: Case, images: Images, *, seconds: float = 0.5) -> None:
        recipe, source, batch_size = case.recipe, case.source(images), case.config.batch_size
        devices = find_devices(case.config)
        self.recipe, self.source, self.batch_size, self.devices = recipe, source, batch_size, devices
        self.steps = training.steps_per_epoch(recipe, source, batch_size)
        self.last_is_smaller = self.steps > source.size // batch_size
        self.done = 0
        init_key, training_key = jax.random.split(jax.random.key(0))
        begin = jax.jit(lambda key: training.begin(recipe, source, recipe.init(key), batch_size, devices))
        self.carry = begin(init_key)
        self.slices = training.slices(
            recipe, source, self.carry, epochs=sys.maxsize, batch_size=batch_size, key=training_key, seconds=seconds,
            devices=devices,
        )  # fmt: skip
        self.generator = jax.jit(case.generate)

    def train(self, steps: int) -> int:
        first = self.done
        while self.done < first + steps:
            self.slice()
        return self.done - first

    def epoch(self) -> dict[str, float]:
        """Train to the end of the epoch -> its mean metrics."""
        while (metrics := self.slice()) is None:
            pass
        return metrics

    def slice(self) -> dict[str, float] | None:
        """Train as far as one call of the loop goes -> the mean metrics, where that was to the end of an epoch."""
        piece = next(self.slices)
        training.check_finite(piece)
        self.done, self.carry = piece.epoch * self.steps + piece.step, piece.carry
        return piece.metrics

    def generate(self, given: np.ndarray) -> np.ndarray:
        return np.asarray(self.generator(self.recipe.variables(self.carry.state), given))


class PyTorch:
    """The reference's. It goes on where the last call of `train` ended."""

    def __init__(self, name: str, floats: np.ndarray, *, compile: bool) -> None:
        from tests.support import torch_recipes

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
    turns = {name: rival.train for name, rival in rivals.items()}
    warming = take_turns(turns, steps, 2)  # torch.compile is at work at a smaller batch too, and once more after it
    a_step = take_turns({OURS: ours.train, **turns}, steps, effort.rounds)
    if COMPILED in rivals:
        usual = statistics.median(a_step[COMPILED])
        compiling[COMPILED] = steps * sum(each - usual for each in warming[COMPILED])
    return {
        "steps_per_epoch": ours.steps,
        "steps_per_turn": steps,
        "compile_seconds": compiling,
        "seconds_per_epoch": compared({name: [ours.steps * each for each in a_step[name]] for name in a_step}),
    }


def race_generation(ours: Jaxgen, rivals: Mapping[str, PyTorch], given: np.ndarray, effort: Effort) -> dict[str, Any]:
    """Seconds from what is given to the images."""

    def repeated(system: Jaxgen | PyTorch) -> Turn:
        def turn(times: int) -> int:
            for _ in range(times):
                system.generate(given)
            return times

        return turn

    turns = {OURS: repeated(ours), **{name: repeated(rival) for name, rival in rivals.items()}}
    take_turns(turns, 1, 1)  # compiles
    times = max(1, round(effort.generating / take_turns({OURS: turns[OURS]}, 1, 1)[OURS][0]))
    return compared(take_turns(turns, times, effort.generating_rounds))


def turn_length(ours: Jaxgen, seconds: float) -> int:
    """Steps in a turn: an epoch's, or as many as take ours about so many seconds.

    It leaves ours compiled and warm, and at the beginning of an epoch where a turn is one.
    """
    ours.train(ours.steps if ours.last_is_smaller else 1)  # a last, smaller batch is a program of its own
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < min(1, seconds):
        done += ours.train(1)
    a_step = (time.perf_counter() - began) / done
    if ours.steps * a_step > seconds:
        return max(1, round(seconds / a_step))
    ours.train(-ours.done % ours.steps)
    return ours.steps


def take_turns(turns: Mapping[str, Turn], amount: int, rounds: int) -> dict[str, list[float]]:
    """Seconds for one unit of the amount, round by round. In each round all do as much as the first of them did."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        done = amount
        for name, turn in turns.items():
            time.sleep(0.05)  # threads of the turn before, which wait for more work for a while, have gone to sleep
            began = time.perf_counter()
            done = turn(done)
            seconds[name].append((time.perf_counter() - began) / done)
    return seconds
