"""What a run was made with: `environment.json`."""

import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxgen.runs.config import Config, experiment_class

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment(config: Config, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Versions, platform, devices, seed, git commit and command."""
    import jaxgen  # its version; importing it above would be circular

    return {
        "python": sys.version.split()[0],
        "jaxgen": jaxgen.__version__,
        **{name: version(name) for name in _PACKAGES},
        "platform": devices[0].platform,
        "devices": [device.device_kind for device in devices],  # that share every batch
        "seed": config.seed,
        "git_commit": _git_commit(type(config)),
        "command": [config.experiment, *sys.argv[1:]],
    }


def _git_commit(config_class: type[Config]) -> str | None:
    """The commit of the checkout that the experiment is in, with a + where that has been changed.

    None for an experiment in a notebook and one outside a checkout, such as an installed package.
    """
    file = getattr(sys.modules.get(experiment_class(config_class).__module__), "__file__", None)
    if file is None:
        return None
    folder = Path(file).absolute().parent
    try:
        ignored = _git(folder, "check-ignore", "--quiet", file)  # as an environment within a checkout is
        described = _git(folder, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None if ignored.returncode != 0 else None


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, timeout=10, check=False)
