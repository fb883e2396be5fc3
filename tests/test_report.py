"""The page of a run as a file: what is in it, what is not, and how large it is. `test_report_page.py` opens it."""

import base64
import getpass
import json
import re
import shutil
import socket

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import durable, report, torch_weights
from jaxgen.layers import Linear
from jaxgen.report.folder import Run, without_paths
from jaxgen.report.live import live_model
from jaxgen.report.network import evaluate, trace
from tests.support.run_folder import MODULES, NAMES, trained_variables, write_run

pytestmark = pytest.mark.unoptimized


def content(page):
    """The data of a page, which is a file or a text."""
    text = page if isinstance(page, str) else page.read_text()
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])


def weights(path):
    return re.search(r'<script type="text/plain" id="weights">(.*?)</script>', path.read_text(), re.S)[1]


@pytest.mark.parametrize("name", NAMES)
def test_page_is_no_larger_than_the_weights_and_400_kb(name, tmp_path):
    folder = write_run(tmp_path / "run", name)
    for path in folder.rglob("original.png"):  # more than a page has room for
        Image.effect_noise((900, 900), 200).save(path)
    path = report.write(folder)
    model = content(path)["live"]
    assert model["weights"]["type"] == "float16"
    assert len(weights(path)) == pytest.approx(sum(model["weights"]["sizes"]) * 2 * 4 / 3, abs=4)
    assert path.stat().st_size <= len(weights(path)) + 400_000
    assert path.stat().st_size > len(weights(path)) + 150_000  # which it makes use of


def test_only_the_generator_of_a_gan_is_in_the_page(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    shutil.copy(folder / "final" / "generator.safetensors", folder / "final" / "discriminator.safetensors")
    path = report.write(folder)
    size = sum(leaf.size for leaf in jax.tree.leaves(trained_variables(MODULES["dcgan_digits"])))
    assert len(base64.b64decode(weights(path))) == 2 * size


def test_weights_stay_float32_where_float16_would_be_seen(tmp_path):
    variables = trained_variables(MODULES["dcgan_digits"])
    bias = variables["params"]["convt_2"]["bias"]
    variables["params"]["convt_2"]["bias"] = np.full_like(bias, 1e6)  # more than a float16 holds
    path = report.write(write_run(tmp_path / "run", "dcgan_digits", variables=variables))
    model = content(path)["live"]
    assert model["weights"]["type"] == "float32"
    assert "float32" in " ".join(content(path)["footer"])
    assert len(weights(path)) == pytest.approx(sum(model["weights"]["sizes"]) * 4 * 4 / 3, abs=4)


def test_what_float16_changes_is_measured(tmp_path):
    run = Run(write_run(tmp_path / "run", "dcgan_digits"))
    found = live_model(run)
    exact = np.frombuffer(base64.b64decode(found.weights), np.float16).astype(np.float32)
    module = MODULES["dcgan_digits"]
    z = np.asarray(module.prior(jax.random.key(0), 12))
    variables = trained_variables(module)
    network = trace(lambda z: module.apply(variables, z), jax.ShapeDtypeStruct((1, 64), np.float32))
    arrays = np.split(exact, np.cumsum(found.about["weights"]["sizes"])[:-1])
    rounded = network.with_weights(x.reshape(like.shape) for x, like in zip(arrays, network.weights, strict=True))
    change = np.abs(evaluate(rounded, z)[0] - module.apply(variables, z)).max() / 2  # of −1..1
    assert found.about["change"] == pytest.approx(change, abs=1e-6)
    assert 0 < change <= 1 / 255


class OwnGenerator(nn.Module):
    input_shape = (4,)

    def prior(self, key, count):
        return jax.random.normal(key, (count, 4))

    @nn.compact
    def __call__(self, z):
        return Linear(64, name="only")(z).reshape(-1, 8, 8, 1)


def test_page_without_a_model_says_why(tmp_path):
    own = report.write(write_run(tmp_path / "own", "dcgan_digits", OwnGenerator()))
    assert "not one of jaxgen's own" in content(own)["plain"]
    unfinished = report.write(write_run(tmp_path / "unfinished", "dcgan_digits", finished=False))
    assert "when the training is finished" in content(unfinished)["plain"]
    asked = report.write(write_run(tmp_path / "asked", "dcgan_digits"), "plain")
    for path in (own, unfinished, asked):
        assert "live" not in content(path)
        assert weights(path) == ""
        assert content(path)["curves"]
    assert content(own)["reload"] is content(asked)["reload"] is None
    assert content(unfinished)["reload"] > 0


def test_page_names_no_path_user_or_machine(tmp_path):
    secret = tmp_path / "secret place"
    folder = write_run(
        secret / "run",
        "dcgan_digits",
        data={"name": f"folder:{secret}/cats"},
        options={"data": f"folder:{secret}/cats", "weights": [f"{secret}/g.safetensors", "C:\\Users\\evelyn\\d.pth"]},
    )
    line = {"event": "failure", "epoch": 1, "step": 0, "text": f"frame was not drawn: [Errno 2] '{secret}/x.png'"}
    (folder / "events.jsonl").write_text(json.dumps(line) + "\n")
    path = report.write(folder)
    text = json.dumps(content(path))
    for hidden in ("secret", str(tmp_path), tmp_path.name, "evelyn", socket.gethostname(), getpass.getuser()):
        assert not re.search(rf"\b{re.escape(hidden)}\b", text)
    assert str(tmp_path) not in path.read_text()
    assert content(path)["title"].endswith("on folder:cats")
    assert content(path)["notes"] == ["Epoch 1: frame was not drawn: [Errno 2] 'x.png'"]
    other = write_run(secret / "other", "dcgan_digits")
    assert "secret" not in report.comparison([folder, other])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no such file: /home/anna/x/y.png, sorry", "no such file: y.png, sorry"),
        ("~/runs/a is full", "a is full"),
        (r"C:\Users\anna\b.png: denied", "b.png: denied"),
        ("file:///home/anna/c.png", "c.png"),
        (
            "3 steps/s, loss 1/2, https://arxiv.org/abs/1312.6114",
            "3 steps/s, loss 1/2, https://arxiv.org/abs/1312.6114",
        ),
    ],
)
def test_paths_in_texts_are_reduced_to_their_last_part(text, expected):
    assert without_paths(text) == expected


