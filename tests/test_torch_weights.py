"""PyTorch's files in and ours out: the same names, the same layouts, the same arithmetic; and nothing executed."""

import argparse
import json
import pickle
import struct
import sys
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from jaxgen import InputError, torch_weights
from jaxgen.models import autoencoder, completion, dcgan, vae
from tests.support import torch_recipes
from tests.support.parity import tensors_of


class Twins(NamedTuple):
    ours: nn.Module
    theirs: Callable[[], torch.nn.Module]
    shapes: list[tuple[int, ...]]  # of the inputs of both
    parameters: int


TWINS = {
    "lstm": Twins(
        completion.RowCompleter("lstm"), partial(torch_recipes.RowCompleter, "lstm"), [(16, 28, 56)], 335_928
    ),
    "gru": Twins(completion.RowCompleter("gru"), partial(torch_recipes.RowCompleter, "gru"), [(16, 28, 56)], 255_544),
    "autoencoder": Twins(autoencoder.ConvAutoencoder(), torch_recipes.ConvAutoencoder, [(16, 32, 32, 3)], 2_331),
    "mnist generator": Twins(dcgan.MnistGenerator(), torch_recipes.MnistGenerator, [(16, 62)], 6_640_193),
    "mnist discriminator": Twins(
        dcgan.MnistDiscriminator(), torch_recipes.MnistDiscriminator, [(16, 28, 28, 1)], 6_559_169
    ),
    "digits generator": Twins(dcgan.DigitsGenerator(), torch_recipes.DigitsGenerator, [(16, 64)], 55_905),
    "digits discriminator": Twins(
        dcgan.DigitsDiscriminator(), torch_recipes.DigitsDiscriminator, [(16, 8, 8, 1)], 5_201
    ),
    "vae": Twins(vae.ConvVAE(2), torch_recipes.ConvVAE, [(16, 32, 32, 1), (16, 2)], 5_228_743),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def inputs(twins: Twins) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(size=shape).astype(np.float32) for shape in twins.shapes]


