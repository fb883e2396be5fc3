"""Hostile files and options: each ends with one line and status 2, and changes nothing on disk."""

import gzip
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen import torch_weights
from jaxgen.layers import init_variables
from jaxgen.models.completion import RowCompleter
from tests.test_runs import call, snapshot

pytestmark = pytest.mark.unoptimized

Case = tuple[ModuleType, list[str], str]  # the experiment, its arguments, and a part of the message


def good_weights() -> dict[str, np.ndarray]:
    module = RowCompleter("gru", 256, 56)
    return torch_weights.state_dict(module, init_variables(module, jax.random.key(0)))


def weights_file(name: str, content: bytes, said: str) -> Callable[[Path], Case]:
    def prepare(folder: Path) -> Case:
        (folder / name).write_bytes(content)
        return rnn_complete, ["--cell", "gru", "--weights", str(folder / name)], said

    return prepare


def changed_weights(change: Callable[[dict[str, np.ndarray]], object], said: str) -> Callable[[Path], Case]:
    def prepare(folder: Path) -> Case:
        tensors = good_weights()
        change(tensors)
        safetensors.numpy.save_file(tensors, folder / "weights.safetensors")
        return rnn_complete, ["--cell", "gru", "--weights", str(folder / "weights.safetensors")], said

    return prepare


