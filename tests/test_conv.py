"""Convolutions against PyTorch, over a grid of shapes and options, and what they are lowered to."""

import math
import re
from functools import partial
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d, conv_transpose2d

from jaxgen.ops.conv import _winograd, conv, conv_general_dilated, conv_transpose

# (input [B, H, W, C_in], C_out, window, options). These are large enough for Winograd's form, with kernels of two and
# of three strides; one has output padding, and padding beyond a stride.
WIDE_CONV = [
    ((2, 9, 8, 64), 70, (3, 3), {"padding": (1, 1)}),
    ((4, 14, 18, 20), 64, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
    ((6, 23, 21, 8), 65, (6, 6), {"stride": (3, 3), "padding": (4, 1)}),
]
WIDE_TRANSPOSE = [
    ((2, 8, 9, 70), 64, (3, 3), {"padding": (1, 1)}),
    ((2, 7, 8, 64), 16, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
    ((2, 9, 8, 64), 16, (6, 6), {"stride": (2, 2), "padding": (3, 2), "output_padding": (1, 0)}),
]
# The recipes' layers, and one of every kind of option.
CONV = [
    ((2, 8, 8, 1), 16, (4, 4), {}),
    ((2, 3, 3, 32), 1, (3, 3), {}),
    ((2, 6, 6, 3), 5, (3, 3), {"padding": (1, 1)}),
    ((1, 9, 7, 2), 3, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
    ((2, 10, 11, 3), 4, (3, 2), {"stride": (3, 1), "padding": (0, 2), "dilation": (2, 3)}),
    ((2, 7, 5, 40), 3, (3, 3), {"stride": (2, 1), "padding": (2, 1), "dilation": (1, 2)}),
    ((1, 4, 4, 7), 3, (1, 1), {}),
    ((1, 9, 10, 128), 64, (3, 3), {"padding": (3, 0)}),
    *WIDE_CONV,
]
TRANSPOSE = [
    ((2, 1, 1, 6), 5, (3, 3), {}),
    ((2, 5, 5, 8), 1, (4, 4), {}),
    ((2, 4, 3, 8), 3, (2, 2), {"stride": (2, 2)}),
    ((1, 4, 4, 6), 5, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
    ((1, 3, 4, 5), 2, (3, 4), {"stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1)}),
    ((1, 3, 3, 2), 4, (2, 3), {"stride": (1, 2), "dilation": (3, 2), "output_padding": (2, 0)}),
    ((1, 3, 3, 4), 4, (2, 2), {"stride": (4, 3), "output_padding": (1, 2)}),
    ((1, 9, 8, 64), 64, (3, 3), {"padding": (0, 2)}),
    *WIDE_TRANSPOSE,
]


def arrays(shape, channels, window, *, transposed: bool, dtype) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    kernel = (*window, channels, shape[3]) if transposed else (*window, shape[3], channels)
    return chance.normal(size=shape).astype(dtype), chance.normal(size=kernel).astype(dtype)


def ours(function, x, kernel, options):
    """Output, and the gradients of Σ output · w by both arguments for a w that tells all positions apart."""
    apply = partial(function, **options)
    shape = jax.eval_shape(apply, x, kernel).shape
    w = np.cos(np.arange(np.prod(shape))).reshape(shape).astype(x.dtype)

    @jax.jit  # one compilation, where each operation by itself would be several
    def output_and_gradients(x, kernel, w):
        y, pull = jax.vjp(apply, x, kernel)
        return [y, *pull(w)]

    return output_and_gradients(x, kernel, w), w


def theirs(function, x, kernel, options, w):
    x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    kernel = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).requires_grad_()
    y = function(x, kernel, **options)
    y.backward(torch.from_numpy(w.transpose(0, 3, 1, 2).copy()))
    outputs = [y.detach(), x.grad]
    return [t.numpy().transpose(0, 2, 3, 1) for t in outputs] + [kernel.grad.numpy().transpose(2, 3, 1, 0)]


def largest_error(function, reference, shape, channels, window, options, dtype) -> float:
    """Of output and gradients, relative to each one's largest element."""
    x, kernel = arrays(shape, channels, window, transposed=function is conv_transpose, dtype=dtype)
    found, w = ours(function, x, kernel, options)
    wanted = theirs(reference, x, kernel, options, w)
    assert [a.shape for a in found] == [b.shape for b in wanted]
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for a, b in zip(found, wanted, strict=True))


def cases(convolutions, transposed) -> list[tuple]:
    """With the function and PyTorch's before each."""
    return [(conv, conv2d, *case) for case in convolutions] + [
        (conv_transpose, conv_transpose2d, *case) for case in transposed
    ]


CASES = cases(CONV, TRANSPOSE)


@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch_in_float64(case, float64):
    assert largest_error(*case, np.float64) < 1e-11


@pytest.mark.parametrize("case", CASES)
def test_equals_pytorch_in_float32(case):
    assert largest_error(*case, np.float32) < 1e-5


@pytest.mark.parametrize("case", cases(WIDE_CONV, WIDE_TRANSPOSE))
def test_winograd_needs_fewer_multiplications_and_rounds_as_well(case):
    """Winograd's form, of the convolution and of both its gradients. Against float64, PyTorch's own errors
    are 3e-7 to 1e-6 here, and ours 1e-7 to 7e-7."""
    function, _, shape, channels, window, options = case
    x, kernel = arrays(shape, channels, window, transposed=function is conv_transpose, dtype=np.float32)

    def output_and_gradients(x, kernel):
        y, pull = jax.vjp(partial(function, **options), x, kernel)
        return y, *pull(y)

    module = jax.export.export(jax.jit(output_and_gradients), platforms=["cpu"])(x, kernel).mlir_module()
    products = re.findall(r"dot_general.* : \(tensor<(.*)xf32>, tensor<(.*)xf32>\) -> tensor<(.*)xf32>", module)
    sizes = [[math.prod(map(int, matrix.split("x"))) for matrix in product] for product in products]
    multiplications = sum(math.isqrt(math.prod(size)) for size in sizes)  # N·K, K·M and N·M: N·K·M
    small = x if function is conv_transpose else jax.eval_shape(partial(function, **options), x, kernel)
    assert multiplications < 0.8 * 3 * kernel.size * math.prod(small.shape[:3])

    assert largest_error(*case, np.float32) < 1.5e-6


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)), window=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pairs, padding=paddings, dilation=pairs, transposed=st.booleans(), wide=st.booleans(), data=st.data(),
)  # fmt: skip
def test_any_options_equal_pytorch(size, window, stride, padding, dilation, transposed, wide, data):
    """Where PyTorch takes them; where it refuses, so do we."""
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    if transposed:
        extra = [st.integers(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
        options["output_padding"] = data.draw(st.tuples(*extra))
    function, reference = (conv_transpose, conv_transpose2d) if transposed else (conv, conv2d)
    shape, channels = (2, *size, 12 if wide else 2), 3
    with jax.enable_x64(True):
        x, kernel = arrays(shape, channels, window, transposed=transposed, dtype=np.float64)
        try:
            reference(torch.zeros(2, shape[3], *size), torch.zeros(*kernel.transpose(3, 2, 0, 1).shape), **options)
        except RuntimeError:
            with pytest.raises(ValueError, match="conv"):
                function(x, kernel, **options)
            return
        assert largest_error(function, reference, shape, channels, window, options, np.float64) < 1e-11


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(9, 14), st.integers(9, 14)), taps=st.integers(2, 3), step=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)), transposed=st.booleans(), data=st.data(),
)  # fmt: skip
def test_winograd_equals_pytorch(size, taps, step, padding, transposed, data):
    """Also where it would not pay."""
    function, reference = (conv_transpose, conv_transpose2d) if transposed else (conv, conv2d)
    window, options = (taps * step, taps * step), {"stride": (step, step), "padding": padding}
    if transposed:
        options["output_padding"] = data.draw(st.tuples(*[st.integers(0, step - 1)] * 2))
    with (
        jax.enable_x64(True),
        mock.patch.multiple("jaxgen.ops.conv._winograd", WIDE=1, MANY=1, FEWER=9),
        mock.patch("jaxgen.ops.conv._winograd._tiles", wraps=_winograd._tiles) as tiles,
    ):
        assert largest_error(function, reference, (2, *size, 2), 3, window, options, np.float64) < 1e-11
    assert tiles.called