def after_some_training(module: torch.nn.Module) -> torch.nn.Module:
    """The module with scales, shifts and running statistics of batch norm that differ from the initial ones."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for tensor, low, high in ((layer.weight, 0.5, 2), (layer.bias, -1, 1), (layer.running_mean, -1, 1)):
                torch.nn.init.uniform_(tensor, low, high)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            layer.num_batches_tracked.fill_(7)
    return module


def as_torch(x: np.ndarray) -> torch.Tensor:
    """Images as PyTorch has them.

    They are copied, since images of one channel would keep the strides of channels last, for which PyTorch 2.13 has
    another batch norm, wrong by 1e-4 in float32 where most of an image is flat.
    """
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x)


@partial(jax.jit, static_argnums=(0, 3))
def apply(module: nn.Module, variables: Any, given: list[jax.Array], train: bool) -> tuple[Any, Any]:
    mode = {"train": True} if train else {}
    return module.apply(variables, *given, **mode, mutable=["batch_stats"])


def assert_same_outputs(twins: Twins, variables: Any, reference: torch.nn.Module, train: bool) -> None:
    """Equal outputs, and in training mode equal running statistics afterwards."""
    given = inputs(twins)
    normalised = "batch_stats" in variables
    outputs, moved = apply(twins.ours, variables, given, train and normalised)
    if "discriminator" in type(twins.ours).__name__.lower():
        outputs = jax.nn.sigmoid(outputs)[:, None]  # ours are logits
    with torch.no_grad():
        wanted = reference.train(train)(*map(as_torch, given))
    for ours, theirs in zip(jax.tree.leaves(outputs), jax.tree.leaves(wanted), strict=True):
        ours = np.moveaxis(ours, -1, 1) if ours.ndim == 4 else ours
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5 * float(theirs.abs().max()))
    if normalised:
        for key, tensor in torch_weights.flatten({"batch_stats": moved["batch_stats"]}).items():
            theirs = reference.state_dict()[key]
            if key.endswith("num_batches_tracked"):
                assert tensor == theirs
            np.testing.assert_allclose(tensor, theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()), err_msg=key)


@pytest.mark.parametrize("name", TWINS)
def test_pytorch_files_load_and_give_the_same_outputs(name: str, tmp_path: Path) -> None:
    twins = TWINS[name]
    reference = after_some_training(twins.theirs())
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    safetensors.torch.save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    loaded, also = (torch_weights.load(twins.ours, tmp_path / f"weights.{suffix}") for suffix in ("pth", "safetensors"))
    assert_identical(loaded, also)
    for train in (False, True):
        assert_same_outputs(twins, loaded, reference, train)


@pytest.mark.parametrize("name", TWINS)
def test_saved_weights_load_strictly_in_pytorch(name: str, tmp_path: Path) -> None:
    twins = TWINS[name]
    variables = torch_weights.load(twins.ours, tensors_of(after_some_training(twins.theirs())))
    torch_weights.save(twins.ours, variables, tmp_path / "weights.safetensors")
    written, reference = safetensors.torch.load_file(tmp_path / "weights.safetensors"), twins.theirs()
    for key, tensor in reference.state_dict().items():
        assert (written[key].shape, written[key].dtype) == (tensor.shape, tensor.dtype)
    reference.load_state_dict(written, strict=True)
    for train in (False, True):
        assert_same_outputs(twins, variables, reference, train)


@pytest.mark.parametrize("name", TWINS)
def test_parameter_counts(name: str) -> None:
    variables = torch_weights.template(TWINS[name].ours)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == TWINS[name].parameters


def assert_identical(ours: Any, others: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(others)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# --- Round trips ------------------------------------------------------------------------------------------------------

SMALL = completion.RowCompleter("gru", hidden=4, width=3)
NORMALISED = dcgan.MnistDiscriminator()


@pytest.fixture
def small() -> torch.nn.Module:
    return torch_recipes.RowCompleter("gru", hidden=4, width=3)


def assert_holds(variables: Any, reference: torch.nn.Module) -> None:
    assert_identical(variables, torch_weights.load(SMALL, tensors_of(reference)))


def random_tensors(module: nn.Module) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(size=shape).astype(np.float32) for name, shape in torch_weights.expected(module).items()}


def test_a_round_trip_loses_no_bit(tmp_path: Path) -> None:
    variables = torch_weights.load(NORMALISED, tensors_of(after_some_training(torch_recipes.MnistDiscriminator())))
    torch_weights.save(NORMALISED, variables, tmp_path / "weights.safetensors")
    assert_identical(torch_weights.load(NORMALISED, tmp_path / "weights.safetensors"), variables)
    assert_identical(torch_weights.load(NORMALISED, torch_weights.state_dict(NORMALISED, variables)), variables)


def test_a_round_trip_in_float64(float64: None, small: torch.nn.Module, tmp_path: Path) -> None:
    variables = torch_weights.load(SMALL, tensors_of(small.double()))
    assert variables["params"]["fc"]["weight"].dtype == jnp.float64
    torch_weights.save(SMALL, variables, tmp_path / "weights.safetensors")
    assert_identical(torch_weights.load(SMALL, tmp_path / "weights.safetensors"), variables)


def test_loaded_variables_do_not_share_memory_with_their_source(small: torch.nn.Module) -> None:
    variables = torch_weights.load(SMALL, {name: tensor.numpy() for name, tensor in small.state_dict().items()})
    before = jax.tree.map(np.array, variables)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.fill_(9)
    assert_identical(jax.tree.map(np.array, variables), before)


def test_variables_of_another_module_are_not_written(tmp_path: Path) -> None:
    other = completion.RowCompleter("lstm", hidden=4, width=3)
    variables = torch_weights.load(other, random_tensors(other))
    with pytest.raises(InputError, match=r"variables: rnn\.\w+ has shape"):
        torch_weights.save(SMALL, variables, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_module_without_an_input_shape_is_refused() -> None:
    with pytest.raises(InputError, match="Encoder has no input_shape"):
        torch_weights.load(autoencoder.Encoder(), {})


# --- Which tensors are the model's ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights, _: {"state_dict": weights, "epoch": 3},
        lambda weights, _: {"epoch": 3, "model": {f"module.{name}": tensor for name, tensor in weights.items()}},
        lambda weights, moments: {"optimizer": moments, "model": weights},
        lambda weights, moments: [{"other": torch.ones(3)}, weights],
        lambda weights, moments: (moments, {"a": {"b": [weights]}}),
        lambda weights, _: {**weights, "epoch": 3, "history": [0.1, 0.2]},
        lambda weights, _: {"model": weights, "a copy": {name: tensor.clone() for name, tensor in weights.items()}},
    ],
    ids=["state_dict", "model, DataParallel", "behind the optimiser's", "list", "nested", "beside numbers", "copy"],
)
def test_a_state_dict_is_found_in_a_checkpoint(
    wrap: Callable[..., Any], small: torch.nn.Module, tmp_path: Path
) -> None:
    optimizer = torch_recipes.completion_optimizer(small)
    torch_recipes.completion_step(small, optimizer, torch.rand(2, 5, 3), torch.rand(2, 3))
    torch.save(wrap(small.state_dict(), optimizer.state_dict()), tmp_path / "weights.pth")
    assert_holds(torch_weights.load(SMALL, tmp_path / "weights.pth"), small)


def test_a_checkpoint_that_contains_itself_is_read(small: torch.nn.Module, tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": small.state_dict()}
    content["self"] = content
    torch.save(content, tmp_path / "weights.pth")
    assert_holds(torch_weights.load(SMALL, tmp_path / "weights.pth"), small)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "_orig_mod.module.",
        "module._orig_mod.",
        "model.",
        "generator.",
        "a.b.",
        "model._orig_mod.",
    ],
)
def test_a_prefix_is_removed(prefix: str, suffix: str, small: torch.nn.Module, tmp_path: Path) -> None:
    weights = {f"{prefix}{name}": tensor for name, tensor in small.state_dict().items()}
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(weights, tmp_path / f"weights.{suffix}")
    assert_holds(torch_weights.load(SMALL, tmp_path / f"weights.{suffix}"), small)


def test_wrappers_are_removed_inside_a_name(small: torch.nn.Module) -> None:
    """As where `torch.compile` was applied to one layer."""
    weights = {name.replace("rnn.", "rnn._orig_mod."): tensor for name, tensor in small.state_dict().items()}
    assert_holds(torch_weights.load(SMALL, weights), small)


class Outer(nn.Module):
    """A module with a part that is itself called "module"."""

    input_shape: tuple[int, ...] = (3,)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Scaled(name="module")(x)


def test_a_model_may_have_a_part_called_module() -> None:
    for name in ("module.weight", "model.module.weight"):
        variables = torch_weights.load(Outer(), {name: np.arange(3)})
        np.testing.assert_array_equal(variables["params"]["module"]["weight"], np.arange(3))


def test_a_name_with_and_without_a_wrapper_is_not_guessed(small: torch.nn.Module) -> None:
    weights = {**small.state_dict(), "module.fc.bias": torch.ones(3)}
    with pytest.raises(InputError, match=r"tensor module\.fc\.bias is not the model's"):
        torch_weights.load(SMALL, weights)


def test_an_empty_state_dict_is_refused() -> None:
    with pytest.raises(InputError, match=r"state_dict: holds no tensors, the model has fc\.bias"):
        torch_weights.load(SMALL, {})


def test_each_network_is_found_in_a_file_of_both(tmp_path: Path) -> None:
    """As in a Lightning checkpoint."""
    references = {"generator": torch_recipes.DigitsGenerator(), "discriminator": torch_recipes.DigitsDiscriminator()}
    modules = {"generator": dcgan.DigitsGenerator(), "discriminator": dcgan.DigitsDiscriminator()}
    weights = {
        f"{network}.{name}": tensor
        for network, reference in references.items()
        for name, tensor in reference.state_dict().items()
    }
    torch.save({"state_dict": weights, "epoch": 1}, tmp_path / "last.ckpt")
    for network, variables in torch_weights.load_all(modules, [tmp_path / "last.ckpt"] * 2).items():
        assert_identical(variables, torch_weights.load(modules[network], tensors_of(references[network])))


@pytest.mark.parametrize(
    "extra",
    [{"n_averaged": torch.tensor(3)}, {"total_ops": torch.zeros(1), "fc.total_params": torch.zeros(1)}],
    ids=["AveragedModel", "thop"],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_is_no_weight_is_ignored(prefix: str, extra: dict[str, torch.Tensor], small: torch.nn.Module) -> None:
    weights = {f"{prefix}{name}": tensor for name, tensor in small.state_dict().items()}
    assert_holds(torch_weights.load(SMALL, weights | extra), small)


def test_other_foreign_tensors_are_refused(small: torch.nn.Module) -> None:
    """A tensor of a weight's size is not ignored, whatever its name."""
    with pytest.raises(InputError, match=r"tensor fc\.total_ops is not the model's"):
        torch_weights.load(SMALL, {**small.state_dict(), "fc.total_ops": torch.zeros(3, 3)})


