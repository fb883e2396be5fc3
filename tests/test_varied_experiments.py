"""The experiments' options for classes, sizes and losses, on a few small images."""

import json

import jax
import numpy as np
import pytest

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, vae_mnist
from jaxgen import pictures
from jaxgen.errors import InputError
from jaxgen.models import dcgan, vae
from tests.test_runs import call

pytestmark = pytest.mark.unoptimized

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
LABELS = np.arange(20) % 3
SMALL = {"size": 8, "width": 2, "batch_size": 6, "epochs": 1}


@pytest.fixture
def shown(monkeypatch):
    """The labels of the rows of every sheet, and how many images it has."""
    sheets = []
    draw = pictures.sheet

    def sheet(images, columns, **options):
        sheets.append((tuple(options.get("row_labels", ())), len(images)))
        return draw(images, columns, **options)

    monkeypatch.setattr(pictures, "sheet", sheet)
    return sheets


@pytest.mark.parametrize(
    ("experiment", "options", "columns"),
    [(dcgan_digits, {"epochs": 1}, 16), (dcgan_mnist, {"channels": 3, **SMALL}, 8)],
    ids=["dcgan_digits", "dcgan_mnist"],
)
def test_conditional_gan_draws_a_row_for_each_class(tmp_path, shown, experiment, options, columns):
    config = experiment.Config(out=tmp_path / "run", conditional=True, report="none", **options)
    experiment.main(config, data=(IMAGES, LABELS))
    assert (("0", "1", "2"), 3 * columns) in shown
    trained = jaxgen.load(tmp_path / "run")
    assert {module.classes for module in trained.module.values()} == {3}
    generator, variables = trained.module["generator"], trained.variables["generator"]
    one, other = (dcgan.sample(generator, variables, jax.random.key(0), 4, label) for label in (0, 2))
    assert float(abs(one - other).max()) > 1e-6

    again = experiment.Config(out=tmp_path / "run", sample=6, seed=1)
    experiment.main(again)
    drawn = np.load(tmp_path / "run" / "samples" / "6_of_seed_1.npy")
    assert len(drawn) == 6
    with pytest.raises(InputError, match=r"conditional=False: the run in .* has conditional=True"):
        experiment.main(
            experiment.Config(out=tmp_path / "run", conditional=False, resume=True, epochs=2), data=(IMAGES, LABELS)
        )


def test_conditional_vae_draws_tests_and_refuses_to_morph(tmp_path, shown):
    folder = tmp_path / "run"
    config = vae_mnist.Config(out=folder, conditional=True, report="none", channels=3, beta=2.0, latent=3, **SMALL)
    outcome = vae_mnist.main(config, data=(IMAGES, LABELS))
    assert (("0", "1", "2"), 30) in shown
    assert (folder / "final" / "samples.png").exists()
    assert not (folder / "final" / "latent_grid.png").exists()
    history = {name: values[0] for name, values in outcome.history.items()}
    assert history["loss"] == pytest.approx(history["reconstruction"] + 2 * history["kl"], rel=1e-4)
    assert jaxgen.load(folder).module == vae.ConvVAE(3, 8, 3, 2, 3)
    vae_mnist.main(vae_mnist.Config(out=folder, test=True), data=(IMAGES, LABELS))
    with pytest.raises(InputError, match=r"morph=.*: the run is conditional, so its codes do not say the class"):
        vae_mnist.main(vae_mnist.Config(out=folder, morph=(0, 1)), data=(IMAGES, LABELS))


def test_sizes_of_the_networks_are_those_of_the_options():
    shape = {"size": 64, "channels": 3, "width": 8}
    config = dcgan_mnist.Config(**shape)
    assert dcgan_mnist.networks(config, 3) == (
        dcgan.MnistGenerator(classes=3, **shape),
        dcgan.MnistDiscriminator(classes=3, **shape),
    )
    assert vae_mnist.network(vae_mnist.Config(latent=5, **shape), 3) == vae.ConvVAE(5, classes=3, **shape)


def test_latent_samples_are_those_of_each_image():
    recipe = vae_mnist.recipe(vae_mnist.Config(latent_samples=3, latent=5))
    assert recipe.noise(jax.random.key(0), 4).epsilon.shape == (4, 3, 5)


def test_denoising_autoencoder_is_measured_on_noisy_images(tmp_path):
    config = conv_autoencoder.Config(
        out=tmp_path / "run", size=8, noise=0.5, epochs=1, batch_size=6, report="none", device="cpu"
    )
    conv_autoencoder.main(config, data=IMAGES)
    figures = json.loads((tmp_path / "run" / "finished.json").read_text())["results"]
    assert {"test_mse", "test_mse_of_noisy"} <= figures.keys()


@pytest.mark.parametrize(
    ("experiment", "options", "said"),
    [
        (dcgan_mnist, "--conditional --data faces", "--conditional: faces has no labels; leave it out, or name other"),
        (vae_mnist, "--conditional --data faces", "--conditional: faces has no labels"),
        (dcgan_digits, "--conditional --data faces", "--conditional: faces has no labels"),
        (dcgan_mnist, "--size 30", "--size 30: images must be square, 4, 5, 6 or 7 times a power of two"),
        (vae_mnist, "--size 64 48", "--size 64 48: images must be square, 4, 5, 6 or 7 times a power of two"),
        (dcgan_mnist, "--channels 2", "channels"),
        (vae_mnist, "--beta -1", "--beta -1.0: must be 0 or more"),
        (vae_mnist, "--beta 2 --latent-samples 2", "beta 2.0: with several samples the bound has no KL term"),
        (conv_autoencoder, "--noise -1", "--noise -1.0: must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, monkeypatch, capsys, experiment, options, said):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    status, _, err = call(monkeypatch, capsys, *options.split(), "--out", str(tmp_path / "run"), experiment=experiment)
    assert status == 2
    assert said in err
    assert not (tmp_path / "run").exists()
