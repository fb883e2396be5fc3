"""The commands of `jaxgen`, also `python -m jaxgen`: what is done with trained models. A file for each.

To add a command NAME, write `jaxgen/commands/NAME.py`; no list has to be edited. It holds

- a docstring, whose first line is the command's summary in `jaxgen --help`; all of it is shown by `jaxgen NAME --help`;
- `class Options(...)`, a subclass of `_options.Options`, which has no fields, or of `_options.ModelOptions`, which has
  `path`, `out`, `model` and `module`. Fields without a default are positional arguments, in their order; the others
  are options, so `samples_out` is `--samples-out`. The docstring below a field is its help. The types of `jaxgen.runs`,
  such as `Count`, bound a value;
- `def run(options: Options) -> None`, which does the work, writes files with `_options.write_files`, prints with
  `jaxgen.signals.say`, and raises `InputError` for whatever the user can change.

The exit status is 2 for an `InputError`, 1 where the disk or the memory failed, and else 0. Matrix products are in full
float32, and compiled programs are kept between starts. Files whose names start with an underscore are not commands.
"""

import ast
from pathlib import Path


def names() -> list[str]:
    """The names of all commands."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def summary(name: str) -> str:
    """What a command does, in a line. Its module is not imported."""
    text = (Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
