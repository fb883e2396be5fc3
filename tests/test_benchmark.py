"""The benchmark measures what it claims: rounds, statistics, ideal times and tables. No test here asserts a time."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import figures, ideal, images, machine, processes, profile, race, report, tables
from experiments.benchmark.cases import CASES
from jaxgen import data
from jaxgen.data import fetch
from jaxgen.errors import InputError
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
def test_interval_is_bounded_by_order_statistics(count: int, rank: int) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
    assert figures.interval(values.tolist()) == [rank, count + 1 - rank]


def test_five_values_have_no_interval() -> None:
    assert figures.interval([1.0, 2.0, 3.0, 4.0, 5.0]) is None


def test_ratio_is_taken_within_a_round_against_the_faster_rival() -> None:
    compared = figures.compare({"ours": [1.0, 2.0, 4.0], "slow": [9.0, 9.0, 9.0], "fast": [2.0, 6.0, 4.0]})
    assert compared["best_rival"] == "fast"
    assert compared["times_faster"]["each"] == [2.0, 3.0, 1.0]
    assert compared["times_faster"]["median"] == 2.0
    assert compared["ours"]["median"] == 2.0


# --- Rounds -----------------------------------------------------------------------------------------------------------


def turn_taking(
    monkeypatch: pytest.MonkeyPatch, shares: list[float | None], rounds: int = 2, longest: float = 1000.0
) -> tuple[race.Turns, list[Any]]:
    """Rounds of the systems a and b, of 12 and 6 seconds, in which other processes use these shares of the machine."""
    clock = SimpleNamespace(now=0.0)
    answers = iter(shares)
    monkeypatch.setattr(race, "time", SimpleNamespace(sleep=lambda seconds: None, perf_counter=lambda: clock.now))
    monkeypatch.setattr(machine, "read_cpu_times", lambda: machine.CpuTimes(clock.now, 0.0, 0.0))
    monkeypatch.setattr(machine, "share_of_others", lambda before, after: next(answers))
    done: list[tuple[str, int]] = []

    def turn(name: str, more: int, seconds: float) -> race.Turn:
        def act(amount: int) -> int:
            done.append((name, amount))
            clock.now += seconds
            return amount + more

        return act

    return race.take_turns({"a": turn("a", 2, 12.0), "b": turn("b", 0, 6.0)}, 10, rounds, longest), done


def test_systems_take_turns_and_do_as_much_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, done = turn_taking(monkeypatch, [0.0] * 4)
    assert done == [("a", 10), ("b", 12), ("a", 10), ("b", 12)]
    assert turns.seconds == {"a": [1.0, 1.0], "b": [0.5, 0.5]}
    assert turns.amounts == [12, 12]


def test_round_is_as_disturbed_as_its_worst_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turn_taking(monkeypatch, [0.1, 0.2, 0.0, None])[0].others == [0.2, None]


@pytest.mark.parametrize(("longest", "rounds"), [(1.0, 2), (50.0, 3), (1000.0, 5)])
def test_race_ends_early_on_a_slow_machine(monkeypatch: pytest.MonkeyPatch, longest: float, rounds: int) -> None:
    turns, _ = turn_taking(monkeypatch, [0.0] * 10, rounds=5, longest=longest)
    assert len(turns.others) == len(turns.amounts) == rounds


@pytest.mark.parametrize(
    ("step_seconds", "steps"),
    [
        ([0.01, 0.02], 50),  # half a second of the faster one
        ([0.3, 0.4], race.FEWEST_STEPS),
        ([0.001, 0.002], 600),  # 500 steps are more than two epochs of 200
    ],
)
def test_turn_is_half_a_second_of_each_and_several_steps(step_seconds: list[float], steps: int) -> None:
    assert race.turn_length(step_seconds, 0.5, steps_per_epoch=200) == steps


def test_only_quiet_rounds_count() -> None:
    seconds = {"ours": [1.0] * 7 + [50.0], "rival": [2.0] * 7 + [50.0]}
    judged = race.judge(race.Turns(seconds, [10] * 8, [*[0.01] * 7, 0.9]), unit=3)
    assert judged["quiet"]
    assert judged["judged_rounds"] == list(range(7))
    assert judged["rounds"] == 8
    assert judged["others_share"][-1] == 0.9
    assert judged["ours"]["each"] == [3.0] * 7
    assert judged["times_faster"]["median"] == 2.0


def test_race_on_a_busy_machine_is_marked_and_judged_by_its_quieter_half() -> None:
    assert machine.quiet_rounds([0.5, 0.01, 0.4, None, 0.6, 0.02, 0.7, 0.3]) == ([1, 2, 5, 7], False)
    assert machine.quiet_rounds([None, None, 0.9]) == ([0, 2], False)


def test_few_rounds_are_quiet_if_all_are() -> None:
    assert machine.quiet_rounds([0.01, 0.02]) == ([0, 1], True)
    assert machine.quiet_rounds([0.01, 0.2]) == ([0, 1], False)


def times(wall: float, busy: float, own: float) -> machine.CpuTimes:
    return machine.CpuTimes(wall, busy, own)


def test_share_of_others_is_what_this_process_did_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_usable_cpus", lambda: {0, 3})
    assert machine.share_of_others(times(1, 10, 5), times(11, 25, 10)) == pytest.approx(0.5)
    assert machine.share_of_others(times(0, 0, 0), times(10, 9.9, 10)) == 0
    assert machine.share_of_others(times(0, 0, 0), times(10, 0, 10)) is None  # clocks that do not move


def test_cpu_times_are_those_of_the_usable_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Times(dict[str, float]):
        def _asdict(self) -> dict[str, float]:
            return self

    linux = Times(user=5, nice=1, system=2, idle=90, iowait=9, irq=1, softirq=1, steal=3, guest=2, guest_nice=0)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: [linux, Times(user=100, idle=1), linux])
    monkeypatch.setattr(machine, "_usable_cpus", lambda: {0, 2})
    assert machine.read_cpu_times().busy == 2 * 13


def test_another_process_is_noticed() -> None:
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        share = machine.share_of_others_during(1.0)
    finally:
        spinning.kill()
        spinning.wait()
    assert share is None or share > machine.QUIET_SHARE


# --- Training in turns ------------------------------------------------------------------------------------------------


def some_images(name: str, count: int) -> data.Images:
    return images.random_images((count, *CASES[name]().shape))


@pytest.fixture
def autoencoder() -> Iterator[race.Jaxgen]:
    """Training of conv_autoencoder with 3 full batches and a smaller one."""
    training = race.Jaxgen(CASES["conv_autoencoder"](), some_images("conv_autoencoder", 160))
    yield training
    training.close()


def test_training_continues_where_the_last_turn_ended(autoencoder: race.Jaxgen) -> None:
    assert autoencoder.steps == 4
    done = autoencoder.train(1)
    done += autoencoder.train(9)
    assert autoencoder.done == done >= 10
    assert autoencoder.epoch().keys() == {"loss"}
    assert autoencoder.done % 4 == 0


def test_training_ends_when_it_is_closed(autoencoder: race.Jaxgen) -> None:
    threads = threading.active_count()
    autoencoder.train(1)
    assert threading.active_count() == threads + 1
    autoencoder.close()
    assert threading.active_count() == threads
    with pytest.raises(StopIteration):
        autoencoder.train(1)


def test_error_in_training_is_raised_in_the_turn() -> None:
    case = CASES["dcgan_digits"]()
    training = race.Jaxgen(case, some_images("dcgan_digits", case.config.batch_size - 1))
    with pytest.raises(InputError, match="batch size 16"):
        training.train(1)


# --- The profile ------------------------------------------------------------------------------------------------------


def test_kernels_are_classified_by_their_operations() -> None:
    def f(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ x).sum(0) + x[::-1].T.reshape(16)[:4]

    kinds = profile.kinds_of_kernels(jax.jit(f).lower(jnp.ones((4, 4))).compile().as_text() or "")
    assert {module for module, _ in kinds} == {"jit_f"}
    assert {"matmul", "reduction"} <= set(kinds.values()) <= set(profile.KINDS)
    assert profile.kind_of({"parameter", "pad", "bitcast"}) == "copy"
    assert profile.kind_of({"parameter", "pad", "tanh"}) == "elementwise"
    assert profile.kind_of({"add", "reduce"}) == "reduction"
    assert profile.kind_of({"add", "reduce", "dot"}) == "matmul"
    assert profile.kind_of({"all-reduce"}) == "all-reduce wait"


def test_kernels_of_programs_with_one_name_are_told_apart() -> None:
    first = {("jit_f", "fusion"): "matmul", ("jit_f", "fusion.1"): "copy"}
    second = {("jit_f", "fusion"): "reduction", ("jit_f", "fusion.2"): "elementwise"}
    events = [
        profile._Event(kernel, number, 0, 0.0, 1.0) for number, module in ((7, second), (5, first)) for kernel in module
    ]
    for modules in ([first, second], [second, first]):
        assert profile.kinds_by_program(modules, events) == {7: second, 5: first}


def test_profile_contains_the_kernels_of_the_training_loop(autoencoder: race.Jaxgen) -> None:
    spent = profile.profile(autoencoder, 8)
    assert spent["kernels_per_step"] > 50
    assert all(spent["seconds_per_step"][kind] > 0 for kind in profile.KINDS)


# --- The ideal time ---------------------------------------------------------------------------------------------------


def source(name: str, count: int) -> Any:
    return CASES[name]().source(some_images(name, count))


def test_multiply_adds_of_dcgan_digits_by_hand() -> None:
    generator = [1 * 9 * 64 * 64, 9 * 9 * 64 * 32, 25 * 16 * 32 * 1]  # positions of the input, taps, channels
    discriminator = [25 * 16 * 1 * 16, 9 * 9 * 16 * 32, 1 * 9 * 32 * 1]  # positions of the output
    fakes = 16 * sum(generator)
    discriminator_steps = 2 * 16 * (3 * sum(discriminator) - discriminator[0])  # no gradient for the images
    generator_step = 32 * (3 * sum(generator) - generator[0] + 2 * sum(discriminator))  # none for D's weights
    expected = fakes + discriminator_steps + generator_step
    assert ideal.multiply_adds(CASES["dcgan_digits"]().recipe, source("dcgan_digits", 16), 16) == expected


@pytest.mark.parametrize(("name", "gates"), [("rnn_lstm", 4), ("rnn_gru", 3)])
def test_multiply_adds_of_the_row_completer_by_hand(name: str, gates: int) -> None:
    inputs, states = 32 * 28 * 56 * gates * 256, 32 * 28 * 256 * gates * 256
    expected = 2 * inputs + 3 * states + 3 * 32 * 256 * 56
    assert ideal.multiply_adds(CASES[name]().recipe, source(name, 2), 32) == expected


@pytest.mark.parametrize("name", ["conv_autoencoder", "vae_mnist"])
def test_multiply_adds_are_what_pytorch_counts(name: str) -> None:
    case, training = CASES[name](), reference.RECIPES[name]()
    batch = reference.channels_first(np.zeros((3, *case.shape), np.float32))
    with FlopCounterMode(display=False) as counter:
        training.step(batch)
    assert 2 * ideal.multiply_adds(case.recipe, source(name, 3), 3) == counter.get_total_flops()


def test_ideal_time_of_an_epoch_includes_its_last_smaller_batch() -> None:
    recipe, seven = CASES["conv_autoencoder"]().recipe, source("conv_autoencoder", 7)
    all_seven = ideal.ideal_time(recipe, seven, batch_size=3, rate=10.0)
    of_one = ideal.multiply_adds(recipe, seven, 1)
    assert all_seven["multiply_adds_per_epoch"] == 7 * of_one
    assert all_seven["seconds_per_epoch"] == pytest.approx(0.7 * of_one)
    dropped = ideal.ideal_time(recipe._replace(smallest_batch=None), seven, batch_size=3, rate=10.0)
    assert dropped["multiply_adds_per_epoch"] == 6 * of_one


def test_matmul_rate_is_positive_and_finite() -> None:
    assert 0 < ideal.matmul_rate(size=8, repeats=2) < float("inf")


def test_only_gradients_that_are_computed_count() -> None:
    seen = []

    def loss(weight: jax.Array, other: jax.Array) -> jax.Array:
        seen.append(ideal.differentiated(weight, other, weight * other))
        return jnp.sum(weight * other)

    jax.eval_shape(loss, jnp.ones(2), jnp.ones(2))
    jax.eval_shape(jax.grad(loss), jnp.ones(2), jnp.ones(2))
    assert seen == [[False, False, False], [True, False, True]]


# --- What is run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_both_systems_have_the_same_settings(name: str) -> None:
    case = CASES[name]()
    assert case.config.batch_size == reference.RECIPES[name]().batch_size
    floats = case.floats(some_images(name, 10))
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (case.low, 1)
    variables = jax.eval_shape(lambda key: case.recipe.variables(case.recipe.init(key)), jax.random.key(0))
    made = jax.eval_shape(case.generate, variables, case.given(floats))
    assert made.shape == (len(case.given(floats)), *case.shape)


def test_both_systems_train_in_bfloat16() -> None:
    config = CASES["dcgan_digits"]().config.replace(precision="bf16")
    case = CASES["dcgan_digits"]()._replace(config=config)

    def step(key: jax.Array, images: jax.Array) -> Any:
        return case.recipe.update(case.recipe.init(key), images, case.recipe.noise(key, 16))[1]

    traced = jax.make_jaxpr(step)(jax.random.key(0), jnp.zeros((16, 8, 8, 1)))
    assert "bf16[" in str(traced)

    floats = case.floats(some_images("dcgan_digits", 32))
    rival = race.PyTorch("dcgan_digits", floats, compile=False, precision="bf16")
    computed = []
    for module in rival.training.recipe.modules:
        module.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    rival.train(1)
    assert torch.bfloat16 in computed


def test_missing_originals_are_replaced_and_not_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "first_to_answer", lambda urls: pytest.fail("asked the network"))
    assert not images.is_available("mnist")
    shapes = {
        "dcgan_digits": (1_797, 8, 8, 1),
        "dcgan_mnist": (60_000, 28, 28, 1),
        "conv_autoencoder": (50_000, 32, 32, 3),
    }
    for name, shape in shapes.items():
        case = CASES[name]()
        assert images.load(case.config, case.shape).images.shape == shape


@pytest.mark.parametrize("channels", [1, 3])
def test_random_images_are_written_as_a_data_set(tmp_path: Path, channels: int) -> None:
    images.write_random_images(tmp_path / "random", (3, 4, 5, channels))
    for split in ("train", "test"):
        loaded = data.load(f"folder:{tmp_path / 'random'}", split, channels=channels)
        np.testing.assert_array_equal(loaded.images, images.random_images((3, 4, 5, channels)).images)


# --- Processes of their own -------------------------------------------------------------------------------------------


def test_peak_memory_is_not_that_of_the_parent_process() -> None:
    code = "from experiments.benchmark.processes import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < processes.peak_bytes() / 2


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("at_root")
def test_memory_is_measured_for_one_system_alone() -> None:
    assert processes.measure_memory("pytorch_eager", "conv_autoencoder", (50, 32, 32, 3)) > 1e7


@pytest.mark.usefixtures("at_root")
def test_our_memory_is_measured_with_and_without_compilation() -> None:
    peaks = processes.measure_our_memory("conv_autoencoder", (100, 32, 32, 3))
    assert 5e7 < peaks["warm"] < peaks["cold"]


@pytest.mark.usefixtures("at_root")
def test_start_ends_with_the_first_step() -> None:
    endless = ("tests.support.tiny", "--epochs", "1000000000")
    starts = processes.measure_starts(endless, times=1)
    assert list(starts) == ["cold", "warm"]
    assert all(len(seconds) == 1 for seconds in starts.values())


@pytest.mark.usefixtures("at_root")
def test_start_that_fails_gives_the_reason() -> None:
    with pytest.raises(RuntimeError, match=r"^tests\.nothing: .*No module named tests\.nothing"):
        processes.measure_starts(("tests.nothing",), times=1)


@pytest.mark.usefixtures("at_root")
def test_training_is_a_part_of_the_whole_command() -> None:
    commands = processes.measure_command(("tests.support.tiny",))
    assert list(commands) == ["cold", "warm"]
    assert all(0 < seconds["training"] < seconds["total"] for seconds in commands.values())


@pytest.mark.usefixtures("at_root")
def test_command_that_fails_gives_the_reason() -> None:
    with pytest.raises(RuntimeError, match=r"No module named tests\.nothing"):
        processes.measure_command(("tests.nothing",))


# --- The command ------------------------------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    return benchmark.run()


@pytest.fixture
def caches_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark switches off the caches of its process, which here is that of the tests."""
    monkeypatch.setattr(benchmark, "disable_caches", lambda: None)


