"""What a run prints."""

import re
import sys
import types

import pytest

from jaxgen.runs import progress
from jaxgen.runs.progress import Progress
from tests.support import tiny

pytestmark = pytest.mark.unoptimized

# The metrics of each experiment, at their widest.
METRICS = {
    "conv_autoencoder": {"loss": 0.0123456},
    "dcgan_digits": {
        "accuracy_fake": 0.98765,
        "accuracy_real": 0.98765,
        "error_fake": 0.0123456,
        "error_real": 0.01234,
    },
    "dcgan_mnist": {"loss_discriminator": 0.0123456, "loss_generator": 10.1234},
    "rnn_complete": {"loss": 0.000123456},
    "vae_mnist": {"kl": 12.3456, "loss": 123.456, "reconstruction": 123.456},
}


@pytest.mark.parametrize("experiment", METRICS)
@pytest.mark.parametrize("seconds", [0.01, 4321.0, 400_000.0])
def test_an_epochs_line_fits_80_columns(capsys, experiment, seconds):
    label = "lstm" if experiment == "rnn_complete" else ""
    with Progress(label) as shown:
        shown.begin(3000, 1000)
        shown.epoch(1234, METRICS[experiment], seconds)
    line = capsys.readouterr().out.rstrip("\n")
    assert line.startswith("epoch 1234/3000  " + label)
    assert len(line) <= 80
    for name in METRICS[experiment]:
        assert all(word in line for word in name.split("_")), "no metric is cut off"


@pytest.mark.parametrize(
    ("pace", "said"), [(0.0005, "2,000.0 steps/s"), (0.5, "2.0 steps/s"), (1.5, "1.5 s/step"), (90, "90.0 s/step")]
)
def test_below_one_step_a_second_it_is_seconds_a_step(pace, said):
    assert progress.rate(pace) == said


def test_a_long_epoch_prints_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    assert progress._QUIET == 30
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("gru") as shown:
        shown.begin(10, 100)
        for step in range(1, 100):
            now[0] += 2.0
            shown.update(3, step, 1, 2.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "epoch 4/10  gru  step 16/100  2.0 s/step  22:48 left"
    assert len(lines) == 6  # in 198 seconds


def test_a_run_without_a_terminal_prints_within_an_epoch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_QUIET", -1.0)
    tiny.main(tiny.Config(out=tmp_path / "run", epochs=1))
    assert re.search(r"^epoch 1/1  step 1/6  ", capsys.readouterr().out, re.MULTILINE)


def test_a_notebook_with_widgets_has_a_notebooks_bar(monkeypatch):
    made = []
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: name == "ipywidgets")

    class Bar:
        n = 0

        def __init__(self, **options):
            made.append(options)

        def __getattr__(self, name):
            return lambda *_, **__: None

    monkeypatch.setitem(sys.modules, "tqdm.notebook", types.SimpleNamespace(tqdm=Bar))
    with Progress() as shown:
        shown.begin(2, 10)
        shown.update(0, 5, 5, 0.1)
    assert [(options["desc"], options["total"], options["initial"]) for options in made] == [("epoch 1/2", 20, 5)]
