"""A Config is checked when it is made, and takes the settings of an existing run as its defaults."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import field_validator

import jaxgen
from experiments import conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist
from jaxgen.runs.config import speaking_of_options
from tests.support import tiny

BAD = {
    "precision='half': must be 'float32', 'tf32' or 'bf16'": (vae_mnist, {"precision": "half"}),
    "epochs=2.5: must be a whole number": (vae_mnist, {"epochs": 2.5}),
    "epochs=True: must not be true or false": (vae_mnist, {"epochs": True}),
    "epochs=None: must be a whole number": (vae_mnist, {"epochs": None}),
    "on_nan='whatever': must be 'stop' or 'skip'": (vae_mnist, {"on_nan": "whatever"}),
    "data=5: must be text": (vae_mnist, {"data": 5}),
    "seed=1180591620717411303424: must be below 4,294,967,296": (vae_mnist, {"seed": 2**70}),
    "learning_rate=nan: must be a number above 0": (vae_mnist, {"learning_rate": float("nan")}),
    "epochs=0: must be 1 or more; batch_size=1: must be 2 or more": (vae_mnist, {"epochs": 0, "batch_size": 1}),
    "epoch: there is no such option; did you mean epochs?": (vae_mnist, {"epoch": 3}),
    "cell='rnn': must be 'lstm' or 'gru'": (rnn_complete, {"cell": "rnn"}),
    "size=(1, 2, 3): must be a height and a width in whole numbers, or one number for both": (
        rnn_complete,
        {"size": (1, 2, 3)},
    ),
    "size=2.5: must be a height and a width in whole numbers, or one number for both": (rnn_complete, {"size": 2.5}),
    "weights='x': is for one cell; name it with cell='lstm' or cell='gru'": (rnn_complete, {"weights": "x"}),
    "weights=('a',): must be 2 values": (dcgan_digits, {"weights": ("a",)}),
    "sample_at=(0,): must be 1 or more": (dcgan_mnist, {"sample_at": (0,)}),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_values_are_refused_in_one_line(tmp_path, said):
    experiment, fields = BAD[said]
    with pytest.raises(jaxgen.InputError) as raised:
        experiment.Config(out=tmp_path / "run", **fields)
    assert str(raised.value) == said
    assert list(tmp_path.iterdir()) == []


def test_a_validator_of_an_experiments_own_may_leave_out_the_name():
    class Config(tiny.Config):
        @field_validator("limit")
        @classmethod
        def _is_even(cls, limit: int) -> int:
            if limit % 2:
                raise ValueError("must be even")
            return limit

    with pytest.raises(jaxgen.InputError, match=r"^limit=3: must be even$"):
        Config(limit=3)


@pytest.mark.parametrize(
    ("experiment", "given", "read"),
    [
        (vae_mnist, {"out": "runs/x"}, {"out": Path("runs/x")}),
        (vae_mnist, {"epochs": "3"}, {"epochs": 3}),
        (vae_mnist, {"epochs": np.int64(3)}, {"epochs": 3}),
        (vae_mnist, {"morph": [2, 4]}, {"morph": (2, 4)}),
        (rnn_complete, {"cell": "gru"}, {"cell": ("gru",)}),
        (rnn_complete, {"size": 56}, {"size": (56, 56)}),
        (rnn_complete, {"size": "56"}, {"size": (56, 56)}),
        (conv_autoencoder, {"size": np.int64(8)}, {"size": (8, 8)}),
        (conv_autoencoder, {"size": None}, {"size": None}),
        (dcgan_mnist, {"sample_at": 3}, {"sample_at": (3,)}),
    ],
    ids=str,
)
def test_values_with_one_sensible_reading_are_converted(experiment, given, read):
    config = experiment.Config(**given)
    assert {name: getattr(config, name) for name in read} == read
    assert {name: type(getattr(config, name)) for name in read} == {name: type(value) for name, value in read.items()}


def test_messages_name_fields_in_python_and_options_on_the_command_line():
    for on_command_line, said in ((False, "batch_size=0: "), (True, "--batch-size 0: ")):
        with speaking_of_options(on_command_line), pytest.raises(jaxgen.InputError, match=f"^{said}"):
            vae_mnist.Config(batch_size=0)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        tiny.Config().epochs = 3


def stored() -> dict:
    return json.loads(json.dumps(tiny.Config(learning_rate=0.2, epochs=3, kind=("c",)).stored()))


def merged(**given) -> tiny.Config:
    return tiny.Config(**given).with_stored(stored(), Path("run/config.json"))


def test_settings_that_were_not_given_come_from_the_run():
    config = merged(resume=True)
    assert (config.learning_rate, config.epochs, config.kind) == (0.2, 3, ("c",))
    assert merged(resume=True, epochs=6).epochs == 6


def test_a_given_setting_that_differs_is_refused_with_both_values():
    said = r"^learning_rate=0\.1: the run in run has learning_rate=0\.2; leave it out, or start another run"
    with pytest.raises(jaxgen.InputError, match=said):  # 0.1 is the default, but it was given
        merged(resume=True, learning_rate=0.1)
    assert merged(resume=True, learning_rate=0.2).learning_rate == 0.2


def test_what_an_experiment_replaces_does_not_count_as_given():
    config = tiny.Config(resume=True).replace(learning_rate=0.5)
    assert config.with_stored(stored(), Path("run/config.json")).learning_rate == 0.2


def test_stored_settings_survive_json():
    for experiment in (conv_autoencoder, dcgan_digits, dcgan_mnist, rnn_complete, vae_mnist):
        config = experiment.Config(out="runs/x", seed=7)
        assert experiment.Config.read(json.loads(json.dumps(config.stored())), Path("config.json")) == config
