"""Starting runs: everything is checked before anything is written."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import jax

from jaxgen import processes, selfcheck, torch_weights
from jaxgen.durable import write, write_json
from jaxgen.errors import InputError
from jaxgen.runs.config import Config, option
from jaxgen.runs.devices import find_device, find_devices
from jaxgen.runs.event_log import check_event_log
from jaxgen.runs.hints import resume_command
from jaxgen.runs.hosts import check_all_see, check_processes_agree
from jaxgen.runs.layout import Layout
from jaxgen.runs.lock import locked
from jaxgen.runs.models import models_of
from jaxgen.runs.outcome import Outcome, pictures_in
from jaxgen.runs.outputs import Picture, png, surviving
from jaxgen.runs.progress import Progress
from jaxgen.runs.record import announce, digest, record, title, write_record
from jaxgen.runs.resume import Finished, New, decide
from jaxgen.runs.run import Page, Run, Setup
from jaxgen.runs.session import session
from jaxgen.signals import say
from jaxgen.staging import Place, choose
from jaxgen.training import PyTree, Source, as_source, check_batch_size

ConfigT = TypeVar("ConfigT", bound=Config)
Modules = Any  # a Flax module, a mapping of names to modules, or None


@contextlib.contextmanager
def start(
    config: ConfigT,
    data: Source | PyTree,
    modules: Modules = None,
    *,
    about_data: Mapping[str, Any] | None = None,
    label: str = "",
    page: Page | None = None,
) -> Iterator["Run[ConfigT]"]:
    """A run with this configuration on this data; with `config.resume`, the one in its folder is resumed.

    Its folder is made when everything is known to be good. At the end of the `with` statement the run is marked as
    finished.

    Args:
        config: the configuration.
        data: the training data, as `jaxgen.fit` takes it.
        modules: the network, or a mapping of names to networks. The weights files describe them, so that `jaxgen.load`
            can make them again; a new run starts from `config.weights`, if there is such a field.
        about_data: what the data are, for `config.json` and the first lines on the screen: `name`, `images`, `size`,
            `channels`, `classes`, `held_out`.
        label: a word that tells this run from others of the same command.
        page: `(folder, kind)`, which writes a page about the run into its folder, such as `jaxgen.report.write`. It is
            called during training as far as that takes at most a hundredth of the time, and at the end, unless the
            configuration has `report="none"`.

    Yields:
        The run, on which `fit` is called once.

    Raises:
        InputError: the folder, the device, the batch size, the starting weights or the run to resume does not fit.
    """
    with session(config) as settled, _started(settled, as_source(data), modules, about_data, label, page) as run:
        yield run


@contextlib.contextmanager
def _started(
    config: ConfigT,
    source: Source,
    modules: Modules,
    about_data: Mapping[str, Any] | None,
    label: str,
    page: Page | None,
    how_to_resume_group: str | None = None,
) -> Iterator[Run[ConfigT]]:
    _check_batch_size(config, source)
    check_event_log(config)
    devices = find_devices(config)
    data_on = _place(config, source)
    is_alone = how_to_resume_group is None
    if config.self_check and is_alone:
        _self_check(find_device(config.device))
    descriptions = {name: torch_weights.describe(module) for name, module in _named(modules).items()}
    data_sha256 = digest(source.arrays)
    check_processes_agree(config, data_sha256)
    begins = processes.decided(lambda: decide(config, data_sha256))
    weights = _starting_weights(modules, getattr(config, "weights", None)) if isinstance(begins, New) else None
    content = record(config, data_sha256, about_data)
    how_to_resume = how_to_resume_group or resume_command(config)
    setup = Setup(source, modules, descriptions, content, devices, begins, weights, how_to_resume, page, data_on)
    layout = Layout(config.folder)
    with locked(layout.folder, layout.lock), Progress(label) as progress:
        check_all_see(layout.folder)
        if is_alone and not isinstance(begins, Finished):
            announce(layout, content, devices, models_of(config).number, data_on)
        run = Run(config, setup, progress)
        yield run
        run.finish()


def _check_batch_size(config: Config, source: Source) -> None:
    try:
        check_batch_size(config.batch_size, source.size)
    except InputError:
        raise InputError(
            f"{option('batch_size', config.batch_size)}: there are only {source.size:,} images or windows to train on; "
            f"{option('batch_size', source.size)} is the most"
        ) from None


def _place(config: Config, source: Source) -> Place:
    """Where the data are kept."""
    device = find_device(config.device)
    try:
        return processes.decided(lambda: choose(config.data_on, source.arrays, source.piece is not None, device))
    except InputError as error:
        raise InputError(f"{option('data_on', config.data_on)}: {error}") from None


def _named(modules: Modules) -> Mapping[str, Any]:
    return modules if isinstance(modules, Mapping) else {} if modules is None else {"model": modules}


def _self_check(device: jax.Device) -> None:
    worst = selfcheck.check(device)
    say(f"self-check: operations and gradients agree with float64 to {worst:.0e}")


def _starting_weights(modules: Modules, sources: Any) -> PyTree:
    """The variables in the files that `config.weights` names: a file, or one for each of several networks."""
    if sources is None:
        return None
    if isinstance(modules, Mapping):
        return torch_weights.load_all(modules, sources)
    return torch_weights.load(modules, sources)


class Group(Generic[ConfigT]):
    """Several runs of one configuration, each in a folder of its own within the group's; from `start_group`."""

    def __init__(self, config: ConfigT, source: Source, content: Mapping[str, Any], page: Page | None) -> None:
        self.config = config
        self._layout = Layout(config.folder)
        self.failures: list[str] = []
        self.figures: dict[str, float] = {}
        self._source = source
        self._content = content
        self._how_to_resume = resume_command(config)
        self._page = page

    @contextlib.contextmanager
    def start(self, name: str, modules: Modules = None, **changes: Any) -> Iterator[Run[ConfigT]]:
        """`start` the run `name` with some fields changed; it is resumed if it had begun."""
        folder = self.config.folder / name
        resume = self.config.resume and Layout(folder).read_config() is not None
        config = self.config.replace(out=folder, resume=resume, **changes)
        with _started(config, self._source, modules, self._content["data"], name, None, self._how_to_resume) as run:
            yield run

    def title(self, what: str = "", epoch: int | None = None) -> str:
        """A title for a picture, as that of a `Run`."""
        return title(self._content, what, epoch)

    def picture(self, name: str, image: Picture, epoch: int | None = None) -> None:
        """Write `NAME.png` into the folder of an epoch, or of the end, beside the runs' folders.

        Args:
            name: the file's name without suffix.
            image: the picture, or a function that draws it. A function that fails costs the picture, not the run.
            epoch: the epoch; None for the end.
        """
        if not processes.is_first():
            return
        folder = self._layout.final if epoch is None else self._layout.epoch(epoch)
        content = b""
        with surviving(name, self.failures.append):
            content = png(image)
        if content:
            write(folder / f"{name}.png", content)

    def results(self, figures: Mapping[str, float]) -> None:
        """Add figures of the comparison to the group's `finished.json` and outcome."""
        self.figures |= figures

    def outcome(self, outcomes: Mapping[str, Outcome]) -> Outcome:
        """What the runs came to together, given what each came to."""
        return Outcome(
            self.config.folder,
            {name: outcome.history for name, outcome in outcomes.items()},
            {f"{name}_{key}": value for name, each in outcomes.items() for key, value in each.results.items()}
            | self.figures,
            {name: outcome.module for name, outcome in outcomes.items()},
            {name: outcome.variables for name, outcome in outcomes.items()},
            pictures_in(self._layout.final),
            (*(f"{name}: {said}" for name, each in outcomes.items() for said in each.failures), *self.failures),
        )


