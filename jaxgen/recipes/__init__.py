"""Functions from recipe to recipe: they change how a model learns, and no model knows of them."""

from jaxgen.recipes.averaging import Averaged, averaged
from jaxgen.recipes.many_models import many, one_of

__all__ = ["Averaged", "averaged", "many", "one_of"]
