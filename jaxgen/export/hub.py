"""A folder for a model hub: weights, configuration, and a model card that says what they are and how good."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxgen.metrics import title
from jaxgen.models import autoencoder, completion

__all__ = ["Card", "hub_folder"]

_MOST_CLASSES = 20  # whose names are listed
_GENERATION, _IMAGES = "unconditional-image-generation", "image-to-image"  # tasks, as hubs name them


class Card(NamedTuple):
    """What a model card says beside what the weights say.

    Attributes:
        name: The name of the model, such as "dcgan_digits".
        version: The version of jaxgen.
        data: What it was trained on: `name`, `images`, `size`, `channels`, `classes`, `held_out`, as far as known.
        options: The settings of the training.
        epochs: Passes over the data; None where that is not known.
        figures: Figures of quality, as `figures.json` has them: `{name: {"value": …, "baselines": {…}, …}}`.
        picture: A picture of what the model makes, as a PNG file; None for none.
    """

    name: str
    version: str
    data: Mapping[str, Any]
    options: Mapping[str, Any]
    epochs: int | None
    figures: Mapping[str, Mapping[str, Any]]
    picture: bytes | None


def hub_folder(modules: Mapping[str, nn.Module], weights: Mapping[str, bytes], card: Card) -> dict[str, bytes]:
    """Make the files of a folder for a model hub.

    Nothing in it names a path or a user. The licence is left to whoever publishes the weights.

    Args:
        modules: The networks by name.
        weights: The content of the weights file of each, under the same names.
        card: What else there is to say.

    Returns:
        The contents by name: `README.md` (the model card), `config.json`, the weights, `figures.json` and
        `picture.png` as far as there are such.
    """
    config = {
        "library_name": "jaxgen",
        "jaxgen_version": card.version,
        "architectures": {name: type(module).__name__ for name, module in modules.items()},
        "options": dict(card.options),
        "epochs": card.epochs,
        "data": dict(card.data),
    }
    files = {"README.md": _readme(modules, card).encode(), "config.json": _json(config)}
    files |= {f"{name}.safetensors": content for name, content in weights.items()}
    if card.figures:
        files["figures.json"] = _json(card.figures)
    if card.picture is not None:
        files["picture.png"] = card.picture
    return files


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _readme(modules: Mapping[str, nn.Module], card: Card) -> str:
    main = next((name for name, module in modules.items() if _usage(module).task != "other"), next(iter(modules)))
    usage = _usage(modules[main])
    networks = ", ".join(f"`{type(module).__name__}` in `{name}.safetensors`" for name, module in modules.items())
    parts = [
        _front_matter(usage.task),
        f"# {_text(card.name)}\n",
        "![What the model makes](picture.png)\n" if card.picture is not None else "",
        f"Trained with jaxgen {card.version} (`pip install jaxgen`): {networks}.\n",
        "## Use\n",
        f"```python\n{usage.imports}\n\nmodel = jaxgen.load({f'{main}.safetensors'!r})\n{usage.call}\n```\n",
        "`jaxgen export` also makes StableHLO programs and ONNX models of these files, which run without jaxgen.\n",
        _data_section(card.data),
        _figures_section(card.figures),
        _training_section(card),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(task: str) -> str:
    lines = ["library_name: jaxgen", *([f"pipeline_tag: {task}"] if task != "other" else [])]
    lines += ["tags:", "- jax", "- flax", "- image-generation"]
    lines += ["# The licence of the weights is yours to choose, and the data's may restrict it. For example:"]
    lines += ["# license: apache-2.0"]
    return "\n".join(["---", *lines, "---", ""])


class _Usage(NamedTuple):
    task: str
    imports: str
    call: str


def _usage(module: nn.Module) -> _Usage:
    """How a network is used, after `model = jaxgen.load(…)`."""
    labels = ", labels=0" if getattr(module, "classes", 0) else ""
    images = f"jnp.zeros((1, {', '.join(map(str, module.input_shape))}))"

    def imports(name: str, *packages: str) -> str:
        return "\n".join([*packages, "import jaxgen", f"from jaxgen.models import {name}"])

    if isinstance(module, completion.RowCompleter):
        images = f"jnp.zeros((1, {module.width}, {module.width}, 1))"
        call = f"completed = completion.complete(model.module, model.variables, {images}, {module.width // 2})"
        return _Usage(_IMAGES, imports("completion", "import jax.numpy as jnp"), call)
    if isinstance(module, autoencoder.ConvAutoencoder):
        call = f"reconstructions = autoencoder.reconstruct(model.module, model.variables, {images})"
        return _Usage(_IMAGES, imports("autoencoder", "import jax.numpy as jnp"), call)
    if hasattr(module, "prior"):
        call = f"images = dcgan.sample(model.module, model.variables, jax.random.key(0), 16{labels})"
        return _Usage(_GENERATION, imports("dcgan", "import jax"), call)
    if hasattr(module, "encode") and hasattr(module, "decode"):
        call = (
            f"z = jax.random.normal(jax.random.key(0), (16, {module.latent}))\n"
            f"images = vae.decode(model.module, model.variables, z{labels})"
        )
        return _Usage(_GENERATION, imports("vae", "import jax"), call)
    labels = ", jnp.zeros(1, int)" if labels else ""
    call = f"output = model.module.apply(model.variables, {images}{labels})"
    return _Usage("other", "import jax.numpy as jnp\nimport jaxgen", call)


def _data_section(data: Mapping[str, Any]) -> str:
    if not data:
        return ""
    said = [f"- Data set: {_text(data['name'])}"]
    if "images" in data:
        size = " × ".join(map(str, (*data["size"], data["channels"])))
        said.append(f"- {data['images']:,} training images of {size} (height × width × channels)")
    if data.get("held_out"):
        said.append(f"- {data['held_out']:,} images held out, on which the figures are measured")
    if classes := list(data.get("classes") or ()):
        more = f" and {len(classes) - _MOST_CLASSES:,} more" if len(classes) > _MOST_CLASSES else ""
        said.append(f"- {len(classes):,} classes: {', '.join(map(_text, classes[:_MOST_CLASSES]))}{more}")
    return "\n".join(["## Data", "", *said, ""])


def _figures_section(figures: Mapping[str, Mapping[str, Any]]) -> str:
    if not figures:
        return ""
    labels = list(dict.fromkeys(label for figure in figures.values() for label in figure.get("baselines", {})))
    rows = [["figure", "model", *map(_text, labels), "unit"], ["---", *(["---:"] * (1 + len(labels))), "---"]]
    for name, figure in figures.items():
        arrow = {"lower": " ↓", "higher": " ↑"}.get(figure.get("better", ""), "")
        error = figure.get("standard_error")
        value = f"{figure['value']:.4g}" + (f" ± {error:.2g}" if error is not None else "")
        baselines = figure.get("baselines", {})
        others = [f"{baselines[label]:.4g}" if label in baselines else "" for label in labels]
        rows.append([_text(title(name)) + arrow, value, *others, _text(figure.get("unit", ""))])
    table = ["| " + " | ".join(row) + " |" for row in rows]
    said = "Beside the model's figures are what the same measures give for something else." if labels else ""
    return "\n".join(["## Figures", "", *([said, ""] if said else []), *table, ""])


def _training_section(card: Card) -> str:
    options = {**({"epochs": card.epochs} if card.epochs is not None else {}), **card.options}
    if not options:
        return ""
    said = [f"- {name.replace('_', ' ')}: {_text(json.dumps(value))}" for name, value in options.items()]
    return "\n".join(["## Training", "", *said, ""])


def _text(text: str) -> str:
    """Text that Markdown and HTML show as it is."""
    plain = " ".join(str(text).split())
    escaped = "".join(f"\\{character}" if character in "\\`*_[]|#" else character for character in plain)
    return escaped.replace("&", "&amp;").replace("<", "&lt;")
