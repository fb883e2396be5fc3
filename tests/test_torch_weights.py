"""PyTorch's files in and ours out: the same names, the same layouts, the same arithmetic; and nothing executed."""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch

from jaxgen import InputError, torch_weights
from jaxgen.layers import initial
from jaxgen.models import autoencoder, completion, dcgan, vae
from tests.support import torch_recipes
from tests.support.parity import tensors_of


class Twins(NamedTuple):
    ours: nn.Module
    theirs: Callable[[], torch.nn.Module]
    shapes: list[tuple[int, ...]]  # of what both are shown
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
    """The module with no batch norm left as it was made: scales, shifts and running statistics are all different."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            for tensor, low, high in ((layer.weight, 0.5, 2), (layer.bias, -1, 1), (layer.running_mean, -1, 1)):
                torch.nn.init.uniform_(tensor, low, high)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            layer.num_batches_tracked.fill_(7)
    return module


def as_torch(x: np.ndarray) -> torch.Tensor:
    """Images as PyTorch has them. A copy: one channel must not keep the strides of channels last, for which PyTorch
    2.13 has another batch norm, wrong by 1e-4 in float32 where most of an image is flat.
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
def test_pytorchs_files_load_and_give_the_same_outputs(name: str, tmp_path: Path) -> None:
    twins = TWINS[name]
    reference = after_some_training(twins.theirs())
    torch.save(reference.state_dict(), tmp_path / "weights.pth")
    safetensors.torch.save_file(reference.state_dict(), tmp_path / "weights.safetensors")
    loaded, also = (torch_weights.load(twins.ours, tmp_path / f"weights.{suffix}") for suffix in ("pth", "safetensors"))
    assert_identical(loaded, also)
    for train in (False, True):
        assert_same_outputs(twins, loaded, reference, train)


@pytest.mark.parametrize("name", TWINS)
def test_ours_load_into_pytorchs_modules_strictly(name: str, tmp_path: Path) -> None:
    twins = TWINS[name]
    rng = np.random.default_rng(0)  # some noise, so that no batch norm is as it was made
    variables = jax.tree.map(
        lambda leaf: leaf + rng.uniform(-0.05, 0.05, leaf.shape).astype(leaf.dtype),
        initial(twins.ours, jax.random.key(0)),
    )
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


# --- Files of every kind, with small networks -------------------------------------------------------------------------

SMALL = completion.RowCompleter("gru", hidden=4, width=3)
NORMALISED = dcgan.MnistDiscriminator()


@pytest.fixture
def small() -> torch.nn.Module:
    return torch_recipes.RowCompleter("gru", hidden=4, width=3)


def assert_holds(variables: Any, reference: torch.nn.Module) -> None:
    assert_identical(variables, torch_weights.load(SMALL, tensors_of(reference)))


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


