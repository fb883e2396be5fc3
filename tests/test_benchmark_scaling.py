"""Several devices in the benchmark: what is counted, measured and projected. No test here asserts a time."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import collectives, ideal, images, profile, projection, report, scaling
from experiments.benchmark.cases import CASES
from experiments.benchmark.collectives import Exchange
from experiments.benchmark.projection import Machine, Work
from jaxgen.errors import InputError

ROOT = Path(__file__).parents[1]


# --- Collective operations --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> jax.stages.Traced:
    """A loop over steps on two devices, in which every operation occurs, and a loop of three all-reduces."""

    def step(_: int, values: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, y = values
        x = lax.fori_loop(0, 3, lambda _, x: lax.psum(1.5 * x, "all"), x)
        y = lax.all_gather(y, "all")[0] * lax.ppermute(y, "all", [(0, 1), (1, 0)])
        x = x * lax.psum_scatter(x, "all", tiled=True).sum()
        return lax.psum((x, y), "all")

    def steps(x: jax.Array, y: jax.Array, stop: int) -> tuple[jax.Array, jax.Array]:
        return lax.fori_loop(0, stop, step, (x, y))

    mesh = jax.make_mesh((2,), ("all",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    shared = jax.shard_map(steps, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(), check_vma=False)
    return jax.jit(shared).trace(jnp.ones(4), jnp.ones(6), 5)


def test_collective_operations_of_a_step_are_counted_in_its_compiled_module(program: jax.stages.Traced) -> None:
    text = program.lower().compile().as_text() or ""
    counted = collectives.in_module(text)
    assert sorted(counted) == [
        Exchange("all-gather", 24, 1),
        Exchange("all-reduce", 16, 3),
        Exchange("all-reduce", 16 + 24, 1),
        Exchange("collective-permute", 24, 1),
        Exchange("reduce-scatter", 16, 1),
    ]
    with pytest.raises(ValueError, match="loop of an unknown number of iterations"):
        collectives.in_module(text.replace("known_trip_count", "estimated"))


def test_all_reduces_of_a_step_are_counted_in_its_trace(program: jax.stages.Traced) -> None:
    counted = collectives.in_jaxpr(program.jaxpr.jaxpr)
    assert sum(each.operand_bytes * each.times for each in counted) == 3 * 16 + 16 + 24


def test_operations_in_branches_and_in_two_halves_are_counted_once() -> None:
    module = """
