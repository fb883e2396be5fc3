"""One run from the outside: its folder, log, progress, signals and errors.

runs/NAME/
  config.json       every option, so that the run can be repeated from it
  environment.json  versions, platform, the devices that share a batch, seed, git commit
  metrics.jsonl     a line an epoch
  events.jsonl      what else there is to remember: checkpoints, steps gone wrong, notes
  checkpoints/      the last few, by step, and the best where a figure says which that is
  pictures/
  model.safetensors the trained weights under PyTorch's names (two networks: a file each)
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import types
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from jaxgen import checkpoint, pictures, selfcheck, torch_weights, training
from jaxgen.config import Config
from jaxgen.durable import make_folder, write, write_json
from jaxgen.errors import InputError
from jaxgen.log import Log
from jaxgen.precision import in_precision
from jaxgen.progress import Progress
from jaxgen.replay import BadStep, find_bad_step
from jaxgen.stored import Found, check_same_experiment, newest_good, read_config
from jaxgen.training import Carry, PyTree, Recipe, Source

History = dict[str, list[float]]
When = int | Sequence[int]  # every n epochs from 0 on, or after these; and always at the end
Drawing = tuple[When, Callable[[int, PyTree], None]]  # draw(finished epochs, state)
Notes = Mapping[str, Callable[[dict[str, float]], bool]]  # what to note, once, when it is true of an epoch's metrics


class Interrupted(BaseException):
    """A signal ended the command; the message says where it stands and how to go on.

    No `Exception`, as KeyboardInterrupt is none: JAX catches those where it starts a backend or reads what it compiled
    before, and makes other errors or warnings of them.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def start(config: Config, data: Source, group: Config | None = None) -> Iterator["Run"]:
    """A run under this configuration on this data, new or, with `config.resume`, gone on with.

    Its folder is made once all is known to be good. At the end the weights are written and the results named.

    Raises:
        InputError: the folder, the device, the batch size or the run to go on with does not fit.
    """
    training.check_batch_size(config.batch_size, data.size)
    devices = find_devices(config)
    if config.self_check and group is None:
        check_operations(devices[0])
    data_sha256 = digest(data.arrays)
    folder = config.folder
    if config.resume:
        check_same_run(config, data_sha256)
    else:
        check_new_folder(folder)
    found = newest_checkpoint(config) if config.resume else None
    with locked(folder), Progress() as progress:
        run = Run(config, data, devices, progress, found, way_on(group or config))
        if not run.already_done:
            describe(config, devices, data_sha256)
        yield run
        run.finish()


def way_on(config: Config) -> str:
    """The command that goes on with a run that was stopped."""
    out = f" --out {shlex.quote(str(config.out))}" if config.out else ""
    return f"python -m {config.module}{out} --resume"


def describe(config: Config, devices: Sequence[jax.Device], data_sha256: str) -> None:
    """Write `config.json` and `environment.json`."""
    about = {"experiment": config.module, "options": config.stored(), "data_sha256": data_sha256}
    write_json(config.folder / "config.json", about)
    write_json(config.folder / "environment.json", environment(config, devices))


def find_device(name: str) -> jax.Device:
    platform, _, index = name.partition(":")
    try:
        devices = jax.devices(None if platform == "auto" else platform)
        return devices[int(index or 0)]
    except (RuntimeError, ValueError, IndexError) as error:
        here = ", ".join(f"{device.platform}:{device.id}" for device in jax.devices())
        raise InputError(f"--device {name}: there is no such device; here: {here}") from error


def find_devices(config: Config) -> Sequence[jax.Device]:
    """Those that share every batch; the first one does everything else alone."""
    first = find_device(config.device)
    there = jax.devices(first.platform)
    there = there[there.index(first) :]
    size, asked = config.batch_size, config.devices
    if asked is None:
        count = min(config.cpu_devices, len(there)) if first.platform == "cpu" else 1
        return there[: count if size % count == 0 else 1]
    if asked > len(there):
        here = f"{len(there)} from {first.platform}:{first.id} on"
        raise InputError(f"--devices {asked}: there are only {here}; ask for no more")
    if size % asked:
        raise InputError(f"--devices {asked}: cannot share batches of {size} evenly; a divisor of it can")
    return there[:asked]