def test_two_different_sets_of_the_models_tensors_are_refused(small: torch.nn.Module, tmp_path: Path) -> None:
    other = {name: tensor + 1 for name, tensor in small.state_dict().items()}
    torch.save({"model": small.state_dict(), "ema": other}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"two different sets .* at \['model'\] and at \['ema'\]"):
        torch_weights.load(SMALL, tmp_path / "weights.pth")
    pair = {f"{prefix}{name}": tensor for prefix in ("a.", "b.") for name, tensor in other.items()}
    assert_identical(torch_weights.load(SMALL, pair), torch_weights.load(SMALL, other))
    pair["b.fc.bias"] = pair["b.fc.bias"] + 1
    with pytest.raises(InputError, match=r"two different sets .* at a\. and at b\."):
        torch_weights.load(SMALL, pair)


def test_of_two_networks_with_equal_names_the_shapes_decide(small: torch.nn.Module) -> None:
    larger = torch_recipes.RowCompleter("gru", hidden=5, width=3)
    assert_holds(torch_weights.load(SMALL, {"teacher": larger.state_dict(), "student": small.state_dict()}), small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("rnn.bias_hh_l0"), r"weights\.safetensors: no tensor rnn\.bias_hh_l0"),
        (lambda weights: weights.update({"fc.scale": torch.ones(3)}), r"tensor fc\.scale is not the model's"),
        (
            lambda weights: weights.update({"fc.weight": torch.ones(4, 3)}),
            r"fc\.weight has shape \[4, 3\], the model's is \[3, 4\]",
        ),
        (lambda weights: weights.clear(), r"no tensor [a-z.]+; it holds none"),
    ],
    ids=["missing", "foreign", "shape", "none"],
)
def test_the_first_wrong_tensor_is_named(
    change: Callable[..., Any], message: str, small: torch.nn.Module, tmp_path: Path
) -> None:
    weights = dict(small.state_dict())
    change(weights)
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=message):
        torch_weights.load(SMALL, tmp_path / "weights.safetensors")


def test_an_error_under_a_prefix_names_tensors_of_the_file(small: torch.nn.Module) -> None:
    weights = {f"_orig_mod.model.{name}": tensor for name, tensor in small.state_dict().items()}
    del weights["_orig_mod.model.fc.bias"]
    with pytest.raises(InputError, match=r"no tensor model\.fc\.bias; it holds _orig_mod\.model\.fc\.weight, "):
        torch_weights.load(SMALL, weights)
    weights["_orig_mod.model.fc.bias"] = torch.ones(2)
    with pytest.raises(InputError, match=r": _orig_mod\.model\.fc\.bias has shape \[2\]"):
        torch_weights.load(SMALL, weights)


def test_missing_batch_norm_statistics_are_explained() -> None:
    """PyTorch's `load_state_dict(strict=True)` refuses such a file too, and takes one without counters."""
    reference = torch_recipes.MnistDiscriminator()
    parameters = {
        name: tensor for name, tensor in reference.state_dict().items() if name in dict(reference.named_parameters())
    }
    with pytest.raises(RuntimeError, match=r"Missing key.*running_mean"):
        torch_recipes.MnistDiscriminator().load_state_dict(dict(parameters), strict=True)
    with pytest.raises(InputError, match=r"no tensor conv\.3\.running_mean \(batch norm's.*state_dict\(\)") as refused:
        torch_weights.load(NORMALISED, parameters)
    assert "num_batches_tracked" not in str(refused.value)  # it is not in the file
    with_statistics = {name: tensor for name, tensor in reference.state_dict().items() if "tracked" not in name}
    torch_recipes.MnistDiscriminator().load_state_dict(with_statistics, strict=True)
    torch_weights.load(NORMALISED, with_statistics)


