"""The command `jaxgen export`: which files it writes, the folder for a hub, and what it refuses."""

import json
import re
import sys

import jax
import numpy as np
import onnx
import pytest
import safetensors.numpy

import jaxgen
from experiments import dcgan_digits
from jaxgen import data, durable, runs, torch_weights
from jaxgen.commands import export
from jaxgen.models import completion, dcgan, vae
from tests.support import tiny
from tests.test_commands import DIGITS, files_in, make_run, tensors_of

pytestmark = pytest.mark.unoptimized

SMALL_VAE = vae.ConvVAE(2, size=8, width=2)
FIGURES = {
    "frechet_distance": {
        "value": 12.345,
        "baselines": {"real against held-out real": 1.5, "noise | untrained": 99.0},
        "standard_error": 0.25,
        "unit": "",
        "better": "lower",
    },
    "psnr": {"value": 21.0, "baselines": {}, "standard_error": None, "unit": "dB", "better": "higher"},
}


@pytest.fixture
def gan(tmp_path):
    modules = {"discriminator": dcgan.DigitsDiscriminator(), "generator": dcgan.DigitsGenerator(latent=4)}
    folder = make_run(tmp_path / "gan", "dcgan_digits", modules, {"batch_size": 16}, DIGITS | {"size": [8, 8]})
    durable.write_json(folder / "final" / "figures.json", FIGURES)
    (folder / "final" / "samples.png").write_bytes(b"a picture")
    return folder


@pytest.fixture
def completer(tmp_path):
    module = completion.RowCompleter("gru", hidden=3, width=6)
    return make_run(tmp_path / "rnn" / "gru", "rnn_complete", {"model": module}, {}, DIGITS | {"size": [8, 6]})


def call(path, *to, **options) -> None:
    export.run(export.Options(path=path, to=to, **options))


def test_a_run_is_exported_into_its_folder(gan):
    call(gan, "stablehlo", "onnx", "hub", count=2)
    assert files_in(gan / "export") == [
        "discriminator.onnx", "discriminator.stablehlo", "generate.onnx", "generate.stablehlo",
        "hub/README.md", "hub/config.json", "hub/discriminator.safetensors", "hub/figures.json",
        "hub/generator.safetensors", "hub/picture.png", "sample.stablehlo",
    ]  # fmt: skip
    trained = jaxgen.load(gan)
    program = jax.export.deserialize(bytearray((gan / "export" / "sample.stablehlo").read_bytes()))
    wanted = dcgan.sample(trained.module["generator"], trained.variables["generator"], jax.random.key(5), 2)
    np.testing.assert_allclose(program.call(jax.random.key_data(jax.random.key(5))), wanted, rtol=1e-5, atol=1e-6)


def test_weights_without_a_header_take_what_the_run_says(gan):
    for file in (gan / "final").glob("*.safetensors"):
        file.write_bytes(safetensors.numpy.save(safetensors.numpy.load_file(file)))
    call(gan, "hub")
    assert json.loads((gan / "export" / "hub" / "config.json").read_text())["data"]["name"] == DIGITS["name"]