@pytest.mark.usefixtures("caches_left_alone")
def test_short_run_writes_tables_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    effort = race.Effort((race.EAGER,), rounds=2, training=0.01, generating_rounds=2, generating=0.01, starts=0)
    monkeypatch.setattr(benchmark, "QUICK", effort)
    monkeypatch.setattr(benchmark, "matmul_rate", lambda products, precision: 1e11)
    monkeypatch.setattr(images, "load", lambda config, shape: images.random_images((100, *shape)))
    monkeypatch.setattr(machine, "share_of_others", lambda before, after: 0.25)
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    out = tmp_path / "folder" / "figures.json"
    assert command(monkeypatch, "conv_autoencoder", "--quick", "--out", str(out)) == 0

    text = out.read_text()
    assert str(tmp_path) not in text
    written = json.loads(text)
    assert written.keys() == {"date", "git_commit", "command", "quick", "precision", "machine", "versions", "recipes"}
    assert written["command"] == "python -m experiments.benchmark conv_autoencoder --quick"
    (name, recipe), *others = written["recipes"].items()
    assert (name, others) == ("conv_autoencoder", [])
    assert recipe["data"] == "random, as cifar10 32×32×3"
    assert recipe["steps_per_epoch"] == 2
    assert recipe["steps_per_turn"] >= race.FEWEST_STEPS
    assert recipe["compile_seconds"].keys() == {"jaxgen"}
    for part in ("seconds_per_epoch", "generation_seconds"):
        race_figures = recipe[part]
        assert race_figures["quiet"] is False
        assert race_figures["others_share"] == [0.25, 0.25]
        assert race_figures["best_rival"] == "pytorch_eager"
        assert len(race_figures["jaxgen"]["each"]) == len(race_figures["pytorch_eager"]["each"]) == 2
    seconds = recipe["seconds_per_epoch"]["jaxgen"]["median"]
    assert recipe["ideal"]["matmul_utilisation"] * seconds == pytest.approx(recipe["ideal"]["seconds_per_epoch"])
    printed = capsys.readouterr()
    assert printed.out == f"{report.render(written)}\n\n{out}\n"
    assert "random, as cifar10 32×32×3" in printed.out
    assert "conv_autoencoder, training (up to 25%)" in printed.out
    assert "warning: other processes use 25% of the processors" in printed.err


