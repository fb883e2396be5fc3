"""Every experiment from the command line, on a few images: the pictures, logs and weights that it writes."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence
from safetensors.numpy import save_file

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen import runs
from jaxgen.data import Images
from jaxgen.pictures import plots, sheets, text
from tests.test_runs import bits, call, contents, edit, snapshot, tensors

pytestmark = pytest.mark.unoptimized

EXPERIMENTS = [conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    """Twelve small colour images in two classes, and four more for the test, as `folder:PATH`."""
    folder, chance = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for kind in ("cats", "dogs"):
            (folder / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = chance.integers(0, 256, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / kind / f"{number}.png")
    return f"folder:{folder}"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def titles(monkeypatch):
    """The titles, labels and captions that are drawn into pictures."""
    drawn = []

    def literal(line):
        drawn.append(line)
        return text.literal(line)

    monkeypatch.setattr(plots, "literal", literal)
    monkeypatch.setattr(sheets, "literal", literal)
    return drawn


def files_of(folder: Path) -> set[str]:
    """The pictures and weights that a run has written; `epochs/001/samples.png` as `001/samples.png`."""
    paths = [*(folder / "epochs").rglob("*.*"), *(folder / "final").rglob("*.*")]
    return {str(path.relative_to(folder)).removeprefix("epochs/") for path in paths}


def with_raw(names: set[str]) -> set[str]:
    """The files of the raw pictures that stand beside these: `001/raw/samples.png` for `001/samples.png`."""
    return {re.sub(r"/(?=[^/]*$)", "/raw/", name) for name in names}


def epoch_lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if re.match(r"epoch \d+/", line)]


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda module: module.__name__)
def test_help_names_the_module_and_data(experiment, monkeypatch, capsys):
    status, out, err = call(monkeypatch, capsys, "--help", experiment=experiment)
    assert (status, err) == (0, "")
    assert f"-m {experiment.__name__}" in out
    assert "--data STR" in out


def test_defaults_are_the_tutorials_settings():
    assert dcgan_digits.Config().stored().items() >= {"epochs": 200, "batch_size": 16, "learning_rate": 1e-3}.items()
    assert dcgan_mnist.Config().stored().items() >= {"epochs": 25, "batch_size": 128, "learning_rate": 2e-4}.items()
    assert conv_autoencoder.Config().stored().items() >= {"epochs": 20, "batch_size": 50, "learning_rate": 1e-3}.items()
    assert rnn_complete.Config().stored().items() >= {"epochs": 501, "batch_size": 32, "size": [56, 56]}.items()
    assert vae_mnist.Config().stored().items() >= {"epochs": 5, "batch_size": 30, "weight_decay": 1e-5}.items()


def test_dcgan_digits_trains_resumes_and_samples(tmp_path, monkeypatch, capsys, titles):
    """On the real digits; a resumed run equals an uninterrupted one bit for bit."""
    through, broken = tmp_path / "through", tmp_path / "broken"
    options = ["--sample-every", "2", "--save-every", "1", "--batch-size", "512"]
    status, out, err = call(
        monkeypatch, capsys, "--epochs", "3", "--out", str(through), *options, experiment=dcgan_digits
    )
    assert (status, err) == (0, "")
    assert [line[:9] for line in out.splitlines() if line.startswith("epoch")] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3",
    ]  # fmt: skip
    assert "data      digits: 1,797 images of 8×8×1, 10 classes; none held out" in out
    assert "trained to epoch 3 in 0:" in out
    assert {"000/samples.png", "002/samples.png", "final/samples.png", "000/digits.png"} <= files_of(through)
    assert {"000/first_ten.png", "final/errors.png", "final/accuracies.png", "final/training.gif"} <= files_of(through)
    assert {"001/frame.png", "final/generator.safetensors", "final/discriminator.safetensors"} <= files_of(through)
    assert {"002/errors.png", "002/accuracies.png", "000/raw/digits.png", "001/raw/frame.png"} <= files_of(through)
    assert not {"000/errors.png", "003/samples.png"} & files_of(through)
    with Image.open(through / "epochs" / "000" / "raw" / "samples.png") as sheet:
        assert sheet.size == (160, 160)
    with Image.open(through / "epochs" / "000" / "samples.png") as sheet:
        assert 700 < sheet.width < 1000
    assert "dcgan_digits · digits · epoch 2: samples" in titles
    assert {"dcgan_digits · digits · untrained: samples", "dcgan_digits · digits: training images"} <= set(titles)
    assert {"epoch 1 · dcgan_digits · digits", "dcgan_digits · digits: discriminator's cross-entropy"} <= set(titles)
    with Image.open(through / "final" / "training.gif") as animation:
        assert animation.n_frames == 4
    figures = {"error_fake", "error_real", "accuracy_fake", "accuracy_real"}
    assert metrics(through)[0].keys() == {"epoch", "seconds"} | figures
    call(monkeypatch, capsys, "--epochs", "1", "--out", str(broken), *options, experiment=dcgan_digits)
    call(monkeypatch, capsys, "--epochs", "3", "--out", str(broken), "--resume", experiment=dcgan_digits)
    assert contents(broken) == contents(through)

    drawn = []
    for _ in range(2):  # the seed determines the samples
        status, out, err = call(
            monkeypatch, capsys, "--sample", "5", "--seed", "7", "--out", str(through), experiment=dcgan_digits
        )
        assert (status, err) == (0, "")
        drawn.append(np.load(through / "samples" / "5_of_seed_7.npy"))
    assert drawn[0].shape == (5, 8, 8, 1)
    np.testing.assert_array_equal(*drawn)
    assert bits(jaxgen.load(through).variables) == bits(jaxgen.load(broken).variables)


def test_rnn_complete_compares_both_cells(tmp_path, images, monkeypatch, capsys, titles):
    data = f"folder:{Path(images).name}"
    options = ["--data", images, "--size", "8", "6", "--hidden", "5", "--batch-size", "7", "--draw-every", "1"]
    arguments = ["--epochs", "2", "--out", str(tmp_path / "run"), *options]
    status, out, err = call(monkeypatch, capsys, *arguments, experiment=rnn_complete)
    assert (status, err) == (0, "")
    assert re.search(r"training time, LSTM − GRU: -?\d+\.\d s", out)
    for cell in ("lstm", "gru"):
        completed = {f"{place}/completed.png" for place in ("000", "001", "002", "final")}
        assert files_of(tmp_path / "run" / cell) == completed | with_raw(completed) | {
            "000/original.png", "000/raw/original.png", "001/loss.png", "002/loss.png", "final/loss.png",
            "final/model.safetensors", "final/figures.json",
        }  # fmt: skip
        assert len(metrics(tmp_path / "run" / cell)) == 2
        assert {cell.upper(), "original", f"rnn_complete · {data} · epoch 2: completed below the line"} <= set(titles)
        with Image.open(tmp_path / "run" / cell / "final" / "raw" / "completed.png") as strip:
            assert strip.size == (4 * (6 + 2), 8 + 2)
    compared = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").glob("[ef]*/**/*.png")}
    completed = {f"epochs/00{epoch}/completed.png" for epoch in (0, 1, 2)}
    assert compared == completed | {"final/losses.png", "final/completed.png"}
    assert all(cell in line for line, cell in zip(epoch_lines(out), ["lstm", "lstm", "gru", "gru"], strict=True))
    status, out, err = call(
        monkeypatch, capsys, "--resume", "--epochs", "3", "--out", str(tmp_path / "run"), experiment=rnn_complete
    )
    assert (status, err) == (0, "")
    assert len(metrics(tmp_path / "run" / "gru")) == 3
    (tmp_path / "run" / "gru" / "finished.json").unlink()  # an unfinished run is past the epochs asked for
    before = snapshot(tmp_path / "run")
    status, out, err = call(
        monkeypatch, capsys, "--resume", "--epochs", "2", "--out", str(tmp_path / "run"), experiment=rnn_complete
    )
    assert (status, err.count("\n")) == (2, 1)
    assert "--epochs 2: the run in" in err
    assert snapshot(tmp_path / "run") == before
    with pytest.raises(jaxgen.InputError, match=r"holds several runs; load one of .*/gru, .*/lstm"):
        jaxgen.load(tmp_path / "run")


def test_rnn_complete_compares_equally_many_epochs(tmp_path, capsys):
    """One cell's run may have more epochs than were asked for."""
    config = rnn_complete.Config(out=tmp_path, epochs=2, draw_every=1)
    outcomes = {
        cell: runs.Outcome(tmp_path, {"loss": [0.3, 0.2, 0.1][:epochs], "seconds": [float(epochs)] * epochs}, *[{}] * 4)
        for cell, epochs in (("lstm", 3), ("gru", 2))
    }
    group = runs.Group(config, None, {"experiment": "experiments.rnn_complete", "data": {}}, None)
    rnn_complete.compare(group, config, outcomes)
    assert "training time, LSTM − GRU: 2.0 s" in capsys.readouterr().out


