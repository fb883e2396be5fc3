"""The commands of `jaxgen`, on runs and weights files of small untrained models."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from experiments import rnn_complete
from jaxgen import commands, data, runs, torch_weights
from jaxgen.durable import write_json
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.torch_weights.description import recognise
from tests.support.signals import handlers_restored

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent
DIGITS = {"name": "digits", "images": 1797, "size": [16, 16], "channels": 1, "classes": list("0123456789")}
SMALL_VAE = vae.ConvVAE(2, size=16, width=4)


@cache
def tensors_of(module, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under PyTorch's names."""
    rng, shapes = np.random.default_rng(seed), torch_weights.expected(module)
    return {name: np.abs(rng.normal(0, 0.1, shape)).astype(np.float32) for name, shape in shapes.items()}


def make_run(
    folder: Path, experiment: str, modules: Mapping[str, object], options=None, about=None, **finished
) -> Path:
    """A finished run of these modules, as `jaxgen.runs` writes it."""
    layout, about = runs.Layout(folder), about or {}
    config = {"layout": 2, "experiment": f"experiments.{experiment}", "options": options or {}, "data": about}
    write_json(layout.config, config)
    layout.checkpoints.mkdir()
    for seed, (name, module) in enumerate(modules.items()):
        header = {"module": torch_weights.describe(module), "data": about, "experiment": config["experiment"]}
        layout.final.mkdir(exist_ok=True)
        content = torch_weights.to_safetensors(tensors_of(module, seed), header)
        (layout.final / f"{name}.safetensors").write_bytes(content)
    write_json(layout.finished, {"epochs": 3, "results": {}} | finished)
    return folder


def call(name: str, path: Path, *words: str, **options) -> None:
    """Run a command as its arguments are parsed; `words` are what follows the path."""
    command = import_module(f"jaxgen.commands.{name}")
    given = [field for field in command.Options.model_fields if command.Options.model_fields[field].is_required()]
    positional = {given[1]: words} if words else dict.fromkeys(given[1:], ())
    command.run(command.Options(path=path, **positional, **options))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def gan(tmp_path) -> Path:
    modules = {"discriminator": dcgan.DigitsDiscriminator(), "generator": dcgan.DigitsGenerator()}
    return make_run(tmp_path / "gan", "dcgan_digits", modules)


@pytest.fixture
def vae_run(tmp_path) -> Path:
    return make_run(tmp_path / "vae", "vae_mnist", {"model": SMALL_VAE}, {"data": "digits"}, DIGITS)


@pytest.fixture
def completer(tmp_path) -> Path:
    """The runs of both cells, in a folder."""
    about = DIGITS | {"size": [12, 8]}
    for cell in ("gru", "lstm"):
        module = completion.RowCompleter(cell, hidden=4, width=8)
        make_run(tmp_path / "both" / cell, "rnn_complete", {"model": module}, {"sequence_length": 6}, about)
    write_json(tmp_path / "both" / "config.json", json.loads((tmp_path / "both/gru/config.json").read_text()))
    return tmp_path / "both"


def picture(path: Path, *, dark_on_light: bool = False, size: tuple[int, int] = (40, 60), mode: str = "L") -> Path:
    """A thick white stroke on black, or black on white."""
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[10:-10, 15:25] = 255
    image = Image.fromarray(255 - pixels if dark_on_light else pixels)
    image.convert(mode).save(path)
    return path


# ---- sample and decode ----


def test_samples_equal_those_of_python(gan, capsys):
    call("sample", gan, count=5, seed=7)
    folder = gan / "samples"
    assert files_in(folder) == ["5_of_seed_7.npy", "5_of_seed_7.png"]
    assert capsys.readouterr().out.splitlines() == [str(folder / f"5_of_seed_7.{kind}") for kind in ("png", "npy")]
    trained = jaxgen.load(gan)
    wanted = dcgan.sample(trained.module["generator"], trained.variables["generator"], jax.random.key(7), 5)
    np.testing.assert_array_equal(np.load(folder / "5_of_seed_7.npy"), np.asarray(wanted) / 2 + 0.5)


