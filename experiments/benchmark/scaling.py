"""Speed by the number of devices or of processes, and by the batch size; what a step exchanges, and how it overlaps.

JAX's devices are fixed when JAX starts. So every number of them is measured in processes of its own, which
`python -m experiments.benchmark.scaling JOB` runs; JOB is a `Job` as JSON.
"""

import gc
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from experiments.benchmark import collectives, images, machine
from experiments.benchmark.cases import CASES, Case
from experiments.benchmark.collectives import Exchange
from experiments.benchmark.figures import spread
from experiments.benchmark.profile import profile
from experiments.benchmark.race import Jaxgen
from jaxgen import compilation
from jaxgen.data import Images

DEVICES, PROCESSES = "devices", "processes"
MOST = 32  # devices or processes; for so many batches of its own every recipe has enough images
ROUNDS = 6  # the fewest for which some may be disturbed and the others count

_ROUND_SECONDS, _FEWEST_STEPS = 0.5, 2  # of a round, at least
_PROFILED = 20  # steps, about


class Job(NamedTuple):
    """What one process measures."""

    recipe: str
    batch_sizes: Sequence[int]
    devices: int = 1  # of this process
    processes: int = 1
    process: int = 0
    coordinator: str = ""
    one_core: bool = False  # use one core alone
    rounds: int = ROUNDS


