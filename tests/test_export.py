"""Exported programs: StableHLO without jaxgen, ONNX in ONNX Runtime, both with the numbers of jaxgen."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import jaxgen
from jaxgen import layers
from jaxgen.export import Function, functions_of, onnx_model, stablehlo
from jaxgen.models import autoencoder, completion, dcgan, vae

MODULES = {
    "digits_generator": dcgan.DigitsGenerator(latent=6),
    "digits_discriminator": dcgan.DigitsDiscriminator(),
    "mnist_generator": dcgan.MnistGenerator(latent=5, size=8, width=2),
    "mnist_discriminator": dcgan.MnistDiscriminator(size=8, width=2),
    "vae": vae.ConvVAE(3, size=8, width=2),
    "autoencoder": autoencoder.ConvAutoencoder(input_shape=(8, 8, 3)),
    "lstm": completion.RowCompleter("lstm", hidden=5, width=7),
    "gru": completion.RowCompleter("gru", hidden=5, width=7),
    "conditional_generator": dcgan.DigitsGenerator(latent=6, classes=3),
    "conditional_discriminator": dcgan.DigitsDiscriminator(classes=3),
    "conditional_vae": vae.ConvVAE(3, size=8, width=2, classes=4),
}
NAMES = {
    "digits_generator": ["generate", "sample"],
    "mnist_generator": ["generate", "sample"],
    "conditional_generator": ["generate", "sample"],
    "vae": ["encode", "decode", "reconstruct"],
    "conditional_vae": ["encode", "decode", "reconstruct"],
    "autoencoder": ["encode", "decode", "reconstruct"],
    "lstm": ["complete"],
    "gru": ["complete"],
}


def random_like(tree, seed=0):
    """Variables of these shapes that differ in every number, with positive variances."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        is_float = leaf.dtype == jnp.float32
        return jnp.asarray(random.uniform(0.1, 0.5, leaf.shape), leaf.dtype) if is_float else jnp.ones((), leaf.dtype)

    return jax.tree.map(draw, tree)


def variables_of(module, shape=None):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, *(shape or module.input_shape))))
    return random_like(shapes)


def functions(name, **options) -> list[Function]:
    return functions_of(MODULES[name], variables_of(MODULES[name]), count=3, **options)


def inputs_of(function: Function, batch: int) -> list[np.ndarray]:
    random = np.random.default_rng(batch)
    made = []
    for shape, dtype in function.inputs.values():
        whole = [batch if length is None else length for length in shape]
        made.append((random.normal(size=whole) if dtype == "float32" else random.integers(0, 3, whole)).astype(dtype))
    return made


def run_onnx(content: bytes, inputs: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
    return output


@pytest.mark.parametrize("name", MODULES)
def test_functions_follow_from_the_module(name):
    assert [function.name for function in functions(name)] == NAMES.get(name, ["apply"])


ALONE = """
import sys
sys.modules["jaxgen"] = sys.modules["flax"] = None
import jax, numpy as np
for file in sys.argv[1:]:
    program = jax.export.deserialize(bytearray(open(file, "rb").read()))
    assert program.platforms == ("cpu", "cuda")
    for case in np.load(f"{file}.npy", allow_pickle=True):
        got = program.call(*case["inputs"])
        np.testing.assert_allclose(got, case["output"], rtol=1e-5, atol=1e-6, err_msg=file)
print("equal")
"""


def test_stablehlo_runs_without_jaxgen_and_flax(tmp_path):
    """In a process that cannot import them, for batches of two sizes."""
    files = []
    chosen = {"digits_generator": (1, 3), "vae": (3,), "lstm": (3,)}
    for name, batches in chosen.items():
        for function in functions(name)[-2:]:  # generate and sample; decode and reconstruct; complete
            file = tmp_path / f"{name}.{function.name}"
            file.write_bytes(stablehlo(function))
            inputs = [inputs_of(function, batch) for batch in batches]
            outputs = [np.asarray(jax.jit(function.call)(*each)) for each in inputs]
            cases = [{"inputs": each, "output": output} for each, output in zip(inputs, outputs, strict=True)]
            np.save(f"{file}.npy", np.array(cases, object))
            files.append(file)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *files], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "equal"), done.stderr


