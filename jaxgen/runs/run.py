"""A run under way: training with a log, checkpoints, pictures and clean stops."""

import json
import time
import types
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import jax
from PIL import Image

from jaxgen import parallel, pictures, processes
from jaxgen.durable import write, write_json
from jaxgen.errors import InputError
from jaxgen.precision import in_precision
from jaxgen.recipes import averaged
from jaxgen.runs import checkpoint
from jaxgen.runs.bad_steps import BadStep, SearchStoppedError, find_bad_step
from jaxgen.runs.config import Config, option
from jaxgen.runs.event_log import EventLog
from jaxgen.runs.layout import Layout
from jaxgen.runs.log import Log
from jaxgen.runs.models import by_name, models_of, of_model, spread, table
from jaxgen.runs.outcome import History, Outcome, pictures_in
from jaxgen.runs.outputs import Frames, Outputs, Picture, surviving, weights_files
from jaxgen.runs.progress import Progress
from jaxgen.runs.record import title, write_record
from jaxgen.runs.results import Results
from jaxgen.runs.resume import At, Finished, New, Start, newest_good
from jaxgen.runs.room import check_memory
from jaxgen.signals import available, say, stop_on_signals
from jaxgen.staging import Place
from jaxgen.training import Carry, Loop, PyTree, Recipe, Slice, Source

ConfigT = TypeVar("ConfigT", bound=Config)
When = int | Sequence[int]  # every n epochs from 0 on, or after these epochs; and always at the end
Drawing = tuple[When, Callable[[int, PyTree], object]]  # draw(finished epochs, state)
Page = Callable[[Path, Literal["plain", "live"]], object]  # writes the page of a run into its folder
Notes = Mapping[str, Callable[[Mapping[str, float]], bool]]  # text -> whether it is true of an epoch's metrics

STOP_SIGNALS = available("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")


class Interrupted(KeyboardInterrupt):
    """A signal ended the run. The message says where it stands and how to resume it.

    No `Exception`, so that JAX does not catch it where it starts a backend or reads what it compiled before.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Position(NamedTuple):
    """How far a training has come."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the current epoch
    seconds: float = 0.0  # of training in the current epoch


class Setup(NamedTuple):
    """What `start` has found out and checked for a run."""

    source: Source
    modules: Any  # a Flax module, a mapping of names to modules, or None
    descriptions: Mapping[str, Any]  # what the modules are, by name
    record: Mapping[str, Any]  # the content of `config.json`
    devices: Sequence[jax.Device]  # that share every batch
    begins: Start
    weights: PyTree  # to start from
    how_to_resume: str
    page: Page | None
    data_on: Place  # where the data are kept


