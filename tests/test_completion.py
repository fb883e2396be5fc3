"""Row completion against PyTorch: windows, training and completed images, with both cells."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from sklearn.datasets import load_sample_image

from jaxgen import torch_weights
from jaxgen.models import completion
from jaxgen.models.completion import RowCompleter
from tests.support import torch_recipes
from tests.support.parity import largest_difference, optax_moments, tensors_of, torch_moments, variables_of

LENGTH = 28
CELLS = ["lstm", "gru"]


def photographs(count: int) -> np.ndarray:
    """`count` gray tiles of a photograph, uint8 `[count, 56, 56, 1]`."""
    gray = load_sample_image("flower.jpg")[: 7 * 56, : 11 * 56].mean(-1).astype(np.uint8)
    return gray.reshape(7, 56, 11, 56).swapaxes(1, 2).reshape(-1, 56, 56, 1)[:count]


class Pair:
    """The recipe here and in PyTorch, from the same weights."""

    def __init__(self, cell: str, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.network = torch_recipes.RowCompleter(cell).to(dtype)
        self.optimizer = torch_recipes.completion_optimizer(self.network)
        self.recipe = completion.recipe(cell)
        self.state = self.recipe.init(jax.random.key(0), variables_of(RowCompleter(cell), self.network))
        self.update = jax.jit(self.recipe.update)

    def step(self, windows: np.ndarray, targets: np.ndarray) -> float:
        """One step of both; the difference of the losses."""
        noise = self.recipe.noise(jax.random.key(0), len(windows))
        self.state, ours = self.update(self.state, (windows, targets), noise)
        batch = torch.from_numpy(windows), torch.from_numpy(targets)
        theirs = torch_recipes.completion_step(self.network, self.optimizer, *batch)
        assert ours.keys() == theirs.keys()
        assert ours["loss"][1] == 1
        return abs(float(ours["loss"][0]) - theirs["loss"])

    def difference(self) -> float:
        """The largest difference of a parameter or an Adam moment."""
        return max(
            largest_difference(torch_weights.flatten(self.state.variables), tensors_of(self.network)),
            largest_difference(optax_moments(self.state.optimizer), torch_moments(self.network, self.optimizer)),
        )


def batches(count: int, size: int, dtype: type) -> list[tuple[np.ndarray, np.ndarray]]:
    """Shuffled windows and the rows after them."""
    images = torch.from_numpy(photographs(20)[..., 0] / 255)
    windows, targets = torch_recipes.cut_windows(images, LENGTH)
    rng = np.random.default_rng(0)
    rows = [rng.choice(len(windows), size, replace=False) for _ in range(count)]
    return [(windows.numpy()[chosen].astype(dtype), targets.numpy()[chosen].astype(dtype)) for chosen in rows]


@pytest.mark.parametrize("cell", CELLS)
def test_trains_as_pytorch_does_for_100_steps(float64: None, cell: str) -> None:
    pair = Pair(cell, torch.float64)
    for windows, targets in batches(100, 8, np.float64):
        assert pair.step(windows, targets) < 1e-9
    assert pair.difference() < 1e-9


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_in_float32(cell: str) -> None:
    """Adam's first moment after one step is a tenth of the gradient."""
    pair = Pair(cell, torch.float32)
    [(windows, targets)] = batches(1, 32, np.float32)
    assert pair.step(windows, targets) < 1e-6
    ours, theirs = optax_moments(pair.state.optimizer), torch_moments(pair.network, pair.optimizer)
    for name, gradient in theirs.items():
        if name.startswith("first"):
            assert np.linalg.norm(ours[name] - gradient) < 1e-4 * np.linalg.norm(gradient), name


