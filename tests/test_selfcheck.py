"""The self-check of the arithmetic of jaxlib, and the error where it is wrong."""

import jax
import jax.numpy as jnp
import jaxlib
import pytest

from jaxgen import selfcheck
from jaxgen.errors import InputError
from tests.test_runs import call


def max_pool_case() -> selfcheck.Case:
    return next(case for case in selfcheck.cases() if case.name.startswith("max_pool"))


def test_operations_agree_with_float64():
    assert selfcheck.check(jax.devices()[0]) < 1e-5


def test_run_starts_after_a_passed_check(tmp_path, monkeypatch, capsys):
    case = max_pool_case()
    monkeypatch.setattr(selfcheck, "cases", lambda: [case])
    status, out, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--self-check", "--epochs", "1")
    assert (status, err) == (0, "")
    assert out.startswith("self-check: operations and gradients agree with float64 to ")


@jax.custom_vjp
def slightly_wrong(x):
    return x


slightly_wrong.defvjp(lambda x: (x, None), lambda _, g: (g.at[0].multiply(1.01),))

WRONG = {
    "the output": lambda x: x.at[0, 0, 0, 0].add(0.01),
    "the gradient by argument 0": slightly_wrong,
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_result_is_refused_and_named(tmp_path, monkeypatch, capsys, what):
    case = max_pool_case()
    spoil = WRONG[what]
    ours = (lambda x: spoil(case.ours(x))) if what == "the output" else (lambda x: case.ours(spoil(x)))
    monkeypatch.setattr(selfcheck, "cases", lambda: [case._replace(ours=ours)])
    status, out, err = call(monkeypatch, capsys, "--out", str(tmp_path / "run"), "--self-check")
    assert (status, out) == (2, "")
    assert err.startswith(f"error: jaxlib {jaxlib.__version__} computes wrongly on cpu here: {what} of max_pool")
    assert not (tmp_path / "run").exists()


def test_nan_is_refused(monkeypatch):
    case = max_pool_case()
    monkeypatch.setattr(selfcheck, "cases", lambda: [case._replace(ours=lambda x: case.ours(x) * jnp.nan)])
    with pytest.raises(InputError, match="computes wrongly"):
        selfcheck.check(jax.devices()[0])