def test_names_from_a_file_cannot_break_a_message(small: torch.nn.Module) -> None:
    with pytest.raises(InputError) as refused:
        torch_weights.load(SMALL, {**small.state_dict(), "\x1b[2J\n" + "x" * 10_000: torch.ones(1)})
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


# --- Values -----------------------------------------------------------------------------------------------------------

WHOLE = {name: np.round(4 * tensor - 2) for name, tensor in random_tensors(SMALL).items()}  # exact in every type


STRIDED = {
    "float16": lambda tensor: tensor.half(),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "float8_e4m3fn": lambda tensor: tensor.to(torch.float8_e4m3fn),
    "float8_e5m2": lambda tensor: tensor.to(torch.float8_e5m2),
    "float64": lambda tensor: tensor.double(),
    "int16": lambda tensor: tensor.to(torch.int16),
    "requires grad": lambda tensor: tensor.clone().requires_grad_(),
    "parameter": torch.nn.Parameter,
}
OTHERS = {  # which .safetensors does not have
    "transposed": lambda tensor: tensor.t().contiguous().t(),
    "sparse": lambda tensor: tensor.to_sparse(),
    "sparse rows": lambda tensor: tensor.to_sparse_csr(),
    "quantised": lambda tensor: torch.quantize_per_tensor(tensor, 0.5, 10, torch.quint8),
    "negated view": lambda tensor: torch._neg_view(-tensor),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # PyTorch's, of quantised and sparse
@pytest.mark.parametrize(
    ("kind", "source"),
    [
        *((kind, source) for kind in STRIDED for source in ("zip", "safetensors", "mapping")),
        *((kind, source) for kind in OTHERS for source in ("zip", "mapping")),
    ],
)
def test_other_types_are_converted_exactly(kind: str, source: str, tmp_path: Path) -> None:
    weights: dict[str, Any] = {name: torch.tensor(tensor) for name, tensor in WHOLE.items()}
    weights["fc.weight"] = (STRIDED | OTHERS)[kind](weights["fc.weight"])
    if source != "mapping":
        write_file(source, weights, tmp_path / "weights")
    loaded = torch_weights.load(SMALL, weights if source == "mapping" else tmp_path / "weights")
    assert_identical(loaded, torch_weights.load(SMALL, WHOLE))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("saved", [True, False])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.ones(3, 4, device="meta"), r"fc\.weight is on PyTorch's meta device"),
        (lambda: torch.ones(3, 4, dtype=torch.complex64).conj(), r"fc\.weight holds complex numbers"),
        (lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(4)]), r"no tensor fc\.weight"),
        (
            lambda: torch.zeros(3, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
            r"fc\.weight has the type .*float4",
        ),
        (lambda: torch.full((3, 4), torch.nan), r"fc\.weight has values that are NaN or infinite"),
        (lambda: torch.full((3, 4), -torch.inf), r"fc\.weight has values that are NaN or infinite"),
        (
            lambda: torch.full((3, 4), 1e300, dtype=torch.float64),
            r"fc\.weight has values that are NaN or infinite in float32",
        ),
    ],
    ids=["meta", "complex", "nested", "float4", "NaN", "infinite", "too large"],
)
def test_values_that_cannot_be_converted_are_refused(
    make: Callable[[], torch.Tensor], message: str, saved: bool, small: torch.nn.Module, tmp_path: Path
) -> None:
    weights = {**small.state_dict(), "fc.weight": make()}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        torch_weights.load(SMALL, tmp_path / "weights.pth" if saved else weights)


def test_strings_are_no_weights() -> None:
    with pytest.raises(InputError, match=r"fc\.weight has the type <U1, which cannot be converted"):
        torch_weights.load(SMALL, {**WHOLE, "fc.weight": np.full((3, 4), "a")})


@pytest.mark.parametrize("count", [-1, 2**31, np.nan])
def test_a_counter_that_is_no_count_is_refused(count: float) -> None:
    tensors = {**random_tensors(NORMALISED), "conv.3.num_batches_tracked": np.array(count)}
    with pytest.raises(InputError, match=r"conv\.3\.num_batches_tracked is .* not a count"):
        torch_weights.load(NORMALISED, tensors)


def test_a_file_of_2018_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the legacy format, without the counters of batches, its tensors tagged for CUDA."""
    reference = after_some_training(torch_recipes.MnistDiscriminator())
    weights = {name: tensor for name, tensor in reference.state_dict().items() if "num_batches_tracked" not in name}
    save_for_cuda(monkeypatch, weights, tmp_path / "weights.pth", legacy=True)
    variables = torch_weights.load(NORMALISED, tmp_path / "weights.pth")
    for name, tensor in torch_weights.state_dict(NORMALISED, variables).items():
        np.testing.assert_array_equal(tensor, weights.get(name, 0))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_file_from_a_gpu_loads(
    legacy: bool, small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_for_cuda(monkeypatch, small.state_dict(), tmp_path / "weights.pth", legacy)
    assert_holds(torch_weights.load(SMALL, tmp_path / "weights.pth"), small)


def save_for_cuda(monkeypatch: pytest.MonkeyPatch, weights: Any, path: Path, legacy: bool) -> None:
    """As if the tensors were on a GPU: every storage in the file says where it was."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)


