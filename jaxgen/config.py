"""What a run is asked to do: a typed, frozen Config, and the command line that fills it in.

An experiment subclasses `Config` and adds its hyper-parameters. The annotations say more than the type: `Count` and
`Positive` bound the value, and `Free` marks what may differ when a run is resumed (everything else makes another run).
"""

import dataclasses
import inspect
import sys
import typing
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from jaxgen.errors import InputError


class Bound(NamedTuple):
    """A field's smallest value, or, where `open`, the value it must be above."""

    low: float
    open: bool = False


T = TypeVar("T")
FREE = "may change when the run is resumed"
Free = Annotated[T, FREE]
Count = Annotated[int, Bound(1)]
Positive = Annotated[float, Bound(0, open=True)]


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: Free[Count] = 1
    """Passes over the data, in all; more of them continue a finished run."""
    batch_size: Count = 1
    """Examples a step."""
    seed: Annotated[int, Bound(0)] = 0
    """Every random number follows from it."""
    out: Free[Path | None] = None
    """Folder of the run; None is runs/NAME."""
    resume: Free[bool] = False
    """Go on with the run in the folder, under the settings it was started with."""
    save_every: Free[Count] = 1
    """Epochs from one checkpoint to the next; there is always one at the end and when the run is stopped."""
    keep: Free[Count] = 3
    """Checkpoints that are kept, the newest ones."""
    on_nan: Free[Literal["stop", "skip"]] = "stop"
    """When a value is not finite: stop, or skip the step that made it. Either way the log names step and batch."""
    self_check: Free[bool] = False
    """First compare every operation and its gradients with float64, and refuse to train if one is wrong."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """What layers multiply in while they learn; everything else stays float32. tf32 and bf16 are for GPUs."""
    device: Free[str] = "auto"
    """Where to compute: auto, cpu, gpu, or one of several as gpu:1."""
    devices: Free[Count | None] = None
    """How many of those share every batch; by default one, or two cores of the CPU where that is the faster way."""

    cpu_devices: ClassVar[int] = 1  # what the default is on the CPU, where there are as many cores

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            for mark in marks(hint):
                if isinstance(mark, Bound):
                    check_bound(option(name), getattr(self, name), mark)

    @property
    def module(self) -> str:
        """The experiment's module, such as `experiments.dcgan_digits`, also where it runs as `__main__`."""
        name = type(self).__module__
        spec = getattr(sys.modules[name], "__spec__", None)
        return spec.name if spec else Path(inspect.getfile(type(self))).stem

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / self.module.rpartition(".")[2]

    @property
    def looks_back(self) -> bool:
        """Whether it is about a run that is there, whose settings are then the defaults."""
        return self.resume

    def stored(self) -> dict[str, Any]:
        """Every option as JSON has it."""
        return {name: to_json(value) for name, value in dataclasses.asdict(self).items()}

    def under(self, stored: dict[str, Any], where: Path) -> Self:
        """This configuration with the stored options as they are in `where`; `out` and `resume` stay.

        An option that is not there is younger than the run, which was then made with its default.
        """
        fields = {name: getattr(self, name) for name in self.stored()}
        if unknown := sorted(stored.keys() - fields.keys()):
            raise InputError(f"{where}: option {unknown[0]!r} is not known; put the file back as it was written")
        defaults, hints = type(self)(), typing.get_type_hints(type(self))
        for name in fields.keys() - {"out", "resume"}:
            default = getattr(defaults, name)
            value = from_json(stored[name], hints[name]) if name in stored else default
            if type(value) is not type(default) and not (default is None or value is None or type(default) is float):
                raise InputError(f"{where}: {name} is {value!r}; put the file back as it was written")
            fields[name] = value
        return type(self)(**fields)

    def differences(self, other: "Config") -> list[str]:
        """The options, other than the free ones, in which the two differ."""
        hints = typing.get_type_hints(type(self), include_extras=True)
        fixed = [name for name, hint in hints.items() if FREE not in marks(hint)]
        return [name for name in fixed if getattr(self, name) != getattr(other, name)]


def marks(hint: Any) -> list[Any]:
    """What an annotation says beside the type, also inside a union or a tuple."""
    own = list(getattr(hint, "__metadata__", ()))
    return own + [mark for part in typing.get_args(hint) for mark in marks(part) if not isinstance(part, str)]


def to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [to_json(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def from_json(value: Any, hint: Any) -> Any:
    """A stored option as its Config has it: JSON knows neither tuples nor paths."""
    if isinstance(value, list):
        return tuple(from_json(part, hint) for part in value)
    return Path(value) if isinstance(value, str) and "Path" in str(hint) else value


def option(name: str) -> str:
    return "--" + name.replace("_", "-")


def check_bound(name: str, value: Any, bound: Bound) -> None:
    for number in value if isinstance(value, tuple) else () if value is None else (value,):
        if bound.open and not (bound.low < number < float("inf")):
            raise InputError(f"{name} {number}: must be a number above {bound.low:g}")
        if not bound.open and not number >= bound.low:
            raise InputError(f"{name} {number}: must be {bound.low:g} or more")


@dataclasses.dataclass(frozen=True)
class DataConfig(Config):
    """A configuration of what learns from images."""

    data: str = "digits"
    """What to learn from: digits, faces, mnist, fashion_mnist, cifar10, tfds:NAME or folder:PATH."""
    skip_bad: bool = False
    """Leave out a folder's unreadable images, and list them, instead of refusing the folder."""
