"""The benchmark of data that come from disk: which commands it runs, and what it says."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import streaming
from jaxgen import data, runs
from jaxgen.errors import InputError


def test_both_ways_are_measured_and_compared(tmp_path, monkeypatch, capsys):
    places = []

    def run(words, **options):
        from experiments.conv_autoencoder import Config
        from jaxgen.runs.command import configuration

        assert words[1:3] == ["-m", "experiments.benchmark.streaming"]
        config = configuration(Config, "", words[3:])
        images = data.load(config.data, size=config.size, channels=config.channels, **config.loading).images
        assert images.shape == (1080, 56, 56, 1)
        assert isinstance(images, np.ndarray) == (config.data_on == "device")
        places.append(config.data_on)
        config.folder.mkdir()
        seconds = {"device": 2.0, "disk": 2.5}[config.data_on]
        runs.Layout(config.folder).metrics.write_text(json.dumps({"epoch": 1, "seconds": seconds}) + "\n")
        return SimpleNamespace(stdout='run …\n{"peak_bytes": 900000000}\n')

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(benchmark, "warn_if_busy", lambda: None)
    monkeypatch.setattr(benchmark, "surroundings", lambda options: {})
    out = tmp_path / "figures.json"
    benchmark.main(benchmark.options_of(["--streaming", "1200", "--out", str(out)]))
    assert places == ["device", "disk"]
    figures = json.loads(out.read_text())["streaming"]
    assert figures["disk"] == {"steps_per_second": 22 / 2.5, "peak_bytes": 900_000_000}  # of 50 images, one of fewer
    said = capsys.readouterr().out
    assert "streamed: 80% of the speed" in said
    assert "8.8 steps/s  peak memory      900 MB" in said


def test_too_few_images_are_refused():
    assert benchmark.options_of(["--streaming"]).streaming == streaming.COUNT
    with pytest.raises(InputError, match="--streaming 5: must be 1000 or more"):
        benchmark.main(benchmark.options_of(["--streaming", "5"]))
