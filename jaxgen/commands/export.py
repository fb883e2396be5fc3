"""Export a trained model for elsewhere: StableHLO, ONNX, or a folder for a model hub.

Each function of the model becomes a file: `generate` and `sample` of a generator, `encode`, `decode` and `reconstruct`
of an autoencoder, `complete` of a recurrent network. StableHLO needs JAX alone, ONNX any of its runtimes; both hold the
weights and take batches of any size. The folder for a hub holds weights, configuration, model card, figures and a
picture.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn

import jaxgen
from jaxgen import export, torch_weights
from jaxgen.commands._options import ModelOptions, write_files
from jaxgen.errors import InputError
from jaxgen.runs import Count, Layout, Several, option
