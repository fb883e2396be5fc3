"""Training in bfloat16: the networks compute in it, and everything that lasts stays float32."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from experiments.benchmark.cases import CASES
from experiments.benchmark.images import random_images
from jaxgen import precision
from jaxgen.layers import BatchNorm, Linear, matmul_dtype
from jaxgen.models import autoencoder, completion, dcgan, vae
from jaxgen.runs import devices
from jaxgen.runs.layout import Layout
from jaxgen.runs.record import announce

BATCH = 8


def in_precision(name, kind="float32"):
    """A recipe, and a function that makes the arguments of its update."""
    case = CASES[name]()
    recipe = precision.in_precision(case.recipe, kind)
    source = case.source(random_images((2 * BATCH, *case.shape)))

    def arguments():
        batch = source.batch(jax.tree.map(jnp.asarray, source.arrays), jnp.arange(BATCH))
        return recipe.init(jax.random.key(0)), batch, recipe.noise(jax.random.key(1), BATCH)

    return recipe, arguments


@pytest.mark.parametrize(("name_of_it", "kind"), [("bf16", "bf16"), ("float32", "f32")])
@pytest.mark.parametrize("name", CASES)
def test_every_product_is_of_its_precision(name, name_of_it, kind):
    """As exported for a GPU: what is multiplied. 16-bit products may be summed to float32."""
    recipe, arguments = in_precision(name, name_of_it)
    shapes = jax.eval_shape(arguments)
    exported = jax.export.export(jax.jit(recipe.update), platforms=["cuda"])(*shapes)
    products = re.findall(r"stablehlo.(?:convolution|dot_general).* : (\(.*\)) ->", exported.mlir_module())
    assert set(re.findall(r"b?f\d+(?=>)", " ".join(products))) == {kind}
    after, metrics = jax.eval_shape(recipe.update, *shapes)
    assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, shapes[0])
    assert {leaf.dtype for leaf in jax.tree.leaves(metrics)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(("kind", "attribute"), [("float32", "HIGHEST"), ("tf32", "HIGH"), ("bf16", "HIGHEST")])
def test_only_tf32_lets_a_gpu_round_what_it_multiplies(kind, attribute):
    """Under the precision that `jaxgen.command` sets for everything; HIGH is JAX's word for TensorFloat-32."""
    with jax.default_matmul_precision("highest"):
        recipe, arguments = in_precision("conv_autoencoder", kind)
        exported = jax.export.export(jax.jit(recipe.update), platforms=["cuda"])(*jax.eval_shape(arguments))
    precisions = re.findall(r"#stablehlo<precision (\w+)>|precision = \[(\w+), (\w+)\]", exported.mlir_module())
    assert {word for found in precisions for word in found if word} == {attribute}


@pytest.mark.parametrize(
    "module",
    [
        dcgan.DigitsGenerator(),
        dcgan.DigitsDiscriminator(),
        dcgan.MnistGenerator(),
        dcgan.MnistDiscriminator(),
        vae.ConvVAE(),
        autoencoder.ConvAutoencoder(),
        completion.RowCompleter("lstm"),
        completion.RowCompleter("gru"),
    ],
    ids=lambda module: type(module).__name__,
)
def test_networks_return_float32(module):
    """Its last activation too: bfloat16 has no number between 0.996 and 1."""
    x = jnp.zeros((2, *module.input_shape))
    with matmul_dtype("bfloat16"):
        made = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), x))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} <= {jnp.dtype("float32"), jnp.dtype("int32")}


@pytest.mark.parametrize("name", ["conv_autoencoder", "rnn_lstm", "rnn_gru"])
def test_a_step_is_nearly_that_of_float32(name):
    """bfloat16 rounds each number by up to one part in 512, and these networks have up to four layers.

    Networks with batch norm are left out. It magnifies what remains of a batch once its mean is taken off: at the start
    of a training their gradients are off by tens of per cent, also with PyTorch's autocast.
    """
    recipe, arguments = in_precision(name)
    state, batch, noise = jax.jit(arguments)()
    after, metrics = jax.jit(recipe.update)(state, batch, noise)
    low_after, low_metrics = jax.jit(in_precision(name, "bf16")[0].update)(state, batch, noise)
    for metric in metrics:
        (total, weight), (low_total, low_weight) = metrics[metric], low_metrics[metric]
        assert float(low_total / low_weight) == pytest.approx(float(total / weight), rel=0.01)
    for moments, low_moments in zip(first_moments(after), first_moments(low_after), strict=True):
        apart = optax.tree.norm(jax.tree.map(jnp.subtract, moments, low_moments))
        assert 0 < apart < 0.1 * optax.tree.norm(moments)


