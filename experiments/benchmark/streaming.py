"""Training on images that come from disk in pieces, beside the same training on images that are in memory.

`conv_autoencoder` trains for an epoch on so many gray images of 56×56, in both ways, one after the other, each in a
process of its own: `python -m experiments.benchmark.streaming OPTIONS` is that experiment, which then prints its peak
memory. The time is that of the epoch, without compilation; the memory is that of the whole command, with its pictures
and its figures of quality.
"""

import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.processes import peak_bytes

COUNT, FEWEST = 1_000_000, 1000  # images
PLACES = ("device", "disk")
_SIDE = 56
_BLOCK = 10_000  # images that are made at a time


def measure(count: int, batch_size: int = 50) -> dict[str, Any]:
    """Measure both ways.

    Args:
        count: the number of images; a tenth of them is held out.
        batch_size: images a step.

    Returns:
        For each place of the data, `steps_per_second` and `peak_bytes`; the number of images and the bytes they take.
    """
    figures: dict[str, Any] = {"images": count, "bytes": count * _SIDE * _SIDE, "batch_size": batch_size}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "images.npz")
        _write_images(file, count)
        for place in PLACES:
            options = ["--data", f"arrays:{file}", "--size", str(_SIDE), "--channels", "1", "--epochs", "1"]
            options += ["--batch-size", str(batch_size), "--data-on", place, "--out", f"{folder}/{place}"]
            said = subprocess.run(
                [sys.executable, "-m", __spec__.name, *options], check=True, stdout=subprocess.PIPE, text=True
            )
            (line,) = Path(folder, place, "metrics.jsonl").read_text().splitlines()
            steps = -(-(count - count // 10) // batch_size)
            figures[place] = {
                "steps_per_second": steps / json.loads(line)["seconds"],
                "peak_bytes": json.loads(said.stdout.splitlines()[-1])["peak_bytes"],
            }
    return figures


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as text."""
    resident, streamed = (figures[place] for place in PLACES)
    ratio = streamed["steps_per_second"] / resident["steps_per_second"]
    return [
        f"{figures['images']:,} images of {_SIDE}×{_SIDE}, {figures['bytes'] / 1e9:.2f} GB, conv_autoencoder, "
        f"{figures['batch_size']} images a step",
        *(
            f"{name:18} {each['steps_per_second']:8.1f} steps/s  peak memory {each['peak_bytes'] / 1e6:8.0f} MB"
            for name, each in (("in memory", resident), ("streamed from disk", streamed))
        ),
        f"streamed: {ratio:.0%} of the speed",
    ]


def _write_images(file: Path, count: int) -> None:
    """Write random coarse patterns as an array file, a part at a time, so that this takes little memory."""
    random = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(dir=file.parent) as temporary:
        images = np.memmap(temporary.name, np.uint8, "w+", shape=(count, _SIDE, _SIDE))
        for start in range(0, count, _BLOCK):
            coarse = random.integers(0, 256, (min(_BLOCK, count - start), 7, 7), np.uint8)
            images[start : start + len(coarse)] = coarse.repeat(8, axis=1).repeat(8, axis=2)
        np.savez(file, images=images)


if __name__ == "__main__":
    try:
        runpy.run_module("experiments.conv_autoencoder", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if stop.code:
            raise
    print(json.dumps({"peak_bytes": peak_bytes()}))