# --- Files ------------------------------------------------------------------------------------------------------------


def write_file(kind: str, weights: dict[str, Any], path: Path) -> None:
    if kind == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize(
    "name", ["weights", "weights.bin", "weights.ckpt", "weights.pth.tar", "w.safetensors", "w.pth"]
)
def test_the_content_decides_what_a_file_is(name: str, kind: str, small: torch.nn.Module, tmp_path: Path) -> None:
    write_file(kind, small.state_dict(), tmp_path / name)
    assert_holds(torch_weights.load(SMALL, tmp_path / name), small)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    "beside",
    [
        np.float64(0.1),
        np.int64(3),
        np.bool_(True),
        np.arange(3),
        np.array(["a"]),
        np.array([[1], "a"], dtype=object),
        np.random.RandomState(0).get_state(),
        argparse.Namespace(lr=0.1, seed=np.int64(3)),
        Path("data"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_objects_beside_the_weights_are_ignored(
    beside: Any, legacy: bool, small: torch.nn.Module, tmp_path: Path
) -> None:
    path, allowed = tmp_path / "weights.pth", set(torch.serialization.get_safe_globals())
    torch.save({"model": small.state_dict(), "beside": beside}, path, _use_new_zipfile_serialization=not legacy)
    assert_holds(torch_weights.load(SMALL, path), small)
    if legacy and b"numpy._core" in path.read_bytes():
        path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))  # as NumPy 1 wrote it
        assert_holds(torch_weights.load(SMALL, path), small)
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_a_pickled_module_is_refused_with_the_remedy(small: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(small, tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"whole\.pth: not a plain state_dict; .*torch\.save\(model\.state_dict\(\)"):
        torch_weights.load(SMALL, tmp_path / "whole.pth")


class Hostile:
    """Its pickle makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_hostile_pickle_is_not_run(legacy: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"fc.weight": Hostile(tmp_path / "ran")}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match="not a plain state_dict"):
        torch_weights.load(SMALL, path)
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}])
def test_a_file_without_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="holds no state_dict"):
        torch_weights.load(SMALL, tmp_path / "weights.pth")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(kind: str, small: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_file(kind, small.state_dict(), path)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 20, dtype=int):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=str(path)):
            torch_weights.load(SMALL, path)


def test_an_archive_with_a_damaged_directory_is_refused(small: torch.nn.Module, tmp_path: Path) -> None:
    write_file("zip", small.state_dict(), tmp_path / "weights")
    content = bytearray((tmp_path / "weights").read_bytes())
    place = content.index(b"PK\x06\x07")  # how many disks the archive spans stands 16 bytes further
    content[place + 16 : place + 20] = struct.pack("<I", 2)
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(InputError, match=r"weights: not a plain state_dict \(zipfiles that span multiple disks"):
        torch_weights.load(SMALL, tmp_path / "weights")


@pytest.mark.parametrize("content", [b"", b"weights", b"\x89PNG\r\n\x1a\n" * 9, b"\xff" * 8 + b"{}"])
def test_another_kind_of_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(content)
    for read in (partial(torch_weights.load, SMALL), torch_weights.load_file, torch_weights.read_header):
        with pytest.raises(InputError, match=r"weights\.pth: not a readable \.safetensors file, and not a plain state"):
            read(tmp_path / "weights.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file"):
        torch_weights.load(SMALL, tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match=f"{tmp_path}: not a file"):
        torch_weights.load(SMALL, tmp_path)
    with pytest.raises(InputError, match=r"xxx…: cannot be read \("):
        torch_weights.load(SMALL, "x" * 5000)


def safetensors_file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 10**8) + b"{}",
        safetensors_file(b"{{{{"),
        safetensors_file(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        safetensors_file({"a": entry("F32", [2], 0, 800)}, b"12345678"),
        safetensors_file({"a": entry("F32", [10**12], 0, 4 * 10**12)}, b"12345678"),
        safetensors_file({"a": entry("F32", [10**12], 0, 8)}, b"12345678"),
        safetensors_file({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 0, 8)}, b"12345678"),
        safetensors_file({"a": entry("X9", [2], 0, 8)}, b"12345678"),
        safetensors_file({"a": entry("F32", [-2], 0, 8)}, b"12345678"),
        safetensors_file({"a": 3}),
        safetensors_file({"__metadata__": {"jaxgen": "no JSON"}}),
        safetensors_file({"__metadata__": {"jaxgen": "[1]"}}),
        safetensors_file({"__metadata__": {"jaxgen": "[" * 100_000}}),
    ],
    ids=range(13),
)
def test_a_safetensors_file_with_a_wrong_header_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    tracemalloc.start()
    try:
        for read in (torch_weights.load_file, torch_weights.read_header):
            with pytest.raises(InputError, match=r"w\.safetensors: not a readable \.safetensors file"):
                read(tmp_path / "w.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_type_without_counterpart_in_numpy_is_refused(tmp_path: Path) -> None:
    header, offset = {}, 0
    for name, tensor in WHOLE.items():
        dtype, size = ("F4", tensor.size // 2) if name == "fc.weight" else ("F32", tensor.nbytes)
        header[name] = entry(dtype, list(tensor.shape), offset, offset + size)
        offset += size
    (tmp_path / "w.safetensors").write_bytes(safetensors_file(header, bytes(offset)))
    with pytest.raises(InputError, match=r"fc\.weight has the type F4, which cannot be converted"):
        torch_weights.load(SMALL, tmp_path / "w.safetensors")


def test_entries_larger_than_the_file_are_refused(small: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(tmp_path / "weights.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in good.namelist():
            packed.writestr(name.replace("good", "weights"), good.read(name) + bytes(10**6))
    with pytest.raises(
        InputError, match=r"weights\.pth: its entries claim [0-9,]+ bytes, more than the whole file has"
    ):
        torch_weights.load(SMALL, tmp_path / "weights.pth")


class Rebuilt:
    """A tensor whose pickle claims another shape than its storage has."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments = (torch.ones(4).storage(), 0, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        ((3, 4), (4, 1), "not a plain state_dict"),
        ((10**7, 10**7), (10**7, 1), "not a plain state_dict"),
        ((10**7, 10**7), (0, 0), r"fc\.weight has shape \[10000000, 10000000\]"),
    ],
)
def test_a_tensor_larger_than_its_storage_is_refused(
    size: tuple[int, ...], stride: tuple[int, ...], message: str, legacy: bool, small: torch.nn.Module, tmp_path: Path
) -> None:
    weights = {**small.state_dict(), "fc.weight": Rebuilt(size, stride)}
    torch.save(weights, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=message):
        torch_weights.load(SMALL, tmp_path / "weights.pth")


