"""Runs: trainings with a folder, checkpoints, a log, progress, and a command line.

An experiment is a `Config` and a `main`:

    class Config(runs.DataConfig):
        learning_rate: runs.Positive = 1e-3
        \"\"\"Adam's.\"\"\"

    @runs.experiment
    def main(config: Config) -> runs.Outcome:
        \"\"\"What the command does, for `--help`.\"\"\"
        with runs.start(config, source, module) as run:
            state, history = run.fit(recipe)
        return run.outcome

    if __name__ == "__main__":
        runs.command(main, Config)
"""

from jaxgen.runs.command import command
from jaxgen.runs.config import (
    ConditionalConfig,
    Config,
    Count,
    Crossed,
    DataConfig,
    Dimension,
    Fraction,
    Inspectable,
    Positive,
    Resumable,
    Several,
    Size,
    Starting,
    option,
)
from jaxgen.runs.layout import Layout
from jaxgen.runs.models import of_models
from jaxgen.runs.outcome import History, Outcome
from jaxgen.runs.outputs import write_extra, write_samples
from jaxgen.runs.run import Interrupted, Run, key_of
from jaxgen.runs.session import experiment
from jaxgen.runs.start import Group, start, start_group
from jaxgen.signals import say

__all__ = [
    "ConditionalConfig",
    "Config",
    "Count",
    "Crossed",
    "DataConfig",
    "Dimension",
    "Fraction",
    "Group",
    "History",
    "Inspectable",
    "Interrupted",
    "Layout",
    "Outcome",
    "Positive",
    "Resumable",
    "Run",
    "Several",
    "Size",
    "Starting",
    "command",
    "experiment",
    "key_of",
    "of_models",
    "option",
    "say",
    "start",
    "start_group",
    "write_extra",
    "write_samples",
]
