"""python -m experiments.benchmark [RECIPE …]: what is measured, in which order. The package says how."""

import dataclasses
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jax
import tyro

from experiments.benchmark import processes, race
from experiments.benchmark.cases import CASES, GROUPS, at_hand, load
from experiments.benchmark.figures import spread
from experiments.benchmark.floor import floor, matmul_rate
from experiments.benchmark.report import render
from jaxgen.command import parse, say_why
from jaxgen.errors import InputError
from jaxgen.run import git_commit, write_json


@dataclasses.dataclass(frozen=True)
class Options:
    recipes: tyro.conf.Positional[tuple[str, ...]] = ()
    """What to measure; without names, every recipe."""
    quick: bool = False
    """Rough figures: fewer and shorter turns, no torch.compile, no memory, no starting times."""
    out: Path = Path("runs/benchmark.json")
    """The file with all figures."""

    module = "experiments.benchmark"


@dataclasses.dataclass(frozen=True)
class Effort(race.Effort)
