"""A run: a training with its folder, log, progress, signals and errors."""

import contextlib
import hashlib
import io
import os
import shlex
import shutil
import sys
import types
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from PIL import Image

from jaxgen import pictures, selfcheck, torch_weights
from jaxgen.durable import write, write_json
from jaxgen.errors import InputError
from jaxgen.precision import in_precision
from jaxgen.runs import checkpoint
from jaxgen.runs.bad_steps import BadStep, find_bad_step
from jaxgen.runs.config import Config, is_on_command_line, option
from jaxgen.runs.devices import find_devices
from jaxgen.runs.environment import environment
from jaxgen.runs.layout import VERSION, Layout
from jaxgen.runs.lock import locked
from jaxgen.runs.log import Log
from jaxgen.runs.outcome import History, Outcome, pictures_in
from jaxgen.runs.progress import Progress
from jaxgen.runs.resume import At, Finished, New, Start, decide, newest_good
from jaxgen.runs.session import session
from jaxgen.signals import available, say, stop_on_signals
from jaxgen.training import Carry, Loop, PyTree, Recipe, Slice, Source, as_source, check_batch_size

ConfigT = TypeVar("ConfigT", bound=Config)
When = int | Sequence[int]  # every n epochs from 0 on, or after these epochs; and always at the end
Drawing = tuple[When, Callable[[int, PyTree], object]]  # draw(finished epochs, state)
Notes = Mapping[str, Callable[[Mapping[str, float]], bool]]  # text -> whether it is true of an epoch's metrics
Modules = Any  # a Flax module, a mapping of names to modules, or None
Picture = Image.Image | Callable[[], Image.Image]

