"""What to type next: how a run is started and resumed, as a command or in Python."""

import os
import shlex
import shutil
import sys

from jaxgen.runs.config import Config, is_on_command_line, option


def resume_command(config: Config) -> str:
    """How to resume a run that was stopped: a command, or in Python a call."""
    if not is_on_command_line():
        fields = [option("out", config.out)] if config.out else []
        return f"main(Config({', '.join([*fields, 'resume=True'])}))"
    out = f" --out {shlex.quote(str(config.out))}" if config.out else ""
    return f"{program(config)}{out} --resume"


def program(config: Config) -> str:
    """The words that start this experiment: with the interpreter in use, and as a module or a script."""
    python = next((name for name in ("python", "python3") if shutil.which(name) == sys.executable), None)
    if python is None:
        relative = os.path.relpath(sys.executable) if sys.executable.startswith(os.getcwd() + os.sep) else None
        python = relative or sys.executable or "python"
    main = sys.modules["__main__"]
    if type(config).__module__ == "__main__" and getattr(main, "__spec__", None) is None:
        return f"{shlex.quote(python)} {shlex.quote(sys.argv[0])}"
    return f"{shlex.quote(python)} -m {config.experiment}"
