"""What needs a GPU: `python -m pytest -m gpu`. Without one, every test is skipped and says so."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parent.parent
PLATFORM = "gpu"
EXPERIMENTS = {
    conv_autoencoder: {"size": 8, "channels": 1},
    dcgan_digits: {"frame_every": 9},
    dcgan_mnist: {},
    rnn_complete: {"size": 8, "hidden": 16, "cell": "lstm"},
    vae_mnist: {},
}


@pytest.fixture(autouse=True)
def _gpu():
    try:
        jax.devices(PLATFORM)
    except RuntimeError:
        pytest.skip("JAX finds no GPU on this machine")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)


def train(experiment, device, images, folder):
    options = EXPERIMENTS[experiment]
    return experiment.main(
        experiment.Config(device=device, devices=1, epochs=1, batch_size=12, out=folder, **options), data=images
    )


def losses(outcome):
    return {name: values for name, values in outcome.history.items() if name != "seconds"}


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda module: module.__name__)
def test_recipe_trains_as_on_the_cpu_and_twice_to_the_same_bits(experiment, images, tmp_path):
    first = train(experiment, PLATFORM, images, tmp_path / "first")
    train(experiment, PLATFORM, images, tmp_path / "second")
    assert {leaf.device.platform for leaf in jax.tree.leaves(first.variables)} == {PLATFORM}
    for path in sorted((tmp_path / "first" / "final").glob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "second" / "final" / path.name).read_bytes()
    on_cpu = losses(train(experiment, "cpu", images, tmp_path / "cpu"))
    for name, values in losses(first).items():
        np.testing.assert_allclose(values, on_cpu[name], rtol=0.02)


def command(folder, **environment):
    words = [sys.executable, "-m", "experiments.dcgan_mnist", "--data", "digits", "--device", PLATFORM, "--epochs", "1"]
    return subprocess.run(
        [*words, "--out", str(folder)], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("preallocate", ["true", "false"])
def test_command_trains_with_and_without_preallocated_memory(tmp_path, preallocate):
    done = command(tmp_path / "run", XLA_PYTHON_CLIENT_PREALLOCATE=preallocate, XLA_PYTHON_CLIENT_MEM_FRACTION=".3")
    assert (done.returncode, done.stderr) == (0, "")


def test_memory_that_runs_out_is_one_line(tmp_path):
    done = command(tmp_path / "run", XLA_PYTHON_CLIENT_MEM_FRACTION=".0005")
    assert done.returncode in (1, 2)
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert "memory" in last
    assert "Traceback" not in done.stderr
