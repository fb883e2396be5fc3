"""Functions from recipe to recipe: they change how a model learns, and no model knows of them."""

from jaxgen.recipes.averaging import Averaged, averaged
from jaxgen.recipes.many_models import many, model_of, one_of, with_hyperparams

__all__ = ["Averaged", "averaged", "many", "model_of", "one_of", "with_hyperparams"]
