"""The tables of a report: aligned columns for the screen, Markdown for the documentation."""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmark.profile import KINDS
from experiments.benchmark.race import AT_ONCE, COMPILED, EAGER, IN_TURN, OURS

SYSTEMS = {OURS: "jaxgen", EAGER: "PyTorch", COMPILED: "torch.compile"}

_NONE = "–"


class Table(NamedTuple):
    title: str
    head: list[str]
    rows: list[list[str]]


Writer = Callable[[Table], str]


def render(report: dict[str, Any], write: Writer | None = None) -> str:
    """Return everything in the report that was measured.

    Args:
        write: makes text of a table; None for aligned columns.
    """
    write = write or aligned
    parts = [description(report), *map(write, tables(report["recipes"]))]
    if "whole_command" in report:
        parts.append(_whole_command(report["whole_command"]))
    return "\n\n".join(parts)


def description(report: dict[str, Any]) -> str:
    """Say what was run when, on what and with what, and whether other processes disturbed it."""
    about = report["machine"]
    flags = f", {' '.join(about['flags'])}" if about["flags"] else ""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"{report['date']}, commit {report['git_commit'] or 'unknown'}: {report['command']}",
        f"{about['processor']}, {about['cpus']} CPUs{flags}; {about['os']}",
        f"{versions}; {about['pytorch_threads']} threads of PyTorch, JAX on {about['jax_devices']}",
    ]
    return "\n".join([*lines, *_disturbances(report["recipes"])])


def tables(recipes: dict[str, Any]) -> list[Table]:
    """Return a table for each part that was measured."""
    made = [_conditions(recipes), _training(recipes)]
    parts = {"profile": _profile, "generation_seconds": _generation, "start_seconds": _starting}
    for measured, part in parts.items():
        if all(figures[measured] for figures in recipes.values()):
            made.append(part(recipes))
    return [_without_empty_columns(table) for table in (*made, _compiling(recipes))]


def _without_empty_columns(table: Table) -> Table:
    filled = [any(cell != _NONE for cell in column) for column in zip(*table.rows, strict=True)]
    head, *rows = (list(itertools.compress(row, filled)) for row in (table.head, *table.rows))
    return Table(table.title, head, rows)


def learned(recipes: dict[str, Any]) -> str:
    """Return for each recipe a table of the metrics of both systems after every epoch."""
    return "\n\n".join(aligned(_metrics(name, figures["epochs"])) for name, figures in recipes.items())


def many(recipes: dict[str, Any]) -> Table:
    """Return the table of several models at once beside as many one after the other."""
    rows = []
    for name, figures in recipes.items():
        race, compiling = figures["seconds_per_epoch"], figures["compile_seconds"]
        rows.append(
            [
                name,
                str(figures["models"]),
                *(_spread(race[system], 1) for system in (AT_ONCE, IN_TURN)),
                times_faster(race),
                *(three_digits(compiling[system]) for system in (AT_ONCE, IN_TURN)),
            ]
        )
    title = "Several models: seconds an epoch of all, at once and in turn; times faster at once [95 % interval]"
    head = ["recipe", "models", "at once", "in turn", "times faster", "compile, at once", "compile, one model"]
    return Table(title, head, rows)


def scaling(report: dict[str, Any], kind: str) -> str:
    """Return the table of steps on several devices or processes, and what it means.

    Args:
        kind: "devices" or "processes".
    """
    about = report["machine"]
    points = [point for of_recipe in report[kind].values() for point in of_recipe]
    notes = [
        f"All {kind} share the {about['cpus']} cores of this machine, so together they cannot be faster than these.",
        "Forecast: a device's share of the batch on one core, times the devices that a core serves, and the exchange.",
        "Exchanged: the operands of one device's collective operations. Alone: their time without other work.",
        "Within the step: their time there, most of it waiting for the slowest device.",
        "Overlapped: the share of that time in which the device also computes.",
    ]
    if off := forecast_errors(points):
        notes.append(f"Steps take {off} times the forecast (median, smallest and largest).")
    if not all(point["quiet"] for point in points):
        notes.append("* NOT QUIET: other processes used much of the processors.")
    return "\n".join(
        [f"{about['processor']}, {about['cpus']} CPUs", "", aligned(scaling_table(report[kind], kind)), *notes]
    )


