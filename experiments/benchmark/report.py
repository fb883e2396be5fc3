"""The tables that are printed, from the same report that is written as JSON."""

from collections.abc import Iterable, Sequence
from typing import Any

from experiments.benchmark.profile import KINDS
from experiments.benchmark.race import COMPILED, EAGER, OURS

SYSTEMS = {OURS: "jaxgen", EAGER: "PyTorch", COMPILED: "torch.compile"}
NONE = "–"


def render(report: dict[str, Any]) -> str:
    """All of the report that has been measured."""
    recipes = report["recipes"]
    sections = [machine(report), what_was_run(recipes), training(recipes)]
    for part, measured in ((profile, "profile"), (generation, "generation_seconds")):
        if all(figures[measured] for figures in recipes.values()):
            sections.append(part(recipes))
    sections.append(starting_and_memory(recipes))
    if "whole_command" in report:
        sections.append(whole_command(report))
    return "\n\n".join(sections)


def machine(report: dict[str, Any]) -> str:
    about = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    processor = f"{about['processor']}, {about['cpus']} CPUs, {about['pytorch_threads']} threads of PyTorch"
    lines = [f"{report['date']} · {processor}, JAX on {about['jax_device']}", versions]
    if about["load_before"] > 0.5:
        lines.append(f"Others were at work on this machine (load average {about['load_before']:.1f} before the start).")
    return "\n".join(lines)


def what_was_run(recipes: dict[str, Any]) -> str:
    return table(
        ["recipe", "data", "batch", "steps an epoch", "steps a turn", "turns"],
        [
            [
                name,
                figures["data"],
                figures["batch_size"],
                f"{figures['steps_per_epoch']:,}",
                f"{figures['steps_per_turn']:,}",
                len(figures["seconds_per_epoch"][OURS]["each"]),
            ]
            for name, figures in recipes.items()
        ],
    )


def training(recipes: dict[str, Any]) -> str:
    def row(name: str, figures: dict[str, Any]) -> list[object]:
        floor = figures["floor"]
        reached = f"{floor['share_reached']:.0%}"
        return [name, *race(figures["seconds_per_epoch"], 1), duration(floor["seconds_per_epoch"]), reached]

    heads = [*SYSTEMS.values(), "times faster", "floor", "reached"]
    title = "Training: seconds an epoch, median (quartiles); times faster than the better PyTorch [95 % interval]"
    return f"{title}\n" + table(["recipe", *heads], [row(*item) for item in recipes.items()])


def profile(recipes: dict[str, Any]) -> str:
    def row(name: str, figures: dict[str, Any]) -> list[object]:
        steps, spent = figures["steps_per_epoch"], figures["profile"]
        whole, floor = (
            1000 * seconds / steps
            for seconds in (figures["seconds_per_epoch"][OURS]["median"], figures["floor"]["seconds_per_epoch"])
        )
        kinds = [duration(1000 * spent["seconds_per_step"][kind]) for kind in KINDS]
        return [name, duration(whole), duration(floor), *kinds, f"{spent['kernels_per_step']:,.0f}"]

    title = (
        "Where our time goes: milliseconds a step, in all, at least, and in kernels of each kind, under the profiler"
    )
    heads = ["step", "floor", *KINDS, "kernels"]
    return f"{title}\n" + table(["recipe", *heads], [row(*item) for item in recipes.items()])


def generation(recipes: dict[str, Any]) -> str:
    rows = [
        [name, figures["generated"], *race(figures["generation_seconds"], 1000)] for name, figures in recipes.items()
    ]
    title = "Generation: milliseconds, median (quartiles)"
    return f"{title}\n" + table(["recipe", "what", *SYSTEMS.values(), "times faster"], rows)


def race(figures: dict[str, Any], unit: float) -> list[str]:
    """A cell for each system, and one for how many times faster ours is."""
    cells = [spread(figures[system], unit) if system in figures else NONE for system in SYSTEMS]
    return [*cells, times_faster(figures["times_faster"])]


def starting_and_memory(recipes: dict[str, Any]) -> str:
    def row(name: str, figures: dict[str, Any]) -> list[object]:
        compiling, starts, peaks = (figures[part] for part in ("compile_seconds", "start_seconds", "peak_bytes"))
        return [
            name,
            *(duration(compiling[system]) if system in compiling else NONE for system in (OURS, COMPILED)),
            *(duration(starts[kind]["median"]) if kind in starts else NONE for kind in ("cold", "warm")),
            *(f"{peaks[system][kind] / 1e6:,.0f}" if system in peaks else NONE for system, kind in memory),
        ]

    memory = [(OURS, "cold"), (OURS, "warm"), (EAGER, "cold"), (COMPILED, "cold")]
    title = "Starting: seconds to compile, and from the command to the end of the first step; peak memory in MB"
    heads = ["compile", "torch.compile", "start, cold", "start, warm"]
    heads += ["jaxgen, cold", "jaxgen, warm", SYSTEMS[EAGER], SYSTEMS[COMPILED]]
    return f"{title}\n" + table(["recipe", *heads], [row(*item) for item in recipes.items()])


def whole_command(report: dict[str, Any]) -> str:
    """One command from start to last picture, and PyTorch's training for the same epochs."""
    whole = report["whole_command"]
    lines = [f"{whole['command']}, from its start to its last picture, in seconds"]
    for kind, compiled in (("cold", "nothing compiled before"), ("warm", "all compiled before")):
        total, *parts = (f"{name} {duration(seconds)}" for name, seconds in whole["seconds"][kind].items())
        lines.append(f"{compiled}: {total} ({', '.join(parts)})")
    lines.append(f"PyTorch, {whole['epochs']} epochs of training alone: {duration(whole['pytorch_training_seconds'])}")
    return "\n".join(lines)


def quality(recipes: dict[str, Any]) -> str:
    """What both systems had come to after every epoch."""
    return "\n\n".join(learned(name, figures["epochs"]) for name, figures in recipes.items())


def learned(name: str, epochs: list[dict[str, Any]]) -> str:
    metrics = list(epochs[0][OURS])
    rows = [
        [str(number), *(f"{epoch[OURS][metric]:.4g} / {epoch[EAGER][metric]:.4g}" for metric in metrics)]
        for number, epoch in enumerate(epochs, 1)
    ]
    title = f"{name}: means over each epoch's training, {SYSTEMS[OURS]} / {SYSTEMS[EAGER]}"
    return f"{title}\n" + table(["epoch", *(metric.replace("_", " ") for metric in metrics)], rows)


def spread(figures: dict[str, Any], unit: float) -> str:
    median, lower, upper = (unit * value for value in [figures["median"], *figures["quartiles"]])
    return f"{duration(median)} ({duration(lower)}–{duration(upper)})"


def times_faster(figures: dict[str, Any]) -> str:
    interval = figures["interval_95"]
    return f"{figures['median']:.2f}" + (f" [{interval[0]:.2f}–{interval[1]:.2f}]" if interval else "")


def duration(value: float) -> str:
    """Three digits: 0.0912, 5.40, 126."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, 3 - whole)}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as what stands in them; the first to the left, the others to the right."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in cells]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
