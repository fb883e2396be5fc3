"""The benchmark measures what it says: turns, statistics, the floor and the tables. No test here asserts a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import figures, floor, images, processes, profile, race, report, stopwatch
from experiments.benchmark.cases import CASES
from jaxgen.data import fetch
from tests.support import torch_recipes as reference

ROOT = Path(__file__).parents[1]


# --- Statistics -------------------------------------------------------------------------------------------------------


def test_spread_is_median_and_quartiles() -> None:
    assert figures.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == {
        "median": 3.0,
        "quartiles": [2.0, 4.0],
        "each": [4.0, 1.0, 3.0, 2.0, 5.0],
    }


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (9, 2), (12, 3), (25, 8)])  # from tables of the sign test
def test_interval_is_between_order_statistics(count: int, rank: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert figures.interval(values.tolist()) == [rank, count + 1 - rank]


def test_five_values_allow_no_interval() -> None:
    assert figures.interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def test_ratio_is_taken_within_a_round_and_against_the_better_rival() -> None:
    compared = figures.compared({"ours": [1.0, 2.0, 4.0], "slow": [9.0, 9.0, 9.0], "fast": [2.0, 6.0, 4.0]})
    assert compared["best_rival"] == "fast"
    assert compared["times_faster"]["each"] == [2.0, 3.0, 1.0]
    assert compared["times_faster"]["median"] == 2.0
    assert compared["ours"]["median"] == 2.0


# --- Turns ------------------------------------------------------------------------------------------------------------


def test_systems_take_turns_and_do_as_much_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: clock.now, sleep=lambda seconds: None))
    done: list[tuple[str, int]] = []

    def turn(name: str, more: int, seconds: float) -> race.Turn:
        def act(amount: int) -> int:
            done.append((name, amount))
            clock.now += seconds
            return amount + more

        return act

    seconds = race.take_turns({"a": turn("a", 2, 12.0), "b": turn("b", 0, 6.0)}, amount=10, rounds=2)
    assert done == [("a", 10), ("b", 12), ("a", 10), ("b", 12)]
    assert seconds == {"a": [1.0, 1.0], "b": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("seconds", "length", "trained"),
    [
        (60.0, 100, 200),  # an epoch takes 40 s: a turn is one, and ours stands at the beginning of the next
        (10.0, 25, 103),
    ],
)
def test_turn_is_an_epoch_or_a_slice_of_one(
    monkeypatch: pytest.MonkeyPatch, seconds: float, length: int, trained: int
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(race, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Slow:
        steps, last_is_smaller, done = 100, True, 0

        def train(self, steps: int) -> int:
            clock.now += 0.4 * max(steps, 3)  # slices are of three steps or more
            self.done += max(steps, 3)
            return max(steps, 3)

    ours: Any = Slow()
    assert race.turn_length(ours, seconds) == length
    assert ours.done == trained


# --- The profile ------------------------------------------------------------------------------------------------------


def test_kernels_are_told_apart_by_what_is_in_them() -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ x).sum(0) + x[::-1].T.reshape(16)[:4]

    kinds = profile.kinds_of_kernels(jax.jit(f).lower(jnp.ones((4, 4))).compile().as_text())
    assert {"products", "sums"} <= set(kinds.values()) <= set(profile.KINDS)
    assert profile.kind_of({"parameter", "pad", "bitcast"}) == "copies"
    assert profile.kind_of({"parameter", "pad", "tanh"}) == "elementwise"
    assert profile.kind_of({"add", "reduce"}) == "sums"
    assert profile.kind_of({"add", "reduce", "dot"}) == "products"
    assert profile.kind_of({"all-reduce"}) == "meeting"


def test_the_profile_is_of_the_loops_own_kernels() -> None:
    case = CASES["dcgan_digits"]()
    spent = profile.profile(race.Jaxgen(case, images.random_images((160, *case.shape))), 8)
    assert spent["kernels_per_step"] > 100
    assert all(spent["seconds_per_step"][kind] > 0 for kind in profile.KINDS)


# --- The floor --------------------------------------------------------------------------------------------------------


def source(name: str, count: int) -> Any:
    case = CASES[name]()
    return case.source(images.random_images((count, *case.shape)))


def test_floor_of_dcgan_digits_by_hand() -> None:
    generator = [1 * 9 * 64 * 64, 9 * 9 * 64 * 32, 25 * 16 * 32 * 1]  # positions of the input, taps, channels
    discriminator = [25 * 16 * 1 * 16, 9 * 9 * 16 * 32, 1 * 9 * 32 * 1]  # positions of the output
    fakes = 16 * sum(generator)
    discriminator_steps = 2 * 16 * (3 * sum(discriminator) - discriminator[0])  # nobody asks what the images should be
    generator_step = 32 * (3 * sum(generator) - generator[0] + 2 * sum(discriminator))  # nor how D should change
    expected = fakes + discriminator_steps + generator_step
    assert floor.multiply_adds(CASES["dcgan_digits"]().recipe, source("dcgan_digits", 16), 16) == expected


@pytest.mark.parametrize(("name", "gates"), [("rnn_lstm", 4), ("rnn_gru", 3)])
def test_floor_of_the_row_completer_by_hand(name: str, gates: int) -> None:
    inputs, states = 32 * 28 * 56 * gates * 256, 32 * 28 * 256 * gates * 256
    expected = 2 * inputs + 3 * states + 3 * 32 * 256 * 56
    assert floor.multiply_adds(CASES[name]().recipe, source(name, 2), 32) == expected


@pytest.mark.parametrize("name", ["conv_autoencoder", "vae_mnist"])
def test_floor_is_what_pytorch_counts(name: str) -> None:
    case, training = CASES[name](), reference.RECIPES[name]()
    batch = reference.channels_first(np.zeros((3, *case.shape), np.float32))
    with FlopCounterMode(display=False) as counter:
        training.step(batch)
    assert 2 * floor.multiply_adds(case.recipe, source(name, 3), 3) == counter.get_total_flops()


def test_floor_of_an_epoch_has_its_last_smaller_batch() -> None:
    recipe, seven = CASES["conv_autoencoder"]().recipe, source("conv_autoencoder", 7)
    found = floor.floor(recipe, seven, batch_size=3, rate=10.0)
    of_one = floor.multiply_adds(recipe, seven, 1)
    assert found["multiply_adds_per_epoch"] == 7 * of_one
    assert found["seconds_per_epoch"] == pytest.approx(0.7 * of_one)
    dropped = floor.floor(recipe._replace(smallest_batch=None), seven, batch_size=3, rate=10.0)
    assert dropped["multiply_adds_per_epoch"] == 6 * of_one


def test_matmul_rate_is_a_rate() -> None:
    assert 0 < floor.matmul_rate(size=8, repeats=2) < float("inf")


def test_only_gradients_that_are_taken_count() -> None:
    seen = []

    def loss(weight: jax.Array, other: jax.Array) -> jax.Array:
        seen.append(floor.differentiated(weight, other, weight * other))
        return jnp.sum(weight * other)

    jax.eval_shape(loss, jnp.ones(2), jnp.ones(2))
    jax.eval_shape(jax.grad(loss), jnp.ones(2), jnp.ones(2))
    assert seen == [[False, False, False], [True, False, True]]


# --- What is run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_both_systems_run_the_same(name: str) -> None:
    case = CASES[name]()
    assert case.config.batch_size == reference.RECIPES[name]().batch_size
    floats = case.floats(images.random_images((10, *case.shape)))
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (case.low, 1)
    variables = jax.eval_shape(lambda key: case.recipe.variables(case.recipe.init(key)), jax.random.key(0))
    made = jax.eval_shape(case.generate, variables, case.given(floats))
    assert made.shape == (len(case.given(floats)), *case.shape)


def test_originals_that_are_not_here_are_replaced_and_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "first_to_answer", lambda urls: pytest.fail("asked the network"))
    assert not images.at_hand("mnist")
    assert images.load("mnist", "test", size=(8, 9), log=print).images.shape == (10_000, 8, 9, 1)
    assert images.load("cifar10", "test").images.shape == (10_000, 32, 32, 3)
    assert images.load("digits").images.shape == (1_797, 8, 8, 1)


# --- Processes of their own -------------------------------------------------------------------------------------------


def test_stopwatch_counts_each_second_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    watch = stopwatch.Stopwatch()
    clock.now += 1
    with watch.part("training"):
        clock.now += 10
        with watch.part("drawing"):
            clock.now += 100
        watch.compiled("/jax/core/compile/backend_compile_duration", 4.0)
        watch.compiled("/jax/something/else", 4.0)
        clock.now += 1000
    watch.settle()
    assert watch.spent == {"other": 1, "training": 1006, "drawing": 100, "compiling": 4}


def test_peak_memory_is_not_that_of_who_started_the_process() -> None:
    code = "from experiments.benchmark.processes import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < processes.peak_bytes() / 2


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("at_root")
def test_memory_is_that_of_one_system_alone() -> None:
    assert processes.measure_memory("pytorch_eager", "conv_autoencoder", (50, 32, 32, 3)) > 1e7


@pytest.mark.usefixtures("at_root")
def test_our_memory_is_that_with_and_without_compiling() -> None:
    peaks = processes.measure_our_memory("conv_autoencoder", (100, 32, 32, 3))
    assert 5e7 < peaks["warm"] < peaks["cold"]


@pytest.mark.usefixtures("at_root")
def test_start_ends_with_the_first_step() -> None:
    endless = ("tests.support.tiny", "--epochs", "1000000000")
    starts = processes.measure_starts(endless, times=1)
    assert list(starts) == ["cold", "warm"]
    assert all(len(seconds) == 1 for seconds in starts.values())


@pytest.mark.usefixtures("at_root")
def test_whole_command_is_taken_apart() -> None:
    commands = processes.measure_command(("tests.support.tiny",))
    assert list(commands) == ["cold", "warm"]
    for parts in commands.values():
        assert next(iter(parts)) == "total"
        assert parts.keys() == {"total", "importing", "compiling", "training", "drawing", "saving", "other"}
        assert min(parts.values()) > 0
        assert sum(parts.values()) == pytest.approx(2 * parts["total"])


@pytest.mark.usefixtures("at_root")
def test_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"No module named 'tests\.nothing'"):
        processes.measure_command(("tests.nothing",))


# --- The command ------------------------------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    return benchmark.run()


def test_short_run_writes_table_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    effort = race.Effort((race.EAGER,), rounds=2, training=0.01, generating_rounds=2, generating=0.01, starts=0)
    monkeypatch.setattr(benchmark, "QUICK", effort)
    monkeypatch.setattr(benchmark, "matmul_rate", lambda products: 1e11)
    monkeypatch.setattr(benchmark, "load", lambda *_, **__: images.random_images((100, 32, 32, 3)))
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    out = tmp_path / "folder" / "figures.json"
    monkeypatch.setattr(benchmark, "without_caches", lambda: None)
    assert command(monkeypatch, "conv_autoencoder", "--quick", "--out", str(out)) == 0

    found = json.loads(out.read_text())
    assert {"date", "git_commit", "machine", "versions", "quick", "recipes"} == found.keys()
    (name, recipe), *others = found["recipes"].items()
    assert (name, others) == ("conv_autoencoder", [])
    assert recipe["data"] == "random, as cifar10 32×32×3"
    assert recipe["steps_per_epoch"] == 2
    assert recipe["steps_per_turn"] in (1, 2)
    assert recipe["compile_seconds"].keys() == {"jaxgen"}
    for part in ("seconds_per_epoch", "generation_seconds"):
        assert recipe[part].keys() == {"jaxgen", "pytorch_eager", "best_rival", "times_faster"}
        assert len(recipe[part]["jaxgen"]["each"]) == 2
    floor_seconds = recipe["floor"]["seconds_per_epoch"]
    assert recipe["floor"]["share_reached"] * recipe["seconds_per_epoch"]["jaxgen"]["median"] == pytest.approx(
        floor_seconds
    )
    printed = capsys.readouterr().out
    assert printed == f"{report.render(found)}\n\n{out}\n"
    assert "random, as cifar10 32×32×3" in printed


def test_both_learn_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Real images, and on them the same course: so both see the same data under the same settings."""
    monkeypatch.setattr(benchmark, "without_caches", lambda: None)
    out = tmp_path / "figures.json"
    assert command(monkeypatch, "dcgan_digits", "--epochs", "1", "--out", str(out)) == 0
    (epoch,) = json.loads(out.read_text())["recipes"]["dcgan_digits"]["epochs"]
    assert epoch["jaxgen"].keys() == epoch["pytorch_eager"].keys()
    for name in ("error_fake", "error_real", "accuracy_fake", "accuracy_real"):
        assert epoch["jaxgen"][name] == pytest.approx(epoch["pytorch_eager"][name], abs=0.2)
    printed = capsys.readouterr().out
    assert "dcgan_digits: means over each epoch's training, jaxgen / PyTorch" in printed
    assert f"{epoch['jaxgen']['error_fake']:.4g} / {epoch['pytorch_eager']['error_fake']:.4g}" in printed


