"""Stopping: what a signal does while something trains, and afterwards."""

import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen import runs, signals
from jaxgen.runs import checkpoint
from jaxgen.signals import stop_on_signals
from tests.support import tiny
from tests.support.signals import handlers_restored
from tests.test_runs import LIMIT, ROOT, bits, wait_for
from tests.test_training import line_recipe, rows

pytestmark = pytest.mark.unoptimized

SAVING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@pytest.fixture(autouse=True)
def handlers():
    """A test may leave a handler that ignores signals for two seconds."""
    with handlers_restored():
        yield


def raise_at(number: int, *, at: int = 3):
    """An `each` that raises a signal in the given slice, counted from 1."""
    count = iter(range(1, 1000))
    return lambda piece: signal.raise_signal(number) if next(count) == at else None


def fit(each=None, epochs=5):
    recipe = line_recipe()
    return jaxgen.fit(
        recipe, recipe.init(jax.random.key(0)), rows().astype(np.float32), epochs=epochs, batch_size=4,
        key=jax.random.key(1), each=each,
    )  # fmt: skip


def train(folder: Path, each) -> runs.Outcome:
    config = tiny.Config(out=folder, epochs=100, save_every=100)
    with runs.start(config, tiny.points(), tiny.Mean()) as run:
        run.fit(tiny.recipe(config), each=each)
    return run.outcome


def test_ctrl_c_in_fit_returns_what_was_trained(capsys):
    state, history = fit(raise_at(signal.SIGINT))
    assert 1 <= len(history["loss"]) < 5
    assert bits(state) == bits(fit(epochs=len(history["loss"]))[0])
    assert capsys.readouterr().err == "stopping after the current slice; Ctrl-C again in a moment aborts\n"


def test_a_second_ctrl_c_counts_as_the_first_for_two_seconds(monkeypatch, capsys):
    def twice(piece):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    fit(twice)
    signal.raise_signal(signal.SIGINT)  # also when the training has returned
    assert capsys.readouterr().err.count("stopping") == 1
    monkeypatch.setattr(signals, "GRACE", -1.0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_later_ctrl_c_aborts(monkeypatch):
    monkeypatch.setattr(signals, "GRACE", -1.0)

    def twice(piece):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(twice)


@pytest.mark.parametrize("number", SAVING, ids=lambda number: number.name)
def test_each_of_these_signals_saves(tmp_path, number):
    with pytest.raises(runs.Interrupted, match=r"stopped and saved.*main\(Config\(out=.*, resume=True\)\)"):
        train(tmp_path / "run", raise_at(number))
    newest = checkpoint.numbered(tmp_path / "run" / "checkpoints")[-1]
    assert int(newest.name) > 0
    assert checkpoint.verify(newest)


def test_handlers_are_restored(tmp_path):
    before = {number: signal.getsignal(number) for number in SAVING}
    fit()
    train(tmp_path / "run", lambda piece: True)
    assert {number: signal.getsignal(number) for number in SAVING} == before
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    assert wakeup == -1


def test_an_ignored_signal_stays_ignored(tmp_path):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _, history = fit(raise_at(signal.SIGINT))
    assert len(history["loss"]) == 5
    hang_up = raise_at(signal.SIGHUP)
    outcome = train(tmp_path / "run", lambda piece: hang_up(piece) or piece.epoch >= 5)
    assert len(outcome.history["loss"]) == 5


def test_a_thread_trains_without_handlers(tmp_path):
    """Two at once, each the same as alone."""
    outcomes, seen = {}, set()

    def work(name):
        config = tiny.Config(out=tmp_path / name)
        with runs.start(config, tiny.points(), tiny.Mean()) as run:
            run.fit(tiny.recipe(config), each=lambda piece: seen.add(signal.getsignal(signal.SIGTERM)), best="loss")
        outcomes[name] = run.outcome

    before = signal.getsignal(signal.SIGTERM)
    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {before}
    alone = tiny.main(tiny.Config(out=tmp_path / "alone"))
    for name in ("one", "other"):
        assert bits(outcomes[name].variables) == bits(alone.variables)


def test_stopping_is_announced_by_another_thread():
    """So at once, also while the main thread compiles: Python calls no handler until compiled code has returned."""
    by = []
    with stop_on_signals([signal.SIGINT], lambda: by.append(threading.current_thread())):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert len(by) == 1
    assert by[0] is not threading.main_thread()


@pytest.fixture
def launch(tmp_path):
    """Start the tiny experiment through a shell line in which {} stands for the command; killed when the test ends."""
    started = []

    def start(line: str, *arguments: str, **options) -> subprocess.Popen:
        command = f"{sys.executable} -m tests.support.tiny --out {tmp_path / 'run'} {' '.join(arguments)}"
        process = subprocess.Popen(["sh", "-c", line.format(command)], cwd=ROOT, text=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


LONG = ("--epochs", "1000000", "--sample-every", "1000000", "--save-every", "1000000")


def test_a_command_that_inherited_an_ignored_ctrl_c_goes_on(tmp_path, launch):
    process = launch("trap '' INT; exec {}", *LONG, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_for(metrics.exists)
    process.send_signal(signal.SIGINT)
    lines = len(metrics.read_text().splitlines())
    wait_for(lambda: len(metrics.read_text().splitlines()) > lines + 20)
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGUSR1
    assert err.splitlines()[-1].startswith("stopped and saved after")


@pytest.mark.parametrize("line", ["exec {} >/dev/full 2>/dev/full", "exec {} >&- 2>&-"])
def test_a_closed_or_full_stdout_does_not_end_a_run(tmp_path, launch, line):
    process = launch(line, "--epochs", "2")
    process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert (tmp_path / "run" / "finished.json").exists()


def test_a_terminal_that_is_gone_does_not_end_a_run(tmp_path, launch):
    ours, theirs = pty.openpty()
    process = launch(
        "trap '' HUP; exec {}", "--epochs", "9", "--save-every", "9", stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"epoch 2/9" not in seen:
        seen += os.read(ours, 4096)
    os.close(ours)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert (tmp_path / "run" / "finished.json").exists()
