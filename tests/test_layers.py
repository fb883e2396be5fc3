"""The layers against PyTorch: values, gradients, running statistics and initialisation."""

import math
import re
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jaxgen.layers import (
    GRU,
    LSTM,
    BatchNorm,
    Conv,
    ConvTranspose,
    GroupNorm,
    Linear,
    MaxPool,
    flatten,
    in_batches,
    init_variables,
    matmul_dtype,
    unflatten,
)
from jaxgen.torch_weights import from_torch, to_torch

# PyTorch says so once in a process; that it copies is no concern of these tests.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

Arrays = dict[str, np.ndarray]

TOLERANCE = {"float32": 1e-5, "float64": 1e-11}  # of a tensor's largest value

LAYERS = {  # ours, PyTorch's, and the shape of what both are shown
    "linear": (Linear(7), lambda: torch.nn.Linear(5, 7), (4, 5)),
    "conv": (Conv(6, 3), lambda: torch.nn.Conv2d(4, 6, 3), (2, 7, 6, 4)),
    "conv, every option": (
        Conv(5, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2)),
        lambda: torch.nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 2)),
        (2, 8, 7, 3),
    ),
    "conv transpose": (ConvTranspose(6, 4), lambda: torch.nn.ConvTranspose2d(4, 6, 4), (2, 5, 4, 4)),
    "conv transpose, every option": (
        ConvTranspose(5, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(1, 2)),
        lambda: torch.nn.ConvTranspose2d(
            3, 5, (3, 2), stride=(2, 3), padding=(1, 0), output_padding=(1, 2), dilation=(1, 2)
        ),
        (2, 4, 5, 3),
    ),
    "max pool": (MaxPool(2), lambda: torch.nn.MaxPool2d(2), (2, 7, 6, 3)),
    "max pool, every option": (
        MaxPool((3, 2), stride=(2, 1), padding=(1, 0)),
        lambda: torch.nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)),
        (2, 7, 6, 3),
    ),
    "linear without bias": (Linear(7, use_bias=False), lambda: torch.nn.Linear(5, 7, bias=False), (4, 5)),
    "conv without bias": (Conv(6, 3, use_bias=False), lambda: torch.nn.Conv2d(4, 6, 3, bias=False), (2, 7, 6, 4)),
    "conv, same": (
        Conv(5, (3, 4), padding="same", dilation=(2, 1)),
        lambda: torch.nn.Conv2d(3, 5, (3, 4), padding="same", dilation=(2, 1)),
        (2, 8, 7, 3),
    ),
    "conv, valid": (
        Conv(5, 3, stride=2, padding="valid"),
        lambda: torch.nn.Conv2d(3, 5, 3, stride=2, padding="valid"),
        (2, 8, 7, 3),
    ),
    "conv, groups": (
        Conv(6, 3, groups=2, padding=1),
        lambda: torch.nn.Conv2d(4, 6, 3, groups=2, padding=1),
        (2, 7, 6, 4),
    ),
    "conv, depthwise": (Conv(4, 3, groups=4), lambda: torch.nn.Conv2d(4, 4, 3, groups=4), (2, 7, 6, 4)),
    "conv transpose, groups": (
        ConvTranspose(6, 4, stride=2, padding=1, groups=2, use_bias=False),
        lambda: torch.nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, groups=2, bias=False),
        (2, 4, 3, 4),
    ),
    "group norm": (GroupNorm(num_groups=3), lambda: torch.nn.GroupNorm(3, 6), (2, 5, 4, 6)),
    "group norm of vectors": (GroupNorm(num_groups=2, eps=1e-3), lambda: torch.nn.GroupNorm(2, 6, eps=1e-3), (4, 6)),
    "lstm, every option": (
        LSTM(6, num_layers=3, bidirectional=True),
        lambda: torch.nn.LSTM(5, 6, num_layers=3, bidirectional=True, batch_first=True),
        (3, 4, 5),
    ),
    "gru, every option": (
        GRU(6, num_layers=2, bidirectional=True, use_bias=False),
        lambda: torch.nn.GRU(5, 6, num_layers=2, bidirectional=True, bias=False, batch_first=True),
        (3, 4, 5),
    ),
    "lstm": (LSTM(6), lambda: torch.nn.LSTM(5, 6, batch_first=True), (3, 8, 5)),
    "gru": (GRU(6), lambda: torch.nn.GRU(5, 6, batch_first=True), (3, 8, 5)),
}