@pytest.mark.parametrize("experiment", [conv_autoencoder, rnn_complete])
def test_splits_of_different_sizes_are_refused(tmp_path, monkeypatch, capsys, experiment):
    for split, width in (("train", 16), ("test", 12)):
        (tmp_path / "images" / split / "cats").mkdir(parents=True)
        Image.new("RGB", (width, 12)).save(tmp_path / "images" / split / "cats" / "1.png")
    arguments = ["--data", f"folder:{tmp_path / 'images'}", "--size", "None", "--batch-size", "1"]
    status, _, err = call(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "run"), experiment=experiment)
    assert (status, err.count("\n")) == (2, 1)
    assert re.search(r"the training images are 12×16×\d, the test images 12×12×\d; give a size to make them alike", err)
    assert not (tmp_path / "run").exists()


def test_rnn_complete_takes_the_size_of_the_data(tmp_path, images, monkeypatch, capsys):
    options = ["--data", images, "--size", "None", "--cell", "gru", "--hidden", "5", "--epochs", "1"]
    status, _, err = call(monkeypatch, capsys, *options, "--out", str(tmp_path / "run"), experiment=rnn_complete)
    assert (status, err) == (0, "")
    trained = jaxgen.load(tmp_path / "run")
    assert trained.config.size == (12, 12)
    assert trained.config.sequence_length == 6
    assert trained.variables["params"]["fc"]["weight"].shape == (5, 12)


