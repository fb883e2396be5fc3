"""Odd values: sizes are refused before anything is made, and everything that could take forever has an end."""

import re
import time
import tracemalloc
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen import data, memory, runs, training
from jaxgen.runs import bad_steps, checkpoint
from tests.support import tiny
from tests.test_runs import call, edit

pytestmark = pytest.mark.unoptimized

DIGITS = ["--data", "digits"]
TOO_LARGE = {
    "hidden": (rnn_complete, ["--cell", "gru", "--hidden", "1000000"], r"--hidden 1000000: training takes 48\.0 TB"),
    "hidden of both cells": (rnn_complete, ["--hidden", "1000000"], r"--hidden 1000000: training takes 64\.0 TB"),
    "latent": (vae_mnist, [*DIGITS, "--latent", "10000000"], r"--latent 10000000: training takes \d+\.\d GB"),
    "latent of a billion": (vae_mnist, ["--latent", "1000000000"], r"--latent 1000000000: must be below 268,435,456"),
    "latent of a trillion": (vae_mnist, ["--latent", str(10**12)], r"--latent 1000000000000: must be below"),
    "size": (conv_autoencoder, [*DIGITS, "--size", "9000", "9000"], r"1,797 images of 9000×9000×3 take 436"),
    "size of faces": (conv_autoencoder, ["--data", "faces", "--size", "9000"], r"504 images of 9000×9000×3 take 122"),
    "size of one side": (conv_autoencoder, ["--size", "2147483648", "1"], r"--size 2147483648 1: must be below"),
    "size of both sides": (conv_autoencoder, ["--size", "65532"], r"--size 65532.*: must have at most 89,478,485 "),
    "summary": (conv_autoencoder, ["--summary", "--size", "2147483644", "4"], r"--size 2147483644 4: must "),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_does_not_fit_is_refused_at_once(tmp_path, monkeypatch, capsys, case):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "available", lambda: 100 * 10**9)
    experiment, arguments, said = TOO_LARGE[case]
    out = tmp_path / "below" / "run"
    began = time.monotonic()
    status, _, err = call(monkeypatch, capsys, *arguments, "--out", str(out), experiment=experiment)
    assert time.monotonic() - began < 20  # a second, on a machine that does nothing else
    assert (status, err.count("\n")) == (2, 1)
    assert re.search(said, err)
    assert not (tmp_path / "below").exists()


def test_what_training_holds_is_counted_exactly(tmp_path, monkeypatch):
    """Parameters, gradient and two moments of Adam, each 8×8 float32, its count, the sums; a batch and its noise."""
    held = 4 * 8 * 8 * 4 + 4 + 2 * 4 + 4
    needed = held + 2 * 4 * 8 * 8 * 4
    config = tiny.Config(out=tmp_path / "run", epochs=1, devices=1)
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    with pytest.raises(
        jaxgen.InputError, match=r"takes 3\.1 kB \(1\.0 kB for .*, 2\.0 kB for a batch\), but cpu has 3\."
    ):
        tiny.main(config)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(memory, "available", lambda: needed)
    assert tiny.main(config).history["loss"]


def test_memory_of_a_device_and_of_a_container(tmp_path, monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 123, "bytes_in_use": 100})
    assert memory.available_on(device) == 123
    assert memory.available_on(jax.devices()[0]) <= memory.psutil.virtual_memory().total
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (str(limit), str(tmp_path / "missing")))
    limit.write_text("max\n")
    assert memory.available() > 4096
    limit.write_text("4096\n")
    assert memory.available() == 4096


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (64_000_384_000_000, "64.0 TB"),
                       (10**18, "1,000.0 PB")],
)  # fmt: skip
def test_bytes_in_words(size, said):
    assert memory.text(size) == said


def test_large_images_are_refused_before_memory_is_taken(tmp_path):
    images = np.zeros((1000, 8, 8), np.uint8)
    tracemalloc.start()
    try:
        with pytest.raises(jaxgen.InputError, match=r"900 images of 60000×60000×1 take 3\.2 TB"):
            data.load(images, size=(60_000, 60_000))
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4096 bytes"),
        jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 4096 bytes."),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_one_line_and_the_last_checkpoint_stands(tmp_path, monkeypatch, capsys, error):
    slices = training.Loop.slices

    def failing(*arguments, **options):
        for piece in slices(*arguments, **options):
            if piece.epoch == 3:
                raise error
            yield piece

    folder = tmp_path / "run"
    monkeypatch.setattr(training.Loop, "slices", failing)
    status, _, err = call(monkeypatch, capsys, "--out", str(folder))
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith("error: out of memory; a smaller --batch-size or network needs less")
    newest = checkpoint.numbered(folder / "checkpoints")[-1]
    assert checkpoint.verify(newest)["epoch"] == 2
    monkeypatch.undo()
    assert len(tiny.main(tiny.Config(out=folder, resume=True)).history["loss"]) == 6