@pytest.mark.parametrize("suffix", ["pth", "pt"])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda weights, _: {f"module.{name}": tensor for name, tensor in weights.items()},
        lambda weights, _: {"state_dict": weights, "epoch": 3},
        lambda weights, _: {"epoch": 3, "model": {f"module.{name}": tensor for name, tensor in weights.items()}},
        lambda weights, moments: {"optimizer": moments, "model": weights},
    ],
    ids=["DataParallel", "state_dict", "model, DataParallel", "behind the optimiser's tensors"],
)
def test_a_state_dict_is_found_in_a_checkpoint(
    wrapped: Callable[..., Any], suffix: str, small: torch.nn.Module, tmp_path: Path
) -> None:
    optimizer = torch_recipes.completion_optimizer(small)
    torch_recipes.completion_step(small, optimizer, torch.rand(2, 5, 3), torch.rand(2, 3))
    torch.save(wrapped(small.state_dict(), optimizer.state_dict()), tmp_path / f"weights.{suffix}")
    assert_holds(torch_weights.load(SMALL, tmp_path / f"weights.{suffix}"), small)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_half_precision_is_widened(suffix: str, dtype: torch.dtype, small: torch.nn.Module, tmp_path: Path) -> None:
    save = torch.save if suffix == "pth" else safetensors.torch.save_file
    save(small.to(dtype).state_dict(), tmp_path / f"weights.{suffix}")
    assert_holds(torch_weights.load(SMALL, tmp_path / f"weights.{suffix}"), small.float())


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
    """As if the tensors were on a GPU: every storage in the file says where it lay."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save(weights, path, _use_new_zipfile_serialization=not legacy)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)


def test_a_pickled_module_is_refused_with_the_way_out(small: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(small, tmp_path / "whole.pth")
    with pytest.raises(InputError, match=r"whole\.pth: not a plain state_dict; .*torch\.save\(model\.state_dict\(\)"):
        torch_weights.load(SMALL, tmp_path / "whole.pth")


class Hostile:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_hostile_pickle_is_not_run(legacy: bool, tmp_path: Path) -> None:
    torch.save(
        {"fc.weight": Hostile(tmp_path / "ran")}, tmp_path / "weights.pth", _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(InputError, match="not a plain state_dict"):
        torch_weights.load(SMALL, tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}])
def test_a_file_without_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="holds no state_dict"):
        torch_weights.load(SMALL, tmp_path / "weights.pth")


@pytest.mark.parametrize("suffix", ["pth", "legacy.pth", "safetensors"])
def test_a_damaged_file_is_refused_wherever_it_breaks_off(suffix: str, small: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        safetensors.torch.save_file(small.state_dict(), path)
    else:
        torch.save(small.state_dict(), path, _use_new_zipfile_serialization="legacy" not in suffix)
    whole = path.read_bytes()
    for size in np.linspace(0, len(whole) - 1, 20, dtype=int):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=path.name):
            torch_weights.load(SMALL, path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 9)
    with pytest.raises(InputError, match=path.name):
        torch_weights.load(SMALL, path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.pth: no such file"):
        torch_weights.load(SMALL, tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("rnn.bias_hh_l0"), r"weights\.safetensors: no tensor rnn\.bias_hh_l0"),
        (lambda weights: weights.update({"fc.scale": torch.ones(3)}), r"tensor fc\.scale is not the model's"),
        (
            lambda weights: weights.update({"fc.weight": torch.ones(4, 3)}),
            r"fc\.weight has shape \[4, 3\], the model's is \[3, 4\]",
        ),
    ],
    ids=["missing", "foreign", "shape"],
)
def test_the_first_wrong_tensor_is_named(
    change: Callable[..., Any], message: str, small: torch.nn.Module, tmp_path: Path
) -> None:
    weights = dict(small.state_dict())
    change(weights)
    safetensors.torch.save_file(weights, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=message):
        torch_weights.load(SMALL, tmp_path / "weights.safetensors")


def test_another_models_variables_are_not_written(tmp_path: Path) -> None:
    variables = initial(completion.RowCompleter("lstm", hidden=4, width=3), jax.random.key(0))
    with pytest.raises(InputError, match=r"rnn\.\w+ has shape"):
        torch_weights.save(SMALL, variables, tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_without_pytorch_the_error_points_to_safetensors(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix, save in (("pth", torch.save), ("safetensors", safetensors.torch.save_file)):
        save(small.state_dict(), tmp_path / f"weights.{suffix}")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"needs PyTorch.*safetensors"):
        torch_weights.load(SMALL, tmp_path / "weights.pth")
    assert_holds(torch_weights.load(SMALL, tmp_path / "weights.safetensors"), small)


def test_a_damaged_pth_is_refused_without_pytorchs_own_remarks(tmp_path):
    """It warns of a pickle protocol that it does not know, before it fails."""
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content[:2] == b"\x80\x02"
    path.write_bytes(b"\x80\x22" + content[2:])
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        torch_weights.read(path, ["weight"])
    assert not remarks
    with pytest.warns(UserWarning, match="pickle protocol"):
        torch.load(path, weights_only=True)