def test_command_repeats_the_run(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits", options={"data": "folder:/home/anna/my cats"})
    assert Run(folder).command == "python -m experiments.dcgan_digits --epochs 3"
    environment = json.loads((folder / "environment.json").read_text())
    for started in (["--resume"], ["-f", "--connection=x"]):  # these are not the words that made the run
        (folder / "environment.json").write_text(json.dumps(environment | {"command": ["x", "--epochs", *started]}))
        command = Run(folder).command
        assert "--batch-size 16 --seed 0 --learning-rate 0.001 --data 'folder:my cats'" in command
        assert "--out" not in command


def test_pictures_of_all_epochs_are_thinned_out_evenly(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits", epochs=40)
    for path in folder.rglob("original.png"):
        Image.effect_noise((200, 200), 200).save(path)
    (picture,) = content(report.write(folder))["pictures"]
    epochs = [frame["epoch"] for frame in picture["frames"]]
    assert picture["total"] == 42
    assert 5 < len(epochs) < 42
    assert epochs[0] == 0
    assert epochs[-1] is None
    steps = np.diff(epochs[:-1])[:-1]
    assert steps.max() - steps.min() <= 1


def test_values_that_are_not_finite_are_gaps(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    lines = [{"epoch": 1, "loss": float("nan"), "seconds": 1.0}, {"epoch": 2, "loss": 0.5, "seconds": 1.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 3, "lo')
    (loss,) = (chart for chart in content(report.write(folder))["curves"] if chart["title"] == "Loss")
    assert loss["series"] == [{"name": "loss", "x": [1, 2], "y": [None, 0.5]}]


def test_metrics_that_belong_together_share_a_chart(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    lines = [{"epoch": 1, "loss": 1.0, "test_loss": 2.0, "error_fake": 3.0, "error_real": 4.0, "kl": 5.0}]
    (folder / "metrics.jsonl").write_text(json.dumps(lines[0]) + "\n")
    charts = {
        chart["title"]: [one["name"] for one in chart["series"]] for chart in content(report.write(folder))["curves"]
    }
    assert charts == {
        "Loss": ["loss", "test loss"],
        "Error": ["fake", "real"],
        "KL": ["kl"],
        "Fréchet distance": ["this model"],
    }


def test_both_cells_share_their_charts(tmp_path):
    charts = content(report.write(write_run(tmp_path / "run", "rnn_complete")))["curves"]
    (loss,) = (chart for chart in charts if chart["title"] == "Loss")
    assert [one["name"] for one in loss["series"]] == ["LSTM", "GRU"]


def test_comparison_needs_two_different_runs(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    for folders in ([folder], [folder, folder]):
        with pytest.raises(jaxgen.InputError):
            report.comparison(folders)
    with pytest.raises(jaxgen.InputError, match="no run there"):
        report.comparison([folder, tmp_path])


def test_runs_of_one_name_are_told_apart(tmp_path):
    folders = [write_run(tmp_path / one / "run", "dcgan_digits") for one in ("a", "b")]
    assert content(report.comparison(folders))["names"] == ["a/run", "b/run"]


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(jaxgen.InputError, match="no run there"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_page_stays_as_it_was_where_the_disk_is_full(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    before = report.write(folder).read_bytes()

    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "sync", fail)
    with pytest.raises(OSError, match="No space"):
        report.write(folder, "plain")
    assert (folder / "report.html").read_bytes() == before
    assert not list(folder.glob(".report*"))


def test_picture_of_the_end_is_not_shown_twice(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    (picture,) = content(report.write(folder))["pictures"]
    assert [frame["epoch"] for frame in picture["frames"]] == [0, 1, 2, 3]
    Image.new("L", (8, 8)).save(folder / "final" / "original.png")
    (picture,) = content(report.write(folder))["pictures"]
    assert [frame["epoch"] for frame in picture["frames"]] == [0, 1, 2, 3, None]


def test_models_trained_at_once_share_charts_and_the_best_one_is_live(tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss/0": 2.0, "loss/1": 1.0, "error_a/0": 3.0}\n')
    finished = {"epochs": 1, "results": {}, "models": ["seed 0", "seed 1"], "best_model": 1}
    (folder / "finished.json").write_text(json.dumps(finished))
    (folder / "final" / "figures.json").write_text(
        json.dumps({"mse": {"value": 2.0, "standard_deviation": 0.5, "values": [1, 3]}})
    )
    for index in (0, 1):
        variables = trained_variables(MODULES["dcgan_digits"], index)
        torch_weights.save(MODULES["dcgan_digits"], variables, folder / "final" / f"{index}.generator.safetensors")
    (folder / "final" / "generator.safetensors").unlink()
    page = content(report.write(folder))
    charts = {chart["title"]: [one["name"] for one in chart["series"]] for chart in page["curves"]}
    assert charts["Loss"] == ["seed 0", "seed 1"]
    (figure,) = page["figures"]
    assert (figure["value"], figure["error"]) == (2.0, 0.5)
    assert figure["note"] == "mean and standard deviation of 2 models"
    assert "seed 1" in page["live_text"]
    weight = np.frombuffer(base64.b64decode(weights(folder / "report.html")), np.float16)[0]
    np.testing.assert_allclose(weight, variables["params"]["convt_1"]["weight"].ravel()[0], rtol=1e-3)


def test_one_cell_has_a_page_of_its_own(tmp_path):
    page = content(report.write(write_run(tmp_path / "run", "rnn_complete") / "gru"))
    assert [cell["name"] for cell in page["live"]["cells"]] == ["GRU"]


def test_run_that_has_just_begun_has_a_page(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "experiments.own", "options": {}, "data": None}))
    page = content(report.write(tmp_path))
    assert page["title"] == "Own on its data"
    assert page["curves"] == page["pictures"] == page["figures"] == []


@pytest.mark.parametrize("content_there", [b"\xff[", b"[1]\n"])
@pytest.mark.parametrize("damaged", ["environment.json", "finished.json", "final/figures.json", "metrics.jsonl"])
def test_damaged_file_costs_only_what_it_says(damaged, content_there, tmp_path):
    folder = write_run(tmp_path / "run", "dcgan_digits")
    (folder / damaged).write_bytes(content_there)
    assert content(report.write(folder))["title"] == "Generative adversarial network on 8×8 digits"
