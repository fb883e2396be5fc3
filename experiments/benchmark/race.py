"""The two systems take turns."""

import contextlib
import itertools
import math
import queue
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxgen
from experiments.benchmark import machine
from experiments.benchmark.cases import Case, Precision
from experiments.benchmark.figures import compare
from jaxgen import training
from jaxgen.data import Images
from jaxgen.runs.devices import find_devices

OURS, EAGER, COMPILED = "jaxgen", "pytorch_eager", "pytorch_compiled"
AT_ONCE, IN_TURN = "at_once", "in_turn"  # several models of ours
FEWEST_STEPS = 5  # in a turn: in its first step a system finds its arrays pushed out of the caches by the other's

Turn = Callable[[int], int]  # do so much, or a little more -> how much was done


class Effort(NamedTuple):
    """What is spent on a recipe's figures."""

    rivals: tuple[str, ...] = (EAGER, COMPILED)
    rounds: int = 12  # turns of each system in training
    longest: float = 600.0  # seconds of a race, about; on a busy machine, where PyTorch may be 50 times slower
    training: float = 2.0  # seconds in a turn of the fastest system, at least
    products: int = 5  # large matrix products of each system, before and after
    generating_rounds: int = 12  # or 0
    generating: float = 0.5  # seconds in a turn of the fastest system, at least
    profiled: int = 50  # steps under the profiler, about; or 0
    starts: int = 3  # cold and warm ones, two at least; or 0: nothing that needs a process of its own


class Turns(NamedTuple):
    """What each system did, round by round."""

    seconds: dict[str, list[float]]  # by system: for one unit of the amount
    amounts: list[int]  # how much each system did in a turn
    others: list[float | None]  # the share of the processors that other processes used, the largest of the turns


class Jaxgen:
    """Training of a recipe with `jaxgen.fit`, of one model or of several at once.

    Each call of `train` goes on where the last one ended.

    Args:
        devices: where to train; those of the experiment unless given.
    """

    def __init__(
        self, case: Case, images: Images, models: int = 1, devices: Sequence[jax.Device] | None = None
    ) -> None:
        self.recipe = case.recipe if models == 1 else jaxgen.many(case.recipe, models)
        self.source, self.batch_size = case.source(images), case.config.batch_size
        self.steps = training.steps_per_epoch(self.recipe, self.source, self.batch_size)
        self.last_is_smaller = self.steps > self.source.size // self.batch_size
        self.done = 0
        init_key, training_key = jax.random.split(jax.random.key(0))

        def fit(each: Callable[[training.Slice], bool]) -> None:
            jaxgen.fit(
                self.recipe,
                jax.jit(self.recipe.init)(init_key),  # not in a variable: `fit` makes a copy, and this one can go
                self.source,
                epochs=10**9,
                batch_size=self.batch_size,
                key=training_key,
                each=each,
                devices=find_devices(case.config) if devices is None else devices,
            )

        self._slices = slices_of(fit)
        self._generate = jax.jit(case.generate)

    def train(self, steps: int) -> int:
        """Train so many steps, or a few more, and return how many they were."""
        first = self.done
        while self.done < first + steps:
            self._train_slice()
        return self.done - first

    def epoch(self) -> dict[str, float]:
        """Train to the end of the epoch and return its mean metrics."""
        while (metrics := self._train_slice()) is None:
            pass
        return metrics

    def generate(self, given: np.ndarray) -> np.ndarray:
        return np.asarray(self._generate(self.recipe.variables(self.carry.state), given))

    def close(self) -> None:
        """End the training."""
        self._slices.close()

    def _train_slice(self) -> dict[str, float] | None:
        """Train until `fit` hands over control, and return the epoch's mean metrics if it ended there."""
        piece = next(self._slices)
        self.done, self.carry = piece.epoch * self.steps + piece.step, piece.carry
        return piece.metrics


def slices_of(fit: Callable[[Callable[[training.Slice], bool]], object]) -> Generator[training.Slice, None, None]:
    """Turn a function that calls back into a generator of what it passes to its callback.

    The function runs in a thread of its own, which waits in the callback until the next value is asked for. The
    callback returns True, which means "stop", once the generator is closed.
    """
    values: queue.SimpleQueue[training.Slice | BaseException] = queue.SimpleQueue()
    stop: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def each(value: training.Slice) -> bool:
        values.put(value)
        return stop.get()

    def run() -> None:
        try:
            if not stop.get():
                fit(each)
        except BaseException as error:
            values.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            stop.put(False)
            value = values.get()
            if isinstance(value, BaseException):
                raise value
            yield value
    finally:
        stop.put(True)
        thread.join()


class PyTorch:
    """The reference's training. Each call of `train` goes on where the last one ended.

    In bf16, its steps are run inside `torch.autocast`, which chooses what is computed in bfloat16.
    """

    def __init__(self, name: str, floats: np.ndarray, *, compile: bool, precision: Precision = "float32") -> None:
        import torch

        from tests.support import torch_recipes

        self._casting = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
        self.training = torch_recipes.Training(name, floats, compile=compile)
        self._batches = itertools.chain.from_iterable(itertools.repeat(self.training.loader))
        self._sums: Counter[str] = Counter()

    def train(self, steps: int) -> int:
        with self._casting:
            for batch in itertools.islice(self._batches, steps):
                self._sums.update(self.training.recipe.step(*batch))
        return steps

    def generate(self, given: np.ndarray) -> np.ndarray:
        return self.training.generate(given)