ODD = {
    "a seed of 33 bits": (dcgan_digits, {"seed": 2**32}, "seed=4294967296: must be below 4,294,967,296"),
    "devices": (dcgan_digits, {"devices": 2**31}, "devices=2147483648: must be below 2,147,483,648"),
    "beta1": (dcgan_mnist, {"beta1": 5}, "beta1=5: must be below 1"),
    "beta1 of one": (dcgan_mnist, {"beta1": 1.0}, "beta1=1.0: must be below 1"),
    "infinite decay": (vae_mnist, {"weight_decay": float("inf")}, "weight_decay=inf: must be finite"),
    "decay beyond float32": (vae_mnist, {"weight_decay": 1e308}, "weight_decay=1e+308: must be below 1e+30"),
    "rate beyond float32": (vae_mnist, {"learning_rate": 1e308}, "learning_rate=1e+308: must be below 1e+30"),
    "infinite rate": (vae_mnist, {"learning_rate": float("inf")}, "learning_rate=inf: must be "),
}


@pytest.mark.parametrize("case", ODD)
def test_values_are_bounded_where_they_are_declared(case):
    experiment, fields, said = ODD[case]
    with pytest.raises(jaxgen.InputError) as raised:
        experiment.Config(**fields)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize("name", ["cpu:-1", "cpu:+1", "cpu:1.0", "cpu:x", "cpu:²"])
def test_a_device_has_a_number(tmp_path, name):
    with pytest.raises(jaxgen.InputError, match="there is no such device; here: cpu:0, cpu:1"):
        tiny.main(tiny.Config(out=tmp_path / "run", device=name))
    assert not (tmp_path / "run").exists()


EDITED = {
    "precision": "fp8",
    "on_nan": "maybe",
    "epochs": None,
    "learning_rate": None,
    "devices": "2",
    "device": ["cpu"],
    "keep": 2.0,
    "seed": 2**32,
    "resume": 1,
    "size": [8, "8"],
}


@pytest.mark.parametrize("name", EDITED)
def test_a_configuration_that_was_edited_is_validated(tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / "run"
    tiny.main(tiny.Config(out=folder, epochs=1))
    edit(folder, lambda found: found["options"].update({name: EDITED[name]}))
    capsys.readouterr()
    status, out, err = call(monkeypatch, capsys, "--out", str(folder), "--resume", "--epochs", "2")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "config.json: " in err
    assert name in err
    assert "restore the file as it was written" in err


def test_the_search_for_a_bad_step_is_bounded_in_time(tmp_path, monkeypatch, capsys):
    points = tiny.points()
    points[3] = np.nan
    monkeypatch.setattr(tiny, "points", lambda: points)
    monkeypatch.setattr(bad_steps, "_LONGEST_REPLAY", -1.0)
    status, _, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--seed", "1")
    assert (status, err.count("\n")) == (1, 1)
    assert re.search(
        r"a value is not finite at epoch \d, step \d; all values are finite up to epoch 1, step \d, where the search "
        r"was stopped; \S+/00000000 is good; to resume from there: ",
        err,
    )


def test_the_search_for_a_bad_step_ends_where_it_was_noticed(monkeypatch):
    """Not at the end of the epoch: here the device computes something else the second time."""
    recipe, counted = tiny.recipe(tiny.Config()), []
    loop = training.Loop(recipe, training.as_source(tiny.points()), 4)
    slices = training.Loop.slices

    def counting(*arguments, **options):
        for piece in slices(*arguments, **options):
            counted.append((piece.epoch, piece.step))
            yield piece

    monkeypatch.setattr(training.Loop, "slices", counting)
    carry, key = loop.begin(recipe.init(jax.random.key(0))), jax.random.key(1)
    assert bad_steps.find_bad_step(loop, carry, key=key, epoch=0, step=0, until=(0, 3)) is None
    assert len(counted) <= 4


def test_a_group_that_does_not_fit_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 1)
    config = tiny.Config(out=tmp_path / "both", epochs=1)

    def train():
        with runs.start_group(config, tiny.points()) as group, group.start("one", tiny.Mean()) as one:
            one.fit(tiny.recipe(config))

    with pytest.raises(jaxgen.InputError, match="choose smaller values"):
        train()
    assert list(tmp_path.iterdir()) == []
