"""`jaxgen evaluate`, on weights files, runs and folders of images; with pixels in place of learned features."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import data, metrics, runs, torch_weights
from jaxgen.commands import evaluate
from jaxgen.durable import write_json
from jaxgen.layers import init_variables
from jaxgen.metrics import samples as samples_module
from jaxgen.models import autoencoder, completion, dcgan, vae

pytestmark = pytest.mark.unoptimized

DIGITS = {"name": "digits", "size": [8, 8], "channels": 1, "white": 16}


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(samples_module, "learned_features", lambda *args, **kwargs: metrics.pixels()._replace(name=""))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch):
    """300 digits to train on and 100 others to test on."""
    digits = data.load("digits")

    def load_splits(name, **options):
        if name != "digits":
            return data.load_splits(name, **options)
        train = data.load(name, size=options["size"], channels=options["channels"]) if "size" in options else digits
        return tuple(
            train._replace(images=train.images[rows], labels=train.labels[rows])
            for rows in (slice(300), slice(300, 400))
        )

    monkeypatch.setattr(evaluate, "load_splits", load_splits)


def weights_file(path: Path, module, about=None) -> Path:
    """Untrained weights whose header says what they are, and of which data."""
    tensors = torch_weights.state_dict(module, init_variables(module, jax.random.key(0)))
    header = {"module": torch_weights.describe(module), "data": about}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(torch_weights.to_safetensors(tensors, header))
    return path


def run_folder(path: Path, experiment: str, module, about, **options) -> Path:
    layout = runs.Layout(path)
    weights_file(layout.final / "model.safetensors", module, about)
    record = {"layout": 2, "experiment": f"experiments.{experiment}", "options": options, "data": about}
    write_json(layout.config, record)
    layout.checkpoints.mkdir()
    write_json(layout.finished, {"epochs": 1, "results": {}})
    return path


def figures_of(path: str | Path, **options) -> list[str]:
    """Run the command, and give the names in the one file of figures that it writes."""
    evaluate.run(evaluate.Options(path=path, **options))
    (file,) = Path().rglob("*figures.json")
    return list(json.loads(file.read_text()))


SAMPLES = ["frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"]


def test_generator_of_a_weights_file(capsys):
    path = weights_file(Path("generator.safetensors"), dcgan.DigitsGenerator(), DIGITS)
    assert figures_of(path, samples=50) == [*SAMPLES, *(f"{name}_of_pixels" for name in SAMPLES)]
    said = capsys.readouterr().out
    assert "real against held-out real" in said
    assert "Fréchet distance" in said
    assert "50 samples" in said
    assert Path("generator_figures.json").exists()


def test_samples_are_as_many_as_can_be_compared(capsys):
    path = weights_file(Path("generator.safetensors"), dcgan.DigitsGenerator(), DIGITS)
    figures_of(path)
    assert "100 samples" in capsys.readouterr().out


def test_equal_seeds_give_equal_figures():
    path = weights_file(Path("generator.safetensors"), dcgan.DigitsGenerator(classes=10), DIGITS)
    contents = []
    for seed in (1, 1, 2):
        figures_of(path, samples=50, seed=seed)
        contents.append(Path("generator_figures.json").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_pth_file_of_a_tutorial(tmp_path):
    """It does not say what its data were."""
    torch = pytest.importorskip("torch")
    module = dcgan.DigitsGenerator()
    tensors = torch_weights.state_dict(module, init_variables(module, jax.random.key(0)))
    torch.save({name: torch.tensor(array) for name, array in tensors.items()}, tmp_path / "tutorial.pth")
    with pytest.raises(jaxgen.InputError, match=r"does not say what it was trained on.*data"):
        figures_of("tutorial.pth")
    assert SAMPLES[0] in figures_of("tutorial.pth", data="digits", samples=50)


def test_autoencoder_beside_as_many_numbers_as_its_code_has():
    module = autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(1), input_shape=(8, 8, 1))
    path = weights_file(Path("model.safetensors"), module, DIGITS)
    assert figures_of(path) == ["mse", "psnr", "ssim"]
    found = json.loads(Path("model_figures.json").read_text())
    assert list(found["mse"]["baselines"]) == ["PCA with 32 numbers"]


def test_run_of_a_vae_writes_into_its_samples():
    module = vae.ConvVAE(2, size=16, width=4)
    path = run_folder(Path("run"), "vae_mnist", module, DIGITS, data="digits", crop=False)
    names = figures_of(path, samples=50, importance_samples=2)
    bounds = ["elbo", "reconstruction", "kl_divergence", "importance_weighted_bound"]
    assert names == [*bounds, "active_units", "reconstruction_mse", "linear_probe", *SAMPLES]
    assert (path / "samples" / "figures.json").exists()


def test_conditional_vae():
    path = weights_file(Path("model.safetensors"), vae.ConvVAE(2, size=16, width=4, classes=10), DIGITS)
    assert {"elbo", "linear_probe", "coverage"} <= set(figures_of(path, samples=50))


def test_runs_of_two_cells():
    for cell in ("lstm", "gru"):
        module = completion.RowCompleter(cell, 4, width=8)
        run_folder(Path("both") / cell, "rnn_complete", module, DIGITS, data="digits", sequence_length=4)
    write_json(Path("both/config.json"), {"layout": 2, "experiment": "experiments.rnn_complete", "options": {}})
    evaluate.run(evaluate.Options(path="both"))
    for cell in ("lstm", "gru"):
        found = json.loads(Path(f"both/samples/{cell}_figures.json").read_text())
        assert list(found) == ["completion_mse", "completion_ssim"]
        assert "nearest image" in found["completion_mse"]["baselines"]


def test_folder_of_images():
    digits = data.load("digits")
    for number, image in enumerate(digits.images[:40, :, :, 0]):
        Path(f"drawn/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(f"drawn/{number % 2}/{number}.png")
    assert figures_of("drawn", data="digits") == [*SAMPLES, *(f"{name}_of_pixels" for name in SAMPLES)]
    found = json.loads(Path("drawn_figures.json").read_text())
    assert found["precision_of_pixels"]["value"] > 0.9


def test_out_is_another_folder():
    path = weights_file(Path("generator.safetensors"), dcgan.DigitsGenerator(), DIGITS)
    figures_of(path, samples=50, out="elsewhere")
    assert Path("elsewhere/generator_figures.json").exists()


def test_what_cannot_be_measured_is_refused():
    Path("nothing").mkdir()
    with pytest.raises(jaxgen.InputError, match=r"no run there.*for a folder of images.*data"):
        figures_of("nothing")
    path = weights_file(Path("discriminator.safetensors"), dcgan.DigitsDiscriminator(), DIGITS)
    with pytest.raises(jaxgen.InputError, match="cannot be measured"):
        figures_of(path)
    path = weights_file(Path("generator.safetensors"), dcgan.DigitsGenerator(), DIGITS | {"name": "folder:photos"})
    with pytest.raises(jaxgen.InputError, match=r"the data of .* cannot be loaded: .*photos.*; data names others"):
        figures_of(path)
    path = weights_file(Path("generator.safetensors"), dcgan.DigitsGenerator(), DIGITS)
    with pytest.raises(jaxgen.InputError, match="5 images can be compared"):
        figures_of(path, samples=5)