def channels_first(x: Any) -> np.ndarray:
    """Images as PyTorch has them; any other array as it is."""
    return np.moveaxis(x, -1, 1) if x.ndim == 4 else np.asarray(x)


def variables_of(reference: torch.nn.Module) -> Any:
    named = {"params": reference.named_parameters(), "batch_stats": reference.named_buffers()}
    return {
        collection: {name: from_torch(name, tensor.detach().numpy()) for name, tensor in tensors}
        for collection, tensors in named.items()
    }


def ours(layer: nn.Module, variables: Any, x: np.ndarray, *train: bool) -> tuple[Arrays, Any]:
    """The layer's output and the gradients of the sum of its sines (so that each element counts in its own way), in
    PyTorch's layouts; and the running statistics afterwards.
    """
    (_, (y, moved)), (params, given) = differentiate(layer, train, variables["params"], x, variables["batch_stats"])
    named = {name: to_torch(name, gradient) for name, gradient in params.items()}
    return {"output": channels_first(y), "input": channels_first(given), **named}, moved.get("batch_stats", {})


@partial(jax.jit, static_argnums=(0, 1))
@partial(jax.value_and_grad, argnums=(2, 3), has_aux=True)
def differentiate(layer: nn.Module, train: tuple[bool, ...], params: Any, x: jax.Array, batch_stats: Any) -> Any:
    variables = {"params": params, "batch_stats": batch_stats}
    y, moved = layer.apply(variables, x, *train, mutable=["batch_stats"])
    return jnp.sin(y).sum(), (y, moved)


def theirs(reference: torch.nn.Module, x: np.ndarray) -> Arrays:
    given = torch.tensor(channels_first(x), requires_grad=True)
    reference.zero_grad()
    y = reference(given)
    y = y[0] if isinstance(y, tuple) else y  # a recurrent layer's last state comes with its outputs
    y.sin().sum().backward()
    named = {name: parameter.grad for name, parameter in reference.named_parameters()}
    return {name: tensor.detach().numpy() for name, tensor in {"output": y, "input": given.grad, **named}.items()}