def test_integers_are_exact():
    """As wide as for Winograd's form, which has fractions."""
    chance = np.random.default_rng(0)
    x, kernel = chance.integers(0, 256, (2, 10, 10, 64)), chance.integers(-9, 9, (3, 3, 64, 64))
    wanted = conv2d(torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(kernel.transpose(3, 2, 0, 1)))
    found = conv(jnp.asarray(x, jnp.int32), jnp.asarray(kernel, jnp.int32))
    np.testing.assert_array_equal(found, wanted.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("function", "x", "kernel", "options", "said"),
    [
        (conv, (1, 4, 4, 3), (3, 3, 2, 5), {}, r"\(1, 4, 4, 3\) and kernel \(3, 3, 2, 5\) do not match"),
        (conv, (1, 4, 4, 3), (5, 3, 3, 3), {}, "does not fit"),
        (conv, (1, 4, 4, 3), (5, 3, 2, 2), {}, r"\(1, 4, 4, 3\) and kernel \(5, 3, 2, 2\) do not match"),
        (conv, (1, 4, 4, 4), (2, 2, 2, 5), {"groups": 2}, "with C_out a multiple of 2"),
        (conv, (1, 4, 4, 4), (2, 2, 4, 4), {"groups": 0}, "groups must be at least 1"),
        (conv, (1, 2, 2, 3), (3, 3, 3, 5), {}, "does not fit"),
        (conv, (4, 4, 3), (3, 3, 3, 5), {}, "four dimensions"),
        (conv, (1, 4, 4, 0), (3, 3, 0, 5), {}, "no size but the batch may be 0"),
        (conv, (1, 4, 4, 3), (3, 3, 3, 5), {"stride": (0, 1)}, "stride must be two numbers .* at least 1"),
        (conv, (1, 4, 4, 3), (3, 3, 3, 5), {"stride": (1, 1, 1)}, r"stride must be two .* not \(1, 1, 1\)"),
        (conv, (1, 4, 4, 3), (3, 3, 3, 5), {"padding": (1, -1)}, "padding must be two numbers .* at least 0"),
        (conv, (1, 4, 4, 3), (3, 3, 3, 5), {"dilation": (1, 1, 1)}, "dilation must be two"),
        (conv_transpose, (1, 4, 4, 3), (3, 3, 3, 5), {}, r"\(1, 4, 4, 3\) and kernel \(3, 3, 3, 5\) do not match"),
        (conv_transpose, (1, 4, 4, 3), (3, 3, 2, 3), {"groups": 2}, "must divide 3"),
        (conv_transpose, (1, 1, 1, 3), (1, 1, 5, 3), {"padding": (1, 1)}, "leaves nothing"),
        (conv_transpose, (1, 4, 4, 3), (3, 3, 5, 3), {"output_padding": (1, 0)}, "output_padding"),
        (conv_transpose, (1, 4, 4, 3), (3, 3, 5, 3), {"output_padding": (0, 0, 0)}, "output_padding must be two"),
    ],
)
def test_arguments_that_do_not_match_are_refused(function, x, kernel, options, said):
    with pytest.raises(ValueError, match=said):
        function(jnp.zeros(x), jnp.zeros(kernel), **options)


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_mixed_dtypes_are_refused(function):
    with pytest.raises(ValueError, match=r"images \(1, 4, 4, 3\) are float32, the kernel \(3, 3, 3, 3\) is bfloat16"):
        function(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 3, 3), jnp.bfloat16))


