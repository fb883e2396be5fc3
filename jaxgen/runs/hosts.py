"""Several processes work on one run: whether they agree about it, and whether they share its folder."""

import hashlib
import json
import secrets
import time
from pathlib import Path

import jax

from jaxgen import processes
from jaxgen.durable import make_folder
from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option

_PATIENCE = 10.0  # seconds that a file may take to appear on other machines, as on NFS
_SHARED_FIELDS = ("epochs", "save_every", "on_nan", "devices", "resume")  # that decide what a process does next


def check_processes_agree(config: Config, data_sha256: str) -> None:
    """Raise InputError where the processes were given different data or different options."""
    if not processes.agree(bytes.fromhex(data_sha256)):
        raise InputError("the processes have different data; give each of them the same files")
    stored = config.stored()
    deciding = {**config.fixed(), **{name: stored[name] for name in _SHARED_FIELDS}, "jax": jax.__version__}
    if not processes.agree(hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).digest()):
        raise InputError(
            f"the processes were given different options, or have different versions of JAX; only {option('process')} "
            "may differ"
        )


def check_all_see(folder: Path) -> None:
    """Raise InputError where a folder of the first process is not that of all, as on machines without a shared disk."""
    if not processes.are_several():
        return
    token = processes.decided(lambda: _left_token(folder))
    until = time.monotonic() + _PATIENCE
    while not (seen := (folder / token).exists()) and time.monotonic() < until:
        time.sleep(0.1)
    blind = processes.largest(0 if seen else jax.process_index() + 1) - 1
    if processes.is_first():
        (folder / token).unlink(missing_ok=True)
    if blind >= 0:
        raise InputError(
            f"{folder}: process {blind} does not see this folder of process 0; name a shared one with {option('out')}"
        )


def _left_token(folder: Path) -> str:
    """The name of a file that is made in the folder for the other processes to find."""
    token = f".shared-{secrets.token_hex(8)}"
    make_folder(folder)
    (folder / token).touch()
    return token