def spread(median: float) -> dict[str, Any]:
    return {"median": median, "quartiles": [0.9 * median, 1.1 * median], "each": [median] * 3}


FULL = {
    "date": "2026-01-01 12:00",
    "machine": {"processor": "An abacus", "cpus": 2, "pytorch_threads": 1, "jax_device": "cpu", "load_before": 0.0},
    "versions": {"python": "3.11.7", "jax": "0.10.2"},
    "recipes": {
        "dcgan_digits": {
            "data": "digits 8×8×1",
            "batch_size": 16,
            "steps_per_epoch": 1130,
            "steps_per_turn": 113,
            "compile_seconds": {"jaxgen": 3.21, "pytorch_compiled": 43.2},
            "seconds_per_epoch": {
                "jaxgen": spread(0.1),
                "pytorch_eager": spread(0.5),
                "pytorch_compiled": spread(20.0),
                "times_faster": {**spread(5.0), "interval_95": [4.9, 5.12]},
            },
            "floor": {"seconds_per_epoch": 0.05, "share_reached": 0.5},
            "profile": {
                "seconds_per_step": {
                    "products": 5e-5,
                    "sums": 1e-6,
                    "elementwise": 2e-5,
                    "copies": 1.5e-5,
                    "meeting": 0.0,
                },
                "kernels_per_step": 263.2,
            },
            "generated": "10,000 digits sampled",
            "generation_seconds": {
                "jaxgen": spread(0.01),
                "pytorch_eager": spread(1.0),
                "times_faster": {**spread(100.0), "interval_95": None},
            },
            "start_seconds": {"cold": spread(12.0), "warm": spread(4.0)},
            "peak_bytes": {
                "jaxgen": {"cold": 400e6, "warm": 300e6},
                "pytorch_eager": {"cold": 500e6},
                "pytorch_compiled": {"cold": 1.2e9},
            },
        }
    },
    "whole_command": {
        "command": "python -m experiments.dcgan_digits",
        "seconds": {
            "cold": {"total": 25.0, "training": 20.0, "drawing": 5.0},
            "warm": {"total": 22.0, "training": 18.0, "drawing": 4.0},
        },
        "epochs": 200,
        "pytorch_training_seconds": 100.0,
    },
}

