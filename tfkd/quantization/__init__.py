"""Quantization-aware students: schemes on tfmot's extension points, calibration, saving."""

from tfkd.quantization import _tfmot as _tfmot  # First: it is how tfmot is to be loaded.
from tfkd.quantization._sizes import sizes as sizes
from tfkd.quantization.calibration import calibrate as calibrate
from tfkd.quantization.calibration import has_untrained_ranges as has_untrained_ranges
from tfkd.quantization.inputs import input_batches as input_batches
from tfkd.quantization.low_bit import LowBitFeatures as LowBitFeatures
from tfkd.quantization.low_bit import LowBitScheme as LowBitScheme
from tfkd.quantization.low_bit import LowBitWeights as LowBitWeights
from tfkd.quantization.saving import load as load
from tfkd.quantization.saving import save as save
from tfkd.quantization.schemes import Bits as Bits
from tfkd.quantization.schemes import check as check
from tfkd.quantization.schemes import parse_scheme as parse_scheme
from tfkd.quantization.schemes import quantize as quantize
from tfkd.quantization.schemes import scheme_of as scheme_of