def test_a_storage_larger_than_its_entry_is_refused(small: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(tmp_path / "weights.pth", "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("data.pkl"):
                count = WHOLE["fc.weight"].size
                place = content.index(b"K" + bytes([count]), content.index(b"fc.weight"))
                content = content[:place] + pickle.BININT + struct.pack("<i", 2**31 - 1) + content[place + 2 :]
            bad.writestr(name.replace("good", "weights"), content)
    with pytest.raises(InputError, match="not a plain state_dict"):
        torch_weights.load(SMALL, tmp_path / "weights.pth")


def test_without_pytorch_the_error_points_to_safetensors(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("zip", "safetensors"):
        write_file(kind, small.state_dict(), tmp_path / f"weights.{kind}")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"needs PyTorch.*safetensors"):
        torch_weights.load(SMALL, tmp_path / "weights.zip")
    assert_holds(torch_weights.load(SMALL, tmp_path / "weights.safetensors"), small)


def test_pytorchs_warnings_about_a_damaged_file_are_not_shown(tmp_path: Path) -> None:
    """It warns of a pickle protocol that it does not know."""
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content[:2] == b"\x80\x02"
    path.write_bytes(b"\x80\x22" + content[2:])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        torch_weights.files.read(path)
    assert not shown
    with pytest.warns(UserWarning, match="pickle protocol"):
        torch.load(path, weights_only=True)


# --- Which module a file belongs to -----------------------------------------------------------------------------------

MODULES = [
    completion.RowCompleter("lstm", hidden=9, width=7),
    SMALL,
    autoencoder.ConvAutoencoder(),
    autoencoder.ConvAutoencoder(autoencoder.Encoder(), autoencoder.Decoder(1), input_shape=(32, 32, 1)),
    autoencoder.ConvAutoencoder(encoder=autoencoder.Encoder(), decoder=autoencoder.Decoder(1), input_shape=(28, 28, 1)),
    dcgan.MnistGenerator(latent=5),
    dcgan.MnistDiscriminator(),
    dcgan.DigitsGenerator(),
    dcgan.DigitsDiscriminator(),
    vae.ConvVAE(latent=7),
]


class Scaled(nn.Module):
    """A user's own module."""

    activation: Callable[..., Any] = nn.relu
    scale: Any = 1.0
    inner: nn.Module | None = None
    default: Callable[..., Any] = lambda x: x
    input_shape: tuple[int, ...] = (3,)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.activation(x * self.scale * self.param("weight", nn.initializers.ones, (3,)))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_a_described_module_is_built_again(module: nn.Module) -> None:
    description = torch_weights.describe(module)
    assert torch_weights.build(json.loads(json.dumps(description))) == module


def test_a_description_is_readable() -> None:
    assert torch_weights.describe(MODULES[4]) == {
        "class": "jaxgen.models.autoencoder.ConvAutoencoder",
        "fields": {
            "encoder": {"class": "jaxgen.models.autoencoder.Encoder", "fields": {}},
            "decoder": {"class": "jaxgen.models.autoencoder.Decoder", "fields": {"channels": 1}},
            "input_shape": [28, 28, 1],
        },
    }


def test_a_module_of_the_users_is_described_but_not_built() -> None:
    description = torch_weights.describe(Scaled(jnp.tanh, np.float32(2), Scaled()))
    assert description["class"] == f"{__name__}.Scaled"
    assert description["fields"]["activation"]["name"].endswith(".tanh")
    assert description["fields"]["scale"] == 2.0
    assert "default" not in description["fields"]  # its default cannot be named and need not be
    with pytest.raises(InputError, match=r"names the class .*Scaled, which is not jaxgen's; in Python, give"):
        torch_weights.build(description)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation": lambda x: x}, r"Scaled\.activation: a weights file cannot hold <function"),
        ({"activation": partial(nn.relu)}, r"Scaled\.activation: .* cannot hold functools\.partial"),
        ({"scale": np.ones(3)}, r"Scaled\.scale: .* cannot hold array"),
        ({"scale": jnp.ones(())}, r"Scaled\.scale: "),
        ({"scale": float("nan")}, r"Scaled\.scale: .* cannot hold nan"),
        ({"scale": (1, {"a": {2}})}, r"Scaled\.scale\[1\]\['a'\]: .* cannot hold \{2\}"),
        ({"inner": Scaled(scale=object())}, r"Scaled\.inner\.scale: "),
    ],
    ids=["lambda", "partial", "array", "scalar array", "NaN", "nested", "module"],
)
def test_a_field_that_cannot_be_named_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        torch_weights.describe(Scaled(**fields))