@pytest.mark.usefixtures("caches_left_alone")
def test_models_at_once_are_raced_with_models_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "QUICK", race.Effort(rounds=2, training=0.01))
    monkeypatch.setattr(images, "load", lambda config, shape: images.random_images((100, *shape)))
    out = tmp_path / "figures.json"
    assert command(monkeypatch, "conv_autoencoder", "--quick", "--many", "2", "--out", str(out)) == 0
    (figures,) = json.loads(out.read_text())["many"].values()
    assert figures["models"] == 2
    assert all(seconds > 0 for seconds in figures["compile_seconds"].values())
    assert len(figures["seconds_per_epoch"]["at_once"]["each"]) == 2
    assert "conv_autoencoder       2" in capsys.readouterr().out
    assert command(monkeypatch, "--many", "9", "--out", str(out)) == 2
    assert "--many 9: must be from 2 to 8" in capsys.readouterr().err


@pytest.mark.usefixtures("caches_left_alone")
def test_both_systems_reach_similar_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So both see the same images with the same settings."""
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


def race_of(systems: dict[str, float], times_faster: float, interval: list[float] | None) -> dict[str, Any]:
    return {
        **{name: spread(median) for name, median in systems.items()},
        "best_rival": "pytorch_eager",
        "times_faster": {**spread(times_faster), "interval_95": interval},
        "rounds": 4,
        "judged_rounds": [0, 1, 3],
        "others_share": [0.01, 0.0, 0.5, 0.04],
        "quiet": True,
    }


FULL: dict[str, Any] = {
    "date": "2026-01-01 12:00",
    "git_commit": "0123456789",
    "command": "python -m experiments.benchmark dcgan_digits",
    "quick": False,
    "precision": "float32",
    "machine": {
        "processor": "An abacus",
        "flags": ["avx2", "amx_tile"],
        "cpus": 2,
        "os": "Linux 6.1 x86_64",
        "pytorch_threads": 1,
        "jax_devices": "2 × cpu",
    },
    "versions": {"python": "3.11.7", "jax": "0.10.2", "torch": "2.13.0"},
    "recipes": {
        "dcgan_digits": {
            "data": "digits 8×8×1",
            "batch_size": 16,
            "steps_per_epoch": 1130,
            "steps_per_turn": 113,
            "compile_seconds": {"jaxgen": 3.21, "pytorch_compiled": 43.2},
            "seconds_per_epoch": race_of(
                {"jaxgen": 0.1, "pytorch_eager": 0.5, "pytorch_compiled": 20.0}, 5.0, [4.9, 5.12]
            ),
            "ideal": {"seconds_per_epoch": 0.05, "matmul_utilisation": 0.5},
            "profile": {
                "seconds_per_step": {
                    "matmul": 5e-5,
                    "reduction": 1e-6,
                    "elementwise": 2e-5,
                    "copy": 1.5e-5,
                    "all-reduce wait": 0.0,
                },
                "kernels_per_step": 263.2,
            },
            "generated": "10,000 digits sampled",
            "generation_seconds": race_of({"jaxgen": 0.01, "pytorch_eager": 1.0}, 100.0, None),
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
        "seconds": {"cold": {"total": 25.0, "training": 20.0}, "warm": {"total": 22.0, "training": 18.0}},
        "epochs": 200,
        "pytorch_training_seconds": 100.0,
    },
}

PRINTED = """\
2026-01-01 12:00, commit 0123456789: python -m experiments.benchmark dcgan_digits
An abacus, 2 CPUs, avx2 amx_tile; Linux 6.1 x86_64
python 3.11.7, jax 0.10.2, torch 2.13.0; 1 threads of PyTorch, JAX on 2 × cpu

