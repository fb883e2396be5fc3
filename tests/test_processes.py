"""Several processes train together, on the loopback interface."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from jaxgen import processes, torch_weights
from jaxgen.errors import InputError
from jaxgen.runs import checkpoint
from jaxgen.runs.devices import connect
from jaxgen.runs.layout import Layout
from tests.support import tiny, together

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextlib.contextmanager
def started(
    count: int, *words: str, only: Sequence[int] = (), of_last: Sequence[str] = (), **environment: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """The same command as several processes, or only some of them, which do not outlive the test."""
    coordinator = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(count), "--process"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": os.environ | environment}
    those = [
        subprocess.Popen(
            [sys.executable, "-m", *words, *coordinator, str(index), *(of_last if index == count - 1 else ())],
            cwd=ROOT,
            **options,
        )
        for index in only or range(count)
    ]
    try:
        yield those
    finally:
        for process in those:
            process.kill()
            process.communicate()


def finish(those: Sequence[subprocess.Popen[str]], status: int = 0) -> list[str]:
    """What each process printed, once all have ended with that status; warnings of other libraries go with it."""
    said = ["".join(process.communicate(timeout=120)) for process in those]
    assert [process.returncode for process in those] == [status] * len(those), "\n".join(said)
    return said


# ---- The arithmetic ----


@pytest.mark.parametrize(("count", "name"), [(2, "dcgan_digits"), (4, "vae")])
def test_several_processes_equal_one(count, name, tmp_path, float64):
    sooner = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # of compiling; the arithmetic is the same
    with started(count, "tests.support.together", str(tmp_path / "together.npz"), name, **sooner) as those:
        alone = together.train(name)
        finish(those)
    found = dict(np.load(tmp_path / "together.npz"))
    assert found.keys() == alone.keys()
    for key, value in alone.items():
        # The gradient of a bias before a batch norm is rounding error alone, which Adam scales to full steps.
        is_parameter_of_vae = key.partition(".")[2].isdigit() and key.startswith("vae")
        np.testing.assert_allclose(found[key], value, rtol=1e-8, atol=1e-7 if is_parameter_of_vae else 1e-8)


# ---- Runs ----

OFTEN = ("--devices", "2", "--save-every", "20", "--sample-every", "100000", "--report", "none")


def run(folder: Path, *words: str, count: int = 2) -> list[str]:
    """A run of the tiny experiment by so many processes, to its end, and what each printed."""
    words = ("tests.support.tiny", "--out", str(folder), *OFTEN, *words)
    if count > 1:
        with started(count, *words) as those:
            return finish(those)
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return [done.stdout]


@contextlib.contextmanager
def running(folder: Path, *words: str) -> Iterator[list[subprocess.Popen[str]]]:
    """A run of two processes, after its first epochs."""
    with started(2, "tests.support.tiny", "--out", str(folder), *OFTEN, "--epochs", "100000", *words) as those:
        until = time.monotonic() + 120
        while len(lines_of(folder)) < 30:
            assert time.monotonic() < until
            assert all(process.poll() is None for process in those)
            time.sleep(0.05)
        yield those


def lines_of(folder: Path) -> list[dict[str, float]]:
    """The metrics of each epoch, without times."""
    file = Layout(folder).metrics
    found = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return [{name: value for name, value in line.items() if name != "seconds"} for line in found]


def newest(folder: Path) -> tuple[dict[str, float], np.ndarray]:
    """Where the newest checkpoint is, and its weights."""
    path = checkpoint.numbered(Layout(folder).checkpoints)[-1]
    about = checkpoint.verify(path)
    files = sorted(path.glob("*.safetensors"))
    return about, np.stack([torch_weights.load(tiny.Mean(), file)["params"]["mean"] for file in files])


def test_signal_to_one_process_stops_all_and_any_number_resumes(tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with running(stopped) as those:
        those[1].send_signal(signal.SIGTERM)
        said = finish(those, 128 + signal.SIGTERM)
    assert "process 1: stopping: saving after the current step" in said[1]
    assert "stopped and saved after" in said[0]
    at = newest(stopped)[0]["epoch"]
    shutil.copytree(stopped, tmp_path / "by_one")
    epochs = ("--epochs", str(at + 2))

    said = run(whole, *epochs)
    assert "2 devices of 2 processes sharing each batch" in said[0]
    assert f"epoch {at + 2}/{at + 2}" in said[0]
    assert "epoch" not in said[1]  # the first process speaks for both
    run(stopped, "--resume", *epochs)
    run(tmp_path / "by_one", "--resume", *epochs, count=1)

    assert lines_of(stopped) == lines_of(whole)
    np.testing.assert_array_equal(newest(stopped)[1], newest(whole)[1])
    np.testing.assert_allclose(newest(tmp_path / "by_one")[1], newest(whole)[1], rtol=1e-4)
    assert json.loads((whole / "finished.json").read_text())["epoch"] == at + 2
    assert (whole / "final" / "mean.png").exists()
    assert not list(whole.glob(".shared-*"))
    parts = {path.name for path in whole.glob("checkpoints/*/state/ocdbt.process_*")}
    assert parts == {"ocdbt.process_0", "ocdbt.process_1"}  # each process writes its part of the arrays


def test_process_that_dies_ends_all_and_the_run_is_resumed(tmp_path):
    """Each of the two has trained one of two models, and one process goes on with both."""
    with running(tmp_path / "run", "--seeds", "2") as those:
        those[1].kill()
        began = time.monotonic()
        said = those[0].communicate(timeout=120)[1]
        assert time.monotonic() - began < 60
    assert those[0].returncode not in (0, None)
    assert "error: another process, which JAX names below, has ended" in said
    assert "stopped sending heartbeats):\n1\n" in said  # JAX names process 1
    at = newest(tmp_path / "run")[0]["epoch"]
    epochs = ("--epochs", str(at + 1))
    run(tmp_path / "run", "--resume", *epochs, count=1)
    run(tmp_path / "whole", "--seeds", "2", *epochs, count=1)
    (there, means), (_, wanted) = map(newest, (tmp_path / "run", tmp_path / "whole"))
    assert (there["epoch"], means.shape) == (at + 1, (2, 8, 8, 1))
    np.testing.assert_allclose(means, wanted, rtol=1e-4)


def test_process_that_fails_alone_says_why_and_ends(tmp_path):
    """Its status is that of its error: JAX's own way of ending would wait for the others, and abort."""
    command = ("tests.support.tiny", "--out", str(tmp_path / "run"))
    with started(2, *command, of_last=("--device", "none")) as those:
        said = those[1].communicate(timeout=60)[1]
        assert those[1].returncode == 2
        assert "process 1: error: --device none: " in said


