"""Pictures that cannot be drawn cost the picture and the exit status, never the run."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import rnn_complete, vae_mnist
from jaxgen import pictures, runs
from jaxgen.runs import outputs
from tests.support import tiny
from tests.test_runs import bits, call, events

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent
PICTURES = ("captioned", "compared", "curves", "grid", "over", "plane", "scatter", "sheet")


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("latex was not able\nto process this")


@pytest.mark.parametrize("error", [OSError("cannot open resource"), MemoryError()])
def test_a_picture_that_fails_is_one_line_and_the_exit_status(tmp_path, monkeypatch, capsys, error):
    def curves(*_, **__):
        raise error

    monkeypatch.setattr(pictures, "curves", curves)
    status, out, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert status == 1
    assert err == f"loss.png was not drawn: {type(error).__name__}: {error}".rstrip(": ") + "\n"
    assert "trained to epoch 6" in out
    assert sorted(path.name for path in (tmp_path / "run" / "final").iterdir()) == [
        "learning.gif", "mean.png", "model.safetensors",
    ]  # fmt: skip
    assert (tmp_path / "run" / "finished.json").exists()
    assert events(tmp_path / "run")[-1]["text"] == err.strip()


def test_a_drawing_that_fails_costs_neither_epochs_nor_weights(tmp_path, monkeypatch, capsys):
    drawn = tiny.main(tiny.Config(out=tmp_path / "drawn"))
    monkeypatch.setattr(pictures, "grid", fail)
    outcome = tiny.main(tiny.Config(out=tmp_path / "run"))
    assert bits(outcome.variables) == bits(drawn.variables)
    assert outcome.history["loss"] == drawn.history["loss"]
    said = "was not drawn: RuntimeError: latex was not able to process this"
    pictures_of_epochs = [f"a picture of epoch {epoch} {said}" for epoch in (0, 2, 4, 6)]
    assert outcome.failures[:4] == tuple(pictures_of_epochs)
    assert outcome.failures[4].startswith("learning.gif was not drawn: ")  # it has no frames
    assert capsys.readouterr().err.splitlines() == list(outcome.failures)


def test_weights_are_written_before_the_last_pictures(tmp_path, monkeypatch):
    there = []

    def curves(*_, **__):
        there.append((tmp_path / "run" / "final" / "model.safetensors").exists())
        return fail()

    monkeypatch.setattr(pictures, "curves", curves)
    tiny.main(tiny.Config(out=tmp_path / "run"))
    assert there == [True]


def test_a_disk_that_fails_while_pictures_are_written_ends_the_run(tmp_path, monkeypatch, capsys):
    write = outputs.write

    def full(path, content):
        if path.suffix == ".png" and "004" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)

    monkeypatch.setattr(outputs, "write", full)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"))
    assert (status, err.count("\n")) == (1, 1)
    assert "mean.png: No space left on device; what was saved is intact" in err
    assert not (tmp_path / "run" / "finished.json").exists()


@pytest.mark.parametrize(
    ("experiment", "options"),
    [
        (rnn_complete, ["--size", "8", "--hidden", "4"]),
        (vae_mnist, []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_experiment_survives_pictures_that_fail(tmp_path, monkeypatch, capsys, experiment, options):
    """Nothing of the drawing is outside of what may fail, such as the encoding of all test images."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "images.npz", images=images, labels=np.arange(40) % 10)
    for name in PICTURES:
        monkeypatch.setattr(pictures, name, fail)
    for name in ("encode", "decode", "morph"):
        monkeypatch.setattr(vae_mnist.vae, name, fail)
    arguments = ["--data", f"arrays:{tmp_path / 'images.npz'}", "--batch-size", "18", "--epochs", "1"]
    status, out, err = call(
        monkeypatch, capsys, *arguments, *options, "--out", str(tmp_path / "run"), experiment=experiment
    )
    assert status == 1
    assert all(" was not drawn: " in line for line in err.splitlines())
    assert "trained to epoch 1" in out
    assert (tmp_path / "run" / "finished.json").exists()
    assert list((tmp_path / "run").rglob("final/*.safetensors"))
    assert not list((tmp_path / "run").rglob("*.png"))


@pytest.mark.parametrize(
    "surroundings",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline_that_is_missing"},
        {"MATPLOTLIBRC": "matplotlibrc"},
    ],
    ids=["a backend of a notebook", "LaTeX"],
)
def test_the_users_settings_of_matplotlib_do_not_matter(tmp_path, surroundings):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: no_such_backend\n")
    surroundings = {name: value.replace("matplotlibrc", str(tmp_path / "matplotlibrc")) if name == "MATPLOTLIBRC"
                    else value for name, value in surroundings.items()}  # fmt: skip
    compiled = str(jax.config.jax_compilation_cache_dir)
    environment = os.environ | surroundings | {"JAX_COMPILATION_CACHE_DIR": compiled, "JAXGEN_DATA": str(tmp_path)}
    words = [sys.executable, "-m", "tests.support.tiny", "--epochs", "1", "--out", str(tmp_path / "run")]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "final" / "loss.png").exists()


def test_a_comparison_that_cannot_be_drawn_fails_its_group_only_at_the_end(tmp_path, monkeypatch):
    config = tiny.Config(out=tmp_path / "both", epochs=1)
    with runs.start_group(config, tiny.points()) as group:
        with group.start("one", tiny.Mean()) as one:
            one.fit(tiny.recipe(config))
        group.picture("compared", fail)
    outcome = group.outcome({"one": one.outcome})
    assert outcome.failures == ("compared was not drawn: RuntimeError: latex was not able to process this",)
    assert (tmp_path / "both" / "finished.json").exists()