def test_conv_autoencoder_trains_and_starts_from_weights(tmp_path, images, monkeypatch, capsys):
    options = ["--data", images, "--size", "8", "12", "--channels", "1", "--batch-size", "5", "--epochs", "2"]
    status, _, err = call(monkeypatch, capsys, *options, "--out", str(tmp_path / "run"), experiment=conv_autoencoder)
    assert (status, err) == (0, "")
    drawn = {"000/reconstructed.png", "final/reconstructed.png"}
    assert files_of(tmp_path / "run") == drawn | with_raw(drawn) | {
        "final/loss.png", "final/model.safetensors", "final/figures.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "finished.json").read_text())["results"].keys() == {"test_mse"}
    again = ["--data", images, "--size", "8", "12", "--channels", "1", "--batch-size", "5", "--epochs", "1"]
    weights = ["--weights", str(tmp_path / "run" / "final" / "model.safetensors"), "--out", str(tmp_path / "again")]
    status, _, err = call(monkeypatch, capsys, *again, *weights, experiment=conv_autoencoder)
    assert (status, err) == (0, "")
    assert metrics(tmp_path / "again")[0]["loss"] < metrics(tmp_path / "run")[0]["loss"]


def test_resuming_without_a_checkpoint_starts_from_the_weights(tmp_path, images, monkeypatch, capsys):
    def train(name, *options):
        options = ["--data", images, "--batch-size", "6", "--epochs", "1", "--out", str(tmp_path / name), *options]
        assert call(monkeypatch, capsys, *options, experiment=conv_autoencoder)[0] == 0

    train("first", "--seed", "1")
    weights = ("--weights", str(tmp_path / "first" / "final" / "model.safetensors"))
    train("through", *weights)
    train("stopped", *weights)
    for path in (tmp_path / "stopped").iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    train("stopped", "--resume")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "through")