def test_a_weights_file_is_exported_into_the_working_folder(gan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call(gan / "final" / "discriminator.safetensors", "onnx")
    assert files_in(tmp_path / "export") == ["discriminator.onnx"]
    call(gan / "final" / "generator.safetensors", "onnx", out=tmp_path / "other")
    assert files_in(tmp_path / "other") == ["generate.onnx"]
    model = onnx.load(tmp_path / "other" / "generate.onnx")
    about = json.loads(model.metadata_props[0].value)
    assert (about["experiment"], about["jaxgen"]) == ("experiments.dcgan_digits", jaxgen.__version__)


def test_completion_has_the_height_of_the_data_or_the_one_asked_for(completer):
    def shape() -> list[int]:
        (images,) = onnx.load(completer / "export" / "complete.onnx").graph.input
        return [axis.dim_value for axis in images.type.tensor_type.shape.dim][1:]

    call(completer, "onnx")
    assert shape() == [8, 6, 1]
    call(completer, "onnx", height=5, length=2)
    assert shape() == [5, 6, 1]
    with pytest.raises(jaxgen.InputError, match="5 rows to keep: must be from 1 to 4"):
        call(completer, "onnx", height=5, length=5)


def snippet(readme: str) -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    return code


@pytest.mark.parametrize(
    ("module", "result", "shape"),
    [
        (dcgan.DigitsGenerator(latent=4), "images", (16, 8, 8, 1)),
        (dcgan.DigitsGenerator(latent=4, classes=10), "images", (16, 8, 8, 1)),
        (SMALL_VAE, "images", (16, 8, 8, 1)),
        (completion.RowCompleter("gru", hidden=3, width=6), "completed", (1, 6, 6, 1)),
        (dcgan.DigitsDiscriminator(classes=3), "output", (1,)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_snippet_of_a_model_card_runs(module, result, shape, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", "mine", {"model": module}, {}, {})
    call(run, "hub")
    monkeypatch.chdir(run / "export" / "hub")
    namespace = {}
    exec(snippet((run / "export" / "hub" / "README.md").read_text()), namespace)
    assert namespace[result].shape == shape


def test_a_hub_folder_is_loaded_as_a_run_is(gan):
    call(gan, "hub")
    ours, theirs = jaxgen.load(gan / "export" / "hub"), jaxgen.load(gan)
    assert ours.module == theirs.module
    jax.tree.map(np.testing.assert_array_equal, ours.variables, theirs.variables)


def test_a_model_card_says_data_and_figures_with_baselines(gan):
    call(gan, "hub")
    text = (gan / "export" / "hub" / "README.md").read_text()
    front = text.split("---\n")[1]
    assert "pipeline_tag: unconditional-image-generation\n" in front
    assert "\nlicense:" not in front  # which is the user's to choose
    assert "# license: apache-2.0\n" in front
    assert "- 1,797 training images of 8 × 8 × 1" in text
    assert "| figure | model | real against held-out real | noise \\| untrained | unit |" in text
    assert "| Fréchet distance ↓ | 12.35 ± 0.25 | 1.5 | 99 |  |" in text
    assert "| PSNR ↑ | 21 |  |  | dB |" in text
    assert json.loads((gan / "export" / "hub" / "figures.json").read_text()) == FIGURES
    assert (gan / "export" / "hub" / "picture.png").read_bytes() == b"a picture"


def test_a_model_card_escapes_names(tmp_path):
    about = {"name": "folder:<b>*x*</b>", "images": 2, "size": [8, 8], "channels": 1, "classes": ["a|b", "<script>"]}
    run = make_run(tmp_path / "run", "mine", {"model": SMALL_VAE}, {}, about)
    call(run, "hub")
    text = (run / "export" / "hub" / "README.md").read_text()
    assert r"- Data set: folder:&lt;b>\*x\*&lt;/b>" in text
    assert r"a\|b, &lt;script>" in text


def test_a_hub_folder_names_no_path(tmp_path):
    """Of a run on a file in a folder with a telling name, with the records that runs write."""
    name = f"arrays:{tmp_path / 'secret_place' / 'images.npz'}"
    config = dcgan_digits.Config(out=tmp_path / "secret_place" / "run", data=name)
    images = data.Images(np.zeros((9, 8, 8, 1), np.uint8), np.zeros(9, np.int32), 16, ())
    about = data.about(name, images)
    generator = dcgan.DigitsGenerator(latent=4)
    run = make_run(config.folder, "dcgan_digits", {"generator": generator}, config.stored(), about)
    header = {"config": config.fixed(), "data": about, "experiment": config.experiment}
    file = run / "final" / "generator.safetensors"
    header["module"] = torch_weights.describe(generator)
    file.write_bytes(torch_weights.to_safetensors(tensors_of(generator), header))
    assert "secret_place" in (run / "config.json").read_text()
    call(run, "onnx", "hub")
    assert len(files_in(run / "export")) == 4
    for exported in (run / "export").rglob("*.*"):
        assert b"secret_place" not in exported.read_bytes(), exported.name
    text = (run / "export" / "hub" / "README.md").read_text()
    assert "- Data set: arrays:images.npz" in text
    assert "- epochs: 3" in text
    assert "- learning rate: 0.001" in text


def test_one_of_several_models_is_exported(tmp_path):
    modules = {f"{number}.generator": dcgan.DigitsGenerator(latent=4) for number in (0, 1)}
    run = make_run(tmp_path / "run", "dcgan_digits", modules, {}, {})
    figures = {"kid": {"value": 2.0, "standard_deviation": 1.0, "values": [1.0, 3.0]}}
    durable.write_json(run / "final" / "figures.json", figures)
    call(run, "hub", model="1")
    hub = run / "export" / "hub"
    assert json.loads((hub / "figures.json").read_text()) == {"kid": {"value": 3.0}}
    wanted = torch_weights.load_file(run / "final" / "1.generator.safetensors").variables
    jax.tree.map(np.testing.assert_array_equal, jaxgen.load(hub / "generator.safetensors").variables, wanted)


def test_a_class_of_ones_own_is_for_python(tmp_path):
    run = make_run(tmp_path / "run", "mine", {"model": tiny.Mean()}, {}, {})
    for path in (run, run / "final" / "model.safetensors"):
        with pytest.raises(jaxgen.InputError, match=r"tests\.support\.tiny\.Mean, a class of your own.*functions_of"):
            call(path, "stablehlo")
    assert not (run / "export").exists()


def test_bad_requests_are_refused(gan, completer, tmp_path):
    with pytest.raises(jaxgen.InputError, match=r"to.*must be 'stablehlo', 'onnx' or 'hub'"):
        call(gan, "torchscript")
    with pytest.raises(jaxgen.InputError, match="to: name stablehlo, onnx, hub"):
        call(gan)
    with pytest.raises(jaxgen.InputError, match="no run there"):
        call(tmp_path / "nowhere", "hub")
    with pytest.raises(jaxgen.InputError, match=r"count.*must be"):
        call(gan, "stablehlo", count=0)
    assert not (gan / "export").exists()


def test_nothing_is_written_where_one_target_fails(gan, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(jaxgen.InputError, match="jaxgen\\[onnx\\]"):
        call(gan, "stablehlo", "onnx")
    assert not (gan / "export").exists()
    assert runs.Layout(gan).read_finished() is not None
