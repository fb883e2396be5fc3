"""Say what a run or a weights file is: its module, data, figures, pictures, and where its files are."""

import jaxgen
from jaxgen.commands._options import ModelOptions
from jaxgen.signals import say


class Options(ModelOptions):
    """The options of this command."""


def run(options: Options) -> None:
    """Print what the run or the file is."""
    trained = jaxgen.load(options.path)
    say(f"module    {trained.module}")