def first_moments(state):
    """The first moments of every Adam in a state: after a first step they are its gradient's tenth."""
    adams = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, optax.ScaleByAdamState))
    return [adam.mu for adam in adams if isinstance(adam, optax.ScaleByAdamState)]


@pytest.mark.parametrize("name", CASES)
def test_float64_stays_float64(name):
    with jax.enable_x64(True):
        recipe, arguments = in_precision(name)
        after, _ = jax.eval_shape(recipe.update, *jax.tree.map(in_float64, jax.eval_shape(arguments)))
        assert jnp.float32 not in {leaf.dtype for leaf in jax.tree.leaves(after)}


def in_float64(x):
    return jax.ShapeDtypeStruct(x.shape, jnp.float64 if x.dtype == jnp.float32 else x.dtype)


def test_statistics_are_taken_in_float32():
    """About 100 bfloat16 knows halves only, so a sum of 4096 such numbers taken in it comes to a stop on the way."""
    x = 100 + jax.random.normal(jax.random.key(0), (4096, 3))
    linear, norm = Linear(3), BatchNorm()
    linear_variables, norm_variables = (layer.init(jax.random.key(1), x) for layer in (linear, norm))
    with matmul_dtype("bfloat16"):
        z = linear.apply(linear_variables, x)
        y, moved = norm.apply(norm_variables, z, True, mutable=["batch_stats"])
    statistics = moved["batch_stats"]
    assert y.dtype == statistics["running_mean"].dtype == jnp.float32
    assert statistics["running_mean"].tolist() == pytest.approx((0.1 * z.mean(0)).tolist())
    assert jnp.abs(y.mean(0)).max() < 0.01


@pytest.mark.parametrize(
    ("processor", "precision", "warned"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 avx512f", "bf16", True),
        ("processor: 0\nflags\t\t: fpu avx2 avx512f", "float32", False),
        ("processor: 0\nflags\t\t: fpu avx512f avx512_bf16", "bf16", False),
        ("processor: 0\nflags\t\t: fpu amx_bf16 amx_tile", "bf16", False),
        ("processor: 0\nFeatures\t: fp asimd", "bf16", False),  # not x86: nothing is known
        (None, "bf16", False),  # not Linux
    ],
)
def test_a_run_says_where_a_processor_cannot_multiply_bfloat16(
    processor, precision, warned, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "cpuinfo"
    if processor is not None:
        path.write_text(processor)
    monkeypatch.setattr(devices, "_CPUINFO", path)
    announce(Layout(tmp_path), {"data": {}, "options": {"precision": precision}}, jax.devices("cpu"), 1, "device")
    assert ("cannot multiply bfloat16" in capsys.readouterr().out) == warned


@pytest.mark.parametrize("name", ["dcgan_digits", "conv_autoencoder", "dcgan_mnist", "vae_mnist"])
def test_bfloat16_products_have_the_form_that_xla_multiplies_as_such_on_the_cpu(name):
    """It converts the operands of other products to float32 first; and no result is rounded to bfloat16."""
    recipe, arguments = in_precision(name, "bf16")
    lowered = jax.jit(recipe.update).trace(*jax.eval_shape(arguments)).lower(lowering_platforms=("cpu",)).as_text()
    pattern = r"stablehlo.dot_general .* contracting_dims = (\[.*?\] x \[.*?\]).*xbf16>, .*xbf16>\) -> .*x(\w+)>"
    assert set(re.findall(pattern, lowered)) == {("[1] x [0]", "f32"), ("[1] x [1]", "f32")}