GROUPS = [
    (conv, conv2d, (2, 7, 6, 6), 4, (3, 2), {"stride": (2, 1), "padding": (1, 0)}, 2),
    (conv, conv2d, (2, 5, 6, 3), 6, (3, 3), {"padding": (1, 1)}, 3),
    (conv_transpose, conv_transpose2d, (2, 4, 3, 6), 4, (4, 4), {"stride": (2, 2), "padding": (1, 1)}, 2),
    (conv_transpose, conv_transpose2d, (2, 4, 3, 3), 3, (3, 2), {"output_padding": (0, 0)}, 3),
]


@pytest.mark.parametrize(("function", "reference", "shape", "channels", "window", "options", "groups"), GROUPS)
def test_groups_equal_pytorch(function, reference, shape, channels, window, options, groups, float64):
    chance, per_group = np.random.default_rng(0), shape[3] // groups
    kernel = (*window, channels // groups, shape[3]) if function is conv_transpose else (*window, per_group, channels)
    x, kernel = chance.normal(size=shape), chance.normal(size=kernel)
    found, w = ours(function, x, kernel, {**options, "groups": groups})
    for mine, wanted in zip(found, theirs(reference, x, kernel, {**options, "groups": groups}, w), strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize(("function", "reference"), [(conv, conv2d), (conv_transpose, conv_transpose2d)])
def test_an_empty_batch_is_pytorchs(function, reference):
    x, kernel = np.zeros((0, 6, 5, 4), np.float32), np.ones((3, 3, 4, 4), np.float32)
    found, w = ours(function, x, kernel, {"stride": (2, 2)})
    wanted = theirs(reference, x, kernel, {"stride": (2, 2)}, w)
    assert [array.shape for array in found] == [array.shape for array in wanted]
    assert not np.any(found[2])


NAN_CASES = [
    (conv, conv2d, (2, 8, 8, 64), 64, (3, 3), {"padding": (1, 1)}),
    (conv, conv2d, (4, 14, 14, 64), 128, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
    (conv_transpose, conv_transpose2d, (4, 7, 7, 128), 64, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
    (conv, conv2d, (2, 8, 8, 3), 5, (3, 3), {"padding": (1, 1)}),
    (conv_transpose, conv_transpose2d, (2, 6, 6, 8), 4, (4, 4), {"stride": (2, 2), "padding": (1, 1)}),
]


@pytest.mark.parametrize("spoilt", ["image", "cotangent"])
@pytest.mark.parametrize(("function", "reference", "shape", "channels", "window", "options"), NAN_CASES)
def test_a_nan_reaches_only_what_reads_it(function, reference, shape, channels, window, options, spoilt):
    """In the output and in both gradients, for every one of four pixels: those of PyTorch's plain sum in float64."""
    x, kernel = arrays(shape, channels, window, transposed=function is conv_transpose, dtype=np.float32)
    apply = partial(function, **options)
    w = np.ones(jax.eval_shape(apply, x, kernel).shape, np.float32)

    @jax.jit
    def output_and_gradients(x, kernel, w):
        y, pull = jax.vjp(apply, x, kernel)
        return [y, *pull(w)]

    for row, column in ((2, 3), (3, 3), (3, 4), (4, 4)):
        x_spoilt, w_spoilt = x.copy(), w.copy()
        (x_spoilt if spoilt == "image" else w_spoilt)[1, row, column, 2] = np.nan
        found = output_and_gradients(x_spoilt, kernel, w_spoilt)
        wanted = theirs(reference, *(a.astype(np.float64) for a in (x_spoilt, kernel)), options, w_spoilt.astype(float))
        for mine, reference_value in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(np.isnan(mine), np.isnan(reference_value))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", [CASES[7], CASES[8], CASES[len(CONV) + 3], CASES[len(CONV) + 8]])
def test_16_bit_sums_are_as_good_as_pytorchs(case, dtype):
    function, reference, shape, channels, window, options = case
    pair = arrays(shape, channels, window, transposed=function is conv_transpose, dtype=np.float32)
    low = [jnp.asarray(array, dtype) for array in pair]
    exact = [np.asarray(array, np.float64) for array in low]

    @jax.jit
    def output_and_gradients(x, kernel):
        y, pull = jax.vjp(partial(function, **options), x, kernel)
        return [y, *pull(jnp.ones_like(y))]

    found = output_and_gradients(*low)
    ones = np.ones(found[0].shape)
    wanted = theirs(reference, *exact, options, ones)
    their_dtype = getattr(torch, dtype)
    x = torch.from_numpy(exact[0].transpose(0, 3, 1, 2).copy()).to(their_dtype).requires_grad_()
    kernel = torch.from_numpy(exact[1].transpose(3, 2, 0, 1).copy()).to(their_dtype).requires_grad_()
    y = reference(x, kernel, **options)
    y.backward(torch.ones_like(y))
    outputs = [y.detach(), x.grad]
    low_torch = [t.double().numpy().transpose(0, 2, 3, 1) for t in outputs]
    low_torch.append(kernel.grad.double().numpy().transpose(2, 3, 1, 0))
    for mine, theirs_low, value in zip(found, low_torch, wanted, strict=True):
        assert mine.dtype == dtype
        error, allowed = (np.linalg.norm(np.asarray(a, np.float64) - value) for a in (mine, theirs_low))
        assert error <= 1.2 * allowed


FLAX = [
    ((2, 9, 8, 3), (3, 3, 3, 4), (2, 2), "SAME", {}),
    ((2, 9, 8, 4), (2, 3, 2, 6), (1, 1), "SAME", {"feature_group_count": 2}),
    ((2, 9, 8, 3), (3, 3, 3, 4), (1, 2), [(2, 0), (0, 1)], {"rhs_dilation": (2, 1)}),
    ((2, 9, 8, 3), (3, 3, 3, 4), (1, 1), [(-1, 2), (0, -1)], {}),
]


@pytest.mark.parametrize(("x", "kernel", "stride", "padding", "options"), FLAX)
def test_conv_general_dilated_is_lax_s_without_its_convolution(x, kernel, stride, padding, options, float64):
    chance = np.random.default_rng(0)
    x, kernel = (jnp.asarray(chance.normal(size=shape)) for shape in (x, kernel))
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    ours_, lax_ = (jax.jit(partial(f, window_strides=stride, padding=padding, **options)) for f in
                   (conv_general_dilated, jax.lax.conv_general_dilated))  # fmt: skip
    np.testing.assert_allclose(ours_(x, kernel), lax_(x, kernel), rtol=1e-12, atol=1e-12)
    assert "stablehlo.convolution" not in ours_.lower(x, kernel).as_text()


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "options"),
    [
        ((1, 3, 8, 8), (4, 3, 3, 3), (1, 1), {}),
        ((1, 8, 8, 3), (3, 3, 3, 4), (1, 1), {"lhs_dilation": (2, 2), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}),
        ((1, 8, 3), (3, 3, 4), (1,), {"dimension_numbers": ("NHC", "HIO", "NHC")}),
        ((1, 2, 2, 3), (3, 3, 3, 4), (1, 1), {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}),
        ((1, 8, 8, 3), (3, 3, 3, 4), (1, 1), {"precision": "highest", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}),
    ],
)
def test_conv_general_dilated_leaves_the_rest_to_lax(shape, kernel, stride, options):
    x, kernel = jnp.ones(shape), jnp.ones(kernel)
    padding = [(0, 0)] * len(stride)
    found = conv_general_dilated(x, kernel, stride, padding, **options)
    np.testing.assert_array_equal(found, jax.lax.conv_general_dilated(x, kernel, stride, padding, **options))


def test_flax_convolutions_take_it(float64):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3))
    layers = [nn.Conv(4, (3, 3), strides=2, param_dtype=float, **options)
              for options in ({}, {"conv_general_dilated": conv_general_dilated})]  # fmt: skip
    variables = layers[0].init(jax.random.key(0), x)
    plain, fast = (jax.jit(jax.grad(lambda v, layer=layer: jnp.sin(layer.apply(v, x)).sum())) for layer in layers)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-10), fast(variables), plain(variables))
    assert "stablehlo.convolution" not in fast.lower(variables).as_text()