PRINTED = """\
2026-01-01 12:00 · An abacus, 2 CPUs, 1 threads of PyTorch, JAX on cpu
python 3.11.7, jax 0.10.2

recipe                data  batch  steps an epoch  steps a turn  turns
──────────────────────────────────────────────────────────────────────
dcgan_digits  digits 8×8×1     16           1,130           113      3

Training: seconds an epoch, median (quartiles); times faster than the better PyTorch [95 % interval]
recipe                     jaxgen              PyTorch     torch.compile      times faster  floor  reached
──────────────────────────────────────────────────────────────────────────────────────────────────────────
dcgan_digits  0.100 (0.090–0.110)  0.500 (0.450–0.550)  20.0 (18.0–22.0)  5.00 [4.90–5.12]  0.050      50%

Where our time goes: milliseconds a step, in all, at least, and in kernels of each kind, under the profiler
recipe         step  floor  products   sums  elementwise  copies  meeting  kernels
──────────────────────────────────────────────────────────────────────────────────
dcgan_digits  0.088  0.044     0.050  0.001        0.020   0.015    0.000      263

Generation: milliseconds, median (quartiles)
recipe                         what            jaxgen          PyTorch  torch.compile  times faster
───────────────────────────────────────────────────────────────────────────────────────────────────
dcgan_digits  10,000 digits sampled  10.0 (9.00–11.0)  1000 (900–1100)              –        100.00

Starting: seconds to compile, and from the command to the end of the first step; peak memory in MB
recipe        compile  torch.compile  start, cold  start, warm  jaxgen, cold  jaxgen, warm  PyTorch  torch.compile
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
dcgan_digits     3.21           43.2         12.0         4.00           400           300      500          1,200

python -m experiments.dcgan_digits, from its start to its last picture, in seconds
nothing compiled before: total 25.0 (training 20.0, drawing 5.00)
all compiled before: total 22.0 (training 18.0, drawing 4.00)
PyTorch, 200 epochs of training alone: 100"""