def test_a_class_inside_a_function_is_refused() -> None:
    class Local(nn.Module):
        pass

    with pytest.raises(InputError, match="cannot name the class Local, which is defined inside a function"):
        torch_weights.describe(Local())


@pytest.mark.parametrize("module", MODULES, ids=lambda module: type(module).__name__)
def test_a_saved_file_says_which_module_it_belongs_to(module: nn.Module, tmp_path: Path) -> None:
    variables = torch_weights.load(module, random_tensors(module))
    path = tmp_path / "model.safetensors"
    torch_weights.save(module, variables, path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == "pt"
    assert torch_weights.read_header(path) == {"module": torch_weights.describe(module)}
    loaded = torch_weights.load_file(path)
    assert loaded.module == module
    assert loaded.about == {"module": torch_weights.describe(module)}
    assert_identical(loaded.variables, variables)


def test_a_module_of_the_users_is_given(tmp_path: Path) -> None:
    for module in (Scaled(), Scaled(activation=lambda x: x)):  # the second cannot be described
        torch_weights.save(module, {"params": {"weight": jnp.arange(3.0)}}, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=r"model\.safetensors: .*; in Python, give the module itself: module="):
            torch_weights.load_file(tmp_path / "model.safetensors")
        loaded = torch_weights.load_file(tmp_path / "model.safetensors", module)
        assert loaded.module is module
        np.testing.assert_array_equal(loaded.variables["params"]["weight"], np.arange(3))


def test_equal_weights_give_equal_bytes() -> None:
    about = {"module": torch_weights.describe(SMALL), "data": "digits", "epochs": 3}
    files = {torch_weights.to_safetensors(WHOLE, about) for _ in range(20)}
    files |= {torch_weights.to_safetensors(dict(reversed(WHOLE.items())), dict(reversed(about.items())))}
    assert len(files) == 1
    (content,) = files
    assert int.from_bytes(content[:8], "little") % 8 == 0  # so that tensors are aligned
    for name, tensor in safetensors.numpy.load(content).items():
        np.testing.assert_array_equal(tensor, WHOLE[name])


def test_a_file_without_a_header_has_none(small: torch.nn.Module, tmp_path: Path) -> None:
    for kind in ("safetensors", "zip", "legacy"):
        write_file(kind, small.state_dict(), tmp_path / "weights")
        assert torch_weights.read_header(tmp_path / "weights") is None


@pytest.mark.parametrize("name", TWINS)
def test_a_tutorials_file_is_recognised(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": TWINS[name].theirs().state_dict()}, tmp_path / "weights.pth")
    loaded = torch_weights.load_file(tmp_path / "weights.pth")
    assert loaded.module == TWINS[name].ours
    assert loaded.about == {}


@pytest.mark.parametrize(
    "module",
    [
        completion.RowCompleter("lstm", hidden=9, width=7),
        SMALL,
        autoencoder.ConvAutoencoder(decoder=autoencoder.Decoder(1), input_shape=(32, 32, 1)),
        dcgan.MnistGenerator(latent=5),
        dcgan.DigitsGenerator(latent=3),
        vae.ConvVAE(latent=3),
    ],
    ids=lambda module: type(module).__name__,
)
def test_fields_follow_from_the_shapes(module: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(torch_weights.to_safetensors(random_tensors(module)))
    assert torch_weights.load_file(tmp_path / "weights").module == module


def test_fields_that_no_shape_depends_on_are_the_defaults(tmp_path: Path) -> None:
    tensors = random_tensors(autoencoder.ConvAutoencoder(input_shape=(64, 48, 3)))
    (tmp_path / "weights").write_bytes(torch_weights.to_safetensors(tensors))
    assert torch_weights.load_file(tmp_path / "weights").module == autoencoder.ConvAutoencoder(input_shape=(32, 32, 3))


def test_a_file_of_several_or_unknown_modules_is_refused(tmp_path: Path) -> None:
    both = {"G": torch_recipes.DigitsGenerator().state_dict(), "D": torch_recipes.DigitsDiscriminator().state_dict()}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(InputError, match=r"several .*\(dcgan.DigitsGenerator, dcgan.DigitsDiscriminator\).* module="):
        torch_weights.load_file(tmp_path / "both.pth")
    loaded = torch_weights.load_file(tmp_path / "both.pth", dcgan.DigitsGenerator())
    assert_identical(loaded.variables, torch_weights.load(dcgan.DigitsGenerator(), both["G"]))
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"not those of a module in jaxgen\.models; .* module="):
        torch_weights.load_file(tmp_path / "other.pth")


# --- Hostile headers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "planted.Net",
        "jaxgen.models.planted.Net",
        "jaxgen.models.vae.jax.numpy.zeros",
        "jaxgen.models.vae.Conv",
        "jaxgen.models.vae.ConvVAE.__init__",
        "jaxgen.models.vae.encode",
        "jaxgen.models..vae.ConvVAE",
        "flax.linen.Dense",
        "",
        None,
        3,
        ["jaxgen.models.vae.ConvVAE"],
        {"class": "jaxgen.models.vae.ConvVAE", "fields": {}},
    ],
    ids=str,
)
def test_a_header_imports_and_runs_nothing(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass")
    monkeypatch.syspath_prepend(tmp_path)
    torch_weights.build(torch_weights.describe(SMALL))  # imports jaxgen's own modules
    before = set(sys.modules)
    about = {"module": {"class": name, "fields": {"args": ["touch", "ran"]}}}
    (tmp_path / "w.safetensors").write_bytes(torch_weights.to_safetensors(WHOLE, about))
    with pytest.raises(InputError, match=r"w\.safetensors: .* not jaxgen's; in Python, give the module itself"):
        torch_weights.load_file(tmp_path / "w.safetensors")
    assert set(sys.modules) == before
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden": "4"},
        {"hidden": 4.0},
        {"hidden": True},
        {"hidden": None},
        {"hidden": [4]},
        {"hidden": {"class": "os.system", "fields": {}}},
        {"cell": {"name": "os.system"}},
        {"cell": "rnn"},
        {"hidden": -4},
        {"hidden": 10**9},
        {"hidden": 10**30},
        {"width": 10**9},
        {"name": 3},
        {"parent": None},
        {"__class__": "x"},
        {"setup": "x"},
        {"size": 3},
        [],
        "hidden",
        None,
    ],
    ids=str,
)
def test_wrong_fields_in_a_header_are_refused(fields: Any, tmp_path: Path) -> None:
    kept = {"cell": "gru", "hidden": 4, "width": 3}
    description = {
        "class": "jaxgen.models.completion.RowCompleter",
        "fields": kept | fields if isinstance(fields, dict) else fields,
    }
    (tmp_path / "w.safetensors").write_bytes(torch_weights.to_safetensors(WHOLE, {"module": description}))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"w\.safetensors: ") as refused:
            torch_weights.load_file(tmp_path / "w.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        {"input_shape": [32, 32]},
        {"input_shape": [2**30, 2**30, 3]},
        {"input_shape": [32, 32, 10**9]},
        {"input_shape": [33, 33, 3]},
        {"input_shape": [1] * 10_000},
        {"encoder": {"class": "jaxgen.layers.LSTM", "fields": {"hidden": 4}}},
        {"encoder": {"class": "jaxgen.layers.Conv", "fields": {"features": 10**9, "kernel_size": 3}}},
        {"encoder": {"class": "jaxgen.layers.Linear", "fields": {"features": 3, "weight_init": {"name": "os.system"}}}},
        {"encoder": {"class": "jaxgen.layers.Linear", "fields": {}}},
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_the_tensors_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    module = autoencoder.ConvAutoencoder()
    description = torch_weights.describe(module)
    description["fields"].update(change)
    tensors = random_tensors(module)
    (tmp_path / "w.safetensors").write_bytes(torch_weights.to_safetensors(tensors, {"module": description}))
    with pytest.raises(InputError, match=r"w\.safetensors: ") as refused:
        torch_weights.load_file(tmp_path / "w.safetensors")
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("declared", "good", "bad"),
    [
        (int, [3], [True, 3.0, "3", None]),
        (float, [3, 0.5], [True, "3", None]),
        (bool, [True], [1, None]),
        (int | tuple[int, int], [3, (3, 4)], [(3,), (3, 4, 5), (3, "4"), (3, True)]),
        (tuple[int, ...], [(), (3,), (3, 4)], [3, ("a",), ((3,),)]),
        (Literal["same", "valid"] | None, ["same", None], ["other", 3]),
        (nn.Module, [SMALL], [3, None, ("a",)]),
        (Callable[..., Any] | None, [None], ["os.system", 3]),
        (Any, [], [3, None, "a"]),
    ],
    ids=str,
)
def test_fields_must_be_of_the_declared_type(declared: Any, good: list[Any], bad: list[Any]) -> None:
    is_of_type = torch_weights.description._is_of_type
    assert [value for value in good if not is_of_type(value, declared)] == []
    assert [value for value in bad if is_of_type(value, declared)] == []


