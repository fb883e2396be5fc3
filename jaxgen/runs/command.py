"""The command line of an experiment: arguments to a Config, and errors to one line.

`as_process` and `parse` are also what the command `jaxgen` is made of.
"""

import contextlib
import difflib
import gc
import io
import os
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, takewhile
from typing import Any, NamedTuple, NoReturn, TextIO, TypeVar, get_args, get_origin

import jax
from pydantic import BaseModel

from jaxgen import processes
from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option, speaking_of_options
from jaxgen.runs.hints import program
from jaxgen.runs.layout import Layout
from jaxgen.runs.outcome import Outcome
from jaxgen.runs.resume import check_experiment
from jaxgen.runs.run import STOP_SIGNALS, Interrupted
from jaxgen.runs.session import experiment
from jaxgen.signals import GRACE, available, say

ConfigT = TypeVar("ConfigT", bound=Config)
OptionsT = TypeVar("OptionsT", bound=BaseModel)
_ALARM = available("SIGALRM")
_BROKEN_PIPE = 128 + 13  # the exit status of a command that SIGPIPE ended


class Remedies(NamedTuple):
    """What a command that fails says beside the reason."""

    memory: str  # what needs less memory
    disk: str  # what to do once the disk works again
    stopped: str  # what to do after a signal


_EXPERIMENT = Remedies(
    memory="a smaller --batch-size or network needs less. What was saved is intact, and --resume continues from there",
    disk="what was saved is intact, and --resume continues from there",
    stopped="what was saved is intact, and the same command with --resume continues from there",
)


def command(main: Callable[[ConfigT], Any], config_class: type[ConfigT]) -> NoReturn:
    """Run an experiment's `main` from the command line.

    Exit status: 0; 2 for bad input; 1 where the disk, the memory or the numbers failed, or a picture could not be
    drawn; 128 + n when stopped by signal n.

    Args:
        main: `main(config)`; its docstring describes the command.
        config_class: what the arguments are parsed into.
    """

    def work() -> int:
        outcome = experiment(main)(configuration(config_class, main.__doc__ or "", sys.argv[1:]))
        return 1 if isinstance(outcome, Outcome) and outcome.failures else 0

    as_process(work, _EXPERIMENT)


def as_process(work: Callable[[], int], remedies: Remedies) -> NoReturn:
    """End this process with the exit status that `work` returns, or with that of its error; see `command`.

    Errors that a user can act on are one line on the standard error stream. The first signal raises `Interrupted`.
    """
    _stop_anywhere(remedies.stopped)
    # While JAX traces, the collector would look through all that is imported and traced several times, and find little.
    gc.freeze()
    gc.set_threshold(100_000)
    try:
        sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # where they were closed
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # file names may contain what the encoding lacks
        with speaking_of_options():
            status = _status_of(work, remedies)
        _ignore_signals()
    except BaseException as error:
        stop = _interruption(error)
        if stop is None:
            raise
        status = _say_stopped(stop)
    _leave(status)


