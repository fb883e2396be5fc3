"""Five classic image-generation recipes as pure functions in JAX."""

from jaxgen import parallel, torch_weights
from jaxgen.errors import InputError
from jaxgen.ops.conv import conv_general_dilated
from jaxgen.precision import in_precision
from jaxgen.recipes import averaged, many, one_of
from jaxgen.trained import Trained, load
from jaxgen.training import Recipe, Source, fit, scaled

__version__ = "0.2.0.dev0"

__all__ = [
    "InputError",
    "Recipe",
    "Source",
    "Trained",
    "__version__",
    "averaged",
    "conv_general_dilated",
    "fit",
    "in_precision",
    "load",
    "many",
    "one_of",
    "parallel",
    "scaled",
    "torch_weights",
]
