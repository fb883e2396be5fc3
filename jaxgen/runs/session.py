"""What an experiment needs around it, whichever way it is started."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import jax

from jaxgen.compilation import disk_cache
from jaxgen.runs.config import Config
from jaxgen.runs.devices import connect, find_device, provide_cpu_devices
from jaxgen.runs.layout import Layout
from jaxgen.runs.resume import check_experiment

ConfigT = TypeVar("ConfigT", bound=Config)
ResultT = TypeVar("ResultT")
Others = ParamSpec("Others")


def experiment(
    main: Callable[Concatenate[ConfigT, Others], ResultT],
) -> Callable[Concatenate[ConfigT, Others], ResultT]:
    """Decorator for the `main(config, …)` of an experiment, which then does the same from Python as as a command.

    - Where the configuration concerns an existing run, as with `resume=True`, `main` is given that run's settings in
      place of those that the caller did not name. One that was named, differs and may not change is an `InputError`.
    - JAX computes on the device that the configuration names, and float32 is float32: on a GPU, JAX would otherwise
      multiply in TensorFloat-32, of ten bits.
    - Several processes are connected, if the configuration or the cluster says so.
    - Compiled programs are kept in the user's cache folder for the next start.
    - The CPU is split into the devices that are to share every batch, if JAX has not started yet.

    All but connections and the last is restored when `main` returns.
    """

    @functools.wraps(main)
    def started(config: ConfigT, *others: Others.args, **named: Others.kwargs) -> ResultT:
        with session(config) as settled:
            return main(settled, *others, **named)

    return started  # type: ignore[return-value]  # the configuration may also be passed by name


@contextlib.contextmanager
def session(config: ConfigT) -> Iterator[ConfigT]:
    """The surroundings that `experiment` describes, and the configuration with an existing run's settings."""
    config = with_existing(config)
    connect(config)
    provide_cpu_devices(config)
    device = find_device(config.device)
    with disk_cache(), jax.default_device(device), jax.default_matmul_precision("highest"):
        yield config


def with_existing(config: ConfigT) -> ConfigT:
    """The configuration over the settings of the run that it concerns; as it is where it concerns none."""
    layout = Layout(config.folder)
    stored = layout.read_config() if config.uses_existing_run else None
    if stored is None:
        return config
    check_experiment(config, stored)
    return config.with_stored(stored["options"], layout.config)
