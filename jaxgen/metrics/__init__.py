"""Measures of what a model is worth: arrays in, numbers out.

`of_samples`, `of_autoencoder`, `of_vae` and `of_completion` give the figures of a kind of model, each with what it
takes to read it: a floor, a simple baseline, a standard error. `table` shows them. The measures by themselves are plain
functions of arrays.
"""

from jaxgen.metrics.distances import frechet_distance, kernel_distance
from jaxgen.metrics.features import Features, learned_features, pixels
from jaxgen.metrics.figure import Figure, Figures, as_json, table, title
from jaxgen.metrics.images import psnr, squared_error, ssim, window_sigma
from jaxgen.metrics.latent import Bounds, Codes, active_units, bounds, decoded, encoded, linear_probe
from jaxgen.metrics.neighbours import (
    DensityCoverage,
    PrecisionRecall,
    density_coverage,
    nearest,
    precision_recall,
    radii,
)
from jaxgen.metrics.of_models import Complete, Reconstruct, of_autoencoder, of_completion, of_vae
from jaxgen.metrics.pca import PCA, principal_components
from jaxgen.metrics.samples import FEWEST, FLOOR, SampleMeasure, of_samples
from jaxgen.metrics.scaling import halves

__all__ = [
    "FEWEST",
    "FLOOR",
    "PCA",
    "Bounds",
    "Codes",
    "Complete",
    "DensityCoverage",
    "Features",
    "Figure",
    "Figures",
    "PrecisionRecall",
    "Reconstruct",
    "SampleMeasure",
    "active_units",
    "as_json",
    "bounds",
    "decoded",
    "density_coverage",
    "encoded",
    "frechet_distance",
    "halves",
    "kernel_distance",
    "learned_features",
    "linear_probe",
    "nearest",
    "of_autoencoder",
    "of_completion",
    "of_samples",
    "of_vae",
    "pixels",
    "precision_recall",
    "principal_components",
    "psnr",
    "radii",
    "squared_error",
    "ssim",
    "table",
    "title",
    "window_sigma",
]