def check_operations(device: jax.Device) -> None:
    worst = selfcheck.check(device)
    print(f"self-check: operations and gradients agree with float64 to {worst:.0e}", flush=True)


def check_new_folder(folder: Path) -> None:
    if read_config(folder) is not None:
        raise InputError(f"{folder} already holds a run; --resume goes on with it, --out names another folder")
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} holds other files; --out names another folder")
    nearest = next(path for path in [folder, *folder.absolute().parents] if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise InputError(f"{nearest} is not a folder; --out names another")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest} is not writable; --out names another folder")


def check_same_run(config: Config, data_sha256: str) -> None:
    folder, stored = config.folder, read_config(config.folder)
    if stored is None:
        raise InputError(f"{folder}: no run to go on with; leave --resume out to start one")
    check_same_experiment(config, stored)
    if stored.get("data_sha256") != data_sha256:
        raise InputError(f"{folder}: the run was started on other data; give it the same, or start another with --out")


def begins(config: Config) -> bool:
    """Whether the run starts from its first step: it is new, or was stopped before it had a checkpoint."""
    return not (config.resume and checkpoint.numbered(config.folder / "checkpoints"))


def newest_checkpoint(config: Config) -> Found | None:
    """The checkpoint to go on from; None where the run was stopped before it had one."""
    folder = config.folder
    if begins(config) and not (folder / "metrics.jsonl").exists():
        return None
    found = newest_good(folder)
    if found.about["epoch"] > config.epochs > finished_epochs(folder):
        raise InputError(f"--epochs {config.epochs}: the run in {folder} is past that already; ask for more")
    return found


def finished_epochs(folder: Path) -> int:
    """The epochs after which the run in the folder was finished and its weights written; 0 if it was not."""
    from safetensors import safe_open

    finished = 0
    for path in folder.glob("*.safetensors"):
        if not epoch_of(path):
            with safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {}).get("config", "{}"))
            finished = max(finished, about.get("epochs", 0))  # the user's own files may be here too
    return finished


def digest(arrays: PyTree) -> str:
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
        total.update(f"{leaf.dtype}{leaf.shape}".encode())
        total.update(np.ascontiguousarray(leaf).data)
    return total.hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's folder; the kernel lets go of it when the process ends, however it ends."""
    try:
        make_folder(folder)
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); --out names another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another process is at work on this run; wait for it, or use --out") from None
        yield


def environment(config: Config, devices: Sequence[jax.Device]) -> dict[str, Any]:
    packages = ["jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"]
    return {
        "python": sys.version.split()[0],
        **{name: version(name) for name in packages},
        "platform": devices[0].platform,
        "devices": [device.device_kind for device in devices],  # that share every batch
        "seed": config.seed,
        "git_commit": git_commit(),
        "command": [config.module, *sys.argv[1:]],
    }


