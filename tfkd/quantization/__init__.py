"""Quantization-aware students, on the extension points of tensorflow-model-optimization (tfmot).

`quantize` takes these steps, each in a module of its own:

1. `schemes`: finds the `Scheme` of a name such as "w8a8".
2. `tfkd.models.flatten`: makes one graph of nested models.
3. `preflight`: refuses layers that the scheme cannot quantize, naming all of them.
4. `lowering`: rewrites the model in layers that an integer file computes with one operation each.
5. `placement` and `configs` (integers), `low_bit` (fixed grids) or `learned_step`: choose which tensors of each layer
   are rounded, and round them.
6. `wrappers`: wraps these layers in classes that can be saved and frozen, and initializes kernel ranges.
7. `export_check`: converts unusual networks once, so that a failure shows before the training.
8. `calibration`: sets the ranges of features from data.

`grid` and `conversion` serve `tfkd.deploy`: the first restores the trained grid in a converted file, the second runs
TensorFlow's converter in another process.
"""

import importlib

from tfkd.quantization import _tfmot as _tfmot  # First: it imports tfmot without side effects on other libraries.
from tfkd.quantization._quantize import check as check
from tfkd.quantization._quantize import quantize as quantize
from tfkd.quantization._sizes import sizes as sizes
from tfkd.quantization.calibration import calibrate as calibrate
from tfkd.quantization.calibration import is_uncalibrated as is_uncalibrated
from tfkd.quantization.inputs import input_batches as input_batches
from tfkd.quantization.learned_quantizers import LearnedStepFeatures as LearnedStepFeatures
from tfkd.quantization.learned_quantizers import LearnedStepWeights as LearnedStepWeights
from tfkd.quantization.low_bit import LowBitFeatures as LowBitFeatures
from tfkd.quantization.low_bit import LowBitWeights as LowBitWeights
from tfkd.quantization.saving import load as load
from tfkd.quantization.saving import save as save
from tfkd.quantization.schemes import INT8 as INT8
from tfkd.quantization.schemes import ByLayer as ByLayer
from tfkd.quantization.schemes import FixedGrid as FixedGrid
from tfkd.quantization.schemes import LearnedStep as LearnedStep
from tfkd.quantization.schemes import LearnedStepIntegers as LearnedStepIntegers
from tfkd.quantization.schemes import NBitWeights as NBitWeights
from tfkd.quantization.schemes import Scheme as Scheme
from tfkd.quantization.schemes import parse_scheme as parse_scheme
from tfkd.quantization.schemes import scheme_of as scheme_of
from tfkd.quantization.sensitivity import bits_by_layer as bits_by_layer
from tfkd.quantization.sensitivity import sensitivity as sensitivity


def __getattr__(name):
  if name == "distill":
    # Of the package that trains, which imports this one.
    return importlib.import_module("tfkd.training._quantized").distill
  raise AttributeError(f"module 'tfkd.quantization' has no attribute {name!r}")