%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}
%one (p: bf16[3]) -> bf16[3] {
  %p = bf16[3]{0} parameter(0)
  %start = (bf16[3]{0}, bf16[3]{0}) all-reduce-start(%p), channel_id=1, replica_groups={{0,1}}, to_apply=%sum
  ROOT %done = bf16[3]{0} all-reduce-done(%start)
}
%other (q: bf16[3]) -> bf16[3] {
  %q = bf16[3]{0} parameter(0)
  ROOT %gather = bf16[6]{0} all-gather(%q), channel_id=2, replica_groups={{0,1}}, dimensions={0}
}
ENTRY %main (which: s32[], x: bf16[3]) -> bf16[3] {
  %which = s32[] parameter(0)
  %x = bf16[3]{0} parameter(1)
  ROOT %chosen = bf16[3]{0} conditional(%which, %x, %x), branch_computations={%one, %other}
}
"""
    assert collectives.in_module(module) == [Exchange("all-reduce", 6, 1), Exchange("all-gather", 6, 1)]


def test_overlap_is_the_time_in_which_both_are_under_way() -> None:
    assert profile.united([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0)]) == [(0.0, 3.0), (5.0, 6.0)]
    assert profile.overlap([(0.0, 4.0), (6.0, 8.0)], [(1.0, 2.0), (1.5, 3.0), (7.0, 9.0)]) == 2.0 + 1.0
    assert profile.overlap([(0.0, 1.0)], [(1.0, 2.0)]) == 0.0


# --- Measuring --------------------------------------------------------------------------------------------------------


def test_measured_step_exchanges_its_gradients_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "load", lambda config, shape: images.random_images((130, *shape)))
    case = CASES["conv_autoencoder"]()
    point = scaling.measure_batch(case, 60, jax.devices()[:2], rounds=2, seconds=0.01)
    assert (point["count"], point["batch_size"]) == (2, 60)
    assert point["seconds_per_step"]["median"] > 0
    assert point["steps_per_round"] >= 2
    assert len(point["others_share"]) == 2
    assert point["exchange_seconds"] > 0
    assert point["exchange_alone_seconds"] > 0
    assert 0 <= point["overlapped"] <= 1
    source = case.source(images.random_images((60, *case.shape)))
    work = projection.work_of("it", case.recipe, source, 60)
    parameters = jax.eval_shape(lambda: case.recipe.variables(case.recipe.init(jax.random.key(0))))["params"]
    assert point["exchanged_bytes"] == work.exchanged_bytes
    assert work.exchanged_bytes == 4 * (2 + sum(leaf.size for leaf in jax.tree.leaves(parameters)))  # two of the loss
    assert point["collectives"] == len(work.exchanges) == 1
    assert work.flops == 2 * ideal.multiply_adds(case.recipe, source, 60)
    assert work.launches == 3 * 4 - 1  # of four layers, without the gradient for the images


def a_point(job: scaling.Job, batch_size: int) -> dict[str, Any]:
    """A point whose step takes a second for each example of a device."""
    seconds = batch_size / (job.devices * job.processes)
    return {
        "count": job.devices * job.processes,
        "batch_size": batch_size,
        "seconds_per_step": {"median": seconds},
        "quiet": True,
        "exchanged_bytes": 1500,
        "collectives": 3,
        "exchange_alone_seconds": 0.5,
        "exchange_seconds": 0.75,
        "overlapped": 0.25 if job.devices * job.processes > 1 else None,
    }


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[scaling.Job]]:
    """The processes that would be started together; instead they return made-up points."""
    started: list[list[scaling.Job]] = []

    def run(jobs: list[scaling.Job]) -> list[dict[str, Any]]:
        started.append(jobs)
        return [a_point(jobs[0], size) for size in jobs[0].batch_sizes]

    monkeypatch.setattr(scaling, "_run", run)
    monkeypatch.setattr(scaling.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.setattr(scaling.os, "sched_setaffinity", None, raising=False)
    return started


@pytest.mark.parametrize("kind", [scaling.DEVICES, scaling.PROCESSES])
def test_batches_that_can_be_shared_are_measured_and_forecast(kind: str, jobs: list[list[scaling.Job]]) -> None:
    points = scaling.measure("conv_autoencoder", kind, [1, 2, 4], rounds=2)
    sizes = [(point["count"], point["batch_size"]) for point in points]
    assert sizes == [(1, 50), (1, 100), (1, 200), (2, 50), (2, 100), (2, 200), (4, 100), (4, 200)]
    assert "forecast_seconds" not in points[0]
    assert points[4]["forecast_seconds"] == 100 / 2 + 0.5  # each device has a core
    assert points[7]["forecast_seconds"] == 2 * 200 / 4 + 0.5  # a core serves two
    assert [len(together) for together in jobs] == [1, 2, 4, 1] if kind == scaling.PROCESSES else [1, 1, 1, 1]
    of_four = jobs[2]
    assert len({job.coordinator for job in of_four}) == 1
    assert [job.process for job in of_four] == list(range(len(of_four)))
    assert jobs[-1][0].one_core
    assert jobs[-1][0].batch_sizes == [25, 50, 100]


def test_processes_find_each_other_and_the_first_one_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    at = f"127.0.0.1:{scaling._free_port()}"
    assert scaling._run([scaling.Job("vae_mnist", [], 1, 2, process, at) for process in range(2)]) == []


def test_process_that_fails_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(RuntimeError, match=r"nothing: process 0 of 1 failed: [\s\S]*KeyError: 'nothing'"):
        scaling._run([scaling.Job("nothing", [])])


@pytest.mark.parametrize("name", ["rnn_gru", "dcgan_digits"])
def test_epochs_have_whole_batches_up_to_the_most_devices(name: str) -> None:
    case = CASES[name]()
    for count in (3, scaling.MOST):
        batch_size = count * case.config.batch_size
        source = case.source(scaling._whole_batches(case, batch_size))
        assert source.size >= batch_size
        assert source.size % batch_size == 0


# --- The command ------------------------------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    return benchmark.run()


def test_command_prints_a_row_for_each_number_and_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], jobs: list[list[scaling.Job]]
) -> None:
    monkeypatch.setattr(benchmark, "warn_if_busy", lambda: None)
    out = tmp_path / "figures.json"
    assert command(monkeypatch, "conv_autoencoder", "--devices", "2", "--quick", "--out", str(out)) == 0
    (made,) = projection.read_reports(tmp_path)
    assert made["command"] == "python -m experiments.benchmark conv_autoencoder --quick --devices 2"
    assert [job.rounds for together in jobs for job in together] == [2, 2, 2]
    made["devices"]["conv_autoencoder"][2]["quiet"] = False
    printed = capsys.readouterr().out
    assert (
        """