def test_precision_cannot_change_on_resume(tmp_path, images, monkeypatch, capsys):
    def train(*options):
        return call(monkeypatch, capsys, "--out", str(tmp_path), *options, experiment=conv_autoencoder)

    assert train("--epochs", "1", "--precision", "bf16", "--data", images, "--batch-size", "6")[0] == 0
    status, _, err = train("--resume", "--epochs", "2", "--precision", "float32")
    assert (status, err.count("\n")) == (2, 1)
    assert "--precision float32: the run in" in err
    assert train("--resume", "--epochs", "2")[0] == 0
    trained = jaxgen.load(tmp_path)
    assert trained.config.precision == "bf16"
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.variables)} == {np.dtype("float32")}


def test_conv_autoencoder_summary(monkeypatch, capsys):
    status, out, err = call(monkeypatch, capsys, "--summary", experiment=conv_autoencoder)
    assert (status, err) == (0, "")
    for said in ("32×32×16", "16×16×16", "8×8×8", "32×32×3", "(8−1)·2 − 2·0 + 1·(2−1) + 1", "2,331"):
        assert said in out
    status, out, err = call(monkeypatch, capsys, "--summary", "--size", "30", "32", experiment=conv_autoencoder)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "multiples of four" in err


def test_dcgan_mnist_trains_and_resumes(tmp_path, images, monkeypatch, capsys):
    options = ["--data", images, "--batch-size", "5", "--epochs", "2", "--sample-at", "1", "--width", "8"]
    status, _, err = call(monkeypatch, capsys, *options, "--out", str(tmp_path / "run"), experiment=dcgan_mnist)
    assert (status, err) == (0, "")
    files = {"samples.png", "raw/samples.png", "losses.png", "generator.safetensors", "discriminator.safetensors"}
    at_the_end = {f"final/{name}" for name in files}
    assert files_of(tmp_path / "run") == {f"001/{name}" for name in files} | at_the_end
    assert metrics(tmp_path / "run")[0].keys() == {"epoch", "loss_discriminator", "loss_generator", "seconds"}
    longer = ["--resume", "--epochs", "3", "--out", str(tmp_path / "run")]
    save_file({"weight": np.zeros(1)}, tmp_path / "run" / "encoder.safetensors")  # the user's own file
    assert call(monkeypatch, capsys, *longer, experiment=dcgan_mnist)[0] == 0
    assert files_of(tmp_path / "run") == {f"001/{name}" for name in files} | at_the_end
    assert (tmp_path / "run" / "encoder.safetensors").exists()
    last = tmp_path / "run" / "final" / "discriminator.safetensors"
    content = last.read_bytes()
    last.unlink()  # as if the run had been killed between writing the two files
    (tmp_path / "run" / "finished.json").unlink()
    assert call(monkeypatch, capsys, *longer, experiment=dcgan_mnist)[0] == 0
    assert last.read_bytes() == content
    sampling = ["--sample", "3", "--seed", "7", "--out", str(tmp_path / "run")]
    status, _, err = call(monkeypatch, capsys, *sampling, experiment=dcgan_mnist)
    assert (status, err) == (0, "")
    assert np.load(tmp_path / "run" / "samples" / "3_of_seed_7.npy").shape == (3, 28, 28, 1)
    with Image.open(tmp_path / "run" / "samples" / "raw" / "3_of_seed_7.png") as raw:
        assert raw.size == (8 * 30, 30)
    assert (tmp_path / "run" / "samples" / "3_of_seed_7.png").exists()


@pytest.mark.parametrize("experiment", [dcgan_digits, dcgan_mnist], ids=lambda module: module.__name__)
def test_gans_start_from_weights(tmp_path, images, monkeypatch, capsys, experiment):
    options = ["--data", images, "--batch-size", "6", "--epochs", "1"]
    first, second = tmp_path / "first", tmp_path / "second"
    call(monkeypatch, capsys, *options, "--seed", "1", "--out", str(first), experiment=experiment)
    files = [first / "final" / f"{network}.safetensors" for network in ("generator", "discriminator")]
    weights = ["--weights", *map(str, files)]
    status, _, err = call(monkeypatch, capsys, *options, *weights, "--out", str(second), experiment=experiment)
    assert (status, err) == (0, "")
    for file in files:
        assert tensors(second / "checkpoints" / "00000000" / file.name) == tensors(file)
        assert tensors(second / "final" / file.name) != tensors(file)


