"""The experiments measure their models, and keep the best by images that are held out of training."""

import json

import numpy as np
import pytest

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen import data, metrics
from jaxgen.metrics import samples as samples_module

pytestmark = pytest.mark.unoptimized

SAMPLES = {"frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"}
VAE = {"elbo", "reconstruction", "kl_divergence", "active_units", "reconstruction_mse", "linear_probe"}
OF_EPOCHS = {
    conv_autoencoder: {"mse", "psnr", "ssim"},
    dcgan_digits: SAMPLES | {f"{name}_of_pixels" for name in SAMPLES},
    dcgan_mnist: SAMPLES,
    rnn_complete: {"completion_mse", "completion_ssim"},
    vae_mnist: VAE,
}
AT_END = {  # that are no matter of choice
    conv_autoencoder: {"test_mse"},
    rnn_complete: {"validation_mse"},
    vae_mnist: {"test_loss", "test_reconstruction", "test_kl"},
}
OPTIONS = {
    conv_autoencoder: {"size": (8, 8), "channels": 1, "batch_size": 9, "draw_every": 1},
    dcgan_digits: {"batch_size": 9, "sample_every": 1},
    dcgan_mnist: {"batch_size": 9, "sample_at": (1,), "width": 8},
    rnn_complete: {"size": (8, 8), "hidden": 3, "batch_size": 40, "cell": ("gru",), "draw_every": 1},
    vae_mnist: {"batch_size": 9, "validation": 0.25, "width": 4},
}


def digits(count: int) -> data.Images:
    found = data.load("digits")
    return found._replace(images=found.images[:count], labels=found.labels[:count])


def train(experiment, path, count: int, **options):
    """A short training on a few digits, without its page."""
    given = OPTIONS[experiment] | {"epochs": 1, "report": "none", "out": path} | options
    return experiment.main(experiment.Config(**given), data=digits(count))


def figures_of(folder) -> dict[str, dict]:
    return json.loads((folder / "figures.json").read_text()) if (folder / "figures.json").exists() else {}


@pytest.mark.quality
@pytest.mark.parametrize("experiment", OF_EPOCHS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_experiment_measures_its_model(experiment, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(samples_module, "learned_features", lambda *args, **kwargs: metrics.pixels()._replace(name=""))
    monkeypatch.setattr(dcgan_mnist, "MEASURED", 20)
    outcome = train(experiment, tmp_path / "run", 24 if experiment is vae_mnist else 120)
    assert outcome.failures == ()
    assert figures_of(tmp_path / "run/epochs/000") == {}  # measuring the untrained model would only delay the training
    assert figures_of(tmp_path / "run/epochs/001").keys() == OF_EPOCHS[experiment]
    at_end = figures_of(tmp_path / "run/final")
    assert at_end.keys() == outcome.results.keys() == OF_EPOCHS[experiment] | AT_END.get(experiment, set())
    said = capsys.readouterr().out
    assert ("validation_loss" in outcome.history) == (experiment is vae_mnist)
    for name in OF_EPOCHS[experiment]:
        assert metrics.title(name) in said
        for label in at_end[name]["baselines"]:
            assert label in said


@pytest.mark.quality
def test_models_are_not_measured_without_metrics(tmp_path):
    outcome = train(conv_autoencoder, tmp_path / "run", 20, metrics=False)
    assert outcome.results.keys() == {"test_mse"}
    assert figures_of(tmp_path / "run/epochs/001") == {}


@pytest.mark.quality
def test_table_of_several_models_has_their_mean(tmp_path, capsys):
    outcome = train(rnn_complete, tmp_path / "run", 40, seeds=2)
    values = [outcome.results[f"completion_mse/{model}"] for model in range(2)]
    assert outcome.results["completion_mse"] == pytest.approx(np.mean(values))
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Completion MSE ↓")]
    assert f"{np.mean(values):.4g}±" in row


def test_hold_out_divides_the_images():
    images = digits(50)
    train, validation = data.hold_out(images, 0.1)
    assert [len(part.images) for part in (train, validation)] == [45, 5]
    both = np.concatenate([train.images, validation.images]).reshape(50, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, images.images.reshape(50, -1)))
    assert train.labels.shape == (45,)
    again = data.hold_out(images, 0.1)[1]
    np.testing.assert_array_equal(again.images, validation.images)
    assert not np.array_equal(data.hold_out(images, 0.1, seed=1)[1].images, validation.images)
    whole, none = data.hold_out(images, 0)
    assert [len(whole.images), len(none.images)] == [50, 0]
    assert len(data.hold_out(images, 0.001)[1].images) == 1
    with pytest.raises(jaxgen.InputError, match="a single training image"):
        data.hold_out(digits(1), 0.1)


@pytest.mark.parametrize(
    ("experiment", "figure"), [(conv_autoencoder, "validation_loss"), (rnn_complete, "held_out_mse")]
)
def test_best_checkpoint_is_by_the_images_held_out_of_training(experiment, figure, tmp_path):
    options = {"validation": 0.25, "epochs": 2, "save_every": 1}
    outcome = train(experiment, tmp_path / "run", 40, **options)
    values = outcome.history[figure]
    record = json.loads((tmp_path / "run/config.json").read_text())
    assert record["data"]["images"] == 27  # of 40, 4 are for testing, and 9 of the others are held out
    kept = {path.name: json.loads((path / "about.json").read_text()) for path in _checkpoints(tmp_path / "run")}
    by_epoch = {about["epoch"]: about["figure"] for about in kept.values() if about["epoch"]}
    assert by_epoch == {1: pytest.approx(values[0]), 2: pytest.approx(values[1])}
    assert figure not in train(experiment, tmp_path / "plain", 20).history


def _checkpoints(run):
    return [path for path in (run / "checkpoints").iterdir() if path.is_dir()]
