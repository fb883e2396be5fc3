"""Max-pooling against PyTorch, ties included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from jaxgen.ops.pool import max_pool

CASES = [
    ((2, 8, 6, 3), (2, 2), {}),
    ((2, 7, 5, 3), (2, 2), {}),
    ((1, 6, 6, 2), (3, 2), {"stride": (1, 2)}),
    ((1, 7, 8, 2), (3, 3), {"stride": (2, 2), "padding": (1, 1)}),
    ((1, 34, 17, 2), (17, 17), {}),  # more pixels in a window than a byte can number
]


def both(x: np.ndarray, window, options):
    """Output and gradient, ours and PyTorch's, for weights that tell all positions apart."""
    y, pull = jax.vjp(lambda x: max_pool(x, window, **options), jnp.asarray(x))
    w = np.cos(np.arange(y.size)).reshape(y.shape).astype(x.dtype)
    reference = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    out = max_pool2d(reference, window, **options)
    out.backward(torch.from_numpy(w.transpose(0, 3, 1, 2).copy()))
    assert reference.grad is not None
    return (y, pull(jnp.asarray(w))[0]), [t.numpy().transpose(0, 2, 3, 1) for t in (out.detach(), reference.grad)]


@pytest.mark.parametrize(("shape", "window", "options"), CASES)
@pytest.mark.parametrize("kind", ["distinct", "after a ReLU", "all equal"])
def test_equals_pytorch(shape, window, options, kind):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    x = {"distinct": x, "after a ReLU": np.maximum(np.round(x), 0), "all equal": np.zeros_like(x)}[kind]
    ours, theirs = both(x, window, options)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("window", "options"),
    [((2, 2), {"padding": (1, 1)}), ((3, 3), {"stride": (2, 2), "padding": (1, 1)}), ((2, 2), {"stride": (1, 1)})],
)
def test_a_window_of_minus_infinity_keeps_its_gradient(window, options):
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    x[0, :3, :3] = x[1, -2:, -2:] = -np.inf
    ours, theirs = both(x, window, options)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"stride": (1, 1), "padding": (1, 1)}])
def test_an_empty_batch_has_an_empty_gradient(options):
    ours, theirs = both(np.zeros((0, 4, 4, 3), np.float32), (2, 2), options)
    assert [a.shape for a in ours] == [b.shape for b in theirs]


def test_nan_propagates():
    x = np.ones((1, 4, 4, 1), np.float32)
    x[0, 1, 2, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(max_pool(jnp.asarray(x)))[0, :, :, 0], [[False, True], [False, False]])


@pytest.mark.parametrize(
    ("x", "options", "said"),
    [
        (np.zeros((1, 4, 4, 1), np.uint8), {}, r"floating-point images .* not uint8 \(1, 4, 4, 1\)"),
        (np.zeros((4, 4, 1), np.float32), {}, r"not float32 \(4, 4, 1\)"),
        (np.zeros((1, 4, 4, 0), np.float32), {}, r"not float32 \(1, 4, 4, 0\)"),
        (np.zeros((1, 4, 4, 1), np.float32), {"stride": (1, 1, 1)}, r"stride must be two .* not \(1, 1, 1\)"),
        (np.zeros((1, 4, 4, 1), np.float32), {"stride": (0, 1)}, "stride must be two"),
    ],
)
def test_arguments_that_do_not_match_are_refused(x, options, said):
    with pytest.raises(ValueError, match=said):
        max_pool(x, **options)


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="max_pool"):
        max_pool(jnp.zeros((1, 2, 2, 1)), (3, 3))


def test_padding_beyond_half_the_window_is_refused():
    with pytest.raises(ValueError, match="half the window"):
        max_pool(jnp.zeros((1, 4, 4, 1)), (2, 2), padding=(2, 0))
