"""Trained models for elsewhere: StableHLO programs, ONNX models, and a folder for a model hub."""

from jaxgen.export.functions import Function, functions_of
from jaxgen.export.hub import Card, hub_folder
from jaxgen.export.onnx import onnx_model
from jaxgen.export.stablehlo import stablehlo

__all__ = ["Card", "Function", "functions_of", "hub_folder", "onnx_model", "stablehlo"]