What was run
recipe                data  batch  steps an epoch  steps a turn  rounds  rounds used
────────────────────────────────────────────────────────────────────────────────────
dcgan_digits  digits 8×8×1     16           1,130           113       4            3

Training: seconds an epoch, median (quartiles); times faster than the better PyTorch [95 % interval]
recipe                     jaxgen              PyTorch     torch.compile      times faster  ideal time  matmul utilisation
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
dcgan_digits  0.100 (0.090–0.110)  0.500 (0.450–0.550)  20.0 (18.0–22.0)  5.00 [4.90–5.12]       0.050                 50%

Where the time goes: milliseconds a step, measured and ideal, and in kernels of each kind on all threads
recipe         step  ideal time  matmul  reduction  elementwise   copy  all-reduce wait  kernels
────────────────────────────────────────────────────────────────────────────────────────────────
dcgan_digits  0.088       0.044   0.050      0.001        0.020  0.015            0.000      263

Generation: milliseconds, median (quartiles); times faster than the better PyTorch [95 % interval]
recipe                         what            jaxgen          PyTorch  times faster
────────────────────────────────────────────────────────────────────────────────────
dcgan_digits  10,000 digits sampled  10.0 (9.00–11.0)  1000 (900–1100)        100.00

Starting: seconds from the command to the end of the first step; and peak memory in MB
recipe        start, cold  start, warm  jaxgen, cold  jaxgen, warm  PyTorch  torch.compile
──────────────────────────────────────────────────────────────────────────────────────────
dcgan_digits         12.0         4.00           400           300      500          1,200