def test_vae_mnist_trains_tests_and_morphs(tmp_path, images, monkeypatch, capsys, titles):
    monkeypatch.setattr(vae_mnist, "TUTORIALS_PATH", (0, 2, 1))  # of which the data has the classes 0 and 1
    monkeypatch.setattr(vae_mnist, "GRID", 4)
    out = str(tmp_path / "run")
    options = ["--data", images, "--batch-size", "6", "--epochs", "1", "--latent", "3", "--width", "4", "--out", out]
    status, _, err = call(monkeypatch, capsys, *options, experiment=vae_mnist)
    assert (status, err) == (0, "")
    sheets = {"real_image.png", "image.png", "latent_grid.png"}
    sheets |= with_raw({f"/{name}" for name in sheets})
    each = {name.removeprefix("/") for name in sheets} | {"latent_points.png", "latent_points.json"}
    last = each | {"loss.png", "morph.png", "raw/morph.png", "morph.gif", "model.safetensors", "figures.json"}
    epochs = {f"00{epoch}/{name}" for name in each for epoch in (0, 1)} | {"001/loss.png"}
    assert files_of(tmp_path / "run") == {f"final/{name}" for name in last} | epochs
    latent = json.loads((tmp_path / "run" / "final" / "latent_points.json").read_text())
    assert latent["classes"] == list(latent["means"]) == ["cats", "dogs"]
    assert all(len(mean) == 3 for mean in latent["means"].values())
    assert {"cats", "dogs", "cats → dogs", f"cats → dogs · vae_mnist · folder:{Path(images).name} · epoch 1"} <= set(
        titles
    )
    heading = f"vae_mnist · folder:{Path(images).name}"
    assert f"{heading} · epoch 1: the decoded latent plane where all but z₁ and z₂ are 0" in titles
    assert {f"{heading} · epoch 1: between means of classes", f"{heading} · untrained: means of 4 test images"} <= set(
        titles
    )
    with Image.open(tmp_path / "run" / "final" / "morph.gif") as animation:
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(animation)) == 50 * (vae_mnist.FRAMES + 1)
    results = json.loads((tmp_path / "run" / "finished.json").read_text())["results"]
    assert results["test_loss"] == pytest.approx(results["test_reconstruction"] + results["test_kl"], rel=1e-5)
    # The file of weights that the run started from may be gone.
    edit(tmp_path / "run", lambda stored: stored["options"].update(weights="gone.safetensors"))
    status, said, err = call(monkeypatch, capsys, "--out", out, "--test", experiment=vae_mnist)
    assert (status, err) == (0, "")
    assert "  ".join(f"{name} {value:.2f}" for name, value in results.items()) + "\n" in said
    status, said, err = call(monkeypatch, capsys, "--out", out, "--test", "--latent", "2", experiment=vae_mnist)
    assert (status, said, err.count("\n")) == (2, "", 1)
    assert f"--latent 2: the run in {out} has --latent 3" in err
    status, said, err = call(monkeypatch, capsys, "--out", out, "--morph", "0", "1", "0", experiment=vae_mnist)
    assert (status, err) == (0, "")
    with Image.open(tmp_path / "run" / "samples" / "morph_0_1_0.gif") as animation:
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(animation)]
    assert sum(shown) == 50 * (2 * vae_mnist.FRAMES + 1)  # milliseconds; a GIF merges equal frames