def git_commit() -> str | None:
    """The commit of the checkout that this file is in, with a + where it has been changed."""
    described = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(described, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


class Group:
    """Several runs of one configuration, each in a folder of its own below the group's; as `start_group` gives it."""

    def __init__(self, config: Config, data: Source) -> None:
        self.config = config
        self.data = data

    def start(self, name: str, **changes: Any) -> contextlib.AbstractContextManager["Run"]:
        """`start` the run `name`, with these options changed; it is gone on with if it had begun."""
        folder = self.config.folder / name
        resume = self.config.resume and read_config(folder) is not None
        return start(dataclasses.replace(self.config, out=folder, resume=resume, **changes), self.data, self.config)

    def picture(self, name: str, image: Image.Image) -> None:
        """Write `NAME.png` beside the runs' folders."""
        write(self.config.folder / f"{name}.png", pictures.png(image))


@contextlib.contextmanager
def start_group(config: Config, data: Source) -> Iterator[Group]:
    """The folder of several runs, new or gone on with, under the conditions of `start`."""
    training.check_batch_size(config.batch_size, data.size)
    devices = find_devices(config)
    if config.self_check:
        check_operations(devices[0])
    data_sha256 = digest(data.arrays)
    if config.resume:
        check_same_run(config, data_sha256)
        for begun in sorted(config.folder.glob("*/config.json")):  # what one refuses, the group's folder must not say
            newest_checkpoint(dataclasses.replace(config, out=begun.parent))
    else:
        check_new_folder(config.folder)
    with locked(config.folder):
        describe(config, devices, data_sha256)
        yield Group(config, data)


class Run:
    """A run under way, as `start` gives it."""

    def __init__(
        self,
        config: Config,
        data: Source,
        devices: Sequence[jax.Device],
        progress: Progress,
        found: Found | None,
        way_on: str,
    ) -> None:
        self.config = config
        self.folder = config.folder
        self.data = data
        self.devices = devices  # that share every batch
        self.progress = progress
        self.log = Log(config.folder)
        self.history: History = {}
        self.stop_signal: int | None = None
        self.replaying = False  # steps are run again to find one that went wrong
        self.found = found  # the checkpoint to go on from
        self.way_on = way_on
        self.noted: set[str] = set()
        self.best: str | None = None  # the metric by which the best checkpoint is kept
        self.only_as_last = False  # a drawing is under way that the end asked for, not its period
        self.drawn_as_last: list[str] = []  # what such drawings wrote: a longer run would not have it
        self.already_done = found is not None and finished_epochs(self.folder) >= config.epochs

    def key(self, use: str, number: int = 0) -> jax.Array:
        """A PRNG key that follows from the run's seed, named for its use; `number` tells several of a use apart."""
        return key_of(self.config, use, number)

    def picture(self, name: str, image: Image.Image) -> None:
        """Write `pictures/NAME.png`. A name that ends in `_020` is of epoch 20: a resume from before drops it."""
        if not self.already_done:
            write(self.folder / "pictures" / f"{name}.png", pictures.png(image))
            if self.only_as_last:
                self.drawn_as_last.append(name)

    def frames(self, name: str) -> list[Image.Image]:
        """The pictures `NAME_*.png` of this run, in the order of their epochs."""
        return [opened(path) for path in sorted((self.folder / "pictures").glob(f"{name}_*.png"), key=epoch_of)]

    def animation(self, name: str, frames: Sequence[Image.Image]) -> None:
        """Write `pictures/NAME.gif`."""
        if not self.already_done:
            write(self.folder / "pictures" / f"{name}.gif", pictures.gif(frames))

    def fit(
        self,
        recipe: Recipe,
        drawings: Sequence[Drawing] = (),
        weights: PyTree = None,
        *,
        best: str | None = None,
        notes: Notes = types.MappingProxyType({}),
    ) -> tuple[PyTree, History]:
        """Train to `config.epochs`, from the newest checkpoint if the run is resumed.

        Args:
            drawings: pairs (when, draw); `draw(epoch, state)` is called at epoch 0 (untrained), every n epochs and at
                the last, or at given epochs and the last.
            weights: variables to start from, in place of the recipe's initialisation.
            best: the metric whose smallest value marks a checkpoint to keep beside the newest.
            notes: texts for the log and the screen, each once, after the first epoch whose metrics it is true of.

        Returns:
            The trained state and the history, `history[name][0]` being the first epoch's.
        """
        config = self.config
        recipe = in_precision(recipe, config.precision)
        self.best, self.notes = best, notes

        @jax.jit  # one program: not array by array, and the state is there once, not beside its copy in the carry
        def begin(key: jax.Array, weights: PyTree) -> Carry:
            return training.begin(recipe, self.data, recipe.init(key, weights), config.batch_size, self.devices)

        carry = jax.device_put(begin(self.key("init"), weights), self.devices[0])
        self.steps = training.steps_per_epoch(recipe, self.data, config.batch_size)
        with self.stopping_on_signals():
            if self.found is not None:
                carry, epoch, step, seconds = self.restored(self.found, carry)
            else:
                epoch, step, seconds = 0, 0, 0.0
                self.draw(0, carry.state, drawings)
                self.save(carry, 0, 0, 0.0)
            carry = self.train(recipe, carry, epoch, step, seconds, drawings)
        self.trained = recipe.variables(carry.state)
        return carry.state, self.history

    def train(
        self, recipe: Recipe, carry: Carry, epoch: int, step: int, seconds: float, drawings: Sequence[Drawing]
    ) -> Carry:
        pieces = self.pieces(recipe, carry, epoch, step)
        left_out: set[tuple[int, int]] = set()
        self.progress.begin(self.config.epochs, self.steps, epoch, step)
        self.stop_if_asked(carry, epoch, step, seconds, saved=True)
        while True:
            began = time.perf_counter()
            piece = next(pieces, None)
            if piece is None:
                return carry
            carry = piece.carry
            if int(carry.bad_step) >= 0:
                bad = self.look_into_bad_step(recipe, piece, left_out)
                left_out.add((bad.epoch, bad.step))
                carry, pieces = bad.before, self.pieces(recipe, bad.before, bad.epoch, bad.step + 1)
                continue
            seconds += time.perf_counter() - began
            self.progress.update(piece.epoch, piece.step)
            saved = False
            if piece.metrics is not None:
                self.epoch_ended(piece.epoch, piece.metrics, seconds)
                seconds = 0.0
                self.draw(piece.epoch, carry.state, drawings)
                if saved := piece.epoch % self.config.save_every == 0 or piece.epoch == self.config.epochs:
                    self.save(carry, piece.epoch, 0, 0.0)
            self.stop_if_asked(carry, piece.epoch, piece.step, seconds, saved=saved)

    def pieces(self, recipe: Recipe, carry: Carry, epoch: int, step: int) -> Iterator[training.Slice]:
        return training.slices(
            recipe, self.data, carry, epochs=self.config.epochs, batch_size=self.config.batch_size,
            key=self.key("training"), epoch=epoch, step=step, devices=self.devices,
        )  # fmt: skip

    def look_into_bad_step(
        self, recipe: Recipe, noticed: training.Slice, left_out: Collection[tuple[int, int]]
    ) -> BadStep:
        """The step after which a value was not finite: named in the log, and on the screen.

        Raises:
            FloatingPointError: that is to end the run; always where the step before was left out already, or the step
                is not found.
        """
        path, about, _ = newest_good(self.folder)
        self.progress.say(f"a value is not finite; looking for the step, from checkpoint {path.name} on")
        self.replaying = True
        if self.stop_signal is not None:
            raise self.interrupted(self.stop_signal)
        carry = Carry(**checkpoint.restore(path, noticed.carry._asdict()))
        bad = find_bad_step(
            recipe, self.data, carry, batch_size=self.config.batch_size, key=self.key("training"),
            epochs=noticed.epoch + (noticed.metrics is None), epoch=about["epoch"], step=about["step"],
            left_out=left_out, devices=self.devices,
        )  # fmt: skip
        self.replaying = False
        if bad is None:
            raise FloatingPointError(
                f"a value was not finite, but all were when the steps from {path} on were run again: the device does "
                f"not compute the same twice; that checkpoint is good, and {self.way_on} goes on from there"
            )
        skip = self.config.on_nan == "skip" and self.steps > 1 and (bad.epoch, bad.step - 1) not in left_out
        self.log.event(
            {
                "event": "not finite", "epoch": bad.epoch, "step": bad.step + 1, "tensor": bad.tensor, "rows": bad.rows,
                "from": path.name, "then": "skip" if skip else "stop",
            }
        )  # fmt: skip
        said = f"epoch {bad.epoch + 1}, step {bad.step + 1}: not finite is first {bad.tensor}"
        if skip:
            self.progress.say(f"{said}; that step is left out")
            return bad
        way = "two in a row are not left out" if self.config.on_nan == "skip" else "--on-nan skip leaves it out"
        raise FloatingPointError(f"{said}; {path} is good, and {self.way_on} goes on from there ({way})")

    def epoch_ended(self, epoch: int, metrics: dict[str, float], seconds: float) -> None:
        """One line in `metrics.jsonl`, and one on the screen. `seconds` are of training, not of drawing or saving."""
        line = {"epoch": epoch, **metrics, "seconds": round(seconds, 4)}
        self.log.epoch(line)
        self.remember(line)
        self.progress.epoch(epoch, metrics, seconds)
        for text, is_true in self.notes.items():
            if text not in self.noted and is_true(metrics):
                self.noted.add(text)
                self.log.event({"event": "note", "epoch": epoch, "step": 0, "text": text})
                self.progress.say(f"epoch {epoch}: {text}")

    def remember(self, line: dict[str, float]) -> None:
        for name, value in line.items():
            if name != "epoch":
                self.history.setdefault(name, []).append(value)

    def draw(self, epoch: int, state: PyTree, drawings: Sequence[Drawing]) -> None:
        for when, draw in drawings:
            self.only_as_last = not due(when, epoch)
            if epoch == self.config.epochs or not self.only_as_last:
                draw(epoch, state)
        self.only_as_last = False

    def save(self, carry: Carry, epoch: int, step: int, seconds: float) -> None:
        """A checkpoint, and before it the log that it goes with."""
        self.log.sync()
        about = {
            "epoch": epoch, "step": step, "seconds": seconds,
            "epochs": self.config.epochs, "drawn_as_last": self.drawn_as_last, "tree": shapes(carry),
            "figure": self.history[self.best][-1] if self.best and epoch and not step else None,
        }  # fmt: skip
        number = epoch * self.steps + step
        path = checkpoint.save(self.folder / "checkpoints", number, carry._asdict(), about, keep=self.config.keep)
        self.log.event({"event": "checkpoint", "epoch": epoch, "step": step, "name": path.name})

    def restored(self, found: Found, like: Carry) -> tuple[Carry, int, int, float]:
        """Carry, epoch, step and seconds of the checkpoint; what is later than it is dropped from log and pictures."""
        path, about, damaged = found
        if difference := first_difference(about["tree"], shapes(like)):
            raise InputError(f"{path}: not a checkpoint of this recipe: {difference}; --out names another folder")
        epoch, step = about["epoch"], about["step"]
        epochs, events = self.log.until(epoch, step)
        for line in epochs:
            self.remember(line)
        self.noted = {line["text"] for line in events if line["event"] == "note"}
        if self.already_done:
            print(f"{self.folder}: already at epoch {epoch}; nothing to do (--epochs asks for more)", flush=True)
        else:
            for bad, why in damaged:
                bad.rename(bad.with_name(f"damaged-{bad.name}"))
                print(f"set aside as damaged-{bad.name}: {why}", file=sys.stderr)
            self.log.drop_later(epoch, step)
            self.drop_drawn(about)
        return Carry(**checkpoint.restore(path, like._asdict())), epoch, step, about["seconds"]

    def drop_drawn(self, about: dict[str, Any]) -> None:
        """Drop pictures of later epochs, and what was drawn or saved only because the run ended there."""
        folder = self.folder / "pictures"
        no_longer_last = about["drawn_as_last"] if about["epochs"] != self.config.epochs else ()
        for path in folder.rglob("*.png"):
            if epoch_of(path) > about["epoch"] or str(path.relative_to(folder).with_suffix("")) in no_longer_last:
                path.unlink()
        for path in self.folder.glob("*.safetensors"):
            if path.name in no_longer_last:
                path.unlink()

    @contextlib.contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM ask for a stop after the slice under way; a second one is the system's own, at once."""

        def ask(number: int, frame: types.FrameType | None) -> None:
            self.stop_signal = number
            signal.signal(number, signal.SIG_DFL)
            if self.replaying:
                raise self.interrupted(number)

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_if_asked(self, carry: Carry, epoch: int, step: int, seconds: float, *, saved: bool) -> None:
        if self.stop_signal is None:
            return
        if not saved:
            self.save(carry, epoch, step, seconds)
        raise Interrupted(
            self.stop_signal, f"stopped and saved after {epoch} epochs and {step} steps; to go on: {self.way_on}"
        )

    def interrupted(self, number: int) -> Interrupted:
        return Interrupted(number, f"stopped; what was saved is whole; to go on: {self.way_on}")

    def results(self, figures: Mapping[str, float]) -> None:
        """Figures of the trained model, into `results.json` and onto the screen."""
        if not self.already_done:
            write_json(self.folder / "results.json", {name: float(value) for name, value in figures.items()})
            self.progress.close()
            print("  ".join(f"{name} {float(value):.5g}" for name, value in figures.items()), flush=True)

    def weights(self, variables: PyTree, suffix: str = "") -> None:
        """Write each network's weights under PyTorch's names: `generator_010.safetensors` with the suffix `_010`."""
        about = {"experiment": self.config.module, **self.config.stored()}
        for network, its_variables in networks(variables).items():
            tensors, name = torch_weights.flatten(its_variables), f"{network}{suffix}.safetensors"
            write(self.folder / name, torch_weights.to_safetensors(tensors, about))
            if self.only_as_last:
                self.drawn_as_last.append(name)

    def finish(self) -> None:
        """Write the weights, the last act of a run: they mark it as finished. Name what there is to look at."""
        whole = all((self.folder / f"{name}.safetensors").exists() for name in networks(self.trained))
        if not (self.already_done and whole):  # it may have been killed between the files of two networks
            self.weights(self.trained)
        if not self.already_done:
            self.progress.results(self.folder, self.config.epochs, self.history)


def key_of(config: Config, use: str, number: int = 0) -> jax.Array:
    """The key that a run under this configuration has for the use."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), zlib.crc32(use.encode())), number)


def due(when: When, epoch: int) -> bool:
    return epoch % when == 0 if isinstance(when, int) else epoch in when


def networks(variables: PyTree) -> dict[str, PyTree]:
    """{"model": variables} for one network; for several they come as a mapping already."""
    return {"model": variables} if "params" in variables else variables


def shapes(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def first_difference(found: dict[str, str], wanted: dict[str, str]) -> str | None:
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            return f"{name} is {found.get(name, 'missing')}, wanted {wanted.get(name, 'nothing')}"
    return None


def epoch_of(picture: Path) -> int:
    """The epoch that a picture's name ends in, as `samples_020`; 0 where it is of no epoch."""
    found = re.search(r"_(\d+)$", picture.stem)
    return int(found[1]) if found else 0


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def write_samples(config: Config, samples: jax.Array, columns: int = 16) -> None:
    """Images `[N, H, W, C]` in 0..1, drawn with `config.seed`, as a picture and as an array in the run's `samples/`."""
    array = io.BytesIO()
    np.save(array, np.asarray(samples))
    path = config.folder / "samples" / f"{len(samples)}_of_seed_{config.seed}"
    write(path.with_suffix(".npy"), array.getvalue())
    write(path.with_suffix(".png"), pictures.png(pictures.grid(samples, columns)))
    print(f"{path.with_suffix('.png')}\n{path.with_suffix('.npy')}", flush=True)