@pytest.mark.parametrize(
    ("cell", "height", "width", "length"), [("lstm", 56, 56, 28), ("gru", 56, 56, 28), ("gru", 9, 5, 4)]
)
def test_completes_ten_images_row_by_row_as_pytorch_does(cell: str, height: int, width: int, length: int) -> None:
    torch.manual_seed(0)
    network, module = torch_recipes.RowCompleter(cell, width=width), RowCompleter(cell, width=width)
    images = (photographs(10)[:, :height, :width] / 255).astype(np.float32)
    complete = jax.jit(completion.complete, static_argnums=(0, 3))
    ours = complete(module, variables_of(module, network), images, length)
    theirs = torch_recipes.complete(network, torch.from_numpy(images[..., 0]), length).numpy()
    assert ours.shape == images.shape
    np.testing.assert_array_equal(ours[:, :length], images[:, :length])
    for row in range(length, height):
        np.testing.assert_allclose(ours[:, row, :, 0], theirs[:, row], rtol=0, atol=1e-5, err_msg=f"row {row}")


@pytest.mark.parametrize(("count", "height", "width", "length"), [(3, 56, 56, 28), (4, 9, 5, 2), (2, 6, 7, 5)])
def test_windows_are_all_of_them_in_the_order_of_the_images(count: int, height: int, width: int, length: int) -> None:
    images = photographs(count)[:, :height, :width]
    source = completion.windows(jnp.asarray(images), length)
    windows, targets = jax.jit(source.batch)(source.arrays, jnp.arange(source.size))
    wanted_windows, wanted_targets = torch_recipes.cut_windows(torch.from_numpy(images[..., 0] / 255), length)
    assert source.size == count * (height - length) == len(wanted_windows)
    np.testing.assert_allclose(windows, wanted_windows, rtol=1e-6)
    np.testing.assert_allclose(targets, wanted_targets, rtol=1e-6)


def test_windows_are_indices_and_no_copies() -> None:
    images = jnp.asarray(photographs(3))
    assert completion.windows(images, LENGTH).arrays is images


def test_windows_are_scaled_by_their_white() -> None:
    source = completion.windows(jnp.asarray(photographs(1) // 17), LENGTH, white=15)
    windows, _ = jax.jit(source.batch)(source.arrays, jnp.array([5]))
    np.testing.assert_allclose(windows[0], photographs(1)[0, 5 : 5 + LENGTH, :, 0] // 17 / 15, rtol=1e-6)


def test_another_size_learns() -> None:
    recipe = completion.recipe(module=RowCompleter("lstm", hidden=16, width=10), optimizer=optax.adam(0.01))
    source = completion.windows(jnp.asarray(photographs(4)[:, :12, :10]), 5)
    batch = jax.jit(source.batch)(source.arrays, jnp.arange(source.size))
    state, update, losses = recipe.init(jax.random.key(0)), jax.jit(recipe.update), []
    for _ in range(50):
        state, metrics = update(state, batch, completion.Noise())
        losses.append(metrics["loss"][0])
    assert losses[-1] < losses[0] / 2
    assert recipe.variables(state)["params"]["fc"]["weight"].shape == (16, 10)


def test_given_weights_are_copied_and_used() -> None:
    recipe = completion.recipe("gru")
    weights = variables_of(RowCompleter("gru"), torch_recipes.RowCompleter("gru"))
    given = recipe.variables(recipe.init(jax.random.key(0), weights))
    for ours, theirs in zip(jax.tree.leaves(given), jax.tree.leaves(weights), strict=True):
        assert ours.unsafe_buffer_pointer() != theirs.unsafe_buffer_pointer()
        np.testing.assert_array_equal(ours, theirs)


def test_images_of_another_kind_are_refused() -> None:
    module = RowCompleter("gru", hidden=4, width=10)
    variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, 10)))
    for dtype, width, said in (("uint8", 10, r"not uint8 .*jaxgen\.scaled"), ("float32", 9, r"\(batch, \*, 10\), not")):
        with pytest.raises(ValueError, match=said):
            jax.eval_shape(
                lambda variables, images: completion.complete(module, variables, images, 3),
                variables,
                jnp.zeros((2, 6, width, 1), dtype),
            )