def measure(name: str, kind: str, counts: Sequence[int], rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measure a recipe on these numbers of devices, or of processes that have one each.

    The batch sizes are the recipe's own times each of the numbers. So one batch on more and more devices is strong
    scaling, and n batches on n devices are weak scaling.

    Returns:
        For each number and batch size that it can share evenly a point (`measure_batch`). Where there are several
        devices, `forecast_seconds` is what their step should take: the time of one device's share of the batch on one
        core, times the devices that a core has to serve, and the time of the exchange alone.
    """
    own = CASES[name]().config.batch_size
    batch_sizes = [own * count for count in counts]
    points = []
    for count in counts:
        shared = [size for size in batch_sizes if size % count == 0]
        jobs = [Job(name, shared, devices=count, rounds=rounds)]
        if kind == PROCESSES and count > 1:
            at = f"127.0.0.1:{_free_port()}"
            jobs = [Job(name, shared, 1, count, process, at, rounds=rounds) for process in range(count)]
        points += _run(jobs)
    shares = sorted({point["batch_size"] // point["count"] for point in points if point["count"] > 1})
    if shares and hasattr(os, "sched_setaffinity"):
        alone = _run([Job(name, shares, one_core=True, rounds=rounds)])
        seconds = {point["batch_size"]: point["seconds_per_step"]["median"] for point in alone}
        cores = len(os.sched_getaffinity(0))
        for point in points:
            if (count := point["count"]) > 1:
                share = seconds[point["batch_size"] // count]
                point["forecast_seconds"] = max(1, count / cores) * share + point["exchange_alone_seconds"]
    return points


def measure_here(job: Job) -> list[dict[str, Any]]:
    """Start JAX as the job says, and measure each of its batch sizes."""
    if job.one_core:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", job.devices)
    jax.config.update("jax_enable_compilation_cache", False)  # so that every program can be read
    others: list[psutil.Process] = []
    if job.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(job.coordinator, job.processes, job.process)
        siblings = psutil.Process(os.getppid()).children()
        others = [each for each in siblings if each.pid != os.getpid()]
    case = CASES[job.recipe]()
    return [measure_batch(case, size, jax.devices(), job.rounds, _ROUND_SECONDS, others) for size in job.batch_sizes]


def measure_batch(
    case: Case,
    batch_size: int,
    devices: Sequence[jax.Device],
    rounds: int,
    seconds: float,
    others: Sequence[psutil.Process] = (),
) -> dict[str, Any]:
    """Measure steps on devices that share every batch.

    Args:
        rounds: how often; two at least.
        seconds: the least that a round takes.
        others: the other processes of this training, which are not others that disturb it.

    Returns:
        `seconds_per_step` and whether the machine was `quiet`; what a step exchanges, counted in its compiled program
        (`exchanged_bytes` of each device, in `collectives` operations); how long these take alone; how long they take
        within the step, which is mostly waiting for the slowest device; and the share of that in which the device
        also computes (`overlapped`).
    """
    compilation.forget_programs()
    gc.collect()
    others_programs = _programs("jit__advance")  # of trainings that are still under way in this process
    ours = Jaxgen(_with_batches_of(case, batch_size), _whole_batches(case, batch_size), devices=devices)
    ours.train(1)  # compiles
    began = time.perf_counter()
    done = ours.train(_FEWEST_STEPS)
    steps = _agreed(max(_FEWEST_STEPS, math.ceil(seconds * done / (time.perf_counter() - began))))
    ours.train(steps)
    times, amounts, shares = [], [], []
    for _ in range(rounds):
        before = machine.read_cpu_times(others)
        done = ours.train(steps)
        after = machine.read_cpu_times(others)
        times.append((after.wall - before.wall) / done)
        amounts.append(done)
        shares.append(machine.share_of_others(before, after))
    judged, quiet = machine.quiet_rounds(shares)
    programs = _programs("jit__advance")
    (program,) = programs - others_programs or programs
    exchanges = collectives.in_module(program)
    spent = profile(ours, min(_PROFILED, steps))
    ours.close()
    local = sum(device.process_index == jax.process_index() for device in devices)
    return {
        "count": len(devices),
        "batch_size": batch_size,
        "seconds_per_step": spread([times[number] for number in judged]),
        "steps_per_round": round(statistics.median(amounts)),
        "others_share": shares,
        "judged_rounds": judged,
        "quiet": quiet,
        "exchanged_bytes": sum(each.operand_bytes * each.times for each in exchanges),
        "collectives": sum(each.times for each in exchanges),
        "exchange_alone_seconds": exchange_alone(exchanges, devices, seconds) if exchanges else 0.0,
        "exchange_seconds": spent["seconds_per_step"]["all-reduce wait"] / local,
        "overlapped": spent["overlapped"],
    }


def exchange_alone(exchanges: Sequence[Exchange], devices: Sequence[jax.Device], seconds: float) -> float:
    """Measure the seconds of a step's all-reduces, one after the other, without any other work."""
    lengths = [each.operand_bytes // 4 for each in exchanges for _ in range(each.times)]

    def repeat(times: jax.Array) -> jax.Array:
        def all_reduces(_: int, value: jax.Array) -> jax.Array:
            for length in lengths:  # each depends on the one before it and on the device, so XLA can omit none
                value = lax.psum(jnp.full(length, value + lax.axis_index("all")), "all")[0] / len(devices)
            return value

        last: jax.Array = lax.fori_loop(0, times, all_reduces, jnp.zeros(()))
        return last

    mesh = jax.make_mesh((len(devices),), ("all",), axis_types=(AxisType.Auto,), devices=devices)
    everywhere = PartitionSpec()
    shared = jax.shard_map(repeat, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    run: Callable[[np.int32], jax.Array] = jax.jit(shared)

    def per_step(times: int) -> float:
        began = time.perf_counter()
        run(np.int32(times)).block_until_ready()
        return (time.perf_counter() - began) / times

    per_step(1)  # compiles
    times = _agreed(max(1, math.ceil(seconds / per_step(3))))
    return min(per_step(times) for _ in range(3))


def _agreed(number: int) -> int:
    """The number of the first process, for all of them."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def _with_batches_of(case: Case, batch_size: int) -> Case:
    return case._replace(config=case.config.replace(batch_size=batch_size))


def _whole_batches(case: Case, batch_size: int) -> Images:
    """The training images without those of a smaller last batch, which has a program of its own."""
    loaded = images.load(case.config, case.shape)
    examples = case.source(loaded).size // len(loaded.images)  # of an image
    of_whole_batches = batch_size // math.gcd(batch_size, examples)
    count = len(loaded.images) // of_whole_batches * of_whole_batches
    return loaded._replace(images=loaded.images[:count], labels=loaded.labels[:count])


def _programs(name: str) -> set[str]:
    """The texts of the compiled modules of that name that JAX holds."""
    executables = jax.local_devices()[0].client.live_executables()
    return {module.to_string() for each in executables for module in each.hlo_modules() if module.name == name}


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _run(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Run processes of one training and return what the first one prints.

    Raises:
        RuntimeError: one of them failed, with what it said; the others are then ended.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = []
        for number, job in enumerate(jobs):
            command = [sys.executable, "-m", "experiments.benchmark.scaling", json.dumps(job._asdict())]
            with Path(folder, f"{number}.out").open("w") as out, Path(folder, f"{number}.err").open("w") as err:
                running.append(subprocess.Popen(command, stdout=out, stderr=err))
        try:
            while (states := [process.poll() for process in running]).count(None) and not any(states):
                time.sleep(0.1)
        finally:
            for process in running:
                process.kill()
                process.wait()
        for number, state in enumerate(states):
            if state:
                said = Path(folder, f"{number}.err").read_text().strip()
                raise RuntimeError(f"{jobs[number].recipe}: process {number} of {len(jobs)} failed: {said or state}")
        points: list[dict[str, Any]] = json.loads(Path(folder, "0.out").read_text().splitlines()[-1])
        return points


if __name__ == "__main__":
    measured = measure_here(Job(**json.loads(sys.argv[1])))
    if jax.process_index() == 0:
        print(json.dumps(measured))
