"""LSTM and GRU: values and every gradient are PyTorch's."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import lax
from jax.test_util import check_grads

from jaxgen.ops.recurrent import gru, lstm


class Cell(NamedTuple):
    ours: Callable[..., jax.Array]
    theirs: type[torch.nn.LSTM] | type[torch.nn.GRU]
    gates: int


class Shape(NamedTuple):
    batch: int
    steps: int
    width: int
    hidden: int


CELLS = {"lstm": Cell(lstm, torch.nn.LSTM, 4), "gru": Cell(gru, torch.nn.GRU, 3)}
SHAPES = [Shape(3, 5, 4, 6), Shape(1, 7, 6, 2), Shape(4, 1, 2, 5), Shape(2, 2, 3, 1), Shape(8, 28, 56, 64)]

every_cell = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def arguments(cell: Cell, shape: Shape, seed: int = 0) -> list[np.ndarray]:
    """x, both weights and both biases, in float64: large enough for the gates to bend."""
    rng = np.random.default_rng(seed)
    gates = cell.gates * shape.hidden
    x = rng.normal(size=(shape.batch, shape.steps, shape.width))
    weights = rng.normal(size=(shape.width, gates)), rng.normal(size=(shape.hidden, gates))
    biases = rng.normal(size=gates), rng.normal(size=gates)
    return [x, *(weight / np.sqrt(len(weight)) for weight in weights), *biases]


def cotangent(shape: Shape, last_only: bool = False) -> np.ndarray:
    """A gradient with respect to the outputs."""
    gradient = np.random.default_rng(1).normal(size=(shape.batch, shape.steps, shape.hidden))
    if last_only:
        gradient[:, :-1] = 0
    return gradient


def in_jax(cell: Cell, args: list[np.ndarray], d_outputs: np.ndarray, dtype: type) -> list[np.ndarray]:
    """The outputs and the gradients with respect to every argument."""

    @jax.jit
    def both(args, d_outputs):
        outputs, backward = jax.vjp(cell.ours, *args)
        return [outputs, *backward(d_outputs)]

    return [np.asarray(a) for a in both([a.astype(dtype) for a in args], d_outputs.astype(dtype))]


def in_torch(
    cell: Cell, args: list[np.ndarray], d_outputs: np.ndarray, dtype: type, inside: torch.dtype | None = None
) -> list[np.ndarray]:
    """The same in PyTorch, computed in the dtype `inside` (by default `dtype`, that of the results)."""
    x, weight_ih, weight_hh, bias_ih, bias_hh = (torch.from_numpy(a.astype(dtype)).to(inside) for a in args)
    layer = cell.theirs(len(weight_ih), len(weight_hh), batch_first=True, dtype=x.dtype)
    layer.load_state_dict(
        {"weight_ih_l0": weight_ih.T, "weight_hh_l0": weight_hh.T, "bias_ih_l0": bias_ih, "bias_hh_l0": bias_hh}
    )
    x.requires_grad_()
    outputs = layer(x)[0]
    gradients = torch.autograd.grad(
        outputs, [x, *layer.parameters()], torch.from_numpy(d_outputs.astype(dtype)).to(inside)
    )
    d_x, d_weight_ih, d_weight_hh, *d_biases = gradients
    results = (outputs, d_x, d_weight_ih.T, d_weight_hh.T, *d_biases)
    return [tensor.detach().to(torch.from_numpy(np.zeros(0, dtype)).dtype).numpy() for tensor in results]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("last_only", [False, True], ids=["every step", "last step"])
@every_shape
@every_cell
def test_values_and_gradients_equal_pytorch_in_float64(cell: Cell, shape: Shape, last_only: bool) -> None:
    args, d_outputs = arguments(cell, shape), cotangent(shape, last_only)
    for ours, theirs in zip(
        in_jax(cell, args, d_outputs, np.float64), in_torch(cell, args, d_outputs, np.float64), strict=True
    ):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@every_shape
@every_cell
def test_values_and_gradients_equal_pytorch_in_float32(cell: Cell, shape: Shape) -> None:
    args, d_outputs = arguments(cell, shape), cotangent(shape)
    with jax.default_matmul_precision("highest"):
        results = in_jax(cell, args, d_outputs, np.float32)
    for ours, theirs in zip(results, in_torch(cell, args, d_outputs, np.float32), strict=True):
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.usefixtures("float64")
def test_the_biases_of_a_gru_are_two_because_of_gate_n() -> None:
    """Moving one up and the other down changes nothing in r and z, but n."""
    cell, shape = CELLS["gru"], Shape(3, 4, 2, 5)
    *others, bias_ih, bias_hh = arguments(cell, shape)
    r_and_z, n = (np.repeat(gates, shape.hidden) for gates in ([1.0, 1.0, 0.0], [0.0, 0.0, 1.0]))
    ours = jax.jit(cell.ours)
    outputs = ours(*others, bias_ih, bias_hh)
    np.testing.assert_allclose(ours(*others, bias_ih + r_and_z, bias_hh - r_and_z), outputs, rtol=1e-11)
    assert np.max(np.abs(ours(*others, bias_ih + n, bias_hh - n) - outputs)) > 0.1


@pytest.mark.usefixtures("float64")
@every_cell
def test_vmap_over_weights_equals_a_loop(cell: Cell) -> None:
    shape, models = Shape(3, 4, 2, 5), 3
    x, *_ = arguments(cell, shape)
    weights = [
        np.stack(tensors) for tensors in zip(*(arguments(cell, shape, i)[1:] for i in range(models)), strict=True)
    ]

    def both(weights: list[jax.Array]) -> list[jax.Array]:
        outputs, backward = jax.vjp(cell.ours, x, *weights)
        return [outputs, *backward(cotangent(shape))]

    together, one = jax.jit(jax.vmap(both))(weights), jax.jit(both)
    for model in range(models):
        alone = one([tensor[model] for tensor in weights])
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[model], theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.usefixtures("float64")
@every_cell
def test_second_derivatives(cell: Cell) -> None:
    check_grads(jax.jit(cell.ours), arguments(cell, Shape(2, 3, 2, 2)), order=2, modes=["rev"])


@every_cell
def test_bfloat16_stays_bfloat16(cell: Cell) -> None:
    shape = Shape(2, 5, 3, 4)
    args = arguments(cell, shape)
    with jax.numpy_dtype_promotion("strict"):
        results = in_jax(cell, args, cotangent(shape), jnp.bfloat16)
    for ours, exact in zip(results, in_jax(cell, args, cotangent(shape), np.float32), strict=True):
        assert ours.dtype == jnp.bfloat16
        assert np.linalg.norm(ours.astype(np.float32) - exact) <= 0.05 * np.linalg.norm(exact)


ERROR_OF_PYTORCH = 3  # times this, plus 3e-7, is what an error may be


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@every_cell
def test_gates_keep_their_tails(cell: Cell, dtype: str) -> None:
    """Errors against float64, of outputs and gradients, with the biases of the first two gates from −20 to 20."""
    shape = Shape(4, 6, 5, 8)
    args = [np.asarray(jnp.asarray(array, dtype), np.float64) for array in (*arguments(cell, shape), cotangent(shape))]
    *args, d_outputs = args
    args[3] = 0.1 * args[3]

    @jax.jit
    def ours(args, d_outputs):
        outputs, backward = jax.vjp(cell.ours, *args)
        return [outputs, *backward(d_outputs)]

    for bias in (-20.0, -17.0, -12.0, -8.0, -4.0, 0.0, 6.0, 12.0, 20.0):
        args[4] = np.concatenate([np.full(2 * shape.hidden, bias), np.zeros((cell.gates - 2) * shape.hidden)])
        args[3] = np.asarray(jnp.asarray(args[3], dtype), np.float64)
        exact = in_torch(cell, args, d_outputs, np.float64)
        theirs = in_torch(cell, args, d_outputs, np.float64, getattr(torch, dtype))
        found = ours([jnp.asarray(array, dtype) for array in args], jnp.asarray(d_outputs, dtype))
        for mine, reference, value in zip(found, theirs, exact, strict=True):
            assert mine.dtype == dtype
            error, allowed = (np.linalg.norm(np.asarray(a, np.float64) - value) for a in (mine, reference))
            assert error <= ERROR_OF_PYTORCH * allowed + 3e-7 * np.linalg.norm(value), bias


@pytest.mark.usefixtures("float64")
@every_cell
def test_initial_and_final_states_equal_pytorch(cell: Cell) -> None:
    """Values, and the gradients by every argument of a function of the outputs and of the final state."""
    shape, states = Shape(3, 5, 4, 6), cell.gates - 2  # (h, c) or h
    args, rng = arguments(cell, shape), np.random.default_rng(2)
    carry = [rng.normal(size=(shape.batch, shape.hidden)) for _ in range(states)]
    weights = [np.cos(np.arange(array.size)).reshape(array.shape) for array in (cotangent(shape), *carry)]

    def value(args, carry):
        initial = tuple(carry) if states == 2 else carry[0]
        outputs, final = cell.ours(*args, initial_carry=initial, return_carry=True)
        finals = final if states == 2 else (final,)
        return sum((a * w).sum() for a, w in zip((outputs, *finals), weights, strict=True))

    found, gradients = jax.jit(jax.value_and_grad(value, (0, 1)))(args, carry)
    x, weight_ih, weight_hh, bias_ih, bias_hh = map(torch.from_numpy, args)
    layer = cell.theirs(shape.width, shape.hidden, batch_first=True, dtype=torch.float64)
    names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    layer.load_state_dict(dict(zip(names, (weight_ih.T, weight_hh.T, bias_ih, bias_hh), strict=True)))
    initial = [torch.from_numpy(array)[None].requires_grad_() for array in carry]
    outputs, final = layer(x.requires_grad_(), tuple(initial) if states == 2 else initial[0])
    finals = final if states == 2 else (final,)
    wanted = sum((a * torch.from_numpy(w)).sum() for a, w in zip((outputs, *finals), weights, strict=True))
    d_x, d_ih, d_hh, *rest = torch.autograd.grad(wanted, [x, *layer.parameters(), *initial])
    d_biases, d_carry = rest[:2], [gradient[0] for gradient in rest[2:]]
    assert float(found) == pytest.approx(wanted.item(), rel=1e-12)
    for ours, theirs in zip(jax.tree.leaves(gradients), (d_x, d_ih.T, d_hh.T, *d_biases, *d_carry), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


@every_cell
def test_an_empty_batch_has_zero_gradients(cell: Cell) -> None:
    args = arguments(cell, Shape(2, 3, 4, 5))
    args[0] = args[0][:0]
    outputs, *gradients = in_jax(cell, args, np.zeros((0, 3, 5)), np.float32)
    assert outputs.shape == (0, 3, 5)
    assert [gradient.shape for gradient in gradients] == [array.shape for array in args]
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("number", "change", "said"),
    [
        (0, lambda x: x[:, :0], r"no size but the batch may be 0"),
        (0, lambda x: x[..., :0], r"no size but the batch may be 0"),
        (0, lambda x: x[0], r"takes floating-point sequences \[B, T, I\], not float32 \(3, 4\)"),
        (0, lambda x: x.astype(np.uint8), r"takes floating-point sequences .* not uint8"),
        (1, np.transpose, r"weight_ih must have shape \(4, \d+\).* not \(\d+, 4\)"),
        (2, lambda w: w[:, :5], r"weight_hh must have shape \(5, \d+\).* not \(5, 5\)"),
        (3, lambda b: b[:1], r"bias_ih must have shape \(\d+,\).* not \(1,\)"),
        (4, lambda b: b.astype(jnp.bfloat16), r"bias_hh is bfloat16 .* the sequences are float32"),
    ],
)
@every_cell
def test_arguments_that_do_not_match_are_refused(cell: Cell, number: int, change: Callable, said: str) -> None:
    args = [array.astype(np.float32) for array in arguments(cell, Shape(2, 3, 4, 5))]
    args[number] = change(args[number])
    with pytest.raises(ValueError, match=said):
        cell.ours(*map(jnp.asarray, args))


def in_float32(cell: Cell, shape: Shape) -> list[jax.Array]:
    return [jnp.asarray(a, jnp.float32) for a in arguments(cell, shape)]


def training(cell: Cell, args: list[jax.Array]) -> jax.stages.Compiled:
    """Three steps down the gradient of the last outputs' squares, as one compiled loop."""

    def loss(args: list[jax.Array]) -> jax.Array:
        return jnp.mean(cell.ours(*args)[:, -1] ** 2)

    def step(_: int, args: list[jax.Array]) -> list[jax.Array]:
        return jax.tree.map(lambda value, slope: value - slope, args, jax.grad(loss)(args))

    return jax.jit(lambda args: lax.fori_loop(0, 3, step, args)).lower(args).compile()


@every_cell
def test_training_twice_gives_the_same_bits(cell: Cell) -> None:
    args = in_float32(cell, Shape(16, 12, 20, 96))  # large enough for XLA to use its threads
    train = training(cell, args)
    for one, other in zip(train(args), train(args), strict=True):
        np.testing.assert_array_equal(one, other)


@every_cell
def test_a_loop_of_gradients_holds_no_convolution(cell: Cell) -> None:
    """Which XLA makes of some products of arrays with three axes, and which is slow in a loop on the CPU."""
    text = str(training(cell, in_float32(cell, Shape(4, 6, 3, 8))).as_text())
    assert "while(" in text
    assert "convolution(" not in text