def scaling_table(recipes: dict[str, Any], kind: str) -> Table:
    """Return a row for each recipe, number of devices or processes, and batch size."""
    rows = []
    for name, points in recipes.items():
        for point in points:
            seconds, several = point["seconds_per_step"]["median"], point["count"] > 1
            cells = [three_digits(1000 * seconds) + ("" if point["quiet"] else "*")]
            cells.append(f"{point['batch_size'] / seconds:,.0f}")
            cells.append(three_digits(1000 * point["forecast_seconds"]) if "forecast_seconds" in point else _NONE)
            exchange = [f"{point['exchanged_bytes'] / 1000:,.1f}", str(point["collectives"])]
            exchange += [three_digits(1000 * point[f"exchange{part}_seconds"]) for part in ("_alone", "")]
            exchange.append(_NONE if point["overlapped"] is None else f"{point['overlapped']:.0%}")
            rows.append(
                [name, str(point["count"]), str(point["batch_size"]), *cells, *(exchange if several else 5 * [_NONE])]
            )
    title = f"Milliseconds a step by the number of {kind} and the batch"
    head = ["recipe", kind, "batch", "step", "examples/s", "forecast", "exchanged, kB", "collectives"]
    return Table(title, [*head, "alone", "within the step", "overlapped"], rows)


def forecast_errors(points: Sequence[dict[str, Any]]) -> str:
    """Return how many times their forecast steps take, as text: median, smallest and largest; "" without forecasts."""
    forecast = [point for point in points if "forecast_seconds" in point]
    ratios = [point["seconds_per_step"]["median"] / point["forecast_seconds"] for point in forecast]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else ""


def times_faster(figures: dict[str, Any]) -> str:
    """Return the median ratio and its interval, with an asterisk if the machine was not quiet."""
    ratio = figures["times_faster"]
    interval = ratio["interval_95"]
    text = f"{ratio['median']:.2f}" + (f" [{interval[0]:.2f}–{interval[1]:.2f}]" if interval else "")
    return text if figures["quiet"] else f"{text}*"