Compiling the training: seconds
recipe        jaxgen  torch.compile
───────────────────────────────────
dcgan_digits    3.21           43.2

python -m experiments.dcgan_digits, from start to end: 22.0 s, 18.0 s of them in training;
with an empty compilation cache: 25.0 s, 20.0 s of them in training.
200 epochs of training alone with PyTorch: 100 s."""  # noqa: E501


def changed(*path: str, to: Any) -> dict[str, Any]:
    """The full report with another value at this place."""
    report_ = copy.deepcopy(FULL)
    place = report_
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return report_


def test_report_contains_everything_that_was_measured() -> None:
    assert report.render(FULL) == PRINTED


def test_what_was_not_measured_has_no_table() -> None:
    quick = changed("recipes", "dcgan_digits", "profile", to={})
    quick["recipes"]["dcgan_digits"]["generation_seconds"] = quick["recipes"]["dcgan_digits"]["start_seconds"] = {}
    printed = report.render(quick)
    assert "Training: seconds an epoch" in printed
    assert "Generation" not in printed
    assert "Where the time goes" not in printed
    assert "Starting" not in printed


def test_compiling_never_takes_less_than_nothing() -> None:
    faster_at_first = changed("recipes", "dcgan_digits", "compile_seconds", "pytorch_compiled", to=-0.5)
    assert "\ndcgan_digits    3.21          0.000\n" in report.render(faster_at_first)


@pytest.mark.parametrize(("share", "said"), [(0.3, "up to 30%"), (None, "unknown")])
def test_disturbed_race_is_marked(share: float | None, said: str) -> None:
    busy = changed("recipes", "dcgan_digits", "seconds_per_epoch", "quiet", to=False)
    busy["recipes"]["dcgan_digits"]["seconds_per_epoch"]["others_share"] = [0.2, share, 0.9, 0.1]
    printed = report.render(busy)
    assert f"in: dcgan_digits, training ({said})." in printed
    assert "5.00 [4.90–5.12]*" in printed
    assert "NOT QUIET" not in PRINTED


# --- The documentation's tables ---------------------------------------------------------------------------------------


def test_committed_tables_are_generated_from_the_committed_reports() -> None:
    assert (tables.FOLDER / "tables.md").read_text() == tables.generate(tables.read_reports(tables.FOLDER)), (
        "run python -m experiments.benchmark.tables"
    )


def test_committed_reports_have_an_exact_commit() -> None:
    for made in tables.read_reports(tables.FOLDER):
        assert not made["git_commit"].endswith("+"), "measure with all changes committed"


def test_page_has_an_overview_and_the_tables_of_every_report(tmp_path: Path) -> None:
    newer = changed("versions", "jax", to="0.12.0")
    newer["recipes"]["vae_mnist"] = newer["recipes"].pop("dcgan_digits")
    newer["recipes"]["vae_mnist"]["seconds_per_epoch"]["quiet"] = False
    for name, made in {"a": newer, "b": changed("versions", "jax", to="0.9.1"), "c": FULL}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    page = tables.generate(tables.read_reports(tmp_path))
    assert (
        """