class Run(Generic[ConfigT]):
    """A run under way, as `start` gives it.

    Attributes:
        config: the configuration.
        folder: the run's folder.
        history: the mean of every metric in every epoch so far.
    """

    def __init__(self, config: ConfigT, setup: Setup, progress: Progress) -> None:
        self.config = config
        self.folder = config.folder
        self.history: History = {}
        self._setup = setup
        self._progress = progress
        self._layout = Layout(config.folder)
        self._log = Log(self._layout)
        self._models = models_of(config)
        self._outputs = Outputs(self._layout, self._log, self._models)
        self._results = Results()
        self._event_log = EventLog(self._layout, self._outputs.note) if config.tensorboard else None
        self._drawing = False
        self._measuring_seconds = self._training_seconds = 0.0
        self._page_seconds = 0.0
        self._noted: set[str] = set()
        self._at = Position()

    # ---- For the code of an experiment ----

    def key(self, use: str, number: int = 0) -> jax.Array:
        """A PRNG key that follows from the run's seed, named for its use; `number` tells several of one use apart."""
        return key_of(self.config, use, number)

    def title(self, what: str = "", epoch: int | None = None) -> str:
        """A title for a picture, such as `vae_mnist · mnist · epoch 5: latent plane`.

        Args:
            what: what the picture shows.
            epoch: the finished epochs of the model that it shows, if it shows one.
        """
        return title(self._setup.record, what, epoch)

    def picture(self, name: str, image: Picture, raw: Picture | None = None) -> None:
        """Write `NAME.png`, into the folder of the epoch that is being drawn, or of the end.

        Args:
            name: the file's name without suffix.
            image: the picture, or a function that draws it. A function that fails costs the picture, not the run.
            raw: the same without title, labels and enlargement, for `raw/NAME.png`.
        """
        if self._writes:
            self._outputs.picture(name, image, raw)

    def curves(self, name: str, metrics: Sequence[str], label: str, *, scale: str = "linear") -> None:
        """Write `NAME.png`, a plot of metrics over the epochs so far, unless there is none yet.

        Args:
            name: the file's name without suffix.
            metrics: their names, as in the history; of several models, the mean is drawn with a band of one standard
                deviation.
            label: the label of the vertical axis, which is also in the title.
            scale: its scale, "linear" or "log".
        """
        found = {key: values if len(values) > 1 else values[0] for key, values in by_name(self.history).items()}
        shown = {metric: found[metric] for metric in metrics if metric in found}
        heading = self.title(label)
        if shown and self._writes:
            self._outputs.of_all_models(
                name, lambda: pictures.curves(shown, list(shown), label, scale=scale, title=heading)
            )

    def animation(self, name: str, frames: Frames) -> None:
        """Write `NAME.gif`, as `picture` does."""
        if self._writes:
            self._outputs.animation(name, frames)

    def values(self, name: str, values: Mapping[str, Any]) -> None:
        """Write `NAME.json`, as `picture` does."""
        if self._writes:
            self._outputs.of_network(f"{name}.json", json.dumps(values, indent=1).encode())

    def frames(self, name: str) -> list[Image.Image]:
        """The pictures `NAME.png` of all epochs, in order."""
        paths = (folder / f"{name}.png" for folder in self._layout.drawn_epochs())
        return [_opened(path) for path in paths if path.exists()]

    def weights(self, variables: PyTree) -> None:
        """Write the weights beside the pictures of the epoch that is being drawn, as `NAME.safetensors`."""
        if self._writes:
            for name, content in self._weights_files(variables).items():
                self._outputs.of_network(name, content)

    def results(self, figures: Mapping[str, Any] | Callable[[], Mapping[str, Any]]) -> None:
        """Figures of the trained model: for `figures.json`, the screen and, at the end, the results of the run.

        Args:
            figures: numbers by name, each a float or a `metrics.Figure`; or a function that measures them. It is called
                unless the configuration has `metrics=False`, and its time is shown. While the untrained model is drawn
                it is not called, so that training begins sooner. A function that fails costs the figures, not the run.
        """
        if not self._writes:
            return
        began = time.monotonic()
        if not callable(figures):
            self._results.add(figures)
        elif self.config.metrics and not (self._drawing and self._at.epoch == 0):
            with surviving("a figure of quality", self._outputs.note):
                self._results.add(figures())
            self._measuring_seconds += time.monotonic() - began
        if not self._drawing:
            self._write_results([self._layout.final])

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
            drawings: pairs (when, draw). `draw(epoch, variables)` is called at epoch 0 (untrained), every `when`
                epochs, or after the epochs in `when`; and at the end. The variables are those of one model, as
                `recipe.variables` gives them; of several models, it is called for each.
            best: the metric whose smallest value marks a checkpoint to keep beside the newest; of several models, the
                mean of it.
            notes: texts for the log and the screen, each once, after the first epoch whose metrics it is true of.
            measure: `(variables) -> {name: number}`, called after every epoch; its figures join the epoch's metrics.
            each: called with a `training.Slice` about every second and a half, whose metrics include those of `measure`
                where it ends an epoch; a true result ends the training, which then counts as finished.

        Returns:
            The trained state, and the history: the mean of every metric in every epoch.

        Raises:
            Interrupted: a signal stopped the run; everything is saved.
            FloatingPointError: a value was not finite; the message names the step.
            InputError: the training takes more memory than there is.
        """
        recipe = in_precision(recipe, self.config.precision)
        recipe = self._models.recipe(averaged(recipe, self.config.ema) if self.config.ema else recipe)
        self._recipe, self._drawings, self._best = recipe, drawings, best
        self._notes, self._measure, self._each = notes, measure, each
        setup = self._setup
        self._loop = Loop(recipe, setup.source, self.config.batch_size, setup.devices, setup.data_on)
        check_memory(self.config, self._loop)
        with stop_on_signals(STOP_SIGNALS, self._say_stopping, self._aborted) as self._stop:
            begins = self._setup.begins
            carry = self._begun() if isinstance(begins, New) else self._restored(begins)
            if self._is_finished:
                say(
                    f"{self.folder}: already at epoch {self._at.epoch}; nothing to do ({option('epochs')} asks for "
                    "more)"
                )
            else:
                carry = self._train(carry)
                self._end(carry)
        self._trained = self._variables(carry)
        return carry.state, self.history

    @property
    def outcome(self) -> Outcome:
        """What the run came to, after its `with` statement."""
        begins, last = self._setup.begins, pictures_in(self._layout.final)
        results = begins.results if isinstance(begins, Finished) else self._results.at_end
        failures = tuple(self._outputs.failures)
        return Outcome(self.folder, self.history, results, self._modules(), self._trained, last, failures)

    def _modules(self) -> Any:
        """The modules in the form of the trained variables."""
        modules = self._setup.modules
        if not self._models.are_several or modules is None:
            return modules
        named = modules if isinstance(modules, Mapping) else {"model": modules}
        return {name: named[name.partition(".")[2]] for name in self._trained}

    @property
    def _is_finished(self) -> bool:
        """Whether the run was finished before, so that nothing is written."""
        return isinstance(self._setup.begins, Finished)

    @property
    def _writes(self) -> bool:
        """Whether this process writes the run: the first one does, unless the run was finished before."""
        return processes.is_first() and not self._is_finished

    # ---- Beginning and resuming ----

    def _begun(self) -> Carry:
        """The carry of a new training, once the untrained model is drawn and saved."""
        carry = self._loop.initial(self.key("init"), self._setup.weights)
        if self._writes:
            self._write_record()
            self._outputs.begin()
        self._draw(carry)
        self._save(carry)
        self._publish()
        return carry

    def _restored(self, begins: At | Finished) -> Carry:
        """The carry of a checkpoint. What is later than it is removed from the folder."""
        about, like = begins.about, self._loop.shapes()
        if difference := _first_difference(about["tree"], _shapes(like)):
            raise InputError(
                f"{begins.checkpoint}: not a checkpoint of this recipe: {difference}; name another folder with "
                f"{option('out')}"
            )
        self._at = at = Position(about["epoch"], about["step"], about["seconds"])
        lines, events = processes.decided(lambda: self._log.until(at.epoch, at.step))
        for line in lines:
            self._remember(line)
        self._noted = {line["text"] for line in events if line["event"] == "note"}
        carry = Carry(**checkpoint.restore(begins.checkpoint, like._asdict()))
        if isinstance(begins, At) and self._writes:
            self._write_record()
            for bad, why in begins.damaged:
                bad.rename(bad.with_name(f"damaged-{bad.name}"))
                say(f"set aside as damaged-{bad.name}: {why}", error=True)
            self._log.remove_later(at.epoch, at.step)
            self._layout.remove_later(at.epoch)
            self._outputs.begin()
        placed: Carry = jax.device_put(carry, self._loop.device)
        return placed

    def _write_record(self) -> None:
        write_record(self._layout, self._setup.record, self.config, self._setup.devices)

    # ---- Training ----

    def _train(self, carry: Carry) -> Carry:
        """Train until the epochs are finished, `each` ends it, or a signal stops it."""
        pieces, skipped = self._slices(carry), set[tuple[int, int]]()
        self._stop_if_asked(carry, saved=True)
        if self._at.epoch < self.config.epochs:
            say("compiling the training step, once")
        self._progress.begin(self.config.epochs, self._loop.steps)
        while (piece := next(pieces, None)) is not None:
            if int(piece.carry.bad_step) >= 0:
                bad = self._examine(piece, skipped)
                skipped.add((bad.epoch, bad.step))
                carry, self._at = bad.before, Position(bad.epoch, bad.step + 1, self._at.seconds)
                pieces = self._slices(carry)
                continue
            carry = piece.carry
            steps = (piece.epoch - self._at.epoch) * self._loop.steps + piece.step - self._at.step
            self._at = Position(piece.epoch, piece.step, self._at.seconds + piece.seconds)
            self._training_seconds += piece.seconds
            self._progress.update(piece.epoch, piece.step, steps, piece.seconds)
            piece = self._measured(piece)
            saved = piece.metrics is not None and self._epoch_ended(piece)
            if self._is_ended_by(piece):
                if not saved:
                    self._save(carry)
                return carry
            self._stop_if_asked(carry, saved=saved)
        return carry

    def _is_ended_by(self, piece: Slice) -> bool:
        """Whether `each` ends the training after this slice."""
        each = self._each
        return each is not None and processes.decided(lambda: bool(each(piece)))

    def _slices(self, carry: Carry) -> Iterator[Slice]:
        return self._loop.slices(
            carry, epochs=self.config.epochs, key=self.key("training"), epoch=self._at.epoch, step=self._at.step
        )

    def _epoch_ended(self, piece: Slice) -> bool:
        """Log, draw and save after an epoch.

        Returns:
            Whether there is a checkpoint.
        """
        self._log_epoch(piece)
        self._at = Position(piece.epoch)
        is_last = piece.epoch == self.config.epochs
        if is_last:
            self._write_final_weights(piece.carry)
        self._draw(piece.carry)
        is_due = is_last or piece.epoch % self.config.save_every == 0
        if is_due:
            self._save(piece.carry)
        self._publish()
        return is_due

    def _measured(self, piece: Slice) -> Slice:
        """The slice with the figures of `measure` among its metrics, where it ends an epoch."""
        if piece.metrics is None or self._measure is None:
            return piece
        measure, variables = self._measure, self._variables(piece.carry)

        def figures() -> dict[str, float]:
            return {
                f"{name}/{index}" if self._models.are_several else name: float(value)
                for index, its_variables in enumerate(self._models.each(variables))
                for name, value in measure(its_variables).items()
            }

        return piece._replace(metrics=piece.metrics | processes.decided(figures))

    def _variables(self, carry: Carry) -> PyTree:
        """The variables on this process's first device. Of several processes, all call it together."""
        return self._recipe.variables(parallel.gathered(self._loop.mesh, carry.state))

    def _log_epoch(self, piece: Slice) -> None:
        """One line in `metrics.jsonl`, and one on the screen. Its seconds are of training, not of drawing or saving."""
        metrics = piece.metrics or {}
        line = {"epoch": piece.epoch, **metrics, "seconds": round(self._at.seconds, 4)}
        self._remember(line)
        if not self._writes:
            return
        self._log.epoch(line)
        self._progress.epoch(piece.epoch, metrics, self._at.seconds)
        for index, label in enumerate(self._models.labels):
            its = of_model(metrics, index) if self._models.are_several else metrics
            for text, is_true in self._notes.items():
                self._note(f"{label}: {text}" if self._models.are_several else text, is_true(its))

    def _note(self, text: str, is_true: bool) -> None:
        if is_true and text not in self._noted:
            self._noted.add(text)
            self._log.event({"event": "note", "epoch": self._at.epoch, "step": 0, "text": text})
            self._progress.say(f"epoch {self._at.epoch}: {text}")

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
        path, about, _ = processes.decided(lambda: newest_good(self._layout))
        self._progress.say(f"a value is not finite; looking for the step, from checkpoint {path.name} on")
        self._stop.stops_now = True
        if number := processes.largest(self._stop.number or 0):
            raise self._aborted(number)
        carry = Carry(**checkpoint.restore(path, self._loop.shapes()._asdict()))
        try:
            bad = find_bad_step(
                self._loop, carry, key=self.key("training"), until=(noticed.epoch, noticed.step),
                epoch=about["epoch"], step=about["step"], skipped=skipped,
            )  # fmt: skip
        except SearchStoppedError as stopped:
            raise FloatingPointError(
                f"a value is not finite at epoch {noticed.epoch + 1}, step {noticed.step}; {stopped}, where the search "
                f"was stopped; {path} is good; to resume from there: {self._setup.how_to_resume}"
            ) from stopped
        self._stop.stops_now = False
        if bad is None:
            raise FloatingPointError(
                f"a value was not finite, but all were when the steps from {path} on were repeated: the device is "
                f"not deterministic; that checkpoint is good; to resume from there: {self._setup.how_to_resume}"
            )
        may_skip = self.config.on_nan == "skip" and self._loop.steps > 1
        skip = may_skip and (bad.epoch, bad.step - 1) not in skipped
        if self._writes:
            self._log.event(
                {
                    "event": "not finite", "epoch": bad.epoch, "step": bad.step + 1, "tensor": bad.tensor,
                    "rows": bad.rows, "from": path.name, "then": "skip" if skip else "stop",
                }
            )  # fmt: skip
        said = f"epoch {bad.epoch + 1}, step {bad.step + 1}: first non-finite value: {bad.tensor}"
        if skip:
            self._progress.say(f"{said}; the step is skipped")
            return bad
        remedy = "consecutive bad steps are not skipped" if may_skip else f"{option('on_nan', 'skip')} skips the step"
        raise FloatingPointError(
            f"{said}; {path} is good; to resume from there: {self._setup.how_to_resume} ({remedy})"
        )

    def _end(self, carry: Carry) -> None:
        """Write the weights and draw what is drawn at the end, where that was not done with the last epoch."""
        self._progress.close()
        say("finishing: the weights and the last pictures")
        if processes.decided(lambda: not self._layout.final.exists()):  # stopped after its last epoch, or ended early
            self._write_final_weights(carry)
            for _, draw in self._drawings:
                self._call(draw, carry, [self._layout.final])

    def finish(self) -> None:
        """Mark the run as finished, and say where its results are. Called at the end of the `with` statement."""
        if self._is_finished:
            return
        at = self._at
        asked = max(at.epoch, self.config.epochs)
        self._results.at_end = processes.decided(lambda: self._results.at_end)
        came_to = {"epochs": asked, "epoch": at.epoch, "step": at.step, "results": self._results.at_end}
        if not self._writes:
            return
        write_json(self._layout.finished, came_to | self._compare_models())
        self._publish(at_end=True)
        self._progress.results(self.folder, at.epoch, self.history, list(pictures_in(self._layout.final).values()))
        if (page := self._layout.page).exists():
            say(f"page      {page}")

    # ---- Writing ----

    def _draw(self, carry: Carry) -> None:
        """Call the drawings that are due after this epoch; all of them after the last one."""
        epoch = self._at.epoch
        last = [self._layout.final] if epoch == self.config.epochs else []
        for when, draw in self._drawings:
            if folders := [*([self._layout.epoch(epoch)] if _is_due(when, epoch) else []), *last]:
                self._call(draw, carry, folders)

    def _call(self, draw: Callable[[int, PyTree], object], carry: Carry, folders: Sequence[Path]) -> None:
        """Call a drawing, and write what it drew and measured into the folders."""
        variables = self._variables(carry)
        if not self._writes:
            return
        self._drawing = True
        self._outputs.draw(self._at.epoch, partial(draw, self._at.epoch), self._models.each(variables), folders)
        self._write_results(folders)
        self._outputs.end_drawing()
        self._drawing = False

    def _write_results(self, folders: Sequence[Path]) -> None:
        seconds, self._measuring_seconds = self._measuring_seconds, 0.0
        if text := self._results.write(folders, at_end=self._layout.final in folders, seconds=seconds):
            self._progress.say(text)

    def _compare_models(self) -> dict[str, Any]:
        """A table of several models on the screen, and the best of them by the metric that says which is."""
        if not self._models.are_several:
            return {}
        last = {name: values[-1] for name, values in self.history.items() if values} | self._results.at_end
        figures = by_name({name: value for name, value in last.items() if "/" in name})
        say(table(self._models, figures))
        if self._best not in figures:
            return {"models": self._models.labels}
        values = figures[self._best]
        best = min(range(len(values)), key=values.__getitem__)
        say(f"best      {self._models.labels[best]}, model {best}, by {self._best} {values[best]:.4g}")
        return {"models": self._models.labels, "best_model": best}

    def _publish(self, *, at_end: bool = False) -> None:
        """Write the event log and the page of the run, each where it is asked for."""
        if not self._writes:
            return
        if self._event_log is not None:
            self._event_log.follow(self._at.epoch, at_end=at_end)
        self._write_page(at_end=at_end)

    def _write_page(self, *, at_end: bool) -> None:
        """Write the page of the run, unless pages have taken more than a hundredth of the time of training."""
        if self._setup.page is None or self.config.report == "none":
            return
        if not at_end and self._page_seconds > 0.01 * self._training_seconds:
            return
        began = time.monotonic()
        with surviving("the page of the run", self._outputs.note):
            self._setup.page(self.folder, self.config.report)
        self._page_seconds += time.monotonic() - began

    def _weights_files(self, variables: PyTree) -> dict[str, bytes]:
        data = self._setup.record["data"]
        about = {"experiment": self.config.experiment, "config": self.config.fixed(), "data": data}
        return weights_files(variables, self._setup.descriptions, about)

    def _write_final_weights(self, carry: Carry) -> None:
        variables = self._variables(carry)
        if self._writes:
            for name, content in self._weights_files(variables).items():
                write(self._layout.final / name, content)

    def _save(self, carry: Carry) -> None:
        """Write a checkpoint, and before it the log that belongs to it. Of several processes, all call it together."""
        if self._writes:
            self._log.sync()
        epoch, step, seconds = self._at
        about = {
            "epoch": epoch, "step": step, "seconds": seconds, "tree": _shapes(carry),
            "figure": self._figure_of_best() if epoch and not step else None,
        }  # fmt: skip
        variables = self._variables(carry)
        path = checkpoint.save(
            self._layout.checkpoints, epoch * self._loop.steps + step, self._to_save(carry)._asdict(), about,
            keep=self.config.keep, files=self._weights_files(variables) if self._writes else {},
        )  # fmt: skip
        if self._writes:
            self._log.event({"event": "checkpoint", "epoch": epoch, "step": step, "name": path.name})

    def _to_save(self, carry: Carry) -> Carry:
        """The carry as Orbax saves it: of several processes, as arrays of all of them."""
        return self._loop.placed(carry) if processes.are_several() else carry

    def _figure_of_best(self) -> float | None:
        """The last value of the metric that says which checkpoint is the best; of several models, its mean."""
        if self._best is None:
            return None
        if self._best in self.history:
            return self.history[self._best][-1]
        return spread(values[-1] for values in by_name(self.history)[self._best]).mean

    # ---- Stopping ----

    def _say_stopping(self) -> None:
        say("stopping: saving after the current step; a signal in a moment aborts at once", error=True)

    def _stop_if_asked(self, carry: Carry, *, saved: bool) -> None:
        number = processes.largest(self._stop.number or 0)  # a signal to one process stops all
        if not number:
            return
        if not saved:
            self._save(carry)
        raise Interrupted(
            number,
            f"stopped and saved after {self._at.epoch} epochs and {self._at.step} steps; to resume: "
            f"{self._setup.how_to_resume}",
        )

    def _aborted(self, number: int) -> Interrupted:
        return Interrupted(number, f"stopped; what was saved is intact; to resume: {self._setup.how_to_resume}")


def key_of(config: Config, use: str, number: int = 0) -> jax.Array:
    """The key that a run with this configuration has for a use."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(use.encode())), number)


def _is_due(when: When, epoch: int) -> bool:
    return epoch % when == 0 if isinstance(when, int) else epoch in when


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