def aligned(table: Table) -> str:
    """Write a table in columns as wide as their longest cell, the first one aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in [table.head, *table.rows]
    ]
    return "\n".join([table.title, lines[0], "─" * len(lines[0]), *lines[1:]])


def markdown(table: Table) -> str:
    """Write a table in Markdown."""
    rule = [":--", *["--:"] * (len(table.head) - 1)]
    lines = (f"| {' | '.join(line)} |" for line in [table.head, rule, *table.rows])
    return "\n".join([f"{table.title}:", "", *lines])


def _disturbances(recipes: dict[str, Any]) -> list[str]:
    races = {
        f"{name}, {what}": figures[part]
        for name, figures in recipes.items()
        for part, what in (("seconds_per_epoch", "training"), ("generation_seconds", "generation"))
        if figures.get(part)
    }
    disturbed = [f"{name} ({_worst_share(race)})" for name, race in races.items() if not race["quiet"]]
    if not disturbed:
        return []
    return [
        "* NOT QUIET: other processes used much of the processors, or it is not known how much, in: "
        f"{'; '.join(disturbed)}. These figures are of the quieter half of the rounds and say little."
    ]


def _worst_share(race: dict[str, Any]) -> str:
    shares = [race["others_share"][number] for number in race["judged_rounds"]]
    return "unknown" if None in shares else f"up to {max(shares):.0%}"


def _conditions(recipes: dict[str, Any]) -> Table:
    rows = []
    for name, figures in recipes.items():
        race = figures["seconds_per_epoch"]
        numbers = [figures["batch_size"], figures["steps_per_epoch"], figures["steps_per_turn"], race["rounds"]]
        rows.append([name, figures["data"], *(f"{number:,}" for number in numbers), str(len(race["judged_rounds"]))])
    head = ["recipe", "data", "batch", "steps an epoch", "steps a turn", "rounds", "rounds used"]
    return Table("What was run", head, rows)


def _training(recipes: dict[str, Any]) -> Table:
    rows = []
    for name, figures in recipes.items():
        ideal = figures["ideal"]
        ends = [three_digits(ideal["seconds_per_epoch"]), f"{ideal['matmul_utilisation']:.0%}"]
        rows.append([name, *_race(figures["seconds_per_epoch"], 1), *ends])
    title = "Training: seconds an epoch, median (quartiles); times faster than the better PyTorch [95 % interval]"
    return Table(title, ["recipe", *SYSTEMS.values(), "times faster", "ideal time", "matmul utilisation"], rows)


def _profile(recipes: dict[str, Any]) -> Table:
    rows = []
    for name, figures in recipes.items():
        epochs = figures["seconds_per_epoch"][OURS]["median"], figures["ideal"]["seconds_per_epoch"]
        step, ideal = (three_digits(1000 * seconds / figures["steps_per_epoch"]) for seconds in epochs)
        spent = figures["profile"]
        kinds = [three_digits(1000 * spent["seconds_per_step"][kind]) for kind in KINDS]
        rows.append([name, step, ideal, *kinds, f"{spent['kernels_per_step']:,.0f}"])
    title = "Where the time goes: milliseconds a step, measured and ideal, and in kernels of each kind on all threads"
    return Table(title, ["recipe", "step", "ideal time", *KINDS, "kernels"], rows)


def _generation(recipes: dict[str, Any]) -> Table:
    rows = [
        [name, figures["generated"], *_race(figures["generation_seconds"], 1000)] for name, figures in recipes.items()
    ]
    title = "Generation: milliseconds, median (quartiles); times faster than the better PyTorch [95 % interval]"
    return Table(title, ["recipe", "what", *SYSTEMS.values(), "times faster"], rows)


def _race(figures: dict[str, Any], unit: float) -> list[str]:
    """A cell for each system, and one for how many times faster ours is."""
    cells = [_spread(figures[system], unit) if system in figures else _NONE for system in SYSTEMS]
    return [*cells, times_faster(figures)]


def _compiling(recipes: dict[str, Any]) -> Table:
    rows = []
    for name, figures in recipes.items():
        # That of torch.compile is the difference of its first turns and its usual ones, which can be below 0 by chance.
        seconds = {system: max(0.0, value) for system, value in figures["compile_seconds"].items()}
        rows.append(
            [name, *(three_digits(seconds[system]) if system in seconds else _NONE for system in (OURS, COMPILED))]
        )
    return Table("Compiling the training: seconds", ["recipe", SYSTEMS[OURS], SYSTEMS[COMPILED]], rows)


def _starting(recipes: dict[str, Any]) -> Table:
    rows = []
    for name, figures in recipes.items():
        starts, peaks = figures["start_seconds"], figures["peak_bytes"]
        memory = [peaks[OURS]["cold"], peaks[OURS]["warm"], *(peaks[rival]["cold"] for rival in (EAGER, COMPILED))]
        rows.append(
            [
                name,
                *(three_digits(starts[kind]["median"]) for kind in ("cold", "warm")),
                *(f"{size / 1e6:,.0f}" for size in memory),
            ]
        )
    title = "Starting: seconds from the command to the end of the first step; and peak memory in MB"
    head = ["recipe", "start, cold", "start, warm", "jaxgen, cold", "jaxgen, warm", SYSTEMS[EAGER], SYSTEMS[COMPILED]]
    return Table(title, head, rows)


def _whole_command(whole: dict[str, Any]) -> str:
    """One command from start to end, and PyTorch's training for as many epochs."""
    return "\n".join(
        [
            f"{whole['command']}, from start to end: {_parts(whole['seconds']['warm'])};",
            f"with an empty compilation cache: {_parts(whole['seconds']['cold'])}.",
            f"{whole['epochs']} epochs of training alone with PyTorch: "
            f"{three_digits(whole['pytorch_training_seconds'])} s.",
        ]
    )


def _parts(seconds: dict[str, float]) -> str:
    return f"{three_digits(seconds['total'])} s, {three_digits(seconds['training'])} s of them in training"


def _metrics(name: str, epochs: list[dict[str, Any]]) -> Table:
    metrics = list(epochs[0][OURS])
    rows = [
        [str(number), *(f"{epoch[OURS][metric]:.4g} / {epoch[EAGER][metric]:.4g}" for metric in metrics)]
        for number, epoch in enumerate(epochs, 1)
    ]
    title = f"{name}: means over each epoch's training, {SYSTEMS[OURS]} / {SYSTEMS[EAGER]}"
    return Table(title, ["epoch", *(metric.replace("_", " ") for metric in metrics)], rows)


def _spread(figures: dict[str, Any], unit: float) -> str:
    median, lower, upper = (unit * value for value in [figures["median"], *figures["quartiles"]])
    return f"{three_digits(median)} ({three_digits(lower)}–{three_digits(upper)})"


def three_digits(value: float) -> str:
    """Three digits of a number: 0.091, 5.40, 126."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, 3 - whole)}f}"
