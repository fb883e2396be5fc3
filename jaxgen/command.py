"""The command line: arguments in, a Config out; and what goes wrong, in one line."""

import contextlib
import io
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jax

from jaxgen.config import Config, option
from jaxgen.errors import InputError
from jaxgen.run import Interrupted, find_device
from jaxgen.stored import check_same_experiment, read_config

ConfigT = TypeVar("ConfigT", bound=Config)


def command(main: Callable[[ConfigT], None], config_class: type[ConfigT]) -> NoReturn:
    """Run an experiment's `main` from the command line: parse, call, and turn what goes wrong into one line.

    Exit status: 0; 2 for bad input; 1 where the disk or the numbers gave out; 128 + n when stopped by signal n.
    """
    status = 0
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupt)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what no encoding knows
        config = configuration(config_class, main.__doc__ or "", sys.argv[1:])
        cache_compiled_programs()
        provide_cpu_devices(config)
        # float32 is float32 on a GPU too, where JAX would otherwise take TensorFloat-32, of ten bits.
        with jax.default_device(find_device(config.device)), jax.default_matmul_precision("highest"):
            main(config)
    except InputError as error:
        status = say_why(error, 2)
    except BrokenPipeError:  # whoever reads our output, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except FloatingPointError as error:
        status = say_why(error, 1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        said = f"{place}{error.strerror or error}; what was saved before is whole, and --resume goes on from there"
        status = say_why(OSError(said), 1)
    except Interrupted as stop:
        status = say_stopped(stop)
    except Exception as error:
        if not isinstance(error.__cause__, Interrupted):
            raise
        status = say_stopped(error.__cause__)  # a module in C that was being imported made an ImportError of it
    raise SystemExit(status)


def say_stopped(stop: Interrupted) -> int:
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(stop, file=sys.stderr)
    return 128 + stop.number


def say_why(error: Exception, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def interrupt(number: int, frame: types.FrameType | None) -> NoReturn:
    """Stop, wherever the command is.

    Where Python cannot pass on an exception, as in a callback of its garbage collection, it would drop this one; so it
    is raised again a second later, unless it has been heard.
    """
    signal.signal(signal.SIGALRM, lambda _, frame: interrupt(number, frame))
    signal.setitimer(signal.ITIMER_REAL, 1)
    sys.unraisablehook = unless_interrupted
    raise Interrupted(number, "stopped; what was saved is whole, and the same command with --resume goes on from there")


def unless_interrupted(dropped: Any) -> None:
    """Tell of an exception that Python dropped, unless it is a stop: that comes again."""
    if not isinstance(dropped.exc_value, Interrupted):
        sys.__unraisablehook__(dropped)


def configuration(config_class: type[ConfigT], description: str, arguments: list[str]) -> ConfigT:
    """What the arguments ask for; where that is about a run that is there, over the settings it was started with."""
    config = parse(config_class(), description, arguments)
    found = read_config(config.folder)
    if not config.looks_back or found is None:
        return config
    check_same_experiment(config, found)
    stored = config.under(found["options"], config.folder / "config.json")
    config = parse(stored, description, arguments)
    if config.resume and (changed := config.differences(stored)):
        name = changed[0]
        raise InputError(
            f"{option(name)} {getattr(config, name)}: the run in {config.folder} was started with "
            f"{getattr(stored, name)}; leave the option out, or start another run with --out"
        )
    return config


def cache_compiled_programs() -> None:
    """Keep compiled programs in the user's cache folder for the next start; private, for an entry is code."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return  # the user's own choice, as by JAX_COMPILATION_CACHE_DIR
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxgen" / "compiled"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def provide_cpu_devices(config: Config) -> None:
    """Let the CPU be as many of JAX's devices as are to share every batch; that is settled when JAX starts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if jax.config.values["jax_num_cpu_devices"] < 1:  # else it is the user's own choice, as by JAX_NUM_CPU_DEVICES
        jax.config.update("jax_num_cpu_devices", config.devices or min(config.cpu_devices, cores))


def parse(default: ConfigT, description: str, arguments: Sequence[str]) -> ConfigT:
    """The configuration that the arguments ask for, over `default`.

    Raises:
        InputError: an unknown option or a value that does not fit, in one line.
        SystemExit: `--help` was asked for, and printed.
    """
    import tyro

    said = io.StringIO()
    helping = {"-h", "--help"} & set(arguments)
    try:
        with contextlib.redirect_stderr(said), contextlib.nullcontext() if helping else unbroken_lines():
            prog = f"python -m {default.module}"
            return tyro.cli(type(default), prog=prog, args=arguments, default=default, description=description)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(f"{first_paragraph(said.getvalue())}; --help lists the options") from None


@contextlib.contextmanager
def unbroken_lines() -> Iterator[None]:
    """Tyro breaks its messages at the width of the terminal; unbroken they can be taken apart."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def first_paragraph(box: str) -> str:
    """The first paragraph of one of Tyro's messages, below its title, as a line.

    The frame is drawn, or dashed where the terminal knows no such characters.
    """
    below_title = (line.strip("│ ") for line in box.splitlines()[1:])
    text = dropwhile(is_rule, below_title)
    return " ".join(takewhile(lambda line: not is_rule(line), text)).rstrip(". ").removeprefix("Error parsing Config: ")


def is_rule(line: str) -> bool:
    return not line.strip("╰─-╯ ")