def test_tables_say_all_there_is() -> None:
    assert report.render(FULL) == PRINTED


def test_what_was_not_measured_has_no_table() -> None:
    recipes: dict[str, Any] = FULL["recipes"]  # type: ignore[assignment]
    quick = {name: {**figures, "generation_seconds": {}, "profile": {}} for name, figures in recipes.items()}
    printed = report.render({**FULL, "recipes": quick})
    assert "Training: seconds an epoch" in printed
    assert "Generation" not in printed
    assert "Where our time goes" not in printed


def test_busy_machine_is_mentioned() -> None:
    busy = {**FULL, "machine": {**FULL["machine"], "load_before": 2.4}}  # type: ignore[dict-item]
    assert "Others were at work on this machine (load average 2.4 before the start)." in report.render(busy)


def test_recipes_are_taken_once_and_in_order() -> None:
    assert benchmark.chosen(["rnn_gru", "dcgan_digits", "rnn_complete"]) == ["dcgan_digits", "rnn_lstm", "rnn_gru"]
    assert benchmark.chosen([]) == list(CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vae_mnits"], "there is no recipe 'vae_mnits': take some of dcgan_digits, conv_autoencoder, rnn_lstm"),
        (["--fast"], "Unrecognized options: --fast"),
        (["--out", "."], "--out .: is a folder; name a file"),
        (["--epochs", "0"], "--epochs 0: one at least"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_there_is_no_race_between_devices(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark.jax, "default_backend", lambda: "gpu")
    assert command(monkeypatch) == 2
    assert "JAX_PLATFORMS=cpu makes it fair" in capsys.readouterr().err


def test_without_pytorch_there_is_no_race(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: None)
    assert command(monkeypatch) == 2
    assert "pip install -e '.[test]'" in capsys.readouterr().err
