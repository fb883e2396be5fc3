"""python -m experiments.benchmark [RECIPE …]: what is measured, in which order. The package says how."""

import dataclasses
import importlib.util
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import jax
import tyro
from jaxgen.command import parse, provide_cpu_devices, say_why
from jaxgen.run import git_commit, write_json

from experiments.benchmark import processes, report
from experiments.benchmark.cases import CASES, GROUPS
from experiments.benchmark.figures import spread
from experiments.benchmark.floor import floor, matmul_rate
from experiments.benchmark.images import at_hand, load
from experiments.benchmark.profile import profile
from experiments.benchmark.race import COMPILED, EAGER, OURS, Effort, Jaxgen, PyTorch, race_generation, race_training
from jaxgen import data
from jaxgen.errors import InputError

QUICK = Effort(rivals=(EAGER,), rounds=6, training=0.25, products=2, generating_rounds=0, profiled=0, starts=0)


@dataclasses.dataclass(frozen=True)
class Options:
    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE …")] = ()
    """What to measure, of dcgan_digits, conv_autoencoder, rnn_lstm, rnn_gru, rnn_complete (both), dcgan_mnist and
    vae_mnist; without names, everything."""
    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Rough figures of training alone: fewer and shorter turns, and no torch.compile."""
    epochs: int | None = None
    """Not how fast, but how well: train both for so many epochs and print what they have come to, epoch by epoch."""
    out: Path = Path("runs/benchmark.json")
    """The file for all figures."""

    module = "experiments.benchmark"


def main(options: Options) -> None:
    """Measure how fast the recipes train and generate here, beside PyTorch."""
    names = chosen(options.recipes)
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, and it is what we race against: pip install -e '.[test]'")
    provide_cpu_devices(max((CASES[name]().config for name in names), key=lambda config: config.cpu_devices))
    if jax.default_backend() != "cpu":
        raise InputError("PyTorch races on the CPU here, and JAX would not: JAX_PLATFORMS=cpu makes it fair")
    if options.out.is_dir():
        raise InputError(f"--out {options.out}: is a folder; name a file")
    if options.epochs is not None and options.epochs < 1:
        raise InputError(f"--epochs {options.epochs}: one at least")
    without_caches()
    effort = QUICK if options.quick else Effort()
    figures: dict[str, Any] = {**surroundings(), "quick": options.quick, "recipes": {}}
    write_json(options.out, figures)  # if it cannot be written, that is better known now
    if options.epochs is not None:
        for name in names:
            figures["recipes"][name] = {"epochs": []}
            for epoch in learn(name, options.epochs):
                figures["recipes"][name]["epochs"].append(epoch)
                write_json(options.out, figures)
        print(f"{report.machine(figures)}\n\n{report.quality(figures['recipes'])}\n\n{options.out}")
        return
    for name in names:
        figures["recipes"][name] = measure(name, effort)
        if name == "dcgan_digits" and effort.starts:
            figures["whole_command"] = whole_command(figures["recipes"][name])
        write_json(options.out, figures)
    print(report.render(figures))
    print(f"\n{options.out}")


def chosen(recipes: Sequence[str]) -> list[str]:
    """The cases that these names stand for, each once, in the table's order."""
    wanted = [case for name in recipes or CASES for case in GROUPS.get(name, [name])]
    if unknown := [name for name in wanted if name not in CASES]:
        raise InputError(f"there is no recipe {unknown[0]!r}: take some of {', '.join([*CASES, *GROUPS])}")
    return [name for name in CASES if name in wanted]