def test_exported_functions_compute_what_the_library_computes():
    """A key, a code, an image: with the functions that research code calls."""
    key = jax.random.key(7)
    generator, its_variables = MODULES["digits_generator"], variables_of(MODULES["digits_generator"])
    sample = next(each for each in functions("digits_generator") if each.name == "sample")
    program = jax.export.deserialize(bytearray(stablehlo(sample)))
    wanted = dcgan.sample(generator, its_variables, key, 3)
    np.testing.assert_allclose(program.call(jax.random.key_data(key)), wanted, rtol=1e-5, atol=1e-6)

    images = np.random.default_rng(0).uniform(size=(2, 9, 7, 1)).astype(np.float32)
    module, its_variables = MODULES["gru"], variables_of(MODULES["gru"])
    (complete,) = functions_of(module, its_variables, height=9, length=4, unrolled=True)
    wanted = completion.complete(module, its_variables, images, 4)
    np.testing.assert_allclose(run_onnx(onnx_model(complete), [images]), wanted, rtol=1e-5, atol=1e-6)


def test_stablehlo_has_no_weights_among_its_arguments():
    for function in functions("vae"):
        program = jax.export.deserialize(bytearray(stablehlo(function)))
        assert len(program.in_avals) == len(function.inputs)


@pytest.mark.parametrize("name", MODULES)
def test_onnx_equals_jaxgen(name):
    for function in functions(name, unrolled=True):
        if function.name == "sample":
            continue
        content = onnx_model(function)
        for batch in (1, 3):
            inputs = inputs_of(function, batch)
            wanted = jax.jit(function.call)(*inputs)
            np.testing.assert_allclose(run_onnx(content, inputs), wanted, rtol=1e-5, atol=1e-5)


def test_onnx_model_says_what_it_is():
    (_, decode, _) = functions("vae", unrolled=True)
    model = onnx.load_from_string(onnx_model(decode, {"experiment": "vae_mnist"}))
    (z,), (images,) = model.graph.input, model.graph.output
    assert (z.name, [axis.dim_param or axis.dim_value for axis in z.type.tensor_type.shape.dim]) == ("z", ["batch", 3])
    shape = [axis.dim_param or axis.dim_value for axis in images.type.tensor_type.shape.dim]
    assert (images.name, shape) == ("images", ["batch", 8, 8, 1])
    assert {each.key: each.value for each in model.metadata_props} == {"jaxgen": '{"experiment": "vae_mnist"}'}
    names = {weights.name for weights in model.graph.initializer}
    assert {"decoder.0.weight", "convTrans1.0.bias", "convTrans1.1.running_var"} <= names
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("ConvTranspose") == 2
    assert operators.count("Transpose") <= 1  # at the end only


def test_unrolled_steps_share_their_weights():
    (complete,) = functions("lstm", unrolled=True)
    model = onnx.load_from_string(onnx_model(complete))
    assert sum(node.op_type == "LSTM" for node in model.graph.node) == 4
    assert sum("weight_hh" in weights.name for weights in model.graph.initializer) == 1