recipe            devices  batch    step  examples/s  forecast  exchanged, kB  collectives  alone  within the step  overlapped
──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
conv_autoencoder        1     50   50000           1         –              –            –      –                –           –
conv_autoencoder        1    100  100000           1         –              –            –      –                –           –
conv_autoencoder        2     50   25000           2     25500            1.5            3    500              750         25%
conv_autoencoder        2    100   50000           2     50500            1.5            3    500              750         25%
All devices share the"""  # noqa: E501
        in printed
    )
    assert "Steps take 0.99 (0.98–0.99) times the forecast" in printed
    assert "NOT QUIET" not in printed
    page = projection.generate([WORK], [made])
    assert "`. Steps take 0.99 (0.98–0.99) times the forecast" in page
    assert "| conv_autoencoder | 1 | 50 | 50000 |" in page
    assert "| conv_autoencoder | 2 | 100 | 50000 |" in page
    assert "| conv_autoencoder | 1 | 100 |" not in page  # neither the recipe's own batch nor one for each device
    disturbed = report.scaling(made, "devices")
    assert " 25000* " in disturbed
    assert "* NOT QUIET" in disturbed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "1", "0"], "--devices 0: must be from 1 to 32"),
        (["--processes", "33"], "--processes 33: must be from 1 to 32"),
        (["--devices", "2", "--processes", "2"], "--devices and --processes: measure one at a time"),
        (["--epochs", "1", "--many", "2"], "--epochs and --many: measure one at a time"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


# --- The projection ---------------------------------------------------------------------------------------------------

WORK = Work("a network", 64, flops=64e9, launches=10, exchanges=(4000, 4_000_000))
MACHINE = Machine(
    "a machine",
    most=16,
    peak=2e12,
    achieved=1e12,
    memory=1e12,
    launch=1e-5,
    link=1e9,
    latency=1e-5,
    hop=1e-6,
    hops=lambda count: 2 * (count - 1),
    sources="none",
)
FREE = MACHINE._replace(launch=0.0, memory=math.inf, link=math.inf, latency=0.0, hop=0.0)  # all but the arithmetic


def test_step_on_one_device_is_its_work_alone() -> None:
    expected = 10e-5 + 7 * 4_004_000 / 1e12 + 64e-3
    assert projection.step_seconds(WORK, MACHINE, 1) == pytest.approx(expected)
    assert projection.step_seconds(WORK, MACHINE, 1, overlapped=True) == pytest.approx(expected)
    assert projection.weak_efficiency(WORK, MACHINE, 1) == projection.speed_up(WORK, MACHINE, 1) == 1


def test_exchange_is_that_of_a_ring() -> None:
    together = projection.step_seconds(WORK, MACHINE, 4, 4 * 64) - projection.step_seconds(WORK, MACHINE, 1)
    assert together == pytest.approx(2 * (1e-5 + 6e-6) + 2 * 3 / 4 * 4_004_000 / 1e9)


def test_without_costs_devices_are_used_completely() -> None:
    assert projection.weak_efficiency(WORK, FREE, 16) == pytest.approx(1)
    assert projection.speed_up(WORK, FREE, 16) == pytest.approx(16)
    assert projection.fastest(WORK, FREE) == 16
    assert projection.limit(WORK, FREE) == "arithmetic"


def test_without_links_devices_cannot_gain() -> None:
    cut = FREE._replace(link=1.0)
    assert projection.speed_up(WORK, cut, 16) < 1e-3
    assert projection.fastest(WORK, cut) == 1
    assert projection.limit(WORK, cut) == "links"
    assert projection.limit(WORK, FREE._replace(launch=1.0)) == "launches"


def test_hidden_exchange_is_a_bound() -> None:
    shown, hidden = (projection.speed_up(WORK, MACHINE, 16, overlapped=overlapped) for overlapped in (False, True))
    assert shown < hidden < 16
    spent = projection.parts(WORK, MACHINE, 16, 64)
    exchange = spent.pop("latency") + spent.pop("links")
    assert projection.step_seconds(WORK, MACHINE, 16, overlapped=True) == pytest.approx(max(exchange, *spent.values()))


def test_only_divisors_of_the_batch_can_share_it() -> None:
    assert projection.sharing(WORK._replace(batch_size=30), MACHINE) == [1, 2, 3, 5, 6, 10, 15]


def test_half_efficient_batch_uses_half_of_the_devices() -> None:
    batch = projection.half_efficient_batch(WORK, MACHINE)
    for size, reached in ((batch - 1, False), (batch, True)):
        one, all_ = (projection.step_seconds(WORK, MACHINE, count, size) for count in (1, 16))
        assert (one / (16 * all_) >= 0.5) == reached


def test_one_device_cannot_be_traced_for_what_it_exchanges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    with pytest.raises(InputError, match="set JAX_NUM_CPU_DEVICES=2"):
        projection.recipes()


def test_committed_projections_are_generated_and_agree_with_the_committed_measurements() -> None:
    works, measured = projection.recipes(), projection.read_reports(projection.MEASURED)
    made = projection.generate([*works, *projection.larger_networks()], measured)
    assert made == projection.FILE.read_text(), "run python -m experiments.benchmark.projection"
    exchanged = {work.name: work.exchanged_bytes for work in works}
    for written in measured:
        for name, points in (written.get("devices") or written["processes"]).items():
            for point in points:
                assert point["exchanged_bytes"] == (exchanged[name] if point["count"] > 1 else 0)