def measure(name: str, effort: Effort) -> dict[str, Any]:
    """All figures of one recipe."""
    case = CASES[name]()
    images = load(case.config.data, size=case.shape[:2], channels=case.shape[2])
    floats = case.floats(images)
    ours = Jaxgen(case, images, seconds=min(0.5, effort.training))
    rivals = {rival: PyTorch(name, floats, compile=rival == COMPILED) for rival in effort.rivals}

    say(name, "training")
    rate = matmul_rate(effort.products)
    training = race_training(ours, rivals, effort)
    least = floor(ours.recipe, ours.source, ours.batch_size, max(rate, matmul_rate(effort.products)))
    generation: dict[str, Any] = {}
    if effort.generating_rounds:
        say(name, "generating")
        generation = race_generation(ours, rivals, case.given(floats), effort)
    spent: dict[str, Any] = {}
    if effort.profiled:
        say(name, "profiling")
        spent = profile(ours, min(effort.profiled, training["steps_per_turn"]))
    starts: dict[str, Any] = {}
    peaks: dict[str, dict[str, int]] = {}
    if effort.starts:
        say(name, "starting")
        starts = processes.measure_starts(case.command, effort.starts)
        say(name, "memory")
        ten_batches = (10 * case.config.batch_size, *case.shape)
        theirs = {rival: {"cold": processes.measure_memory(rival, name, ten_batches)} for rival in effort.rivals}
        peaks = {OURS: processes.measure_our_memory(name, ten_batches), **theirs}

    what = f"{case.config.data} {'×'.join(map(str, case.shape))}"
    return {
        "data": what if at_hand(case.config.data) else f"random, as {what}",
        "batch_size": case.config.batch_size,
        **training,
        "floor": {**least, "share_reached": least["seconds_per_epoch"] / training["seconds_per_epoch"][OURS]["median"]},
        "profile": spent,
        "generated": case.generated,
        "generation_seconds": generation,
        "start_seconds": {kind: spread(seconds) for kind, seconds in starts.items()},
        "peak_bytes": peaks,
    }


def learn(name: str, epochs: int) -> Iterator[dict[str, Any]]:
    """Of every epoch, each system's mean metrics and the seconds that it took, on real images only; they take turns.

    They start from weights of their own and see the images in orders of their own, so the figures should be alike, not
    equal.
    """
    case = CASES[name]()
    images = data.load(case.config.data, size=case.shape[:2], channels=case.shape[2])
    rival = PyTorch(name, case.floats(images), compile=False)
    systems = {OURS: Jaxgen(case, images).epoch, EAGER: rival.training.epoch}
    for epoch in range(1, epochs + 1):
        say(name, f"epoch {epoch}")
        learned = {}
        for system, train in systems.items():
            began = time.perf_counter()
            learned[system] = {**train(), "seconds": time.perf_counter() - began}
        yield learned


def whole_command(figures: dict[str, Any]) -> dict[str, Any]:
    """dcgan_digits as its users run it, from start to last picture; and PyTorch's training for as many epochs."""
    say("dcgan_digits", "the whole command")
    case, epoch = CASES["dcgan_digits"](), figures["seconds_per_epoch"]
    return {
        "command": f"python -m {' '.join(case.command)}",
        "seconds": processes.measure_command(case.command),
        "epochs": case.config.epochs,
        "pytorch_training_seconds": case.config.epochs * epoch[epoch["best_rival"]]["median"],
    }


def without_caches() -> None:
    """Both systems keep what they compiled on the disk; here compiling is measured too."""
    import torch

    jax.config.update("jax_enable_compilation_cache", False)
    torch.compiler.config.force_disable_caches = True
    warnings.filterwarnings("ignore", "dynamo_pgo force disabled", UserWarning)  # it would say so


def say(name: str, what: str) -> None:
    print(f"{name}: {what} …", file=sys.stderr, flush=True)


def surroundings() -> dict[str, Any]:
    """When, on what and with what."""
    import torch

    packages = ["jax", "jaxlib", "flax", "optax", "torch", "numpy"]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "git_commit": git_commit(),
        "machine": {
            "processor": processor(),
            "load_before": os.getloadavg()[0],
            "cpus": os.cpu_count(),
            "pytorch_threads": torch.get_num_threads(),
            "jax_device": jax.devices()[0].device_kind,
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def processor() -> str:
    """The processor's name, as Linux knows it, or what kind it is."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run() -> int:
    """The command -> its exit status: 0; 2 for bad input; 1 where the disk or the numbers gave out; 130 for Ctrl-C."""
    try:
        # `parse` asks no more of a configuration than its `module`.
        main(parse(cast(Any, Options()), main.__doc__ or "", sys.argv[1:]))
    except InputError as error:
        return say_why(error, 2)
    except (OSError, FloatingPointError) as error:
        return say_why(error, 1)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