class Harmful:
    """Creates a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def a_pickle_that_runs_code(folder: Path) -> Case:
    (folder / "weights.pth").write_bytes(pickle.dumps(Harmful(folder / "harmed"), protocol=2))
    return rnn_complete, ["--cell", "gru", "--weights", str(folder / "weights.pth")], "not a plain state_dict"


def a_pth_with_a_pickle_that_runs_code(folder: Path) -> Case:
    torch.save({"weight": Harmful(folder / "harmed")}, folder / "weights.pth")
    return rnn_complete, ["--cell", "gru", "--weights", str(folder / "weights.pth")], "not a plain state_dict"


def a_whole_pickled_module(folder: Path) -> Case:
    torch.save(torch.nn.Linear(2, 2), folder / "weights.pth")
    return rnn_complete, ["--cell", "gru", "--weights", str(folder / "weights.pth")], "not a plain state_dict"


def weights_of_another_experiment(folder: Path) -> Case:
    safetensors.numpy.save_file({"0.weight": np.zeros((2, 2), np.float32)}, folder / "weights.safetensors")
    return vae_mnist, ["--data", "digits", "--weights", str(folder / "weights.safetensors")], "weights.safetensors"


def a_folder_instead_of_weights(folder: Path) -> Case:
    (folder / "weights.safetensors").mkdir()
    return rnn_complete, ["--cell", "gru", "--weights", str(folder / "weights.safetensors")], "weights.safetensors"


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A gray PNG whose header gives this size, whatever `rows` holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def images(files: dict[str, bytes], said: str, experiment: ModuleType = rnn_complete) -> Callable[[Path], Case]:
    """A folder of valid images and these files."""

    def prepare(folder: Path) -> Case:
        place = folder / "images"
        place.mkdir()
        for number in range(40):
            (place / f"{number}.png").write_bytes(png(8, 8, (b"\0" + bytes(range(8))) * 8))
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        return experiment, ["--data", f"folder:{place}"], said

    return prepare


def images_only(files: dict[str, bytes], said: str) -> Callable[[Path], Case]:
    def prepare(folder: Path) -> Case:
        place = folder / "images"
        place.mkdir()
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        return rnn_complete, ["--data", f"folder:{place}"], said

    return prepare


def mnist_file(content: bytes) -> Callable[[Path], Case]:
    def prepare(folder: Path) -> Case:
        (folder / "cache" / "mnist").mkdir(parents=True)
        (folder / "cache" / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(content)
        return dcgan_mnist, [], "train-images-idx3-ubyte"

    return prepare


def options(experiment: ModuleType, *arguments: str) -> Callable[[Path], Case]:
    """The message is to name the first argument."""
    return lambda folder: (experiment, list(arguments), arguments[0])


def run_folder(files: dict[str, str], *arguments: str, said: str, place: str = "run") -> Callable[[Path], Case]:
    """An `--out` folder that holds these files."""

    def prepare(folder: Path) -> Case:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        return dcgan_digits, [*arguments, "--out", str(folder / place)], said

    return prepare


def config(experiment: str = "experiments.dcgan_digits", **changes: object) -> str:
    stored = dcgan_digits.Config().stored() | changes
    return json.dumps({"layout": 2, "experiment": experiment, "options": stored, "data_sha256": "0"})


def a_dangling_link(folder: Path) -> Case:
    (folder / "run").symlink_to(folder / "nowhere")
    return dcgan_digits, [], "run"


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}).encode()
FLOAT8 = json.dumps({"a": {"dtype": "X9", "shape": [1], "data_offsets": [0, 1]}}).encode()
HOSTILE: dict[str, Callable[[Path], Case]] = {
    "a pickle that runs code": a_pickle_that_runs_code,
    "a .pth with a pickle that runs code": a_pth_with_a_pickle_that_runs_code,
    "a whole pickled module": a_whole_pickled_module,
    "an empty .pth": weights_file("weights.pth", b"", "not a plain state_dict"),
    "a .pth of text": weights_file("weights.pth", b"weights", "not a plain state_dict"),
    "an empty .safetensors": weights_file("w.safetensors", b"", "not a readable .safetensors file"),
    "a header longer than the file": weights_file("w.safetensors", b"\xff" * 8 + b"{}", "not a readable"),
    "a header that is no JSON": weights_file("w.safetensors", struct.pack("<Q", 4) + b"{{{{", "not a readable"),
    "a tensor beyond the end": weights_file("w.safetensors", struct.pack("<Q", len(HEADER)) + HEADER, "not a readable"),
    "an unknown dtype": weights_file("w.safetensors", struct.pack("<Q", len(FLOAT8)) + FLOAT8 + b"1", "not a readable"),
    "complex numbers": changed_weights(
        lambda tensors: tensors.update({"fc.bias": tensors["fc.bias"].astype(np.complex64)}), "complex numbers"
    ),
    "weights with an unknown suffix": weights_file("weights.bin", b"12345678", "weights.bin"),
    "weights of another experiment": weights_of_another_experiment,
    "a folder instead of weights": a_folder_instead_of_weights,
    "a missing tensor": changed_weights(lambda tensors: tensors.pop("rnn.weight_hh_l0"), "rnn.weight_hh_l0"),
    "an additional tensor": changed_weights(lambda tensors: tensors.update(more=np.zeros(2, np.float32)), "more"),
    "a tensor of another shape": changed_weights(
        lambda tensors: tensors.update({"rnn.bias_hh_l0": np.zeros(3, np.float32)}), "rnn.bias_hh_l0"
    ),
    "a truncated image": images({"40.png": png(8, 8, b"\0\1\2")[:-20]}, "40.png"),
    "an image of text": images({"40.png": b"no image"}, "40.png"),
    "an empty image": images({"40.jpg": b""}, "40.jpg"),
    "a decompression bomb": images({"40.png": png(60_000, 60_000)}, "40.png"),
    "an image without pixels": images({"40.png": png(0, 8)}, "40.png"),
    "an empty folder": images_only({}, "images"),
    "a folder of other files": images_only({"a.txt": b"a", "b.csv": b"b"}, "images"),
    "a folder of one image": images_only({"a.png": png(8, 8, (b"\0" + bytes(8)) * 8)}, "images"),
    "a class without images": images_only({"train/a/note.txt": b"a", "val/a/note.txt": b"a"}, "images"),
    "MNIST, truncated": mnist_file(gzip.compress(bytes(1000))[:-9]),
    "MNIST with a wrong checksum": mnist_file(gzip.compress(bytes([0, 0, 8, 3]) + bytes(12))),
    "MNIST that is not gzipped": mnist_file(b"no gzip"),
    "half an epoch": options(dcgan_digits, "--epochs", "1.5"),
    "no epochs": options(conv_autoencoder, "--epochs", "0"),
    "a learning rate that is not a number": options(dcgan_digits, "--learning-rate", "nan"),
    "an infinite learning rate": options(vae_mnist, "--learning-rate", "inf"),
    "a learning rate below zero": options(rnn_complete, "--learning-rate", "-1e-3"),
    "a seed below zero": options(dcgan_mnist, "--seed", "-1"),
    "no latent dimension": options(vae_mnist, "--latent", "0"),
    "no checkpoints kept": options(dcgan_digits, "--keep", "0"),
    "an unknown device": options(dcgan_digits, "--device", "abacus"),
    "a device number out of range": options(dcgan_digits, "--device", "cpu:11"),
    "a batch that three devices cannot share": options(dcgan_digits, "--devices", "3"),
    "no devices": options(dcgan_digits, "--devices", "0"),
    "an unknown value of --on-nan": options(dcgan_digits, "--on-nan", "ignore"),
    "no samples": options(dcgan_digits, "--sample", "0"),
    "a class that is not a number": options(vae_mnist, "--morph", "two"),
    "no size": options(conv_autoencoder, "--size", "0", "32"),
    "an unknown option": options(rnn_complete, "--gpu"),
    "an empty batch": options(dcgan_digits, "--batch-size", "0"),
    "a batch larger than the data": lambda folder: (
        dcgan_digits,
        ["--batch-size", "5000"],
        "--batch-size 5000: there are only 1,797 images or windows to train on; --batch-size 1797 is the most",
    ),
    "a checkpoint every zero epochs": options(dcgan_digits, "--save-every", "0"),
    "an unknown cell": options(rnn_complete, "--cell", "elman"),
    "a window larger than the images": options(rnn_complete, "--sequence-length", "1000"),
    "an unknown data set": lambda folder: (dcgan_digits, ["--data", "digit"], "digit"),
    "a missing folder": lambda folder: (dcgan_digits, ["--data", f"folder:{folder}/no"], f"{folder}/no"),
    "a missing file of weights": lambda folder: (
        rnn_complete,
        ["--cell", "gru", "--weights", f"{folder}/no.pth"],
        "no.pth",
    ),
    "samples without a run": lambda folder: (dcgan_digits, ["--sample", "4"], f"{folder}/run"),
    "a morph through one class": options(vae_mnist, "--morph", "1", "--data", "digits"),
    "a morph without a run": lambda folder: (
        vae_mnist,
        ["--data", "digits", "--morph", "1", "2"],
        f"{folder}/run",
    ),
    "nothing to resume": run_folder({}, "--resume", said="no run to resume"),
    "a file instead of a folder": run_folder({"run": ""}, said="is not a folder"),
    "a folder below a file": run_folder({"file": ""}, place="file/run", said="is not a folder"),
    "a dangling link": a_dangling_link,
    "a run folder with other files": run_folder({"run/thesis.tex": "x"}, said="holds other files"),
    "an existing run without --resume": run_folder({"run/config.json": config()}, said="already holds a run"),
    "a run of another experiment": run_folder({"run/config.json": config("vae_mnist")}, "--resume", said="vae_mnist"),
    "a run with another seed": run_folder(
        {"run/config.json": config(seed=3)}, "--resume", "--seed", "4", said="--seed 4"
    ),
    "an empty configuration": run_folder({"run/config.json": ""}, "--resume", said="config.json"),
    "a configuration that is a list": run_folder({"run/config.json": "[1]"}, "--resume", said="config.json"),
    "a configuration without options": run_folder({"run/config.json": "{}"}, "--resume", said="run"),
    "an unknown setting": run_folder({"run/config.json": config(speed=2)}, "--resume", said="config.json"),
    "a setting of another type": run_folder({"run/config.json": config(epochs="many")}, "--resume", said="config.json"),
    "a setting out of range": run_folder({"run/config.json": config(batch_size=-1)}, "--resume", said="batch"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_refused_and_changes_nothing(tmp_path, monkeypatch, capsys, case):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no network
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    experiment, arguments, said = HOSTILE[case](tmp_path)
    before = snapshot(tmp_path)
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "run")]
    status, out, err = call(monkeypatch, capsys, *arguments, experiment=experiment)
    assert status == 2
    assert out == "" or out.startswith(("downloading", "folder:"))  # printed while data is read
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err
    after = {name: content for name, content in snapshot(tmp_path).items() if "prepared" not in name}
    assert after == before
    assert not (tmp_path / "harmed").exists()
