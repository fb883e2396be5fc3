"""Runs' folders as `jaxgen.runs` leaves them, without a training: for what only reads them."""

import json
from pathlib import Path

import jax
import numpy as np

from jaxgen import pictures, torch_weights
from jaxgen.layers import init_variables
from jaxgen.models import autoencoder, completion, dcgan, vae

NAMES = ["rnn_complete", "conv_autoencoder", "dcgan_mnist", "dcgan_digits", "vae_mnist"]
MODULES = {
    "conv_autoencoder": autoencoder.ConvAutoencoder(),
    "dcgan_mnist": dcgan.MnistGenerator(),
    "dcgan_digits": dcgan.DigitsGenerator(),
    "vae_mnist": vae.ConvVAE(2, width=8),  # an eighth of the tutorial's, for speed
}
SHAPES = {
    "rnn_complete": (56, 56, 1),
    "conv_autoencoder": (32, 32, 3),
    "dcgan_mnist": (28, 28, 1),
    "dcgan_digits": (8, 8, 1),
    "vae_mnist": (32, 32, 1),
}


def trained_variables(module, seed=0):
    """Variables as after a training: no bias, mean or variance has its initial value, so that none can be forgotten."""
    variables = init_variables(module, jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def moved(path, leaf):
        leaf = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        if "running_var" in name:
            return rng.uniform(0.5, 2, leaf.shape).astype(np.float32)
        if "num_batches" in name or ("weight" in name and leaf.ndim > 1):
            return leaf
        return (leaf + 0.1 * rng.normal(size=leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(moved, variables)


def write_run(
    folder: Path, name: str, module=None, variables=None, *, data=None, options=None, epochs=3, finished=True, cell=None
) -> Path:
    """Write the folder of a run of an experiment, with a network whose variables were not trained.

    Args:
        folder: is made.
        name: of the experiment.
        module: the network; by default the experiment's.
        variables: its variables.
        data: what differs from the usual `data` in `config.json`.
        options: what differs in the usual options.
        epochs: how many there are.
        finished: whether the run is finished.
        cell: for `rnn_complete`; without it, both cells are written, in folders of their own.
    """
    height, width, channels = SHAPES[name]
    about = {
        "name": "digits", "images": 1797, "size": [height, width], "channels": channels, "white": 255,
        "classes": [str(number) for number in range(10)], "held_out": 100, **(data or {}),
    }  # fmt: skip
    chosen = {"epochs": epochs, "batch_size": 16, "seed": 0, "out": str(folder), "resume": False, "learning_rate": 1e-3}
    if name == "rnn_complete":
        chosen |= {"size": [height, width], "sequence_length": height // 2, "cell": [cell] if cell else ["lstm", "gru"]}
        module = module or (completion.RowCompleter(cell, 256, width) if cell else None)
    module = module or MODULES.get(name)
    _write_json(folder / "config.json", {"layout": 2, "experiment": f"experiments.{name}",
                                         "options": {**chosen, **(options or {})}, "data": about})  # fmt: skip
    command = [f"experiments.{name}", "--epochs", str(epochs), "--out", str(folder)]
    _write_json(
        folder / "environment.json",
        {"python": "3.11", "jaxgen": "0.2.0", "platform": "cpu", "devices": ["cpu"], "command": command},
    )
    if name == "rnn_complete" and cell is None:
        for one in ("lstm", "gru"):
            write_run(folder / one, name, options=options, data=data, epochs=epochs, finished=finished, cell=one)
    else:
        _write_training(folder, module, variables, epochs, finished, (height, width, channels))
    if finished:
        _write_json(folder / "finished.json", {"epochs": epochs, "epoch": epochs, "step": 0, "results": {}})
    return folder


def _write_training(folder, module, variables, epochs, finished, shape):
    (folder / "checkpoints").mkdir(parents=True)
    metrics = [
        {"epoch": epoch, "loss": 1 / epoch, "error_fake": 0.5, "error_real": 0.1 * epoch, "seconds": 2.0}
        for epoch in range(1, epochs + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (folder / "events.jsonl").write_text("")
    images = np.random.default_rng(0).uniform(size=(10, *shape))
    for epoch in range(epochs + 1):
        path = folder / "epochs" / f"{epoch:03d}"
        path.mkdir(parents=True)
        (path / "original.png").write_bytes(pictures.png(pictures.grid(images * epoch / epochs, columns=5)))
        figure = {"value": 9.0 - epoch, "baselines": {"real against real": 0.5}, "standard_error": 0.2, "unit": "",
                  "better": "lower"}  # fmt: skip
        _write_json(path / "figures.json", {"frechet_distance": figure})
    if finished:
        final = folder / "final"
        final.mkdir()
        (final / "original.png").write_bytes(pictures.png(pictures.grid(images, columns=5)))
        _write_json(final / "figures.json", {"frechet_distance": figure})
        variables = trained_variables(module) if variables is None else variables
        name = "generator" if hasattr(module, "prior") else "model"
        torch_weights.save(module, variables, final / f"{name}.safetensors")


def _write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
