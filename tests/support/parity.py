"""Comparing a training with PyTorch's: the same weights in, and every tensor out under one name."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
import torch

from jaxgen import torch_weights


def variables_of(module: nn.Module, reference: torch.nn.Module) -> Any:
    """The PyTorch module's weights as the Flax module's variables, in the same precision."""
    return torch_weights.load(module, {name: tensor.numpy() for name, tensor in reference.state_dict().items()})


def tensors_of(reference: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in reference.state_dict().items()}


def torch_moments(reference: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Adam's two moments, as "first conv.weight" and "second conv.weight"."""
    found = {}
    for name, parameter in reference.named_parameters():
        found[f"first {name}"] = optimizer.state[parameter]["exp_avg"].numpy()
        found[f"second {name}"] = optimizer.state[parameter]["exp_avg_sq"].numpy()
    return found


def optax_moments(state: optax.OptState) -> dict[str, np.ndarray]:
    adam = next(part for part in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(part))
    moments = {"first": adam.mu, "second": adam.nu}
    return {
        f"{which} {name}": tensor
        for which, tree in moments.items()
        for name, tensor in torch_weights.flatten({"params": tree}).items()
    }


def is_adam(part: Any) -> bool:
    return isinstance(part, optax.ScaleByAdamState)


def largest_difference(ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> float:
    """The largest absolute difference of any element of any tensor; the names must be the same."""
    assert ours.keys() == theirs.keys()
    return max(float(np.max(np.abs(np.asarray(ours[name], np.float64) - theirs[name]))) for name in theirs)


def channels_first(images: np.ndarray) -> torch.Tensor:
    """`[B, H, W, C]` as PyTorch's `[B, C, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(images), -1, 1)))
