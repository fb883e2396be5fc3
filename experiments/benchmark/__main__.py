"""The command `python -m experiments.benchmark [RECIPE …]`; the package's docstring says what it measures and how."""

import argparse
import contextlib
import importlib.util
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import jax

from experiments.benchmark import images, machine, processes, report, scaling, streaming
from experiments.benchmark.cases import CASES, GROUPS, Case, Precision
from experiments.benchmark.figures import spread
from experiments.benchmark.ideal import ideal_time, matmul_rate
from experiments.benchmark.profile import profile
from experiments.benchmark.race import (
    COMPILED,
    EAGER,
    OURS,
    Effort,
    Jaxgen,
    PyTorch,
    race_generation,
    race_many,
    race_training,
)
from jaxgen import data
from jaxgen.durable import write_json
from jaxgen.errors import InputError
from jaxgen.runs.devices import provide_cpu_devices

MOST_ON_CPU = 8  # models at once
MODES = (
    "epochs",
    "many",
    scaling.DEVICES,
    scaling.PROCESSES,
    "streaming",
)  # options that measure something else than the races
QUICK = Effort((EAGER,), rounds=6, longest=60.0, training=0.5, products=2, generating_rounds=0, profiled=0, starts=0)


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; for what argparse cannot parse it exits with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark",
        description="Measure how fast the recipes train and generate, beside PyTorch.",
    )
    names = ", ".join([*CASES, *GROUPS])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {names} (both cells); all unless given")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="measure training only, with fewer and shorter turns and without torch.compile: about four minutes in all",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="float32",
        help="bf16: multiply in bfloat16, PyTorch with torch.autocast; only training is measured (%(default)s)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="compare quality instead of speed: train both systems for so many epochs and print their metrics",
    )
    parser.add_argument(
        "--many",
        type=int,
        metavar="COUNT",
        help=f"train so many models at once and one after the other, by ours alone; on the CPU at most {MOST_ON_CPU}, "
        "because there they share its cores and hardly gain",
    )
    for kind, what in (
        (scaling.DEVICES, "CPU devices of one process"),
        (scaling.PROCESSES, "processes on this machine"),
    ):
        parser.add_argument(
            f"--{kind}",
            type=int,
            nargs="+",
            metavar="N",
            help=f"train on so many {what}: measure a step by their number and by the batch size, what it exchanges, "
            "and how much of that overlaps with computing; ours alone",
        )
    parser.add_argument(
        "--streaming",
        type=int,
        nargs="?",
        const=streaming.COUNT,
        metavar="IMAGES",
        help=f"train conv_autoencoder on so many images of 56×56, by default {streaming.COUNT:,}, from memory and from "
        "disk: speed and peak memory; ours alone",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmark.json"), help="the JSON file for all figures (%(default)s)"
    )
    return parser.parse_args(arguments)


def main(options: argparse.Namespace) -> None:
    """Measure how fast the recipes train and generate, beside PyTorch."""
    names = chosen(options.recipes)
    if len(modes := [mode for mode in MODES if getattr(options, mode) is not None]) > 1:
        raise InputError(f"--{modes[0]} and --{modes[1]}: measure one at a time")
    if modes and options.precision != "float32":
        raise InputError(f"--precision {options.precision}: --{modes[0]} measures in float32")
    if options.streaming is not None:
        measure_streaming(options)
        return
    if importlib.util.find_spec("torch") is None:
        raise InputError("PyTorch is not installed, and the benchmark compares with it: pip install -e '.[test]'")
    if options.many is not None:
        compare_many(names, options)
        return
    for kind in (scaling.DEVICES, scaling.PROCESSES):
        if getattr(options, kind) is not None:
            measure_scaling(names, kind, options)
            return
    provide_cpu_devices(max((CASES[name]().config for name in names), key=lambda config: config.cpu_devices))
    if jax.default_backend() != "cpu":
        raise InputError("the benchmark compares both systems on the CPU: set JAX_PLATFORMS=cpu")
    if options.out.is_dir():
        raise InputError(f"--out {options.out}: is a folder; name a file")
    if options.epochs is not None and options.epochs < 1:
        raise InputError(f"--epochs {options.epochs}: must be 1 or more")
    disable_caches()
    figures = {**surroundings(options), "recipes": {}}
    write_json(options.out, figures)  # now, to fail before measuring if the file cannot be written
    if options.epochs is not None:
        compare_quality(names, options.epochs, figures, options.out)
        print(f"{report.description(figures)}\n\n{report.learned(figures['recipes'])}\n\n{options.out}")
        return
    warn_if_busy()
    effort = QUICK if options.quick else Effort()
    if options.precision != "float32":
        effort = effort._replace(generating_rounds=0, profiled=0, starts=0)
    for name in names:
        figures["recipes"][name] = measure(name, effort, options.precision)
        if name == "dcgan_digits" and effort.starts:
            figures["whole_command"] = whole_command(figures["recipes"][name])
        write_json(options.out, figures)
    print(f"{report.render(figures)}\n\n{options.out}")


