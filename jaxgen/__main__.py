"""The command `jaxgen`, also `python -m jaxgen`: what is done with trained models, and with data."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import jax

from jaxgen import commands
from jaxgen.compilation import disk_cache
from jaxgen.errors import InputError
from jaxgen.runs.command import Remedies, as_process, parse

_REMEDIES = Remedies(
    memory="fewer or smaller images need less",
    disk="run the command again once that is repaired",
    stopped="nothing is half-written",
)


def main() -> NoReturn:
    """Run one of the commands, as the arguments of this process say."""
    as_process(lambda: _run(sys.argv[1:]), _REMEDIES)


def _run(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    name, *others = arguments
    if name not in commands.names():
        near = difflib.get_close_matches(name, commands.names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands.names())}"
        raise InputError(f"there is no command {name!r}; {hint}")
    command = importlib.import_module(f"jaxgen.commands.{name}")
    options = parse(command.Options, f"{_program()} {name}", command.__doc__ or "", others)
    _check_jax()
    with disk_cache(), jax.default_matmul_precision("highest"):
        command.run(options)
    return 0


def _check_jax() -> None:
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS")
        raise InputError(
            f"JAX cannot start, because JAX_PLATFORMS is {platforms!r}; unset it, or set it to cpu"
        ) from error


def _help() -> str:
    listed = "\n".join(f"  {name:10} {commands.summary(name)}" for name in commands.names())
    return (
        f"usage: {_program()} COMMAND PATH [OPTIONS]\n\nWhat is done with models and data:\n\n{listed}\n\n"
        f"PATH is a run's folder or a weights file. `{_program()} COMMAND --help` lists the options of a command."
    )


def _program() -> str:
    return "jaxgen" if Path(sys.argv[0]).stem == "jaxgen" else "python -m jaxgen"


if __name__ == "__main__":
    main()