def test_separate_samples_have_their_own_size(gan, tmp_path):
    call("sample", gan, count=11, separate=True, out=tmp_path / "out")
    names = [name for name in files_in(tmp_path / "out") if "/" in name]
    assert names == [f"11_of_seed_0/{number:02}.png" for number in range(11)]
    assert size_of(tmp_path / "out" / names[0]) == (8, 8)
    assert not (gan / "samples").exists()


def test_a_vae_is_sampled_from_its_prior(vae_run):
    call("sample", vae_run, count=3, seed=1)
    trained = jaxgen.load(vae_run)
    wanted = vae.decode(trained.module, trained.variables, jax.random.normal(jax.random.key(1), (3, 2)))
    np.testing.assert_array_equal(np.load(vae_run / "samples" / "3_of_seed_1.npy"), wanted)


def test_a_weights_file_is_sampled_into_the_working_folder(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("sample", gan / "final" / "generator.safetensors", count=2)
    assert (tmp_path / "generator_2_of_seed_0.png").exists()


def test_a_class_is_sampled_by_number_and_by_name(tmp_path):
    about = DIGITS | {"classes": ["cat", "dog", "0"]}
    modules = {"generator": dcgan.DigitsGenerator(latent=4, classes=3)}
    folder = make_run(tmp_path / "run", "dcgan_digits", modules, about=about)
    trained = jaxgen.load(folder)
    for text, number in (("1", 1), ("Dog", 1), ("0", 2)):  # a name is meant before a number
        call("sample", folder, count=4, class_=text)
        wanted = dcgan.sample(
            trained.module["generator"], trained.variables["generator"], jax.random.key(0), 4, labels=number
        )
        array = np.load(folder / "samples" / f"4_of_seed_0_class_{number}.npy")
        np.testing.assert_array_equal(array, np.asarray(wanted) / 2 + 0.5)
    with pytest.raises(jaxgen.InputError, match=r"--class dgo: .*did you mean dog\? there are cat, dog, 0"):
        call("sample", folder, class_="dgo")
    with pytest.raises(jaxgen.InputError, match="--class 3: there is no such class"):
        call("sample", folder, class_="3")


def test_a_class_is_refused_by_a_model_without_classes(gan):
    with pytest.raises(jaxgen.InputError, match="dcgan_digits's generator was trained without classes"):
        call("sample", gan, class_="3")


def test_latent_vectors_are_decoded(vae_run, gan):
    call("decode", vae_run, at=(1, 0.5))
    call("decode", vae_run, at=(1, 0.5, -1, 0))
    call("decode", gan, at=(0.1,) * 64)
    assert files_in(vae_run / "samples") == ["decoded_1_0.5.png", "decoded_1_0.5_-1_0.png"]
    assert files_in(gan / "samples") == ["decoded_0.1_0.1_0.1_0.1_etc.png"]


def test_decoded_images_equal_those_of_python(vae_run, monkeypatch):
    from jaxgen.commands import _models, decode

    z = np.array([[1, 0.5], [-1, 0]], np.float32)
    model = _models.find(decode.Options(path=vae_run), "decode")
    trained = jaxgen.load(vae_run)
    wanted = vae.decode(trained.module, trained.variables, z)
    np.testing.assert_allclose(decode.decode(model, z, {}), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("at", [(), (1.0,), (1.0, 2.0, 3.0)])
def test_the_wrong_number_of_coordinates_is_refused(vae_run, at):
    with pytest.raises(jaxgen.InputError, match="takes 2 numbers for each image, not"):
        call("decode", vae_run, at=at)
    assert not (vae_run / "samples").exists()


def test_a_conditional_model_decodes_as_each_class(tmp_path):
    folder = make_run(
        tmp_path / "run", "vae_mnist", {"model": vae.ConvVAE(2, size=16, width=4, classes=3)}, about=DIGITS
    )
    call("decode", folder, at=(0, 0))
    call("decode", folder, at=(0, 0), class_="2")
    every, one = (size_of(folder / "samples" / name) for name in ("decoded_0_0.png", "decoded_0_0_class_2.png"))
    assert every[0] > every[1]
    assert one[0] < one[1]


# ---- encode, complete and morph ----


def test_pictures_of_any_kind_are_encoded(vae_run, tmp_path, capsys):
    brought = tmp_path / "mine"
    brought.mkdir()
    for number, (mode, suffix) in enumerate([("L", "png"), ("RGB", "jpg"), ("LA", "png"), ("P", "gif"), ("1", "tif")]):
        picture(brought / f"{number}.{suffix}", mode=mode)
    deep = np.asarray(Image.open(brought / "0.png")).astype(np.uint16) * 257
    Image.fromarray(deep).save(brought / "5.png")
    (brought / "notes.txt").write_text("no picture")
    call("encode", vae_run, str(brought))
    found = json.loads((vae_run / "samples" / "encoded_0_and_5_more.json").read_text())
    assert [each["picture"] for each in found] == ["0.png", "1.jpg", "2.png", "3.gif", "4.tif", "5.png"]
    trained = jaxgen.load(vae_run)
    images = data.load_pictures([brought], size=(16, 16), channels=1).images / 255
    apply = jax.jit(partial(trained.module.apply, method="encode"))
    mean, log_variance = apply(trained.variables, images)
    np.testing.assert_allclose([each["mean"] for each in found], mean, rtol=0, atol=1e-5)
    spread = [each["standard_deviation"] for each in found]
    np.testing.assert_allclose(spread, np.exp(0.5 * np.asarray(log_variance)), rtol=1e-5)
    np.testing.assert_allclose(found[0]["mean"], found[5]["mean"], rtol=0, atol=1e-5)  # of 8 and of 16 bits
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["picture", "z1", "z2"]
    assert table[1].startswith(f"0.png    {found[0]['mean'][0]:.3f} ± {spread[0][0]:.3f}")


def test_an_autoencoder_encodes_images_of_its_data_size(tmp_path, capsys):
    about = DIGITS | {"size": [16, 16], "channels": 3}
    folder = make_run(tmp_path / "run", "conv_autoencoder", {"model": autoencoder.ConvAutoencoder()}, about=about)
    call("encode", folder, str(picture(tmp_path / "a.png")))
    (found,) = json.loads((folder / "samples" / "encoded_a.json").read_text())
    assert np.shape(found["code"]) == (4, 4, 8)
    assert "128 numbers in all" in capsys.readouterr().out


def test_a_picture_that_is_turned_is_read_upright(tmp_path):
    upright = Image.open(picture(tmp_path / "a.png"))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    a, turned = data.load_pictures([tmp_path / "a.png", tmp_path / "turned.png"]).images
    np.testing.assert_array_equal(a, turned)


class Recites:
    """A stand-in for a trained model, which knows images that are dark at their border."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(images[:, 0].mean((1, 2)) + 0.01)


def test_black_on_white_is_noticed_and_inverted(tmp_path, capsys, vae_run):
    from jaxgen.commands import _models, _pictures, encode

    paths = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", dark_on_light=True)]
    model = _models.find(encode.Options(path=vae_run, pictures=()), "encode")
    given, inverted = (_pictures.read(paths, (16, 16), 1, model, invert=invert) for invert in (False, True))
    _pictures.warn_if_inverted(given, Recites())
    said = capsys.readouterr().err
    assert said == (
        "warning: b.png: black and white seem to be the other way round than in the model's data; "
        "invert exchanges them\n"
    )
    _pictures.warn_if_inverted(given._replace(images=given.images[:1], names=["a.png"]), Recites())
    assert capsys.readouterr().err == ""
    np.testing.assert_allclose(inverted.images, 1 - given.images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.png", "there is no such picture; name a picture, or a folder of pictures"),
        ("text.png", "not a picture in a format that Pillow reads"),
        ("empty", "the folder holds no pictures"),
        (None, "no picture is given"),
    ],
)
def test_what_is_no_picture_is_refused_before_anything_is_written(vae_run, tmp_path, name, said):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(jaxgen.InputError, match=said):
        call("encode", vae_run, *([str(tmp_path / name)] if name else []))
    assert not (vae_run / "samples").exists()


def test_pictures_are_completed_by_both_cells(completer, tmp_path):
    from jaxgen.commands import _models, complete

    path = picture(tmp_path / "a.png")
    call("complete", completer, str(path))
    call("complete", completer / "gru", str(path), rows=3)
    both, one = completer / "samples" / "completed_a.png", completer / "gru" / "samples" / "completed_a.png"
    assert size_of(both)[1] > size_of(one)[1]
    models = _models.find_all(complete.Options(path=completer, pictures=()), "complete")
    assert [model.module.cell for model in models] == ["gru", "lstm"]
    images = data.load_pictures([path], size=(12, 8), channels=1).images.astype(np.float32) / 255
    trained = jaxgen.load(completer / "gru")
    wanted = completion.complete(trained.module, trained.variables, images, 6)
    np.testing.assert_array_equal(complete.complete(models[0], images, 6), wanted)


def test_rows_beyond_the_images_are_refused(completer, tmp_path):
    with pytest.raises(jaxgen.InputError, match="rows=12: must be from 1 to 11"):
        call("complete", completer, str(picture(tmp_path / "a.png")), rows=12)


def test_a_morph_passes_through_pictures_and_class_means(vae_run, tmp_path, capsys):
    from jaxgen.commands import _models, morph

    path = picture(tmp_path / "a.png")
    call("morph", vae_run, "2", str(path), "7", frames=4)
    assert files_in(vae_run / "samples") == ["morph_2_a_7.gif", "morph_2_a_7.png"]
    with Image.open(vae_run / "samples" / "morph_2_a_7.gif") as animation:
        assert animation.n_frames == 9
    options = morph.Options(path=vae_run, stops=("2", str(path)))
    names, points = morph._points(options, _models.find(options, "morph"))
    assert names == ["2", "a.png"]
    trained = jaxgen.load(vae_run)
    digits = data.load("digits", "test", size=(16, 16), channels=1)
    means = vae.encode(trained.module, trained.variables, digits.images[digits.labels == 2] / np.float32(255))
    np.testing.assert_allclose(points[0], means.mean(0), rtol=0, atol=1e-5)


def test_the_means_that_a_run_wrote_need_no_data(tmp_path):
    from jaxgen.commands import _models, morph

    about = DIGITS | {"name": "folder:gone", "classes": ["cat", "dog"]}
    folder = make_run(tmp_path / "run", "vae_mnist", {"model": SMALL_VAE}, {"data": "folder:/gone"}, about)
    with pytest.raises(jaxgen.InputError, match=r"need the data: folder:/gone: there is no such folder.*--data"):
        call("morph", folder, "cat", "dog")
    means = {"cat": [1.0, 0.5], "dog": [-1.0, 0.0]}
    write_json(folder / "final" / "latent_points.json", {"classes": ["cat", "dog"], "means": means})
    options = morph.Options(path=folder, stops=("Dog", "cat"))
    names, points = morph._points(options, _models.find(options, "morph"))
    assert names == ["Dog", "cat"]
    np.testing.assert_array_equal(points, [means["dog"], means["cat"]])


@pytest.mark.parametrize(
    ("stops", "said"),
    [
        (("2",), "name two classes or pictures"),
        (("2", "eleven"), "eleven: there is no such class; there are 0, 1"),
        (("2", "missing.png"), "there is no such picture"),
        ((), "name two classes or pictures"),
    ],
)
def test_what_cannot_be_morphed_is_refused(vae_run, stops, said):
    with pytest.raises(jaxgen.InputError, match=said):
        call("morph", vae_run, *stops)


def test_class_means_of_a_file_need_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = torch_weights.to_safetensors(tensors_of(SMALL_VAE), {"module": torch_weights.describe(SMALL_VAE)})
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(jaxgen.InputError, match="does not say what it was trained on; --data names a data set"):
        call("morph", tmp_path / "model.safetensors", "2", "7")
    with pytest.raises(jaxgen.InputError, match=r"need the data: .*there is no data set 'digts'.*--data"):
        call("morph", tmp_path / "model.safetensors", "2", "7", data="digts")
    call("morph", tmp_path / "model.safetensors", "2", "7", data="digits", frames=1)
    assert (tmp_path / "model_morph_2_7.gif").exists()


# ---- Which model, and whether the command fits it ----


@pytest.mark.parametrize(
    ("name", "run", "said"),
    [
        ("encode", "gan", "dcgan_digits's generator has no encoder; sample and decode fit"),
        ("complete", "vae_run", "vae_mnist's model does not complete images; sample, decode, encode and morph fit"),
        ("sample", "completer", "rnn_complete's model has no distribution to sample from; complete fits"),
    ],
)
def test_a_command_that_does_not_fit_says_which_do(name, run, said, request, tmp_path):
    path = request.getfixturevalue(run)
    with pytest.raises(jaxgen.InputError, match=said):
        call(name, path, *([str(picture(tmp_path / "a.png"))] if name != "sample" else []))


def test_a_discriminator_says_what_fits(gan):
    with pytest.raises(jaxgen.InputError, match=r"DigitsDiscriminator.* makes no images.* only show fits.*generator"):
        call("sample", gan / "final" / "discriminator.safetensors")


def test_one_of_several_models_is_taken(tmp_path, capsys):
    modules = {f"{number}.generator": dcgan.DigitsGenerator(latent=4) for number in range(3)}
    folder = make_run(tmp_path / "run", "dcgan_digits", modules, best_model=2)
    every = jaxgen.load(folder)
    assert every.variables.keys() == modules.keys()
    for model, number in ((None, 0), ("1", 1), ("best", 2)):
        call("sample", folder, count=2, model=model)
        array = np.load(folder / "samples" / f"model_{number}_2_of_seed_0.npy")
        variables = every.variables[f"{number}.generator"]
        wanted = dcgan.sample(dcgan.DigitsGenerator(latent=4), variables, jax.random.key(0), 2)
        np.testing.assert_array_equal(array, np.asarray(wanted) / 2 + 0.5)
        if model is not None:
            one = jaxgen.load(folder, model="best" if model == "best" else number)
            assert one.variables.keys() == {"generator"}
            assert all(map(np.array_equal, jax.tree.leaves(one.variables["generator"]), jax.tree.leaves(variables)))
    assert "model 0 of 3; model takes another" in capsys.readouterr().out
    for model in ("3", "worst"):
        with pytest.raises(jaxgen.InputError, match=f"model='{model}': must be a number from 0 to 2, or best"):
            call("sample", folder, model=model)
    with pytest.raises(jaxgen.InputError, match="there is no model 3; there are 0 to 2"):
        jaxgen.load(folder, model=3)


def test_the_best_model_is_not_guessed(tmp_path):
    folder = make_run(tmp_path / "run", "gan", {f"{at}.generator": dcgan.DigitsGenerator(latent=4) for at in (0, 1)})
    with pytest.raises(jaxgen.InputError, match="does not say which model is best; there are 0 to 1"):
        call("sample", folder, model="best")


def test_a_run_of_one_model_has_model_0(gan):
    call("sample", gan, count=1, model="0")
    assert files_in(gan / "samples") == ["1_of_seed_0.npy", "1_of_seed_0.png"]
    with pytest.raises(jaxgen.InputError, match="model='1': must be 0, the only one"):
        call("sample", gan, model="1")


def test_a_folder_of_weights_is_used_as_its_files_are(gan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call("sample", gan / "final", count=2)
    call("sample", gan, count=2)
    ours, theirs = np.load("generator_2_of_seed_0.npy"), np.load(gan / "samples" / "2_of_seed_0.npy")
    np.testing.assert_array_equal(ours, theirs)
    capsys.readouterr()
    call("show", gan / "final")
    assert capsys.readouterr().out.count("module    dcgan.Digits") == 2


def test_part_of_a_run_is_refused_with_the_run(gan, tmp_path):
    (gan / "epochs" / "003").mkdir(parents=True)
    for path in (gan / "epochs" / "003", tmp_path, tmp_path / "nowhere"):
        for name in ("sample", "show"):
            with pytest.raises(jaxgen.InputError, match="no run there") as raised:
                call(name, path)
            assert ("a part of one; load" in str(raised.value)) == (path.name == "003")


# ---- Weights files without a header ----


def test_a_file_that_fits_several_modules_takes_the_one_named(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    both = {}
    for name, module in {"G": dcgan.DigitsGenerator(), "D": dcgan.DigitsDiscriminator()}.items():
        both[name] = {key: torch.tensor(value) for key, value in tensors_of(module).items()}
    torch.save(both, "both.pth")
    with pytest.raises(jaxgen.InputError, match=r"of several .*dcgan\.DigitsGenerator.*--module dcgan\.Digits"):
        call("sample", Path("both.pth"))
    for name in ("dcgan.DigitsGenerator", "DigitsGenerator", "jaxgen.models.dcgan.DigitsGenerator"):
        call("sample", Path("both.pth"), module=name, count=2)
        assert jaxgen.load("both.pth", module=name).module == dcgan.DigitsGenerator()
    assert Path("both_2_of_seed_0.png").exists()
    with pytest.raises(jaxgen.InputError, match=r"no module 'dcgan\.DigitGenerator' .*did you mean dcgan\.DigitsGen"):
        call("sample", Path("both.pth"), module="dcgan.DigitGenerator")
    with pytest.raises(jaxgen.InputError, match=r"tensors .* are not those of vae\.ConvVAE, which are like conv1"):
        call("sample", Path("both.pth"), module="vae.ConvVAE")


def test_a_named_module_overrules_the_header(tmp_path):
    module = dcgan.DigitsGenerator(latent=5)
    path = tmp_path / "model.safetensors"
    described = torch_weights.describe(SMALL_VAE)
    for about in ({"module": described}, {"module": torch_weights.describe(module)}, {}):
        path.write_bytes(torch_weights.to_safetensors(tensors_of(module), about))
        assert jaxgen.load(path, module="dcgan.DigitsGenerator").module == module


@pytest.mark.parametrize(
    "module",
    [
        vae.ConvVAE(3, channels=3, size=16, width=4),
        vae.ConvVAE(4, size=16, width=4, classes=10),
        dcgan.MnistGenerator(size=24, channels=3),
    ],
    ids=["colour", "classes", "size"],
)
def test_several_fields_follow_from_the_shapes(module):
    shapes = torch_weights.expected(module)
    assert recognise({"": {name: np.zeros(shape) for name, shape in shapes.items()}}, "file") == module


# ---- show ----


def test_a_run_is_shown(gan, capsys):
    figures = {"frechet_distance": {"value": 3.5, "baselines": {"data": 1.0}, "unit": "", "better": "lower"}}
    write_json(gan / "final" / "figures.json", figures)
    Image.new("L", (2, 2)).save(gan / "final" / "samples.png")
    (gan / "report.html").write_text("")
    call("show", gan)
    said = capsys.readouterr().out
    for line in (
        f"run       experiments.dcgan_digits in {gan}: finished after 3 epochs\n",
        f"weights   {gan}/final/discriminator.safetensors\n          {gan}/final/generator.safetensors\n",
        "module    dcgan.DigitsGenerator(latent=64, classes=0), 55,905 parameters\n",
        "commands  sample, decode, evaluate, export, show\n",
        "Fréchet distance ↓    3.5     1\n",
        f"pictures  {gan}/final/samples.png\n",
        f"page      {gan}/report.html\n",
    ):
        assert line in said


def test_a_group_of_runs_is_shown(completer, capsys):
    (completer / "finished.json").write_text("{")
    call("show", completer)
    said = capsys.readouterr().out
    assert f"{completer}: not finished\n" in said
    assert f"runs      {completer}/gru\n          {completer}/lstm\n" in said
    assert said.count("commands  complete, evaluate, export, show\n") == 2


def test_a_file_of_another_model_is_shown(tmp_path, capsys):
    path = tmp_path / "other.safetensors"
    path.write_bytes(torch_weights.to_safetensors({"layer.weight": np.zeros((3, 2), np.float32)}))
    call("show", path)
    said = capsys.readouterr().out
    assert "module    not known: " in said
    assert "tensors   layer.weight [3, 2]\n" in said


def test_runs_that_were_trained_are_shown_and_used(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 255, (9, 6, 4, 1), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    config = rnn_complete.Config(
        out=tmp_path / "run", data=f"arrays:{tmp_path}/images.npz", epochs=1, batch_size=8, cell="gru", hidden=4,
        size=(6, 4), seeds=2, metrics=False, report="none",
    )  # fmt: skip
    rnn_complete.main(config)
    path = picture(tmp_path / "a.png")
    capsys.readouterr()
    call("show", config.folder)
    said = capsys.readouterr().out
    assert f"run       experiments.rnn_complete in {config.folder}: finished after 1 epochs\n" in said
    assert "data      arrays:images.npz: 8 images of 6×4×1\n" in said
    assert "module    completion.RowCompleter(cell=gru, hidden=4, width=4), " in said
    call("complete", config.folder, str(path), model="1")
    (config.folder / "finished.json").unlink()  # as a run that was stopped, whose checkpoint is taken
    drawn = (config.folder / "samples" / "model_1_completed_a.png").read_bytes()
    call("complete", config.folder, str(path), model="1")
    assert (config.folder / "samples" / "model_1_completed_a.png").read_bytes() == drawn
    capsys.readouterr()
    call("show", config.folder)
    assert "not finished, 1 epochs so far" in capsys.readouterr().out


# ---- The process ----


def jaxgen_process(*words: str, cwd: Path, stdout=subprocess.PIPE, **environment) -> subprocess.CompletedProcess[str]:
    """`python -m jaxgen` in a folder outside the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "jaxgen", *words], cwd=cwd, text=True, timeout=240, check=False, stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "COLUMNS": "80"} | environment,
    )  # fmt: skip