def compare_many(names: Sequence[str], options: argparse.Namespace) -> None:
    """Measure how fast several models train at once, beside as many one after the other."""
    provide_cpu_devices(max((CASES[name]().config for name in names), key=lambda config: config.cpu_devices))
    most = MOST_ON_CPU if jax.default_backend() == "cpu" else 1024
    if not 2 <= options.many <= most:
        raise InputError(f"--many {options.many}: must be from 2 to {most} on this device")
    disable_jax_cache()
    warn_if_busy()
    figures = {**surroundings(options), "many": {}}
    for name in names:
        case = CASES[name]()
        training_images = images.load(case.config, case.shape)
        say(name, f"{options.many} models")
        with (
            contextlib.closing(Jaxgen(case, training_images, options.many)) as at_once,
            contextlib.closing(Jaxgen(case, training_images)) as one,
        ):
            figures["many"][name] = race_many(at_once, one, options.many, QUICK if options.quick else Effort())
        write_json(options.out, figures)
    print(f"{report.aligned(report.many(figures['many']))}\n\n{options.out}")


def measure_scaling(names: Sequence[str], kind: str, options: argparse.Namespace) -> None:
    """Measure steps by the number of devices or of processes, and by the batch size."""
    counts = sorted({1, *getattr(options, kind)})
    if not 1 <= counts[0] <= counts[-1] <= scaling.MOST:
        wrong = counts[0] if counts[0] < 1 else counts[-1]
        raise InputError(f"--{kind} {wrong}: must be from 1 to {scaling.MOST}")
    warn_if_busy()
    figures: dict[str, Any] = {**surroundings(options), kind: {}}
    write_json(options.out, figures)
    for name in names:
        say(name, f"{', '.join(map(str, counts))} {kind}")
        figures[kind][name] = scaling.measure(name, kind, counts, 2 if options.quick else scaling.ROUNDS)
        write_json(options.out, figures)
    print(f"{report.scaling(figures, kind)}\n\n{options.out}")


def measure_streaming(options: argparse.Namespace) -> None:
    """Measure a training whose images come from disk, beside the same from memory."""
    if options.streaming < streaming.FEWEST:
        raise InputError(f"--streaming {options.streaming}: must be {streaming.FEWEST} or more")
    warn_if_busy()
    figures: dict[str, Any] = surroundings(options)
    write_json(options.out, figures)
    figures["streaming"] = streaming.measure(options.streaming)
    write_json(options.out, figures)
    print("\n".join([*streaming.lines(figures["streaming"]), "", str(options.out)]))


def chosen(recipes: Sequence[str]) -> list[str]:
    """Return the cases that the names stand for, each once, in the order of the tables."""
    wanted = [case for name in recipes or CASES for case in GROUPS.get(name, [name])]
    if unknown := [name for name in wanted if name not in CASES]:
        raise InputError(f"there is no recipe {unknown[0]!r}: take some of {', '.join([*CASES, *GROUPS])}")
    return [name for name in CASES if name in wanted]


def measure(name: str, effort: Effort, precision: Precision) -> dict[str, Any]:
    """Measure everything about one recipe."""
    case = CASES[name]()
    case = case._replace(config=case.config.replace(precision=precision))
    training_images = images.load(case.config, case.shape)
    floats = case.floats(training_images)
    ours = Jaxgen(case, training_images)
    rivals = {rival: PyTorch(name, floats, compile=rival == COMPILED, precision=precision) for rival in effort.rivals}

    say(name, "training")
    rate = matmul_rate(effort.products, precision)
    training = race_training(ours, rivals, effort)
    ideal = ideal_time(ours.recipe, ours.source, ours.batch_size, max(rate, matmul_rate(effort.products, precision)))
    utilisation = ideal["seconds_per_epoch"] / training["seconds_per_epoch"][OURS]["median"]
    generation: dict[str, Any] = {}
    if effort.generating_rounds:
        say(name, "generating")
        generation = race_generation(ours, rivals, case.given(floats), effort)
    spent: dict[str, Any] = {}
    if effort.profiled:
        say(name, "profiling")
        spent = profile(ours, min(effort.profiled, training["steps_per_turn"]))
    ours.close()

    what = f"{case.config.data} {'×'.join(map(str, case.shape))}"
    return {
        "data": what if images.is_available(case.config.data) else f"random, as {what}",
        "batch_size": case.config.batch_size,
        **training,
        "ideal": {**ideal, "matmul_utilisation": utilisation},
        "profile": spent,
        "generated": case.generated,
        "generation_seconds": generation,
        **measure_processes(name, case, effort),
    }


