"""A program of two processes that differ in what they should have in common; each prints why that is refused."""

import sys
from pathlib import Path

import jax

from jaxgen import processes
from jaxgen.errors import InputError
from jaxgen.runs import hosts
from jaxgen.runs.devices import find_devices
from tests.support import tiny


def main() -> None:
    folder, _, coordinator, _, count, _, index = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 1)
    processes.connect(coordinator, int(count), int(index))
    own, same = tiny.Config(epochs=1 + int(index)), "00" * 32
    for attempt in (
        lambda: hosts.check_processes_agree(tiny.Config(), f"{index}0" * 32),
        lambda: hosts.check_processes_agree(own, same),
        lambda: hosts.check_all_see(Path(folder) / index),
        lambda: find_devices(tiny.Config(devices=3)),
        lambda: find_devices(tiny.Config(batch_size=5)),
        lambda: find_devices(tiny.Config(device="cpu:1")),
    ):
        try:
            attempt()
        except InputError as error:
            print(error, flush=True)
    hosts.check_processes_agree(tiny.Config(process=int(index)), same)


if __name__ == "__main__":
    main()
