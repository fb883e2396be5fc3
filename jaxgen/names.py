"""The names under which modules can be imported."""

import inspect
import os
import sys
from pathlib import Path


def module_name(defined: type) -> str:
    """The full name of the module that defines a class, also where that module is run as a command or a script.

    `__main__` for a class that is defined in a notebook or at a prompt.
    """
    main = sys.modules["__main__"]
    if defined.__module__ != "__main__":
        return defined.__module__
    if spec := getattr(main, "__spec__", None):
        return str(spec.name)
    if getattr(main, "__file__", None) is None:
        return "__main__"
    script = Path(os.path.abspath(inspect.getfile(defined)))
    parts = [script.stem]
    for folder in script.parents:
        if not (folder / "__init__.py").exists():
            break
        parts.insert(0, folder.name)
    return ".".join(parts)
