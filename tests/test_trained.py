"""`jaxgen.load`: the trained model of a run or of a weights file, without the experiment that made it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxgen
from experiments import dcgan_digits
from jaxgen import runs, torch_weights
from jaxgen.models import dcgan, vae
from tests.support import tiny
from tests.test_runs import bits, edit

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def two_networks(tmp_path_factory) -> runs.Outcome:
    folder = tmp_path_factory.mktemp("two")
    images = np.random.default_rng(0).integers(0, 17, (9, 8, 8, 1), np.uint8)
    np.savez(folder / "images.npz", images=images)
    config = dcgan_digits.Config(out=folder / "run", data=f"arrays:{folder / 'images.npz'}", epochs=1, batch_size=8)
    return dcgan_digits.main(config)


@pytest.fixture(scope="module")
def one_network(tmp_path_factory) -> runs.Outcome:
    return tiny.main(tiny.Config(out=tmp_path_factory.mktemp("one") / "run", epochs=2))


def test_two_networks_are_mappings(two_networks):
    trained = jaxgen.load(two_networks.folder)
    assert trained.module == {"generator": dcgan.DigitsGenerator(), "discriminator": dcgan.DigitsDiscriminator()}
    assert trained.variables.keys() == {"generator", "discriminator"}
    assert bits(trained.variables) == bits(two_networks.variables)
    assert (trained.config.batch_size, trained.config.epochs) == (8, 1)


def test_an_unfinished_run_is_loaded_from_its_newest_checkpoint(two_networks, tmp_path):
    shutil.copytree(two_networks.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    (tmp_path / "run" / "finished.json").unlink()
    assert bits(jaxgen.load(tmp_path / "run").variables) == bits(two_networks.variables)


def test_one_file(two_networks):
    trained = jaxgen.load(two_networks.folder / "final" / "generator.safetensors")
    assert trained.module == dcgan.DigitsGenerator()
    assert bits(trained.variables) == bits(two_networks.variables["generator"])
    assert trained.config.learning_rate == 1e-3
    assert not hasattr(trained.config, "out")


def test_it_works_where_no_experiment_is_and_imports_nothing_that_a_file_names(two_networks, tmp_path):
    """In another folder and another process, with an `experiment` in config.json that would do harm."""
    shutil.copytree(two_networks.folder, tmp_path / "run")
    (tmp_path / "harmful.py").write_text("raise SystemExit('imported')")
    edit(tmp_path / "run", lambda found: found.update(experiment="harmful"))
    code = """
import sys
sys.modules["experiments"] = None
import jax, jaxgen
from jaxgen.models import dcgan
trained = jaxgen.load("run")
samples = dcgan.sample(trained.module["generator"], trained.variables["generator"], jax.random.key(0), 2)
assert samples.shape == (2, 8, 8, 1)
assert "harmful" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_a_class_of_ones_own_is_given(one_network):
    with pytest.raises(jaxgen.InputError, match=r"tests\.support\.tiny\.Mean, which is not jaxgen's.*module="):
        jaxgen.load(one_network.folder)
    assert bits(jaxgen.load(one_network.folder, module=tiny.Mean()).variables) == bits(one_network.variables)


def rewritten(path: Path, to: Path, **about) -> Path:
    """The weights file with another description."""
    from safetensors.numpy import load_file

    to.write_bytes(torch_weights.to_safetensors(load_file(path), about))
    return to


@pytest.mark.parametrize("name", ["os.system", "harmful.Net", "jaxgen.models.vae.ConvVAE.__init__", "builtins.exec"])
def test_a_header_that_names_something_else_is_refused(two_networks, tmp_path, monkeypatch, name):
    (tmp_path / "harmful.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = two_networks.folder / "final" / "generator.safetensors"
    file = rewritten(file, tmp_path / "model.safetensors", module={"class": name, "fields": {}})
    with pytest.raises(jaxgen.InputError, match="which is not jaxgen's"):
        jaxgen.load(file)


def test_shapes_are_checked(two_networks, one_network, tmp_path):
    file = two_networks.folder / "final" / "generator.safetensors"
    described = torch_weights.describe(vae.ConvVAE(2))
    with pytest.raises(jaxgen.InputError):
        jaxgen.load(rewritten(file, tmp_path / "model.safetensors", module=described))

    class Wider(tiny.Mean):
        input_shape = (9, 8, 1)

    with pytest.raises(jaxgen.InputError, match=r"mean.*8, 8, 1.*9, 8, 1|mean.*9, 8, 1.*8, 8, 1|8×8×1|9×8×1"):
        jaxgen.load(one_network.folder, module=Wider())


def test_a_folder_without_a_run_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(jaxgen.InputError, match="no run there"):
            jaxgen.load(path)


@pytest.mark.parametrize(("layout", "said"), [(None, "layout 1, this version has 2"), (3, "layout 3, this version")])
def test_a_run_of_another_layout_is_refused(one_network, tmp_path, layout, said):
    shutil.copytree(one_network.folder, tmp_path / "run")
    edit(tmp_path / "run", lambda found: found.update(layout=layout) if layout else found.pop("layout"))
    for use in (
        lambda: jaxgen.load(tmp_path / "run", module=tiny.Mean()),
        lambda: tiny.main(tiny.Config(out=tmp_path / "run", resume=True)),
        lambda: tiny.main(tiny.Config(out=tmp_path / "run")),
    ):
        with pytest.raises(jaxgen.InputError, match=said) as raised:
            use()
        assert "\n" not in str(raised.value)


def test_config_keeps_its_keys(one_network):
    found = json.loads((one_network.folder / "config.json").read_text())
    assert {"layout", "experiment", "options", "data_sha256"} <= found.keys()


def test_it_computes_what_the_run_computed(two_networks):
    trained = jaxgen.load(two_networks.folder)
    key = jax.random.key(0)
    ours, theirs = (
        dcgan.sample(dcgan.DigitsGenerator(), variables["generator"], key, 4)
        for variables in (trained.variables, two_networks.variables)
    )
    np.testing.assert_array_equal(ours, theirs)