| machine | JAX | PyTorch | dcgan_digits | vae_mnist |
| :-- | --: | --: | --: | --: |
| An abacus, 2 CPUs | 0.9.1 | 2.13.0 | 5.00 [4.90–5.12] | – |
| An abacus, 2 CPUs | 0.10.2 | 2.13.0 | 5.00 [4.90–5.12] | – |
| An abacus, 2 CPUs | 0.12.0 | 2.13.0 | – | 5.00 [4.90–5.12]* |
"""
        in page
    )
    assert page.count("\n### An abacus, 2 CPUs, JAX ") == 3
    assert "\n- An abacus, 2 CPUs, avx2 amx_tile; Linux 6.1 x86_64\n" in page
    assert "\n- \\* NOT QUIET" in page
    assert "| dcgan_digits | 12.0 | 4.00 | 400 | 300 | 500 | 1,200 |" in page
    bf16 = tables.generate([{**FULL, "quick": True, "precision": "bf16"}])
    assert "\n| An abacus, 2 CPUs (`--quick --precision bf16`) | 0.10.2 |" in bf16


# --- The command's input ----------------------------------------------------------------------------------------------


def test_recipes_are_measured_once_and_in_order() -> None:
    assert benchmark.chosen(["rnn_gru", "dcgan_digits", "rnn_complete"]) == ["dcgan_digits", "rnn_lstm", "rnn_gru"]
    assert benchmark.chosen([]) == list(CASES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vae_mnits"], "there is no recipe 'vae_mnits': take some of dcgan_digits, conv_autoencoder, rnn_lstm"),
        (["--out", "."], "--out .: is a folder; name a file"),
        (["--epochs", "0"], "--epochs 0: must be 1 or more"),
        (["--epochs", "1", "--precision", "bf16"], "--precision bf16: --epochs measures in float32"),
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


def test_unknown_option_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command(monkeypatch, "--fast")
    assert "unrecognized arguments: --fast" in capsys.readouterr().err


def test_other_devices_than_the_cpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert command(monkeypatch) == 2
    assert "set JAX_PLATFORMS=cpu" in capsys.readouterr().err


def test_missing_pytorch_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert command(monkeypatch) == 2
    assert "pip install -e '.[test]'" in capsys.readouterr().err
