"""The configuration of a run: typed, frozen and checked when it is made.

An experiment subclasses `Config` or `DataConfig` and adds its hyperparameters, each with a docstring for `--help`. The
annotations say more than the type: `Count` and `Positive` bound a value, and `Resumable` marks what may change when a
run is resumed; changing anything else makes another run.
"""

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, to_jsonable_python

from jaxgen.errors import InputError
from jaxgen.names import module_name
from jaxgen.signals import say
from jaxgen.staging import DataOn

T = TypeVar("T")
RESUMABLE = "may change when the run is resumed"
INSPECTABLE = "may change when a finished run is inspected"
DIMENSION = "decides how much memory a training takes"
CROSSED = "may have several values, with each of which a model is trained"
STARTING = "what a new run starts from; ignored when a run is inspected"
Resumable = Annotated[T, RESUMABLE]
Inspectable = Annotated[T, INSPECTABLE]
Starting = Annotated[T, STARTING]

_MOST_PIXELS = 89_478_485  # of a picture; Pillow's limit

Count = Annotated[int, Field(ge=1, lt=2**31)]
Dimension = Annotated[int, Field(ge=1, lt=2**28), DIMENSION]  # of an array: products of two do not overflow
Positive = Annotated[float, Field(gt=0, lt=1e30, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


def _pair(value: Any) -> Any:
    """One number for a square."""
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(numbers) > 2 or not numbers or not all(_is_whole(number) for number in numbers):
        raise ValueError("must be a height and a width in whole numbers, or one number for both")
    return numbers * (3 - len(numbers))


def _is_whole(value: Any) -> bool:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return not isinstance(value, bool) and int(value) == (int(value) if isinstance(value, str) else value)
    return False


def _area(size: tuple[int, int]) -> tuple[int, int]:
    """As many pixels as Pillow reads in a picture."""
    if size[0] * size[1] > _MOST_PIXELS:
        raise ValueError(f"must have at most {_MOST_PIXELS:,} pixels in all")
    return size


def _tuple(value: Any) -> Any:
    """One item for a sequence of one."""
    return value if value is None or isinstance(value, list | tuple) else (value,)


def _single(value: Any) -> Any:
    """The item of a sequence of one."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _how_many(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Size = Annotated[tuple[Dimension, Dimension], BeforeValidator(_pair), AfterValidator(_area)]
Several = Annotated[tuple[T, ...], BeforeValidator(_tuple)]
Crossed = Annotated[  # one value, or several, which make several models
    Annotated[T, Tag("one")] | Annotated[tuple[T, ...], Field(min_length=1), Tag("several")],
    Discriminator(_how_many),
    BeforeValidator(_single),
    CROSSED,
]

_on_command_line: ContextVar[bool] = ContextVar("on_command_line", default=False)


@contextlib.contextmanager
def speaking_of_options(yes: bool = True) -> Iterator[None]:
    """Messages name the command line's options, such as `--batch-size`, or else fields, such as `batch_size`."""
    token = _on_command_line.set(yes)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def is_on_command_line() -> bool:
    """Whether messages name the command line's options."""
    return _on_command_line.get()


def option(name: str, value: Any = None) -> str:
    """A field as the user writes it: `--batch-size 5` on the command line, `batch_size=5` in Python.

    Args:
        name: the field.
        value: what to show as its value; None for the name alone, True for a flag.
    """
    if is_on_command_line():
        shown = " ".join(map(str, value)) if isinstance(value, tuple | list) else value
        return "--" + name.replace("_", "-") + ("" if value is None or value is True else f" {shown}")
    return name if value is None else f"{name}={str(value) if isinstance(value, Path) else value!r}"


class Config(BaseModel):
    """What every experiment can be asked for.

    Raises:
        InputError: a value does not fit. Values with one sensible reading are converted: `epochs="3"`, `out="runs/x"`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    epochs: Resumable[Count] = 1
    """Passes over the data, in all; more of them continue a finished run."""
    batch_size: Dimension = 1
    """Examples a step."""
    seed: Inspectable[Annotated[int, Field(ge=0, lt=2**32)]] = 0
    """Determines every random number."""
    out: Resumable[Path | None] = None
    """Folder of the run; None is runs/NAME."""
    resume: Resumable[bool] = False
    """Go on with the run in the folder, under the settings it was started with."""
    seeds: Dimension = 1
    """How many models to train at once, each with its own initialisation and noise; with one order of the data."""
    ema: Fraction = 0.0
    """Sample, save and measure an exponential moving average of the weights with this decay, such as 0.999; 0: none."""
    save_every: Resumable[Count] = 1
    """Epochs from one checkpoint to the next; there is always one at the end and when the run is stopped."""
    keep: Resumable[Count] = 3
    """How many of the newest checkpoints are kept."""
    on_nan: Resumable[Literal["stop", "skip"]] = "stop"
    """When a value is not finite: stop, or skip the step that made it. Either way the log names step and batch."""
    self_check: Resumable[bool] = False
    """First compare every operation and its gradients with float64, and refuse to train if one is wrong."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """The type of matrix products while training; everything else stays float32. tf32 is for GPUs."""
    metrics: Resumable[bool] = True
    """Measure the quality of the model whenever pictures are drawn; it takes time, which is shown."""
    report: Resumable[Literal["none", "plain", "live"]] = "live"
    """The page report.html in the run's folder: none, plain, or live with the trained model in it."""
    tensorboard: Resumable[bool] = False
    """Also write metrics, figures and pictures as an event log for TensorBoard, tensorboard/ in the run's folder."""
    device: Resumable[str] = "auto"
    """Where to compute: auto, cpu, gpu, or one of several as gpu:1."""
    devices: Resumable[Count | None] = None
    """How many devices to use, which share every batch, or the models; by default one, or two cores where it helps."""
    coordinator: Resumable[str | None] = None
    """Where several processes meet, HOST:PORT of the first; or auto, to ask the cluster, as under srun and mpirun."""
    processes: Resumable[Count | None] = None
    """How many processes train together; each is started with the same options but for the next one."""
    process: Resumable[Annotated[int, Field(ge=0)] | None] = None
    """The number of this process, from 0; the first one writes the run."""

    data_on: Resumable[DataOn] = "auto"
    """Where the data are kept: device, or host (memory) or disk, from where they come in pieces; auto: by size."""

    cpu_devices: ClassVar[int] = 1  # the default of `devices` on the CPU, where there are as many cores

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            first_of_each = {found["loc"][:1]: found for found in reversed(error.errors())}
            said = (_one_line(found, type(self), fields) for found in reversed(first_of_each.values()))
            raise InputError("; ".join(dict.fromkeys(said))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any, info: ValidationInfo) -> Any:
        """True is no number, though Python takes it for one."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError("must not be true or false")
        return value

    @property
    def experiment(self) -> str:
        """The name of the experiment, such as `experiments.dcgan_digits`, however it was started."""
        return experiment_name(type(self))

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.out or Path("runs") / self.experiment.rpartition(".")[2]

    @property
    def uses_existing_run(self) -> bool:
        """Whether this concerns a run that is there, whose settings are then the defaults."""
        return self.resume

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed by the program: they do not count as given by the user."""
        changed = type(self)(**(dict(self) | changes))
        changed.__pydantic_fields_set__.clear()
        changed.__pydantic_fields_set__.update(self.model_fields_set)
        return changed

    def stored(self) -> dict[str, Any]:
        """Every field as JSON has it."""
        fields: dict[str, Any] = to_jsonable_python(dict(self))
        return fields

    def fixed(self) -> dict[str, Any]:
        """The fields that make this run another one if they change, as JSON has them; without paths."""
        stored = self.stored()
        marks = {name: metadata(field) for name, field in type(self).model_fields.items()}
        return {name: stored[name] for name in marks if not {RESUMABLE, STARTING} & set(map(str, marks[name]))}

    def with_stored(self, stored: dict[str, Any], where: Path) -> Self:
        """This configuration with the stored fields in place of those that were not given.

        A field that is missing in `stored` is younger than the run, which was then made with its default.

        Args:
            stored: as `stored()` gave it.
            where: the file that it was read from.

        Raises:
            InputError: a field that was given differs from the stored one and may not change, or the stored ones are
                not this experiment's.
        """
        before = self.of_existing(stored, where, resume=self.resume)
        given = {name: getattr(self, name) for name in self.model_fields_set}
        for name, value in given.items():
            if value != getattr(before, name) and not self._may_change(name):
                there = option(name, getattr(before, name))
                raise InputError(
                    f"{option(name, value)}: the run in {where.parent} has {there}; leave it out, or start another run "
                    f"with another {option('out')}"
                )
        merged = type(self)(**(dict(before) | given | {"out": self.out, "resume": self.resume}))
        merged.__pydantic_fields_set__.clear()
        merged.__pydantic_fields_set__.update(given)
        return merged

    @classmethod
    def of_existing(cls, stored: dict[str, Any], where: Path, *, resume: bool) -> Self:
        """`read`, for a run that is resumed or else inspected, without what belonged to the processes of that time."""
        found = cls.read(stored, where)
        starting = [name for name, field in cls.model_fields.items() if STARTING in metadata(field) and not resume]
        forgotten = [*starting, "coordinator", "processes", "process"]
        return found.replace(**{name: cls.model_fields[name].default for name in forgotten})

    @classmethod
    def read(cls, stored: dict[str, Any], where: Path) -> Self:
        """The configuration that was stored.

        Raises:
            InputError: a field is not known, or its value is not of its exact type.
        """
        if unknown := sorted(stored.keys() - cls.model_fields.keys()):
            raise InputError(f"{where}: option {unknown[0]!r} is not known; restore the file as it was written")
        try:
            with speaking_of_options(False):
                found = cls(**stored)
        except InputError as error:
            raise InputError(f"{where}: {error}; restore the file as it was written") from error
        for name, value in found.stored().items():
            if name in stored and not _same_json(value, stored[name]):
                raise InputError(f"{where}: {name} is {stored[name]!r}; restore the file as it was written")
        return found

    def _may_change(self, name: str) -> bool:
        marks = metadata(type(self).model_fields[name])
        return RESUMABLE in marks or (INSPECTABLE in marks and not self.resume)


class DataConfig(Config):
    """The configuration of an experiment that learns from images."""

    data: Resumable[str] = "digits"  # whether data are the same is decided by their checksum
    """What to learn from: digits, faces, mnist, fashion_mnist, cifar10, folder:PATH, arrays:FILE.npz or tfds:NAME."""
    crop: bool = False
    """Keep the proportions of images: resize to cover the size and crop the centre, instead of squeezing."""
    skip_bad: bool = False
    """Leave out a folder's unreadable images, and list them, instead of refusing the folder."""

    @property
    def loading(self) -> dict[str, Any]:
        """What `jaxgen.data.load` is told beside the name, the size and the channels."""
        on_disk = None if self.data_on == "auto" else self.data_on == "disk"
        return {"crop": self.crop, "skip_bad": self.skip_bad, "on_disk": on_disk, "log": say}

    @field_validator("data")
    @classmethod
    def _make_absolute(cls, data: str) -> str:
        """A path means the same when the run is resumed from another working directory."""
        kind, separator, path = data.partition(":")
        if kind not in ("folder", "arrays") or not path:
            return data
        with contextlib.suppress(RuntimeError):  # no such home folder
            return f"{kind}{separator}{Path(path).expanduser().absolute()}"
        return data


class ConditionalConfig(DataConfig):
    """The configuration of an experiment whose model can be conditional on the labels of its images."""

    conditional: bool = False
    """Train on the images' labels too: the model then makes images of the class that it is asked for."""

    def classes_of(self, names: Sequence[str]) -> int:
        """The number of classes that the model is conditional on; 0 for none.

        Args:
            names: the names of the data's classes.

        Raises:
            InputError: the model is to be conditional, and the data have fewer than two classes.
        """
        if self.conditional and len(names) < 2:
            there = f"only the class {names[0]}" if names else "no labels"
            raise InputError(
                f"{option('conditional', True)}: {self.data} has {there}; leave it out, or name other data"
            )
        return len(names) if self.conditional else 0


def metadata(field: Any) -> list[Any]:
    """What an annotation says beside the type."""
    return [*field.metadata, *getattr(field.annotation, "_metadata__", ())]


def _same_json(ours: Any, stored: Any) -> bool:
    """Whether a stored value is ours, also in its type; JSON may have a whole number for a float."""
    if isinstance(ours, list) and isinstance(stored, list):
        return len(ours) == len(stored) and all(map(_same_json, ours, stored))
    if isinstance(ours, float) and isinstance(stored, int) and not isinstance(stored, bool):
        return ours == stored
    return type(ours) is type(stored) and bool(ours == stored)


_EXPECTED = {
    "int": "must be a whole number", "float": "must be a number", "bool": "must be true or false",
    "string": "must be text", "path": "must be a path", "tuple": "must be a sequence", "finite": "must be finite",
}  # fmt: skip


def _one_line(error: ErrorDetails, config_class: type[Config], fields: dict[str, Any]) -> str:
    """What is wrong with a field, as the user writes it, and what would be right."""
    kind, context = error["type"], error.get("ctx", {})
    name = str(error["loc"][0]) if error["loc"] else ""
    if kind == "value_error" and isinstance(context["error"], InputError):  # which names the field itself
        return str(context["error"])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, config_class.model_fields, n=1)
        hint = (
            f"did you mean {option(near[0])}?"
            if near
            else f"there are {', '.join(map(option, config_class.model_fields))}"
        )
        return f"{option(name)}: there is no such option; {hint}"
    value = fields.get(name, error["input"])
    shown = f"{option(name)}{' ' if is_on_command_line() else '='}None" if value is None else option(name, value)
    if kind == "value_error":
        return f"{shown}: {context['error']}"
    if context.get("min_length") == 1:
        return f"{shown}: must be one value or more"
    if kind in ("too_long", "too_short", "missing"):
        return f"{shown}: must be {context.get('max_length', context.get('min_length', 2))} values"
    if "ge" in context:
        return f"{shown}: must be {context['ge']:g} or more"
    if "gt" in context or (kind == "finite_number" and "gt=0" in str(config_class.model_fields[name])):
        return f"{shown}: must be a number above {context.get('gt', 0):g}"
    if "lt" in context:
        return f"{shown}: must be below {context['lt']:,}"
    if kind == "literal_error":
        return f"{shown}: must be {context['expected']}"
    return f"{shown}: {_EXPECTED.get(kind.partition('_')[0], error['msg'])}"


def experiment_class(config_class: type[Config]) -> type[Config]:
    """The class that an experiment's file defines: this one, or the one that it extends in a notebook or at a prompt.

    This one where no file defines it or what it extends.
    """
    for base in config_class.__mro__:
        if base.__module__ == __name__:
            break
        if module_name(base) != "__main__":
            return base
    return config_class


def experiment_name(config_class: type[Config]) -> str:
    """The full name of the module that defines an experiment's Config, also where that is run as a script.

    A class that is defined in a notebook or at a prompt goes by the experiment that it extends, or by its own name.
    """
    name = module_name(experiment_class(config_class))
    return config_class.__name__ if name == "__main__" else name