def measure_processes(name: str, case: Case, effort: Effort) -> dict[str, Any]:
    """Measure start-up and peak memory, in processes of their own."""
    if not effort.starts:
        return {"start_seconds": {}, "peak_bytes": {}}
    ten_batches = (10 * case.config.batch_size, *case.shape)
    say(name, "starting")
    with tempfile.TemporaryDirectory() as folder:
        command = case.command
        if not images.is_available(case.config.data):
            images.write_random_images(Path(folder), ten_batches)
            command = (*command, "--data", f"folder:{folder}")
        starts = processes.measure_starts(command, effort.starts)
    say(name, "memory")
    theirs = {rival: {"cold": processes.measure_memory(rival, name, ten_batches)} for rival in effort.rivals}
    return {
        "start_seconds": {kind: spread(seconds) for kind, seconds in starts.items()},
        "peak_bytes": {OURS: processes.measure_our_memory(name, ten_batches), **theirs},
    }


def compare_quality(names: Sequence[str], epochs: int, figures: dict[str, Any], out: Path) -> None:
    """Train both systems for some epochs and write their metrics into the figures after every epoch."""
    for name in names:
        figures["recipes"][name] = {"epochs": []}
        for epoch in learn(name, epochs):
            figures["recipes"][name]["epochs"].append(epoch)
            write_json(out, figures)


def learn(name: str, epochs: int) -> Iterator[dict[str, Any]]:
    """Yield after every epoch each system's mean metrics and the seconds it took, on real images only.

    The systems take turns. They start from weights of their own and see the images in orders of their own, so the
    metrics should be alike, not equal.
    """
    case = CASES[name]()
    training_images = data.load(case.config.data, size=case.shape[:2], channels=case.shape[2])
    rival = PyTorch(name, case.floats(training_images), compile=False)
    with contextlib.closing(Jaxgen(case, training_images)) as ours:
        systems = {OURS: ours.epoch, EAGER: rival.training.epoch}
        for epoch in range(1, epochs + 1):
            say(name, f"epoch {epoch}")
            learned = {}
            for system, train in systems.items():
                began = time.perf_counter()
                learned[system] = {**train(), "seconds": time.perf_counter() - began}
            yield learned


def whole_command(figures: dict[str, Any]) -> dict[str, Any]:
    """Measure dcgan_digits as its users run it, from start to end; beside it PyTorch's training for as many epochs."""
    say("dcgan_digits", "the whole command")
    case, epoch = CASES["dcgan_digits"](), figures["seconds_per_epoch"]
    return {
        "command": f"python -m {' '.join(case.command)}",
        "seconds": processes.measure_command(case.command),
        "epochs": case.config.epochs,
        "pytorch_training_seconds": case.config.epochs * epoch[epoch["best_rival"]]["median"],
    }


def disable_caches() -> None:
    """Both systems keep compiled programs on disk; here compilation is measured too."""
    import torch

    disable_jax_cache()
    torch.compiler.config.force_disable_caches = True
    warnings.filterwarnings("ignore", "dynamo_pgo force disabled", UserWarning)  # a consequence of the line above


def disable_jax_cache() -> None:
    jax.config.update("jax_enable_compilation_cache", False)


def warn_if_busy() -> None:
    """Say so at once if other processes use the machine, as figures that are measured meanwhile will be marked."""
    share = machine.share_of_others_during(1.0)
    if share is None or share > machine.QUIET_SHARE:
        used = "an unknown share" if share is None else f"{share:.0%}"
        print(f"warning: other processes use {used} of the processors; stop them for good figures", file=sys.stderr)


def say(name: str, what: str) -> None:
    print(f"{name}: {what} …", file=sys.stderr, flush=True)


def surroundings(options: argparse.Namespace) -> dict[str, Any]:
    """Describe when, how, on what and with what the figures are measured."""
    words = [*options.recipes, *(["--quick"] if options.quick else [])]
    words += [] if options.precision == "float32" else ["--precision", options.precision]
    words += [] if options.epochs is None else ["--epochs", str(options.epochs)]
    words += [] if options.many is None else ["--many", str(options.many)]
    words += [] if options.streaming is None else ["--streaming", str(options.streaming)]
    for kind in (scaling.DEVICES, scaling.PROCESSES):
        if (counts := getattr(options, kind)) is not None:
            words += [f"--{kind}", *map(str, counts)]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "git_commit": machine.git_commit(),
        "command": " ".join(["python -m experiments.benchmark", *words]),
        "quick": options.quick,
        "precision": options.precision,
        "machine": machine.describe_machine(),
        "versions": machine.describe_versions(),
    }


def run() -> int:
    """Run the command and return its exit status: 0; 2 for bad input; 1 for other errors; 130 for Ctrl-C."""
    try:
        main(options_of(sys.argv[1:]))
    except (InputError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
