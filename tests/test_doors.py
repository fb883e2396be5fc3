"""A run is the same however it is started: as a module or a script, from a notebook, or from a package of one's own.

It also works on a system that lacks what Windows lacks.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import nbclient
import nbformat
import pytest

import jaxgen
from jaxgen import runs
from jaxgen.runs.environment import environment
from tests.support import tiny
from tests.test_runs import ROOT, bits, contents

pytestmark = pytest.mark.unoptimized


def python(*words: str, cwd: Path, path: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with these words, with `path` as the only place to import from beside what is installed."""
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=240, check=False,
        env=os.environ | {"PYTHONPATH": str(path), "JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> runs.Outcome:
    return tiny.main(tiny.Config(out=tmp_path_factory.mktemp("trained") / "run", epochs=2))


def test_a_script_is_the_same_run_as_the_module(trained, tmp_path):
    """By name and by bits: it goes on with a run that Python began."""
    shutil.copytree(trained.folder, tmp_path / "run")
    script = str(ROOT / "tests" / "support" / "tiny.py")
    done = python(script, "--out", str(tmp_path / "run"), "--resume", "--epochs", "3", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    straight = tiny.main(tiny.Config(out=tmp_path / "straight", epochs=3))
    assert bits(jaxgen.load(tmp_path / "run", module=tiny.Mean()).variables) == bits(straight.variables)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_experiments_are_listed():
    done = python("-m", "experiments", cwd=ROOT)
    listed = set(re.findall(r"^  (\w+) +\S", done.stdout, re.MULTILINE))
    assert listed >= {path.stem for path in (ROOT / "experiments").glob("[!_]*.py")}
    assert not {name for name in listed if name.startswith("_")}


def test_equal_runs_give_equal_files(trained, tmp_path):
    """The weights say nothing of the folder, nor of whether the run was resumed."""
    tiny.main(tiny.Config(out=tmp_path / "elsewhere", epochs=1))
    tiny.main(tiny.Config(out=tmp_path / "elsewhere", epochs=2, resume=True))
    one, other = (folder / "final" / "model.safetensors" for folder in (trained.folder, tmp_path / "elsewhere"))
    assert one.read_bytes() == other.read_bytes()
    size = int.from_bytes(one.read_bytes()[:8], "little")
    header = json.loads(one.read_bytes()[8 : 8 + size])["__metadata__"]
    assert header["format"] == "pt"
    assert not re.search(r'\\"(out|resume)\\"', json.dumps(header))


# ---- A package of one's own ----


def example() -> str:
    """The file that the documentation shows."""
    (block,) = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs" / "own_model.md").read_text(), re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture
def package(tmp_path) -> Path:
    """A folder with the package `my_models`, in a git checkout of its own."""
    (tmp_path / "my_models").mkdir()
    (tmp_path / "my_models" / "__init__.py").touch()
    (tmp_path / "my_models" / "denoise.py").write_text(example())
    for words in (["init", "-q", "-b", "main"], ["add", "my_models"], ["commit", "-qm", "mine"]):
        subprocess.run(
            ["git", "-c", "user.name=me", "-c", "user.email=me@example.org", *words], cwd=tmp_path, check=True,
            capture_output=True,
        )  # fmt: skip
    return tmp_path


def test_the_documented_example_runs_and_resumes_from_a_package_of_ones_own(package):
    assert len(example().splitlines()) <= 40
    for extra in (["--epochs", "1"], ["--epochs", "2", "--resume"]):
        done = python("-m", "my_models.denoise", *extra, cwd=package)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("data      digits: 1,797 images of 8×8×1, 10 classes; none held out; on the device\n")
    folder = package / "runs" / "denoise"
    assert json.loads((folder / "config.json").read_text())["experiment"] == "my_models.denoise"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=package, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads((folder / "environment.json").read_text())["git_commit"] == commit.strip()


def test_an_experiment_outside_a_checkout_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[tiny.__name__], "__file__", str(tmp_path / "tiny.py"))
    assert environment(tiny.Config(), jax.devices()[:1])["git_commit"] is None


def test_a_module_that_the_weights_cannot_name_is_refused_before_the_folder_is_made(tmp_path):
    class Inside(tiny.Mean):
        pass

    with (
        pytest.raises(jaxgen.InputError, match=r"Inside.*defined inside a function"),
        runs.start(tiny.Config(out=tmp_path / "run"), tiny.points(), Inside()),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


# ---- Notebooks ----


def run_notebook(folder: Path, *cells: str) -> list[str]:
    """The text output of each cell; an exception is `NAME: message`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in cells])
    nbclient.NotebookClient(
        notebook, timeout=240, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    ).execute()

    def text(output) -> str:
        if output.output_type == "stream":
            return output.text
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
        return output.data.get("text/html") or output.data["text/plain"]

    return ["".join(map(text, cell.outputs)) for cell in notebook.cells]


def test_a_notebook(trained, tmp_path, monkeypatch):
    """A subclass made there is the same experiment; progress and outcome are shown; Ctrl-C stops and saves."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    _, shown, name, interrupted, resumed = run_notebook(
        tmp_path,
        """
        import json, os, signal, threading
        from tests.support import tiny
        from jaxgen import runs
        class Config(tiny.Config):
            mine: runs.Positive = 2.0
        """,
        "tiny.main(Config(out='run', epochs=2))",
        "json.load(open('run/config.json'))['experiment']",
        """
        def stop(metrics):
            if metrics["loss"] < 0.2:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            return False
        tiny.NOTES["stop"] = stop
        tiny.main(Config(out='other', epochs=100000))
        """,
        "tiny.NOTES.pop('stop'); tiny.main(Config(out='other', resume=True, epochs=12)).history['loss'][:2]",
    )
    assert "Traceback" not in shown
    assert re.search(r"epoch 2/2  loss", shown)
    assert re.search(r"\repoch \d/2 \|", shown), "a progress bar"
    assert '<img alt="loss" src="data:image/png;base64,' in shown
    assert '<img alt="learning.gif" src="data:image/gif;base64,' in shown
    assert name == "'tests.support.tiny'"
    assert bits(jaxgen.load(tmp_path / "run", module=tiny.Mean()).variables) == bits(trained.variables)
    assert "Interrupted: stopped and saved after" in interrupted
    assert "main(Config(out='other', resume=True))" in interrupted
    assert str(trained.history["loss"]) in resumed


# ---- What is left as it was, and what may be missing ----

STATE = """
import logging, os, signal, sys, warnings
import jax, matplotlib
def state():
    named = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(logger for logger in named if isinstance(logger, logging.Logger))]
    return {
        "JAX": dict(jax.config.values) | {"jax_num_cpu_devices": None},
        "Matplotlib": {name: str(value) for name, value in dict.items(matplotlib.rcParams)},
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "logging": {logger.name: (logger.level, list(logger.handlers)) for logger in loggers if logger.handlers},
        "root": logging.root.level,
        "absl": (logging.getLogger("absl").level, logging.getLogger("absl").disabled),
        "hooks": (sys.excepthook, sys.unraisablehook),
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
    }
def check(before, when):
    for name, value in state().items():
        assert value == before[name], (when, name, value, before[name])
"""


def test_importing_and_running_leave_everything_as_it_was(tmp_path):
    code = f"""{STATE}
import absl.logging
before = state()
import jaxgen, experiments.vae_mnist
from jaxgen import data, pictures, runs
check(before, "after the import")
from tests.support import tiny
tiny.main(tiny.Config(out="run", epochs=1))
check(before, "after a run")
assert jax.config.jax_num_cpu_devices == len(jax.devices())
"""
    done = python("-c", code, cwd=tmp_path, path=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_system_that_lacks_what_windows_lacks(tmp_path):
    """No fcntl, no such signals, no interval timer, no syncing of folders."""
    code = """
import os, signal, sys, stat
sys.modules["fcntl"] = None
for name in ("SIGALRM", "SIGHUP", "SIGUSR1", "SIGPIPE", "setitimer", "ITIMER_REAL", "pthread_kill"):
    delattr(signal, name)
del os.sched_getaffinity
real = os.open
def open_files_only(path, *others, **named):
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real(path, *others, **named)
import jax  # whatever it needs of this system, it has on Windows
os.open = open_files_only
import runpy
sys.argv = ["tiny", "--out", "run", "--epochs", "1"]
runpy.run_module("tests.support.tiny", run_name="__main__", alter_sys=True)
"""
    done = python("-W", "ignore:only soft file lock", "-c", code, cwd=tmp_path)  # filelock's; it uses msvcrt on Windows
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "finished.json").exists()