@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_vmap_over_kernels_equals_a_loop(function):
    chance = np.random.default_rng(1)
    x, kernels = (jnp.asarray(chance.normal(size=s), jnp.float32) for s in ((3, 2, 5, 5, 4), (3, 3, 3, 4, 4)))
    mapped = jax.vmap(function)(x, kernels)
    np.testing.assert_allclose(mapped, [function(*pair) for pair in zip(x, kernels, strict=True)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("first", ["x", "kernel"])
@pytest.mark.parametrize("function", [conv, conv_transpose])
def test_second_derivatives(function, first, float64):
    """Reverse over reverse, against a difference quotient: by both arguments, of the gradient by either."""
    point = dict(zip(("x", "kernel"), arrays((1, 4, 4, 3), 3, (2, 2), transposed=False, dtype=np.float64), strict=True))

    def slope(point):
        value = lambda point: jnp.sum(jnp.tanh(function(point["x"], point["kernel"], stride=(2, 2))))  # noqa: E731
        return jnp.sum(jnp.sin(jax.grad(value)(point)[first]))

    def along(direction, tiny):
        return slope({name: point[name] + tiny * direction[name] for name in point})

    direction = {name: np.cos(np.arange(array.size)).reshape(array.shape) for name, array in point.items()}
    quotient = (along(direction, 1e-6) - along(direction, -1e-6)) / 2e-6
    gradient = jax.grad(slope)({name: jnp.asarray(array) for name, array in point.items()})
    found = sum(float(jnp.vdot(gradient[name], direction[name])) for name in point)
    assert found == pytest.approx(float(quotient), rel=1e-6)


def learning(function, options):
    """A loop of steps that need both gradients."""

    def step(_, arrays):
        slopes = jax.grad(lambda x, kernel: jnp.sum(function(x, kernel, **options) ** 2), argnums=(0, 1))(*arrays)
        return tuple(array - 0.1 * slope for array, slope in zip(arrays, slopes, strict=True))

    return jax.jit(lambda x, kernel: jax.lax.fori_loop(0, 3, step, (x, kernel)))


@pytest.mark.parametrize(
    ("function", "size", "channels", "options"),
    [
        (conv, 6, 4, {"stride": (2, 2)}),
        (conv, 8, 64, {"padding": (1, 1)}),
        (conv_transpose, 6, 4, {"stride": (2, 2)}),
    ],
)
def test_loops_hold_convolutions_except_on_the_cpu(function, size, channels, options):
    from jax import export

    x, kernel = jnp.ones((2, size, size, channels)), jnp.ones((3, 3, channels, channels))
    compiled = learning(function, options).lower(x, kernel).compile().as_text()
    assert not re.search(r"\bconvolution\(|lhs_dilat", compiled)
    for platform, has_convolutions in (("cpu", False), ("cuda", True)):
        module = export.export(learning(function, options), platforms=[platform])(x, kernel).mlir_module()
        assert ("stablehlo.convolution" in module) == has_convolutions
