"""Data that are brought: arrays given in Python, and folders and files that are moved between a run's parts."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import conv_autoencoder, dcgan_digits, rnn_complete
from jaxgen import InputError, data
from tests.test_runs import call, contents

pytestmark = pytest.mark.unoptimized

CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.integers(0, 256, (40, 8, 8), np.uint8)
LABELS = np.arange(40) % 3
SMALL = {"size": (8, 8), "channels": 1, "batch_size": 6, "epochs": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("options", [{}, {"size": (4, 6), "channels": 3}, {"size": (6, 4), "crop": True}], ids=str)
def test_arrays_in_memory_are_what_they_are_in_a_file(tmp_path, split, options):
    np.savez(tmp_path / "mine.npz", images=IMAGES, labels=LABELS)
    there = data.load(f"arrays:{tmp_path / 'mine.npz'}", split, **options)
    for given in (
        (IMAGES, LABELS),
        (IMAGES[..., None], LABELS),
        [jnp.asarray(IMAGES), LABELS],
        data.Images(IMAGES[..., None], LABELS, classes=("0", "1", "2")),
    ):
        loaded = data.load(given, split, **options)
        np.testing.assert_array_equal(loaded.images, there.images)
        np.testing.assert_array_equal(loaded.labels, there.labels)
        assert loaded.classes == there.classes == ("0", "1", "2")
    assert data.load(IMAGES, split).classes == ()


def test_images_that_were_loaded_can_be_given_back():
    """The digits in their own 17 shades, which are resized in 256."""
    digits = data.load("digits")
    train, test = data.load_splits(digits, size=(16, 16))
    whole = data.load("digits", size=(16, 16))
    assert train.white == test.white == whole.white == 255
    assert len(train.images) + len(test.images) == 1797
    wanted = {image.tobytes() for image in whole.images}
    assert all(image.tobytes() in wanted for image in [*train.images, *test.images])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (IMAGES / 255, r"arrays given in Python: its images are float64; .*\(images \* 255\)\.round\(\)"),
        (IMAGES.reshape(40, 1, 8, 8), r"channels first, .*take images\.transpose\(0, 2, 3, 1\)"),
        ((IMAGES, LABELS, LABELS), "3 of them; give images, or images and labels"),
        ((IMAGES, LABELS[:5]), "save 40 integers, one an image"),
        (IMAGES[:1], "holds a single image"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_in_one_line(given, said):
    with pytest.raises(InputError, match=said) as raised:
        data.load(given)
    assert "\n" not in str(raised.value)


def test_an_experiment_takes_arrays_and_says_so_when_it_is_resumed_without(tmp_path, monkeypatch, capsys):
    config = conv_autoencoder.Config(out=tmp_path / "run", **SMALL)
    conv_autoencoder.main(config, data=(IMAGES, LABELS))
    assert "data      arrays given in Python: 36 images of 8×8×1, 3 classes; 4 held out" in capsys.readouterr().out
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["options"]["data"] == "arrays given in Python"
    assert stored["data"]["classes"] == ["0", "1", "2"]
    longer = conv_autoencoder.Config(out=tmp_path / "run", resume=True, epochs=2)
    with pytest.raises(InputError, match=r"are arrays given in Python: give them again, as in main\(config, data="):
        conv_autoencoder.main(longer)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--resume", experiment=conv_autoencoder)
    assert (status, err.count("\n")) == (2, 1)
    assert "arrays given in Python" in err
    with pytest.raises(InputError, match="started on other data"):
        conv_autoencoder.main(longer, data=IMAGES[::-1])
    assert len(conv_autoencoder.main(longer, data=IMAGES).history["loss"]) == 2


@pytest.mark.parametrize(
    ("experiment", "options"), [(dcgan_digits, {"frame_every": 9}), (rnn_complete, {"cell": "gru", "hidden": 3})]
)
def test_other_experiments_take_arrays(tmp_path, experiment, options):
    config = experiment.Config(out=tmp_path / "run", epochs=1, batch_size=6, **options)
    assert experiment.main(config, data=IMAGES).results is not None
    assert json.loads((tmp_path / "run" / "config.json").read_text())["options"]["data"] == data.GIVEN


def picture_folder(folder: Path, shape: tuple[int, ...] = (8, 8), seed: int = 0) -> Path:
    chance = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(12):
        Image.fromarray(chance.integers(0, 256, shape, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_a_run_goes_on_where_its_data_were_moved_to(tmp_path, monkeypatch, capsys):
    def train(*arguments: str, out: str = "run") -> tuple[int, str]:
        words = ["--out", str(tmp_path / out), *arguments]
        status, _, err = call(monkeypatch, capsys, *words, experiment=conv_autoencoder)
        assert err.count("\n") == (status != 0)
        return status, err

    monkeypatch.chdir(tmp_path)
    options = ["--size", "8", "--channels", "1", "--batch-size", "4"]
    picture_folder(tmp_path / "old")
    assert train("--data", "folder:old", "--epochs", "1", *options) == (0, "")
    assert train("--data", "folder:old", "--epochs", "2", *options, out="through") == (0, "")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["options"]["data"]
    assert stored == f"folder:{tmp_path / 'old'}"
    (tmp_path / "old").rename(tmp_path / "new")
    status, err = train("--resume", "--epochs", "2")
    assert status == 2
    assert f"folder:{tmp_path / 'old'}: there is no such folder; if it was moved, name its new place (--data)" in err
    other = picture_folder(tmp_path / "other", seed=1)
    status, err = train("--resume", "--epochs", "2", "--data", f"folder:{other}")
    sum_of_its_data = json.loads((tmp_path / "run" / "config.json").read_text())["data_sha256"]
    assert status == 2
    assert f"started on other data (SHA-256 {sum_of_its_data[:12]}…, not " in err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train("--resume", "--epochs", "2", "--data", "folder:../new", "--data-on", "disk") == (0, "")
    moved, through = contents(tmp_path / "run"), contents(tmp_path / "through")
    weights = "final/model.safetensors"  # says where the data were
    assert moved.pop(weights)[-1000:] == through.pop(weights)[-1000:]
    for name in [name for name in through if name.endswith(".png") and "/raw/" not in name]:
        del moved[name], through[name]  # whose titles say what the data are called
    assert moved == through
    assert train("--resume", "--epochs", "3") == (0, ""), "it is now looked for where it was found"


def test_crop_keeps_proportions_and_the_first_line_says_what_was_done(tmp_path, monkeypatch, capsys):
    picture_folder(tmp_path / "wide", (8, 24))
    lines, stored = [], []
    for name, extra in (("squeezed", []), ("cropped", ["--crop"])):
        words = ["--data", f"folder:{tmp_path / 'wide'}", "--size", "8", "--channels", "1", "--batch-size", "4", *extra]
        status, out, err = call(
            monkeypatch, capsys, *words, "--epochs", "1", "--out", str(tmp_path / name), experiment=conv_autoencoder
        )
        assert (status, err) == (0, "")
        lines.append(out.splitlines()[0])
        stored.append(json.loads((tmp_path / name / "config.json").read_text()))
    assert lines[0].endswith("; resized, which squeezed or stretched 11 of 11 (crop keeps their proportions)")
    assert lines[1].endswith("; resized and cropped at the centre")
    assert [config["options"]["crop"] for config in stored] == [False, True]
    assert stored[0]["data_sha256"] != stored[1]["data_sha256"]


def test_previews_of_sorted_classes_are_mixtures(tmp_path, monkeypatch):
    """The reconstructed test images of a folder are not all of its first class."""
    for number, name in enumerate(("a", "b")):
        for split in ("train", "test"):
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for index in range(12):
                picture = Image.new("L", (8, 8), 40 + 100 * number)
                picture.save(tmp_path / "images" / split / name / f"{index}.png")
    shown = []
    monkeypatch.setattr(conv_autoencoder.pictures, "over", lambda originals, back: shown.append(originals) or fail())
    config = conv_autoencoder.Config(data=f"folder:{tmp_path / 'images'}", out=tmp_path / "run", **SMALL)
    conv_autoencoder.main(config)
    assert {round(float(value) * 255) for value in np.unique(shown[0])} == {40, 140}
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["data"]["classes"] == ["a", "b"]


def fail() -> None:
    raise RuntimeError("not of interest here")
