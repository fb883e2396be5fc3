#!/usr/bin/env python3
"""Print pip constraints that pin each requirement of pyproject.toml to the lowest version it allows."""

import re
import tomllib
from itertools import chain
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
    if lower_bound := re.match(r"([\w-]+)(?:\[[\w,-]+\])?>=([\w.]+)", requirement):
        print("{}=={}".format(*lower_bound.groups()))