@contextlib.contextmanager
def start_group(
    config: ConfigT,
    data: Source | PyTree,
    *,
    about_data: Mapping[str, Any] | None = None,
    page: Page | None = None,
) -> Iterator[Group[ConfigT]]:
    """The folder of several runs, new or resumed, under the conditions of `start`.

    Args:
        config: the configuration that they share.
        data: as `start` takes it.
        about_data: as `start` takes it.
        page: as `start` takes it; each run has a page of its own, and the group has one at its end.

    Yields:
        The group.
    """
    source = as_source(data)
    with session(config) as config:
        _check_batch_size(config, source)
        check_event_log(config)
        devices = find_devices(config)
        if config.self_check:
            _self_check(find_device(config.device))
        data_sha256 = digest(source.arrays)
        layout = Layout(config.folder)
        check_processes_agree(config, data_sha256)
        processes.decided(lambda: _decide_group(config, data_sha256))
        content = record(config, data_sha256, about_data)
        with locked(layout.folder, layout.lock):
            check_all_see(layout.folder)
            announce(layout, content, devices, models_of(config).number, _place(config, source))
            if processes.is_first():
                write_record(layout, content, config, devices)
                layout.remove_later(-1)  # comparisons are made anew from the runs' own files
            group = Group(config, source, content, page)
            try:
                yield group
            except InputError:
                if processes.is_first() and not any(config.folder.glob("*/config.json")):  # no run has begun
                    layout.config.unlink()
                    layout.environment.unlink()
                raise
            if not processes.is_first():
                return
            came_to = {"epochs": config.epochs, "epoch": config.epochs, "step": 0, "results": group.figures}
            write_json(layout.finished, came_to)
            if page is not None and config.report != "none":
                with surviving("the page of the runs", group.failures.append):
                    say(f"page      {page(layout.folder, config.report)}")


def _decide_group(config: Config, data_sha256: str) -> None:
    """Raise InputError where one of the group's runs could not be resumed, before anything is changed on disk."""
    decide(config, data_sha256)
    if config.resume:
        for begun in sorted(config.folder.glob("*/config.json")):
            decide(config.replace(out=begun.parent), data_sha256)