def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def _status_of(work: Callable[[], int], remedies: Remedies) -> int:
    try:
        return work()
    except InputError as error:
        return _say_why(str(error), 2)
    except SystemExit as stop:  # `--help` was printed
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        return _BROKEN_PIPE
    except FloatingPointError as error:
        return _say_why(str(error), 1)
    except MemoryError:
        return _say_why(f"out of memory; {remedies.memory}", 1)
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # the latter, too, where a collective operation fails
        if processes.is_lost(error):
            status = _say_why(f"another process, which JAX names below, has ended; {remedies.disk} ({error})", 1)
            processes.await_end()
            return status
        if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "Out of memory")):  # the latter: on the CPU
            raise
        return _say_why(f"out of memory; {remedies.memory}", 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _say_why(f"{place}{error.strerror or error}; {remedies.disk}", 1)


def _leave(status: int) -> NoReturn:
    """End the process, whatever has become of its output: Python's own flush would change the exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if not processes.end_together(has_failed=status != 0):
        os._exit(status)
    raise SystemExit(status)


def _say_why(text: str, status: int) -> int:
    say(f"error: {' '.join(text.split())}", error=True)
    return status


# ---- Signals ----


class _FirstSignal:
    """The signal that stops this command, and when it came."""

    number: int | None = None
    time = 0.0
    remedy = ""


def _stop_anywhere(remedy: str) -> None:
    """From here on, the first signal raises `Interrupted` wherever the command is."""
    _FirstSignal.number, _FirstSignal.remedy = None, remedy
    for number in STOP_SIGNALS:
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)


def _ignore_signals() -> None:
    """Ignore signals from here on: what remains takes a moment, and the exit status is known.

    Python itself would give them their default effect before it has ended.
    """
    for number in STOP_SIGNALS:
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(number, signal.SIG_IGN)


def _interruption(error: BaseException | None) -> Interrupted | None:
    """The stop that led to an error, if one did: a C module that is being imported makes an ImportError of it."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """Stop the command.

    Where Python cannot propagate an exception, as in a callback of its garbage collection, it would drop this one; so
    it is raised again a second later, unless it has arrived. Further signals are ignored for two seconds and then have
    their default effect.
    """
    if _FirstSignal.number is not None and number not in _ALARM:
        if time.monotonic() - _FirstSignal.time > GRACE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        return
    if _FirstSignal.number is None:
        _FirstSignal.number, _FirstSignal.time = number, time.monotonic()
    if _ALARM:
        signal.signal(_ALARM[0], _interrupt)
        signal.setitimer(signal.ITIMER_REAL, 1)
    sys.unraisablehook = _unless_interrupted
    raise Interrupted(_FirstSignal.number, f"stopped; {_FirstSignal.remedy}")


def _unless_interrupted(dropped: Any) -> None:
    """Report an exception that Python dropped, unless it is a stop, which comes again."""
    if not isinstance(dropped.exc_value, Interrupted):
        sys.__unraisablehook__(dropped)


def _say_stopped(stop: Interrupted) -> int:
    if _ALARM:
        signal.setitimer(signal.ITIMER_REAL, 0)
    _ignore_signals()
    say(str(stop), error=True)
    return 128 + stop.number


# ---- Arguments ----


def configuration(config_class: type[ConfigT], description: str, arguments: Sequence[str]) -> ConfigT:
    """What the arguments ask for; where that concerns an existing run, over the settings that it was started with."""
    config = _parse(config_class(), description, arguments)
    layout = Layout(config.folder)
    stored = layout.read_config() if config.uses_existing_run else None
    if stored is None:
        return config
    check_experiment(config, stored)
    before = config_class.of_existing(stored["options"], layout.config, resume=config.resume)
    return _parse(before.replace(out=None, resume=False), description, arguments)


def _parse(default: ConfigT, description: str, arguments: Sequence[str]) -> ConfigT:
    """The configuration that the arguments ask for, over `default`; those that they name count as given."""
    return parse(type(default), program(default), description, arguments, default=default)


def parse(
    options_class: type[OptionsT],
    name: str,
    description: str,
    arguments: Sequence[str],
    *,
    default: OptionsT | None = None,
) -> OptionsT:
    """Parse a command's arguments.

    Args:
        options_class: what they are parsed into. Fields without a default are positional arguments, in their order.
        name: how the command is called, for `--help`.
        description: what it does, for `--help`.
        arguments: the words after the command's name.
        default: the options where the arguments name none.

    Raises:
        InputError: an unknown option or a value that does not fit, in one line.
        SystemExit: `--help` was asked for, and printed.
    """
    import tyro

    said = io.StringIO()
    helping = {"-h", "--help"} & set(arguments)
    style = (tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff) if default is None else ()
    try:
        with contextlib.redirect_stderr(said), contextlib.nullcontext() if helping else _unbroken_lines():
            parsed: OptionsT = tyro.cli(
                options_class, prog=name, args=list(arguments), description=description, config=style,
                default=tyro.MISSING if default is None else default, registry=_registry(),
            )  # fmt: skip
    except OSError as error:
        if not helping or isinstance(error, BrokenPipeError):
            raise
        raise InputError(f"the help could not be printed: {error.strerror}") from None
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_what_tyro_said(said.getvalue(), options_class)) from None
    return parsed


def _registry() -> Any:
    """Two numbers may be one, for a square: `--size 56`. `Crossed` takes one value or several.

    What does not fit is left for the Config to refuse.
    """
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def pair(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        parts = get_args(info.type)
        if info.type_origin is not tuple or len(parts) != 2 or not all(map(_is_int, parts)):
            return None
        return PrimitiveConstructorSpec(
            nargs="*", metavar="HEIGHT [WIDTH]", instance_from_str=tuple,
            is_instance=lambda value: isinstance(value, tuple) and len(value) == 2,
            str_from_instance=lambda value: list(map(str, value)),
        )  # fmt: skip

    @registry.primitive_rule
    def one_or_several(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        parts = get_args(info.type)
        if len(parts) != 2 or info.type_origin is tuple or get_origin(_plain(parts[1])) is not tuple:
            return None
        name = _plain(_plain(parts[0])).__name__.upper()
        return PrimitiveConstructorSpec(
            nargs="*", metavar=f"{name} [{name} ...]", instance_from_str=tuple,
            is_instance=lambda value: True,
            str_from_instance=lambda value: list(map(str, value if isinstance(value, tuple) else (value,))),
        )  # fmt: skip

    return registry


def _plain(annotation: Any) -> Any:
    """A type without what its annotation says beside it."""
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _is_int(annotation: Any) -> bool:
    return annotation is int or get_args(annotation)[:1] == (int,)


@contextlib.contextmanager
def _unbroken_lines() -> Iterator[None]:
    """Tyro breaks its messages at the width of the terminal; unbroken they can be taken apart."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _what_tyro_said(box: str, options_class: type[BaseModel]) -> str:
    """The first paragraph of one of Tyro's messages, below its title, as a line, with a suggestion.

    The frame is drawn, or dashed where the terminal has no such characters.
    """
    below_title = (line.strip("│| ") for line in box.splitlines()[1:])
    text = dropwhile(_is_rule, below_title)
    said = " ".join(takewhile(lambda line: not _is_rule(line), text)).rstrip(". ")
    said = re.sub(r"^Error parsing \w+: ", "", said)
    unknown = re.match(r"Unrecognized options?: (--[\w-]+)", said)
    options = [option(name) for name in options_class.model_fields]
    near = difflib.get_close_matches(unknown[1], options, n=1) if unknown else []
    return (
        f"{said}; did you mean {near[0]}?"
        if near
        else said
        if said.startswith("--")
        else f"{said}; --help lists the options"
    )


def _is_rule(line: str) -> bool:
    return not line.strip("╰─-╯ ")