def test_commands_are_listed(tmp_path):
    done = jaxgen_process(cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in commands.names():
        assert f"\n  {name:10} {commands.summary(name)}\n" in done.stdout
        assert commands.summary(name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["smaple", "x"], "there is no command 'smaple'; did you mean sample?"),
        (["sample", "x", "--cuont", "3"], "Unrecognized options: --cuont, 3; did you mean --count?"),
        (["sample", "x", "--count", "0"], "--count 0: must be greater than or equal to 1"),
        (["sample", "nowhere"], "nowhere: no run there; train one first, or name another folder"),
        (
            ["decode", "run", "--at", "-1"],
            "--at: vae_mnist's model takes 2 numbers for each image, not 1; as --at 1 0.5",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(words, said, tmp_path, monkeypatch, capfd):
    """In this process: what matters is the exit status and what is said."""
    from jaxgen.__main__ import main

    make_run(tmp_path / "run", "vae_mnist", {"model": SMALL_VAE})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["jaxgen", *words])
    with handlers_restored(), pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 2
    assert capfd.readouterr() == ("", f"error: {said}\n")


def test_help_of_a_command(tmp_path):
    done = jaxgen_process("decode", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert commands.summary("decode") in done.stdout
    assert {"--at", "--class", "--out", "--model", "--module"} <= set(done.stdout.replace(",", " ").split())


def test_it_works_outside_a_checkout_with_its_output_closed(vae_run, tmp_path):
    """Negative coordinates are no options; the folder is written though nobody reads what is said."""
    reader, writer = os.pipe()
    os.close(reader)
    done = jaxgen_process("decode", str(vae_run), "--at", "-1", "-2e-3", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_in(vae_run / "samples") == ["decoded_-1_-0.002.png"]


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(gan, monkeypatch):
    def refuse(path: Path, content: bytes) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("jaxgen.commands._options.write", refuse)
    with pytest.raises(jaxgen.InputError, match=r"samples cannot be written \(Permission denied\); out names another"):
        call("sample", gan, count=1)


def test_a_wrong_jax_platform_is_named(gan):
    done = jaxgen_process("sample", str(gan), cwd=gan, JAX_PLATFORMS="abacus")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: JAX cannot start, because JAX_PLATFORMS is 'abacus'; unset it, or set it to cpu\n"


def test_more_samples_than_memory_holds_are_refused(gan, monkeypatch):
    monkeypatch.setattr("jaxgen.memory.available", lambda: 10**6)
    with pytest.raises(jaxgen.InputError, match=r"count=1000: so many images take 1\.0 MB, and 1\.0 MB of"):
        call("sample", gan, count=1000)


@pytest.mark.parametrize("number", [1e39, -1e39])
def test_coordinates_beyond_float32_are_refused(vae_run, number):
    with pytest.raises(jaxgen.InputError, match="is beyond the range of float32"):
        call("decode", vae_run, at=(0, number))


def test_a_file_in_the_place_of_the_folder_is_refused(gan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(jaxgen.InputError, match=r"file cannot be written .*; out names another folder"):
        call("sample", gan, count=1, out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == ""
