"""Five classic image-generation recipes as pure functions in JAX."""

from jaxgen import parallel, torch_weights
from jaxgen.errors import InputError
from jaxgen.stored import load
from jaxgen.training import Recipe, Source, fit, scaled

__all__ = ["InputError", "Recipe", "Source", "fit", "load", "parallel", "scaled", "torch_weights"]
