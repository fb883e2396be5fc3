"""The models that a run trains together: one, or several that differ in their seeds and in other options."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from jaxgen.metrics.figure import aligned
from jaxgen.recipes import many, model_of
from jaxgen.runs.config import CROSSED, Config, metadata
from jaxgen.training import PyTree, Recipe

SHOWN = 4  # of several models, the first few are drawn


class Models(NamedTuple):
    """The models of a run.

    Attributes:
        seeds: for each model, the index of its keys.
        hyperparams: the options with several values, with the value of each model.
    """

    seeds: tuple[int, ...]
    hyperparams: Mapping[str, tuple[float, ...]]

    @property
    def number(self) -> int:
        return len(self.seeds)

    @property
    def are_several(self) -> bool:
        return self.number > 1

    @property
    def labels(self) -> list[str]:
        """What tells each model from the others, such as `seed 3` or `learning rate 0.001, seed 3`."""
        labels = []
        for index, seed in enumerate(self.seeds):
            parts = [f"{name.replace('_', ' ')} {values[index]:g}" for name, values in self.hyperparams.items()]
            labels.append(", ".join([*parts, f"seed {seed}"] if len(set(self.seeds)) > 1 or not parts else parts))
        return labels

    def same_but_for_seed(self) -> dict[str, list[int]]:
        """The indices of models that differ in their seed alone, by what they have in common, such as `rate 0.1, `."""
        found: dict[str, list[int]] = {}
        for index in range(self.number):
            common = "".join(f"{name.replace('_', ' ')} {each[index]:g}, " for name, each in self.hyperparams.items())
            found.setdefault(common, []).append(index)
        return found

    def recipe(self, recipe: Recipe[Any]) -> Recipe[Any]:
        """The recipe of all models, given that of one."""
        if not self.are_several:
            return recipe
        return many(recipe, self.number, self.hyperparams, indices=self.seeds)

    def each(self, variables: PyTree) -> Iterator[PyTree]:
        """The variables of each model, as the recipe of one has them."""
        if not self.are_several:
            yield variables
            return
        for index in range(self.number):
            yield model_of(variables, index)


def models_of(config: Config) -> Models:
    """The models that a configuration asks for: every combination of its options with several values, and its seeds."""
    crossed = {
        name: getattr(config, name)
        for name, field in type(config).model_fields.items()
        if CROSSED in metadata(field) and isinstance(getattr(config, name), tuple)
    }
    combinations = list(product(*crossed.values(), range(config.seeds)))
    *values, seeds = zip(*combinations, strict=True)
    return Models(seeds, dict(zip(crossed, values, strict=True)))


# ---- Figures of several models, which are named `loss/0`, `loss/1`, … ----


class Spread(NamedTuple):
    """A figure of several models: their mean, and the standard deviation of a single one."""

    mean: float
    deviation: float

    def __format__(self, form: str) -> str:
        """As `0.0123±0.0004`; the form is that of a float."""
        deviation = f"{self.deviation:.1g}" if self.deviation < 9.5 else f"{self.deviation:.0f}"
        return f"{self.mean:{form}}±{deviation}"


def spread(values: Iterable[float]) -> Spread:
    """The mean of figures, and their standard deviation, which for a single figure is 0."""
    values = list(values)
    deviation = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else 0.0
    return Spread(float(np.mean(values)), deviation)


def by_name(figures: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Figures of all models by the name of the figure; one that is of no model has a list of one."""
    found: dict[str, list[Any]] = {}
    for name, value in figures.items():
        base, _, index = name.rpartition("/")
        found.setdefault(base if base and index.isdigit() else name, []).append(value)
    return found


def summarised(figures: Mapping[str, float]) -> dict[str, float | Spread]:
    """Figures by name, in which those of several models are one."""
    return {name: values[0] if len(values) == 1 else spread(values) for name, values in by_name(figures).items()}


def means(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures by name, in which those of several models are their mean."""
    return {name: spread(values).mean for name, values in by_name(figures).items()}


def of_model(figures: Mapping[str, Any], index: int) -> dict[str, Any]:
    """The figures of one model, under the names that they have for a single model."""
    ending = f"/{index}"
    return {name.removesuffix(ending): value for name, value in figures.items() if name.endswith(ending)}


def of_models(figures: Mapping[str, Any], name: str, length: int | None = None) -> np.ndarray:
    """The values of one figure as an array, whose first axis is the models; of a single model, that has one.

    Args:
        figures: a history, whose values are sequences, or results, whose values are numbers.
        name: the figure, without the number of a model.
        length: how many of a sequence's first values to take; None for all.
    """
    values = [figures[f"{name}/{index}"] for index in range(len(figures)) if f"{name}/{index}" in figures]
    return np.asarray(
        [np.asarray(value)[..., :length] if np.ndim(value) else value for value in values or [figures[name]]]
    )


def table(models: Models, figures: Mapping[str, list[float]]) -> str:
    """A table with a row for each model and a column for each figure; then means and deviations over seeds.

    Args:
        models: the models.
        figures: by name, a value for each model.
    """
    rows = [["", *(name.replace("_", " ") for name in figures)]]
    rows += [
        [label, *(f"{values[index]:.4g}" for values in figures.values())] for index, label in enumerate(models.labels)
    ]
    if len(set(models.seeds)) > 1:
        rows += [
            [f"{label}mean ± deviation", *(f"{spread(values[i] for i in indices):.4g}" for values in figures.values())]
            for label, indices in models.same_but_for_seed().items()
        ]
    return aligned(rows)
