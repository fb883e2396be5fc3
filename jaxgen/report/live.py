"""The trained networks of a run, as data that a page computes with."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import torch_weights
from jaxgen.errors import InputError
from jaxgen.models import autoencoder, completion, vae
from jaxgen.report.folder import Run, read_json
from jaxgen.report.network import Network, UnsupportedError, evaluate, trace
from jaxgen.report.rows import complete
from jaxgen.report.thumbnails import originals

__all__ = ["Live", "live_model"]

Arrays = Sequence[np.ndarray]

_PROBES = 12  # pictures that are computed with both types of weights
_SMALLEST_CHANGE = 1 / 255  # that an 8-bit picture shows


class Live(NamedTuple):
    """Networks for a page.

    Attributes:
        about: The kind of model and its networks, JSON-able.
        weights: All arrays, one after the other, of one type, in base64.
    """

    about: dict[str, Any]
    weights: str


class _Model(NamedTuple):
    """What `live_model` returns."""

    about: dict[str, Any]
    weights: list[np.ndarray]
    pictures: Callable[[Arrays], Iterable[np.ndarray]]  # with such weights, from 0 to 1


def live_model(run: Run) -> Live:
    """The networks of a finished run.

    The weights are float16 where that changes none of a dozen pictures by more than 1/255.

    Raises:
        UnsupportedError: A page cannot compute them; the message says why.
    """
    model = _completion(run.cells or {run.name: run}) if _is_completion(run) else _single(run)
    from threadpoolctl import threadpool_limits

    # What overflows is seen in the pictures. One thread: these products are small, and training may want the others.
    with np.errstate(all="ignore"), threadpool_limits(1, user_api="blas"):
        half = [array.astype(np.float16).astype(np.float32) for array in model.weights]
        pairs = zip(model.pictures(model.weights), model.pictures(half), strict=True)
        change = max(float(np.abs(rounded - exact).max()) for exact, rounded in pairs)
    is_half = change <= _SMALLEST_CHANGE  # not for NaN
    dtype = np.dtype(np.float16 if is_half else np.float32)
    blob = b"".join(np.ascontiguousarray(array, dtype).tobytes() for array in model.weights)
    numbers = [str(number) for number in range(model.about.get("conditional", 0))]
    about = {
        **model.about,
        "model": run.model_name(str(run.best_model)) if (run.finished or {}).get("models") else None,
        "data": {"name": run.data_name, "classes": run.data.get("classes") or numbers},
        "weights": {"type": dtype.name, "sizes": [array.size for array in model.weights]},
        "change": change if is_half else None,
        "probes": _PROBES,
    }
    return Live(about, base64.b64encode(blob).decode())


def _load(run: Run) -> tuple[Any, Any]:
    """The network that a page shows: of a GAN the generator."""
    final = run.folder / "final"
    names = [f"{model}{name}" for model in ("", f"{run.best_model}.") for name in ("generator", "model")]
    path = next((path for name in names if (path := final / f"{name}.safetensors").exists()), None)
    if path is None:
        raise UnsupportedError("the run has no weights yet")
    try:
        module, variables, _ = torch_weights.load_file(path)
    except InputError as error:
        raise UnsupportedError("its network is not one of jaxgen's own") from error
    return module, variables


def _single(run: Run) -> _Model:
    module, variables = _load(run)
    rng = np.random.default_rng(0)
    if isinstance(module, vae.ConvVAE):
        return _vae(run, module, variables, rng)
    if isinstance(module, autoencoder.ConvAutoencoder):
        return _autoencoder(run, module, variables, rng)
    if hasattr(module, "prior"):
        return _generator(module, variables)
    raise UnsupportedError(f"it does not know what to do with a {type(module).__name__}")


def _generator(module: Any, variables: Any) -> _Model:
    network = _network(module, variables, "__call__", (module.latent,), classes=_classes(module))
    z = np.asarray(module.prior(jax.random.key(0), _PROBES))
    low, high = _range(network)
    about = {
        "kind": "generator",
        "networks": {"generate": _described(network, 0)},
        "latent": module.latent,
        "prior": "uniform" if z.min() >= 0 and z.max() <= 1 else "normal",
        "range": [low, high],
        "shape": _shape(network),
        "conditional": _classes(module),
    }

    def pictures(weights: Arrays) -> Iterable[np.ndarray]:
        (images,) = evaluate(network.with_weights(weights), *_with_labels(module, z))
        yield (images - low) / (high - low)

    return _Model(about, network.weights, pictures)


def _vae(run: Run, module: Any, variables: Any, rng: np.random.Generator) -> _Model:
    classes = _classes(module)
    decoder = _network(module, variables, "decode", (module.latent,), classes=classes)
    encoder = _network(module, variables, "encode", module.input_shape, classes=classes)
    count = len(decoder.weights)
    z = rng.normal(size=(_PROBES, module.latent)).astype(np.float32)
    points = read_json(run.folder / "final" / "latent_points.json")
    about = {
        "kind": "vae",
        "networks": {"decode": _described(decoder, 0), "encode": _described(encoder, count)},
        "latent": module.latent,
        "extent": run.options.get("extent") or 3.0,
        "means": points.get("means", {}) if isinstance(points, dict) else {},
        "range": _range(decoder),
        "shape": _shape(decoder),
        "conditional": classes,
        "originals": originals(run, 12),
    }

    def pictures(weights: Arrays) -> Iterable[np.ndarray]:
        decode = decoder.with_weights(weights[:count])
        (images,) = evaluate(decode, *_with_labels(module, z))
        yield images
        # The encoder's numbers are no picture: what is compared is what becomes of them.
        means, _ = evaluate(encoder.with_weights(weights[count:]), *_with_labels(module, images))
        yield evaluate(decode, *_with_labels(module, means))[0]

    return _Model(about, decoder.weights + encoder.weights, pictures)


def _autoencoder(run: Run, module: Any, variables: Any, rng: np.random.Generator) -> _Model:
    encoder = _network(module, variables, lambda module, x: module.enc(x), module.input_shape)
    code = encoder.steps[-1].shape[1:]
    if len(code) != 3:
        raise UnsupportedError(f"its code has the shape {code}, not height, width and channels")
    decoder = _network(module, variables, lambda module, x: module.dec(x), code)
    count = len(encoder.weights)
    images = rng.uniform(size=(_PROBES, *module.input_shape)).astype(np.float32)
    images[_PROBES // 2 :] = images[_PROBES // 2 :].mean((1, 2), keepdims=True)  # some are smooth
    about = {
        "kind": "autoencoder",
        "networks": {"encode": _described(encoder, 0), "decode": _described(decoder, count)},
        "code": code,
        "range": _range(decoder),
        "shape": module.input_shape,
        "originals": originals(run, 10),
    }

    def pictures(weights: Arrays) -> Iterable[np.ndarray]:
        (codes,) = evaluate(encoder.with_weights(weights[:count]), images)
        yield evaluate(decoder.with_weights(weights[count:]), codes)[0]

    return _Model(about, encoder.weights + decoder.weights, pictures)


def _is_completion(run: Run) -> bool:
    runs = list(run.cells.values()) or [run]
    return all(isinstance(one.options.get("sequence_length"), int) and "cell" in one.options for one in runs)


def _completion(runs: Mapping[str, Run]) -> _Model:
    """Both cells of a group, or one."""
    first = next(iter(runs.values()))
    height, width = first.data.get("size") or first.options["size"]
    length = first.options["sequence_length"]
    cells: list[dict[str, Any]] = []
    weights: list[np.ndarray] = []
    for run in runs.values():
        module, variables = _load(run)
        if not isinstance(module, completion.RowCompleter) or module.width != width:
            raise UnsupportedError("its networks are not one of jaxgen's own")
        params = variables["params"]
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        arrays = [params["rnn"][name] for name in names] + [params["fc"]["weight"], params["fc"]["bias"]]
        cells.append({"name": module.cell.upper(), "cell": module.cell, "hidden": module.hidden, "first": len(weights)})
        weights += [np.ascontiguousarray(np.asarray(array, np.float32).T) for array in arrays]
    about = {
        "kind": "completion",
        "cells": cells,
        "shape": [height, width, 1],
        "length": length,
        "originals": originals(first, 10),
    }
    images = np.random.default_rng(0).uniform(size=(_PROBES // 2, height, width)).astype(np.float32)

    def pictures(weights: Arrays) -> Iterable[np.ndarray]:
        for cell in cells:
            yield complete(cell["cell"], weights[cell["first"] : cell["first"] + 6], images, length)

    return _Model(about, weights, pictures)


def _network(module: Any, variables: Any, method: Any, shape: tuple[int, ...], *, classes: int = 0) -> Network:
    """A method of a module, of one image or latent vector, and a label where the module is conditional."""
    inputs = [jax.ShapeDtypeStruct((1, *shape), jnp.float32)]
    if classes:
        inputs.append(jax.ShapeDtypeStruct((1,), jnp.int32))
    return trace(lambda *x: module.apply(variables, *x, method=method), *inputs)


def _classes(module: Any) -> int:
    return int(getattr(module, "classes", 0))


def _with_labels(module: Any, x: np.ndarray) -> tuple[np.ndarray, ...]:
    classes = _classes(module)
    return (x, np.arange(len(x)) % classes) if classes else (x,)


def _range(network: Network) -> tuple[int, int]:
    """The range of a network's pictures: tanh ends at −1 and 1, everything else is taken as from 0 to 1."""
    return (-1, 1) if network.steps[-1].op == "tanh" else (0, 1)


def _shape(network: Network) -> tuple[int, ...]:
    return network.steps[-1].shape[1:]


def _described(network: Network, first: int) -> dict[str, Any]:
    """A network as JSON; each of its steps names its arrays by their place among all weights."""
    steps = []
    for step in network.steps:
        weights = list(range(first, first + len(step.weights)))
        first += len(step.weights)
        steps.append({"op": step.op, "inputs": step.inputs, "shape": step.shape, **step.attributes, "weights": weights})
    return {"inputs": network.inputs, "steps": steps, "outputs": network.outputs}
