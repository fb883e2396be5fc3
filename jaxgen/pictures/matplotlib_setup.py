"""Matplotlib independent of the user's settings."""

import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["import_matplotlib", "matplotlib_defaults"]


@contextlib.contextmanager
def matplotlib_defaults(families: Sequence[str] = ()) -> Iterator[None]:
    """Matplotlib under its own default settings and silent; afterwards everything is as the user had it.

    Args:
        families: fonts for characters that Matplotlib's own font lacks.
    """
    logger = logging.getLogger("matplotlib")
    level = logger.level
    # It would report on settings that are not used here, a cache folder that cannot be written and missing glyphs.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            matplotlib = import_matplotlib()
            with matplotlib.rc_context():
                matplotlib.rcdefaults()
                matplotlib.rcParams.update({"font.size": 13, "font.family": ["DejaVu Sans", *families]})
                yield
    finally:
        logger.setLevel(level)


def import_matplotlib() -> Any:
    """Import Matplotlib whatever `MPLBACKEND` and `matplotlibrc` say."""
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError:
        raise
    except Exception:  # MPLBACKEND or a matplotlibrc has a value that Matplotlib cannot read
        for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
            del sys.modules[name]  # half imported
        settings = {name: os.environ.get(name) for name in ("MPLBACKEND", "MATPLOTLIBRC")}
        os.environ.update(MPLBACKEND="", MATPLOTLIBRC=os.devnull)
        try:
            return importlib.import_module("matplotlib")
        finally:
            for name, value in settings.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