def race_training(ours: Jaxgen, rivals: Mapping[str, PyTorch], effort: Effort) -> dict[str, Any]:
    """Measure seconds an epoch, and seconds of compiling before."""
    with compile_seconds() as compiling_ours:
        ours.train(ours.steps if ours.last_is_smaller else 1)  # a last, smaller batch is a program of its own
    turns: dict[str, Turn] = {OURS: ours.train, **{name: rival.train for name, rival in rivals.items()}}
    first_steps = take_turns({OURS: ours.train}, FEWEST_STEPS, 2).seconds[OURS]
    warming = min(ours.steps, turn_length(first_steps[-1:], effort.training, ours.steps))
    # Two turns: torch.compile is at work in the first step, at a smaller batch, and once more after that.
    warm_up = take_turns(turns, warming, 2 if COMPILED in rivals else 1)
    steps = turn_length([each[-1] for each in warm_up.seconds.values()], effort.training, ours.steps)
    if steps % ours.steps == 0:
        ours.train(-ours.done % ours.steps)  # to the end of the epoch: turns are whole epochs

    race = take_turns(turns, steps, effort.rounds, effort.longest)
    compiling = {OURS: sum(compiling_ours)}
    if COMPILED in rivals:
        usual = statistics.median(race.seconds[COMPILED])
        each_turn = zip(warm_up.amounts, warm_up.seconds[COMPILED], strict=True)
        compiling[COMPILED] = sum(amount * (seconds - usual) for amount, seconds in each_turn)
    return {
        "steps_per_epoch": ours.steps,
        "steps_per_turn": round(statistics.median(race.amounts)),
        "compile_seconds": compiling,
        "seconds_per_epoch": judge(race, unit=ours.steps),
    }


def race_many(at_once: Jaxgen, one: Jaxgen, models: int, effort: Effort) -> dict[str, Any]:
    """Measure seconds an epoch of several models that train at once, and of as many that train one after the other."""

    def in_turn(steps: int) -> int:
        for _ in range(models):
            one.train(steps)
        return steps

    compiling = {}
    for name, system in ((AT_ONCE, at_once), (IN_TURN, one)):
        with compile_seconds() as durations:
            system.train(system.steps if system.last_is_smaller else 1)
        compiling[name] = sum(durations)
    turns: dict[str, Turn] = {AT_ONCE: at_once.train, IN_TURN: in_turn}
    step = take_turns({AT_ONCE: at_once.train}, FEWEST_STEPS, 2).seconds[AT_ONCE][-1]
    race = take_turns(turns, turn_length([step], effort.training, one.steps), effort.rounds, effort.longest)
    return {"models": models, "compile_seconds": compiling, "seconds_per_epoch": judge(race, unit=one.steps)}


def race_generation(ours: Jaxgen, rivals: Mapping[str, PyTorch], given: np.ndarray, effort: Effort) -> dict[str, Any]:
    """Measure seconds from what is given to the images."""

    def repeated(system: Jaxgen | PyTorch) -> Turn:
        def turn(times: int) -> int:
            for _ in range(times):
                system.generate(given)
            return times

        return turn

    turns = {OURS: repeated(ours), **{name: repeated(rival) for name, rival in rivals.items()}}
    warm_up = take_turns(turns, 1, 2).seconds  # the first call compiles
    times = math.ceil(effort.generating / min(seconds[-1] for seconds in warm_up.values()))
    return judge(take_turns(turns, times, effort.generating_rounds, effort.longest))


def turn_length(step_seconds: Iterable[float], seconds: float, steps_per_epoch: int) -> int:
    """Return the steps in a turn: the fastest system's for so many seconds, a few at least; from an epoch on, epochs.

    Args:
        step_seconds: of each system.
    """
    steps = max(FEWEST_STEPS, math.ceil(seconds / min(step_seconds)))
    return steps if steps < steps_per_epoch else math.ceil(steps / steps_per_epoch) * steps_per_epoch


def take_turns(turns: Mapping[str, Turn], amount: int, rounds: int, longest: float = math.inf) -> Turns:
    """Let the systems work in turn, A B C A B C …; in each round all do as much as the first of them did.

    After `longest` seconds no further round begins, but two are always measured.
    """
    taken = Turns({name: [] for name in turns}, [], [])
    end = time.perf_counter() + longest
    while len(taken.others) < min(2, rounds) or (len(taken.others) < rounds and time.perf_counter() < end):
        done, shares = amount, []
        for name, turn in turns.items():
            time.sleep(0.05)  # threads of the last turn, which spin for a while waiting for work, have gone to sleep
            before = machine.read_cpu_times()
            done = turn(done)
            after = machine.read_cpu_times()
            taken.seconds[name].append((after.wall - before.wall) / done)
            shares.append(machine.share_of_others(before, after))
        taken.amounts.append(done)
        taken.others.append(None if None in shares else max(share for share in shares if share is not None))
    return taken


def judge(turns: Turns, unit: int = 1) -> dict[str, Any]:
    """Compare the systems by the rounds in which the machine was quiet; if it was not, by its quieter rounds.

    Args:
        unit: the amount that the times are given for.
    """
    judged, quiet = machine.quiet_rounds(turns.others)
    seconds = {name: [unit * each[number] for number in judged] for name, each in turns.seconds.items()}
    about = {"rounds": len(turns.others), "judged_rounds": judged, "others_share": turns.others, "quiet": quiet}
    return {**compare(seconds), **about}


@contextlib.contextmanager
def compile_seconds() -> Iterator[list[float]]:
    """Collect the durations of everything that JAX traces, lowers or compiles in the meantime."""
    durations: list[float] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):  # jaxpr_trace, jaxpr_to_mlir_module and backend_compile
            durations.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield durations
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