class Deep(nn.Module):
    """A module that takes long to trace when it has many layers."""

    num_layers: int = 1
    input_shape: tuple[int, ...] = (3,)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in range(self.num_layers):
            x = x * self.param(f"weight_{layer}", nn.initializers.ones, (3,))
        return x


def test_more_layers_than_tensors_in_a_header_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_weights.description, "_known_classes", lambda: {f"{__name__}.Deep": Deep})
    variables = {"params": {f"weight_{layer}": jnp.ones(3) for layer in range(2)}}
    torch_weights.save(Deep(2), variables, tmp_path / "w.safetensors")
    assert torch_weights.load_file(tmp_path / "w.safetensors").module == Deep(2)
    about = {"module": torch_weights.describe(Deep(3))}
    (tmp_path / "w.safetensors").write_bytes(torch_weights.to_safetensors(torch_weights.flatten(variables), about))
    with pytest.raises(InputError, match=r"its header says num_layers=3, its tensors are smaller"):
        torch_weights.load_file(tmp_path / "w.safetensors")


def test_deeply_nested_modules_in_a_header_are_refused(tmp_path: Path) -> None:
    description = torch_weights.describe(autoencoder.ConvAutoencoder())
    for _ in range(50):
        description = {
            "class": "jaxgen.models.autoencoder.ConvAutoencoder",
            "fields": {"encoder": description, "decoder": torch_weights.describe(autoencoder.Decoder())},
        }
    (tmp_path / "w.safetensors").write_bytes(torch_weights.to_safetensors(WHOLE, {"module": description}))
    with pytest.raises(InputError, match="does not describe a module"):
        torch_weights.load_file(tmp_path / "w.safetensors")