def test_signal_while_connecting(tmp_path):
    with started(2, "tests.support.tiny", "--out", str(tmp_path / "run"), only=[0]) as (first,):
        assert first.stdout is not None
        assert "connecting 2 processes" in first.stdout.readline()
        time.sleep(1)  # until JAX waits for the other process
        first.send_signal(signal.SIGINT)
        assert "stopped" in first.communicate(timeout=60)[1]
        assert first.returncode == 128 + signal.SIGINT


def test_processes_must_agree_and_share_the_folder(tmp_path):
    """The first process is refused with the others."""
    with started(2, "tests.support.different", str(tmp_path)) as those:
        for text in finish(those):
            assert "the processes have different data" in text
            assert "the processes were given different options" in text
            assert "process 1 does not see this folder of process 0" in text
            assert "devices=3: must be a multiple of the 2 processes" in text
            assert "2 devices of 2 processes: cannot share batches of 5 evenly" in text
            assert "device='cpu:1': each process uses its first devices" in text


# ---- Options ----


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"processes": 2, "process": 0}, "coordinator: missing; several processes need coordinator, processes"),
        ({"coordinator": "a:1", "process": 0}, "processes: missing"),
        ({"coordinator": "a:1", "processes": 2}, "process: missing"),
        ({"coordinator": "a", "processes": 2, "process": 0}, "coordinator='a': must be HOST:PORT or auto"),
        ({"coordinator": "a:65536", "processes": 2, "process": 0}, "coordinator='a:65536': must be HOST:PORT"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "process=2: must be below processes=2"),
        ({"coordinator": "auto"}, "the processes could not be connected"),  # JAX has started
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(InputError, match=re.escape(said)):
        connect(tiny.Config(**options))


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0)
    with pytest.raises(InputError, match=r"could not be connected.*: nobody answers at 127.0.0.1:\d+ \("):
        connect(tiny.Config(coordinator=f"127.0.0.1:{free_port()}", processes=2, process=1))


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_tasks_of_a_cluster_are_noticed(name, monkeypatch):
    for count, are_several in (("1", False), ("4", True)):
        monkeypatch.setenv(name, count)
        assert processes.is_one_of_several_tasks() == are_several


def test_a_run_forgets_its_processes(tmp_path):
    """Whoever resumes it connects its own."""
    stored = tiny.Config(coordinator="a:1", processes=2, process=1).stored()
    found = tiny.Config.of_existing(stored, tmp_path / "config.json", resume=True)
    assert (found.coordinator, found.processes, found.process) == (None, None, None)
