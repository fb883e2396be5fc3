"""The losses against PyTorch's, and where they are meant to be better."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from jaxgen import losses
from tests.support import torch_recipes


def differentiate(loss, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A loss and its gradient by its first argument."""
    return jax.jit(jax.value_and_grad(loss))(*arrays)


def differentiate_torch(loss, first: np.ndarray, *rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first = torch.tensor(first, requires_grad=True)
    value = loss(first, *map(torch.tensor, rest))
    value.backward()
    return value.detach().numpy(), first.grad.numpy()


def on_probabilities(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The cross-entropy as the tutorials have it: a sigmoid, then BCELoss."""
    return functional.binary_cross_entropy(torch.sigmoid(logits), target)


@pytest.mark.parametrize("target", [0.0, 1.0, 0.9, "mixed"])
def test_cross_entropy_is_pytorchs_where_that_is_not_clamped(float64: None, target: float | str) -> None:
    rng = np.random.default_rng(0)
    logits = rng.uniform(-10, 10, (8, 5))
    targets = rng.uniform(size=logits.shape) if target == "mixed" else np.full(logits.shape, target)
    wanted = differentiate_torch(on_probabilities, logits, targets)
    for given in [targets] if target == "mixed" else [targets, target]:  # a target may be one number for all
        for ours, theirs in zip(differentiate(losses.binary_cross_entropy, logits, given), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_cross_entropy_in_float32(target: float) -> None:
    logits = np.random.default_rng(0).uniform(-5, 5, 64).astype(np.float32)
    wanted = differentiate_torch(on_probabilities, logits, np.full_like(logits, target))
    for ours, theirs in zip(differentiate(losses.binary_cross_entropy, logits, target), wanted, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7 * np.abs(theirs).max())


@pytest.mark.parametrize(("logit", "target"), [(20, 0), (90, 0), (1e4, 0), (-120, 1), (-1e4, 1)])
def test_a_wrong_answer_that_is_sure_still_teaches(logit: float, target: float) -> None:
    """The loss is |l| and its gradient ±1, both exactly; PyTorch's stops at 100 at most and its gradient is gone."""
    value, gradient = differentiate(losses.binary_cross_entropy, np.float32([logit]), np.float32([target]))
    assert value == abs(logit)
    assert gradient == np.sign(logit)
    value, gradient = differentiate_torch(on_probabilities, np.float32([logit]), np.float32([target]))
    assert value == 100
    assert gradient == 0


def test_pytorchs_gradient_fades_before_its_loss_stops() -> None:
    logits, targets = np.float32([-40]), np.float32([1])
    value, gradient = differentiate(losses.binary_cross_entropy, logits, targets)
    value_torch, gradient_torch = differentiate_torch(on_probabilities, logits, targets)
    assert value == value_torch == 40
    assert gradient == -1
    assert -1e-5 < gradient_torch < 0


@pytest.mark.parametrize(("logit", "target"), [(0, 0), (0, 1), (30, 1), (-30, 0), (300, 1), (-300, 0)])
def test_cross_entropy_at_zero_and_of_right_answers(logit: float, target: float) -> None:
    """ln 2 and ±½ at zero (the derivatives of |l| and max(l, 0) are not defined there); no digit lost in the tails."""
    value, gradient = differentiate(losses.binary_cross_entropy, np.float32([logit]), np.float32([target]))
    wrong = np.exp(-abs(logit)) / (1 + np.exp(-abs(logit)))  # the probability of the other answer
    assert value == pytest.approx(-np.log1p(-wrong), rel=1e-6, abs=1e-40)
    assert gradient == pytest.approx(wrong if target == 0 else -wrong, rel=1e-6, abs=1e-40)


def test_mean_squared_error(float64: None) -> None:
    prediction, target = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    wanted = differentiate_torch(functional.mse_loss, prediction, target)
    for ours, theirs in zip(differentiate(losses.mean_squared_error, prediction, target), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-12)])
def test_the_vaes_two_terms(dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    images, reconstruction = rng.uniform(size=(2, 5, 7, 7, 1)).astype(dtype)
    mean, log_variance = rng.normal(size=(2, 5, 3)).astype(dtype)

    def terms(y: torch.Tensor, x: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch_recipes.vae_losses(x, torch_recipes.VAEOutput(m, v, m, y))

    x, y, m, v = map(torch.tensor, (images, reconstruction, mean, log_variance))
    with jax.enable_x64(dtype == "float64"):
        pairs = [
            (
                differentiate(losses.bernoulli_cross_entropy, reconstruction, images),
                differentiate_torch(lambda y: terms(y, x, m, v)[0], reconstruction),
            ),
            (
                differentiate(losses.gaussian_kl, mean, log_variance),
                differentiate_torch(lambda m: terms(y, x, m, v)[1], mean),
            ),
            (
                differentiate(lambda v: losses.gaussian_kl(mean, v), log_variance),
                differentiate_torch(lambda v: terms(y, x, m, v)[1], log_variance),
            ),
        ]
        for ours, theirs in pairs:
            np.testing.assert_allclose(ours[0], theirs[0], rtol=tolerance)
            np.testing.assert_allclose(ours[1], theirs[1], rtol=0, atol=tolerance * np.abs(theirs[1]).max())


def test_bernoulli_cross_entropy_stays_finite_at_0_and_1() -> None:
    certain = jnp.array([0.0, 1.0])
    assert losses.bernoulli_cross_entropy(certain, certain) == pytest.approx(0, abs=1e-6)
    assert losses.bernoulli_cross_entropy(certain, 1 - certain) == pytest.approx(-2 * np.log(1e-7), rel=1e-6)


def test_gaussian_kl_is_the_divergence_from_the_standard_normal(float64: None) -> None:
    mean, log_variance = np.random.default_rng(0).normal(size=(2, 4, 3))
    encoded = torch.distributions.Normal(torch.tensor(mean), torch.tensor(log_variance).mul(0.5).exp())
    divergence = torch.distributions.kl_divergence(encoded, torch.distributions.Normal(0.0, 1.0)).sum()
    assert losses.gaussian_kl(mean, log_variance) == pytest.approx(float(divergence), rel=1e-13)
    assert losses.gaussian_kl(jnp.zeros(3), jnp.zeros(3)) == 0


@pytest.mark.parametrize(
    "loss",
    [
        losses.binary_cross_entropy,
        losses.mean_squared_error,
        losses.bernoulli_cross_entropy,
        losses.gaussian_kl,
    ],
)
@pytest.mark.parametrize(("first", "second"), [((4, 1), (4,)), ((4,), (4, 1)), ((2, 3), (1, 3)), ((3,), (1,))])
def test_shapes_that_differ_are_refused(loss, first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{loss.__name__}: shapes {first} and {second} differ")):
        loss(jnp.full(first, 0.5), jnp.full(second, 0.5))


@pytest.mark.parametrize("target", [0.25, np.float32(0.25), jnp.array(0.25)])
def test_a_target_may_be_one_number(target: float | jax.Array) -> None:
    x = jnp.array([0.1, 0.5, 0.9])
    for loss in (losses.binary_cross_entropy, losses.mean_squared_error, losses.bernoulli_cross_entropy):
        assert loss(x, target) == loss(x, jnp.full(3, 0.25))