LAYERS = {
    "conv": (layers.Conv(6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (7, 8, 4)),
    "conv_same": (layers.Conv(3, (4, 3), padding="same", dilation=(1, 2), use_bias=False), (6, 5, 2)),
    "conv_valid": (layers.Conv(3, 3, padding="valid"), (6, 5, 2)),
    "conv_transpose": (
        layers.ConvTranspose(4, (3, 2), stride=2, padding=(1, 0), output_padding=1, groups=2),
        (3, 4, 6),
    ),
    "conv_transpose_dilated": (layers.ConvTranspose(2, 3, dilation=2, use_bias=False), (3, 4, 1)),
    "max_pool": (layers.MaxPool((3, 2), stride=(2, 1), padding=(1, 0)), (7, 6, 2)),
    "linear": (layers.Linear(4), (3,)),
    "linear_in_sequence": (layers.Linear(4, use_bias=False), (5, 3)),
    "batch_norm": (layers.BatchNorm(eps=1e-3), (4, 5, 3)),
    "batch_norm_of_vectors": (layers.BatchNorm(), (3,)),
    "batch_norm_in_sequence": (layers.BatchNorm(), (5, 3)),
    "group_norm": (layers.GroupNorm(num_groups=2), (4, 5, 6)),
    "lstm": (layers.LSTM(4, num_layers=2, bidirectional=True), (5, 3)),
    "gru": (layers.GRU(4, num_layers=2), (5, 3)),
    "gru_without_bias": (layers.GRU(4, bidirectional=True, use_bias=False), (5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_onnx_has_every_layer(name):
    layer, shape = LAYERS[name]
    function = Function(
        "apply", partial(layer.apply, variables_of(layer, shape)), {"x": ((None, *shape), "float32")}, "y"
    )
    (x,) = inputs_of(function, 3)
    np.testing.assert_allclose(run_onnx(onnx_model(function), [x]), function.call(x), rtol=1e-5, atol=1e-5)


TABLE = np.arange(12, dtype=np.float32).reshape(4, 3)
CODE = {
    "activations": lambda x: jax.nn.gelu(x) + jax.nn.silu(x) * jax.nn.leaky_relu(x) - jnp.tanh(x),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "powers": lambda x: jax.lax.rsqrt(1 + x**2) + jnp.square(x) ** 3 - jnp.sqrt(jnp.abs(x)),
    "exponentials": lambda x: jnp.log1p(jnp.exp(x)) + jnp.expm1(-x),
    "comparisons": lambda x: jnp.where((x > 0) & (x != 1), jnp.clip(x, -1, 1), jnp.sign(x)),
    "parts": lambda x: x[:, :, ::2] + x[:, :1, 2:] - x[:, -1:, :1],
    "entries": lambda x: x[:, 1] + x[..., 0, :],
    "products": lambda x: jnp.einsum("bij,kj->bki", x, TABLE[:, [0, 1, 2, 0]]),
    "sums": lambda x: x.mean(axis=1) + x.max(axis=1) - x.min(axis=1),
    "shapes": lambda x: x.transpose(0, 2, 1).reshape(x.shape[0], -1),
    "constants": lambda x: jnp.concatenate([x, jnp.zeros((x.shape[0], 1, 4))], axis=1) * TABLE[0, 1],
    "broadcast": lambda x: x + jnp.arange(4.0) * jnp.arange(3.0)[:, None],
}


@pytest.mark.parametrize("name", CODE)
def test_onnx_has_what_lies_between_layers(name):
    function = Function("apply", CODE[name], {"x": ((None, 3, 4), "float32")}, "y")
    (x,) = inputs_of(function, 2)
    np.testing.assert_allclose(run_onnx(onnx_model(function), [x]), function.call(x), rtol=1e-5, atol=1e-5)


def test_onnx_looks_labels_up():
    function = Function("apply", lambda labels: jnp.asarray(TABLE)[labels], {"labels": ((None,), "int32")}, "y")
    labels = np.array([3, 0, 1, 1], np.int32)
    np.testing.assert_array_equal(run_onnx(onnx_model(function), [labels]), TABLE[labels])


def test_onnx_refuses_what_it_lacks():
    function = Function("apply", lambda x: jnp.sort(x, axis=1), {"x": ((None, 3), "float32")}, "y")
    with pytest.raises(jaxgen.InputError, match=r"sort is not supported outside .*; export to stablehlo"):
        onnx_model(function)


def test_onnx_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(jaxgen.InputError, match=r"pip install 'jaxgen\[onnx\]'"):
        onnx_model(functions("vae")[0])


def test_a_height_without_rows_to_complete_is_refused():
    with pytest.raises(jaxgen.InputError, match="9 rows to keep: must be from 1 to 8"):
        functions("lstm", height=9, length=9)
