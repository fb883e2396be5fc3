"""Export a trained model for elsewhere: StableHLO, ONNX, or a folder for a model hub.

Each function of the model becomes a file: `generate` and `sample` of a generator, `encode`, `decode` and `reconstruct`
of an autoencoder, `complete` of a recurrent network. A StableHLO program needs JAX alone, an ONNX model any of its
runtimes; both hold the weights and take batches of any size. The folder for a hub, `hub/`, holds weights,
configuration, a model card, figures and a picture.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jaxgen
from jaxgen import export, torch_weights
from jaxgen.commands._models import chosen_model
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.errors import InputError
from jaxgen.runs import Count, Layout, Several, option
from jaxgen.trained import current_weights, runs_below

_PICTURES = ("samples", "latent_grid", "completed", "reconstructed", "image")  # the first of these is shown


class Options(ModelOptions):
    """The options of this command."""

    to: Several[Literal["stablehlo", "onnx", "hub"]] = ("stablehlo",)
    """What to write: stablehlo, onnx, hub, or several of them."""
    out: Path | None = None
    """Folder for the files; None is export/ in the run's folder or, for a weights file, in the working folder."""
    count: Count = 64
    """How many images a StableHLO `sample` makes."""
    height: Count | None = None
    """Height of the images that `complete` takes; None is that of the model's data."""
    length: Count | None = None
    """Rows that `complete` keeps; None is as in training."""


class _Trained(NamedTuple):
    """What there is to export."""

    name: str
    networks: Mapping[str, tuple[Any, Any]]  # modules and variables by name
    about: Mapping[str, Any]  # what the weights' header says: `experiment`, `config`, `data`
    folder: Path
    epochs: int | None
    figures: Mapping[str, Any]
    picture: bytes | None


def run(options: Options) -> None:
    """Make all files, and then write them."""
    if not options.to:
        raise InputError(f"{option('to')}: name stablehlo, onnx, hub or several of them")
    trained = _of_file(options) if options.path.is_file() else _of_run(options)
    files: dict[str, bytes] = {}
    if "stablehlo" in options.to:
        files |= {f"{each.name}.stablehlo": export.stablehlo(each) for each in _functions(trained, options)}
    if "onnx" in options.to:
        about = {"jaxgen": jaxgen.__version__, **trained.about}
        files |= {
            f"{each.name}.onnx": export.onnx_model(each, about)
            for each in _functions(trained, options, unrolled=True)
            if each.name != "sample"  # ONNX has no random numbers that follow from a key
        }
    if "hub" in options.to:
        files |= {f"hub/{name}": content for name, content in _hub(trained).items()}
    write_files(options.out or trained.folder, files)


def _functions(trained: _Trained, options: Options, *, unrolled: bool = False) -> Iterator[export.Function]:
    height, _ = trained.about.get("data", {}).get("size", (None, None))
    length = trained.about.get("config", {}).get("sequence_length")
    if options.height is not None:
        height, length = options.height, None
    for name, (module, variables) in trained.networks.items():
        for function in export.functions_of(
            module,
            variables,
            count=options.count,
            height=height,
            length=options.length or length,
            unrolled=unrolled,
        ):
            yield function._replace(name=name) if function.name == "apply" else function


def _hub(trained: _Trained) -> dict[str, bytes]:
    modules = {name: module for name, (module, _) in trained.networks.items()}
    weights = {
        name: torch_weights.to_safetensors(
            torch_weights.flatten(variables), {**trained.about, "module": torch_weights.describe(module)}
        )
        for name, (module, variables) in trained.networks.items()
    }
    card = export.Card(
        trained.name,
        jaxgen.__version__,
        trained.about.get("data", {}),
        trained.about.get("config", {}),
        trained.epochs,
        trained.figures,
        trained.picture,
    )
    return export.hub_folder(modules, weights, card)


# ---- Finding the model ----


def _of_file(options: Options) -> _Trained:
    path = options.path
    _check_class(path, options)
    module, variables, about = torch_weights.load_file(path, options.module)
    return _Trained(path.stem, {path.stem: (module, variables)}, _public(about), Path("export"), None, {}, None)


def _of_run(options: Options) -> _Trained:
    path, layout = options.path, Layout(options.path)
    stored = layout.read_config()
    several = stored is None or runs_below(path)  # for jaxgen.load to refuse
    chosen = None if several else chosen_model(layout, options.model)
    files = [] if several else current_weights(layout)
    for file in files:
        _check_class(file, options)
    modules, variables, _ = jaxgen.load(path, module=options.module, model=chosen)
    if not isinstance(modules, Mapping):
        modules, variables = {"model": modules}, {"model": variables}
    networks = {name: (module, variables[name]) for name, module in modules.items()}
    about = _public(torch_weights.read_header(files[0]) or {})
    name = about["experiment"].rpartition(".")[2]
    finished = layout.read_finished() or {}
    picture = next((file for each in _PICTURES if (file := layout.final / f"{each}.png").is_file()), None)
    return _Trained(
        name,
        networks,
        about,
        path / "export",
        finished.get("epochs"),
        _figures(layout, finished, chosen),
        None if picture is None else picture.read_bytes(),
    )


def _check_class(file: Path, options: Options) -> None:
    """Raise InputError where the weights are of a class of the user's own, which cannot be found from here."""
    described = (torch_weights.read_header(file) or {}).get("module") or {}
    name = described.get("class", "jaxgen.")
    if options.module is None and not name.startswith("jaxgen."):
        raise InputError(
            f"{file}: is of {name}, a class of your own, which this command does not import; export it from Python "
            "with jaxgen.export.functions_of(module, variables)"
        )


def _public(about: Mapping[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("experiment", "config", "data") if about.get(name)}


def _figures(layout: Layout, finished: Mapping[str, Any], chosen: int | None) -> dict[str, Any]:
    """The figures of the end; of a run of several models, those of the chosen one."""
    file = layout.final / "figures.json"
    if not file.is_file():
        return {name: {"value": value} for name, value in finished.get("results", {}).items() if "/" not in name}
    figures: dict[str, Any] = json.loads(file.read_text())
    for figure in figures.values():
        values = figure.pop("values", None)
        figure.pop("standard_deviation", None)
        if values is not None and chosen is not None:
            figure["value"] = values[chosen]
    return figures