STOP_SIGNALS = available("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Interrupted(KeyboardInterrupt):
    """A signal ended the run. The message says where it stands and how to go on.

    No `Exception`, so that JAX does not catch it where it starts a backend or reads what it compiled before.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def start(
    config: ConfigT,
    data: Source | PyTree,
    modules: Modules = None,
    *,
    about_data: Mapping[str, Any] | None = None,
    label: str = "",
) -> Iterator["Run[ConfigT]"]:
    """A run with this configuration on this data; with `config.resume`, the one in its folder goes on.

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

    Yields:
        The run, on which `fit` is called once.

    Raises:
        InputError: the folder, the device, the batch size, the starting weights or the run to go on with does not fit.
    """
    with session(config) as settled, _started(settled, as_source(data), modules, about_data, label) as run:
        yield run


@contextlib.contextmanager
def _started(
    config: ConfigT, source: Source, modules: Modules, about_data: Mapping[str, Any] | None, label: str, group: str = ""
) -> Iterator["Run[ConfigT]"]:
    check_batch_size(config.batch_size, source.size)
    devices = find_devices(config)
    if config.self_check and not group:
        _self_check(devices[0])
    descriptions = {name: torch_weights.describe(module) for name, module in _named(modules).items()}
    data_sha256 = digest(source.arrays)
    begins = decide(config, data_sha256)
    weights = _starting_weights(modules, getattr(config, "weights", None)) if isinstance(begins, New) else None
    about = _about(config, data_sha256, about_data)
    layout = Layout(config.folder)
    with locked(layout.folder, layout.lock), Progress(label) as progress:
        if not group:
            _announce(about, devices, layout.folder, begins)
        how_to_resume = group or resume_command(config)
        run = Run(config, source, modules, descriptions, about, devices, progress, begins, weights, how_to_resume)
        yield run
        run.finish()


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


def _about(config: Config, data_sha256: str, about_data: Mapping[str, Any] | None) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "layout": VERSION,
        "experiment": config.experiment,
        "options": config.stored(),
        "data_sha256": data_sha256,
        "data": dict(about_data or {}),
    }


def _announce(about: Mapping[str, Any], devices: Sequence[jax.Device], folder: Path, begins: Start) -> None:
    """The first lines of a run: what it learns from, where it computes, and where it writes."""
    if isinstance(begins, Finished):
        return
    if data := about["data"]:
        size = "×".join(map(str, (*data["size"], data["channels"])))
        classes = len(data.get("classes", ()))
        held_out = f"{data['held_out']:,}" if data.get("held_out") else "none"
        kinds = f", {classes} classes" if classes > 1 else ""
        say(f"data      {data['name']}: {data['images']:,} images of {size}{kinds}; {held_out} held out")
    shared = f", {len(devices)} devices sharing each batch" if len(devices) > 1 else ""
    say(f"device    {devices[0].platform}:{devices[0].id} ({devices[0].device_kind}){shared}")
    say(f"folder    {folder}")


def digest(arrays: PyTree) -> str:
    """The SHA-256 of arrays' types, shapes and contents."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        total.update(f"{leaf.dtype}{leaf.shape}".encode())
        total.update(np.ascontiguousarray(leaf).data)
    return total.hexdigest()


def resume_command(config: Config) -> str:
    """How to go on with a run that was stopped: a command, or in Python a call."""
    if not is_on_command_line():
        fields = [option("out", config.out)] if config.out else []
        return f"main(Config({', '.join([*fields, 'resume=True'])}))"
    out = f" --out {shlex.quote(str(config.out))}" if config.out else ""
    return f"{program(config)}{out} --resume"


def program(config: Config) -> str:
    """The words that start this experiment: with the interpreter in use, and as a module or a script."""
    python = next((name for name in ("python", "python3") if shutil.which(name) == sys.executable), None)
    if python is None:
        relative = os.path.relpath(sys.executable) if sys.executable.startswith(os.getcwd() + os.sep) else None
        python = relative or sys.executable or "python"
    main = sys.modules["__main__"]
    if type(config).__module__ == "__main__" and getattr(main, "__spec__", None) is None:
        return f"{shlex.quote(python)} {shlex.quote(sys.argv[0])}"
    return f"{shlex.quote(python)} -m {config.experiment}"


class _NotWrittenError(OSError):
    """A picture was drawn, but the disk failed."""


@contextlib.contextmanager
def _surviving(what: str, note: Callable[[str], object]) -> Iterator[None]:
    """Go on where a picture cannot be drawn, whatever the reason, with one line about it.

    Args:
        what: the picture.
        note: called with the line.

    Raises:
        OSError: the picture was drawn but could not be written.
    """
    try:
        yield
    except _NotWrittenError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # a C module that was being imported made it of a signal
            raise
        why = " ".join([f"{type(error).__name__}:", *str(error).split()])[:300].rstrip(":")
        text = f"{what} was not drawn: {why}"
        note(text)
        say(text, error=True)


class Run(Generic[ConfigT]):
    """A run under way, as `start` gives it."""

    def __init__(
        self,
        config: ConfigT,
        source: Source,
        modules: Modules,
        descriptions: Mapping[str, Any],
        about: Mapping[str, Any],
        devices: Sequence[jax.Device],
        progress: Progress,
        begins: Start,
        weights: PyTree,
        how_to_resume: str,
    ) -> None:
        self.config = config
        self.folder = config.folder
        self.layout = Layout(config.folder)
        self.source = source
        self.modules = modules
        self.devices = devices
        self.begins = begins
        self.history: History = {}
        self.figures: dict[str, float] = {}
        self.failures: list[str] = []
        self._descriptions = descriptions
        self._about = about
        self._progress = progress
        self._starting_weights = weights
        self._how_to_resume = how_to_resume
        self._log = Log(self.layout)
        self._noted: set[str] = set()
        self._places: list[Path] | None = None  # where pictures go; None before training, when they wait
        self._waiting: list[Callable[[], None]] = []

    # ---- For the code of an experiment ----

    def key(self, use: str, number: int = 0) -> jax.Array:
        """A PRNG key that follows from the run's seed, named for its use; `number` tells several of one use apart."""
        return key_of(self.config, use, number)

    def picture(self, name: str, image: Picture) -> None:
        """Write `NAME.png`, into the folder of the epoch that is being drawn, or of the end.

        Args:
            name: the file's name without suffix.
            image: the picture, or a function that draws it. A function that fails costs the picture, not the run.
        """
        self._write(f"{name}.png", lambda: pictures.png(image() if callable(image) else image))

    def animation(self, name: str, frames: Sequence[Image.Image] | Callable[[], Sequence[Image.Image]]) -> None:
        """Write `NAME.gif`, as `picture` does."""
        self._write(f"{name}.gif", lambda: pictures.gif(frames() if callable(frames) else frames))

    def frames(self, name: str) -> list[Image.Image]:
        """The pictures `NAME.png` of all epochs, in order."""
        paths = (folder / f"{name}.png" for folder in self.layout.drawn_epochs())
        return [_opened(path) for path in paths if path.exists()]

    def weights(self, variables: PyTree) -> None:
        """Write the weights beside the pictures of the epoch that is being drawn, as `NAME.safetensors`."""
        for name, content in self._weights_files(variables).items():
            self._write(name, partial(bytes, content))

    def results(self, figures: Mapping[str, Any]) -> None:
        """Figures of the trained model, for `finished.json`, the outcome and the screen."""
        if isinstance(self.begins, Finished):
            return
        self.figures |= {name: float(value) for name, value in figures.items()}
        self._progress.close()
        say("  ".join(f"{name} {float(value):.5g}" for name, value in figures.items()))

    def fit(
        self,
        recipe: Recipe[Any],
        drawings: Sequence[Drawing] = (),
        *,
        best: str | None = None,
        notes: Notes = types.MappingProxyType({}),
        measure: Callable[[PyTree], Mapping[str, Any]] | None = None,
        each: Callable[[Slice], object] | None = None,
    ) -> tuple[PyTree, History]:
        """Train to `config.epochs`, from the newest checkpoint if the run is resumed.

        Args:
            recipe: how a step learns.
            drawings: pairs (when, draw). `draw(epoch, state)` is called at epoch 0 (untrained), every `when` epochs,
                or after the epochs in `when`; and at the end.
            best: the metric whose smallest value marks a checkpoint to keep beside the newest.
            notes: texts for the log and the screen, each once, after the first epoch whose metrics it is true of.
            measure: `(state) -> {name: number}`, called after every epoch; its figures join the epoch's metrics.
            each: called with a `training.Slice` about every half second; a true result ends the training, which then
                counts as finished.

        Returns:
            The trained state, and the history: the mean of every metric in every epoch.

        Raises:
            Interrupted: a signal stopped the run; everything is saved.
            FloatingPointError: a value was not finite; the message names the step.
        """
        recipe = in_precision(recipe, self.config.precision)
        self._recipe, self._drawings, self._best = recipe, drawings, best
        self._notes, self._measure, self._each = notes, measure, each
        self._loop = Loop(recipe, self.source, self.config.batch_size, self.devices)
        with stop_on_signals(STOP_SIGNALS, self._say_stopping, self._aborted) as self._stop:
            if isinstance(self.begins, New):
                carry = self._loop.initial(self.key("init"), self._starting_weights)
                self._describe()
                epoch, step, seconds = 0, 0, 0.0
                self._draw(0, carry.state, self._due(0))
                self._save(carry, 0, 0, 0.0)
            else:
                carry, epoch, step, seconds = self._restored(self.begins)
            if isinstance(self.begins, Finished):
                say(f"{self.folder}: already at epoch {epoch}; nothing to do ({option('epochs')} asks for more)")
                self._at = epoch, step
            else:
                carry = self._train(carry, epoch, step, seconds)
                self._end(carry)
        self._trained = recipe.variables(carry.state)
        return carry.state, self.history

    @property
    def outcome(self) -> Outcome:
        """What the run came to, after its `with` statement."""
        results = self.begins.results if isinstance(self.begins, Finished) else self.figures
        last = pictures_in(self.layout.final)
        return Outcome(self.folder, self.history, results, self.modules, self._trained, last, tuple(self.failures))

    # ---- Writing ----

    def _write(self, name: str, make: Callable[[], bytes]) -> None:
        if isinstance(self.begins, Finished):
            return
        if self._places is None:  # training has not begun, and its folder may turn out not to fit
            self._waiting.append(lambda: self._write(name, make))
            return
        with _surviving(name, self._note_failure):
            content = make()
            try:
                for folder in self._places:
                    write(folder / name, content)
            except OSError as error:
                raise _NotWrittenError(error.errno, error.strerror or str(error), error.filename) from error

    def _note_failure(self, text: str) -> None:
        self.failures.append(text)
        self._log.event({"event": "failure", "epoch": self._at[0], "step": self._at[1], "text": text})

    def _due(self, epoch: int) -> list[tuple[Drawing, list[Path]]]:
        """The drawings of an epoch, and the folders that they go to."""
        is_last = epoch == self.config.epochs
        folders = [
            (drawing, [self.layout.epoch(epoch)] if _is_due(drawing[0], epoch) else []) for drawing in self._drawings
        ]
        return [(drawing, [*places, *([self.layout.final] if is_last else [])]) for drawing, places in folders]

    def _draw(self, epoch: int, state: PyTree, drawings: Sequence[tuple[Drawing, list[Path]]]) -> None:
        self._at = epoch, 0
        self._places = [self.layout.epoch(0)]
        while self._waiting:
            self._waiting.pop(0)()
        for (_, draw), places in drawings:
            if places:
                self._places = places
                with _surviving(f"a picture of epoch {epoch}", self._note_failure):
                    draw(epoch, state)
        self._places = [self.layout.final]

    def _describe(self) -> None:
        """Write `config.json` and `environment.json`."""
        write_json(self.layout.config, self._about)
        write_json(self.layout.environment, environment(self.config, self.devices))

    def _weights_files(self, variables: PyTree) -> dict[str, bytes]:
        """The weights of each network under PyTorch's names, by file name."""
        about = {"experiment": self.config.experiment, "config": self.config.fixed(), "data": self._about["data"]}
        files = {}
        for name, its_variables in networks(variables).items():
            described = about | {"module": self._descriptions.get(name)}
            tensors = torch_weights.flatten(its_variables)
            files[f"{name}.safetensors"] = torch_weights.to_safetensors(tensors, described)
        return files

    def _save(self, carry: Carry, epoch: int, step: int, seconds: float) -> None:
        """Write a checkpoint, and before it the log that belongs to it."""
        self._log.sync()
        about = {
            "epoch": epoch, "step": step, "seconds": seconds, "tree": _shapes(carry),
            "figure": self.history[self._best][-1] if self._best and epoch and not step else None,
        }  # fmt: skip
        path = checkpoint.save(
            self.layout.checkpoints, epoch * self._loop.steps + step, carry._asdict(), about,
            keep=self.config.keep, files=self._weights_files(self._recipe.variables(carry.state)),
        )  # fmt: skip
        self._log.event({"event": "checkpoint", "epoch": epoch, "step": step, "name": path.name})

    def _restored(self, begins: At | Finished) -> tuple[Carry, int, int, float]:
        """Carry, epoch, step and seconds of the checkpoint. What is later than it is removed from the folder."""
        about, like = begins.about, self._loop.shapes()
        if difference := _first_difference(about["tree"], _shapes(like)):
            raise InputError(
                f"{begins.checkpoint}: not a checkpoint of this recipe: {difference}; name another folder with "
                f"{option('out')}"
            )
        epoch, step = about["epoch"], about["step"]
        lines, events = self._log.until(epoch, step)
        for line in lines:
            self._remember(line)
        self._noted = {line["text"] for line in events if line["event"] == "note"}
        carry = Carry(**checkpoint.restore(begins.checkpoint, like._asdict()))
        carry = jax.device_put(carry, self.devices[0])
        if isinstance(begins, At):
            self._describe()
            for bad, why in begins.damaged:
                bad.rename(bad.with_name(f"damaged-{bad.name}"))
                say(f"set aside as damaged-{bad.name}: {why}", error=True)
            self._log.remove_later(epoch, step)
            self.layout.remove_later(epoch)
            self._draw(epoch, carry.state, [])  # what was waiting
        return carry, epoch, step, about["seconds"]

    # ---- Training ----

    def _train(self, carry: Carry, epoch: int, step: int, seconds: float) -> Carry:
        """Train until the epochs are finished, `each` ends it, or a signal stops it."""
        pieces = self._slices(carry, epoch, step)
        skipped: set[tuple[int, int]] = set()
        if epoch < self.config.epochs:
            say("compiling the training step, once")
        self._progress.begin(self.config.epochs, self._loop.steps)
        self._stop_if_asked(carry, epoch, step, seconds, saved=True)
        before = epoch, step
        while (piece := next(pieces, None)) is not None:
            carry = piece.carry
            if int(carry.bad_step) >= 0:
                bad = self._examine(piece, skipped)
                skipped.add((bad.epoch, bad.step))
                carry, pieces = bad.before, self._slices(bad.before, bad.epoch, bad.step + 1)
                before = bad.epoch, bad.step + 1
                continue
            seconds += piece.seconds
            steps = (piece.epoch - before[0]) * self._loop.steps + piece.step - before[1]
            before = self._at = piece.epoch, piece.step
            self._progress.update(*self._at, steps, piece.seconds)
            saved = False
            if piece.metrics is not None:
                self._epoch_ended(piece, seconds)
                seconds = 0.0
                saved = piece.epoch % self.config.save_every == 0 or piece.epoch == self.config.epochs
                if piece.epoch == self.config.epochs:
                    self._write_final_weights(carry)
                self._draw(piece.epoch, carry.state, self._due(piece.epoch))
                if saved:
                    self._save(carry, piece.epoch, 0, 0.0)
            if self._each is not None and self._each(piece):
                if not saved:
                    self._save(carry, *self._at, seconds)
                return carry
            self._stop_if_asked(carry, *self._at, seconds, saved=saved)
        self._at = self.config.epochs, 0
        return carry

    def _slices(self, carry: Carry, epoch: int, step: int) -> Iterator[Slice]:
        return self._loop.slices(carry, epochs=self.config.epochs, key=self.key("training"), epoch=epoch, step=step)

    def _end(self, carry: Carry) -> None:
        """Write the weights and draw what is drawn at the end, where that was not done with the last epoch."""
        self._progress.close()
        say("finishing: the weights and the last pictures")
        if not self.layout.final.exists():  # the run was stopped after its last epoch, or ended early
            self._write_final_weights(carry)
            self._draw(self._at[0], carry.state, [(drawing, [self.layout.final]) for drawing in self._drawings])
        self._places = [self.layout.final]

    def _write_final_weights(self, carry: Carry) -> None:
        for name, content in self._weights_files(self._recipe.variables(carry.state)).items():
            write(self.layout.final / name, content)

    def _epoch_ended(self, piece: Slice, seconds: float) -> None:
        """One line in `metrics.jsonl`, and one on the screen. `seconds` are of training, not of drawing or saving."""
        metrics = dict(piece.metrics or {})
        if self._measure is not None:
            metrics |= {name: float(value) for name, value in self._measure(piece.carry.state).items()}
        line = {"epoch": piece.epoch, **metrics, "seconds": round(seconds, 4)}
        self._log.epoch(line)
        self._remember(line)
        self._progress.epoch(piece.epoch, metrics, seconds)
        for text, is_true in self._notes.items():
            if text not in self._noted and is_true(metrics):
                self._noted.add(text)
                self._log.event({"event": "note", "epoch": piece.epoch, "step": 0, "text": text})
                self._progress.say(f"epoch {piece.epoch}: {text}")

    def _remember(self, line: Mapping[str, float]) -> None:
        for name, value in line.items():
            if name != "epoch":
                self.history.setdefault(name, []).append(value)

    def _examine(self, noticed: Slice, skipped: Collection[tuple[int, int]]) -> BadStep:
        """The step after which a value was not finite, which the log and the screen name.

        Raises:
            FloatingPointError: that is to end the run; always where the step before was skipped already, or the step
                is not found.
        """
        path, about, _ = newest_good(self.layout)
        self._progress.say(f"a value is not finite; looking for the step, from checkpoint {path.name} on")
        self._stop.stops_now = True
        if self._stop.number is not None:
            raise self._aborted(self._stop.number)
        carry = Carry(**checkpoint.restore(path, noticed.carry._asdict()))
        bad = find_bad_step(
            self._loop, carry, key=self.key("training"), epochs=noticed.epoch + (noticed.metrics is None),
            epoch=about["epoch"], step=about["step"], skipped=skipped,
        )  # fmt: skip
        self._stop.stops_now = False
        if bad is None:
            raise FloatingPointError(
                f"a value was not finite, but all were when the steps from {path} on were repeated: the device does "
                f"not compute the same twice; that checkpoint is good; to go on from there: {self._how_to_resume}"
            )
        may_skip = self.config.on_nan == "skip" and self._loop.steps > 1
        skip = may_skip and (bad.epoch, bad.step - 1) not in skipped
        self._log.event(
            {
                "event": "not finite", "epoch": bad.epoch, "step": bad.step + 1, "tensor": bad.tensor, "rows": bad.rows,
                "from": path.name, "then": "skip" if skip else "stop",
            }
        )  # fmt: skip
        said = f"epoch {bad.epoch + 1}, step {bad.step + 1}: the first value that is not finite: {bad.tensor}"
        if skip:
            self._progress.say(f"{said}; the step is skipped")
            return bad
        remedy = "consecutive bad steps are not skipped" if may_skip else f"{option('on_nan', 'skip')} skips the step"
        raise FloatingPointError(f"{said}; {path} is good; to go on from there: {self._how_to_resume} ({remedy})")

    # ---- Stopping ----

    def _say_stopping(self) -> None:
        say("stopping: saving after the current step; a signal in a moment aborts at once", error=True)

    def _stop_if_asked(self, carry: Carry, epoch: int, step: int, seconds: float, *, saved: bool) -> None:
        if self._stop.number is None:
            return
        if not saved:
            self._save(carry, epoch, step, seconds)
        raise Interrupted(
            self._stop.number,
            f"stopped and saved after {epoch} epochs and {step} steps; to go on: {self._how_to_resume}",
        )

    def _aborted(self, number: int) -> Interrupted:
        return Interrupted(number, f"stopped; what was saved is intact; to go on: {self._how_to_resume}")

    def finish(self) -> None:
        """Mark the run as finished, and say where its results are. Called at the end of the `with` statement."""
        if isinstance(self.begins, Finished):
            return
        epoch, step = self._at
        write_json(
            self.layout.finished,
            {"epochs": max(epoch, self.config.epochs), "epoch": epoch, "step": step, "results": self.figures},
        )
        last = list(pictures_in(self.layout.final).values())
        self._progress.results(self.folder, epoch, self.history, last)


class Group(Generic[ConfigT]):
    """Several runs of one configuration, each in a folder of its own within the group's; from `start_group`."""

    def __init__(self, config: ConfigT, source: Source, about: Mapping[str, Any]) -> None:
        self.config = config
        self.layout = Layout(config.folder)
        self.failures: list[str] = []
        self._source = source
        self._about = about
        self._how_to_resume = resume_command(config)

    @contextlib.contextmanager
    def start(self, name: str, modules: Modules = None, **changes: Any) -> Iterator[Run[ConfigT]]:
        """`start` the run `name` with some fields changed; it goes on if it had begun."""
        folder = self.config.folder / name
        resume = self.config.resume and Layout(folder).read_config() is not None
        config = self.config.replace(out=folder, resume=resume, **changes)
        with _started(config, self._source, modules, self._about["data"], name, self._how_to_resume) as run:
            yield run

    def picture(self, name: str, image: Picture, epoch: int | None = None) -> None:
        """Write `NAME.png` into the folder of an epoch, or of the end, beside the runs' folders.

        Args:
            name: the file's name without suffix.
            image: the picture, or a function that draws it. A function that fails costs the picture, not the run.
            epoch: the epoch; None for the end.
        """
        folder = self.layout.final if epoch is None else self.layout.epoch(epoch)
        content = None
        with _surviving(name, self.failures.append):
            content = pictures.png(image() if callable(image) else image)
        if content is not None:
            write(folder / f"{name}.png", content)

    def outcome(self, outcomes: Mapping[str, Outcome]) -> Outcome:
        """What the runs came to together, given what each came to."""
        return Outcome(
            self.config.folder,
            {name: outcome.history for name, outcome in outcomes.items()},
            {f"{name}_{key}": value for name, each in outcomes.items() for key, value in each.results.items()},
            {name: outcome.module for name, outcome in outcomes.items()},
            {name: outcome.variables for name, outcome in outcomes.items()},
            pictures_in(self.layout.final),
            (*(f"{name}: {said}" for name, each in outcomes.items() for said in each.failures), *self.failures),
        )


@contextlib.contextmanager
def start_group(
    config: ConfigT, data: Source | PyTree, *, about_data: Mapping[str, Any] | None = None
) -> Iterator[Group[ConfigT]]:
    """The folder of several runs, new or resumed, under the conditions of `start`."""
    source = as_source(data)
    with session(config) as config:
        check_batch_size(config.batch_size, source.size)
        devices = find_devices(config)
        if config.self_check:
            _self_check(devices[0])
        data_sha256 = digest(source.arrays)
        layout = Layout(config.folder)
        _decide_group(config, data_sha256)
        about = _about(config, data_sha256, about_data)
        with locked(layout.folder, layout.lock):
            _announce(about, devices, layout.folder, New())
            write_json(layout.config, about)
            write_json(layout.environment, environment(config, devices))
            layout.remove_later(-1)  # comparisons are made anew from the runs' own files
            yield Group(config, source, about)
            write_json(layout.finished, {"epochs": config.epochs, "epoch": config.epochs, "step": 0, "results": {}})


def _decide_group(config: Config, data_sha256: str) -> None:
    """Raise InputError where one of the group's runs could not go on, before anything is changed on disk."""
    decide(config, data_sha256)
    if config.resume:
        for begun in sorted(config.folder.glob("*/config.json")):
            decide(config.replace(out=begun.parent), data_sha256)


def key_of(config: Config, use: str, number: int = 0) -> jax.Array:
    """The key that a run with this configuration has for a use."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(use.encode())), number)


def _is_due(when: When, epoch: int) -> bool:
    return epoch % when == 0 if isinstance(when, int) else epoch in when


def networks(variables: PyTree) -> dict[str, PyTree]:
    """`{"model": variables}` for one network; for several, the mapping that they come as."""
    return {"model": variables} if "params" in variables else variables


def _shapes(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _first_difference(there: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    for name in [*wanted, *there]:
        if there.get(name) != wanted.get(name):
            return f"{name} is {there.get(name, 'missing')}, wanted {wanted.get(name, 'nothing')}"
    return None


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def write_samples(config: Config, samples: jax.Array, columns: int = 16) -> None:
    """Write images `[N, H, W, C]` in 0..1, drawn with `config.seed`, as a picture and an array into `samples/`."""
    array = io.BytesIO()
    np.save(array, np.asarray(samples))
    name = f"{len(samples)}_of_seed_{config.seed}"
    sheet = pictures.png(pictures.grid(samples, columns))
    write_extra(config, {f"{name}.png": sheet, f"{name}.npy": array.getvalue()})


def write_extra(config: Config, files: Mapping[str, bytes]) -> None:
    """Write files, by name, into `samples/` of the run's folder, and print their paths."""
    for name, content in files.items():
        path = config.folder / "samples" / name
        write(path, content)
        say(str(path))