def assert_equal(ours: Arrays, theirs: Arrays, tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        np.testing.assert_allclose(ours[name], tensor, rtol=0, atol=tolerance * np.abs(tensor).max(), err_msg=name)


RECURRENT = {"lstm": (LSTM, torch.nn.LSTM), "gru": (GRU, torch.nn.GRU)}


@pytest.mark.parametrize("name", RECURRENT)
def test_initial_and_final_states_are_pytorchs(name: str, float64: None) -> None:
    ours_, theirs_ = RECURRENT[name]
    torch.manual_seed(0)
    reference = theirs_(5, 6, num_layers=2, bidirectional=True, batch_first=True).double()
    rng = np.random.default_rng(0)
    x, *states = rng.normal(size=(3, 4, 5)), *rng.normal(size=(2 if name == "lstm" else 1, 4, 3, 6))
    initial = tuple(states) if name == "lstm" else states[0]
    layer = ours_(6, num_layers=2, bidirectional=True)
    variables = variables_of(reference)
    outputs, final = layer.apply(variables, x, initial, return_carry=True)
    given = tuple(map(torch.tensor, states)) if name == "lstm" else torch.tensor(states[0])
    wanted_outputs, wanted_final = reference(torch.tensor(x), given)
    wanted = [wanted_outputs, *(wanted_final if name == "lstm" else [wanted_final])]
    for mine, value in zip(jax.tree.leaves((outputs, final)), wanted, strict=True):
        np.testing.assert_allclose(mine, value.detach(), rtol=1e-11, atol=1e-13)
    again = ours_(6, num_layers=2, bidirectional=True, return_carry=True).apply(variables, x, initial)
    jax.tree.map(np.testing.assert_array_equal, again, (outputs, final))
    with pytest.raises(ValueError, match=r"initial_carry must be .* of shape \(4, 3, 6\) .* not \[\(4, 1, 6\)"):
        layer.apply(variables, x, jax.tree.map(lambda state: state[:, :1], initial))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", [*LAYERS, "batch norm"])
def test_layers_return_the_dtype_of_their_input(name: str, dtype: str) -> None:
    layer, _, shape = (BatchNorm(), None, (4, 3)) if name == "batch norm" else LAYERS[name]
    x = jnp.ones(shape)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    apply = partial(layer.apply, mutable=["batch_stats"])
    y, moved = jax.eval_shape(apply, variables, x.astype(dtype))
    assert y.dtype == dtype
    assert moved == {key: value for key, value in variables.items() if key == "batch_stats"}


@pytest.mark.parametrize("name", [*LAYERS, "batch norm"])
def test_integers_are_refused(name: str) -> None:
    layer, _, shape = (BatchNorm(), None, (4, 3)) if name == "batch norm" else LAYERS[name]
    variables = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(shape))
    for apply in (layer.apply, matmul_dtype("bfloat16")(layer.apply)):
        with pytest.raises(ValueError, match=r"floating-point inputs, not uint8 .*jaxgen\.scaled"):
            jax.eval_shape(apply, variables, jnp.ones(shape, jnp.uint8))


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_has_zero_gradients(name: str) -> None:
    layer, make_reference, shape = LAYERS[name]
    reference, x = make_reference(), np.zeros((0, *shape[1:]), np.float32)
    found, wanted = ours(layer, variables_of(reference), x)[0], theirs(reference, x)
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in wanted.items()}
    assert not any(value.any() for value in found.values())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Linear(3, True),
        lambda: Conv(3, 16, 3),
        lambda: ConvTranspose(3, 16, 3),
        lambda: MaxPool(2, 2),
        lambda: BatchNorm(64),
        lambda: GroupNorm(2),
        lambda: LSTM(3, 2),
        lambda: GRU(3, 2),
    ],
)
def test_options_are_keywords(make: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "said"),
    [
        (Conv(3, 3, stride=(1, 1, 1)), (1, 5, 5, 2), r"stride must be one number or two .* not \(1, 1, 1\)"),
        (Conv(3, 3, padding=(1, 1, 1)), (1, 5, 5, 2), "padding must be one number or two"),
        (Conv(3, 3, padding="full"), (1, 5, 5, 2), "padding must be one number or two .* not 'full'"),
        (Conv(3, 3, dilation=(1, 1, 1)), (1, 5, 5, 2), "dilation must be one number or two"),
        (Conv(3, 3, padding="same", stride=2), (1, 5, 5, 2), "takes a stride of 1"),
        (Conv(3, 3, groups=2), (1, 5, 5, 4), "2 groups do not divide 3 features"),
        (Conv(4, 3, groups=2), (1, 5, 5, 3), "2 groups do not divide 3 inputs"),
        (Conv(4, 3), (5, 5, 3), r"takes inputs of 4 dimensions, not \(5, 5, 3\)"),
        (Conv(4, 3), (1, 5, 5, 0), "no size but the batch may be 0"),
        (BatchNorm(eps=-1e-5), (4, 3), "eps must not be negative"),
        (GroupNorm(num_groups=2, eps=-1.0), (4, 4), "eps must not be negative"),
        (GroupNorm(num_groups=2), (4, 3), r"2 groups do not divide the channels of \(4, 3\)"),
        (LSTM(3), (2, 0, 4), "no size but the batch may be 0"),
        (LSTM(0), (2, 3, 4), "hidden 0 must be at least 1"),
        (GRU(3, num_layers=0), (2, 3, 4), "num_layers 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(layer: nn.Module, shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        layer.init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize(
    ("layer", "shape", "name", "wrong"),
    [
        (Linear(7), (4, 5), "weight", (7, 5)),
        (Linear(7), (4, 5), "bias", (1,)),
        (Conv(6, 3), (2, 7, 6, 4), "weight", (6, 4, 3, 3)),
        (Conv(6, 3), (2, 7, 6, 4), "bias", (1,)),
        (ConvTranspose(6, 3), (2, 7, 6, 4), "weight", (4, 6, 3, 3)),
        (BatchNorm(), (4, 3), "weight", (1,)),
        (BatchNorm(), (4, 3), "running_mean", (1,)),
        (GroupNorm(num_groups=1), (4, 3), "bias", (1,)),
        (LSTM(3), (2, 3, 4), "bias_hh_l0", (1,)),
        (GRU(3, num_layers=2), (2, 3, 4), "weight_ih_l1", (9, 3)),
    ],
)
def test_parameters_of_another_shape_are_refused(
    layer: nn.Module, shape: tuple[int, ...], name: str, wrong: tuple[int, ...]
) -> None:
    """In PyTorch's layout, or of one number that would be broadcast; the error names both shapes."""
    variables = layer.init(jax.random.key(0), jnp.ones(shape))
    collection = "batch_stats" if name.startswith("running") else "params"
    right = variables[collection][name].shape
    spoilt = {**variables, collection: {**variables[collection], name: jnp.ones(wrong)}}
    with pytest.raises(ValueError, match=re.escape(f"{name} must have shape {right}") + ".*" + re.escape(str(wrong))):
        layer.apply(spoilt, jnp.ones(shape))


@pytest.mark.parametrize("deviation", [1.0, 1e14, 1e16, 1e18])
def test_batch_norms_gradient_at_large_deviations(deviation: float) -> None:
    x = (deviation * np.random.default_rng(0).normal(size=(16, 3))).astype(np.float32)
    reference = torch.nn.BatchNorm1d(3)
    found, _ = ours(BatchNorm(), variables_of(reference), x, True)
    assert_equal(found, theirs(reference, x), 1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", LAYERS)
def test_values_and_gradients(name: str, dtype: str) -> None:
    layer, make_reference, shape = LAYERS[name]
    torch.manual_seed(0)
    reference = make_reference().to(getattr(torch, dtype))
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    with jax.enable_x64(dtype == "float64"):
        assert_equal(ours(layer, variables_of(reference), x)[0], theirs(reference, x), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("kind", "shape"), [(torch.nn.BatchNorm1d, (5, 3)), (torch.nn.BatchNorm2d, (4, 5, 6, 3))])
def test_batch_norm_over_several_batches_and_in_evaluation(
    kind: type[torch.nn.BatchNorm1d], shape: tuple[int, ...], dtype: str
) -> None:
    rng = np.random.default_rng(0)
    reference = kind(3).to(getattr(torch, dtype))
    torch.nn.init.normal_(reference.weight)
    torch.nn.init.normal_(reference.bias)
    with jax.enable_x64(dtype == "float64"):
        variables = variables_of(reference)
        for number in range(1, 5):
            x = rng.normal(number, 3, size=shape).astype(dtype)
            found, variables["batch_stats"] = ours(BatchNorm(), variables, x, True)
            assert_equal(found, theirs(reference, x), TOLERANCE[dtype])
            assert variables["batch_stats"]["num_batches_tracked"] == number
            running = {name: tensor.numpy() for name, tensor in reference.named_buffers()}
            assert_equal(
                {name: to_torch(name, tensor) for name, tensor in variables["batch_stats"].items()},
                running,
                TOLERANCE[dtype] / 10,
            )
        found, statistics = ours(BatchNorm(), variables, x)
        assert_equal(found, theirs(reference.eval(), x), TOLERANCE[dtype])
        assert statistics["num_batches_tracked"] == 4
        np.testing.assert_array_equal(statistics["running_mean"], variables["batch_stats"]["running_mean"])


def test_batch_norm_does_not_cancel_far_from_zero() -> None:
    """E[x²] − E[x]² would lose four of float32's seven digits here."""
    x = np.random.default_rng(0).normal(1000, 1, size=(64, 3)).astype(np.float32)
    layer = BatchNorm(momentum=1.0)
    _, moved = layer.apply(layer.init(jax.random.key(0), x), x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(moved["batch_stats"]["running_var"], np.var(x.astype(np.float64), 0, ddof=1), rtol=1e-5)


@jax.enable_x64(True)
def test_batch_norms_second_derivatives() -> None:
    x, direction = np.random.default_rng(0).normal(size=(2, 6, 3))
    reference = torch.nn.BatchNorm1d(3).double()
    torch.nn.init.normal_(reference.weight)
    variables = variables_of(reference)

    def loss(x: jax.Array) -> jax.Array:
        y, _ = BatchNorm().apply(variables, x, True, mutable=["batch_stats"])
        return jnp.sum(y**3)

    given = torch.tensor(x, requires_grad=True)
    (gradient,) = torch.autograd.grad((reference(given) ** 3).sum(), given, create_graph=True)
    (expected,) = torch.autograd.grad(gradient, given, torch.tensor(direction))
    found = jax.grad(lambda x: jnp.vdot(jax.grad(loss)(x), direction))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
def test_batch_norm_refuses_to_train_on_one_value_a_channel(shape: tuple[int, ...]) -> None:
    variables = BatchNorm().init(jax.random.key(0), jnp.zeros(shape))
    with pytest.raises(ValueError, match="more than one value a channel"):
        BatchNorm().apply(variables, jnp.zeros(shape), True, mutable=["batch_stats"])
    assert BatchNorm().apply(variables, jnp.zeros(shape)).shape == shape  # evaluation takes it


def test_max_pool_sends_the_gradient_of_ties_where_pytorch_does() -> None:
    """To the first of the window's largest: here most windows hold several, zeros after a ReLU among them."""
    x = np.random.default_rng(0).integers(-3, 3, size=(2, 8, 8, 3)).clip(0).astype(np.float32)
    for layer, make_reference, _ in (LAYERS["max pool"], LAYERS["max pool, every option"]):
        found, _ = ours(layer, variables_of(make_reference()), x)
        wanted = theirs(make_reference(), x)
        np.testing.assert_array_equal(found["input"] != 0, wanted["input"] != 0)
        assert_equal(found, wanted, 1e-6)


def test_flatten_is_in_pytorchs_order_and_unflatten_undoes_it() -> None:
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    flat = flatten(x)
    np.testing.assert_array_equal(flat, torch.tensor(channels_first(x)).flatten(1))
    np.testing.assert_array_equal(unflatten(flat, 3, 4), x)


INITIALISED = {  # the layer, PyTorch's, the shape of what it is shown, the fan-in
    "linear": (Linear(3), torch.nn.Linear(5, 3), (1, 5), 5),
    "conv": (Conv(2, (3, 2)), torch.nn.Conv2d(5, 2, (3, 2)), (1, 3, 3, 5), 5 * 3 * 2),
    "conv transpose": (ConvTranspose(2, (3, 2)), torch.nn.ConvTranspose2d(5, 2, (3, 2)), (1, 3, 3, 5), 2 * 3 * 2),
    "lstm": (LSTM(3), torch.nn.LSTM(5, 3), (1, 1, 5), 3),
    "gru": (GRU(3), torch.nn.GRU(5, 3), (1, 1, 5), 3),
}
SEEDS = 2000


@pytest.mark.parametrize("name", INITIALISED)
def test_default_initialisation_is_pytorchs(name: str) -> None:
    """Uniform on ±1/√fan-in: none beyond, filled to the edges, with the mean and variance of that distribution."""
    layer, reference, shape, fan_in = INITIALISED[name]
    torch.manual_seed(0)
    keys = jax.random.split(jax.random.key(0), SEEDS)
    params = jax.jit(jax.vmap(lambda key: layer.init(key, jnp.zeros(shape))))(keys)["params"]
    bound = 1 / math.sqrt(fan_in)
    assert params.keys() == dict(reference.named_parameters()).keys()
    for values in params.values():
        assert np.abs(values).max() <= np.float32(bound)
        assert np.min(values) < -0.99 * bound
        assert np.max(values) > 0.99 * bound
        count = values.size  # mean and mean square are within five standard errors
        assert abs(np.mean(values)) < 5 * bound / math.sqrt(3 * count)
        assert abs(np.mean(np.square(values)) - bound**2 / 3) < 5 * bound**2 * math.sqrt(4 / 45 / count)
    for parameter in reference.parameters():  # the same bound is PyTorch's own
        largest = torch.stack([redrawn(reference, parameter) for _ in range(200)]).abs().max()
        assert 0.95 * bound < largest <= np.float32(bound)


def redrawn(reference: torch.nn.Module, parameter: torch.nn.Parameter) -> torch.Tensor:
    reference.reset_parameters()
    return parameter.detach().clone()


class Three(nn.Module):
    """Three layers alike; the second one's name can be chosen."""

    second: str = "b"
    input_shape: ClassVar[tuple[int, ...]] = (4,)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for name in ("a", self.second, "c"):
            x = Linear(4, name=name)(x)
        return x


def test_each_tensor_has_a_key_of_its_own() -> None:
    """Equal ones too: of three layers alike, and in an LSTM as wide as its input."""
    three = jax.tree.leaves(init_variables(Three(), jax.random.key(0)))
    lstm = jax.tree.leaves(LSTM(4).init(jax.random.key(0), jnp.zeros((1, 1, 4))))
    for tensors in (three, lstm):
        values = np.concatenate([np.ravel(tensor) for tensor in tensors])
        assert len(np.unique(values)) == len(values)


def test_renaming_a_layer_changes_that_layer_only() -> None:
    params, renamed = (init_variables(Three(second), jax.random.key(0))["params"] for second in ("b", "other"))
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(params["a"][name], renamed["a"][name])
        np.testing.assert_array_equal(params["c"][name], renamed["c"][name])
        assert not np.intersect1d(params["b"][name], renamed["other"][name]).size


def test_initial_values_are_double_where_jax_computes_in_double(float64: None) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(init_variables(Three(), jax.random.key(0)))} == {np.dtype("float64")}


class Traced(nn.Module):
    """Counts how often it is traced; `bias` may be an array, which cannot be hashed."""

    features: int
    bias: Any = 0.0
    input_shape: ClassVar[tuple[int, ...]] = (4,)
    traces: ClassVar[list[int]] = []

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        self.traces.append(self.features)
        return Linear(self.features)(x) + self.bias


def test_initialisation_compiles_once_for_equal_modules() -> None:
    Traced.traces.clear()
    first, again = (init_variables(Traced(3), jax.random.key(0)) for _ in range(2))
    init_variables(Traced(3), jax.random.key(1))
    assert Traced.traces == [3]
    init_variables(Traced(5), jax.random.key(0))
    assert Traced.traces == [3, 5]
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(np.testing.assert_array_equal, first, Traced(3).init(jax.random.key(0), jnp.zeros((1, 4))))


def test_a_module_that_cannot_be_hashed_is_initialised() -> None:
    module = Traced(3, np.ones(3))
    with pytest.raises(TypeError, match="unhashable"):
        hash(module)
    variables = init_variables(module, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, variables, init_variables(Traced(3), jax.random.key(0)))


@pytest.mark.parametrize(("count", "seen"), [(7, [3, 1]), (6, [3]), (2, [2])])
def test_in_batches_calls_the_function_with_whole_batches(count, seen):
    """A whole batch, traced once, and what is left; not single examples under `vmap`."""
    sizes = []

    def function(pair):
        sizes.append(len(pair[0]))
        return pair[0] + pair[1].sum(-1), {"twice": 2 * pair[1]}

    x, y = jnp.arange(float(count)), jnp.arange(2.0 * count).reshape(count, 2)
    total, twice = in_batches(function, (x, y), 3)
    assert sizes == seen
    np.testing.assert_array_equal(total, x + y.sum(-1))
    np.testing.assert_array_equal(twice["twice"], 2 * y)