BAD = {
    "an unknown data set": (rnn_complete, ["--data", "nonsense"], "there is no data set 'nonsense'"),
    "a missing folder": (rnn_complete, ["--data", "folder:/nowhere"], "/nowhere"),
    "a window as high as the image": (
        rnn_complete,
        ["--sequence-length", "56"],
        "--sequence-length 56: must be from 1",
    ),
    "the same cell twice": (rnn_complete, ["--cell", "gru", "gru"], "name lstm, gru or each once"),
    "an unknown cell": (rnn_complete, ["--cell", "rnn"], "--cell"),
    "no cell": (rnn_complete, ["--cell"], "--cell"),
    "weights for two cells": (rnn_complete, ["--weights", "some.safetensors"], "is for one cell"),
    "a missing file of weights": (rnn_complete, ["--cell", "gru", "--weights", "no.safetensors"], "no such file"),
    "a size that is no multiple of four": (
        conv_autoencoder,
        ["--data", "faces", "--size", "30", "32"],
        "multiples of four",
    ),
    "two channels": (conv_autoencoder, ["--data", "faces", "--channels", "2"], "channels"),
    "one file of weights for two networks": (dcgan_digits, ["--weights", "one.safetensors"], "--weights"),
    "a missing class": (vae_mnist, ["--data", "digits", "--morph", "4", "12"], "--morph 12"),
    "a path of one class": (vae_mnist, ["--data", "digits", "--morph", "4"], "name two classes or more"),
    "a morph without a run": (vae_mnist, ["--data", "digits", "--morph", "4", "5"], "no run there"),
    "a test without a run": (vae_mnist, ["--data", "digits", "--test"], "no run there"),
    "samples without a run": (dcgan_mnist, ["--sample", "4"], "no run there"),
    "a batch larger than the data": (dcgan_digits, ["--batch-size", "1798"], "--batch-size 1797 is the most"),
    "a batch of one for batch norm": (vae_mnist, ["--batch-size", "1"], "--batch-size 1: must be 2 or more"),
    "a batch of one for both networks": (dcgan_mnist, ["--batch-size", "1"], "--batch-size 1: must be 2 or more"),
    "samples on a missing device": (dcgan_mnist, ["--sample", "4", "--device", "cpu:9"], "--device cpu:9"),
    "a negative weight decay": (vae_mnist, ["--weight-decay", "-1"], "--weight-decay"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_invalid_input_is_refused(tmp_path, monkeypatch, capsys, case):
    experiment, arguments, said = BAD[case]
    status, out, err = call(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "run"), experiment=experiment)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


TINY = {
    conv_autoencoder: {"size": (8, 12), "channels": 1, "batch_size": 5},
    dcgan_digits: {"batch_size": 4},
    dcgan_mnist: {"batch_size": 5, "width": 8},
    rnn_complete: {"size": (8, 6), "hidden": 5, "batch_size": 7, "cell": ("gru",)},
    vae_mnist: {"batch_size": 6, "latent": 3, "width": 4},
}


@pytest.mark.parametrize("experiment", TINY, ids=lambda module: module.__name__)
def test_main_does_what_the_command_does(tmp_path, images, monkeypatch, capsys, experiment):
    """The same bits in every file; and a resume from Python goes on under the run's own settings."""
    fields = TINY[experiment] | {"data": images, "epochs": 1, "seed": 5}
    arguments = [
        word
        for name, value in fields.items()
        for word in (f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else [value]))
    ]
    status, _, err = call(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "one"), experiment=experiment)
    assert (status, err) == (0, "")
    outcome = experiment.main(experiment.Config(out=tmp_path / "other", **fields))
    assert contents(tmp_path / "one") == contents(tmp_path / "other")
    again = experiment.main(experiment.Config(out=tmp_path / "one", resume=True))
    assert bits(again.variables) == bits(outcome.variables)
    with pytest.raises(jaxgen.InputError, match=r"^seed=0: the run in .* has seed=5"):
        experiment.main(experiment.Config(out=tmp_path / "one", resume=True, seed=0))
    assert json.loads((tmp_path / "one" / "config.json").read_text())["options"]["seed"] == 5


def test_inspecting_from_python_takes_the_settings_and_data_of_the_run(tmp_path, images, capsys):
    fields = {"data": images, "epochs": 1} | TINY[vae_mnist]
    results = vae_mnist.main(vae_mnist.Config(out=tmp_path / "run", **fields)).results
    capsys.readouterr()
    vae_mnist.main(vae_mnist.Config(out=tmp_path / "run", test=True))
    assert "  ".join(f"{name} {value:.2f}" for name, value in results.items()) in capsys.readouterr().out


def test_training_digits_that_are_sorted_by_class_show_all_classes():
    drawn = {}
    run = SimpleNamespace(title=lambda *_: "", picture=lambda name, image, raw=None: drawn.update({name: raw}))
    labels = np.repeat(np.arange(3, dtype=np.int32), 300)
    images = np.broadcast_to((labels * 8).astype(np.uint8)[:, None, None, None], (900, 8, 8, 1))
    dcgan_digits.draw_data(run, Images(images, labels, white=16, classes=("a", "b", "c")))
    assert set(np.unique(np.asarray(drawn["digits"]()))) == {0, 128, 255}
